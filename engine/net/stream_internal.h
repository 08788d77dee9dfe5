/*
 * stream_internal -- what the parts of a stream share. Each uses only those after it: stream.c (life, order of events),
 * stream_read.c, stream_write.c, stream_events.c. net/ only.
 */
#ifndef HKY_NET_STREAM_INTERNAL_H
#define HKY_NET_STREAM_INTERNAL_H

#include "net/out_queue.h"
#include "net/stream.h"
#include "net/tls_link.h"

struct hky_stream {
    struct hky_loop *loop;
    const struct hky_stream_ops *ops;
    void *ctx;
    size_t read_max;
    int fd;
    struct hky_watch *watch;
    struct hky_timer deadline;
    int64_t deadline_ms; /* 0: none; the timer itself is left alone when a deadline is cleared */

    /* The socket. Edges are remembered here until a call says EAGAIN, or a short read that the socket is empty. A reset
     * that came with these octets has no edge of its own: where nothing follows a short read, `doubt` looks again. */
    bool is_connecting, is_readable, is_writable, is_hung_up;
    struct hky_timer doubt;
    int64_t doubted_ms; /* when the last short read was; the timer itself is left alone while reads go on */
    /* Events that the owner must still get, in this order. */
    bool owes_connected, owes_drained;
    bool is_failing; /* FAILED with `error` must still be reported */
    bool is_eof;     /* EOF was reported, nothing more is read */
    bool is_over;    /* FAILED was reported */
    bool has_last;   /* after a time-out or a limit with nothing unsent, a last line may still be written */
    bool is_broken;  /* writing has failed: `error` is reported once everything that the peer had sent is read */
    bool is_closed;
    bool is_paused, offer_kept;
    bool was_full; /* octets did not fit into the kernel: DRAINED follows */
    bool is_end_queued, is_next_queued;
    struct hky_task at_end, at_next; /* at the end of this turn; in the next one */

    char *kept; /* octets that on_data did not consume; NULL: none */
    size_t n_kept;
    struct hky_out_queue out;
    uint64_t sent, written;

    struct hky_tls_link *link; /* NULL: plain */
    bool is_secure;
    size_t plain_left; /* octets written before start_tls, which are sent before the handshake */
    struct hky_error error;
};

void hky_stream_advance_at_end(struct hky_stream *s); /* advances the stream when the turn ends */
void hky_stream_advance_next(struct hky_stream *s);
/* Calls the owner's on_event, unless the stream is closed. */
void hky_stream_report(struct hky_stream *s, enum hky_stream_event ev, const struct hky_error *e);
/* Reports `s->error`, which the caller has filled, and stops everything. */
void hky_stream_fail(struct hky_stream *s);

/* Reads what a turn allows and offers it to the owner. */
void hky_stream_read_some(struct hky_stream *s);
void hky_stream_have_doubts(struct hky_stream *s); /* after a short read */
void hky_stream_on_doubt(struct hky_timer *timer);
bool hky_stream_can_send(const struct hky_stream *s); /* may octets still be sent? */
/* Writes at most `budget` octets of what is queued. */
void hky_stream_write_some(struct hky_stream *s, size_t budget);

#endif
