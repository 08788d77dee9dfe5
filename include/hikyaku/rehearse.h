/*
 * rehearse -- a plan in motion without an engine. The schedule runs as it does in service, but on one thread, with the
 * journal in memory, relays that answer as a script says, and a clock that only moves when it is told to. Nothing is
 * sent, no file is written, no secret is read, nothing ever waits. `explain --after` and the unit tests of schedule are
 * built on it.
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
#include "hikyaku/schedule.h"

#define HKY_REHEARSAL_RELAY 128 /* octets of a relay's name that an act keeps */

/* Something that happened: an event of the schedule (record.h) that stays. */
struct hky_rehearsal_act {
    enum hky_event_kind kind;
    int64_t at_ms;
    uint64_t message;   /* id, 0 none: it is about a relay */
    uint32_t recipient; /* index in the message */
    bool is_attempt;    /* a relay was spoken to */
    bool has_outcome;   /* an attempt, or a step that was left without one (full, paused, sends_as) */
    bool pauses_account, slows_lane;
    uint8_t step;       /* the recipient's afterwards, from 0 */
    int64_t next_at_ms; /* deferred: the next attempt; relay_paused: until when */
    struct hky_outcome outcome;
    char relay[HKY_REHEARSAL_RELAY]; /* that was asked or left; "" none */
    char from[322], sender[322];     /* of an attempt: From and the envelope sender as sent */
    char text[200];                  /* why */
};

struct hky_rehearsal_reply; /* a line of the script */

struct hky_rehearsal {
    /* ---- may be set between init and open ---- */
    void *ctx; /* of these three */
    /* Decides for one recipient, as schedule's `decide`; NULL: nobody decides, recipients come with their plans. */
    void (*decide)(void *ctx, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out);
    void (*event)(void *ctx, const struct hky_event *ev);                           /* also told; NULL nobody */
    void (*ended)(void *ctx, struct hky_recipient *r, const struct hky_outcome *o); /* also told; NULL nobody */
    bool is_by_hand;          /* relays do not answer by themselves: take and answer */
    bool is_forgetful;        /* no acts are kept */
    bool is_everyone_reached; /* engine.only_to holds nobody */
    struct hky_log *log;      /* of the schedule; NULL none */
    const char *dir;          /* where the schedule notes what is being sent; NULL nowhere */
    bool was_unclean;
    struct hky_schedule_ops ops; /* what the schedule calls; its ctx is the rehearsal */

    /* ---- to look at ---- */
    struct hky_policy *policy; /* a reference */
    struct hky_clock clock;    /* `stopped_at_ms` is the time */
    struct hky_loop *loop;
    struct hky_journal *journal; /* hky_journal_memory_new */
    struct hky_schedule *schedule;
    struct hky_lane **woken; /* lanes that have something to take, as far as they said so */
    unsigned n_woken, woken_cap, n_lanes_gone;
    struct hky_rehearsal_act *acts;
    size_t n_acts, acts_cap;
    struct hky_rehearsal_reply *replies;
    size_t n_replies;
};

/* The clock stands at at_ms. HKY_E_NET: no loop could be made; then nothing is left to free. */
enum hky_err hky_rehearsal_init(struct hky_rehearsal *r, struct hky_policy *policy, int64_t at_ms, struct hky_error *e);
/* Makes the schedule. What an earlier run left may be restored now (hky_schedule_restore_...), then it starts. */
enum hky_err hky_rehearsal_open(struct hky_rehearsal *r, struct hky_error *e);
void hky_rehearsal_start(struct hky_rehearsal *r);
void hky_rehearsal_fini(struct hky_rehearsal *r); /* also of one that was never opened */

/* `decide` by the policy itself: ctx is a struct hky_vm. */
void hky_rehearsal_decide_by_vm(void *vm, const struct hky_recipient *r, int64_t now_ms, struct hky_decision *out);

/* ---- the script ---- */

/*
 * "RELAY [always] [STAGE] REPLY": how this relay answers next, or always where no other line is left for it. REPLY is a
 * reply ("550 5.1.1 no such user"), a class ("mailbox_full"), or what goes wrong before a reply comes ("timeout",
 * "refused", "lost", "dns", "tls"). Lines are used up in order, one an attempt; one about RCPT, or a class, is of one
 * recipient, others are of all recipients of the transaction. A relay without a line says "250 ok".
 * HKY_E_SYNTAX: `e` says what is not understood.
 */
enum hky_err hky_rehearsal_add_reply(struct hky_rehearsal *r, const char *line, struct hky_error *e);
/* The same, read for one recipient without being put into the script. `relay` may be NULL (one that is not there). */
enum hky_err hky_rehearsal_read_reply(const struct hky_policy *policy, const struct hky_relay *relay,
                                      const struct hky_recipient *r, struct hky_str text, struct hky_outcome *out,
                                      struct hky_error *e);
/* The relay with whose name, followed by a blank or the end, the text begins; names may hold blanks. NULL none. */
const struct hky_relay *hky_rehearsal_relay_named(const struct hky_policy *policy, struct hky_str text);
/* Its caps are used up for a year from now. HKY_E_STATE: it has no cap, so it is never full. */
enum hky_err hky_rehearsal_set_full(struct hky_rehearsal *r, const char *relay, struct hky_error *e);
/* As an operator pauses it. HKY_E_MISSING: no such relay. */
enum hky_err hky_rehearsal_set_paused(struct hky_rehearsal *r, const char *relay, struct hky_error *e);

/* ---- mail ---- */

/* The message is accepted; recipients without a plan are decided, all become live. The caller keeps its reference.
 * Scripts see the header of m->body. */
void hky_rehearsal_send(struct hky_rehearsal *r, struct hky_message *m);

/* By hand: the next transaction of a relay, as hky_schedule_take. */
enum hky_take hky_rehearsal_take(struct hky_rehearsal *r, const char *relay, struct hky_job **out);
/* It ends like this for all its recipients. `job` becomes NULL. */
void hky_rehearsal_answer(struct hky_rehearsal *r, struct hky_job **job, const struct hky_outcome *o);

/* ---- time ---- */

int64_t hky_rehearsal_now_ms(const struct hky_rehearsal *r);
/* The next moment at which something is due, not before now; INT64_MAX: nothing is. */
int64_t hky_rehearsal_next_at(const struct hky_rehearsal *r);
/* Everything that is due now happens. */
void hky_rehearsal_settle(struct hky_rehearsal *r);
/* Only what is under way within the loop goes on; the schedule does not look at the clock. */
void hky_rehearsal_turns(struct hky_rehearsal *r);
/* The clock goes to `until_ms`, from one moment at which something is due to the next. */
void hky_rehearsal_advance_to(struct hky_rehearsal *r, int64_t until_ms);
/* The same, but it stops as soon as nobody waits for anything any more but an operator or another policy. */
void hky_rehearsal_run(struct hky_rehearsal *r, int64_t until_ms);

/* "own blocked_ip", "rental full", "docomo ok": what an act with an outcome was, as policy tests say it. */
void hky_rehearsal_act_text(const struct hky_rehearsal_act *a, struct hky_buf *out);

#endif
