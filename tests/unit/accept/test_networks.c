/* Which clients a listener believes for their address, and which lists of networks are everybody. */
#include "accept/internal.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct in6_addr address_of(const char *text)
{
    struct in6_addr out;
    char mapped[80];

    snprintf(mapped, sizeof mapped, "%s%s", strchr(text, ':') == NULL ? "::ffff:" : "", text);
    if (inet_pton(AF_INET6, mapped, &out) != 1)
        fail_msg("%s", text);
    return out;
}

/* "10.0.0.0/8" */
static struct hky_cidr cidr_of(const char *text)
{
    char addr[64];
    struct hky_cidr c = {0};
    const char *slash = strchr(text, '/');

    snprintf(addr, sizeof addr, "%.*s", (int)(slash - text), text);
    struct in6_addr in = address_of(addr);
    memcpy(c.addr, in.s6_addr, 16);
    c.bits = (uint8_t)(atoi(slash + 1) + (strchr(text, ':') == NULL ? 96 : 0));
    return c;
}

static void a_network_has_its_own_addresses_only(void **state)
{
    static const struct {
        const char *network, *client;
        bool is_in;
    } rows[] = {
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "9.255.255.255", false},
        {"192.0.2.0/25", "192.0.2.127", true}, /* bits beyond the whole octets */
        {"192.0.2.0/25", "192.0.2.128", false},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.128/25", "192.0.2.255", true},
        {"172.16.0.0/12", "172.31.255.255", true},
        {"172.16.0.0/12", "172.32.0.0", false},
        {"172.16.0.0/12", "172.15.255.255", false},
        {"192.0.2.8/31", "192.0.2.9", true},
        {"192.0.2.8/31", "192.0.2.10", false},
        {"192.0.2.8/31", "192.0.2.7", false},
        {"192.0.2.7/32", "192.0.2.7", true},
        {"192.0.2.7/32", "192.0.2.6", false},
        {"192.0.2.7/30", "192.0.2.4", true}, /* host bits say nothing */
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"2001:db8::/127", "2001:db8::1", true},
        {"2001:db8::/127", "2001:db8::2", false},
        {"2001:db8::1/128", "2001:db8::1", true},
        {"2001:db8::1/128", "2001:db8::", false},
        {"::/0", "192.0.2.1", true},
        {"2001:db8::/32", "192.0.2.1", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hky_cidr allow[] = {cidr_of("203.0.113.0/24"), cidr_of(rows[i].network)};
        struct hky_listen l = {.allow = allow, .n_allow = 2};
        struct in6_addr client = address_of(rows[i].client);
        if (accept_listen_allows(&l, &client) != rows[i].is_in)
            fail_msg("%s in %s: %d", rows[i].client, rows[i].network, !rows[i].is_in);
    }
    struct hky_listen none = {0};
    struct in6_addr client = address_of("127.0.0.1");
    assert_false(accept_listen_allows(&none, &client));
}

static void everybody_in_any_number_of_pieces(void **state)
{
    static const struct {
        const char *networks[20];
        bool is_everyone;
    } rows[] = {
        {{NULL}, false},
        {{"0.0.0.0/0"}, true},
        {{"::/0"}, true},
        {{"0.0.0.0/1", "128.0.0.0/1"}, true},
        {{"128.0.0.0/1", "10.0.0.0/8", "0.0.0.0/1"}, true},
        {{"0.0.0.0/1"}, true},
        {{"128.0.0.0/2"}, true},
        {{"0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2"}, true},
        {{"0.0.0.0/4", "32.0.0.0/4", "200.0.0.0/5"}, true},
        {{"0.0.0.0/5", "32.0.0.0/5", "200.0.0.0/5", "100.0.0.0/6", "100.0.0.0/5"}, true}, /* overlapping */
        {{"::/1"}, true},                                                                 /* has all of IPv4 */
        {{"::ffff:0:0/96"}, true},
        {{"2000::/3"}, true},
        {{"2000::/4"}, true},
        {{"2000::/5", "2800::/5", "3000::/5", "3800::/5"}, true},
        {{"::/2", "4000::/2"}, true},
        {{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"}, false},
        {{"10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8", "13.0.0.0/8"}, false},
        {{"10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9"}, false},
        {{"2001:db8::/32", "fd00::/8", "fe80::/10"}, false},
        {{"8000::/1"}, false}, /* nobody's */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hky_cidr allow[20];
        uint32_t n = 0;
        for (; rows[i].networks[n] != NULL; n++)
            allow[n] = cidr_of(rows[i].networks[n]);
        if (accept_allow_is_everyone(allow, n) != rows[i].is_everyone)
            fail_msg("row %zu, %s: %d", i, n > 0 ? rows[i].networks[0] : "", !rows[i].is_everyone);
    }
    /* 256 pieces */
    struct hky_cidr all[256];
    for (int i = 0; i < 256; i++) {
        char text[20];
        snprintf(text, sizeof text, "%d.0.0.0/8", 255 - i);
        all[i] = cidr_of(text);
    }
    assert_true(accept_allow_is_everyone(all, 256));
    assert_true(accept_allow_is_everyone(all, 40));
    assert_false(accept_allow_is_everyone(all, 30));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_has_its_own_addresses_only),
        cmocka_unit_test(everybody_in_any_number_of_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
