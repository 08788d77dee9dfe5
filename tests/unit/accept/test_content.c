/* What becomes of the octets of a message, and of its header section, within a session. */
#include "fake.h"

#define PRE    "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
#define HDR    "From: a@x.test\r\nTo: b@y.test\r\nSubject: t\r\nX-Test-ID: N\r\n\r\n"
#define OK_PRE "220 250 250 250 354 "
#define ENV    "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"

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
            assert_string_equal(f.noted, "scenario_not_allowed login alice may not use the scenario winter");
        } else {
            assert_int_equal(f.n_messages, 1);
            assert_true(hky_str_eq(hky_message_fact(f.messages[0], HKY_FACT_SCENARIO), hky_str_z(logins[i].scenario)));
        }
        fake_fini(&f);
    }
}

/* One message whose content is `head`, `n` times `unit`, `tail`. */
static const char *codes_of(struct fake *f, const char *head, const char *unit, unsigned n, const char *tail)
{
    static char codes[256];
    struct hky_buf wire;

    hky_buf_init(&wire, 80 << 20);
    hky_buf_add_z(&wire, PRE);
    hky_buf_add_z(&wire, head);
    fake_repeat(&wire, unit, n);
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
    fake_repeat(&wire, "0123456789abcde\n", 150000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
