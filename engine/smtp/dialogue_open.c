/* From the greeting to a connection that can send: EHLO, STARTTLS, AUTH. */
#include "smtp/dialogue_internal.h"

#include "base/error.h"
#include "base/secret.h"
#include "mail/reply.h"

#define AUTH_ROUNDS_MAX 8

static void hello(struct hky_dialogue *d, const char *verb, enum hky_expect e)
{
    hky_dialogue_enter(d, HKY_DIALOGUE_HELLO);
    hky_buf_clear(&d->scratch);
    hky_buf_printf(&d->scratch, "%s %s\r\n", verb, d->params.hello);
    hky_dialogue_expect(d, e, NULL, 0);
    hky_dialogue_send(d, d->scratch.p, d->scratch.n);
}

static void open_or_login(struct hky_dialogue *d)
{
    if (d->params.wants_auth) {
        hky_dialogue_enter(d, HKY_DIALOGUE_LOGIN);
        hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_ASK_LOGIN});
        return;
    }
    hky_dialogue_enter(d, HKY_DIALOGUE_READY);
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_OPEN});
}

static void after_hello(struct hky_dialogue *d)
{
    if (d->params.starttls == HKY_DIALOGUE_TLS_OFF || d->params.is_secure) {
        open_or_login(d);
        return;
    }
    if (d->caps.starttls) {
        hky_dialogue_enter(d, HKY_DIALOGUE_STARTTLS);
        hky_dialogue_expect(d, HKY_EXPECT_STARTTLS, NULL, 0);
        hky_dialogue_send_z(d, "STARTTLS\r\n");
        return;
    }
    if (d->params.starttls == HKY_DIALOGUE_TLS_MAY) {
        open_or_login(d);
        return;
    }
    struct hky_reply local;
    hky_reply_local(&local, HKY_ORIGIN_TLS, "the server does not offer STARTTLS");
    hky_dialogue_finish(d, HKY_STAGE_TLS, &local, false, false);
}

void hky_dialogue_on_greeting(struct hky_dialogue *d, const struct hky_reply *r)
{
    if (r->code == 220)
        hello(d, "EHLO", HKY_EXPECT_EHLO);
    else if (r->code >= 400)
        hky_dialogue_finish(d, HKY_STAGE_GREETING, r, false, false);
    else
        hky_dialogue_misfit(d, "the connection, in place of a greeting", r);
}

/* RFC 5321 4.1.1.1: HELO is for servers that do not know EHLO. Any other 5xx is about us and is reported as the reason,
 * because many servers only close when HELO follows. */
static bool is_unknown_command(uint16_t code)
{
    return code >= 500 && code <= 504;
}

void hky_dialogue_on_hello(struct hky_dialogue *d, const struct hky_reply *r, struct hky_str lines, bool is_ehlo)
{
    if (r->code == 250) {
        d->caps = (struct hky_capabilities){0};
        if (is_ehlo)
            hky_capabilities_parse(lines, &d->caps);
        after_hello(d);
    } else if (r->code < 400) {
        hky_dialogue_misfit(d, "EHLO", r);
    } else if (is_ehlo && is_unknown_command(r->code) && !d->params.wants_auth &&
               (d->params.is_secure || d->params.starttls != HKY_DIALOGUE_TLS_MUST)) {
        hello(d, "HELO", HKY_EXPECT_HELO);
    } else {
        hky_dialogue_finish(d, HKY_STAGE_HELLO, r, false, false);
    }
}

void hky_dialogue_on_starttls(struct hky_dialogue *d, const struct hky_reply *r)
{
    if (r->code == 220) {
        hky_dialogue_enter(d, HKY_DIALOGUE_HANDSHAKE);
        hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_START_TLS});
    } else if (r->code < 400) {
        hky_dialogue_misfit(d, "STARTTLS", r);
    } else if (d->params.starttls == HKY_DIALOGUE_TLS_MAY && r->code != 421) {
        open_or_login(d);
    } else {
        hky_dialogue_finish(d, HKY_STAGE_TLS, r, false, false);
    }
}

void hky_dialogue_secured(struct hky_dialogue *d)
{
    HKY_ASSERT(d->state == HKY_DIALOGUE_HANDSHAKE);
    d->params.is_secure = true;
    d->caps = (struct hky_capabilities){0}; /* what the server offered without TLS is not trusted */
    hello(d, "EHLO", HKY_EXPECT_EHLO);
}

/* ---- AUTH: the exchange ---- */

/* The server's reply does not fit AUTH; that is a fault of the server and no refusal of the password. */
static void auth_misfit(struct hky_dialogue *d, const char *text)
{
    struct hky_reply local;
    hky_reply_local(&local, HKY_ORIGIN_LOCAL, "%s", text);
    hky_dialogue_finish(d, HKY_STAGE_AUTH, &local, false, false);
}

static void auth_unsendable(struct hky_dialogue *d, const char *text)
{
    d->is_unsendable = true;
    auth_misfit(d, text);
}

static void send_auth(struct hky_dialogue *d)
{
    hky_buf_add_z(&d->scratch, "\r\n");
    if (d->scratch.is_over) {
        auth_unsendable(d, "the AUTH line is too long");
    } else {
        hky_dialogue_expect(d, HKY_EXPECT_AUTH, NULL, 0);
        hky_dialogue_send(d, d->scratch.p, d->scratch.n);
    }
    if (d->scratch.p != NULL)
        hky_secret_wipe(d->scratch.p, d->scratch.n);
    hky_buf_clear(&d->scratch);
}

void hky_dialogue_login(struct hky_dialogue *d, struct hky_login *sasl)
{
    HKY_ASSERT(d->state == HKY_DIALOGUE_LOGIN);
    struct hky_error e;
    d->sasl = sasl;
    hky_buf_clear(&d->scratch);
    hky_buf_printf(&d->scratch, "AUTH %s", hky_login_name(sasl));
    hky_dialogue_enter(d, HKY_DIALOGUE_AUTH);
    if (hky_login_begin(sasl, &d->scratch, &e) != HKY_OK)
        auth_unsendable(d, e.text);
    else
        send_auth(d);
}

/* RFC 4954 4 and 6: 504 (unknown), 534 (too weak) and 538 (needs encryption) are about the mechanism, not the
 * credential. */
static bool is_about_mechanism(uint16_t code)
{
    return code == 504 || code == 534 || code == 538;
}

/* A reply that refuses the credential is kept in preference to one that refuses a mechanism. */
static void on_refused_mechanism(struct hky_dialogue *d, const struct hky_reply *r)
{
    if (d->refusal.code == 0 || is_about_mechanism(d->refusal.code))
        d->refusal = *r;
    hky_login_free(&d->sasl);
    d->n_auth_rounds = 0;
    hky_dialogue_enter(d, HKY_DIALOGUE_LOGIN);
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_ASK_LOGIN});
}

bool hky_dialogue_is_login_refused(const struct hky_dialogue *d)
{
    return d->refusal.code != 0 && !is_about_mechanism(d->refusal.code);
}

void hky_dialogue_on_auth(struct hky_dialogue *d, const struct hky_reply *r)
{
    struct hky_error e;
    if (r->code == 235) {
        if (!hky_login_is_satisfied(d->sasl)) {
            auth_misfit(d,
                        "the server said 235 before the login was over, or without proving that it knows the password");
            return;
        }
        hky_login_free(&d->sasl);
        hky_dialogue_enter(d, HKY_DIALOGUE_READY);
        hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_OPEN});
    } else if (r->code == 334) {
        hky_buf_clear(&d->scratch);
        if (++d->n_auth_rounds > AUTH_ROUNDS_MAX)
            auth_misfit(d, "AUTH does not come to an end");
        else if (hky_login_step(d->sasl, hky_str_of(r->text, r->n), &d->scratch, &e) != HKY_OK)
            auth_misfit(d, e.text);
        else
            send_auth(d);
    } else if (r->code < 400) {
        hky_dialogue_misfit(d, "AUTH", r);
    } else if (r->code < 500 || hky_reply_counts_connections(r)) {
        hky_dialogue_finish(d, HKY_STAGE_AUTH, r, false, false);
    } else {
        on_refused_mechanism(d, r);
    }
}
