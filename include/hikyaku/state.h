/*
 * state -- what is neither mail nor history and must not be lost: relays that an operator paused or drained, refreshed
 * tokens, what was learned of servers. It is kept in state.db of the spool.                  [state] <- deliver, engine
 * Values are text under a kind and a key. All of them are in memory; one thread writes changes through.
 * Threads: any, except where something else is said.
 */
#ifndef HIKYAKU_STATE_H
#define HIKYAKU_STATE_H

#include "base/error.h"
#include "base/log.h"

struct hky_state; /* the open state.db; owned by the engine */

/* `dir`: the spool. `log` borrowed, may be NULL. HKY_E_IO: it cannot be read or made; `e` says what to do. */
enum hky_err hky_state_open(const char *dir, struct hky_log *log, struct hky_state **out, struct hky_error *e);
/* Writes what was put, then frees. */
void hky_state_close(struct hky_state **s);

/* A copy, or NULL. */
char *hky_state_get(struct hky_state *s, const char *kind, const char *key);
/* Returns before it is on disk. value NULL removes. */
void hky_state_put(struct hky_state *s, const char *kind, const char *key, const char *value);
/* What was put before is on disk, or the log says why not: calls `written` then, on the thread that writes; before
 * hky_state_close returns in any case. */
void hky_state_when_written(struct hky_state *s, void (*written)(void *ctx), void *ctx);
/* `each` runs under the lock of the state: it must not call hky_state_... */
void hky_state_each(struct hky_state *s, const char *kind, void (*each)(void *ctx, const char *key, const char *value),
                    void *ctx);

#endif
