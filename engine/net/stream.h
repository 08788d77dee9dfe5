/*
 * stream -- a connected byte stream, plain or TLS, that owns its buffers (DESIGN.md 3.1).
 *
 * Reads go into one big buffer of the loop and are parsed in place; what on_data leaves is kept (at most read_max) and
 * offered again in front of what comes next. Writes are gathered and tried at once at flush with one writev; bodies go
 * by reference. At most 256 KiB a turn, then the stream re-activates itself.
 * All callbacks are asynchronous (never from inside a call of yours) and on the loop's thread. After hky_stream_close
 * no callback comes; the memory is freed at the end of the turn.
 */
#ifndef HKY_NET_STREAM_H
#define HKY_NET_STREAM_H

#include "base/buf.h"
#include "net/loop.h"
#include "net/tls.h"

#include <sys/socket.h>

struct hky_stream;

enum hky_stream_event {
    HKY_STREAM_CONNECTED, /* TCP is up (client) */
    HKY_STREAM_SECURED,   /* TLS handshake and verification done */
    HKY_STREAM_DRAINED,   /* everything handed to write is in the kernel (only after it was not) */
    HKY_STREAM_EOF,       /* the peer closed cleanly; kept octets, if any, will never be completed */
    /* Error in `e` (HKY_E_NET, HKY_E_TLS, HKY_E_TIMEOUT, HKY_E_LIMIT); close the stream now. After a time-out or a
       limit with nothing unsent, a last line (421) may be written before that. */
    HKY_STREAM_FAILED,
};

struct hky_stream_ops {
    /* n >= 1 octets at p, valid for the call. Returns how many were consumed; the rest is kept. May close. */
    size_t (*on_data)(void *ctx, const char *p, size_t n);
    void (*on_event)(void *ctx, enum hky_stream_event ev, const struct hky_error *e);
};

struct hky_stream_params {
    struct hky_loop *loop;
    const struct hky_stream_ops *ops;
    void *ctx;
    size_t read_max; /* most octets kept unconsumed (default 64 KiB); more end the stream with HKY_E_LIMIT */
};

/* Over an accepted descriptor (non-blocking is set; the stream owns it from now on). */
struct hky_stream *hky_stream_new(const struct hky_stream_params *params, int fd);
/* Connect to `to`, from `from` if not NULL; CONNECTED or FAILED follows. Set a deadline for its time-out. */
struct hky_stream *hky_stream_connect(const struct hky_stream_params *params, const struct sockaddr *to, socklen_t to_n,
                                      const struct sockaddr *from, socklen_t from_n);
void hky_stream_set_ops(struct hky_stream *s, const struct hky_stream_ops *ops,
                        void *ctx); /* hand over to another owner */

void hky_stream_write(struct hky_stream *s, const void *p, size_t n); /* copied */
/* Writes by reference. `release(arg)` is called once when the octets are no longer needed, also on close. That may
 * happen inside this call, flush or close, so it must not touch the stream. */
void hky_stream_write_ref(struct hky_stream *s, const void *p, size_t n, void (*release)(void *arg), void *arg);
void hky_stream_flush(struct hky_stream *s); /* tries to send now; happens by itself at the end of the turn, too */
size_t hky_stream_unsent(const struct hky_stream *s); /* octets accepted by write and not yet in the kernel */
/* All octets that have gone to the kernel so far; shows whether a dot may have been sent. */
uint64_t hky_stream_sent(const struct hky_stream *s);
uint64_t hky_stream_written(const struct hky_stream *s); /* all octets handed to write so far */

void hky_stream_pause(struct hky_stream *s);  /* no on_data until resume; the kernel's buffer fills */
void hky_stream_resume(struct hky_stream *s); /* kept octets are offered again, too */

/* One absolute deadline: FAILED with HKY_E_TIMEOUT comes after `after_ms`, unless it is set again or cleared (0). */
void hky_stream_set_deadline(struct hky_stream *s, int64_t after_ms);

/* Starts TLS. Unsent plain octets are sent first. If plain octets were received and not consumed, FAILED with HKY_E_TLS
 * follows (STARTTLS injection, in both roles). `name` is for clients: the name to verify and for SNI; NULL: none.
 * SECURED or FAILED follows. */
void hky_stream_start_tls(struct hky_stream *s, struct hky_tls *tls, const char *name);
bool hky_stream_is_secure(const struct hky_stream *s);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", followed by " resumed" for a resumed session; "" when plain. */
void hky_stream_tls_text(const struct hky_stream *s, char *out, size_t n);
/* The server's certificate, also one that was not accepted (until the stream is closed); false: none is known. */
bool hky_stream_tls_certificate(const struct hky_stream *s, struct hky_tls_certificate *out);
bool hky_stream_tls_is_verified(const struct hky_stream *s);

void hky_stream_peer(const struct hky_stream *s, char *out, size_t n); /* numeric address, no port */
void hky_stream_close(struct hky_stream **s); /* sends what the kernel takes now, close_notify; idempotent */
void hky_stream_cut(struct hky_stream **s);   /* like close, but sends nothing more */

#endif
