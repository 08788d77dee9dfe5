/* The spool's folders, lock and state file. */
#include "journal/internal.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define STATE_MAGIC  UINT64_C(0x65746174736b480a)
#define STATE_OCTETS 36
#define ASIDE_MAX    1000 /* files of one name in damaged/ */

/* A folder that others may write to is not safe for mail. */
static enum hky_err check_owner(const char *path, int fd, struct hky_error *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "%s", path);
    if (st.st_uid != geteuid())
        return hky_error_set(e, HKY_E_DENIED,
                             "%s belongs to user %u, the engine runs as %u: start it as that user, or chown it", path,
                             (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 022) != 0)
        return hky_error_set(e, HKY_E_DENIED, "%s may be written by others (mode %04o): chmod go-w %s", path,
                             (unsigned)st.st_mode & 07777, path);
    return HKY_OK;
}

static enum hky_err open_folder(struct hky_journal *j, const char *name, int *fd, struct hky_error *e)
{
    char path[200];

    snprintf(path, sizeof path, "%.120s/%s", j->dir, name);
    if (mkdirat(j->root_fd, name, 0700) < 0 && errno != EEXIST)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot make folder %s", path);
    *fd = openat(j->root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open folder %s", path);
    return check_owner(path, *fd, e);
}

static enum hky_err is_locked(const char *dir, int lock_fd, struct hky_error *e)
{
    char pid[32] = "";
    ssize_t got = pread(lock_fd, pid, sizeof pid - 1, 0);

    pid[got > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    return hky_error_set(e, HKY_E_EXISTS, "another engine (process %s) uses the spool %.120s: stop it first",
                         pid[0] != '\0' ? pid : "unknown", dir);
}

enum hky_err hky_journal_is_taken(const char *dir, struct hky_error *e)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = root_fd < 0 ? -1 : openat(root_fd, "lock", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool is_taken = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    enum hky_err err = is_taken ? is_locked(dir, fd, e) : HKY_OK;

    if (fd >= 0)
        close(fd);
    if (root_fd >= 0)
        close(root_fd);
    return err;
}

static enum hky_err take_lock(struct hky_journal *j, struct hky_error *e)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char pid[32];
    int n;

    j->lock_fd = openat(j->root_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (j->lock_fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open %.150s/lock", j->dir);
    if (fcntl(j->lock_fd, F_OFD_SETLK, &lock) < 0)
        return is_locked(j->dir, j->lock_fd, e);
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(j->lock_fd, 0) < 0 || pwrite(j->lock_fd, pid, (size_t)n, 0) != n)
        hky_log(j->params.log, HKY_LOG_DEBUG, "lock", "error=cannot_note_pid"); /* only for the message above */
    return HKY_OK;
}

/* A new spool is an entry of its parent folder, which must be on disk, too, before anything in it counts. */
static enum hky_err sync_parent(struct hky_journal *j, struct hky_error *e)
{
    int fd = openat(j->root_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (fd < 0 && errno == EACCES) /* a parent that we may not read was made by somebody else before */
        return HKY_OK;
    rc = fd < 0 ? -1 : j->io.fdatasync(j->io.ctx, fd);
    if (rc < 0 && (errno == EROFS || errno == EINVAL)) /* the spool is a mount point: its entry is not new */
        rc = 0;
    if (rc < 0)
        hky_error_sys(e, HKY_E_IO, errno, "cannot sync the folder that holds the spool %.150s", j->dir);
    if (fd >= 0)
        close(fd);
    return rc < 0 ? HKY_E_IO : HKY_OK;
}

enum hky_err journal_spool_open(struct hky_journal *j, struct hky_error *e)
{
    enum hky_err err;

    if (mkdir(j->dir, 0700) < 0 && errno != EEXIST)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot make the spool %.150s", j->dir);
    j->root_fd = open(j->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (j->root_fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open the spool %.150s", j->dir);
    err = check_owner(j->dir, j->root_fd, e);
    if (err == HKY_OK)
        err = sync_parent(j, e);
    if (err == HKY_OK)
        err = take_lock(j, e);
    if (err == HKY_OK)
        err = open_folder(j, "journal", &j->journal_fd, e);
    if (err == HKY_OK)
        err = open_folder(j, "big", &j->big_fd, e);
    if (err == HKY_OK)
        err = open_folder(j, "damaged", &j->damaged_fd, e);
    if (err == HKY_OK && j->io.fdatasync(j->io.ctx, j->root_fd) < 0)
        err = hky_error_sys(e, HKY_E_IO, errno, "cannot sync the spool %.150s", j->dir);
    return err;
}

void journal_spool_close(struct hky_journal *j)
{
    int *fds[] = {&j->damaged_fd, &j->big_fd, &j->journal_fd, &j->root_fd, &j->lock_fd};

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

bool journal_spool_would_have_room(struct hky_journal *j, uint64_t octets, uint64_t given_up)
{
    struct statvfs fs;
    uint64_t used;

    pthread_mutex_lock(&j->index_lock);
    used = atomic_load(&j->big_octets) + j->segment_octets - given_up;
    pthread_mutex_unlock(&j->index_lock);
    if (j->params.spool_max != 0 && (used > j->params.spool_max || octets > j->params.spool_max - used))
        return false;
    if (fstatvfs(j->journal_fd, &fs) < 0)
        return false;
    return (uint64_t)fs.f_bavail * fs.f_frsize + given_up >= octets + j->params.min_free;
}

bool journal_spool_has_room(struct hky_journal *j, uint64_t octets)
{
    return journal_spool_would_have_room(j, octets, 0);
}

bool journal_spool_has_room_for_large(struct hky_journal *j, uint64_t octets, uint64_t size)
{
    if (journal_spool_has_room(j, octets))
        return true;
    if (j->params.spool_max == 0 || size <= j->params.spool_max) /* else it never has room */
        atomic_store(&j->large_octets, size > HKY_BIG_BODY ? size : HKY_BIG_BODY);
    if (!atomic_exchange(&j->is_low, true)) {
        atomic_store(&j->found_octets, 0); /* before it was low */
        hky_log(j->params.log, HKY_LOG_WARN, "spool",
                "state=low: messages above 1 MiB are refused until there is room");
        journal_upkeep_poke(j); /* spares may be what has the room */
    }
    return false;
}

void journal_spool_note_large(struct hky_journal *j, uint64_t size)
{
    if (atomic_load(&j->is_low) && size > atomic_load(&j->found_octets))
        atomic_store(&j->found_octets, size);
}

enum hky_err journal_disk_error(int number)
{
    return number == ENOSPC || number == EDQUOT ? HKY_E_FULL : HKY_E_IO;
}

static enum hky_err fill_file(struct hky_journal *j, int fd, const void *p, size_t n)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
    off_t at = 0;

    while (iov.iov_len > 0) {
        ssize_t wrote = j->io.pwritev(j->io.ctx, fd, &iov, 1, at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return journal_disk_error(errno);
        iov.iov_base = (char *)iov.iov_base + wrote;
        iov.iov_len -= (size_t)wrote;
        at += wrote;
    }
    return j->io.fdatasync(j->io.ctx, fd) < 0 ? HKY_E_IO : HKY_OK;
}

enum hky_err journal_spool_write_file(struct hky_journal *j, int dir, const char *name, const void *p, size_t n,
                                      struct hky_error *e)
{
    char fresh[80];
    enum hky_err err;
    int fd;

    snprintf(fresh, sizeof fresh, "%.70s.new", name);
    j->io.unlinkat(j->io.ctx, dir, fresh, 0);
    fd = j->io.openat(j->io.ctx, dir, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return hky_error_sys(e, journal_disk_error(errno), errno, "cannot make %s in the spool %.120s", fresh, j->dir);
    err = fill_file(j, fd, p, n);
    if (close(fd) < 0 && err == HKY_OK)
        err = HKY_E_IO;
    if (err == HKY_OK && (j->io.renameat(j->io.ctx, dir, fresh, dir, name) < 0 || j->io.fdatasync(j->io.ctx, dir) < 0))
        err = journal_disk_error(errno);
    if (err != HKY_OK)
        return hky_error_sys(e, err, errno, "cannot write %s in the spool %.120s", name, j->dir);
    return HKY_OK;
}

bool journal_spool_set_aside(struct hky_journal *j, int from, const char *name, char to[32])
{
    struct stat st;
    int k = 0;

    snprintf(to, 32, "%.16s", name);
    while (fstatat(j->damaged_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0 && k < ASIDE_MAX)
        snprintf(to, 32, "%.16s.%d", name, ++k);
    /* ENOENT: it was moved before, but a folder could not be synced then. */
    return k < ASIDE_MAX && (j->io.renameat(j->io.ctx, from, name, j->damaged_fd, to) == 0 || errno == ENOENT) &&
           j->io.fdatasync(j->io.ctx, j->damaged_fd) == 0 && j->io.fdatasync(j->io.ctx, from) == 0;
}

/* On a full disk the engine still starts, in order to deliver: it overwrites the old state file in place. The state
 * fits in one sector; if it is torn all the same, its checksum shows it, and the segments' headers are used instead. */
static enum hky_err overwrite_state(struct hky_journal *j, const void *p, size_t n)
{
    int fd = j->io.openat(j->io.ctx, j->journal_fd, "state", O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    enum hky_err err;

    if (fd < 0)
        return HKY_E_FULL;
    err = fill_file(j, fd, p, n);
    close(fd);
    return err;
}

/* magic, format, is_clean, first epoch counter that may be given out after a start, next id, CRC */
enum hky_err journal_spool_state_write(struct hky_journal *j, uint64_t epoch_limit, bool is_clean, struct hky_error *e)
{
    struct hky_buf b;
    enum hky_err err;

    hky_buf_init(&b, STATE_OCTETS);
    hky_buf_add_u64(&b, STATE_MAGIC);
    hky_buf_add_u32(&b, FORMAT_VERSION);
    hky_buf_add_u32(&b, is_clean);
    hky_buf_add_u64(&b, epoch_limit);
    hky_buf_add_u64(&b, __atomic_load_n(&j->ids.last, __ATOMIC_RELAXED));
    hky_buf_add_u32(&b, hky_crc32c(0, b.p, b.n));
    err = journal_spool_write_file(j, j->journal_fd, "state", b.p, b.n, e);
    if (err == HKY_E_FULL)
        err = overwrite_state(j, b.p, b.n);
    hky_buf_fini(&b);
    if (err == HKY_OK)
        j->epoch_limit = epoch_limit;
    return err;
}

enum hky_err journal_spool_state_read(struct hky_journal *j, bool *was_clean, bool *is_new, struct hky_error *e)
{
    char in[STATE_OCTETS + 1];
    struct hky_cursor c = {.p = in, .n = STATE_OCTETS};
    int fd = openat(j->journal_fd, "state", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    uint64_t magic, limit, id;
    uint32_t format, clean;
    ssize_t n;

    *was_clean = false;
    *is_new = fd < 0 && errno == ENOENT;
    j->next_epoch = j->epoch_limit = 1;
    if (*is_new)
        return HKY_OK;
    if (fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open %.120s/journal/state", j->dir);
    n = pread(fd, in, sizeof in, 0);
    close(fd);
    if (n != STATE_OCTETS)
        return HKY_OK; /* unreadable: the stop was not clean; the segments' headers show which epochs were used */
    magic = hky_cursor_u64(&c);
    format = hky_cursor_u32(&c);
    clean = hky_cursor_u32(&c);
    limit = hky_cursor_u64(&c);
    id = hky_cursor_u64(&c);
    if (magic != STATE_MAGIC || hky_cursor_u32(&c) != hky_crc32c(0, in, STATE_OCTETS - 4))
        return HKY_OK;
    if (format != FORMAT_VERSION && format != FORMAT_VERSION - 1)
        return hky_error_set(
            e, HKY_E_STATE,
            "the spool %.120s has format %u, this engine reads %u and %u: start the version of hikyaku that wrote it",
            j->dir, format, FORMAT_VERSION - 1, FORMAT_VERSION);
    *was_clean = clean == 1;
    j->next_epoch = j->epoch_limit = limit;
    hky_id_seen(&j->ids, id);
    return HKY_OK;
}
