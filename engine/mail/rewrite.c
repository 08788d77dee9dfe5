#include "mail/rewrite.h"

#include "mail/raw.h"

#define LINE_MAX_OCTETS 998
#define LINE_SOFT       78

/* How the rewrite treats a field; KIND_DROP_ON_FROM is removed when From changes. */
enum kind { KIND_OTHER, KIND_FROM, KIND_REPLY_TO, KIND_MESSAGE_ID, KIND_DATE, KIND_DROP, KIND_DROP_ON_FROM };
static const struct {
    struct hky_str name;
    enum kind kind;
    bool is_prefix;
} known[] = {
    {HKY_STR("From"), KIND_FROM, false},
    {HKY_STR("Reply-To"), KIND_REPLY_TO, false},
    {HKY_STR("Message-ID"), KIND_MESSAGE_ID, false},
    {HKY_STR("Date"), KIND_DATE, false},
    {HKY_STR("Return-Path"), KIND_DROP, false},
    {HKY_STR("Bcc"), KIND_DROP, false},
    {HKY_STR("Resent-Bcc"), KIND_DROP, false},
    {HKY_STR("X-Hikyaku-"), KIND_DROP, true},
    {HKY_STR("DKIM-Signature"), KIND_DROP_ON_FROM, false},
    {HKY_STR("DomainKey-Signature"), KIND_DROP_ON_FROM, false},
    {HKY_STR("ARC-"), KIND_DROP_ON_FROM, true},
    {HKY_STR("Authentication-Results"), KIND_DROP_ON_FROM, false},
    {HKY_STR("Received-SPF"), KIND_DROP_ON_FROM, false},
    {HKY_STR("Sender"), KIND_DROP_ON_FROM, false},
};

static enum kind kind_of(struct hky_str name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].is_prefix ? hky_str_istarts(name, known[i].name) : hky_str_ieq(name, known[i].name))
            return known[i].kind;
    return KIND_OTHER;
}

/* What the first walk over the section found. */
struct facts {
    struct hky_field from;
    struct hky_mailbox author; /* of the first From */
    bool has_author, has_reply_to, has_message_id, has_date;
    size_t n_from, n_authors;
};

static bool has_mailbox(struct hky_str value)
{
    struct hky_mailbox m;
    bool is_bad;

    return hky_mailboxes_parse(value, &m, 1, &is_bad) > 0;
}

/* Of "Yamada, Taro <a@x.test>" all before the bracket was meant for the name, not only its last piece. */
static void take_whole_name(struct facts *f)
{
    struct hky_str value = f->from.value, spec = f->author.spec;
    size_t at = (size_t)(spec.p - value.p);

    if (at == 0 || value.p[at - 1] != '<')
        return;
    struct hky_str name = hky_str_trim(hky_str_of(value.p, at - 1));
    if (name.n > 0)
        f->author.name = name;
}

static void gather(struct hky_str section, struct facts *f)
{
    struct hky_field field;
    bool is_bad = false;

    *f = (struct facts){.from.value = HKY_STR("")};
    for (size_t at = 0; hky_field_next(section, &at, &field);) {
        switch (kind_of(field.name)) {
        case KIND_FROM:
            if (f->n_from++ == 0)
                f->from = field;
            break;
        case KIND_REPLY_TO:
            f->has_reply_to = f->has_reply_to || has_mailbox(field.value);
            break;
        case KIND_MESSAGE_ID:
            f->has_message_id = true;
            break;
        case KIND_DATE:
            f->has_date = true;
            break;
        default:
            break;
        }
    }
    if (f->n_from > 0) {
        f->n_authors = hky_mailboxes_parse(f->from.value, &f->author, 1, &is_bad);
        f->has_author = f->n_authors > 0;
        if (f->n_authors == 1 && is_bad)
            take_whole_name(f);
    }
}

/* Writes a given value without octets that could end its line. */
static void add_safe(struct hky_buf *out, struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f)
            hky_buf_add_c(out, s.p[i]);
}

static void add_line(struct hky_buf *out, const char *name, const char *value)
{
    hky_buf_add_z(out, name);
    hky_buf_add_z(out, ": ");
    add_safe(out, hky_str_z(value));
    hky_buf_add_z(out, "\r\n");
}

/* May the raw name precede an angle bracket as it is: atoms, dots, quoted strings, encoded words, folds?
 * has_quote: the address after it has quotes. */
static bool is_phrase(struct hky_str s, bool has_quote)
{
    bool is_sjis = !hky_utf8_is_valid(s);

    for (size_t i = 0; i < s.n;) {
        char c = s.p[i];
        size_t n = c == '=' ? hky_word_octets(hky_str_of(s.p + i, s.n - i)) : 0;

        if (n > 0) {
            i += n;
        } else if (c == '"') {
            n = hky_raw_quoted(hky_str_of(s.p + i, s.n - i), is_sjis);
            /* A string that ends only if read octet by octet would take its closing quote from the address. */
            if (n == 0 || (has_quote && hky_raw_quoted_end(hky_str_of(s.p + i, s.n - i), is_sjis, true) == 0))
                return false;
            i += n;
        } else if (c == '\r') {
            if (s.n - i < 3 || s.p[i + 1] != '\n' || (s.p[i + 2] != ' ' && s.p[i + 2] != '\t'))
                return false;
            i += 2;
        } else if (c == '\0' || c == '\n' || strchr("()<>[]:;@\\,", c) != NULL) {
            return false;
        } else {
            n = hky_raw_octets(hky_str_of(s.p + i, s.n - i), is_sjis);
            /* Two-octet text without an end would take in what follows the name. */
            if (c == '\x1b' && n > 1 && i + n == s.n && s.p[i + 1] == '$')
                return false;
            i += n;
        }
    }
    return true;
}

/* Every line end inside must be a fold; a raw CR or NUL in a quoted string is refused. */
static bool has_only_folds(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\0' || s.p[i] == '\n')
            return false;
        if (s.p[i] != '\r')
            continue;
        if (s.n - i < 3 || s.p[i + 1] != '\n' || (s.p[i + 2] != ' ' && s.p[i + 2] != '\t'))
            return false;
        i++;
    }
    return true;
}

/* Do all programs find this address behind the name as it is, and no other one in the name? */
static bool is_clear_with(struct hky_str raw, struct hky_str address)
{
    struct hky_address author;
    struct hky_buf value;

    hky_buf_init(&value, SIZE_MAX / 4);
    hky_buf_add_str(&value, raw);
    hky_buf_add_z(&value, " <");
    hky_buf_add_str(&value, address);
    hky_buf_add_c(&value, '>');
    bool is_clear = hky_author_is_clear(hky_buf_str(&value), &author);
    hky_buf_fini(&value);
    return is_clear;
}

static void add_name(struct hky_str raw, struct hky_str address, struct hky_buf *out)
{
    bool has_quote = address.n > 0 && memchr(address.p, '"', address.n) != NULL;
    struct hky_buf utf8;

    if (is_phrase(raw, has_quote) && has_only_folds(raw) && is_clear_with(raw, address)) {
        hky_buf_add_str(out, raw);
        return;
    }
    hky_buf_init(&utf8, SIZE_MAX / 4);
    hky_phrase_decode(raw, &utf8);
    hky_phrase_encode(hky_buf_str(&utf8), out);
    hky_buf_fini(&utf8);
}

static size_t column_of(const struct hky_buf *out, size_t start)
{
    const char *lf = out->n > start ? memrchr(out->p + start, '\n', out->n - start) : NULL;

    return lf != NULL ? (size_t)(out->p + out->n - lf) - 1 : out->n - start;
}

/* "From: name <address>"; the name keeps its octets and folds. Folds are added around it where a line would grow long.
 */
static void add_from(struct hky_buf *out, const struct facts *f, const char *from)
{
    struct hky_str name = f->has_author ? f->author.name : hky_str_of("", 0);
    const char *fold = name.n > 0 ? memchr(name.p, '\r', name.n) : NULL;
    size_t first_n = fold != NULL ? (size_t)(fold - name.p) : name.n, start = out->n;

    struct hky_buf address;

    hky_buf_init(&address, 2 * HKY_ADDRESS_MAX + 2);
    hky_address_format(hky_str_z(from), false, &address);
    hky_buf_add_z(out, first_n > LINE_MAX_OCTETS - 6 ? "From:\r\n " : "From: ");
    if (name.n > 0) {
        add_name(name, hky_buf_str(&address), out);
        hky_buf_add_z(out, column_of(out, start) + strlen(from) + 5 > LINE_SOFT ? "\r\n " : " ");
        hky_buf_add_c(out, '<');
    }
    hky_buf_add_str(out, hky_buf_str(&address));
    hky_buf_fini(&address);
    hky_buf_add_z(out, name.n > 0 ? ">\r\n" : "\r\n");
}

static void add_address_line(struct hky_buf *out, const char *name, struct hky_str canonical)
{
    hky_buf_add_z(out, name);
    hky_buf_add_z(out, ": ");
    hky_address_format(canonical, false, out);
    hky_buf_add_z(out, "\r\n");
}

#define AUTHORS_MAX 50

/* Has From anybody else than its new address? */
static bool has_other_author(struct hky_str old, struct hky_str from)
{
    struct hky_mailbox authors[AUTHORS_MAX];
    bool is_bad, has_other = false;
    size_t n = hky_mailboxes_parse(old, authors, AUTHORS_MAX, &is_bad);

    for (size_t i = 0; i < n && i < AUTHORS_MAX; i++)
        has_other = has_other || !hky_address_eq(hky_address_str(&authors[i].address), from);
    return has_other;
}

/* From had other authors and now has one; Reply-To names them all, so that an answer reaches everybody. */
static void add_authors(struct hky_buf *out, struct hky_str from)
{
    struct hky_mailbox authors[AUTHORS_MAX];
    bool is_bad;
    size_t n = hky_mailboxes_parse(from, authors, AUTHORS_MAX, &is_bad);

    hky_buf_add_z(out, "Reply-To: ");
    for (size_t i = 0; i < n && i < AUTHORS_MAX; i++) {
        hky_buf_add_z(out, i > 0 ? ",\r\n " : "");
        hky_address_format(hky_address_str(&authors[i].address), false, out);
    }
    hky_buf_add_z(out, "\r\n");
}

static void add_set(struct hky_buf *out, const char *name, const char *value)
{
    hky_buf_add_z(out, name);
    hky_buf_add_z(out, ": ");
    hky_text_encode(hky_str_z(value), strlen(name) + 2, out);
    hky_buf_add_z(out, "\r\n");
}

/* One rewrite: what is asked, what was found, what is written already. */
struct work {
    const struct hky_rewrite *rw;
    struct facts facts;
    struct hky_buf *out;
    bool is_from_changed, is_from_done, is_message_id_done;
    uint64_t sets_done;
};

static int find_set(const struct hky_rewrite *rw, struct hky_str name)
{
    for (int i = 0; rw->set != NULL && rw->set[i].name != NULL; i++)
        if (hky_str_ieq(hky_str_z(rw->set[i].name), name))
            return i;
    return -1;
}

/* Does the field stay octet for octet? */
static bool is_kept(const struct work *w, const struct hky_field *field)
{
    const struct hky_rewrite *rw = w->rw;

    switch (kind_of(field->name)) {
    case KIND_DROP:
        return false;
    case KIND_DROP_ON_FROM:
    case KIND_FROM:
        return !w->is_from_changed;
    case KIND_REPLY_TO:
        if (rw->reply_to != NULL && rw->reply_to_forced)
            return false;
        /* A Reply-To without an address is removed, because ours would be the second one. */
        return w->facts.has_reply_to || !(w->is_from_changed || rw->reply_to != NULL);
    case KIND_MESSAGE_ID:
        return rw->message_id == NULL;
    case KIND_DATE:
        return true;
    case KIND_OTHER:
        return find_set(rw, field->name) < 0;
    }
    return true;
}

/* Writes the replacement of a field that does not stay: once, where the first such field was. */
static void replace(struct work *w, const struct hky_field *field)
{
    enum kind kind = kind_of(field->name);
    int set = kind == KIND_OTHER ? find_set(w->rw, field->name) : -1;

    if (set >= 0 && !(w->sets_done & UINT64_C(1) << set)) {
        add_set(w->out, w->rw->set[set].name, w->rw->set[set].value);
        w->sets_done |= UINT64_C(1) << set;
    } else if (kind == KIND_FROM && !w->is_from_done) {
        add_from(w->out, &w->facts, w->rw->from);
        w->is_from_done = true;
    } else if (kind == KIND_MESSAGE_ID && !w->is_message_id_done) {
        add_line(w->out, "Message-ID", w->rw->message_id);
        w->is_message_id_done = true;
    }
}

static void add_missing(struct work *w)
{
    const struct hky_rewrite *rw = w->rw;
    const struct facts *f = &w->facts;
    bool has_old = w->is_from_changed && !f->has_reply_to && has_other_author(f->from.value, hky_str_z(rw->from));

    if (w->is_from_changed && !w->is_from_done)
        add_from(w->out, f, rw->from);
    if (!rw->reply_to_forced && has_old && f->n_authors > 1)
        add_authors(w->out, f->from.value);
    else if (rw->reply_to != NULL && (rw->reply_to_forced || !f->has_reply_to))
        add_address_line(w->out, "Reply-To", hky_str_z(rw->reply_to));
    else if (has_old)
        add_address_line(w->out, "Reply-To", hky_address_str(&f->author.address));
    if (rw->message_id != NULL && !w->is_message_id_done)
        add_line(w->out, "Message-ID", rw->message_id);
    else if (rw->message_id == NULL && rw->add_message_id != NULL && !f->has_message_id)
        add_line(w->out, "Message-ID", rw->add_message_id);
    if (rw->date != NULL && !f->has_date)
        add_line(w->out, "Date", rw->date);
    for (int i = 0; rw->set != NULL && rw->set[i].name != NULL; i++)
        if (!(w->sets_done & UINT64_C(1) << i))
            add_set(w->out, rw->set[i].name, rw->set[i].value);
}

/* Names that a policy may set: a field name, and none of those that have their own rules here. */
static enum hky_err check_sets(const struct hky_rewrite *rw, struct hky_error *e)
{
    for (int i = 0; rw->set != NULL && rw->set[i].name != NULL; i++) {
        struct hky_str name = hky_str_z(rw->set[i].name);

        if (i == 64)
            return hky_error_set(e, HKY_E_LIMIT, "more than 64 header fields are set");
        if (name.n == 0 || name.n > 100 || kind_of(name) != KIND_OTHER || find_set(rw, name) != i)
            return hky_error_set(e, HKY_E_SYNTAX, "the header field '%.40s' cannot be set", rw->set[i].name);
        for (size_t k = 0; k < name.n; k++)
            if (name.p[k] <= 0x20 || name.p[k] >= 0x7f || name.p[k] == ':')
                return hky_error_set(e, HKY_E_SYNTAX, "the header field '%.40s' is no field name", rw->set[i].name);
    }
    return HKY_OK;
}

/* From names this author, and no program finds anybody else in it: nothing changes, and signatures stay valid. */
static bool is_same_author(const struct hky_rewrite *rw, const struct facts *f)
{
    struct hky_address author;

    return f->n_from == 1 &&
           (hky_author_is_clear(f->from.value, &author) || hky_author_is_only(f->from.value, &author)) &&
           hky_address_eq(hky_address_str(&author), hky_str_z(rw->from));
}

enum hky_err hky_rewrite_header(struct hky_str section, const struct hky_rewrite *rw, struct hky_buf *out,
                                struct hky_error *e)
{
    struct work w = {.rw = rw, .out = out};
    struct hky_field field;
    size_t at = 0, kept = 0; /* section.p[kept..at) is kept and not written yet */
    enum hky_err err = check_sets(rw, e);

    if (err != HKY_OK)
        return err;
    gather(section, &w.facts);
    w.is_from_changed = rw->from != NULL && !is_same_author(rw, &w.facts);
    for (size_t start = 0; hky_field_next(section, &at, &field); start = at) {
        if (is_kept(&w, &field))
            continue;
        hky_buf_add(out, section.p + kept, start - kept);
        replace(&w, &field);
        kept = at;
    }
    hky_buf_add(out, section.p + kept, at - kept);
    if (out->n > 0 && out->p[out->n - 1] != '\n')
        hky_buf_add_z(out, "\r\n");
    add_missing(&w);
    hky_buf_add_z(out, "\r\n");
    if (out->is_over)
        return hky_error_set(e, HKY_E_LIMIT, "the rewritten header is longer than %zu octets", out->max);
    return HKY_OK;
}
