/*
 * gate -- may this account (own delivery: this lane) be tried now? One rule for two causes: a breaker that opens
 * after failures to get through, and a pause that a reply asked for. The caller holds the lock. Times
 * are hky_clock_elapsed_ms: setting the wall clock makes no pause longer.
 */
#ifndef HKY_SCHEDULE_GATE_H
#define HKY_SCHEDULE_GATE_H

#include "hikyaku/schedule.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

struct gate {
    int must_ask;    /* atomic: 0 lets the common case go without the lock */
    uint8_t breaker; /* enum breaker_state */
    bool is_announced;
    uint32_t failures;               /* in a row */
    uint32_t learned[HKY_LEARNED_N]; /* what the server bears; atomic; 0: nothing known */
    int64_t open_until_ms, open_ms;
    int64_t paused_until_ms;
    uint32_t pause_sec;
    bool is_login; /* paused because the relay did not let us in */
    bool is_tls;   /* the breaker is open because TLS does not come about */
    char why[120];
};

enum gate_answer { GATE_GO, GATE_PROBE /* one job; tell its end */, GATE_WAIT };
/* `take`: a probe begins with the answer. GATE_WAIT: not before *until_ms (INT64_MAX: when the probe ended). */
enum gate_answer schedule_gate_ask(struct gate *g, int64_t now_ms, bool take, int64_t *until_ms);
/* The end of a job. True: it was healthy (or paused) before and is the other now. */
bool schedule_gate_on_success(struct gate *g);
/* One is enough to open the breaker where it was a probe, or `is_tls`: the next one will not get through, either. */
bool schedule_gate_on_failure(struct gate *g, bool was_probe, bool is_tls, int64_t now_ms, const char *why);
void schedule_gate_on_unused(struct gate *g, bool was_probe, int64_t now_ms); /* given back */
/* A reply says that the account cannot send for now. `named_sec` what it named, 0: grows by itself. */
bool schedule_gate_pause(struct gate *g, uint32_t named_sec, bool is_login, int64_t now_ms, const char *why);
/* Another policy, another password or authority maybe: a pause for a login, or for TLS, is over, and grows from the
 * start the next time. True: there was one. */
bool schedule_gate_retry_login(struct gate *g, int64_t now_ms);
bool schedule_gate_resume(struct gate *g); /* an operator knows better */
int64_t schedule_gate_closed_until_ms(const struct gate *g);

#endif
