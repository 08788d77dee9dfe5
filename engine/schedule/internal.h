/*
 * internal -- the parts of the live queue and who owns them.
 *
 *   hky_schedule   shared by all workers: accounts and relays under `lock`, caps under their own lock
 *   hky_shard      one worker's part: lanes, timer heap, lists of recipients; only its own thread touches it, except
 *                  for `inbox`, which has its own lock, and the atomic counters
 *   lane           the queue of one (relay, account, destination) under one policy; it lives in one shard
 *
 * A live recipient is in exactly one of these lists: a lane's queue, the timer heap alone (deferred and parked ones),
 * the held list, the dispatch list (for the next turn), a job, or an inbox. One in a lane's queue is in the heap, too,
 * for the time when it gives up waiting.
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

/* It is kept in octets of the recipient itself, so that nothing is allocated for a recipient that waits. */
struct recipient_own {
    TAILQ_ENTRY(recipient_own) link; /* in the list in which it is */
    struct hky_heap_node due;        /* in the shard's heap; its time is by schedule_shard_mono */
    struct lane *lane;               /* in whose queue it is, or NULL */
    uint32_t survey_mark;            /* number of the last survey that has seen it */
    uint16_t decided_min;            /* minutes from acceptance to the last time a policy was asked */
    uint8_t operator_action;         /* enum hky_queue_action for the end of the attempt; 0: none */
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

struct account { /* of relays. Lanes of own delivery have their own gates */
    char *key;
    struct gate gate;
    struct caps_account *caps;    /* under the schedule's lock; lanes have their own copy of it */
    uint64_t caps_of;             /* n_policies of the policy that states them; 0: an older policy does */
    uint32_t n_queued, n_sending; /* atomic; the sum over all lanes of the account */
};

struct relay_state { /* what operators said of a relay */
    char *name;
    bool is_paused;
    int64_t paused_until_ms; /* 0: until it is resumed. Both times are by schedule_mono */
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
    struct inflight *inflight; /* NULL: not kept. Each worker has its own part */
    uint64_t n_maybe_duplicates;
    struct hky_recipient **stopped; /* those that were being sent when the engine ended: counted, to be journaled */
    size_t n_stopped, cap_stopped;

    pthread_mutex_t lock; /* guards what follows */
    struct hky_policy *policy;
    uint64_t n_policies;        /* how many have been in force, including this one */
    struct hky_map accounts;    /* key -> struct account */
    struct hky_map relays;      /* name -> struct relay_state */
    TAILQ_HEAD(, lane) blocked; /* lanes of own delivery that are paused or have an open breaker */
    uint32_t n_relay_states;    /* atomic; with 0 nobody has to take the lock */

    TAILQ_HEAD(, query) queries; /* under the lock; the first one is under way */
    uint32_t n_surveys;

    bool is_draining;         /* atomic */
    bool is_disk_wait_logged; /* atomic: the log says that the disk stops deliveries */
    bool is_started;
    struct hky_timer drain_timer;
    struct hky_task drain_task;
    int64_t drain_until_mono_ms;
    void (*drain_done)(void *ctx);
    void *drain_ctx;
    pthread_mutex_t reserves_lock;
    LIST_HEAD(, reserve) reserves; /* cap records that are being written */
};

/* ---- lanes ---- */

struct scenario_queue {
    char *name;
    struct recipients recipients;
    bool is_in_rotation;
    TAILQ_ENTRY(scenario_queue) link; /* in the rank's rotation, while it has recipients */
};
struct rank_queue {
    TAILQ_HEAD(, scenario_queue) rotation;
    struct hky_map scenarios;
    struct scenario_queue *last; /* used last: most recipients are of the same scenario as the one before */
    uint32_t n;
};

struct lane {
    struct hky_lane pub; /* first */
    struct hky_shard *shard;
    char *key;
    size_t key_n;
    char *names; /* memory of account and destination */
    struct account *account;
    struct caps_account *caps; /* as the lane's policy states them; NULL: none */
    struct gate own_gate;      /* of this destination, for own delivery; under the schedule's lock */
    struct gate *gate;
    TAILQ_ENTRY(lane) blocked_link; /* in the schedule's list, under its lock */
    bool is_blocked;
    struct rank_queue ranks[HKY_RANK_N];
    uint32_t n_takes;
    uint32_t n_jobs;
    uint32_t n_waiting_jobs; /* of n_jobs; they wait for slots, with mail in the lane or without */
    bool is_retired;         /* retired, for an older policy or after idling: it gets and gives no more mail */
    bool wants_wake;         /* it is in shard->woken */
    bool is_waiting;         /* it is in shard->waiting, because take said WAIT */
    int64_t idle_since_ms;   /* 0: not idle */
    /* after rate_limited, fewer jobs at a time, with more time between them */
    uint32_t n_jobs_max; /* 0: no bound */
    uint32_t n_good;     /* good replies since n_jobs_max last grew */
    int64_t gap_ms, next_take_ms;
    struct hky_heap_node wake;                            /* in shard->wakes */
    TAILQ_ENTRY(lane) woken_link, waiting_link, all_link; /* all_link: in all_lanes or retired_lanes */
};

struct slowness { /* what is kept of a lane that is gone */
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
    bool is_waiting;             /* take_again said WAIT; counted in the lane's n_waiting_jobs */
    int64_t waits_until_mono_ms; /* while take_again says WAIT: no longer than that; else 0 */
    bool got_through, failed_to_connect, failed_at_tls;
    /* what its replies have already done to lane and account: each happens once, for however many recipients */
    bool has_slowed, has_sped_up;
    uint32_t paused_sec;
    char why[120];
    uint32_t cap;
    uint32_t inflight_slot;          /* in `inflight`; 0: none */
    struct hky_recipient **slots_of; /* `cap` of them; NULL: its result was reported */
    TAILQ_ENTRY(job) link;
};

/* A loop that is freed still runs deferred tasks, maybe after the schedule was freed; so the task has its own memory.
 */
struct turn_task {
    struct hky_task task;
    struct hky_shard *shard; /* NULL: the schedule was freed */
};

struct hky_shard {
    struct hky_schedule *s;
    unsigned index;
    struct hky_loop *loop;
    struct hky_policy *policy; /* that this worker uses */
    struct hky_map lanes;      /* key -> lane of the policy in force */
    struct hky_map slowed;     /* key -> struct slowness of a lane that is gone */
    struct hky_map deferred;   /* relay of the step -> atomic uint32_t; entries are added under the schedule's lock */
    struct lanes all_lanes, retired_lanes, woken, waiting;
    struct hky_heap due;   /* recipients that are deferred, parked, or give up waiting in a lane at some time */
    struct hky_heap wakes; /* lanes. Both heaps use the time of schedule_shard_mono */
    struct recipients held, to_dispatch; /* to_dispatch: in the next turn */
    const struct lane *head_kept_in;     /* lane whose head is dispatched again now, and stays its head */
    struct recipients *out;              /* n_workers: handed over to that worker at the end of the turn */
    uint64_t out_mask;                   /* bit worker % 64: its list in `out` is not empty */
    TAILQ_HEAD(, job) jobs, idle_jobs;
    uint32_t n_idle_jobs;
    struct hky_timer timer;
    int64_t timer_at_ms;
    struct turn_task *turn;             /* does the work at the end of a turn of the loop */
    bool is_turn_set, is_turn_deferred; /* set: `turn` is deferred (then both), or again_task is posted */
    struct hky_task again_task;         /* goes on with work that is too much for one turn */
    int64_t next_sweep_ms, next_idle_round_ms;
    int64_t wall_offset_ms; /* schedule_wall_offset when it was last looked at */

    pthread_mutex_t inbox_lock;
    struct recipients inbox;
    struct hky_task inbox_task;
    bool is_inbox_posted;

    struct survey *survey;    /* the one under way, or NULL */
    struct recipients parked; /* they are in the heap, too */
    int64_t parked_second_ms; /* schedule_log_parked: when the second began in which it counts */
    uint32_t n_parked_in_second;
    /* Undecided ones, which are in the heap, too. answered: the policy can go on with them. to_ask: the policy has to
     * be asked about them; [0] of messages with few recipients, [1] with many. */
    struct recipients answered, to_ask[2];
    unsigned next_to_ask;
    int64_t asked_ns; /* how long the policy has worked in this turn */
    bool is_asking;
    bool waits_for_disk; /* no job is taken: results cannot be written, or too many are not written yet */
    bool is_crowded;     /* too many decisions wait for look-ups: no further one can begin */
    bool goes_to_head;   /* the recipient that is dispatched now goes to the head of its lane */
    uint32_t n_to_ask;   /* that many parked ones, the oldest, are to be asked: there is a new policy */
    struct hky_task recheck_task, policy_task;
    uint32_t is_recheck_posted, is_sweep_due, is_policy_posted; /* atomic */
    struct {
        uint32_t queued, sending, deferred, parked, held, undecided;
        /* To be dispatched, or on their way to another worker, which subtracts them. Only the sum over all shards means
         * anything. */
        int32_t moving;
        uint64_t delivered, failed, cancelled, notices, attempts;
    } n; /* atomic: written by the shard, read by any thread */
};

/*
 * What follows is in the order of the files: each uses only those above it.
 */

/* ---- timing.c: when a shard works next ---- */

#define SHARD_SLEEP_MOST_MS 1000

/*
 * There are two times (base/clock.h). What a recipient carries, and what events say, is time of the wall clock:
 * schedule_shard_now. Everything that waits (heaps, lanes, gates, caps, pauses) uses elapsed time:
 * schedule_shard_mono. So no wait becomes longer when somebody sets the wall clock.
 */
int64_t schedule_shard_now(const struct hky_shard *sh);
int64_t schedule_shard_mono(const struct hky_shard *sh);
int64_t schedule_mono(const struct hky_schedule *s);
/* The wall clock minus the elapsed time, now. */
int64_t schedule_wall_offset(const struct hky_schedule *s);
/* The same moment by the other clock, by the present offset; INT64_MAX (never) stays INT64_MAX. */
int64_t schedule_wall_at(const struct hky_schedule *s, int64_t mono_ms);
int64_t schedule_mono_at(const struct hky_schedule *s, int64_t wall_ms);
/* Puts r into the heap, or moves it there; at_ms is of the wall clock. */
void schedule_shard_set_due(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms);
void schedule_shard_timer_by(struct hky_shard *sh, int64_t mono_ms); /* the timer fires then at the latest */
void schedule_shard_set_timer(struct hky_shard *sh, int64_t now_ms); /* sets it for what is due first */
void schedule_shard_request_turn(struct hky_shard *sh);              /* turn.c does its work soon */
/* The lane is woken at the end of this turn of the loop; the other one: at that time at the latest. Whoever is woken
 * too early asks again, and says then for how long to wait: a wake takes back the times that were said before it. */
void schedule_shard_wake(struct hky_shard *sh, struct lane *l);
void schedule_shard_wake_at(struct hky_shard *sh, struct lane *l, int64_t mono_ms);
/* The lane has mail that cannot go before then (INT64_MAX: unknown). It is woken then, or by schedule_recheck. */
void schedule_lane_wait(struct lane *l, int64_t until_mono_ms);
void schedule_shard_wake_waiting(struct hky_shard *sh);
/* Wakes the waiting lanes of all shards. `is_changed`: the state of relays has changed, so the mail of their lanes may
 * have to move to others. Any thread. */
void schedule_recheck(struct hky_schedule *s, bool is_changed);

/* ---- disk.c: mail waits while results cannot be written ---- */

/* So many jobs of a worker may have ended without their results being written. With those under way they fit into
 * `inflight`, so that a start after a kill knows them all. */
#define UNWRITTEN_MOST      (INFLIGHT_SLOTS / 4)
#define DISK_ASKED_EVERY_MS 20

/* True: this shard may take no job now. Its waiting lanes are woken when it may. */
bool schedule_shard_waits_for_disk(struct hky_shard *sh);
/* Looks whether that is over; the shard's timer calls it. */
void schedule_shard_ask_disk(struct hky_shard *sh);

/* ---- events.c: events of recipients and lanes, for the event log and others ---- */

struct event_details { /* what an event says beyond the recipient */
    const struct hky_outcome *outcome;
    const struct job *job;
    const char *relay, *account, *text;
    int64_t next_at_ms;
};
/* Emits an event about a recipient, or about the account of a lane; all is borrowed for the call. */
void schedule_event_of_recipient(struct hky_shard *sh, enum hky_event_kind kind, const struct hky_recipient *r,
                                 const struct event_details *n);
/* Logs that it was parked for r->reason. Of many in a second only the first have lines; the others are counted in a
 * line that the second function logs when the second is over. Call that one now and then. */
void schedule_log_parked(struct hky_shard *sh, const struct hky_recipient *r);
void schedule_log_parked_left_out(struct hky_shard *sh);
void schedule_event_of_lane(struct hky_shard *sh, enum hky_event_kind kind, const struct lane *l, int64_t until_ms,
                            const char *why);

/* ---- queue.c: who goes first in a lane ---- */

/* The queues of one lane, by rank and scenario. fini frees them and does not touch the recipients in them. */
void schedule_lane_queues_init(struct lane *l);
void schedule_lane_queues_fini(struct lane *l);
/* Puts r into the queue of its rank and scenario (at its front: it was taken and given back); takes it out. */
void schedule_lane_push(struct lane *l, struct hky_recipient *r, bool at_front);
void schedule_lane_remove(struct lane *l, struct hky_recipient *r);
/* The recipient that goes next, by rank and rotation; it stays in the queue. NULL: the lane is empty. */
struct hky_recipient *schedule_lane_peek(struct lane *l);
/* The recipient behind r in its queue, if it is of the same message; else NULL. */
struct hky_recipient *schedule_lane_peer(struct hky_recipient *r);
/* A job was made of r, the peeked one: it is another scenario's turn. */
void schedule_lane_rotate(struct lane *l, struct hky_recipient *r);
/* Any recipient, for moving all out; NULL: the lane is empty. */
struct hky_recipient *schedule_lane_any(struct lane *l);

/* ---- relays.c: accounts and relays as all workers share them ---- */

/* Call it with the lock held. The account is made when it is new; its caps are as `policy` states them. */
struct account *schedule_account_open(struct hky_schedule *s, const struct hky_policy *policy,
                                      const struct hky_relay *relay, const char *key);
/* Call it with the lock held. NULL: operators said nothing. What they said for some time is forgotten after it. */
struct relay_state *schedule_relay_state(struct hky_schedule *s, const char *name);
/* The same without the lock. `caps` may be NULL. */
struct account *schedule_account(struct hky_schedule *s, const struct hky_policy *policy, const struct hky_relay *relay,
                                 const char *account, struct caps_account **caps);
/* The relay that a step uses now, after `instead` and drains; NULL: the policy has no relay of that name. */
const struct hky_relay *schedule_relay(struct hky_schedule *s, const struct hky_policy *policy, const char *name);
/* Adds the names of all relays that use this account as keys to `out`. */
void schedule_add_relays_of(const struct hky_policy *policy, const char *account, struct hky_map *out);
/* Is it paused by the policy or by an operator? */
bool schedule_is_paused(struct hky_schedule *s, const struct hky_relay *relay, int64_t *until_mono_ms);
/* Is it, or does the gate of this lane let nobody send now? */
bool schedule_lane_is_paused(struct lane *l, int64_t *until_mono_ms);
/* Call it with the schedule's lock held, after a change of the lane's gate: adds a lane of own delivery that cannot
 * send to `blocked`, or takes it out. */
void schedule_lane_update_blocked(struct lane *l);

/* ---- lanes.c: making, finding and freeing lanes ---- */

/* The lane for a step in this shard; it is made when there is none. `relay` must be of the shard's policy. */
struct lane *schedule_shard_lane(struct hky_shard *sh, const struct hky_relay *relay, const char *account,
                                 struct hky_str destination);
/* The worker at which that lane lives. */
unsigned schedule_lane_home(struct hky_schedule *s, const struct hky_relay *relay, const char *account,
                            struct hky_str destination);
void schedule_lane_retire(struct lane *l);              /* it gets no more mail, and the next turn empties it */
void schedule_shard_retire_lanes(struct hky_shard *sh); /* all of them: there is a new policy */
void schedule_lane_free_if_over(struct lane *l);        /* if it is gone, and empty */
void schedule_lane_free(struct lane *l);
/* Forgets rate limits of lanes that are gone, when their time is over. */
void schedule_shard_forget_slowness(struct hky_shard *sh, int64_t now_ms);

/* ---- survey.c: visiting every recipient of a shard once, in portions. A shard has one survey at a time ---- */

struct survey {
    struct hky_shard *shard;
    void (*each)(void *ctx, struct hky_shard *sh, struct hky_recipient *r, int64_t now_ms); /* may move or finish r */
    void *ctx;
    uint32_t mark;
    unsigned phase, n_passes;
    uint32_t at;                /* in the heap */
    struct hky_recipient *next; /* in the held or dispatch list */
    uint64_t n_new;             /* visited in this pass */
    int64_t asked_at_ms;
    uint64_t n_found; /* visited in all, of those accepted before asked_at_ms */
};
void schedule_survey_begin(struct survey *k, struct hky_shard *sh, uint32_t mark); /* then set each, ctx, asked_at_ms */
bool schedule_survey_continue(struct survey *k); /* visits one portion; false: it was the last */
/* Call it before r leaves the held or the dispatch list. */
void schedule_survey_on_leave(struct hky_shard *sh, const struct hky_recipient *r);

/* ---- recipient.c: state, reason and end of a recipient ---- */

/* The only writer of r->state. The edge must be in its table. Changes are logged at level debug. */
void schedule_recipient_enter(const struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state to);
bool schedule_recipient_may_enter(enum hky_recipient_state from, enum hky_recipient_state to);
/* It enters the first step of its plan, at that time. False: no step may send as the author, and nothing was changed.
 */
bool schedule_recipient_begin_plan(const struct hky_policy *policy, struct hky_recipient *r, int64_t at_ms);
void schedule_recipient_enter_step(struct hky_recipient *r, uint8_t step, enum hky_class cause, int64_t now_ms);
void schedule_recipient_set_reason(struct hky_recipient *r, const char *why);
void schedule_recipient_journal(struct hky_shard *sh, struct hky_recipient *r); /* writes its whole state */
/* For one that is being sent: writes in which state, and with which reason, the next start finds it if this run is
 * killed before the attempt ends. The recipient itself does not change; what is written of it later counts instead. */
void schedule_recipient_journal_as(struct hky_shard *sh, const struct hky_recipient *r, enum hky_recipient_state state,
                                   char *why);
/* Ends a recipient that is in no list. */
void schedule_recipient_finish(struct hky_shard *sh, struct hky_recipient *r, enum hky_recipient_state state,
                               const struct hky_outcome *o, const char *why, const struct job *job);
/* The same, because no step is left that may send as the author. */
void schedule_recipient_fail_for_author(struct hky_shard *sh, struct hky_recipient *r);

/* ---- undecided.c: recipients that wait for the policy ---- */

#define NO_TIME_MOST 1 /* next_at_ms up to this is no time: undecided.c uses 0 and 1 as marks */

/* Has the policy worked as long as it may in one turn? */
bool schedule_shard_is_policy_time_over(const struct hky_shard *sh);
/* May it be asked now, in this turn? */
bool schedule_shard_has_policy_time(const struct hky_shard *sh);
/* Each of these four takes a recipient that is in no list, and makes it undecided or ends it. The policy is asked about
 * it: in one of the next turns; when fewer decisions wait for look-ups; when its look-up is answered; some time after a
 * look-up has failed. */
void schedule_undecided_ask_later(struct hky_shard *sh, struct hky_recipient *r);
void schedule_undecided_ask_when_free(struct hky_shard *sh, struct hky_recipient *r);
void schedule_undecided_wait_for_answer(struct hky_shard *sh, struct hky_recipient *r, const char *what);
void schedule_undecided_ask_after_failure(struct hky_shard *sh, struct hky_recipient *r, const char *why);
/* A reload is under way, and a relay of its plan is not known here: in a moment it is dispatched again. */
void schedule_undecided_wait_for_policy(struct hky_shard *sh, struct hky_recipient *r);
/* Takes it out of the lists; its decision is dropped. */
void schedule_undecided_take_out(struct hky_shard *sh, struct hky_recipient *r);
void schedule_undecided_drop_decision(struct hky_shard *sh, struct hky_recipient *r);
/* The next recipient to ask the policy about; NULL: none. */
struct hky_recipient *schedule_undecided_next(struct hky_shard *sh);
/* Takes that one out of the lists; its decision, if one has begun, goes on. */
void schedule_undecided_begin_asking(struct hky_shard *sh, struct hky_recipient *r);

/* ---- moves.c: moving a recipient out of its list, and into one ---- */

/* Takes it out of queue, heap, held or dispatch list: it is in no list then. */
void schedule_recipient_take_out(struct hky_shard *sh, struct hky_recipient *r);
/* Puts it into the dispatch list and requests a turn; the other one: when a turn is sure to come. */
void schedule_recipient_dispatch_later(struct hky_shard *sh, struct hky_recipient *r);
void schedule_recipient_list_for_dispatch(struct hky_shard *sh, struct hky_recipient *r);
void schedule_recipient_defer(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms);
/* `by` is 1 before it is deferred, and -1 after that. */
void schedule_shard_count_deferred(struct hky_shard *sh, const struct hky_recipient *r, int by);
void schedule_recipient_hold(struct hky_shard *sh, struct hky_recipient *r, const char *why);
/* The same at the end of an attempt. */
void schedule_recipient_hold_after(struct hky_shard *sh, struct hky_recipient *r, const char *why,
                                   const struct hky_outcome *o, const struct job *job);
/* Its time is over: ends one that is in no list; or holds it, when a copy may have been delivered. */
void schedule_recipient_expire(struct hky_shard *sh, struct hky_recipient *r);

/* ---- replan.c: asking the policy ---- */

/* Must the policy be asked before the next attempt, because the plan is of an older policy, or of a function that was
 * called too long ago? Never once a copy was delivered, or may have been. */
bool schedule_recipient_has_stale_plan(const struct hky_shard *sh, const struct hky_recipient *r, int64_t now_ms);
/* Asks the policy for a plan. False: the recipient is parked, undecided or ended now. */
bool schedule_recipient_replan(struct hky_shard *sh, struct hky_recipient *r);
void schedule_recipient_park(struct hky_shard *sh, struct hky_recipient *r, const char *why);
/* It has its plan: why it waited for the policy, and how often that was asked in vain, is over. */
void schedule_recipient_forget_wait(struct hky_recipient *r);
/* For one that was held and is released. Time while it was held does not count, and its beginning is not known: one
 * that was never tried has its whole time again, others have an hour at least; nobody has more than until the deadline
 * of its message. */
void schedule_recipient_renew_expiry(const struct hky_shard *sh, struct hky_recipient *r);
/* How long it is parked after the policy was asked so many times in vain. */
int64_t schedule_recipient_parked_delay_ms(uint32_t times);

/* ---- leave.c: leaving a step without an attempt ---- */

/* `reason` is full, paused or sends_as. True: the plan went on to another step or to its end. */
bool schedule_recipient_leave_step(struct hky_shard *sh, struct hky_recipient *r, enum hky_class reason);

/* ---- dispatch.c: where a recipient goes whose time has come ---- */

/* Takes a live recipient that is in no list, and queues it in its lane, parks, holds or ends it. */
void schedule_recipient_dispatch(struct hky_shard *sh, struct hky_recipient *r);
/* The same for one that is in a list. */
void schedule_recipient_redispatch(struct hky_shard *sh, struct hky_recipient *r);
/* Does engine.only_to name it? Asked again before each attempt, because its list changes without a reload. */
bool schedule_recipient_is_reached(const struct hky_shard *sh, const struct hky_recipient *r);
void schedule_recipient_hold_unreached(struct hky_shard *sh, struct hky_recipient *r); /* it is in no list */
#define GIVES_UP_SOON_MS (60 * 1000)
/* When to ask whether it gives up waiting in the lane: not later than that happens, or soon if that time has passed. */
int64_t schedule_recipient_gives_up_at(const struct hky_recipient *r, const struct hky_step *step, int64_t now_ms);

/* ---- sweep.c: looking after lanes ---- */

void schedule_shard_sweep_lanes(struct hky_shard *sh, int64_t now_ms); /* retires idle ones, empties paused ones */

/* ---- turn.c: the end of a turn ---- */

/* The lists of what this worker does at the end of a turn; fini drops what is in them. */
void schedule_shard_init_turn(struct hky_shard *sh);
void schedule_shard_fini_turn(struct hky_shard *sh);
/* Hands over to and takes from other workers what is on its way now, so that a survey misses nobody. */
void schedule_shard_settle(struct hky_shard *sh);

/* ---- shard.c: what is due ---- */

/* The part of one worker, on that worker's loop; it is freed with the schedule. */
void schedule_shard_init(struct hky_shard *sh, struct hky_schedule *s, unsigned index, struct hky_loop *loop);
/* Does what is due now, as hky_schedule_tick. */
void schedule_shard_tick(struct hky_shard *sh);

/* ---- take.c: jobs ---- */

/* What a lane with mail waits for, in one word (paused, breaker, slowed or cap), and until when by the wall clock
 * (INT64_MAX: unknown). NULL: nothing keeps it from sending. */
const char *schedule_lane_waits_for(struct lane *l, int64_t *until_ms);
void schedule_shard_free_jobs(struct hky_shard *sh);

/* ---- query.c: what operators see of the queue, and do to it ---- */

/* What kept these relays from sending was repaired: their mail that was deferred for one of `classes` goes at once. The
 * keys of `relays` are their names; the map is emptied. Any thread. */
void schedule_retry_repaired(struct hky_schedule *s, struct hky_map *relays, uint64_t classes);

void schedule_free_queries(struct hky_schedule *s); /* when the schedule is freed */

#endif
