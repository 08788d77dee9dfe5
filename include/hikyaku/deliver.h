/*
 * deliver -- speaks to the relay, or to the recipient's MX: pooled, pipelined, overlapped, TLS, AUTH; applies the
 * rewrite. One instance a worker. Pools are keyed by host, port, TLS policy, account and settings (DESIGN.md 3.1, 3.6).
 */
#ifndef HIKYAKU_DELIVER_H
#define HIKYAKU_DELIVER_H

#include "hikyaku/schedule.h"
#include "hikyaku/state.h"

struct hky_deliver;

/* What the engine learns about servers: which of them can take overlapped commands. There is one for the engine, which
 * all workers share. It is kept over restarts in state.db; with `state` NULL it is not. */
struct hky_servers;
struct hky_servers *hky_servers_new(struct hky_state *state, const struct hky_clock *clock);
void hky_servers_free(struct hky_servers **s);

struct hky_deliver_params {
    struct hky_loop *loop;
    unsigned worker;
    struct hky_journal *journal; /* bodies */
    struct hky_log *log;
    const struct hky_clock *clock;
    struct hky_servers *servers; /* borrowed; NULL: this instance makes one of its own, which is not kept */
    void *ctx;
    /* Has another thread read a password or OAuth token; `done` is called on this loop and gets one reference.
     * `refused` is the token that the relay refused, borrowed for the call, or NULL. `policy` is the one that `relay`
     * belongs to; after a reload it need not be the newest. */
    void (*secret)(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_relay *relay,
                   struct hky_secret *refused, void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e),
                   void *arg);
};
enum hky_err hky_deliver_new(const struct hky_deliver_params *p, struct hky_deliver **out, struct hky_error *e);
/* For a stop; call it on the loop. Takes no further jobs, says QUIT on idle connections, and gives the jobs of
 * connections that cannot send yet back at once. Transactions under way go on. */
void hky_deliver_drain(struct hky_deliver *d);
void hky_deliver_free(struct hky_deliver **d); /* after the loop has stopped; gives open jobs back */

void hky_deliver_wake(struct hky_deliver *d, struct hky_lane *lane);        /* schedule's ops.wake */
void hky_deliver_forget_lane(struct hky_deliver *d, struct hky_lane *lane); /* schedule's ops.lane_end */

/* The credentials of all relays: one store for the engine, on its aux loop. It answers `secret` above with a password,
 * or with an access token from a refresh (net/http) or from token_command. It remembers an access token until 60 s
 * before the token expires, and keeps new refresh tokens in state.db. */
struct hky_credentials;
enum hky_err hky_credentials_new(struct hky_loop *aux, struct hky_state *state, struct hky_log *log,
                                 struct hky_credentials **out, struct hky_error *e); /* HKY_E_LIMIT: no thread */
/* On aux: the next connection reads its password or token anew, because an operator may have corrected it. */
void hky_credentials_forget(struct hky_credentials *c);
/* Ends the readings that are under way, once the loops no longer run. Call `free` when nobody posts to the loops any
 * more. */
void hky_credentials_stop(struct hky_credentials *c);
void hky_credentials_free(struct hky_credentials **c);
/* May be called on any thread. A reference to the policy is kept until `done`, which is called on `loop`. With
 * `refused` the answer is a newer secret than that one; it is fetched, unless another caller's question has fetched it
 * already. */
void hky_credentials_get(struct hky_credentials *c, struct hky_policy *policy, const struct hky_relay *relay,
                         struct hky_secret *refused, struct hky_loop *loop,
                         void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg);

/* The connection test reports every stage with its time and verbatim reply. It runs on its own loop and blocks the
 * caller (CLI). */
struct hky_probe_line {
    enum hky_stage stage;
    int64_t took_ms;
    bool is_good;
    bool is_note; /* neither good nor bad: facts about the server (its certificate) */
    char text[HKY_REPLY_TEXT + 64];
};
struct hky_probe_params {
    struct hky_policy *policy;
    const struct hky_relay *relay;
    const char *to; /* recipient of the test mail; NULL = engine.owner */
    bool send;      /* false: stop after RCPT and RSET */
    bool is_ja;     /* the test's own texts are in Japanese */
    void (*on_line)(void *ctx, const struct hky_probe_line *line);
    void *ctx;
};
/* HKY_OK: every stage went well. Otherwise `outcome` says at which stage the test failed, and why. */
enum hky_err hky_probe_run(const struct hky_probe_params *p, struct hky_outcome *outcome, struct hky_error *e);
/* Appends the likely cause and cure of an outcome, for people; `lang` is "en" or "ja". */
void hky_probe_cure(const struct hky_relay *relay, const struct hky_outcome *o, const char *lang, struct hky_buf *out);

/* One class, explained for people; hikyaku-classes(7) is made from it. Keys and commands are written between
 * backquotes. */
struct hky_class_doc {
    const char *meaning;
    const char *done;                  /* what Hikyaku does; NULL: it differs with the reply's first digit, see next */
    const char *permanent, *temporary; /* after 5xx, after 4xx; NULL where `done` says it */
    const char *operator;              /* what the operator does */
    struct {
        enum hky_stage stage;
        bool is_own; /* said by a recipient's MX, else by a relay */
        const char *text;
    } replies[4]; /* typical ones; ended by one without text */
};
const struct hky_class_doc *hky_class_doc(enum hky_class c);

#endif
