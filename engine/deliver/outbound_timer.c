/* Every wait has a time-out (RFC 5321 4.5.3.2); a write that makes progress does not time out. */
#include "deliver/outbound_internal.h"

#define IDLE_MS          30000
#define SLOWEST_PER_SEC  500  /* octets; a peer that takes less than this while we write has stalled */
#define QUIT_MS          3000 /* QUIT is only polite, and no other connection can be opened instead until then */
#define DEFAULT_GREETING 60000
#define DEFAULT_COMMAND  60000
#define DEFAULT_DATA     120000
#define DEFAULT_DOT      600000

uint32_t hky_outbound_wait_ms(const struct hky_outbound *c)
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

void hky_outbound_set_timer(struct hky_outbound *c)
{
    c->is_moved = false;
    c->timer_sent = c->stream != NULL ? hky_stream_sent(c->stream) : 0;
    c->timer_set_at_ms = hky_loop_now_ms(c->params.loop);
    hky_timer_set(&c->timer, hky_outbound_wait_ms(c));
}

bool hky_outbound_still_writes(struct hky_outbound *c)
{
    if (hky_stream_unsent(c->stream) == 0)
        return false;
    int64_t took_ms = hky_loop_now_ms(c->params.loop) - c->timer_set_at_ms;
    uint64_t sent = hky_stream_sent(c->stream) - c->timer_sent;
    return sent > 0 && sent * 1000 >= (uint64_t)(took_ms > 0 ? took_ms : 1) * SLOWEST_PER_SEC;
}
