#include "intake/content.h"

#include <stdlib.h>

#define SLICE                                                                                                          \
    65536u /* octets handled at a time; a bare LF becomes two octets, so that at most twice as many come out */
#define HEAD_SLICE                                                                                                     \
    4096u /* the same within the header section: body octets in the slice that ends it are moved when fields are added \
             or removed */
#define FLUSH   (256u * 1024) /* the big file gets about so many octets at a time */
#define BUF_MAX (HKY_BIG_BODY + FLUSH + 4 * SLICE)

void intake_content_init(struct intake_content *c, uint64_t hint, struct hky_str trace)
{
    hky_dot_reader_init(&c->lines);
    hky_buf_init(&c->buf, BUF_MAX);
    intake_facts_init(&c->facts, c->section.header_octets);
    c->trace_n = c->scan = trace.n;
    hky_buf_reserve(&c->buf, trace.n + (hint < HKY_BIG_BODY ? (size_t)hint : HKY_BIG_BODY) + 512);
    hky_buf_add_str(&c->buf, trace);
}

static void drop_big(struct intake_content *c)
{
    if (c->big != NULL)
        c->big_ops.abort(c->big_ops.ctx, c->big);
    c->big = NULL;
    c->is_full = false;
}

void intake_content_fini(struct intake_content *c)
{
    drop_big(c);
    hky_buf_fini(&c->buf);
    intake_facts_fini(&c->facts);
    free(c->header);
    c->header = NULL;
}

/* The octets that still come are read and thrown away. */
static void give_up(struct intake_content *c)
{
    drop_big(c);
    hky_buf_fini(&c->buf);
}

/* The first reason counts. */
static void refuse(struct intake_content *c, int code, const char *enhanced, const char *text)
{
    if (c->refusal.code != 0)
        return;
    hky_refusal_set(&c->refusal, code, enhanced, "%s", text);
    give_up(c);
}

struct hky_str intake_content_header(const struct intake_content *c)
{
    return hky_str_of(c->header != NULL ? c->header : c->buf.p, c->header_n);
}

static void read_section(struct intake_content *c, size_t section_n)
{
    c->header_n = (uint32_t)intake_facts_read(&c->facts, &c->section, &c->buf, c->trace_n, section_n, &c->refusal);
    if (c->refusal.code != 0)
        give_up(c);
}

/* The header section ends at its empty line, which may also be its first line, or be missing. What is decided depends
 * on the octets alone and not on the pieces in which they arrive: an end within the bound counts; without one, the
 * section is judged by one octet more than the bound. */
static void find_header_end(struct intake_content *c)
{
    const char *p = c->buf.p + c->trace_n, *end = NULL;
    size_t n = c->buf.n - c->trace_n, section_n = SIZE_MAX, max = c->section.header_octets;

    if (n >= 2 && p[0] == '\r' && p[1] == '\n') {
        read_section(c, 0);
        return;
    }
    if (c->buf.n - c->scan >= 4)
        end = memmem(c->buf.p + c->scan, c->buf.n - c->scan, "\r\n\r\n", 4);
    if (end != NULL)
        section_n = (size_t)(end - p) + 2;
    if (section_n <= max)
        read_section(c, section_n);
    else if (n >= max + 2) /* the empty line behind a section of `max` octets would be here */
        read_section(c, max + 1);
    else if (c->buf.n - c->scan > 3)
        c->scan = c->buf.n - 3;
}

static void flush_big(struct intake_content *c)
{
    if (c->big == NULL) {
        c->header = hky_alloc(c->header_n);
        memcpy(c->header, c->buf.p, c->header_n);
        enum hky_err err = c->big_ops.open(c->big_ops.ctx, c->section.id, &c->big);
        if (err != HKY_OK) {
            hky_refusal_set_storage(&c->refusal, err);
            give_up(c);
            return;
        }
    }
    c->is_full = !c->big_ops.write(c->big_ops.ctx, c->big, c->buf.p, c->buf.n);
    c->flushed += c->buf.n;
    hky_buf_clear(&c->buf);
}

/* The octets that the client sent count, not the header section after it was changed. */
static void check_size(struct intake_content *c)
{
    if (c->refusal.code != 0 || c->octets <= c->max_message)
        return;
    hky_refusal_set(&c->refusal, 552, "5.3.4", "message too big, at most %llu octets",
                    (unsigned long long)c->max_message);
    give_up(c);
}

/* Called after every slice: looks for the end of the header section, checks the bounds, writes to the big file. The
 * size is checked after the header section, which has a bound of its own, so that the reason of a refusal does not
 * depend on how the octets arrived. */
static void on_added(struct intake_content *c, size_t grown)
{
    c->octets += grown;
    if (c->refusal.code != 0) {
        hky_buf_clear(&c->buf);
        return;
    }
    if (c->buf.n > 0)
        c->last = c->buf.p[c->buf.n - 1];
    if (c->header_n == 0)
        find_header_end(c);
    if (c->refusal.code == 0 && c->header_n > 0)
        check_size(c);
    if (c->refusal.code == 0 && c->header_n > 0 && c->buf.n > (c->big == NULL ? HKY_BIG_BODY : FLUSH))
        flush_big(c);
    HKY_ASSERT(!c->buf.is_over);
}

static size_t slice_of(const struct intake_content *c, size_t n)
{
    size_t max = c->header_n == 0 && c->refusal.code == 0 ? HEAD_SLICE : SLICE;

    return n < max ? n : max;
}

size_t intake_content_dots(struct intake_content *c, const char *p, size_t n, bool *is_end)
{
    size_t at = 0;

    *is_end = false;
    while (at < n && !*is_end && !c->is_full) {
        size_t slice = slice_of(c, n - at);
        size_t before = c->buf.n;
        at += hky_dot_read(&c->lines, p + at, slice, &c->buf, is_end);
        on_added(c, c->buf.n - before);
    }
    return at;
}

size_t intake_content_chunk(struct intake_content *c, const char *p, size_t n)
{
    size_t at = 0;

    while (at < n && !c->is_full) {
        size_t slice = slice_of(c, n - at);
        size_t before = c->buf.n;
        hky_bdat_read(&c->lines, p + at, slice, &c->buf);
        at += slice;
        on_added(c, c->buf.n - before);
    }
    return at;
}

void intake_content_end(struct intake_content *c)
{
    if (c->refusal.code == 0 && c->header_n == 0)
        read_section(c, c->buf.n - c->trace_n);
    if (c->refusal.code == 0)
        check_size(c);
    if (c->lines.has_nul)
        refuse(c, 550, "5.6.0", "the content has a NUL octet");
    if (c->lines.has_bare_cr || c->last == '\r')
        refuse(c, 550, "5.6.0", "the content has a CR without LF; lines end with CRLF");
    if (c->refusal.code == 0 && c->big != NULL) {
        (void)c->big_ops.write(c->big_ops.ctx, c->big, c->buf.p, c->buf.n);
        c->flushed += c->buf.n;
        hky_buf_clear(&c->buf);
    }
}
