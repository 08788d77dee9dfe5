/*
 * Accounts and relays as all workers share them, and what operators say of them.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define BROKEN_SHOWN 5

struct account *schedule_account(struct hky_schedule *s, const struct hky_policy *policy, const struct hky_relay *relay,
                                 const char *account, struct caps_account **caps)
{
    pthread_mutex_lock(&s->lock);
    struct account *a = hky_map_get(&s->accounts, hky_str_z(account));
    if (a == NULL) {
        a = hky_calloc(1, sizeof *a);
        a->key = hky_strdup(account);
        hky_map_put(&s->accounts, hky_str_z(account), a);
    }
    /* A shard may still be under the policy before: its lanes have caps, too; those of the new one come with the first
     * lane under it. */
    bool is_current = policy == s->policy;
    if (a->caps == NULL || (is_current && a->caps_of != s->n_policies)) {
        a->caps_of = is_current ? s->n_policies : 0;
        a->caps = caps_set(s->caps, relay, account);
    }
    if (caps != NULL) {
        *caps = a->caps;
    }
    pthread_mutex_unlock(&s->lock);
    return a;
}

/* With the lock held. What was said for a time is forgotten when the time is over. */
static struct relay_state *state_get(struct hky_schedule *s, const char *name, int64_t now_ms)
{
    struct relay_state *st = hky_map_get(&s->relays, hky_str_z(name));
    if (st != NULL && st->is_paused && st->paused_until_ms != 0 && st->paused_until_ms <= now_ms) {
        st->is_paused = false;
    }
    if (st != NULL && st->drained_to != NULL && st->drained_until_ms != 0 && st->drained_until_ms <= now_ms) {
        free(st->drained_to);
        st->drained_to = NULL;
    }
    return st;
}

static const struct hky_relay *drained_to(struct hky_schedule *s, const struct hky_policy *policy,
                                          const struct hky_relay *relay, int64_t now_ms)
{
    if (__atomic_load_n(&s->n_relay_states, __ATOMIC_ACQUIRE) == 0) {
        return relay;
    }
    pthread_mutex_lock(&s->lock);
    for (int i = 0; relay != NULL && i < RELAYS_FOLLOWED_MAX; i++) {
        struct relay_state *st = state_get(s, relay->name, now_ms);
        if (st == NULL || st->drained_to == NULL) {
            break;
        }
        const struct hky_relay *to = plan_relay(policy, st->drained_to);
        if (to == NULL) {
            break; /* the policy no longer has it: better the relay itself than none */
        }
        relay = to;
    }
    pthread_mutex_unlock(&s->lock);
    return relay;
}

const struct hky_relay *schedule_relay(struct hky_schedule *s, const struct hky_policy *policy, const char *name,
                                       int64_t now_ms)
{
    const struct hky_relay *relay = hky_policy_relay(policy, hky_str_z(name));
    if (relay == NULL) {
        return NULL;
    }
    const struct hky_relay *to = drained_to(s, policy, relay, now_ms);
    if (to != relay) {
        return to;
    }
    to = plan_relay(policy, name);
    return to == relay || to == NULL ? to : drained_to(s, policy, to, now_ms);
}

bool schedule_is_paused(struct hky_schedule *s, const struct hky_relay *relay, int64_t now_ms, int64_t *until_ms)
{
    *until_ms = INT64_MAX;
    if (relay->is_paused) {
        return true;
    }
    if (__atomic_load_n(&s->n_relay_states, __ATOMIC_ACQUIRE) == 0) {
        return false;
    }
    pthread_mutex_lock(&s->lock);
    struct relay_state *st = state_get(s, relay->name, now_ms);
    bool is_paused = st != NULL && st->is_paused;
    if (is_paused && st->paused_until_ms != 0) {
        *until_ms = st->paused_until_ms;
    }
    pthread_mutex_unlock(&s->lock);
    return is_paused;
}

bool lane_is_paused(struct lane *l, int64_t now_ms, int64_t *until_ms)
{
    struct hky_schedule *s = l->shard->s;
    if (schedule_is_paused(s, l->pub.relay, now_ms, until_ms)) {
        return true;
    }
    if (__atomic_load_n(&l->gate->is_troubled, __ATOMIC_ACQUIRE) == 0) {
        return false;
    }
    pthread_mutex_lock(&s->lock);
    enum gate_answer answer = gate_ask(l->gate, now_ms, false, until_ms);
    pthread_mutex_unlock(&s->lock);
    return answer == GATE_WAIT;
}

void lane_note_trouble(struct lane *l)
{
    struct hky_schedule *s = l->shard->s;
    bool is_troubled = l->gate == &l->own_gate && l->own_gate.is_announced && !l->is_gone;
    if (is_troubled && !l->is_troubled) {
        TAILQ_INSERT_TAIL(&s->troubled, l, troubled_link);
    } else if (!is_troubled && l->is_troubled) {
        TAILQ_REMOVE(&s->troubled, l, troubled_link);
    }
    l->is_troubled = is_troubled;
}

/* ---- operators ---- */

static enum hky_err state_open(struct hky_schedule *s, const char *relay, struct relay_state **out, struct hky_error *e)
{
    *out = hky_map_get(&s->relays, hky_str_z(relay));
    if (hky_policy_relay(s->policy, hky_str_z(relay)) == NULL) {
        return hky_error_set(e, HKY_E_MISSING, "no relay \"%s\" in the policy", relay);
    }
    if (*out == NULL) {
        *out = hky_calloc(1, sizeof **out);
        (*out)->name = hky_strdup(relay);
        hky_map_put(&s->relays, hky_str_z(relay), *out);
        __atomic_add_fetch(&s->n_relay_states, 1, __ATOMIC_RELEASE);
    }
    return HKY_OK;
}

static void tell_operator(struct hky_schedule *s, enum hky_event_kind kind, const char *relay, int64_t until_ms,
                          const char *to)
{
    struct hky_event ev = {.kind = kind,
                           .at_ms = hky_clock_now_ms(s->clock),
                           .relay = relay,
                           .next_at_ms = until_ms,
                           .to = to,
                           .text = "by an operator"};
    s->ops->event(s->ops->ctx, HKY_RECORD_OTHER, &ev);
}

static int64_t until(struct hky_schedule *s, uint32_t for_sec)
{
    return for_sec == 0 ? 0 : hky_clock_now_ms(s->clock) + (int64_t)for_sec * 1000;
}

enum hky_err hky_schedule_pause(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e)
{
    struct relay_state *st;
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e);
    if (err == HKY_OK) {
        st->is_paused = true;
        st->paused_until_ms = until(s, for_sec);
    }
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        tell_operator(s, HKY_EVENT_RELAY_PAUSED, relay, until(s, for_sec), NULL);
        schedule_recheck(s, true);
    }
    return err;
}

enum hky_err hky_schedule_resume(struct hky_schedule *s, const char *relay, struct hky_error *e)
{
    struct relay_state *st;
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e);
    if (err == HKY_OK) {
        st->is_paused = false;
        free(st->drained_to);
        st->drained_to = NULL;
        const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(relay));
        struct account *a = hky_map_get(&s->accounts, hky_str_z(r->account));
        if (a != NULL) {
            gate_resume(&a->gate);
        }
        struct lane *l, *next;
        for (l = TAILQ_FIRST(&s->troubled); l != NULL; l = next) {
            next = TAILQ_NEXT(l, troubled_link);
            if (strcmp(l->pub.relay_name, relay) == 0) {
                gate_resume(&l->own_gate);
                lane_note_trouble(l);
            }
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        tell_operator(s, HKY_EVENT_RELAY_RESUMED, relay, 0, NULL);
        schedule_recheck(s, true);
    }
    return err;
}

enum hky_err hky_schedule_use_up(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e)
{
    const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(relay));
    struct caps_account *caps = NULL;
    if (r == NULL) {
        return hky_error_set(e, HKY_E_MISSING, "no relay \"%s\" in the policy", relay);
    }
    schedule_account(s, s->policy, r, r->account, &caps);
    if (caps == NULL) {
        return hky_error_set(e, HKY_E_STATE, "relay \"%s\" has no cap, so it is never full", relay);
    }
    caps_use_up(s->caps, caps, hky_clock_now_ms(s->clock) + (int64_t)for_sec * 1000);
    schedule_recheck(s, true);
    return HKY_OK;
}

static bool leads_back(struct hky_schedule *s, const char *relay, const char *to, int64_t now_ms)
{
    for (int i = 0; i < RELAYS_FOLLOWED_MAX && to != NULL; i++) {
        if (strcmp(relay, to) == 0) {
            return true;
        }
        struct relay_state *st = state_get(s, to, now_ms);
        const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(to));
        to = st != NULL && st->drained_to != NULL                       ? st->drained_to
             : r != NULL && r->instead != NULL && r->instead[0] != '\0' ? r->instead
                                                                        : NULL;
    }
    return to != NULL;
}

enum hky_err hky_schedule_drain_relay(struct hky_schedule *s, const char *relay, const char *to, uint32_t for_sec,
                                      struct hky_error *e)
{
    struct relay_state *st;
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e);
    if (err == HKY_OK && hky_policy_relay(s->policy, hky_str_z(to)) == NULL) {
        err = hky_error_set(e, HKY_E_MISSING, "no relay \"%s\" in the policy to drain to", to);
    }
    if (err == HKY_OK && leads_back(s, relay, to, hky_clock_now_ms(s->clock))) {
        err = hky_error_set(e, HKY_E_CONFIG, "\"%s\" leads back to \"%s\"; resume that one first", to, relay);
    }
    if (err == HKY_OK) {
        free(st->drained_to);
        st->drained_to = hky_strdup(to);
        st->drained_until_ms = until(s, for_sec);
    }
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        tell_operator(s, HKY_EVENT_RELAY_DRAINED, relay, until(s, for_sec), to);
        schedule_recheck(s, true);
    }
    return err;
}

static const char *state_name(const struct hky_relay *relay, const struct relay_state *st, const struct account *a,
                              int64_t now_ms, int64_t *until_ms)
{
    *until_ms = 0;
    if (st != NULL && st->drained_to != NULL) {
        *until_ms = st->drained_until_ms;
        return "drained";
    }
    if (relay->instead != NULL && relay->instead[0] != '\0') {
        return "drained";
    }
    if (relay->is_paused || (st != NULL && st->is_paused)) {
        *until_ms = relay->is_paused ? 0 : st->paused_until_ms;
        return "paused";
    }
    if (a != NULL && a->gate.paused_until_ms > now_ms) {
        *until_ms = a->gate.paused_until_ms;
        return "paused";
    }
    if (a != NULL && a->gate.breaker != BREAKER_CLOSED) {
        *until_ms = a->gate.open_until_ms;
        return a->gate.breaker == BREAKER_OPEN ? "broken" : "probing";
    }
    return "ok";
}

/* Destinations of own delivery that cannot be sent to for now: how many, and the first few. */
static uint32_t broken_domains(struct hky_schedule *s, const struct hky_relay *relay, const struct lane *some[])
{
    uint32_t n = 0;
    const struct lane *l;
    TAILQ_FOREACH (l, &s->troubled, troubled_link) {
        if (strcmp(l->pub.relay_name, relay->name) == 0) {
            if (n < BROKEN_SHOWN) {
                some[n] = l;
            }
            n++;
        }
    }
    return n;
}

static void broken_json(const struct lane *const some[], uint32_t n, struct hky_buf *out)
{
    hky_buf_printf(out, ",\"broken\":{\"n\":%u,\"domains\":[", n);
    for (uint32_t i = 0; i < n && i < BROKEN_SHOWN; i++) {
        if (i > 0) {
            hky_buf_add_c(out, ',');
        }
        hky_buf_add_json(out, hky_str_z(some[i]->pub.destination));
    }
    hky_buf_add_z(out, "]}");
}

static void broken_text(const struct lane *const some[], uint32_t n, char *out, size_t out_n)
{
    size_t at = (size_t)snprintf(out, out_n, "%u domain%s: ", n, n == 1 ? " waits" : "s wait");
    for (uint32_t i = 0; i < n && i < BROKEN_SHOWN && at < out_n; i++) {
        at += (size_t)snprintf(out + at, out_n - at, "%s%s", i > 0 ? ", " : "", some[i]->pub.destination);
    }
    if (n > BROKEN_SHOWN && at < out_n) {
        snprintf(out + at, out_n - at, ", ...");
    }
}

/* Recipients that wait for their next attempt, with this relay as their step. */
static uint32_t n_deferred(const struct hky_schedule *s, const struct hky_relay *relay)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < s->n_workers; i++) {
        const uint32_t *n = hky_map_get(&s->shards[i].deferred, hky_str_z(relay->name));
        sum += n != NULL ? counter_get(n) : 0;
    }
    return sum;
}

static void relay_json(struct hky_schedule *s, const struct hky_relay *relay, int64_t now_ms, struct hky_buf *out)
{
    struct relay_state *st = state_get(s, relay->name, now_ms);
    const struct account *a = hky_map_get(&s->accounts, hky_str_z(relay->account));
    int64_t until_ms;
    const char *state = state_name(relay, st, a, now_ms, &until_ms);
    const char *to = st != NULL && st->drained_to != NULL ? st->drained_to : relay->instead;
    hky_buf_add_z(out, "{\"relay\":");
    hky_buf_add_json(out, hky_str_z(relay->name));
    hky_buf_add_z(out, ",\"account\":");
    hky_buf_add_json(out, hky_str_z(relay->account));
    hky_buf_printf(out, ",\"state\":\"%s\",\"until\":%lld,\"to\":", state, (long long)(until_ms / 1000));
    hky_buf_add_json(out, hky_str_z(strcmp(state, "drained") == 0 ? to : ""));
    const struct lane *some[BROKEN_SHOWN];
    uint32_t n_broken = relay->is_mx ? broken_domains(s, relay, some) : 0;
    char why[300] = "";
    if (n_broken > 0) {
        broken_text(some, n_broken, why, sizeof why);
    } else if (a != NULL && a->gate.is_announced) {
        snprintf(why, sizeof why, "%s", a->gate.why);
    }
    hky_buf_add_z(out, ",\"why\":");
    hky_buf_add_json(out, hky_str_z(why));
    if (relay->is_mx) {
        broken_json(some, n_broken, out);
    }
    hky_buf_printf(out, ",\"queued\":%u,\"deferred\":%u,\"sending\":%u,\"failures\":%u,\"caps\":",
                   a != NULL ? counter_get(&a->n_queued) : 0, n_deferred(s, relay),
                   a != NULL ? counter_get(&a->n_sending) : 0, a != NULL ? a->gate.failures : 0);
    caps_json(s->caps, a != NULL ? a->caps : NULL, now_ms, out);
    hky_buf_add_c(out, '}');
}

void hky_schedule_relays_json(struct hky_schedule *s, struct hky_buf *out)
{
    int64_t now_ms = hky_clock_now_ms(s->clock);
    hky_buf_add_c(out, '[');
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->policy->n_relays; i++) {
        if (i > 0) {
            hky_buf_add_c(out, ',');
        }
        relay_json(s, &s->policy->relays[i], now_ms, out);
    }
    pthread_mutex_unlock(&s->lock);
    hky_buf_add_c(out, ']');
}
