#include "route/table/value.h"

#include "mail/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

bool hky_octets_parse(struct hky_str s, uint64_t *octets)
{
    uint64_t unit = 1, n;

    if (s.n == 0)
        return false;
    switch (s.p[s.n - 1]) {
    case 'K':
    case 'k':
        unit = 1024, s.n--;
        break;
    case 'M':
        unit = 1048576, s.n--;
        break;
    case 'G':
        unit = 1073741824, s.n--;
        break;
    default:
        break;
    }
    if (!hky_str_u64(s, (UINT64_MAX >> 1) / unit, &n))
        return false;
    *octets = n * unit;
    return true;
}

static bool window_parse(struct hky_str s, uint32_t *sec)
{
    static const struct {
        const char *name;
        uint32_t sec;
    } windows[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"day", 86400}, {"month", 2592000}};

    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++)
        if (hky_str_eq(s, hky_str_z(windows[i].name))) {
            *sec = windows[i].sec;
            return true;
        }
    return hky_duration_parse(s, sec) && *sec > 0 && *sec <= 366u * 86400;
}

bool hky_cap_parse(struct hky_str s, struct hky_cap *out)
{
    const char *slash = memchr(s.p, '/', s.n);
    struct hky_str count, window;
    uint64_t n;

    *out = (struct hky_cap){0};
    if (slash == NULL)
        return false;
    count = hky_str_trim(hky_str_of(s.p, (size_t)(slash - s.p)));
    window = hky_str_trim(hky_str_of(slash + 1, s.n - (size_t)(slash - s.p) - 1));
    if (hky_str_iends(count, HKY_STR("recipients"))) {
        out->counts_recipients = true;
        count = hky_str_trim(hky_str_of(count.p, count.n - strlen("recipients")));
    }
    if (!hky_str_u64(count, 1000000000, &n) || n == 0 || !window_parse(window, &out->window_sec))
        return false;
    out->n = (uint32_t)n;
    out->is_spread = out->window_sec <= 3600;
    return true;
}

bool hky_ip_is_valid(const char *text)
{
    unsigned char a[16];

    return inet_pton(AF_INET, text, a) == 1 || inet_pton(AF_INET6, text, a) == 1;
}

bool hky_host_normalise(const char *host, char out[256])
{
    unsigned char a[16];

    if (inet_pton(AF_INET, host, a) == 1)
        return inet_ntop(AF_INET, a, out, 256) != NULL;
    if (inet_pton(AF_INET6, host, a) == 1)
        return inet_ntop(AF_INET6, a, out, 256) != NULL;
    if (hky_domain_normalise(hky_str_z(host), out, NULL) == HKY_OK)
        return true;
    snprintf(out, 256, "%s", host);
    return false;
}

bool hky_cidr_parse(struct hky_str s, struct hky_cidr *out)
{
    char text[64];
    const char *slash = memchr(s.p, '/', s.n);
    size_t n = slash != NULL ? (size_t)(slash - s.p) : s.n;
    uint64_t bits;

    *out = (struct hky_cidr){0};
    if (n == 0 || n >= sizeof text)
        return false;
    memcpy(text, s.p, n);
    text[n] = 0;
    if (inet_pton(AF_INET, text, out->addr + 12) == 1) {
        out->addr[10] = out->addr[11] = 0xff;
        bits = 32;
    } else if (inet_pton(AF_INET6, text, out->addr) == 1) {
        bits = 128;
    } else {
        return false;
    }
    n = bits == 32 ? 96 : 0;
    if (slash != NULL && !hky_str_u64(hky_str_of(slash + 1, s.n - (size_t)(slash - s.p) - 1), bits, &bits))
        return false;
    out->bits = (uint8_t)(bits + n);
    return true;
}
