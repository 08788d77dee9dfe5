/*
 * still -- a disk of which a copy shows what a kill would leave at one moment
 */
#ifndef TESTS_JOURNAL_STILL_H
#define TESTS_JOURNAL_STILL_H

#include "rig.h"

#include <pthread.h>
#include <sys/uio.h>

/* A disk that changes by one call at a time: who holds its lock copies what a kill would leave at this moment. Without
 * it maintenance frees a segment that is to be copied, and writes what was in it into one that was copied before. */
static inline ssize_t still_pwritev(void *ctx, int fd, const struct iovec *iov, int n, off_t at)
{
    pthread_mutex_lock(ctx);
    ssize_t wrote = pwritev(fd, iov, n, at);
    pthread_mutex_unlock(ctx);
    return wrote;
}

static inline int still_fdatasync(void *ctx, int fd)
{
    (void)ctx, (void)fd; /* a kill leaves what was written */
    return 0;
}

static inline int still_openat(void *ctx, int dir, const char *name, int flags, mode_t mode)
{
    pthread_mutex_lock(ctx);
    int fd = openat(dir, name, flags, mode);
    pthread_mutex_unlock(ctx);
    return fd;
}

static inline int still_renameat(void *ctx, int from_dir, const char *from, int to_dir, const char *to)
{
    pthread_mutex_lock(ctx);
    int rc = renameat(from_dir, from, to_dir, to);
    pthread_mutex_unlock(ctx);
    return rc;
}

static inline int still_unlinkat(void *ctx, int dir, const char *name, int flags)
{
    pthread_mutex_lock(ctx);
    int rc = unlinkat(dir, name, flags);
    pthread_mutex_unlock(ctx);
    return rc;
}

static inline int still_fallocate(void *ctx, int fd, int mode, off_t at, off_t n)
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

static inline void copy_still(const char *from, const char *to)
{
    pthread_mutex_lock(&still);
    copy_spool(from, to);
    pthread_mutex_unlock(&still);
}

#endif
