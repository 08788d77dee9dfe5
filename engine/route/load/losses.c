/* Warnings of check: policies that look right and lose mail, or do not send it. */
#include "route/load/loader.h"

#include "base/duration.h"
#include "base/nearest.h"

#include <stdio.h>
#include <stdlib.h>

static const char *kind_of(const struct hky_route *r)
{
    return r->is_row ? "row" : "route";
}

/* Does the route take everybody in its `to`, whatever the message is? A function in `via` may still decline; its answer
 * is not known here. */
static bool is_unconditional(const struct hky_route *r)
{
    return !r->sender.is_stated && !r->author.is_stated && !r->mx.is_stated && r->scenarios == NULL &&
           r->tags == NULL && r->n_headers == 0 && r->when == HKY_NO_FN;
}

static bool has_list(const struct hky_route_table *t, const struct hky_list *list)
{
    for (uint32_t i = 0; i < t->n_routes; i++)
        for (uint32_t k = 0; k < t->routes[i]->to.n_lists; k++)
            if (t->routes[i]->to.lists[k] == list && is_unconditional(t->routes[i]) && !t->routes[i]->except.is_stated)
                return true;
    return false;
}

/* The set of all recipients that some route takes, whatever the message is. */
static struct hky_set *taken_by_all(const struct hky_route_table *t)
{
    struct hky_set *taken = hky_set_new();

    for (uint32_t i = 0; i < t->n_routes; i++)
        if (is_unconditional(t->routes[i]) && !t->routes[i]->except.is_stated)
            hky_set_add_all(taken, t->routes[i]->to.set);
    return taken;
}

/* Does this route take everybody, or do other routes take all whom it excepts? */
static bool takes_everybody(const struct hky_route_table *t, const struct hky_route *r, const struct hky_set *taken)
{
    bool all = r->to.set->is_everyone && is_unconditional(r);

    if (!all || !r->except.is_stated)
        return all;
    all = hky_set_is_subset(r->except.set, taken);
    for (uint32_t k = 0; all && k < r->except.n_lists; k++)
        all = has_list(t, r->except.lists[k]);
    return all;
}

static bool is_rest_there(const struct hky_route_table *t)
{
    struct hky_set *taken = taken_by_all(t);
    bool is_there = false;

    for (uint32_t i = 0; i < t->n_routes && !is_there; i++)
        is_there = takes_everybody(t, t->routes[i], taken);
    hky_set_unref(&taken);
    return is_there;
}

static void check_rest(struct hky_loader *l)
{
    const struct hky_route_table *t = l->table;
    const struct hky_policy *p = l->policy;
    const struct hky_route *last = NULL;
    char how_long[HKY_DURATION_TEXT];

    if (t->n_routes == 0 || t->only_to.is_stated || is_rest_there(t)) /* with only_to, the others get no mail anyway */
        return;
    for (uint32_t i = 0; i < t->n_routes; i++)
        if (last == NULL || t->routes[i]->written > last->written)
            last = t->routes[i];
    hky_loader_complain(
        l, last->place, true,
        "no route takes every recipient: mail that matches none of them, failure notices among it, is parked and "
        "returned after %s (engine.parked); write route \"rest\" { priority = 900, to = \"*\", via = \"%s\" }",
        hky_duration_format(p->engine.parked_sec, how_long), p->n_relays > 0 ? p->relays[0].name : "RELAY");
}

static bool excludes_all(const struct hky_route *r)
{
    return r->except.is_stated && r->to.n_lists == 0 && hky_set_is_subset(r->to.set, r->except.set);
}

static void check_excepts(struct hky_loader *l)
{
    for (uint32_t i = 0; i < l->table->n_routes; i++) {
        const struct hky_route *r = l->table->routes[i];
        if (excludes_all(r))
            hky_loader_complain(l, r->place, true, "%s \"%s\" matches nobody: except has everybody that to has",
                                kind_of(r), r->name);
    }
}

/* Does the plan consist only of relays that the policy itself pauses? */
static void check_paused(struct hky_loader *l)
{
    for (uint32_t i = 0; i < l->table->n_routes; i++) {
        const struct hky_route *r = l->table->routes[i];
        unsigned n_paused = 0;
        if (r->plan == NULL || r->is_row)
            continue;
        for (unsigned k = 0; k < r->plan->n_steps; k++) {
            const struct hky_relay *relay = hky_policy_serving_relay(l->policy, hky_str_z(r->plan->steps[k].relay));
            n_paused += relay != NULL && relay->is_paused;
        }
        if (n_paused == r->plan->n_steps && n_paused > 0)
            hky_loader_complain(
                l, r->place, true,
                "route \"%s\": every relay of its plan has paused = true, so that its mail waits and is returned "
                "in the end",
                r->name);
    }
}

/* --- rows that make one plan --- */

struct chain {
    const char *relays[HKY_PLAN_STEPS_MAX + 1];
    unsigned n;
    const struct hky_route *over; /* the first row for which the plan has no step left */
    bool is_ended;
};

/* Add the row's relay as one more step, unless the chain has this relay already or was ended by an earlier row. */
static void chain_add(struct chain *c, const struct hky_route *r)
{
    if (!r->is_row || !is_unconditional(r) || r->except.is_stated || c->is_ended || c->n > HKY_PLAN_STEPS_MAX)
        return;
    c->is_ended = r->is_stop;
    for (unsigned i = 0; i < c->n; i++)
        if (strcmp(c->relays[i], r->row_relay) == 0)
            return;
    if (c->n == HKY_PLAN_STEPS_MAX)
        c->over = r;
    c->relays[c->n++] = r->row_relay;
}

static bool chain_warn(struct hky_loader *l, const struct chain *c, const char *who)
{
    if (c->over == NULL)
        return false;
    hky_loader_complain(
        l, c->over->place, true,
        "row \"%s\" is never used for %s: a plan has at most %d steps, and the rows before it make that many",
        c->over->name, who, HKY_PLAN_STEPS_MAX);
    return true;
}

static bool check_chains_of(struct hky_loader *l, const struct hky_map *positions)
{
    const struct hky_positions *others = &l->table->others;
    struct hky_map_entry *e;
    size_t at = 0;

    while ((e = hky_map_next(positions, &at)) != NULL) {
        const struct hky_positions *mine = e->value;
        struct chain c = {0};
        uint32_t a = 0, b = 0;
        if (mine->n < 2)
            continue;
        while ((a < mine->n || b < others->n) && c.over == NULL) {
            bool is_mine = b >= others->n || (a < mine->n && mine->at[a] < others->at[b]);
            const struct hky_route *r = l->table->routes[is_mine ? mine->at[a++] : others->at[b++]];
            if (is_mine || (r->to.set->is_everyone && r->to.n_lists == 0))
                chain_add(&c, r);
        }
        if (chain_warn(l, &c, e->key))
            return true;
    }
    return false;
}

static void check_chains(struct hky_loader *l)
{
    const struct hky_route_table *t = l->table;
    struct chain c = {0};

    for (uint32_t i = 0; i < t->others.n && c.over == NULL; i++) {
        const struct hky_route *r = t->routes[t->others.at[i]];
        if (r->to.set->is_everyone)
            chain_add(&c, r);
    }
    if (!chain_warn(l, &c, "anybody") && !check_chains_of(l, &t->by_domain))
        (void)check_chains_of(l, &t->by_address);
}

/* --- scenarios of logins --- */

#define SCENARIOS_MAX 2000

/* Warn of a misspelt scenario of a login: its mail would use the routes for all. */
static void check_login_scenarios(struct hky_loader *l)
{
    const char **names = hky_calloc(SCENARIOS_MAX, sizeof *names);
    struct hky_map_entry *e;
    size_t at = 0, n = 0;
    struct hky_map known;

    hky_map_init(&known);
    for (uint32_t i = 0; i < l->table->n_routes; i++) {
        const char *const *s = l->table->routes[i]->scenarios;
        for (; s != NULL && *s != NULL; s++)
            hky_map_put(&known, hky_str_z(*s), l);
    }
    while ((e = hky_map_next(&known, &at)) != NULL && n < SCENARIOS_MAX)
        names[n++] = e->key;
    for (uint32_t i = 0; i < l->policy->engine.n_listen; i++) {
        const struct hky_listen *listen = &l->policy->engine.listen[i];
        for (uint32_t u = 0; u < listen->n_users; u++) {
            const char *const *s = listen->users[u].scenarios;
            for (; s != NULL && *s != NULL; s++) {
                const char *near =
                    hky_map_get(&known, hky_str_z(*s)) == NULL ? hky_nearest_in(hky_str_z(*s), names, n) : NULL;
                if (near != NULL)
                    hky_loader_complain(l, hky_loader_place_of(l, listen->place, *s, false), true,
                                        "user \"%s\": no route is for scenario \"%s\": did you mean \"%s\"?",
                                        listen->users[u].name, *s, near);
            }
        }
    }
    hky_map_fini(&known);
    free((void *)names);
}

/* Is nobody in this condition for now, because it is made of lists alone whose files have no entries? */
static bool is_of_empty_lists(const struct hky_match *m)
{
    if (m->n_lists == 0 || m->set == NULL || m->set->is_everyone || m->set->has_null || hky_set_n(m->set) > 0)
        return false;
    for (uint32_t i = 0; i < m->n_lists; i++) {
        const struct hky_set *set = m->lists[i]->set;
        if (set->is_everyone || set->has_null || hky_set_n(set) > 0)
            return false;
    }
    return true;
}

static void complain_of_empty_lists(struct hky_loader *l, const struct hky_match *m, struct hky_place place,
                                    const char *what, const char *key, const char *effect)
{
    if (!is_of_empty_lists(m))
        return;
    hky_loader_complain(l, hky_loader_place_of(l, place, key, true), true,
                        "%s: %s: the file \"%s\"%s no entries, so that %s", what, key, m->lists[0]->name,
                        m->n_lists == 1 ? " has" : " and the other lists have", effect);
}

/* An empty file is mostly one that a program has just begun to write, or whose program failed. An exception without
 * entries is usual: nobody has asked for it yet. */
static void check_empty_lists(struct hky_loader *l)
{
    complain_of_empty_lists(l, &l->table->only_to, l->policy->engine.place, "engine", "only_to", "all mail is held");
    for (uint32_t i = 0; i < l->table->n_routes; i++) {
        const struct hky_route *r = l->table->routes[i];
        complain_of_empty_lists(l, &r->to, r->place, r->what, "to", "nobody matches it");
        complain_of_empty_lists(l, &r->sender, r->place, r->what, "sender", "nobody matches it");
        complain_of_empty_lists(l, &r->author, r->place, r->what, "author", "nobody matches it");
    }
}

void hky_loader_check_losses(struct hky_loader *l)
{
    const struct hky_match *only_to = &l->table->only_to;

    if (only_to->is_empty)
        hky_loader_complain(l, hky_loader_place_of(l, l->policy->engine.place, "only_to", true), true,
                            "engine: only_to names nobody, so that all mail is held");
    check_empty_lists(l);
    check_rest(l);
    check_excepts(l);
    check_paused(l);
    check_chains(l);
    check_login_scenarios(l);
    hky_loader_check_steps(l);
    hky_loader_check_loops(l);
}
