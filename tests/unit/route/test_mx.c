/* The condition mx: what the mail hosts of a domain are, from a resolver that answers when and as the test says. */
#include "fixture.h"

#include "net/loop.h"
#include "route/table/mailhosts.h"

#define ASKED_MAX 64

/* Questions that are open, in the order in which they came. */
static struct question {
    struct hky_dns_query *q;
    bool is_mx;
    char name[254];
} asked[ASKED_MAX];
static unsigned n_asked, n_asked_ever, n_cancelled;

static void ask_either(struct hky_dns_query *q, struct hky_str name, bool is_mx)
{
    assert_in_range(n_asked, 0, ASKED_MAX - 1);
    asked[n_asked] = (struct question){q, is_mx, ""};
    snprintf(asked[n_asked].name, sizeof asked[0].name, "%.*s", HKY_STR_ARG(name));
    q->priv = &asked[n_asked++];
    n_asked_ever++;
}

static void ask_mx(void *ctx, struct hky_dns_query *q, struct hky_str domain)
{
    (void)ctx;
    ask_either(q, domain, true);
}

static void ask_addr(void *ctx, struct hky_dns_query *q, struct hky_str host)
{
    (void)ctx;
    ask_either(q, host, false);
}

static struct hky_dns_query *take(const char *name, bool is_mx)
{
    for (unsigned i = 0; i < n_asked; i++)
        if (asked[i].is_mx == is_mx && strcmp(asked[i].name, name) == 0) {
            struct hky_dns_query *q = asked[i].q;
            q->priv = NULL;
            for (unsigned k = i; k + 1 < n_asked; k++) {
                asked[k] = asked[k + 1];
                asked[k].q->priv = &asked[k];
            }
            n_asked--;
            return q;
        }
    fail_msg("nobody asked for the %s of %s", is_mx ? "mail hosts" : "addresses", name);
    return NULL;
}

static void cancel(void *ctx, struct hky_dns_query *q)
{
    struct question *at = q->priv;

    (void)ctx;
    n_cancelled++;
    (void)take(at->name, at->is_mx);
}

/* "10 a.example, 20 b.example"; "" with a status that is not OK. */
static void say_mx(const char *domain, enum hky_dns_status status, const char *hosts, uint32_t ttl_sec)
{
    struct hky_dns_mx_answer a = {.status = status, .ttl_sec = ttl_sec};
    struct hky_dns_query *q = take(domain, true);
    int used;

    snprintf(a.text, sizeof a.text, "%s", status == HKY_DNS_FAILED ? "SERVFAIL" : "");
    while (sscanf(hosts, " %hu %253[^,]%n", &a.mx[a.n].preference, a.mx[a.n].host, &used) == 2) {
        hosts += used + (hosts[used] == ',');
        a.n++;
    }
    q->on_mx(q, &a);
}

static void say_addr(const char *host, enum hky_dns_status status)
{
    struct hky_dns_addr_answer a = {.status = status, .n = status == HKY_DNS_OK};
    struct hky_dns_query *q = take(host, false);

    q->on_addr(q, &a);
}

struct stage {
    struct hky_policy *policy;
    struct hky_vm *vm;
    struct hky_loop *loop;
    struct hky_lookups *lookups;
};

static const char plain[] =
    RELAYS "engine { bounds = { lookup = '1s', mail_hosts = 100 } }\n"
           "route 'microsoft' { priority = 1, to = '*', mx = { '.outlook.com', 'mx.exact.example' }, via = 'a' }\n"
           "route 'also'      { priority = 2, to = '*', mx = '.google.com', when = function(r) return r.domain ~= "
           "'no.example' end,\n"
           "  via = 'b' }\n"
           "route 'rest'      { priority = 9, to = '*', via = 'own' }\n";

static void stage_open(struct stage *st, const char *text)
{
    static const struct hky_resolver_ops ops = {NULL, ask_mx, ask_addr, cancel};
    struct hky_error e;

    st->policy = load_text(text);
    st->vm = vm_of(st->policy);
    assert_int_equal(hky_loop_new(&st->loop, &e), HKY_OK);
    st->lookups = hky_lookups_new(st->loop, st->policy);
    hky_lookups_set_resolver(st->lookups, &ops);
    hky_vm_set_lookups(st->vm, st->lookups);
    n_asked = n_asked_ever = n_cancelled = 0;
}

static void stage_close(struct stage *st)
{
    hky_vm_free(&st->vm);
    hky_lookups_free(&st->lookups);
    assert_int_equal(n_asked, 0);
    hky_loop_free(&st->loop);
    hky_policy_unref(&st->policy);
}

struct waiting {
    struct hky_message *message;
    struct hky_route_query q;
    struct hky_deciding *deciding;
    struct hky_decision d;
    unsigned n_ready;
};

static void ready(void *ctx)
{
    ++((struct waiting *)ctx)->n_ready;
}

static void begin(struct stage *st, struct waiting *w, const char *to)
{
    memset(w, 0, sizeof *w);
    w->message = message_of(&(struct mail){.to = to});
    w->q = (struct hky_route_query){.message = w->message, .recipient = &w->message->recipients[0], .now_ms = NOW_MS};
    hky_route_begin(st->vm, &w->q, ready, w, &w->deciding, &w->d);
}

/* "waits", "unanswered: why", or what was decided. */
static void expect_now(struct waiting *w, const char *expected)
{
    char text[400];

    if (w->d.kind == HKY_WAITS)
        snprintf(text, sizeof text, "waits");
    else if (w->d.kind == HKY_UNANSWERED)
        snprintf(text, sizeof text, "unanswered: %s", w->d.text);
    else
        snprintf(text, sizeof text, "%s", decision_text(&w->d, (char[400]){0}));
    if (strcmp(text, expected) != 0)
        fail_msg("got \"%s\", expected \"%s\"", text, expected);
}

static void go_on(struct waiting *w)
{
    assert_int_equal(w->n_ready, 1);
    w->n_ready = 0;
    hky_route_continue(&w->deciding, &w->q, ready, w, &w->d);
}

static void end(struct waiting *w)
{
    hky_deciding_drop(&w->deciding);
    decision_fini(&w->d);
    hky_message_unref(&w->message);
}

static const struct {
    const char *name, *to;
    enum hky_dns_status mx;
    const char *hosts;
    struct {
        const char *host;
        enum hky_dns_status status;
    } addr[4];
    const char *expected;
} answers[] = {
    {"a subdomain",
     "u@ms.example",
     HKY_DNS_OK,
     "10 ms-example.mail.protection.outlook.com",
     {{"ms-example.mail.protection.outlook.com", HKY_DNS_OK}},
     "microsoft: a"},
    {"not the domain itself", "u@o.example", HKY_DNS_OK, "10 outlook.com", {{"outlook.com", HKY_DNS_OK}}, "rest: own"},
    {"a host by name",
     "u@e.example",
     HKY_DNS_OK,
     "10 mx.exact.example",
     {{"mx.exact.example", HKY_DNS_OK}},
     "microsoft: a"},
    {"no MX: the domain itself",
     "u@mx.exact.example",
     HKY_DNS_OK,
     "0 mx.exact.example",
     {{"mx.exact.example", HKY_DNS_OK}},
     "microsoft: a"},
    {"the second route, and its function",
     "u@g.example",
     HKY_DNS_OK,
     "1 aspmx.l.google.com",
     {{"aspmx.l.google.com", HKY_DNS_OK}},
     "also: b"},
    {"its function says no",
     "u@no.example",
     HKY_DNS_OK,
     "1 aspmx.l.google.com",
     {{"aspmx.l.google.com", HKY_DNS_OK}},
     "rest: own"},
    {"the best preference only",
     "u@b.example",
     HKY_DNS_OK,
     "10 mx.b.example, 20 x.outlook.com",
     {{"mx.b.example", HKY_DNS_OK}},
     "rest: own"},
    {"the best that answers",
     "u@c.example",
     HKY_DNS_OK,
     "10 gone.c.example, 20 x.outlook.com",
     {{"gone.c.example", HKY_DNS_NO_NAME}, {"x.outlook.com", HKY_DNS_OK}},
     "microsoft: a"},
    {"of a failing one and a good one, the good one",
     "u@f.example",
     HKY_DNS_OK,
     "10 f.f.example, 20 x.outlook.com",
     {{"f.f.example", HKY_DNS_FAILED}, {"x.outlook.com", HKY_DNS_OK}},
     "microsoft: a"},
    {"any of the same preference",
     "u@s.example",
     HKY_DNS_OK,
     "10 mx.s.example, 10 x.outlook.com, 30 z.example",
     {{"mx.s.example", HKY_DNS_OK}},
     "microsoft: a"},
    {"none has an address",
     "u@d.example",
     HKY_DNS_OK,
     "10 x.outlook.com, 20 y.outlook.com",
     {{"x.outlook.com", HKY_DNS_NO_NAME}, {"y.outlook.com", HKY_DNS_NO_DATA}},
     "rest: own"},
    {"null MX", "u@null.example", HKY_DNS_NULL_MX, "", {{0}}, "rest: own"},
    {"no such domain", "u@nx.example", HKY_DNS_NO_NAME, "", {{0}}, "rest: own"},
    {"it fails",
     "u@bad.example",
     HKY_DNS_FAILED,
     "",
     {{0}},
     "unanswered: the mail hosts of bad.example could not be looked up: SERVFAIL"},
    {"the addresses fail",
     "u@bad2.example",
     HKY_DNS_OK,
     "10 x.outlook.com",
     {{"x.outlook.com", HKY_DNS_FAILED}},
     "unanswered: the mail hosts of bad2.example could not be looked up: the addresses of its mail hosts are not "
     "known"},
};

static void every_answer_decides(void **state)
{
    struct stage st;
    struct waiting w;

    (void)state;
    stage_open(&st, plain);
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        print_message("  %s\n", answers[i].name);
        begin(&st, &w, answers[i].to);
        expect_now(&w, "waits");
        say_mx(strchr(answers[i].to, '@') + 1, answers[i].mx, answers[i].hosts, 600);
        for (int k = 0; k < 4 && answers[i].addr[k].host != NULL; k++)
            say_addr(answers[i].addr[k].host, answers[i].addr[k].status);
        go_on(&w);
        expect_now(&w, answers[i].expected);
        end(&w);
        begin(&st, &w, answers[i].to); /* from the cache, at once */
        expect_now(&w, answers[i].expected);
        end(&w);
    }
    begin(&st, &w, "u@[192.0.2.1]");
    expect_now(&w, "rest: own"); /* nothing to ask */
    end(&w);
    stage_close(&st);
}

static void many_of_a_domain_ask_once(void **state)
{
    enum { N = 200 };
    struct stage st;
    struct waiting *w = calloc(N, sizeof *w);

    (void)state;
    stage_open(&st, plain);
    for (int i = 0; i < N; i++)
        begin(&st, &w[i], i % 2 ? "u@ms.example" : "v@MS.Example");
    assert_int_equal(n_asked_ever, 1);
    end(&w[0]); /* one is cancelled meanwhile: nobody may touch it */
    say_mx("ms.example", HKY_DNS_OK, "10 x.outlook.com", 600);
    assert_int_equal(w[1].n_ready, 0);
    say_addr("x.outlook.com", HKY_DNS_OK);
    assert_int_equal(w[0].n_ready, 0);
    for (int i = 1; i < N; i++) {
        go_on(&w[i]);
        expect_now(&w[i], "microsoft: a");
        end(&w[i]);
    }
    assert_int_equal(n_asked_ever, 2);
    free(w);
    stage_close(&st);
}

static void before_the_250_it_is_asked_ahead(void **state)
{
    struct stage st;
    struct hky_decision d;

    (void)state;
    stage_open(&st, plain);
    for (int i = 0; i < 3; i++) {
        decide(st.vm, &(struct mail){.to = "u@ms.example"}, &d);
        assert_int_equal(d.kind, HKY_WAITS);
        decision_fini(&d);
    }
    assert_int_equal(n_asked_ever, 1);
    say_mx("ms.example", HKY_DNS_OK, "10 x.outlook.com", 600);
    say_addr("x.outlook.com", HKY_DNS_OK);
    expect_decision(st.vm, &(struct mail){.to = "u@ms.example"}, "microsoft: a");
    stage_close(&st);
}

static void silence_ends_at_the_deadline(void **state)
{
    struct stage st;
    struct waiting w;

    (void)state;
    stage_open(&st, plain);
    begin(&st, &w, "u@silent.example");
    for (int64_t until = hky_mono_ms() + 20000; w.n_ready == 0 && hky_mono_ms() < until;)
        hky_loop_turn(st.loop, 100);
    go_on(&w);
    expect_now(&w, "unanswered: the mail hosts of silent.example could not be looked up: the time for it is over");
    assert_int_equal(n_cancelled, 1);
    end(&w);
    stage_close(&st);
}

static void what_is_remembered_is_bounded(void **state)
{
    struct stage st;
    struct waiting w;
    char to[64];

    (void)state;
    stage_open(&st, plain);
    for (int i = 0; i < 250; i++) {
        snprintf(to, sizeof to, "u@d%d.example", i);
        begin(&st, &w, to);
        say_mx(to + 2, HKY_DNS_NO_NAME, "", 600);
        go_on(&w);
        expect_now(&w, "rest: own");
        end(&w);
    }
    assert_int_equal(hky_lookups_n_known(st.lookups), 100);
    begin(&st, &w, "u@d249.example");
    expect_now(&w, "rest: own");
    end(&w);
    begin(&st, &w, "u@d1.example"); /* the oldest went first */
    expect_now(&w, "waits");
    end(&w);
    stage_close(&st);
}

/* The stop, and another resolver by a reload: what is asked is dropped without a call. */
static void it_ends_in_the_middle(void **state)
{
    struct stage st;
    struct waiting w;

    (void)state;
    stage_open(&st, plain);
    begin(&st, &w, "u@ms.example");
    hky_deciding_drop(&w.deciding);
    end(&w);
    stage_close(&st);
    assert_int_equal(n_cancelled, 1);
    assert_int_equal(w.n_ready, 0);
}

static void policies_without_it_ask_nothing(void **state)
{
    struct stage st;

    (void)state;
    stage_open(&st, RELAYS "route 'one' { to = 'x.example', mx = '.outlook.com', via = 'a' }\n"
                           "route 'rest' { to = '*', via = 'own' }\n");
    expect_decision(st.vm, &(struct mail){.to = "u@y.example"}, "rest: own"); /* its other conditions come first */
    assert_int_equal(n_asked_ever, 0);
    stage_close(&st);
}

static void rows_have_it_too(void **state)
{
    struct stage st;
    struct waiting w;

    (void)state;
    stage_open(&st, "rows {\n"
                    "  { name = 'ms', host = 'm.example', port = 465, to = '*', mx = '.outlook.com' },\n"
                    "  { name = 'direct', mx = true, to = '*' } }\n");
    begin(&st, &w, "u@ms.example");
    say_mx("ms.example", HKY_DNS_OK, "10 x.outlook.com", 600);
    say_addr("x.outlook.com", HKY_DNS_OK);
    go_on(&w);
    expect_now(&w, "ms: ms, direct");
    end(&w);
    begin(&st, &w, "u@other.example");
    say_mx("other.example", HKY_DNS_OK, "10 mx.other.example", 600);
    say_addr("mx.other.example", HKY_DNS_OK);
    go_on(&w);
    expect_now(&w, "direct: direct");
    end(&w);
    stage_close(&st);
}

static void explain_says_what_was_found(void **state)
{
    struct stage st;
    struct hky_explanation x;
    struct hky_message *m = message_of(&(struct mail){.to = "u@[192.0.2.1]"});
    struct hky_route_query q = {.message = m, .recipient = &m->recipients[0], .now_ms = NOW_MS};

    (void)state;
    stage_open(&st, plain);
    hky_route_explain(st.vm, &q, &x);
    assert_string_equal(x.mail_hosts, "[192.0.2.1]");
    assert_string_equal(x.considered[0].why, "mx does not name [192.0.2.1]");
    hky_explanation_fini(&x);
    hky_message_unref(&m);
    stage_close(&st);
}

static const char *why_of(const struct hky_explanation *x, const char *route)
{
    for (size_t i = 0; i < x->n_considered; i++)
        if (strcmp(x->considered[i].route, route) == 0)
            return x->considered[i].why;
    return "";
}

/* What comes behind a route whose look-up is under way, or failed, is not reached, whatever it would give. */
static void explain_says_what_waits_for_a_look_up(void **state)
{
    struct stage st;
    struct waiting w;
    struct hky_explanation x;

    (void)state;
    stage_open(&st, plain);
    for (int is_failed = 0; is_failed < 2; is_failed++) {
        begin(&st, &w, "u@slow.example");
        if (is_failed) {
            say_mx("slow.example", HKY_DNS_FAILED, "", 600);
            go_on(&w);
        }
        hky_route_explain(st.vm, &w.q, &x);
        assert_int_equal(x.decision.kind, is_failed ? HKY_UNANSWERED : HKY_WAITS);
        assert_string_equal(why_of(&x, "rest"), "comes after \"microsoft\", whose look-up has no answer yet");
        if (is_failed) { /* the reason is in the decision, once */
            assert_string_equal(why_of(&x, "microsoft"), "mx: the mail hosts could not be looked up");
            assert_string_equal(x.mail_hosts, x.decision.text);
        }
        hky_explanation_fini(&x);
        end(&w);
    }
    stage_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_decides),
        cmocka_unit_test(explain_says_what_waits_for_a_look_up),
        cmocka_unit_test(many_of_a_domain_ask_once),
        cmocka_unit_test(before_the_250_it_is_asked_ahead),
        cmocka_unit_test(silence_ends_at_the_deadline),
        cmocka_unit_test(what_is_remembered_is_bounded),
        cmocka_unit_test(it_ends_in_the_middle),
        cmocka_unit_test(policies_without_it_ask_nothing),
        cmocka_unit_test(rows_have_it_too),
        cmocka_unit_test(explain_says_what_was_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
