#include "unit/schedule/stage.h"

#include "schedule/internal.h"
#include "support/wait.h"

/* No job is taken while results cannot be written, and all goes on when they can. Nobody ticks the schedule or moves
 * its clock here: what happens, happens by its own timer. */

struct disk {
    struct stage stage;
    char dir[64];
    FILE *log_file;
    struct hky_log *log;
    struct hky_plan *plan;
};

static void disk_init(struct disk *d)
{
    struct stage *st = &d->stage;
    stage_init(st);
    strcpy(d->dir, "/tmp/hky-disk-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    d->log_file = tmpfile();
    assert_non_null(d->log_file);
    d->log = st->r.log = hky_log_new(fileno(d->log_file), HKY_LOG_DEBUG);
    st->r.dir = d->dir;
    fake_relay(&st->policy, "ses")->recipients_per_message = 1;
    fake_relay(&st->policy, "other");
    stage_start(st);
    d->plan = fake_plan((struct hky_step[]){fake_step("ses")}, 1);
}

static void disk_fini(struct disk *d)
{
    char path[96];
    stage_end(&d->stage);
    hky_plan_unref(&d->plan);
    hky_log_free(&d->log);
    fclose(d->log_file);
    snprintf(path, sizeof path, "%s/inflight", d->dir);
    unlink(path);
    rmdir(d->dir);
}

/* How many lines about deliveries say this. */
static unsigned n_lines(struct disk *d, const char *words)
{
    char line[1000];
    unsigned n = 0;
    rewind(d->log_file);
    while (fgets(line, sizeof line, d->log_file) != NULL)
        n += strstr(line, "ev=deliveries ") != NULL && strstr(line, words) != NULL;
    return n;
}

static void end(struct disk *d, struct hky_job **job)
{
    struct hky_outcome delivered = fake_outcome(HKY_CLASS_OK, false);
    hky_rehearsal_answer(&d->stage.r, job, &delivered);
}

static unsigned n_delivered(struct disk *d)
{
    struct hky_schedule_stats s;
    hky_schedule_stats(d->stage.r.schedule, &s);
    return (unsigned)s.delivered;
}

/* The lane says by itself that there is something to take again. */
static void await_wake(struct disk *d)
{
    struct hky_rehearsal *r = &d->stage.r;
    r->n_woken = 0;
    for (int64_t until_ms = wait_now_ms() + WAIT_MOST_SEC * 1000; r->n_woken == 0;) {
        assert_true(wait_now_ms() < until_ms);
        hky_loop_turn(r->loop, 10);
    }
}

static void no_job_is_taken_while_the_disk_takes_no_results(void **state)
{
    static const enum hky_err TROUBLES[] = {HKY_E_IO, HKY_E_FULL, HKY_E_TIMEOUT};
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct disk d;
        struct hky_job *first, *next;
        disk_init(&d);
        struct stage *st = &d.stage;
        send(st, d.plan);
        send(st, d.plan);
        turns(st);
        assert_int_equal(take(st, "ses", &first), HKY_TAKE_JOB);
        hky_journal_memory_set_health(st->r.journal, TROUBLES[k]);
        expect_wait(st, "ses");
        end(&d, &first); /* what is under way ends as always */
        assert_int_equal(n_delivered(&d), 1);
        send(st, d.plan); /* neither the end of a job, nor new mail, nor an operator, nor time changes it */
        turns(st);
        expect_wait(st, "ses");
        schedule_recheck(st->r.schedule, true);
        turns(st);
        expect_wait(st, "ses");
        pass(st, 5000);
        expect_wait(st, "ses");
        assert_int_equal(n_lines(&d, "state=stopped"), 1);
        assert_int_equal(n_lines(&d, "state=going"), 0);
        hky_journal_memory_set_health(st->r.journal, HKY_OK);
        await_wake(&d);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(take(st, "ses", &next), HKY_TAKE_JOB);
            end(&d, &next);
        }
        assert_int_equal(n_delivered(&d), 3);
        assert_int_equal(n_lines(&d, "state=stopped"), 1);
        assert_int_equal(n_lines(&d, "state=going"), 1);
        disk_fini(&d);
    }
}

static void who_waits_for_the_disk_takes_no_other_relay(void **state)
{
    struct disk d;
    char rows[300];
    (void)state;
    disk_init(&d);
    struct stage *st = &d.stage;
    struct hky_step steps[] = {fake_step("ses"), fake_step("other")};
    steps[0].wait_sec = 60;
    struct hky_plan *plan = fake_plan(steps, 2);
    hky_journal_memory_set_health(st->r.journal, HKY_E_IO);
    send(st, plan);
    turns(st);
    expect_wait(st, "ses");
    pass(st, 10 * MINUTE);
    ask(st, HKY_QUEUE_LIST, (struct hky_selection){0}, rows, sizeof rows);
    assert_string_equal(rows, "a@example.com queued by ses: ; \n");
    hky_journal_memory_set_health(st->r.journal, HKY_OK);
    await_wake(&d);
    answer(st, "ses", HKY_CLASS_OK, false, 0);
    hky_plan_unref(&plan);
    disk_fini(&d);
}

/* Many ends during one long commit: no more than fit into `inflight`, and it is no news for the log. */
static void unwritten_results_are_bounded(void **state)
{
    struct disk d;
    struct hky_job *job;
    unsigned n = 0;
    (void)state;
    disk_init(&d);
    struct stage *st = &d.stage;
    for (unsigned i = 0; i < UNWRITTEN_MOST + 100; i++)
        send(st, d.plan);
    turns(st);
    hky_journal_memory_set_behind(st->r.journal, true);
    for (; take(st, "ses", &job) == HKY_TAKE_JOB; n++)
        end(&d, &job);
    assert_int_equal(n, UNWRITTEN_MOST);
    pass(st, 1000);
    expect_wait(st, "ses");
    hky_journal_memory_set_behind(st->r.journal, false);
    await_wake(&d);
    for (; take(st, "ses", &job) == HKY_TAKE_JOB; n++)
        end(&d, &job);
    assert_int_equal(n, UNWRITTEN_MOST + 100);
    assert_int_equal(n_lines(&d, ""), 0);
    disk_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_job_is_taken_while_the_disk_takes_no_results),
        cmocka_unit_test(who_waits_for_the_disk_takes_no_other_relay),
        cmocka_unit_test(unwritten_results_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
