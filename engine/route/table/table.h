/*
 * table -- route's private part of a policy: the files that were read, the routes in their order, and the index that
 * finds the candidates for a recipient without looking at all routes. Immutable after loading, except the lists'
 * contents.
 */
#ifndef HKY_ROUTE_TABLE_H
#define HKY_ROUTE_TABLE_H

#include "hikyaku/policy.h"
#include "route/table/arena.h"
#include "route/table/match.h"
#include "route/table/zone.h"

struct hky_file { /* the octets at the time of loading: a vm made later sees the same */
    const char *name;
    const char *text;
    size_t n;
};

#define HKY_ARMS_MAX 32
#define HKY_RAMP_MAX 128
struct hky_arm {
    const char *name;
    double share; /* per cent */
    bool is_rest;
    bool is_ramp;
    int32_t ramp_start; /* day number, local */
    uint16_t n_ramp;
    const float *ramp;
    struct hky_plan *plan;
};
struct hky_split {
    const char *name;
    bool is_by_message;
    uint32_t n_arms;
    struct hky_arm *arms;
};

struct hky_header_condition {
    const char *name, *glob;
};

enum hky_via { HKY_VIA_PLAN, HKY_VIA_SPLIT, HKY_VIA_FUNCTION, HKY_VIA_ROW };
#define HKY_NO_FN UINT32_MAX

struct hky_route {
    const char *name;
    struct hky_place place;
    bool is_override, is_row, is_stop;
    int32_t priority;
    uint32_t written; /* order as written */
    struct hky_match to, except, sender, author, mx;
    const char *const *scenarios; /* ended by NULL; NULL = any */
    const char *const *tags;      /* one of these; NULL = any */
    const struct hky_header_condition *headers;
    uint32_t n_headers;
    uint32_t when; /* number of a function, or HKY_NO_FN */
    uint32_t via_fn;
    enum hky_via via;
    struct hky_plan *plan; /* VIA_PLAN and, alone, VIA_ROW */
    struct hky_split *split;
    const struct hky_plan *draft; /* the route's own keys, for plans that a function gives; no steps */
    const char *row_relay;
    const char *row_account; /* of its relay; an account has at most one step in a plan */
    const char *what;        /* for messages: route "NAME" */
};

struct hky_fn_decl {
    const char *key;  /* "route/NAME/when" */
    const char *what; /* for messages: route "NAME": when */
    struct hky_place place;
};

struct hky_positions {
    uint32_t n, cap;
    uint32_t *at;
};

struct hky_env {
    const char *name, *value; /* value NULL: not set */
};

struct hky_named_set {
    const char *name; /* "carriers.docomo" */
    struct hky_set *set;
};

struct hky_route_table {
    struct hky_arena arena;
    struct hky_file *files;
    uint32_t n_files, cap_files;
    struct hky_env *env;
    uint32_t n_env, cap_env;
    struct hky_list **lists;
    uint32_t n_lists, cap_lists;
    struct hky_named_set *sets;
    uint32_t n_sets, cap_sets;
    struct hky_match only_to;  /* engine.only_to, lists included */
    struct hky_route **routes; /* in the order of POLICY.md 2 */
    uint32_t n_routes;
    struct hky_fn_decl *fns;
    uint32_t n_fns, cap_fns;
    struct hky_map fn_by_key;                                     /* key -> number + 1 */
    struct hky_map by_address, by_domain, by_parent, by_scenario; /* -> struct hky_positions * */
    struct hky_positions others;
    char **notes;
    size_t n_notes;
    struct hky_zone *zone;
};

/* An empty table, which belongs to its policy; free frees all that is in it. */
struct hky_route_table *hky_route_table_new(void);
void hky_route_table_free(struct hky_route_table **t);
/* Puts the routes into the order of hikyaku-policy(5) and makes the index. Call it once, when all are there. */
void hky_route_table_index(struct hky_route_table *t);
/* The number of the function with this key ("route/NAME/when"); a new key is added. Texts are copied. */
uint32_t hky_route_table_add_fn(struct hky_route_table *t, const char *key, const char *what, struct hky_place place);

/* The candidates for one recipient, in order, each once. */
#define HKY_SOURCES_MAX 136 /* labels of a domain, and the fixed ones */
struct hky_candidates {
    const struct hky_positions *source[HKY_SOURCES_MAX];
    uint32_t at[HKY_SOURCES_MAX];
    uint32_t n;
};
void hky_candidates_init(struct hky_candidates *c, const struct hky_route_table *t, const struct hky_match_key *to,
                         struct hky_str scenario);
/* NULL: there are no more. *position is the route's number in the table. */
const struct hky_route *hky_candidates_next(struct hky_candidates *c, const struct hky_route_table *t,
                                            uint32_t *position);

/* Which arm: the recorded one while it exists, else by hash. NULL: no arm has a share today. */
const struct hky_arm *hky_split_choose(const struct hky_split *s, const struct hky_zone *zone, int64_t now_ms,
                                       struct hky_str recorded_arms, struct hky_str subject);
/* Per cent on a day, counted as ramp_start is. */
double hky_arm_share_on(const struct hky_arm *a, int64_t day);
double hky_arm_share(const struct hky_arm *a, const struct hky_zone *zone, int64_t now_ms);
double hky_split_hash(struct hky_str salt, struct hky_str text); /* [0,1) */

#endif
