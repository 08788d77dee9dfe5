#include "unit/schedule/stage.h"

#include "schedule/internal.h"

#include "schedule/internal.h"

/* ---- holding and cancelling what is being sent ---- */

static struct hky_job *being_sent(struct stage *st, struct hky_plan *plan)
{
    struct hky_job *job;
    send(st, plan);
    assert_int_equal(take(st, "ses", &job), HKY_TAKE_JOB);
    return job;
}

static void ends(struct stage *st, struct hky_job *job, enum hky_class class, bool is_temporary)
{
    struct hky_outcome o = fake_outcome(class, is_temporary);
    hky_schedule_result(job, 0, &o);
    hky_schedule_done(&job, true);
    turns(st);
}

static const struct hky_selection EVERYTHING;

static void a_wish_is_kept_until_the_attempt_ends(void **state)
{
    static const struct {
        const char *name;
        enum hky_queue_action wish;
        enum hky_class class;
        bool is_temporary;
        const char *log, *after_release;
    } CASES[] = {
        {"hold, deferred", HKY_QUEUE_HOLD, HKY_CLASS_SYSTEM_TEMP, true, "held:ses", "released delivered:ses"},
        {"hold, delivered", HKY_QUEUE_HOLD, HKY_CLASS_OK, false, "delivered:ses", NULL},
        {"hold, the next step's turn", HKY_QUEUE_HOLD, HKY_CLASS_BLOCKED_IP, false, "held:ses",
         "released delivered:own"},
        {"hold, refused for good", HKY_QUEUE_HOLD, HKY_CLASS_BAD_MAILBOX, false, "held:ses", "released delivered:ses"},
        {"cancel, deferred", HKY_QUEUE_CANCEL, HKY_CLASS_SYSTEM_TEMP, true, "cancelled:ses", NULL},
        {"cancel, delivered", HKY_QUEUE_CANCEL, HKY_CLASS_OK, false, "delivered:ses", NULL},
        {"cancel, refused for good", HKY_QUEUE_CANCEL, HKY_CLASS_BAD_MAILBOX, false, "cancelled:ses", NULL},
        {"cancel, may have been delivered", HKY_QUEUE_CANCEL, HKY_CLASS_AMBIGUOUS, true, "cancelled:ses", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        char rows[4096];
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        fake_relay(&st.policy, "own");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses"), fake_step("own")}, 2);
        struct hky_job *job = being_sent(&st, plan);
        assert_int_equal(ask(&st, CASES[i].wish, EVERYTHING, NULL, 0), 1);
        expect(&st, ""); /* not yet */
        assert_int_equal(ask(&st, HKY_QUEUE_LIST, EVERYTHING, rows, sizeof rows), 1);
        assert_non_null(strstr(rows, " sending "));
        assert_non_null(strstr(rows, CASES[i].wish == HKY_QUEUE_HOLD ? "held when this attempt ends"
                                                                     : "cancelled when this attempt ends"));
        ends(&st, job, CASES[i].class, CASES[i].is_temporary);
        print_message("%s\n", CASES[i].name);
        expect(&st, CASES[i].log);
        if (CASES[i].after_release != NULL) {
            assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
            answer(&st, strstr(CASES[i].after_release, "ses") != NULL ? "ses" : "own", HKY_CLASS_OK, false, 0);
            expect(&st, CASES[i].after_release);
        }
        assert_int_equal(ask(&st, HKY_QUEUE_LIST, EVERYTHING, NULL, 0), 0);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void a_wish_comes_true_when_the_job_is_given_back(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_job *job = being_sent(&st, plan);
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, EVERYTHING, NULL, 0), 1);
    hky_schedule_give_back(&job);
    turns(&st);
    expect(&st, "cancelled");
    job = being_sent(&st, plan);
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 1);
    hky_schedule_give_back(&job);
    turns(&st);
    expect(&st, "held");
    struct hky_schedule_stats s;
    hky_schedule_stats(st.r.schedule, &s);
    assert_int_equal(s.held, 1);
    assert_int_equal(s.sending + s.queued, 0);
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void a_wish_can_be_taken_back(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_job *job = being_sent(&st, plan);
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 0); /* nothing to take back */
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, EVERYTHING, NULL, 0), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
    ends(&st, job, HKY_CLASS_SYSTEM_TEMP, true);
    expect(&st, "deferred:ses");
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- who waits by whom ---- */

static void relays_tell_who_waits_for_the_next_attempt(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    fake_relay(&st.policy, "own");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses"), fake_step("own")}, 2);
    for (int i = 0; i < 4; i++) {
        send(&st, plan);
        answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    }
    assert_int_equal(deferred_by(&st, "ses"), 4);
    assert_int_equal(deferred_by(&st, "own"), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_RETRY, EVERYTHING, NULL, 0), 4);
    assert_int_equal(deferred_by(&st, "ses"), 0); /* they are queued now */
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    for (int i = 0; i < 2; i++) { /* two go on to the second step, and wait there */
        answer(&st, "ses", HKY_CLASS_BLOCKED_IP, false, 0);
        answer(&st, "own", HKY_CLASS_SYSTEM_TEMP, true, 0);
    }
    assert_int_equal(deferred_by(&st, "ses"), 1);
    assert_int_equal(deferred_by(&st, "own"), 2);
    assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "ses", "own", 0, &e), HKY_OK);
    turns(&st);
    assert_int_equal(deferred_by(&st, "ses"), 1); /* its step still names it */
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 3);
    assert_int_equal(deferred_by(&st, "ses") + deferred_by(&st, "own"), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, EVERYTHING, NULL, 0), 3);
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- breakers of own delivery ---- */

static void break_lane(struct stage *st, struct hky_plan *plan, const char *address)
{
    for (int i = 0; i < 5; i++) {
        send_to(st, plan, "", 1, (const char *const[]){address});
        answer(st, "own", HKY_CLASS_NETWORK, true, 0);
    }
    st->log[0] = '\0';
}

static void broken_domains_are_shown_and_resumed(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    char text[4096];
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 0; "));
    for (int i = 0; i < 7; i++) {
        char address[32];
        snprintf(address, sizeof address, "a@d%d.example", i);
        break_lane(&st, plan, address);
    }
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 7 d0.example d1.example d2.example d3.example d4.example; "));
    assert_non_null(
        strstr(text, "; 7 domains wait: d0.example, d1.example, d2.example, d3.example, d4.example, ...\n"));
    assert_null(strstr(strstr(text, "ses: "), "broken 7")); /* only own delivery has domains */
    pass(&st, 30000);
    send_to(&st, plan, "", 1, (const char *const[]){"b@d0.example"});
    answer(&st, "own", HKY_CLASS_OK, false, 0); /* the probe of one of them */
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 6 "));
    break_lane(&st, plan, "a@late.example");
    send_to(&st, plan, "", 1, (const char *const[]){"c@late.example"});
    struct hky_job *job;
    assert_int_equal(take(&st, "own", &job), HKY_TAKE_WAIT);
    assert_int_equal(hky_schedule_resume(st.r.schedule, "own", &e), HKY_OK);
    turns(&st);
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 0; "));
    answer(&st, "own", HKY_CLASS_OK, false, 0);
    expect(&st, "relay_resumed:own delivered:own");
    break_lane(&st, plan, "a@late.example"); /* and it can break again */
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 1 "));
    hky_plan_unref(&plan);
    stage_end(&st);
}

static void a_lane_that_goes_takes_its_breaker_along(void **state)
{
    (void)state;
    struct stage st;
    char text[4096];
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "own")->is_mx = true;
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    st.plan = hky_plan_ref(plan);
    break_lane(&st, plan, "a@x.example");
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    turns(&st);
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "; broken 0; "));
    hky_plan_unref(&plan);
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

/* ---- caps and reloads ---- */

static struct hky_schedule *reloads; /* at the next decision */
static struct hky_policy *reload_to;

static void decide_and_reload(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out)
{
    decide(ctx, r, now_ms, out);
    hky_schedule_set_policy(reloads, reload_to);
}

static void a_lane_made_while_a_reload_is_on_its_way_has_its_caps(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_cap(fake_relay(&st.policy, "rental"), "1/h", 1, 3600, false);
    fake_policy_init(&st.second, 22);
    fake_cap(fake_relay(&st.second, "rental"), "2/h", 2, 3600, false);
    st.r.decide = decide_and_reload;
    stage_start(&st);
    reloads = st.r.schedule;
    reload_to = &st.second.policy;
    st.plan = fake_plan((struct hky_step[]){fake_step("rental")}, 1);
    struct hky_message *m = fake_message(1, START, "", 1, (const char *const[]){"a@x.example"});
    hky_schedule_enqueue(st.r.schedule, 0, m); /* no plan: asked and dispatched under the policy on its way out */
    const struct account *account = hky_map_get(&st.r.schedule->accounts, HKY_STR("rental"));
    assert_non_null(account);
    struct hky_relay_cap shown[HKY_CAPS_MAX];
    assert_non_null(account->caps); /* relay list would set them, so it is not asked */
    assert_int_equal(schedule_caps_show(st.r.schedule->caps, account->caps, START, shown), 1);
    assert_string_equal(shown[0].text, "1/h");
    st.r.decide = decide;
    turns(&st);
    send(&st, st.plan);
    char text[4096];
    relays_text(&st, text, sizeof text);
    assert_non_null(strstr(text, "caps 2/h "));
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

/* The time for which nobody could decide is not age: neither for who is held then. */
static void holding_a_parked_one_does_not_age_it(void **state)
{
    (void)state;
    struct stage st;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *m = send(&st, plan);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    struct hky_recipient *r = &m->recipients[0];
    int64_t left_ms = r->expire_at_ms - START;
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "ses");
    hky_schedule_set_policy(st.r.schedule, &st.second.policy); /* whose policy has no route for it */
    turns(&st);
    pass(&st, 5 * MINUTE);
    assert_int_equal(r->state, HKY_RCPT_PARKED);
    int64_t parked_at_ms = r->parked_at_ms;
    pass(&st, 24 * HOUR);
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, (struct hky_selection){.to = "a@example.com"}, NULL, 0), 1);
    assert_int_equal(r->expire_at_ms - hky_clock_now_ms(&st.r.clock), left_ms - (parked_at_ms - START));
    hky_plan_unref(&plan);
    stage_end(&st);
}

/* ---- states ---- */

static void states_are_entered_by_the_edges_of_a_table(void **state)
{
    static const struct {
        enum hky_recipient_state from, to;
        bool may;
    } CASES[] = {
        {HKY_RCPT_QUEUED, HKY_RCPT_SENDING, true},     {HKY_RCPT_SENDING, HKY_RCPT_DELIVERED, true},
        {HKY_RCPT_SENDING, HKY_RCPT_QUEUED, true},     {HKY_RCPT_HELD, HKY_RCPT_QUEUED, true},
        {HKY_RCPT_PARKED, HKY_RCPT_QUEUED, true},      {HKY_RCPT_UNDECIDED, HKY_RCPT_PARKED, true},
        {HKY_RCPT_QUEUED, HKY_RCPT_DELIVERED, false},  {HKY_RCPT_HELD, HKY_RCPT_SENDING, false},
        {HKY_RCPT_HELD, HKY_RCPT_DELIVERED, false},    {HKY_RCPT_PARKED, HKY_RCPT_SENDING, false},
        {HKY_RCPT_SENDING, HKY_RCPT_SENDING, false},   {HKY_RCPT_SENDING, HKY_RCPT_PARKED, false},
        {HKY_RCPT_UNDECIDED, HKY_RCPT_SENDING, false}, {HKY_RCPT_STATE_N, HKY_RCPT_QUEUED, false},
        {HKY_RCPT_QUEUED, HKY_RCPT_STATE_N, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(schedule_recipient_may_enter(CASES[i].from, CASES[i].to), CASES[i].may);
    for (unsigned from = HKY_RCPT_DELIVERED; from < HKY_RCPT_STATE_N; from++)
        for (unsigned to = 0; to < HKY_RCPT_STATE_N; to++)
            assert_false(schedule_recipient_may_enter((enum hky_recipient_state)from, (enum hky_recipient_state)to));
}

static void changes_of_state_are_traced(void **state)
{
    (void)state;
    struct stage st;
    FILE *file = tmpfile();
    char text[4096] = "";
    assert_non_null(file);
    stage_init(&st);
    st.r.log = hky_log_new(fileno(file), HKY_LOG_DEBUG);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    answer(&st, "ses", HKY_CLASS_SYSTEM_TEMP, true, 0);
    pass(&st, 5 * MINUTE);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    hky_plan_unref(&plan);
    struct hky_log *log = st.r.log;
    stage_end(&st);
    hky_log_free(&log);
    rewind(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    const char *at = text;
    static const char *const WANTED[] = {"queued -> sending", "sending -> queued", "queued -> sending",
                                         "sending -> delivered"};
    for (size_t i = 0; i < 4; i++) {
        at = strstr(at, WANTED[i]);
        assert_non_null(at);
        at++;
    }
    fclose(file);
}

/* Drained mail has two relays, the one that its step names and the one that sends. It is selected by either name,
 * whether it waits in a lane or for its next attempt. */
static void mail_is_selected_by_both_names_of_its_relay(void **state)
{
    static const struct {
        const char *relay;
        unsigned n;
    } CASES[] = {{"ses", 2}, {"own", 2}, {"old", 2}, {"new", 2}, {"other", 0}};
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    fake_relay(&st.policy, "own");
    fake_relay(&st.policy, "other");
    fake_relay(&st.policy, "old")->instead = "new";
    fake_relay(&st.policy, "new");
    stage_start(&st);
    struct hky_plan *drained = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_plan *replaced = fake_plan((struct hky_step[]){fake_step("old")}, 1);
    assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "ses", "own", 0, &e), HKY_OK);
    send(&st, drained);
    send(&st, replaced);
    answer(&st, "own", HKY_CLASS_SYSTEM_TEMP, true, 0);
    answer(&st, "new", HKY_CLASS_SYSTEM_TEMP, true, 0);
    send(&st, drained);
    send(&st, replaced);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        uint64_t n = ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.relay = CASES[i].relay}, NULL, 0);
        if (n != CASES[i].n)
            fail_msg("--relay %s selects %u", CASES[i].relay, (unsigned)n);
    }
    hky_plan_unref(&drained);
    hky_plan_unref(&replaced);
    stage_end(&st);
}

static unsigned lines_with(FILE *file, const char *what, char *last, size_t n)
{
    char line[2048];
    unsigned found = 0;
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strstr(line, what) == NULL)
            continue;
        found++;
        snprintf(last, n, "%s", line);
    }
    return found;
}

/* A reload that drops a route parks mail that was accepted long ago: nobody should have to look for that. */
static void parking_is_logged_at_once(void **state)
{
    (void)state;
    struct stage st;
    FILE *file = tmpfile();
    char last[2048] = "";
    assert_non_null(file);
    stage_init(&st);
    st.r.log = hky_log_new(fileno(file), HKY_LOG_INFO);
    fake_relay(&st.policy, "ses");
    stage_start(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    send(&st, plan);
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "ses");
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    pass(&st, 100);
    struct hky_job *job;
    assert_int_equal(take(&st, "ses", &job), HKY_TAKE_EMPTY); /* its plan is old: the policy has none now */
    assert_int_equal(lines_with(file, "ev=parked ", last, sizeof last), 1);
    assert_non_null(strstr(last, "rcpt=a@example.com why=\"no_route\""));
    pass(&st, 5 * MINUTE);
    assert_int_equal(lines_with(file, "ev=parked ", last, sizeof last), 1); /* it is asked again, which is no news */
    for (int i = 0; i < 50; i++) {                                          /* as accept hands on what nobody decides */
        struct hky_message *m =
            fake_message(st.next_id++, st.r.clock.stopped_at_ms, "", 1, (const char *const[]){"b@example.com"});
        m->recipients[0].state = HKY_RCPT_PARKED;
        m->recipients[0].reason = hky_strdup("no_route");
        hky_schedule_enqueue(st.r.schedule, 0, m);
    }
    turns(&st);
    assert_int_equal(lines_with(file, "ev=parked msg=", last, sizeof last), 1 + 10);
    assert_int_equal(lines_with(file, "left_out=", last, sizeof last), 0);
    pass(&st, 1000);
    assert_int_equal(lines_with(file, "left_out=", last, sizeof last), 1);
    assert_non_null(strstr(last, "ev=parked left_out=40 "));
    pass(&st, 1000);
    assert_int_equal(lines_with(file, "left_out=", last, sizeof last), 1);
    hky_plan_unref(&plan);
    struct hky_log *log = st.r.log;
    stage_end(&st);
    hky_log_free(&log);
    fclose(file);
}

/* Drained to a relay that is paused, the mail must come back when the drain ends, or follow a new one. */
static void the_end_of_a_drain_takes_mail_back_from_a_paused_relay(void **state)
{
    (void)state;
    for (int is_new_drain = 0; is_new_drain < 2; is_new_drain++) {
        struct stage st;
        struct hky_error e;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        fake_relay(&st.policy, "own");
        fake_relay(&st.policy, "rental");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        assert_int_equal(hky_schedule_pause(st.r.schedule, "own", 0, &e), HKY_OK);
        assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "ses", "own", 0, &e), HKY_OK);
        turns(&st);
        send(&st, plan);
        expect_wait(&st, "own");
        if (is_new_drain)
            assert_int_equal(hky_schedule_drain_relay(st.r.schedule, "ses", "rental", 0, &e), HKY_OK);
        else
            assert_int_equal(hky_schedule_resume(st.r.schedule, "ses", &e), HKY_OK);
        turns(&st);
        st.log[0] = '\0';
        answer(&st, is_new_drain ? "rental" : "ses", HKY_CLASS_OK, false, 0);
        expect(&st, is_new_drain ? "delivered:rental" : "delivered:ses");
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

static void an_unknown_relay_is_answered_with_the_nearest_name(void **state)
{
    (void)state;
    struct stage st;
    struct hky_error e;
    stage_init(&st);
    fake_relay(&st.policy, "rental");
    stage_start(&st);
    assert_int_equal(hky_schedule_use_up(st.r.schedule, "rentla", 60, &e), HKY_E_MISSING);
    assert_non_null(strstr(e.text, "did you mean \"rental\"?"));
    assert_int_equal(hky_schedule_pause(st.r.schedule, "rentla", 60, &e), HKY_E_MISSING);
    assert_non_null(strstr(e.text, "did you mean \"rental\"?"));
    stage_end(&st);
}

/* Names of the queue are remembered only while they are short enough to be kept; a longer one is known all the same. */
static void the_queue_knows_its_own_names(void **state)
{
    static const char LONG[] =
        "spring-spring-spring-spring-spring-spring-spring-spring-spring-spring-spring-spring-spring";
    static const struct {
        const char *wanted;
        bool is_known;
        const char *nearest;
    } CASES[] = {{"sale", true, ""}, {"sael", false, "sale"}, {"winter", false, ""}, {LONG, true, ""}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct stage st;
        struct question q;
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        send_to(&st, plan, "sale", 1, (const char *const[]){"a@example.com"});
        send_to(&st, plan, LONG, 1, (const char *const[]){"b@example.com"});
        question_ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.scenario = CASES[i].wanted}, &q);
        assert_int_equal(q.rq.scenario_seen.near.is_known, CASES[i].is_known);
        if (!CASES[i].is_known)
            assert_string_equal(q.rq.scenario_seen.nearest, CASES[i].nearest);
        assert_int_equal(q.rq.n, CASES[i].is_known);
        hky_buf_fini(&q.rows);
        hky_plan_unref(&plan);
        stage_end(&st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_of_a_drain_takes_mail_back_from_a_paused_relay),
        cmocka_unit_test(a_wish_is_kept_until_the_attempt_ends),
        cmocka_unit_test(a_wish_comes_true_when_the_job_is_given_back),
        cmocka_unit_test(a_wish_can_be_taken_back),
        cmocka_unit_test(relays_tell_who_waits_for_the_next_attempt),
        cmocka_unit_test(broken_domains_are_shown_and_resumed),
        cmocka_unit_test(an_unknown_relay_is_answered_with_the_nearest_name),
        cmocka_unit_test(the_queue_knows_its_own_names),
        cmocka_unit_test(a_lane_that_goes_takes_its_breaker_along),
        cmocka_unit_test(a_lane_made_while_a_reload_is_on_its_way_has_its_caps),
        cmocka_unit_test(holding_a_parked_one_does_not_age_it),
        cmocka_unit_test(states_are_entered_by_the_edges_of_a_table),
        cmocka_unit_test(changes_of_state_are_traced),
        cmocka_unit_test(mail_is_selected_by_both_names_of_its_relay),
        cmocka_unit_test(parking_is_logged_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
