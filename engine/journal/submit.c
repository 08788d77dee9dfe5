/* The workers' side: facts are encoded and checksummed on the caller's thread, bodies go by reference. */
#include "journal/internal.h"

#include "base/hash.h"

#include <stdlib.h>
#include <time.h>

struct entry *entry_new(enum record_type type)
{
    struct entry *e = hky_calloc(1, sizeof *e);

    e->type = (uint8_t)type;
    e->plans = e->one_plan;
    e->from = PLACE_HOME;
    hky_buf_init(&e->meta, META_MAX);
    return e;
}

void entry_free(struct hky_journal *j, struct entry *e)
{
    for (uint32_t i = 0; i < e->n_plans; i++)
        hky_plan_unref(&e->plans[i]);
    if (e->plans != e->one_plan)
        free(e->plans);
    if (e->octets > 0)
        atomic_fetch_sub(&j->n_unsynced, e->octets);
    if (e->has_body_memory) /* refused */
        atomic_fetch_sub(&j->body_memory, e->message->size);
    hky_message_unref(&e->message);
    hky_body_unref(&e->body);
    hky_buf_fini(&e->meta);
    free(e);
}

void entry_seal(struct entry *e)
{
    /* The pad of the record is written from behind the meta. */
    if (hky_buf_reserve(&e->meta, 8) != NULL)
        memset(e->meta.p + e->meta.n, 0, 8);
    e->meta_crc = hky_crc32c(0, e->meta.p, e->meta.n);
    e->body_crc = e->body != NULL ? hky_crc32c(0, e->body->p, e->body->n) : 0;
}

void entry_add_plan(struct entry *e, struct hky_plan *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; i < e->n_plans; i++)
        if (e->plans[i]->hash == p->hash)
            return;
    if (e->n_plans == 1) {
        e->plans = hky_alloc(8 * sizeof *e->plans);
        e->plans[0] = e->one_plan[0];
    } else if (e->n_plans >= 8 && (e->n_plans & (e->n_plans - 1)) == 0) {
        e->plans = hky_realloc(e->plans, e->n_plans * 2 * sizeof *e->plans);
    }
    e->plans[e->n_plans++] = hky_plan_ref(p);
}

void list_add(struct entry_list *l, struct entry *e)
{
    e->next = NULL;
    if (l->last != NULL)
        l->last->next = e;
    else
        l->first = e;
    l->last = e;
    l->n++;
}

struct entry *list_take(struct entry_list *l)
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
 * Who is waited for wakes the committer at once. Results nobody waits for ride along: with steady mail the next accept
 * is there within a millisecond or two, and waking a thread for each would cost more than writing it.
 */
void entry_submit(struct hky_journal *j, struct entry *e)
{
    bool is_waited_for = e->commit != NULL || e->waiter != NULL, wakes;

    pthread_mutex_lock(&j->queue.lock);
    HKY_ASSERT(!j->queue.is_stopping);
    wakes = is_waited_for ? !j->queue.is_urgent : j->queue.entries.first == NULL && !j->queue.is_lingering;
    j->queue.is_urgent |= is_waited_for;
    list_add(&j->queue.entries, e);
    pthread_mutex_unlock(&j->queue.lock);
    if (wakes)
        pthread_cond_signal(&j->queue.cond);
}

void waiter_init(struct waiter *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
    w->n_left = 0;
    w->result = HKY_OK;
}

void waiter_fini(struct waiter *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
}

void waiter_done(struct waiter *w, enum hky_err result)
{
    pthread_mutex_lock(&w->lock);
    if (result != HKY_OK)
        w->result = result;
    if (--w->n_left == 0)
        pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

enum hky_err waiter_wait(struct waiter *w)
{
    enum hky_err result;

    pthread_mutex_lock(&w->lock);
    while (w->n_left > 0)
        pthread_cond_wait(&w->cond, &w->lock);
    result = w->result;
    pthread_mutex_unlock(&w->lock);
    return result;
}

/* The length of a state stands before it and is known after. */
static void add_state(struct hky_buf *b, const struct hky_recipient *r)
{
    size_t at = b->n;
    uint32_t n;

    hky_buf_add_u32(b, 0);
    hky_recipient_encode_state(r, b);
    if (b->is_over)
        return;
    n = (uint32_t)(b->n - at - 4);
    for (int i = 0; i < 4; i++)
        b->p[at + (size_t)i] = (char)(n >> (8 * i));
}

static void add_message(struct hky_journal *j, struct entry *e, struct hky_message *m)
{
    size_t at;
    uint32_t n;

    /* One allocation for the usual message. */
    hky_buf_reserve(&e->meta, 256 + m->packed_n + 160 * (size_t)m->n_recipients);
    message_meta_begin(&e->meta, 0, m->n_recipients, m->id);
    at = e->meta.n;
    hky_buf_add_u32(&e->meta, 0);
    hky_message_encode(m, &e->meta);
    if (e->meta.is_over)
        return;
    n = (uint32_t)(e->meta.n - at - 4);
    for (int i = 0; i < 4; i++)
        e->meta.p[at + (size_t)i] = (char)(n >> (8 * i));
    for (uint32_t i = 0; i < m->n_recipients; i++) {
        struct hky_recipient *r = &m->recipients[i];
        hky_buf_add_u64(&e->meta, 0);
        hky_buf_add_u64(&e->meta, r->plan != NULL ? r->plan->hash : 0);
        hky_buf_add_u8(&e->meta, hky_recipient_state_is_final((enum hky_recipient_state)r->state) ? r->state : 0);
        add_state(&e->meta, r);
        entry_add_plan(e, r->plan);
    }
    e->message = hky_message_ref(m);
    e->key = m->id;
    if (!m->is_big) {
        HKY_ASSERT(m->body != NULL && m->body->n == m->size);
        e->body = hky_body_ref(m->body);
        e->has_body_memory = true;
        atomic_fetch_add(&j->body_memory, m->size);
    }
}

static void submit_sealed(struct hky_journal *j, struct entry *e, struct hky_commit *c)
{
    e->commit = c;
    e->is_durable = c != NULL;
    entry_seal(e);
    e->octets = e->meta.n + (e->body != NULL ? e->body->n : 0);
    atomic_fetch_add(&j->n_unsynced, e->octets);
    if (e->meta.is_over) /* above 64 MiB of facts: accept bounds recipients and headers far below */
        e->result = HKY_E_LIMIT;
    entry_submit(j, e);
}

void journal_disk_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c)
{
    struct entry *e = entry_new(RECORD_ACCEPTED);

    add_message(j, e, m);
    e->is_accept = true;
    submit_sealed(j, e, c);
}

void journal_disk_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    struct entry *e = entry_new(RECORD_ATTEMPT);

    hky_buf_reserve(&e->meta, 256);
    e->id = e->key = r->message->id;
    e->index = r->index;
    hky_buf_add_u32(&e->meta, r->index);
    hky_buf_add_u8(&e->meta, r->state);
    hky_buf_add_u64(&e->meta, r->plan != NULL ? r->plan->hash : 0);
    hky_buf_add_u64(&e->meta, 0);
    add_state(&e->meta, r);
    entry_add_plan(e, r->plan);
    submit_sealed(j, e, c);
}

void journal_disk_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                         struct hky_commit *c)
{
    struct entry *e = entry_new(RECORD_FINISHED);

    HKY_ASSERT(hky_recipient_state_is_final((enum hky_recipient_state)r->state));
    e->id = e->key = r->message->id;
    e->index = r->index;
    e->state = r->state;
    hky_buf_add_u64(&e->meta, e->id);
    hky_buf_add_u32(&e->meta, e->index);
    hky_buf_add_u8(&e->meta, e->state);
    if (notice != NULL) {
        e->flags = FLAG_NOTICE;
        add_message(j, e, notice);
    }
    submit_sealed(j, e, c);
}

void journal_disk_cap(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c)
{
    struct entry *e = entry_new(RECORD_CAP);

    e->key = hky_hash64(key.p, key.n, 0);
    hky_buf_add_lstr(&e->meta, key);
    hky_buf_add_lstr(&e->meta, value);
    submit_sealed(j, e, c);
}

enum hky_err journal_disk_room(struct hky_journal *j, uint64_t size)
{
    enum hky_err health = (enum hky_err)atomic_load_explicit(&j->health, memory_order_relaxed);

    if (health != HKY_OK)
        return health;
    if (atomic_load_explicit(&j->is_full, memory_order_relaxed))
        return segment_lack(j);
    if (size > HKY_BIG_BODY && !spool_has_room_for_large(j, size))
        return HKY_E_FULL;
    if (atomic_load_explicit(&j->n_unsynced, memory_order_relaxed) > UNSYNCED_MAX)
        return HKY_E_STATE;
    return HKY_OK;
}

struct hky_id_source *journal_disk_ids(struct hky_journal *j)
{
    return &j->ids;
}

void journal_disk_flush(struct hky_journal *j)
{
    struct waiter w;
    struct entry *e = entry_new(RECORD_END);

    waiter_init(&w);
    w.n_left = 1;
    e->waiter = &w;
    e->is_durable = true;
    entry_submit(j, e);
    waiter_wait(&w);
    waiter_fini(&w);
}

void journal_disk_stats(struct hky_journal *j, struct hky_journal_stats *out)
{
    enum hky_err health = (enum hky_err)atomic_load(&j->health);

    *out =
        (struct hky_journal_stats){.recipients_live = atomic_load(&j->n_live),
                                   .messages_live = atomic_load(&j->n_messages),
                                   .commits = atomic_load(&j->n_commits),
                                   .syncs = atomic_load(&j->n_syncs),
                                   .accepts = atomic_load(&j->n_accepts),
                                   .results = atomic_load(&j->n_results),
                                   .body_memory = atomic_load(&j->body_memory),
                                   .unsynced = atomic_load(&j->n_unsynced),
                                   .write_errors = atomic_load(&j->n_write_errors),
                                   .damaged = atomic_load(&j->n_damaged),
                                   .health = health == HKY_OK && atomic_load(&j->is_full) ? segment_lack(j) : health};
    pthread_mutex_lock(&j->index_lock);
    out->segments = j->n_segments;
    out->free_segments = j->n_spare;
    out->cold_segments = j->n_cold;
    out->octets = j->segment_octets + atomic_load(&j->big_octets);
    pthread_mutex_unlock(&j->index_lock);
}
