/*
 * Bodies: from memory by reference, from the page cache at once, from the disk by a thread of its own. What comes from
 * the disk is compared with its checksum before its last piece is given; a body that does not match is copied to
 * damaged/. m->body may be dropped while others read it, and a message may move to another segment: both happen under
 * body_lock, which is held for a few instructions only. While a segment is read, `readers` counts it, and it is not
 * recycled.
 */
#include "journal/internal.h"

#include "base/hash.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

struct reader {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct hky_journal *j;
    struct hky_body_read *first, *last;
    bool is_stopping;
    pthread_t thread;
};

pthread_mutex_t *journal_body_lock(struct hky_journal *j, uint64_t id)
{
    return &j->body_locks[(id * UINT64_C(0x9e3779b97f4a7c15)) >> 58];
}

void journal_disk_body_drop(struct hky_journal *j, struct hky_message *m)
{
    struct hky_body *b;

    pthread_mutex_lock(journal_body_lock(j, m->id));
    /* Only a body that is on disk may be dropped: before that this is the only copy. */
    b = __atomic_load_n(&m->segment, __ATOMIC_ACQUIRE) != 0 && !m->is_big ? m->body : NULL;
    if (b != NULL)
        __atomic_store_n(&m->body, NULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(journal_body_lock(j, m->id));
    if (b == NULL)
        return;
    atomic_fetch_sub(&j->body_memory, m->size);
    hky_body_unref(&b);
}

void journal_body_over_budget(struct hky_journal *j, struct hky_message *m)
{
    if (atomic_load_explicit(&j->body_memory, memory_order_relaxed) > j->params.body_memory)
        journal_disk_body_drop(j, m);
}

/* All its recipients have ended, some perhaps while it was read: its body may be gone, or its segment hold others. */
static bool is_over(const struct hky_message *m)
{
    return __atomic_load_n(&m->n_live, __ATOMIC_RELAXED) == 0;
}

/* The segment that holds a message; it is not recycled until the caller counts `readers` down again. NULL: there is
 * none, or the message is over. Counting comes before that question, and maintenance asks the two in the other order,
 * so that it never recycles a segment that somebody reads. */
static struct segment *pin_segment(struct hky_journal *j, struct hky_message *m, uint64_t *body_at)
{
    struct segment *s = NULL;
    uint32_t segment;

    pthread_mutex_lock(journal_body_lock(j, m->id));
    segment = __atomic_load_n(&m->segment, __ATOMIC_ACQUIRE);
    *body_at = __atomic_load_n(&m->body_at, __ATOMIC_RELAXED);
    if (segment != 0) {
        s = j->slots[segment - 1];
        atomic_fetch_add(&s->readers, 1);
        if (is_over(m)) {
            atomic_fetch_sub(&s->readers, 1);
            s = NULL;
        }
    }
    pthread_mutex_unlock(journal_body_lock(j, m->id));
    return s;
}

static size_t piece_of(const struct hky_body_read *r)
{
    uint64_t left = r->message->size - r->at;

    return left < PIECE_MAX ? (size_t)left : PIECE_MAX;
}

static void answer(struct hky_body_read *r, enum hky_err result, char *p, size_t at, size_t n)
{
    r->result = result;
    r->body = NULL;
    r->p = "";
    r->n = 0;
    if (result != HKY_OK) {
        free(p);
        return;
    }
    r->body = hky_body_new(p, at + n, at + n);
    r->p = p + at;
    r->n = n;
}

/* The record's header, before the body, holds the message's id and the body's checksum. */
static bool is_right(const struct segment *s, const struct hky_message *m, const char *p, uint32_t *stored_crc)
{
    struct journal_record rec;

    if (!journal_record_decode(p, s->octets, s->head.epoch, s->head.salt, &rec) || rec.key != m->id ||
        rec.body_n != m->size)
        return false;
    *stored_crc = rec.body_crc;
    return true;
}

/* Takes this piece into the checksum. False: it was the last piece, and the checksum of all is not the stored one. A
 * piece that is read out of order is not checked. */
static bool is_sound(struct hky_body_read *r, const char *p, size_t n)
{
    uint32_t crc;

    if (!r->has_stored_crc || r->at != r->checked)
        return true;
    crc = hky_crc32c(r->crc, p, n);
    if (r->at + n >= r->message->size && crc != r->stored_crc)
        return false;
    r->crc = crc;
    r->checked = r->at + n;
    return true;
}

static void begin_check(struct hky_body_read *r, bool is_known, uint32_t stored_crc)
{
    r->checked = 0;
    r->crc = 0;
    r->has_stored_crc = is_known;
    r->stored_crc = stored_crc;
}

/* Copies a damaged body to damaged/, where it stays when the message is gone. Runs on the reader's thread. */
static void set_body_aside(struct hky_journal *j, const struct hky_message *m, const char *p, size_t n, const char *why)
{
    char id[HKY_ID_TEXT], name[HKY_ID_TEXT + 8], to[32] = "";
    bool is_kept;

    hky_id_format(m->id, id);
    snprintf(name, sizeof name, "%s.body", id);
    atomic_fetch_add(&j->n_damaged, 1);
    if (m->is_big)
        is_kept = linkat(j->big_fd, id, j->damaged_fd, name, 0) == 0 || errno == EEXIST;
    else
        is_kept = p != NULL && journal_spool_write_file(j, j->damaged_fd, name, p, n, NULL) == HKY_OK;
    if (is_kept)
        snprintf(to, sizeof to, "damaged/%s", name);
    hky_log(j->params.log, HKY_LOG_ERROR, "damaged", "msg=%s what=body why=\"%s\" copy=%s", id, why,
            is_kept ? to : "none");
}

/* The record of a body as it is on disk: what is copied to damaged/ and named in the log. */
static void set_record_aside(struct hky_journal *j, struct hky_message *m, const char *why)
{
    uint64_t body_at;
    struct segment *s = pin_segment(j, m, &body_at);
    char *p;

    if (s == NULL)
        return;
    p = hky_alloc(m->size + 1);
    if (journal_segment_read(s, body_at, p, m->size) == HKY_OK)
        set_body_aside(j, m, p, m->size, why);
    else
        set_body_aside(j, m, NULL, 0, why);
    atomic_fetch_sub(&s->readers, 1);
    free(p);
}

/* n octets at `at` of a segment: HKY_OK, HKY_E_IO, or HKY_E_STATE: would block (only with RWF_NOWAIT). */
static enum hky_err read_octets(const struct segment *s, char *p, size_t n, uint64_t at, int flags)
{
    for (size_t got = 0; got < n;) {
        struct iovec iov = {.iov_base = p + got, .iov_len = n - got};
        ssize_t k = preadv2(s->fd, &iov, 1, (off_t)(at + got), flags);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return flags != 0 ? HKY_E_STATE : HKY_E_IO;
        got += (size_t)k;
    }
    return HKY_OK;
}

/* Reads the piece at r->at. False: reading would block, or the octets are wrong; the reader's thread then reads again.
 */
static bool read_piece(struct hky_journal *j, struct hky_body_read *r, int flags)
{
    size_t head = r->at == 0 ? JOURNAL_RECORD_HEADER : 0, n = piece_of(r);
    uint64_t body_at;
    uint32_t stored_crc;
    struct segment *s = pin_segment(j, r->message, &body_at);
    const char *why = NULL;
    enum hky_err err;
    char *p;

    if (s == NULL) {
        answer(r, HKY_E_MISSING, NULL, 0, 0);
        return true;
    }
    p = hky_alloc(head + n);
    err = read_octets(s, p, head + n, body_at - head + r->at, flags);
    if (err == HKY_OK && head > 0) {
        if (is_right(s, r->message, p, &stored_crc))
            begin_check(r, true, stored_crc);
        else
            why = "its record is not readable";
    }
    atomic_fetch_sub(&s->readers, 1);
    if (err == HKY_OK && why == NULL && !is_sound(r, p + head, n))
        why = "its checksum does not fit";
    if (flags != 0 && (err != HKY_OK || why != NULL)) {
        free(p);
        return false;
    }
    if (why != NULL && is_over(r->message)) {
        err = HKY_E_MISSING;
    } else if (why != NULL) {
        set_record_aside(j, r->message, why);
        err = HKY_E_DAMAGED;
    }
    answer(r, err, p, head, n);
    return true;
}

/* Reads the trailer; a file that ends with its body has none. Returns NULL, or what is wrong. */
static const char *read_trailer(struct hky_body_read *r, int fd)
{
    const struct hky_message *m = r->message;
    struct big_trailer t;
    char in[BIG_TRAILER];
    ssize_t n = pread(fd, in, sizeof in, (off_t)m->size);

    begin_check(r, n == BIG_TRAILER, 0);
    if (n <= 0)
        return NULL;
    if (n != BIG_TRAILER || !journal_big_trailer_decode(in, &t) || t.id != m->id || t.size != m->size)
        return "the checksum at its end is not readable";
    r->stored_crc = t.crc;
    return NULL;
}

static void read_big(struct hky_journal *j, struct hky_body_read *r)
{
    size_t n = piece_of(r), got = 0;
    const char *why = NULL;
    char name[HKY_ID_TEXT], *p = hky_alloc(n);
    bool is_gone, is_failing = false;
    enum hky_err err;
    int fd;

    hky_id_format(r->message->id, name);
    fd = openat(j->big_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    is_gone = fd < 0 && errno == ENOENT;
    while (fd >= 0 && got < n) {
        ssize_t k = pread(fd, p + got, n - got, (off_t)(r->at + got));
        if (k < 0 && errno == EINTR)
            continue;
        is_failing = k < 0;
        if (k <= 0)
            break;
        got += (size_t)k;
    }
    if (fd >= 0) {
        posix_fadvise(fd, (off_t)(r->at + got), 2 * PIECE_MAX, POSIX_FADV_WILLNEED);
        if (got < n && !is_failing)
            why = "its file is shorter than it was";
        else if (got == n && r->at == 0)
            why = read_trailer(r, fd);
        close(fd);
    }
    if (is_gone)
        why = "its file is gone";
    if (why == NULL && got == n && !is_sound(r, p, n))
        why = "its checksum does not fit";
    err = got == n ? HKY_OK : HKY_E_IO;
    if (why != NULL) {
        err = is_gone && is_over(r->message) ? HKY_E_MISSING : HKY_E_DAMAGED;
        if (err == HKY_E_DAMAGED)
            set_body_aside(j, r->message, NULL, 0, why);
    }
    answer(r, err, p, 0, n);
}

struct hky_body *journal_disk_body_in_memory(struct hky_journal *j, struct hky_message *m)
{
    struct hky_body *b;

    if (m->is_big || __atomic_load_n(&m->body, __ATOMIC_RELAXED) == NULL)
        return NULL;
    pthread_mutex_lock(journal_body_lock(j, m->id));
    b = __atomic_load_n(&m->body, __ATOMIC_ACQUIRE);
    if (b != NULL)
        hky_body_ref(b);
    pthread_mutex_unlock(journal_body_lock(j, m->id));
    return b;
}

/* Reads n octets at `at` if the page cache has all of them; else it asks the disk to read them ahead and does not wait.
 * Only a file system that cannot say what is in the cache (NFS) blocks. */
static bool read_cached(int fd, char *p, size_t n, uint64_t at)
{
    size_t got = 0;
    int flags = RWF_NOWAIT;

    while (got < n) {
        struct iovec iov = {.iov_base = p + got, .iov_len = n - got};
        ssize_t k = preadv2(fd, &iov, 1, (off_t)(at + got), flags);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0 && errno == EOPNOTSUPP && flags != 0) {
            flags = 0;
            continue;
        }
        if (k <= 0)
            break;
        got += (size_t)k;
    }
    if (got < n)
        posix_fadvise(fd, (off_t)(at + got), (off_t)(n - got), POSIX_FADV_WILLNEED);
    return got == n;
}

static bool read_big_header(struct hky_journal *j, const struct hky_message *m, char *p)
{
    char name[HKY_ID_TEXT];
    bool ok = false;
    int fd;

    hky_id_format(m->id, name);
    if ((fd = openat(j->big_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) >= 0) {
        ok = read_cached(fd, p + JOURNAL_RECORD_HEADER, m->header_octets, 0);
        close(fd);
    }
    return ok;
}

/* Reads the whole body unless it is large: a damaged body must not decide the route of its message. */
static bool read_header(struct hky_journal *j, struct hky_message *m, char *p, size_t n)
{
    uint64_t body_at;
    uint32_t stored_crc;
    struct segment *s = pin_segment(j, m, &body_at);
    bool ok;

    if (s == NULL)
        return false;
    ok = read_cached(s->fd, p, JOURNAL_RECORD_HEADER + n, body_at - JOURNAL_RECORD_HEADER) &&
         is_right(s, m, p, &stored_crc) && (n < m->size || hky_crc32c(0, p + JOURNAL_RECORD_HEADER, n) == stored_crc);
    atomic_fetch_sub(&s->readers, 1);
    return ok;
}

bool journal_disk_header(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out)
{
    size_t n = !m->is_big && m->size <= PIECE_MAX ? (size_t)m->size : m->header_octets;
    char *p;

    if ((*body = journal_disk_body_in_memory(j, m)) != NULL) {
        *out = hky_str_of((*body)->p, m->header_octets < (*body)->n ? m->header_octets : (*body)->n);
        return true;
    }
    p = hky_alloc(JOURNAL_RECORD_HEADER + n);
    if (m->is_big ? !read_big_header(j, m, p) : !read_header(j, m, p, n)) {
        free(p);
        return false;
    }
    *body = hky_body_new(p, JOURNAL_RECORD_HEADER + n, JOURNAL_RECORD_HEADER + n);
    *out = hky_str_of(p + JOURNAL_RECORD_HEADER, m->header_octets);
    return true;
}

static bool read_memory(struct hky_journal *j, struct hky_body_read *r)
{
    struct hky_body *b = journal_disk_body_in_memory(j, r->message);

    if (b == NULL)
        return false;
    r->result = HKY_OK;
    r->body = b;
    r->p = b->p + r->at;
    r->n = b->n - r->at;
    return true;
}

bool journal_disk_body(struct hky_journal *j, struct hky_body_read *r)
{
    struct reader *rd = j->reader;

    r->result = HKY_OK;
    r->p = "";
    r->n = 0;
    r->body = NULL;
    if (r->at >= r->message->size || read_memory(j, r))
        return true;
    if (!r->message->is_big && read_piece(j, r, RWF_NOWAIT))
        return true;
    r->next = NULL;
    pthread_mutex_lock(&rd->lock);
    if (rd->last != NULL)
        rd->last->next = r;
    else
        rd->first = r;
    rd->last = r;
    pthread_cond_signal(&rd->cond);
    pthread_mutex_unlock(&rd->lock);
    return false;
}

void hky_body_read_release(struct hky_body_read *r)
{
    hky_body_unref(&r->body);
    r->p = "";
    r->n = 0;
}

static void body_on_task(struct hky_task *task)
{
    struct hky_body_read *r = HKY_CONTAINER(task, struct hky_body_read, task);

    r->done(r);
}

static void *reader_run(void *reader)
{
    struct reader *rd = reader;

    for (;;) {
        struct hky_body_read *r;
        pthread_mutex_lock(&rd->lock);
        while (rd->first == NULL && !rd->is_stopping)
            pthread_cond_wait(&rd->cond, &rd->lock);
        r = rd->first;
        if (r != NULL && (rd->first = r->next) == NULL)
            rd->last = NULL;
        pthread_mutex_unlock(&rd->lock);
        if (r == NULL)
            return NULL;
        if (r->message->is_big)
            read_big(rd->j, r);
        else
            read_piece(rd->j, r, 0);
        r->task.run = body_on_task;
        hky_loop_post(r->loop, &r->task);
    }
}

enum hky_err journal_reader_start(struct hky_journal *j, struct hky_error *e)
{
    struct reader *rd = hky_calloc(1, sizeof *rd);

    rd->j = j;
    pthread_mutex_init(&rd->lock, NULL);
    pthread_cond_init(&rd->cond, NULL);
    if (hky_thread_start(&rd->thread, reader_run, rd) != 0) {
        free(rd);
        return hky_error_set(e, HKY_E_LIMIT, "cannot start the journal's reader thread");
    }
    j->reader = rd;
    return HKY_OK;
}

void journal_reader_stop(struct hky_journal *j)
{
    struct reader *rd = j->reader;

    if (rd == NULL)
        return;
    j->reader = NULL;
    pthread_mutex_lock(&rd->lock);
    rd->is_stopping = true;
    pthread_cond_signal(&rd->cond);
    pthread_mutex_unlock(&rd->lock);
    pthread_join(rd->thread, NULL);
    pthread_mutex_destroy(&rd->lock);
    pthread_cond_destroy(&rd->cond);
    free(rd);
}
