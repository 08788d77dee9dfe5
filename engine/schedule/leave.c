/*
 * Steps that are left without an attempt: the relay is paused or full, or may not send as the author.
 */
#include "internal.h"

#define PULL_ROOM_LEAST 64

static bool can_take_now(struct hky_shard *sh, const struct hky_recipient *r, uint8_t step)
{
    const struct hky_step *st = &r->plan->steps[step];
    const struct hky_relay *relay = schedule_relay(sh->s, sh->policy, st->relay);
    int64_t until_ms;
    if (relay == NULL || schedule_is_paused(sh->s, relay, &until_ms))
        return false;
    struct account *a = schedule_account(sh->s, sh->policy, relay, schedule_plan_account(relay, st), NULL);
    uint32_t room = relay->connections * 4 > PULL_ROOM_LEAST ? relay->connections * 4 : PULL_ROOM_LEAST;
    if (counter_get(&a->n_queued) >= room)
        return false;
    if (relay->is_mx || __atomic_load_n(&a->gate.must_ask, __ATOMIC_ACQUIRE) == 0)
        return true;
    pthread_mutex_lock(&sh->s->lock);
    enum gate_answer answer = schedule_gate_ask(&a->gate, schedule_shard_mono(sh), false, &until_ms);
    pthread_mutex_unlock(&sh->s->lock);
    return answer != GATE_WAIT;
}

bool schedule_recipient_leave_step(struct hky_shard *sh, struct hky_recipient *r, enum hky_class reason)
{
    int64_t now_ms = schedule_shard_now(sh);
    struct hky_outcome o = {.class = reason};
    struct hky_recipient probe = *r; /* a copy that tries the steps ahead; r itself does not change yet */
    struct hky_advance a;
    do {
        hky_schedule_plan_advance(&(struct hky_advance_query){sh->policy, &probe, &o, now_ms}, &a);
        probe.step = a.step;
        probe.left_steps++;
    } while (a.action == HKY_ACTION_NEXT && reason == HKY_CLASS_PAUSED && !can_take_now(sh, r, a.step));
    if (a.action == HKY_ACTION_RETRY || a.action == HKY_ACTION_NONE)
        return false;
    if (r->state != HKY_RCPT_SENDING)
        schedule_recipient_take_out(sh, r);
    if (a.action == HKY_ACTION_NEXT) {
        const char *from = r->plan->steps[r->step].relay;
        schedule_recipient_enter_step(r, a.step, reason, now_ms);
        schedule_recipient_journal(sh, r);
        schedule_event_of_recipient(sh, HKY_EVENT_ROUTED, r,
                                    &(struct event_details){.outcome = &o, .relay = from, .text = a.why});
        schedule_recipient_dispatch_later(sh, r);
    } else if (a.action == HKY_ACTION_HOLD) {
        schedule_recipient_hold(sh, r, a.why);
    } else if (reason == HKY_CLASS_SENDS_AS) {
        schedule_recipient_fail_for_author(sh, r);
    } else {
        r->last_class = (uint8_t)reason;
        schedule_recipient_finish(sh, r, HKY_RCPT_FAILED, NULL, a.why, NULL);
    }
    return true;
}
