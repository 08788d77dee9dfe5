/* What a command may be given: the same checks for the control socket, the command line and HTTP. */
#include "console/console.h"

#include "base/hash.h"
#include "base/nearest.h"

#include <inttypes.h>
#include <stdio.h>

#define WORDS_SHOWN 140 /* octets of a list in an error */

const struct hky_argument *hky_command_argument(const struct hky_command *c, struct hky_str name, const char **nearest)
{
    struct hky_nearest_name near = hky_nearest_to(name);

    for (const struct hky_argument *a = c->arguments; a != NULL && a->name != NULL; a++) {
        if (hky_str_eq(hky_str_z(a->name), name))
            return a;
        hky_nearest_look(&near, a->name);
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
        hky_nearest_look(&near, a->words[i]);
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
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = strspn(text, "0123456789");
    uint64_t n;

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].unit) != 0)
            continue;
        if (!hky_str_u64(hky_str_of(text, digits), UINT32_MAX, &n))
            break;
        out->number = (int64_t)n * units[i].ms;
        if (out->number >= a->min && out->number <= a->max)
            return HKY_OK;
        return hky_error_set(e, HKY_E_SYNTAX, "%s takes from %" PRId64 "s to %" PRId64 "d, not \"%.40s\"", a->name,
                             (a->min + 999) / 1000, a->max / 86400000, text);
    }
    return hky_error_set(e, HKY_E_SYNTAX, "%s takes a duration such as 90s, 10m, 2h or 3d, not \"%.40s\"", a->name,
                         text);
}

enum hky_err hky_argument_parse(const struct hky_argument *a, const char *text, struct hky_value *out,
                                struct hky_error *e)
{
    uint64_t id;
    enum hky_err err = HKY_OK;

    *out = (struct hky_value){0};
    switch (a->type) {
    case HKY_ARG_TEXT:
    case HKY_ARG_SCRIPT:
        err = parse_text(a, text, out, e);
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

/* ---- all of them ---- */

enum hky_err hky_command_check(const struct hky_command *c, const struct hky_value *values, struct hky_error *e)
{
    bool is_selected = false;

    for (size_t i = 0; c->arguments != NULL && c->arguments[i].name != NULL; i++) {
        if (c->arguments[i].is_required && !values[i].is_given)
            return hky_error_set(e, HKY_E_SYNTAX, "which? %s needs a %s", c->name, c->arguments[i].value);
        is_selected = is_selected || (c->arguments[i].is_selection && values[i].is_given);
    }
    if (c->needs_selection && !is_selected)
        return hky_error_set(e, HKY_E_SYNTAX, "which? %s needs an id or a selection, such as to or state", c->name);
    return HKY_OK;
}
