/*
 * notice -- failure notices (RFC 3464): informs the sender of a message about the results of its recipients.
 *                                                                    schedule -> [notice] -> intake -> journal
 * A notice is mail: it is journalled in one commit with the `finished` record that it reports, and is sent from there
 * like other mail.
 * Threads: each worker has one; every call on that worker, unless a comment below says otherwise.
 */
#ifndef HIKYAKU_NOTICE_H
#define HIKYAKU_NOTICE_H

#include "hikyaku/journal.h"
#include "hikyaku/policy.h"
#include "hikyaku/record.h"

/* The notices of one worker. */
struct hky_notice;
struct hky_notice_params {
    struct hky_loop *loop;
    struct hky_journal *journal;
    struct hky_record *record; /* gets the event of each notice; NULL: nobody does */
    struct hky_log *log;       /* may be NULL */
    unsigned worker;
    const struct hky_clock *clock;
    void *ctx;
    struct hky_policy *(*policy)(void *ctx, unsigned worker); /* borrowed: the policy in force on this worker */
    /* As in struct hky_intake, through which a notice is handed in. */
    void (*decide)(void *ctx, unsigned worker, struct hky_message *notice, struct hky_str header);
    void (*enqueue)(void *ctx, unsigned worker, struct hky_message *notice);
};
struct hky_notice *hky_notice_new(const struct hky_notice_params *p);
/* Called when the loops have stopped and the journal is still open. Recipients that were or may have been delivered (an
 * attempt ended ambiguous, and the route fails them for it) are finished in the journal, with or without their notice;
 * other ones whose notice is not made yet come back at the next start. After a kill it is the same. */
void hky_notice_stop(struct hky_notice *n);
/* Called when the journal is closed: until then it may refer to notices under way. */
void hky_notice_free(struct hky_notice **n);
/* `finish` of the schedule: decides whether a notice is due (NOTIFY, null sender, engine.dsn, route's dsn; success
 * notices on NOTIFY=SUCCESS), makes it, journals both, emits the event, drops the recipient's message reference. When
 * this returns, the journal has got a record of each end after which the recipient must not be sent again.
 * Recipients of one message that end within a second (digest: a minute) share a notice; its size is bounded, and so is
 * the part of the original that it returns. Failures that cannot be reported to the sender (those of a notice, and of
 * mail without a sender) are reported in the log and to engine.owner. */
void hky_notice_finish(struct hky_notice *n, struct hky_recipient *r, const struct hky_outcome *o);
/* Makes the notices that have gathered long enough by `clock`. A timer calls this at least once a second while some
 * gather; whoever moves the clock calls it, too. */
void hky_notice_tick(struct hky_notice *n);
/* When the next notice is due, by the wall clock and not before now; INT64_MAX: none gathers. */
int64_t hky_notice_next_at(const struct hky_notice *n);

#endif
