/*
 * What deliver asks of a lane: the next job, and what becomes of it.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

#define EXAMINED_MAX        64 /* recipients examined in one call without finding a job */
#define IDLE_JOBS_MOST      64
#define IDLE_JOB_RECIPIENTS 256 /* jobs for more recipients are freed, not kept */
#define FIT_LEAST           8
#define GAP_FIRST_MS        250
#define GAP_MOST_MS         60000
#define NAMED_MOST_MS       (3600 * 1000)
#define AGAIN_MOST_MS       (60 * 1000) /* rather than wait longer in all, a job ends, and its recipients are deferred */

/* ---- jobs ---- */

static struct job *job_new(struct hky_shard *sh)
{
    struct job *j = TAILQ_FIRST(&sh->idle_jobs);
    if (j == NULL)
        return hky_calloc(1, sizeof *j);
    TAILQ_REMOVE(&sh->idle_jobs, j, link);
    sh->n_idle_jobs--;
    return j;
}

static void job_fit(struct job *j, uint32_t n)
{
    if (n > j->cap) {
        j->cap = n > FIT_LEAST ? n : FIT_LEAST;
        j->pub.recipients = hky_realloc(j->pub.recipients, j->cap * sizeof *j->pub.recipients);
        j->slots_of = hky_realloc(j->slots_of, j->cap * sizeof *j->slots_of);
    }
}

static void job_drop(struct job *j)
{
    free(j->pub.recipients);
    free(j->slots_of);
    free(j);
}

static void job_free(struct hky_shard *sh, struct job *j)
{
    if (sh->n_idle_jobs < IDLE_JOBS_MOST && j->cap <= IDLE_JOB_RECIPIENTS) {
        TAILQ_INSERT_HEAD(&sh->idle_jobs, j, link);
        sh->n_idle_jobs++;
        return;
    }
    job_drop(j);
}

void schedule_shard_free_jobs(struct hky_shard *sh)
{
    for (struct job *j; (j = TAILQ_FIRST(&sh->idle_jobs)) != NULL;) {
        TAILQ_REMOVE(&sh->idle_jobs, j, link);
        job_drop(j);
    }
    for (struct job *j; (j = TAILQ_FIRST(&sh->jobs)) != NULL;) {
        TAILQ_REMOVE(&sh->jobs, j, link);
        hky_message_unref(&j->pub.message);
        job_drop(j);
    }
}

/* ---- take ---- */

static bool is_lane_ready(struct lane *l, int64_t now_ms, int64_t *until_ms)
{
    if (__atomic_load_n(&l->shard->s->is_draining, __ATOMIC_RELAXED)) {
        *until_ms = INT64_MAX;
        return false;
    }
    if (schedule_shard_waits_for_disk(l->shard)) {
        *until_ms = INT64_MAX; /* the shard wakes the lane */
        return false;
    }
    if (schedule_lane_is_paused(l, until_ms))
        return false;
    if (l->n_jobs_max > 0 && l->n_jobs >= l->n_jobs_max) {
        *until_ms = INT64_MAX; /* the end of a job wakes the lane */
        return false;
    }
    *until_ms = l->next_take_ms;
    return l->next_take_ms <= now_ms;
}

static const char *gate_waits_for(struct lane *l, int64_t now_ms, int64_t *until_ms)
{
    if (__atomic_load_n(&l->gate->must_ask, __ATOMIC_ACQUIRE) == 0)
        return NULL;
    pthread_mutex_lock(&l->shard->s->lock);
    bool waits = schedule_gate_ask(l->gate, now_ms, false, until_ms) == GATE_WAIT;
    bool is_paused = l->gate->paused_until_ms > now_ms;
    pthread_mutex_unlock(&l->shard->s->lock);
    return !waits ? NULL : is_paused ? "paused" : "breaker";
}

const char *schedule_lane_waits_for(struct lane *l, int64_t *until_ms)
{
    int64_t at, now_ms = schedule_shard_mono(l->shard);
    const char *what = schedule_is_paused(l->shard->s, l->pub.relay, until_ms) ? "paused" : NULL;
    const char *gate = gate_waits_for(l, now_ms, &at);
    if (gate != NULL && (what == NULL || at > *until_ms)) {
        what = gate;
        *until_ms = at;
    }
    if (l->next_take_ms > now_ms && (what == NULL || l->next_take_ms > *until_ms)) {
        what = "slowed";
        *until_ms = l->next_take_ms;
    }
    at = schedule_caps_free_at(l->shard->s->caps, l->caps, now_ms);
    if (at > now_ms && (what == NULL || at > *until_ms)) {
        what = "cap";
        *until_ms = at;
    }
    if (hky_journal_takes_results(l->shard->s->journal) != HKY_OK) {
        what = "disk";
        *until_ms = INT64_MAX;
    }
    if (what != NULL)
        *until_ms = schedule_wall_at(l->shard->s, *until_ms);
    return what;
}

static bool has_recipient_in_sender(const struct hky_relay *relay, const struct hky_recipient *r)
{
    const char *envelope = r->plan->steps[r->step].envelope;
    envelope = envelope != NULL ? envelope : r->plan->envelope;
    envelope = envelope != NULL ? envelope : relay->envelope;
    return envelope != NULL && strstr(envelope, "{rcpt}") != NULL;
}

/* How many recipients behind r can go in the same transaction: they have the same message, plan and step, and so the
 * same identity. */
static uint32_t count_peers(struct lane *l, struct hky_recipient *r, int64_t now_ms)
{
    const struct hky_relay *relay = l->pub.relay;
    uint32_t most = relay->recipients_per_message;
    uint32_t learned = __atomic_load_n(&l->gate->learned[HKY_LEARNED_RECIPIENTS], __ATOMIC_RELAXED);
    most = learned > 0 && learned < most ? learned : most;
    if (most <= 1 || has_recipient_in_sender(relay, r))
        return 1;
    uint32_t n = 1;
    for (struct hky_recipient *p = r; n < most && (p = schedule_lane_peer(p)) != NULL; n++) {
        bool goes_along = p->step == r->step && p->plan != NULL && p->plan->hash == r->plan->hash &&
                          p->expire_at_ms > now_ms && !schedule_recipient_has_stale_plan(l->shard, p, now_ms) &&
                          schedule_recipient_is_reached(l->shard, p);
        if (!goes_along)
            break;
    }
    return n;
}

/* The first recipient that can be sent. Those before it expire, get a new plan or leave their step. NULL: none is left,
 * or enough were examined. */
static struct hky_recipient *next_candidate(struct lane *l, int64_t now_ms, struct hky_identity *identity,
                                            unsigned *examined)
{
    struct hky_shard *sh = l->shard;
    for (struct hky_recipient *r; (r = schedule_lane_peek(l)) != NULL && *examined < EXAMINED_MAX; ++*examined) {
        if (r->expire_at_ms <= now_ms) {
            schedule_recipient_take_out(sh, r);
            schedule_recipient_expire(sh, r);
            continue;
        }
        if (schedule_recipient_has_stale_plan(sh, r, now_ms)) {
            sh->head_kept_in = l; /* as in turn.c: elsewhere its plan would be stale again */
            schedule_recipient_redispatch(sh, r);
            sh->head_kept_in = NULL;
            continue;
        }
        if (!schedule_recipient_is_reached(sh, r)) { /* the list of engine.only_to was changed meanwhile */
            schedule_recipient_take_out(sh, r);
            schedule_recipient_hold_unreached(sh, r);
            continue;
        }
        hky_identity_choose(l->pub.policy, l->pub.relay, r->plan, r->step, r->message, r, identity);
        if (identity->is_allowed)
            return r;
        bool is_left = schedule_recipient_leave_step(sh, r, HKY_CLASS_SENDS_AS);
        HKY_ASSERT(is_left); /* waiting would change nothing, so the plan always goes on, fails or holds it */
    }
    return NULL;
}

static bool pass_gate(struct lane *l, int64_t now_ms, bool *is_probe, int64_t *until_ms)
{
    *is_probe = false;
    if (__atomic_load_n(&l->gate->must_ask, __ATOMIC_ACQUIRE) == 0)
        return true;
    pthread_mutex_lock(&l->shard->s->lock);
    enum gate_answer answer = schedule_gate_ask(l->gate, now_ms, true, until_ms);
    pthread_mutex_unlock(&l->shard->s->lock);
    *is_probe = answer == GATE_PROBE;
    return answer != GATE_WAIT;
}

static void fill(struct job *j, struct lane *l, struct hky_recipient *first, uint32_t n)
{
    struct hky_shard *sh = l->shard;
    struct hky_recipient *r = first, *next;
    schedule_lane_rotate(l, first);
    job_fit(j, n);
    for (uint32_t i = 0; i < n; i++, r = next) {
        next = i + 1 < n ? recipients_next(r) : NULL;
        schedule_recipient_take_out(sh, r);
        schedule_recipient_enter(sh, r, HKY_RCPT_SENDING);
        own(r)->lane = NULL;
        j->pub.recipients[i] = j->slots_of[i] = r;
    }
    j->pub.lane = &l->pub;
    j->pub.message = hky_message_ref(first->message);
    j->pub.n = n;
    j->pub.schedule = j;
    j->owner = l;
    j->got_through = j->failed_to_connect = j->failed_at_tls = j->has_slowed = j->has_sped_up = false;
    j->is_waiting = false;
    j->waits_until_mono_ms = 0;
    j->paused_sec = 0;
    j->why[0] = '\0';
    schedule_inflight_written(sh->s->inflight, sh->index, hky_journal_written(sh->s->journal));
    j->inflight_slot = schedule_inflight_put(sh->s->inflight, sh->index, first->message->id);
    l->n_jobs++;
    TAILQ_INSERT_TAIL(&sh->jobs, j, link);
    counter_add(&sh->n.sending, n);
    counter_add(&l->account->n_sending, n);
}

enum hky_take hky_schedule_take(struct hky_lane *pub, struct hky_job **out)
{
    struct lane *l = (struct lane *)pub;
    struct hky_shard *sh = l->shard;
    int64_t now_ms = schedule_shard_now(sh), mono_ms = schedule_shard_mono(sh), until_ms;
    *out = NULL;
    if (l->is_retired || pub->n_ready == 0)
        return HKY_TAKE_EMPTY;
    if (!is_lane_ready(l, mono_ms, &until_ms)) {
        schedule_lane_wait(l, until_ms);
        return HKY_TAKE_WAIT;
    }
    struct job *j = job_new(sh);
    unsigned examined = 0;
    struct hky_recipient *r = next_candidate(l, now_ms, &j->pub.identity, &examined);
    if (r == NULL) {
        job_free(sh, j);
        if (pub->n_ready > 0) {
            schedule_lane_wait(l, mono_ms);
            return HKY_TAKE_WAIT;
        }
        return HKY_TAKE_EMPTY;
    }
    uint32_t n = count_peers(l, r, now_ms);
    enum caps_answer answer = schedule_caps_take(sh->s->caps, l->caps, sh->index, n, mono_ms, &j->slots, &until_ms);
    if (answer == CAPS_TAKEN && !pass_gate(l, mono_ms, &j->is_probe, &until_ms)) {
        schedule_caps_give_back(sh->s->caps, &j->slots, mono_ms);
        answer = CAPS_WAIT;
    }
    if (answer != CAPS_TAKEN) {
        job_free(sh, j);
        schedule_lane_wait(l, until_ms);
        return HKY_TAKE_WAIT;
    }
    fill(j, l, r, j->slots.n_recipients);
    if (l->gap_ms > 0)
        l->next_take_ms = mono_ms + l->gap_ms;
    *out = &j->pub;
    return HKY_TAKE_JOB;
}

/* Ends the wait of a job for slots. */
static void stop_waiting(struct job *j)
{
    j->owner->n_waiting_jobs -= j->is_waiting;
    j->is_waiting = false;
}

static enum hky_take wait_for_slots(struct job *j, int64_t until_mono_ms, int64_t mono_ms)
{
    if (j->waits_until_mono_ms == 0)
        j->waits_until_mono_ms = mono_ms + AGAIN_MOST_MS;
    if (until_mono_ms > j->waits_until_mono_ms)
        return HKY_TAKE_EMPTY;
    for (unsigned i = 0; i < j->pub.n; i++) {
        int64_t expire_ms = j->slots_of[i] != NULL ? j->slots_of[i]->expire_at_ms : INT64_MAX;
        expire_ms = schedule_mono_at(j->owner->shard->s, expire_ms);
        until_mono_ms = expire_ms < until_mono_ms ? expire_ms : until_mono_ms;
    }
    j->is_waiting = true;
    j->owner->n_waiting_jobs++;
    schedule_lane_wait(j->owner, until_mono_ms);
    return HKY_TAKE_WAIT;
}

/* Has a recipient expired meanwhile, does engine.only_to name it no more, or did an operator hold or cancel it? Then
 * the job ends for all of them: the others are deferred, and go without it. */
static bool has_unwanted(const struct job *j, int64_t now_ms)
{
    for (unsigned i = 0; i < j->pub.n; i++) {
        struct hky_recipient *r = j->slots_of[i];
        if (r != NULL && (r->expire_at_ms <= now_ms || own(r)->operator_action != 0 ||
                          !schedule_recipient_is_reached(j->owner->shard, r)))
            return true;
    }
    return false;
}

/* Does the account wait, or the relay, by the policy in force or an operator's word, which may have come after the job
 * was taken? A breaker does not count: the job may be its probe. */
static bool may_send_no_more(struct lane *l, int64_t mono_ms)
{
    struct hky_schedule *s = l->shard->s;
    const struct hky_relay *relay = schedule_relay(s, l->shard->policy, l->pub.relay_name);
    int64_t until_ms;
    if (relay == NULL || strcmp(relay->name, l->pub.relay_name) != 0 || schedule_is_paused(s, relay, &until_ms))
        return true; /* the policy has it no more, another relay sends for it, or it is paused */
    if (__atomic_load_n(&l->gate->must_ask, __ATOMIC_ACQUIRE) == 0)
        return false;
    pthread_mutex_lock(&s->lock);
    bool is_paused = l->gate->paused_until_ms > mono_ms;
    pthread_mutex_unlock(&s->lock);
    return is_paused;
}

enum hky_take hky_schedule_take_again(struct hky_job *pub)
{
    struct job *j = (struct job *)pub;
    struct lane *l = j->owner;
    struct hky_shard *sh = l->shard;
    int64_t mono_ms = schedule_shard_mono(sh), until_ms;
    uint32_t n = 0;
    for (unsigned i = 0; i < pub->n; i++)
        n += j->slots_of[i] != NULL;
    stop_waiting(j);
    schedule_caps_done(sh->s->caps, &j->slots, mono_ms);
    if (may_send_no_more(l, mono_ms) || has_unwanted(j, schedule_shard_now(sh)))
        return HKY_TAKE_EMPTY;
    if (schedule_caps_take(sh->s->caps, l->caps, sh->index, n, mono_ms, &j->slots, &until_ms) != CAPS_TAKEN)
        return wait_for_slots(j, until_ms, mono_ms);
    j->waits_until_mono_ms = 0;
    if (j->slots.n_recipients == n)
        return HKY_TAKE_JOB;
    schedule_caps_give_back(sh->s->caps, &j->slots, mono_ms);
    return HKY_TAKE_EMPTY;
}

void hky_schedule_learn(struct hky_lane *lane, enum hky_learned what, uint32_t n)
{
    __atomic_store_n(&((struct lane *)lane)->gate->learned[what], n, __ATOMIC_RELAXED);
}

/* ---- result ---- */

static void slow_down(struct job *j, const struct hky_outcome *o)
{
    struct lane *l = j->owner;
    int64_t now_ms = schedule_shard_mono(l->shard);
    if (!j->has_slowed) {
        j->has_slowed = true;
        l->n_jobs_max = l->n_jobs > 2 ? l->n_jobs / 2 : 1;
        l->n_good = 0;
        int64_t gap = l->gap_ms * 2 < GAP_MOST_MS ? l->gap_ms * 2 : GAP_MOST_MS;
        l->gap_ms = l->gap_ms == 0 ? GAP_FIRST_MS : gap;
    }
    int64_t at = now_ms + l->gap_ms;
    bool is_of_one = o->scope == HKY_SCOPE_RECIPIENT || o->scope == HKY_SCOPE_MESSAGE || o->scope == HKY_SCOPE_SENDER;
    if (o->retry_after_sec > 0 && !is_of_one) {
        int64_t named = (int64_t)o->retry_after_sec * 1000;
        at = now_ms + (named < NAMED_MOST_MS ? named : NAMED_MOST_MS);
    }
    l->next_take_ms = at > l->next_take_ms ? at : l->next_take_ms;
}

static void speed_up(struct job *j)
{
    struct lane *l = j->owner;
    if (j->has_slowed || j->has_sped_up || (l->n_jobs_max == 0 && l->gap_ms == 0))
        return;
    j->has_sped_up = true;
    l->gap_ms = l->gap_ms > 40 ? l->gap_ms * 3 / 4 : 0;
    if (l->n_jobs_max > 0 && ++l->n_good >= l->n_jobs_max) {
        l->n_good = 0;
        l->n_jobs_max = l->n_jobs_max < l->pub.relay->connections ? l->n_jobs_max + 1 : 0;
    }
}

static void pause_account(struct job *j, const struct hky_advance *a, const struct hky_outcome *o)
{
    struct lane *l = j->owner;
    struct hky_schedule *s = l->shard->s;
    int64_t now_ms = schedule_shard_mono(l->shard);
    char why[120];
    if (j->paused_sec >= a->pause_account_sec)
        return;
    j->paused_sec = a->pause_account_sec;
    snprintf(why, sizeof why, "%s: %.90s", hky_class_name(o->class), o->reply.text);
    pthread_mutex_lock(&s->lock);
    /* the window of the relay that was used: the one that the step names may be drained to it */
    uint32_t window_sec = o->class == HKY_CLASS_QUOTA_EXHAUSTED ? schedule_plan_quota_window_sec(l->pub.relay) : 0;
    bool is_news = schedule_gate_pause(l->gate, o->retry_after_sec > 0 ? a->pause_account_sec : window_sec,
                                       o->class == HKY_CLASS_RELAY_AUTH, now_ms, why);
    int64_t until_ms = l->gate->paused_until_ms;
    schedule_lane_update_blocked(l);
    pthread_mutex_unlock(&s->lock);
    if (is_news) {
        schedule_event_of_lane(l->shard, HKY_EVENT_RELAY_PAUSED, l, schedule_wall_at(s, until_ms), why);
        schedule_recheck(s, true);
    }
}

/* The end of the pause of the lane, by the wall clock. */
static int64_t gate_end(struct lane *l)
{
    pthread_mutex_lock(&l->shard->s->lock);
    int64_t until_ms = schedule_gate_closed_until_ms(l->gate);
    pthread_mutex_unlock(&l->shard->s->lock);
    return schedule_wall_at(l->shard->s, until_ms);
}

static void count(struct hky_recipient *r, const struct hky_outcome *o, const struct job *j, int64_t now_ms)
{
    hky_recipient_remember(r, now_ms, j->pub.lane->relay_name, o);
    r->attempts += r->attempts < UINT8_MAX;
    r->step_attempts += r->step_attempts < UINT8_MAX;
    r->tries += schedule_plan_uses_a_try(o) && r->tries < UINT8_MAX;
    r->ambiguous += o->class == HKY_CLASS_AMBIGUOUS && r->ambiguous < UINT8_MAX;
    r->last_class = (uint8_t)o->class;
}

/* Does what an operator asked for while it was being sent. False: nothing was asked for. */
static bool apply_operator_action(struct hky_shard *sh, struct hky_recipient *r, const struct hky_outcome *o,
                                  const struct job *j)
{
    enum hky_queue_action action = own(r)->operator_action;
    own(r)->operator_action = 0;
    if (action == HKY_QUEUE_CANCEL)
        schedule_recipient_finish(sh, r, HKY_RCPT_CANCELLED, o, "by an operator", j);
    else if (action == HKY_QUEUE_HOLD)
        schedule_recipient_hold_after(sh, r, "by an operator", o, j);
    return action != 0;
}

static void apply_advance(struct job *j, struct hky_recipient *r, const struct hky_outcome *o,
                          const struct hky_advance *a, int64_t now_ms)
{
    struct hky_shard *sh = j->owner->shard;
    struct event_details n = {.outcome = o, .job = j, .text = a->why};
    if (own(r)->operator_action == HKY_QUEUE_HOLD && a->action == HKY_ACTION_NEXT)
        schedule_recipient_enter_step(r, a->step, o->class, now_ms); /* when it is released, it goes on there */
    if (a->action != HKY_ACTION_DONE && apply_operator_action(sh, r, o, j))
        return;
    switch (a->action) {
    case HKY_ACTION_DONE:
        r->copies++;
        schedule_recipient_finish(sh, r, HKY_RCPT_DELIVERED, o, NULL, j);
        break;
    case HKY_ACTION_RETRY: {
        int64_t at = a->at_ms, end = a->pause_account_sec > 0 ? gate_end(j->owner) : 0;
        at = at < end ? end : at;
        at = at < r->expire_at_ms ? at : r->expire_at_ms;
        n.next_at_ms = at;
        schedule_recipient_defer(sh, r, at);
        schedule_recipient_journal(sh, r);
        schedule_event_of_recipient(sh, HKY_EVENT_DEFERRED, r, &n);
        break;
    }
    case HKY_ACTION_NEXT:
        schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
        schedule_recipient_enter_step(r, a->step, o->class, now_ms);
        schedule_recipient_journal(sh, r);
        schedule_event_of_recipient(sh, HKY_EVENT_ROUTED, r, &n);
        schedule_recipient_dispatch_later(sh, r);
        break;
    case HKY_ACTION_HOLD:
        schedule_recipient_hold_after(sh, r, a->why, o, j);
        break;
    default:
        schedule_recipient_finish(sh, r, o->class == HKY_CLASS_EXPIRED ? HKY_RCPT_EXPIRED : HKY_RCPT_FAILED, o, a->why,
                                  j);
        break;
    }
}

/* Did we get through to the server? A refusal in its greeting counts as yes, no answer counts as no. Trouble of this
 * machine says nothing about the server. */
static void judge_connection(struct job *j, const struct hky_outcome *o)
{
    if (o->reply.origin == HKY_ORIGIN_LOCAL && o->stage <= HKY_STAGE_CONNECT)
        return;
    bool is_tls = o->class == HKY_CLASS_TLS;
    if (!is_tls && (o->class != HKY_CLASS_NETWORK || o->stage > HKY_STAGE_GREETING)) {
        j->got_through = true;
    } else {
        j->failed_to_connect = true;
        j->failed_at_tls = is_tls;
        snprintf(j->why, sizeof j->why, "%s: %.90s", hky_stage_name(o->stage), o->reply.text);
    }
}

void hky_schedule_result(struct hky_job *pub, unsigned i, const struct hky_outcome *o)
{
    struct job *j = (struct job *)pub;
    struct lane *l = j->owner;
    struct hky_shard *sh = l->shard;
    HKY_ASSERT(i < pub->n && j->slots_of[i] != NULL);
    struct hky_recipient *r = j->slots_of[i];
    j->slots_of[i] = NULL;
    int64_t now_ms = schedule_shard_now(sh);
    counter_add(&sh->n.sending, -1);
    counter_add(&l->account->n_sending, -1);
    counter_add(&sh->n.attempts, 1);
    judge_connection(j, o);
    struct hky_advance a;
    hky_schedule_plan_advance(&(struct hky_advance_query){l->pub.policy, r, o, now_ms}, &a);
    count(r, o, j, now_ms);
    if (a.pause_account_sec > 0)
        pause_account(j, &a, o);
    if (a.slow_lane)
        slow_down(j, o);
    else if (o->class == HKY_CLASS_OK)
        speed_up(j);
    apply_advance(j, r, o, &a, now_ms);
}

/* ---- done ---- */

static void settle_gate(struct job *j, int64_t now_ms)
{
    struct lane *l = j->owner;
    struct hky_schedule *s = l->shard->s;
    bool is_failure = j->failed_to_connect && !j->got_through;
    if (!is_failure && !j->is_probe && __atomic_load_n(&l->gate->must_ask, __ATOMIC_ACQUIRE) == 0)
        return;
    enum hky_event_kind kind = is_failure ? HKY_EVENT_RELAY_PAUSED : HKY_EVENT_RELAY_RESUMED;
    pthread_mutex_lock(&s->lock);
    bool is_news = false;
    if (is_failure)
        is_news = schedule_gate_on_failure(l->gate, j->is_probe, j->failed_at_tls, now_ms, j->why);
    else if (j->got_through)
        is_news = schedule_gate_on_success(l->gate);
    else
        schedule_gate_on_unused(l->gate, j->is_probe, now_ms);
    int64_t until_ms = schedule_gate_closed_until_ms(l->gate);
    schedule_lane_update_blocked(l);
    pthread_mutex_unlock(&s->lock);
    if (is_news)
        schedule_event_of_lane(l->shard, kind, l, is_failure ? schedule_wall_at(s, until_ms) : 0,
                               is_failure ? j->why : NULL);
    if (is_news || j->is_probe)
        schedule_recheck(s, is_news);
}

static void put_back(struct job *j)
{
    struct hky_shard *sh = j->owner->shard;
    for (unsigned i = j->pub.n; i-- > 0;) {
        struct hky_recipient *r = j->slots_of[i];
        if (r == NULL)
            continue;
        schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
        counter_add(&sh->n.sending, -1);
        counter_add(&j->owner->account->n_sending, -1);
        if (apply_operator_action(sh, r, NULL, NULL))
            continue;
        if (j->owner->is_retired) {
            schedule_recipient_dispatch_later(sh, r);
            continue;
        }
        schedule_lane_push(j->owner, r, true);
        schedule_shard_set_due(sh, r,
                               schedule_recipient_gives_up_at(r, &r->plan->steps[r->step], schedule_shard_now(sh)));
    }
}

static void end(struct hky_job **pub, bool is_counted)
{
    struct job *j = (struct job *)*pub;
    struct lane *l = j->owner;
    struct hky_shard *sh = l->shard;
    int64_t now_ms = schedule_shard_mono(sh);
    *pub = NULL;
    put_back(j);
    if (is_counted)
        schedule_caps_done(sh->s->caps, &j->slots, now_ms);
    else
        schedule_caps_give_back(sh->s->caps, &j->slots, now_ms);
    settle_gate(j, now_ms);
    schedule_inflight_end(sh->s->inflight, sh->index, j->inflight_slot, hky_journal_submitted(sh->s->journal));
    TAILQ_REMOVE(&sh->jobs, j, link);
    hky_message_unref(&j->pub.message);
    stop_waiting(j);
    job_free(sh, j);
    l->n_jobs--;
    if (l->pub.n_ready > 0 && !l->is_retired)
        schedule_shard_wake(sh, l);
    else if (l->is_retired)
        schedule_shard_request_turn(sh);
}

void hky_schedule_done(struct hky_job **job, bool mail_sent)
{
    end(job, mail_sent);
}

void hky_schedule_give_back(struct hky_job **job)
{
    end(job, false);
}
