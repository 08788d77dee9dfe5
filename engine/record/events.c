/*
 * The event log: workers format a line into their own buffer under a lock that only the writer contends for; the writer
 * thread swaps buffers and writes. The buffers outlive a kill of the process (pending.h). What does not fit is dropped
 * and counted, mail is never held up.
 */
#include "record/record.h"

#include "base/hash.h"
#include "base/thread.h"
#include "record/pending.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WRITE_EVERY_MS 100
#define WAKE_OCTETS    (64u << 10)
#define ROTATED_KEPT   8
#define DEFAULT_BUFFER (2u << 20) /* a worker: 0.7 s of 10,000 events a second */
#define DEFAULT_ROTATE (UINT64_C(256) << 20)

/* What a worker has not yet handed to the writer. */
struct lines {
    pthread_mutex_t lock;
    struct hky_buf buf;
    uint64_t dropped;
    int64_t second; /* whose text is in `stamp` */
    char stamp[32];
};

struct hky_events {
    struct pending pending;
    struct lines *lines; /* n_workers and one for the others */
    unsigned n_lines;
    char *path;
    int fd;
    uint64_t written, rotate_octets;
    uint64_t dropped; /* atomic */
    struct hky_log *log;
    const struct hky_clock *clock;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_stopping, is_reopening, is_awake;
    /* the writer's: */
    struct hky_buf out; /* lines being written; octets up to n_out are in the file */
    size_t n_out;
    bool is_torn;  /* the file ends in half a line */
    bool is_stuck; /* it takes nothing at the moment */
};

static const char *const names[] = {
#define X(id, name, doc) name,
    HKY_EVENTS(X)
#undef X
};

const char *hky_event_name(enum hky_event_kind k)
{
    return (unsigned)k < HKY_EVENT_N ? names[k] : "?";
}

/* ---- one line ---- */

static void add_key(struct hky_buf *b, const char *key)
{
    hky_buf_add(b, ",\"", 2);
    hky_buf_add_z(b, key);
    hky_buf_add(b, "\":", 2);
}

static void add_text(struct hky_buf *b, const char *key, struct hky_str value)
{
    if (value.n == 0)
        return;
    add_key(b, key);
    hky_buf_add_json(b, value);
}

static void add_number(struct hky_buf *b, const char *key, int64_t value)
{
    add_key(b, key);
    hky_buf_add_decimal(b, value);
}

static void format_second(int64_t second, char out[32])
{
    time_t t = (time_t)second;
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
}

/* `second` is the text of at_ms / 1000. */
static void add_instant(struct hky_buf *b, const char *second, int64_t at_ms)
{
    char ms[3];

    hky_decimal_padded(ms, (uint64_t)(at_ms % 1000), 3);
    hky_buf_add_c(b, '"');
    hky_buf_add_z(b, second);
    hky_buf_add_c(b, '.');
    hky_buf_add(b, ms, sizeof ms);
    hky_buf_add(b, "Z\"", 2);
}

static void add_time(struct hky_buf *b, const char *key, int64_t at_ms)
{
    char second[32];

    format_second(at_ms / 1000, second);
    add_key(b, key);
    add_instant(b, second, at_ms);
}

static void add_pairs(struct hky_buf *b, const char *key, struct hky_str packed)
{
    struct hky_str name, value;
    bool is_first = true;

    if (packed.n == 0)
        return;
    add_key(b, key);
    hky_buf_add_c(b, '{');
    for (size_t at = 0; hky_packed_next(packed, &at, &name) && hky_packed_next(packed, &at, &value); is_first = false) {
        if (!is_first)
            hky_buf_add_c(b, ',');
        hky_buf_add_json(b, name);
        hky_buf_add_c(b, ':');
        hky_buf_add_json(b, value);
    }
    hky_buf_add_c(b, '}');
}

static void add_plan(struct hky_buf *b, const struct hky_plan *plan)
{
    add_key(b, "plan");
    hky_buf_add_c(b, '[');
    for (unsigned i = 0; i < plan->n_steps; i++) {
        if (i > 0)
            hky_buf_add_c(b, ',');
        hky_buf_add_json(b, hky_str_z(plan->steps[i].relay));
    }
    hky_buf_add_c(b, ']');
}

static void add_outcome(struct hky_buf *b, const struct hky_outcome *o)
{
    add_text(b, "class", hky_str_z(hky_class_name(o->class)));
    if (o->class != HKY_CLASS_OK)
        add_text(b, "scope", hky_str_z(hky_scope_name(o->scope)));
    add_text(b, "stage", hky_str_z(hky_stage_name(o->stage)));
    if (o->reply.code != 0)
        add_number(b, "code", o->reply.code);
    if (o->reply.enhanced[0] != 0) {
        add_key(b, "enhanced");
        hky_buf_add_c(b, '"');
        hky_buf_add_decimal(b, o->reply.enhanced[0]);
        hky_buf_add_c(b, '.');
        hky_buf_add_decimal(b, o->reply.enhanced[1]);
        hky_buf_add_c(b, '.');
        hky_buf_add_decimal(b, o->reply.enhanced_detail);
        hky_buf_add_c(b, '"');
    }
    add_text(b, "reply", hky_str_of(o->reply.text, o->reply.n));
    if (o->latency_ms > 0)
        add_number(b, "latency_ms", o->latency_ms);
}

static void add_message(struct hky_buf *b, const struct hky_event *ev)
{
    const struct hky_message *m = ev->message;
    char id[HKY_ID_TEXT];

    hky_id_format(m->id, id);
    add_text(b, "id", hky_str_z(id));
    add_text(b, "scenario", hky_message_fact(m, HKY_FACT_SCENARIO));
    add_text(b, "ref", hky_message_fact(m, HKY_FACT_REF));
    if (ev->kind != HKY_EVENT_ACCEPTED && ev->kind != HKY_EVENT_REFUSED)
        return;
    add_text(b, "sender", hky_message_fact(m, HKY_FACT_SENDER));
    add_text(b, "author", hky_message_fact(m, HKY_FACT_AUTHOR));
    add_text(b, "user", hky_message_fact(m, HKY_FACT_USER));
    add_text(b, "client", hky_message_fact(m, HKY_FACT_CLIENT));
    add_text(b, "source", hky_message_fact(m, HKY_FACT_SOURCE));
    add_text(b, "message_id", hky_message_fact(m, HKY_FACT_MESSAGE_ID));
    add_number(b, "size", (int64_t)m->size);
}

static void add_recipient(struct hky_buf *b, const struct hky_event *ev)
{
    const struct hky_recipient *r = ev->recipient;

    add_text(b, "rcpt", hky_recipient_address(r));
    if (r->plan != NULL) {
        add_text(b, "route", hky_str_z(r->plan->route));
        if (ev->kind == HKY_EVENT_ACCEPTED || ev->kind == HKY_EVENT_UNPARKED || ev->kind == HKY_EVENT_DECIDED)
            add_plan(b, r->plan);
        else
            add_number(b, "step", r->step + 1);
    }
    add_pairs(b, "arms", hky_str_of(r->arms, r->arms != NULL ? r->arms_n : 0));
    if (ev->kind != HKY_EVENT_ACCEPTED)
        add_number(b, "attempts", r->attempts);
}

static void add_line(struct lines *l, const struct hky_event *ev)
{
    struct hky_buf *b = &l->buf;
    bool is_until = ev->kind == HKY_EVENT_RELAY_PAUSED || ev->kind == HKY_EVENT_RELAY_DRAINED;

    if (ev->at_ms / 1000 != l->second) {
        l->second = ev->at_ms / 1000;
        format_second(l->second, l->stamp);
    }
    hky_buf_add_z(b, "{\"ev\":\"");
    hky_buf_add_z(b, hky_event_name(ev->kind));
    hky_buf_add_z(b, "\",\"time\":");
    add_instant(b, l->stamp, ev->at_ms);
    if (ev->message != NULL)
        add_message(b, ev);
    if (ev->recipient != NULL)
        add_recipient(b, ev);
    else
        add_text(b, "route", hky_str_z(ev->route));
    add_text(b, "relay", hky_str_z(ev->relay));
    add_text(b, "to", hky_str_z(ev->to));
    add_text(b, "account", hky_str_z(ev->account));
    add_text(b, "mx", hky_str_z(ev->mx));
    add_text(b, "from", hky_str_z(ev->from));
    add_text(b, ev->kind == HKY_EVENT_REFUSED ? "sender" : "envelope", hky_str_z(ev->sender));
    add_text(b, "rcpt", hky_str_z(ev->rcpt));
    add_text(b, "user", hky_str_z(ev->user));
    add_text(b, "client", hky_str_z(ev->client));
    if (ev->outcome != NULL)
        add_outcome(b, ev->outcome);
    if (ev->next_at_ms > 0)
        add_time(b, is_until ? "until" : "next_at", ev->next_at_ms);
    if (ev->delay_ms > 0)
        add_number(b, "delay_ms", ev->delay_ms);
    add_text(b, "text", hky_str_z(ev->text));
    hky_buf_add(b, "}\n", 2);
}

void hky_events_add(struct hky_events *ev, unsigned worker, const struct hky_event *event)
{
    struct lines *l = &ev->lines[worker < ev->n_lines - 1 ? worker : ev->n_lines - 1];
    size_t before, after;

    pthread_mutex_lock(&l->lock);
    before = l->buf.n;
    add_line(l, event);
    if (l->buf.is_over) {
        l->buf.n = before;
        l->buf.is_over = false;
        l->dropped++;
        __atomic_add_fetch(&ev->dropped, 1, __ATOMIC_RELAXED);
    }
    pending_keep(&l->buf);
    after = l->buf.n;
    pthread_mutex_unlock(&l->lock);
    if (before < WAKE_OCTETS && after >= WAKE_OCTETS) {
        pthread_mutex_lock(&ev->lock);
        ev->is_awake = true;
        pthread_cond_signal(&ev->wake);
        pthread_mutex_unlock(&ev->lock);
    }
}

/* ---- the writer ---- */

static enum hky_err open_file(struct hky_events *ev, struct hky_error *e)
{
    struct stat st;

    ev->fd = open(ev->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (ev->fd < 0 && errno == EACCES) /* reading is for pending.h, which can do without */
        ev->fd = open(ev->path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    if (ev->fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open the event log %s", ev->path);
    ev->written = fstat(ev->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    ev->is_torn = pending_is_torn(ev->fd);
    return HKY_OK;
}

static void remove_oldest(struct hky_events *ev)
{
    char pattern[4096];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%.*s-*.jsonl", (int)(strlen(ev->path) - strlen(".jsonl")), ev->path);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; found.gl_pathc > ROTATED_KEPT && i < found.gl_pathc - ROTATED_KEPT; i++)
            unlink(found.gl_pathv[i]);
        globfree(&found);
    }
}

/* Two rotations within one second must not share a name: the later would overwrite the earlier. */
static int rename_aside(struct hky_events *ev)
{
    int stem = (int)(strlen(ev->path) - strlen(".jsonl"));
    char to[4096], second[32];

    format_second(hky_clock_now_ms(ev->clock) / 1000, second);
    for (int i = 0; i < 1000; i++) {
        snprintf(to, sizeof to, "%.*s-%s.%03d.jsonl", stem, ev->path, second, i);
        if (renameat2(AT_FDCWD, ev->path, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}

static void rotate(struct hky_events *ev)
{
    struct hky_error e;

    if (rename_aside(ev) != 0) {
        hky_log(ev->log, HKY_LOG_ERROR, "event_log", "what=rotate error=\"%s\"", strerror(errno));
        ev->written = 0; /* not again for every line */
        return;
    }
    close(ev->fd);
    if (open_file(ev, &e) != HKY_OK)
        hky_log(ev->log, HKY_LOG_ERROR, "event_log", "what=open error=\"%s\"", e.text);
    remove_oldest(ev);
}

/* The file shows whole lines also while it takes no more. `end` is where it ends if nobody else writes to it. */
static void cut_back(struct hky_events *ev, uint64_t end)
{
    const char *p = ev->out.p;
    size_t start = ev->n_out;
    struct stat st;

    while (start > 0 && p[start - 1] != '\n')
        start--;
    if (start == ev->n_out)
        return;
    if (fstat(ev->fd, &st) == 0 && (uint64_t)st.st_size == end &&
        ftruncate(ev->fd, st.st_size - (off_t)(ev->n_out - start)) == 0)
        ev->written -= ev->n_out - start;
    else
        ev->is_torn = true;
    ev->n_out = start;
}

/* False: the file takes no more just now; the rest waits in ev->out. */
static bool write_out(struct hky_events *ev)
{
    struct hky_error e;
    struct stat st;
    uint64_t end;

    if (ev->fd < 0 && open_file(ev, &e) != HKY_OK) /* it was told when that failed first */
        return false;
    if (ev->is_torn && write(ev->fd, "\n", 1) != 1)
        return false;
    ev->is_torn = false;
    end = fstat(ev->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    pending_begin(&ev->out, ev->n_out, ev->fd);
    while (ev->n_out < ev->out.n) {
        ssize_t k = write(ev->fd, ev->out.p + ev->n_out, ev->out.n - ev->n_out);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            int why = errno;
            cut_back(ev, end);
            errno = why;
            return false;
        }
        ev->n_out += (size_t)k;
        ev->written += (uint64_t)k;
        end += (uint64_t)k;
    }
    pending_end(&ev->out);
    hky_buf_clear(&ev->out);
    ev->n_out = 0;
    return true;
}

/* Said once when it begins and once when it is over, not for each try. */
static bool write_all(struct hky_events *ev)
{
    bool is_out = write_out(ev);

    if (!is_out && !ev->is_stuck)
        hky_log(ev->log, HKY_LOG_ERROR, "event_log",
                "what=write error=\"%s\": lines wait; when their buffer is full they are dropped and counted",
                strerror(errno));
    else if (is_out && ev->is_stuck)
        hky_log(ev->log, HKY_LOG_INFO, "event_log", "what=written_again");
    ev->is_stuck = !is_out;
    return is_out;
}

static uint64_t count_lines(struct hky_str s)
{
    uint64_t n = 0;

    for (const char *at = s.p; (at = memchr(at, '\n', (size_t)(s.p + s.n - at))) != NULL; at++)
        n++;
    return n;
}

static void tell_left(struct hky_events *ev, const struct pending_left *left)
{
    if (left->n_lines > 0)
        hky_log(ev->log, HKY_LOG_INFO, "event_log", "what=recovered lines=%lu", (unsigned long)left->n_lines);
    if (left->n_damaged > 0) {
        __atomic_add_fetch(&ev->dropped, left->n_damaged, __ATOMIC_RELAXED);
        hky_log(ev->log, HKY_LOG_WARN, "event_log", "what=recovered damaged_lines=%lu", (unsigned long)left->n_damaged);
    }
    ev->is_torn = pending_is_torn(ev->fd);
}

static void flush(struct hky_events *ev)
{
    struct pending_left left;

    if (ev->pending.has_left) { /* they are older than those that wait */
        struct hky_error e;
        if ((ev->fd < 0 && open_file(ev, &e) != HKY_OK) || !pending_recover(&ev->pending, ev->fd, &left))
            return;
        tell_left(ev, &left);
    }
    if (ev->out.n > 0 && !write_all(ev))
        return;
    for (unsigned i = 0; i < ev->n_lines; i++) {
        struct lines *l = &ev->lines[i];
        uint64_t dropped;
        struct hky_buf swap;

        pthread_mutex_lock(&l->lock);
        swap = l->buf;
        l->buf = ev->out;
        ev->out = swap;
        dropped = l->dropped;
        l->dropped = 0;
        pthread_mutex_unlock(&l->lock);
        if (dropped > 0) {
            char text[64];
            struct hky_event lost = {.kind = HKY_EVENT_DROPPED, .at_ms = hky_clock_now_ms(ev->clock), .text = text};
            snprintf(text, sizeof text, "%lu events", (unsigned long)dropped);
            hky_events_add(ev, UINT32_MAX, &lost);
            hky_log(ev->log, HKY_LOG_WARN, "event_log", "what=dropped n=%lu", (unsigned long)dropped);
        }
        if (ev->out.n > 0 && !write_all(ev))
            return;
        if (ev->written >= ev->rotate_octets)
            rotate(ev);
    }
}

static void *writer(void *arg)
{
    struct hky_events *ev = arg;
    bool is_stopping = false;

    while (!is_stopping) {
        struct timespec until;
        struct hky_error e;
        bool is_reopening;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WRITE_EVERY_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&ev->lock);
        while (!ev->is_stopping && !ev->is_reopening && !ev->is_awake)
            if (pthread_cond_timedwait(&ev->wake, &ev->lock, &until) == ETIMEDOUT)
                break;
        is_stopping = ev->is_stopping;
        is_reopening = ev->is_reopening;
        ev->is_reopening = ev->is_awake = false;
        pthread_mutex_unlock(&ev->lock);
        flush(ev);
        if (is_reopening) {
            if (ev->fd >= 0)
                close(ev->fd);
            if (open_file(ev, &e) != HKY_OK)
                hky_log(ev->log, HKY_LOG_ERROR, "event_log", "what=reopen error=\"%s\"", e.text);
        }
    }
    return NULL;
}

enum hky_err hky_events_open(const struct hky_record_params *p, struct hky_events **out, struct hky_error *e)
{
    struct hky_events *ev = hky_calloc(1, sizeof *ev);
    size_t most;
    pthread_condattr_t attr;
    struct pending_left left;
    enum hky_err err;

    *out = NULL;
    ev->log = p->log;
    ev->clock = p->clock;
    ev->rotate_octets = p->rotate_octets > 0 ? p->rotate_octets : DEFAULT_ROTATE;
    ev->path = hky_alloc(strlen(p->dir) + sizeof "/events.jsonl");
    sprintf(ev->path, "%s/events.jsonl", p->dir);
    if ((err = open_file(ev, e)) != HKY_OK) {
        free(ev->path);
        free(ev);
        return err;
    }
    ev->n_lines = p->n_workers + 1;
    most = p->buffer_octets > 0 ? p->buffer_octets / ev->n_lines : DEFAULT_BUFFER;
    if (pending_open(&ev->pending, p->dir, ev->n_lines + 1, most, ev->fd, &left, e) != HKY_OK)
        hky_log(ev->log, HKY_LOG_WARN, "event_log", "what=pending error=\"%s\"", e->text);
    tell_left(ev, &left);
    ev->lines = hky_calloc(ev->n_lines, sizeof *ev->lines);
    for (unsigned i = 0; i < ev->n_lines; i++) {
        pthread_mutex_init(&ev->lines[i].lock, NULL);
        ev->lines[i].buf = pending_buf(&ev->pending, i, most);
    }
    ev->out = pending_buf(&ev->pending, ev->n_lines, most);
    pthread_mutex_init(&ev->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ev->wake, &attr);
    pthread_condattr_destroy(&attr);
    HKY_ASSERT(hky_thread_start(&ev->thread, writer, ev) == 0);
    *out = ev;
    return HKY_OK;
}

/* What the file did not take before the end waits for the next start, if it lies in a file. */
static bool keep_rest(struct hky_events *ev)
{
    uint64_t n = count_lines(hky_str_of(ev->out.p + ev->n_out, ev->out.n - ev->n_out));
    bool can_keep = ev->pending.fd >= 0 && !ev->pending.has_left;

    for (unsigned i = 0; i < ev->n_lines; i++)
        n += count_lines(hky_buf_str(&ev->lines[i].buf));
    if (n == 0)
        return false;
    hky_log(ev->log, can_keep ? HKY_LOG_WARN : HKY_LOG_ERROR, "event_log", "what=%s n=%lu",
            can_keep ? "kept_for_the_next_start" : "lost_lines", (unsigned long)n);
    return can_keep;
}

void hky_events_close(struct hky_events **events)
{
    struct hky_events *ev = *events;
    bool is_kept;

    *events = NULL;
    if (ev == NULL)
        return;
    pthread_mutex_lock(&ev->lock);
    ev->is_stopping = true;
    pthread_cond_signal(&ev->wake);
    pthread_mutex_unlock(&ev->lock);
    pthread_join(ev->thread, NULL);
    is_kept = keep_rest(ev);
    for (unsigned i = 0; i < ev->n_lines; i++)
        pthread_mutex_destroy(&ev->lines[i].lock);
    pending_close(&ev->pending, is_kept);
    if (ev->fd >= 0)
        close(ev->fd);
    pthread_cond_destroy(&ev->wake);
    pthread_mutex_destroy(&ev->lock);
    free(ev->lines);
    free(ev->path);
    free(ev);
}

void hky_events_reopen(struct hky_events *ev)
{
    pthread_mutex_lock(&ev->lock);
    ev->is_reopening = true;
    pthread_cond_signal(&ev->wake);
    pthread_mutex_unlock(&ev->lock);
}

uint64_t hky_events_dropped(const struct hky_events *ev)
{
    return __atomic_load_n(&ev->dropped, __ATOMIC_RELAXED);
}
