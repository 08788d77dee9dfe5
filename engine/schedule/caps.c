/*
 * Why no window is ever exceeded at the server: the server counts a message at some time between the take and the
 * reply. Here a slot counts from the take on, and after the reply, which is not before the server's own time, for one
 * more window. So at any moment every message that the server counts is counted here.
 *
 * Why that is so after a crash, too: the newest record on disk says when each used slot ends, and how many are `open`,
 * that is, in flight or free to be taken without another record. All that was taken after that record was taken from
 * the open ones. A restart counts all open slots as used at the time of the restart, which is later than any of their
 * replies.
 */
#include "caps.h"

#include "base/map.h"

#include <pthread.h>
#include <stdlib.h>

#define RUNS_MAX      512 /* runs in a window; when there are more, neighbours are joined, to the later end */
#define FORMAT        1
#define SPREAD_LAG    50   /* ms that a late wake may catch up */
#define RESERVE_AGAIN 1000 /* ms after a record that could not be written */
#define BATCH_SMALL   20
#define BATCH_MAX     500
#define RECORD_MAX    (HKY_CAPS_MAX * (RUNS_MAX * 12 + 64))

struct run { /* slots that end at the same time */
    int64_t first_ms, end_ms;
    uint32_t n;
};

struct window {
    uint32_t n, window_sec;
    bool counts_recipients, is_spread, is_stated; /* is_stated: by the policy in force */
    char text[32];
    struct run *runs; /* a ring, the oldest first */
    uint32_t head, n_runs;
    uint32_t used;         /* the sum over the runs */
    int64_t even_ms_x1024; /* is_spread: the earliest time of the next take, in 1024ths of a millisecond */
};

struct caps_account {
    char *key;
    struct window windows[HKY_CAPS_MAX];
    unsigned n_windows;
    uint32_t flying[2];   /* taken and without a reply: messages, recipients */
    uint32_t reserved[2]; /* on disk and not taken */
    uint32_t coming[2];   /* in the record that is being written */
    /* Number of the set of windows. Slots that were reserved by a record without a window do not count for that window.
     */
    uint32_t shape, shape_under_way, shape_durable;
    bool is_reserving, is_waited_for;
    bool has_record;          /* of this run: it counts slots as open that have ended since, or were never taken */
    int64_t latest_ms;        /* times are never taken to be before this one */
    int64_t used_up_until_ms; /* others have used all up, as a rehearsal says; 0: no */
    struct hky_buf record;
};

struct caps {
    const struct hky_clock *clock;
    pthread_mutex_t lock;
    struct hky_map accounts;
    struct caps_ops ops;
};

struct caps *schedule_caps_new(const struct caps_ops *ops, const struct hky_clock *clock)
{
    struct caps *c = hky_calloc(1, sizeof *c);
    c->clock = clock;
    pthread_mutex_init(&c->lock, NULL);
    hky_map_init(&c->accounts);
    c->ops = *ops;
    return c;
}

void schedule_caps_free(struct caps **cp)
{
    struct caps *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    size_t at = 0;
    for (struct hky_map_entry *e; (e = hky_map_next(&c->accounts, &at)) != NULL;) {
        struct caps_account *a = e->value;
        for (unsigned i = 0; i < a->n_windows; i++)
            free(a->windows[i].runs);
        hky_buf_fini(&a->record);
        free(a->key);
        free(a);
    }
    hky_map_fini(&c->accounts);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Add this to a time of this file to get the time of the wall clock. */
static int64_t wall_offset(const struct caps *c)
{
    return hky_clock_now_ms(c->clock) - hky_clock_elapsed_ms(c->clock);
}

/* ---- one window ---- */

/* When a slot is free again whose reply came in the millisecond now_ms. The reply may have come at its very end, and
 * the next take may be at the very beginning of one; so it needs one millisecond more for a whole window to lie
 * between. */
static int64_t window_end(uint32_t window_sec, int64_t now_ms)
{
    return now_ms + 1 + (int64_t)window_sec * 1000;
}

static struct run *window_run(struct window *w, uint32_t i)
{
    return &w->runs[(w->head + i) % RUNS_MAX];
}

static void window_forget(struct window *w, int64_t now_ms)
{
    while (w->n_runs > 0 && window_run(w, 0)->end_ms <= now_ms) {
        w->used -= window_run(w, 0)->n;
        w->head = (w->head + 1) % RUNS_MAX;
        w->n_runs--;
    }
}

/* `n` slots end at end_ms, which is not before the end of any other run. A run grows over at most a 256th of the
 * window, so that 512 runs are enough for a whole window; the slots of a run all end with the last one. */
static void window_use(struct window *w, int64_t end_ms, uint32_t n)
{
    if (n == 0)
        return;
    if (w->runs == NULL)
        w->runs = hky_calloc(RUNS_MAX, sizeof *w->runs);
    w->used += n;
    struct run *last = w->n_runs > 0 ? window_run(w, w->n_runs - 1) : NULL;
    if (last != NULL && end_ms < last->end_ms)
        end_ms = last->end_ms;
    int64_t grain = w->n <= RUNS_MAX / 2 ? 0 : (int64_t)w->window_sec * 1000 / 256;
    if (last != NULL && (end_ms - last->first_ms <= grain || w->n_runs == RUNS_MAX)) {
        last->end_ms = end_ms;
        last->n += n;
        return;
    }
    *window_run(w, w->n_runs++) = (struct run){end_ms, end_ms, n};
}

static uint32_t window_room(const struct window *w, const struct caps_account *a)
{
    uint64_t used = (uint64_t)w->used + a->flying[w->counts_recipients];
    return used < w->n ? (uint32_t)(w->n - used) : 0;
}

static int64_t window_interval_x1024(const struct window *w)
{
    return (int64_t)w->window_sec * 1000 * 1024 / w->n;
}

/* When a slot can be taken again. This is exact for used slots; slots in flight end at the earliest one window from
 * now. */
static int64_t window_free_at(const struct window *w, const struct caps_account *a, int64_t now_ms)
{
    if (window_room(w, a) > 0)
        return now_ms;
    uint64_t over = (uint64_t)w->used + a->flying[w->counts_recipients] - w->n + 1;
    for (uint32_t i = 0; i < w->n_runs; i++) {
        const struct run *r = &w->runs[(w->head + i) % RUNS_MAX];
        if (r->n >= over)
            return r->end_ms;
        over -= r->n;
    }
    return now_ms + (int64_t)w->window_sec * 1000;
}

/* The same; where the window is spread, slots are evenly apart, too. */
static int64_t window_next_at(const struct window *w, const struct caps_account *a, int64_t now_ms)
{
    int64_t at = window_free_at(w, a, now_ms);
    int64_t even_ms = w->is_spread && w->even_ms_x1024 > now_ms * 1024 ? (w->even_ms_x1024 + 1023) / 1024 : now_ms;
    return at < even_ms ? even_ms : at;
}

/* ---- accounts ---- */

static struct caps_account *account_get(struct caps *c, struct hky_str key)
{
    struct caps_account *a = hky_map_get(&c->accounts, key);
    if (a == NULL) {
        a = hky_calloc(1, sizeof *a);
        a->key = hky_str_dup(key);
        hky_buf_init(&a->record, RECORD_MAX);
        hky_map_put(&c->accounts, key, a);
    }
    return a;
}

static struct window *account_window(struct caps_account *a, uint32_t window_sec, bool counts_recipients, bool *is_new)
{
    *is_new = false;
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        if (w->window_sec == window_sec && w->counts_recipients == counts_recipients)
            return w;
    }
    if (a->n_windows == HKY_CAPS_MAX) {
        /* windows of earlier policies take all the room: the one with the fewest used slots is dropped */
        unsigned at = HKY_CAPS_MAX;
        for (unsigned i = 0; i < a->n_windows; i++)
            if (!a->windows[i].is_stated && (at == HKY_CAPS_MAX || a->windows[i].used < a->windows[at].used))
                at = i;
        if (at == HKY_CAPS_MAX)
            return NULL;
        free(a->windows[at].runs);
        a->windows[at] = a->windows[--a->n_windows];
    }
    *is_new = true;
    struct window *w = &a->windows[a->n_windows++];
    *w = (struct window){.n = UINT32_MAX, .window_sec = window_sec, .counts_recipients = counts_recipients};
    return w;
}

static int64_t account_now(struct caps_account *a, int64_t now_ms)
{
    if (now_ms > a->latest_ms)
        a->latest_ms = now_ms;
    for (unsigned i = 0; i < a->n_windows; i++)
        window_forget(&a->windows[i], a->latest_ms);
    return a->latest_ms;
}

/* A new window of an account does not know what was sent before. A longer or equal one of the same kind knows at most
 * more, so its slots are taken over. */
static void window_learn(struct caps_account *a, struct window *w)
{
    const struct window *from = NULL;
    for (unsigned i = 0; i < a->n_windows; i++) {
        const struct window *o = &a->windows[i];
        if (o != w && o->counts_recipients == w->counts_recipients && o->window_sec > w->window_sec &&
            (from == NULL || o->window_sec < from->window_sec))
            from = o;
    }
    int64_t shorter_ms = from != NULL ? ((int64_t)from->window_sec - w->window_sec) * 1000 : 0;
    for (uint32_t i = 0; from != NULL && i < from->n_runs; i++) {
        const struct run *r = &from->runs[(from->head + i) % RUNS_MAX];
        if (r->end_ms - shorter_ms > a->latest_ms)
            window_use(w, r->end_ms - shorter_ms, r->n);
    }
}

struct caps_account *schedule_caps_set(struct caps *c, const struct hky_relay *relay, const char *account)
{
    if (relay->n_caps == 0)
        return NULL;
    pthread_mutex_lock(&c->lock);
    struct caps_account *a = account_get(c, hky_str_z(account));
    for (unsigned i = 0; i < a->n_windows; i++)
        a->windows[i].is_stated = false;
    for (unsigned i = 0; i < relay->n_caps && i < HKY_CAPS_MAX; i++) {
        const struct hky_cap *cap = &relay->caps[i];
        if (cap->n == 0 || cap->window_sec == 0)
            continue;
        bool is_new;
        struct window *w = account_window(a, cap->window_sec, cap->counts_recipients, &is_new);
        if (w == NULL)
            continue;
        bool is_second = w->is_stated; /* the same window is stated twice: the smaller number counts */
        w->n = is_second && w->n < cap->n ? w->n : cap->n;
        w->is_spread = cap->is_spread;
        w->is_stated = true;
        strncpy(w->text, cap->text != NULL ? cap->text : "", sizeof w->text - 1);
        if (is_new) {
            window_learn(a, w);
            a->shape++;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return a;
}

/* ---- the record: FORMAT, open messages, open recipients, windows {sec, kind, runs {end, n}} ---- */

static void account_encode(struct caps_account *a, int64_t offset_ms)
{
    struct hky_buf *b = &a->record;
    hky_buf_clear(b);
    hky_buf_add_u8(b, FORMAT);
    for (int k = 0; k < 2; k++)
        hky_buf_add_u32(b, a->flying[k] + a->reserved[k] + a->coming[k]);
    hky_buf_add_u8(b, (uint8_t)a->n_windows);
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        hky_buf_add_u32(b, w->window_sec);
        hky_buf_add_u8(b, w->counts_recipients);
        hky_buf_add_u32(b, w->n_runs);
        for (uint32_t k = 0; k < w->n_runs; k++) {
            hky_buf_add_u64(b, (uint64_t)(window_run(w, k)->end_ms + offset_ms));
            hky_buf_add_u32(b, window_run(w, k)->n);
        }
    }
    HKY_ASSERT(!b->is_over);
}

static void restore_window(struct caps_account *a, struct hky_cursor *cur, const uint32_t open[2], int64_t now_ms,
                           int64_t offset_ms)
{
    uint32_t window_sec = hky_cursor_u32(cur);
    bool counts_recipients = hky_cursor_u8(cur) != 0;
    uint32_t n_runs = hky_cursor_u32(cur);
    if (cur->is_bad || n_runs > RUNS_MAX) {
        cur->is_bad = true;
        return;
    }
    bool is_new;
    struct window *w = account_window(a, window_sec, counts_recipients, &is_new);
    int64_t last_ms = window_end(window_sec, now_ms);
    for (uint32_t i = 0; i < n_runs; i++) {
        int64_t end_ms = (int64_t)hky_cursor_u64(cur) - offset_ms;
        uint32_t n = hky_cursor_u32(cur);
        /* after the clock was set back, the account must not be locked for longer than a window */
        if (!cur->is_bad && w != NULL && end_ms > now_ms)
            window_use(w, end_ms < last_ms ? end_ms : last_ms, n);
    }
    if (w != NULL)
        window_use(w, last_ms, open[counts_recipients]);
}

void schedule_caps_restore(struct caps *c, struct hky_str key, struct hky_str value, int64_t now_ms)
{
    struct hky_cursor cur = {value.p, value.n, false};
    if (hky_cursor_u8(&cur) != FORMAT)
        return;
    uint32_t open[2] = {hky_cursor_u32(&cur), 0};
    open[1] = hky_cursor_u32(&cur);
    unsigned n_windows = hky_cursor_u8(&cur);
    pthread_mutex_lock(&c->lock);
    struct caps_account *a = account_get(c, key);
    a->latest_ms = now_ms;
    for (unsigned i = 0; i < a->n_windows; i++) /* a newer record replaces an older one */
        free(a->windows[i].runs);
    a->n_windows = 0;
    for (unsigned i = 0; i < n_windows && i < HKY_CAPS_MAX && !cur.is_bad; i++)
        restore_window(a, &cur, open, now_ms, wall_offset(c));
    pthread_mutex_unlock(&c->lock);
}

/* ---- take, done, give back ---- */

/* How many slots one record reserves: so few that a crash may cost them, so many that nobody waits for the disk. */
static uint32_t account_batch(const struct caps_account *a, bool of_recipients, uint32_t at_least)
{
    uint32_t n = UINT32_MAX;
    for (unsigned i = 0; i < a->n_windows; i++) {
        const struct window *w = &a->windows[i];
        if (w->is_stated && w->counts_recipients == of_recipients && w->n < n)
            n = w->n;
    }
    if (n == UINT32_MAX)
        return 0;
    uint32_t batch = n <= BATCH_SMALL ? 1 : n / BATCH_SMALL > BATCH_MAX ? BATCH_MAX : n / BATCH_SMALL;
    return batch > at_least ? batch : at_least < n ? at_least : n;
}

/* Call it with the lock held. Prepares a record when few reserved slots are left. True: the caller must hand a->record
 * to `reserve`, without the lock. */
static bool account_reserve(struct caps *c, struct caps_account *a, uint32_t want)
{
    if (a->is_reserving)
        return false;
    for (int k = 0; k < 2; k++) {
        uint32_t batch = account_batch(a, k == 1, k == 1 ? want : 1);
        a->coming[k] = batch > 0 && a->reserved[k] <= batch / 2 ? batch : 0;
    }
    if (a->coming[0] == 0 && a->coming[1] == 0 && a->shape == a->shape_durable)
        return false;
    a->shape_under_way = a->shape;
    account_encode(a, wall_offset(c));
    a->is_reserving = a->has_record = true;
    return true;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

struct room {   /* what can be taken from an account */
    uint32_t n; /* recipients; 0: none before until_ms */
    bool is_unreserved;
    int64_t until_ms;
};

static struct room account_room(struct caps_account *a, uint32_t want, int64_t now_ms)
{
    struct room room = {want, false, now_ms};
    if (a->used_up_until_ms > now_ms)
        return (struct room){0, false, a->used_up_until_ms};
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        if (!w->is_stated)
            continue;
        int64_t at = window_next_at(w, a, now_ms);
        if (at > room.until_ms)
            room.until_ms = at;
        if (at > now_ms)
            room.n = 0;
        else if (w->counts_recipients)
            room.n = least(room.n, window_room(w, a));
    }
    if (room.n > 0) {
        bool counts[2] = {account_batch(a, false, 1) > 0, account_batch(a, true, 1) > 0};
        room.n = counts[1] ? least(room.n, a->reserved[1]) : room.n;
        room.is_unreserved = room.n == 0 || (counts[0] && a->reserved[0] == 0) || a->shape != a->shape_durable;
    }
    return room;
}

static void account_take(struct caps_account *a, uint32_t n, int64_t now_ms)
{
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        if (!w->is_stated || !w->is_spread)
            continue;
        int64_t interval = window_interval_x1024(w);
        bool may_catch_up = w->even_ms_x1024 != 0 && interval <= SPREAD_LAG * 1024;
        int64_t from = (now_ms - (may_catch_up ? SPREAD_LAG : 0)) * 1024;
        if (w->even_ms_x1024 < from)
            w->even_ms_x1024 = from;
        w->even_ms_x1024 += interval * (w->counts_recipients ? n : 1);
    }
    a->flying[0]++;
    a->flying[1] += n;
    a->reserved[0] -= a->reserved[0] > 0;
    a->reserved[1] -= least(a->reserved[1], n);
}

enum caps_answer schedule_caps_take(struct caps *c, struct caps_account *a, unsigned worker, uint32_t want,
                                    int64_t now_ms, struct caps_slots *out, int64_t *until_ms)
{
    *out = (struct caps_slots){NULL, want};
    if (a == NULL)
        return CAPS_TAKEN;
    pthread_mutex_lock(&c->lock);
    now_ms = account_now(a, now_ms);
    struct room room = account_room(a, want, now_ms);
    enum caps_answer answer = room.is_unreserved ? CAPS_RESERVING : room.n == 0 ? CAPS_WAIT : CAPS_TAKEN;
    if (answer == CAPS_TAKEN) {
        account_take(a, room.n, now_ms);
        *out = (struct caps_slots){a, room.n};
    } else {
        a->is_waited_for = true;
        *until_ms = answer == CAPS_RESERVING ? now_ms + RESERVE_AGAIN : room.until_ms;
    }
    bool is_record_due = account_reserve(c, a, want);
    pthread_mutex_unlock(&c->lock);
    if (is_record_due)
        c->ops.reserve(c->ops.ctx, a, worker, hky_str_z(a->key), hky_buf_str(&a->record));
    return answer;
}

void schedule_caps_reserved(struct caps *c, struct caps_account *a, bool is_durable)
{
    pthread_mutex_lock(&c->lock);
    for (int k = 0; k < 2; k++) {
        a->reserved[k] += is_durable ? a->coming[k] : 0;
        a->coming[k] = 0;
    }
    a->is_reserving = false;
    a->shape_durable = is_durable ? a->shape_under_way : a->shape_durable;
    bool must_report = is_durable && a->is_waited_for;
    a->is_waited_for = is_durable ? false : a->is_waited_for;
    pthread_mutex_unlock(&c->lock);
    if (must_report)
        c->ops.free_again(c->ops.ctx, a);
}

void schedule_caps_done(struct caps *c, struct caps_slots *slots, int64_t now_ms)
{
    struct caps_account *a = slots->account;
    if (a == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    now_ms = account_now(a, now_ms);
    a->flying[0]--;
    a->flying[1] -= slots->n_recipients;
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        window_use(w, window_end(w->window_sec, now_ms), w->counts_recipients ? slots->n_recipients : 1);
    }
    pthread_mutex_unlock(&c->lock);
    slots->account = NULL;
}

/* Nothing was sent. The newest record counted these slots as open, so they are still reserved. */
void schedule_caps_give_back(struct caps *c, struct caps_slots *slots, int64_t now_ms)
{
    struct caps_account *a = slots->account;
    if (a == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    now_ms = account_now(a, now_ms);
    a->flying[0]--;
    a->flying[1] -= slots->n_recipients;
    a->reserved[0] += account_batch(a, false, 1) > 0;
    a->reserved[1] += account_batch(a, true, 1) > 0 ? slots->n_recipients : 0;
    for (unsigned i = 0; i < a->n_windows; i++) {
        struct window *w = &a->windows[i];
        if (w->is_stated && w->is_spread) {
            int64_t at = w->even_ms_x1024 - window_interval_x1024(w) * (w->counts_recipients ? slots->n_recipients : 1);
            w->even_ms_x1024 = at > now_ms * 1024 ? at : now_ms * 1024;
        }
    }
    bool must_report = a->is_waited_for;
    a->is_waited_for = false;
    pthread_mutex_unlock(&c->lock);
    slots->account = NULL;
    if (must_report)
        c->ops.free_again(c->ops.ctx, a);
}

void schedule_caps_settle(struct caps *c)
{
    size_t at = 0;
    pthread_mutex_lock(&c->lock);
    for (struct hky_map_entry *e; (e = hky_map_next(&c->accounts, &at)) != NULL;) {
        struct caps_account *a = e->value;
        if (!a->has_record)
            continue;
        memset(a->reserved, 0, sizeof a->reserved);
        memset(a->coming, 0, sizeof a->coming);
        account_encode(a, wall_offset(c));
        c->ops.reserve(c->ops.ctx, a, 0, hky_str_z(a->key), hky_buf_str(&a->record));
    }
    pthread_mutex_unlock(&c->lock);
}

void schedule_caps_use_up(struct caps *c, struct caps_account *a, int64_t until_ms)
{
    pthread_mutex_lock(&c->lock);
    a->used_up_until_ms = until_ms;
    pthread_mutex_unlock(&c->lock);
}

/* ---- when slots will be free ---- */

static int64_t window_eta(const struct window *w, const struct caps_account *a, uint32_t ahead, int64_t now_ms)
{
    uint32_t room = window_room(w, a);
    int64_t at = now_ms;
    if (ahead >= room) {
        uint64_t k = ahead - room;
        at = now_ms + (int64_t)(k / w->n) * w->window_sec * 1000;
        uint64_t rest = k % w->n;
        uint32_t i = 0;
        while (i < w->n_runs && w->runs[(w->head + i) % RUNS_MAX].n <= rest) {
            rest -= w->runs[(w->head + i) % RUNS_MAX].n;
            i++;
        }
        int64_t end = i < w->n_runs ? w->runs[(w->head + i) % RUNS_MAX].end_ms : now_ms + (int64_t)w->window_sec * 1000;
        at += end > now_ms ? end - now_ms : 0;
    }
    if (w->is_spread) {
        int64_t from = w->even_ms_x1024 > now_ms * 1024 ? w->even_ms_x1024 : now_ms * 1024;
        int64_t even = (from + window_interval_x1024(w) * ahead) / 1024;
        at = even > at ? even : at;
    }
    return at;
}

int64_t schedule_caps_eta(struct caps *c, struct caps_account *a, uint32_t ahead, int64_t now_ms)
{
    if (a == NULL)
        return now_ms;
    pthread_mutex_lock(&c->lock);
    now_ms = account_now(a, now_ms);
    int64_t eta = a->used_up_until_ms > now_ms ? a->used_up_until_ms : now_ms;
    for (unsigned i = 0; i < a->n_windows; i++) {
        if (a->windows[i].is_stated) {
            int64_t at = window_eta(&a->windows[i], a, ahead, now_ms);
            eta = at > eta ? at : eta;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return eta;
}

int64_t schedule_caps_free_at(struct caps *c, struct caps_account *a, int64_t now_ms)
{
    if (a == NULL)
        return now_ms;
    pthread_mutex_lock(&c->lock);
    int64_t at = account_room(a, 1, account_now(a, now_ms)).until_ms;
    pthread_mutex_unlock(&c->lock);
    return at;
}

unsigned schedule_caps_show(struct caps *c, struct caps_account *a, int64_t now_ms,
                            struct hky_relay_cap out[HKY_CAPS_MAX])
{
    unsigned n = 0;
    pthread_mutex_lock(&c->lock);
    now_ms = account_now(a, now_ms);
    for (unsigned i = 0; i < a->n_windows && n < HKY_CAPS_MAX; i++) {
        const struct window *w = &a->windows[i];
        if (!w->is_stated)
            continue;
        int64_t next_ms = window_next_at(w, a, now_ms);
        struct hky_relay_cap *cap = &out[n++];
        *cap = (struct hky_relay_cap){.used = w->used + a->flying[w->counts_recipients],
                                      .n = w->n,
                                      .next_at_ms = next_ms > now_ms ? next_ms + wall_offset(c) : 0};
        memcpy(cap->text, w->text, sizeof cap->text);
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}
