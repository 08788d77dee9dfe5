#include "net/stream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DOUBT_MS 100 /* a reset that came together with octets is noticed within twice this time */

/* The result of one attempt to get octets. */
enum got { GOT_SOME, GOT_NOTHING, GOT_EOF, GOT_CUT, GOT_ERROR };

/* To read until EAGAIN would cost one more system call for each read, which is half as many again for a message. A
 * connection with traffic notices a reset at its next call, so only one that falls silent is read once more. */
void hky_stream_have_doubts(struct hky_stream *s)
{
    s->is_readable = false;
    s->doubted_ms = hky_loop_now_ms(s->loop);
    if (!hky_timer_is_set(&s->doubt))
        hky_timer_set(&s->doubt, DOUBT_MS);
}

void hky_stream_on_doubt(struct hky_timer *timer)
{
    struct hky_stream *s = HKY_CONTAINER(timer, struct hky_stream, doubt);
    int64_t rest_ms = s->doubted_ms + DOUBT_MS - hky_loop_now_ms(s->loop);

    if (s->is_closed || s->is_over || s->is_eof)
        return;
    if (rest_ms > 0) {
        hky_timer_set(timer, rest_ms);
        return;
    }
    s->is_readable = true;
    if (s->link != NULL)
        hky_tls_link_on_readable(s->link, s->is_hung_up);
    hky_stream_advance_at_end(s);
}

static enum got get_plain(struct hky_stream *s, char *p, size_t cap, size_t *n)
{
    ssize_t r;
    do
        r = recv(s->fd, p, cap, 0);
    while (r < 0 && errno == EINTR);
    if (r > 0) {
        *n = (size_t)r;
        if (*n < cap && !s->is_hung_up)
            hky_stream_have_doubts(s);
        return GOT_SOME;
    }
    s->is_readable = false;
    if (r == 0)
        return GOT_EOF;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return GOT_NOTHING;
    hky_error_sys(&s->error, HKY_E_NET, errno, "reading from the peer failed");
    return GOT_ERROR;
}

static enum got get_secure(struct hky_stream *s, char *p, size_t cap, size_t *n)
{
    switch (hky_tls_link_read(s->link, p, cap, n, &s->error)) {
    case HKY_TLS_DONE:
        return GOT_SOME;
    case HKY_TLS_AGAIN:
        s->is_readable = false;
        if (hky_tls_link_is_doubtful(s->link))
            hky_stream_have_doubts(s);
        return GOT_NOTHING;
    case HKY_TLS_EOF:
        s->is_readable = false;
        return GOT_EOF;
    case HKY_TLS_CUT:
        s->is_readable = false;
        return GOT_CUT;
    case HKY_TLS_BAD:
        break;
    }
    s->is_readable = false;
    return GOT_ERROR;
}

static bool can_read(const struct hky_stream *s)
{
    return !s->is_closed && !s->is_over && !s->is_eof && !s->is_failing && !s->is_paused &&
           (s->link == NULL || s->is_secure);
}

/* Offers `have` octets to the owner and moves those that are left to the front. Returns how many are left. */
static size_t offer(struct hky_stream *s, char *p, size_t have)
{
    bool was_plain = s->link == NULL;
    size_t used = s->ops->on_data(s->ctx, p, have);
    if (s->is_closed)
        return 0;
    HKY_ASSERT(used <= have);
    size_t left = have - used;
    if (left > 0 && was_plain && s->link != NULL) {
        hky_error_set(&s->error, HKY_E_TLS, "the peer sent %zu octets in clear after STARTTLS", left);
        hky_stream_fail(s);
        return 0;
    }
    if (left > s->read_max && can_read(s)) {
        hky_error_set(&s->error, HKY_E_LIMIT, "the peer sent more than %zu octets that cannot be used", s->read_max);
        hky_stream_fail(s);
        return 0;
    }
    if (left > 0 && used > 0)
        memmove(p, p + used, left);
    return left;
}

static void keep(struct hky_stream *s, const char *p, size_t n)
{
    free(s->kept);
    s->kept = NULL;
    if (n > 0) {
        s->kept = hky_alloc(n);
        memcpy(s->kept, p, n);
    }
    s->n_kept = n;
}

static void finish(struct hky_stream *s, enum got got)
{
    if (s->is_broken || got == GOT_ERROR) { /* after a failed write, too: everything that could be read was read */
        hky_stream_fail(s);
        return;
    }
    if (got == GOT_CUT && s->n_kept > 0) {
        hky_error_set(&s->error, HKY_E_TLS, "the peer ended the connection in the middle, without TLS close_notify");
        hky_stream_fail(s);
        return;
    }
    s->is_eof = true;
    hky_stream_report(s, HKY_STREAM_EOF, NULL);
}

void hky_stream_read_some(struct hky_stream *s)
{
    if (!can_read(s) || (!s->is_readable && !s->offer_kept))
        return;
    size_t cap, have = s->n_kept, total = 0;
    char *p = hky_loop_scratch(s->loop, have + HKY_TURN_OCTETS, &cap);
    enum got got = GOT_NOTHING;
    if (have > 0)
        memcpy(p, s->kept, have);
    /* The kept octets are being offered now: start_tls inside on_data must not count them as kept. */
    s->n_kept = 0;
    bool offer_kept = s->offer_kept;
    s->offer_kept = false; /* cleared before on_data, because resume or a new owner inside on_data may set it again */
    if (offer_kept && have > 0)
        have = offer(s, p, have);
    while (can_read(s) && s->is_readable && total < HKY_TURN_OCTETS && have < cap) {
        size_t n = 0;
        got = s->link == NULL ? get_plain(s, p + have, cap - have, &n) : get_secure(s, p + have, cap - have, &n);
        if (got != GOT_SOME)
            break;
        total += n;
        have = offer(s, p, have + n);
    }
    if (s->is_closed)
        return;
    keep(s, p, s->is_failing ? 0 : have);
    if (got == GOT_EOF || got == GOT_CUT || got == GOT_ERROR || (got == GOT_NOTHING && s->is_broken && can_read(s)))
        finish(s, got);
    else if (can_read(s) && s->is_readable)
        hky_stream_advance_next(s);
}
