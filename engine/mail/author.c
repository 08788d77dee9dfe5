/* Is there one author in a From field, whichever program reads it? */
#include "mail/header.h"
#include "mail/raw.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_blanks(struct hky_str s, size_t i)
{
    while (i < s.n && is_blank(s.p[i]))
        i++;
    return i;
}

static bool is_label_octet(char c)
{
    char l = hky_lower(c);

    return (l >= 'a' && l <= 'z') || (l >= '0' && l <= '9') || l == '-' || l == '_' || (unsigned char)c >= 0x80;
}

/* Does the label have a dot of another script, as IDNA has them: U+3002, U+FF0E, U+FF61? */
static bool has_wide_dot(struct hky_str s)
{
    return memmem(s.p, s.n, "\xe3\x80\x82", 3) != NULL || memmem(s.p, s.n, "\xef\xbc\x8e", 3) != NULL ||
           memmem(s.p, s.n, "\xef\xbd\xa1", 3) != NULL;
}

/* Is what follows an '@' a domain with a dot, or an address literal? Comments around the dot are not followed: they
 * count as a domain. */
static bool is_domain_ahead(struct hky_str s)
{
    size_t start = skip_blanks(s, 0), i = start;

    if (i < s.n && (s.p[i] == '[' || s.p[i] == '('))
        return true;
    while (i < s.n && is_label_octet(s.p[i]))
        i++;
    struct hky_str label = hky_str_of(s.p + start, i - start);
    if (label.n == 0 || !hky_utf8_is_valid(label))
        return false;
    i = skip_blanks(s, i);
    if (has_wide_dot(label) || (i < s.n && s.p[i] == '('))
        return true;
    if (i == s.n || s.p[i] != '.')
        return false;
    i = skip_blanks(s, i + 1);
    return i < s.n && (s.p[i] == '(' || is_label_octet(s.p[i]));
}

/* Octets of the escape sequence of two-octet JIS (X 0208 or 0212) at the start of `s`, 0: there is none. */
static size_t jis_escape_octets(struct hky_str s)
{
    if (s.n >= 3 && s.p[0] == '\x1b' && s.p[1] == '$' && (s.p[2] == '@' || s.p[2] == 'B'))
        return 3;
    return s.n >= 4 && memcmp(s.p, "\x1b$(D", 4) == 0 ? 4 : 0;
}

/* Octets of the run of two-octet JIS at the start of `s`, without the escape sequence that ends it; 0: there is none,
 * or it is not whole: made of pairs, and ended by another escape sequence on the same line. */
static size_t jis_octets(struct hky_str s)
{
    size_t begun = jis_escape_octets(s), end = begun;

    while (begun > 0 && end < s.n && s.p[end] > 0x20 && s.p[end] < 0x7f)
        end++;
    return begun > 0 && (end - begun) % 2 == 0 && end < s.n && s.p[end] == '\x1b' ? end : 0;
}

/* Could a domain like the one at the start of `s` exist? Its last label has letters only, or is an IDN. `is_short`: it
 * is of two labels of at most two octets each. */
static bool is_domain_possible(struct hky_str s, bool *is_short)
{
    size_t i = 0, label = 0, n_dots = 0;

    while (i < s.n && (is_label_octet(s.p[i]) || (s.p[i] == '.' && i + 1 < s.n && is_label_octet(s.p[i + 1])))) {
        if (s.p[i] == '.') {
            label = i + 1;
            n_dots++;
        }
        i++;
    }
    *is_short = n_dots == 1 && label <= 3 && i - label == 2 && (i == s.n || s.p[i] != '.');
    if (i == 0 || (i < s.n && s.p[i] == '(' && memchr(s.p + i, ')', s.n - i) != NULL))
        return true; /* an address literal, or a comment, behind which the domain may go on */
    if (hky_str_istarts(hky_str_of(s.p + label, i - label), HKY_STR("xn--")))
        return true;
    for (size_t k = label; k < i; k++)
        if (hky_lower(s.p[k]) < 'a' || hky_lower(s.p[k]) > 'z')
            return false;
    return i - label >= 2;
}

/*
 * Does a program that knows no JIS find an address in this whole run? The octets of Japanese names look like parts of
 * one by chance: the name of a town hall ends in "@nD.Lr>l". Where no delimiter precedes the '@' in the run, what such
 * a program may take for the local part has the escape character in it, and is nobody's. Some programs begin a new
 * address also behind a stray bracket or quote; there, a domain of two labels of two letters counts as chance.
 */
static bool has_address_in_jis(struct hky_str run)
{
    size_t begun = jis_escape_octets(run);
    bool is_behind_any = begun == 4, is_behind_entry = begun == 4, is_short; /* the escape sequence has a '(' */

    if (begun == 3 && run.p[2] == '@' && is_domain_ahead(hky_str_of(run.p + 3, run.n - 3)))
        return true;
    for (size_t i = begun; i < run.n; i++) {
        struct hky_str rest = hky_str_of(run.p + i + 1, run.n - i - 1);
        if (run.p[i] == '@' && is_behind_any && is_domain_ahead(rest) && is_domain_possible(rest, &is_short) &&
            (is_behind_entry || !is_short))
            return true;
        is_behind_entry |= strchr("<,;:", run.p[i]) != NULL;
        is_behind_any |= strchr("<,;:>()[]\"\\", run.p[i]) != NULL;
    }
    return false;
}

/* One walk over a From field. */
struct walk {
    struct hky_str value;
    size_t spec, spec_end; /* the author's address */
    size_t name, name_end; /* a name that repeats the author's address; both 0: none */
    bool is_raw;           /* some programs see other quotes, comments or entries: an address in a name counts, too */
};

/* The offset behind the piece at `at`; 0: another program finds another end of it, or another address in it. */
static size_t step(const struct walk *w, size_t at)
{
    struct hky_str rest = hky_str_of(w->value.p + at, w->value.n - at);
    size_t n;

    if (at == w->spec)
        return w->spec_end;
    if (at == w->name && w->name_end > 0)
        return w->name_end;
    if (rest.p[0] == '@')
        return is_domain_ahead(hky_str_of(rest.p + 1, rest.n - 1)) ? 0 : at + 1;
    n = w->is_raw ? jis_octets(rest) : 0;
    if (n > 0)
        return has_address_in_jis(hky_str_of(rest.p, n)) ? 0 : at + n;
    if (w->is_raw)
        return at + 1;
    switch (rest.p[0]) {
    case '"':
        n = hky_raw_quoted_end(rest, false, false);
        return n > 0 ? at + n : 0;
    case '(':
        return hky_raw_comment_end(w->value, at);
    case '>':
        return at == w->spec_end ? at + 1 : 0;
    case ')':
        return 0;
    case '\\': /* some programs take the next octet for an ordinary one here, others do not */
        return rest.n > 1 && strchr("\"()<>,;:@\\", rest.p[1]) != NULL ? 0 : at + 1;
    default:
        return at + 1;
    }
}

static bool has_no_other_address(const struct walk *w)
{
    for (size_t at = 0, end; at < w->value.n; at = end) {
        end = step(w, at);
        if (end == 0 || (at < w->spec && end > w->spec))
            return false;
    }
    return true;
}

/* Has the address as written nothing that could pass for another one: a source route, brackets or a second @ in quotes
 * or comments, an encoded word? */
static bool is_plain_spec(struct hky_str s)
{
    size_t n_at = 0;

    for (size_t i = 0; i < s.n; i++) {
        n_at += s.p[i] == '@';
        if (s.p[i] == '\0' || strchr("<>,;", s.p[i]) != NULL)
            return false;
    }
    return n_at == 1 && memmem(s.p, s.n, "=?", 2) == NULL;
}

/* Do programs that know nothing of Shift_JIS find the same mailbox, and no second one? For them, octets that are not
 * ASCII are replaced by one that no address has. */
static bool is_same_by_octet(struct hky_str value, const struct hky_address *author)
{
    struct hky_mailbox m;
    struct hky_buf octets;
    bool is_bad = false;

    hky_buf_init(&octets, value.n + 1);
    hky_buf_add_str(&octets, value);
    for (size_t i = 0; i < octets.n; i++)
        if (octets.p[i] == '\x1b' || (unsigned char)octets.p[i] >= 0x80)
            octets.p[i] = '\x01';
    bool is_same = hky_mailboxes_parse(hky_buf_str(&octets), &m, 1, &is_bad) == 1 &&
                   hky_address_eq(hky_address_str(&m.address), hky_address_str(author));
    hky_buf_fini(&octets);
    return is_same;
}

/* A comma in an encoded word ends the entry for programs that look for words later. */
static bool has_word_with_delimiter(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        size_t n = s.p[i] == '=' ? hky_word_octets(hky_str_of(s.p + i, s.n - i)) : 0;
        for (size_t k = 0; k < n; k++)
            if (strchr(",;:", s.p[i + k]) != NULL)
                return true;
        i += n > 0 ? n - 1 : 0;
    }
    return false;
}

/* Is every run of two-octet JIS a whole one? Only such a run is a name. */
static bool has_whole_jis(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        struct hky_str rest = hky_str_of(s.p + i, s.n - i);
        if (s.p[i] != '\x1b')
            continue;
        if (rest.n >= 3 && rest.p[1] == '(' && (rest.p[2] == 'B' || rest.p[2] == 'J' || rest.p[2] == 'I'))
            continue;
        size_t n = jis_octets(rest);
        if (n == 0)
            return false;
        i += n - 1;
    }
    return true;
}

/* Finds the first mailbox of a field that has one, and prepares the walk around it. */
static bool begin_walk(struct walk *w, struct hky_address *out, bool *is_bad)
{
    struct hky_mailbox m;
    struct hky_address named;

    *out = (struct hky_address){0};
    if (hky_mailboxes_parse(w->value, &m, 1, is_bad) != 1 || !is_plain_spec(m.spec))
        return false;
    *out = m.address;
    w->spec = (size_t)(m.spec.p - w->value.p);
    w->spec_end = w->spec + m.spec.n;
    if (m.name.n > 0 && hky_mailbox_parse(m.name, &named, NULL) == HKY_OK &&
        hky_address_eq(hky_address_str(&named), hky_address_str(&m.address))) {
        w->name = (size_t)(m.name.p - w->value.p);
        w->name_end = w->name + m.name.n;
    }
    return true;
}

static bool is_met_by_all(const struct walk *w, bool is_utf8, const struct hky_address *author)
{
    return has_no_other_address(w) && has_whole_jis(w->value) && (is_utf8 || is_same_by_octet(w->value, author));
}

bool hky_author_is_clear(struct hky_str value, struct hky_address *out)
{
    bool is_bad = false, is_utf8 = hky_utf8_is_valid(value);
    struct walk w = {
        .value = value,
        .is_raw = !is_utf8 || memchr(value.p, '\x1b', value.n) != NULL || has_word_with_delimiter(value),
    };

    return begin_walk(&w, out, &is_bad) && !is_bad && is_met_by_all(&w, is_utf8, out);
}

bool hky_author_is_only(struct hky_str value, struct hky_address *out)
{
    bool is_bad = false;
    struct walk w = {.value = value, .is_raw = true};

    /* Beside a quote in the address, one elsewhere could make another local part of it. */
    return begin_walk(&w, out, &is_bad) && memchr(value.p + w.spec, '"', w.spec_end - w.spec) == NULL &&
           is_met_by_all(&w, hky_utf8_is_valid(value), out);
}
