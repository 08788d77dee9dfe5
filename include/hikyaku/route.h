/*
 * route -- runs the policy: it makes one decision for each recipient and returns a plan. It is the stage between accept
 * and journal, and is the only stage that knows Lua.
 */
#ifndef HIKYAKU_ROUTE_H
#define HIKYAKU_ROUTE_H

#include "base/log.h"
#include "hikyaku/message.h"
#include "hikyaku/policy.h"

enum hky_problem_level { HKY_PROBLEM_ERROR, HKY_PROBLEM_WARNING, HKY_PROBLEM_NOTE }; /* the last: note "text" at load */
/* One line of what `check` prints. */
struct hky_problem {
    struct hky_place place; /* file "" = not tied to a file */
    enum hky_problem_level level;
    char *text; /* what is wrong, and what to do */
};
struct hky_problems {
    struct hky_problem *items;
    size_t n, cap;
    size_t n_errors, n_warnings;
};
void hky_problems_fini(struct hky_problems *p);
/* Adds a problem unless the same text was already added for the same line; above 200, problems are only counted. */
void hky_problems_add(struct hky_problems *p, struct hky_place place, enum hky_problem_level level, const char *text);
const char *hky_problem_level_name(enum hky_problem_level level);
/* "policy.lua:12: error: ..." */
void hky_problem_format(const struct hky_problem *p, struct hky_buf *out);

struct hky_policy_load_params {
    const char *path;
    const char *const *env; /* "NAME=value" ended by NULL: replaces the environment; NULL = the real one */
    int64_t now_ms;
    uint64_t instructions; /* that the files may use; 0 = 200 million, about a second */
    bool may_lack_routes;  /* for callers that need only relays; else a policy without any route is an error */
};
/* The documentation of one key of an object of the policy language. */
struct hky_key_doc {
    const char *name;
    const char *doc; /* sentences; text between backquotes is typed as it is */
    const char *lua; /* its type, as editors write it */
    bool is_needed;
};
/* The key at position `at` of "engine", "bounds", "listen", "user", "relay", "oauth", "timeout", "condition" (of routes
 * and rows), "route", "row", "step", "arm" or "split", for manual pages and editors; false: there are no more. */
bool hky_policy_key_doc(const char *object, size_t at, struct hky_key_doc *out);

/* Load and check as `run` would. All problems are collected; on any error *out is NULL and HKY_E_CONFIG comes back.
 * No secret is read, nothing is opened but the policy's own files and those of `ca`. Blocks (files): not on a worker.
 */
enum hky_err hky_policy_load(const struct hky_policy_load_params *params, struct hky_policy **out,
                             struct hky_problems *problems);

/* One Lua state of one worker for one policy. */
struct hky_vm;
/* Runs the files of the policy as they were when it was loaded; a reference to it is taken. HKY_E_SCRIPT: they do not
 * do the same again, or need more than engine.bounds.lua_memory. Blocks for as long as they run. */
enum hky_err hky_vm_new(struct hky_policy *policy, struct hky_vm **out, struct hky_error *e);
void hky_vm_free(struct hky_vm **vm);
/* A log that also receives the note "text" of running scripts, at level info: quoted, cut, at most ten lines a second,
 * with the number of notes left out. NULL, the initial value: notes are not logged. The log is borrowed. */
void hky_vm_set_log(struct hky_vm *vm, struct hky_log *log);
struct hky_policy *hky_vm_policy(const struct hky_vm *vm);
/* True when scripts keep so much in their variables that calls find no memory; only a new vm helps then. */
bool hky_vm_is_full(const struct hky_vm *vm);

/* The DNS look-ups of one worker's decisions. Each worker has one, which outlives the worker's vms. */
struct hky_lookups;
struct hky_loop;
struct hky_lookups *hky_lookups_new(struct hky_loop *loop, const struct hky_policy *policy);
/* Take resolver and bounds from a newer policy. Call it only while no decision waits. */
void hky_lookups_set_policy(struct hky_lookups *l, const struct hky_policy *policy);
/* For a program that does nothing else (explain): decisions run the loop until their answer has come, and never return
 * WAITS. */
void hky_lookups_wait_here(struct hky_lookups *l);
void hky_lookups_free(struct hky_lookups **l); /* no vm uses it any more */
/* Borrowed. NULL, the initial value: a decision that needs a look-up cannot be completed. */
void hky_vm_set_lookups(struct hky_vm *vm, struct hky_lookups *lookups);

struct hky_route_query {
    const struct hky_message *message;
    const struct hky_recipient *recipient;
    struct hky_str header; /* header section; {NULL,0}: header_read is called when it is needed */
    int64_t now_ms;
    /* Called once, when a script or a condition asks for the header: fills `out` for the time of the decision. It
     * returns false when the header is not at hand; then nothing is decided. NULL: there are no headers. */
    bool (*header_read)(void *ctx, struct hky_str *out);
    void *header_ctx;
};

/*
 * UNREAD      a script or condition needs the header, which is not at hand; decide again soon
 * WAITS       a look-up is under way whose answer the decision needs
 * UNANSWERED  a look-up failed, perhaps only for a while; text says which and why. Its failure does not make the
 *             decision move on to another route
 * CROWDED     so many decisions wait that this one cannot begin (never returned by route itself)
 */
enum hky_decision_kind {
    HKY_DECIDED,
    HKY_NO_ROUTE,
    HKY_POLICY_ERROR,
    HKY_UNREAD,
    HKY_WAITS,
    HKY_UNANSWERED,
    HKY_CROWDED
};
struct hky_decision {
    enum hky_decision_kind kind;
    struct hky_plan *plan; /* counted reference for the caller when DECIDED */
    uint32_t policy;       /* low 32 bits of the hash of the policy that decided; 0: the policy in force */
    char *arms;            /* "experiment\0arm\0" malloc'ed or NULL */
    uint32_t arms_n;
    char text[200];           /* why not: "no_route: ..." or "policy.lua:12: attempt to index nil" */
    const char *failed_route; /* POLICY_ERROR: the route whose script failed; WAITS, UNANSWERED: the route that needs
                               * the look-up; else NULL. Valid as long as the policy's table */
    struct hky_place place;
};
/* Decide for one recipient, under the limits of instructions, time and memory. Never blocks. The plan has at least one
 * step. The recorded arms of the recipient (if any) win over the hash. A decision that WAITS is dropped: this call is
 * for the time before the 250, when only recipients are decided that need no look-up. */
void hky_route_decide(struct hky_vm *vm, const struct hky_route_query *q, struct hky_decision *out);

/*
 * The same for a decision that may wait. With WAITS, *waits is the decision under way: `ready(ctx)` is called once, on
 * this thread and never from inside these calls, when hky_route_continue can continue it. The query is borrowed for the
 * duration of each call; the next call brings its own query about the same recipient. Other recipients can be decided
 * meanwhile. A decision that waits must be dropped before its vm or the lookups are freed; `ready` is not called after
 * the drop.
 */
struct hky_deciding;
void hky_route_begin(struct hky_vm *vm, const struct hky_route_query *q, void (*ready)(void *ctx), void *ctx,
                     struct hky_deciding **waits, struct hky_decision *out);
void hky_route_continue(struct hky_deciding **waits, const struct hky_route_query *q, void (*ready)(void *ctx),
                        void *ctx, struct hky_decision *out);
void hky_deciding_drop(struct hky_deciding **waits); /* NULL is fine */

/* A Lua expression on r (queue --where): compiled once per vm, then asked for each recipient. An expression that does
 * not compile is HKY_E_SYNTAX with the message, one that is too long HKY_E_LIMIT. For a recipient: HKY_E_STATE, the
 * header is not at hand, ask again soon; HKY_E_SCRIPT, the expression fails. */
struct hky_where;
enum hky_err hky_where_new(struct hky_vm *vm, struct hky_str expression, struct hky_where **out, struct hky_error *e);
bool hky_where_is_true(struct hky_where *w, const struct hky_route_query *q, struct hky_error *e);
void hky_where_free(struct hky_where **w);

/* The sender identity of one attempt, see "WHO SENDS" in hikyaku-policy(5). */
struct hky_identity {
    bool is_allowed;      /* false: the step is skipped for the reason sends_as */
    bool is_rewritten;    /* From changes to `from` */
    bool is_alone;        /* From must name `from` and nobody else, however many authors the message has */
    char from[322];       /* address for From; = author when not rewritten */
    char sender[322];     /* envelope sender, {id} {rcpt} replaced; "" null */
    char reply_to[322];   /* Reply-To to set where the message has none; "" = none to set */
    bool reply_to_forced; /* the step or route says reply_to: replaces an existing one */
};
void hky_identity_choose(const struct hky_policy *policy, const struct hky_relay *relay, const struct hky_plan *plan,
                         uint8_t step, const struct hky_message *message, const struct hky_recipient *recipient,
                         struct hky_identity *out);

/* Explain: which routes matched, which did not, and why. The CLI makes text or JSON from this. */
struct hky_considered {
    const char *route;
    struct hky_place place;
    bool matched;
    char why[160];
};
struct hky_explanation {
    struct hky_decision decision;
    struct hky_considered *considered;
    size_t n_considered;
    char **notes; /* from note "..." */
    size_t n_notes;
    char mail_hosts[240]; /* what a condition mx saw: the hosts, or why there are none; "": nothing was looked up */
};
void hky_route_explain(struct hky_vm *vm, const struct hky_route_query *q, struct hky_explanation *out);
void hky_explanation_fini(struct hky_explanation *x);

/* The shipped presets, for `presets [NAME]`: prints lines "key = value  -- source, date". NULL name: the list of
 * presets. HKY_E_MISSING: no preset has that name; `e` has the nearest. */
enum hky_err hky_presets_print(const char *name, bool as_json, struct hky_buf *out, struct hky_error *e);

#endif
