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

struct change {
    STAILQ_ENTRY(change) link;
    char *kind, *key, *value;   /* value NULL: removed */
    void (*written)(void *ctx); /* not NULL: no change, but a call once all before it are written */
    void *ctx;
};

struct hky_state {
    sqlite3 *db;
    struct hky_log *log;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_stopping;
    struct hky_map values; /* "kind\0key" -> malloc'ed value */
    STAILQ_HEAD(, change) changes;
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

    free(value != NULL ? hky_map_put(&s->values, name, hky_strdup(value)) : hky_map_remove(&s->values, name));
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

static void store(struct hky_state *s, const struct change *c)
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
    if (!is_good)
        hky_log(s->log, HKY_LOG_ERROR, "state", "what=write kind=%s error=\"%s\"", c->kind, sqlite3_errmsg(s->db));
    sqlite3_finalize(stmt);
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

static void *writer(void *arg)
{
    struct hky_state *s = arg;

    for (;;) {
        struct change *c;

        pthread_mutex_lock(&s->lock);
        while ((c = STAILQ_FIRST(&s->changes)) == NULL && !s->is_stopping)
            pthread_cond_wait(&s->wake, &s->lock);
        if (c != NULL)
            STAILQ_REMOVE_HEAD(&s->changes, link);
        pthread_mutex_unlock(&s->lock);
        if (c == NULL)
            return NULL;
        if (c->written != NULL)
            c->written(c->ctx);
        else
            store(s, c);
        free_change(c);
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
    hky_map_init(&s->values);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
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

void hky_state_when_written(struct hky_state *s, void (*written)(void *ctx), void *ctx)
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
