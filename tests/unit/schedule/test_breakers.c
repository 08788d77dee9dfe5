#include "unit/schedule/stage.h"

static const char *const only_shop[] = {"shop.example", NULL};

#include "schedule/gate.h"

/* ---- breakers and pauses ---- */

static void a_breaker_opens_probes_and_closes(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    for (int i = 0; i < 7; i++)
        send(&st, plan);
    for (int i = 0; i < 5; i++)
        answer(&st, "own", HKY_CLASS_NETWORK, true, 0);
    expect(&st, "deferred:own deferred:own deferred:own deferred:own deferred:own relay_paused:own");
    expect_wait(&st, "own");
    pass(&st, 30000);
    struct hky_job *probe, *other;
    assert_int_equal(take(&st, "own", &probe), HKY_TAKE_JOB);
    assert_int_equal(take(&st, "own", &other), HKY_TAKE_WAIT);
    struct hky_outcome o = fake_outcome(HKY_CLASS_NETWORK, true);
    hky_schedule_result(probe, 0, &o);
    hky_schedule_done(&probe, false);
    turns(&st);
    expect(&st, "deferred:own"); /* still paused: no news */
    pass(&st, 59999);
    expect_wait(&st, "own");
    pass(&st, 1);
    answer(&st, "own", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:own relay_resumed:own");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void a_paused_account_is_left_for_another(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "gmail");
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("gmail"), fake_step("ses")};
    struct hky_plan *plan = fake_plan(steps, 2), *alone = fake_plan(steps, 1);
    send(&st, plan);
    send(&st, plan);
    send(&st, alone);
    answer(&st, "gmail", HKY_CLASS_RELAY_AUTH, false, 0);
    turns(&st);
    expect(&st, "relay_paused:gmail routed:gmail routed:gmail");
    send(&st, plan);
    expect(&st, "routed:gmail");
    for (int i = 0; i < 3; i++)
        answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect_wait(&st, "gmail");
    pass(&st, MINUTE);
    answer(&st, "gmail", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:ses delivered:ses delivered:ses delivered:gmail relay_resumed:gmail");
    hky_plan_unref(&plan);
    hky_plan_unref(&alone);
    stage_end(&st);
}

static void an_exhausted_quota_waits_for_its_window(void **state)
{
    static const struct {
        const char *name;
        uint32_t n, window_sec, retry_after;
        int64_t waits_ms;
    } CASES[] = {
        {"a day's cap", 500, 86400, 0, 24 * HOUR},
        {"an hour's cap", 100, 3600, 0, HOUR},
        {"the reply names a time", 500, 86400, 120, 2 * MINUTE},
        {"a minute's cap says nothing of a quota", 10, 60, 0, MINUTE},
        {"no cap", 0, 0, 0, MINUTE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        stage_init(&st);
        struct hky_relay *relay = fake_relay(&st.policy, "gmail");
        if (CASES[i].n > 0)
            fake_cap(relay, "cap", CASES[i].n, CASES[i].window_sec, false);
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gmail")}, 1);
        struct hky_job *job;
        send(&st, plan);
        take(&st, "gmail", &job); /* reserves */
        if (job != NULL)
            hky_schedule_give_back(&job);
        turns(&st);
        answer(&st, "gmail", HKY_CLASS_QUOTA_EXHAUSTED, false, CASES[i].retry_after);
        send(&st, plan);
        pass(&st, CASES[i].waits_ms - 1);
        if (take(&st, "gmail", &job) != HKY_TAKE_WAIT)
            fail_msg("%s: the pause is too short", CASES[i].name);
        pass(&st, 1);
        answer(&st, "gmail", HKY_CLASS_OK, false, 0);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void an_operator_pauses_resumes_and_drains(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "gmail");
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gmail")}, 1);
    assert_int_equal(hky_schedule_pause(st.r.schedule, "gmial", 0, &e), HKY_E_MISSING);
    assert_int_equal(hky_schedule_pause(st.r.schedule, "gmail", 600, &e), HKY_OK);
    send(&st, plan);
    expect_wait(&st, "gmail");
    pass(&st, 600000);
    answer(&st, "gmail", HKY_CLASS_OK, false, 0);
    expect(&st, "relay_paused:gmail delivered:gmail");
    assert_int_equal(hky_schedule_pause(st.r.schedule, "gmail", 0, &e), HKY_OK);
    send(&st, plan);
    expect_wait(&st, "gmail");
    assert_int_equal(hky_schedule_resume(st.r.schedule, "gmail", &e), HKY_OK);
    turns(&st);
    answer(&st, "gmail", HKY_CLASS_OK, false, 0);
    st.log[0] = '\0';
    send(&st, plan);
    assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "gmail", "ses", 0, &e), HKY_OK);
    assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "ses", "gmail", 0, &e), HKY_E_CONFIG);
    turns(&st);
    send(&st, plan);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "relay_drained:gmail delivered:ses delivered:ses");
    char text[4096];
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "gmail: drained until 0 to ses; "));
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* Who mends a password and reloads does not wait for the end of the pause; without a mend it begins from the start. */
static void a_reload_tries_a_login_again(void **state)
{
    static const struct {
        enum hky_class class;
        bool is_tried;
    } CASES[] = {{HKY_CLASS_RELAY_AUTH, true}, {HKY_CLASS_RELAY_DENIED, false}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct hky_job *job;
        stage_init(&st);
        fake_relay(&st.policy, "gmail");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gmail")}, 1);
        for (int k = 0; k < 3; k++)
            send(&st, plan);
        for (int k = 0; k < 2; k++) { /* the second is the probe: two minutes now */
            answer(&st, "gmail", CASES[i].class, false, 0);
            expect_wait(&st, "gmail");
            pass(&st, k == 0 ? 60000 : 1000);
        }
        hky_schedule_set_policy(st.r.schedule, &st.policy.policy);
        turns(&st);
        if (!CASES[i].is_tried) {
            expect_wait(&st, "gmail");
            pass(&st, 119000);
        }
        answer(&st, "gmail", CASES[i].class, false, 0);
        pass(&st, 59000);
        expect_wait(&st, "gmail");
        pass(&st, 1000);
        assert_int_equal(take(&st, "gmail", &job), CASES[i].is_tried ? HKY_TAKE_JOB : HKY_TAKE_WAIT);
        if (CASES[i].is_tried)
            hky_schedule_give_back(&job);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void refuse(struct stage *st, const char *relay, enum hky_class class, int n)
{
    struct hky_job *jobs[4];
    struct hky_outcome o = fake_outcome(class, false);
    for (int k = 0; k < n; k++)
        assert_int_equal(take(st, relay, &jobs[k]), HKY_TAKE_JOB);
    for (int k = 0; k < n; k++)
        hky_rehearsal_answer(&st->r, &jobs[k], &o);
}

/* Whoever waits because the relay did not let us in goes as soon as that is repaired, not when its own time comes. */
static void repaired_relays_send_what_waited_for_that(void **state)
{
    enum how { RESUME, RELOAD_CHANGED, RELOAD_DURING_PAUSE };
    static const struct {
        const char *name;
        enum how how;
        const char *resumed; /* relay */
        enum hky_class class;
        unsigned n_go; /* of three */
    } CASES[] = {
        {"resume of a refused login", RESUME, "gmail", HKY_CLASS_RELAY_AUTH, 3},
        {"resume of an account that was denied", RESUME, "gmail", HKY_CLASS_RELAY_DENIED, 3},
        {"resume of an account without quota", RESUME, "gmail", HKY_CLASS_QUOTA_EXHAUSTED, 3},
        {"resume of a relay without TLS", RESUME, "gmail", HKY_CLASS_TLS, 3},
        {"resume of another relay of the account", RESUME, "gmail two", HKY_CLASS_RELAY_AUTH, 3},
        {"resume of another account", RESUME, "ses", HKY_CLASS_RELAY_AUTH, 0},
        {"resume, and the recipient's own trouble", RESUME, "gmail", HKY_CLASS_MAILBOX_FULL, 0},
        {"another login", RELOAD_CHANGED, NULL, HKY_CLASS_RELAY_AUTH, 3},
        {"another authority", RELOAD_CHANGED, NULL, HKY_CLASS_TLS, 3},
        {"another login, and a quota", RELOAD_CHANGED, NULL, HKY_CLASS_QUOTA_EXHAUSTED, 0},
        {"another password in the same file", RELOAD_DURING_PAUSE, NULL, HKY_CLASS_RELAY_AUTH, 3},
        {"nothing changed for a quota", RELOAD_DURING_PAUSE, NULL, HKY_CLASS_QUOTA_EXHAUSTED, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct hky_error e;
        stage_init(&st);
        fake_relay(&st.policy, "gmail");
        fake_relay(&st.policy, "gmail two")->account = "gmail";
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gmail")}, 1);
        for (int k = 0; k < 3; k++)
            send(&st, plan);
        refuse(&st, "gmail", CASES[i].class, 3);
        pass(&st, 1000);
        assert_int_equal(deferred_by(&st, "gmail"), 3);
        st.second = st.policy;
        st.second.policy.refs = 1;
        st.second.policy.relays = st.second.relays;
        if (CASES[i].how == RELOAD_CHANGED)
            st.second.relays[0].settings_hash++;
        if (CASES[i].how == RESUME)
            assert_int_equal(hky_schedule_resume(st.r.schedule, CASES[i].resumed, &e), HKY_OK);
        else
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        if (deferred_by(&st, "gmail") != 3 - CASES[i].n_go)
            fail_msg("%s: %u of 3 still wait for their own time", CASES[i].name, deferred_by(&st, "gmail"));
        st.log[0] = '\0';
        for (unsigned k = 0; k < CASES[i].n_go; k++)
            answer(&st, "gmail", HKY_CLASS_OK, false, 0);
        assert_int_equal(deferred_by(&st, "gmail"), 3 - CASES[i].n_go);
        hky_plan_unref(&plan);
        stage_end(&st);
        assert_int_equal(st.second.policy.refs, 1);
    }
}

static struct hky_message *restored(struct stage *st, struct hky_plan *plan, uint64_t id, enum hky_class class)
{
    struct hky_message *m = fake_message(id, START - HOUR, "", 1, (const char *const[]){"a@x.example"});
    struct hky_outcome o = fake_outcome(class, false);
    struct hky_recipient *r = &m->recipients[0];
    r->plan = hky_plan_ref(plan);
    r->policy = 11;
    r->attempts = r->step_attempts = 1;
    r->last_class = (uint8_t) class;
    r->step_at_ms = START - HOUR;
    r->next_at_ms = START + HOUR;
    r->expire_at_ms = START + 24 * HOUR;
    hky_recipient_remember(r, START - HOUR, plan->steps[0].relay, &o);
    hky_schedule_restore_message(st->r.schedule, m);
    return m;
}

/* Whoever was deferred because the relay did not let us in goes at once after a start, as after a reload: what was
 * wrong may be repaired. One message tries; only when it gets in, the others follow. */
static void a_start_tries_what_was_not_let_in(void **state)
{
    static const struct {
        const char *name, *relay;
        enum hky_class class;
        bool goes;
    } CASES[] = {
        {"a refused login", "gmail", HKY_CLASS_RELAY_AUTH, true},
        {"no TLS", "gmail", HKY_CLASS_TLS, true},
        {"a quota", "gmail", HKY_CLASS_QUOTA_EXHAUSTED, false},
        {"the recipient's own trouble", "gmail", HKY_CLASS_MAILBOX_FULL, false},
        {"TLS with the recipient's own host", "own", HKY_CLASS_TLS, false},
        {"a relay that the policy no longer has", "gone", HKY_CLASS_RELAY_AUTH, false},
    };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        const char *relay = CASES[i / 2].relay;
        bool is_repaired = i % 2 == 0;
        struct stage st;
        stage_init(&st);
        fake_relay(&st.policy, "gmail");
        fake_relay(&st.policy, "own")->is_mx = true;
        stage_open(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step(relay)}, 1);
        for (unsigned k = 0; k < 3; k++)
            restored(&st, plan, 100 + k, CASES[i / 2].class);
        hky_rehearsal_start(&st.r);
        turns(&st);
        struct hky_schedule_stats stats;
        hky_schedule_stats(st.r.schedule, &stats);
        if (stats.deferred != (CASES[i / 2].goes ? 0 : 3))
            fail_msg("%s: %lu of 3 wait for their own time", CASES[i / 2].name, (unsigned long)stats.deferred);
        if (CASES[i / 2].goes) {
            struct hky_job *first, *second;
            struct hky_outcome o = fake_outcome(is_repaired ? HKY_CLASS_OK : HKY_CLASS_RELAY_AUTH, false);
            assert_int_equal(take(&st, relay, &first), HKY_TAKE_JOB);
            if (take(&st, relay, &second) == HKY_TAKE_JOB)
                fail_msg("%s: two tried at once", CASES[i / 2].name);
            hky_rehearsal_answer(&st.r, &first, &o);
            turns(&st);
            if (is_repaired) {
                answer(&st, relay, HKY_CLASS_OK, false, 0);
                answer(&st, relay, HKY_CLASS_OK, false, 0);
            } else {
                expect_wait(&st, relay); /* paused; those behind were not failed */
            }
        }
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* A login that is refused while a quota keeps the account does not make that pause one of the login. */
static void a_reload_leaves_the_pause_of_a_quota(void **state)
{
    struct gate g = {0};

    (void)state;
    schedule_gate_pause(&g, 86400, false, START, "quota_exhausted");
    schedule_gate_pause(&g, 900, true, START, "relay_auth");
    schedule_gate_retry_login(&g, START + 1000);
    assert_int_equal(schedule_gate_closed_until_ms(&g), START + INT64_C(86400) * 1000);
    schedule_gate_pause(&g, 2 * 86400, true, START, "relay_auth");
    schedule_gate_retry_login(&g, START + 1000);
    assert_int_equal(schedule_gate_closed_until_ms(&g), START + 1000);
}

static void rate_limited_slows_the_lane(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    for (int i = 0; i < 3; i++)
        send(&st, plan);
    answer(&st, "ses", HKY_CLASS_RATE_LIMITED, true, 0);
    expect_wait(&st, "ses");
    pass(&st, 250);
    struct hky_job *job, *second;
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    pass(&st, 1000);
    assert_int_equal(take(&st, "ses", &second), HKY_TAKE_WAIT); /* one at a time now */
    hky_schedule_give_back(&job);
    turns(&st);
    for (int i = 0; i < 2; i++) {
        pass(&st, 1000);
        answer(&st, "ses", HKY_CLASS_OK, false, 0);
    }
    expect(&st, "deferred:ses delivered:ses delivered:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* The bound on jobs at a time grows with good replies until there is none; the gap between two may end later. */
static void a_bound_that_is_gone_does_not_come_back(void **state)
{
    struct hky_job *jobs[2];
    struct stage st;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "ses")->connections = 2;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    for (int i = 0; i < 12; i++)
        send(&st, plan);
    answer(&st, "ses", HKY_CLASS_RATE_LIMITED, true, 0);
    for (int n_good = 1; n_good <= 9; n_good++) {
        pass(&st, 1000);
        answer(&st, "ses", HKY_CLASS_OK, false, 0);
        pass(&st, 1000);
        assert_int_equal(take(&st, "ses", &jobs[0]), HKY_TAKE_JOB);
        pass(&st, 1000);
        if ((take(&st, "ses", &jobs[1]) == HKY_TAKE_JOB) != (n_good >= 1))
            fail_msg("after %d good replies", n_good);
        for (int i = 1; i >= 0; i--)
            hky_schedule_give_back(&jobs[i]);
        turns(&st);
    }
    st.log[0] = '\0';
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* What a relay says to one transaction counts once for the lane and the account, however many recipients it had. */
static void one_transaction_counts_once(void **state)
{
    static const char *const TO[] = {"a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example",
                                     "f@x.example", "g@x.example", "h@x.example", "i@x.example", "j@x.example"};
    static const struct {
        enum hky_class class;
        int64_t waits_ms; /* as for one recipient */
    } CASES[] = {{HKY_CLASS_RATE_LIMITED, 250}, {HKY_CLASS_RELAY_AUTH, MINUTE}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        for (unsigned n = 1; n <= 10; n += 9) {
            struct stage st;
            struct hky_job *job;
            stage_init(&st);
            fake_relay(&st.policy, "ses");
            stage_start(&st);
            struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
            send_to(&st, plan, "", n, TO);
            send(&st, plan); /* another message waits for the lane */
            answer(&st, "ses", CASES[i].class, true, 0);
            pass(&st, CASES[i].waits_ms - 1);
            expect_wait(&st, "ses");
            pass(&st, 1);
            if (take(&st, "ses", &job) != HKY_TAKE_JOB)
                fail_msg("%s for %u: still stopped", hky_class_name(CASES[i].class), n);
            hky_schedule_give_back(&job);
            if (CASES[i].class == HKY_CLASS_RELAY_AUTH) { /* a second time: twice as long, not a thousand times */
                answer(&st, "ses", CASES[i].class, true, 0);
                pass(&st, 2 * MINUTE);
                assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
                hky_schedule_give_back(&job);
            }
            hky_plan_unref(&plan);
            stage_end(&st);
        }
    }
}

/* Another policy makes another lane; what the server said of its rate holds for it as well. */
static void a_reload_keeps_a_rate_limit(void **state)
{
    (void)state;
    struct stage st;
    struct hky_job *job;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    st.plan = hky_plan_ref(plan);
    send(&st, plan);
    send(&st, plan);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    struct hky_outcome o = fake_outcome(HKY_CLASS_RATE_LIMITED, true);
    o.retry_after_sec = 600;
    o.scope = HKY_SCOPE_RELAY;
    hky_rehearsal_answer(&st.r, &job, &o);
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    turns(&st);
    pass(&st, 10 * MINUTE - 1);
    expect_wait(&st, "ses");
    pass(&st, 1);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    hky_schedule_give_back(&job);
    hky_plan_unref(&plan);
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

/* The first in a paused lane has an author whom the next step refuses; those behind it have others, and go. */
static void an_author_that_cannot_go_keeps_nobody(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    struct hky_job *job;
    stage_init(&st);
    fake_relay(&st.policy, "rental");
    fake_relay(&st.policy, "ses");
    st.policy.relays[1].sends_as = only_shop;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("rental"), fake_step("ses")}, 2);
    for (int i = 0; i < 2; i++) {
        struct hky_rcpt_draft rcpt = {.address = HKY_STR("a@example.com")};
        struct hky_message_draft d = {
            .id = st.next_id++, .accepted_at_ms = START, .size = 10, .recipients = &rcpt, .n_recipients = 1};
        d.facts[HKY_FACT_AUTHOR] = i == 0 ? HKY_STR("other@else.example") : HKY_STR("news@shop.example");
        struct hky_message *m = hky_message_new(&d);
        m->recipients[0].plan = hky_plan_ref(plan);
        m->recipients[0].policy = 11;
        hky_rehearsal_send(&st.r, m);
        hky_message_unref(&m);
    }
    st.log[0] = '\0';
    assert_int_equal(hky_schedule_pause(st.r.schedule, "rental", 0, &e), HKY_OK);
    pass(&st, 1000);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    assert_true(hky_str_eq(hky_message_fact(job->message, HKY_FACT_AUTHOR), HKY_STR("news@shop.example")));
    hky_schedule_give_back(&job);
    hky_plan_unref(&plan);
    stage_end(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_breaker_opens_probes_and_closes),
        cmocka_unit_test(a_paused_account_is_left_for_another),
        cmocka_unit_test(an_exhausted_quota_waits_for_its_window),
        cmocka_unit_test(an_operator_pauses_resumes_and_drains),
        cmocka_unit_test(a_reload_tries_a_login_again),
        cmocka_unit_test(repaired_relays_send_what_waited_for_that),
        cmocka_unit_test(a_start_tries_what_was_not_let_in),
        cmocka_unit_test(a_reload_leaves_the_pause_of_a_quota),
        cmocka_unit_test(rate_limited_slows_the_lane),
        cmocka_unit_test(a_bound_that_is_gone_does_not_come_back),
        cmocka_unit_test(one_transaction_counts_once),
        cmocka_unit_test(a_reload_keeps_a_rate_limit),
        cmocka_unit_test(an_author_that_cannot_go_keeps_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
