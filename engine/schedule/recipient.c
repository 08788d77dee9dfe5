/*
 * The state of a recipient, which only this file writes, the reason for it, and its end.
 */
#include "internal.h"

#include <stdlib.h>

#define BIT(state) (1U << HKY_RCPT_##state)
#define ENDS       (BIT(FAILED) | BIT(EXPIRED) | BIT(CANCELLED))

/* From -> to. Only one that is being sent can become delivered. Only operators move a held one. Nothing follows an end.
 */
static const uint16_t EDGES[HKY_RCPT_STATE_N] = {
    [HKY_RCPT_QUEUED] = BIT(QUEUED) | BIT(SENDING) | BIT(PARKED) | BIT(UNDECIDED) | BIT(HELD) | ENDS,
    [HKY_RCPT_SENDING] = BIT(QUEUED) | BIT(HELD) | BIT(DELIVERED) | ENDS,
    [HKY_RCPT_PARKED] = BIT(PARKED) | BIT(QUEUED) | BIT(UNDECIDED) | BIT(HELD) | ENDS,
    [HKY_RCPT_UNDECIDED] = BIT(UNDECIDED) | BIT(QUEUED) | BIT(PARKED) | BIT(HELD) | ENDS,
    [HKY_RCPT_HELD] = BIT(HELD) | BIT(QUEUED) | BIT(CANCELLED),
};

bool schedule_recipient_may_enter(enum hky_recipient_state from, enum hky_recipient_state to)
{
    return (unsigned)from < HKY_RCPT_STATE_N && (unsigned)to < HKY_RCPT_STATE_N && (EDGES[from] >> to & 1U) != 0;
}

void schedule_recipient_enter(const struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state to)
{
    enum hky_recipient_state from = (enum hky_recipient_state)r->state;
    HKY_ASSERT(schedule_recipient_may_enter(from, to));
    r->state = (uint8_t)to;
    if (from != to && hky_log_is_on(sh->s->log, HKY_LOG_DEBUG)) {
        char id[HKY_ID_TEXT];
        hky_id_format(r->message->id, id);
        hky_log(sh->s->log, HKY_LOG_DEBUG, "recipient", "msg=%s index=%u state=\"%s -> %s\"", id, r->index,
                hky_recipient_state_name(from), hky_recipient_state_name(to));
    }
}

void schedule_recipient_set_reason(struct hky_recipient *r, const char *why)
{
    free(r->reason);
    r->reason = why != NULL ? hky_strdup(why) : NULL;
}

void schedule_recipient_journal(struct hky_shard *sh, struct hky_recipient *r)
{
    hky_journal_attempt(sh->s->journal, r, NULL);
}

void schedule_recipient_journal_as(struct hky_shard *sh, const struct hky_recipient *r, enum hky_recipient_state state,
                                   char *why)
{
    struct hky_recipient next = *r;
    next.state = (uint8_t)state;
    next.reason = why;
    hky_journal_attempt(sh->s->journal, &next, NULL);
}

bool schedule_recipient_begin_plan(const struct hky_policy *policy, struct hky_recipient *r, int64_t at_ms)
{
    struct hky_advance a;
    hky_schedule_plan_first(policy, r, &a);
    if (a.action != HKY_ACTION_NEXT)
        return false;
    r->step = a.step;
    r->step_at_ms = at_ms;
    return true;
}

void schedule_recipient_enter_step(struct hky_recipient *r, uint8_t step, enum hky_class cause, int64_t now_ms)
{
    r->step = step;
    r->left_steps++;
    r->tries = 0;
    r->step_attempts = 0;
    r->ambiguous = 0;
    r->last_class = (uint8_t)cause;
    r->is_redirected = (r->plan->steps[step].on & HKY_CLASS_BIT(cause)) != 0;
    r->step_at_ms = now_ms;
    r->next_at_ms = now_ms;
}

/* The last attempt as an outcome, for a failure notice that is made later. */
static const struct hky_outcome *last_outcome(const struct hky_recipient *r, struct hky_outcome *o)
{
    unsigned n = hky_recipient_n_past(r);
    if (n == 0)
        return NULL;
    struct hky_past p;
    hky_recipient_past(r, n - 1, &p);
    memset(o, 0, sizeof *o);
    o->class = p.class;
    o->scope = p.scope;
    o->stage = p.stage;
    o->is_temporary = p.is_temporary;
    o->retry_after_sec = p.retry_after_sec;
    o->latency_ms = p.latency_ms;
    o->reply.code = p.code;
    o->reply.enhanced[0] = p.enhanced[0];
    o->reply.enhanced[1] = p.enhanced[1];
    o->reply.enhanced[2] = p.enhanced_detail < 256 ? (uint8_t)p.enhanced_detail : 0;
    o->reply.enhanced_detail = p.enhanced_detail;
    o->reply.n = (uint16_t)(p.reply.n < HKY_REPLY_TEXT ? p.reply.n : HKY_REPLY_TEXT - 1);
    memcpy(o->reply.text, p.reply.p, o->reply.n);
    return o;
}

void schedule_recipient_finish(struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state state,
                               const struct hky_outcome *o, const char *why, const struct job *job)
{
    static const enum hky_event_kind KIND[HKY_RCPT_STATE_N] = {
        [HKY_RCPT_DELIVERED] = HKY_EVENT_DELIVERED,
        [HKY_RCPT_FAILED] = HKY_EVENT_FAILED,
        [HKY_RCPT_EXPIRED] = HKY_EVENT_EXPIRED,
        [HKY_RCPT_CANCELLED] = HKY_EVENT_CANCELLED,
    };
    struct hky_outcome last;
    schedule_recipient_enter(sh, r, state);
    if (o == NULL && state != HKY_RCPT_CANCELLED)
        o = last_outcome(r, &last);
    if (why != NULL && state != HKY_RCPT_DELIVERED)
        schedule_recipient_set_reason(r, why);
    counter_add(r->message->is_notice         ? &sh->n.notices /* no client has sent it */
                : state == HKY_RCPT_DELIVERED ? &sh->n.delivered
                : state == HKY_RCPT_CANCELLED ? &sh->n.cancelled
                                              : &sh->n.failed,
                1);
    schedule_event_of_recipient(sh, KIND[state], r, &(struct event_details){.outcome = o, .job = job, .text = why});
    sh->s->ops->finish(sh->s->ops->ctx, sh->index, r, o);
}

/* The engine has decided this, not a server; the sender gets to know it in the same way. */
void schedule_recipient_fail_for_author(struct hky_shard *sh, struct hky_recipient *r)
{
    struct hky_outcome o = {.class = HKY_CLASS_SENDS_AS, .scope = HKY_SCOPE_SENDER};
    struct hky_str author = hky_message_fact(r->message, HKY_FACT_AUTHOR);
    hky_reply_local(&o.reply, HKY_ORIGIN_POLICY, "no step can send as %.*s", author.n < 200 ? (int)author.n : 200,
                    author.p);
    r->last_class = HKY_CLASS_SENDS_AS;
    schedule_recipient_finish(sh, r, HKY_RCPT_FAILED, &o, o.reply.text, NULL);
}
