/*
 * zone -- a time zone of the system's database as a value: one process can use many, without TZ variable or locks.
 */
#ifndef HKY_ROUTE_ZONE_H
#define HKY_ROUTE_ZONE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct hky_zone;

/* "Asia/Tokyo"; "" = the system's. HKY_E_MISSING: no such zone. */
enum hky_err hky_zone_new(const char *name, struct hky_zone **out, struct hky_error *e);
void hky_zone_free(struct hky_zone **z);

struct hky_local_time {
    int64_t year;
    int month, day, hour, minute, second; /* month 1..12 */
    int weekday, yearday;                 /* Sunday is 1, as in Lua's os.date; yearday from 1 */
    int64_t day_number;                   /* days since 1970-01-01, local */
    int32_t offset_sec;
};
/* NULL zone: UTC. */
void hky_zone_local(const struct hky_zone *z, int64_t unix_sec, struct hky_local_time *out);
int64_t hky_zone_day(const struct hky_zone *z, int64_t unix_sec);
int64_t hky_zone_day_of_date(int64_t year, int month, int day);
/* Unix seconds of a local date and time; a time that is skipped counts from before the gap. */
int64_t hky_zone_unix(const struct hky_zone *z, int64_t day_number, int32_t sec_of_day);
/* "2026-12-01" or "2026-12-01 10:00[:00]" to day number and seconds; false when it is no date. */
bool hky_zone_parse_date(const char *p, size_t n, int64_t *day_number, int32_t *sec_of_day);

#endif
