/*
 * gate -- may mail be sent by this account now (in own delivery: to this destination)? Two things close a gate: a
 * breaker, which opens after failures to get through, and a pause, which a reply asked for. The caller holds the lock.
 * Times are hky_clock_elapsed_ms, so setting the wall clock makes no pause longer.
 */
#ifndef HKY_SCHEDULE_GATE_H
#define HKY_SCHEDULE_GATE_H

#include "hikyaku/schedule.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

struct gate {
    int must_ask;    /* atomic; 0: it is open, nobody has to take the lock */
    uint8_t breaker; /* enum breaker_state */
    bool is_announced;
    uint32_t failures;               /* in a row */
    uint32_t learned[HKY_LEARNED_N]; /* how much the server was seen to take; atomic; 0: unknown */
    int64_t open_until_ms, open_ms;
    int64_t paused_until_ms;
    uint32_t pause_sec;
    bool is_login; /* it is paused because the login was refused */
    bool is_tls;   /* the breaker is open because TLS fails */
    char why[120];
};

enum gate_answer { GATE_GO, GATE_PROBE /* this one job may go; say how it ended */, GATE_WAIT };
/* `take`: if the answer is GATE_PROBE, the probe begins. GATE_WAIT: not before *until_ms (INT64_MAX: not before the
 * probe has ended). */
enum gate_answer schedule_gate_ask(struct gate *g, int64_t now_ms, bool take, int64_t *until_ms);
/* A job has ended. True: it is news that the gate is open or closed now. */
bool schedule_gate_on_success(struct gate *g);
/* One failure opens the breaker if it was a probe or `is_tls`, because the next job would not get through, either. */
bool schedule_gate_on_failure(struct gate *g, bool was_probe, bool is_tls, int64_t now_ms, const char *why);
void schedule_gate_on_unused(struct gate *g, bool was_probe, int64_t now_ms); /* it was given back without being sent */
/* A reply says that the account cannot send for now. `named_sec` is the time that it named; 0: the pause grows with
 * each such reply. */
bool schedule_gate_pause(struct gate *g, uint32_t named_sec, bool is_login, int64_t now_ms, const char *why);
/* There is a new policy, maybe with another password or authority: this ends a pause for a login or for TLS, and the
 * next one is short again. True: there was such a pause. */
bool schedule_gate_retry_login(struct gate *g, int64_t now_ms);
/* At a start: a login had been refused in the last run, or TLS had failed, which may be repaired now. The next job is
 * the probe. */
void schedule_gate_probe_login(struct gate *g, int64_t now_ms);
bool schedule_gate_resume(struct gate *g); /* an operator ends breaker and pause */
int64_t schedule_gate_closed_until_ms(const struct gate *g);

#endif
