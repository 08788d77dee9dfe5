#include "net/tls_link.h"

#include "net/tls_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct hky_tls_link {
    SSL *ssl;
    struct hky_tls *tls;
    int fd;
    int sys;                      /* errno of the socket's failure */
    bool is_dry;                  /* after EAGAIN or a short read: the socket is not read again before the next edge */
    bool is_doubtful, is_hung_up; /* the last read was short; the peer has closed its side */
    bool has_ended;               /* the end of the socket was read, with no close_notify before it */
    bool is_verified, is_shaken;
    X509 *refused;             /* the server's certificate, when the handshake ended with it */
    char key[HKY_TLS_KEY_MAX]; /* in the session cache */
};

static int bio_write(BIO *bio, const char *p, int n)
{
    struct hky_tls_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t r;
    do
        r = send(link->fd, p, (size_t)n, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return (int)r;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        BIO_set_retry_write(bio);
    else
        link->sys = errno;
    return -1;
}

static int bio_read(BIO *bio, char *p, int n)
{
    struct hky_tls_link *link = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t r = -1;
    if (!link->is_dry) {
        do
            r = recv(link->fd, p, (size_t)n, 0);
        while (r < 0 && errno == EINTR);
        if (r < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            link->sys = errno;
            return -1;
        }
    }
    if (r >= 0) {
        link->is_doubtful = link->is_dry = r > 0 && r < n && !link->is_hung_up;
        if (r == 0) {
            link->has_ended = true;
            BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
        }
        return (int)r;
    }
    if (!link->is_dry)
        link->is_doubtful = false;
    link->is_dry = true;
    BIO_set_retry_read(bio);
    return -1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)num, (void)ptr;
    if (cmd == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

BIO_METHOD *hky_tls_bio_method(void)
{
    /* Not from BIO_get_new_index: there are few of those, and contexts come and go with each reload. */
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 126, "hikyaku socket");
    if (m != NULL) {
        BIO_meth_set_write(m, bio_write);
        BIO_meth_set_read(m, bio_read);
        BIO_meth_set_ctrl(m, bio_ctrl);
    }
    return m;
}

int hky_tls_link_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct hky_tls_link *link = SSL_get_app_data(ssl);
    if (!SSL_SESSION_is_resumable(session))
        return 0;
    hky_tls_session_keep(link->tls, hky_str_z(link->key), session);
    return 1;
}

static bool is_address(const char *name)
{
    unsigned char octets[16];
    return inet_pton(AF_INET, name, octets) == 1 || inet_pton(AF_INET6, name, octets) == 1;
}

/* Sets the name that the certificate must have, and the name that is sent as SNI. */
static enum hky_err expect_name(struct hky_tls_link *link, const char *name, struct hky_error *e)
{
    bool is_ip = name != NULL && is_address(name);
    if (name != NULL && !is_ip && SSL_set_tlsext_host_name(link->ssl, name) != 1)
        return hky_error_set(e, HKY_E_TLS, "the name %.100s cannot be sent to the TLS server", name);
    if (!link->tls->is_verified)
        return HKY_OK;
    if (name == NULL || name[0] == 0)
        return hky_error_set(e, HKY_E_TLS, "there is no name to verify the certificate against");
    /* RFC 9525 6.3: names count in subjectAltName, never in CN alone; "*" must be a whole label. */
    SSL_set_hostflags(link->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    int ok = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), name) : SSL_set1_host(link->ssl, name);
    if (ok != 1)
        return hky_error_set(e, HKY_E_TLS, "the name %.100s cannot be verified", name);
    return HKY_OK;
}

static void make_key(struct hky_tls_link *link, const char *name, const struct sockaddr_storage *peer)
{
    char host[100] = "", port[10] = "";
    socklen_t n = peer->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (peer->ss_family == AF_INET || peer->ss_family == AF_INET6)
        (void)getnameinfo((const struct sockaddr *)peer, n, host, sizeof host, port, sizeof port,
                          NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(link->key, sizeof link->key, "%s|%s|%.255s", host, port, name != NULL ? name : "");
}

/* Keeps a certificate that is not accepted, because OpenSSL does not. */
static int on_verify(int is_good, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct hky_tls_link *link = SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get0_cert(store);
    if (!is_good && link->refused == NULL && cert != NULL && X509_up_ref(cert) == 1)
        link->refused = cert;
    return is_good;
}

enum hky_err hky_tls_link_new(struct hky_tls *tls, int fd, const char *name, const struct sockaddr_storage *peer,
                              struct hky_tls_link **out, struct hky_error *e)
{
    struct hky_tls_link *link = hky_calloc(1, sizeof *link);
    ERR_clear_error();
    link->tls = hky_tls_ref(tls);
    link->fd = fd;
    link->ssl = SSL_new(tls->ctx);
    BIO *bio = link->ssl != NULL ? BIO_new(tls->bio) : NULL;
    HKY_ASSERT(bio != NULL);
    BIO_set_data(bio, link);
    BIO_set_init(bio, 1);
    SSL_set_bio(link->ssl, bio, bio);
    SSL_set_app_data(link->ssl, link);
    *out = link; /* set even when it fails below: the stream frees the link */
    if (tls->is_server) {
        SSL_set_accept_state(link->ssl);
        return HKY_OK;
    }
    SSL_set_connect_state(link->ssl);
    SSL_set_verify(link->ssl, SSL_get_verify_mode(link->ssl), on_verify);
    if (expect_name(link, name, e) != HKY_OK)
        return HKY_E_TLS;
    make_key(link, name, peer);
    SSL_SESSION *session = hky_tls_session_get(tls, hky_str_z(link->key));
    if (session != NULL) {
        (void)SSL_set_session(link->ssl, session); /* when this fails, a full handshake follows */
        SSL_SESSION_free(session);
    }
    return HKY_OK;
}

void hky_tls_link_free(struct hky_tls_link **at)
{
    struct hky_tls_link *link = *at;
    if (link == NULL)
        return;
    *at = NULL;
    SSL_free(link->ssl);
    X509_free(link->refused);
    ERR_clear_error();
    hky_tls_unref(&link->tls);
    free(link);
}

void hky_tls_link_on_readable(struct hky_tls_link *link, bool is_hung_up)
{
    link->is_dry = false;
    link->is_hung_up = is_hung_up;
}

bool hky_tls_link_is_doubtful(const struct hky_tls_link *link)
{
    return link->is_doubtful;
}

/* Why the SSL call returned `r`. */
static enum hky_tls_io result(struct hky_tls_link *link, int r, const char *doing, struct hky_error *e)
{
    char why[160];
    switch (SSL_get_error(link->ssl, r)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return HKY_TLS_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return link->has_ended ? HKY_TLS_CUT : HKY_TLS_EOF;
    case SSL_ERROR_SYSCALL:
        if (link->sys == 0)
            return HKY_TLS_CUT;
        hky_error_sys(e, HKY_E_NET, link->sys, "%s failed", doing);
        return HKY_TLS_BAD;
    default:
        hky_tls_last_error(why, sizeof why);
        hky_error_set(e, HKY_E_TLS, "%s failed: %s", doing, why);
        return HKY_TLS_BAD;
    }
}

static bool pin_of(X509 *cert, unsigned char pin[HKY_TLS_PIN_OCTETS])
{
    unsigned char *der = NULL, digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int der_n = cert != NULL ? i2d_PUBKEY(X509_get0_pubkey(cert), &der) : 0;
    bool is_known =
        der_n > 0 && EVP_Digest(der, (size_t)der_n, digest, &n, EVP_sha256(), NULL) == 1 && n == HKY_TLS_PIN_OCTETS;
    OPENSSL_free(der);
    if (is_known)
        memcpy(pin, digest, HKY_TLS_PIN_OCTETS);
    return is_known;
}

static bool has_pinned_key(const struct hky_tls_link *link)
{
    unsigned char pin[HKY_TLS_PIN_OCTETS];
    return pin_of(SSL_get0_peer_certificate(link->ssl), pin) && memcmp(pin, link->tls->pin, sizeof pin) == 0;
}

static void name_text(const X509_NAME *name, char *out, size_t n)
{
    BIO *bio = BIO_new(BIO_s_mem());
    unsigned long flags =
        (XN_FLAG_RFC2253 & ~XN_FLAG_SEP_MASK & ~XN_FLAG_DN_REV & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) |
        XN_FLAG_SEP_CPLUS_SPC; /* UTF-8 stays readable, control characters are escaped */
    char *text = NULL;
    long text_n = 0;
    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, flags) >= 0)
        text_n = BIO_get_mem_data(bio, &text);
    snprintf(out, n, "%.*s", (int)(text_n < (long)n ? text_n : (long)n - 1), text != NULL ? text : "");
    BIO_free(bio);
}

static void time_text(const ASN1_TIME *at, char *out, size_t n)
{
    struct tm tm;
    out[0] = '\0';
    if (ASN1_TIME_to_tm(at, &tm) == 1 && strftime(out, n, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        out[0] = '\0';
}

bool hky_tls_link_certificate(const struct hky_tls_link *link, struct hky_tls_certificate *out)
{
    X509 *cert = link->refused != NULL ? link->refused : SSL_get0_peer_certificate(link->ssl);
    unsigned char pin[HKY_TLS_PIN_OCTETS];
    *out = (struct hky_tls_certificate){0};
    if (cert == NULL)
        return false;
    name_text(X509_get_subject_name(cert), out->subject, sizeof out->subject);
    name_text(X509_get_issuer_name(cert), out->issuer, sizeof out->issuer);
    time_text(X509_get0_notBefore(cert), out->from, sizeof out->from);
    time_text(X509_get0_notAfter(cert), out->until, sizeof out->until);
    bool has_pin = pin_of(cert, pin);
    for (size_t i = 0; has_pin && i < sizeof pin; i++)
        snprintf(out->pin + 2 * i, 3, "%02x", pin[i]);
    ERR_clear_error();
    return true;
}

/* After the handshake, a resumed one too: does the server satisfy the policy? */
static enum hky_tls_io check_peer(struct hky_tls_link *link, struct hky_error *e)
{
    const struct hky_tls *t = link->tls;
    if (t->is_server)
        return HKY_TLS_DONE;
    if (t->is_verified) {
        long verdict = SSL_get_verify_result(link->ssl);
        if (verdict != X509_V_OK || SSL_get0_peer_certificate(link->ssl) == NULL) {
            hky_error_set(e, HKY_E_TLS, "the certificate was not accepted: %s", X509_verify_cert_error_string(verdict));
            return HKY_TLS_BAD;
        }
    }
    if (t->has_pin && !has_pinned_key(link)) {
        hky_error_set(e, HKY_E_TLS, "the server's public key is not the pinned one");
        return HKY_TLS_BAD;
    }
    link->is_verified = t->is_verified || t->has_pin;
    return HKY_TLS_DONE;
}

enum hky_tls_io hky_tls_link_handshake(struct hky_tls_link *link, struct hky_error *e)
{
    ERR_clear_error();
    int r = SSL_do_handshake(link->ssl);
    if (r == 1) {
        link->is_shaken = true;
        return check_peer(link, e);
    }
    enum hky_tls_io io = result(link, r, "the TLS handshake", e);
    long verdict = link->tls->is_verified ? SSL_get_verify_result(link->ssl) : X509_V_OK;
    if (io == HKY_TLS_BAD && verdict != X509_V_OK)
        hky_error_set(e, HKY_E_TLS, "the certificate was not accepted: %s", X509_verify_cert_error_string(verdict));
    return io;
}

enum hky_tls_io hky_tls_link_read(struct hky_tls_link *link, char *p, size_t cap, size_t *n, struct hky_error *e)
{
    ERR_clear_error();
    int r = SSL_read_ex(link->ssl, p, cap, n);
    return r == 1 ? HKY_TLS_DONE : result(link, r, "reading from the peer", e);
}

enum hky_tls_io hky_tls_link_write(struct hky_tls_link *link, const char *p, size_t n, size_t *done,
                                   struct hky_error *e)
{
    ERR_clear_error();
    int r = SSL_write_ex(link->ssl, p, n, done);
    return r == 1 ? HKY_TLS_DONE : result(link, r, "writing to the peer", e);
}

void hky_tls_link_shut(struct hky_tls_link *link)
{
    if (!link->is_shaken)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(link->ssl);
    ERR_clear_error();
}

bool hky_tls_link_is_verified(const struct hky_tls_link *link)
{
    return link->is_verified;
}

void hky_tls_link_text(const struct hky_tls_link *link, char *out, size_t n)
{
    snprintf(out, n, "%s %s%s", SSL_get_version(link->ssl), SSL_get_cipher_name(link->ssl),
             SSL_session_reused(link->ssl) ? " resumed" : "");
}
