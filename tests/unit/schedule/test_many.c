/*
 * Very many recipients: a question, an action or a reload over all of them must not keep the others waiting, and each
 * takes little memory. HKY_MANY=1000000 for the figures; by itself the test takes fewer.
 */
#include "unit/schedule/stage.h"

#include <malloc.h>

static unsigned many(void)
{
    const char *n = getenv("HKY_MANY");
    return n != NULL ? (unsigned)atoi(n) : 20000;
}

static struct hky_message *one(struct stage *st, struct hky_plan *plan, unsigned i)
{
    char address[64], subject[64], id[80];
    snprintf(address, sizeof address, "customer.%u@d%u.example", i, i % 500);
    snprintf(subject, sizeof subject, "Your order %u has been sent", i);
    snprintf(id, sizeof id, "<20261201100000.%u.ab12cd34@mail.shop.example>", i);
    struct hky_rcpt_draft rcpt = {.address = hky_str_z(address)};
    struct hky_message_draft d = {.id = i + 1,
                                  .accepted_at_ms = st->r.clock.stopped_at_ms,
                                  .size = 4096,
                                  .header_octets = 400,
                                  .recipients = &rcpt,
                                  .n_recipients = 1};
    d.facts[HKY_FACT_SENDER] = HKY_STR("bounces@shop.example");
    d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
    d.facts[HKY_FACT_AUTHOR_NAME] = HKY_STR("The Shop");
    d.facts[HKY_FACT_SCENARIO] = HKY_STR("spring");
    d.facts[HKY_FACT_CLIENT] = HKY_STR("127.0.0.1");
    d.facts[HKY_FACT_SOURCE] = HKY_STR("smtp");
    d.facts[HKY_FACT_HELLO] = HKY_STR("app.shop.example");
    d.facts[HKY_FACT_MESSAGE_ID] = hky_str_z(id);
    d.facts[HKY_FACT_SUBJECT] = hky_str_z(subject);
    struct hky_message *m = hky_message_new(&d);
    m->recipients[0].plan = hky_plan_ref(plan);
    m->recipients[0].policy = (uint32_t)st->policy.policy.hash;
    return m;
}

static void wake_nobody(void *ctx, unsigned worker, struct hky_lane *lane)
{
    (void)ctx, (void)worker, (void)lane;
}

static void let_go(void *ctx, unsigned worker, struct hky_lane *lane)
{
    (void)ctx, (void)worker, (void)lane;
}

static void be_quiet(struct stage *st)
{
    st->r.ops.wake = wake_nobody;
    st->r.ops.lane_end = let_go;
    st->r.event = NULL;
    st->r.is_forgetful = true;
}

/* A third waits in lanes, a third is deferred, a third parked. */
static void fill(struct stage *st, struct hky_plan *plan, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct hky_message *m = one(st, plan, i);
        if (i % 3 != 0)
            m->recipients[0].next_at_ms = st->r.clock.stopped_at_ms + HOUR + i;
        if (i % 3 == 2) {
            m->recipients[0].state = HKY_RCPT_PARKED;
            m->recipients[0].parked_at_ms = st->r.clock.stopped_at_ms;
            hky_plan_unref(&m->recipients[0].plan);
        }
        hky_schedule_restore_message(st->r.schedule, m);
    }
}

static int64_t longest_ns; /* turn of the loop */

static void turns_until(struct stage *st, bool (*is_over)(struct stage *st, void *ctx), void *ctx, const char *what)
{
    int64_t longest = 0, all = 0;
    unsigned n = 0;
    for (bool is_last = false; !is_last; n++) {
        int64_t began = hky_thread_cpu_ns();
        hky_loop_turn(st->r.loop, 0);
        int64_t took = hky_thread_cpu_ns() - began;
        longest = took > longest ? took : longest;
        all += took;
        is_last = is_over(st, ctx);
    }
    longest_ns = longest;
    print_message("%-24s %6u turns, the longest %6.2f ms, all %7.1f ms\n", what, n, (double)longest / 1e6,
                  (double)all / 1e6);
}

static bool is_answered(struct stage *st, void *ctx)
{
    (void)st;
    return *(bool *)ctx;
}

static bool is_settled(struct stage *st, void *ctx)
{
    struct hky_schedule_stats s;
    hky_schedule_stats(st->r.schedule, &s);
    return s.queued + s.deferred + s.parked + s.held >= *(unsigned *)ctx;
}

static bool is_asked(struct stage *st, void *ctx)
{
    struct hky_schedule_stats s;
    hky_schedule_stats(st->r.schedule, &s);
    return s.parked == 0 && s.queued + s.deferred + s.held >= *(unsigned *)ctx;
}

static uint64_t ask_all(struct stage *st, enum hky_queue_action action, struct hky_selection x, const char *what)
{
    bool is_done = false;
    struct hky_queue_request rq = {
        .selection = x, .action = action, .limit = 25, .loop = st->r.loop, .done = on_rows, .ctx = &is_done};
    hky_schedule_query(st->r.schedule, &rq);
    turns_until(st, is_answered, &is_done, what);
    return rq.n;
}

static void nobody_waits_for_a_look_at_all(void **state)
{
    unsigned n = many();
    struct stage st;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    fake_policy_init(&st.second, 22);
    fake_relay(&st.second, "own")->is_mx = true;
    be_quiet(&st);
    stage_open(&st);
    st.plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    size_t before = mallinfo2().uordblks;
    fill(&st, st.plan, n);
    hky_schedule_start(st.r.schedule);
    turns_until(&st, is_settled, &n, "start");
    size_t after = mallinfo2().uordblks;
    assert_int_equal(deferred_by(&st, "own"), (n + 1) / 3);
    if (after > before) /* not with a sanitizer's own memory */
        print_message("%zu octets a recipient in the schedule\n", (after - before) / n);
    assert_int_equal(ask_all(&st, HKY_QUEUE_LIST, (struct hky_selection){0}, "list"), n);
    assert_int_equal(ask_all(&st, HKY_QUEUE_LIST, (struct hky_selection){.to = "d7.example"}, "list --to"), n / 500);
    hky_schedule_set_policy(st.r.schedule, &st.second.policy);
    hky_loop_turn(st.r.loop, 0);
    turns_until(&st, is_asked, &n, "reload");
    assert_int_equal(ask_all(&st, HKY_QUEUE_LIST, (struct hky_selection){0}, "list"), n);
    assert_int_equal(ask_all(&st, HKY_QUEUE_HOLD, (struct hky_selection){0}, "hold"), n);
    assert_int_equal(deferred_by(&st, "own"), 0);
    assert_int_equal(ask_all(&st, HKY_QUEUE_RELEASE, (struct hky_selection){0}, "release"), n);
    assert_int_equal(ask_all(&st, HKY_QUEUE_CANCEL, (struct hky_selection){0}, "cancel"), n);
    struct hky_schedule_stats s;
    hky_schedule_stats(st.r.schedule, &s);
    assert_int_equal(s.queued + s.deferred + s.parked + s.held, 0);
    stage_end(&st);
    assert_int_equal(st.second.policy.refs, 1);
}

/* The queue moves while it is looked at: nobody is counted twice, nobody is left out. */
static void what_moves_is_seen_once(void **state)
{
    unsigned n = 6000;
    struct stage st;
    bool is_done = false;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    be_quiet(&st);
    stage_open(&st);
    st.plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    fill(&st, st.plan, n);
    hky_schedule_start(st.r.schedule);
    turns_until(&st, is_settled, &n, "start");
    struct hky_queue_request rq = {.limit = 25, .loop = st.r.loop, .done = on_rows, .ctx = &is_done};
    hky_schedule_query(st.r.schedule, &rq);
    for (unsigned i = 0; !is_done; i++) {
        hky_loop_turn(st.r.loop, 0);
        st.r.clock.stopped_at_ms = START + HOUR + i * 500; /* deferred and parked ones come due, and move */
        hky_schedule_tick(st.r.schedule, 0);
    }
    assert_int_equal(rq.n, n);
    stage_end(&st);
}

static void two_queries_wait_for_each_other(void **state)
{
    struct stage st;
    bool is_done[2] = {false, false};
    struct hky_queue_request rq[2];
    unsigned n = 3000;
    (void)state;
    stage_init(&st);
    fake_relay(&st.policy, "own")->is_mx = true;
    be_quiet(&st);
    stage_open(&st);
    st.plan = fake_plan((struct hky_step[]){fake_step("own")}, 1);
    fill(&st, st.plan, n);
    hky_schedule_start(st.r.schedule);
    turns_until(&st, is_settled, &n, "start");
    for (int i = 0; i < 2; i++) {
        rq[i] = (struct hky_queue_request){.limit = 1, .loop = st.r.loop, .done = on_rows, .ctx = &is_done[i]};
        hky_schedule_query(st.r.schedule, &rq[i]);
    }
    turns_until(&st, is_answered, &is_done[1], "two lists");
    assert_true(is_done[0]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(rq[i].n, n);
    /* the engine stops with one under way and one that waits: who asked lets go of what the question needs */
    struct hky_queue_request late[2];
    bool is_over[2] = {false, false};
    for (int i = 0; i < 2; i++) {
        late[i] = (struct hky_queue_request){.limit = 1, .loop = st.r.loop, .done = on_rows, .ctx = &is_over[i]};
        hky_schedule_query(st.r.schedule, &late[i]);
    }
    hky_loop_turn(st.r.loop, 0);
    assert_false(is_over[0]);
    hky_schedule_free(&st.r.schedule);
    for (int i = 0; i < 2; i++) {
        assert_true(is_over[i]);
        assert_int_equal(late[i].error.code, HKY_E_CLOSED);
    }
    stage_end(&st);
    assert_true(longest_ns > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_waits_for_a_look_at_all),
        cmocka_unit_test(what_moves_is_seen_once),
        cmocka_unit_test(two_queries_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
