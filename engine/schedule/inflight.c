/*
 * The file of what is being sent. Why it misses nobody after a kill: a slot is written before the job starts, and is
 * freed only when the journal has written the results of the job.
 */
#include "inflight.h"

#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* One worker's part is whole pages, so that workers share no cache line. */
#define AREA_OCTETS (INFLIGHT_SLOTS * sizeof(uint64_t))
#define READ_MOST   (1024 * AREA_OCTETS)

#define ENDED    (UINT64_C(1) << 63) /* flag beside an id, which is a time and much smaller */
#define OVERFULL UINT64_MAX          /* in slot 0: more slots were needed */

struct ended { /* a job that has ended, whose results may not be written yet */
    uint64_t record;
    uint32_t slot; /* 0: it had no slot */
};

struct area { /* one worker's part */
    uint64_t *slots;
    uint16_t free[INFLIGHT_SLOTS];
    uint32_t n_free;
    struct ended *ended; /* a ring, the oldest first; it is doubled when full */
    uint32_t first, n_ended, cap;
    uint32_t n_without_slot; /* jobs without a slot, until their results are written */
};

struct inflight {
    int fd;
    uint64_t *ids; /* the mapped file */
    size_t octets;
    struct hky_idmap was; /* id -> address of `sending` or of `ended` */
    bool was_overfull;
    bool is_forgotten;   /* what the last run left */
    bool is_kept;        /* for the next run, which has to know whose results are not written */
    char sending, ended; /* only their addresses are used, see `was` */
    unsigned n_areas;
    struct area areas[];
};

/* The file of the last run may be larger, if that had more workers. */
static enum hky_err read_last(struct inflight *f, uint64_t octets)
{
    uint64_t ids[512];
    for (uint64_t at = 0; at < octets && at < READ_MOST; at += sizeof ids) {
        ssize_t n = pread(f->fd, ids, sizeof ids, (off_t)at);
        if (n < 0)
            return HKY_E_IO;
        for (size_t i = 0; i < (size_t)n / sizeof ids[0]; i++)
            if (ids[i] == OVERFULL)
                f->was_overfull = true;
            else if ((ids[i] & ~ENDED) != 0 && hky_idmap_get(&f->was, ids[i] & ~ENDED) != &f->sending)
                hky_idmap_put(&f->was, ids[i] & ~ENDED, (ids[i] & ENDED) != 0 ? &f->ended : &f->sending);
    }
    return HKY_OK;
}

static int open_file(const char *dir)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
    if (dir_fd < 0)
        return -1;
    fd = openat(dir_fd, "inflight", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int why = errno;
    close(dir_fd);
    errno = why;
    return fd;
}

static enum hky_err map_file(struct inflight *f, bool was_unclean)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0)
        return HKY_E_IO;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return HKY_E_IO;
    }
    if (was_unclean && read_last(f, (uint64_t)st.st_size) != HKY_OK)
        return HKY_E_IO;
    /* Take the room on disk now: on a full disk, a store into a hole of the file would end the engine by a signal. */
    if ((errno = posix_fallocate(f->fd, 0, (off_t)f->octets)) != 0)
        return HKY_E_IO;
    void *p = mmap(NULL, f->octets, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
        return HKY_E_IO;
    f->ids = p;
    return HKY_OK;
}

enum hky_err schedule_inflight_open(const char *dir, unsigned n_workers, bool was_unclean, struct inflight **out,
                                    struct hky_error *e)
{
    struct inflight *f = hky_calloc(1, sizeof *f + n_workers * sizeof f->areas[0]);
    *out = NULL;
    f->n_areas = n_workers;
    f->octets = n_workers * AREA_OCTETS;
    hky_idmap_init(&f->was);
    f->fd = open_file(dir);
    if (f->fd < 0 || map_file(f, was_unclean) != HKY_OK) {
        int why = errno;
        schedule_inflight_close(&f);
        return hky_error_sys(e, HKY_E_IO, why,
                             "%.150s/inflight cannot be used; a message that ends the engine would not be noticed",
                             dir);
    }
    for (unsigned k = 0; k < n_workers; k++) {
        struct area *a = &f->areas[k];
        a->slots = f->ids + (size_t)k * INFLIGHT_SLOTS;
        for (uint32_t i = 0; i < INFLIGHT_SLOTS - 1; i++) /* low slots are used first, so that few pages are touched */
            a->free[i] = (uint16_t)(INFLIGHT_SLOTS - 1 - i);
        a->n_free = INFLIGHT_SLOTS - 1;
    }
    *out = f;
    return HKY_OK;
}

enum inflight_state schedule_inflight_was(const struct inflight *f, uint64_t message)
{
    const void *how = f != NULL && f->was.n > 0 ? hky_idmap_get(&f->was, message) : NULL;
    return how == NULL ? INFLIGHT_NOT : how == &f->sending ? INFLIGHT_SENDING : INFLIGHT_ENDED;
}

bool schedule_inflight_was_overfull(const struct inflight *f)
{
    return f != NULL && f->was_overfull;
}

void schedule_inflight_forget(struct inflight *f)
{
    if (f == NULL)
        return;
    f->is_forgotten = true;
    memset(f->ids, 0, f->octets);
    (void)!ftruncate(f->fd, (off_t)f->octets);
    hky_idmap_fini(&f->was);
    hky_idmap_init(&f->was);
}

uint32_t schedule_inflight_put(struct inflight *f, unsigned worker, uint64_t message)
{
    if (f == NULL)
        return 0;
    struct area *a = &f->areas[worker];
    if (a->n_free == 0) {
        a->n_without_slot++;
        __atomic_store_n(&a->slots[0], OVERFULL, __ATOMIC_RELAXED);
        return 0;
    }
    uint32_t at = a->free[--a->n_free];
    __atomic_store_n(&a->slots[at], message, __ATOMIC_RELAXED);
    return at;
}

static void ended_push(struct area *a, struct ended one)
{
    if (a->n_ended == a->cap) {
        uint32_t cap = a->cap == 0 ? 64 : a->cap * 2;
        struct ended *more = hky_alloc(cap * sizeof *more);
        for (uint32_t i = 0; i < a->n_ended; i++)
            more[i] = a->ended[(a->first + i) % a->cap];
        free(a->ended);
        a->ended = more;
        a->cap = cap;
        a->first = 0;
    }
    a->ended[(a->first + a->n_ended++) % a->cap] = one;
}

void schedule_inflight_end(struct inflight *f, unsigned worker, uint32_t slot, uint64_t record)
{
    if (f == NULL)
        return;
    struct area *a = &f->areas[worker];
    if (slot != 0)
        __atomic_store_n(&a->slots[slot], a->slots[slot] | ENDED, __ATOMIC_RELAXED);
    ended_push(a, (struct ended){record, slot});
}

void schedule_inflight_written(struct inflight *f, unsigned worker, uint64_t record)
{
    if (f == NULL)
        return;
    struct area *a = &f->areas[worker];
    for (; a->n_ended > 0 && a->ended[a->first].record <= record; a->n_ended--) {
        uint32_t slot = a->ended[a->first].slot;
        a->first = (a->first + 1) % a->cap;
        if (slot != 0) {
            __atomic_store_n(&a->slots[slot], 0, __ATOMIC_RELAXED);
            a->free[a->n_free++] = (uint16_t)slot;
        } else if (--a->n_without_slot == 0) {
            __atomic_store_n(&a->slots[0], 0, __ATOMIC_RELAXED);
        }
    }
}

uint32_t schedule_inflight_n_unwritten(const struct inflight *f, unsigned worker)
{
    return f != NULL ? f->areas[worker].n_ended : 0;
}

void schedule_inflight_keep(struct inflight *f)
{
    if (f != NULL)
        f->is_kept = f->is_forgotten;
}

/* None of these messages ended the engine. */
static void mark_all_ended(struct inflight *f)
{
    for (size_t i = 0; i < f->octets / sizeof f->ids[0]; i++)
        if (f->ids[i] != 0 && f->ids[i] != OVERFULL)
            f->ids[i] |= ENDED;
}

void schedule_inflight_close(struct inflight **out)
{
    struct inflight *f = *out;
    *out = NULL;
    if (f == NULL)
        return;
    if (f->ids != NULL) {
        if (f->is_kept)
            mark_all_ended(f);
        else if (f->is_forgotten) /* if not, the engine did not start, and the next one wants to know */
            memset(f->ids, 0, f->octets);
        munmap(f->ids, f->octets);
    }
    if (f->fd >= 0)
        close(f->fd);
    hky_idmap_fini(&f->was);
    for (unsigned k = 0; k < f->n_areas; k++)
        free(f->areas[k].ended);
    free(f);
}
