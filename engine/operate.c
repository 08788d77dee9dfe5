/* The handlers of the commands that operators give a running engine. They run on the thread of the aux loop. */
#include "wiring.h"

#include "base/nearest.h"
#include "hikyaku/operate.h"
#include "hikyaku/render.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS_MOST      10000
#define ROWS_OCTETS    (32u << 20)
#define DAYS_MS(n)     ((int64_t)(n)*86400000)
#define FOR_MOST_MS    DAYS_MS(3650) /* of relay pause and drain */
#define ADDRESS_OCTETS 320
#define NAME_OCTETS    255
#define AGAIN_MS       200
#define AGAIN_MOST_MS  5000

/* ---- status, reload, stop ---- */

static void on_status(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    struct hky_status s = {.version = HKY_VERSION,
                           .policy_path = engine->policy_path,
                           .policy_hash = engine->policy->hash,
                           .state = engine->stopping > 0 ? "stopping" : "running",
                           .timezone = engine->policy->engine.timezone,
                           .n_workers = engine->n_workers,
                           .uptime_sec = (hky_clock_elapsed_ms(engine->clock) - engine->started_at_mono_ms) / 1000,
                           .reload_error = engine->reload_error,
                           .restart_keys = engine->restart_keys,
                           .n_events_dropped = hky_record_dropped(engine->record)};

    (void)self;
    hky_schedule_stats(engine->schedule, &s.schedule);
    hky_journal_stats(engine->journal, &s.journal);
    hky_accept_stats(engine->accept, &s.accept);
    hky_schedule_relays(engine->schedule, &s.relays);
    hky_console_answer(&rq, &s);
    hky_relay_list_fini(&s.relays);
}

static void on_reload(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    struct hky_error e = {0};

    (void)self;
    hky_record_reopen(engine->record);
    if (hky_engine_reload(engine, &e) == HKY_OK)
        hky_console_answer(&rq, &(struct hky_reloaded){.policy_path = engine->policy_path,
                                                       .policy_hash = engine->policy->hash,
                                                       .restart_keys = engine->restart_keys,
                                                       .lists = engine->lists_kept});
    else
        hky_console_refuse(&rq, "refused", e.text,
                           "the old policy stays in force; hikyaku check POLICY lists every problem");
}

static void on_stop(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    (void)self;
    hky_console_answer(&rq, NULL);
    hky_engine_stop(ctx);
}

/* ---- queue ---- */

static void ask_free(struct hky_queue_ask *ask)
{
    hky_buf_fini(&ask->rows);
    for (size_t i = 0; i < HKY_QUEUE_TEXTS; i++)
        free(ask->texts[i]);
    free(ask);
}

static void consider_name(void *ctx, const char *name)
{
    hky_nearest_consider(ctx, name);
}

static void each_relay(const struct hky_policy *policy, void (*each)(void *ctx, const char *name), void *ctx)
{
    for (uint32_t i = 0; i < policy->n_relays; i++)
        each(ctx, policy->relays[i].name);
}

/* A name in the selection that neither the queue nor the policy has is a typing mistake: an error says so, where a
 * count of 0 would not. */
static bool
is_name_known(const struct hky_queue_ask *ask, const char *kind, const char *name, const struct hky_name_seen *seen,
              void (*each)(const struct hky_policy *policy, void (*one)(void *ctx, const char *name), void *ctx),
              struct hky_error *e)
{
    struct hky_nearest_name near = seen->near;

    if (name == NULL || near.is_known)
        return true;
    if (each != NULL) /* tags are not in the policy: applications choose them */
        each(ask->engine->policy, consider_name, &near);
    if (near.is_known)
        return true;
    hky_error_set(e, HKY_E_MISSING, "no %s \"%.60s\" in the %s" HKY_NEAREST_FMT, kind, name,
                  each == NULL ? "queue" : "policy or the queue", HKY_NEAREST_ARG(&near));
    return false;
}

/* When the expression fails for some recipients, an action is refused, because it might miss those that were meant. A
 * list leaves them out and says so; an expression that fails for everybody is refused there, too. */
static bool is_where_refused(const struct hky_queue_ask *ask)
{
    return ask->n_where_failed > 0 &&
           (ask->is_trial || ask->rq.is_dry_run || ask->n_where_failed == ask->n_where_asked);
}

static void refuse_where(const struct hky_queue_ask *ask, struct hky_console_request **request)
{
    struct hky_error e;
    char cure[160];

    hky_error_set(&e, HKY_E_SCRIPT, "where failed for %" PRIu64 " of %" PRIu64 " recipient%s, the first time with: %s",
                  ask->n_where_failed, ask->n_where_asked, ask->n_where_asked == 1 ? "" : "s", ask->where_error);
    snprintf(cure, sizeof cure, "%s; %s",
             ask->rq.action == HKY_QUEUE_LIST ? "nothing is listed" : "nothing was changed",
             ask->n_where_unread == ask->n_where_failed
                 ? "give the same command again in a moment"
                 : "test first whether a field is there: r.author and r.author.domain == 'x.example'");
    hky_console_refuse(request, "where_failed", e.text, cure);
}

static void answer_queue(struct hky_queue_ask *ask, struct hky_console_request **request)
{
    const struct hky_queue_request *rq = &ask->rq;
    const struct hky_selection *x = &rq->selection;
    struct hky_error e = {0};

    if (rq->error.text[0] != '\0') {
        hky_console_refuse(request, "stopping", rq->error.text, "the engine is stopping");
    } else if (!is_name_known(ask, "relay", x->relay, &rq->relay_seen, each_relay, &e) ||
               !is_name_known(ask, "scenario", x->scenario, &rq->scenario_seen, hky_policy_each_scenario, &e) ||
               !is_name_known(ask, "tag", x->tag, &rq->tag_seen, NULL, &e)) {
        hky_console_refuse(request, "unknown_name", e.text, "nothing was selected");
    } else if (is_where_refused(ask)) {
        refuse_where(ask, request);
    } else if (ask->rows.is_over) {
        hky_console_refuse(request, "too_many", "the answer is too large", "select fewer, or give a smaller limit");
    } else {
        hky_json_end_array(&ask->json);
        hky_console_answer(request, &(struct hky_queue_answer){.n = rq->n,
                                                               .n_kept = rq->n_kept,
                                                               .n_held = rq->n_held,
                                                               .n_due = rq->n_due,
                                                               .n_late = rq->n_late,
                                                               .n_used_up = rq->n_used_up,
                                                               .n_spent = rq->n_spent,
                                                               .n_where_failed = ask->n_where_failed,
                                                               .timezone = ask->engine->policy->engine.timezone,
                                                               .where_error = ask->where_error,
                                                               .rows = hky_buf_str(&ask->rows)});
    }
}

static void on_written(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    struct hky_queue_ask *ask = HKY_CONTAINER(c, struct hky_queue_ask, commit);
    char text[240];

    LIST_REMOVE(ask, link);
    if (ask->engine->console != NULL && durable != NULL) {
        answer_queue(ask, &ask->request);
    } else if (ask->engine->console != NULL) {
        snprintf(text, sizeof text,
                 "done for %" PRIu64
                 " recipient%s, but the spool could not be written (%s): a crash now would undo that",
                 ask->rq.n, ask->rq.n == 1 ? "" : "s", result == HKY_E_FULL ? "no space" : "the disk fails");
        hky_console_refuse(
            &ask->request, "not_written", text,
            "the change is written as soon as the disk takes it; hikyaku status shows the journal's health");
    }
    ask_free(ask);
}

/* Called on the workers' threads for one row after the other. */
static void on_queue_row(void *ctx, const struct hky_queue_row *row)
{
    struct hky_queue_ask *ask = ctx;

    hky_render_queue_row(row, ask->is_story, &ask->json);
}

static void rows_begin(struct hky_queue_ask *ask)
{
    hky_buf_clear(&ask->rows);
    ask->json = hky_json_to(&ask->rows);
    hky_json_begin_array(&ask->json, NULL);
}

static void ask_again(struct hky_timer *timer)
{
    struct hky_queue_ask *ask = HKY_CONTAINER(timer, struct hky_queue_ask, again);

    LIST_REMOVE(ask, link);
    ask->n_where_asked = ask->n_where_failed = ask->n_where_unread = 0;
    rows_begin(ask);
    hky_schedule_query(ask->engine->schedule, &ask->rq);
}

/* Nobody should have to repeat a command because the headers of mail that waits are not in memory: reading them was
 * started, and takes a moment. An action is never repeated, only its trial. */
static bool is_asked_again(struct hky_queue_ask *ask)
{
    const struct hky_queue_request *rq = &ask->rq;

    if (ask->n_where_unread == 0 || rq->error.text[0] != '\0' || (rq->action != HKY_QUEUE_LIST && !rq->is_dry_run) ||
        hky_mono_ms() - ask->began_mono_ms >= AGAIN_MOST_MS)
        return false;
    LIST_INSERT_HEAD(&ask->engine->unwritten, ask, link);
    hky_timer_set(&ask->again, AGAIN_MS);
    return true;
}

/* Follows the trial. A recipient that arrived since then and for which the expression fails is left out and counted. */
static void begin_action(struct hky_queue_ask *ask)
{
    ask->is_trial = false;
    ask->n_where_asked = 0;
    ask->rq.is_dry_run = false;
    ask->rq.row = on_queue_row;
    hky_schedule_query(ask->engine->schedule, &ask->rq);
}

static void on_queue_done(struct hky_queue_request *rq)
{
    struct hky_queue_ask *ask = rq->ctx;

    if (ask->engine->console == NULL) { /* the console has stopped and freed the request */
        ask_free(ask);
        return;
    }
    if (is_asked_again(ask))
        return;
    if (ask->is_trial && rq->error.text[0] == '\0' && ask->n_where_failed == 0) {
        begin_action(ask);
        return;
    }
    /* The answer waits until the action is on disk, so that it holds after a crash; this thread must not block. */
    if (rq->action != HKY_QUEUE_LIST && !rq->is_dry_run && !ask->is_trial && rq->n > 0) {
        LIST_INSERT_HEAD(&ask->engine->unwritten, ask, link);
        ask->commit.loop = ask->engine->aux;
        ask->commit.done = on_written;
        hky_journal_sync(ask->engine->journal, &ask->commit);
        return;
    }
    answer_queue(ask, &ask->request);
    ask_free(ask);
}

void hky_engine_stop(struct hky_engine *engine)
{
    if (engine->stopper != NULL && __atomic_exchange_n(&engine->stop_asked, 1, __ATOMIC_ACQ_REL) == 0)
        hky_stopping_ask(engine->stopper);
}

void hky_engine_drop_asks(struct hky_engine *engine)
{
    for (struct hky_queue_ask *ask; (ask = LIST_FIRST(&engine->unwritten)) != NULL;) {
        LIST_REMOVE(ask, link);
        hky_timer_cancel(&ask->again);
        ask_free(ask);
    }
}

/* A copy of an argument's text for as long as the workers use it; NULL: not given. */
static const char *keep_text(struct hky_queue_ask *ask, size_t i, const char *name)
{
    const struct hky_value *v = hky_console_arg(ask->request, name);

    HKY_ASSERT(i < HKY_QUEUE_TEXTS);
    ask->texts[i] = v->is_given ? hky_strdup(v->text) : NULL;
    return ask->texts[i];
}

static void fill_selection(struct hky_queue_ask *ask)
{
    struct hky_selection *s = &ask->rq.selection;
    const struct hky_value *id = hky_console_arg(ask->request, "id"), *older = hky_console_arg(ask->request, "older");

    s->relay = keep_text(ask, 0, "relay");
    s->to = keep_text(ask, 1, "to");
    s->from = keep_text(ask, 2, "from");
    s->author = keep_text(ask, 3, "author");
    s->scenario = keep_text(ask, 4, "scenario");
    s->tag = keep_text(ask, 5, "tag");
    s->class = keep_text(ask, 6, "class");
    s->state = keep_text(ask, 7, "state");
    s->where = keep_text(ask, 8, "where");
    s->has_older = older->is_given;
    s->older_ms = older->number;
    s->has_message = id->is_given;
    memcpy(&s->message, &id->number, sizeof s->message);
}

static void on_queue(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    static const struct {
        const char *name;
        enum hky_queue_action action;
    } actions[] = {{"queue list", HKY_QUEUE_LIST},       {"queue show", HKY_QUEUE_LIST},
                   {"queue retry", HKY_QUEUE_RETRY},     {"queue hold", HKY_QUEUE_HOLD},
                   {"queue release", HKY_QUEUE_RELEASE}, {"queue cancel", HKY_QUEUE_CANCEL}};
    struct hky_engine *engine = ctx;
    struct hky_queue_ask *ask = hky_calloc(1, sizeof *ask);
    const struct hky_value *limit = hky_console_arg(rq, "limit");
    struct hky_where *where = NULL;
    struct hky_error e = {0};

    ask->engine = engine;
    ask->request = rq;
    ask->number = ++engine->n_queue_asks;
    ask->began_mono_ms = hky_mono_ms();
    hky_timer_init(&ask->again, engine->aux, ask_again);
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (strcmp(self->name, actions[i].name) == 0)
            ask->rq.action = actions[i].action;
    ask->is_story = strcmp(self->name, "queue show") == 0;
    hky_buf_init(&ask->rows, ROWS_OCTETS);
    fill_selection(ask);
    if (ask->rq.selection.where != NULL &&
        hky_where_new(engine->vm, hky_str_z(ask->rq.selection.where), &where, &e) != HKY_OK) {
        hky_console_refuse(&rq, "bad_request", e.text, "--where takes a Lua expression on r: r.tags.urgent");
        ask_free(ask);
        return;
    }
    hky_where_free(&where);
    rows_begin(ask);
    if (ask->rq.action != HKY_QUEUE_LIST)
        ask->rq.is_dry_run = hky_console_arg(rq, "dry_run")->is_given;
    ask->rq.limit = limit->is_given && limit->number < ROWS_MOST ? (unsigned)limit->number : ROWS_MOST;
    ask->rq.loop = engine->aux;
    ask->rq.row = on_queue_row;
    ask->rq.done = on_queue_done;
    ask->rq.ctx = ask;
    ask->rq.where_is_true = ask->rq.selection.where != NULL ? hky_worker_where_is_true : NULL;
    if (ask->rq.where_is_true != NULL && ask->rq.action != HKY_QUEUE_LIST && !ask->rq.is_dry_run) {
        ask->is_trial = ask->rq.is_dry_run = true;
        ask->rq.row = NULL;
    }
    hky_schedule_query(engine->schedule, &ask->rq);
}

/* ---- relay ---- */

static void on_relay_list(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    struct hky_relay_list list;

    (void)self;
    hky_schedule_relays(engine->schedule, &list);
    hky_console_answer(&rq, &list);
    hky_relay_list_fini(&list);
}

/* state.db keeps "UNTIL/LENGTH" for a paused relay and "UNTIL/LENGTH TO" for a drained one; UNTIL in ms since 1970, 0 =
 * until resumed; LENGTH in seconds, which earlier versions did not keep and pass over. A relay has at most one of the
 * two. */
static void format_kept(char out[512], int64_t until_ms, uint32_t length_sec, const char *to)
{
    snprintf(out, 512, "%" PRId64 "/%" PRIu32 " %s", until_ms, length_sec, to);
}

static void keep_relay(struct hky_engine *engine, const char *kind, const char *relay, const char *to, uint32_t for_sec)
{
    char value[512];
    int64_t until = for_sec > 0 ? hky_clock_now_ms(engine->clock) + (int64_t)for_sec * 1000 : 0;

    hky_state_put(engine->state, strcmp(kind, "paused") == 0 ? "drained" : "paused", relay, NULL);
    format_kept(value, until, for_sec, to);
    hky_state_put(engine->state, kind, relay, value);
}

/* An answer about a relay. It waits until the change is on disk, so that it holds after a crash. */
struct hky_relay_ask {
    struct hky_task task;
    struct hky_engine *engine;
    struct hky_console_request *request;
    struct hky_relay_list list; /* the relays right after the command took effect */
    const struct hky_relay_row *row;
    bool is_on_disk;
    LIST_ENTRY(hky_relay_ask) link;
};

static void relay_ask_free(struct hky_relay_ask *ask)
{
    LIST_REMOVE(ask, link);
    hky_relay_list_fini(&ask->list);
    free(ask);
}

static void on_relay_written(struct hky_task *task)
{
    struct hky_relay_ask *ask = HKY_CONTAINER(task, struct hky_relay_ask, task);

    if (ask->engine->console != NULL && ask->is_on_disk)
        hky_console_answer(&ask->request, ask->row);
    else if (ask->engine->console != NULL)
        hky_console_refuse(&ask->request, "not_written",
                           "done, but state.db could not be written: a restart now undoes it",
                           "it is written as soon as the disk takes it; the log says why it does not");
    relay_ask_free(ask);
}

/* On the thread that writes state.db. */
static void on_state_written(void *ctx, bool is_on_disk)
{
    struct hky_relay_ask *ask = ctx;

    ask->is_on_disk = is_on_disk;
    hky_loop_post(ask->engine->aux, &ask->task);
}

void hky_engine_drop_relay_asks(struct hky_engine *engine)
{
    struct hky_relay_ask *ask;

    while ((ask = LIST_FIRST(&engine->relay_asks)) != NULL)
        relay_ask_free(ask);
}

/* Answers with the state of the relay after the command, once state.db has it. This thread must not block. */
static void answer_relay(struct hky_engine *engine, struct hky_console_request **rq, const char *name)
{
    struct hky_relay_ask *ask = hky_calloc(1, sizeof *ask);

    ask->engine = engine;
    ask->request = *rq;
    ask->task.run = on_relay_written;
    *rq = NULL;
    hky_schedule_relays(engine->schedule, &ask->list);
    for (uint32_t i = 0; i < ask->list.n; i++)
        if (strcmp(ask->list.rows[i].relay->name, name) == 0)
            ask->row = &ask->list.rows[i];
    HKY_ASSERT(ask->row != NULL); /* the schedule has just found it, and only this thread changes the policy */
    LIST_INSERT_HEAD(&engine->relay_asks, ask, link);
    hky_state_when_written(engine->state, on_state_written, ask);
}

static void refuse_relay(struct hky_console_request **rq, const struct hky_error *e)
{
    hky_console_refuse(rq, e->code == HKY_E_MISSING ? "unknown_name" : "refused", e->text,
                       "hikyaku relay list shows the relays");
}

static uint32_t seconds_of(const struct hky_value *v)
{
    return v->is_given ? (uint32_t)((v->number + 999) / 1000) : 0;
}

static void on_relay_pause(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    const char *name = hky_console_arg(rq, "name")->text;
    uint32_t for_sec = seconds_of(hky_console_arg(rq, "for"));
    struct hky_error e = {0};

    (void)self;
    if (hky_schedule_pause(engine->schedule, name, for_sec, &e) != HKY_OK) {
        refuse_relay(&rq, &e);
        return;
    }
    keep_relay(engine, "paused", name, "", for_sec);
    answer_relay(engine, &rq, name);
}

/* A drain that names no other relay makes the mail wait, which is a pause. */
static void on_relay_drain(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    const char *name = hky_console_arg(rq, "name")->text;
    const struct hky_value *to = hky_console_arg(rq, "to");
    uint32_t for_sec = seconds_of(hky_console_arg(rq, "for"));
    struct hky_error e = {0};

    if (!to->is_given) {
        on_relay_pause(ctx, self, rq);
        return;
    }
    if (hky_schedule_drain_relay(engine->schedule, name, to->text, for_sec, &e) != HKY_OK) {
        refuse_relay(&rq, &e);
        return;
    }
    keep_relay(engine, "drained", name, to->text, for_sec);
    answer_relay(engine, &rq, name);
}

static void on_relay_resume(void *ctx, const struct hky_command *self, struct hky_console_request *rq)
{
    struct hky_engine *engine = ctx;
    const char *name = hky_console_arg(rq, "name")->text;
    struct hky_error e = {0};
    enum hky_err err;

    (void)self;
    hky_credentials_forget(engine->credentials); /* the operator may have corrected the password */
    err = hky_schedule_resume(engine->schedule, name, &e);
    if (err == HKY_OK || err == HKY_E_STATE) { /* E_STATE: the policy's pause remains */
        hky_state_put(engine->state, "paused", name, NULL);
        hky_state_put(engine->state, "drained", name, NULL);
    }
    if (err == HKY_OK)
        answer_relay(engine, &rq, name);
    else
        refuse_relay(&rq, &e);
}

struct restoring {
    struct hky_engine *engine;
    const char *kind;
    struct hky_map changed; /* relay -> its new value, "" none; hky_state_put must not be called while walking */
};

/* Only UNTIL is a time of the wall clock. When that was set back, the relay is paused or drained for LENGTH from now on
 * and not longer, and the new end is kept, so that a further restart does not begin it once more. */
static void restore_one(void *ctx, const char *relay, const char *value)
{
    struct restoring *r = ctx;
    char *rest;
    int64_t until = strtoll(value, &rest, 10), now = hky_clock_now_ms(r->engine->clock);
    int64_t most = FOR_MOST_MS, length = *rest == '/' ? strtoll(rest + 1, NULL, 10) * 1000 : 0;
    const char *space = strchr(value, ' ');
    const char *to = space != NULL ? space + 1 : "";
    struct hky_error e;
    enum hky_err err = HKY_E_MISSING;
    char anew[512] = "";

    if (length > 0 && length < most)
        most = length;
    if (until > now && until - now > most) {
        until = now + most;
        format_kept(anew, until, (uint32_t)(most / 1000), to);
    }
    if (until == 0 || until > now) {
        uint32_t for_sec = until != 0 ? (uint32_t)((until - now + 999) / 1000) : 0;
        err = to[0] != '\0' ? hky_schedule_drain_relay(r->engine->schedule, relay, to, for_sec, &e)
                            : hky_schedule_pause(r->engine->schedule, relay, for_sec, &e);
    }
    if (err != HKY_OK || anew[0] != '\0')
        hky_map_put(&r->changed, hky_str_z(relay), hky_strdup(err == HKY_OK ? anew : ""));
}

void hky_engine_restore_relays(struct hky_engine *engine)
{
    static const char *const kinds[] = {"paused", "drained"};

    for (size_t k = 0; k < 2; k++) {
        struct restoring r = {.engine = engine, .kind = kinds[k]};
        struct hky_map_entry *entry;
        size_t at = 0;

        hky_map_init(&r.changed);
        hky_state_each(engine->state, r.kind, restore_one, &r);
        while ((entry = hky_map_next(&r.changed, &at)) != NULL) {
            const char *value = entry->value;
            hky_state_put(engine->state, r.kind, entry->key, value[0] != '\0' ? value : NULL);
            free(entry->value);
        }
        hky_map_fini(&r.changed);
    }
}

/* ---- the table ---- */

static const char *const states[] = {"queued", "sending", "deferred", "parked", "held", "undecided", NULL};

#define TEXT(most) .type = HKY_ARG_TEXT, .min = 1, .max = (most)
#define ADDRESS    .type = HKY_ARG_ADDRESS, .value = "ADDRESS", .min = 1, .max = ADDRESS_OCTETS

/* The selection: a recipient must match every argument that is given. */
#define SELECTION                                                                                                      \
    {"id", HKY_ARG_ID, "ID", "this message", .is_positional = true, .is_selection = true},                             \
        {"relay", TEXT(NAME_OCTETS), .value = "NAME",                                                                  \
         .doc = "recipients whose current step names this relay, or that it sends for another one (drain, instead)",   \
         .is_selection = true},                                                                                        \
        {"to", ADDRESS, .doc = "the recipient: an address, a domain, or .domain for its subdomains",                   \
         .is_selection = true},                                                                                        \
        {"from", ADDRESS, .doc = "the envelope sender, likewise; '<>' is the null sender", .is_selection = true,       \
         .may_be_null = true},                                                                                         \
        {"author", ADDRESS, .may_be_null = true, .doc = "the address in the From field, likewise",                     \
         .is_selection = true},                                                                                        \
        {"scenario", TEXT(NAME_OCTETS), .value = "NAME", .doc = "mail of this scenario", .is_selection = true},        \
        {"tag", TEXT(NAME_OCTETS), .value = "NAME", .doc = "mail with this tag", .is_selection = true},                \
        {"class",                                                                                                      \
         HKY_ARG_WORD,                                                                                                 \
         "CLASS",                                                                                                      \
         "recipients whose last attempt ended in this class (mailbox_full, ...)",                                      \
         .words = hky_class_names,                                                                                     \
         .is_selection = true},                                                                                        \
        {"state",         HKY_ARG_WORD,        "STATE", "queued, sending, deferred, parked, held or undecided",        \
         .words = states, .is_selection = true},                                                                       \
        {"older",                                                                                                      \
         HKY_ARG_DURATION,                                                                                             \
         "DURATION",                                                                                                   \
         "accepted at least this long ago (90s, 10m, 2h, 3d)",                                                         \
         .max = DAYS_MS(3650),                                                                                         \
         .is_selection = true},                                                                                        \
        {"where",                                                                                                      \
         HKY_ARG_SCRIPT,                                                                                               \
         "LUA",                                                                                                        \
         "recipients for which this expression on r holds: 'r.tags.urgent'",                                           \
         .min = 1,                                                                                                     \
         .max = 32768,                                                                                                 \
         .is_selection = true},                                                                                        \
        {"all", HKY_ARG_FLAG, NULL, "every recipient in the queue; without another selection", .is_selection = true},  \
    {                                                                                                                  \
        "limit", HKY_ARG_NUMBER, "N", "print at most N rows; counts always include all recipients", .max = 1000000     \
    }

static const struct hky_argument list_arguments[] = {SELECTION, {NULL}};
static const struct hky_argument act_arguments[] = {
    SELECTION,
    {"dry_run", HKY_ARG_FLAG, NULL, "change nothing; say how many recipients are selected, and print the first 25"},
    {NULL},
};
static const struct hky_argument resume_arguments[] = {
    {"name", TEXT(NAME_OCTETS), .value = "NAME", .doc = "the relay", .is_positional = true, .is_required = true},
    {NULL},
};
#define FOR                                                                                                            \
    {                                                                                                                  \
        "for", HKY_ARG_DURATION, "DURATION", "for this long (90s, 10m, 2h, 3d), not until the relay is resumed",       \
            .min = 1000, .max = FOR_MOST_MS                                                                            \
    }
static const struct hky_argument pause_arguments[] = {
    {"name", TEXT(NAME_OCTETS), .value = "NAME", .doc = "the relay", .is_positional = true, .is_required = true},
    FOR,
    {NULL},
};
static const struct hky_argument drain_arguments[] = {
    {"name", TEXT(NAME_OCTETS), .value = "NAME", .doc = "the relay", .is_positional = true, .is_required = true},
    {"to", TEXT(NAME_OCTETS), .value = "RELAY", .doc = "the relay that sends the mail instead, with its own From rule"},
    FOR,
    {NULL},
};

const struct hky_command hky_operate_commands[] = {
    {"status", HKY_RIGHT_READ, "show what the engine is doing", NULL, false, on_status, hky_render_status},
    {"reload", HKY_RIGHT_OPERATE, "load the policy again", NULL, false, on_reload, hky_render_reloaded},
    {"stop", HKY_RIGHT_OPERATE, "stop the engine when what is being sent has ended", NULL, false, on_stop, NULL},
    {"queue list", HKY_RIGHT_READ, "list the recipients in the queue", list_arguments, false, on_queue,
     hky_render_queue},
    {"queue show", HKY_RIGHT_READ, "show everything that is known of recipients: message, plan, attempts",
     list_arguments, true, on_queue, hky_render_queue},
    {"queue retry", HKY_RIGHT_OPERATE, "try recipients now", act_arguments, true, on_queue, hky_render_queue},
    {"queue hold", HKY_RIGHT_OPERATE, "keep recipients until they are released", act_arguments, true, on_queue,
     hky_render_queue},
    {"queue release", HKY_RIGHT_OPERATE, "let held recipients continue", act_arguments, true, on_queue,
     hky_render_queue},
    {"queue cancel", HKY_RIGHT_OPERATE, "remove recipients; the sender gets no failure notice", act_arguments, true,
     on_queue, hky_render_queue},
    {"relay list", HKY_RIGHT_READ, "list the relays with their state, queue and caps", NULL, false, on_relay_list,
     hky_render_relays},
    {"relay pause", HKY_RIGHT_OPERATE,
     "send nothing through the relay; its mail waits or takes the next step of its plan", pause_arguments, false,
     on_relay_pause, hky_render_relay},
    {"relay resume", HKY_RIGHT_OPERATE,
     "end a pause or a drain, and try mail at once that failed because of the account", resume_arguments, false,
     on_relay_resume, hky_render_relay},
    {"relay drain", HKY_RIGHT_OPERATE, "send the relay's mail through another relay; without --to like pause",
     drain_arguments, false, on_relay_drain, hky_render_relay},
    {NULL},
};
