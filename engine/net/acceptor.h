/*
 * acceptor -- takes the connections of one listening socket: a bounded number a turn, so that those who are connected
 * already have their turn, too. Without a descriptor or memory for the next one it rests, instead of spinning on a
 * socket that stays readable. An acceptor belongs to one loop.
 */
#ifndef HKY_NET_ACCEPTOR_H
#define HKY_NET_ACCEPTOR_H

#include "net/loop.h"

#include <sys/socket.h>

#define HKY_ACCEPTOR_TURN      64  /* connections taken in one turn */
#define HKY_ACCEPTOR_REST_MS   100 /* how long it rests when there are no descriptors */
#define HKY_ACCEPTOR_REPORT_MS 10000

struct hky_acceptor;

struct hky_acceptor_ops {
    /* A new connection, non-blocking; the callee owns the descriptor from now on. */
    void (*taken)(void *ctx, int fd, const struct sockaddr_storage *from);
    /* No descriptor is left. The acceptor keeps one for this: `fd` is a connection to be refused at once, and is closed
     * afterwards; -1 when not even that was possible. `sys` is the errno. `is_first`: nothing was reported within
     * HKY_ACCEPTOR_REPORT_MS, so that the log may have a line. NULL: the connection is closed without a word. */
    void (*refused)(void *ctx, int fd, int sys, bool is_first);
    int (*accept)(int fd, struct sockaddr *from, socklen_t *n, int flags); /* NULL: accept4; tests have another */
};

/* Begins at once. `fd` listens and is non-blocking; the caller keeps it open until hky_acceptor_free. */
struct hky_acceptor *hky_acceptor_new(struct hky_loop *loop, int fd, const struct hky_acceptor_ops *ops, void *ctx);
void hky_acceptor_free(struct hky_acceptor **a); /* NULL is fine; never from inside a callback */

#endif
