/*
 * pool -- the connections to one destination: a relay's account, or the MX site of recipient domains. Lanes that
 * lead to the same destination share it. One worker, one thread.
 */
#ifndef HKY_DELIVER_POOL_H
#define HKY_DELIVER_POOL_H

#include "base/map.h"
#include "deliver/outbound.h"
#include "hikyaku/deliver.h"

struct hky_pool;

/* A lane as its pool sees it: where jobs come from. It is the value of lane->deliver. */
struct hky_pool_source {
    struct hky_deliver *deliver;
    struct hky_lane *lane;
    struct hky_pool *pool;     /* NULL while the MX is looked up */
    struct hky_policy *policy; /* the policy for which `pool` was chosen; only compared */
    TAILQ_ENTRY(hky_pool_source) link;
    struct hky_dns_query query; /* mx.c */
    int64_t asked_at_ms;
    bool is_asking;
};

struct hky_deliver {
    struct hky_deliver_params params;
    struct hky_map pools;                      /* key -> pool */
    struct hky_map resolvers;                  /* "addr:port" -> hky_dns */
    struct hky_servers *servers, *own_servers; /* own_servers: NULL when the owner gave one */
    TAILQ_HEAD(, hky_pool_source) unassigned;  /* lanes without a pool */
    TAILQ_HEAD(, hky_pool) waiting;            /* pools with detours that wait for a slot of a cap */
    struct hky_outbound_login_waits waits;
    struct hky_delivery *free_deliveries;
    unsigned n_free;
    bool is_draining;
};

/* Returns the pool for these hosts, which are in order of preference; makes it when there is none. */
struct hky_pool *hky_pool_get(struct hky_deliver *d, struct hky_lane *lane, const struct hky_dns_mx *hosts,
                              unsigned n_hosts);
void hky_pool_attach(struct hky_pool *pool, struct hky_pool_source *source);
void hky_pool_detach(struct hky_pool_source *source);
void hky_pool_wake(struct hky_pool *pool); /* it works at the end of this turn */
/* Wakes the pools in which a detour of this lane waits for a slot; meanwhile the lane may lead to another pool. */
void hky_pool_wake_waiting(struct hky_deliver *d, const struct hky_lane *lane);
void hky_pool_drain(struct hky_pool *pool);
void hky_pool_free(struct hky_pool *pool); /* after the loop has stopped */

/* The resolver that this policy names, made when it is first needed; the system's where that is impossible. */
struct hky_dns *hky_deliver_dns(struct hky_deliver *d, const struct hky_policy *policy);
/* Own delivery: looks up which hosts take the mail of the lane's destination. Assigns the source to a pool, or fails
 * jobs of the lane. */
void hky_deliver_assign_own(struct hky_pool_source *source);
/* Takes one job of the lane and gives all its recipients this outcome; false: there was none. */
bool hky_pool_fail_next_job(struct hky_lane *lane, enum hky_stage stage, enum hky_class class,
                            const struct hky_reply *reply);

#endif
