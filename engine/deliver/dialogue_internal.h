/* dialogue_internal -- what dialogue.c and dialogue_open.c share. */
#ifndef HKY_DELIVER_DIALOGUE_INTERNAL_H
#define HKY_DELIVER_DIALOGUE_INTERNAL_H

#include "deliver/dialogue.h"

/* The only writer of the state; asserts the edge. */
void hky_dialogue_enter(struct hky_dialogue *d, enum hky_dialogue_state s);
void hky_dialogue_emit(struct hky_dialogue *d, const struct hky_dialogue_event *ev);
/* A reply is awaited from now on. */
void hky_dialogue_expect(struct hky_dialogue *d, enum hky_expect e, struct hky_transaction *txn, unsigned recipient);
void hky_dialogue_send(struct hky_dialogue *d, const char *p, size_t n);
void hky_dialogue_send_z(struct hky_dialogue *d, const char *z);
/* It is over: settles what is under way, then END. stage NONE: the one awaited. */
void hky_dialogue_finish(struct hky_dialogue *d, enum hky_stage stage, const struct hky_reply *reply, bool dot_left,
                         bool is_out_of_step);
/* The peer speaks, but not SMTP, or not to this command. */
void hky_dialogue_misfit(struct hky_dialogue *d, const char *command, const struct hky_reply *reply);

void hky_dialogue_on_greeting(struct hky_dialogue *d, const struct hky_reply *r);
void hky_dialogue_on_hello(struct hky_dialogue *d, const struct hky_reply *r, struct hky_str lines, bool is_ehlo);
void hky_dialogue_on_starttls(struct hky_dialogue *d, const struct hky_reply *r);
void hky_dialogue_on_auth(struct hky_dialogue *d, const struct hky_reply *r);

#endif
