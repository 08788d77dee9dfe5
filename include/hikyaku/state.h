/*
 * state -- keeps what is neither mail nor history and must not be lost: which relays an operator paused or drained,
 * refreshed tokens, what was learned about servers. It is kept in state.db of the spool.
 *                                                                                          [state] <- deliver, engine
 * Values are text under a kind and a key. All of them are in memory; one thread writes changes through.
 * Threads: any, unless a comment below says otherwise.
 */
#ifndef HIKYAKU_STATE_H
#define HIKYAKU_STATE_H

#include "base/error.h"
#include "base/log.h"

struct hky_state; /* the open state.db; owned by the engine */

/* `dir` is the spool; `log` is borrowed and may be NULL. HKY_E_IO: state.db cannot be read or made; `e` says what to
 * do. */
enum hky_err hky_state_open(const char *dir, struct hky_log *log, struct hky_state **out, struct hky_error *e);
/* Writes all changes, then frees. */
void hky_state_close(struct hky_state **s);

/* Returns a copy, or NULL when there is no value. */
char *hky_state_get(struct hky_state *s, const char *kind, const char *key);
/* Returns before the change is on disk. A `value` of NULL removes the entry. */
void hky_state_put(struct hky_state *s, const char *kind, const char *key, const char *value);
/* Calls `written` once every earlier change was tried, on the thread that writes, and in any case before
 * hky_state_close returns. With is_on_disk false the disk fails: the log says why, and what is not written is tried
 * again each second. */
void hky_state_when_written(struct hky_state *s, void (*written)(void *ctx, bool is_on_disk), void *ctx);
/* `each` runs under the lock of the state: it must not call any hky_state_ function. */
void hky_state_each(struct hky_state *s, const char *kind, void (*each)(void *ctx, const char *key, const char *value),
                    void *ctx);

#endif
