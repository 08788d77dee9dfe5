/*
 * How a plan goes on after an outcome: this is POLICY.md 2b and the table of its section 5.
 */
#include "plan.h"

#include "base/duration.h"

#include <stdarg.h>
#include <stdio.h>

#define MINUTE_MS         INT64_C(60000)
#define MAILBOX_FULL_MS   (360 * MINUTE_MS)
#define UNKNOWN_AGAIN_MS  (15 * MINUTE_MS)
#define AMBIGUOUS_MS      (10 * MINUTE_MS)
#define AMBIGUOUS_RETRIES 2
#define TRIES_DEFAULT     3
#define SPREAD_FROM       30 /* attempts; those after them are spread over the time that is left */
#define PAUSE_SEC         60
#define HOUR_SEC          3600
#define DAY_SEC           86400
#define RETRY_AFTER_MAX   DAY_SEC
#define NO_STEP           (-1)

/* The question that is being answered. */
struct walk {
    const struct hky_policy *policy;
    const struct hky_recipient *r;
    const struct hky_outcome *o;
    enum hky_class cause;
    int64_t now_ms, expire_at_ms;
    struct hky_advance *out;
};

static const struct hky_step *step_of(const struct walk *w)
{
    return &w->r->plan->steps[w->r->step];
}

static void because(struct hky_advance *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void because(struct hky_advance *out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out->why, sizeof out->why, fmt, ap);
    va_end(ap);
}

/* As because(), for what most messages meet. */
static void because_of(struct hky_advance *out, const char *what, const char *relay)
{
    const char *end = out->why + sizeof out->why;

    hky_str_put(hky_str_put(out->why, end, hky_str_z(what)), end, hky_str_z(relay));
}

const struct hky_relay *schedule_plan_relay(const struct hky_policy *policy, const char *name)
{
    const struct hky_relay *relay = hky_policy_relay(policy, hky_str_z(name));
    for (int i = 0; relay != NULL && relay->instead != NULL && relay->instead[0] != '\0' && i < RELAYS_FOLLOWED_MAX;
         i++)
        relay = hky_policy_relay(policy, hky_str_z(relay->instead));
    return relay;
}

const char *schedule_plan_account(const struct hky_relay *relay, const struct hky_step *step)
{
    bool is_named = step->account != NULL && step->account[0] != '\0' && strcmp(relay->name, step->relay) == 0;
    return is_named ? step->account : relay->account;
}

bool schedule_plan_step_sends_as(const struct hky_policy *policy, const struct hky_recipient *r, uint8_t step)
{
    const struct hky_relay *relay = schedule_plan_relay(policy, r->plan->steps[step].relay);
    if (relay == NULL)
        return true; /* the schedule parks it for another reason */
    struct hky_identity identity;
    hky_identity_choose(policy, relay, r->plan, step, r->message, r, &identity);
    return identity.is_allowed;
}

int64_t schedule_plan_by_deadline(const struct hky_recipient *r, int64_t at_ms)
{
    int64_t deadline_ms = r->message->deadline_ms;
    return deadline_ms != 0 && deadline_ms < at_ms ? deadline_ms : at_ms;
}

int64_t schedule_plan_expire_at(const struct hky_policy *policy, const struct hky_recipient *r)
{
    if (r->expire_at_ms != 0)
        return r->expire_at_ms;
    uint32_t sec =
        r->plan != NULL && r->plan->expire_sec != HKY_UNSET_SEC ? r->plan->expire_sec : policy->engine.expire_sec;
    return schedule_plan_by_deadline(r, r->message->accepted_at_ms + (int64_t)sec * 1000);
}

static unsigned attempts_left(const struct hky_recipient *r, enum hky_class cause)
{
    unsigned used = r->attempts + (hky_class_is_reason(cause) ? 0U : 1U);
    return used < HKY_ATTEMPTS_MAX ? HKY_ATTEMPTS_MAX - used : 0;
}

static bool can_enter_a_step(const struct hky_recipient *r, enum hky_class cause)
{
    return r->left_steps < HKY_PLAN_STEPS_MAX && attempts_left(r, cause) > 0;
}

/* The step that would be entered next for `cause`. A step that cannot send as the author is passed over; the `on` of
 * the steps after it may then name sends_as as well as `cause`. */
static int next_step(const struct hky_policy *policy, const struct hky_recipient *r, int from, enum hky_class cause)
{
    uint64_t causes = HKY_CLASS_BIT(cause);
    if (!can_enter_a_step(r, cause))
        return NO_STEP;
    for (int i = from + 1; i < r->plan->n_steps; i++) {
        const struct hky_step *s = &r->plan->steps[i];
        if (s->on != 0 && (s->on & causes) == 0)
            continue;
        if (schedule_plan_step_sends_as(policy, r, (uint8_t)i))
            return i;
        causes |= HKY_CLASS_BIT(HKY_CLASS_SENDS_AS);
    }
    return NO_STEP;
}

/* The next step whose `on` names the cause. Classes that fail by default enter no other one. */
static int next_step_naming(const struct walk *w)
{
    for (int i = w->r->step + 1; i < w->r->plan->n_steps && can_enter_a_step(w->r, w->cause); i++)
        if ((w->r->plan->steps[i].on & HKY_CLASS_BIT(w->cause)) != 0 &&
            schedule_plan_step_sends_as(w->policy, w->r, (uint8_t)i))
            return i;
    return NO_STEP;
}

static bool fails_by_default(enum hky_class c)
{
    return c == HKY_CLASS_BAD_MAILBOX || c == HKY_CLASS_BAD_DOMAIN || c == HKY_CLASS_INACTIVE ||
           c == HKY_CLASS_MAILBOX_FULL || c == HKY_CLASS_REPUTATION_CONTENT || c == HKY_CLASS_SUPPRESSED;
}

/* A copy may have been delivered. No other way sends one more; only the route's react may say so for this outcome. */
static bool may_be_delivered(const struct walk *w)
{
    return w->r->ambiguous > 0 || w->cause == HKY_CLASS_AMBIGUOUS;
}

static int next_for(const struct walk *w)
{
    if (may_be_delivered(w))
        return NO_STEP;
    return fails_by_default(w->cause) ? next_step_naming(w) : next_step(w->policy, w->r, w->r->step, w->cause);
}

static int64_t within_end(const struct walk *w, int next)
{
    const struct hky_step *s = step_of(w);
    int64_t entered = w->r->step_at_ms != 0 ? w->r->step_at_ms : w->now_ms;
    bool is_stated = s->within_sec != HKY_UNSET_SEC;
    bool may_end = w->cause == HKY_CLASS_MAILBOX_FULL && (w->o == NULL || !w->o->is_temporary);
    if (is_stated && (next != NO_STEP || may_end))
        return entered + (int64_t)s->within_sec * 1000;
    if (is_stated || next == NO_STEP || w->expire_at_ms <= entered)
        return INT64_MAX;
    return entered + (w->expire_at_ms - entered) / 2;
}

int64_t schedule_plan_within_end(const struct hky_policy *policy, const struct hky_recipient *r, enum hky_class cause)
{
    struct walk w = {policy, r, NULL, cause, r->step_at_ms, schedule_plan_expire_at(policy, r), NULL};
    return within_end(&w, next_for(&w));
}

static int64_t usual_delay_ms(const struct walk *w)
{
    const struct hky_retry *list = &step_of(w)->retry;
    list = list->n > 0 ? list : &w->r->plan->retry;
    list = list->n > 0 ? list : &w->policy->engine.retry;
    if (list->n == 0)
        return 5 * MINUTE_MS;
    unsigned at = w->r->step_attempts < list->n ? w->r->step_attempts : list->n - 1u;
    return (int64_t)list->after_sec[at] * 1000;
}

/* ---- the five answers ---- */

static void go_fail(struct walk *w, const char *why)
{
    w->out->action = HKY_ACTION_FAIL;
    w->out->step = w->r->step;
    w->out->at_ms = w->now_ms;
    because(w->out, "%s", why);
}

static void go_hold(struct walk *w, const char *why)
{
    go_fail(w, why);
    w->out->action = HKY_ACTION_HOLD;
}

static void hold_instead(struct walk *w)
{
    char why[sizeof w->out->why];
    snprintf(why, sizeof why, "%s", w->out->why);
    w->out->action = HKY_ACTION_HOLD;
    because(w->out, "may have been delivered; %.*s", (int)sizeof why - 32, why);
}

static void go_next(struct walk *w, int next, const char *why)
{
    w->out->action = HKY_ACTION_NEXT;
    w->out->step = (uint8_t)next;
    w->out->at_ms = w->now_ms;
    because(w->out, "step %s left: %s", step_of(w)->relay, why);
}

static void go_retry(struct walk *w, int64_t at_ms)
{
    w->out->action = HKY_ACTION_RETRY;
    w->out->step = w->r->step;
    w->out->at_ms = at_ms < w->expire_at_ms ? at_ms : w->expire_at_ms;
    if (attempts_left(w->r, w->cause) == 0)
        because(w->out, "its %d attempts are used up; it waits until it expires", HKY_ATTEMPTS_MAX);
    else
        because(w->out, at_ms < w->expire_at_ms ? "again by %s" : "%s: would be tried again after it has expired",
                step_of(w)->relay);
}

/* Two promises have to hold: no temporary reply ends a recipient, and there are at most 60 attempts. So after many
 * attempts those that are left are spread over the time that is left. After the last one it waits until it expires. */
static int64_t spread(const struct walk *w, int64_t at_ms)
{
    unsigned left = attempts_left(w->r, w->cause);
    if (left > HKY_ATTEMPTS_MAX - SPREAD_FROM)
        return at_ms;
    int64_t spread_ms = w->now_ms + (w->expire_at_ms - w->now_ms) / (left + 1);
    return spread_ms > at_ms ? spread_ms : at_ms;
}

/* Tries the step again, unless its `within` is over before that. The last step is tried until the recipient expires. */
static void retry_within(struct walk *w, int64_t at_ms)
{
    int next = next_for(w);
    if (at_ms >= within_end(w, next)) {
        char why[64], age[HKY_DURATION_TEXT];
        int64_t sec = (within_end(w, next) - (w->r->step_at_ms != 0 ? w->r->step_at_ms : w->now_ms)) / 1000;
        snprintf(why, sizeof why, "%s are over before the next retry", hky_duration_format(sec, age));
        if (next != NO_STEP)
            go_next(w, next, why);
        else
            go_fail(w, why);
        return;
    }
    unsigned n_after = w->r->plan->n_steps - 1U - w->r->step;
    if (next != NO_STEP && attempts_left(w->r, w->cause) <= n_after) {
        go_next(w, next, "the attempts that are left are for the steps after it");
        return;
    }
    /* A longer delay because of many attempts does not end the step sooner: its last attempt is then at its end. */
    int64_t spread_ms = spread(w, at_ms), end_ms = within_end(w, next);
    go_retry(w, spread_ms < end_ms ? spread_ms : end_ms - 1);
}

static void next_or_fail(struct walk *w, const char *why)
{
    int next = next_for(w);
    if (next != NO_STEP)
        go_next(w, next, why);
    else
        go_fail(w, why);
}

/* ---- the table of section 5 ---- */

static bool are_tries_used_up(const struct walk *w)
{
    unsigned tries = step_of(w)->tries != 0 ? step_of(w)->tries : TRIES_DEFAULT;
    return w->r->tries + 1u >= tries;
}

static bool had_unknown_5xx_here(const struct walk *w)
{
    unsigned n = hky_recipient_n_past(w->r), here = w->r->step_attempts < n ? w->r->step_attempts : n;
    for (unsigned i = n - here; i < n; i++) {
        struct hky_past p;
        hky_recipient_past(w->r, i, &p);
        if (p.step == w->r->step && p.class == HKY_CLASS_UNKNOWN && !p.is_temporary)
            return true;
    }
    return false;
}

static void after_unknown_5xx(struct walk *w)
{
    if (had_unknown_5xx_here(w))
        next_or_fail(w, "refused twice for a reason we do not know");
    else if (are_tries_used_up(w) && next_for(w) != NO_STEP)
        go_next(w, next_for(w), "its tries are used up");
    else if (w->now_ms + UNKNOWN_AGAIN_MS >= w->expire_at_ms)
        next_or_fail(w, "refused, and no time left to try again");
    else if (attempts_left(w->r, w->cause) == 0)
        next_or_fail(w, "refused, and no attempt left to try again");
    else
        retry_within(w, w->now_ms + UNKNOWN_AGAIN_MS);
}

/* A try before the time that the server named would be wasted. Its first time is taken as it is; after that a short
 * time is not taken, so that this server is not asked more often than others. A time above a day is not believed. */
static int64_t named_delay_ms(const struct walk *w, uint32_t named_sec)
{
    int64_t named = (int64_t)named_sec * 1000, usual = usual_delay_ms(w);
    if (named == 0 || named_sec > RETRY_AFTER_MAX)
        return usual;
    return w->r->step_attempts > 0 && usual > named ? usual : named;
}

static void after_temporary(struct walk *w)
{
    int next = next_for(w);
    if (are_tries_used_up(w) && next != NO_STEP) {
        go_next(w, next, "its tries are used up");
        return;
    }
    retry_within(w, w->now_ms + named_delay_ms(w, w->o->retry_after_sec));
}

bool schedule_plan_uses_a_try(const struct hky_outcome *o)
{
    switch (o->class) {
    case HKY_CLASS_NETWORK:
    case HKY_CLASS_SYSTEM_TEMP:
    case HKY_CLASS_UNKNOWN:
        return true;
    case HKY_CLASS_BAD_MAILBOX:
    case HKY_CLASS_BAD_DOMAIN:
    case HKY_CLASS_INACTIVE:
    case HKY_CLASS_FILTERED:
    case HKY_CLASS_AUTH_POLICY:
    case HKY_CLASS_BLOCKED_IP:
    case HKY_CLASS_SIZE_FORMAT:
    case HKY_CLASS_REPUTATION_CONTENT:
        return o->is_temporary;
    default:
        return false;
    }
}

/* The next step at once. On the last step it is tried again: an expired certificate must not destroy a queue. */
static void after_tls(struct walk *w)
{
    int next = next_for(w);
    if (next != NO_STEP)
        go_next(w, next, hky_class_name(w->cause));
    else
        retry_within(w, w->now_ms + usual_delay_ms(w));
}

static void after_rate_limited(struct walk *w)
{
    uint32_t named = w->o->retry_after_sec < RETRY_AFTER_MAX ? w->o->retry_after_sec : RETRY_AFTER_MAX;
    w->out->slow_lane = true;
    retry_within(w, w->now_ms + named_delay_ms(w, named));
}

uint32_t schedule_plan_quota_window_sec(const struct hky_relay *relay)
{
    uint32_t sec = 0;
    for (unsigned i = 0; i < relay->n_caps && i < HKY_CAPS_MAX; i++) {
        uint32_t window_sec = relay->caps[i].window_sec;
        if (window_sec >= HOUR_SEC && window_sec <= DAY_SEC && window_sec > sec)
            sec = window_sec;
    }
    return sec;
}

/* The account cannot send for now and is paused. The recipient takes the next step, or waits for the account. */
static void after_account(struct walk *w)
{
    uint32_t named = w->o->retry_after_sec;
    const struct hky_relay *relay = schedule_plan_relay(w->policy, step_of(w)->relay);
    if (named == 0 && w->cause == HKY_CLASS_QUOTA_EXHAUSTED && relay != NULL)
        named = schedule_plan_quota_window_sec(relay);
    w->out->pause_account_sec = named == 0 ? PAUSE_SEC : named < RETRY_AFTER_MAX ? named : RETRY_AFTER_MAX;
    int next = next_for(w);
    if (next != NO_STEP)
        go_next(w, next, hky_class_name(w->cause));
    else
        go_retry(w, spread(w, w->now_ms + (int64_t)w->out->pause_account_sec * 1000));
}

static void after_ambiguous(struct walk *w)
{
    int64_t at = w->now_ms + AMBIGUOUS_MS;
    if (w->r->ambiguous >= AMBIGUOUS_RETRIES || at >= w->expire_at_ms || attempts_left(w->r, w->cause) == 0)
        go_hold(w, "may have been delivered");
    else
        go_retry(w, at);
}

static void after_reason(struct walk *w)
{
    int next = next_for(w);
    if (next != NO_STEP) {
        go_next(w, next, hky_class_name(w->cause));
    } else if (w->cause == HKY_CLASS_SENDS_AS) {
        go_fail(w, "no step can send as this author");
    } else {
        go_retry(w, w->now_ms);
        because(w->out, "waits for %s: %s", step_of(w)->relay, hky_class_name(w->cause));
    }
}

static void by_class(struct walk *w)
{
    switch (w->cause) {
    case HKY_CLASS_OK:
        w->out->action = HKY_ACTION_DONE;
        w->out->step = w->r->step;
        w->out->at_ms = w->now_ms;
        because_of(w->out, "delivered by ", step_of(w)->relay);
        break;
    case HKY_CLASS_MAILBOX_FULL:
        retry_within(w, w->now_ms + MAILBOX_FULL_MS);
        break;
    case HKY_CLASS_QUOTA_EXHAUSTED:
    case HKY_CLASS_RELAY_AUTH:
    case HKY_CLASS_RELAY_DENIED:
        after_account(w);
        break;
    case HKY_CLASS_RATE_LIMITED:
        after_rate_limited(w);
        break;
    case HKY_CLASS_NETWORK:
    case HKY_CLASS_SYSTEM_TEMP:
        after_temporary(w);
        break;
    case HKY_CLASS_UNKNOWN:
        if (w->o->is_temporary)
            after_temporary(w);
        else
            after_unknown_5xx(w);
        break;
    case HKY_CLASS_AMBIGUOUS:
        after_ambiguous(w);
        break;
    case HKY_CLASS_FULL:
    case HKY_CLASS_PAUSED:
    case HKY_CLASS_SENDS_AS:
        after_reason(w);
        break;
    case HKY_CLASS_EXPIRED:
        go_fail(w, "the time to deliver is over");
        break;
    case HKY_CLASS_TLS:
        after_tls(w);
        break;
    default: /* next_for knows which of these classes need a step that names them */
        if (w->o->is_temporary)
            after_temporary(w); /* it may be over soon: the same account first, and it never fails for this */
        else
            next_or_fail(w, hky_class_name(w->cause));
        break;
    }
}

/* False: the route says nothing about this class. Whatever it says, a delivered copy stays delivered. */
static bool by_react(struct walk *w)
{
    enum hky_action action = w->r->plan->react[w->cause];
    uint32_t after_sec = w->r->plan->react_after_sec[w->cause];
    if (w->cause == HKY_CLASS_OK || w->cause == HKY_CLASS_EXPIRED)
        return false;
    switch (action) {
    case HKY_ACTION_NONE:
        return false;
    case HKY_ACTION_RETRY:
        if (hky_class_is_reason(w->cause))
            return false; /* nothing was attempted */
        retry_within(w, w->now_ms + (after_sec > 0 ? (int64_t)after_sec * 1000 : usual_delay_ms(w)));
        return true;
    case HKY_ACTION_NEXT: {
        if (w->cause != HKY_CLASS_AMBIGUOUS && may_be_delivered(w))
            return false; /* what it says for ambiguous decides */
        int next = next_step(w->policy, w->r, w->r->step, w->cause);
        if (next != NO_STEP)
            go_next(w, next, "the route's react says next");
        return next != NO_STEP;
    }
    case HKY_ACTION_FAIL:
        go_fail(w, "the route's react says fail");
        return true;
    case HKY_ACTION_HOLD:
        go_hold(w, "the route's react says hold");
        return true;
    case HKY_ACTION_DONE:
        go_fail(w, "the route's react says done");
        w->out->action = HKY_ACTION_DONE;
        return true;
    }
    return false;
}

void hky_schedule_plan_advance(const struct hky_advance_query *q, struct hky_advance *out)
{
    const struct hky_recipient *r = q->recipient;
    HKY_ASSERT(r->plan != NULL && r->step < r->plan->n_steps);
    memset(out, 0, sizeof *out);
    struct walk w = {q->policy, r, q->outcome, q->outcome->class, q->now_ms, schedule_plan_expire_at(q->policy, r),
                     out};
    bool is_damaged = q->outcome->reply.origin == HKY_ORIGIN_SPOOL;
    bool is_reacted = !is_damaged && by_react(&w);
    if (is_damaged) {
        go_hold(&w, "the stored message is damaged"); /* no other step and no waiting would mend it */
    } else if (!is_reacted) {
        by_class(&w);
    } else if (w.cause == HKY_CLASS_RATE_LIMITED || w.cause == HKY_CLASS_QUOTA_EXHAUSTED ||
               w.cause == HKY_CLASS_RELAY_AUTH || w.cause == HKY_CLASS_RELAY_DENIED) {
        /* the route says what becomes of the recipient, but the account has to be paused or slowed all the same */
        struct hky_advance usual = {0};
        struct walk u = w;
        u.out = &usual;
        by_class(&u);
        out->slow_lane = usual.slow_lane;
        out->pause_account_sec = usual.pause_account_sec;
    }
    if (out->action == HKY_ACTION_FAIL && w.cause != HKY_CLASS_AMBIGUOUS && may_be_delivered(&w))
        hold_instead(&w); /* that this attempt has failed says nothing about the copy before */
}

void hky_schedule_plan_first(const struct hky_policy *policy, const struct hky_recipient *r, struct hky_advance *out)
{
    memset(out, 0, sizeof *out);
    bool is_passed_over = false;
    int conditional = NO_STEP;
    for (uint8_t i = 0; i < r->plan->n_steps; i++) {
        const struct hky_step *s = &r->plan->steps[i];
        bool is_entered = s->on == 0 || (is_passed_over && (s->on & HKY_CLASS_BIT(HKY_CLASS_SENDS_AS)) != 0);
        if (!is_entered && conditional != NO_STEP)
            continue;
        if (!schedule_plan_step_sends_as(policy, r, i)) {
            is_passed_over = true;
            continue;
        }
        if (is_entered) {
            out->action = HKY_ACTION_NEXT;
            out->step = i;
            because_of(out, "step ", s->relay);
            return;
        }
        conditional = i;
    }
    /* every step has an `on`: the plan begins with the first one that can send */
    out->action = conditional != NO_STEP && !is_passed_over ? HKY_ACTION_NEXT : HKY_ACTION_FAIL;
    out->step = conditional != NO_STEP && !is_passed_over ? (uint8_t)conditional : 0;
    because(out, out->action == HKY_ACTION_NEXT ? "every step has a condition: begins with the first"
                                                : "no step can send as this author");
}
