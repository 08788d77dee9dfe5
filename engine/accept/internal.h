/*
 * internal -- listeners, workers and connections as the files of this stage see them.
 */
#ifndef HKY_ACCEPT_INTERNAL_H
#define HKY_ACCEPT_INTERNAL_H

#include "accept/session.h"
#include "hikyaku/accept.h"
#include "net/acceptor.h"
#include "net/stream.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/queue.h>

struct hky_door;
struct hky_connection;
struct hky_pending;
struct hky_ask;

/* One worker's part; touched on its loop only, but for the counters. */
struct hky_accept_worker {
    struct hky_accept *accept;
    unsigned index;
    struct hky_loop *loop;
    struct hky_sasl *sasl;
    struct hky_intake intake; /* its journal may come later */
    LIST_HEAD(, hky_connection) connections;
    LIST_HEAD(, hky_pending) pending; /* submitted, not yet durable; may outlive their connections */
    LIST_HEAD(, hky_ask) asks;        /* secrets asked for; may outlive their connections */
    LIST_HEAD(, hky_gate) gates;
    uint64_t n_connections; /* this one and the following: atomic */
    uint64_t sessions_total, messages, recipients, refused;
    bool is_draining;
};

/* A door at one worker. */
struct hky_gate {
    LIST_ENTRY(hky_gate) link;
    struct hky_accept_worker *worker;
    struct hky_door *door;
    struct hky_acceptor *acceptor;
    int fd;
};

/* One address that is listened on; counted: accept's list, gates, connections. */
struct hky_door {
    int refs; /* atomic */
    char addr[64];
    uint16_t port, bound_port;
    enum hky_listen_tls tls_mode; /* for the log; sessions go by their policy */
    struct hky_tls *tls;          /* under accept->lock: a reload may bring a new certificate */
    int *fds;                     /* one a worker, until its gate takes it; -1 taken */
    bool is_kept;                 /* mark during a reload */
};

struct hky_accept {
    struct hky_accept_params params;
    struct hky_accept_ops ops;
    struct hky_accept_worker *workers;
    struct hky_door **doors; /* the engine's thread */
    unsigned n_doors;
    bool is_started;
    int fd_most;            /* the quarter of the descriptors above this is left to deliveries, files and operators */
    uint64_t n_connections; /* all; atomic */
    pthread_mutex_t lock;   /* clients, doors' tls */
    struct hky_map clients; /* address or network -> number of connections */
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct hky_timer grace;
    struct hky_task drain_start, drain_check;
    int64_t grace_ms;
    LIST_HEAD(, order) orders; /* to workers, not run yet; under the lock */
    int n_draining;            /* workers with connections; atomic */
};

/* connection.c */
struct hky_connection_peer {
    char text[46];
    struct in6_addr addr; /* v4 as v4-mapped */
};
void hky_connection_new(struct hky_gate *gate, int fd, const struct hky_connection_peer *peer);
void hky_connection_turn_away(int fd, enum hky_listen_tls tls); /* 421 where the client can read it; fd stays open */
void hky_connections_take_policy(struct hky_accept_worker *w);  /* a new one is in force at the worker */
void hky_connections_drain(struct hky_accept_worker *w);
void hky_connections_free(struct hky_accept_worker *w); /* the loop has stopped */

/* networks.c: pure */
bool hky_listen_allows(const struct hky_listen *l, const struct in6_addr *client);
/* Do the networks together hold a large part of the world, in however many pieces it is written? */
bool hky_allow_is_everyone(const struct hky_cidr *allow, uint32_t n);

/* sockets.c */
void hky_peer_of(const struct sockaddr_storage *from, struct hky_connection_peer *peer);
/* No open relay, no passwords in clear beyond loopback: HKY_E_CONFIG with file:line and what to do. */
enum hky_err hky_listen_check(const struct hky_listen *l, struct hky_error *e);
enum hky_err hky_listen_certificate(const struct hky_policy *policy, const struct hky_listen *l, struct hky_tls **out,
                                    struct hky_error *e); /* NULL for a plain one */
/* Fills door->fds, one a worker; on failure some may be open. */
enum hky_err hky_door_sockets(struct hky_accept *a, const struct hky_listen *l, struct hky_door *door,
                              struct hky_error *e);

/* listener.c */
void hky_door_unref(struct hky_door **door);
struct hky_tls *hky_door_tls(struct hky_accept *a, struct hky_door *door); /* counted */
/* Counts a client; one that holds a /64 of IPv6 is one client. false: there are too many. */
bool hky_client_enter(struct hky_accept *a, const struct in6_addr *client, const struct hky_bounds *bounds);
void hky_client_leave(struct hky_accept_worker *w, const struct in6_addr *client); /* also tells a drain */

#endif
