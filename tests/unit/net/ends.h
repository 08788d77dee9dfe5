/*
 * ends -- two streams that speak to each other: what happened to each is a string of letters. After cmocka.h.
 */
#ifndef TEST_NET_ENDS_H
#define TEST_NET_ENDS_H

#include "net/stream.h"

#include <string.h>

/* Appends the event's letter: connected, secured, drained, eof, failed. */
static inline void ends_note(char *events, size_t max, enum hky_stream_event ev)
{
    static const char letters[] = {[HKY_STREAM_CONNECTED] = 'c',
                                   [HKY_STREAM_SECURED] = 's',
                                   [HKY_STREAM_DRAINED] = 'd',
                                   [HKY_STREAM_EOF] = 'e',
                                   [HKY_STREAM_FAILED] = 'f'};
    size_t n = strlen(events);

    assert_true(n + 1 < max);
    events[n] = letters[ev];
}

static inline struct hky_stream *ends_stream(struct hky_loop *loop, const struct hky_stream_ops *ops, void *ctx, int fd)
{
    struct hky_stream_params p = {.loop = loop, .ops = ops, .ctx = ctx};

    return hky_stream_new(&p, fd);
}

static inline void turns(struct hky_loop *loop, int n)
{
    for (int i = 0; i < n; i++)
        hky_loop_turn(loop, 0);
}

#endif
