#include "accept/session_internal.h"

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>

#define LINE_HARD_MAX 65536 /* an endless line closes the connection */
#define IDLE_MAX      100   /* commands of a client that has not logged in; more count as errors */

#define B(id)     (1u << HKY_SESSION_##id)
#define ANY_READY (B(CONNECTED) | B(READY))
#define IN_TX     (B(MAIL) | B(RCPT) | B(CHUNKS))
#define ANY       (ANY_READY | IN_TX)

/* The only place that says 250 to content: without the journal's token it cannot be called. */
static void reply_queued(struct accept_session *s, const struct hky_durable *durable, uint64_t id)
{
    char text[10 + HKY_ID_TEXT] = "queued as ";

    HKY_ASSERT(durable != NULL);
    hky_id_format(id, text + 10);
    accept_session_say(s, 250, "2.0.0", hky_str_of(text, sizeof text - 1));
}

static bool offers_tls(const struct accept_session *s)
{
    return s->p.listen->tls == HKY_LISTEN_STARTTLS && !s->p.is_secure;
}

/* --- commands --- */

static void on_hello(struct accept_session *s, struct hky_smtp_command *c)
{
    const struct hky_engine_options *engine = &s->p.policy->engine;

    free(s->hello);
    s->hello = hky_str_dup(c->arg);
    s->is_esmtp = c->verb == HKY_VERB_EHLO;
    accept_session_tx_reset(s); /* RFC 5321 4.1.4: like RSET */
    if (s->state == HKY_SESSION_CLOSED)
        return;
    accept_session_enter(s, HKY_SESSION_READY);
    if (!s->is_esmtp) {
        accept_session_reply(s, 250, "", "%s", engine->hostname);
        return;
    }
    char lines[2 * HKY_REPLY_MAX];
    int n =
        snprintf(lines, sizeof lines,
                 "250-%.255s\r\n250-PIPELINING\r\n250-SIZE %llu\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
                 "250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n%s%s250-LIMITS RCPTMAX=%u\r\n250 HELP\r\n",
                 engine->hostname, (unsigned long long)engine->max_message, offers_tls(s) ? "250-STARTTLS\r\n" : "",
                 accept_session_offers_auth(s) ? "250-AUTH" HKY_AUTH_MECHANISMS "\r\n" : "", engine->bounds.recipients);
    HKY_ASSERT(n > 0 && (size_t)n < sizeof lines);
    s->p.ops->write(s->p.ctx, lines, (size_t)n);
}

static void on_rset(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_reply(s, 250, "2.0.0", "ok");
    accept_session_tx_reset(s);
}

static void on_noop(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_reply(s, 250, "2.0.0", "ok");
}

static void on_quit(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_reply(s, 221, "2.0.0", "%s goodbye", s->p.policy->engine.hostname);
    accept_session_close(s, "", NULL);
}

/* RFC 5321 3.5.3, 7.3: no address is confirmed or denied here. */
static void on_vrfy(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_reply(s, 252, "2.5.0", "send mail to find out");
}

static void on_expn(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_error(s, 502, "5.5.1", "no lists are shown here");
}

static void on_help(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_reply(s, 214, "2.0.0",
                         "EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH; man hikyaku");
}

static void on_starttls(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    if (s->p.is_secure) {
        accept_session_error(s, 503, "5.5.1", "TLS is already in use");
    } else if (!offers_tls(s)) {
        accept_session_error(s, 502, "5.5.1", "TLS is not offered on this port");
    } else {
        accept_session_reply(s, 220, "2.0.0", "start TLS");
        accept_session_enter(s, HKY_SESSION_TLS);
        s->waits |= HKY_WAIT_TLS;
    }
}

static void on_auth(struct accept_session *s, struct hky_smtp_command *c)
{
    if (s->user != NULL)
        accept_session_error(s, 503, "5.5.1", "already logged in");
    else if (s->p.listen->n_users == 0)
        accept_session_error(s, 502, "5.5.1", "no login is needed or offered on this port");
    else if (!s->p.is_secure && !s->p.is_loopback)
        accept_session_error(s, 538, "5.7.11", "AUTH needs TLS: send STARTTLS first");
    else
        accept_auth_begin(s, c->arg);
}

static void on_unknown(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    accept_session_error(s, 500, "5.5.2", "command not recognised");
}

/* What each verb needs and which function handles it. `needs_login`: only clients that may send. */
static const struct {
    unsigned legal;
    bool needs_login;
    void (*handle)(struct accept_session *s, struct hky_smtp_command *c);
} commands[HKY_VERB_N] = {
    [HKY_VERB_EHLO] = {ANY, false, on_hello},
    [HKY_VERB_HELO] = {ANY, false, on_hello},
    [HKY_VERB_MAIL] = {B(READY), true, accept_transaction_mail},
    [HKY_VERB_RCPT] = {B(MAIL) | B(RCPT), true, accept_transaction_rcpt},
    [HKY_VERB_DATA] = {B(MAIL) | B(RCPT), true, accept_transaction_data},
    [HKY_VERB_BDAT] =
        {ANY, false,
         accept_transaction_bdat}, /* legal everywhere, because its octets must be read even where it is refused */
    [HKY_VERB_RSET] = {ANY, false, on_rset},
    [HKY_VERB_NOOP] = {ANY, false, on_noop},
    [HKY_VERB_QUIT] = {ANY, false, on_quit},
    [HKY_VERB_VRFY] = {ANY, false, on_vrfy},
    [HKY_VERB_EXPN] = {ANY, false, on_expn},
    [HKY_VERB_HELP] = {ANY, false, on_help},
    [HKY_VERB_STARTTLS] = {B(READY), false, on_starttls},
    [HKY_VERB_AUTH] = {B(READY), false, on_auth},
    [HKY_VERB_UNKNOWN] = {ANY, false, on_unknown},
};

static void refuse_state(struct accept_session *s, enum hky_verb verb)
{
    if (s->hello == NULL)
        accept_session_error(s, 503, "5.5.1", "send EHLO first");
    else if (s->state == HKY_SESSION_CHUNKS)
        accept_session_error(s, 503, "5.5.1", "only BDAT or RSET now: a message is coming in chunks");
    else if (verb == HKY_VERB_MAIL)
        accept_session_error(s, 503, "5.5.1", "there is a transaction already");
    else if (verb == HKY_VERB_RCPT || verb == HKY_VERB_DATA)
        accept_session_error(s, 503, "5.5.1", "send MAIL first");
    else
        accept_session_error(s, 503, "5.5.1", "not during a transaction");
}

static void refuse_client(struct accept_session *s)
{
    if (s->p.listen->n_users == 0)
        accept_session_error(s, 550, "5.7.1", "%s may not send mail here", s->client);
    else if (offers_tls(s))
        accept_session_error(s, 530, "5.7.0", "log in first: STARTTLS, then AUTH");
    else
        accept_session_error(s, 530, "5.7.0", "log in first");
}

/* A browser made to speak to us (cross-protocol attack): nothing it sends later may be read as commands. */
static bool is_other_protocol(struct hky_str line)
{
    static const struct hky_str words[] = {
        HKY_STR("GET "),     HKY_STR("POST "),  HKY_STR("PUT "),    HKY_STR("HEAD "),  HKY_STR("CONNECT "),
        HKY_STR("OPTIONS "), HKY_STR("PATCH "), HKY_STR("DELETE "), HKY_STR("TRACE "), HKY_STR("PRI ")};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (hky_str_istarts(line, words[i]))
            return true;
    return false;
}

/* A client that may send can give any number of good commands; a stranger has no reason to give so many. */
static bool is_lingering(struct accept_session *s)
{
    if (accept_session_may_send(s) || s->n_idle++ < IDLE_MAX)
        return false;
    s->n_idle = IDLE_MAX;
    return true;
}

/* `behind`: octets that follow the line in what was received. */
static void on_command(struct accept_session *s, struct hky_str line, size_t behind)
{
    struct hky_smtp_command c;
    struct hky_error e = {0};
    const char *enhanced = "";
    int code = 0;

    hky_smtp_command_init(&c);
    c.may_lack_brackets = accept_session_is_trusted(s);
    enum hky_err err = hky_smtp_command_parse(line, &c, &code, &enhanced, &e);
    enum hky_verb verb = c.verb;
    uint8_t before = s->state;
    if (verb == HKY_VERB_UNKNOWN && is_other_protocol(line)) {
        hky_smtp_command_fini(&c);
        s->p.ops->warn(s->p.ctx, "other_protocol", line);
        accept_session_close(s, "4.7.0", "this port speaks SMTP");
        return;
    }

    /* BDAT is refused by its own handler, which also reads its octets. */
    if (verb != HKY_VERB_QUIT && verb != HKY_VERB_BDAT && is_lingering(s))
        accept_session_error(s, 503, "5.5.1", "too many commands without a login");
    else if (!(commands[verb].legal & 1u << s->state))
        refuse_state(s, verb);
    else if (commands[verb].needs_login && !accept_session_may_send(s))
        refuse_client(s);
    else if (err != HKY_OK && (verb == HKY_VERB_MAIL || verb == HKY_VERB_RCPT))
        accept_session_refuse(s, accept_session_sender(s), HKY_STR(""), code, enhanced, "%s", e.text);
    else if (err != HKY_OK)
        accept_session_error(s, code, enhanced, "%s", e.text);
    else
        commands[verb].handle(s, &c);
    hky_smtp_command_fini(&c);
    s->n_commands++;
    if (verb == HKY_VERB_BDAT &&
        err != HKY_OK) /* nobody knows how many octets follow, and none of them may be read as a command */
        accept_session_close(s, "4.5.2", "cannot tell where the chunk ends");
    else if (verb == HKY_VERB_DATA && behind > 0 && s->state == before)
        accept_session_close(s, "4.5.0", "improper pipelining: content was sent before DATA was answered");
    else if (s->state == HKY_SESSION_TLS && behind > 0) {
        s->p.ops->warn(s->p.ctx, "starttls_injection", HKY_STR("octets behind STARTTLS"));
        accept_session_close(s, "", NULL);
    } else if (s->state == HKY_SESSION_TLS) {
        s->p.ops->start_tls(s->p.ctx);
    }
}

static void on_line(struct accept_session *s, struct hky_str line, size_t behind)
{
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    if (s->state == HKY_SESSION_AUTH) {
        s->n_commands++;
        accept_auth_line(s, line);
    } else {
        on_command(s, line, behind);
    }
}

/* One line, or what is too long to be one. */
static size_t line_input(struct accept_session *s, const char *p, size_t n)
{
    size_t max = s->p.policy->engine.bounds.line_octets;
    const char *lf;

    if (s->state == HKY_SESSION_CONNECTED && s->hello == NULL && s->n_commands == 0 && !s->is_skipping &&
        p[0] == 0x16) {
        s->p.ops->warn(s->p.ctx, "other_protocol", HKY_STR("TLS on a plain port"));
        accept_session_close(s, "", NULL);
        return n;
    }
    lf = memchr(p, '\n', n);
    size_t line_n = lf != NULL ? (size_t)(lf - p) + 1 : n;

    if (s->is_skipping || line_n > max) {
        s->n_skipped += (uint32_t)(line_n > LINE_HARD_MAX ? LINE_HARD_MAX : line_n);
        bool was_skipping = s->is_skipping;
        s->is_skipping = lf == NULL;
        if (!was_skipping && s->state == HKY_SESSION_AUTH)
            accept_auth_line(s, HKY_STR("*")); /* no response of a login is as long as this */
        else if (!was_skipping && hky_str_istarts(hky_str_of(p, n), HKY_STR("BDAT ")))
            accept_session_close(s, "4.5.2",
                                 "cannot tell where the chunk ends"); /* else its content would be run as commands */
        else if (!was_skipping)
            accept_session_error(s, 500, "5.5.2", "line too long, at most %zu octets", max);
        if (s->n_skipped >= LINE_HARD_MAX)
            accept_session_close(s, "4.7.0", "endless line");
        if (!s->is_skipping) {
            s->n_skipped = 0;
            s->n_commands++;
        }
        return line_n;
    }
    if (lf == NULL)
        return 0;
    on_line(s, hky_str_of(p, line_n - 1), n - line_n);
    /* the command did nothing but ask to wait, so its line is read again */
    return s->waits & HKY_WAIT_JOURNAL ? 0 : line_n;
}

static size_t swallow_input(struct accept_session *s, size_t n)
{
    size_t used = n < s->chunk_left ? n : (size_t)s->chunk_left;

    s->chunk_left -= used;
    if (s->chunk_left == 0)
        accept_session_enter(s, (enum accept_session_state)s->after_swallow);
    return used;
}

static bool is_at_rest(const struct accept_session *s)
{
    return (s->state == HKY_SESSION_CONNECTED || s->state == HKY_SESSION_READY) && s->waits == 0;
}

void accept_session_take_policy(struct accept_session *s, const struct accept_session_review *review)
{
    if (s->state == HKY_SESSION_CLOSED)
        return;
    s->review = *review;
    if (is_at_rest(s))
        accept_review_apply(s);
    else if (s->tx.letter != NULL && s->review.listen != NULL && !accept_review_keeps_rights(s))
        accept_session_close(s, "4.7.0", "changed what you may send; try again");
}

/* The session may be at rest now: if the engine is stopping, it ends; if a new policy waits, it is taken over. */
static void rest(struct accept_session *s)
{
    if (s->is_draining && s->waits == 0)
        accept_session_drain(s);
    else if (s->review.policy != NULL && is_at_rest(s))
        accept_review_apply(s);
}

size_t accept_session_input(struct accept_session *s, const char *p, size_t n)
{
    size_t at = 0;

    while (at < n && s->waits == 0 && s->state != HKY_SESSION_CLOSED) {
        size_t used;

        switch (s->state) {
        case HKY_SESSION_DATA:
            used = accept_transaction_data_input(s, p + at, n - at);
            break;
        case HKY_SESSION_CHUNK:
            used = accept_transaction_chunk_input(s, p + at, n - at);
            break;
        case HKY_SESSION_SWALLOW:
            used = swallow_input(s, n - at);
            break;
        default:
            used = line_input(s, p + at, n - at);
        }
        if (used == 0)
            break;
        at += used;
        rest(s);
    }
    return s->state == HKY_SESSION_CLOSED ? n : at;
}

/* --- what was waited for --- */

void accept_session_on_commit(struct accept_session *s, const struct hky_durable *durable, enum hky_err result,
                              uint64_t id)
{
    HKY_ASSERT(s->waits & HKY_WAIT_COMMIT);
    s->waits &= (uint8_t)~HKY_WAIT_COMMIT;
    if (s->state == HKY_SESSION_CLOSED)
        return;
    if (result == HKY_OK) {
        s->n_errors = 0;
        s->n_accepted++;
        reply_queued(s, durable, id);
    } else {
        struct hky_refusal why = {0};
        hky_refusal_set_storage(&why, result);
        accept_session_reply(s, why.code, why.enhanced, "%s", why.text);
    }
    accept_session_tx_reset(s);
    rest(s);
}

void accept_session_on_secret(struct accept_session *s, struct hky_secret *secret)
{
    s->waits &= (uint8_t)~HKY_WAIT_SECRET;
    if (s->state == HKY_SESSION_AUTH && s->auth != NULL) {
        accept_auth_secret(s, secret);
        rest(s);
    }
    hky_secret_unref(&secret);
}

void accept_session_on_tls(struct accept_session *s)
{
    s->waits &= (uint8_t)~HKY_WAIT_TLS;
    if (s->state != HKY_SESSION_TLS)
        return;
    /* RFC 3207 4.2: what was learned before TLS is forgotten. */
    accept_session_enter(s, HKY_SESSION_CONNECTED);
    free(s->hello);
    s->hello = NULL;
    s->user = NULL;
    s->p.is_secure = true;
    s->n_commands++;
    rest(s);
}

void accept_session_resume(struct accept_session *s, unsigned wait)
{
    bool is_penalty_over = (s->waits & wait & HKY_WAIT_PENALTY) != 0;

    s->waits &= (uint8_t)~wait;
    if (is_penalty_over && s->state != HKY_SESSION_CLOSED)
        accept_auth_refuse(s);
    rest(s);
}

void accept_session_timeout(struct accept_session *s)
{
    accept_session_close(s, "4.4.2", "timeout");
}

void accept_session_drain(struct accept_session *s)
{
    s->is_draining = true;
    /* A login's secret may take long to be read, and nobody needs it any more. */
    if (s->state == HKY_SESSION_CONNECTED || s->state == HKY_SESSION_READY || s->waits & HKY_WAIT_SECRET)
        accept_session_close(s, "4.3.2", "is going down; try again");
}

void accept_session_cut(struct accept_session *s)
{
    accept_session_close(s, "4.3.2", "is going down; try again");
}

bool accept_session_is_content(const struct accept_session *s)
{
    return s->state == HKY_SESSION_DATA || s->state == HKY_SESSION_CHUNK || s->state == HKY_SESSION_SWALLOW;
}

void accept_session_init(struct accept_session *s, const struct accept_session_params *p)
{
    *s = (struct accept_session){.p = *p, .state = HKY_SESSION_CONNECTED};
    snprintf(s->client, sizeof s->client, "%s", p->client);
    s->p.client = NULL;
    accept_session_reply(s, 220, "", "%s ESMTP Hikyaku", p->policy->engine.hostname);
}

void accept_session_fini(struct accept_session *s)
{
    accept_session_tx_free(s);
    accept_auth_free(&s->auth);
    free(s->hello);
    s->hello = NULL;
}
