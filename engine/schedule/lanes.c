/*
 * Lanes: made when the first recipient comes, gone when idle or when a new policy is in force.
 */
#include "internal.h"

#include <stdlib.h>

#define IDLE_MS          (5 * 60 * 1000)
#define IDLE_ROUND_MS    (20 * 1000)
#define SLOWNESS_KEPT_MS (10 * 60 * 1000)
#define KEY_MAX          1024
#define PULL_LOOK        20000 /* recipients of a paused lane looked at in one sweep */
#define PULL_MOVE        512

/* relay \0 account \0 destination; where that is too long, a hash of it, as long as no other key is. */
static struct hky_str lane_key(char buf[KEY_MAX], const char *relay, const char *account, struct hky_str destination)
{
    size_t relay_n = strlen(relay), account_n = strlen(account), n = relay_n + 1 + account_n + 1 + destination.n;
    if (n < KEY_MAX) {
        memcpy(buf, relay, relay_n + 1);
        memcpy(buf + relay_n + 1, account, account_n + 1);
        memcpy(buf + n - destination.n, destination.p, destination.n);
        return hky_str_of(buf, n);
    }
    uint64_t h = hky_hash64(relay, relay_n, hky_hash64(account, account_n, 1));
    h = hky_hash64(destination.p, destination.n, h);
    memset(buf, 0, KEY_MAX);
    memcpy(buf, &h, sizeof h);
    return hky_str_of(buf, KEY_MAX);
}

unsigned lane_home(struct hky_schedule *s, const struct hky_relay *relay, const char *account,
                   struct hky_str destination)
{
    if (s->n_workers == 1)
        return 0;
    char buf[KEY_MAX];
    struct hky_str key = lane_key(buf, relay->name, account, destination);
    return (unsigned)(hky_hash64(key.p, key.n, 0x6c616e65) % s->n_workers);
}

/* ---- what a server said of its rate outlives the lane: a reload makes another one ---- */

static void keep_slowness(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    struct hky_str key = hky_str_of(l->key, l->key_n);
    if (l->n_jobs_max == 0 && l->gap_ms == 0 && l->next_take_ms <= shard_mono(sh))
        return;
    struct slowness *kept = hky_map_get(&sh->slowed, key);
    if (kept == NULL) {
        kept = hky_calloc(1, sizeof *kept);
        hky_map_put(&sh->slowed, key, kept);
    }
    *kept = (struct slowness){l->n_jobs_max, l->gap_ms, l->next_take_ms, shard_mono(sh) + SLOWNESS_KEPT_MS};
}

static void take_slowness(struct lane *l)
{
    struct slowness *kept = hky_map_remove(&l->shard->slowed, hky_str_of(l->key, l->key_n));
    if (kept != NULL) {
        l->n_jobs_max = kept->n_jobs_max;
        l->gap_ms = kept->gap_ms;
        l->next_take_ms = kept->next_take_ms;
        free(kept);
    }
}

static void forget_slowness(struct hky_shard *sh, int64_t now_ms)
{
    size_t at = 0;
    for (struct hky_map_entry *e; sh->slowed.n > 0 && (e = hky_map_next(&sh->slowed, &at)) != NULL;) {
        struct slowness *kept = e->value;
        if (kept->until_ms <= now_ms && kept->next_take_ms <= now_ms) {
            hky_map_remove(&sh->slowed, hky_str_of(e->key, e->n));
            free(kept);
        }
    }
}

static struct lane *lane_new(struct hky_shard *sh, struct hky_str key, const struct hky_relay *relay,
                             const char *account, struct hky_str destination)
{
    struct lane *l = hky_calloc(1, sizeof *l);
    size_t account_n = strlen(account);
    l->shard = sh;
    l->key = hky_alloc(key.n);
    memcpy(l->key, key.p, key.n);
    l->key_n = key.n;
    l->names = hky_alloc(account_n + destination.n + 2);
    memcpy(l->names, account, account_n + 1);
    memcpy(l->names + account_n + 1, destination.p, destination.n);
    l->names[account_n + 1 + destination.n] = '\0';
    l->pub = (struct hky_lane){.relay = relay,
                               .policy = hky_policy_ref(sh->policy),
                               .relay_name = relay->name,
                               .account = l->names,
                               .destination = l->names + account_n + 1,
                               .worker = sh->index};
    l->account = schedule_account(sh->s, sh->policy, relay, account, &l->caps);
    l->gate = relay->is_mx ? &l->own_gate : &l->account->gate;
    lane_queues_init(l);
    take_slowness(l);
    TAILQ_INSERT_TAIL(&sh->all_lanes, l, all_link);
    hky_map_put(&sh->lanes, key, l);
    return l;
}

struct lane *shard_lane(struct hky_shard *sh, const struct hky_relay *relay, const char *account,
                        struct hky_str destination)
{
    char buf[KEY_MAX];
    struct hky_str key = lane_key(buf, relay->name, account, destination);
    struct lane *l = hky_map_get(&sh->lanes, key);
    return l != NULL ? l : lane_new(sh, key, relay, account, destination);
}

void lane_free(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    if (l->is_gone)
        TAILQ_REMOVE(&sh->gone_lanes, l, all_link);
    else
        TAILQ_REMOVE(&sh->all_lanes, l, all_link);
    if (l->wants_wake)
        TAILQ_REMOVE(&sh->woken, l, woken_link);
    if (l->is_waiting)
        TAILQ_REMOVE(&sh->waiting, l, waiting_link);
    hky_heap_remove(&sh->wakes, &l->wake);
    lane_queues_fini(l);
    hky_policy_unref(&l->pub.policy);
    free(l->key);
    free(l->names);
    free(l);
}

/* Only at the end of a turn: deliver may stand in a call with this lane. */
void lane_free_if_over(struct lane *l)
{
    if (l->is_gone && l->n_jobs == 0 && l->pub.n_ready == 0) {
        l->shard->s->ops->lane_gone(l->shard->s->ops->ctx, l->shard->index, &l->pub);
        lane_free(l);
    }
}

static void lane_retire(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    if (!l->is_gone) {
        pthread_mutex_lock(&sh->s->lock);
        l->is_gone = true;
        keep_slowness(l);
        lane_note_trouble(l); /* operators may have it in hand */
        pthread_mutex_unlock(&sh->s->lock);
        TAILQ_REMOVE(&sh->all_lanes, l, all_link);
        TAILQ_INSERT_TAIL(&sh->gone_lanes, l, all_link);
        hky_map_remove(&sh->lanes, hky_str_of(l->key, l->key_n));
    }
}

void shard_retire_lanes(struct hky_shard *sh)
{
    for (struct lane *l; (l = TAILQ_FIRST(&sh->all_lanes)) != NULL;)
        lane_retire(l);
    shard_turn_later(sh);
}

/* The same question to the plan, with the same answer: which steps may be taken depends on the author, too. */
static bool are_alike(const struct hky_recipient *a, const struct hky_recipient *b)
{
    return a->plan == b->plan && a->step == b->step &&
           (a->message == b->message ||
            hky_str_eq(hky_message_fact(a->message, HKY_FACT_AUTHOR), hky_message_fact(b->message, HKY_FACT_AUTHOR)));
}

/* It came here because the relay of its step was drained, which is over, or is drained to another one by now. */
static bool belongs_elsewhere(struct lane *l, const struct hky_recipient *r)
{
    const struct hky_relay *relay = schedule_relay(l->shard->s, l->pub.policy, r->plan->steps[r->step].relay);
    return relay != NULL && relay != l->pub.relay;
}

/* What a paused lane holds goes on to relays that can take it now: they pull, nothing is pushed. */
static void lane_pull(struct lane *l)
{
    unsigned looked = 0, moved = 0;
    const struct hky_recipient *stays = NULL; /* its plan and step are known to have no other way for its author */
    for (int k = 0; k < HKY_RANK_N; k++) {
        struct scenario_queue *q = TAILQ_FIRST(&l->ranks[k].turn), *q_next;
        for (; q != NULL; q = q_next) {
            q_next = TAILQ_NEXT(q, link);
            struct hky_recipient *r = recipients_first(&q->recipients), *next;
            for (; r != NULL && looked < PULL_LOOK && moved < PULL_MOVE; r = next, looked++) {
                next = recipients_next(r);
                if (stays != NULL && are_alike(r, stays))
                    continue;
                if (belongs_elsewhere(l, r)) {
                    recipient_unplace(l->shard, r);
                    recipient_place_later(l->shard, r);
                    moved++;
                    if (next == NULL)
                        break;
                } else if (recipient_leave_step(l->shard, r, HKY_CLASS_PAUSED)) {
                    moved++;
                    if (next == NULL)
                        break; /* q may be gone with its last one */
                } else {
                    stays = r;
                }
            }
        }
    }
    if (moved > 0)
        shard_turn_later(l->shard);
}

/* Drained lanes and those whose relay has another name now hand everything back for placing. */
static bool is_redirected(struct lane *l)
{
    return __atomic_load_n(&l->shard->s->n_relay_states, __ATOMIC_ACQUIRE) > 0 &&
           schedule_relay(l->shard->s, l->pub.policy, l->pub.relay_name) != l->pub.relay;
}

/* What a breaker of own delivery knows is kept for an hour after it would have let the next one through. */
static bool is_forgettable(struct lane *l, int64_t now_ms)
{
    if (__atomic_load_n(&l->own_gate.is_troubled, __ATOMIC_ACQUIRE) == 0)
        return true;
    pthread_mutex_lock(&l->shard->s->lock);
    int64_t until_ms = gate_until_ms(&l->own_gate);
    pthread_mutex_unlock(&l->shard->s->lock);
    return until_ms + 12 * IDLE_MS <= now_ms;
}

void shard_sweep_lanes(struct hky_shard *sh, int64_t now_ms)
{
    struct lane *l, *next;
    bool is_idle_round = now_ms >= sh->next_idle_round_ms;
    for (l = TAILQ_FIRST(&sh->all_lanes); l != NULL; l = next) {
        next = TAILQ_NEXT(l, all_link);
        int64_t until_ms;
        if (l->pub.n_ready > 0 && is_redirected(l)) {
            lane_retire(l);
            shard_turn_later(sh);
        } else if (l->pub.n_ready > 0 && lane_is_paused(l, &until_ms)) {
            lane_pull(l);
        } else if (is_idle_round && l->pub.n_ready == 0 && l->n_jobs == 0 && is_forgettable(l, now_ms)) {
            if (l->idle_since_ms == 0) {
                l->idle_since_ms = now_ms;
            } else if (now_ms - l->idle_since_ms >= IDLE_MS) {
                lane_retire(l);
                shard_turn_later(sh);
            }
        }
    }
    if (is_idle_round) {
        forget_slowness(sh, now_ms);
        sh->next_idle_round_ms = now_ms + IDLE_ROUND_MS;
    }
}
