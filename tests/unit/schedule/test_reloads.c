/* What a reload of the policy does to mail that waits. */
#include "unit/schedule/stage.h"

/* ---- a new policy ---- */

static void a_reload_plans_anew_and_passes_over_what_was_left(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own");
    fake_relay(&st.policy, "ses");
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "ses");
    fake_relay(&st.second, "own");
    fake_relay(&st.second, "rental");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("own"), fake_step("ses")};
    struct hky_plan *plan = fake_plan(steps, 2);
    struct hky_message *m = send(&st, plan);
    answer(&st, "own", HKY_CLASS_BLOCKED_IP, false, 0);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    expect(&st, "routed:own deferred:ses");
    struct hky_step after[3] = {fake_step("own"), fake_step("rental"), fake_step("ses")};
    st.plan = fake_plan(after, 3);
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    turns(&st);
    assert_int_equal(st.n_decides, 0); /* at its next attempt, not before */
    pass(&st, 5 * MINUTE);
    assert_int_equal(st.n_decides, 1);
    assert_int_equal(m->recipients[0].plan->n_steps, 2);
    answer(&st, "rental", HKY_CLASS_TLS, false, 0);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "routed:rental relay_paused:rental delivered:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

static void a_second_reload_still_knows(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own");
    fake_relay(&st.policy, "ses");
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "own");
    fake_relay(&st.second, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("own"), fake_step("ses")};
    st.plan = fake_plan(steps, 2);
    send(&st, st.plan);
    answer(&st, "own", HKY_CLASS_BLOCKED_IP, false, 0);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    pass(&st, 5 * MINUTE);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    hky_schedule_set_policy(st.r.schedule, &st.policy.policy);
    pass(&st, 15 * MINUTE);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "routed:own deferred:ses deferred:ses delivered:ses");
    stage_end(&st);
}

static void a_second_reload_knows_long_names(void **state)
{
    static const char LONG[] =
        "経路経路経路経路経路経路経路経路経路経路経路"; /* 66 octets; others have the first 64, too */
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, LONG);
    fake_relay(&st.policy, "ses");
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, LONG);
    fake_relay(&st.second, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step(LONG), fake_step("ses")};
    st.plan = fake_plan(steps, 2);
    send(&st, st.plan);
    answer(&st, LONG, HKY_CLASS_BLOCKED_IP, false, 0);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    pass(&st, 5 * MINUTE);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    hky_schedule_set_policy(st.r.schedule, &st.policy.policy);
    pass(&st, 15 * MINUTE);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "routed:経路経路経路経路経路経路経路経路経路経路経路 deferred:ses deferred:ses delivered:ses");
    stage_end(&st);
}

static void a_reload_moves_waiting_recipients_and_keeps_the_rest_when_nothing_is_left(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own");
    fake_relay(&st.policy, "ses");
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "own");
    fake_relay(&st.second, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("own"), fake_step("ses")};
    struct hky_plan *plan = fake_plan(steps, 2), *alone = fake_plan(steps + 1, 1);
    send(&st, plan);
    answer(&st, "own", HKY_CLASS_BLOCKED_IP, false, 0); /* waits for ses now */
    send(&st, alone);
    st.plan = fake_plan(steps, 1); /* only own, which the first one has left */
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    turns(&st);
    assert_true(st.r.n_lanes_ended >= 1);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    answer(&st, "own", HKY_CLASS_OK, false, 0);
    expect(&st, "routed:own delivered:ses delivered:own");
    hky_plan_unref(&plan);
    hky_plan_unref(&alone);
    stage_end(&st);
}

static void a_relay_that_is_gone_parks(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gone")}, 1);
    send(&st, plan);
    expect(&st, "parked");
    pass(&st, 5 * MINUTE);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "unparked delivered:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_plans_anew_and_passes_over_what_was_left),
        cmocka_unit_test(a_second_reload_still_knows),
        cmocka_unit_test(a_second_reload_knows_long_names),
        cmocka_unit_test(a_reload_moves_waiting_recipients_and_keeps_the_rest_when_nothing_is_left),
        cmocka_unit_test(a_relay_that_is_gone_parks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
