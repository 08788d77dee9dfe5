/*
 * loop -- one event loop of one thread: post queue, timers, watched descriptors. Wraps libevent (NOLOCK base).
 * The only way in from another thread is hky_loop_post. Nothing here may block.
 */
#ifndef HKY_NET_LOOP_H
#define HKY_NET_LOOP_H

#include "base/error.h"
#include "base/heap.h"

#include <stdbool.h>
#include <stdint.h>

struct hky_loop;

/* The calling thread counts as its owner until hky_loop_run. HKY_E_NET: no descriptor is left, and `e` says what to
 * do. */
enum hky_err hky_loop_new(struct hky_loop **out, struct hky_error *e);
/* The loop runs no more, and its thread has ended: drops the tasks that were posted and did not run, and every task
 * that is posted from now on. So their owners may free them in any order, while other threads still post. */
void hky_loop_close(struct hky_loop *loop);
/* Call this after hky_loop_run has returned. Posted tasks that did not run are dropped; deferred ones (frees of closed
 * streams) run. */
void hky_loop_free(struct hky_loop **loop);
void hky_loop_run(struct hky_loop *loop);  /* until hky_loop_stop */
void hky_loop_stop(struct hky_loop *loop); /* any thread; tasks posted before it run first */
/* Tests: one non-blocking turn (what is ready now), or wait at most max_ms for something. */
void hky_loop_turn(struct hky_loop *loop, int max_ms);
bool hky_loop_has_work(struct hky_loop *loop);        /* something was posted or deferred and did not run yet */
int64_t hky_loop_now_ms(const struct hky_loop *loop); /* monotonic, cached for the turn */
bool hky_loop_is_mine(const struct hky_loop *loop);   /* is it the calling thread that runs this loop? */

/* Work to do on the loop's thread. Embedded by the owner; in one queue at a time. */
struct hky_task {
    void (*run)(struct hky_task *task);
    struct hky_task *next; /* the loop's */
};
void hky_loop_post(struct hky_loop *loop,
                   struct hky_task *task); /* any thread, first in first out, one eventfd wake for many */
void hky_loop_defer(
    struct hky_loop *loop,
    struct hky_task *task); /* on the loop's own thread: it runs at the end of this turn, before the loop waits again */

/* Timers of the loop's own clock. Initialise once; setting again moves it. A timer may be set and cancelled very often,
 * because that costs no system call. Cancel it before its memory is freed. */
struct hky_timer {
    void (*fire)(struct hky_timer *timer);
    struct hky_loop *loop;
    int64_t due_ms;            /* 0 = not set */
    struct hky_heap_node node; /* used by the loop; its time may be before due_ms, because a timer that only moves to
                                  later times stays where it is */
};
void hky_timer_init(struct hky_timer *t, struct hky_loop *loop, void (*fire)(struct hky_timer *));
void hky_timer_set(struct hky_timer *t, int64_t after_ms);
void hky_timer_cancel(struct hky_timer *t);
bool hky_timer_is_set(const struct hky_timer *t);

/* A descriptor that is watched until it is closed (edge-triggered, read and write), or level-triggered for listeners.
 * HANGUP: the peer has sent its last octet. A reset is reported as READABLE and WRITABLE, like octets, and may share
 * one edge with the last octets: a reader that stops at a short read must read again before long. */
struct hky_watch;
enum { HKY_READABLE = 1, HKY_WRITABLE = 2, HKY_HANGUP = 4 /* edge only: the peer closed its side */ };
/* Calls fire(ctx, bits). Level-triggered: `bits` says what to watch for. The caller keeps the descriptor. */
struct hky_watch *hky_watch_new_edge(struct hky_loop *loop, int fd, void (*fire)(void *ctx, int bits), void *ctx);
struct hky_watch *hky_watch_new_level(struct hky_loop *loop, int fd, int bits, void (*fire)(void *ctx, int bits),
                                      void *ctx);
void hky_watch_free(struct hky_watch **w); /* fire is not called after this */

/* Signals (one loop only, usually aux). */
void hky_loop_on_signal(struct hky_loop *loop, int signo, void (*fire)(void *ctx, int signo), void *ctx);

#endif
