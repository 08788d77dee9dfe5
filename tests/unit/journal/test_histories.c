/*
 * Random histories on a disk that fails at random moments: once, for a while, for good, half way. Then the engine stops
 * or is killed, and the next one opens the spool on a sound disk. Whatever happened, what was acknowledged and has not
 * ended is there with its content; what was refused is not; an end that was told as synced holds.
 */
#include "rig.h"

#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum call { PWRITE, SYNC, OPEN, RENAME, UNLINK, FALLOCATE, N_CALLS };
enum {
    N_FAULTS = 3,
    N_MESSAGES = 240,
    RCPTS_MAX = 3,
    BURST_MAX = 14,
    SOME_TIME_MS = 4000,
    HISTORIES = 400,
    PROCESSES = 16,
    ENOUGH_SEC = 2
};

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return below > 0 ? (uint32_t)((*state >> 33) % below) : 0;
}

/* --- the disk --- */

struct fault {
    enum call call;
    int from, n; /* the calls from..from + n - 1 of this kind fail */
    int error;
    bool is_short;
};

/* One call at a time, so that a copy of the spool is what a kill leaves. */
struct disk {
    pthread_mutex_t lock;
    struct fault faults[N_FAULTS];
    int n_calls[N_CALLS];
    uint64_t rng;
    bool is_sound;
    bool has_kept_refused; /* the header of a refused record could not be overwritten, nor anything else said of it */
};

static const struct fault *failing(struct disk *d, enum call call)
{
    int n = ++d->n_calls[call];

    for (int i = 0; i < N_FAULTS && !d->is_sound; i++) {
        const struct fault *f = &d->faults[i];
        if (f->call == call && n >= f->from && n - f->from < f->n)
            return f;
    }
    return NULL;
}

static bool is_blot(const struct iovec *iov, int n)
{
    static const char none[JOURNAL_RECORD_HEADER];

    return n == 1 && iov->iov_len == sizeof none && memcmp(iov->iov_base, none, sizeof none) == 0;
}

/* What the disk takes before it is full: whole sectors of a header, any part of records. */
static ssize_t write_part(struct disk *d, int fd, const struct iovec *iov, int n, off_t at)
{
    struct iovec part[16];
    size_t total = 0, left;
    int k = 0;

    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    left = at == 0 ? draw(&d->rng, 8) * (size_t)512 : draw(&d->rng, (uint32_t)total);
    for (; k < n && k < 16 && left > 0; k++) {
        part[k] = iov[k];
        if (part[k].iov_len > left)
            part[k].iov_len = left;
        left -= part[k].iov_len;
    }
    return k > 0 ? pwritev(fd, part, k, at) : 0;
}

static ssize_t disk_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    struct disk *d = ctx;
    const struct fault *f;
    ssize_t wrote;
    int error = 0;

    pthread_mutex_lock(&d->lock);
    f = failing(d, PWRITE);
    if (f == NULL) {
        wrote = at != 0 && draw(&d->rng, 8) == 0 ? write_part(d, fd, iov, n, at) : 0; /* a short count is no failure */
        if (wrote <= 0)
            wrote = pwritev(fd, iov, n, at);
        error = errno;
    } else {
        if (f->is_short)
            (void)!write_part(d, fd, iov, n, at);
        d->has_kept_refused = d->has_kept_refused || is_blot(iov, n);
        error = f->error;
        wrote = -1;
    }
    pthread_mutex_unlock(&d->lock);
    errno = error;
    return wrote;
}

/* Locks the disk when the call is to go on; false: it failed. */
static bool may(struct disk *d, enum call call)
{
    const struct fault *f;

    pthread_mutex_lock(&d->lock);
    f = failing(d, call);
    if (f == NULL)
        return true;
    errno = f->error;
    pthread_mutex_unlock(&d->lock);
    return false;
}

static int leave(struct disk *d, int rc)
{
    int error = errno;

    pthread_mutex_unlock(&d->lock);
    errno = error;
    return rc;
}

static int disk_fdatasync(void *ctx, int fd)
{
    (void)fd; /* what is written is what a kill leaves; power cuts have a test of their own */
    return may(ctx, SYNC) ? leave(ctx, 0) : -1;
}

static int disk_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    return may(ctx, OPEN) ? leave(ctx, openat(dir, name, flags, mode)) : -1;
}

static int disk_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    return may(ctx, RENAME) ? leave(ctx, renameat(from_dir, from, to_dir, to)) : -1;
}

static int disk_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    return may(ctx, UNLINK) ? leave(ctx, unlinkat(dir, name, flags)) : -1;
}

static int disk_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    return may(ctx, FALLOCATE) ? leave(ctx, fallocate(fd, mode, at, n)) : -1;
}

static struct hky_journal_io disk_io(struct disk *d)
{
    return (struct hky_journal_io){.ctx = d,
                                   .pwritev = disk_pwritev,
                                   .fdatasync = disk_fdatasync,
                                   .openat = disk_openat,
                                   .renameat = disk_renameat,
                                   .unlinkat = disk_unlinkat,
                                   .fallocate = disk_fallocate};
}

static void draw_faults(struct disk *d, uint64_t *rng)
{
    static const int spans[] = {1, 1, 2, 3, 5, 8, 1 << 30};

    for (int i = 0; i < N_FAULTS; i++) {
        enum call call =
            (enum call)(uint32_t[]){PWRITE, PWRITE, PWRITE, SYNC, SYNC, OPEN, RENAME, UNLINK, FALLOCATE}[draw(rng, 9)];
        d->faults[i] = (struct fault){.call = call,
                                      .from = 1 + (int)draw(rng, call == PWRITE ? 150
                                                                 : call == SYNC ? 120
                                                                                : 30),
                                      .n = spans[draw(rng, sizeof spans / sizeof spans[0])],
                                      .error = draw(rng, 2) == 0 ? EIO : ENOSPC,
                                      .is_short = draw(rng, 2) == 0};
    }
}

/* --- the model --- */

/* What may be true of a thing after a restart. */
enum belief { NO, PERHAPS, YES };

struct mail {
    struct hky_message *m; /* one reference is the test's */
    struct told told;
    bool is_submitted;
    uint32_t n;
    size_t size;
    uint8_t attempts_told[RCPTS_MAX], attempts_sent[RCPTS_MAX];
    struct told end[RCPTS_MAX], attempt[RCPTS_MAX];
    bool is_ending[RCPTS_MAX], is_attempting[RCPTS_MAX];
    /* as of the moment that is checked */
    enum belief there, ended[RCPTS_MAX];
    uint8_t attempts_least[RCPTS_MAX], attempts_most[RCPTS_MAX];
};

struct history {
    struct rig rig;
    struct disk disk;
    uint64_t seed, rng;
    struct mail mails[N_MESSAGES + 1]; /* by id */
    uint64_t n_mails;
};

static void turn_until(struct history *h, const bool *is_done)
{
    struct timespec began, now;

    clock_gettime(CLOCK_MONOTONIC, &began);
    do {
        hky_loop_turn(h->rig.loop, 5);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (!*is_done && (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000 < SOME_TIME_MS);
    if (!*is_done)
        fail_msg("history %llu: an accept is not answered", (unsigned long long)h->seed);
}

static void accept_some(struct history *h)
{
    uint64_t first = h->n_mails + 1, n = 1 + draw(&h->rng, BURST_MAX);

    for (uint64_t k = 0; k < n && h->n_mails < N_MESSAGES; k++) {
        uint64_t id = ++h->n_mails;
        struct mail *x = &h->mails[id];
        x->n = 1 + draw(&h->rng, RCPTS_MAX);
        x->size = draw(&h->rng, 4) == 0 ? 16 + draw(&h->rng, 9000) : 100 + draw(&h->rng, 900);
        x->m = make_message(&h->rig, id, x->n, x->size);
        x->is_submitted = true;
        told_init(&h->rig, &x->told);
        hky_journal_accept(h->rig.j, x->m, &x->told.commit);
    }
    for (uint64_t id = first; id <= h->n_mails; id++)
        turn_until(h, &h->mails[id].told.is_done);
}

static bool is_acked(const struct mail *x)
{
    return x->is_submitted && x->told.is_done && x->told.result == HKY_OK;
}

static void end_one(struct history *h, struct mail *x, uint32_t i, bool tells)
{
    struct hky_recipient *r = &x->m->recipients[i];

    x->is_ending[i] = true;
    r->state = HKY_RCPT_DELIVERED;
    told_init(&h->rig, &x->end[i]);
    hky_journal_finish(h->rig.j, r, NULL, tells ? &x->end[i].commit : NULL);
}

static void attempt_one(struct history *h, struct mail *x, uint32_t i)
{
    struct hky_recipient *r = &x->m->recipients[i];

    if (x->is_attempting[i] && !x->attempt[i].is_done)
        return;
    r->attempts = ++x->attempts_sent[i];
    r->state = HKY_RCPT_QUEUED;
    x->is_attempting[i] = true;
    told_init(&h->rig, &x->attempt[i]);
    hky_journal_attempt(h->rig.j, r, &x->attempt[i].commit);
}

static void note_attempts(struct history *h)
{
    for (uint64_t id = 1; id <= h->n_mails; id++)
        for (uint32_t i = 0; i < h->mails[id].n; i++) {
            struct mail *x = &h->mails[id];
            if (x->is_attempting[i] && x->attempt[i].is_done && x->attempt[i].result == HKY_OK)
                x->attempts_told[i] = x->attempts_sent[i];
        }
}

static void results(struct history *h)
{
    for (uint32_t k = draw(&h->rng, 40); k > 0 && h->n_mails > 0; k--) {
        struct mail *x = &h->mails[1 + draw(&h->rng, (uint32_t)h->n_mails)];
        uint32_t i;
        if (!is_acked(x))
            continue;
        i = draw(&h->rng, x->n);
        if (x->is_ending[i])
            continue;
        note_attempts(h);
        if (draw(&h->rng, 3) == 0)
            attempt_one(h, x, i);
        else
            end_one(h, x, i, draw(&h->rng, 2) == 0);
    }
    hky_loop_turn(h->rig.loop, 0);
}

/* What is known at this moment. */
static void believe(struct history *h)
{
    hky_loop_turn(h->rig.loop, 0);
    note_attempts(h);
    for (uint64_t id = 1; id <= h->n_mails; id++) {
        struct mail *x = &h->mails[id];
        x->there = is_acked(x) ? YES : x->told.is_done && !h->disk.has_kept_refused ? NO : PERHAPS;
        for (uint32_t i = 0; i < x->n; i++) {
            x->ended[i] = !x->is_ending[i] ? NO : x->end[i].is_done && x->end[i].result == HKY_OK ? YES : PERHAPS;
            x->attempts_least[i] = x->attempts_told[i];
            x->attempts_most[i] = x->attempts_sent[i];
        }
    }
}

static void check_recipient(struct history *h, const struct mail *x, const struct hky_recipient *r)
{
    bool is_final = hky_recipient_state_is_final((enum hky_recipient_state)r->state);
    unsigned long long seed = h->seed, id = r->message->id;

    if (is_final && x->ended[r->index] == NO)
        fail_msg("history %llu: recipient %u of message %llu ended by itself", seed, r->index, id);
    if (!is_final && x->ended[r->index] == YES)
        fail_msg("history %llu: recipient %u of message %llu had ended and came back", seed, r->index, id);
    if (!is_final && (r->attempts < x->attempts_least[r->index] || r->attempts > x->attempts_most[r->index]))
        fail_msg("history %llu: recipient %u of message %llu has %u attempts, %u were synced, %u made", seed, r->index,
                 id, r->attempts, x->attempts_least[r->index], x->attempts_most[r->index]);
}

static void check(struct history *h, struct rig *r)
{
    unsigned long long seed = h->seed;

    if (r->report.damaged_records != 0)
        fail_msg("history %llu: damage is reported, and there is none", seed);
    for (uint64_t id = 1; id <= h->n_mails; id++) {
        struct mail *x = &h->mails[id];
        struct hky_message *m = hky_idmap_get(&r->found, id);
        bool may_be_over = true, is_over = true;
        for (uint32_t i = 0; i < x->n; i++) {
            may_be_over = may_be_over && x->ended[i] != NO;
            is_over = is_over && x->ended[i] == YES;
        }
        if (m == NULL && x->there == YES && !may_be_over)
            fail_msg("history %llu: message %llu was acknowledged and is lost", seed, (unsigned long long)id);
        if (m != NULL && x->there == NO)
            fail_msg("history %llu: message %llu was refused and is there", seed, (unsigned long long)id);
        if (m != NULL && is_over)
            fail_msg("history %llu: message %llu had ended and came back", seed, (unsigned long long)id);
        if (m == NULL)
            continue;
        assert_int_equal(m->n_recipients, x->n);
        assert_int_equal(m->size, x->size);
        rig_check_body(r, m);
        for (uint32_t i = 0; i < x->n; i++)
            check_recipient(h, x, &m->recipients[i]);
    }
}

/* --- one history --- */

static void forget(struct history *h)
{
    for (uint64_t id = 1; id <= h->n_mails; id++)
        hky_message_unref(&h->mails[id].m);
}

static void live(struct history *h)
{
    for (uint32_t steps = 4 + draw(&h->rng, 12); steps > 0; steps--) {
        accept_some(h);
        results(h);
        if (draw(&h->rng, 4) == 0)
            let_pass(1000 + draw(&h->rng, 4000), "the history pauses, and maintenance gets a turn");
    }
}

/* The next engines, on a sound disk: the first finds what must be there, the second what that one made of it. */
static void open_again(struct history *h, const char *dir)
{
    struct rig next = h->rig;

    next.params.io = NULL;
    next.params.dir = dir;
    hky_idmap_init(&next.found);
    hky_map_init(&next.caps);
    for (int k = 0; k < 2; k++) {
        rig_open(&next);
        check(h, &next);
        if (k == 0) {
            rig_put(&next, N_MESSAGES + 1, 1, 500);
            let_pass(2000, "the engine runs a moment, with maintenance at work");
        } else {
            assert_non_null(hky_idmap_get(&next.found, N_MESSAGES + 1));
        }
        rig_close(&next);
    }
    hky_idmap_fini(&next.found);
    hky_map_fini(&next.caps);
}

static void one_history(uint64_t seed)
{
    struct history *h = calloc(1, sizeof *h);
    struct hky_journal_io io = disk_io(&h->disk);
    char killed[80];
    bool is_killed;

    h->seed = seed;
    h->rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    h->disk.rng = h->rng ^ 0x5bd1e995;
    pthread_mutex_init(&h->disk.lock, NULL);
    draw_faults(&h->disk, &h->rng);
    rig_init(&h->rig);
    snprintf(killed, sizeof killed, "%s.killed", h->rig.dir);
    h->rig.params.segment_octets = (16 + 16 * draw(&h->rng, 3)) << 10;
    h->rig.params.cold_after_ms = 1;
    h->rig.params.io = &io;
    is_killed = draw(&h->rng, 2) == 0;
    if (rig_try_open(&h->rig) == HKY_OK) {
        live(h);
        if (is_killed) {
            pthread_mutex_lock(&h->disk.lock);
            copy_spool(h->rig.dir, killed);
            believe(h);
            pthread_mutex_unlock(&h->disk.lock);
        }
        hky_journal_close(&h->rig.j);
        hky_loop_turn(h->rig.loop, 0);
        if (!is_killed)
            believe(h);
        open_again(h, is_killed ? killed : h->rig.dir);
    }
    forget(h);
    rig_fini(&h->rig);
    scratch_remove(killed);
    pthread_mutex_destroy(&h->disk.lock);
    free(h);
}

static void histories(uint64_t first)
{
    struct timespec began, now;

    clock_gettime(CLOCK_MONOTONIC, &began);
    for (uint64_t seed = first; seed <= HISTORIES; seed += PROCESSES) {
        one_history(seed);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - began.tv_sec >= ENOUGH_SEC)
            break;
    }
}

/* A journal whose disk fails mostly waits, so several live side by side. */
static void what_was_acknowledged_is_there_and_what_was_refused_is_not(void **state)
{
    pid_t child[PROCESSES];
    int n_failed = 0;

    (void)state;
    fflush(NULL);
    for (int k = 0; k < PROCESSES; k++) {
        child[k] = fork();
        assert_true(child[k] >= 0);
        if (child[k] == 0) {
            histories((uint64_t)k + 1);
            exit(0);
        }
    }
    for (int k = 0; k < PROCESSES; k++) {
        int status = -1;
        n_failed += waitpid(child[k], &status, 0) != child[k] || status != 0;
    }
    assert_int_equal(n_failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_acknowledged_is_there_and_what_was_refused_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
