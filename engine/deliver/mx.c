/*
 * Own delivery: where a recipient domain takes its mail (RFC 5321 5.1, RFC 7505). Domains with the same MX hosts share
 * one pool, because a server counts our connections, not the domains.
 */
#include "base/clock.h"
#include "deliver/pool.h"

#define FRESH_MS      (5 * 60 * 1000) /* an older answer is asked for again; the resolver caches by TTL */
#define FAILED_A_TURN 100             /* jobs of a lane without a mail host that fail in one turn */

static void assign(struct hky_pool_source *source, const struct hky_dns_mx *hosts, unsigned n)
{
    struct hky_pool *pool = hky_pool_get(source->deliver, source->lane, hosts, n);
    source->policy = source->lane->policy;
    if (source->pool != pool) {
        hky_pool_detach(source);
        hky_pool_attach(pool, source);
    }
    hky_pool_wake(pool);
}

static bool is_listening_on(const struct hky_engine_options *o, uint16_t port)
{
    for (uint32_t i = 0; i < o->n_listen; i++)
        if (o->listen[i].port == port)
            return true;
    return false;
}

/* How many hosts the mail may go to (RFC 5321 5.1): where this engine is a mail host of the domain itself, only those
 * preferred to it. A host with our name counts as another server when none of our listeners has the port. */
static unsigned n_better_than_us(const struct hky_lane *lane, const struct hky_dns_mx_answer *a)
{
    const struct hky_engine_options *o = &lane->policy->engine;
    if (!is_listening_on(o, lane->relay->port))
        return a->n;
    for (unsigned i = 0; i < a->n; i++) {
        if (!hky_str_ieq(hky_str_z(a->mx[i].host), hky_str_z(o->hostname)))
            continue;
        while (i > 0 && a->mx[i - 1].preference == a->mx[i].preference)
            i--;
        return i;
    }
    return a->n;
}

static void set_enhanced(struct hky_reply *reply, uint8_t subject, uint8_t detail)
{
    reply->enhanced[0] = 5;
    reply->enhanced[1] = subject;
    reply->enhanced[2] = detail;
    reply->enhanced_detail = detail;
}

/* Says why no host takes the domain's mail. */
static enum hky_class explain(const struct hky_lane *lane, const struct hky_dns_mx_answer *a, struct hky_reply *reply)
{
    const char *domain = lane->destination, *text = a->text;
    switch (a->status) {
    case HKY_DNS_NULL_MX:
        hky_reply_local(reply, HKY_ORIGIN_DNS, "%s accepts no mail (null MX)", domain);
        set_enhanced(reply, 1, 10);
        return HKY_CLASS_BAD_DOMAIN;
    case HKY_DNS_NO_NAME:
    case HKY_DNS_NO_DATA:
        hky_reply_local(reply, HKY_ORIGIN_DNS, "%s: %s", domain, text[0] != '\0' ? text : "no such domain");
        set_enhanced(reply, 1, 2);
        return HKY_CLASS_BAD_DOMAIN;
    case HKY_DNS_OK: /* the DNS or the policy is wrong, not the recipient: another step may deliver */
        hky_reply_local(reply, HKY_ORIGIN_DNS, "%s: its best mail host is this engine, %s: the mail would come back",
                        domain, lane->policy->engine.hostname);
        set_enhanced(reply, 4, 6);
        return HKY_CLASS_UNKNOWN;
    case HKY_DNS_FAILED:
        break;
    }
    hky_reply_local(reply, HKY_ORIGIN_DNS, "%s: %s", domain, text[0] != '\0' ? text : "the name servers do not answer");
    return HKY_CLASS_NETWORK;
}

static void fail_lane(struct hky_pool_source *source, const struct hky_dns_mx_answer *a)
{
    struct hky_lane *lane = source->lane;
    struct hky_reply reply;
    enum hky_class class = explain(lane, a, &reply);
    /* All jobs of the lane fail, a bounded number in each turn; the answer stays in the resolver's cache for the next
     * turn. */
    unsigned n = 0;
    while (n < FAILED_A_TURN && hky_pool_fail_next_job(lane, HKY_STAGE_CONNECT, class, &reply))
        n++;
    if (n == FAILED_A_TURN && lane->n_ready > 0)
        hky_deliver_assign_own(source);
}

/* "[192.0.2.1]" and "[IPv6:2001:db8::1]" name the host directly (RFC 5321 4.1.3). */
static bool is_literal(const char *domain, struct hky_dns_mx *out)
{
    struct hky_str s = hky_str_z(domain);
    if (s.n < 3 || s.p[0] != '[' || s.p[s.n - 1] != ']')
        return false;
    s = hky_str_of(s.p + 1, s.n - 2);
    if (hky_str_istarts(s, HKY_STR("IPv6:")))
        s = hky_str_of(s.p + 5, s.n - 5);
    if (s.n >= sizeof(out->host))
        return false;
    *out = (struct hky_dns_mx){0};
    memcpy(out->host, s.p, s.n);
    return true;
}

static void on_mx(struct hky_dns_query *q, const struct hky_dns_mx_answer *a)
{
    struct hky_pool_source *source = HKY_CONTAINER(q, struct hky_pool_source, query);
    bool was_assigned = source->pool != NULL;
    source->is_asking = false;
    source->asked_at_ms = hky_loop_now_ms(source->deliver->params.loop);
    unsigned n = a->status == HKY_DNS_OK ? n_better_than_us(source->lane, a) : 0;
    if (n > 0) {
        assign(source, a->mx, n);
        return;
    }
    if (was_assigned && a->status == HKY_DNS_FAILED) {
        hky_pool_wake(source->pool); /* the old hosts are better than none */
        return;
    }
    hky_pool_detach(source);
    if (!source->deliver->is_draining)
        fail_lane(source, a);
}

void hky_deliver_assign_own(struct hky_pool_source *source)
{
    struct hky_deliver *d = source->deliver;
    struct hky_lane *lane = source->lane;
    const char *redirect = lane->policy->engine.redirect;
    if (source->is_asking)
        return;
    struct hky_dns_mx host = {0};
    if ((redirect != NULL && redirect[0] != '\0') || is_literal(lane->destination, &host)) {
        assign(source, &host, 1);
        return;
    }
    bool is_fresh = source->pool != NULL && source->policy == lane->policy &&
                    hky_loop_now_ms(d->params.loop) - source->asked_at_ms < FRESH_MS;
    if (is_fresh) {
        hky_pool_wake(source->pool);
        return;
    }
    source->is_asking = true;
    source->query.on_mx = on_mx;
    hky_dns_ask_mx(hky_deliver_dns(d, lane->policy), &source->query, hky_str_z(lane->destination));
}
