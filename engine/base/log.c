#include "base/log.h"

#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct hky_log {
    int fd;
    int level;        /* atomic */
    uint64_t dropped; /* atomic */
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

struct hky_log *hky_log_new(int fd, enum hky_log_level level)
{
    struct hky_log *log = hky_calloc(1, sizeof *log);

    log->fd = fd;
    log->level = (int)level;
    return log;
}

void hky_log_free(struct hky_log **log)
{
    free(*log);
    *log = NULL;
}

bool hky_log_is_on(const struct hky_log *log, enum hky_log_level level)
{
    return log != NULL && (int)level <= __atomic_load_n(&log->level, __ATOMIC_RELAXED);
}

void hky_log_set_level(struct hky_log *log, enum hky_log_level level)
{
    __atomic_store_n(&log->level, (int)level, __ATOMIC_RELAXED);
}

bool hky_log_level_parse(struct hky_str name, enum hky_log_level *level)
{
    for (int i = 0; i <= HKY_LOG_DEBUG; i++) {
        if (hky_str_ieq(name, hky_str_z(level_names[i]))) {
            *level = (enum hky_log_level)i;
            return true;
        }
    }
    return false;
}

void hky_log(struct hky_log *log, enum hky_log_level level, const char *ev, const char *fmt, ...)
{
    char line[2048];
    struct timespec now;
    struct tm tm;
    struct pollfd writable;
    va_list ap;
    size_t n;
    int k;

    if (!hky_log_is_on(log, level))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %-5s ev=%s ", now.tv_nsec / 1000000, level_names[level],
                          ev);
    va_start(ap, fmt);
    k = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    if (k < 0)
        return;
    size_t from = n;
    n = (size_t)k < sizeof line - n - 1 ? n + (size_t)k : sizeof line - 2;
    for (size_t i = from; i < n; i++) /* one event, one line, whoever wrote its text */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    writable = (struct pollfd){.fd = log->fd, .events = POLLOUT};
    if (poll(&writable, 1, 0) != 1 || write(log->fd, line, n) != (ssize_t)n)
        __atomic_add_fetch(&log->dropped, 1, __ATOMIC_RELAXED);
}

uint64_t hky_log_dropped(const struct hky_log *log)
{
    return __atomic_load_n(&log->dropped, __ATOMIC_RELAXED);
}

const char *hky_log_quote(struct hky_str s, char out[HKY_LOG_QUOTED])
{
    size_t n = 0, most = s.n < 120 ? s.n : 120;

    out[n++] = '"';
    for (size_t i = 0; i < most; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f)
            n += (size_t)snprintf(out + n, 5, "\\x%02x", c);
        else if (c == '"' || c == '\\')
            out[n++] = '\\', out[n++] = (char)c;
        else
            out[n++] = (char)c;
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}
