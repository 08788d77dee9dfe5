#include "route/table/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_OCTETS_MAX 200
#define OPEN_FLAGS      (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define RACES_MAX       16

bool hky_inside_is_name(const char *name)
{
    if (name[0] == 0 || name[0] == '/' || strlen(name) >= NAME_OCTETS_MAX)
        return false;
    for (const char *part = name; *part != 0;) {
        size_t n = strcspn(part, "/");
        if (n == 2 && part[0] == '.' && part[1] == '.')
            return false;
        part += n + (part[n] == '/');
    }
    return true;
}

bool hky_inside_is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* For kernels and containers without openat2: opens the path part by part, and follows no links. */
static int open_parts(int folder, const char *name)
{
    int at = folder, fd;

    for (;;) {
        char part[NAME_OCTETS_MAX];
        size_t n = strcspn(name, "/");
        bool is_last = name[n] == 0;
        int saved;
        memcpy(part, name, n);
        part[n] = 0;
        fd = openat(at, n == 0 ? "." : part, OPEN_FLAGS | O_NOFOLLOW | (is_last ? 0 : O_DIRECTORY));
        saved = errno;
        if (at != folder)
            close(at);
        errno = saved;
        if (is_last || fd < 0)
            return fd;
        at = fd;
        name += n + 1;
    }
}

static int open_below(int folder, const char *name)
{
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd = -1;

    errno = EAGAIN; /* openat2 gives this error when names change while it resolves them */
    for (int i = 0; i < RACES_MAX && fd < 0 && errno == EAGAIN; i++)
        fd = syscall(SYS_openat2, folder, name, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_parts(folder, name);
    return (int)fd;
}

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == 0);
}

/* Is what was opened a secret, whatever links led to it? */
static bool is_secret(const char *dir, int fd)
{
    char link[40], path[PATH_MAX], folder[PATH_MAX + 16], real[PATH_MAX];
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n <= 0 || path[0] != '/')
        return true; /* it is not known whether it is a secret, so it is not read */
    path[n] = 0;
    snprintf(folder, sizeof folder, "%s/secrets", dir);
    if (is_below(path, folder) || (realpath(folder, real) != NULL && is_below(path, real)))
        return true;
    return credentials != NULL && realpath(credentials, real) != NULL && is_below(path, real);
}

static enum hky_err open_failed(const char *dir, int error, struct hky_error *e)
{
    if (error == EXDEV || error == ELOOP)
        return hky_error_set(e, HKY_E_DENIED, "the file leads out of the policy's folder");
    if (error == ENOENT || error == ENOTDIR)
        return hky_error_set(e, HKY_E_MISSING, "no such file in %.100s", dir);
    if (error == ENXIO || error == ENODEV)
        return hky_error_set(e, HKY_E_IO, "it is not a regular file");
    return hky_error_sys(e, HKY_E_IO, error, "the file cannot be read");
}

static enum hky_err read_whole(int fd, size_t max, char **text, size_t *n, struct stat *st, struct hky_error *e)
{
    struct stat after;
    size_t size;

    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode))
        return hky_error_set(e, HKY_E_IO, "it is not a regular file");
    if (st->st_size < 0 || (uint64_t)st->st_size > max)
        return hky_error_set(e, HKY_E_LIMIT, "the file is larger than %zu octets", max);
    size = (size_t)st->st_size;
    *text = hky_alloc(size + 1);
    while (*n < size) {
        ssize_t got = read(fd, *text + *n, size - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hky_error_sys(e, HKY_E_IO, errno, "the file cannot be read");
        if (got == 0)
            break;
        *n += (size_t)got;
    }
    (*text)[*n] = 0;
    if (*n < size || fstat(fd, &after) != 0 || !hky_inside_is_same(st, &after))
        return hky_error_set(e, HKY_E_STATE, "the file was written while it was read: try again when it is complete");
    return HKY_OK;
}

enum hky_err hky_inside_read(const char *dir, const char *name, size_t max, char **text, size_t *n, struct stat *st,
                             struct hky_error *e)
{
    enum hky_err err;
    int folder, fd, error;

    *text = NULL;
    *n = 0;
    if (!hky_inside_is_name(name))
        return hky_error_set(e, HKY_E_DENIED, "paths are inside the policy's folder: no leading /, no ..");
    folder = open(dir, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (folder < 0)
        return open_failed(dir, errno, e);
    fd = open_below(folder, name);
    error = errno;
    close(folder);
    if (fd < 0)
        return open_failed(dir, error, e);
    if (is_secret(dir, fd))
        err = hky_error_set(e, HKY_E_DENIED, "files of secrets are read by secret \"name\" only");
    else
        err = read_whole(fd, max, text, n, st, e);
    close(fd);
    if (err != HKY_OK) {
        free(*text);
        *text = NULL;
        *n = 0;
    }
    return err;
}
