/* The help of a subcommand, from its table. */
#include "cli/operate.h"

#include <stdio.h>

#define DOC_COLUMN 24

static void print_pair(const char *left, const char *doc)
{
    int n = printf("  %s", left);

    if (n > DOC_COLUMN - 1)
        printf("\n%*s", DOC_COLUMN, "");
    else
        printf("%*s", DOC_COLUMN - n, "");
    hky_cli_print_words(doc, DOC_COLUMN);
}

static void print_options(const struct hky_cli_option *table)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++) {
        char left[80];
        snprintf(left, sizeof left, "%s%s%s%s", o->name[1] == '\0' ? "-" : "--", o->name, o->value != NULL ? " " : "",
                 o->value != NULL ? o->value : "");
        print_pair(left, o->doc);
    }
}

static void print_action(void *ctx, const char *usage, const char *doc)
{
    bool *is_first = ctx;

    if (*is_first)
        printf("\nactions:\n");
    *is_first = false;
    print_pair(usage, doc);
}

void hky_cli_print_help(const struct hky_cli_command *command)
{
    struct hky_cli_options room;
    const struct hky_cli_option *options = hky_cli_options(command, &room);
    bool is_first = true;
    char usage[400], summary[200];

    snprintf(usage, sizeof usage, "hikyaku %s%s%s", command->name, command->args[0] != '\0' ? " " : "", command->args);
    printf("usage: ");
    hky_cli_print_words(usage, 7);
    putchar('\n');
    snprintf(summary, sizeof summary, "%c%s.", command->summary[0] - 'a' + 'A', command->summary + 1);
    hky_cli_print_text(summary, 0);
    if (command->group != NULL)
        hky_cli_each_action(command->group, print_action, &is_first);
    printf("\noptions:\n");
    print_options(options);
    print_options(hky_cli_common_options + (command->has_no_json ? 1 : 0));
    if (command->help != NULL) {
        putchar('\n');
        hky_cli_print_text(command->help, 0);
    }
}
