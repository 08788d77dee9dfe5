/* out_queue -- octets to be sent, in order: small writes are copied into chunks, bodies are kept by reference. net/
 * only. */
#ifndef HKY_NET_OUT_QUEUE_H
#define HKY_NET_OUT_QUEUE_H

#include "net/loop_internal.h"

#include <sys/uio.h>

enum { HKY_OUT_QUEUE_INLINE = 6 };

struct hky_out_segment {
    const char *p;
    size_t n;
    void (*release)(void *arg); /* NULL: `arg` is a chunk of ours, or NULL for octets that outlive the stream */
    void *arg;
};

struct hky_out_queue {
    struct hky_loop *loop;
    struct hky_out_segment *segs, few[HKY_OUT_QUEUE_INLINE];
    unsigned head, n, cap;   /* segs[head .. head + n) */
    size_t octets;           /* octets that were added and not dropped yet */
    struct hky_chunk *chunk; /* the chunk that still has room, or NULL */
};

/* An empty queue; its chunks come from the loop, which outlives it. */
void hky_out_queue_init(struct hky_out_queue *q, struct hky_loop *loop);
void hky_out_queue_fini(struct hky_out_queue *q); /* releases everything */
/* To the end: a copy; or by reference, until `release(arg)` is called (as hky_stream_write_ref). */
void hky_out_queue_add(struct hky_out_queue *q, const void *p, size_t n);
void hky_out_queue_add_ref(struct hky_out_queue *q, const void *p, size_t n, void (*release)(void *arg), void *arg);
/* The first octets, at most `max` of them, as at most `n_max` entries; returns how many entries. */
unsigned hky_out_queue_iov(const struct hky_out_queue *q, struct iovec *iov, unsigned n_max, size_t max);
/* The first octets in one piece: in place when the first segment has `max`, else copied into `buf` (of `max`). */
const char *hky_out_queue_front(const struct hky_out_queue *q, char *buf, size_t max, size_t *n);
void hky_out_queue_drop(struct hky_out_queue *q, size_t n); /* the kernel has taken them */

#endif
