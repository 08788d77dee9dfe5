#include "base/buf.h"
#include "hikyaku/route.h"
#include "route/lua/collect.h"

#include <stdlib.h>

void hky_problems_fini(struct hky_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free((char *)p->items[i].place.file);
        free(p->items[i].text);
    }
    free(p->items);
    *p = (struct hky_problems){0};
}

void hky_problems_add(struct hky_problems *p, struct hky_place place, enum hky_problem_level level, const char *text)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->items[i].place.line == place.line && strcmp(p->items[i].text, text) == 0)
            return;
    p->n_errors += level == HKY_PROBLEM_ERROR;
    p->n_warnings += level == HKY_PROBLEM_WARNING;
    if (p->n >= HKY_PROBLEMS_MAX)
        return;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 8;
        p->items = hky_realloc(p->items, p->cap * sizeof *p->items);
    }
    p->items[p->n++] =
        (struct hky_problem){{hky_strdup(place.file != NULL ? place.file : ""), place.line}, level, hky_strdup(text)};
}

const char *hky_problem_level_name(enum hky_problem_level level)
{
    return level == HKY_PROBLEM_ERROR ? "error" : level == HKY_PROBLEM_WARNING ? "warning" : "note";
}

void hky_problem_format(const struct hky_problem *p, struct hky_buf *out)
{
    if (p->place.file != NULL && p->place.file[0] != 0) {
        hky_buf_add_z(out, p->place.file);
        if (p->place.line > 0)
            hky_buf_printf(out, ":%u", p->place.line);
        hky_buf_add_z(out, ": ");
    }
    hky_buf_printf(out, "%s: ", hky_problem_level_name(p->level));
    hky_buf_add_z(out, p->text);
}
