/*
 * caps -- exact sliding windows of all accounts, under one lock that is held for a short time. A slot is taken before
 * MAIL is written, and is free again one window after the reply. Before it is used, it is reserved on disk
 * (DESIGN.md 3.3). All functions may be called on any thread.
 */
#ifndef HKY_SCHEDULE_CAPS_H
#define HKY_SCHEDULE_CAPS_H

#include "base/buf.h"
#include "base/clock.h"
#include "hikyaku/schedule.h"

struct caps;
struct caps_account; /* exists as long as the caps */

struct caps_ops {
    void *ctx;
    /* Write `value` as the newest value of `key`, then call schedule_caps_reserved, but not from inside this call.
     * `worker` has asked for it. */
    void (*reserve)(void *ctx, struct caps_account *a, unsigned worker, struct hky_str key, struct hky_str value);
    /* There are free slots that no passing of time has freed (given back, or reserved now): whoever waits may ask
     * again. */
    void (*free_again)(void *ctx, struct caps_account *a);
};

/* `clock` is for records, which have times of the wall clock. Every now_ms below is hky_clock_elapsed_ms, so setting
 * the wall clock makes no window longer or shorter. */
struct caps *schedule_caps_new(const struct caps_ops *ops, const struct hky_clock *clock);
void schedule_caps_free(struct caps **c);

/* Reads a record of an earlier run. What it reserved counts as used now. Call it before the first take. */
void schedule_caps_restore(struct caps *c, struct hky_str key, struct hky_str value, int64_t now_ms);

/* Sets the windows of an account as the policy in force states them; used slots stay used. NULL: it has no cap. */
struct caps_account *schedule_caps_set(struct caps *c, const struct hky_relay *relay, const char *account);

enum caps_answer { CAPS_TAKEN, CAPS_WAIT, CAPS_RESERVING /* free_again comes later */ };
struct caps_slots {               /* what one job holds */
    struct caps_account *account; /* NULL: nothing */
    uint32_t n_recipients;
};
/* Takes slots for one message with at most `want` recipients; out->n_recipients is how many it got. CAPS_WAIT: there
 * are none before *until_ms, unless free_again comes earlier. */
enum caps_answer schedule_caps_take(struct caps *c, struct caps_account *a, unsigned worker, uint32_t want,
                                    int64_t now_ms, struct caps_slots *out, int64_t *until_ms);
/* The slots are free one window from now on. */
void schedule_caps_done(struct caps *c, struct caps_slots *slots, int64_t now_ms);
void schedule_caps_give_back(struct caps *c, struct caps_slots *slots, int64_t now_ms);
/* The record that was handed to `reserve` is on disk, or could not be written. */
void schedule_caps_reserved(struct caps *c, struct caps_account *a, bool is_durable);

/* At a stop, when nobody takes any more: hands out records that say when each slot ends and in which nothing is
 * reserved, so that the next start need not count all of them as used at its own time. */
void schedule_caps_settle(struct caps *c);

/* Until then it is as if others had taken all free slots. */
void schedule_caps_use_up(struct caps *c, struct caps_account *a, int64_t until_ms);

/* When the message behind `ahead` others would be sent if only the windows kept it waiting. */
int64_t schedule_caps_eta(struct caps *c, struct caps_account *a, uint32_t ahead, int64_t now_ms);
/* When the next slot is free; now_ms: one is free now. */
int64_t schedule_caps_free_at(struct caps *c, struct caps_account *a, int64_t now_ms);
/* Fills in the windows that the policy states, and returns how many. next_at_ms is of the wall clock. */
unsigned schedule_caps_show(struct caps *c, struct caps_account *a, int64_t now_ms,
                            struct hky_relay_cap out[HKY_CAPS_MAX]);

#endif
