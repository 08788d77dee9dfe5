#include "base/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

bool hky_endpoint_parse(struct hky_str s, char host[256], uint16_t *port)
{
    struct hky_str name, number;
    uint64_t n;

    if (s.n > 0 && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (end == NULL || (size_t)(end - s.p) + 2 > s.n || end[1] != ':')
            return false;
        name = hky_str_of(s.p + 1, (size_t)(end - s.p) - 1);
        number = hky_str_of(end + 2, s.n - (size_t)(end - s.p) - 2);
    } else {
        const char *colon = memrchr(s.p, ':', s.n);
        if (colon == NULL)
            return false;
        name = hky_str_of(s.p, (size_t)(colon - s.p));
        number = hky_str_of(colon + 1, s.n - (size_t)(colon - s.p) - 1);
        if (memchr(name.p, ':', name.n) != NULL)
            return false;
    }
    if (name.n == 0 || name.n > 255 || !hky_str_u64(number, 65535, &n))
        return false;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || name.p[i] == 0x7f)
            return false;
    memcpy(host, name.p, name.n);
    host[name.n] = 0;
    *port = (uint16_t)n;
    return true;
}

static void map_v4(const struct in_addr *v4, struct in6_addr *out)
{
    *out = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(out->s6_addr + 12, v4, 4);
}

void hky_in6_of(const struct sockaddr_storage *ss, struct in6_addr *out)
{
    if (ss->ss_family == AF_INET)
        map_v4(&((const struct sockaddr_in *)ss)->sin_addr, out);
    else
        *out = ((const struct sockaddr_in6 *)ss)->sin6_addr;
}

bool hky_in6_is_loopback(const struct in6_addr *a)
{
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

bool hky_in6_is_here(const struct in6_addr *a)
{
    return hky_in6_is_loopback(a) || IN6_IS_ADDR_UNSPECIFIED(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 0);
}

bool hky_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, address, &v4) == 1)
        map_v4(&v4, &v6);
    else if (inet_pton(AF_INET6, address, &v6) != 1)
        return false;
    return hky_in6_is_loopback(&v6);
}

bool hky_host_is_here(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || hky_is_loopback(host);
}
