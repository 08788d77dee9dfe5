/* The work of a pool: takes jobs from its lanes, opens connections for them, and reports what became of them. */
#include "deliver/pool_internal.h"

#include "base/hash.h"
#include "deliver/servers.h"
#include "deliver/outcome.h"
#include "base/clock.h"
#include "mail/reply.h"

#include <stdio.h>
#include <stdlib.h>

#define FREE_DELIVERIES_MAX 256

/* ---- deliveries ---- */

static struct hky_delivery *delivery_get(struct hky_deliver *d)
{
    struct hky_delivery *x = d->free_deliveries;
    if (x == NULL)
        return hky_delivery_new();
    d->free_deliveries = x->free_next;
    d->n_free--;
    return x;
}

static void delivery_put(struct hky_deliver *d, struct hky_delivery *x)
{
    if (x->is_reading || x->has_piece || d->n_free >= FREE_DELIVERIES_MAX) {
        hky_delivery_free(&x);
        return;
    }
    x->free_next = d->free_deliveries;
    d->free_deliveries = x;
    d->n_free++;
}

static struct hky_delivery *delivery_of_job(struct hky_pool *pool, struct hky_job *job)
{
    struct hky_deliver *d = pool->deliver;
    struct hky_delivery *x = delivery_get(d);
    hky_delivery_reset(x, job->n);
    x->job = job;
    x->message = hky_message_ref(job->message);
    x->identity = &job->identity;
    x->recipients = (const struct hky_recipient *const *)job->recipients;
    x->hostname = pool->policy->engine.hostname;
    x->journal = d->params.journal;
    x->loop = d->params.loop;
    return x;
}

static void delivery_over(struct hky_pool *pool, struct hky_delivery *x)
{
    for (unsigned i = 0; i < x->txn.n && x->n_answers > 0; i++)
        hky_delivery_forget_answer(x, i);
    /* A reader thread may still need the message for a piece; then the delivery keeps its reference until it is freed.
     */
    if (!x->is_reading)
        hky_message_unref(&x->message);
    delivery_put(pool->deliver, x);
}

/* ---- taking and reporting ---- */

/* Lanes take turns: the one that gave a job becomes the last. */
static struct hky_job *take_job(struct hky_pool *pool)
{
    if (pool->deliver->is_draining)
        return NULL;
    struct hky_pool_source *source = TAILQ_FIRST(&pool->sources), *last = TAILQ_LAST(&pool->sources, hky_sources_head);
    while (source != NULL) {
        struct hky_job *job = NULL;
        bool is_last = source == last;
        struct hky_pool_source *next = TAILQ_NEXT(source, link);
        if (hky_schedule_take(source->lane, &job) == HKY_TAKE_JOB) {
            TAILQ_REMOVE(&pool->sources, source, link);
            TAILQ_INSERT_TAIL(&pool->sources, source, link);
            pool->n_taken++;
            return job;
        }
        source = is_last ? NULL : next;
    }
    return NULL;
}

static void keep(struct hky_pool_member *m, struct hky_delivery *x)
{
    HKY_ASSERT(m->live[0] == NULL || m->live[1] == NULL);
    m->live[m->live[0] == NULL ? 0 : 1] = x;
}

static void forget(struct hky_pool_member *m, struct hky_delivery *x)
{
    HKY_ASSERT(m->live[0] == x || m->live[1] == x);
    m->live[m->live[0] == x ? 0 : 1] = NULL;
}

static struct hky_delivery *on_next(void *ctx, struct hky_outbound *c)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    struct hky_job *job = take_job(m->pool);
    if (job == NULL)
        return NULL;
    struct hky_delivery *x = delivery_of_job(m->pool, job);
    keep(m, x);
    return x;
}

static void on_result(void *ctx, struct hky_outbound *c, struct hky_delivery *x, unsigned i, enum hky_stage stage,
                      enum hky_class class, const struct hky_reply *reply)
{
    struct hky_pool_member *m = ctx;
    struct hky_pool *pool = m->pool;
    struct hky_outcome o;
    struct hky_deliver_outcome_query q = {
        .policy = pool->policy,
        .relay = pool->relay,
        .host = hky_outbound_host(c),
        .stage = stage,
        .class = class,
        .reply = reply,
        .address = hky_recipient_address(x->recipients[i]),
        .now_ms = hky_clock_now_ms(pool->deliver->params.clock),
    };
    hky_deliver_outcome(&q, &o);
    if (reply->code != 0)
        pool->n_silent = 0;
    o.host = pool->relay->is_mx ? q.host : NULL;
    o.takes_dsn = hky_outbound_caps(c)->dsn;
    if (x->mail_at_ms > 0)
        o.latency_ms = (uint32_t)(hky_loop_now_ms(pool->deliver->params.loop) - x->mail_at_ms);
    hky_schedule_result(x->job, i, &o);
}

static void on_done(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    struct hky_job *job = x->job;
    mail_sent |= x->is_mail_sent;
    forget(m, x);
    delivery_over(m->pool, x);
    hky_schedule_done(&job, mail_sent);
}

static void on_try_elsewhere(void *ctx, struct hky_outbound *c, struct hky_delivery *x)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    forget(m, x);
    hky_delivery_rewind(&x);
    TAILQ_INSERT_TAIL(&m->pool->detours, x, link);
    hky_pool_wake(m->pool);
}

static void on_give_back(void *ctx, struct hky_outbound *c, struct hky_delivery *x, bool mail_sent)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    struct hky_job *job = x->job;
    bool is_mail_sent = x->is_mail_sent;
    forget(m, x);
    delivery_over(m->pool, x);
    if (mail_sent || is_mail_sent)
        hky_schedule_done(&job, true);
    else
        hky_schedule_give_back(&job);
    hky_pool_wake(m->pool);
}

static void on_too_many(void *ctx, struct hky_outbound *c, struct hky_delivery *x, unsigned n_taken)
{
    (void)ctx;
    (void)c;
    hky_schedule_learn(x->job->lane, HKY_LEARNED_RECIPIENTS, n_taken);
}

static bool on_may_give_back(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    /* in a drain the next start tries it afresh */
    return m->pool->deliver->is_draining || hky_pool_learn_turned_away(m, end);
}

static void on_open(void *ctx, struct hky_outbound *c)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    m->is_open = true;
    m->pool->n_open++;
    hky_pool_learn_open(m->pool);
    hky_pool_wake(m->pool); /* further connections may be opened now */
}

static void on_greeted(void *ctx, struct hky_outbound *c, struct hky_str text)
{
    struct hky_pool_member *m = ctx;
    m->server = hky_servers_get(m->pool->deliver->servers, hky_outbound_host(c), m->pool->port, text);
}

static bool on_may_overlap(void *ctx, struct hky_outbound *c)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    return !m->pool->no_overlap && m->server != NULL && hky_server_may_overlap(m->server, m);
}

static void on_in_step(void *ctx, struct hky_outbound *c)
{
    struct hky_pool_member *m = ctx;
    (void)c;
    if (m->server != NULL)
        hky_server_on_in_step(m->server, m);
}

static void on_closed(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end)
{
    struct hky_pool_member *m = ctx;
    struct hky_pool *pool = m->pool;
    (void)c;
    HKY_ASSERT(m->live[0] == NULL && m->live[1] == NULL);
    hky_pool_learn_end(m, end);
    if (m->is_open)
        pool->n_open--;
    pool->n_members--;
    TAILQ_REMOVE(&pool->members, m, link);
    free(m);
    hky_pool_wake(pool);
}

static void on_want_secret(void *ctx, struct hky_outbound *c, struct hky_secret *refused,
                           void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct hky_pool_member *m = ctx;
    const struct hky_deliver_params *p = &m->pool->deliver->params;
    /* These are the connection's policy and relay, not the pool's: they are kept until the answer, even if another
     * policy is loaded meanwhile.
     */
    p->secret(p->ctx, p->worker, hky_outbound_policy(c), hky_outbound_relay(c), refused, done, arg);
}

static const struct hky_outbound_ops connection_ops = {
    .next = on_next,
    .may_overlap = on_may_overlap,
    .greeted = on_greeted,
    .in_step = on_in_step,
    .result = on_result,
    .done = on_done,
    .give_back = on_give_back,
    .try_elsewhere = on_try_elsewhere,
    .too_many = on_too_many,
    .may_give_back = on_may_give_back,
    .open = on_open,
    .closed = on_closed,
    .secret = on_want_secret,
};

/* ---- opening ---- */

static bool needs_tls(const struct hky_pool *pool)
{
    return !pool->is_redirected && pool->relay->tls != HKY_TLS_NONE;
}

static bool has_tls(struct hky_pool *pool)
{
    if (!needs_tls(pool) || pool->tls != NULL)
        return true;
    struct hky_error e;
    struct hky_tls_client_params p = {
        .is_verified = pool->relay->tls != HKY_TLS_OPPORTUNISTIC,
        .ca_file = pool->relay->ca,
        .pin = pool->relay->pin,
    };
    if (hky_tls_client_new(&p, &pool->tls, &e) == HKY_OK)
        return true;
    snprintf(pool->tls_problem, sizeof(pool->tls_problem), "%s", e.text);
    return false;
}

static void open_one(struct hky_pool *pool, struct hky_delivery *x, bool is_detour)
{
    struct hky_deliver *d = pool->deliver;
    struct hky_pool_member *m = hky_calloc(1, sizeof(*m));
    m->pool = pool;
    const char *hello = pool->relay->hello != NULL && pool->relay->hello[0] != '\0' ? pool->relay->hello
                                                                                    : pool->policy->engine.hostname;
    m->is_detour = is_detour;
    keep(m, x);
    struct hky_outbound_params p = {
        .loop = d->params.loop,
        .log = d->params.log,
        .dns = hky_deliver_dns(d, pool->policy),
        .policy = pool->policy,
        .relay = pool->relay,
        .hello = hello,
        .hosts = pool->hosts,
        .n_hosts = pool->n_hosts,
        .port = pool->port,
        .tls = needs_tls(pool) ? pool->tls : NULL,
        .is_redirected = pool->is_redirected,
        .is_plain = hky_loop_now_ms(d->params.loop) < pool->plain_until_ms,
        .no_pipelining = pool->no_pipelining,
        .most = is_detour ? 1 : hky_pool_most_messages(pool),
        .most_hosts = pool->policy->engine.bounds.hosts,
        .waits = &d->waits,
        .bound = x,
        .ops = &connection_ops,
        .ctx = m,
    };
    TAILQ_INSERT_TAIL(&pool->members, m, link);
    pool->n_members++;
    m->connection = hky_outbound_new(&p);
}

static bool may_open(const struct hky_pool *pool)
{
    if (pool->n_members >= hky_pool_most_connections(pool))
        return false;
    /* A destination that is not known to work is tried by one connection, so that only one job fails with it, not all.
     */
    return pool->is_proven || pool->n_members == pool->n_open;
}

static void fail_job(struct hky_job *job, enum hky_stage stage, enum hky_class class, const struct hky_reply *reply)
{
    struct hky_outcome o = {
        .class = class,
        .scope = class == HKY_CLASS_BAD_DOMAIN || class == HKY_CLASS_UNKNOWN ? HKY_SCOPE_DOMAIN : HKY_SCOPE_RELAY,
        .stage = stage,
        .is_temporary = class == HKY_CLASS_NETWORK || class == HKY_CLASS_SYSTEM_TEMP,
        .reply = *reply,
    };
    for (unsigned i = 0; i < job->n; i++)
        hky_schedule_result(job, i, &o);
    hky_schedule_done(&job, false);
}

bool hky_pool_fail_next_job(struct hky_lane *lane, enum hky_stage stage, enum hky_class class,
                            const struct hky_reply *reply)
{
    struct hky_job *job = NULL;
    if (hky_schedule_take(lane, &job) != HKY_TAKE_JOB)
        return false;
    fail_job(job, stage, class, reply);
    return true;
}

/* No further host is asked: what the hosts said so far is the outcome. */
static void end_detour(struct hky_pool *pool, struct hky_delivery *x)
{
    struct hky_job *job = x->job;
    for (unsigned i = 0; i < x->txn.n; i++) {
        if (x->answers == NULL || x->answers[i] == NULL)
            continue;
        const struct hky_kept_answer *k = x->answers[i];
        struct hky_outcome o;
        struct hky_deliver_outcome_query q = {
            .policy = pool->policy,
            .relay = pool->relay,
            .host = pool->hosts[0].host,
            .stage = k->stage,
            .class = k->class,
            .reply = &k->reply,
            .address = hky_recipient_address(x->recipients[i]),
            .now_ms = hky_clock_now_ms(pool->deliver->params.clock),
        };
        hky_deliver_outcome(&q, &o);
        hky_schedule_result(job, i, &o);
    }
    delivery_over(pool, x);
    hky_schedule_done(&job, true);
}

static void set_waiting(struct hky_pool *pool, bool is_waiting)
{
    if (pool->is_waiting == is_waiting)
        return;
    pool->is_waiting = is_waiting;
    if (is_waiting)
        TAILQ_INSERT_TAIL(&pool->deliver->waiting, pool, waiting_link);
    else
        TAILQ_REMOVE(&pool->deliver->waiting, pool, waiting_link);
}

void hky_pool_wake_waiting(struct hky_deliver *d, const struct hky_lane *lane)
{
    struct hky_pool *pool;
    struct hky_delivery *x;
    TAILQ_FOREACH (pool, &d->waiting, waiting_link) {
        x = TAILQ_FIRST(&pool->detours);
        while (x != NULL && x->job->lane != lane)
            x = TAILQ_NEXT(x, link);
        if (x != NULL)
            hky_pool_wake(pool);
    }
}

/* Opens the detours one after the other, within the bound of connections. Where there is no room, other connections are
 * asked to leave. */
static void open_detours(struct hky_pool *pool)
{
    struct hky_delivery *x, *after;
    unsigned n_leaving = 0, n_without_room = 0;
    bool is_draining = pool->deliver->is_draining, is_waiting = false;
    for (x = TAILQ_FIRST(&pool->detours);
         x != NULL && (is_draining || pool->n_members < hky_pool_most_connections(pool)); x = after) {
        after = TAILQ_NEXT(x, link);
        /* A reload drops the settings of TLS, and without them the connection would be in clear. */
        bool may_go = !is_draining && has_tls(pool);
        enum hky_take take = may_go ? hky_schedule_take_again(x->job) : HKY_TAKE_EMPTY;
        if (take == HKY_TAKE_WAIT) { /* there is no slot of the cap; the lane wakes us when there is one */
            is_waiting = true;
            continue;
        }
        TAILQ_REMOVE(&pool->detours, x, link);
        if (take == HKY_TAKE_EMPTY) {
            end_detour(pool, x);
            continue;
        }
        x->is_mail_sent = false; /* the earlier MAIL is counted already */
        open_one(pool, x, true);
    }
    set_waiting(pool, is_waiting);
    for (; x != NULL; x = TAILQ_NEXT(x, link))
        n_without_room++;
    struct hky_pool_member *m, *next;
    TAILQ_FOREACH (m, &pool->members, link)
        n_leaving += m->is_leaving || m->is_detour;
    for (m = TAILQ_FIRST(&pool->members); m != NULL && n_leaving < n_without_room; m = next) {
        next = TAILQ_NEXT(m, link);
        if (m->is_leaving || m->is_detour)
            continue;
        m->is_leaving = true;
        n_leaving++;
        hky_outbound_retire(m->connection);
    }
}

static void work(struct hky_pool *pool)
{
    struct hky_pool_member *m, *next;
    if (!TAILQ_EMPTY(&pool->detours))
        open_detours(pool);
    for (m = TAILQ_FIRST(&pool->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        if (!hky_outbound_is_idle(m->connection))
            continue;
        uint64_t before = pool->n_taken;
        hky_outbound_kick(m->connection); /* this may close the connection and free `m` */
        if (pool->n_taken == before)
            break;
    }
    while (!pool->deliver->is_draining && may_open(pool)) {
        struct hky_job *job = take_job(pool);
        if (job == NULL)
            break;
        if (has_tls(pool)) {
            open_one(pool, delivery_of_job(pool, job), false);
            continue;
        }
        struct hky_reply reply;
        hky_reply_local(&reply, HKY_ORIGIN_TLS, "%s", pool->tls_problem);
        fail_job(job, HKY_STAGE_TLS, HKY_CLASS_TLS, &reply);
    }
}

/* No lane leads to this pool and no connection is open: the pool can be freed. */
static bool is_forsaken(const struct hky_pool *pool)
{
    return TAILQ_EMPTY(&pool->sources) && TAILQ_EMPTY(&pool->detours) && pool->n_members == 0;
}

static void pool_release(struct hky_pool *pool)
{
    hky_tls_unref(&pool->tls);
    hky_policy_unref(&pool->policy);
    free(pool->hosts);
    free(pool->key);
    free(pool);
}

static void on_task(struct hky_task *task)
{
    struct hky_pool *pool = HKY_CONTAINER(task, struct hky_pool, task);
    pool->is_queued = false;
    if (pool->deliver == NULL) { /* hky_pool_free was called meanwhile */
        pool_release(pool);
        return;
    }
    work(pool);
    if (is_forsaken(pool) && !pool->is_queued) {
        hky_map_remove(&pool->deliver->pools, hky_str_z(pool->key));
        pool_release(pool);
    }
}

void hky_pool_wake(struct hky_pool *pool)
{
    if (pool->is_queued)
        return;
    pool->is_queued = true;
    pool->task.run = on_task;
    hky_loop_defer(pool->deliver->params.loop, &pool->task);
}

void hky_pool_attach(struct hky_pool *pool, struct hky_pool_source *source)
{
    HKY_ASSERT(source->pool == NULL);
    TAILQ_REMOVE(&source->deliver->unassigned, source, link);
    source->pool = pool;
    TAILQ_INSERT_TAIL(&pool->sources, source, link);
}

void hky_pool_detach(struct hky_pool_source *source)
{
    if (source->pool == NULL)
        return;
    TAILQ_REMOVE(&source->pool->sources, source, link);
    hky_pool_wake(source->pool); /* this may have been its last lane */
    source->pool = NULL;
    TAILQ_INSERT_TAIL(&source->deliver->unassigned, source, link);
}

void hky_pool_drain(struct hky_pool *pool)
{
    if (!TAILQ_EMPTY(&pool->detours))
        hky_pool_wake(pool);
    struct hky_pool_member *m, *next;
    for (m = TAILQ_FIRST(&pool->members); m != NULL; m = next) {
        next = TAILQ_NEXT(m, link);
        hky_outbound_drain(m->connection); /* this may close the connection and free `m` */
    }
}

void hky_pool_free(struct hky_pool *pool)
{
    struct hky_pool_member *m;
    while ((m = TAILQ_FIRST(&pool->members)) != NULL) {
        hky_outbound_abandon(&m->connection);
        for (int i = 0; i < 2; i++) {
            struct hky_delivery *x = m->live[i];
            if (x == NULL)
                continue;
            struct hky_job *job = x->job;
            bool is_mail_sent = x->is_mail_sent || x->mail_at_ms > 0; /* the server may have counted it */
            delivery_over(pool, x);
            if (is_mail_sent)
                hky_schedule_done(&job, true);
            else
                hky_schedule_give_back(&job);
        }
        TAILQ_REMOVE(&pool->members, m, link);
        free(m);
    }
    set_waiting(pool, false);
    struct hky_delivery *detour;
    while ((detour = TAILQ_FIRST(&pool->detours)) != NULL) {
        struct hky_job *job = detour->job;
        TAILQ_REMOVE(&pool->detours, detour, link);
        delivery_over(pool, detour);
        hky_schedule_done(&job, true);
    }
    struct hky_pool_source *source;
    while ((source = TAILQ_FIRST(&pool->sources)) != NULL) {
        TAILQ_REMOVE(&pool->sources, source, link);
        hky_dns_cancel(&source->query);
        source->lane->deliver = NULL;
        free(source);
    }
    pool->deliver = NULL;
    if (!pool->is_queued)
        pool_release(pool);
}
