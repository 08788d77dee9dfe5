/*
 * Looking after lanes from time to time: idle ones are retired, and mail in paused ones moves to other relays.
 */
#include "internal.h"

#define IDLE_MS       (5 * 60 * 1000)
#define IDLE_ROUND_MS (20 * 1000)
#define PULL_EXAMINED 20000 /* so many recipients of a paused lane are examined in one sweep */
#define PULL_MOVE     512

/* Their plan gives the same answer for both. Which steps may be taken depends on the author, too. */
static bool are_alike(const struct hky_recipient *a, const struct hky_recipient *b)
{
    return a->plan == b->plan && a->step == b->step &&
           (a->message == b->message ||
            hky_str_eq(hky_message_fact(a->message, HKY_FACT_AUTHOR), hky_message_fact(b->message, HKY_FACT_AUTHOR)));
}

/* It is in this lane because the relay of its step was drained to this one. Is that drain over, or to another relay? */
static bool belongs_elsewhere(struct lane *l, const struct hky_recipient *r)
{
    const struct hky_relay *relay = schedule_relay(l->shard->s, l->pub.policy, r->plan->steps[r->step].relay);
    return relay != NULL && relay != l->pub.relay;
}

/* Mail in a paused lane moves to other relays, only as much as these can take now. */
static void lane_pull(struct lane *l)
{
    unsigned n_examined = 0, n_moved = 0;
    const struct hky_recipient *stays = NULL; /* from its plan and step no other way is open to its author */
    for (int k = 0; k < HKY_RANK_N; k++) {
        struct scenario_queue *q = TAILQ_FIRST(&l->ranks[k].rotation), *q_next;
        for (; q != NULL; q = q_next) {
            q_next = TAILQ_NEXT(q, link);
            struct hky_recipient *r = recipients_first(&q->recipients), *next;
            for (; r != NULL && n_examined < PULL_EXAMINED && n_moved < PULL_MOVE; r = next, n_examined++) {
                next = recipients_next(r);
                if (stays != NULL && are_alike(r, stays))
                    continue;
                if (belongs_elsewhere(l, r)) {
                    schedule_recipient_take_out(l->shard, r);
                    schedule_recipient_dispatch_later(l->shard, r);
                    n_moved++;
                    if (next == NULL)
                        break;
                } else if (schedule_recipient_leave_step(l->shard, r, HKY_CLASS_PAUSED)) {
                    n_moved++;
                    if (next == NULL)
                        break;                  /* q may have been freed with its last recipient */
                } else if (r->ambiguous == 0) { /* such a one stays for a reason of its own */
                    stays = r;
                }
            }
        }
    }
    if (n_moved > 0)
        schedule_shard_request_turn(l->shard);
}

/* Is the mail of its relay sent through another relay now? Then all of it is dispatched again. */
static bool is_redirected(struct lane *l)
{
    return __atomic_load_n(&l->shard->s->n_relay_states, __ATOMIC_ACQUIRE) > 0 &&
           schedule_relay(l->shard->s, l->pub.policy, l->pub.relay_name) != l->pub.relay;
}

/* The lane of a destination remembers its breaker for an hour after that would have let the next job through. */
static bool is_forgettable(struct lane *l, int64_t now_ms)
{
    if (__atomic_load_n(&l->own_gate.must_ask, __ATOMIC_ACQUIRE) == 0)
        return true;
    pthread_mutex_lock(&l->shard->s->lock);
    int64_t until_ms = schedule_gate_closed_until_ms(&l->own_gate);
    pthread_mutex_unlock(&l->shard->s->lock);
    return until_ms + 12 * IDLE_MS <= now_ms;
}

void schedule_shard_sweep_lanes(struct hky_shard *sh, int64_t now_ms)
{
    struct lane *l, *next;
    bool is_idle_round = now_ms >= sh->next_idle_round_ms;
    for (l = TAILQ_FIRST(&sh->all_lanes); l != NULL; l = next) {
        next = TAILQ_NEXT(l, all_link);
        int64_t until_ms;
        if (l->pub.n_ready > 0 && is_redirected(l)) {
            schedule_lane_retire(l);
            schedule_shard_request_turn(sh);
        } else if (l->pub.n_ready > 0 && schedule_lane_is_paused(l, &until_ms)) {
            lane_pull(l);
        } else if (is_idle_round && l->pub.n_ready == 0 && l->n_jobs == 0 && is_forgettable(l, now_ms)) {
            if (l->idle_since_ms == 0) {
                l->idle_since_ms = now_ms;
            } else if (now_ms - l->idle_since_ms >= IDLE_MS) {
                schedule_lane_retire(l);
                schedule_shard_request_turn(sh);
            }
        }
    }
    if (is_idle_round) {
        schedule_shard_forget_slowness(sh, now_ms);
        sh->next_idle_round_ms = now_ms + IDLE_ROUND_MS;
    }
}
