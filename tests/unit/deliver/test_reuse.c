/* More than one message by a connection: overlap and its trial, connections that the server ends between two. */
#include "unit/deliver/harness.h"

#include "deliver/delivery.h"

#define ALL_OK(f, n)                                                                                                   \
    for (unsigned k_ = 0; k_ < (n); k_++)                                                                              \
    assert_int_equal((f).outcomes[k_][0].class, HKY_CLASS_OK)

#define LOGIN "S: 220 hi\nC: EHLO me.example\nS: 250-x|250-PIPELINING|250 AUTH PLAIN\nC: AUTH PLAIN\n"

static unsigned count_seen(const struct server *s, const char *verb)
{
    unsigned n = 0;
    for (const char *at = s->seen; (at = strstr(at, verb)) != NULL; at++)
        n++;
    return n;
}

/* Haraka's way: whatever came behind the dot is answered 503, command by command. */
static void test_503_to_an_overlapped_message(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0")
                                 YES GROUP("1") "S: 250 ok|503 pipelined after end of DATA|503 x|503 x\nEOF\n",
                             OPEN GROUP("1") YES "QUIET\nS: 250 ok\n" GROUP("2") YES "QUIET\nS: 250 ok\nEOF\n", NULL};
    one(&f, &s, scripts, 3, 3);
    ALL_OK(f, 3);
    assert_int_equal(f.n_back, 1);
    assert_int_equal(f.n_mails, count_seen(&s, "MAIL FROM")); /* each that reached the server counts */
    finish(&f, &s);
}

/* Dovecot's way: the process ends. One message is ambiguous, and no further one is put at stake. */
static void test_a_close_in_the_trial_costs_one_message(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES GROUP("1") "CLOSE\n",
                             OPEN GROUP("1") YES "QUIET\nS: 250 ok\n" GROUP("2") YES "QUIET\nS: 250 ok\nEOF\n", NULL};
    one(&f, &s, scripts, 3, 3);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_AMBIGUOUS);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[2][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

/* A server that is silent for once, because it asks another one about the sender, say, may still do overlap. */
static void test_one_silence_says_nothing_against_overlap(void **state)
{
    (void)state;
    static const char *const rows[] = {"EOF\n", "S: 250 m\nEOF\n", "S: 250 m|250 r\nEOF\n"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        char silent[300];
        const char *scripts[] = {
            silent, OPEN GROUP("1") YES GROUP("2") "S: 250 ok|250 m|250 r|354 go\nBODY\nS: 250 ok\nEOF\n", NULL};
        snprintf(silent, sizeof(silent), "%s%s%s", OPEN, GROUP("0"), rows[i]);
        server_start(&s, scripts);
        fake_init(&f, s.port);
        add(&f, 1);
        run_until(&f, 1);
        assert_int_equal(f.outcomes[0][0].reply.origin, HKY_ORIGIN_TIMEOUT);
        f.relay.timeout.command_ms = f.relay.timeout.data_ms = 5000;
        f.relay.timeout.dot_ms = 5000;
        add(&f, 2);
        run_until(&f, 3);
        assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
        assert_int_equal(f.outcomes[2][0].class, HKY_CLASS_OK);
        finish(&f, &s);
    }
}

/* A server that throws away what comes behind a command it is busy with is sent one command at a time in the end. */
static void test_silence_again_and_again_ends_pipelining(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
#define DEAF(k) OPEN GROUP(k) "S: 250 m\nEOF\n"
    const char *scripts[] = {DEAF("0"), DEAF("1"),
                             OPEN "C: MAIL\nQUIET\nS: 250 m\nC: RCPT\nQUIET\nS: 250 r\nC: DATA\nS: 354 go\nBODY\n"
                                  "QUIET\nS: 250 ok\nEOF\n",
                             NULL};
#undef DEAF
    server_start(&s, scripts);
    fake_init(&f, s.port);
    add(&f, 1);
    run_until(&f, 1);
    add(&f, 1);
    run_until(&f, 2);
    f.relay.timeout.command_ms = 5000;
    add(&f, 1);
    run_until(&f, 3);
    assert_int_equal(f.outcomes[2][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

/* In the trial, silence behind a dot is held against the server: what came behind it may have been thrown away. */
static void test_silence_in_the_trial_ends_overlap(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES GROUP("1") "S: 250 ok\nEOF\n",
                             OPEN GROUP("1") YES "QUIET\nS: 250 ok\n" GROUP("2") YES "QUIET\nS: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    add(&f, 3);
    for (int64_t until = hky_mono_ms() + 8000; f.n_back == 0 && hky_mono_ms() < until;)
        hky_loop_turn(f.loop, 20);
    f.relay.timeout.command_ms = f.relay.timeout.dot_ms = 5000;
    run_until(&f, 3);
    ALL_OK(f, 3);
    assert_int_equal(f.n_back, 1);
    finish(&f, &s);
}

/* Idle and closed, or used up: that is about the connection, and says nothing about overlap. */
static void test_a_new_connection_at_once(void **state)
{
    (void)state;
    static const char *const answers[] = {"S: 421 4.4.2 idle\nCLOSE\n",
                                          "S: 451 4.4.2 Timeout\nEOF\n",
                                          "S: 451 timeout exceeded\nEOF\n",
                                          "S: 503 nested MAIL\nEOF\n",
                                          "S: 451 4.7.1 too many messages in this session\nEOF\n",
                                          "S: 554 5.7.0 Too many messages in one session\nEOF\n",
                                          "S: 550 5.5.0 maximum messages per connection exceeded\nEOF\n",
                                          "S: 452 4.5.0 Too many transactions\nCLOSE\n",
                                          "CLOSE\n",
                                          "RST\n"};
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct server s;
        struct fake f;
        char first[600];
        snprintf(first, sizeof(first), "%s%s", OPEN GROUP("0") YES "S: 250 ok\n" GROUP("1"), answers[i]);
        const char *scripts[] = {first, OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
        one(&f, &s, scripts, 1, 1);
        add(&f, 1);
        run_until(&f, 2);
        ALL_OK(f, 2);
        assert_int_equal(f.n_back, 1);
        finish(&f, &s);
    }
}

/* A server that ends every connection at its second MAIL: every MAIL it saw counts, and after two such ends no further
 * one is wasted. */
static void test_messages_per_connection_are_learned(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\n" GROUP("1") "S: 421 4.7.0 one a connection\nCLOSE\n",
                             OPEN GROUP("1") YES "S: 250 ok\n" GROUP("2") "S: 421 4.7.0 one a connection\nCLOSE\n",
                             OPEN GROUP("2") YES "S: 250 ok\nC: QUIT\nS: 221 bye\n",
                             OPEN GROUP("3") YES "S: 250 ok\nC: QUIT\nS: 221 bye\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.overlap = false;
    add(&f, 4);
    run_until(&f, 4);
    ALL_OK(f, 4);
    finish(&f, &s);
    assert_int_equal(count_seen(&s, "MAIL FROM"), 6);
    assert_int_equal(f.n_mails, 6);
    assert_int_equal(f.learned[HKY_LEARNED_MESSAGES], 1);
}

/* While others are open, one that is turned away says how many the far side bears; its message goes by an open one. */
static void test_connections_are_learned(void **state)
{
    (void)state;
    static const struct {
        const char *name, *second;
        bool has_login;
        unsigned n_mails;
    } rows[] = {
        {"421 to the first MAIL", OPEN GROUP("1") "S: 421 4.7.0 busy\nCLOSE\n", false, 3},
        {"550 to the first MAIL, of connections", OPEN GROUP("1") "S: 550 5.7.0 too many connections\nCLOSE\n", false,
         3},
        {"421 at AUTH", LOGIN "S: 421 4.7.0 later\nCLOSE\n", true, 2},
        {"535 at AUTH, of connections", LOGIN "S: 535 5.7.8 too many connections\nEOF\n", true, 2},
        {"550 at AUTH, of connections", LOGIN "S: 550 Maximum number of sessions exceeded\nEOF\n", true, 2},
        {"550 to EHLO, of connections", "S: 220 hi\nC: EHLO\nS: 550 too many concurrent connections\nEOF\n", false, 2},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        char first[800];
        snprintf(first, sizeof(first), "%s%s", rows[i].has_login ? LOGIN "S: 235 ok\n" : OPEN,
                 GROUP("0") YES "OTHER\nS: 250 ok\n" GROUP("1") YES "S: 250 ok\nEOF\n");
        const char *scripts[] = {first, rows[i].second, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.overlap = false;
        f.relay.connections = 2;
        f.relay.user = rows[i].has_login ? "user" : "";
        f.secret = "pw";
        add(&f, 2);
        run_until(&f, 2);
        if (f.outcomes[0][0].class != HKY_CLASS_OK || f.outcomes[1][0].class != HKY_CLASS_OK || f.n_back != 1)
            fail_msg("%s: %u back, %s", rows[i].name, f.n_back, f.outcomes[1][0].reply.text);
        assert_int_equal(f.learned[HKY_LEARNED_CONNECTIONS], 1);
        assert_int_equal(f.n_mails, rows[i].n_mails);
        finish(&f, &s);
    }
}

/* Alone, nothing is learned: it is the message's outcome. */
static void test_a_lone_connection_that_is_turned_away(void **state)
{
    (void)state;
    static const struct {
        const char *script;
        enum hky_class class;
    } rows[] = {
        {OPEN GROUP("0") "S: 421 4.7.0 busy\nCLOSE\n", HKY_CLASS_SYSTEM_TEMP},
        {LOGIN "S: 535 5.7.8 no\nEOF\n", HKY_CLASS_RELAY_AUTH},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.user = i == 0 ? "" : "user";
        f.secret = "pw";
        add(&f, 1);
        run_until(&f, 1);
        assert_int_equal(f.outcomes[0][0].class, rows[i].class);
        assert_int_equal(f.learned[HKY_LEARNED_CONNECTIONS], 0);
        finish(&f, &s);
    }
}

/* Some count the recipients of a connection: the next message goes at once by a fresh one. */
static void test_a_connection_out_of_recipients(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES
                             "S: 250 ok\n" GROUP("1") "S: 250 m|452 4.5.3 too many recipients|503 d\nEOF\n",
                             OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.overlap = false;
    add(&f, 2);
    run_until(&f, 2);
    ALL_OK(f, 2);
    assert_int_equal(f.n_back, 1);
    assert_int_equal(f.n_mails, 3);
    finish(&f, &s);
    /* On a fresh one it is what the server says now: nothing is gained by asking again at once. */
    const char *fresh[] = {OPEN GROUP("0") "S: 250 m|452 4.5.3 too many recipients|503 d\nEOF\n", NULL};
    one(&f, &s, fresh, 1, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_RATE_LIMITED);
    finish(&f, &s);
}

/* The rest goes at once in a further transaction, nobody fails, and the number is learned. */
static void test_too_many_recipients(void **state)
{
    (void)state;
    static const struct {
        const char *reply;
        bool is_count; /* else it is about this recipient */
    } rows[] = {
        {"452 4.5.3 Too many recipients", true},
        {"452 too many recipients", true},
        {"552 5.5.3 Too many recipients", true},
        {"451 4.5.3 x", true},
        {"503 5.5.0 Too many RCPTs", true},
        {"550 max recipients per message reached", true},
        {"450 4.7.1 number of recipients exceeds 2", true},
        {"452 Only 2 recipients: maximum recipients reached, see our sending limits", true},
        {"452 宛先が多すぎます", true},
        {"452 4.2.2 mailbox full", false},
        {"550 5.1.1 no such user", false},
        {"452 4.5.3 Daily recipient limit reached", false},
        {"450 4.7.1 too many recipients in the last 24 hours", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        char script[1000];
        snprintf(script, sizeof(script),
                 "%sC: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 m|250 r|250 r|%s|%s|354 go\nBODY\n"
                 "S: 250 ok\n%s",
                 OPEN, rows[i].reply, rows[i].reply,
                 rows[i].is_count
                     ? "C: MAIL\nC: RCPT TO:<m0.r2@\nC: RCPT TO:<m0.r3@\nC: DATA\nS: 250 m|250 r|250 r|354 "
                       "go\nBODY\nS: 250 ok\nEOF\n"
                     : "EOF\n");
        const char *scripts[] = {script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.rcpts = 4;
        add(&f, 1);
        run_until(&f, 1);
        for (unsigned k = 0; k < 4; k++)
            if ((f.outcomes[0][k].class == HKY_CLASS_OK) != (rows[i].is_count || k < 2))
                fail_msg("%s: %u %s", rows[i].reply, k, hky_class_name(f.outcomes[0][k].class));
        assert_int_equal(f.learned[HKY_LEARNED_RECIPIENTS], rows[i].is_count ? 2 : 0);
        finish(&f, &s);
        assert_int_equal(f.n_mails, rows[i].is_count ? 2 : 1);
    }
}

static void refuse_nobody(void *ctx, unsigned i, const struct hky_delivery_obstacle *why)
{
    (void)ctx;
    fail_msg("%u: %s", i, why->text);
}

/* So many commands fit that are kept in memory; a further transaction takes the recipients that are left. */
static void test_an_envelope_longer_than_its_bound(void **state)
{
    enum { N = 10000 }; /* the most of recipients_per_message */
    static struct hky_rcpt_draft rcpts[N];
    static const struct hky_recipient *recipients[N];
    const struct hky_capabilities caps = {.dsn = true, .has_size = true};
    struct hky_delivery_obstacle why = {0};
    char address[255], orcpt[500];

    (void)state;
    memset(address, 'a', sizeof(address));
    address[64] = '@';
    memset(orcpt, '+', sizeof(orcpt)); /* three octets each, when it is sent */
    memcpy(orcpt, "rfc822;", 7);
    for (unsigned i = 0; i < N; i++)
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_of(address, sizeof(address)),
                                           .orcpt = hky_str_of(orcpt, i % 2 == 0 ? sizeof(orcpt) : 0)};
    struct hky_message *m =
        hky_message_new(&(struct hky_message_draft){.id = 1, .size = 10, .n_recipients = N, .recipients = rcpts});
    struct hky_identity identity = {.sender = "a@a.example"};
    struct hky_delivery *x = hky_delivery_new();
    hky_delivery_reset(x, N);
    x->message = hky_message_ref(m);
    x->identity = &identity;
    for (unsigned i = 0; i < N; i++)
        recipients[i] = &m->recipients[i];
    x->recipients = recipients;
    if (!hky_delivery_build_envelope(x, &caps, false, &why, refuse_nobody, NULL))
        fail_msg("%s", why.text);
    unsigned n_lines = 0, n_open = 0;
    const char *end = x->txn.commands.p + x->txn.commands.n;
    for (const char *p = x->txn.commands.p; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        n_lines++;
    for (unsigned i = 0; i < N; i++)
        n_open += x->txn.verdicts[i] == HKY_VERDICT_OPEN;
    assert_int_equal(n_lines, n_open + 2); /* MAIL and DATA */
    assert_int_equal(n_open + x->n_left, N);
    assert_in_range(n_open, 1000, N - 1);
    assert_int_equal(x->txn.verdicts[n_open - 1], HKY_VERDICT_OPEN); /* the first ones are sent */
    assert_memory_equal(end - 6, "DATA\r\n", 6);
    hky_delivery_free(&x);
    hky_message_unref(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_503_to_an_overlapped_message),
        cmocka_unit_test(test_a_close_in_the_trial_costs_one_message),
        cmocka_unit_test(test_one_silence_says_nothing_against_overlap),
        cmocka_unit_test(test_silence_again_and_again_ends_pipelining),
        cmocka_unit_test(test_silence_in_the_trial_ends_overlap),
        cmocka_unit_test(test_a_new_connection_at_once),
        cmocka_unit_test(test_messages_per_connection_are_learned),
        cmocka_unit_test(test_connections_are_learned),
        cmocka_unit_test(test_a_lone_connection_that_is_turned_away),
        cmocka_unit_test(test_a_connection_out_of_recipients),
        cmocka_unit_test(test_too_many_recipients),
        cmocka_unit_test(test_an_envelope_longer_than_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
