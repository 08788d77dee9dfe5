#include "net/loop_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DEFER_ROUNDS = 16, CHUNKS_KEPT = 256, FREE_ROUNDS = 1000, ALARM_MAX_MS = 3600000 };

struct task_list {
    struct hky_task *first, *last;
};

struct signal_watch {
    struct signal_watch *next;
    struct event ev;
    struct hky_loop *loop;
    void (*fire)(void *ctx, int signo);
    void *ctx;
};

struct hky_watch {
    struct event ev;
    struct hky_loop *loop;
    void (*fire)(void *ctx, int bits);
    void *ctx;
};

struct chunk_link {
    struct chunk_link *next;
};

struct hky_loop {
    struct event_base *base;
    struct event wake, alarm;
    int wake_fd;
    int64_t alarm_at; /* when `alarm` fires; INT64_MAX: not armed */
    int64_t now_ms;
    bool is_turning, is_fresh; /* inside a turn; now_ms was read after the wait */
    struct hky_heap timers;
    struct task_list deferred, next_turn;
    struct signal_watch *signals;
    char *scratch, *staging;
    size_t scratch_cap;
    struct chunk_link *chunks;
    unsigned n_chunks;

    _Atomic uintptr_t owner; /* written under `lock`, so that a post without a wake is seen before the wait */
    atomic_uint n_posting;   /* posts under way that may still wake; the free waits for them */
    pthread_mutex_t lock;    /* guards what follows */
    struct task_list posted;
    bool is_stopping, is_over;
};

static void list_push(struct task_list *l, struct hky_task *task)
{
    task->next = NULL;
    if (l->last != NULL)
        l->last->next = task;
    else
        l->first = task;
    l->last = task;
}

static void list_run(struct task_list *l)
{
    struct hky_task *task = l->first;
    *l = (struct task_list){0};
    while (task != NULL) {
        struct hky_task *next = task->next; /* the task may free its memory, or queue itself again */
        task->run(task);
        task = next;
    }
}

static void loop_touch(struct hky_loop *loop)
{
    if (loop->is_fresh)
        return;
    loop->now_ms = hky_mono_ms();
    loop->is_fresh = true;
}

static void on_wake(evutil_socket_t fd, short bits, void *arg)
{
    (void)fd, (void)bits, (void)arg; /* edge-triggered: the counter needs no reading */
}

static void on_alarm(evutil_socket_t fd, short bits, void *arg)
{
    (void)fd, (void)bits;
    ((struct hky_loop *)arg)->alarm_at = INT64_MAX;
}

enum hky_err hky_loop_new(struct hky_loop **out, struct hky_error *e)
{
    struct hky_loop *loop = hky_calloc(1, sizeof *loop);
    loop->alarm_at = INT64_MAX;
    loop->owner = (uintptr_t)pthread_self();
    pthread_mutex_init(&loop->lock, NULL);
    hky_heap_init(&loop->timers);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct event_config *config = event_config_new();
    if (config != NULL && loop->wake_fd >= 0) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
        loop->base = event_base_new_with_config(config);
    }
    int sys = errno;
    if (config != NULL)
        event_config_free(config);
    if (loop->base == NULL) {
        hky_loop_free(&loop);
        return hky_error_sys(e, HKY_E_NET, sys, "cannot make an event loop (raise the limit on open files?)");
    }
    event_assign(&loop->wake, loop->base, loop->wake_fd, EV_READ | EV_ET | EV_PERSIST, on_wake, loop);
    event_assign(&loop->alarm, loop->base, -1, 0, on_alarm, loop);
    event_add(&loop->wake, NULL);
    *out = loop;
    return HKY_OK;
}

void hky_loop_close(struct hky_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->is_over = true;
    loop->posted = (struct task_list){0};
    pthread_mutex_unlock(&loop->lock);
}

void hky_loop_free(struct hky_loop **at)
{
    struct hky_loop *loop = *at;
    if (loop == NULL)
        return;
    *at = NULL;
    while (atomic_load(&loop->n_posting) > 0)
        sched_yield();
    loop->owner = (uintptr_t)pthread_self();
    for (int i = 0; (loop->deferred.first != NULL || loop->next_turn.first != NULL) && i < FREE_ROUNDS; i++) {
        list_run(&loop->deferred);
        list_run(&loop->next_turn);
    }
    for (struct signal_watch *w; (w = loop->signals) != NULL;) {
        loop->signals = w->next;
        event_del(&w->ev);
        free(w);
    }
    if (loop->base != NULL) {
        event_del(&loop->wake);
        event_del(&loop->alarm);
        event_base_free(loop->base);
    }
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    for (struct chunk_link *c; (c = loop->chunks) != NULL;) {
        loop->chunks = c->next;
        free(c);
    }
    hky_heap_fini(&loop->timers);
    pthread_mutex_destroy(&loop->lock);
    free(loop->scratch);
    free(loop->staging);
    free(loop);
}

/* Fires at most as many timers as were set before: a timer that sets itself to "now" waits for the next turn. */
static void timers_run(struct hky_loop *loop)
{
    struct hky_heap_node *node;
    for (uint32_t left = loop->timers.n; left > 0 && (node = hky_heap_first(&loop->timers)) != NULL; left--) {
        if (node->at > loop->now_ms)
            return;
        struct hky_timer *t = HKY_CONTAINER(node, struct hky_timer, node);
        if (t->due_ms > loop->now_ms) { /* the timer was moved to a later time meanwhile */
            hky_heap_set(&loop->timers, node, t->due_ms);
            continue;
        }
        hky_timer_cancel(t);
        t->fire(t);
    }
}

static void alarm_set(struct hky_loop *loop, int64_t at, int64_t now)
{
    if (at >= loop->alarm_at) /* it fires in time, perhaps too early: that costs one empty turn instead of one system
                                 call for each set */
        return;
    int64_t wait_ms = at - now;
    if (wait_ms > ALARM_MAX_MS)
        wait_ms = ALARM_MAX_MS;
    struct timeval tv = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    event_add(&loop->alarm, &tv);
    loop->alarm_at = at;
}

/* How many milliseconds the loop may wait at most; -1: for ever. */
static int64_t wait_limit(struct hky_loop *loop, int64_t max_ms, int64_t now)
{
    struct hky_heap_node *node = hky_heap_first(&loop->timers);
    if (loop->deferred.first != NULL || loop->next_turn.first != NULL)
        return 0;
    if (node != NULL && (max_ms < 0 || node->at - now < max_ms))
        max_ms = node->at > now ? node->at - now : 0;
    return max_ms;
}

/* One turn; true when a stop was seen. Whatever was posted before the stop has run then. */
static bool turn(struct hky_loop *loop, int64_t max_ms)
{
    pthread_mutex_lock(&loop->lock);
    loop->owner = (uintptr_t)pthread_self();
    bool has_work = loop->posted.first != NULL || loop->is_stopping;
    pthread_mutex_unlock(&loop->lock);

    int64_t wait_ms = 0;
    if (!has_work && max_ms != 0) {
        int64_t now = hky_mono_ms();
        wait_ms = wait_limit(loop, max_ms, now);
        if (wait_ms > 0)
            alarm_set(loop, now + wait_ms, now);
    }
    HKY_ASSERT(!loop->is_turning);
    loop->is_turning = true;
    loop->is_fresh = false;
    /* NONBLOCK alone would loop for as long as any event is ready. */
    event_base_loop(loop->base, wait_ms == 0 ? EVLOOP_NONBLOCK | EVLOOP_ONCE : EVLOOP_ONCE);
    loop_touch(loop);

    list_run(&loop->next_turn);
    pthread_mutex_lock(&loop->lock);
    struct task_list posted = loop->posted;
    loop->posted = (struct task_list){0};
    bool is_stopping = loop->is_stopping;
    pthread_mutex_unlock(&loop->lock);
    list_run(&posted);
    timers_run(loop);
    for (int i = 0; loop->deferred.first != NULL && i < DEFER_ROUNDS; i++)
        list_run(&loop->deferred);
    loop->is_turning = false;
    return is_stopping;
}

void hky_loop_run(struct hky_loop *loop)
{
    while (!turn(loop, -1))
        continue;
    pthread_mutex_lock(&loop->lock);
    loop->is_stopping = false;
    pthread_mutex_unlock(&loop->lock);
}

void hky_loop_turn(struct hky_loop *loop, int max_ms)
{
    turn(loop, max_ms < 0 ? 0 : max_ms);
}

bool hky_loop_has_work(struct hky_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool has_work = loop->posted.first != NULL;
    pthread_mutex_unlock(&loop->lock);
    return has_work || loop->deferred.first != NULL || loop->next_turn.first != NULL;
}

static void loop_wake(struct hky_loop *loop)
{
    uint64_t one = 1;
    ssize_t n;
    do
        n = write(loop->wake_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void hky_loop_stop(struct hky_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->is_stopping = true;
    loop_wake(loop); /* under the lock, because the loop may be freed as soon as its thread sees the stop */
    pthread_mutex_unlock(&loop->lock);
}

int64_t hky_loop_now_ms(const struct hky_loop *loop)
{
    return loop->is_turning && loop->is_fresh ? loop->now_ms : hky_mono_ms();
}

bool hky_loop_is_mine(const struct hky_loop *loop)
{
    return loop->owner == (uintptr_t)pthread_self();
}

void hky_loop_post(struct hky_loop *loop, struct hky_task *task)
{
    atomic_fetch_add(&loop->n_posting, 1);
    pthread_mutex_lock(&loop->lock);
    /* When tasks are waiting already, the loop was woken for them; and the loop's own thread looks for tasks before it
     * waits. */
    bool is_first = loop->posted.first == NULL && !loop->is_over && !hky_loop_is_mine(loop);
    if (!loop->is_over)
        list_push(&loop->posted, task);
    pthread_mutex_unlock(&loop->lock);
    if (is_first)
        loop_wake(loop); /* not under the lock, which the woken thread takes first */
    atomic_fetch_sub(&loop->n_posting, 1);
}

void hky_loop_defer(struct hky_loop *loop, struct hky_task *task)
{
    list_push(&loop->deferred, task);
}

void hky_loop_defer_next(struct hky_loop *loop, struct hky_task *task)
{
    list_push(&loop->next_turn, task);
}

void hky_timer_init(struct hky_timer *t, struct hky_loop *loop, void (*fire)(struct hky_timer *))
{
    *t = (struct hky_timer){.fire = fire, .loop = loop};
}

void hky_timer_set(struct hky_timer *t, int64_t after_ms)
{
    int64_t now = hky_loop_now_ms(t->loop);
    t->due_ms = after_ms <= 0 ? now : after_ms > INT64_MAX - now ? INT64_MAX : now + after_ms;
    if (t->node.index == 0 || t->due_ms < t->node.at)
        hky_heap_set(&t->loop->timers, &t->node, t->due_ms);
}

void hky_timer_cancel(struct hky_timer *t)
{
    t->due_ms = 0;
    if (t->loop != NULL)
        hky_heap_remove(&t->loop->timers, &t->node);
}

bool hky_timer_is_set(const struct hky_timer *t)
{
    return t->due_ms != 0;
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct hky_watch *w = arg;
    loop_touch(w->loop);
    int bits = (what & EV_READ ? HKY_READABLE : 0) | (what & EV_WRITE ? HKY_WRITABLE : 0) |
               (what & EV_CLOSED ? HKY_HANGUP : 0);
    w->fire(w->ctx, bits);
}

static struct hky_watch *watch_new(struct hky_loop *loop, int fd, short what, void (*fire)(void *, int), void *ctx)
{
    struct hky_watch *w = hky_calloc(1, sizeof *w);
    w->loop = loop;
    w->fire = fire;
    w->ctx = ctx;
    event_assign(&w->ev, loop->base, fd, what | EV_PERSIST, on_ready, w);
    event_add(&w->ev, NULL);
    return w;
}

struct hky_watch *hky_watch_new_edge(struct hky_loop *loop, int fd, void (*fire)(void *ctx, int bits), void *ctx)
{
    return watch_new(loop, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET, fire, ctx);
}

struct hky_watch *hky_watch_new_level(struct hky_loop *loop, int fd, int bits, void (*fire)(void *ctx, int bits),
                                      void *ctx)
{
    return watch_new(loop, fd, (bits & HKY_READABLE ? EV_READ : 0) | (bits & HKY_WRITABLE ? EV_WRITE : 0), fire, ctx);
}

void hky_watch_free(struct hky_watch **at)
{
    struct hky_watch *w = *at;
    if (w == NULL)
        return;
    *at = NULL;
    event_del(&w->ev);
    free(w);
}

static void on_signal(evutil_socket_t signo, short what, void *arg)
{
    (void)what;
    struct signal_watch *w = arg;
    loop_touch(w->loop);
    w->fire(w->ctx, (int)signo);
}

void hky_loop_on_signal(struct hky_loop *loop, int signo, void (*fire)(void *ctx, int signo), void *ctx)
{
    struct signal_watch *w = hky_calloc(1, sizeof *w);
    *w = (struct signal_watch){.next = loop->signals, .loop = loop, .fire = fire, .ctx = ctx};
    loop->signals = w;
    event_assign(&w->ev, loop->base, signo, EV_SIGNAL | EV_PERSIST, on_signal, w);
    event_add(&w->ev, NULL);
}

char *hky_loop_scratch(struct hky_loop *loop, size_t min, size_t *cap)
{
    if (min < HKY_TURN_OCTETS)
        min = HKY_TURN_OCTETS;
    if (loop->scratch_cap < min) {
        free(loop->scratch);
        loop->scratch = hky_alloc(min);
        loop->scratch_cap = min;
    }
    *cap = loop->scratch_cap;
    return loop->scratch;
}

char *hky_loop_staging(struct hky_loop *loop)
{
    if (loop->staging == NULL)
        loop->staging = hky_alloc(HKY_STAGING_OCTETS);
    return loop->staging;
}

void *hky_loop_chunk_get(struct hky_loop *loop)
{
    struct chunk_link *c = loop->chunks;
    if (c == NULL)
        return hky_alloc(HKY_CHUNK_OCTETS);
    loop->chunks = c->next;
    loop->n_chunks--;
    return c;
}

void hky_loop_chunk_put(struct hky_loop *loop, void *chunk)
{
    if (loop->n_chunks >= CHUNKS_KEPT) {
        free(chunk);
        return;
    }
    struct chunk_link *c = chunk;
    c->next = loop->chunks;
    loop->chunks = c;
    loop->n_chunks++;
}
