#include "rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

static int set_up(void **state)
{
    struct rig *r = malloc(sizeof *r);

    rig_init(r);
    r->params.cold_after_ms = 3600 * 1000; /* no copying unless a test wants it */
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

static uint64_t n_segments(struct rig *r)
{
    struct hky_journal_stats s;

    hky_journal_stats(r->j, &s);
    return s.segments - s.free_segments;
}

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

/* A disk that changes by one call at a time: who holds its lock copies what a kill would leave at this moment. Without
 * it maintenance frees a segment that is to be copied, and writes what was in it into one that was copied before. */
static ssize_t still_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    pthread_mutex_lock(ctx);
    ssize_t wrote = pwritev(fd, iov, n, at);
    pthread_mutex_unlock(ctx);
    return wrote;
}

static int still_fdatasync(void *ctx, int fd)
{
    (void)ctx, (void)fd; /* a kill leaves what was written */
    return 0;
}

static int still_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    pthread_mutex_lock(ctx);
    int fd = openat(dir, name, flags, mode);
    pthread_mutex_unlock(ctx);
    return fd;
}

static int still_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    pthread_mutex_lock(ctx);
    int rc = renameat(from_dir, from, to_dir, to);
    pthread_mutex_unlock(ctx);
    return rc;
}

static int still_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    pthread_mutex_lock(ctx);
    int rc = unlinkat(dir, name, flags);
    pthread_mutex_unlock(ctx);
    return rc;
}

static int still_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    pthread_mutex_lock(ctx);
    int rc = fallocate(fd, mode, at, n);
    pthread_mutex_unlock(ctx);
    return rc;
}

static pthread_mutex_t still = PTHREAD_MUTEX_INITIALIZER;
static const struct hky_journal_io still_io = {.ctx = &still,
                                               .pwritev = still_pwritev,
                                               .fdatasync = still_fdatasync,
                                               .openat = still_openat,
                                               .renameat = still_renameat,
                                               .unlinkat = still_unlinkat,
                                               .fallocate = still_fallocate};

static void copy_still(const char *from, const char *to)
{
    pthread_mutex_lock(&still);
    copy_spool(from, to);
    pthread_mutex_unlock(&still);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(a_pinned_segment_never_brings_finished_mail_back),
        T(what_the_disk_shows_after_a_crash_is_never_resent),
        T(caps_outlive_the_segments_they_were_written_in),
        T(a_deferred_message_is_copied_out_while_it_is_read),
        T(results_that_come_while_leftovers_move_are_not_lost),
        T(many_who_wait_leave_the_journal_at_rest),
        T(results_find_room_in_a_spool_full_of_attempts),
        T(a_name_that_is_not_canonical_is_not_a_segment),
        T(a_finished_copy_does_not_come_back_from_where_it_was),
        T(a_message_too_large_to_copy_does_not_hold_up_others),
        T(large_bodies_live_in_their_own_file),
        T(a_large_body_that_is_not_committed_leaves_nothing),
        T(a_large_body_pauses_its_client_and_goes_on),
        T(large_bodies_keep_to_spool_max),
        T(accepting_stops_at_spool_max_and_results_go_on),
        T(who_ends_between_the_copy_and_its_sync_stays_ended),
        T(copies_that_were_not_synced_are_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
