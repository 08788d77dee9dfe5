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

void hky_auth_free(struct hky_auth_dialogue **a); /* NULL is fine */

/* --- session_state.c --- */

void hky_session_enter(struct hky_session *s, enum hky_session_state to); /* the only writer of `state` */
void hky_session_say(struct hky_session *s, int code, const char *enhanced,
                     struct hky_str text); /* a reply of one line */
void hky_session_reply(struct hky_session *s, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* As error (5xx) or reply (4xx), and told to the owner. */
void hky_session_refuse(struct hky_session *s, struct hky_str sender, struct hky_str rcpt, int code,
                        const char *enhanced, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* Counts against engine.bounds.errors; above: 421 and close. */
void hky_session_error(struct hky_session *s, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void hky_session_close(struct hky_session *s, const char *enhanced, const char *text); /* 421 text, or silent if NULL */
/* Forgets the transaction: the letter is freed, a big file dropped. The state stays. */
void hky_session_tx_free(struct hky_session *s);
/* The one way out of a transaction: as hky_session_tx_free, and back to READY; 421 when draining. */
void hky_session_tx_reset(struct hky_session *s);
struct hky_str hky_session_sender(const struct hky_session *s); /* of the transaction; empty when there is none */
bool hky_session_is_trusted(const struct hky_session *s);       /* X-Hikyaku-* are believed */
bool hky_session_may_send(const struct hky_session *s);         /* without a (further) login */
bool hky_session_offers_auth(const struct hky_session *s);      /* now */

/* --- transaction.c --- */

void hky_tx_mail(struct hky_session *s, struct hky_command *c);
void hky_tx_rcpt(struct hky_session *s, struct hky_command *c);
void hky_tx_data(struct hky_session *s, struct hky_command *c);
void hky_tx_bdat(struct hky_session *s, struct hky_command *c);
size_t hky_tx_data_input(struct hky_session *s, const char *p, size_t n);
size_t hky_tx_chunk_input(struct hky_session *s, const char *p, size_t n);

/* --- auth.c --- */

void hky_auth_begin(struct hky_session *s, struct hky_str arg);
void hky_auth_line(struct hky_session *s, struct hky_str line);
void hky_auth_secret(struct hky_session *s, struct hky_secret *secret); /* the one asked for; NULL: it failed */
void hky_auth_refuse(struct hky_session *s);                            /* the penalty is over */

/* --- review.c --- */

/* Does the login, or the address it comes from, have by the new policy what it has by the old? */
bool hky_review_keeps_rights(const struct hky_session *s);
/* The session is at rest: it goes on by the new policy, or ends with 421. */
void hky_review_apply(struct hky_session *s);

#endif
