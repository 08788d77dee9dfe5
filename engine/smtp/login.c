#include "smtp/login.h"

#include <gsasl.h>
#include <stdlib.h>

#define CHALLENGE_MAX 4096
#define AUTH_LINE_MAX 510 /* a command line without its CRLF */
#define FIRST_MAX     (64 * 1024)

struct hky_login {
    enum hky_auth auth;
    char *user, *host;
    uint16_t port;
    struct hky_secret *secret;
    Gsasl *library;
    Gsasl_session *session;
    struct hky_buf first; /* an initial response that was too long for the AUTH line */
    bool is_satisfied;
};

static const char *const auth_names[] = {
#define X(id, value, name, offered) name,
    HKY_AUTHS(X)
#undef X
};

const char *hky_auth_name(enum hky_auth a)
{
    return a < HKY_AUTH_N ? auth_names[a] : "";
}

static bool is_stated(const struct hky_secret_ref *ref)
{
    return ref->name != NULL || ref->command != NULL || ref->literal != NULL;
}

bool hky_login_may_be_sent(const struct hky_relay *r, bool is_secure, bool is_verified, bool is_loopback)
{
    if (is_secure)
        return is_verified;
    return r->tls == HKY_TLS_NONE && (r->auth != HKY_AUTH_AUTO || is_loopback);
}

bool hky_login_has_oauth(const struct hky_relay *r)
{
    return r->oauth.token_command != NULL || is_stated(&r->oauth.refresh);
}

enum hky_auth hky_login_choose(enum hky_auth asked, bool has_oauth, uint32_t offered, bool is_secure)
{
    static const enum hky_auth by_token[] = {HKY_AUTH_XOAUTH2, HKY_AUTH_OAUTHBEARER, HKY_AUTH_NONE};
    static const enum hky_auth over_tls[] = {HKY_AUTH_SCRAM_SHA_256, HKY_AUTH_PLAIN, HKY_AUTH_LOGIN, HKY_AUTH_CRAM_MD5,
                                             HKY_AUTH_NONE};
    static const enum hky_auth in_clear[] = {HKY_AUTH_SCRAM_SHA_256, HKY_AUTH_CRAM_MD5, HKY_AUTH_PLAIN, HKY_AUTH_LOGIN,
                                             HKY_AUTH_NONE};
    if (asked != HKY_AUTH_AUTO)
        return asked != HKY_AUTH_NONE && (offered & (1u << asked)) != 0 ? asked : HKY_AUTH_NONE;
    const enum hky_auth *order = has_oauth ? by_token : is_secure ? over_tls : in_clear;
    while (*order != HKY_AUTH_NONE && (offered & (1u << *order)) == 0)
        order++;
    return *order;
}

bool hky_auth_is_token(enum hky_auth a)
{
    return a == HKY_AUTH_XOAUTH2 || a == HKY_AUTH_OAUTHBEARER;
}

/* Has the text an octet that would end a field early in any of the mechanisms? */
static bool has_control(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

static enum hky_err open_session(struct hky_login *s, struct hky_error *e)
{
    int rc = gsasl_init(&s->library);
    if (rc == GSASL_OK)
        rc = gsasl_client_start(s->library, auth_names[s->auth], &s->session);
    if (rc == GSASL_OK)
        rc = gsasl_property_set(s->session, GSASL_AUTHID, s->user);
    struct hky_str password = hky_secret_value(s->secret);
    if (rc == GSASL_OK)
        rc = gsasl_property_set_raw(s->session, GSASL_PASSWORD, password.p, password.n);
    if (rc != GSASL_OK)
        return hky_error_set(e, HKY_E_STATE, "AUTH %s cannot start: %s", auth_names[s->auth], gsasl_strerror(rc));
    return HKY_OK;
}

enum hky_err hky_login_new(const struct hky_login_params *p, struct hky_login **out, struct hky_error *e)
{
    *out = NULL;
    struct hky_str secret = hky_secret_value(p->secret);
    if (has_control(hky_str_z(p->user)) || memchr(secret.p, 0, secret.n) != NULL ||
        (hky_auth_is_token(p->auth) && has_control(secret)))
        return hky_error_set(e, HKY_E_SYNTAX, "the user name, password or token has control octets: write it again");
    if (secret.n == 0)
        return hky_error_set(e, HKY_E_MISSING, "the password or token is empty");
    struct hky_login *s = hky_calloc(1, sizeof(*s));
    s->auth = p->auth;
    s->user = hky_strdup(p->user);
    s->host = hky_strdup(p->host != NULL ? p->host : "");
    s->port = p->port;
    s->secret = hky_secret_ref(p->secret);
    hky_buf_init(&s->first, FIRST_MAX);
    if (!hky_auth_is_token(p->auth) && open_session(s, e) != HKY_OK) {
        hky_login_free(&s);
        return HKY_E_STATE;
    }
    *out = s;
    return HKY_OK;
}

static void forget_first(struct hky_login *s)
{
    if (s->first.p != NULL)
        hky_secret_wipe(s->first.p, s->first.n);
    hky_buf_clear(&s->first);
}

void hky_login_free(struct hky_login **sp)
{
    struct hky_login *s = *sp;
    if (s == NULL)
        return;
    *sp = NULL;
    if (s->session != NULL)
        gsasl_finish(s->session);
    if (s->library != NULL)
        gsasl_done(s->library);
    hky_secret_unref(&s->secret);
    forget_first(s);
    hky_buf_fini(&s->first);
    free(s->user);
    free(s->host);
    free(s);
}

const char *hky_login_name(const struct hky_login *s)
{
    return auth_names[s->auth];
}

static void add_token(struct hky_login *s, struct hky_buf *out)
{
    s->is_satisfied = true;
    struct hky_str token = hky_secret_value(s->secret);
    struct hky_buf plain;
    hky_buf_init(&plain, token.n + strlen(s->user) + strlen(s->host) + 128);
    if (s->auth == HKY_AUTH_XOAUTH2)
        hky_buf_printf(&plain, "user=%s\001auth=Bearer ", s->user);
    else
        hky_buf_printf(&plain, "n,a=%s,\001host=%s\001port=%u\001auth=Bearer ", s->user, s->host, s->port);
    hky_buf_add_str(&plain, token);
    hky_buf_add_z(&plain, "\001\001");
    hky_buf_add_base64(out, hky_buf_str(&plain));
    if (plain.p != NULL)
        hky_secret_wipe(plain.p, plain.n);
    hky_buf_fini(&plain);
}

static enum hky_err step(struct hky_login *s, struct hky_str in, struct hky_buf *out, size_t *n_out,
                         struct hky_error *e)
{
    char *answer = NULL;
    *n_out = 0;
    int rc = gsasl_step(s->session, in.p, in.n, &answer, n_out);
    if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE)
        return hky_error_set(e, HKY_E_DENIED, "AUTH %s failed here: %s", auth_names[s->auth], gsasl_strerror(rc));
    if (rc == GSASL_OK)
        s->is_satisfied = true;
    if (*n_out > 0)
        hky_buf_add_base64(out, hky_str_of(answer, *n_out));
    if (answer != NULL) {
        hky_secret_wipe(answer, *n_out);
        gsasl_free(answer);
    }
    return HKY_OK;
}

enum hky_err hky_login_begin(struct hky_login *s, struct hky_buf *out, struct hky_error *e)
{
    if (s->auth == HKY_AUTH_LOGIN || s->auth == HKY_AUTH_CRAM_MD5)
        return HKY_OK; /* the server speaks first */
    size_t n = 1;
    enum hky_err err = HKY_OK;
    if (hky_auth_is_token(s->auth))
        add_token(s, &s->first);
    else
        err = step(s, hky_str_of("", 0), &s->first, &n, e);
    if (err == HKY_OK && s->first.is_over)
        err = hky_error_set(e, HKY_E_LIMIT, "the password or token is too long for a login");
    if (err != HKY_OK || out->n + 1 + s->first.n > AUTH_LINE_MAX)
        return err;
    hky_buf_add_c(out, ' ');
    if (n == 0)
        hky_buf_add_c(out, '=');
    hky_buf_add_str(out, hky_buf_str(&s->first));
    forget_first(s);
    return HKY_OK;
}

/* "r=...,s=...,i=4096": GNU SASL computes whatever count the server names, which would stall this thread. */
static enum hky_err check_iterations(struct hky_str m, struct hky_error *e)
{
    for (size_t i = 0; i + 2 <= m.n; i++) {
        if ((i > 0 && m.p[i - 1] != ',') || m.p[i] != 'i' || m.p[i + 1] != '=')
            continue;
        const char *p = m.p + i + 2;
        size_t n = 0;
        while (i + 2 + n < m.n && p[n] != ',')
            n++;
        uint64_t count;
        if (!hky_str_u64(hky_str_of(p, n), HKY_SCRAM_ITERATIONS_MAX, &count) || count == 0)
            return hky_error_set(e, HKY_E_LIMIT, "the server asks for a SCRAM iteration count above %d",
                                 HKY_SCRAM_ITERATIONS_MAX);
    }
    return HKY_OK;
}

enum hky_err hky_login_step(struct hky_login *s, struct hky_str challenge, struct hky_buf *out, struct hky_error *e)
{
    if (s->first.n > 0) { /* after the server's "334" the initial response may be sent */
        hky_buf_add_str(out, hky_buf_str(&s->first));
        forget_first(s);
        return HKY_OK;
    }
    if (s->auth == HKY_AUTH_XOAUTH2)
        return HKY_OK; /* the challenge is an error in JSON; after our empty line the server sends its 535 */
    if (s->auth == HKY_AUTH_OAUTHBEARER) {
        hky_buf_add_z(out, "AQ==");
        return HKY_OK;
    }
    struct hky_buf plain;
    hky_buf_init(&plain, CHALLENGE_MAX);
    enum hky_err err = HKY_OK;
    struct hky_str text = hky_str_trim(challenge);
    /* Some servers send the prompts of LOGIN in clear instead of base64; the prompts have no meaning in any case. */
    bool is_decoded = hky_base64_decode(text, &plain) && !plain.is_over;
    if (!is_decoded && s->auth == HKY_AUTH_LOGIN) {
        hky_buf_clear(&plain);
        hky_buf_add_str(&plain, HKY_STR("prompt"));
    } else if (!is_decoded) {
        err = hky_error_set(e, HKY_E_SYNTAX, "the server's AUTH challenge is not base64");
    }
    if (err == HKY_OK && s->auth == HKY_AUTH_SCRAM_SHA_256)
        err = check_iterations(hky_buf_str(&plain), e);
    size_t n;
    if (err == HKY_OK)
        err = step(s, hky_str_of(plain.p != NULL ? plain.p : "", plain.n), out, &n, e);
    hky_buf_fini(&plain);
    return err;
}

bool hky_login_is_satisfied(const struct hky_login *s)
{
    return s->is_satisfied && s->first.n == 0;
}
