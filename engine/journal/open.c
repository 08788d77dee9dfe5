/* Opening and closing, in order and in reverse. */
#include "journal/internal.h"

#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t sys_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    (void)ctx;
    return pwritev(fd, iov, n, at);
}

static int sys_fdatasync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd);
}

static int sys_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    (void)ctx;
    return openat(dir, name, flags, mode);
}

static int sys_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    (void)ctx;
    return renameat(from_dir, from, to_dir, to);
}

static int sys_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    (void)ctx;
    return unlinkat(dir, name, flags);
}

static int sys_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
{
    (void)ctx;
    return fallocate(fd, mode, at, n);
}

static const struct hky_journal_io sys_io = {.pwritev = sys_pwritev,
                                             .fdatasync = sys_fdatasync,
                                             .openat = sys_openat,
                                             .renameat = sys_renameat,
                                             .unlinkat = sys_unlinkat,
                                             .fallocate = sys_fallocate};

static void journal_close(struct hky_journal *j, bool is_used);

static const struct journal_backend on_disk = {.close = journal_close,
                                               .ids = journal_disk_ids,
                                               .room = journal_disk_room,
                                               .accept = journal_disk_accept,
                                               .attempt = journal_disk_attempt,
                                               .finish = journal_disk_finish,
                                               .cap = journal_disk_cap,
                                               .body = journal_disk_body,
                                               .body_in_memory = journal_disk_body_in_memory,
                                               .header = journal_disk_header,
                                               .body_drop = journal_disk_body_drop,
                                               .big_open = journal_disk_big_open,
                                               .stats = journal_disk_stats,
                                               .submitted = journal_disk_submitted,
                                               .written = journal_disk_written,
                                               .takes_results = journal_disk_takes_results,
                                               .sync = journal_disk_sync,
                                               .flush = journal_disk_flush};

static struct hky_journal *journal_new(const struct hky_journal_params *params)
{
    struct hky_journal *j = hky_calloc(1, sizeof *j);
    pthread_condattr_t monotonic;

    j->head.backend = &on_disk;
    j->params = *params;
    if (j->params.segment_octets == 0)
        j->params.segment_octets = 64 << 20;
    j->params.segment_octets &= ~UINT64_C(4095);
    HKY_ASSERT(j->params.segment_octets >= SEGMENT_MIN && j->params.segment_octets <= SEGMENT_MAX);
    if (j->params.footer_max == 0 || j->params.footer_max > META_MAX)
        j->params.footer_max = META_MAX;
    atomic_store(&j->octets_next, j->params.segment_octets < FIRST_OCTETS ? j->params.segment_octets : FIRST_OCTETS);
    atomic_store(&j->large_octets, HKY_BIG_BODY);
    j->io = params->io != NULL ? *params->io : sys_io;
    j->dir = hky_strdup(params->dir);
    j->root_fd = j->journal_fd = j->big_fd = j->damaged_fd = j->lock_fd = -1;
    j->next_seq = 1;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->queue.lock, NULL);
    pthread_cond_init(&j->queue.cond, &monotonic);
    pthread_mutex_init(&j->maintain.lock, NULL);
    pthread_cond_init(&j->maintain.cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&j->index_lock, NULL);
    pthread_mutex_init(&j->epoch_lock, NULL);
    for (int i = 0; i < BODY_LOCKS; i++)
        pthread_mutex_init(&j->body_locks[i], NULL);
    hky_idmap_init(&j->plans);
    hky_map_init(&j->caps);
    return j;
}

static void journal_free(struct hky_journal **journal)
{
    struct hky_journal *j = *journal;
    size_t at = 0;

    *journal = NULL;
    journal_index_fini(&j->index);
    for (struct hky_map_entry *c; (c = hky_map_next(&j->caps, &at)) != NULL;) {
        struct cap_value *v = c->value;
        hky_buf_fini(&v->meta);
        free(v);
    }
    hky_map_fini(&j->caps);
    for (uint32_t k = 0; k < j->n_slots; k++)
        if (j->slots[k] != NULL)
            journal_plans_released(j, j->slots[k]);
    hky_idmap_fini(&j->plans);
    for (uint32_t k = 0; k < j->n_slots; k++)
        journal_segment_free(&j->slots[k]);
    journal_spool_close(j);
    free(j->spare);
    free(j->maintain.to_close);
    free(j->maintain.to_unlink);
    pthread_mutex_destroy(&j->queue.lock);
    pthread_cond_destroy(&j->queue.cond);
    pthread_mutex_destroy(&j->maintain.lock);
    pthread_cond_destroy(&j->maintain.cond);
    pthread_mutex_destroy(&j->index_lock);
    pthread_mutex_destroy(&j->epoch_lock);
    for (int i = 0; i < BODY_LOCKS; i++)
        pthread_mutex_destroy(&j->body_locks[i]);
    free(j->dir);
    free(j);
}

static enum hky_err start_threads(struct hky_journal *j, struct hky_error *e)
{
    enum hky_err err = journal_reader_start(j, e);

    if (err == HKY_OK)
        err = journal_big_start(j, e);
    if (err != HKY_OK)
        return err;
    if (hky_thread_start(&j->committer, journal_committer_run, j) != 0)
        return hky_error_set(e, HKY_E_LIMIT, "cannot start the journal's thread");
    j->has_committer = true;
    j->opened_ms = hky_mono_ms();
    if (hky_thread_start(&j->maintainer, journal_maintainer_run, j) != 0)
        return hky_error_set(e, HKY_E_LIMIT, "cannot start the journal's maintenance thread");
    j->has_maintainer = true;
    return HKY_OK;
}

/* Maintenance first: it submits to the committer. */
static void stop_threads(struct hky_journal *j)
{
    atomic_store(&j->is_closing, true);
    journal_big_stop(j);
    if (j->has_maintainer) {
        pthread_mutex_lock(&j->maintain.lock);
        j->maintain.is_stopping = true;
        pthread_cond_signal(&j->maintain.cond);
        pthread_mutex_unlock(&j->maintain.lock);
        pthread_join(j->maintainer, NULL);
    }
    if (j->has_committer) {
        pthread_mutex_lock(&j->queue.lock);
        j->queue.is_stopping = true;
        pthread_cond_signal(&j->queue.cond);
        pthread_mutex_unlock(&j->queue.lock);
        pthread_join(j->committer, NULL);
    }
    j->has_maintainer = j->has_committer = false;
    journal_reader_stop(j);
}

/* Below that, each freed segment would go to the reserve, and no mail could ever be accepted again. */
static enum hky_err check_bounds(struct hky_journal *j, struct hky_error *e)
{
    uint64_t least = (RESERVED_SPARES + 2) * j->params.segment_octets;

    if (j->params.spool_max == 0 || j->params.spool_max >= least)
        return HKY_OK;
    return hky_error_set(e, HKY_E_CONFIG, "spool_max is %llu octets: at least %llu (four segments) are needed",
                         (unsigned long long)j->params.spool_max, (unsigned long long)least);
}

enum hky_err hky_journal_open(const struct hky_journal_params *params, const struct hky_journal_replay *replay,
                              struct hky_journal **out, struct hky_journal_report *report, struct hky_error *e)
{
    struct hky_journal *j = journal_new(params);
    int64_t started = hky_mono_ms();
    bool was_clean, is_new;
    enum hky_err err;

    *out = NULL;
    *report = (struct hky_journal_report){0};
    err = check_bounds(j, e);
    if (err == HKY_OK)
        err = journal_spool_open(j, e);
    if (err == HKY_OK)
        err = journal_spool_state_read(j, &was_clean, &is_new, e);
    if (err == HKY_OK)
        err = journal_spool_state_write(j, j->epoch_limit, false, e);
    if (err == HKY_OK) {
        j->was_clean = was_clean || is_new;
        report->unclean_stops = !j->was_clean;
        err = journal_replay_run(j, replay, report, j->was_clean, e);
    }
    if (err == HKY_OK) {
        journal_big_clean(j);
        err = start_threads(j, e);
    }
    if (err != HKY_OK) {
        stop_threads(j);
        journal_free(&j);
        return err;
    }
    report->took_ms = hky_mono_ms() - started;
    *out = j;
    return HKY_OK;
}

static void journal_close(struct hky_journal *j, bool is_used)
{
    bool is_clean;

    stop_threads(j);
    journal_maintainer_finish(j);
    is_clean = atomic_load(&j->health) == HKY_OK && (is_used || j->was_clean);
    if (journal_spool_state_write(j, j->next_epoch, is_clean, NULL) != HKY_OK)
        hky_log(j->params.log, HKY_LOG_WARN, "stop", "error=cannot_mark_clean: the next start takes longer");
    journal_free(&j);
}
