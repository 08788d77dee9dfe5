/* Runs the schedule on one thread, with stand-ins for its neighbours and a clock that the caller moves. */
#include "rehearse/internal.h"

#include <stdlib.h>

#define FULL_SEC    (366 * 86400)
#define ROUNDS_MOST 100000 /* bound on rounds at one moment; no mail needs so many, so more would never end */

/* ---- called by the schedule ---- */

static void on_wake(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct hky_rehearsal *r = ctx;

    (void)worker;
    for (unsigned i = 0; i < r->n_woken; i++)
        if (r->woken[i] == lane)
            return;
    if (r->n_woken == r->woken_cap) {
        r->woken_cap = r->woken_cap == 0 ? 8 : r->woken_cap * 2;
        r->woken = (struct hky_lane **)hky_realloc((void *)r->woken, r->woken_cap * sizeof *r->woken);
    }
    r->woken[r->n_woken++] = lane;
}

static void on_lane_end(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct hky_rehearsal *r = ctx;
    unsigned n = 0;

    (void)worker;
    r->n_lanes_ended++;
    for (unsigned i = 0; i < r->n_woken; i++)
        if (r->woken[i] != lane)
            r->woken[n++] = r->woken[i];
    r->n_woken = n;
}

static void on_decide(void *ctx, unsigned worker, const struct hky_recipient *rcpt, struct hky_decision *out)
{
    struct hky_rehearsal *r = ctx;

    (void)worker;
    if (r->decide != NULL)
        r->decide(r->ctx, rcpt, r->clock.stopped_at_ms, out);
    else
        *out = (struct hky_decision){.kind = HKY_NO_ROUTE, .text = "no_route: no route takes this recipient"};
}

static void on_finish(void *ctx, unsigned worker, struct hky_recipient *rcpt, const struct hky_outcome *o)
{
    struct hky_rehearsal *r = ctx;
    struct hky_message *m = rcpt->message;

    (void)worker;
    if (r->notice == NULL)
        hky_journal_finish(r->journal, rcpt, NULL, NULL);
    if (r->ended != NULL)
        r->ended(r->ctx, rcpt, o);
    if (r->notice == NULL)
        hky_message_unref(&m);
    else
        hky_notice_finish(r->notice, rcpt, o); /* takes the reference */
}

static void on_event(void *ctx, unsigned worker, const struct hky_event *ev)
{
    struct hky_rehearsal *r = ctx;

    (void)worker;
    if (!r->is_forgetful)
        rehearse_add_act(r, ev);
    if (r->event != NULL)
        r->event(r->ctx, ev);
}

/* ---- called for failure notices ---- */

static void decide_for(struct hky_rehearsal *r, struct hky_recipient *rcpt)
{
    struct hky_decision d = {0};
    int64_t now_ms = r->clock.stopped_at_ms;

    on_decide(r, 0, rcpt, &d);
    rcpt->policy = d.policy != 0 ? d.policy : (uint32_t)r->policy->hash;
    rcpt->arms = d.arms;
    rcpt->arms_n = d.arms_n;
    if (d.kind == HKY_DECIDED) {
        rcpt->plan = d.plan;
    } else if (d.kind == HKY_WAITS || d.kind == HKY_UNANSWERED) {
        rcpt->state = HKY_RCPT_UNDECIDED;
    } else {
        rcpt->state = HKY_RCPT_PARKED;
        rcpt->parked_at_ms = now_ms;
        rcpt->reason = hky_strdup(d.text[0] != '\0' ? d.text : "no_route: no route takes this recipient");
    }
}

static struct hky_policy *policy_of(void *ctx, unsigned worker)
{
    struct hky_rehearsal *r = ctx;

    (void)worker;
    return r->policy;
}

static void on_notice_decide(void *ctx, unsigned worker, struct hky_message *notice, struct hky_str header)
{
    (void)worker, (void)header; /* `decide` reads it from the message */
    for (uint32_t i = 0; i < notice->n_recipients; i++)
        decide_for(ctx, &notice->recipients[i]);
}

static void on_notice_enqueue(void *ctx, unsigned worker, struct hky_message *notice)
{
    struct hky_rehearsal *r = ctx;

    hky_message_unref(&r->last_notice);
    r->last_notice = hky_message_ref(notice);
    hky_schedule_enqueue(r->schedule, worker, notice);
}

/* ---- beginning and end ---- */

enum hky_err hky_rehearsal_init(struct hky_rehearsal *r, struct hky_policy *policy, int64_t at_ms, struct hky_error *e)
{
    enum hky_err err;

    memset(r, 0, sizeof *r);
    if ((err = hky_loop_new(&r->loop, e)) != HKY_OK)
        return err;
    HKY_ASSERT(at_ms > 0);
    r->clock.stopped_at_ms = at_ms;
    r->policy = hky_policy_ref(policy);
    r->journal = hky_journal_memory_new();
    r->ops = (struct hky_schedule_ops){r, on_wake, on_lane_end, on_decide, on_finish, on_event};
    return HKY_OK;
}

enum hky_err hky_rehearsal_open(struct hky_rehearsal *r, struct hky_error *e)
{
    struct hky_schedule_params params = {.n_workers = 1,
                                         .loops = &r->loop,
                                         .journal = r->journal,
                                         .policy = r->policy,
                                         .clock = &r->clock,
                                         .log = r->log,
                                         .ops = &r->ops,
                                         .is_everyone_reached = r->is_everyone_reached,
                                         .dir = r->dir,
                                         .was_unclean = r->was_unclean};

    if (r->has_notices)
        r->notice = hky_notice_new(&(struct hky_notice_params){.loop = r->loop,
                                                               .journal = r->journal,
                                                               .log = r->log,
                                                               .clock = &r->clock,
                                                               .ctx = r,
                                                               .policy = policy_of,
                                                               .decide = on_notice_decide,
                                                               .enqueue = on_notice_enqueue});
    return hky_schedule_new(&params, &r->schedule, e);
}

void hky_rehearsal_start(struct hky_rehearsal *r)
{
    hky_schedule_start(r->schedule);
    hky_rehearsal_turns(r);
}

enum hky_err hky_rehearsal_set_full(struct hky_rehearsal *r, const char *relay, struct hky_error *e)
{
    enum hky_err err = hky_schedule_use_up(r->schedule, relay, FULL_SEC, e);

    hky_rehearsal_turns(r);
    return err;
}

enum hky_err hky_rehearsal_set_paused(struct hky_rehearsal *r, const char *relay, struct hky_error *e)
{
    enum hky_err err = hky_schedule_pause(r->schedule, relay, 0, e);

    hky_rehearsal_turns(r);
    return err;
}

void hky_rehearsal_fini(struct hky_rehearsal *r)
{
    if (r->loop == NULL)
        return;
    if (r->schedule != NULL)
        hky_rehearsal_turns(r); /* those who wait for the journal are answered before it is freed */
    hky_schedule_free(&r->schedule);
    hky_journal_close(&r->journal);
    hky_notice_free(&r->notice);
    hky_message_unref(&r->last_notice);
    hky_loop_free(&r->loop);
    hky_policy_unref(&r->policy);
    rehearse_free_replies(r);
    free((void *)r->woken);
    free(r->acts);
}

/* ---- mail ---- */

void hky_rehearsal_send(struct hky_rehearsal *r, struct hky_message *m)
{
    for (uint32_t i = 0; i < m->n_recipients; i++) {
        struct hky_recipient *rcpt = &m->recipients[i];
        if (rcpt->plan == NULL && rcpt->state == HKY_RCPT_QUEUED)
            decide_for(r, rcpt);
        if (!hky_recipient_state_is_final((enum hky_recipient_state)rcpt->state))
            hky_message_ref(m);
    }
    hky_journal_accept(r->journal, m, NULL);
    hky_schedule_enqueue(r->schedule, 0, m);
    hky_rehearsal_turns(r);
}

enum hky_take hky_rehearsal_take(struct hky_rehearsal *r, const char *relay, struct hky_job **out)
{
    enum hky_take last = HKY_TAKE_EMPTY;

    *out = NULL;
    for (unsigned i = 0; i < r->n_woken && last == HKY_TAKE_EMPTY; i++)
        if (strcmp(r->woken[i]->relay_name, relay) == 0)
            last = hky_schedule_take(r->woken[i], out);
    return last;
}

/* Reports the result, and adds to the act made from it what the result does to the relay's account and lane. */
static void report_result(struct hky_rehearsal *r, struct hky_job *job, unsigned i, const struct hky_outcome *o)
{
    struct hky_advance a;
    size_t from = r->n_acts;

    hky_schedule_plan_advance(
        &(struct hky_advance_query){job->lane->policy, job->recipients[i], o, r->clock.stopped_at_ms}, &a);
    hky_schedule_result(job, i, o);
    for (size_t k = from; k < r->n_acts; k++) {
        if (r->acts[k].is_attempt) {
            r->acts[k].pauses_account = a.pause_account_sec > 0;
            r->acts[k].slows_lane = a.slow_lane;
        }
    }
}

static bool reaches_mail(const struct hky_outcome *o)
{
    return o->class == HKY_CLASS_OK || o->stage >= HKY_STAGE_MAIL;
}

void hky_rehearsal_answer(struct hky_rehearsal *r, struct hky_job **job, const struct hky_outcome *o)
{
    for (unsigned i = 0; i < (*job)->n; i++)
        report_result(r, *job, i, o);
    hky_schedule_done(job, reaches_mail(o));
    hky_rehearsal_turns(r);
}

/* ---- relays that answer by themselves ---- */

static void deliver(struct hky_rehearsal *r, struct hky_job *job)
{
    struct hky_rehearsal_reply *line = NULL;
    bool is_mail_sent = false;

    for (unsigned i = 0; i < job->n; i++) {
        struct hky_outcome o;
        rehearse_reply_for(r, job, job->recipients[i], &line, &o);
        is_mail_sent = is_mail_sent || reaches_mail(&o);
        report_result(r, job, i, &o);
    }
    hky_schedule_done(&job, is_mail_sent);
}

/* True: at least one job was delivered. */
static bool deliver_all(struct hky_rehearsal *r)
{
    bool is_any = false;

    for (unsigned rounds = 0; r->n_woken > 0 && rounds < ROUNDS_MOST; rounds++) {
        struct hky_lane *lane = r->woken[--r->n_woken];
        struct hky_job *job;
        /* a lane that still holds something after its job wakes again by itself */
        if (hky_schedule_take(lane, &job) == HKY_TAKE_JOB) {
            deliver(r, job);
            is_any = true;
        }
    }
    return is_any;
}

/* ---- time ---- */

int64_t hky_rehearsal_now_ms(const struct hky_rehearsal *r)
{
    return r->clock.stopped_at_ms;
}

int64_t hky_rehearsal_next_at(const struct hky_rehearsal *r)
{
    int64_t at = hky_schedule_next_at(r->schedule), notice = INT64_MAX;

    if (r->notice != NULL)
        notice = hky_notice_next_at(r->notice);
    return notice < at ? notice : at;
}

void hky_rehearsal_await_notices(struct hky_rehearsal *r)
{
    int64_t at;

    hky_rehearsal_settle(r);
    while (r->notice != NULL && (at = hky_notice_next_at(r->notice)) != INT64_MAX)
        hky_rehearsal_advance_to(r, at);
}

void hky_rehearsal_turns(struct hky_rehearsal *r)
{
    for (unsigned i = 0; i < ROUNDS_MOST && hky_loop_has_work(r->loop); i++)
        hky_loop_turn(r->loop, 0);
}

void hky_rehearsal_settle(struct hky_rehearsal *r)
{
    for (unsigned i = 0; i < ROUNDS_MOST; i++) {
        hky_schedule_tick(r->schedule, 0);
        if (r->notice != NULL)
            hky_notice_tick(r->notice);
        hky_rehearsal_turns(r);
        if (r->is_by_hand)
            return;
        /* a take may have asked the journal for something, and its answer wakes the lane again */
        if (!deliver_all(r) && !hky_loop_has_work(r->loop))
            return;
    }
}

static bool is_at_rest(const struct hky_rehearsal *r)
{
    struct hky_schedule_stats s;

    hky_schedule_stats(r->schedule, &s);
    return s.queued + s.sending + s.deferred + s.undecided == 0;
}

static void move_to(struct hky_rehearsal *r, int64_t until_ms, bool stops_at_rest)
{
    hky_rehearsal_settle(r);
    while (r->clock.stopped_at_ms < until_ms && !(stops_at_rest && is_at_rest(r))) {
        int64_t now_ms = r->clock.stopped_at_ms, next_ms = hky_rehearsal_next_at(r);
        if (next_ms <= now_ms)
            next_ms = now_ms + 1; /* something is due but not possible yet; the clock must move all the same */
        if (next_ms > until_ms && stops_at_rest && next_ms == INT64_MAX)
            return;
        r->clock.stopped_at_ms = next_ms < until_ms ? next_ms : until_ms;
        hky_rehearsal_settle(r);
    }
}

void hky_rehearsal_advance_to(struct hky_rehearsal *r, int64_t until_ms)
{
    move_to(r, until_ms, false);
}

void hky_rehearsal_run(struct hky_rehearsal *r, int64_t until_ms)
{
    move_to(r, until_ms, true);
}
