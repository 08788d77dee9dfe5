/*
 * queue -- prints a recipient for `queue`.
 */
#ifndef HKY_CLI_QUEUE_H
#define HKY_CLI_QUEUE_H

#include "cli/operate.h"

/* A string of a row, "" when it has none. */
const char *hky_cli_row_text(const json_t *row, const char *key);
/* Formats when the recipient may be tried and what its lane waits for: "59m", "4s cap", "paused". */
const char *hky_cli_row_next(const json_t *row, char out[48]);
/* Prints everything known about each row of `queue show`. */
void hky_cli_print_stories(const struct hky_cli_answer *a);

#endif
