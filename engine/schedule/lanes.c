/*
 * Lanes. A lane is made when its first recipient comes, and retired when it is idle or a new policy is in force.
 */
#include "internal.h"

#include <stdlib.h>

#define SLOWNESS_KEPT_MS (10 * 60 * 1000)
#define KEY_MAX          1024

/* relay \0 account \0 destination. Where that is too long, it is a hash in KEY_MAX octets, as long as no other key. */
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

unsigned schedule_lane_home(struct hky_schedule *s, const struct hky_relay *relay, const char *account,
                            struct hky_str destination)
{
    if (s->n_workers == 1)
        return 0;
    char buf[KEY_MAX];
    struct hky_str key = lane_key(buf, relay->name, account, destination);
    return (unsigned)(hky_hash64(key.p, key.n, 0x6c616e65) % s->n_workers);
}

/* ---- a rate limit outlives its lane, because a reload makes another lane ---- */

static void keep_slowness(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    struct hky_str key = hky_str_of(l->key, l->key_n);
    if (l->n_jobs_max == 0 && l->gap_ms == 0 && l->next_take_ms <= schedule_shard_mono(sh))
        return;
    struct slowness *kept = hky_map_get(&sh->slowed, key);
    if (kept == NULL) {
        kept = hky_calloc(1, sizeof *kept);
        hky_map_put(&sh->slowed, key, kept);
    }
    *kept = (struct slowness){l->n_jobs_max, l->gap_ms, l->next_take_ms, schedule_shard_mono(sh) + SLOWNESS_KEPT_MS};
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

void schedule_shard_forget_slowness(struct hky_shard *sh, int64_t now_ms)
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
    schedule_lane_queues_init(l);
    take_slowness(l);
    TAILQ_INSERT_TAIL(&sh->all_lanes, l, all_link);
    hky_map_put(&sh->lanes, key, l);
    return l;
}

struct lane *schedule_shard_lane(struct hky_shard *sh, const struct hky_relay *relay, const char *account,
                                 struct hky_str destination)
{
    char buf[KEY_MAX];
    struct hky_str key = lane_key(buf, relay->name, account, destination);
    struct lane *l = hky_map_get(&sh->lanes, key);
    return l != NULL ? l : lane_new(sh, key, relay, account, destination);
}

void schedule_lane_free(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    if (l->is_retired)
        TAILQ_REMOVE(&sh->retired_lanes, l, all_link);
    else
        TAILQ_REMOVE(&sh->all_lanes, l, all_link);
    if (l->wants_wake)
        TAILQ_REMOVE(&sh->woken, l, woken_link);
    if (l->is_waiting)
        TAILQ_REMOVE(&sh->waiting, l, waiting_link);
    hky_heap_remove(&sh->wakes, &l->wake);
    schedule_lane_queues_fini(l);
    hky_policy_unref(&l->pub.policy);
    free(l->key);
    free(l->names);
    free(l);
}

/* Call it at the end of a turn only: before that deliver may be inside a call with this lane. */
void schedule_lane_free_if_over(struct lane *l)
{
    if (l->is_retired && l->n_jobs == 0 && l->pub.n_ready == 0) {
        l->shard->s->ops->lane_end(l->shard->s->ops->ctx, l->shard->index, &l->pub);
        schedule_lane_free(l);
    }
}

void schedule_lane_retire(struct lane *l)
{
    struct hky_shard *sh = l->shard;
    if (!l->is_retired) {
        pthread_mutex_lock(&sh->s->lock);
        l->is_retired = true;
        keep_slowness(l);
        schedule_lane_update_blocked(l); /* operators must not find it any more */
        pthread_mutex_unlock(&sh->s->lock);
        TAILQ_REMOVE(&sh->all_lanes, l, all_link);
        TAILQ_INSERT_TAIL(&sh->retired_lanes, l, all_link);
        hky_map_remove(&sh->lanes, hky_str_of(l->key, l->key_n));
    }
}

void schedule_shard_retire_lanes(struct hky_shard *sh)
{
    for (struct lane *l; (l = TAILQ_FIRST(&sh->all_lanes)) != NULL;)
        schedule_lane_retire(l);
    schedule_shard_request_turn(sh);
}
