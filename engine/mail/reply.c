#include "mail/reply.h"

#define OCTETS_MAX ((uint32_t)64 * 1024)

void hky_reply_reader_init(struct hky_reply_reader *r)
{
    *r = (struct hky_reply_reader){0};
    hky_buf_init(&r->part, HKY_REPLY_LINE_MAX + 1); /* with its CR */
    hky_buf_init(&r->lines, OCTETS_MAX);
}

void hky_reply_reader_fini(struct hky_reply_reader *r)
{
    hky_buf_fini(&r->part);
    hky_buf_fini(&r->lines);
}

static void begin(struct hky_reply_reader *r)
{
    r->n_lines = 0;
    r->octets = 0;
    r->reply.code = 0;
    memset(r->reply.enhanced, 0, sizeof r->reply.enhanced);
    r->reply.enhanced_detail = 0;
    r->reply.origin = HKY_ORIGIN_REMOTE;
    r->reply.n = 0;
    r->reply.text[0] = '\0';
    hky_buf_clear(&r->part);
    hky_buf_clear(&r->lines);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Up to three digits at *at, and `end` behind them. */
static bool take_number(struct hky_str s, size_t *at, char end, unsigned *v)
{
    size_t start = *at;

    *v = 0;
    while (*at < s.n && *at - start < 3 && is_digit(s.p[*at]))
        *v = *v * 10 + (unsigned)(s.p[(*at)++] - '0');
    if (*at == start)
        return false;
    if (end == ' ')
        return *at == s.n || s.p[*at] == ' ' || s.p[*at] == '\t';
    return *at < s.n && s.p[(*at)++] == end;
}

/* Reads "5.7.1 " at the start of a line, if its class is that of `code`; returns its length in octets, else 0. Some
 * servers write "#5.7.1", or a second blank in front of it. */
static size_t take_enhanced(struct hky_str s, uint16_t code, unsigned v[3])
{
    size_t at = 0;

    while (at < s.n && s.p[at] == ' ')
        at++;
    at += at < s.n && s.p[at] == '#';
    if (!take_number(s, &at, '.', &v[0]) || !take_number(s, &at, '.', &v[1]) || !take_number(s, &at, ' ', &v[2]))
        return 0;
    /* Class 3 does not exist: a 354 has no enhanced code. */
    if (v[0] != code / 100u || v[0] == 3 || v[1] > 255)
        return 0;
    return at;
}

/* Removes the line's enhanced code if it is that of the reply; the first one found becomes that of the reply. */
static struct hky_str strip_enhanced(struct hky_reply *reply, struct hky_str line)
{
    unsigned v[3];
    size_t n = take_enhanced(line, reply->code, v);

    if (n == 0)
        return line;
    if (reply->enhanced[0] == 0) {
        reply->enhanced[0] = (uint8_t)v[0];
        reply->enhanced[1] = (uint8_t)v[1];
        reply->enhanced[2] = v[2] <= 255 ? (uint8_t)v[2] : 0;
        reply->enhanced_detail = (uint16_t)v[2];
    } else if (reply->enhanced[1] != v[1] || reply->enhanced_detail != v[2]) {
        return line;
    }
    return hky_str_of(line.p + n, line.n - n);
}

/* May the UTF-8 sequence at p (first octet above 127) be shown as it is? *len: its octets, 1 if it is not valid. */
static bool is_shown(const unsigned char *p, size_t n, size_t *len)
{
    *len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (*len > n || !hky_utf8_is_valid(hky_str_of((const char *)p, *len))) {
        *len = 1;
        return false;
    }
    if (p[0] == 0xc2 && p[1] < 0xa0) /* C1 */
        return false;
    if (p[0] == 0xe2 && p[1] == 0x80 && ((p[2] >= 0x8e && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae)))
        return false; /* line separators and the bidi controls U+200E..202E */
    if (p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9)
        return false;
    return !(p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf);
}

static void append(struct hky_reply *reply, const void *p, size_t n)
{
    memcpy(reply->text + reply->n, p, n);
    reply->n = (uint16_t)(reply->n + n);
    reply->text[reply->n] = '\0';
}

/* Adds the line's text, made printable, as far as there is room. */
static void add_text(struct hky_reply *reply, struct hky_str line)
{
    static const char replacement[] = "\xef\xbf\xbd";
    const unsigned char *p;
    size_t room = sizeof reply->text - 1;

    line = hky_str_trim(line);
    p = (const unsigned char *)line.p;
    if (line.n > 0 && reply->n > 0 && reply->n < room)
        append(reply, " ", 1);
    for (size_t i = 0; i < line.n;) {
        size_t len = 1, out_n;
        const void *out = p + i;

        if (p[i] >= 0x80) {
            bool is_good = is_shown(p + i, line.n - i, &len);
            out = is_good ? out : replacement;
            out_n = is_good ? len : sizeof replacement - 1;
        } else {
            out = p[i] == '\t' ? " " : p[i] < 0x20 || p[i] == 0x7f ? "?" : out;
            out_n = 1;
        }
        if (out_n > room - reply->n)
            return;
        append(reply, out, out_n);
        i += len;
    }
}

/* One line without its line end. */
static enum hky_reply_status on_line(struct hky_reply_reader *r, struct hky_str line, struct hky_error *e)
{
    uint16_t code;

    if (line.n > HKY_REPLY_LINE_MAX) {
        hky_error_set(e, HKY_E_LIMIT, "a line of the reply is longer than %d octets", HKY_REPLY_LINE_MAX);
        return HKY_REPLY_BAD;
    }
    if (line.n < 3 || line.p[0] < '2' || line.p[0] > '5' || !is_digit(line.p[1]) || !is_digit(line.p[2]) ||
        (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-')) {
        hky_error_set(e, HKY_E_SYNTAX, "the server sent something that is no SMTP reply");
        return HKY_REPLY_BAD;
    }
    if (memchr(line.p, '\0', line.n) != NULL) {
        hky_error_set(e, HKY_E_SYNTAX, "the reply has a NUL octet");
        return HKY_REPLY_BAD;
    }
    code = (uint16_t)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0'));
    if (r->code != 0 && r->code != code) {
        hky_error_set(e, HKY_E_SYNTAX, "the lines of the reply have different codes, %u and %u", r->code, code);
        return HKY_REPLY_BAD;
    }
    if (++r->n_lines > HKY_REPLY_LINES_MAX) {
        hky_error_set(e, HKY_E_LIMIT, "the reply has more than %d lines", HKY_REPLY_LINES_MAX);
        return HKY_REPLY_BAD;
    }
    r->code = r->reply.code = code;
    struct hky_str text = line.n > 4 ? hky_str_of(line.p + 4, line.n - 4) : hky_str_of("", 0);
    if (r->n_lines > 1)
        hky_buf_add_c(&r->lines, '\n');
    hky_buf_add_str(&r->lines, text);
    add_text(&r->reply, strip_enhanced(&r->reply, text));
    return line.n > 3 && line.p[3] == '-' ? HKY_REPLY_MORE : HKY_REPLY_WHOLE;
}

/* The next line of `s`, joined with its part that came earlier; false if its end has not come yet. */
static bool next_line(struct hky_reply_reader *r, struct hky_str s, size_t *used, struct hky_str *line)
{
    const char *lf = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL;
    size_t n = lf != NULL ? (size_t)(lf - s.p) : s.n;

    *used = lf != NULL ? n + 1 : n;
    if (lf == NULL || r->part.n > 0 || r->part.is_over) {
        hky_buf_add(&r->part, s.p, n);
        if (lf == NULL)
            return false;
        *line = hky_buf_str(&r->part);
    } else {
        *line = hky_str_of(s.p, n);
    }
    if (line->n > 0 && line->p[line->n - 1] == '\r')
        line->n--;
    return true;
}

enum hky_reply_status hky_reply_read(struct hky_reply_reader *r, const char *p, size_t n, size_t *used,
                                     struct hky_error *e)
{
    *used = 0;
    if (r->code == 0 && r->part.n == 0)
        begin(r);
    while (*used < n) {
        struct hky_str line = {"", 0};
        size_t taken;
        bool is_line = next_line(r, hky_str_of(p + *used, n - *used), &taken, &line);

        *used += taken;
        if (taken > OCTETS_MAX - r->octets) {
            hky_error_set(e, HKY_E_LIMIT, "the reply is longer than %u octets", OCTETS_MAX);
            return HKY_REPLY_BAD;
        }
        r->octets += (uint32_t)taken;
        if (r->part.is_over) {
            hky_error_set(e, HKY_E_LIMIT, "a line of the reply is longer than %d octets", HKY_REPLY_LINE_MAX);
            return HKY_REPLY_BAD;
        }
        if (!is_line)
            break;
        enum hky_reply_status status = on_line(r, line, e);
        hky_buf_clear(&r->part);
        if (status == HKY_REPLY_WHOLE)
            r->code = 0;
        if (status != HKY_REPLY_MORE)
            return status;
    }
    return HKY_REPLY_MORE;
}
