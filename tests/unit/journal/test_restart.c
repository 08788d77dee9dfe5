/* A long queue over a restart. HKY_JOURNAL_N=1000000 gives the figure of DESIGN.md; the test itself runs a short one.
 */
#include "rig.h"

#include <malloc.h>

static void on_one(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    (void)durable;
    assert_int_equal(result, HKY_OK);
    free(c);
}

static void count_only(void *ctx, struct hky_message *m)
{
    (void)ctx;
    for (uint32_t n = n_unfinished(m); n > 0; n--) {
        struct hky_message *one = m;
        hky_message_unref(&one);
    }
}

static void a_long_queue_restarts_in_time(void **state)
{
    const char *text = getenv("HKY_JOURNAL_N");
    size_t n = text != NULL ? strtoull(text, NULL, 10) : 20000, size = 200;
    struct hky_journal_replay cb = {.on_message = count_only};
    struct rig r;
    int64_t started = hky_mono_ms();
    struct hky_journal_stats stats;

    (void)state;
    rig_init(&r);
    if (text != NULL)
        r.params.segment_octets = 64 << 20;
    else
        r.params.segment_octets = 1 << 20;
    r.params.body_memory = 0;
    rig_open(&r);
    for (size_t i = 1; i <= n; i++) {
        struct hky_message *m = make_message(&r, i, 1, size);
        struct hky_commit *c = calloc(1, sizeof *c);
        c->loop = r.loop;
        c->done = on_one;
        hky_journal_accept(r.j, m, c);
        hky_message_unref(&m);
        if (i % 64 == 0)
            hky_loop_turn(r.loop, 0);
        while (hky_journal_room(r.j, size) == HKY_E_STATE)
            hky_loop_turn(r.loop, 1);
        assert_int_equal(hky_journal_room(r.j, size), HKY_OK);
    }
    hky_journal_flush(r.j);
    hky_loop_turn(r.loop, 0);
    hky_journal_stats(r.j, &stats);
    if (text != NULL)
        print_message("accepted %zu in %lld ms, %llu commits\n", n, (long long)(hky_mono_ms() - started),
                      (unsigned long long)stats.commits);
    for (int round = 0; round < 2; round++) {
        int64_t before_ms;

        hky_journal_close(&r.j);
        before_ms = spent_ms();
        assert_int_equal(hky_journal_open(&r.params, &cb, &r.j, &r.report, &r.error), HKY_OK);
        assert_int_equal(r.report.recipients, n);
        if (text != NULL)
            print_message("replayed %llu in %lld ms, %llu octets read, %llu segments, heap %zu KB\n",
                          (unsigned long long)r.report.recipients, (long long)r.report.took_ms,
                          (unsigned long long)r.report.octets_read, (unsigned long long)r.report.segments,
                          mallinfo2().uordblks / 1024);
        assert_true(spent_ms() - before_ms < 3000 || n > 1000000);
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_long_queue_restarts_in_time)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
