/*
 * inflight -- which messages were being sent when the engine was killed, or had been sent without their result being
 * written. It is a mapped file of message ids: a job costs one store to memory at its start and one at its end, and the
 * kernel keeps the page when the process is killed. So only messages whose ids are in it may be delivered twice after a
 * kill. It is not synced, so after a power cut it may be older; ids of finished messages are then ignored.
 */
#ifndef HKY_SCHEDULE_INFLIGHT_H
#define HKY_SCHEDULE_INFLIGHT_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define INFLIGHT_SLOTS 4096 /* of each worker; slot 0 says whether more were needed */

struct inflight;

/* Opens dir/inflight; it is made when there is none. HKY_E_IO: the engine can go on without it; all functions below
 * take NULL. `was_unclean`: its contents are what the last run was sending; if not, they are older and are ignored. */
enum hky_err schedule_inflight_open(const char *dir, unsigned n_workers, bool was_unclean, struct inflight **out,
                                    struct hky_error *e);
enum inflight_state {
    INFLIGHT_NOT,
    INFLIGHT_SENDING, /* it was being sent when the engine ended */
    INFLIGHT_ENDED,   /* its job was over, and the result may not have been written */
};
enum inflight_state schedule_inflight_was(const struct inflight *f, uint64_t message);
/* Were there more messages than slots? Then schedule_inflight_was does not know all of them. */
bool schedule_inflight_was_overfull(const struct inflight *f);
/* Clears what the last run left, after that was dealt with on disk. Call it before the first put. */
void schedule_inflight_forget(struct inflight *f);
/* On that worker's thread. Returns the slot; 0: all are taken. */
uint32_t schedule_inflight_put(struct inflight *f, unsigned worker, uint64_t message);
/* The job has ended. Its results are on disk with the journal's record number `record` (hky_journal_submitted). */
void schedule_inflight_end(struct inflight *f, unsigned worker, uint32_t slot, uint64_t record);
/* All records up to this number are written: frees the slots of jobs whose results are in them. */
void schedule_inflight_written(struct inflight *f, unsigned worker, uint64_t record);
/* How many jobs of that worker have ended whose results are not written yet, as far as that call was told. */
uint32_t schedule_inflight_n_unwritten(const struct inflight *f, unsigned worker);
/* At a stop, when nothing is sent any more: there are results that the journal could not write. Close then leaves the
 * jobs in the file whose results are not written; to the next start, they have ended. */
void schedule_inflight_keep(struct inflight *f);
/* After this a start knows that nothing was being sent, and that all results are written unless schedule_inflight_keep
 * was called. Without schedule_inflight_forget the file is left as it was found. */
void schedule_inflight_close(struct inflight **f);

#endif
