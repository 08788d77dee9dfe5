/*
 * Credentials of all relays. The store of secrets (hikyaku/secrets.h) reads files and commands on threads of its own;
 * here, on aux, what was read becomes a password or an access token, the latter with the help of HTTP.
 */
#include "deliver/mask.h"
#include "deliver/oauth.h"
#include "smtp/login.h"
#include "hikyaku/deliver.h"
#include "hikyaku/secrets.h"
#include "net/http.h"

#include <stdio.h>
#include <stdlib.h>

#define PASSWORD_FOR_MS (60 * 1000)     /* a changed file is noticed after a minute at most */
#define TOKEN_FOR_MS    (5 * 60 * 1000) /* for a token from a command that does not say how long */
#define EARLY_MS        (60 * 1000)
#define ANSWER_MAX      (64 * 1024)
#define READ_AT_ONCE    8 /* secrets of so many accounts are read at once, so that one that hangs delays no other */

struct hky_credentials {
    struct hky_loop *aux;
    struct hky_state *state;
    struct hky_log *log;
    struct hky_http *http;
    struct hky_secrets *secrets; /* key: an account and its way to log in; subject: the relay */
};

/* ---- on a thread that may block ---- */

static void read_secrets(void *ctx, struct hky_secret_reading *rd, const atomic_bool *is_over)
{
    const struct hky_relay *r = rd->subject;
    const struct hky_secret_ref *cs = &r->oauth.client_secret;
    (void)ctx;
    if (r->oauth.token_command != NULL) {
        struct hky_secret_ref ref = {.name = r->name, .command = r->oauth.token_command};
        hky_policy_read_secret_unless(rd->policy, &ref, is_over, &rd->found, &rd->error);
        return;
    }
    if (!hky_login_has_oauth(r)) {
        hky_policy_read_secret_unless(rd->policy, &r->password, is_over, &rd->found, &rd->error);
        return;
    }
    if ((cs->name != NULL || cs->command != NULL || cs->literal != NULL) &&
        hky_policy_read_secret_unless(rd->policy, cs, is_over, &rd->client_secret, &rd->error) != HKY_OK)
        return;
    hky_policy_read_secret_unless(rd->policy, &r->oauth.refresh, is_over, &rd->found, &rd->error);
}

/* ---- on aux ---- */

static void give_up(struct hky_credentials *c, struct hky_secret_reading *rd, const struct hky_error *e)
{
    hky_log(c->log, HKY_LOG_WARN, "credential", "account=%s why=\"%s\"", rd->key.p, e->text);
    hky_secrets_settle(rd, NULL, 0, e);
}

static void take_token(struct hky_secret_reading *rd, struct hky_oauth_token *token)
{
    int64_t for_ms = token->for_ms > 2 * EARLY_MS ? token->for_ms - EARLY_MS : token->for_ms / 2;
    struct hky_secret *access = token->access;
    token->access = NULL;
    hky_oauth_token_fini(token);
    hky_secrets_settle(rd, access, for_ms, NULL);
}

/* ---- OAuth ---- */

/* The newest refresh token: the one that the endpoint gave last, or the policy's. */
static struct hky_secret *refresh_to_send(struct hky_credentials *c, struct hky_secret_reading *rd)
{
    char *stored = c->state != NULL ? hky_state_get(c->state, "oauth", rd->key.p) : NULL;
    struct hky_secret *refresh = hky_oauth_stored_refresh(stored, hky_secret_value(rd->found));
    if (stored != NULL)
        hky_secret_wipe(stored, strlen(stored));
    free(stored);
    return refresh;
}

static void on_token(void *ctx, const struct hky_http_answer *a)
{
    struct hky_secret_reading *rd = ctx;
    struct hky_credentials *c = rd->ctx;
    struct hky_oauth_token token;
    struct hky_error e = {.code = HKY_E_NET};
    if (a->err != HKY_OK) {
        snprintf(e.text, sizeof(e.text), "the token endpoint cannot be reached: %s", a->text);
        give_up(c, rd, &e);
        return;
    }
    if (hky_oauth_parse(a->status, a->body, &token, &e) != HKY_OK) {
        struct hky_secret *sent = refresh_to_send(c, rd);
        hky_mask_text(e.text, hky_secret_value(sent)); /* some servers repeat the token that they refuse */
        hky_mask_text(e.text, hky_secret_value(rd->found));
        hky_mask_text(e.text, hky_secret_value(rd->client_secret));
        hky_secret_unref(&sent);
        give_up(c, rd, &e);
        return;
    }
    if (c->state != NULL && token.refresh != NULL) {
        struct hky_buf value;
        hky_buf_init(&value, ANSWER_MAX);
        hky_oauth_format_stored(&token, hky_secret_value(rd->found), &value);
        hky_state_put(c->state, "oauth", rd->key.p, hky_buf_z(&value));
        if (value.p != NULL)
            hky_secret_wipe(value.p, value.n);
        hky_buf_fini(&value);
    }
    take_token(rd, &token);
}

static void ask_token(struct hky_credentials *c, struct hky_secret_reading *rd)
{
    const struct hky_relay *relay = rd->subject;
    struct hky_error e;
    if (c->http == NULL && hky_http_new(c->aux, &c->http, &e) != HKY_OK) {
        give_up(c, rd, &e);
        return;
    }
    struct hky_secret *refresh = refresh_to_send(c, rd);
    struct hky_buf form;
    hky_buf_init(&form, ANSWER_MAX);
    hky_oauth_form(relay, hky_secret_value(refresh), hky_secret_value(rd->client_secret), &form);
    static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/json",
                                          NULL};
    struct hky_http_request request = {
        .method = "POST",
        .url = relay->oauth.token_url,
        .headers = headers,
        .body = hky_buf_str(&form),
        .body_max = ANSWER_MAX,
        .done = on_token,
        .ctx = rd,
    };
    hky_http_send(c->http, &request);
    if (form.p != NULL)
        hky_secret_wipe(form.p, form.n);
    hky_buf_fini(&form);
    hky_secret_unref(&refresh);
}

/* The output of token_command: the token alone, or the JSON that a token endpoint gives. */
static void take_command_token(struct hky_credentials *c, struct hky_secret_reading *rd)
{
    struct hky_str out = hky_str_trim(hky_secret_value(rd->found));
    struct hky_oauth_token token;
    struct hky_error e;
    if (out.n == 0 || out.p[0] != '{')
        hky_secrets_settle(rd, hky_secret_new(out), TOKEN_FOR_MS, NULL);
    else if (hky_oauth_parse(200, out, &token, &e) != HKY_OK)
        give_up(c, rd, &e);
    else
        take_token(rd, &token);
}

static void use_secrets(void *ctx, struct hky_secret_reading *rd)
{
    struct hky_credentials *c = ctx;
    const struct hky_relay *relay = rd->subject;
    struct hky_error e = rd->error;
    if (rd->found == NULL)
        give_up(c, rd, &e);
    else if (relay->oauth.token_command != NULL)
        take_command_token(c, rd);
    else if (hky_login_has_oauth(relay))
        ask_token(c, rd);
    else
        hky_secrets_settle(rd, hky_secret_ref(rd->found), PASSWORD_FOR_MS, NULL);
}

/* ---- public functions ---- */

void hky_credentials_get(struct hky_credentials *c, struct hky_policy *policy, const struct hky_relay *relay,
                         struct hky_secret *refused, struct hky_loop *loop,
                         void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct hky_secrets_question q = {
        .policy = policy, .subject = relay, .refused = refused, .loop = loop, .done = done, .arg = arg};
    struct hky_buf key;
    if (!hky_login_has_oauth(relay) && relay->oauth.token_command == NULL && relay->password.literal != NULL) {
        hky_secrets_give(c->secrets, &q, &relay->password);
        return;
    }
    hky_buf_init(&key, 4096);
    hky_buf_printf(&key, "%s", relay->account != NULL ? relay->account : relay->name);
    if (hky_login_has_oauth(relay))
        hky_buf_printf(&key, "|%s|%s", relay->oauth.client != NULL ? relay->oauth.client : "",
                       relay->oauth.token_url != NULL ? relay->oauth.token_url : "");
    else
        hky_buf_printf(&key, "|%016llx", (unsigned long long)relay->settings_hash);
    q.key = hky_buf_str(&key);
    hky_secrets_ask(c->secrets, &q);
    hky_buf_fini(&key);
}

enum hky_err hky_credentials_new(struct hky_loop *aux, struct hky_state *state, struct hky_log *log,
                                 struct hky_credentials **out, struct hky_error *e)
{
    struct hky_credentials *c = hky_calloc(1, sizeof(*c));
    struct hky_secrets_ops ops = {.ctx = c, .read = read_secrets, .use = use_secrets};
    enum hky_err err = hky_secrets_new(aux, READ_AT_ONCE, &ops, &c->secrets, e);
    *out = NULL;
    if (err != HKY_OK) {
        free(c);
        return err;
    }
    c->aux = aux;
    c->state = state;
    c->log = log;
    *out = c;
    return HKY_OK;
}

void hky_credentials_forget(struct hky_credentials *c)
{
    hky_secrets_forget_remembered(c->secrets);
}

void hky_credentials_stop(struct hky_credentials *c)
{
    if (c == NULL)
        return;
    hky_secrets_stop(c->secrets);
    hky_http_free(&c->http);
}

void hky_credentials_free(struct hky_credentials **cp)
{
    struct hky_credentials *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    hky_credentials_stop(c);
    hky_secrets_free(&c->secrets);
    free(c);
}
