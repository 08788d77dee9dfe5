/*
 * One worker's part: it does what is due, and follows clock and policy when they are changed.
 */
#include "internal.h"

#define DUE_A_TICK   1024
#define DISK_WAIT_MS 10000
#define CLOCK_SET_MS 10000 /* less than this is ordinary adjustment */

/* ---- due ---- */

/* The time has come to ask whether a recipient should still wait in its lane. */
static void give_up_waiting(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    if (now_ms >= r->expire_at_ms) {
        schedule_recipient_take_out(sh, r);
        schedule_recipient_expire(sh, r);
        return;
    }
    if (sh->waits_for_disk) { /* the relay is not why it waits, and another one would not get it either */
        schedule_shard_set_due(sh, r, now_ms + DISK_WAIT_MS);
        return;
    }
    const struct hky_step *step = &r->plan->steps[r->step];
    int64_t until_ms;
    enum hky_class reason = schedule_lane_is_paused(own(r)->lane, &until_ms) ? HKY_CLASS_PAUSED : HKY_CLASS_FULL;
    int64_t end_ms = schedule_plan_within_end(sh->policy, r, reason);
    bool is_over = now_ms >= end_ms || step->wait_sec != HKY_UNSET_SEC;
    if (is_over && schedule_recipient_leave_step(sh, r, reason))
        return;
    int64_t next_ms = end_ms > now_ms && end_ms < r->expire_at_ms ? end_ms : r->expire_at_ms;
    /* it should leave and cannot yet, because the other way is full, too: the question comes again in a minute */
    schedule_shard_set_due(sh, r, is_over && now_ms + GIVES_UP_SOON_MS < next_ms ? now_ms + GIVES_UP_SOON_MS : next_ms);
}

static void on_due(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    if (own(r)->lane != NULL) {
        give_up_waiting(sh, r, now_ms);
        return;
    }
    schedule_recipient_redispatch(sh, r);
}

/* ---- the wall clock was set ---- */

/* These are spans that are kept as times of the wall clock: after this they are as long as before. */
static void move_times(struct hky_recipient *r, int64_t by_ms)
{
    r->step_at_ms += r->step_at_ms != 0 ? by_ms : 0;
    r->next_at_ms += r->next_at_ms > NO_TIME_MOST ? by_ms : 0;
    r->parked_at_ms += r->parked_at_ms != 0 ? by_ms : 0;
}

/* Goes over all recipients at once, which is rare: mostly clocks are adjusted slowly. Whoever waits for a time waits as
 * long as before; only the time at which a recipient expires is a date, which stays. */
static void on_clock_set(struct hky_shard *sh, int64_t by_ms)
{
    struct hky_recipient *r;
    struct hky_heap *h = &sh->due;
    for (uint32_t i = 1; i <= h->n; i++) {
        r = recipient_due(h->nodes[i]);
        move_times(r, by_ms);
        int64_t expire_ms =
            r->expire_at_ms != 0 && r->parked_at_ms == 0 ? schedule_mono_at(sh->s, r->expire_at_ms) : INT64_MAX;
        own(r)->due.at = expire_ms < own(r)->due.at ? expire_ms : own(r)->due.at;
    }
    hky_heap_restore(h);
    for (r = recipients_first(&sh->held); r != NULL; r = recipients_next(r))
        move_times(r, by_ms);
    for (r = recipients_first(&sh->to_dispatch); r != NULL; r = recipients_next(r))
        move_times(r, by_ms);
    struct job *j;
    TAILQ_FOREACH (j, &sh->jobs, link) {
        for (unsigned i = 0; i < j->pub.n; i++)
            if (j->slots_of[i] != NULL)
                move_times(j->slots_of[i], by_ms);
    }
}

static void check_clock(struct hky_shard *sh)
{
    int64_t by_ms = schedule_wall_offset(sh->s) - sh->wall_offset_ms;
    if (by_ms >= CLOCK_SET_MS || by_ms <= -CLOCK_SET_MS) {
        sh->wall_offset_ms += by_ms;
        on_clock_set(sh, by_ms);
    }
}

void schedule_shard_tick(struct hky_shard *sh)
{
    check_clock(sh);
    schedule_inflight_written(sh->s->inflight, sh->index, hky_journal_written(sh->s->journal));
    schedule_shard_ask_disk(sh);
    schedule_log_parked_left_out(sh);
    int64_t now_ms = schedule_shard_mono(sh);
    struct hky_heap_node *node;
    for (int n = 0; n < DUE_A_TICK && (node = hky_heap_first(&sh->due)) != NULL && node->at <= now_ms; n++)
        on_due(sh, recipient_due(node), schedule_shard_now(sh));
    while ((node = hky_heap_first(&sh->wakes)) != NULL && node->at <= now_ms)
        schedule_shard_wake(sh, HKY_CONTAINER(node, struct lane, wake));
    if (now_ms >= sh->next_sweep_ms || sh->next_sweep_ms > now_ms + SHARD_SLEEP_MOST_MS) {
        sh->next_sweep_ms = now_ms + SHARD_SLEEP_MOST_MS;
        schedule_shard_sweep_lanes(sh, now_ms);
    }
    schedule_shard_set_timer(sh, now_ms);
}

int64_t hky_schedule_next_at(const struct hky_schedule *s)
{
    int64_t at = INT64_MAX, now_ms = hky_clock_elapsed_ms(s->clock);
    for (unsigned i = 0; i < s->n_workers; i++) {
        const struct hky_shard *sh = &s->shards[i];
        const struct hky_heap_node *due = hky_heap_first(&sh->due), *wake = hky_heap_first(&sh->wakes);
        if (sh->is_turn_set)
            return schedule_wall_at(s, now_ms);
        at = due != NULL && due->at < at ? due->at : at;
        at = wake != NULL && wake->at < at ? wake->at : at;
    }
    return schedule_wall_at(s, at < now_ms ? now_ms : at);
}

void hky_schedule_tick(struct hky_schedule *s, unsigned worker)
{
    HKY_ASSERT(worker < s->n_workers);
    s->shards[worker].next_sweep_ms = 0; /* so that paused lanes are looked at, too */
    schedule_shard_tick(&s->shards[worker]);
}

static void on_timer(struct hky_timer *t)
{
    struct hky_shard *sh = HKY_CONTAINER(t, struct hky_shard, timer);
    schedule_shard_tick(sh);
}

/* ---- from other threads ---- */

static void on_recheck(struct hky_task *t)
{
    struct hky_shard *sh = HKY_CONTAINER(t, struct hky_shard, recheck_task);
    __atomic_store_n(&sh->is_recheck_posted, 0, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&sh->is_sweep_due, 0, __ATOMIC_SEQ_CST) != 0)
        schedule_shard_sweep_lanes(sh, schedule_shard_mono(sh));
    schedule_shard_wake_waiting(sh);
}

static void on_policy(struct hky_task *t)
{
    struct hky_shard *sh = HKY_CONTAINER(t, struct hky_shard, policy_task);
    struct hky_schedule *s = sh->s;
    __atomic_store_n(&sh->is_policy_posted, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&s->lock);
    struct hky_policy *policy = hky_policy_ref(s->policy);
    pthread_mutex_unlock(&s->lock);
    hky_policy_unref(&sh->policy);
    sh->policy = policy;
    schedule_shard_retire_lanes(sh);
    sh->n_to_ask = counter_get(&sh->n.parked);
    sh->is_crowded = false;
    schedule_shard_request_turn(sh);
}

void schedule_shard_init(struct hky_shard *sh, struct hky_schedule *s, unsigned index, struct hky_loop *loop)
{
    sh->s = s;
    sh->index = index;
    sh->loop = loop;
    sh->wall_offset_ms = schedule_wall_offset(s);
    sh->policy = hky_policy_ref(s->policy);
    hky_map_init_untrusted(&sh->lanes);
    hky_map_init(&sh->deferred);
    hky_map_init_untrusted(&sh->slowed);
    TAILQ_INIT(&sh->all_lanes);
    TAILQ_INIT(&sh->retired_lanes);
    TAILQ_INIT(&sh->woken);
    TAILQ_INIT(&sh->waiting);
    hky_heap_init(&sh->due);
    hky_heap_init(&sh->wakes);
    TAILQ_INIT(&sh->held);
    TAILQ_INIT(&sh->parked);
    TAILQ_INIT(&sh->answered);
    TAILQ_INIT(&sh->to_ask[0]);
    TAILQ_INIT(&sh->to_ask[1]);
    TAILQ_INIT(&sh->to_dispatch);
    TAILQ_INIT(&sh->jobs);
    TAILQ_INIT(&sh->idle_jobs);
    TAILQ_INIT(&sh->inbox);
    pthread_mutex_init(&sh->inbox_lock, NULL);
    sh->out = hky_calloc(s->n_workers, sizeof *sh->out);
    for (unsigned i = 0; i < s->n_workers; i++)
        TAILQ_INIT(&sh->out[i]);
    hky_timer_init(&sh->timer, loop, on_timer);
    sh->timer_at_ms = INT64_MAX;
    schedule_shard_init_turn(sh);
    sh->recheck_task.run = on_recheck;
    sh->policy_task.run = on_policy;
}
