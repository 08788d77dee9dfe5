/*
 * operate -- the commands that a running engine takes, as subcommands: `hikyaku queue hold --to x` is "queue hold" of
 * hky_operate_commands. Options, checks and help come from that table.
 */
#ifndef HKY_CLI_OPERATE_H
#define HKY_CLI_OPERATE_H

#include "cli/ask.h"
#include "hikyaku/operate.h"

struct hky_cli_answer {
    const char *action; /* "hold"; "" for a command without actions */
    const char *word;   /* the bare word behind the action, or NULL */
    const char *chosen; /* the selection as typed options: " --to x.example" */
    const char *spool;
    bool is_dry_run, is_utc;
    const json_t *json;
};
/* Parses and checks the options and asks the engine; `print` prints the answer for people and returns the exit code.
 * With --json the answer is printed unchanged, and `print` is called with is_quiet, only for the exit code. */
int hky_cli_operate(const struct hky_cli_command *self, int argc, char **argv,
                    int (*print)(const struct hky_cli_answer *a, bool is_quiet));

/* For help and manual: calls `each` for every action of `group`, with its positional arguments. */
void hky_cli_each_action(const char *group, void (*each)(void *ctx, const char *usage, const char *doc), void *ctx);

/* "queue hold" is in the group "queue", and its action is "hold". */
bool hky_cli_is_in_group(const struct hky_command *c, const char *group);
const char *hky_cli_action_of(const struct hky_command *c, const char *group);
/* The option's name as it is typed: "for-sec" for "for_sec". */
const char *hky_cli_option_name(const struct hky_argument *a, char out[24]);

#endif
