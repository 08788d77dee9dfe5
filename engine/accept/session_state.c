/* What all parts of a session use: entering a state, replying, counting an error, ending. */
#include "accept/session_internal.h"

#include <stdarg.h>
#include <stdio.h>

static const unsigned edges[HKY_SESSION_N] = {
#define B(id)       (1u << HKY_SESSION_##id)
#define X(id, next) [HKY_SESSION_##id] = (next),
    HKY_SESSION_STATES(X)
#undef X
};
#undef B

void accept_session_enter(struct accept_session *s, enum accept_session_state to)
{
    HKY_ASSERT(edges[s->state] & 1u << to);
    s->state = to;
}

void accept_session_say(struct accept_session *s, int code, const char *enhanced, struct hky_str text)
{
    char line[HKY_REPLY_MAX];
    const char *end = line + sizeof line - 2;
    char *at = hky_decimal_padded(line, (unsigned)code, 3);

    *at++ = ' ';
    at = hky_str_put(at, end, hky_str_z(enhanced));
    if (enhanced[0] != '\0')
        *at++ = ' ';
    at = hky_str_put(at, end, text);
    memcpy(at, "\r\n", 2);
    s->p.ops->write(s->p.ctx, line, (size_t)(at + 2 - line));
}

static void reply_v(struct accept_session *s, int code, const char *enhanced, const char *fmt, va_list ap)
{
    char text[HKY_REPLY_MAX];
    int n = vsnprintf(text, sizeof text, fmt, ap);

    accept_session_say(s, code, enhanced,
                       hky_str_of(text, n < 0                     ? 0
                                        : (size_t)n < sizeof text ? (size_t)n
                                                                  : sizeof text - 1));
}

void accept_session_reply(struct accept_session *s, int code, const char *enhanced, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    reply_v(s, code, enhanced, fmt, ap);
    va_end(ap);
}

void accept_session_error(struct accept_session *s, int code, const char *enhanced, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    reply_v(s, code, enhanced, fmt, ap);
    va_end(ap);
    if (++s->n_errors >= s->p.policy->engine.bounds.errors)
        accept_session_close(s, "4.7.0", "too many errors; goodbye");
}

void accept_session_refuse(struct accept_session *s, struct hky_str sender, struct hky_str rcpt, int code,
                           const char *enhanced, const char *fmt, ...)
{
    char text[256], reply[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(reply, sizeof reply, "%d %s %s", code, enhanced, text);
    s->p.ops->refused(s->p.ctx, sender, rcpt, reply);
    if (code / 100 == 4)
        accept_session_reply(s, code, enhanced, "%s", text);
    else
        accept_session_error(s, code, enhanced, "%s", text);
}

void accept_session_tx_free(struct accept_session *s)
{
    hky_letter_free(&s->tx.letter);
    s->waits &= (uint8_t)~HKY_WAIT_BIG;
}

struct hky_str accept_session_sender(const struct accept_session *s)
{
    return s->tx.letter != NULL ? hky_letter_sender(s->tx.letter) : HKY_STR("");
}

void accept_session_close(struct accept_session *s, const char *enhanced, const char *text)
{
    if (s->state == HKY_SESSION_CLOSED)
        return;
    if (text != NULL)
        accept_session_reply(s, 421, enhanced, "%s %s", s->p.policy->engine.hostname, text);
    accept_session_enter(s, HKY_SESSION_CLOSED);
    accept_session_tx_free(s);
    accept_auth_free(&s->auth);
    s->p.ops->close(s->p.ctx);
}

void accept_session_tx_reset(struct accept_session *s)
{
    accept_session_tx_free(s);
    if (s->state == HKY_SESSION_CONNECTED || s->state == HKY_SESSION_CLOSED)
        return;
    accept_session_enter(s, HKY_SESSION_READY);
    if (s->is_draining)
        accept_session_close(s, "4.3.2", "is going down; try again");
}

bool accept_session_may_send(const struct accept_session *s)
{
    return s->user != NULL || s->p.is_allowed || (s->p.is_loopback && s->p.listen->n_users == 0);
}

bool accept_session_is_trusted(const struct accept_session *s)
{
    return s->user != NULL || s->p.is_allowed || s->p.is_loopback;
}

bool accept_session_offers_auth(const struct accept_session *s)
{
    return s->p.listen->n_users > 0 && s->user == NULL && (s->p.is_secure || s->p.is_loopback);
}
