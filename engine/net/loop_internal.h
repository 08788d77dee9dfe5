/* loop_internal -- what streams borrow from their loop: shared buffers and a call in the next turn. net/ only. */
#ifndef HKY_NET_LOOP_INTERNAL_H
#define HKY_NET_LOOP_INTERNAL_H

#include "net/loop.h"

#include <stddef.h>

enum { HKY_TURN_OCTETS = 256 * 1024, HKY_CHUNK_OCTETS = 4096, HKY_STAGING_OCTETS = 16384 };

/* The read buffer: at least `min` octets, valid until the next call. Only a stream's own read may ask for it, and never
 * while another read uses it. */
char *hky_loop_scratch(struct hky_loop *loop, size_t min, size_t *cap);
/* HKY_STAGING_OCTETS for one TLS record. */
char *hky_loop_staging(struct hky_loop *loop);
/* HKY_CHUNK_OCTETS of memory, recycled through the loop. */
void *hky_loop_chunk_get(struct hky_loop *loop);
void hky_loop_chunk_put(struct hky_loop *loop, void *chunk);
/* Runs the task in the next turn, after the others; hky_loop_free runs it, too. */
void hky_loop_defer_next(struct hky_loop *loop, struct hky_task *task);

#endif
