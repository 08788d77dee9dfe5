/*
 * rehearse -- runs plans without an engine. The schedule works as it does in service, but on one thread, with the
 * journal in memory, relays that answer as a script says, and a clock that only the caller moves. Nothing is sent, no
 * file is written, no secret is read, nothing ever waits. `explain --after` and the unit tests of schedule are built on
 * it.
 *
 *   struct hky_rehearsal r;
 *   hky_rehearsal_init(&r, policy, at_ms, &e);
 *   r.decide = hky_rehearsal_decide_by_vm, r.ctx = vm;
 *   hky_rehearsal_open(&r, &e) == HKY_OK && hky_rehearsal_start(&r);
 *   hky_rehearsal_add_reply(&r, "own connect 554 5.7.1 blocked", &e);
 *   hky_rehearsal_send(&r, message);
 *   hky_rehearsal_run(&r, at_ms + 3600 * 1000);
 *   ... r.acts[0 .. r.n_acts) says what happened, in order
 *   hky_rehearsal_fini(&r);
 */
#ifndef HIKYAKU_REHEARSE_H
#define HIKYAKU_REHEARSE_H

#include "hikyaku/journal_memory.h"
#include "hikyaku/notice.h"
#include "hikyaku/schedule.h"

#define HKY_REHEARSAL_RELAY 128 /* octets of a relay's name that an act keeps */

/* Something that happened: a copy of an event of the schedule (record.h). */
struct hky_rehearsal_act {
    enum hky_event_kind kind;
    int64_t at_ms;
    uint64_t message;   /* id; 0: the event is about a relay */
    uint32_t recipient; /* index in the message */
    bool is_attempt;    /* a relay was spoken to */
    bool has_outcome;   /* an attempt, or a step that was left without one (full, paused, sends_as) */
    bool pauses_account, slows_lane;
    uint8_t step;       /* the recipient's step after the event, from 0 */
    int64_t next_at_ms; /* deferred: the next attempt; relay_paused: until when */
    struct hky_outcome outcome;
    char relay[HKY_REHEARSAL_RELAY]; /* the relay that was tried or left; "" none */
    char from[322], sender[322];     /* of an attempt: From and the envelope sender as sent */
    char text[200];                  /* why */
};

struct hky_rehearsal_reply; /* a line of the script */

struct hky_rehearsal {
    /* ---- may be set between init and open ---- */
    void *ctx; /* passed to the next three */
    /* Decides for one recipient, as schedule's `decide`; NULL: nobody decides, recipients come with their plans. */
    void (*decide)(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out);
    void (*event)(void *ctx, const struct hky_event *ev); /* called for each event, too; may be NULL */
    void (*ended)(void *ctx, struct hky_recipient *r,
                  const struct hky_outcome *o); /* called for each end, too; may be NULL */
    bool is_by_hand;                            /* relays do not answer by themselves; the caller takes and answers */
    bool is_forgetful;                          /* no acts are kept */
    bool is_everyone_reached;                   /* engine.only_to is ignored */
    bool has_notices;                           /* failure notices are made as in service, and queued; else none are */
    struct hky_log *log;                        /* the schedule's log; may be NULL */
    const char *dir;                            /* where the schedule notes what is being sent; NULL nowhere */
    bool was_unclean;
    struct hky_schedule_ops ops; /* what the schedule calls; its ctx is the rehearsal */

    /* ---- to look at ---- */
    struct hky_policy *policy; /* a reference */
    struct hky_clock clock;    /* `stopped_at_ms` is the time */
    struct hky_loop *loop;
    struct hky_journal *journal; /* hky_journal_memory_new */
    struct hky_schedule *schedule;
    struct hky_lane **woken; /* lanes that reported a job to take */
    unsigned n_woken, woken_cap, n_lanes_ended;
    struct hky_rehearsal_act *acts;
    size_t n_acts, acts_cap;
    struct hky_rehearsal_reply *replies;
    size_t n_replies;
    struct hky_notice *notice;       /* has_notices */
    struct hky_message *last_notice; /* a reference to the newest failure notice; NULL: there was none */
};

/* The clock shows at_ms. HKY_E_NET: no loop could be made; then nothing is left to free. */
enum hky_err hky_rehearsal_init(struct hky_rehearsal *r, struct hky_policy *policy, int64_t at_ms, struct hky_error *e);
/* Makes the schedule. After that the caller may restore what an earlier run left (hky_schedule_restore_...), and calls
 * hky_rehearsal_start. Errors as of hky_schedule_new. */
enum hky_err hky_rehearsal_open(struct hky_rehearsal *r, struct hky_error *e);
void hky_rehearsal_start(struct hky_rehearsal *r);
void hky_rehearsal_fini(struct hky_rehearsal *r); /* also when it was never opened */

/* A `decide` that asks the policy itself; its ctx is a struct hky_vm. */
void hky_rehearsal_decide_by_vm(void *vm, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out);

/* ---- the script ---- */

/*
 * "RELAY [always] [STAGE] REPLY": says how this relay answers its next attempt; with "always", every attempt for which
 * no other line is left. REPLY is a reply ("550 5.1.1 no such user"), a class ("mailbox_full"), or what goes wrong
 * before a reply comes ("timeout", "refused", "lost", "dns", "tls"). Lines are used up in order, one for each attempt;
 * a line about RCPT, or with a class, applies to one recipient, any other line to all recipients of the transaction. A
 * relay without a line says "250 ok". HKY_E_SYNTAX: `e` says which part is not understood.
 */
enum hky_err hky_rehearsal_add_reply(struct hky_rehearsal *r, const char *line, struct hky_error *e);
/* Reads such a reply for one recipient, as said at the time that the clock shows, without adding it to the script.
 * `relay` is NULL for one that does not exist. HKY_E_SYNTAX: `e` says what is not understood. */
enum hky_err hky_rehearsal_read_reply(const struct hky_rehearsal *r, const struct hky_relay *relay,
                                      const struct hky_recipient *to, struct hky_str text, struct hky_outcome *out,
                                      struct hky_error *e);
/* Finds the relay whose name the text begins with. A blank or the end must follow the name, which may hold blanks
 * itself. NULL: there is none. */
const struct hky_relay *hky_rehearsal_relay_named(const struct hky_policy *policy, struct hky_str text);
/* Uses up the relay's caps for a year from now. HKY_E_STATE: the relay has no cap, so it is never full. */
enum hky_err hky_rehearsal_set_full(struct hky_rehearsal *r, const char *relay, struct hky_error *e);
/* Pauses the relay, as an operator does. HKY_E_MISSING: no such relay. */
enum hky_err hky_rehearsal_set_paused(struct hky_rehearsal *r, const char *relay, struct hky_error *e);

/* ---- mail ---- */

/* Accepts the message: recipients without a plan are decided, and all become live. The caller keeps its reference.
 * Policy scripts see the header of m->body. */
void hky_rehearsal_send(struct hky_rehearsal *r, struct hky_message *m);

/* By hand: takes the next transaction of a relay, as hky_schedule_take does. */
enum hky_take hky_rehearsal_take(struct hky_rehearsal *r, const char *relay, struct hky_job **out);
/* Ends the transaction with this outcome for all its recipients. `job` becomes NULL. */
void hky_rehearsal_answer(struct hky_rehearsal *r, struct hky_job **job, const struct hky_outcome *o);

/* ---- time ---- */

/* What the clock shows, in milliseconds since 1970. */
int64_t hky_rehearsal_now_ms(const struct hky_rehearsal *r);
/* The next moment at which something is due, not before now; INT64_MAX: nothing is. */
int64_t hky_rehearsal_next_at(const struct hky_rehearsal *r);
/* Moves the clock until no failure notice gathers any more: last_notice is the newest one. */
void hky_rehearsal_await_notices(struct hky_rehearsal *r);
/* Does everything that is due now. */
void hky_rehearsal_settle(struct hky_rehearsal *r);
/* Runs only what is under way within the loop; the schedule does not look at the clock. */
void hky_rehearsal_turns(struct hky_rehearsal *r);
/* Moves the clock to `until_ms`, from one moment at which something is due to the next. */
void hky_rehearsal_advance_to(struct hky_rehearsal *r, int64_t until_ms);
/* Does the same, but stops as soon as all mail that is left waits only for an operator or another policy. */
void hky_rehearsal_run(struct hky_rehearsal *r, int64_t until_ms);

/* "own blocked_ip", "rental full", "docomo ok": appends what an act with an outcome was, as policy tests write it. */
void hky_rehearsal_act_text(const struct hky_rehearsal_act *a, struct hky_buf *out);

#endif
