/* Makes the policy's decisions for the stages, on the worker's own vm and without blocking. */
#include "wiring.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

#define VM_RENEWAL_MS   10000   /* at least, between two: each takes as long as loading the policy */
#define PLANNED_TURN_NS 3000000 /* in one turn, before the 250; the schedule has the rest decided after it */
#define WAITS_MOST      1000    /* decisions of a worker that wait at a time */

static int64_t expiry(const struct hky_policy *policy, const struct hky_recipient *r)
{
    const struct hky_message *m = r->message;
    uint32_t sec =
        r->plan != NULL && r->plan->expire_sec != HKY_UNSET_SEC ? r->plan->expire_sec : policy->engine.expire_sec;
    int64_t at = m->accepted_at_ms + (int64_t)sec * 1000;

    return m->deadline_ms > 0 && m->deadline_ms < at ? m->deadline_ms : at;
}

static void apply(const struct hky_policy *policy, struct hky_recipient *r, struct hky_decision *d, int64_t now_ms)
{
    r->policy = (uint32_t)policy->hash;
    r->arms = d->arms;
    r->arms_n = d->arms_n;
    if (d->kind == HKY_DECIDED) {
        r->plan = d->plan;
        r->state = HKY_RCPT_QUEUED;
    } else if (d->kind == HKY_WAITS || d->kind == HKY_UNANSWERED) {
        r->state = HKY_RCPT_UNDECIDED;
    } else {
        r->state = HKY_RCPT_PARKED;
        r->parked_at_ms = now_ms;
        r->reason = hky_strdup(d->text);
    }
    r->expire_at_ms = expiry(policy, r);
}

/* The worker's vm. When scripts have filled it, a new one replaces it, so that other mail can be decided again soon. */
static struct hky_vm *vm_of(struct hky_worker *w)
{
    struct hky_vm *vm;
    struct hky_error e;

    if (!hky_vm_is_full(w->vm) || (w->vm_renewed_ms != 0 && hky_mono_ms() - w->vm_renewed_ms < VM_RENEWAL_MS))
        return w->vm;
    w->vm_renewed_ms = hky_mono_ms();
    if (hky_vm_new(hky_vm_policy(w->vm), &vm, &e) != HKY_OK)
        return w->vm;
    hky_log(w->engine->log, HKY_LOG_WARN, "policy",
            "worker=%u what=\"the scripts' variables took all of engine.bounds.lua_memory and were reset\"", w->index);
    hky_vm_set_log(vm, w->engine->log);
    hky_worker_set_vm(w, vm);
    return vm;
}

/* ---- before the 250 ---- */

static void on_turn_end(struct hky_task *task)
{
    struct hky_worker *w = HKY_CONTAINER(task, struct hky_worker, turn_end);

    w->is_turn_end_set = false;
    w->planned_ns = 0;
}

/* Is there time left in this turn for decisions? Other clients wait for the same loop. */
static bool has_time(struct hky_worker *w)
{
    return w->planned_ns < PLANNED_TURN_NS;
}

static void count_time(struct hky_worker *w, int64_t began_ns)
{
    w->planned_ns += hky_mono_ns() - began_ns;
    if (w->is_turn_end_set)
        return;
    w->is_turn_end_set = true;
    w->turn_end.run = on_turn_end;
    hky_loop_defer(w->loop, &w->turn_end);
}

void hky_worker_plan(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header)
{
    struct hky_engine *engine = ctx;
    struct hky_worker *w = &engine->workers[worker];
    struct hky_vm *vm = vm_of(w);
    int64_t now_ms = hky_clock_now_ms(engine->clock);

    for (uint32_t i = 0; i < m->n_recipients; i++) {
        struct hky_recipient *r = &m->recipients[i];
        struct hky_route_query q = {.message = m, .recipient = r, .header = header, .now_ms = now_ms};
        struct hky_decision d = {.kind = HKY_WAITS};
        if (has_time(w)) {
            int64_t began_ns = hky_mono_ns();
            hky_route_decide(vm, &q, &d);
            count_time(w, began_ns);
        }
        apply(hky_vm_policy(vm), r, &d, now_ms);
    }
}

/* The header of a message in the journal, which is read only when the policy asks for it. */
struct header_of {
    struct hky_journal *journal;
    struct hky_message *message;
    struct hky_body *body;
};

static bool header_read(void *ctx, struct hky_str *out)
{
    struct header_of *h = ctx;

    return hky_journal_header(h->journal, h->message, &h->body, out);
}

/* ---- after the 250: decisions that may wait for look-ups ---- */

struct hky_wait {
    TAILQ_ENTRY(hky_wait) link;
    struct hky_worker *worker;
    struct hky_recipient *recipient;
    struct hky_deciding *deciding; /* NULL: dropped with its vm; decided from the start next time */
};

static struct hky_str wait_key(const struct hky_recipient *const *r)
{
    return hky_str_of((const char *)r, sizeof *r);
}

static struct hky_wait *wait_find(const struct hky_worker *w, const struct hky_recipient *r)
{
    return w->waits.n > 0 ? hky_map_get(&w->waits, wait_key(&r)) : NULL;
}

/* wait_begin() adds it to the worker's waits, once it is known that the decision waits. */
static struct hky_wait *wait_new(struct hky_worker *w, const struct hky_recipient *r)
{
    struct hky_wait *wait = w->unused_wait != NULL ? w->unused_wait : hky_alloc(sizeof *wait);

    w->unused_wait = NULL;
    *wait = (struct hky_wait){.worker = w, .recipient = &r->message->recipients[r->index]};
    return wait;
}

static void wait_begin(struct hky_wait *wait)
{
    const struct hky_recipient *r = wait->recipient;

    TAILQ_INSERT_TAIL(&wait->worker->all_waits, wait, link);
    hky_map_put(&wait->worker->waits, wait_key(&r), wait);
}

static void wait_free(struct hky_wait *wait)
{
    const struct hky_recipient *r = wait->recipient;

    hky_deciding_drop(&wait->deciding);
    TAILQ_REMOVE(&wait->worker->all_waits, wait, link);
    hky_map_remove(&wait->worker->waits, wait_key(&r));
    free(wait);
}

static void on_answer(void *ctx)
{
    struct hky_wait *wait = ctx;

    hky_schedule_answered(wait->worker->engine->schedule, wait->worker->index, wait->recipient);
}

/* Resumes the decision about this recipient that waited for a look-up, or begins a new one. */
static void decide_or_wait(struct hky_worker *w, struct hky_vm *vm, const struct hky_route_query *q,
                           struct hky_decision *out)
{
    struct hky_wait *known = wait_find(w, q->recipient), *wait = known;

    if (known == NULL && w->waits.n >= WAITS_MOST) {
        hky_route_decide(vm, q, out); /* works if the decision needs no look-up */
        if (out->kind == HKY_WAITS)
            out->kind = HKY_CROWDED;
        return;
    }
    if (known == NULL)
        wait = wait_new(w, q->recipient);
    if (wait->deciding != NULL)
        hky_route_continue(&wait->deciding, q, on_answer, wait, out);
    else
        hky_route_begin(vm, q, on_answer, wait, &wait->deciding, out);
    if (out->kind == HKY_WAITS) {
        if (known == NULL)
            wait_begin(wait);
    } else if (known != NULL) {
        wait_free(known);
    } else {
        w->unused_wait = wait;
    }
}

void hky_worker_decide(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out)
{
    struct hky_engine *engine = ctx;
    struct hky_worker *w = &engine->workers[worker];
    struct header_of header = {engine->journal, r->message, NULL};
    struct hky_route_query q = {.message = r->message,
                                .recipient = r,
                                .now_ms = hky_clock_now_ms(engine->clock),
                                .header_read = header_read,
                                .header_ctx = &header};

    w->asked = r;
    decide_or_wait(w, vm_of(w), &q, out);
    w->asked = NULL;
    hky_body_unref(&header.body);
}

void hky_worker_forget(void *ctx, unsigned worker, const struct hky_recipient *r)
{
    struct hky_engine *engine = ctx;
    struct hky_wait *wait = wait_find(&engine->workers[worker], r);

    if (wait != NULL)
        wait_free(wait);
}

void hky_worker_drop_waits(struct hky_worker *w)
{
    struct hky_wait *wait;

    while ((wait = TAILQ_FIRST(&w->all_waits)) != NULL)
        wait_free(wait);
    hky_map_fini(&w->waits);
    free(w->unused_wait);
}

void hky_worker_set_vm(struct hky_worker *w, struct hky_vm *vm)
{
    struct hky_wait *wait;

    TAILQ_FOREACH (wait, &w->all_waits, link) {
        if (wait->deciding == NULL)
            continue;
        hky_deciding_drop(&wait->deciding);
        if (wait->recipient != w->asked) /* the caller that changes the vm begins that decision again */
            on_answer(wait);
    }
    hky_where_free(&w->where);
    w->where_for = 0;
    hky_lookups_set_policy(w->lookups, hky_vm_policy(vm));
    hky_vm_set_lookups(vm, w->lookups);
    hky_vm_free(&w->vm);
    w->vm = vm;
}

bool hky_worker_where_is_true(void *ctx, unsigned worker, const struct hky_recipient *r)
{
    struct hky_queue_ask *ask = ctx;
    struct hky_engine *engine = ask->engine;
    struct hky_worker *w = &engine->workers[worker];
    struct header_of header = {engine->journal, r->message, NULL};
    struct hky_route_query q = {.message = r->message,
                                .recipient = r,
                                .now_ms = hky_clock_now_ms(engine->clock),
                                .header_read = header_read,
                                .header_ctx = &header};
    struct hky_error e = {0};
    bool holds = false;

    if (w->where_for != ask->number) {
        hky_where_free(&w->where);
        w->where_for = ask->number;
        (void)hky_where_new(w->vm, hky_str_z(ask->rq.selection.where), &w->where, &e);
    }
    if (w->where != NULL)
        holds = hky_where_is_true(w->where, &q, &e);
    hky_body_unref(&header.body);
    ask->n_where_asked++;
    if (e.text[0] == '\0')
        return holds;
    ask->n_where_unread += e.code == HKY_E_STATE;
    if (ask->n_where_failed++ == 0 || (e.code != HKY_E_STATE && ask->n_where_failed == ask->n_where_unread + 1))
        snprintf(ask->where_error, sizeof ask->where_error, "%s", e.text);
    return false;
}
