/* The list of its records that a closed segment ends with: how long making it takes, and how long it may get. The
 * plans that a message lists. */
#include "segments.h"

#include <time.h>

#define LIST_MAX (64u << 10)

/* One message to many recipients, which make_message has no room for. */
static struct hky_message *make_to_many(uint64_t id, uint32_t n)
{
    struct hky_rcpt_draft *rcpts = calloc(n, sizeof *rcpts);
    char(*addresses)[32] = calloc(n, sizeof *addresses);
    struct hky_message_draft d = {.id = id, .size = 1, .n_recipients = n, .recipients = rcpts};
    struct hky_message *m;

    for (uint32_t i = 0; i < n; i++) {
        snprintf(addresses[i], sizeof addresses[i], "user%u@example.jp", i);
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_z(addresses[i]), .orcpt = HKY_STR("")};
    }
    d.facts[HKY_FACT_SENDER] = HKY_STR("shop@example.com");
    m = hky_message_new(&d);
    m->body = hky_body_new(strdup("x"), 1, 1);
    free(addresses);
    free(rcpts);
    return m;
}

static void put_to_many(struct rig *r, struct hky_message *m)
{
    assert_int_equal(rig_accept(r, m), HKY_OK);
    for (uint32_t i = 1; i < m->n_recipients; i++)
        hky_message_ref(m);
    assert_null(hky_idmap_put(&r->found, m->id, m));
}

static int64_t my_cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void closing_takes_as_long_as_its_list_whatever_the_recipients(void **state)
{
    enum { N = 50000, CPU_MS = 2000 }; /* each attempt compared with each recipient takes many times as long */
    struct hky_message *m;
    struct rig r;
    int64_t began;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 64 << 20;
    rig_open(&r);
    m = make_to_many(1, N);
    for (uint32_t i = 0; i < N; i++)
        m->recipients[i].plan = hky_plan_ref(r.plan);
    put_to_many(&r, m);
    for (unsigned round = 1; round <= 2; round++)
        for (uint32_t i = 0; i < N; i++) {
            m->recipients[i].tries = (uint8_t)(round + i % 3);
            hky_journal_attempt(r.j, &m->recipients[i], NULL);
        }
    hky_journal_flush(r.j);
    rig_forget(&r);
    began = my_cpu_ms();
    hky_journal_close(&r.j); /* it closes the segment on this thread */
    assert_in_range(my_cpu_ms() - began, 0, CPU_MS);
    rig_open(&r);
    assert_int_equal(r.report.recipients, N);
    m = hky_idmap_get(&r.found, 1);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(m->recipients[i].tries, 2 + i % 3);
    rig_fini(&r);
}

/* A policy may compute another plan for each recipient. */
static void a_plan_for_each_recipient_takes_as_long_as_there_are_recipients(void **state)
{
    enum { N = 40000, CPU_MS = 2000 };
    struct hky_message *m = make_to_many(1, N);
    char relay[32];
    struct rig r;
    int64_t began;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 64 << 20;
    rig_open(&r);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(relay, sizeof relay, "relay-%u", i);
        m->recipients[i].plan = make_plan(relay);
    }
    began = my_cpu_ms();
    put_to_many(&r, m);
    assert_in_range(my_cpu_ms() - began, 0, CPU_MS);
    rig_close(&r);
    rig_open(&r);
    m = hky_idmap_get(&r.found, 1);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(relay, sizeof relay, "relay-%u", i);
        assert_string_equal(m->recipients[i].plan->steps[0].relay, relay);
    }
    rig_fini(&r);
}

static void put_some(struct rig *r, uint64_t first, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rig_put(r, first + i, 1, 100);
}

static void check_some(struct rig *r, uint64_t first, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rig_check_body(r, hky_idmap_get(&r->found, first + i));
}

/* Small records in a large segment: its list is full long before the segment is. */
static void a_segment_is_closed_when_its_list_is_full(void **state)
{
    enum { N = 1200, N_KEPT = N - N / 3 };
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 8 << 20;
    r.params.footer_max = LIST_MAX;
    r.params.cold_after_ms = 3600 * 1000;
    rig_open(&r);
    put_some(&r, 1, N);
    assert_true(n_segments(&r) > 2);
    for (uint64_t id = 3; id <= N; id += 3)
        rig_finish(&r, hky_idmap_get(&r.found, id), 0);
    hky_journal_flush(r.j);
    for (int round = 0; round < 2; round++) {
        rig_close(&r);
        rig_open(&r);
        assert_int_equal(r.report.messages, N_KEPT);
        for (uint64_t id = 1; id <= N; id++)
            assert_int_equal(hky_idmap_get(&r.found, id) != NULL, id % 3 != 0);
    }
    rig_fini(&r);
}

/* What lives on is copied into segments whose lists are bounded, too. */
static void copies_stay_within_their_lists(void **state)
{
    enum { N = 1200 };
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 1 << 20;
    r.params.footer_max = LIST_MAX;
    r.params.cold_after_ms = 1;
    rig_open(&r);
    put_some(&r, 1, N); /* each segment is closed early, and so has little in it */
    wait_until(rig_stats(&r).cold_segments > 2);
    rig_rounds(&r, 3);
    for (int round = 0; round < 2; round++) {
        rig_close(&r);
        rig_open(&r);
        assert_int_equal(r.report.messages, N);
    }
    check_some(&r, 1, N);
    rig_fini(&r);
}

/* An engine that listed more wrote this one, and was killed. */
static void a_segment_with_more_than_a_list_holds_is_read_whole(void **state)
{
    enum { N = 800 };
    struct rig r, crashed;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 1 << 20;
    rig_open(&r);
    put_some(&r, 1, N);
    rig_init(&crashed);
    copy_spool(r.dir, crashed.dir);
    rig_fini(&r);
    crashed.params.segment_octets = 1 << 20;
    crashed.params.footer_max = LIST_MAX;
    crashed.params.cold_after_ms = 3600 * 1000;
    for (int round = 0; round < 3; round++) {
        rig_open(&crashed);
        assert_int_equal(crashed.report.messages, N + round);
        assert_int_equal(crashed.report.damaged_records, 0);
        put_some(&crashed, 5000 + (uint64_t)round, 1);
        if (round < 2)
            rig_close(&crashed);
    }
    check_some(&crashed, 1, N);
    rig_fini(&crashed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closing_takes_as_long_as_its_list_whatever_the_recipients),
        cmocka_unit_test(a_plan_for_each_recipient_takes_as_long_as_there_are_recipients),
        cmocka_unit_test(a_segment_is_closed_when_its_list_is_full),
        cmocka_unit_test(copies_stay_within_their_lists),
        cmocka_unit_test(a_segment_with_more_than_a_list_holds_is_read_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
