#include "deliver/servers.h"

#include "base/buf.h"
#include "base/map.h"
#include "hikyaku/state.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define KIND           "overlap" /* in state.db */
#define SERVERS_MAX    10000
#define KEY_MAX        300
#define GOOD_NEEDED    3                                /* envelopes that a trial must bring through */
#define STRIKES_MAX    2                                /* because a trusted server may be restarted once */
#define REFUSED_FOR_MS (INT64_C(30) * 24 * 3600 * 1000) /* after that it may be another version of the server */

enum trust { TRUST_UNKNOWN, TRUST_YES, TRUST_NO };

struct hky_servers {
    struct hky_state *state;
    const struct hky_clock *clock;
    pthread_mutex_t lock;
    struct hky_map map; /* key -> struct hky_server */
    size_t n_stored;    /* rows in state.db */
};

struct hky_server {
    struct hky_servers *owner;
    char *key;
    int trust; /* enum trust; atomic, written under the lock */
    unsigned n_good, n_strikes;
    const void *trial; /* the connection that tries; NULL: none */
};

/* ---- the words of a greeting ---- */

static bool is_of_a_date(struct hky_str w)
{
    static const char *const names[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar",
                                        "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    w.n -= w.n > 0 && w.p[w.n - 1] == ',';
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (hky_str_ieq(w, hky_str_z(names[i])))
            return true;
    return false;
}

/* Numbers, times and session ids change from one connection to the next: a word with a digit, a bracket or a colon says
 * nothing about the program. */
static bool is_lasting(struct hky_str w)
{
    for (size_t i = 0; i < w.n; i++)
        if ((w.p[i] >= '0' && w.p[i] <= '9') || strchr("()[]<>:;", w.p[i]) != NULL)
            return false;
    return w.n > 0 && !is_of_a_date(w);
}

static void add_words(struct hky_buf *out, struct hky_str greeting)
{
    while (greeting.n > 0) {
        size_t n = 0;
        while (n < greeting.n && greeting.p[n] != ' ' && greeting.p[n] != '\t')
            n++;
        struct hky_str word = hky_str_of(greeting.p, n);
        if (is_lasting(word)) {
            hky_buf_add_c(out, ' ');
            hky_buf_add_str(out, word);
        }
        n += n < greeting.n;
        greeting = hky_str_of(greeting.p + n, greeting.n - n);
    }
}

/* ---- all servers ---- */

static void count_row(void *ctx, const char *key, const char *value)
{
    (void)key;
    (void)value;
    ++*(size_t *)ctx;
}

struct hky_servers *hky_servers_new(struct hky_state *state, const struct hky_clock *clock)
{
    struct hky_servers *s = hky_calloc(1, sizeof(*s));
    s->state = state;
    s->clock = clock;
    pthread_mutex_init(&s->lock, NULL);
    hky_map_init_untrusted(&s->map);
    if (state != NULL)
        hky_state_each(state, KIND, count_row, &s->n_stored);
    return s;
}

void hky_servers_free(struct hky_servers **sp)
{
    struct hky_servers *s = *sp;
    if (s == NULL)
        return;
    *sp = NULL;
    size_t at = 0;
    struct hky_map_entry *entry;
    while ((entry = hky_map_next(&s->map, &at)) != NULL) {
        struct hky_server *server = entry->value;
        free(server->key);
        free(server);
    }
    hky_map_fini(&s->map);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* "yes", or "no UNTIL" in milliseconds. */
static enum trust recall(struct hky_servers *s, const char *key)
{
    char *value = s->state != NULL ? hky_state_get(s->state, KIND, key) : NULL;
    enum trust trust = TRUST_UNKNOWN;
    uint64_t until_ms;
    int64_t now_ms = hky_clock_now_ms(s->clock);
    if (value == NULL)
        return trust;
    if (strcmp(value, "yes") == 0)
        trust = TRUST_YES;
    else if (strncmp(value, "no ", 3) == 0 && hky_str_u64(hky_str_z(value + 3), INT64_MAX, &until_ms) &&
             (int64_t)until_ms > now_ms &&
             (int64_t)until_ms - now_ms <= REFUSED_FOR_MS) /* else the clock was set back */
        trust = TRUST_NO;
    free(value);
    return trust;
}

/* With the lock held. */
static void keep(struct hky_server *server, enum trust trust)
{
    struct hky_servers *s = server->owner;
    char value[40] = "yes";
    if (__atomic_load_n(&server->trust, __ATOMIC_RELAXED) == (int)trust)
        return;
    __atomic_store_n(&server->trust, (int)trust, __ATOMIC_RELEASE);
    server->n_good = 0;
    server->trial = NULL;
    if (s->state == NULL)
        return;
    int64_t until_ms = hky_clock_now_ms(s->clock) + REFUSED_FOR_MS;
    if (trust == TRUST_NO)
        snprintf(value, sizeof(value), "no %" PRId64, until_ms);
    char *old = hky_state_get(s->state, KIND, server->key);
    if (old == NULL && (trust == TRUST_UNKNOWN || s->n_stored >= SERVERS_MAX))
        return;
    s->n_stored += old == NULL;
    free(old);
    hky_state_put(s->state, KIND, server->key, trust != TRUST_UNKNOWN ? value : NULL);
}

struct hky_server *hky_servers_get(struct hky_servers *s, const char *host, uint16_t port, struct hky_str greeting)
{
    struct hky_buf key;
    /* Whatever exceeds the bound is left out; the shorter key still identifies the server. */
    hky_buf_init(&key, KEY_MAX);
    hky_buf_printf(&key, "%s:%u", host, port);
    add_words(&key, greeting);
    pthread_mutex_lock(&s->lock);
    struct hky_server *server = hky_map_get(&s->map, hky_buf_str(&key));
    if (server == NULL && s->map.n < SERVERS_MAX) {
        server = hky_calloc(1, sizeof(*server));
        server->owner = s;
        server->key = hky_strdup(hky_buf_z(&key));
        server->trust = (int)recall(s, server->key);
        hky_map_put(&s->map, hky_str_z(server->key), server);
    }
    pthread_mutex_unlock(&s->lock);
    hky_buf_fini(&key);
    return server;
}

/* ---- one server ---- */

bool hky_server_may_overlap(struct hky_server *server, const void *connection)
{
    enum trust trust = (enum trust)__atomic_load_n(&server->trust, __ATOMIC_ACQUIRE);
    if (trust != TRUST_UNKNOWN)
        return trust == TRUST_YES;
    pthread_mutex_lock(&server->owner->lock);
    if (server->trial == NULL)
        server->trial = connection;
    bool is_trial = server->trial == connection;
    pthread_mutex_unlock(&server->owner->lock);
    return is_trial;
}

void hky_server_on_in_step(struct hky_server *server, const void *connection)
{
    if (__atomic_load_n(&server->trust, __ATOMIC_RELAXED) != TRUST_UNKNOWN)
        return;
    pthread_mutex_lock(&server->owner->lock);
    if (server->trial == connection && ++server->n_good >= GOOD_NEEDED)
        keep(server, TRUST_YES);
    pthread_mutex_unlock(&server->owner->lock);
}

bool hky_server_on_end(struct hky_server *server, const void *connection, enum hky_server_end how)
{
    bool is_news = false;
    pthread_mutex_lock(&server->owner->lock);
    enum trust trust = (enum trust)server->trust;
    bool is_trial = server->trial == connection;
    if (is_trial)
        server->trial = NULL;
    /* A restart of a trusted server ends all its connections: the first one makes the server unknown again, and the
     * others change nothing. After the first restart a new trial is allowed. */
    if (how == HKY_SERVER_OUT_OF_STEP || (how == HKY_SERVER_BROKE && is_trial)) {
        is_news = trust != TRUST_NO;
        keep(server, TRUST_NO);
    } else if (how == HKY_SERVER_BROKE && trust == TRUST_YES) {
        is_news = ++server->n_strikes >= STRIKES_MAX;
        keep(server, is_news ? TRUST_NO : TRUST_UNKNOWN);
    }
    pthread_mutex_unlock(&server->owner->lock);
    return is_news;
}
