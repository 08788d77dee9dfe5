/*
 * Accounts and relays as all workers share them: which relay a step uses now, and whether it may send.
 */
#include "internal.h"

#include <stdlib.h>

struct account *schedule_account_open(struct hky_schedule *s, const struct hky_policy *policy,
                                      const struct hky_relay *relay, const char *key)
{
    struct account *a = hky_map_get(&s->accounts, hky_str_z(key));
    if (a == NULL) {
        a = hky_calloc(1, sizeof *a);
        a->key = hky_strdup(key);
        hky_map_put(&s->accounts, hky_str_z(key), a);
    }
    /* A shard may still use the policy before this one, and its lanes have caps, too. The caps of the new policy come
     * with the first lane under it. */
    bool is_current = policy == s->policy;
    if (a->caps == NULL || (is_current && a->caps_of != s->n_policies)) {
        a->caps_of = is_current ? s->n_policies : 0;
        a->caps = schedule_caps_set(s->caps, relay, key);
    }
    return a;
}

struct account *schedule_account(struct hky_schedule *s, const struct hky_policy *policy, const struct hky_relay *relay,
                                 const char *account, struct caps_account **caps)
{
    pthread_mutex_lock(&s->lock);
    struct account *a = schedule_account_open(s, policy, relay, account);
    if (caps != NULL)
        *caps = a->caps;
    pthread_mutex_unlock(&s->lock);
    return a;
}

struct relay_state *schedule_relay_state(struct hky_schedule *s, const char *name)
{
    int64_t now_ms = schedule_mono(s);
    struct relay_state *st = hky_map_get(&s->relays, hky_str_z(name));
    if (st != NULL && st->is_paused && st->paused_until_ms != 0 && st->paused_until_ms <= now_ms)
        st->is_paused = false;
    if (st != NULL && st->drained_to != NULL && st->drained_until_ms != 0 && st->drained_until_ms <= now_ms) {
        free(st->drained_to);
        st->drained_to = NULL;
    }
    return st;
}

static const struct hky_relay *drained_to(struct hky_schedule *s, const struct hky_policy *policy,
                                          const struct hky_relay *relay)
{
    if (__atomic_load_n(&s->n_relay_states, __ATOMIC_ACQUIRE) == 0)
        return relay;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; relay != NULL && i < RELAYS_FOLLOWED_MAX; i++) {
        struct relay_state *st = schedule_relay_state(s, relay->name);
        if (st == NULL || st->drained_to == NULL)
            break;
        const struct hky_relay *to = schedule_plan_relay(policy, st->drained_to);
        if (to == NULL)
            break; /* the policy no longer has that relay: its mail is sent through the drained relay rather than
                      nowhere */
        relay = to;
    }
    pthread_mutex_unlock(&s->lock);
    return relay;
}

const struct hky_relay *schedule_relay(struct hky_schedule *s, const struct hky_policy *policy, const char *name)
{
    const struct hky_relay *relay = hky_policy_relay(policy, hky_str_z(name));
    if (relay == NULL)
        return NULL;
    const struct hky_relay *to = drained_to(s, policy, relay);
    if (to != relay)
        return to;
    to = schedule_plan_relay(policy, name);
    return to == relay || to == NULL ? to : drained_to(s, policy, to);
}

bool schedule_is_paused(struct hky_schedule *s, const struct hky_relay *relay, int64_t *until_ms)
{
    *until_ms = INT64_MAX;
    if (relay->is_paused)
        return true;
    if (__atomic_load_n(&s->n_relay_states, __ATOMIC_ACQUIRE) == 0)
        return false;
    pthread_mutex_lock(&s->lock);
    struct relay_state *st = schedule_relay_state(s, relay->name);
    bool is_paused = st != NULL && st->is_paused;
    if (is_paused && st->paused_until_ms != 0)
        *until_ms = st->paused_until_ms;
    pthread_mutex_unlock(&s->lock);
    return is_paused;
}

bool schedule_lane_is_paused(struct lane *l, int64_t *until_ms)
{
    struct hky_schedule *s = l->shard->s;
    if (schedule_is_paused(s, l->pub.relay, until_ms))
        return true;
    if (__atomic_load_n(&l->gate->must_ask, __ATOMIC_ACQUIRE) == 0)
        return false;
    pthread_mutex_lock(&s->lock);
    enum gate_answer answer = schedule_gate_ask(l->gate, schedule_mono(s), false, until_ms);
    pthread_mutex_unlock(&s->lock);
    return answer == GATE_WAIT;
}

void schedule_lane_update_blocked(struct lane *l)
{
    struct hky_schedule *s = l->shard->s;
    bool is_blocked = l->gate == &l->own_gate && l->own_gate.is_announced && !l->is_retired;
    if (is_blocked && !l->is_blocked)
        TAILQ_INSERT_TAIL(&s->blocked, l, blocked_link);
    else if (!is_blocked && l->is_blocked)
        TAILQ_REMOVE(&s->blocked, l, blocked_link);
    l->is_blocked = is_blocked;
}

void schedule_add_relays_of(const struct hky_policy *policy, const char *account, struct hky_map *out)
{
    for (uint32_t i = 0; i < policy->n_relays; i++)
        if (strcmp(policy->relays[i].account, account) == 0)
            hky_map_put(out, hky_str_z(policy->relays[i].name), out);
}
