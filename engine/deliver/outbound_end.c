/* How a connection, or its attempt at one target, ends: what the end says of the message, whether another target is
 * tried, and what the owner learns. */
#include "deliver/outbound_internal.h"

#include "mail/reply.h"

#include <stdlib.h>

static void dialogue_end(struct hky_outbound *c)
{
    if (c->login != NULL)
        c->login->connection = NULL; /* the secret was asked for by this dialogue, not by the next one */
    c->login = NULL;
    if (hky_outbound_is_talking(c)) {
        hky_dialogue_fini(&c->dialogue);
        hky_reply_reader_fini(&c->reader);
    }
    if (hky_outbound_dot_has_left(c))
        hky_stream_close(&c->stream);
    else
        hky_stream_cut(&c->stream); /* the message was reported as not sent, so its dot may not leave now */
}

static void on_free(struct hky_task *task)
{
    struct hky_outbound *c = HKY_CONTAINER(task, struct hky_outbound, free_task);
    hky_buf_fini(&c->scratch);
    hky_secret_unref(&c->token);
    hky_mask_fini(&c->mask);
    free(c->hosts);
    free(c->addrs);
    hky_policy_unref(&c->params.policy);
    hky_tls_unref(&c->params.tls);
    free(c);
}

static void let_go(struct hky_outbound *c)
{
    hky_dns_cancel(&c->query);
    hky_timer_cancel(&c->timer);
    dialogue_end(c);
    hky_outbound_enter(c, HKY_OUTBOUND_CLOSED);
}

/* No connection that can send could be made, so the bound delivery gets the outcome. */
static void fail_bound(struct hky_outbound *c, const struct hky_outbound_end *end)
{
    struct hky_delivery *x = c->bound;
    if (x == NULL)
        return;
    c->bound = NULL;
    if (end->was_open && c->n_taken > 0) { /* the delivery was still being prepared */
        c->params.ops->give_back(c->params.ctx, c, x, false);
        return;
    }
    if (c->params.ops->may_give_back != NULL && c->params.ops->may_give_back(c->params.ctx, c, end)) {
        c->params.ops->give_back(c->params.ctx, c, x, false);
        return;
    }
    for (unsigned i = 0; i < x->txn.n; i++)
        if (x->txn.verdicts[i] != HKY_VERDICT_REPORTED)
            hky_outbound_report(c, x, i, end->stage, end->class, end->reply);
    c->params.ops->done(c->params.ctx, c, x, false);
}

void hky_outbound_close(struct hky_outbound *c, const struct hky_outbound_end *end)
{
    fail_bound(c, end);
    let_go(c);
    hky_log(c->params.log, HKY_LOG_DEBUG, "closed", "relay=%s host=%s stage=%s sent=%u reply=\"%.*s\"",
            c->params.relay->name, hky_outbound_host(c), hky_stage_name(end->stage), c->n_taken, (int)end->reply->n,
            end->reply->text);
    c->params.ops->closed(c->params.ctx, c, end);
    c->free_task.run = on_free;
    hky_loop_defer(c->params.loop, &c->free_task);
}

/* A login that is refused, or that we lack something for, fails at every address alike. So this outcome also counts
 * more than that of an earlier address which could not be reached. */
static bool is_same_everywhere(const struct hky_outbound *c, enum hky_stage stage, const struct hky_reply *r)
{
    bool is_of_server = r->origin == HKY_ORIGIN_LOST || r->origin == HKY_ORIGIN_TIMEOUT || c->class == HKY_CLASS_N;
    if (stage != HKY_STAGE_AUTH)
        return false;
    return r->code == 0 ? !is_of_server : r->code >= 500 && !hky_reply_counts_connections(r);
}

/* May the next address or host be tried, because this one cannot be used (RFC 5321 5.1)? */
static bool may_try_next(const struct hky_outbound *c, enum hky_stage stage)
{
    return stage <= HKY_STAGE_AUTH && hky_outbound_has_more_targets(c, c->bound);
}

/* Of the answers of all targets that were tried, keeps the one that says most. */
static void keep_best_answer(struct hky_outbound *c, struct hky_outbound_end *end, struct hky_reply *reply)
{
    struct hky_kept_answer now = {.stage = end->stage, .class = end->class, .reply = *reply};
    if (c->best_answer.stage == HKY_STAGE_NONE || !hky_kept_answer_is_better(&c->best_answer, &now))
        c->best_answer = now;
    end->stage = c->best_answer.stage;
    end->class = c->best_answer.class;
    *reply = c->best_answer.reply;
}

void hky_outbound_conclude(struct hky_outbound *c)
{
    struct hky_reply reply = c->end_reply;
    /* Many servers close after a refusal, or answer the next mechanism with 421; then the refusal counts. */
    if (c->state == HKY_OUTBOUND_LOGIN && c->end.stage == HKY_STAGE_AUTH && reply.code < 500 &&
        hky_dialogue_is_login_refused(&c->dialogue)) {
        reply = c->dialogue.refusal;
        c->class = HKY_CLASS_N;
    }
    hky_mask_reply(&c->mask, &reply); /* some servers repeat the secret that they refuse */
    struct hky_outbound_end end = {
        .stage = c->end.stage,
        .class = c->class,
        .reply = &reply,
        .was_open = c->state == HKY_OUTBOUND_READY,
        .is_idle = c->end.is_idle,
        .is_out_of_step = c->end.is_out_of_step,
        .is_silent = c->is_silent,
        .is_broken = c->end.is_broken,
        .no_tls = c->is_plain && !c->params.is_plain,
    };
    if (c->is_full && !end.is_broken && !end.is_out_of_step)
        end.n_full = c->n_taken - c->end.n_given_back;
    c->end.kind = HKY_DIALOGUE_SEND;
    if (!end.was_open && end.stage == HKY_STAGE_TLS && reply.origin == HKY_ORIGIN_TLS && !c->is_plain &&
        c->params.relay->tls == HKY_TLS_OPPORTUNISTIC) {
        c->is_plain = true;
        hky_outbound_trace(c, HKY_STAGE_TLS, false, reply.text);
        dialogue_end(c);
        hky_outbound_same_target(c);
        return;
    }
    if (!end.was_open && end.stage == HKY_STAGE_AUTH && hky_outbound_wants_refresh(c)) {
        c->has_refreshed = true; /* the token may have been revoked before its time */
        dialogue_end(c);
        hky_outbound_same_target(c);
        return;
    }
    if (!end.was_open && !is_same_everywhere(c, end.stage, &reply)) {
        bool is_more = may_try_next(c, end.stage);
        keep_best_answer(c, &end, &reply);
        if (is_more) {
            dialogue_end(c);
            if (!hky_outbound_next_target(c))
                hky_outbound_conclude(c);
            return;
        }
    }
    hky_outbound_trace(c, end.stage, end.is_idle, reply.text);
    hky_outbound_close(c, &end);
}

void hky_outbound_abandon(struct hky_outbound **cp)
{
    struct hky_outbound *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    /* A message whose dot was sent may have arrived; the next start must not send it as if it had not been tried. */
    struct hky_transaction *t = hky_outbound_is_talking(c) ? c->dialogue.current : NULL;
    if (t != NULL && t->state == HKY_TRANSACTION_DOT && hky_outbound_dot_has_left(c))
        hky_outbound_fail_local(c, HKY_STAGE_NONE, HKY_CLASS_N, HKY_ORIGIN_LOST, "stopped before the server answered");
    let_go(c);
    c->free_task.run = on_free; /* `task` may still be queued, so the memory is freed later */
    hky_loop_defer(c->params.loop, &c->free_task);
}
