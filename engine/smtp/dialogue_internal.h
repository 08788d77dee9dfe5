/*
 * dialogue_internal -- what the files of the dialogue share. Each uses only those before it: dialogue_core;
 * dialogue_open (up to a connection that can send) and dialogue_mail (messages); dialogue, which knows what each reply
 * answers.
 */
#ifndef HKY_SMTP_DIALOGUE_INTERNAL_H
#define HKY_SMTP_DIALOGUE_INTERNAL_H

#include "smtp/dialogue.h"

/* ---- dialogue_core.c ---- */

/* The only writer of the state; asserts the edge. */
void hky_dialogue_enter(struct hky_dialogue *d, enum hky_dialogue_state s);
void hky_dialogue_emit(struct hky_dialogue *d, const struct hky_dialogue_event *ev);
/* Notes that a reply is awaited from now on. */
void hky_dialogue_expect(struct hky_dialogue *d, enum hky_expect e, struct hky_transaction *txn, unsigned recipient);
/* What the next reply is for; NULL: none is awaited. */
const struct hky_dialogue_mark *hky_dialogue_head(const struct hky_dialogue *d);
struct hky_dialogue_mark hky_dialogue_take_mark(struct hky_dialogue *d);
enum hky_stage hky_dialogue_stage_of(const struct hky_dialogue_mark *m);
void hky_dialogue_send(struct hky_dialogue *d, const char *p, size_t n);
void hky_dialogue_send_z(struct hky_dialogue *d, const char *z);
/* Reports the verdict on recipient i, who has none yet; or on every recipient who has none yet. */
void hky_dialogue_report(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, enum hky_stage stage,
                         const struct hky_reply *reply, bool is_ambiguous);
void hky_dialogue_report_rest(struct hky_dialogue *d, struct hky_transaction *t, enum hky_stage stage,
                              const struct hky_reply *reply, bool is_ambiguous);
/* Ends the transaction with HKY_DIALOGUE_DONE or HKY_DIALOGUE_GIVE_BACK. */
void hky_dialogue_end(struct hky_dialogue *d, struct hky_transaction *t, enum hky_dialogue_event_kind how);
/* Ends the connection: settles what is under way, then emits END. With stage NONE the stage is that of the awaited
 * reply. */
void hky_dialogue_finish(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                         bool is_out_of_step);
/* Ends the connection because the reply is not SMTP, or does not fit the command; NULL: no command awaits one. */
void hky_dialogue_misfit(struct hky_dialogue *d, const char *command, const struct hky_reply *reply);

/* ---- dialogue_open.c ---- */

/* Each handles the reply to its command, and sends the next command or ends the connection. */
void hky_dialogue_on_greeting(struct hky_dialogue *d, const struct hky_reply *r);
void hky_dialogue_on_hello(struct hky_dialogue *d, const struct hky_reply *r, struct hky_str lines, bool is_ehlo);
void hky_dialogue_on_starttls(struct hky_dialogue *d, const struct hky_reply *r);
void hky_dialogue_on_auth(struct hky_dialogue *d, const struct hky_reply *r);

/* ---- dialogue_mail.c ---- */

/* Each handles the reply to its command of transaction `t`; `i` is the recipient. */
void hky_dialogue_on_mail(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r);
void hky_dialogue_on_rcpt(struct hky_dialogue *d, struct hky_transaction *t, unsigned i, const struct hky_reply *r);
void hky_dialogue_on_data(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r);
void hky_dialogue_on_dot(struct hky_dialogue *d, struct hky_transaction *t, const struct hky_reply *r);

#endif
