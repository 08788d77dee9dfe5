/*
 * What operators do to relays, and what they see of them.
 */
#include "internal.h"

#include "base/nearest.h"

#include <stdio.h>
#include <stdlib.h>

/* With these classes a relay takes no mail from the account until somebody has repaired something. */
#define STOPS_ACCOUNT                                                                                                  \
    (HKY_CLASS_BIT(HKY_CLASS_RELAY_AUTH) | HKY_CLASS_BIT(HKY_CLASS_RELAY_DENIED) |                                     \
     HKY_CLASS_BIT(HKY_CLASS_QUOTA_EXHAUSTED) | HKY_CLASS_BIT(HKY_CLASS_TLS))

static enum hky_err no_relay(const struct hky_policy *policy, const char *name, struct hky_error *e)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(name));
    for (uint32_t i = 0; i < policy->n_relays; i++)
        hky_nearest_consider(&near, policy->relays[i].name);
    return hky_error_set(e, HKY_E_MISSING, "no relay \"%.60s\" in the policy" HKY_NEAREST_FMT, name,
                         HKY_NEAREST_ARG(&near));
}

/* Call it with the lock held. */
static enum hky_err state_open(struct hky_schedule *s, const char *relay, struct relay_state **out, struct hky_error *e)
{
    *out = hky_map_get(&s->relays, hky_str_z(relay));
    if (hky_policy_relay(s->policy, hky_str_z(relay)) == NULL)
        return no_relay(s->policy, relay, e);
    if (*out == NULL) {
        *out = hky_calloc(1, sizeof **out);
        (*out)->name = hky_strdup(relay);
        hky_map_put(&s->relays, hky_str_z(relay), *out);
        __atomic_add_fetch(&s->n_relay_states, 1, __ATOMIC_RELEASE);
    }
    return HKY_OK;
}

static void forget_drain(struct relay_state *st)
{
    free(st->drained_to);
    st->drained_to = NULL;
}

static bool has_instead(const struct hky_relay *relay)
{
    return relay->instead != NULL && relay->instead[0] != '\0';
}

/* What the policy says about a relay cannot be changed by an operator. */
static enum hky_err policy_decides(const struct hky_relay *relay, struct hky_error *e)
{
    if (has_instead(relay)) {
        return hky_error_set(
            e, HKY_E_STATE,
            "\"%.60s\" is drained by the policy (%.120s:%u): its mail is sent through \"%.60s\"; change "
            "`instead` there and reload",
            relay->name, relay->place.file, relay->place.line, relay->instead);
    }
    if (relay->is_paused) {
        return hky_error_set(e, HKY_E_STATE,
                             "\"%.60s\" is paused by the policy (%.120s:%u); change `paused` there and reload",
                             relay->name, relay->place.file, relay->place.line);
    }
    return HKY_OK;
}

static void emit_relay_event(struct hky_schedule *s, enum hky_event_kind kind, const char *relay, int64_t until_ms,
                             const char *to)
{
    struct hky_event ev = {.kind = kind,
                           .at_ms = hky_clock_now_ms(s->clock),
                           .relay = relay,
                           .next_at_ms = until_ms == 0 ? 0 : schedule_wall_at(s, until_ms),
                           .to = to,
                           .text = "by an operator"};
    s->ops->event(s->ops->ctx, HKY_RECORD_OTHER, &ev);
}

static int64_t until(struct hky_schedule *s, uint32_t for_sec)
{
    return for_sec == 0 ? 0 : schedule_mono(s) + (int64_t)for_sec * 1000;
}

enum hky_err hky_schedule_pause(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e)
{
    struct relay_state *st;
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e);
    const struct hky_relay *r = err == HKY_OK ? hky_policy_relay(s->policy, hky_str_z(relay)) : NULL;
    if (r != NULL && has_instead(r))
        err = policy_decides(r, e);
    if (err == HKY_OK) {
        forget_drain(st);
        st->is_paused = true;
        st->paused_until_ms = until(s, for_sec);
    }
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        emit_relay_event(s, HKY_EVENT_RELAY_PAUSED, relay, until(s, for_sec), NULL);
        schedule_recheck(s, true);
    }
    return err;
}

enum hky_err hky_schedule_resume(struct hky_schedule *s, const char *relay, struct hky_error *e)
{
    struct relay_state *st;
    struct hky_map repaired;
    hky_map_init(&repaired);
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e), denied = HKY_OK;
    if (err == HKY_OK) {
        st->is_paused = false;
        forget_drain(st);
        const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(relay));
        struct account *a = hky_map_get(&s->accounts, hky_str_z(r->account));
        if (a != NULL)
            schedule_gate_resume(&a->gate);
        schedule_add_relays_of(s->policy, r->account, &repaired);
        struct lane *l, *next;
        for (l = TAILQ_FIRST(&s->blocked); l != NULL; l = next) {
            next = TAILQ_NEXT(l, blocked_link);
            if (strcmp(l->pub.relay_name, relay) == 0) {
                schedule_gate_resume(&l->own_gate);
                schedule_lane_update_blocked(l);
            }
        }
    }
    if (err == HKY_OK)
        denied = policy_decides(hky_policy_relay(s->policy, hky_str_z(relay)), e);
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        emit_relay_event(s, HKY_EVENT_RELAY_RESUMED, relay, 0, NULL);
        schedule_recheck(s, true);
        schedule_retry_repaired(s, &repaired, STOPS_ACCOUNT);
    }
    hky_map_fini(&repaired);
    return err != HKY_OK ? err : denied;
}

enum hky_err hky_schedule_use_up(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e)
{
    const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(relay));
    struct caps_account *caps = NULL;
    if (r == NULL)
        return no_relay(s->policy, relay, e);
    schedule_account(s, s->policy, r, r->account, &caps);
    if (caps == NULL)
        return hky_error_set(e, HKY_E_STATE, "relay \"%s\" has no cap, so it is never full", relay);
    schedule_caps_use_up(s->caps, caps, schedule_mono(s) + (int64_t)for_sec * 1000);
    schedule_recheck(s, true);
    return HKY_OK;
}

static bool leads_back(struct hky_schedule *s, const char *relay, const char *to)
{
    for (int i = 0; i < RELAYS_FOLLOWED_MAX && to != NULL; i++) {
        if (strcmp(relay, to) == 0)
            return true;
        struct relay_state *st = schedule_relay_state(s, to);
        const struct hky_relay *r = hky_policy_relay(s->policy, hky_str_z(to));
        to = st != NULL && st->drained_to != NULL ? st->drained_to : r != NULL && has_instead(r) ? r->instead : NULL;
    }
    return to != NULL;
}

enum hky_err hky_schedule_drain_relay(struct hky_schedule *s, const char *relay, const char *to, uint32_t for_sec,
                                      struct hky_error *e)
{
    struct relay_state *st;
    pthread_mutex_lock(&s->lock);
    enum hky_err err = state_open(s, relay, &st, e);
    if (err == HKY_OK && hky_policy_relay(s->policy, hky_str_z(to)) == NULL)
        err = no_relay(s->policy, to, e);
    if (err == HKY_OK && has_instead(hky_policy_relay(s->policy, hky_str_z(relay))))
        err = policy_decides(hky_policy_relay(s->policy, hky_str_z(relay)), e);
    if (err == HKY_OK && leads_back(s, relay, to))
        err = strcmp(relay, to) == 0
                  ? hky_error_set(e, HKY_E_CONFIG, "\"%.60s\" cannot be drained to itself; name another relay", relay)
                  : hky_error_set(e, HKY_E_CONFIG,
                                  "\"%.60s\" is drained itself, and its mail leads back to \"%.60s\"; resume \"%.60s\" "
                                  "first, or name another relay",
                                  to, relay, to);
    if (err == HKY_OK) {
        forget_drain(st);
        st->is_paused = false;
        st->drained_to = hky_strdup(to);
        st->drained_until_ms = until(s, for_sec);
    }
    pthread_mutex_unlock(&s->lock);
    if (err == HKY_OK) {
        emit_relay_event(s, HKY_EVENT_RELAY_DRAINED, relay, until(s, for_sec), to);
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
    if (has_instead(relay))
        return "drained";
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

/* How many destinations own delivery cannot send to for now, and the first few of them. */
static void show_broken(struct hky_schedule *s, struct hky_relay_row *out)
{
    const struct lane *l;
    TAILQ_FOREACH (l, &s->blocked, blocked_link) {
        if (strcmp(l->pub.relay_name, out->relay->name) == 0) {
            if (out->n_broken < HKY_BROKEN_SHOWN)
                out->broken[out->n_broken] = hky_strdup(l->pub.destination);
            out->n_broken++;
        }
    }
    if (out->n_broken == 0)
        return;
    size_t at = (size_t)snprintf(out->why, sizeof out->why, "%u domain%s: ", out->n_broken,
                                 out->n_broken == 1 ? " waits" : "s wait");
    for (uint32_t i = 0; i < out->n_broken && i < HKY_BROKEN_SHOWN && at < sizeof out->why; i++)
        at += (size_t)snprintf(out->why + at, sizeof out->why - at, "%s%s", i > 0 ? ", " : "", out->broken[i]);
    if (out->n_broken > HKY_BROKEN_SHOWN && at < sizeof out->why)
        snprintf(out->why + at, sizeof out->why - at, ", ...");
}

/* How many recipients with this relay as their step wait for their next attempt. */
static uint32_t n_deferred(const struct hky_schedule *s, const struct hky_relay *relay)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < s->n_workers; i++) {
        const uint32_t *n = hky_map_get(&s->shards[i].deferred, hky_str_z(relay->name));
        sum += n != NULL ? counter_get(n) : 0;
    }
    return sum;
}

static void fill_learned(struct hky_relay_row *out)
{
    static const char *const what[HKY_LEARNED_N] = {"recipients a message", "connections", "messages a connection"};
    size_t at = 0;
    for (int i = 0; i < HKY_LEARNED_N && at < sizeof out->why; i++) {
        if (out->learned[i] > 0) {
            at += (size_t)snprintf(out->why + at, sizeof out->why - at, "%s%u %s", at == 0 ? "the server takes " : ", ",
                                   out->learned[i], what[i]);
        }
    }
}

static void show_relay(struct hky_schedule *s, const struct hky_relay *relay, int64_t now_ms, struct hky_relay_row *out)
{
    const struct relay_state *st = schedule_relay_state(s, relay->name);
    /* made here, so that its caps are shown before its first mail */
    struct account *a = schedule_account_open(s, s->policy, relay, relay->account);
    out->relay = relay;
    out->state = state_name(relay, st, a, now_ms, &out->until_ms);
    out->until_ms = out->until_ms == 0 ? 0 : schedule_wall_at(s, out->until_ms);
    if (strcmp(out->state, "drained") == 0)
        out->to = hky_strdup(st != NULL && st->drained_to != NULL ? st->drained_to : relay->instead);
    if (relay->is_mx)
        show_broken(s, out);
    if (out->n_broken == 0 && relay->is_paused && strcmp(out->state, "paused") == 0)
        snprintf(out->why, sizeof out->why, "by the policy");
    else if (out->n_broken == 0 && a->gate.is_announced)
        snprintf(out->why, sizeof out->why, "%s", a->gate.why);
    for (int i = 0; i < HKY_LEARNED_N; i++)
        out->learned[i] = __atomic_load_n(&a->gate.learned[i], __ATOMIC_RELAXED);
    if (out->why[0] == '\0')
        fill_learned(out);
    out->n_queued = counter_get(&a->n_queued);
    out->n_deferred = n_deferred(s, relay);
    out->n_sending = counter_get(&a->n_sending);
    out->n_failures = a->gate.failures;
    out->n_caps = a->caps != NULL ? schedule_caps_show(s->caps, a->caps, now_ms, out->caps) : 0;
}

/* Mail that is sent by another relay goes nowhere while that one does not send. */
static void fill_states_of_targets(struct hky_relay_list *list)
{
    for (uint32_t i = 0; i < list->n; i++)
        for (uint32_t k = 0; k < list->n && list->rows[i].to != NULL; k++)
            if (strcmp(list->rows[k].relay->name, list->rows[i].to) == 0) {
                list->rows[i].to_state = list->rows[k].state;
                list->rows[i].is_to_paused_by_policy = list->rows[k].relay->is_paused;
            }
}

void hky_schedule_relays(struct hky_schedule *s, struct hky_relay_list *out)
{
    int64_t now_ms = schedule_mono(s);
    pthread_mutex_lock(&s->lock);
    out->policy = hky_policy_ref(s->policy);
    out->n = s->policy->n_relays;
    out->rows = hky_calloc(out->n + 1, sizeof *out->rows);
    for (uint32_t i = 0; i < out->n; i++)
        show_relay(s, &s->policy->relays[i], now_ms, &out->rows[i]);
    fill_states_of_targets(out);
    pthread_mutex_unlock(&s->lock);
}

void hky_relay_list_fini(struct hky_relay_list *list)
{
    for (uint32_t i = 0; i < list->n; i++) {
        free(list->rows[i].to);
        for (unsigned k = 0; k < HKY_BROKEN_SHOWN; k++)
            free(list->rows[i].broken[k]);
    }
    free(list->rows);
    hky_policy_unref(&list->policy);
    *list = (struct hky_relay_list){0};
}
