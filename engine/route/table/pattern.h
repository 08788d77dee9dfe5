/*
 * pattern -- Lua patterns with a budget of steps and a depth: the stock matcher cannot be interrupted. Pure.
 */
#ifndef HKY_ROUTE_PATTERN_H
#define HKY_ROUTE_PATTERN_H

#include "base/str.h"

#define HKY_PATTERN_CAPTURES 32
#define HKY_PATTERN_DEPTH    180

struct hky_capture {
    const char *p;
    ptrdiff_t n; /* HKY_CAPTURE_OPEN, HKY_CAPTURE_POSITION, or octets */
};
#define HKY_CAPTURE_OPEN     (-1)
#define HKY_CAPTURE_POSITION (-2)

struct hky_pattern {
    struct hky_str subject, pattern;
    unsigned depth;
    uint64_t steps, steps_max;
    const char *fault; /* why it is no pattern, or which bound was exceeded; NULL: no fault */
    unsigned n;
    struct hky_capture capture[HKY_PATTERN_CAPTURES];
};

/* Match the pattern (without ^) at `from`; the end of the match, or NULL (then see fault). */
const char *hky_pattern_at(struct hky_pattern *m, const char *from, const char *pattern);

#endif
