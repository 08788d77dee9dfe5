/* What contexts and connections share: the life of a context, its sessions, the text of the last error. */
#include "net/tls_internal.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

void hky_tls_last_error(char *out, size_t n)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    if (reason != NULL)
        snprintf(out, n, "%s", reason);
    else if (code != 0)
        ERR_error_string_n(code, out, n);
    else
        snprintf(out, n, "unknown error");
    ERR_clear_error();
}

struct hky_tls *hky_tls_ref(struct hky_tls *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

static void sessions_clear(struct hky_tls *t)
{
    size_t at = 0;
    for (struct hky_map_entry *entry; (entry = hky_map_next(&t->sessions, &at)) != NULL;)
        SSL_SESSION_free(entry->value);
    hky_map_fini(&t->sessions);
}

void hky_tls_unref(struct hky_tls **at)
{
    struct hky_tls *t = *at;
    *at = NULL;
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    sessions_clear(t);
    SSL_CTX_free(t->ctx);
    BIO_meth_free(t->bio);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void hky_tls_session_keep(struct hky_tls *t, struct hky_str key, SSL_SESSION *session)
{
    pthread_mutex_lock(&t->lock);
    if (t->sessions.n >= HKY_TLS_SESSIONS_MAX && hky_map_get(&t->sessions, key) == NULL) {
        sessions_clear(t); /* this is rare, and costs only full handshakes */
        hky_map_init_untrusted(&t->sessions);
    }
    SSL_SESSION *old = hky_map_put(&t->sessions, key, session);
    pthread_mutex_unlock(&t->lock);
    SSL_SESSION_free(old);
}

SSL_SESSION *hky_tls_session_get(struct hky_tls *t, struct hky_str key)
{
    pthread_mutex_lock(&t->lock);
    SSL_SESSION *session = hky_map_get(&t->sessions, key);
    /* A TLS 1.3 ticket is used once (RFC 8446 C.4); the connection brings a new one. */
    if (session != NULL && SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION)
        hky_map_remove(&t->sessions, key);
    else if (session != NULL)
        SSL_SESSION_up_ref(session);
    pthread_mutex_unlock(&t->lock);
    return session;
}
