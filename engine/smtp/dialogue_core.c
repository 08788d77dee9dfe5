/* What every part of the dialogue uses: its state, its queue of awaited replies, what a transaction reports, and how a
 * connection ends. */
#include "smtp/dialogue_internal.h"

#include "base/error.h"

#include <stdlib.h>

#define MARKS_FIRST 16

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
    struct hky_dialogue_mark *marks = hky_alloc(cap * sizeof(*marks));
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
        (struct hky_dialogue_mark){.txn = txn, .recipient = recipient, .expect = (uint8_t)e};
}

const struct hky_dialogue_mark *hky_dialogue_head(const struct hky_dialogue *d)
{
    return d->n_marks > 0 ? &d->marks[d->marks_at] : NULL;
}

struct hky_dialogue_mark hky_dialogue_take_mark(struct hky_dialogue *d)
{
    struct hky_dialogue_mark m = d->marks[d->marks_at];
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

void hky_dialogue_report(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, enum hky_stage stage,
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

void hky_dialogue_report_rest(struct hky_dialogue *d, struct hky_transaction *t, enum hky_stage stage,
                              const struct hky_reply *reply, bool is_ambiguous)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->verdicts[i] != HKY_VERDICT_REPORTED)
            hky_dialogue_report(d, t, i, stage, reply, is_ambiguous);
}

void hky_dialogue_end(struct hky_dialogue *d, struct hky_transaction *t, enum hky_dialogue_event_kind how)
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

/* ---- the end of a connection ---- */

/* Settles a transaction when the connection ends. True: it was given back. */
static bool settle(struct hky_dialogue *d, struct hky_transaction *t, enum hky_stage stage,
                   const struct hky_reply *reply, bool dot_left, bool is_out_of_step)
{
    bool is_open = t->state == HKY_TRANSACTION_ENVELOPE || t->state == HKY_TRANSACTION_CONTENT;
    /* A transaction that is not the connection's first and got no reply, or perhaps the reply to another one, ended
     * because of the connection, not because of its message. */
    bool is_elsewhere = t->ordinal > 1 && (!t->has_reply || (t->is_overlapped && is_out_of_step));
    if (is_open && (is_elsewhere || d->is_turned_away)) {
        hky_dialogue_end(d, t, HKY_DIALOGUE_GIVE_BACK);
        return true;
    }
    switch (t->state) {
    case HKY_TRANSACTION_ENVELOPE:
        hky_dialogue_report_rest(d, t, stage, reply, false);
        break;
    case HKY_TRANSACTION_CONTENT:
        hky_dialogue_report_rest(d, t, HKY_STAGE_DATA, reply, false);
        break;
    case HKY_TRANSACTION_DOT:
        hky_dialogue_report_rest(d, t, dot_left ? HKY_STAGE_DOT : HKY_STAGE_DATA, reply, dot_left);
        break;
    case HKY_TRANSACTION_VOID:
    case HKY_TRANSACTION_NEW:
    case HKY_TRANSACTION_DONE:
        break;
    }
    hky_dialogue_end(d, t, HKY_DIALOGUE_DONE);
    return false;
}

enum hky_stage hky_dialogue_stage_of(const struct hky_dialogue_mark *m)
{
    return (enum hky_stage)expect_stages[m->expect];
}

static enum hky_stage stage_of_txn(const struct hky_dialogue *d, const struct hky_transaction *t)
{
    for (unsigned i = 0; i < d->n_marks; i++) {
        const struct hky_dialogue_mark *m = &d->marks[(d->marks_at + i) & (d->marks_cap - 1)];
        if (m->txn == t)
            return hky_dialogue_stage_of(m);
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
    /* The state is CLOSED before the events are emitted, so that no event can start anything new. */
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
                                                      .is_unsendable = d->is_unsendable,
                                                      .n_given_back = n_given_back,
                                                      .is_out_of_step = is_out_of_step});
}

void hky_dialogue_misfit(struct hky_dialogue *d, const char *command, const struct hky_reply *reply)
{
    struct hky_reply local;
    if (command == NULL)
        hky_reply_local(&local, HKY_ORIGIN_LOCAL, "a reply that no command asked for: %u %.200s", reply->code,
                        reply->text);
    else
        hky_reply_local(&local, HKY_ORIGIN_LOCAL, "unexpected reply to %s: %u %.200s", command, reply->code,
                        reply->text);
    /* Before READY no message is under way, so nothing can be out of step. */
    hky_dialogue_finish(d, HKY_STAGE_NONE, &local, true, d->state >= HKY_DIALOGUE_READY);
}

enum hky_expect hky_dialogue_expects(const struct hky_dialogue *d)
{
    const struct hky_dialogue_mark *m = hky_dialogue_head(d);
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
