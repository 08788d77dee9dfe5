/*
 * wait -- the only places where a unit test sleeps
 *
 * A test waits for a condition and never for a time: how long something takes depends on what else the machine does.
 * tests/check_sleeps.sh fails on any other sleep.
 */
#ifndef TESTS_SUPPORT_WAIT_H
#define TESTS_SUPPORT_WAIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <time.h>
#include <unistd.h>

/* Long enough for whatever a busy machine does at last; a wait ends as soon as its condition holds. */
enum { WAIT_MOST_SEC = 60 };

static inline int64_t wait_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Processor time that all threads of this process have used, for what must not compute for long: other processes do not
 * lengthen it. */
static inline int64_t spent_ms(void)
{
    struct timespec spent;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (int64_t)spent.tv_sec * 1000 + spent.tv_nsec / 1000000;
}

/* Looks at the condition every millisecond until it holds; the test fails after WAIT_MOST_SEC. */
#define wait_until(cond)                                                                                               \
    do {                                                                                                               \
        for (int64_t until_ms_ = wait_now_ms() + WAIT_MOST_SEC * 1000; !(cond);) {                                     \
            if (wait_now_ms() > until_ms_)                                                                             \
                fail_msg("did not come true within %d s: %s", WAIT_MOST_SEC, #cond);                                   \
            usleep(1000);                                                                                              \
        }                                                                                                              \
    } while (0)

/* Time that is part of what is tried, such as a peer that is slow. `what` says in words what takes this time. */
static inline void let_pass(unsigned us, const char *what)
{
    (void)what;
    usleep(us);
}

#endif
