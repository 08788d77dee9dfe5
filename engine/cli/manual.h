/* manual -- parts of the manual pages, from the tables that the program itself uses. */
#ifndef HKY_CLI_MANUAL_H
#define HKY_CLI_MANUAL_H

#include "cli/cli.h"

/* `part`: "commands", "events", "classes", "sets" or "keys:OBJECT" in the macros of man(7), "annotations:OBJECT" as
 * lines of scripts/hikyaku/annotations; on stdout. An exit code. */
int hky_cli_manual(const struct hky_cli_command *const *commands, size_t n, const char *part);

#endif
