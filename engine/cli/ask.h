/* ask -- sends one request to the running engine, for status, reload, queue and relay. */
#ifndef HKY_CLI_ASK_H
#define HKY_CLI_ASK_H

#include "cli/cli.h"

#include <jansson.h>

/* Sends `request` (taken) to the engine of `spool`. HKY_EXIT_GOOD: *answer is the whole object (json_decref it).
 * Otherwise the reason is printed; returns exit code 3 for no engine, 2 for wrong usage, 1 for a refusal. */
int hky_cli_ask(const char *command, const char *spool, json_t *request, json_t **answer);
/* Prints the object as JSON and frees it. */
int hky_cli_print_json(json_t *answer);
/* Times are printed in one zone: the engine's, or UTC. Sets TZ for localtime_r; `zone` "" is the system's. */
void hky_cli_use_zone(const char *zone, bool is_utc);
const char *hky_cli_zone_name(const char *zone, bool is_utc); /* "Asia/Tokyo", "UTC", or the system's abbreviation */
/* The number that `from` has under `key`, for a table. */
const char *hky_cli_count(const json_t *from, const char *key, char out[24]);
/* The note beside a relay's state in a table: which relay gets its mail, until when, and why. */
const char *hky_cli_relay_note(const json_t *relay, char out[400]);

#endif
