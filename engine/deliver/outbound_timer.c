/* Every wait has a time-out (RFC 5321 4.5.3.2); a write that goes on is no wait. */
#include "deliver/outbound_internal.h"

#define IDLE_MS          30000
#define SLOWEST_PER_SEC  500  /* octets; a peer that takes less than this while we write has stalled */
#define QUIT_MS          3000 /* politeness; the slot is wanted */
#define DEFAULT_GREETING 60000
#define DEFAULT_COMMAND  60000
#define DEFAULT_DATA     120000
#define DEFAULT_DOT      600000

static uint32_t wait_ms(const struct hky_outbound *c)
{
    const struct hky_relay_timeouts *t = &c->params.relay->timeout;
    if (hky_dialogue_content(&c->dialogue) != NULL)
        return hky_outbound_or_default(t->data_ms, DEFAULT_DATA);
    switch (hky_dialogue_expects(&c->dialogue)) {
    case HKY_EXPECT_GREETING:
        return hky_outbound_or_default(t->greeting_ms, DEFAULT_GREETING);
    case HKY_EXPECT_DATA:
        return hky_outbound_or_default(t->data_ms, DEFAULT_DATA);
    case HKY_EXPECT_DOT:
        return hky_outbound_or_default(t->dot_ms, DEFAULT_DOT);
    case HKY_EXPECT_QUIT:
        return QUIT_MS;
    case HKY_EXPECT_NOTHING:
        if (hky_dialogue_is_idle(&c->dialogue))
            return hky_outbound_or_default(c->params.idle_ms, IDLE_MS);
        break;
    default:
        break;
    }
    return hky_outbound_or_default(t->command_ms, DEFAULT_COMMAND);
}

void hky_outbound_arm(struct hky_outbound *c)
{
    c->is_moved = false;
    c->sent_at_arming = c->stream != NULL ? hky_stream_sent(c->stream) : 0;
    c->armed_at_ms = hky_loop_now_ms(c->params.loop);
    hky_timer_set(&c->timer, wait_ms(c));
}

static bool is_writing_on(struct hky_outbound *c)
{
    if (hky_stream_unsent(c->stream) == 0)
        return false;
    int64_t took_ms = hky_loop_now_ms(c->params.loop) - c->armed_at_ms;
    uint64_t sent = hky_stream_sent(c->stream) - c->sent_at_arming;
    return sent > 0 && sent * 1000 >= (uint64_t)(took_ms > 0 ? took_ms : 1) * SLOWEST_PER_SEC;
}

void hky_outbound_on_timer(struct hky_timer *timer)
{
    struct hky_outbound *c = HKY_CONTAINER(timer, struct hky_outbound, timer);
    struct hky_reply reply;
    if (c->state == HKY_OUTBOUND_CLOSED)
        return;
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
    if (is_writing_on(c)) {
        hky_outbound_arm(c);
        return;
    }
    bool is_group = c->dialogue.n_marks > 1 && hky_dialogue_expects(&c->dialogue) != HKY_EXPECT_DOT;
    hky_reply_local(&reply, HKY_ORIGIN_TIMEOUT, "timed out after %u s: %s", wait_ms(c) / 1000,
                    hky_stream_unsent(c->stream) > 0 ? "the server stopped reading" : "no reply");
    hky_outbound_fail(c, HKY_STAGE_NONE, HKY_CLASS_N, is_group, &reply);
    hky_outbound_pump(c);
}
