/* Segment files: writing, reading, taking them from the pool and putting them back. */
#include "journal/internal.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EPOCHS_A_TIME 1024

enum hky_err journal_segment_write(struct hky_journal *j, struct segment *s, struct iovec *iov, int n, uint64_t at)
{
    while (n > 0) {
        int some = n < IOV_MAX ? n : IOV_MAX;
        ssize_t wrote = j->io.pwritev(j->io.ctx, s->fd, iov, some, (off_t)at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? journal_disk_error(errno) : HKY_E_IO;
        at += (uint64_t)wrote;
        while (n > 0 && (size_t)wrote >= iov->iov_len) {
            wrote -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + wrote;
            iov->iov_len -= (size_t)wrote;
        }
    }
    return HKY_OK;
}

enum hky_err journal_segment_sync(struct hky_journal *j, struct segment *s)
{
    atomic_fetch_add_explicit(&j->n_syncs, 1, memory_order_relaxed);
    return j->io.fdatasync(j->io.ctx, s->fd) < 0 ? HKY_E_IO : HKY_OK;
}

enum hky_err journal_segment_read(struct segment *s, uint64_t at, void *p, size_t n)
{
    char *to = p;

    while (n > 0) {
        ssize_t got = pread(s->fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return HKY_E_IO;
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return HKY_OK;
}

struct segment *journal_segment_new(struct hky_journal *j, uint32_t slot, int fd, const struct segment_head *head)
{
    struct segment *s = j->slots[slot];

    if (s == NULL)
        s = hky_calloc(1, sizeof *s);
    s->slot = slot;
    s->fd = fd;
    s->head = *head;
    s->octets = head->octets;
    hky_buf_init(&s->foot, j->params.footer_max);
    hky_idmap_init(&s->plans);
    j->slots[slot] = s;
    if (slot >= j->n_slots)
        j->n_slots = slot + 1;
    j->n_segments++;
    j->segment_octets += s->octets;
    return s;
}

void journal_segment_free(struct segment **s)
{
    struct segment *it = *s;

    *s = NULL;
    if (it == NULL)
        return;
    if (it->fd >= 0)
        close(it->fd);
    hky_buf_fini(&it->foot);
    hky_idmap_fini(&it->plans);
    free(it->dead);
    free(it->evidence);
    free(it);
}

void journal_segment_name(uint32_t slot, char out[32])
{
    snprintf(out, 32, "seg-%05u", slot);
}

/* Writes zeros to the end, so that a later fdatasync has no change of the file's metadata to write. */
static bool zero_fill(struct hky_journal *j, int fd, uint64_t octets)
{
    size_t piece = octets < (1 << 20) ? (size_t)octets : 1 << 20;
    char *zeros = hky_calloc(1, piece);
    uint64_t at = 0;

    while (at < octets) {
        struct iovec iov = {.iov_base = zeros, .iov_len = octets - at < piece ? (size_t)(octets - at) : piece};
        ssize_t wrote = j->io.pwritev(j->io.ctx, fd, &iov, 1, (off_t)at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            break;
        at += (uint64_t)wrote;
    }
    free(zeros);
    return at == octets;
}

/* Reserves the space without writing zeros; a file system without fallocate allocates as the file is written. */
static bool reserve_space(struct hky_journal *j, int fd, uint64_t octets)
{
    int rc;

    do
        rc = j->io.fallocate(j->io.ctx, fd, 0, 0, (off_t)octets);
    while (rc < 0 && errno == EINTR);
    return rc == 0 || (errno == EOPNOTSUPP && ftruncate(fd, (off_t)octets) == 0);
}

/* A new file, or -1 with errno. `is_quick`: the space is reserved but not written, for when somebody waits for it. */
static int make_file(struct hky_journal *j, uint32_t slot, uint64_t octets, bool is_quick)
{
    char name[32], fresh[40], header[SEGMENT_HEADER];
    struct segment_head head = {.number = slot, .octets = octets, .state = SEGMENT_FREE};
    struct iovec iov = {.iov_base = header, .iov_len = sizeof header};
    bool ok;
    int fd, why;

    journal_segment_name(slot, name);
    snprintf(fresh, sizeof fresh, "%s.new", name);
    j->io.unlinkat(j->io.ctx, j->journal_fd, fresh, 0);
    fd = j->io.openat(j->io.ctx, j->journal_fd, fresh, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    journal_segment_head_encode(&head, header);
    ok = is_quick ? reserve_space(j, fd, octets) : zero_fill(j, fd, octets);
    ok = ok && j->io.pwritev(j->io.ctx, fd, &iov, 1, 0) == SEGMENT_HEADER && j->io.fdatasync(j->io.ctx, fd) == 0 &&
         j->io.renameat(j->io.ctx, j->journal_fd, fresh, j->journal_fd, name) == 0;
    if (ok && j->io.fdatasync(j->io.ctx, j->journal_fd) == 0)
        return fd;
    why = errno;
    close(fd);
    j->io.unlinkat(j->io.ctx, j->journal_fd, ok ? name : fresh, 0);
    errno = why;
    return -1;
}

/* A number that no file has; the struct of a removed file may be used again. */
static struct segment *reserve_slot(struct hky_journal *j)
{
    struct segment *s = NULL;
    uint32_t k;

    pthread_mutex_lock(&j->index_lock);
    for (k = 0; k < SLOTS_MAX && j->slots[k] != NULL && j->slots[k]->fd != FD_NONE;)
        k++;
    if (k < SLOTS_MAX) {
        s = j->slots[k] != NULL ? j->slots[k] : hky_calloc(1, sizeof *s);
        s->slot = k;
        s->fd = FD_RESERVED;
        j->slots[k] = s;
        if (k >= j->n_slots)
            j->n_slots = k + 1;
    }
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

void journal_segment_keep_spare(struct hky_journal *j, struct segment *s)
{
    if (j->n_spare == j->spare_cap) {
        j->spare_cap = j->spare_cap == 0 ? 8 : j->spare_cap * 2;
        j->spare = hky_realloc(j->spare, j->spare_cap * sizeof(struct segment *));
    }
    j->spare[j->n_spare++] = s;
}

/* Without index_lock: making a file takes long. `is_last_resort`: ignores spool_max and min_free; only the disk is the
 * limit. */
static struct segment *make_segment(struct hky_journal *j, uint64_t octets, bool is_quick, bool is_last_resort)
{
    struct segment *s = is_last_resort || journal_spool_has_room(j, octets) ? reserve_slot(j) : NULL;
    struct segment_head head = {.octets = octets, .state = SEGMENT_FREE};
    int fd;

    if (s == NULL) {
        atomic_store(&j->last_make, HKY_E_FULL);
        return NULL;
    }
    head.number = s->slot;
    fd = make_file(j, s->slot, octets, is_quick);
    atomic_store(&j->last_make, fd >= 0 ? HKY_OK : journal_disk_error(errno));
    pthread_mutex_lock(&j->index_lock);
    s->fd = FD_NONE;
    s = fd >= 0 ? journal_segment_new(j, s->slot, fd, &head) : NULL;
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

enum hky_err journal_segment_lack(const struct hky_journal *j)
{
    return atomic_load(&j->last_make) == HKY_E_IO ? HKY_E_IO : HKY_E_FULL;
}

static size_t n_spare(struct hky_journal *j)
{
    size_t n;

    pthread_mutex_lock(&j->index_lock);
    n = j->n_spare;
    pthread_mutex_unlock(&j->index_lock);
    return n;
}

/* Spares that stay whatever large mail needs. With one more than the reserve, a full spool takes small mail again. */
static size_t n_needed(const struct hky_journal *j)
{
    return RESERVED_SPARES + (atomic_load(&j->is_full) ? 1 : 0);
}

/* What large mail needs, were `extra` octets of spares given up. A message that has no room even then does not count:
 * spares serve all other mail. */
static uint64_t large_need(struct hky_journal *j, uint64_t extra)
{
    uint64_t large = atomic_load(&j->large_octets);

    return journal_spool_would_have_room(j, large, extra) ? large : HKY_BIG_BODY;
}

/* What the spares beyond those that are needed take. */
static uint64_t extra_octets(struct hky_journal *j)
{
    uint64_t octets = 0;

    pthread_mutex_lock(&j->index_lock);
    for (size_t i = n_needed(j); i < j->n_spare; i++)
        octets += j->spare[i]->octets;
    pthread_mutex_unlock(&j->index_lock);
    return octets;
}

bool journal_segment_may_make_room(struct hky_journal *j, uint64_t octets)
{
    return journal_spool_would_have_room(j, octets, extra_octets(j));
}

/* Is large mail kept out by spares beyond those that are needed, counting `more` octets as one? */
static bool spares_keep_large_out(struct hky_journal *j, uint64_t more)
{
    uint64_t extra = more + extra_octets(j), need = large_need(j, extra);

    return extra > 0 && !journal_spool_has_room(j, need) && journal_spool_would_have_room(j, need, extra);
}

uint64_t journal_segment_octets_for(uint64_t need)
{
    return SEGMENT_HEADER + need + 2 * JOURNAL_RECORD_HEADER;
}

/* The load made files large; a disk without room for such a file may have room for a smaller one that still takes
 * `need`. False: it has not. */
static bool shrink(struct hky_journal *j, uint64_t need)
{
    unsigned long long now = atomic_load(&j->octets_next);
    uint64_t octets = now;

    if (atomic_load(&j->last_make) != HKY_E_FULL)
        return false;
    do {
        if (octets <= FIRST_OCTETS)
            return false;
        octets = octets / GROWTH > FIRST_OCTETS ? octets / GROWTH : FIRST_OCTETS;
        if (octets < journal_segment_octets_for(need))
            return false;
    } while (!journal_spool_has_room(j, octets));
    return atomic_compare_exchange_strong(&j->octets_next, &now, octets);
}

static uint64_t octets_to_make(struct hky_journal *j, uint64_t need)
{
    uint64_t octets = (journal_segment_octets_for(need) + 4095) & ~UINT64_C(4095), next = atomic_load(&j->octets_next);

    octets = octets > next ? octets : next;
    return octets < j->params.segment_octets ? octets : j->params.segment_octets;
}

/* As large as the load asks for, or as the disk has room for. */
static struct segment *make_fitting(struct hky_journal *j, uint64_t need, bool is_quick)
{
    struct segment *s;

    do
        s = make_segment(j, octets_to_make(j, need), is_quick, false);
    while (s == NULL && shrink(j, need));
    return s;
}

bool journal_segment_prepare(struct hky_journal *j)
{
    /* The reserve is there from the start, so that a full disk drains; its zeros would hold up the first mail, so in
     * the first moments the space is only reserved. */
    bool is_early = hky_mono_ms() - j->opened_ms < j->params.spares_after_ms;
    size_t n = n_spare(j);
    struct segment *s = NULL;

    if (n < n_needed(j) || (n == RESERVED_SPARES && !is_early &&
                            journal_spool_has_room(j, atomic_load(&j->octets_next) + large_need(j, 0))))
        s = make_fitting(j, 0, is_early);
    if (s == NULL)
        return false;
    pthread_mutex_lock(&j->index_lock);
    journal_segment_keep_spare(j, s);
    pthread_mutex_unlock(&j->index_lock);
    return true;
}

/* The counter part is never used twice; the random part keeps a sender from writing records into a message. */
static uint64_t new_epoch(struct hky_journal *j)
{
    uint64_t epoch = 0;
    uint32_t random;

    hky_random(&random, sizeof random);
    pthread_mutex_lock(&j->epoch_lock);
    if (j->next_epoch == j->epoch_limit)
        atomic_store(&j->last_make, journal_spool_state_write(j, j->epoch_limit + EPOCHS_A_TIME, false, NULL));
    if (j->next_epoch < j->epoch_limit)
        epoch = j->next_epoch++ << 32 | random;
    pthread_mutex_unlock(&j->epoch_lock);
    return epoch;
}

static enum hky_err write_head(struct hky_journal *j, struct segment *s)
{
    char header[SEGMENT_HEADER];
    struct iovec iov = {.iov_base = header, .iov_len = sizeof header};

    journal_segment_head_encode(&s->head, header);
    return journal_segment_write(j, s, &iov, 1, 0);
}

/* Under index_lock. */
static void start_segment(struct segment *s, enum segment_state state, uint64_t epoch, uint64_t first_seq,
                          uint64_t previous)
{
    s->head.previous = previous;
    s->head.epoch = epoch;
    s->head.first_seq = first_seq;
    s->head.state = state;
    hky_random(&s->head.salt, sizeof s->head.salt);
    s->at = SEGMENT_HEADER;
    s->next_seq = first_seq;
    s->synced_seq = first_seq - 1;
    s->is_closed = s->is_failed = s->has_footer = s->is_damaged = s->is_evidence = s->is_stuck = false;
    s->cut_seq = 0;
    s->n_written = 0;
    s->n_attempts = s->n_newest = 0;
    s->attempt_octets = 0;
    s->n_ordinals = 0;
    s->n_evidence = 0;
    if (s->dead != NULL)
        memset(s->dead, 0, s->dead_cap);
    hky_buf_clear(&s->foot);
}

void journal_segment_grow(struct hky_journal *j)
{
    uint64_t now = atomic_load(&j->octets_next), most = j->params.segment_octets;

    if (now < most)
        atomic_store(&j->octets_next, now > most / GROWTH ? most : now * GROWTH);
}

/* The smallest spare with `octets`, so that the reserve grows with the rest; `n_left` stay in the pool. NULL: none. */
static struct segment *take_spare(struct hky_journal *j, size_t n_left, uint64_t octets)
{
    struct segment *s = NULL;
    size_t at;

    pthread_mutex_lock(&j->index_lock);
    at = j->n_spare;
    for (size_t i = 0; i < j->n_spare; i++)
        if (j->spare[i]->octets >= octets && (at == j->n_spare || j->spare[i]->octets < j->spare[at]->octets))
            at = i;
    if (at < j->n_spare && j->n_spare > n_left) {
        s = j->spare[at];
        j->spare[at] = j->spare[--j->n_spare];
    }
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

struct segment *journal_segment_take(struct hky_journal *j, enum segment_state state, uint64_t first_seq, uint64_t need,
                                     bool is_accept)
{
    uint64_t epoch = new_epoch(j);
    struct segment *s = NULL;
    enum hky_err err;

    if (epoch == 0)
        return NULL;
    s = take_spare(j, RESERVED_SPARES, journal_segment_octets_for(need));
    if (s == NULL)
        s = make_fitting(j, need, true);
    if (s == NULL && !is_accept)
        s = take_spare(j, 0, journal_segment_octets_for(need));
    /* spool_max does not bound results of accepted mail: without them nothing would ever be freed. */
    if (s == NULL && !is_accept && state == SEGMENT_HOT)
        s = make_segment(j, octets_to_make(j, need), true, true);
    pthread_mutex_lock(&j->index_lock);
    if (s != NULL)
        start_segment(s, state, epoch, first_seq, state == SEGMENT_HOT ? j->hot_epoch : 0);
    if (s != NULL && state == SEGMENT_COLD)
        j->n_cold++;
    pthread_mutex_unlock(&j->index_lock);
    if (s == NULL)
        return NULL;
    err = write_head(j, s);
    if (err != HKY_OK) {
        atomic_store(&j->last_make, err);
        s->is_failed = true;
        journal_upkeep_close_segment(j, s); /* it is then freed, since nobody lives in it */
        return NULL;
    }
    if (state == SEGMENT_HOT)
        j->hot_epoch = epoch;
    return s;
}

static void set_head(struct hky_journal *j, struct segment *s, const struct segment_head *head)
{
    pthread_mutex_lock(&j->index_lock);
    s->head = *head;
    pthread_mutex_unlock(&j->index_lock);
}

static bool remove_file(struct hky_journal *j, const char *name)
{
    return (j->io.unlinkat(j->io.ctx, j->journal_fd, name, 0) == 0 || errno == ENOENT) &&
           j->io.fdatasync(j->io.ctx, j->journal_fd) == 0;
}

static bool give_evidence(struct hky_journal *j, const char *name)
{
    char to[32];

    if (!journal_spool_set_aside(j, j->journal_fd, name, to))
        return false;
    hky_log(j->params.log, HKY_LOG_ERROR, "damaged",
            "file=damaged/%s: the whole segment, because its parts could not be copied", to);
    return true;
}

/* Under index_lock, or at the start. Returns the descriptor; to close it without the lock, since that gives a removed
 * file's octets back, which takes long. */
static int forget_file(struct hky_journal *j, struct segment *s)
{
    int fd = s->fd;

    s->fd = FD_NONE;
    j->n_segments--;
    j->segment_octets -= s->octets;
    return fd;
}

void journal_segment_drop_misfits(struct hky_journal *j)
{
    size_t n_kept = 0;
    char name[32];

    for (size_t i = 0; i < j->n_spare; i++) {
        struct segment *s = j->spare[i];
        if (s->octets == atomic_load(&j->octets_next)) {
            j->spare[n_kept++] = s;
            continue;
        }
        journal_segment_name(s->slot, name);
        j->io.unlinkat(j->io.ctx, j->journal_fd, name, 0);
        close(forget_file(j, s));
    }
    j->n_spare = n_kept;
}

void journal_segment_drop_extra(struct hky_journal *j)
{
    char name[32];

    if (!atomic_load(&j->is_low) || !spares_keep_large_out(j, 0))
        return;
    for (;;) {
        struct segment *s;
        int fd;
        pthread_mutex_lock(&j->index_lock);
        s = j->n_spare > n_needed(j) ? j->spare[--j->n_spare] : NULL;
        pthread_mutex_unlock(&j->index_lock);
        if (s == NULL)
            return;
        journal_segment_name(s->slot, name);
        j->io.unlinkat(j->io.ctx, j->journal_fd, name, 0);
        pthread_mutex_lock(&j->index_lock);
        fd = forget_file(j, s);
        pthread_mutex_unlock(&j->index_lock);
        close(fd);
    }
}

static bool may_keep(struct hky_journal *j, const struct segment *s)
{
    size_t n = n_spare(j);

    return !s->is_failed && !s->is_damaged && s->octets == atomic_load(&j->octets_next) &&
           (n < n_needed(j) || (n < FREE_KEPT && !spares_keep_large_out(j, s->octets)));
}

enum hky_err journal_segment_retire(struct hky_journal *j, struct segment *s)
{
    bool is_kept = may_keep(j, s);
    struct segment_head was = s->head, none = was;
    char name[32];
    int fd = -1;

    none.state = SEGMENT_FREE;
    if (is_kept) {
        set_head(j, s, &none);
        if (write_head(j, s) != HKY_OK || journal_segment_sync(j, s) != HKY_OK) {
            /* Which header is on disk is not known now, so the file is removed; until then it counts. */
            set_head(j, s, &was);
            s->is_failed = true;
            is_kept = false;
        }
    }
    journal_segment_name(s->slot, name);
    if (!is_kept && !(s->is_evidence ? give_evidence(j, name) : remove_file(j, name)))
        return HKY_E_IO;
    pthread_mutex_lock(&j->index_lock);
    s->head = none;
    if (was.state == SEGMENT_COLD)
        j->n_cold--;
    if (is_kept)
        journal_segment_keep_spare(j, s);
    else
        fd = forget_file(j, s);
    pthread_mutex_unlock(&j->index_lock);
    if (fd >= 0)
        close(fd);
    return HKY_OK;
}

struct segment *journal_segment_by_epoch(struct hky_journal *j, struct evidence h)
{
    struct segment *s = h.slot < SLOTS_MAX ? j->slots[h.slot] : NULL;

    return s != NULL && s->fd >= 0 && s->head.state != SEGMENT_FREE && s->head.epoch == h.epoch ? s : NULL;
}

uint64_t journal_segment_footer_octets(const struct segment *s)
{
    return JOURNAL_RECORD_HEADER + JOURNAL_RECORD_ALIGN(s->foot.n) + JOURNAL_RECORD_HEADER;
}

uint64_t journal_segment_room(const struct segment *s)
{
    uint64_t used = s->at + journal_segment_footer_octets(s), listed = 2 * (uint64_t)(s->foot.max - s->foot.n);

    if (used >= s->octets)
        return 0;
    return s->octets - used < listed ? s->octets - used : listed;
}

enum hky_err journal_segment_write_footer(struct hky_journal *j, struct segment *s)
{
    struct journal_record footer = {.type = JOURNAL_RECORD_FOOTER,
                                    .meta_n = (uint32_t)s->foot.n,
                                    .epoch = s->head.epoch,
                                    .seq = s->next_seq,
                                    .synced_seq = s->next_seq - 1,
                                    .meta_crc = hky_crc32c(0, s->foot.p, s->foot.n)};
    struct journal_record trailer = {.type = JOURNAL_RECORD_TRAILER,
                                     .epoch = s->head.epoch,
                                     .seq = s->next_seq,
                                     .synced_seq = s->next_seq - 1,
                                     .key = s->at};
    char head[JOURNAL_RECORD_HEADER], tail[JOURNAL_RECORD_HEADER];
    struct iovec iov[2] = {{.iov_base = head, .iov_len = sizeof head}, {.iov_base = s->foot.p, .iov_len = s->foot.n}};
    struct iovec last = {.iov_base = tail, .iov_len = sizeof tail};
    enum hky_err err;

    if (s->foot.is_over || s->foot.n > j->params.footer_max || s->at + journal_segment_footer_octets(s) > s->octets)
        return HKY_E_LIMIT;
    journal_record_encode(&footer, s->head.salt, head);
    journal_record_encode(&trailer, s->head.salt, tail);
    err = journal_segment_write(j, s, iov, s->foot.n > 0 ? 2 : 1, s->at);
    if (err == HKY_OK)
        err = journal_segment_write(j, s, &last, 1, s->octets - JOURNAL_RECORD_HEADER);
    if (err == HKY_OK)
        err = journal_segment_sync(j, s);
    s->has_footer = err == HKY_OK;
    return err;
}
