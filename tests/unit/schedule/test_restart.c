/* What the journal has after a kill, and what the next run makes of it. */
#include "unit/schedule/stage.h"

#include "journal/backend.h"

/* The journal of a run. It keeps the last record of the only recipient. */
static struct {
    struct journal_backend backend;
    const struct journal_backend *inner;
    struct hky_buf state; /* empty: nothing was written */
    unsigned n;
    uint8_t doing;  /* the state in the record; decoding makes QUEUED of SENDING */
    bool is_killed; /* what the run writes from now on comes too late */
} kept;

static void write_down(const struct hky_recipient *r)
{
    if (kept.is_killed)
        return;
    hky_buf_clear(&kept.state);
    hky_recipient_encode_state(r, &kept.state);
    kept.n++;
    kept.doing = r->state;
}

static void keep(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    write_down(r);
    kept.inner->attempt(j, r, c);
}

static void keep_end(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                     struct hky_commit *c)
{
    write_down(r);
    kept.inner->finish(j, r, notice, c);
}

static void watch(struct stage *st)
{
    struct journal_head *head = (struct journal_head *)(void *)st->r.journal;
    kept.inner = head->backend;
    kept.backend = *kept.inner;
    kept.backend.attempt = keep;
    kept.backend.finish = keep_end;
    head->backend = &kept.backend;
    kept.n = 0;
    kept.is_killed = false;
    hky_buf_clear(&kept.state);
}

static struct hky_plan *plan_of(void *ctx, uint64_t hash)
{
    struct hky_plan *plan = ctx;
    return plan->hash == hash ? plan : NULL;
}

/* A run that finds the message as the last record says, `away_ms` after the start of the first run. */
static struct hky_message *start_again(struct stage *st, uint64_t policy, struct hky_plan *plan, int64_t away_ms)
{
    struct hky_error e;
    stage_init(st);
    st->policy.policy.hash = policy;
    fake_relay(&st->policy, "rental");
    fake_relay(&st->policy, "ses");
    st->r.clock.stopped_at_ms += away_ms;
    st->plan = hky_plan_ref(plan);
    stage_open(st);
    struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
    assert_int_equal(hky_recipient_decode_state(&m->recipients[0], hky_buf_str(&kept.state), plan_of, plan, &e),
                     HKY_OK);
    watch(st);
    hky_schedule_restore_message(st->r.schedule, m);
    hky_rehearsal_start(&st->r);
    return m;
}

/* Decided about, or released, hours after it was accepted: the time of its first step began then, also for the next
 * run. */
static void a_step_that_began_late_goes_on(void **state)
{
    enum how { UNPARKED, RELEASED, RELOADED };
    static const struct {
        const char *name;
        enum how how;
    } CASES[] = {{"unparked", UNPARKED}, {"accepted to be held, and released", RELEASED}, {"reloaded", RELOADED}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        stage_init(&st);
        fake_policy_init(&st.second, 12);
        struct fake_policy *policies[] = {&st.policy, &st.second};
        for (int k = 0; k < 2; k++) {
            fake_relay(policies[k], "rental");
            fake_relay(policies[k], "ses");
        }
        stage_start(&st);
        watch(&st);
        struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
        steps[0].within_sec = 2 * 3600;
        struct hky_plan *plan = fake_plan(steps, 2), *other = fake_plan(&steps[1], 1);
        struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &m->recipients[0];
        r->state = CASES[i].how == UNPARKED   ? HKY_RCPT_PARKED
                   : CASES[i].how == RELEASED ? HKY_RCPT_HELD
                                              : HKY_RCPT_QUEUED;
        r->parked_at_ms = CASES[i].how == UNPARKED ? START : 0;
        r->plan = CASES[i].how == RELEASED ? hky_plan_ref(plan) : CASES[i].how == RELOADED ? hky_plan_ref(other) : NULL;
        hky_schedule_enqueue(st.r.schedule, 0, m);
        pass(&st, 3 * HOUR);
        st.plan = hky_plan_ref(plan);
        if (CASES[i].how == RELOADED)
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        else
            ask(&st, CASES[i].how == RELEASED ? HKY_QUEUE_RELEASE : HKY_QUEUE_RETRY, (struct hky_selection){0}, NULL,
                0);
        turns(&st);
        assert_int_equal(r->step_at_ms, START + 3 * HOUR);
        unsigned n = kept.n;
        pass(&st, 90 * MINUTE);
        assert_int_equal(kept.n, n); /* the killed run wrote no more */
        stage_end(&st);

        print_message("%s\n", CASES[i].name);
        start_again(&st, CASES[i].how == RELOADED ? 12 : 11, plan, 3 * HOUR + 90 * MINUTE);
        pass(&st, 30 * MINUTE - 1);
        expect(&st, "");
        pass(&st, 1);
        expect(&st, "routed:rental");
        hky_plan_unref(&plan);
        hky_plan_unref(&other);
        stage_end(&st);
    }
}

/* An operator's wish for what is being sent, which was answered as kept, is kept over a kill; what the attempt came to
 * in the meantime counts for more. */
static void a_wish_for_what_is_being_sent_survives_a_kill(void **state)
{
    enum end { KILLED, GIVEN_BACK, DEFERRED, DELIVERED };
    static const char HELD_THEN[] = "may have been delivered; an operator held it while it was being sent";
    static const char CANCELLED_THEN[] = "may have been delivered; an operator cancelled it while it was being sent";
    static const struct {
        const char *name;
        enum hky_queue_action wishes[2]; /* LIST: none */
        enum end end;
        enum hky_recipient_state state;
        const char *reason;
    } CASES[] = {
        {"held, killed", {HKY_QUEUE_HOLD}, KILLED, HKY_RCPT_HELD, HELD_THEN},
        {"cancelled, killed", {HKY_QUEUE_CANCEL}, KILLED, HKY_RCPT_HELD, CANCELLED_THEN},
        {"held, cancelled, killed", {HKY_QUEUE_HOLD, HKY_QUEUE_CANCEL}, KILLED, HKY_RCPT_HELD, CANCELLED_THEN},
        {"held, released, killed", {HKY_QUEUE_HOLD, HKY_QUEUE_RELEASE}, KILLED, HKY_RCPT_QUEUED, NULL},
        {"held, released, back", {HKY_QUEUE_HOLD, HKY_QUEUE_RELEASE}, GIVEN_BACK, HKY_RCPT_QUEUED, NULL},
        {"held, given back", {HKY_QUEUE_HOLD}, GIVEN_BACK, HKY_RCPT_HELD, "by an operator"},
        {"held, deferred", {HKY_QUEUE_HOLD}, DEFERRED, HKY_RCPT_HELD, "by an operator"},
        {"held, released, deferred", {HKY_QUEUE_HOLD, HKY_QUEUE_RELEASE}, DEFERRED, HKY_RCPT_QUEUED, NULL},
        {"held, delivered", {HKY_QUEUE_HOLD}, DELIVERED, HKY_RCPT_DELIVERED, NULL},
        {"cancelled, given back", {HKY_QUEUE_CANCEL}, GIVEN_BACK, HKY_RCPT_CANCELLED, "by an operator"},
        {"cancelled, deferred", {HKY_QUEUE_CANCEL}, DEFERRED, HKY_RCPT_CANCELLED, "by an operator"},
        {"cancelled, delivered", {HKY_QUEUE_CANCEL}, DELIVERED, HKY_RCPT_DELIVERED, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct hky_job *job;
        struct hky_error e;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        watch(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        struct hky_message *m = send(&st, plan);
        print_message("%s\n", CASES[i].name);
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        for (int k = 0; k < 2 && CASES[i].wishes[k] != HKY_QUEUE_LIST; k++) {
            unsigned n = kept.n;
            assert_int_equal(ask(&st, CASES[i].wishes[k], (struct hky_selection){0}, NULL, 0), 1);
            assert_int_equal(kept.n, n + 1); /* before it was answered */
            assert_int_equal(m->recipients[0].state, HKY_RCPT_SENDING);
        }
        if (CASES[i].end == GIVEN_BACK) {
            hky_schedule_give_back(&job);
        } else if (CASES[i].end != KILLED) {
            struct hky_outcome o = fake_outcome(CASES[i].end == DELIVERED ? HKY_CLASS_OK : HKY_CLASS_SYSTEM_TEMP,
                                                CASES[i].end == DEFERRED);
            hky_rehearsal_answer(&st.r, &job, &o);
        }
        turns(&st);
        kept.is_killed = true;
        if (job != NULL)
            hky_schedule_give_back(&job);
        stage_end(&st);

        struct hky_message *later = fake_message(1, START, "", 1, (const char *const[]){"a@example.com"});
        struct hky_recipient *r = &later->recipients[0];
        assert_int_equal(hky_recipient_decode_state(r, hky_buf_str(&kept.state), plan_of, plan, &e), HKY_OK);
        assert_int_equal(r->state, CASES[i].state);
        assert_int_equal(kept.doing, CASES[i].state);
        assert_int_equal(r->step_at_ms, START);
        if (CASES[i].reason != NULL)
            assert_memory_equal(r->reason, CASES[i].reason, strlen(CASES[i].reason));
        else
            assert_null(r->reason);
        hky_message_unref(&later);
        if (CASES[i].end == KILLED) { /* and it goes on from there */
            start_again(&st, 11, plan, MINUTE);
            assert_int_equal(take(&st, "ses", &job), CASES[i].state == HKY_RCPT_HELD ? HKY_TAKE_EMPTY : HKY_TAKE_JOB);
            if (job != NULL)
                hky_schedule_give_back(&job);
            if (CASES[i].state == HKY_RCPT_HELD) {
                assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 1);
                answer(&st, "ses", HKY_CLASS_OK, false, 0);
            }
            stage_end(&st);
        }
        hky_plan_unref(&plan);
    }
}

static int begin(void **state)
{
    (void)state;
    hky_buf_init(&kept.state, 65536);
    return 0;
}

static int end(void **state)
{
    (void)state;
    hky_buf_fini(&kept.state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_that_began_late_goes_on),
        cmocka_unit_test(a_wish_for_what_is_being_sent_survives_a_kill),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
