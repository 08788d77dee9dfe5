/* Bad policies: each problem with file:line and the nearest name. */
#include "fixture.h"

#include "route/table/table.h"
#include "support/wait.h"

static const struct {
    const char *name, *policy;
    uint32_t line;
    const char *text; /* part of a problem */
} cases[] = {
    {"unknown key of a relay", "relay 'a' {\n host = 'a.example',\n prot = 25 }", 3,
     "unknown key \"prot\", did you mean \"port\"?"},
    {"unknown key of a route", RELAYS "route 'r' { to = '*', priorty = 3, via = 'a' }", 4,
     "unknown key \"priorty\", did you mean \"priority\"?"},
    {"the beginning of a key", RELAYS "route 'r' { to = '*', prio = 3, via = 'a' }", 4, "did you mean \"priority\"?"},
    {"more than a key", "relay 'a' { host = 'a.example', username = 'u' }", 1, "did you mean \"user\"?"},
    {"a key like no other of a step", RELAYS "route 'r' { to = '*', via = { step 'a' { zzz = 3 } } }", 4,
     "unknown key \"zzz\"; there are on tries within wait from envelope reply_to retry"},
    {"a key like no other of a relay", "relay 'a' { host = 'a.example', zzz = 'u' }", 1, "unknown key \"zzz\"; "},
    {"a key like no other of a route", RELAYS "route 'r' { to = '*', zzz = 'u', via = 'a' }", 4,
     "unknown key \"zzz\"; there are to "},
    {"a key like no other of an arm",
     RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x', share = 100, via = 'a', zzz = 1 } } }", 4,
     "; there are arm share via"},
    {"a key like no other of timeouts", "relay 'a' { host = 'a.example', timeout = { zzz = 1 } }", 1,
     "; there are connect greeting command data dot"},
    {"a key like no other of a listener", "engine { listen = { addr = '127.0.0.1:2525', zzz = 1 } }", 1,
     "; there are addr tls cert key users allow"},
    {"a key like no other of a login",
     "engine { listen = { addr = '127.0.0.1:2525', users = { u = { password = secret 'p', zzz = 1 } } } }", 1,
     "; there are password scenario sender"},
    {"a breaker of a later version", "relay 'a' { host = 'a.example', breaker = { failures = 3 } }", 1,
     "breaker is not available in this version"},
    {"a pool of a later version", RELAYS "route 'r' { to = '*', via = pool { 'a', 'b' } }", 4,
     "pool is not available in this version"},
    {"an archive of a later version", RELAYS "route 'r' { to = '*', via = 'a', archive = 'x@y.example' }", 4,
     "archive is not available in this version"},
    {"unknown key of engine", "engine { hostnam = 'x' }", 1, "did you mean \"hostname\"?"},
    {"unknown key of a step", RELAYS "route 'r' { to = '*', via = { step 'a' { trys = 3 } } }", 4,
     "did you mean \"tries\"?"},
    {"unknown bound", "engine { bounds = { recipiens = 3 } }", 1, "did you mean \"recipients\"?"},
    {"unknown relay", RELAYS "relay 'gmail' { host = 'g.example' }\nroute 'r' { to = '*', via = 'gmial' }", 5,
     "no relay \"gmial\", did you mean \"gmail\"?"},
    {"unknown relay in a step", RELAYS "route 'r' { to = '*', via = { step 'owm' { tries = 1 } } }", 4,
     "no relay \"owm\", did you mean \"own\"?"},
    {"unknown relay in relays", RELAYS "route 'r' { to = '*', via = relays.oen }", 4, "no relay \"oen\""},
    {"unknown instead", "relay 'a' { host = 'a.example', instead = 'bb' }", 1, "no relay \"bb\""},
    {"instead in a circle",
     "relay 'a' { host = 'a.example', instead = 'b' }\nrelay 'b' { host = 'b.example', instead = 'a' }", 1, "circle"},
    {"unknown class", RELAYS "route 'r' { to = '*', via = { step 'a' { on = 'blocked_ipp' } } }", 4,
     "no class \"blocked_ipp\", did you mean \"blocked_ip\"?"},
    {"a class like no other", RELAYS "route 'r' { to = '*', via = { step 'a' { on = 'greylisted' } } }", 4,
     "no class \"greylisted\"; there are ok bad_mailbox bad_domain "},
    {"a set as if it were a class", RELAYS "route 'r' { to = '*', via = { step 'a' { on = 'temporary' } } }", 4,
     "no class \"temporary\"; the set of that name is classes.temporary"},
    {"unknown class to react to", RELAYS "route 'r' { to = '*', via = 'a', react = { temporary = 'next' } }", 4,
     "react: no class \"temporary\"; there are ok bad_mailbox bad_domain "},
    {"unknown set of classes", RELAYS "route 'r' { to = '*', via = { step 'a' { on = classes.our } } }", 4,
     "classes.our is not defined, did you mean classes.ours?"},
    {"unknown set", RELAYS "route 'r' { to = carriers.docmo, via = 'a' }", 4,
     "carriers.docmo is not defined, did you mean carriers.docomo?"},
    {"unknown global", RELAYS "route 'r' { to = '*', via = stepp }", 4, "stepp is not defined, did you mean step?"},
    {"unknown matcher",
     RELAYS "matcher('night', function(r) return true end)\nroute 'r' { to = '*', when = 'nihgt', via = 'a' }", 5,
     "no matcher \"nihgt\", did you mean \"night\"?"},
    {"unknown preset", "relay 'a' { preset = 'gmial', user = 'x@y.example', password = secret 'p' }", 1,
     "no preset \"gmial\", did you mean \"gmail\"?"},
    {"unknown file", "include 'missing.lua'", 1, "include \"missing.lua\""},
    {"file outside", "include '../other.lua'", 1, "inside the policy's folder"},
    {"absolute file", "list '/etc/passwd'", 1, "inside the policy's folder"},
    {"unknown list", RELAYS "route 'r' { to = list 'vip.txt', via = 'a' }", 4, "list \"vip.txt\""},
    {"relay twice", RELAYS "relay 'a' { host = 'c.example' }", 4,
     "relay \"a\" is declared twice, first at policy.lua:2"},
    {"route twice", RELAYS "route 'r' { to = '*', via = 'a' }\nroute 'r' { to = '*', via = 'b' }", 5,
     "route \"r\" is declared twice, first at policy.lua:4"},
    {"engine twice", "engine { }\nengine { }", 2, "engine is declared twice"},
    {"matcher twice", "matcher('m', function() end)\nmatcher('m', function() end)", 2, "declared twice"},
    {"relay without braces", RELAYS "relay 'c'", 4, "relay \"c\" has no braces"},
    {"route without braces", RELAYS "route 'c'", 4, "route \"c\" has no braces"},
    {"step without braces", RELAYS "route 'r' { to = '*', via = { step 'a' } }", 4, "step \"a\" has no braces"},
    {"an address for a mail host", RELAYS "route 'r' { to = '*', mx = 'user@outlook.com', via = 'a' }", 4,
     "mx: \"user@outlook.com\" is an address and no mail host"},
    {"mx of a relay in a route", RELAYS "route 'r' { to = '*', mx = true, via = 'a' }", 4, "mx must be"},
    {"a number for a row's mx", "rows { { name = 'x', host = 'a.example', port = 465, to = '*', mx = 5 } }", 1,
     "row \"x\": mx must be"},
    {"a glob for an address", RELAYS "route 'r' { to = '*@shop.example', via = 'a' }", 4,
     "to: \"*@shop.example\": all addresses of a domain are written \"shop.example\""},
    {"a glob in an address", RELAYS "route 'r' { to = '*', except = 'info*@shop.example', via = 'a' }", 4,
     "except: \"info*@shop.example\": an address is no pattern"},
    {"a glob for an identity", "relay 'a' { host = 'a.example', sends_as = '*@shop.example' }", 1,
     "sends_as: \"*@shop.example\": all addresses of a domain are written \"shop.example\""},
    {"a step of a split", RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x', share = 100, via = { 5 } } } }",
     4, "split \"s\": via: 5 is no relay and no step"},
    {"a day that is none",
     RELAYS
     "route 'r' { to = '*', via = split 's' { { arm = 'x', share = ramp { start = '2026-13-40', 5 }, via = 'a' },"
     " { arm = 'y', share = 'rest', via = 'b' } } }",
     4, "ramp: start must be a day such as \"2026-12-01\", not \"2026-13-40\""},
    {"a share that is none",
     RELAYS
     "route 'r' { to = '*', via = split 's' { { arm = 'x', share = ramp { start = '2026-12-01', 500 }, via = 'a' },"
     " { arm = 'y', share = 'rest', via = 'b' } } }",
     4, "ramp: shares are per cent, 0 to 100, not 500"},
    {"ramps that meet above 100",
     RELAYS "local function up(day) return ramp { start = day, 20, 60 } end\n"
            "route 'r' { to = '*', via = split 's' { { arm = 'x', share = up '2026-12-01', via = 'a' },\n"
            " { arm = 'y', share = up '2026-12-03', via = 'b' }, { arm = 'z', share = 'rest', via = 'own' } } }",
     5, "on some day of the ramps the shares add up to 120, more than 100"},
    {"assignment to a global", "x = 3", 1, "assignment to the global \"x\""},
    {"assignment to a word", "relay = 3", 1, "assignment to the global \"relay\""},
    {"assignment to a library", "string.find = 3", 1, "string is read-only"},
    {"syntax error", "relay 'a' {\n host = \n}", 3, "unexpected symbol"},
    {"run-time error", "local t = nil\nlocal x = t.y", 2, "attempt to index a nil value"},
    {"endless loop", "while true do end", 1, "used up its instructions"},
    {"endless loop in pcall", "while true do pcall(function() while true do end end) end", 1,
     "used up its instructions"},
    {"no to", RELAYS "route 'r' { via = 'a' }", 4, "to is missing"},
    {"no via", RELAYS "route 'r' { to = '*' }", 4, "via is missing"},
    {"empty plan", RELAYS "route 'r' { to = '*', via = { } }", 4, "at least one step"},
    {"17 steps",
     RELAYS "route 'r' { to = '*', via = { 'a','b','a','b','a','b','a','b','a','b','a','b','a','b','a','b','a' } }", 4,
     "at most 16 steps"},
    {"bad address", RELAYS "route 'r' { to = 'a@', via = 'a' }", 4, "\"a@\""},
    {"bad duration", RELAYS "route 'r' { to = '*', via = { step 'a' { within = '2 hours' } } }", 4,
     "within must be a duration"},
    {"bad port", "relay 'a' { host = 'x.example', port = 70000 }", 1, "port must be a whole number from 1 to 65535"},
    {"bad cap", "relay 'a' { host = 'x.example', cap = '10 per min' }", 1, "write \"N/WINDOW\""},
    {"bad tls", "relay 'a' { host = 'x.example', tls = 'starttsl' }", 1, "did you mean \"starttls\"?"},
    {"bad size", "engine { max_message = 'big' }", 1, "max_message must be a size"},
    {"bad listen", "engine { listen = 'localhost' }", 1, "listen: write \"address:port\""},
    {"open listener", "engine { listen = '0.0.0.0:2525' }", 1, "other machines can reach 0.0.0.0"},
    {"logins in the clear", "engine { listen = { addr = '0.0.0.0:2525', users = { a = { password = secret 'x' } } } }",
     1, "nobody can log in at 0.0.0.0 without TLS"},
    {"TLS without certificate", "engine { listen = { addr = '127.0.0.1:2525', tls = 'starttls' } }", 1,
     "for tls, write cert"},
    {"bad time zone", "engine { timezone = 'Asia/Tokio' }", 1, "no time zone \"Asia/Tokio\""},
    {"hotmail with a password", "relay 'h' { preset = 'hotmail', user = 'x@outlook.jp', password = secret 'h' }", 1,
     "takes no password"},
    {"user without password", "relay 'a' { host = 'x.example', user = 'u' }", 1, "no password"},
    {"relay without server", "relay 'a' { }", 1, "write host"},
    {"mx with host", "relay 'a' { mx = true, host = 'x.example' }", 1, "has no host"},
    {"shares", RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x', share = 50, via = 'a' } } }", 4,
     "shares add up to 50, not 100"},
    {"guard is later",
     RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x', share = 100, via = 'a' }, guard = {} } }", 4,
     "guard is not available in this version"},
    {"limit is later", "limit 'x' { cap = '1/s' }", 1, "limit is not available in this version"},
    {"on is later", "on.result(function() end)", 1, "on is not available in this version"},
    {"history is later", "engine { history = '30d' }", 1, "history is not available in this version"},
    {"dkim is later", "relay 'a' { host = 'x.example', dkim = {} }", 1, "dkim is not available in this version"},
    {"secret of a bad name", "relay 'a' { host = 'x.example', user = 'u', password = secret '../x' }", 1,
     "secret needs a name"},
    {"secret joined", "local x = 'a' .. secret 'x'", 1, "cannot be read, joined or compared"},
    {"secret printed through tostring", "error(tostring(secret 'x') == 'secret' and 'opaque' or 'leaked')", 1,
     "opaque"},
    {"clock while loading", "local d = time.days_since '2026-01-01'", 1, "no clock while loading"},
    {"random while loading", "local d = math.random()", 1, "not available while loading"},
    {"type of a key", RELAYS "route 'r' { to = '*', via = 'a', override = 'yes' }", 4,
     "override must be true or false"},
    {"to that is not stated after all", RELAYS "route 'r' { to = env('NOPE', false), via = 'a' }", 4,
     "route \"r\": to is missing"},
    {"tag of no name", RELAYS "route 'r' { to = '*', via = 'a', tag = {} }", 4, "tag: the list is empty"},
    {"scenario of the environment that is not set",
     RELAYS "route 'r' { to = '*', via = 'a',\nscenario = { env 'NOPE' } }", 5, "scenario: the list is empty"},
    {"tag behind a hole", RELAYS "route 'r' { to = '*', via = 'a', tag = { [2] = 'gold' } }", 4,
     "tag: the list has a hole"},
    {"row of an account with other settings",
     "rows {\n{ name = 'x', host = 'h.example', user = 'u', password = secret 'p', cap = '1/s', to = '*' },\n"
     "{ name = 'y', host = 'H.example', user = 'U', password = secret 'p', cap = '2/s', to = '*' } }",
     3, "cap differs from that of \"x\""},
    {"row of an account with a dot behind its host",
     "rows {\n{ name = 'x', host = 'h.example', user = 'u', password = secret 'p', cap = '1/s', to = '*' },\n"
     "{ name = 'y', host = 'h.example.', user = 'u', password = secret 'p', cap = '2/s', to = '*' } }",
     3, "cap differs from that of \"x\""},
    {"row of an account with its address written another way",
     "rows {\n{ name = 'x', host = '2001:db8::1', user = 'u', password = secret 'p', cap = '1/s', to = '*' },\n"
     "{ name = 'y', host = '2001:DB8:0::1', user = 'u', password = secret 'p', cap = '2/s', to = '*' } }",
     3, "cap differs from that of \"x\""},
    {"relay of an account with its address written another way",
     "relay 'x' { host = '2001:db8::1', cap = '1/s' }\nrelay 'y' { host = '2001:db8:0:0::1', cap = '2/s' }", 2,
     "relay \"y\": cap differs from that of \"x\""},
    {"row with a relay and a server", RELAYS "rows { { name = 'x', relay = 'a', port = 3, to = '*' } }", 4,
     "write one of them"},
    {"hole in a plan", RELAYS "route 'r' { to = '*', via = { 'a', nil, 'b', [5] = 'own' } }", 4, "has a hole"},
#define NAME_60 "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
    {"a header section that is longer than any is kept", "engine { bounds = { header_octets = '513K' } }", 1,
     "header_octets must be a size such as \"25M\", from 4096 to 524288 octets"},
    {"row with a name that is too long",
     "rows { { name = '" NAME_60 NAME_60 "n', host = 'a.example', port = 465, to = '*' } }", 1,
     "name must be a string of at most 120 octets"},
    {"arm with a name that is too long",
     RELAYS "route 'r' { to = '*', via = split 's' { { arm = '" NAME_60 NAME_60 "n', share = 100, via = 'a' } } }", 4,
     "arm must be a string of at most 120 octets"},
    {"relay with a name that is too long", "relay '" NAME_60 NAME_60 "n' { mx = true }", 1,
     "a name has 1 to 120 octets"},
    {"user that is too long", "relay 'u' { host = 'a.example', user = '" NAME_60 NAME_60 NAME_60 NAME_60 NAME_60 "' }",
     1, "user must be a string of at most 255 octets"},
    {"hole in rows",
     RELAYS "rows { { name = 'x', relay = 'a', to = '*' }, nil, { name = 'y', relay = 'b', to = '*' } }", 4,
     "has a hole"},
    {"tables that share tables",
     RELAYS "local t = {} for i = 1, 60 do t[i] = 'x' .. i .. '.example' end\n"
            "for n = 1, 6 do local u = {} for i = 1, 60 do u[i] = t end t = u end route 'r' { to = t, via = 'a' }",
     5, "more than 100000 entries"},
    {"an empty redirect, as a variable that is set and empty gives it", RELAYS "engine { redirect = '' }", 4,
     "engine: redirect is empty: write a value, or leave the key out"},
    {"an empty spool", "engine { spool = ' ' }", 1, "engine: spool is empty"},
    {"an empty pin", "relay 'a' { host = 'a.example', pin = '' }", 1, "relay \"a\": pin is empty"},
    {"an empty file of authorities", "relay 'a' { host = 'a.example', ca = '' }", 1, "ca is empty"},
    {"an empty password of a login",
     "engine { listen = { addr = '127.0.0.1:2525', users = { u = { password = '' } } } }", 1,
     "user \"u\": password is empty"},
    {"a login without a name",
     "engine { listen = { addr = '127.0.0.1:2525', users = { [''] = { password = secret 'p' } } } }", 1,
     "a login without a name"},
    {"an empty scenario of a login",
     "engine { listen = { addr = '127.0.0.1:2525', users = { u = { password = secret 'p', scenario = '' } } } }", 1,
     "scenario is empty"},
    {"a login that may send as nobody",
     "engine { listen = { addr = '127.0.0.1:2525', users = { u = { password = secret 'p', sender = {} } } } }", 1,
     "could send as nobody"},
    {"a relay that may send as nobody", "relay 'a' { host = 'a.example', sends_as = {} }", 1,
     "sends_as: the list is empty, so that the relay could send as nobody"},
    {"an empty scenario", RELAYS "route 'r' { to = '*', scenario = '', via = 'a' }", 4, "scenario is empty"},
    {"an empty tag in a list", RELAYS "route 'r' { to = '*', tag = { 'x', '' }, via = 'a' }", 4,
     "tag has an empty string in its list"},
    {"an empty envelope of a step", RELAYS "route 'r' { to = '*', via = { step 'a' { envelope = '' } } }", 4,
     "step \"a\": envelope is empty"},
    {"no program for tokens", "relay 'a' { host = 'a.example', user = 'u', oauth = { token_command = {} } }", 1,
     "oauth needs client"},
    {"an address with a name", RELAYS "route 'r' { to = 'Taro <taro@shop.example>', via = 'a' }", 4,
     "write the address alone, \"taro@shop.example\""},
    {"an address in brackets", RELAYS "route 'r' { to = '*', sender = '<taro@shop.example>', via = 'a' }", 4,
     "write the address alone, \"taro@shop.example\""},
    {"a From with a name", "relay 'a' { host = 'a.example', from = '\"T. T\" <taro@shop.example>' }", 1,
     "write the address alone, \"taro@shop.example\""},
    {"no IP address", "relay 'a' { host = '256.1.1.1' }", 1, "\"256.1.1.1\" is no IP address"},
    {"a piece of an IP address", "relay 'a' { host = '10.0.0' }", 1, "\"10.0.0\" is no IP address"},
    {"one listener twice", "engine { listen = { '127.0.0.1:2525', '[::1]:2525', '127.0.0.1:2525' } }", 1,
     "127.0.0.1, port 2525, is taken by the listener at 127.0.0.1"},
    {"a listener within another",
     "engine { listen = { { addr = '0.0.0.0:25', allow = { '10.0.0.0/8' } },\n'127.0.0.1:25' "
     "} }",
     2, "is taken by the listener at 0.0.0.0"},
    {"http on a listener's port", "engine { listen = '127.0.0.1:2525', http = '127.0.0.1:2525' }", 1,
     "is the address of a listener for mail"},
    {"a redirect to port 0", "engine { redirect = '127.0.0.1:0' }", 1, "no server has port 0"},
    {"row without name", "rows { { to = '*' } }", 1, "needs a name"},
    {"row of no scenario", RELAYS "rows { { name = 'x', relay = 'a', to = '*', scenario = {} } }", 4,
     "row \"x\": scenario: the list is empty"},
};

static void each_problem_has_its_place_and_says_what(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        bool found = false;
        int64_t before_ms = spent_ms();
        folder_open(&f);
        folder_write(&f, "policy.lua", cases[i].policy);
        p = load_folder(&f, &problems);
        for (size_t k = 0; k < problems.n; k++)
            found |= problems.items[k].level == HKY_PROBLEM_ERROR &&
                     strstr(problems.items[k].text, cases[i].text) != NULL &&
                     problems.items[k].place.line == cases[i].line &&
                     strcmp(problems.items[k].place.file, "policy.lua") == 0;
        for (size_t k = 0; k < problems.n; k++)
            found = found && problems.items[k].place.line > 0;
        if (p != NULL || !found) {
            problems_print(&problems);
            fail_msg("%s: loaded %d, expected policy.lua:%u: ... %s", cases[i].name, p != NULL, cases[i].line,
                     cases[i].text);
        }
        assert_true(spent_ms() - before_ms < 15000);
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

/* What follows from the first mistake would send people looking in the wrong place. */
static void one_mistake_is_one_problem(void **state)
{
#define OAUTH(url)                                                                                                     \
    "relay 'a' { host = 'x.example', user = 'u', auth = 'xoauth2', oauth = { client = 'c', refresh = secret 'r', "     \
    "token_url = '" url "' } }"
    static const struct {
        const char *policy, *text;
    } mistakes[] = {
        {"relay 'a' {\n password = 'x' .. secret 'y' }", "a secret cannot be read, joined or compared"},
        {"relay 'a' { preset = 'gmial' }", "no preset \"gmial\""},
        {"relay 'a' { preset = 'gmial', user = 'u@gmail.com', password = secret 'x' }", "no preset \"gmial\""},
        {"relay 'a' { prset = 'gmail', user = 'u@gmail.com', password = secret 'x' }", "did you mean \"preset\"?"},
        {"relay 'a' { hots = 'x.example' }", "did you mean \"host\"?"},
        {"relay 'a' { host = 5 }", "host must be"},
        {"relay 'a' { host = '' }", "host is empty"},
        {"relay 'a' { mx = false }", "write host"},
        {"relay 'a' { mx = 'yes' }", "mx must be"},
        {"relay 'a' { host = 'x.example', user = '', password = secret 'x' }", "user is empty"},
        {"relay 'a' { host = 'x.example', user = 'u', oauth = { } }", "oauth needs client"},
        {"relay 'a' { host = 'x.example', user = 'u', oauth = { client = 'c', refresh = secret 'r' } }",
         "write token_url = \"https://HOST/...\", or token_command"},
        {"relay 'a' { host = 'x.example', user = 'u', auth = 'xoauth2', oauth = { client = 'c', client_secret = secret "
         "'c', "
         "refresh = secret 'r', scope = 's' } }",
         "write token_url = \"https://HOST/...\", or token_command"},
        {"relay 'a' { preset = 'hotmail', user = 'u@hotmail.com', password = secret 'x' }", "takes no password"},
        {"relay 'a' { preset = 'hotmail', user = 'u@hotmail.com' }", "but oauth = { ... } is missing"},
        {"relay 'a' { preset = 'hotmail' }", "auth is written, but user"},
        {"relay 'a' { host = 'x.example', auth = 'xoauth2' }", "auth is written, but user"},
        {"relay 'a' { host = 'x.example', auth = 'xoauth2', user = 'u@x.example', password = secret 'x' }",
         "but oauth = { ... } is missing"},
        {"relay 'a' { host = 'x.example', user = 'u', pasword = secret 'x' }", "did you mean \"password\"?"},
        {"relay 'a' { host = 'x.example', usr = 'u', password = secret 'x' }", "did you mean \"user\"?"},
        {"relay 'a' { host = 'x.example', password = secret 'x' }", "there is a password but no user"},
        {"relay 'a' { preset = 'gmail', password = secret 'x' }", "there is a password but no user"},
        {"relay 'a' { host = 'x.example', user = 'u', password = 5 }", "password must be secret \"name\", not 5"},
        {"relay 'a' { host = 'x.example', user = 5, password = secret 'x' }", "user must be a string"},
        {"relay 'a' { host = 'x.example', port = 'smtp' }", "port must be a whole number"},
        {"relay 'a' { host = 'x.example', envelope = 5 }", "envelope must be"},
        {"relay 'a' { host = 'x.example', from = 5 }", "from must be an address, or false"},
        {"relay 'a' { host = 'x.example', cap = 5 }", "cap must be"},
        {"relay 'a' { host = 'x.example', sends_as = 5 }", "sends_as must be"},
        {"relay 'a' { host = 'x.example', timeout = 5 }", "timeout must be"},
        {"relay 'a' { host = 'x.example', user = 'u', oauth = 5 }", "oauth must be"},
        {"relay 'a' { host = 'x.example', instead = 5 }", "instead must be"},
        {OAUTH("http://id.example/token"), "https://HOST"},
        {OAUTH("HTTP://id.example:443/https://"), "https://HOST"},
        {OAUTH("http://127.0.0.1@id.example/token"), "https://HOST"},
        {OAUTH("http://127.0.0.1:80@id.example/token"), "https://HOST"},
        {OAUTH("http://127.0.0.1.id.example/token"), "https://HOST"},
        {OAUTH("http://[::1].id.example/token"), "https://HOST"},
        {OAUTH("http://localhost/token"), "https://HOST"},
        {OAUTH("http://id.example\\\\@127.0.0.1/token"), "https://HOST"},
        {OAUTH("https://id.example@other.example/token"), "https://HOST"},
        {OAUTH("https:///token"), "https://HOST"},
        {OAUTH("ftp://127.0.0.1/token"), "https://HOST"},
        {OAUTH("id.example/token"), "https://HOST"},
        {RELAYS "route 'r' { to = 5, via = 'a' }", "to must be an address"},
        {RELAYS "route 'r' { to = '*', author = 5, via = 'a' }", "author must be an address"},
        {RELAYS "route 'r' { to = '*', via = 5 }", "via must be a relay"},
        {RELAYS "route 'r' { to = '*', via = { 5 } }", "route \"r\": via: 5 is no relay and no step"},
        {RELAYS "route 'r' { to = '*', when = 5, via = 'a' }", "when must be"},
        {RELAYS "route 'r' { to = '*', header = 5, via = 'a' }", "header must be"},
        {RELAYS "route 'r' { to = '*', rank = 5, via = 'a' }", "rank must be"},
        {RELAYS "route 'r' { to = '*', retry = 5, via = 'a' }", "retry: write 1 to 16 durations"},
        {RELAYS "route 'r' { to = '*', react = 5, via = 'a' }", "react must be"},
        {RELAYS "route 'r' { to = '*', from = 5, via = 'a' }", "from must be an address, or false"},
        {RELAYS "route 'r' { to = '*', via = { step 'a' { on = 5 } } }", "on: 5 is no class"},
        {RELAYS "route 'r' { to = '*', via = { step 'a' { retry = 5 } } }", "retry: write 1 to 16 durations"},
        {RELAYS "route 'r' { to = '*', via = { step 'a' { from = 5 } } }", "from must be an address, or false"},
        {RELAYS "route 'r' { to = '*', via = split('s', 5) }", "write split \"s\" { ... }"},
        {"local t = setmetatable({}, {})", "setmetatable is not defined in a policy: tables have no metatables here"},
        {"local f = io.open('x')", "io is not defined in a policy: a policy reads files by include, list, rows"},
        {"local t = os.time()", "os is not defined in a policy: time is read by time.date"},
        {"local m = require 'm'", "require is not defined in a policy: include \"file.lua\" runs a file"},
        {"load('x = 1')()", "load is not defined in a policy: a policy runs no code from texts"},
        {"dofile 'x.lua'", "dofile is not defined in a policy: include \"file.lua\" runs a file"},
        {RELAYS "Route 'r' { to = '*', via = 'a' }", "did you mean route?"},
        {"Relay 'a' { host = 'x.example' }\nroute 'r' { to = '*', via = 'a' }", "did you mean relay?"},
        {"relay 'a'\nroute 'r' { to = '*', via = 'a' }", "relay \"a\" has no braces"},
        {"relay 'a' 'b'\nroute 'r' { to = '*', via = 'a' }", "write relay \"a\" { }"},
        {"route 'r' { to = '*', via = 'a' }", "no relay \"a\": declare it with relay \"a\" { ... }"},
        {RELAYS "route 'r' { to = '*', when = 'night', via = 'a' }",
         "no matcher \"night\": declare it with matcher(\"night\", function(r) ... end)"},
        {RELAYS "rows { { name = 'x', relay = 'a', to = 5 } }", "to must be an address"},
        {RELAYS "rows { { name = 'x', host = 'x.example', user = 'u', password = 5, to = '*' } }",
         "password must be secret"},
        {RELAYS "rows { { name = 'x', relay = 'a', to = '*' }, 5 }", "rows"},
        {"engine { listen = { addr = '127.0.0.1:2525', user = { } } }", "did you mean \"users\"?"},
        {"engine { listen = { addr = '127.0.0.1:2525', users = 5 } }", "users must be a table"},
        {"engine { listen = { addr = '127.0.0.1:2525', users = { a = 5 } } }", "write users = "},
        {"engine { listen = { addr = '127.0.0.1:2525', users = { a = { } } } }", "a"},
        {"engine { listen = { addr = '127.0.0.1:2525', users = { a = { password = 5 } } } }",
         "password must be secret"},
        {"engine { listen = { addr = '127.0.0.1:2525', users = { a = { pasword = secret 'x' } } } }",
         "did you mean \"password\"?"},
        {"engine { listen = { address = '127.0.0.1:2525' } }", "did you mean \"addr\"?"},
        {"engine { listen = { addr = '127.0.0.1:2525', tls = 5 } }", "tls must be"},
        {"engine { listen = { addr = 5 } }", "addr must be"},
        {"engine { listen = 5 }", "listen"},
        {"engine { listen = { addr = '0.0.0.0:2525', tls = 'starttls', crt = 'c', key = 'k', allow = { '10.0.0.0/8' } "
         "} }",
         "did you mean \"cert\"?"},
        {"engine { listen = { addr = '0.0.0.0:2525', user = { a = { password = secret 'x' } } } }",
         "did you mean \"users\"?"},
        {"engine { listen = { addr = '0.0.0.0:2525', tls = 'starttsl', users = { a = { password = secret 'x' } } } }",
         "tls must be starttls or implicit"},
        {"engine { http = 5 }", "http must be"},
        {"engine { owner = 5 }", "owner must be"},
        {"engine { retry = 5 }", "retry: write 1 to 16 durations"},
        {"engine { bounds = 5 }", "bounds must be"},
    };

    size_t failed = 0;

    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;

        folder_open(&f);
        folder_write(&f, "policy.lua", mistakes[i].policy);
        p = load_folder(&f, &problems);
        if (p != NULL || problems.n_errors != 1 || problems.n != 1 ||
            strstr(problems.items[0].text, mistakes[i].text) == NULL) {
            problems_print(&problems);
            print_error("%s: %zu problems, expected one error: ... %s\n", mistakes[i].policy, problems.n,
                        mistakes[i].text);
            failed++;
        }
        hky_problems_fini(&problems);
        folder_close(&f);
    }
    assert_int_equal(failed, 0);
}

static void all_problems_are_collected(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua",
                 "relay 'a' { hst = 'x' }\nroute 'r' { to = carriers.docmo, via = 'b' }\nroute 'q' { via = 'a' }\n"
                 "limit 'x' { }\nx = 1\nroute 'z'\n");
    p = load_folder(&f, &problems);
    assert_null(p);
    assert_true(problems.n_errors >= 7);
    hky_problems_fini(&problems);
    folder_close(&f);
}

static void rows_file_problems(void **state)
{
    static const struct {
        const char *json, *text;
        uint32_t line;
    } rows[] = {
        {"[\n { \"name\": \"x\", \"host\": \"h.example\", \"to\": \"@carriers.docmo\" } ]",
         "no set \"@carriers.docmo\"", 2},
        {"[\n { \"name\": \"x\", \"host\": \"h.example\", \"tu\": \"*\" } ]", "did you mean \"to\"?", 2},
        {"[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\",\n"
         "\"password\": { \"secret\": \"gmail\" } } ]",
         "secrets named row-", 1},
        {"[\n { \"name\": ", "unexpected token", 2},
        {"{ }", "", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] - 1; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        bool found = false;
        folder_open(&f);
        folder_write(&f, "policy.lua", "rows 'rows.json'");
        folder_write(&f, "rows.json", rows[i].json);
        p = load_folder(&f, &problems);
        for (size_t k = 0; k < problems.n; k++)
            found |= (strstr(problems.items[k].text, rows[i].text) != NULL ||
                      strcmp(problems.items[k].place.file, rows[i].text) == 0) &&
                     problems.items[k].place.line == rows[i].line;
        if (p != NULL || !found) {
            problems_print(&problems);
            fail_msg("rows case %zu", i);
        }
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

static void warnings_do_not_stop(void **state)
{
    static const struct {
        const char *policy, *text;
    } warnings[] = {
        {RELAYS "route 'r' { priority = 1, to = '*', via = 'a' }\nroute 'q' { to = 'x.example', via = 'b' }",
         "route \"q\" is never reached"},
        {RELAYS
         "route 's' { to = '*', scenario = 'spring', via = 'a' }\nroute 'r' { priority = 10, to = '*', via = 'b' }",
         "hides \"r\""},
        {"relay 'a' { host = 'h.example', user = 'u', password = 'hunter2' }", "write secret"},
        {"engine { listen = { addr = '127.0.0.1:25', cert = 'c.pem', key = 'k.pem' } } " RELAYS,
         "listen: without tls the certificate is not used: write tls ="},
    };

    (void)state;
    for (size_t i = 0; i < sizeof warnings / sizeof warnings[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        bool found = false;
        folder_open(&f);
        folder_write(&f, "policy.lua", warnings[i].policy);
        p = load_folder(&f, &problems);
        assert_non_null(p);
        for (size_t k = 0; k < problems.n; k++)
            found |= problems.items[k].level == HKY_PROBLEM_WARNING &&
                     strstr(problems.items[k].text, warnings[i].text) != NULL;
        if (!found) {
            problems_print(&problems);
            fail_msg("no warning: %s", warnings[i].text);
        }
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

/* By whatever path it is named: read once, run once. */
static void one_file_has_one_name(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    (void)state;
    folder_open(&f);
    folder_write(&f, "vip.txt", "x.example\n");
    folder_write(&f, "more.lua", "relay 'c' { host = 'c.example' }");
    folder_write(&f, "policy.lua",
                 RELAYS "include 'more.lua' include './more.lua' include './/./more.lua'\n"
                        "route 'r' { to = { list 'vip.txt', list './vip.txt', list './/vip.txt' }, via = 'c' }");
    p = load_folder(&f, &problems);
    assert_non_null(p);
    assert_int_equal(p->table->n_lists, 1);
    assert_int_equal(p->table->n_files, 2);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_write(&f, "policy.lua", "for i = 1, 1100 do list('l' .. i .. '.txt') end");
    for (int i = 1; i <= 1100; i++) {
        char name[20];
        snprintf(name, sizeof name, "l%d.txt", i);
        folder_write(&f, name, "x.example\n");
    }
    assert_null(load_folder(&f, &problems));
    assert_non_null(strstr(problems.items[0].text, "more than 1024 lists"));
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* Notes at load stand where problems do, and are none; however many there are, errors stay. */
static void notes_are_shown_and_are_no_problems(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", RELAYS "route 'r' { to = '*', via = 'a' }\nnote('stage ' .. env 'STAGE')\nprint(2)");
    p = load_folder(&f, &problems);
    assert_non_null(p);
    assert_int_equal(problems.n, 2);
    assert_int_equal(problems.n_errors + problems.n_warnings, 0);
    assert_int_equal(problems.items[0].level, HKY_PROBLEM_NOTE);
    assert_int_equal(problems.items[0].place.line, 5);
    assert_string_equal(problems.items[0].text, "stage test");
    assert_string_equal(problems.items[1].text, "2");
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_write(&f, "policy.lua", "for i = 1, 1000 do note(i) end x = 1");
    assert_null(load_folder(&f, &problems));
    assert_int_equal(problems.n_errors, 1);
    assert_int_equal(problems.n, 52);
    assert_string_equal(problems.items[49].text, "50");
    assert_string_equal(problems.items[50].text, "(further notes are not shown)");
    assert_int_equal(problems.items[51].level, HKY_PROBLEM_ERROR);
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* What Windows programs save. Shift_JIS is never shown: a terminal would show something else, or nothing. */
static void files_are_utf_8_with_or_without_a_mark(void **state)
{
#define BOM  "\xef\xbb\xbf"
#define SJIS "\x93\xfa\x96\x7b"
    static const struct {
        const char *policy, *file, *text, *expected; /* NULL loads */
        uint32_t line;
    } cases_of_files[] = {
        {BOM RELAYS "route 'r' { to = '*', via = 'a' }", NULL, NULL, NULL, 0},
        {BOM RELAYS "x = 1", NULL, NULL, "assignment to the global", 4},
        {BOM "include 'f.lua'", "f.lua", BOM RELAYS, NULL, 0},
        {"rows 'f.json'", "f.json", BOM "[ { \"name\": \"x\", \"host\": \"h.example\", \"to\": \"*\" } ]", NULL, 0},
        {RELAYS "route 'r' { to = list 'f.txt', via = 'a' }", "f.txt", BOM "x.example\n", NULL, 0},
        {RELAYS "route 'r' { to = list 'f.txt', via = 'a' }", "f.txt", "x.example # " SJIS "\n", NULL, 0},
        {RELAYS "-- " SJIS "\nx = 1", NULL, NULL, "line 4 is not UTF-8: save the file as UTF-8", 4},
        {"include 'f.lua'", "f.lua", RELAYS "local x = '" SJIS "'",
         "include \"f.lua\": line 4 is not UTF-8: save the file as UTF-8", 1},
        {"rows 'f.json'", "f.json", "[\n{ \"name\": \"" SJIS "\", \"host\": \"h.example\", \"to\": \"*\" } ]",
         "rows \"f.json\": line 2 is not UTF-8: save the file as UTF-8", 1},
        {RELAYS "route 'r' { to = list 'f.txt', via = 'a' }", "f.txt", "x.example\n" SJIS "@y.example\n",
         "f.txt:2: not UTF-8: save the file as UTF-8", 4},
        {RELAYS "x = '"
                "\xff\xfe"
                "'",
         NULL, NULL, "line 4 is not UTF-8", 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases_of_files / sizeof cases_of_files[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        bool found = false;
        folder_open(&f);
        folder_write(&f, "policy.lua", cases_of_files[i].policy);
        if (cases_of_files[i].file != NULL)
            folder_write(&f, cases_of_files[i].file, cases_of_files[i].text);
        p = load_folder(&f, &problems);
        for (size_t k = 0; k < problems.n; k++) {
            found |= cases_of_files[i].expected != NULL && strstr(problems.items[k].text, cases_of_files[i].expected) &&
                     problems.items[k].place.line == cases_of_files[i].line;
            assert_true(hky_utf8_is_valid(hky_str_z(problems.items[k].text)));
        }
        if ((p != NULL) != (cases_of_files[i].expected == NULL) || (p == NULL && !found)) {
            problems_print(&problems);
            fail_msg("case %zu: loaded %d, expected %s", i, p != NULL, cases_of_files[i].expected);
        }
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

/* A text is cut where it is too long: not in the middle of a character. */
static void problems_are_utf_8(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    char policy[600] = RELAYS "route 'r' { to = '";

    (void)state;
    for (int i = 0; i < 60; i++)
        strcat(policy, "\xe6\x97\xa5");
    strcat(policy, "@', via = 'a' } route 's' { to = '\\xff@', via = 'a' }");
    folder_open(&f);
    folder_write(&f, "policy.lua", policy);
    assert_null(load_folder(&f, &problems));
    assert_true(problems.n_errors >= 2);
    for (size_t k = 0; k < problems.n; k++)
        assert_true(hky_utf8_is_valid(hky_str_z(problems.items[k].text)));
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_problem_has_its_place_and_says_what),
        cmocka_unit_test(one_mistake_is_one_problem),
        cmocka_unit_test(all_problems_are_collected),
        cmocka_unit_test(rows_file_problems),
        cmocka_unit_test(files_are_utf_8_with_or_without_a_mark),
        cmocka_unit_test(problems_are_utf_8),
        cmocka_unit_test(warnings_do_not_stop),
        cmocka_unit_test(one_file_has_one_name),
        cmocka_unit_test(notes_are_shown_and_are_no_problems),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
