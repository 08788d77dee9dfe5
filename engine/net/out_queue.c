#include "net/out_queue.h"

#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

/* Segments that point into a chunk hold it; so does `q->chunk` while there is room. */
struct hky_chunk {
    unsigned refs, used;
    char data[HKY_CHUNK_OCTETS - 2 * sizeof(unsigned)];
};
_Static_assert(sizeof(struct hky_chunk) == HKY_CHUNK_OCTETS, "a chunk is what the loop recycles");

void hky_out_queue_init(struct hky_out_queue *q, struct hky_loop *loop)
{
    *q = (struct hky_out_queue){.loop = loop, .cap = HKY_OUT_QUEUE_INLINE};
    q->segs = q->few;
}

/* The chunk may have held a password, so it is cleared before it is kept for other uses. */
static void chunk_unref(struct hky_out_queue *q, struct hky_chunk *c)
{
    if (--c->refs > 0)
        return;
    hky_secret_wipe(c->data, c->used);
    hky_loop_chunk_put(q->loop, c);
}

static void chunk_let_go(struct hky_out_queue *q)
{
    if (q->chunk != NULL)
        chunk_unref(q, q->chunk);
    q->chunk = NULL;
}

static void seg_release(struct hky_out_queue *q, const struct hky_out_segment *seg)
{
    if (seg->release != NULL)
        seg->release(seg->arg);
    else if (seg->arg != NULL)
        chunk_unref(q, seg->arg);
}

void hky_out_queue_fini(struct hky_out_queue *q)
{
    chunk_let_go(q);
    while (q->n > 0) {
        struct hky_out_segment seg = q->segs[q->head++];
        q->n--;
        seg_release(q, &seg);
    }
    if (q->segs != q->few)
        free(q->segs);
    hky_out_queue_init(q, q->loop);
}

static struct hky_out_segment *seg_new(struct hky_out_queue *q)
{
    if (q->head + q->n == q->cap && q->head > 0) {
        memmove(q->segs, q->segs + q->head, q->n * sizeof *q->segs);
        q->head = 0;
    }
    if (q->n == q->cap) {
        HKY_ASSERT(q->cap < 1U << 30);
        bool is_few = q->segs == q->few;
        struct hky_out_segment *segs = hky_realloc(is_few ? NULL : q->segs, (size_t)q->cap * 2 * sizeof *segs);
        if (is_few)
            memcpy(segs, q->few, sizeof q->few);
        q->segs = segs;
        q->cap *= 2;
    }
    return &q->segs[q->head + q->n++];
}

void hky_out_queue_add(struct hky_out_queue *q, const void *p, size_t n)
{
    const char *from = p;
    while (n > 0) {
        if (q->chunk == NULL) {
            q->chunk = hky_loop_chunk_get(q->loop);
            q->chunk->refs = 1;
            q->chunk->used = 0;
        }
        struct hky_chunk *c = q->chunk;
        size_t part = sizeof c->data - c->used < n ? sizeof c->data - c->used : n;
        char *to = c->data + c->used;
        memcpy(to, from, part);
        c->used += (unsigned)part;
        struct hky_out_segment *last = q->n > 0 ? &q->segs[q->head + q->n - 1] : NULL;
        if (last != NULL && last->release == NULL && last->arg == c) {
            last->n += part; /* chunks fill from the front, so this one ends where `to` begins */
        } else {
            *seg_new(q) = (struct hky_out_segment){.p = to, .n = part, .arg = c};
            c->refs++;
        }
        if (c->used == sizeof c->data)
            chunk_let_go(q);
        q->octets += part;
        from += part;
        n -= part;
    }
}

void hky_out_queue_add_ref(struct hky_out_queue *q, const void *p, size_t n, void (*release)(void *arg), void *arg)
{
    if (n == 0) {
        if (release != NULL)
            release(arg);
        return;
    }
    *seg_new(q) = (struct hky_out_segment){.p = p, .n = n, .release = release, .arg = release != NULL ? arg : NULL};
    q->octets += n;
}

unsigned hky_out_queue_iov(const struct hky_out_queue *q, struct iovec *iov, unsigned n_max, size_t max)
{
    unsigned n = 0;
    for (; n < n_max && n < q->n && max > 0; n++) {
        const struct hky_out_segment *seg = &q->segs[q->head + n];
        iov[n].iov_base = (char *)seg->p;
        iov[n].iov_len = seg->n < max ? seg->n : max;
        max -= iov[n].iov_len;
    }
    return n;
}

const char *hky_out_queue_front(const struct hky_out_queue *q, char *buf, size_t max, size_t *n)
{
    const struct hky_out_segment *seg = &q->segs[q->head];
    *n = 0;
    if (q->n == 0)
        return NULL;
    if (q->n == 1 || seg->n >= max) {
        *n = seg->n < max ? seg->n : max;
        return seg->p;
    }
    for (unsigned i = 0; i < q->n && *n < max; i++, seg++) {
        size_t part = seg->n < max - *n ? seg->n : max - *n;
        memcpy(buf + *n, seg->p, part);
        *n += part;
    }
    return buf;
}

void hky_out_queue_drop(struct hky_out_queue *q, size_t n)
{
    HKY_ASSERT(n <= q->octets);
    q->octets -= n;
    while (n > 0) {
        struct hky_out_segment *seg = &q->segs[q->head];
        if (n < seg->n) {
            seg->p += n;
            seg->n -= n;
            return;
        }
        struct hky_out_segment done = *seg; /* its release may add to this queue */
        n -= seg->n;
        q->head++;
        q->n--;
        seg_release(q, &done);
    }
    if (q->n > 0)
        return;
    q->head = 0;
    chunk_let_go(q);
    if (q->cap > 64) {
        free(q->segs);
        hky_out_queue_init(q, q->loop);
    }
}
