#include "mail/rewrite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>
#include <time.h>

#define JIS  "=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?="
#define SJIS "=?Shift_JIS?B?jlKTY5G+mFk=?="
#define UTF8 "\xe5\xb1\xb1\xe7\x94\xb0"
#define TAIL "To: b@y.test\r\nSubject: " JIS "\r\n"

static const struct {
    const char *what, *in, *from, *out; /* without the empty line */
} froms[] = {
    {"without from nothing changes", "From: " JIS " <a@x.test>\r\nDKIM-Signature: v=1\r\nSender: c@x.test\r\n" TAIL,
     NULL, "From: " JIS " <a@x.test>\r\nDKIM-Signature: v=1\r\nSender: c@x.test\r\n" TAIL},
    {"bare address", "From: a@x.test\r\n" TAIL, "shop@gmail.com",
     "From: shop@gmail.com\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"name in ISO-2022-JP", "From: " JIS " <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: " JIS " <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"name in Shift_JIS", "From: " SJIS " <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: " SJIS " <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"raw UTF-8 name", "From: " UTF8 " <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: " UTF8 " <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"raw Shift_JIS name", "From: \x83\x5c\x83\x40 <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \x83\x5c\x83\x40 <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"raw Shift_JIS in quotes, the last octet like a backslash", "From: \"\x83\x5c\" <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"\x83\x5c\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"raw JIS in quotes, an octet like a quote", "From: \"\x1b$B!\"\x1b(B\" <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"\x1b$B!\"\x1b(B\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"Shift_JIS in quotes by a client that escaped octets", "From: \"\x83\x5c\x5c\" <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"\x83\x5c\x5c\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"raw ISO-2022-JP name", "From: \x1b$B;,\"<\x1b(B <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \x1b$B;,\"<\x1b(B <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"quoted name", "From: \"Yamada, \\\"T\\\"\" <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"Yamada, \\\"T\\\"\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"folded name keeps its folds", "From: " JIS "\r\n " JIS "\r\n\t<a@x.test>\r\n" TAIL, "n@y.jp",
     "From: " JIS "\r\n " JIS " <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"comment as name", "From: a@x.test (Taro (T) Y)\r\n" TAIL, "n@y.jp",
     "From: \"Taro (T) Y\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"address as name", "From: a@x.test <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"a@x.test\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"comment with two-octet text left open", "From: a@x.test (/\x1b$Bab (T) Y)\r\n" TAIL, "n@y.jp",
     "From: \"/ $Bab (T) Y\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"several authors", "From: A <a@x.test>, B <b@x.test>\r\n" TAIL, "n@y.jp",
     "From: A <n@y.jp>\r\n" TAIL "Reply-To: a@x.test,\r\n b@x.test\r\n"},
    {"group", "From: G: A <a@x.test>, b@x.test;\r\n" TAIL, "n@y.jp",
     "From: A <n@y.jp>\r\n" TAIL "Reply-To: a@x.test,\r\n b@x.test\r\n"},
    {"two From fields", "From: A <a@x.test>\r\nfrom: c@x.test\r\n" TAIL, "n@y.jp",
     "From: A <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"no From", TAIL, "n@y.jp", TAIL "From: n@y.jp\r\n"},
    {"From without address", "From: nobody here\r\n" TAIL, "n@y.jp", "From: n@y.jp\r\n" TAIL},
    {"Reply-To stays", "From: a@x.test\r\nReply-To: R\r\n <r@x.test>\r\n" TAIL, "n@y.jp",
     "From: n@y.jp\r\nReply-To: R\r\n <r@x.test>\r\n" TAIL},
    {"empty Reply-To is none", "From: a@x.test\r\nReply-To: \r\n" TAIL, "n@y.jp",
     "From: n@y.jp\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"carrier addresses are quoted", "From: <a..b@docomo.ne.jp>\r\n" TAIL, "c..d@docomo.ne.jp",
     "From: \"c..d\"@docomo.ne.jp\r\n" TAIL "Reply-To: \"a..b\"@docomo.ne.jp\r\n"},
    {"the same author: signatures stay", "From: " JIS " <A@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL, "a@x.test",
     "From: " JIS " <A@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL},
    {"the same author behind an address that others find", "From: ceo@v.test <a@x.test>\r\n" TAIL, "a@x.test",
     "From: \"ceo@v.test\" <a@x.test>\r\n" TAIL},
    {"the same author behind a comment without an end", "From: ceo@v.test (<a@x.test>\r\n" TAIL, "a@x.test",
     "From: \"ceo@v.test (\" <a@x.test>\r\n" TAIL},
    {"the same author behind a name with a comma", "From: Yamada, Taro <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL,
     "a@x.test", "From: Yamada, Taro <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL},
    {"the same author behind a quote without an end", "From: O\"Brien <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL,
     "a@x.test", "From: O\"Brien <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL},
    {"the same author behind a name in JIS that looks like an address",
     "From: \x1b$B>.@nD.Lr>l\x1b(B <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL, "a@x.test",
     "From: \x1b$B>.@nD.Lr>l\x1b(B <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL},
    {"the same author behind a shop's name with an @", "From: Shop@Tokyo.jp <a@x.test>\r\nDKIM-Signature: v=1\r\n" TAIL,
     "a@x.test", "From: \"Shop@Tokyo.jp\" <a@x.test>\r\n" TAIL},
    {"the same author behind a comma and an @", "From: ceo@v.test, Ltd, Taro <a@x.test>\r\n" TAIL, "a@x.test",
     "From: a@x.test\r\n" TAIL "Reply-To: ceo@v.test,\r\n a@x.test\r\n"},
    {"the same author behind a comma, a quote and an @", "From: Yamada, \"ceo@v.test Taro <a@x.test>\r\n" TAIL,
     "a@x.test", "From: \"Yamada, \\\"ceo@v.test Taro\" <a@x.test>\r\n" TAIL},
    {"the same author twice", "From: a@x.test, A <A@x.test>\r\n" TAIL, "a@x.test", "From: a@x.test\r\n" TAIL},
    {"another author behind a name with a comma", "From: Yamada, Taro <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"Yamada, Taro\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"another author behind a name of pieces", "From: " JIS ", <b\r\n <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: =?UTF-8?B?5bGx55Sw5aSq6YOOLCA8Yg==?= <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"a name in JIS that spells an address", "From: \x1b$B!!<ceo@v.test>!\x1b(B <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"$B!!<ceo@v.test>! (B\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"a name that a comma in a word cuts off", "From: \"ceo@v.test\" =?utf-8?q?,?= <a@x.test>\r\n" TAIL, "n@y.jp",
     "From: \"ceo@v.test ,\" <n@y.jp>\r\n" TAIL "Reply-To: a@x.test\r\n"},
    {"the same author and another", "From: A <a@x.test>, b@x.test\r\n" TAIL, "a@x.test",
     "From: A <a@x.test>\r\n" TAIL "Reply-To: a@x.test,\r\n b@x.test\r\n"},
    {"what breaks goes, with its folds",
     "Received-SPF: pass\r\nDKIM-Signature: v=1;\r\n b=x\r\nARC-Seal: 1\r\nARC-Message-Signature: 2\r\n"
     "DomainKey-Signature: 3\r\nAuthentication-Results: 4\r\nSender: s@x.test\r\nX-Sender: stays\r\n"
     "From: a@x.test\r\nReply-To: r@x.test\r\n" TAIL,
     "n@y.jp", "X-Sender: stays\r\nFrom: n@y.jp\r\nReply-To: r@x.test\r\n" TAIL},
    {"always removed",
     "Return-Path: <a@x.test>\r\nBcc: v@z.test,\r\n w@z.test\r\nX-Hikyaku-Tag: t\r\nbCC : q@z\r\n"
     "Resent-Bcc: q@z\r\nFrom: a@x.test\r\n" TAIL,
     NULL, "From: a@x.test\r\n" TAIL},
    {"odd lines stay", " junk\r\nno field\r\nFrom: a@x.test\r\nReply-To: r@x.test\r\n: x\r\n" TAIL, "n@y.jp",
     " junk\r\nno field\r\nFrom: n@y.jp\r\nReply-To: r@x.test\r\n: x\r\n" TAIL},
};

static void check(const char *what, const char *in, const struct hky_rewrite *rw, const char *expected)
{
    struct hky_buf section, out, whole;
    struct hky_error e = {0};

    for (int has_end = 0; has_end <= 1; has_end++) {
        hky_buf_init(&section, 1 << 20);
        hky_buf_init(&out, 1 << 20);
        hky_buf_init(&whole, 1 << 20);
        hky_buf_add_z(&section, in);
        hky_buf_add_z(&section, has_end ? "\r\n" : "");
        hky_buf_add_z(&whole, expected);
        hky_buf_add_z(&whole, "\r\n");
        if (hky_rewrite_header(hky_buf_str(&section), rw, &out, &e) != HKY_OK)
            fail_msg("%s: %s", what, e.text);
        if (!hky_str_eq(hky_buf_str(&out), hky_buf_str(&whole)))
            fail_msg("%s: got\n%s", what, hky_buf_z(&out));
        hky_buf_fini(&section);
        hky_buf_fini(&out);
        hky_buf_fini(&whole);
    }
}

static void from_is_rewritten(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof froms / sizeof froms[0]; i++)
        check(froms[i].what, froms[i].in, &(struct hky_rewrite){.from = froms[i].from}, froms[i].out);
}

static void reply_to_follows_its_rule(void **state)
{
    (void)state;
    check("added where there is none", "From: a@x.test\r\n", &(struct hky_rewrite){.reply_to = "r@y.jp"},
          "From: a@x.test\r\nReply-To: r@y.jp\r\n");
    check("kept where there is one", "Reply-To: q@x.test\r\nFrom: a@x.test\r\n",
          &(struct hky_rewrite){.reply_to = "r@y.jp", .from = "n@y.jp"}, "Reply-To: q@x.test\r\nFrom: n@y.jp\r\n");
    check("forced", "Reply-To: q@x.test\r\nFrom: a@x.test\r\nReply-To: p@x.test\r\n",
          &(struct hky_rewrite){.reply_to = "r@y.jp", .reply_to_forced = true},
          "From: a@x.test\r\nReply-To: r@y.jp\r\n");
    check("ours where the authors are one", "From: a@x.test, A <a@x.test>\r\n",
          &(struct hky_rewrite){.reply_to = "r@y.jp", .from = "a@x.test"}, "From: a@x.test\r\nReply-To: r@y.jp\r\n");
    check("ours before the old author", "From: a@x.test\r\n",
          &(struct hky_rewrite){.reply_to = "r@y.jp", .from = "n@y.jp"}, "From: n@y.jp\r\nReply-To: r@y.jp\r\n");
}

static void ids_dates_and_sets(void **state)
{
    const struct hky_rewrite missing = {.date = "D", .add_message_id = "<n@x>"};
    const struct hky_rewrite fresh = {.message_id = "<n@x>", .date = "D", .add_message_id = "<no@x>"};

    (void)state;
    check("added where missing", "From: a@x.test\r\n", &missing, "From: a@x.test\r\nMessage-ID: <n@x>\r\nDate: D\r\n");
    check("kept where present", "Date: d\r\nMESSAGE-ID: <o@x>\r\n", &missing, "Date: d\r\nMESSAGE-ID: <o@x>\r\n");
    check("replaced once", "Message-Id: <o@x>\r\nDate: d\r\nMessage-ID: <p@x>\r\n", &fresh,
          "Message-ID: <n@x>\r\nDate: d\r\n");
    check("replaced where missing", "Date: d\r\n", &fresh, "Date: d\r\nMessage-ID: <n@x>\r\n");
    check("no line end from a value", "Date: d\r\n", &(struct hky_rewrite){.message_id = "<a>\r\nBcc: v@z"},
          "Date: d\r\nMessage-ID: <a>Bcc: v@z\r\n");

    struct hky_rewrite set = {.set = (void *)(const char *[]){"Subject", UTF8, "X-New", "plain", NULL, NULL}};
    check("fields set", "subject: old\r\n folded\r\nFrom: a@x.test\r\nSubject: older\r\n", &set,
          "Subject: =?UTF-8?B?5bGx55Sw?=\r\nFrom: a@x.test\r\nX-New: plain\r\n");
}

static void bad_sets_are_refused(void **state)
{
    static const char *const names[] = {"X A", "X\r\nBcc", "", "X:", "From", "bcc", "x-hikyaku-tag", "\xe3\x81\x82"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct hky_buf out;
        struct hky_error e;
        struct hky_rewrite rw = {.set = (void *)(const char *[]){names[i], "v", NULL, NULL}};

        hky_buf_init(&out, 1000);
        assert_int_equal(hky_rewrite_header(HKY_STR("A: b\r\n\r\n"), &rw, &out, &e), HKY_E_SYNTAX);
        hky_buf_fini(&out);
    }
}

static void no_line_grows_over_998(void **state)
{
    (void)state;
    for (size_t n = 900; n <= 998; n++) {
        struct hky_buf in, out;
        size_t line = 0;

        hky_buf_init(&in, 1 << 16);
        hky_buf_init(&out, 1 << 16);
        hky_buf_add_z(&in, "From:");
        for (size_t i = 5; i < n; i++)
            hky_buf_add_c(&in, 'n');
        hky_buf_add_z(&in, "\r\n <a@x.test>\r\n\r\n");
        assert_int_equal(hky_rewrite_header(hky_buf_str(&in), &(struct hky_rewrite){.from = "new@y.jp"}, &out, NULL),
                         HKY_OK);
        for (size_t i = 0; i < out.n; i++) {
            line = out.p[i] == '\n' ? 0 : line + (out.p[i] != '\r');
            assert_true(line <= 998);
        }
        hky_buf_fini(&in);
        hky_buf_fini(&out);
    }
}

static void the_limit_is_reported(void **state)
{
    struct hky_buf out;
    struct hky_error e;

    (void)state;
    hky_buf_init(&out, 10);
    assert_int_equal(hky_rewrite_header(HKY_STR("From: a@x.test\r\n\r\n"), &(struct hky_rewrite){0}, &out, &e),
                     HKY_E_LIMIT);
    hky_buf_fini(&out);
}

static void address_bombs_take_linear_time(void **state)
{
    static const char *const pieces[] = {"To: a@x.test\r\n", "From: a@x.test\r\n", "Reply-To: x\r\n", " a@x.test,\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct hky_buf in, out;
        clock_t start;

        hky_buf_init(&in, 32 << 20);
        hky_buf_init(&out, 32 << 20);
        hky_buf_add_z(&in, "From: ");
        for (int k = 0; k < 500000; k++)
            hky_buf_add_z(&in, pieces[i]);
        hky_buf_add_z(&in, "\r\n");
        start = clock();
        assert_int_equal(hky_rewrite_header(hky_buf_str(&in), &(struct hky_rewrite){.from = "n@y.jp"}, &out, NULL),
                         HKY_OK);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds > 5)
            fail_msg("500000 of '%s' took %.1f s", pieces[i], seconds);
        hky_buf_fini(&in);
        hky_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_is_rewritten),
        cmocka_unit_test(reply_to_follows_its_rule),
        cmocka_unit_test(ids_dates_and_sets),
        cmocka_unit_test(bad_sets_are_refused),
        cmocka_unit_test(no_line_grows_over_998),
        cmocka_unit_test(the_limit_is_reported),
        cmocka_unit_test(address_bombs_take_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
