#include "mail/charset.h"
#include "mail/header.h"
#include "mail/raw.h"

#define CHARSET_MAX 40
#define LINE_SOFT   76

/* The parts of "=?charset*language?B?text?=". */
struct word {
    struct hky_str charset, text;
    bool is_base64;
    size_t octets;
};

static bool is_charset_octet(char c)
{
    c = hky_lower(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == ':' || c == '+';
}

/* Blanks are accepted in Q text, because some programs do not encode them. Each look ahead ends at the next '?', so
 * that a value full of "=?" takes linear time. */
static bool parse_word(struct hky_str s, struct word *w)
{
    size_t at = 2, n;

    if (s.n < 8 || s.p[0] != '=' || s.p[1] != '?')
        return false;
    while (at < s.n && at - 2 < CHARSET_MAX && is_charset_octet(s.p[at]))
        at++;
    w->charset = hky_str_of(s.p + 2, at - 2);
    if (at < s.n && s.p[at] == '*') /* language, RFC 2231 5 */
        for (n = 0, at++; at < s.n && n < CHARSET_MAX && is_charset_octet(s.p[at]); n++)
            at++;
    if (w->charset.n == 0 || s.n - at < 5 || s.p[at] != '?' || s.p[at + 2] != '?')
        return false;
    w->is_base64 = hky_lower(s.p[at + 1]) == 'b';
    if (!w->is_base64 && hky_lower(s.p[at + 1]) != 'q')
        return false;
    at += 3;
    const char *end = memchr(s.p + at, '?', s.n - at);
    if (end == NULL || end + 1 == s.p + s.n || end[1] != '=')
        return false;
    w->text = hky_str_of(s.p + at, (size_t)(end - s.p) - at);
    w->octets = (size_t)(end - s.p) + 2;
    for (size_t i = 0; i < w->text.n; i++) {
        unsigned char c = (unsigned char)w->text.p[i];
        if (c < 0x20 || c >= 0x7f || (c == ' ' && w->is_base64))
            return false;
    }
    return true;
}

size_t hky_word_octets(struct hky_str s)
{
    struct word w;

    if (!parse_word(s, &w))
        return 0;
    for (size_t i = 0; i < w.text.n; i++)
        if (strchr(" <>@\"()\\", w.text.p[i]) != NULL)
            return 0;
    return w.octets;
}

static int hex_value(char c)
{
    c = hky_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode_q(struct hky_str s, struct hky_buf *out)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i] == '_' ? ' ' : s.p[i];

        if (c == '=') {
            if (s.n - i < 3 || hex_value(s.p[i + 1]) < 0 || hex_value(s.p[i + 2]) < 0)
                return false;
            c = (char)(hex_value(s.p[i + 1]) << 4 | hex_value(s.p[i + 2]));
            i += 2;
        }
        hky_buf_add_c(out, c);
    }
    return true;
}

/* Words of one charset that are side by side: their octets are converted together, because many programs split
 * characters between words. */
struct run {
    struct hky_str charset, source; /* source: all of them as written */
    struct hky_buf octets;
    bool is_on;
};

/* Control octets cannot be in a decoded value: a word must not smuggle in a line end. */
static void add_clean(struct hky_str s, struct hky_buf *out)
{
    size_t start = out->n;

    hky_utf8_repair(s, out);
    for (size_t i = start; i < out->n; i++) {
        unsigned char c = (unsigned char)out->p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            out->p[i] = ' ';
    }
}

static bool has_jis_escape(struct hky_str s)
{
    const char *first = s.n > 0 ? memchr(s.p, 0x1b, s.n) : NULL;

    for (size_t i = first != NULL ? (size_t)(first - s.p) : s.n; i + 2 < s.n; i++)
        if (s.p[i] == 0x1b && (s.p[i + 1] == '$' || (s.p[i + 1] == '(' && strchr("BJI", s.p[i + 2]) != NULL)))
            return true;
    return false;
}

/* True: all of `s` has a meaning in the charset. */
static bool decodes(const char *charset, struct hky_str s, struct hky_buf *out)
{
    hky_buf_clear(out);
    return hky_charset_decode(hky_str_z(charset), s, out) && out->n > 0 &&
           memmem(out->p, out->n, "\xef\xbf\xbd", 3) == NULL;
}

/* Half-width katakana (U+FF61 to U+FF9F) and ASCII only: EUC-JP read as Shift_JIS looks like this, real names do not.
 */
static bool is_half_width(struct hky_str utf8)
{
    for (size_t i = 0; i < utf8.n; i++) {
        unsigned char c = (unsigned char)utf8.p[i];
        if (c < 0x80)
            continue;
        if (c != 0xef || i + 2 >= utf8.n ||
            ((unsigned char)utf8.p[i + 1] != 0xbd && (unsigned char)utf8.p[i + 1] != 0xbe))
            return false;
        i += 2;
    }
    return true;
}

/* One line of text that was not encoded, though it should have been: some Japanese programs do so. What is no UTF-8 and
 * fits neither of their charsets is repaired. */
static void add_raw(struct hky_str s, struct hky_buf *out)
{
    struct hky_buf sjis, other;
    bool is_sjis;

    if (!has_jis_escape(s) && hky_utf8_is_valid(s)) {
        add_clean(s, out);
        return;
    }
    hky_buf_init(&sjis, SIZE_MAX / 4);
    hky_buf_init(&other, SIZE_MAX / 4);
    if (has_jis_escape(s)) {
        add_clean(decodes("iso-2022-jp", s, &other) ? hky_buf_str(&other) : s, out);
    } else {
        is_sjis = decodes("shift_jis", s, &sjis);
        if (is_sjis && !is_half_width(hky_buf_str(&sjis)))
            add_clean(hky_buf_str(&sjis), out);
        else if (decodes("euc-jp", s, &other))
            add_clean(hky_buf_str(&other), out);
        else
            add_clean(is_sjis ? hky_buf_str(&sjis) : s, out);
    }
    hky_buf_fini(&other);
    hky_buf_fini(&sjis);
}

/* Text between words, unfolded. */
static void add_plain(struct hky_str s, struct hky_buf *out)
{
    size_t start = 0;

    for (size_t i = 0; i <= s.n; i++)
        if (i == s.n || s.p[i] == '\r' || s.p[i] == '\n') {
            add_raw(hky_str_of(s.p + start, i - start), out);
            start = i + 1;
        }
}

static void end_run(struct run *run, struct hky_buf *out)
{
    struct hky_buf utf8;

    if (!run->is_on)
        return;
    hky_buf_init(&utf8, SIZE_MAX / 4);
    if (hky_charset_decode(run->charset, hky_buf_str(&run->octets), &utf8))
        add_clean(hky_buf_str(&utf8), out);
    else
        add_plain(run->source, out);
    hky_buf_fini(&utf8);
    hky_buf_clear(&run->octets);
    run->is_on = false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* A word at `s`, which follows the run's source with nothing but blanks between. False: it cannot be decoded. */
static bool add_word(struct run *run, const char *at, const struct word *w, struct hky_buf *out)
{
    size_t before;

    if (run->is_on && !hky_str_ieq(run->charset, w->charset))
        end_run(run, out);
    before = run->octets.n;
    if (!(w->is_base64 ? hky_base64_decode_loose(w->text, &run->octets) : decode_q(w->text, &run->octets))) {
        run->octets.n = before;
        return false;
    }
    if (!run->is_on) {
        run->charset = w->charset;
        run->source = hky_str_of(at, 0);
        run->is_on = true;
    }
    run->source.n = (size_t)(at - run->source.p) + w->octets;
    return true;
}

void hky_field_decode(struct hky_str value, struct hky_buf *out)
{
    struct run run = {0};
    size_t plain, i = 0;

    value = hky_str_trim(value);
    hky_buf_init(&run.octets, value.n + 1);
    plain = 0; /* value.p[plain..i) is text not yet added */
    while (i < value.n && !out->is_over) {
        struct word w;
        size_t k = plain;

        if (value.p[i] != '=' || !parse_word(hky_str_of(value.p + i, value.n - i), &w)) {
            i++;
            continue;
        }
        while (k < i && is_blank(value.p[k]))
            k++;
        if (k < i || !run.is_on) { /* there is text in between, or no word before it */
            end_run(&run, out);
            add_plain(hky_str_of(value.p + plain, i - plain), out);
        }
        if (!add_word(&run, value.p + i, &w, out)) {
            end_run(&run, out);
            add_plain(hky_str_of(value.p + i, w.octets), out);
        }
        i += w.octets;
        plain = i;
    }
    end_run(&run, out);
    add_plain(hky_str_of(value.p + plain, value.n - plain), out);
    hky_buf_fini(&run.octets);
}

/* The content of a quoted string: backslashes are removed, except one that is half of a raw character. */
static void add_unquoted(struct hky_str s, bool is_sjis, struct hky_buf *out)
{
    struct hky_buf text;

    hky_buf_init(&text, s.n + 1);
    for (size_t i = 0; i < s.n;) {
        size_t n;
        if (s.p[i] == '\\' && i + 1 < s.n)
            i++;
        n = hky_raw_octets(hky_str_of(s.p + i, s.n - i), is_sjis);
        hky_buf_add(&text, s.p + i, n);
        i += n;
    }
    hky_field_decode(hky_buf_str(&text), out);
    hky_buf_fini(&text);
}

void hky_phrase_decode(struct hky_str raw, struct hky_buf *out)
{
    bool is_sjis = !hky_utf8_is_valid(raw), is_spaced = false;
    size_t begin = out->n, plain = 0;

    raw = hky_str_trim(raw);
    for (size_t i = 0; i <= raw.n;) {
        struct hky_str rest = hky_str_of(raw.p + i, raw.n - i);
        size_t quoted = i < raw.n && raw.p[i] == '"' ? hky_raw_quoted(rest, is_sjis) : 0;
        struct hky_str before = hky_str_of(raw.p + plain, i - plain);
        if (i < raw.n && quoted == 0) {
            i += hky_raw_octets(rest, is_sjis);
            continue;
        }
        is_spaced = is_spaced || (before.n > 0 && is_blank(before.p[0]));
        if (hky_str_trim(before).n > 0) {
            if (is_spaced && out->n > begin)
                hky_buf_add_c(out, ' ');
            hky_field_decode(before, out);
            is_spaced = is_blank(before.p[before.n - 1]);
        }
        if (quoted > 0) {
            if (is_spaced && out->n > begin)
                hky_buf_add_c(out, ' ');
            add_unquoted(hky_str_of(rest.p + 1, quoted - 2), is_sjis, out);
            is_spaced = false;
        }
        i += quoted > 0 ? quoted : 1;
        plain = i;
    }
}

static bool is_plain(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || (unsigned char)s.p[i] >= 0x7f)
            return false;
    return s.n == 0 || memmem(s.p, s.n, "=?", 2) == NULL;
}

/* 45 octets at a time, cut between characters: a word of at most 72 octets. */
static void add_words(struct hky_str utf8, size_t column, struct hky_buf *out)
{
    struct hky_buf clean;
    bool is_first = true;

    hky_buf_init(&clean, SIZE_MAX / 4);
    add_clean(utf8, &clean);
    for (size_t at = 0; at < clean.n;) {
        size_t n = clean.n - at < 45 ? clean.n - at : 45;

        while (at + n < clean.n && n > 1 && ((unsigned char)clean.p[at + n] & 0xc0) == 0x80)
            n--;
        if (!is_first || column + 12 + (n + 2) / 3 * 4 > LINE_SOFT)
            hky_buf_add_z(out, "\r\n ");
        hky_buf_add_z(out, "=?UTF-8?B?");
        hky_buf_add_base64(out, hky_str_of(clean.p + at, n));
        hky_buf_add_z(out, "?=");
        is_first = false;
        at += n;
    }
    hky_buf_fini(&clean);
}

static bool is_phrase_octet(char c)
{
    char l = hky_lower(c);

    return (l >= 'a' && l <= 'z') || (l >= '0' && l <= '9') || (c != '\0' && strchr(" !#$%&'*+-/=?^_`{|}~", c) != NULL);
}

void hky_phrase_encode(struct hky_str utf8, struct hky_buf *out)
{
    bool is_atoms = true;

    utf8 = hky_str_trim(utf8);
    if (!is_plain(utf8) || utf8.n > LINE_SOFT) {
        add_words(utf8, 0, out);
        return;
    }
    for (size_t i = 0; i < utf8.n; i++)
        is_atoms = is_atoms && is_phrase_octet(utf8.p[i]);
    if (is_atoms) {
        hky_buf_add_str(out, utf8);
        return;
    }
    hky_buf_add_c(out, '"');
    for (size_t i = 0; i < utf8.n; i++) {
        if (utf8.p[i] == '"' || utf8.p[i] == '\\')
            hky_buf_add_c(out, '\\');
        hky_buf_add_c(out, utf8.p[i]);
    }
    hky_buf_add_c(out, '"');
}

/* Can it be folded so that no line becomes long: no long words, no long runs of blanks? */
static bool is_foldable(struct hky_str s)
{
    size_t word = 0, blanks = 0;

    for (size_t i = 0; i < s.n; i++) {
        word = s.p[i] == ' ' ? 0 : word + 1;
        blanks = s.p[i] == ' ' ? blanks + 1 : 0;
        if (word > 500 || blanks > 100)
            return false;
    }
    return true;
}

void hky_text_encode(struct hky_str utf8, size_t column, struct hky_buf *out)
{
    size_t start = 0;

    utf8 = hky_str_trim(utf8);
    if (!is_plain(utf8) || !is_foldable(utf8)) {
        add_words(utf8, column, out);
        return;
    }
    for (size_t i = 0; i <= utf8.n; i++) {
        if (i < utf8.n && utf8.p[i] != ' ')
            continue;
        /* A fold is put before a blank that text follows: a line of blanks alone would be obsolete syntax. */
        if (start > 0 && i > start + 1 && column + (i - start) > LINE_SOFT) {
            hky_buf_add_z(out, "\r\n");
            column = 0;
        }
        hky_buf_add(out, utf8.p + start, i - start);
        column += i - start;
        start = i;
    }
}
