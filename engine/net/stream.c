#include "net/stream_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_MAX_DEFAULT = 64 * 1024, DRAIN_AT_CLOSE = 256 * 1024 };

static void finish_connect(struct hky_stream *s)
{
    int sys = 0;
    socklen_t n = sizeof sys;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &sys, &n) != 0)
        sys = errno;
    s->is_connecting = false;
    if (sys != 0) {
        hky_error_sys(&s->error, HKY_E_NET, sys, "cannot connect");
        s->is_failing = true;
        return;
    }
    s->owes_connected = true;
}

static void shake_hands(struct hky_stream *s)
{
    switch (hky_tls_link_handshake(s->link, &s->error)) {
    case HKY_TLS_DONE:
        s->is_secure = true;
        s->is_readable = true; /* application data may have come with the last flight */
        hky_stream_report(s, HKY_STREAM_SECURED, NULL);
        return;
    case HKY_TLS_AGAIN:
        if (hky_tls_link_is_doubtful(s->link))
            hky_stream_have_doubts(s);
        return;
    case HKY_TLS_EOF:
    case HKY_TLS_CUT:
        hky_error_set(&s->error, HKY_E_TLS, "the peer closed the connection during the TLS handshake");
        s->error.sys = ECONNRESET; /* the peer did not object to the handshake itself */
        break;
    case HKY_TLS_BAD:
        break;
    }
    s->is_failing = true;
}

/* Does everything that is possible now, in the order in which the owner should get the events. */
static void advance(struct hky_stream *s)
{
    if (s->is_connecting && s->is_writable)
        finish_connect(s);
    if (s->owes_connected && !s->is_failing) {
        s->owes_connected = false;
        hky_stream_report(s, HKY_STREAM_CONNECTED, NULL);
    }
    if (s->is_closed || s->is_connecting)
        return;
    if (!s->is_failing)
        hky_stream_write_some(s, HKY_TURN_OCTETS);
    if (s->link != NULL && !s->is_secure && s->plain_left == 0 && !s->is_failing && !s->is_broken) {
        shake_hands(s);
        if (s->is_closed)
            return;
        if (s->is_secure)
            hky_stream_write_some(s, HKY_TURN_OCTETS);
    }
    if (s->owes_drained && !s->is_failing) {
        s->owes_drained = false;
        if (s->out.octets == 0)
            hky_stream_report(s, HKY_STREAM_DRAINED, NULL);
    }
    hky_stream_read_some(s);
}

static void step(struct hky_stream *s)
{
    if (s->is_closed)
        return;
    if (s->is_over)
        hky_stream_flush(s); /* sends the last line, if one is allowed */
    else
        advance(s);
    if (!s->is_closed && s->is_failing && !s->is_over) {
        s->is_over = true;
        s->has_last = s->out.octets == 0 && (s->error.code == HKY_E_TIMEOUT || s->error.code == HKY_E_LIMIT);
        hky_timer_cancel(&s->deadline);
        hky_timer_cancel(&s->doubt);
        hky_stream_report(s, HKY_STREAM_FAILED, &s->error);
    }
}

static void stream_free(struct hky_stream *s)
{
    if (s->is_end_queued || s->is_next_queued)
        return; /* the one that runs last frees the memory */
    hky_tls_link_free(&s->link);
    free(s->kept);
    free(s);
}

static void on_end(struct hky_task *task)
{
    struct hky_stream *s = HKY_CONTAINER(task, struct hky_stream, at_end);
    s->is_end_queued = false;
    step(s);
    if (s->is_closed)
        stream_free(s);
}

static void on_next(struct hky_task *task)
{
    struct hky_stream *s = HKY_CONTAINER(task, struct hky_stream, at_next);
    s->is_next_queued = false;
    step(s);
    if (s->is_closed)
        stream_free(s);
}

static void on_edge(void *ctx, int bits)
{
    struct hky_stream *s = ctx;
    if (bits & HKY_HANGUP)
        s->is_hung_up = true;
    if (bits & (HKY_READABLE | HKY_HANGUP)) {
        s->is_readable = true;
        if (s->link != NULL)
            hky_tls_link_on_readable(s->link, s->is_hung_up);
    }
    if (bits & HKY_WRITABLE)
        s->is_writable = true;
    step(s);
}

static void on_deadline(struct hky_timer *timer)
{
    struct hky_stream *s = HKY_CONTAINER(timer, struct hky_stream, deadline);
    int64_t now = hky_loop_now_ms(s->loop);
    if (s->deadline_ms == 0 || s->is_over || s->is_failing)
        return;
    if (s->deadline_ms > now) {
        hky_timer_set(timer, s->deadline_ms - now);
        return;
    }
    hky_error_set(&s->error, HKY_E_TIMEOUT,
                  s->is_connecting                   ? "no connection within the time allowed"
                  : s->link != NULL && !s->is_secure ? "the TLS handshake took longer than allowed"
                                                     : "the peer took longer than allowed");
    hky_stream_fail(s);
}

static struct hky_stream *stream_alloc(const struct hky_stream_params *params, int fd)
{
    struct hky_stream *s = hky_calloc(1, sizeof *s);
    s->loop = params->loop;
    s->ops = params->ops;
    s->ctx = params->ctx;
    s->read_max = params->read_max > 0 ? params->read_max : READ_MAX_DEFAULT;
    s->fd = fd;
    s->at_end.run = on_end;
    s->at_next.run = on_next;
    hky_out_queue_init(&s->out, s->loop);
    hky_timer_init(&s->deadline, s->loop, on_deadline);
    hky_timer_init(&s->doubt, s->loop, hky_stream_on_doubt);
    return s;
}

static void no_delay(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
                     sizeof on); /* this fails on sockets that are not TCP, which does not matter */
}

struct hky_stream *hky_stream_new(const struct hky_stream_params *params, int fd)
{
    struct hky_stream *s = stream_alloc(params, fd);
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    no_delay(fd);
    s->is_writable = true;
    s->watch = hky_watch_new_edge(s->loop, fd, on_edge, s);
    return s;
}

static bool try_connect(struct hky_stream *s, const struct sockaddr *to, socklen_t to_n, const struct sockaddr *from,
                        socklen_t from_n)
{
    s->fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) {
        hky_error_sys(&s->error, HKY_E_NET, errno, "cannot make a socket");
        return false;
    }
    if (from != NULL) {
        int on = 1; /* the port is chosen at connect, so that one address can have many connections */
        (void)setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(s->fd, from, from_n) != 0) {
            hky_error_sys(&s->error, HKY_E_NET, errno, "cannot use the source address");
            return false;
        }
    }
    no_delay(s->fd);
    if (connect(s->fd, to, to_n) == 0) {
        s->owes_connected = s->is_writable = true;
    } else if (errno == EINPROGRESS) {
        s->is_connecting = true;
    } else {
        hky_error_sys(&s->error, HKY_E_NET, errno, "cannot connect");
        return false;
    }
    return true;
}

struct hky_stream *hky_stream_connect(const struct hky_stream_params *params, const struct sockaddr *to, socklen_t to_n,
                                      const struct sockaddr *from, socklen_t from_n)
{
    struct hky_stream *s = stream_alloc(params, -1);
    if (try_connect(s, to, to_n, from, from_n))
        s->watch = hky_watch_new_edge(s->loop, s->fd, on_edge, s);
    else
        s->is_failing = true;
    if (!s->is_connecting)
        hky_stream_advance_at_end(s);
    return s;
}

void hky_stream_set_ops(struct hky_stream *s, const struct hky_stream_ops *ops, void *ctx)
{
    s->ops = ops;
    s->ctx = ctx;
    /* The new owner is offered the octets that the old one left, if necessary after the old on_data has returned. */
    s->offer_kept = true;
    hky_stream_advance_at_end(s);
}

void hky_stream_pause(struct hky_stream *s)
{
    s->is_paused = true;
}

void hky_stream_resume(struct hky_stream *s)
{
    if (!s->is_paused)
        return;
    s->is_paused = false;
    s->offer_kept = true;
    hky_stream_advance_at_end(s);
}

void hky_stream_set_deadline(struct hky_stream *s, int64_t after_ms)
{
    if (after_ms <= 0 || s->is_closed || s->is_over) {
        s->deadline_ms = 0;
        return;
    }
    s->deadline_ms = hky_loop_now_ms(s->loop) + after_ms;
    if (!hky_timer_is_set(&s->deadline) || s->deadline.due_ms > s->deadline_ms)
        hky_timer_set(&s->deadline, after_ms);
}

void hky_stream_start_tls(struct hky_stream *s, struct hky_tls *tls, const char *name)
{
    HKY_ASSERT(s->link == NULL);
    if (s->is_closed || s->is_failing || s->is_broken)
        return;
    struct sockaddr_storage peer = {0};
    socklen_t n = sizeof peer;
    (void)getpeername(s->fd, (struct sockaddr *)&peer, &n);
    s->plain_left = s->out.octets;
    if (hky_tls_link_new(tls, s->fd, name, &peer, &s->link, &s->error) != HKY_OK) {
        hky_stream_fail(s);
        return;
    }
    hky_tls_link_on_readable(s->link, s->is_hung_up);
    if (s->n_kept > 0) {
        hky_error_set(&s->error, HKY_E_TLS, "the peer sent %zu octets in clear after STARTTLS", s->n_kept);
        hky_stream_fail(s);
        return;
    }
    hky_stream_advance_at_end(s);
}

bool hky_stream_is_secure(const struct hky_stream *s)
{
    return s->is_secure;
}

void hky_stream_tls_text(const struct hky_stream *s, char *out, size_t n)
{
    if (s->is_secure)
        hky_tls_link_text(s->link, out, n);
    else if (n > 0)
        out[0] = 0;
}

bool hky_stream_tls_certificate(const struct hky_stream *s, struct hky_tls_certificate *out)
{
    return s->link != NULL && hky_tls_link_certificate(s->link, out);
}

bool hky_stream_tls_is_verified(const struct hky_stream *s)
{
    return s->is_secure && hky_tls_link_is_verified(s->link);
}

void hky_stream_peer(const struct hky_stream *s, char *out, size_t n)
{
    struct sockaddr_storage ss = {0};
    socklen_t ss_n = sizeof ss;
    if (n == 0)
        return;
    out[0] = 0;
    if (s->fd < 0 || getpeername(s->fd, (struct sockaddr *)&ss, &ss_n) != 0)
        return;
    if (ss.ss_family == AF_UNIX) {
        snprintf(out, n, "unix");
        return;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
    if (ss.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = in6->sin6_port};
        memcpy(&in4.sin_addr, &in6->sin6_addr.s6_addr[12], sizeof in4.sin_addr);
        memcpy(&ss, &in4, sizeof in4);
        ss_n = sizeof in4;
    }
    if (getnameinfo((struct sockaddr *)&ss, ss_n, out, (socklen_t)n, NULL, 0, NI_NUMERICHOST) != 0)
        out[0] = 0;
}

void hky_stream_cut(struct hky_stream **at)
{
    if (*at != NULL)
        (*at)->is_broken = true;
    hky_stream_close(at);
}

void hky_stream_close(struct hky_stream **at)
{
    struct hky_stream *s = *at;
    if (s == NULL)
        return;
    *at = NULL;
    if (s->is_closed)
        return;
    if (hky_stream_can_send(s) && s->out.octets > 0 && s->fd >= 0)
        hky_stream_write_some(s, s->out.octets > HKY_TURN_OCTETS ? s->out.octets : HKY_TURN_OCTETS);
    if (s->is_secure && hky_stream_can_send(s))
        hky_tls_link_shut(s->link);
    s->is_closed = true;
    hky_timer_cancel(&s->deadline);
    hky_timer_cancel(&s->doubt);
    hky_watch_free(&s->watch);
    if (s->fd >= 0) {
        /* Octets that were never read would make the kernel send a reset, which can destroy the last reply before the
         * peer reads it. */
        if (s->is_readable)
            (void)recv(s->fd, NULL, DRAIN_AT_CLOSE, MSG_TRUNC | MSG_DONTWAIT);
        close(s->fd);
        s->fd = -1;
    }
    hky_out_queue_fini(&s->out);
    hky_stream_advance_at_end(s);
}
