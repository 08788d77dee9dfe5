/*
 * accept -- takes mail in: SMTP submission (RFC 6409, 5321). Parses once, bounds everything, asks route, submits to the
 * journal, answers 250 when a message is durable, hands it on. [accept] -> route -> journal -> schedule
 */
#ifndef HIKYAKU_ACCEPT_H
#define HIKYAKU_ACCEPT_H

#include "hikyaku/journal.h"
#include "hikyaku/policy.h"
#include "hikyaku/record.h"
#include "hikyaku/route.h"

struct hky_accept; /* all listeners */

struct hky_accept_ops {
    void *ctx;
    struct hky_policy *(*policy)(void *ctx, unsigned worker); /* the policy in force on this worker now, borrowed */
    /* Decides all recipients of a message that is not accepted yet; fills plan, arms, state, expire_at_ms. The body is
     * in m->body; of a big message, only the header is there, in `header`. */
    void (*decide)(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header);
    /* The message is durable; the references of the live recipients are handed over. */
    void (*enqueue)(void *ctx, unsigned worker, struct hky_message *m);
    /* Has another thread read a login's secret. `ref` belongs to `policy`. `done` is called on the worker's loop, never
     * from inside this call. */
    void (*secret)(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_secret_ref *ref,
                   void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg);
    void (*event)(void *ctx, unsigned worker, const struct hky_event *ev);
};

struct hky_accept_params {
    unsigned n_workers;
    struct hky_loop *const *loops;
    struct hky_journal *journal;
    const struct hky_clock *clock;
    struct hky_log *log;
    const struct hky_accept_ops *ops;
};

/* Binds all listeners of the policy (first without SO_REUSEPORT, so that a port in use is noticed: HKY_E_EXISTS),
 * checks certificates, refuses an open relay: a listener beyond loopback with neither users nor allow (HKY_E_CONFIG).
 */
enum hky_err hky_accept_new(const struct hky_accept_params *p, const struct hky_policy *policy, struct hky_accept **out,
                            struct hky_error *e);
/* Sets the journal where params.journal was NULL, so that clients can wait at the open port while the journal is read.
 * Call this before start. */
void hky_accept_set_journal(struct hky_accept *a, struct hky_journal *journal);
void hky_accept_start(struct hky_accept *a); /* begin to take connections */

/* Would new and prepare accept this listener of the policy, with its networks, logins and certificate? This is for
 * `check`, which opens nothing. HKY_E_CONFIG and HKY_E_TLS name file and line. It blocks, because it reads files. */
enum hky_err hky_accept_check_listener(const struct hky_policy *policy, const struct hky_listen *l,
                                       struct hky_error *e);

/* A reload has two halves, both on the thread that called start. Prepare does all that can fail (as in new: addresses,
 * certificates, open relay) and changes nothing; new sockets are bound. Commit, when the new policy is on its way to
 * the workers, opens and closes listeners; open sessions go on under the new policy, or end. `policy` is borrowed until
 * commit or abandon. Abandon drops the prepared change.
 */
struct hky_accept_change;
enum hky_err hky_accept_prepare(struct hky_accept *a, const struct hky_policy *policy, struct hky_accept_change **out,
                                struct hky_error *e);
void hky_accept_commit(struct hky_accept *a, struct hky_accept_change **change);
void hky_accept_abandon(struct hky_accept *a, struct hky_accept_change **change); /* NULL is fine */

/* Takes no new sessions, ends idle ones with 421, and lets running transactions finish. Calls `done(ctx)` on loop 0, at
 * the latest after grace_ms. Clients that are in the middle of a message then get 421; those whose message is being
 * written to the journal still get their reply. */
void hky_accept_drain(struct hky_accept *a, int64_t grace_ms, void (*done)(void *ctx), void *ctx);
void hky_accept_free(struct hky_accept **a); /* after the loops have stopped */

/* The port the i-th listener got, 0 when there is none (tests listen on port 0). */
uint16_t hky_accept_port(const struct hky_accept *a, unsigned i);

struct hky_accept_stats {
    uint64_t sessions, sessions_total, messages, recipients, refused;
};
/* The figures as they are now, each for itself. Any thread. */
void hky_accept_stats(const struct hky_accept *a, struct hky_accept_stats *out);

#endif
