
#include <time.h>

#include "mail/dsn.h"
#include "mail/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

static void set_reply(struct hky_reply *r, uint16_t code, const char *text)
{
    *r = (struct hky_reply){.code = code};
    r->n = (uint16_t)snprintf(r->text, sizeof r->text, "%s", text);
}

/* Every line ends with CRLF, has at most 998 octets, and no octet is a control or above 127 unless allowed. */
static void check_lines(struct hky_str s, bool may_be_8bit)
{
    size_t line = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '\n') {
            assert_true(i > 0 && s.p[i - 1] == '\r');
            line = 0;
            continue;
        }
        if (c == '\r') {
            assert_true(i + 1 < s.n && s.p[i + 1] == '\n');
            continue;
        }
        assert_true(c >= 0x20 || c == '\t');
        assert_true(c < 0x7f || may_be_8bit);
        assert_true(++line <= 998);
    }
    assert_true(s.n > 2 && s.p[s.n - 1] == '\n');
}

static bool has(const struct hky_buf *b, const char *text)
{
    return memmem(b->p, b->n, text, strlen(text)) != NULL;
}

static unsigned count(const struct hky_buf *b, const char *text)
{
    unsigned n = 0;
    for (const char *p = b->p; (p = memmem(p, (size_t)(b->p + b->n - p), text, strlen(text))) != NULL; p++)
        n++;
    return n;
}

static void a_failure_is_reported(void **state)
{
    struct hky_reply reply;
    struct hky_buf out;
    struct hky_field f;

    (void)state;
    set_reply(&reply, 550, "Unknown user");
    reply.enhanced[0] = 5, reply.enhanced[1] = 1, reply.enhanced[2] = 1, reply.enhanced_detail = 1;
    const struct hky_dsn_recipient recipients[] = {
        {.address = HKY_STR("a..b@docomo.ne.jp"),
         .orcpt = HKY_STR("rfc822;a..b@docomo.ne.jp"),
         .action = HKY_DSN_FAILED,
         .reply = &reply,
         .remote_mta = "mx.docomo.example",
         .why = "宛先がありません",
         .last_attempt_ms = 1795500000000},
        {.address = HKY_STR("c@y.test"), .action = HKY_DSN_DELAYED},
    };
    hky_buf_init(&out, 1 << 20);
    hky_dsn_format(&(struct hky_dsn){.hostname = "mail.shop.example",
                                     .message_id = "<n@mail.shop.example>",
                                     .to = HKY_STR("shop@x.test"),
                                     .envid = HKY_STR("E1"),
                                     .queue_id = "0123456789abc",
                                     .arrival_ms = 1795490000000,
                                     .now_ms = 1795500000000,
                                     .recipients = recipients,
                                     .n = 2,
                                     .original_header = HKY_STR("From: shop@x.test\r\nSubject: hi\r\n\r\n")},
                   &out);
    check_lines(hky_buf_str(&out), false);
    assert_true(hky_field_find(hky_buf_str(&out), "Auto-Submitted", &f));
    assert_true(hky_str_eq(f.value, HKY_STR(" auto-replied")));
    assert_true(hky_field_find(hky_buf_str(&out), "To", &f));
    assert_true(hky_str_eq(f.value, HKY_STR(" shop@x.test")));
    static const char *const parts[] = {
        "multipart/report; report-type=delivery-status",
        "\r\nReporting-MTA: dns; mail.shop.example\r\nOriginal-Envelope-Id: E1\r\n",
        "\r\n\r\nOriginal-Recipient: rfc822;a..b@docomo.ne.jp\r\n"
        "Final-Recipient: rfc822; \"a..b\"@docomo.ne.jp\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        "Remote-MTA: dns; mx.docomo.example\r\nDiagnostic-Code: smtp; 550 5.1.1 Unknown user\r\n"
        "Last-Attempt-Date: Tue, 24 Nov 2026 06:00:00 +0000\r\n",
        "\r\n\r\nFinal-Recipient: rfc822; c@y.test\r\nAction: delayed\r\nStatus: 4.0.0\r\n",
        "Content-Type: text/rfc822-headers\r\n\r\nFrom: shop@x.test\r\nSubject: hi\r\n\r\n--",
        "could not be delivered",
        "=E6=AC=A1=E3=81=AE=E5=AE=9B=E5=85=88", /* the Japanese paragraph */
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!has(&out, parts[i]))
            fail_msg("missing: %s\nin:\n%s", parts[i], hky_buf_z(&out));
    hky_buf_fini(&out);
}

static void hostile_text_stays_text(void **state)
{
    static const char evil[] = "x\r\nBcc: v@z.test\r\n\r\n--b\x1b[2J\xff\xe2\x80\xae";
    struct hky_reply reply, local;
    struct hky_buf out, plain;

    (void)state;
    set_reply(&reply, 550, evil);
    set_reply(&local, 0, evil);
    const struct hky_dsn_recipient recipients[] = {{.address = hky_str_z(evil),
                                                    .orcpt = HKY_STR("rfc822;x\ny: z"),
                                                    .reply = &reply,
                                                    .status = "5.1.1\r\nX: y",
                                                    .remote_mta = evil,
                                                    .why = evil},
                                                   {.address = HKY_STR("c@y.test"), .reply = &local}};
    hky_buf_init(&out, 1 << 20);
    hky_buf_init(&plain, 1 << 20);
    struct hky_dsn d = {.hostname = evil,
                        .message_id = evil,
                        .to = hky_str_z(evil),
                        .envid = hky_str_z(evil),
                        .queue_id = evil,
                        .recipients = recipients,
                        .n = 2,
                        .original_header = HKY_STR("A: b\r\n")};
    hky_dsn_format(&d, &out);
    check_lines(hky_buf_str(&out), false);
    assert_false(has(&out, "\nBcc:"));
    assert_false(has(&out, "\n--b"));
    assert_false(has(&out, "\nX: y"));
    assert_false(has(&out, "\ny: z"));
    assert_int_equal(count(&out, "\r\n--=_hikyaku_"), 4);
    assert_true(has(&out, "Diagnostic-Code: X-Hikyaku; x\\x0d\\x0aBcc"));
    hky_buf_fini(&out);
    hky_buf_fini(&plain);
}

static void long_replies_are_folded(void **state)
{
    (void)state;
    for (int has_blanks = 0; has_blanks <= 1; has_blanks++) {
        struct hky_reply reply = {.code = 550, .n = 999};
        struct hky_buf out;

        for (int i = 0; i < 999; i++)
            reply.text[i] = has_blanks && i % 10 == 0 ? ' ' : '\xff';
        const struct hky_dsn_recipient r = {.address = HKY_STR("c@y.test"), .reply = &reply};
        hky_buf_init(&out, 1 << 20);
        hky_dsn_format(&(struct hky_dsn){.hostname = "h", .message_id = "<m>", .recipients = &r, .n = 1}, &out);
        check_lines(hky_buf_str(&out), false);
        hky_buf_fini(&out);
    }
}

static void the_whole_original_comes_back(void **state)
{
    const struct hky_dsn_recipient r = {.address = HKY_STR("c@y.test"), .action = HKY_DSN_DELIVERED};
    struct hky_dsn d = {.hostname = "h",
                        .message_id = "<m>",
                        .queue_id = "q",
                        .now_ms = 0xab,
                        .recipients = &r,
                        .n = 1,
                        .is_8bit = true,
                        .original_header = HKY_STR("A: b\r\n\r\n"),
                        /* the boundary that would be taken first */
                        .original_body = HKY_STR("--=_hikyaku_q_ab_0\r\n\xe3\x81\x82")};
    struct hky_buf out;

    (void)state;
    hky_buf_init(&out, 1 << 20);
    hky_dsn_format(&d, &out);
    check_lines(hky_buf_str(&out), true);
    assert_true(has(&out, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                          "A: b\r\n\r\n--=_hikyaku_q_ab_0\r\n\xe3\x81\x82\r\n\r\n--=_hikyaku_q_ab_1--\r\n"));
    assert_true(has(&out, "Status: 2.0.0\r\n"));
    hky_buf_fini(&out);
}

/* RFC 6533: a type for the address, for the part, for the header; all of it ASCII. */
static void addresses_in_utf8_have_their_type(void **state)
{
    const struct hky_dsn_recipient r = {.address = HKY_STR("b\xc3\xbc@x.test"),
                                        .orcpt = HKY_STR("utf-8;b\xc3\xbc@x.test")};
    const struct hky_dsn_recipient bad = {.address = HKY_STR("b\xff@x.test")};
    struct hky_dsn d = {.hostname = "h",
                        .message_id = "<m>",
                        .to = HKY_STR("a\xc3\xbc@x.test"),
                        .recipients = &r,
                        .n = 1,
                        .original_header = HKY_STR("Subject: \xe7\x89\xb9\r\n\r\n")};
    struct hky_buf out;

    (void)state;
    hky_buf_init(&out, 1 << 20);
    hky_dsn_format(&d, &out);
    check_lines(hky_buf_str(&out), false);
    assert_true(
        has(&out, "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: quoted-printable\r\n"));
    assert_true(has(&out, "Original-Recipient: utf-8;b=C3=BC@x.test\r\n"));
    assert_true(has(&out, "=46inal-Recipient: utf-8; b=C3=BC@x.test\r\n"));
    assert_true(has(&out, "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n"
                          "\r\nSubject: =E7=89=B9\r\n"));
    hky_buf_clear(&out);
    d.original_body = HKY_STR("body\r\n");
    d.is_smtputf8 = d.is_8bit = true;
    hky_dsn_format(&d, &out);
    check_lines(hky_buf_str(&out), false);
    assert_true(has(&out, "Content-Type: message/global\r\nContent-Transfer-Encoding: quoted-printable\r\n"));
    hky_buf_clear(&out);
    d.recipients = &bad; /* not UTF-8: it is no address of that type */
    hky_dsn_format(&d, &out);
    assert_true(has(&out, "Content-Type: message/delivery-status\r\n"));
    assert_true(has(&out, "Final-Recipient: rfc822; b\\xff@x.test\r\n"));
    hky_buf_fini(&out);
}

static void dates_are_formatted(void **state)
{
    static const struct {
        int64_t at_ms;
        int offset;
        const char *text;
    } cases[] = {
        {1795501124000, 540, "Tue, 24 Nov 2026 15:18:44 +0900"},
        {1795501124999, 0, "Tue, 24 Nov 2026 06:18:44 +0000"},
        {1795501124000, -210, "Tue, 24 Nov 2026 02:48:44 -0330"},
        {951782400000, 0, "Tue, 29 Feb 2000 00:00:00 +0000"},
        {0, 0, "Thu, 01 Jan 1970 00:00:00 +0000"},
        {-5, 0, "Thu, 01 Jan 1970 00:00:00 +0000"},
        {INT64_MAX, INT32_MAX, "Fri, 31 Dec 9999 00:00:00 +2359"},
        {INT64_MIN, INT32_MIN, "Thu, 01 Jan 1970 00:00:00 -2359"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[40];
        hky_date_format(cases[i].at_ms, cases[i].offset, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* Each day of four centuries and more, then one a month up to the last year. */
static void dates_are_those_of_the_calendar(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 2932800; day += day < 160000 ? 1 : 29) {
        char want[40], text[40];
        time_t at = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        gmtime_r(&at, &tm);
        strftime(want, sizeof want, "%a, %d %b %Y %H:%M:%S +0000", &tm);
        hky_date_format((int64_t)at * 1000, 0, text);
        if (strcmp(text, want) != 0)
            fail_msg("%s is not %s", text, want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_reported),
        cmocka_unit_test(hostile_text_stays_text),
        cmocka_unit_test(long_replies_are_folded),
        cmocka_unit_test(the_whole_original_comes_back),
        cmocka_unit_test(addresses_in_utf8_have_their_type),
        cmocka_unit_test(dates_are_formatted),
        cmocka_unit_test(dates_are_those_of_the_calendar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
