/* Warnings of check: steps of a plan that can never be entered, and waits that are longer than the time to deliver. */
#include "base/duration.h"
#include "route/load/loader.h"

#include <stdio.h>

/* The plan that is looked at, and the route that gives it. */
struct look {
    struct hky_loader *l;
    const struct hky_route *route;
    const struct hky_plan *plan;
    uint32_t expire_sec;
};

/* The classes after which no other step is entered, unless `react` says "next". */
static uint64_t classes_without_next(const struct hky_plan *p)
{
    static const enum hky_class classes[] = {HKY_CLASS_OK, HKY_CLASS_EXPIRED, HKY_CLASS_AMBIGUOUS};
    uint64_t bits = 0;

    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (classes[i] != HKY_CLASS_AMBIGUOUS || p->react[classes[i]] != HKY_ACTION_NEXT)
            bits |= HKY_CLASS_BIT(classes[i]);
    return bits;
}

static const char *name_of(const struct hky_route *r, char out[140])
{
    snprintf(out, 140, "%s \"%s\"", r->is_row ? "row" : "route", r->name);
    return out;
}

static void check_on(const struct look *k, unsigned at)
{
    const struct hky_step *s = &k->plan->steps[at];
    uint64_t useless = s->on & classes_without_next(k->plan);
    struct hky_place place = hky_loader_place_of(k->l, k->route->place, "on", true);
    char who[140];

    if (s->on == 0)
        return;
    if (at == 0) {
        hky_loader_complain(
            k->l, place, true,
            "%s: the first step (\"%s\") has `on`, but no attempt comes before it, so that %s: leave `on` out, "
            "or move the step behind the one whose failure it is for",
            name_of(k->route, who), s->relay, k->plan->n_steps > 1 ? "it is never entered" : "`on` says nothing");
        return;
    }
    for (unsigned c = 0; c < HKY_CLASS_N; c++)
        if ((useless & HKY_CLASS_BIT(c)) != 0)
            hky_loader_complain(k->l, place, true, "%s: step \"%s\" is never entered for %s: %s (hikyaku-classes(7))",
                                name_of(k->route, who), s->relay, hky_class_name((enum hky_class)c),
                                c == HKY_CLASS_OK ? "the mail is delivered then"
                                : c == HKY_CLASS_EXPIRED
                                    ? "the time to deliver is over then"
                                    : "the mail may have arrived, so that only the same step tries again");
}

static void too_long(const struct look *k, const char *key, const char *relay, uint32_t sec, const char *effect)
{
    char who[140], how_long[HKY_DURATION_TEXT], expire[HKY_DURATION_TEXT];

    hky_loader_complain(
        k->l, hky_loader_place_of(k->l, k->route->place, key, true), true,
        "%s: step \"%s\": %s is %s, and the mail expires after %s, so that %s: write a shorter one, or a longer "
        "expire",
        name_of(k->route, who), relay, key, hky_duration_format(sec, how_long),
        hky_duration_format(k->expire_sec, expire), effect);
}

static void check_times(const struct look *k, unsigned at)
{
    const struct hky_step *s = &k->plan->steps[at];
    const struct hky_retry *own = s->retry.n > 0 ? &s->retry : &k->plan->retry;
    bool is_last = at + 1 == k->plan->n_steps, is_stated = own->n > 0 || k->plan->expire_sec != HKY_UNSET_SEC;
    const struct hky_retry *retry = own->n > 0 ? own : &k->l->policy->engine.retry;

    if (!is_last && s->within_sec != HKY_UNSET_SEC && s->within_sec >= k->expire_sec)
        too_long(k, "within", s->relay, s->within_sec, "this time never ends the step");
    if (!is_last && s->wait_sec != HKY_UNSET_SEC && s->wait_sec >= k->expire_sec)
        too_long(k, "wait", s->relay, s->wait_sec, "the step is never left as full");
    /* A step before the last one is left earlier, as the next retry would come after its `within`. */
    if (is_last && is_stated && retry->n > 0 && retry->after_sec[0] >= k->expire_sec)
        too_long(k, "retry", s->relay, retry->after_sec[0], "a temporary failure there is never tried again");
}

static void check_react(struct hky_loader *l, const struct hky_route *r, const struct hky_plan *p)
{
    char who[140];

    for (unsigned i = 0; i < 2; i++)
        if (p->react[i == 0 ? HKY_CLASS_OK : HKY_CLASS_EXPIRED] != HKY_ACTION_NONE)
            hky_loader_complain(l, hky_loader_place_of(l, r->place, "react", true), true,
                                "%s: react: nothing can be done about \"%s\": %s", name_of(r, who),
                                hky_class_name(i == 0 ? HKY_CLASS_OK : HKY_CLASS_EXPIRED),
                                i == 0 ? "what is delivered stays delivered"
                                       : "the time to deliver is over; write a longer expire");
}

static void check_plan(struct hky_loader *l, const struct hky_route *r, const struct hky_plan *p)
{
    struct look k = {l, r, p, p->expire_sec != HKY_UNSET_SEC ? p->expire_sec : l->policy->engine.expire_sec};

    check_react(l, r, p);
    for (unsigned i = 0; i < p->n_steps; i++) {
        check_on(&k, i);
        check_times(&k, i);
    }
}

void hky_loader_check_steps(struct hky_loader *l)
{
    const struct hky_engine_options *o = &l->policy->engine;
    char first[HKY_DURATION_TEXT], expire[HKY_DURATION_TEXT];

    if (o->retry.n > 0 && o->retry.after_sec[0] >= o->expire_sec)
        hky_loader_complain(
            l, hky_loader_place_of(l, o->place, "expire", true), true,
            "engine: the first retry comes after %s, and mail expires after %s, so that a temporary failure is "
            "never tried again: write a shorter retry, or a longer expire",
            hky_duration_format(o->retry.after_sec[0], first), hky_duration_format(o->expire_sec, expire));
    for (uint32_t i = 0; i < l->table->n_routes; i++) {
        const struct hky_route *r = l->table->routes[i];
        if (r->plan != NULL && !r->is_row)
            check_plan(l, r, r->plan);
        for (uint32_t a = 0; r->split != NULL && a < r->split->n_arms; a++)
            if (r->split->arms[a].plan != NULL)
                check_plan(l, r, r->split->arms[a].plan);
    }
}
