#include "base/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

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

bool hky_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, address, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, address, &v6) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}
