/* Chooses the pool for a lane's mail. */
#include "deliver/pool_internal.h"

#include "base/endpoint.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

/* Writes everything a connection depends on. Lanes that differ in any of it get different pools, which share no TLS
 * session, login or connection. */
static void format_key(struct hky_buf *out, const struct hky_lane *lane, const struct hky_dns_mx *hosts, unsigned n)
{
    const struct hky_relay *r = lane->relay;
    const struct hky_engine_options *e = &lane->policy->engine;
    hky_buf_printf(out, "%016llx|%s|%u|%d|%s|%s|%s", (unsigned long long)r->settings_hash,
                   lane->account != NULL ? lane->account : "", r->port, (int)r->tls,
                   e->redirect != NULL ? e->redirect : "", e->resolver != NULL ? e->resolver : "",
                   e->hostname != NULL ? e->hostname : "");
    /* Hosts of equal preference come in random order, so the set of hosts identifies the site. */
    uint64_t site = 0;
    for (unsigned i = 0; i < n; i++)
        site += hky_hash64(hosts[i].host, strlen(hosts[i].host), hosts[i].preference);
    hky_buf_printf(out, "|%016llx|%u", (unsigned long long)site, n);
}

static void set_hosts(struct hky_pool *pool, const struct hky_dns_mx *hosts, unsigned n)
{
    free(pool->hosts);
    pool->hosts = hky_alloc(n * sizeof(*hosts));
    memcpy(pool->hosts, hosts, n * sizeof(*hosts));
    pool->n_hosts = n;
}

/* "host:port" or "[v6]:port" of engine.redirect. */
static void set_redirect(struct hky_pool *pool, const char *redirect)
{
    struct hky_dns_mx host = {0};
    char name[256];
    uint16_t port = 25;
    bool is_good = hky_endpoint_parse(hky_str_z(redirect), name, &port); /* the policy's loader has checked it so */
    snprintf(host.host, sizeof(host.host), "%.253s", is_good ? name : redirect);
    set_hosts(pool, &host, 1);
    pool->port = port;
    pool->is_redirected = true;
}

static void adopt_policy(struct hky_pool *pool, const struct hky_lane *lane)
{
    if (pool->policy == lane->policy)
        return;
    /* After a reload everything from files is read again, the system's authorities, too. */
    hky_tls_unref(&pool->tls);
    struct hky_policy *old = pool->policy;
    pool->policy = hky_policy_ref(lane->policy);
    pool->relay = lane->relay;
    hky_policy_unref(&old);
}

struct hky_pool *hky_pool_get(struct hky_deliver *d, struct hky_lane *lane, const struct hky_dns_mx *hosts,
                              unsigned n_hosts)
{
    struct hky_buf key;
    hky_buf_init(&key, 16 * 1024);
    format_key(&key, lane, hosts, n_hosts);
    struct hky_pool *pool = hky_map_get(&d->pools, hky_buf_str(&key));
    if (pool == NULL) {
        const char *redirect = lane->policy->engine.redirect;
        pool = hky_calloc(1, sizeof(*pool));
        pool->deliver = d;
        pool->key = hky_strdup(hky_buf_z(&key));
        TAILQ_INIT(&pool->sources);
        TAILQ_INIT(&pool->members);
        TAILQ_INIT(&pool->detours);
        pool->port = lane->relay->port;
        if (redirect != NULL && redirect[0] != '\0')
            set_redirect(pool, redirect);
        else
            set_hosts(pool, hosts, n_hosts);
        hky_map_put(&d->pools, hky_str_z(pool->key), pool);
    } else if (!pool->is_redirected) {
        set_hosts(pool, hosts, n_hosts);
    }
    adopt_policy(pool, lane);
    hky_buf_fini(&key);
    return pool;
}
