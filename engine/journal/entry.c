/* Entries for the committer's queue: how they are made, sealed with checksums, submitted and waited for. */
#include "journal/internal.h"

#include "base/hash.h"

#include <stdlib.h>
#include <time.h>

enum { PLANS_FEW = 8 };

struct entry *journal_entry_new(enum journal_record_type type)
{
    struct entry *e = hky_calloc(1, sizeof *e);

    e->type = (uint8_t)type;
    e->plans = e->one_plan;
    e->from = AT_HOME;
    hky_buf_init(&e->meta, META_MAX);
    return e;
}

void journal_entry_free(struct hky_journal *j, struct entry *e)
{
    for (uint32_t i = 0; i < e->n_plans; i++)
        hky_plan_unref(&e->plans[i]);
    if (e->plans != e->one_plan)
        free(e->plans);
    if (e->plans_by_hash != NULL)
        hky_idmap_fini(e->plans_by_hash);
    free(e->plans_by_hash);
    if (e->octets > 0)
        atomic_fetch_sub(&j->n_unsynced, e->octets);
    if (e->has_body_memory) /* refused */
        atomic_fetch_sub(&j->body_memory, e->message->size);
    hky_message_unref(&e->message);
    hky_body_unref(&e->body);
    hky_buf_fini(&e->meta);
    free(e);
}

void journal_entry_seal(struct entry *e)
{
    /* The record's padding is written from the octets behind the meta. */
    if (hky_buf_reserve(&e->meta, 8) != NULL)
        memset(e->meta.p + e->meta.n, 0, 8);
    e->meta_crc = hky_crc32c(0, e->meta.p, e->meta.n);
    e->body_crc = e->body != NULL ? hky_crc32c(0, e->body->p, e->body->n) : 0;
}

/* Each recipient may have a plan of its own. */
static bool has_plan(const struct entry *e, const struct hky_plan *p)
{
    if (e->plans_by_hash != NULL)
        return hky_idmap_get(e->plans_by_hash, p->hash) != NULL;
    for (uint32_t i = 0; i < e->n_plans; i++)
        if (e->plans[i]->hash == p->hash)
            return true;
    return false;
}

static void note_plan(struct entry *e, struct hky_plan *p)
{
    if (e->plans_by_hash == NULL && e->n_plans < PLANS_FEW)
        return;
    if (e->plans_by_hash == NULL) {
        e->plans_by_hash = hky_alloc(sizeof *e->plans_by_hash);
        hky_idmap_init(e->plans_by_hash);
        for (uint32_t i = 0; i < e->n_plans; i++)
            hky_idmap_put(e->plans_by_hash, e->plans[i]->hash, e->plans[i]);
    }
    hky_idmap_put(e->plans_by_hash, p->hash, p);
}

void journal_entry_add_plan(struct entry *e, struct hky_plan *p)
{
    if (p == NULL || has_plan(e, p))
        return;
    note_plan(e, p);
    if (e->n_plans == 1) {
        e->plans = hky_alloc(PLANS_FEW * sizeof *e->plans);
        e->plans[0] = e->one_plan[0];
    } else if (e->n_plans >= PLANS_FEW && (e->n_plans & (e->n_plans - 1)) == 0) {
        e->plans = hky_realloc(e->plans, e->n_plans * 2 * sizeof *e->plans);
    }
    e->plans[e->n_plans++] = hky_plan_ref(p);
}

struct journal_record journal_entry_record(const struct entry *e, const struct segment *s)
{
    return (struct journal_record){.type = e->type,
                                   .flags = e->flags,
                                   .meta_n = (uint32_t)e->meta.n,
                                   .body_n = e->body != NULL ? (uint32_t)e->body->n : 0,
                                   .ordinal = s->n_written,
                                   .epoch = s->head.epoch,
                                   .seq = s->next_seq,
                                   .synced_seq = s->synced_seq,
                                   .key = e->key,
                                   .body_crc = e->body_crc,
                                   .meta_crc = e->meta_crc};
}

uint64_t journal_entry_need(const struct entry *e)
{
    struct journal_record r = {.meta_n = (uint32_t)e->meta.n, .body_n = e->body != NULL ? (uint32_t)e->body->n : 0};
    uint64_t need = journal_record_octets(&r) + FOOT_ENTRY + JOURNAL_RECORD_ALIGN(r.meta_n);

    for (uint32_t i = 0; i < e->n_plans; i++)
        need += 2 * (JOURNAL_RECORD_HEADER + JOURNAL_RECORD_ALIGN(e->plans[i]->encoded_n));
    return need;
}

bool journal_entry_fits(const struct hky_journal *j, const struct entry *e)
{
    uint64_t need = journal_entry_need(e);

    return journal_segment_octets_for(need) <= j->params.segment_octets && need <= 2 * j->params.footer_max;
}

void journal_list_add(struct entry_list *l, struct entry *e)
{
    e->next = NULL;
    if (l->last != NULL)
        l->last->next = e;
    else
        l->first = e;
    l->last = e;
    l->n++;
}

struct entry *journal_list_take(struct entry_list *l)
{
    struct entry *e = l->first;

    if (e == NULL)
        return NULL;
    l->first = e->next;
    if (l->first == NULL)
        l->last = NULL;
    l->n--;
    e->next = NULL;
    return e;
}

/*
 * An entry that somebody waits for wakes the committer at once. Results that nobody waits for are written with the next
 * entry: with steady mail one comes within a millisecond or two, and waking a thread for each would cost more than
 * writing it.
 */
void journal_entry_submit(struct hky_journal *j, struct entry *e)
{
    bool is_waited_for = e->commit != NULL || e->waiter != NULL, wakes;

    pthread_mutex_lock(&j->queue.lock);
    HKY_ASSERT(!j->queue.is_stopping);
    wakes = is_waited_for ? !j->queue.is_urgent : j->queue.entries.first == NULL && !j->queue.is_lingering;
    j->queue.is_urgent |= is_waited_for;
    journal_list_add(&j->queue.entries, e);
    atomic_store_explicit(&j->n_submitted, atomic_load_explicit(&j->n_submitted, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    pthread_mutex_unlock(&j->queue.lock);
    if (wakes)
        pthread_cond_signal(&j->queue.cond);
}

struct timespec journal_in_ms(int64_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

void journal_waiter_init(struct waiter *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
    w->n_left = 0;
    w->result = HKY_OK;
}

void journal_waiter_fini(struct waiter *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
}

void journal_waiter_done(struct waiter *w, enum hky_err result)
{
    pthread_mutex_lock(&w->lock);
    if (result != HKY_OK)
        w->result = result;
    if (--w->n_left == 0)
        pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

enum hky_err journal_waiter_wait(struct waiter *w)
{
    enum hky_err result;

    pthread_mutex_lock(&w->lock);
    while (w->n_left > 0)
        pthread_cond_wait(&w->cond, &w->lock);
    result = w->result;
    pthread_mutex_unlock(&w->lock);
    return result;
}

void journal_entry_submit_for(struct hky_journal *j, struct entry *e, struct waiter *w)
{
    pthread_mutex_lock(&w->lock);
    w->n_left++;
    pthread_mutex_unlock(&w->lock);
    e->waiter = w;
    e->is_durable = true;
    journal_entry_seal(e);
    journal_entry_submit(j, e);
}
