/*
 * When a shard works next: its two clocks, its timer, the end of its turn, and which lanes are woken then.
 */
#include "internal.h"

int64_t schedule_shard_now(const struct hky_shard *sh)
{
    return hky_clock_now_ms(sh->s->clock);
}

int64_t schedule_shard_mono(const struct hky_shard *sh)
{
    return schedule_mono(sh->s);
}

int64_t schedule_mono(const struct hky_schedule *s)
{
    return hky_clock_elapsed_ms(s->clock);
}

int64_t schedule_wall_offset(const struct hky_schedule *s)
{
    return hky_clock_now_ms(s->clock) - hky_clock_elapsed_ms(s->clock);
}

int64_t schedule_wall_at(const struct hky_schedule *s, int64_t mono_ms)
{
    return mono_ms == INT64_MAX ? INT64_MAX : mono_ms + schedule_wall_offset(s);
}

int64_t schedule_mono_at(const struct hky_schedule *s, int64_t wall_ms)
{
    return wall_ms == INT64_MAX ? INT64_MAX : wall_ms - schedule_wall_offset(s);
}

void schedule_shard_timer_by(struct hky_shard *sh, int64_t at_ms)
{
    if (!sh->s->is_started || at_ms >= sh->timer_at_ms)
        return;
    int64_t after_ms = at_ms - schedule_shard_mono(sh);
    sh->timer_at_ms = at_ms;
    hky_timer_set(&sh->timer, after_ms > 0 ? after_ms : 0);
}

void schedule_shard_set_timer(struct hky_shard *sh, int64_t now_ms)
{
    int64_t at = now_ms + SHARD_SLEEP_MOST_MS;
    struct hky_heap_node *due = hky_heap_first(&sh->due), *wake = hky_heap_first(&sh->wakes);
    at = due != NULL && due->at < at ? due->at : at;
    at = wake != NULL && wake->at < at ? wake->at : at;
    at = sh->waits_for_disk && now_ms + DISK_ASKED_EVERY_MS < at ? now_ms + DISK_ASKED_EVERY_MS : at;
    sh->timer_at_ms = at;
    hky_timer_set(&sh->timer, at > now_ms ? at - now_ms : 0);
}

void schedule_shard_set_due(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    int64_t mono_ms = schedule_mono_at(sh->s, at_ms);
    hky_heap_set(&sh->due, &own(r)->due, mono_ms);
    schedule_shard_timer_by(sh, mono_ms);
}

void schedule_shard_request_turn(struct hky_shard *sh)
{
    if (!sh->is_turn_set && sh->s->is_started) {
        sh->is_turn_set = sh->is_turn_deferred = true;
        hky_loop_defer(sh->loop, &sh->turn->task);
    }
}

void schedule_shard_wake(struct hky_shard *sh, struct lane *l)
{
    hky_heap_remove(&sh->wakes, &l->wake);
    if (l->is_waiting) {
        l->is_waiting = false;
        TAILQ_REMOVE(&sh->waiting, l, waiting_link);
    }
    if (!l->wants_wake) {
        l->wants_wake = true;
        TAILQ_INSERT_TAIL(&sh->woken, l, woken_link);
    }
    schedule_shard_request_turn(sh);
}

void schedule_shard_wake_at(struct hky_shard *sh, struct lane *l, int64_t at_ms)
{
    if (l->wake.index != 0 && l->wake.at <= at_ms)
        return; /* one of its jobs waits for less than its mail does, or the other way round */
    hky_heap_set(&sh->wakes, &l->wake, at_ms);
    schedule_shard_timer_by(sh, at_ms);
}

void schedule_lane_wait(struct lane *l, int64_t until_ms)
{
    struct hky_shard *sh = l->shard;
    if (!l->is_waiting) {
        l->is_waiting = true;
        TAILQ_INSERT_TAIL(&sh->waiting, l, waiting_link);
    }
    if (until_ms != INT64_MAX)
        schedule_shard_wake_at(sh, l, until_ms);
}

void schedule_shard_wake_waiting(struct hky_shard *sh)
{
    struct lane *l, *next;
    for (l = TAILQ_FIRST(&sh->waiting); l != NULL; l = next) {
        next = TAILQ_NEXT(l, waiting_link);
        schedule_shard_wake(sh, l);
    }
}

void schedule_recheck(struct hky_schedule *s, bool is_changed)
{
    for (unsigned i = 0; i < s->n_workers; i++) {
        struct hky_shard *sh = &s->shards[i];
        if (is_changed)
            __atomic_store_n(&sh->is_sweep_due, 1, __ATOMIC_SEQ_CST);
        if (__atomic_exchange_n(&sh->is_recheck_posted, 1, __ATOMIC_SEQ_CST) == 0)
            hky_loop_post(sh->loop, &sh->recheck_task);
    }
}
