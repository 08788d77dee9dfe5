/*
 * Keeps events until every reader has committed them, in mapped files of one size that are filled in turn and then
 * reused. Stores into them outlive the process; they are not synced, so a power cut may lose the youngest events.
 * Numbers are reserved in large steps by a synced store, so none is used twice even then.
 */
#include "base/hash.h"
#include "record/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DEFAULT_SEGMENT (1u << 20)
#define FILES_MOST      4096
#define RESERVE         (UINT64_C(1) << 20)
#define BOOT_ID         "/proc/sys/kernel/random/boot_id"

static const char segment_magic[16] = "hikyaku-events2";
static const char cursors_magic[16] = "hikyaku-cursor1";

static uint32_t checksum(uint64_t number, const void *p, size_t n)
{
    return hky_crc32c(hky_crc32c(0, &number, sizeof number), p, n);
}

static size_t used(const struct record_segment *g)
{
    return (size_t)__atomic_load_n(&g->head->end, __ATOMIC_ACQUIRE);
}

bool record_store_event(const struct record_segment *g, size_t at, size_t end, struct record_head *head)
{
    const char *p = (const char *)g->head + at;

    if (end > g->octets || at > end || end - at < sizeof *head)
        return false;
    memcpy(head, p, sizeof *head);
    return head->n <= RECORD_EVENT_MOST && record_store_step(head->n) <= end - at &&
           head->crc == checksum(head->number, p + sizeof *head, head->n);
}

/* ---- files ---- */

static bool has_room(const struct record_store *s)
{
    struct statvfs v;

    return fstatvfs(s->dir_fd, &v) == 0 &&
           (uint64_t)v.f_bavail * v.f_frsize > s->min_free + 2 * (uint64_t)s->segment_octets;
}

/* Allocates the whole file now: a store into a hole would raise SIGBUS when the disk is full. */
static void *map_file(const struct record_store *s, const char *name, size_t octets, bool is_new)
{
    void *map = MAP_FAILED;
    struct stat st;
    int fd =
        openat(s->dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (is_new ? O_EXCL : 0), 0600);

    if (fd < 0)
        return NULL;
    int why = fstat(fd, &st) != 0 ? errno : !S_ISREG(st.st_mode) ? EINVAL : posix_fallocate(fd, 0, (off_t)octets);
    if (why == 0 && (map = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        why = errno;
    close(fd);
    if (map == MAP_FAILED && is_new)
        unlinkat(s->dir_fd, name, 0);
    errno = why;
    return map != MAP_FAILED ? map : NULL;
}

static void *map_memory(size_t octets)
{
    void *map = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    HKY_ASSERT(map != MAP_FAILED);
    return map;
}

static void file_name(unsigned file, char out[16])
{
    snprintf(out, 16, "%u", file);
}

static void free_segment(struct record_segment *g)
{
    munmap(g->head, g->octets);
    free(g);
}

static void remove_segment(struct record_store *s, struct record_segment *g)
{
    char name[16];

    file_name(g->file, name);
    if (!g->is_memory)
        unlinkat(s->dir_fd, name, 0);
    free_segment(g);
}

static void empty_trash(struct record_store *s)
{
    struct record_segment *g;

    for (;;) {
        pthread_mutex_lock(&s->lock);
        if ((g = TAILQ_FIRST(&s->trash)) != NULL)
            TAILQ_REMOVE(&s->trash, g, link);
        pthread_mutex_unlock(&s->lock);
        if (g == NULL)
            return;
        remove_segment(s, g);
    }
}

static void make_spare(struct record_segment *g)
{
    __atomic_store_n(&g->head->first, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&g->head->end, RECORD_PAGE, __ATOMIC_RELEASE);
    g->n = 0;
}

/* NULL: the disk has no room for it, and `may_be_memory` is false. */
static struct record_segment *new_segment(struct record_store *s, bool may_be_memory)
{
    struct record_segment *g = hky_calloc(1, sizeof *g);
    char name[16];

    g->octets = s->segment_octets;
    for (unsigned k = 0; s->dir_fd >= 0 && k < FILES_MOST && g->head == NULL && (k == 0 || errno == EEXIST); k++) {
        g->file = k;
        file_name(k, name);
        g->head = map_file(s, name, g->octets, true);
    }
    g->is_memory = g->head == NULL;
    if (g->is_memory && !may_be_memory) {
        free(g);
        return NULL;
    }
    if (g->is_memory)
        g->head = map_memory(g->octets);
    memcpy(g->head->magic, segment_magic, sizeof segment_magic);
    make_spare(g);
    return g;
}

/* ---- what the last run left ---- */

static struct record_segment *load_segment(const struct record_store *s, unsigned file)
{
    struct record_segment *g;
    struct record_segment_head *head;
    struct stat st;
    char name[16];

    file_name(file, name);
    if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return NULL;
    if (st.st_size < (off_t)RECORD_PAGE || st.st_size > (off_t)(1u << 30) ||
        (head = map_file(s, name, (size_t)st.st_size, false)) == NULL) {
        unlinkat(s->dir_fd, name, 0);
        return NULL;
    }
    g = hky_calloc(1, sizeof *g);
    g->head = head;
    g->octets = (size_t)st.st_size;
    g->file = file;
    return g;
}

/* Keeps the events of a segment up to the first that is damaged or out of order. False: none is left. */
static bool walk(struct record_segment *g)
{
    size_t end = used(g), at = RECORD_PAGE;
    struct record_head h;

    if (memcmp(g->head->magic, segment_magic, sizeof segment_magic) != 0 || g->head->first == 0)
        return false;
    for (g->n = 0;
         record_store_event(g, at, end < g->octets ? end : g->octets, &h) && h.number == g->head->first + g->n; g->n++)
        at += record_store_step(h.n);
    if (at != end)
        __atomic_store_n(&g->head->end, at, __ATOMIC_RELEASE);
    return g->n > 0;
}

static void insert(struct record_store *s, struct record_segment *g)
{
    struct record_segment *x;

    TAILQ_FOREACH (x, &s->segments, link)
        if (x->head->first > g->head->first) {
            TAILQ_INSERT_BEFORE(x, g, link);
            return;
        }
    TAILQ_INSERT_TAIL(&s->segments, g, link);
}

static void load_segments(struct record_store *s)
{
    struct record_segment *g, *next;
    uint64_t last = 0;

    for (unsigned k = 0; k < FILES_MOST; k++) {
        if ((g = load_segment(s, k)) == NULL)
            continue;
        uint64_t end = g->head->end;
        bool is_good = walk(g);
        if (g->head->first != 0 && g->head->end != end)
            hky_log(s->log, HKY_LOG_WARN, "event_store", "what=\"a part is damaged and left out\" file=events/%u", k);
        if (is_good)
            insert(s, g);
        else
            remove_segment(s, g);
    }
    for (g = TAILQ_FIRST(&s->segments); g != NULL; g = next) { /* only a damaged file repeats numbers */
        next = TAILQ_NEXT(g, link);
        if (g->head->first <= last) {
            TAILQ_REMOVE(&s->segments, g, link);
            remove_segment(s, g);
            continue;
        }
        last = g->head->first + g->n - 1;
    }
    if (last >= s->next)
        s->next = last + 1;
}

static void load_cursors(struct record_store *s)
{
    struct record_cursors *c = s->dir_fd >= 0 ? map_file(s, "cursors", RECORD_PAGE, false) : NULL;
    char boot[48] = {0};
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    bool knows_boot = fd >= 0 && read(fd, boot, sizeof boot - 1) > 0;

    if (fd >= 0)
        close(fd);
    s->is_kept = c != NULL;
    s->cursors = c = c != NULL ? c : map_memory(RECORD_PAGE);
    if (memcmp(c->magic, cursors_magic, sizeof cursors_magic) != 0) {
        memset(c, 0, sizeof *c);
        memcpy(c->magic, cursors_magic, sizeof cursors_magic);
    }
    s->next = 1;
    for (unsigned i = 0; i < RECORD_NAMES; i++) {
        c->names[i].name[RECORD_NAME - 1] = '\0';
        if (c->names[i].name[0] != '\0' && c->names[i].done >= s->next)
            s->next = c->names[i].done + 1;
    }
    if (c->is_clean == 1 && c->reserved >= s->next)
        s->next = c->reserved + 1;
    if (c->is_clean == 0 && c->reserved >= s->next && (!knows_boot || memcmp(c->boot, boot, sizeof boot) != 0))
        s->next = c->reserved + 1; /* a power cut may have lost pages, so any reserved number may have been used */
    memcpy(c->boot, boot, sizeof boot);
}

void record_store_open(struct record_store *s, const struct hky_record_params *p)
{
    int spool = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    _Static_assert(sizeof(struct record_cursors) <= RECORD_PAGE, "cursors fit into a page");
    pthread_mutex_init(&s->lock, NULL);
    TAILQ_INIT(&s->segments);
    TAILQ_INIT(&s->spares);
    TAILQ_INIT(&s->trash);
    s->log = p->log;
    s->min_free = p->min_free;
    s->segment_octets = p->segment_octets > 0 ? (size_t)p->segment_octets : DEFAULT_SEGMENT;
    s->dir_fd = -1;
    if (spool >= 0) {
        if (mkdirat(spool, "events", 0700) == 0)
            (void)!fsync(spool);
        s->dir_fd = openat(spool, "events", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        unlinkat(spool, "events.pending", 0); /* left by an older version, empty after a clean stop */
        close(spool);
    }
    load_cursors(s);
    if (s->dir_fd >= 0)
        load_segments(s);
    record_store_upkeep(s);
    const struct record_segment *spare = TAILQ_FIRST(&s->spares); /* NULL on a full disk with old segments */
    if (!s->is_kept || (spare != NULL && spare->is_memory))
        hky_log(s->log, HKY_LOG_WARN, "event_store",
                "what=\"events are kept in memory; a kill may lose those not yet written\" look=%s/events error=\"%s\"",
                p->dir, strerror(errno));
    s->cursors->is_clean = 0;
    if (s->is_kept)
        (void)!msync(s->cursors, RECORD_PAGE, MS_SYNC);
}

void record_store_close(struct record_store *s)
{
    struct record_segment *g;

    s->cursors->reserved = s->next - 1;
    s->cursors->is_clean = 1;
    while ((g = TAILQ_FIRST(&s->segments)) != NULL) {
        TAILQ_REMOVE(&s->segments, g, link);
        if (!g->is_memory)
            (void)!msync(g->head, g->octets, MS_SYNC);
        free_segment(g);
    }
    empty_trash(s);
    while ((g = TAILQ_FIRST(&s->spares)) != NULL) {
        TAILQ_REMOVE(&s->spares, g, link);
        remove_segment(s, g);
    }
    if (s->is_kept)
        (void)!msync(s->cursors, RECORD_PAGE, MS_SYNC);
    munmap(s->cursors, RECORD_PAGE);
    if (s->dir_fd >= 0)
        close(s->dir_fd);
    pthread_mutex_destroy(&s->lock);
}

/* ---- append ---- */

static struct record_segment *begin_segment(struct record_store *s)
{
    struct record_segment *g = TAILQ_FIRST(&s->spares);

    if (g == NULL)
        return NULL;
    TAILQ_REMOVE(&s->spares, g, link);
    s->n_spares--;
    g->head->first = s->next;
    TAILQ_INSERT_TAIL(&s->segments, g, link);
    return g;
}

/* A kill between two of these stores leaves the event out or in, never half, because `end` is stored last. */
bool record_store_append(struct record_store *s, struct hky_str encoded, bool *is_upkeep_due)
{
    struct record_segment *g = TAILQ_LAST(&s->segments, record_segments);
    struct record_head h = {.n = (uint32_t)encoded.n, .number = s->next};
    size_t need = record_store_step(h.n), at = g != NULL ? (size_t)g->head->end : 0;
    char *p;

    if (g == NULL || need > g->octets - at || s->next != g->head->first + g->n) {
        *is_upkeep_due = true;
        if ((g = begin_segment(s)) == NULL || need > g->octets - RECORD_PAGE) {
            s->n_unreported++;
            __atomic_add_fetch(&s->n_lost, 1, __ATOMIC_RELAXED);
            return false;
        }
        at = RECORD_PAGE;
    }
    p = (char *)g->head + at;
    h.crc = checksum(h.number, encoded.p, encoded.n);
    memcpy(p, &h, sizeof h);
    memcpy(p + sizeof h, encoded.p, encoded.n);
    __atomic_store_n(&g->head->end, at + need, __ATOMIC_RELEASE);
    g->n++;
    s->next++;
    if (s->next + RESERVE / 2 > __atomic_load_n(&s->cursors->reserved, __ATOMIC_RELAXED))
        *is_upkeep_due = true;
    return true;
}

/* ---- upkeep ---- */

static void reserve_numbers(struct record_store *s)
{
    uint64_t next;

    pthread_mutex_lock(&s->lock);
    next = s->next;
    pthread_mutex_unlock(&s->lock);
    if (next + RESERVE / 2 <= s->cursors->reserved)
        return;
    __atomic_store_n(&s->cursors->reserved, next + RESERVE, __ATOMIC_RELAXED);
    if (s->is_kept)
        (void)!msync(s->cursors, RECORD_PAGE, MS_SYNC);
}

void record_store_upkeep(struct record_store *s)
{
    reserve_numbers(s);
    empty_trash(s);
    for (;;) {
        struct record_segment *g;
        unsigned n_spares;
        bool is_first;

        pthread_mutex_lock(&s->lock);
        n_spares = s->n_spares;
        is_first = n_spares == 0 && TAILQ_EMPTY(&s->segments);
        pthread_mutex_unlock(&s->lock);
        if (n_spares >= RECORD_SPARES || (!is_first && !has_room(s)) || (g = new_segment(s, is_first)) == NULL)
            return;
        pthread_mutex_lock(&s->lock);
        TAILQ_INSERT_TAIL(&s->spares, g, link);
        s->n_spares++;
        pthread_mutex_unlock(&s->lock);
    }
}

void record_store_release(struct record_store *s, struct record_segment *g)
{
    TAILQ_REMOVE(&s->segments, g, link);
    if (s->n_spares >= RECORD_SPARES || g->octets != s->segment_octets) {
        TAILQ_INSERT_TAIL(&s->trash, g, link); /* unlinked later, because that is slow and the lock is held */
        return;
    }
    make_spare(g);
    TAILQ_INSERT_HEAD(&s->spares, g, link); /* the head is used next: these pages are in memory */
    s->n_spares++;
}
