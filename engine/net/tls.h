/*
 * tls -- contexts: a server's certificate, or what a client demands. Only the tls files know OpenSSL.
 * TLS 1.2 at least, renegotiation off. Contexts are counted; one may serve many threads.
 */
#ifndef HKY_NET_TLS_H
#define HKY_NET_TLS_H

#include "base/error.h"

#include <stdbool.h>

struct hky_tls;

/* PEM files. HKY_E_TLS names the file and what to do. */
enum hky_err hky_tls_server_new(const char *cert_file, const char *key_file, struct hky_tls **out, struct hky_error *e);

struct hky_tls_client_params {
    bool is_verified;    /* false: opportunistic, any certificate */
    const char *ca_file; /* NULL or "": the system's */
    const char *pin;     /* SHA-256 of the public key (SPKI), 64 hex digits, or NULL/"". Without ca_file the pin alone
                            decides, so that a self-signed certificate can be accepted; with ca_file, both must fit */
};
/* Sessions are cached inside for resumption, keyed by verified name and peer; a context belongs to one TLS policy and
 * account, so none is used across them. HKY_E_CONFIG: `pin` is none. HKY_E_TLS: the authorities cannot be read; `e`
 * names the file. */
enum hky_err hky_tls_client_new(const struct hky_tls_client_params *params, struct hky_tls **out, struct hky_error *e);
/* A server's certificate, for people; text is printable and cut to fit, "" where unknown. */
struct hky_tls_certificate {
    char subject[200], issuer[200];
    char from[24], until[24]; /* "2026-11-28 07:00 UTC" */
    char pin[65];             /* the value of hky_tls_client_params.pin for this certificate */
};

/* Counted; any thread. */
struct hky_tls *hky_tls_ref(struct hky_tls *t);
void hky_tls_unref(struct hky_tls **t);

#endif
