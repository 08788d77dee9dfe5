/* The work of an open connection: it prepares the next message, writes its envelope, then its content. */
#include "deliver/outbound_internal.h"

#define OVERLAP_UNSENT (256 * 1024) /* with more of the body unsent, the next message is not taken yet */

static void refuse_one(void *ctx, unsigned i, const struct hky_delivery_obstacle *why)
{
    struct hky_outbound *c = ctx;
    struct hky_reply reply;
    hky_reply_local(&reply, HKY_ORIGIN_LOCAL, "%s", why->text);
    hky_outbound_report(c, c->bound, i, HKY_STAGE_RCPT, why->class, &reply);
}

static void begin(struct hky_outbound *c, struct hky_delivery *x)
{
    struct hky_delivery_obstacle why;
    c->bound = x;
    c->n_taken++;
    bool is_fit =
        hky_delivery_build_envelope(x, &c->dialogue.caps, c->params.relay->is_localpart_raw, &why, refuse_one, c);
    c->bound = NULL;
    if (is_fit) {
        x->mail_at_ms = hky_loop_now_ms(c->params.loop);
        x->mail_at = hky_stream_written(c->stream);
        hky_dialogue_begin(&c->dialogue, &x->txn);
        return;
    }
    struct hky_reply reply;
    hky_reply_local(&reply, HKY_ORIGIN_LOCAL, "%s", why.text);
    for (unsigned i = 0; i < x->txn.n; i++)
        if (x->txn.verdicts[i] == HKY_VERDICT_OPEN)
            hky_outbound_report(c, x, i, HKY_STAGE_MAIL, why.class, &reply);
    c->params.ops->done(c->params.ctx, c, x, false);
}

static enum hky_origin origin_of(const struct hky_error *e)
{
    return e->code == HKY_E_DAMAGED ? HKY_ORIGIN_SPOOL : HKY_ORIGIN_LOCAL;
}

/* No server caused the failure, and the message was not mentioned to any. */
static void fail_unprepared(struct hky_outbound *c, const struct hky_error *e)
{
    struct hky_delivery *x = c->bound;
    struct hky_reply reply;
    c->bound = NULL;
    c->n_taken++;
    hky_reply_local(&reply, origin_of(e), "%s", e->text);
    for (unsigned i = 0; i < x->txn.n; i++)
        if (x->txn.verdicts[i] != HKY_VERDICT_REPORTED)
            hky_outbound_report(c, x, i, HKY_STAGE_DATA, HKY_CLASS_SYSTEM_TEMP, &reply);
    c->params.ops->done(c->params.ctx, c, x, false);
}

enum hky_prepare hky_outbound_prepare(struct hky_outbound *c, struct hky_error *e)
{
    c->bound->on_piece = c->on_piece;
    c->bound->ctx = c;
    return hky_delivery_prepare(c->bound, e);
}

static bool may_take(struct hky_outbound *c)
{
    if (hky_outbound_is_retiring(c) || !hky_dialogue_can_begin(&c->dialogue) ||
        hky_stream_unsent(c->stream) > OVERLAP_UNSENT)
        return false;
    const struct hky_outbound_ops *ops = c->params.ops;
    return hky_dialogue_is_idle(&c->dialogue) || (ops->may_overlap != NULL && ops->may_overlap(c->params.ctx, c));
}

bool hky_outbound_send_next(struct hky_outbound *c)
{
    struct hky_error e;
    if (c->bound == NULL && may_take(c))
        c->bound = c->params.ops->next(c->params.ctx, c);
    if (c->bound == NULL || !hky_dialogue_can_begin(&c->dialogue))
        return false;
    switch (hky_outbound_prepare(c, &e)) {
    case HKY_PREPARE_WAIT:
        return false;
    case HKY_PREPARE_FAILED:
        fail_unprepared(c, &e);
        break;
    case HKY_PREPARE_READY:
        begin(c, c->bound);
        break;
    }
    return true;
}

bool hky_outbound_write_content(struct hky_outbound *c, struct hky_transaction *t)
{
    struct hky_error e;
    switch (hky_delivery_write(hky_outbound_delivery(t), c->stream, &c->scratch, &e)) {
    case HKY_WRITE_DONE:
        c->dot_end = hky_stream_written(c->stream);
        c->is_moved = true;
        hky_dialogue_content_written(&c->dialogue);
        return true;
    case HKY_WRITE_FAILED:
        /* Without a final dot the message does not count as sent; only closing the connection tells the server so. */
        hky_outbound_fail_local(c, HKY_STAGE_DATA, HKY_CLASS_SYSTEM_TEMP, origin_of(&e), "%s", e.text);
        return true;
    case HKY_WRITE_WAIT:
        break;
    }
    return false;
}
