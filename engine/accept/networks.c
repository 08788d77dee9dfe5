/* Which clients a listener trusts because of their address. */
#include "accept/internal.h"

#include <stdlib.h>

/* An eighth of all IPv4 addresses, or of the public IPv6 ones (2000::/3), is nobody's own network: the
 * largest that were ever given out are a 256th. */
#define TOO_LARGE_A_PART 8

typedef unsigned __int128 address128;

struct range {
    address128 first, last;
};

static address128 number_of(const uint8_t octets[16])
{
    address128 n = 0;

    for (int i = 0; i < 16; i++)
        n = n << 8 | octets[i];
    return n;
}

static struct range range_of(const struct hky_cidr *cidr)
{
    address128 below = cidr->bits >= 128 ? 0 : ~(address128)0 >> cidr->bits;
    address128 first = number_of(cidr->addr) & ~below;

    return (struct range){first, first | below};
}

bool accept_listen_allows(const struct hky_listen *l, const struct in6_addr *client)
{
    address128 at = number_of(client->s6_addr);

    for (uint32_t i = 0; i < l->n_allow; i++) {
        struct range r = range_of(&l->allow[i]);
        if (at >= r.first && at <= r.last)
            return true;
    }
    return false;
}

static int by_first(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* How many addresses of `in` the sorted ranges contain together; an address in several ranges counts once. */
static address128 held_of(const struct range *ranges, uint32_t n, struct range in)
{
    address128 held = 0, next = in.first;

    for (uint32_t i = 0; i < n; i++) {
        address128 first = ranges[i].first > next ? ranges[i].first : next;
        address128 last = ranges[i].last < in.last ? ranges[i].last : in.last;
        if (first > last)
            continue;
        held += last - first + 1;
        next = last + 1; /* `in` does not reach to the last address there is */
    }
    return held;
}

bool accept_allow_is_everyone(const struct hky_cidr *allow, uint32_t n)
{
    static const struct hky_cidr v4 = {.addr = {[10] = 0xff, [11] = 0xff}, .bits = 96};
    static const struct hky_cidr public_v6 = {.addr = {0x20}, .bits = 3};
    const struct range worlds[] = {range_of(&v4), range_of(&public_v6)};
    bool is_everyone = false;

    if (n == 0)
        return false;
    struct range *ranges = hky_alloc(n * sizeof *ranges);
    for (uint32_t i = 0; i < n; i++)
        ranges[i] = range_of(&allow[i]);
    qsort(ranges, n, sizeof *ranges, by_first);
    for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++)
        is_everyone =
            is_everyone || held_of(ranges, n, worlds[i]) >= (worlds[i].last - worlds[i].first + 1) / TOO_LARGE_A_PART;
    free(ranges);
    return is_everyone;
}
