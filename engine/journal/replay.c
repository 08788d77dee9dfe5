/*
 * Replay reads the footers of closed segments and the records of the others, then combines them. The order of segments
 * does not matter: of a message's copies the one with the highest generation counts, of a recipient's states the one
 * with the highest seq, and a finished recipient stays finished.
 */
#include "journal/internal.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct loaded {
    struct segment *s;
    struct hky_buf foot;
    struct scan_report scan;
    bool has_entries;
};

/* A recipient's newest result. */
struct newest {
    uint64_t seq;
    struct hky_str state;
    struct record_at place;
    uint8_t doing, final;
};

struct replayed {
    struct segment *s;
    uint64_t at;
    uint32_t ordinal;
    struct message_meta meta;
    struct newest *newest; /* NULL: no results */
};

struct replay {
    struct hky_journal *j;
    const struct hky_journal_replay *cb;
    struct hky_journal_report *report;
    bool was_clean;
    struct loaded *loaded; /* by epoch, oldest first */
    size_t n, cap;
    struct hky_idmap messages; /* id -> struct replayed */
    struct replayed *pool;
    size_t n_pool, pool_cap;
};

enum {
    LIVE_OCTETS = 512, /* about what a message with one recipient takes */
    MALLOC_HEAD = 16,
};

/* --- finding the files --- */

static void count_damage(struct replay *r)
{
    r->report->damaged_records++;
    atomic_fetch_add(&r->j->n_damaged, 1);
}

/* The checksum is right, so a newer engine may understand this file: it is not overwritten. */
static void keep_unread(struct replay *r, struct segment *s, uint64_t at, const char *why)
{
    count_damage(r);
    s->is_damaged = s->is_evidence = true;
    hky_log(r->j->params.log, HKY_LOG_ERROR, "damaged",
            "segment=%u at=%llu why=\"%s\": the segment is moved to damaged/ when the mail in it is done", s->slot,
            (unsigned long long)at, why);
}

static void set_aside(struct replay *r, const char *name, uint32_t slot, const char *why)
{
    struct hky_journal *j = r->j;
    char to[32];

    count_damage(r);
    if (journal_spool_set_aside(j, j->journal_fd, name, to)) {
        hky_log(j->params.log, HKY_LOG_ERROR, "damaged", "file=damaged/%s why=%s", to, why);
        return;
    }
    hky_log(j->params.log, HKY_LOG_ERROR, "damaged", "file=journal/%s why=%s error=cannot_move", name, why);
    j->slots[slot] =
        hky_calloc(1, sizeof *j->slots[slot]); /* the file may still be there: its number is not used again */
    j->slots[slot]->slot = slot;
    j->slots[slot]->fd = FD_RESERVED;
    if (slot >= j->n_slots)
        j->n_slots = slot + 1;
}

static enum hky_err found_segment(struct replay *r, const char *name, uint32_t slot, struct hky_error *e)
{
    struct hky_journal *j = r->j;
    char header[SEGMENT_HEADER];
    struct segment_head head;
    struct segment *s;
    struct stat st;
    enum hky_err err;
    int fd = j->io.openat(j->io.ctx, j->journal_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot open %.120s/journal/%s", j->dir, name);
    err = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, header, sizeof header, 0) == SEGMENT_HEADER
              ? journal_segment_head_decode(header, &head)
              : HKY_E_SYNTAX;
    if (err == HKY_E_STATE) {
        close(fd);
        return hky_error_set(
            e, HKY_E_STATE,
            "%.120s/journal/%s has format %u, this engine reads %u and %u: start the version of hikyaku that wrote it",
            j->dir, name, head.version, FORMAT_VERSION - 1, FORMAT_VERSION);
    }
    if (err != HKY_OK || (uint64_t)st.st_size < head.octets || head.number != slot) {
        close(fd);
        set_aside(r, name, slot, "header");
        return HKY_OK;
    }
    s = journal_segment_new(j, slot, fd, &head);
    if (head.octets > atomic_load(&j->octets_next) && head.octets <= j->params.segment_octets)
        atomic_store(&j->octets_next, head.octets); /* what grew under load stays large */
    if (head.epoch >> 32 >= j->next_epoch)
        j->next_epoch = j->epoch_limit = (head.epoch >> 32) + 1;
    if (head.state == SEGMENT_FREE) {
        journal_segment_keep_spare(j, s);
        return HKY_OK;
    }
    if (head.state == SEGMENT_COLD)
        j->n_cold++;
    if (r->n == r->cap) {
        r->cap = r->cap == 0 ? 64 : r->cap * 2;
        r->loaded = hky_realloc(r->loaded, r->cap * sizeof *r->loaded);
    }
    r->loaded[r->n] = (struct loaded){.s = s};
    hky_buf_init(&r->loaded[r->n++].foot, s->octets);
    return HKY_OK;
}

static int by_epoch(const void *a, const void *b)
{
    uint64_t x = ((const struct loaded *)a)->s->head.epoch, y = ((const struct loaded *)b)->s->head.epoch;

    return x < y ? -1 : x > y;
}

static enum hky_err find_segments(struct replay *r, struct hky_error *e)
{
    struct hky_journal *j = r->j;
    int fd = openat(j->journal_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    enum hky_err err = HKY_OK;

    if (dir == NULL)
        return hky_error_sys(e, HKY_E_IO, errno, "cannot list %.150s/journal", j->dir);
    for (struct dirent *d; err == HKY_OK && (d = readdir(dir)) != NULL;) {
        char canonical[32];
        unsigned slot;
        if (strlen(d->d_name) > 4 && strcmp(d->d_name + strlen(d->d_name) - 4, ".new") == 0)
            j->io.unlinkat(j->io.ctx, j->journal_fd, d->d_name, 0);
        if (sscanf(d->d_name, "seg-%5u", &slot) != 1 || slot >= SLOTS_MAX)
            continue;
        journal_segment_name(slot, canonical);
        if (strcmp(d->d_name, canonical) == 0)
            err = found_segment(r, d->d_name, slot, e);
    }
    closedir(dir);
    journal_segment_drop_misfits(j);
    if (r->n > 0)
        qsort(r->loaded, r->n, sizeof *r->loaded, by_epoch);
    return err;
}

/* --- loading, newest first: a newer segment proves what was durable in an older one --- */

static struct segment *by_key(struct replay *r, uint64_t epoch)
{
    for (size_t lo = 0, hi = r->n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        uint64_t at = r->loaded[mid].s->head.epoch;
        if (at == epoch)
            return r->loaded[mid].s;
        if (at < epoch)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static void replay_cuts(struct replay *r, struct loaded *l)
{
    struct hky_cursor c = {.p = l->foot.p, .n = l->foot.n};

    for (struct foot_entry f; journal_foot_next(&c, &f);) {
        struct hky_cursor meta = {.p = f.meta, .n = f.meta_n};
        struct segment *other;
        uint64_t from;
        l->has_entries = true;
        if ((f.type != JOURNAL_RECORD_CUT && f.type != JOURNAL_RECORD_VOID) || (other = by_key(r, f.key)) == NULL)
            continue;
        from = hky_cursor_u64(&meta);
        if (other->cut_seq == 0 || from < other->cut_seq)
            other->cut_seq = from;
        if (f.type == JOURNAL_RECORD_VOID)
            other->is_failed = true;
        journal_segment_add_evidence(l->s, other);
    }
}

/* A segment was durable to its end before the next one got a record. Returns its last seq by that proof; 0: the next
 * one is gone. */
static uint64_t floor_of(const struct segment *s, const struct segment *newer)
{
    bool follows = newer != NULL && (newer->head.version < 2 || newer->head.previous == s->head.epoch);

    return follows ? newer->head.first_seq - 1 : 0;
}

/* A copy names records by their seq, also when their segment is gone: new records must get higher numbers. */
static void pass_seqs(struct replay *r, const struct loaded *l)
{
    struct hky_cursor c = {.p = l->foot.p, .n = l->foot.n};

    for (struct foot_entry f; journal_foot_next(&c, &f);) {
        struct message_meta m;
        struct rcpt_meta rcpt;
        if (f.type != JOURNAL_RECORD_MOVED || !journal_message_meta_parse(hky_str_of(f.meta, f.meta_n), &m))
            continue;
        for (uint32_t i = 0; i < m.n_recipients && journal_rcpt_meta_next(&m.rcpts, &rcpt); i++)
            if (rcpt.state_seq >= r->j->next_seq && rcpt.state_seq < SEQ_MAX)
                r->j->next_seq = rcpt.state_seq + 1;
    }
}

static enum hky_err load_all(struct replay *r, struct hky_error *e)
{
    const struct segment *newer = NULL; /* that has records, or has a newer one that has */

    for (int cold = 0; cold < 2; cold++)
        for (size_t i = r->n; i-- > 0;) {
            struct loaded *l = &r->loaded[i];
            enum hky_err err;
            if ((l->s->head.state == SEGMENT_COLD) != (cold == 1))
                continue;
            err = journal_segment_load(r->j, l->s, cold == 1 ? 0 : floor_of(l->s, newer), &l->foot, &l->scan);
            if (err != HKY_OK)
                return hky_error_sys(e, err, errno, "cannot read %.120s/journal/seg-%05u", r->j->dir, l->s->slot);
            r->report->damaged_records += l->scan.damaged;
            atomic_fetch_add(&r->j->n_damaged, l->scan.damaged);
            r->report->torn_tail_octets += l->scan.torn_octets;
            r->report->octets_read += l->s->has_footer ? l->foot.n : l->s->octets;
            replay_cuts(r, l);
            if (cold == 1) {
                pass_seqs(r, l);
            } else {
                if (l->has_entries || newer != NULL)
                    newer = l->s;
                if (l->s->head.epoch > r->j->hot_epoch)
                    r->j->hot_epoch = l->s->head.epoch;
                if (l->scan.next_seq > r->j->next_seq)
                    r->j->next_seq = l->scan.next_seq;
            }
        }
    return HKY_OK;
}

/* After a kill, what was read may be in the page cache only. From now on it counts as durable (up to the cut), so it is
 * synced here: else a power cut soon after would look like damage. */
static void sync_tail(struct replay *r, struct loaded *l)
{
    if (l->scan.next_seq == l->s->head.first_seq || journal_segment_sync(r->j, l->s) == HKY_OK)
        return;
    l->s->is_failed = true; /* no footer: its pages are not synced again */
    hky_log(r->j->params.log, HKY_LOG_WARN, "journal", "segment=%u error=cannot_sync", l->s->slot);
}

/* Every segment that was not closed ends for good where reading ended. This is made durable before anything relies on
 * it. */
static enum hky_err cut_tails(struct replay *r, struct hky_error *e)
{
    struct entry_list cuts = {0};

    for (size_t i = 0; i < r->n; i++) {
        struct loaded *l = &r->loaded[i];
        struct entry *cut;
        if (l->s->has_footer || (l->s->cut_seq != 0 && l->s->cut_seq <= l->scan.next_seq))
            continue;
        sync_tail(r, l);
        l->s->cut_seq = l->scan.next_seq;
        cut = journal_entry_new(JOURNAL_RECORD_CUT);
        cut->key = l->s->head.epoch;
        cut->about = l->s;
        hky_buf_add_u64(&cut->meta, l->scan.next_seq);
        cut->is_durable = true;
        journal_entry_seal(cut);
        journal_list_add(&cuts, cut);
    }
    if (cuts.first != NULL && !journal_commit_cut(r->j, &cuts))
        return hky_error_set(e, HKY_E_IO,
                             "cannot write to the spool %.120s: free space on its disk or replace it, then start again",
                             r->j->dir);
    return HKY_OK;
}

/* --- combining --- */

static bool entry_message(const struct foot_entry *f, struct hky_str *meta)
{
    struct finished_meta fin;

    *meta = hky_str_of(f->meta, f->meta_n);
    if (f->type == JOURNAL_RECORD_ACCEPTED || f->type == JOURNAL_RECORD_MOVED)
        return true;
    if (f->type != JOURNAL_RECORD_FINISHED || !(f->flags & FLAG_NOTICE) ||
        !journal_finished_meta_parse(*meta, f->flags, &fin))
        return false;
    *meta = fin.notice;
    return true;
}

static void mark_all_dead(struct segment *s, uint32_t ordinal, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        journal_segment_mark_dead(s, ordinal + i);
}

/* Its checksum is right; does it also hold everything of a message and of each recipient? */
static bool is_whole(struct hky_str meta, struct message_meta *m)
{
    bool ok = journal_message_meta_parse(meta, m);
    struct hky_cursor c = m->rcpts;
    struct rcpt_meta rcpt;

    for (uint32_t i = 0; ok && i < m->n_recipients; i++)
        ok = journal_rcpt_meta_next(&c, &rcpt);
    return ok;
}

static void replay_copy(struct replay *r, struct segment *s, const struct foot_entry *f, struct hky_str meta)
{
    struct replayed now = {.s = s, .at = f->at, .ordinal = f->ordinal}, *was;
    struct hky_cursor c;
    struct rcpt_meta rcpt;

    if (!is_whole(meta, &now.meta) || f->ordinal > UINT32_MAX - now.meta.n_recipients) {
        keep_unread(r, s, f->at, "meta");
        return;
    }
    journal_segment_ordinals(s, f->ordinal + now.meta.n_recipients);
    c = now.meta.rcpts;
    for (uint32_t i = 0; i < now.meta.n_recipients && journal_rcpt_meta_next(&c, &rcpt); i++)
        if (rcpt.final != 0) /* ended before this copy was made */
            journal_segment_mark_dead(s, f->ordinal + i);
    was = hky_idmap_get(&r->messages, now.meta.id);
    if (was == NULL) {
        HKY_ASSERT(r->n_pool < r->pool_cap);
        r->pool[r->n_pool] = now;
        hky_idmap_put(&r->messages, now.meta.id, &r->pool[r->n_pool++]);
        return;
    }
    if (now.meta.generation > was->meta.generation) {
        mark_all_dead(was->s, was->ordinal, was->meta.n_recipients);
        journal_segment_add_evidence(s, was->s);
        *was = now;
    } else {
        mark_all_dead(s, now.ordinal, now.meta.n_recipients);
        journal_segment_add_evidence(was->s, s);
    }
}

static void replay_plan(struct replay *r, struct segment *s, const struct foot_entry *f)
{
    struct hky_plan *plan;

    if (hky_plan_decode(hky_str_of(f->meta, f->meta_n), &plan, NULL) != HKY_OK)
        return;
    journal_plan_used(r->j, s, plan);
    hky_plan_unref(&plan);
}

/* First pass: everything but results; a bitmap counts for its segment's copies only. */
static void replay_all_but_results(struct replay *r, struct loaded *l)
{
    struct hky_cursor c = {.p = l->foot.p, .n = l->foot.n};
    struct hky_str meta;

    for (struct foot_entry f; journal_foot_next(&c, &f);)
        if (entry_message(&f, &meta))
            replay_copy(r, l->s, &f, meta);
        else if (f.type == JOURNAL_RECORD_PLAN)
            replay_plan(r, l->s, &f);
        else if (f.type == JOURNAL_RECORD_CAP)
            journal_cap_set(r->j, meta, l->s->slot);
}

static void replay_dead(struct replay *r, struct segment *s, const struct foot_entry *f)
{
    struct segment *other = by_key(r, f->key);

    if (other == NULL)
        return;
    journal_segment_add_evidence(s, other);
    for (uint64_t i = 0; i < (uint64_t)f->meta_n * 8 && i < other->n_ordinals; i++)
        if ((unsigned char)f->meta[i / 8] >> (i % 8) & 1)
            journal_segment_mark_dead(other, (uint32_t)i);
}

static struct newest *newest_of(struct replayed *m, uint32_t index)
{
    if (index >= m->meta.n_recipients)
        return NULL;
    if (m->newest == NULL)
        m->newest = hky_calloc(m->meta.n_recipients, sizeof *m->newest);
    return &m->newest[index];
}

/* A record in `s` says how this recipient ended. */
static void replay_end(struct replayed *m, uint32_t index, uint8_t state, struct segment *s)
{
    newest_of(m, index)->final = state;
    journal_segment_mark_dead(m->s, m->ordinal + index);
    journal_segment_add_evidence(s, m->s);
}

static void replay_finished(struct replay *r, struct segment *s, const struct foot_entry *f)
{
    struct finished_meta fin;
    struct replayed *m;

    if (!journal_finished_meta_parse(hky_str_of(f->meta, f->meta_n), f->flags, &fin) ||
        (m = hky_idmap_get(&r->messages, fin.id)) == NULL || newest_of(m, fin.index) == NULL)
        return;
    replay_end(m, fin.index, fin.state, s);
}

static void replay_attempt(struct replay *r, struct segment *s, const struct foot_entry *f)
{
    struct attempt_meta a;
    struct replayed *m = hky_idmap_get(&r->messages, f->key);
    struct newest *n;

    journal_segment_count_attempt(s, f->meta_n);
    if (m == NULL || !journal_attempt_meta_parse(hky_str_of(f->meta, f->meta_n), &a) ||
        (n = newest_of(m, a.index)) == NULL || n->seq > f->seq)
        return;
    n->seq = f->seq;
    n->state = a.state;
    n->doing = a.doing;
    n->place = (struct record_at){.slot = s->slot, .at8 = (uint32_t)(f->at / 8)};
    if (hky_recipient_state_is_final((enum hky_recipient_state)a.doing))
        replay_end(m, a.index, a.doing, s);
}

static void replay_results(struct replay *r, struct loaded *l)
{
    struct hky_cursor c = {.p = l->foot.p, .n = l->foot.n};

    for (struct foot_entry f; journal_foot_next(&c, &f);)
        if (f.type == JOURNAL_RECORD_DEAD)
            replay_dead(r, l->s, &f);
        else if (f.type == JOURNAL_RECORD_FINISHED)
            replay_finished(r, l->s, &f);
        else if (f.type == JOURNAL_RECORD_ATTEMPT)
            replay_attempt(r, l->s, &f);
}

/* --- handing it to the engine --- */

static struct hky_plan *plan_of(void *ctx, uint64_t hash)
{
    struct hky_journal *j = ctx;
    struct plan_use *use = hky_idmap_get(&j->plans, hash);

    return use != NULL ? use->plan : NULL;
}

static void restore_recipient(struct replay *r, struct replayed *m, struct hky_recipient *rcpt, struct tracked *t,
                              const struct rcpt_meta *meta)
{
    struct newest *n = m->newest != NULL ? &m->newest[rcpt->index] : NULL;
    bool is_newer = n != NULL && n->seq != 0 && n->seq > meta->state_seq;
    bool is_dead = journal_segment_is_dead(m->s, m->ordinal + rcpt->index);
    struct hky_error e;

    if (hky_recipient_decode_state(rcpt, is_newer ? n->state : meta->state, plan_of, r->j, &e) != HKY_OK) {
        hky_log(r->j->params.log, HKY_LOG_ERROR, "replay", "error=\"%s\"", e.text);
        rcpt->state = HKY_RCPT_PARKED; /* the facts can be read, the state cannot: the policy is asked again */
    }
    if (is_dead) {
        uint8_t final = n != NULL && n->final != 0 ? n->final : meta->final;
        rcpt->state = hky_recipient_state_is_final((enum hky_recipient_state) final) ? final : HKY_RCPT_DELIVERED;
        return;
    }
    if (is_newer)
        journal_track_attempt(r->j, t, rcpt->index, n->place);
    if (is_newer && n->doing == HKY_RCPT_SENDING && !r->was_clean) {
        r->report->maybe_duplicates++;
        if (rcpt->unclean < UINT8_MAX)
            rcpt->unclean++;
    }
}

static uint32_t live_of(const struct replayed *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->meta.n_recipients; i++)
        n += !journal_segment_is_dead(m->s, m->ordinal + i);
    return n;
}

/* About how many octets it takes. */
static size_t give(struct replay *r, struct replayed *m)
{
    struct hky_journal *j = r->j;
    struct hky_cursor c = m->meta.rcpts;
    struct hky_message *msg;
    struct tracked *t;
    uint32_t n_live = live_of(m), n_dead = m->meta.n_recipients - n_live;
    struct rcpt_meta meta;
    struct hky_error e = {.text = "recipients do not match"};

    hky_id_seen(&j->ids, m->meta.id);
    if (n_live == 0)
        return 0;
    if (hky_message_decode(m->meta.message, &msg, &e) != HKY_OK || msg->n_recipients != m->meta.n_recipients) {
        keep_unread(r, m->s, m->at, e.text);
        return 0;
    }
    t = journal_track(j, msg, m->s, m->ordinal, m->at, m->at + JOURNAL_RECORD_HEADER);
    for (uint32_t i = 0; i < msg->n_recipients && journal_rcpt_meta_next(&c, &meta); i++)
        restore_recipient(r, m, &msg->recipients[i], t, &meta);
    t->n_live = n_live;
    msg->n_live = n_live;
    m->s->n_live -= n_dead;
    atomic_fetch_sub(&j->n_live, n_dead);
    r->report->messages++;
    r->report->recipients += n_live;
    for (uint32_t i = 0; i < n_live; i++)
        hky_message_ref(msg);
    r->cb->on_message(r->cb->ctx, msg);
    return sizeof *msg + msg->packed_n + sizeof *t + 2 * MALLOC_HEAD +
           msg->n_recipients * (sizeof msg->recipients[0] + sizeof t->attempts[0]);
}

static void give_all(struct replay *r)
{
    size_t at = 0, expected = 0;

    journal_index_reserve(&r->j->index, r->n_pool);
    for (size_t i = 0; i < r->n_pool; i++) {
        size_t took;
        if (expected < LIVE_OCTETS) {
            expected = (r->n_pool - i) * LIVE_OCTETS;
            if (expected > HKY_MEMORY_EXPECT_MAX)
                expected = HKY_MEMORY_EXPECT_MAX;
            hky_memory_expect(expected);
        }
        took = give(r, &r->pool[i]);
        expected -= took < expected ? took : expected;
    }
    for (struct hky_map_entry *c; (c = hky_map_next(&r->j->caps, &at)) != NULL;) {
        struct cap_value *v = c->value;
        struct hky_cursor meta = {.p = v->meta.p, .n = v->meta.n};
        struct hky_str key = hky_cursor_lstr(&meta), value = hky_cursor_lstr(&meta);
        if (!meta.is_bad && r->cb->on_cap != NULL)
            r->cb->on_cap(r->cb->ctx, key, value);
    }
}

static void count_messages(struct replay *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct hky_cursor c = {.p = r->loaded[i].foot.p, .n = r->loaded[i].foot.n};
        struct hky_str meta;
        for (struct foot_entry f; journal_foot_next(&c, &f);)
            r->pool_cap += entry_message(&f, &meta);
    }
    r->pool = hky_calloc(r->pool_cap + 1, sizeof *r->pool);
    hky_memory_ready(r->pool, r->pool_cap * sizeof *r->pool);
    hky_idmap_reserve(&r->messages, r->pool_cap);
}

/* Old segments are closed from here on. Maintenance writes the missing footers, except where something failed, or where
 * a footer could be written over what is kept as evidence. */
static void hand_over(struct replay *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct loaded *l = &r->loaded[i];
        if (l->s->has_footer || l->s->is_failed || l->s->is_evidence) {
            l->s->is_closed = true;
            l->s->closed_mono_ms = hky_mono_ms();
            hky_buf_fini(&l->foot);
            continue;
        }
        l->s->foot = l->foot;
        journal_upkeep_close_segment(r->j, l->s);
    }
}

enum hky_err journal_replay_run(struct hky_journal *j, const struct hky_journal_replay *cb,
                                struct hky_journal_report *report, bool was_clean, struct hky_error *e)
{
    struct replay r = {.j = j, .cb = cb, .report = report, .was_clean = was_clean};
    enum hky_err err;

    hky_idmap_init(&r.messages);
    err = find_segments(&r, e);
    report->segments = r.n;
    if (err == HKY_OK)
        err = load_all(&r, e);
    if (err == HKY_OK)
        err = cut_tails(&r, e);
    if (err == HKY_OK) {
        count_messages(&r);
        for (size_t i = 0; i < r.n; i++)
            replay_all_but_results(&r, &r.loaded[i]);
        for (size_t i = 0; i < r.n; i++)
            replay_results(&r, &r.loaded[i]);
        give_all(&r);
        hand_over(&r);
    } else {
        for (size_t i = 0; i < r.n; i++)
            hky_buf_fini(&r.loaded[i].foot);
    }
    for (size_t i = 0; i < r.n_pool; i++)
        free(r.pool[i].newest);
    free(r.pool);
    free(r.loaded);
    hky_idmap_fini(&r.messages);
    return err;
}
