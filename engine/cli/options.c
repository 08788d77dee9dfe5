/* Which options and actions a subcommand has: its own, those of every subcommand, and those of the engine's commands.
 */
#include "cli/operate.h"

#include <stdio.h>

const struct hky_cli_option hky_cli_common_options[] = {
    {"json", NULL, "print JSON"},
    {"help", NULL, "print this help"},
    {NULL, NULL, NULL},
};

bool hky_cli_is_in_group(const struct hky_command *c, const char *group)
{
    size_t n = strlen(group);

    return strncmp(c->name, group, n) == 0 && (c->name[n] == '\0' || c->name[n] == ' ');
}

const char *hky_cli_action_of(const struct hky_command *c, const char *group)
{
    const char *rest = c->name + strlen(group);

    return rest[0] == ' ' ? rest + 1 : rest;
}

/* Adds "pause, drain: ", the commands of the group that take the argument; nothing if all of them take it. */
static void add_takers(const char *group, const struct hky_argument *a, struct hky_buf *out)
{
    const char *nearest;
    size_t before = out->n, n = 0, n_takers = 0;

    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++) {
        if (!hky_cli_is_in_group(c, group))
            continue;
        n++;
        if (hky_command_argument(c, hky_str_z(a->name), &nearest) == NULL)
            continue;
        hky_buf_printf(out, "%s%s", n_takers > 0 ? ", " : "", hky_cli_action_of(c, group));
        n_takers++;
    }
    if (n_takers == n)
        out->n = before;
    else
        hky_buf_add_z(out, ": ");
}

const char *hky_cli_option_name(const struct hky_argument *a, char out[24])
{
    size_t n = strlen(a->name);

    for (size_t i = 0; i <= n && i < 24; i++)
        out[i] = a->name[i] == '_' ? '-' : a->name[i];
    return out;
}

static bool has_option(const struct hky_cli_options *room, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(room->items[i].name, name) == 0)
            return true;
    return false;
}

static void add_option(struct hky_cli_options *room, size_t *n, const char *group, const struct hky_argument *a)
{
    struct hky_buf doc;
    char name[24];

    if (a->is_positional || has_option(room, *n, hky_cli_option_name(a, name)))
        return;
    HKY_ASSERT(*n + 1 < HKY_CLI_OPTIONS_MAX);
    hky_buf_init(&doc, sizeof room->docs[0] - 1);
    add_takers(group, a, &doc);
    hky_buf_add_z(&doc, a->doc);
    HKY_ASSERT(!doc.is_over);
    memcpy(room->names[*n], name, sizeof name);
    memcpy(room->docs[*n], hky_buf_z(&doc), doc.n + 1);
    room->items[*n] = (struct hky_cli_option){room->names[*n], a->value, room->docs[*n]};
    ++*n;
    hky_buf_fini(&doc);
}

const struct hky_cli_option *hky_cli_options(const struct hky_cli_command *self, struct hky_cli_options *room)
{
    size_t n = 0;

    if (self->group == NULL)
        return self->options;
    *room = (struct hky_cli_options){0};
    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++)
        for (const struct hky_argument *a = c->arguments;
             hky_cli_is_in_group(c, self->group) && a != NULL && a->name != NULL; a++)
            add_option(room, &n, self->group, a);
    for (const struct hky_cli_option *o = self->options; o != NULL && o->name != NULL; o++)
        room->items[n++] = *o;
    return room->items;
}

void hky_cli_each_action(const char *group, void (*each)(void *ctx, const char *usage, const char *doc), void *ctx)
{
    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++) {
        char usage[80];
        int n;

        if (!hky_cli_is_in_group(c, group) || hky_cli_action_of(c, group)[0] == '\0')
            continue;
        n = snprintf(usage, sizeof usage, "%s", hky_cli_action_of(c, group));
        for (const struct hky_argument *a = c->arguments; a != NULL && a->name != NULL; a++)
            if (a->is_positional && n < (int)sizeof usage)
                n += snprintf(usage + n, sizeof usage - (size_t)n, a->is_required ? " %s" : " [%s]", a->value);
        each(ctx, usage, c->doc);
    }
}
