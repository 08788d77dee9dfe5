/* Checks the arguments of a command; the control socket, the command line and HTTP share these checks. */
#include "console/http.h"

#include "base/duration.h"
#include "base/hash.h"
#include "base/nearest.h"
#include "mail/address.h"

#include <inttypes.h>
#include <stdio.h>

#define WORDS_SHOWN 140 /* octets of a list in an error */

const struct hky_argument *hky_command_argument(const struct hky_command *c, struct hky_str name, const char **nearest)
{
    struct hky_nearest_name near = hky_nearest_to(name);

    for (const struct hky_argument *a = c->arguments; a != NULL && a->name != NULL; a++) {
        if (hky_str_eq(hky_str_z(a->name), name))
            return a;
        hky_nearest_consider(&near, a->name);
    }
    *nearest = near.name;
    return NULL;
}

/* ---- one value ---- */

static enum hky_err parse_text(const struct hky_argument *a, const char *text, struct hky_value *out,
                               struct hky_error *e)
{
    size_t n = strlen(text);

    if (n == 0)
        return hky_error_set(e, HKY_E_SYNTAX, "%s is empty; say which %s, or leave it out", a->name,
                             a->value != NULL ? a->value : "one");
    if ((int64_t)n < a->min || (int64_t)n > a->max)
        return hky_error_set(e, HKY_E_SYNTAX, "%s takes %" PRId64 " to %" PRId64 " octets, not %zu", a->name, a->min,
                             a->max, n);
    if (!hky_utf8_is_valid(hky_str_of(text, n)))
        return hky_error_set(e, HKY_E_SYNTAX, "%s is not UTF-8", a->name);
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)text[i] < 0x20 || text[i] == 0x7f) &&
            (a->type != HKY_ARG_SCRIPT || strchr("\n\r\t", text[i]) == NULL))
            return hky_error_set(e, HKY_E_SYNTAX, "%s has a control character in it", a->name);
    out->text = text;
    return HKY_OK;
}

static enum hky_err parse_address(const struct hky_argument *a, const char *text, struct hky_value *out,
                                  struct hky_error *e)
{
    struct hky_error why = {0};
    enum hky_err err = parse_text(a, text, out, e);

    if (err != HKY_OK)
        return err;
    if (strcmp(text, "<>") == 0 && !a->may_be_null)
        return hky_error_set(e, HKY_E_SYNTAX, "%s cannot be <>, which is the null sender", a->name);
    if (hky_address_entry_check(hky_str_z(text), &why) != HKY_OK)
        return hky_error_set(e, HKY_E_SYNTAX, "%s cannot be \"%.40s\": %s", a->name, text, why.text);
    out->is_everything = strcmp(text, "*") == 0;
    return HKY_OK;
}

static bool is_of_name(char c)
{
    return (c >= '0' && c <= '9') || (hky_lower(c) >= 'a' && hky_lower(c) <= 'z') || c == '_';
}

/* Does the expression use the recipient? One that does not selects everybody or nobody. The word "r" in a string or a
 * comment counts as use, too. */
static bool mentions_r(const char *text)
{
    for (const char *p = text; (p = strchr(p, 'r')) != NULL; p++)
        if ((p == text || !is_of_name(p[-1])) && !is_of_name(p[1]))
            return true;
    return false;
}

static enum hky_err parse_word(const struct hky_argument *a, const char *text, struct hky_value *out,
                               struct hky_error *e)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(text));
    struct hky_buf list;

    for (size_t i = 0; a->words[i] != NULL; i++) {
        if (strcmp(a->words[i], text) == 0) {
            out->text = a->words[i];
            return HKY_OK;
        }
        hky_nearest_consider(&near, a->words[i]);
    }
    if (near.name != NULL)
        return hky_error_set(e, HKY_E_SYNTAX, "%s cannot be \"%.40s\"" HKY_NEAREST_FMT, a->name, text,
                             HKY_NEAREST_ARG(&near));
    hky_buf_init(&list, sizeof e->text);
    for (size_t i = 0; a->words[i] != NULL; i++) {
        bool is_long = list.n + strlen(a->words[i]) > WORDS_SHOWN;

        hky_buf_printf(&list, "%s%s", i > 0 ? ", " : "", is_long ? "..." : a->words[i]);
        if (is_long)
            break;
    }
    hky_error_set(e, HKY_E_SYNTAX, "%s takes one of %s, not \"%.40s\"", a->name, hky_buf_z(&list), text);
    hky_buf_fini(&list);
    return HKY_E_SYNTAX;
}

static enum hky_err parse_number(const struct hky_argument *a, const char *text, struct hky_value *out,
                                 struct hky_error *e)
{
    uint64_t n;

    if (!hky_str_u64(hky_str_z(text), (uint64_t)a->max, &n) || (int64_t)n < a->min)
        return hky_error_set(e, HKY_E_SYNTAX, "%s takes a number from %" PRId64 " to %" PRId64 ", not \"%.40s\"",
                             a->name, a->min, a->max, text);
    out->number = (int64_t)n;
    return HKY_OK;
}

static enum hky_err parse_duration(const struct hky_argument *a, const char *text, struct hky_value *out,
                                   struct hky_error *e)
{
    uint32_t sec;

    if (!hky_duration_parse(hky_str_z(text), &sec))
        return hky_error_set(e, HKY_E_SYNTAX, "%s takes a duration such as 90s, 10m, 2h or 3d, not \"%.40s\"", a->name,
                             text);
    out->number = (int64_t)sec * 1000;
    out->is_everything = sec == 0;
    if (out->number >= a->min && out->number <= a->max)
        return HKY_OK;
    return hky_error_set(e, HKY_E_SYNTAX, "%s takes from %" PRId64 "s to %" PRId64 "d, not \"%.40s\"", a->name,
                         (a->min + 999) / 1000, a->max / 86400000, text);
}

enum hky_err hky_argument_parse(const struct hky_argument *a, const char *text, struct hky_value *out,
                                struct hky_error *e)
{
    uint64_t id;
    enum hky_err err = HKY_OK;

    *out = (struct hky_value){0};
    switch (a->type) {
    case HKY_ARG_TEXT:
        err = parse_text(a, text, out, e);
        break;
    case HKY_ARG_SCRIPT:
        err = parse_text(a, text, out, e);
        out->is_everything = !mentions_r(text);
        break;
    case HKY_ARG_ADDRESS:
        err = parse_address(a, text, out, e);
        break;
    case HKY_ARG_WORD:
        err = parse_word(a, text, out, e);
        break;
    case HKY_ARG_NUMBER:
        err = parse_number(a, text, out, e);
        break;
    case HKY_ARG_DURATION:
        err = parse_duration(a, text, out, e);
        break;
    case HKY_ARG_FLAG:
        out->number = 1;
        break;
    case HKY_ARG_ID:
        if (!hky_id_parse(hky_str_z(text), &id))
            return hky_error_set(e, HKY_E_SYNTAX, "\"%.40s\" is not a message id (13 letters and digits)", text);
        memcpy(&out->number, &id, sizeof id);
        break;
    }
    out->is_given = err == HKY_OK;
    return err;
}

/* ---- all arguments of a command ---- */

/* The name of an argument as the reader of the error writes it. */
static void add_name(struct hky_buf *b, const struct hky_argument *a, enum hky_writing how, bool has_value)
{
    if (how == HKY_WRITING_JSON) {
        hky_buf_printf(b, "\"%s\"%s", a->name, has_value && a->value == NULL ? ": true" : "");
        return;
    }
    if (!a->is_positional)
        hky_buf_add_z(b, "--");
    for (const char *p = a->is_positional ? a->value : a->name; *p != '\0'; p++)
        hky_buf_add_c(b, *p == '_' ? '-' : *p);
    if (has_value && !a->is_positional && a->value != NULL)
        hky_buf_printf(b, " %s", a->value);
}

static const struct hky_argument *everything_flag(const struct hky_command *c)
{
    for (const struct hky_argument *a = c->arguments; a != NULL && a->name != NULL; a++)
        if (a->is_selection && a->type == HKY_ARG_FLAG)
            return a;
    return NULL;
}

static enum hky_err error_of(struct hky_buf *b, struct hky_error *e)
{
    hky_error_set(e, HKY_E_SYNTAX, "%s", hky_buf_z(b));
    hky_buf_fini(b);
    return HKY_E_SYNTAX;
}

/* `wide`: an argument that was given, but selects everything; NULL: none. */
static enum hky_err refuse_everything(const struct hky_command *c, const struct hky_argument *wide,
                                      enum hky_writing how, struct hky_error *e)
{
    const struct hky_argument *all = everything_flag(c);
    unsigned n = 0;
    struct hky_buf b;

    hky_buf_init(&b, sizeof e->text);
    if (wide != NULL) {
        add_name(&b, wide, how, false);
        hky_buf_add_z(&b, " leaves nobody out");
    } else {
        hky_buf_add_z(&b, "which? Write ");
        for (const struct hky_argument *a = c->arguments; a->name != NULL && n < 3; a++) {
            if (!a->is_selection || a->type == HKY_ARG_FLAG)
                continue;
            hky_buf_add_z(&b, n == 0 ? "" : n == 1 ? ", or a selection such as " : " or ");
            add_name(&b, a, how, true);
            n++;
        }
    }
    if (all != NULL) {
        hky_buf_add_z(&b, wide != NULL ? ": if everybody is meant, write " : "; ");
        add_name(&b, all, how, true);
        hky_buf_add_z(&b, wide != NULL ? "" : " selects every recipient");
    }
    return error_of(&b, e);
}

static enum hky_err refuse_both(const struct hky_argument *all, const struct hky_argument *other, enum hky_writing how,
                                struct hky_error *e)
{
    struct hky_buf b;

    hky_buf_init(&b, sizeof e->text);
    add_name(&b, all, how, false);
    hky_buf_add_z(&b, " means everybody and ");
    add_name(&b, other, how, false);
    hky_buf_add_z(&b, " does not: leave one of them out");
    return error_of(&b, e);
}

static enum hky_err refuse_missing(const struct hky_argument *a, enum hky_writing how, struct hky_error *e)
{
    struct hky_buf b;

    hky_buf_init(&b, sizeof e->text);
    hky_buf_add_z(&b, "which? Write ");
    add_name(&b, a, how, true);
    hky_buf_printf(&b, ", %s", a->doc);
    return error_of(&b, e);
}

enum hky_err hky_command_check(const struct hky_command *c, const struct hky_value *values, enum hky_writing how,
                               struct hky_error *e)
{
    const struct hky_argument *all = NULL, *narrow = NULL, *wide = NULL;

    for (size_t i = 0; c->arguments != NULL && c->arguments[i].name != NULL; i++) {
        const struct hky_argument *a = &c->arguments[i];

        if (a->is_required && !values[i].is_given)
            return refuse_missing(a, how, e);
        if (!a->is_selection || !values[i].is_given)
            continue;
        if (a->type == HKY_ARG_FLAG)
            all = a;
        else if (values[i].is_everything)
            wide = a;
        else
            narrow = a;
    }
    if (all != NULL && narrow != NULL)
        return refuse_both(all, narrow, how, e);
    if (c->needs_selection && all == NULL && narrow == NULL)
        return refuse_everything(c, wide, how, e);
    return HKY_OK;
}
