#include "mail/header.h"

static bool is_fold(char c)
{
    return c == ' ' || c == '\t';
}

/* How many octets there are up to and with the next LF, or to the end. */
static size_t line_octets(struct hky_str s)
{
    const char *lf = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL;

    return lf != NULL ? (size_t)(lf - s.p) + 1 : s.n;
}

static bool is_empty_line(struct hky_str s)
{
    return s.n > 0 && (s.p[0] == '\n' || (s.n > 1 && s.p[0] == '\r' && s.p[1] == '\n'));
}

/* RFC 5322 3.6.8: printable characters without the colon. Blanks before the colon are obsolete, but accepted. */
static struct hky_str field_name(struct hky_str whole)
{
    size_t n = 0;

    while (n < whole.n && whole.p[n] > 0x20 && whole.p[n] < 0x7f && whole.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < whole.n && is_fold(whole.p[colon]))
        colon++;
    return colon < whole.n && whole.p[colon] == ':' ? hky_str_of(whole.p, n) : hky_str_of(whole.p, 0);
}

bool hky_field_next(struct hky_str section, size_t *at, struct hky_field *out)
{
    struct hky_str rest = hky_str_of(section.p + *at, section.n - *at);
    size_t n;

    if (rest.n == 0 || is_empty_line(rest))
        return false;
    n = line_octets(rest);
    while (n < rest.n && is_fold(rest.p[n]))
        n += line_octets(hky_str_of(rest.p + n, rest.n - n));
    out->whole = hky_str_of(rest.p, n);
    out->name = field_name(out->whole);
    out->value = out->whole;
    if (out->name.n > 0) {
        const char *colon = memchr(rest.p + out->name.n, ':', n - out->name.n);
        out->value = hky_str_of(colon + 1, n - (size_t)(colon + 1 - rest.p));
    }
    if (out->value.n > 0 && out->value.p[out->value.n - 1] == '\n')
        out->value.n--;
    if (out->value.n > 0 && out->value.p[out->value.n - 1] == '\r')
        out->value.n--;
    *at += n;
    return true;
}

size_t hky_mbox_line_octets(struct hky_str message)
{
    size_t at = 0;

    for (;;) {
        struct hky_str rest = hky_str_of(message.p + at, message.n - at);
        if (rest.n > 0 && rest.p[0] == '>')
            rest = hky_str_of(rest.p + 1, rest.n - 1);
        size_t n = line_octets(rest);
        /* "From : a@b" is a field */
        if (n <= 5 || memcmp(rest.p, "From ", 5) != 0 || rest.p[n - 1] != '\n' ||
            field_name(hky_str_of(rest.p, n)).n > 0)
            return at;
        at = (size_t)(rest.p + n - message.p);
    }
}

bool hky_field_find(struct hky_str section, const char *name, struct hky_field *out)
{
    struct hky_str wanted = hky_str_z(name);

    for (size_t at = 0; hky_field_next(section, &at, out);)
        if (hky_str_ieq(out->name, wanted))
            return true;
    return false;
}

size_t hky_header_octets(struct hky_str message)
{
    for (size_t at = 0; at < message.n; at += line_octets(hky_str_of(message.p + at, message.n - at))) {
        struct hky_str rest = hky_str_of(message.p + at, message.n - at);
        if (is_empty_line(rest))
            return at + line_octets(rest);
    }
    return message.n;
}
