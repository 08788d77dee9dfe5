/*
 * Leftovers: what still lives in a segment that is mostly empty is copied into a cold segment, so that a message that
 * waits for days does not keep 64 MB. A copy carries every recipient's newest state; it is durable before the index
 * points to it, and it is evidence that the old copy is dead (see free.c). A result that came after the copy has a
 * higher seq. All of this runs on the maintenance thread, which also frees, so no segment is recycled while it is read
 * here.
 */
#include "journal/internal.h"

#include "base/hash.h"

#include <stdlib.h>

enum { BATCH_OCTETS = 1 << 20, COLD_AFTER_MS = 60000 };

/* One message that is being moved. */
struct move {
    struct move *next;
    struct hky_message *message; /* counted */
    uint64_t at;                 /* in the cold segment */
    uint32_t ordinal;
    struct record_at *places; /* where each state was taken from */
    bool *was_live;
};

struct mover {
    struct hky_journal *j;
    struct segment *from;
    struct move *moves; /* written, not yet synced */
    uint64_t octets;
};

static void move_free(struct move *m)
{
    hky_message_unref(&m->message);
    free(m->places);
    free(m->was_live);
    free(m);
}

/* The index's entry for the message of this footer entry; NULL when the message does not live in this segment. */
static struct move *take_move(struct mover *v, const struct foot_entry *f)
{
    struct hky_journal *j = v->j;
    struct move *m = NULL;
    struct tracked *t;

    pthread_mutex_lock(&j->index_lock);
    t = journal_index_get(&j->index, f->key);
    if (t != NULL && t->slot == v->from->slot && t->at8 == f->at / 8) {
        uint32_t n = t->message->n_recipients;
        m = hky_calloc(1, sizeof *m);
        m->message = hky_message_ref(t->message);
        m->places = hky_calloc(n, sizeof *m->places);
        m->was_live = hky_calloc(n, sizeof *m->was_live);
        memcpy(m->places, t->attempts, n * sizeof *m->places);
        for (uint32_t i = 0; i < n; i++)
            m->was_live[i] = !journal_segment_is_dead(v->from, t->ordinal + i);
    }
    pthread_mutex_unlock(&j->index_lock);
    return m;
}

static bool read_record(struct hky_journal *j, uint32_t slot, uint64_t at, struct journal_record *rec, char **out)
{
    struct segment *s = j->slots[slot];
    char head[JOURNAL_RECORD_HEADER], *p;
    size_t n;

    *out = NULL;
    if (journal_segment_read(s, at, head, sizeof head) != HKY_OK ||
        !journal_record_decode(head, s->octets - at, s->head.epoch, s->head.salt, rec))
        return false;
    n = (size_t)rec->body_n + rec->meta_n;
    p = hky_alloc(n + 8);
    if (journal_segment_read(s, at + JOURNAL_RECORD_HEADER, p, n) != HKY_OK ||
        hky_crc32c(0, p, rec->body_n) != rec->body_crc ||
        hky_crc32c(0, p + rec->body_n, rec->meta_n) != rec->meta_crc) {
        free(p);
        return false;
    }
    *out = p;
    return true;
}

static void add_rcpt(struct hky_buf *b, const struct rcpt_meta *r)
{
    hky_buf_add_u64(b, r->state_seq);
    hky_buf_add_u64(b, r->plan);
    hky_buf_add_u8(b, r->final);
    hky_buf_add_lstr(b, r->state);
}

static bool add_newest(struct mover *v, struct entry *e, const struct move *m, uint32_t i, struct rcpt_meta *meta)
{
    struct attempt_meta a;
    struct journal_record rec;
    char *p = NULL;
    bool ok = true;

    if (!m->was_live[i] && meta->final == 0)
        meta->final = HKY_RCPT_DELIVERED; /* only that it ended is kept, not how */
    if (m->was_live[i] && m->places[i].slot != AT_HOME.slot) {
        ok = read_record(v->j, m->places[i].slot, (uint64_t)m->places[i].at8 * 8, &rec, &p) &&
             rec.type == JOURNAL_RECORD_ATTEMPT &&
             journal_attempt_meta_parse(hky_str_of(p + rec.body_n, rec.meta_n), &a);
        if (ok)
            *meta = (struct rcpt_meta){
                .state_seq = rec.seq,
                .plan = a.plan,
                .final = hky_recipient_state_is_final((enum hky_recipient_state)a.doing) ? a.doing : 0,
                .state = a.state};
    }
    if (ok) {
        struct plan_use *use;
        add_rcpt(&e->meta, meta);
        pthread_mutex_lock(&v->j->index_lock);
        use = hky_idmap_get(&v->j->plans, meta->plan);
        journal_entry_add_plan(e, use != NULL ? use->plan : NULL);
        pthread_mutex_unlock(&v->j->index_lock);
    }
    free(p);
    return ok;
}

/* Makes the `moved` record of a message, with its body and plans by reference. NULL: a part of it cannot be read, or it
 * is, with all its states, larger than a segment. */
static struct entry *moved_entry(struct mover *v, const struct foot_entry *f, const struct move *m)
{
    struct finished_meta fin;
    struct message_meta meta;
    struct hky_str said;
    struct journal_record rec;
    struct entry *e;
    char *p;
    bool ok;

    if (!read_record(v->j, v->from->slot, f->at, &rec, &p))
        return NULL;
    said = hky_str_of(p + rec.body_n, rec.meta_n);
    if (rec.type == JOURNAL_RECORD_FINISHED)
        said = journal_finished_meta_parse(said, rec.flags, &fin) ? fin.notice : HKY_STR("");
    ok = journal_message_meta_parse(said, &meta) && meta.n_recipients == m->message->n_recipients;
    e = journal_entry_new(JOURNAL_RECORD_MOVED);
    e->key = f->key;
    if (ok) {
        journal_message_meta_begin(&e->meta, meta.generation + 1, meta.n_recipients, meta.id);
        hky_buf_add_lstr(&e->meta, meta.message);
    }
    for (uint32_t i = 0; ok && i < meta.n_recipients; i++) {
        struct rcpt_meta r;
        ok = journal_rcpt_meta_next(&meta.rcpts, &r);
        if (r.state_seq == 0)
            r.state_seq = rec.seq;
        ok = ok && add_newest(v, e, m, i, &r);
    }
    e->body = hky_body_new(p, rec.body_n, rec.body_n);
    if (!ok || e->meta.is_over || !journal_entry_fits(v->j, e)) {
        journal_entry_free(v->j, e);
        return NULL;
    }
    journal_entry_seal(e);
    return e;
}

static enum hky_err write_record(struct hky_journal *j, struct segment *s, const struct entry *e)
{
    struct journal_record r = journal_entry_record(e, s);
    char head[JOURNAL_RECORD_HEADER];
    struct iovec iov[3] = {{.iov_base = head, .iov_len = JOURNAL_RECORD_HEADER}};
    int n = 1;
    enum hky_err err;

    journal_record_encode(&r, s->head.salt, head);
    if (r.body_n > 0)
        iov[n++] = (struct iovec){.iov_base = e->body->p, .iov_len = r.body_n};
    iov[n++] =
        (struct iovec){.iov_base = e->meta.p, .iov_len = journal_record_octets(&r) - JOURNAL_RECORD_HEADER - r.body_n};
    err = journal_segment_write(j, s, iov, n, s->at);
    if (err != HKY_OK)
        return err;
    journal_foot_add(&s->foot, &r, s->at, e->meta.p);
    s->at += journal_record_octets(&r);
    s->next_seq++;
    return HKY_OK;
}

static enum hky_err write_plans(struct hky_journal *j, struct segment *s, const struct entry *e)
{
    enum hky_err err = HKY_OK;

    for (uint32_t i = 0; i < e->n_plans && err == HKY_OK; i++) {
        struct hky_plan *p = e->plans[i];
        struct entry *plan;
        if (hky_idmap_get(&s->plans, p->hash) != NULL)
            continue;
        pthread_mutex_lock(&j->index_lock);
        journal_plan_used(j, s, p);
        pthread_mutex_unlock(&j->index_lock);
        plan = journal_entry_new(JOURNAL_RECORD_PLAN);
        plan->key = p->hash;
        hky_buf_add(&plan->meta, p->encoded, p->encoded_n);
        journal_entry_seal(plan);
        err = write_record(j, s, plan);
        journal_entry_free(j, plan);
    }
    return err;
}

/* Under index_lock: the message lives in `to` from now on. True: a recipient was finished meanwhile, and only the
 * segment of the old copy has evidence of that. */
static bool relocate(struct mover *v, struct segment *to, const struct move *m)
{
    struct hky_journal *j = v->j;
    struct tracked *t = journal_index_get(&j->index, m->message->id);
    uint32_t n = m->message->n_recipients, n_live = 0, old_ordinal;
    bool has_ended = false;
    uint64_t w = journal_message_weight(m->message);

    journal_segment_ordinals(to, m->ordinal + n);
    journal_segment_add_evidence(to, v->from);
    if (t == NULL || t->slot != v->from->slot) {
        for (uint32_t i = 0; i < n; i++)
            journal_segment_mark_dead(to, m->ordinal + i);
        return true;
    }
    old_ordinal = t->ordinal;
    for (uint32_t i = 0; i < n; i++) {
        if (journal_segment_is_dead(v->from, old_ordinal + i)) {
            journal_segment_mark_dead(to, m->ordinal + i);
            has_ended = has_ended || m->was_live[i];
            continue;
        }
        n_live++;
        journal_segment_mark_dead(v->from, old_ordinal + i);
        if (t->attempts[i].slot == m->places[i].slot && t->attempts[i].at8 == m->places[i].at8)
            journal_track_attempt(j, t, i, AT_HOME);
    }
    v->from->n_live -= n_live;
    v->from->live_octets -= w;
    to->n_live += n_live;
    to->live_octets += w;
    t->slot = to->slot;
    t->ordinal = m->ordinal;
    t->at8 = (uint32_t)(m->at / 8);
    pthread_mutex_lock(journal_body_lock(j, t->id));
    __atomic_store_n(&t->message->body_at, m->at + JOURNAL_RECORD_HEADER, __ATOMIC_RELAXED);
    __atomic_store_n(&t->message->segment, to->slot + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(journal_body_lock(j, t->id));
    return has_ended;
}

static void submit_about(struct hky_journal *j, enum journal_record_type type, struct segment *s)
{
    struct entry *e = journal_entry_new(type);
    struct waiter w;

    e->key = s->head.epoch;
    e->about = s;
    if (type == JOURNAL_RECORD_CUT) {
        hky_buf_add_u64(&e->meta, s->cut_seq);
    } else {
        pthread_mutex_lock(&j->index_lock);
        hky_buf_add(&e->meta, s->dead, (s->n_ordinals + 7) / 8);
        pthread_mutex_unlock(&j->index_lock);
    }
    journal_waiter_init(&w);
    journal_entry_submit_for(j, e, &w);
    journal_waiter_wait(&w);
    journal_waiter_fini(&w);
}

static void drop_moves(struct mover *v)
{
    for (struct move *m; (m = v->moves) != NULL;) {
        v->moves = m->next;
        move_free(m);
    }
    v->octets = 0;
}

/* The record that says where the segment ends may fail to reach the disk, too. So the first copy is made unreadable in
 * place: a restart may read it from the page cache although the disk never got it. */
static void overwrite_first_copy(struct mover *v, struct segment *s)
{
    static const char none[JOURNAL_RECORD_HEADER];
    struct iovec iov = {.iov_base = (void *)(uintptr_t)none, .iov_len = sizeof none};
    uint64_t first = UINT64_MAX;

    for (const struct move *m = v->moves; m != NULL; m = m->next)
        first = m->at < first ? m->at : first;
    if (first != UINT64_MAX)
        (void)journal_segment_write(v->j, s, &iov, 1, first);
}

/* Copies that may not be durable must not come back: the segment is made to end before them. */
static void fail_cold(struct mover *v)
{
    struct segment *s = v->j->maintain.cold;

    atomic_fetch_add(&v->j->n_write_errors, 1);
    overwrite_first_copy(v, s);
    drop_moves(v);
    v->j->maintain.cold = NULL;
    s->is_failed = true;
    s->cut_seq = s->synced_seq + 1;
    submit_about(v->j, JOURNAL_RECORD_CUT, s);
    journal_upkeep_close_segment(v->j, s);
}

static bool settle_moves(struct mover *v)
{
    struct segment *s = v->j->maintain.cold;
    bool has_ended = false;

    if (v->moves == NULL)
        return true;
    if (journal_segment_sync(v->j, s) != HKY_OK) {
        fail_cold(v);
        return false;
    }
    s->synced_seq = s->next_seq - 1;
    pthread_mutex_lock(&v->j->index_lock);
    for (struct move *m = v->moves; m != NULL; m = m->next)
        has_ended = relocate(v, s, m) || has_ended;
    pthread_mutex_unlock(&v->j->index_lock);
    drop_moves(v);
    if (has_ended)
        submit_about(v->j, JOURNAL_RECORD_DEAD, s);
    return true;
}

static bool have_room(struct mover *v, const struct entry *e)
{
    struct hky_journal *j = v->j;
    struct segment *s = j->maintain.cold;

    if (s != NULL && journal_entry_need(e) <= journal_segment_room(s))
        return true;
    if (s != NULL) {
        if (!settle_moves(v))
            return false;
        j->maintain.cold = NULL;
        journal_upkeep_close_segment(j, s);
    }
    j->maintain.cold = journal_segment_take(j, SEGMENT_COLD, 1, journal_entry_need(e), false);
    return j->maintain.cold != NULL && journal_entry_need(e) <= journal_segment_room(j->maintain.cold);
}

/* false: the disk does not take it now. */
static bool move_one(struct mover *v, const struct foot_entry *f)
{
    struct move *m = take_move(v, f);
    struct entry *e;
    bool ok;

    if (m == NULL)
        return true;
    e = moved_entry(v, f, m);
    if (e == NULL) { /* the message stays where it is, and its segment with it */
        v->from->is_stuck = true;
        move_free(m);
        return true;
    }
    ok = have_room(v, e);
    if (ok) {
        struct segment *s = v->j->maintain.cold;
        ok = write_plans(v->j, s, e) == HKY_OK;
        m->at = s->at;
        m->ordinal = s->n_written;
        ok = ok && write_record(v->j, s, e) == HKY_OK;
        if (!ok)
            fail_cold(v);
    }
    if (ok) {
        v->j->maintain.cold->n_written += m->message->n_recipients;
        v->octets += e->body->n + e->meta.n;
        m->next = v->moves;
        v->moves = m;
    } else {
        move_free(m);
    }
    journal_entry_free(v->j, e);
    return ok && (v->octets < BATCH_OCTETS || settle_moves(v));
}

static struct segment *pick(struct hky_journal *j)
{
    int64_t rest = j->params.cold_after_ms != 0 ? j->params.cold_after_ms : COLD_AFTER_MS, now = hky_mono_ms();
    struct segment *s = NULL;

    pthread_mutex_lock(&j->index_lock);
    for (uint32_t k = 0; k < j->n_slots && s == NULL; k++) {
        struct segment *it = j->slots[k];
        if (it != NULL && it->fd >= 0 && it->is_closed && !it->is_stuck && it->head.state != SEGMENT_FREE &&
            it->n_live > 0 && it->live_octets < it->octets / 4 && now - it->closed_mono_ms >= rest)
            s = it;
    }
    pthread_mutex_unlock(&j->index_lock);
    return s;
}

bool journal_cold_copy_one(struct hky_journal *j)
{
    struct mover v = {.j = j, .from = pick(j)};
    struct scan_report scan;
    struct hky_buf foot;
    struct hky_cursor c;
    bool ok;

    if (v.from == NULL)
        return false;
    hky_buf_init(&foot, v.from->octets);
    ok = journal_segment_load(j, v.from, 0, &foot, &scan) == HKY_OK;
    c = (struct hky_cursor){.p = foot.p, .n = foot.n};
    for (struct foot_entry f; ok && journal_foot_next(&c, &f);)
        if (f.type == JOURNAL_RECORD_ACCEPTED || f.type == JOURNAL_RECORD_MOVED ||
            (f.type == JOURNAL_RECORD_FINISHED && (f.flags & FLAG_NOTICE) != 0))
            ok = move_one(&v, &f);
    ok = settle_moves(&v) && ok;
    hky_buf_fini(&foot);
    if (ok && v.from->n_live > 0)
        v.from->is_stuck = true;
    return ok;
}

void journal_cold_close(struct hky_journal *j)
{
    struct segment *s = j->maintain.cold;

    j->maintain.cold = NULL;
    if (s != NULL)
        journal_upkeep_close_segment(j, s);
}
