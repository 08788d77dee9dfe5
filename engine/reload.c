/* Gives a running engine a new policy, all or nothing, and reads its lists again when their files change. Runs on the
 * thread of the aux loop, which may wait for files. */
#include "wiring.h"

#include <stdio.h>
#include <stdlib.h>

#define LISTS_EVERY_MS   5000
#define LISTS_WAITING_MS 1000 /* between checks while a changed file is not read yet: it must stay unchanged */

/* ---- preparation, before anything changes ---- */

static void on_lacking(void *ctx, const struct hky_lacking_secret *s)
{
    struct hky_error *e = ctx;

    if (e->code == HKY_OK && s->err != HKY_OK) /* only the first that cannot be read */
        hky_error_set(e, s->err, "%s:%u: %s", s->place.file, s->place.line, s->text);
}

enum hky_err hky_engine_check_policy(const struct hky_policy *policy, struct hky_error *e)
{
    enum hky_err err = HKY_OK;

    *e = (struct hky_error){0};
    for (uint32_t i = 0; i < policy->engine.n_listen && err == HKY_OK; i++)
        err = hky_accept_check_listener(policy, &policy->engine.listen[i], e);
    if (err != HKY_OK)
        return err;
    hky_policy_check_secrets(policy, on_lacking, e);
    return e->code;
}

struct reload {
    struct hky_engine *engine;
    struct hky_policy *policy;
    struct hky_vm **vms; /* one for each worker, then that of aux */
    struct hky_accept_change *listeners;
    char restart[160]; /* changed keys that need a restart, ", " between them */
    char lists[300];   /* which lists keep their entries for now, "" none */
};

static enum hky_log_level log_level(enum hky_problem_level level)
{
    return level == HKY_PROBLEM_ERROR ? HKY_LOG_ERROR : level == HKY_PROBLEM_WARNING ? HKY_LOG_WARN : HKY_LOG_INFO;
}

static void log_problems(struct hky_engine *engine, const struct hky_problems *problems)
{
    struct hky_buf line;

    hky_buf_init(&line, 1024);
    for (size_t i = 0; i < problems->n; i++) {
        hky_buf_clear(&line);
        hky_problem_format(&problems->items[i], &line);
        hky_log(engine->log, log_level(problems->items[i].level), "policy", "%s", hky_buf_z(&line));
        if (problems->items[i].level == HKY_PROBLEM_ERROR && engine->reload_error[0] == '\0')
            snprintf(engine->reload_error, sizeof engine->reload_error, "%s", hky_buf_z(&line));
    }
    hky_buf_fini(&line);
}

static void list_restart_key(struct reload *r, bool is_changed, const char *key)
{
    size_t n = strlen(r->restart);

    if (is_changed)
        snprintf(r->restart + n, sizeof r->restart - n, "%s%s", n > 0 ? ", " : "", key);
}

/* Finds changed keys that take effect at the next start only. They are compared with the policy at the start, not with
 * that of the last reload. */
static void find_restart_keys(struct reload *r)
{
    const struct hky_engine_options *o = &r->policy->engine;
    const struct hky_start_options *at_start = &r->engine->at_start;
    const struct hky_bounds *b = &o->bounds, *was = &at_start->bounds;

    list_restart_key(r, !at_start->is_spool_given && strcmp(o->spool, r->engine->spool) != 0, "engine.spool");
    list_restart_key(r, o->workers != at_start->workers, "engine.workers");
    list_restart_key(r, strcmp(o->http, at_start->http) != 0, "engine.http");
    list_restart_key(r, b->spool_max != was->spool_max, "bounds.spool_max");
    list_restart_key(r, b->min_free != was->min_free, "bounds.min_free");
    list_restart_key(r, b->body_memory != was->body_memory, "bounds.body_memory");
    list_restart_key(r, b->segment_octets != was->segment_octets, "bounds.segment");
    list_restart_key(r, b->cold_after_ms != was->cold_after_ms, "bounds.cold_after");
}

/* Whoever changes a list and reloads may expect the change to count now, so there is a text about lists that wait. */
static void keep_lists(struct reload *r)
{
    const char *first;
    char others[40] = "";
    unsigned n = hky_policy_succeed_lists(r->policy, r->engine->policy, hky_mono_ms(),
                                          hky_clock_now_ms(&HKY_CLOCK_REAL), &first);

    if (n > 1)
        snprintf(others, sizeof others, " and %u other list%s", n - 1, n == 2 ? "" : "s");
    if (n > 0)
        snprintf(r->lists, sizeof r->lists,
                 "%.80s%s changed a moment ago and may not be complete: the old entries count until the file has not "
                 "changed for 2 s, or 15 s when it is shorter",
                 first, others);
}

static enum hky_err prepare(struct reload *r, struct hky_error *e)
{
    struct hky_engine *engine = r->engine;
    struct hky_problems problems = {0};
    enum hky_err err = hky_policy_load(
        &(struct hky_policy_load_params){.path = engine->policy_path, .now_ms = hky_clock_now_ms(engine->clock)},
        &r->policy, &problems);

    log_problems(engine, &problems);
    hky_problems_fini(&problems);
    if (err != HKY_OK)
        return hky_error_set(e, err, "%s", engine->reload_error);
    if ((err = hky_engine_check_policy(r->policy, e)) != HKY_OK)
        return err;
    keep_lists(r);
    for (unsigned i = 0; i <= engine->n_workers; i++) {
        if ((err = hky_vm_new(r->policy, &r->vms[i], e)) != HKY_OK)
            return err;
        hky_vm_set_log(r->vms[i], engine->log);
    }
    find_restart_keys(r);
    return hky_accept_prepare(engine->accept, r->policy, &r->listeners, e);
}

/* ---- the swap: nothing here can fail ---- */

/* The new vm on its way to a worker. */
struct swap {
    struct hky_task task;
    struct hky_worker *worker;
    struct hky_vm *vm;
};

static void swap_vm(struct hky_task *task)
{
    struct swap *s = HKY_CONTAINER(task, struct swap, task);
    struct hky_worker *w = s->worker;

    hky_worker_set_vm(w, s->vm);
    free(s);
}

static void commit(struct reload *r)
{
    struct hky_engine *engine = r->engine;
    enum hky_log_level level;

    hky_passwords_forget(engine->passwords);
    hky_credentials_forget(engine->credentials); /* before accounts that were refused are tried again */
    for (unsigned i = 0; i < engine->n_workers; i++) {
        struct swap *s = hky_calloc(1, sizeof *s);
        s->task.run = swap_vm;
        s->worker = &engine->workers[i];
        s->vm = r->vms[i];
        hky_loop_post(engine->workers[i].loop, &s->task);
    }
    hky_accept_commit(engine->accept, &r->listeners); /* queued at the workers behind the swaps */
    hky_vm_free(&engine->vm);
    engine->vm = r->vms[engine->n_workers];
    hky_schedule_set_policy(engine->schedule, r->policy);
    if (!engine->at_start.is_log_level_given && hky_log_level_parse(hky_str_z(r->policy->engine.log), &level))
        hky_log_set_level(engine->log, level);
    hky_policy_unref(&engine->policy);
    engine->policy = r->policy;
    engine->list_error[0] = '\0';
    if (r->lists[0] != '\0')
        hky_timer_set(&engine->lists_timer, LISTS_WAITING_MS);
}

static void abandon(struct reload *r)
{
    for (unsigned i = 0; i <= r->engine->n_workers; i++)
        hky_vm_free(&r->vms[i]);
    hky_policy_unref(&r->policy);
}

static void record_reload(struct hky_engine *engine, const char *text)
{
    struct hky_event ev = {.kind = HKY_EVENT_RELOADED, .at_ms = hky_clock_now_ms(engine->clock), .text = text};

    hky_record_event(engine->record, HKY_RECORD_OTHER, &ev);
}

enum hky_err hky_engine_reload(struct hky_engine *engine, struct hky_error *e)
{
    struct reload r = {.engine = engine};
    char text[sizeof e->text + 200];
    enum hky_err err;

    if (engine->stopping > 0)
        return hky_error_set(e, HKY_E_STATE, "the engine is stopping");
    engine->reload_error[0] = '\0';
    r.vms = (struct hky_vm **)hky_calloc(engine->n_workers + 1, sizeof(void *));
    if ((err = prepare(&r, e)) == HKY_OK) {
        commit(&r);
        snprintf(engine->restart_keys, sizeof engine->restart_keys, "%s", r.restart);
        snprintf(engine->lists_kept, sizeof engine->lists_kept, "%s", r.lists);
        snprintf(text, sizeof text, "a new policy is in force%s%s",
                 r.restart[0] != '\0' ? "; not before a restart: " : "", r.restart);
        hky_log(engine->log, HKY_LOG_INFO, "reload", "what=\"a new policy is in force\" hash=%016lx",
                (unsigned long)engine->policy->hash);
        if (r.restart[0] != '\0')
            hky_log(engine->log, HKY_LOG_WARN, "reload", "what=\"these keys need a restart\" keys=\"%s\"", r.restart);
        if (r.lists[0] != '\0')
            hky_log(engine->log, HKY_LOG_INFO, "lists", "what=\"%s\"", r.lists);
    } else {
        abandon(&r);
        snprintf(engine->reload_error, sizeof engine->reload_error, "%s", e->text);
        snprintf(text, sizeof text, "refused, the old policy stays: %s", e->text);
        hky_log(engine->log, HKY_LOG_ERROR, "reload", "what=\"the old policy stays\" error=\"%s\"", e->text);
    }
    record_reload(engine, text);
    free((void *)r.vms);
    return err;
}

/* ---- lists ---- */

static void check_lists(struct hky_timer *timer)
{
    struct hky_engine *engine = HKY_CONTAINER(timer, struct hky_engine, lists_timer);
    struct hky_lists_news news;
    const char *error = news.error.text;

    hky_policy_refresh_lists(engine->policy, hky_mono_ms(), &news);
    if (news.n_taken > 0)
        hky_log(engine->log, HKY_LOG_INFO, "lists", "read_again=%u", news.n_taken);
    if (news.fewer.code != HKY_OK)
        hky_log(engine->log, HKY_LOG_INFO, "lists", "what=\"%s\"", news.fewer.text);
    if (news.warning.code != HKY_OK)
        hky_log(engine->log, HKY_LOG_WARN, "lists", "what=\"a list has shrunk\" warning=\"%s\"", news.warning.text);
    if (error[0] != '\0' && strcmp(error, engine->list_error) != 0)
        hky_log(engine->log, HKY_LOG_ERROR, "lists", "what=\"the list stays as it was\" error=\"%s\"", error);
    snprintf(engine->list_error, sizeof engine->list_error, "%s", error);
    hky_timer_set(timer, news.n_waiting > 0 ? LISTS_WAITING_MS : LISTS_EVERY_MS);
}

void hky_engine_watch_lists(struct hky_engine *engine)
{
    hky_timer_init(&engine->lists_timer, engine->aux, check_lists);
    hky_timer_set(&engine->lists_timer, LISTS_EVERY_MS);
}
