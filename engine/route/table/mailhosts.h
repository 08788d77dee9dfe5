/*
 * mailhosts -- the mail hosts of recipients' domains, for the condition `mx`: looked up once for many recipients, and
 * remembered within bounds. Each worker has its own.
 *
 * The hosts that count are those of the best preference with at least one host that has an address. A domain without MX
 * is its own mail host (RFC 5321 5.1). A domain that does not exist, or takes no mail (RFC 7505), has none. When the
 * look-up fails, the state is FAILED, and nothing may be decided from it.
 */
#ifndef HKY_ROUTE_MAILHOSTS_H
#define HKY_ROUTE_MAILHOSTS_H

#include "net/dns.h"
#include "route/table/lookup.h"

enum hky_mailhosts_state { HKY_MAILHOSTS_ASKED, HKY_MAILHOSTS_FOUND, HKY_MAILHOSTS_NONE, HKY_MAILHOSTS_FAILED };
/* Counted: the cache and each decision that uses it hold a reference. It does not change once its state is no longer
 * ASKED. */
struct hky_mailhosts {
    int refs;
    enum hky_mailhosts_state state;
    unsigned n;
    char **hosts;   /* lower case, without final dot; all of the same preference */
    char text[240]; /* the hosts, or why there are none, for people */
    char domain[254];
};
void hky_mailhosts_unref(struct hky_mailhosts **m);

/* A reference to the remembered answer, if it is not too old; NULL: the domain has to be looked up. */
struct hky_mailhosts *hky_mailhosts_known(struct hky_lookups *l, struct hky_str domain);
/* Start a look-up, or join the one under way for the same domain. hky_ticket_ready is called with the ticket (which may
 * be nobody's) when the state is no longer ASKED. Returns a reference; NULL: the look-up was not begun, because too
 * many are under way for which nobody waits. */
struct hky_mailhosts *hky_mailhosts_ask(struct hky_lookups *l, struct hky_str domain, struct hky_ticket ticket);

/* The functions that answer look-ups, as in net/dns.h: those of the DNS, unless a test sets others. */
struct hky_resolver_ops {
    void *ctx;
    void (*ask_mx)(void *ctx, struct hky_dns_query *q, struct hky_str domain);
    void (*ask_addr)(void *ctx, struct hky_dns_query *q, struct hky_str host);
    void (*cancel)(void *ctx, struct hky_dns_query *q);
};
void hky_lookups_set_resolver(struct hky_lookups *l, const struct hky_resolver_ops *ops);
unsigned hky_lookups_n_known(const struct hky_lookups *l);

#endif
