/* Where everything is: messages by id, each segment's bitmap of finished recipients, plans and caps. All under
 * index_lock. */
#include "journal/internal.h"

#include "base/hash.h"
#include "base/memory.h"

#include <stdlib.h>

static size_t index_slot(const struct index *x, uint64_t id)
{
    return (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (x->cap - 1);
}

struct tracked *journal_index_get(const struct index *x, uint64_t id)
{
    if (x->cap == 0)
        return NULL;
    for (size_t i = index_slot(x, id); x->at[i] != NULL; i = (i + 1) & (x->cap - 1))
        if (x->at[i]->id == id)
            return x->at[i];
    return NULL;
}

static void index_insert(struct index *x, struct tracked *t)
{
    size_t i = index_slot(x, t->id);

    while (x->at[i] != NULL)
        i = (i + 1) & (x->cap - 1);
    x->at[i] = t;
}

void journal_index_reserve(struct index *x, size_t n)
{
    struct index old = *x;

    if (n + n / 3 + 1 <= x->cap)
        return;
    for (x->cap = old.cap == 0 ? 256 : old.cap; n + n / 3 + 1 > x->cap;)
        x->cap *= 2;
    x->at = hky_calloc(x->cap, sizeof(struct tracked *));
    hky_memory_ready(x->at, x->cap * sizeof(struct tracked *));
    for (size_t i = 0; i < old.cap; i++)
        if (old.at[i] != NULL)
            index_insert(x, old.at[i]);
    free(old.at);
}

void journal_index_put(struct index *x, struct tracked *t)
{
    journal_index_reserve(x, x->n);
    index_insert(x, t);
    x->n++;
}

/* Linear probing without tombstones: the entries that follow move back into the gap. */
void journal_index_remove(struct index *x, uint64_t id)
{
    size_t gap, mask = x->cap - 1;

    if (x->cap == 0)
        return;
    for (gap = index_slot(x, id); x->at[gap] != NULL && x->at[gap]->id != id;)
        gap = (gap + 1) & mask;
    if (x->at[gap] == NULL)
        return;
    for (size_t i = (gap + 1) & mask; x->at[i] != NULL; i = (i + 1) & mask) {
        size_t home = index_slot(x, x->at[i]->id);
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            x->at[gap] = x->at[i];
            gap = i;
        }
    }
    x->at[gap] = NULL;
    x->n--;
}

void journal_index_fini(struct index *x)
{
    for (size_t i = 0; i < x->cap; i++)
        if (x->at[i] != NULL) {
            hky_message_unref(&x->at[i]->message);
            free(x->at[i]);
        }
    free(x->at);
    *x = (struct index){0};
}

void journal_segment_ordinals(struct segment *s, uint32_t n)
{
    size_t need = ((size_t)n + 7) / 8;

    if (n <= s->n_ordinals)
        return;
    if (need > s->dead_cap) {
        size_t cap = s->dead_cap * 2 < need ? need + 64 : s->dead_cap * 2;
        s->dead = hky_realloc(s->dead, cap);
        memset(s->dead + s->dead_cap, 0, cap - s->dead_cap);
        s->dead_cap = cap;
    }
    s->n_ordinals = n;
}

void journal_segment_mark_dead(struct segment *s, uint32_t ordinal)
{
    HKY_ASSERT(ordinal < s->n_ordinals);
    s->dead[ordinal / 8] |= (uint8_t)(1u << (ordinal % 8));
}

bool journal_segment_is_dead(const struct segment *s, uint32_t ordinal)
{
    return ordinal < s->n_ordinals && (s->dead[ordinal / 8] >> (ordinal % 8) & 1) != 0;
}

void journal_segment_add_evidence(struct segment *holder, const struct segment *other)
{
    if (holder == other)
        return;
    for (size_t i = holder->n_evidence; i-- > 0;)
        if (holder->evidence[i].epoch == other->head.epoch)
            return;
    if (holder->n_evidence == holder->evidence_cap) {
        holder->evidence_cap = holder->evidence_cap == 0 ? 4 : holder->evidence_cap * 2;
        holder->evidence = hky_realloc(holder->evidence, holder->evidence_cap * sizeof *holder->evidence);
    }
    holder->evidence[holder->n_evidence++] = (struct evidence){.epoch = other->head.epoch, .slot = other->slot};
}

uint64_t journal_message_weight(const struct hky_message *m)
{
    return JOURNAL_RECORD_HEADER + m->packed_n + 64 * (uint64_t)m->n_recipients + (m->is_big ? 0 : m->size);
}

struct tracked *journal_track(struct hky_journal *j, struct hky_message *m, struct segment *s, uint32_t ordinal,
                              uint64_t at, uint64_t body_at)
{
    struct tracked *t = hky_alloc(sizeof *t + m->n_recipients * sizeof t->attempts[0]);

    *t = (struct tracked){.id = m->id,
                          .message = m,
                          .slot = s->slot,
                          .ordinal = ordinal,
                          .at8 = (uint32_t)(at / 8),
                          .n_live = m->n_recipients};
    for (uint32_t i = 0; i < m->n_recipients; i++)
        t->attempts[i] = AT_HOME;
    journal_segment_ordinals(s, ordinal + m->n_recipients);
    s->n_live += m->n_recipients;
    s->live_octets += journal_message_weight(m);
    journal_index_put(&j->index, t);
    pthread_mutex_lock(journal_body_lock(j, m->id));
    __atomic_store_n(&m->body_at, body_at, __ATOMIC_RELAXED);
    __atomic_store_n(&m->segment, s->slot + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(journal_body_lock(j, m->id));
    atomic_fetch_add(&j->n_live, m->n_recipients);
    atomic_fetch_add(&j->n_messages, 1);
    return t;
}

void journal_track_attempt(struct hky_journal *j, struct tracked *t, uint32_t index, struct record_at to)
{
    struct record_at *at = &t->attempts[index];

    /* A segment whose record could not be read again may already be gone, and its count with it. */
    if (at->slot != AT_HOME.slot && j->slots[at->slot]->n_newest > 0)
        j->slots[at->slot]->n_newest--;
    if (to.slot != AT_HOME.slot)
        j->slots[to.slot]->n_newest++;
    *at = to;
}

void journal_segment_count_attempt(struct segment *s, uint32_t meta_n)
{
    s->n_attempts++;
    s->attempt_octets += JOURNAL_RECORD_HEADER + FOOT_ENTRY + 2 * JOURNAL_RECORD_ALIGN(meta_n);
}

bool journal_track_finish(struct hky_journal *j, struct tracked *t, uint32_t index, struct segment *where)
{
    struct segment *home = j->slots[t->slot];

    if (index >= t->message->n_recipients || journal_segment_is_dead(home, t->ordinal + index))
        return false;
    journal_segment_mark_dead(home, t->ordinal + index);
    journal_segment_add_evidence(where, home);
    journal_track_attempt(j, t, index, AT_HOME);
    HKY_ASSERT(home->n_live > 0 && t->n_live > 0);
    home->n_live--;
    t->n_live--;
    __atomic_store_n(&t->message->n_live, t->n_live, __ATOMIC_RELAXED);
    atomic_fetch_sub(&j->n_live, 1);
    if (t->n_live > 0)
        return false;
    home->live_octets -= journal_message_weight(t->message);
    return true;
}

void journal_untrack(struct hky_journal *j, struct tracked *t)
{
    journal_index_remove(&j->index, t->id);
    atomic_fetch_sub(&j->n_messages, 1);
    journal_disk_body_drop(j, t->message);
    if (t->message->is_big)
        journal_upkeep_unlink_big(j, t->id);
    hky_message_unref(&t->message);
    free(t);
}

void journal_plan_used(struct hky_journal *j, struct segment *s, struct hky_plan *plan)
{
    struct plan_use *use = hky_idmap_get(&j->plans, plan->hash);

    if (hky_idmap_get(&s->plans, plan->hash) != NULL)
        return;
    if (use == NULL) {
        use = hky_calloc(1, sizeof *use);
        use->plan = hky_plan_ref(plan);
        hky_idmap_put(&j->plans, plan->hash, use);
    }
    use->n_segments++;
    hky_idmap_put(&s->plans, plan->hash, use);
}

void journal_plans_released(struct hky_journal *j, struct segment *s)
{
    size_t at = 0;

    for (struct hky_idmap_entry *e; (e = hky_idmap_next(&s->plans, &at)) != NULL;) {
        struct plan_use *use = e->value;
        if (--use->n_segments == 0) {
            hky_idmap_remove(&j->plans, e->key);
            hky_plan_unref(&use->plan);
            free(use);
        }
    }
    hky_idmap_fini(&s->plans);
    hky_idmap_init(&s->plans);
}

void journal_cap_set(struct hky_journal *j, struct hky_str meta, uint32_t slot)
{
    struct hky_cursor c = {.p = meta.p, .n = meta.n};
    struct hky_str key = hky_cursor_lstr(&c);
    struct cap_value *v = hky_map_get(&j->caps, key);

    if (c.is_bad)
        return;
    if (v == NULL) {
        v = hky_calloc(1, sizeof *v);
        hky_buf_init(&v->meta, META_MAX);
        hky_map_put(&j->caps, key, v);
    }
    hky_buf_clear(&v->meta);
    hky_buf_add_str(&v->meta, meta);
    v->slot = slot;
}
