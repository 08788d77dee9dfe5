/* The workers' side: facts are encoded and checksummed on the caller's thread, bodies are passed by reference. */
#include "journal/internal.h"

#include "base/hash.h"

#include <stdlib.h>
#include <time.h>

/* The length precedes a state, and is known only after it was written. */
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
    journal_message_meta_begin(&e->meta, 0, m->n_recipients, m->id);
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
        journal_entry_add_plan(e, r->plan);
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
    journal_entry_seal(e);
    e->octets = e->meta.n + (e->body != NULL ? e->body->n : 0);
    atomic_fetch_add(&j->n_unsynced, e->octets);
    if (e->meta.is_over) /* above 64 MiB of facts: accept bounds recipients and headers far below */
        e->result = HKY_E_LIMIT;
    journal_entry_submit(j, e);
}

void journal_disk_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c)
{
    struct entry *e = journal_entry_new(JOURNAL_RECORD_ACCEPTED);

    add_message(j, e, m);
    e->is_accept = true;
    submit_sealed(j, e, c);
}

void journal_disk_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    struct entry *e = journal_entry_new(JOURNAL_RECORD_ATTEMPT);

    hky_buf_reserve(&e->meta, 256);
    e->id = e->key = r->message->id;
    e->index = r->index;
    hky_buf_add_u32(&e->meta, r->index);
    hky_buf_add_u8(&e->meta, r->state);
    hky_buf_add_u64(&e->meta, r->plan != NULL ? r->plan->hash : 0);
    hky_buf_add_u64(&e->meta, 0);
    add_state(&e->meta, r);
    journal_entry_add_plan(e, r->plan);
    submit_sealed(j, e, c);
}

void journal_disk_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                         struct hky_commit *c)
{
    struct entry *e = journal_entry_new(JOURNAL_RECORD_FINISHED);

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
    struct entry *e = journal_entry_new(JOURNAL_RECORD_CAP);

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
        return journal_segment_lack(j);
    if (size > HKY_BIG_BODY) {
        if (!journal_spool_has_room_for_large(j, size, size))
            return HKY_E_FULL;
        journal_spool_note_large(j, size);
    }
    if (atomic_load_explicit(&j->n_unsynced, memory_order_relaxed) > UNSYNCED_MAX)
        return HKY_E_STATE;
    return HKY_OK;
}

struct hky_id_source *journal_disk_ids(struct hky_journal *j)
{
    return &j->ids;
}

uint64_t journal_disk_submitted(struct hky_journal *j)
{
    return atomic_load_explicit(&j->n_submitted, memory_order_relaxed);
}

uint64_t journal_disk_written(struct hky_journal *j)
{
    return atomic_load_explicit(&j->n_written, memory_order_acquire);
}

enum hky_err journal_disk_takes_results(struct hky_journal *j)
{
    enum hky_err health = (enum hky_err)atomic_load_explicit(&j->health, memory_order_relaxed);
    int64_t began_ms;

    if (health != HKY_OK)
        return health;
    began_ms = atomic_load_explicit(&j->commit_began_ms, memory_order_relaxed);
    return began_ms != 0 && hky_mono_ms() - began_ms > HKY_COMMIT_MOST_MS ? HKY_E_TIMEOUT : HKY_OK;
}

static struct entry *mark_new(void)
{
    struct entry *e = journal_entry_new(JOURNAL_RECORD_END);

    e->is_mark = true;
    e->is_durable = true;
    return e;
}

void journal_disk_sync(struct hky_journal *j, struct hky_commit *c)
{
    struct entry *e = mark_new();

    e->commit = c;
    journal_entry_submit(j, e);
}

enum hky_err journal_disk_flush(struct hky_journal *j)
{
    struct waiter w;
    struct entry *e = mark_new();
    enum hky_err err;

    journal_waiter_init(&w);
    w.n_left = 1;
    e->waiter = &w;
    journal_entry_submit(j, e);
    err = journal_waiter_wait(&w);
    journal_waiter_fini(&w);
    return err;
}

void journal_disk_stats(struct hky_journal *j, struct hky_journal_stats *out)
{
    enum hky_err health = journal_disk_takes_results(j);

    *out = (struct hky_journal_stats){.recipients_live = atomic_load(&j->n_live),
                                      .messages_live = atomic_load(&j->n_messages),
                                      .commits = atomic_load(&j->n_commits),
                                      .syncs = atomic_load(&j->n_syncs),
                                      .accepts = atomic_load(&j->n_accepts),
                                      .results = atomic_load(&j->n_results),
                                      .body_memory = atomic_load(&j->body_memory),
                                      .unsynced = atomic_load(&j->n_unsynced),
                                      .write_errors = atomic_load(&j->n_write_errors),
                                      .damaged = atomic_load(&j->n_damaged),
                                      .upkeep_rounds = atomic_load(&j->n_upkeep_rounds),
                                      .takes_results = health == HKY_OK,
                                      .health = health == HKY_OK && atomic_load(&j->is_full) ? journal_segment_lack(j)
                                                                                             : health};
    pthread_mutex_lock(&j->index_lock);
    out->segments = j->n_segments;
    out->free_segments = j->n_spare;
    out->cold_segments = j->n_cold;
    out->octets = j->segment_octets + atomic_load(&j->big_octets);
    pthread_mutex_unlock(&j->index_lock);
}
