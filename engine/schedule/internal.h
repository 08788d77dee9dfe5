/*
 * internal -- the parts of the live queue and who owns them.
 *
 *   hky_schedule   shared: accounts and relays under `lock`, caps under their own
 *   hky_shard      one worker's: lanes, timer heap, held recipients and those to be dispatched; only its thread touches
 * it, but for `inbox` (own lock) and the atomic counters lane           queue of one (relay, account, destination)
 * under one policy; at home in one shard A live recipient is in exactly one of these lists: a lane's queue (and in the
 * heap, for when it gives up waiting), the heap alone (deferred, parked), the held list, the dispatch list (for the
 * next turn), a job, or an inbox.
 */
#ifndef HKY_SCHEDULE_INTERNAL_H
#define HKY_SCHEDULE_INTERNAL_H

#include "base/hash.h"
#include "schedule/gate.h"
#include "schedule/caps.h"
#include "hikyaku/schedule.h"
#include "schedule/inflight.h"
#include "schedule/plan.h"

#include <pthread.h>
#include <sys/queue.h>

#define counter_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
#define counter_get(p)    __atomic_load_n((p), __ATOMIC_RELAXED)

#define UNCLEAN_MOST 3

/* ---- what the schedule knows of a recipient beyond hikyaku/message.h ---- */

struct lane;

/* In the octets that the recipient has for it: nothing is allocated for one that waits. */
struct recipient_own {
    TAILQ_ENTRY(recipient_own) link; /* in the list of where it is */
    struct hky_heap_node due;        /* in the shard's heap, by schedule_shard_mono */
    struct lane *lane;               /* whose queue it is in, or NULL */
    uint32_t survey_mark;            /* the survey of the queue that has seen it */
    uint16_t decided_min;            /* minutes from acceptance to the last time a policy was asked */
    uint8_t operator_action;         /* enum hky_queue_action to be taken when the attempt ends; 0 none */
};
_Static_assert(sizeof(struct recipient_own) <= sizeof(((struct hky_recipient *)0)->own.octets),
               "HKY_RECIPIENT_OWN is too small");

static inline struct recipient_own *own(const struct hky_recipient *r)
{
    return (struct recipient_own *)(void *)(uintptr_t)r->own.octets;
}

static inline struct hky_recipient *recipient_of(struct recipient_own *o)
{
    return o != NULL ? HKY_CONTAINER(o, struct hky_recipient, own) : NULL;
}

static inline struct hky_recipient *recipient_due(struct hky_heap_node *due)
{
    return recipient_of(HKY_CONTAINER(due, struct recipient_own, due));
}

TAILQ_HEAD(recipients, recipient_own);

static inline struct hky_recipient *recipients_first(const struct recipients *list)
{
    return recipient_of(TAILQ_FIRST(list));
}

static inline struct hky_recipient *recipients_next(const struct hky_recipient *r)
{
    return recipient_of(TAILQ_NEXT(own(r), link));
}

static inline void recipients_append(struct recipients *list, struct hky_recipient *r)
{
    TAILQ_INSERT_TAIL(list, own(r), link);
}

static inline void recipients_prepend(struct recipients *list, struct hky_recipient *r)
{
    TAILQ_INSERT_HEAD(list, own(r), link);
}

static inline void recipients_remove(struct recipients *list, struct hky_recipient *r)
{
    TAILQ_REMOVE(list, own(r), link);
}

/* ---- shared ---- */

struct account { /* of relays; own delivery has its gate in the lane */
    char *key;
    struct gate gate;
    struct caps_account *caps;    /* under the schedule's lock; lanes have their own copy */
    uint64_t caps_of;             /* whose caps those are: the policy in force with this number; 0: an older one's */
    uint32_t n_queued, n_sending; /* atomic: all lanes of the account */
};

struct relay_state { /* what operators said of a relay */
    char *name;
    bool is_paused;
    int64_t paused_until_ms; /* 0: until resumed; these two by schedule_mono */
    char *drained_to;        /* NULL: not drained */
    int64_t drained_until_ms;
};

struct hky_schedule {
    unsigned n_workers;
    struct hky_shard *shards;
    struct hky_journal *journal;
    const struct hky_clock *clock;
    struct hky_log *log;
    const struct hky_schedule_ops *ops;
    bool is_everyone_reached;
    struct caps *caps;
    struct inflight *inflight; /* NULL: none; each worker its part */
    uint64_t n_maybe_duplicates;

    pthread_mutex_t lock; /* what follows */
    struct hky_policy *policy;
    uint64_t n_policies;        /* how many were in force, this one included */
    struct hky_map accounts;    /* key -> struct account */
    struct hky_map relays;      /* name -> struct relay_state */
    TAILQ_HEAD(, lane) blocked; /* own delivery: lanes whose breaker is open or that are paused */
    uint32_t n_relay_states;    /* atomic: 0 lets the common case go without the lock */

    TAILQ_HEAD(, query) queries; /* under the lock: queries, the first one is under way */
    uint32_t n_surveys;

    bool is_draining; /* atomic */
    bool is_started;
    struct hky_timer drain_timer;
    struct hky_task drain_task;
    int64_t drain_until_mono_ms;
    void (*drain_done)(void *ctx);
    void *drain_ctx;
    pthread_mutex_t reserves_lock;
    LIST_HEAD(, reserve) reserves; /* on their way to the journal */
};

/* ---- lanes ---- */

struct scenario_queue {
    char *name;
    struct recipients recipients;
    bool is_in_rotation;
    TAILQ_ENTRY(scenario_queue) link; /* in the rank's rotation while it has recipients */
};
struct rank_queue {
    TAILQ_HEAD(, scenario_queue) rotation;
    struct hky_map scenarios;
    struct scenario_queue *last; /* most recipients belong to the same as the one before */
    uint32_t n;
};

struct lane {
    struct hky_lane pub; /* first */
    struct hky_shard *shard;
    char *key;
    size_t key_n;
    char *names; /* account, destination */
    struct account *account;
    struct caps_account *caps; /* by the lane's policy; NULL: none */
    struct gate own_gate;      /* own delivery: of this destination; under the schedule's lock */
    struct gate *gate;
    TAILQ_ENTRY(lane) blocked_link; /* in the schedule's list, under its lock */
    bool is_blocked;
    struct rank_queue ranks[HKY_RANK_N];
    uint32_t n_takes;
    uint32_t n_jobs;
    bool is_gone;          /* of an older policy, or idle: nothing comes in or out any more */
    bool wants_wake;       /* in shard->woken */
    bool is_waiting;       /* in shard->waiting: take said WAIT */
    int64_t idle_since_ms; /* 0: not idle */
    /* rate_limited: fewer at a time, and further apart */
    uint32_t n_jobs_max; /* 0: no bound */
    uint32_t n_good;     /* since the bound last grew */
    int64_t gap_ms, next_take_ms;
    struct hky_heap_node wake;                            /* shard->wakes */
    TAILQ_ENTRY(lane) woken_link, waiting_link, all_link; /* all: in all_lanes, or gone_lanes */
};

struct slowness { /* of a lane that is gone */
    uint32_t n_jobs_max;
    int64_t gap_ms, next_take_ms, until_ms;
};

TAILQ_HEAD(lanes, lane);

/* ---- shards ---- */

struct job {
    struct hky_job pub; /* first */
    struct lane *owner;
    struct caps_slots slots;
    bool is_probe;
    bool got_through, failed_to_connect, failed_at_tls;
    /* what its replies have made of lane and account so far: once each, however many recipients they were for */
    bool has_slowed, has_sped_up;
    uint32_t paused_sec;
    char why[120];
    uint32_t cap;
    uint32_t inflight_slot;          /* slot of `inflight` */
    struct hky_recipient **slots_of; /* cap pointers; reported ones become NULL */
    TAILQ_ENTRY(job) link;
};

/* A loop that is freed still runs what was deferred, maybe after the schedule is gone: hence its own memory. */
struct turn_task {
    struct hky_task task;
    struct hky_shard *shard; /* NULL: the schedule is gone */
};

struct hky_shard {
    struct hky_schedule *s;
    unsigned index;
    struct hky_loop *loop;
    struct hky_policy *policy; /* in force here */
    struct hky_map lanes;      /* key -> lane of the policy in force */
    struct hky_map slowed;     /* key -> struct slowness of a lane that is gone */
    struct hky_map deferred;   /* relay of the step -> uint32_t, atomic; grows under the schedule's lock */
    struct lanes all_lanes, gone_lanes, woken, waiting;
    struct hky_heap
        due; /* recipients: deferred, parked, and queued ones for when they give up; by schedule_shard_mono */
    struct hky_heap wakes;               /* lanes; by schedule_shard_mono */
    struct recipients held, to_dispatch; /* the second: at the next turn */
    const struct lane *head_kept_in;     /* whose head is asked anew just now: it stays the head */
    struct recipients *out;              /* one a worker: on their way, handed over at the end of the turn */
    uint64_t out_mask;                   /* which of them hold some, bit = worker % 64 */
    TAILQ_HEAD(, job) jobs, idle_jobs;
    uint32_t n_idle_jobs;
    struct hky_timer timer;
    int64_t timer_at_ms;
    struct turn_task *turn;             /* the end of this turn: dispatch, hand over, wake */
    bool is_turn_set, is_turn_deferred; /* deferred, or again_task is posted; the first of them */
    struct hky_task again_task;         /* there was more than one turn should do */
    int64_t next_sweep_ms, next_idle_round_ms;
    int64_t wall_offset_ms; /* wall clock less time gone by, when last looked at */

    pthread_mutex_t inbox_lock;
    struct recipients inbox;
    struct hky_task inbox_task;
    bool is_inbox_posted;

    struct survey *survey;    /* under way, or NULL */
    struct recipients parked; /* in the heap, too */
    /* undecided ones, in the heap, too: about whom the policy can go on; who are to be asked, of messages with few
     * recipients and with many */
    struct recipients answered, to_ask[2];
    unsigned next_to_ask;
    int64_t asked_ns; /* how long the policy worked since this turn began */
    bool is_asking;
    bool is_crowded;   /* so many wait for look-ups that no further decision can begin */
    bool goes_to_head; /* who is dispatched now goes to the head of its lane */
    uint32_t n_to_ask; /* of the parked ones, oldest first: a new policy is in force */
    struct hky_task recheck_task, policy_task;
    uint32_t is_recheck_posted, is_sweep_due, is_policy_posted; /* atomic */
    struct {
        uint32_t queued, sending, deferred, parked, held, undecided;
        int32_t moving; /* to be dispatched, or on their way to another worker, which takes them off: a sum over all */
        uint64_t delivered, failed, cancelled, notices, attempts;
    } n; /* atomic: written by the shard, read by anyone */
};

/*
 * What follows is in the order of the files: each uses only those above it.
 */

/* ---- timing.c: when a shard works next ---- */

#define SHARD_SLEEP_MOST_MS 1000

/*
 * Two times (base/clock.h). What a recipient carries, and what is told, is of the wall clock: schedule_shard_now.
 * Everything that waits -- the heaps, lanes, gates, caps, pauses -- is of the time that has gone by:
 * schedule_shard_mono. So a wait is never longer than the one that was set, whatever the wall clock does.
 */
int64_t schedule_shard_now(const struct hky_shard *sh);
int64_t schedule_shard_mono(const struct hky_shard *sh);
int64_t schedule_mono(const struct hky_schedule *s);
/* The wall clock less the time gone by, as it is now. */
int64_t schedule_wall_offset(const struct hky_schedule *s);
/* The same moment by the other clock, as far as the two can be compared now; INT64_MAX (never) stays. */
int64_t schedule_wall_at(const struct hky_schedule *s, int64_t mono_ms);
int64_t schedule_mono_at(const struct hky_schedule *s, int64_t wall_ms);
/* Puts r into the heap of those who wait, or moves it there; wall clock. */
void schedule_shard_set_due(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms);
void schedule_shard_timer_by(struct hky_shard *sh, int64_t mono_ms); /* the timer comes then at the latest */
void schedule_shard_set_timer(struct hky_shard *sh, int64_t now_ms); /* for what is due first */
void schedule_shard_request_turn(struct hky_shard *sh); /* a turn ends soon, and what is to be done then is done */
/* Wake the lane at the end of this turn. */
void schedule_shard_wake(struct hky_shard *sh, struct lane *l);
void schedule_shard_wake_at(struct hky_shard *sh, struct lane *l, int64_t mono_ms);
/* It has mail that cannot go before then (INT64_MAX: nobody knows): woken then, or by schedule_recheck. */
void schedule_lane_wait(struct lane *l, int64_t until_mono_ms);
/* All shards: lanes that wait ask again; `is_changed`: relays stand otherwise than before, so that lanes may have to be
 * pulled from or redirected. Any thread. */
void schedule_recheck(struct hky_schedule *s, bool is_changed);

/* ---- events.c: what is told of recipients and lanes ---- */

struct event_details { /* what an event says beyond the recipient */
    const struct hky_outcome *outcome;
    const struct job *job;
    const char *relay, *account, *text;
    int64_t next_at_ms;
};
void schedule_event_of_recipient(struct hky_shard *sh, enum hky_event_kind kind, const struct hky_recipient *r,
                                 const struct event_details *n);
void schedule_event_of_lane(struct hky_shard *sh, enum hky_event_kind kind, const struct lane *l, int64_t until_ms,
                            const char *why);

/* ---- queue.c: who goes first in a lane ---- */

void schedule_lane_queues_init(struct lane *l);
void schedule_lane_queues_fini(struct lane *l);
void schedule_lane_push(struct lane *l, struct hky_recipient *r, bool at_front);
void schedule_lane_remove(struct lane *l, struct hky_recipient *r);
/* Who goes next, by rank and turn; stays in the queue. NULL when empty. */
struct hky_recipient *schedule_lane_peek(struct lane *l);
/* The one behind r in its queue, if it belongs to the same message. */
struct hky_recipient *schedule_lane_peer(struct hky_recipient *r);
/* A job was made of the peeked one: the turn goes on. */
void schedule_lane_rotate(struct lane *l, struct hky_recipient *r);
/* Any one, for moving all out. */
struct hky_recipient *schedule_lane_any(struct lane *l);

/* ---- relays.c: accounts and relays as all workers share them ---- */

/* With the lock held: the account, made when it is new, with its caps as `policy` states them. */
struct account *schedule_account_open(struct hky_schedule *s, const struct hky_policy *policy,
                                      const struct hky_relay *relay, const char *key);
/* With the lock held: what operators said, NULL nothing. What was said for a time is forgotten when that is over. */
struct relay_state *schedule_relay_state(struct hky_schedule *s, const char *name);
struct account *schedule_account(struct hky_schedule *s, const struct hky_policy *policy, const struct hky_relay *relay,
                                 const char *account, struct caps_account **caps);
/* The relay a step uses now: `instead` and drains followed; NULL when there is none of that name. */
const struct hky_relay *schedule_relay(struct hky_schedule *s, const struct hky_policy *policy, const char *name);
/* The names of all relays whose mail goes by this account, as keys. */
void schedule_add_relays_of(const struct hky_policy *policy, const char *account, struct hky_map *out);
/* Paused by policy or operator. */
bool schedule_is_paused(struct hky_schedule *s, const struct hky_relay *relay, int64_t *until_mono_ms);
/* Does anything keep this lane from sending now? */
bool schedule_lane_is_paused(struct lane *l, int64_t *until_mono_ms);
/* With the schedule's lock held, after a change of its gate: a lane of own delivery is known to all while it cannot
 * send. */
void schedule_lane_update_blocked(struct lane *l);

/* ---- lanes.c: lanes are made and go ---- */

/* The lane of a step at this shard, made when there is none. `relay` of the shard's policy. */
struct lane *schedule_shard_lane(struct hky_shard *sh, const struct hky_relay *relay, const char *account,
                                 struct hky_str destination);
unsigned schedule_lane_home(struct hky_schedule *s, const struct hky_relay *relay, const char *account,
                            struct hky_str destination);
void schedule_lane_retire(struct lane *l);              /* nothing comes in or out any more; the next turn empties it */
void schedule_shard_retire_lanes(struct hky_shard *sh); /* a new policy: all lanes are of an older one */
void schedule_lane_free_if_over(struct lane *l);
void schedule_lane_free(struct lane *l);
void schedule_shard_forget_slowness(struct hky_shard *sh,
                                    int64_t now_ms); /* of lanes that are gone, when its time is over */

/* ---- survey.c: looking at every recipient of a shard once, in portions. One at a time in a shard ---- */

struct survey {
    struct hky_shard *shard;
    void (*each)(void *ctx, struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms); /* may move or finish r */
    void *ctx;
    uint32_t mark;
    unsigned phase, n_passes;
    uint32_t at;                /* in the heap */
    struct hky_recipient *next; /* in the held or dispatch list */
    uint64_t n_new;             /* in this pass */
    int64_t asked_at_ms;
    uint64_t n_found; /* in all, of those accepted before asked_at_ms */
};
void schedule_survey_begin(struct survey *k, struct hky_shard *sh, uint32_t mark); /* then set each, ctx, asked_at_ms */
bool schedule_survey_continue(struct survey *k); /* one portion; false: it was the last */
void schedule_survey_on_leave(struct hky_shard *sh,
                              const struct hky_recipient *r); /* before r leaves the held or dispatch list */

/* ---- recipient.c: state, reason and end of a recipient ---- */

/* The only writer of r->state. The edge must be one of its table; a change is traced at level debug. */
void schedule_recipient_enter(const struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state to);
bool schedule_recipient_may_enter(enum hky_recipient_state from, enum hky_recipient_state to);
void schedule_recipient_enter_step(struct hky_recipient *r, uint8_t step, enum hky_class cause, int64_t now_ms);
void schedule_recipient_set_reason(struct hky_recipient *r, const char *why);
void schedule_recipient_journal(struct hky_shard *sh, struct hky_recipient *r); /* its state goes to the journal */
/* The end of one that is in no list. */
void schedule_recipient_finish(struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state state,
                               const struct hky_outcome *o, const char *why, const struct job *job);
void schedule_recipient_expire(struct hky_shard *sh, struct hky_recipient *r);
/* No way is left that may send as the author. */
void schedule_recipient_fail_for_author(struct hky_shard *sh, struct hky_recipient *r);

/* ---- undecided.c: who waits for the policy. Each takes a recipient that is in no list, and lists or ends it ---- */

#define NO_TIME_MOST 1 /* next_at_ms up to this is no time: 0, and what undecided.c notes there */

bool schedule_shard_is_policy_time_over(
    const struct hky_shard *sh); /* the policy has worked as long as it may in one turn */
bool schedule_shard_has_policy_time(const struct hky_shard *sh);                  /* to be asked now, in this turn */
void schedule_undecided_ask_later(struct hky_shard *sh, struct hky_recipient *r); /* in one of the next turns */
void schedule_undecided_ask_when_free(struct hky_shard *sh,
                                      struct hky_recipient *r); /* too many decisions wait for look-ups now */
void schedule_undecided_wait_for_answer(struct hky_shard *sh, struct hky_recipient *r, const char *what);
void schedule_undecided_ask_after_failure(struct hky_shard *sh, struct hky_recipient *r,
                                          const char *why);                      /* of a look-up */
void schedule_undecided_take_out(struct hky_shard *sh, struct hky_recipient *r); /* its decision is dropped */
void schedule_undecided_drop_decision(struct hky_shard *sh, struct hky_recipient *r);
struct hky_recipient *schedule_undecided_next(struct hky_shard *sh); /* whom to ask about; NULL: nobody */
/* That one is in no list any more; its decision, if one has begun, goes on. */
void schedule_undecided_begin_asking(struct hky_shard *sh, struct hky_recipient *r);

/* ---- moves.c: out of the list in which a recipient is, and into one ---- */

/* Takes it out of queue, heap, held or dispatch list: it is in no list then. */
void schedule_recipient_take_out(struct hky_shard *sh, struct hky_recipient *r);
void schedule_recipient_dispatch_later(struct hky_shard *sh,
                                       struct hky_recipient *r); /* at the end of the turn, in portions */
void schedule_recipient_list_for_dispatch(struct hky_shard *sh,
                                          struct hky_recipient *r); /* the same, when a turn is sure to come */
void schedule_recipient_defer(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms);
void schedule_shard_count_deferred(struct hky_shard *sh, const struct hky_recipient *r,
                                   int by); /* +1 before, -1 after it waits */
void schedule_recipient_hold(struct hky_shard *sh, struct hky_recipient *r, const char *why);
/* The same at the end of an attempt. */
void schedule_recipient_hold_after(struct hky_shard *sh, struct hky_recipient *r, const char *why,
                                   const struct hky_outcome *o, const struct job *job);

/* ---- replan.c: asking the policy ---- */

bool schedule_recipient_has_stale_plan(const struct hky_shard *sh, const struct hky_recipient *r, int64_t now_ms);
/* The policy of this shard has another plan for it, or it never had one. False: it is parked or undecided now. */
bool schedule_recipient_plan_anew(struct hky_shard *sh, struct hky_recipient *r);
void schedule_recipient_park(struct hky_shard *sh, struct hky_recipient *r, const char *why);
int64_t schedule_recipient_parked_delay_ms(uint32_t times); /* after so many times in vain */

/* ---- leave.c ---- */

/* A step's reason (full, paused, sends_as): true when the plan went on to another step or to its end. */
bool schedule_recipient_leave_step(struct hky_shard *sh, struct hky_recipient *r, enum hky_class reason);

/* ---- dispatch.c ---- */

/* A live recipient in no list, whose time has come, goes on: to a lane, the heap, parking, hold or its end. */
void schedule_recipient_dispatch(struct hky_shard *sh, struct hky_recipient *r);
/* The same for one that stands somewhere already. */
void schedule_recipient_redispatch(struct hky_shard *sh, struct hky_recipient *r);
/* When it gives up waiting in the lane, or earlier: then the exact time is worked out. */
int64_t schedule_recipient_gives_up_at(const struct hky_recipient *r, const struct hky_step *step, int64_t now_ms);

/* ---- sweep.c ---- */

void schedule_shard_sweep_lanes(struct hky_shard *sh, int64_t now_ms); /* idle ones go, paused ones are pulled from */

/* ---- turn.c: the end of a turn ---- */

void schedule_shard_init_turn(struct hky_shard *sh);
void schedule_shard_fini_turn(struct hky_shard *sh);
/* What is on its way to and from other workers goes there now: nobody is out of sight. */
void schedule_shard_settle(struct hky_shard *sh);

/* ---- shard.c ---- */

void schedule_shard_init(struct hky_shard *sh, struct hky_schedule *s, unsigned index, struct hky_loop *loop);
void schedule_shard_tick(struct hky_shard *sh);

/* ---- take.c: jobs ---- */

/* What a lane with mail waits for, in one word: paused breaker slowed cap, and until when by the wall clock (INT64_MAX:
 * nobody knows). NULL: nothing keeps it from sending. */
const char *schedule_lane_waits_for(struct lane *l, int64_t *until_ms);
void schedule_shard_free_jobs(struct hky_shard *sh);

/* ---- query.c: what operators see of the queue, and do to it ---- */

/* Relays whose mail goes at once where it was deferred for one of `classes`, because the cause is repaired. Takes what
 * the map holds: the names are its keys. Any thread. */
void schedule_retry_repaired(struct hky_schedule *s, struct hky_map *relays, uint64_t classes);

void schedule_free_queries(struct hky_schedule *s); /* at the stop */

#endif
