/*
 * Maintenance: footers of closed segments, spares ahead of need, and giving back what nobody lives in.
 * A segment may hold the only word that something in an older one is finished. Before it goes, that word is committed
 * again as a bitmap of the older segment, and the newest attempts and caps it holds as they are; only then its header
 * is overwritten. Else finished mail would come back.
 */
#include "journal/internal.h"

#include "base/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RENEWED_AT_ONCE = 256 };

void maintainer_poke(struct hky_journal *j)
{
    pthread_mutex_lock(&j->maintain.lock);
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}

void maintainer_close_segment(struct hky_journal *j, struct segment *s)
{
    pthread_mutex_lock(&j->maintain.lock);
    if (j->maintain.n_to_close == j->maintain.to_close_cap) {
        j->maintain.to_close_cap = j->maintain.to_close_cap == 0 ? 16 : j->maintain.to_close_cap * 2;
        j->maintain.to_close = hky_realloc(j->maintain.to_close, j->maintain.to_close_cap * sizeof(struct segment *));
    }
    j->maintain.to_close[j->maintain.n_to_close++] = s;
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}

void maintainer_unlink_big(struct hky_journal *j, uint64_t id)
{
    pthread_mutex_lock(&j->maintain.lock);
    if (j->maintain.n_to_unlink == j->maintain.to_unlink_cap) {
        j->maintain.to_unlink_cap = j->maintain.to_unlink_cap == 0 ? 16 : j->maintain.to_unlink_cap * 2;
        j->maintain.to_unlink = hky_realloc(j->maintain.to_unlink, j->maintain.to_unlink_cap * sizeof(uint64_t));
    }
    j->maintain.to_unlink[j->maintain.n_to_unlink++] = id;
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}

/* --- closing --- */

/* Under index_lock. What the footer may leave out: messages that are finished as a whole (leaving them out says as
 * much), and with them their results, and attempts that are not the newest. Not copies: one says of the original, whose
 * segment may stand for longer, that it is dead. */
static bool foot_needs(struct hky_journal *j, struct segment *s, const struct foot_entry *f, struct hky_idmap *gone)
{
    static char mark;
    struct message_meta m;
    struct tracked *t;

    switch (f->type) {
    case RECORD_ACCEPTED:
        if (!message_meta_parse(hky_str_of(f->meta, f->meta_n), &m))
            return true; /* the next start, too, must know that it is there */
        for (uint32_t i = 0; i < m.n_recipients; i++)
            if (!segment_is_dead(s, f->ordinal + i))
                return true;
        hky_idmap_put(gone, f->key, &mark);
        return false;
    case RECORD_FINISHED:
        return hky_idmap_get(gone, f->key) == NULL; /* one with a notice has the notice's id as its key, and stays */
    case RECORD_ATTEMPT:
        t = index_get(&j->index, f->key);
        if (t == NULL)
            return false;
        for (uint32_t i = 0; i < t->message->n_recipients; i++)
            if (t->attempts[i].slot == s->slot && t->attempts[i].at8 == f->at / 8)
                return true;
        return false;
    default:
        return true;
    }
}

static void foot_compact(struct hky_journal *j, struct segment *s)
{
    struct hky_cursor c = {.p = s->foot.p, .n = s->foot.n};
    struct hky_idmap gone;
    struct hky_buf out;

    hky_buf_init(&out, s->foot.max);
    hky_idmap_init(&gone);
    pthread_mutex_lock(&j->index_lock);
    for (struct foot_entry f; foot_next(&c, &f);)
        if (foot_needs(j, s, &f, &gone))
            hky_buf_add(&out, f.meta - FOOT_ENTRY, FOOT_ENTRY + RECORD_ALIGN(f.meta_n));
    pthread_mutex_unlock(&j->index_lock);
    hky_idmap_fini(&gone);
    hky_buf_fini(&s->foot);
    s->foot = out;
}

static void close_segment(struct hky_journal *j, struct segment *s)
{
    if (!s->is_failed) {
        foot_compact(j, s);
        if (segment_write_footer(j, s) != HKY_OK) {
            s->is_failed = true; /* its records stand; the next start reads them one by one */
            hky_log(j->params.log, HKY_LOG_WARN, "journal", "segment=%u error=no_footer", s->slot);
        }
    }
    hky_buf_fini(&s->foot);
    hky_buf_init(&s->foot, META_MAX * UINT64_C(2));
    pthread_mutex_lock(&j->index_lock);
    s->closed_mono_ms = hky_mono_ms();
    s->is_closed = true;
    pthread_mutex_unlock(&j->index_lock);
}

static void close_queued(struct hky_journal *j)
{
    struct segment *s;

    do {
        pthread_mutex_lock(&j->maintain.lock);
        s = j->maintain.n_to_close > 0 ? j->maintain.to_close[0] : NULL;
        if (s != NULL)
            memmove(j->maintain.to_close, j->maintain.to_close + 1,
                    --j->maintain.n_to_close * sizeof(struct segment *));
        pthread_mutex_unlock(&j->maintain.lock);
        if (s != NULL)
            close_segment(j, s);
    } while (s != NULL);
}

/* --- freeing --- */

/* Half of it or more would only be written again elsewhere. With more newest attempts than a segment holds that would
 * never end: each segment full of them is emptied into the next. It waits until they are overtaken or done, or results
 * need the room. */
static bool is_mostly_newest(const struct segment *s)
{
    return s->n_newest > 0 && s->attempt_octets / s->n_attempts * s->n_newest >= s->octets / 2;
}

/* The oldest nobody lives in, after `last`. Oldest first: then the newer ones have less to say again. */
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
            atomic_load(&it->readers) == 0)
            s = it;
    }
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

void maintainer_submit(struct hky_journal *j, struct entry *e, struct waiter *w)
{
    pthread_mutex_lock(&w->lock);
    w->n_left++;
    pthread_mutex_unlock(&w->lock);
    e->waiter = w;
    e->is_durable = true;
    entry_seal(e);
    entry_submit(j, e);
}

static void renew_evidence(struct hky_journal *j, struct segment *s, struct waiter *w)
{
    for (size_t i = 0; i < s->n_holds; i++) {
        struct entry *dead = entry_new(RECORD_DEAD), *cut = NULL;
        struct segment *other;
        pthread_mutex_lock(&j->index_lock);
        other = segment_by_epoch(j, s->holds[i]);
        if (other != NULL)
            hky_buf_add(&dead->meta, other->dead, (other->n_ordinals + 7) / 8);
        pthread_mutex_unlock(&j->index_lock);
        if (other == NULL) { /* gone before: nothing of it can come back */
            entry_free(j, dead);
            continue;
        }
        if (other->cut_seq != 0 && !other->has_footer) {
            cut = entry_new(RECORD_CUT);
            hky_buf_add_u64(&cut->meta, other->cut_seq);
            cut->key = other->head.epoch;
            cut->about = other;
            maintainer_submit(j, cut, w);
        }
        dead->key = other->head.epoch;
        dead->about = other;
        maintainer_submit(j, dead, w);
    }
}

static struct entry *attempt_copy(struct hky_journal *j, struct segment *s, const struct foot_entry *f)
{
    struct attempt_meta a;
    struct tracked *t;
    struct entry *e = NULL;
    struct place here = {.slot = s->slot, .at8 = (uint32_t)(f->at / 8)};

    if (!attempt_meta_parse(hky_str_of(f->meta, f->meta_n), &a))
        return NULL;
    pthread_mutex_lock(&j->index_lock);
    t = index_get(&j->index, f->key);
    if (t != NULL && a.index < t->message->n_recipients && t->attempts[a.index].slot == here.slot &&
        t->attempts[a.index].at8 == here.at8) {
        struct plan_use *use = hky_idmap_get(&j->plans, a.plan);
        e = entry_new(RECORD_ATTEMPT);
        e->id = e->key = f->key;
        e->index = a.index;
        e->is_copy = true;
        e->from = here;
        hky_buf_add(&e->meta, f->meta, f->meta_n);
        entry_add_plan(e, use != NULL ? use->plan : NULL);
    }
    pthread_mutex_unlock(&j->index_lock);
    return e;
}

/* A portion at a time: the committer looks for a newer one of each copy among all that is not synced yet, and mail
 * waits for it meanwhile. */
static enum hky_err renew_attempts(struct hky_journal *j, struct segment *s, struct waiter *w)
{
    struct scan_report scan;
    struct hky_buf foot;
    struct hky_cursor c;
    enum hky_err err;
    unsigned n = 0;

    hky_buf_init(&foot, META_MAX * UINT64_C(2));
    err = segment_load(j, s, 0, &foot, &scan);
    c = (struct hky_cursor){.p = foot.p, .n = foot.n};
    for (struct foot_entry f; err == HKY_OK && foot_next(&c, &f);) {
        struct entry *e = f.type == RECORD_ATTEMPT ? attempt_copy(j, s, &f) : NULL;
        if (e == NULL)
            continue;
        maintainer_submit(j, e, w);
        if (++n % RENEWED_AT_ONCE == 0)
            err = waiter_wait(w);
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
        e = entry_new(RECORD_CAP);
        e->key = hky_hash64(c->key, c->n, 0);
        e->is_copy = true;
        e->from.slot = s->slot;
        hky_buf_add(&e->meta, v->meta.p, v->meta.n);
        list_add(&l, e);
    }
    pthread_mutex_unlock(&j->index_lock);
    for (struct entry *e; (e = list_take(&l)) != NULL;)
        maintainer_submit(j, e, w);
}

static bool free_segment(struct hky_journal *j, struct segment *s)
{
    struct waiter w;
    enum hky_err err;

    waiter_init(&w);
    renew_evidence(j, s, &w);
    renew_caps(j, s, &w);
    err = renew_attempts(j, s, &w);
    if (waiter_wait(&w) != HKY_OK)
        err = HKY_E_IO;
    waiter_fini(&w);
    if (err != HKY_OK)
        return false;
    pthread_mutex_lock(&j->index_lock);
    plans_released(j, s);
    pthread_mutex_unlock(&j->index_lock);
    return segment_retire(j, s) == HKY_OK;
}

static void free_all(struct hky_journal *j)
{
    uint64_t last = 0;

    for (struct segment *s; (s = oldest_done(j, last)) != NULL;) {
        last = s->head.epoch;
        free_segment(j, s);
    }
}

/* --- the round --- */

static void unlink_bigs(struct hky_journal *j)
{
    for (;;) {
        uint64_t id = 0;
        bool has;
        pthread_mutex_lock(&j->maintain.lock);
        has = j->maintain.n_to_unlink > 0;
        if (has)
            id = j->maintain.to_unlink[--j->maintain.n_to_unlink];
        pthread_mutex_unlock(&j->maintain.lock);
        if (!has)
            return;
        big_unlink(j, id);
    }
}

static void watch_space(struct hky_journal *j)
{
    if (atomic_load(&j->is_low) && spool_has_room(j, HKY_BIG_BODY)) {
        atomic_store(&j->is_low, false);
        hky_log(j->params.log, HKY_LOG_INFO, "spool", "state=room_for_large");
    }
    pthread_mutex_lock(&j->index_lock);
    if (atomic_load(&j->is_full) && j->n_spare > RESERVED_SPARES) {
        atomic_store(&j->is_full, false);
        hky_log(j->params.log, HKY_LOG_INFO, "spool", "state=room segments=%zu spare=%zu", j->n_segments, j->n_spare);
    }
    pthread_mutex_unlock(&j->index_lock);
}

void *maintainer_run(void *journal)
{
    struct hky_journal *j = journal;
    bool is_stopping = false;

    while (!is_stopping) {
        struct timespec until;
        close_queued(j);
        unlink_bigs(j);
        free_all(j);
        while (segment_prepare(j))
            continue;
        watch_space(j);
        if (cold_copy_one(j))
            maintainer_poke(j);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_mutex_lock(&j->maintain.lock);
        if (!j->maintain.is_poked && !j->maintain.is_stopping)
            pthread_cond_timedwait(&j->maintain.cond, &j->maintain.lock, &until);
        j->maintain.is_poked = false;
        is_stopping = j->maintain.is_stopping;
        pthread_mutex_unlock(&j->maintain.lock);
    }
    return NULL;
}

void maintainer_finish(struct hky_journal *j)
{
    cold_close(j);
    close_queued(j);
    unlink_bigs(j);
    if (j->hot != NULL && j->hot->synced_seq + 1 == j->hot->next_seq)
        close_segment(j, j->hot);
}
