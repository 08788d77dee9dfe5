/*
 * stage -- a rehearsal (hikyaku/rehearse.h) whose relays answer as the test says, under a policy that gives one plan,
 * with a log of events in words.
 */
#ifndef HKY_TESTS_SCHEDULE_STAGE_H
#define HKY_TESTS_SCHEDULE_STAGE_H

#include "unit/schedule/fake.h"

#define START INT64_C(1764550800000)

struct stage {
    struct hky_rehearsal r;
    struct fake_policy policy, second;
    struct hky_plan *plan; /* what `decide` gives; NULL: no route */
    unsigned n_decides;
    bool is_unread; /* `decide` lacks the header */
    char log[8192]; /* events and ends, in words */
    char ended[64]; /* class and text of the last end's outcome */
    uint64_t next_id;
};

static inline void decide(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out)
{
    struct stage *st = ctx;
    (void)r, (void)now_ms;
    st->n_decides++;
    out->kind = st->plan != NULL ? HKY_DECIDED : HKY_NO_ROUTE;
    out->plan = st->plan != NULL ? hky_plan_ref(st->plan) : NULL;
    snprintf(out->text, sizeof out->text, "%s", st->plan != NULL ? "" : "no_route");
    if (st->is_unread) {
        hky_plan_unref(&out->plan);
        out->kind = HKY_UNREAD;
    }
}

static inline void say(struct stage *st, const char *what, const char *relay)
{
    size_t n = strlen(st->log);
    snprintf(st->log + n, sizeof st->log - n, "%s%s%s%s", n > 0 ? " " : "", what, relay != NULL ? ":" : "",
             relay != NULL ? relay : "");
}

static inline void ended(void *ctx, struct hky_recipient *r, const struct hky_outcome *o)
{
    struct stage *st = ctx;
    assert_true(hky_recipient_state_is_final(r->state));
    snprintf(st->ended, sizeof st->ended, "%s %.40s", o != NULL ? hky_class_name(o->class) : "-",
             o != NULL ? o->reply.text : "");
}

static inline void event(void *ctx, const struct hky_event *ev)
{
    say(ctx, hky_event_name(ev->kind), ev->relay);
}

static inline void stage_init(struct stage *st)
{
    struct hky_error e;
    memset(st, 0, sizeof *st);
    fake_policy_init(&st->policy, 11);
    st->next_id = 1;
    assert_int_equal(hky_rehearsal_init(&st->r, &st->policy.policy, START, &e), HKY_OK);
    st->r.ctx = st;
    st->r.decide = decide;
    st->r.event = event;
    st->r.ended = ended;
    st->r.is_by_hand = true;
}

static inline void stage_open(struct stage *st)
{
    struct hky_error e;
    assert_int_equal(hky_rehearsal_open(&st->r, &e), HKY_OK);
}

static inline void turns(struct stage *st)
{
    hky_rehearsal_turns(&st->r);
}

static inline void stage_start(struct stage *st)
{
    stage_open(st);
    hky_rehearsal_start(&st->r);
}

static inline void stage_end(struct stage *st)
{
    hky_rehearsal_fini(&st->r);
    hky_plan_unref(&st->plan);
    assert_int_equal(st->policy.policy.refs, 1);
}

static inline void pass(struct stage *st, int64_t ms)
{
    st->r.clock.stopped_at_ms += ms;
    hky_rehearsal_settle(&st->r);
}

static inline struct hky_message *send_to(struct stage *st, struct hky_plan *plan, const char *scenario, unsigned n,
                                          const char *const *to)
{
    struct hky_message *m = fake_message(st->next_id++, st->r.clock.stopped_at_ms, scenario, n, to);
    for (unsigned i = 0; i < n; i++) {
        m->recipients[i].plan = hky_plan_ref(plan);
        m->recipients[i].policy = (uint32_t)st->policy.policy.hash;
    }
    hky_rehearsal_send(&st->r, m);
    struct hky_message *mine = m;
    hky_message_unref(&mine);
    return m; /* alive while a recipient is */
}

static inline struct hky_message *send(struct stage *st, struct hky_plan *plan)
{
    return send_to(st, plan, "", 1, (const char *const[]){"a@example.com"});
}

static inline enum hky_take take(struct stage *st, const char *relay, struct hky_job **job)
{
    return hky_rehearsal_take(&st->r, relay, job);
}

/* One job of this relay ends so for all its recipients. */
static inline void answer(struct stage *st, const char *relay, enum hky_class class, bool is_temporary,
                          uint32_t retry_after)
{
    struct hky_job *job;
    if (take(st, relay, &job) != HKY_TAKE_JOB)
        fail_msg("nothing to take from %s; so far: %s", relay, st->log);
    struct hky_outcome o = fake_outcome(class, is_temporary);
    o.retry_after_sec = retry_after;
    hky_rehearsal_answer(&st->r, &job, &o);
}

static inline void expect_wait(struct stage *st, const char *relay)
{
    struct hky_job *job;
    assert_int_equal(take(st, relay, &job), HKY_TAKE_WAIT);
}

static inline void expect(struct stage *st, const char *log)
{
    if (strcmp(st->log, log) != 0)
        fail_msg("\n  got    %s\n  wanted %s", st->log, log);
    st->log[0] = '\0';
}

/* "ses: drained until 0 to gmail; deferred 1; caps 1/h 0 of 1; broken 2 d0.example d1.example; why", a line a relay. */
static inline void relays_text(struct stage *st, char *out, size_t n)
{
    struct hky_relay_list list;
    struct hky_buf b;
    hky_buf_init(&b, 65536);
    hky_schedule_relays(st->r.schedule, &list);
    for (uint32_t i = 0; i < list.n; i++) {
        const struct hky_relay_row *r = &list.rows[i];
        hky_buf_printf(&b, "%s: %s until %lld to %s; deferred %u; caps", r->relay->name, r->state,
                       (long long)r->until_ms, r->to != NULL ? r->to : "-", r->n_deferred);
        for (unsigned k = 0; k < r->n_caps; k++)
            hky_buf_printf(&b, " %s %llu of %u", r->caps[k].text, (unsigned long long)r->caps[k].used, r->caps[k].n);
        hky_buf_printf(&b, "; broken %u", r->n_broken);
        for (unsigned k = 0; k < HKY_BROKEN_SHOWN && r->broken[k] != NULL; k++)
            hky_buf_printf(&b, " %s", r->broken[k]);
        hky_buf_printf(&b, "; %s\n", r->why);
    }
    snprintf(out, n, "%s", hky_buf_z(&b));
    hky_relay_list_fini(&list);
    hky_buf_fini(&b);
}

/* How many `relay list` says wait for their next attempt by `relay`. */
static inline unsigned deferred_by(struct stage *st, const char *relay)
{
    struct hky_relay_list list;
    unsigned n = 0;
    bool is_there = false;
    hky_schedule_relays(st->r.schedule, &list);
    for (uint32_t i = 0; i < list.n; i++) {
        if (strcmp(list.rows[i].relay->name, relay) == 0) {
            is_there = true;
            n = list.rows[i].n_deferred;
        }
    }
    hky_relay_list_fini(&list);
    assert_true(is_there);
    return n;
}

struct question {
    bool is_done; /* first: on_rows knows no more */
    struct hky_queue_request rq;
    struct hky_buf rows;
};

static inline void on_rows(struct hky_queue_request *rq)
{
    *(bool *)rq->ctx = true;
}

/* "a@x.example sending by ses: reason; reply", a line a row. */
static inline void on_row(void *ctx, const struct hky_queue_row *row)
{
    const struct hky_recipient *r = row->recipient;
    struct hky_past past = {0};
    if (hky_recipient_n_past(r) > 0)
        hky_recipient_past(r, hky_recipient_n_past(r) - 1, &past);
    hky_buf_printf(&((struct question *)ctx)->rows, HKY_STR_FMT " %s by %s: %s; " HKY_STR_FMT "\n",
                   HKY_STR_ARG(hky_recipient_address(r)), row->state, row->relay,
                   row->reason != NULL ? row->reason : "", HKY_STR_ARG(past.reply));
}

/* Asks, and turns the loop until it is answered. Then fini. */
static inline void question_ask(struct stage *st, enum hky_queue_action action, struct hky_selection x,
                                struct question *q)
{
    *q = (struct question){.rq = {.selection = x, .action = action, .limit = 25, .loop = st->r.loop}};
    q->rq.row = on_row;
    q->rq.done = on_rows;
    q->rq.ctx = q;
    hky_buf_init(&q->rows, 65536);
    hky_schedule_query(st->r.schedule, &q->rq);
    turns(st);
    assert_true(q->is_done);
}

static inline uint64_t ask(struct stage *st, enum hky_queue_action action, struct hky_selection x, char *rows, size_t n)
{
    struct question q;
    question_ask(st, action, x, &q);
    if (rows != NULL)
        snprintf(rows, n, "%s", hky_buf_z(&q.rows));
    hky_buf_fini(&q.rows);
    return q.rq.n;
}

#endif
