/*
 * Large bodies: big/ID, streamed by one thread as they arrive. Written under ID.part, closed with a trailer that holds
 * the body's checksum, synced and renamed; then the folder is synced. Only then may their message be submitted. A file
 * that a crash left without a message is removed at the next start.
 */
#include "journal/internal.h"

#include "base/hash.h"
#include "base/thread.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BIG_QUEUED_MAX = 1 << 20, BIG_QUEUED_LOW = 256 << 10 };

struct chunk {
    struct chunk *next;
    size_t n;
    char p[];
};

struct hky_big {
    struct hky_big *next; /* in the writer's queue */
    LIST_ENTRY(hky_big) all;
    struct hky_journal *j;
    struct hky_loop *loop;
    void (*on_room)(void *ctx);
    void *ctx;
    struct hky_task room_task;
    /* the writer's */
    uint64_t id, at; /* at: octets in the file */
    uint32_t crc;    /* of these octets */
    int fd;
    enum hky_err result;
    /* under the writer's lock */
    struct chunk *first, *last;
    size_t queued;
    bool is_listed, is_paused, is_aborted, is_committed, is_room_posted;
    struct hky_commit *commit;
};

struct big_writer {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct hky_journal *j;
    struct hky_big *first, *last;
    LIST_HEAD(, hky_big) all;
    bool is_stopping;
    pthread_t thread;
};

static void names(uint64_t id, char name[HKY_ID_TEXT], char part[HKY_ID_TEXT + 8])
{
    hky_id_format(id, name);
    snprintf(part, HKY_ID_TEXT + 8, "%s.part", name);
}

static void list_big(struct big_writer *w, struct hky_big *b)
{
    if (b->is_listed)
        return;
    b->is_listed = true;
    b->next = NULL;
    if (w->last != NULL)
        w->last->next = b;
    else
        w->first = b;
    w->last = b;
    pthread_cond_signal(&w->cond);
}

enum hky_err journal_disk_big_open(struct hky_journal *j, uint64_t id, struct hky_loop *loop,
                                   void (*on_room)(void *ctx), void *ctx, struct hky_big **out)
{
    struct hky_big *b;

    *out = NULL;
    if (!journal_spool_has_room_for_large(j, HKY_BIG_BODY, HKY_BIG_BODY))
        return HKY_E_FULL;
    b = hky_calloc(1, sizeof *b);
    b->j = j;
    b->id = id;
    b->fd = -1;
    b->loop = loop;
    b->on_room = on_room;
    b->ctx = ctx;
    pthread_mutex_lock(&j->big_writer->lock);
    LIST_INSERT_HEAD(&j->big_writer->all, b, all);
    pthread_mutex_unlock(&j->big_writer->lock);
    *out = b;
    return HKY_OK;
}

bool hky_journal_big_write(struct hky_big *b, const void *p, size_t n)
{
    struct big_writer *w = b->j->big_writer;
    struct chunk *c = hky_alloc(sizeof *c + n);
    bool is_room;

    c->next = NULL;
    c->n = n;
    memcpy(c->p, p, n);
    pthread_mutex_lock(&w->lock);
    if (b->last != NULL)
        b->last->next = c;
    else
        b->first = c;
    b->last = c;
    b->queued += n;
    list_big(w, b);
    is_room = b->queued < BIG_QUEUED_MAX;
    b->is_paused = !is_room;
    pthread_mutex_unlock(&w->lock);
    return is_room;
}

static void end_big(struct hky_big **big, struct hky_commit *c)
{
    struct hky_big *b = *big;
    struct big_writer *w = b->j->big_writer;

    *big = NULL;
    pthread_mutex_lock(&w->lock);
    b->commit = c;
    b->is_committed = c != NULL;
    b->is_aborted = c == NULL;
    list_big(w, b);
    pthread_mutex_unlock(&w->lock);
}

void hky_journal_big_commit(struct hky_big **b, struct hky_commit *c)
{
    end_big(b, c);
}

void hky_journal_big_abort(struct hky_big **b)
{
    if (*b != NULL)
        end_big(b, NULL);
}

static void room_on_task(struct hky_task *task)
{
    struct hky_big *b = HKY_CONTAINER(task, struct hky_big, room_task);
    struct big_writer *w = b->j->big_writer;
    bool is_over;

    pthread_mutex_lock(&w->lock);
    b->is_room_posted = false;
    is_over = b->is_aborted || b->is_committed;
    if (is_over)
        list_big(w, b); /* it waited for this task before it could be freed */
    pthread_mutex_unlock(&w->lock);
    if (!is_over && b->on_room != NULL)
        b->on_room(b->ctx);
}

static void write_octets(struct hky_big *b, const char *p, size_t n)
{
    struct hky_journal *j = b->j;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};

    while (b->result == HKY_OK && iov.iov_len > 0) {
        ssize_t wrote = j->io.pwritev(j->io.ctx, b->fd, &iov, 1, (off_t)b->at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            b->result = wrote < 0 ? journal_disk_error(errno) : HKY_E_IO;
            return;
        }
        iov.iov_base = (char *)iov.iov_base + wrote;
        iov.iov_len -= (size_t)wrote;
        b->at += (uint64_t)wrote;
        atomic_fetch_add(&j->big_octets, (unsigned long long)wrote);
    }
}

static void write_chunk(struct hky_big *b, const struct chunk *c)
{
    struct hky_journal *j = b->j;
    char name[HKY_ID_TEXT], part[HKY_ID_TEXT + 8];

    names(b->id, name, part);
    if (b->result == HKY_OK && !journal_spool_has_room_for_large(j, c->n, b->at + c->n))
        b->result = HKY_E_FULL;
    if (b->fd < 0 && b->result == HKY_OK) {
        b->fd = j->io.openat(j->io.ctx, j->big_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (b->fd < 0)
            b->result = journal_disk_error(errno);
    }
    b->crc = hky_crc32c(b->crc, c->p, c->n);
    write_octets(b, c->p, c->n);
}

static void write_trailer(struct hky_big *b)
{
    struct big_trailer t = {.id = b->id, .size = b->at, .crc = b->crc};
    char out[BIG_TRAILER];

    journal_big_trailer_encode(&t, out);
    write_octets(b, out, sizeof out);
}

static void big_on_task(struct hky_task *task)
{
    struct hky_commit *c = HKY_CONTAINER(task, struct hky_commit, task);

    c->done(c, NULL, c->result); /* the body alone is no acceptance: no token */
}

static void finish_big(struct hky_big *b)
{
    struct hky_journal *j = b->j;
    struct hky_commit *c = b->commit;
    char name[HKY_ID_TEXT], part[HKY_ID_TEXT + 8];

    names(b->id, name, part);
    if (c != NULL && b->fd < 0 && b->result == HKY_OK)
        b->result = HKY_E_STATE; /* nothing was written */
    if (c != NULL && b->result == HKY_OK)
        write_trailer(b);
    if (c != NULL && b->result == HKY_OK && j->io.fdatasync(j->io.ctx, b->fd) < 0)
        b->result = HKY_E_IO;
    if (b->fd >= 0)
        close(b->fd);
    if (c != NULL && b->result == HKY_OK &&
        (j->io.renameat(j->io.ctx, j->big_fd, part, j->big_fd, name) < 0 || j->io.fdatasync(j->io.ctx, j->big_fd) < 0))
        b->result = HKY_E_IO;
    if (c == NULL || b->result != HKY_OK) {
        j->io.unlinkat(j->io.ctx, j->big_fd, part, 0);
        if (c != NULL)
            j->io.unlinkat(j->io.ctx, j->big_fd, name, 0);
        atomic_fetch_sub(&j->big_octets, b->at);
    }
    if (c != NULL && b->result == HKY_OK)
        journal_spool_note_large(j, b->at);
    if (c != NULL) {
        c->result = b->result;
        c->task.run = big_on_task;
        hky_loop_post(c->loop, &c->task);
    }
    pthread_mutex_lock(&j->big_writer->lock);
    LIST_REMOVE(b, all);
    pthread_mutex_unlock(&j->big_writer->lock);
    free(b);
}

/* One turn with one body; called with the lock held, which it gives up to write. */
static void serve(struct big_writer *w, struct hky_big *b)
{
    struct chunk *c = b->first;
    bool is_over, is_aborted = b->is_aborted;

    b->first = b->last = NULL;
    is_over = (b->is_aborted || b->is_committed) && !b->is_room_posted;
    pthread_mutex_unlock(&w->lock);
    while (c != NULL) {
        struct chunk *next = c->next;
        if (!is_aborted)
            write_chunk(b, c);
        pthread_mutex_lock(&w->lock);
        b->queued -= c->n;
        if (b->is_paused && b->queued <= BIG_QUEUED_LOW && !b->is_room_posted) {
            b->is_paused = false;
            b->is_room_posted = !is_over;
            if (b->is_room_posted) {
                b->room_task.run = room_on_task;
                hky_loop_post(b->loop, &b->room_task);
            }
        }
        pthread_mutex_unlock(&w->lock);
        free(c);
        c = next;
    }
    if (is_over)
        finish_big(b);
    pthread_mutex_lock(&w->lock);
}

static void *big_run(void *writer)
{
    struct big_writer *w = writer;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct hky_big *b;
        while (w->first == NULL && !w->is_stopping)
            pthread_cond_wait(&w->cond, &w->lock);
        b = w->first;
        if (b == NULL)
            break;
        if ((w->first = b->next) == NULL)
            w->last = NULL;
        b->is_listed = false;
        serve(w, b);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum hky_err journal_big_start(struct hky_journal *j, struct hky_error *e)
{
    struct big_writer *w = hky_calloc(1, sizeof *w);

    w->j = j;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
    if (hky_thread_start(&w->thread, big_run, w) != 0) {
        free(w);
        return hky_error_set(e, HKY_E_LIMIT, "cannot start the journal's thread for large bodies");
    }
    j->big_writer = w;
    return HKY_OK;
}

/* The body was given up while the message that there is room was on its way to a loop that has stopped since. The next
 * start removes the file. */
static void free_left(struct big_writer *w)
{
    struct hky_big *b, *next;

    for (b = LIST_FIRST(&w->all); b != NULL; b = next) {
        next = LIST_NEXT(b, all);
        if (!b->is_aborted && !b->is_committed)
            continue;
        if (b->fd >= 0)
            close(b->fd);
        free(b);
    }
}

void journal_big_stop(struct hky_journal *j)
{
    struct big_writer *w = j->big_writer;

    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_stopping = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    free_left(w);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
    free(w);
    j->big_writer = NULL;
}

void journal_big_unlink(struct hky_journal *j, uint64_t id)
{
    char name[HKY_ID_TEXT];
    struct stat st;

    hky_id_format(id, name);
    if (fstatat(j->big_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && j->io.unlinkat(j->io.ctx, j->big_fd, name, 0) == 0)
        atomic_fetch_sub(&j->big_octets, (unsigned long long)st.st_size);
}

/* A whole body without a message: if records were damaged, its message may be one of them. */
static bool is_evidence(struct hky_journal *j, const char *name)
{
    char to[32];

    if (atomic_load(&j->n_damaged) == 0)
        return false;
    if (journal_spool_set_aside(j, j->big_fd, name, to))
        hky_log(j->params.log, HKY_LOG_ERROR, "damaged", "file=damaged/%s: a large body whose message is not known",
                to);
    else
        hky_log(j->params.log, HKY_LOG_ERROR, "damaged", "file=big/%s error=cannot_move", name);
    return true;
}

void journal_big_clean(struct hky_journal *j)
{
    int fd = openat(j->big_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL)
        return;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        struct tracked *t;
        struct stat st;
        uint64_t id;
        bool is_body;
        if (d->d_name[0] == '.')
            continue;
        is_body = hky_id_parse(hky_str_z(d->d_name), &id);
        if (is_body && (t = journal_index_get(&j->index, id)) != NULL && t->message->is_big) {
            if (fstatat(j->big_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                atomic_fetch_add(&j->big_octets, (unsigned long long)st.st_size);
            continue;
        }
        if (!is_body || !is_evidence(j, d->d_name))
            j->io.unlinkat(j->io.ctx, j->big_fd, d->d_name, 0);
    }
    closedir(dir);
}
