#include "record/pending.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME  "events.pending"
#define BOOT_ID    "/proc/sys/kernel/random/boot_id"
#define PAGE       4096u
#define AREAS_MOST 1026u
#define AREA_MOST  (64u << 20)

struct file_head {
    char magic[16];
    char boot[48]; /* of which start of the machine */
    uint64_t n_areas, area_octets;
};

static const char magic[16] = "hikyaku-events1";

static struct pending_head *head_of(const struct hky_buf *b)
{
    return (struct pending_head *)(void *)(b->p - PAGE);
}

void pending_keep(const struct hky_buf *b)
{
    __atomic_store_n(&head_of(b)->n, b->n, __ATOMIC_RELEASE);
}

static void note(struct pending_head *h, int log_fd)
{
    struct stat st;

    if (fstat(log_fd, &st) != 0)
        return;
    h->dev = st.st_dev;
    h->ino = st.st_ino;
    h->at = (uint64_t)st.st_size;
    __atomic_store_n(&h->is_writing, 1, __ATOMIC_RELEASE);
}

void pending_begin(const struct hky_buf *b, size_t from, int log_fd)
{
    struct pending_head *h = head_of(b);

    __atomic_store_n(&h->is_writing, 0, __ATOMIC_RELEASE); /* killed in between: rather all of them once more */
    h->from = from;
    note(h, log_fd);
}

void pending_end(const struct hky_buf *b)
{
    struct pending_head *h = head_of(b);

    __atomic_store_n(&h->n, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&h->is_writing, 0, __ATOMIC_RELEASE);
}

struct hky_buf pending_buf(const struct pending *p, unsigned i, size_t most)
{
    return (struct hky_buf){.p = p->map + PAGE + i * p->area_octets + PAGE, .cap = p->area_octets - PAGE, .max = most};
}

/* ---- what the last run left ----
 *
 * Lines that waited are appended to the log. Lines that were being written go on where they stopped, in the file they
 * were written to, also when it was renamed since. When that file is gone, cannot be read or was added to, those not
 * found there are appended to the log: rather a line twice than none, and never half a one. Until a line is in a file
 * it stays here. */

static bool read_boot(char out[48])
{
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, 47) : -1;

    if (fd >= 0)
        close(fd);
    return n > 0;
}

static bool is_line(struct hky_str s)
{
    if (s.n < 9 || memcmp(s.p, "{\"ev\":\"", 7) != 0 || s.p[s.n - 1] != '}' || !hky_utf8_is_valid(s))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20)
            return false;
    return true;
}

/* Takes out what is no line; returns what is left, all of it ended by a newline. */
static size_t keep_lines(char *text, size_t n, struct pending_left *left)
{
    size_t kept = 0;

    for (size_t at = 0, next; at < n; at = next) {
        const char *end = memchr(text + at, '\n', n - at);
        next = end != NULL ? (size_t)(end - text) + 1 : n;
        if (end != NULL && is_line((struct hky_str){text + at, next - 1 - at})) {
            memmove(text + kept, text + at, next - at);
            kept += next - at;
            left->n_lines++;
        } else {
            left->n_damaged++;
        }
    }
    return kept;
}

static size_t line_start(const char *text, size_t at)
{
    while (at > 0 && text[at - 1] != '\n')
        at--;
    return at;
}

static bool is_noted(const struct pending_head *h, int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && h->dev == st.st_dev && h->ino == st.st_ino;
}

/* The file that was being written, under whatever name; -1: it is gone. */
static int open_noted(const struct pending *p, const struct pending_head *h)
{
    int at = openat(p->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
    DIR *d = at >= 0 ? fdopendir(at) : NULL;
    const struct dirent *entry;

    while (d != NULL && fd < 0 && (entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, "events", 6) != 0 || strcmp(entry->d_name, FILE_NAME) == 0)
            continue;
        fd = openat(at, entry->d_name, O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && !is_noted(h, fd)) {
            close(fd);
            fd = -1;
        }
    }
    if (d != NULL)
        closedir(d);
    return fd;
}

/* How many octets of `text` stand in the file from `at` on, and whether the file ends there. */
static size_t n_written(int fd, uint64_t at, const char *text, size_t n, bool *is_last)
{
    struct stat st;
    size_t same = 0;
    ssize_t k;
    char *there;

    *is_last = false;
    if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size <= at)
        return 0;
    there = hky_alloc(n + 1);
    k = pread(fd, there, n, (off_t)at);
    while (k > 0 && same < (size_t)k && there[same] == text[same])
        same++;
    free(there);
    *is_last = at + same == (uint64_t)st.st_size;
    return same;
}

/* A log that cannot be read may end in half a line. */
bool pending_is_torn(int log_fd)
{
    struct stat st;
    char last;

    return fstat(log_fd, &st) == 0 && st.st_size > 0 && (pread(log_fd, &last, 1, st.st_size - 1) != 1 || last != '\n');
}

static bool write_out(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static bool recover_lines(struct pending *p, off_t area, struct pending_head *h, const char *text, size_t n, int log_fd)
{
    int fd = h->is_writing == 1 ? open_noted(p, h) : -1;
    size_t done = h->is_writing == 1 && h->from < n ? (size_t)h->from : 0, same;
    bool is_last, is_out = false;

    same = n_written(fd, h->at, text + done, n - done, &is_last);
    done += same;
    if (same > 0 && is_last) {
        is_out = write_out(fd, text + done, n - done);
    } else if (!pending_is_torn(log_fd) || write_out(log_fd, "\n", 1)) {
        done = line_start(text, done);
        h->from = done;
        note(h, log_fd); /* killed again, or no room: the next time goes on from here */
        (void)!pwrite(p->fd, h, sizeof *h, area);
        is_out = write_out(log_fd, text + done, n - done);
    }
    if (fd >= 0)
        close(fd);
    return is_out;
}

static bool recover_area(struct pending *p, off_t area, uint64_t octets, int log_fd, bool of_writing,
                         struct pending_left *left)
{
    struct pending_left here = {0};
    struct pending_head h;
    bool is_out = true;
    char *text;

    if (pread(p->fd, &h, sizeof h, area) != (ssize_t)sizeof h || h.n == 0 || h.n > octets - PAGE ||
        (h.is_writing == 1) != of_writing)
        return true;
    text = hky_alloc((size_t)h.n);
    if (pread(p->fd, text, (size_t)h.n, area + PAGE) == (ssize_t)h.n) {
        size_t n = keep_lines(text, (size_t)h.n, &here);
        is_out = n == 0 || recover_lines(p, area, &h, text, n, log_fd);
    }
    free(text);
    if (!is_out)
        return false;
    left->n_lines += here.n_lines;
    left->n_damaged += here.n_damaged;
    (void)!pwrite(p->fd, &(struct pending_head){0}, sizeof h, area);
    return true;
}

/* What is being written is older than what waits. */
bool pending_recover(struct pending *p, int log_fd, struct pending_left *left)
{
    struct file_head f;
    char boot[48] = {0};

    *left = (struct pending_left){0};
    p->has_left = false;
    if (pread(p->fd, &f, sizeof f, 0) != (ssize_t)sizeof f || memcmp(f.magic, magic, sizeof magic) != 0 ||
        !read_boot(boot) || memcmp(f.boot, boot, sizeof boot) != 0 || f.n_areas > AREAS_MOST || f.area_octets <= PAGE ||
        f.area_octets > AREA_MOST)
        return true;
    for (int k = 0; k < 2; k++)
        for (uint64_t i = 0; i < f.n_areas; i++)
            if (!recover_area(p, (off_t)(PAGE + i * f.area_octets), f.area_octets, log_fd, k == 0, left)) {
                p->has_left = true;
                return false;
            }
    return true;
}

/* ---- open and close ---- */

static bool map_file(struct pending *p, const char boot[48])
{
    struct file_head f = {.n_areas = p->n_areas, .area_octets = p->area_octets};
    void *map;

    /* Room now: a store into a hole of a full disk would be a signal. */
    if (pwrite(p->fd, &(struct file_head){{0}}, sizeof f, 0) != (ssize_t)sizeof f ||
        ftruncate(p->fd, (off_t)p->octets) != 0)
        return false;
    if ((errno = posix_fallocate(p->fd, 0, (off_t)p->octets)) != 0 ||
        (map = mmap(NULL, p->octets, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0)) == MAP_FAILED) {
        int why = errno;
        (void)!ftruncate(p->fd, 0);
        errno = why;
        return false;
    }
    p->map = map;
    for (unsigned i = 0; i < p->n_areas; i++)
        memset(p->map + PAGE + i * p->area_octets, 0, sizeof(struct pending_head));
    memcpy(f.magic, magic, sizeof magic);
    memcpy(f.boot, boot, sizeof f.boot);
    memcpy(p->map, &f, sizeof f);
    return true;
}

static bool lock_file(struct pending *p, const char *dir)
{
    struct stat st;

    if ((p->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        (p->fd = openat(p->dir_fd, FILE_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600)) < 0 ||
        fstat(p->fd, &st) != 0 || flock(p->fd, LOCK_EX | LOCK_NB) != 0)
        return false;
    errno = EINVAL;
    return S_ISREG(st.st_mode);
}

static void close_files(struct pending *p)
{
    if (p->fd >= 0)
        close(p->fd);
    if (p->dir_fd >= 0)
        close(p->dir_fd);
    p->fd = p->dir_fd = -1;
}

enum hky_err pending_open(struct pending *p, const char *dir, unsigned n_areas, size_t most, int log_fd,
                          struct pending_left *left, struct hky_error *e)
{
    char boot[48] = {0};
    int why;

    *left = (struct pending_left){0};
    *p = (struct pending){
        .fd = -1, .dir_fd = -1, .n_areas = n_areas, .area_octets = PAGE + (most + 1 + PAGE - 1) / PAGE * PAGE};
    p->octets = PAGE + n_areas * p->area_octets;
    if (!read_boot(boot))
        hky_error_sys(e, HKY_E_IO, errno, "cannot read " BOOT_ID "; a kill may lose 100 ms of the event log");
    else if (lock_file(p, dir) && pending_recover(p, log_fd, left) && map_file(p, boot))
        return HKY_OK;
    else if (why = errno, p->has_left)
        hky_error_sys(e, HKY_E_IO, why, "the log takes no line; those of the last run stay in %.150s/" FILE_NAME, dir);
    else
        hky_error_sys(e, HKY_E_IO, why, "%.150s/" FILE_NAME " cannot be used; a kill may lose 100 ms of the event log",
                      dir);
    if (!p->has_left)
        close_files(p);
    p->map = mmap(NULL, p->octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    HKY_ASSERT(p->map != MAP_FAILED);
    return HKY_E_IO;
}

void pending_close(struct pending *p, bool is_kept)
{
    munmap(p->map, p->octets);
    if (p->fd >= 0 && !p->has_left && !is_kept)
        unlinkat(p->dir_fd, FILE_NAME, 0);
    close_files(p);
}
