/*
 * Power cuts: what was written and not synced is lost sector by sector, at random, in the copy that is opened. Whatever
 * was told is true afterwards: acknowledged is there, finished stays finished, states are no older than what was told.
 */
#include "rig.h"

#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { SECTOR = 512, IDS = 4000, PROCESSES = 6, CUTS = 5 };

struct undo { /* a write that may be lost */
    struct undo *next;
    char path[300];
    off_t at;
    size_t n;
    char was[];
};

struct disk {
    pthread_mutex_t lock;
    struct undo *first; /* newest first */
    uint64_t seed;
    const char *cut_from, *cut_to; /* the power goes after so many syncs */
    int syncs_left;
};

static uint64_t dice(struct disk *d)
{
    d->seed ^= d->seed << 13;
    d->seed ^= d->seed >> 7;
    d->seed ^= d->seed << 17;
    return d->seed;
}

static void path_of(int fd, char out[300])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, out, 299);
    out[n > 0 ? n : 0] = '\0';
}

static ssize_t cut_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    struct disk *d = ctx;
    struct undo *u;
    size_t octets = 0;
    ssize_t wrote;

    for (int i = 0; i < n; i++)
        octets += iov[i].iov_len;
    pthread_mutex_lock(&d->lock);
    u = calloc(1, sizeof *u + octets);
    path_of(fd, u->path);
    u->at = at;
    u->n = octets;
    (void)!pread(fd, u->was, octets, at);
    u->next = d->first;
    d->first = u;
    wrote = pwritev(fd, iov, n, at);
    pthread_mutex_unlock(&d->lock);
    return wrote;
}

static void cut_power_locked(struct disk *d, const char *from, const char *to);

static int cut_fdatasync(void *ctx, int fd)
{
    struct disk *d = ctx;
    char path[300];

    pthread_mutex_lock(&d->lock);
    path_of(fd, path);
    for (struct undo **at = &d->first; *at != NULL;) {
        struct undo *u = *at;
        if (strcmp(u->path, path) != 0) {
            at = &u->next;
            continue;
        }
        *at = u->next;
        free(u);
    }
    if (d->cut_to != NULL && --d->syncs_left == 0) {
        cut_power_locked(d, d->cut_from, d->cut_to);
        d->cut_to = NULL;
    }
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static int cut_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    struct disk *d = ctx;
    int fd;

    pthread_mutex_lock(&d->lock);
    fd = openat(dir, name, flags, mode);
    pthread_mutex_unlock(&d->lock);
    return fd;
}

static int cut_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    struct disk *d = ctx;
    int rc;

    pthread_mutex_lock(&d->lock);
    rc = renameat(from_dir, from, to_dir, to);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int cut_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static int cut_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    struct disk *d = ctx;
    int rc;

    pthread_mutex_lock(&d->lock);
    rc = unlinkat(dir, name, flags);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* The copy after the cut: newest writes are undone first, so that older content comes back in order. */
static void cut_power_locked(struct disk *d, const char *from, const char *to)
{
    copy_spool(from, to);
    for (const struct undo *u = d->first; u != NULL; u = u->next) {
        char path[400];
        int fd;
        if (strncmp(u->path, from, strlen(from)) != 0)
            continue;
        snprintf(path, sizeof path, "%s%s", to, u->path + strlen(from));
        fd = open(path, O_WRONLY);
        for (size_t i = 0; fd >= 0 && i < u->n;) {
            size_t n = SECTOR - (size_t)(u->at + (off_t)i) % SECTOR;
            if (n > u->n - i)
                n = u->n - i;
            if (dice(d) % 3 == 0)
                assert_int_equal(pwrite(fd, u->was + i, n, u->at + (off_t)i), n);
            i += n;
        }
        if (fd >= 0)
            close(fd);
    }
}

static void cut_power(struct disk *d, const char *from, const char *to)
{
    pthread_mutex_lock(&d->lock);
    cut_power_locked(d, from, to);
    pthread_mutex_unlock(&d->lock);
}

/* The copy after a kill: nothing is lost yet, and what was not synced is not synced there either. */
static void kill_engine(struct disk *d, const char *from, const char *to)
{
    struct undo *mine = NULL, **last = &mine;

    pthread_mutex_lock(&d->lock);
    copy_spool(from, to);
    for (const struct undo *u = d->first; u != NULL; u = u->next) {
        struct undo *copy;
        if (strncmp(u->path, from, strlen(from)) != 0)
            continue;
        copy = calloc(1, sizeof *copy + u->n);
        memcpy(copy, u, sizeof *copy + u->n);
        snprintf(copy->path, sizeof copy->path, "%s%s", to, u->path + strlen(from));
        *last = copy;
        last = &copy->next;
    }
    *last = d->first;
    d->first = mine;
    pthread_mutex_unlock(&d->lock);
}

struct known { /* what was told of a message with two recipients */
    struct hky_message *m;
    bool is_acknowledged;
    bool is_finished[2]; /* told */
    bool may_be_finished[2];
    uint8_t tries, tries_asked;
};

struct event {
    struct hky_commit commit;
    struct known *k;
    int what; /* 0 accepted, 1 2 finished, 3 attempt */
    uint8_t tries;
};

static void on_event(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    struct event *e = HKY_CONTAINER(c, struct event, commit);

    assert_int_equal(result, HKY_OK);
    assert_non_null(durable);
    if (e->what == 0)
        e->k->is_acknowledged = true;
    else if (e->what == 3)
        e->k->tries = e->tries;
    else
        e->k->is_finished[e->what - 1] = true;
    free(e);
}

static struct hky_commit *event(struct rig *r, struct known *k, int what)
{
    struct event *e = calloc(1, sizeof *e);

    *e = (struct event){.commit = {.loop = r->loop, .done = on_event}, .k = k, .what = what, .tries = k->tries_asked};
    return &e->commit;
}

static void check_cut(struct rig *crashed, const struct known *known, uint64_t seed)
{
    for (uint64_t id = 1; id < IDS; id++) {
        const struct known *k = &known[id];
        struct hky_message *m = hky_idmap_get(&crashed->found, id);
        if (k->m == NULL && !k->is_acknowledged) {
            assert_null(m);
            continue;
        }
        for (int i = 0; i < 2; i++) {
            bool is_live = m != NULL && m->recipients[i].state == HKY_RCPT_QUEUED;
            if (k->is_finished[i] && is_live)
                fail_msg("seed %llu: %d/%d was finished and came back", (unsigned long long)seed, (int)id, i);
            if (k->is_acknowledged && !k->may_be_finished[i] && !is_live)
                fail_msg("seed %llu: %d/%d was acknowledged and is gone", (unsigned long long)seed, (int)id, i);
        }
        if (m != NULL && k->is_acknowledged && !k->is_finished[0])
            assert_true(m->recipients[0].tries >= k->tries || m->recipients[0].state != HKY_RCPT_QUEUED);
        if (m != NULL)
            rig_check_body(crashed, m);
    }
}

/* Every sixteenth message waits for ever with its first recipient. */
static bool is_over(const struct known *k, uint64_t id)
{
    return k->may_be_finished[1] && (k->may_be_finished[0] || id % 16 == 0);
}

static void accept_one(struct rig *r, struct disk *d, struct known *known, uint64_t id)
{
    struct known *k = &known[id];

    k->m = make_message(r, id, 2, 200 + dice(d) % 4000);
    hky_message_ref(k->m);
    hky_journal_accept(r->j, k->m, event(r, k, 0));
}

static void finish_one(struct rig *r, struct disk *d, struct known *k, uint64_t id)
{
    int i = k->may_be_finished[1] ? 0 : k->may_be_finished[0] ? 1 : (int)(dice(d) % 2);
    struct hky_message *one = k->m;

    if (k->may_be_finished[i] || (id % 16 == 0 && i == 0))
        return;
    k->may_be_finished[i] = true;
    k->m->recipients[i].state = HKY_RCPT_DELIVERED;
    hky_journal_finish(r->j, &k->m->recipients[i], NULL, dice(d) % 2 ? event(r, k, 1 + i) : NULL);
    if (k->may_be_finished[0] && k->may_be_finished[1])
        k->m = NULL;
    hky_message_unref(&one);
}

/* About ten messages are on their way at any time; what is over is over after a while. */
static void step(struct rig *r, struct disk *d, struct known *known, uint64_t *next, uint64_t *oldest)
{
    uint64_t id;
    struct known *k;

    while (*oldest < *next && is_over(&known[*oldest], *oldest))
        (*oldest)++;
    if (*next < IDS && *next - *oldest < 12) {
        accept_one(r, d, known, (*next)++);
        return;
    }
    id = dice(d) % 8 == 0 ? 1 + dice(d) % (*next - 1) : *oldest + dice(d) % (*next - *oldest);
    k = &known[id];
    if (k->m == NULL || !k->is_acknowledged) {
        hky_loop_turn(r->loop, 1);
    } else if (dice(d) % 4 == 0 && !k->may_be_finished[0]) {
        k->m->recipients[0].tries = ++k->tries_asked;
        hky_journal_attempt(r->j, &k->m->recipients[0], dice(d) % 2 ? event(r, k, 3) : NULL);
    } else {
        finish_one(r, d, k, id);
    }
}

/* A start after a kill builds on what is in memory only; the power goes after one of its first syncs. */
static void check_kill_and_cut(struct disk *d, const struct hky_journal_io *io, struct rig *killed,
                               const struct known *known, uint64_t seed)
{
    struct rig crashed;

    bool was_cut;

    rig_init(&crashed);
    pthread_mutex_lock(&d->lock); /* threads of the journal that is open now look at it, too */
    d->cut_from = killed->dir;
    d->cut_to = crashed.dir;
    d->syncs_left = 1 + (int)(dice(d) % 12);
    pthread_mutex_unlock(&d->lock);
    killed->params.io = io;
    rig_open(killed);
    rig_fini(killed);
    pthread_mutex_lock(&d->lock);
    was_cut = d->cut_to == NULL;
    d->cut_to = NULL;
    pthread_mutex_unlock(&d->lock);
    if (was_cut) {
        rig_open(&crashed);
        if (crashed.report.damaged_records != 0)
            fail_msg("seed %llu: damage where only the unsynced was lost after a kill", (unsigned long long)seed);
        check_cut(&crashed, known, seed);
    }
    rig_fini(&crashed);
}

static void cut_often(uint64_t seed)
{
    struct disk d = {.lock = PTHREAD_MUTEX_INITIALIZER, .seed = seed};
    struct hky_journal_io io = {.ctx = &d,
                                .pwritev = cut_pwritev,
                                .fdatasync = cut_fdatasync,
                                .openat = cut_openat,
                                .renameat = cut_renameat,
                                .unlinkat = cut_unlinkat,
                                .fallocate = cut_fallocate};
    struct known *known = calloc(IDS, sizeof *known);
    uint64_t next = 1, oldest = 1;
    struct rig r;

    rig_init(&r);
    r.params.io = &io;
    r.params.cold_after_ms = 1;
    rig_open(&r);
    for (int cut = 0; cut < CUTS; cut++) {
        struct rig crashed, killed;
        for (int i = 0; i < 250; i++) {
            step(&r, &d, known, &next, &oldest);
            if (dice(&d) % 8 == 0)
                hky_loop_turn(r.loop, (int)(dice(&d) % 3));
        }
        rig_init(&killed);
        kill_engine(&d, r.dir, killed.dir);
        rig_init(&crashed);
        cut_power(&d, r.dir, crashed.dir);
        rig_open(&crashed);
        if (crashed.report.damaged_records != 0)
            fail_msg("seed %llu: damage where only the unsynced was lost", (unsigned long long)seed);
        check_cut(&crashed, known, seed);
        rig_close(&crashed);
        rig_open(&crashed); /* and the next start agrees */
        check_cut(&crashed, known, seed);
        rig_fini(&crashed);
        check_kill_and_cut(&d, &io, &killed, known, seed);
    }
    hky_journal_flush(r.j);
    for (int i = 0; i < 20; i++)
        hky_loop_turn(r.loop, 1);
    for (uint64_t id = 1; id < IDS; id++)
        for (int i = 0; i < 2 && known[id].m != NULL; i++)
            if (!known[id].may_be_finished[i]) {
                struct hky_message *one = known[id].m;
                hky_message_unref(&one);
            }
    rig_fini(&r);
    while (d.first != NULL) {
        struct undo *u = d.first;
        d.first = u->next;
        free(u);
    }
    free(known);
}

/* A journal mostly waits for syncs, so several live side by side. */
static void whatever_is_lost_nothing_told_is_untrue(void **state)
{
    uint64_t seed = 88172645463325252u ^ (uint64_t)hky_mono_ns();
    pid_t child[PROCESSES];
    int n_failed = 0;

    (void)state;
    fflush(NULL);
    for (unsigned k = 0; k < PROCESSES; k++) {
        child[k] = fork();
        assert_true(child[k] >= 0);
        if (child[k] == 0) {
            cut_often(seed ^ ((uint64_t)k << 56));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_is_lost_nothing_told_is_untrue)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
