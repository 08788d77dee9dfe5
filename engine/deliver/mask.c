#include "deliver/mask.h"

#include "base/buf.h"
#include "base/secret.h"

#define MARK          "***"
#define SHORTEST_CUT  6 /* octets of a beginning at the end of a text that was cut */
#define SHORTEST_PART 4 /* characters of base64 in the middle of a run; fewer would mask by accident */

struct needle {
    struct hky_str s;
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

/* Both alphabets of RFC 4648 are one. */
static char plain_base64(char c)
{
    return c == '-' ? '+' : c == '_' ? '/' : c;
}

static bool is_same(const struct needle *needle, char a, char b)
{
    if (needle->is_base64) {
        a = plain_base64(a);
        b = plain_base64(b);
    }
    return needle->is_cased ? a == b : hky_lower(a) == hky_lower(b);
}

/* Octets of the needle at `at`; a beginning of it at the very end counts. */
static size_t match(const struct needle *needle, struct hky_str text, size_t at)
{
    size_t n = 0;
    while (n < needle->s.n && at + n < text.n && is_same(needle, needle->s.p[n], text.p[at + n]))
        n++;
    if (n < needle->s.n && (at + n < text.n || n < SHORTEST_CUT))
        return 0;
    bool is_in_word = (at > 0 && is_alnum(text.p[at - 1])) || (at + n < text.n && is_alnum(text.p[at + n]));
    return needle->is_word && is_in_word ? 0 : n;
}

/* Masks all of one needle in place; returns the new length. */
static size_t mask_one(char *p, size_t n, const struct needle *needle)
{
    size_t to = 0;
    for (size_t at = 0; at < n;) {
        size_t used = match(needle, hky_str_of(p, n), at), from = at;
        if (used == 0) {
            p[to++] = p[at++];
            continue;
        }
        at += used;
        if (needle->is_base64) { /* the rest of the run tells the octets at its edges */
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

static size_t mask_base64(char *p, size_t n, struct hky_str secret)
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
        /* Only characters all whose bits are the secret's: what stands around it is not known. */
        size_t from = (shift * 8 + 5) / 6, to = (shift + secret.n) * 8 / 6;
        struct needle part = {
            .s = hky_str_of(coded.p + from, to - from), .is_base64 = true, .is_cased = to - from < 12};
        if (to - from >= SHORTEST_PART)
            n = mask_one(p, n, &part);
        struct needle whole = {.s = hky_buf_str(&coded), .is_base64 = true, .is_cased = true, .is_word = true};
        if (shift == 0)
            n = mask_one(p, n, &whole);
        hky_secret_wipe(plain.p, plain.n);
        hky_secret_wipe(coded.p, coded.n);
    }
    hky_buf_fini(&plain);
    hky_buf_fini(&coded);
    return n;
}

static size_t mask_percent(char *p, size_t n, struct hky_str secret)
{
    struct hky_buf coded;
    hky_buf_init(&coded, secret.n * 3 + 8);
    for (size_t i = 0; i < secret.n; i++)
        if (is_alnum(secret.p[i]) || strchr("-._~", secret.p[i]) != NULL)
            hky_buf_add_c(&coded, secret.p[i]);
        else
            hky_buf_printf(&coded, "%%%02x", (unsigned)(unsigned char)secret.p[i]);
    struct needle needle = {.s = hky_buf_str(&coded)};
    if (coded.n > secret.n && coded.n >= SHORTEST_CUT)
        n = mask_one(p, n, &needle);
    hky_secret_wipe(coded.p, coded.n);
    hky_buf_fini(&coded);
    return n;
}

static size_t mask(char *p, size_t n, struct hky_str secret)
{
    if (secret.n == 0)
        return n;
    struct needle plain = {.s = secret, .is_word = secret.n < 4};
    n = mask_one(p, n, &plain);
    n = mask_base64(p, n, secret);
    n = mask_percent(p, n, secret);
    p[n] = '\0';
    return n;
}

void hky_mask_secret(struct hky_reply *r, struct hky_str secret)
{
    r->n = (uint16_t)mask(r->text, r->n, secret);
}

void hky_mask_text(char *text, struct hky_str secret)
{
    mask(text, strlen(text), secret);
}
