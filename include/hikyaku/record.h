/*
 * record -- numbered events and their readers; a projection that may be lost without losing mail.
 *                                                                         accept, schedule, notice -> [record]
 * Whoever has something to tell emits an event; it is stored with a number in the files of spool/events/, which are
 * mapped, so that it survives kill -9 and costs the emitter two copies. Readers take events from there at their own
 * pace. The event log, events.jsonl, is the first reader.
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
    X(DROPPED, "dropped", "events found no room, or a reader lagged too far and skipped them; text says how many")

enum hky_event_kind {
#define X(id, name, doc) HKY_EVENT_##id,
    HKY_EVENTS(X)
#undef X
        HKY_EVENT_N
};

/* X(id, name, type) -- what an event may say, in the order of the event log's lines. LIST: packed texts; PAIRS: packed
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
    const char *dir; /* spool: the log in dir/events.jsonl, events that a reader has yet to read in dir/events/ */
    unsigned n_workers;
    uint64_t segment_octets; /* events are kept in files of this size, default 1 MiB */
    uint64_t lag_octets;     /* how much the event log may leave unread before it skips, default 1 GiB */
    uint64_t min_free;       /* while the disk has less than this free, no file is added to dir/events/ */
    uint64_t rotate_octets;  /* events.jsonl is renamed to events-TIME.jsonl at this size, default 256 MiB, 8 kept */
    struct hky_log *log;
    const struct hky_clock *clock;
};
enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e);
/* The event log has what was emitted, then all is freed. Readers are closed before, and their loops have stopped or
 * turned since. */
void hky_record_close(struct hky_record **r);
/* Any thread; never waits for a disk or a reader. worker < n_workers has a buffer of its own, others give
 * HKY_RECORD_OTHER. */
#define HKY_RECORD_OTHER UINT32_MAX
void hky_record_event(struct hky_record *r, unsigned worker, const struct hky_event *ev);
void hky_record_reopen(struct hky_record *r); /* after logrotate */
/* Events that found no room at all, and those that the event log skipped. */
uint64_t hky_record_dropped(const struct hky_record *r);
const char *hky_event_name(enum hky_event_kind k);

/*
 * --- readers: the event log is one; history, webhooks and live views are others ---
 *
 * Every event has a number. Numbers grow by one with each event, also over restarts and kill -9; after a power cut some
 * are left out, none is used twice. A reader has a name and a cursor: the last number that it has done with. Cursors
 * are kept in the spool, so that a reader goes on where it was; after a kill it gets again what it read and did not
 * commit, so it must bear the same number twice.
 * A reader never holds up mail. It may leave `lag_octets` unread; beyond that the oldest unread events are skipped for
 * this reader, counted (hky_reader_missed), told by an event `dropped` and in the engine's log.
 * Threads: every call on the thread of the reader's loop.
 */
struct hky_reader;
struct hky_reader_params {
    const char *name;      /* at most 31 octets, lower case; NULL: no cursor is kept, for a view that comes and goes */
    struct hky_loop *loop; /* borrowed; on_ready is called here */
    void (*on_ready)(void *ctx); /* there is something to read; called again only after a read that found nothing */
    void *ctx;
    uint64_t lag_octets; /* budget; 0: 1 GiB */
    uint64_t after;      /* begin behind this number; 0: behind the cursor, a new name with the oldest that is kept */
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
enum hky_err hky_reader_open(struct hky_record *r, const struct hky_reader_params *p, struct hky_reader **out,
                             struct hky_error *e);
void hky_reader_close(struct hky_reader **reader); /* no call of on_ready after this */
/* The next events in the order of their numbers, at most `most`. 0: no more now, on_ready will be called. */
size_t hky_reader_read(struct hky_reader *reader, struct hky_event_view *out, size_t most);
/* Everything up to and with this number is done. A store into a mapped page: cheap, survives kill -9. */
void hky_reader_commit(struct hky_reader *reader, uint64_t number);
uint64_t hky_reader_cursor(const struct hky_reader *reader);
uint64_t hky_reader_missed(const struct hky_reader *reader); /* events that were skipped, since the name is known */

#endif
