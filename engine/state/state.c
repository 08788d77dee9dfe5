/*
 * state.db keeps what is neither mail nor history (paused and drained relays, refreshed tokens). All of it is in memory
 * for reading, and one thread writes changes through, to SQLite with synchronous=FULL. Only this file uses SQLite.
 */
#include "hikyaku/state.h"

#include "base/buf.h"
#include "base/map.h"
#include "base/secret.h"
#include "base/thread.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>

#define RETRY_MS 1000

struct change {
    STAILQ_ENTRY(change) link;
    char *kind, *key, *value; /* value NULL: removed */
    bool has_failed;          /* was tried, and the log says why it is not written */
    /* not NULL: no change, but a call once all before it were tried */
    void (*written)(void *ctx, bool is_on_disk);
    void *ctx;
};

STAILQ_HEAD(changes, change);

struct hky_state {
    sqlite3 *db;
    struct hky_log *log;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_stopping;
    struct hky_map values; /* "kind\0key" -> malloc'ed value */
    struct changes changes;
    struct changes failed; /* used by the writing thread alone; tried again until the disk takes them */
};

/* The key of the map: kind, NUL, key. */
static struct hky_str join(const char *kind, const char *key, struct hky_buf *b)
{
    hky_buf_init(b, SIZE_MAX / 4);
    hky_buf_add_z(b, kind);
    hky_buf_add_c(b, '\0');
    hky_buf_add_z(b, key);
    return hky_buf_str(b);
}

static void remember(struct hky_state *s, const char *kind, const char *key, const char *value)
{
    struct hky_buf b;
    struct hky_str name = join(kind, key, &b);

    char *old = value != NULL ? hky_map_put(&s->values, name, hky_strdup(value)) : hky_map_remove(&s->values, name);

    if (old != NULL)
        hky_secret_wipe(old, strlen(old)); /* it may be a token */
    free(old);
    hky_buf_fini(&b);
}

static enum hky_err fail(struct hky_state *s, const char *path, struct hky_error *e)
{
    return hky_error_set(e, HKY_E_IO, "cannot use %s: %s; move it away to start with an empty one", path,
                         s->db != NULL ? sqlite3_errmsg(s->db) : "no memory");
}

static enum hky_err load(struct hky_state *s, const char *path, struct hky_error *e)
{
    static const char schema[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE IF NOT EXISTS state (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
        " PRIMARY KEY (kind, key)) WITHOUT ROWID;";
    sqlite3_stmt *all = NULL;
    int rc;

    if (sqlite3_open(path, &s->db) != SQLITE_OK)
        return fail(s, path, e);
    sqlite3_busy_timeout(s->db, 5000);
    if (sqlite3_exec(s->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(s->db, "SELECT kind, key, value FROM state", -1, &all, NULL) != SQLITE_OK)
        return fail(s, path, e);
    while ((rc = sqlite3_step(all)) == SQLITE_ROW)
        remember(s, (const char *)sqlite3_column_text(all, 0), (const char *)sqlite3_column_text(all, 1),
                 (const char *)sqlite3_column_text(all, 2));
    sqlite3_finalize(all);
    return rc == SQLITE_DONE ? HKY_OK : fail(s, path, e);
}

static bool store(struct hky_state *s, struct change *c)
{
    const char *sql = c->value != NULL ? "INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3)"
                                       : "DELETE FROM state WHERE kind = ?1 AND key = ?2";
    sqlite3_stmt *stmt = NULL;
    bool is_good = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL) == SQLITE_OK;

    if (is_good) {
        sqlite3_bind_text(stmt, 1, c->kind, -1, SQLITE_STATIC);
        sqlite3_bind_text(stmt, 2, c->key, -1, SQLITE_STATIC);
        if (c->value != NULL)
            sqlite3_bind_text(stmt, 3, c->value, -1, SQLITE_STATIC);
        is_good = sqlite3_step(stmt) == SQLITE_DONE;
    }
    if (!is_good && !c->has_failed)
        hky_log(s->log, HKY_LOG_ERROR, "state",
                "what=write kind=%s error=\"%s\" note=\"a restart now would undo the change; it is written as soon as "
                "the disk takes it\"",
                c->kind, sqlite3_errmsg(s->db));
    c->has_failed |= !is_good;
    sqlite3_finalize(stmt);
    return is_good;
}

static void free_change(struct change *c)
{
    free(c->kind);
    free(c->key);
    if (c->value != NULL)
        hky_secret_wipe(c->value, strlen(c->value)); /* it may be a token */
    free(c->value);
    free(c);
}

/* A newer value of the same name makes the older one, which could not be written, void. */
static void drop_older(struct hky_state *s, const struct change *newer)
{
    struct changes kept = STAILQ_HEAD_INITIALIZER(kept);
    struct change *c;

    while ((c = STAILQ_FIRST(&s->failed)) != NULL) {
        STAILQ_REMOVE_HEAD(&s->failed, link);
        if (strcmp(c->kind, newer->kind) == 0 && strcmp(c->key, newer->key) == 0)
            free_change(c);
        else
            STAILQ_INSERT_TAIL(&kept, c, link);
    }
    STAILQ_CONCAT(&s->failed, &kept);
}

static void write_one(struct hky_state *s, struct change *c)
{
    if (c->written != NULL) {
        c->written(c->ctx, STAILQ_EMPTY(&s->failed));
    } else {
        drop_older(s, c);
        if (!store(s, c)) {
            STAILQ_INSERT_TAIL(&s->failed, c, link);
            return;
        }
    }
    free_change(c);
}

static void write_failed(struct hky_state *s)
{
    struct change *c;

    while ((c = STAILQ_FIRST(&s->failed)) != NULL && store(s, c)) {
        STAILQ_REMOVE_HEAD(&s->failed, link);
        hky_log(s->log, HKY_LOG_INFO, "state", "what=written kind=%s note=\"the disk takes changes again\"", c->kind);
        free_change(c);
    }
}

static void forget_failed(struct hky_state *s)
{
    struct change *c;

    while ((c = STAILQ_FIRST(&s->failed)) != NULL) {
        STAILQ_REMOVE_HEAD(&s->failed, link);
        hky_log(s->log, HKY_LOG_ERROR, "state",
                "what=lost kind=%s note=\"the disk did not take the change before the stop\"", c->kind);
        free_change(c);
    }
}

static int64_t mono_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* With the lock held, until there is something to do. */
static void wait_for_work(struct hky_state *s, int64_t retry_at_ms)
{
    struct timespec until = {.tv_sec = retry_at_ms / 1000, .tv_nsec = retry_at_ms % 1000 * 1000000};

    if (STAILQ_EMPTY(&s->failed))
        pthread_cond_wait(&s->wake, &s->lock);
    else
        pthread_cond_timedwait(&s->wake, &s->lock, &until);
}

static void *writer(void *arg)
{
    struct hky_state *s = arg;
    int64_t retry_at_ms = 0;

    for (;;) {
        bool is_retry, is_end;
        struct change *c;

        pthread_mutex_lock(&s->lock);
        for (;;) {
            c = STAILQ_FIRST(&s->changes);
            is_end = c == NULL && s->is_stopping;
            /* also when there are changes all the time */
            is_retry = !STAILQ_EMPTY(&s->failed) && (is_end || mono_ms() >= retry_at_ms);
            if (c != NULL || is_end || is_retry)
                break;
            wait_for_work(s, retry_at_ms);
        }
        if (c != NULL && !is_retry)
            STAILQ_REMOVE_HEAD(&s->changes, link);
        pthread_mutex_unlock(&s->lock);
        if (is_retry) {
            write_failed(s);
            retry_at_ms = mono_ms() + RETRY_MS;
        } else if (c != NULL) {
            bool has_failed = !STAILQ_EMPTY(&s->failed);
            write_one(s, c);
            if (!has_failed)
                retry_at_ms = mono_ms() + RETRY_MS;
        }
        if (is_end) {
            forget_failed(s);
            return NULL;
        }
    }
}

enum hky_err hky_state_open(const char *dir, struct hky_log *log, struct hky_state **out, struct hky_error *e)
{
    struct hky_state *s = hky_calloc(1, sizeof *s);
    char path[4096];
    mode_t mask = umask(077); /* tokens are inside */
    enum hky_err err;

    *out = NULL;
    s->log = log;
    STAILQ_INIT(&s->changes);
    STAILQ_INIT(&s->failed);
    hky_map_init(&s->values);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* what failed is tried again whatever the wall clock does */
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    snprintf(path, sizeof path, "%s/state.db", dir);
    err = load(s, path, e);
    umask(mask);
    if (err == HKY_OK) {
        int why = hky_thread_start(&s->thread, writer, s);
        if (why == 0) {
            *out = s;
            return HKY_OK;
        }
        err = hky_error_sys(e, HKY_E_LIMIT, why, "no thread to write state.db with");
    }
    sqlite3_close(s->db);
    struct hky_map_entry *entry;
    size_t at = 0;
    while ((entry = hky_map_next(&s->values, &at)) != NULL) {
        hky_secret_wipe(entry->value, strlen(entry->value));
        free(entry->value);
    }
    hky_map_fini(&s->values);
    free(s);
    return err;
}

void hky_state_close(struct hky_state **state)
{
    struct hky_state *s = *state;
    struct hky_map_entry *entry;
    size_t at = 0;

    *state = NULL;
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    sqlite3_close(s->db);
    while ((entry = hky_map_next(&s->values, &at)) != NULL) {
        hky_secret_wipe(entry->value, strlen(entry->value));
        free(entry->value);
    }
    hky_map_fini(&s->values);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

char *hky_state_get(struct hky_state *s, const char *kind, const char *key)
{
    struct hky_buf b;
    struct hky_str name = join(kind, key, &b);
    const char *value;
    char *copy;

    pthread_mutex_lock(&s->lock);
    value = hky_map_get(&s->values, name);
    copy = value != NULL ? hky_strdup(value) : NULL;
    pthread_mutex_unlock(&s->lock);
    hky_buf_fini(&b);
    return copy;
}

void hky_state_put(struct hky_state *s, const char *kind, const char *key, const char *value)
{
    struct change *c = hky_calloc(1, sizeof *c);

    c->kind = hky_strdup(kind);
    c->key = hky_strdup(key);
    c->value = value != NULL ? hky_strdup(value) : NULL;
    pthread_mutex_lock(&s->lock);
    remember(s, kind, key, value);
    STAILQ_INSERT_TAIL(&s->changes, c, link);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void hky_state_when_written(struct hky_state *s, void (*written)(void *ctx, bool is_on_disk), void *ctx)
{
    struct change *c = hky_calloc(1, sizeof *c);

    c->written = written;
    c->ctx = ctx;
    pthread_mutex_lock(&s->lock);
    STAILQ_INSERT_TAIL(&s->changes, c, link);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void hky_state_each(struct hky_state *s, const char *kind, void (*each)(void *ctx, const char *key, const char *value),
                    void *ctx)
{
    struct hky_map_entry *entry;
    size_t at = 0, n = strlen(kind);

    pthread_mutex_lock(&s->lock);
    while ((entry = hky_map_next(&s->values, &at)) != NULL)
        if (strcmp(entry->key, kind) == 0)
            each(ctx, entry->key + n + 1, entry->value);
    pthread_mutex_unlock(&s->lock);
}
