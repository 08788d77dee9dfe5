/* outbound_internal -- what the files of a connection share. */
#ifndef HKY_DELIVER_OUTBOUND_INTERNAL_H
#define HKY_DELIVER_OUTBOUND_INTERNAL_H

#include "deliver/mask.h"
#include "deliver/outbound.h"
#include "deliver/prepare.h"
#include "mail/reply.h"

/* Where a connection is. The dialogue has states of its own within OPENING to READY. */
#define HKY_OUTBOUND_STATES(X)                                                                                         \
    X(NEW)        /* made; it starts at the end of this turn of the loop */                                            \
    X(RESOLVING)  /* the addresses of a host are asked for */                                                          \
    X(CONNECTING) /* TCP */                                                                                            \
    X(OPENING)    /* greeting and EHLO */                                                                              \
    X(SECURING)   /* the TLS handshake is about to begin, or under way */                                              \
    X(LOGIN)      /* the credential is fetched, or AUTH is under way */                                                \
    X(READY)      /* it sends one message after the other */                                                           \
    X(CLOSED)     /* only the memory is left */
enum hky_outbound_state {
#define X(id) HKY_OUTBOUND_##id,
    HKY_OUTBOUND_STATES(X)
#undef X
        HKY_OUTBOUND_N
};

struct hky_outbound {
    struct hky_outbound_params params;
    struct hky_dns_mx *hosts;
    unsigned host_at, addr_at;
    struct hky_dns_addr_answer *addrs;
    struct hky_dns_query query;
    struct hky_stream *stream;
    struct hky_dialogue dialogue;
    struct hky_reply_reader reader;
    struct hky_timer timer;
    struct hky_task task; /* begin, start TLS */
    struct hky_task free_task;
    const struct hky_stream_ops *stream_ops;
    void (*on_piece)(void *ctx, struct hky_delivery *x); /* set in deliveries that wait */
    struct hky_delivery *bound;
    struct hky_buf scratch; /* rewritten headers */
    struct hky_outbound_login_wait *login;
    struct hky_secret *token; /* the last one tried */
    struct hky_mask mask;     /* the tokens that were tried, and what was sent to log in */
    enum hky_auth auth;
    uint32_t auths_tried; /* by this dialogue; bits 1 << hky_auth */
    uint64_t dot_end;     /* octets of the stream that end with the newest dot */
    uint64_t timer_sent;  /* octets of the stream that were sent when the timer was set */
    int64_t timer_set_at_ms;
    int64_t done_at_ms; /* when the last message ended */
    enum hky_outbound_state state;
    uint32_t n_taken, most; /* messages; with `most` taken it says QUIT */
    bool is_pumping;        /* pump is on the stack, so events that come meanwhile do not call it again */
    bool is_moved;          /* there was progress since the timer was set */
    bool is_silent;         /* commands sent together got no reply, or too few, in time */
    bool is_full;           /* a message was given back although the one before it had only just been answered */
    /* What the attempts at targets so far have shown. */
    bool is_plain;        /* TLS that is only opportunistic failed */
    bool has_refreshed;   /* the token was refused once, and fetched again */
    bool may_exist;       /* a host has addresses, or nobody could say */
    enum hky_class class; /* of a local failure */
    struct hky_kept_answer
        best_answer;               /* how the best of the targets before this one ended; stage NONE: there was none */
    struct hky_dialogue_event end; /* kind END when over */
    struct hky_reply end_reply;
};

static inline uint32_t hky_outbound_or_default(uint32_t ms, uint32_t fallback)
{
    return ms > 0 ? ms : fallback;
}

/* Connected: the dialogue runs. */
static inline bool hky_outbound_is_talking(const struct hky_outbound *c)
{
    return c->state >= HKY_OUTBOUND_OPENING && c->state <= HKY_OUTBOUND_READY;
}

/* The connection takes no further message. */
static inline bool hky_outbound_is_retiring(const struct hky_outbound *c)
{
    return c->n_taken >= c->most;
}

/* The files, each of which uses only those before it: outbound_state; outbound_timer, _target, _login, _send;
 * outbound_end; outbound, which handles all events. */

/* The only writer of the state; asserts the edge. */
void hky_outbound_enter(struct hky_outbound *c, enum hky_outbound_state s);

#define HKY_CONNECT_DEFAULT_MS 30000

/* outbound_state.c */
/* For the connection test: a stage is over, and the server said `text`; it has shown its certificate. */
void hky_outbound_trace(struct hky_outbound *c, enum hky_stage stage, bool is_good, const char *text);
void hky_outbound_trace_certificate(struct hky_outbound *c);
/* Has the dot, with all before it, gone to the kernel? Then the peer may have the whole message. */
bool hky_outbound_dot_has_left(const struct hky_outbound *c);
/* Ends the connection for a local reason: the dialogue settles what is under way, and pump concludes. */
void hky_outbound_fail(struct hky_outbound *c, enum hky_stage stage, enum hky_class class, bool is_out_of_step,
                       const struct hky_reply *reply);
void hky_outbound_fail_local(struct hky_outbound *c, enum hky_stage stage, enum hky_class class, enum hky_origin origin,
                             const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Reports the outcome of recipient i: this reply, or that of an earlier host when it says more. */
void hky_outbound_report(struct hky_outbound *c, struct hky_delivery *x, unsigned i, enum hky_stage stage,
                         enum hky_class class, const struct hky_reply *reply);
static inline struct hky_delivery *hky_outbound_delivery(struct hky_transaction *t)
{
    return HKY_CONTAINER(t, struct hky_delivery, txn);
}

/* outbound_send.c; c->bound is the delivery in hand */
enum hky_prepare hky_outbound_prepare(struct hky_outbound *c, struct hky_error *e);
/* False: the delivery in hand is not ready yet, or there is none. */
bool hky_outbound_send_next(struct hky_outbound *c);
/* False: nothing can be written for now. */
bool hky_outbound_write_content(struct hky_outbound *c, struct hky_transaction *t);

/* outbound_target.c */
void hky_outbound_resolve(struct hky_outbound *c);
/* Connects to the next address or resolves the next host. False: there is none; c->end and c->end_reply say why. */
bool hky_outbound_next_target(struct hky_outbound *c);
void hky_outbound_same_target(struct hky_outbound *c); /* connects to it once more */
/* May another target be tried after this one for delivery `x`? */
bool hky_outbound_has_more_targets(const struct hky_outbound *c, const struct hky_delivery *x);
void hky_outbound_mark_tried(const struct hky_outbound *c, struct hky_delivery *x);
/* This machine has no route to the target (no IPv6, say), so it counts as not tried. */
void hky_outbound_unmark_tried(struct hky_outbound *c);
/* Goes on with the addresses of a host; false: as for next_target. */
bool hky_outbound_take_addresses(struct hky_outbound *c, const struct hky_dns_addr_answer *a);
/* outbound_login.c */
/* Asks for the credential; `done` gives it to hky_outbound_take_secret, which returns the connection that goes on with
 * it (NULL: that one has closed). */
void hky_outbound_login(struct hky_outbound *c,
                        void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e));
struct hky_outbound *hky_outbound_take_secret(void *arg, struct hky_secret *secret, const struct hky_error *e);
/* Masks from now on what was sent in an AUTH exchange: `line` is "AUTH MECHANISM RESPONSE", or a response alone. */
void hky_outbound_remember_response(struct hky_outbound *c, struct hky_str line);
/* Was the token refused, so that a new one is fetched once? */
bool hky_outbound_wants_refresh(const struct hky_outbound *c);
/* outbound_end.c */
/* Ends the attempt at this target, with the result in c->end and c->end_reply: tries another target, or closes the
 * connection. */
void hky_outbound_conclude(struct hky_outbound *c);
/* Closes the connection, whatever targets are left: `end` says how, and is the outcome of the delivery in hand. */
void hky_outbound_close(struct hky_outbound *c, const struct hky_outbound_end *end);
/* outbound_timer.c */
void hky_outbound_set_timer(struct hky_outbound *c);
uint32_t hky_outbound_wait_ms(const struct hky_outbound *c);
bool hky_outbound_still_writes(struct hky_outbound *c);

#endif
