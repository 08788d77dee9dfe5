/* The n-th call fails, for every n of a short run: what was acknowledged is found again, what was refused is not. */
#include "rig.h"

#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum call { PWRITE, SYNC, OPEN, RENAME, UNLINK, FALLOCATE, N_CALLS };
static const char *const call_names[] = {"pwritev", "fdatasync", "openat", "renameat", "unlinkat", "fallocate"};

struct faults {
    pthread_mutex_t lock;
    enum call call;
    int at; /* fails at this call, counted from 1 */
    int error;
    bool is_lasting, is_short;
    int n;
    bool has_failed;
};

static bool fails(struct faults *f, enum call call)
{
    bool yes;

    pthread_mutex_lock(&f->lock);
    if (call == f->call)
        f->n++;
    yes = call == f->call && f->at > 0 && (f->n == f->at || (f->is_lasting && f->n > f->at));
    f->has_failed = f->has_failed || yes;
    pthread_mutex_unlock(&f->lock);
    if (yes)
        errno = f->error;
    return yes;
}

static ssize_t fault_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    struct faults *f = ctx;

    if (fails(f, PWRITE)) {
        if (f->is_short) /* a part goes, the rest does not */
            (void)!pwritev(fd, iov, n > 1 ? n / 2 : 1, at);
        errno = f->error;
        return -1;
    }
    return pwritev(fd, iov, n, at);
}

static int fault_fdatasync(void *ctx, int fd)
{
    return fails(ctx, SYNC) ? -1 : fdatasync(fd);
}

static int fault_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    return fails(ctx, OPEN) ? -1 : openat(dir, name, flags, mode);
}

static int fault_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    return fails(ctx, RENAME) ? -1 : renameat(from_dir, from, to_dir, to);
}

static int fault_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    return fails(ctx, UNLINK) ? -1 : unlinkat(dir, name, flags);
}

static int fault_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    return fails(ctx, FALLOCATE) ? -1 : fallocate(fd, mode, at, n);
}

enum { N_MESSAGES = 8 };

struct run {
    enum hky_err accepted[N_MESSAGES + 1];
    bool was_submitted[N_MESSAGES + 1], is_finished[N_MESSAGES + 1];
};

/* Accept eight messages over several segments, finish every second one, tell of attempts; then stop. */
static void short_run(struct rig *r, struct run *run, bool is_lasting)
{
    *run = (struct run){0};
    if (rig_try_open(r) != HKY_OK) {
        rig_forget(r);
        return;
    }
    for (uint64_t id = 1; id <= N_MESSAGES; id++) {
        struct hky_message *m = make_message(r, id, 1, 20000);
        struct told t;
        run->was_submitted[id] = true;
        run->accepted[id] = rig_accept(r, m);
        if (run->accepted[id] == HKY_OK) {
            hky_journal_attempt(r->j, &m->recipients[0], NULL);
            if (id % 2 == 0) {
                m->recipients[0].state = HKY_RCPT_DELIVERED;
                bool is_told = id % 4 == 0 && !is_lasting; /* results wait for the disk as long as it takes */
                told_init(r, &t);
                hky_journal_finish(r->j, &m->recipients[0], NULL, is_told ? &t.commit : NULL);
                if (is_told)
                    told_wait(r, &t);
                run->is_finished[id] = !is_told || t.result == HKY_OK;
            }
        }
        hky_message_unref(&m);
    }
    rig_close(r);
}

static void check_run(struct rig *r, const struct run *run, bool is_lasting, const char *what, int n)
{
    for (uint64_t id = 1; id <= N_MESSAGES; id++) {
        bool is_found = hky_idmap_get(&r->found, id) != NULL;
        if (!run->was_submitted[id]) {
            assert_false(is_found);
        } else if (run->accepted[id] != HKY_OK) {
            if (is_found)
                fail_msg("%s %d: message %d was refused and is there", what, n, (int)id);
        } else if (id % 2 != 0 && !is_found) {
            fail_msg("%s %d: message %d was acknowledged and is gone", what, n, (int)id);
        } else if (run->is_finished[id] && is_found && !is_lasting) {
            fail_msg("%s %d: message %d was finished and came back", what, n, (int)id);
        }
    }
}

static void every_call_fails_once(enum call call, int error, bool is_lasting, bool is_short)
{
    /* How many calls a run makes differs with the threads: a segment that is wanted before it was prepared is reserved
     * and not written. So a run without the n-th call is the end only when the next two have none either. Whether there
     * is a first one may hang on maintenance, which a busy machine lets come late. */
    int n = 1, n_without = 0;

    while (n_without < (n == 1 ? 200 : 3) && n < 400) {
        struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER,
                           .call = call,
                           .at = n,
                           .error = error,
                           .is_lasting = is_lasting,
                           .is_short = is_short};
        struct hky_journal_io io = {.ctx = &f,
                                    .pwritev = fault_pwritev,
                                    .fdatasync = fault_fdatasync,
                                    .openat = fault_openat,
                                    .renameat = fault_renameat,
                                    .unlinkat = fault_unlinkat,
                                    .fallocate = fault_fallocate};
        struct rig r;
        struct run run;
        rig_init(&r);
        r.params.io = &io;
        short_run(&r, &run, is_lasting);
        r.params.io = NULL;
        rig_open(&r);
        assert_int_equal(r.report.damaged_records, 0);
        check_run(&r, &run, is_lasting, call_names[call], n);
        rig_put(&r, 1000, 1, 500); /* and it works again */
        rig_close(&r);
        rig_open(&r);
        check_run(&r, &run, is_lasting, call_names[call], n);
        assert_non_null(hky_idmap_get(&r.found, 1000));
        rig_fini(&r);
        n_without = f.has_failed ? 0 : n_without + 1;
        n += f.has_failed;
    }
    assert_true(n > 1);
    assert_true(n < 400);
}

/* A journal whose disk fails mostly waits, so one for each kind of failure lives beside the others. */
static void whichever_call_fails_nothing_acknowledged_is_lost(void **state)
{
    static const struct {
        enum call call;
        int error;
        bool is_lasting, is_short; /* the calls from the n-th on; half of what is written is */
    } rows[] = {
        {PWRITE, EIO, false, false},  {PWRITE, EIO, false, true},        {PWRITE, ENOSPC, false, true},
        {SYNC, EIO, false, false},    {SYNC, EIO, true, false},          {PWRITE, ENOSPC, true, false},
        {OPEN, EMFILE, false, false}, {RENAME, EIO, false, false},       {UNLINK, EIO, false, false},
        {UNLINK, EIO, true, false},   {FALLOCATE, ENOSPC, false, false},
    };
    enum { N_ROWS = sizeof rows / sizeof rows[0] };
    pid_t child[N_ROWS];
    int n_failed = 0;

    (void)state;
    fflush(NULL);
    for (int i = 0; i < N_ROWS; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) {
            every_call_fails_once(rows[i].call, rows[i].error, rows[i].is_lasting, rows[i].is_short);
            exit(0);
        }
    }
    for (int i = 0; i < N_ROWS; i++) {
        int status = -1;
        if (waitpid(child[i], &status, 0) == child[i] && status == 0)
            continue;
        print_error("%s, error %d%s%s: what it says is above\n", call_names[rows[i].call], rows[i].error,
                    rows[i].is_lasting ? ", lasting" : "", rows[i].is_short ? ", half way" : "");
        n_failed++;
    }
    assert_int_equal(n_failed, 0);
}

/* A file system that is hit by a signal at every other call, or has no fallocate at all. */
struct reserve {
    struct faults faults;
    bool is_unknown;
    int n; /* atomic */
};

static int reserve_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    struct reserve *r = ctx;
    int k = __atomic_fetch_add(&r->n, 1, __ATOMIC_RELAXED);

    errno = r->is_unknown ? EOPNOTSUPP : EINTR;
    return r->is_unknown || k % 2 == 0 ? -1 : fallocate(fd, mode, at, n);
}

static void space_is_reserved_all_the_same(struct reserve *reserve)
{
    struct hky_journal_io io = {.ctx = reserve,
                                .pwritev = fault_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = fault_openat,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = reserve_fallocate};
    struct rig r, crashed;

    rig_init(&r);
    r.params.io = &io;
    r.params.spares_after_ms = 60000; /* spares, too, are only reserved */
    rig_open(&r);
    for (uint64_t id = 1; id <= N_MESSAGES; id++)
        rig_put(&r, id, 1, 20000);
    assert_true(__atomic_load_n(&reserve->n, __ATOMIC_RELAXED) > 0);
    rig_init(&crashed); /* the last segment has no footer that would have made it whole */
    copy_spool(r.dir, crashed.dir);
    rig_open(&crashed);
    assert_int_equal(crashed.report.damaged_records, 0);
    assert_int_equal(crashed.report.messages, N_MESSAGES);
    rig_fini(&crashed);
    rig_close(&r);
    r.params.io = NULL;
    rig_fini(&r);
}

static void a_reservation_that_a_signal_interrupts_is_tried_again(void **state)
{
    struct reserve reserve = {.faults = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = N_CALLS}};

    (void)state;
    space_is_reserved_all_the_same(&reserve);
}

static void files_have_their_full_length_where_no_space_can_be_reserved(void **state)
{
    struct reserve reserve = {.faults = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = N_CALLS}, .is_unknown = true};

    (void)state;
    space_is_reserved_all_the_same(&reserve);
}

/* Segments are waiting to be freed, their evidence cannot be written: the stop must not wait for it. */
static void the_stop_does_not_wait_for_a_disk_that_fails(void **state)
{
    struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = SYNC, .error = EIO, .is_lasting = true};
    struct hky_journal_io io = {.ctx = &f,
                                .pwritev = fault_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = fault_openat,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = fault_fallocate};
    struct rig r;
    struct hky_message *m;

    (void)state;
    rig_init(&r);
    r.params.io = &io;
    rig_open(&r);
    rig_put(&r, 1, 1, 500);
    for (uint64_t id = 10; id < 20; id++)
        rig_put(&r, id, 1, 20000);
    pthread_mutex_lock(&f.lock);
    f.at = f.n + 1;
    pthread_mutex_unlock(&f.lock);
    for (uint64_t id = 10; id < 20; id++)
        rig_finish(&r, hky_idmap_get(&r.found, id), 0);
    m = make_message(&r, 2, 1, 500);
    assert_int_equal(rig_accept(&r, m), HKY_E_IO);
    hky_message_unref(&m);
    rig_close(&r);
    r.params.io = NULL;
    rig_open(&r);
    assert_int_equal(r.report.unclean_stops, 1);
    assert_non_null(hky_idmap_get(&r.found, 1));
    rig_fini(&r);
}

/* Nobody waits for a disk that fails: who asks whether what came before is on it is told that it is not. */
static void who_asks_for_the_disk_is_told_that_it_fails(void **state)
{
    static const enum call CALLS[] = {SYNC, PWRITE};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = CALLS[k], .error = EIO, .is_lasting = true};
        struct hky_journal_io io = {.ctx = &f,
                                    .pwritev = fault_pwritev,
                                    .fdatasync = fault_fdatasync,
                                    .openat = fault_openat,
                                    .renameat = fault_renameat,
                                    .unlinkat = fault_unlinkat,
                                    .fallocate = fault_fallocate};
        struct rig r;
        struct told t;
        rig_init(&r);
        r.params.io = &io;
        r.params.retry_after_ms = 300;
        rig_open(&r);
        rig_put(&r, 1, 1, 500);
        struct hky_message *m = hky_idmap_get(&r.found, 1);
        pthread_mutex_lock(&f.lock);
        f.at = f.n + 1;
        pthread_mutex_unlock(&f.lock);
        hky_journal_attempt(r.j, &m->recipients[0], NULL);
        assert_int_equal(hky_journal_flush(r.j), HKY_E_IO);
        assert_int_equal(hky_journal_flush(r.j), HKY_E_IO); /* while it waits to try again, too */
        told_init(&r, &t);
        hky_journal_sync(r.j, &t.commit);
        told_wait(&r, &t);
        assert_true(!t.has_token && t.result == HKY_E_IO);
        pthread_mutex_lock(&f.lock);
        f.at = 0; /* the disk is well again, which the next try finds out */
        pthread_mutex_unlock(&f.lock);
        wait_until(hky_journal_flush(r.j) == HKY_OK);
        told_init(&r, &t);
        hky_journal_sync(r.j, &t.commit);
        told_wait(&r, &t);
        assert_true(t.has_token && t.result == HKY_OK);
        rig_fini(&r);
    }
}

static void a_failing_disk_refuses_accepts_and_recovers_by_itself(void **state)
{
    struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = SYNC, .error = EIO, .is_lasting = true};
    struct hky_journal_io io = {.ctx = &f,
                                .pwritev = fault_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = fault_openat,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = fault_fallocate};
    struct rig r;
    struct hky_message *m, *kept;
    struct hky_journal_stats stats;
    enum hky_err refused;
    struct rig crashed;
    struct told t;

    (void)state;
    rig_init(&r);
    r.params.io = &io;
    rig_open(&r);
    kept = rig_put(&r, 1, 2, 500);
    pthread_mutex_lock(&f.lock);
    f.at = f.n + 1;
    pthread_mutex_unlock(&f.lock);
    m = make_message(&r, 2, 1, 500);
    refused = rig_accept(&r, m);
    assert_int_equal(refused, HKY_E_IO); /* no spare can be made to try again in: still no lack of space */
    assert_int_not_equal(hky_journal_room(r.j, 100), HKY_OK);
    hky_journal_stats(r.j, &stats);
    assert_int_equal(stats.body_memory, 500); /* of the one that is there */
    hky_message_unref(&m);
    kept->recipients[0].state = HKY_RCPT_DELIVERED; /* a result waits for the disk */
    told_init(&r, &t);
    hky_journal_finish(r.j, &kept->recipients[0], NULL, &t.commit);
    m = kept;
    hky_message_unref(&m);
    for (int i = 0; i < 5; i++)
        hky_loop_turn(r.loop, 10);
    assert_false(t.is_done);
    for (int n_without = 0; n_without < 15;) { /* tries go on until no segment is left: still no lack of space */
        hky_loop_turn(r.loop, 10);
        hky_journal_stats(r.j, &stats);
        assert_int_equal(stats.health, HKY_E_IO);
        assert_int_equal(hky_journal_room(r.j, 100), HKY_E_IO);
        assert_int_equal(hky_journal_takes_results(r.j), HKY_E_IO);
        assert_false(stats.takes_results);
        n_without += stats.free_segments == 0;
    }
    rig_init(&crashed); /* killed now: what was refused does not come back */
    copy_spool(r.dir, crashed.dir);
    rig_open(&crashed);
    assert_non_null(hky_idmap_get(&crashed.found, 1));
    assert_null(hky_idmap_get(&crashed.found, 2));
    rig_fini(&crashed);
    pthread_mutex_lock(&f.lock);
    f.at = 0;
    pthread_mutex_unlock(&f.lock);
    told_wait(&r, &t);
    assert_int_equal(t.result, HKY_OK);
    wait_until(hky_journal_takes_results(r.j) == HKY_OK);
    wait_until(hky_journal_room(r.j, 100) == HKY_OK); /* spares come back with the disk */
    rig_put(&r, 3, 1, 500);
    rig_close(&r);
    r.params.io = NULL;
    rig_open(&r);
    assert_int_equal(r.report.messages, 2);
    assert_null(hky_idmap_get(&r.found, 2));
    kept = hky_idmap_get(&r.found, 1);
    assert_int_equal(kept->recipients[0].state, HKY_RCPT_DELIVERED);
    rig_fini(&r);
}

/* Body writes are held up until a batch is together, larger than what is left of the segment; the next is refused. */
struct batch {
    struct faults faults;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool has_begun; /* atomic */
    bool is_together;
    int n;
};

static ssize_t batch_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    struct batch *b = ctx;
    bool is_refused = false;

    if (at > 0 && n > 1) {
        __atomic_store_n(&b->has_begun, true, __ATOMIC_RELEASE);
        pthread_mutex_lock(&b->lock);
        while (!b->is_together)
            pthread_cond_wait(&b->cond, &b->lock);
        is_refused = ++b->n == 2;
        pthread_mutex_unlock(&b->lock);
    }
    errno = ENOSPC;
    return is_refused ? -1 : pwritev(fd, iov, n, at);
}

static void a_disk_that_is_full_at_the_end_of_a_segment_loses_nothing(void **state)
{
    struct batch b = {.faults = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = N_CALLS},
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .cond = PTHREAD_COND_INITIALIZER};
    struct hky_journal_io io = {.ctx = &b,
                                .pwritev = batch_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = fault_openat,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = fault_fallocate};
    struct told told[N_MESSAGES + 1];
    struct hky_message *m;
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.io = &io;
    rig_open(&r);
    for (uint64_t id = 1; id <= N_MESSAGES; id++) {
        m = make_message(&r, id, 1, 20000);
        told_init(&r, &told[id]);
        hky_journal_accept(r.j, m, &told[id].commit);
        hky_message_unref(&m);
        if (id == 1) /* the first goes alone, the others are one batch over three segments */
            wait_until(__atomic_load_n(&b.has_begun, __ATOMIC_ACQUIRE));
    }
    pthread_mutex_lock(&b.lock);
    b.is_together = true;
    pthread_cond_signal(&b.cond);
    pthread_mutex_unlock(&b.lock);
    for (int id = 1; id <= N_MESSAGES; id++)
        told_wait(&r, &told[id]);
    assert_int_equal(told[1].result, HKY_OK);
    assert_int_equal(told[2].result, HKY_E_FULL);
    rig_close(&r);
    r.params.io = NULL;
    rig_open(&r);
    for (uint64_t id = 1; id <= N_MESSAGES; id++)
        assert_int_equal(hky_idmap_get(&r.found, id) != NULL, told[id].result == HKY_OK);
    rig_fini(&r);
}

static int no_new_files(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    (void)ctx;
    if ((flags & O_CREAT) != 0) {
        errno = ENOSPC;
        return -1;
    }
    return openat(dir, name, flags, mode);
}

static void it_starts_where_no_file_can_be_made(void **state)
{
    struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = N_CALLS};
    struct hky_journal_io io = {.ctx = &f,
                                .pwritev = fault_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = no_new_files,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = fault_fallocate};
    struct hky_message *m;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_open(&r);
    rig_put(&r, 1, 1, 500);
    rig_close(&r);
    r.params.io = &io;
    rig_open(&r);
    m = hky_idmap_get(&r.found, 1);
    assert_non_null(m);
    rig_finish(&r, m, 0); /* and delivers: results go where the reserve is */
    rig_close(&r);
    rig_open(&r);
    assert_int_equal(r.report.unclean_stops, 0); /* the stop could be noted, too */
    assert_int_equal(r.report.messages, 0);
    rig_fini(&r);
}

static uint64_t octets_beside_segments(struct rig *r)
{
    struct hky_journal_stats s;

    hky_journal_stats(r->j, &s);
    return s.octets - s.segments * r->params.segment_octets;
}

/* Its body is on disk before the record is refused: it must not stay there, and not count against spool_max. */
static void the_body_of_a_refused_large_message_goes(void **state)
{
    struct faults f = {.lock = PTHREAD_MUTEX_INITIALIZER, .call = N_CALLS, .error = EIO};
    struct hky_journal_io io = {.ctx = &f,
                                .pwritev = fault_pwritev,
                                .fdatasync = fault_fdatasync,
                                .openat = fault_openat,
                                .renameat = fault_renameat,
                                .unlinkat = fault_unlinkat,
                                .fallocate = fault_fallocate};
    char path[128], name[HKY_ID_TEXT], text[1000] = "";
    struct hky_message *m;
    struct hky_big *big;
    struct told t;
    struct rig r;

    (void)state;
    rig_init(&r);
    r.params.io = &io;
    rig_open(&r);
    rig_put(&r, 1, 1, 500);
    m = make_message(&r, 7, 1, sizeof text);
    m->is_big = true;
    hky_body_unref(&m->body);
    assert_int_equal(hky_journal_big_open(r.j, 7, r.loop, NULL, NULL, &big), HKY_OK);
    hky_journal_big_write(big, text, sizeof text);
    told_init(&r, &t);
    hky_journal_big_commit(&big, &t.commit);
    told_wait(&r, &t);
    assert_int_equal(t.result, HKY_OK);
    hky_id_format(7, name);
    snprintf(path, sizeof path, "%s/big/%s", r.dir, name);
    assert_int_equal(access(path, F_OK), 0);
    rig_at_rest(&r);
    pthread_mutex_lock(&f.lock);
    f.call = SYNC;
    f.at = 1;
    f.n = 0;
    pthread_mutex_unlock(&f.lock);
    assert_int_equal(rig_accept(&r, m), HKY_E_IO);
    hky_message_unref(&m);
    wait_until(access(path, F_OK) < 0);
    wait_until(octets_beside_segments(&r) == 0);
    rig_close(&r);
    r.params.io = NULL;
    rig_open(&r);
    assert_int_equal(r.report.messages, 1);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whichever_call_fails_nothing_acknowledged_is_lost),
        cmocka_unit_test(a_reservation_that_a_signal_interrupts_is_tried_again),
        cmocka_unit_test(files_have_their_full_length_where_no_space_can_be_reserved),
        cmocka_unit_test(the_stop_does_not_wait_for_a_disk_that_fails),
        cmocka_unit_test(a_disk_that_is_full_at_the_end_of_a_segment_loses_nothing),
        cmocka_unit_test(it_starts_where_no_file_can_be_made),
        cmocka_unit_test(who_asks_for_the_disk_is_told_that_it_fails),
        cmocka_unit_test(a_failing_disk_refuses_accepts_and_recovers_by_itself),
        cmocka_unit_test(the_body_of_a_refused_large_message_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
