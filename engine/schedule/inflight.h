/*
 * inflight -- which messages were being sent when the engine ended without warning, or had been sent while the result
 * was not written down yet. A mapped file of message ids: a store to memory is all that a job costs, and the kernel
 * keeps the page when the process is killed. So after a kill nobody got a message twice whose id is not in it. It is
 * not synced: after a power cut it may be older, and ids of finished messages mean nothing.
 */
#ifndef HKY_SCHEDULE_INFLIGHT_H
#define HKY_SCHEDULE_INFLIGHT_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define INFLIGHT_SLOTS 4096 /* a worker's; one of them says that more were needed */

struct inflight;

/* dir/inflight, made when there is none. HKY_E_IO: the engine can go on without (NULL is allowed everywhere below).
 * `was_unclean`: what it holds is what the last run was sending; else that is left from a time before. */
enum hky_err schedule_inflight_open(const char *dir, unsigned n_workers, bool was_unclean, struct inflight **out,
                                    struct hky_error *e);
enum inflight_state {
    INFLIGHT_NOT,
    INFLIGHT_SENDING, /* when the engine ended */
    INFLIGHT_ENDED,   /* its job was over, and the result may not have been written */
};
enum inflight_state schedule_inflight_was(const struct inflight *f, uint64_t message);
/* There were more than could be noted: what schedule_inflight_was says is not all. */
bool schedule_inflight_was_overfull(const struct inflight *f);
/* What the last run left has been dealt with durably. Before the first put. */
void schedule_inflight_forget(struct inflight *f);
/* On that worker's thread. The slot, 0 when all are taken. */
uint32_t schedule_inflight_put(struct inflight *f, unsigned worker, uint64_t message);
/* The job is over; its results are written with the journal's record number `record` (hky_journal_submitted). */
void schedule_inflight_end(struct inflight *f, unsigned worker, uint32_t slot, uint64_t record);
/* All records up to this number are written: the slots of jobs whose results they are become free. */
void schedule_inflight_written(struct inflight *f, unsigned worker, uint64_t record);
/* The stop is clean: nothing is being sent any more. */
void schedule_inflight_close(struct inflight **f);

#endif
