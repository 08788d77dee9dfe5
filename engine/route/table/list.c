/* list "file": sets that are read again when their file changes. */
#include "route/table/foreign.h"
#include "route/table/inside.h"
#include "route/table/match.h"

#include "base/hash.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define STILL_MS        2000
#define STILL_SHRUNK_MS 15000

/* A # begins a comment at the start of a line and after a blank; within an address it is a character like any other. */
static struct hky_str without_comment(struct hky_str s)
{
    bool is_quoted = false;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"')
            is_quoted = !is_quoted;
        if (s.p[i] == '#' && !is_quoted && (i == 0 || s.p[i - 1] == ' ' || s.p[i - 1] == '\t'))
            return hky_str_trim(hky_str_of(s.p, i));
    }
    return s;
}

enum hky_err hky_list_parse(struct hky_str text, const char *name, struct hky_set *set, struct hky_error *e)
{
    unsigned line = 0;

    while (text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end != NULL ? (size_t)(end - text.p) : text.n;
        struct hky_str s = hky_str_trim(hky_str_of(text.p, n));
        struct hky_set_entry entry;
        struct hky_error why = {0};
        struct hky_foreign foreign;
        char hint[HKY_FOREIGN_TEXT];
        line++;
        text.p += end != NULL ? n + 1 : n;
        text.n -= end != NULL ? n + 1 : n;
        if (line == 1)
            s = hky_utf8_unmarked(s);
        s = without_comment(s);
        if (s.n == 0)
            continue;
        if (!hky_utf8_is_valid(s))
            return hky_error_set(e, HKY_E_SYNTAX, "%s:%u: not UTF-8: save the file as UTF-8", name, line);
        foreign = hky_foreign_find(s, HKY_FOREIGN_EXACT);
        if (foreign.kind != HKY_FOREIGN_NONE)
            return hky_error_set(e, HKY_E_SYNTAX, "%.60s:%u: there %s", name, line,
                                 hky_foreign_text(s, &foreign, false, hint)); /* the line is not shown */
        if (memchr(s.p, '*', s.n) != NULL && hky_set_entry_parse(s, &entry, &why) != HKY_OK)
            return hky_error_set(e, HKY_E_SYNTAX,
                                 "%s:%u: an entry is no pattern: all addresses of a domain are the domain alone", name,
                                 line);
        if (hky_set_entry_parse(s, &entry, &why) != HKY_OK)
            return hky_error_set(e, HKY_E_SYNTAX, "%s:%u: no address, domain or .domain: %s", name, line, why.text);
        hky_set_add(set, &entry);
    }
    return HKY_OK;
}

static enum hky_err set_of(const struct hky_list *l, struct hky_str text, struct hky_set **out, struct hky_error *e)
{
    enum hky_err err;

    *out = hky_set_new();
    err = hky_list_parse(text, l->name, *out, e);
    if (err != HKY_OK)
        hky_set_unref(out);
    return err;
}

static bool ends_with_line(struct hky_str text)
{
    return text.n == 0 || text.p[text.n - 1] == '\n';
}

enum hky_err hky_list_open(struct hky_list *l, struct hky_error *e)
{
    char *text;
    size_t n;
    enum hky_err err = hky_inside_read(l->dir, l->name, HKY_LIST_OCTETS_MAX, &text, &n, &l->seen, e);

    if (err != HKY_OK)
        return err;
    l->hash = hky_hash64(text, n, 0);
    l->has_line_end = ends_with_line(hky_str_of(text, n));
    err = set_of(l, hky_str_of(text, n), &l->set, e);
    free(text);
    if (err == HKY_OK)
        pthread_mutex_init(&l->lock, NULL);
    return err;
}

/* The same file as when it was read last, by its time and size: the usual case, and cheap. */
static bool is_as_read(const struct hky_list *l)
{
    char path[PATH_MAX];
    struct stat now;

    return (size_t)snprintf(path, sizeof path, "%s/%s", l->dir, l->name) < sizeof path && stat(path, &now) == 0 &&
           hky_inside_is_same(&now, &l->seen);
}

static void take(struct hky_list *l, struct hky_set *set)
{
    struct hky_set *was;

    pthread_mutex_lock(&l->lock);
    was = l->set;
    l->set = set;
    pthread_mutex_unlock(&l->lock);
    hky_set_unref(&was);
}

/* How long the file `now`, with `n` entries, must be unchanged before it replaces the `had` entries of `was`. A file
 * that was renamed into place is whole; one that is written in place may be written slowly, so that its end is still
 * missing. */
static int64_t still_ms(const struct hky_list *was, size_t had, const struct stat *now, bool has_line_end, size_t n)
{
    bool is_in_place = now->st_dev == was->seen.st_dev && now->st_ino == was->seen.st_ino;

    if (n < had / 2 + had % 2)
        return STILL_SHRUNK_MS;
    return is_in_place && (n < had || (was->has_line_end && !has_line_end)) ? STILL_SHRUNK_MS : STILL_MS;
}

/* The file has been unchanged for a while: take the new set, or say why it cannot be taken yet. */
static enum hky_list_state settle(struct hky_list *l, struct hky_str text, int64_t was_still_ms,
                                  struct hky_list_messages *messages)
{
    struct hky_set *set;
    size_t n, had = hky_set_n(l->set);

    if (set_of(l, text, &set, &messages->error) == HKY_OK) {
        n = hky_set_n(set);
        if (was_still_ms < still_ms(l, had, &l->change.seen, ends_with_line(text), n)) {
            if (!l->change.is_reported && n < had / 2 + had % 2)
                hky_error_set(&messages->warning, HKY_E_STATE,
                              "%.120s has lost more than half of its entries (%zu are left of %zu): it counts when it "
                              "has not changed for %d s",
                              l->name, n, had, STILL_SHRUNK_MS / 1000);
            l->change.is_reported = true;
            hky_set_unref(&set);
            return HKY_LIST_WAITS;
        }
        if (n < had)
            hky_error_set(&messages->fewer, HKY_E_STATE, "%.120s has %zu entries, %zu before", l->name, n, had);
        l->has_line_end = ends_with_line(text);
        take(l, set);
    }
    l->seen = l->change.seen; /* also with a bad line, so that it is reported once */
    l->hash = l->change.hash;
    l->change.is_there = false;
    return set != NULL ? HKY_LIST_TAKEN : HKY_LIST_SAME;
}

enum hky_list_state hky_list_refresh(struct hky_list *l, int64_t mono_ms, struct hky_list_messages *messages)
{
    enum hky_list_state state = HKY_LIST_WAITS;
    struct hky_error why = {0};
    struct stat st;
    char *text;
    size_t n;
    uint64_t hash;

    if (is_as_read(l)) {
        l->change.is_there = false;
        return HKY_LIST_SAME;
    }
    if (hky_inside_read(l->dir, l->name, HKY_LIST_OCTETS_MAX, &text, &n, &st, &why) != HKY_OK) {
        l->change.is_there = false;
        if (why.code == HKY_E_STATE)
            return HKY_LIST_WAITS; /* it is being written */
        hky_error_set(&messages->error, why.code, "%.60s: %.160s", l->name, why.text);
        return HKY_LIST_SAME;
    }
    hash = hky_hash64(text, n, 0);
    if (hash == l->hash) { /* only the file's time has changed */
        l->seen = st;
        l->change.is_there = false;
        state = HKY_LIST_SAME;
    } else if (!l->change.is_there || l->change.hash != hash || !hky_inside_is_same(&l->change.seen, &st)) {
        bool is_reported = l->change.is_there && l->change.is_reported;
        l->change.is_there = true;
        l->change.is_reported = is_reported;
        l->change.seen = st;
        l->change.hash = hash;
        l->change.since_ms = mono_ms;
    } else if (mono_ms - l->change.since_ms >= STILL_MS) {
        state = settle(l, hky_str_of(text, n), mono_ms - l->change.since_ms, messages);
    }
    free(text);
    return state;
}

/* Since when, in ms since 1970, nobody has written the file or put it into its place. */
static int64_t written_at_ms(const struct stat *st)
{
    const struct timespec *m = &st->st_mtim, *c = &st->st_ctim;
    int64_t m_ms = (int64_t)m->tv_sec * 1000 + m->tv_nsec / 1000000;
    int64_t c_ms = (int64_t)c->tv_sec * 1000 + c->tv_nsec / 1000000;

    return m_ms > c_ms ? m_ms : c_ms;
}

enum hky_list_state hky_list_succeed(struct hky_list *l, struct hky_list *was, int64_t mono_ms, int64_t now_ms)
{
    struct hky_set *set = hky_list_set(was);
    int64_t wait_ms = still_ms(was, hky_set_n(set), &l->seen, l->has_line_end, hky_set_n(l->set));
    bool has_all = l->has_line_end && hky_set_is_subset(set, l->set);

    if (l->hash == was->hash || has_all || now_ms - written_at_ms(&l->seen) >= wait_ms) {
        hky_set_unref(&set);
        return l->hash == was->hash ? HKY_LIST_SAME : HKY_LIST_TAKEN;
    }
    l->change = was->change;
    if (!l->change.is_there || l->change.hash != l->hash || !hky_inside_is_same(&l->change.seen, &l->seen)) {
        l->change.is_reported &= l->change.is_there;
        l->change.is_there = true;
        l->change.seen = l->seen;
        l->change.hash = l->hash;
        l->change.since_ms = mono_ms;
    }
    l->seen = was->seen;
    l->hash = was->hash;
    l->has_line_end = was->has_line_end;
    take(l, set);
    return HKY_LIST_WAITS;
}

struct hky_set *hky_list_set(struct hky_list *l)
{
    struct hky_set *set;

    pthread_mutex_lock(&l->lock);
    set = l->set;
    if (set != NULL)
        __atomic_add_fetch(&set->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&l->lock);
    return set;
}

bool hky_list_has(struct hky_list *l, const struct hky_match_key *k)
{
    struct hky_set *set = hky_list_set(l);
    bool has = set != NULL && hky_set_has(set, k);

    hky_set_unref(&set);
    return has;
}

bool hky_match_has(const struct hky_match *m, const struct hky_match_key *k)
{
    if (m->set != NULL && hky_set_has(m->set, k))
        return true;
    for (uint32_t i = 0; i < m->n_lists; i++)
        if (hky_list_has(m->lists[i], k))
            return true;
    return false;
}
