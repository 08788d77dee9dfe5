#include "base/buf.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void hky_buf_init(struct hky_buf *b, size_t max)
{
    *b = (struct hky_buf){.max = max};
}

void hky_buf_init_in(struct hky_buf *b, void *space, size_t n, size_t max)
{
    *b = (struct hky_buf){.p = space, .cap = n, .max = max, .is_lent = true};
}

void hky_buf_fini(struct hky_buf *b)
{
    if (!b->is_lent)
        free(b->p);
    *b = (struct hky_buf){.max = b->max};
}

void hky_buf_clear(struct hky_buf *b)
{
    b->n = 0;
    b->is_over = false;
}

/* One octet beyond is always there, for hky_buf_z. */
char *hky_buf_reserve(struct hky_buf *b, size_t n)
{
    if (b->is_over || n > b->max - b->n) {
        b->is_over = true;
        return NULL;
    }
    if (b->n + n + 1 > b->cap) {
        size_t cap = b->cap < 128 ? 128 : b->cap * 2;
        if (cap < b->n + n + 1)
            cap = b->n + n + 1;
        b->p = b->is_lent ? memcpy(hky_alloc(cap), b->p, b->n) : hky_realloc(b->p, cap);
        b->is_lent = false;
        b->cap = cap;
    }
    return b->p + b->n;
}

void hky_buf_add_slowly(struct hky_buf *b, const void *p, size_t n)
{
    char *to;

    if (n == 0 || (to = hky_buf_reserve(b, n)) == NULL)
        return;
    memcpy(to, p, n);
    b->n += n;
}

void hky_buf_add_decimal(struct hky_buf *b, int64_t v)
{
    char text[1 + HKY_DECIMAL_MAX], *to = text;

    if (v < 0)
        *to++ = '-';
    to = hky_decimal(to, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    hky_buf_add(b, text, (size_t)(to - text));
}

void hky_buf_printf(struct hky_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if ((size_t)n < sizeof small) {
        hky_buf_add(b, small, (size_t)n);
        return;
    }
    char *to = hky_buf_reserve(b, (size_t)n);
    if (to == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

const char *hky_buf_z(struct hky_buf *b)
{
    if (b->p == NULL)
        return "";
    b->p[b->n] = '\0';
    return b->p;
}

struct hky_str hky_buf_str(const struct hky_buf *b)
{
    return (struct hky_str){b->p != NULL ? b->p : "", b->n};
}

char *hky_buf_take(struct hky_buf *b, size_t *n)
{
    char *p = b->is_lent && b->n > 0 ? memcpy(hky_alloc(b->n + 1), b->p, b->n) : b->is_lent ? NULL : b->p;

    if (n != NULL)
        *n = b->n;
    if (p != NULL)
        p[b->n] = '\0';
    *b = (struct hky_buf){.max = b->max};
    return p;
}

void hky_buf_drop(struct hky_buf *b, size_t n)
{
    HKY_ASSERT(n <= b->n);
    if (n == 0)
        return;
    b->n -= n;
    if (b->n > 0)
        memmove(b->p, b->p + n, b->n);
}

void hky_buf_add_lstr(struct hky_buf *b, struct hky_str s)
{
    HKY_ASSERT(s.n <= UINT32_MAX);
    hky_buf_add_u32(b, (uint32_t)s.n);
    hky_buf_add_str(b, s);
}

struct hky_str hky_cursor_take(struct hky_cursor *c, size_t n)
{
    struct hky_str s = {c->p, n};

    if (c->is_bad || n > c->n) {
        c->is_bad = true;
        return (struct hky_str){"", 0};
    }
    c->p += n;
    c->n -= n;
    return s;
}

static uint64_t take_le(struct hky_cursor *c, unsigned octets)
{
    struct hky_str s = hky_cursor_take(c, octets);
    uint64_t v = 0;

    for (size_t i = 0; i < s.n; i++)
        v |= (uint64_t)(unsigned char)s.p[i] << (8 * i);
    return v;
}

uint8_t hky_cursor_u8(struct hky_cursor *c)
{
    return (uint8_t)take_le(c, 1);
}

uint16_t hky_cursor_u16(struct hky_cursor *c)
{
    return (uint16_t)take_le(c, 2);
}

uint32_t hky_cursor_u32(struct hky_cursor *c)
{
    return (uint32_t)take_le(c, 4);
}

uint64_t hky_cursor_u64(struct hky_cursor *c)
{
    return take_le(c, 8);
}

struct hky_str hky_cursor_lstr(struct hky_cursor *c)
{
    return hky_cursor_take(c, hky_cursor_u32(c));
}

size_t hky_utf8_sequence(const char *p, size_t n, uint32_t *cp)
{
    unsigned char c = (unsigned char)p[0];
    size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

    if (len > n || !hky_utf8_is_valid(hky_str_of(p, len)))
        return 0;
    *cp = c & (0xff >> (len + 1));
    for (size_t i = 1; i < len; i++)
        *cp = *cp << 6 | ((unsigned char)p[i] & 0x3f);
    return len;
}

bool hky_utf8_is_misleading(uint32_t cp)
{
    return (cp >= 0x80 && cp < 0xa0) || (cp >= 0x200e && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

/* Eight octets at once: does none of them need more than to be copied? A borrow that reaches the next octet changes
 * nothing: then there is one already. */
static bool is_plain8(uint64_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t quote, backslash, del;

    quote = v ^ ones * '"';
    backslash = v ^ ones * '\\';
    del = v ^ ones * 0x7f;
    return ((v | (v - ones * 0x20) | (quote - ones) | (backslash - ones) | (del - ones)) & high) == 0;
}

static uint64_t eight(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

/* Fewer than eight octets, some of them twice and in any order. */
static uint64_t few(const char *p, size_t n)
{
    uint32_t begin, end;

    if (n >= 4) {
        memcpy(&begin, p, sizeof begin);
        memcpy(&end, p + n - 4, sizeof end);
        return (uint64_t)begin << 32 | end;
    }
    begin = (unsigned char)p[0];
    end = (unsigned char)p[n - 1];
    return UINT64_C(0x2020202020000000) | begin << 16 | (uint32_t)(unsigned char)p[n / 2] << 8 | end;
}

/* Most strings are short and need nothing. */
static bool is_all_plain(struct hky_str s)
{
    size_t i = 0;

    if (s.n < 8)
        return s.n == 0 || is_plain8(few(s.p, s.n));
    for (; s.n - i > 8; i += 8)
        if (!is_plain8(eight(s.p + i)))
            return false;
    return is_plain8(eight(s.p + s.n - 8));
}

/* How many octets at the beginning go into a JSON string as they are. */
static size_t plain_octets(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            return i;
    }
    return s.n;
}

/* The first octet of s needs more than to be copied; how many were taken. */
static size_t add_json_escaped(struct hky_buf *b, struct hky_str s)
{
    unsigned char c = (unsigned char)s.p[0];
    uint32_t cp = 0;
    size_t len = 1;

    if (c == '"' || c == '\\') {
        hky_buf_add_c(b, '\\');
        hky_buf_add_c(b, (char)c);
    } else if (c == '\n') {
        hky_buf_add(b, "\\n", 2);
    } else if (c == '\r') {
        hky_buf_add(b, "\\r", 2);
    } else if (c == '\t') {
        hky_buf_add(b, "\\t", 2);
    } else if (c < 0x80) {
        hky_buf_printf(b, "\\u%04x", c);
    } else if ((len = hky_utf8_sequence(s.p, s.n, &cp)) == 0) {
        hky_buf_add(b, "\xef\xbf\xbd", 3);
        len = 1;
    } else if (hky_utf8_is_misleading(cp)) {
        hky_buf_printf(b, "\\u%04x", cp);
    } else {
        hky_buf_add(b, s.p, len);
    }
    return len;
}

void hky_buf_add_json(struct hky_buf *b, struct hky_str s)
{
    hky_buf_add_c(b, '"');
    while (s.n > 0) {
        size_t n = is_all_plain(s) ? s.n : plain_octets(s);
        hky_buf_add(b, s.p, n);
        s = hky_str_of(s.p + n, s.n - n);
        if (s.n == 0)
            break;
        n = add_json_escaped(b, s);
        s = hky_str_of(s.p + n, s.n - n);
    }
    hky_buf_add_c(b, '"');
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void hky_buf_add_base64(struct hky_buf *b, struct hky_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;

    for (size_t i = 0; i < s.n; i += 3) {
        size_t left = s.n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        char four[4] = {base64_digits[v >> 18], base64_digits[v >> 12 & 63], base64_digits[v >> 6 & 63],
                        base64_digits[v & 63]};
        if (left < 3)
            four[3] = '=';
        if (left < 2)
            four[2] = '=';
        hky_buf_add(b, four, 4);
    }
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* Digits only. `rest`: the bits that make no octet, `n_rest` of them. */
static bool decode_digits(struct hky_str s, struct hky_buf *out, uint32_t *rest, unsigned *n_rest)
{
    uint32_t bits = 0;
    unsigned n_bits = 0;

    for (size_t i = 0; i < s.n; i++) {
        int v = base64_value(s.p[i]);

        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            hky_buf_add_c(out, (char)(bits >> n_bits & 0xff));
        }
        bits &= (1u << n_bits) - 1;
    }
    *rest = bits;
    *n_rest = n_bits;
    return true;
}

bool hky_base64_decode(struct hky_str s, struct hky_buf *out)
{
    uint32_t rest;
    unsigned n_rest;

    if (s.n % 4 != 0)
        return false;
    for (int pad = 0; pad < 2 && s.n > 0 && s.p[s.n - 1] == '='; pad++)
        s.n--;
    return decode_digits(s, out, &rest, &n_rest) && n_rest < 6 && rest == 0 && !out->is_over;
}

bool hky_base64_decode_loose(struct hky_str s, struct hky_buf *out)
{
    uint32_t rest;
    unsigned n_rest;

    while (s.n > 0 && s.p[s.n - 1] == '=')
        s.n--;
    return decode_digits(s, out, &rest, &n_rest) && n_rest < 6;
}
