/* What operators ask of a running engine: status, reload, queue, relay, stop; and the metrics. On aux's thread. */
#include "wiring.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_MOST (64u << 20)
#define ROWS_MOST   10000

static void answer_ok(struct hky_console_request **rq, const char *fields)
{
    struct hky_buf b;

    hky_buf_init(&b, ANSWER_MOST);
    hky_buf_printf(&b, "{\"ok\":true%s%s}", fields[0] != '\0' ? "," : "", fields);
    hky_console_answer(rq, hky_buf_str(&b));
    hky_buf_fini(&b);
}

/* ---- status ---- */

static const char *health_name(enum hky_err health)
{
    return health == HKY_OK ? "good" : health == HKY_E_FULL ? "full" : "failing";
}

static void add_counts(struct hky_engine *engine, struct hky_buf *b)
{
    struct hky_schedule_stats s;
    struct hky_journal_stats j;
    struct hky_accept_stats a;

    hky_schedule_stats(engine->schedule, &s);
    hky_journal_stats(engine->journal, &j);
    hky_accept_stats(engine->accept, &a);
    hky_buf_printf(b,
                   "\"queue\":{\"queued\":%" PRIu64 ",\"sending\":%" PRIu64 ",\"deferred\":%" PRIu64
                   ",\"parked\":%" PRIu64 ",\"held\":%" PRIu64 "},\"since_start\":{\"delivered\":%" PRIu64
                   ",\"failed\":%" PRIu64 ",\"cancelled\":%" PRIu64 ",\"attempts\":%" PRIu64 ",\"messages\":%" PRIu64
                   ",\"recipients\":%" PRIu64 ",\"refused\":%" PRIu64 "},\"sessions\":%" PRIu64,
                   s.queued, s.sending, s.deferred, s.parked, s.held, s.delivered, s.failed, s.cancelled, s.attempts,
                   a.messages, a.recipients, a.refused, a.sessions);
    hky_buf_printf(b,
                   ",\"journal\":{\"health\":\"%s\",\"recipients\":%" PRIu64 ",\"segments\":%" PRIu64
                   ",\"cold\":%" PRIu64 ",\"free\":%" PRIu64 ",\"octets\":%" PRIu64 ",\"commits\":%" PRIu64
                   ",\"syncs\":%" PRIu64 ",\"body_memory\":%" PRIu64 ",\"write_errors\":%" PRIu64
                   ",\"damaged\":%" PRIu64 "}",
                   health_name(j.health), j.recipients_live, j.segments, j.cold_segments, j.free_segments, j.octets,
                   j.commits, j.syncs, j.body_memory, j.write_errors, j.damaged);
}

static void on_status(struct hky_engine *engine, struct hky_console_request *rq)
{
    struct hky_buf b;

    hky_buf_init(&b, ANSWER_MOST);
    hky_buf_add_z(&b, "{\"ok\":true,\"version\":\"" HKY_VERSION "\",\"policy\":");
    hky_buf_add_json(&b, hky_str_z(engine->policy_path));
    hky_buf_printf(
        &b, ",\"policy_hash\":\"%016" PRIx64 "\",\"workers\":%u,\"uptime_sec\":%" PRId64 ",\"state\":\"%s\",",
        engine->policy->hash, engine->n_workers, (hky_clock_now_ms(engine->clock) - engine->started_at_ms) / 1000,
        engine->stopping > 0 ? "stopping" : "running");
    if (engine->reload_error[0] != '\0') {
        hky_buf_add_z(&b, "\"reload_error\":");
        hky_buf_add_json(&b, hky_str_z(engine->reload_error));
        hky_buf_add_c(&b, ',');
    }
    add_counts(engine, &b);
    hky_buf_printf(&b, ",\"events_dropped\":%" PRIu64 ",\"relays\":", hky_record_dropped(engine->record));
    hky_schedule_relays_json(engine->schedule, &b);
    hky_buf_add_c(&b, '}');
    hky_console_answer(&rq, hky_buf_str(&b));
    hky_buf_fini(&b);
}

/* ---- queue ---- */

static const struct {
    const char *name;
    enum hky_queue_action action;
} queue_actions[] = {{"list", HKY_QUEUE_LIST}, {"show", HKY_QUEUE_LIST},       {"retry", HKY_QUEUE_RETRY},
                     {"hold", HKY_QUEUE_HOLD}, {"release", HKY_QUEUE_RELEASE}, {"cancel", HKY_QUEUE_CANCEL}};

static void ask_free(struct hky_queue_ask *ask)
{
    hky_buf_fini(&ask->rq.rows);
    json_decref(ask->json);
    free(ask);
}

static void on_queue_done(struct hky_queue_request *rq)
{
    struct hky_queue_ask *ask = rq->ctx;
    struct hky_buf b;

    if (ask->engine->console == NULL) { /* stopped meanwhile: nobody waits for it, the request is gone */
        ask_free(ask);
        return;
    }
    /* What an operator was told is done stays done over a crash. */
    if (rq->action != HKY_QUEUE_LIST && !rq->is_dry_run && rq->n > 0)
        hky_journal_flush(ask->engine->journal);
    hky_buf_init(&b, ANSWER_MOST);
    hky_buf_printf(&b, "{\"ok\":true,\"n\":%" PRIu64, rq->n);
    if (rq->n_kept > 0)
        hky_buf_printf(&b, ",\"kept\":%" PRIu64, rq->n_kept);
    if (ask->where_error[0] != '\0') {
        hky_buf_add_z(&b, ",\"where_error\":");
        hky_buf_add_json(&b, hky_str_z(ask->where_error));
    }
    hky_buf_add_z(&b, ",\"rows\":[");
    hky_buf_add_str(&b, hky_buf_str(&rq->rows));
    hky_buf_add_z(&b, "]}");
    if (rq->error.text[0] != '\0')
        hky_console_refuse(&ask->request, "bad_request", rq->error.text, "hikyaku queue --help");
    else if (b.is_over || rq->rows.is_over)
        hky_console_refuse(&ask->request, "too_many", "the answer is too large", "select fewer, or give --limit");
    else
        hky_console_answer(&ask->request, hky_buf_str(&b));
    hky_buf_fini(&b);
    ask_free(ask);
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool fill_selection(const json_t *from, struct hky_selection *s, struct hky_error *e)
{
    const char *id = text_of(from, "id");

    s->relay = text_of(from, "relay");
    s->to = text_of(from, "to");
    s->from = text_of(from, "from");
    s->scenario = text_of(from, "scenario");
    s->tag = text_of(from, "tag");
    s->class = text_of(from, "class");
    s->state = text_of(from, "state");
    s->where = text_of(from, "where");
    s->older_ms = json_integer_value(json_object_get(from, "older_ms"));
    if (id != NULL && !hky_id_parse(hky_str_z(id), &s->message)) {
        hky_error_set(e, HKY_E_SYNTAX, "\"%.40s\" is not a message id (13 letters and digits)", id);
        return false;
    }
    return true;
}

static void on_queue(struct hky_engine *engine, struct hky_console_request *rq, json_t *args)
{
    const char *name = text_of(args, "action");
    struct hky_queue_ask *ask = hky_calloc(1, sizeof *ask);
    struct hky_where *where = NULL;
    struct hky_error e = {0};
    json_int_t limit = json_integer_value(json_object_get(args, "limit"));
    int action = -1;

    for (size_t i = 0; i < sizeof queue_actions / sizeof queue_actions[0]; i++)
        if (name != NULL && strcmp(name, queue_actions[i].name) == 0)
            action = (int)queue_actions[i].action;
    ask->engine = engine;
    ask->number = ++engine->n_queue_asks;
    if (action < 0)
        hky_error_set(&e, HKY_E_SYNTAX, "no queue action \"%.40s\": list show retry hold release cancel",
                      name != NULL ? name : "");
    else if (fill_selection(json_object_get(args, "select"), &ask->rq.selection, &e) && ask->rq.selection.where != NULL)
        (void)hky_where_new(engine->vm, hky_str_z(ask->rq.selection.where), &where, &e);
    hky_where_free(&where);
    if (e.text[0] != '\0') {
        hky_console_refuse(&rq, "bad_request", e.text, "hikyaku queue --help");
        free(ask);
        return;
    }
    ask->request = rq;
    ask->json = json_incref(args);
    ask->rq.action = (enum hky_queue_action)action;
    ask->rq.is_story = strcmp(name, "show") == 0;
    ask->rq.is_dry_run = json_is_true(json_object_get(args, "dry_run"));
    ask->rq.limit = limit > 0 && limit < ROWS_MOST ? (unsigned)limit : ROWS_MOST;
    ask->rq.loop = engine->aux;
    ask->rq.done = on_queue_done;
    ask->rq.ctx = ask;
    ask->rq.where_holds = ask->rq.selection.where != NULL ? hky_worker_where_holds : NULL;
    hky_buf_init(&ask->rq.rows, ANSWER_MOST / 2);
    hky_schedule_query(engine->schedule, &ask->rq);
}

/* ---- relay ---- */

/* state.db keeps "UNTIL" for a paused relay and "UNTIL TO" for a drained one; UNTIL in ms since 1970, 0 = until
 * resumed. */
static void keep(struct hky_engine *engine, const char *kind, const char *relay, const char *to, uint32_t for_sec)
{
    char value[512];
    int64_t until = for_sec > 0 ? hky_clock_now_ms(engine->clock) + (int64_t)for_sec * 1000 : 0;

    snprintf(value, sizeof value, "%" PRId64 " %s", until, to);
    hky_state_put(engine->record, kind, relay, value);
}

static enum hky_err operate_relay(struct hky_engine *engine, const char *action, const char *name, const char *to,
                                  uint32_t for_sec, struct hky_error *e)
{
    enum hky_err err;

    if (strcmp(action, "resume") == 0) {
        if ((err = hky_schedule_resume(engine->schedule, name, e)) == HKY_OK) {
            hky_state_put(engine->record, "paused", name, NULL);
            hky_state_put(engine->record, "drained", name, NULL);
        }
        return err;
    }
    if (strcmp(action, "pause") == 0 || (strcmp(action, "drain") == 0 && to == NULL)) {
        if ((err = hky_schedule_pause(engine->schedule, name, for_sec, e)) == HKY_OK)
            keep(engine, "paused", name, "", for_sec);
        return err;
    }
    if (strcmp(action, "drain") == 0) {
        if ((err = hky_schedule_drain_relay(engine->schedule, name, to, for_sec, e)) == HKY_OK)
            keep(engine, "drained", name, to, for_sec);
        return err;
    }
    return hky_error_set(e, HKY_E_SYNTAX, "no relay action \"%.40s\": list pause resume drain", action);
}

static void on_relay(struct hky_engine *engine, struct hky_console_request *rq, const json_t *args)
{
    const char *action = text_of(args, "action"), *name = text_of(args, "name");
    json_int_t for_sec = json_integer_value(json_object_get(args, "for_sec"));
    struct hky_error e = {0};
    struct hky_buf b;

    if (action == NULL || strcmp(action, "list") == 0) {
        hky_buf_init(&b, ANSWER_MOST);
        hky_buf_add_z(&b, "{\"ok\":true,\"relays\":");
        hky_schedule_relays_json(engine->schedule, &b);
        hky_buf_add_c(&b, '}');
        hky_console_answer(&rq, hky_buf_str(&b));
        hky_buf_fini(&b);
    } else if (name == NULL) {
        hky_console_refuse(&rq, "bad_request", "which relay?", "hikyaku relay list shows them");
    } else if (operate_relay(engine, action, name, text_of(args, "to"),
                             for_sec > 0 && for_sec < UINT32_MAX ? (uint32_t)for_sec : 0, &e) != HKY_OK) {
        hky_console_refuse(&rq, "refused", e.text, "hikyaku relay list shows the relays");
    } else {
        hky_state_flush(engine->record);
        answer_ok(&rq, "");
    }
}

struct restoring {
    struct hky_engine *engine;
    const char *kind;
    struct hky_map gone; /* names to forget: hky_state_put must not be called while walking */
};

static void restore_one(void *ctx, const char *relay, const char *value)
{
    struct restoring *r = ctx;
    int64_t until = strtoll(value, NULL, 10), now = hky_clock_now_ms(r->engine->clock);
    const char *space = strchr(value, ' ');
    const char *to = space != NULL ? space + 1 : "";
    uint32_t for_sec = until > now ? (uint32_t)((until - now) / 1000 + 1) : 0;
    struct hky_error e;
    enum hky_err err;

    if (until != 0 && until <= now)
        err = HKY_E_MISSING;
    else if (to[0] != '\0')
        err = hky_schedule_drain_relay(r->engine->schedule, relay, to, for_sec, &e);
    else
        err = hky_schedule_pause(r->engine->schedule, relay, for_sec, &e);
    if (err != HKY_OK)
        hky_map_put(&r->gone, hky_str_z(relay), r);
}

void hky_engine_restore_relays(struct hky_engine *engine)
{
    static const char *const kinds[] = {"paused", "drained"};

    for (size_t k = 0; k < 2; k++) {
        struct restoring r = {.engine = engine, .kind = kinds[k]};
        struct hky_map_entry *entry;
        size_t at = 0;

        hky_map_init(&r.gone);
        hky_state_each(engine->record, r.kind, restore_one, &r);
        while ((entry = hky_map_next(&r.gone, &at)) != NULL)
            hky_state_put(engine->record, r.kind, entry->key, NULL);
        hky_map_fini(&r.gone);
    }
}

/* ---- the socket ---- */

void hky_engine_request(void *ctx, struct hky_console_request *rq, const char *cmd, struct hky_str text)
{
    struct hky_engine *engine = ctx;
    json_t *args = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    struct hky_error e = {0};

    if (strcmp(cmd, "status") == 0) {
        on_status(engine, rq);
    } else if (strcmp(cmd, "reload") == 0) {
        hky_record_reopen(engine->record);
        if (hky_engine_reload(engine, &e) == HKY_OK)
            answer_ok(&rq, "");
        else
            hky_console_refuse(&rq, "refused", e.text,
                               "the old policy stays in force; hikyaku check POLICY lists every problem");
    } else if (strcmp(cmd, "queue") == 0) {
        on_queue(engine, rq, args);
    } else if (strcmp(cmd, "relay") == 0) {
        on_relay(engine, rq, args);
    } else if (strcmp(cmd, "stop") == 0) {
        answer_ok(&rq, "");
        hky_engine_stop(engine);
    } else {
        hky_console_refuse(&rq, "bad_request", "no such command", "status reload queue relay stop");
    }
    json_decref(args);
}

const char *hky_engine_unwell(void *ctx)
{
    struct hky_engine *engine = ctx;
    struct hky_journal_stats j;

    hky_journal_stats(engine->journal, &j);
    if (engine->stopping > 0)
        return "stopping";
    return j.health == HKY_OK ? NULL : health_name(j.health);
}

static void add_metric(struct hky_buf *b, const char *name, const char *type, const char *help, uint64_t value)
{
    hky_buf_printf(b, "# HELP hikyaku_%s %s\n# TYPE hikyaku_%s %s\nhikyaku_%s %" PRIu64 "\n", name, help, name, type,
                   name, value);
}

void hky_engine_metrics(void *ctx, struct hky_buf *b)
{
    struct hky_engine *engine = ctx;
    struct hky_schedule_stats s;
    struct hky_journal_stats j;
    struct hky_accept_stats a;

    hky_schedule_stats(engine->schedule, &s);
    hky_journal_stats(engine->journal, &j);
    hky_accept_stats(engine->accept, &a);
    add_metric(b, "sessions", "gauge", "SMTP sessions open", a.sessions);
    add_metric(b, "sessions_total", "counter", "SMTP sessions since start", a.sessions_total);
    add_metric(b, "messages_accepted_total", "counter", "messages answered 250", a.messages);
    add_metric(b, "recipients_accepted_total", "counter", "recipients of those", a.recipients);
    add_metric(b, "refused_total", "counter", "messages and recipients not taken", a.refused);
    add_metric(b, "recipients_queued", "gauge", "recipients due or waiting for their turn", s.queued);
    add_metric(b, "recipients_sending", "gauge", "recipients in a transaction", s.sending);
    add_metric(b, "recipients_deferred", "gauge", "recipients waiting for a retry", s.deferred);
    add_metric(b, "recipients_parked", "gauge", "recipients waiting for a policy", s.parked);
    add_metric(b, "recipients_held", "gauge", "recipients waiting for an operator", s.held);
    add_metric(b, "delivered_total", "counter", "recipients delivered", s.delivered);
    add_metric(b, "failed_total", "counter", "recipients failed", s.failed);
    add_metric(b, "cancelled_total", "counter", "recipients cancelled by operators", s.cancelled);
    add_metric(b, "attempts_total", "counter", "attempts made", s.attempts);
    add_metric(b, "journal_commits_total", "counter", "commits written", j.commits);
    add_metric(b, "journal_syncs_total", "counter", "fdatasync calls", j.syncs);
    add_metric(b, "spool_full", "gauge", "1 while no mail is taken in for want of space", j.health == HKY_E_FULL);
    add_metric(b, "spool_failing", "gauge", "1 while no mail is taken in because writing fails", j.health == HKY_E_IO);
    add_metric(b, "journal_octets", "gauge", "octets of journal in use", j.octets);
    add_metric(b, "journal_segments", "gauge", "segments in use", j.segments);
    add_metric(b, "journal_write_errors_total", "counter", "failed writes and syncs", j.write_errors);
    add_metric(b, "journal_damaged_total", "counter", "damaged records set aside", j.damaged);
    add_metric(b, "body_memory_octets", "gauge", "bodies held in memory", j.body_memory);
    add_metric(b, "events_dropped_total", "counter", "events the log could not keep",
               hky_record_dropped(engine->record));
}
