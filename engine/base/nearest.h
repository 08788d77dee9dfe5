/*
 * nearest -- "did you mean": considers known names one by one and keeps the most similar one.
 *
 *     struct hky_nearest_name near = hky_nearest_to(typed);
 *     for (...) hky_nearest_consider(&near, names[i]);
 *     printf("no relay %s" HKY_NEAREST_FMT, typed, HKY_NEAREST_ARG(&near));      ; did you mean "rental"?
 */
#ifndef HKY_BASE_NEAREST_H
#define HKY_BASE_NEAREST_H

#include "base/str.h"

struct hky_nearest_name {
    struct hky_str wanted;
    const char *name;  /* borrowed; NULL: none is similar */
    unsigned distance; /* of `name`; before, the first that is too much */
    bool is_known;     /* one of them is the wanted name itself */
};

static inline struct hky_nearest_name hky_nearest_to(struct hky_str wanted)
{
    return (struct hky_nearest_name){.wanted = wanted, .distance = wanted.n < 4 ? 2 : wanted.n < 6 ? 3 : 4};
}

/* A beginning, "prio" of "priority", or more than the name, "username" of "user". */
static inline bool hky_nearest_is_part(struct hky_str wanted, struct hky_str name)
{
    struct hky_str less = wanted.n < name.n ? wanted : name, more = wanted.n < name.n ? name : wanted;
    const char *found = less.n >= 3 && (wanted.n < name.n || 2 * name.n >= wanted.n) ? hky_str_ifind(more, less) : NULL;

    return found != NULL && (found == more.p || less.n >= 4);
}

static inline void hky_nearest_consider(struct hky_nearest_name *near, const char *name)
{
    unsigned distance = hky_str_distance(hky_str_z(name), near->wanted);

    near->is_known = near->is_known || hky_str_eq(hky_str_z(name), near->wanted);
    if (near->name == NULL && distance >= near->distance && hky_nearest_is_part(near->wanted, hky_str_z(name)))
        distance = near->distance - 1; /* a name that is misspelt only a little is nearer than any of these */
    if (distance < near->distance ||
        (distance == near->distance && near->name != NULL && strcmp(name, near->name) < 0)) {
        near->distance = distance;
        near->name = name;
    }
}

/* The most similar of `n` names; NULL: none is similar. */
static inline const char *hky_nearest_in(struct hky_str wanted, const char *const *names, size_t n)
{
    struct hky_nearest_name near = hky_nearest_to(wanted);

    for (size_t i = 0; i < n; i++)
        hky_nearest_consider(&near, names[i]);
    return near.name;
}

/* What a message ends with; nothing when no name is similar. */
#define HKY_NEAREST_FMT "%s%.60s%s"
#define HKY_NEAREST_ARG(near)                                                                                          \
    (near)->name != NULL ? "; did you mean \"" : "", (near)->name != NULL ? (near)->name : "",                         \
        (near)->name != NULL ? "\"?" : ""

#endif
