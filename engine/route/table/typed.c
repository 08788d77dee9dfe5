#include "route/table/typed.h"
#include "base/nearest.h"
#include "route/table/foreign.h"

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

/* Is this part a whole value, such as an address or a domain, and not a piece of one? */
static bool is_whole_value(const char *p, size_t n)
{
    return n > 2 && p[0] != '.' && p[0] != '@' && p[n - 1] != '.' && p[n - 1] != '@' &&
           (memchr(p, '.', n) != NULL || memchr(p, '@', n) != NULL);
}

/* "Taro <taro@shop.example>": the address between the brackets; n is 0 when the text has another form. */
static struct hky_str in_brackets(struct hky_str s)
{
    const char *open = memchr(s.p, '<', s.n), *close = memrchr(s.p, '>', s.n);
    size_t n = open != NULL && close != NULL && close > open ? (size_t)(close - open) - 1 : 0;

    return n > 0 && memchr(open + 1, '@', n) != NULL && memchr(open + 1, '<', n) == NULL ? hky_str_of(open + 1, n)
                                                                                         : hky_str_of("", 0);
}

const char *hky_typed_hint(struct hky_str s, bool may_be_many, char out[HKY_TYPED_HINT])
{
    char plain[200], parts[240] = "", whole[200] = "", first[200] = "";
    bool is_wide, is_blanks_only = true, are_values = true;
    size_t used = 0, n_whole = 0;
    unsigned n_parts = 0;
    struct hky_str inner;

    out[0] = 0;
    if (s.n == 0 || s.n > 120)
        return out;
    inner = in_brackets(s);
    if (inner.n > 0 && memchr(inner.p, '"', inner.n) == NULL) {
        snprintf(out, HKY_TYPED_HINT, ": write the address alone, \"%.*s\"", (int)inner.n, inner.p);
        return out;
    }
    if (memchr(s.p, '"', s.n) != NULL)
        return out;
    is_wide = hky_foreign_to_ascii(s, plain, sizeof plain);
    for (const char *p = plain; *p != 0;) {
        size_t n = part_end(p);
        if (n > 0) {
            used +=
                (size_t)snprintf(parts + used, sizeof parts - used, "%s\"%.*s\"", n_parts > 0 ? ", " : "", (int)n, p);
            n_whole += (size_t)snprintf(whole + n_whole, sizeof whole - n_whole, "%.*s", (int)n, p);
            if (n_parts++ == 0)
                snprintf(first, sizeof first, "%.*s", (int)n, p);
            are_values = are_values && is_whole_value(p, n);
        }
        if (used >= sizeof parts)
            return out;
        is_blanks_only = is_blanks_only && (p[n] == 0 || p[n] == ' ' || p[n] == '\t');
        p += n + (p[n] != 0);
    }
    if (n_parts > 1 && is_blanks_only && !are_values)
        snprintf(out, HKY_TYPED_HINT, ": there is a blank in it: write \"%s\"", whole);
    else if (n_parts > 1 && may_be_many)
        snprintf(out, HKY_TYPED_HINT, ": these are several values in one string: write { %s }", parts);
    else if (n_parts > 1)
        snprintf(out, HKY_TYPED_HINT, ": only one can be here: write \"%s\", for example", first);
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

bool hky_secret_name_is_valid(const char *s)
{
    if (s[0] == 0 || strlen(s) >= HKY_SECRET_NAME_MAX || strstr(s, "..") != NULL || s[0] == '/')
        return false;
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") == strlen(s);
}
