/* What all files of a connection use: its state, and the ways in which something fails. */
#include "deliver/outbound_internal.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const state_names[] = {
#define X(id) #id,
    HKY_OUTBOUND_STATES(X)
#undef X
};

#define TO(s)       (1u << HKY_OUTBOUND_##s)
#define NEXT_TARGET (TO(RESOLVING) | TO(CONNECTING)) /* the next address, the next host */
static const uint16_t edges[HKY_OUTBOUND_N] = {
    [HKY_OUTBOUND_NEW] = TO(RESOLVING) | TO(CLOSED),
    [HKY_OUTBOUND_RESOLVING] = NEXT_TARGET | TO(CLOSED),
    [HKY_OUTBOUND_CONNECTING] = NEXT_TARGET | TO(OPENING) | TO(SECURING) | TO(CLOSED),
    [HKY_OUTBOUND_OPENING] = NEXT_TARGET | TO(SECURING) | TO(LOGIN) | TO(READY) | TO(CLOSED),
    [HKY_OUTBOUND_SECURING] = NEXT_TARGET | TO(OPENING) | TO(CLOSED),
    [HKY_OUTBOUND_LOGIN] = NEXT_TARGET | TO(READY) | TO(CLOSED),
    [HKY_OUTBOUND_READY] = TO(CLOSED),
    [HKY_OUTBOUND_CLOSED] = 0,
};
#undef NEXT_TARGET
#undef TO

void hky_outbound_enter(struct hky_outbound *c, enum hky_outbound_state s)
{
    HKY_ASSERT((edges[c->state] & (1u << s)) != 0);
    if (hky_log_is_on(c->params.log, HKY_LOG_DEBUG))
        hky_log(c->params.log, HKY_LOG_DEBUG, "connection", "relay=%s host=%s from=%s to=%s", c->params.relay->name,
                hky_outbound_host(c), state_names[c->state], state_names[s]);
    c->state = s;
}

const char *hky_outbound_host(const struct hky_outbound *c)
{
    return c->hosts[c->host_at].host;
}

struct hky_policy *hky_outbound_policy(const struct hky_outbound *c)
{
    return c->params.policy;
}

const struct hky_relay *hky_outbound_relay(const struct hky_outbound *c)
{
    return c->params.relay;
}

void *hky_outbound_ctx(const struct hky_outbound *c)
{
    return c->params.ctx;
}

const struct hky_capabilities *hky_outbound_caps(const struct hky_outbound *c)
{
    return &c->dialogue.caps;
}

bool hky_outbound_is_idle(const struct hky_outbound *c)
{
    return c->state == HKY_OUTBOUND_READY && c->bound == NULL && !hky_outbound_is_retiring(c) &&
           hky_dialogue_is_idle(&c->dialogue);
}

void hky_outbound_trace(struct hky_outbound *c, enum hky_stage stage, bool is_good, const char *text)
{
    if (c->params.ops->trace != NULL)
        c->params.ops->trace(c->params.ctx, c, stage, is_good, text);
}

void hky_outbound_trace_certificate(struct hky_outbound *c)
{
    struct hky_tls_certificate certificate;
    if (c->params.ops->certificate != NULL && hky_stream_tls_certificate(c->stream, &certificate))
        c->params.ops->certificate(c->params.ctx, c, &certificate);
}

bool hky_outbound_dot_has_left(const struct hky_outbound *c)
{
    return c->stream != NULL && hky_stream_sent(c->stream) >= c->dot_end;
}

void hky_outbound_fail(struct hky_outbound *c, enum hky_stage stage, enum hky_class class, bool is_out_of_step,
                       const struct hky_reply *reply)
{
    c->class = class;
    hky_dialogue_fail(&c->dialogue, stage, reply, hky_outbound_dot_has_left(c), is_out_of_step);
}

void hky_outbound_fail_local(struct hky_outbound *c, enum hky_stage stage, enum hky_class class, enum hky_origin origin,
                             const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct hky_reply reply;
    hky_reply_local(&reply, origin, "%s", text);
    hky_outbound_fail(c, stage, class, false, &reply);
}

/* Reports the better one of this answer and that of an earlier host. */
void hky_outbound_report(struct hky_outbound *c, struct hky_delivery *x, unsigned i, enum hky_stage stage,
                         enum hky_class class, const struct hky_reply *reply)
{
    struct hky_kept_answer *earlier = x->answers != NULL ? x->answers[i] : NULL;
    struct hky_kept_answer later = {.stage = stage, .class = class};
    bool is_final =
        class == HKY_CLASS_AMBIGUOUS || reply->code / 100 == 2 || (reply->code >= 500 && stage >= HKY_STAGE_MAIL);
    later.reply.code = reply->code;
    if (earlier != NULL && !is_final && hky_kept_answer_is_better(earlier, &later))
        c->params.ops->result(c->params.ctx, c, x, i, earlier->stage, earlier->class, &earlier->reply);
    else
        c->params.ops->result(c->params.ctx, c, x, i, stage, class, reply);
    hky_delivery_forget_answer(x, i);
}
