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

struct accept_listener;
struct accept_connection;
struct accept_submission;
struct accept_ask;

/* One worker's part. Only its loop uses it, except for the counters. */
struct accept_worker {
    struct hky_accept *accept;
    unsigned index;
    struct hky_loop *loop;
    struct accept_sasl *sasl;
    struct hky_intake intake; /* its journal may be set later */
    LIST_HEAD(, accept_connection) connections;
    LIST_HEAD(, accept_submission) submissions; /* submitted, not yet durable; may outlive their connections */
    LIST_HEAD(, accept_ask) asks;               /* secrets asked for; may outlive their connections */
    LIST_HEAD(, accept_socket) sockets;
    uint64_t n_connections; /* this one and the counters below are atomic */
    uint64_t sessions_total, messages, recipients, refused;
    bool is_draining;
};

/* A listener's socket at one worker. */
struct accept_socket {
    LIST_ENTRY(accept_socket) link;
    struct accept_worker *worker;
    struct accept_listener *listener;
    struct hky_acceptor *acceptor;
    int fd;
};

/* One address that is listened on. The list of accept, the sockets and the connections each hold a reference. */
struct accept_listener {
    int refs; /* atomic */
    char addr[64];
    uint16_t port, bound_port;
    enum hky_listen_tls tls_mode; /* atomic; for the log and clients without a session */
    struct hky_tls *tls;          /* under accept->lock: a reload may bring a new certificate */
    int *fds;                     /* one for each worker; -1 once the worker has taken it */
    bool is_kept;                 /* set during a reload */
};

struct hky_accept {
    struct hky_accept_params params;
    struct hky_accept_ops ops;
    struct accept_worker *workers;
    struct accept_listener **listeners; /* used by the engine's thread only */
    unsigned n_listeners;
    bool is_started;
    int fd_most; /* clients get no descriptor above this one; the quarter above is left to deliveries, files and
                    operators */
    uint64_t n_connections; /* all; atomic */
    pthread_mutex_t lock;   /* clients, listeners' tls */
    struct hky_map clients; /* address or network -> number of connections */
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct hky_timer grace;
    struct hky_task drain_start, drain_check;
    int64_t grace_ms;
    LIST_HEAD(, order) orders; /* orders to workers that have not run yet; under the lock */
    int n_draining;            /* workers with connections; atomic */
};

/* connection.c */
struct accept_connection_peer {
    char text[46];
    struct in6_addr addr; /* v4 as v4-mapped */
};
void accept_connection_new(struct accept_socket *sock, int fd, const struct accept_connection_peer *peer);
void accept_connection_turn_away(
    int fd, enum hky_listen_tls tls); /* sends 421 unless the port begins with TLS; fd stays open */
void accept_connection_take_policy(struct accept_worker *w); /* a new policy is in force at the worker */
void accept_connection_drain(struct accept_worker *w);
void accept_connection_cut(struct accept_worker *w);  /* the time for that is over */
void accept_connection_free(struct accept_worker *w); /* the loop has stopped */

/* networks.c: pure */
bool accept_listen_allows(const struct hky_listen *l, const struct in6_addr *client);
/* Do the networks together hold a large part of all addresses, however many pieces they are written in? */
bool accept_allow_is_everyone(const struct hky_cidr *allow, uint32_t n);

/* sockets.c */
void accept_peer_of(const struct sockaddr_storage *from, struct accept_connection_peer *peer);
/* No open relay, no passwords in clear beyond loopback: HKY_E_CONFIG with file:line and what to do. */
enum hky_err accept_listen_check(const struct hky_listen *l, struct hky_error *e);
/* HKY_E_CONFIG, HKY_E_TLS: `e` names file and line of the listener. One reference. */
enum hky_err accept_listen_certificate(const struct hky_policy *policy, const struct hky_listen *l,
                                       struct hky_tls **out, struct hky_error *e); /* NULL for a plain one */
/* Fills listener->fds, one a worker; on failure some may be open. HKY_E_EXISTS: the
 * port is in use; HKY_E_DENIED: it needs a privilege; HKY_E_CONFIG: this machine cannot listen on the address. */
enum hky_err accept_listener_sockets(struct hky_accept *a, const struct hky_listen *l, struct accept_listener *listener,
                                     struct hky_error *e);

/* listener.c */
void accept_listener_unref(struct accept_listener **listener);
struct hky_tls *accept_listener_tls(struct hky_accept *a, struct accept_listener *listener); /* counted */
/* Counts a client; one that holds a /64 of IPv6 is one client. false: there are too many. */
bool accept_client_enter(struct hky_accept *a, const struct in6_addr *client, const struct hky_bounds *bounds);
void accept_client_leave(struct accept_worker *w,
                         const struct in6_addr *client); /* the last client to leave ends a drain */

#endif
