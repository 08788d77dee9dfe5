/* Starts the stages in order and stops them in reverse. Stages know only each other's headers; the callbacks that lead
 * back (outcomes, events) are connected here. */
#include "wiring.h"

#include "base/endpoint.h"
#include "base/memory.h"
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPT_GRACE_MS  10000
#define DELIVER_GRACE_MS 30000
#define MEMORY_EVERY_MS  5000
#define BACKLOG_LEAST    2000

/* ---- callbacks of the stages ---- */

static struct hky_policy *policy_of_worker(void *ctx, unsigned worker)
{
    struct hky_engine *engine = ctx;

    return hky_vm_policy(engine->workers[worker].vm);
}

static void on_wake(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct hky_engine *engine = ctx;

    hky_deliver_wake(engine->workers[worker].deliver, lane);
}

static void on_lane_end(void *ctx, unsigned worker, struct hky_lane *lane)
{
    struct hky_engine *engine = ctx;

    hky_deliver_forget_lane(engine->workers[worker].deliver, lane);
}

static void on_finish(void *ctx, unsigned worker, struct hky_recipient *r, const struct hky_outcome *o)
{
    struct hky_engine *engine = ctx;

    hky_notice_finish(engine->workers[worker].notice, r, o);
}

static void on_event(void *ctx, unsigned worker, const struct hky_event *ev)
{
    struct hky_engine *engine = ctx;

    hky_record_event(engine->record, worker, ev);
}

static void on_enqueue(void *ctx, unsigned worker, struct hky_message *m)
{
    struct hky_engine *engine = ctx;

    hky_schedule_enqueue(engine->schedule, worker, m);
}

static void ask_relay_secret(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_relay *relay,
                             struct hky_secret *refused,
                             void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct hky_engine *engine = ctx;

    hky_credentials_get(engine->credentials, policy, relay, refused, engine->workers[worker].loop, done, arg);
}

static void ask_password(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_secret_ref *ref,
                         void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct hky_engine *engine = ctx;

    hky_passwords_ask(engine->passwords, policy, ref, engine->workers[worker].loop, done, arg);
}

/* ---- start ---- */

/* What the journal held, kept until the schedule exists and takes it over. */
struct replayed {
    struct hky_message **messages;
    size_t n, cap;
    struct hky_map caps; /* key -> struct hky_buf */
};

static void on_replayed_message(void *ctx, struct hky_message *m)
{
    struct replayed *all = ctx;

    if (all->n == all->cap) {
        all->cap = all->cap < 1024 ? 1024 : all->cap * 2;
        all->messages =
            (struct hky_message **)hky_realloc((void *)all->messages, all->cap * sizeof(struct hky_message *));
    }
    all->messages[all->n++] = m;
}

static void on_replayed_cap(void *ctx, struct hky_str key, struct hky_str value)
{
    struct replayed *all = ctx;
    struct hky_buf *b = hky_map_get(&all->caps, key);

    if (b == NULL) {
        b = hky_calloc(1, sizeof *b);
        hky_buf_init(b, SIZE_MAX / 4);
        hky_map_put(&all->caps, key, b);
    }
    hky_buf_clear(b);
    hky_buf_add_str(b, value);
}

/* A message comes with one reference for each recipient that is not finished. */
static void drop_message(struct hky_message *m)
{
    uint32_t n_live = 0;

    for (uint32_t i = 0; i < m->n_recipients; i++)
        n_live += !hky_recipient_state_is_final((enum hky_recipient_state)m->recipients[i].state);
    for (; n_live > 0; n_live--) {
        struct hky_message *it = m;
        hky_message_unref(&it);
    }
}

static void hand_over(struct hky_engine *engine, struct replayed *all)
{
    struct hky_map_entry *entry;
    size_t at = 0;

    while ((entry = hky_map_next(&all->caps, &at)) != NULL) {
        struct hky_buf *b = entry->value;
        if (engine->schedule != NULL)
            hky_schedule_restore_cap(engine->schedule, hky_str_of(entry->key, entry->n), hky_buf_str(b));
        hky_buf_fini(b);
        free(b);
    }
    hky_map_fini(&all->caps);
    for (size_t i = 0; i < all->n; i++)
        if (engine->schedule != NULL)
            hky_schedule_restore_message(engine->schedule, all->messages[i]);
        else
            drop_message(all->messages[i]);
    free((void *)all->messages);
}

static enum hky_err make_spool(const char *spool, struct hky_error *e)
{
    if (mkdir(spool, 0700) != 0 && errno != EEXIST)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot make the spool %s (engine.spool, or --spool DIR)", spool);
    if (access(spool, R_OK | W_OK | X_OK) != 0)
        return hky_error_sys(e, HKY_E_DENIED, errno,
                             "the spool %s is not writable; give it to the user that runs hikyaku", spool);
    return HKY_OK;
}

static unsigned count_workers(const struct hky_policy *policy)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (policy->engine.workers > 0)
        return policy->engine.workers;
    return cores > 2 ? (unsigned)cores - 1 : 1;
}

static enum hky_err open_loops(struct hky_engine *engine, struct hky_error *e)
{
    enum hky_err err = hky_loop_new(&engine->aux, e);

    engine->n_workers = count_workers(engine->policy);
    engine->workers = hky_calloc(engine->n_workers, sizeof *engine->workers);
    engine->loops = (struct hky_loop **)hky_calloc(engine->n_workers, sizeof *engine->loops);
    for (unsigned i = 0; i < engine->n_workers && err == HKY_OK; i++) {
        struct hky_worker *w = &engine->workers[i];
        w->engine = engine;
        w->index = i;
        hky_map_init(&w->waits);
        TAILQ_INIT(&w->all_waits);
        if ((err = hky_loop_new(&w->loop, e)) == HKY_OK)
            err = hky_vm_new(engine->policy, &w->vm, e);
        if (err == HKY_OK)
            hky_vm_set_log(w->vm, engine->log);
        w->lookups = hky_lookups_new(w->loop, engine->policy);
        if (w->vm != NULL)
            hky_vm_set_lookups(w->vm, w->lookups);
        engine->loops[i] = w->loop;
    }
    return err == HKY_OK ? hky_vm_new(engine->policy, &engine->vm, e) : err;
}

static enum hky_err open_journal(struct hky_engine *engine, struct replayed *all, struct hky_error *e)
{
    const struct hky_bounds *bounds = &engine->policy->engine.bounds;
    struct hky_journal_params params = {.dir = engine->spool,
                                        .segment_octets = bounds->segment_octets,
                                        .cold_after_ms = bounds->cold_after_ms,
                                        .spool_max = bounds->spool_max,
                                        .min_free = bounds->min_free,
                                        .body_memory = bounds->body_memory,
                                        .spares_after_ms = 1000,
                                        .clock = engine->clock,
                                        .log = engine->log};
    struct hky_journal_replay replay = {all, on_replayed_message, on_replayed_cap};

    return hky_journal_open(&params, &replay, &engine->journal, &engine->report, e);
}

static enum hky_err open_schedule(struct hky_engine *engine, struct hky_error *e)
{
    engine->schedule_ops = (struct hky_schedule_ops){engine,    on_wake,  on_lane_end,      hky_worker_decide,
                                                     on_finish, on_event, hky_worker_forget};
    return hky_schedule_new(&(struct hky_schedule_params){.n_workers = engine->n_workers,
                                                          .loops = engine->loops,
                                                          .journal = engine->journal,
                                                          .policy = engine->policy,
                                                          .clock = engine->clock,
                                                          .log = engine->log,
                                                          .ops = &engine->schedule_ops,
                                                          .dir = engine->spool,
                                                          .was_unclean = engine->report.unclean_stops > 0},
                            &engine->schedule, e);
}

static enum hky_err open_workers(struct hky_engine *engine, struct hky_error *e)
{
    enum hky_err err = HKY_OK;

    for (unsigned i = 0; i < engine->n_workers && err == HKY_OK; i++) {
        struct hky_worker *w = &engine->workers[i];
        err = hky_deliver_new(&(struct hky_deliver_params){.loop = w->loop,
                                                           .worker = i,
                                                           .journal = engine->journal,
                                                           .log = engine->log,
                                                           .clock = engine->clock,
                                                           .servers = engine->servers,
                                                           .ctx = engine,
                                                           .secret = ask_relay_secret},
                              &w->deliver, e);
        w->notice = hky_notice_new(&(struct hky_notice_params){.loop = w->loop,
                                                               .journal = engine->journal,
                                                               .record = engine->record,
                                                               .log = engine->log,
                                                               .worker = i,
                                                               .clock = engine->clock,
                                                               .ctx = engine,
                                                               .policy = policy_of_worker,
                                                               .decide = hky_worker_plan,
                                                               .enqueue = on_enqueue});
    }
    return err;
}

static enum hky_err open_accept(struct hky_engine *engine, struct hky_error *e)
{
    engine->accept_ops =
        (struct hky_accept_ops){engine, policy_of_worker, hky_worker_plan, on_enqueue, ask_password, on_event};
    return hky_accept_new(&(struct hky_accept_params){.n_workers = engine->n_workers,
                                                      .loops = engine->loops,
                                                      .journal = engine->journal,
                                                      .clock = engine->clock,
                                                      .log = engine->log,
                                                      .ops = &engine->accept_ops},
                          engine->policy, &engine->accept, e);
}

/* Ports are opened before the journal is read, so that with a long queue clients wait for the greeting instead of being
 * refused. When two engines use one spool, the second one reports the spool and not the port. */
static enum hky_err open_ports_and_journal(struct hky_engine *engine, struct replayed *all, struct hky_error *e)
{
    enum hky_err err = open_accept(engine, e);
    struct hky_error locked;

    if (err == HKY_E_EXISTS && hky_journal_is_taken(engine->spool, &locked) == HKY_E_EXISTS)
        *e = locked;
    if (err == HKY_OK && (err = open_journal(engine, all, e)) == HKY_OK)
        hky_accept_set_journal(engine->accept, engine->journal);
    return err;
}

static enum hky_err open_console(struct hky_engine *engine, struct hky_error *e)
{
    const char *http = engine->policy->engine.http;
    const struct hky_console_ops ops = {.ctx = engine,
                                        .commands = hky_operate_commands,
                                        .rights = HKY_RIGHT_ALL,
                                        .unwell = hky_engine_unwell,
                                        .metrics = hky_engine_metrics};
    enum hky_err err = hky_console_new(engine->aux, engine->spool, http, &ops, &engine->console, e);

    if (err == HKY_OK && http[0] != '\0') {
        char host[256] = "";
        uint16_t port = 0;
        (void)hky_endpoint_parse(hky_str_z(http), host, &port);
        hky_log(engine->log, HKY_LOG_INFO, "listening", "addr=%s port=%u http=\"/healthz /metrics\"", host, port);
    }
    return err;
}

static enum hky_err open_stages(struct hky_engine *engine, struct hky_error *e)
{
    struct replayed all = {0};
    enum hky_err err;

    hky_map_init(&all.caps);
    if ((err = make_spool(engine->spool, e)) != HKY_OK || (err = open_loops(engine, e)) != HKY_OK)
        return err;
    if ((err = open_ports_and_journal(engine, &all, e)) != HKY_OK) {
        hand_over(engine, &all);
        return err;
    }
    err = hky_state_open(engine->spool, engine->log, &engine->state, e);
    if (err == HKY_OK)
        err = hky_record_open(&(struct hky_record_params){.dir = engine->spool,
                                                          .n_workers = engine->n_workers,
                                                          .min_free = engine->policy->engine.bounds.min_free,
                                                          .log = engine->log,
                                                          .clock = engine->clock},
                              &engine->record, e);
    if (err == HKY_OK)
        err = open_schedule(engine, e);
    hand_over(engine, &all);
    if (err == HKY_OK)
        engine->report.maybe_duplicates +=
            hky_schedule_maybe_duplicates(engine->schedule, &engine->are_duplicates_at_most);
    if (err != HKY_OK)
        return err;
    if ((err = hky_credentials_new(engine->aux, engine->state, engine->log, &engine->credentials, e)) != HKY_OK ||
        (err = hky_passwords_new(engine->aux, &engine->passwords, e)) != HKY_OK)
        return err;
    engine->servers = hky_servers_new(engine->state, engine->clock);
    if ((err = open_workers(engine, e)) != HKY_OK)
        return err;
    return open_console(engine, e);
}

enum hky_err hky_engine_new(const struct hky_engine_params *p, struct hky_engine **out, struct hky_problems *problems,
                            struct hky_error *e)
{
    struct hky_engine *engine = hky_calloc(1, sizeof *engine);
    enum hky_log_level level = HKY_LOG_INFO;
    const char *level_name;
    enum hky_err err;

    *out = NULL;
    hky_memory_settle();
    engine->own_clock = HKY_CLOCK_REAL;
    engine->clock = p->clock != NULL ? p->clock : &engine->own_clock;
    engine->policy_path = hky_strdup(p->policy_path);
    engine->started_at_mono_ms = hky_clock_elapsed_ms(engine->clock);
    err = hky_policy_load(
        &(struct hky_policy_load_params){.path = p->policy_path, .now_ms = hky_clock_now_ms(engine->clock)},
        &engine->policy, problems);
    if (err != HKY_OK) {
        hky_engine_free(&engine);
        return hky_error_set(e, err, "%s has errors; nothing was started", p->policy_path);
    }
    level_name = p->log_level != NULL ? p->log_level : engine->policy->engine.log;
    if (level_name[0] != '\0' && !hky_log_level_parse(hky_str_z(level_name), &level)) {
        hky_engine_free(&engine);
        return hky_error_set(e, HKY_E_CONFIG, "no log level \"%s\": error, warn, info or debug", level_name);
    }
    engine->log = hky_log_new(p->log_fd, level);
    engine->spool = hky_strdup(p->spool != NULL ? p->spool : engine->policy->engine.spool);
    engine->at_start = (struct hky_start_options){.is_spool_given = p->spool != NULL,
                                                  .is_log_level_given = p->log_level != NULL,
                                                  .workers = engine->policy->engine.workers,
                                                  .http = hky_strdup(engine->policy->engine.http),
                                                  .bounds = engine->policy->engine.bounds};
    if ((err = hky_engine_check_policy(engine->policy, e)) == HKY_OK)
        err = open_stages(engine, e);
    if (err != HKY_OK) {
        hky_engine_free(&engine);
        return err;
    }
    hky_engine_restore_relays(engine);
    *out = engine;
    return HKY_OK;
}

/* ---- memory ---- */

/* The C library keeps the memory that a long queue has used. Once the queue is empty, giving it back is quick; in the
 * middle of a queue it would delay the workers. */
static void check_memory(struct hky_timer *timer)
{
    struct hky_engine *engine = HKY_CONTAINER(timer, struct hky_engine, memory_timer);
    struct hky_schedule_stats stats;
    uint64_t queued;

    hky_schedule_stats(engine->schedule, &stats);
    queued = stats.queued + stats.sending + stats.deferred + stats.parked + stats.held + stats.undecided;
    if (queued > engine->queued_most)
        engine->queued_most = queued;
    if (engine->queued_most >= BACKLOG_LEAST && queued < engine->queued_most / 8) {
        hky_memory_trim();
        engine->queued_most = queued;
    }
    /* Mail that never waits in the queue leaves memory behind, too: the C library keeps it for each thread. */
    struct hky_accept_stats taken;
    hky_accept_stats(engine->accept, &taken);
    if (hky_lull_has_come(&engine->lull, taken.messages))
        hky_memory_trim();
    hky_timer_set(timer, MEMORY_EVERY_MS);
}

static void watch_memory(struct hky_engine *engine)
{
    hky_timer_init(&engine->memory_timer, engine->aux, check_memory);
    hky_timer_set(&engine->memory_timer, MEMORY_EVERY_MS);
}

/* ---- run ---- */

static void *run_worker(void *arg)
{
    struct hky_worker *w = arg;
    char name[16];

    snprintf(name, sizeof name, "worker-%u", w->index);
    prctl(PR_SET_NAME, name);
    hky_loop_run(w->loop);
    return NULL;
}

static void on_schedule_drained(struct hky_task *task)
{
    struct hky_engine *engine = HKY_CONTAINER(task, struct hky_engine, schedule_drained);

    hky_loop_stop(engine->aux);
}

/* Called on worker 0's thread. */
static void schedule_is_drained(void *ctx)
{
    struct hky_engine *engine = ctx;

    hky_loop_post(engine->aux, &engine->schedule_drained);
}

static void drain_worker(struct hky_task *task)
{
    hky_deliver_drain(HKY_CONTAINER(task, struct hky_worker, drain_task)->deliver);
}

static void on_accept_drained(struct hky_task *task)
{
    struct hky_engine *engine = HKY_CONTAINER(task, struct hky_engine, accept_drained);

    hky_log(engine->log, HKY_LOG_INFO, "stopping", "what=\"finishing deliveries under way\"");
    hky_stopping_enter(engine->stopper, HKY_STOP_DELIVERIES);
    for (unsigned i = 0; i < engine->n_workers; i++) {
        engine->workers[i].drain_task.run = drain_worker;
        hky_loop_post(engine->workers[i].loop, &engine->workers[i].drain_task);
    }
    hky_schedule_drain(engine->schedule, DELIVER_GRACE_MS, schedule_is_drained, engine);
}

static void accept_is_drained(void *ctx)
{
    struct hky_engine *engine = ctx;

    hky_loop_post(engine->aux, &engine->accept_drained);
}

static void begin_stop(struct hky_engine *engine)
{
    if (++engine->stopping == 1) {
        hky_log(engine->log, HKY_LOG_INFO, "stopping", "what=\"taking no new mail\"");
        hky_stopping_enter(engine->stopper, HKY_STOP_CLIENTS);
        hky_accept_drain(engine->accept, ACCEPT_GRACE_MS, accept_is_drained, engine);
    } else {
        hky_log(engine->log, HKY_LOG_WARN, "stopping", "what=\"stopping at once\"");
        hky_loop_stop(engine->aux);
    }
}

static void on_stop_asked(struct hky_task *task)
{
    struct hky_engine *engine = HKY_CONTAINER(task, struct hky_engine, stop_task);

    __atomic_store_n(&engine->is_stop_posted, 0, __ATOMIC_RELEASE);
    for (unsigned n = hky_stopping_n_asked(engine->stopper); engine->stopping < 2 && (unsigned)engine->stopping < n;)
        begin_stop(engine);
}

static void on_reload_signal(void *ctx, int signo)
{
    struct hky_engine *engine = ctx;
    struct hky_error e;

    (void)signo;
    hky_record_reopen(engine->record);
    (void)hky_engine_reload(engine, &e);
}

/* For "%lu stop%s". */
#define COUNTED(n) (unsigned long)(n), (n) == 1 ? "" : "s"

static void record_start(struct hky_engine *engine)
{
    const struct hky_journal_report *r = &engine->report;
    char text[200];
    struct hky_event ev = {.kind = HKY_EVENT_STARTED, .at_ms = hky_clock_now_ms(engine->clock), .text = text};

    snprintf(text, sizeof text,
             "%lu message%s, %lu recipient%s in the journal; %lu unclean stop%s; %lu damaged record%s; "
             "%s %lu duplicate%s",
             COUNTED(r->messages), COUNTED(r->recipients), COUNTED(r->unclean_stops), COUNTED(r->damaged_records),
             engine->are_duplicates_at_most ? "at most" : "maybe more than", COUNTED(r->maybe_duplicates));
    hky_record_event(engine->record, HKY_RECORD_OTHER, &ev);
    hky_log(engine->log, HKY_LOG_INFO, "started", "policy=%s spool=%s workers=%u journal=\"%s\" replay_ms=%ld",
            engine->policy_path, engine->spool, engine->n_workers, text, (long)r->took_ms);
    if (r->damaged_records > 0)
        hky_log(engine->log, HKY_LOG_ERROR, "damaged", "records=%lu look=%s/damaged", (unsigned long)r->damaged_records,
                engine->spool);
}

static void record_stop(struct hky_engine *engine)
{
    struct hky_event ev = {.kind = HKY_EVENT_STOPPED, .at_ms = hky_clock_now_ms(engine->clock)};

    hky_record_event(engine->record, HKY_RECORD_OTHER, &ev);
}

/* Takes as many descriptors as the system allows; connections are bounded by engine.bounds. */
static void raise_descriptors(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
}

static enum hky_err start_workers(struct hky_engine *engine, struct hky_error *e)
{
    for (unsigned i = 0; i < engine->n_workers; i++) {
        struct hky_worker *w = &engine->workers[i];
        int rc = hky_thread_start(&w->thread, run_worker, w);
        if (rc != 0)
            return hky_error_sys(e, HKY_E_STATE, rc, "cannot start worker %u of %u; lower engine.workers", i,
                                 engine->n_workers);
        w->is_running = true;
    }
    return HKY_OK;
}

enum hky_err hky_engine_run(struct hky_engine *engine, struct hky_error *e)
{
    sigset_t ours;
    enum hky_err err;

    engine->stop_task.run = on_stop_asked;
    engine->accept_drained.run = on_accept_drained;
    engine->schedule_drained.run = on_schedule_drained;
    raise_descriptors();
    (void)prctl(PR_SET_DUMPABLE, 0); /* a core file would have passwords in it */
    /* Signals are held back until somebody listens to them, so that every stop from the first mail on is orderly. */
    sigemptyset(&ours);
    sigaddset(&ours, SIGHUP);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ours, NULL);
    engine->has_run = true;
    hky_schedule_start(engine->schedule);
    hky_accept_start(engine->accept);
    record_start(engine);
    err = start_workers(engine, e);
    if (err == HKY_OK)
        err = hky_stopping_start(engine, &engine->stopper, e);
    if (err == HKY_OK) {
        hky_engine_watch_lists(engine);
        watch_memory(engine);
        hky_loop_on_signal(engine->aux, SIGHUP, on_reload_signal, engine);
        sigemptyset(&ours);
        sigaddset(&ours, SIGHUP);
        pthread_sigmask(SIG_UNBLOCK, &ours, NULL); /* a signal that was held back is delivered here */
        hky_loop_run(engine->aux);
    }
    hky_stopping_enter(engine->stopper, HKY_STOP_THREADS);
    for (unsigned i = 0; i < engine->n_workers; i++) {
        struct hky_worker *w = &engine->workers[i];
        if (!w->is_running)
            continue;
        hky_loop_stop(w->loop);
        pthread_join(w->thread, NULL);
        w->is_running = false;
    }
    record_stop(engine);
    return err;
}

/* ---- stop ---- */

/* Stages free their tasks in their own order from here on, while the journal and helpers still post to the loops. */
static void close_loops(struct hky_engine *engine)
{
    for (unsigned i = 0; i < engine->n_workers && engine->workers != NULL; i++)
        if (engine->workers[i].loop != NULL)
            hky_loop_close(engine->workers[i].loop);
    if (engine->aux != NULL)
        hky_loop_close(engine->aux);
}

void hky_engine_free(struct hky_engine **out)
{
    struct hky_engine *engine = *out;

    *out = NULL;
    if (engine == NULL)
        return;
    close_loops(engine);
    hky_console_free(&engine->console);
    hky_accept_free(&engine->accept);
    for (unsigned i = 0; i < engine->n_workers && engine->workers != NULL; i++)
        hky_deliver_free(&engine->workers[i].deliver);
    for (unsigned i = 0; i < engine->n_workers && engine->workers != NULL; i++)
        hky_notice_stop(engine->workers[i].notice);
    hky_servers_free(&engine->servers);
    hky_stopping_enter(engine->stopper, HKY_STOP_HELPERS);
    hky_credentials_stop(engine->credentials);
    hky_passwords_stop(engine->passwords);
    hky_stopping_enter(engine->stopper, HKY_STOP_JOURNAL);
    if (engine->schedule != NULL)
        hky_schedule_settle(engine->schedule);
    /* The journal still posts to loops, whose queues hold tasks of the schedule. */
    if (engine->has_run)
        hky_journal_close(&engine->journal);
    else
        hky_journal_close_unused(&engine->journal);
    hky_engine_drop_asks(engine);
    hky_schedule_free(&engine->schedule);
    for (unsigned i = 0; i < engine->n_workers && engine->workers != NULL; i++)
        hky_notice_free(&engine->workers[i].notice);
    hky_stopping_enter(engine->stopper, HKY_STOP_RECORD);
    hky_record_close(&engine->record);
    hky_state_close(&engine->state);
    hky_stopping_enter(engine->stopper, HKY_STOP_MEMORY);
    if (engine->has_run)
        hky_log(engine->log, HKY_LOG_INFO, "stopped", "policy=%s", engine->policy_path);
    for (unsigned i = 0; i < engine->n_workers && engine->workers != NULL; i++) {
        hky_where_free(&engine->workers[i].where);
        if (engine->workers[i].lookups != NULL)
            hky_worker_drop_waits(&engine->workers[i]);
        hky_vm_free(&engine->workers[i].vm);
        hky_lookups_free(&engine->workers[i].lookups);
        hky_loop_free(&engine->workers[i].loop);
    }
    hky_vm_free(&engine->vm);
    hky_loop_free(&engine->aux);
    hky_engine_drop_relay_asks(engine);
    hky_credentials_free(&engine->credentials);
    hky_passwords_free(&engine->passwords);
    hky_policy_unref(&engine->policy);
    hky_stopping_end(&engine->stopper);
    hky_log_free(&engine->log);
    free(engine->workers);
    free((void *)engine->loops);
    free(engine->policy_path);
    free(engine->spool);
    free(engine->at_start.http);
    free(engine);
}
