/*
 * The committer takes what is queued, writes it in one gathered write, syncs once if anybody waits, then reports
 * results. Why a 250 is safe: `durable` is handed out in report_results() only, for entries that settle() saw behind a
 * sync that succeeded. After a write or sync that failed nothing more is asked of that file: see fail().
 */
#include "journal/internal.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct hky_durable {
    char proof;
};
static const struct hky_durable durable = {1};

enum { VOID_NAMES = 256 };

struct gather {
    struct iovec *iov;
    int n, cap;
    uint64_t at; /* where the gathered octets go */
};

static void gather_add(struct gather *g, const void *p, size_t n)
{
    if (n == 0)
        return;
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 256 : g->cap * 2;
        g->iov = hky_realloc(g->iov, (size_t)g->cap * sizeof *g->iov);
    }
    g->iov[g->n++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = n};
}

static void commit_on_task(struct hky_task *task)
{
    struct hky_commit *c = HKY_CONTAINER(task, struct hky_commit, task);

    c->done(c, c->result == HKY_OK ? &durable : NULL, c->result);
}

static void report_results(struct hky_journal *j)
{
    for (struct entry *e; (e = journal_list_take(&j->done)) != NULL;) {
        struct hky_commit *c = e->commit;
        struct waiter *w = e->waiter;
        enum hky_err result = e->result;

        journal_entry_free(j, e); /* freed first: a submitter that asks for room in `done` must find it */
        if (w != NULL)
            journal_waiter_done(w, result);
        if (c == NULL)
            continue;
        c->result = result;
        c->task.run = commit_on_task;
        hky_loop_post(c->loop, &c->task);
    }
}

static void finish_with(struct hky_journal *j, struct entry *e, enum hky_err result)
{
    if (result != HKY_OK && e->is_accept && e->message != NULL && e->message->is_big) /* its body was there first */
        journal_upkeep_unlink_big(j, e->message->id);
    e->result = result;
    journal_list_add(&j->done, e);
}

/* --- what a durable record means for the index (under index_lock) --- */

static void settle_message(struct hky_journal *j, struct entry *e)
{
    struct hky_message *m = e->message;
    struct tracked *t = journal_track(j, m, j->hot, e->ordinal, e->at, e->at + JOURNAL_RECORD_HEADER);

    e->message = NULL;
    e->has_body_memory = false;
    for (uint32_t i = 0; i < m->n_recipients; i++) /* a recipient may have ended before it was accepted */
        if (e->type == JOURNAL_RECORD_ACCEPTED &&
            hky_recipient_state_is_final((enum hky_recipient_state)m->recipients[i].state) &&
            journal_track_finish(j, t, i, j->hot)) {
            e->message = hky_message_ref(m);
            journal_untrack(j, t);
            return;
        }
    journal_body_over_budget(j, m);
}

static void settle_finished(struct hky_journal *j, struct entry *e)
{
    struct tracked *t = journal_index_get(&j->index, e->id);
    struct hky_message *gone = NULL;

    if (t != NULL && journal_track_finish(j, t, e->index, j->hot)) {
        gone = hky_message_ref(t->message);
        journal_untrack(j, t);
    }
    if (e->flags & FLAG_NOTICE)
        settle_message(j, e);
    e->message = gone; /* its last reference goes with the entry, without the lock */
}

static void settle_attempt(struct hky_journal *j, struct entry *e)
{
    struct tracked *t = journal_index_get(&j->index, e->id);

    if (t != NULL && e->index < t->message->n_recipients &&
        !journal_segment_is_dead(j->slots[t->slot], t->ordinal + e->index))
        journal_track_attempt(j, t, e->index, (struct record_at){.slot = j->hot->slot, .at8 = (uint32_t)(e->at / 8)});
}

static void settle(struct hky_journal *j, struct entry *e)
{
    switch (e->type) {
    case JOURNAL_RECORD_ACCEPTED:
        settle_message(j, e);
        atomic_fetch_add_explicit(&j->n_accepts, 1, memory_order_relaxed);
        break;
    case JOURNAL_RECORD_FINISHED:
        settle_finished(j, e);
        atomic_fetch_add_explicit(&j->n_results, 1, memory_order_relaxed);
        break;
    case JOURNAL_RECORD_ATTEMPT:
        settle_attempt(j, e);
        atomic_fetch_add_explicit(&j->n_results, 1, memory_order_relaxed);
        break;
    case JOURNAL_RECORD_CAP:
        journal_cap_set(j, hky_buf_str(&e->meta), j->hot->slot);
        break;
    case JOURNAL_RECORD_DEAD:
    case JOURNAL_RECORD_CUT:
    case JOURNAL_RECORD_VOID:
        journal_segment_add_evidence(j->hot, e->about);
        break;
    default:
        break;
    }
}

/* --- writing --- */

static enum hky_err flush_gathered(struct hky_journal *j, struct gather *g)
{
    enum hky_err err = g->n > 0 ? journal_segment_write(j, j->hot, g->iov, g->n, g->at) : HKY_OK;

    g->n = 0;
    g->at = j->hot != NULL ? j->hot->at : 0;
    return err;
}

static enum hky_err sync_hot(struct hky_journal *j)
{
    enum hky_err err;

    if (j->unsynced.first == NULL)
        return HKY_OK;
    if (j->hot != NULL && j->hot->synced_seq + 1 != j->hot->next_seq) {
        err = journal_segment_sync(j, j->hot);
        if (err != HKY_OK)
            return err;
        j->hot->synced_seq = j->hot->next_seq - 1;
    }
    atomic_fetch_add_explicit(&j->n_commits, 1, memory_order_relaxed);
    pthread_mutex_lock(&j->index_lock);
    for (struct entry *e; (e = journal_list_take(&j->unsynced)) != NULL;) {
        settle(j, e);
        finish_with(j, e, HKY_OK);
    }
    pthread_mutex_unlock(&j->index_lock);
    return HKY_OK;
}

static uint32_t entry_ordinals(const struct entry *e)
{
    return e->message != NULL ? e->message->n_recipients : 0;
}

static void put_record(struct hky_journal *j, struct entry *e, struct gather *g)
{
    struct segment *s = j->hot;
    struct journal_record r = journal_entry_record(e, s);
    uint64_t octets = journal_record_octets(&r);

    e->at = s->at;
    e->seq = r.seq;
    e->ordinal = r.ordinal;
    journal_record_encode(&r, s->head.salt, e->head);
    gather_add(g, e->head, JOURNAL_RECORD_HEADER);
    if (r.body_n > 0)
        gather_add(g, e->body->p, r.body_n);
    gather_add(g, e->meta.p, (size_t)(octets - JOURNAL_RECORD_HEADER - r.body_n)); /* the padding follows the meta */
    journal_foot_add(&s->foot, &r, s->at, e->meta.p);
    if (e->type == JOURNAL_RECORD_ATTEMPT)
        journal_segment_count_attempt(s, r.meta_n);
    s->at += octets;
    s->next_seq++;
    s->n_written += entry_ordinals(e);
    j->next_seq = s->next_seq;
    journal_list_add(&j->unsynced, e);
}

static void put_plans(struct hky_journal *j, struct entry *e, struct gather *g)
{
    for (uint32_t i = 0; i < e->n_plans; i++) {
        struct hky_plan *p = e->plans[i];
        struct entry *plan;
        if (hky_idmap_get(&j->hot->plans, p->hash) != NULL)
            continue;
        pthread_mutex_lock(&j->index_lock);
        journal_plan_used(j, j->hot, p);
        pthread_mutex_unlock(&j->index_lock);
        plan = journal_entry_new(JOURNAL_RECORD_PLAN);
        plan->key = p->hash;
        hky_buf_add(&plan->meta, p->encoded, p->encoded_n);
        journal_entry_seal(plan);
        put_record(j, plan, g);
    }
}

static enum hky_err close_hot(struct hky_journal *j, struct gather *g)
{
    enum hky_err err = flush_gathered(j, g);

    if (err == HKY_OK)
        err = sync_hot(j);
    if (err != HKY_OK)
        return err;
    journal_upkeep_close_segment(j, j->hot);
    j->hot = NULL;
    return HKY_OK;
}

/* Provides a hot segment with room for `e`, or sets e->result to the reason why this entry gets none. HKY_E_FULL or
 * HKY_E_IO: the disk failed, and what has been gathered is not on it. */
static enum hky_err make_room(struct hky_journal *j, struct entry *e, struct gather *g)
{
    uint64_t need = journal_entry_need(e);
    bool is_reserved = false;

    if (!journal_entry_fits(j, e)) {
        HKY_ASSERT(e->is_accept); /* a result is never larger than a segment */
        e->result = HKY_E_LIMIT;
        return HKY_OK;
    }
    if (e->is_accept && atomic_load(&j->is_full)) {
        e->result = journal_segment_lack(j);
        return HKY_OK;
    }
    if (j->hot != NULL && need <= journal_segment_room(j->hot))
        return HKY_OK;
    if (j->hot != NULL) {
        enum hky_err err = close_hot(j, g);
        if (err != HKY_OK)
            return err;
        journal_segment_grow(j);
    }
    j->hot = journal_segment_take(j, SEGMENT_HOT, j->next_seq, need, true);
    if (j->hot == NULL) {
        j->hot = journal_segment_take(j, SEGMENT_HOT, j->next_seq, need, false);
        is_reserved = true;
    }
    if (j->hot == NULL)
        return journal_segment_lack(j);
    g->at = j->hot->at;
    journal_upkeep_poke(j); /* the next spare */
    if (is_reserved) {
        atomic_store(&j->is_full, true);
        if (journal_segment_lack(j) == HKY_E_IO)
            hky_log(j->params.log, HKY_LOG_ERROR, "spool",
                    "state=failing: new mail is refused (451) until the spool can be written");
        else
            hky_log(j->params.log, HKY_LOG_ERROR, "spool",
                    "state=full: new mail is refused (452) until there is room, see min_free and spool_max in bounds");
        if (e->is_accept)
            e->result = journal_segment_lack(j);
    }
    return HKY_OK;
}

static bool is_stale_cap(struct hky_journal *j, const struct entry *e)
{
    struct hky_cursor c = {.p = e->meta.p, .n = e->meta.n};
    const struct cap_value *v = hky_map_get(&j->caps, hky_cursor_lstr(&c));

    return v == NULL || v->slot != e->from.slot;
}

/* Maintenance copied the attempt that was newest when it looked; a newer one may have come since. */
static bool is_stale_copy(struct hky_journal *j, const struct entry *e)
{
    struct tracked *t;
    bool is_stale;

    if (!e->is_copy)
        return false;
    pthread_mutex_lock(&j->index_lock);
    if (e->type == JOURNAL_RECORD_CAP)
        is_stale = is_stale_cap(j, e);
    else if ((t = journal_index_get(&j->index, e->id)) == NULL || e->index >= t->message->n_recipients)
        is_stale = true;
    else
        is_stale = t->attempts[e->index].slot != e->from.slot || t->attempts[e->index].at8 != e->from.at8;
    pthread_mutex_unlock(&j->index_lock);
    for (const struct entry *u = j->unsynced.first; u != NULL && !is_stale; u = u->next)
        is_stale = u->type == e->type && u->key == e->key && u->index == e->index;
    return is_stale;
}

/* Writes all of `l` and syncs if somebody waits. After an error the rest is in `l`, and what was written in
 * j->unsynced. */
static enum hky_err write_list(struct hky_journal *j, struct entry_list *l, bool must_sync, struct gather *g)
{
    enum hky_err err = HKY_OK;

    g->n = 0;
    g->at = j->hot != NULL ? j->hot->at : 0;
    for (struct entry *e; (e = l->first) != NULL;) {
        must_sync = must_sync || e->is_durable;
        if (e->result != HKY_OK) {
            finish_with(j, journal_list_take(l), e->result);
            continue;
        }
        if (e->type == JOURNAL_RECORD_END ||
            is_stale_copy(j, e)) { /* not written: only answered, once what was written is durable */
            e->type = JOURNAL_RECORD_END;
            journal_list_add(&j->unsynced, journal_list_take(l));
            continue;
        }
        err = make_room(j, e, g);
        if (err != HKY_OK)
            return err;
        e = journal_list_take(l);
        if (e->result != HKY_OK) {
            finish_with(j, e, e->result);
            continue;
        }
        put_plans(j, e, g);
        put_record(j, e, g);
    }
    err = flush_gathered(j, g);
    if (err == HKY_OK && must_sync)
        err = sync_hot(j);
    return err;
}

/* --- failure --- */

/* A replay needs only where the segment ends. The names are for people, and so that the record always has room in a
 * segment there are not more of them than a few. */
static struct entry *void_entry(struct segment *s, const struct entry_list *refused)
{
    struct entry *e = journal_entry_new(JOURNAL_RECORD_VOID);
    size_t n = refused->n < VOID_NAMES ? refused->n : VOID_NAMES;

    e->key = s->head.epoch;
    e->about = s;
    hky_buf_add_u64(&e->meta, s->cut_seq);
    hky_buf_add_u32(&e->meta, (uint32_t)n);
    for (const struct entry *r = refused->first; n > 0; r = r->next, n--)
        hky_buf_add_u64(&e->meta, r->key);
    e->is_durable = true;
    journal_entry_seal(e);
    return e;
}

/* Until the `void` record is durable, only this keeps a refused message from coming back: its header is overwritten, if
 * the disk takes the write. Replay then ends there; the records behind it are written again elsewhere. */
static void overwrite_refused(struct hky_journal *j, struct segment *s)
{
    static const char none[JOURNAL_RECORD_HEADER];
    struct iovec iov = {.iov_base = (void *)(uintptr_t)none, .iov_len = sizeof none};

    for (const struct entry *e = j->unsynced.first; e != NULL; e = e->next)
        if (e->is_accept && e->at != 0) {
            (void)journal_segment_write(j, s, &iov, 1, e->at);
            return;
        }
}

/*
 * The hot segment failed. What was synced in it stays good; its pages are never synced again, because the kernel drops
 * them as clean after the first error. Accepts it held are refused, results are written again elsewhere, behind a
 * `void` record that keeps the refused from coming back. Leaves what is to be written in `l`.
 */
static void fail(struct hky_journal *j, struct entry_list *l, struct entry_list *refused, enum hky_err err)
{
    struct segment *s = j->hot;
    struct entry_list again = {0}, mine = {0};

    if (s != NULL)
        overwrite_refused(j, s);
    for (struct entry *e; (e = journal_list_take(&j->unsynced)) != NULL || (e = journal_list_take(l)) != NULL;) {
        if (e->type == JOURNAL_RECORD_PLAN) {
            journal_entry_free(j, e); /* written again by whoever needs it */
        } else if (e->is_accept) {
            e->result = err;
            journal_list_add(&mine, e);
        } else {
            journal_list_add(&again, e);
        }
    }
    if (s != NULL) {
        atomic_fetch_add(&j->n_write_errors, 1);
        s->cut_seq = s->synced_seq + 1;
        s->is_failed = true;
        journal_list_add(l, void_entry(s, &mine));
        hky_log(j->params.log, HKY_LOG_ERROR, "disk",
                "segment=%u error=%s: the segment is closed; %zu messages are refused, %zu results are written again",
                s->slot, err == HKY_E_FULL ? "no_space" : "io", mine.n, again.n);
        journal_upkeep_close_segment(j, s);
        j->hot = NULL;
    }
    for (struct entry *e; (e = journal_list_take(&again)) != NULL;)
        journal_list_add(l, e);
    for (struct entry *e; (e = journal_list_take(&mine)) != NULL;)
        journal_list_add(refused, e);
}

/* A submitter that asks whether something is on disk gets the answer no; results keep waiting. At the stop,
 * maintenance is joined first, so it must not wait either for a sync that will not come. */
static void give_up(struct hky_journal *j, enum hky_err err)
{
    struct entry_list l = j->waiting;
    bool is_closing = atomic_load(&j->is_closing);

    j->waiting = (struct entry_list){0};
    for (struct entry *e; (e = journal_list_take(&l)) != NULL;)
        if (e->is_mark || (is_closing && e->waiter != NULL))
            finish_with(j, e, err);
        else
            journal_list_add(&j->waiting, e);
}

static void commit_round(struct hky_journal *j, struct entry_list *l, bool must_sync, struct gather *g)
{
    struct entry_list refused = {0};
    enum hky_err err = HKY_OK;
    bool was_waiting = j->waiting.first != NULL;

    if (was_waiting && hky_mono_ms() < j->retry_at_ms && !must_sync) {
        for (struct entry *e; (e = journal_list_take(l)) != NULL;)
            if (e->is_accept || e->is_mark)
                finish_with(j, e, (enum hky_err)atomic_load(&j->health));
            else
                journal_list_add(&j->waiting, e);
        report_results(j);
        return;
    }
    if (was_waiting) {
        struct entry_list all = j->waiting;
        j->waiting = (struct entry_list){0};
        for (struct entry *e; (e = journal_list_take(l)) != NULL;)
            journal_list_add(&all, e);
        *l = all;
    }
    for (int tries = 0; tries < 2; tries++) {
        err = write_list(j, l, must_sync || was_waiting, g);
        if (err == HKY_OK)
            break;
        fail(j, l, &refused, err);
    }
    if (err != HKY_OK) {
        j->waiting = *l;
        j->retry_at_ms = hky_mono_ms() + (j->params.retry_after_ms != 0 ? j->params.retry_after_ms : RETRY_AFTER_MS);
        give_up(j, err);
    }
    atomic_store(&j->health, err);
    for (struct entry *e; (e = journal_list_take(&refused)) != NULL;)
        finish_with(j, e, e->result);
    report_results(j);
}

bool journal_commit_cut(struct hky_journal *j, struct entry_list *entries)
{
    struct gather g = {0};
    struct waiter w;
    bool ok;

    journal_waiter_init(&w);
    for (struct entry *e = entries->first; e != NULL; e = e->next) {
        w.n_left++;
        e->waiter = &w;
    }
    commit_round(j, entries, true, &g);
    ok = w.n_left == 0 && w.result == HKY_OK;
    for (struct entry *e; (e = journal_list_take(&j->waiting)) != NULL;)
        journal_entry_free(j, e);
    journal_waiter_fini(&w);
    free(g.iov);
    return ok;
}

/* How many ms to sleep; -1: until something is queued. */
static int64_t wait_ms(struct hky_journal *j)
{
    int64_t now = hky_mono_ms(), due = -1;

    if (j->unsynced.first != NULL)
        due = j->oldest_unsynced_ms + SYNC_AFTER_MS;
    if (j->waiting.first != NULL && (due < 0 || j->retry_at_ms < due))
        due = j->retry_at_ms;
    return due < 0 ? -1 : due > now ? due - now : 0;
}

/* Sleeps until somebody waits for an entry, at most `ms`; true when the time is over. Under the queue's lock. */
static bool wait_for_urgent(struct hky_journal *j, int64_t ms)
{
    struct timespec until = journal_in_ms(ms);
    int rc = 0;

    j->queue.is_lingering = true;
    while (!j->queue.is_urgent && !j->queue.is_stopping && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&j->queue.cond, &j->queue.lock, &until);
    j->queue.is_lingering = false;
    return rc == ETIMEDOUT;
}

static bool take_queued(struct hky_journal *j, struct entry_list *l)
{
    int64_t ms = wait_ms(j);
    bool is_stopping;

    pthread_mutex_lock(&j->queue.lock);
    if (j->lingers && wait_for_urgent(j, ms >= 0 && ms < LINGER_MS ? ms : LINGER_MS) && ms > 0)
        ms = ms > LINGER_MS ? ms - LINGER_MS : 0;
    while (j->queue.entries.first == NULL && !j->queue.is_stopping && ms != 0) {
        struct timespec until;
        if (ms < 0) {
            pthread_cond_wait(&j->queue.cond, &j->queue.lock);
            continue;
        }
        until = journal_in_ms(ms);
        if (pthread_cond_timedwait(&j->queue.cond, &j->queue.lock, &until) == ETIMEDOUT)
            break;
    }
    *l = j->queue.entries;
    j->queue.entries = (struct entry_list){0};
    j->queue.is_urgent = false;
    is_stopping = j->queue.is_stopping;
    pthread_mutex_unlock(&j->queue.lock);
    j->lingers = l->first != NULL;
    return is_stopping;
}

void *journal_committer_run(void *journal)
{
    struct hky_journal *j = journal;
    struct gather g = {0};

    for (bool is_stopping = false; !is_stopping;) {
        struct entry_list l;
        bool had_unsynced = j->unsynced.first != NULL, is_due;

        is_stopping = take_queued(j, &l);
        is_due = had_unsynced && hky_mono_ms() - j->oldest_unsynced_ms >= SYNC_AFTER_MS;
        j->n_taken += l.n;
        atomic_store_explicit(&j->commit_began_ms, hky_mono_ms(), memory_order_relaxed);
        commit_round(j, &l, is_stopping || is_due, &g);
        atomic_store_explicit(&j->commit_began_ms, 0, memory_order_relaxed);
        if (j->waiting.first == NULL) /* everything taken was handed to the kernel or refused */
            atomic_store_explicit(&j->n_written, j->n_taken, memory_order_release);
        if (!had_unsynced || j->unsynced.first == NULL)
            j->oldest_unsynced_ms = hky_mono_ms();
    }
    for (struct entry *e; (e = journal_list_take(&j->waiting)) != NULL;)
        finish_with(j, e, HKY_E_IO);
    report_results(j);
    free(g.iov);
    return NULL;
}
