/* Large bodies have files of their own, and the spool has a bound. */
#include "segments.h"

static void large_bodies_live_in_their_own_file(void **state)
{
    struct rig *r = *state;
    struct hky_message *m;
    struct hky_big *big;
    struct told t;
    char name[128], text[HKY_ID_TEXT], *p = malloc(300000);
    struct stat st;

    hky_id_format(9, text);
    snprintf(name, sizeof name, "%s/big/%s", r->dir, text);
    for (size_t i = 0; i < 300000; i++)
        p[i] = body_octet(9, i);
    assert_int_equal(hky_journal_big_open(r->j, 9, r->loop, NULL, NULL, &big), HKY_OK);
    for (size_t i = 0; i < 300000; i += 50000)
        assert_true(hky_journal_big_write(big, p + i, 50000));
    free(p);
    told_init(r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
    m = make_message(r, 9, 1, 300000);
    m->is_big = 1;
    hky_body_unref(&m->body);
    assert_int_equal(rig_accept(r, m), HKY_OK);
    rig_check_body(r, m);
    hky_message_unref(&m);
    for (int round = 0; round < 2; round++) {
        rig_close(r);
        rig_open(r);
        m = hky_idmap_get(&r->found, 9);
        assert_non_null(m);
        rig_check_body(r, m);
    }
    rig_finish(r, m, 0);
    hky_journal_flush(r->j);
    wait_until(stat(name, &st) < 0);
}

static void a_large_body_that_is_not_committed_leaves_nothing(void **state)
{
    struct rig *r = *state;
    struct hky_big *big;
    char name[128];
    DIR *dir;
    int n = 0;

    assert_int_equal(hky_journal_big_open(r->j, 9, r->loop, NULL, NULL, &big), HKY_OK);
    hky_journal_big_write(big, "x", 1);
    hky_journal_big_abort(&big);
    assert_null(big);
    snprintf(name, sizeof name, "%s/big/orphan.part", r->dir);
    close(open(name, O_CREAT | O_WRONLY, 0600));
    rig_close(r);
    rig_open(r);
    snprintf(name, sizeof name, "%s/big", r->dir);
    dir = opendir(name);
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        n += d->d_name[0] != '.';
    closedir(dir);
    assert_int_equal(n, 0);
}

static int n_rooms;
static void on_room(void *ctx)
{
    (void)ctx;
    n_rooms++;
}

static void a_large_body_pauses_its_client_and_goes_on(void **state)
{
    struct rig *r = *state;
    struct hky_big *big;
    struct told t;
    char *p = calloc(1, 600000);
    bool is_paused = false;

    assert_int_equal(hky_journal_big_open(r->j, 9, r->loop, on_room, NULL, &big), HKY_OK);
    for (int i = 0; i < 50 && !is_paused; i++)
        is_paused = !hky_journal_big_write(big, p, 600000);
    free(p);
    if (is_paused) {
        for (int i = 0; i < 500 && n_rooms == 0; i++)
            hky_loop_turn(r->loop, 10);
        assert_int_equal(n_rooms, 1);
    }
    told_init(r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(r, &t);
    assert_int_equal(t.result, HKY_OK);
    assert_false(t.has_token); /* the body alone is no acceptance */
}

/* `pieces` of 512 KiB as one large body; what its commit says. */
static enum hky_err put_big(struct rig *r, uint64_t id, int pieces)
{
    char *p = calloc(1, 512 << 10);
    struct hky_big *big;
    struct told t;

    assert_int_equal(hky_journal_big_open(r->j, id, r->loop, on_room, NULL, &big), HKY_OK);
    for (int i = 0; i < pieces; i++)
        hky_journal_big_write(big, p, 512 << 10);
    free(p);
    told_init(r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(r, &t);
    return t.result;
}

static void large_bodies_keep_to_spool_max(void **state)
{
    struct rig *r = *state;
    struct hky_big *big;
    struct stat st;
    char name[128], text[HKY_ID_TEXT];

    rig_close(r);
    r->params.spool_max = 8 * (64 << 10) + (3 << 20);
    rig_open(r);
    assert_int_equal(hky_journal_room(r->j, 2 << 20), HKY_OK);
    assert_int_equal(hky_journal_room(r->j, 4 << 20), HKY_E_FULL);
    assert_int_equal(put_big(r, 9, 16), HKY_E_FULL); /* no size was said: it ends where it does not fit any more */
    hky_id_format(9, text);
    snprintf(name, sizeof name, "%s/big/%s.part", r->dir, text);
    assert_int_equal(stat(name, &st), -1);
    assert_int_equal(put_big(r, 10, 4), HKY_OK); /* and what it had taken is there again */
    assert_int_equal(hky_journal_room(r->j, 2 << 20), HKY_E_FULL);
    assert_int_equal(put_big(r, 11, 1), HKY_OK);
    assert_int_equal(hky_journal_big_open(r->j, 12, r->loop, NULL, NULL, &big), HKY_E_FULL);
    rig_put(r, 5000, 1, 4000); /* small mail goes on */
}

static void accepting_stops_at_spool_max_and_results_go_on(void **state)
{
    struct rig *r = *state;
    uint64_t id = 1, n = 0;
    enum hky_err err = HKY_OK;

    rig_close(r);
    r->params.spool_max = 8 * (64 << 10);
    rig_open(r);
    while (n < 1000 && err == HKY_OK) {
        struct hky_message *m = make_message(r, id, 1, 4000);
        err = rig_accept(r, m);
        if (err == HKY_OK)
            assert_null(hky_idmap_put(&r->found, id++, m));
        else
            hky_message_unref(&m);
        n++;
    }
    assert_int_equal(err, HKY_E_FULL);
    assert_int_equal(hky_journal_room(r->j, 4000), HKY_E_FULL);
    assert_true(id > 60);
    for (uint64_t k = 1; k < id; k++)
        rig_finish(r, hky_idmap_get(&r->found, k), 0);
    hky_journal_flush(r->j);
    wait_until(hky_journal_room(r->j, 4000) == HKY_OK);
    rig_put(r, 5000, 1, 4000);
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, 1);
}

/* To wait would not help: the client hears so, and needs not to try for days. */
static void what_fits_no_segment_is_refused_for_good(void **state)
{
    static const struct {
        uint32_t n_recipients;
        size_t size;
        enum hky_err err;
    } CASES[] = {{1, (1 << 20) - 400000, HKY_OK},
                 {1, (1 << 20) - 100, HKY_E_LIMIT},
                 {1, 1 << 20, HKY_E_LIMIT},
                 {64, 100, HKY_OK},
                 {1, 100, HKY_OK}};
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.segment_octets = 1 << 20;
    rig_open(&r);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct hky_message *m = make_message(&r, i + 1, CASES[i].n_recipients, CASES[i].size);
        enum hky_err err = rig_accept(&r, m);
        if (err != CASES[i].err)
            fail_msg("case %zu: %d", i, err);
        hky_message_unref(&m);
    }
    assert_int_equal(hky_journal_room(r.j, 1000), HKY_OK); /* others are not concerned */
    rig_close(&r);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_no_segment_is_refused_for_good),
        cmocka_unit_test_setup_teardown(large_bodies_live_in_their_own_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_large_body_that_is_not_committed_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_large_body_pauses_its_client_and_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_bodies_keep_to_spool_max, set_up, tear_down),
        cmocka_unit_test_setup_teardown(accepting_stops_at_spool_max_and_results_go_on, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
