/* What lives on is copied out of old segments, while it is read, ended and told of. */
#include "segments.h"
#include "still.h"

#include <stdatomic.h>

static bool check_bodies(struct rig *r, struct hky_message **kept, int n)
{
    for (int i = 0; i < n; i++)
        rig_check_body(r, kept[i]);
    return true;
}

static void a_deferred_message_is_copied_out_while_it_is_read(void **state)
{
    struct rig *r = *state;
    struct hky_message *kept[8];
    uint64_t id = 100;

    rig_close(r);
    r->params.cold_after_ms = 1;
    rig_open(r);
    for (int i = 0; i < 8; i++) {
        kept[i] = rig_put(r, (uint64_t)(1 + i), 2, 1500);
        hky_journal_body_drop(r->j, kept[i]);
        rig_finish(r, kept[i], 1);
        kept[i]->recipients[0].tries = (uint8_t)(i + 1);
        hky_journal_attempt(r->j, &kept[i]->recipients[0], NULL);
        for (int k = 0; k < 40; k++)
            rig_finish(r, rig_put(r, id++, 1, 3000), 0);
        for (int k = 0; k <= i; k++)
            rig_check_body(r, kept[k]);
    }
    for (int round = 0; round < 20; round++)
        check_bodies(r, kept, 8);
    wait_until(check_bodies(r, kept, 8) && rig_stats(r).cold_segments > 0 &&
               n_segments(r) <= 3); /* hot, cold, one on its way */
    for (int round = 0; round < 3; round++) {
        rig_close(r);
        rig_open(r);
        assert_int_equal(r->report.messages, 8);
        assert_int_equal(r->report.recipients, 8);
        for (int i = 0; i < 8; i++) {
            struct hky_message *m = hky_idmap_get(&r->found, (uint64_t)(1 + i));
            assert_non_null(m);
            assert_int_equal(m->recipients[0].tries, i + 1);
            assert_int_equal(m->recipients[1].state, HKY_RCPT_DELIVERED);
            rig_check_body(r, m);
        }
    }
    wait_until(n_segments(r) <= 1); /* the cold one: what is written next is newer than what is told there */
    rig_close(r);
    rig_open(r);
    for (int i = 0; i < 8; i++) {
        struct hky_message *m = hky_idmap_get(&r->found, (uint64_t)(1 + i));
        m->recipients[0].tries = (uint8_t)(20 + i);
        hky_journal_attempt(r->j, &m->recipients[0], NULL);
    }
    rig_close(r);
    rig_open(r);
    for (int i = 0; i < 8; i++) {
        struct hky_message *m = hky_idmap_get(&r->found, (uint64_t)(1 + i));
        assert_int_equal(m->recipients[0].tries, 20 + i);
    }
    for (int i = 0; i < 8; i++)
        rig_finish(r, hky_idmap_get(&r->found, (uint64_t)(1 + i)), 0);
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, 0);
    wait_until(n_segments(r) <= 1);
}

static void results_that_come_while_leftovers_move_are_not_lost(void **state)
{
    struct rig *r = *state, crashed;
    uint64_t id = 1000;

    rig_close(r);
    r->params.io = &still_io;
    r->params.cold_after_ms = 1;
    rig_open(r);
    for (int round = 0; round < 15; round++) {
        uint64_t first = id;
        for (int k = 0; k < 25; k++)
            rig_put(r, id++, 2, 2000);
        for (uint64_t k = first; k < id; k++) { /* one recipient of every fifth message stays */
            struct hky_message *m = hky_idmap_get(&r->found, k);
            rig_finish(r, m, 0);
            if (k % 5 != 0)
                rig_finish(r, m, 1);
        }
        for (uint64_t k = 1000; k < first; k += 15) { /* some of the older ones end now */
            struct hky_message *m = hky_idmap_get(&r->found, k);
            if (m != NULL && m->recipients[1].state == HKY_RCPT_QUEUED)
                rig_finish(r, m, 1);
        }
        hky_journal_flush(r->j);
        rig_init(&crashed);
        copy_still(r->dir, crashed.dir);
        rig_open(&crashed);
        assert_int_equal(crashed.report.damaged_records, 0);
        assert_int_equal(crashed.report.messages, r->found.n);
        for (uint64_t k = 1000; k < id; k++)
            assert_int_equal(hky_idmap_get(&crashed.found, k) != NULL, hky_idmap_get(&r->found, k) != NULL);
        rig_fini(&crashed);
    }
}

static bool is_cold(int fd)
{
    char header[SEGMENT_HEADER];
    struct segment_head head;

    return pread(fd, header, sizeof header, 0) == SEGMENT_HEADER &&
           journal_segment_head_decode(header, &head) == HKY_OK && head.state == SEGMENT_COLD;
}

/* Holds back the sync of cold segments while it is shut. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_shut, is_reached;
};

static int gate_fdatasync(void *ctx, int fd)
{
    struct gate *g = ctx;

    if (is_cold(fd)) {
        pthread_mutex_lock(&g->lock);
        g->is_reached = true;
        pthread_cond_broadcast(&g->cond);
        while (g->is_shut)
            pthread_cond_wait(&g->cond, &g->lock);
        pthread_mutex_unlock(&g->lock);
    }
    return fdatasync(fd);
}

static ssize_t gate_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    (void)ctx;
    return pwritev(fd, iov, n, at);
}

static int gate_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    (void)ctx;
    return openat(dir, name, flags, mode);
}

static int gate_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    (void)ctx;
    return renameat(from_dir, from, to_dir, to);
}

static int gate_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static int gate_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    (void)ctx;
    return unlinkat(dir, name, flags);
}

static struct hky_journal_io io_with(void *ctx, ssize_t (*write)(void *, int, const struct iovec *, int, off_t),
                                     int (*sync)(void *, int))
{
    return (struct hky_journal_io){.ctx = ctx,
                                   .pwritev = write,
                                   .fdatasync = sync,
                                   .openat = gate_openat,
                                   .renameat = gate_renameat,
                                   .unlinkat = gate_unlinkat,
                                   .fallocate = gate_fallocate};
}

/* The sync of a cold segment fails; from then on no sync is good and nothing new finds room. */
static int dying_fdatasync(void *ctx, int fd)
{
    atomic_bool *is_dying = ctx;

    if (is_cold(fd))
        atomic_store(is_dying, true);
    errno = EIO;
    return atomic_load(is_dying) ? -1 : fdatasync(fd);
}

static ssize_t dying_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    atomic_bool *is_dying = ctx;

    errno = ENOSPC;
    return atomic_load(is_dying) && !is_cold(fd) ? -1 : pwritev(fd, iov, n, at);
}

/* What a restart reads of it may be in memory only: the message lives where it was. */
static void copies_that_were_not_synced_are_not_believed(void **state)
{
    atomic_bool is_dying = false;
    struct hky_journal_io io = io_with(&is_dying, dying_pwritev, dying_fdatasync);
    struct rig *r = *state;
    struct hky_message *m;
    uint64_t id = 100;
    uint32_t lives;

    rig_close(r);
    r->params.cold_after_ms = 1;
    r->params.io = &io;
    rig_open(r);
    m = rig_put(r, 1, 2, 1000);
    lives = __atomic_load_n(&m->segment, __ATOMIC_ACQUIRE);
    for (int i = 0; i < 30; i++) {
        struct hky_message *other = make_message(r, id, 1, 3000);
        if (rig_accept(r, other) == HKY_OK) { /* not while the disk dies */
            hky_idmap_put(&r->found, id++, other);
            rig_finish(r, other, 0);
        } else {
            hky_message_unref(&other);
        }
    }
    wait_until(atomic_load(&is_dying));
    rig_close(r);
    r->params.cold_after_ms = 3600 * 1000;
    r->params.io = NULL;
    rig_open(r);
    m = hky_idmap_get(&r->found, 1);
    assert_non_null(m);
    assert_int_equal(m->segment, lives);
    rig_check_body(r, m);
}

/* Its result is evidence about the old copy only, and goes with its segment: the new copy must be told, too. */
static void who_ends_between_the_copy_and_its_sync_stays_ended(void **state)
{
    struct gate g = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .is_shut = true};
    struct hky_journal_io io = io_with(&g, gate_pwritev, gate_fdatasync);
    struct rig *r = *state;
    struct hky_message *m;
    uint64_t id = 100;

    rig_close(r);
    r->params.cold_after_ms = 1;
    r->params.io = &io;
    rig_open(r);
    m = rig_put(r, 1, 2, 1000);
    for (int i = 0; i < 30; i++)
        rig_finish(r, rig_put(r, id++, 1, 3000), 0);
    pthread_mutex_lock(&g.lock);
    while (!g.is_reached)
        pthread_cond_wait(&g.cond, &g.lock);
    pthread_mutex_unlock(&g.lock);
    rig_finish(r, m, 0);
    hky_journal_flush(r->j);
    pthread_mutex_lock(&g.lock);
    g.is_shut = false;
    pthread_cond_broadcast(&g.cond);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < 60; i++)
        rig_finish(r, rig_put(r, id++, 1, 3000), 0);
    hky_journal_flush(r->j);
    wait_until(n_segments(r) <= 2); /* hot and cold: the one with the result is gone */
    rig_close(r);
    r->params.io = NULL;
    rig_open(r);
    m = hky_idmap_get(&r->found, 1);
    assert_non_null(m);
    assert_int_equal(r->report.recipients, 1);
    assert_int_equal(m->recipients[0].state, HKY_RCPT_DELIVERED);
    rig_check_body(r, m);
}

/* An octet of its body on the disk is not what it was. */
static void spoil_body(struct rig *r, const struct hky_message *m)
{
    char path[120], c;
    int fd;

    snprintf(path, sizeof path, "%s/journal/seg-%05u", r->dir, m->segment - 1);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, (off_t)m->body_at + 100), 1);
    c = (char)~c;
    assert_int_equal(pwrite(fd, &c, 1, (off_t)m->body_at + 100), 1);
    close(fd);
}

static void fill(struct rig *r, uint64_t *id)
{
    for (int k = 0; k < 40; k++)
        rig_finish(r, rig_put(r, (*id)++, 1, 2000), 0);
}

/* A mate that cannot be read keeps the segment the copy is from, and only the copy says that the original is dead. */
static void a_finished_copy_does_not_come_back_from_where_it_was(void **state)
{
    struct rig *r = *state;
    uint64_t id = 1000;
    struct hky_message *moved;
    uint32_t home;

    rig_close(r);
    r->params.cold_after_ms = 1;
    rig_open(r);
    moved = rig_put(r, 1, 1, 1000);
    home = __atomic_load_n(&moved->segment, __ATOMIC_ACQUIRE);
    spoil_body(r, rig_put(r, 2, 1, 1000));
    fill(r, &id);
    wait_until(__atomic_load_n(&moved->segment, __ATOMIC_ACQUIRE) != home);
    rig_finish(r, moved, 0);
    for (uint64_t k = 0; k < 40; k++) { /* others behind it, until its cold segment is closed */
        struct hky_message *m = rig_put(r, 10 + k, 1, 3000);
        uint32_t was = __atomic_load_n(&m->segment, __ATOMIC_ACQUIRE);
        fill(r, &id);
        wait_until(__atomic_load_n(&m->segment, __ATOMIC_ACQUIRE) != was);
    }
    hky_journal_flush(r->j);
    rig_close(r);
    rig_open(r);
    assert_non_null(hky_idmap_get(&r->found, 2));
    assert_null(hky_idmap_get(&r->found, 1));
    assert_int_equal(r->report.messages, 41);
}

/* With its newest states it takes more than a segment: it stays, and the others go on. */
static void a_message_too_large_to_copy_does_not_hold_up_others(void **state)
{
    struct rig *r = *state;
    uint64_t id = 1000, syncs;
    struct hky_message *large, *small;
    struct hky_journal_stats stats;
    char why[700];
    uint32_t home;

    rig_close(r);
    r->params.cold_after_ms = 1;
    rig_open(r);
    memset(why, 'x', sizeof why);
    large = rig_put(r, 1, 60, 1000);
    for (uint32_t i = 0; i < 60; i++) {
        large->recipients[i].reason = hky_str_dup(hky_str_of(why, sizeof why));
        hky_journal_attempt(r->j, &large->recipients[i], NULL);
    }
    fill(r, &id);
    small = rig_put(r, 2, 1, 1000);
    home = __atomic_load_n(&small->segment, __ATOMIC_ACQUIRE);
    fill(r, &id);
    wait_until(__atomic_load_n(&small->segment, __ATOMIC_ACQUIRE) != home);
    hky_journal_flush(r->j);
    rig_rounds(r, 2);
    hky_journal_stats(r->j, &stats);
    syncs = stats.syncs;
    rig_rounds(r, 5);
    hky_journal_stats(r->j, &stats);
    assert_int_equal(stats.syncs, syncs);
    rig_close(r);
    rig_open(r);
    assert_int_equal(r->report.messages, 2);
    assert_int_equal(r->report.recipients, 61);
}

/* Its record is that of another message's end; the copy is a message's own. */
static void a_notice_is_copied_as_the_message_it_is(void **state)
{
    struct rig *r = *state;
    struct hky_message *cause, *notice;
    uint64_t id = 1000;
    uint32_t home;

    rig_close(r);
    r->params.cold_after_ms = 1;
    rig_open(r);
    cause = rig_put(r, 5, 1, 100);
    notice = make_message(r, 900, 1, 300);
    cause->recipients[0].state = HKY_RCPT_FAILED;
    hky_journal_finish(r->j, &cause->recipients[0], notice, NULL);
    hky_idmap_remove(&r->found, 5);
    hky_message_unref(&cause);
    hky_journal_flush(r->j);
    assert_null(hky_idmap_put(&r->found, 900, notice));
    home = __atomic_load_n(&notice->segment, __ATOMIC_ACQUIRE);
    fill(r, &id);
    wait_until(__atomic_load_n(&notice->segment, __ATOMIC_ACQUIRE) != home);
    for (int round = 0; round < 2; round++) {
        rig_close(r);
        rig_open(r);
        assert_int_equal(r->report.messages, 1);
        notice = hky_idmap_get(&r->found, 900);
        assert_non_null(notice);
        assert_int_equal(notice->recipients[0].state, HKY_RCPT_QUEUED);
        rig_check_body(r, notice);
    }
}

/* It waits for its notice, and is finished later: until then its body is kept, but a restart does not send it again,
 * wherever its message and the record of its end have been moved meanwhile. */
static void who_has_ended_but_is_not_finished_does_not_come_back(void **state)
{
    struct rig *r = *state;
    uint64_t id = 1000;
    struct hky_message *two, *one;
    uint64_t two_id;
    uint32_t home;

    for (int copies = 0; copies < 2; copies++) {
        rig_close(r);
        r->params.cold_after_ms = copies > 0 ? 1 : 3600 * 1000;
        rig_open(r);
        two_id = id++;
        two = rig_put(r, two_id, 2, 1000);
        one = rig_put(r, id++, 1, 1000);
        home = __atomic_load_n(&one->segment, __ATOMIC_ACQUIRE);
        if (copies == 0)
            fill(r, &id); /* the records are in another segment than their messages */
        one->recipients[0].state = two->recipients[0].state = HKY_RCPT_DELIVERED;
        hky_journal_attempt(r->j, &one->recipients[0], NULL);
        hky_journal_attempt(r->j, &two->recipients[0], NULL);
        fill(r, &id);
        if (copies > 0)
            wait_until(__atomic_load_n(&one->segment, __ATOMIC_ACQUIRE) != home);
        hky_journal_body_drop(r->j, one);
        rig_check_body(r, one);
        rig_check_body(r, two);
        hky_message_unref(&one); /* rig_forget drops those of recipients that are not in a final state */
        one = two;
        hky_message_unref(&one);
        for (int i = 0; i < 3; i++) { /* the first of these restarts is like one after a kill */
            rig_close(r);
            rig_open(r);
            assert_int_equal(r->report.damaged_records, 0);
            assert_int_equal(r->report.recipients, 1);
            two = hky_idmap_get(&r->found, two_id);
            assert_non_null(two);
            assert_int_equal(two->recipients[0].state, HKY_RCPT_DELIVERED);
            rig_check_body(r, two);
            fill(r, &id); /* the segment with the records becomes free */
            rig_rounds(r, 2);
        }
        rig_finish(r, two, 1);
    }
}

/* After a kill, maintenance writes the footer of the segment that has the record of the end: every later start relies
 * on this list, and then on what is written when that segment becomes free. */
static void who_had_ended_at_a_kill_does_not_come_back_at_a_later_start(void **state)
{
    struct rig *r = *state, crashed;
    uint64_t id = 1000;

    rig_close(r);
    r->params.io = &still_io;
    rig_open(r);
    for (int is_elsewhere = 0; is_elsewhere < 2; is_elsewhere++) {
        uint64_t two_id = id++, one_id = id++, mate_id;
        struct hky_message *two = rig_put(r, two_id, 2, 1000), *one = rig_put(r, one_id, 1, 1000), *mate;

        if (is_elsewhere)
            fill(r, &id); /* the records of the ends are in another segment than the messages */
        mate_id = id++;
        mate = rig_put(r, mate_id, 1, 1000); /* keeps the segment with these records */
        one->recipients[0].state = two->recipients[0].state = HKY_RCPT_DELIVERED;
        hky_journal_attempt(r->j, &one->recipients[0], NULL);
        hky_journal_attempt(r->j, &two->recipients[0], NULL);
        hky_journal_flush(r->j);
        rig_init(&crashed);
        crashed.params.cold_after_ms = r->params.cold_after_ms;
        copy_still(r->dir, crashed.dir);
        for (int i = 0; i < 5; i++) {
            rig_open(&crashed);
            assert_int_equal(crashed.report.damaged_records, 0);
            assert_null(hky_idmap_get(&crashed.found, one_id));
            assert_int_equal(crashed.report.recipients, i <= 2 ? 2 : 1);
            two = hky_idmap_get(&crashed.found, two_id);
            assert_non_null(two);
            assert_int_equal(two->recipients[0].state, HKY_RCPT_DELIVERED);
            assert_int_equal(two->recipients[1].state, HKY_RCPT_QUEUED);
            rig_check_body(&crashed, two);
            if (i == 2) { /* now the segment with the records can be freed */
                rig_finish(&crashed, hky_idmap_get(&crashed.found, mate_id), 0);
                fill(&crashed, &id);
            }
            rig_rounds(&crashed, 2);
            rig_close(&crashed);
        }
        rig_open(&crashed);
        rig_fini(&crashed);
        two = hky_idmap_get(&r->found, two_id);
        one = hky_idmap_get(&r->found, one_id);
        hky_idmap_remove(&r->found, one_id);
        hky_message_unref(&one); /* nothing is left of it but the journal's own reference */
        one = two;
        rig_finish(r, two, 1);
        hky_message_unref(&one);
        rig_finish(r, mate, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_deferred_message_is_copied_out_while_it_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(results_that_come_while_leftovers_move_are_not_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_that_were_not_synced_are_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_ends_between_the_copy_and_its_sync_stays_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_finished_copy_does_not_come_back_from_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_notice_is_copied_as_the_message_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_has_ended_but_is_not_finished_does_not_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_had_ended_at_a_kill_does_not_come_back_at_a_later_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_message_too_large_to_copy_does_not_hold_up_others, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
