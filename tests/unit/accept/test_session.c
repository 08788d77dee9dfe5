#include "fake.h"

#define PRE       "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
#define HDR       "From: a@x.test\r\nTo: b@y.test\r\nSubject: t\r\nX-Test-ID: N\r\n\r\n"
#define SMUG      "MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"
#define SMUG_TEXT "MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n"
#define OK_PRE    "220 250 250 250 354 "
#define ENV       "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"
#define OK_ENV    "220 250 250 250 "

/* Every case is sent whole, one octet at a time, and cut in two at every offset: the outcome is the same. */
static const struct {
    const char *name;
    struct hky_str wire;
    const char *codes;
    unsigned n_messages;
    const char *text; /* of the first message, NULL: not looked at */
} cases[] = {
    {"one message", HKY_STR(PRE HDR "hello\r\n.\r\nQUIT\r\n"), OK_PRE "250 221", 1, "hello\r\n"},
    {"two messages", HKY_STR(PRE HDR "1\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n" HDR "2\r\n.\r\n"),
     OK_PRE "250 250 250 354 250", 2, "1\r\n"},
    {"L01 LF . LF is content", HKY_STR(PRE HDR "one\n.\n" SMUG), OK_PRE "250", 1, "one\r\n.\r\n" SMUG_TEXT},
    {"L02 LF . CRLF is content", HKY_STR(PRE HDR "one\n.\r\n" SMUG), OK_PRE "250", 1, "one\r\n.\r\n" SMUG_TEXT},
    {"L04 CR . CR is refused", HKY_STR(PRE HDR "one\r.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CR . LF is refused", HKY_STR(PRE HDR "one\r.\n" SMUG), OK_PRE "550", 0, NULL},
    {"L04 LF . CR is refused", HKY_STR(PRE HDR "one\n.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CR . CRLF is refused", HKY_STR(PRE HDR "one\r.\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CRLF . CR is refused", HKY_STR(PRE HDR "one\r\n.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L05 NUL before the dot", HKY_STR(PRE HDR "one\r\n\0.\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L05 NUL behind the dot", HKY_STR(PRE HDR "one\r\n.\0\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L08 dots are unstuffed", HKY_STR(PRE HDR "a\r\n.b\r\n..c\r\n\r\n.\r\n"), OK_PRE "250", 1, "a\r\nb\r\n.c\r\n\r\n"},
    {"empty content", HKY_STR(PRE ".\r\n"), OK_PRE "250", 1, ""},
    {"no header at all", HKY_STR(PRE "just text\r\nmore\r\n.\r\n"), OK_PRE "250", 1, "just text\r\nmore\r\n"},
    {"a line that is no field ends the header", HKY_STR(PRE "From: a@x.test\r\nno field\r\nrest\r\n.\r\n"),
     OK_PRE "250", 1, "no field\r\nrest\r\n"},
    {"header without empty line", HKY_STR(PRE "From: a@x.test\r\nSubject: s\r\n.\r\n"), OK_PRE "250", 1, ""},
    {"content that begins with the empty line", HKY_STR(PRE "\r\nbody\r\n.\r\n"), OK_PRE "250", 1, "body\r\n"},
    {"L26 BDAT without MAIL is swallowed", HKY_STR("EHLO t\r\nBDAT 9 LAST\r\nMAIL FROMNOOP\r\n"), "220 250 503 250", 0,
     NULL},
    {"L28 chunks are opaque", HKY_STR(ENV "BDAT 13\r\na\r\n.\r\nMAIL \r\nBDAT 7 LAST\r\nQUIT\r\n\n"), OK_ENV "250 250",
     1, "a\r\n.\r\nMAIL \r\nQUIT\r\n\r\n"},
    {"L28 a command right behind a chunk", HKY_STR(ENV "BDAT 3\r\nabcBDAT 2 LAST\r\nde"), OK_ENV "250 250", 1, "abcde"},
    {"BDAT 0 LAST ends", HKY_STR(ENV "BDAT 3\r\nabcBDAT 0 LAST\r\n"), OK_ENV "250 250", 1, "abc"},
    {"L29 DATA inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloDATA\r\n"), OK_ENV "250 503", 0, NULL},
    {"L29 RCPT inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloRCPT TO:<c@y.test>\r\nBDAT 0 LAST\r\n"),
     OK_ENV "250 503 250", 1, "hello"},
    {"L29 MAIL inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloMAIL FROM:<c@x.test>\r\n"), OK_ENV "250 503", 0, NULL},
    {"L29 RSET drops chunks", HKY_STR(ENV "BDAT 5\r\nhelloRSET\r\nBDAT 2 LAST\r\nxxNOOP\r\n"), OK_ENV "250 250 503 250",
     0, NULL},
    {"chunk that ends in CR", HKY_STR(ENV "BDAT 6 LAST\r\nabcde\r"), OK_ENV "550", 0, NULL},
    {"L31 after a refused message a transaction begins anew",
     HKY_STR(PRE HDR "x\ry\r\n.\r\nRCPT TO:<b@y.test>\r\nNOOP\r\n"), OK_PRE "550 503 250", 0, NULL},
    {"L32 octets above 127 without SMTPUTF8",
     HKY_STR("EHLO t\r\nMAIL FROM:<\xc3\xbc@x.test>\r\nRCPT TO:<b@y.test>\r\nVRFY \xc3\xbc@x.test\r\n"),
     "220 250 553 503 252", 0, NULL},
    {"L35 BDAT with a size that is none closes", HKY_STR(ENV "BDAT -1\r\nNOOP\r\n"), OK_ENV "501 421", 0, NULL},
    {"a bare LF ends a command", HKY_STR("EHLO t\nNOOP\nQUIT\n"), "220 250 250 221", 0, NULL},
    {"MAIL before EHLO", HKY_STR("MAIL FROM:<a@x.test>\r\n"), "220 503", 0, NULL},
    {"HELO is enough", HKY_STR("HELO t\r\nMAIL FROM:<a@x.test>\r\n"), "220 250 250", 0, NULL},
    {"EHLO resets", HKY_STR(ENV "EHLO u\r\nRCPT TO:<c@y.test>\r\n"), OK_ENV "250 503", 0, NULL},
    {"two MAILs", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nMAIL FROM:<a@x.test>\r\n"), "220 250 250 503", 0, NULL},
    {"NOOP HELP VRFY EXPN RSET", HKY_STR("NOOP x\r\nHELP\r\nVRFY a\r\nEXPN a\r\nRSET\r\n"), "220 250 214 252 502 250",
     0, NULL},
    {"commands in any case", HKY_STR("ehlo t\r\nmail from:<a@x.test>\r\nrcpt to:<b@y.test>\r\nquit\r\n"),
     "220 250 250 250 221", 0, NULL},
    {"unknown command", HKY_STR("XYZZY\r\n\r\n"), "220 500 500", 0, NULL},
    {"L23 a browser", HKY_STR("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@x.test>\r\n"), "220 421", 0, NULL},
    {"L23 GET", HKY_STR("GET / HTTP/1.1\r\n\r\n"), "220 421", 0, NULL},
    {"L23 a TLS ClientHello", HKY_STR("\x16\x03\x01\x02\x00\x01\x00\n"), "220", 0, NULL},
    {"L46 PROXY and XCLIENT are unknown", HKY_STR("PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\nXCLIENT ADDR=127.0.0.1\r\n"),
     "220 500 500", 0, NULL},
    {"L52 BINARYMIME is not offered", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> BODY=BINARYMIME\r\nDATA\r\n"),
     "220 250 555 503", 0, NULL},
    {"SIZE above the bound", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> SIZE=999999999\r\n"), "220 250 552", 0, NULL},
    {"STARTTLS where it is not offered", HKY_STR("EHLO t\r\nSTARTTLS\r\n"), "220 250 502", 0, NULL},
    {"AUTH where nobody can log in", HKY_STR("EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"), "220 250 502", 0, NULL},
    {"L37 postmaster without a domain", HKY_STR("EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n"),
     "220 250 250 250", 0, NULL},
    {"L40 dots as carriers gave them out",
     HKY_STR("EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<abc..def@docomo.ne.jp>\r\nRCPT TO:<\"abc..def\"@docomo.ne.jp>\r\n"),
     "220 250 250 250 250", 0, NULL},
};

static void check(struct fake *f, size_t i, const char *how)
{
    char codes[4096];

    fake_codes(f, codes, sizeof codes);
    if (strcmp(codes, cases[i].codes) != 0 || f->n_messages != cases[i].n_messages)
        fail_msg("%s (%s): got \"%s\" and %u messages", cases[i].name, how, codes, f->n_messages);
    if (cases[i].text != NULL) {
        struct hky_str text = fake_text(f, 0);
        if (!hky_str_eq(text, hky_str_z(cases[i].text)))
            fail_msg("%s (%s): content is \"" HKY_STR_FMT "\"", cases[i].name, how, HKY_STR_ARG(text));
    }
}

static void test_transcripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_str wire = cases[i].wire;
        struct fake f;

        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        fake_send(&f, wire);
        check(&f, i, "whole");
        fake_fini(&f);
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        for (size_t at = 0; at < wire.n; at++)
            fake_send(&f, hky_str_of(wire.p + at, 1));
        check(&f, i, "octet by octet");
        fake_fini(&f);
        for (size_t at = 1; at < wire.n; at++) {
            fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            fake_send_cut(&f, wire, at);
            check(&f, i, "cut");
            fake_fini(&f);
        }
    }
}

/* Sent whole and octet by octet: what is known of the body, so that it need not be looked through on its way out. */
static void test_dot_lines_are_noted(void **state)
{
    static const struct {
        const char *name;
        struct hky_str wire;
        bool has_none;
    } bodies[] = {
        {"plain", HKY_STR(PRE HDR "a\r\nb.c\r\n.\r\n"), true},
        {"nothing", HKY_STR(PRE ".\r\n"), true},
        {"no header", HKY_STR(PRE "just text\r\nmore\r\n.\r\n"), true},
        {"a dot line", HKY_STR(PRE HDR "a\r\n..b\r\n.\r\n"), false},
        {"a dot line that ends the header", HKY_STR(PRE "From: a@x.test\r\n..b\r\n.\r\n"), false},
        {"a dot that was not stuffed", HKY_STR(PRE HDR "a\r\n.b\r\n.\r\n"), false},
        {"a bare LF", HKY_STR(PRE HDR "a\nb\r\n.\r\n"), false},
        {"a bare LF in the header", HKY_STR(PRE "From: a@x.test\nTo: b@x.test\r\n\r\nb\r\n.\r\n"), false},
        {"a chunk", HKY_STR(ENV "BDAT 5 LAST\r\nabc\r\n"), false},
        {"two chunks, a dot line between them", HKY_STR(ENV "BDAT 5\r\nabc\r\nBDAT 3 LAST\r\n.\r\n"), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        for (size_t step = 1; step <= bodies[i].wire.n; step += bodies[i].wire.n - 1) {
            struct fake f;

            fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            for (size_t at = 0; at < bodies[i].wire.n; at += step)
                fake_send(&f, hky_str_of(bodies[i].wire.p + at, step));
            assert_int_equal(f.n_messages, 1);
            if (f.messages[0]->body->has_no_dot_lines != bodies[i].has_none)
                fail_msg("%s, %zu at once: no dot lines %d", bodies[i].name, step, !bodies[i].has_none);
            fake_fini(&f);
        }
}

static void test_unknown_fields_of_ours_are_named_once_a_message(void **state)
{
    static const struct {
        const char *name, *header, *noted; /* NULL: nothing is said */
    } rows[] = {
        {"none", "Subject: x\r\n", NULL},
        {"those that there are", "X-Hikyaku-Tag: a\r\nX-HIKYAKU-REF: b\r\nX-Hikyaku-Source: sendmail\r\n", NULL},
        {"not one of ours", "X-Hikyak-Tag: a\r\nX-Hikyaku: b\r\n", NULL},
        {"mistyped", "X-Hikyaku-Deadlin: 2h\r\n", ": X-Hikyaku-Deadlin (did you mean X-Hikyaku-Deadline?)"},
        {"two, one like nothing", "X-Hikyaku-Colour-Of-It: red\r\nSubject: x\r\nX-Hikyaku-Tags: a\r\n",
         ": X-Hikyaku-Colour-Of-It, X-Hikyaku-Tags (did you mean X-Hikyaku-Tag?)"},
        {"without a name", "X-Hikyaku-: 1\r\n", ": X-Hikyaku-"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake f;
        char text[1000];
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        snprintf(text, sizeof text,
                 "EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n%s\r\nbody\r\n.\r\n", rows[i].header);
        fake_send(&f, hky_str_z(text));
        assert_int_equal(f.n_messages, 1);
        if (f.n_noted != (rows[i].noted != NULL))
            fail_msg("%s: noted %d times, last \"%s\"", rows[i].name, f.n_noted, f.noted);
        if (rows[i].noted != NULL) {
            assert_true(hky_str_istarts(hky_str_z(f.noted), HKY_STR("unknown_field message ")));
            if (!hky_str_iends(hky_str_z(f.noted), hky_str_z(rows[i].noted)))
                fail_msg("%s: noted \"%s\"", rows[i].name, f.noted);
        }
        fake_fini(&f);
    }
}

static void test_many_unknown_fields_stay_one_bounded_line(void **state)
{
    struct fake f;
    struct hky_buf text;

    (void)state;
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    hky_buf_init(&text, 100000);
    hky_buf_add_z(&text, "EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    for (int i = 0; i < 50; i++) {
        hky_buf_printf(&text, "X-Hikyaku-%d-", i);
        for (int k = 0; k < 500; k++)
            hky_buf_add_c(&text, 'x');
        hky_buf_add_z(&text, ": 1\r\n");
    }
    hky_buf_add_z(&text, "\r\nbody\r\n.\r\n");
    fake_send(&f, hky_buf_str(&text));
    assert_int_equal(f.n_messages, 1);
    assert_int_equal(f.n_noted, 1);
    assert_non_null(strstr(f.noted, ": X-Hikyaku-0-xxx"));
    hky_buf_fini(&text);
    fake_fini(&f);
}

static void test_stored_message(void **state)
{
    struct fake f;
    struct hky_str all;

    (void)state;
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f,
              HKY_STR("EHLO web(1)\r\nMAIL FROM:<Shop@X.Test> ENVID=e1 RET=HDRS\r\n"
                      "RCPT TO:<b@Y.test> NOTIFY=NEVER ORCPT=rfc822;o@y.test\r\nRCPT TO:<B@y.test>\r\nDATA\r\n"
                      "From: =?UTF-8?B?5bqX?= <shop@x.test>\r\nX-Hikyaku-Scenario: spring\r\nSubject: hi\r\n there\r\n"
                      "X-Hikyaku-Tag: red, blue\r\nX-Hikyaku-Var: n=1\r\nx-hikyaku-anything: x\r\nTo: b@y.test\r\n"
                      "X-Hikyaku-Ref: r7\r\nX-Hikyaku-Deadline: 2025-12-01T10:00:00+09:00\r\n\r\nbody\r\n.\r\n"));
    assert_int_equal(f.n_messages, 1);
    struct hky_message *m = f.messages[0];
    all = hky_buf_str(&f.bodies[0]);
    assert_true(hky_str_istarts(all, HKY_STR("Received: from web?1? ([127.0.0.1])\r\n\tby mx.test with ESMTP id ")));
    assert_null(hky_str_ifind(all, HKY_STR("X-Hikyaku")));
    assert_non_null(hky_str_ifind(all, HKY_STR("\tfor <b@y.test>;\r\n\t")));
    assert_non_null(hky_str_ifind(all, HKY_STR("\r\nSubject: hi\r\n there\r\nTo: b@y.test\r\nDate: ")));
    assert_non_null(hky_str_ifind(all, HKY_STR("\r\nMessage-ID: <")));
    assert_true(hky_str_iends(all, HKY_STR("@mx.test>\r\n\r\nbody\r\n")));
    static const struct {
        enum hky_fact fact;
        struct hky_str value;
    } facts[] = {{HKY_FACT_SENDER, HKY_STR("Shop@x.test")},
                 {HKY_FACT_AUTHOR, HKY_STR("shop@x.test")},
                 {HKY_FACT_AUTHOR_NAME, HKY_STR("\xe5\xba\x97")},
                 {HKY_FACT_SCENARIO, HKY_STR("spring")},
                 {HKY_FACT_CLIENT, HKY_STR("127.0.0.1")},
                 {HKY_FACT_HELLO, HKY_STR("web(1)")},
                 {HKY_FACT_ENVID, HKY_STR("e1")},
                 {HKY_FACT_REF, HKY_STR("r7")},
                 {HKY_FACT_SUBJECT, HKY_STR("hi there")},
                 {HKY_FACT_TAGS, HKY_STR("red\0blue\0")},
                 {HKY_FACT_VARS, HKY_STR("n\0"
                                         "1\0")},
                 {HKY_FACT_SOURCE, HKY_STR("smtp")},
                 {HKY_FACT_USER, HKY_STR("")}};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        struct hky_str got = hky_message_fact(m, facts[i].fact);
        if (!hky_str_eq(got, facts[i].value))
            fail_msg("fact %d is \"" HKY_STR_FMT "\"", facts[i].fact, HKY_STR_ARG(got));
    }
    assert_int_equal(m->n_recipients, 1); /* b and B are one mailbox */
    assert_true(hky_str_eq(hky_recipient_address(&m->recipients[0]), HKY_STR("b@y.test")));
    assert_true(hky_str_eq(hky_recipient_orcpt(&m->recipients[0]), HKY_STR("rfc822;o@y.test")));
    assert_int_equal(m->recipients[0].notify, HKY_NOTIFY_NEVER);
    assert_int_equal(m->ret, HKY_RET_HDRS);
    assert_int_equal(m->deadline_ms, INT64_C(1764550800000));
    assert_int_equal(m->n_received, 1);
    fake_fini(&f);
}

static void test_own_fields_from_strangers(void **state)
{
    struct fake f;

    (void)state;
    /* a login: only its scenarios, and never another way */
    fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f,
              HKY_STR("EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\n"
                      "DATA\r\nFrom: news@shop.test\r\nX-Hikyaku-Scenario: winter\r\n\r\nb\r\n.\r\n"));
    assert_int_equal(f.n_messages, 0);
    assert_string_equal(f.refused, "550 5.7.1 login alice may not use the scenario winter");
    fake_send(&f, HKY_STR("MAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nFrom: news@shop.test\r\n"
                          "X-Hikyaku-Scenario: spring\r\n\r\nb\r\n.\r\n"));
    assert_int_equal(f.n_messages, 1);
    assert_null(hky_str_ifind(hky_buf_str(&f.bodies[0]), HKY_STR("spring")));
    assert_true(hky_str_eq(hky_message_fact(f.messages[0], HKY_FACT_USER), HKY_STR("alice")));
    fake_fini(&f);
}

static void test_scenario_of_a_login(void **state)
{
    static const char *const two[] = {"spring", "autumn", NULL}, *const all[] = {"*", NULL}, *const none[] = {NULL};
    static const struct {
        const char *name;
        const char *const *may;
        const char *field, *scenario; /* NULL: refused */
    } logins[] = {
        {"one, none named", only_spring, "", "spring"},
        {"one, that one named", only_spring, "X-Hikyaku-Scenario: spring\r\n", "spring"},
        {"one, another named", only_spring, "X-Hikyaku-Scenario: winter\r\n", NULL},
        {"two, none named", two, "", ""},
        {"two, one of them named", two, "X-Hikyaku-Scenario: autumn\r\n", "autumn"},
        {"all, none named", all, "", ""},
        {"all, one named", all, "X-Hikyaku-Scenario: winter\r\n", "winter"},
        {"no bound, none named", NULL, "", ""},
        {"none, none named", none, "", ""},
        {"none, one named", none, "X-Hikyaku-Scenario: winter\r\n", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        struct fake f;
        char text[400];

        fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.users[0].scenarios = logins[i].may;
        snprintf(text, sizeof text,
                 "EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\n"
                 "DATA\r\nFrom: news@shop.test\r\n%s\r\nb\r\n.\r\n",
                 logins[i].field);
        fake_send(&f, hky_str_z(text));
        print_message("%s\n", logins[i].name);
        if (logins[i].scenario == NULL) {
            assert_int_equal(f.n_messages, 0);
            assert_non_null(strstr(hky_buf_z(&f.out), "\r\n550 5.7.1 login alice may not use the scenario winter\r\n"));
        } else {
            assert_int_equal(f.n_messages, 1);
            assert_true(hky_str_eq(hky_message_fact(f.messages[0], HKY_FACT_SCENARIO), hky_str_z(logins[i].scenario)));
        }
        fake_fini(&f);
    }
}

static void repeat(struct hky_buf *b, const char *z, unsigned n)
{
    while (n-- > 0)
        hky_buf_add_z(b, z);
}

/* One message whose content is `head`, `n` times `unit`, `tail`. */
static const char *codes_of(struct fake *f, const char *head, const char *unit, unsigned n, const char *tail)
{
    static char codes[256];
    struct hky_buf wire;

    hky_buf_init(&wire, 80 << 20);
    hky_buf_add_z(&wire, PRE);
    hky_buf_add_z(&wire, head);
    repeat(&wire, unit, n);
    hky_buf_add_z(&wire, tail);
    hky_buf_add_z(&wire, "\r\n.\r\n");
    fake_init(f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    for (size_t at = 0; at < wire.n; at += 100000)
        fake_send(f, hky_str_of(wire.p + at, wire.n - at < 100000 ? wire.n - at : 100000));
    hky_buf_fini(&wire);
    return fake_codes(f, codes, sizeof codes);
}

static void test_bounds_of_content(void **state)
{
    static const struct {
        const char *name, *head, *unit, *tail;
        unsigned n;
        const char *codes, *refused;
    } bounds[] = {
        {"a small one", HDR, "x", "", 10, OK_PRE "250", ""},
        {"just above 1 MiB goes to a file", HDR, "0123456789abcde\n", "", 66000, OK_PRE "250", ""},
        {"a line of 3 MB", HDR, "A", "", 3000000, OK_PRE "250", ""},
        {"above max_message", HDR, "0123456789abcdef", "", 300000, OK_PRE "552", "552 5.3.4"},
        {"header of many lines", "", "To: a@x.test\r\n", "\r\nb", 1500, OK_PRE "552", "552 5.3.4"},
        {"header of many octets", "", "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\r\n\r\nb", 5000,
         OK_PRE "552", "552 5.3.4"},
        {"header of many octets and no end", "", "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "",
         50000, OK_PRE "552", "552 5.3.4"},
        {"no header, 3 MB of text", "text\r\n", "0123456789abcde\n", "", 180000, OK_PRE "250", ""},
        {"50 hops", "", "Received: x\r\n", "\r\nb", 50, OK_PRE "250", ""},
        {"51 hops are a loop", "", "Received: x\r\n", "\r\nb", 51, OK_PRE "554", "554 5.4.6"},
        {"a NUL late in a big one", HDR, "0123456789abcde\n", "\rx", 100000, OK_PRE "550", "550 5.6.0"},
        {"a variable without a name", "X-Hikyaku-Var: =1\r\n", "", "\r\nb", 0, OK_PRE "550", "550 5.6.0"},
        {"a deadline that is none", "X-Hikyaku-Deadline: soon\r\n", "", "\r\nb", 0, OK_PRE "550", "550 5.6.0"},
        {"a deadline on a day that is none", "X-Hikyaku-Deadline: 2027-02-29T10:00:00Z\r\n", "", "\r\nb", 0,
         OK_PRE "550", "550 5.6.0"},
        {"too many tags", "", "X-Hikyaku-Tag: 0123456789012345678901234567890123456789\r\n", "\r\nb", 200, OK_PRE "552",
         "552 5.3.4"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct fake f;
        const char *codes = codes_of(&f, bounds[i].head, bounds[i].unit, bounds[i].n, bounds[i].tail);

        if (strcmp(codes, bounds[i].codes) != 0 ||
            strncmp(f.refused, bounds[i].refused, strlen(bounds[i].refused)) != 0)
            fail_msg("%s: \"%s\", refused \"%s\"", bounds[i].name, codes, f.refused);
        assert_false(f.is_big_open);
        fake_fini(&f);
    }
}

/* Bounds of 64 octets of header and 128 of content: which of them is named does not hang on how the octets come. */
static void test_bounds_in_pieces(void **state)
{
#define X50 "X: 345678901234567890123456789012345678901234567\r\n"
    static const struct {
        const char *name, *content, *refused; /* "": accepted */
    } pieces[] = {
        {"a header of 64 octets", X50 "Y: 345678901\r\n\r\nb\r\n", ""},
        {"a header of 65 octets", X50 "Y: 3456789012\r\n\r\nb\r\n", "552 5.3.4 header too long, at most 64 octets"},
        {"a header of 65 octets, with a line that is no field", X50 "Y: 3456789012\r\nno field\r\nb\r\n",
         "552 5.3.4 header too long, at most 64 octets"},
        {"no field at 64 octets", X50 "no field\r\nmore text, more text\r\n", ""},
        {"a field whose name goes over the bound, then a NUL", X50 "Long-Name-Of-A-Field: x\r\n\r\n\1\r\n",
         "552 5.3.4 header too long, at most 64 octets"},
        {"a bad field before a header that is too long", "X-Hikyaku-Var: =1\r\n" X50 X50 "\r\nb\r\n",
         "550 5.6.0 X-Hikyaku-Var: expected name=value"},
        {"a bad field and too many octets", "X-Hikyaku-Var: =1\r\n\r\n" X50 X50 X50,
         "550 5.6.0 X-Hikyaku-Var: expected name=value"},
        {"128 octets, header completed", "X: 1\r\n\r\n" X50 X50 "345678901234567890\r\n", ""},
        {"129 octets", "X: 1\r\n\r\n" X50 X50 "3456789012345678901\r\n",
         "552 5.3.4 message too big, at most 128 octets"},
        {"133 octets, ours removed",
         "X-Hikyaku-Tag: 1234567890123456789012345678901234567890\r\n\r\n" X50 "34567890123\r\n"
         "567890123\r\n",
         "552 5.3.4 message too big, at most 128 octets"},
        {"no header, 129 octets", "text only\r\n" X50 X50 "3456789012345678\r\n",
         "552 5.3.4 message too big, at most 128 octets"},
        {"a loop and too many octets", "Received: 1\r\nReceived: 2\r\n\r\n" X50 X50 X50,
         "554 5.4.6 mail loop: more than 1 Received fields"},
        {"a NUL and too many octets", "X: 1\r\n\r\n\1" X50 X50 X50, "552 5.3.4 message too big, at most 128 octets"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        size_t n = strlen(pieces[i].content), pre = sizeof PRE - 1;
        char wire[512];
        int wire_n = snprintf(wire, sizeof wire, PRE "%s.\r\n", pieces[i].content);

        for (size_t k = 0; k < (size_t)wire_n; k++)
            wire[k] = wire[k] == '\1' ? '\0' : wire[k];
        for (size_t at = 0; at <= n + 1; at++) { /* 0: in one piece; the last: octet by octet */
            struct fake f;

            fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            f.policy.engine.bounds.header_octets = 64;
            f.policy.engine.bounds.received = 1;
            f.policy.engine.max_message = 128;
            if (at <= n)
                fake_send_cut(&f, hky_str_of(wire, (size_t)wire_n), pre + at);
            for (size_t k = 0; at > n && k < (size_t)wire_n; k++)
                fake_send(&f, hky_str_of(wire + k, 1));
            if (strcmp(f.refused, pieces[i].refused) != 0 || (f.n_messages == 1) != (pieces[i].refused[0] == '\0'))
                fail_msg("%s, cut at %zu of %zu: refused \"%s\"", pieces[i].name, at, n, f.refused);
            fake_fini(&f);
        }
    }
#undef X50
}

static void test_big_content_is_whole(void **state)
{
    struct fake f;
    struct hky_str text;

    (void)state;
    codes_of(&f, HDR, "0123456789abcde\n", 100000, "end");
    assert_int_equal(f.n_messages, 1);
    assert_true(f.messages[0]->is_big);
    text = fake_text(&f, 0);
    assert_int_equal(text.n, 100000 * 17 + 5);
    for (unsigned i = 0; i < 100000; i++)
        assert_memory_equal(text.p + i * 17, "0123456789abcde\r\n", 17);
    assert_memory_equal(text.p + 1700000, "end\r\n", 5);
    fake_fini(&f);
}

static void test_journal_answers(void **state)
{
    static const struct {
        enum hky_err room, commit;
        const char *codes;
    } answers[] = {{HKY_OK, HKY_OK, OK_PRE "250"},
                   {HKY_OK, HKY_E_FULL, OK_PRE "452"},
                   {HKY_OK, HKY_E_IO, OK_PRE "451"},
                   {HKY_E_FULL, HKY_OK, "220 250 452"},
                   {HKY_E_IO, HKY_OK, "220 250 451"}};

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct fake f;
        char codes[256];

        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.room = answers[i].room;
        f.commit = answers[i].commit;
        if (answers[i].room == HKY_OK)
            fake_send(&f, HKY_STR(PRE HDR "x\r\n.\r\n"));
        else
            fake_send(&f, HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\n"));
        assert_string_equal(fake_codes(&f, codes, sizeof codes), answers[i].codes);
        fake_fini(&f);
    }
}

/* The big file cannot be opened: what is still to come is read and thrown away, then refused. */
static void test_no_room_for_a_big_file(void **state)
{
    static const struct {
        enum hky_err err;
        const char *codes;
    } answers[] = {{HKY_E_FULL, OK_PRE "452 250"}, {HKY_E_IO, OK_PRE "451 250"}};
    struct hky_buf wire;

    (void)state;
    hky_buf_init(&wire, 8 << 20);
    hky_buf_add_z(&wire, PRE HDR);
    repeat(&wire, "0123456789abcde\n", 150000);
    hky_buf_add_z(&wire, "\r\n.\r\nNOOP\r\n");
    for (size_t i = 0; i < 2; i++) {
        struct fake f;
        char codes[256];

        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.big_room = answers[i].err;
        fake_send(&f, hky_buf_str(&wire));
        assert_string_equal(fake_codes(&f, codes, sizeof codes), answers[i].codes);
        assert_int_equal(f.n_messages, 0);
        fake_fini(&f);
    }
    hky_buf_fini(&wire);
}

static void test_utf8_addresses(void **state)
{
    struct fake f;

    (void)state;
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> SMTPUTF8\r\nRCPT TO:<\xc3\xbc@y.test>\r\nDATA\r\n" HDR
                          "x\r\n.\r\nMAIL FROM:<a@x.test> SMTPUTF8\r\nRCPT TO:<b@y.test>\r\nDATA\r\n" HDR
                          "\xc3\xbc\r\n.\r\n"));
    assert_int_equal(f.n_messages, 2);
    assert_true(f.messages[0]->is_smtputf8);
    assert_non_null(hky_str_ifind(hky_buf_str(&f.bodies[0]), HKY_STR("with UTF8SMTP id")));
    assert_false(f.messages[1]->is_smtputf8); /* said, but nothing needs it: more relays can take it */
    assert_true(f.messages[1]->is_8bit);
    fake_fini(&f);
}

static void test_waiting(void **state)
{
    struct fake f;
    char codes[256];

    (void)state;
    /* too much unsynced: MAIL waits and is then read again */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    f.n_room_busy = 3;
    fake_send(&f, HKY_STR(PRE HDR "x\r\n.\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250");
    fake_fini(&f);
    /* while a commit is pending nothing is read, and the 250 comes first */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    f.is_commit_manual = true;
    fake_send(&f, HKY_STR(PRE HDR "x\r\n.\r\nMAIL FROM:<>\r\nNOOP\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 250 250 354");
    f.is_commit_manual = false;
    fake_pump(&f);
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250 250 250");
    assert_non_null(strstr(hky_buf_z(&f.out), "\r\n250 2.0.0 queued as 0"));
    /* draining: the transaction under way is the last */
    fake_send(&f, HKY_STR("RCPT TO:<b@y.test>\r\nDATA\r\n"));
    accept_session_drain(&f.session);
    assert_false(f.is_closed);
    fake_send(&f, HKY_STR(HDR "x\r\n.\r\n"));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250 250 250 250 354 250 421");
    fake_fini(&f);
}

/* A login, a chunk that is swallowed and TLS end, and with them the session: no new transaction begins. */
static void test_drain_is_the_end_of_what_is_no_transaction(void **state)
{
    static const struct {
        const char *before, *after, *codes;
    } ways[] = {
        {"EHLO t\r\nAUTH LOGIN\r\n", "*\r\nMAIL FROM:<a@x.test>\r\n", "220 250 334 501 421"},
        {"EHLO t\r\nAUTH LOGIN\r\nYm9i\r\n", "aHVudGVyMg==\r\n", "220 250 334 334 235 421"},
        {"EHLO t\r\nAUTH LOGIN\r\nYm9i\r\n", "c2VjcmV0\r\n", "220 250 334 334 535 421"},
        {"EHLO t\r\nBDAT 9 LAST\r\nMAIL", " FROM", "220 250 503 421"},
        {"EHLO t\r\nMAIL FROM:<a@x.test>\r\n", "RSET\r\n", "220 250 250 250 421"},
        {"EHLO t\r\nSTARTTLS\r\n", "", "220 250 220 421"},
    };
    char codes[256];

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct fake f;
        bool is_tls = strstr(ways[i].before, "STARTTLS") != NULL;
        fake_init(&f, !is_tls, is_tls ? HKY_LISTEN_STARTTLS : HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.session.user = strstr(ways[i].before, "AUTH") == NULL && !is_tls ? &f.users[1] : NULL;
        f.is_tls_manual = true;
        fake_send(&f, hky_str_z(ways[i].before));
        accept_session_drain(&f.session);
        assert_false(f.is_closed);
        fake_send(&f, hky_str_z(ways[i].after));
        if (is_tls)
            accept_session_on_tls(&f.session);
        assert_true(f.is_closed);
        assert_string_equal(fake_codes(&f, codes, sizeof codes), ways[i].codes);
        fake_fini(&f);
    }
}

static void test_pipelining_faults(void **state)
{
    struct fake f;
    char codes[256];

    (void)state;
    /* L22: content behind a refused DATA is not run as commands */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f,
              HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<nope@>\r\nDATA\r\nMAIL FROM:<evil@x.test>\r\n.\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 250 501 554 421");
    assert_true(f.is_closed);
    fake_fini(&f);
    /* L10: octets behind STARTTLS */
    fake_init(&f, false, HKY_LISTEN_STARTTLS, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nSTARTTLS\r\nMAIL FROM:<inj@x.test>\r\n"));
    assert_true(f.is_closed);
    assert_false(f.wants_tls);
    fake_fini(&f);
    /* L11: after TLS everything is forgotten, and STARTTLS is not offered twice */
    fake_init(&f, false, HKY_LISTEN_STARTTLS, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nSTARTTLS foo\r\n"));
    fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\nSTARTTLS\r\nRSET\r\n"));
    fake_send(&f, HKY_STR("STARTTLS\r\n"));
    fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\nEHLO t\r\nSTARTTLS\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 501 250 503 250 220 503 250 503");
    fake_fini(&f);
}

static void test_bounds_of_dialogue(void **state)
{
    struct fake f;
    struct hky_buf wire;
    char *codes = malloc(1 << 16);

    (void)state;
    hky_buf_init(&wire, 8 << 20);
    /* a line above the bound that would have begun a chunk */
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 6 ");
    repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 250 250 250 421");
    assert_true(f.is_closed);
    fake_fini(&f);
    hky_buf_clear(&wire);
    /* L17: a line above the bound is skipped; an endless one closes */
    repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 250");
    fake_fini(&f);
    hky_buf_clear(&wire);
    repeat(&wire, "A", 70000);
    for (size_t piece = 1000; piece <= 70000; piece *= 70) {
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        for (size_t at = 0; at < wire.n; at += piece)
            fake_send(&f, hky_str_of(wire.p + at, piece));
        assert_true(f.is_closed);
        assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 421");
        fake_fini(&f);
    }
    /* an octet 22 where a piece of a long line begins is no TLS */
    hky_buf_clear(&wire);
    repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\x16\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send_cut(&f, hky_buf_str(&wire), 3000);
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 250");
    fake_fini(&f);
    /* L25: 1000 recipients are taken, more are refused one by one, and the message still goes to those */
    hky_buf_clear(&wire);
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\n");
    for (int i = 0; i < 1500; i++)
        hky_buf_printf(&wire, "RCPT TO:<u%d@y.test>\r\n", i);
    hky_buf_add_z(&wire, "DATA\r\n" HDR "x\r\n.\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_int_equal(f.n_messages, 1);
    assert_int_equal(f.messages[0]->n_recipients, 1000);
    assert_non_null(strstr(fake_codes(&f, codes, 1 << 16), "452 354 250"));
    fake_fini(&f);
    hky_buf_clear(&wire);
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\n");
    for (int i = 0; i < 3000; i++)
        hky_buf_printf(&wire, "RCPT TO:<u%d@y.test>\r\n", i);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    fake_fini(&f);
    /* 20 errors */
    hky_buf_clear(&wire);
    repeat(&wire, "XYZZY\r\n", 30);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, 1 << 16) + 4 * 20, "500 421");
    fake_fini(&f);
    /* 100 commands of a stranger, then 20 errors; a client that may send is not counted */
    hky_buf_clear(&wire);
    repeat(&wire, "NOOP\r\n", 200);
    fake_init(&f, true, HKY_LISTEN_STARTTLS, NULL, "192.0.2.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, 1 << 16) + 4 * 100, "250 503 503 503 503 503 503 503 503 503 503 503 503 "
                                                                  "503 503 503 503 503 503 503 503 421");
    fake_fini(&f);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_false(f.is_closed);
    fake_fini(&f);
    hky_buf_fini(&wire);
    free(codes);
}

static void test_who_may_send(void **state)
{
    static const struct {
        const char *name;
        bool has_users;
        enum hky_listen_tls tls;
        const char *client;
        bool is_allowed;
        const char *reply;
    } who[] = {
        {"loopback, no users", false, HKY_LISTEN_PLAIN, "127.0.0.1", false, "250 2.1.0"},
        {"loopback where logins are wanted", true, HKY_LISTEN_PLAIN, "127.0.0.1", false, "530 5.7.0"},
        {"a stranger, no users", false, HKY_LISTEN_PLAIN, "192.0.2.1", false, "550 5.7.1"},
        {"a stranger, users", true, HKY_LISTEN_STARTTLS, "192.0.2.1", false, "530 5.7.0 log in first: STARTTLS"},
        {"allow-listed", true, HKY_LISTEN_STARTTLS, "192.0.2.1", true, "250 2.1.0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof who / sizeof who[0]; i++) {
        struct fake f;

        fake_init(&f, who[i].has_users, who[i].tls, NULL, who[i].client);
        f.session.p.is_allowed = who[i].is_allowed;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        hky_buf_clear(&f.out);
        fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\n"));
        if (strncmp(hky_buf_z(&f.out), who[i].reply, strlen(who[i].reply)) != 0)
            fail_msg("%s: %s", who[i].name, hky_buf_z(&f.out));
        fake_fini(&f);
    }
}

static void what_is_refused_is_told_of(void **state)
{
    static const struct {
        const char *wire, *of, *text;
        enum hky_err room;
        unsigned n;
    } rows[] = {
        {"MAIL FROM:<a@x.test> SIZE=99999999999\r\n", "a@x.test ", "552 5.3.4 message too big", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\n", "a@x.test ", "452 4.3.1 no space", HKY_E_FULL, 1},
        {"MAIL FROM:<a@x.test>\r\n", "a@x.test ", "451 4.3.0 mail cannot be stored", HKY_E_IO, 1},
        {"MAIL FROM:<a x>\r\n", " ", "501 5.1.7", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<b y>\r\n", "a@x.test ", "501 5.1.3", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<\xe6\x97\xa5@y.test>\r\nRCPT TO:<\xe6\x97\xa5@z.test>\r\n",
         "a@x.test \xe6\x97\xa5@y.test", "553 5.6.7", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 99999999\r\n", "a@x.test ", "552 5.3.4", HKY_OK, 1},
        {"RCPT TO:<b@y.test>\r\nDATA\r\nXYZZY\r\n", "", "", HKY_OK, 0}, /* of the dialogue, not of a message */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake f;
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.room = rows[i].room;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        fake_send(&f, hky_str_z(rows[i].wire));
        if (f.n_refused != rows[i].n || strcmp(f.refused_of, rows[i].of) != 0 ||
            strncmp(f.refused, rows[i].text, strlen(rows[i].text)) != 0)
            fail_msg("%s: %u, \"%s\" of \"%s\"", rows[i].wire, f.n_refused, f.refused, f.refused_of);
        fake_fini(&f);
    }
    struct fake f; /* who may not send tells the owner nothing */
    fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "192.0.2.1");
    fake_send(&f, HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nMAIL FROM:<a x>\r\n"));
    assert_int_equal(f.n_refused, 0);
    fake_fini(&f);
}

/* A login, a network or a right that a new policy takes away. `in` is what the session is in the middle of. */
static void test_a_new_policy_is_taken_over(void **state)
{
    static const char *const senders[] = {"shop.test", NULL}, *const winter[] = {"winter", NULL};
    enum { SAME, LOGIN_GONE, PASSWORD_CHANGED, SENDERS_CHANGED, SCENARIO_CHANGED, LISTENER_GONE, N_CHANGES };
    static const char *const names[N_CHANGES] = {"nothing",       "login gone", "other password",
                                                 "other senders", "scenario",   "listener gone"};
    static const struct {
        const char *what, *in, *then;
    } moments[] = {
        {"at rest", "", "MAIL FROM:<alice@x.test>\r\n"},
        {"in a transaction", "MAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\n", "RSET\r\n"},
        {"in DATA", "MAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nFrom: alice@x.test\r\n\r\nhalf",
         "\r\n.\r\n"},
    };
    static const bool ends[N_CHANGES][3] = {
        {false, false, false}, {true, true, true},
        {true, true, true},    {false, true, true},  /* at rest it goes on, with the new senders */
        {false, true, true},   {true, false, false}, /* what is under way is the last */
    };

    (void)state;
    for (int change = 0; change < N_CHANGES; change++)
        for (size_t m = 0; m < sizeof moments / sizeof moments[0]; m++) {
            struct fake f;
            struct hky_user users[2];
            fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            fake_send(&f, HKY_STR("EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"));
            fake_send(&f, hky_str_z(moments[m].in));
            memcpy(users, f.users, sizeof users);
            struct hky_policy policy = f.policy;
            struct hky_listen listen = f.listen;
            listen.users = users;
            if (change == LOGIN_GONE)
                users[0].name = "other";
            if (change == PASSWORD_CHANGED)
                users[0].password = (struct hky_secret_ref){.name = "newer"};
            if (change == SENDERS_CHANGED)
                users[0].senders = senders;
            if (change == SCENARIO_CHANGED)
                users[0].scenarios = winter;
            accept_session_take_policy(
                &f.session, &(struct accept_session_review){&policy, change != LISTENER_GONE ? &listen : NULL, false});
            if (f.is_closed != ends[change][m])
                fail_msg("%s, %s: %s", names[change], moments[m].what, hky_buf_z(&f.out));
            if (!f.is_closed) {
                fake_send(&f, hky_str_z(moments[m].then));
                if (change == LISTENER_GONE)
                    assert_true(f.is_closed);
                else
                    assert_ptr_equal(f.session.p.policy, m == 0 || f.session.tx.letter == NULL ? &policy : &f.policy);
                if (change == SENDERS_CHANGED)
                    assert_non_null(strstr(hky_buf_z(&f.out), "\r\n553 5.7.1 "));
            } else {
                assert_non_null(strstr(hky_buf_z(&f.out), "\r\n421 4."));
            }
            fake_fini(&f);
        }
}

/* A client that is believed for its address, and one that a listener without users takes from loopback. */
static void test_a_network_that_is_taken_away_ends_its_sessions(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fake f;
        bool is_loopback = i < 2, is_taken = i % 2 == 1;
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, is_loopback ? "127.0.0.1" : "192.0.2.1");
        f.session.p.is_allowed = !is_loopback;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        struct hky_listen listen = f.listen;
        if (is_loopback && is_taken) { /* it asks for a login now */
            listen.users = f.users;
            listen.n_users = 2;
        }
        accept_session_take_policy(&f.session,
                                   &(struct accept_session_review){&f.policy, &listen, !is_loopback && !is_taken});
        assert_int_equal(f.is_closed, is_taken);
        fake_fini(&f);
    }
}

/* MAIL FROM:a@b of old devices, from who may send; and where <postmaster> is. */
static void test_addresses_without_brackets(void **state)
{
    static const struct {
        const char *line, *code, *address;
    } rows[] = {
        {"MAIL FROM:a@x.test", "250", "a@x.test"},
        {"MAIL FROM: a@x.test SIZE=100", "250", "a@x.test"},
        {"MAIL FROM:\"a b\"@x.test BODY=8BITMIME", "250", "a b@x.test"},
        {"MAIL FROM:", "501", ""},
        {"MAIL FROM:a", "501", ""},
        {"MAIL FROM:a@", "501", ""},
        {"MAIL FROM:a@x.test>", "501", ""},
        {"MAIL FROM:<a@x.test", "501", ""},
        {"MAIL FROM:a b@x.test", "501", ""},
        {"MAIL FROM:a@x.test,b@x.test", "501", ""},
        {"MAIL FROM:a@x.test WHAT=1", "501", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake f;
        char codes[64], text[300];
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        snprintf(text, sizeof text,
                 "EHLO t\r\n%s\r\nRCPT TO:b@y.test\r\nRCPT TO:<postmaster>\r\nRCPT TO:Postmaster\r\n", rows[i].line);
        fake_send(&f, hky_str_z(text));
        fake_codes(&f, codes, sizeof codes);
        if (strncmp(codes + 8, rows[i].code, 3) != 0 && strncmp(codes + 8, "555", 3) != 0)
            fail_msg("%s: %s", rows[i].line, codes);
        if (rows[i].code[0] == '2') {
            fake_send(&f, HKY_STR("DATA\r\n\r\n.\r\n"));
            assert_int_equal(f.n_messages, 1);
            assert_int_equal(f.messages[0]->n_recipients, 2);
            assert_true(hky_str_eq(hky_message_fact(f.messages[0], HKY_FACT_SENDER), hky_str_z(rows[i].address)));
            assert_true(hky_str_eq(hky_recipient_address(&f.messages[0]->recipients[0]), HKY_STR("b@y.test")));
            assert_true(hky_str_istarts(hky_recipient_address(&f.messages[0]->recipients[1]), HKY_STR("postmaster@")));
        }
        fake_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_is_told_of),
        cmocka_unit_test(test_addresses_without_brackets),
        cmocka_unit_test(test_a_new_policy_is_taken_over),
        cmocka_unit_test(test_a_network_that_is_taken_away_ends_its_sessions),
        cmocka_unit_test(test_transcripts),
        cmocka_unit_test(test_dot_lines_are_noted),
        cmocka_unit_test(test_stored_message),
        cmocka_unit_test(test_unknown_fields_of_ours_are_named_once_a_message),
        cmocka_unit_test(test_many_unknown_fields_stay_one_bounded_line),
        cmocka_unit_test(test_own_fields_from_strangers),
        cmocka_unit_test(test_scenario_of_a_login),
        cmocka_unit_test(test_bounds_of_content),
        cmocka_unit_test(test_bounds_in_pieces),
        cmocka_unit_test(test_big_content_is_whole),
        cmocka_unit_test(test_journal_answers),
        cmocka_unit_test(test_no_room_for_a_big_file),
        cmocka_unit_test(test_utf8_addresses),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_drain_is_the_end_of_what_is_no_transaction),
        cmocka_unit_test(test_pipelining_faults),
        cmocka_unit_test(test_bounds_of_dialogue),
        cmocka_unit_test(test_who_may_send),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
