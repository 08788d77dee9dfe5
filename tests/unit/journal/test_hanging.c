/* A disk that neither writes nor fails: the journal says that it takes no results, and goes on when it answers. */
#include "still.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool hangs;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static int hanging_fdatasync(void *ctx, int fd)
{
    (void)ctx;
    pthread_mutex_lock(&disk.lock);
    while (disk.hangs)
        pthread_cond_wait(&disk.cond, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
    return fdatasync(fd);
}

static void set_hangs(bool hangs)
{
    pthread_mutex_lock(&disk.lock);
    disk.hangs = hangs;
    pthread_cond_broadcast(&disk.cond);
    pthread_mutex_unlock(&disk.lock);
}

static void a_disk_that_hangs_takes_no_results_until_it_answers(void **state)
{
    struct hky_journal_io io = still_io;
    struct rig r;
    struct told t;
    int64_t began_ms;

    (void)state;
    io.fdatasync = hanging_fdatasync;
    rig_init(&r);
    r.params.io = &io;
    rig_open(&r);
    struct hky_message *m = rig_put(&r, 1, 1, 500);
    set_hangs(true);
    told_init(&r, &t);
    assert_int_equal(hky_journal_takes_results(r.j), HKY_OK); /* nothing is asked of the disk yet */
    began_ms = wait_now_ms();
    m->recipients[0].state = HKY_RCPT_DELIVERED;
    hky_idmap_remove(&r.found, 1);
    hky_journal_finish(r.j, &m->recipients[0], NULL, &t.commit);
    hky_message_unref(&m);
    wait_until(hky_journal_takes_results(r.j) == HKY_E_TIMEOUT);
    assert_true(wait_now_ms() - began_ms >= HKY_COMMIT_MOST_MS);
    assert_int_equal(rig_stats(&r).health, HKY_E_TIMEOUT);
    assert_false(rig_stats(&r).takes_results);
    assert_false(t.is_done);
    set_hangs(false);
    told_wait(&r, &t);
    assert_int_equal(t.result, HKY_OK);
    wait_until(hky_journal_takes_results(r.j) == HKY_OK);
    wait_until(rig_stats(&r).health == HKY_OK);
    rig_put(&r, 2, 1, 500);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_hangs_takes_no_results_until_it_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
