#include "record/internal.h"

#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>

#define AGAIN_MS 100

/* ---- upkeep ---- */

static void wants_upkeep(struct hky_record *r)
{
    if (!__atomic_exchange_n(&r->is_upkeep_posted, true, __ATOMIC_ACQ_REL))
        hky_loop_post(r->loop, &r->upkeep);
}

static void append(struct hky_record *r, struct hky_str encoded)
{
    bool is_upkeep_due = false;

    pthread_mutex_lock(&r->store.lock);
    if (record_store_append(&r->store, encoded, &is_upkeep_due))
        record_readers_wake(r);
    pthread_mutex_unlock(&r->store.lock);
    if (is_upkeep_due)
        wants_upkeep(r);
}

static void emit_dropped(struct hky_record *r, uint64_t n, const char *why, const char *reader)
{
    char text[120];
    struct hky_event ev = {.kind = HKY_EVENT_DROPPED, .at_ms = hky_clock_now_ms(r->clock), .text = text};

    if (n == 0)
        return;
    snprintf(text, sizeof text, "%lu event%s: %s%s", (unsigned long)n, n == 1 ? "" : "s", why, reader);
    hky_log(r->log, HKY_LOG_WARN, "event_store", "what=dropped n=%lu why=\"%s%s\"", (unsigned long)n, why, reader);
    hky_record_event(r, HKY_RECORD_OTHER, &ev);
}

/* Reports the events that were lost or skipped since the last report; the lost ones once there is room for an event. */
static void report_dropped(struct hky_record *r)
{
    struct record_store *s = &r->store;
    uint64_t n_lost = 0, n_skipped;
    char reader[RECORD_NAME];

    pthread_mutex_lock(&s->lock);
    if (s->n_spares > 0) {
        n_lost = s->n_unreported;
        s->n_unreported = 0;
    }
    n_skipped = r->n_skipped;
    r->n_skipped = 0;
    memcpy(reader, r->skipped_by, sizeof reader);
    pthread_mutex_unlock(&s->lock);
    emit_dropped(r, n_lost, "no room to keep them", "");
    emit_dropped(r, n_skipped, "skipped for a reader that lags: ", reader);
}

static void do_upkeep(struct hky_record *r)
{
    bool has_spare;

    __atomic_store_n(&r->is_upkeep_posted, false, __ATOMIC_RELEASE);
    pthread_mutex_lock(&r->store.lock);
    record_readers_trim(r);
    pthread_mutex_unlock(&r->store.lock);
    record_store_upkeep(&r->store);
    report_dropped(r);
    pthread_mutex_lock(&r->store.lock);
    has_spare = r->store.n_spares > 0;
    pthread_mutex_unlock(&r->store.lock);
    /* Without room upkeep runs again after a while; being marked as posted, it is not posted before. */
    if (!has_spare && !__atomic_exchange_n(&r->is_upkeep_posted, true, __ATOMIC_ACQ_REL))
        hky_timer_set(&r->again, AGAIN_MS);
}

static void on_upkeep(struct hky_task *task)
{
    do_upkeep(HKY_CONTAINER(task, struct hky_record, upkeep));
}

static void on_again(struct hky_timer *timer)
{
    do_upkeep(HKY_CONTAINER(timer, struct hky_record, again));
}

static void *run(void *arg)
{
    hky_loop_run(((struct hky_record *)arg)->loop);
    return NULL;
}

/* ---- open, emit, close ---- */

static enum hky_err start(struct hky_record *r, const struct hky_record_params *p, struct hky_error *e)
{
    enum hky_err err = hky_loop_new(&r->loop, e);
    int why;

    if (err != HKY_OK)
        return err;
    r->upkeep.run = on_upkeep;
    hky_timer_init(&r->again, r->loop, on_again);
    if ((err = record_event_log_open(r, p, &r->event_log, e)) != HKY_OK)
        return err;
    if ((why = hky_thread_start(&r->thread, run, r)) != 0)
        return hky_error_sys(e, HKY_E_LIMIT, why, "cannot start the thread of the event store");
    r->is_running = true;
    wants_upkeep(r);
    return HKY_OK;
}

enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e)
{
    struct hky_record *r = hky_calloc(1, sizeof *r);
    enum hky_err err;

    *out = NULL;
    r->log = p->log;
    r->clock = p->clock;
    TAILQ_INIT(&r->readers);
    r->n_writers = p->n_workers + 1;
    r->writers = hky_calloc(r->n_writers, sizeof *r->writers);
    for (unsigned i = 0; i < r->n_writers; i++) {
        pthread_mutex_init(&r->writers[i].lock, NULL);
        hky_buf_init(&r->writers[i].scratch, RECORD_EVENT_MOST);
    }
    record_store_open(&r->store, p);
    if ((err = start(r, p, e)) != HKY_OK) {
        hky_record_close(&r);
        return err;
    }
    *out = r;
    return HKY_OK;
}

void hky_record_close(struct hky_record **record)
{
    struct hky_record *r = *record;
    struct hky_record_reader *reader;

    *record = NULL;
    if (r == NULL)
        return;
    if (r->is_running) {
        hky_loop_stop(r->loop);
        pthread_join(r->thread, NULL);
        do_upkeep(r); /* reports dropped events before the event log is completed */
    }
    record_event_log_close(&r->event_log);
    while ((reader = TAILQ_FIRST(&r->readers)) != NULL) { /* closed readers whose task did not run */
        TAILQ_REMOVE(&r->readers, reader, link);
        free(reader);
    }
    if (r->loop != NULL)
        hky_timer_cancel(&r->again);
    hky_loop_free(&r->loop);
    record_store_close(&r->store);
    for (unsigned i = 0; i < r->n_writers; i++) {
        pthread_mutex_destroy(&r->writers[i].lock);
        hky_buf_fini(&r->writers[i].scratch);
    }
    free(r->writers);
    free(r);
}

void hky_record_event(struct hky_record *r, unsigned worker, const struct hky_event *ev)
{
    struct record_writer *w = &r->writers[worker < r->n_writers - 1 ? worker : r->n_writers - 1];

    pthread_mutex_lock(&w->lock);
    hky_buf_clear(&w->scratch);
    record_encode(ev, &w->scratch);
    HKY_ASSERT(!w->scratch.is_over);
    append(r, hky_buf_str(&w->scratch));
    pthread_mutex_unlock(&w->lock);
}

void hky_record_reopen(struct hky_record *r)
{
    record_event_log_reopen(r->event_log);
}

uint64_t hky_record_dropped(const struct hky_record *r)
{
    return __atomic_load_n(&r->store.n_lost, __ATOMIC_RELAXED) + record_event_log_missed(r->event_log);
}
