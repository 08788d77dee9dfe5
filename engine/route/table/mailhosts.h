/*
 * mailhosts -- where the domains of recipients take their mail, for the condition `mx`: looked up once for many
 * recipients, remembered within bounds. One worker's.
 *
 * The hosts that count are those of the best preference that answers: of which one has an address. A domain without MX
 * is its own mail host (RFC 5321 5.1). One that does not exist, or takes no mail (RFC 7505), has none. What could not
 * be found out is neither: the state is FAILED, and nothing may be decided by it.
 */
#ifndef HKY_ROUTE_MAILHOSTS_H
#define HKY_ROUTE_MAILHOSTS_H

#include "net/dns.h"
#include "route/table/lookup.h"

enum hky_mailhosts_state { HKY_MAILHOSTS_ASKED, HKY_MAILHOSTS_FOUND, HKY_MAILHOSTS_NONE, HKY_MAILHOSTS_FAILED };
/* Counted: the cache and each decision that looks at it. Nothing changes once it is no longer ASKED. */
struct hky_mailhosts {
    int refs;
    enum hky_mailhosts_state state;
    unsigned n;
    char **hosts;   /* lower case, without final dot; by preference, all of the same */
    char text[240]; /* the hosts, or why there are none, for people */
    char domain[254];
};
void hky_mailhosts_unref(struct hky_mailhosts **m);

/* What is known and not too old, a reference; NULL: it has to be asked. */
struct hky_mailhosts *hky_mailhosts_known(struct hky_lookups *l, struct hky_str domain);
/* Asks, together with whoever asks the same. The ticket (maybe nobody's) is shown when the state is no longer ASKED. A
 * reference; NULL: so much is asked for nobody that this is not begun. */
struct hky_mailhosts *hky_mailhosts_ask(struct hky_lookups *l, struct hky_str domain, struct hky_ticket ticket);

/* Who answers; the DNS where nothing else is said, as tests do. As in net/dns.h. */
struct hky_resolver_ops {
    void *ctx;
    void (*ask_mx)(void *ctx, struct hky_dns_query *q, struct hky_str domain);
    void (*ask_addr)(void *ctx, struct hky_dns_query *q, struct hky_str host);
    void (*cancel)(void *ctx, struct hky_dns_query *q);
};
void hky_lookups_set_resolver(struct hky_lookups *l, const struct hky_resolver_ops *ops);
unsigned hky_lookups_n_known(const struct hky_lookups *l);

#endif
