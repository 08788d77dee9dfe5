/*
 * dialogue -- the client's side of SMTP as a pure state machine: replies go in, commands and verdicts come out through
 * one function pointer. No sockets, clock or log. Connection, transaction and command are three things: every command
 * written leaves a mark in one queue, and reply N always belongs to mark N, so that pipelining, overlapped messages and
 * results per recipient need no special case (RFC 5321, 2920).
 */
#ifndef HKY_SMTP_DIALOGUE_H
#define HKY_SMTP_DIALOGUE_H

#include "base/buf.h"
#include "smtp/login.h"
#include "hikyaku/outcome.h"

#define HKY_DIALOGUE_STATES(X)                                                                                         \
    X(GREETING)  /* connected, the greeting has not come */                                                            \
    X(HELLO)     /* EHLO or HELO is out */                                                                             \
    X(STARTTLS)  /* STARTTLS is out */                                                                                 \
    X(HANDSHAKE) /* the owner makes TLS */                                                                             \
    X(LOGIN)     /* the owner fetches the credential */                                                                \
    X(AUTH)      /* AUTH is out */                                                                                     \
    X(READY)     /* transactions may begin */                                                                          \
    X(QUITTING)                                                                                                        \
    X(CLOSED)
enum hky_dialogue_state {
#define X(id) HKY_DIALOGUE_##id,
    HKY_DIALOGUE_STATES(X)
#undef X
        HKY_DIALOGUE_N
};
/* "GREETING", for traces. */
const char *hky_dialogue_state_name(enum hky_dialogue_state s);

/* What an awaited reply is for. X(id, stage) */
#define HKY_EXPECTS(X)                                                                                                 \
    X(GREETING, GREETING)                                                                                              \
    X(EHLO, HELLO)                                                                                                     \
    X(HELO, HELLO)                                                                                                     \
    X(STARTTLS, TLS)                                                                                                   \
    X(AUTH, AUTH)                                                                                                      \
    X(MAIL, MAIL)                                                                                                      \
    X(RCPT, RCPT)                                                                                                      \
    X(DATA, DATA)                                                                                                      \
    X(DOT, DOT)                                                                                                        \
    X(RSET, MAIL)                                                                                                      \
    X(QUIT, NONE)
enum hky_expect {
#define X(id, stage) HKY_EXPECT_##id,
    HKY_EXPECTS(X)
#undef X
        HKY_EXPECT_NOTHING
};

struct hky_capabilities {
    bool pipelining, starttls, eightbit, smtputf8, binarymime, chunking, dsn, has_size;
    uint64_t size;  /* 0 = no limit stated */
    uint32_t auths; /* bit (1 << enum hky_auth) */
    bool has_auth;  /* the server listed AUTH */
};
/* Keywords from the lines of an EHLO reply (LF between, codes removed; the first line is the greeting). */
void hky_capabilities_parse(struct hky_str lines, struct hky_capabilities *out);

enum hky_transaction_state {
    HKY_TRANSACTION_NEW,
    HKY_TRANSACTION_ENVELOPE, /* MAIL, RCPT and DATA were sent, or are sent one by one */
    HKY_TRANSACTION_CONTENT,  /* 354 has come: the owner writes header, body and final dot */
    HKY_TRANSACTION_DOT,      /* the dot was handed to the stream */
    HKY_TRANSACTION_VOID,     /* 354 came although nobody was accepted: a lone dot was sent; its reply is about nobody
                               */
    HKY_TRANSACTION_DONE
};
enum hky_verdict { HKY_VERDICT_OPEN, HKY_VERDICT_ACCEPTED, HKY_VERDICT_REPORTED };

/* One message to n recipients. The owner fills n, verdicts and commands before begin; it lives until DONE or
 * GIVE_BACK. A recipient whose verdict is REPORTED from the start has no RCPT line. */
struct hky_transaction {
    enum hky_transaction_state state;
    unsigned n;
    uint8_t *verdicts;       /* n, enum hky_verdict */
    struct hky_buf commands; /* "MAIL ...\r\n", "RCPT ...\r\n" for each open recipient, "DATA\r\n" unless dry */
    bool is_dry;             /* RSET after the last RCPT; the RCPT reply is the result */
    /* what follows is used by the dialogue only */
    size_t sent; /* octets of `commands` that were sent */
    unsigned ordinal, n_accepted, next_rcpt;
    bool is_mail_out, is_mail_ok, has_reply, is_data_out;
    bool is_overlapped; /* its envelope was sent behind the dot of another transaction, before the reply to that dot */
};

enum hky_dialogue_event_kind {
    HKY_DIALOGUE_SEND,      /* octets: write them */
    HKY_DIALOGUE_START_TLS, /* do the TLS handshake, then hky_dialogue_secured; no plain octet may be left */
    HKY_DIALOGUE_ASK_LOGIN, /* fetch the credential, then call hky_dialogue_login or hky_dialogue_fail. Comes again when
                               a mechanism was refused: log in with another one, or fail with d->refusal */
    HKY_DIALOGUE_OPEN,      /* ready for the first transaction */
    HKY_DIALOGUE_RESULT,    /* txn, recipient, stage, reply, is_ambiguous */
    HKY_DIALOGUE_DONE,      /* txn is over and all recipients were reported; the dialogue does not touch it again */
    HKY_DIALOGUE_GIVE_BACK, /* the connection ended, but not because of txn: send to the recipients not reported again
                               at once; the dialogue does not touch txn again */
    HKY_DIALOGUE_IN_STEP,   /* the overlapped envelope of txn got fitting replies */
    HKY_DIALOGUE_END,       /* close the stream; stage and reply say why */
};
struct hky_dialogue_event {
    enum hky_dialogue_event_kind kind;
    struct hky_transaction *txn;
    unsigned recipient;
    enum hky_stage stage;
    const struct hky_reply *reply;
    bool is_ambiguous;   /* the dot may have left and its reply is missing */
    bool is_out_of_step; /* END: replies did not fit the commands: do not overlap or pipeline with this peer */
    bool is_idle;        /* END: nothing was under way */
    bool is_unsendable;  /* END: no login can be made of our own user name, password or token */
    bool is_broken; /* END: the connection was lost while an overlapped envelope was behind a dot without a reply */
    unsigned n_given_back; /* END: messages */
    struct hky_str octets;
};

struct hky_dialogue_params {
    const char *hello;
    enum { HKY_DIALOGUE_TLS_OFF, HKY_DIALOGUE_TLS_MAY, HKY_DIALOGUE_TLS_MUST } starttls;
    bool is_secure; /* implicit TLS is up already */
    bool wants_auth;
    bool may_pipeline, may_overlap;
    void (*emit)(void *ctx, const struct hky_dialogue_event *ev);
    void *ctx;
};

struct hky_dialogue_mark {
    struct hky_transaction *txn;
    uint32_t recipient;
    uint8_t expect;
};
struct hky_dialogue {
    struct hky_dialogue_params params;
    enum hky_dialogue_state state;
    struct hky_capabilities caps;
    struct hky_dialogue_mark *marks; /* a ring */
    unsigned marks_cap, marks_at, n_marks;
    struct hky_transaction *current, *next; /* next: overlapped; its envelope follows the dot of current */
    unsigned n_begun;
    bool is_turned_away; /* the connection itself was refused: transactions whose dot was not sent are given back */
    bool is_unsendable;
    struct hky_login *sasl;
    struct hky_reply refusal; /* the reply that refused a login; code 0: there was none */
    unsigned n_auth_rounds;
    struct hky_buf scratch;
    void (*trace)(void *ctx, enum hky_dialogue_state from, enum hky_dialogue_state to); /* may be NULL */
};

/* Waits for the greeting. What `p` points to is borrowed until fini. */
void hky_dialogue_init(struct hky_dialogue *d, const struct hky_dialogue_params *p);
void hky_dialogue_fini(struct hky_dialogue *d); /* transactions under way are dropped without an event */

/* One whole reply. `lines` as hky_capabilities_parse wants them. is_early: not all octets of the current content have
 * been sent. */
void hky_dialogue_reply(struct hky_dialogue *d, const struct hky_reply *reply, struct hky_str lines, bool is_early);
/* TLS is up (after START_TLS). */
void hky_dialogue_secured(struct hky_dialogue *d);
/* The answer to ASK_LOGIN; takes over `sasl`. */
void hky_dialogue_login(struct hky_dialogue *d, struct hky_login *sasl);
/* A 5xx has refused the credential, not only a mechanism. */
bool hky_dialogue_is_login_refused(const struct hky_dialogue *d);
/* The connection ended or is given up: settles what is under way, then END follows. With stage NONE the stage is that
 * of the awaited reply. dot_left: the dot of the current transaction may have reached the peer. */
void hky_dialogue_fail(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                       bool is_out_of_step);
/* The server objects to the connection, not to the message: ends the connection with this reply, and gives back every
 * transaction whose dot was not sent, even the first one. */
void hky_dialogue_turn_away(struct hky_dialogue *d, const struct hky_reply *reply);
/* May another transaction begin now? Overlapped ones may while the dot of the current one is unanswered. */
bool hky_dialogue_can_begin(const struct hky_dialogue *d);
void hky_dialogue_begin(struct hky_dialogue *d, struct hky_transaction *txn);
/* The transaction whose content is to be written now, or NULL. */
struct hky_transaction *hky_dialogue_content(const struct hky_dialogue *d);
/* Header, body and final dot were all handed to the stream. */
void hky_dialogue_content_written(struct hky_dialogue *d);
void hky_dialogue_quit(struct hky_dialogue *d); /* call it only when idle; END follows with the reply */
bool hky_dialogue_is_idle(const struct hky_dialogue *d);
enum hky_expect hky_dialogue_expects(const struct hky_dialogue *d); /* the head of the queue */
enum hky_stage hky_dialogue_stage(const struct hky_dialogue *d);    /* the one reached, for a local failure */

#endif
