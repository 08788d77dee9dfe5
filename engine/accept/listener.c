#include "accept/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- listeners --- */

static void close_sockets(struct hky_accept *a, struct accept_listener *listener)
{
    for (unsigned i = 0; i < a->params.n_workers; i++) {
        if (listener->fds[i] >= 0)
            close(listener->fds[i]);
        listener->fds[i] = -1;
    }
}

static enum hky_err listener_open(struct hky_accept *a, const struct hky_policy *policy, const struct hky_listen *l,
                                  struct accept_listener **out, struct hky_error *e)
{
    enum hky_err err = accept_listen_check(l, e);
    struct hky_tls *tls = NULL;

    *out = NULL;
    if (err == HKY_OK)
        err = accept_listen_certificate(policy, l, &tls, e);
    if (err != HKY_OK)
        return err;
    struct accept_listener *listener = hky_calloc(1, sizeof *listener);
    listener->refs = 1;
    listener->tls = tls;
    listener->tls_mode = l->tls;
    listener->port = l->port;
    snprintf(listener->addr, sizeof listener->addr, "%s", l->addr);
    listener->fds = hky_calloc(a->params.n_workers, sizeof *listener->fds);
    for (unsigned i = 0; i < a->params.n_workers; i++)
        listener->fds[i] = -1;
    err = accept_listener_sockets(a, l, listener, e);
    if (err != HKY_OK) {
        close_sockets(a, listener);
        accept_listener_unref(&listener);
        return err;
    }
    *out = listener;
    return HKY_OK;
}

static void accept_add(struct hky_accept *a, struct accept_listener *listener)
{
    a->listeners = hky_realloc(a->listeners, (a->n_listeners + 1) * sizeof *a->listeners);
    a->listeners[a->n_listeners++] = listener;
}

/* --- taking connections --- */

static void on_taken(void *ctx, int fd, const struct sockaddr_storage *from)
{
    struct accept_connection_peer peer = {0};

    accept_peer_of(from, &peer);
    accept_connection_new(ctx, fd, &peer);
}

static void on_no_descriptor(void *ctx, int fd, int sys, bool is_first)
{
    struct accept_socket *sock = ctx;
    struct hky_accept *a = sock->worker->accept;

    if (fd >= 0)
        accept_connection_turn_away(fd, __atomic_load_n(&sock->listener->tls_mode, __ATOMIC_RELAXED));
    if (is_first)
        hky_log(a->params.log, HKY_LOG_ERROR, "descriptors",
                "worker=%u port=%u why=\"%s\" what=\"clients are turned away; raise LimitNOFILE or lower "
                "bounds.connections\"",
                sock->worker->index, sock->listener->bound_port, strerror(sys));
}

static const struct hky_acceptor_ops acceptor_ops = {.taken = on_taken, .refused = on_no_descriptor};

static void socket_close(struct accept_socket *sock)
{
    LIST_REMOVE(sock, link);
    hky_acceptor_free(&sock->acceptor);
    close(sock->fd);
    accept_listener_unref(&sock->listener);
    free(sock);
}

/* --- orders to workers --- */

struct order {
    struct hky_task task;
    struct accept_worker *worker;
    struct accept_listener *listener; /* counted */
    LIST_ENTRY(order) link;           /* in accept->orders until it has run, because a loop may end before that */
};

static void post(struct hky_accept *a, unsigned worker, struct accept_listener *listener,
                 void (*run)(struct hky_task *))
{
    struct order *o = hky_calloc(1, sizeof *o);

    o->task.run = run;
    o->worker = &a->workers[worker];
    o->listener = listener;
    if (listener != NULL)
        __atomic_add_fetch(&listener->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&a->lock);
    LIST_INSERT_HEAD(&a->orders, o, link);
    pthread_mutex_unlock(&a->lock);
    hky_loop_post(a->params.loops[worker], &o->task);
}

/* The order runs now and belongs to the caller. */
static struct order *order_of(struct hky_task *task)
{
    struct order *o = HKY_CONTAINER(task, struct order, task);
    struct hky_accept *a = o->worker->accept;

    pthread_mutex_lock(&a->lock);
    LIST_REMOVE(o, link);
    pthread_mutex_unlock(&a->lock);
    return o;
}

static void run_open(struct hky_task *task)
{
    struct order *o = order_of(task);
    struct accept_socket *sock = hky_calloc(1, sizeof *sock);

    sock->worker = o->worker;
    sock->listener = o->listener; /* the order's reference */
    sock->fd = o->listener->fds[o->worker->index];
    o->listener->fds[o->worker->index] = -1;
    LIST_INSERT_HEAD(&o->worker->sockets, sock, link);
    sock->acceptor = hky_acceptor_new(o->worker->loop, sock->fd, &acceptor_ops, sock);
    free(o);
}

static void run_close(struct hky_task *task)
{
    struct order *o = order_of(task);
    struct accept_socket *sock, *next;

    for (sock = LIST_FIRST(&o->worker->sockets); sock != NULL; sock = next) {
        next = LIST_NEXT(sock, link);
        if (sock->listener == o->listener)
            socket_close(sock);
    }
    accept_listener_unref(&o->listener);
    free(o);
}

static void run_review(struct hky_task *task)
{
    struct order *o = order_of(task);

    accept_connection_take_policy(o->worker);
    free(o);
}

static void run_drain(struct hky_task *task)
{
    struct order *o = order_of(task);
    struct accept_worker *w = o->worker;
    struct hky_accept *a = w->accept;

    free(o);
    while (!LIST_EMPTY(&w->sockets))
        socket_close(LIST_FIRST(&w->sockets));
    accept_connection_drain(w);
    w->is_draining = true;
    if (w->n_connections == 0 && __atomic_sub_fetch(&a->n_draining, 1, __ATOMIC_ACQ_REL) == 0)
        hky_loop_post(a->params.loops[0], &a->drain_check);
}

static void drained(struct hky_accept *a)
{
    void (*done)(void *) = a->drained;

    a->drained = NULL;
    hky_timer_cancel(&a->grace);
    if (done != NULL)
        done(a->drained_ctx);
}

static void on_drained(struct hky_task *task)
{
    drained(HKY_CONTAINER(task, struct hky_accept, drain_check));
}

static void run_cut(struct hky_task *task)
{
    struct order *o = order_of(task);

    accept_connection_cut(o->worker);
    free(o);
}

static void on_grace_over(struct hky_timer *timer)
{
    struct hky_accept *a = HKY_CONTAINER(timer, struct hky_accept, grace);

    for (unsigned i = 0; i < a->params.n_workers; i++)
        post(a, i, NULL, run_cut);
    drained(a);
}

static void run_drain_start(struct hky_task *task)
{
    struct hky_accept *a = HKY_CONTAINER(task, struct hky_accept, drain_start);

    hky_timer_set(&a->grace, a->grace_ms > 0 ? a->grace_ms : 1);
    for (unsigned i = 0; i < a->params.n_workers; i++)
        post(a, i, NULL, run_drain);
}

void hky_accept_drain(struct hky_accept *a, int64_t grace_ms, void (*done)(void *ctx), void *ctx)
{
    a->drain_start.run = run_drain_start;
    a->grace_ms = grace_ms;
    a->drained = done;
    a->drained_ctx = ctx;
    a->n_draining = (int)a->params.n_workers;
    hky_loop_post(a->params.loops[0], &a->drain_start);
}

/* --- the whole --- */

static struct hky_accept *accept_alloc(const struct hky_accept_params *p)
{
    struct hky_accept *a = hky_calloc(1, sizeof *a);

    a->params = *p;
    a->ops = *p->ops;
    pthread_mutex_init(&a->lock, NULL);
    hky_map_init_untrusted(&a->clients);
    hky_timer_init(&a->grace, p->loops[0], on_grace_over);
    a->drain_check.run = on_drained;
    a->workers = hky_calloc(p->n_workers, sizeof *a->workers);
    for (unsigned i = 0; i < p->n_workers; i++) {
        struct accept_worker *w = &a->workers[i];
        w->accept = a;
        w->index = i;
        w->loop = p->loops[i];
        w->sasl = accept_sasl_new();
        w->intake = (struct hky_intake){.worker = i,
                                        .loop = w->loop,
                                        .journal = p->journal,
                                        .clock = p->clock,
                                        .ctx = a->ops.ctx,
                                        .decide = a->ops.decide,
                                        .enqueue = a->ops.enqueue,
                                        .event = a->ops.event};
        LIST_INIT(&w->connections);
        LIST_INIT(&w->submissions);
        LIST_INIT(&w->asks);
        LIST_INIT(&w->sockets);
    }
    return a;
}

enum hky_err hky_accept_new(const struct hky_accept_params *p, const struct hky_policy *policy, struct hky_accept **out,
                            struct hky_error *e)
{
    struct hky_accept *a = accept_alloc(p);

    *out = NULL;
    for (uint32_t i = 0; i < policy->engine.n_listen; i++) {
        struct accept_listener *listener;
        enum hky_err err = listener_open(a, policy, &policy->engine.listen[i], &listener, e);
        if (err != HKY_OK) {
            hky_accept_free(&a);
            return err;
        }
        accept_add(a, listener);
    }
    *out = a;
    return HKY_OK;
}

static void listener_start(struct hky_accept *a, struct accept_listener *listener)
{
    for (unsigned i = 0; i < a->params.n_workers; i++)
        post(a, i, listener, run_open);
    hky_log(a->params.log, HKY_LOG_INFO, "listening", "addr=%s port=%u tls=%s", listener->addr, listener->bound_port,
            listener->tls_mode == HKY_LISTEN_PLAIN      ? "none"
            : listener->tls_mode == HKY_LISTEN_STARTTLS ? "starttls"
                                                        : "implicit");
}

void hky_accept_set_journal(struct hky_accept *a, struct hky_journal *journal)
{
    a->params.journal = journal;
    for (unsigned i = 0; i < a->params.n_workers; i++)
        a->workers[i].intake.journal = journal;
}

void hky_accept_start(struct hky_accept *a)
{
    struct rlimit lim = {0};

    /* The kernel gives out the lowest free number, so the number says how many are taken. */
    a->fd_most = getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < INT_MAX ? (int)(lim.rlim_cur - lim.rlim_cur / 4)
                                                                               : INT_MAX;
    a->is_started = true;
    for (unsigned i = 0; i < a->n_listeners; i++)
        listener_start(a, a->listeners[i]);
}

/* A listener whose kind of TLS changes keeps its socket. */
static struct accept_listener *find_listener(struct hky_accept *a, const struct hky_listen *l)
{
    for (unsigned i = 0; i < a->n_listeners; i++)
        if (a->listeners[i]->port == l->port && strcmp(a->listeners[i]->addr, l->addr) == 0)
            return a->listeners[i];
    return NULL;
}

/* --- a new policy: everything that can fail comes first --- */

struct hky_accept_change {
    const struct hky_policy *policy;
    uint32_t n;
    struct change_item {
        struct accept_listener *kept, *opened; /* one of them */
        struct hky_tls *tls;                   /* of the kept one */
    } items[];
};

void hky_accept_abandon(struct hky_accept *a, struct hky_accept_change **pchange)
{
    struct hky_accept_change *change = *pchange;

    *pchange = NULL;
    if (change == NULL)
        return;
    for (uint32_t i = 0; i < change->n; i++) {
        struct change_item *item = &change->items[i];
        hky_tls_unref(&item->tls);
        if (item->opened != NULL)
            close_sockets(a, item->opened);
        accept_listener_unref(&item->opened);
    }
    free(change);
}

enum hky_err hky_accept_prepare(struct hky_accept *a, const struct hky_policy *policy, struct hky_accept_change **out,
                                struct hky_error *e)
{
    uint32_t n = policy->engine.n_listen;
    struct hky_accept_change *change = hky_calloc(1, sizeof *change + n * sizeof change->items[0]);
    enum hky_err err = HKY_OK;

    change->policy = policy;
    for (uint32_t i = 0; i < n && err == HKY_OK; i++) {
        const struct hky_listen *l = &policy->engine.listen[i];
        struct change_item *item = &change->items[i];
        change->n = i + 1;
        item->kept = find_listener(a, l);
        if (item->kept == NULL)
            err = listener_open(a, policy, l, &item->opened, e);
        else if ((err = accept_listen_check(l, e)) == HKY_OK)
            err = accept_listen_certificate(policy, l, &item->tls, e);
    }
    if (err != HKY_OK)
        hky_accept_abandon(a, &change);
    *out = change;
    return err;
}

static void close_dropped_listeners(struct hky_accept *a)
{
    unsigned n_kept = 0;

    for (unsigned i = 0; i < a->n_listeners; i++) {
        struct accept_listener *listener = a->listeners[i];
        if (listener->is_kept) {
            a->listeners[n_kept++] = listener;
            continue;
        }
        for (unsigned w = 0; w < a->params.n_workers; w++)
            post(a, w, listener, run_close);
        accept_listener_unref(&listener);
    }
    a->n_listeners = n_kept;
}

void hky_accept_commit(struct hky_accept *a, struct hky_accept_change **pchange)
{
    struct hky_accept_change *change = *pchange;

    *pchange = NULL;
    for (unsigned i = 0; i < a->n_listeners; i++)
        a->listeners[i]->is_kept = false;
    for (uint32_t i = 0; i < change->n; i++) {
        struct accept_listener *listener = change->items[i].kept;
        if (listener == NULL)
            continue;
        listener->is_kept = true;
        __atomic_store_n(&listener->tls_mode, change->policy->engine.listen[i].tls, __ATOMIC_RELAXED);
        pthread_mutex_lock(&a->lock);
        struct hky_tls *old = listener->tls;
        listener->tls = change->items[i].tls;
        pthread_mutex_unlock(&a->lock);
        hky_tls_unref(&old);
    }
    close_dropped_listeners(a);
    for (uint32_t i = 0; i < change->n; i++) {
        if (change->items[i].opened == NULL)
            continue;
        accept_add(a, change->items[i].opened);
        if (a->is_started)
            listener_start(a, change->items[i].opened);
    }
    for (unsigned w = 0; w < a->params.n_workers; w++)
        post(a, w, NULL, run_review);
    free(change);
}

void hky_accept_free(struct hky_accept **pa)
{
    struct hky_accept *a = *pa;

    if (a == NULL)
        return;
    for (unsigned i = 0; i < a->params.n_workers; i++) {
        struct accept_worker *w = &a->workers[i];
        w->is_draining = false;
        while (!LIST_EMPTY(&w->sockets))
            socket_close(LIST_FIRST(&w->sockets));
        accept_connection_free(w);
        accept_sasl_free(&w->sasl);
    }
    for (unsigned i = 0; i < a->n_listeners; i++) {
        close_sockets(a, a->listeners[i]);
        accept_listener_unref(&a->listeners[i]);
    }
    free(a->listeners);
    for (struct order *o; (o = LIST_FIRST(&a->orders)) != NULL;) {
        LIST_REMOVE(o, link);
        accept_listener_unref(&o->listener);
        free(o);
    }
    hky_timer_cancel(&a->grace);
    hky_map_fini(&a->clients);
    pthread_mutex_destroy(&a->lock);
    free(a->workers);
    free(a);
    *pa = NULL;
}

uint16_t hky_accept_port(const struct hky_accept *a, unsigned i)
{
    return i < a->n_listeners ? a->listeners[i]->bound_port : 0;
}

void hky_accept_stats(const struct hky_accept *a, struct hky_accept_stats *out)
{
    *out = (struct hky_accept_stats){0};
    for (unsigned i = 0; i < a->params.n_workers; i++) {
        const struct accept_worker *w = &a->workers[i];
        out->sessions += __atomic_load_n(&w->n_connections, __ATOMIC_RELAXED);
        out->sessions_total += __atomic_load_n(&w->sessions_total, __ATOMIC_RELAXED);
        out->messages += __atomic_load_n(&w->messages, __ATOMIC_RELAXED);
        out->recipients += __atomic_load_n(&w->recipients, __ATOMIC_RELAXED);
        out->refused += __atomic_load_n(&w->refused, __ATOMIC_RELAXED);
    }
}
