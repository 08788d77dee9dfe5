#include "mail/dot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SMUG "MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"
#define S(x) x, sizeof(x) - 1
#define LINE "0123456789012345678901234567890123456789012345678901234567890.23" /* 64 octets */

static const struct {
    const char *what, *in;
    size_t in_n;
    const char *out; /* NULL: it is to be refused, content does not matter */
    size_t out_n;
    bool has_cr, has_nul, has_lf;
} cases[] = {
    {"empty message", S(".\r\n"), S(""), 0, 0, 0},
    {"plain", S("a\r\n.\r\n"), S("a\r\n"), 0, 0, 0},
    {"stuffed dots", S("a\r\n.b\r\n..c\r\n\r\n.\r\n"), S("a\r\nb\r\n.c\r\n\r\n"), 0, 0, 0},
    {"stuffed dot first", S("..a\r\n.\r\n"), S(".a\r\n"), 0, 0, 0},
    {"stuffed lone dot", S("..\r\n.\r\n"), S(".\r\n"), 0, 0, 0},
    {"dots inside a line", S("a.b.\r\n.\r\n"), S("a.b.\r\n"), 0, 0, 0},
    {"bare LF lines", S("a\nb\r\n.\r\n"), S("a\r\nb\r\n"), 0, 0, 1},
    {"LF . LF", S("one\n.\n" SMUG),
     S("one\r\n.\r\nMAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\n"
       "Subject: smuggled\r\n\r\nevil\r\n"),
     0, 0, 1},
    {"LF . CRLF", S("one\n.\r\n" SMUG),
     S("one\r\n.\r\nMAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\n"
       "Subject: smuggled\r\n\r\nevil\r\n"),
     0, 0, 1},
    {"CRLF . LF", S("one\r\n.\n" SMUG),
     S("one\r\n.\r\nMAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\n"
       "Subject: smuggled\r\n\r\nevil\r\n"),
     0, 0, 1},
    {"stuffed dots behind bare LFs", S("a\n..dot\n...\n..\nb\r\n..c\r\n.\r\n"),
     S("a\r\n.dot\r\n..\r\n.\r\nb\r\n.c\r\n"), 0, 0, 1},
    {"dots behind bare LFs that nobody stuffed", S("a\n.dot\n.\nb.\n\r\n.\r\n"), S("a\r\n.dot\r\n.\r\nb.\r\n\r\n"), 0,
     0, 1},
    {"LF .. CRLF", S("one\n..\r\n" SMUG),
     S("one\r\n.\r\nMAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\n"
       "Subject: smuggled\r\n\r\nevil\r\n"),
     0, 0, 1},
    {"LF .. CR", S("one\n..\r.\r\n" SMUG), NULL, 0, 1, 0, 1},
    {"CR . CR", S("one\r.\r" SMUG), NULL, 0, 1, 0, 0},
    {"CR . LF", S("one\r.\n" SMUG), NULL, 0, 1, 0, 1},
    {"LF . CR", S("one\n.\r" SMUG), NULL, 0, 1, 0, 1},
    {"CR . CRLF", S("one\r.\r\n" SMUG), NULL, 0, 1, 0, 0},
    {"CRLF . CR", S("one\r\n.\r" SMUG), NULL, 0, 1, 0, 0},
    {"CRLF . CR CRLF", S("one\r\n.\r\r\n" SMUG), NULL, 0, 1, 0, 0},
    {"CR CRLF . CR CRLF", S("one\r\r\n.\r\r\n" SMUG), NULL, 0, 1, 0, 0},
    {"CRLF NUL . CRLF", S("one\r\n\0.\r\n" SMUG), NULL, 0, 0, 1, 0},
    {"CRLF . NUL CRLF", S("one\r\n.\0\r\n" SMUG), NULL, 0, 0, 1, 0},
    {"bare CR at the end of a line", S("a\r\r\n.\r\n"), NULL, 0, 1, 0, 0},
};

/* Reads `in` in two pieces; gives the octets consumed. */
static size_t read_split(struct hky_dot_reader *r, struct hky_str in, size_t cut, struct hky_buf *out, bool *is_end)
{
    size_t used = hky_dot_read(r, in.p, cut, out, is_end);

    if (*is_end)
        return used;
    assert_int_equal(used, cut);
    return cut + hky_dot_read(r, in.p + cut, in.n - cut, out, is_end);
}

/* A reader of the width the processor has, and the narrower one of others. */
static void reader_init(struct hky_dot_reader *r, bool is_narrow)
{
    hky_dot_reader_init(r);
    r->is_wide = r->is_wide && !is_narrow;
}

static void one_message_for_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t cut = 0; cut <= cases[i].in_n; cut++) {
            struct hky_dot_reader r;
            struct hky_buf out;
            bool is_end = false;

            hky_dot_reader_init(&r);
            hky_buf_init(&out, 4096);
            size_t used = read_split(&r, hky_str_of(cases[i].in, cases[i].in_n), cut, &out, &is_end);
            if (!is_end || used != cases[i].in_n)
                fail_msg("%s cut at %zu: %zu of %zu consumed", cases[i].what, cut, used, cases[i].in_n);
            if (r.has_bare_cr != cases[i].has_cr || r.has_nul != cases[i].has_nul || r.has_bare_lf != cases[i].has_lf)
                fail_msg("%s cut at %zu: cr %d nul %d lf %d", cases[i].what, cut, r.has_bare_cr, r.has_nul,
                         r.has_bare_lf);
            if (cases[i].out != NULL) {
                if (!hky_str_eq(hky_buf_str(&out), hky_str_of(cases[i].out, cases[i].out_n)))
                    fail_msg("%s cut at %zu: %s", cases[i].what, cut, hky_buf_z(&out));
            }
            hky_buf_fini(&out);
        }
}

static void what_follows_is_not_consumed(void **state)
{
    struct hky_dot_reader r;
    struct hky_buf out;
    bool is_end;

    (void)state;
    hky_dot_reader_init(&r);
    hky_buf_init(&out, 100);
    assert_int_equal(hky_dot_read(&r, S("a\r\n.\r\nQUIT\r\0\n"), &out, &is_end), 6);
    assert_true(is_end);
    assert_false(r.has_bare_cr || r.has_nul);
    hky_buf_fini(&out);
}

/* Every octet of an oddity at every place of blocks that are plain otherwise. Blocks are looked at from the second line
 * of a piece on. */
#define FIRST "x\r\n"
static void oddities_among_plain_blocks_are_noted(bool is_narrow)
{
    static const struct {
        const char *in, *out;
        size_t n;
        bool has_cr, has_nul, has_lf, has_8bit;
    } odd[] = {
        {"ab", "ab", 2, 0, 0, 0, 0},         {"\r\n", "\r\n", 2, 0, 0, 0, 0},
        {"\n", "\r\n", 1, 0, 0, 1, 0},       {"a\rb", NULL, 3, 1, 0, 0, 0},
        {"a\0b", NULL, 3, 0, 1, 0, 0},       {"\xe3", "\xe3", 1, 0, 0, 0, 1},
        {"\n\n", "\r\n\r\n", 2, 0, 0, 1, 0}, {"\r\r\n", NULL, 3, 1, 0, 0, 0},
        {"\r\n.x", "\r\nx", 4, 0, 0, 0, 0},  {"\n.x", "\r\n.x", 3, 0, 0, 1, 0},
        {"\r\n..", "\r\n.", 4, 0, 0, 0, 0},  {"\r\n.\n", "\r\n.\r\n", 4, 0, 0, 1, 0},
        {"\r\n.\rx", NULL, 5, 1, 0, 0, 0},   {"\n..x", "\r\n.x", 4, 0, 0, 1, 0},
        {"\n...", "\r\n..", 4, 0, 0, 1, 0},  {"\n..\n", "\r\n.\r\n", 4, 0, 0, 1, 0},
    };

    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        for (size_t before = 1; before < 200; before++)
            for (size_t cut = 0; cut <= before + odd[i].n; cut += cut < before ? before : 1) {
                struct hky_dot_reader r;
                struct hky_buf in, out, want;
                bool is_end = false;

                hky_buf_init(&in, 1000);
                hky_buf_init(&out, 1000);
                hky_buf_init(&want, 1000);
                hky_buf_add_z(&in, FIRST);
                hky_buf_add(&in, LINE LINE LINE LINE, before);
                hky_buf_add(&in, odd[i].in, odd[i].n);
                hky_buf_add_z(&in, LINE LINE "\r\n.\r\n");
                reader_init(&r, is_narrow);
                read_split(&r, hky_buf_str(&in), cut > 0 ? sizeof FIRST - 1 + cut : 0, &out, &is_end);
                if (!is_end || r.has_bare_cr != odd[i].has_cr || r.has_nul != odd[i].has_nul ||
                    r.has_bare_lf != odd[i].has_lf || r.has_8bit != odd[i].has_8bit)
                    fail_msg("%zu behind %zu octets, cut at %zu: cr %d nul %d lf %d 8bit %d", i, before, cut,
                             r.has_bare_cr, r.has_nul, r.has_bare_lf, r.has_8bit);
                hky_buf_add_z(&want, FIRST);
                hky_buf_add(&want, LINE LINE LINE LINE, before);
                hky_buf_add_z(&want, odd[i].out != NULL ? odd[i].out : "");
                hky_buf_add_z(&want, LINE LINE "\r\n");
                if (odd[i].out != NULL && !hky_str_eq(hky_buf_str(&out), hky_buf_str(&want)))
                    fail_msg("%zu behind %zu octets, cut at %zu: %s", i, before, cut, hky_buf_z(&out));
                hky_buf_fini(&in);
                hky_buf_fini(&out);
                hky_buf_fini(&want);
            }
}

static void oddities_are_noted_in_blocks(void **state)
{
    (void)state;
    oddities_among_plain_blocks_are_noted(false);
}

static void oddities_are_noted_in_narrow_blocks(void **state)
{
    (void)state;
    oddities_among_plain_blocks_are_noted(true);
}

/* What a client sends behind the end is no content: it does not count as 8-bit. */
static void octets_behind_the_end_are_not_noted(void **state)
{
    struct hky_dot_reader r;
    struct hky_buf out;
    bool is_end;

    (void)state;
    hky_dot_reader_init(&r);
    hky_buf_init(&out, 1000);
    assert_int_equal(hky_dot_read(&r, S(LINE LINE "\r\n.\r\n\xe3\n\r\0" LINE LINE), &out, &is_end), 133);
    assert_true(is_end && !r.has_8bit && !r.has_bare_lf && !r.has_bare_cr && !r.has_nul);
    hky_buf_fini(&out);
}

static void content_over_the_maximum_is_read_on(void **state)
{
    struct hky_dot_reader r;
    struct hky_buf out;
    bool is_end;

    (void)state;
    hky_buf_init(&out, 4);
    hky_dot_reader_init(&r);
    assert_int_equal(hky_dot_read(&r, S("abcdef\r\nx\r\n.\r\nNOOP"), &out, &is_end), 14);
    assert_true(is_end && out.is_over);
    hky_buf_fini(&out);
}

static void bdat_has_no_dots_and_no_end(void **state)
{
    static const char in[] = "a\r\n.\r\n..b\nc";
    (void)state;
    for (size_t cut = 0; cut < sizeof in; cut++) {
        struct hky_dot_reader r;
        struct hky_buf out;

        hky_dot_reader_init(&r);
        hky_buf_init(&out, 100);
        hky_bdat_read(&r, in, cut, &out);
        hky_bdat_read(&r, in + cut, sizeof in - 1 - cut, &out);
        hky_bdat_end(&r);
        assert_string_equal(hky_buf_z(&out), "a\r\n.\r\n..b\r\nc");
        assert_true(r.has_bare_lf && !r.has_bare_cr && r.may_have_dot_lines);
        hky_buf_fini(&out);
    }
}

static void bdat_notes_a_last_bare_cr(void **state)
{
    struct hky_dot_reader r;
    struct hky_buf out;

    (void)state;
    hky_dot_reader_init(&r);
    hky_buf_init(&out, 100);
    hky_bdat_read(&r, S("a\r"), &out);
    assert_false(r.has_bare_cr);
    hky_bdat_end(&r);
    assert_true(r.has_bare_cr);
    hky_buf_fini(&out);
}

struct wire {
    struct hky_buf octets;
    unsigned n_emits;
};

static void on_emit(void *ctx, const char *p, size_t n)
{
    struct wire *w = ctx;

    assert_true(n > 0);
    hky_buf_add(&w->octets, p, n);
    w->n_emits++;
}

/* The one thing that the note must never do: say that there are no dot lines where the writer would stuff one. */
static void a_body_without_dot_lines_goes_out_as_it_is(void **state)
{
    static const struct {
        const char *what;
        struct hky_str in;
        bool may_have;
    } contents[] = {
        {"no line at all", HKY_STR(".\r\n"), false},
        {"plain", HKY_STR("a\r\nb.c\r\n\r\n.\r\n"), false},
        {"a line longer than a block", HKY_STR(LINE LINE "\r\n" LINE "x\r\n.\r\n"), false},
        {"a needless dot", HKY_STR("a\r\n.b\r\n.\r\n"), true},
        {"a stuffed dot", HKY_STR("a\r\n..b\r\n.\r\n"), true},
        {"a stuffed dot first", HKY_STR("..a\r\n.\r\n"), true},
        {"a stuffed dot among plain blocks", HKY_STR(LINE LINE "\r\n..\r\n" LINE LINE "\r\n.\r\n"), true},
        {"a stuffed dot where a block begins", HKY_STR("a" LINE "\r\n..b" LINE LINE "\r\n.\r\n"), true},
        {"a bare LF", HKY_STR("a\nb\r\n.\r\n"), true},
        {"a dot behind a bare LF", HKY_STR("a\n.b\r\n.\r\n"), true},
        {"a dot behind a bare LF among plain blocks", HKY_STR(LINE LINE "\n.b" LINE LINE "\r\n.\r\n"), true},
        {"a lone dot behind a bare LF", HKY_STR("a\n.\r\nb\r\n.\r\n"), true},
        {"a lone dot before a bare LF", HKY_STR("a\r\n.\nb\r\n.\r\n"), true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++)
        for (size_t cut = 0; cut <= contents[i].in.n; cut++) {
            struct wire w = {0};
            struct hky_dot_reader r;
            struct hky_buf out;
            uint8_t at_start = true;
            bool is_end = false;

            hky_dot_reader_init(&r);
            hky_buf_init(&out, 4096);
            hky_buf_init(&w.octets, 4096);
            read_split(&r, contents[i].in, cut, &out, &is_end);
            assert_true(is_end);
            if (r.may_have_dot_lines != contents[i].may_have)
                fail_msg("%s cut at %zu: dot lines %d", contents[i].what, cut, r.may_have_dot_lines);
            hky_dot_write(out.p, out.n, &at_start, on_emit, &w);
            if (!r.may_have_dot_lines && !hky_str_eq(hky_buf_str(&out), hky_buf_str(&w.octets)))
                fail_msg("%s cut at %zu: would be stuffed", contents[i].what, cut);
            hky_buf_fini(&w.octets);
            hky_buf_fini(&out);
        }
}

static const struct {
    const char *what, *body, *wire;
    unsigned n_emits;
} bodies[] = {
    {"empty", "", ".\r\n", 0},
    {"plain is one run", "a\r\nb.c\r\n", "a\r\nb.c\r\n.\r\n", 1},
    {"dot first", ".a\r\n", "..a\r\n.\r\n", 2},
    {"lone dot", "a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n", 3},
    {"dots in a row", ".\r\n.\r\n", "..\r\n..\r\n.\r\n", 4},
    {"no line end", "a", "a\r\n.\r\n", 1},
    {"a dot and no line end", "a\r\n.", "a\r\n..\r\n.\r\n", 3},
};

static void writer_stuffs_for_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        size_t n = strlen(bodies[i].body);

        for (size_t cut = 0; cut <= n; cut++) {
            struct wire w = {0};
            uint8_t at_start = true;

            hky_buf_init(&w.octets, 1000);
            hky_dot_write(bodies[i].body, cut, &at_start, on_emit, &w);
            hky_dot_write(bodies[i].body + cut, n - cut, &at_start, on_emit, &w);
            hky_buf_add_z(&w.octets, hky_dot_end(at_start));
            if (strcmp(hky_buf_z(&w.octets), bodies[i].wire) != 0)
                fail_msg("%s cut at %zu: %s", bodies[i].what, cut, hky_buf_z(&w.octets));
            if (cut == 0)
                assert_int_equal(w.n_emits, bodies[i].n_emits);
            hky_buf_fini(&w.octets);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_message_for_every_split),
        cmocka_unit_test(what_follows_is_not_consumed),
        cmocka_unit_test(oddities_are_noted_in_blocks),
        cmocka_unit_test(oddities_are_noted_in_narrow_blocks),
        cmocka_unit_test(octets_behind_the_end_are_not_noted),
        cmocka_unit_test(content_over_the_maximum_is_read_on),
        cmocka_unit_test(bdat_has_no_dots_and_no_end),
        cmocka_unit_test(bdat_notes_a_last_bare_cr),
        cmocka_unit_test(writer_stuffs_for_every_split),
        cmocka_unit_test(a_body_without_dot_lines_goes_out_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
