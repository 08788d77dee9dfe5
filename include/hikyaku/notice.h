/*
 * notice -- failure notices (RFC 3464): tells the sender of a message what became of its recipients.
 *                                                                    schedule -> [notice] -> intake -> journal
 * A notice is mail: it is journalled in one commit with the `finished` it speaks of, and takes the same way as other
 * mail from there.
 * Threads: one a worker; every call on that worker, except where something else is said.
 */
#ifndef HIKYAKU_NOTICE_H
#define HIKYAKU_NOTICE_H

#include "hikyaku/journal.h"
#include "hikyaku/policy.h"
#include "hikyaku/record.h"

/* Failure notices (RFC 3464), journalled with the `finished` they speak of. One a worker. */
struct hky_notice;
struct hky_notice_params {
    struct hky_loop *loop;
    struct hky_journal *journal;
    struct hky_record *record;
    struct hky_log *log; /* may be NULL */
    unsigned worker;
    const struct hky_clock *clock;
    void *ctx;
    struct hky_policy *(*policy)(void *ctx, unsigned worker); /* borrowed: the one in force here */
    /* As in struct hky_intake, by which a notice is handed in. */
    void (*decide)(void *ctx, unsigned worker, struct hky_message *notice, struct hky_str header);
    void (*enqueue)(void *ctx, unsigned worker, struct hky_message *notice);
};
struct hky_notice *hky_notice_new(const struct hky_notice_params *p);
/* The loops have stopped, the journal is open: what was delivered is finished there, with or without its notice. What
 * failed and has no notice yet comes back at the next start. */
void hky_notice_stop(struct hky_notice *n);
/* The journal is closed: until then it may hold what is under way. */
void hky_notice_free(struct hky_notice **n);
/* `finish` of the schedule: decides whether a notice is due (NOTIFY, null sender, engine.dsn, route's dsn; success
 * notices on NOTIFY=SUCCESS), makes it, journals both, emits the event, drops the recipient's message reference.
 * Recipients of one message that end within a second (digest: a minute) share a notice; it is bounded, and so is what
 * it returns of the original. What the sender cannot be told (a notice that failed, mail without a sender) goes to the
 * log and to engine.owner. */
void hky_notice_finish(struct hky_notice *n, struct hky_recipient *r, const struct hky_outcome *o);
/* Notices that have gathered long enough by `clock` are made. Comes by itself at least once a second while some gather;
 * who moves the clock calls it. */
void hky_notice_tick(struct hky_notice *n);
/* When the next one is due, by the wall clock and not before now; INT64_MAX: none gathers. */
int64_t hky_notice_next_at(const struct hky_notice *n);

#endif
