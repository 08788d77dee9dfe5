/* Policies: octets choose tokens of a grammar, so that most inputs are Lua; they are loaded and asked. Everything
 * returns within its limits, every problem has a place, what is decided has steps, and the next recipient is fine. */
#include "hikyaku/route.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX  16384
#define DEPTH_MAX 6
#define NOW_MS    INT64_C(1796083200000)
#define LOAD_MS   8000 /* under sanitizers, on a busy machine: the limits are 10 s of loading and 5 ms of a call */
#define CALL_MS   4000

struct writer {
    const uint8_t *data;
    size_t size, at;
    char text[TEXT_MAX];
    size_t n;
};

static unsigned take(struct writer *w, unsigned below)
{
    return w->at < w->size ? w->data[w->at++] % below : 0;
}

static void put(struct writer *w, const char *z)
{
    size_t n = strlen(z);

    if (n > sizeof w->text - 1 - w->n)
        return;
    memcpy(w->text + w->n, z, n + 1);
    w->n += n;
}

#define CHOICE(w, names) (names)[take((w), sizeof(names) / sizeof((names)[0]))]

static void value(struct writer *w, unsigned depth);

static void block(struct writer *w, unsigned depth);

/* %e an expression, %b a block. */
static void expand(struct writer *w, const char *form, unsigned depth);

static void expression(struct writer *w, unsigned depth)
{
    static const char *const plain[] = {"nil",
                                        "true",
                                        "false",
                                        "0",
                                        "1",
                                        "-1",
                                        "2^53|0",
                                        "0/0",
                                        "''",
                                        "'x'",
                                        "'a.b'",
                                        "'%a+'",
                                        "'(.-)b'",
                                        "'%f[%w]'",
                                        "('a'):rep(999)",
                                        "('1,'):rep(99)",
                                        "{}",
                                        "{ 'a', 'b' }",
                                        "t",
                                        "kept",
                                        "x",
                                        "r",
                                        "r.address",
                                        "r.domain",
                                        "r.tags",
                                        "r.vars",
                                        "r.vars.shoe",
                                        "r.arms",
                                        "r.attempts",
                                        "r.author",
                                        "r.author.name",
                                        "r.message",
                                        "r.message.size",
                                        "r.message.id",
                                        "r.deadline",
                                        "r.now",
                                        "r.user",
                                        "relays.a",
                                        "carriers.all",
                                        "domains.freemail",
                                        "classes.ours",
                                        "secret 'x'",
                                        "...",
                                        "string",
                                        "math.huge",
                                        "utf8.charpattern"};
    static const char *const forms[] = {"(%e .. %e)",
                                        "(%e + %e)",
                                        "(%e * %e)",
                                        "(%e // %e)",
                                        "(%e % %e)",
                                        "(%e < %e)",
                                        "(%e == %e)",
                                        "(%e and %e)",
                                        "(%e or %e)",
                                        "(not %e)",
                                        "#(%e)",
                                        "(-%e)",
                                        "(%e)[%e]",
                                        "{ %e, %e, x = %e, [%e] = %e }",
                                        "function(...) %b end",
                                        "(function(...) %b end)(%e, %e)",
                                        "pcall(function() %b end)",
                                        "xpcall(function() %b end, function(e) %b end)",
                                        "pcall(%e, %e)",
                                        "select('#', %e, %e)",
                                        "select(%e, %e)",
                                        "tostring(%e)",
                                        "tonumber(%e)",
                                        "tonumber(%e, %e)",
                                        "type(%e)",
                                        "next(%e)",
                                        "rawget(%e, %e)",
                                        "rawequal(%e, %e)",
                                        "string.rep(%e, %e)",
                                        "string.rep(%e, %e, %e)",
                                        "string.format(%e, %e)",
                                        "string.format('%q', %e)",
                                        "string.find(%e, %e)",
                                        "string.find(%e, %e, %e, %e)",
                                        "string.match(%e, %e)",
                                        "string.gsub(%e, %e, %e)",
                                        "string.gsub(%e, %e, %e, %e)",
                                        "string.gmatch(%e, %e)()",
                                        "string.byte(%e, %e)",
                                        "string.char(%e)",
                                        "string.sub(%e, %e, %e)",
                                        "string.lower(%e)",
                                        "table.concat(%e, %e)",
                                        "table.unpack(%e, %e, %e)",
                                        "table.remove(t, %e)",
                                        "table.move and table.move(%e, %e, %e, %e)",
                                        "json.encode(%e)",
                                        "json.decode(%e)",
                                        "time.date(%e)",
                                        "time.parse(%e)",
                                        "time.days_since(%e)",
                                        "utf8.len(%e)",
                                        "utf8.char(%e)",
                                        "utf8.codepoint(%e, %e)",
                                        "math.floor(%e)",
                                        "math.random(%e)",
                                        "math.max(%e, %e)",
                                        "r:hash(%e)",
                                        "r.message:header(%e)",
                                        "r.message:headers(%e)",
                                        "carriers.all:has(%e)",
                                        "relays[%e]",
                                        "step 'a' { tries = %e, within = %e, on = %e }",
                                        "step(%e)(%e)",
                                        "split 's' { { arm = 'x', share = 'rest', via = %e } }"};

    if (depth >= DEPTH_MAX || take(w, 3) == 0)
        put(w, CHOICE(w, plain));
    else
        expand(w, CHOICE(w, forms), depth + 1);
}

static void block(struct writer *w, unsigned depth)
{
    static const char *const forms[] = {"local x = %e ",
                                        "local x <const> = %e ",
                                        "t[#t + 1] = %e ",
                                        "t[%e] = %e ",
                                        "kept.r = r ",
                                        "t = %e ",
                                        "x = %e ",
                                        "if %e then %b else %b end ",
                                        "while %e do %b end ",
                                        "while true do %b end ",
                                        "for i = %e, %e do %b end ",
                                        "for i = 1, 30 do %b end ",
                                        "for k, v in pairs(%e) do %b end ",
                                        "for i, v in ipairs(%e) do %b end ",
                                        "for w in string.gmatch(%e, %e) do %b end ",
                                        "repeat %b until %e ",
                                        "do %b end ",
                                        "note(%e) ",
                                        "print(%e) ",
                                        "error(%e) ",
                                        "error(%e, %e) ",
                                        "assert(%e, %e) ",
                                        "table.insert(t, %e) ",
                                        "table.insert(t, 1, %e) ",
                                        "table.sort(t) ",
                                        "table.sort(t, function(a, b) return %e end) ",
                                        "string.x = %e ",
                                        "r.x = %e ",
                                        "pcall(function() %b end) ",
                                        "local function f(...) %b return f(%e) end f(%e) "};
    unsigned n = depth < DEPTH_MAX ? take(w, 4) : 0;

    put(w, " ");
    for (unsigned i = 0; i < n; i++)
        expand(w, CHOICE(w, forms), depth + 1);
    if (take(w, 3) == 0)
        expand(w, "return %e ", depth + 1);
}

static void expand(struct writer *w, const char *form, unsigned depth)
{
    char octet[2] = {0};

    for (const char *p = form; *p != 0; p++) {
        if (p[0] == '%' && p[1] == 'e') {
            expression(w, depth);
            p++;
        } else if (p[0] == '%' && p[1] == 'b') {
            block(w, depth);
            p++;
        } else {
            octet[0] = *p;
            put(w, octet);
        }
    }
}

static void function(struct writer *w, unsigned depth)
{
    static const char *const ends[] = {"", "do return true end", "do return 'a' end", "do return { 'b', 'own' } end",
                                       "do return step 'a' { tries = 2 } end"};

    put(w, "function(r, ...) local x ");
    block(w, depth);
    /* a return ends its block: what follows would be no Lua */
    if (w->n > 4 && strstr(w->text + (w->n > 200 ? w->n - 200 : 0), "return") == NULL)
        put(w, CHOICE(w, ends));
    put(w, " end");
}

static void table(struct writer *w, unsigned depth)
{
    static const char *const keys[] = {"",
                                       "",
                                       "",
                                       "",
                                       "to =",
                                       "via =",
                                       "via =",
                                       "except =",
                                       "sender =",
                                       "author =",
                                       "scenario =",
                                       "tag =",
                                       "header =",
                                       "when =",
                                       "priority =",
                                       "override =",
                                       "rank =",
                                       "from =",
                                       "envelope =",
                                       "reply_to =",
                                       "expire =",
                                       "retry =",
                                       "react =",
                                       "dsn =",
                                       "host =",
                                       "port =",
                                       "user =",
                                       "password =",
                                       "cap =",
                                       "mx =",
                                       "preset =",
                                       "tls =",
                                       "auth =",
                                       "sends_as =",
                                       "connections =",
                                       "timeout =",
                                       "oauth =",
                                       "instead =",
                                       "arm =",
                                       "share =",
                                       "by =",
                                       "on =",
                                       "tries =",
                                       "within =",
                                       "wait =",
                                       "name =",
                                       "relay =",
                                       "stop =",
                                       "enabled =",
                                       "listen =",
                                       "users =",
                                       "allow =",
                                       "bounds =",
                                       "only_to =",
                                       "timezone =",
                                       "['X-Foo'] =",
                                       "blocked_ip =",
                                       "[1] =",
                                       "[0/0] ="};
    unsigned n = take(w, 7);

    put(w, "{ ");
    for (unsigned i = 0; i < n; i++) {
        put(w, CHOICE(w, keys));
        put(w, " ");
        value(w, depth + 1);
        put(w, ", ");
    }
    put(w, "}");
}

static void value(struct writer *w, unsigned depth)
{
    static const char *const plain[] = {"'*'",
                                        "'a'",
                                        "'b'",
                                        "'own'",
                                        "'x.example'",
                                        "'.x.example'",
                                        "'u@x.example'",
                                        "'<>'",
                                        "'a..b@docomo.ne.jp'",
                                        "'@carriers.docomo'",
                                        "'10/min'",
                                        "'500 recipients/day'",
                                        "'2h'",
                                        "'21:00-08:00'",
                                        "'25M'",
                                        "'rest'",
                                        "'urgent'",
                                        "'gmail'",
                                        "'starttls'",
                                        "'127.0.0.1:2525'",
                                        "'10.0.0.0/8'",
                                        "'next'",
                                        "'retry 5m'",
                                        "'m'",
                                        "''",
                                        "'\\0\\xff'",
                                        "('x'):rep(300)",
                                        "0",
                                        "1",
                                        "50",
                                        "100",
                                        "-1",
                                        "1e308",
                                        "0/0",
                                        "2^53|0",
                                        "true",
                                        "false",
                                        "nil",
                                        "carriers.all",
                                        "carriers.docomo",
                                        "domains.freemail",
                                        "classes.ours",
                                        "classes.nothing",
                                        "list 'list.txt'",
                                        "list 'no.txt'",
                                        "include 'inc.lua'",
                                        "env('HOME', 'x')",
                                        "secret 'x'",
                                        "secret('x', { command = { 'true' } })",
                                        "relays.a",
                                        "relays.zzz",
                                        "time.parse '2026-12-01'",
                                        "json.decode '[1,{}]'",
                                        "r",
                                        "{}",
                                        "{ {} }"};

    switch (depth < DEPTH_MAX ? take(w, 10) : 0) {
    case 6:
        table(w, depth);
        break;
    case 7:
        put(w, "step 'a' ");
        table(w, depth);
        break;
    case 8:
        put(w, take(w, 2) ? "split 's' " : "ramp ");
        table(w, depth);
        break;
    case 9:
        function(w, depth);
        break;
    default:
        put(w, CHOICE(w, plain));
    }
}

/* Loops stand in functions only: at the top level they may take the seconds that loading may take. */
static void declarations(struct writer *w)
{
    static const char *const words[] = {
        "route 'r' ",        "route 'q' ",         "rows ",      "relay 'c' ", "engine ", "matcher('m', ",
        "route('z', ",       "local v = ",         "limit 'l' ", "on.result",  "note ",   "route 'x'",
        "rows 'rows.json' ", "include 'inc.lua' ", "v = "};

    put(w, "relay 'own' { mx = true } relay 'a' { host = 'a.example' } relay 'b' { host = 'b.example', port = 465 }\n");
    while (w->at < w->size && w->n < TEXT_MAX / 2) {
        const char *word = CHOICE(w, words);
        put(w, word);
        if (strchr(word, '(') != NULL) {
            if (take(w, 4) > 0)
                function(w, 0);
            else
                value(w, 0);
            put(w, ")");
        } else if (take(w, 8) == 7) {
            value(w, 0);
        } else {
            table(w, 0);
        }
        put(w, "\n");
        if (strncmp(word, "route", 5) == 0 && take(w, 2))
            put(w, "route 'f' { to = '*', via = 'own' }\n");
    }
}

/* Routes that load, so that what functions do is tried. */
static void functions(struct writer *w)
{
    static const char *const vias[] = {"'a'", "{ 'a', step 'b' { tries = 1 } }",
                                       "split 's' { { arm = 'x', share = 'rest', via = 'a' } }"};
    char line[80];

    put(w, "relay 'own' { mx = true } relay 'a' { host = 'a.example' } relay 'b' { host = 'b.example', port = 465 }\n"
           "local t, kept = {}, {}\n");
    for (unsigned i = 0; i < 4 && w->at < w->size; i++) {
        snprintf(line, sizeof line, "route 'r%u' { to = '*', priority = %u, when = ", i, take(w, 4));
        put(w, line);
        if (take(w, 4) == 0)
            put(w, "function() return true end");
        else
            function(w, 1);
        put(w, ", via = ");
        if (take(w, 2) == 0)
            put(w, CHOICE(w, vias));
        else
            function(w, 1);
        put(w, " }\n");
    }
}

static const char *folder(void)
{
    static char path[64];

    if (path[0] == 0) {
        snprintf(path, sizeof path, "/tmp/hky_fuzz_XXXXXX");
        HKY_ASSERT(mkdtemp(path) != NULL);
    }
    return path;
}

static void write_file(const char *name, const char *text, size_t n)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder(), name);
    f = fopen(path, "w");
    HKY_ASSERT(f != NULL && fwrite(text, 1, n, f) == n);
    fclose(f);
}

static void write_text(const char *name, const char *z)
{
    write_file(name, z, strlen(z));
}

static void ask(struct hky_vm *vm, const char *to, bool explain)
{
    struct hky_rcpt_draft rcpt = {hky_str_z(to), HKY_STR(""), 0};
    struct hky_message_draft d = {
        .id = 7, .accepted_at_ms = NOW_MS, .size = 100, .recipients = &rcpt, .n_recipients = 1};
    struct hky_message *m;
    struct hky_explanation x;
    int64_t start = hky_mono_ms();

    for (int i = 0; i < HKY_FACT_N; i++)
        d.facts[i] = HKY_STR("");
    d.facts[HKY_FACT_SENDER] = d.facts[HKY_FACT_AUTHOR] = HKY_STR("u@x.example");
    d.facts[HKY_FACT_VARS] = HKY_STR("shoe\0"
                                     "44\0");
    d.facts[HKY_FACT_TAGS] = HKY_STR("urgent\0");
    m = hky_message_new(&d);
    struct hky_route_query q = {m, &m->recipients[0], HKY_STR("X: =?utf-8?q?a?=\r\nX: b\r\n\r\n"), NOW_MS};
    if (explain) {
        hky_route_explain(vm, &q, &x);
    } else {
        x = (struct hky_explanation){0};
        hky_route_decide(vm, &q, &x.decision);
    }
    HKY_ASSERT(hky_mono_ms() - start < CALL_MS);
    HKY_ASSERT((x.decision.kind == HKY_DECIDED) == (x.decision.plan != NULL));
    HKY_ASSERT(x.decision.plan == NULL || x.decision.plan->n_steps > 0);
    HKY_ASSERT(x.decision.kind != HKY_POLICY_ERROR || (x.decision.text[0] != 0 && x.decision.place.line > 0));
    if (x.decision.plan != NULL)
        for (unsigned i = 0; i < x.decision.plan->n_steps; i++) {
            const struct hky_relay *relay =
                hky_policy_serving_relay(hky_vm_policy(vm), hky_str_z(x.decision.plan->steps[i].relay));
            struct hky_identity id;
            HKY_ASSERT(relay != NULL);
            hky_identity_choose(hky_vm_policy(vm), relay, x.decision.plan, (uint8_t)i, m, &m->recipients[0], &id);
        }
    hky_explanation_fini(&x);
    hky_message_unref(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct writer w;
    struct hky_problems problems = {0};
    struct hky_policy *policy = NULL;
    struct hky_vm *vm = NULL;
    struct hky_error e = {0};
    char path[128];
    int64_t start = hky_mono_ms();

    if (size == 0)
        return 0;
    w.data = data;
    w.size = size;
    w.at = 1;
    w.n = 0;
    write_text("list.txt", "x.example\n.y.example\n");
    write_text("inc.lua", "return { 'a', 'own' }\n");
    if (data[0] == 'L') { /* as it is */
        write_file("policy.lua", (const char *)data + 1, size - 1);
        write_text("rows.json", "[]");
    } else if (data[0] == 'J') {
        write_text("policy.lua", "rows 'rows.json'");
        write_file("rows.json", (const char *)data + 1, size - 1);
    } else {
        if (data[0] & 1)
            functions(&w);
        else
            declarations(&w);
        write_file("policy.lua", w.text, w.n);
        write_text("rows.json",
                   "[ { \"name\": \"j\", \"host\": \"j.example\", \"to\": \"@carriers.all\", \"when\": \"m\" } ]");
    }
    snprintf(path, sizeof path, "%s/policy.lua", folder());
    static const char *const env[] = {"HOME=/home/x", NULL};
    if (hky_policy_load(&(struct hky_policy_load_params){path, env, NOW_MS, .may_lack_routes = true}, &policy,
                        &problems) != HKY_OK)
        HKY_ASSERT(problems.n_errors > 0 && policy == NULL);
    for (size_t i = 0; i < problems.n; i++)
        HKY_ASSERT(problems.items[i].text[0] != 0 &&
                   (problems.items[i].level != HKY_PROBLEM_ERROR || problems.items[i].place.line > 0 ||
                    strncmp(problems.items[i].text, "nested too deep", 15) == 0));
    HKY_ASSERT(data[0] == 'L' || hky_mono_ms() - start < LOAD_MS);
    if (policy != NULL && hky_vm_new(policy, &vm, &e) == HKY_OK) {
        ask(vm, "a..b@docomo.ne.jp", false);
        ask(vm, "u@x.example", true);
        ask(vm, "u@sub.y.example", false);
        hky_vm_free(&vm);
    }
    hky_policy_unref(&policy);
    hky_problems_fini(&problems);
    return 0;
}
