/*
 * queue -- what `queue` prints of one recipient.
 */
#ifndef HKY_CLI_QUEUE_H
#define HKY_CLI_QUEUE_H

#include "cli/operate.h"

/* A string of a row, "" when it has none. */
const char *hky_cli_row_text(const json_t *row, const char *key);
/* "59m", "4s cap", "paused": when it may be tried, and what its lane waits for. */
const char *hky_cli_row_next(const json_t *row, char out[48]);
/* The whole story of each row of `queue show`. */
void hky_cli_print_stories(const struct hky_cli_answer *a);

#endif
