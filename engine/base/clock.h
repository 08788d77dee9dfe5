/*
 * clock -- the schedule's time. Real, or moved by a test. Socket time-outs do not use it (they use the loop's own).
 */
#ifndef HKY_BASE_CLOCK_H
#define HKY_BASE_CLOCK_H

#include <stdint.h>

struct hky_clock {
    int64_t shift_ms;      /* added to the real time; tests move the clock with it (atomic) */
    int64_t stopped_at_ms; /* > 0: the clock stands here (atomic) */
};

#define HKY_CLOCK_REAL ((struct hky_clock){0, 0})

/* Wall clock, milliseconds since 1970 UTC. */
int64_t hky_clock_now_ms(const struct hky_clock *c);

/* Monotonic milliseconds and nanoseconds of the machine, for durations. */
int64_t hky_mono_ms(void);
int64_t hky_mono_ns(void);

/* CPU nanoseconds of the calling thread. */
int64_t hky_thread_cpu_ns(void);

#endif
