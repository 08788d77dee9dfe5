/*
 * schedule -- the live queue in memory: lanes, ranks, timers, caps, breakers        journal -> [schedule] <-> deliver
 * It is derived from the journal. Each worker has a shard of its own; workers share only relays, caps and breakers,
 * under locks that are never held over a call. A lane is the queue of one (relay, account, destination) and has one
 * home worker for life.
 */
#ifndef HIKYAKU_SCHEDULE_H
#define HIKYAKU_SCHEDULE_H

#include "base/nearest.h"
#include "hikyaku/journal.h"
#include "hikyaku/message.h"
#include "hikyaku/policy.h"
#include "hikyaku/route.h"
#include "hikyaku/record.h"
#include "net/loop.h"

struct hky_schedule;
struct hky_shard; /* one worker's part */
struct hky_lane;  /* see below */

/* ---- what the engine hands in ---- */
struct hky_schedule_ops {
    void *ctx;
    /* A lane has something to take now: open or use connections. With n_ready = 0 it has no mail, but a job that was
     * told to wait: call hky_schedule_take_again for it. Called on the lane's home worker, never from inside
     * hky_schedule_take. May be called often. */
    void (*wake)(void *ctx, unsigned worker, struct hky_lane *lane);
    /* The lane is about to be freed, after it was idle for long or its policy was replaced: free lane->deliver. */
    void (*lane_end)(void *ctx, unsigned worker, struct hky_lane *lane);
    /* Asks the policy on this worker, and fills `out` as hky_route_decide does. HKY_WAITS: the decision goes on when
     * hky_schedule_answered was called and `decide` is called again. HKY_CROWDED: too many decisions wait; `decide` is
     * called again when one of them has ended. */
    void (*decide)(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out);
    /* The recipient has ended, its state is final: journal it, with a notice where one is due, then drop the reference.
     * `o` is the last outcome; NULL: there was none, because it expired without an attempt or was cancelled. */
    void (*finish)(void *ctx, unsigned worker, struct hky_recipient *r, const struct hky_outcome *o);
    /* Something has happened that belongs into the event log. */
    void (*event)(void *ctx, unsigned worker, const struct hky_event *ev);
    /* The decision about r is not needed any more: drop it, and do not call hky_schedule_answered for it. This may be
     * called for an r without a decision, too. It is NULL when `decide` never says HKY_WAITS. */
    void (*forget)(void *ctx, unsigned worker, const struct hky_recipient *r);
};

struct hky_schedule_params {
    unsigned n_workers;
    struct hky_loop *const *loops; /* n_workers */
    struct hky_journal *journal;
    struct hky_policy *policy; /* a reference is taken */
    const struct hky_clock *clock;
    struct hky_log *log;
    const struct hky_schedule_ops *ops;
    bool is_everyone_reached; /* engine.only_to is ignored: for rehearsals */
    const char *dir;          /* the spool: dir/inflight lists what is being sent; NULL: there is no such file */
    bool was_unclean;         /* the last stop was not clean: what that file lists was being sent */
};

/* HKY_E_CONFIG: there is no worker. Nothing runs before hky_schedule_start; `loops` is borrowed for the call, what
 * they stand for until free. */
enum hky_err hky_schedule_new(const struct hky_schedule_params *p, struct hky_schedule **out, struct hky_error *e);
/* At a stop in order, when the loops have stopped and all results are submitted: writes to the journal what the next
 * start should know of the caps, and waits until the disk has taken or refused everything. After a refusal dir/inflight
 * keeps the messages whose results are not written, so that the next start counts them. */
void hky_schedule_settle(struct hky_schedule *s);
/* Call it when the loops have stopped and the journal is closed. It reports nothing about recipients. */
void hky_schedule_free(struct hky_schedule **s);

/* Replay calls these two before the loops run. A recipient that waits because a relay refused the login, or because TLS
 * with it failed, is tried at once, as after a reload: one of the account first, the others when it gets in. */
void hky_schedule_restore_message(struct hky_schedule *s, struct hky_message *m);
void hky_schedule_restore_cap(struct hky_schedule *s, struct hky_str key, struct hky_str value);
/* How many of the recipients restored so far may get their message twice: it was being sent when the last run was
 * killed, or had been sent without its result being written. Not *is_at_most: dir/inflight was missing or too small, so
 * that it may be more. After a power cut that file may be old. A message that was being sent at three such ends is
 * held. */
uint64_t hky_schedule_maybe_duplicates(const struct hky_schedule *s, bool *is_at_most);
/* Call it after replay. Work begins when the loops run. */
void hky_schedule_start(struct hky_schedule *s);

/* A message is on disk. Each of its recipients without a final state is live from now on; the caller gives one
 * reference to the message for each of them. Call it on `worker`'s thread; recipients find their lanes' home workers
 * themselves. */
void hky_schedule_enqueue(struct hky_schedule *s, unsigned worker, struct hky_message *m);

/* The decision about r has what it waited for, or was dropped and has to begin again: `decide` is called again soon,
 * but not from inside this call. Call it on `worker`'s thread, for recipients for which `decide` said HKY_WAITS. */
void hky_schedule_answered(struct hky_schedule *s, unsigned worker, struct hky_recipient *r);

/* Sets a new policy. Lanes follow it, recipients get new plans at their next attempt as POLICY.md 2.4 says, and it is
 * asked about parked ones at once. Mail that was deferred because a relay refused login or TLS is retried at once where
 * that may be repaired: the settings of the relay have changed, or its pause ends. Any thread. */
void hky_schedule_set_policy(struct hky_schedule *s, struct hky_policy *policy);

/* Does what is due now; call it on that worker's thread. It is for tests that move the clock: by itself the schedule
 * looks at the clock once a second. */
void hky_schedule_tick(struct hky_schedule *s, unsigned worker);

/* When something is due next; now: there is work already; INT64_MAX: nothing is due. Only rehearsals may call it: their
 * one thread runs all loops, and these are at rest. */
int64_t hky_schedule_next_at(const struct hky_schedule *s);

/* For so long it is as if others had used up all that the caps of the relay's account allow (rehearsals).
 * HKY_E_MISSING: there is no such relay. HKY_E_STATE: it has no cap. */
enum hky_err hky_schedule_use_up(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e);

/* Begins no new transactions. `done(ctx)` is called on loop 0 when none is under way any more, or after grace_ms. */
void hky_schedule_drain(struct hky_schedule *s, int64_t grace_ms, void (*done)(void *ctx), void *ctx);

/* ---- what deliver uses, on the lane's home worker ---- */
struct hky_lane {
    const struct hky_relay *relay; /* valid while `policy` is referenced by the lane */
    struct hky_policy *policy;
    const char *relay_name;
    const char *account;     /* relay->account, or the step's */
    const char *destination; /* own delivery: recipient domain (A-label); else "" */
    unsigned worker;
    void *deliver;    /* belongs to deliver */
    uint32_t n_ready; /* recipients that could be taken now, but for caps, breaker and pause */
};

struct hky_job { /* one transaction: recipients of one message with one identity */
    struct hky_lane *lane;
    struct hky_message *message;
    struct hky_identity identity;
    unsigned n;
    struct hky_recipient **recipients;
    void *schedule; /* belongs to schedule */
};

enum hky_take { HKY_TAKE_JOB, HKY_TAKE_EMPTY, HKY_TAKE_WAIT /* for cap, breaker or pause: wake is called later */ };
/* The next job for a connection that can send one, or will when it is open. Its cap slots are taken and on disk when
 * this returns. Its recipients are SENDING until their results are reported. */
enum hky_take hky_schedule_take(struct hky_lane *lane, struct hky_job **out);
/* Reports the outcome of recipient i (0 <= i < n), once for each, in any order. `o` is copied. */
void hky_schedule_result(struct hky_job *job, unsigned i, const struct hky_outcome *o);
/* Frees the job. Recipients without a reported outcome are back in the queue, and no attempt is counted for them.
 * `mail_sent`: MAIL or RCPT was written, so the cap slots stay used for one window from now on; false gives them back.
 */
void hky_schedule_done(struct hky_job **job, bool mail_sent);
/* MAIL of this job was written, and is to be written again at another host for the recipients that are left: counts the
 * cap slots that it has as used and takes new ones. JOB: go on. WAIT: the lane is woken when there are some, even when
 * it has no mail or belongs to an older policy. EMPTY: there are none within a minute in all; the relay or its account
 * is paused, the relay is drained, replaced or gone; or a recipient has expired, is not named by engine.only_to any
 * more, or was held or cancelled by an operator: end the job. */
enum hky_take hky_schedule_take_again(struct hky_job *job);
/* How much the server was seen to take from this account (in own delivery: this destination); it is kept until the
 * engine stops. 0: it takes more again. The size of jobs follows the recipients; the list of relays shows all three. */
enum hky_learned {
    HKY_LEARNED_RECIPIENTS,  /* of a message */
    HKY_LEARNED_CONNECTIONS, /* at a time */
    HKY_LEARNED_MESSAGES,    /* by a connection */
    HKY_LEARNED_N
};
void hky_schedule_learn(struct hky_lane *lane, enum hky_learned what, uint32_t n);
/* The connection ended before this job was begun: all recipients are back in the queue, no attempt is counted, and its
 * slots are free. */
void hky_schedule_give_back(struct hky_job **job);

/* ---- how a plan goes on: pure, also for explain ---- */
struct hky_advance_query {
    const struct hky_policy *policy;
    const struct hky_recipient *recipient; /* plan, step, counters as before this outcome */
    const struct hky_outcome *outcome;     /* an attempt, or a reason (class FULL PAUSED SENDS_AS) */
    int64_t now_ms;
};
struct hky_advance {
    enum hky_action action; /* RETRY: the same step at at_ms. NEXT: go to `step` now. FAIL. HOLD. DONE: delivered */
    uint8_t step;
    int64_t at_ms;
    uint32_t pause_account_sec; /* > 0: the account is paused so long (quota, auth, denied) */
    bool slow_lane;             /* rate_limited: this lane gets fewer jobs, less often */
    char why[120];              /* "step own left: 2 h are over" */
};
/* What the outcome makes of the plan (POLICY.md 2b): the recipient does not change. All is borrowed. */
void hky_schedule_plan_advance(const struct hky_advance_query *q, struct hky_advance *out);
/* The first step to enter for a recipient that has none yet, skipping those that cannot send as this author. */
void hky_schedule_plan_first(const struct hky_policy *policy, const struct hky_recipient *r, struct hky_advance *out);

/* ---- operators ---- */
struct hky_selection {              /* all conditions that are given must be true; none given: everybody */
    const char *relay;              /* of the current step; NULL in this and the next: not given */
    const char *to, *from, *author; /* recipient, envelope sender ("<>": the null one), address in From: an
                                       address, a domain, .domain or "*" */
    const char *scenario, *tag, *class, *state;
    const char *where; /* Lua expression on r */
    bool has_older, has_message;
    int64_t older_ms; /* accepted at least so long ago */
    uint64_t message; /* id */
};
/* Hold and cancel of a recipient that is being sent take effect when its attempt ends without a delivery; release takes
 * that back. If the engine is killed before that, the next start finds the recipient held in both cases. */
enum hky_queue_action { HKY_QUEUE_LIST, HKY_QUEUE_RETRY, HKY_QUEUE_HOLD, HKY_QUEUE_RELEASE, HKY_QUEUE_CANCEL };
/* One selected recipient as it is now, before anything is done to it; all of it valid during the call. */
struct hky_queue_row {
    const struct hky_recipient *recipient; /* its message, plan, counters and attempts: hikyaku/message.h */
    const char *state;                     /* queued sending deferred parked undecided held */
    const char *relay;                     /* of its current step, "" none */
    const char *goes_by;                   /* another relay than its step's, which sends its mail now; NULL none */
    bool is_by_policy;                     /* goes_by: the policy says so (instead); else an operator's drain */
    const char *waits;                     /* what its lane waits for: cap paused breaker slowed disk; NULL nothing */
    bool is_paused_by_policy;              /* the relay of that lane: only another policy ends it */
    const char *reason;                    /* why it is held or parked, or what happens when its attempt ends; NULL */
    int64_t now_ms, next_at_ms;            /* next_at_ms: when it may go, 0 at once or not known */
};
/* Is a name of the selection known to the queue? */
struct hky_name_seen {
    struct hky_nearest_name near; /* is_known: some recipient of the queue has it, selected or not */
    char nearest[80];             /* what near.name is kept in, "" when none is similar */
    char last[80];                /* compared last: neighbours mostly have the same */
};
/* `row` is called for the first `limit` selected recipients, on the workers' threads, never for two at a time; NULL: no
 * rows. `done` is called on `loop`; or, with an error, by hky_schedule_free, if that comes first. */
struct hky_queue_request {
    struct hky_selection selection;
    enum hky_queue_action action;
    bool is_dry_run; /* list only */
    unsigned limit;
    struct hky_loop *loop;
    void (*row)(void *ctx, const struct hky_queue_row *row);
    void (*done)(struct hky_queue_request *rq);
    void *ctx;
    /* Evaluates `where` on a worker; NULL when where is NULL. */
    bool (*where_is_true)(void *ctx, unsigned worker, const struct hky_recipient *r);
    /* out */
    uint64_t n;
    uint64_t n_kept;    /* release: they stay held, because engine.only_to would hold them again */
    uint64_t n_held;    /* retry: selected, too, but held; they stay so until they are released */
    uint64_t n_due;     /* retry: selected, too, but due already: they wait for their turn at a relay */
    uint64_t n_late;    /* release: of the n, so many expire at once: their deadline is over */
    uint64_t n_used_up; /* retry, release: of the n, so many wait until they expire: their attempts are used up */
    uint64_t n_spent;   /* release: they stay held: they may have been delivered, and no attempt can follow */
    struct hky_name_seen relay_seen, scenario_seen, tag_seen;
    struct hky_error error;
    void *schedule;
};
void hky_schedule_query(struct hky_schedule *s, struct hky_queue_request *rq);

/* Pause, resume, drain to another; kept by the caller in state.db. Any thread. for_sec 0: until resumed. What is said
 * last counts: pause ends a drain, and drain a pause. HKY_E_MISSING: no such relay, with the nearest name. HKY_E_STATE:
 * the policy decides otherwise (paused, instead), so that it would change nothing; what an operator said before is
 * forgotten by resume all the same. HKY_E_CONFIG: it cannot be drained to that relay. */
enum hky_err hky_schedule_pause(struct hky_schedule *s, const char *relay, uint32_t for_sec, struct hky_error *e);
enum hky_err hky_schedule_resume(struct hky_schedule *s, const char *relay, struct hky_error *e);
enum hky_err hky_schedule_drain_relay(struct hky_schedule *s, const char *relay, const char *to, uint32_t for_sec,
                                      struct hky_error *e);

struct hky_relay_cap {
    char text[32]; /* as written, "10/min" */
    uint64_t used;
    uint32_t n;
    int64_t next_at_ms; /* when the next slot comes; 0: one is free */
};
#define HKY_BROKEN_SHOWN 5
struct hky_relay_row { /* one relay as it was when the list was made */
    const struct hky_relay *relay;
    const char *state;    /* ok paused drained broken probing */
    int64_t until_ms;     /* how long it stays so, 0 until resumed */
    char *to;             /* drained: the relay through which its mail is sent, else NULL */
    const char *to_state; /* the state of that one */
    bool is_to_paused_by_policy;
    char why[300];     /* "" nothing to say */
    uint32_t n_broken; /* own delivery: domains that cannot be sent to for now, and the first few */
    char *broken[HKY_BROKEN_SHOWN];
    uint32_t n_queued, n_deferred, n_sending, n_failures;
    uint32_t learned[HKY_LEARNED_N]; /* 0: nothing */
    unsigned n_caps;
    struct hky_relay_cap caps[HKY_CAPS_MAX]; /* of its account */
};
struct hky_relay_list {
    struct hky_policy *policy; /* whose relays these are; a reference */
    uint32_t n;
    struct hky_relay_row *rows;
};
/* All relays of the policy in force, in its order. Any thread; free with the next. */
void hky_schedule_relays(struct hky_schedule *s, struct hky_relay_list *out);
void hky_relay_list_fini(struct hky_relay_list *list);
/* Totals, for status. */
struct hky_schedule_stats {
    uint64_t queued, sending, deferred, parked, held, undecided, delivered, failed /* or expired */, cancelled,
        attempts;
    uint64_t notices; /* failure notices that ended, however: they count as nothing else */
};
void hky_schedule_stats(struct hky_schedule *s, struct hky_schedule_stats *out);

#endif
