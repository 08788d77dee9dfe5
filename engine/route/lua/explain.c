/* explain: the decision, and each route with the reason why it matched or not. */
#include "route/lua/decide.h"

#include <stdio.h>
#include <stdlib.h>

void hky_explanation_fini(struct hky_explanation *x)
{
    hky_plan_unref(&x->decision.plan);
    free(x->decision.arms);
    free(x->considered);
    for (size_t i = 0; i < x->n_notes; i++)
        free(x->notes[i]);
    free(x->notes);
    *x = (struct hky_explanation){0};
}

static void note_add(struct hky_explanation *x, const char *text)
{
    x->notes = hky_realloc(x->notes, (x->n_notes + 1) * sizeof *x->notes);
    x->notes[x->n_notes++] = hky_strdup(text);
}

struct considering {
    bool is_past, in_chain;
    uint32_t claimed; /* bits: the steps of the plan that a row has been found for */
};

static bool claim_step(struct considering *c, const struct hky_plan *plan, const char *relay)
{
    for (unsigned i = 0; i < plan->n_steps; i++)
        if ((c->claimed >> i & 1) == 0 && strcmp(plan->steps[i].relay, relay) == 0) {
            c->claimed |= UINT32_C(1) << i;
            return true;
        }
    return false;
}

static void consider(struct hky_asking *a, const struct hky_route *r, const struct hky_explanation *x,
                     struct considering *c, struct hky_considered *out)
{
    const struct hky_plan *plan = x->decision.plan;
    const char *failed = x->decision.failed_route;
    bool decides = x->decision.kind == HKY_DECIDED && strcmp(plan->route, r->name) == 0;
    bool waits = x->decision.kind == HKY_WAITS || x->decision.kind == HKY_UNANSWERED;
    bool fails = failed != NULL && !c->is_past && strcmp(failed, r->name) == 0;

    *out = (struct hky_considered){.route = r->name, .place = r->place};
    a->failed = NULL;
    a->is_unanswered = false;
    hky_vm_drop(a->vm, &a->call);
    out->matched = hky_asking_matches(a, r, out->why, sizeof out->why);
    c->is_past |= fails;
    if (!out->matched)
        return;
    if (fails) {
        snprintf(out->why, sizeof out->why, "matches, but %s",
                 waits ? "its look-up has no answer yet" : "its script failed");
    } else if (failed != NULL && c->is_past) {
        snprintf(out->why, sizeof out->why, "comes after \"%.100s\", whose %s", failed,
                 waits ? "look-up has no answer yet" : "script failed");
    } else if (decides) {
        snprintf(out->why, sizeof out->why, "decides");
        c->is_past = true;
        c->in_chain = r->is_row && !r->is_stop;
        c->claimed = 1;
    } else if (c->in_chain && r->is_row) {
        snprintf(out->why, sizeof out->why, "%s",
                 claim_step(c, plan, r->row_relay)    ? "is the fallback of the rows before"
                 : plan->n_steps < HKY_PLAN_STEPS_MAX ? "its account is in the plan already"
                                                      : "the plan is full");
        c->in_chain = !r->is_stop;
    } else if (c->is_past) {
        snprintf(out->why, sizeof out->why, "comes after \"%.100s\", which decides", plan->route);
    } else if (x->decision.kind == HKY_POLICY_ERROR && failed == NULL) {
        snprintf(out->why, sizeof out->why, "matches, but no plan can be made");
    } else {
        snprintf(out->why, sizeof out->why, "matches, but via gave nothing");
    }
}

void hky_route_explain(struct hky_vm *vm, const struct hky_route_query *q, struct hky_explanation *out)
{
    struct hky_asking a;
    struct considering c = {0};
    const struct hky_route_table *t = vm->table;

    *out = (struct hky_explanation){0};
    vm->wants_notes = true;
    hky_route_decide(vm, q, &out->decision);
    vm->wants_notes = false;
    for (size_t i = 0; i < t->n_notes; i++)
        note_add(out, t->notes[i]);
    for (size_t i = 0; i < vm->n_notes; i++) {
        note_add(out, vm->notes[i]);
        free(vm->notes[i]);
    }
    vm->n_notes = 0;
    out->considered = hky_calloc(t->n_routes + 1, sizeof *out->considered);
    hky_asking_begin(&a, vm, q);
    for (uint32_t i = 0; i < t->n_routes; i++)
        consider(&a, t->routes[i], out, &c, &out->considered[out->n_considered++]);
    if (a.mail_hosts != NULL)
        snprintf(out->mail_hosts, sizeof out->mail_hosts, "%s", a.mail_hosts->text);
    hky_vm_drop(vm, &a.call);
    hky_asking_end(&a);
}
