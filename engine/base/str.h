/*
 * str -- a borrowed run of octets with its length; never needs a NUL, never owns.
 */
#ifndef HKY_BASE_STR_H
#define HKY_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct hky_str {
    const char *p;
    size_t n;
};

#define HKY_STR(literal) ((struct hky_str){(literal), sizeof(literal) - 1})
#define HKY_STR_FMT      "%.*s"
#define HKY_STR_ARG(s)   (int)(s).n, (s).p

static inline struct hky_str hky_str_of(const char *p, size_t n)
{
    return (struct hky_str){p, n};
}

/* From a NUL-terminated string; NULL gives the empty one. */
static inline struct hky_str hky_str_z(const char *z)
{
    return (struct hky_str){z != NULL ? z : "", z != NULL ? strlen(z) : 0};
}

static inline bool hky_str_eq(struct hky_str a, struct hky_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII case ignored; other octets compare as they are. Words of a table mostly differ in length: no call is made then.
 */
bool hky_octets_ieq(const char *a, const char *b, size_t n);
static inline bool hky_str_ieq(struct hky_str a, struct hky_str b)
{
    return a.n == b.n && hky_octets_ieq(a.p, b.p, a.n);
}
bool hky_str_istarts(struct hky_str s, struct hky_str prefix);
bool hky_str_iends(struct hky_str s, struct hky_str suffix);

/* First occurrence of `needle`, ASCII case ignored, or NULL. */
const char *hky_str_ifind(struct hky_str s, struct hky_str needle);

/* Without leading and trailing space, tab, CR, LF. */
struct hky_str hky_str_trim(struct hky_str s);

/* `*` any run, `?` one octet; ASCII case ignored; linear in practice, never exponential. */
bool hky_str_glob(struct hky_str pattern, struct hky_str s);

/* Unsigned decimal, the whole of `s`; false when empty, not digits, or above `max`. */
bool hky_str_u64(struct hky_str s, uint64_t max, uint64_t *out);

/* Numbers as text: the digits are written to `to`, without a NUL; returns the end of them. They are for what is written
 * for every message, because printf takes twenty times as long. */
#define HKY_DECIMAL_MAX 20 /* octets */
char *hky_decimal(char *to, uint64_t v);
char *hky_decimal_padded(char *to, uint64_t v, unsigned n); /* the last n digits, zeros in front */

/* Copies s to `to` as far as it fits before `end`, and a NUL behind it; returned is where the NUL is, so that the
 * next call goes on there. Needs to < end. What is written for every message is written with this, as numbers are. */
char *hky_str_put(char *to, const char *end, struct hky_str s);

/* A NUL-terminated copy; free(). */
char *hky_str_dup(struct hky_str s);

/* How alike two names are, 0 = equal; for "did you mean" (edit distance, at most 64 octets are looked at). */
unsigned hky_str_distance(struct hky_str a, struct hky_str b);

static inline char hky_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Is `s` well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool hky_utf8_is_valid(struct hky_str s);
/* Length of the well-formed UTF-8 sequence at `p` (2..4; its first octet is above 0x7f) with its code point, or 0. */
size_t hky_utf8_sequence(const char *p, size_t n, uint32_t *cp);
/* Could it mislead a terminal or a reader: C1, line separators, direction marks? */
bool hky_utf8_is_misleading(uint32_t cp);

/* Without the byte order mark that some editors put before UTF-8. */
static inline struct hky_str hky_utf8_unmarked(struct hky_str s)
{
    return s.n >= 3 && memcmp(s.p, "\xef\xbb\xbf", 3) == 0 ? hky_str_of(s.p + 3, s.n - 3) : s;
}

#endif
