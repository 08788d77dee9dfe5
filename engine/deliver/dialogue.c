#include "deliver/dialogue_internal.h"

#include "base/error.h"
#include "base/secret.h"

#include <stdlib.h>

#define MARKS_FIRST 16
#define SCRATCH_MAX (64 * 1024)

static const char *const state_names[] = {
#define X(id) #id,
    HKY_DIALOGUE_STATES(X)
#undef X
};

static const uint8_t expect_stages[] = {
#define X(id, stage) HKY_STAGE_##stage,
    HKY_EXPECTS(X)
#undef X
        HKY_STAGE_NONE};

const char *hky_dialogue_state_name(enum hky_dialogue_state s)
{
    return s < HKY_DIALOGUE_N ? state_names[s] : "?";
}

#define TO(s) (1u << HKY_DIALOGUE_##s)
static const uint16_t edges[HKY_DIALOGUE_N] = {
    [HKY_DIALOGUE_GREETING] = TO(HELLO) | TO(CLOSED),
    [HKY_DIALOGUE_HELLO] = TO(HELLO) | TO(STARTTLS) | TO(LOGIN) | TO(READY) | TO(CLOSED),
    [HKY_DIALOGUE_STARTTLS] = TO(HANDSHAKE) | TO(LOGIN) | TO(READY) | TO(CLOSED),
    [HKY_DIALOGUE_HANDSHAKE] = TO(HELLO) | TO(CLOSED),
    [HKY_DIALOGUE_LOGIN] = TO(AUTH) | TO(CLOSED),
    [HKY_DIALOGUE_AUTH] = TO(LOGIN) | TO(READY) | TO(CLOSED),
    [HKY_DIALOGUE_READY] = TO(QUITTING) | TO(CLOSED),
    [HKY_DIALOGUE_QUITTING] = TO(CLOSED),
    [HKY_DIALOGUE_CLOSED] = 0,
};
#undef TO

void hky_dialogue_enter(struct hky_dialogue *d, enum hky_dialogue_state s)
{
    HKY_ASSERT((edges[d->state] & (1u << s)) != 0);
    if (d->trace != NULL)
        d->trace(d->params.ctx, d->state, s);
    d->state = s;
}

void hky_dialogue_emit(struct hky_dialogue *d, const struct hky_dialogue_event *ev)
{
    d->params.emit(d->params.ctx, ev);
}

/* ---- the queue of awaited replies ---- */

static void marks_grow(struct hky_dialogue *d)
{
    unsigned cap = d->marks_cap == 0 ? MARKS_FIRST : d->marks_cap * 2;
    struct hky_mark *marks = hky_alloc(cap * sizeof(*marks));
    for (unsigned i = 0; i < d->n_marks; i++)
        marks[i] = d->marks[(d->marks_at + i) & (d->marks_cap - 1)];
    free(d->marks);
    d->marks = marks;
    d->marks_cap = cap;
    d->marks_at = 0;
}

void hky_dialogue_expect(struct hky_dialogue *d, enum hky_expect e, struct hky_transaction *txn, unsigned recipient)
{
    if (d->n_marks == d->marks_cap)
        marks_grow(d);
    d->marks[(d->marks_at + d->n_marks++) & (d->marks_cap - 1)] =
        (struct hky_mark){.txn = txn, .recipient = recipient, .expect = (uint8_t)e};
}

static const struct hky_mark *head(const struct hky_dialogue *d)
{
    return d->n_marks > 0 ? &d->marks[d->marks_at] : NULL;
}

static struct hky_mark take_mark(struct hky_dialogue *d)
{
    struct hky_mark m = d->marks[d->marks_at];
    d->marks_at = (d->marks_at + 1) & (d->marks_cap - 1);
    d->n_marks--;
    return m;
}

void hky_dialogue_send(struct hky_dialogue *d, const char *p, size_t n)
{
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_SEND, .octets = hky_str_of(p, n)});
}

void hky_dialogue_send_z(struct hky_dialogue *d, const char *z)
{
    hky_dialogue_send(d, z, strlen(z));
}

/* ---- transactions ---- */

static void report(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, enum hky_stage stage,
                   const struct hky_reply *reply, bool is_ambiguous)
{
    HKY_ASSERT(i < t->n && t->verdicts[i] != HKY_VERDICT_REPORTED);
    t->verdicts[i] = HKY_VERDICT_REPORTED;
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_RESULT,
                                                      .txn = t,
                                                      .recipient = i,
                                                      .stage = stage,
                                                      .reply = reply,
                                                      .is_ambiguous = is_ambiguous});
}

static void report_rest(struct hky_dialogue *d, struct hky_transaction *t, enum hky_stage stage,
                        const struct hky_reply *reply, bool is_ambiguous)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->verdicts[i] != HKY_VERDICT_REPORTED)
            report(d, t, i, stage, reply, is_ambiguous);
}

static void txn_end(struct hky_dialogue *d, struct hky_transaction *t, enum hky_dialogue_event_kind how)
{
    if (d->current == t) {
        d->current = d->next;
        d->next = NULL;
    } else {
        HKY_ASSERT(d->next == t);
        d->next = NULL;
    }
    t->state = HKY_TRANSACTION_DONE;
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = how, .txn = t});
}

/* The server holds an envelope that we do not use: RSET, then it is over. RSET may lead the next group (RFC 2920). */
static void txn_reset(struct hky_dialogue *d, struct hky_transaction *t)
{
    hky_dialogue_send_z(d, "RSET\r\n");
    hky_dialogue_expect(d, HKY_EXPECT_RSET, NULL, 0);
    txn_end(d, t, HKY_DIALOGUE_DONE);
}

static void skip_reported(struct hky_transaction *t)
{
    while (t->next_rcpt < t->n && t->verdicts[t->next_rcpt] == HKY_VERDICT_REPORTED)
        t->next_rcpt++;
}

/* Marks the next command of the envelope as awaited; false when there is none left. */
static bool txn_expect_next(struct hky_dialogue *d, struct hky_transaction *t)
{
    if (!t->is_mail_out) {
        t->is_mail_out = true;
        hky_dialogue_expect(d, HKY_EXPECT_MAIL, t, 0);
        return true;
    }
    skip_reported(t);
    if (t->next_rcpt < t->n) {
        hky_dialogue_expect(d, HKY_EXPECT_RCPT, t, t->next_rcpt++);
        return true;
    }
    if (t->is_dry || t->is_data_out)
        return false;
    t->is_data_out = true;
    hky_dialogue_expect(d, HKY_EXPECT_DATA, t, 0);
    return true;
}

static void txn_send_group(struct hky_dialogue *d, struct hky_transaction *t)
{
    /* Marks first: a peer cannot answer before SEND, but an owner may fail inside it. */
    while (txn_expect_next(d, t))
        ;
    t->sent = t->commands.n;
    hky_dialogue_send(d, t->commands.p, t->commands.n);
}

static bool is_pipelined(const struct hky_dialogue *d)
{
    return d->params.may_pipeline && d->caps.pipelining;
}

static bool txn_send_one(struct hky_dialogue *d, struct hky_transaction *t)
{
    const char *p = t->commands.p + t->sent;
    const char *lf = memchr(p, '\n', t->commands.n - t->sent);
    if (lf == NULL || !txn_expect_next(d, t))
        return false;
    size_t n = (size_t)(lf - p) + 1;
    t->sent += n;
    hky_dialogue_send(d, p, n);
    return true;
}

static bool is_last_rcpt(struct hky_transaction *t)
{
    skip_reported(t);
    return t->next_rcpt >= t->n;
}

/* ---- the end of a connection ---- */

/* True: it was given back. */
static bool settle(struct hky_dialogue *d, struct hky_transaction *t, enum hky_stage stage,
                   const struct hky_reply *reply, bool dot_left, bool is_out_of_step)
{
    bool is_open = t->state == HKY_TRANSACTION_ENVELOPE || t->state == HKY_TRANSACTION_CONTENT;
    /* Not the first here and without a reply of its own, or with one that was another's: that is about the connection,
     * not about the message. */
    if (is_open && t->ordinal > 1 && (!t->has_reply || (t->is_overlapped && is_out_of_step))) {
        txn_end(d, t, HKY_DIALOGUE_GIVE_BACK);
        return true;
    }
    switch (t->state) {
    case HKY_TRANSACTION_ENVELOPE:
        report_rest(d, t, stage, reply, false);
        break;
    case HKY_TRANSACTION_CONTENT:
        report_rest(d, t, HKY_STAGE_DATA, reply, false);
        break;
    case HKY_TRANSACTION_DOT:
        report_rest(d, t, dot_left ? HKY_STAGE_DOT : HKY_STAGE_DATA, reply, dot_left);
        break;
    case HKY_TRANSACTION_VOID:
    case HKY_TRANSACTION_NEW:
    case HKY_TRANSACTION_DONE:
        break;
    }
    txn_end(d, t, HKY_DIALOGUE_DONE);
    return false;
}

static enum hky_stage stage_of_txn(const struct hky_dialogue *d, const struct hky_transaction *t)
{
    for (unsigned i = 0; i < d->n_marks; i++) {
        const struct hky_mark *m = &d->marks[(d->marks_at + i) & (d->marks_cap - 1)];
        if (m->txn == t)
            return expect_stages[m->expect];
    }
    return t->state == HKY_TRANSACTION_CONTENT ? HKY_STAGE_DATA : HKY_STAGE_MAIL;
}

void hky_dialogue_finish(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                         bool is_out_of_step)
{
    if (d->state == HKY_DIALOGUE_CLOSED)
        return;
    bool is_idle = d->current == NULL && (d->state == HKY_DIALOGUE_READY || d->state == HKY_DIALOGUE_QUITTING);
    enum hky_stage at = stage != HKY_STAGE_NONE ? stage : hky_dialogue_stage(d);
    /* Settled before the state changes hands: no event may start anything new. */
    hky_dialogue_enter(d, HKY_DIALOGUE_CLOSED);
    bool is_broken = reply->code == 0 && d->next != NULL && d->current->state == HKY_TRANSACTION_DOT;
    unsigned n_given_back = 0;
    while (d->current != NULL) {
        enum hky_stage own = stage_of_txn(d, d->current);
        n_given_back += settle(d, d->current, own, reply, dot_left, is_out_of_step);
    }
    d->n_marks = 0;
    hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_END,
                                                      .stage = at,
                                                      .reply = reply,
                                                      .is_idle = is_idle,
                                                      .is_broken = is_broken && !is_out_of_step,
                                                      .n_given_back = n_given_back,
                                                      .is_out_of_step = is_out_of_step});
}

void hky_dialogue_fail(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                       bool is_out_of_step)
{
    hky_dialogue_finish(d, stage, reply, dot_left, is_out_of_step);
}

/* The peer speaks, but not SMTP, or not to this command. */
void hky_dialogue_misfit(struct hky_dialogue *d, const char *command, const struct hky_reply *reply)
{
    struct hky_reply local;
    hky_reply_local(&local, HKY_ORIGIN_LOCAL, "unexpected reply to %s: %u %.200s", command, reply->code, reply->text);
    hky_dialogue_finish(d, HKY_STAGE_NONE, &local, true, true);
}

/* ---- the replies of a transaction ---- */

static void on_mail(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
{
    t->has_reply = true;
    if (r->code < 300) {
        t->is_mail_ok = true;
        if (!is_pipelined(d))
            txn_send_one(d, t);
        return;
    }
    report_rest(d, t, HKY_STAGE_MAIL, r, false);
    if (!is_pipelined(d))
        txn_end(d, t, HKY_DIALOGUE_DONE);
    /* pipelined: replies to its RCPTs and DATA are still to come and have marks; the last of them ends it */
}

static void on_rcpt(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, const struct hky_reply *r)
{
    /* After a refused MAIL whatever is said about recipients means nothing. */
    if (t->verdicts[i] == HKY_VERDICT_OPEN && t->is_mail_ok) {
        if (r->code < 300 && !t->is_dry) {
            t->verdicts[i] = HKY_VERDICT_ACCEPTED;
            t->n_accepted++;
        } else {
            report(d, t, i, HKY_STAGE_RCPT, r, false);
        }
    }
    const struct hky_mark *m = head(d);
    bool is_last = is_pipelined(d) ? m == NULL || m->txn != t || m->expect != HKY_EXPECT_RCPT : is_last_rcpt(t);
    if (t->is_dry) {
        if (is_last)
            txn_reset(d, t);
        else if (!is_pipelined(d))
            txn_send_one(d, t);
        return;
    }
    if (is_pipelined(d))
        return;
    if (is_last && t->n_accepted == 0)
        txn_reset(d, t);
    else
        txn_send_one(d, t);
}

static void on_data(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
{
    if (r->code == 354) {
        if (t->is_overlapped)
            hky_dialogue_emit(d, &(struct hky_dialogue_event){.kind = HKY_DIALOGUE_IN_STEP, .txn = t});
        if (t->n_accepted > 0) {
            t->state = HKY_TRANSACTION_CONTENT;
            return;
        }
        t->state = HKY_TRANSACTION_VOID;
        hky_dialogue_expect(d, HKY_EXPECT_DOT, t, 0);
        hky_dialogue_send_z(d, ".\r\n");
        return;
    }
    report_rest(d, t, HKY_STAGE_DATA, r, false);
    if (t->is_mail_ok)
        txn_reset(d, t);
    else
        txn_end(d, t, HKY_DIALOGUE_DONE);
}

static void on_dot(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
{
    if (t->state != HKY_TRANSACTION_VOID) {
        report_rest(d, t, HKY_STAGE_DOT, r, false);
        txn_end(d, t, HKY_DIALOGUE_DONE);
        return;
    }
    txn_end(d, t, HKY_DIALOGUE_DONE);
    /* It took an empty message for nobody: who knows what it thinks the next reply is about. */
    if (r->code < 300)
        hky_dialogue_misfit(d, "an empty message for nobody", r);
}

static bool is_fitting(enum hky_expect e, uint16_t code)
{
    if (code >= 400)
        return true;
    if (e == HKY_EXPECT_DATA)
        return code == 354;
    if (e == HKY_EXPECT_MAIL || e == HKY_EXPECT_RCPT || e == HKY_EXPECT_DOT || e == HKY_EXPECT_RSET)
        return code < 300;
    return true; /* the opening ones judge for themselves */
}

static const char *expect_name(enum hky_expect e)
{
    static const char *const names[] = {
#define X(id, stage) #id,
        HKY_EXPECTS(X)
#undef X
            "nothing"};
    return names[e];
}

static void unasked(struct hky_dialogue *d, const struct hky_reply *r)
{
    struct hky_transaction *t = d->current;
    if (t != NULL && t->state == HKY_TRANSACTION_CONTENT && r->code >= 400) {
        report_rest(d, t, HKY_STAGE_DOT, r, false); /* a verdict before the end: valid, but the rest is unread */
        hky_dialogue_finish(d, HKY_STAGE_DOT, r, false, false);
        return;
    }
    if (t == NULL && r->code >= 400) {
        hky_dialogue_finish(d, HKY_STAGE_NONE, r, false, false); /* "421 idle too long" */
        return;
    }
    hky_dialogue_misfit(d, "nothing", r);
}

static void on_reply(struct hky_dialogue *d, struct hky_mark m, const struct hky_reply *r, struct hky_str lines,
                     bool is_early)
{
    switch ((enum hky_expect)m.expect) {
    case HKY_EXPECT_GREETING:
        hky_dialogue_on_greeting(d, r);
        break;
    case HKY_EXPECT_EHLO:
    case HKY_EXPECT_HELO:
        if (r->code == 421)
            hky_dialogue_finish(d, HKY_STAGE_HELLO, r, false, false);
        else
            hky_dialogue_on_hello(d, r, lines, m.expect == HKY_EXPECT_EHLO);
        break;
    case HKY_EXPECT_STARTTLS:
        hky_dialogue_on_starttls(d, r);
        break;
    case HKY_EXPECT_AUTH:
        hky_dialogue_on_auth(d, r);
        break;
    case HKY_EXPECT_MAIL:
        on_mail(d, m.txn, r);
        break;
    case HKY_EXPECT_RCPT:
        on_rcpt(d, m.txn, m.recipient, r);
        break;
    case HKY_EXPECT_DATA:
        on_data(d, m.txn, r);
        break;
    case HKY_EXPECT_DOT:
        on_dot(d, m.txn, r);
        if (is_early && d->state == HKY_DIALOGUE_READY)
            hky_dialogue_finish(d, HKY_STAGE_DOT, r, false,
                                false); /* it may take the rest of the content for commands */
        break;
    case HKY_EXPECT_RSET:
        if (r->code >= 400)
            hky_dialogue_finish(d, HKY_STAGE_MAIL, r, false, r->code != 421);
        break;
    case HKY_EXPECT_QUIT:
    case HKY_EXPECT_NOTHING:
        hky_dialogue_finish(d, HKY_STAGE_NONE, r, false, false);
        break;
    }
}

/* 503 to a command that was right where it stood: the server did not take it as overlapped. To DATA it may as well say
 * that nobody was accepted. */
static bool is_out_of_turn(const struct hky_mark *m, const struct hky_reply *r)
{
    if (r->code != 503 || m->txn == NULL || !m->txn->is_overlapped)
        return false;
    return m->expect == HKY_EXPECT_MAIL || (m->expect == HKY_EXPECT_RCPT && m->txn->is_mail_ok) ||
           (m->expect == HKY_EXPECT_DATA && m->txn->n_accepted > 0);
}

/* To a MAIL that is not the first: the server closes, has given up waiting, or is still elsewhere. That says nothing
 * about this message; a new connection does better. */
static bool is_about_connection(const struct hky_reply *r)
{
    if (r->code == 421 || r->code == 503)
        return true;
    if (r->code >= 500)
        return false;
    struct hky_str text = hky_str_of(r->text, r->n);
    return r->code >= 400 &&
           ((r->enhanced[0] == 4 && r->enhanced[1] == 4 && r->enhanced[2] == 2) ||
            hky_str_ifind(text, HKY_STR("timeout")) != NULL || hky_str_ifind(text, HKY_STR("timed out")) != NULL);
}

void hky_dialogue_reply(struct hky_dialogue *d, const struct hky_reply *r, struct hky_str lines, bool is_early)
{
    if (d->state == HKY_DIALOGUE_CLOSED)
        return;
    const struct hky_mark *first = head(d);
    if (first == NULL) {
        unasked(d, r);
        return;
    }
    /* It cannot have read a dot that has not left. */
    if (first->expect == HKY_EXPECT_DOT && is_early && r->code < 400) {
        struct hky_reply local;
        hky_reply_local(&local, HKY_ORIGIN_LOCAL, "answered before the end of the message: %u %.200s", r->code,
                        r->text);
        hky_dialogue_finish(d, HKY_STAGE_DATA, &local, false, true);
        return;
    }
    if (!is_fitting(first->expect, r->code)) {
        hky_dialogue_misfit(d, expect_name(first->expect), r);
        return;
    }
    if (is_out_of_turn(first, r)) {
        hky_dialogue_finish(d, expect_stages[first->expect], r, false, true);
        return;
    }
    if (first->expect == HKY_EXPECT_MAIL && first->txn->ordinal > 1 && is_about_connection(r)) {
        hky_dialogue_finish(d, HKY_STAGE_MAIL, r, false, false);
        return;
    }
    on_reply(d, take_mark(d), r, lines, is_early);
    if (r->code == 421 && d->state != HKY_DIALOGUE_CLOSED)
        hky_dialogue_finish(d, HKY_STAGE_NONE, r, false, false);
}

/* ---- what the owner does ---- */

bool hky_dialogue_can_begin(const struct hky_dialogue *d)
{
    if (d->state != HKY_DIALOGUE_READY || d->next != NULL)
        return false;
    if (d->current == NULL)
        return d->n_marks == 0 || is_pipelined(d);
    return d->current->state == HKY_TRANSACTION_DOT && is_pipelined(d) && d->params.may_overlap;
}

void hky_dialogue_begin(struct hky_dialogue *d, struct hky_transaction *t)
{
    HKY_ASSERT(hky_dialogue_can_begin(d));
    t->state = HKY_TRANSACTION_ENVELOPE;
    t->ordinal = ++d->n_begun;
    t->sent = 0;
    t->n_accepted = t->next_rcpt = 0;
    t->is_mail_out = t->is_mail_ok = t->has_reply = t->is_data_out = false;
    t->is_overlapped = d->current != NULL;
    if (d->current == NULL)
        d->current = t;
    else
        d->next = t;
    if (is_pipelined(d))
        txn_send_group(d, t);
    else
        txn_send_one(d, t);
}

struct hky_transaction *hky_dialogue_content(const struct hky_dialogue *d)
{
    struct hky_transaction *t = d->current;
    return d->state == HKY_DIALOGUE_READY && t != NULL && t->state == HKY_TRANSACTION_CONTENT ? t : NULL;
}

void hky_dialogue_content_written(struct hky_dialogue *d)
{
    struct hky_transaction *t = hky_dialogue_content(d);
    HKY_ASSERT(t != NULL && d->n_marks == 0);
    t->state = HKY_TRANSACTION_DOT;
    hky_dialogue_expect(d, HKY_EXPECT_DOT, t, 0);
}

void hky_dialogue_quit(struct hky_dialogue *d)
{
    HKY_ASSERT(d->state == HKY_DIALOGUE_READY && d->current == NULL);
    hky_dialogue_enter(d, HKY_DIALOGUE_QUITTING);
    /* Marks of a RSET may be before it; a reply to QUIT is not worth waiting for in any case. */
    d->n_marks = 0;
    hky_dialogue_expect(d, HKY_EXPECT_QUIT, NULL, 0);
    hky_dialogue_send_z(d, "QUIT\r\n");
}

bool hky_dialogue_is_idle(const struct hky_dialogue *d)
{
    return d->state == HKY_DIALOGUE_READY && d->current == NULL;
}

enum hky_expect hky_dialogue_expects(const struct hky_dialogue *d)
{
    const struct hky_mark *m = head(d);
    return m != NULL ? (enum hky_expect)m->expect : HKY_EXPECT_NOTHING;
}

enum hky_stage hky_dialogue_stage(const struct hky_dialogue *d)
{
    if (d->current != NULL)
        return d->current->state == HKY_TRANSACTION_CONTENT ? HKY_STAGE_DATA : stage_of_txn(d, d->current);
    switch (d->state) {
    case HKY_DIALOGUE_GREETING:
        return HKY_STAGE_GREETING;
    case HKY_DIALOGUE_HELLO:
        return HKY_STAGE_HELLO;
    case HKY_DIALOGUE_STARTTLS:
    case HKY_DIALOGUE_HANDSHAKE:
        return HKY_STAGE_TLS;
    case HKY_DIALOGUE_LOGIN:
    case HKY_DIALOGUE_AUTH:
        return HKY_STAGE_AUTH;
    case HKY_DIALOGUE_READY:
    case HKY_DIALOGUE_QUITTING:
    case HKY_DIALOGUE_CLOSED:
    case HKY_DIALOGUE_N:
        break;
    }
    return HKY_STAGE_MAIL;
}

void hky_dialogue_init(struct hky_dialogue *d, const struct hky_dialogue_params *p)
{
    *d = (struct hky_dialogue){.params = *p, .state = HKY_DIALOGUE_GREETING};
    hky_buf_init(&d->scratch, SCRATCH_MAX);
    hky_dialogue_expect(d, HKY_EXPECT_GREETING, NULL, 0);
}

void hky_dialogue_fini(struct hky_dialogue *d)
{
    hky_login_free(&d->sasl);
    if (d->scratch.p != NULL)
        hky_secret_wipe(d->scratch.p, d->scratch.n);
    hky_buf_fini(&d->scratch);
    free(d->marks);
    *d = (struct hky_dialogue){.state = HKY_DIALOGUE_CLOSED};
}
