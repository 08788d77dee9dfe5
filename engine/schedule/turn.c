/*
 * The work at the end of a turn of the loop: the policy is asked about recipients that wait for it, recipients whose
 * time has come are dispatched, those that belong to other workers are handed over, and lanes with mail are woken. All
 * of it is done in portions, between which connections get their turn.
 */
#include "internal.h"

#include <stdlib.h>

#define DISPATCHED_A_TURN 256
#define ASKED_A_TURN      256

/* A recipient whose plan has only become too old goes back to the head of its lane. Behind the others its plan would be
 * too old again when its turn comes, and it would never be sent. */
static void ask(struct hky_shard *sh, struct hky_recipient *r)
{
    counter_add(&sh->n.moving, 1); /* it stays counted somewhere */
    schedule_undecided_begin_asking(sh, r);
    /* a reload may have brought back the policy that had planned it */
    if (!schedule_recipient_has_stale_plan(sh, r, schedule_shard_now(sh)))
        schedule_undecided_drop_decision(sh, r);
    sh->goes_to_head = r->plan != NULL && r->policy == (uint32_t)sh->policy->hash;
    schedule_recipient_dispatch(sh, r);
    sh->goes_to_head = false;
    counter_add(&sh->n.moving, -1);
}

/* Asks about as many as this turn has time for. True: there are more. */
static bool ask_undecided(struct hky_shard *sh)
{
    struct hky_recipient *r;
    sh->asked_ns = 0;
    sh->is_asking = true;
    for (unsigned n = 0;
         n < ASKED_A_TURN && !schedule_shard_is_policy_time_over(sh) && (r = schedule_undecided_next(sh)) != NULL; n++)
        ask(sh, r);
    sh->is_asking = false;
    return schedule_undecided_next(sh) != NULL;
}

/* ---- parts of a turn ---- */

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

/* The mail of retired lanes is dispatched again, in portions. True: there is more. */
static bool empty_retired_lanes(struct hky_shard *sh)
{
    unsigned moved = 0;
    struct lane *l, *next;
    for (l = TAILQ_FIRST(&sh->retired_lanes); l != NULL && moved < DISPATCHED_A_TURN; l = next) {
        next = TAILQ_NEXT(l, all_link);
        for (struct hky_recipient *r; moved < DISPATCHED_A_TURN && (r = schedule_lane_any(l)) != NULL; moved++) {
            schedule_recipient_take_out(sh, r);
            schedule_recipient_list_for_dispatch(sh, r);
        }
        moved += l->n_jobs == 0; /* freeing a lane is work, too */
        schedule_lane_free_if_over(l);
    }
    return moved >= DISPATCHED_A_TURN;
}

/* Parked recipients wait for a better policy, so it is asked about them soon after a reload. Those that are parked
 * again go to the end of the list. True: there are more. */
static bool ask_parked(struct hky_shard *sh)
{
    struct hky_recipient *r;
    for (unsigned n = 0; n < DISPATCHED_A_TURN && sh->n_to_ask > 0; n++, sh->n_to_ask--) {
        if ((r = recipients_first(&sh->parked)) == NULL) {
            sh->n_to_ask = 0;
            break;
        }
        schedule_recipient_redispatch(sh, r);
    }
    return sh->n_to_ask > 0;
}

/* Has deliver something to do with the lane? A retired one is woken only for jobs that wait for slots, and when its
 * mail has been moved, so that nobody takes it for a lane with mail. */
static bool is_wake_due(const struct lane *l)
{
    return l->is_retired ? l->n_waiting_jobs > 0 && l->pub.n_ready == 0 : l->n_waiting_jobs + l->pub.n_ready > 0;
}

/* Only those that are in the list now: a wake may lead to another one of the same lane, which is for the next turn. */
static void wake_lanes(struct hky_shard *sh)
{
    struct lane *l, *last = TAILQ_LAST(&sh->woken, lanes);
    for (bool is_last = last == NULL; !is_last && (l = TAILQ_FIRST(&sh->woken)) != NULL;) {
        is_last = l == last;
        TAILQ_REMOVE(&sh->woken, l, woken_link);
        l->wants_wake = false;
        if (is_wake_due(l))
            sh->s->ops->wake(sh->s->ops->ctx, sh->index, &l->pub);
        else if (l->is_retired && l->n_waiting_jobs > 0)
            schedule_shard_wake(sh, l); /* its mail is still being moved */
    }
}

static void run_turn(struct hky_shard *sh)
{
    bool is_more;
    struct hky_recipient *r;
    if (sh->timer_at_ms == INT64_MAX) /* the first turn: restored ones are due before anything is dispatched now */
        schedule_shard_set_timer(sh, schedule_shard_mono(sh));
    is_more = ask_undecided(sh);
    is_more = empty_retired_lanes(sh) || is_more;
    is_more = ask_parked(sh) || is_more;
    for (unsigned n = 0; n < DISPATCHED_A_TURN && (r = recipients_first(&sh->to_dispatch)) != NULL; n++) {
        schedule_survey_on_leave(sh, r);
        recipients_remove(&sh->to_dispatch, r);
        schedule_recipient_dispatch(sh, r);
        counter_add(&sh->n.moving, -1); /* only now, so that it is always counted somewhere */
    }
    hand_over_all(sh);
    wake_lanes(sh);
    hand_over_all(sh); /* while taking, a recipient may have been found to belong to another worker */
    if (is_more || !TAILQ_EMPTY(&sh->to_dispatch) || !TAILQ_EMPTY(&sh->woken))
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

/* ---- from other workers ---- */

static void take_inbox(struct hky_shard *sh, bool is_early)
{
    struct recipients in = TAILQ_HEAD_INITIALIZER(in);
    pthread_mutex_lock(&sh->inbox_lock);
    TAILQ_CONCAT(&in, &sh->inbox, link);
    sh->is_inbox_posted = is_early && sh->is_inbox_posted; /* its task is still to run, and may find nothing */
    pthread_mutex_unlock(&sh->inbox_lock);
    for (struct hky_recipient *r; (r = recipients_first(&in)) != NULL;) {
        recipients_remove(&in, r);
        schedule_recipient_dispatch(sh, r);
        counter_add(&sh->n.moving, -1);
    }
}

static void on_inbox(struct hky_task *t)
{
    take_inbox(HKY_CONTAINER(t, struct hky_shard, inbox_task), false);
}

void schedule_shard_settle(struct hky_shard *sh)
{
    take_inbox(sh, true);
    hand_over_all(sh);
}

void schedule_shard_init_turn(struct hky_shard *sh)
{
    sh->turn = hky_calloc(1, sizeof *sh->turn);
    sh->turn->task.run = on_turn;
    sh->turn->shard = sh;
    sh->again_task.run = on_again;
    sh->inbox_task.run = on_inbox;
}

void schedule_shard_fini_turn(struct hky_shard *sh)
{
    if (sh->is_turn_deferred)
        sh->turn->shard = NULL;
    else
        free(sh->turn);
    sh->turn = NULL;
}
