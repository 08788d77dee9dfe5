/*
 * segments -- a journal in which nothing is copied unless a test wants it, and how many segments are in use
 */
#ifndef TESTS_JOURNAL_SEGMENTS_H
#define TESTS_JOURNAL_SEGMENTS_H

#include "rig.h"

static inline int set_up(void **state)
{
    struct rig *r = malloc(sizeof *r);

    rig_init(r);
    r->params.cold_after_ms = 3600 * 1000; /* no copying unless a test wants it */
    rig_open(r);
    *state = r;
    return 0;
}

static inline int tear_down(void **state)
{
    rig_fini(*state);
    free(*state);
    return 0;
}

static inline uint64_t n_segments(struct rig *r)
{
    struct hky_journal_stats s;

    hky_journal_stats(r->j, &s);
    return s.segments - s.free_segments;
}

#endif
