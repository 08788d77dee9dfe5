#include "cli/operate.h"

#include "base/nearest.h"

#include <stdio.h>
#include <stdlib.h>

#define OPTIONS_MOST 40
#define ROWS_SHOWN   100 /* of queue list, without --limit */
#define ROWS_DRY     25

static bool has_actions(const char *group)
{
    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++)
        if (strcmp(c->name, group) == 0)
            return false;
    return true;
}

/* ---- one call ---- */

struct given { /* one option as it was typed */
    const char *name, *value;
};

struct call {
    const struct hky_cli_command *self;
    const struct hky_command *command;
    struct hky_value values[HKY_ARGUMENTS_MAX];
    json_t *request;
    bool is_dry_run;
};

/* Finds the command in the table; NULL after an error was printed. */
static const struct hky_command *find_command(const char *group, const char *action)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(action));
    struct hky_buf names;

    hky_buf_init(&names, 1000);
    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++) {
        if (!hky_cli_is_in_group(c, group))
            continue;
        if (strcmp(hky_cli_action_of(c, group), action) == 0) {
            hky_buf_fini(&names);
            return c;
        }
        hky_buf_printf(&names, "%s%s", names.n > 0 ? ", " : "", hky_cli_action_of(c, group));
        hky_nearest_consider(&near, hky_cli_action_of(c, group));
    }
    hky_cli_printf(stderr, "hikyaku %s: no action \"%s\"" HKY_NEAREST_FMT " (%s)\n", group, action,
                   HKY_NEAREST_ARG(&near), hky_buf_z(&names));
    hky_buf_fini(&names);
    return NULL;
}

static int take_argument(struct call *call, const struct hky_argument *a, const char *text)
{
    struct hky_value *value = &call->values[a - call->command->arguments];
    struct hky_error e;
    char name[24];

    hky_cli_option_name(a, name);
    if (value->is_given) {
        hky_cli_printf(stderr, "hikyaku %s: %s%s is given twice\n", call->command->name, a->is_positional ? "" : "--",
                       name);
        return HKY_EXIT_USAGE;
    }
    if (hky_argument_parse(a, text, value, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku %s: %s%s\n", call->command->name,
                       a->is_positional || e.text[0] == '"' ? "" : "--", e.text);
        return HKY_EXIT_USAGE;
    }
    call->is_dry_run = call->is_dry_run || strcmp(a->name, "dry_run") == 0;
    json_object_set_new(call->request, a->name, a->type == HKY_ARG_FLAG ? json_true() : json_string(text));
    return -1;
}

static int take_option(struct call *call, const struct given *given)
{
    char name[24], takers[160];
    struct hky_buf b;

    for (const struct hky_argument *a = call->command->arguments; a != NULL && a->name != NULL; a++)
        if (!a->is_positional && strcmp(hky_cli_option_name(a, name), given->name) == 0)
            return take_argument(call, a, given->value);
    hky_buf_init(&b, sizeof takers - 1);
    for (const struct hky_command *c = hky_operate_commands; c->name != NULL; c++)
        for (const struct hky_argument *a = c->arguments;
             hky_cli_is_in_group(c, call->self->group) && a != NULL && a->name != NULL; a++)
            if (strcmp(hky_cli_option_name(a, name), given->name) == 0)
                hky_buf_printf(&b, "%s%s", b.n > 0 ? ", " : "", hky_cli_action_of(c, call->self->group));
    hky_cli_printf(stderr, "hikyaku %s: --%s belongs to %s\n", call->command->name, given->name, hky_buf_z(&b));
    hky_buf_fini(&b);
    return HKY_EXIT_USAGE;
}

static int take_words(struct call *call, char **words, int n)
{
    int code;

    for (const struct hky_argument *a = call->command->arguments; a != NULL && a->name != NULL; a++) {
        if (!a->is_positional || n == 0)
            continue;
        if ((code = take_argument(call, a, words[0])) >= 0)
            return code;
        words++;
        n--;
    }
    if (n == 0)
        return -1;
    hky_cli_complain_of_word(call->self, words[0]);
    return HKY_EXIT_USAGE;
}

/* Adds the selection as options, for a command that the answer proposes. */
static void add_chosen(const struct call *call, struct hky_buf *b)
{
    char name[24];

    for (const struct hky_argument *a = call->command->arguments; a != NULL && a->name != NULL; a++) {
        const char *text = json_string_value(json_object_get(call->request, a->name));

        if (!a->is_selection || !call->values[a - call->command->arguments].is_given)
            continue;
        hky_buf_add_c(b, ' ');
        if (!a->is_positional)
            hky_buf_printf(b, "--%s%s", hky_cli_option_name(a, name), text != NULL ? " " : "");
        if (text != NULL)
            hky_cli_add_word(b, text);
    }
}

/* Limits the rows, because the engine may have too many for a terminal. */
static void set_limit(struct call *call)
{
    const char *nearest;

    if (hky_command_argument(call->command, HKY_STR("limit"), &nearest) == NULL)
        return;
    if (call->is_dry_run)
        json_object_set_new(call->request, "limit", json_integer(ROWS_DRY));
    else if (json_object_get(call->request, "limit") == NULL)
        json_object_set_new(call->request, "limit", json_integer(ROWS_SHOWN));
}

static int fill(struct call *call, char **words, int n_words, const struct given *given, size_t n_given)
{
    struct hky_error e;
    int code;

    call->request = json_pack("{s:s}", "cmd", call->command->name);
    if ((code = take_words(call, words, n_words)) >= 0)
        return code;
    for (size_t i = 0; i < n_given; i++)
        if ((code = take_option(call, &given[i])) >= 0)
            return code;
    if (hky_command_check(call->command, call->values, HKY_WRITING_TYPED, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku %s: %s (hikyaku %s --help)\n", call->command->name, e.text, call->self->name);
        return HKY_EXIT_USAGE;
    }
    set_limit(call);
    return -1;
}

int hky_cli_operate(const struct hky_cli_command *self, int argc, char **argv,
                    int (*print)(const struct hky_cli_answer *a, bool is_quiet))
{
    struct hky_cli_options options;
    struct hky_cli_args args;
    struct hky_cli_answer a = {.action = ""};
    struct given given[OPTIONS_MOST];
    struct call call = {.self = self};
    struct hky_buf chosen;
    const char *value, *name, *spool = NULL;
    size_t n_given = 0;
    json_t *answer;
    int code, at = 0;

    HKY_ASSERT(self->group != NULL);
    hky_cli_args_init(&args, self, argc, argv);
    args.options = hky_cli_options(self, &options);
    while ((name = hky_cli_next(&args, &value)) != NULL)
        if (strcmp(name, "spool") == 0)
            spool = value;
        else if (strcmp(name, "utc") == 0)
            a.is_utc = true;
        else if (n_given < OPTIONS_MOST)
            given[n_given++] = (struct given){name, value};
    if ((code = hky_cli_args_done(&args, 0, argc)) >= 0)
        return code;
    if (has_actions(self->group))
        a.action = args.n_positional > 0 ? argv[at++] : "list";
    if ((call.command = find_command(self->group, a.action)) == NULL)
        return HKY_EXIT_USAGE;
    a.word = args.n_positional > at ? argv[at] : NULL;
    if ((code = fill(&call, argv + at, args.n_positional - at, given, n_given)) >= 0) {
        json_decref(call.request);
        return code;
    }
    a.is_dry_run = call.is_dry_run;
    a.spool = hky_cli_spool(spool);
    hky_buf_init(&chosen, 1u << 17);
    add_chosen(&call, &chosen);
    if ((code = hky_cli_ask(call.command->name, a.spool, call.request, &answer)) != HKY_EXIT_GOOD) {
        hky_buf_fini(&chosen);
        return code;
    }
    a.json = answer;
    a.chosen = hky_buf_z(&chosen);
    code = print(&a, args.is_json);
    hky_buf_fini(&chosen);
    if (args.is_json)
        (void)hky_cli_print_json(answer);
    else
        json_decref(answer);
    return code;
}
