#include "base/duration.h"

#include <stdio.h>

static const struct {
    const char *name;
    uint32_t sec;
} units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"", 1}, {"min", 60}};
#define N_PRINTED 4 /* the first ones */

bool hky_duration_parse(struct hky_str s, uint32_t *sec)
{
    uint64_t n;
    size_t digits = 0;

    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (!hky_str_eq(hky_str_of(s.p + digits, s.n - digits), hky_str_z(units[i].name)))
            continue;
        if (!hky_str_u64(hky_str_of(s.p, digits), (UINT32_MAX - 1) / units[i].sec, &n))
            return false;
        *sec = (uint32_t)n * units[i].sec;
        return true;
    }
    return false;
}

const char *hky_duration_format(int64_t sec, char out[HKY_DURATION_TEXT])
{
    size_t i = 0;

    while (i < N_PRINTED - 1 && (sec < units[i].sec || sec % units[i].sec != 0))
        i++;
    if (units[i].sec == 1 && sec > 600)
        snprintf(out, HKY_DURATION_TEXT, "%lldm", (long long)((sec + 59) / 60));
    else
        snprintf(out, HKY_DURATION_TEXT, "%lld%s", (long long)(sec / units[i].sec), units[i].name);
    return out;
}

/* What would be rounded to two of the larger unit is written in that: 2h, not 120m. */
const char *hky_duration_rough(int64_t sec, char out[HKY_DURATION_TEXT])
{
    size_t i = 0;

    while (i < N_PRINTED - 1 && sec + units[i + 1].sec / 2 < 2 * (int64_t)units[i].sec)
        i++;
    snprintf(out, HKY_DURATION_TEXT, "%lld%s", (long long)((sec + units[i].sec / 2) / units[i].sec), units[i].name);
    return out;
}
