#include "support/wait.h"
#include "unit/schedule/fake.h"

#include <pthread.h>

/* Four workers, a clock that runs fast, answers by chance, an operator who cannot sit still: every recipient gets to
 * exactly one end, and nobody steps on another's data (run under TSan as well). */
#define WORKERS         4
#define MESSAGES        400 /* a worker */
#define RCPTS           3
#define CROWDED_MINUTES 300 /* after that few are left, who wait long for their next attempt */

struct crowd {
    struct fake_policy policies[2];
    struct hky_plan *plan;
    struct hky_loop *loops[WORKERS];
    pthread_t threads[WORKERS];
    struct hky_clock clock;
    struct hky_journal *journal;
    struct hky_schedule *schedule;
    struct hky_schedule_ops ops;
    struct sender {
        struct hky_task task;
        struct crowd *crowd;
        unsigned worker;
        unsigned n;
        uint64_t random;
    } senders[WORKERS];
    struct ticker {
        struct hky_task task;
        struct crowd *crowd;
        unsigned worker;
    } tickers[WORKERS];
    uint32_t n_ticks;                                     /* atomic */
    unsigned n_there;                                     /* of a crowd turned by hand */
    uint32_t n_ended, n_wakes, n_events, n_rows, n_asked; /* atomic */
};

static uint32_t pick(uint64_t *random, uint32_t n)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % n;
}

static void wake(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct crowd *c = ctx;
    __atomic_add_fetch(&c->n_wakes, 1, __ATOMIC_RELAXED);
    assert_int_equal(lane->worker, worker);
    assert_true(hky_loop_is_mine(c->loops[worker]));
    static const struct {
        enum hky_class class;
        bool is_temporary;
    } ANSWERS[] = {{HKY_CLASS_OK, false},          {HKY_CLASS_OK, false},        {HKY_CLASS_OK, false},
                   {HKY_CLASS_SYSTEM_TEMP, true},  {HKY_CLASS_FILTERED, false},  {HKY_CLASS_NETWORK, true},
                   {HKY_CLASS_RATE_LIMITED, true}, {HKY_CLASS_RELAY_AUTH, false}};
    uint64_t *random = &c->senders[worker].random;
    struct hky_job *job;
    for (int n = 0; n < 20 && hky_schedule_take(lane, &job) == HKY_TAKE_JOB; n++) {
        if (pick(random, 10) == 0) {
            hky_schedule_give_back(&job);
            return;
        }
        uint32_t which = pick(random, 8);
        which = which == 7 && pick(random, 8) != 0 ? 0 : which;
        struct hky_outcome o = fake_outcome(ANSWERS[which].class, ANSWERS[which].is_temporary);
        for (unsigned i = 0; i < job->n; i++)
            hky_schedule_result(job, i, &o);
        hky_schedule_done(&job, o.class != HKY_CLASS_NETWORK);
    }
}

static void lane_end(void *ctx, unsigned worker, struct hky_lane *lane)
{
    (void)ctx;
    assert_int_equal(lane->worker, worker);
}

static void decide(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out)
{
    struct crowd *c = ctx;
    out->kind = pick(&c->senders[worker].random, 50) == 0 ? HKY_NO_ROUTE : HKY_DECIDED;
    out->plan = out->kind == HKY_DECIDED ? hky_plan_ref(c->plan) : NULL;
    (void)r;
}

static void finish(void *ctx, unsigned worker, struct hky_recipient *r, const struct hky_outcome *o)
{
    struct crowd *c = ctx;
    (void)worker, (void)o;
    struct hky_message *m = r->message;
    hky_message_unref(&m);
    __atomic_add_fetch(&c->n_ended, 1, __ATOMIC_RELEASE);
}

static void event(void *ctx, unsigned worker, const struct hky_event *ev)
{
    (void)worker, (void)ev;
    __atomic_add_fetch(&((struct crowd *)ctx)->n_events, 1, __ATOMIC_RELAXED);
}

static void send_some(struct hky_task *t)
{
    struct sender *s = HKY_CONTAINER(t, struct sender, task);
    struct crowd *c = s->crowd;
    for (int i = 0; i < 10 && s->n < MESSAGES; i++, s->n++) {
        char to[RCPTS][40];
        const char *list[RCPTS];
        for (int k = 0; k < RCPTS; k++) {
            snprintf(to[k], sizeof to[k], "u%u@d%u.example", pick(&s->random, 1000), pick(&s->random, 20));
            list[k] = to[k];
        }
        struct hky_message *m = fake_message((uint64_t)s->worker << 32 | s->n, hky_clock_now_ms(&c->clock),
                                             pick(&s->random, 2) ? "spring" : "", RCPTS, list);
        for (int k = 0; k < RCPTS; k++) {
            m->recipients[k].plan = hky_plan_ref(c->plan);
            m->recipients[k].policy = 1;
            hky_message_ref(m);
        }
        hky_schedule_enqueue(c->schedule, s->worker, m);
        hky_message_unref(&m);
    }
    if (s->n < MESSAGES)
        hky_loop_post(c->loops[s->worker], t);
}

static void tick(struct hky_task *t)
{
    struct ticker *k = HKY_CONTAINER(t, struct ticker, task);
    hky_schedule_tick(k->crowd->schedule, k->worker);
    __atomic_add_fetch(&k->crowd->n_ticks, 1, __ATOMIC_RELEASE);
}

/* The clock goes on. Left alone, a worker looks at it once a second; this comes back when all have looked. */
static void pass_minutes(struct crowd *c, int n)
{
    __atomic_store_n(&c->n_ticks, 0, __ATOMIC_RELEASE);
    __atomic_add_fetch(&c->clock.shift_ms, (int64_t)n * 60000, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < WORKERS; i++) {
        c->tickers[i] = (struct ticker){{tick, NULL}, c, i};
        hky_loop_post(c->loops[i], &c->tickers[i].task);
    }
    wait_until(__atomic_load_n(&c->n_ticks, __ATOMIC_ACQUIRE) == WORKERS);
}

static void *run(void *arg)
{
    hky_loop_run(arg);
    return NULL;
}

static void row_came(void *ctx, const struct hky_queue_row *row)
{
    (void)ctx;
    assert_true(hky_recipient_address(row->recipient).n > 0 && row->state[0] != '\0');
}

static void rows_came(struct hky_queue_request *rq)
{
    struct crowd *c = rq->ctx;
    __atomic_add_fetch(&c->n_rows, (uint32_t)rq->n, __ATOMIC_RELAXED);
    free(rq);
    __atomic_add_fetch(&c->n_asked, 1, __ATOMIC_RELEASE);
}

static void ask(struct crowd *c, enum hky_queue_action action)
{
    struct hky_queue_request *rq = calloc(1, sizeof *rq);
    rq->action = action;
    rq->limit = 5;
    rq->loop = c->loops[1];
    rq->row = row_came;
    rq->done = rows_came;
    rq->ctx = c;
    hky_schedule_query(c->schedule, rq);
}

static void crowd_init(struct crowd *c)
{
    struct hky_error e;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < 2; i++) {
        fake_policy_init(&c->policies[i], 1 + (unsigned)i);
        fake_relay(&c->policies[i], "own")->is_mx = true;
        fake_cap(fake_relay(&c->policies[i], "rental"), "6000/min", 6000, 60, false);
        fake_relay(&c->policies[i], "ses");
    }
    struct hky_step steps[3] = {fake_step("own"), fake_step("rental"), fake_step("ses")};
    c->plan = fake_plan(steps, 3);
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(hky_loop_new(&c->loops[i], &e), HKY_OK);
    c->journal = hky_journal_memory_new();
    c->ops = (struct hky_schedule_ops){c, wake, lane_end, decide, finish, event};
    assert_int_equal(hky_schedule_new(&(struct hky_schedule_params){.n_workers = WORKERS,
                                                                    .loops = c->loops,
                                                                    .journal = c->journal,
                                                                    .policy = &c->policies[0].policy,
                                                                    .clock = &c->clock,
                                                                    .ops = &c->ops},
                                      &c->schedule, &e),
                     HKY_OK);
}

static void crowd_fini(struct crowd *c)
{
    hky_schedule_free(&c->schedule);
    hky_journal_close(&c->journal);
    for (int i = 0; i < WORKERS; i++)
        hky_loop_free(&c->loops[i]);
    hky_plan_unref(&c->plan);
    assert_int_equal(c->policies[0].policy.refs, 1);
    assert_int_equal(c->policies[1].policy.refs, 1);
}

static void everyone_gets_to_one_end(void **state)
{
    (void)state;
    static struct crowd c;
    struct hky_error e;
    crowd_init(&c);
    hky_schedule_start(c.schedule);
    for (unsigned i = 0; i < WORKERS; i++) {
        c.senders[i] = (struct sender){{send_some, NULL}, &c, i, 0, i + 1};
        hky_loop_post(c.loops[i], &c.senders[i].task);
        pthread_create(&c.threads[i], NULL, run, c.loops[i]);
    }
    uint32_t all = WORKERS * MESSAGES * RCPTS, asked = 0;
    int64_t until = hky_mono_ms() + 60000;
    for (int i = 0; __atomic_load_n(&c.n_ended, __ATOMIC_ACQUIRE) < all && hky_mono_ms() < until; i++) {
        pass_minutes(&c, i < CROWDED_MINUTES ? 1 : 10);
        struct hky_schedule_stats s;
        struct hky_relay_list list;
        switch (i % 10) {
        case 1:
            hky_schedule_pause(c.schedule, "rental", 0, &e);
            break;
        case 3:
            hky_schedule_resume(c.schedule, "rental", &e);
            hky_schedule_resume(c.schedule, "own", &e);
            break;
        case 5:
            hky_schedule_set_policy(c.schedule, &c.policies[i / 10 % 2].policy);
            break;
        case 6:
            hky_schedule_stats(c.schedule, &s);
            hky_schedule_relays(c.schedule, &list);
            hky_relay_list_fini(&list);
            break;
        case 7:
            ask(&c, i < 100 && i % 20 == 7 ? HKY_QUEUE_HOLD : HKY_QUEUE_LIST);
            asked++;
            break;
        case 8:
            ask(&c, HKY_QUEUE_RELEASE);
            asked++;
            break;
        case 9:
            if (i % 50 == 9)
                hky_schedule_drain_relay(c.schedule, "own", "ses", 1, &e);
            break;
        }
    }
    assert_int_equal(c.n_ended, all);
    wait_until(__atomic_load_n(&c.n_asked, __ATOMIC_ACQUIRE) >= asked);
    assert_int_equal(c.n_asked, asked);
    for (int i = 0; i < WORKERS; i++) {
        hky_loop_stop(c.loops[i]);
        pthread_join(c.threads[i], NULL);
    }
    struct hky_schedule_stats s;
    hky_schedule_stats(c.schedule, &s);
    assert_int_equal(s.delivered + s.failed, all);
    assert_int_equal(s.queued + s.sending + s.deferred + s.parked + s.held + s.undecided, 0);
    struct hky_journal_stats written;
    hky_journal_stats(c.journal, &written);
    assert_true(c.n_rows > 0 && written.commits > 0 && written.results > 0);
    crowd_fini(&c);
}

/* ---- on the way from one worker to another; all loops on this thread, one turn after the other ---- */

static void wake_nobody(void *ctx, unsigned worker, struct hky_lane *lane)
{
    (void)ctx, (void)worker, (void)lane;
}

/* All that are in the queue are in the count, once, whenever somebody looks. */
static void expect_there(struct crowd *c, unsigned n, const char *when)
{
    struct hky_schedule_stats s;
    hky_schedule_stats(c->schedule, &s);
    /* on a busy machine the policy's share of a turn is over early: who is left is undecided */
    if (s.queued + s.sending + s.deferred + s.parked + s.held + s.undecided != n) {
        fail_msg("%s: %u queued, %u deferred, %u parked, %u held, %u undecided instead of %u together", when,
                 (unsigned)s.queued, (unsigned)s.deferred, (unsigned)s.parked, (unsigned)s.held, (unsigned)s.undecided,
                 n);
    }
}

static void decide_and_count(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out)
{
    struct crowd *c = ctx;
    (void)worker, (void)r;
    c->n_asked++;
    expect_there(c, c->n_there, "while the policy is asked");
    out->kind = HKY_DECIDED;
    out->plan = hky_plan_ref(c->plan);
}

static void hand_crowd_init(struct crowd *c)
{
    crowd_init(c);
    c->ops.wake = wake_nobody;
    c->ops.decide = decide_and_count;
    c->clock.stopped_at_ms = hky_clock_now_ms(&c->clock);
}

static void turn_all(struct crowd *c, int rounds)
{
    for (int i = 0; i < rounds * WORKERS; i++) {
        hky_loop_turn(c->loops[i % WORKERS], 0);
        expect_there(c, c->n_there, "after a turn");
    }
}

static struct hky_message *to_domains(struct crowd *c, unsigned id, unsigned n, unsigned first)
{
    char to[RCPTS][40];
    const char *list[RCPTS];
    for (unsigned k = 0; k < n; k++) {
        snprintf(to[k], sizeof to[k], "u%u.%u@d%u.example", id, k, first + k);
        list[k] = to[k];
    }
    struct hky_message *m = fake_message(id, hky_clock_now_ms(&c->clock), "", n, list);
    for (unsigned k = 0; k < n; k++) {
        m->recipients[k].plan = hky_plan_ref(c->plan);
        m->recipients[k].policy = 1;
        if (k > 0)
            hky_message_ref(m);
    }
    return m;
}

static void the_policy_is_asked_about_recipients_that_are_counted(void **state)
{
    (void)state;
    static struct crowd c;
    hand_crowd_init(&c);
    for (unsigned id = 1; id <= 60; id++, c.n_there += RCPTS) {
        struct hky_message *m = to_domains(&c, id, RCPTS, id);
        for (unsigned k = 0; k < RCPTS && id % 3 > 0; k++) { /* ready, deferred, parked */
            m->recipients[k].next_at_ms = c.clock.stopped_at_ms + HOUR;
            if (id % 3 == 2) {
                m->recipients[k].state = HKY_RCPT_PARKED;
                m->recipients[k].parked_at_ms = c.clock.stopped_at_ms;
                hky_plan_unref(&m->recipients[k].plan);
            }
        }
        hky_schedule_restore_message(c.schedule, m);
    }
    expect_there(&c, c.n_there, "restored");
    hky_schedule_start(c.schedule);
    turn_all(&c, 10);
    assert_int_equal(c.n_asked, 0);
    unsigned n_asked = c.n_there / 3 * 2; /* those in lanes and the parked */
    hky_schedule_set_policy(c.schedule, &c.policies[1].policy);
    for (unsigned id = 100; id < 120; id++) { /* by the old policy to homes that have the new one when they come */
        c.n_there += RCPTS;
        n_asked += RCPTS;
        hky_schedule_enqueue(c.schedule, id % WORKERS, to_domains(&c, id, RCPTS, id));
    }
    turn_all(&c, 10);
    assert_int_equal(c.n_asked, n_asked);
    c.clock.stopped_at_ms += HOUR;
    for (unsigned i = 0; i < WORKERS; i++)
        hky_schedule_tick(c.schedule, i);
    turn_all(&c, 10);
    assert_int_equal(c.n_asked, c.n_there); /* and the deferred */
    crowd_fini(&c);
}

struct walk {
    struct hky_buf *rows; /* addresses, each between quotes; NULL: not wanted */
    bool is_done;
};

static void on_walk_answer(struct hky_queue_request *rq)
{
    ((struct walk *)rq->ctx)->is_done = true;
}

static void on_walk_row(void *ctx, const struct hky_queue_row *row)
{
    struct walk *walk = ctx;
    if (walk->rows != NULL)
        hky_buf_add_json(walk->rows, hky_recipient_address(row->recipient));
}

static unsigned ask_by_hand(struct crowd *c, enum hky_queue_action action, struct hky_buf *rows)
{
    struct walk walk = {rows, false};
    struct hky_queue_request rq = {.action = action,
                                   .limit = UINT32_MAX,
                                   .loop = c->loops[1],
                                   .row = on_walk_row,
                                   .done = on_walk_answer,
                                   .ctx = &walk};
    if (rows != NULL)
        hky_buf_clear(rows);
    hky_schedule_query(c->schedule, &rq);
    for (int i = 0; i < 100 * WORKERS && !walk.is_done; i++) {
        hky_loop_turn(c->loops[i % WORKERS], 0);
        if (action == HKY_QUEUE_LIST)
            expect_there(c, c->n_there, "while the queue is listed");
    }
    assert_true(walk.is_done);
    return (unsigned)rq.n;
}

/* To all homes from all workers, asked for after so many turns of the loops. */
static void the_list_has_those_on_their_way(void **state)
{
    (void)state;
    static struct crowd c;
    hand_crowd_init(&c);
    hky_schedule_start(c.schedule);
    turn_all(&c, 3);
    for (unsigned id = 1; id <= 20 * WORKERS * WORKERS; id++) {
        unsigned from = id % WORKERS, n_turns = id / WORKERS % WORKERS;
        struct hky_message *m = to_domains(&c, id, 1, id / WORKERS / WORKERS);
        hky_schedule_enqueue(c.schedule, from, m);
        c.n_there = 1;
        for (unsigned i = 0; i < n_turns; i++) {
            hky_loop_turn(c.loops[(from + i) % WORKERS], 0);
            expect_there(&c, 1, "on its way");
        }
        unsigned n = ask_by_hand(&c, HKY_QUEUE_LIST, NULL);
        if (n != 1)
            fail_msg("from worker %u, %u turns later: %u rows instead of 1", from, n_turns, n);
        assert_int_equal(ask_by_hand(&c, HKY_QUEUE_CANCEL, NULL), 1);
        expect_there(&c, 0, "cancelled");
    }
    crowd_fini(&c);
}

static void the_list_has_nobody_twice(void **state)
{
    (void)state;
    static struct crowd c;
    struct hky_buf rows;
    hand_crowd_init(&c);
    hky_buf_init(&rows, 1 << 20);
    hky_schedule_start(c.schedule);
    for (unsigned id = 1; id <= 60; id++) {
        c.n_there += RCPTS;
        hky_schedule_enqueue(c.schedule, id % WORKERS, to_domains(&c, id, RCPTS, id));
        expect_there(&c, c.n_there, "enqueued");
    }
    for (unsigned i = 0; i < 3; i++) { /* on their way, on their way again to the lanes of a new policy, at home */
        assert_int_equal(ask_by_hand(&c, HKY_QUEUE_LIST, &rows), c.n_there);
        for (unsigned id = 1; id <= 60; id++) {
            for (unsigned k = 0; k < RCPTS; k++) {
                char address[48];
                snprintf(address, sizeof address, "\"u%u.%u@d%u.example\"", id, k, id + k);
                if (strstr(hky_buf_z(&rows), address) == NULL)
                    fail_msg("%s is not in the list", address);
            }
        }
        if (i == 0)
            hky_schedule_set_policy(c.schedule, &c.policies[1].policy);
    }
    turn_all(&c, 10);
    hky_buf_fini(&rows);
    crowd_fini(&c);
}

/* More than one turn dispatches: the others are held where they wait for theirs. */
static void those_that_wait_to_be_placed_are_held_and_released(void **state)
{
    (void)state;
    static struct crowd c;
    hand_crowd_init(&c);
    for (unsigned id = 1; id <= 500; id++, c.n_there += RCPTS)
        hky_schedule_restore_message(c.schedule, to_domains(&c, id, RCPTS, id));
    hky_schedule_start(c.schedule);
    assert_int_equal(ask_by_hand(&c, HKY_QUEUE_HOLD, NULL), c.n_there);
    expect_there(&c, c.n_there, "held");
    assert_int_equal(ask_by_hand(&c, HKY_QUEUE_LIST, NULL), c.n_there);
    assert_int_equal(ask_by_hand(&c, HKY_QUEUE_RELEASE, NULL), c.n_there);
    expect_there(&c, c.n_there, "released");
    turn_all(&c, 20);
    assert_int_equal(ask_by_hand(&c, HKY_QUEUE_LIST, NULL), c.n_there);
    crowd_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everyone_gets_to_one_end),
        cmocka_unit_test(the_policy_is_asked_about_recipients_that_are_counted),
        cmocka_unit_test(the_list_has_those_on_their_way),
        cmocka_unit_test(the_list_has_nobody_twice),
        cmocka_unit_test(those_that_wait_to_be_placed_are_held_and_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
