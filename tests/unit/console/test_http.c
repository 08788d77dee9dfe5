#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "console/http.h"

struct rig {
    struct hky_loop *loop;
    struct hky_console_http *http;
    struct hky_buf answer;
    unsigned port;
};

static const char *unwell(void *ctx)
{
    (void)ctx;
    return NULL;
}

static void metrics(void *ctx, struct hky_buf *out)
{
    (void)ctx;
    hky_buf_add_z(out, "hikyaku_secret 1\n");
}

static unsigned free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    close(fd);
    return ntohs(in.sin_port);
}

static void *exchange(void *arg)
{
    void **args = arg;
    struct rig *rig = args[0];
    const char *request = args[1];
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)rig->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char part[4096];
    ssize_t n;

    if (connect(fd, (struct sockaddr *)&in, sizeof in) == 0 &&
        send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
        while ((n = recv(fd, part, sizeof part, 0)) > 0)
            hky_buf_add(&rig->answer, part, (size_t)n);
    close(fd);
    hky_loop_stop(rig->loop);
    return NULL;
}

/* A page of another site may make the browser ask us by a name of its own (DNS rebinding): Host tells. */
static void only_a_host_that_names_this_machine_is_answered(void **state)
{
    static const struct {
        const char *host, *status;
    } CASES[] = {
        {"Host: localhost\r\n", "200 OK"},
        {"Host: 127.0.0.1:8025\r\n", "200 OK"},
        {"host:[::1]:8025\r\n", "200 OK"},
        {"HOST: LocalHost:1\r\n", "200 OK"},
        {"X-Other: a\r\nHost: 127.0.0.1\r\n", "200 OK"},
        {"", "421 Misdirected Request"},
        {"Host:\r\n", "421 Misdirected Request"},
        {"Host: evil.example\r\n", "421 Misdirected Request"},
        {"Host: evil.example:8025\r\n", "421 Misdirected Request"},
        {"Host: localhost.evil.example\r\n", "421 Misdirected Request"},
        {"Host: localhostevil.example\r\n", "421 Misdirected Request"},
        {"Host: 127.0.0.1.evil.example\r\n", "421 Misdirected Request"},
        {"Host: 127.0.0.12\r\n", "421 Misdirected Request"},
        {"Host: localhost:evil.example\r\n", "421 Misdirected Request"},
        {"Host: localhost:\r\n", "421 Misdirected Request"},
        {"Host: localhost, evil.example\r\n", "421 Misdirected Request"},
        {"Host: evil.example\r\nHost: localhost\r\n", "421 Misdirected Request"},
        {"Host: localhost\r\nHost: evil.example\r\n", "421 Misdirected Request"},
        {"X-Host: localhost\r\n", "421 Misdirected Request"},
        {"X-Other: Host: localhost\r\n", "421 Misdirected Request"},
    };
    static const char *const paths[] = {"/healthz", "/metrics"};
    struct rig rig = {.port = free_port()};
    const struct hky_console_ops ops = {.ctx = &rig, .unwell = unwell, .metrics = metrics};
    struct hky_error e;
    char addr[32], request[400], status[64];

    (void)state;
    snprintf(addr, sizeof addr, "127.0.0.1:%u", rig.port);
    assert_int_equal(hky_loop_new(&rig.loop, &e), HKY_OK);
    assert_int_equal(hky_console_http_new(rig.loop, addr, &ops, &rig.http, &e), HKY_OK);
    hky_buf_init(&rig.answer, 1u << 20);
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        pthread_t thread;
        void *args[] = {&rig, request};

        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n%sAccept: */*\r\n\r\n", paths[i % 2], CASES[i / 2].host);
        hky_buf_clear(&rig.answer);
        assert_int_equal(pthread_create(&thread, NULL, exchange, args), 0);
        hky_loop_run(rig.loop);
        pthread_join(thread, NULL);
        snprintf(status, sizeof status, "HTTP/1.1 %s\r\n", CASES[i / 2].status);
        if (strncmp(hky_buf_z(&rig.answer), status, strlen(status)) != 0 ||
            (CASES[i / 2].status[0] != '2' && strstr(hky_buf_z(&rig.answer), "hikyaku_secret") != NULL))
            fail_msg("%s\n  answered %s\n  wanted %s", request, hky_buf_z(&rig.answer), status);
    }
    hky_buf_fini(&rig.answer);
    hky_console_http_free(&rig.http);
    hky_loop_free(&rig.loop);
}

static void only_this_machine_is_listened_on(void **state)
{
    static const struct {
        const char *host;
        bool is_good;
    } rows[] = {{"127.0.0.1", true},          {"127.1.2.3", true}, {"localhost", true}, {"[::1]", true},
                {"0.0.0.0", false},           {"[::]", false},     {"10.0.0.1", false}, {"mail.example", false},
                {"127.0.0.1.example", false}, {"", false}};
    struct hky_loop *loop;
    const struct hky_console_ops ops = {.unwell = unwell, .metrics = metrics};
    struct hky_error e;

    (void)state;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hky_console_http *http;
        char addr[64];
        snprintf(addr, sizeof addr, "%s:%u", rows[i].host, free_port());
        enum hky_err err = hky_console_http_new(loop, addr, &ops, &http, &e);
        if (err == HKY_E_NET && rows[i].host[0] == '[') /* no IPv6 here */
            continue;
        if ((err == HKY_OK) != rows[i].is_good || (!rows[i].is_good && err != HKY_E_CONFIG))
            fail_msg("%s: %d %s", addr, err, err != HKY_OK ? e.text : "");
        hky_console_http_free(&http);
    }
    hky_loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_host_that_names_this_machine_is_answered),
        cmocka_unit_test(only_this_machine_is_listened_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
