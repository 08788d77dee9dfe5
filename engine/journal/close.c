/*
 * Closing a segment: its footer lists what the segment holds, so that a start need not read its records. Records that
 * nobody will need again are left out of the list.
 */
#include "journal/internal.h"

enum { DECIDED_AT_ONCE = 1024 };

/* Is this the newest attempt of its recipient? Under index_lock. */
static bool is_newest_attempt(struct hky_journal *j, const struct segment *s, const struct foot_entry *f)
{
    const struct tracked *t = journal_index_get(&j->index, f->key);
    struct attempt_meta a;

    return t != NULL && journal_attempt_meta_parse(hky_str_of(f->meta, f->meta_n), &a) &&
           a.index < t->message->n_recipients && t->attempts[a.index].slot == s->slot &&
           t->attempts[a.index].at8 == f->at / 8;
}

/* An attempt in a final state ends its recipient at each start, as a result does. After a start, the index has no place
 * of it, because its recipient is dead; so it is not asked which attempt is the newest. */
static bool is_end(const struct foot_entry *f)
{
    struct attempt_meta a;

    return journal_attempt_meta_parse(hky_str_of(f->meta, f->meta_n), &a) &&
           hky_recipient_state_is_final((enum hky_recipient_state)a.doing);
}

/* Under index_lock. The footer may leave out messages of which every recipient is finished (a missing entry means just
 * that) with their results, and attempts that are not the newest. It keeps copies: a copy is the evidence that its
 * original, whose segment may last longer, is dead. */
static bool foot_needs(struct hky_journal *j, struct segment *s, const struct foot_entry *f, struct hky_idmap *gone)
{
    static char mark;
    struct message_meta m;

    switch (f->type) {
    case JOURNAL_RECORD_ACCEPTED:
        if (!journal_message_meta_parse(hky_str_of(f->meta, f->meta_n), &m))
            return true; /* the next start must know of it, too */
        for (uint32_t i = 0; i < m.n_recipients; i++)
            if (!journal_segment_is_dead(s, f->ordinal + i))
                return true;
        hky_idmap_put(gone, f->key, &mark);
        return false;
    case JOURNAL_RECORD_FINISHED:
        return hky_idmap_get(gone, f->key) ==
               NULL; /* a result with a notice has the notice's id as its key; it stays */
    case JOURNAL_RECORD_ATTEMPT:
        return is_end(f) ? hky_idmap_get(gone, f->key) == NULL : is_newest_attempt(j, s, f);
    default:
        return true;
    }
}

/* Takes the lock for a portion of the list at a time, and copies without it, so that commits and deliveries go on
 * meanwhile. What is decided in one portion stays right in the next: a message that ended stays ended, and an attempt
 * that was overtaken stays overtaken. What ends in between is listed although nobody needs it. */
static void foot_compact(struct hky_journal *j, struct segment *s)
{
    struct hky_cursor c = {.p = s->foot.p, .n = s->foot.n};
    bool is_needed[DECIDED_AT_ONCE];
    struct hky_idmap gone;
    struct hky_buf out;

    if (s->foot.is_over)
        return; /* it lacks records already; journal_segment_write_footer refuses it */
    hky_buf_init(&out, s->foot.max);
    hky_idmap_init(&gone);
    while (c.n > 0 && !c.is_bad) {
        struct hky_cursor again = c;
        struct foot_entry f;
        size_t n = 0;

        pthread_mutex_lock(&j->index_lock);
        while (n < DECIDED_AT_ONCE && journal_foot_next(&c, &f))
            is_needed[n++] = foot_needs(j, s, &f, &gone);
        pthread_mutex_unlock(&j->index_lock);
        for (size_t i = 0; i < n && journal_foot_next(&again, &f); i++)
            if (is_needed[i])
                hky_buf_add(&out, f.meta - FOOT_ENTRY, FOOT_ENTRY + JOURNAL_RECORD_ALIGN(f.meta_n));
    }
    hky_idmap_fini(&gone);
    hky_buf_fini(&s->foot);
    s->foot = out;
}

void journal_segment_close(struct hky_journal *j, struct segment *s)
{
    if (!s->is_failed) {
        foot_compact(j, s);
        if (journal_segment_write_footer(j, s) != HKY_OK) {
            s->is_failed = true; /* its records are good; the next start reads them one by one */
            hky_log(j->params.log, HKY_LOG_WARN, "journal", "segment=%u error=no_footer", s->slot);
        }
    }
    hky_buf_fini(&s->foot);
    hky_buf_init(&s->foot, j->params.footer_max);
    pthread_mutex_lock(&j->index_lock);
    s->closed_mono_ms = hky_mono_ms();
    s->is_closed = true;
    pthread_mutex_unlock(&j->index_lock);
}

void journal_segment_close_queued(struct hky_journal *j)
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
            journal_segment_close(j, s);
    } while (s != NULL);
}
