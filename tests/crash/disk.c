/*
 * disk -- loaded into the engine with LD_PRELOAD by the crash rigs: writes down, in one order, everything done to files
 * below a folder together with the acknowledgements sent to clients, or makes the n-th call fail.
 *
 *   DISK_ROOT=DIR      only what happens below DIR counts
 *   DISK_LOG=FILE      the log: `struct entry` followed by a name and data, see powercut.py
 *   DISK_FAIL=CALL:N:ERRNO:COUNT   the N-th CALL (write, sync, open, rename, unlink, fallocate, any) and the COUNT-1
 *                      after it fail with ERRNO (5, 28) without doing anything; COUNT 0: all from then on
 *   DISK_HANG=FILE     no open, write or sync returns while FILE is there
 *   DISK_BROKEN=FILE   every open, write, sync and fallocate fails with EIO while FILE is there
 *   DISK_COLD=FILE     nothing is in the page cache while FILE is there; if it has octets, each read that finds this
 *                      takes one, and the last one removes FILE
 *   DISK_KILL=N        the process kills itself after N entries of the log
 *   DISK_COUNTS=FILE   at every call the number of calls so far is kept there (one 8-octet number a kind)
 *
 * One lock is held over a call and its log entry, so that the log's order is the disk's order.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096

enum kind { KIND_WRITE, KIND_SYNC, KIND_OPEN, KIND_RENAME, KIND_UNLINK, KIND_FALLOCATE, KIND_ANY, KIND_N };
static const char *const kind_names[KIND_N] = {"write", "sync", "open", "rename", "unlink", "fallocate", "any"};

struct entry {
    char what; /* C create, W write, T truncate, S sync, R rename, U unlink, M mkdir, A acknowledgement */
    char pad[3];
    uint32_t name_n; /* R: two names, each followed by NUL */
    uint64_t dir, ino, at, n;
    int64_t ms;
};

static struct {
    pthread_mutex_t lock;
    char root[PATH_MAX];
    size_t root_n;
    int log_fd;
    enum kind fail_kind;
    uint64_t fail_from, fail_count;
    int fail_errno;
    const char *hang, *broken, *cold; /* NULL: never */
    uint64_t kill_at, n_entries;
    uint64_t *counts, counts_here[KIND_N];
    uint8_t is_ours[FDS];
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER, .log_fd = -1};

#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (real == NULL)                                                                                                  \
    *(void **)&real = dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void)
{
    const char *root = getenv("DISK_ROOT"), *log = getenv("DISK_LOG"), *fail = getenv("DISK_FAIL"),
               *counts = getenv("DISK_COUNTS");
    char kind[16];
    int fd;

    disk.counts = disk.counts_here;
    disk.hang = getenv("DISK_HANG");
    disk.broken = getenv("DISK_BROKEN");
    disk.cold = getenv("DISK_COLD");
    if (getenv("DISK_KILL") != NULL)
        disk.kill_at = strtoull(getenv("DISK_KILL"), NULL, 10);
    if (root == NULL || realpath(root, disk.root) == NULL)
        return;
    disk.root_n = strlen(disk.root);
    if (log != NULL)
        disk.log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (counts != NULL && (fd = (int)syscall(SYS_openat, AT_FDCWD, counts, O_RDWR | O_CREAT, 0600)) >= 0) {
        void *p;
        (void)!syscall(SYS_ftruncate, fd, 4096);
        p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p != MAP_FAILED)
            disk.counts = p;
        syscall(SYS_close, fd);
    }
    if (fail != NULL &&
        sscanf(fail, "%15[a-z]:%lu:%d:%lu", kind, &disk.fail_from, &disk.fail_errno, &disk.fail_count) == 4)
        for (enum kind k = 0; k < KIND_N; k++)
            if (strcmp(kind, kind_names[k]) == 0)
                disk.fail_kind = k;
    unsetenv("LD_PRELOAD"); /* what the engine starts is not meant */
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool is_below(const char *path)
{
    return disk.root_n > 0 && strncmp(path, disk.root, disk.root_n) == 0 &&
           (path[disk.root_n] == '/' || path[disk.root_n] == '\0');
}

/* The folder's number and the name in it; false: not below the root. */
static bool locate(int dirfd, const char *path, uint64_t *dir, const char **name)
{
    char folder[PATH_MAX], whole[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (disk.root_n == 0)
        return false;
    *name = slash != NULL ? slash + 1 : path;
    if (path[0] == '/') {
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    } else {
        char link[64];
        ssize_t n;
        snprintf(link, sizeof link, dirfd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dirfd);
        n = readlink(link, whole, sizeof whole - 1);
        if (n <= 0)
            return false;
        whole[n] = '\0';
        n = snprintf(folder, sizeof folder, "%.2000s/%.*s", whole, slash != NULL ? (int)(slash - path) : 0, path);
        if (n < 0 || (size_t)n >= sizeof folder)
            return false;
    }
    if (realpath(folder, whole) == NULL || !is_below(whole) || fstatat(AT_FDCWD, whole, &st, 0) < 0)
        return false;
    *dir = st.st_ino;
    return true;
}

static uint64_t inode(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static bool is_ours(int fd)
{
    return fd >= 0 && fd < FDS && disk.is_ours[fd];
}

static void put(char what, uint64_t dir, uint64_t ino, uint64_t at, const char *name, size_t name_n,
                const struct iovec *iov, int iov_n, size_t n)
{
    struct entry e = {
        .what = what, .name_n = (uint32_t)name_n, .dir = dir, .ino = ino, .at = at, .n = n, .ms = now_ms()};
    struct iovec out[2] = {{&e, sizeof e}, {(void *)(uintptr_t)name, name_n}};

    if (disk.log_fd < 0)
        return;
    (void)!syscall(SYS_writev, disk.log_fd, out, 2);
    for (int i = 0; i < iov_n && n > 0; i++) {
        size_t some = iov[i].iov_len < n ? iov[i].iov_len : n;
        (void)!syscall(SYS_write, disk.log_fd, iov[i].iov_base, some);
        n -= some;
    }
    if (++disk.n_entries == disk.kill_at)
        kill(getpid(), SIGKILL);
}

/* Under the lock. true: this call is to fail, errno is set. */
static bool fails(enum kind kind)
{
    const enum kind both[] = {kind, KIND_ANY};
    bool does = false;

    for (int i = 0; i < 2; i++) {
        uint64_t n = ++disk.counts[both[i]];
        if (both[i] == disk.fail_kind && disk.fail_errno != 0 && n >= disk.fail_from &&
            (disk.fail_count == 0 || n < disk.fail_from + disk.fail_count))
            does = true;
    }
    if (does)
        errno = disk.fail_errno;
    if (!does && disk.broken != NULL && kind != KIND_RENAME && kind != KIND_UNLINK &&
        syscall(SYS_access, disk.broken, F_OK) == 0) {
        does = true;
        errno = EIO;
    }
    return does;
}

/* Without the lock: other calls go on. */
static void hang(void)
{
    while (disk.hang != NULL && syscall(SYS_access, disk.hang, F_OK) == 0)
        poll(NULL, 0, 10);
}

/* --- files --- */

static int open_any(int dirfd, const char *path, int flags, mode_t mode)
{
    REAL(int, "openat", int, const char *, int, ...);
    const char *name = "";
    uint64_t dir = 0;
    struct stat st;
    bool ours, is_new;
    int fd = -1;

    if (disk.root_n == 0)
        return real(dirfd, path, flags, mode);
    if (disk.hang != NULL && locate(dirfd, path, &dir, &name))
        hang();
    pthread_mutex_lock(&disk.lock);
    ours = locate(dirfd, path, &dir, &name);
    is_new = ours && (flags & O_CREAT) != 0 && fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0;
    if (!ours || !fails(KIND_OPEN))
        fd = real(dirfd, path, flags, mode);
    if (fd >= 0 && fd < FDS)
        disk.is_ours[fd] = ours;
    if (fd >= 0 && is_new)
        put('C', dir, inode(fd), 0, name, strlen(name), NULL, 0, 0);
    else if (fd >= 0 && ours && (flags & O_TRUNC) != 0)
        put('T', 0, inode(fd), 0, "", 0, NULL, 0, 0);
    pthread_mutex_unlock(&disk.lock);
    return fd;
}

#define MODE_OF(flags)                                                                                                 \
    mode_t mode = 0;                                                                                                   \
    if (((flags) & (O_CREAT | O_TMPFILE)) != 0) {                                                                      \
        va_list args;                                                                                                  \
        va_start(args, flags);                                                                                         \
        mode = va_arg(args, mode_t);                                                                                   \
        va_end(args);                                                                                                  \
    }

int openat(int dirfd, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(dirfd, path, flags, mode);
}
int openat64(int dirfd, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(dirfd, path, flags, mode);
}
int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}

int close(int fd)
{
    REAL(int, "close", int);
    if (fd >= 0 && fd < FDS)
        disk.is_ours[fd] = 0;
    return real(fd);
}

static ssize_t write_any(int fd, const struct iovec *iov, int n, off_t at)
{
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    ssize_t wrote = -1;

    hang();
    pthread_mutex_lock(&disk.lock);
    if (!fails(KIND_WRITE)) {
        if (at < 0) { /* at the file's own place, or its end */
            at = (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
            wrote = syscall(SYS_writev, fd, iov, n);
        } else {
            wrote = real(fd, iov, n, at);
        }
        if (wrote > 0)
            put('W', 0, inode(fd), (uint64_t)at, "", 0, iov, n, (size_t)wrote);
    }
    pthread_mutex_unlock(&disk.lock);
    return wrote;
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    return is_ours(fd) ? write_any(fd, iov, n, at) : real(fd, iov, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t at)
{
    return pwritev(fd, iov, n, at);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return is_ours(fd) ? write_any(fd, &iov, 1, at) : real(fd, p, n, at);
}
ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at);
}

/* --- reads --- */

static bool is_cold(void)
{
    struct stat st;
    bool is_there;

    if (disk.cold == NULL)
        return false;
    pthread_mutex_lock(&disk.lock);
    is_there = fstatat(AT_FDCWD, disk.cold, &st, 0) == 0;
    if (is_there && st.st_size > 1)
        (void)!syscall(SYS_truncate, disk.cold, st.st_size - 1);
    else if (is_there && st.st_size == 1)
        syscall(SYS_unlink, disk.cold);
    pthread_mutex_unlock(&disk.lock);
    return is_there;
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
    REAL(ssize_t, "preadv2", int, const struct iovec *, int, off_t, int);

    if ((flags & RWF_NOWAIT) != 0 && is_ours(fd) && is_cold()) {
        errno = EAGAIN;
        return -1;
    }
    return real(fd, iov, n, at, flags);
}
ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
    return preadv2(fd, iov, n, at, flags);
}

/* --- acknowledgements --- */

static void see_reply(const char *p, size_t n)
{
    static const char said[] = "queued as ";
    const char *end = p + n;

    if (disk.log_fd < 0 || n < 4 || memcmp(p, "250", 3) != 0)
        return;
    for (const char *at = p; (at = memmem(at, (size_t)(end - at), said, sizeof said - 1)) != NULL;) {
        size_t id = 0;
        at += sizeof said - 1;
        while (at + id < end && at[id] > ' ')
            id++;
        pthread_mutex_lock(&disk.lock);
        put('A', 0, 0, 0, at, id, NULL, 0, 0);
        pthread_mutex_unlock(&disk.lock);
    }
}

static void see_replies(const struct iovec *iov, size_t n)
{
    for (size_t i = 0; i < n; i++)
        see_reply(iov[i].iov_base, iov[i].iov_len);
}

ssize_t write(int fd, const void *p, size_t n)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    REAL(ssize_t, "write", int, const void *, size_t);
    if (is_ours(fd))
        return write_any(fd, &iov, 1, -1);
    see_reply(p, n);
    return real(fd, p, n);
}
ssize_t writev(int fd, const struct iovec *iov, int n)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (is_ours(fd))
        return write_any(fd, iov, n, -1);
    see_replies(iov, (size_t)n);
    return real(fd, iov, n);
}
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    see_replies(msg->msg_iov, msg->msg_iovlen);
    return real(fd, msg, flags);
}
ssize_t send(int fd, const void *p, size_t n, int flags)
{
    REAL(ssize_t, "send", int, const void *, size_t, int);
    see_reply(p, n);
    return real(fd, p, n, flags);
}

/* --- the rest --- */

static int sync_any(int fd, int (*real)(int))
{
    int rc = -1;

    if (!is_ours(fd))
        return real(fd);
    hang();
    pthread_mutex_lock(&disk.lock);
    if (!fails(KIND_SYNC) && (rc = real(fd)) == 0)
        put('S', 0, inode(fd), 0, "", 0, NULL, 0, 0);
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int fdatasync(int fd)
{
    REAL(int, "fdatasync", int);
    return sync_any(fd, real);
}
int fsync(int fd)
{
    REAL(int, "fsync", int);
    return sync_any(fd, real);
}

int ftruncate(int fd, off_t n)
{
    REAL(int, "ftruncate", int, off_t);
    int rc;
    if (!is_ours(fd))
        return real(fd, n);
    pthread_mutex_lock(&disk.lock);
    rc = real(fd, n);
    if (rc == 0)
        put('T', 0, inode(fd), (uint64_t)n, "", 0, NULL, 0, 0);
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int ftruncate64(int fd, off_t n)
{
    return ftruncate(fd, n);
}

int fallocate(int fd, int how, off_t at, off_t n)
{
    REAL(int, "fallocate", int, int, off_t, off_t);
    int rc = -1;
    if (!is_ours(fd))
        return real(fd, how, at, n);
    pthread_mutex_lock(&disk.lock);
    if (!fails(KIND_FALLOCATE) && (rc = real(fd, how, at, n)) == 0)
        put('T', 0, inode(fd), (uint64_t)(at + n), "", 0, NULL, 0, 0); /* of a new file: its length */
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int fallocate64(int fd, int how, off_t at, off_t n)
{
    return fallocate(fd, how, at, n);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(int, "renameat", int, const char *, int, const char *);
    const char *from_name, *to_name;
    char names[2 * NAME_MAX + 4];
    uint64_t from_dir, to_dir;
    int rc = -1, n;

    pthread_mutex_lock(&disk.lock);
    if (!locate(from_fd, from, &from_dir, &from_name) || !locate(to_fd, to, &to_dir, &to_name)) {
        rc = real(from_fd, from, to_fd, to);
    } else if (!fails(KIND_RENAME) && (rc = real(from_fd, from, to_fd, to)) == 0) {
        n = snprintf(names, sizeof names, "%s%c%s", from_name, 0, to_name);
        put('R', from_dir, to_dir, 0, names, (size_t)n, NULL, 0, 0);
    }
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    const char *name;
    uint64_t dir;
    int rc = -1;

    pthread_mutex_lock(&disk.lock);
    if (!locate(dirfd, path, &dir, &name))
        rc = real(dirfd, path, flags);
    else if (!fails(KIND_UNLINK) && (rc = real(dirfd, path, flags)) == 0)
        put('U', dir, 0, 0, name, strlen(name), NULL, 0, 0);
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    REAL(int, "mkdirat", int, const char *, mode_t);
    const char *name;
    struct stat st;
    uint64_t dir;
    int rc;

    pthread_mutex_lock(&disk.lock);
    rc = real(dirfd, path, mode);
    if (rc == 0 && locate(dirfd, path, &dir, &name) && fstatat(dirfd, path, &st, 0) == 0)
        put('M', dir, st.st_ino, 0, name, strlen(name), NULL, 0, 0);
    pthread_mutex_unlock(&disk.lock);
    return rc;
}
int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
