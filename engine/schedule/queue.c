/*
 * Which recipient of a lane goes first: one of the highest rank, but every tenth time one of a lower rank. Within a
 * rank the scenarios take turns.
 */
#include "internal.h"

#include <stdlib.h>

#define LOWER_RANK_EVERY 10 /* one of so many takes is for lower ranks */
#define SCENARIOS_KEPT   64 /* empty queues are freed when a rank has more */

void schedule_lane_queues_init(struct lane *l)
{
    for (int k = 0; k < HKY_RANK_N; k++) {
        TAILQ_INIT(&l->ranks[k].rotation);
        hky_map_init_untrusted(&l->ranks[k].scenarios);
    }
}

void schedule_lane_queues_fini(struct lane *l)
{
    for (int k = 0; k < HKY_RANK_N; k++) {
        size_t at = 0;
        for (struct hky_map_entry *e; (e = hky_map_next(&l->ranks[k].scenarios, &at)) != NULL;) {
            struct scenario_queue *q = e->value;
            free(q->name);
            free(q);
        }
        hky_map_fini(&l->ranks[k].scenarios);
    }
}

static struct scenario_queue *rank_scenario(struct rank_queue *rank, struct hky_str name)
{
    if (rank->last != NULL && hky_str_eq(hky_str_z(rank->last->name), name))
        return rank->last;
    struct scenario_queue *q = hky_map_get(&rank->scenarios, name);
    if (q == NULL) {
        q = hky_calloc(1, sizeof *q);
        q->name = hky_str_dup(name);
        TAILQ_INIT(&q->recipients);
        hky_map_put(&rank->scenarios, name, q);
    }
    rank->last = q;
    return q;
}

static struct scenario_queue *queue_of(struct lane *l, const struct hky_recipient *r, struct rank_queue **rank)
{
    *rank = &l->ranks[hky_recipient_rank(r)];
    return rank_scenario(*rank, hky_message_fact(r->message, HKY_FACT_SCENARIO));
}

void schedule_lane_push(struct lane *l, struct hky_recipient *r, bool at_front)
{
    struct rank_queue *rank;
    struct scenario_queue *q = queue_of(l, r, &rank);
    if (at_front)
        recipients_prepend(&q->recipients, r);
    else
        recipients_append(&q->recipients, r);
    if (!q->is_in_rotation) {
        q->is_in_rotation = true;
        TAILQ_INSERT_TAIL(&rank->rotation, q, link);
    }
    own(r)->lane = l;
    rank->n++;
    l->pub.n_ready++;
    l->idle_since_ms = 0;
    counter_add(&l->account->n_queued, 1);
    counter_add(&l->shard->n.queued, 1);
}

void schedule_lane_remove(struct lane *l, struct hky_recipient *r)
{
    struct rank_queue *rank;
    struct scenario_queue *q = queue_of(l, r, &rank);
    recipients_remove(&q->recipients, r);
    if (TAILQ_EMPTY(&q->recipients)) {
        q->is_in_rotation = false;
        TAILQ_REMOVE(&rank->rotation, q, link);
        if (rank->scenarios.n > SCENARIOS_KEPT) {
            rank->last = NULL;
            hky_map_remove(&rank->scenarios, hky_str_z(q->name));
            free(q->name);
            free(q);
        }
    }
    own(r)->lane = NULL;
    rank->n--;
    l->pub.n_ready--;
    counter_add(&l->account->n_queued, -1);
    counter_add(&l->shard->n.queued, -1);
}

static struct hky_recipient *rank_first(struct rank_queue *rank)
{
    struct scenario_queue *q = TAILQ_FIRST(&rank->rotation);
    return q != NULL ? recipients_first(&q->recipients) : NULL;
}

struct hky_recipient *schedule_lane_peek(struct lane *l)
{
    bool is_for_others = l->n_takes % LOWER_RANK_EVERY == LOWER_RANK_EVERY - 1;
    struct hky_recipient *best = NULL;
    unsigned n_lower = 0;
    for (int k = 0; k < HKY_RANK_N; k++) {
        struct hky_recipient *r = rank_first(&l->ranks[k]);
        if (r == NULL)
            continue;
        if (best == NULL) {
            best = r;
            if (!is_for_others)
                return best;
            continue;
        }
        /* two lower ranks share these takes */
        if (n_lower++ == 0 || (l->n_takes / LOWER_RANK_EVERY) % 2 == 1)
            best = r;
    }
    return best;
}

struct hky_recipient *schedule_lane_peer(struct hky_recipient *r)
{
    struct hky_recipient *next = recipients_next(r);
    return next != NULL && next->message == r->message ? next : NULL;
}

void schedule_lane_rotate(struct lane *l, struct hky_recipient *r)
{
    struct rank_queue *rank;
    struct scenario_queue *q = queue_of(l, r, &rank);
    l->n_takes++;
    if (TAILQ_NEXT(q, link) != NULL) {
        TAILQ_REMOVE(&rank->rotation, q, link);
        TAILQ_INSERT_TAIL(&rank->rotation, q, link);
    }
}

struct hky_recipient *schedule_lane_any(struct lane *l)
{
    struct hky_recipient *r = NULL;
    for (int k = 0; k < HKY_RANK_N && r == NULL; k++)
        r = rank_first(&l->ranks[k]);
    return r;
}
