#include "unit/schedule/stage.h"

#include "schedule/inflight.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A run of the engine ends as kill -9 ends it: the file stays as the kernel has it. */

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/hky-inflight-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static const char *file(void)
{
    static char path[96];
    snprintf(path, sizeof path, "%s/inflight", dir);
    return path;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(file());
    rmdir(dir);
    return 0;
}

static void keep_file(char *p, size_t n)
{
    int fd = open(file(), O_RDONLY);
    assert_int_equal(read(fd, p, n), n);
    close(fd);
}

static void put_file(const char *p, size_t n)
{
    int fd = open(file(), O_WRONLY);
    assert_int_equal(write(fd, p, n), n);
    close(fd);
}

enum { OCTETS = 32768 };

/* A run with this message restored; `sends` takes a job and is killed with it. What the recipient looks like then. */
static struct hky_recipient run(bool was_unclean, uint8_t unclean, bool sends, unsigned *n_maybe, char log[128])
{
    struct stage st;
    static char kept[OCTETS];
    struct hky_job *job = NULL;
    struct hky_journal_stats stats;
    stage_init(&st);
    fake_relay(&st.policy, "ses");
    st.r.dir = dir;
    st.r.was_unclean = was_unclean;
    stage_open(&st);
    struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
    struct hky_message *m = fake_message(7, START, "", 1, (const char *const[]){"a@x.example"});
    m->recipients[0].plan = hky_plan_ref(plan);
    m->recipients[0].policy = 11;
    m->recipients[0].unclean = unclean;
    hky_message_ref(m); /* the test's */
    hky_schedule_restore_message(st.r.schedule, m);
    bool is_at_most;
    *n_maybe = (unsigned)hky_schedule_maybe_duplicates(st.r.schedule, &is_at_most);
    assert_true(is_at_most);
    hky_journal_stats(st.r.journal, &stats);
    assert_int_equal(stats.results, 0); /* the start may still fail, and then counts nothing */
    hky_schedule_start(st.r.schedule);
    hky_journal_stats(st.r.journal, &stats);
    assert_int_equal(stats.results, *n_maybe);
    assert_int_equal(stats.syncs, *n_maybe > 0); /* durable before the note goes */
    turns(&st);
    if (sends)
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
    keep_file(kept, sizeof kept);
    struct hky_recipient now = m->recipients[0];
    if (sends) {
        assert_int_equal(now.state, HKY_RCPT_SENDING);
        hky_schedule_give_back(&job);
    }
    snprintf(log, 128, "%.127s", st.log);
    if (now.state == HKY_RCPT_HELD)
        assert_non_null(strstr(m->recipients[0].reason, "three times"));
    hky_plan_unref(&plan);
    stage_end(&st);
    hky_message_unref(&m);
    put_file(kept, sizeof kept);
    return now;
}

static void three_unclean_stops_while_sending_hold(void **state)
{
    char log[128];
    unsigned n;
    (void)state;
    assert_int_equal(run(false, 0, true, &n, log).unclean, 0);
    assert_int_equal(run(true, 0, true, &n, log).unclean, 1);
    assert_int_equal(n, 1);
    assert_int_equal(run(true, 1, true, &n, log).unclean, 2);
    assert_string_equal(log, "");
    struct hky_recipient held = run(true, 2, false, &n, log);
    assert_int_equal(held.unclean, 3);
    assert_int_equal(held.state, HKY_RCPT_HELD);
    assert_string_equal(log, "held");
}

static void what_was_not_being_sent_counts_nothing(void **state)
{
    char log[128];
    unsigned n;
    (void)state;
    run(false, 0, false, &n, log);
    assert_int_equal(run(true, 2, false, &n, log).unclean, 2);
    assert_int_equal(n, 0);
    assert_int_equal(run(true, 2, false, &n, log).state, HKY_RCPT_QUEUED);
}

static void a_start_that_fails_leaves_the_file_as_it_was(void **state)
{
    static char before[OCTETS], after[OCTETS];
    struct inflight *f;
    struct hky_error e;
    char log[128];
    unsigned n;
    (void)state;
    run(false, 0, true, &n, log);
    keep_file(before, sizeof before);
    for (int i = 0; i < 2; i++) { /* neither start is carried through */
        assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK);
        schedule_inflight_close(&f);
    }
    keep_file(after, sizeof after);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(run(true, 0, true, &n, log).unclean, 1);
    assert_int_equal(n, 1);
}

static void a_clean_stop_counts_nothing(void **state)
{
    char log[128];
    unsigned n;
    (void)state;
    run(false, 0, true, &n, log);
    assert_int_equal(run(false, 2, true, &n, log).unclean, 2);
    assert_int_equal(n, 0);
}

static void the_file_itself(void **state)
{
    struct inflight *f;
    struct hky_error e;
    struct stat st;
    (void)state;
    assert_int_equal(schedule_inflight_open(dir, 3, true, &f, &e), HKY_OK);
    assert_int_equal(stat(file(), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 3 * OCTETS);
    schedule_inflight_forget(f);
    uint32_t first = schedule_inflight_put(f, 2, 41), second = schedule_inflight_put(f, 2, 42);
    assert_true(first != 0 && second != 0 && first != second);
    schedule_inflight_end(f, 2, first, 7);
    schedule_inflight_written(f, 2, 6); /* its result is not written yet */
    for (int i = 0; i < INFLIGHT_SLOTS - 3; i++)
        assert_true(schedule_inflight_put(f, 2, 1000 + (uint64_t)i) != 0);
    assert_int_equal(schedule_inflight_put(f, 2, 5), 0); /* full: not noted, but that it was not is */
    assert_true(schedule_inflight_put(f, 0, 43) != 0);
    uint32_t over = schedule_inflight_put(f, 0, 44);
    schedule_inflight_end(f, 0, over, 8);
    schedule_inflight_written(f, 0, 8);
    static char kept[3 * OCTETS];
    keep_file(kept, sizeof kept);
    schedule_inflight_close(&f);
    put_file(kept, sizeof kept);
    assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK); /* fewer workers than before */
    assert_int_equal(schedule_inflight_was(f, 41), INFLIGHT_ENDED);
    assert_int_equal(schedule_inflight_was(f, 42), INFLIGHT_SENDING);
    assert_int_equal(schedule_inflight_was(f, 43), INFLIGHT_SENDING);
    assert_int_equal(schedule_inflight_was(f, 44), INFLIGHT_NOT);
    assert_int_equal(schedule_inflight_was(f, 0), INFLIGHT_NOT);
    assert_true(schedule_inflight_was_overfull(f));
    schedule_inflight_forget(f);
    assert_int_equal(schedule_inflight_was(f, 42), INFLIGHT_NOT);
    assert_int_equal(stat(file(), &st), 0);
    assert_int_equal(st.st_size, OCTETS);
    schedule_inflight_close(&f);
}

/* What was too many is forgotten when the results of the last of them are written. */
static void too_many_are_over_some_time(void **state)
{
    struct inflight *f;
    struct hky_error e;
    static uint32_t slots[INFLIGHT_SLOTS + 1];
    static char kept[OCTETS];
    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK);
        assert_int_equal(schedule_inflight_was_overfull(f), round == 1);
        schedule_inflight_forget(f);
        for (unsigned i = 0; i <= INFLIGHT_SLOTS; i++) {
            slots[i] = schedule_inflight_put(f, 0, i + 1);
            assert_int_equal(slots[i] == 0, i >= INFLIGHT_SLOTS - 1);
        }
        for (unsigned i = 0; i <= INFLIGHT_SLOTS; i++)
            schedule_inflight_end(f, 0, slots[i], i);
        schedule_inflight_written(f, 0, round == 0 ? INFLIGHT_SLOTS - 1 : INFLIGHT_SLOTS);
        keep_file(kept, sizeof kept);
        schedule_inflight_close(&f);
        put_file(kept, sizeof kept);
    }
    assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK);
    assert_false(schedule_inflight_was_overfull(f));
    for (unsigned i = 0; i <= INFLIGHT_SLOTS; i++)
        assert_int_equal(schedule_inflight_was(f, i + 1), INFLIGHT_NOT);
    schedule_inflight_close(&f);
}

/* A result that the journal has not written counts, and is no stop while it was sent. */
static void a_result_that_is_not_written_may_come_twice(void **state)
{
    static char kept[OCTETS];
    struct stage st;
    bool is_at_most;
    (void)state;
    for (int is_written = 0; is_written < 2; is_written++) {
        stage_init(&st);
        fake_relay(&st.policy, "ses");
        st.r.dir = dir;
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        struct hky_message *m = send(&st, plan);
        uint64_t id = m->id;
        struct hky_job *job;
        assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
        if (!is_written) {
            (void)hky_journal_written(st.r.journal);
            hky_journal_memory_set_health(st.r.journal, HKY_E_IO);
        }
        struct hky_outcome delivered = fake_outcome(HKY_CLASS_OK, false);
        hky_rehearsal_answer(&st.r, &job, &delivered);
        pass(&st, 1000);
        keep_file(kept, sizeof kept);
        stage_end(&st);
        put_file(kept, sizeof kept);

        stage_init(&st);
        fake_relay(&st.policy, "ses");
        st.r.dir = dir;
        st.r.was_unclean = true;
        stage_open(&st);
        m = fake_message(id, START, "", 1, (const char *const[]){"a@x.example"});
        m->recipients[0].plan = plan;
        m->recipients[0].policy = 11;
        hky_schedule_restore_message(st.r.schedule, m);
        assert_int_equal(hky_schedule_maybe_duplicates(st.r.schedule, &is_at_most), is_written ? 0 : 1);
        assert_int_equal(m->recipients[0].unclean, 0);
        hky_rehearsal_start(&st.r);
        stage_end(&st);
    }
}

/* The operator stops the engine while the disk refuses a result: the journal drops it then, so the next start sends the
 * message again, and counts it. It was not sent at the stop, so the message is not what ended the engine. */
static void a_stop_counts_what_the_disk_has_refused(void **state)
{
    static const enum hky_err HEALTH[] = {HKY_OK, HKY_E_IO, HKY_E_FULL};
    struct stage st;
    struct inflight *f;
    struct hky_error e;
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct hky_job *job;
        struct hky_outcome delivered = fake_outcome(HKY_CLASS_OK, false);
        stage_init(&st);
        fake_relay(&st.policy, "ses")->recipients_per_message = 1;
        st.r.dir = dir;
        stage_start(&st);
        struct hky_plan *plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
        uint64_t ids[2];
        for (int i = 0; i < 2; i++) { /* the result of the first is written in any case */
            ids[i] = send(&st, plan)->id;
            turns(&st);
            assert_int_equal(take(&st, "ses", &job), HKY_TAKE_JOB);
            (void)hky_journal_written(st.r.journal);
            if (i == 1)
                hky_journal_memory_set_health(st.r.journal, HEALTH[k]);
            hky_rehearsal_answer(&st.r, &job, &delivered);
        }
        hky_schedule_settle(st.r.schedule);
        stage_end(&st);
        hky_plan_unref(&plan);
        assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK);
        assert_int_equal(schedule_inflight_was(f, ids[0]), INFLIGHT_NOT);
        assert_int_equal(schedule_inflight_was(f, ids[1]), HEALTH[k] == HKY_OK ? INFLIGHT_NOT : INFLIGHT_ENDED);
        assert_false(schedule_inflight_was_overfull(f));
        schedule_inflight_forget(f);
        schedule_inflight_close(&f);
    }
}

static void what_is_kept_at_a_stop_was_not_being_sent(void **state)
{
    struct inflight *f;
    struct hky_error e;
    (void)state;
    assert_int_equal(schedule_inflight_open(dir, 1, false, &f, &e), HKY_OK);
    schedule_inflight_forget(f);
    schedule_inflight_put(f, 0, 41);
    schedule_inflight_end(f, 0, schedule_inflight_put(f, 0, 42), 7);
    schedule_inflight_keep(f);
    schedule_inflight_close(&f);
    for (int i = 0; i < 2; i++) { /* a start that fails changes nothing, also if it gives up in order */
        assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_OK);
        assert_int_equal(schedule_inflight_was(f, 41), INFLIGHT_ENDED);
        assert_int_equal(schedule_inflight_was(f, 42), INFLIGHT_ENDED);
        assert_false(schedule_inflight_was_overfull(f));
        schedule_inflight_keep(f);
        schedule_inflight_close(&f);
    }
    schedule_inflight_keep(NULL);
}

static void what_stands_in_the_way(void **state)
{
    struct inflight *f;
    struct hky_error e;
    (void)state;
    assert_int_equal(symlink("/etc/hostname", file()), 0);
    assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_E_IO);
    assert_null(f);
    unlink(file());
    assert_int_equal(mkfifo(file(), 0600), 0);
    assert_int_equal(schedule_inflight_open(dir, 1, true, &f, &e), HKY_E_IO);
    unlink(file());
    assert_int_equal(schedule_inflight_put(NULL, 0, 1), 0);
    schedule_inflight_end(NULL, 0, 1, 1);
    schedule_inflight_written(NULL, 0, 1);
    schedule_inflight_forget(NULL);
    assert_int_equal(schedule_inflight_was(NULL, 1), INFLIGHT_NOT);
    assert_false(schedule_inflight_was_overfull(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_file_itself, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(too_many_are_over_some_time, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_result_that_is_not_written_may_come_twice, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_stop_counts_what_the_disk_has_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_is_kept_at_a_stop_was_not_being_sent, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_stands_in_the_way, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(three_unclean_stops_while_sending_hold, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_start_that_fails_leaves_the_file_as_it_was, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_was_not_being_sent_counts_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_clean_stop_counts_nothing, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
