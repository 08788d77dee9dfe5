/*
 * The one place where a recipient changes state.
 */
#include "internal.h"

#define BIT(state) (1U << HKY_RCPT_##state)
#define ENDS       (BIT(FAILED) | BIT(EXPIRED) | BIT(CANCELLED))

/* From -> to. A delivery comes from a transaction alone; who is held moves by an operator's word; an end is the end. */
static const uint16_t EDGES[HKY_RCPT_STATE_N] = {
    [HKY_RCPT_QUEUED] = BIT(QUEUED) | BIT(SENDING) | BIT(PARKED) | BIT(UNDECIDED) | BIT(HELD) | ENDS,
    [HKY_RCPT_SENDING] = BIT(QUEUED) | BIT(HELD) | BIT(DELIVERED) | ENDS,
    [HKY_RCPT_PARKED] = BIT(PARKED) | BIT(QUEUED) | BIT(UNDECIDED) | BIT(HELD) | ENDS,
    [HKY_RCPT_UNDECIDED] = BIT(UNDECIDED) | BIT(QUEUED) | BIT(PARKED) | BIT(HELD) | ENDS,
    [HKY_RCPT_HELD] = BIT(HELD) | BIT(QUEUED) | BIT(CANCELLED),
};

bool recipient_may_enter(enum hky_recipient_state from, enum hky_recipient_state to)
{
    return (unsigned)from < HKY_RCPT_STATE_N && (unsigned)to < HKY_RCPT_STATE_N && (EDGES[from] >> to & 1U) != 0;
}

void recipient_enter(const struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state to)
{
    enum hky_recipient_state from = (enum hky_recipient_state)r->state;
    HKY_ASSERT(recipient_may_enter(from, to));
    r->state = (uint8_t)to;
    if (from != to && hky_log_is_on(sh->s->log, HKY_LOG_DEBUG)) {
        char id[HKY_ID_TEXT];
        hky_id_format(r->message->id, id);
        hky_log(sh->s->log, HKY_LOG_DEBUG, "recipient", "msg=%s index=%u state=\"%s -> %s\"", id, r->index,
                hky_recipient_state_name(from), hky_recipient_state_name(to));
    }
}
