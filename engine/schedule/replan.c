/*
 * Asking the policy for a plan: after a reload, when the plan of a function is old, and again and again while the
 * policy cannot decide.
 */
#include "internal.h"

#include <stdlib.h>

#define UNREAD_MS        1000
#define FUNCTION_PLAN_MS (15 * 60 * 1000)
#define RELEASED_MS      (60 * 60 * 1000) /* at least, for one that was held */

int64_t schedule_recipient_parked_delay_ms(uint32_t times)
{
    static const int64_t MINUTES[] = {5, 15, 60};
    return (times < 3 ? MINUTES[times] : 60) * 60 * 1000;
}

/* ---- when it expires ---- */

static uint32_t own_expire_sec(const struct hky_recipient *r)
{
    return r->plan != NULL ? r->plan->expire_sec : HKY_UNSET_SEC;
}

static int64_t expires_by_plan_at(const struct hky_shard *sh, const struct hky_recipient *r)
{
    uint32_t sec = own_expire_sec(r) != HKY_UNSET_SEC ? own_expire_sec(r) : sh->policy->engine.expire_sec;
    return r->message->accepted_at_ms + (int64_t)sec * 1000;
}

/* The time that was added to what its plan, or else the engine, allows, because it was parked or held. It is not longer
 * than the age; a larger difference comes from an engine.expire that was changed. The present parking is not in it. */
static int64_t uncounted_ms(const struct hky_shard *sh, const struct hky_recipient *r, int64_t now_ms)
{
    int64_t ms = r->expire_at_ms - expires_by_plan_at(sh, r);
    int64_t most_ms = (r->parked_at_ms != 0 ? r->parked_at_ms : now_ms) - r->message->accepted_at_ms;
    return ms < 0 || most_ms < 0 ? 0 : ms < most_ms ? ms : most_ms;
}

/* Takes the plan, which may be NULL. Until the recipient is tried, the plan that it has now says how long it may take,
 * and no plan before it, nor the engine.expire that it was accepted with while nobody had decided. */
static void set_plan(const struct hky_shard *sh, struct hky_recipient *r, struct hky_plan *plan)
{
    uint32_t sec = plan != NULL ? plan->expire_sec : HKY_UNSET_SEC;
    bool is_other = r->plan == NULL ? plan != NULL : own_expire_sec(r) != sec;
    bool is_moved = is_other && r->expire_at_ms != 0 && r->attempts + r->left_steps == 0;
    int64_t more_ms = is_moved ? uncounted_ms(sh, r, schedule_shard_now(sh)) : 0;
    hky_plan_unref(&r->plan);
    r->plan = plan;
    if (is_moved)
        r->expire_at_ms = schedule_plan_by_deadline(r, expires_by_plan_at(sh, r) + more_ms);
}

void schedule_recipient_renew_expiry(const struct hky_shard *sh, struct hky_recipient *r)
{
    int64_t now_ms = schedule_shard_now(sh);
    if (r->expire_at_ms == 0)
        r->expire_at_ms = schedule_plan_expire_at(sh->policy, r);
    if (r->attempts + r->left_steps == 0 && now_ms > r->message->accepted_at_ms)
        r->expire_at_ms = expires_by_plan_at(sh, r) + (now_ms - r->message->accepted_at_ms);
    if (r->expire_at_ms < now_ms + RELEASED_MS)
        r->expire_at_ms = now_ms + RELEASED_MS;
    r->expire_at_ms = schedule_plan_by_deadline(r, r->expire_at_ms);
}

/* ---- parking ---- */

static void park_for(struct hky_shard *sh, struct hky_recipient *r, const char *why, int64_t delay_ms)
{
    int64_t now_ms = schedule_shard_now(sh);
    bool is_asked_again = r->state == HKY_RCPT_UNDECIDED && r->parked_at_ms != 0;
    bool is_new = r->state != HKY_RCPT_PARKED && !is_asked_again;
    set_plan(sh, r, NULL);
    if (r->parked_at_ms == 0)
        r->parked_at_ms = now_ms;
    schedule_recipient_set_reason(r, why);
    schedule_recipient_enter(sh, r, HKY_RCPT_PARKED);
    if (schedule_plan_by_deadline(r, INT64_MAX) <= now_ms) {
        schedule_recipient_finish(sh, r, HKY_RCPT_EXPIRED, NULL, why, NULL);
        return;
    }
    if (now_ms - r->parked_at_ms >= (int64_t)sh->policy->engine.parked_sec * 1000) {
        schedule_recipient_finish(sh, r, HKY_RCPT_FAILED, NULL, why, NULL);
        return;
    }
    r->next_at_ms = schedule_plan_by_deadline(r, now_ms + delay_ms);
    r->parked_times += r->parked_times < UINT8_MAX;
    counter_add(&sh->n.parked, 1);
    recipients_append(&sh->parked, r);
    schedule_shard_set_due(sh, r, r->next_at_ms);
    schedule_recipient_journal(sh, r);
    if (is_new) {
        schedule_log_parked(sh, r);
        schedule_event_of_recipient(sh, HKY_EVENT_PARKED, r,
                                    &(struct event_details){.text = r->reason, .next_at_ms = r->next_at_ms});
    }
}

void schedule_recipient_park(struct hky_shard *sh, struct hky_recipient *r, const char *why)
{
    park_for(sh, r, why, schedule_recipient_parked_delay_ms(r->parked_times));
}

/* The policy wants to see a header that is still to be read from the disk, which is fast. After that failed once, it is
 * tried again as seldom as a policy that cannot decide is asked. */
static void park_unread(struct hky_shard *sh, struct hky_recipient *r, const char *why)
{
    park_for(sh, r, why, r->parked_times == 0 ? UNREAD_MS : schedule_recipient_parked_delay_ms(r->parked_times - 1U));
}

static void unpark(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    if (r->state != HKY_RCPT_PARKED && r->parked_at_ms == 0)
        return;
    if (r->parked_at_ms != 0) /* time in parking does not count */
        r->expire_at_ms = schedule_plan_expire_at(sh->policy, r) + (now_ms - r->parked_at_ms);
    r->expire_at_ms = schedule_plan_by_deadline(r, r->expire_at_ms); /* but it counts for the deadline */
    r->parked_at_ms = 0;
    r->parked_times = 0;
    schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
    schedule_recipient_set_reason(r, NULL);
    schedule_event_of_recipient(sh, HKY_EVENT_UNPARKED, r, &(struct event_details){0});
}

/* ---- a step that was left is not entered again ---- */

static const char *account_name(const struct hky_step *s)
{
    return s->account != NULL ? s->account : "";
}

static bool are_same_step(const struct hky_step *a, const struct hky_step *b)
{
    return strcmp(a->relay, b->relay) == 0 && strcmp(account_name(a), account_name(b)) == 0;
}

static bool has_attempt(const struct hky_recipient *r, const char *relay, unsigned step)
{
    for (unsigned i = 0; i < hky_recipient_n_past(r); i++) {
        struct hky_past p;
        hky_recipient_past(r, i, &p);
        if (p.step == step || hky_str_eq(p.relay, hky_str_z(relay)))
            return true;
    }
    return hky_recipient_n_past(r) == HKY_PAST_MAX; /* older ones are forgotten */
}

static bool ends_for_good(const struct hky_past *p)
{
    return !p->is_temporary && (p->class == HKY_CLASS_FILTERED || p->class == HKY_CLASS_AUTH_POLICY ||
                                p->class == HKY_CLASS_BLOCKED_IP || p->class == HKY_CLASS_SIZE_FORMAT);
}

/* Which relays plans before the present one have left is known from its attempts alone. */
static bool was_refused_by(const struct hky_recipient *r, const char *relay)
{
    bool is_current = r->plan != NULL && strcmp(r->plan->steps[r->step].relay, relay) == 0;
    for (unsigned i = 0; !is_current && i < hky_recipient_n_past(r); i++) {
        struct hky_past p;
        hky_recipient_past(r, i, &p);
        bool is_of_left_step = r->plan == NULL && p.step < r->step; /* it was parked after that */
        if (hky_str_eq(p.relay, hky_str_z(relay)) && (ends_for_good(&p) || is_of_left_step))
            return true;
    }
    return false;
}

/* A step was left if it is before the current one of the old plan and was entered. Steps that were passed over because
 * of their `on` were not entered. */
static bool was_left(const struct hky_recipient *r, const struct hky_step *s)
{
    for (unsigned i = 0; r->plan != NULL && i < r->step; i++) {
        const struct hky_step *old = &r->plan->steps[i];
        if (are_same_step(old, s) && (old->on == 0 || has_attempt(r, old->relay, i)))
            return true;
    }
    return was_refused_by(r, s->relay);
}

/* A reference to the new plan without the steps that were left before. NULL: it has no others. */
static struct hky_plan *without_left_steps(const struct hky_recipient *r, struct hky_plan *plan)
{
    if (r->step == 0 && hky_recipient_n_past(r) == 0)
        return hky_plan_ref(plan);
    struct hky_plan *draft = hky_calloc(1, sizeof *draft);
    size_t from = offsetof(struct hky_plan, hash); /* not the reference count, which other threads change */
    memcpy((char *)draft + from, (const char *)plan + from, sizeof *plan - from);
    draft->n_steps = 0;
    for (unsigned i = 0; i < plan->n_steps; i++)
        if (!was_left(r, &plan->steps[i]))
            draft->steps[draft->n_steps++] = plan->steps[i];
    struct hky_plan *rest = NULL;
    struct hky_error e;
    if (draft->n_steps == plan->n_steps)
        rest = hky_plan_ref(plan);
    else if (draft->n_steps > 0 && hky_plan_new(draft, &rest, &e) != HKY_OK)
        rest = NULL;
    free(draft);
    return rest;
}

static void adopt(const struct hky_shard *sh, struct hky_recipient *r, struct hky_plan *plan)
{
    bool goes_on = r->plan != NULL && r->step_at_ms != 0 && r->step < r->plan->n_steps &&
                   are_same_step(&r->plan->steps[r->step], &plan->steps[0]) && plan->steps[0].on == 0;
    set_plan(sh, r, plan);
    r->step = 0;
    if (!goes_on) {
        r->step_at_ms = 0;
        r->tries = r->step_attempts = r->ambiguous = 0;
        r->is_redirected = 0;
    }
}

/* Rounded up, so that it is not asked again before a quarter of an hour is over. */
static void remember_decision_time(struct hky_recipient *r, int64_t now_ms)
{
    int64_t minutes = (now_ms - r->message->accepted_at_ms + 59999) / 60000;
    own(r)->decided_min = (uint16_t)(minutes < 0 ? 0 : minutes < UINT16_MAX ? minutes : UINT16_MAX);
}

static void take_arms(struct hky_recipient *r, struct hky_decision *d)
{
    if (d->arms == NULL)
        return;
    free(r->arms);
    r->arms = d->arms;
    r->arms_n = d->arms_n;
    d->arms = NULL;
}

/* The policy gave no plan. */
static void go_without_plan(struct hky_shard *sh, struct hky_recipient *r, const struct hky_decision *d)
{
    switch (d->kind) {
    case HKY_WAITS:
        schedule_undecided_wait_for_answer(sh, r, d->text);
        break;
    case HKY_UNANSWERED:
        schedule_undecided_ask_after_failure(sh, r, d->text);
        break;
    case HKY_CROWDED:
        schedule_undecided_ask_when_free(sh, r);
        break;
    case HKY_UNREAD:
        park_unread(sh, r, d->text);
        break;
    default:
        schedule_recipient_park(sh, r, d->text[0] != '\0' ? d->text : "no_route: no route takes this recipient");
        break;
    }
}

void schedule_recipient_forget_wait(struct hky_recipient *r)
{
    r->parked_times = 0;
    schedule_recipient_set_reason(r, NULL);
}

bool schedule_recipient_replan(struct hky_shard *sh, struct hky_recipient *r)
{
    struct hky_decision d;
    if (!schedule_shard_has_policy_time(sh)) {
        schedule_undecided_ask_later(sh, r);
        return false;
    }
    memset(&d, 0, sizeof d);
    int64_t began_ns = hky_mono_ns();
    sh->s->ops->decide(sh->s->ops->ctx, sh->index, r, &d);
    sh->asked_ns += hky_mono_ns() - began_ns;
    if (d.kind != HKY_DECIDED || d.plan == NULL) {
        free(d.arms);
        go_without_plan(sh, r, &d);
        return false;
    }
    bool is_first = r->plan == NULL && r->parked_at_ms == 0;
    struct hky_plan *rest = without_left_steps(r, d.plan);
    hky_plan_unref(&d.plan);
    take_arms(r, &d);
    free(d.arms);
    if (rest == NULL && r->plan == NULL) {
        schedule_recipient_park(sh, r, "no_route: the plan has only relays that were left already");
        return false;
    }
    /* the worker's vm may still have the policy before; then the policy is asked again later */
    r->policy = d.policy != 0 ? d.policy : (uint32_t)sh->policy->hash;
    remember_decision_time(r, schedule_shard_now(sh));
    if (rest != NULL && r->plan != NULL && rest->hash == r->plan->hash && r->attempts + r->left_steps > 0)
        hky_plan_unref(&rest); /* it is the same plan: the recipient goes on in it */
    else if (rest != NULL)
        adopt(sh, r, rest);
    unpark(sh, r, schedule_shard_now(sh));
    schedule_recipient_forget_wait(r);
    if (r->step_at_ms == 0) /* so that the record says it; where no step may send as the author, dispatching ends it */
        (void)schedule_recipient_begin_plan(sh->policy, r, schedule_shard_now(sh));
    if (is_first)
        schedule_event_of_recipient(sh, HKY_EVENT_DECIDED, r, &(struct event_details){0});
    schedule_recipient_journal(sh, r);
    return true;
}

bool schedule_recipient_has_stale_plan(const struct hky_shard *sh, const struct hky_recipient *r, int64_t now_ms)
{
    if (r->plan == NULL)
        return true;
    if (r->copies > 0 || r->ambiguous > 0) /* a copy was delivered, or may have been: the stored plan stays */
        return false;
    if (r->policy != (uint32_t)sh->policy->hash)
        return true;
    int64_t decided = r->message->accepted_at_ms + (int64_t)own(r)->decided_min * 60000;
    return r->plan->is_from_function && r->attempts == 0 && r->left_steps == 0 && own(r)->decided_min < UINT16_MAX &&
           now_ms - decided > FUNCTION_PLAN_MS;
}
