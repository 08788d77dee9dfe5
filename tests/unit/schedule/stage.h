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
    static const char *const NAMES[] = {
#define X(id, name, doc) name,
        HKY_EVENTS(X)
#undef X
    };
    say(ctx, NAMES[ev->kind], ev->relay);
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
    if (take(st, relay, &job) != HKY_TAKE_JOB) {
        fail_msg("nothing to take from %s; so far: %s", relay, st->log);
    }
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
    if (strcmp(st->log, log) != 0) {
        fail_msg("\n  got    %s\n  wanted %s", st->log, log);
    }
    st->log[0] = '\0';
}

/* How many `relay list` says wait for their next attempt by `relay`. */
static inline unsigned deferred_by(struct stage *st, const char *relay)
{
    char name[64];
    const char *at;
    struct hky_buf b;
    unsigned n;
    hky_buf_init(&b, 65536);
    hky_schedule_relays_json(st->r.schedule, &b);
    snprintf(name, sizeof name, "{\"relay\":\"%s\"", relay);
    at = strstr(hky_buf_z(&b), name);
    assert_non_null(at);
    assert_int_equal(sscanf(strstr(at, "\"deferred\":"), "\"deferred\":%u", &n), 1);
    hky_buf_fini(&b);
    return n;
}

static inline void on_rows(struct hky_queue_request *rq)
{
    *(bool *)rq->ctx = true;
}

static inline uint64_t ask(struct stage *st, enum hky_queue_action action, struct hky_selection x, char *rows, size_t n)
{
    bool is_done = false;
    struct hky_queue_request rq = {
        .selection = x, .action = action, .limit = 25, .loop = st->r.loop, .done = on_rows, .ctx = &is_done};
    hky_buf_init(&rq.rows, 65536);
    hky_schedule_query(st->r.schedule, &rq);
    turns(st);
    assert_true(is_done);
    if (rows != NULL) {
        snprintf(rows, n, "%s", hky_buf_z(&rq.rows));
    }
    hky_buf_fini(&rq.rows);
    return rq.n;
}

#endif
