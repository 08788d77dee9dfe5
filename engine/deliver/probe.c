/*
 * The connection test: one connection with one message, reported stage by stage. It uses the engine's own connection
 * code, so that what works here works in the engine.
 */
#include "base/endpoint.h"
#include "base/clock.h"
#include "base/hash.h"
#include "deliver/outbound.h"
#include "deliver/probe_words.h"
#include "deliver/outcome.h"
#include "hikyaku/deliver.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LONGEST_MS (5 * 60 * 1000)

struct probe {
    const struct hky_probe_params *params;
    struct hky_loop *loop;
    struct hky_dns *dns;
    struct hky_tls *tls;
    struct hky_credentials *credentials;
    struct hky_dns_query query;
    struct hky_dns_mx hosts[HKY_DNS_MX_MAX];
    unsigned n_hosts;
    uint16_t port;
    bool is_redirected;
    struct hky_outbound *connection;
    struct hky_outbound_login_waits waits;
    struct hky_delivery *delivery;
    struct hky_message *message;
    struct hky_identity identity;
    const struct hky_recipient *recipient;
    struct hky_buf content;
    struct hky_outcome *outcome;
    bool has_outcome, is_over;
    int64_t stage_at_ms;
};

static void report_line(struct probe *p, enum hky_stage stage, bool is_good, const char *text)
{
    struct hky_probe_line line = {.stage = stage, .is_good = is_good};
    int64_t now = hky_mono_ms();
    line.took_ms = now - p->stage_at_ms;
    p->stage_at_ms = now;
    snprintf(line.text, sizeof(line.text), "%s", text);
    if (p->params->on_line != NULL)
        p->params->on_line(p->params->ctx, &line);
}

__attribute__((format(printf, 2, 3))) static void report_fact(struct probe *p, const char *fmt, ...)
{
    struct hky_probe_line line = {.stage = HKY_STAGE_TLS, .is_good = true, .is_note = true};
    va_list args;
    va_start(args, fmt);
    vsnprintf(line.text, sizeof(line.text), fmt, args);
    va_end(args);
    if (p->params->on_line != NULL)
        p->params->on_line(p->params->ctx, &line);
}

/* Shows a server's words as they are, and a cause of our own in the language that the caller chose. */
static void report_reply(struct probe *p, enum hky_stage stage, const struct hky_reply *reply)
{
    char text[HKY_REPLY_TEXT + 32];
    hky_reply_format(reply, text, sizeof(text));
    if (reply->code != 0 || !p->params->is_ja) {
        report_line(p, stage, false, text);
        return;
    }
    struct hky_buf words;
    hky_buf_init(&words, 4 * sizeof(text));
    hky_probe_words_ja(hky_str_z(text), &words);
    report_line(p, stage, false, hky_buf_z(&words));
    hky_buf_fini(&words);
}

static void conclude(struct probe *p, enum hky_stage stage, enum hky_class class, const struct hky_reply *reply)
{
    const char *host = p->connection != NULL ? hky_outbound_host(p->connection) : p->params->relay->host;
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct hky_deliver_outcome_query q = {
        .policy = p->params->policy,
        .relay = p->params->relay,
        .host = host,
        .stage = stage,
        .class = class,
        .reply = reply,
        .address = hky_recipient_address(p->recipient),
        .now_ms = hky_clock_now_ms(&clock),
    };
    hky_deliver_outcome(&q, p->outcome);
    /* A dry run succeeds with the 250 to RCPT, which the classifier does not take for a delivery. */
    if (!p->params->send && stage == HKY_STAGE_RCPT && reply->code >= 200 && reply->code < 300)
        p->outcome->class = HKY_CLASS_OK;
    p->has_outcome = true;
    if (p->outcome->class != HKY_CLASS_OK)
        report_reply(p, stage, reply);
}

/* ---- callbacks of the connection ---- */

static struct hky_delivery *on_next(void *ctx, struct hky_outbound *c)
{
    (void)ctx;
    (void)c;
    return NULL;
}

static void on_result(void *ctx, struct hky_outbound *c, struct hky_delivery *x, unsigned i, enum hky_stage stage,
                      enum hky_class class, const struct hky_reply *reply)
{
    struct probe *p = ctx;
    (void)c;
    (void)x;
    (void)i;
    if (!p->has_outcome) /* else the test had timed out before */
        conclude(p, stage, class, reply);
}

static void on_done(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent)
{
    (void)ctx;
    (void)x;
    (void)mail_sent;
    if (((struct probe *)ctx)->connection != NULL) /* else the connection is being abandoned */
        hky_outbound_retire(c);
}

static void on_give_back(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent)
{
    (void)mail_sent;
    (void)ctx;
    (void)c;
    (void)x;
}

static void on_open(void *ctx, struct hky_outbound *c)
{
    (void)ctx;
    (void)c;
}

static void on_closed(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end)
{
    struct probe *p = ctx;
    (void)c;
    p->connection = NULL;
    if (!p->has_outcome)
        conclude(p, end->stage, end->class, end->reply);
    p->is_over = true;
}

static void on_secret(void *ctx, struct hky_outbound *c, struct hky_secret *refused,
                      void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct probe *p = ctx;
    (void)c;
    hky_credentials_get(p->credentials, p->params->policy, p->params->relay, refused, p->loop, done, arg);
}

static void on_trace(void *ctx, struct hky_outbound *c, enum hky_stage stage, bool is_good, const char *text)
{
    struct probe *p = ctx;
    (void)c;
    if (is_good && !p->has_outcome)
        report_line(p, stage, true, text);
}

static void on_certificate(void *ctx, struct hky_outbound *c, const struct hky_tls_certificate *t)
{
    struct probe *p = ctx;
    (void)c;
    if (p->has_outcome)
        return;
    report_fact(p, p->params->is_ja ? "証明書：主体 %s" : "certificate of %s", t->subject);
    report_fact(p, p->params->is_ja ? "発行者 %s" : "issuer %s", t->issuer);
    report_fact(p, p->params->is_ja ? "有効期間 %s から %s まで" : "valid from %s, ends %s", t->from, t->until);
    report_fact(p, "pin = \"%s\"", t->pin);
}

static const struct hky_outbound_ops ops = {
    .next = on_next,
    .result = on_result,
    .done = on_done,
    .give_back = on_give_back,
    .open = on_open,
    .closed = on_closed,
    .secret = on_secret,
    .certificate = on_certificate,
    .trace = on_trace,
};

/* ---- the test mail ---- */

static const char text_en[] =
    "This is a test mail. The relay named in the subject took it and delivered it: it works.\r\n";
static const char text_ja[] =
    "これはテストメールです。件名の配送先（リレー）が受け取り、配信できることを確認しました。\r\n";

/* The account's own address where it has one, because not every relay accepts the owner's address as sender. */
static const char *sender_of(const struct hky_probe_params *params)
{
    const struct hky_relay *r = params->relay;
    if (r->from != NULL && r->from[0] != '\0')
        return r->from;
    for (const char *const *as = r->sends_as; as != NULL && *as != NULL; as++)
        if (strchr(*as, '@') != NULL && (*as)[0] != '@')
            return *as;
    return params->policy->engine.owner != NULL ? params->policy->engine.owner : "";
}

static void add_encoded(struct hky_buf *out, const char *text)
{
    struct hky_buf plain;
    hky_buf_init(&plain, 4096);
    hky_buf_add_base64(&plain, hky_str_z(text));
    for (size_t at = 0; at < plain.n; at += 76) {
        hky_buf_add(out, plain.p + at, plain.n - at < 76 ? plain.n - at : 76);
        hky_buf_add_z(out, "\r\n");
    }
    hky_buf_fini(&plain);
}

static void compose(struct probe *p, uint64_t id, const char *from, const char *to, int64_t now_ms)
{
    char date[40], text[HKY_ID_TEXT], body[1024];
    hky_date_format(now_ms, 0, date);
    hky_id_format(id, text);
    struct hky_buf *out = &p->content;
    hky_buf_add_z(out, "From: <");
    hky_address_format(hky_str_z(from), false, out);
    hky_buf_add_z(out, ">\r\nTo: <");
    hky_address_format(hky_str_z(to), false, out);
    hky_buf_add_z(out, ">\r\nSubject: ");
    snprintf(body, sizeof(body), "Hikyaku test mail by %s", p->params->relay->name);
    hky_text_encode(hky_str_z(body), strlen("Subject: "), out);
    hky_buf_printf(out, "\r\nDate: %s\r\nMessage-ID: <probe.%s@%s>\r\n", date, text,
                   p->params->policy->engine.hostname);
    hky_buf_add_z(out,
                  "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                  "Content-Transfer-Encoding: base64\r\n\r\n");
    snprintf(body, sizeof(body), "%s\r\n%s", text_en, text_ja);
    add_encoded(out, body);
}

static enum hky_err prepare(struct probe *p, struct hky_error *e)
{
    const struct hky_probe_params *params = p->params;
    const char *to = params->to != NULL ? params->to : params->policy->engine.owner;
    struct hky_address recipient;
    if (to == NULL || to[0] == '\0')
        return hky_error_set(e, HKY_E_CONFIG, "whom to send the test mail to? Give --to, or engine { owner = ... }");
    if (hky_mailbox_parse(hky_str_z(to), &recipient, e) != HKY_OK)
        return e->code;
    struct hky_clock clock = HKY_CLOCK_REAL;
    int64_t now_ms = hky_clock_now_ms(&clock);
    struct hky_id_source ids = {0};
    uint64_t id = hky_id_next(&ids, now_ms);
    const char *from = sender_of(params);
    if (from[0] == '\0')
        from = recipient.text;
    compose(p, id, from, recipient.text, now_ms);
    struct hky_rcpt_draft rcpt = {.address = hky_address_str(&recipient)};
    struct hky_message_draft draft = {
        .id = id,
        .accepted_at_ms = now_ms,
        .size = p->content.n,
        .header_octets = (uint32_t)hky_header_octets(hky_buf_str(&p->content)),
        .recipients = &rcpt,
        .n_recipients = 1,
    };
    for (int i = 0; i < HKY_FACT_N; i++)
        draft.facts[i] = hky_str_of("", 0);
    p->message = hky_message_new(&draft);
    p->recipient = &p->message->recipients[0];
    snprintf(p->identity.from, sizeof(p->identity.from), "%s", from);
    snprintf(p->identity.sender, sizeof(p->identity.sender), "%s", from);
    p->delivery = hky_delivery_new();
    hky_delivery_reset(p->delivery, 1);
    p->delivery->txn.is_dry = !params->send;
    p->delivery->message = p->message;
    p->delivery->identity = &p->identity;
    p->delivery->recipients = &p->recipient;
    p->delivery->hostname = params->policy->engine.hostname;
    p->delivery->content = hky_buf_str(&p->content);
    p->delivery->loop = p->loop;
    return HKY_OK;
}

/* ---- the target ---- */

static void go(struct probe *p)
{
    const struct hky_relay *r = p->params->relay;
    const char *hello = r->hello != NULL && r->hello[0] != '\0' ? r->hello : p->params->policy->engine.hostname;
    struct hky_outbound_params cp = {
        .loop = p->loop,
        .dns = p->dns,
        .policy = p->params->policy,
        .relay = r,
        .hello = hello,
        .hosts = p->hosts,
        .n_hosts = p->n_hosts,
        .port = p->port,
        .tls = p->tls,
        .is_redirected = p->is_redirected,
        .no_pipelining = true, /* so that every stage has its own time */
        .waits = &p->waits,
        .bound = p->delivery,
        .ops = &ops,
        .ctx = p,
    };
    p->connection = hky_outbound_new(&cp);
}

static void on_mx(struct hky_dns_query *q, const struct hky_dns_mx_answer *a)
{
    struct probe *p = HKY_CONTAINER(q, struct probe, query);
    char text[400];
    if (a->status != HKY_DNS_OK || a->n == 0) {
        struct hky_reply reply;
        hky_reply_local(&reply, HKY_ORIGIN_DNS, "%s",
                        a->status == HKY_DNS_NULL_MX ? "the domain accepts no mail (null MX)" : a->text);
        conclude(p, HKY_STAGE_CONNECT, a->status == HKY_DNS_FAILED ? HKY_CLASS_NETWORK : HKY_CLASS_BAD_DOMAIN, &reply);
        p->is_over = true;
        return;
    }
    p->n_hosts = a->n;
    memcpy(p->hosts, a->mx, a->n * sizeof(a->mx[0]));
    snprintf(text, sizeof(text), "MX %s%s", a->mx[0].host,
             !a->is_implicit    ? ""
             : p->params->is_ja ? "（MXがないため、ドメイン自身）"
                                : " (the domain itself: no MX)");
    report_line(p, HKY_STAGE_CONNECT, true, text);
    go(p);
}

static void set_host(struct probe *p, struct hky_str host, uint16_t port)
{
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = hky_str_of(host.p + 1, host.n - 2);
    snprintf(p->hosts[0].host, sizeof(p->hosts[0].host), HKY_STR_FMT, HKY_STR_ARG(host));
    p->n_hosts = 1;
    p->port = port;
}

static void start(struct probe *p)
{
    const struct hky_relay *r = p->params->relay;
    const char *redirect = p->params->policy->engine.redirect;
    uint16_t port = 25;
    char name[256];
    p->port = r->port;
    p->stage_at_ms = hky_mono_ms();
    if (redirect != NULL && redirect[0] != '\0') {
        bool is_good = hky_endpoint_parse(hky_str_z(redirect), name, &port);
        set_host(p, hky_str_z(is_good ? name : redirect), port);
        p->is_redirected = true;
        go(p);
    } else if (r->is_mx) {
        p->query.on_mx = on_mx;
        hky_dns_ask_mx(p->dns, &p->query, hky_recipient_domain(p->recipient));
    } else {
        set_host(p, hky_str_z(r->host), r->port);
        go(p);
    }
}

static enum hky_err open_parts(struct probe *p, struct hky_error *e)
{
    const struct hky_relay *r = p->params->relay;
    const char *resolver = p->params->policy->engine.resolver;
    enum hky_err err = hky_loop_new(&p->loop, e);
    if (err == HKY_OK)
        err = hky_dns_new(p->loop, resolver != NULL ? resolver : "", &p->dns, e);
    if (err == HKY_OK)
        err = hky_credentials_new(p->loop, NULL, NULL, &p->credentials, e);
    if (err == HKY_OK && r->tls != HKY_TLS_NONE) {
        struct hky_tls_client_params tp = {
            .is_verified = r->tls != HKY_TLS_OPPORTUNISTIC, .ca_file = r->ca, .pin = r->pin};
        err = hky_tls_client_new(&tp, &p->tls, e);
    }
    return err == HKY_OK ? prepare(p, e) : err;
}

static void close_parts(struct probe *p)
{
    hky_dns_cancel(&p->query);
    if (p->connection != NULL)
        hky_outbound_abandon(&p->connection);
    if (p->loop != NULL) /* closed connections are freed at the end of a turn */
        hky_loop_turn(p->loop, 0);
    hky_credentials_free(&p->credentials);
    hky_outbound_login_waits_drop(&p->waits);
    hky_dns_free(&p->dns);
    hky_tls_unref(&p->tls);
    if (p->delivery != NULL)
        hky_delivery_free(&p->delivery); /* with its message */
    hky_loop_free(&p->loop);
    hky_buf_fini(&p->content);
}

enum hky_err hky_probe_run(const struct hky_probe_params *params, struct hky_outcome *outcome, struct hky_error *e)
{
    struct probe p = {.params = params, .outcome = outcome};
    *outcome = (struct hky_outcome){.class = HKY_CLASS_UNKNOWN};
    hky_buf_init(&p.content, 64 * 1024);
    enum hky_err err = open_parts(&p, e);
    if (err == HKY_OK) {
        start(&p);
        int64_t until = hky_mono_ms() + LONGEST_MS;
        while (!p.is_over && hky_mono_ms() < until)
            hky_loop_turn(p.loop, 100);
        if (!p.has_outcome) {
            struct hky_reply reply;
            hky_reply_local(&reply, HKY_ORIGIN_TIMEOUT, "the test took longer than %d s", LONGEST_MS / 1000);
            conclude(&p, HKY_STAGE_CONNECT, HKY_CLASS_NETWORK, &reply);
        }
        if (outcome->class != HKY_CLASS_OK) {
            char text[200];
            err = hky_error_set(e, HKY_E_STATE, "%s: %s", hky_stage_name(outcome->stage),
                                hky_reply_format(&outcome->reply, text, sizeof(text)));
        }
    }
    close_parts(&p);
    return err;
}
