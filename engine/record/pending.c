#include "record/pending.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

void pending_begin(const struct hky_buf *b, int log_fd)
{
    struct pending_head *h = head_of(b);
    struct stat st;

    if (fstat(log_fd, &st) != 0)
        return;
    h->dev = st.st_dev;
    h->ino = st.st_ino;
    h->at = (uint64_t)st.st_size;
    __atomic_store_n(&h->is_writing, 1, __ATOMIC_RELEASE);
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

/* ---- what the last run left ---- */

static bool read_boot(char out[48])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
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

/* How much of the area the log has already. */
static size_t n_written(const struct pending_head *h, const char *text, int log_fd)
{
    struct stat st;
    size_t n;
    char *there;

    if (h->is_writing != 1 || fstat(log_fd, &st) != 0 || h->dev != st.st_dev || h->ino != st.st_ino ||
        (uint64_t)st.st_size <= h->at)
        return 0;
    n = (uint64_t)st.st_size - h->at < h->n ? (size_t)((uint64_t)st.st_size - h->at) : (size_t)h->n;
    there = hky_alloc(n);
    if (pread(log_fd, there, n, (off_t)h->at) != (ssize_t)n || memcmp(there, text, n) != 0)
        n = 0;
    free(there);
    return n;
}

static void end_torn_line(int log_fd)
{
    struct stat st;
    char last;

    if (fstat(log_fd, &st) == 0 && st.st_size > 0 && pread(log_fd, &last, 1, st.st_size - 1) == 1 && last != '\n')
        (void)!write(log_fd, "\n", 1);
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

static uint64_t append_lines(const char *text, size_t n, size_t done, int log_fd)
{
    uint64_t n_lines = 0;

    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t next;
        if (end == NULL)
            break;
        next = (size_t)(end - text) + 1;
        if (next > done && is_line((struct hky_str){text + at, next - 1 - at})) {
            size_t from = at < done ? done : at;
            if (from == at)
                end_torn_line(log_fd);
            if (!write_out(log_fd, text + from, next - from))
                break;
            n_lines++;
        }
        at = next;
    }
    return n_lines;
}

static uint64_t recover_area(int fd, off_t at, uint64_t octets, int log_fd, bool of_writing)
{
    struct pending_head h;
    struct stat st;
    uint64_t n_lines = 0;
    char *text;

    if (pread(fd, &h, sizeof h, at) != (ssize_t)sizeof h || h.n == 0 || h.n > octets - PAGE ||
        (h.is_writing == 1) != of_writing)
        return 0;
    text = hky_alloc((size_t)h.n);
    if (pread(fd, text, (size_t)h.n, at + PAGE) == (ssize_t)h.n) {
        size_t done = n_written(&h, text, log_fd);
        if (h.is_writing != 1 && fstat(log_fd, &st) == 0) { /* killed again: the next start goes on from here */
            end_torn_line(log_fd);
            fstat(log_fd, &st);
            h.dev = st.st_dev;
            h.ino = st.st_ino;
            h.at = (uint64_t)st.st_size;
            h.is_writing = 1;
            (void)!pwrite(fd, &h, sizeof h, at);
        }
        n_lines = append_lines(text, (size_t)h.n, done, log_fd);
    }
    free(text);
    h = (struct pending_head){0};
    (void)!pwrite(fd, &h, sizeof h, at);
    return n_lines;
}

/* What is being written is older than what waits. */
static uint64_t recover(int fd, int log_fd)
{
    struct file_head f;
    char boot[48] = {0};
    uint64_t n = 0;

    if (pread(fd, &f, sizeof f, 0) != (ssize_t)sizeof f || memcmp(f.magic, magic, sizeof magic) != 0 ||
        !read_boot(boot) || memcmp(f.boot, boot, sizeof boot) != 0 || f.n_areas > AREAS_MOST || f.area_octets <= PAGE ||
        f.area_octets > AREA_MOST)
        return 0;
    for (int k = 0; k < 2; k++)
        for (uint64_t i = 0; i < f.n_areas; i++)
            n += recover_area(fd, (off_t)(PAGE + i * f.area_octets), f.area_octets, log_fd, k == 0);
    return n;
}

static bool map_file(struct pending *p, int log_fd, uint64_t *n_recovered)
{
    struct file_head f = {.n_areas = p->n_areas, .area_octets = p->area_octets};
    struct stat st;
    void *map;

    if (fstat(p->fd, &st) != 0 || flock(p->fd, LOCK_EX | LOCK_NB) != 0)
        return false;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return false;
    }
    *n_recovered = recover(p->fd, log_fd);
    /* Room now: a store into a hole of a full disk would be a signal. */
    if (pwrite(p->fd, &(struct file_head){{0}}, sizeof f, 0) != (ssize_t)sizeof f ||
        (errno = posix_fallocate(p->fd, 0, (off_t)p->octets)) != 0)
        return false;
    map = mmap(NULL, p->octets, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
    if (map == MAP_FAILED)
        return false;
    p->map = map;
    for (unsigned i = 0; i < p->n_areas; i++)
        memset(p->map + PAGE + i * p->area_octets, 0, sizeof(struct pending_head));
    memcpy(f.magic, magic, sizeof magic);
    if (read_boot(f.boot))
        memcpy(p->map, &f, sizeof f);
    return true;
}

enum hky_err pending_open(struct pending *p, const char *dir, unsigned n_areas, size_t most, int log_fd,
                          uint64_t *n_recovered, struct hky_error *e)
{
    char path[4096];
    int why;

    *n_recovered = 0;
    *p = (struct pending){.n_areas = n_areas, .area_octets = PAGE + (most + 1 + PAGE - 1) / PAGE * PAGE};
    p->octets = PAGE + n_areas * p->area_octets;
    snprintf(path, sizeof path, "%s/events.pending", dir);
    p->fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (p->fd >= 0 && map_file(p, log_fd, n_recovered))
        return HKY_OK;
    why = errno;
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    p->map = mmap(NULL, p->octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    HKY_ASSERT(p->map != MAP_FAILED);
    return hky_error_sys(e, HKY_E_IO, why, "%.150s cannot be used; a kill may lose 100 ms of the event log", path);
}

void pending_close(struct pending *p)
{
    munmap(p->map, p->octets);
    if (p->fd >= 0)
        close(p->fd);
}
