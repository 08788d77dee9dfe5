#include "base/clock.h"

#include <time.h>

/* The two readings of a stopped clock are as far apart as those of a machine, so that tests see it when one is taken
 * for the other: elapsed time counts from September 2001. Times before that, which some tests use, are both alike. */
#define ELAPSED_FROM_MS INT64_C(1000000000000)

static int64_t read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int64_t hky_clock_now_ms(const struct hky_clock *c)
{
    int64_t stopped = __atomic_load_n(&c->stopped_at_ms, __ATOMIC_RELAXED);
    int64_t set = __atomic_load_n(&c->wall_shift_ms, __ATOMIC_RELAXED);

    if (stopped > 0)
        return stopped + set;
    return read_ns(CLOCK_REALTIME) / 1000000 + __atomic_load_n(&c->shift_ms, __ATOMIC_RELAXED) + set;
}

int64_t hky_clock_elapsed_ms(const struct hky_clock *c)
{
    int64_t stopped = __atomic_load_n(&c->stopped_at_ms, __ATOMIC_RELAXED);

    if (stopped > 0)
        return stopped > ELAPSED_FROM_MS ? stopped - ELAPSED_FROM_MS : stopped;
    return read_ns(CLOCK_MONOTONIC) / 1000000 + __atomic_load_n(&c->shift_ms, __ATOMIC_RELAXED);
}

int64_t hky_mono_ms(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t hky_mono_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t hky_thread_cpu_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}
