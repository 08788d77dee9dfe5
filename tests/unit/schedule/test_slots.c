/* A job that waits for a slot of a cap, to try the next host of its recipients. */
#include "unit/schedule/stage.h"

/* MAIL was written at one host and is to be written at another: the first slot is free again one window later, like
 * every other one, and a job that finds none waits for it. */
static void a_slot_taken_again_is_free_after_its_window(void **state)
{
    static const struct {
        const char *name;
        uint32_t n;
        enum hky_take again;
    } CASES[] = {{"there is another slot", 2, HKY_TAKE_JOB}, {"there is none", 1, HKY_TAKE_WAIT}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct hky_job *job;
        char relays[400];
        stage_init(&st);
        struct hky_relay *rental = fake_relay(&st.policy, "rental");
        fake_cap(rental, "cap", CASES[i].n, 30, false);
        rental->caps[0].is_spread = false;
        stage_start(&st);
        struct hky_step step = fake_step("rental");
        struct hky_plan *plan = fake_plan(&step, 1);
        send(&st, plan);
        take(&st, "rental", &job);
        turns(&st);
        assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT); /* for the journal, in both cases */
        turns(&st);
        assert_int_equal(hky_schedule_take_again(job), CASES[i].again);
        pass(&st, 31000);
        if (CASES[i].again == HKY_TAKE_WAIT)
            assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_JOB);
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_schedule_result(job, 0, &o);
        hky_schedule_done(&job, true);
        turns(&st);
        pass(&st, 31000);
        relays_text(&st, relays, sizeof relays);
        if (strstr(relays, "caps cap 0 of") == NULL)
            fail_msg("%s: a window later all slots are free: %s", CASES[i].name, relays);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static bool is_woken(const struct stage *st, const struct hky_lane *lane)
{
    for (unsigned i = 0; i < st->r.n_woken; i++)
        if (st->r.woken[i] == lane)
            return true;
    return false;
}

static void forget_wake(struct stage *st, const struct hky_lane *lane)
{
    unsigned n = 0;
    for (unsigned i = 0; i < st->r.n_woken; i++)
        if (st->r.woken[i] != lane)
            st->r.woken[n++] = st->r.woken[i];
    st->r.n_woken = n;
}

/* A job of two recipients whose MAIL was written, by a relay whose cap allows n messages in 30 s; st->second is the
 * policy of a reload. */
static struct hky_job *job_at_a_cap(struct stage *st, uint32_t n, struct hky_plan **plan, struct hky_message **m)
{
    struct hky_job *job;
    stage_init(st);
    fake_policy_init(&st->second, 12);
    struct fake_policy *policies[] = {&st->policy, &st->second};
    for (int i = 0; i < 2; i++) {
        struct hky_relay *rental = fake_relay(policies[i], "rental");
        fake_cap(rental, "cap", n, 30, false);
        rental->caps[0].is_spread = false;
    }
    stage_start(st);
    struct hky_step step = fake_step("rental");
    *plan = fake_plan(&step, 1);
    st->plan = hky_plan_ref(*plan);
    *m = send_to(st, *plan, "", 2, (const char *const[]){"a@example.com", "b@example.com"});
    take(st, "rental", &job);
    turns(st);
    assert_int_equal(take(st, "rental", &job), HKY_TAKE_JOB);
    return job;
}

/* Time passes until the job has its answer, which is asked for only when its lane is woken, as deliver does. */
static enum hky_take await_slot(struct stage *st, struct hky_job *job, int64_t *waited_ms)
{
    enum hky_take again = hky_schedule_take_again(job);
    for (*waited_ms = 0; again == HKY_TAKE_WAIT && *waited_ms < 5 * MINUTE; *waited_ms += 1000) {
        forget_wake(st, job->lane);
        pass(st, 1000);
        if (is_woken(st, job->lane))
            again = hky_schedule_take_again(job);
    }
    return again;
}

/* Whoever was told to wait for a slot is woken, whether its lane has other mail or not, and was retired or not. */
static void a_job_that_waits_for_a_slot_is_woken(void **state)
{
    static const char *const RELOADS[] = {"no reload", "reloaded before", "reloaded meanwhile"};
    (void)state;
    for (int i = 0; i < 9; i++) {
        int n_others = i % 3 < 2 ? i % 3 : 700; /* so many leave a retired lane in portions */
        struct stage st;
        struct hky_plan *plan;
        struct hky_message *m;
        struct hky_job *job = job_at_a_cap(&st, 1, &plan, &m);
        int64_t waited_ms;
        for (int k = 0; k < n_others; k++)
            send(&st, plan);
        if (i / 3 == 1)
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT);
        if (i / 3 == 2)
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        enum hky_take again = await_slot(&st, job, &waited_ms);
        if (again != HKY_TAKE_JOB || waited_ms < 29000 || waited_ms > 32000)
            fail_msg("%s, %d others: %d after %lld ms", RELOADS[i / 3], n_others, (int)again, (long long)waited_ms);
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_rehearsal_answer(&st.r, &job, &o);
        pass(&st, 31000);
        if (n_others > 0)
            answer(&st, "rental", HKY_CLASS_OK, false, 0);
        assert_int_equal(take(&st, "rental", &job), n_others > 1 ? HKY_TAKE_WAIT : HKY_TAKE_EMPTY);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* There is a slot, which is not on disk yet. */
static void a_job_that_waits_for_the_journal_is_woken(void **state)
{
    (void)state;
    for (int is_reloaded = 0; is_reloaded < 2; is_reloaded++) {
        struct stage st;
        struct hky_plan *plan;
        struct hky_message *m;
        struct hky_job *job = job_at_a_cap(&st, 2, &plan, &m);
        st.r.n_woken = 0;
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT);
        if (is_reloaded)
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        assert_true(is_woken(&st, job->lane));
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_JOB);
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_rehearsal_answer(&st.r, &job, &o);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static bool reaches_nobody(const struct hky_policy *p, const struct hky_recipient *r)
{
    (void)p, (void)r;
    return false;
}

/* A job that waits for a slot ends instead when one of its recipients has expired, or an operator wants it to. */
static void a_wait_for_a_slot_ends_with_its_recipients(void **state)
{
    static const struct {
        const char *name;
        enum hky_queue_action action;
        int64_t expires_in_ms, wakes_in_ms;
        const char *log;
        bool is_unreached;
    } CASES[] = {
        {"cancelled", HKY_QUEUE_CANCEL, 0, 0, "cancelled:rental deferred:rental", false},
        {"held", HKY_QUEUE_HOLD, 0, 0, "held:rental deferred:rental", false},
        {"expired", HKY_QUEUE_LIST, 10000, 11000, "deferred:rental deferred:rental", false},
        {"engine.only_to names nobody", HKY_QUEUE_LIST, 0, 31000, "deferred:rental deferred:rental", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_plan *plan;
        struct hky_message *m;
        struct hky_job *job = job_at_a_cap(&st, 1, &plan, &m);
        if (CASES[i].expires_in_ms > 0)
            m->recipients[0].expire_at_ms = st.r.clock.stopped_at_ms + CASES[i].expires_in_ms;
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT);
        turns(&st);
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT);
        forget_wake(&st, job->lane);
        st.log[0] = '\0';
        if (CASES[i].action != HKY_QUEUE_LIST)
            assert_int_equal(ask(&st, CASES[i].action, (struct hky_selection){.to = "a@example.com"}, NULL, 0), 1);
        if (CASES[i].is_unreached)
            st.policy.policy.engine.reaches = reaches_nobody;
        pass(&st, CASES[i].wakes_in_ms);
        if (!is_woken(&st, job->lane) || hky_schedule_take_again(job) != HKY_TAKE_EMPTY)
            fail_msg("%s: it still waits", CASES[i].name);
        struct hky_outcome o = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
        hky_rehearsal_answer(&st.r, &job, &o);
        turns(&st);
        expect(&st, CASES[i].log);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* The first of three jobs is told to slow down for an hour; all of them end. */
static void slow_down_by(struct stage *st, struct hky_job *jobs[3], const struct hky_outcome *limited)
{
    struct hky_outcome put_off = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
    for (int k = 0; k < 3; k++)
        hky_rehearsal_answer(&st->r, &jobs[k], k == 0 ? limited : &put_off);
}

/* The other mail of its lane has to wait for much longer. Deliver asks for both whenever the lane is woken. */
static void a_longer_wait_of_other_mail_does_not_keep_a_job(void **state)
{
    (void)state;
    for (int is_known = 0; is_known < 2; is_known++) {
        struct stage st;
        struct hky_plan *plan;
        struct hky_message *m;
        struct hky_job *job = job_at_a_cap(&st, 4, &plan, &m), *other, *slowed[3];
        struct hky_outcome limited = fake_outcome(HKY_CLASS_RATE_LIMITED, true);
        limited.scope = HKY_SCOPE_RELAY;
        limited.retry_after_sec = 2 * 3600;
        for (int k = 0; k < 3; k++) { /* so many that the slowed lane may still take one: then it waits for a time */
            send(&st, plan);
            while (take(&st, "rental", &slowed[k]) != HKY_TAKE_JOB)
                turns(&st);
        }
        send(&st, plan);
        if (is_known)
            slow_down_by(&st, slowed, &limited);
        turns(&st);
        enum hky_take again = hky_schedule_take_again(job);
        assert_int_equal(again, HKY_TAKE_WAIT);
        assert_int_equal(hky_schedule_take(job->lane, &other), HKY_TAKE_WAIT);
        if (!is_known)
            slow_down_by(&st, slowed, &limited);
        int64_t waited_ms = 0;
        unsigned n_wakes = 0;
        for (; again == HKY_TAKE_WAIT && waited_ms < 5 * MINUTE; waited_ms += 1000) {
            pass(&st, 1000);
            if (!is_woken(&st, job->lane))
                continue;
            forget_wake(&st, job->lane);
            n_wakes++;
            if ((again = hky_schedule_take_again(job)) == HKY_TAKE_WAIT)
                assert_int_equal(hky_schedule_take(job->lane, &other), HKY_TAKE_WAIT);
        }
        if (again != HKY_TAKE_JOB || waited_ms < 29000 || waited_ms > 32000)
            fail_msg("known %d: %d after %lld ms", is_known, (int)again, (long long)waited_ms);
        assert_in_range(n_wakes, 1, 4);
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_rehearsal_answer(&st.r, &job, &o);
        n_wakes = 0; /* the mail that is left is looked at no more often than before */
        for (int k = 0; k < 600; k++) {
            struct hky_lane *lane = st.r.n_woken > 0 ? st.r.woken[0] : NULL;
            if (lane != NULL) {
                n_wakes++;
                forget_wake(&st, lane);
                assert_int_equal(hky_schedule_take(lane, &other), HKY_TAKE_WAIT);
            }
            pass(&st, 1000);
        }
        assert_in_range(n_wakes, 1, 4);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* A job that waits for a slot ends when its relay or its account may send nothing any more, and the mail waits. */
static void a_wait_for_a_slot_ends_with_its_relay(void **state)
{
    enum what { NOTHING, PAUSED, RESUMED, PAUSED_BY_POLICY, DRAINED, GONE, ACCOUNT_PAUSED, PROBES };
    static const struct {
        const char *name;
        enum what what;
        enum hky_take again;
    } CASES[] = {
        {"nothing happens", NOTHING, HKY_TAKE_JOB},
        {"paused by an operator", PAUSED, HKY_TAKE_EMPTY},
        {"paused by an operator, and resumed", RESUMED, HKY_TAKE_JOB},
        {"paused by a reload", PAUSED_BY_POLICY, HKY_TAKE_EMPTY},
        {"drained", DRAINED, HKY_TAKE_EMPTY},
        {"gone from the policy", GONE, HKY_TAKE_EMPTY},
        {"another job has paused the account", ACCOUNT_PAUSED, HKY_TAKE_EMPTY},
        {"it is the probe of a breaker", PROBES, HKY_TAKE_JOB},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_plan *plan;
        struct hky_message *m;
        struct hky_error e;
        enum what what = CASES[i].what;
        struct hky_job *other = NULL, *job = job_at_a_cap(&st, what == ACCOUNT_PAUSED ? 2 : 1, &plan, &m);
        struct hky_outcome quota = fake_outcome(HKY_CLASS_QUOTA_EXHAUSTED, true);
        struct hky_outcome broken = fake_outcome(HKY_CLASS_NETWORK, true),
                           put_off = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
        fake_relay(&st.policy, "own");
        if (what == PROBES) {
            for (int k = 0; k < 5; k++) {
                hky_rehearsal_answer(&st.r, &job, &broken);
                send(&st, plan);
                for (int n = 0; n < 30 && take(&st, "rental", &job) != HKY_TAKE_JOB; n++)
                    pass(&st, 10000);
            }
            char relays[400];
            relays_text(&st, relays, sizeof relays);
            if (strstr(relays, "rental: probing") == NULL)
                fail_msg("it is no probe: %s", relays);
        }
        if (what == ACCOUNT_PAUSED) {
            send(&st, plan);
            assert_int_equal(take(&st, "rental", &other), HKY_TAKE_JOB);
        }
        hky_schedule_take_again(job);
        turns(&st);
        assert_int_equal(hky_schedule_take_again(job), HKY_TAKE_WAIT);
        if (what == PAUSED || what == RESUMED)
            assert_int_equal(hky_schedule_pause(st.r.schedule, "rental", 0, &e), HKY_OK);
        if (what == RESUMED)
            assert_int_equal(hky_schedule_resume(st.r.schedule, "rental", &e), HKY_OK);
        if (what == DRAINED)
            assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "rental", "own", 0, &e), HKY_OK);
        if (what == ACCOUNT_PAUSED)
            hky_rehearsal_answer(&st.r, &other, &quota);
        st.second.relays[0].is_paused = what == PAUSED_BY_POLICY;
        if (what == GONE) {
            fake_policy_init(&st.second, 12);
            fake_relay(&st.second, "own");
        }
        if (what == PAUSED_BY_POLICY || what == GONE)
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        pass(&st, 31000);
        const struct hky_recipient *r = job->recipients[0];
        enum hky_take again = hky_schedule_take_again(job);
        if (again != CASES[i].again)
            fail_msg("%s: %d", CASES[i].name, (int)again);
        assert_int_equal(r->state, HKY_RCPT_SENDING);
        hky_rehearsal_answer(&st.r, &job, &put_off);
        assert_int_equal(r->state, HKY_RCPT_QUEUED);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* Others may have every slot before it: it waits a minute in all, then its recipients are deferred. */
static void a_job_does_not_wait_for_a_slot_for_ever(void **state)
{
    (void)state;
    struct stage st;
    struct hky_plan *plan;
    struct hky_message *m;
    struct hky_job *job = job_at_a_cap(&st, 1, &plan, &m);
    struct hky_error e;
    enum hky_take again = hky_schedule_take_again(job);
    int64_t waited_ms = 0;
    assert_int_equal(again, HKY_TAKE_WAIT);
    turns(&st);
    assert_int_equal(hky_schedule_use_up(st.r.schedule, "rental", 45, &e), HKY_OK);
    for (; waited_ms < 10 * MINUTE && (again = hky_schedule_take_again(job)) == HKY_TAKE_WAIT; waited_ms += 20000) {
        assert_int_equal(hky_schedule_use_up(st.r.schedule, "rental", 45, &e), HKY_OK);
        pass(&st, 20000);
    }
    assert_int_equal(again, HKY_TAKE_EMPTY);
    assert_in_range(waited_ms, 1, MINUTE);
    struct hky_outcome o = fake_outcome(HKY_CLASS_SYSTEM_TEMP, true);
    hky_rehearsal_answer(&st.r, &job, &o);
    hky_plan_unref(&plan);
    stage_end(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_taken_again_is_free_after_its_window),
        cmocka_unit_test(a_job_that_waits_for_a_slot_is_woken),
        cmocka_unit_test(a_job_that_waits_for_the_journal_is_woken),
        cmocka_unit_test(a_wait_for_a_slot_ends_with_its_recipients),
        cmocka_unit_test(a_longer_wait_of_other_mail_does_not_keep_a_job),
        cmocka_unit_test(a_wait_for_a_slot_ends_with_its_relay),
        cmocka_unit_test(a_job_does_not_wait_for_a_slot_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
