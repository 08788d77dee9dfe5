/*
 * clock -- the schedule's time. Real, or moved by a test. Socket time-outs do not use it (they use the loop's own).
 * Two readings: what the wall clock says, which somebody may set to another time at any moment, and how much time has
 * gone by, which nobody can set. Waits within a run are measured by the second.
 */
#ifndef HKY_BASE_CLOCK_H
#define HKY_BASE_CLOCK_H

#include <stdint.h>

struct hky_clock {
    int64_t shift_ms;      /* so much more time has gone by; tests move the clock with it (atomic) */
    int64_t stopped_at_ms; /* > 0: the clock is stopped at this time (atomic) */
    int64_t wall_shift_ms; /* somebody set the wall clock by so much, and no time went by (atomic) */
};

#define HKY_CLOCK_REAL ((struct hky_clock){0, 0, 0})

/* Wall clock, milliseconds since 1970 UTC. */
int64_t hky_clock_now_ms(const struct hky_clock *c);
/* Milliseconds since some moment; never goes back, whatever the wall clock does. */
int64_t hky_clock_elapsed_ms(const struct hky_clock *c);

/* Monotonic milliseconds and nanoseconds of the machine, for durations. */
int64_t hky_mono_ms(void);
int64_t hky_mono_ns(void);

/* CPU nanoseconds of the calling thread. */
int64_t hky_thread_cpu_ns(void);

#endif
