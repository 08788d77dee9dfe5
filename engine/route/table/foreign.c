#include "route/table/foreign.h"

#include <stdio.h>

static const struct {
    uint32_t from, to;
} invisible[] = {
    {0xad, 0xad},     {0x34f, 0x34f},   {0x61c, 0x61c},   {0x115f, 0x1160}, {0x17b4, 0x17b5},
    {0x180b, 0x180f}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0x3164, 0x3164},
    {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff9, 0xfffb}, {0xe0000, 0xe01ef},
};

static const struct {
    uint32_t code;
    char ascii;
} marks[] = {
    {0x201c, '"'},  {0x201d, '"'}, {0x201e, '"'}, {0x2033, '"'}, {0xab, '"'},   {0xbb, '"'},   {0x2018, '\''},
    {0x2019, '\''}, {0x300c, '"'}, {0x300d, '"'}, {0x3001, ','}, {0x3002, '.'}, {0xff61, '.'}, {0xff64, ','},
    {0x2010, '-'},  {0x2011, '-'}, {0x2013, '-'}, {0x2014, '-'}, {0x2212, '-'},
};

static bool is_invisible(uint32_t c)
{
    if (c >= 0x80 && c < 0xa0)
        return true;
    for (size_t i = 0; i < sizeof invisible / sizeof invisible[0]; i++)
        if (c >= invisible[i].from && c <= invisible[i].to)
            return true;
    return false;
}

static bool is_blank(uint32_t c)
{
    return c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f || c == 0x205f || c == 0x3000;
}

struct hky_foreign hky_foreign_at(struct hky_str s)
{
    struct hky_foreign f = {.at = s.p};

    if (s.n == 0 || (unsigned char)s.p[0] < 0x80 || (f.n = hky_utf8_sequence(s.p, s.n, &f.code)) == 0)
        return f;
    if (is_invisible(f.code)) {
        f.kind = HKY_FOREIGN_INVISIBLE;
    } else if (is_blank(f.code)) {
        f.kind = HKY_FOREIGN_BLANK;
        f.ascii = ' ';
    } else if (f.code >= 0xff01 && f.code <= 0xff5e) {
        f.kind = HKY_FOREIGN_WIDE;
        f.ascii = (char)(f.code - 0xff01 + '!');
    }
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (f.code == marks[i].code) {
            f.kind = HKY_FOREIGN_MARK;
            f.ascii = marks[i].ascii;
        }
    return f;
}

static size_t sequence(struct hky_str s)
{
    uint32_t code;
    size_t n = (unsigned char)s.p[0] < 0x80 ? 1 : hky_utf8_sequence(s.p, s.n, &code);

    return n > 0 ? n : 1;
}

static struct hky_str rest(struct hky_str s, const char *at)
{
    return hky_str_of(at, s.n - (size_t)(at - s.p));
}

/* Does the text have a letter of which ASCII has no form? */
static bool has_other_script(struct hky_str s)
{
    const char *end = s.p + s.n;

    for (const char *p = s.p; p < end; p += sequence(rest(s, p)))
        if ((unsigned char)*p >= 0x80 && hky_foreign_at(rest(s, p)).kind == HKY_FOREIGN_NONE)
            return true;
    return false;
}

/* Emoji, Persian and Indic scripts have joiners and selectors between or behind letters. */
static bool is_joined(struct hky_str s, const struct hky_foreign *f)
{
    bool is_joiner = f->code == 0x200c || f->code == 0x200d, is_selector = f->code >= 0xfe00 && f->code <= 0xfe0f;
    const char *behind = f->at + f->n;

    if ((!is_joiner && !is_selector) || f->at == s.p || (unsigned char)f->at[-1] < 0x80)
        return false;
    return is_selector || (behind < s.p + s.n && (unsigned char)*behind >= 0x80);
}

/* In a name, a character is at fault only when it makes the name look like another one. */
static bool is_fault_of_name(struct hky_str s, struct hky_foreign *f)
{
    bool is_at_end = f->at == s.p || f->at + f->n == s.p + s.n;

    switch (f->kind) {
    case HKY_FOREIGN_INVISIBLE:
        return !is_joined(s, f);
    case HKY_FOREIGN_BLANK:
        f->is_warning_only = f->code == 0x3000;
        return f->code != 0x3000 || is_at_end || !has_other_script(s);
    case HKY_FOREIGN_WIDE:
        f->is_warning_only = true;
        return !has_other_script(s);
    case HKY_FOREIGN_MARK:
    case HKY_FOREIGN_NONE:
        break;
    }
    return false;
}

struct hky_foreign hky_foreign_find(struct hky_str s, enum hky_foreign_use use)
{
    const char *end = s.p + s.n;
    struct hky_foreign f, warning = {0};

    for (const char *p = s.p; use != HKY_FOREIGN_FREE && p < end; p++) {
        if ((unsigned char)*p < 0x80)
            continue;
        f = hky_foreign_at(rest(s, p));
        if (f.kind != HKY_FOREIGN_NONE && (use == HKY_FOREIGN_EXACT || is_fault_of_name(s, &f))) {
            if (!f.is_warning_only)
                return f;
            if (warning.kind == HKY_FOREIGN_NONE)
                warning = f;
        }
        p += f.n > 0 ? f.n - 1 : 0;
    }
    return warning;
}

bool hky_foreign_to_ascii(struct hky_str s, char *out, size_t room)
{
    bool is_changed = false;
    size_t k = 0;

    for (size_t i = 0; i < s.n && k + 4 < room;) {
        struct hky_foreign f = hky_foreign_at(hky_str_of(s.p + i, s.n - i));
        if (f.kind == HKY_FOREIGN_NONE) {
            out[k++] = s.p[i++];
            continue;
        }
        is_changed = true;
        if (f.ascii != 0)
            out[k++] = f.ascii;
        i += f.n;
    }
    out[k] = 0;
    return is_changed;
}

static const char *what_of(const struct hky_foreign *f)
{
    static const struct {
        uint32_t code;
        const char *what;
    } known[] = {{0xa0, "no-break space"},
                 {0xad, "soft hyphen, invisible"},
                 {0x200b, "zero width space, invisible"},
                 {0x3000, "a full-width blank"},
                 {0xfeff, "byte order mark, invisible"},
                 {0x200e, "direction mark, invisible"},
                 {0x200f, "direction mark, invisible"}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].code == f->code)
            return known[i].what;
    return f->kind == HKY_FOREIGN_INVISIBLE ? "an invisible character"
           : f->kind == HKY_FOREIGN_BLANK   ? "a blank that is no ordinary one"
           : f->kind == HKY_FOREIGN_WIDE    ? "a full-width character"
                                            : "a mark that is no ASCII character";
}

/* Hosts and addresses have no blanks, not even ordinary ones. */
static void drop_blanks(char *z)
{
    char *to = z;

    if (strchr(z, '.') == NULL && strchr(z, '@') == NULL)
        return;
    for (; *z != 0; z++)
        if (*z != ' ')
            *to++ = *z;
    *to = 0;
}

const char *hky_foreign_text(struct hky_str s, const struct hky_foreign *f, bool is_shown, char out[HKY_FOREIGN_TEXT])
{
    char plain[100], shown[12] = "";
    struct hky_str trimmed;
    size_t n;

    if (is_shown && f->kind != HKY_FOREIGN_INVISIBLE && f->kind != HKY_FOREIGN_BLANK)
        snprintf(shown, sizeof shown, " \"%.*s\"", (int)f->n, f->at);
    n = (size_t)snprintf(out, HKY_FOREIGN_TEXT, "is U+%04X%s (%s) in it", (unsigned)f->code, shown, what_of(f));
    if (!is_shown) {
        snprintf(out + n, HKY_FOREIGN_TEXT - n, ": type it again");
        return out;
    }
    (void)hky_foreign_to_ascii(s, plain, sizeof plain);
    drop_blanks(plain);
    trimmed = hky_str_trim(hky_str_z(plain));
    if (s.n < sizeof plain - 4 && trimmed.n > 0 && memchr(trimmed.p, '"', trimmed.n) == NULL)
        snprintf(out + n, HKY_FOREIGN_TEXT - n, ": write \"%.*s\"", (int)trimmed.n, trimmed.p);
    else if (f->ascii > ' ')
        snprintf(out + n, HKY_FOREIGN_TEXT - n, ": write %c instead", f->ascii);
    else
        snprintf(out + n, HKY_FOREIGN_TEXT - n, ": %s",
                 f->kind == HKY_FOREIGN_BLANK ? "write an ordinary blank, or none" : "remove it");
    return out;
}
