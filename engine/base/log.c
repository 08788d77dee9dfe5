#include "base/log.h"

#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct hky_log {
    int fd;
    bool is_journal;  /* the fd is systemd's journal */
    int level;        /* atomic */
    uint64_t dropped; /* atomic */
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* JOURNAL_STREAM=DEVICE:INODE says which stream that is (systemd.exec(5)). */
static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return stream != NULL && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(fd, &st) == 0 &&
           (unsigned long long)st.st_dev == dev && (unsigned long long)st.st_ino == ino;
}

struct hky_log *hky_log_new(int fd, enum hky_log_level level)
{
    struct hky_log *log = hky_calloc(1, sizeof *log);

    log->fd = fd;
    log->is_journal = is_journal(fd);
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

/* ---- one line ---- */

#define LINE_MOST 4096 /* PIPE_BUF: a line is written whole or not at all */

#define VALUE_END "...\"" /* behind a value that was cut */

struct line {
    size_t n;
    bool is_full; /* a value was cut because the line ends: nothing may follow it */
    char p[LINE_MOST];
};

/* There is always room left for VALUE_END and the end of the line. */
static bool has_room(const struct line *l, size_t n)
{
    size_t most = sizeof l->p - sizeof VALUE_END; /* the NUL of VALUE_END counts for the end of the line */

    return l->n <= most && n <= most - l->n;
}

/* False: there is no room. */
static bool add(struct line *l, const char *p, size_t n)
{
    if (!has_room(l, n))
        return false;
    memcpy(l->p + l->n, p, n);
    l->n += n;
    return true;
}

/* Writes one character of a value as it appears within quotes. Returns how many octets of `p` it was. */
static size_t escape(const char *p, size_t n, char out[8], size_t *n_out)
{
    unsigned char c = (unsigned char)p[0];
    uint32_t cp = 0;
    size_t len = c >= 0x80 ? hky_utf8_sequence(p, n, &cp) : 1;

    if (len > 1 && hky_utf8_is_misleading(cp)) {
        *n_out = (size_t)snprintf(out, 8, "\\u%04x", cp);
        return len;
    }
    if (len > 1 || (len == 1 && c >= 0x20 && c != 0x7f && c != '"' && c != '\\')) {
        memcpy(out, p, *n_out = len);
        return len;
    }
    if (c == '"' || c == '\\')
        *n_out = (size_t)snprintf(out, 8, "\\%c", c);
    else if (c == '\n')
        *n_out = (size_t)snprintf(out, 8, "\\n");
    else
        *n_out = (size_t)snprintf(out, 8, "\\x%02x", c);
    return 1;
}

static bool is_plain(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return false;
    }
    return s.n > 0;
}

/* Needs room for one octet; a longer value is cut to the room. */
static void add_value(struct line *l, struct hky_str s, bool is_quoted)
{
    bool is_cut = s.n > HKY_LOG_VALUE;
    const char *end;
    char out[8];
    size_t n_out;

    if (is_cut) /* not within a character, if it is one */
        for (s.n = HKY_LOG_VALUE; s.n > HKY_LOG_VALUE - 3 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80; s.n--)
            ;
    if (!is_quoted && !is_cut && is_plain(s) && add(l, s.p, s.n))
        return;
    if (!add(l, "\"", 1))
        return;
    for (size_t i = 0; i < s.n && !l->is_full;) {
        i += escape(s.p + i, s.n - i, out, &n_out);
        l->is_full = !add(l, out, n_out);
    }
    end = is_cut || l->is_full ? VALUE_END : "\"";
    memcpy(l->p + l->n, end, strlen(end)); /* has_room() leaves room for it */
    l->n += strlen(end);
}

/* ---- the format, taken apart before its arguments are put in ---- */

struct value {
    size_t n;
    char p[HKY_LOG_VALUE + 8];
};

static void put(struct value *v, const char *p, size_t n)
{
    size_t room = sizeof v->p - v->n;

    n = n < room ? n : room;
    memcpy(v->p + v->n, p, n);
    v->n += n;
}

static void put_number(struct value *v, const char *spec, size_t n_spec, char conversion, int n_long, va_list *ap)
{
    bool is_signed = conversion == 'd' || conversion == 'i';
    char fmt[32], out[64];
    long long x;
    int k;

    if (n_long < 0) /* z */
        x = (long long)va_arg(*ap, size_t);
    else if (n_long == 0)
        x = is_signed ? va_arg(*ap, int) : (long long)va_arg(*ap, unsigned);
    else if (n_long == 1)
        x = is_signed ? va_arg(*ap, long) : (long long)va_arg(*ap, unsigned long);
    else
        x = va_arg(*ap, long long);
    snprintf(fmt, sizeof fmt, "%.*sll%c", (int)(n_spec < 16 ? n_spec : 16), spec, conversion);
    k = snprintf(out, sizeof out, fmt, x);
    put(v, out, k < 0 ? 0 : (size_t)k < sizeof out ? (size_t)k : sizeof out - 1);
}

static void put_text(struct value *v, int precision, va_list *ap)
{
    const char *z = va_arg(*ap, const char *);

    if (z == NULL)
        put(v, "(null)", 6);
    else
        put(v, z, precision >= 0 ? strnlen(z, (size_t)precision) : strnlen(z, sizeof v->p));
}

/* `at` points to the "%"; returns what is behind the conversion. */
static const char *put_conversion(struct value *v, const char *at, va_list *ap)
{
    const char *spec = at++;
    int precision = -1, n_long = 0;

    at += strspn(at, "-+ #0");
    at += strspn(at, "0123456789");
    if (*at == '.' && at[1] == '*') {
        precision = va_arg(*ap, int);
        at += 2;
    } else if (*at == '.') {
        precision = atoi(at + 1);
        at += 1 + strspn(at + 1, "0123456789");
    }
    size_t n_spec = (size_t)(at - spec);
    for (; *at == 'l' || *at == 'h' || *at == 'z'; at++)
        n_long = *at == 'z' ? -1 : *at == 'l' ? n_long + 1 : n_long;
    switch (*at) {
    case 's':
        put_text(v, precision, ap);
        break;
    case 'c':
        put(v, &(char){(char)va_arg(*ap, int)}, 1);
        break;
    case '%':
        put(v, "%", 1);
        break;
    default:
        HKY_ASSERT(*at != '\0' && strchr("diuxX", *at) != NULL); /* a conversion that this writer does not know */
        put_number(v, spec, n_spec, *at, n_long, ap);
    }
    return at + 1;
}

static const char *key_end(const char *at)
{
    const char *p = at;

    while ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_')
        p++;
    return p > at && *p == '=' ? p + 1 : NULL;
}

/* The value at `at`: up to a blank, or to the closing quote, or, for a note, to the end. */
static const char *add_pair(struct line *l, const char *at, bool is_note, va_list *ap)
{
    struct value v = {0};
    bool is_quoted = !is_note && *at == '"';

    at += is_quoted;
    while (*at != '\0' && (is_note || (is_quoted ? *at != '"' : *at != ' ')))
        if (*at == '%') {
            at = put_conversion(&v, at, ap);
        } else {
            bool is_mark = !is_quoted && !is_note && strchr(":;,", *at) != NULL && (at[1] == ' ' || at[1] == '\0');
            put(&v, at++, is_mark ? 0 : 1);
        }
    at += is_quoted && *at == '"';
    add_value(l, hky_str_of(v.p, v.n), is_quoted || is_note);
    return at;
}

static void add_pairs(struct line *l, const char *fmt, va_list *ap)
{
    const char *at = fmt, *end;
    struct hky_str key;

    for (;;) {
        at += strspn(at, " ");
        if (at > fmt && (at[-1] == '"' || at[-1] == ' ')) /* `why="%s": a note` */
            at += strspn(at, ":;, ");
        if (*at == '\0')
            return;
        end = key_end(at);
        key = end != NULL ? hky_str_of(at, (size_t)(end - at)) : HKY_STR("note=");
        if (l->is_full || !has_room(l, 1 + key.n + 1)) /* a key without its value would mislead */
            return;
        (void)add(l, " ", 1);
        (void)add(l, key.p, key.n);
        at = add_pair(l, end != NULL ? end : at, end == NULL, ap);
    }
}

void hky_log(struct hky_log *log, enum hky_log_level level, const char *ev, const char *fmt, ...)
{
    static const int priorities[] = {3, 4, 6, 7}; /* of syslog: err, warning, info, debug */
    struct line l = {0};
    struct timespec now;
    struct tm tm;
    struct pollfd writable;
    va_list ap;

    if (!hky_log_is_on(log, level))
        return;
    if (log->is_journal)
        l.n = (size_t)snprintf(l.p, sizeof l.p, "<%d>", priorities[level]);
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    l.n += strftime(l.p + l.n, sizeof l.p - l.n, "%Y-%m-%dT%H:%M:%S", &tm);
    l.n += (size_t)snprintf(l.p + l.n, sizeof l.p - l.n, ".%03ldZ %-5s ev=", now.tv_nsec / 1000000, level_names[level]);
    add_value(&l, hky_str_z(ev), false);
    va_start(ap, fmt);
    add_pairs(&l, fmt, &ap);
    va_end(ap);
    l.p[l.n++] = '\n';
    writable = (struct pollfd){.fd = log->fd, .events = POLLOUT};
    if (poll(&writable, 1, 0) != 1 || write(log->fd, l.p, l.n) != (ssize_t)l.n)
        __atomic_add_fetch(&log->dropped, 1, __ATOMIC_RELAXED);
}

uint64_t hky_log_dropped(const struct hky_log *log)
{
    return __atomic_load_n(&log->dropped, __ATOMIC_RELAXED);
}
