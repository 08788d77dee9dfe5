#include "mail/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct {
    const char *what, *in;
    int code; /* 0: BAD */
    unsigned enhanced[3];
    const char *text, *lines; /* lines NULL: not looked at */
} cases[] = {
    {"one line", "250 2.1.5 ok\r\n", 250, {2, 1, 5}, "ok", "2.1.5 ok"},
    {"no text", "250\r\n", 250, {0}, "", ""},
    {"blank only", "250 \r\n", 250, {0}, "", ""},
    {"enhanced alone", "550 5.1.1\r\n", 550, {5, 1, 1}, "", NULL},
    {"several lines",
     "250-a.example\r\n250-SIZE 10\r\n250 PIPELINING\r\n",
     250,
     {0},
     "a.example SIZE 10 PIPELINING",
     "a.example\nSIZE 10\nPIPELINING"},
    {"a line without text", "250-\r\n250 ok\r\n", 250, {0}, "ok", "\nok"},
    {"bare LF ends a line", "220 hi\n", 220, {0}, "hi", NULL},
    {"repeated prefixes",
     "550-5.7.26 This mail\r\n550-5.7.26 is not\r\n550 5.7.26 wanted\r\n",
     550,
     {5, 7, 26},
     "This mail is not wanted",
     NULL},
    {"a sign of its own", "550 #5.1.0 Address rejected\r\n", 550, {5, 1, 0}, "Address rejected", NULL},
    {"two blanks", "550  5.1.1 unknown\r\n", 550, {5, 1, 1}, "unknown", NULL},
    {"a sign without a code", "550 # 5.1.1 unknown\r\n", 550, {0}, "# 5.1.1 unknown", NULL},
    {"two signs", "550 ##5.1.1 unknown\r\n", 550, {0}, "##5.1.1 unknown", NULL},
    {"detail above 255", "550 5.7.515 Access denied\r\n", 550, {5, 7, 515}, "Access denied", NULL},
    {"another enhanced code later stays", "550-5.1.1 a\r\n550 5.1.2 b\r\n", 550, {5, 1, 1}, "a 5.1.2 b", NULL},
    {"enhanced code on the last line only", "550-no\r\n550 5.1.1 b\r\n", 550, {5, 1, 1}, "no b", NULL},
    {"class does not match: 250 5.7.2", "250 5.7.2\r\n", 250, {0}, "5.7.2", NULL},
    {"cut enhanced code: 250 2.0", "250 2.0\r\n", 250, {0}, "2.0", NULL},
    {"cut enhanced code: 250 2.", "250 2.\r\n", 250, {0}, "2.", NULL},
    {"550 5.7.2 without text", "550 5.7.2\r\n", 550, {5, 7, 2}, "", NULL},
    {"four digits are no code", "550 5.7.1234 x\r\n", 550, {0}, "5.7.1234 x", NULL},
    {"letters behind are no code", "550 5.7.1x\r\n", 550, {0}, "5.7.1x", NULL},
    {"subject above 255", "550 5.999.1 x\r\n", 550, {0}, "5.999.1 x", NULL},
    {"354 has none", "354 3.0.0 go\r\n", 354, {0}, "3.0.0 go", NULL},
    {"571 exists in the wild", "571 Email cannot be delivered\r\n", 571, {0}, "Email cannot be delivered", NULL},
    {"escape and markup", "550 <b>\x1b[2J\xe2\x80\xae\r\n", 550, {0}, "<b>?[2J\xef\xbf\xbd", NULL},
    {"a tab", "550 5.1.1\t=cmd|calc\r\n", 550, {5, 1, 1}, "=cmd|calc", NULL},
    {"Japanese", "550 \xe5\xae\x9b\xe5\x85\x88\r\n", 550, {0}, "\xe5\xae\x9b\xe5\x85\x88", NULL},
    {"not UTF-8",
     "550 a\xff\xe5\xae"
     "b\r\n",
     550,
     {0},
     "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
     "b",
     NULL},
    {"a CR inside", "550 a\rb\r\n", 550, {0}, "a?b", NULL},
    {"words", "hello\r\n", 0, {0}, "", NULL},
    {"999", "999 x\r\n", 0, {0}, "", NULL},
    {"000", "000 x\r\n", 0, {0}, "", NULL},
    {"150", "150 x\r\n", 0, {0}, "", NULL},
    {"a letter in the code", "2x0 y\r\n", 0, {0}, "", NULL},
    {"empty line", "\r\n", 0, {0}, "", NULL},
    {"no blank behind the code", "250ok\r\n", 0, {0}, "", NULL},
    {"two digits", "25\r\n", 0, {0}, "", NULL},
    {"binary", "\xff\xfe\r\n", 0, {0}, "", NULL},
    {"mixed codes", "250-a\r\n550 b\r\n", 0, {0}, "", NULL},
    {"an HTTP answer", "HTTP/1.1 400 Bad Request\r\n", 0, {0}, "", NULL},
};

/* Feeds `in` in pieces cut at `cut` and gives the first status that is not MORE. */
static enum hky_reply_status feed(struct hky_reply_reader *r, struct hky_str in, size_t cut, struct hky_error *e,
                                  size_t *used)
{
    size_t first = 0, second = 0;
    enum hky_reply_status status = hky_reply_read(r, in.p, cut, &first, e);

    if (status == HKY_REPLY_MORE)
        status = hky_reply_read(r, in.p + first, in.n - first, &second, e);
    *used = first + second;
    return status;
}

static void replies_are_read_for_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_str in = hky_str_z(cases[i].in);

        for (size_t cut = 0; cut <= in.n; cut++) {
            struct hky_reply_reader r;
            struct hky_error e = {0};
            size_t used;

            hky_reply_reader_init(&r);
            enum hky_reply_status status = feed(&r, in, cut, &e, &used);
            if (status != (cases[i].code != 0 ? HKY_REPLY_WHOLE : HKY_REPLY_BAD))
                fail_msg("%s cut at %zu: status %d, %s", cases[i].what, cut, status, e.text);
            if (cases[i].code != 0) {
                if (r.reply.code != cases[i].code || r.reply.enhanced[0] != cases[i].enhanced[0] ||
                    r.reply.enhanced[1] != cases[i].enhanced[1] || r.reply.enhanced_detail != cases[i].enhanced[2] ||
                    strcmp(r.reply.text, cases[i].text) != 0)
                    fail_msg("%s cut at %zu: %u %u.%u.%u '%s'", cases[i].what, cut, r.reply.code, r.reply.enhanced[0],
                             r.reply.enhanced[1], r.reply.enhanced_detail, r.reply.text);
                assert_int_equal(r.reply.n, strlen(r.reply.text));
                assert_int_equal(used, in.n);
                if (cases[i].lines != NULL)
                    assert_string_equal(hky_buf_z(&r.lines), cases[i].lines);
            }
            hky_reply_reader_fini(&r);
        }
    }
}

static void a_nul_is_refused(void **state)
{
    struct hky_reply_reader r;
    struct hky_error e;
    size_t used;

    (void)state;
    hky_reply_reader_init(&r);
    assert_int_equal(hky_reply_read(&r, "250\0ok\r\n", 8, &used, &e), HKY_REPLY_BAD);
    hky_reply_reader_fini(&r);
    hky_reply_reader_init(&r);
    assert_int_equal(hky_reply_read(&r, "250 \0ok\r\n", 9, &used, &e), HKY_REPLY_BAD);
    hky_reply_reader_fini(&r);
}

static void one_reply_a_call(void **state)
{
    static const char in[] = "250 one\r\n550-5.1.1 two\r\n550 5.1.1 more\r\n354 three\r\n";
    static const char *const texts[] = {"one", "two more", "three"};
    struct hky_reply_reader r;
    size_t at = 0;

    (void)state;
    hky_reply_reader_init(&r);
    for (int i = 0; i < 3; i++) {
        size_t used;
        assert_int_equal(hky_reply_read(&r, in + at, sizeof in - 1 - at, &used, NULL), HKY_REPLY_WHOLE);
        assert_string_equal(r.reply.text, texts[i]);
        at += used;
    }
    assert_int_equal(at, sizeof in - 1);
    hky_reply_reader_fini(&r);
}

static void bounds_hold(void **state)
{
    static const struct {
        const char *what;
        size_t line_n, lines; /* octets of text in each of so many lines "250-" */
        enum hky_reply_status status;
    } bounds[] = {
        {"the longest line", HKY_REPLY_LINE_MAX - 4, 1, HKY_REPLY_WHOLE},
        {"one octet more", HKY_REPLY_LINE_MAX - 3, 1, HKY_REPLY_BAD},
        {"100 lines", 3, 100, HKY_REPLY_WHOLE},
        {"101 lines", 3, 101, HKY_REPLY_BAD},
        {"64 KiB in all", 2000, 40, HKY_REPLY_BAD},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++)
        for (size_t piece = 1; piece <= 200000; piece = piece == 1 ? 777 : piece * 100) {
            struct hky_buf in;
            struct hky_reply_reader r;
            enum hky_reply_status status = HKY_REPLY_MORE;

            hky_buf_init(&in, 1 << 20);
            for (size_t k = 0; k < bounds[i].lines; k++) {
                hky_buf_add_z(&in, k + 1 == bounds[i].lines ? "250 " : "250-");
                memset(hky_buf_reserve(&in, bounds[i].line_n), 'A', bounds[i].line_n);
                in.n += bounds[i].line_n;
                hky_buf_add_z(&in, "\r\n");
            }
            hky_reply_reader_init(&r);
            for (size_t at = 0, used; at < in.n && status == HKY_REPLY_MORE; at += used)
                status = hky_reply_read(&r, in.p + at, piece < in.n - at ? piece : in.n - at, &used, NULL);
            if (status != bounds[i].status)
                fail_msg("%s in pieces of %zu: %d", bounds[i].what, piece, status);
            assert_true(r.reply.n < HKY_REPLY_TEXT);
            hky_reply_reader_fini(&r);
            hky_buf_fini(&in);
        }
}

static void an_endless_line_is_cut_off_early(void **state)
{
    struct hky_reply_reader r;
    size_t used, fed = 0;

    (void)state;
    hky_reply_reader_init(&r);
    while (hky_reply_read(&r, "AAAAAAAAAAAAAAAA", 16, &used, NULL) == HKY_REPLY_MORE)
        fed += 16;
    assert_true(fed <= HKY_REPLY_LINE_MAX);
    hky_reply_reader_fini(&r);
}

static void text_is_cut_at_a_character(void **state)
{
    struct hky_buf in;
    struct hky_reply_reader r;
    size_t used;

    (void)state;
    hky_buf_init(&in, 4096);
    hky_buf_add_z(&in, "550 5.1.1 a");
    for (int i = 0; i < 500; i++)
        hky_buf_add_z(&in, "\xe3\x81\x82");
    hky_buf_add_z(&in, "\r\n");
    hky_reply_reader_init(&r);
    assert_int_equal(hky_reply_read(&r, in.p, in.n, &used, NULL), HKY_REPLY_WHOLE);
    assert_int_equal(r.reply.n, 1 + 332 * 3);
    assert_true(hky_utf8_is_valid(hky_str_of(r.reply.text, r.reply.n)));
    hky_reply_reader_fini(&r);
    hky_buf_fini(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_read_for_every_split),
        cmocka_unit_test(a_nul_is_refused),
        cmocka_unit_test(one_reply_a_call),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(an_endless_line_is_cut_off_early),
        cmocka_unit_test(text_is_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
