/*
 * inflight -- which messages were being sent when the engine ended without warning. A mapped file of message ids: a
 * store to memory is all that a job costs, and the kernel keeps the page when the process is killed. It is not synced:
 * after a power cut it may be older, and ids of finished messages mean nothing.
 */
#ifndef HKY_SCHEDULE_INFLIGHT_H
#define HKY_SCHEDULE_INFLIGHT_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define INFLIGHT_SLOTS 4096 /* jobs a worker can note at a time; what goes beyond is not noted */

struct inflight;

/* dir/inflight, made when there is none. HKY_E_IO: the engine can go on without (NULL is allowed everywhere below).
 * `was_unclean`: what it holds is what the last run was sending; else that is left from a time before. */
enum hky_err inflight_open(const char *dir, unsigned n_workers, bool was_unclean, struct inflight **out,
                           struct hky_error *e);
bool inflight_was(const struct inflight *f, uint64_t message);
/* What the last run left has been dealt with durably. Before the first put. */
void inflight_forget(struct inflight *f);
/* On that worker's thread. The slot, 0 when all are taken. */
uint32_t inflight_put(struct inflight *f, unsigned worker, uint64_t message);
void inflight_clear(struct inflight *f, unsigned worker, uint32_t slot);
/* The stop is clean: nothing is being sent any more. */
void inflight_close(struct inflight **f);

#endif
