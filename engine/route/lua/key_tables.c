/* The keys of the policy language, one table for each object. This is the only description of a key: check, the key
 * lists of hikyaku-policy(5) and the annotations for editors are made from it. In `doc`, text between backquotes is
 * typed as it is. */
#include "route/lua/keys.h"

#include "hikyaku/route.h"

#include <string.h>

#define AUTH_VALUE(id, value, name, offered) "|\"" value "\"" /* |"auto"|"plain"... */
#define S                                    HKY_KEY_STRING, 0, 0
#define DECLARED                             HKY_KEY_STRING, 0, HKY_NAME_MAX
#define B                                    HKY_KEY_BOOL, 0, 0
#define LATER                                HKY_KEY_LATER, 0, 0
#define DAYS                                 86400
#define NEEDED                               true
#define NAME                                 .use = HKY_FOREIGN_NAME /* people choose it, in any script */
#define FREE                                 .use = HKY_FOREIGN_FREE
#define OWN_KEYS                             .has_own_keys = true

const struct hky_key hky_keys_engine[] = {
    {"hostname", S, "Name of this machine in EHLO, Received and Message-ID; a full domain name.", "string"},
    {"spool", S, "Folder of the queue, from the policy's folder; default `spool`.", "string", NAME},
    {"listen", HKY_KEY_ANY, 0, 0,
     "Where mail comes in: `\"addr:port\"`, a listener, or a list of these; default `\"127.0.0.1:2525\"`.",
     "string|listen|(string|listen)[]|false", OWN_KEYS},
    {"http", S, "Address for `/healthz` and `/metrics`, on this machine only: `\"127.0.0.1:8025\"`; default: none.",
     "string|false"},
    {"owner", S, "Address for test mail, for warnings, and for failures that no sender can be notified of.",
     "string|false"},
    {"timezone", S, "Time zone of times of day, such as `\"Asia/Tokyo\"`; default: the system's.", "string|false"},
    {"workers", HKY_KEY_INT, 0, 256, "Number of worker threads; default: the processor's cores minus one, at least 1.",
     "integer"},
    {"resolver", S, "DNS server as `\"addr:port\"`; default: the system's.", "string|false"},
    {"retry", HKY_KEY_ANY, 0, 0,
     "Waits between attempts, at most 16, the last one repeats; default `{ \"5m\", \"15m\", \"1h\", \"4h\" }`.",
     "duration[]"},
    {"expire", HKY_KEY_DURATION, 60, 30 * DAYS, "How long delivery to a recipient is tried; default `2d`.", "duration"},
    {"parked", HKY_KEY_DURATION, 60, 90 * DAYS,
     "How long a recipient that no route takes waits for a policy that can decide; default `7d`.", "duration"},
    {"max_message", HKY_KEY_OCTETS, 1024, INT64_C(2) << 30,
     "Size of the largest message that is accepted; default `35M`.", "size"},
    {"dsn", S, "Failure notices: `each`, `digest` or `none`; default `each`, and `none` where a scenario is set.",
     "\"each\"|\"digest\"|\"none\""},
    {"bounds", HKY_KEY_TABLE, 0, 0, "A table of maxima.", "bounds", OWN_KEYS},
    {"log", S, "How much is logged: `error`, `warn`, `info` or `debug`; default `info`.",
     "\"error\"|\"warn\"|\"info\"|\"debug\""},
    {"redirect", S, "Every connection is made to this `\"host:port\"` instead, without TLS and AUTH; for staging.",
     "string|false"},
    {"only_to", HKY_KEY_MATCH, 0, 0, "Mail is sent to these recipients only; all others are held.", "condition|false"},
    {"history", LATER, "", NULL},
    {"suppress", LATER, "", NULL},
    {"keep", LATER, "", NULL},
    {"signals", LATER, "", NULL},
    {"tokens", LATER, "", NULL},
    {"public_url", LATER, "", NULL},
    {"alerts", LATER, "", NULL},
    {0},
};

const struct hky_key hky_keys_bounds[] = {
    {"line_octets", HKY_KEY_INT, 512, 65536, "Octets of a client's command line; default 2048.", "integer"},
    {"recipients", HKY_KEY_INT, 1, 100000, "Recipients of a message; default 1000.", "integer"},
    {"header_octets", HKY_KEY_OCTETS, 4096, HKY_HEADER_MOST,
     "Size of a header section, at most `512K`; default `256K`.", "size"},
    {"header_lines", HKY_KEY_INT, 10, 100000, "Lines of a header section; default 1000.", "integer"},
    {"received", HKY_KEY_INT, 1, 1000, "Received fields of a message; a message with more is in a loop; default 50.",
     "integer"},
    {"connections", HKY_KEY_INT, 1, 100000, "Connections of clients; default 2000.", "integer"},
    {"connections_per_client", HKY_KEY_INT, 1, 100000,
     "Connections from one address, or from one /64 of IPv6; default 200.", "integer"},
    {"errors", HKY_KEY_INT, 1, 1000, "Errors of a client before its connection is closed; default 20.", "integer"},
    {"auth_tries", HKY_KEY_INT, 1, 100, "Failed logins on one connection before it is closed; default 3.", "integer"},
    {"hosts", HKY_KEY_INT, 1, 20,
     "How many mail hosts of a domain, or addresses of a relay, one attempt tries; default 5.", "integer"},
    {"body_memory", HKY_KEY_OCTETS, 1 << 20, INT64_C(1) << 40,
     "Memory for the bodies of messages that wait; default `256M`.", "size"},
    {"spool_max", HKY_KEY_OCTETS, 0, INT64_C(1) << 50,
     "Size of the queue beyond which new mail gets 452; default 0: no bound.", "size"},
    {"min_free", HKY_KEY_OCTETS, 0, INT64_C(1) << 50,
     "Free space of the disk below which new mail gets 452; default `256M`.", "size"},
    {"segment", HKY_KEY_OCTETS, 1 << 20, INT64_C(4) << 30, "Size of the largest file of the journal; default `64M`.",
     "size"},
    {"cold_after", HKY_KEY_DURATION, 1, 86400,
     "How long a file of the journal rests before what is left in it is copied to another one.", "duration"},
    {"lua_instructions", HKY_KEY_INT, 1000, 1000000000, "Lua instructions of one call; default 100000.", "integer"},
    {"lua_ms", HKY_KEY_INT, 1, 1000, "Milliseconds of one call of Lua; default 5.", "integer"},
    {"lua_memory", HKY_KEY_OCTETS, 4 << 20, INT64_C(4) << 30, "Memory of all scripts of one worker; default `64M`.",
     "size"},
    {"lookup", HKY_KEY_DURATION, 1, 300, "How long one look-up of the policy may take; default `10s`.", "duration"},
    {"mail_hosts", HKY_KEY_INT, 100, 10000000, "Domains whose mail hosts one worker remembers; default 10000.",
     "integer"},
    {"command", HKY_KEY_DURATION, 1, 3600, "How long a client may be silent between commands; default `5m`.",
     "duration"},
    {"data", HKY_KEY_DURATION, 1, 3600, "How long a client may be silent within a message; default `5m`.", "duration"},
    {0},
};

const struct hky_key hky_keys_listen[] = {
    {"addr", S, "Address and port: `\"127.0.0.1:2525\"`, `\"[::1]:2525\"`.", "string", NEEDED},
    {"tls", S, "`starttls` or `implicit`; without it the listener has no TLS.", "\"starttls\"|\"implicit\""},
    {"cert", S, "PEM file of the certificate with its chain, from the policy's folder.", "string|false", NAME},
    {"key", S, "PEM file of the certificate's key, from the policy's folder.", "string|false", NAME},
    {"users", HKY_KEY_TABLE, 0, 0, "Logins: `{ NAME = { password =, scenario =, sender = } }`.",
     "table<string, listen_user>|false", OWN_KEYS},
    {"allow", HKY_KEY_STRINGS, 0, 0, "Networks that may send without a login, such as `\"10.0.0.0/8\"`.",
     "string|string[]|false"},
    {"received", LATER, "", NULL},
    {0},
};

const struct hky_key hky_keys_user[] = {
    {"password", HKY_KEY_SECRET, 0, 0, "Password of the login: `secret \"name\"`.", "secret", NEEDED},
    {"scenario", HKY_KEY_STRINGS, 0, 0,
     "Scenarios that the login may name, by default any. If there is exactly one, mail that names none gets it.",
     "string|string[]", NAME},
    {"sender", HKY_KEY_STRINGS, 0, 0,
     "Addresses and domains that the login may send as, in the envelope and in From, by default any.",
     "string|string[]"},
    {0},
};

const struct hky_key hky_keys_relay[] = {
    {"preset", S, "Settings of a known provider (see `hikyaku presets`); keys that the relay states have priority.",
     "\"gmail\"|\"yahoo_jp\"|\"hotmail\"|\"icloud\"|\"docomo\"|\"au\"|\"softbank\"|\"sendgrid\"|\"m365\"|\"ses\"|"
     "\"xserver\"|\"sakura\"|\"lolipop\""},
    {"host", S, "Name of the server; `ssl://` in front means TLS from the start.", "string"},
    {"port", HKY_KEY_INT, 1, 65535, "Port of the server; default 587.", "integer"},
    {"tls", S,
     "`implicit`, `starttls`, `opportunistic` or `none`; by default port 465 is implicit, 587 starttls, 25 "
     "opportunistic.",
     "\"implicit\"|\"starttls\"|\"opportunistic\"|\"none\""},
    {"ca", S, "PEM file of the authorities to trust instead of the system's, from the policy's folder.", "string|false",
     NAME},
    {"pin", S, "SHA-256 of the certificate's public key, in hex; asks for TLS, as `ca` does.", "string|false"},
    {"user", HKY_KEY_STRING, 0, 255, "Name to log in with.", "string|false"},
    {"password", HKY_KEY_SECRET, 0, 0,
     "Password to log in with: `secret \"name\"`; a plain string is taken with a warning.", "secret|string|false"},
    {"auth", S,
     "How to log in: `auto`, `plain`, `login`, `cram-md5`, `scram-sha-256`, `xoauth2`, `oauthbearer` or `none`; "
     "default `auto` with a user.",
     &(HKY_AUTHS(AUTH_VALUE))[1]},
    {"oauth", HKY_KEY_TABLE, 0, 0, "OAuth2 instead of a password: where tokens come from.", "oauth|false", OWN_KEYS},
    {"from", HKY_KEY_ANY, 0, 0,
     "Address in From when the relay may not send as the author; `false`: never rewrite From.", "string|false"},
    {"sends_as", HKY_KEY_STRINGS, 0, 0,
     "Addresses and domains that the relay may send as, or `\"*\"`; default `\"*\"`, or only `from` where that is "
     "stated.",
     "string|string[]"},
    {"envelope", S, "Envelope sender; `{id}` and `{rcpt}` are replaced.", "string|false"},
    {"cap", HKY_KEY_STRINGS, 0, 0,
     "Most messages or recipients in a window, such as `\"10/min\"`, or a list of caps; counted for the account.",
     "cap|cap[]|false"},
    {"connections", HKY_KEY_INT, 1, 1000,
     "Connections at the same time, in own delivery those of each worker to one site; default 10.", "integer"},
    {"messages_per_connection", HKY_KEY_INT, 1, 1000000, "Messages on one connection; default 100.", "integer"},
    {"recipients_per_message", HKY_KEY_INT, 1, 10000, "Recipients in one transaction; default 50.", "integer"},
    {"hello", S, "Name in EHLO; default: the engine's `hostname`.", "string|false"},
    {"source", S, "Address of this machine to connect from.", "string|false"},
    {"mx", B, "`true`: own delivery to the recipients' mail hosts; `port` is then for tests only.", "boolean"},
    {"overlap", B,
     "`false`: the next message waits for the reply to the last one; default `true`, where the server has shown that "
     "it can take messages without that.",
     "boolean"},
    {"timeout", HKY_KEY_TABLE, 0, 0, "How long to wait for the server, at each stage.", "timeouts", OWN_KEYS},
    {"localpart", S,
     "How an address such as `a..b@docomo.ne.jp` is written to the server: `quoted` or `raw`; default `quoted`.",
     "\"quoted\"|\"raw\""},
    {"paused", B, "`true`: no mail is sent through this relay.", "boolean"},
    {"instead", S, "Another relay, through which all mail of this relay is sent.", "string|relay|false", NAME},
    {"accounts", LATER, "", NULL},
    {"breaker", LATER, "", NULL},
    {"dkim", LATER, "", NULL},
    {"bounces", LATER, "", NULL},
    {"http", LATER, "", NULL},
    {0},
};

const struct hky_key hky_keys_oauth[] = {
    {"client", S, "Client id.", "string"},
    {"client_secret", HKY_KEY_SECRET, 0, 0, "Client secret: `secret \"name\"`.", "secret"},
    {"refresh", HKY_KEY_SECRET, 0, 0, "Refresh token: `secret \"name\"`.", "secret"},
    {"token_command", HKY_KEY_STRINGS, 0, 0, "Program and arguments that print an access token; there is no shell.",
     "string[]", FREE},
    {"token_url", S,
     "Where access tokens are fetched: https; http for loopback addresses only. Default: what the preset, or the "
     "preset of the host, knows.",
     "string"},
    {"scope", S, "Scopes to ask for.", "string"},
    {0},
};

const struct hky_key hky_keys_timeout[] = {
    {"connect", HKY_KEY_DURATION, 1, 3600, "Until the connection is made; default `30s`.", "duration"},
    {"greeting", HKY_KEY_DURATION, 1, 3600, "For the greeting; default `60s`.", "duration"},
    {"command", HKY_KEY_DURATION, 1, 3600, "For the reply to a command; default `60s`.", "duration"},
    {"data", HKY_KEY_DURATION, 1, 3600, "For the reply to DATA, and while content is sent; default `2m`.", "duration"},
    {"dot", HKY_KEY_DURATION, 1, 3600, "For the reply to the end of a message; default `10m`.", "duration"},
    {0},
};

/* Conditions of routes and rows: they are in the tables of both, and in a table of their own for the documentation. */
#define CONDITIONS                                                                                                       \
    {"to", HKY_KEY_MATCH, 0, 0, "The recipient; needed, `\"*\"` is everyone.", "condition", NEEDED},                     \
        {"except", HKY_KEY_MATCH, 0, 0, "The recipient is none of these.", "condition|false"},                           \
        {"sender", HKY_KEY_MATCH, 0, 0, "The envelope sender; `\"<>\"` is the null sender.", "condition"},               \
        {"mx",                                                                                                           \
         HKY_KEY_MATCH,                                                                                                  \
         0,                                                                                                              \
         0,                                                                                                              \
         "The mail hosts of the recipient's domain, such as `\".outlook.com\"`; in a row, `true` is own delivery.",      \
         "condition|boolean"},                                                                                           \
        {"author", HKY_KEY_MATCH, 0, 0, "The address in From.", "condition"},                                            \
        {"scenario", HKY_KEY_STRINGS, 0, 0, "The message is of this scenario, or one of these.", "string|string[]",      \
         NAME},                                                                                                          \
        {"tag", HKY_KEY_STRINGS, 0, 0, "The message has this tag, or one of these.", "string|string[]", NAME},           \
        {"header",                                                                                                       \
         HKY_KEY_TABLE,                                                                                                  \
         0,                                                                                                              \
         0,                                                                                                              \
         "Header fields: `{ [\"X-Foo\"] = \"glob*\" }`, decoded, case ignored, all must match.",                         \
         "table<string, string>",                                                                                        \
         NAME},                                                                                                          \
        {"when", HKY_KEY_FUNCTION, 0, 0, "`function(r)` or the name of a matcher.", "string|fun(r: recipient): boolean", \
         NAME},                                                                                                          \
        {"override", B, "`true`: the route comes before all others, also before those of a scenario.", "boolean"},       \
    {                                                                                                                    \
        "priority", HKY_KEY_INT, -1000000, 1000000, "The smaller one comes first; default 100.", "integer"               \
    }

static const struct hky_key keys_condition[] = {CONDITIONS, {0}};

const struct hky_key hky_keys_route[] = {
    CONDITIONS,
    {"via", HKY_KEY_VIA, 0, 0,
     "Needed: a plan, or `function(r)` that returns one, or nil to go on with the next route.",
     "plan|fun(r: recipient): plan|nil", NEEDED, NAME},
    {"rank", S,
     "Which mail goes first where a lane is full: `urgent`, `normal` or `bulk`; default `bulk` with a scenario, else "
     "`normal`.",
     "\"urgent\"|\"normal\"|\"bulk\""},
    {"from", HKY_KEY_ANY, 0, 0, "From of all attempts; `false`: never rewrite From.", "string|false"},
    {"envelope", S, "Envelope sender; `{id}` and `{rcpt}` are replaced.", "string|false"},
    {"reply_to", S, "Address in Reply-To of all attempts.", "string|false"},
    {"expire", HKY_KEY_DURATION, 60, 30 * DAYS, "How long delivery is tried; default: the engine's.", "duration"},
    {"retry", HKY_KEY_ANY, 0, 0, "Waits between attempts, the last one repeats; default: the engine's.", "duration[]"},
    {"dsn", S, "Failure notices: `each`, `digest` or `none`; default: the engine's.", "\"each\"|\"digest\"|\"none\""},
    {"react", HKY_KEY_TABLE, 0, 0,
     "What a class of failure does here: `retry`, `retry 30m`, `next`, `fail`, `hold` or `done`.",
     "table<class, \"retry\"|\"next\"|\"fail\"|\"hold\"|\"done\"|string>"},
    {"archive", LATER, "", NULL},
    {"delay_notice", LATER, "", NULL},
    {0},
};

const struct hky_key hky_keys_row[] = {
    CONDITIONS,
    {"name", DECLARED, "Name of the row; needed.", "string", NEEDED, NAME},
    {"enabled", B, "`false`: the row is ignored.", "boolean"},
    {"note", S, "A note for people.", "string|false", FREE},
    {"relay", S, "Relay or row whose server is used, instead of stating one.", "string|relay", NAME},
    {"stop", B, "`true`: the rows behind this one are no fallback for it.", "boolean"},
    {0},
};

const struct hky_key hky_keys_step[] = {
    {"on", HKY_KEY_ANY, 0, 0, "Classes and reasons for which the step is entered; for all others it is skipped.",
     "class|reason|(class|reason)[]"},
    {"tries", HKY_KEY_INT, 1, 60, "Failures of network, system_temp or unknown before the step is left; default 3.",
     "integer"},
    {"within", HKY_KEY_DURATION, 1, 30 * DAYS,
     "How long the step may take; default: half of the time that is left until `expire`.", "duration"},
    {"wait", HKY_KEY_DURATION, 0, 30 * DAYS,
     "Longest wait for the recipient's turn at the relay before the step is left for the reason full; default: no "
     "limit.",
     "duration"},
    {"from", HKY_KEY_ANY, 0, 0, "From of its attempts; `false`: never rewrite From.", "string|false"},
    {"envelope", S, "Envelope sender; `{id}` and `{rcpt}` are replaced.", "string|false"},
    {"reply_to", S, "Address in Reply-To of its attempts.", "string|false"},
    {"retry", HKY_KEY_ANY, 0, 0, "Waits between its attempts, the last one repeats; default: the route's.",
     "duration[]"},
    {"account", LATER, "", NULL},
    {0},
};

const struct hky_key hky_keys_arm[] = {
    {"arm", DECLARED, "Name of the arm.", "string", NEEDED, NAME},
    {"share", HKY_KEY_ANY, 0, 0, "Per cent of the recipients, `\"rest\"`, or `ramp { ... }`.", "number|\"rest\"|ramp",
     NEEDED},
    {"via", HKY_KEY_VIA, 0, 0, "The plan of the arm.", "plan", NEEDED, NAME},
    {0},
};

const struct hky_key hky_keys_split[] = {
    {"by", S, "Whether the hash of the `recipient` or of the `message` chooses the arm; default `recipient`.",
     "\"recipient\"|\"message\""},
    {"guard", LATER, "", NULL},
    {0},
};

static const struct {
    const char *object;
    const struct hky_key *keys;
} objects[] = {
    {"engine", hky_keys_engine},   {"bounds", hky_keys_bounds},   {"listen", hky_keys_listen},
    {"user", hky_keys_user},       {"relay", hky_keys_relay},     {"oauth", hky_keys_oauth},
    {"timeout", hky_keys_timeout}, {"condition", keys_condition}, {"route", hky_keys_route},
    {"row", hky_keys_row},         {"step", hky_keys_step},       {"arm", hky_keys_arm},
    {"split", hky_keys_split},
};

/* The manual lists conditions separately, and leaves out keys of later versions. */
static bool is_listed(const struct hky_key *keys, const struct hky_key *k)
{
    bool has_conditions = keys == hky_keys_route || keys == hky_keys_row;

    return k->type != HKY_KEY_LATER && !(has_conditions && hky_key_find(keys_condition, hky_str_z(k->name)) != NULL);
}

bool hky_policy_key_doc(const char *object, size_t at, struct hky_key_doc *out)
{
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        const struct hky_key *keys = objects[i].keys;
        if (strcmp(objects[i].object, object) != 0)
            continue;
        for (const struct hky_key *k = keys; k->name != NULL; k++)
            if (is_listed(keys, k) && at-- == 0) {
                *out = (struct hky_key_doc){k->name, k->doc, k->lua, k->is_needed};
                return true;
            }
    }
    return false;
}
