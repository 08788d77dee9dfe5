/*
 * passwords -- of the listeners' logins: read by threads of their own, remembered until the next reload. A command that
 * hangs holds up who logs in with its secret, and nobody else: one question at a time for each secret.
 */
#ifndef HKY_PASSWORDS_H
#define HKY_PASSWORDS_H

#include "hikyaku/policy.h"
#include "net/loop.h"

struct hky_passwords;

/* HKY_E_LIMIT: no thread to be had. `aux` is where they are remembered. */
enum hky_err hky_passwords_new(struct hky_loop *aux, struct hky_passwords **out, struct hky_error *e);
/* Any loop's thread. `done` comes on `loop`, never from inside, with a reference or NULL and why. `ref` belongs to the
 * policy. */
void hky_passwords_ask(struct hky_passwords *p, struct hky_policy *policy, const struct hky_secret_ref *ref,
                       struct hky_loop *loop, void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e),
                       void *arg);
void hky_passwords_forget(struct hky_passwords *p); /* on aux: drops what was read and what is being read */
void hky_passwords_stop(struct hky_passwords *p);   /* ends the threads; the loops have stopped */
void hky_passwords_free(struct hky_passwords **p);  /* after the loops; unanswered questions are dropped */

#endif
