#include "mail/header.h"
#include "mail/raw.h"

/* An address in a header may be longer than one in an envelope by its comments and folds, not by its octets. */
#define ADDR_SPEC_MAX 1024

/* What one entry of the list is made of, as offsets into the value. */
struct entry {
    size_t first, last;       /* first octet that is no blank; behind the last one; 0,0: nothing yet */
    size_t word, word_end;    /* the same for what is no comment and before the angle bracket */
    size_t angle, angle_end;  /* inside <...> */
    struct hky_str comment;   /* content of the last comment */
    bool has_text, has_angle; /* something in word..word_end; <...> was met */
    bool is_bad;
};

struct scan {
    struct hky_str v;
    size_t at;
    bool is_sjis;                    /* raw 8-bit that is not UTF-8: an octet behind a lead octet is no delimiter */
    bool has_no_quote, has_no_paren; /* an opening one without an end was met: more are ordinary octets */
    bool is_in_group;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The offset after the closing quote of the string that starts at `at`, or 0. */
static size_t quoted_end(struct hky_str v, size_t at, bool is_sjis)
{
    size_t n = hky_raw_quoted(hky_str_of(v.p + at, v.n - at), is_sjis);

    return n > 0 ? at + n : 0;
}

/* The offset after the piece at s->at: a quoted string, an encoded word, a run of raw JIS, or one character. */
static size_t piece_end(struct scan *s)
{
    struct hky_str v = s->v, rest = hky_str_of(v.p + s->at, v.n - s->at);
    size_t n;

    switch (rest.p[0]) {
    case '"':
        n = s->has_no_quote ? 0 : quoted_end(v, s->at, s->is_sjis);
        s->has_no_quote = n == 0;
        return n > 0 ? n : s->at + 1;
    case '=':
        n = hky_word_octets(rest);
        return s->at + (n > 0 ? n : 1);
    case '\\':
        return s->at + (rest.n > 1 ? 2 : 1);
    default:
        return s->at + hky_raw_octets(rest, s->is_sjis);
    }
}

static void note_text(struct entry *e, size_t start, size_t end)
{
    if (!e->has_text)
        e->word = start;
    e->word_end = end;
    e->has_text = true;
}

static void note_extent(struct entry *e, size_t start, size_t end)
{
    if (e->last == 0)
        e->first = start;
    e->last = end;
}

/* s->at is at '<'. */
static void scan_angle(struct scan *s, struct entry *e)
{
    size_t start = s->at++;

    e->is_bad |= e->has_angle;
    e->has_angle = true;
    e->angle = s->at;
    while (s->at < s->v.n && s->v.p[s->at] != '>') {
        /* A '<' that is never closed must not take in the rest of the list. */
        if (s->v.p[s->at] == '<') {
            e->is_bad = true;
            break;
        }
        size_t end = s->v.p[s->at] == '(' && !s->has_no_paren ? hky_raw_comment_end(s->v, s->at) : 0;
        s->has_no_paren |= s->v.p[s->at] == '(' && end == 0;
        s->at = end > 0 ? end : piece_end(s);
    }
    e->angle_end = s->at;
    if (s->at < s->v.n && s->v.p[s->at] == '>')
        s->at++;
    else
        e->is_bad = true;
    note_extent(e, start, s->at);
}

/* Reads one entry up to its ',' ';' or the ':' of a group's name, which is consumed. False at the end of the value with
 * nothing read. */
static bool next_entry(struct scan *s, struct entry *e)
{
    *e = (struct entry){.comment = {"", 0}};
    if (s->at >= s->v.n)
        return false;
    while (s->at < s->v.n) {
        char c = s->v.p[s->at];
        size_t start = s->at, end;

        if (is_blank(c)) {
            s->at++;
        } else if (c == ',') {
            s->at++;
            return true;
        } else if (c == ';') {
            s->at++;
            e->is_bad |= !s->is_in_group;
            s->is_in_group = false;
            return true;
        } else if (c == ':' && !s->is_in_group && !e->has_angle) {
            s->at++;
            s->is_in_group = true;
            *e = (struct entry){.comment = {"", 0}};
        } else if (c == '<') {
            scan_angle(s, e);
        } else if (c == '(' && !s->has_no_paren && (end = hky_raw_comment_end(s->v, s->at)) > 0) {
            e->comment = hky_str_of(s->v.p + start + 1, end - start - 2);
            s->at = end;
            note_extent(e, start, end);
        } else {
            s->has_no_paren |= c == '(';
            s->at = piece_end(s);
            if (e->has_angle)
                e->is_bad = true;
            else
                note_text(e, start, s->at);
            note_extent(e, start, s->at);
        }
    }
    return true;
}

/* addr-spec without its comments, blanks and folds, which may be around '.' and '@' only; 0 when malformed. */
static size_t compact(struct hky_str spec, char out[ADDR_SPEC_MAX - 1])
{
    size_t n = 0;
    bool is_apart = false;

    for (size_t i = 0; i < spec.n;) {
        char c = spec.p[i];
        size_t end = i + 1;

        if (is_blank(c) || c == '(') {
            if (c == '(' && (end = hky_raw_comment_end(spec, i)) == 0)
                return 0;
            is_apart = true;
            i = end;
            continue;
        }
        if (c == '"' && (end = quoted_end(spec, i, false)) == 0)
            return 0;
        if (is_apart && n > 0 && strchr(".@,:", out[n - 1]) == NULL && strchr(".@,:", c) == NULL)
            return 0;
        is_apart = false;
        for (; i < end; i++) {
            /* A quoted local part may be folded; the line end does not belong to it. */
            if (spec.p[i] == '\r' || spec.p[i] == '\n')
                continue;
            if (n == ADDR_SPEC_MAX - 2)
                return 0;
            out[n++] = spec.p[i];
        }
    }
    return n;
}

/* "<@a,@b:u@y>" and "<u@y>" inside, or "u@y" alone. */
static bool parse_spec(struct hky_str spec, struct hky_address *out)
{
    char text[ADDR_SPEC_MAX];
    size_t used, n = compact(spec, text + 1);

    if (n == 0)
        return false;
    if (text[1] != '@')
        return hky_mailbox_parse(hky_str_of(text + 1, n), out, NULL) == HKY_OK;
    text[0] = '<';
    text[n + 1] = '>';
    return hky_path_parse(hky_str_of(text, n + 2), HKY_PATH_UTF8, out, &used, NULL) == HKY_OK && used == n + 2;
}

static bool to_mailbox(const struct scan *s, const struct entry *e, struct hky_mailbox *m)
{
    struct hky_str text = hky_str_of(s->v.p + e->word, e->word_end - e->word);

    m->name = hky_str_of("", 0);
    m->span = hky_str_of(s->v.p + e->first, e->last - e->first);
    if (e->has_angle) {
        m->name = e->has_text ? text : e->comment;
        m->spec = hky_str_of(s->v.p + e->angle, e->angle_end - e->angle);
    } else {
        m->name = e->comment;
        m->spec = text;
    }
    return parse_spec(m->spec, &m->address);
}

size_t hky_mailboxes_parse(struct hky_str value, struct hky_mailbox *out, size_t max, bool *is_bad)
{
    struct scan s = {.v = value, .is_sjis = !hky_utf8_is_valid(value)};
    struct hky_mailbox beyond; /* mailboxes beyond max are parsed, too, so that the number is the same for every max */
    struct entry e;
    size_t n = 0;

    *is_bad = false;
    while (next_entry(&s, &e)) {
        *is_bad |= e.is_bad;
        if (!e.has_text && !e.has_angle)
            continue;
        if (to_mailbox(&s, &e, n < max ? &out[n] : &beyond))
            n++;
        else
            *is_bad = true;
    }
    return n;
}

static bool is_bare_name(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = hky_lower(s.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '+' || c == '-'))
            return false;
    }
    return s.n > 0;
}

/* The offset behind the entry's bare name; 0: it is none. */
static size_t bare_end(const struct scan *s, const struct entry *e)
{
    struct hky_str text = e->has_angle ? hky_str_of(s->v.p + e->angle, e->angle_end - e->angle)
                                       : hky_str_of(s->v.p + e->word, e->word_end - e->word);

    text = hky_str_trim(text);
    return is_bare_name(text) ? (size_t)(text.p - s->v.p) + text.n : 0;
}

/* Is each entry a mailbox or a bare name? */
static bool is_complete_but_for_domains(struct scan s)
{
    struct hky_mailbox m;
    struct entry e;

    while (next_entry(&s, &e))
        if (e.is_bad || ((e.has_text || e.has_angle) && bare_end(&s, &e) == 0 && !to_mailbox(&s, &e, &m)))
            return false;
    return true;
}

void hky_mailboxes_complete(struct hky_str value, const char *domain, struct hky_buf *out)
{
    struct scan s = {.v = value, .is_sjis = !hky_utf8_is_valid(value)};
    struct entry e;
    size_t kept = 0;

    for (bool is_good = is_complete_but_for_domains(s); is_good && next_entry(&s, &e);) {
        size_t end = e.has_text || e.has_angle ? bare_end(&s, &e) : 0;
        if (end == 0)
            continue;
        hky_buf_add(out, value.p + kept, end - kept);
        hky_buf_add_c(out, '@');
        hky_buf_add_z(out, domain);
        kept = end;
    }
    hky_buf_add(out, value.p + kept, value.n - kept);
}
