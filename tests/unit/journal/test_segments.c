/* Segments become free, and nothing that is still true goes with them. */
#include "segments.h"
#include "still.h"

/* One deferred recipient in the oldest segment; everything after it is delivered over and over. */
static void a_pinned_segment_never_brings_finished_mail_back(void **state)
{
    struct rig *r = *state;
    struct hky_message *pinned = rig_put(r, 1, 1, 1000), *mates[20];
    uint64_t id = 100;

    for (int i = 0; i < 20; i++)
        mates[i] = rig_put(r, (uint64_t)(2 + i), 1, 1000);
    for (int restart = 0; restart < 5; restart++) {
        for (int i = 0; i < 200; i++)
            rig_finish(r, rig_put(r, id++, 1, 2000), 0);
        if (restart == 0)
            for (int i = 0; i < 20; i++) /* finished far from where they were accepted */
                rig_finish(r, mates[i], 0);
        pinned = hky_idmap_get(&r->found, 1);
        pinned->recipients[0].tries = (uint8_t)(restart + 1);
        hky_journal_attempt(r->j, &pinned->recipients[0], NULL);
        hky_journal_flush(r->j);
        for (int i = 0; i < 200; i++)
            rig_finish(r, rig_put(r, id++, 1, 2000), 0);
        hky_journal_flush(r->j);
        wait_until(n_segments(r) <= 3); /* the pinned, the hot, one on its way */
        rig_close(r);
        rig_open(r);
        assert_int_equal(r->report.messages, 1);
        pinned = hky_idmap_get(&r->found, 1);
        assert_non_null(pinned);
        assert_int_equal(pinned->recipients[0].tries, restart + 1);
        rig_check_body(r, pinned);
    }
}

static void what_the_disk_shows_after_a_crash_is_never_resent(void **state)
{
    struct rig *r = *state, crashed;
    uint64_t id = 100;

    rig_close(r);
    r->params.io = &still_io;
    rig_open(r);
    rig_put(r, 1, 2, 1000);
    for (int copy = 0; copy < 12; copy++) {
        for (int i = 0; i < 60; i++)
            rig_finish(r, rig_put(r, id++, 1, 3000), 0);
        hky_journal_flush(r->j);
        rig_init(&crashed);
        copy_still(r->dir, crashed.dir); /* maintenance may be at any point */
        rig_open(&crashed);
        assert_int_equal(crashed.report.messages, 1);
        assert_non_null(hky_idmap_get(&crashed.found, 1));
        rig_fini(&crashed);
    }
}

static void caps_outlive_the_segments_they_were_written_in(void **state)
{
    struct rig *r = *state;
    uint64_t id = 100;

    hky_journal_cap(r->j, HKY_STR("relay"), HKY_STR("42"), NULL);
    for (int i = 0; i < 300; i++)
        rig_finish(r, rig_put(r, id++, 1, 2000), 0);
    hky_journal_flush(r->j);
    wait_until(n_segments(r) <= 2);
    rig_close(r);
    rig_open(r);
    assert_string_equal(hky_map_get(&r->caps, HKY_STR("relay")), "42");
}

/* Who waits has its newest attempt somewhere: more of them than a segment holds would be written again without end,
 * were each segment full of them emptied at once. */
static void many_who_wait_leave_the_journal_at_rest(void **state)
{
    struct rig *r = *state;
    struct hky_journal_stats was, is;
    enum { N = 600 };
    int round = 0;

    for (uint64_t id = 1; id <= N; id++)
        rig_put(r, id, 1, 500);
    for (uint64_t id = 1; id <= N; id++) {
        struct hky_recipient *rcpt = &((struct hky_message *)hky_idmap_get(&r->found, id))->recipients[0];
        rcpt->tries = (uint8_t)(id % 100 + 1);
        hky_journal_attempt(r->j, rcpt, NULL);
    }
    hky_journal_flush(r->j);
    do {
        hky_journal_stats(r->j, &was);
        rig_rounds(r, 5);
        hky_journal_stats(r->j, &is);
    } while (is.results != was.results && ++round < 10);
    assert_true(round < 10);
    assert_true(is.results < 3 * N);
    for (int again = 0; again < 2; again++) {
        rig_close(r);
        rig_open(r);
        assert_int_equal(r->report.messages, N);
        for (uint64_t id = 1; id <= N; id++) {
            struct hky_message *m = hky_idmap_get(&r->found, id);
            assert_int_equal(m->recipients[0].tries, id % 100 + 1);
        }
        rig_rounds(r, 5); /* the counts hold after a restart, too */
        hky_journal_stats(r->j, &is);
        assert_true(is.results < N);
    }
    for (uint64_t id = 1; id <= N; id++)
        rig_finish(r, hky_idmap_get(&r->found, id), 0);
    hky_journal_flush(r->j);
    wait_until(n_segments(r) <= 1);
}

/* Segments that wait for half of their attempts to be overtaken must not take the room of results. */
static void results_find_room_in_a_spool_full_of_attempts(void **state)
{
    struct rig *r = *state;
    enum { N = 200 };
    char why[600];
    struct told t;

    rig_close(r);
    r->params.spool_max = 10 * (64 << 10);
    rig_open(r);
    memset(why, 'x', sizeof why);
    for (uint64_t id = 1; id <= N; id++)
        rig_put(r, id, 1, 500);
    for (unsigned round = 0; round < 8; round++) {
        for (uint64_t id = 1; id <= N; id++) {
            struct hky_recipient *rcpt = &((struct hky_message *)hky_idmap_get(&r->found, id))->recipients[0];
            if (round > 0 && id % 3 != 0)
                continue;
            if (round == 0)
                rcpt->reason = hky_str_dup(hky_str_of(why, sizeof why));
            rcpt->tries = (uint8_t)(round + 1);
            hky_journal_attempt(r->j, rcpt, NULL);
        }
        told_init(r, &t);
        hky_journal_cap(r->j, HKY_STR("relay"), HKY_STR("1"), &t.commit); /* all before it is written */
        told_wait(r, &t);
        assert_int_equal(t.result, HKY_OK);
    }
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, N);
    for (uint64_t id = 1; id <= N; id++) {
        struct hky_message *m = hky_idmap_get(&r->found, id);
        assert_int_equal(m->recipients[0].tries, id % 3 == 0 ? 8 : 1);
        rig_finish(r, m, 0);
    }
    hky_journal_flush(r->j);
    wait_until(hky_journal_room(r->j, 4000) == HKY_OK && n_segments(r) <= 1);
}

/* A copy that somebody left there under another name of the same number is not taken for a segment. */
static void a_name_that_is_not_canonical_is_not_a_segment(void **state)
{
    struct rig *r = *state;
    char command[300];

    for (uint64_t id = 1; id <= 3; id++)
        rig_put(r, id, 1, 500);
    rig_close(r);
    snprintf(command, sizeof command, "cd %s/journal && for f in seg-0000?; do cp $f seg-${f#seg-0000}; done", r->dir);
    assert_int_equal(system(command), 0);
    rig_open(r);
    assert_int_equal(r->report.messages, 3);
    assert_int_equal(r->report.damaged_records, 0);
    rig_put(r, 4, 1, 500);
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, 4);
    assert_int_equal(r->report.damaged_records, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pinned_segment_never_brings_finished_mail_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_disk_shows_after_a_crash_is_never_resent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(caps_outlive_the_segments_they_were_written_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_who_wait_leave_the_journal_at_rest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(results_find_room_in_a_spool_full_of_attempts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_that_is_not_canonical_is_not_a_segment, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
