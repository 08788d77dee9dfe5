/*
 * record -- numbered events and their readers. Losing the record loses no mail.
 *                                                                         accept, schedule, notice -> [record]
 * A stage emits an event for everything that it reports. The event is stored with a number in the mapped files of
 * spool/events/, so that it survives kill -9 and costs the emitter two copies. Readers take events from there at their
 * own pace. The event log, events.jsonl, is the first reader.
 */
#ifndef HIKYAKU_RECORD_H
#define HIKYAKU_RECORD_H

#include "base/clock.h"
#include "base/log.h"
#include "hikyaku/message.h"
#include "hikyaku/outcome.h"
#include "net/loop.h"

/* X(id, name, what it means) -- the event log's vocabulary, documented from here in hikyaku-events(5). */
#define HKY_EVENTS(X)                                                                                                  \
    X(ACCEPTED, "accepted", "a recipient is on disk; without a plan, decided or parked follows")                       \
    X(REFUSED, "refused", "a message or recipient of a known client was not taken; text is the reply")                 \
    X(DELIVERED, "delivered", "a relay took responsibility (2xx after the dot)")                                       \
    X(DEFERRED, "deferred", "an attempt failed; the same step is tried again at next_at")                              \
    X(ROUTED, "routed", "the plan moved to another step")                                                              \
    X(FAILED, "failed", "the plan ended without a delivery")                                                           \
    X(EXPIRED, "expired", "the time to deliver is over")                                                               \
    X(PARKED, "parked", "no route took the recipient, or the policy failed; the policy decides again later")           \
    X(UNPARKED, "unparked", "the policy decided about a parked recipient")                                             \
    X(DECIDED, "decided", "the policy decided about a recipient that was accepted without a plan")                     \
    X(UNDECIDED, "undecided", "a look-up that the policy needs failed; it is repeated at next_at")                     \
    X(HELD, "held", "the recipient waits for an operator")                                                             \
    X(RELEASED, "released", "an operator released or retried the recipient")                                           \
    X(CANCELLED, "cancelled", "an operator removed the recipient")                                                     \
    X(NOTICE, "notice", "a failure notice was made")                                                                   \
    X(RELAY_PAUSED, "relay_paused", "nothing is sent with this account until `until`")                                 \
    X(RELAY_RESUMED, "relay_resumed", "the account is used again")                                                     \
    X(RELAY_DRAINED, "relay_drained", "the relay's mail is sent through another relay")                                \
    X(STARTED, "started", "the engine started; text says what the journal held")                                       \
    X(RELOADED, "reloaded", "a new policy is in force, or was refused")                                                \
    X(STOPPED, "stopped", "the engine stopped")                                                                        \
    X(DROPPED, "dropped", "events found no room, or a reader lagged too far and skipped them; text says how many")

enum hky_event_kind {
#define X(id, name, doc) HKY_EVENT_##id,
    HKY_EVENTS(X)
#undef X
        HKY_EVENT_N
};

/* X(id, name, type) -- the keys of events, in the order of the event log's lines. LIST: packed texts; PAIRS: packed
 * names and values; ENHANCED: class, subject, detail as (class << 32 | subject << 16 | detail). */
#define HKY_EVENT_KEYS(X)                                                                                              \
    X(ID, "id", ID)                                                                                                    \
    X(SCENARIO, "scenario", TEXT)                                                                                      \
    X(REF, "ref", TEXT)                                                                                                \
    X(SENDER, "sender", TEXT)                                                                                          \
    X(AUTHOR, "author", TEXT)                                                                                          \
    X(USER, "user", TEXT)                                                                                              \
    X(CLIENT, "client", TEXT)                                                                                          \
    X(SOURCE, "source", TEXT)                                                                                          \
    X(MESSAGE_ID, "message_id", TEXT)                                                                                  \
    X(SIZE, "size", NUMBER)                                                                                            \
    X(RCPT, "rcpt", TEXT)                                                                                              \
    X(ROUTE, "route", TEXT)                                                                                            \
    X(PLAN, "plan", LIST)                                                                                              \
    X(STEP, "step", NUMBER)                                                                                            \
    X(ARMS, "arms", PAIRS)                                                                                             \
    X(ATTEMPTS, "attempts", NUMBER)                                                                                    \
    X(RELAY, "relay", TEXT)                                                                                            \
    X(TO, "to", TEXT)                                                                                                  \
    X(ACCOUNT, "account", TEXT)                                                                                        \
    X(MX, "mx", TEXT)                                                                                                  \
    X(FROM, "from", TEXT)                                                                                              \
    X(ENVELOPE, "envelope", TEXT)                                                                                      \
    X(CLASS, "class", CLASS)                                                                                           \
    X(SCOPE, "scope", SCOPE)                                                                                           \
    X(STAGE, "stage", STAGE)                                                                                           \
    X(CODE, "code", NUMBER)                                                                                            \
    X(ENHANCED, "enhanced", ENHANCED)                                                                                  \
    X(REPLY, "reply", TEXT)                                                                                            \
    X(LATENCY, "latency_ms", NUMBER)                                                                                   \
    X(NEXT_AT, "next_at", TIME)                                                                                        \
    X(UNTIL, "until", TIME)                                                                                            \
    X(DELAY, "delay_ms", NUMBER)                                                                                       \
    X(TEXT, "text", TEXT)

enum hky_event_key {
#define X(id, name, type) HKY_EVENT_KEY_##id,
    HKY_EVENT_KEYS(X)
#undef X
        HKY_EVENT_KEY_N
};

/* All pointers are borrowed for the call. A field that does not apply is NULL or 0 and is left out of the line. */
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
    const char *client, *user, *rcpt; /* refused: the client's address, its login, the recipient */
    const char *text;                 /* reason */
};

struct hky_record;
struct hky_record_params {
    const char *dir; /* spool: the log in dir/events.jsonl, events that a reader has yet to read in dir/events/ */
    unsigned n_workers;
    uint64_t segment_octets; /* events are kept in files of this size, default 1 MiB */
    uint64_t lag_octets;     /* octets that the event log may leave unread before it skips, default 1 GiB */
    uint64_t min_free;       /* while the disk has less than this free, no file is added to dir/events/ */
    uint64_t rotate_octets;  /* events.jsonl is renamed to events-TIME.jsonl at this size, default 256 MiB, 8 kept */
    struct hky_log *log;
    const struct hky_clock *clock;
};
/* The error says what could not be opened or started, and what to do. `p` is borrowed for the call, but for the log and
 * the clock. */
enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e);
/* Writes all emitted events to the event log, then frees everything. Every reader must have been closed before, and its
 * loop must have stopped or have completed a turn since then. */
void hky_record_close(struct hky_record **r);
/* Any thread may call this; it never waits for a disk or a reader. Each worker passes its number, for which there is a
 * buffer of its own; other threads pass HKY_RECORD_OTHER. */
#define HKY_RECORD_OTHER UINT32_MAX
void hky_record_event(struct hky_record *r, unsigned worker, const struct hky_event *ev);
void hky_record_reopen(struct hky_record *r); /* after logrotate */
/* The number of events that were lost because there was no room, plus those that the event log skipped. */
uint64_t hky_record_dropped(const struct hky_record *r);
const char *hky_event_name(enum hky_event_kind k);

/*
 * --- readers: the event log is one; history, webhooks and live views are others ---
 *
 * Every event has a number. Numbers grow by one with each event, also over restarts and kill -9; after a power cut some
 * numbers are left out, but none is used twice. A reader has a name and a cursor: the number of the last event that it
 * has committed. Cursors are kept in the spool, so that a reader continues where it was. After a kill it gets the
 * events again that it read and did not commit, so it must tolerate the same number twice.
 * A reader never holds up mail. It may leave `lag_octets` unread; beyond that the oldest unread events are skipped for
 * this reader and counted (hky_record_reader_missed); a `dropped` event and the engine's log report it.
 * Threads: every call on the thread of the reader's loop.
 */
struct hky_record_reader;
struct hky_record_reader_params {
    const char *name;            /* at most 31 octets, lower case; NULL: no cursor is kept, for a live view */
    struct hky_loop *loop;       /* borrowed; on_ready is called here */
    void (*on_ready)(void *ctx); /* events are ready; called again only after a read that found none */
    void *ctx;
    uint64_t lag_octets; /* budget; 0: 1 GiB */
    uint64_t after;      /* begin behind this number; 0: behind the cursor, or a new name at the oldest event */
    bool is_from_now;    /* a new name, or none: begin with the next event */
};

/* One event as a reader sees it. `has` says which keys apply; texts are borrowed until the next read. */
struct hky_event_view {
    uint64_t number;
    enum hky_event_kind kind;
    int64_t at_ms;
    uint64_t has;                         /* bit (1 << enum hky_event_key) */
    struct hky_str text[HKY_EVENT_KEY_N]; /* TEXT; LIST and PAIRS packed, see hky_packed_next() */
    int64_t value[HKY_EVENT_KEY_N];       /* NUMBER, TIME (ms since 1970), ID, CLASS, SCOPE, STAGE, ENHANCED */
};
static inline bool hky_event_has(const struct hky_event_view *v, enum hky_event_key k)
{
    return (v->has >> k & 1) != 0;
}

/* HKY_E_LIMIT: too many names. HKY_E_STATE: that name is open already. */
enum hky_err hky_record_reader_open(struct hky_record *r, const struct hky_record_reader_params *p,
                                    struct hky_record_reader **out, struct hky_error *e);
void hky_record_reader_close(struct hky_record_reader **reader); /* no call of on_ready after this */
/* Gives at most `most` of the next events in the order of their numbers. 0: there are none now, on_ready will be
 * called. */
size_t hky_record_reader_read(struct hky_record_reader *reader, struct hky_event_view *out, size_t most);
/* Moves the cursor to this number. It is a store into a mapped page, which is cheap and survives kill -9. */
void hky_record_reader_commit(struct hky_record_reader *reader, uint64_t number);
uint64_t hky_record_reader_cursor(const struct hky_record_reader *reader);
uint64_t hky_record_reader_missed(
    const struct hky_record_reader *reader); /* events that were skipped, since the name is known */

#endif
