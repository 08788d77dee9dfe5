/* What POLICY.md promises in its sections 1 to 3 and no other test says: a sentence, a policy, what it must do. */
#include "fixture.h"

/* --- what decides --- */

struct file {
    const char *name, *text;
};

static const struct sentence {
    const char *words, *policy;
    struct file files[2];
    struct mail mail;
    const char *expected;
} sentences[] = {
    {"word \"name\" { } and word(\"name\", { }) are the same",
     "relay('a', { host = 'a.example' }) route('r', { to = '*', via = { step('a', { tries = 2 }) } })",
     {{0}},
     {.to = "x@y.example"},
     "r: a"},
    {"via is a handle of a relay",
     "local a = relay 'a' { host = 'a.example' } route 'r' { to = '*', via = a }",
     {{0}},
     {.to = "x@y.example"},
     "r: a"},
    {"a step may be a handle, and relays.NAME",
     RELAYS "route 'r' { to = '*', via = { relays.b, relays.a } }",
     {{0}},
     {.to = "x@y.example"},
     "r: b, a"},
    {"a function may return a name, a handle or nil",
     RELAYS "route 'n' { priority = 1, to = '*', via = function(r) if r.tags.name then return 'a' end end }\n"
            "route 'h' { priority = 2, to = '*', via = function(r) return relays.b end }",
     {{0}},
     {.to = "x@y.example"},
     "h: b"},
    {"the same, the name",
     RELAYS "route 'n' { to = '*', via = function(r) if r.tags.name then return 'a' end end }",
     {{0}},
     {.to = "x@y.example", .tag = "name"},
     "n: a"},
    {"rows: the first sends, the next are its fallback; stop ends",
     "rows { { name = 'p', host = 'p.example', to = 'y.example' }, { name = 'q', host = 'q.example', to = '*', stop = "
     "true },\n"
     "  { name = 'z', host = 'z.example', to = '*' } }",
     {{0}},
     {.to = "x@y.example"},
     "p: p, q"},
    {"rows: enabled = false is as if it were not there",
     "rows { { name = 'p', host = 'p.example', to = '*', enabled = false }, { name = 'q', host = 'q.example', to = '*' "
     "} }",
     {{0}},
     {.to = "x@y.example"},
     "q: q"},
    {"a row that is not enabled lends its function to no other of its name",
     "relay 'own' { mx = true } rows { { name = 'p', relay = 'own', to = '*', enabled = false, when = function(r) "
     "return true end },\n"
     "  { name = 'p', relay = 'own', to = '*', when = function(r) return false end } }",
     {{0}},
     {.to = "x@y.example"},
     "no_route"},
    {"the same, a route of its name",
     "relay 'own' { mx = true } rows { { name = 'p', relay = 'own', to = '*', enabled = false, when = function(r) "
     "return false end } }\n"
     "route 'p' { to = '*', when = function(r) return true end, via = 'own' }",
     {{0}},
     {.to = "x@y.example"},
     "p: own"},
    {"the same, a route before it and a server of its own",
     RELAYS
     "route 'p' { to = '*', when = function(r) return true end, via = 'a' }\n"
     "rows { { name = 'p', host = 'p.example', to = '*', enabled = false, when = function(r) return false end } }",
     {{0}},
     {.to = "x@y.example"},
     "p: a"},
    {"routes and rows share one order: a route before decides",
     RELAYS "route 'r' { priority = 5, to = '*', via = 'a' } rows { { name = 'p', priority = 6, host = 'p.example', to "
            "= '*' } }",
     {{0}},
     {.to = "x@y.example"},
     "r: a"},
    {"a deciding row is followed by rows only",
     RELAYS "rows { { name = 'p', priority = 5, host = 'p.example', to = '*' }, { name = 'q', priority = 7, host = "
            "'q.example', to = '*' } }\n"
            "route 'r' { priority = 6, to = '*', via = 'a' }",
     {{0}},
     {.to = "x@y.example"},
     "p: p, q"},
    {"a set of classes is everybody's own",
     RELAYS
     "local mine = classes.ours table.remove(mine, 1) for i = 1, 9 do mine[#mine + 1] = 'mailbox_full' end\n"
     "local n = #classes.ours\n"
     "route 'x' { to = '*', via = function(r) table.remove(classes.ours) return #classes.ours == n and 'a' or 'b' "
     "end }",
     {{0}},
     {.to = "x@y.example"},
     "x: a"},
    {"handles of one relay are equal",
     RELAYS "route 'x' { to = '*', via = function(r) return relays.a == relays.a and relays.a ~= relays.b and 'a' or "
            "'b' end }",
     {{0}},
     {.to = "x@y.example"},
     "x: a"},
    {"a row may name a relay, and a matcher",
     RELAYS "matcher('m', function(r) return r.localpart == 'x' end) rows { { name = 'p', relay = 'b', to = '*', when "
            "= 'm' } }",
     {{0}},
     {.to = "x@y.example"},
     "p: b"},
    {"the same, the matcher says no",
     RELAYS "matcher('m', function(r) return r.localpart == 'x' end) rows { { name = 'p', relay = 'b', to = '*', when "
            "= 'm' } }",
     {{0}},
     {.to = "z@y.example"},
     "no_route"},
    {"JSON rows: @list/FILE, enabled, note, ssl://",
     "rows 'rows.json'",
     {{"rows.json", "[ { \"name\": \"v\", \"host\": \"ssl://v.example\", \"to\": [\"@list/vip.txt\", \"z.example\"], "
                    "\"note\": \"n\", \"enabled\": true } ]"},
      {"vip.txt", "y.example # important\n"}},
     {.to = "x@z.example"},
     "v: v"},
    {"rows count where they are loaded",
     RELAYS
     "route 'r' { to = '*', via = function(r) return nil end } rows 'rows.json'\nroute 's' { to = '*', via = 'a' }",
     {{"rows.json", "[ { \"name\": \"p\", \"relay\": \"b\", \"to\": \"*\" } ]"}},
     {.to = "x@y.example"},
     "p: b"},
    {"includes count where they are loaded, run once and return what the file returns",
     RELAYS "local one = include 'more.lua' local two = include 'more.lua'\n"
            "if one ~= two or one.via ~= 'b' then error 'not the same' end route 'after' { to = '*', via = one.via }",
     {{"more.lua", "route 'more' { to = '*', via = 'a' } return { via = 'b' }"}},
     {.to = "x@y.example"},
     "more: a"},
    {"addresses compare with needless quotes removed",
     RELAYS "route 'r' { to = '\"Taro\"@Y.example', via = 'a' }",
     {{0}},
     {.to = "taro@y.example"},
     "r: a"},
    {"needed quotes are kept, raw and quoted are one",
     RELAYS "route 'r' { to = 'a..b@docomo.ne.jp', via = 'a' }",
     {{0}},
     {.to = "a..b@docomo.ne.jp"},
     "r: a"},
    {"a domain may be written in Japanese",
     RELAYS "route 'r' { to = '日本.example', via = 'a' }",
     {{0}},
     {.to = "x@xn--wgv71a.example"},
     "r: a"},
    {"except may be a list",
     RELAYS "route 'r' { to = '*', except = { list 'no.txt' }, via = 'a' }",
     {{"no.txt", "y.example\n"}},
     {.to = "x@y.example"},
     "no_route"},
    {"sender <> and a domain in one table",
     RELAYS "route 'r' { to = '*', sender = { '<>', 'b.example' }, via = 'a' }",
     {{0}},
     {.to = "x@y.example", .sender = ""},
     "r: a"},
    {"sender <> is not any sender",
     RELAYS "route 'r' { to = '*', sender = '<>', via = 'a' }",
     {{0}},
     {.to = "x@y.example"},
     "no_route"},
    {"sender * is any sender",
     RELAYS "route 'r' { to = '*', sender = '*', via = 'a' }",
     {{0}},
     {.to = "x@y.example"},
     "r: a"},
    {"scenario may be a table",
     RELAYS "route 'r' { to = '*', scenario = { 's', 't' }, via = 'a' }",
     {{0}},
     {.to = "x@y.example", .scenario = "t"},
     "r: a"},
    {"a header with several values: any of them",
     RELAYS "route 'r' { to = '*', header = { ['x-rank'] = 'gold' }, via = 'a' }",
     {{0}},
     {.to = "x@y.example", .header = "X-Rank: silver\r\nX-Rank: gold\r\n\r\n"},
     "r: a"},
    {"headers: all of them hold",
     RELAYS "route 'r' { to = '*', header = { ['X-A'] = '*', ['X-B'] = 'b' }, via = 'a' }",
     {{0}},
     {.to = "x@y.example", .header = "X-A: a\r\nX-B: c\r\n\r\n"},
     "no_route"},
    {"when may name a matcher that is declared later",
     RELAYS "route 'r' { to = '*', when = 'm', via = 'a' } matcher('m', function(r) return true end)",
     {{0}},
     {.to = "x@y.example"},
     "r: a"},
    {"override comes before scenario, smaller priority first",
     RELAYS "route 's' { to = '*', scenario = 's', via = 'a' } route 'o' { priority = 900, override = true, to = '*', "
            "via = 'b' }",
     {{0}},
     {.to = "x@y.example", .scenario = "s"},
     "o: b"},
    {"the default priority is 100",
     RELAYS "route 'd' { to = '*', via = 'a' } route 'e' { priority = 99, to = 'y.example', via = 'b' } route 'f' { "
            "priority = 101, to = 'y.example', via = 'own' }",
     {{0}},
     {.to = "x@y.example"},
     "e: b"},
};

static struct hky_policy *load_files(const char *policy, const struct file *files, size_t n,
                                     struct hky_problems *problems)
{
    struct folder f;
    struct hky_policy *p;

    folder_open(&f);
    folder_write(&f, "policy.lua", policy);
    for (size_t i = 0; i < n; i++)
        if (files[i].name != NULL)
            folder_write(&f, files[i].name, files[i].text);
    p = load_folder(&f, problems);
    folder_close(&f);
    return p;
}

static void each_sentence_holds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sentences / sizeof sentences[0]; i++) {
        const struct sentence *s = &sentences[i];
        struct hky_problems problems = {0};
        struct hky_policy *p = load_files(s->policy, s->files, 2, &problems);
        struct hky_vm *vm;
        print_message("  %s\n", s->words);
        if (p == NULL) {
            problems_print(&problems);
            fail_msg("%s: does not load", s->words);
        }
        vm = vm_of(p);
        expect_decision(vm, &s->mail, s->expected);
        hky_vm_free(&vm);
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
    }
}

/* --- what a script sees --- */

static const char *const holds[] = {
    "r.address == 'Taro@Y.example' or r.address == 'Taro@y.example'",
    "r.localpart == 'Taro' and r.domain == 'y.example'",
    "r.sender == 'bounce@shop.example'",
    "r.author.address == 'news@shop.example' and r.author.domain == 'shop.example' and r.author.name == 'お店'",
    "r.scenario == 'spring' and r.tags.urgent and r.tags.urgent == true and not r.tags.other",
    "r.vars.shoe == '44' and r.vars.hat == nil",
    "r.user == 'bot' and r.client == '192.0.2.7' and r.source == '127.0.0.1:2525'",
    "r.deadline == r.now + 3600 and r.now == 1796083200",
    "r.arms.ab == 'b' and r.arms.other == nil",
    "#r.attempts == 0 and r.attempts[1] == nil",
    "r.message.size == 1000 and r.message.subject == 'Sale' and #r.message.id > 5",
    "r.message:header 'X-A' == 'one' and r.message:header 'x-b' == '日本' and r.message:header 'X-C' == nil",
    "#r.message:headers 'X-A' == 2 and r.message:headers('X-A')[2] == 'two' and #r.message:headers 'X-C' == 0",
    "carriers.docomo:has 'x@docomo.ne.jp' and not carriers.docomo:has 'x@ezweb.ne.jp' and carriers.all:has "
    "'ezweb.ne.jp'",
    "carriers.au:has 'ezweb.ne.jp' and carriers.softbank:has 'i.softbank.jp' and carriers.ymobile and carriers.rakuten "
    "and domains.freemail:has 'x@gmail.com'",
    "carriers.docomo:has '\"x\"@DOCOMO.ne.jp' and carriers.docomo:has 'DOCOMO.NE.JP' and not carriers.docomo:has ''",
    "time.date(r.now).hour == 9 and time.date(r.now).day == 1",
    "time.parse '2026-12-01' == r.now - 9 * 3600 and time.parse '2026-12-01 10:30' == r.now + 5400",
    "time.days_since '2026-11-01' == 30 and time.days_since '2026-12-02' == -1",
    "json.decode('{\"a\":[1,2.5,null,true]}').a[2] == 2.5 and json.encode({ 'a', { b = false } }) == "
    "'[\"a\",{\"b\":false}]'",
    "relays.a.name == 'a' and tostring(relays.a) == 'a'",
};

static void a_script_sees_the_message(void **state)
{
    struct hky_policy *p = load_text("engine { timezone = 'Asia/Tokyo' } " RELAYS);
    struct hky_vm *vm = vm_of(p);
    struct hky_rcpt_draft rcpt = {HKY_STR("Taro@y.example"), HKY_STR(""), 0};
    struct hky_message_draft d = {
        .id = 77, .accepted_at_ms = NOW_MS, .size = 1000, .recipients = &rcpt, .n_recipients = 1};
    struct hky_message *m;
    struct hky_error e = {0};

    (void)state;
    for (int i = 0; i < HKY_FACT_N; i++)
        d.facts[i] = HKY_STR("");
    d.facts[HKY_FACT_SENDER] = HKY_STR("bounce@shop.example");
    d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
    d.facts[HKY_FACT_AUTHOR_NAME] = HKY_STR("お店");
    d.facts[HKY_FACT_SCENARIO] = HKY_STR("spring");
    d.facts[HKY_FACT_USER] = HKY_STR("bot");
    d.facts[HKY_FACT_CLIENT] = HKY_STR("192.0.2.7");
    d.facts[HKY_FACT_SOURCE] = HKY_STR("127.0.0.1:2525");
    d.facts[HKY_FACT_SUBJECT] = HKY_STR("Sale");
    d.facts[HKY_FACT_TAGS] = HKY_STR("urgent\0");
    d.facts[HKY_FACT_VARS] = HKY_STR("shoe\0"
                                     "44\0");
    m = hky_message_new(&d);
    m->deadline_ms = NOW_MS + 3600000;
    m->recipients[0].arms = hky_alloc(5);
    memcpy(m->recipients[0].arms, "ab\0b", 5);
    m->recipients[0].arms_n = 5;
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        struct hky_route_query q = {m, &m->recipients[0],
                                    HKY_STR("X-A: one\r\nX-B: =?utf-8?B?5pel5pys?=\r\nx-a: two\r\n\r\n"), NOW_MS};
        struct hky_where *w;
        if (hky_where_new(vm, hky_str_z(holds[i]), &w, &e) != HKY_OK || !hky_where_is_true(w, &q, &e))
            fail_msg("%s: %s", holds[i], e.text);
        hky_where_free(&w);
    }
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

/* --- the keys of plans and relays --- */

static void a_plan_keeps_what_route_and_step_say(void **state)
{
    struct hky_policy *p = load_text(
        RELAYS
        "route 'r' { to = '*', rank = 'urgent', from = 'f@x.example', envelope = 'e+{id}@x.example', reply_to = "
        "'p@x.example', expire = '3h',\n"
        "  retry = { '1m', '2m' }, dsn = 'digest', react = { mailbox_full = 'hold', rate_limited = 'retry 30m', "
        "network = 'next' },\n"
        "  via = { step 'a' { on = { 'blocked_ip', classes.theirs, 'full' }, tries = 2, within = '2h', wait = 90, from "
        "= 's@x.example',\n"
        "    envelope = 't@x.example', reply_to = 'q@x.example', retry = { 30 } }, step 'b' { from = false } } }");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d;
    const struct hky_plan *plan;
    const struct hky_step *s;

    (void)state;
    decide(vm, &(struct mail){.to = "x@y.example"}, &d);
    plan = d.plan;
    s = &plan->steps[0];
    assert_true(plan->has_rank && plan->rank == HKY_RANK_URGENT && plan->dsn == HKY_DSN_DIGEST &&
                plan->expire_sec == 10800);
    assert_true(plan->retry.n == 2 && plan->retry.after_sec[1] == 120);
    assert_string_equal(plan->from, "f@x.example");
    assert_string_equal(plan->envelope, "e+{id}@x.example");
    assert_string_equal(plan->reply_to, "p@x.example");
    assert_int_equal(plan->react[HKY_CLASS_MAILBOX_FULL], HKY_ACTION_HOLD);
    assert_true(plan->react[HKY_CLASS_RATE_LIMITED] == HKY_ACTION_RETRY &&
                plan->react_after_sec[HKY_CLASS_RATE_LIMITED] == 1800);
    assert_int_equal(plan->react[HKY_CLASS_NETWORK], HKY_ACTION_NEXT);
    assert_true((s->on & HKY_CLASS_BIT(HKY_CLASS_BLOCKED_IP)) && (s->on & HKY_CLASS_BIT(HKY_CLASS_BAD_MAILBOX)) &&
                (s->on & HKY_CLASS_BIT(HKY_CLASS_FULL)) && !(s->on & HKY_CLASS_BIT(HKY_CLASS_NETWORK)));
    assert_true(s->tries == 2 && s->within_sec == 7200 && s->wait_sec == 90 && s->retry.n == 1 &&
                s->retry.after_sec[0] == 30);
    assert_string_equal(s->from, "s@x.example");
    assert_string_equal(s->envelope, "t@x.example");
    assert_string_equal(s->reply_to, "q@x.example");
    assert_string_equal(plan->steps[1].from, "");
    assert_true(plan->steps[1].within_sec == HKY_UNSET_SEC && plan->steps[1].wait_sec == HKY_UNSET_SEC &&
                plan->steps[1].tries == 0);
    decision_fini(&d);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void a_relay_keeps_what_it_says(void **state)
{
    struct hky_policy *p =
        load_text("relay 'r' { host = 'H.Example', port = 2587, tls = 'implicit', pin = ('ab'):rep(32), user = 'u', "
                  "password = secret 'p',\n"
                  "  auth = 'cram-md5', from = 'F@X.example', sends_as = { '.x.example', 'y.example' }, envelope = "
                  "'b@x.example', cap = { '5/s', '7 recipients/90s', '9/month' },\n"
                  "  connections = 3, messages_per_connection = 4, recipients_per_message = 5, hello = 'mta.example', "
                  "source = '192.0.2.9', overlap = false,\n"
                  "  timeout = { connect = 1, greeting = 2, command = 3, data = 4, dot = '5m' }, localpart = 'raw', "
                  "paused = true, instead = 's' }\n"
                  "relay 's' { mx = true, port = 2525, source = '192.0.2.8' }");
    const struct hky_relay *r = &p->relays[0];

    (void)state;
    assert_true(r->port == 2587 && r->tls == HKY_TLS_IMPLICIT && r->auth == HKY_AUTH_CRAM_MD5 && !r->overlap &&
                r->is_localpart_raw && r->is_paused);
    assert_true(r->connections == 3 && r->messages_per_connection == 4 && r->recipients_per_message == 5);
    assert_true(r->timeout.connect_ms == 1000 && r->timeout.greeting_ms == 2000 && r->timeout.command_ms == 3000 &&
                r->timeout.data_ms == 4000 && r->timeout.dot_ms == 300000);
    assert_true(r->n_caps == 3 && r->caps[0].n == 5 && r->caps[0].window_sec == 1 && r->caps[1].n == 7 &&
                r->caps[1].window_sec == 90 && r->caps[1].counts_recipients);
    assert_true(r->caps[2].window_sec >= 28 * 86400 && !r->caps[2].is_spread);
    assert_string_equal(r->from, "F@x.example");
    assert_string_equal(r->sends_as[0], ".x.example");
    assert_string_equal(r->sends_as[1], "y.example");
    assert_null(r->sends_as[2]);
    assert_string_equal(r->instead, "s");
    assert_string_equal(r->account, "u@h.example:2587");
    assert_ptr_equal(hky_policy_serving_relay(p, HKY_STR("r")), &p->relays[1]);
    assert_true(p->relays[1].is_mx && p->relays[1].port == 2525);
    hky_policy_unref(&p);
}

/* A secret leaves this machine by TLS only. */
static void tokens_come_by_tls_or_from_here(void **state)
{
    static const char *const urls[] = {
        "https://id.example/token",    "HTTPS://id.example:8443/token?a=b@c",
        "http://127.0.0.1:8080/token", "http://127.1.2.3",
        "http://[::1]:8080/token",     "http://[::1]/token",
    };

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char text[512];
        struct hky_policy *policy;

        snprintf(text, sizeof text,
                 "relay 'a' { host = 'x.example', user = 'u', auth = 'xoauth2', oauth = { client = 'c', refresh = "
                 "secret 'r', token_url = '%s' } }",
                 urls[i]);
        policy = load_text(text);
        if (policy == NULL)
            fail_msg("%s is refused", urls[i]);
        hky_policy_unref(&policy);
    }
}

static void every_preset_makes_a_relay(void **state)
{
    static const char *const names[] = {"gmail",    "yahoo_jp", "icloud", "docomo", "au",      "softbank",
                                        "sendgrid", "m365",     "ses",    "sakura", "lolipop", "xserver"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[300];
        struct hky_policy *p;
        snprintf(text, sizeof text,
                 "relay 'r' { preset = '%s', user = 'me@x.example', password = secret 'p', from = 'me@x.example'%s }",
                 names[i],
                 strcmp(names[i], "xserver") == 0 || strcmp(names[i], "sakura") == 0 ? ", host = 'sv1.example'" : "");
        p = load_text(text);
        assert_string_equal(p->relays[0].preset, names[i]);
        assert_true(p->relays[0].host[0] != 0 && p->relays[0].port != 0 && p->relays[0].tls <= HKY_TLS_STARTTLS);
        hky_policy_unref(&p);
    }
}

/* --- what is refused --- */

static const struct refusal {
    const char *words, *policy;
    struct file file;
    const char *text;
} refusals[] = {
    {"a file outside by a folder of ours", "include 'x/../../y.lua'", {0}, "inside the policy's folder"},
    {"rows outside", "rows '../rows.json'", {0}, "inside the policy's folder"},
    {"a list with a bad line",
     RELAYS "route 'r' { to = list 'l.txt', via = 'a' }",
     {"l.txt", "x.example\nno domain\n"},
     "l.txt:2"},
    {"JSON: a password in clear",
     "rows 'r.json'",
     {"r.json",
      "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"password\": \"hunter2\" } ]"},
     "{ \"secret\": \"row-"},
    {"JSON: a secret of others",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"password\": { "
                "\"secret\": \"gmail\" } } ]"},
     "row-"},
    {"JSON: a secret with a command",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"password\": { "
                "\"secret\": \"row-x\", \"command\": [\"id\"] } } ]"},
     "password"},
    {"JSON: a command for tokens",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"oauth\": { "
                "\"token_command\": [\"id\"] } } ]"},
     "token_command"},
    {"JSON: a refresh token of others",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"oauth\": { "
                "\"client\": \"c\", \"refresh\": { \"secret\": \"gmail\" } } } ]"},
     "row-"},
    {"JSON: a refresh token in clear",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"oauth\": { "
                "\"client\": \"c\", \"refresh\": \"abc\" } } ]"},
     "{ \"secret\": \"row-"},
    {"JSON: a secret's name that leads elsewhere",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"password\": { "
                "\"secret\": \"row-/../x\" } } ]"},
     "row-"},
    {"JSON: TLS of an account of the policy",
     "relay 'r' { host = 'h.example', user = 'u', password = secret 'p' } rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"user\": \"u\", \"to\": \"*\", \"tls\": \"none\" } ]"},
     "tls of this account can be written in \"r\""},
    {"JSON: when is no function",
     "rows 'r.json'",
     {"r.json", "[ { \"name\": \"x\", \"host\": \"h.example\", \"to\": \"*\", \"when\": \"nobody\" } ]"},
     "no matcher \"nobody\""},
    {"a key that comes later, in a step",
     RELAYS "route 'r' { to = '*', via = { step 'a' { account = 'x' } } }",
     {0},
     "account is not available in this version"},
    {"resend comes later",
     RELAYS "route 'r' { to = '*', via = { 'a', resend { after = '1h' } } }",
     {0},
     "resend is not available in this version"},
    {"map comes later", "local m = map 'x.csv'", {0}, "map is not available in this version"},
};

static void what_is_refused_says_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct hky_problems problems = {0};
        struct hky_policy *p = load_files(refusals[i].policy, &refusals[i].file, 1, &problems);
        bool found = false;
        for (size_t k = 0; k < problems.n; k++)
            found |= problems.items[k].level == HKY_PROBLEM_ERROR &&
                     strstr(problems.items[k].text, refusals[i].text) != NULL;
        if (p != NULL || !found) {
            problems_print(&problems);
            fail_msg("%s: %s", refusals[i].words, p != NULL ? "loads" : "says something else");
        }
        hky_problems_fini(&problems);
    }
}

static void a_link_that_leads_out_is_refused(void **state)
{
    struct folder f, other;
    struct hky_problems problems = {0};
    char from[200], to[200];

    (void)state;
    folder_open(&f);
    folder_open(&other);
    folder_write(&other, "out.txt", "x.example\n");
    snprintf(from, sizeof from, "%s/out.txt", other.path);
    snprintf(to, sizeof to, "%s/in.txt", f.path);
    assert_int_equal(symlink(from, to), 0);
    folder_write(&f, "policy.lua", RELAYS "route 'r' { to = list 'in.txt', via = 'a' }");
    assert_null(load_folder(&f, &problems));
    assert_non_null(strstr(problems.items[0].text, "leads out of the policy's folder"));
    hky_problems_fini(&problems);
    folder_close(&f);
    folder_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sentence_holds),
        cmocka_unit_test(a_script_sees_the_message),
        cmocka_unit_test(a_plan_keeps_what_route_and_step_say),
        cmocka_unit_test(a_relay_keeps_what_it_says),
        cmocka_unit_test(tokens_come_by_tls_or_from_here),
        cmocka_unit_test(every_preset_makes_a_relay),
        cmocka_unit_test(what_is_refused_says_why),
        cmocka_unit_test(a_link_that_leads_out_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
