/*
 * tls_internal -- what tls.c (contexts) and tls_link.c (connections) have in common; it is in tls_shared.c. net/ only.
 */
#ifndef HKY_NET_TLS_INTERNAL_H
#define HKY_NET_TLS_INTERNAL_H

#include "net/tls.h"

#include "base/map.h"

#include <pthread.h>
#include <stdatomic.h>

/* Types of OpenSSL, which only the three .c files know. */
struct ssl_st;
struct ssl_ctx_st;
struct ssl_session_st;
struct bio_method_st;

enum { HKY_TLS_SESSIONS_MAX = 512, HKY_TLS_PIN_OCTETS = 32, HKY_TLS_KEY_MAX = 400 };

struct hky_tls {
    atomic_uint refs;
    struct ssl_ctx_st *ctx;
    struct bio_method_st *bio;
    bool is_server, is_verified, has_pin;
    unsigned char pin[HKY_TLS_PIN_OCTETS];
    pthread_mutex_t lock;
    struct hky_map sessions; /* OpenSSL's sessions by name and peer; guarded by lock */
};

/* The last OpenSSL error of this thread as text; the queue is empty afterwards. */
void hky_tls_last_error(char *out, size_t n);
void hky_tls_session_keep(struct hky_tls *tls, struct hky_str key,
                          struct ssl_session_st *session);                           /* takes the reference */
struct ssl_session_st *hky_tls_session_get(struct hky_tls *tls, struct hky_str key); /* a reference, or NULL */
/* The socket below a link (tls_link.c), without SIGPIPE. */
struct bio_method_st *hky_tls_bio_method(void);
int hky_tls_link_on_session(struct ssl_st *ssl, struct ssl_session_st *session);

#endif
