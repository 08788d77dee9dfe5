/*
 * session -- the server's side of one SMTP dialogue, without sockets, clock or log: octets in, replies and requests out
 * through one table of functions. What takes time (journal, secret, TLS) is asked for; until it is answered the session
 * consumes nothing, so that replies stay in order (RFC 2920).
 */
#ifndef HKY_ACCEPT_SESSION_H
#define HKY_ACCEPT_SESSION_H

#include "hikyaku/intake.h"
#include "mail/command.h"

struct accept_session;
struct accept_auth_dialogue;
struct accept_sasl; /* what SASL keeps for a worker */

/* X(id, states that may follow) -- READY is "greeted, no transaction". */
#define HKY_SESSION_STATES(X)                                                                                          \
    X(CONNECTED, B(READY) | B(SWALLOW) | B(CLOSED))                                                                    \
    X(READY, B(READY) | B(AUTH) | B(TLS) | B(MAIL) | B(SWALLOW) | B(CLOSED))                                           \
    X(AUTH, B(READY) | B(CLOSED))                                                                                      \
    X(TLS, B(CONNECTED) | B(CLOSED))                                                                                   \
    X(MAIL, B(RCPT) | B(READY) | B(SWALLOW) | B(CLOSED))                                                               \
    X(RCPT, B(DATA) | B(CHUNK) | B(READY) | B(CLOSED))                                                                 \
    X(DATA, B(COMMIT) | B(READY) | B(CLOSED))                                                                          \
    X(CHUNK, B(CHUNKS) | B(COMMIT) | B(READY) | B(CLOSED))                                                             \
    X(CHUNKS, B(CHUNK) | B(READY) | B(CLOSED))                                                                         \
    X(SWALLOW, B(CONNECTED) | B(READY) | B(MAIL) | B(CLOSED))                                                          \
    X(COMMIT, B(READY) | B(CLOSED))                                                                                    \
    X(CLOSED, 0)

enum accept_session_state {
#define X(id, next) HKY_SESSION_##id,
    HKY_SESSION_STATES(X)
#undef X
        HKY_SESSION_N
};

/* Reasons why no input is consumed at the moment. */
enum {
    HKY_WAIT_COMMIT = 1,
    HKY_WAIT_SECRET = 2,
    HKY_WAIT_TLS = 4,
    HKY_WAIT_BIG = 8,      /* the big body's writer has no room */
    HKY_WAIT_JOURNAL = 16, /* too much unsynced: ask again in a moment */
    HKY_WAIT_PENALTY = 64, /* a login failed, and its refusal is delayed */
    HKY_WAIT_OUTPUT = 32   /* the client does not read its replies; set by the owner */
};

struct accept_session_ops {
    void (*write)(void *ctx, const char *p, size_t n); /* copied, and gathered until all input is handled */
    int64_t (*now_ms)(void *ctx);
    uint64_t (*new_id)(void *ctx);
    enum hky_err (*room)(void *ctx, uint64_t size); /* as hky_journal_room */
    /* Decides and journals the message; takes ownership of what `in` holds. accept_session_on_commit follows, never
     * from inside. */
    void (*submit)(void *ctx, struct hky_handed_in *in);
    /* As hky_journal_big_open; accept_session_resume(WAIT_BIG) when there is room again. */
    enum hky_err (*big_open)(void *ctx, uint64_t id, void **big);
    bool (*big_write)(void *ctx, void *big, const char *p, size_t n);
    void (*big_abort)(void *ctx, void *big);
    void (*secret)(void *ctx,
                   const struct hky_secret_ref *ref); /* accept_session_on_secret follows, never from inside */
    void (*start_tls)(void *ctx);                     /* accept_session_on_tls follows */
    void (*close)(void *ctx);                         /* after what was written has been sent */
    void (*warn)(void *ctx, const char *what, struct hky_str text); /* writes a warning to the log */
    /* A message was refused, or only its recipient `rcpt` where that is not empty. */
    void (*refused)(void *ctx, struct hky_str sender, struct hky_str rcpt, const char *reply);
};

struct accept_session_params {
    const struct accept_session_ops *ops;
    void *ctx;
    const struct hky_policy *policy; /* borrowed until a review replaces it */
    const struct hky_listen *listen; /* of that policy */
    struct accept_sasl *sasl;
    const char *client; /* numeric address */
    bool is_loopback, is_allowed, is_secure;
};

/* What a new policy says about an open session. */
struct accept_session_review {
    const struct hky_policy *policy; /* NULL: no review is waiting */
    const struct hky_listen *listen; /* NULL: there is no such listener any more */
    bool is_allowed;
};

/* From MAIL to the end of the content. */
struct accept_transaction {
    struct hky_letter *letter; /* NULL: there is no transaction */
    uint64_t size_hint;
    uint32_t n_refused;
    bool is_smtputf8;
};

struct accept_session {
    struct accept_session_params p; /* `client` is not kept here */
    struct accept_session_review review;
    char client[46];
    uint8_t state, after_swallow;
    uint8_t waits; /* HKY_WAIT_ */
    bool is_esmtp, is_draining, is_skipping, is_last_chunk;
    uint16_t n_errors, n_auth_failed, n_idle; /* n_idle: commands of a client that may not send */
    uint32_t n_skipped;
    uint32_t n_commands; /* lines dealt with: the connection's deadline moves with it */
    uint64_t chunk_left; /* octets of the chunk still to come (CHUNK, SWALLOW) */
    uint64_t last_size;  /* of the previous message: a client that announces no size is expected to send one like it */
    char *hello;         /* the name given in EHLO, NULL before */
    const struct hky_user *user;
    struct accept_transaction tx;
    struct accept_auth_dialogue *auth; /* while AUTH */
    uint64_t n_accepted;
};

void accept_session_init(struct accept_session *s, const struct accept_session_params *p); /* writes the greeting */
/* Frees what the session holds; a transaction under way is given up, and so is its big file. */
void accept_session_fini(struct accept_session *s);
/* Returns the octets consumed; the caller offers the rest again, in front of what follows. Consumes nothing while it
 * waits. */
size_t accept_session_input(struct accept_session *s, const char *p, size_t n);
/* The journal's answer. `durable` is the proof without which no 250 is written. */
void accept_session_on_commit(struct accept_session *s, const struct hky_durable *durable, enum hky_err result,
                              uint64_t id);
void accept_session_on_secret(struct accept_session *s,
                              struct hky_secret *secret); /* takes the reference; NULL: it could not be read */
void accept_session_on_tls(struct accept_session *s);
void accept_session_resume(struct accept_session *s, unsigned wait); /* WAIT_BIG, _JOURNAL, _OUTPUT, _PENALTY: go on */
void accept_session_timeout(struct accept_session *s);               /* 421 and close */
/* No more transactions: an idle session is closed with 421 now, a busy one after its transaction. */
void accept_session_drain(struct accept_session *s);
void accept_session_cut(struct accept_session *s); /* the time that a drain allows is over; not while a 250 is due */
/* A new policy is in force. A session at rest takes it over now, any other session as soon as it is at rest; until then
 * it borrows from the old one, afterwards `p.policy` is the new one. A client that may no longer send gets 421, and so
 * does a transaction whose login or network has other rights now. */
void accept_session_take_policy(struct accept_session *s, const struct accept_session_review *review);
bool accept_session_is_content(const struct accept_session *s); /* it reads content, so that the data rate counts */

#define HKY_AUTH_OFFERED(id, value, name, offered) offered
#define HKY_AUTH_MECHANISMS                        HKY_AUTHS(HKY_AUTH_OFFERED) /* " PLAIN LOGIN ...": with a blank in front */
struct accept_sasl *accept_sasl_new(void);                                     /* NULL: GNU SASL failed */
/* Frees it once no session of its worker has a login dialogue; NULL is fine. */
void accept_sasl_free(struct accept_sasl **sasl);

#endif
