/* The decision: candidates in order, the first that gives a plan. */
#include "route/lua/decide.h"
#include "route/lua/read.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

#define PLANS_MAX 4096

/* --- plans that are kept --- */

static void plans_clear(struct hky_vm *vm)
{
    size_t at = 0;
    struct hky_map_entry *e;

    while ((e = hky_map_next(&vm->plans, &at)) != NULL) {
        struct hky_plan *p = e->value;
        hky_plan_unref(&p);
    }
    hky_map_fini(&vm->plans);
    hky_map_init(&vm->plans);
}

static void plan_keep(struct hky_vm *vm, struct hky_plan *plan)
{
    if (vm->plans.n >= PLANS_MAX)
        plans_clear(vm);
    hky_map_put(&vm->plans, hky_buf_str(&vm->scratch), hky_plan_ref(plan));
}

/* --- rows: all that match, in order, as one plan --- */

struct chain {
    const struct hky_route *rows[HKY_PLAN_STEPS_MAX];
    uint32_t positions[HKY_PLAN_STEPS_MAX];
    unsigned n;
};

static void chain_add(struct chain *c, const struct hky_route *row, uint32_t position)
{
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->rows[i]->row_relay, row->row_relay) == 0 ||
            strcmp(c->rows[i]->row_account, row->row_account) == 0)
            return; /* an account comes once in a plan: a second attempt by it would get the same answer */
    if (c->n < HKY_PLAN_STEPS_MAX) {
        c->rows[c->n] = row;
        c->positions[c->n++] = position;
    }
}

static struct hky_plan *chain_plan(struct hky_vm *vm, const struct chain *c, struct hky_error *e)
{
    struct hky_plan draft, *plan;

    if (c->n == 1)
        return hky_plan_ref(c->rows[0]->plan);
    hky_buf_clear(&vm->scratch);
    hky_buf_add_z(&vm->scratch, "rows");
    hky_buf_add(&vm->scratch, c->positions, c->n * sizeof c->positions[0]);
    if ((plan = hky_map_get(&vm->plans, hky_buf_str(&vm->scratch))) != NULL)
        return hky_plan_ref(plan);
    draft = *c->rows[0]->plan;
    for (unsigned i = 1; i < c->n; i++)
        draft.steps[draft.n_steps++] = c->rows[i]->plan->steps[0];
    if (hky_plan_new(&draft, &plan, e) != HKY_OK)
        return NULL;
    plan_keep(vm, plan);
    return plan;
}

/* --- experiments --- */

static void arms_set(struct hky_decision *out, const struct hky_recipient *r, const char *experiment, const char *arm)
{
    struct hky_str old = hky_str_of(r->arms, r->arms_n), name, value;
    struct hky_buf b;
    size_t at = 0, n;

    hky_buf_init(&b, 65536);
    while (old.p != NULL && hky_packed_next(old, &at, &name) && hky_packed_next(old, &at, &value)) {
        if (hky_str_eq(name, hky_str_z(experiment)))
            continue;
        hky_buf_add_str(&b, name);
        hky_buf_add_c(&b, 0);
        hky_buf_add_str(&b, value);
        hky_buf_add_c(&b, 0);
    }
    hky_buf_add(&b, experiment, strlen(experiment) + 1);
    hky_buf_add(&b, arm, strlen(arm) + 1);
    out->arms = hky_buf_take(&b, &n);
    out->arms_n = (uint32_t)n;
}

static const struct hky_arm *arm_choose(const struct hky_asking *a, const struct hky_split *s)
{
    const struct hky_recipient *r = a->q->recipient;
    struct hky_str recorded = r->arms != NULL ? hky_str_of(r->arms, r->arms_n) : hky_str_of("", 0);
    char id[HKY_ID_TEXT];

    if (!s->is_by_message)
        return hky_split_choose(s, a->vm->table->zone, a->q->now_ms, recorded,
                                hky_str_of(a->vm->key.text, a->vm->key.n));
    hky_id_format(a->q->message->id, id);
    return hky_split_choose(s, a->vm->table->zone, a->q->now_ms, recorded, hky_str_z(id));
}

/* --- plans that functions give --- */

struct via_run {
    const struct hky_asking *a;
    const struct hky_route *route;
    uint32_t position;
    int ref;
    struct hky_plan *plan; /* counted */
    char experiment[HKY_NAME_MAX + 1], arm[HKY_NAME_MAX + 1];
};

static void plan_give(lua_State *L, struct via_run *run, int index)
{
    struct hky_vm *vm = run->a->vm;
    struct hky_plan draft, *plan;
    struct hky_error e;
    const char *what = run->route->what;

    draft.n_steps = 0;
    if (!hky_lua_read_plan(L, index, what, (struct hky_place){"", 0}, &draft))
        return;
    hky_buf_clear(&vm->scratch);
    hky_buf_add_u32(&vm->scratch, run->position);
    hky_lua_plan_key(&draft, &vm->scratch);
    if ((plan = hky_map_get(&vm->plans, hky_buf_str(&vm->scratch))) != NULL) {
        run->plan = hky_plan_ref(plan);
        return;
    }
    {
        struct hky_plan whole = *run->route->draft;
        whole.n_steps = draft.n_steps;
        memcpy(whole.steps, draft.steps, draft.n_steps * sizeof draft.steps[0]);
        if (hky_plan_new(&whole, &plan, &e) != HKY_OK)
            luaL_error(L, "%s: via: %s", what, e.text);
    }
    plan_keep(vm, plan);
    run->plan = plan;
}

static void split_give(lua_State *L, struct via_run *run, int index)
{
    struct hky_split_ud *ud = lua_touserdata(L, index);
    struct hky_split *s = hky_lua_read_split(L, &run->a->vm->temp, index, run->route->draft, (struct hky_place){"", 0});
    const struct hky_arm *arm = s != NULL ? arm_choose(run->a, s) : NULL;

    if (arm == NULL)
        luaL_error(L, "split \"%s\": no arm has a share", ud->name);
    lua_getiuservalue(L, index, 1);
    lua_rawgeti(L, -1, (lua_Integer)(arm - s->arms) + 1);
    hky_key_get(L, lua_gettop(L), "via");
    plan_give(L, run, lua_gettop(L));
    snprintf(run->experiment, sizeof run->experiment, "%s", s->name);
    snprintf(run->arm, sizeof run->arm, "%s", arm->name);
}

static int via_end(lua_State *L, int status, lua_KContext ctx)
{
    struct via_run *run = (struct via_run *)ctx;
    int result = lua_gettop(L);

    (void)status;
    if (lua_isnil(L, result))
        return 0;
    if (hky_lua_is_kind(L, result, HKY_UD_SPLIT))
        split_give(L, run, result);
    else
        plan_give(L, run, result);
    return 0;
}

static int via_body(lua_State *L)
{
    struct via_run *run = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, run->ref);
    hky_lua_push_r(L);
    lua_callk(L, 1, 1, (lua_KContext)run, via_end);
    return via_end(L, LUA_OK, (lua_KContext)run);
}

/* --- the decision --- */

/* One decision under way: where it is among the candidates. */
struct hky_deciding {
    struct hky_asking a;
    struct hky_candidates candidates;
    struct chain chain;
    const struct hky_route *route; /* the route that is examined */
    uint32_t position;
    bool is_at_via; /* its conditions hold */
    struct hky_call *call;
    struct via_run via;
};

enum search_state { CONTINUES, ENDS, WAITS };

static void failed(struct hky_decision *out, const struct hky_vm *vm, uint32_t fn)
{
    const struct hky_fn_decl *d = &vm->table->fns[fn];
    const char *text = vm->error;
    size_t n = strlen(d->place.file);

    out->kind = HKY_POLICY_ERROR;
    out->place = d->place;
    if (strncmp(text, d->place.file, n) == 0 && text[n] == ':') {
        unsigned long line = strtoul(text + n + 1, NULL, 10);
        if (line > 0)
            out->place.line = (uint32_t)line;
        snprintf(out->text, sizeof out->text, "%.199s", text);
    } else {
        snprintf(out->text, sizeof out->text, "%.60s:%u: %.130s", d->place.file, d->place.line, text);
    }
}

static void decided(struct hky_decision *out, struct hky_plan *plan, const struct hky_route *r)
{
    out->kind = HKY_DECIDED;
    out->plan = plan;
    out->place = r->place;
}

static enum search_state via_result(struct hky_deciding *d, enum hky_fn_result result, struct hky_decision *out)
{
    const struct hky_route *r = d->route;
    struct via_run *run = &d->via;

    switch (result) {
    case HKY_FN_WAITS:
        return WAITS;
    case HKY_FN_FAILED:
        hky_plan_unref(&run->plan);
        failed(out, d->a.vm, r->via_fn);
        out->failed_route = r->name;
        return ENDS;
    case HKY_FN_OK:
        break;
    }
    if (run->plan == NULL)
        return CONTINUES;
    if (run->experiment[0] != 0)
        arms_set(out, d->a.q->recipient, run->experiment, run->arm);
    decided(out, run->plan, r);
    run->plan = NULL;
    return ENDS;
}

static enum search_state route_ask(struct hky_deciding *d, struct hky_decision *out)
{
    const struct hky_route *r = d->route;
    const struct hky_arm *arm;

    switch (r->via) {
    case HKY_VIA_PLAN:
        decided(out, hky_plan_ref(r->plan), r);
        return ENDS;
    case HKY_VIA_SPLIT:
        if ((arm = arm_choose(&d->a, r->split)) == NULL)
            return CONTINUES;
        arms_set(out, d->a.q->recipient, r->split->name, arm->name);
        decided(out, hky_plan_ref(arm->plan), r);
        return ENDS;
    case HKY_VIA_FUNCTION:
        d->is_at_via = true;
        d->via = (struct via_run){.a = &d->a, .route = r, .position = d->position, .ref = d->a.vm->fns[r->via_fn].ref};
        return via_result(d, hky_fn_run(d->a.vm, r->via_fn, via_body, &d->via, &d->call), out);
    case HKY_VIA_ROW: /* rows make one plan together */
        break;
    }
    return CONTINUES;
}

static inline enum search_state after_conditions(struct hky_deciding *d, bool matches, struct hky_decision *out)
{
    if (matches && d->route->is_row) {
        chain_add(&d->chain, d->route, d->position);
        return d->route->is_stop ? ENDS : CONTINUES;
    }
    if (matches)
        return route_ask(d, out);
    if (d->a.call != NULL)
        return WAITS;
    if (d->a.is_unanswered) { /* later routes are only for recipients whom this route is known not to match */
        out->kind = HKY_UNANSWERED;
        out->failed_route = d->route->name;
        snprintf(out->text, sizeof out->text, "%.199s",
                 d->a.mail_hosts != NULL ? d->a.mail_hosts->text : "mail hosts are not looked up here");
        d->chain.n = 0;
        return ENDS;
    }
    if (d->a.failed == NULL)
        return CONTINUES;
    failed(out, d->a.vm, d->a.failed_fn);
    out->failed_route = d->route->name;
    d->chain.n = 0;
    return ENDS;
}

static inline enum search_state route_next(struct hky_deciding *d, struct hky_decision *out)
{
    do {
        d->route = hky_candidates_next(&d->candidates, d->a.vm->table, &d->position);
        if (d->route == NULL)
            return ENDS;
    } while (d->chain.n > 0 && !d->route->is_row);
    d->is_at_via = false;
    return after_conditions(d, hky_asking_matches(&d->a, d->route, NULL, 0), out);
}

static void chain_end(struct hky_deciding *d, struct hky_decision *out)
{
    struct hky_error e = {0};
    struct hky_plan *plan = chain_plan(d->a.vm, &d->chain, &e);

    if (plan != NULL) {
        decided(out, plan, d->chain.rows[0]);
    } else {
        out->kind = HKY_POLICY_ERROR;
        snprintf(out->text, sizeof out->text, "%.199s", e.text);
    }
}

/* The result does not count, because a header that a script or a condition asked for was not at hand. */
static void not_read(struct hky_decision *out)
{
    hky_plan_unref(&out->plan);
    free(out->arms);
    out->arms = NULL;
    out->arms_n = 0;
    out->kind = HKY_UNREAD;
    snprintf(out->text, sizeof out->text, "the header of the message is being read");
}

static inline struct hky_deciding *deciding_new(struct hky_vm *vm)
{
    struct hky_deciding *d = vm->unused_deciding;

    if (d == NULL)
        return hky_alloc(sizeof *d);
    vm->unused_deciding = NULL;
    return d;
}

static inline void deciding_free(struct hky_deciding *d)
{
    struct hky_vm *vm = d->a.vm;

    if (vm->unused_deciding == NULL)
        vm->unused_deciding = d;
    else
        free(d);
}

/* Drop calls that wait: the decision is over, or nobody will resume it. */
static void drop_calls(struct hky_deciding *d)
{
    hky_vm_drop(d->a.vm, &d->a.call);
    hky_vm_drop(d->a.vm, &d->call);
}

static inline void out_init(struct hky_decision *out, const struct hky_vm *vm)
{
    out->kind = HKY_NO_ROUTE;
    out->plan = NULL;
    out->policy = (uint32_t)vm->policy->hash;
    out->arms = NULL;
    out->arms_n = 0;
    out->failed_route = NULL;
    out->place = (struct hky_place){"", 0};
    snprintf(out->text, sizeof out->text, "no_route: no route takes this recipient");
}

/* Run the decision to its end, or to its next wait. */
static inline void search(struct hky_deciding *d, enum search_state verdict, struct hky_deciding **waits,
                          struct hky_decision *out)
{
    struct hky_vm *vm = d->a.vm;

    while (verdict == CONTINUES)
        verdict = route_next(d, out);
    if (verdict == WAITS && !vm->is_header_missing) {
        out->kind = HKY_WAITS;
        out->failed_route = d->route->name;
        if (d->a.call != NULL && d->a.is_at_mx)
            snprintf(out->text, sizeof out->text, "the mail hosts of %.*s are being looked up",
                     HKY_STR_ARG(hky_recipient_domain(d->a.q->recipient)));
        else
            snprintf(out->text, sizeof out->text, "a look-up of \"%.100s\" is under way", d->route->name);
        hky_asking_pause(&d->a);
        *waits = d;
        return;
    }
    if (d->chain.n > 0 && verdict == ENDS)
        chain_end(d, out);
    if (vm->is_header_missing) {
        drop_calls(d);
        hky_ticket_end(vm->lookups, &vm->ticket);
        not_read(out);
    }
    if (out->kind == HKY_DECIDED)
        out->text[0] = 0;
    hky_asking_end(&d->a);
    deciding_free(d);
}

static inline struct hky_deciding *begin(struct hky_vm *vm, const struct hky_route_query *q, struct hky_decision *out)
{
    struct hky_deciding *d = deciding_new(vm);

    out_init(out, vm);
    d->chain.n = 0;
    d->call = NULL;
    hky_asking_begin(&d->a, vm, q);
    hky_candidates_init(&d->candidates, vm->table, &vm->key, hky_message_fact(q->message, HKY_FACT_SCENARIO));
    return d;
}

void hky_route_begin(struct hky_vm *vm, const struct hky_route_query *q, void (*ready)(void *ctx), void *ctx,
                     struct hky_deciding **waits, struct hky_decision *out)
{
    *waits = NULL;
    vm->ready = ready;
    vm->ready_ctx = ctx;
    search(begin(vm, q, out), CONTINUES, waits, out);
}

void hky_route_continue(struct hky_deciding **waits, const struct hky_route_query *q, void (*ready)(void *ctx),
                        void *ctx, struct hky_decision *out)
{
    struct hky_deciding *d = *waits;
    struct hky_vm *vm = d->a.vm;
    enum search_state verdict;

    *waits = NULL;
    vm->ready = ready;
    vm->ready_ctx = ctx;
    out_init(out, vm);
    hky_asking_continue(&d->a, q);
    if (d->is_at_via)
        verdict = via_result(d, hky_fn_resume(vm, d->route->via_fn, &d->call), out);
    else
        verdict = after_conditions(d, hky_asking_resume_match(&d->a, d->route, NULL, 0), out);
    search(d, verdict, waits, out);
}

void hky_deciding_drop(struct hky_deciding **waits)
{
    struct hky_deciding *d = *waits;

    *waits = NULL;
    if (d == NULL)
        return;
    drop_calls(d);
    hky_mailhosts_unref(&d->a.mail_hosts);
    hky_ticket_end(d->a.vm->lookups, &d->a.ticket);
    deciding_free(d);
}

void hky_route_decide(struct hky_vm *vm, const struct hky_route_query *q, struct hky_decision *out)
{
    struct hky_deciding *waits;

    hky_route_begin(vm, q, NULL, NULL, &waits, out);
    if (waits != NULL)
        hky_deciding_drop(&waits);
}

void hky_vm_set_lookups(struct hky_vm *vm, struct hky_lookups *lookups)
{
    vm->lookups = lookups;
}
