/*
 * outbound -- a connection: joins dialogue and net/stream, and adds time-outs. It resolves, connects, tries the next
 * address or host, starts TLS, logs in, then takes one delivery after the other from its owner.
 *
 * All callbacks come on the loop's thread. After `closed` the owner does not touch the connection again; it frees
 * itself.
 */
#ifndef HKY_DELIVER_OUTBOUND_H
#define HKY_DELIVER_OUTBOUND_H

#include "base/log.h"
#include "deliver/delivery.h"
#include "net/dns.h"

struct hky_outbound;

struct hky_outbound_end {
    enum hky_stage stage;
    enum hky_class class; /* HKY_CLASS_N: ask the classifier */
    const struct hky_reply *reply;
    bool was_open;       /* the connection had been ready to send */
    bool is_idle;        /* nothing was under way */
    bool is_out_of_step; /* do not pipeline or overlap with this peer */
    bool is_silent;      /* commands sent together got no reply in time; is_out_of_step: they were overlapped, too */
    bool is_broken;      /* lost while an overlapped envelope was behind a dot without a reply */
    bool no_tls;         /* opportunistic TLS failed with this peer */
    unsigned n_full;     /* the server ended it at the MAIL that followed so many messages without a pause; else 0 */
};

struct hky_outbound_ops {
    /* Returns the next delivery for this connection, which can send one more. NULL: there is none now; call
     * hky_outbound_kick when there is one. */
    struct hky_delivery *(*next)(void *ctx, struct hky_outbound *c);
    /* May the connection overlap now, that is, write the next envelope before the reply to the dot? NULL: never. */
    bool (*may_overlap)(void *ctx, struct hky_outbound *c);
    /* `greeted`: the server greets with this text. `in_step`: an overlapped envelope got fitting replies. May be NULL.
     */
    void (*greeted)(void *ctx, struct hky_outbound *c, struct hky_str text);
    void (*in_step)(void *ctx, struct hky_outbound *c);
    /* The result of recipient i. class HKY_CLASS_N: ask the classifier. */
    void (*result)(void *ctx, struct hky_outbound *c, struct hky_delivery *x, unsigned i, enum hky_stage stage,
                   enum hky_class class, const struct hky_reply *reply);
    void (*done)(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent);
    /* Recipients with a kept answer are to be tried at another host, by a connection of their own; `x` is still to be
     * rewound. NULL: never. */
    void (*try_elsewhere)(void *ctx, struct hky_outbound *c, struct hky_delivery *x);
    /* The server takes n_taken recipients of a message and no more; called before `give_back` of the rest. NULL: the
     * rest fails. */
    void (*too_many)(void *ctx, struct hky_outbound *c, struct hky_delivery *x, unsigned n_taken);
    /* The recipients without a result are to be sent again at once. mail_sent: the MAIL of the delivery was written. */
    void (*give_back)(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent);
    /* The connection could not be opened, was turned away at its first MAIL, or is given up at a stop. true: its
     * delivery is given back, and does not fail. NULL: never. */
    bool (*may_give_back)(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end);
    void (*open)(void *ctx, struct hky_outbound *c);
    void (*closed)(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end);
    /* Asks for the credential. done(arg, secret, error) is called later on the loop, once, and even when the connection
     * has closed. */
    void (*secret)(void *ctx, struct hky_outbound *c, struct hky_secret *refused,
                   void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg);
    /* The server has shown this certificate, whether it was accepted or not. May be NULL. */
    void (*certificate)(void *ctx, struct hky_outbound *c, const struct hky_tls_certificate *certificate);
    /* A stage is over, and the server said `text` (for the connection test). May be NULL. */
    void (*trace)(void *ctx, struct hky_outbound *c, enum hky_stage stage, bool is_good, const char *text);
};

/* A question for a credential that has no answer yet; it may outlive its connection. */
struct hky_outbound_login_wait {
    LIST_ENTRY(hky_outbound_login_wait) link;
    struct hky_outbound *connection; /* NULL: it has closed */
    struct hky_policy *policy;       /* a reference, because another thread reads its relay meanwhile */
};
LIST_HEAD(hky_outbound_login_waits, hky_outbound_login_wait);

struct hky_outbound_params {
    struct hky_loop *loop;
    struct hky_log *log;
    struct hky_dns *dns;
    struct hky_policy *policy; /* a reference is taken; NULL in tests */
    const struct hky_relay *relay;
    const char *hello;
    const struct hky_dns_mx *hosts; /* in the order to try; copied */
    unsigned n_hosts;
    uint16_t port;
    struct hky_tls *tls; /* context; NULL: no TLS whatever the relay says */
    bool is_redirected;  /* no AUTH, no TLS */
    bool is_plain;       /* opportunistic TLS failed before: connect without TLS */
    bool no_pipelining;
    uint32_t most;       /* messages; 0: no bound */
    uint32_t most_hosts; /* at which one delivery is tried; 0 = 5 */
    uint32_t idle_ms;    /* 0 = 30 s */
    struct hky_outbound_login_waits
        *waits;                 /* the owner's; at the end it drops those whose answer cannot come any more */
    struct hky_delivery *bound; /* sent first; gets the outcome when no connection can be made */
    const struct hky_outbound_ops *ops;
    void *ctx;
};
/* Begins at the end of this turn of the loop, so no callback comes from inside this call. `p` is borrowed for the
 * call; what it points to outlives the connection, but for what is copied or counted. */
struct hky_outbound *hky_outbound_new(const struct hky_outbound_params *p);
void hky_outbound_kick(struct hky_outbound *c);   /* `next` has a delivery to give */
void hky_outbound_retire(struct hky_outbound *c); /* takes no more deliveries; sends QUIT when idle */
/* The engine stops. A connection that cannot send yet is closed, and its delivery is given back: whatever it waits for,
 * a name server, a handshake or a secret, may never come. Of a message that is under way the reply is waited for; a
 * delivery behind it whose MAIL was not written is given back. */
void hky_outbound_drain(struct hky_outbound *c);
/* Call this after the loop has stopped. It reports a message that may have arrived and drops the others without a call;
 * the memory is freed with the loop. */
void hky_outbound_abandon(struct hky_outbound **c);
void hky_outbound_login_waits_drop(struct hky_outbound_login_waits *waits); /* after the loop has stopped */
bool hky_outbound_is_idle(const struct hky_outbound *c);
const char *hky_outbound_host(const struct hky_outbound *c); /* the one that it speaks to */
struct hky_policy *hky_outbound_policy(const struct hky_outbound *c);
const struct hky_relay *hky_outbound_relay(const struct hky_outbound *c);
void *hky_outbound_ctx(const struct hky_outbound *c);
const struct hky_capabilities *hky_outbound_caps(const struct hky_outbound *c);

#endif
