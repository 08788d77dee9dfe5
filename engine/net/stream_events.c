/* Queues the work that a stream leaves for later in the loop, and reports events to its owner. */
#include "net/stream_internal.h"

void hky_stream_report(struct hky_stream *s, enum hky_stream_event ev, const struct hky_error *e)
{
    if (!s->is_closed)
        s->ops->on_event(s->ctx, ev, e);
}

void hky_stream_advance_at_end(struct hky_stream *s)
{
    if (s->is_end_queued)
        return;
    s->is_end_queued = true;
    hky_loop_defer(s->loop, &s->at_end);
}

void hky_stream_advance_next(struct hky_stream *s)
{
    if (s->is_next_queued)
        return;
    s->is_next_queued = true;
    hky_loop_defer_next(s->loop, &s->at_next);
}

void hky_stream_fail(struct hky_stream *s)
{
    s->is_failing = true;
    hky_stream_advance_at_end(s);
}
