#include "net/stream_internal.h"

#include <errno.h>

enum { IOV_AT_ONCE = 64 };

static void count_sent(struct hky_stream *s, size_t n)
{
    hky_out_queue_drop(&s->out, n);
    s->sent += n;
    if (s->plain_left > 0)
        s->plain_left -= n;
}

/* Nothing more can be sent, but what the peer sent before it closed may explain why, so that is read first. */
static void on_broken(struct hky_stream *s)
{
    s->is_broken = s->is_readable = s->is_hung_up = true;
    s->is_writable = false;
    if (s->link != NULL) {
        if (!s->is_secure)
            s->is_failing = true;
        hky_tls_link_on_readable(s->link, true);
    }
    if (s->is_paused || s->is_eof)
        s->is_failing = true;
    hky_stream_advance_at_end(s);
}

/* Octets sent, 0 when the kernel takes none now or the connection broke. */
static size_t send_plain(struct hky_stream *s, size_t max)
{
    struct iovec iov[IOV_AT_ONCE];
    struct msghdr msg = {.msg_iov = iov};
    msg.msg_iovlen = hky_out_queue_iov(&s->out, iov, IOV_AT_ONCE, max);
    size_t asked = 0;
    for (size_t i = 0; i < msg.msg_iovlen; i++)
        asked += iov[i].iov_len;
    ssize_t r;
    do
        r = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    if (r < 0) {
        s->is_writable = false;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        hky_error_sys(&s->error, HKY_E_NET, errno, "writing to the peer failed");
        on_broken(s);
        return 0;
    }
    if ((size_t)r < asked)
        s->is_writable = false;
    return (size_t)r;
}

static size_t send_secure(struct hky_stream *s)
{
    size_t n, done = 0;
    const char *p = hky_out_queue_front(&s->out, hky_loop_staging(s->loop), HKY_STAGING_OCTETS, &n);
    switch (hky_tls_link_write(s->link, p, n, &done, &s->error)) {
    case HKY_TLS_DONE:
        return done;
    case HKY_TLS_AGAIN:
        s->is_writable = false;
        return 0;
    case HKY_TLS_EOF:
    case HKY_TLS_CUT:
        hky_error_set(&s->error, HKY_E_NET, "writing to the peer failed: it closed the connection");
        break;
    case HKY_TLS_BAD:
        break;
    }
    on_broken(s);
    return 0;
}

bool hky_stream_can_send(const struct hky_stream *s)
{
    return !s->is_closed && !s->is_broken && (!s->is_failing || s->has_last);
}

static bool can_write(const struct hky_stream *s)
{
    return s->is_writable && !s->is_connecting && hky_stream_can_send(s) && s->out.octets > 0 &&
           (s->link == NULL || s->is_secure || s->plain_left > 0);
}

void hky_stream_write_some(struct hky_stream *s, size_t budget)
{
    while (budget > 0 && can_write(s)) {
        size_t max = s->plain_left > 0 && s->plain_left < budget ? s->plain_left : budget;
        size_t n = s->link == NULL || s->plain_left > 0 ? send_plain(s, max) : send_secure(s);
        if (n == 0)
            break;
        count_sent(s, n);
        budget = n < budget ? budget - n : 0;
    }
    if (s->out.octets > 0) {
        s->was_full = true;
        if (can_write(s) && !s->is_closed)
            hky_stream_advance_next(s);
    } else if (s->was_full) {
        s->was_full = false;
        s->owes_drained = true;
        hky_stream_advance_at_end(s);
    }
}

void hky_stream_write(struct hky_stream *s, const void *p, size_t n)
{
    if (n == 0 || !hky_stream_can_send(s))
        return;
    hky_out_queue_add(&s->out, p, n);
    s->written += n;
    hky_stream_advance_at_end(s);
}

void hky_stream_write_ref(struct hky_stream *s, const void *p, size_t n, void (*release)(void *arg), void *arg)
{
    if (!hky_stream_can_send(s)) {
        if (release != NULL)
            release(arg);
        return;
    }
    hky_out_queue_add_ref(&s->out, p, n, release, arg);
    s->written += n;
    hky_stream_advance_at_end(s);
}

void hky_stream_flush(struct hky_stream *s)
{
    if (!s->is_closed && s->out.octets > 0)
        hky_stream_write_some(s, HKY_TURN_OCTETS);
}

size_t hky_stream_unsent(const struct hky_stream *s)
{
    return s->out.octets;
}

uint64_t hky_stream_sent(const struct hky_stream *s)
{
    return s->sent;
}

uint64_t hky_stream_written(const struct hky_stream *s)
{
    return s->written;
}
