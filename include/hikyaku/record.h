/*
 * record -- receives outcomes; a projection that may be lost without losing mail.        deliver -> schedule ->
 * [record]
 */
#ifndef HIKYAKU_RECORD_H
#define HIKYAKU_RECORD_H

#include "base/clock.h"
#include "base/log.h"
#include "hikyaku/message.h"
#include "hikyaku/outcome.h"

/* X(id, name, what it means) -- the event log's vocabulary, documented from here in hikyaku-events(5). */
#define HKY_EVENTS(X)                                                                                                  \
    X(ACCEPTED, "accepted", "a recipient is on disk; without a plan, decided or parked follows")                       \
    X(REFUSED, "refused", "a message or recipient of a known client was not taken; text is the reply")                 \
    X(DELIVERED, "delivered", "a relay took responsibility (2xx after the dot)")                                       \
    X(DEFERRED, "deferred", "an attempt failed; the same step is tried again at next_at")                              \
    X(ROUTED, "routed", "the plan went on to another step")                                                            \
    X(FAILED, "failed", "the plan ended without a delivery")                                                           \
    X(EXPIRED, "expired", "the time to deliver is over")                                                               \
    X(PARKED, "parked", "no route, or the policy failed; asked again later")                                           \
    X(UNPARKED, "unparked", "the policy decided after all")                                                            \
    X(DECIDED, "decided", "the policy decided about a recipient that was accepted without a plan")                     \
    X(UNDECIDED, "undecided", "a look-up that the policy needs failed; it is asked again at next_at")                  \
    X(HELD, "held", "waits for an operator")                                                                           \
    X(RELEASED, "released", "an operator released or retried it")                                                      \
    X(CANCELLED, "cancelled", "an operator removed it")                                                                \
    X(NOTICE, "notice", "a failure notice was made")                                                                   \
    X(RELAY_PAUSED, "relay_paused", "no attempts on this account until `until`")                                       \
    X(RELAY_RESUMED, "relay_resumed", "attempts go on")                                                                \
    X(RELAY_DRAINED, "relay_drained", "its mail goes by another relay")                                                \
    X(STARTED, "started", "the engine started; what the journal held")                                                 \
    X(RELOADED, "reloaded", "a new policy is in force, or was refused")                                                \
    X(STOPPED, "stopped", "the engine stopped")                                                                        \
    X(DROPPED, "dropped", "events lost because the log could not keep up")

enum hky_event_kind {
#define X(id, name, doc) HKY_EVENT_##id,
    HKY_EVENTS(X)
#undef X
        HKY_EVENT_N
};

/* All borrowed for the call; what does not apply is NULL or 0 and left out of the line. */
struct hky_event {
    enum hky_event_kind kind;
    int64_t at_ms;
    const struct hky_message *message;
    const struct hky_recipient *recipient;
    const struct hky_outcome *outcome;
    const char *relay, *account, *mx, *route;
    const char *from;                 /* From as sent */
    const char *sender;               /* envelope sender as sent */
    int64_t next_at_ms;               /* deferred; relay_paused: until */
    int64_t delay_ms;                 /* since acceptance */
    const char *to;                   /* relay_drained: the other relay */
    const char *client, *user, *rcpt; /* refused: whose; the recipient that was refused */
    const char *text;                 /* reason */
};

struct hky_record;
struct hky_record_params {
    const char *dir; /* spool: events in dir/events.jsonl */
    unsigned n_workers;
    uint64_t buffer_octets; /* between workers and the writer, default 2 MiB each; what is beyond is dropped, counted */
    uint64_t rotate_octets; /* events.jsonl is renamed to events-TIME.jsonl at this size, default 256 MiB, 8 kept */
    struct hky_log *log;
    const struct hky_clock *clock;
};
enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e);
void hky_record_close(struct hky_record **r); /* writes what is buffered */
/* Any thread; never blocks. worker < n_workers has its own buffer, others give HKY_RECORD_OTHER. */
#define HKY_RECORD_OTHER UINT32_MAX
void hky_record_event(struct hky_record *r, unsigned worker, const struct hky_event *ev);
void hky_record_reopen(struct hky_record *r); /* after logrotate */
uint64_t hky_record_dropped(const struct hky_record *r);
const char *hky_event_name(enum hky_event_kind k);

#endif
