/*
 * stage -- a schedule with one worker, and around it whoever a test needs: a deliver that answers as told, a policy
 * that gives one plan, a log of events in words.
 */
#ifndef HKY_TESTS_SCHEDULE_STAGE_H
#define HKY_TESTS_SCHEDULE_STAGE_H

#include "unit/schedule/fake.h"

#define START INT64_C(1764550800000)

struct stage {
    struct fake_policy policy, second;
    struct hky_policy *decides; /* plans come from here; NULL: no route */
    struct hky_plan *plan;      /* what `decide` gives */
    unsigned n_decides;
    bool is_unread; /* `decide` lacks the header */
    struct hky_loop *loop;
    struct hky_clock clock;
    struct fake_journal journal;
    struct hky_schedule *schedule;
    struct hky_schedule_ops ops;
    struct hky_lane *woken[64];
    unsigned n_woken, n_gone;
    const char *dir; /* of `inflight`; NULL: none */
    bool was_unclean;
    char log[8192]; /* events and ends, in words */
    char ended[64]; /* class and text of the last end's outcome */
    uint64_t next_id;
};

static inline void wake(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct stage *st = ctx;
    (void)worker;
    for (unsigned i = 0; i < st->n_woken; i++) {
        if (st->woken[i] == lane) {
            return;
        }
    }
    assert_true(st->n_woken < 64);
    st->woken[st->n_woken++] = lane;
}

static inline void lane_gone(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct stage *st = ctx;
    (void)worker;
    st->n_gone++;
    for (unsigned i = 0; i < st->n_woken; i++) {
        if (st->woken[i] == lane) {
            st->woken[i] = st->woken[--st->n_woken];
        }
    }
}

static inline void decide(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out)
{
    struct stage *st = ctx;
    (void)worker, (void)r;
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

static inline void finish(void *ctx, unsigned worker, struct hky_recipient *r, const struct hky_outcome *o)
{
    struct stage *st = ctx;
    (void)worker;
    assert_true(hky_recipient_state_is_final(r->state));
    snprintf(st->ended, sizeof st->ended, "%s %.40s", o != NULL ? hky_class_name(o->class) : "-",
             o != NULL ? o->reply.text : "");
    struct hky_message *m = r->message;
    hky_message_unref(&m);
}

static inline void event(void *ctx, unsigned worker, const struct hky_event *ev)
{
    static const char *const NAMES[] = {
#define X(id, name, doc) name,
        HKY_EVENTS(X)
#undef X
    };
    (void)worker;
    say(ctx, NAMES[ev->kind], ev->relay);
}

static inline void stage_init(struct stage *st)
{
    struct hky_error e;
    memset(st, 0, sizeof *st);
    fake_policy_init(&st->policy, 11);
    st->clock.stopped_at_ms = START;
    st->next_id = 1;
    assert_int_equal(hky_loop_new(&st->loop, &e), HKY_OK);
    st->ops = (struct hky_schedule_ops){st, wake, lane_gone, decide, finish, event};
}

static inline void stage_open(struct stage *st)
{
    struct hky_error e;
    assert_int_equal(hky_schedule_new(&(struct hky_schedule_params){.n_workers = 1,
                                                                    .loops = &st->loop,
                                                                    .journal = (void *)&st->journal,
                                                                    .policy = &st->policy.policy,
                                                                    .clock = &st->clock,
                                                                    .ops = &st->ops,
                                                                    .dir = st->dir,
                                                                    .was_unclean = st->was_unclean},
                                      &st->schedule, &e),
                     HKY_OK);
}

static inline void turns(struct stage *st)
{
    for (int i = 0; i < 40; i++) {
        hky_loop_turn(st->loop, 0);
    }
}

static inline void stage_start(struct stage *st)
{
    stage_open(st);
    hky_schedule_start(st->schedule);
    turns(st);
}

static inline void stage_end(struct stage *st)
{
    turns(st);
    hky_schedule_free(&st->schedule);
    hky_loop_free(&st->loop);
    hky_plan_unref(&st->plan);
    assert_int_equal(st->policy.policy.refs, 1);
}

static inline void pass(struct stage *st, int64_t ms)
{
    st->clock.stopped_at_ms += ms;
    hky_schedule_tick(st->schedule, 0);
    turns(st);
}

static inline struct hky_message *send_to(struct stage *st, struct hky_plan *plan, const char *scenario, unsigned n,
                                          const char *const *to)
{
    struct hky_message *m = fake_message(st->next_id++, st->clock.stopped_at_ms, scenario, n, to);
    for (unsigned i = 0; i < n; i++) {
        m->recipients[i].plan = hky_plan_ref(plan);
        m->recipients[i].policy = (uint32_t)st->policy.policy.hash;
        hky_message_ref(m);
    }
    hky_schedule_enqueue(st->schedule, 0, m);
    struct hky_message *mine = m;
    hky_message_unref(&mine);
    turns(st);
    return m; /* alive while a recipient is */
}

static inline struct hky_message *send(struct stage *st, struct hky_plan *plan)
{
    return send_to(st, plan, "", 1, (const char *const[]){"a@example.com"});
}

static inline enum hky_take take(struct stage *st, const char *relay, struct hky_job **job)
{
    enum hky_take last = HKY_TAKE_EMPTY;
    *job = NULL;
    for (unsigned i = 0; i < st->n_woken; i++) {
        if (strcmp(st->woken[i]->relay_name, relay) == 0) {
            last = hky_schedule_take(st->woken[i], job);
            if (last != HKY_TAKE_EMPTY) {
                return last;
            }
        }
    }
    return last;
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
    unsigned n = job->n;
    for (unsigned i = 0; i < n; i++) {
        hky_schedule_result(job, i, &o);
    }
    hky_schedule_done(&job, class != HKY_CLASS_NETWORK);
    turns(st);
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
    hky_schedule_relays_json(st->schedule, &b);
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
        .selection = x, .action = action, .limit = 25, .loop = st->loop, .done = on_rows, .ctx = &is_done};
    hky_buf_init(&rq.rows, 65536);
    hky_schedule_query(st->schedule, &rq);
    turns(st);
    assert_true(is_done);
    if (rows != NULL) {
        snprintf(rows, n, "%s", hky_buf_z(&rq.rows));
    }
    hky_buf_fini(&rq.rows);
    return rq.n;
}

#endif
