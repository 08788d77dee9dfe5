#include "route/table/zone.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZONE_OCTETS_MAX (1u << 20)

struct change {
    int64_t at;
    int32_t offset;
};
struct rule { /* of a POSIX TZ string: Mm.w.d/time */
    int month, week, day;
    int32_t sec;
};
struct hky_zone {
    struct change *changes;
    size_t n;
    int32_t first_offset;
    bool has_tail, has_dst; /* the footer: the rules that hold after the last change */
    int32_t std_offset, dst_offset;
    struct rule to_dst, to_std;
};

static int64_t be(const unsigned char *p, int n)
{
    uint64_t v = 0;

    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return n == 4 ? (int64_t)(int32_t)v : (int64_t)v;
}

int64_t hky_zone_day_of_date(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, of_era = z - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;

    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = y + era * 400 + (*month <= 2);
}

static const char *tz_name(const char *p)
{
    if (*p == '<') {
        while (*p != 0 && *p != '>')
            p++;
        return *p == '>' ? p + 1 : NULL;
    }
    while (isalpha((unsigned char)*p))
        p++;
    return p;
}

static const char *tz_time(const char *p, int32_t *sec)
{
    int sign = 1, part = 0;
    long v[3] = {0, 0, 0};

    if (*p == '+' || *p == '-')
        sign = *p++ == '-' ? -1 : 1;
    do {
        if (!isdigit((unsigned char)*p))
            return NULL;
        while (isdigit((unsigned char)*p) && v[part] < 1000)
            v[part] = v[part] * 10 + (*p++ - '0');
        part++;
    } while (part < 3 && *p == ':' && p++);
    *sec = (int32_t)(sign * (v[0] * 3600 + v[1] * 60 + v[2]));
    return p;
}

static const char *tz_rule(const char *p, struct rule *r)
{
    int n = 0;

    r->sec = 7200;
    if (sscanf(p, ",M%d.%d.%d%n", &r->month, &r->week, &r->day, &n) != 3 || n == 0 || r->month < 1 || r->month > 12 ||
        r->week < 1 || r->week > 5 || r->day < 0 || r->day > 6)
        return NULL;
    p += n;
    return *p == '/' ? tz_time(p + 1, &r->sec) : p;
}

static void tail_parse(struct hky_zone *z, const char *p)
{
    int32_t west;

    if ((p = tz_name(p)) == NULL || (p = tz_time(p, &west)) == NULL)
        return;
    z->std_offset = -west;
    z->has_tail = true;
    if (*p == 0)
        return;
    z->dst_offset = z->std_offset + 3600;
    if ((p = tz_name(p)) == NULL)
        return;
    if (*p != ',') {
        if ((p = tz_time(p, &west)) == NULL)
            return;
        z->dst_offset = -west;
    }
    if ((p = tz_rule(p, &z->to_dst)) != NULL && tz_rule(p, &z->to_std) != NULL)
        z->has_dst = true;
}

static bool zone_parse(struct hky_zone *z, const unsigned char *p, size_t n)
{
    size_t skip = 0;
    int width = 4;

    for (;;) {
        size_t counts[6], need;
        if (n < skip + 44 || memcmp(p + skip, "TZif", 4) != 0)
            return false;
        for (int i = 0; i < 6; i++)
            counts[i] = (size_t)(uint32_t)be(p + skip + 20 + 4 * i, 4);
        for (int i = 0; i < 6; i++)
            if (counts[i] > 100000)
                return false;
        /* order in the header: isut, isstd, leap, time, type, char */
        need = counts[3] * (size_t)(width + 1) + counts[4] * 6 + counts[5] + counts[2] * (size_t)(width + 4) +
               counts[1] + counts[0];
        if (n - skip - 44 < need || counts[4] == 0)
            return false;
        if (width == 4 && p[skip + 4] >= '2') {
            skip += 44 + need;
            width = 8;
            continue;
        }
        const unsigned char *at = p + skip + 44, *kind = at + counts[3] * (size_t)width, *types = kind + counts[3];
        z->changes = hky_calloc(counts[3] + 1, sizeof *z->changes);
        z->first_offset = (int32_t)be(types, 4);
        for (size_t i = 0; i < counts[3]; i++) {
            if (kind[i] >= counts[4])
                return false;
            z->changes[z->n++] =
                (struct change){be(at + i * (size_t)width, width), (int32_t)be(types + 6 * (size_t)kind[i], 4)};
        }
        if (width == 8) {
            const char *tail = (const char *)p + skip + 44 + need;
            size_t left = n - skip - 44 - need;
            char text[128];
            if (left > 2 && left < sizeof text && tail[0] == '\n') {
                memcpy(text, tail + 1, left - 1);
                text[left - 1] = 0;
                text[strcspn(text, "\n")] = 0;
                tail_parse(z, text);
            }
        }
        return true;
    }
}

enum hky_err hky_zone_new(const char *name, struct hky_zone **out, struct hky_error *e)
{
    char path[300];
    unsigned char *p;
    size_t n;
    FILE *f;
    struct hky_zone *z;

    *out = NULL;
    if (name[0] == '/' || strstr(name, "..") != NULL || strlen(name) > 200)
        return hky_error_set(e, HKY_E_SYNTAX, "\"%.60s\" is not the name of a time zone, such as \"Asia/Tokyo\"", name);
    snprintf(path, sizeof path, name[0] != 0 ? "/usr/share/zoneinfo/%s" : "/etc/localtime", name);
    if ((f = fopen(path, "rbe")) == NULL) {
        if (name[0] != 0 && strcmp(name, "UTC") != 0)
            return hky_error_set(e, HKY_E_MISSING, "no time zone \"%.60s\" on this system (%.100s)", name, path);
        *out = hky_calloc(1, sizeof **out);
        return HKY_OK;
    }
    p = hky_alloc(ZONE_OCTETS_MAX);
    n = fread(p, 1, ZONE_OCTETS_MAX, f);
    fclose(f);
    z = hky_calloc(1, sizeof *z);
    if (!zone_parse(z, p, n)) {
        free(p);
        hky_zone_free(&z);
        return hky_error_set(e, HKY_E_SYNTAX, "%.100s is no time zone file", path);
    }
    free(p);
    *out = z;
    return HKY_OK;
}

void hky_zone_free(struct hky_zone **z)
{
    if (*z != NULL)
        free((*z)->changes);
    free(*z);
    *z = NULL;
}

static int64_t rule_at(const struct rule *r, int64_t year, int32_t offset)
{
    int64_t first = hky_zone_day_of_date(year, r->month, 1), day;
    int weekday = (int)(((first + 4) % 7 + 7) % 7);
    int64_t next = r->month == 12 ? hky_zone_day_of_date(year + 1, 1, 1) : hky_zone_day_of_date(year, r->month + 1, 1);

    day = first + (r->day - weekday + 7) % 7 + 7 * (r->week - 1);
    while (day >= next)
        day -= 7;
    return day * 86400 + r->sec - offset;
}

static int32_t offset_at(const struct hky_zone *z, int64_t t)
{
    size_t lo = 0, hi;

    if (z == NULL)
        return 0;
    if (z->has_tail && (z->n == 0 || t >= z->changes[z->n - 1].at)) {
        int64_t year, on, off;
        int month, day;
        if (!z->has_dst)
            return z->std_offset;
        date_of_days((t + z->std_offset) / 86400, &year, &month, &day);
        on = rule_at(&z->to_dst, year, z->std_offset);
        off = rule_at(&z->to_std, year, z->dst_offset);
        return (on < off ? t >= on && t < off : t >= on || t < off) ? z->dst_offset : z->std_offset;
    }
    hi = z->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (z->changes[mid].at <= t)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 ? z->changes[lo - 1].offset : z->first_offset;
}

void hky_zone_local(const struct hky_zone *z, int64_t t, struct hky_local_time *out)
{
    int64_t local, days;
    int32_t sec;

    if (t < -62135596800)
        t = -62135596800;
    if (t > 253402300799)
        t = 253402300799;
    out->offset_sec = offset_at(z, t);
    local = t + out->offset_sec;
    days = local / 86400 - (local % 86400 < 0);
    sec = (int32_t)(local - days * 86400);
    out->day_number = days;
    date_of_days(days, &out->year, &out->month, &out->day);
    out->hour = sec / 3600;
    out->minute = sec / 60 % 60;
    out->second = sec % 60;
    out->weekday = (int)(((days + 4) % 7 + 7) % 7) + 1;
    out->yearday = (int)(days - hky_zone_day_of_date(out->year, 1, 1)) + 1;
}

int64_t hky_zone_day(const struct hky_zone *z, int64_t t)
{
    struct hky_local_time local;

    hky_zone_local(z, t, &local);
    return local.day_number;
}

int64_t hky_zone_unix(const struct hky_zone *z, int64_t day_number, int32_t sec_of_day)
{
    int64_t local = day_number * 86400 + sec_of_day;
    int64_t t = local - offset_at(z, local);

    return local - offset_at(z, t);
}

bool hky_zone_parse_date(const char *p, size_t n, int64_t *day_number, int32_t *sec_of_day)
{
    char text[32];
    int y, mo, d, h = 0, mi = 0, s = 0, used = 0;

    if (n < 10 || n >= sizeof text)
        return false;
    memcpy(text, p, n);
    text[n] = 0;
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)text[i]) && strchr("-: T", text[i]) == NULL)
            return false;
    if (sscanf(text, "%4d-%2d-%2d%n", &y, &mo, &d, &used) != 3 || used != 10)
        return false;
    if (n > 10) {
        int more = 0;
        if ((text[10] != ' ' && text[10] != 'T') || sscanf(text + 11, "%2d:%2d%n", &h, &mi, &more) != 2)
            return false;
        used = 11 + more;
        if ((size_t)used < n) {
            if (sscanf(text + used, ":%2d%n", &s, &more) != 1 || (size_t)used + (size_t)more != n)
                return false;
        }
    }
    if (y < 1970 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || s < 0 || s > 59)
        return false;
    *day_number = hky_zone_day_of_date(y, mo, d);
    *sec_of_day = h * 3600 + mi * 60 + s;
    if (d > 28) {
        int64_t year;
        int month, day;
        date_of_days(*day_number, &year, &month, &day);
        return month == mo;
    }
    return true;
}
