/*
 * The event log, events.jsonl, is the first reader of events: every 100 ms it appends the new ones. A kill between an
 * append and the commit of the cursor doubles no line, because the number in the last line of the file says which event
 * was written last.
 */
#include "record/internal.h"

#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_EVERY_MS 100
#define ROTATED_KEPT   8
#define DEFAULT_ROTATE (UINT64_C(256) << 20)
#define BATCH          16           /* few enough that the views stay in the nearest cache */
#define OUT_SOFT       (256u << 10) /* octets of one write, about */
#define TAIL           (256u << 10) /* octets at the end of the file in which the last number is looked for */

struct record_event_log {
    struct hky_record *record;
    struct hky_record_reader *reader;
    struct hky_loop *loop;
    pthread_t thread;
    bool is_running;
    struct hky_timer timer;
    struct hky_task reopen;
    bool is_reopen_posted; /* atomic */
    struct hky_log *log;
    const struct hky_clock *clock;
    char *path;
    int fd;
    uint64_t written, rotate_octets;
    struct hky_buf out; /* lines being written; octets up to n_out are in the file */
    size_t n_out;
    uint64_t out_to;      /* the number of the last line in `out` */
    struct hky_buf half;  /* the incomplete line in which the file ends */
    bool is_torn;         /* the file may end in an incomplete line that is not in `half` */
    bool is_stuck;        /* the file cannot be written to at the moment */
    uint64_t file_number; /* of the last whole line in the file; 0 not known */
    struct record_stamp stamp;
    struct hky_event_view views[BATCH];
};

/* ---- the file ---- */

/* The number of a line: 12 of {"ev":"delivered","number":12,...; 0: it is no line of the event log. */
static uint64_t number_of(struct hky_str line)
{
    static const char begin[] = "{\"ev\":\"", key[] = "\",\"number\":";
    const char *p = line.n > sizeof begin ? memmem(line.p, line.n < 80 ? line.n : 80, key, sizeof key - 1) : NULL;
    uint64_t n = 0;

    if (p == NULL || memcmp(line.p, begin, sizeof begin - 1) != 0)
        return 0;
    for (p += sizeof key - 1; p < line.p + line.n && *p >= '0' && *p <= '9' && n < UINT64_MAX / 100; p++)
        n = n * 10 + (uint64_t)(*p - '0');
    return n;
}

/* Finds the number of the last whole line in the file, and an incomplete line behind it. */
static void read_tail(struct record_event_log *l, uint64_t octets)
{
    size_t n = octets < TAIL ? (size_t)octets : TAIL, end, begin;
    char *p = hky_alloc(n + 1);

    hky_buf_clear(&l->half);
    l->file_number = 0;
    l->is_torn = false;
    if (pread(l->fd, p, n, (off_t)(octets - n)) != (ssize_t)n) {
        l->is_torn = octets > 0; /* no permission to read: it may end in an incomplete line */
        free(p);
        return;
    }
    for (end = n; end > 0 && p[end - 1] != '\n'; end--)
        ;
    for (begin = end > 0 ? end - 1 : 0; begin > 0 && p[begin - 1] != '\n'; begin--)
        ;
    if (end > 0)
        l->file_number = number_of(hky_str_of(p + begin, end - begin));
    hky_buf_add(&l->half, p + end, n - end);
    free(p);
}

static enum hky_err open_file(struct record_event_log *l, struct hky_error *e)
{
    struct stat st;

    l->fd = open(l->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (l->fd < 0 && errno == EACCES)
        l->fd = open(l->path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    if (l->fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open the event log %s", l->path);
    l->written = fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    read_tail(l, l->written);
    return HKY_OK;
}

struct rotated {
    uint64_t number; /* of its first event */
    const char *path;
};

/* 0: there is none, or it is larger than that of any event until now, so that it is of an earlier spool. */
static uint64_t first_number(const struct record_event_log *l, const char *path)
{
    char line[80];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd >= 0 ? pread(fd, line, sizeof line, 0) : -1;
    uint64_t number = n > 0 ? number_of(hky_str_of(line, (size_t)n)) : 0;

    if (fd >= 0)
        close(fd);
    return number <= l->out_to ? number : 0;
}

static int compare_age(const void *a, const void *b)
{
    const struct rotated *x = a, *y = b;

    return x->number != y->number ? (x->number < y->number ? -1 : 1) : strcmp(x->path, y->path);
}

/* The numbers of events say which file is the oldest. Names and times of files come from the clock: after it was ahead
 * for a while, each file that is rotated now would be taken for the oldest. */
static void remove_all_but_newest(const struct record_event_log *l, char *const *paths, size_t n)
{
    struct rotated *files = hky_calloc(n, sizeof *files);

    for (size_t i = 0; i < n; i++)
        files[i] = (struct rotated){first_number(l, paths[i]), paths[i]};
    qsort(files, n, sizeof *files, compare_age);
    for (size_t i = 0; i < n - ROTATED_KEPT; i++)
        unlink(files[i].path);
    free(files);
}

/* The path is no pattern, whatever is in it: it must not find the logs of another folder. */
static void remove_oldest(struct record_event_log *l)
{
    size_t stem = strlen(l->path) - strlen(".jsonl");
    struct hky_buf pattern;
    glob_t found;

    hky_buf_init(&pattern, 2 * stem + sizeof "-*.jsonl");
    for (size_t i = 0; i < stem; i++) {
        if (strchr("*?[]\\", l->path[i]) != NULL)
            hky_buf_add_c(&pattern, '\\');
        hky_buf_add_c(&pattern, l->path[i]);
    }
    hky_buf_add_z(&pattern, "-*.jsonl");
    if (glob(hky_buf_z(&pattern), 0, NULL, &found) == 0) {
        if (found.gl_pathc > ROTATED_KEPT)
            remove_all_but_newest(l, found.gl_pathv, found.gl_pathc);
        globfree(&found);
    }
    hky_buf_fini(&pattern);
}

/* Two rotations within one second must not share a name: the later would overwrite the earlier. */
static int rename_aside(struct record_event_log *l)
{
    int stem = (int)(strlen(l->path) - strlen(".jsonl"));
    time_t now = (time_t)(hky_clock_now_ms(l->clock) / 1000);
    char to[4096], second[32];
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(second, sizeof second, "%Y-%m-%dT%H:%M:%S", &tm);
    for (int i = 0; i < 1000; i++) {
        snprintf(to, sizeof to, "%.*s-%s.%03d.jsonl", stem, l->path, second, i);
        if (renameat2(AT_FDCWD, l->path, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}

static void rotate(struct record_event_log *l)
{
    struct hky_error e;

    if (rename_aside(l) != 0) {
        hky_log(l->log, HKY_LOG_ERROR, "event_log", "what=rotate error=\"%s\"", strerror(errno));
        l->written = 0; /* so that the rotation is not tried again for every line */
        return;
    }
    close(l->fd);
    if (open_file(l, &e) != HKY_OK)
        hky_log(l->log, HKY_LOG_ERROR, "event_log", "what=open error=\"%s\"", e.text);
    remove_oldest(l);
}

/* ---- writing ---- */

/* Cuts an incomplete line off, so that the file has only whole lines also while it cannot be written to. `end` is where
 * the file ends if nobody else writes to it. */
static void cut_back(struct record_event_log *l, uint64_t end)
{
    const char *p = l->out.p;
    size_t start = l->n_out;
    struct stat st;

    while (start > 0 && p[start - 1] != '\n')
        start--;
    if (start == l->n_out)
        return;
    if (fstat(l->fd, &st) == 0 && (uint64_t)st.st_size == end &&
        ftruncate(l->fd, st.st_size - (off_t)(l->n_out - start)) == 0)
        l->written -= l->n_out - start;
    else
        l->is_torn = true;
    l->n_out = start;
}

/* Where the file ends in the beginning of the line to be written, only the rest of that line is written; any other
 * incomplete line is ended. */
static bool complete_half(struct record_event_log *l)
{
    struct hky_str half = hky_buf_str(&l->half);

    if (half.n > 0 && l->n_out == 0 && half.n < l->out.n && memcmp(half.p, l->out.p, half.n) == 0)
        l->n_out = half.n;
    else if ((half.n > 0 || l->is_torn) && write(l->fd, "\n", 1) != 1)
        return false;
    hky_buf_clear(&l->half);
    l->is_torn = false;
    return true;
}

/* False: the file takes no more just now; the rest waits in l->out. */
static bool write_out(struct record_event_log *l)
{
    struct hky_error e;
    struct stat st;
    uint64_t end;

    if (l->fd < 0 && open_file(l, &e) != HKY_OK) /* the first failure was logged */
        return false;
    if (!complete_half(l))
        return false;
    end = fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    while (l->n_out < l->out.n) {
        ssize_t k = write(l->fd, l->out.p + l->n_out, l->out.n - l->n_out);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            int why = errno;
            cut_back(l, end);
            errno = why;
            return false;
        }
        l->n_out += (size_t)k;
        l->written += (uint64_t)k;
        end += (uint64_t)k;
    }
    hky_buf_clear(&l->out);
    l->n_out = 0;
    return true;
}

/* Logs once when writing begins to fail and once when it works again, not for each try. */
static bool write_all(struct record_event_log *l)
{
    bool is_out = write_out(l);

    if (!is_out && !l->is_stuck)
        hky_log(l->log, HKY_LOG_ERROR, "event_log",
                "what=write error=\"%s\" note=\"events wait in spool/events/ until the file takes them\"",
                strerror(errno));
    else if (is_out && l->is_stuck)
        hky_log(l->log, HKY_LOG_INFO, "event_log", "what=written_again");
    l->is_stuck = !is_out;
    if (is_out)
        hky_record_reader_commit(l->reader, l->out_to);
    return is_out;
}

static bool fill(struct record_event_log *l)
{
    size_t n = 1;

    while (l->out.n < OUT_SOFT && (n = hky_record_reader_read(l->reader, l->views, BATCH)) > 0)
        for (size_t i = 0; i < n; i++) {
            record_format_line(&l->views[i], &l->stamp, &l->out);
            l->out_to = l->views[i].number;
        }
    return n > 0;
}

/* False: the file takes no more just now. */
static bool flush(struct record_event_log *l)
{
    for (bool is_more = true; is_more;) {
        if (l->out.n == 0)
            is_more = fill(l);
        if (l->out.n > 0 && !write_all(l))
            return false;
        if (l->written >= l->rotate_octets)
            rotate(l);
    }
    return true;
}

static void on_time(struct hky_timer *timer)
{
    struct record_event_log *l = HKY_CONTAINER(timer, struct record_event_log, timer);

    if (!flush(l))
        hky_timer_set(&l->timer, WRITE_EVERY_MS);
}

static void on_ready(void *ctx)
{
    struct record_event_log *l = ctx;

    if (!hky_timer_is_set(&l->timer))
        hky_timer_set(&l->timer, WRITE_EVERY_MS);
}

static void on_reopen(struct hky_task *task)
{
    struct record_event_log *l = HKY_CONTAINER(task, struct record_event_log, reopen);
    struct hky_error e;

    __atomic_store_n(&l->is_reopen_posted, false, __ATOMIC_RELEASE);
    (void)flush(l);
    if (l->fd >= 0)
        close(l->fd);
    if (open_file(l, &e) != HKY_OK)
        hky_log(l->log, HKY_LOG_ERROR, "event_log", "what=reopen error=\"%s\"", e.text);
}

void record_event_log_reopen(struct record_event_log *l)
{
    if (!__atomic_exchange_n(&l->is_reopen_posted, true, __ATOMIC_ACQ_REL))
        hky_loop_post(l->loop, &l->reopen);
}

/* ---- open and close ---- */

static void *run(void *arg)
{
    hky_loop_run(((struct record_event_log *)arg)->loop);
    return NULL;
}

static enum hky_err start(struct record_event_log *l, const struct hky_record_params *p, struct hky_error *e)
{
    struct hky_record_reader_params rp = {
        .name = "event_log", .on_ready = on_ready, .ctx = l, .lag_octets = p->lag_octets};
    enum hky_err err;
    int why;

    if ((err = open_file(l, e)) != HKY_OK || (err = hky_loop_new(&l->loop, e)) != HKY_OK)
        return err;
    hky_timer_init(&l->timer, l->loop, on_time);
    l->reopen.run = on_reopen;
    rp.loop = l->loop;
    if ((err = hky_record_reader_open(l->record, &rp, &l->reader, e)) != HKY_OK)
        return err;
    if (l->file_number > hky_record_reader_cursor(l->reader) && l->file_number < l->record->store.next) {
        rp.after = l->file_number; /* the last run was killed before it committed this */
        hky_record_reader_close(&l->reader);
        if ((err = hky_record_reader_open(l->record, &rp, &l->reader, e)) != HKY_OK)
            return err;
    }
    if ((why = hky_thread_start(&l->thread, run, l)) != 0)
        return hky_error_sys(e, HKY_E_LIMIT, why, "cannot start the thread of the event log");
    l->is_running = true;
    return HKY_OK;
}

enum hky_err record_event_log_open(struct hky_record *r, const struct hky_record_params *p,
                                   struct record_event_log **out, struct hky_error *e)
{
    struct record_event_log *l = hky_calloc(1, sizeof *l);
    enum hky_err err;

    l->record = r;
    l->log = p->log;
    l->clock = p->clock;
    l->rotate_octets = p->rotate_octets > 0 ? p->rotate_octets : DEFAULT_ROTATE;
    l->fd = -1;
    l->path = hky_alloc(strlen(p->dir) + sizeof "/events.jsonl");
    sprintf(l->path, "%s/events.jsonl", p->dir);
    hky_buf_init(&l->out, SIZE_MAX / 4);
    hky_buf_init(&l->half, TAIL);
    if ((err = start(l, p, e)) != HKY_OK) {
        record_event_log_close(&l);
        return err;
    }
    *out = l;
    return HKY_OK;
}

/* Logs how many events could not be written to the file; the store keeps them for the next start. */
static void report_rest(struct record_event_log *l)
{
    struct record_store *s = &l->record->store;
    uint64_t last, done = hky_record_reader_cursor(l->reader);

    pthread_mutex_lock(&s->lock);
    last = s->next - 1;
    pthread_mutex_unlock(&s->lock);
    if (last > done)
        hky_log(l->log, s->is_kept ? HKY_LOG_WARN : HKY_LOG_ERROR, "event_log", "what=%s n=%lu",
                s->is_kept ? "kept_for_the_next_start" : "lost_lines", (unsigned long)(last - done));
}

void record_event_log_close(struct record_event_log **log)
{
    struct record_event_log *l = *log;

    *log = NULL;
    if (l == NULL)
        return;
    if (l->is_running) {
        hky_loop_stop(l->loop);
        pthread_join(l->thread, NULL);
        (void)flush(l);
        report_rest(l);
    }
    hky_record_reader_close(&l->reader);
    if (l->loop != NULL)
        hky_timer_cancel(&l->timer);
    hky_loop_free(&l->loop);
    if (l->fd >= 0)
        close(l->fd);
    hky_buf_fini(&l->out);
    hky_buf_fini(&l->half);
    free(l->path);
    free(l);
}

uint64_t record_event_log_missed(const struct record_event_log *l)
{
    return hky_record_reader_missed(l->reader);
}
