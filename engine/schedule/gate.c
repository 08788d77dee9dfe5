/*
 * The gate of an account or a destination: how its breaker and its pause open and close it.
 */
#include "gate.h"

#include <stdio.h>
#include <string.h>

#define FAILURES_TO_OPEN 5
#define OPEN_FIRST_MS    (30 * 1000)
#define OPEN_MOST_MS     (15 * 60 * 1000)
#define PAUSE_FIRST_SEC  60
#define PAUSE_MOST_SEC   3600

static void update_must_ask(struct gate *g)
{
    bool must_ask = g->breaker != BREAKER_CLOSED || g->paused_until_ms != 0 || g->failures > 0 || g->pause_sec > 0 ||
                    g->is_announced;
    __atomic_store_n(&g->must_ask, must_ask, __ATOMIC_RELEASE);
}

static bool announce(struct gate *g)
{
    bool is_news = !g->is_announced;
    g->is_announced = true;
    return is_news;
}

static void because(struct gate *g, const char *why)
{
    snprintf(g->why, sizeof g->why, "%s", why != NULL ? why : "");
}

enum gate_answer schedule_gate_ask(struct gate *g, int64_t now_ms, bool take, int64_t *until_ms)
{
    *until_ms = now_ms;
    if (g->paused_until_ms > now_ms) {
        *until_ms = g->paused_until_ms;
        return GATE_WAIT;
    }
    bool was_paused = g->paused_until_ms != 0;
    switch (g->breaker) {
    case BREAKER_PROBING:
        *until_ms = INT64_MAX;
        return GATE_WAIT;
    case BREAKER_OPEN:
        if (g->open_until_ms > now_ms) {
            *until_ms = g->open_until_ms;
            return GATE_WAIT;
        }
        break;
    default:
        if (!was_paused)
            return GATE_GO;
    }
    if (take) {
        g->paused_until_ms = 0;
        g->breaker = BREAKER_PROBING;
        update_must_ask(g);
    }
    return GATE_PROBE;
}

bool schedule_gate_on_success(struct gate *g)
{
    if (g->paused_until_ms != 0)
        return false; /* another job has paused it meanwhile: it stays paused */
    bool is_news = g->is_announced;
    g->breaker = BREAKER_CLOSED;
    g->failures = 0;
    g->open_ms = 0;
    g->pause_sec = 0;
    g->is_announced = false;
    update_must_ask(g);
    return is_news;
}

bool schedule_gate_on_failure(struct gate *g, bool was_probe, bool is_tls, int64_t now_ms, const char *why)
{
    g->failures++;
    bool opens = ((was_probe || is_tls) && g->breaker != BREAKER_OPEN) ||
                 (g->breaker == BREAKER_CLOSED && g->failures >= FAILURES_TO_OPEN);
    bool is_news = false;
    if (opens) {
        int64_t next_ms = g->open_ms * 2 < OPEN_MOST_MS ? g->open_ms * 2 : OPEN_MOST_MS;
        g->open_ms = g->open_ms == 0 ? OPEN_FIRST_MS : next_ms;
        g->breaker = BREAKER_OPEN;
        g->open_until_ms = now_ms + g->open_ms;
        g->is_tls = is_tls;
        because(g, why);
        is_news = announce(g);
    }
    update_must_ask(g);
    return is_news;
}

void schedule_gate_on_unused(struct gate *g, bool was_probe, int64_t now_ms)
{
    if (was_probe && g->breaker == BREAKER_PROBING) {
        g->breaker = BREAKER_OPEN; /* the next job is the probe */
        g->open_until_ms = now_ms;
        update_must_ask(g);
    }
}

bool schedule_gate_pause(struct gate *g, uint32_t named_sec, bool is_login, int64_t now_ms, const char *why)
{
    if (g->paused_until_ms > now_ms && named_sec == 0)
        return false; /* this is a reply to a job that was under way when the first one came */
    uint32_t grown = g->pause_sec == 0 ? PAUSE_FIRST_SEC : g->pause_sec * 2;
    g->pause_sec = grown < PAUSE_MOST_SEC ? grown : PAUSE_MOST_SEC;
    int64_t until_ms = now_ms + (int64_t)(named_sec > 0 ? named_sec : g->pause_sec) * 1000;
    if (until_ms > g->paused_until_ms) {
        g->paused_until_ms = until_ms;
        g->is_login = is_login;
    }
    g->breaker = BREAKER_CLOSED;
    because(g, why);
    bool is_news = announce(g);
    update_must_ask(g);
    return is_news;
}

bool schedule_gate_retry_login(struct gate *g, int64_t now_ms)
{
    bool was_shut = false;
    if (g->is_tls && g->breaker == BREAKER_OPEN && g->open_until_ms > now_ms) {
        g->open_until_ms = now_ms; /* the next job is the probe */
        g->open_ms = 0;
        was_shut = true;
    }
    if (g->is_login && g->paused_until_ms > now_ms) {
        g->paused_until_ms = now_ms; /* the next job is the probe */
        g->pause_sec = 0;
        was_shut = true;
        update_must_ask(g);
    }
    return was_shut;
}

void schedule_gate_probe_login(struct gate *g, int64_t now_ms)
{
    if (g->paused_until_ms != 0)
        return;
    g->paused_until_ms = now_ms > 0 ? now_ms : 1; /* 0 is no pause */
    g->is_login = true;
    update_must_ask(g);
}

bool schedule_gate_resume(struct gate *g)
{
    g->paused_until_ms = 0;
    return schedule_gate_on_success(g);
}

int64_t schedule_gate_closed_until_ms(const struct gate *g)
{
    int64_t until = g->breaker == BREAKER_OPEN ? g->open_until_ms : 0;
    return g->paused_until_ms > until ? g->paused_until_ms : until;
}
