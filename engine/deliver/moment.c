#include "deliver/moment.h"

#include <stddef.h>
#include <time.h>

static int month_of(const char *p, const char *end)
{
    static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";

    for (int i = 0; end - p >= 3 && i < 12; i++)
        if (memcmp(p, names + (ptrdiff_t)3 * i, 3) == 0)
            return i;
    return -1;
}

/* Reads a name of a zone (RFC 5322 4.3 and what Japanese and European servers say); false: it is none that is known. */
static bool read_zone_name(const char **at, const char *end, int *hours)
{
    static const struct {
        const char *name;
        int hours;
    } zones[] = {{"utc", 0},  {"gmt", 0},  {"jst", 9},  {"kst", 9},  {"est", -5}, {"edt", -4}, {"cst", -6}, {"cdt", -5},
                 {"mst", -7}, {"mdt", -6}, {"pst", -8}, {"pdt", -7}, {"cest", 2}, {"cet", 1},  {"msk", 3},  {"z", 0}};

    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++) {
        const char *behind = *at + strlen(zones[i].name);

        if (!begins(*at, end, zones[i].name) || (behind < end && is_letter(*behind)))
            continue;
        *at = behind;
        *hours = zones[i].hours;
        return true;
    }
    return false;
}

/* "+0900" "-07:00" "utc" "jst" "z"; returns the seconds east of Greenwich, 0 when the text names no zone. */
static int read_zone(const char **at, const char *end)
{
    const char *p = skip_blanks(*at, end);
    int sign = p < end && *p == '-' ? -1 : 1, digits = 0, n = 0, hours = 0;

    if (p >= end || (*p != '+' && *p != '-')) {
        if (read_zone_name(&p, end, &hours))
            *at = p;
        return hours * 3600;
    }
    for (p++; p < end && digits < 4 && ((*p >= '0' && *p <= '9') || *p == ':'); p++)
        if (*p != ':') {
            n = n * 10 + (*p - '0');
            digits++;
        }
    *at = p;
    return digits == 4 ? sign * (n / 100 * 3600 + n % 100 * 60) : 0;
}

/* "23:50" or "23:50:00" behind a date. */
static bool read_time_of_day(const char **at, const char *end, struct tm *tm)
{
    const char *p = *at;
    uint64_t part[3] = {0};
    int n = 0;

    while (n < 3) {
        const char *start = p;
        part[n] = read_number(&p, end);
        if (p == start)
            return false;
        n++;
        if (p >= end || *p != ':')
            break;
        p++;
    }
    if (n < 2 || part[0] > 23 || part[1] > 59 || part[2] > 60)
        return false;
    tm->tm_hour = (int)part[0];
    tm->tm_min = (int)part[1];
    tm->tm_sec = (int)part[2];
    *at = p;
    return true;
}

static int64_t moment_of(struct tm *time_of_day, int year, int month, int day)
{
    time_of_day->tm_year = year - 1900;
    time_of_day->tm_mon = month;
    time_of_day->tm_mday = day;
    return timegm(time_of_day);
}

/* A date with a time of day that begins at *at: "28 nov 2026 23:50:00 utc" (RFC 5322 3.3) or "2026-11-28t23:50:00z"
 * (RFC 3339). Moves *at behind it. */
static bool read_day_first(const char **at, const char *end, int64_t *sec)
{
    const char *p = *at;
    struct tm tm = {0};
    uint64_t first = read_number(&p, end), year = first, day = first;
    int month;

    if (p - *at == 4 && end - p >= 6 && p[0] == '-' && p[3] == '-') {
        p++;
        month = (int)read_number(&p, end) - 1;
        if (p >= end || *p++ != '-')
            return false;
        day = read_number(&p, end);
        if (p < end && (*p == 't' || *p == ' '))
            p++;
    } else {
        p = skip_blanks(p, end);
        month = month_of(p, end);
        while (p < end && *p >= 'a' && *p <= 'z')
            p++;
        p = skip_blanks(p, end);
        year = read_number(&p, end);
        p = skip_blanks(p, end);
    }
    if (month < 0 || month > 11 || day < 1 || day > 31 || year < 2000 || year > 9999 || !read_time_of_day(&p, end, &tm))
        return false;
    *sec = moment_of(&tm, (int)year, month, (int)day) - read_zone(&p, end);
    *at = p;
    return true;
}

/* As read_day_first, for a date that begins with its month: "nov 28 20:10:00 2026" (as of ctime) or "nov 28, 2026
 * 20:10".
 */
static bool read_month_first(const char **at, const char *end, int64_t *sec)
{
    const char *p = *at;
    struct tm tm = {0};
    int month = month_of(p, end), zone = 0;
    uint64_t day, year = 0;
    bool is_year_last;

    while (p < end && is_letter(*p))
        p++;
    p = skip_blanks(p, end);
    day = read_number(&p, end);
    is_year_last = p < end && *p == ' ';
    p = skip_blanks(p < end && *p == ',' ? p + 1 : p, end);
    if (!is_year_last)
        year = read_number(&p, end);
    p = skip_blanks(p, end);
    if (month < 0 || !read_time_of_day(&p, end, &tm))
        return false;
    zone = read_zone(&p, end);
    if (is_year_last) {
        p = skip_blanks(p, end);
        year = read_number(&p, end);
    }
    if (day < 1 || day > 31 || year < 2000 || year > 9999)
        return false;
    *sec = moment_of(&tm, (int)year, month, (int)day) - zone;
    *at = p;
    return true;
}

bool hky_moment_read(const char **at, const char *end, int64_t *sec)
{
    return is_digit(**at) ? read_day_first(at, end, sec) : is_letter(**at) && read_month_first(at, end, sec);
}
