/*
 * How the engine is asked to stop, and what is said of a stop that takes long. A thread of its own takes SIGTERM and
 * SIGINT, because every other thread may hang: in a disk that does not answer, or in a file on one. The first signal
 * begins the stop in order (engine.c). The second one ends what can be given up, and if the process still lives some
 * seconds later, this thread ends it. That is as safe as kill -9: what was acknowledged is on disk.
 */
#include "wiring.h"

#include "base/clock.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define TELL_AFTER_MS   3000
#define TELL_AGAIN_MS   30000
#define AT_ONCE_MOST_MS 5000 /* from the second signal to the end of the process */
#define LOOK_MS         200

static const struct {
    enum hky_log_level level;
    const char *what;
} steps[] = {
    [HKY_STOP_NOT_BEGUN] = {HKY_LOG_WARN, "the thread that serves operators, which may be reading a policy or a list"},
    [HKY_STOP_CLIENTS] = {HKY_LOG_INFO, "clients in the middle of a message"},
    [HKY_STOP_DELIVERIES] = {HKY_LOG_INFO, "relays that have not answered for a message under way"},
    [HKY_STOP_THREADS] = {HKY_LOG_WARN, "a thread of the engine, which may be reading from the disk"},
    [HKY_STOP_HELPERS] = {HKY_LOG_WARN, "the reading of a secret, whose file may be on a disk that does not answer"},
    [HKY_STOP_JOURNAL] = {HKY_LOG_WARN, "the disk: the journal cannot be closed yet"},
    [HKY_STOP_RECORD] = {HKY_LOG_WARN, "the disk: the event log and state.db cannot be closed yet"},
    [HKY_STOP_MEMORY] = {HKY_LOG_INFO, "memory to be freed; everything on disk is closed"},
};

struct hky_stopping {
    struct hky_engine *engine;
    pthread_t thread;
    int signals_fd, news_fd;
    pthread_mutex_t lock; /* of what follows */
    enum hky_stop_step step;
    bool is_over;
    int64_t since_ms, told_at_ms; /* of the step; by hky_mono_ms, 0 not yet */
    unsigned n_asked;
    int64_t at_once_ms; /* when the stop was asked for a second time, 0 not yet */
};

/* ---- asking ---- */

/* Under the lock. */
static void ask(struct hky_stopping *s)
{
    struct hky_engine *engine = s->engine;
    int64_t now_ms = hky_mono_ms();

    if (++s->n_asked == 1 && s->step == HKY_STOP_NOT_BEGUN)
        s->since_ms = now_ms;
    if (s->n_asked == 2)
        s->at_once_ms = now_ms;
    /* Later the aux loop no longer runs, and there is nothing more that it could give up. */
    if (s->step <= HKY_STOP_DELIVERIES && __atomic_exchange_n(&engine->is_stop_posted, 1, __ATOMIC_ACQ_REL) == 0)
        hky_loop_post(engine->aux, &engine->stop_task);
}

static void tell_thread(struct hky_stopping *s)
{
    uint64_t one = 1;

    (void)!write(s->news_fd, &one, sizeof one);
}

void hky_stopping_ask(struct hky_stopping *s)
{
    pthread_mutex_lock(&s->lock);
    ask(s);
    pthread_mutex_unlock(&s->lock);
    tell_thread(s);
}

unsigned hky_stopping_n_asked(struct hky_stopping *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->n_asked;
    pthread_mutex_unlock(&s->lock);
    return n;
}

void hky_stopping_enter(struct hky_stopping *s, enum hky_stop_step step)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->step = step;
    s->since_ms = hky_mono_ms();
    s->told_at_ms = 0;
    pthread_mutex_unlock(&s->lock);
    tell_thread(s);
}

/* ---- the thread ---- */

/* Under the lock. Stages are asked for their counts only while their loops run. */
static unsigned long count(const struct hky_stopping *s)
{
    struct hky_schedule_stats mail;
    struct hky_accept_stats clients;

    if (s->step == HKY_STOP_CLIENTS) {
        hky_accept_stats(s->engine->accept, &clients);
        return clients.sessions;
    }
    if (s->step == HKY_STOP_DELIVERIES) {
        hky_schedule_stats(s->engine->schedule, &mail);
        return mail.sending;
    }
    return 1;
}

/* Under the lock. */
static void tell(struct hky_stopping *s, int64_t now_ms)
{
    s->told_at_ms = now_ms;
    hky_log(s->engine->log, steps[s->step].level, "stopping", "waits_for=\"%s\" n=%lu for_sec=%ld next=\"%s\"",
            steps[s->step].what, count(s), (long)((now_ms - s->since_ms) / 1000),
            s->at_once_ms != 0 ? "the engine ends within 5 s"
                               : "a second SIGTERM ends the engine within 5 s; no acknowledged message is lost");
}

/* Under the lock. */
static void end_at_once(struct hky_stopping *s)
{
    if (s->step == HKY_STOP_MEMORY)
        _exit(0);
    hky_log(s->engine->log, HKY_LOG_ERROR, "stopping",
            "what=\"ended without waiting any longer\" waited_for=\"%s\" next=\"the next start reads the journal as "
            "after kill -9; no acknowledged message is lost\"",
            steps[s->step].what);
    _exit(1);
}

static void look(struct hky_stopping *s)
{
    int64_t now_ms = hky_mono_ms(), last_ms = s->told_at_ms != 0 ? s->told_at_ms : s->since_ms;

    if (now_ms - last_ms >= (s->told_at_ms != 0 ? TELL_AGAIN_MS : TELL_AFTER_MS))
        tell(s, now_ms);
    if (s->at_once_ms != 0 && now_ms - s->at_once_ms >= AT_ONCE_MOST_MS)
        end_at_once(s);
}

static void *run(void *arg)
{
    struct hky_stopping *s = arg;
    struct pollfd fds[] = {{.fd = s->signals_fd, .events = POLLIN}, {.fd = s->news_fd, .events = POLLIN}};
    bool is_over = false, is_stopping = false;

    prctl(PR_SET_NAME, "stop");
    while (!is_over) {
        struct signalfd_siginfo info;
        uint64_t n;
        if (poll(fds, 2, is_stopping ? LOOK_MS : -1) < 0 && errno != EINTR)
            break; /* cannot happen; without this thread a stop only says less */
        (void)!read(s->news_fd, &n, sizeof n);
        pthread_mutex_lock(&s->lock);
        while (read(s->signals_fd, &info, sizeof info) == sizeof info)
            ask(s);
        is_over = s->is_over;
        is_stopping = s->n_asked > 0 || s->step != HKY_STOP_NOT_BEGUN;
        if (is_stopping && !is_over)
            look(s);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* ---- begin and end ---- */

static void release(struct hky_stopping *s)
{
    if (s->signals_fd >= 0)
        close(s->signals_fd);
    if (s->news_fd >= 0)
        close(s->news_fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

enum hky_err hky_stopping_start(struct hky_engine *engine, struct hky_stopping **out, struct hky_error *e)
{
    struct hky_stopping *s = hky_calloc(1, sizeof *s);
    sigset_t signals;
    int rc;

    *out = NULL;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    s->engine = engine;
    pthread_mutex_init(&s->lock, NULL);
    s->signals_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    s->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->signals_fd < 0 || s->news_fd < 0)
        rc = errno;
    else
        rc = hky_thread_start(&s->thread, run, s);
    if (rc != 0) {
        release(s);
        return hky_error_sys(e, HKY_E_LIMIT, rc,
                             "cannot start the thread that takes signals (raise TasksMax, LimitNOFILE or `ulimit`?)");
    }
    *out = s;
    return HKY_OK;
}

void hky_stopping_end(struct hky_stopping **at)
{
    struct hky_stopping *s = *at;

    if (s == NULL)
        return;
    *at = NULL;
    pthread_mutex_lock(&s->lock);
    s->is_over = true;
    pthread_mutex_unlock(&s->lock);
    tell_thread(s);
    pthread_join(s->thread, NULL);
    release(s);
}
