/*
 * log -- one event, one line: fixed keys first, peer text escaped and cut. Never blocks: a full pipe drops and counts.
 * Error: someone must act; warn: degraded; info: life of a message; debug: protocol.
 */
#ifndef HKY_BASE_LOG_H
#define HKY_BASE_LOG_H

#include "base/str.h"

enum hky_log_level { HKY_LOG_ERROR, HKY_LOG_WARN, HKY_LOG_INFO, HKY_LOG_DEBUG };

struct hky_log; /* where lines go; owned by the engine, shared by all threads */

struct hky_log *hky_log_new(int fd, enum hky_log_level level); /* fd borrowed, usually 2 */
void hky_log_free(struct hky_log **log);
bool hky_log_is_on(const struct hky_log *log, enum hky_log_level level); /* false for NULL */
void hky_log_set_level(struct hky_log *log, enum hky_log_level level);
bool hky_log_level_parse(struct hky_str name, enum hky_log_level *level); /* error warn info debug */

/* `ev` names the event, the format gives key=value pairs: hky_log(log, HKY_LOG_INFO, "accepted", "msg=%s n=%d", ...).
 */
void hky_log(struct hky_log *log, enum hky_log_level level, const char *ev, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
uint64_t hky_log_dropped(const struct hky_log *log);

/* Text of a peer for a log line: quoted, at most 120 octets, control octets as \xNN. `out` holds HKY_LOG_QUOTED. */
#define HKY_LOG_QUOTED 512
const char *hky_log_quote(struct hky_str s, char out[HKY_LOG_QUOTED]);

#endif
