#include "hikyaku/deliver.h"

#include "deliver/pool.h"

#include <stdio.h>
#include <stdlib.h>

enum hky_err hky_deliver_new(const struct hky_deliver_params *p, struct hky_deliver **out, struct hky_error *e)
{
    (void)e;
    struct hky_deliver *d = hky_calloc(1, sizeof(*d));
    d->params = *p;
    d->own_servers = p->servers == NULL ? hky_servers_new(NULL, p->clock) : NULL;
    d->servers = p->servers != NULL ? p->servers : d->own_servers;
    hky_map_init_untrusted(&d->pools);
    hky_map_init(&d->resolvers);
    TAILQ_INIT(&d->unassigned);
    TAILQ_INIT(&d->waiting);
    LIST_INIT(&d->waits);
    *out = d;
    return HKY_OK;
}

static struct hky_pool_source *source_of(struct hky_deliver *d, struct hky_lane *lane)
{
    struct hky_pool_source *source = lane->deliver;
    if (source == NULL) {
        source = hky_calloc(1, sizeof(*source));
        source->deliver = d;
        source->lane = lane;
        lane->deliver = source;
        TAILQ_INSERT_TAIL(&d->unassigned, source, link);
    }
    return source;
}

static void assign_relay(struct hky_pool_source *source)
{
    struct hky_lane *lane = source->lane;
    if (source->pool == NULL || source->policy != lane->policy) {
        struct hky_dns_mx host = {0};
        snprintf(host.host, sizeof(host.host), "%s", lane->relay->host);
        struct hky_pool *pool = hky_pool_get(source->deliver, lane, &host, 1);
        source->policy = lane->policy;
        if (source->pool != pool) {
            hky_pool_detach(source);
            hky_pool_attach(pool, source);
        }
    }
    hky_pool_wake(source->pool);
}

void hky_deliver_wake(struct hky_deliver *d, struct hky_lane *lane)
{
    if (d->is_draining)
        return;
    hky_pool_wake_waiting(d, lane);
    if (lane->n_ready == 0)
        return;
    struct hky_pool_source *source = source_of(d, lane);
    if (lane->relay->is_mx)
        hky_deliver_assign_own(source);
    else
        assign_relay(source);
}

static void source_free(struct hky_pool_source *source)
{
    hky_dns_cancel(&source->query);
    hky_pool_detach(source);
    TAILQ_REMOVE(&source->deliver->unassigned, source, link);
    source->lane->deliver = NULL;
    free(source);
}

void hky_deliver_forget_lane(struct hky_deliver *d, struct hky_lane *lane)
{
    (void)d;
    if (lane->deliver != NULL)
        source_free(lane->deliver);
}

void hky_deliver_drain(struct hky_deliver *d)
{
    d->is_draining = true;
    size_t at = 0;
    struct hky_map_entry *entry;
    while ((entry = hky_map_next(&d->pools, &at)) != NULL)
        hky_pool_drain(entry->value);
}

void hky_deliver_free(struct hky_deliver **dp)
{
    struct hky_deliver *d = *dp;
    if (d == NULL)
        return;
    *dp = NULL;
    d->is_draining = true;
    size_t at = 0;
    struct hky_map_entry *entry;
    while ((entry = hky_map_next(&d->pools, &at)) != NULL)
        hky_pool_free(entry->value);
    hky_map_fini(&d->pools);
    struct hky_pool_source *source;
    while ((source = TAILQ_FIRST(&d->unassigned)) != NULL)
        source_free(source);
    at = 0;
    while ((entry = hky_map_next(&d->resolvers, &at)) != NULL) {
        struct hky_dns *dns = entry->value;
        hky_dns_free(&dns);
    }
    hky_map_fini(&d->resolvers);
    while (d->free_deliveries != NULL) {
        struct hky_delivery *x = d->free_deliveries;
        d->free_deliveries = x->free_next;
        hky_delivery_free(&x);
    }
    hky_outbound_login_waits_drop(&d->waits);
    hky_servers_free(&d->own_servers);
    free(d);
}
