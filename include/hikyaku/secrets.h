/*
 * secrets -- passwords and tokens: read off the loops, remembered, and given to everybody who asked for the same one
 * Reading may block (a file, a command), so a few threads do it, at most one at a time for each key: whoever asks
 * meanwhile gets the same answer. A command that hangs holds up those who ask for its secret, and nobody else.
 * Users: the relays' credentials (deliver) and the passwords of the listeners' logins (engine).
 */
#ifndef HIKYAKU_SECRETS_H
#define HIKYAKU_SECRETS_H

#include "base/secret.h"
#include "hikyaku/policy.h"
#include "net/loop.h"

struct hky_secrets;

/* One reading, as `read` and `use` see it. The store frees what it holds. */
struct hky_secret_reading {
    void *ctx;                 /* the `ctx` of the operations below */
    struct hky_str key;        /* ends with NUL */
    struct hky_policy *policy; /* policy and subject are those of the first question for this key */
    const void *subject;
    struct hky_secret *found;         /* NULL: there is none, `error` says why */
    struct hky_secret *client_secret; /* for `use`, where one secret is not enough; or NULL */
    struct hky_error error;
};

struct hky_secrets_ops {
    void *ctx;
    /* Runs on a thread that may block. It fills `found` or `error`, and gives up soon after *is_over becomes true. */
    void (*read)(void *ctx, struct hky_secret_reading *r, const atomic_bool *is_over);
    /* Runs on `home`. It makes the answer from what was read, or from the error, and calls hky_secrets_settle once, now
     * or later. NULL: `found` itself is the answer, and it is remembered until hky_secrets_forget. */
    void (*use)(void *ctx, struct hky_secret_reading *r);
};

/* At most `at_once` readings run at a time. `home` is the loop on which secrets are remembered. HKY_E_LIMIT: the system
 * could not start a thread. */
enum hky_err hky_secrets_new(struct hky_loop *home, unsigned at_once, const struct hky_secrets_ops *ops,
                             struct hky_secrets **out, struct hky_error *e);

/* Ends a reading and answers everybody who waits for it; call this on `home`. The reference `s` is taken over, and the
 * secret is remembered for `for_ms` milliseconds (INT64_MAX: for ever). With `s` NULL, `e` says why there is no secret,
 * and the next question reads it again. */
void hky_secrets_settle(struct hky_secret_reading *r, struct hky_secret *s, int64_t for_ms, const struct hky_error *e);

/* `done` gets a reference, or NULL and the reason. It is called on `loop`, never from inside the call that asks. */
struct hky_secrets_question {
    struct hky_str key;         /* questions with the same key have the same answer; copied */
    struct hky_policy *policy;  /* a reference is taken, and kept until the answer */
    const void *subject;        /* belongs to the policy */
    struct hky_secret *refused; /* NULL, or a secret that the server refused: then the answer is a different one */
    struct hky_loop *loop;
    void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e);
    void *arg;
};
/* May be called on any thread. */
void hky_secrets_ask(struct hky_secrets *s, const struct hky_secrets_question *q);
/* Answers the same question from the secret `ref` that the policy itself holds. That cannot block, so it waits for no
 * other reading. */
void hky_secrets_give(struct hky_secrets *s, const struct hky_secrets_question *q, const struct hky_secret_ref *ref);

/* Drops the secrets that are remembered; call this on `home`. A reading that is under way still answers those who wait
 * for it. */
void hky_secrets_forget(struct hky_secrets *s);
/* As forget, but what is being read goes on: its answer is new, and a token may not be asked for twice at once. */
void hky_secrets_forget_remembered(struct hky_secrets *s);
/* Ends the threads and gives up a command that is under way. Call this once the loops no longer run. */
void hky_secrets_stop(struct hky_secrets *s);
/* Frees everything, with the questions that were not answered. By then nobody may post to the loops of those questions.
 */
void hky_secrets_free(struct hky_secrets **s);

#endif
