/* What the journal has after a kill, and what the next run makes of it. */
#include "unit/schedule/stage.h"

#include "journal/backend.h"

/* The journal of a run. It keeps the last record of the only recipient. */
static struct {
    struct journal_backend backend;
    const struct journal_backend *inner;
    struct hky_buf state; /* empty: nothing was written */
    unsigned n;
} kept;

static void keep(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    hky_buf_clear(&kept.state);
    hky_recipient_encode_state(r, &kept.state);
    kept.n++;
    kept.inner->attempt(j, r, c);
}

static void watch(struct stage *st)
{
    struct journal_head *head = (struct journal_head *)(void *)st->r.journal;
    kept.inner = head->backend;
    kept.backend = *kept.inner;
    kept.backend.attempt = keep;
    head->backend = &kept.backend;
    kept.n = 0;
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
        m = start_again(&st, CASES[i].how == RELOADED ? 12 : 11, plan, 3 * HOUR + 90 * MINUTE);
        pass(&st, 30 * MINUTE - 1);
        expect(&st, "");
        pass(&st, 1);
        expect(&st, "routed:rental");
        hky_plan_unref(&plan);
        hky_plan_unref(&other);
        stage_end(&st);
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
    };
    return cmocka_run_group_tests(tests, begin, end);
}
