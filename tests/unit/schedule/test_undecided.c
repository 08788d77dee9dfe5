/* Recipients about whom the policy has not decided yet: they wait for look-ups, or for their turn to be asked. */
#include "unit/schedule/stage.h"

#include "base/clock.h"

#include <stdlib.h>

static const struct hky_selection EVERYTHING;

/* What the policy says of each recipient, and what was asked of it. */
static enum hky_decision_kind kind;
static unsigned n_forgotten, n_asked;
static int64_t takes_ns;     /* how long it works each time */
static char order[4096];     /* domains in the order in which they were decided */
static unsigned crowd, room; /* decisions that wait, at most so many; room 0: no bound */

static void slow_decide(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out)
{
    struct stage *st = ctx;
    int64_t began = hky_mono_ns();

    (void)now_ms;
    n_asked++;
    while (hky_mono_ns() - began < takes_ns) {
    }
    *out = (struct hky_decision){.kind = kind};
    if (kind == HKY_WAITS && room > 0 && crowd == room)
        out->kind = HKY_CROWDED;
    else if (kind == HKY_WAITS)
        crowd++;
    snprintf(out->text, sizeof out->text, "mail hosts of x.example: no answer");
    if (kind == HKY_DECIDED) {
        size_t n = strlen(order);
        out->plan = hky_plan_ref(st->plan);
        if (n < sizeof order - 80)
            snprintf(order + n, sizeof order - n, "%.*s ", HKY_STR_ARG(hky_recipient_domain(r)));
    }
}

static void forget(void *ctx, unsigned worker, const struct hky_recipient *r)
{
    (void)ctx, (void)worker, (void)r;
    n_forgotten++;
}

static void begin(struct stage *st, enum hky_decision_kind first)
{
    stage_init(st);
    fake_relay(&st->policy, "ses");
    st->plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    st->r.decide = slow_decide;
    st->r.ops.forget = forget;
    kind = first;
    n_forgotten = n_asked = crowd = room = 0;
    takes_ns = 0;
    order[0] = '\0';
    stage_start(st);
}

/* As accept hands it on: no plan, undecided. No turn of the loop. */
static struct hky_message *send_undecided(struct stage *st, unsigned n, const char *const *to)
{
    struct hky_message *m = fake_message(st->next_id++, st->r.clock.stopped_at_ms, "", n, to);
    for (unsigned i = 0; i < n; i++) {
        m->recipients[i].state = HKY_RCPT_UNDECIDED;
        hky_message_ref(m);
    }
    hky_journal_accept(st->r.journal, m, NULL);
    hky_schedule_enqueue(st->r.schedule, 0, m);
    struct hky_message *mine = m;
    hky_message_unref(&mine);
    return m;
}

static uint64_t undecided(struct stage *st)
{
    struct hky_schedule_stats s;
    hky_schedule_stats(st->r.schedule, &s);
    return s.undecided;
}

static const char *const ONE[] = {"a@x.example"};

/* It was parked, the policy is corrected, and its look-up is not answered: its deadline counts all the same. */
static void a_deadline_ends_the_wait_for_a_look_up(void **state)
{
    struct stage st;
    (void)state;
    begin(&st, HKY_NO_ROUTE);
    struct hky_message *m = send_undecided(&st, 1, ONE);
    m->deadline_ms = START + 10 * MINUTE;
    hky_message_ref(m);
    turns(&st);
    assert_int_equal(m->recipients[0].state, HKY_RCPT_PARKED);
    kind = HKY_UNANSWERED;
    pass(&st, 5 * MINUTE);
    assert_int_equal(m->recipients[0].state, HKY_RCPT_UNDECIDED);
    pass(&st, 4 * MINUTE);
    assert_int_equal(m->recipients[0].state, HKY_RCPT_UNDECIDED);
    pass(&st, MINUTE);
    expect(&st, "parked expired");
    assert_int_equal(m->recipients[0].state, HKY_RCPT_EXPIRED);
    hky_message_unref(&m);
    stage_end(&st);
}

static void it_is_decided_when_the_answer_is_there(void **state)
{
    struct stage st;
    char rows[4096];
    (void)state;
    begin(&st, HKY_WAITS);
    struct hky_message *m = send_undecided(&st, 1, ONE);
    turns(&st);
    assert_int_equal(undecided(&st), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_LIST, (struct hky_selection){.state = "undecided"}, rows, sizeof rows), 1);
    assert_non_null(strstr(rows, "a@x.example undecided by"));
    kind = HKY_DECIDED;
    turns(&st);
    assert_int_equal(n_asked, 1); /* not before */
    hky_schedule_answered(st.r.schedule, 0, &m->recipients[0]);
    assert_int_equal(n_asked, 1); /* and not from inside */
    turns(&st);
    assert_int_equal(undecided(&st), 0);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "decided delivered:ses");
    assert_int_equal(n_forgotten, 0);
    stage_end(&st);
}

static void operators_hold_release_retry_and_cancel(void **state)
{
    struct stage st;
    (void)state;
    begin(&st, HKY_WAITS);
    send_undecided(&st, 1, ONE);
    turns(&st);
    assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 1);
    assert_int_equal(n_forgotten, 1);
    assert_int_equal(undecided(&st), 0);
    assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
    assert_int_equal(undecided(&st), 1);
    assert_int_equal(ask(&st, HKY_QUEUE_RETRY, EVERYTHING, NULL, 0), 1);
    assert_int_equal(n_forgotten, 2);
    assert_int_equal(n_asked, 3);
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, EVERYTHING, NULL, 0), 1);
    assert_int_equal(n_forgotten, 3);
    assert_int_equal(undecided(&st), 0);
    expect(&st, "held released released cancelled");
    stage_end(&st);
}

/* It had a plan before, a reload made it undecided: once it is decided, nothing says that it waits for a look-up. */
static void no_reason_is_left_when_it_is_decided(void **state)
{
    enum how { ANSWERED, ASKED_AGAIN, RETRIED, HELD, TAKEN_BACK };
    static const struct {
        const char *name;
        enum hky_decision_kind second; /* what the policy says after the reload */
        enum how how;
    } CASES[] = {
        {"answered", HKY_WAITS, ANSWERED},
        {"asked again after a failure", HKY_UNANSWERED, ASKED_AGAIN},
        {"an operator retries a look-up that waits", HKY_WAITS, RETRIED},
        {"an operator retries a look-up that failed", HKY_UNANSWERED, RETRIED},
        {"held and released", HKY_UNANSWERED, HELD},
        {"the old policy comes back while it waits", HKY_WAITS, TAKEN_BACK},
        {"the old policy comes back after a failure", HKY_UNANSWERED, TAKEN_BACK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_error e;
        begin(&st, HKY_DECIDED);
        struct hky_message *m = send_undecided(&st, 1, ONE);
        struct hky_recipient *r = &m->recipients[0];
        assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
        turns(&st);
        fake_policy_init(&st.second, 22);
        fake_relay(&st.second, "ses");
        kind = CASES[i].second;
        hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        assert_int_equal(r->state, HKY_RCPT_UNDECIDED);
        assert_string_equal(r->reason, "mail hosts of x.example: no answer");
        kind = HKY_DECIDED;
        if (CASES[i].how == ANSWERED)
            hky_schedule_answered(st.r.schedule, 0, r);
        else if (CASES[i].how == RETRIED)
            assert_int_equal(ask(&st, HKY_QUEUE_RETRY, EVERYTHING, NULL, 0), 1);
        else if (CASES[i].how == HELD)
            assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 1);
        else if (CASES[i].how == TAKEN_BACK)
            hky_schedule_set_policy(st.r.schedule, &st.policy.policy);
        if (CASES[i].how == HELD)
            assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
        turns(&st);
        pass(&st, CASES[i].how == ASKED_AGAIN || CASES[i].how == TAKEN_BACK ? 5 * MINUTE : 0);
        print_message("%s\n", CASES[i].name);
        assert_int_equal(r->state, HKY_RCPT_QUEUED);
        assert_null(r->reason);
        assert_int_equal(r->parked_times, 0);
        stage_end(&st);
    }
}

/* 1 m, 5 m, 15 m, then hourly, until the time to deliver is over: two days here. */
static void a_look_up_that_fails_is_repeated(void **state)
{
    static const int64_t AFTER[] = {MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, HOUR};
    struct stage st;
    char rows[4096];
    (void)state;
    begin(&st, HKY_UNANSWERED);
    send_undecided(&st, 1, ONE);
    turns(&st);
    for (unsigned i = 0; i < sizeof AFTER / sizeof AFTER[0]; i++) {
        assert_int_equal(n_asked, i + 1);
        pass(&st, AFTER[i] - 1000);
        assert_int_equal(n_asked, i + 1);
        pass(&st, 1000);
        assert_int_equal(n_asked, i + 2);
    }
    ask(&st, HKY_QUEUE_LIST, EVERYTHING, rows, sizeof rows);
    assert_non_null(strstr(rows, ": mail hosts of x.example: no answer;"));
    kind = HKY_DECIDED;
    pass(&st, HOUR);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "undecided decided delivered:ses"); /* told once */
    kind = HKY_UNANSWERED;
    send_undecided(&st, 1, ONE);
    turns(&st);
    for (int i = 0; i < 100; i++)
        pass(&st, HOUR);
    expect(&st, "undecided expired");
    stage_end(&st);
}

/* A plan with its own `expire`, or with none: 0. */
static struct hky_plan *plan_for(uint32_t expire_sec)
{
    struct hky_plan *plain = fake_plan((struct hky_step[]){fake_step("ses")}, 1), *draft = malloc(sizeof *draft), *plan;
    struct hky_error e;
    *draft = *plain;
    draft->expire_sec = expire_sec != 0 ? expire_sec : HKY_UNSET_SEC;
    assert_int_equal(hky_plan_new(draft, &plan, &e), HKY_OK);
    free(draft);
    hky_plan_unref(&plain);
    return plan;
}

/* Accept stores what engine.expire says, because it knows no plan. What holds is the plan that the policy gives. */
static void it_expires_as_the_plan_says(void **state)
{
    enum { DAY_MIN = 24 * 60 };
    static const struct {
        const char *name;
        enum hky_decision_kind first;                       /* what the policy says when it is asked first */
        uint32_t expire_sec;                                /* of the plan */
        int waits_min, held_min, deadline_min, expires_min; /* since it was accepted; 0: not */
    } CASES[] = {
        {"decided at once, shorter", HKY_DECIDED, 600, 0, 0, 0, 10},
        {"decided at once, longer", HKY_DECIDED, 5 * 86400, 0, 0, 0, 5 * DAY_MIN},
        {"decided at once, as the engine", HKY_DECIDED, 0, 0, 0, 0, 2 * DAY_MIN},
        {"waits for an answer, shorter", HKY_WAITS, 600, 2, 0, 0, 10},
        {"waits for an answer, longer", HKY_WAITS, 5 * 86400, 2, 0, 0, 5 * DAY_MIN},
        {"a look-up fails once", HKY_UNANSWERED, 600, 1, 0, 0, 10},
        {"a deadline before it", HKY_WAITS, 600, 2, 0, 5, 5},
        {"a deadline after it", HKY_WAITS, 600, 2, 0, 60, 10},
        {"parked, shorter", HKY_NO_ROUTE, 600, 5, 0, 0, 15},
        {"parked, longer", HKY_NO_ROUTE, 5 * 86400, 5, 0, 0, 5 * DAY_MIN + 5},
        {"held for three days while undecided", HKY_WAITS, 600, 0, 3 * DAY_MIN, 0, 3 * DAY_MIN + 10},
        {"held after it was parked", HKY_NO_ROUTE, 600, 4, 60, 0, 64 + 10},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        begin(&st, CASES[i].first);
        hky_plan_unref(&st.plan);
        st.plan = plan_for(CASES[i].expire_sec);
        struct hky_message *m = fake_message(st.next_id++, START, "", 1, ONE);
        struct hky_recipient *r = &m->recipients[0];
        m->deadline_ms = CASES[i].deadline_min != 0 ? START + CASES[i].deadline_min * MINUTE : 0;
        r->expire_at_ms = START + 2 * 24 * HOUR;
        if (m->deadline_ms != 0)
            r->expire_at_ms = m->deadline_ms;
        r->state = HKY_RCPT_UNDECIDED;
        hky_message_ref(m);
        hky_journal_accept(st.r.journal, m, NULL);
        hky_schedule_enqueue(st.r.schedule, 0, m);
        turns(&st);
        if (CASES[i].first == HKY_WAITS || CASES[i].held_min != 0)
            pass(&st, CASES[i].waits_min * MINUTE);
        if (CASES[i].held_min != 0) {
            assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 1);
            pass(&st, CASES[i].held_min * MINUTE);
        }
        kind = HKY_DECIDED;
        if (CASES[i].held_min != 0) {
            assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
        } else if (CASES[i].first == HKY_WAITS) {
            hky_schedule_answered(st.r.schedule, 0, r);
            turns(&st);
        } else {
            pass(&st, CASES[i].waits_min * MINUTE);
        }
        if (r->state != HKY_RCPT_QUEUED || r->expire_at_ms != START + CASES[i].expires_min * MINUTE)
            fail_msg("%s: expires after %lld min", CASES[i].name, (long long)((r->expire_at_ms - START) / MINUTE));
        st.log[0] = '\0';
        pass(&st, r->expire_at_ms - hky_clock_now_ms(&st.r.clock) - 1);
        expect(&st, "");
        pass(&st, 1);
        expect(&st, "expired");
        hky_message_unref(&m);
        stage_end(&st);
    }
}

/* A new policy gives another time to live to whoever was not tried: what did not count before does not count now. */
static void another_plan_keeps_what_did_not_count(void **state)
{
    static const struct {
        const char *name;
        uint32_t first_sec, then_sec; /* expire of the two plans */
        int parked_min, held_min;     /* between the two */
        int expires_min;              /* since it was accepted */
    } CASES[] = {
        {"shorter", 86400, 600, 0, 0, 10},
        {"longer", 600, 86400, 0, 0, 24 * 60},
        {"held for a day", 86400, 600, 0, 24 * 60, 24 * 60 + 10},
        {"parked, then another", 86400, 600, 5, 0, 15},
        {"parked, then the same", 86400, 86400, 5, 0, 24 * 60 + 5},
        {"parked, then the engine's", 600, 0, 5, 0, 48 * 60 + 5},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct stage st;
        struct hky_error e;
        begin(&st, HKY_DECIDED);
        hky_plan_unref(&st.plan);
        st.plan = plan_for(CASES[i].first_sec);
        struct hky_message *m = send_undecided(&st, 1, ONE);
        struct hky_recipient *r = &m->recipients[0];
        assert_int_equal(hky_schedule_pause(st.r.schedule, "ses", 0, &e), HKY_OK);
        turns(&st);
        assert_int_equal(r->expire_at_ms, START + CASES[i].first_sec * INT64_C(1000));
        kind = CASES[i].parked_min != 0 ? HKY_NO_ROUTE : HKY_DECIDED;
        hky_plan_unref(&st.plan);
        st.plan = plan_for(CASES[i].then_sec);
        if (CASES[i].held_min != 0)
            assert_int_equal(ask(&st, HKY_QUEUE_HOLD, EVERYTHING, NULL, 0), 1);
        pass(&st, CASES[i].held_min * MINUTE);
        fake_policy_init(&st.second, 22);
        fake_relay(&st.second, "ses");
        hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        if (CASES[i].held_min != 0)
            assert_int_equal(ask(&st, HKY_QUEUE_RELEASE, EVERYTHING, NULL, 0), 1);
        kind = HKY_DECIDED;
        pass(&st, CASES[i].parked_min * MINUTE);
        assert_int_equal(hky_schedule_resume(st.r.schedule, "ses", &e), HKY_OK);
        turns(&st);
        if (r->state != HKY_RCPT_QUEUED || r->expire_at_ms != START + CASES[i].expires_min * MINUTE)
            fail_msg("%s: state %d, expires after %lld min", CASES[i].name, r->state,
                     (long long)((r->expire_at_ms - START) / MINUTE));
        st.log[0] = '\0';
        stage_end(&st);
    }
}

/* A policy that works 0.5 ms for each of 384: other mail is decided and sent in between. */
static void many_do_not_hold_up_one(void **state)
{
    enum { N = 64, MESSAGES = 6 };
    static char text[N][32];
    const char *to[N];
    struct stage st;
    unsigned before;
    (void)state;
    begin(&st, HKY_DECIDED);
    takes_ns = 500000;
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "a%d@many.example", i);
        to[i] = text[i];
    }
    for (int i = 0; i < MESSAGES; i++)
        send_undecided(&st, N, to);
    assert_in_range(n_asked, 1, 10); /* the rest waits for its turn */
    send_undecided(&st, 1, ONE);
    for (int i = 0; i < 8 && strstr(order, "x.example") == NULL; i++) {
        before = n_asked;
        hky_loop_turn(st.r.loop, 0);
        assert_in_range(n_asked - before, 0, 10);
    }
    assert_non_null(strstr(order, "x.example"));
    assert_in_range(n_asked, 2, N);
    takes_ns = 0;
    turns(&st);
    assert_int_equal(undecided(&st), 0);
    assert_int_equal(n_asked, N * MESSAGES + 1);
    st.log[0] = '\0';
    stage_end(&st);
}

/* The same for those who are parked and asked again by a new policy, and for plans of an older one in a lane. */
static void a_reload_asks_in_portions(void **state)
{
    enum { N = 300 };
    struct stage st;
    (void)state;
    for (int is_queued = 0; is_queued < 2; is_queued++) {
        begin(&st, is_queued ? HKY_DECIDED : HKY_NO_ROUTE);
        for (int i = 0; i < N; i++)
            send_undecided(&st, 1, ONE);
        turns(&st);
        kind = HKY_DECIDED;
        n_asked = 0;
        takes_ns = 500000;
        fake_policy_init(&st.second, 12);
        fake_relay(&st.second, "ses");
        hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        for (int i = 0; i < 3; i++)
            hky_loop_turn(st.r.loop, 0);
        assert_in_range(n_asked, 1, 30);
        takes_ns = 0;
        turns(&st);
        assert_int_equal(undecided(&st), 0);
        assert_int_equal(n_asked, N);
        st.log[0] = '\0';
        stage_end(&st);
    }
}

static void so_many_wait_that_others_wait_for_a_place(void **state)
{
    enum { N = 30 };
    struct stage st;
    struct hky_message *m[N];
    unsigned asked;
    (void)state;
    begin(&st, HKY_WAITS);
    room = 10;
    for (int i = 0; i < N; i++)
        m[i] = send_undecided(&st, 1, ONE);
    turns(&st);
    assert_int_equal(crowd, 10);
    assert_int_equal(undecided(&st), N);
    asked = n_asked;
    turns(&st);
    assert_int_equal(n_asked, asked); /* nobody is asked in vain, again and again */
    kind = HKY_DECIDED;
    hky_schedule_answered(st.r.schedule, 0, &m[0]->recipients[0]);
    turns(&st);
    assert_int_equal(undecided(&st), 9); /* those who wait for an answer; the others had their turn */
    assert_int_equal(ask(&st, HKY_QUEUE_CANCEL, (struct hky_selection){.state = "undecided"}, NULL, 0), 9);
    st.log[0] = '\0';
    stage_end(&st);
}

static void after_a_restart_it_is_decided_afresh(void **state)
{
    struct stage st;
    struct hky_error e;
    struct hky_buf b;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    st.plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *m = fake_message(77, START, "", 1, ONE);
    struct hky_recipient *r = &m->recipients[0];
    r->state = HKY_RCPT_UNDECIDED;
    r->next_at_ms = START + HOUR; /* it waited for a look-up to be repeated */
    hky_buf_init(&b, 4096);
    hky_recipient_encode_state(r, &b);
    assert_int_equal(hky_recipient_decode_state(r, hky_buf_str(&b), NULL, NULL, &e), HKY_OK);
    assert_int_equal(r->state, HKY_RCPT_UNDECIDED); /* not parked: nothing is wrong with the policy */
    hky_buf_fini(&b);
    stage_open(&st);
    hky_schedule_restore_message(st.r.schedule, m);
    hky_rehearsal_start(&st.r);
    assert_int_equal(st.n_decides, 1);
    answer(&st, "ses", HKY_CLASS_OK, false, 0);
    expect(&st, "decided delivered:ses");
    stage_end(&st);
}

/* A stop in the middle: those who wait, and those who are to be asked. */
static void a_stop_frees_everybody(void **state)
{
    struct stage st;
    (void)state;
    begin(&st, HKY_WAITS);
    room = 2;
    for (int i = 0; i < 5; i++)
        send_undecided(&st, 1, ONE);
    turns(&st);
    assert_int_equal(undecided(&st), 5);
    stage_end(&st);
}

/* ---- operators' expressions that take long ---- */

static unsigned n_held;

static bool slow_where(void *ctx, unsigned worker, const struct hky_recipient *r)
{
    int64_t began = hky_mono_ns();
    (void)ctx, (void)worker, (void)r;
    n_held++;
    while (hky_mono_ns() - began < 500000) {
    }
    return false;
}

static void on_answered(struct hky_queue_request *rq)
{
    *(bool *)rq->ctx = true;
}

/* Those that wait and those that are being sent alike: a few at a time, and other work in between. */
static void a_slow_expression_holds_up_nobody(void **state)
{
    enum { N = 64 };
    static const char *to[N];
    struct stage st;
    (void)state;
    for (int is_sending = 0; is_sending < 2; is_sending++) {
        struct hky_job *job = NULL;
        bool is_done = false;
        unsigned most = 0;
        begin(&st, HKY_DECIDED);
        for (int i = 0; i < N; i++)
            to[i] = ONE[0];
        send_undecided(&st, N, to);
        turns(&st);
        if (is_sending)
            assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        n_held = 0;
        struct hky_queue_request rq = {.selection = {.where = "slow"},
                                       .action = HKY_QUEUE_LIST,
                                       .loop = st.r.loop,
                                       .done = on_answered,
                                       .ctx = &is_done,
                                       .where_is_true = slow_where};
        hky_schedule_query(st.r.schedule, &rq);
        for (int i = 0; i < 10000 && !is_done; i++) {
            unsigned before = n_held;
            hky_loop_turn(st.r.loop, 0);
            most = n_held - before > most ? n_held - before : most;
        }
        assert_true(is_done);
        assert_int_equal(n_held, N);
        assert_in_range(most, 1, 8);
        if (job != NULL)
            hky_schedule_give_back(&job);
        turns(&st);
        st.log[0] = '\0';
        stage_end(&st);
    }
}

static bool is_by_second; /* has the worker's vm the second policy already? */

static void decide_by_policy(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out)
{
    struct stage *st = ctx;
    struct hky_step step = fake_step(is_by_second ? "new" : "ses");

    (void)r, (void)now_ms;
    n_asked++;
    *out = (struct hky_decision){.kind = HKY_DECIDED, .plan = fake_plan(&step, 1)};
    out->policy = (uint32_t)(is_by_second ? st->second : st->policy).policy.hash;
}

static void begin_reload(struct stage *st)
{
    begin(st, HKY_DECIDED);
    fake_policy_init(&st->second, 22);
    fake_relay(&st->second, "ses");
    fake_relay(&st->second, "new");
    st->r.decide = decide_by_policy;
    is_by_second = true;
}

/* In a reload the functions of the new policy decide before the schedule has its relays. */
static void a_relay_of_the_policy_that_is_coming_is_waited_for(void **state)
{
    (void)state;
    for (int has_plan = 0; has_plan < 2; has_plan++) {
        struct stage st;
        begin_reload(&st);
        struct hky_step step = fake_step("new");
        struct hky_plan *plan = fake_plan(&step, 1);
        struct hky_message *m = fake_message(st.next_id++, START, "", 1, ONE);
        m->recipients[0].state = has_plan ? HKY_RCPT_QUEUED : HKY_RCPT_UNDECIDED;
        m->recipients[0].plan = has_plan ? hky_plan_ref(plan) : NULL;
        m->recipients[0].policy = has_plan ? 22 : 0;
        hky_message_ref(m);
        hky_journal_accept(st.r.journal, m, NULL);
        hky_schedule_enqueue(st.r.schedule, 0, m);
        hky_message_unref(&m);
        turns(&st);
        assert_int_equal(undecided(&st), 1);
        assert_true(n_asked <= 3); /* it waits and does not ask again and again */
        pass(&st, 1000);
        assert_int_equal(undecided(&st), 1); /* a worker may be that slow */
        assert_true(n_asked <= 5);
        hky_schedule_set_policy(st.r.schedule, &st.second.policy);
        turns(&st);
        pass(&st, 1000);
        answer(&st, "new", HKY_CLASS_OK, false, 0);
        expect(&st, has_plan ? "delivered:new" : "decided delivered:new");
        assert_int_equal(undecided(&st), 0);
        hky_plan_unref(&plan);
        stage_end(&st);
        assert_int_equal(st.second.policy.refs, 1);
    }
}

/* The other way round: the schedule has the new policy, without a relay that the old one still names. */
static void a_plan_with_a_relay_that_is_going_is_made_again(void **state)
{
    (void)state;
    struct stage st;
    begin_reload(&st);
    is_by_second = false;
    st.second.policy.n_relays = 0;
    fake_relay(&st.second, "new");
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    turns(&st);
    send_undecided(&st, 1, ONE);
    turns(&st);
    assert_int_equal(undecided(&st), 1);
    is_by_second = true;
    pass(&st, 1000);
    answer(&st, "new", HKY_CLASS_OK, false, 0);
    expect(&st, "decided delivered:new");
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_relay_of_the_policy_that_is_coming_is_waited_for),
        cmocka_unit_test(a_plan_with_a_relay_that_is_going_is_made_again),
        cmocka_unit_test(it_is_decided_when_the_answer_is_there),
        cmocka_unit_test(a_deadline_ends_the_wait_for_a_look_up),
        cmocka_unit_test(operators_hold_release_retry_and_cancel),
        cmocka_unit_test(no_reason_is_left_when_it_is_decided),
        cmocka_unit_test(a_look_up_that_fails_is_repeated),
        cmocka_unit_test(it_expires_as_the_plan_says),
        cmocka_unit_test(another_plan_keeps_what_did_not_count),
        cmocka_unit_test(many_do_not_hold_up_one),
        cmocka_unit_test(a_reload_asks_in_portions),
        cmocka_unit_test(so_many_wait_that_others_wait_for_a_place),
        cmocka_unit_test(after_a_restart_it_is_decided_afresh),
        cmocka_unit_test(a_stop_frees_everybody),
        cmocka_unit_test(a_slow_expression_holds_up_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
