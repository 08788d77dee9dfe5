/*
 * buf -- octets that grow up to a stated maximum. Going past the maximum is remembered, not ignored: once `is_over`,
 * appends do nothing and the owner asks once at the end.
 */
#ifndef HKY_BASE_BUF_H
#define HKY_BASE_BUF_H

#include "base/str.h"

#include <endian.h>

struct hky_buf {
    char *p;
    size_t n;   /* octets used */
    size_t cap; /* octets allocated */
    size_t max; /* octets allowed */
    bool is_over;
    bool is_lent; /* p is not the buffer's own */
};

/* An empty buffer that may grow to `max` octets; no memory is allocated before the first append. */
void hky_buf_init(struct hky_buf *b, size_t max);
/* Begins in `space` of `n` octets, which outlives the buffer; what has no room there moves to memory of its own. For
 * what is short nearly always: no memory is allocated then. */
void hky_buf_init_in(struct hky_buf *b, void *space, size_t n, size_t max);
void hky_buf_fini(struct hky_buf *b);  /* frees; the buffer may be initialised again */
void hky_buf_clear(struct hky_buf *b); /* empty again, memory kept, is_over reset */

/* Room for `n` more octets at the end, or NULL when that passes max; then add what was written to b->n. */
char *hky_buf_reserve(struct hky_buf *b, size_t n);
void hky_buf_add_slowly(struct hky_buf *b, const void *p, size_t n); /* hky_buf_add's, when there may be no room */

/* Lines and records are made of hundreds of small pieces: where there is room already, no call is made. */
static inline void hky_buf_add(struct hky_buf *b, const void *p, size_t n)
{
    if (n == 0 || b->is_over || n >= b->cap - b->n || n > b->max - b->n) {
        hky_buf_add_slowly(b, p, n);
        return;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void hky_buf_add_str(struct hky_buf *b, struct hky_str s)
{
    hky_buf_add(b, s.p, s.n);
}

static inline void hky_buf_add_z(struct hky_buf *b, const char *z)
{
    hky_buf_add(b, z, strlen(z));
}

static inline void hky_buf_add_c(struct hky_buf *b, char c)
{
    hky_buf_add(b, &c, 1);
}

/* Appends a number, or a formatted text without its NUL. */
void hky_buf_add_decimal(struct hky_buf *b, int64_t v);
void hky_buf_printf(struct hky_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* NUL-terminated view (the NUL is not counted); "" when empty. Valid until the next change. */
const char *hky_buf_z(struct hky_buf *b);
struct hky_str hky_buf_str(const struct hky_buf *b);

/* Hand the memory over (free() it); the buffer is empty afterwards. `n` may be NULL. NULL when empty. */
char *hky_buf_take(struct hky_buf *b, size_t *n);

/* Remove the first `n` octets. */
void hky_buf_drop(struct hky_buf *b, size_t n);

/* Little-endian integers and length-prefixed runs, for durable records. */
static inline void hky_buf_add_u8(struct hky_buf *b, uint8_t v)
{
    hky_buf_add(b, &v, sizeof v);
}

static inline void hky_buf_add_u16(struct hky_buf *b, uint16_t v)
{
    v = htole16(v);
    hky_buf_add(b, &v, sizeof v);
}

static inline void hky_buf_add_u32(struct hky_buf *b, uint32_t v)
{
    v = htole32(v);
    hky_buf_add(b, &v, sizeof v);
}

static inline void hky_buf_add_u64(struct hky_buf *b, uint64_t v)
{
    v = htole64(v);
    hky_buf_add(b, &v, sizeof v);
}

void hky_buf_add_lstr(struct hky_buf *b, struct hky_str s); /* u32 length, octets */

/* Reading them back: past the end, `is_bad` is set and zeros come out. */
struct hky_cursor {
    const char *p;
    size_t n;
    bool is_bad;
};
uint8_t hky_cursor_u8(struct hky_cursor *c);
uint16_t hky_cursor_u16(struct hky_cursor *c);
uint32_t hky_cursor_u32(struct hky_cursor *c);
uint64_t hky_cursor_u64(struct hky_cursor *c);
struct hky_str hky_cursor_lstr(struct hky_cursor *c);
struct hky_str hky_cursor_take(struct hky_cursor *c, size_t n);

/* A JSON string with its quotes: control octets, quotes, DEL, C1, bidi controls escaped, invalid UTF-8 as U+FFFD. */
void hky_buf_add_json(struct hky_buf *b, struct hky_str s);

/* base64 (RFC 4648 section 4). Decode is strict: padding required, no other octets; false when wrong. */
void hky_buf_add_base64(struct hky_buf *b, struct hky_str s);
bool hky_base64_decode(struct hky_str s, struct hky_buf *out);
/* As mail has it: padding may be missing or too long, and bits that are left over may be anything. */
bool hky_base64_decode_loose(struct hky_str s, struct hky_buf *out);

#endif
