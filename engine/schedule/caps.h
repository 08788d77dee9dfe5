/*
 * caps -- exact sliding windows of all accounts, under one short lock. A slot is taken before MAIL is written and comes
 * back one window after the reply; before it is used it is reserved durably (DESIGN.md 3.3). Any thread.
 */
#ifndef HKY_SCHEDULE_CAPS_H
#define HKY_SCHEDULE_CAPS_H

#include "base/buf.h"
#include "base/clock.h"
#include "hikyaku/schedule.h"

struct caps;
struct caps_account; /* lives as long as the caps */

struct caps_ops {
    void *ctx;
    /* Make `value` the newest one of `key`; call schedule_caps_reserved later, never from inside. `worker` asked for
     * it. */
    void (*reserve)(void *ctx, struct caps_account *a, unsigned worker, struct hky_str key, struct hky_str value);
    /* Slots came free without time passing (given back, reserved): whoever waits may ask again. */
    void (*free_again)(void *ctx, struct caps_account *a);
};

/* `clock` translates for records, which hold the time of the wall clock. Every now_ms below is hky_clock_elapsed_ms:
 * setting the wall clock makes no window longer or shorter. */
struct caps *schedule_caps_new(const struct caps_ops *ops, const struct hky_clock *clock);
void schedule_caps_free(struct caps **c);

/* A record of an earlier run, before the first take: what it reserved counts as used now. */
void schedule_caps_restore(struct caps *c, struct hky_str key, struct hky_str value, int64_t now_ms);

/* The windows of an account as the policy in force states them; used slots stay. NULL when it has none. */
struct caps_account *schedule_caps_set(struct caps *c, const struct hky_relay *relay, const char *account);

enum caps_answer { CAPS_TAKEN, CAPS_WAIT, CAPS_RESERVING /* free_again follows */ };
struct caps_slots {               /* what one job holds */
    struct caps_account *account; /* NULL: nothing */
    uint32_t n_recipients;
};
/* Slots for one message with at most `want` recipients; out->n_recipients says how many. CAPS_WAIT: not before
 * *until_ms, or earlier when free_again comes. */
enum caps_answer schedule_caps_take(struct caps *c, struct caps_account *a, unsigned worker, uint32_t want,
                                    int64_t now_ms, struct caps_slots *out, int64_t *until_ms);
void schedule_caps_done(struct caps *c, struct caps_slots *slots, int64_t now_ms); /* counted from now on */
void schedule_caps_give_back(struct caps *c, struct caps_slots *slots, int64_t now_ms);
/* The record handed to `reserve` is durable (or was not written). */
void schedule_caps_reserved(struct caps *c, struct caps_account *a, bool is_durable);

/* As if others had taken all that is free, until then. */
void schedule_caps_use_up(struct caps *c, struct caps_account *a, int64_t until_ms);

/* When would the message behind `ahead` others be sent, by the windows alone? */
int64_t schedule_caps_eta(struct caps *c, struct caps_account *a, uint32_t ahead, int64_t now_ms);
/* When the next slot comes, by the windows alone; now_ms: one is free. */
int64_t schedule_caps_free_at(struct caps *c, struct caps_account *a, int64_t now_ms);
/* The windows that the policy states: how many; next_at_ms is of the wall clock. */
unsigned schedule_caps_show(struct caps *c, struct caps_account *a, int64_t now_ms,
                            struct hky_relay_cap out[HKY_CAPS_MAX]);

#endif
