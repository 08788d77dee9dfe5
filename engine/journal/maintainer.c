/* The maintenance thread: closes and frees segments, keeps spares ahead of need, copies leftovers, watches the space.
 */
#include "journal/internal.h"

#include <time.h>

static void unlink_bigs(struct hky_journal *j)
{
    for (;;) {
        uint64_t id = 0;
        bool has;
        pthread_mutex_lock(&j->maintain.lock);
        has = j->maintain.n_to_unlink > 0;
        if (has)
            id = j->maintain.to_unlink[--j->maintain.n_to_unlink];
        pthread_mutex_unlock(&j->maintain.lock);
        if (!has)
            return;
        journal_big_unlink(j, id);
    }
}

/* One body that even the whole disk has no room for must not keep the log at state=low for ever: the next refusals
 * would not be logged. So smaller bodies that find room count instead of it. Where giving up spares makes the room, it
 * is still waited for; else mail of other sizes would let the spares take it again. */
static void forget_too_large(struct hky_journal *j)
{
    unsigned long long refused = atomic_load(&j->large_octets), found = atomic_exchange(&j->found_octets, 0);

    if (found > 0 && found < refused && !journal_segment_may_make_room(j, refused))
        atomic_compare_exchange_strong(&j->large_octets, &refused, found);
}

static void watch_space(struct hky_journal *j)
{
    if (atomic_load(&j->is_low))
        forget_too_large(j);
    if (atomic_load(&j->is_low) && journal_spool_has_room(j, atomic_load(&j->large_octets))) {
        atomic_store(&j->is_low, false);
        hky_log(j->params.log, HKY_LOG_INFO, "spool", "state=room_for_large");
    }
    pthread_mutex_lock(&j->index_lock);
    if (atomic_load(&j->is_full) && j->n_spare > RESERVED_SPARES) {
        atomic_store(&j->is_full, false);
        hky_log(j->params.log, HKY_LOG_INFO, "spool", "state=room segments=%zu spare=%zu", j->n_segments, j->n_spare);
    }
    pthread_mutex_unlock(&j->index_lock);
}

void *journal_maintainer_run(void *journal)
{
    struct hky_journal *j = journal;
    bool is_stopping = false;

    while (!is_stopping) {
        struct timespec until;
        uint32_t rest_ms = j->params.upkeep_ms != 0 ? j->params.upkeep_ms : UPKEEP_MS;
        journal_segment_close_queued(j);
        unlink_bigs(j);
        journal_segment_free_done(j);
        journal_segment_drop_extra(j);
        while (journal_segment_prepare(j))
            continue;
        watch_space(j);
        if (journal_cold_copy_one(j))
            journal_upkeep_poke(j);
        atomic_fetch_add(&j->n_upkeep_rounds, 1);
        until = journal_in_ms(rest_ms);
        pthread_mutex_lock(&j->maintain.lock);
        if (!j->maintain.is_poked && !j->maintain.is_stopping)
            pthread_cond_timedwait(&j->maintain.cond, &j->maintain.lock, &until);
        j->maintain.is_poked = false;
        is_stopping = j->maintain.is_stopping;
        pthread_mutex_unlock(&j->maintain.lock);
    }
    return NULL;
}

void journal_maintainer_finish(struct hky_journal *j)
{
    journal_cold_close(j);
    journal_segment_close_queued(j);
    unlink_bigs(j);
    if (j->hot != NULL && j->hot->synced_seq + 1 == j->hot->next_seq)
        journal_segment_close(j, j->hot);
}
