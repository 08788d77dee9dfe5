/* What connections need of their listener: its certificate, and how many connections a client has. */
#include "accept/internal.h"

#include <stdlib.h>

void accept_listener_unref(struct accept_listener **plistener)
{
    struct accept_listener *listener = *plistener;

    *plistener = NULL;
    if (listener == NULL || __atomic_sub_fetch(&listener->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    hky_tls_unref(&listener->tls);
    free(listener->fds);
    free(listener);
}

struct hky_tls *accept_listener_tls(struct hky_accept *a, struct accept_listener *listener)
{
    struct hky_tls *tls;

    pthread_mutex_lock(&a->lock);
    tls = listener->tls != NULL ? hky_tls_ref(listener->tls) : NULL;
    pthread_mutex_unlock(&a->lock);
    return tls;
}

static struct hky_str client_key(const struct in6_addr *client)
{
    return hky_str_of((const char *)client->s6_addr, IN6_IS_ADDR_V4MAPPED(client) ? 16 : 8);
}

bool accept_client_enter(struct hky_accept *a, const struct in6_addr *client, const struct hky_bounds *bounds)
{
    struct hky_str key = client_key(client);
    bool is_good = false;

    pthread_mutex_lock(&a->lock);
    uintptr_t n = (uintptr_t)hky_map_get(&a->clients, key);
    if (n < bounds->connections_per_client && a->n_connections < bounds->connections) {
        hky_map_put(&a->clients, key, (void *)(n + 1));
        a->n_connections++;
        is_good = true;
    }
    pthread_mutex_unlock(&a->lock);
    return is_good;
}

void accept_client_leave(struct accept_worker *w, const struct in6_addr *client)
{
    struct hky_accept *a = w->accept;
    struct hky_str key = client_key(client);

    pthread_mutex_lock(&a->lock);
    uintptr_t n = (uintptr_t)hky_map_get(&a->clients, key);
    if (n > 1)
        hky_map_put(&a->clients, key, (void *)(n - 1));
    else
        hky_map_remove(&a->clients, key);
    a->n_connections--;
    pthread_mutex_unlock(&a->lock);
    if (__atomic_sub_fetch(&w->n_connections, 1, __ATOMIC_ACQ_REL) == 0 && w->is_draining)
        if (__atomic_sub_fetch(&a->n_draining, 1, __ATOMIC_ACQ_REL) == 0)
            hky_loop_post(a->params.loops[0], &a->drain_check);
}
