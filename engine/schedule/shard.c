/*
 * One worker's part: its clock, the end of its turns, what comes from other workers.
 */
#include "internal.h"

#include <stdlib.h>

#define PLACED_A_TURN 256
#define DUE_A_TICK    1024
#define SLEEP_MOST_MS 1000
#define CLOCK_SET_MS  10000 /* less is how clocks are kept right */

int64_t shard_now(const struct hky_shard *sh)
{
    return hky_clock_now_ms(sh->s->clock);
}

int64_t shard_mono(const struct hky_shard *sh)
{
    return schedule_mono(sh->s);
}

int64_t schedule_mono(const struct hky_schedule *s)
{
    return hky_clock_elapsed_ms(s->clock);
}

static int64_t wall_offset(const struct hky_schedule *s)
{
    return hky_clock_now_ms(s->clock) - hky_clock_elapsed_ms(s->clock);
}

int64_t schedule_wall_at(const struct hky_schedule *s, int64_t mono_ms)
{
    return mono_ms == INT64_MAX ? INT64_MAX : mono_ms + wall_offset(s);
}

int64_t schedule_mono_at(const struct hky_schedule *s, int64_t wall_ms)
{
    return wall_ms == INT64_MAX ? INT64_MAX : wall_ms - wall_offset(s);
}

void shard_set_due(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    int64_t mono_ms = schedule_mono_at(sh->s, at_ms);
    hky_heap_set(&sh->due, &own(r)->due, mono_ms);
    shard_timer_soon(sh, mono_ms);
}

void shard_turn_later(struct hky_shard *sh)
{
    if (!sh->is_turn_set && sh->s->is_started) {
        sh->is_turn_set = sh->is_turn_deferred = true;
        hky_loop_defer(sh->loop, &sh->turn->task);
    }
}

void shard_wake(struct hky_shard *sh, struct lane *l)
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
    shard_turn_later(sh);
}

void shard_timer_soon(struct hky_shard *sh, int64_t at_ms)
{
    if (!sh->s->is_started || at_ms >= sh->timer_at_ms)
        return;
    int64_t after_ms = at_ms - shard_mono(sh);
    sh->timer_at_ms = at_ms;
    hky_timer_set(&sh->timer, after_ms > 0 ? after_ms : 0);
}

void shard_wake_at(struct hky_shard *sh, struct lane *l, int64_t at_ms)
{
    hky_heap_set(&sh->wakes, &l->wake, at_ms);
    shard_timer_soon(sh, at_ms);
}

/* ---- due ---- */

/* It waits in a lane and the time has come to ask whether it still should. */
static void give_up_waiting(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    if (now_ms >= r->expire_at_ms) {
        recipient_unplace(sh, r);
        recipient_expire(sh, r);
        return;
    }
    const struct hky_step *step = &r->plan->steps[r->step];
    int64_t until_ms;
    enum hky_class reason = lane_is_paused(own(r)->lane, &until_ms) ? HKY_CLASS_PAUSED : HKY_CLASS_FULL;
    int64_t end_ms = plan_within_end(sh->policy, r, reason);
    bool is_over = now_ms >= end_ms || step->wait_sec != HKY_UNSET_SEC;
    if (is_over && recipient_leave_step(sh, r, reason))
        return;
    int64_t next_ms = end_ms > now_ms && end_ms < r->expire_at_ms ? end_ms : r->expire_at_ms;
    /* it should go and cannot yet (the other way is full, too): asked again */
    shard_set_due(sh, r, is_over && now_ms + 60000 < next_ms ? now_ms + 60000 : next_ms);
}

static void on_due(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    if (own(r)->lane != NULL) {
        give_up_waiting(sh, r, now_ms);
        return;
    }
    recipient_place_anew(sh, r);
}

static void set_timer(struct hky_shard *sh, int64_t now_ms)
{
    int64_t at = now_ms + SLEEP_MOST_MS;
    struct hky_heap_node *due = hky_heap_first(&sh->due), *wake = hky_heap_first(&sh->wakes);
    at = due != NULL && due->at < at ? due->at : at;
    at = wake != NULL && wake->at < at ? wake->at : at;
    sh->timer_at_ms = at;
    hky_timer_set(&sh->timer, at > now_ms ? at - now_ms : 0);
}

/* ---- the wall clock was set ---- */

/* What is counted from the wall clock, but is not a date: it is as long ago, and as far away, as it was before. */
static void move_times(struct hky_recipient *r, int64_t by_ms)
{
    r->step_at_ms += r->step_at_ms != 0 ? by_ms : 0;
    r->next_at_ms += r->next_at_ms > NO_TIME_MOST ? by_ms : 0;
    r->parked_at_ms += r->parked_at_ms != 0 ? by_ms : 0;
}

/* Everybody once: those who wait for a time keep waiting as long as they would have, but for who expires, which is a
 * date. A clock is set seldom, and slowly adjusted most of the time: this is for what stands out. */
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
    for (r = recipients_first(&sh->to_place); r != NULL; r = recipients_next(r))
        move_times(r, by_ms);
    struct job *j;
    TAILQ_FOREACH (j, &sh->jobs, link) {
        for (unsigned i = 0; i < j->pub.n; i++)
            if (j->slots_of[i] != NULL)
                move_times(j->slots_of[i], by_ms);
    }
}

static void look_at_clock(struct hky_shard *sh)
{
    int64_t by_ms = wall_offset(sh->s) - sh->wall_offset_ms;
    if (by_ms >= CLOCK_SET_MS || by_ms <= -CLOCK_SET_MS) {
        sh->wall_offset_ms += by_ms;
        on_clock_set(sh, by_ms);
    }
}

void shard_tick(struct hky_shard *sh)
{
    look_at_clock(sh);
    inflight_written(sh->s->inflight, sh->index, hky_journal_written(sh->s->journal));
    int64_t now_ms = shard_mono(sh);
    struct hky_heap_node *node;
    for (int n = 0; n < DUE_A_TICK && (node = hky_heap_first(&sh->due)) != NULL && node->at <= now_ms; n++)
        on_due(sh, recipient_due(node), shard_now(sh));
    while ((node = hky_heap_first(&sh->wakes)) != NULL && node->at <= now_ms)
        shard_wake(sh, HKY_CONTAINER(node, struct lane, wake));
    if (now_ms >= sh->next_sweep_ms || sh->next_sweep_ms > now_ms + SLEEP_MOST_MS) {
        sh->next_sweep_ms = now_ms + SLEEP_MOST_MS;
        shard_sweep_lanes(sh, now_ms);
    }
    set_timer(sh, now_ms);
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
    s->shards[worker].next_sweep_ms = 0; /* paused lanes are looked at, too */
    shard_tick(&s->shards[worker]);
}

static void on_timer(struct hky_timer *t)
{
    struct hky_shard *sh = HKY_CONTAINER(t, struct hky_shard, timer);
    shard_tick(sh);
}

/* ---- the end of a turn ---- */

static void hand_over(struct hky_shard *from, unsigned to)
{
    struct hky_shard *sh = &from->s->shards[to];
    if (TAILQ_EMPTY(&from->out[to]))
        return;
    pthread_mutex_lock(&sh->inbox_lock);
    TAILQ_CONCAT(&sh->inbox, &from->out[to], link);
    bool is_post_due = !sh->is_inbox_posted;
    sh->is_inbox_posted = true;
    pthread_mutex_unlock(&sh->inbox_lock);
    if (is_post_due)
        hky_loop_post(sh->loop, &sh->inbox_task);
}

static void hand_over_all(struct hky_shard *sh)
{
    for (unsigned to = 0; sh->out_mask != 0 && to < sh->s->n_workers; to++)
        if ((sh->out_mask >> (to % 64) & 1) != 0)
            hand_over(sh, to);
    sh->out_mask = 0;
}

/* Lanes of an older policy hand back what they hold, in portions. True: there is more. */
static bool empty_gone_lanes(struct hky_shard *sh)
{
    unsigned moved = 0;
    struct lane *l, *next;
    for (l = TAILQ_FIRST(&sh->gone_lanes); l != NULL && moved < PLACED_A_TURN; l = next) {
        next = TAILQ_NEXT(l, all_link);
        for (struct hky_recipient *r; moved < PLACED_A_TURN && (r = lane_any(l)) != NULL; moved++) {
            recipient_unplace(sh, r);
            recipient_list_for_placing(sh, r);
        }
        moved += l->n_jobs == 0; /* to free one is work as well */
        lane_free_if_over(l);
    }
    return moved >= PLACED_A_TURN;
}

/* Parked recipients are asked at once after a reload, which is what they wait for; those that are parked again stand
 * behind. True: there is more. */
static bool ask_parked(struct hky_shard *sh)
{
    struct hky_recipient *r;
    for (unsigned n = 0; n < PLACED_A_TURN && sh->n_to_ask > 0; n++, sh->n_to_ask--) {
        if ((r = recipients_first(&sh->parked)) == NULL) {
            sh->n_to_ask = 0;
            break;
        }
        recipient_place_anew(sh, r);
    }
    return sh->n_to_ask > 0;
}

/* Those that stand there now: a wake may end in another one of the same lane, which is for the next turn. */
static void wake_lanes(struct hky_shard *sh)
{
    struct lane *l, *last = TAILQ_LAST(&sh->woken, lanes);
    for (bool is_last = last == NULL; !is_last && (l = TAILQ_FIRST(&sh->woken)) != NULL;) {
        is_last = l == last;
        TAILQ_REMOVE(&sh->woken, l, woken_link);
        l->wants_wake = false;
        if (!l->is_gone && l->pub.n_ready > 0)
            sh->s->ops->wake(sh->s->ops->ctx, sh->index, &l->pub);
    }
}

static void run_turn(struct hky_shard *sh)
{
    bool is_more;
    struct hky_recipient *r;
    if (sh->timer_at_ms == INT64_MAX)
        set_timer(sh, shard_mono(sh)); /* the first turn: restored ones are due before anything placed now */
    is_more = undecided_ask(sh);
    is_more = empty_gone_lanes(sh) || is_more;
    is_more = ask_parked(sh) || is_more;
    for (unsigned n = 0; n < PLACED_A_TURN && (r = recipients_first(&sh->to_place)) != NULL; n++) {
        survey_leaves(sh, r);
        recipients_remove(&sh->to_place, r);
        recipient_place(sh, r);
        counter_add(&sh->n.moving, -1); /* only now: it is never in nobody's count */
    }
    hand_over_all(sh);
    wake_lanes(sh);
    hand_over_all(sh); /* a take may have found other homes */
    if (is_more || !TAILQ_EMPTY(&sh->to_place) || !TAILQ_EMPTY(&sh->woken))
        hky_loop_post(sh->loop, &sh->again_task); /* connections get their turn in between */
    else
        sh->is_turn_set = false;
}

static void on_turn(struct hky_task *t)
{
    struct turn_task *turn = HKY_CONTAINER(t, struct turn_task, task);
    if (turn->shard == NULL) {
        free(turn);
        return;
    }
    turn->shard->is_turn_deferred = false;
    run_turn(turn->shard);
}

static void on_again(struct hky_task *t)
{
    run_turn(HKY_CONTAINER(t, struct hky_shard, again_task));
}

void shard_fini_turn(struct hky_shard *sh)
{
    if (sh->is_turn_deferred)
        sh->turn->shard = NULL;
    else
        free(sh->turn);
    sh->turn = NULL;
}

/* ---- from other threads ---- */

static void take_inbox(struct hky_shard *sh, bool is_early)
{
    struct recipients in = TAILQ_HEAD_INITIALIZER(in);
    pthread_mutex_lock(&sh->inbox_lock);
    TAILQ_CONCAT(&in, &sh->inbox, link);
    sh->is_inbox_posted = is_early && sh->is_inbox_posted; /* its task comes still, and may find nothing */
    pthread_mutex_unlock(&sh->inbox_lock);
    for (struct hky_recipient *r; (r = recipients_first(&in)) != NULL;) {
        recipients_remove(&in, r);
        recipient_place(sh, r);
        counter_add(&sh->n.moving, -1);
    }
}

static void on_inbox(struct hky_task *t)
{
    take_inbox(HKY_CONTAINER(t, struct hky_shard, inbox_task), false);
}

void shard_settle(struct hky_shard *sh)
{
    take_inbox(sh, true);
    hand_over_all(sh);
}

static void on_recheck(struct hky_task *t)
{
    struct hky_shard *sh = HKY_CONTAINER(t, struct hky_shard, recheck_task);
    __atomic_store_n(&sh->is_recheck_posted, 0, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&sh->is_sweep_due, 0, __ATOMIC_SEQ_CST) != 0)
        shard_sweep_lanes(sh, shard_mono(sh));
    struct lane *l, *next;
    for (l = TAILQ_FIRST(&sh->waiting); l != NULL; l = next) {
        next = TAILQ_NEXT(l, waiting_link);
        shard_wake(sh, l);
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
    shard_retire_lanes(sh);
    sh->n_to_ask = counter_get(&sh->n.parked);
    sh->is_crowded = false;
    shard_turn_later(sh);
}

void shard_init(struct hky_shard *sh, struct hky_schedule *s, unsigned index, struct hky_loop *loop)
{
    sh->s = s;
    sh->index = index;
    sh->loop = loop;
    sh->wall_offset_ms = wall_offset(s);
    sh->policy = hky_policy_ref(s->policy);
    hky_map_init_outside(&sh->lanes);
    hky_map_init(&sh->deferred);
    hky_map_init_outside(&sh->slowed);
    TAILQ_INIT(&sh->all_lanes);
    TAILQ_INIT(&sh->gone_lanes);
    TAILQ_INIT(&sh->woken);
    TAILQ_INIT(&sh->waiting);
    hky_heap_init(&sh->due);
    hky_heap_init(&sh->wakes);
    TAILQ_INIT(&sh->held);
    TAILQ_INIT(&sh->parked);
    TAILQ_INIT(&sh->answered);
    TAILQ_INIT(&sh->to_ask[0]);
    TAILQ_INIT(&sh->to_ask[1]);
    TAILQ_INIT(&sh->to_place);
    TAILQ_INIT(&sh->jobs);
    TAILQ_INIT(&sh->idle_jobs);
    TAILQ_INIT(&sh->inbox);
    pthread_mutex_init(&sh->inbox_lock, NULL);
    sh->out = hky_calloc(s->n_workers, sizeof *sh->out);
    for (unsigned i = 0; i < s->n_workers; i++)
        TAILQ_INIT(&sh->out[i]);
    hky_timer_init(&sh->timer, loop, on_timer);
    sh->timer_at_ms = INT64_MAX;
    sh->turn = hky_calloc(1, sizeof *sh->turn);
    sh->turn->task.run = on_turn;
    sh->turn->shard = sh;
    sh->again_task.run = on_again;
    sh->inbox_task.run = on_inbox;
    sh->recheck_task.run = on_recheck;
    sh->policy_task.run = on_policy;
}
