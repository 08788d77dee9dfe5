/* Content on the wire: the same for every split and both widths the reader looks at; clean content has CRLF only, and
 * what is written is read again as one message with nothing behind it. First octet: the split. */
#include "base/error.h"
#include "mail/dot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    struct hky_dot_reader r;
    struct hky_buf out;
    size_t used;
    bool is_end;
};

enum { NARROW = 1, BDAT = 2 };

static void run(const char *p, size_t n, size_t piece, int how, struct result *k)
{
    *k = (struct result){0};
    hky_dot_reader_init(&k->r);
    k->r.is_wide = k->r.is_wide && !(how & NARROW);
    hky_buf_init(&k->out, 1 << 24);
    while (k->used < n && !k->is_end) {
        size_t give = piece < n - k->used ? piece : n - k->used, used = give;

        if (how & BDAT)
            hky_bdat_read(&k->r, p + k->used, give, &k->out);
        else
            used = hky_dot_read(&k->r, p + k->used, give, &k->out, &k->is_end);
        HKY_ASSERT(used <= give && (k->is_end || used == give));
        k->used += used;
    }
    if (how & BDAT)
        hky_bdat_end(&k->r);
}

static void check_same(const struct result *a, const struct result *b)
{
    HKY_ASSERT(a->used == b->used && a->is_end == b->is_end);
    HKY_ASSERT(hky_str_eq(hky_buf_str(&a->out), hky_buf_str(&b->out)));
    HKY_ASSERT(a->r.has_bare_cr == b->r.has_bare_cr && a->r.has_nul == b->r.has_nul);
    HKY_ASSERT(a->r.has_bare_lf == b->r.has_bare_lf && a->r.has_8bit == b->r.has_8bit);
    HKY_ASSERT(a->r.state == b->r.state);
    HKY_ASSERT(a->r.may_have_dot_lines == b->r.may_have_dot_lines);
}

/* An end of data that was not CRLF.CRLF would be smuggling. */
static void check_end(const char *p, const struct result *k)
{
    if (!k->is_end)
        return;
    HKY_ASSERT(k->used >= 3 && memcmp(p + k->used - 3, ".\r\n", 3) == 0);
    HKY_ASSERT(k->used == 3 || (k->used >= 5 && memcmp(p + k->used - 5, "\r\n", 2) == 0));
}

static void check_content(const struct result *k)
{
    for (size_t i = 0; i < k->out.n; i++) {
        char c = k->out.p[i];
        HKY_ASSERT(c != '\n' || (i > 0 && k->out.p[i - 1] == '\r'));
        HKY_ASSERT(c != '\r' || i + 1 == k->out.n || k->out.p[i + 1] == '\n');
        HKY_ASSERT(c != '.' || (i > 0 && k->out.p[i - 1] != '\n') || k->r.may_have_dot_lines);
    }
}

static void on_emit(void *ctx, const char *p, size_t n)
{
    HKY_ASSERT(n > 0);
    hky_buf_add(ctx, p, n);
}

static void check_written(struct hky_str content, size_t piece)
{
    struct hky_buf wire;
    struct result back;
    uint8_t at_start = true;

    hky_buf_init(&wire, 1 << 24);
    for (size_t at = 0; at < content.n; at += piece)
        hky_dot_write(content.p + at, piece < content.n - at ? piece : content.n - at, &at_start, on_emit, &wire);
    hky_buf_add_z(&wire, hky_dot_end(at_start));
    run(wire.p, wire.n, wire.n, 0, &back);
    HKY_ASSERT(back.is_end && back.used == wire.n && !back.r.has_bare_lf && !back.r.has_bare_cr);
    HKY_ASSERT(back.out.n >= content.n && (content.n == 0 || memcmp(back.out.p, content.p, content.n) == 0));
    HKY_ASSERT(back.out.n == content.n + (at_start ? 0 : 2));
    hky_buf_fini(&wire);
    hky_buf_fini(&back.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *p = (const char *)data + 1;
    size_t n = size - 1, piece = data[0] % 32 + 1u;

    for (int how = 0; how <= BDAT; how += BDAT) {
        struct result whole, narrow, split;

        run(p, n, n, how, &whole);
        run(p, n, n, how | NARROW, &narrow);
        run(p, n, piece, how, &split);
        check_same(&whole, &narrow);
        check_same(&whole, &split);
        check_end(p, &whole);
        if (!whole.r.has_bare_cr) {
            check_content(&whole);
            bool ends_in_cr = whole.out.n > 0 && whole.out.p[whole.out.n - 1] == '\r';
            if (!ends_in_cr)
                check_written(hky_buf_str(&whole.out), piece);
        }
        hky_buf_fini(&whole.out);
        hky_buf_fini(&narrow.out);
        hky_buf_fini(&split.out);
    }
    return 0;
}
