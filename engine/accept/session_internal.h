/*
 * session_internal -- a session as its own files see it. From the lowest to the highest: sasl (what a login dialogue
 * keeps), session_state (states, replies, errors, the end), then auth, transaction and review beside each other, and
 * session on top, which reads lines and calls the others.
 */
#ifndef HKY_ACCEPT_SESSION_INTERNAL_H
#define HKY_ACCEPT_SESSION_INTERNAL_H

#include "accept/session.h"

#define HKY_REPLY_MAX 512 /* RFC 5321 4.5.3.1.5 */

/* --- sasl.c --- */

void accept_auth_free(struct accept_auth_dialogue **a); /* NULL is fine */

/* --- session_state.c --- */

void accept_session_enter(struct accept_session *s, enum accept_session_state to); /* the only writer of `state` */
void accept_session_say(struct accept_session *s, int code, const char *enhanced,
                        struct hky_str text); /* a reply of one line */
/* The same, formatted. */
void accept_session_reply(struct accept_session *s, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Refuses mail: as accept_session_error does with 5xx, and as accept_session_reply with 4xx; the owner is informed
 * (ops->refused). */
void accept_session_refuse(struct accept_session *s, struct hky_str sender, struct hky_str rcpt, int code,
                           const char *enhanced, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* Counts against engine.bounds.errors; above: 421 and close. */
void accept_session_error(struct accept_session *s, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void accept_session_close(struct accept_session *s, const char *enhanced,
                          const char *text); /* 421 text, or silent if NULL */
/* Frees the letter of the transaction and gives up its big file. The state does not change. */
void accept_session_tx_free(struct accept_session *s);
/* Every transaction ends here: accept_session_tx_free, then READY, or 421 when draining. */
void accept_session_tx_reset(struct accept_session *s);
struct hky_str accept_session_sender(const struct accept_session *s); /* of the transaction; empty when there is none */
bool accept_session_is_trusted(const struct accept_session *s);       /* X-Hikyaku-* are believed */
bool accept_session_may_send(const struct accept_session *s);         /* without a (further) login */
bool accept_session_offers_auth(const struct accept_session *s);      /* now */

/* --- transaction.c --- */

/* MAIL, RCPT, DATA and BDAT (RFC 5321 3.3, 3030 2): the command is sound and allowed in this state. Each writes its
 * reply and enters the next state, or refuses with accept_session_refuse. */
void accept_transaction_mail(struct accept_session *s, struct hky_smtp_command *c);
void accept_transaction_rcpt(struct accept_session *s, struct hky_smtp_command *c);
void accept_transaction_data(struct accept_session *s, struct hky_smtp_command *c);
void accept_transaction_bdat(struct accept_session *s, struct hky_smtp_command *c);
/* Content of DATA, and of a chunk of BDAT: as accept_session_input, which hands it on in these states. */
size_t accept_transaction_data_input(struct accept_session *s, const char *p, size_t n);
size_t accept_transaction_chunk_input(struct accept_session *s, const char *p, size_t n);

/* --- auth.c --- */

/* AUTH with its argument, and each further line of the login dialogue (RFC 4954 4). Both end with a challenge, a
 * reply, or a question for a secret. */
void accept_auth_begin(struct accept_session *s, struct hky_str arg);
void accept_auth_line(struct accept_session *s, struct hky_str line);
void accept_auth_secret(struct accept_session *s,
                        struct hky_secret *secret); /* the secret that was asked for; NULL: it could not be read */
void accept_auth_refuse(struct accept_session *s);  /* the penalty is over */

/* --- review.c --- */

/* Does the new policy give the login, or the client's address, the same rights as the old one? */
bool accept_review_keeps_rights(const struct accept_session *s);
/* The session is at rest: it takes over the new policy, or ends with 421. */
void accept_review_apply(struct accept_session *s);

#endif
