/* Warnings of check: routes that are never reached, and routes of a scenario that hide common ones. */
#include "route/load/loader.h"

/* Has the route no conditions but `to` and scenario? Then it decides for every recipient that these match. */
static bool is_plain(const struct hky_route *r)
{
    return !r->except.is_stated && !r->sender.is_stated && !r->author.is_stated && !r->mx.is_stated &&
           r->tags == NULL && r->n_headers == 0 && r->when == HKY_NO_FN && r->via != HKY_VIA_FUNCTION &&
           r->to.n_lists == 0;
}

static bool scenarios_cover(const struct hky_route *earlier, const struct hky_route *later)
{
    if (earlier->scenarios == NULL)
        return true;
    if (later->scenarios == NULL)
        return false;
    for (size_t i = 0; later->scenarios[i] != NULL; i++) {
        bool found = false;
        for (size_t k = 0; earlier->scenarios[k] != NULL && !found; k++)
            found = strcmp(later->scenarios[i], earlier->scenarios[k]) == 0;
        if (!found)
            return false;
    }
    return true;
}

static bool hides(const struct hky_route *earlier, const struct hky_route *later)
{
    if (!is_plain(earlier) || !scenarios_cover(earlier, later))
        return false;
    if (earlier->is_row && later->is_row && !earlier->is_stop)
        return false; /* matching rows make one plan together */
    if (earlier->to.set->is_everyone)
        return true;
    return later->to.n_lists == 0 && hky_set_is_subset(later->to.set, earlier->to.set);
}

/* Few routes can hide another one, so all pairs are compared, up to a bound. */
#define PAIRS_MAX 2000000u

static void check_never(struct hky_loader *l)
{
    const struct hky_route_table *t = l->table;
    uint64_t pairs = 0;

    for (uint32_t i = 0; i < t->n_routes; i++)
        for (uint32_t k = 0; k < i && pairs < PAIRS_MAX; k++, pairs++)
            if (hides(t->routes[k], t->routes[i])) {
                hky_loader_complain(l, t->routes[i]->place, true,
                                    "%s \"%s\" is never reached: \"%s\" (%s:%u) comes first",
                                    t->routes[i]->is_row ? "row" : "route", t->routes[i]->name, t->routes[k]->name,
                                    t->routes[k]->place.file, t->routes[k]->place.line);
                break;
            }
}

static bool overlaps(const struct hky_route *a, const struct hky_route *b)
{
    return a->to.set->is_everyone || b->to.set->is_everyone || a->to.n_lists > 0 || b->to.n_lists > 0 ||
           hky_set_is_subset(a->to.set, b->to.set) || hky_set_is_subset(b->to.set, a->to.set);
}

/* Somebody who gave a common route a smaller priority may think that it comes before routes of a scenario. A route with
 * the default priority gives no hint of that. */
static void check_scenarios(struct hky_loader *l)
{
    const struct hky_route_table *t = l->table;
    uint64_t pairs = 0;

    for (uint32_t i = 0; i < t->n_routes; i++) {
        const struct hky_route *common = t->routes[i];
        if (common->scenarios != NULL || common->is_override)
            continue;
        for (uint32_t k = 0; k < i && pairs < PAIRS_MAX; k++, pairs++) {
            const struct hky_route *mine = t->routes[k];
            if (mine->scenarios == NULL || mine->is_override || mine->priority <= common->priority ||
                (mine->is_row && common->is_row) || !overlaps(mine, common))
                continue;
            hky_loader_complain(l, mine->place, true,
                                "route \"%s\" of scenario \"%s\" hides \"%s\" (%s:%u), whose priority %d is smaller: a "
                                "scenario's routes come before the common ones; override = true puts a route first",
                                mine->name, mine->scenarios[0], common->name, common->place.file, common->place.line,
                                common->priority);
            break;
        }
    }
}

void hky_loader_check_reach(struct hky_loader *l)
{
    check_never(l);
    check_scenarios(l);
}
