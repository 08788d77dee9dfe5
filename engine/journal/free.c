/*
 * Freeing segments in which no message lives. A segment may hold the only record that something in an older one is
 * finished. Before it is freed, this is committed again as a bitmap of the older segment, and the newest attempts and
 * caps that it holds are committed again as they are; only then its header is overwritten. Else finished mail would
 * come back.
 */
#include "journal/internal.h"

#include "base/hash.h"

enum { RENEWED_AT_ONCE = 256 };

/* Freeing this segment would write half of it or more again elsewhere. With more newest attempts than one segment
 * holds, that would never end: each full segment would be emptied into the next. So it waits until newer attempts or
 * results have replaced them, or until results need the room. */
static bool is_mostly_newest(const struct segment *s)
{
    return s->n_newest > 0 && s->attempt_octets / s->n_attempts * s->n_newest >= s->octets / 2;
}

/* The oldest segment after `last` in which nobody lives. The oldest is freed first: then newer ones have less evidence
 * to write again. */
static struct segment *oldest_done(struct hky_journal *j, uint64_t last)
{
    struct segment *s = NULL;
    bool is_short;

    pthread_mutex_lock(&j->index_lock);
    is_short = atomic_load(&j->is_full) && j->n_spare < RESERVED_SPARES;
    for (uint32_t k = 0; k < j->n_slots; k++) {
        struct segment *it = j->slots[k];
        if (it != NULL && it->fd >= 0 && it->is_closed && it->head.state != SEGMENT_FREE && it->head.epoch > last &&
            (s == NULL || it->head.epoch < s->head.epoch) && it->n_live == 0 && (is_short || !is_mostly_newest(it)) &&
            atomic_fetch_add(&it->readers, 0) == 0) /* a change of it, so that whoever reads later sees who has ended */
            s = it;
    }
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

static void renew_evidence(struct hky_journal *j, struct segment *s, struct waiter *w)
{
    for (size_t i = 0; i < s->n_evidence; i++) {
        struct entry *dead = journal_entry_new(JOURNAL_RECORD_DEAD), *cut = NULL;
        struct segment *other;
        pthread_mutex_lock(&j->index_lock);
        other = journal_segment_by_epoch(j, s->evidence[i]);
        if (other != NULL)
            hky_buf_add(&dead->meta, other->dead, (other->n_ordinals + 7) / 8);
        pthread_mutex_unlock(&j->index_lock);
        if (other == NULL) { /* already freed: nothing in it can come back */
            journal_entry_free(j, dead);
            continue;
        }
        if (other->cut_seq != 0 && !other->has_footer) {
            cut = journal_entry_new(JOURNAL_RECORD_CUT);
            hky_buf_add_u64(&cut->meta, other->cut_seq);
            cut->key = other->head.epoch;
            cut->about = other;
            journal_entry_submit_for(j, cut, w);
        }
        dead->key = other->head.epoch;
        dead->about = other;
        journal_entry_submit_for(j, dead, w);
    }
}

static struct entry *attempt_copy(struct hky_journal *j, struct segment *s, const struct foot_entry *f)
{
    struct attempt_meta a;
    struct tracked *t;
    struct entry *e = NULL;
    struct record_at here = {.slot = s->slot, .at8 = (uint32_t)(f->at / 8)};

    if (!journal_attempt_meta_parse(hky_str_of(f->meta, f->meta_n), &a))
        return NULL;
    pthread_mutex_lock(&j->index_lock);
    t = journal_index_get(&j->index, f->key);
    if (t != NULL && a.index < t->message->n_recipients && t->attempts[a.index].slot == here.slot &&
        t->attempts[a.index].at8 == here.at8) {
        struct plan_use *use = hky_idmap_get(&j->plans, a.plan);
        e = journal_entry_new(JOURNAL_RECORD_ATTEMPT);
        e->id = e->key = f->key;
        e->index = a.index;
        e->is_copy = true;
        e->from = here;
        hky_buf_add(&e->meta, f->meta, f->meta_n);
        journal_entry_add_plan(e, use != NULL ? use->plan : NULL);
    }
    pthread_mutex_unlock(&j->index_lock);
    return e;
}

/* Copies a portion at a time: the committer compares each copy with everything that is not synced yet, and mail waits
 * meanwhile. */
static enum hky_err renew_attempts(struct hky_journal *j, struct segment *s, struct waiter *w)
{
    struct scan_report scan;
    struct hky_buf foot;
    struct hky_cursor c;
    enum hky_err err;
    unsigned n = 0;

    hky_buf_init(&foot, s->octets);
    err = journal_segment_load(j, s, 0, &foot, &scan);
    c = (struct hky_cursor){.p = foot.p, .n = foot.n};
    for (struct foot_entry f; err == HKY_OK && journal_foot_next(&c, &f);) {
        struct entry *e = f.type == JOURNAL_RECORD_ATTEMPT ? attempt_copy(j, s, &f) : NULL;
        if (e == NULL)
            continue;
        journal_entry_submit_for(j, e, w);
        if (++n % RENEWED_AT_ONCE == 0)
            err = journal_waiter_wait(w);
    }
    hky_buf_fini(&foot);
    return err;
}

static void renew_caps(struct hky_journal *j, struct segment *s, struct waiter *w)
{
    struct entry_list l = {0};
    size_t at = 0;

    pthread_mutex_lock(&j->index_lock);
    for (struct hky_map_entry *c; (c = hky_map_next(&j->caps, &at)) != NULL;) {
        struct cap_value *v = c->value;
        struct entry *e;
        if (v->slot != s->slot)
            continue;
        e = journal_entry_new(JOURNAL_RECORD_CAP);
        e->key = hky_hash64(c->key, c->n, 0);
        e->is_copy = true;
        e->from.slot = s->slot;
        hky_buf_add(&e->meta, v->meta.p, v->meta.n);
        journal_list_add(&l, e);
    }
    pthread_mutex_unlock(&j->index_lock);
    for (struct entry *e; (e = journal_list_take(&l)) != NULL;)
        journal_entry_submit_for(j, e, w);
}

static bool free_segment(struct hky_journal *j, struct segment *s)
{
    struct waiter w;
    enum hky_err err;

    journal_waiter_init(&w);
    renew_evidence(j, s, &w);
    renew_caps(j, s, &w);
    err = renew_attempts(j, s, &w);
    if (journal_waiter_wait(&w) != HKY_OK)
        err = HKY_E_IO;
    journal_waiter_fini(&w);
    if (err != HKY_OK)
        return false;
    pthread_mutex_lock(&j->index_lock);
    journal_plans_released(j, s);
    pthread_mutex_unlock(&j->index_lock);
    return journal_segment_retire(j, s) == HKY_OK;
}

void journal_segment_free_done(struct hky_journal *j)
{
    uint64_t last = 0;

    for (struct segment *s; (s = oldest_done(j, last)) != NULL;) {
        last = s->head.epoch;
        free_segment(j, s);
    }
}
