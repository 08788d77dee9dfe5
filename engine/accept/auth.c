#include "accept/sasl.h"

#include "base/secret.h"

#include <stdlib.h>

/* A user that does not exist is checked like one that does, against another user's secret, and always fails: neither
 * the reply nor the time it takes shows which users exist. */

#define SCRAM_ITERATIONS "4096"

static void done(struct accept_session *s)
{
    accept_auth_free(&s->auth);
    if (s->state == HKY_SESSION_AUTH)
        accept_session_enter(s, HKY_SESSION_READY);
}

static void succeed(struct accept_session *s)
{
    s->user = s->auth->user;
    s->n_auth_failed = 0;
    done(s);
    accept_session_reply(s, 235, "2.7.0", "logged in");
}

/* The refusal is delayed, so that a client that guesses passwords, or makes us compute SCRAM proofs, gets few tries a
 * second. */
static void fail(struct accept_session *s)
{
    s->p.ops->warn(s->p.ctx, "login_failed", hky_buf_str(&s->auth->name));
    done(s);
    s->waits |= HKY_WAIT_PENALTY;
}

void accept_auth_refuse(struct accept_session *s)
{
    accept_session_error(s, 535, "5.7.8", "wrong user name or password");
    if (++s->n_auth_failed >= s->p.policy->engine.bounds.auth_tries)
        accept_session_close(s, "4.7.0", "too many failed logins");
}

static void malformed(struct accept_session *s, const char *text)
{
    done(s);
    accept_session_error(s, 501, "5.5.2", "%s", text);
}

static void challenge(struct accept_session *s, struct hky_str data)
{
    struct hky_buf line;

    hky_buf_init(&line, 2 * HKY_AUTH_RESPONSE_MAX);
    hky_buf_add_z(&line, "334 ");
    hky_buf_add_base64(&line, data);
    hky_buf_add_z(&line, "\r\n");
    s->p.ops->write(s->p.ctx, line.p, line.n);
    accept_auth_wipe(&line);
}

static void ask_secret(struct accept_session *s)
{
    struct accept_auth_dialogue *a = s->auth;
    const struct hky_listen *listen = s->p.listen;

    HKY_ASSERT(listen->n_users > 0);
    a->user = &listen->users[0];
    for (uint32_t i = 0; i < listen->n_users; i++)
        if (hky_str_eq(hky_str_z(listen->users[i].name), hky_buf_str(&a->name))) {
            a->user = &listen->users[i];
            a->is_known = true;
        }
    s->waits |= HKY_WAIT_SECRET;
    s->p.ops->secret(s->p.ctx, &a->user->password);
}

/* The time depends only on the length of what the client gave. */
static bool is_equal(struct hky_str given, struct hky_str secret)
{
    unsigned char diff = (unsigned char)(given.n != secret.n || secret.n == 0);

    for (size_t i = 0; i < given.n; i++)
        diff |= (unsigned char)(given.p[i] ^ secret.p[secret.n > 0 ? i % secret.n : 0]);
    return diff == 0;
}

static bool has_control(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

/* RFC 4616: [authzid] NUL authcid NUL passwd */
static void on_plain(struct accept_session *s, struct hky_str data)
{
    struct accept_auth_dialogue *a = s->auth;
    const char *first = memchr(data.p, '\0', data.n), *second = NULL;
    struct hky_str authzid, name, password;

    if (first != NULL)
        second = memchr(first + 1, '\0', data.n - (size_t)(first + 1 - data.p));
    if (second == NULL) {
        malformed(s, "the PLAIN response has no user name and password");
        return;
    }
    authzid = hky_str_of(data.p, (size_t)(first - data.p));
    name = hky_str_of(first + 1, (size_t)(second - first - 1));
    password = hky_str_of(second + 1, data.n - (size_t)(second + 1 - data.p));
    if (name.n == 0 || password.n == 0 || has_control(name) || memchr(password.p, '\0', password.n) != NULL) {
        malformed(s, "the PLAIN response has no good user name and password");
        return;
    }
    hky_buf_add_str(&a->name, name);
    hky_buf_add_str(&a->password, password);
    if (authzid.n > 0 && !hky_str_eq(authzid, name)) {
        fail(s); /* nobody may act for another */
        return;
    }
    ask_secret(s);
}

static void on_login(struct accept_session *s, struct hky_str data)
{
    struct accept_auth_dialogue *a = s->auth;

    if (a->stage == HKY_AUTH_FIRST) {
        if (data.n == 0 || has_control(data)) {
            malformed(s, "no good user name");
            return;
        }
        hky_buf_add_str(&a->name, data);
        a->stage = HKY_AUTH_PASSWORD;
        challenge(s, HKY_STR("Password:"));
        return;
    }
    hky_buf_add_str(&a->password, data);
    ask_secret(s);
}

static void on_scram(struct accept_session *s, struct hky_str data)
{
    struct accept_auth_dialogue *a = s->auth;
    char *out = NULL;
    size_t n = 0;

    if (a->stage == HKY_AUTH_END) {
        if (data.n > 0)
            malformed(s, "nothing was expected here");
        else
            succeed(s);
        return;
    }
    int rc = gsasl_step(a->scram, data.p, data.n, &out, &n);
    if (a->stage == HKY_AUTH_FIRST && rc == GSASL_NEEDS_MORE) {
        const char *name = gsasl_property_fast(a->scram, GSASL_AUTHID);
        const char *authzid = gsasl_property_fast(a->scram, GSASL_AUTHZID);
        hky_buf_add_str(&a->challenge, hky_str_of(out, n));
        hky_buf_add_z(&a->name, name != NULL ? name : "");
        a->stage = HKY_AUTH_PROOF;
        if (a->name.n == 0 || has_control(hky_buf_str(&a->name)))
            malformed(s, "no good user name");
        else if (authzid != NULL && authzid[0] != '\0' && strcmp(authzid, name) != 0)
            fail(s);
        else
            ask_secret(s);
    } else if (a->stage == HKY_AUTH_PROOF && (rc == GSASL_OK || rc == GSASL_NEEDS_MORE) && a->is_known) {
        a->stage = HKY_AUTH_END;
        challenge(s, hky_str_of(out, n)); /* the server's proof; the client answers with an empty line */
    } else if (a->stage == HKY_AUTH_FIRST) {
        malformed(s, "not a SCRAM message");
    } else {
        fail(s);
    }
    gsasl_free(out);
}

static void on_response(struct accept_session *s, struct hky_str data)
{
    switch (s->auth->mechanism) {
    case HKY_AUTH_PLAIN:
        on_plain(s, data);
        break;
    case HKY_AUTH_LOGIN:
        on_login(s, data);
        break;
    default:
        on_scram(s, data);
    }
}

static void decode_response(struct accept_session *s, struct hky_str base64)
{
    struct hky_buf data;

    hky_buf_init(&data, HKY_AUTH_RESPONSE_MAX);
    if (base64.n > 0 && (!hky_base64_decode(base64, &data) || data.is_over))
        malformed(s, "the response is not base64");
    else
        on_response(s, hky_str_of(data.p != NULL ? data.p : "", data.n));
    accept_auth_wipe(&data);
}

void accept_auth_line(struct accept_session *s, struct hky_str line)
{
    if (hky_str_eq(line, HKY_STR("*")))
        malformed(s, "login cancelled");
    else
        decode_response(s, line);
}

/* HKY_AUTH_NONE when the mechanism is not offered. */
static enum hky_auth mechanism_of(struct hky_str name)
{
    static const char *const offered[] = {
#define X(id, value, wire, listed) listed,
        HKY_AUTHS(X)
#undef X
    };
    for (enum hky_auth a = HKY_AUTH_AUTO; a < HKY_AUTH_NONE; a++)
        if (offered[a][0] != '\0' && hky_str_ieq(hky_str_z(offered[a] + 1), name))
            return a;
    return HKY_AUTH_NONE;
}

void accept_auth_begin(struct accept_session *s, struct hky_str arg)
{
    const char *blank = memchr(arg.p, ' ', arg.n);
    struct hky_str name = hky_str_of(arg.p, blank != NULL ? (size_t)(blank - arg.p) : arg.n);
    struct hky_str initial = hky_str_trim(hky_str_of(arg.p + name.n, arg.n - name.n));
    struct accept_auth_dialogue *a;
    enum hky_auth mechanism = mechanism_of(name);

    if (mechanism == HKY_AUTH_NONE) {
        accept_session_error(s, 504, "5.5.4", "mechanism not offered; there are" HKY_AUTH_MECHANISMS);
        return;
    }
    a = hky_calloc(1, sizeof *a);
    a->mechanism = mechanism;
    hky_buf_init(&a->name, HKY_AUTH_RESPONSE_MAX);
    hky_buf_init(&a->password, HKY_AUTH_RESPONSE_MAX);
    hky_buf_init(&a->challenge, HKY_AUTH_RESPONSE_MAX);
    s->auth = a;
    accept_session_enter(s, HKY_SESSION_AUTH);
    if (mechanism == HKY_AUTH_SCRAM_SHA_256) {
        if (s->p.sasl == NULL || gsasl_server_start(s->p.sasl->gsasl, "SCRAM-SHA-256", &a->scram) != GSASL_OK) {
            done(s);
            accept_session_reply(s, 454, "4.7.0", "login is not possible at the moment");
            return;
        }
        gsasl_property_set(a->scram, GSASL_SCRAM_ITER, SCRAM_ITERATIONS);
    }
    if (initial.n == 1 && initial.p[0] == '=')
        on_response(s, HKY_STR(""));
    else if (initial.n > 0)
        decode_response(s, initial);
    else
        challenge(s, mechanism == HKY_AUTH_LOGIN ? HKY_STR("Username:") : HKY_STR(""));
}

void accept_auth_secret(struct accept_session *s, struct hky_secret *secret)
{
    struct accept_auth_dialogue *a = s->auth;

    if (secret == NULL) {
        s->p.ops->warn(s->p.ctx, "secret_missing", hky_str_z(a->user->name));
        done(s);
        accept_session_reply(s, 454, "4.7.0", "login is not possible at the moment");
        return;
    }
    if (a->mechanism == HKY_AUTH_SCRAM_SHA_256) {
        struct hky_str value = hky_secret_value(secret);
        char *z = hky_str_dup(value);
        gsasl_property_set(a->scram, GSASL_PASSWORD, z);
        hky_secret_wipe(z, value.n);
        free(z);
        challenge(s, hky_buf_str(&a->challenge));
    } else {
        bool is_right = is_equal(hky_buf_str(&a->password), hky_secret_value(secret));
        if (is_right && a->is_known)
            succeed(s);
        else
            fail(s);
    }
}
