/*
 * tls_link -- TLS over one non-blocking socket, seen by its stream: handshake, read, write, end. net/ only.
 */
#ifndef HKY_NET_TLS_LINK_H
#define HKY_NET_TLS_LINK_H

#include "net/tls.h"

#include <stddef.h>
#include <sys/socket.h>

struct hky_tls_link;

enum hky_tls_io {
    HKY_TLS_DONE,
    HKY_TLS_AGAIN, /* call again at the next edge of the socket */
    HKY_TLS_EOF,   /* close_notify */
    HKY_TLS_CUT,   /* the socket ended without one */
    HKY_TLS_BAD,   /* `e` is filled; the link is of no more use */
};

/* The stream keeps `fd`. `name` (client; may be NULL) is sent as SNI and verified; `peer` and `name` are the key in the
 * session cache. HKY_E_TLS: `name` cannot be verified; *out is set all the same, and the caller frees it. */
enum hky_err hky_tls_link_new(struct hky_tls *tls, int fd, const char *name, const struct sockaddr_storage *peer,
                              struct hky_tls_link **out, struct hky_error *e);
void hky_tls_link_free(struct hky_tls_link **link);
/* Call this when an edge came, or when it is time to look again: the socket is read again. With `is_hung_up` it is read
 * until it has nothing more. */
void hky_tls_link_on_readable(struct hky_tls_link *link, bool is_hung_up);
/* The last read was a short one: a reset may have come with it. */
bool hky_tls_link_is_doubtful(const struct hky_tls_link *link);

/* The handshake, to be called until it is DONE; then octets in both directions. read: DONE with *n >= 1. */
enum hky_tls_io hky_tls_link_handshake(struct hky_tls_link *link, struct hky_error *e);
enum hky_tls_io hky_tls_link_read(struct hky_tls_link *link, char *p, size_t cap, size_t *n, struct hky_error *e);
/* After AGAIN the next call must pass the same octets first, and at least as many. */
enum hky_tls_io hky_tls_link_write(struct hky_tls_link *link, const char *p, size_t n, size_t *done,
                                   struct hky_error *e);
void hky_tls_link_shut(struct hky_tls_link *link); /* close_notify, if the kernel takes it */

/* As the functions of the stream of the same names (net/stream.h). */
bool hky_tls_link_is_verified(const struct hky_tls_link *link);
bool hky_tls_link_certificate(const struct hky_tls_link *link, struct hky_tls_certificate *out); /* false: none */
void hky_tls_link_text(const struct hky_tls_link *link, char *out, size_t n);

#endif
