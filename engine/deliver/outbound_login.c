/* Decides whether AUTH is used, how, and with which credential. In case of doubt no credential is sent. */
#include "base/endpoint.h"
#include "deliver/outbound_internal.h"

#include <stdlib.h>

static bool is_loopback(const struct hky_outbound *c)
{
    char peer[64];
    hky_stream_peer(c->stream, peer, sizeof(peer));
    return hky_is_loopback(peer);
}

static bool may_login(struct hky_outbound *c)
{
    return hky_login_may_be_sent(c->params.relay, hky_stream_is_secure(c->stream),
                                 hky_stream_tls_is_verified(c->stream), is_loopback(c));
}

static void login_with(struct hky_outbound *c, struct hky_secret *secret, const struct hky_error *why)
{
    struct hky_login *sasl = NULL;
    struct hky_error error = *why;
    if (secret != NULL) {
        struct hky_login_params p = {.auth = c->auth,
                                     .user = c->params.relay->user,
                                     .host = hky_outbound_host(c),
                                     .port = c->params.port,
                                     .secret = secret};
        hky_login_new(&p, &sasl, &error);
    }
    bool may_pass = error.code == HKY_E_NET || error.code == HKY_E_TIMEOUT || error.code == HKY_E_DNS;
    if (sasl != NULL)
        hky_dialogue_login(&c->dialogue, sasl);
    else
        hky_outbound_fail_local(c, HKY_STAGE_AUTH, may_pass ? HKY_CLASS_NETWORK : HKY_CLASS_RELAY_AUTH,
                                HKY_ORIGIN_LOCAL, "%s", error.text);
}

static void wait_free(struct hky_outbound_login_wait *w)
{
    LIST_REMOVE(w, link);
    hky_policy_unref(&w->policy);
    free(w);
}

void hky_outbound_login_waits_drop(struct hky_outbound_login_waits *waits)
{
    struct hky_outbound_login_wait *w;
    while ((w = LIST_FIRST(waits)) != NULL)
        wait_free(w);
}

struct hky_outbound *hky_outbound_take_secret(void *arg, struct hky_secret *secret, const struct hky_error *e)
{
    struct hky_outbound_login_wait *w = arg;
    struct hky_outbound *c = w->connection;
    wait_free(w);
    if (c == NULL || c->state == HKY_OUTBOUND_CLOSED) {
        hky_secret_unref(&secret);
        return NULL;
    }
    c->login = NULL;
    hky_secret_unref(&c->token);
    c->token = secret;
    if (secret != NULL)
        hky_mask_add(&c->mask, hky_secret_value(secret));
    login_with(c, secret, secret == NULL ? e : &(struct hky_error){0});
    return c;
}

bool hky_outbound_wants_refresh(const struct hky_outbound *c)
{
    return hky_auth_is_token(c->auth) && c->token != NULL && !c->has_refreshed &&
           hky_dialogue_is_login_refused(&c->dialogue);
}

void hky_outbound_login(struct hky_outbound *c,
                        void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e))
{
    const struct hky_relay *r = c->params.relay;
    const struct hky_capabilities *caps = &c->dialogue.caps;
    bool is_again = c->auths_tried != 0;
    if (!may_login(c)) {
        hky_outbound_fail_local(
            c, HKY_STAGE_AUTH, HKY_CLASS_RELAY_AUTH, HKY_ORIGIN_LOCAL,
            "the password is not sent without verified TLS: set tls = \"starttls\" or \"implicit\"");
        return;
    }
    uint32_t offered = caps->auths & ~c->auths_tried;
    enum hky_auth auth = hky_login_choose(r->auth, hky_login_has_oauth(r), offered, hky_stream_is_secure(c->stream));
    if (is_again && (auth == HKY_AUTH_NONE || hky_outbound_wants_refresh(c))) {
        hky_outbound_fail(c, HKY_STAGE_AUTH, HKY_CLASS_N, false, &c->dialogue.refusal);
        return;
    }
    if (auth == HKY_AUTH_NONE) {
        hky_outbound_fail_local(c, HKY_STAGE_AUTH, HKY_CLASS_RELAY_AUTH, HKY_ORIGIN_LOCAL, "%s",
                                caps->has_auth ? "the server offers none of the AUTH mechanisms that may be used here"
                                               : "the server does not offer AUTH here");
        return;
    }
    c->auth = auth;
    c->auths_tried |= 1u << auth;
    if (is_again) {
        login_with(c, c->token, &(struct hky_error){0});
        return;
    }
    c->login = hky_calloc(1, sizeof(*c->login));
    c->login->connection = c;
    LIST_INSERT_HEAD(c->params.waits, c->login, link);
    if (c->params.policy != NULL)
        c->login->policy = hky_policy_ref(c->params.policy);
    c->params.ops->secret(c->params.ctx, c, c->has_refreshed ? c->token : NULL, done, c->login);
}

void hky_outbound_remember_response(struct hky_outbound *c, struct hky_str line)
{
    const char *blank = memchr(line.p, ' ', line.n);
    if (blank != NULL) /* skips "AUTH MECHANISM": base64 itself has no blanks */
        blank = memchr(blank + 1, ' ', line.n - (size_t)(blank + 1 - line.p));
    else
        hky_mask_add_response(&c->mask, line);
    if (blank != NULL)
        hky_mask_add_response(&c->mask, hky_str_of(blank + 1, line.n - (size_t)(blank + 1 - line.p)));
}
