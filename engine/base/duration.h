/*
 * duration -- spans of time as policies, options and header fields write them, and as people read them.
 */
#ifndef HKY_BASE_DURATION_H
#define HKY_BASE_DURATION_H

#include "base/str.h"

/* "90s" "10m" (also "10min") "2h" "3d", or a number of seconds; the whole of `s`. false: something else, or more than
 * UINT32_MAX - 1 seconds. */
bool hky_duration_parse(struct hky_str s, uint32_t *sec);

#define HKY_DURATION_TEXT 24
/* "90s" "10m" "2h" "3d", which hky_duration_parse takes: in the largest unit that is exact; where none is and it is
 * more than ten minutes, in minutes, rounded up. */
const char *hky_duration_format(int64_t sec, char out[HKY_DURATION_TEXT]);
/* To the nearest of the unit that fits, for how long ago something was: "90s" "5m" "24h" "3d". */
const char *hky_duration_rough(int64_t sec, char out[HKY_DURATION_TEXT]);

#endif
