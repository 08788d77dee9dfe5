/* pool_internal -- what the files of a pool share. */
#ifndef HKY_DELIVER_POOL_INTERNAL_H
#define HKY_DELIVER_POOL_INTERNAL_H

#include "deliver/pool.h"

struct hky_pool_member { /* one connection */
    struct hky_pool *pool;
    struct hky_outbound *connection;
    struct hky_delivery *live[2]; /* the deliveries it has, bound or under way */
    struct hky_server *server;    /* NULL: there was no greeting yet, or too many servers are known already */
    bool is_open;
    bool is_detour;  /* it is for one delivery that another host put off */
    bool is_leaving; /* it ends to make room for a detour */
    TAILQ_ENTRY(hky_pool_member) link;
};

struct hky_pool {
    struct hky_deliver *deliver;
    char *key;
    struct hky_policy *policy; /* counted; `relay` is in it */
    const struct hky_relay *relay;
    const char *account;
    struct hky_tls *tls;
    char tls_problem[240];
    struct hky_dns_mx *hosts;
    unsigned n_hosts;
    uint16_t port;
    bool is_redirected;
    TAILQ_HEAD(hky_sources_head, hky_pool_source) sources;
    TAILQ_HEAD(, hky_pool_member) members;
    TAILQ_HEAD(, hky_delivery) detours; /* deliveries that wait for a connection to another host */
    TAILQ_ENTRY(hky_pool) waiting_link;
    bool is_waiting; /* it is in deliver->waiting */
    unsigned n_members, n_open;
    bool is_proven; /* the last connection that ended its opening could send */
    bool is_queued, no_overlap, no_pipelining;
    unsigned n_silent; /* connections in a row that got no reply to commands sent together, which were not overlapped */
    uint64_t n_taken;  /* jobs */
    unsigned learned_most; /* how many connections the server accepts; valid until learned_until_ms */
    unsigned full_at;      /* how many messages went over the last connection that the server ended at a MAIL */
    unsigned learned_full; /* after how many messages the server ends every connection; valid until full_until_ms */
    int64_t plain_until_ms, learned_until_ms, full_until_ms;
    struct hky_task task;
};

/* ---- pool_learned.c ---- */

/* A connection could not be opened, or was turned away at its first MAIL. True: others are open, so that it shows how
 * many the server accepts and says nothing about its message. */
bool hky_pool_learn_turned_away(struct hky_pool_member *m, const struct hky_outbound_end *end);
void hky_pool_learn_open(struct hky_pool *pool); /* one more connection can send; n_open counts it */
void hky_pool_learn_end(struct hky_pool_member *m, const struct hky_outbound_end *end); /* a connection has ended */
/* How many messages the next connection may take (0: no bound), and how many connections there may be now. */
uint32_t hky_pool_most_messages(const struct hky_pool *pool);
unsigned hky_pool_most_connections(const struct hky_pool *pool);

#endif
