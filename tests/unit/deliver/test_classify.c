/* How rules are read and applied, and what stage and code say by themselves. */
#include "unit/deliver/classify_rig.h"

static void test_local_causes(void **state)
{
    static const struct {
        const char *what, *provider, *mx, *text;
        enum hky_origin origin;
        enum hky_stage stage;
        enum hky_class class;
        enum hky_scope scope;
        bool is_temporary;
    } cases[] = {
        {"no such domain", "own", "x.example", "NXDOMAIN", HKY_ORIGIN_DNS, S(CONNECT), C(BAD_DOMAIN), W(DOMAIN), false},
        {"relay's name unknown", "", "x.example", "NXDOMAIN", HKY_ORIGIN_DNS, S(CONNECT), C(NETWORK), W(RELAY), true},
        {"resolver down", "own", "x.example", "SERVFAIL", HKY_ORIGIN_DNS, S(CONNECT), C(NETWORK), W(PATH), true},
        {"refused", "own", "x.example", "connection refused", HKY_ORIGIN_CONNECT, S(CONNECT), C(NETWORK), W(PATH),
         true},
        {"au refuses", "own", "ezweb.ne.jp", "refused", HKY_ORIGIN_CONNECT, S(CONNECT), C(NETWORK), W(PATH), true},
        {"au resets: blocked or busy", "own", "lsean.ezweb.ne.jp", "connection reset by peer", HKY_ORIGIN_CONNECT,
         S(CONNECT), C(RATE_LIMITED), W(PATH), true},
        {"timeout", "", "x.example", "no answer", HKY_ORIGIN_TIMEOUT, S(MAIL), C(NETWORK), W(RELAY), true},
        {"lost", "own", "x.example", "connection closed", HKY_ORIGIN_LOST, S(DATA), C(NETWORK), W(PATH), true},
        {"certificate", "", "x.example", "certificate does not match", HKY_ORIGIN_TLS, S(TLS), C(TLS), W(RELAY), false},
        {"AUTH is not offered", "", "x.example", "AUTH is not offered", HKY_ORIGIN_LOCAL, S(AUTH), C(RELAY_AUTH),
         W(RELAY), false},
        {"no SMTP at all", "own", "x.example", "not an SMTP reply: no code", HKY_ORIGIN_LOCAL, S(GREETING), C(NETWORK),
         W(PATH), true},
        {"too big for SIZE", "", "x.example", "the server takes 1000 octets", HKY_ORIGIN_LOCAL, S(MAIL), C(SIZE_FORMAT),
         W(MESSAGE), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hky_reply reply;
        struct hky_outcome o;

        reply_of(&reply, cases[i].text, cases[i].origin);
        classify(cases[i].provider, cases[i].mx, cases[i].stage, &reply, &o);
        if (o.class != cases[i].class || o.scope != cases[i].scope || o.is_temporary != cases[i].is_temporary)
            fail_msg("%s: %s, %s, temporary %d", cases[i].what, hky_class_name(o.class), hky_scope_name(o.scope),
                     o.is_temporary);
    }
}

/* Without any rule the stage and the code decide. */
static void test_without_rules(void **state)
{
    struct hky_reply reply;
    struct hky_outcome o;
    struct hky_classify_query q = {
        .provider = "own", .mx = "", .is_own = true, .stage = HKY_STAGE_RCPT, .reply = &reply, .now_ms = 1};

    (void)state;
    reply_of(&reply, "550 5.1.1 User unknown", HKY_ORIGIN_REMOTE);
    hky_classify(NULL, 0, &q, &o);
    assert_int_equal(o.class, HKY_CLASS_BAD_MAILBOX);
    reply_of(&reply, "552 5.2.2 full", HKY_ORIGIN_REMOTE);
    hky_classify(NULL, 0, &q, &o);
    assert_int_equal(o.class, HKY_CLASS_MAILBOX_FULL);
}

static void test_rule_language(void **state)
{
    static const struct hky_class_rule rules[] = {
        {.provider = "", .mx = "*.a.example|b.example", .enhanced = "", .text = "", .class = C(FILTERED)},
        {.provider = "p", .mx = "", .enhanced = "", .text = "", .class = C(TLS)},
        {.provider = "",
         .mx = "",
         .stages = 1U << HKY_STAGE_DOT,
         .enhanced = "x.7.2?",
         .text = "",
         .class = C(EXPIRED)},
        {.provider = "", .mx = "", .enhanced = "", .text = "one*two|t?ree", .class = C(INACTIVE)},
        {.provider = "",
         .mx = "",
         .enhanced = "",
         .text = "limit|quota",
         .with = "a day|an hour",
         .without = "mailbox|size",
         .class = C(NETWORK)},
    };
    static const struct {
        const char *what, *provider, *mx, *reply;
        enum hky_stage stage;
        enum hky_class class;
    } cases[] = {
        {"first host", "", "x.a.example", "550 no", S(RCPT), C(FILTERED)},
        {"second host, root dot", "", "B.example.", "550 no", S(RCPT), C(FILTERED)},
        {"provider", "p", "c.example", "550 no", S(RCPT), C(TLS)},
        {"any class", "", "", "450 4.7.26 no", S(DOT), C(EXPIRED)},
        {"other stage", "", "", "550 5.7.26 no", S(RCPT), C(AUTH_POLICY)},
        {"pieces in order", "", "", "550 oNe and TWO", S(RCPT), C(INACTIVE)},
        {"pieces the other way round", "", "", "550 two and one", S(RCPT), C(UNKNOWN)},
        {"one octet", "", "", "550 thReE", S(RCPT), C(INACTIVE)},
        {"a phrase longer than the text", "", "", "550 on", S(RCPT), C(UNKNOWN)},
        {"no text", "", "", "550 ", S(RCPT), C(UNKNOWN)},
        {"text and with", "", "", "550 the limit of a day", S(RCPT), C(NETWORK)},
        {"text and with, the other way round", "", "", "550 an hour's QUOTA", S(RCPT), C(NETWORK)},
        {"text alone", "", "", "550 the quota", S(RCPT), C(UNKNOWN)},
        {"with alone", "", "", "550 wait an hour", S(RCPT), C(UNKNOWN)},
        {"what must not occur", "", "", "550 quota of a day of this mailbox", S(RCPT), C(UNKNOWN)},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hky_reply reply;
        struct hky_outcome o;
        struct hky_classify_query q = {.provider = cases[i].provider,
                                       .mx = cases[i].mx,
                                       .is_own = cases[i].provider[0] == '\0',
                                       .stage = cases[i].stage,
                                       .reply = &reply,
                                       .now_ms = 1};

        reply_of(&reply, cases[i].reply, HKY_ORIGIN_REMOTE);
        hky_classify(rules, sizeof rules / sizeof *rules, &q, &o);
        if (o.class != cases[i].class)
            fail_msg("%s: %s, expected %s", cases[i].what, hky_class_name(o.class), hky_class_name(cases[i].class));
    }
}

/* The dearest reply there is: 1000 octets in which every phrase could begin. Sanitizers included, far below a turn. */
static void test_time_is_bounded(void **state)
{
    struct hky_reply reply = {.code = 550, .n = HKY_REPLY_TEXT - 1};
    struct hky_outcome o;
    struct timespec from, to;
    long us;

    (void)state;
    for (unsigned i = 0; i < reply.n; i++)
        reply.text[i] = "mailbox is spam limit user dns "[i % 31];
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (int i = 0; i < 100; i++)
        classify("own", "mx.example.jp", HKY_STAGE_DOT, &reply, &o);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    us = ((to.tv_sec - from.tv_sec) * 1000000L + (to.tv_nsec - from.tv_nsec) / 1000) / 100;
    print_message("a reply of 1000 octets: %ld us\n", us);
    assert_true(us < 5000);
}

/* Whatever a peer says, the answer is one of ours and no wait is longer than three days. */
static void test_any_octets(void **state)
{
    uint64_t seed = 88172645463325252;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct hky_reply reply = {.code = (uint16_t)(400 + round % 200), .enhanced = {5, 7}};
        struct hky_outcome o;
        static const char *const mx[] = {"", ".", "mfsmax.docomo.ne.jp", "smtp.gmail.com", "*"};

        reply.n = (uint16_t)(round % HKY_REPLY_TEXT);
        for (unsigned i = 0; i < reply.n; i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            reply.text[i] = round % 2 != 0 ? (char)(seed >> 40) : "0123456789:- in after min hour*?|x"[seed % 34];
        }
        classify(round % 3 != 0 ? "own" : "gmail", mx[round % 5], (enum hky_stage)(1 + round % 10), &reply, &o);
        assert_true(o.class > HKY_CLASS_OK && o.class < HKY_CLASS_FULL);
        assert_true(o.scope < HKY_SCOPE_N);
        assert_true(o.retry_after_sec <= 3 * 86400);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local_causes),  cmocka_unit_test(test_without_rules),
        cmocka_unit_test(test_rule_language), cmocka_unit_test(test_time_is_bounded),
        cmocka_unit_test(test_any_octets),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
