/* What check says of policies that could never send, lose mail, or hold strings that would be cut: all of it at load.
 */
#include "fixture.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

#define REST "route 'rest' { to = '*', via = 'a' }\n"

/* Each policy has exactly one problem: an error ('e') or a warning ('w') with this text, or none (""). */
static const struct {
    const char *name, *policy;
    char level;
    const char *text;
} cases[] = {
    /* relays that can never send */
    {"a host with its port", "relay 'a' { host = 'localhost:23551' }", 'e',
     "host \"localhost:23551\" is a host and a port: write host = \"localhost\", port = 23551"},
    {"an address with its port", "relay 'a' { host = '[::1]:25' }", 'e', "write host = \"::1\", port = 25"},
    {"an address alone", "relay 'a' { host = '::1', port = 25 }", ' ', ""},
    {"a URL", "relay 'a' { host = 'smtps://mail.example' }", 'e', "ssl://NAME is TLS from the start"},
    {"a host in full-width characters", "relay 'a' { host = 'mail．example' }", 'e', "write \"mail.example\""},
    {"a host with a blank in it", "relay 'a' { host = 'smtp .gmail.com' }", 'e',
     "is no name of a server: there is a blank in it: write \"smtp.gmail.com\""},
    {"a host and a port", "relay 'a' { host = 'smtp.gmail.com 587' }", 'e', "the port is a key of its own: port = 587"},
    {"two hosts", "relay 'a' { host = 'a.example, b.example' }", 'e', "only one can be here: write \"a.example\""},
    {"tls that is false", "relay 'a' { host = 'a.example', tls = false }", 'e', "tls cannot be false: write a value"},
    {"a condition that is false", RELAYS "route 'r' { to = '*', when = false, via = 'a' }" REST, 'e',
     "when cannot be false"},
    {"a cap that the environment leaves out", "relay 'a' { host = 'a.example', cap = env('NO_SUCH', false) }", ' ', ""},
    {"a pattern for a mail host", RELAYS "route 'r' { to = '*', mx = '*.outlook.com', via = 'a' }" REST, 'e',
     "mx: \"*.outlook.com\": all mail hosts of a domain are written \".outlook.com\""},
    {"a pattern in a mail host", RELAYS "route 'r' { to = '*', mx = 'mx*.outlook.com', via = 'a' }" REST, 'e',
     "a mail host is no pattern"},
    {"a word for a mail host", RELAYS "route 'r' { to = '*', mx = 'outlook', via = 'a' }" REST, 'w',
     "mx: \"outlook\" has no dot, and mail hosts of other domains have one"},
    {"own delivery in a route", RELAYS "route 'r' { to = '*', mx = true, via = 'a' }" REST, 'e',
     "mx must be a mail host, .domain for all hosts of a domain"},
    {"a number for a mail host", RELAYS "route 'r' { to = '*', mx = { 5 }, via = 'a' }" REST, 'e',
     "mx: 5 is no mail host"},
    {"a login with a blank behind it", "relay 'a' { host = 'a.example', user = 'shop ', password = secret 'p' }", 'w',
     "user: there is a blank at one end of it: write \"shop\""},
    {"a scenario with a blank behind it", RELAYS "route 'r' { to = '*', scenario = 'spring ', via = 'a' }" REST, 'w',
     "scenario: there is a blank at one end of it"},
    {"a field that no header has", RELAYS "route 'r' { to = '*', header = { ['X-Foo:'] = 'z' }, via = 'a' }" REST, 'e',
     "header: no field has the name \"X-Foo:\""},
    {"a host with a blank behind", "relay 'a' { host = 'mail.example ' }", 'e', "write \"mail.example\""},
    {"port 25 with a password", "relay 'a' { host = 'm.example', port = 25, user = 'u', password = secret 'p' }", 'e',
     "port 25 is opportunistic TLS, which checks no certificate, so the password is never sent: write port = 587"},
    {"opportunistic with a password",
     "relay 'a' { host = 'm.example', tls = 'opportunistic', user = 'u', password = secret 'p' }", 'e',
     "so the password is never sent"},
    {"port 25, tls stated",
     "relay 'a' { host = 'm.example', port = 25, tls = 'starttls', user = 'u', password = secret 'p' }", ' ', ""},
    {"no TLS and auth by itself", "relay 'a' { host = 'm.example', tls = 'none', user = 'u', password = secret 'p' }",
     'w', "with tls = \"none\" the password is sent to this machine only"},
    {"no TLS on this machine", "relay 'a' { host = '127.0.0.1', tls = 'none', user = 'u', password = secret 'p' }", ' ',
     ""},
    {"Outlook by its host",
     "relay 'a' { host = 'smtp-mail.outlook.com', user = 'u@outlook.jp', password = secret 'p' }", 'e',
     "smtp-mail.outlook.com takes no password any more: write preset = \"hotmail\", oauth = {"},
    {"Outlook by the host of companies",
     "relay 'a' { host = 'smtp.office365.com', user = 'u@hotmail.co.jp', password = secret 'p' }", 'e',
     "write preset = \"hotmail\", oauth = {"},
    {"a company at Microsoft",
     "relay 'a' { host = 'smtp.office365.com', user = 'u@shop.example', password = secret 'p' }", 'w',
     "smtp.office365.com is a server of preset \"m365\""},
    {"Gmail by its host, as rows have it",
     "relay 'a' { host = 'ssl://smtp.gmail.com', port = 465, user = 'u@gmail.com', password = secret 'p' }", 'w',
     "smtp.gmail.com is a server of preset \"gmail\", which knows its limits and as whom it may send: add preset = "
     "\"gmail\""},
    {"a rental server by its host",
     "relay 'a' { host = 'sv1.xserver.jp', user = 'u@shop.example', password = secret 'p' }", 'w',
     "add preset = \"xserver\""},
    {"with its preset",
     "relay 'a' { preset = 'xserver', host = 'sv1.xserver.jp', user = 'u@shop.example', password = secret 'p' }", ' ',
     ""},
    {"a pin where TLS is opportunistic asks for TLS, which a password may go over",
     "relay 'a' { host = 'm.example', port = 25, user = 'u', password = secret 'p', pin = ('ab'):rep(32) }", ' ', ""},
    {"a pin without TLS", "relay 'a' { host = 'm.example', tls = 'none', pin = ('ab'):rep(32) }", 'e',
     "ca and pin say who the server must be, and only TLS can show it"},
    {"ssl:// with port 25", "relay 'a' { host = 'ssl://m.example', port = 25 }", ' ', ""},
    {"ssl:// and another tls", "relay 'a' { host = 'ssl://m.example', tls = 'starttls' }", 'e',
     "ssl:// in host means TLS from the start, and tls = \"starttls\" means something else"},
    {"caps of one account differ",
     "relay 'a' { host = 'm.example', cap = '10/min' } relay 'b' { host = 'M.example', cap = '20/min' }", 'e',
     "cap differs from that of \"a\" (policy.lua:1), which is the same account"},
    {"caps of one account are the same",
     "relay 'a' { host = 'm.example', cap = '10/min' } relay 'b' { host = 'm.example', cap = '10/min' }", ' ', ""},
    {"authorities that are not there", "relay 'a' { host = 'm.example', ca = 'nosuch.pem' }", 'e',
     "ca \"nosuch.pem\": it cannot be read: No such file"},
    {"authorities that are none", "relay 'a' { host = 'm.example', ca = 'policy.lua' }", 'e', "ca \"policy.lua\": "},
    {"authorities that are a folder", "relay 'a' { host = 'm.example', ca = '/' }", 'e', "it is not a regular file"},
    {"http for everybody", "engine { http = '0.0.0.0:8025' }", 'e', "write \"127.0.0.1:8025\", not \"0.0.0.0:8025\""},
    {"http at an address of the network", "engine { http = '192.0.2.1:80' }", 'e', "http is for this machine only"},

    /* routes that match nobody, or what was meant otherwise */
    {"to an empty list", RELAYS REST "route 'r' { to = {}, via = 'a' }", 'e',
     "route \"r\": to: the list is empty, so that nobody matches it"},
    {"to an empty list in a list", RELAYS REST "route 'r' { to = { {} }, via = 'a' }", 'e', "to: the list is empty"},
    {"from an empty list", RELAYS REST "route 'r' { to = '*', sender = {}, via = 'a' }", 'e',
     "sender: the list is empty"},
    {"except an empty list", RELAYS "route 'r' { to = '*', except = {}, via = 'a' }", ' ', ""},
    {"except everybody", RELAYS "route 'r' { to = 'x.example', except = '*', via = 'a' }" REST, 'w',
     "route \"r\" matches nobody"},
    {"except the domain of an address", RELAYS "route 'r' { to = 'u@x.example', except = 'x.example', via = 'a' }" REST,
     'w', "route \"r\" matches nobody"},
    {"except a domain above", RELAYS "route 'r' { to = 'a.x.example', except = '.x.example', via = 'a' }" REST, 'w',
     "route \"r\" matches nobody"},
    {"except one address of a domain", RELAYS "route 'r' { to = 'x.example', except = 'u@x.example', via = 'a' }" REST,
     ' ', ""},
    {"a carrier without its set", RELAYS "route 'r' { to = 'softbank', via = 'a' }" REST, 'e',
     "to: \"softbank\" has no dot, so no address ends with it: write carriers.softbank without quotes"},
    {"a name without a dot", RELAYS "route 'r' { to = 'intranet', via = 'a' }" REST, 'w',
     "to: \"intranet\" has no dot: only addresses such as user@intranet match it"},
    {"a top level domain", RELAYS "route 'r' { to = '.jp', via = 'a' }" REST, ' ', ""},
    {"a blank behind a domain", RELAYS "route 'r' { to = 'ezweb.ne.jp ', via = 'a' }" REST, 'e',
     "to: \"ezweb.ne.jp \": there is a blank or a comma at one end: write \"ezweb.ne.jp\""},
    {"a full-width blank", RELAYS "route 'r' { to = 'ezweb.ne.jp\xe3\x80\x80', via = 'a' }" REST, 'e',
     "write \"ezweb.ne.jp\""},
    {"two domains in one string", RELAYS "route 'r' { to = 'a.example, b.example', via = 'a' }" REST, 'e',
     "these are several values in one string: write { \"a.example\", \"b.example\" }"},
    {"two addresses in one string", RELAYS "route 'r' { to = 'u@a.example;u@b.example', via = 'a' }" REST, 'e',
     "write { \"u@a.example\", \"u@b.example\" }"},
    {"a full-width @", RELAYS "route 'r' { to = 'u\xef\xbc\xa0x.example', via = 'a' }" REST, 'e',
     "(a full-width character) in it: write \"u@x.example\""},
    {"a full-width letter outside of a text", "\xef\xbd\x81 = 1", 'e',
     "\xef\xbd\x81 is a full-width or curly character: write a"},
    {"curly quotes",
     "relay \xe2\x80\x9c"
     "a\xe2\x80\x9d { mx = true }",
     'e', "\xe2\x80\x9c is a full-width or curly character: write \""},
    {"a full-width blank outside of a text", "relay 'a'\xe3\x80\x80{ mx = true }", 'e',
     "there is a full-width blank outside of a text: write an ordinary blank"},
    {"a character of a word", "relay 'a' { mx = true } \xe6\x9d\xb1 = 1", 'e', "\xe6\x9d\xb1 is outside of a text"},
    {"one wrong class", RELAYS "route 'r' { to = '*', via = { 'b', step 'a' { on = { 'filterd' } } } }", 'e',
     "on: no class \"filterd\", did you mean \"filtered\"?"},

    /* mail that nobody takes */
    {"no route for everybody", RELAYS "route 'r' { to = 'x.example', via = 'a' }", 'w',
     "no route takes every recipient: mail that matches none of them, failure notices among it, is parked and returned "
     "after 7d (engine.parked); write route \"rest\" { priority = 900, to = \"*\", via = \"own\" }"},
    {"only notices are for everybody", RELAYS "route 'r' { to = '*', sender = '<>', via = 'a' }", 'w',
     "no route takes every recipient"},
    {"only a scenario is for everybody", RELAYS "route 'r' { to = '*', scenario = 's', via = 'a' }", 'w',
     "no route takes every recipient"},
    {"for everybody, by a matcher", RELAYS "route 'r' { to = '*', when = function(r) return true end, via = 'a' }", 'w',
     "no route takes every recipient"},
    {"for everybody, by a function", RELAYS "route 'r' { to = '*', via = function(r) return 'a' end }", ' ', ""},
    {"for everybody, by two",
     RELAYS "route 'r' { to = '*', except = { 'x.example', 'u@y.example' }, via = 'a' }"
            "route 'x' { to = 'x.example', via = 'a' } route 'y' { to = 'u@y.example', via = 'b' }",
     ' ', ""},
    {"for everybody but one",
     RELAYS "route 'r' { to = '*', except = { 'x.example', 'u@y.example' }, via = 'a' }"
            "route 'x' { to = 'x.example', via = 'a' }",
     'w', "no route takes every recipient"},
    {"a row for everybody", RELAYS "rows { { name = 'r', relay = 'a', to = '*' } }", ' ', ""},
    {"a row that is disabled",
     RELAYS "rows { { name = 'r', relay = 'a', to = '*', enabled = false } }"
            "route 'x' { to = 'x.example', via = 'a' }",
     'w', "no route takes every recipient"},
    {"only some are reached", "engine { only_to = 'x.example' }" RELAYS "route 'r' { to = 'x.example', via = 'a' }",
     ' ', ""},
    {"nobody is reached", "engine { only_to = {} }" RELAYS REST, 'w', "only_to names nobody, so that all mail is held"},
    {"every relay is paused", "relay 'a' { mx = true, paused = true } " REST, 'w',
     "route \"rest\": every relay of its plan has paused = true"},
    {"a paused relay with another instead",
     "relay 'a' { mx = true, paused = true, instead = 'b' } relay 'b' { host = 'b.example' }" REST, ' ', ""},
    {"a redirect to the engine itself", "engine { listen = '127.0.0.1:2626', redirect = 'localhost:2626' }" RELAYS REST,
     'w', "redirect \"localhost:2626\" is this engine's own listener"},
    {"a relay that is the engine itself",
     "engine { listen = { '[::1]:2626', '127.0.0.1:2525' } } relay 'a' { host = '::1', port = 2626, tls = "
     "'none' }" REST,
     'w', "relay \"a\": ::1, port 2626, is this engine's own listener"},
    {"a relay on another port",
     "engine { listen = '127.0.0.1:2626' } relay 'a' { host = '127.0.0.1', port = 2627, tls = 'none' }" REST, ' ', ""},
    {"a listener for all addresses and a relay elsewhere",
     "engine { listen = { addr = '0.0.0.0:2626', allow = '10.0.0.0/8' } } relay 'a' { host = '192.0.2.1', port = 2626, "
     "tls = 'none' }" REST,
     ' ', ""},
    {"on at the first step", RELAYS "route 'r' { to = '*', via = { step 'own' { on = 'blocked_ip' }, 'a' } }", 'w',
     "the first step (\"own\") has `on`, but no attempt comes before it, so that it is never entered"},
    {"on at the only step", RELAYS "route 'r' { to = '*', via = { step 'own' { on = 'blocked_ip' } } }", 'w',
     "so that `on` says nothing"},
    {"on at the first step of an arm",
     RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x', share = 100, via = { step 'own' { on = 'network' }, "
            "'a' } } } }",
     'w', "the first step (\"own\") has `on`"},
    {"a step for what is delivered",
     RELAYS "route 'r' { to = '*', via = { 'own', step 'a' { on = { 'ok', 'network' } } } }", 'w',
     "step \"a\" is never entered for ok: the mail is delivered then"},
    {"a step for what has expired", RELAYS "route 'r' { to = '*', via = { 'own', step 'a' { on = 'expired' } } }", 'w',
     "step \"a\" is never entered for expired"},
    {"a step for what may have arrived",
     RELAYS "route 'r' { to = '*', via = { 'own', step 'a' { on = 'ambiguous' } } }", 'w',
     "step \"a\" is never entered for ambiguous"},
    {"a step for what may have arrived, as react says",
     RELAYS "route 'r' { to = '*', react = { ambiguous = 'next' }, via = { 'own', step 'a' { on = 'ambiguous' } } }",
     ' ', ""},
    {"steps for sets of classes",
     RELAYS "route 'r' { to = '*', via = { 'own', step 'a' { on = { classes.ours, classes.temporary, classes.content, "
            "classes.theirs } } } }",
     ' ', ""},
    {"within that outlasts expire",
     RELAYS "route 'r' { to = '*', expire = '1h', via = { step 'own' { within = '2h' }, 'a' } }", 'w',
     "step \"own\": within is 2h, and the mail expires after 1h, so that this time never ends the step"},
    {"within of the last step",
     RELAYS "route 'r' { to = '*', expire = '1h', via = { 'own', step 'a' { within = '2h' } } }", ' ', ""},
    {"a wait that outlasts expire",
     "engine { expire = '1h' }" RELAYS "route 'r' { to = '*', via = { step 'own' { wait = '1h' }, 'a' } }", 'w',
     "wait is 1h, and the mail expires after 1h, so that the step is never left as full"},
    {"an expire before the first retry", RELAYS "route 'r' { to = '*', expire = '3m', via = { 'own', 'a' } }", 'w',
     "step \"a\": retry is 5m, and the mail expires after 3m, so that a temporary failure there is never tried again"},
    {"an expire behind the first retry", RELAYS "route 'r' { to = '*', expire = '3m', retry = { '30s' }, via = 'a' }",
     ' ', ""},
    {"a first retry after the engine's expire", "engine { retry = { '3d' }, expire = '1d' }" RELAYS REST, 'w',
     "engine: the first retry comes after 3d, and mail expires after 1d"},
    {"an address behind its domain",
     RELAYS "route 'd' { to = 'x.example', via = 'a' } route 'u' { to = 'u@x.example', via = 'b' }" REST, 'w',
     "route \"u\" is never reached: \"d\" (policy.lua:4) comes first"},
    {"a domain behind the one above",
     RELAYS
     "route 'd' { to = '.x.example', via = 'a' } route 'u' { to = { 'a.x.example', '.b.x.example' }, via = 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"a domain behind its subdomains",
     RELAYS "route 'd' { to = '.x.example', via = 'a' } route 'u' { to = 'x.example', via = 'b' }" REST, ' ', ""},
    {"subdomains behind their domain",
     RELAYS "route 'd' { to = 'x.example', via = 'a' } route 'u' { to = '.x.example', via = 'b' }" REST, ' ', ""},
    {"one tag twice",
     RELAYS
     "route 'd' { to = '*', tag = { 's', 't' }, via = 'a' } route 'u' { to = 'x.example', tag = 't', via = 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"another tag",
     RELAYS
     "route 'd' { to = '*', tag = 's', via = 'a' } route 'u' { to = 'x.example', tag = { 's', 't' }, via = 'b' }" REST,
     ' ', ""},
    {"one author twice",
     RELAYS "route 'd' { to = '*', author = 'x.example', via = 'a' } route 'u' { to = '*', author = 'u@x.example', via "
            "= 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"all authors behind one",
     RELAYS "route 'd' { to = '*', author = 'x.example', via = 'a' } route 'u' { to = 'y.example', via = 'b' }" REST,
     ' ', ""},
    {"one matcher twice",
     RELAYS "matcher('m', function(r) return r.tags.x end) route 'd' { to = '*', when = 'm', via = 'a' } route 'u' { "
            "to = 'x.example', when = 'm', via = 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"one field twice",
     RELAYS "route 'd' { to = '*', header = { ['X-F'] = 'a*' }, via = 'a' } route 'u' { to = '*', header = { ['x-f'] = "
            "'a*', ['X-G'] = 'b' }, via = 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"a route for those whom another excepts",
     RELAYS "route 'd' { to = 'x.example', except = 'u@x.example', via = 'a' } route 'u' { to = 'u@x.example', via = "
            "'b' }" REST,
     ' ', ""},
    {"a route that excepts more",
     RELAYS "route 'd' { to = 'x.example', except = 'u@x.example', via = 'a' } route 'u' { to = 'x.example', except = "
            "{ 'u@x.example', 'v@x.example' }, via = 'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"a mail host twice",
     RELAYS "route 'd' { to = '*', mx = '.outlook.com', via = 'a' } route 'u' { to = '*', mx = 'x.outlook.com', via = "
            "'b' }" REST,
     'w', "route \"u\" is never reached"},
    {"except a set with all of it", RELAYS "route 'r' { to = carriers.docomo, except = carriers.all, via = 'a' }" REST,
     'w', "matches nobody"},
    {"except the domain above an address",
     RELAYS "route 'r' { to = 'u@a.x.example', except = '.x.example', via = 'a' }" REST, 'w', "matches nobody"},
    {"own delivery with a login", "relay 'a' { mx = true, user = 'u', password = secret 'p' }", 'e',
     "mx = true delivers to the recipients' own mail hosts, where nobody logs in"},
    {"own delivery with a mechanism", "relay 'a' { mx = true, auth = 'login' }", 'e', "where nobody logs in"},
    {"own delivery of a row with a login",
     "rows { { name = 'a', mx = true, user = 'u', password = secret 'p', to = '*' } }", 'e',
     "row \"a\": mx = true delivers"},
    {"a placeholder that is none", "relay 'a' { host = 'm.example', envelope = 'b+{ID}-{rcpt}@x.test' } " REST, 'w',
     "envelope: \"{ID}\" stays as it is: only {id} and {rcpt} are replaced"},
    {"a placeholder of a step that is none",
     RELAYS "route 'r' { to = '*', via = { step 'a' { envelope = '{recipient}@x.test' } } }", 'w',
     "\"{recipient}\" stays as it is"},
    {"a reaction to what is delivered", RELAYS "route 'r' { to = '*', react = { ok = 'fail' }, via = 'a' }", 'w',
     "react: nothing can be done about \"ok\""},
    {"a reaction to what has expired", RELAYS "route 'r' { to = '*', react = { expired = 'retry' }, via = 'a' }", 'w',
     "react: nothing can be done about \"expired\""},
    {"an arm without a name", RELAYS "route 'r' { to = '*', via = split 's' { { arm = '', share = 100, via = 'a' } } }",
     'e', "arm is empty"},
    {"a login's scenario that is misspelt",
     "engine { listen = { addr = '127.0.0.1:2525', users = { app = { password = secret 'p', scenario = 'sprnig' } } } "
     "}" RELAYS "route 's' { to = '*', scenario = 'spring', via = 'b' }" REST,
     'w', "user \"app\": no route is for scenario \"sprnig\": did you mean \"spring\"?"},

    /* strings that would be cut, or end a line */
    {"a NUL in a relay's name", "relay 'a\\0b' { mx = true }", 'e', "relay: a name has"},
    {"a NUL in a step's name", RELAYS "route 'r' { to = '*', via = { step 'a\\0b' { } } }", 'e', "step: a name has"},
    {"a NUL in a plan", RELAYS "route 'r' { to = '*', via = 'a\\0b' }", 'e', "via: there is a NUL octet in it"},
    {"a NUL in a list of a plan", RELAYS "route 'r' { to = '*', via = { 'a\\0b' } }", 'e', "there is a NUL octet"},
    {"a NUL in relays", RELAYS REST "local x = relays['a\\0b']", 'e', "relays: there is a NUL octet"},
    {"a NUL in include", "include 'a.lua\\0b'", 'e', "include: there is a NUL octet"},
    {"a NUL in list", RELAYS REST "local x = list 'vip.txt\\0b'", 'e', "list: there is a NUL octet"},
    {"a NUL in rows", "rows 'rows.json\\0b'", 'e', "rows: there is a NUL octet"},
    {"a NUL in secret", "relay 'a' { host = 'm.example', user = 'u', password = secret 'a\\0b' }", 'e',
     "secret needs a name"},
    {"a NUL in a command",
     "relay 'a' { host = 'm.example', user = 'u', password = secret('a', { command = { 'x\\0y' } }) }", 'e',
     "secret: write { command"},
    {"a NUL in env", "local x = env('A\\0B', 'c') " RELAYS REST, 'e', "env: there is a NUL octet"},
    {"a NUL in a host", "relay 'a' { host = 'h.example\\0.evil' }", 'e', "host: there is a NUL octet in it"},
    {"a NUL in a user", "relay 'a' { host = 'm.example', user = 'u\\0v', password = secret 'p' }", 'e',
     "user: there is a NUL octet in it"},
    {"a NUL in to", RELAYS "route 'r' { to = 'x.example\\0y', via = 'a' }" REST, 'e', "to: there is a NUL octet"},
    {"a NUL in a set's name", RELAYS "rows { { name = 'r', relay = 'a', to = '@carriers.docomo\\0' } }" REST, 'e',
     "there is a NUL octet"},
    {"a NUL in a matcher's name",
     RELAYS "matcher('m', function() end) route 'r' { to = '*', when = 'm\\0', via = 'a' }" REST, 'e',
     "when: there is a NUL octet in it"},
    {"a NUL in a scenario", RELAYS "route 'r' { to = '*', scenario = { 's\\0' }, via = 'a' }" REST, 'e',
     "scenario: there is a NUL octet in it"},
    {"a line end in a header's name", RELAYS "route 'r' { to = '*', header = { ['X\\r\\nY'] = 'z' }, via = 'a' }" REST,
     'e', "header: there is a line end in it"},
    {"a line end in a login's name",
     "engine { listen = { addr = '127.0.0.1:2525', users = { ['a\\nb'] = { password = secret 'p' } } } }", 'e',
     "listen: users: there is a line end in it"},
    {"a line end in a row's name", RELAYS REST "rows { { name = 'a\\nb', relay = 'a', to = '*' } }", 'e',
     "name: there is a line end in it"},
    {"a line end in a row's host", RELAYS REST "rows { { name = 'r', host = 'h.example\\r\\nX', to = '*' } }", 'e',
     "host: there is a line end in it"},
    {"lines in a note", RELAYS "rows { { name = 'r', relay = 'a', to = '*', note = 'one\\n\\ttwo' } }", ' ', ""},
    {"a NUL in a note", RELAYS REST "rows { { name = 'r', relay = 'a', to = '*', note = 'one\\ntwo\\0' } }", 'e',
     "note: there is a NUL octet in it"},
    {"octets that are not UTF-8", "relay 'a' { host = 'm.example', user = 'u\\xff', password = secret 'p' }", 'e',
     "user: there are octets that are not UTF-8 in it"},
    {"a command in the envelope", "relay 'a' { host = 'm.example', envelope = 'a@x>\\r\\nRCPT TO:<v@z' }", 'e',
     "envelope: there is a line end in it"},
    {"a blank in the envelope", "relay 'a' { host = 'm.example', envelope = 'a b@x.test' }", 'e',
     "envelope must be an address, in which {id} and {rcpt} are replaced: \"a b@x.test\" is none"},
    {"a bracket in the envelope", "relay 'a' { host = 'm.example', envelope = 'a@x.test>' }", 'e',
     "envelope must be an address"},
    {"a parameter in a route's envelope", RELAYS "route 'r' { to = '*', envelope = 'a@x.test> SIZE=1', via = 'a' }",
     'e', "envelope must be an address"},
    {"a blank in a step's envelope", RELAYS "route 'r' { to = '*', via = { step 'a' { envelope = 'a b@x.test' } } }",
     'e', "envelope must be an address"},
    {"an envelope with parts", "relay 'a' { host = 'm.example', envelope = 'b+{id}-{rcpt}@x.test' }", ' ', ""},
    {"a bracket in hello", "relay 'a' { host = 'm.example', hello = 'x>y' }", 'e', "hello must be one name"},
    {"a comma in from", "relay 'a' { host = 'm.example', from = 'a@x.test, b@x.test' }", 'e',
     "only one can be here: write \"a@x.test\""},

    /* sets and presets of one's own, as the manual shows */
    {"a set that holds others",
     RELAYS "local phones = { carriers.all, 'mvno.example' }"
            "route 'p' { to = phones, via = 'b' } " REST,
     ' ', ""},
    {"a function that fills in keys",
     "local function rental(keys) keys.host, keys.port = 'smtp.rental.example', 587 keys.cap = keys.cap or '100/h' "
     "return "
     "keys end relay 'first' (rental { user = 'a', password = secret 'a' }) "
     "relay 'a' (rental { user = 'b', password = secret 'b', cap = '10/min' }) " REST,
     ' ', ""},

    /* rows */
    {"a row without a name says what else is wrong", RELAYS REST "rows { { relay = 'a', to = '*', prioritty = 3 } }",
     '2', "unknown key \"prioritty\""},
    {"a disabled row may name another",
     RELAYS REST "rows { { name = 'x', host = 'x.example', to = '*', enabled = false },"
                 " { name = 'y', relay = 'x', to = '*', enabled = false } }",
     ' ', ""},
    {"an enabled row may not name a disabled one",
     RELAYS REST "rows { { name = 'x', host = 'x.example', to = '*', enabled = false },"
                 " { name = 'y', relay = 'x', to = '*' } }",
     'e', "no relay \"x\""},
    {"a disabled row may not name what is nowhere",
     RELAYS REST "rows { { name = 'y', relay = 'nosuch', to = '*', enabled = false } }", 'e', "no relay \"nosuch\""},
};

static bool is_as_expected(const struct hky_problems *p, char level, const char *text)
{
    size_t n_errors = level == 'e' ? 1 : level == '2' ? 2 : 0, n_warnings = level == 'w';

    if (p->n_errors != n_errors || p->n_warnings != n_warnings)
        return false;
    for (size_t i = 0; i < p->n; i++)
        if (strstr(p->items[i].text, text) != NULL)
            return true;
    return level == ' ';
}

static void each_is_said_once(void **state)
{
    size_t failed = 0;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        folder_open(&f);
        folder_write(&f, "policy.lua", cases[i].policy);
        p = load_folder(&f, &problems);
        if ((p != NULL) != (problems.n_errors == 0) || !is_as_expected(&problems, cases[i].level, cases[i].text)) {
            print_error("%s: expected %c \"%s\", got\n", cases[i].name, cases[i].level, cases[i].text);
            problems_print(&problems);
            failed++;
        }
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
    assert_int_equal(failed, 0);
}

static void a_policy_without_routes_is_refused(void **state)
{
    static const char *const empty[] = {"", "-- nothing yet\n", "relay 'a' { mx = true }", "rows {}",
                                        "rows { { name = 'r', host = 'h.example', to = '*', enabled = false } }"};

    (void)state;
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p = NULL;
        char path[200];
        folder_open(&f);
        folder_write(&f, "policy.lua", empty[i]);
        snprintf(path, sizeof path, "%s/policy.lua", f.path);
        assert_int_equal(hky_policy_load(&(struct hky_policy_load_params){path, NULL, NOW_MS}, &p, &problems),
                         HKY_E_CONFIG);
        assert_null(p);
        assert_int_equal(problems.n_errors, 1);
        assert_non_null(strstr(problems.items[0].text, "the policy has no route"));
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

static void certificate_write(const struct folder *f, const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    char path[200];
    FILE *out;

    snprintf(path, sizeof path, "%s/%s", f->path, name);
    out = fopen(path, "w");
    assert_non_null(out);
    X509_set_version(cert, 2);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1,
                               0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509(out, cert), 1);
    fclose(out);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void authorities_are_beside_the_policy_and_those_of_rows_inside(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    static const char *const outside[] = {"/etc/passwd", "../ca.pem", "link.pem"}; /* a link in the folder leads out */
    char link[200];

    (void)state;
    folder_open(&f);
    certificate_write(&f, "ca.pem");
    snprintf(link, sizeof link, "%s/link.pem", f.path);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    folder_write(&f, "policy.lua",
                 "relay 'a' { host = 'a.example', ca = 'ca.pem' } route 'r' { to = '*', via = 'a' } rows 'rows.json'");
    folder_write(&f, "rows.json", "[{ \"name\": \"x\", \"host\": \"x.example\", \"ca\": \"ca.pem\", \"to\": \"*\" }]");
    p = load_folder(&f, &problems);
    problems_print(&problems);
    assert_non_null(p);
    assert_true(p->relays[0].ca[0] == '/' && strstr(p->relays[0].ca, "/ca.pem") != NULL);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        char row[300];
        snprintf(row, sizeof row, "[{ \"name\": \"x\", \"host\": \"x.example\", \"ca\": \"%s\", \"to\": \"*\" }]",
                 outside[i]);
        folder_write(&f, "rows.json", row);
        assert_null(load_folder(&f, &problems));
        assert_non_null(
            strstr(problems.items[0].text, i < 2 ? "files of rows are inside the policy's folder"
                                                 : "ca \"link.pem\": the file leads out of the policy's folder"));
        hky_problems_fini(&problems);
    }
    folder_close(&f);
}

/* A cap belongs to the account, whichever of its relays states it. */
static void a_cap_of_one_relay_is_that_of_its_account(void **state)
{
    struct hky_policy *p =
        load_text("relay 'a' { host = 'm.example' } relay 'b' { host = 'm.example', cap = '10/min' }");

    (void)state;
    assert_int_equal(p->relays[0].n_caps, 1);
    assert_int_equal(p->relays[0].caps[0].n, 10);
    hky_policy_unref(&p);
}

static void rows_beyond_a_plan_are_named(void **state)
{
    static const char *const tos[] = {"'*'", "'x.example'", "'u@x.example'"};

    (void)state;
    for (size_t i = 0; i < sizeof tos / sizeof tos[0]; i++) {
        struct folder f;
        struct hky_problems problems = {0};
        struct hky_policy *p;
        char text[8000] = "rows {\n";
        size_t n = strlen(text);
        for (int k = 0; k < 20; k++)
            n += (size_t)snprintf(text + n, sizeof text - n,
                                  "{ name = 'r%d', priority = %d, host = 'h%d.example', to = %s },\n", k, k, k,
                                  k % 2 ? "'*'" : tos[i]);
        snprintf(text + n, sizeof text - n, "{ name = 'rest', host = 'h1.example', to = '*' } }");
        folder_open(&f);
        folder_write(&f, "policy.lua", text);
        p = load_folder(&f, &problems);
        if (problems.n != 1 || strstr(problems.items[0].text, "row \"r16\" is never used") == NULL) {
            problems_print(&problems);
            fail_msg("to = %s", tos[i]);
        }
        hky_policy_unref(&p);
        hky_problems_fini(&problems);
        folder_close(&f);
    }
}

/* What a function gives is checked when it is called. */
static void a_string_of_a_function_is_not_cut(void **state)
{
    struct hky_policy *p = load_text(RELAYS "route 'r' { to = '*', via = function(r) return 'a\\0b' end }");
    struct hky_vm *vm = vm_of(p);
    struct hky_decision d;
    char text[400];

    (void)state;
    decide(vm, &(struct mail){.to = "u@x.example"}, &d);
    if (strstr(decision_text(&d, text), "there is a NUL octet in") == NULL)
        fail_msg("%s", decision_text(&d, text));
    decision_fini(&d);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

/* Seconds of this thread for a file of so many rows, all in one line or each in its own. */
static double seconds_for(unsigned n_rows, const char *between)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    struct timespec begun, ended;
    char path[200];
    FILE *out;

    folder_open(&f);
    folder_write(&f, "policy.lua", "rows 'rows.json'");
    snprintf(path, sizeof path, "%s/rows.json", f.path);
    out = fopen(path, "w");
    assert_non_null(out);
    for (unsigned i = 0; i < n_rows; i++)
        fprintf(out, "%s{\"name\":\"r%u\",\"host\":\"h%u.example\",\"priority\":%u,\"to\":\"d%u.example\"}",
                i > 0 ? between : "[", i, i % 100, i % 50, i);
    fputs("]", out);
    fclose(out);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    p = load_folder(&f, &problems);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    assert_non_null(p);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
    return (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
}

/* Eight times as many take eight times as long, not sixty-four times; three times that is left to the machine. */
/* Fewer than 12,000 do not show whether each looks at all that are before it. Where everything is ten times as slow for
 * the sake of threads, of which there are none here, only the path is tried. */
#ifdef __SANITIZE_THREAD__
enum { FEW_ROWS = 200 };
#else
enum { FEW_ROWS = 1500 };
#endif

static void the_time_for_rows_grows_with_their_number(void **state)
{
    static const char *const betweens[] = {",", ",\n"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        double few = seconds_for(FEW_ROWS, betweens[i]), many = seconds_for(8 * FEW_ROWS, betweens[i]);
        if (many > 24 * few + 0.1)
            fail_msg("%d rows took %.3f s, %d rows %.3f s", FEW_ROWS, few, 8 * FEW_ROWS, many);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_said_once),
        cmocka_unit_test(a_policy_without_routes_is_refused),
        cmocka_unit_test(authorities_are_beside_the_policy_and_those_of_rows_inside),
        cmocka_unit_test(a_cap_of_one_relay_is_that_of_its_account),
        cmocka_unit_test(rows_beyond_a_plan_are_named),
        cmocka_unit_test(a_string_of_a_function_is_not_cut),
        cmocka_unit_test(the_time_for_rows_grows_with_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
