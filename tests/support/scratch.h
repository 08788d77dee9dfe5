/*
 * scratch -- a folder of a test's own: where it is, and its removal
 */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Most tests count calls and look at octets, and their thousands of syncs need no disk: they are in memory where that
 * is a file system with room. */
static inline const char *scratch_in_memory(void)
{
    struct statvfs vfs;

    if (access("/dev/shm", W_OK | X_OK) == 0 && statvfs("/dev/shm", &vfs) == 0 &&
        vfs.f_bavail * vfs.f_frsize >= (256u << 20))
        return "/dev/shm";
    return "/tmp";
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

/* Removes a folder with all that is in it; follows no links. 0: it is gone. */
static inline int scratch_remove(const char *path)
{
    return nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
