#include "base/str.h"

#include "base/error.h"

bool hky_octets_ieq(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i] && hky_lower(a[i]) != hky_lower(b[i]))
            return false;
    return true;
}

bool hky_str_istarts(struct hky_str s, struct hky_str prefix)
{
    return s.n >= prefix.n && hky_str_ieq(hky_str_of(s.p, prefix.n), prefix);
}

bool hky_str_iends(struct hky_str s, struct hky_str suffix)
{
    return s.n >= suffix.n && hky_str_ieq(hky_str_of(s.p + s.n - suffix.n, suffix.n), suffix);
}

const char *hky_str_ifind(struct hky_str s, struct hky_str needle)
{
    if (needle.n == 0)
        return s.p;
    for (size_t i = 0; i + needle.n <= s.n; i++)
        if (hky_lower(s.p[i]) == hky_lower(needle.p[0]) && hky_str_ieq(hky_str_of(s.p + i, needle.n), needle))
            return s.p + i;
    return NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct hky_str hky_str_trim(struct hky_str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool hky_str_glob(struct hky_str pattern, struct hky_str s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;

    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = i;
        } else if (p < pattern.n && (pattern.p[p] == '?' || hky_lower(pattern.p[p]) == hky_lower(s.p[i]))) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

bool hky_str_u64(struct hky_str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned d = (unsigned char)s.p[i] - '0';
        if (d > 9 || v > (UINT64_MAX - d) / 10)
            return false;
        v = v * 10 + d;
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

char *hky_decimal_padded(char *to, uint64_t v, unsigned n)
{
    for (unsigned i = n; i-- > 0; v /= 10)
        to[i] = (char)('0' + v % 10);
    return to + n;
}

char *hky_decimal(char *to, uint64_t v)
{
    char text[HKY_DECIMAL_MAX];
    size_t at = sizeof text;

    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    memcpy(to, text + at, sizeof text - at);
    return to + (sizeof text - at);
}

char *hky_str_put(char *to, const char *end, struct hky_str s)
{
    size_t room = (size_t)(end - to) - 1, n = s.n < room ? s.n : room;

    if (n > 0)
        memcpy(to, s.p, n);
    to[n] = '\0';
    return to + n;
}

char *hky_str_dup(struct hky_str s)
{
    char *z = hky_alloc(s.n + 1);

    if (s.n > 0)
        memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return z;
}

/* Two neighbouring letters in the wrong order count as one mistake. */
unsigned hky_str_distance(struct hky_str a, struct hky_str b)
{
    unsigned rows[3][65], *before = rows[0], *above = rows[1], *row = rows[2];
    size_t na = a.n < 64 ? a.n : 64, nb = b.n < 64 ? b.n : 64;

    for (size_t j = 0; j <= nb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned *oldest = before;
        before = above;
        above = row;
        row = oldest;
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            char x = hky_lower(a.p[i - 1]), y = hky_lower(b.p[j - 1]);
            unsigned best = above[j - 1] + (x != y);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && x == hky_lower(b.p[j - 2]) && y == hky_lower(a.p[i - 2]) && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

bool hky_utf8_is_valid(struct hky_str s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end;

    if (s.n == 0) /* p may be NULL, to which nothing can be added */
        return true;
    for (end = p + s.n; p < end;) {
        unsigned c = *p, need;
        uint32_t cp, least;

        if (c < 0x80) {
            p++;
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf)
            need = 1, cp = c & 0x1f, least = 0x80;
        else if ((c & 0xf0) == 0xe0)
            need = 2, cp = c & 0x0f, least = 0x800;
        else if (c >= 0xf0 && c <= 0xf4)
            need = 3, cp = c & 0x07, least = 0x10000;
        else
            return false;
        if ((size_t)(end - p) <= need)
            return false;
        for (unsigned i = 1; i <= need; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
            cp = cp << 6 | (p[i] & 0x3f);
        }
        if (cp < least || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
            return false;
        p += need + 1;
    }
    return true;
}
