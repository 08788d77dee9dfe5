#include "base/helpers.h"

#include "base/thread.h"

#include <stdlib.h>

struct hky_helpers {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct hky_help *first, **last; /* waits */
    unsigned n_waiting, n_idle, n_threads, most;
    atomic_bool is_ending;
    pthread_t threads[];
};

static void *thread_main(void *arg)
{
    struct hky_helpers *h = arg;

    pthread_mutex_lock(&h->lock);
    while (!atomic_load(&h->is_ending)) {
        struct hky_help *help = h->first;
        if (help == NULL) {
            h->n_idle++;
            pthread_cond_wait(&h->more, &h->lock);
            h->n_idle--;
            continue;
        }
        h->first = help->next;
        if (h->first == NULL)
            h->last = &h->first;
        h->n_waiting--;
        pthread_mutex_unlock(&h->lock);
        help->run(help); /* its memory may be freed after this */
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

enum hky_err hky_helpers_new(unsigned most, struct hky_helpers **out, struct hky_error *e)
{
    struct hky_helpers *h = hky_calloc(1, sizeof *h + most * sizeof h->threads[0]);

    *out = NULL;
    h->most = most;
    h->last = &h->first;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more, NULL);
    int rc = hky_thread_start(&h->threads[0], thread_main, h);
    if (rc != 0) {
        hky_helpers_free(&h);
        return hky_error_sys(e, HKY_E_LIMIT, rc, "cannot start a thread (raise TasksMax or `ulimit -u`?)");
    }
    h->n_threads = 1;
    *out = h;
    return HKY_OK;
}

void hky_helpers_do(struct hky_helpers *h, struct hky_help *help)
{
    pthread_mutex_lock(&h->lock);
    help->next = NULL;
    *h->last = help;
    h->last = &help->next;
    h->n_waiting++;
    /* When no thread can be made, the work waits for the existing ones. */
    if (h->n_waiting > h->n_idle && h->n_threads < h->most &&
        hky_thread_start(&h->threads[h->n_threads], thread_main, h) == 0)
        h->n_threads++;
    pthread_cond_signal(&h->more);
    pthread_mutex_unlock(&h->lock);
}

const atomic_bool *hky_helpers_are_ending(const struct hky_helpers *h)
{
    return &h->is_ending;
}

void hky_helpers_free(struct hky_helpers **at)
{
    struct hky_helpers *h = *at;

    if (h == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->is_ending, true);
    pthread_cond_broadcast(&h->more);
    pthread_mutex_unlock(&h->lock);
    for (unsigned i = 0; i < h->n_threads; i++)
        pthread_join(h->threads[i], NULL);
    *at = NULL; /* not earlier, because running work may ask through it whether it should end */
    pthread_cond_destroy(&h->more);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
