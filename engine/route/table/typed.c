#include "route/table/typed.h"

#include <stdio.h>
#include <string.h>

const char *hky_typed_fault(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == 0)
            return "is a NUL octet";
        if (c == '\r' || c == '\n')
            return "is a line end";
        if (c < ' ' || c == 0x7f)
            return "is a control octet";
    }
    return hky_utf8_is_valid(s) ? NULL : "are octets that are not UTF-8";
}

int hky_typed_ascii(struct hky_str s, size_t *n)
{
    static const struct {
        const char *text;
        char ascii;
    } others[] = {{"\xe3\x80\x80", ' '},  {"\xc2\xa0", ' '},      {"\xe2\x80\x9c", '"'}, {"\xe2\x80\x9d", '"'},
                  {"\xe2\x80\x9e", '"'},  {"\xe2\x80\xb3", '"'},  {"\xc2\xab", '"'},     {"\xc2\xbb", '"'},
                  {"\xe2\x80\x98", '\''}, {"\xe2\x80\x99", '\''}, {"\xe3\x80\x8c", '"'}, {"\xe3\x80\x8d", '"'},
                  {"\xe3\x80\x81", ','},  {"\xe3\x80\x82", '.'},  {"\xe2\x80\x93", '-'}, {"\xe2\x80\x94", '-'},
                  {"\xe2\x88\x92", '-'},  {"\xe2\x80\x8b", 0},    {"\xef\xbb\xbf", 0}};
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned code;

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        *n = strlen(others[i].text);
        if (s.n >= *n && memcmp(s.p, others[i].text, *n) == 0)
            return others[i].ascii;
    }
    *n = 3;
    if (s.n < 3 || p[0] != 0xef || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
        return -1;
    code = 0xf000u | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    return code >= 0xff01 && code <= 0xff5e ? (int)(code - 0xff01 + '!') : -1;
}

/* The text with every such character replaced. */
static bool in_ascii(struct hky_str s, char *out, size_t room)
{
    bool is_changed = false;
    size_t k = 0;

    for (size_t i = 0; i < s.n && k + 4 < room;) {
        size_t n;
        int ascii = hky_typed_ascii(hky_str_of(s.p + i, s.n - i), &n);
        if (ascii < 0) {
            out[k++] = s.p[i++];
            continue;
        }
        is_changed = true;
        if (ascii > 0)
            out[k++] = (char)ascii;
        i += n;
    }
    out[k] = 0;
    return is_changed;
}

static bool is_separator(char c)
{
    return c == ',' || c == ';' || c == ' ' || c == '\t' || c == '|';
}

static size_t part_end(const char *s)
{
    size_t n = 0;

    while (s[n] != 0 && !is_separator(s[n]))
        n++;
    return n;
}

const char *hky_typed_hint(struct hky_str s, char out[HKY_TYPED_HINT])
{
    char plain[200], parts[240] = "";
    bool is_wide;
    size_t used = 0;
    unsigned n_parts = 0;

    out[0] = 0;
    if (s.n == 0 || s.n > 120 || memchr(s.p, '"', s.n) != NULL)
        return out;
    is_wide = in_ascii(s, plain, sizeof plain);
    for (const char *p = plain; *p != 0;) {
        size_t n = part_end(p);
        if (n > 0) {
            used +=
                (size_t)snprintf(parts + used, sizeof parts - used, "%s\"%.*s\"", n_parts > 0 ? ", " : "", (int)n, p);
            n_parts++;
        }
        if (used >= sizeof parts)
            return out;
        p += n + (p[n] != 0);
    }
    if (n_parts > 1)
        snprintf(out, HKY_TYPED_HINT, ": these are several values in one string: write { %s }", parts);
    else if (n_parts == 1 && is_wide)
        snprintf(out, HKY_TYPED_HINT, ": there are full-width characters in it: write %s", parts);
    else if (n_parts == 1 && (is_separator(plain[0]) || is_separator(plain[strlen(plain) - 1])))
        snprintf(out, HKY_TYPED_HINT, ": there is a blank or a comma at one end: write %s", parts);
    return out;
}

const char *hky_typed_stray(struct hky_str line, size_t *n)
{
    char quote = 0;

    for (size_t i = 0; i < line.n; i++) {
        char c = line.p[i];
        if (quote != 0 && c == '\\') {
            i++;
        } else if (quote != 0) {
            quote = c == quote ? 0 : quote;
        } else if (c == '"' || c == '\'') {
            quote = c;
        } else if (c == '-' && i + 1 < line.n && line.p[i + 1] == '-') {
            return NULL;
        } else if ((unsigned char)c >= 0x80) {
            *n = line.n - i;
            return line.p + i;
        }
    }
    return NULL;
}

const char *hky_nearest(struct hky_str name, const char *const *names, size_t n)
{
    const char *best = NULL;
    unsigned least = (unsigned)(name.n / 2 < 4 ? name.n / 2 + 1 : 4);

    for (size_t i = 0; i < n; i++) {
        unsigned d = hky_str_distance(name, hky_str_z(names[i]));
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

bool hky_is_secret_name(const char *s)
{
    if (s[0] == 0 || strlen(s) >= HKY_SECRET_NAME_MAX || strstr(s, "..") != NULL || s[0] == '/')
        return false;
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") == strlen(s);
}
