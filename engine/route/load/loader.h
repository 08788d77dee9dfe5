/*
 * loader -- how a policy becomes a table: files, words, and the compiling of what was collected. struct hky_loader is
 * in route/lua/collect.h, because the Lua side collects into it what declarations say and every problem.
 */
#ifndef HKY_ROUTE_LOADER_H
#define HKY_ROUTE_LOADER_H

#include "route/lua/collect.h"
#include "route/lua/keys.h"
#include "route/lua/read.h"

/* The octets of one of the policy's files, which is read once; NULL: `e` says why not. */
const struct hky_file *hky_loader_file(struct hky_loader *l, const char *name, struct hky_error *e);
/* ', did you mean "NAME"?' when a file in the same folder has nearly that name, else "". */
#define HKY_SUGGESTION 140
void hky_loader_suggest_file(const char *dir, const char *name, char out[HKY_SUGGESTION]);
/* Is there a character outside of texts in the line at `place` that no language here has? Then `out` names it and says
 * what to write; parsers name only an octet. is_known_only: only characters that stand for another one. */
bool hky_loader_stray_character(const struct hky_loader *l, struct hky_place place, bool is_known_only, char out[200]);
/* HKY_OK: the file at `path` holds certificates of authorities; else `e` says why not. */
enum hky_err hky_loader_authority(struct hky_loader *l, const char *path, uint64_t *hash, struct hky_error *e);
struct hky_list *hky_loader_list(struct hky_loader *l, const char *name, struct hky_error *e);
/* Read values that the policy keeps. Access is raw, and `index` is absolute. Problems are reported through
 * hky_lua_problem. */
enum hky_match_of { HKY_MATCH_OF_ADDRESS, HKY_MATCH_OF_SENDER /* or "<>" */, HKY_MATCH_OF_HOST };
/* Reads the value of to, except, sender, author, mx or only_to. */
void hky_loader_read_match(struct hky_loader *l, int index, const char *what, struct hky_place place,
                           enum hky_match_of of, struct hky_match *out);
/* Compile the collected declarations; each of these runs inside one protected call. */
void hky_loader_compile_engine(struct hky_loader *l);
void hky_loader_compile_relays(struct hky_loader *l);
void hky_loader_compile_routes(struct hky_loader *l);
void hky_loader_compile_row_relays(struct hky_loader *l); /* rows' relays, before hky_loader_compile_relays */
void hky_loader_compile_listen(struct hky_loader *l, int index, struct hky_place place, struct hky_engine_options *o);
void hky_loader_compile_rules(struct hky_loader *l);
void hky_loader_check_reach(struct hky_loader *l);
/* Listeners on one address, which cannot be opened. */
void hky_loader_check_ports(struct hky_loader *l);
/* Warns of steps that are never entered, and of waits that outlast the time to deliver. */
void hky_loader_check_steps(struct hky_loader *l);
/* Warns of mail that would be sent to the engine's own listener. */
void hky_loader_check_loops(struct hky_loader *l);
/* Warns of policies that look right and lose mail. */
void hky_loader_check_losses(struct hky_loader *l);
struct hky_secret_ref hky_loader_read_secret(struct hky_loader *l, int index, const char *key, const char *what,
                                             struct hky_place place);
const char *const *hky_loader_read_strings(struct hky_loader *l, int index);
void hky_loader_register_functions(struct hky_loader *l); /* in a worker: puts the functions into vm->fns */

void hky_loader_open_words(lua_State *L); /* puts the declaration words into the table on top */

#endif
