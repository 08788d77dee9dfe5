/* The events of a connection: of its dialogue, its stream, its timer and its owner. */
#include "deliver/outbound_internal.h"

#include "base/clock.h"
#include "mail/reply.h"

#include <errno.h>
#include <stdlib.h>

#define PROMPT_MS 2000 /* a MAIL sent later than this may find that the server closed the idle connection */

/* Does what can be done now: writes content, takes the next delivery, or ends the connection. Every event ends with a
 * call of this function. */
static void pump(struct hky_outbound *c);

/* ---- events of the dialogue ---- */

/* Another host may accept a recipient whom this host put off, or whose connection was lost. */
static bool may_go_elsewhere(const struct hky_outbound *c, const struct hky_delivery *x,
                             const struct hky_dialogue_event *ev)
{
    const struct hky_reply *r = ev->reply;
    if (c->params.ops->try_elsewhere == NULL || ev->is_ambiguous || c->class != HKY_CLASS_N || x->txn.is_dry)
        return false;
    /* A 5xx is the domain's word on sender, recipient or message, whichever of its hosts said it; only words about
     * connections speak of the host. */
    bool is_of_host = r->code < 500 || (ev->stage == HKY_STAGE_MAIL && hky_reply_counts_connections(r));
    return (r->code == 0 || r->code >= 400) && is_of_host && hky_outbound_has_more_targets(c, x);
}

/* RFC 5321 4.5.3.1.10: a 452 (formerly 552) to a recipient after others were accepted says nothing about this
 * recipient. */
static bool is_one_too_many(const struct hky_dialogue_event *ev)
{
    return ev->stage == HKY_STAGE_RCPT && ev->txn->n_accepted > 0 && !ev->txn->is_dry &&
           hky_reply_counts_recipients(ev->reply);
}

static void on_result(struct hky_outbound *c, const struct hky_dialogue_event *ev)
{
    struct hky_delivery *x = hky_outbound_delivery(ev->txn);
    if (c->params.ops->too_many != NULL && is_one_too_many(ev)) {
        if (x->n_left++ == 0)
            c->params.ops->too_many(c->params.ctx, c, x, ev->txn->n_accepted);
        return;
    }
    if (may_go_elsewhere(c, x, ev)) {
        struct hky_kept_answer k = {.stage = ev->stage, .class = HKY_CLASS_N, .reply = *ev->reply};
        hky_delivery_keep_answer(x, ev->recipient, &k);
        return;
    }
    hky_outbound_report(c, x, ev->recipient, ev->stage, ev->is_ambiguous ? HKY_CLASS_AMBIGUOUS : c->class, ev->reply);
}

static void on_done(struct hky_outbound *c, struct hky_delivery *x)
{
    c->done_at_ms = hky_loop_now_ms(c->params.loop);
    if (x->n_answers == 0) {
        if (x->n_left > 0)
            c->params.ops->give_back(c->params.ctx, c, x, true);
        else
            c->params.ops->done(c->params.ctx, c, x, true);
        return;
    }
    hky_outbound_mark_tried(c, x);
    c->params.ops->try_elsewhere(c->params.ctx, c, x);
}

static void on_give_back(struct hky_outbound *c, struct hky_delivery *x)
{
    c->is_full |= x->mail_at_ms - c->done_at_ms < PROMPT_MS;
    c->params.ops->give_back(c->params.ctx, c, x, c->stream == NULL || hky_stream_sent(c->stream) > x->mail_at);
}

static void on_dialogue(void *ctx, const struct hky_dialogue_event *ev)
{
    struct hky_outbound *c = ctx;
    const struct hky_outbound_ops *ops = c->params.ops;
    switch (ev->kind) {
    case HKY_DIALOGUE_SEND:
        if (c->dialogue.state == HKY_DIALOGUE_AUTH)
            hky_outbound_remember_response(c, hky_str_trim(ev->octets));
        hky_stream_write(c->stream, ev->octets.p, ev->octets.n);
        c->is_moved = true;
        break;
    case HKY_DIALOGUE_START_TLS:
        hky_outbound_enter(c, HKY_OUTBOUND_SECURING);
        break;
    case HKY_DIALOGUE_ASK_LOGIN:
        if (c->state != HKY_OUTBOUND_LOGIN) /* it is LOGIN when another mechanism is tried */
            hky_outbound_enter(c, HKY_OUTBOUND_LOGIN);
        break;
    case HKY_DIALOGUE_OPEN:
        hky_outbound_enter(c, HKY_OUTBOUND_READY);
        c->class = HKY_CLASS_N;
        ops->open(c->params.ctx, c);
        break;
    case HKY_DIALOGUE_RESULT:
        on_result(c, ev);
        break;
    case HKY_DIALOGUE_DONE:
        on_done(c, hky_outbound_delivery(ev->txn));
        break;
    case HKY_DIALOGUE_GIVE_BACK:
        on_give_back(c, hky_outbound_delivery(ev->txn));
        break;
    case HKY_DIALOGUE_IN_STEP:
        if (ops->in_step != NULL)
            ops->in_step(c->params.ctx, c);
        break;
    case HKY_DIALOGUE_END:
        c->end = *ev;
        c->end_reply = *ev->reply;
        if (ev->is_unsendable && c->class == HKY_CLASS_N)
            c->class = HKY_CLASS_RELAY_AUTH;
        break;
    }
}

static void on_start_tls(struct hky_task *task)
{
    struct hky_outbound *c = HKY_CONTAINER(task, struct hky_outbound, task);
    if (c->state != HKY_OUTBOUND_SECURING)
        return;
    hky_stream_start_tls(c->stream, c->params.tls, hky_outbound_host(c));
    hky_outbound_set_timer(c);
}

/* ---- pump ---- */

static void on_secret(void *arg, struct hky_secret *secret, const struct hky_error *e)
{
    struct hky_outbound *c = hky_outbound_take_secret(arg, secret, e);
    if (c != NULL)
        pump(c);
}

static void on_piece(void *ctx, struct hky_delivery *x)
{
    (void)x;
    pump(ctx);
}

static bool wants_credential(const struct hky_outbound *c)
{
    return c->dialogue.state == HKY_DIALOGUE_LOGIN && c->login == NULL;
}

static void pump(struct hky_outbound *c)
{
    if (c->is_pumping || !hky_outbound_is_talking(c))
        return;
    c->is_pumping = true;
    for (;;) {
        struct hky_transaction *t;
        if (c->end.kind == HKY_DIALOGUE_END)
            break;
        if (wants_credential(c)) {
            hky_outbound_login(c, on_secret);
            continue;
        }
        t = hky_dialogue_content(&c->dialogue);
        if (t != NULL) {
            if (!hky_outbound_write_content(c, t))
                break;
            continue;
        }
        if (!hky_outbound_send_next(c))
            break;
    }
    c->is_pumping = false;
    if (c->end.kind == HKY_DIALOGUE_END) {
        hky_outbound_conclude(c);
        return;
    }
    if (hky_outbound_is_retiring(c) && hky_dialogue_is_idle(&c->dialogue))
        hky_dialogue_quit(&c->dialogue);
    hky_stream_flush(c->stream);
    if (c->is_moved || !hky_timer_is_set(&c->timer))
        hky_outbound_set_timer(c);
}

/* ---- events of the stream ---- */

/* Is the first MAIL of this connection answered by words about the connection, while others are open? */
static bool is_turned_away(struct hky_outbound *c, const struct hky_reply *r)
{
    bool is_about_it = r->code == 421 || hky_reply_counts_connections(r);
    if (!is_about_it || c->params.ops->may_give_back == NULL || hky_dialogue_expects(&c->dialogue) != HKY_EXPECT_MAIL ||
        c->dialogue.n_begun > 1)
        return false;
    struct hky_outbound_end end = {.stage = HKY_STAGE_MAIL, .class = HKY_CLASS_N, .reply = r, .was_open = true};
    return c->params.ops->may_give_back(c->params.ctx, c, &end);
}

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct hky_outbound *c = ctx;
    size_t at = 0;
    while (at < n && c->state != HKY_OUTBOUND_SECURING && c->end.kind != HKY_DIALOGUE_END) {
        size_t used = 0;
        struct hky_error e;
        enum hky_reply_status status = hky_reply_read(&c->reader, p + at, n - at, &used, &e);
        at += used;
        if (status == HKY_REPLY_MORE)
            break;
        if (status == HKY_REPLY_BAD) {
            struct hky_reply reply;
            hky_reply_local(&reply, HKY_ORIGIN_LOCAL, "not an SMTP reply: %s", e.text);
            hky_outbound_fail(c, HKY_STAGE_NONE, HKY_CLASS_N, true, &reply);
            break;
        }
        c->is_moved = true;
        const struct hky_reply *r = &c->reader.reply;
        bool is_challenge = r->code == 334;
        if (!is_challenge) /* the reply is kept and shown; a challenge must be read unchanged */
            hky_mask_reply(&c->mask, &c->reader.reply);
        if (c->params.ops->greeted != NULL && hky_dialogue_expects(&c->dialogue) == HKY_EXPECT_GREETING)
            c->params.ops->greeted(c->params.ctx, c, hky_str_of(r->text, r->n));
        if (c->params.ops->trace != NULL && r->code < 400) {
            char text[HKY_REPLY_TEXT + 32];
            enum hky_stage stage = hky_dialogue_stage(&c->dialogue);
            /* With the challenge and the answer anybody could guess the password offline, so neither is shown. */
            hky_reply_format(r, text, sizeof(text));
            hky_outbound_trace(c, stage, true, is_challenge ? "334 ***" : text);
        }
        /* All replies are handled first, then pump is called once, so that body and next envelope leave in one write.
         * Also, a reply that came in one read with a 354 cannot be taken for the answer to a dot that was not sent yet.
         */
        if (is_turned_away(c, r))
            hky_dialogue_turn_away(&c->dialogue, r);
        else
            hky_dialogue_reply(&c->dialogue, r, hky_buf_str(&c->reader.lines), !hky_outbound_dot_has_left(c));
    }
    bool is_securing = c->state == HKY_OUTBOUND_SECURING && c->end.kind != HKY_DIALOGUE_END;
    if (is_securing && at < n) {
        hky_outbound_fail_local(c, HKY_STAGE_TLS, HKY_CLASS_TLS, HKY_ORIGIN_LOCAL,
                                "octets before the TLS handshake: somebody may have put them there");
    } else if (is_securing) {
        c->task.run = on_start_tls;
        hky_loop_defer(c->params.loop, &c->task);
        return at;
    }
    pump(c);
    return at;
}

/* Then nothing may be sent in clear, whatever the owner of the connection forgot. */
static bool must_be_secure(const struct hky_outbound *c)
{
    enum hky_tls_mode tls = c->params.relay->tls;
    return !c->params.is_redirected && (tls == HKY_TLS_IMPLICIT || tls == HKY_TLS_STARTTLS);
}

static void on_connected(struct hky_outbound *c)
{
    const struct hky_relay *r = c->params.relay;
    bool has_tls = c->params.tls != NULL && !c->params.is_redirected && (!c->is_plain || must_be_secure(c));
    bool wants_auth = !c->params.is_redirected && r->auth != HKY_AUTH_NONE &&
                      (r->auth != HKY_AUTH_AUTO || (r->user != NULL && r->user[0] != '\0'));
    struct hky_dialogue_params p = {
        .hello = c->params.hello,
        .starttls = HKY_DIALOGUE_TLS_OFF,
        .is_secure = has_tls && r->tls == HKY_TLS_IMPLICIT,
        .wants_auth = wants_auth,
        .may_pipeline = !c->params.no_pipelining,
        .may_overlap = r->overlap && c->params.ops->may_overlap != NULL,
        .emit = on_dialogue,
        .ctx = c,
    };
    if (has_tls && r->tls == HKY_TLS_STARTTLS)
        p.starttls = HKY_DIALOGUE_TLS_MUST;
    else if (has_tls && r->tls == HKY_TLS_OPPORTUNISTIC)
        p.starttls = HKY_DIALOGUE_TLS_MAY;
    hky_dialogue_init(&c->dialogue, &p);
    hky_reply_reader_init(&c->reader);
    c->auths_tried = 0;
    hky_outbound_enter(c, p.is_secure ? HKY_OUTBOUND_SECURING : HKY_OUTBOUND_OPENING);
    c->dot_end = 0;
    char peer[80];
    hky_stream_peer(c->stream, peer, sizeof(peer));
    hky_outbound_trace(c, HKY_STAGE_CONNECT, true, peer);
    if (must_be_secure(c) && !has_tls) {
        hky_outbound_fail_local(c, HKY_STAGE_TLS, HKY_CLASS_TLS, HKY_ORIGIN_TLS,
                                "the relay's mail needs TLS, and the connection was opened without it");
        pump(c);
        return;
    }
    if (p.is_secure)
        hky_stream_start_tls(c->stream, c->params.tls, hky_outbound_host(c));
    hky_outbound_set_timer(c);
}

static void on_secured(struct hky_outbound *c)
{
    char text[120];
    hky_stream_tls_text(c->stream, text, sizeof(text));
    hky_outbound_trace(c, HKY_STAGE_TLS, true, text);
    hky_outbound_trace_certificate(c);
    c->is_moved = true;
    hky_outbound_enter(c, HKY_OUTBOUND_OPENING);
    if (c->dialogue.state == HKY_DIALOGUE_HANDSHAKE)
        hky_dialogue_secured(&c->dialogue);
    pump(c);
    if (hky_outbound_is_talking(c))
        hky_outbound_set_timer(c);
}

/* This machine has no descriptor, port or memory left, which says nothing about the relay. */
static bool is_our_lack(const struct hky_error *e)
{
    return e->sys == EMFILE || e->sys == ENFILE || e->sys == ENOBUFS || e->sys == ENOMEM || e->sys == EADDRNOTAVAIL;
}

static bool is_shaking_hands(const struct hky_outbound *c)
{
    return c->state == HKY_OUTBOUND_SECURING && !hky_stream_is_secure(c->stream);
}

static void on_lost(struct hky_outbound *c, bool is_eof, const struct hky_error *e)
{
    struct hky_reply reply;
    enum hky_stage stage = HKY_STAGE_NONE;
    enum hky_class class = HKY_CLASS_N;
    if (is_shaking_hands(c) && (is_eof || e->sys != 0)) {
        /* The server may be stopping or have too much to do; the next attempt, or the next address, may succeed. */
        hky_reply_local(&reply, HKY_ORIGIN_TLS, "%s", is_eof ? "the server closed the connection" : e->text);
        class = HKY_CLASS_NETWORK;
    } else if (is_eof) {
        hky_reply_local(&reply, HKY_ORIGIN_LOST, "the server closed the connection");
    } else if (e->code == HKY_E_TLS &&
               c->state != HKY_OUTBOUND_READY) { /* in READY it counts as any other lost connection */
        hky_reply_local(&reply, HKY_ORIGIN_TLS, "%s", e->text);
        hky_outbound_trace_certificate(c);
        stage = HKY_STAGE_TLS;
        class = HKY_CLASS_TLS;
    } else {
        hky_reply_local(&reply,
                        hky_outbound_is_talking(c) ? HKY_ORIGIN_LOST
                        : is_our_lack(e)           ? HKY_ORIGIN_LOCAL
                                                   : HKY_ORIGIN_CONNECT,
                        "%s", e->text);
    }
    if (hky_outbound_is_talking(c)) {
        hky_outbound_fail(c, stage, class, false, &reply);
        pump(c);
        return;
    }
    hky_stream_close(&c->stream);
    c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_END, .stage = HKY_STAGE_CONNECT};
    c->end_reply = reply;
    if (e != NULL && (e->sys == ENETUNREACH || e->sys == EAFNOSUPPORT || e->sys == EADDRNOTAVAIL))
        hky_outbound_unmark_tried(c);
    hky_outbound_conclude(c);
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct hky_outbound *c = ctx;
    switch (ev) {
    case HKY_STREAM_CONNECTED:
        on_connected(c);
        break;
    case HKY_STREAM_SECURED:
        on_secured(c);
        break;
    case HKY_STREAM_DRAINED:
        pump(c);
        break;
    case HKY_STREAM_EOF:
        on_lost(c, true, NULL);
        break;
    case HKY_STREAM_FAILED:
        on_lost(c, false, e);
        break;
    }
}

static const struct hky_stream_ops stream_ops = {.on_data = on_data, .on_event = on_event};

static void on_addr(struct hky_dns_query *q, const struct hky_dns_addr_answer *a)
{
    struct hky_outbound *c = HKY_CONTAINER(q, struct hky_outbound, query);
    if (c->state != HKY_OUTBOUND_CLOSED && !hky_outbound_take_addresses(c, a))
        hky_outbound_conclude(c);
}

static void on_begin(struct hky_task *task)
{
    struct hky_outbound *c = HKY_CONTAINER(task, struct hky_outbound, task);
    struct hky_error e;
    if (c->state != HKY_OUTBOUND_NEW)
        return;
    /* This runs while the connection is made; a step that fails is repeated when the message is sent. */
    if (c->bound != NULL)
        hky_outbound_prepare(c, &e);
    hky_outbound_resolve(c);
}

/* ---- time-outs ---- */

static void on_timer(struct hky_timer *timer)
{
    struct hky_outbound *c = HKY_CONTAINER(timer, struct hky_outbound, timer);
    struct hky_reply reply;
    if (!hky_outbound_is_talking(c) && c->state != HKY_OUTBOUND_CONNECTING)
        return; /* no other state has a wait of its own */
    if (!hky_outbound_is_talking(c)) {
        hky_reply_local(&reply, HKY_ORIGIN_TIMEOUT, "no answer in %u s",
                        hky_outbound_or_default(c->params.relay->timeout.connect_ms, HKY_CONNECT_DEFAULT_MS) / 1000);
        c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_END, .stage = HKY_STAGE_CONNECT};
        c->end_reply = reply;
        hky_stream_close(&c->stream);
        hky_outbound_conclude(c);
        return;
    }
    if (hky_dialogue_is_idle(&c->dialogue) && hky_dialogue_expects(&c->dialogue) == HKY_EXPECT_NOTHING) {
        hky_outbound_retire(c);
        return;
    }
    if (hky_outbound_still_writes(c)) {
        hky_outbound_set_timer(c);
        return;
    }
    const struct hky_transaction *t = c->dialogue.current;
    c->is_silent = t != NULL && c->dialogue.n_marks > 1 && hky_dialogue_expects(&c->dialogue) != HKY_EXPECT_DOT;
    hky_reply_local(&reply, HKY_ORIGIN_TIMEOUT, "timed out after %u s: %s", hky_outbound_wait_ms(c) / 1000,
                    hky_stream_unsent(c->stream) > 0 ? "the server stopped reading" : "no reply");
    hky_outbound_fail(c, HKY_STAGE_NONE, HKY_CLASS_N, c->is_silent && t->is_overlapped, &reply);
    pump(c);
}

/* ---- the owner's side ---- */

struct hky_outbound *hky_outbound_new(const struct hky_outbound_params *p)
{
    HKY_ASSERT(p->n_hosts > 0);
    struct hky_outbound *c = hky_calloc(1, sizeof(*c));
    c->params = *p;
    c->params.policy = p->policy != NULL ? hky_policy_ref(p->policy) : NULL;
    c->params.tls = p->tls != NULL ? hky_tls_ref(p->tls) : NULL;
    c->hosts = hky_alloc(p->n_hosts * sizeof(*c->hosts));
    memcpy(c->hosts, p->hosts, p->n_hosts * sizeof(*c->hosts));
    c->params.hosts = c->hosts;
    c->bound = p->bound;
    c->most = p->most > 0 ? p->most : UINT32_MAX;
    c->is_plain = p->is_plain;
    c->class = HKY_CLASS_N;
    c->auth = HKY_AUTH_NONE;
    c->query.on_addr = on_addr;
    c->on_piece = on_piece;
    c->stream_ops = &stream_ops;
    hky_buf_init(&c->scratch, 4 * 1024 * 1024);
    hky_mask_init(&c->mask);
    hky_timer_init(&c->timer, p->loop, on_timer);
    c->task.run = on_begin;
    hky_loop_defer(p->loop, &c->task);
    return c;
}

void hky_outbound_kick(struct hky_outbound *c)
{
    if (!c->is_pumping)
        pump(c);
}

void hky_outbound_retire(struct hky_outbound *c)
{
    c->most = c->n_taken + (c->bound != NULL ? 1 : 0);
    if (!c->is_pumping)
        pump(c);
}

void hky_outbound_drain(struct hky_outbound *c)
{
    struct hky_delivery *x = c->bound;
    if (c->state == HKY_OUTBOUND_READY) {
        c->bound = NULL; /* its body is being read, or it waits for the message before it */
        if (x != NULL)
            c->params.ops->give_back(c->params.ctx, c, x, false);
        hky_outbound_retire(c);
    } else if (c->state != HKY_OUTBOUND_CLOSED) {
        struct hky_reply reply;
        hky_reply_local(&reply, HKY_ORIGIN_LOCAL, "the engine stops");
        hky_outbound_close(
            c, &(struct hky_outbound_end){
                   .stage = HKY_STAGE_CONNECT, .class = HKY_CLASS_NETWORK, .reply = &reply, .is_idle = x == NULL});
    }
}
