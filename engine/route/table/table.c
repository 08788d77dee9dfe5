#include "route/table/table.h"

#include "base/hash.h"
#include "hikyaku/message.h"

#include <math.h>
#include <stdlib.h>

struct hky_route_table *hky_route_table_new(void)
{
    struct hky_route_table *t = hky_calloc(1, sizeof *t);

    hky_map_init(&t->fn_by_key);
    hky_map_init(&t->by_address);
    hky_map_init(&t->by_domain);
    hky_map_init(&t->by_parent);
    hky_map_init(&t->by_scenario);
    return t;
}

static void positions_map_fini(struct hky_map *m)
{
    size_t at = 0;
    struct hky_map_entry *e;

    while ((e = hky_map_next(m, &at)) != NULL) {
        struct hky_positions *p = e->value;
        free(p->at);
        free(p);
    }
    hky_map_fini(m);
}

static void route_fini(struct hky_route *r)
{
    hky_set_unref(&r->to.set);
    hky_set_unref(&r->except.set);
    hky_set_unref(&r->sender.set);
    hky_set_unref(&r->author.set);
    hky_set_unref(&r->mx.set);
    hky_plan_unref(&r->plan);
    for (uint32_t i = 0; r->split != NULL && i < r->split->n_arms; i++)
        hky_plan_unref(&r->split->arms[i].plan);
}

void hky_route_table_free(struct hky_route_table **table)
{
    struct hky_route_table *t = *table;

    *table = NULL;
    if (t == NULL)
        return;
    for (uint32_t i = 0; i < t->n_routes; i++)
        route_fini(t->routes[i]);
    hky_set_unref(&t->only_to.set);
    for (uint32_t i = 0; i < t->n_lists; i++) {
        hky_set_unref(&t->lists[i]->set);
        pthread_mutex_destroy(&t->lists[i]->lock);
    }
    for (uint32_t i = 0; i < t->n_sets; i++)
        hky_set_unref(&t->sets[i].set);
    for (size_t i = 0; i < t->n_notes; i++)
        free(t->notes[i]);
    free(t->notes);
    free(t->routes);
    free(t->lists);
    free(t->sets);
    free(t->env);
    free(t->files);
    free(t->fns);
    free(t->others.at);
    hky_map_fini(&t->fn_by_key);
    positions_map_fini(&t->by_address);
    positions_map_fini(&t->by_domain);
    positions_map_fini(&t->by_parent);
    positions_map_fini(&t->by_scenario);
    hky_zone_free(&t->zone);
    hky_arena_fini(&t->arena);
    free(t);
}

uint32_t hky_route_table_add_fn(struct hky_route_table *t, const char *key, const char *what, struct hky_place place)
{
    void *known = hky_map_get(&t->fn_by_key, hky_str_z(key));

    if (known != NULL)
        return (uint32_t)((uintptr_t)known - 1);
    if (t->n_fns == t->cap_fns) {
        t->cap_fns = t->cap_fns ? t->cap_fns * 2 : 16;
        t->fns = hky_realloc(t->fns, t->cap_fns * sizeof *t->fns);
    }
    t->fns[t->n_fns] = (struct hky_fn_decl){hky_arena_z(&t->arena, key), hky_arena_z(&t->arena, what), place};
    hky_map_put(&t->fn_by_key, hky_str_z(key), (void *)(uintptr_t)(t->n_fns + 1));
    return t->n_fns++;
}

static void positions_add(struct hky_positions *p, uint32_t position)
{
    if (p->n > 0 && p->at[p->n - 1] == position)
        return;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 1;
        p->at = hky_realloc(p->at, p->cap * sizeof *p->at);
    }
    p->at[p->n++] = position;
}

static void map_add(struct hky_map *m, struct hky_str key, uint32_t position)
{
    struct hky_positions *p = hky_map_get(m, key);

    if (p == NULL) {
        p = hky_calloc(1, sizeof *p);
        hky_map_put(m, key, p);
    }
    positions_add(p, position);
}

static void map_add_keys(struct hky_map *m, const struct hky_map *keys, uint32_t position)
{
    size_t at = 0;
    struct hky_map_entry *e;

    while ((e = hky_map_next(keys, &at)) != NULL)
        map_add(m, hky_str_of(e->key, e->n), position);
}

static int route_order(const void *a, const void *b)
{
    const struct hky_route *x = *(struct hky_route *const *)a, *y = *(struct hky_route *const *)b;

    if (x->is_override != y->is_override)
        return x->is_override ? -1 : 1;
    if (!x->is_override && (x->scenarios != NULL) != (y->scenarios != NULL))
        return x->scenarios != NULL ? -1 : 1;
    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    return x->written < y->written ? -1 : x->written > y->written;
}

void hky_route_table_index(struct hky_route_table *t)
{
    if (t->n_routes > 1)
        qsort(t->routes, t->n_routes, sizeof t->routes[0], route_order);
    for (uint32_t i = 0; i < t->n_routes; i++) {
        const struct hky_route *r = t->routes[i];
        if (r->to.set->is_everyone || r->to.n_lists > 0) {
            if (r->scenarios == NULL)
                positions_add(&t->others, i);
            else
                for (size_t k = 0; r->scenarios[k] != NULL; k++)
                    map_add(&t->by_scenario, hky_str_z(r->scenarios[k]), i);
            continue;
        }
        map_add_keys(&t->by_address, &r->to.set->addresses, i);
        map_add_keys(&t->by_domain, &r->to.set->domains, i);
        map_add_keys(&t->by_parent, &r->to.set->parents, i);
    }
}

static void candidates_add(struct hky_candidates *c, const struct hky_map *m, struct hky_str key)
{
    const struct hky_positions *p = m->n > 0 ? hky_map_get(m, key) : NULL;

    if (p != NULL && c->n < HKY_SOURCES_MAX) {
        c->source[c->n] = p;
        c->at[c->n++] = 0;
    }
}

void hky_candidates_init(struct hky_candidates *c, const struct hky_route_table *t, const struct hky_match_key *to,
                         struct hky_str scenario)
{
    struct hky_str domain = hky_str_of(to->text + to->domain_at, (size_t)(to->n - to->domain_at));

    c->n = 0;
    if (t->others.n > 0) {
        c->source[c->n] = &t->others;
        c->at[c->n++] = 0;
    }
    if (scenario.n > 0)
        candidates_add(c, &t->by_scenario, scenario);
    candidates_add(c, &t->by_address, hky_str_of(to->text, to->n));
    candidates_add(c, &t->by_domain, domain);
    if (t->by_parent.n == 0)
        return;
    for (size_t i = 0; i < domain.n; i++)
        if (domain.p[i] == '.')
            candidates_add(c, &t->by_parent, hky_str_of(domain.p + i + 1, domain.n - i - 1));
}

const struct hky_route *hky_candidates_next(struct hky_candidates *c, const struct hky_route_table *t,
                                            uint32_t *position)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < c->n; i++)
        if (c->at[i] < c->source[i]->n && c->source[i]->at[c->at[i]] < best)
            best = c->source[i]->at[c->at[i]];
    if (best == UINT32_MAX)
        return NULL;
    for (uint32_t i = 0; i < c->n; i++)
        if (c->at[i] < c->source[i]->n && c->source[i]->at[c->at[i]] == best)
            c->at[i]++;
    *position = best;
    return t->routes[best];
}

double hky_split_hash(struct hky_str salt, struct hky_str text)
{
    uint64_t h = hky_hash64(text.p, text.n, hky_hash64(salt.p, salt.n, 0));

    return (double)(h >> 11) * 0x1.0p-53;
}

double hky_arm_share_on(const struct hky_arm *a, int64_t day)
{
    if (!a->is_ramp)
        return a->share;
    day -= a->ramp_start;
    if (day < 0)
        return 0;
    return (double)a->ramp[day < a->n_ramp ? day : a->n_ramp - 1];
}

double hky_arm_share(const struct hky_arm *a, const struct hky_zone *zone, int64_t now_ms)
{
    return a->is_ramp ? hky_arm_share_on(a, hky_zone_day(zone, now_ms / 1000)) : a->share;
}

static const struct hky_arm *arm_recorded(const struct hky_split *s, struct hky_str arms)
{
    size_t at = 0;
    struct hky_str experiment, arm;

    while (hky_packed_next(arms, &at, &experiment) && hky_packed_next(arms, &at, &arm)) {
        if (!hky_str_eq(experiment, hky_str_z(s->name)))
            continue;
        for (uint32_t i = 0; i < s->n_arms; i++)
            if (hky_str_eq(arm, hky_str_z(s->arms[i].name)))
                return &s->arms[i];
    }
    return NULL;
}

const struct hky_arm *hky_split_choose(const struct hky_split *s, const struct hky_zone *zone, int64_t now_ms,
                                       struct hky_str recorded_arms, struct hky_str subject)
{
    const struct hky_arm *a = recorded_arms.n > 0 ? arm_recorded(s, recorded_arms) : NULL;
    double share[HKY_ARMS_MAX], sum = 0, at = 0, u;

    if (a != NULL)
        return a;
    for (uint32_t i = 0; i < s->n_arms; i++) {
        share[i] = s->arms[i].is_rest ? 0 : hky_arm_share(&s->arms[i], zone, now_ms);
        sum += share[i];
    }
    u = hky_split_hash(hky_str_z(s->name), subject) * 100;
    for (uint32_t i = 0; i < s->n_arms; i++) {
        at += s->arms[i].is_rest ? fmax(0, 100 - sum) : share[i];
        if (u < at)
            return &s->arms[i];
    }
    for (uint32_t i = s->n_arms; i > 0; i--)
        if (s->arms[i - 1].is_rest || share[i - 1] > 0)
            return &s->arms[i - 1];
    return NULL;
}

void hky_policy_each_scenario(const struct hky_policy *p, void (*each)(void *ctx, const char *name), void *ctx)
{
    for (uint32_t i = 0; i < p->table->n_routes; i++)
        for (const char *const *s = p->table->routes[i]->scenarios; s != NULL && *s != NULL; s++)
            each(ctx, *s);
    for (uint32_t i = 0; i < p->engine.n_listen; i++)
        for (uint32_t k = 0; k < p->engine.listen[i].n_users; k++)
            for (const char *const *s = p->engine.listen[i].users[k].scenarios; s != NULL && *s != NULL; s++)
                each(ctx, *s);
}
