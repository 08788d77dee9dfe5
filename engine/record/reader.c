/*
 * Readers of events. A reader pins the segment that it reads, so that the events it was given stay readable. Upkeep
 * reuses segments that every reader has committed. A reader that lags beyond its budget finishes its segment and then
 * continues with the oldest one within the budget.
 */
#include "record/internal.h"

#include <stdlib.h>

#define DEFAULT_LAG (UINT64_C(1) << 30)

static uint64_t last_of(const struct record_segment *g)
{
    return g->head->first + g->n - 1;
}

static void move_into(struct hky_record_reader *r, struct record_segment *g)
{
    if (r->at != NULL)
        r->at->n_pins--;
    r->at = g;
    r->offset = RECORD_PAGE;
    if (g != NULL)
        g->n_pins++;
}

static void call_reader(struct hky_task *task)
{
    struct hky_record_reader *r = HKY_CONTAINER(task, struct hky_record_reader, task);
    bool is_closed;

    pthread_mutex_lock(&r->record->store.lock);
    r->is_posted = false;
    if ((is_closed = r->is_closed))
        TAILQ_REMOVE(&r->record->readers, r, link);
    pthread_mutex_unlock(&r->record->store.lock);
    if (is_closed)
        free(r);
    else
        r->p.on_ready(r->p.ctx);
}

void record_readers_wake(struct hky_record *record)
{
    struct hky_record_reader *r;

    TAILQ_FOREACH (r, &record->readers, link) {
        if (!r->is_armed || r->is_closed || r->is_posted)
            continue;
        r->is_armed = false;
        r->is_posted = true;
        hky_loop_post(r->p.loop, &r->task);
    }
}

/* ---- open and close ---- */

/* The index of a name among the cursors, a free one for a new name; RECORD_NAMES when there is no room. */
static unsigned slot_of(struct record_cursors *c, const char *name, bool *is_new)
{
    unsigned free_slot = RECORD_NAMES;

    *is_new = false;
    for (unsigned i = 0; i < RECORD_NAMES; i++) {
        if (strcmp(c->names[i].name, name) == 0)
            return i;
        if (free_slot == RECORD_NAMES && c->names[i].name[0] == '\0')
            free_slot = i;
    }
    *is_new = true;
    return free_slot;
}

static bool is_open(struct hky_record *record, const char *name)
{
    struct hky_record_reader *r;

    TAILQ_FOREACH (r, &record->readers, link)
        if (!r->is_closed && strcmp(r->name, name) == 0)
            return true;
    return false;
}

/* Lets the reader begin behind `after`. Events that are no longer kept count as missed. */
static void begin_after(struct hky_record_reader *r, uint64_t after)
{
    struct record_store *s = &r->record->store;
    struct record_segment *g = TAILQ_FIRST(&s->segments);

    r->after = r->done = after >= s->next ? s->next - 1 : after;
    if (g != NULL && after > 0 && g->head->first > after + 1)
        r->missed += g->head->first - after - 1;
    while (g != NULL && last_of(g) <= r->after)
        g = TAILQ_NEXT(g, link);
    move_into(r, g);
}

enum hky_err hky_record_reader_open(struct hky_record *record, const struct hky_record_reader_params *p,
                                    struct hky_record_reader **out, struct hky_error *e)
{
    struct record_store *s = &record->store;
    struct hky_record_reader *r;
    bool is_new = true;
    unsigned slot = RECORD_NAMES;

    *out = NULL;
    if (p->name != NULL && (p->name[0] == '\0' || strlen(p->name) >= RECORD_NAME))
        return hky_error_set(e, HKY_E_LIMIT, "a reader's name has 1 to %d octets", RECORD_NAME - 1);
    pthread_mutex_lock(&s->lock);
    if (p->name != NULL && is_open(record, p->name)) {
        pthread_mutex_unlock(&s->lock);
        return hky_error_set(e, HKY_E_STATE, "the reader %s is open already", p->name);
    }
    if (p->name != NULL && (slot = slot_of(s->cursors, p->name, &is_new)) == RECORD_NAMES) {
        pthread_mutex_unlock(&s->lock);
        return hky_error_set(e, HKY_E_LIMIT, "there are %d readers' names already", RECORD_NAMES);
    }
    r = hky_calloc(1, sizeof *r);
    r->record = record;
    r->p = *p;
    r->p.lag_octets = p->lag_octets > 0 ? p->lag_octets : DEFAULT_LAG;
    r->slot = slot;
    r->task.run = call_reader;
    if (p->name != NULL)
        memcpy(r->name, p->name, strlen(p->name));
    if (slot < RECORD_NAMES && !is_new)
        r->missed = s->cursors->names[slot].missed;
    begin_after(r, p->after > 0 ? p->after : !is_new ? s->cursors->names[slot].done : p->is_from_now ? s->next - 1 : 0);
    if (slot < RECORD_NAMES) {
        s->cursors->names[slot].done = r->done;
        s->cursors->names[slot].missed = r->missed;
        memcpy(s->cursors->names[slot].name, r->name, sizeof r->name);
    }
    TAILQ_INSERT_TAIL(&record->readers, r, link);
    r->is_armed = false;
    r->is_posted = true; /* so that it reads the events that are kept already */
    hky_loop_post(p->loop, &r->task);
    pthread_mutex_unlock(&s->lock);
    *out = r;
    return HKY_OK;
}

void hky_record_reader_close(struct hky_record_reader **reader)
{
    struct hky_record_reader *r = *reader;

    *reader = NULL;
    if (r == NULL)
        return;
    struct record_store *s = &r->record->store;
    pthread_mutex_lock(&s->lock);
    move_into(r, NULL);
    r->is_closed = true;
    bool is_free = !r->is_posted; /* otherwise the posted task frees it, or hky_record_close */
    if (is_free)
        TAILQ_REMOVE(&r->record->readers, r, link);
    pthread_mutex_unlock(&s->lock);
    if (is_free)
        free(r);
}

/* ---- reading ---- */

/* Moves to the next segment when this one is read. Under the lock. False: no events now, on_ready will be called. */
static bool next_segment(struct hky_record_reader *r)
{
    struct record_store *s = &r->record->store;
    struct record_segment *next;

    if (r->at != NULL && r->offset < __atomic_load_n(&r->at->head->end, __ATOMIC_ACQUIRE))
        return true;
    next = r->skip_to != NULL ? r->skip_to : r->at != NULL ? TAILQ_NEXT(r->at, link) : TAILQ_FIRST(&s->segments);
    while (r->at == NULL && next != NULL && last_of(next) <= r->after)
        next = TAILQ_NEXT(next, link);
    if (next == NULL) {
        r->is_armed = true;
        return false;
    }
    r->skip_to = NULL;
    move_into(r, next);
    return true;
}

size_t hky_record_reader_read(struct hky_record_reader *r, struct hky_event_view *out, size_t most)
{
    struct record_store *s = &r->record->store;
    size_t n = 0, end;

    while (n == 0 && most > 0) {
        struct record_head h;

        pthread_mutex_lock(&s->lock);
        bool is_there = next_segment(r);
        pthread_mutex_unlock(&s->lock);
        if (!is_there)
            return 0;
        end = (size_t)__atomic_load_n(&r->at->head->end, __ATOMIC_ACQUIRE);
        while (n < most && record_store_event(r->at, r->offset, end, &h)) {
            const char *p = (const char *)r->at->head + r->offset + sizeof h;
            r->offset += record_store_step(h.n);
            if (h.number <= r->after || !record_decode(hky_str_of(p, h.n), &out[n]))
                continue;
            r->after = out[n].number = h.number;
            n++;
        }
        if (n == 0 && r->offset < end && !record_store_event(r->at, r->offset, end, &h))
            r->offset = end; /* damaged in memory: the events behind it cannot be found */
    }
    return n;
}

void hky_record_reader_commit(struct hky_record_reader *r, uint64_t number)
{
    if (number <= r->done)
        return;
    __atomic_store_n(&r->done, number, __ATOMIC_RELEASE);
    if (r->slot < RECORD_NAMES)
        __atomic_store_n(&r->record->store.cursors->names[r->slot].done, number, __ATOMIC_RELEASE);
}

uint64_t hky_record_reader_cursor(const struct hky_record_reader *r)
{
    return __atomic_load_n(&r->done, __ATOMIC_ACQUIRE);
}

uint64_t hky_record_reader_missed(const struct hky_record_reader *r)
{
    return __atomic_load_n(&r->missed, __ATOMIC_RELAXED);
}

/* ---- upkeep: skips for readers that lag, and frees segments that no reader needs ---- */

static bool is_needed(struct hky_record_reader *r, const struct record_segment *g)
{
    if (r->is_closed || last_of(g) <= hky_record_reader_cursor(r))
        return false;
    return r->skip_to == NULL || g->head->first >= r->skip_to->head->first;
}

/* Counts back from the youngest segment as far as the budget reaches; older segments not yet read are skipped. */
static void skip(struct hky_record *record, struct hky_record_reader *r)
{
    struct record_segment *g, *oldest = NULL, *from;
    uint64_t octets = 0, n = 0;

    TAILQ_FOREACH_REVERSE(g, &record->store.segments, record_segments, link)
    {
        octets += __atomic_load_n(&g->head->end, __ATOMIC_ACQUIRE);
        if (oldest != NULL && octets > r->p.lag_octets)
            break;
        oldest = g;
    }
    if (g == NULL || !is_needed(r, g))
        return; /* all segments that the reader needs are within the budget */
    from = r->skip_to != NULL ? r->skip_to
           : r->at != NULL    ? TAILQ_NEXT(r->at, link)
                              : TAILQ_FIRST(&record->store.segments);
    for (g = from; g != NULL && g->head->first < oldest->head->first; g = TAILQ_NEXT(g, link))
        n += g->n;
    if (r->at == NULL || r->at->head->first < oldest->head->first)
        r->skip_to = oldest;
    if (n == 0)
        return;
    __atomic_add_fetch(&r->missed, n, __ATOMIC_RELAXED);
    if (r->slot < RECORD_NAMES)
        record->store.cursors->names[r->slot].missed = r->missed;
    record->n_skipped += n;
    memcpy(record->skipped_by, r->p.name != NULL ? r->name : "view\0", r->p.name != NULL ? sizeof r->name : 6);
}

void record_readers_trim(struct hky_record *record)
{
    struct record_store *s = &record->store;
    struct record_segment *g, *next;
    struct hky_record_reader *r;

    TAILQ_FOREACH (r, &record->readers, link)
        if (!r->is_closed)
            skip(record, r);
    for (g = TAILQ_FIRST(&s->segments); g != NULL; g = next) {
        bool is_needed_by_one = false;
        next = TAILQ_NEXT(g, link);
        if (next == NULL || g->n_pins > 0)
            continue; /* the youngest is being written to, a pinned one read */
        TAILQ_FOREACH (r, &record->readers, link)
            is_needed_by_one = is_needed_by_one || is_needed(r, g);
        if (!is_needed_by_one)
            record_store_release(s, g);
    }
}
