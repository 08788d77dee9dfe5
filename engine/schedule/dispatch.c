/*
 * Where a recipient goes whose time has come: to its lane, to parking, to the held ones, or to its end.
 */
#include "internal.h"

#include <stdio.h>

#define NO_WAIT_MS 1000 /* with wait = 0: a connection that is free takes it sooner */

static struct hky_str destination_of(const struct hky_relay *relay, const struct hky_recipient *r)
{
    return relay->is_mx ? hky_recipient_domain(r) : HKY_STR("");
}

static void send_home(struct hky_shard *sh, unsigned home, struct hky_recipient *r)
{
    recipients_append(&sh->out[home], r);
    counter_add(&sh->n.moving, 1);
    sh->out_mask |= UINT64_C(1) << (home % 64);
    schedule_shard_request_turn(sh);
}

/* The end of a step. One that is over already, because the engine was down or the plan has changed, is asked about
 * soon: the lane has time for an attempt, if it lets anybody go. */
static int64_t end_to_come(int64_t end_ms, int64_t now_ms)
{
    return end_ms > now_ms ? end_ms : now_ms + GIVES_UP_SOON_MS;
}

int64_t schedule_recipient_gives_up_at(const struct hky_recipient *r, const struct hky_step *step, int64_t now_ms)
{
    int64_t at = r->expire_at_ms;
    if (step->within_sec != HKY_UNSET_SEC) {
        int64_t end = end_to_come(r->step_at_ms + (int64_t)step->within_sec * 1000, now_ms);
        at = end < at ? end : at;
    } else if (r->step + 1 < r->plan->n_steps) {
        int64_t half = end_to_come(r->step_at_ms + (r->expire_at_ms - r->step_at_ms) / 2, now_ms);
        at = half < at ? half : at;
    }
    if (step->wait_sec != HKY_UNSET_SEC) {
        int64_t end = now_ms + (step->wait_sec > 0 ? (int64_t)step->wait_sec * 1000 : NO_WAIT_MS);
        at = end < at && end > now_ms ? end : at;
    }
    return at;
}

static bool is_full(struct hky_shard *sh, const struct lane *l, const struct hky_step *step)
{
    if (step->wait_sec == HKY_UNSET_SEC || l->caps == NULL)
        return false;
    int64_t now_ms = schedule_shard_mono(sh);
    int64_t eta = schedule_caps_eta(sh->s->caps, l->caps, counter_get(&l->account->n_queued), now_ms);
    return eta > now_ms + (int64_t)step->wait_sec * 1000;
}

static void dispatch_to_lane(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    const struct hky_step *step = &r->plan->steps[r->step];
    const struct hky_relay *relay = schedule_relay(sh->s, sh->policy, step->relay);
    if (relay == NULL) {
        char why[200];
        if (r->ambiguous > 0) { /* another plan would send one more copy */
            snprintf(why, sizeof why, "may have been delivered; the policy no longer has relay \"%.120s\" of its step",
                     step->relay);
            schedule_recipient_hold(sh, r, why);
            return;
        }
        snprintf(why, sizeof why, "policy_error: the plan names relay \"%.120s\", which the policy no longer has",
                 step->relay);
        schedule_recipient_park(sh, r, why);
        return;
    }
    const char *account = schedule_plan_account(relay, step);
    struct hky_str destination = destination_of(relay, r);
    unsigned home = schedule_lane_home(sh->s, relay, account, destination);
    if (home != sh->index) {
        send_home(sh, home, r);
        return;
    }
    struct lane *l = schedule_shard_lane(sh, relay, account, destination);
    bool is_late = is_full(sh, l, step);
    schedule_lane_push(l, r, l == sh->head_kept_in || sh->goes_to_head);
    int64_t until_ms;
    schedule_shard_set_due(sh, r, schedule_recipient_gives_up_at(r, step, now_ms));
    if (is_late && schedule_recipient_leave_step(sh, r, HKY_CLASS_FULL))
        return;
    if (schedule_lane_is_paused(l, &until_ms) && schedule_recipient_leave_step(sh, r, HKY_CLASS_PAUSED))
        return;
    schedule_shard_wake(sh, l);
}

bool schedule_recipient_is_reached(const struct hky_shard *sh, const struct hky_recipient *r)
{
    const struct hky_policy *p = sh->policy;
    return p->engine.reaches == NULL || sh->s->is_everyone_reached || p->engine.reaches(p, r);
}

void schedule_recipient_hold_unreached(struct hky_shard *sh, struct hky_recipient *r)
{
    schedule_recipient_hold(sh, r, "engine.only_to does not name this recipient");
}

/* In a reload, a worker's functions and its schedule get the new policy one after the other. Was the plan made by a
 * policy that this schedule does not have yet, or no longer has, with a relay that is unknown here? */
static bool is_plan_of_other_policy(const struct hky_shard *sh, const struct hky_recipient *r)
{
    if (r->policy == (uint32_t)sh->policy->hash)
        return false;
    for (uint8_t i = 0; i < r->plan->n_steps; i++)
        if (hky_policy_relay(sh->policy, hky_str_z(r->plan->steps[i].relay)) == NULL)
            return true;
    return false;
}

void schedule_recipient_dispatch(struct hky_shard *sh, struct hky_recipient *r)
{
    int64_t now_ms = schedule_shard_now(sh);
    if (r->unclean >= UNCLEAN_MOST) {
        schedule_recipient_hold(
            sh, r,
            "the engine ended without warning three times while this message was being sent, maybe because of it; "
            "hikyaku queue release sends it after all");
        return;
    }
    bool is_asked = schedule_recipient_has_stale_plan(sh, r, now_ms);
    if (is_asked && !schedule_recipient_replan(sh, r))
        return;
    if (r->state == HKY_RCPT_UNDECIDED) /* its plan is in force again: a reload brought back the policy of before */
        schedule_recipient_forget_wait(r);
    schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
    if (r->expire_at_ms == 0)
        r->expire_at_ms = schedule_plan_expire_at(sh->policy, r);
    if (now_ms >= r->expire_at_ms) {
        schedule_recipient_expire(sh, r);
        return;
    }
    if (is_asked && is_plan_of_other_policy(sh, r)) {
        schedule_undecided_wait_for_policy(sh, r);
        return;
    }
    if (r->attempts >= HKY_ATTEMPTS_MAX) { /* an operator or a repaired relay asked for it before its time */
        schedule_recipient_defer(sh, r, r->expire_at_ms);
        return;
    }
    if (!schedule_recipient_is_reached(sh, r)) {
        schedule_recipient_hold_unreached(sh, r);
        return;
    }
    if (r->step_at_ms == 0 && !schedule_recipient_begin_plan(sh->policy, r, now_ms)) {
        schedule_recipient_fail_for_author(sh, r);
        return;
    }
    dispatch_to_lane(sh, r, now_ms);
}

void schedule_recipient_redispatch(struct hky_shard *sh, struct hky_recipient *r)
{
    counter_add(&sh->n.moving, 1); /* it stays counted somewhere while the policy is asked */
    schedule_recipient_take_out(sh, r);
    schedule_recipient_dispatch(sh, r);
    counter_add(&sh->n.moving, -1);
}
