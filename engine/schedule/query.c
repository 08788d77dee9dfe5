/*
 * What operators see of the live queue, and do to it. A query visits one shard after the other, on the thread of each
 * and in portions. Only one query is under way at a time. A recipient that moves to a shard which was visited before is
 * found in the next round.
 */
#include "internal.h"

#include "mail/address.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUNDS_MOST 4

struct query { /* a query on its way through the shards */
    struct hky_task task;
    struct hky_schedule *s;
    struct hky_queue_request *rq;
    unsigned next; /* shard */
    bool is_looking;
    struct survey survey;
    uint32_t mark;
    int64_t asked_at_ms;
    unsigned n_rounds;
    uint64_t n_found; /* in this round */
    TAILQ_ENTRY(query) link;
};

/* ---- selection ---- */

static const char *step_relay_of(const struct hky_recipient *r)
{
    return r->plan != NULL && r->step < r->plan->n_steps ? r->plan->steps[r->step].relay : "";
}

static const char *relay_of(const struct hky_recipient *r)
{
    return own(r)->lane != NULL ? own(r)->lane->pub.relay_name : step_relay_of(r);
}

/* A drain or `instead` lets another relay send for that of the step: it is found by both names, also while no lane
 * has it. */
static bool is_of_relay(const struct hky_shard *sh, const struct hky_recipient *r, const char *name)
{
    const char *step = step_relay_of(r);
    if (strcmp(name, step) == 0 || strcmp(name, relay_of(r)) == 0)
        return true;
    const struct hky_relay *sends = step[0] != '\0' ? schedule_relay(sh->s, sh->policy, step) : NULL;
    return sends != NULL && strcmp(name, sends->name) == 0;
}

static bool is_deferred(const struct hky_recipient *r)
{
    return r->state == HKY_RCPT_QUEUED && own(r)->lane == NULL && own(r)->due.index != 0;
}

static const char *state_of(const struct hky_recipient *r)
{
    return is_deferred(r) ? "deferred" : hky_recipient_state_name(r->state);
}

static void see_name(struct hky_name_seen *seen, struct hky_str name)
{
    if (seen->near.is_known || name.n == 0 || hky_str_eq(name, hky_str_z(seen->last)))
        return;
    if (name.n >= sizeof seen->last) {
        seen->near.is_known = hky_str_eq(name, seen->near.wanted);
        return;
    }
    snprintf(seen->last, sizeof seen->last, "%.*s", HKY_STR_ARG(name));
    hky_nearest_consider(&seen->near, seen->last);
    if (seen->near.name == seen->last) {
        memcpy(seen->nearest, seen->last, sizeof seen->nearest);
        seen->near.name = seen->nearest;
    }
}

static void see_names(const struct hky_shard *sh, struct hky_queue_request *rq, const struct hky_recipient *r)
{
    const struct hky_selection *x = &rq->selection;
    struct hky_str tags = hky_message_fact(r->message, HKY_FACT_TAGS), tag;
    if (x->relay != NULL && is_of_relay(sh, r, x->relay))
        see_name(&rq->relay_seen, hky_str_z(x->relay));
    else if (x->relay != NULL)
        see_name(&rq->relay_seen, hky_str_z(relay_of(r)));
    if (x->scenario != NULL)
        see_name(&rq->scenario_seen, hky_message_fact(r->message, HKY_FACT_SCENARIO));
    for (size_t at = 0; x->tag != NULL && hky_packed_next(tags, &at, &tag);)
        see_name(&rq->tag_seen, tag);
}

static bool is_selected(const struct hky_queue_request *rq, const struct hky_shard *sh, const struct hky_recipient *r,
                        int64_t now_ms)
{
    const struct hky_selection *x = &rq->selection;
    const struct hky_message *m = r->message;
    struct hky_str scenario = hky_message_fact(m, HKY_FACT_SCENARIO);
    if ((x->has_message && m->id != x->message) || (x->has_older && m->accepted_at_ms > now_ms - x->older_ms) ||
        (x->state != NULL && strcmp(x->state, state_of(r)) != 0) ||
        (x->class != NULL &&
         (r->attempts + r->left_steps == 0 || strcmp(x->class, hky_class_name(r->last_class)) != 0)) ||
        (x->relay != NULL && !is_of_relay(sh, r, x->relay)) ||
        (x->scenario != NULL && !hky_str_eq(scenario, hky_str_z(x->scenario))) ||
        (x->tag != NULL && !hky_message_has_tag(m, hky_str_z(x->tag))) ||
        (x->to != NULL && !hky_address_fits(hky_str_z(x->to), hky_recipient_address(r))) ||
        (x->from != NULL && !hky_address_fits(hky_str_z(x->from), hky_message_fact(m, HKY_FACT_SENDER))) ||
        (x->author != NULL && !hky_address_fits(hky_str_z(x->author), hky_message_fact(m, HKY_FACT_AUTHOR))))
        return false;
    return rq->where_is_true == NULL || x->where == NULL || rq->where_is_true(rq->ctx, sh->index, r);
}

/* ---- one row ---- */

/* Does another relay send for that of its step? */
static void show_other_relay(const struct hky_shard *sh, const struct hky_recipient *r, struct hky_queue_row *row)
{
    const char *name = r->plan != NULL && r->step < r->plan->n_steps ? r->plan->steps[r->step].relay : NULL;
    const struct hky_relay *to = name != NULL ? schedule_relay(sh->s, sh->policy, name) : NULL;
    if (to == NULL || strcmp(to->name, name) == 0)
        return;
    row->goes_by = to->name;
    row->is_by_policy = schedule_plan_relay(sh->policy, name) == to;
}

static void show(const struct hky_shard *sh, struct hky_queue_request *rq, const struct hky_recipient *r,
                 int64_t now_ms)
{
    struct hky_queue_row row = {.recipient = r, .state = state_of(r), .relay = relay_of(r), .now_ms = now_ms};
    int64_t next_ms = r->next_at_ms;
    show_other_relay(sh, r, &row);
    row.waits = own(r)->lane != NULL ? schedule_lane_waits_for(own(r)->lane, &next_ms) : NULL;
    row.is_paused_by_policy = own(r)->lane != NULL && own(r)->lane->pub.relay->is_paused;
    row.next_at_ms = next_ms == INT64_MAX || next_ms <= NO_TIME_MOST ? 0 : next_ms;
    row.reason = r->state != HKY_RCPT_SENDING                ? r->reason
                 : own(r)->operator_action == HKY_QUEUE_HOLD ? "to be held when this attempt ends without a delivery"
                 : own(r)->operator_action == HKY_QUEUE_CANCEL
                     ? "to be cancelled when this attempt ends without a delivery"
                     : r->reason;
    rq->row(rq->ctx, &row);
}

static bool is_possible(enum hky_queue_action action, const struct hky_recipient *r)
{
    switch (action) {
    case HKY_QUEUE_LIST:
        return true;
    case HKY_QUEUE_RETRY:
        return is_deferred(r) || r->state == HKY_RCPT_PARKED || r->state == HKY_RCPT_UNDECIDED;
    case HKY_QUEUE_HOLD:
        return r->state != HKY_RCPT_HELD;
    case HKY_QUEUE_RELEASE:
        return r->state == HKY_RCPT_HELD || (r->state == HKY_RCPT_SENDING && own(r)->operator_action != 0);
    case HKY_QUEUE_CANCEL:
        return true;
    }
    return false;
}

/* ---- doing ---- */

static void retry_now(struct hky_shard *sh, struct hky_recipient *r)
{
    schedule_recipient_take_out(sh, r);
    bool was_held = r->state == HKY_RCPT_HELD, was_undecided = r->state == HKY_RCPT_UNDECIDED;
    if (r->state != HKY_RCPT_PARKED)
        schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
    if (was_held || was_undecided)
        schedule_recipient_set_reason(r, NULL);
    if (was_held) {
        r->ambiguous = 0;
        r->unclean = 0;
        schedule_recipient_renew_expiry(sh, r);
        /* time while it was held does not count for its step either */
        if (r->step_at_ms != 0)
            r->step_at_ms = schedule_shard_now(sh);
        else if (r->plan != NULL) /* it was accepted to be held */
            (void)schedule_recipient_begin_plan(sh->policy, r, schedule_shard_now(sh));
    }
    r->next_at_ms = schedule_shard_now(sh);
    schedule_recipient_journal(sh, r);
    schedule_event_of_recipient(sh, HKY_EVENT_RELEASED, r,
                                &(struct event_details){.text = was_held ? "released" : "retried"});
    schedule_recipient_dispatch_later(sh, r);
}

/* It is done when the attempt ends. The operator is told that it holds after a crash, so it is on disk before that: a
 * copy may be on its way, which is why one that was cancelled is then held, too, and does not vanish unseen. */
static void journal_wish(struct hky_shard *sh, const struct hky_recipient *r, enum hky_queue_action action)
{
    char why[160];
    if (action == HKY_QUEUE_RELEASE) { /* QUEUED, not SENDING, of which a start counts that it ended the engine */
        schedule_recipient_journal_as(sh, r, HKY_RCPT_QUEUED, r->reason);
        return;
    }
    snprintf(why, sizeof why,
             "may have been delivered; an operator %s it while it was being sent, and then the engine ended without "
             "warning",
             action == HKY_QUEUE_HOLD ? "held" : "cancelled");
    schedule_recipient_journal_as(sh, r, HKY_RCPT_HELD, why);
}

static void act(struct hky_shard *sh, enum hky_queue_action action, struct hky_recipient *r)
{
    if (r->state == HKY_RCPT_SENDING) {
        own(r)->operator_action = action == HKY_QUEUE_RELEASE ? 0 : (uint8_t)action;
        journal_wish(sh, r, action);
        schedule_shard_wake_waiting(sh); /* its job may wait for a slot, which it needs no more */
        return;
    }
    switch (action) {
    case HKY_QUEUE_LIST:
        break;
    case HKY_QUEUE_RETRY:
    case HKY_QUEUE_RELEASE:
        retry_now(sh, r);
        break;
    case HKY_QUEUE_HOLD:
        schedule_recipient_take_out(sh, r);
        if (r->parked_at_ms != 0) { /* time in parking does not count */
            if (r->expire_at_ms != 0)
                r->expire_at_ms =
                    schedule_plan_by_deadline(r, r->expire_at_ms + schedule_shard_now(sh) - r->parked_at_ms);
            r->parked_at_ms = 0;
        }
        r->parked_times = 0;
        schedule_recipient_hold(sh, r, "by an operator");
        break;
    case HKY_QUEUE_CANCEL:
        schedule_recipient_take_out(sh, r);
        schedule_recipient_finish(sh, r, HKY_RCPT_CANCELLED, NULL, "by an operator", NULL);
        break;
    }
}

static bool is_kept_by_only_to(const struct hky_shard *sh, enum hky_queue_action action, const struct hky_recipient *r)
{
    return action == HKY_QUEUE_RELEASE && r->state == HKY_RCPT_HELD && sh->policy->engine.reaches != NULL &&
           !sh->policy->engine.reaches(sh->policy, r);
}

static bool is_past_deadline(const struct hky_recipient *r, int64_t now_ms)
{
    return r->message->deadline_ms != 0 && r->message->deadline_ms <= now_ms;
}

/* A release would not send it but report a failure, although a copy may have been delivered. */
static bool is_spent(enum hky_queue_action action, const struct hky_recipient *r, int64_t now_ms)
{
    return action == HKY_QUEUE_RELEASE && r->state == HKY_RCPT_HELD && r->ambiguous > 0 &&
           (is_past_deadline(r, now_ms) || r->attempts >= HKY_ATTEMPTS_MAX);
}

/* Those of the n which are not sent in spite of the action. */
static void count_unsent(struct hky_queue_request *rq, const struct hky_recipient *r, int64_t now_ms)
{
    bool is_released = rq->action == HKY_QUEUE_RELEASE && r->state == HKY_RCPT_HELD;
    if (is_released && is_past_deadline(r, now_ms))
        rq->n_late++;
    else if ((is_released || rq->action == HKY_QUEUE_RETRY) && r->attempts >= HKY_ATTEMPTS_MAX)
        rq->n_used_up++;
}

static void consider(void *ctx, struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    struct hky_queue_request *rq = ctx;
    see_names(sh, rq, r);
    /* Who holds mail has a reason: trying again is not releasing. */
    if (rq->action == HKY_QUEUE_RETRY && r->state == HKY_RCPT_HELD && is_selected(rq, sh, r, now_ms))
        rq->n_held++;
    if (rq->action == HKY_QUEUE_RETRY && r->state == HKY_RCPT_QUEUED && !is_deferred(r) &&
        is_selected(rq, sh, r, now_ms))
        rq->n_due++;
    if (!is_possible(rq->action, r) || !is_selected(rq, sh, r, now_ms))
        return;
    if (is_kept_by_only_to(sh, rq->action, r)) {
        rq->n_kept++;
        return;
    }
    if (is_spent(rq->action, r, now_ms)) {
        rq->n_spent++;
        return;
    }
    count_unsent(rq, r, now_ms);
    if (rq->n++ < rq->limit && rq->row != NULL)
        show(sh, rq, r, now_ms);
    if (rq->action != HKY_QUEUE_LIST && !rq->is_dry_run)
        act(sh, rq->action, r);
}

static void on_answered(struct hky_task *t)
{
    struct query *a = HKY_CONTAINER(t, struct query, task);
    struct hky_schedule *s = a->s;
    struct hky_queue_request *rq = a->rq;
    pthread_mutex_lock(&s->lock);
    TAILQ_REMOVE(&s->queries, a, link);
    struct query *next = TAILQ_FIRST(&s->queries);
    pthread_mutex_unlock(&s->lock);
    if (next != NULL)
        hky_loop_post(s->shards[0].loop, &next->task);
    free(a);
    rq->schedule = NULL;
    rq->done(rq);
}

static void on_asked(struct hky_task *t)
{
    struct query *a = HKY_CONTAINER(t, struct query, task);
    struct hky_shard *sh = &a->s->shards[a->next];
    if (!a->is_looking) {
        a->is_looking = true;
        schedule_shard_settle(sh);
        schedule_survey_begin(&a->survey, sh, a->mark);
        a->survey.each = consider;
        a->survey.ctx = a->rq;
        a->survey.asked_at_ms = a->asked_at_ms;
    }
    if (schedule_survey_continue(&a->survey)) {
        hky_loop_post(sh->loop, t);
        return;
    }
    a->is_looking = false;
    a->n_found += a->survey.n_found;
    /* a first round that found nobody may have missed the only recipient */
    bool is_more = a->n_found > 0 || a->n_rounds == 0;
    if (++a->next == a->s->n_workers && is_more && a->s->n_workers > 1 && ++a->n_rounds < ROUNDS_MOST) {
        a->next = 0;
        a->n_found = 0;
    }
    if (a->next < a->s->n_workers) {
        hky_loop_post(a->s->shards[a->next].loop, t);
        return;
    }
    t->run = on_answered;
    hky_loop_post(a->rq->loop, t);
}

static struct hky_name_seen nobody_seen(const char *wanted)
{
    return (struct hky_name_seen){.near = hky_nearest_to(wanted != NULL ? hky_str_z(wanted) : HKY_STR(""))};
}

void hky_schedule_query(struct hky_schedule *s, struct hky_queue_request *rq)
{
    struct query *a = hky_calloc(1, sizeof *a);
    a->task.run = on_asked;
    a->s = s;
    a->rq = rq;
    a->asked_at_ms = hky_clock_now_ms(s->clock);
    rq->n = rq->n_kept = rq->n_held = rq->n_due = rq->n_late = rq->n_used_up = rq->n_spent = 0;
    rq->schedule = a;
    rq->relay_seen = nobody_seen(rq->selection.relay);
    rq->scenario_seen = nobody_seen(rq->selection.scenario);
    rq->tag_seen = nobody_seen(rq->selection.tag);
    pthread_mutex_lock(&s->lock);
    bool is_first = TAILQ_EMPTY(&s->queries);
    s->n_surveys += s->n_surveys == UINT32_MAX ? 2 : 1; /* 0 is the mark of those that were never visited */
    a->mark = s->n_surveys;
    TAILQ_INSERT_TAIL(&s->queries, a, link);
    pthread_mutex_unlock(&s->lock);
    if (is_first)
        hky_loop_post(s->shards[0].loop, &a->task);
}

void schedule_free_queries(struct hky_schedule *s)
{
    for (struct query *a; (a = TAILQ_FIRST(&s->queries)) != NULL;) {
        struct hky_queue_request *rq = a->rq;
        TAILQ_REMOVE(&s->queries, a, link);
        free(a);
        rq->schedule = NULL;
        hky_error_set(&rq->error, HKY_E_CLOSED, "the queue was closed before this was answered");
        rq->done(rq);
    }
}

/* ---- mail that was deferred by a relay which is repaired ---- */

/* A query that the schedule asks itself: the selected recipients are retried as if an operator had asked for it. */
struct repair {
    struct hky_queue_request rq;
    struct hky_schedule *s;
    struct hky_map relays; /* by name */
    uint64_t classes;
};

static void repair_free(struct repair *x)
{
    hky_map_fini(&x->relays);
    free(x);
}

static void on_repaired(struct hky_queue_request *rq)
{
    repair_free(rq->ctx);
}

static bool waits_for_repair(void *ctx, unsigned worker, const struct hky_recipient *r)
{
    const struct repair *x = ctx;
    if (r->plan == NULL || (x->classes & HKY_CLASS_BIT(r->last_class)) == 0)
        return false;
    const char *name = r->plan->steps[r->step].relay;
    const struct hky_relay *relay = schedule_relay(x->s, x->s->shards[worker].policy, name);
    return hky_map_get(&x->relays, hky_str_z(relay != NULL ? relay->name : name)) != NULL;
}

static bool is_anybody_deferred(const struct hky_schedule *s)
{
    for (unsigned i = 0; i < s->n_workers; i++)
        if (counter_get(&s->shards[i].n.deferred) > 0)
            return true;
    return false;
}

void schedule_retry_repaired(struct hky_schedule *s, struct hky_map *relays, uint64_t classes)
{
    struct repair *x = hky_calloc(1, sizeof *x);
    x->s = s;
    x->relays = *relays;
    *relays = (struct hky_map){0};
    x->classes = classes;
    if (x->relays.n == 0 || !is_anybody_deferred(s)) {
        repair_free(x);
        return;
    }
    x->rq = (struct hky_queue_request){
        .selection = {.state = "deferred", .where = ""},
        .action = HKY_QUEUE_RETRY,
        .loop = s->shards[0].loop,
        .done = on_repaired,
        .ctx = x,
        .where_is_true = waits_for_repair,
    };
    hky_schedule_query(s, &x->rq);
}
