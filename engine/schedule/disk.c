/*
 * Mail waits while the results of what was sent cannot be written: after a kill all of it would be sent again. A shard
 * that waits asks the journal every few milliseconds, and wakes its lanes itself, so no wake from another thread can be
 * missed.
 */
#include "internal.h"

/* Lines in the log are for the disk only. That a busy worker waits a moment for the next commit is no news. */
static void announce(struct hky_schedule *s, enum hky_err disk)
{
    bool is_stopped = disk != HKY_OK;
    if (__atomic_exchange_n(&s->is_disk_wait_logged, is_stopped, __ATOMIC_RELAXED) == is_stopped)
        return;
    if (disk == HKY_OK)
        hky_log(s->log, HKY_LOG_INFO, "deliveries", "state=going: results can be written again");
    else if (disk == HKY_E_TIMEOUT)
        hky_log(s->log, HKY_LOG_ERROR, "deliveries",
                "state=stopped: the disk of the spool has not answered a write for %d s; no further mail is sent until "
                "it does; look at the kernel's log and the device",
                HKY_COMMIT_MOST_MS / 1000);
    else
        hky_log(s->log, HKY_LOG_ERROR, "deliveries",
                "state=stopped: the disk of the spool takes no results%s; no further mail is sent until it does; %s",
                disk == HKY_E_FULL ? ", not even in the room that is reserved for them" : "",
                disk == HKY_E_FULL ? "make room on its file system" : "look at the kernel's log and the device");
}

/* HKY_OK: the shard may send; HKY_E_LIMIT: too much of what it has sent is not written yet; else see the journal. */
static enum hky_err ask(struct hky_shard *sh)
{
    enum hky_err disk = hky_journal_takes_results(sh->s->journal);
    if (disk != HKY_OK)
        return disk;
    if (schedule_inflight_n_unwritten(sh->s->inflight, sh->index) < UNWRITTEN_MOST)
        return HKY_OK;
    schedule_inflight_written(sh->s->inflight, sh->index, hky_journal_written(sh->s->journal));
    return schedule_inflight_n_unwritten(sh->s->inflight, sh->index) < UNWRITTEN_MOST ? HKY_OK : HKY_E_LIMIT;
}

bool schedule_shard_waits_for_disk(struct hky_shard *sh)
{
    enum hky_err disk;
    if (sh->waits_for_disk)
        return true;
    disk = ask(sh);
    if (disk == HKY_OK)
        return false;
    sh->waits_for_disk = true;
    if (disk != HKY_E_LIMIT)
        announce(sh->s, disk);
    schedule_shard_timer_by(sh, schedule_shard_mono(sh) + DISK_ASKED_EVERY_MS);
    return true;
}

void schedule_shard_ask_disk(struct hky_shard *sh)
{
    enum hky_err disk;
    if (!sh->waits_for_disk)
        return;
    disk = ask(sh);
    if (disk != HKY_E_LIMIT)
        announce(sh->s, disk);
    if (disk != HKY_OK)
        return; /* set_timer sees to it that the question comes again */
    sh->waits_for_disk = false;
    schedule_shard_wake_waiting(sh);
}
