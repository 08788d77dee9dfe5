#include "deliver/mask.h"

#include "base/error.h"
#include "base/secret.h"

#include <stdlib.h>

#define MARK              "***"
#define SHORTEST_CUT      6 /* octets of a beginning at the end of a text that was cut */
#define SHORTEST_RESPONSE 8
#define OCTETS_MAX        (1024 * 1024)
#define SHORTEST_PART     4 /* characters of base64 in the middle of a run; fewer would match other text by accident */

struct hky_needle {
    size_t at, n; /* in mask->octets */
    bool is_base64, is_cased, is_word;
};

static bool is_alnum(char c)
{
    c = hky_lower(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_of_base64(char c)
{
    return is_alnum(c) || c == '+' || c == '/' || c == '-' || c == '_' || c == '=';
}

/* Makes one alphabet of the two of RFC 4648. */
static char plain_base64(char c)
{
    return c == '-' ? '+' : c == '_' ? '/' : c;
}

static bool is_same(const struct hky_needle *needle, char a, char b)
{
    if (needle->is_base64) {
        a = plain_base64(a);
        b = plain_base64(b);
    }
    return needle->is_cased ? a == b : hky_lower(a) == hky_lower(b);
}

/* How many octets of the needle are at `at`; its beginning at the very end of the text counts, too. */
static size_t match(const struct hky_mask *m, const struct hky_needle *needle, struct hky_str text, size_t at)
{
    const char *s = m->octets.p + needle->at;
    size_t n = 0;
    while (n < needle->n && at + n < text.n && is_same(needle, s[n], text.p[at + n]))
        n++;
    if (n < needle->n && (at + n < text.n || n < SHORTEST_CUT))
        return 0;
    bool is_in_word = (at > 0 && is_alnum(text.p[at - 1])) || (at + n < text.n && is_alnum(text.p[at + n]));
    return needle->is_word && is_in_word ? 0 : n;
}

/* Masks in place wherever one needle is found; returns the new length. */
static size_t mask_one(const struct hky_mask *m, const struct hky_needle *needle, char *p, size_t n)
{
    size_t to = 0;
    for (size_t at = 0; at < n;) {
        size_t used = match(m, needle, hky_str_of(p, n), at), from = at;
        if (used == 0) {
            p[to++] = p[at++];
            continue;
        }
        at += used;
        if (needle->is_base64) { /* the rest of the run would reveal the octets at the secret's edges */
            for (; at < n && is_of_base64(p[at]); at++)
                used++;
            for (; to > 0 && from > 0 && is_of_base64(p[to - 1]); from--, used++)
                to--;
        }
        for (size_t i = 0; i < used && i < strlen(MARK); i++)
            p[to++] = MARK[i];
    }
    return to;
}

/* ---- needles ---- */

/* The index of a pair of octets; pairs that any needle takes for the same have the same index. */
static unsigned pair_of(char a, char b)
{
    unsigned char x = (unsigned char)hky_lower(plain_base64(a)), y = (unsigned char)hky_lower(plain_base64(b));
    return (x * 31u + y) % HKY_MASK_PAIRS;
}

static void add_needle(struct hky_mask *m, struct hky_str s, bool is_base64, bool is_cased, bool is_word)
{
    if (s.n == 0)
        return;
    m->needles = hky_realloc(m->needles, (m->n + 1) * sizeof(*m->needles));
    m->needles[m->n++] = (struct hky_needle){m->octets.n, s.n, is_base64, is_cased, is_word};
    hky_buf_add(&m->octets, s.p, s.n);
    if (m->octets.is_over) { /* this secret is longer than any that is sent */
        m->n--;
        return;
    }
    if (s.n < 2)
        m->has_short = true;
    else
        m->pairs[pair_of(s.p[0], s.p[1]) / 64] |= UINT64_C(1) << (pair_of(s.p[0], s.p[1]) % 64);
}

static void add_base64(struct hky_mask *m, struct hky_str secret)
{
    static const char before[] = "\0\0";
    struct hky_buf plain, coded;
    hky_buf_init(&plain, secret.n + 8);
    hky_buf_init(&coded, (secret.n + 8) * 2);
    for (size_t shift = 0; shift < 3; shift++) {
        hky_buf_clear(&plain);
        hky_buf_clear(&coded);
        hky_buf_add(&plain, before, shift);
        hky_buf_add(&plain, secret.p, secret.n);
        hky_buf_add_base64(&coded, hky_buf_str(&plain));
        /* Only those characters count whose bits are all the secret's, because the text around it is not known. */
        size_t from = (shift * 8 + 5) / 6, to = (shift + secret.n) * 8 / 6;
        if (to - from >= SHORTEST_PART)
            add_needle(m, hky_str_of(coded.p + from, to - from), true, to - from < 12, false);
        if (shift == 0)
            add_needle(m, hky_buf_str(&coded), true, true, true);
        hky_secret_wipe(plain.p, plain.n);
        hky_secret_wipe(coded.p, coded.n);
    }
    hky_buf_fini(&plain);
    hky_buf_fini(&coded);
}

static void add_percent(struct hky_mask *m, struct hky_str secret)
{
    struct hky_buf coded;
    hky_buf_init(&coded, secret.n * 3 + 8);
    for (size_t i = 0; i < secret.n; i++)
        if (is_alnum(secret.p[i]) || strchr("-._~", secret.p[i]) != NULL)
            hky_buf_add_c(&coded, secret.p[i]);
        else
            hky_buf_printf(&coded, "%%%02x", (unsigned)(unsigned char)secret.p[i]);
    if (coded.n > secret.n && coded.n >= SHORTEST_CUT)
        add_needle(m, hky_buf_str(&coded), false, false, false);
    hky_secret_wipe(coded.p, coded.n);
    hky_buf_fini(&coded);
}

void hky_mask_init(struct hky_mask *m)
{
    *m = (struct hky_mask){0};
    hky_buf_init(&m->octets, OCTETS_MAX);
}

void hky_mask_fini(struct hky_mask *m)
{
    if (m->octets.p != NULL)
        hky_secret_wipe(m->octets.p, m->octets.n);
    hky_buf_fini(&m->octets);
    free(m->needles);
    *m = (struct hky_mask){0};
}

void hky_mask_add(struct hky_mask *m, struct hky_str secret)
{
    if (secret.n == 0)
        return;
    add_needle(m, secret, false, false, secret.n < 4);
    add_base64(m, secret);
    add_percent(m, secret);
}

/* The part of a response from which somebody can guess the password offline: the digest of CRAM-MD5 ("user DIGEST"),
 * the proof of SCRAM. */
static struct hky_str proof_of(struct hky_str plain)
{
    struct hky_str mark = HKY_STR(",p=");
    for (size_t at = plain.n; at > 0; at--) {
        size_t n = plain.n - at;
        if (plain.p[at - 1] == ' ')
            return n == 32 ? hky_str_of(plain.p + at, n) : hky_str_of(plain.p, 0);
        if (n > 0 && at >= mark.n && memcmp(plain.p + at - mark.n, mark.p, mark.n) == 0)
            return hky_str_of(plain.p + at, n);
    }
    return hky_str_of(plain.p, 0);
}

void hky_mask_add_response(struct hky_mask *m, struct hky_str response)
{
    struct hky_buf plain;
    if (response.n < SHORTEST_RESPONSE)
        return;
    add_needle(m, response, true, true, true);
    hky_buf_init(&plain, response.n + 8);
    if (hky_base64_decode(response, &plain) && plain.n > 0)
        add_needle(m, proof_of(hky_buf_str(&plain)), false, false, false);
    if (plain.p != NULL)
        hky_secret_wipe(plain.p, plain.n);
    hky_buf_fini(&plain);
}

/* ---- masking ---- */

/* Does any pair of octets begin a needle? Nearly every text has none. The beginning of a needle at the end of a text
 * that was cut is noticed, too, because it has the first two octets. */
static bool may_have_one(const struct hky_mask *m, const char *p, size_t n)
{
    if (m->n == 0 || m->has_short)
        return m->n > 0;
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned pair = pair_of(p[i], p[i + 1]);
        if ((m->pairs[pair / 64] >> (pair % 64) & 1) != 0)
            return true;
    }
    return false;
}

static size_t mask(const struct hky_mask *m, char *p, size_t n)
{
    if (!may_have_one(m, p, n))
        return n;
    for (unsigned i = 0; i < m->n; i++)
        n = mask_one(m, &m->needles[i], p, n);
    p[n] = '\0';
    return n;
}

void hky_mask_reply(const struct hky_mask *m, struct hky_reply *r)
{
    r->n = (uint16_t)mask(m, r->text, r->n);
}

void hky_mask_secret(struct hky_reply *r, struct hky_str secret)
{
    struct hky_mask m;
    hky_mask_init(&m);
    hky_mask_add(&m, secret);
    hky_mask_reply(&m, r);
    hky_mask_fini(&m);
}

void hky_mask_text(char *text, struct hky_str secret)
{
    struct hky_mask m;
    hky_mask_init(&m);
    hky_mask_add(&m, secret);
    mask(&m, text, strlen(text));
    hky_mask_fini(&m);
}
