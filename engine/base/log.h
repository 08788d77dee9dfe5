/*
 * log -- one event, one line of key=value pairs (logfmt). Never blocks: a full pipe drops and counts.
 * Error: someone must act; warn: degraded; info: life of a message; debug: protocol.
 */
#ifndef HKY_BASE_LOG_H
#define HKY_BASE_LOG_H

#include "base/str.h"

enum hky_log_level { HKY_LOG_ERROR, HKY_LOG_WARN, HKY_LOG_INFO, HKY_LOG_DEBUG };

struct hky_log; /* where lines go; owned by the engine, shared by all threads */

/* fd borrowed, usually 2. Where systemd's journal reads it (JOURNAL_STREAM), each line begins with its priority (<3>).
 */
struct hky_log *hky_log_new(int fd, enum hky_log_level level);
void hky_log_free(struct hky_log **log);
bool hky_log_is_on(const struct hky_log *log, enum hky_log_level level); /* false for NULL */
void hky_log_set_level(struct hky_log *log, enum hky_log_level level);
bool hky_log_level_parse(struct hky_str name, enum hky_log_level *level); /* error warn info debug */

/*
 * `ev` names the event, `fmt` is a list of key=value pairs: hky_log(log, HKY_LOG_INFO, "accepted", "msg=%s n=%d", ...).
 * The writer takes the pairs of `fmt` apart before it puts in the arguments, so no argument can forge a pair or a line,
 * whatever is in it: a value is quoted where it has to be, and always where `fmt` has quotes ("why=\"%s\"", needed
 * around blanks of `fmt` itself); inside quotes, quotes, backslashes, controls, direction marks and octets that are not
 * UTF-8 are escaped (\" \\ \n \xNN); other text stays readable. A value is cut at HKY_LOG_VALUE octets, and where the
 * line would be longer than PIPE_BUF; pairs behind that are left out. Words of `fmt` that belong to no key are taken to
 * its end as note="...". Conversions: %s %.*s %c and whole numbers (d i u x X with h, l, ll, z).
 */
#define HKY_LOG_VALUE 1000
void hky_log(struct hky_log *log, enum hky_log_level level, const char *ev, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
uint64_t hky_log_dropped(const struct hky_log *log);

#endif
