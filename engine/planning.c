/* The policy's decisions as the stages ask for them: on the worker's own vm, never waiting. */
#include "wiring.h"

#include "base/hash.h"

#include <stdio.h>

#define VM_RENEWAL_MS 10000 /* between two: it takes as long as loading the policy */

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
    } else {
        r->state = HKY_RCPT_PARKED;
        r->parked_at_ms = now_ms;
        r->reason = hky_strdup(d->text);
    }
    r->expire_at_ms = expiry(policy, r);
}

static void log_parked(struct hky_engine *engine, const struct hky_recipient *r, const char *why)
{
    char id[HKY_ID_TEXT];

    hky_id_format(r->message->id, id);
    hky_log(engine->log, HKY_LOG_WARN, "parked", "msg=%s rcpt=" HKY_STR_FMT " why=\"%s\"", id,
            HKY_STR_ARG(hky_recipient_address(r)), why);
}

/* The worker's vm; a new one when scripts have filled it, so that they cost nobody else's mail for long. */
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
            "worker=%u what=\"the scripts' variables took all of engine.bounds.lua_memory and begin anew\"", w->index);
    hky_vm_set_log(vm, w->engine->log);
    hky_where_free(&w->where);
    w->where_for = 0;
    hky_vm_free(&w->vm);
    w->vm = vm;
    return vm;
}

void hky_worker_plan(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header)
{
    struct hky_engine *engine = ctx;
    struct hky_vm *vm = vm_of(&engine->workers[worker]);
    int64_t now_ms = hky_clock_now_ms(engine->clock);

    for (uint32_t i = 0; i < m->n_recipients; i++) {
        struct hky_route_query q = {.message = m, .recipient = &m->recipients[i], .header = header, .now_ms = now_ms};
        struct hky_decision d = {0};
        hky_route_decide(vm, &q, &d);
        if (d.kind != HKY_DECIDED)
            log_parked(engine, &m->recipients[i], d.text);
        apply(hky_vm_policy(vm), &m->recipients[i], &d, now_ms);
    }
}

/* Of a message that is the journal's: read when the policy asks for it. */
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

void hky_worker_decide(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out)
{
    struct hky_engine *engine = ctx;
    struct header_of header = {engine->journal, r->message, NULL};
    struct hky_route_query q = {.message = r->message,
                                .recipient = r,
                                .now_ms = hky_clock_now_ms(engine->clock),
                                .header_read = header_read,
                                .header_ctx = &header};

    hky_route_decide(vm_of(&engine->workers[worker]), &q, out);
    hky_body_unref(&header.body);
}

bool hky_worker_where_holds(void *ctx, unsigned worker, const struct hky_recipient *r)
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
        holds = hky_where_holds(w->where, &q, &e);
    hky_body_unref(&header.body);
    if (e.text[0] != '\0' && !__atomic_exchange_n(&ask->is_where_wrong, true, __ATOMIC_RELAXED))
        snprintf(ask->where_error, sizeof ask->where_error, "%s", e.text);
    return holds;
}
