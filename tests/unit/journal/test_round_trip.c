#define RIG_ON_DISK
#include "rig.h"

static int set_up(void **state)
{
    struct rig *r = malloc(sizeof *r);

    rig_init(r);
    rig_open(r);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    rig_fini(*state);
    free(*state);
    return 0;
}

static void a_message_is_found_again_with_its_plans(void **state)
{
    struct rig *r = *state;
    struct hky_message *m;

    rig_put(r, 77, 3, 500);
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, 1);
    assert_int_equal(r->report.recipients, 3);
    assert_int_equal(r->report.unclean_stops, 0);
    m = hky_idmap_get(&r->found, 77);
    assert_non_null(m);
    assert_int_equal(m->n_recipients, 3);
    assert_null(m->body);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(m->recipients[i].state, HKY_RCPT_QUEUED);
        assert_int_equal(m->recipients[i].plan->hash, i % 2 == 0 ? r->plan->hash : r->other_plan->hash);
    }
    rig_check_body(r, m);
    assert_true(hky_id_next(hky_journal_ids(r->j), 0) > 77);
}

static void the_newest_attempt_is_what_a_restart_knows(void **state)
{
    struct rig *r = *state;
    struct hky_message *m = rig_put(r, 5, 2, 100);
    struct told t;

    m->recipients[0].tries = 1;
    hky_journal_attempt(r->j, &m->recipients[0], NULL);
    m->recipients[0].tries = 2;
    m->recipients[0].next_at_ms = 123456;
    told_init(r, &t);
    hky_journal_attempt(r->j, &m->recipients[0], &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
    for (int round = 0; round < 3; round++) {
        rig_close(r);
        rig_open(r);
        m = hky_idmap_get(&r->found, 5);
        assert_non_null(m);
        assert_int_equal(m->recipients[0].tries, 2);
        assert_int_equal(m->recipients[0].next_at_ms, 123456);
        assert_int_equal(m->recipients[1].tries, 0);
    }
}

static void finished_recipients_do_not_come_back(void **state)
{
    struct rig *r = *state;
    struct hky_message *m = rig_put(r, 5, 2, 100);

    rig_put(r, 6, 1, 100);
    rig_finish(r, m, 0);
    rig_finish(r, hky_idmap_get(&r->found, 6), 0);
    hky_journal_flush(r->j);
    rig_close(r);
    rig_open(r);
    assert_null(hky_idmap_get(&r->found, 6));
    m = hky_idmap_get(&r->found, 5);
    assert_non_null(m);
    assert_int_equal(m->recipients[0].state, HKY_RCPT_DELIVERED);
    assert_int_equal(m->recipients[1].state, HKY_RCPT_QUEUED);
    assert_int_equal(m->n_live, 1);
}

static void a_notice_comes_with_the_end_it_speaks_of(void **state)
{
    struct rig *r = *state;
    struct hky_message *m = rig_put(r, 5, 1, 100), *notice = make_message(r, 900, 1, 300);
    struct told t;

    m->recipients[0].state = HKY_RCPT_FAILED;
    told_init(r, &t);
    hky_journal_finish(r->j, &m->recipients[0], notice, &t.commit);
    hky_idmap_remove(&r->found, 5);
    hky_message_unref(&m);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
    hky_journal_body_drop(r->j, notice);
    rig_check_body(r, notice);
    hky_message_unref(&notice);
    rig_close(r);
    rig_open(r);
    assert_null(hky_idmap_get(&r->found, 5));
    notice = hky_idmap_get(&r->found, 900);
    assert_non_null(notice);
    rig_check_body(r, notice);
}

static void the_newest_value_of_a_cap_is_kept(void **state)
{
    struct rig *r = *state;
    struct told t;

    hky_journal_cap(r->j, HKY_STR("gmail/a"), HKY_STR("10"), NULL);
    hky_journal_cap(r->j, HKY_STR("gmail/b"), HKY_STR("7"), NULL);
    told_init(r, &t);
    hky_journal_cap(r->j, HKY_STR("gmail/a"), HKY_STR("20"), &t.commit);
    told_wait(r, &t);
    for (int round = 0; round < 3; round++) {
        rig_close(r);
        rig_open(r);
        assert_string_equal(hky_map_get(&r->caps, HKY_STR("gmail/a")), "20");
        assert_string_equal(hky_map_get(&r->caps, HKY_STR("gmail/b")), "7");
    }
}

static void bodies_are_read_from_memory_and_from_the_file(void **state)
{
    struct rig *r = *state;
    struct hky_message *m = rig_put(r, 5, 1, 20000);
    struct hky_body_read read = {.loop = r->loop, .message = m, .done = rig_on_body};
    struct hky_journal_stats stats;

    assert_true(hky_journal_body(r->j, &read)); /* memory answers at once, all that is left */
    assert_int_equal(read.n, 20000);
    hky_body_read_release(&read);
    hky_journal_stats(r->j, &stats);
    assert_int_equal(stats.body_memory, 20000);
    hky_journal_body_drop(r->j, m);
    hky_journal_stats(r->j, &stats);
    assert_int_equal(stats.body_memory, 0);
    assert_null(m->body);
    rig_check_body(r, m);
    read.at = 20000;
    assert_true(hky_journal_body(r->j, &read));
    assert_int_equal(read.n, 0);
    assert_int_equal(read.result, HKY_OK);
}

static void bodies_above_the_budget_are_dropped_once_durable(void **state)
{
    struct rig *r = *state;
    struct hky_message *m;

    rig_close(r);
    r->params.body_memory = 1000;
    rig_open(r);
    m = rig_put(r, 5, 1, 900);
    assert_non_null(m->body);
    m = rig_put(r, 6, 1, 900);
    assert_null(m->body);
    rig_check_body(r, m);
}

static void a_second_engine_is_refused_with_the_reason(void **state)
{
    struct rig *r = *state, second;

    second = *r;
    assert_int_equal(rig_try_open(&second), HKY_E_EXISTS);
    assert_non_null(strstr(second.error.text, "another engine"));
    assert_non_null(strstr(second.error.text, r->dir));
}

static void a_spool_others_may_write_to_is_refused(void **state)
{
    struct rig *r = *state;

    rig_close(r);
    assert_int_equal(chmod(r->dir, 0777), 0);
    assert_int_equal(rig_try_open(r), HKY_E_DENIED);
    assert_non_null(strstr(r->error.text, "chmod go-w"));
    assert_int_equal(chmod(r->dir, 0700), 0);
}

static void a_spool_max_that_cannot_work_is_refused(void **state)
{
    struct rig *r = *state;

    rig_close(r);
    r->params.spool_max = 4 * r->params.segment_octets - 1;
    assert_int_equal(rig_try_open(r), HKY_E_CONFIG);
    assert_non_null(strstr(r->error.text, "spool_max"));
    r->params.spool_max++;
    rig_open(r);
    rig_put(r, 1, 1, 100);
}

static void a_copy_taken_while_it_runs_holds_all_that_was_acknowledged(void **state)
{
    struct rig *r = *state, second;
    struct hky_message *m;

    for (uint64_t id = 1; id <= 60; id++)
        rig_put(r, id, 2, 3000);
    for (uint64_t id = 1; id <= 30; id++)
        rig_finish(r, hky_idmap_get(&r->found, id), 0);
    hky_journal_flush(r->j);
    rig_init(&second);
    copy_spool(r->dir, second.dir);
    rig_open(&second);
    assert_int_equal(second.report.unclean_stops, 1);
    assert_int_equal(second.report.damaged_records, 0);
    assert_int_equal(second.report.messages, 60);
    assert_int_equal(second.report.recipients, 90);
    for (uint64_t id = 1; id <= 60; id++) {
        m = hky_idmap_get(&second.found, id);
        assert_non_null(m);
        assert_int_equal(n_unfinished(m), id <= 30 ? 1 : 2);
        rig_check_body(&second, m);
    }
    for (int i = 0; i < 2; i++) { /* an engine that does not start hides no unclean stop */
        rig_forget(&second);
        hky_journal_close_unused(&second.j);
        rig_open(&second);
        assert_int_equal(second.report.unclean_stops, 1);
        assert_int_equal(second.report.recipients, 90);
    }
    rig_close(&second);
    rig_open(&second);
    assert_int_equal(second.report.unclean_stops, 0);
    rig_forget(&second);
    hky_journal_close_unused(&second.j); /* and makes none */
    rig_open(&second);
    assert_int_equal(second.report.unclean_stops, 0);
    assert_int_equal(second.report.recipients, 90);
    rig_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(a_message_is_found_again_with_its_plans),
        T(the_newest_attempt_is_what_a_restart_knows),
        T(finished_recipients_do_not_come_back),
        T(a_notice_comes_with_the_end_it_speaks_of),
        T(the_newest_value_of_a_cap_is_kept),
        T(bodies_are_read_from_memory_and_from_the_file),
        T(bodies_above_the_budget_are_dropped_once_durable),
        T(a_second_engine_is_refused_with_the_reason),
        T(a_spool_others_may_write_to_is_refused),
        T(a_spool_max_that_cannot_work_is_refused),
        T(a_copy_taken_while_it_runs_holds_all_that_was_acknowledged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
