/*
 * The schedule as a whole: start and stop, mail that comes in, a new policy, drain and totals.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define DRAIN_CHECK_MS 20
/* A relay did not let us in, for a reason that a new policy, password or certificate may have removed. */
#define NOT_LET_IN (HKY_CLASS_BIT(HKY_CLASS_RELAY_AUTH) | HKY_CLASS_BIT(HKY_CLASS_TLS))

struct reserve { /* a cap record that is being written */
    struct hky_commit commit;
    struct hky_schedule *s;
    struct caps_account *account;
    LIST_ENTRY(reserve) link;
};

static void on_reserved(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    struct reserve *r = HKY_CONTAINER(c, struct reserve, commit);
    schedule_caps_reserved(r->s->caps, r->account, result == HKY_OK && durable != NULL);
    pthread_mutex_lock(&r->s->reserves_lock);
    LIST_REMOVE(r, link);
    pthread_mutex_unlock(&r->s->reserves_lock);
    free(r);
}

static void reserve(void *ctx, struct caps_account *a, unsigned worker, struct hky_str key, struct hky_str value)
{
    struct hky_schedule *s = ctx;
    struct reserve *r = hky_calloc(1, sizeof *r);
    r->s = s;
    r->account = a;
    r->commit.loop = s->shards[worker].loop;
    r->commit.done = on_reserved;
    pthread_mutex_lock(&s->reserves_lock);
    LIST_INSERT_HEAD(&s->reserves, r, link);
    pthread_mutex_unlock(&s->reserves_lock);
    hky_journal_cap(s->journal, key, value, &r->commit);
}

static void free_again(void *ctx, struct caps_account *a)
{
    (void)a;
    schedule_recheck(ctx, false);
}

enum hky_err hky_schedule_new(const struct hky_schedule_params *p, struct hky_schedule **out, struct hky_error *e)
{
    *out = NULL;
    if (p->n_workers == 0)
        return hky_error_set(e, HKY_E_CONFIG, "a schedule needs at least one worker");
    struct hky_schedule *s = hky_calloc(1, sizeof *s);
    s->n_workers = p->n_workers;
    s->journal = p->journal;
    s->clock = p->clock;
    s->log = p->log;
    s->ops = p->ops;
    s->is_everyone_reached = p->is_everyone_reached;
    s->policy = hky_policy_ref(p->policy);
    s->n_policies = 1;
    s->caps = schedule_caps_new(&(struct caps_ops){s, reserve, free_again}, p->clock);
    struct hky_error why;
    if (p->dir != NULL && schedule_inflight_open(p->dir, p->n_workers, p->was_unclean, &s->inflight, &why) != HKY_OK)
        hky_log(s->log, HKY_LOG_WARN, "inflight", "error=\"%s\"", why.text);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->reserves_lock, NULL);
    LIST_INIT(&s->reserves);
    hky_map_init(&s->accounts);
    hky_map_init(&s->relays);
    TAILQ_INIT(&s->blocked);
    TAILQ_INIT(&s->queries);
    s->shards = hky_calloc(p->n_workers, sizeof *s->shards);
    for (unsigned i = 0; i < p->n_workers; i++)
        schedule_shard_init(&s->shards[i], s, i, p->loops[i]);
    *out = s;
    return HKY_OK;
}

/* ---- the end ---- */

static void drop_all(struct recipients *list)
{
    for (struct hky_recipient *r; (r = recipients_first(list)) != NULL;) {
        recipients_remove(list, r);
        struct hky_message *m = r->message;
        hky_message_unref(&m);
    }
}

static void drop_jobs(struct hky_shard *sh)
{
    struct job *j;
    TAILQ_FOREACH (j, &sh->jobs, link) {
        for (unsigned i = 0; i < j->pub.n; i++) {
            if (j->slots_of[i] != NULL) {
                struct hky_message *m = j->slots_of[i]->message;
                hky_message_unref(&m);
            }
        }
    }
}

static void shard_fini(struct hky_shard *sh)
{
    if (sh->s->is_started)
        hky_timer_cancel(&sh->timer);
    drop_jobs(sh);
    drop_all(&sh->held);
    drop_all(&sh->to_dispatch);
    drop_all(&sh->inbox);
    for (unsigned i = 0; i < sh->s->n_workers; i++)
        drop_all(&sh->out[i]);
    for (struct hky_heap_node *n; (n = hky_heap_first(&sh->due)) != NULL;) { /* recipients in lanes are in it, too */
        hky_heap_remove(&sh->due, n);
        struct hky_message *m = recipient_due(n)->message;
        hky_message_unref(&m);
    }
    schedule_shard_free_jobs(sh);
    schedule_shard_retire_lanes(sh);
    schedule_shard_fini_turn(sh);
    for (struct lane *l; (l = TAILQ_FIRST(&sh->retired_lanes)) != NULL;)
        schedule_lane_free(l);
    hky_map_fini(&sh->lanes);
    size_t at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&sh->deferred, &at)) != NULL;)
        free(e->value);
    hky_map_fini(&sh->deferred);
    at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&sh->slowed, &at)) != NULL;)
        free(e->value);
    hky_map_fini(&sh->slowed);
    hky_heap_fini(&sh->due);
    hky_heap_fini(&sh->wakes);
    pthread_mutex_destroy(&sh->inbox_lock);
    hky_policy_unref(&sh->policy);
    free(sh->out);
}

void hky_schedule_settle(struct hky_schedule *s)
{
    schedule_caps_settle(s->caps);
    if (s->inflight == NULL || hky_journal_flush(s->journal) == HKY_OK)
        return;
    /* The journal drops what it cannot write at its end. */
    for (unsigned i = 0; i < s->n_workers; i++)
        schedule_inflight_written(s->inflight, i, hky_journal_written(s->journal));
    schedule_inflight_keep(s->inflight);
}

void hky_schedule_free(struct hky_schedule **sp)
{
    struct hky_schedule *s = *sp;
    if (s == NULL)
        return;
    *sp = NULL;
    hky_timer_cancel(&s->drain_timer); /* the stop may not have waited for the end of the drain */
    for (unsigned i = 0; i < s->n_workers; i++)
        shard_fini(&s->shards[i]);
    size_t at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&s->accounts, &at)) != NULL;) {
        struct account *a = e->value;
        free(a->key);
        free(a);
    }
    at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&s->relays, &at)) != NULL;) {
        struct relay_state *st = e->value;
        free(st->name);
        free(st->drained_to);
        free(st);
    }
    hky_map_fini(&s->accounts);
    hky_map_fini(&s->relays);
    schedule_caps_free(&s->caps);
    schedule_free_queries(s);
    schedule_inflight_close(&s->inflight);
    free((void *)s->stopped);
    hky_policy_unref(&s->policy);
    /* what is left was not reported as written before the loops stopped */
    for (struct reserve *r; (r = LIST_FIRST(&s->reserves)) != NULL;) {
        LIST_REMOVE(r, link);
        free(r);
    }
    pthread_mutex_destroy(&s->reserves_lock);
    pthread_mutex_destroy(&s->lock);
    free(s->shards);
    free(s);
}

/* ---- what comes in ---- */

/* A restart knows only begin and end of a wait, by the wall clock. When that was set back meanwhile, the wait is cut:
 * it is not longer from now on than it was to be at first. */
static void restore_times(const struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    const struct hky_retry *retry = &sh->policy->engine.retry;
    int64_t began_ms = r->step_at_ms, most_ms = retry->n > 0 ? (int64_t)retry->after_sec[retry->n - 1] * 1000 : 0;
    unsigned n = hky_recipient_n_past(r);
    bool may_be_cut = n == 0;
    if (r->state == HKY_RCPT_PARKED) { /* the parking began after all that is kept of it: its wait alone is known */
        may_be_cut = true;
        most_ms = schedule_recipient_parked_delay_ms(r->parked_times > 0 ? r->parked_times - 1U : 0);
    } else if (n > 0) {
        struct hky_past last;
        hky_recipient_past(r, n - 1, &last);
        began_ms = last.at_ms;
        most_ms = r->next_at_ms - began_ms;
    }
    if (r->next_at_ms > now_ms && (began_ms > now_ms || may_be_cut) && r->next_at_ms - now_ms > most_ms)
        r->next_at_ms = now_ms + (most_ms > 0 ? most_ms : 0);
    r->step_at_ms = r->step_at_ms < now_ms ? r->step_at_ms : now_ms;
    r->parked_at_ms = r->parked_at_ms < now_ms ? r->parked_at_ms : now_ms;
}

/* The record of a message that was accepted with a plan does not say that the first step was entered, because that was
 * at once: all later records do. The time of the step began then and not with this start; otherwise a step would never
 * end for mail that waits at a cap of an engine which is restarted often. */
static void restore_begin(const struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    int64_t at_ms = r->message->accepted_at_ms;
    if (r->state == HKY_RCPT_QUEUED && r->plan != NULL && r->step_at_ms == 0 && r->attempts + r->left_steps == 0)
        (void)schedule_recipient_begin_plan(sh->policy, r, at_ms < now_ms ? at_ms : now_ms);
}

/* Was it deferred because a relay did not let us in? A start is like a reload then: what was wrong may be repaired, so
 * it goes at once. The journal does not keep the pause of the account, so its gate lets one message try first;
 * otherwise a login that is still refused would be tried with all of them. Own delivery has no login, and its hosts are
 * the recipient's. */
static bool may_be_let_in_now(struct hky_shard *sh, const struct hky_recipient *r)
{
    struct hky_schedule *s = sh->s;
    if (r->state != HKY_RCPT_QUEUED || r->plan == NULL || (NOT_LET_IN & HKY_CLASS_BIT(r->last_class)) == 0)
        return false;
    const struct hky_step *step = &r->plan->steps[r->step];
    const struct hky_relay *relay = schedule_relay(s, sh->policy, step->relay);
    if (relay == NULL || relay->is_mx)
        return false;
    struct account *a = schedule_account(s, sh->policy, relay, schedule_plan_account(relay, step), NULL);
    pthread_mutex_lock(&s->lock);
    schedule_gate_probe_login(&a->gate, schedule_mono(s));
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* The count is written when the engine starts: a start that fails later on leaves dir/inflight as it is, and the next
 * one counts this end again. */
static void note_stopped(struct hky_schedule *s, struct hky_recipient *r)
{
    if (s->n_stopped == s->cap_stopped) {
        s->cap_stopped = s->cap_stopped == 0 ? 64 : s->cap_stopped * 2;
        s->stopped = (struct hky_recipient **)hky_realloc((void *)s->stopped, s->cap_stopped * sizeof s->stopped[0]);
    }
    s->stopped[s->n_stopped++] = r;
}

static void journal_stopped(struct hky_schedule *s)
{
    for (size_t i = 0; i < s->n_stopped; i++)
        schedule_recipient_journal(&s->shards[s->stopped[i]->message->id % s->n_workers], s->stopped[i]);
    free((void *)s->stopped);
    s->stopped = NULL;
    s->n_stopped = s->cap_stopped = 0;
}

static void restore(struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms)
{
    restore_times(sh, r, now_ms);
    own(r)->lane = NULL;
    own(r)->due.index = 0;
    if (r->state == HKY_RCPT_UNDECIDED)
        r->next_at_ms = 0; /* the look-up ended with the last run: the policy is asked again at once */
    if (r->state == HKY_RCPT_SENDING || r->state == HKY_RCPT_UNDECIDED)
        schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
    restore_begin(sh, r, now_ms);
    enum inflight_state was =
        r->state == HKY_RCPT_QUEUED ? schedule_inflight_was(sh->s->inflight, r->message->id) : INFLIGHT_NOT;
    sh->s->n_maybe_duplicates += was != INFLIGHT_NOT;
    if (was == INFLIGHT_SENDING) { /* this message may be why the engine ended */
        r->unclean += r->unclean < UINT8_MAX;
        note_stopped(sh->s, r);
    }
    if (r->state == HKY_RCPT_HELD) {
        recipients_append(&sh->held, r);
        counter_add(&sh->n.held, 1);
    } else if (r->state == HKY_RCPT_QUEUED && r->unclean >= UNCLEAN_MOST) {
        schedule_recipient_list_for_dispatch(sh, r); /* dispatching holds it */
    } else if (may_be_let_in_now(sh, r)) {
        r->next_at_ms = 0;
        schedule_recipient_list_for_dispatch(sh, r);
    } else if (r->next_at_ms > now_ms) {
        if (r->state == HKY_RCPT_PARKED) {
            recipients_append(&sh->parked, r);
            counter_add(&sh->n.parked, 1);
        } else {
            schedule_shard_count_deferred(sh, r, 1);
        }
        schedule_shard_set_due(sh, r, r->next_at_ms);
    } else {
        schedule_recipient_list_for_dispatch(sh, r);
    }
}

void hky_schedule_restore_message(struct hky_schedule *s, struct hky_message *m)
{
    int64_t now_ms = hky_clock_now_ms(s->clock);
    struct hky_shard *sh = &s->shards[m->id % s->n_workers];
    for (uint32_t i = 0; i < m->n_recipients; i++)
        if (!hky_recipient_state_is_final(m->recipients[i].state))
            restore(sh, &m->recipients[i], now_ms);
}

void hky_schedule_restore_cap(struct hky_schedule *s, struct hky_str key, struct hky_str value)
{
    schedule_caps_restore(s->caps, key, value, hky_clock_elapsed_ms(s->clock));
}

uint64_t hky_schedule_maybe_duplicates(const struct hky_schedule *s, bool *is_at_most)
{
    *is_at_most = s->inflight != NULL && !schedule_inflight_was_overfull(s->inflight);
    return s->n_maybe_duplicates;
}

void hky_schedule_start(struct hky_schedule *s)
{
    journal_stopped(s);
    if (s->n_maybe_duplicates > 0) /* the counts must be on disk, if possible, before spool/inflight is cleared */
        (void)hky_journal_flush(s->journal);
    schedule_inflight_forget(s->inflight);
    s->is_started = true;
    for (unsigned i = 0; i < s->n_workers; i++) {
        s->shards[i].is_turn_set = true;
        hky_loop_post(s->shards[i].loop, &s->shards[i].again_task);
    }
}

/* It was accepted without a plan, or to be held: it waits from the beginning. */
static void stop_at_once(struct hky_shard *sh, struct hky_recipient *r)
{
    if (r->state == HKY_RCPT_HELD) {
        schedule_recipient_hold(sh, r, r->reason != NULL ? r->reason : "held");
        return;
    }
    char why[200];
    snprintf(why, sizeof why, "%s", r->reason != NULL ? r->reason : "no_route: no route takes this recipient");
    schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED); /* so that parking it is a change, which is logged */
    schedule_recipient_park(sh, r, why);
}

void hky_schedule_enqueue(struct hky_schedule *s, unsigned worker, struct hky_message *m)
{
    struct hky_shard *sh = &s->shards[worker];
    hky_message_ref(m); /* all recipients may end before this returns, here or at other workers */
    for (uint32_t i = 0; i < m->n_recipients; i++) {
        struct hky_recipient *r = &m->recipients[i];
        if (hky_recipient_state_is_final(r->state))
            continue;
        if (r->plan != NULL && r->policy == 0)
            r->policy = (uint32_t)sh->policy->hash;
        if (r->state == HKY_RCPT_PARKED || r->state == HKY_RCPT_HELD)
            stop_at_once(sh, r);
        else
            schedule_recipient_dispatch(sh, r);
    }
    hky_message_unref(&m);
}

/* ---- policy ---- */

/* Call it with the lock held. Finds relays that refused us and that may accept us under the new policy. */
static void find_repaired(struct hky_schedule *s, const struct hky_policy *old, struct hky_map *out)
{
    int64_t now_ms = hky_clock_elapsed_ms(s->clock);
    size_t at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&s->accounts, &at)) != NULL;) {
        struct account *a = e->value;
        if (schedule_gate_retry_login(&a->gate, now_ms))
            schedule_add_relays_of(s->policy, a->key, out);
    }
    for (uint32_t i = 0; i < s->policy->n_relays; i++) {
        const struct hky_relay *relay = &s->policy->relays[i];
        const struct hky_relay *was = hky_policy_relay(old, hky_str_z(relay->name));
        if (was != NULL && was->settings_hash != relay->settings_hash)
            hky_map_put(out, hky_str_z(relay->name), out);
    }
}

void hky_schedule_set_policy(struct hky_schedule *s, struct hky_policy *policy)
{
    struct hky_map repaired;
    hky_map_init(&repaired);
    pthread_mutex_lock(&s->lock);
    struct hky_policy *old = s->policy;
    s->policy = hky_policy_ref(policy);
    s->n_policies++;
    find_repaired(s, old, &repaired);
    hky_policy_unref(&old);
    pthread_mutex_unlock(&s->lock);
    schedule_recheck(s, true);
    for (unsigned i = 0; i < s->n_workers; i++) {
        struct hky_shard *sh = &s->shards[i];
        if (__atomic_exchange_n(&sh->is_policy_posted, 1, __ATOMIC_SEQ_CST) == 0)
            hky_loop_post(sh->loop, &sh->policy_task);
    }
    schedule_retry_repaired(s, &repaired, NOT_LET_IN);
    hky_map_fini(&repaired);
}

/* ---- drain ---- */

static uint32_t sending(struct hky_schedule *s)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < s->n_workers; i++)
        n += counter_get(&s->shards[i].n.sending);
    return n;
}

static void on_drain_check(struct hky_timer *t)
{
    struct hky_schedule *s = HKY_CONTAINER(t, struct hky_schedule, drain_timer);
    if (sending(s) > 0 && hky_mono_ms() < s->drain_until_mono_ms) {
        hky_timer_set(&s->drain_timer, DRAIN_CHECK_MS);
        return;
    }
    s->drain_done(s->drain_ctx);
}

static void on_drain(struct hky_task *t)
{
    struct hky_schedule *s = HKY_CONTAINER(t, struct hky_schedule, drain_task);
    hky_timer_init(&s->drain_timer, s->shards[0].loop, on_drain_check);
    hky_timer_set(&s->drain_timer, 0);
}

void hky_schedule_drain(struct hky_schedule *s, int64_t grace_ms, void (*done)(void *ctx), void *ctx)
{
    s->drain_done = done;
    s->drain_ctx = ctx;
    s->drain_until_mono_ms = hky_mono_ms() + grace_ms;
    s->drain_task.run = on_drain;
    __atomic_store_n(&s->is_draining, true, __ATOMIC_SEQ_CST);
    hky_loop_post(s->shards[0].loop, &s->drain_task);
}

void hky_schedule_stats(struct hky_schedule *s, struct hky_schedule_stats *out)
{
    memset(out, 0, sizeof *out);
    int64_t moving = 0;
    for (unsigned i = 0; i < s->n_workers; i++) {
        const struct hky_shard *sh = &s->shards[i];
        moving += counter_get(&sh->n.moving);
        out->queued += counter_get(&sh->n.queued);
        out->sending += counter_get(&sh->n.sending);
        out->deferred += counter_get(&sh->n.deferred);
        out->parked += counter_get(&sh->n.parked);
        out->held += counter_get(&sh->n.held);
        out->undecided += counter_get(&sh->n.undecided);
        out->delivered += counter_get(&sh->n.delivered);
        out->failed += counter_get(&sh->n.failed);
        out->cancelled += counter_get(&sh->n.cancelled);
        out->notices += counter_get(&sh->n.notices);
        out->attempts += counter_get(&sh->n.attempts);
    }
    /* the shards are read one after the other, so it may be below 0 for a moment */
    out->queued += moving > 0 ? (uint64_t)moving : 0;
}
