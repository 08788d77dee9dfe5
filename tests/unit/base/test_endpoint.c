#include "base/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void endpoints(void **state)
{
    static const struct {
        const char *text, *host; /* NULL: none */
        uint16_t port;
    } rows[] = {
        {"127.0.0.1:25", "127.0.0.1", 25},
        {"mail.example:65535", "mail.example", 65535},
        {"[::1]:25", "::1", 25},
        {"[fe80::1]:0", "fe80::1", 0},
        {"127.0.0.1:99999", NULL, 0},
        {"127.0.0.1:65536", NULL, 0},
        {"127.0.0.1:-1", NULL, 0},
        {"127.0.0.1:2x", NULL, 0},
        {"127.0.0.1:", NULL, 0},
        {"127.0.0.1", NULL, 0},
        {"::1", NULL, 0},
        {"::1:25", NULL, 0},
        {"[::1]", NULL, 0},
        {"[::1]25", NULL, 0},
        {"[]:25", NULL, 0},
        {":25", NULL, 0},
        {"a b:25", NULL, 0},
        {"", NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char host[256] = "";
        uint16_t port = 0;
        bool is_good = hky_endpoint_parse(hky_str_z(rows[i].text), host, &port);
        if (is_good != (rows[i].host != NULL) || (is_good && (strcmp(host, rows[i].host) != 0 || port != rows[i].port)))
            fail_msg("%s: %d \"%s\" %u", rows[i].text, is_good, host, port);
    }
}

static void loopback(void **state)
{
    static const char *const here[] = {"127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.1.2.3"};
    static const char *const elsewhere[] = {
        "128.0.0.1", "126.255.255.255",  "0.0.0.0",        "::", "::2",  "::ffff:10.0.0.1",
        "localhost", "127.evil.example", "127.0.0.1.test", "",   "127.1"};

    (void)state;
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
        assert_true(hky_is_loopback(here[i]));
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++)
        if (hky_is_loopback(elsewhere[i]))
            fail_msg("%s", elsewhere[i]);
}

/* Of a connection's address: mapped or not, the same answer. */
static void addresses(void **state)
{
    static const struct {
        const char *text;
        bool is_loopback, is_here;
    } rows[] = {
        {"127.0.0.1", true, true},
        {"127.255.0.9", true, true},
        {"::1", true, true},
        {"::ffff:127.0.0.1", true, true},
        {"0.0.0.0", false, true},
        {"0.1.2.3", false, true},
        {"::", false, true},
        {"::ffff:0.0.0.0", false, true},
        {"128.0.0.1", false, false},
        {"::2", false, false},
        {"::ffff:10.0.0.1", false, false},
        {"::127.0.0.1", false, false},
        {"7f00::1", false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sockaddr_storage ss = {0};
        struct in6_addr a;
        ss.ss_family = AF_INET;
        if (inet_pton(AF_INET, rows[i].text, &((struct sockaddr_in *)&ss)->sin_addr) != 1) {
            ss.ss_family = AF_INET6;
            assert_int_equal(inet_pton(AF_INET6, rows[i].text, &((struct sockaddr_in6 *)&ss)->sin6_addr), 1);
        }
        hky_in6_of(&ss, &a);
        if (hky_in6_is_loopback(&a) != rows[i].is_loopback || hky_in6_is_here(&a) != rows[i].is_here)
            fail_msg("%s", rows[i].text);
        assert_int_equal(hky_is_loopback(rows[i].text), rows[i].is_loopback);
    }
    assert_true(hky_host_is_here("localhost") && hky_host_is_here("LocalHost") && hky_host_is_here("127.3.2.1"));
    assert_false(hky_host_is_here("127.0.0.1.example") || hky_host_is_here("localhost.example") ||
                 hky_host_is_here(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(endpoints), cmocka_unit_test(loopback),
                                       cmocka_unit_test(addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
