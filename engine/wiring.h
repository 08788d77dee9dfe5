/* Private to engine: the whole, as its files see it (engine.c wires, planning.c asks the policy, operate.c answers
 * operators, metrics.c monitors, reload.c brings a new policy). */
#ifndef HKY_WIRING_H
#define HKY_WIRING_H

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "hikyaku/accept.h"
#include "hikyaku/console.h"
#include "hikyaku/deliver.h"
#include "hikyaku/engine.h"
#include "hikyaku/notice.h"
#include "hikyaku/operate.h"

#include "passwords.h"

#include <pthread.h>
#include <sys/queue.h>

struct hky_stopping; /* stopping.c: who asked for the stop, and how far it has got */
struct hky_wait;     /* planning.c: one decision that waits */

struct hky_worker {
    struct hky_engine *engine;
    unsigned index;
    struct hky_loop *loop;
    pthread_t thread;
    bool is_running;
    struct hky_vm *vm;           /* owned; the policy in force on this worker is its policy */
    int64_t vm_renewed_ms;       /* by hky_mono_ms, 0 never */
    struct hky_lookups *lookups; /* of its decisions */
    struct hky_map waits;        /* recipient's address in memory -> struct hky_wait */
    TAILQ_HEAD(, hky_wait) all_waits;
    struct hky_wait *unused_wait;      /* memory for the next one, or NULL */
    const struct hky_recipient *asked; /* about whom a decision is made just now, or NULL */
    int64_t planned_ns;                /* how long the policy worked before a 250 in this turn */
    bool is_turn_end_set;
    struct hky_task turn_end;
    struct hky_deliver *deliver;
    struct hky_task drain_task; /* at a stop */
    struct hky_notice *notice;
    struct hky_where *where; /* of the queue request under way, or NULL */
    uint64_t where_for;      /* its number, 0 none */
};

/* What was opened once: a reload cannot change it, and says so. */
struct hky_start_options {
    bool is_spool_given, is_log_level_given; /* on the command line: the policy's does not count */
    uint32_t workers;
    char *http;
    struct hky_bounds bounds;
};

struct hky_engine {
    struct hky_clock own_clock;
    const struct hky_clock *clock;
    struct hky_log *log;
    char *policy_path;
    char *spool;
    struct hky_policy *policy;             /* the newest; aux's thread */
    struct hky_vm *vm;                     /* aux's, for syntax checks of --where */
    uint64_t n_queue_asks;                 /* aux's */
    LIST_HEAD(, hky_queue_ask) unwritten;  /* aux's: done, but not known to be on disk; or to be asked again */
    LIST_HEAD(, hky_relay_ask) relay_asks; /* aux's: said, but not known to be on disk */
    unsigned n_workers;
    struct hky_worker *workers;
    struct hky_loop **loops;
    struct hky_loop *aux;
    struct hky_journal *journal;
    struct hky_journal_report report;
    bool are_duplicates_at_most; /* the report's number of them: else it may be more */
    struct hky_state *state;
    struct hky_record *record;
    struct hky_schedule_ops schedule_ops;
    struct hky_schedule *schedule;
    struct hky_accept_ops accept_ops;
    struct hky_accept *accept;
    struct hky_credentials *credentials;
    struct hky_servers *servers;
    struct hky_console *console;
    int64_t started_at_mono_ms; /* by hky_clock_elapsed_ms */
    int stopping;               /* 0 runs, 1 drains, 2 at once; aux's thread */
    struct hky_task stop_task, accept_drained, schedule_drained;
    int stop_asked;               /* atomic: a command has asked for the stop, which counts once */
    int is_stop_posted;           /* atomic: stop_task is in the queue of aux */
    struct hky_stopping *stopper; /* NULL before the engine runs */
    bool has_run;
    struct hky_passwords *passwords; /* of listeners */
    char lists_kept[300];            /* what the last reload said of lists that wait, "" nothing; aux's thread */
    char restart_keys[160];          /* changed by reloads and not in force before a restart, "" none; aux's thread */
    char reload_error[512];          /* why the last reload was refused, "" none; aux's thread */
    struct hky_start_options at_start;
    struct hky_timer lists_timer;
    struct hky_timer memory_timer;
    uint64_t queued_most; /* since memory was last given back */
    struct hky_lull lull;
    char list_error[240]; /* reported last, "" none */
};

#define HKY_QUEUE_TEXTS 9
/* One queue request of an operator. `rq.ctx` is the whole. */
struct hky_queue_ask {
    uint64_t number; /* an address may come again, this does not */
    struct hky_queue_request rq;
    struct hky_engine *engine;
    struct hky_console_request *request;
    char *texts[HKY_QUEUE_TEXTS]; /* the selection's */
    bool is_story;
    struct hky_buf rows; /* an array, written as they come */
    struct hky_json json;
    struct hky_commit commit;               /* what was done is on disk */
    LIST_ENTRY(hky_queue_ask) link;         /* in engine->unwritten until then, or while `again` is set */
    bool is_trial;                          /* only asks whether `where` fails for anybody; the action comes after it */
    uint64_t n_where_asked, n_where_failed; /* workers are asked one after the other */
    uint64_t n_where_unread;                /* of those that failed: the header is being read */
    char where_error[240];                  /* the first, of an expression that fails if there is one */
    struct hky_timer again;                 /* asks once more when headers have been read */
    int64_t began_mono_ms;
};

/* planning.c */
void hky_worker_plan(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header);
void hky_worker_decide(void *ctx, unsigned worker, const struct hky_recipient *r, struct hky_decision *out);
void hky_worker_forget(void *ctx, unsigned worker, const struct hky_recipient *r);
/* Another vm for this worker: decisions that wait are made afresh by it. Takes the new one, frees the old one. */
void hky_worker_set_vm(struct hky_worker *w, struct hky_vm *vm);
void hky_worker_drop_waits(struct hky_worker *w); /* at the stop: nothing is made afresh */
bool hky_worker_where_is_true(void *ctx, unsigned worker, const struct hky_recipient *r);

/* metrics.c */
const char *hky_engine_unwell(void *ctx);
void hky_engine_metrics(void *ctx, struct hky_buf *out);

/* operate.c */
void hky_engine_restore_relays(struct hky_engine *engine);
void hky_engine_drop_asks(struct hky_engine *engine);       /* the journal is closed */
void hky_engine_drop_relay_asks(struct hky_engine *engine); /* state.db and the loops are closed */

/* stopping.c */
/* What a stop waits for, in this order; hikyaku-operate(7) says how long. */
enum hky_stop_step {
    HKY_STOP_NOT_BEGUN,
    HKY_STOP_CLIENTS,
    HKY_STOP_DELIVERIES,
    HKY_STOP_THREADS,
    HKY_STOP_HELPERS,
    HKY_STOP_JOURNAL,
    HKY_STOP_RECORD,
    HKY_STOP_MEMORY
};
/* Starts the thread that takes SIGTERM and SIGINT, which every thread must block. Each of them posts stop_task to aux.
 * HKY_E_LIMIT: there is no thread or descriptor for it. */
enum hky_err hky_stopping_start(struct hky_engine *engine, struct hky_stopping **out, struct hky_error *e);
void hky_stopping_ask(struct hky_stopping *s); /* as a signal does */
unsigned hky_stopping_n_asked(struct hky_stopping *s);
/* The stop has come to this step; a step that takes long is logged. NULL is fine. */
void hky_stopping_enter(struct hky_stopping *s, enum hky_stop_step step);
void hky_stopping_end(struct hky_stopping **s); /* before the log is freed */

/* reload.c, on aux's thread */
/* What a start or reload needs beside a good policy. The listeners must be allowed and have their certificates. Every
 * password that lies in the environment or a file is read once, so that a missing one is known at the start and not
 * with the first mail; commands may ask a person or a keyring, so they run when needed. The error is that of the first
 * one that is missing. */
enum hky_err hky_engine_check_policy(const struct hky_policy *policy, struct hky_error *e);
/* Loads the policy again and puts it in force at all workers. On an error nothing changes, and `e` says why
 * (HKY_E_STATE: the engine is stopping). */
enum hky_err hky_engine_reload(struct hky_engine *engine, struct hky_error *e);
/* Begins to look at the files of the policy's lists every few seconds. */
void hky_engine_watch_lists(struct hky_engine *engine);

#endif
