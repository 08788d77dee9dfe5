#include "unit/schedule/stage.h"

/* ---- the main way ---- */

static void delivers_defers_and_goes_on(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("own"), fake_step("ses")};
    struct hky_plan *plan = fake_plan(steps, 2);
    send(&st, plan);
    answer(&st, "own", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:own");
    send(&st, plan);
    answer(&st, "own", HKY_CLASS_SYSTEM_TEMP, true, 0);
    pass(&st, 5 * MINUTE - 1);
    struct hky_job *job;
    assert_int_equal(take(&st, "own", &job), HKY_TAKE_EMPTY);
    pass(&st, 1);
    answer(&st, "own", HKY_CLASS_BLOCKED_IP, false, 0);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "deferred:own routed:own delivered:ses");
    struct hky_schedule_stats s;
    hky_schedule_stats(st.r.schedule, &s);
    assert_int_equal(s.delivered, 2);
    assert_int_equal(s.attempts, 4);
    assert_int_equal(s.queued + s.sending + s.deferred, 0);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void one_job_for_recipients_of_one_message(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses")->recipients_per_message = 3;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send_to(&st, plan, "", 4, (const char *const[]){"a@x.example", "b@y.example", "c@x.example", "d@x.example"});
    send(&st, plan);
    struct hky_job *job;
    unsigned sizes[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        sizes[i] = job->n;
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        for (unsigned k = job->n; k-- > 0;)
            hky_schedule_result(job, k, &o);
        hky_schedule_done(&job, true);
    }
    assert_int_equal(sizes[0], 3);
    assert_int_equal(sizes[1], 1);
    assert_int_equal(sizes[2], 1);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void a_sender_per_recipient_goes_alone(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses")->envelope = "bounce+{id}.{rcpt}@shop.example";
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send_to(&st, plan, "", 2, (const char *const[]){"a@x.example", "b@y.example"});
    struct hky_job *job;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        assert_int_equal(job->n, 1);
        hky_schedule_give_back(&job);
        answer(&st, "ses", HKY_CLASS_OK, false, 0);
    }
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void own_delivery_has_a_lane_for_each_domain(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    send_to(&st, plan, "", 3, (const char *const[]){"a@x.example", "b@y.example", "c@x.example"});
    assert_int_equal(st.r.n_woken, 2);
    assert_string_equal(st.r.woken[0]->destination, "x.example");
    assert_int_equal(st.r.woken[0]->n_ready, 2);
    for (int i = 0; i < 3; i++)
        if (i != 1)
            answer(&st, "own", HKY_CLASS_OK, false, 0); /* a and c together, then b */
    expect(&st, "delivered:own delivered:own delivered:own");
    pass(&st, 60000);
    pass(&st, 6 * MINUTE);
    assert_int_equal(st.r.n_lanes_ended, 2); /* idle */
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void ranks_and_scenarios_take_turns(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    for (int i = 0; i < 6; i++)
        send_to(&st, plan, "spring", 1, (const char *const[]){"s@x.example"});
    for (int i = 0; i < 3; i++)
        send_to(&st, plan, "autumn", 1, (const char *const[]){"a@x.example"});
    for (int i = 0; i < 20; i++)
        send_to(&st, plan, "", 1, (const char *const[]){"n@x.example"});
    char order[64] = "";
    struct hky_job *job;
    for (size_t i = 0; i < 29; i++) {
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        order[i] = hky_recipient_address(job->recipients[0]).p[0];
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_schedule_result(job, 0, &o);
        hky_schedule_done(&job, true);
    }
    assert_string_equal(order, "nnnnnnnnnsnnnnnnnnnannsasasss");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void given_back_is_uncounted_and_first_again(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_cap(fake_relay(&st.policy, "rental"), "1/h", 1, 3600, false);
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("rental")}, 1);
    struct hky_message *first = send(&st, plan);
    send(&st, plan);
    struct hky_job *job;
    expect_wait(&st, "rental"); /* reserves */
    turns(&st);
    assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
    assert_ptr_equal(job->message, first);
    hky_schedule_give_back(&job);
    turns(&st);
    assert_int_equal(take(&st, "rental", &job), HKY_TAKE_JOB);
    assert_ptr_equal(job->message, first);
    assert_int_equal(job->recipients[0]->attempts, 0);
    struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
    hky_schedule_result(job, 0, &o);
    hky_schedule_done(&job, true);
    turns(&st);
    expect_wait(&st, "rental");
    pass(&st, HOUR + 1);
    turns(&st);
    answer(&st, "rental", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:rental delivered:rental");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void full_spills_over_when_its_turn_comes_too_late(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_cap(fake_relay(&st.policy, "rental"), "10/min", 10, 60, false);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_step steps[2] = {fake_step("rental"), fake_step("ses")};
    steps[0].wait_sec = 30;
    struct hky_plan *plan = fake_plan(steps, 2);
    for (int i = 0; i < 8; i++)
        send(&st, plan);
    expect(&st, "routed:rental routed:rental"); /* 0 6 12 18 24 30 s are in time */
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    st.log[0] = '\0';
    pass(&st, 31000); /* nobody took anything: what still waits has waited long enough */
    expect(&st, "routed:rental routed:rental routed:rental routed:rental routed:rental routed:rental");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void nobody_may_send_as_the_author_fails(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    struct hky_relay *gmail = fake_relay(&st.policy, "gmail");
    gmail->never_rewrite = true;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("gmail")}, 1);
    send(&st, plan);
    expect(&st, "failed");
    assert_string_equal(st.ended, "sends_as no step can send as news@shop.example");
    gmail->never_rewrite = false;
    send(&st, plan);
    answer(&st, "gmail", HKY_CLASS_SYSTEM_TEMP, true, 0);
    gmail->never_rewrite = true; /* found out at its turn, after an attempt */
    pass(&st, 5 * MINUTE);
    struct hky_job *job;
    assert_int_equal(take(&st, "gmail", &job), HKY_TAKE_EMPTY);
    expect(&st, "deferred:gmail failed");
    assert_string_equal(st.ended, "sends_as no step can send as news@shop.example");
    gmail->never_rewrite = false;
    struct hky_plan *draft = malloc(sizeof *draft), *patient;
    struct hky_error e;
    *draft = *plan;
    draft->react[HKY_CLASS_SENDS_AS] = HKY_ACTION_RETRY; /* nothing changes by waiting */
    assert_int_equal(hky_plan_new(draft, &patient, &e), HKY_OK);
    free(draft);
    send(&st, patient);
    hky_plan_unref(&patient);
    gmail->never_rewrite = true;
    assert_int_equal(take(&st, "gmail", &job), HKY_TAKE_EMPTY);
    expect(&st, "failed");
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- time ---- */

static void expires_in_the_queue_and_between_attempts(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    hky_schedule_pause(st.r.schedule, "ses", 0, &e);
    send(&st, plan);
    pass(&st, 47 * HOUR);
    expect(&st, "deferred:ses relay_paused:ses");
    pass(&st, 2 * HOUR);
    expect(&st, "expired expired");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void parked_recipients_are_asked_again(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_message *m = fake_message(99, START, "", 1, (const char *const[]){"a@example.com"});
    m->recipients[0].state = HKY_RCPT_PARKED;
    hky_message_ref(m);
    hky_schedule_enqueue(st.r.schedule, 0, m);
    turns(&st);
    expect(&st, "parked");
    static const int MINUTES[] = {5, 15, 60, 60, 60};
    for (unsigned i = 0; i < 5; i++) {
        pass(&st, MINUTES[i] * MINUTE - 1);
        assert_int_equal(st.n_decides, i);
        pass(&st, 1);
        assert_int_equal(st.n_decides, i + 1);
    }
    expect(&st, "");
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    pass(&st, HOUR);
    expect(&st, "unparked");
    assert_int_equal(m->recipients[0].expire_at_ms, START + 48 * HOUR + 260 * MINUTE);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:ses");
    hky_message_unref(&m);
    stage_end(&st);
}

static void a_header_that_is_being_read_is_waited_for_shortly(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    st.is_unread = true;
    struct hky_message *m = fake_message(99, START, "", 1, (const char *const[]){"a@example.com"});
    hky_message_ref(m);
    hky_schedule_enqueue(st.r.schedule, 0, m);
    turns(&st);
    expect(&st, "parked");
    assert_int_equal(st.n_decides, 1);
    pass(&st, 999);
    assert_int_equal(st.n_decides, 1);
    pass(&st, 1);
    assert_int_equal(st.n_decides, 2);
    pass(&st, 5 * MINUTE - 1); /* a disk that does not give it is no reason to ask every second */
    assert_int_equal(st.n_decides, 2);
    st.is_unread = false;
    pass(&st, 1);
    expect(&st, "unparked");
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:ses");
    hky_message_unref(&m);
    stage_end(&st);
}

static void parked_too_long_fails(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_message *m = fake_message(99, START, "", 1, (const char *const[]){"a@example.com"});
    hky_message_ref(m);
    hky_schedule_enqueue(st.r.schedule, 0, m); /* no plan: the policy is asked, and has none */
    turns(&st);
    for (int i = 0; i < 8 * 24; i++)
        pass(&st, HOUR);
    expect(&st, "parked failed");
    hky_message_unref(&m);
    stage_end(&st);
}

static bool reaches_shop(const struct hky_policy *p, const struct hky_recipient *r)
{
    (void)p;
    return hky_str_eq(hky_recipient_domain(r), HKY_STR("shop.example"));
}

static void only_to_holds_the_others(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    st.policy.policy.engine.reaches = reaches_shop;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send_to(&st, plan, "", 3, (const char *const[]){"a@shop.example", "b@home.example", "c@sub.shop.example"});
    expect(&st, "held held");
    /* as long as it does not name them, no word of an operator lets them go */
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_RETRY, (struct hky_selection){0}, NULL, 0), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.state = "held"}, NULL, 0), 2);
    st.policy.policy.engine.reaches = NULL;
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 2);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* The list that engine.only_to names is read again when its file changes, which no hash of the policy shows. */
static const char *named_local;

static bool reaches_named(const struct hky_policy *p, const struct hky_recipient *r)
{
    (void)p;
    return strchr(named_local, hky_recipient_address(r).p[0]) != NULL;
}

static void only_to_holds_what_waits_in_a_lane(void **state)
{
    (void)state;
    struct stage st;
    struct hky_job *job;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    st.policy.policy.engine.reaches = reaches_named;
    named_local = "abcd";
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    hky_schedule_pause(st.r.schedule, "ses", 0, &e);
    send_to(&st, plan, "", 4, (const char *const[]){"a@x.example", "b@x.example", "c@x.example", "d@x.example"});
    expect(&st, "relay_paused:ses");
    named_local = "bd"; /* the first of the lane, and one in the middle of a transaction, are no longer named */
    hky_schedule_resume(st.r.schedule, "ses", &e);
    turns(&st);
    st.log[0] = '\0';
    for (unsigned n = 0; n < 2;) {
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        for (unsigned i = 0; i < job->n; i++, n++)
            assert_true(reaches_named(NULL, job->recipients[i]));
        struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
        hky_rehearsal_answer(&st.r, &job, &o);
    }
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_EMPTY);
    expect(&st, "held delivered:ses held delivered:ses");
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.state = "held"}, NULL, 0), 2);
    named_local = "abcd";
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, NULL, 0), 2);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- operators ---- */

static void the_queue_is_shown_held_released_and_cancelled(void **state)
{
    (void)state;
    struct stage st;
    char rows[8192];
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send_to(&st, plan, "", 1, (const char *const[]){"a@x.example"});
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    send_to(&st, plan, "spring", 2, (const char *const[]){"b@x.example", "c@sub.y.example"});
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){0}, rows, sizeof rows), 3);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.to = "x.example"}, rows, sizeof rows), 2);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.to = ".y.example"}, rows, sizeof rows), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.scenario = "spring"}, NULL, 0), 2);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.from = "shop.example"}, NULL, 0), 3);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.relay = "own"}, NULL, 0), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.has_older = true, .older_ms = 1000}, NULL, 0), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.class = "system_temp", .state = "deferred"}, rows,
                         sizeof rows),
                     1);
    assert_non_null(strstr(rows, "a@x.example "));
    assert_non_null(strstr(rows, "; said so\n"));
    assert_int_equal(ask(&st, HKY_QUEUE_RETRY, (struct hky_selection){.state = "deferred"}, NULL, 0), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, (struct hky_selection){.scenario = "spring"}, NULL, 0), 2);
    expect(&st, "deferred:ses released held held");
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    struct hky_job *job;
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_EMPTY);
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, (struct hky_selection){.to = "b@x.example"}, NULL, 0), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, (struct hky_selection){.state = "held"}, NULL, 0), 1);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "delivered:ses cancelled released delivered:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void ambiguous_three_times_is_held(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    for (int i = 0; i < 3; i++) {
        answer(&st, "ses", HKY_CLASS_AMBIGUOUS, true, 0);
        pass(&st, 10 * MINUTE);
    }
    expect(&st, "deferred:ses deferred:ses held:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* Nothing sends it by another relay or reports a failure, because a copy may have been delivered: neither a relay that
 * is paused or full, nor a policy without the relay, nor the time at which it expires. */
static void what_may_have_been_delivered_stays_with_its_step(void **state)
{
    enum what { PAUSED, PAUSED_LATER, FULL, GONE, EXPIRES };
    static const struct {
        const char *name;
        enum what what;
        const char *log, *reason;
    } CASES[] = {
        {"paused when it is due", PAUSED, "relay_paused:ses relay_resumed:ses delivered:ses", NULL},
        {"paused when it waits before another one, which leaves", PAUSED_LATER,
         "relay_paused:ses routed:ses delivered:own relay_resumed:ses delivered:ses", NULL},
        {"the relay is full", FULL, "delivered:ses", NULL},
        {"the policy has no such relay any more", GONE, "held",
         "may have been delivered; the policy no longer has relay \"ses\" of its step"},
        {"it expires", EXPIRES, "relay_paused:ses held", "may have been delivered; the time to deliver is over"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        enum what what = CASES[i].what;
        struct stage st;
        struct hky_error e;
        struct hky_job *job;
        stage_init(&st);
        struct hky_relay *ses = fake_relay(&st.policy, "ses");
        if (what == FULL)
            fake_cap(ses, "1/h", 1, 3600, false);
        fake_relay(&st.policy, "own");
        stage_start(&st);
        struct hky_step steps[] = {fake_step("ses"), fake_step("own")};
        steps[0].wait_sec = what == FULL ? 60 : HKY_UNSET_SEC;
        struct hky_plan *plan = fake_plan(steps, 2);
        struct hky_message *m = send(&st, plan);
        hky_message_ref(m);
        if (what == FULL)
            expect_wait(&st, "ses"); /* until the slot is reserved on disk */
        turns(&st);
        answer(&st, "ses", HKY_CLASS_AMBIGUOUS, true, 0);
        st.log[0] = '\0';
        print_message("%s\n", CASES[i].name);
        if (what == PAUSED || what == EXPIRES)
            assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
        if (what == GONE) {
            st.plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
            fake_policy_init(&st.second, 22);
            fake_relay(&st.second, "own");
            hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        }
        pass(&st, 10 * MINUTE);
        if (what == PAUSED_LATER) {
            send(&st, plan);
            turns(&st);
            assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
            pass(&st, MINUTE);
            answer(&st, "own", HKY_CLASS_OK, false, 0);
        }
        for (int k = 0; k < 25 || (what == EXPIRES && k < 50); k++)
            pass(&st, HOUR);
        assert_int_equal(take(&st, "own", &job), HKY_TAKE_EMPTY);
        if (CASES[i].reason != NULL) {
            assert_string_equal(m->recipients[0].reason, CASES[i].reason);
        } else {
            if (what != FULL)
                assert_int_equal(hky_schedule_resume(st.r.schedule, "ses", &e), HKY_OK);
            turns(&st);
            answer(&st, "ses", HKY_CLASS_OK, false, 0);
        }
        expect(&st, CASES[i].log);
        hky_message_unref(&m);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

/* Steps of one relay that name accounts of their own: none's mail goes by the account of the other. */
static void each_account_has_its_lane(void **state)
{
    static const char *const accounts[] = {"one", "two"};
    struct hky_plan *plans[2];
    struct stage st;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    for (int i = 0; i < 2; i++) {
        struct hky_step step = fake_step("ses");
        step.account = accounts[i];
        plans[i] = fake_plan(&step, 1);
        send(&st, plans[i]);
    }
    assert_int_equal(st.r.n_woken, 2);
    for (unsigned i = 0; i < 2; i++) {
        struct hky_job *job;
        assert_string_equal(st.r.woken[i]->account, accounts[i]);
        assert_int_equal(hky_schedule_take(st.r.woken[i], &job), HKY_TAKE_JOB);
        assert_int_equal(job->n, 1);
        assert_string_equal(job->recipients[0]->plan->steps[0].account, accounts[i]);
        hky_schedule_done(&job, true);
    }
    for (int i = 0; i < 2; i++)
        hky_plan_unref(&plans[i]);
    stage_end(&st);
}

static void what_was_restored_goes_on(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_open(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *m = fake_message(
        7, START - HOUR, "", 4, (const char *const[]){"a@x.example", "b@x.example", "c@x.example", "d@x.example"});
    for (unsigned i = 0; i < 4; i++) {
        m->recipients[i].plan = hky_plan_ref(plan);
        m->recipients[i].policy = 11;
    }
    m->recipients[0].state = HKY_RCPT_DELIVERED;
    m->recipients[1].state = HKY_RCPT_SENDING;
    m->recipients[2].next_at_ms = START + HOUR;
    m->recipients[3].unclean = 3;
    for (int i = 0; i < 2; i++) /* three live ones; the first reference is the third */
        hky_message_ref(m);
    hky_schedule_restore_message(st.r.schedule, m);
    hky_schedule_start(st.r.schedule);
    turns(&st);
    struct hky_schedule_stats s;
    hky_schedule_stats(st.r.schedule, &s);
    assert_int_equal(s.queued, 1);
    assert_int_equal(s.deferred, 1);
    assert_int_equal(s.held, 1);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    pass(&st, HOUR);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "held delivered:ses delivered:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void on_drained(void *ctx)
{
    *(bool *)ctx = true;
}

static void drain_waits_for_what_is_under_way(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    send(&st, plan);
    struct hky_job *job;
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    bool is_done = false;
    hky_schedule_drain(st.r.schedule, 60000, on_drained, &is_done);
    turns(&st);
    assert_false(is_done);
    expect_wait(&st, "ses");
    struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
    hky_schedule_result(job, 0, &o);
    hky_schedule_done(&job, true);
    for (int i = 0; i < 100 && !is_done; i++)
        hky_loop_turn(st.r.loop, 10);
    assert_true(is_done);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void never(struct hky_timer *t)
{
    (void)t;
    fail_msg("this timer is not to fire");
}

/* The loop's timers are used after the schedule is gone: a drain that was cut short leaves none behind. */
static void a_drain_that_was_cut_short_leaves_no_timer(void **state)
{
    (void)state;
    struct stage st;
    struct hky_timer others[2];
    struct hky_job *job;
    bool is_done = false;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    hky_schedule_drain(st.r.schedule, 60000, on_drained, &is_done);
    turns(&st);
    for (int i = 0; i < 2; i++) {
        hky_timer_init(&others[i], st.r.loop, never);
        hky_timer_set(&others[i], i == 0 ? 1 : 3600000);
    }
    hky_schedule_free(&st.r.schedule);
    for (int i = 0; i < 2; i++)
        hky_timer_cancel(&others[i]);
    assert_false(is_done);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void take_and_result_are_quick(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    st.r.is_forgetful = true;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    enum { N = 2000 };
    for (int i = 0; i < N; i++) {
        struct hky_message *m = fake_message(st.next_id++, START, "", 1, (const char *const[]){"a@example.com"});
        m->recipients[0].plan = hky_plan_ref(plan);
        m->recipients[0].policy = 11;
        hky_schedule_enqueue(st.r.schedule, 0, m);
    }
    turns(&st);
    struct hky_outcome o = fake_outcome(HKY_CLASS_OK, false);
    int64_t began = hky_thread_cpu_ns();
    struct hky_job *job;
    for (int i = 0; i < N; i++) {
        st.log[0] = '\0';
        assert_int_equal(hky_schedule_take(st.r.woken[0], &job), HKY_TAKE_JOB);
        hky_schedule_result(job, 0, &o);
        hky_schedule_done(&job, true);
    }
    print_message("%lld ns a recipient (take, result, done; sanitizers included)\n",
                  (long long)((hky_thread_cpu_ns() - began) / N));
    st.log[0] = '\0';
    hky_plan_unref(&plan);
    stage_end(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivers_defers_and_goes_on),
        cmocka_unit_test(one_job_for_recipients_of_one_message),
        cmocka_unit_test(a_sender_per_recipient_goes_alone),
        cmocka_unit_test(own_delivery_has_a_lane_for_each_domain),
        cmocka_unit_test(ranks_and_scenarios_take_turns),
        cmocka_unit_test(given_back_is_uncounted_and_first_again),
        cmocka_unit_test(full_spills_over_when_its_turn_comes_too_late),
        cmocka_unit_test(nobody_may_send_as_the_author_fails),
        cmocka_unit_test(expires_in_the_queue_and_between_attempts),
        cmocka_unit_test(parked_recipients_are_asked_again),
        cmocka_unit_test(a_header_that_is_being_read_is_waited_for_shortly),
        cmocka_unit_test(parked_too_long_fails),
        cmocka_unit_test(only_to_holds_the_others),
        cmocka_unit_test(only_to_holds_what_waits_in_a_lane),
        cmocka_unit_test(the_queue_is_shown_held_released_and_cancelled),
        cmocka_unit_test(ambiguous_three_times_is_held),
        cmocka_unit_test(what_may_have_been_delivered_stays_with_its_step),
        cmocka_unit_test(each_account_has_its_lane),
        cmocka_unit_test(what_was_restored_goes_on),
        cmocka_unit_test(drain_waits_for_what_is_under_way),
        cmocka_unit_test(a_drain_that_was_cut_short_leaves_no_timer),
        cmocka_unit_test(take_and_result_are_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
