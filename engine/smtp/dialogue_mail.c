/* Messages: the envelope, one command at a time or all at once, then the content. */
#include "smtp/dialogue_internal.h"

#include "base/error.h"

/* The server has an envelope that we do not use: RSET drops it and ends the transaction. RSET may be the first of the
 * next group (RFC 2920). */
static void txn_reset(struct hky_dialogue *d, struct hky_transaction *t)
{
    hky_dialogue_send_z(d, "RSET\r\n");
    hky_dialogue_expect(d, HKY_EXPECT_RSET, NULL, 0);
    hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
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
    /* The marks are added before SEND: no reply can come earlier, but the owner may fail inside the event. */
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

/* ---- the replies of a transaction ---- */

void hky_dialogue_on_mail(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
{
    t->has_reply = true;
    if (r->code < 300) {
        t->is_mail_ok = true;
        if (!is_pipelined(d))
            txn_send_one(d, t);
        return;
    }
    hky_dialogue_report_rest(d, t, HKY_STAGE_MAIL, r, false);
    if (!is_pipelined(d))
        hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
    /* pipelined: replies to RCPT and DATA of this transaction are still awaited; the last of them ends it */
}

void hky_dialogue_on_rcpt(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, const struct hky_reply *r)
{
    /* After a refused MAIL the replies about recipients mean nothing. */
    if (t->verdicts[i] == HKY_VERDICT_OPEN && t->is_mail_ok) {
        if (r->code < 300 && !t->is_dry) {
            t->verdicts[i] = HKY_VERDICT_ACCEPTED;
            t->n_accepted++;
        } else {
            hky_dialogue_report(d, t, i, HKY_STAGE_RCPT, r, false);
        }
    }
    const struct hky_dialogue_mark *m = hky_dialogue_head(d);
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

void hky_dialogue_on_data(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
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
    hky_dialogue_report_rest(d, t, HKY_STAGE_DATA, r, false);
    if (t->is_mail_ok)
        txn_reset(d, t);
    else
        hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
}

void hky_dialogue_on_dot(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r)
{
    if (t->state != HKY_TRANSACTION_VOID) {
        hky_dialogue_report_rest(d, t, HKY_STAGE_DOT, r, false);
        hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
        return;
    }
    hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
    /* The server accepted an empty message for nobody, so nobody knows which command its next reply is for. */
    if (r->code < 300)
        hky_dialogue_misfit(d, "an empty message for nobody", r);
}

/* ---- called by the owner ---- */

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
