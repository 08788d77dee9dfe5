/* Warnings of check: routes that are never reached, and routes of a scenario that hide common ones. */
#include "route/load/loader.h"

/* Is each of `some` among `all`? NULL means any. */
static bool are_among(const char *const *some, const char *const *all)
{
    if (all == NULL)
        return true;
    if (some == NULL)
        return false;
    for (; *some != NULL; some++) {
        bool is_found = false;
        for (const char *const *one = all; *one != NULL && !is_found; one++)
            is_found = strcmp(*some, *one) == 0;
        if (!is_found)
            return false;
    }
    return true;
}

/* Does `outer` hold whenever `inner` holds? The contents of lists change, so that only the same list is known to. */
static bool match_covers(const struct hky_match *outer, const struct hky_match *inner)
{
    if (!outer->is_stated || (outer->set != NULL && outer->set->is_everyone))
        return true;
    if (!inner->is_stated || !hky_set_is_subset(inner->set, outer->set))
        return false;
    for (uint32_t i = 0; i < inner->n_lists; i++) {
        bool is_found = false;
        for (uint32_t k = 0; k < outer->n_lists && !is_found; k++)
            is_found = inner->lists[i] == outer->lists[k];
        if (!is_found)
            return false;
    }
    return true;
}

static bool headers_cover(const struct hky_route *earlier, const struct hky_route *later)
{
    for (uint32_t i = 0; i < earlier->n_headers; i++) {
        const struct hky_header_condition *mine = &earlier->headers[i];
        bool is_found = false;
        for (uint32_t k = 0; k < later->n_headers && !is_found; k++)
            is_found =
                strcasecmp(mine->name, later->headers[k].name) == 0 && strcmp(mine->glob, later->headers[k].glob) == 0;
        if (!is_found)
            return false;
    }
    return true;
}

/* Whom the earlier route excepts, the later one must not take either. */
static bool excepts_cover(const struct hky_match *earlier, const struct hky_match *later)
{
    return !earlier->is_stated || (later->is_stated && match_covers(later, earlier));
}

/* Does the earlier route decide for each recipient that the later one matches? */
static bool hides(const struct hky_route *earlier, const struct hky_route *later)
{
    if (earlier->via == HKY_VIA_FUNCTION)
        return false; /* it may decline */
    if (earlier->is_row && later->is_row && !earlier->is_stop)
        return false; /* matching rows make one plan together */
    /* what costs most comes last: `to` may have thousands of entries */
    return are_among(later->scenarios, earlier->scenarios) && are_among(later->tags, earlier->tags) &&
           (earlier->when == HKY_NO_FN || earlier->when == later->when) && headers_cover(earlier, later) &&
           match_covers(&earlier->mx, &later->mx) && match_covers(&earlier->sender, &later->sender) &&
           match_covers(&earlier->author, &later->author) && excepts_cover(&earlier->except, &later->except) &&
           match_covers(&earlier->to, &later->to);
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
