/* The resolvers of a worker, one for each address that policies name. */
#include "deliver/pool.h"

struct hky_dns *hky_deliver_dns(struct hky_deliver *d, const struct hky_policy *policy)
{
    const char *resolver = policy->engine.resolver != NULL ? policy->engine.resolver : "";
    struct hky_dns *dns = hky_map_get(&d->resolvers, hky_str_z(resolver));
    struct hky_error e;
    if (dns != NULL)
        return dns;
    if (hky_dns_new(d->params.loop, resolver, &dns, &e) != HKY_OK) {
        /* The policy's loader has checked the form, so this is a machine without a resolver; it gets the system's
         * defaults. */
        hky_log(d->params.log, HKY_LOG_ERROR, "resolver", "why=\"%s\"", e.text);
        HKY_ASSERT(hky_dns_new(d->params.loop, "", &dns, &e) == HKY_OK);
    }
    hky_map_put(&d->resolvers, hky_str_z(resolver), dns);
    return dns;
}
