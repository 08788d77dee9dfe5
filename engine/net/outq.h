/* outq -- octets to be sent, in order: small writes are copied into chunks, bodies are kept by reference. net/ only. */
#ifndef HKY_NET_OUTQ_H
#define HKY_NET_OUTQ_H

#include "net/loop_internal.h"

#include <sys/uio.h>

enum { HKY_OUTQ_INLINE = 6 };

struct hky_out_seg {
    const char *p;
    size_t n;
    void (*release)(void *arg); /* NULL: `arg` is a chunk of ours, or NULL for octets that outlive the stream */
    void *arg;
};

struct hky_outq {
    struct hky_loop *loop;
    struct hky_out_seg *segs, few[HKY_OUTQ_INLINE];
    unsigned head, n, cap;   /* segs[head .. head + n) */
    size_t octets;           /* octets that were added and not dropped yet */
    struct hky_chunk *chunk; /* the chunk that still has room, or NULL */
};

void hky_outq_init(struct hky_outq *q, struct hky_loop *loop);
void hky_outq_fini(struct hky_outq *q); /* releases everything */
void hky_outq_add(struct hky_outq *q, const void *p, size_t n);
void hky_outq_add_ref(struct hky_outq *q, const void *p, size_t n, void (*release)(void *arg), void *arg);
/* The first octets, at most `max` of them, as at most `n_max` entries; returns how many entries. */
unsigned hky_outq_iov(const struct hky_outq *q, struct iovec *iov, unsigned n_max, size_t max);
/* The first octets in one piece: in place when the first segment has `max`, else copied into `buf` (of `max`). */
const char *hky_outq_front(const struct hky_outq *q, char *buf, size_t max, size_t *n);
void hky_outq_drop(struct hky_outq *q, size_t n); /* the kernel has taken them */

#endif
