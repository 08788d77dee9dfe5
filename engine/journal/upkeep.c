/* What other threads ask maintenance to do. */
#include "journal/internal.h"

#include <stdlib.h>

void journal_upkeep_poke(struct hky_journal *j)
{
    pthread_mutex_lock(&j->maintain.lock);
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}

void journal_upkeep_close_segment(struct hky_journal *j, struct segment *s)
{
    pthread_mutex_lock(&j->maintain.lock);
    if (j->maintain.n_to_close == j->maintain.to_close_cap) {
        j->maintain.to_close_cap = j->maintain.to_close_cap == 0 ? 16 : j->maintain.to_close_cap * 2;
        j->maintain.to_close = hky_realloc(j->maintain.to_close, j->maintain.to_close_cap * sizeof(struct segment *));
    }
    j->maintain.to_close[j->maintain.n_to_close++] = s;
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}

void journal_upkeep_unlink_big(struct hky_journal *j, uint64_t id)
{
    pthread_mutex_lock(&j->maintain.lock);
    if (j->maintain.n_to_unlink == j->maintain.to_unlink_cap) {
        j->maintain.to_unlink_cap = j->maintain.to_unlink_cap == 0 ? 16 : j->maintain.to_unlink_cap * 2;
        j->maintain.to_unlink = hky_realloc(j->maintain.to_unlink, j->maintain.to_unlink_cap * sizeof(uint64_t));
    }
    j->maintain.to_unlink[j->maintain.n_to_unlink++] = id;
    j->maintain.is_poked = true;
    pthread_cond_signal(&j->maintain.cond);
    pthread_mutex_unlock(&j->maintain.lock);
}
