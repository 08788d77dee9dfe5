/*
 * Where a recipient belongs whose time has come.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define FUNCTION_PLAN_MS (15 * 60 * 1000)
#define PULL_ROOM_LEAST  64

/* ---- places ---- */

void recipient_set_reason(struct hky_recipient *r, const char *why)
{
    free(r->reason);
    r->reason = why != NULL ? hky_strdup(why) : NULL;
}

void recipient_journal(struct hky_shard *sh, struct hky_recipient *r)
{
    hky_journal_attempt(sh->s->journal, r, NULL);
}

/* By the relay that its step names, which says the same when it leaves: plan and step change only of those without a
 * place. */
void shard_count_deferred(struct hky_shard *sh, const struct hky_recipient *r, int by)
{
    counter_add(&sh->n.deferred, (uint32_t)by);
    if (r->plan == NULL)
        return;
    struct hky_str relay = hky_str_z(r->plan->steps[r->step].relay);
    uint32_t *n = hky_map_get(&sh->deferred, relay);
    if (n == NULL) {
        n = hky_calloc(1, sizeof *n);
        pthread_mutex_lock(&sh->s->lock);
        hky_map_put(&sh->deferred, relay, n);
        pthread_mutex_unlock(&sh->s->lock);
    }
    counter_add(n, (uint32_t)by);
}

void recipient_unplace(struct hky_shard *sh, struct hky_recipient *r)
{
    if (own(r)->lane != NULL) {
        lane_remove(own(r)->lane, r);
        hky_heap_remove(&sh->due, &own(r)->due);
    } else if (r->state == HKY_RCPT_HELD) {
        survey_leaves(sh, r);
        recipients_remove(&sh->held, r);
        counter_add(&sh->n.held, -1);
    } else if (r->state == HKY_RCPT_UNDECIDED) {
        undecided_unplace(sh, r);
    } else if (own(r)->due.index != 0) {
        hky_heap_remove(&sh->due, &own(r)->due);
        if (r->state == HKY_RCPT_PARKED) {
            recipients_remove(&sh->parked, r);
            counter_add(&sh->n.parked, -1);
        } else {
            shard_count_deferred(sh, r, -1);
        }
    } else {
        survey_leaves(sh, r);
        recipients_remove(&sh->to_place, r);
        counter_add(&sh->n.moving, -1);
    }
}

static void wait_in_heap(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    r->next_at_ms = at_ms;
    shard_set_due(sh, r, at_ms);
}

void recipient_defer(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    recipient_enter(sh, r, HKY_RCPT_QUEUED);
    shard_count_deferred(sh, r, 1);
    wait_in_heap(sh, r, at_ms);
}

void recipient_list_for_placing(struct hky_shard *sh, struct hky_recipient *r)
{
    recipients_append(&sh->to_place, r);
    counter_add(&sh->n.moving, 1);
}

void recipient_place_later(struct hky_shard *sh, struct hky_recipient *r)
{
    recipient_list_for_placing(sh, r);
    shard_turn_later(sh);
}

void recipient_hold_after(struct hky_shard *sh, struct hky_recipient *r, const char *why, const struct hky_outcome *o,
                          const struct job *job)
{
    if (why != r->reason)
        recipient_set_reason(r, why);
    recipient_enter(sh, r, HKY_RCPT_HELD);
    recipients_append(&sh->held, r);
    counter_add(&sh->n.held, 1);
    recipient_journal(sh, r);
    event_of_recipient(sh, HKY_EVENT_HELD, r, &(struct event_details){.outcome = o, .job = job, .text = r->reason});
}

void recipient_hold(struct hky_shard *sh, struct hky_recipient *r, const char *why)
{
    recipient_hold_after(sh, r, why, NULL, NULL);
}

/* The last attempt as an outcome again, for a notice that comes later. */
static const struct hky_outcome *last_outcome(const struct hky_recipient *r, struct hky_outcome *o)
{
    unsigned n = hky_recipient_n_past(r);
    if (n == 0)
        return NULL;
    struct hky_past p;
    hky_recipient_past(r, n - 1, &p);
    memset(o, 0, sizeof *o);
    o->class = p.class;
    o->scope = p.scope;
    o->stage = p.stage;
    o->is_temporary = p.is_temporary;
    o->retry_after_sec = p.retry_after_sec;
    o->latency_ms = p.latency_ms;
    o->reply.code = p.code;
    o->reply.enhanced[0] = p.enhanced[0];
    o->reply.enhanced[1] = p.enhanced[1];
    o->reply.enhanced[2] = p.enhanced_detail < 256 ? (uint8_t)p.enhanced_detail : 0;
    o->reply.enhanced_detail = p.enhanced_detail;
    o->reply.n = (uint16_t)(p.reply.n < HKY_REPLY_TEXT ? p.reply.n : HKY_REPLY_TEXT - 1);
    memcpy(o->reply.text, p.reply.p, o->reply.n);
    return o;
}

void recipient_finish(struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state state,
                      const struct hky_outcome *o, const char *why, const struct job *job)
{
    static const enum hky_event_kind KIND[HKY_RCPT_STATE_N] = {
        [HKY_RCPT_DELIVERED] = HKY_EVENT_DELIVERED,
        [HKY_RCPT_FAILED] = HKY_EVENT_FAILED,
        [HKY_RCPT_EXPIRED] = HKY_EVENT_EXPIRED,
        [HKY_RCPT_CANCELLED] = HKY_EVENT_CANCELLED,
    };
    struct hky_outcome last;
    recipient_enter(sh, r, state);
    if (o == NULL && state != HKY_RCPT_CANCELLED)
        o = last_outcome(r, &last);
    if (why != NULL && state != HKY_RCPT_DELIVERED)
        recipient_set_reason(r, why);
    counter_add(r->message->is_notice         ? &sh->n.notices /* nobody handed it in */
                : state == HKY_RCPT_DELIVERED ? &sh->n.delivered
                : state == HKY_RCPT_CANCELLED ? &sh->n.cancelled
                                              : &sh->n.failed,
                1);
    event_of_recipient(sh, KIND[state], r, &(struct event_details){.outcome = o, .job = job, .text = why});
    sh->s->ops->finish(sh->s->ops->ctx, sh->index, r, o);
}

void recipient_enter_step(struct hky_recipient *r, uint8_t step, enum hky_class cause, int64_t now_ms)
{
    r->step = step;
    r->left_steps++;
    r->tries = 0;
    r->step_attempts = 0;
    r->ambiguous = 0;
    r->last_class = (uint8_t)cause;
    r->is_redirected = (r->plan->steps[step].on & HKY_CLASS_BIT(cause)) != 0;
    r->step_at_ms = now_ms;
    r->next_at_ms = now_ms;
}

void recipient_expire(struct hky_shard *sh, struct hky_recipient *r)
{
    recipient_finish(sh, r, HKY_RCPT_EXPIRED, NULL, "the time to deliver is over", NULL);
}

/* ---- steps that are left without an attempt ---- */

static struct hky_str destination_of(const struct hky_relay *relay, const struct hky_recipient *r)
{
    return relay->is_mx ? hky_recipient_domain(r) : HKY_STR("");
}

/* The step's account belongs to the relay it names; whoever stands in for it uses its own. */
static const char *account_of(const struct hky_relay *relay, const struct hky_step *step)
{
    bool is_named = step->account != NULL && step->account[0] != '\0' && strcmp(relay->name, step->relay) == 0;
    return is_named ? step->account : relay->account;
}

static bool can_take_now(struct hky_shard *sh, const struct hky_recipient *r, uint8_t step)
{
    const struct hky_step *st = &r->plan->steps[step];
    const struct hky_relay *relay = schedule_relay(sh->s, sh->policy, st->relay);
    int64_t until_ms;
    if (relay == NULL || schedule_is_paused(sh->s, relay, &until_ms))
        return false;
    struct account *a = schedule_account(sh->s, sh->policy, relay, account_of(relay, st), NULL);
    uint32_t room = relay->connections * 4 > PULL_ROOM_LEAST ? relay->connections * 4 : PULL_ROOM_LEAST;
    if (counter_get(&a->n_queued) >= room)
        return false;
    if (relay->is_mx || __atomic_load_n(&a->gate.is_troubled, __ATOMIC_ACQUIRE) == 0)
        return true;
    pthread_mutex_lock(&sh->s->lock);
    enum gate_answer answer = gate_ask(&a->gate, shard_mono(sh), false, &until_ms);
    pthread_mutex_unlock(&sh->s->lock);
    return answer != GATE_WAIT;
}

/* No way is left that may send as the author: a verdict of ours, told to the sender as one of a server is. */
static void fail_for_author(struct hky_shard *sh, struct hky_recipient *r)
{
    struct hky_outcome o = {.class = HKY_CLASS_SENDS_AS, .scope = HKY_SCOPE_SENDER};
    struct hky_str author = hky_message_fact(r->message, HKY_FACT_AUTHOR);
    hky_reply_local(&o.reply, HKY_ORIGIN_POLICY, "no step can send as %.*s", author.n < 200 ? (int)author.n : 200,
                    author.p);
    r->last_class = HKY_CLASS_SENDS_AS;
    recipient_finish(sh, r, HKY_RCPT_FAILED, &o, o.reply.text, NULL);
}

bool recipient_leave_step(struct hky_shard *sh, struct hky_recipient *r, enum hky_class reason)
{
    int64_t now_ms = shard_now(sh);
    struct hky_outcome o = {.class = reason};
    struct hky_recipient probe = *r; /* its plan, step and counters; walks ahead of the real one */
    struct hky_advance a;
    do {
        hky_plan_advance(&(struct hky_advance_query){sh->policy, &probe, &o, now_ms}, &a);
        probe.step = a.step;
        probe.left_steps++;
    } while (a.action == HKY_ACTION_NEXT && reason == HKY_CLASS_PAUSED && !can_take_now(sh, r, a.step));
    if (a.action == HKY_ACTION_RETRY || a.action == HKY_ACTION_NONE)
        return false;
    if (r->state != HKY_RCPT_SENDING)
        recipient_unplace(sh, r);
    if (a.action == HKY_ACTION_NEXT) {
        const char *from = r->plan->steps[r->step].relay;
        recipient_enter_step(r, a.step, reason, now_ms);
        recipient_journal(sh, r);
        event_of_recipient(sh, HKY_EVENT_ROUTED, r,
                           &(struct event_details){.outcome = &o, .relay = from, .text = a.why});
        recipient_place_later(sh, r);
    } else if (a.action == HKY_ACTION_HOLD) {
        recipient_hold(sh, r, a.why);
    } else if (reason == HKY_CLASS_SENDS_AS) {
        fail_for_author(sh, r);
    } else {
        r->last_class = (uint8_t)reason;
        recipient_finish(sh, r, HKY_RCPT_FAILED, NULL, a.why, NULL);
    }
    return true;
}

/* ---- place ---- */

static void send_home(struct hky_shard *sh, unsigned home, struct hky_recipient *r)
{
    recipients_append(&sh->out[home], r);
    counter_add(&sh->n.moving, 1);
    sh->out_mask |= UINT64_C(1) << (home % 64);
    shard_turn_later(sh);
}

int64_t recipient_gives_up_at(const struct hky_recipient *r, const struct hky_step *step, int64_t now_ms)
{
    int64_t at = r->expire_at_ms;
    if (step->within_sec != HKY_UNSET_SEC) {
        int64_t end = r->step_at_ms + (int64_t)step->within_sec * 1000;
        at = end < at && end > now_ms ? end : at;
    } else if (r->step + 1 < r->plan->n_steps) {
        int64_t half = r->step_at_ms + (r->expire_at_ms - r->step_at_ms) / 2;
        at = half < at && half > now_ms ? half : at;
    }
    if (step->wait_sec != HKY_UNSET_SEC) {
        int64_t end = now_ms + (int64_t)step->wait_sec * 1000;
        at = end < at && end > now_ms ? end : at;
    }
    return at;
}

static bool is_full(struct hky_shard *sh, const struct lane *l, const struct hky_step *step)
{
    if (step->wait_sec == HKY_UNSET_SEC || l->caps == NULL)
        return false;
    int64_t now_ms = shard_mono(sh);
    int64_t eta = caps_eta(sh->s->caps, l->caps, counter_get(&l->account->n_queued), now_ms);
    return eta > now_ms + (int64_t)step->wait_sec * 1000;
}

static void place_in_lane(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    const struct hky_step *step = &r->plan->steps[r->step];
    const struct hky_relay *relay = schedule_relay(sh->s, sh->policy, step->relay);
    if (relay == NULL) {
        char why[160];
        snprintf(why, sizeof why, "policy_error: the plan names relay \"%.80s\", which the policy no longer has",
                 step->relay);
        recipient_park(sh, r, why);
        return;
    }
    const char *account = account_of(relay, step);
    struct hky_str destination = destination_of(relay, r);
    unsigned home = lane_home(sh->s, relay, account, destination);
    if (home != sh->index) {
        send_home(sh, home, r);
        return;
    }
    struct lane *l = shard_lane(sh, relay, account, destination);
    bool is_late = is_full(sh, l, step);
    lane_push(l, r, l == sh->keeps_place || sh->goes_first);
    int64_t until_ms;
    shard_set_due(sh, r, recipient_gives_up_at(r, step, now_ms));
    if (is_late && recipient_leave_step(sh, r, HKY_CLASS_FULL))
        return;
    if (lane_is_paused(l, &until_ms) && recipient_leave_step(sh, r, HKY_CLASS_PAUSED))
        return;
    shard_wake(sh, l);
}

static void begin_plan(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms, bool *is_over)
{
    struct hky_advance a;
    hky_plan_first(sh->policy, r, &a);
    *is_over = a.action != HKY_ACTION_NEXT;
    if (*is_over) {
        fail_for_author(sh, r);
        return;
    }
    r->step = a.step;
    r->step_at_ms = now_ms;
}

void recipient_place(struct hky_shard *sh, struct hky_recipient *r)
{
    int64_t now_ms = shard_now(sh);
    if (r->unclean >= UNCLEAN_MOST) {
        recipient_hold(
            sh, r,
            "the engine ended without warning three times while this message was being sent, maybe because of it; "
            "hikyaku queue release sends it after all");
        return;
    }
    if (recipient_has_stale_plan(sh, r, now_ms) && !recipient_plan_anew(sh, r))
        return;
    recipient_enter(sh, r, HKY_RCPT_QUEUED);
    if (r->expire_at_ms == 0)
        r->expire_at_ms = plan_expire_at(sh->policy, r);
    if (now_ms >= r->expire_at_ms) {
        recipient_expire(sh, r);
        return;
    }
    if (sh->policy->engine.reaches != NULL && !sh->s->is_everyone_reached &&
        !sh->policy->engine.reaches(sh->policy, r)) {
        recipient_hold(sh, r, "engine.only_to does not name this recipient");
        return;
    }
    bool is_over = false;
    if (r->step_at_ms == 0)
        begin_plan(sh, r, now_ms, &is_over);
    if (!is_over)
        place_in_lane(sh, r, now_ms);
}

void recipient_place_anew(struct hky_shard *sh, struct hky_recipient *r)
{
    counter_add(&sh->n.moving, 1); /* the policy may be asked meanwhile: it is never in nobody's count */
    recipient_unplace(sh, r);
    recipient_place(sh, r);
    counter_add(&sh->n.moving, -1);
}

bool recipient_has_stale_plan(const struct hky_shard *sh, const struct hky_recipient *r, int64_t now_ms)
{
    if (r->plan == NULL)
        return true;
    if (r->copies > 0 || r->ambiguous > 0) /* a copy is out, or may be: the stored plan stays */
        return false;
    if (r->policy != (uint32_t)sh->policy->hash)
        return true;
    int64_t decided = r->message->accepted_at_ms + (int64_t)own(r)->decided_min * 60000;
    return r->plan->is_from_function && r->attempts == 0 && r->left_steps == 0 && own(r)->decided_min < UINT16_MAX &&
           now_ms - decided > FUNCTION_PLAN_MS;
}
