/*
 * loader -- how a policy becomes a table: files, words, and the compiling of what was collected.
 */
#ifndef HKY_ROUTE_LOADER_H
#define HKY_ROUTE_LOADER_H

#include "route/lua/collect.h"
#include "route/lua/keys.h"
#include "route/lua/read.h"

/* The octets of a policy's file, read once; NULL with the reason. */
const struct hky_file *hky_loader_file(struct hky_loader *l, const char *name, struct hky_error *e);
/* ', did you mean "NAME"?' when a file beside has nearly that name, else "". */
#define HKY_SUGGESTION 140
void hky_file_suggest(const char *dir, const char *name, char out[HKY_SUGGESTION]);
/* HKY_OK: the file at `path` holds certificates of authorities; else why not. */
enum hky_err hky_loader_authority(struct hky_loader *l, const char *path, uint64_t *hash, struct hky_error *e);
struct hky_list *hky_loader_list(struct hky_loader *l, const char *name, struct hky_error *e);
/* Reading values that the policy keeps. All raw; `index` absolute. They complain through hky_script_problem. */
enum hky_match_of { HKY_MATCH_OF_ADDRESS, HKY_MATCH_OF_SENDER /* or "<>" */, HKY_MATCH_OF_HOST };
/* to, except, sender, author, mx, only_to. */
void hky_read_match(struct hky_loader *l, int index, const char *what, struct hky_place place, enum hky_match_of of,
                    struct hky_match *out);
/* Compiling what was collected; each inside one protected call. */
void hky_compile_engine(struct hky_loader *l);
void hky_compile_relays(struct hky_loader *l);
void hky_compile_routes(struct hky_loader *l);
void hky_compile_rows_specs(struct hky_loader *l); /* rows' relays, before hky_compile_relays */
void hky_compile_listen(struct hky_loader *l, int index, struct hky_place place, struct hky_engine_options *o);
void hky_compile_rules(struct hky_loader *l);
void hky_check_reach(struct hky_loader *l);
/* Warnings: policies that look right and lose mail. */
void hky_check_losses(struct hky_loader *l);
struct hky_secret_ref hky_read_secret(struct hky_loader *l, int index, const char *what, struct hky_place place);
const char *const *hky_read_strings(struct hky_loader *l, int index);
void hky_register_functions(struct hky_loader *l); /* worker: functions into vm->fns */

void hky_words_open(lua_State *L); /* the declaration words into the table on top */

#endif
