/* A message handed in without any SMTP session, as another door would, and its way to the disk. */
#include "hikyaku/intake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const only_x[] = {"x.test", NULL};
static const char *const only_spring[] = {"spring", NULL};

struct world {
    struct hky_policy policy;
    struct hky_user user;
    struct hky_buf big;
    unsigned n_big, n_aborted;
};

static enum hky_err big_open(void *ctx, uint64_t id, void **big)
{
    struct world *w = ctx;

    (void)id;
    hky_buf_init(&w->big, 64 << 20);
    w->n_big++;
    *big = &w->big;
    return HKY_OK;
}

static bool big_write(void *ctx, void *big, const char *p, size_t n)
{
    (void)ctx;
    hky_buf_add(big, p, n);
    return true;
}

static void big_abort(void *ctx, void *big)
{
    hky_buf_fini(big);
    ((struct world *)ctx)->n_aborted++;
}

static void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    w->policy.engine.hostname = "mx.test";
    w->policy.engine.max_message = 4 << 20;
    w->policy.engine.bounds.recipients = 3;
    w->policy.engine.bounds.header_octets = 8192;
    w->policy.engine.bounds.header_lines = 100;
    w->policy.engine.bounds.received = 10;
    w->user.name = "alice";
}

static struct hky_letter *letter(struct world *w, bool is_login)
{
    return hky_letter_new(&(struct hky_letter_params){.policy = &w->policy,
                                                      .user = is_login ? &w->user : NULL,
                                                      .is_trusted = true,
                                                      .id = 7,
                                                      .now_ms = INT64_C(1764000000000),
                                                      .big = {w, big_open, big_write, big_abort}});
}

static bool address(struct hky_letter *l, const char *from, const char *to, struct hky_refusal *why)
{
    return hky_letter_set_sender(l, &(struct hky_letter_sender){.address = hky_str_z(from)}, why) &&
           hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = hky_str_z(to)}, why);
}

static bool content(struct hky_letter *l, const char *with, struct hky_str octets, struct hky_handed_in *out,
                    struct hky_refusal *why)
{
    hky_letter_begin(l, &(struct hky_letter_origin){.source = "http", .client = "192.0.2.9", .hello = "", .with = with},
                     octets.n);
    for (size_t at = 0; at < octets.n;) {
        at += hky_letter_add_octets(l, octets.p + at, octets.n - at);
        assert_false(hky_letter_was_full(l));
    }
    return hky_letter_end(l, out, why);
}

static void octets_become_a_message(void **state)
{
    struct world w;
    struct hky_refusal why = {0};
    struct hky_handed_in in = {0};

    (void)state;
    world_init(&w);
    struct hky_letter *l = letter(&w, true);
    assert_true(address(l, "a@x.test", "b@y.test", &why));
    assert_true(
        hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = HKY_STR("b@Y.test")}, &why)); /* the same */
    assert_true(hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = HKY_STR("postmaster")}, &why));
    assert_int_equal(hky_letter_n_recipients(l), 2);
    assert_true(content(l, "HTTPS",
                        HKY_STR("From: Shop <s@x.test>\nSubject: =?utf-8?q?h=C3=A9?=\nX-Hikyaku-Scenario: news\n"
                                "X-Hikyaku-Tag: red\n\n.dots stay\n"),
                        &in, &why));
    hky_letter_free(&l);
    struct hky_message *m = in.message;
    assert_int_equal(m->id, 7);
    assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SCENARIO), HKY_STR("news")));
    assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SUBJECT), HKY_STR("h\xc3\xa9")));
    assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SOURCE), HKY_STR("http")));
    assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_USER), HKY_STR("alice")));
    assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_CLIENT), HKY_STR("192.0.2.9")));
    assert_true(hky_message_has_tag(m, HKY_STR("red")));
    assert_true(hky_str_eq(hky_recipient_address(&m->recipients[1]), HKY_STR("postmaster@mx.test")));
    assert_false(m->is_notice);
    struct hky_str all = hky_str_of(m->body->p, m->body->n);
    assert_int_equal(all.n, m->size);
    assert_true(hky_str_istarts(all, HKY_STR("Received: from ")));
    assert_non_null(hky_str_ifind(all, HKY_STR(" with HTTPS id ")));
    assert_null(hky_str_ifind(all, HKY_STR("X-Hikyaku")));
    assert_true(hky_str_iends(all, HKY_STR("\r\n\r\n.dots stay\r\n")));
    assert_ptr_equal(in.header.p, m->body->p);
    assert_int_equal(in.header.n, m->header_octets);
    hky_message_unref(&m);
}

static void refusals(void **state)
{
    static const struct {
        const char *what, *from, *to, *octets;
        int code;
        const char *enhanced;
    } rows[] = {
        {"fine", "a@x.test", "b@y.test", "From: a@x.test\n\nb\n", 0, NULL},
        {"the null sender", "", "b@y.test", "From: a@x.test\n\nb\n", 0, NULL},
        {"sender", "a@evilx.test", "b@y.test", "", 553, "5.7.1"},
        {"author", "a@x.test", "b@y.test", "From: a@evilx.test\n\nb\n", 550, "5.7.1"},
        {"two authors", "a@x.test", "b@y.test", "From: a@x.test, b@x.test\n\nb\n", 550, "5.7.1"},
        {"no author", "a@x.test", "b@y.test", "Subject: x\n\nb\n", 550, "5.7.1"},
        {"two From fields", "a@x.test", "b@y.test", "From: a@x.test\nFrom : b@x.test\n\nb\n", 550, "5.7.1"},
        {"an empty From", "a@x.test", "b@y.test", "From:\n\nb\n", 550, "5.7.1"},
        {"two brackets", "a@x.test", "b@y.test", "From: <ceo@victim.example> <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"a malformed author", "a@x.test", "b@y.test", "From: CEO ceo@victim.example, a@x.test\n\nb\n", 550, "5.7.1"},
        {"JIS without an end", "a@x.test", "b@y.test", "From: \x1b$B <ceo@victim.example>,\n <a@x.test>\n\nb\n", 550,
         "5.7.1"},
        {"a quote in a pair", "a@x.test", "b@y.test", "From: \"\x81\x5c\" <a@x.test> (\" <ceo@victim.example> )\n\nb\n",
         550, "5.7.1"},
        {"a comment without an end", "a@x.test", "b@y.test", "From: ceo@victim.example (<a@x.test>\n\nb\n", 550,
         "5.7.1"},
        {"a quoted name that is an address", "a@x.test", "b@y.test", "From: \"ceo@victim.example\" <a@x.test>\n\nb\n",
         0, NULL},
        {"a name in JIS", "a@x.test", "b@y.test", "From: \x1b$B;3ED\x1b(B <a@x.test>\n\nb\n", 0, NULL},
        {"Ogawa town hall in JIS", "a@x.test", "b@y.test", "From: \x1b$B>.@nD.Lr>l\x1b(B <a@x.test>\n\nb\n", 0, NULL},
        {"the same in quotes", "a@x.test", "b@y.test", "From: \"\x1b$B>.@nD.Lr>l\x1b(B\" <a@x.test>\n\nb\n", 0, NULL},
        {"the same, ended by ASCII of JIS", "a@x.test", "b@y.test", "From: \x1b$B>.@nD.Lr>l\x1b(J <a@x.test>\n\nb\n", 0,
         NULL},
        {"Kamikawa town hall in JIS", "a@x.test", "b@y.test", "From: \x1b$B>e@nD.Lr>l\x1b(B <a@x.test>\n\nb\n", 0,
         NULL},
        {"Okawa town hall in JIS", "a@x.test", "b@y.test", "From: \x1b$BBg@nD.Lr>l\x1b(B <a@x.test>\n\nb\n", 0, NULL},
        {"Ishikawa town's tourism in JIS", "a@x.test", "b@y.test", "From: \x1b$B@P@nD.4Q8w6(2q\x1b(B <a@x.test>\n\nb\n",
         0, NULL},
        {"Ichikawa town's tourism in JIS", "a@x.test", "b@y.test", "From: \x1b$B;T@nD.4Q8w6(2q\x1b(B <a@x.test>\n\nb\n",
         0, NULL},
        {"brackets in JIS", "a@x.test", "b@y.test", "From: \x1b$B!!<ceo@v.test>!!\x1b(B <a@x.test>\n\nb\n", 550,
         "5.7.1"},
        {"a short address in brackets in JIS", "a@x.test", "b@y.test",
         "From: \x1b$B!<ceo@vv.io>!!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"an entry in JIS", "a@x.test", "b@y.test", "From: \x1b$B,ceo@v.test,!!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"an entry behind a group in JIS", "a@x.test", "b@y.test", "From: \x1b$B:ceo@v.test;!!\x1b(B <a@x.test>\n\nb\n",
         550, "5.7.1"},
        {"an address behind a stray bracket in JIS", "a@x.test", "b@y.test",
         "From: \x1b$B>ceo@v.test,!!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"an address behind a comment in JIS", "a@x.test", "b@y.test",
         "From: \x1b$B()ceo@v.test,!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"an address behind a quote in JIS", "a@x.test", "b@y.test",
         "From: \x1b$B\"\"ceo@v.test,!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"an IDN in JIS", "a@x.test", "b@y.test", "From: \x1b$B<ceo@v.xn--1>!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"a literal in JIS", "a@x.test", "b@y.test", "From: \x1b$B<ceo@[192.0.2.19]>\x1b(B <a@x.test>\n\nb\n", 550,
         "5.7.1"},
        {"a comment in a domain in JIS", "a@x.test", "b@y.test", "From: \x1b$B<ceo@v.2().test>\x1b(B <a@x.test>\n\nb\n",
         550, "5.7.1"},
        {"JIS X 0212", "a@x.test", "b@y.test", "From: \x1b$(D!!!ceo@v.test!\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"the @ of an escape sequence", "a@x.test", "b@y.test", "From: ceo\x1b$@v.test\x1b(B <a@x.test>\n\nb\n", 550,
         "5.7.1"},
        {"between two runs of JIS", "a@x.test", "b@y.test",
         "From: \x1b$B;3\x1b(B, ceo@v.test \x1b$B;3\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"JIS of half a pair", "a@x.test", "b@y.test", "From: \x1b$B>.@nD.Lr>\x1b(B <a@x.test>\n\nb\n", 550, "5.7.1"},
        {"a name in Shift_JIS", "a@x.test", "b@y.test", "From: \"\x83\x5c\" <a@x.test>\n\nb\n", 0, NULL},
        {"a name in UTF-8", "a@x.test", "b@y.test", "From: \xe5\xb1\xb1\xe7\x94\xb0 <a@x.test>\n\nb\n", 0, NULL},
        {"others answer", "a@x.test", "b@y.test",
         "From: a@x.test\nReply-To: b@victim.example\nSender: c@victim.example\n\nb\n", 0, NULL},
        {"scenario", "a@x.test", "b@y.test", "From: a@x.test\nX-Hikyaku-Scenario: winter\n\nb\n", 550, "5.7.1"},
        {"two scenarios", "a@x.test", "b@y.test",
         "From: a@x.test\nX-Hikyaku-Scenario: spring\nX-Hikyaku-Scenario: winter\n\nb\n", 550, "5.6.0"},
        {"the same twice", "a@x.test", "b@y.test",
         "From: a@x.test\nX-Hikyaku-Scenario: spring\nX-Hikyaku-Scenario:  spring \n\nb\n", 0, NULL},
        {"two refs", "a@x.test", "b@y.test", "From: a@x.test\nX-Hikyaku-Ref: 1\nX-Hikyaku-Ref: 2\n\nb\n", 550, "5.6.0"},
        {"two deadlines", "a@x.test", "b@y.test",
         "From: a@x.test\nX-Hikyaku-Deadline: 2h\nX-Hikyaku-Deadline: 3h\n\nb\n", 550, "5.6.0"},
        {"deadline 0", "a@x.test", "b@y.test", "From: a@x.test\nX-Hikyaku-Deadline: 0\n\nb\n", 550, "5.6.0"},
        {"deadline 0 in words", "a@x.test", "b@y.test",
         "From: a@x.test\nX-Hikyaku-Deadline: 1970-01-01T00:00:00Z\n\nb\n", 550, "5.6.0"},
        {"deadline before 0", "a@x.test", "b@y.test",
         "From: a@x.test\nX-Hikyaku-Deadline: 1970-01-01T00:00:00+09:00\n\nb\n", 550, "5.6.0"},
        {"a bare CR", "a@x.test", "b@y.test", "From: a@x.test\n\nb\rc\n", 550, "5.6.0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        struct hky_refusal why = {0};
        struct hky_handed_in in = {0};

        world_init(&w);
        w.user.senders = only_x;
        w.user.scenarios = only_spring;
        struct hky_letter *l = letter(&w, true);
        if (address(l, rows[i].from, rows[i].to, &why) && content(l, "HTTP", hky_str_z(rows[i].octets), &in, &why))
            hky_message_unref(&in.message);
        hky_letter_free(&l);
        if (why.code != rows[i].code || (why.code != 0 && strcmp(why.enhanced, rows[i].enhanced) != 0))
            fail_msg("%s: %d %s %s", rows[i].what, why.code, why.code != 0 ? why.enhanced : "", why.text);
    }
}

/* Quotes do not keep programs that know no JIS from reading it. */
static void the_refusal_says_what_helps(void **state)
{
    static const char *const rows[][2] = {
        {"ceo@victim.example <a@x.test>", "this From; quote or encode its name"},
        {"\x1b$B!!<ceo@v.test>!\x1b(B <a@x.test>", "this From; encode its name (RFC 2047)"},
        {"\x83\x5c ceo@v.test <a@x.test>", "this From; encode its name (RFC 2047)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        struct hky_refusal why = {0};
        struct hky_handed_in in = {0};
        char octets[200];

        world_init(&w);
        w.user.senders = only_x;
        snprintf(octets, sizeof octets, "From: %s\n\nb\n", rows[i][0]);
        struct hky_letter *l = letter(&w, true);
        assert_true(address(l, "a@x.test", "b@y.test", &why));
        assert_false(content(l, "HTTP", hky_str_z(octets), &in, &why));
        hky_letter_free(&l);
        if (strstr(why.text, rows[i][1]) == NULL)
            fail_msg("%s: %s", rows[i][0], why.text);
    }
}

/* Who may send as anybody is refused nothing, whatever From looks like. */
static void a_login_without_senders_may_write_any_from(void **state)
{
    static const char *const values[] = {"<ceo@victim.example> <a@x.test>", "CEO ceo@victim.example, a@x.test",
                                         "\x1b$B <ceo@victim.example>,\n <a@x.test>", "", "a@x.test, b@x.test"};
    static const char *const anybody[] = {"shop.example", "*", NULL};

    (void)state;
    for (size_t i = 0; i < 2 * (sizeof values / sizeof values[0]); i++) {
        struct world w;
        struct hky_refusal why = {0};
        struct hky_handed_in in = {0};
        char octets[200];

        world_init(&w);
        w.user.senders = i % 2 == 1 ? anybody : NULL;
        snprintf(octets, sizeof octets, "From: %s\n\nb\n", values[i / 2]);
        struct hky_letter *l = letter(&w, true);
        assert_true(address(l, "a@x.test", "b@y.test", &why));
        assert_true(content(l, "HTTP", hky_str_z(octets), &in, &why));
        hky_message_unref(&in.message);
        hky_letter_free(&l);
    }
}

/* A mailbox file's line in front would end the header section, and all fields were body. */
static void a_line_of_a_mailbox_file_in_front_goes(void **state)
{
    static const struct {
        const char *front;
        bool is_mbox;
    } rows[] = {
        {"", true},
        {"From a@x.test Sat Nov 28 10:00:00 2026\r\n", true},
        {"From a@x.test Sat Nov 28 10:00:00 2026\n", true},
        {">From a@x.test Sat Nov 28 10:00:00 2026\r\n", true},
        {"From b Sat Nov 28 10:00:00 2026\r\n>From a Sat Nov 28 10:00:00 2026 remote from c\r\n", true},
        {"from a@x.test\r\n", false},
        {"Fromage\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        struct hky_refusal why = {0};
        struct hky_handed_in in = {0};
        char octets[400];

        world_init(&w);
        snprintf(octets, sizeof octets,
                 "%sFrom: a@x.test\r\nX-Hikyaku-Tag: red\r\nFrom : b@x.test\r\n\r\nFrom here on\r\n", rows[i].front);
        struct hky_letter *l = letter(&w, false);
        assert_true(address(l, "a@x.test", "b@y.test", &why));
        assert_true(content(l, "HTTP", hky_str_z(octets), &in, &why));
        hky_letter_free(&l);
        struct hky_str all = hky_str_of(in.message->body->p, in.message->body->n);
        if (hky_message_has_tag(in.message, HKY_STR("red")) != rows[i].is_mbox)
            fail_msg("\"%s\": %.*s", rows[i].front, HKY_STR_ARG(all));
        if (rows[i].is_mbox) {
            assert_null(memmem(all.p, all.n, "From a", 6));
            assert_non_null(memmem(all.p, all.n, "\r\nFrom: a@x.test\r\nFrom : b@x.test\r\n", 35));
        }
        assert_true(hky_str_iends(all, HKY_STR("\r\n\r\nFrom here on\r\n")) || !rows[i].is_mbox);
        hky_message_unref(&in.message);
    }
}

/* Cut to its first 128 octets it would be another scenario, with another way. */
static void a_name_that_is_too_long_is_refused(void **state)
{
    static const char *const fields[] = {"Scenario", "Ref"};
    static const unsigned most[] = {128, 200};

    (void)state;
    for (int k = 0; k < 2; k++)
        for (unsigned n = most[k]; n <= most[k] + 1; n++) {
            struct world w;
            struct hky_refusal why = {0};
            struct hky_handed_in in = {0};
            char octets[400], name[300];

            world_init(&w);
            memset(name, 'n', n);
            name[n] = '\0';
            snprintf(octets, sizeof octets, "From: a@x.test\nX-Hikyaku-%s: %s\n\nb\n", fields[k], name);
            struct hky_letter *l = letter(&w, false);
            assert_true(address(l, "a@x.test", "b@y.test", &why));
            assert_int_equal(content(l, "HTTP", hky_str_z(octets), &in, &why), n == most[k]);
            if (n == most[k])
                assert_int_equal(hky_message_fact(in.message, k == 0 ? HKY_FACT_SCENARIO : HKY_FACT_REF).n, n);
            hky_message_unref(&in.message);
            hky_letter_free(&l);
        }
}

/* Hands in `octets` without a login. */
static struct hky_message *handed_in(const char *octets)
{
    struct world w;
    struct hky_refusal why = {0};
    struct hky_handed_in in = {0};

    world_init(&w);
    struct hky_letter *l = letter(&w, false);
    assert_true(address(l, "a@x.test", "b@y.test", &why));
    if (!content(l, "HTTP", hky_str_z(octets), &in, &why))
        fail_msg("%d %s", why.code, why.text);
    hky_letter_free(&l);
    return in.message;
}

/* The fact was overwritten where the field's value began with a blank that only decoding shows. */
static void the_source_is_sendmail_or_the_door(void **state)
{
    static const struct {
        const char *value, *source;
    } rows[] = {
        {"sendmail", "sendmail"},
        {"  sendmail ", "sendmail"},
        {"=?utf-8?q?sendmail?=", "sendmail"},
        {"=?utf-8?q?_sendmail?=", "sendmail"},
        {"=?utf-8?q?__sendmail__?=", "sendmail"},
        {"http2", "http"},
        {"sendmail\nX-Hikyaku-Source: =?utf-8?q?_sendmail?=", "sendmail"},
        {"", "http"},
        {"=?utf-8?q?_sendmail?=\nX-Hikyaku-Source: other", "sendmail"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char octets[400];

        snprintf(octets, sizeof octets,
                 "X-Hikyaku-Source: %s\nX-Hikyaku-Tag: red-and-blue\nX-Hikyaku-Scenario: spring\nSubject: hello\n"
                 "From: Shop <a@x.test>\n\nb\n",
                 rows[i].value);
        struct hky_message *m = handed_in(octets);
        struct hky_str source = hky_message_fact(m, HKY_FACT_SOURCE);
        if (!hky_str_eq(source, hky_str_z(rows[i].source)))
            fail_msg("\"%s\": source %.*s", rows[i].value, HKY_STR_ARG(source));
        assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SCENARIO), HKY_STR("spring")));
        assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SUBJECT), HKY_STR("hello")));
        assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_AUTHOR), HKY_STR("a@x.test")));
        assert_true(hky_message_has_tag(m, HKY_STR("red-and-blue")));
        hky_message_unref(&m);
    }
}

/* The second one is compared with the first while the text of both grows, and may move in memory. */
static void a_name_given_twice_is_compared_after_it_moved(void **state)
{
    (void)state;
    for (unsigned n = 100; n <= 1000; n += 100) {
        char octets[2048], id[1001], blanks[600];

        memset(blanks, '_', sizeof blanks - 1);
        blanks[sizeof blanks - 1] = '\0';
        memset(id, 'i', n);
        id[n] = '\0';
        snprintf(octets, sizeof octets,
                 "X-Hikyaku-Scenario: spring\nMessage-ID: <%s@x.test>\nX-Hikyaku-Scenario: =?utf-8?q?spring%s?=\n\nb\n",
                 id, blanks);
        struct hky_message *m = handed_in(octets);
        assert_true(hky_str_eq(hky_message_fact(m, HKY_FACT_SCENARIO), HKY_STR("spring")));
        hky_message_unref(&m);
    }
}

static unsigned count_of(struct hky_str s, const char *needle)
{
    unsigned n = 0;

    for (const char *p = s.p; (p = memmem(p, (size_t)(s.p + s.n - p), needle, strlen(needle))) != NULL; p++)
        n++;
    return n;
}

/* An empty Date or Message-ID says nothing, but would be a second one beside ours. What the client said stays. */
static void the_message_has_one_date_and_one_message_id(void **state)
{
    static const struct {
        const char *what, *fields;
        unsigned n_dates, n_ids;
        const char *id; /* NULL: ours */
    } rows[] = {
        {"none", "", 1, 1, NULL},
        {"both are there", "Date: Sat, 28 Nov 2026 10:00:00 +0000\nMessage-ID: <1@x.test>\n", 1, 1, "<1@x.test>"},
        {"an empty Message-ID", "Message-ID:\n", 1, 1, NULL},
        {"a Message-ID of blanks", "MESSAGE-id : \t \n", 1, 1, NULL},
        {"a Message-ID of folds", "Message-ID:\n \n\t\n", 1, 1, NULL},
        {"an empty Message-ID before one", "Message-ID:\nMessage-ID: <1@x.test>\n", 1, 1, "<1@x.test>"},
        {"an empty Message-ID behind one", "Message-ID: <1@x.test>\nMessage-ID: \n", 1, 1, "<1@x.test>"},
        {"two of the client", "Message-ID: <1@x.test>\nMessage-ID: <2@x.test>\n", 1, 2, "<1@x.test>"},
        {"an empty Date", "Date:\n", 1, 1, NULL},
        {"a Date of folds", "Date: \n \n", 1, 1, NULL},
        {"an empty Date and one", "Date: \nDate: Sat, 28 Nov 2026 10:00:00 +0000\n", 1, 1, NULL},
        {"two Dates", "Date: Sat, 28 Nov 2026 10:00:00 +0000\nDate: now\n", 2, 1, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char octets[400];

        snprintf(octets, sizeof octets, "From: a@x.test\n%sSubject: s\n\nb\n", rows[i].fields);
        struct hky_message *m = handed_in(octets);
        struct hky_str all = hky_str_of(m->body->p, m->body->n), id = hky_message_fact(m, HKY_FACT_MESSAGE_ID);
        if (count_of(all, "\r\nDate: ") != rows[i].n_dates || count_of(all, "\r\nMessage-ID: ") != rows[i].n_ids ||
            count_of(all, "\r\nDate") != rows[i].n_dates || count_of(all, "\r\nM") != rows[i].n_ids ||
            count_of(all, "\r\n ") > 0)
            fail_msg("%s: %.*s", rows[i].what, HKY_STR_ARG(all));
        if (rows[i].id != NULL ? !hky_str_eq(id, hky_str_z(rows[i].id)) : !hky_str_iends(id, HKY_STR("@mx.test>")))
            fail_msg("%s: the fact is %.*s", rows[i].what, HKY_STR_ARG(id));
        hky_message_unref(&m);
    }
}

/* Cut at its bound to nothing, because no character begins there, it counted as missing. */
static void a_message_id_without_characters_is_one(void **state)
{
    char octets[2048], id[1201];

    (void)state;
    memset(id, 0x80, sizeof id - 1);
    id[sizeof id - 1] = '\0';
    snprintf(octets, sizeof octets, "From: a@x.test\nMessage-ID: %s\n\nb\n", id);
    struct hky_message *m = handed_in(octets);
    assert_int_equal(count_of(hky_str_of(m->body->p, m->body->n), "Message-ID: "), 1);
    hky_message_unref(&m);
}

static void bounds(void **state)
{
    struct world w;
    struct hky_refusal why = {0};
    struct hky_handed_in in = {0};

    (void)state;
    world_init(&w);
    struct hky_letter *l = letter(&w, false);
    assert_false(
        hky_letter_set_sender(l, &(struct hky_letter_sender){.address = HKY_STR("a@x.test"), .size = 5 << 20}, &why));
    assert_int_equal(why.code, 552);
    hky_letter_free(&l);
    l = letter(&w, false);
    assert_true(address(l, "a@x.test", "1@y.test", &why));
    assert_true(hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = HKY_STR("2@y.test")}, &why));
    assert_true(hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = HKY_STR("3@y.test")}, &why));
    assert_false(hky_letter_add_recipient(l, &(struct hky_letter_rcpt){.address = HKY_STR("4@y.test")}, &why));
    assert_int_equal(why.code, 452);
    /* big enough for a file of its own; refused at its end, the file goes */
    size_t n = 3 << 20;
    char *octets = malloc(n);
    memset(octets, 'x', n);
    for (size_t i = 71; i < n; i += 72)
        octets[i] = '\n';
    memcpy(octets, "From: a@x.test\n\n", 16);
    octets[n - 1] = '\r';
    assert_false(content(l, "HTTP", hky_str_of(octets, n), &in, &why));
    assert_int_equal(why.code, 550);
    hky_letter_free(&l);
    assert_int_equal(w.n_big, 1);
    assert_int_equal(w.n_aborted, 1);
    free(octets);
}

/* Ours: no Received field, no bound for the mail of others, and never the cause of another. */
static void a_notice_is_a_letter_too(void **state)
{
    struct world w;
    struct hky_refusal why = {0};
    struct hky_handed_in in = {0};

    (void)state;
    world_init(&w);
    w.policy.engine.max_message = 1;
    w.policy.engine.bounds = (struct hky_bounds){0};
    struct hky_letter *l = hky_letter_new(
        &(struct hky_letter_params){.policy = &w.policy, .is_notice = true, .id = 9, .now_ms = 1764000000000});
    assert_true(address(l, "", "a@x.test", &why));
    assert_true(content(l, NULL, HKY_STR("From: MAILER-DAEMON@mx.test\r\nSubject: gone\r\n\r\nx\r\n"), &in, &why));
    hky_letter_free(&l);
    assert_true(in.message->is_notice);
    assert_false(in.message->is_8bit);
    assert_int_equal(in.message->n_received, 0);
    assert_true(hky_str_istarts(hky_str_of(in.message->body->p, in.message->body->n), HKY_STR("From: MAILER")));
    assert_true(hky_str_eq(hky_message_fact(in.message, HKY_FACT_SUBJECT), HKY_STR("gone")));
    hky_message_unref(&in.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(octets_become_a_message),
        cmocka_unit_test(refusals),
        cmocka_unit_test(the_refusal_says_what_helps),
        cmocka_unit_test(a_login_without_senders_may_write_any_from),
        cmocka_unit_test(a_name_that_is_too_long_is_refused),
        cmocka_unit_test(a_line_of_a_mailbox_file_in_front_goes),
        cmocka_unit_test(the_source_is_sendmail_or_the_door),
        cmocka_unit_test(a_name_given_twice_is_compared_after_it_moved),
        cmocka_unit_test(the_message_has_one_date_and_one_message_id),
        cmocka_unit_test(a_message_id_without_characters_is_one),
        cmocka_unit_test(bounds),
        cmocka_unit_test(a_notice_is_a_letter_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
