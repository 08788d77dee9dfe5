#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A key with a pass phrase is an error, not a question on the terminal that a running engine would wait for. */
static int no_pass_phrase(char *buf, int size, int is_writing, void *ctx)
{
    (void)buf, (void)size, (void)is_writing, (void)ctx;
    return -1;
}

static struct hky_tls *tls_alloc(bool is_server)
{
    struct hky_tls *t = hky_calloc(1, sizeof *t);
    t->refs = 1;
    t->is_server = is_server;
    pthread_mutex_init(&t->lock, NULL);
    hky_map_init_untrusted(&t->sessions);
    ERR_clear_error();
    t->bio = hky_tls_bio_method();
    t->ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    HKY_ASSERT(t->bio != NULL && t->ctx != NULL); /* only a lack of memory can make these fail */
    SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
    /* tls_link.c judges an end without close_notify itself; if OpenSSL did, it would also refuse to send the last
     * replies. */
    SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(t->ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_passwd_cb(t->ctx, no_pass_phrase);
    SSL_CTX_set_read_ahead(t->ctx, 1); /* reads a record's head and body in one system call */
    return t;
}

/* Says why OpenSSL did not accept a file; its own "system lib" does not show that the file is missing. */
static void why_not(const char *file, char *why, size_t n)
{
    hky_tls_last_error(why, n);
    if (access(file, R_OK) != 0)
        snprintf(why, n, "%s", strerror(errno));
}

enum hky_err hky_tls_server_new(const char *cert_file, const char *key_file, struct hky_tls **out, struct hky_error *e)
{
    struct hky_tls *t = tls_alloc(true);
    char why[120];
    static const unsigned char id[] = "hikyaku";
    SSL_CTX_set_options(t->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF); /* tickets carry the state */
    SSL_CTX_set_session_id_context(t->ctx, id, sizeof id - 1);
    SSL_CTX_set_num_tickets(t->ctx, 1);
    if (SSL_CTX_use_certificate_chain_file(t->ctx, cert_file) != 1) {
        why_not(cert_file, why, sizeof why);
        hky_tls_unref(&t);
        return hky_error_set(e, HKY_E_TLS, "cannot use the certificate %.90s: %s; give a PEM file with the chain",
                             cert_file, why);
    }
    if (SSL_CTX_use_PrivateKey_file(t->ctx, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(t->ctx) != 1) {
        why_not(key_file, why, sizeof why);
        hky_tls_unref(&t);
        return hky_error_set(
            e, HKY_E_TLS, "cannot use the key %.90s: %s; give the certificate's own key, PEM, readable", key_file, why);
    }
    *out = t;
    return HKY_OK;
}

static int hex_value(char c)
{
    c = hky_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_pin(const char *text, unsigned char pin[HKY_TLS_PIN_OCTETS])
{
    if (strlen(text) != HKY_TLS_PIN_OCTETS * 2)
        return false;
    for (size_t i = 0; i < HKY_TLS_PIN_OCTETS; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        pin[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

enum hky_err hky_tls_client_new(const struct hky_tls_client_params *params, struct hky_tls **out, struct hky_error *e)
{
    struct hky_tls *t = tls_alloc(false);
    bool has_file = params->ca_file != NULL && params->ca_file[0] != 0;
    t->has_pin = params->pin != NULL && params->pin[0] != 0;
    t->is_verified = params->is_verified && (has_file || !t->has_pin);
    if (t->has_pin && !parse_pin(params->pin, t->pin)) {
        hky_tls_unref(&t);
        return hky_error_set(e, HKY_E_CONFIG, "a TLS pin is the SHA-256 of the public key: 64 hex digits");
    }
    if (t->is_verified) {
        int ok = has_file ? SSL_CTX_load_verify_locations(t->ctx, params->ca_file, NULL)
                          : SSL_CTX_set_default_verify_paths(t->ctx);
        if (ok != 1) {
            char why[120];
            why_not(has_file ? params->ca_file : "/", why, sizeof why);
            hky_tls_unref(&t);
            return hky_error_set(e, HKY_E_TLS, "cannot read CA certificates from %.90s: %s; give a PEM file",
                                 has_file ? params->ca_file : "the system's store", why);
        }
    }
    SSL_CTX_set_verify(t->ctx, t->is_verified ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->ctx, hky_tls_link_on_session);
    *out = t;
    return HKY_OK;
}
