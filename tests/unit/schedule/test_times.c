/* What depends on the hour: a clock that the test moves. */
#include "unit/schedule/stage.h"

#define DAY (24 * HOUR)

static struct hky_plan *function_plan(const struct hky_step *steps, unsigned n)
{
    struct hky_plan *plain = fake_plan(steps, n), *draft = malloc(sizeof *draft), *plan;
    struct hky_error e;
    *draft = *plain;
    draft->is_from_function = true;
    assert_int_equal(hky_plan_new(draft, &plan, &e), HKY_OK);
    free(draft);
    hky_plan_unref(&plain);
    return plan;
}

static struct hky_message *parked(struct stage *st, int64_t deadline_ms)
{
    struct hky_rcpt_draft rcpt = {.address = HKY_STR("a@example.com")};
    struct hky_message_draft d = {.id = 99,
                                  .accepted_at_ms = st->r.clock.stopped_at_ms,
                                  .deadline_ms = deadline_ms,
                                  .recipients = &rcpt,
                                  .n_recipients = 1};
    d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
    struct hky_message *m = hky_message_new(&d);
    m->recipients[0].state = HKY_RCPT_PARKED;
    m->recipients[0].parked_at_ms = st->r.clock.stopped_at_ms;
    hky_message_ref(m);
    hky_schedule_enqueue(st->r.schedule, 0, m);
    turns(st);
    return m;
}

static void parked_for_so_long_is_bounced(void **state)
{
    static const struct {
        const char *name;
        uint32_t parked_sec;
        int64_t stays_ms, goes_ms;
    } CASES[] = {
        {"seven days", 7 * 86400, 7 * DAY - 2 * HOUR, 7 * DAY + HOUR},
        {"ten minutes, at the next asking", 600, 5 * MINUTE, 20 * MINUTE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        st.policy.policy.engine.parked_sec = CASES[i].parked_sec;
        stage_start(&st);
        struct hky_message *m = parked(&st, 0);
        st.log[0] = '\0';
        while (st.r.clock.stopped_at_ms < START + CASES[i].stays_ms)
            pass(&st, MINUTE);
        expect(&st, "");
        assert_int_equal(m->recipients[0].state, HKY_RCPT_PARKED);
        while (st.r.clock.stopped_at_ms < START + CASES[i].goes_ms)
            pass(&st, MINUTE);
        expect(&st, "failed");
        assert_int_equal(m->recipients[0].state, HKY_RCPT_FAILED);
        hky_message_unref(&m);
        stage_end(&st);
    }
}

static void expire_stands_still_while_parked(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_message *m = parked(&st, 0);
    for (int i = 0; i < 72; i++)
        pass(&st, HOUR); /* three days, of which expire has two */
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    pass(&st, HOUR);
    expect(&st, "parked unparked");
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    expect(&st, "deferred:ses");
    int64_t expires = m->recipients[0].expire_at_ms;
    assert_int_equal(expires, START + 73 * HOUR + 48 * HOUR);
    /* parked once more, between two attempts: a reload that has nothing for it, then one that has */
    hky_plan_unref(&st.plan);
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "ses");
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    pass(&st, 5 * MINUTE);
    expect(&st, "parked");
    pass(&st, 4 * MINUTE);
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    pass(&st, MINUTE);
    expect(&st, "unparked");
    assert_int_equal(m->recipients[0].expire_at_ms, expires + 5 * MINUTE);
    hky_message_unref(&m);
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

static void a_deadline_does_not_stand_still(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_message *late = parked(&st, START + 10 * MINUTE), *early = parked(&st, START + HOUR);
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    st.log[0] = '\0';
    pass(&st, 5 * MINUTE);
    expect(&st, "unparked unparked");
    assert_int_equal(late->recipients[0].expire_at_ms, START + 10 * MINUTE); /* the code in it is worthless then */
    assert_int_equal(early->recipients[0].expire_at_ms, START + HOUR);
    pass(&st, 5 * MINUTE);
    expect(&st, "expired");
    hky_message_unref(&late);
    hky_message_unref(&early);
    stage_end(&st);
}

/* A mail that must not go out after a moment is not kept for a week because no route takes it. */
static void a_deadline_ends_parking(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_message *m = parked(&st, START + 2 * HOUR), *over = parked(&st, START - 1);
    assert_int_equal(over->recipients[0].state, HKY_RCPT_EXPIRED);
    expect(&st, "parked expired");
    assert_int_equal(m->recipients[0].state, HKY_RCPT_PARKED);
    while (st.r.clock.stopped_at_ms < START + 2 * HOUR - MINUTE)
        pass(&st, MINUTE);
    expect(&st, "");
    assert_int_equal(m->recipients[0].state, HKY_RCPT_PARKED);
    assert_int_equal(m->recipients[0].next_at_ms, START + 2 * HOUR); /* not at the next asking, an hour later */
    pass(&st, MINUTE);
    expect(&st, "expired");
    assert_int_equal(m->recipients[0].state, HKY_RCPT_EXPIRED);
    hky_message_unref(&m);
    hky_message_unref(&over);
    stage_end(&st);
}

static struct hky_message *send_by(struct stage *st, struct hky_plan *plan, int64_t deadline_ms)
{
    struct hky_message *m = send(st, plan);
    m->deadline_ms = m->recipients[0].expire_at_ms = deadline_ms;
    return hky_message_ref(m);
}

static void a_deadline_counts_for_held_mail(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *over = send_by(&st, plan, START + 90 * MINUTE), *late = send_by(&st, plan, START + 3 * HOUR);
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, (struct hky_selection){0}, NULL, 0), 2);
    pass(&st, 150 * MINUTE);
    assert_int_equal(late->recipients[0].state, HKY_RCPT_HELD);
    st.log[0] = '\0';
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 2);
    assert_int_equal(over->recipients[0].state, HKY_RCPT_EXPIRED);
    assert_int_equal(late->recipients[0].state, HKY_RCPT_QUEUED);
    assert_int_equal(late->recipients[0].expire_at_ms, START + 3 * HOUR); /* not an hour after its release */
    hky_message_unref(&late);
    hky_message_unref(&over);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

/* A server that never takes the mail, and operators that ask for it once more: it is not tried a 61st time. */
static void no_attempt_follows_the_sixtieth(void **state)
{
    (void)state;
    struct stage st;
    struct hky_job *job;
    stage_init(&st);
    st.policy.policy.engine.retry = (struct hky_retry){1, {60}};
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *m = send(&st, plan);
    hky_message_ref(m);
    struct hky_recipient *r = &m->recipients[0];
    while (r->attempts < HKY_ATTEMPTS_MAX) {
        while (take(&st, "ses", &job) != HKY_TAKE_JOB) {
            assert_true(st.r.clock.stopped_at_ms < START + 48 * HOUR);
            pass(&st, MINUTE);
        }
        struct hky_outcome o = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
        hky_rehearsal_answer(&st.r, &job, &o);
    }
    assert_int_equal(count_of(st.log, "deferred:ses"), HKY_ATTEMPTS_MAX);
    assert_true(st.r.clock.stopped_at_ms > START + 45 * HOUR);
    st.log[0] = '\0';
    assert_int_equal(ask(&st, HKY_QUEUE_RETRY, (struct hky_selection){0}, NULL, 0), 1);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_EMPTY);
    assert_int_equal(deferred_by(&st, "ses"), 1);
    assert_string_equal(r->reason, "its attempts are used up; it waits until it expires");
    pass(&st, START + 48 * HOUR - MINUTE - st.r.clock.stopped_at_ms);
    expect(&st, "released");
    pass(&st, MINUTE);
    expect(&st, "expired");
    assert_string_equal(st.ended, "system_temp said so");
    hky_message_unref(&m);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* Held or released, retried or parked in between: nothing moves the time at which it expires past its deadline. */
static void operators_do_not_move_a_deadline(void **state)
{
    enum { LIVES_MS = 48 * 60 * 60 * 1000 }; /* engine.expire */
    static const struct {
        const char *name;
        enum { WAITS, IS_TRIED, IS_PARKED } first;
        int64_t deadline_ms; /* from the start; 0: none */
        int64_t held_after_ms, released_after_ms, expires_ms;
        uint64_t n_late;
        const char *log;
    } CASES[] = {
        {"held for ten minutes of fifteen", WAITS, 15 * MINUTE, MINUTE, 10 * MINUTE, 15 * MINUTE, 0, "held released"},
        {"held for longer than that", WAITS, 15 * MINUTE, MINUTE, 20 * MINUTE, 15 * MINUTE, 1, "held released expired"},
        {"parked, then held", IS_PARKED, 15 * MINUTE, 4 * MINUTE, 5 * MINUTE, 15 * MINUTE, 0, "held released decided"},
        {"parked, then held for longer than that", IS_PARKED, 15 * MINUTE, 4 * MINUTE, 20 * MINUTE, 15 * MINUTE, 1,
         "held released decided expired"},
        {"with much time left", WAITS, 30 * HOUR, MINUTE, HOUR, 30 * HOUR, 0, "held released"},
        {"no deadline: its time begins anew", WAITS, 0, MINUTE, 2 * HOUR, 2 * HOUR + LIVES_MS, 0, "held released"},
        {"no deadline, tried: an hour is left", IS_TRIED, 0, MINUTE, LIVES_MS + HOUR, LIVES_MS + 2 * HOUR, 0,
         "held released"},
        {"tried, and a deadline in half an hour", IS_TRIED, LIVES_MS + 90 * MINUTE, MINUTE, LIVES_MS + HOUR,
         LIVES_MS + 90 * MINUTE, 0, "held released"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        struct hky_message *m = parked(&st, CASES[i].deadline_ms != 0 ? START + CASES[i].deadline_ms : 0);
        struct hky_recipient *r = &m->recipients[0];
        struct question q;
        st.plan = hky_plan_ref(plan);
        r->expire_at_ms = START + (CASES[i].deadline_ms != 0 ? CASES[i].deadline_ms : LIVES_MS); /* since acceptance */
        if (CASES[i].first != IS_PARKED)
            ask(&st, HKY_QUEUE_RETRY, (struct hky_selection){0}, NULL, 0); /* unparked at once */
        turns(&st);
        if (CASES[i].first == IS_TRIED)
            answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
        st.log[0] = '\0';
        pass(&st, CASES[i].held_after_ms);
        assert_int_equal(ask(&st, HKY_QUEUE_HOLD, (struct hky_selection){0}, NULL, 0), 1);
        assert_true(CASES[i].deadline_ms == 0 || r->expire_at_ms <= START + CASES[i].deadline_ms);
        pass(&st, CASES[i].released_after_ms - CASES[i].held_after_ms);
        question_ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, &q);
        hky_buf_fini(&q.rows);
        turns(&st);
        print_message("%s\n", CASES[i].name);
        assert_int_equal(q.rq.n, 1);
        assert_int_equal(q.rq.n_late, CASES[i].n_late);
        assert_int_equal(r->expire_at_ms, START + CASES[i].expires_ms);
        expect(&st, CASES[i].log);
        hky_message_unref(&m);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* A copy may have been delivered and no attempt can follow: a release leaves it held and reports no failure. */
static void what_may_have_been_delivered_is_not_released_to_its_end(void **state)
{
    static const struct {
        const char *name;
        enum hky_class class;
        int64_t deadline_ms; /* 0: none */
        unsigned attempts;   /* before the last one */
        bool is_held_by_hand;
        uint64_t n, n_late, n_used_up, n_spent;
        const char *log; /* of the release and all time after it */
    } CASES[] = {
        {"its deadline is over", HKY_CLASS_AMBIGUOUS, HOUR, 0, false, 0, 0, 0, 1, ""},
        {"an operator held it before its deadline", HKY_CLASS_AMBIGUOUS, HOUR, 0, true, 0, 0, 0, 1, ""},
        {"its attempts are used up", HKY_CLASS_AMBIGUOUS, 0, HKY_ATTEMPTS_MAX - 1, false, 0, 0, 0, 1, ""},
        {"both", HKY_CLASS_AMBIGUOUS, HOUR, HKY_ATTEMPTS_MAX - 1, false, 0, 0, 0, 1, ""},
        {"neither: it is released", HKY_CLASS_AMBIGUOUS, 0, 0, true, 1, 0, 0, 0, "released expired"},
        {"it was refused, its deadline is over", HKY_CLASS_SYSTEM_TEMP, HOUR, 0, true, 1, 1, 0, 0, "released expired"},
        {"it was refused, its attempts are used up", HKY_CLASS_SYSTEM_TEMP, 0, HKY_ATTEMPTS_MAX - 1, true, 1, 0, 1, 0,
         "released expired"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct hky_error e;
        struct question q;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        struct hky_message *m = fake_message(77, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &m->recipients[0];
        hky_message_ref(m);
        m->deadline_ms = CASES[i].deadline_ms != 0 ? START + CASES[i].deadline_ms : 0;
        r->plan = hky_plan_ref(plan);
        r->policy = (uint32_t)st.policy.policy.hash;
        r->attempts = (uint8_t)CASES[i].attempts;
        struct hky_message *mine = m;
        hky_rehearsal_send(&st.r, m);
        hky_message_unref(&mine);
        turns(&st);
        answer(&st, "ses", CASES[i].class, true, 0);
        assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
        if (CASES[i].is_held_by_hand)
            assert_int_equal(ask(&st, HKY_QUEUE_HOLD, (struct hky_selection){0}, NULL, 0), 1);
        for (int k = 0; k < 4; k++)
            pass(&st, HOUR / 2);
        assert_int_equal(r->state, HKY_RCPT_HELD);
        st.log[0] = '\0';
        question_ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, &q);
        hky_buf_fini(&q.rows);
        for (int k = 0; k < 60; k++)
            pass(&st, HOUR);
        print_message("%s\n", CASES[i].name);
        expect(&st, CASES[i].log);
        assert_int_equal(q.rq.n, CASES[i].n);
        assert_int_equal(q.rq.n_late, CASES[i].n_late);
        assert_int_equal(q.rq.n_used_up, CASES[i].n_used_up);
        assert_int_equal(q.rq.n_spent, CASES[i].n_spent);
        assert_int_equal(r->state == HKY_RCPT_HELD, CASES[i].n == 0);
        if (CASES[i].n == 0) {
            assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, (struct hky_selection){0}, NULL, 0), 1);
            assert_int_equal(r->state, HKY_RCPT_CANCELLED);
        }
        hky_message_unref(&m);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void a_function_is_asked_again_after_a_quarter_of_an_hour(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "own");
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *fixed = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    struct hky_plan *plan = function_plan((struct hky_step[]){fake_step("own")}, 1);
    hky_schedule_pause(st.r.schedule, "own", 0, &e);
    send(&st, fixed);
    send(&st, plan);
    st.plan = function_plan((struct hky_step[]){fake_step("ses")}, 1);
    pass(&st, 14 * MINUTE);
    hky_schedule_resume(st.r.schedule, "own", &e);
    turns(&st);
    assert_int_equal(st.n_decides, 0);
    hky_schedule_pause(st.r.schedule, "own", 0, &e);
    pass(&st, 2 * MINUTE);
    hky_schedule_resume(st.r.schedule, "own", &e);
    turns(&st);
    answer(&st, "own", HKY_CLASS_OK, false, 0); /* the plan that no function gave */
    struct hky_job *job;
    assert_int_equal(take(&st, "own", &job), HKY_TAKE_EMPTY);
    turns(&st);
    assert_int_equal(st.n_decides, 1);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0); /* where it goes now */
    pass(&st, HOUR);
    assert_int_equal(st.n_decides, 1); /* it has begun: the plan stays */
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    hky_plan_unref(&fixed);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* One a day: everybody waits longer than a quarter of an hour, is asked again, and stays at the head with its `within`.
 */
static void asked_again_it_keeps_its_place(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_cap(fake_relay(&st.policy, "rental"), "1/h", 1, 3600, false);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
    steps[0].within_sec = 5 * 3600;
    struct hky_plan *plan = function_plan(steps, 2);
    st.plan = hky_plan_ref(plan);
    struct hky_message *first = send(&st, plan), *second = send(&st, plan);
    struct hky_job *job;
    take(&st, "rental", &job);
    turns(&st);
    for (int i = 0; i < 3; i++) {
        send(&st, plan);
        pass(&st, 20 * MINUTE);
        if (take(&st, "rental", &job) == HKY_TAKE_JOB) {
            assert_ptr_equal(job->message, i == 0 ? first : second);
            struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
            hky_schedule_result(job, 0, &o);
            hky_schedule_done(&job, true);
        }
        turns(&st);
    }
    pass(&st, 20 * MINUTE + 1);
    assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
    assert_ptr_equal(job->message, second); /* not one that came an hour later */
    assert_int_equal(job->recipients[0]->step_at_ms, START);
    hky_schedule_give_back(&job);
    second->recipients[0].expire_at_ms = START + 60 * DAY;
    pass(&st, 50 * DAY); /* longer than the minutes count: it goes all the same */
    turns(&st);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB); /* `within` is over */
    assert_ptr_equal(job->message, second);
    hky_schedule_give_back(&job);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* Given back by a connection that ended, it waits at a cap that is used up: `within` holds as before. */
static void within_holds_for_one_that_was_given_back(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_cap(fake_relay(&st.policy, "rental"), "1/day", 1, 86400, false);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
    steps[0].within_sec = 2 * 3600;
    struct hky_plan *plan = fake_plan(steps, 2);
    struct hky_message *m = send(&st, plan);
    struct hky_job *job;
    take(&st, "rental", &job);
    turns(&st);
    assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
    hky_schedule_done(&job, true); /* its slot is gone, without an answer */
    turns(&st);
    for (int i = 0; i < 7; i++)
        pass(&st, 20 * MINUTE);
    turns(&st);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    assert_ptr_equal(job->message, m);
    hky_schedule_give_back(&job);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* It comes to a lane that lets nobody go when the time for its step is over: the next step gets it soon, and not only
 * when it expires. Time on hold does not count: a step begins anew with the release, but not with a start. */
static void a_step_whose_time_is_over_is_left_soon(void **state)
{
    enum how { HELD, DOWN, NEVER_TRIED, OF_FUNCTION };
    static const struct {
        const char *name;
        enum how how;
        uint32_t within_sec;
        int64_t away_ms, left_after_ms; /* since it was there again */
    } CASES[] = {
        {"held beyond within", HELD, 2 * 3600, 3 * HOUR, 2 * HOUR},
        {"held beyond half of its time", HELD, HKY_UNSET_SEC, 30 * HOUR, 9 * HOUR},
        {"the engine was down when within ended", DOWN, 2 * 3600, 3 * HOUR, MINUTE},
        {"the engine was down when half of its time was over", DOWN, HKY_UNSET_SEC, 30 * HOUR, MINUTE},
        {"the engine was down, and within goes on", DOWN, 5 * 3600, 3 * HOUR, 2 * HOUR},
        {"never tried: within goes on", NEVER_TRIED, 2 * 3600, 110 * MINUTE, 10 * MINUTE},
        {"never tried, and within is over", NEVER_TRIED, 2 * 3600, 3 * HOUR, MINUTE},
        {"never tried: half of its time goes on", NEVER_TRIED, HKY_UNSET_SEC, 20 * HOUR, 4 * HOUR},
        {"never tried, and the clock was set back", NEVER_TRIED, 2 * 3600, -HOUR, 2 * HOUR},
        {"never tried, and its function is asked again", OF_FUNCTION, 2 * 3600, 110 * MINUTE, 10 * MINUTE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        stage_init(&st);
        fake_relay(&st.policy, "rental");
        fake_relay(&st.policy, "ses");
        stage_open(&st);
        struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
        steps[0].within_sec = CASES[i].within_sec;
        struct hky_message *m = fake_message(77, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &m->recipients[0];
        r->plan = CASES[i].how == OF_FUNCTION ? function_plan(steps, 2) : fake_plan(steps, 2);
        st.plan = hky_plan_ref(r->plan);
        r->policy = (uint32_t)st.policy.policy.hash;
        r->expire_at_ms = START + 48 * HOUR;
        r->state = CASES[i].how == HELD ? HKY_RCPT_HELD : HKY_RCPT_QUEUED;
        if (CASES[i].how <= DOWN) {
            r->step_at_ms = START;
            r->attempts = r->step_attempts = 1;
        }
        st.r.clock.stopped_at_ms += CASES[i].away_ms;
        hky_schedule_restore_message(st.r.schedule, m);
        hky_rehearsal_start(&st.r);
        if (CASES[i].how == HELD)
            assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 1);
        turns(&st);
        st.log[0] = '\0';
        print_message("%s\n", CASES[i].name);
        assert_int_equal(st.n_decides, CASES[i].how == OF_FUNCTION);
        pass(&st, CASES[i].left_after_ms - 1);
        expect(&st, ""); /* until then a slot may come */
        pass(&st, 1);
        expect(&st, "routed:rental");
        stage_end(&st);
    }
}

static void a_very_old_one_is_not_asked_for_ever(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    st.policy.policy.engine.expire_sec = 90 * 86400;
    fake_relay(&st.policy, "own");
    stage_start(&st);
    struct hky_plan *plan = function_plan((struct hky_step[]){fake_step("own")}, 1);
    st.plan = hky_plan_ref(plan);
    hky_schedule_pause(st.r.schedule, "own", 0, &e);
    send(&st, plan);
    pass(&st, 50 * DAY);
    hky_schedule_resume(st.r.schedule, "own", &e);
    turns(&st);
    answer(&st, "own", HKY_CLASS_OK, false, 0);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- the wall clock is set ---- */

static void set_wall_clock(struct stage *st, int64_t by_ms)
{
    st->r.clock.wall_shift_ms += by_ms;
    pass(st, 0);
}

/* Nobody waits longer, or shorter, than was set, whatever the wall clock does meanwhile. */
static void a_wait_is_as_long_as_it_was_set(void **state)
{
    static const struct {
        const char *name;
        enum hky_class class; /* OK: the next one waits for the cap */
        uint32_t retry_after;
        int64_t waits_ms;
    } WAITS[] = {
        {"deferred", HKY_CLASS_SYSTEM_TEMP, 0, 5 * MINUTE},
        {"the account is paused", HKY_CLASS_QUOTA_EXHAUSTED, 7200, 2 * HOUR},
        {"slowed down", HKY_CLASS_RATE_LIMITED, 600, 10 * MINUTE},
        {"the cap is used up", HKY_CLASS_OK, 0, HOUR + 1},
        {"an operator's pause", HKY_CLASS_SUPPRESSED, 0, 3 * HOUR},
        {"parked", HKY_CLASS_EXPIRED, 0, 5 * MINUTE},
    };
    static const int64_t SET_MS[] = {-6 * HOUR, 6 * HOUR, -DAY, 15000};
    (void)state;
    for (size_t i = 0; i < sizeof WAITS / sizeof *WAITS; i++) {
        for (size_t k = 0; k < sizeof SET_MS / sizeof *SET_MS; k++) {
            struct stage st;
            struct hky_message *m = NULL;
            struct hky_job *job;
            struct hky_error e;
            stage_init(&st);
            fake_cap(fake_relay(&st.policy, "rental"), "1/h", 1, 3600, false);
            if (WAITS[i].class != HKY_CLASS_OK)
                st.policy.relays[0].n_caps = 0;
            st.r.clock.wall_shift_ms = 7000000; /* the two clocks have nothing in common */
            stage_start(&st);
            struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("rental")}, 1);
            if (WAITS[i].class == HKY_CLASS_EXPIRED) {
                m = parked(&st, 0);
                pass(&st, 0);
                st.plan = hky_plan_ref(plan);
            } else {
                send(&st, plan);
                if (WAITS[i].class == HKY_CLASS_SUPPRESSED) {
                    assert_int_equal(hky_schedule_pause(st.r.schedule, "rental", 3 * 3600, &e), HKY_OK);
                } else {
                    take(&st, "rental", &job); /* reserves where there is a cap */
                    turns(&st);
                    if (job == NULL)
                        assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
                    struct hky_outcome o = fake_outcome(WAITS[i].class, WAITS[i].class != HKY_CLASS_OK);
                    o.retry_after_sec = WAITS[i].retry_after;
                    o.scope = HKY_SCOPE_RELAY;
                    hky_rehearsal_answer(&st.r, &job, &o);
                    if (WAITS[i].class == HKY_CLASS_OK)
                        send(&st, plan);
                }
            }
            pass(&st, 1000);
            set_wall_clock(&st, SET_MS[k]);
            pass(&st, WAITS[i].waits_ms - 1000 - 500);
            if (take(&st, "rental", &job) == HKY_TAKE_JOB)
                fail_msg("%s, clock set by %lld s: too early", WAITS[i].name, (long long)SET_MS[k] / 1000);
            pass(&st, 500);
            pass(&st, 1); /* a slot that the journal has to reserve */
            if (take(&st, "rental", &job) != HKY_TAKE_JOB) {
                turns(&st);
                if (take(&st, "rental", &job) != HKY_TAKE_JOB)
                    fail_msg("%s, clock set by %lld s: not in time", WAITS[i].name, (long long)SET_MS[k] / 1000);
            }
            hky_schedule_give_back(&job);
            hky_plan_unref(&plan);
            stage_end(&st);
            hky_message_unref(&m);
        }
    }
}

/* `within` is a span of time, `expire` and the message's deadline are dates. */
static void spans_are_kept_and_dates_hold(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "rental");
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
    steps[0].within_sec = 2 * 3600;
    struct hky_plan *plan = fake_plan(steps, 2);
    assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
    assert_int_equal(hky_schedule_pause(st.r.schedule, "rental", 0, &e), HKY_OK);
    struct hky_message *m;
    for (int i = 0; i < 5; i++) {
        struct hky_message *other = send(&st, plan);
        other->recipients[0].expire_at_ms += 30 * DAY;
    }
    m = send(&st, plan);
    int64_t expire_ms = m->recipients[0].expire_at_ms = m->recipients[0].expire_at_ms - HOUR;
    pass(&st, HOUR);
    set_wall_clock(&st, -6 * HOUR);
    assert_int_equal(m->recipients[0].step_at_ms, START - 6 * HOUR); /* an hour ago, still */
    assert_int_equal(m->recipients[0].expire_at_ms, expire_ms);
    assert_int_equal(hky_schedule_resume(st.r.schedule, "ses", &e), HKY_OK);
    pass(&st, HOUR + 1000);
    assert_int_equal(m->recipients[0].step, 1);
    assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
    st.log[0] = '\0';
    set_wall_clock(&st, expire_ms - hky_clock_now_ms(&st.r.clock) - MINUTE);
    expect(&st, "");
    pass(&st, MINUTE);
    expect(&st, "expired");
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* A start under a clock that is a day behind that of the run before. */
static void a_restart_waits_no_longer_than_was_set(void **state)
{
    static const struct {
        const char *name;
        int64_t attempt_ms, next_ms, waits_ms; /* from START */
    } CASES[] = {
        {"a right clock: what is left of it", -4 * MINUTE, MINUTE, MINUTE},
        {"a day earlier: what was set", DAY, DAY + 5 * MINUTE, 5 * MINUTE},
        {"an hour earlier", HOUR, 2 * HOUR, HOUR},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_job *job;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_open(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        struct hky_message *m =
            fake_message(7, START + CASES[i].attempt_ms, "", 1, (const char *const[]){"a@x.example"});
        struct hky_outcome o = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
        struct hky_recipient *r = &m->recipients[0];
        r->plan = hky_plan_ref(plan);
        r->policy = 11;
        r->attempts = r->step_attempts = 1;
        r->step_at_ms = START + CASES[i].attempt_ms;
        r->next_at_ms = START + CASES[i].next_ms;
        r->expire_at_ms = START + 3 * DAY;
        hky_recipient_remember(r, START + CASES[i].attempt_ms, "ses", &o);
        hky_schedule_restore_message(st.r.schedule, m);
        hky_rehearsal_start(&st.r);
        assert_true(r->step_at_ms <= START);
        pass(&st, CASES[i].waits_ms - 1);
        if (take(&st, "ses", &job) == HKY_TAKE_JOB)
            fail_msg("%s: too early", CASES[i].name);
        pass(&st, 1);
        if (take(&st, "ses", &job) != HKY_TAKE_JOB)
            fail_msg("%s: not in time", CASES[i].name);
        hky_schedule_give_back(&job);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* The same for one that is parked: it was parked later than it entered its step and was tried. */
static void a_parked_one_waits_no_longer_than_was_set(void **state)
{
    static const struct {
        const char *name;
        int64_t attempt_ms, parked_ms, next_ms, waits_ms; /* from START; attempt 0: none */
        unsigned times;
    } CASES[] = {
        {"a right clock: what is left of it", -HOUR, -4 * MINUTE, MINUTE, MINUTE, 1},
        {"parked ahead of the clock, tried before", -HOUR, DAY, DAY + 5 * MINUTE, 5 * MINUTE, 1},
        {"an hour, for the fourth time", -2 * HOUR, 3 * HOUR, 4 * HOUR, HOUR, 4},
        {"tried ahead of the clock, too", HOUR, DAY, DAY + 15 * MINUTE, 15 * MINUTE, 2},
        {"never tried", 0, DAY, DAY + 5 * MINUTE, 5 * MINUTE, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_open(&st);
        struct hky_message *m = fake_message(7, START - 3 * HOUR, "", 1, (const char *const[]){"a@x.example"});
        struct hky_outcome o = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
        struct hky_recipient *r = &m->recipients[0];
        r->state = HKY_RCPT_PARKED;
        r->parked_at_ms = START + CASES[i].parked_ms;
        r->parked_times = (uint8_t)CASES[i].times;
        r->next_at_ms = START + CASES[i].next_ms;
        r->expire_at_ms = START + 3 * DAY;
        if (CASES[i].attempt_ms != 0) {
            r->attempts = 1;
            r->step_at_ms = START + CASES[i].attempt_ms;
            hky_recipient_remember(r, START + CASES[i].attempt_ms, "ses", &o);
        }
        hky_schedule_restore_message(st.r.schedule, m);
        hky_rehearsal_start(&st.r);
        pass(&st, CASES[i].waits_ms - 1);
        if (st.n_decides != 0)
            fail_msg("%s: too early", CASES[i].name);
        pass(&st, 1);
        if (st.n_decides != 1)
            fail_msg("%s: not in time", CASES[i].name);
        stage_end(&st);
    }
}

/* `wait` without a cap: nobody takes it, because all connections are busy. 0 is a wait, too, and no lack of one. */
static void it_leaves_a_busy_relay_after_its_wait(void **state)
{
    static const struct {
        uint32_t wait_sec;
        int64_t stays_ms, leaves_ms;
    } CASES[] = {{0, 0, 1000}, {1, 0, 1000}, {60, 59999, MINUTE}, {HKY_UNSET_SEC, 23 * HOUR, 24 * HOUR}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
        stage_init(&st);
        fake_relay(&st.policy, "rental");
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        steps[0].wait_sec = CASES[i].wait_sec;
        struct hky_plan *plan = fake_plan(steps, 2);
        struct hky_message *m = send(&st, plan);
        pass(&st, CASES[i].stays_ms);
        assert_int_equal(m->recipients[0].step, 0); /* a connection that is free has time to take it */
        pass(&st, CASES[i].leaves_ms - CASES[i].stays_ms);
        if (m->recipients[0].step != 1)
            fail_msg("wait %u: it still waits", CASES[i].wait_sec);
        answer(&st, "ses", HKY_CLASS_OK, false, 0);
        expect(&st, "routed:rental delivered:ses");
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void a_heap_is_put_in_order_again(void **state)
{
    static const int64_t AT[] = {7, 3, 9, 1, 8, 2, 6, 5, 4, 0};
    struct hky_heap_node nodes[10] = {0};
    struct hky_heap h;
    (void)state;
    hky_heap_init(&h);
    for (int i = 0; i < 10; i++)
        hky_heap_set(&h, &nodes[i], i);
    for (int i = 0; i < 10; i++)
        nodes[i].at = AT[i];
    hky_heap_restore(&h);
    for (int64_t at = 0; at < 10; at++) {
        struct hky_heap_node *first = hky_heap_first(&h);
        assert_int_equal(first->at, at);
        hky_heap_remove(&h, first);
    }
    hky_heap_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parked_for_so_long_is_bounced),
        cmocka_unit_test(expire_stands_still_while_parked),
        cmocka_unit_test(a_deadline_does_not_stand_still),
        cmocka_unit_test(a_deadline_ends_parking),
        cmocka_unit_test(a_deadline_counts_for_held_mail),
        cmocka_unit_test(no_attempt_follows_the_sixtieth),
        cmocka_unit_test(operators_do_not_move_a_deadline),
        cmocka_unit_test(what_may_have_been_delivered_is_not_released_to_its_end),
        cmocka_unit_test(a_function_is_asked_again_after_a_quarter_of_an_hour),
        cmocka_unit_test(asked_again_it_keeps_its_place),
        cmocka_unit_test(within_holds_for_one_that_was_given_back),
        cmocka_unit_test(a_step_whose_time_is_over_is_left_soon),
        cmocka_unit_test(a_very_old_one_is_not_asked_for_ever),
        cmocka_unit_test(a_wait_is_as_long_as_it_was_set),
        cmocka_unit_test(spans_are_kept_and_dates_hold),
        cmocka_unit_test(a_restart_waits_no_longer_than_was_set),
        cmocka_unit_test(a_parked_one_waits_no_longer_than_was_set),
        cmocka_unit_test(it_leaves_a_busy_relay_after_its_wait),
        cmocka_unit_test(a_heap_is_put_in_order_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
