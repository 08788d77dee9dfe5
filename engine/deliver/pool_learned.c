/* What a pool learns of its server: how many connections it accepts, how many messages on each, whether it can do TLS
 * and pipelining; and what follows for the connections that are opened. */
#include "deliver/pool_internal.h"

#include "deliver/servers.h"
#include "mail/reply.h"

#define CONNECTIONS_DEFAULT 10
#define FULL_FOR_MS         (60 * 60 * 1000)
#define LEARNED_FOR_MS      60000
#define NO_TLS_FOR_MS       (60 * 60 * 1000)
#define SILENT_MOST         2

/* Reports what was learned of the account. A pool without lanes has nobody to report it to. */
static void learn(const struct hky_pool *pool, enum hky_learned what, unsigned n)
{
    if (!TAILQ_EMPTY(&pool->sources))
        hky_schedule_learn(TAILQ_FIRST(&pool->sources)->lane, what, n);
}

/* Did the server turn the connection away? Up to the greeting every failure counts. After that, up to the end of the
 * login, only a temporary one counts, because a 5xx there is about us unless it speaks of connections. A 421 to the
 * first MAIL of a connection is about the connection, too. */
static bool is_turned_away(const struct hky_outbound_end *end)
{
    const struct hky_reply *r = end->reply;
    if (end->stage == HKY_STAGE_CONNECT || end->stage == HKY_STAGE_GREETING)
        return true;
    bool is_lost = r->origin == HKY_ORIGIN_LOST || end->class == HKY_CLASS_NETWORK;
    if (hky_reply_counts_connections(r) || (end->stage == HKY_STAGE_MAIL && r->code == 421))
        return true;
    return end->stage <= HKY_STAGE_AUTH && (is_lost || (r->code >= 400 && r->code < 500));
}

bool hky_pool_learn_turned_away(struct hky_pool_member *m, const struct hky_outbound_end *end)
{
    struct hky_pool *pool = m->pool;
    unsigned n_others = pool->n_open - m->is_open;
    if (n_others == 0 || m->is_detour || !is_turned_away(end))
        return false;
    pool->learned_most = n_others;
    pool->learned_until_ms = hky_loop_now_ms(pool->deliver->params.loop) + LEARNED_FOR_MS;
    learn(pool, HKY_LEARNED_CONNECTIONS, n_others);
    return true;
}

void hky_pool_learn_open(struct hky_pool *pool)
{
    if (pool->n_open > pool->learned_most && pool->learned_most > 0) {
        pool->learned_most = 0;
        learn(pool, HKY_LEARNED_CONNECTIONS, 0);
    }
    pool->is_proven = true;
}

static enum hky_server_end end_of(const struct hky_outbound_end *end)
{
    bool is_lost = end->is_broken || (end->is_silent && end->is_out_of_step);
    return is_lost ? HKY_SERVER_BROKE : end->is_out_of_step ? HKY_SERVER_OUT_OF_STEP : HKY_SERVER_PARTED;
}

/* Replies that do not fit our commands are never an accident: the first time overlap is switched off, the second time
 * pipelining. Silence may be an accident, or a server that asks another one about the sender: it counts like a lost
 * connection where the commands were overlapped; else pipelining is switched off when nothing was answered in between
 * two silences. */
static void learn_of_overlap(struct hky_pool_member *m, const struct hky_outbound_end *end)
{
    struct hky_pool *pool = m->pool;
    if (m->server != NULL && hky_server_on_end(m->server, m, end_of(end)))
        hky_log(pool->deliver->params.log, HKY_LOG_WARN, "overlap_off", "relay=%s host=%s why=%s", pool->relay->name,
                hky_outbound_host(m->connection),
                end->is_silent        ? "no reply to commands behind a message"
                : end->is_out_of_step ? "replies came out of step"
                                      : "closed with messages under way");
    if (end->is_silent && !end->is_out_of_step)
        pool->no_pipelining |= ++pool->n_silent >= SILENT_MOST;
    if (!end->is_out_of_step || end->is_silent)
        return;
    pool->no_pipelining |= pool->no_overlap;
    pool->no_overlap = true;
}

/* When the server ends two connections one after the other after the same number of messages, it accepts so many on
 * each. */
static void learn_of_fullness(struct hky_pool *pool, unsigned n)
{
    if (n == 0)
        return;
    if (n == pool->full_at) {
        pool->learned_full = n;
        learn(pool, HKY_LEARNED_MESSAGES, n);
        pool->full_until_ms = hky_loop_now_ms(pool->deliver->params.loop) + FULL_FOR_MS;
    }
    pool->full_at = n;
}

void hky_pool_learn_end(struct hky_pool_member *m, const struct hky_outbound_end *end)
{
    struct hky_pool *pool = m->pool;
    if (!end->was_open && !m->is_detour)
        pool->is_proven = false;
    if (end->no_tls)
        pool->plain_until_ms = hky_loop_now_ms(pool->deliver->params.loop) + NO_TLS_FOR_MS;
    learn_of_overlap(m, end);
    learn_of_fullness(pool, end->n_full);
}

uint32_t hky_pool_most_messages(const struct hky_pool *pool)
{
    uint32_t most = pool->relay->messages_per_connection;
    bool is_known = hky_loop_now_ms(pool->deliver->params.loop) < pool->full_until_ms;
    return is_known && (most == 0 || pool->learned_full < most) ? pool->learned_full : most;
}

unsigned hky_pool_most_connections(const struct hky_pool *pool)
{
    unsigned most = pool->relay->connections > 0 ? pool->relay->connections : CONNECTIONS_DEFAULT;
    if (hky_loop_now_ms(pool->deliver->params.loop) < pool->learned_until_ms && pool->learned_most > 0 &&
        pool->learned_most < most)
        most = pool->learned_most;
    return most;
}
