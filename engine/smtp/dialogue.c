/* Finds what each reply answers, and has the functions that the owner calls. */
#include "smtp/dialogue_internal.h"

#include "base/error.h"
#include "base/secret.h"
#include "mail/reply.h"

#include <stdlib.h>

#define SCRATCH_MAX (64 * 1024)

static bool is_fitting(enum hky_expect e, uint16_t code)
{
    if (code >= 400)
        return true;
    if (e == HKY_EXPECT_DATA)
        return code == 354;
    if (e == HKY_EXPECT_MAIL || e == HKY_EXPECT_RCPT || e == HKY_EXPECT_DOT || e == HKY_EXPECT_RSET)
        return code < 300;
    return true; /* those of the opening check the code themselves */
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

static void on_unasked_reply(struct hky_dialogue *d, const struct hky_reply *r)
{
    struct hky_transaction *t = d->current;
    if (t != NULL && t->state == HKY_TRANSACTION_CONTENT && r->code >= 400) {
        /* A verdict before the end of the content counts, but the server has not read the rest. */
        hky_dialogue_report_rest(d, t, HKY_STAGE_DOT, r, false);
        hky_dialogue_finish(d, HKY_STAGE_DOT, r, false, false);
        return;
    }
    if (t == NULL && r->code >= 400) {
        hky_dialogue_finish(d, HKY_STAGE_NONE, r, false, false); /* "421 idle too long" */
        return;
    }
    hky_dialogue_misfit(d, NULL, r);
}

static void on_reply(struct hky_dialogue *d, struct hky_dialogue_mark m, const struct hky_reply *r,
                     struct hky_str lines, bool is_early)
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
        hky_dialogue_on_mail(d, m.txn, r);
        break;
    case HKY_EXPECT_RCPT:
        hky_dialogue_on_rcpt(d, m.txn, m.recipient, r);
        break;
    case HKY_EXPECT_DATA:
        hky_dialogue_on_data(d, m.txn, r);
        break;
    case HKY_EXPECT_DOT:
        hky_dialogue_on_dot(d, m.txn, r);
        /* After an early reply the server may take the rest of the content for commands. */
        if (is_early && d->state == HKY_DIALOGUE_READY)
            hky_dialogue_finish(d, HKY_STAGE_DOT, r, false, false);
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

/* A 503 to a command that was in its right place shows that the server does not accept overlapped commands. A 503 to
 * DATA may also mean that no recipient was accepted. */
static bool is_out_of_turn(const struct hky_dialogue_mark *m, const struct hky_reply *r)
{
    if (r->code != 503 || m->txn == NULL || !m->txn->is_overlapped)
        return false;
    return m->expect == HKY_EXPECT_MAIL || (m->expect == HKY_EXPECT_RCPT && m->txn->is_mail_ok) ||
           (m->expect == HKY_EXPECT_DATA && m->txn->n_accepted > 0);
}

/* Does a reply to a MAIL that is not the connection's first speak of the connection: is the server closing, did it give
 * up waiting, is it still busy with another command? That says nothing about this message, which a new connection can
 * send. */
static bool is_about_connection(const struct hky_reply *r)
{
    if (r->code == 421 || r->code == 503 || hky_reply_counts_messages(r))
        return true;
    if (r->code >= 500)
        return false;
    struct hky_str text = hky_str_of(r->text, r->n);
    return r->code >= 400 &&
           ((r->enhanced[0] == 4 && r->enhanced[1] == 4 && r->enhanced[2] == 2) ||
            hky_str_ifind(text, HKY_STR("timeout")) != NULL || hky_str_ifind(text, HKY_STR("timed out")) != NULL);
}

/* Some servers count the recipients of a connection, not of a message, or its messages at RCPT: after some messages
 * they accept no further recipient. */
static bool is_used_up(const struct hky_dialogue_mark *m, const struct hky_reply *r)
{
    return m->expect == HKY_EXPECT_RCPT && m->txn->ordinal > 1 && m->txn->is_mail_ok && m->txn->n_accepted == 0 &&
           !m->txn->is_dry && (hky_reply_counts_recipients(r) || hky_reply_counts_messages(r));
}

void hky_dialogue_reply(struct hky_dialogue *d, const struct hky_reply *r, struct hky_str lines, bool is_early)
{
    if (d->state == HKY_DIALOGUE_CLOSED)
        return;
    const struct hky_dialogue_mark *first = hky_dialogue_head(d);
    if (first == NULL) {
        on_unasked_reply(d, r);
        return;
    }
    /* The server cannot have read a dot that was not sent yet. */
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
        hky_dialogue_finish(d, hky_dialogue_stage_of(first), r, false, true);
        return;
    }
    if (first->expect == HKY_EXPECT_MAIL && first->txn->ordinal > 1 && is_about_connection(r)) {
        hky_dialogue_finish(d, HKY_STAGE_MAIL, r, false, false);
        return;
    }
    if (is_used_up(first, r)) {
        hky_dialogue_turn_away(d, r);
        return;
    }
    on_reply(d, hky_dialogue_take_mark(d), r, lines, is_early);
    if (r->code == 421 && d->state != HKY_DIALOGUE_CLOSED)
        hky_dialogue_finish(d, HKY_STAGE_NONE, r, false, false);
}

/* ---- called by the owner ---- */

void hky_dialogue_turn_away(struct hky_dialogue *d, const struct hky_reply *reply)
{
    d->is_turned_away = true;
    hky_dialogue_finish(d, HKY_STAGE_NONE, reply, false, false);
}

void hky_dialogue_fail(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                       bool is_out_of_step)
{
    hky_dialogue_finish(d, stage, reply, dot_left, is_out_of_step);
}

void hky_dialogue_quit(struct hky_dialogue *d)
{
    HKY_ASSERT(d->state == HKY_DIALOGUE_READY && d->current == NULL);
    hky_dialogue_enter(d, HKY_DIALOGUE_QUITTING);
    /* The reply to a RSET may still be awaited before that to QUIT, but neither is worth waiting for. */
    d->n_marks = 0;
    hky_dialogue_expect(d, HKY_EXPECT_QUIT, NULL, 0);
    hky_dialogue_send_z(d, "QUIT\r\n");
}

bool hky_dialogue_is_idle(const struct hky_dialogue *d)
{
    return d->state == HKY_DIALOGUE_READY && d->current == NULL;
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
