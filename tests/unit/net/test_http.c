#include "net/http.h"
#include "support/wait.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A server of one thread and one connection at a time: the path says what to do. */
static struct {
    int fd;
    unsigned port;
    pthread_t thread;
    char seen[8192]; /* the last request; read by the test after its answer only */
} server;

static size_t content_length(const char *head)
{
    const char *at = strcasestr(head, "Content-Length:");
    return at != NULL ? (size_t)strtoul(at + 15, NULL, 10) : 0;
}

static void get_request(int fd)
{
    size_t n = 0;
    server.seen[0] = 0;
    for (ssize_t r; n + 1 < sizeof server.seen && (r = recv(fd, server.seen + n, sizeof server.seen - 1 - n, 0)) > 0;) {
        n += (size_t)r;
        server.seen[n] = 0;
        const char *end = strstr(server.seen, "\r\n\r\n");
        if (end != NULL && strlen(end + 4) >= content_length(server.seen))
            return;
    }
}

static void put(int fd, const char *z)
{
    (void)!send(fd, z, strlen(z), MSG_NOSIGNAL);
}

static void *serve(void *arg)
{
    (void)arg;
    for (int fd; (fd = accept(server.fd, NULL, NULL)) >= 0; close(fd)) {
        get_request(fd);
        const char *path = strchr(server.seen, ' ');
        path = path != NULL ? path + 1 : "";
        if (strncmp(path, "/silent", 7) == 0) {
            char c;
            while (recv(fd, &c, 1, 0) > 0)
                continue; /* until the client gives up */
        } else if (strncmp(path, "/moved", 6) == 0) {
            put(fd, "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        } else if (strncmp(path, "/big", 4) == 0) {
            put(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            char junk[1001] = "";
            memset(junk, 'x', 1000);
            for (int i = 0; i < 100; i++)
                put(fd, junk);
        } else if (strncmp(path, "/cut", 4) == 0) {
            put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        } else if (strncmp(path, "/junk", 5) == 0) {
            put(fd, "220 this is SMTP\r\n");
        } else {
            put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    }
    return NULL;
}

static int set_up(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server.fd, 16), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&at, &n), 0);
    server.port = ntohs(at.sin_port);
    setenv("no_proxy", "127.0.0.1", 1);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    return 0;
}

struct asker {
    unsigned n_calls;
    enum hky_err err;
    int status;
    char body[64], text[160];
    struct hky_http **frees;
};

static void on_done(void *ctx, const struct hky_http_answer *a)
{
    struct asker *k = ctx;
    k->n_calls++;
    k->err = a->err;
    k->status = a->status;
    snprintf(k->body, sizeof k->body, HKY_STR_FMT, HKY_STR_ARG(a->body));
    snprintf(k->text, sizeof k->text, "%s", a->text);
    if (k->frees != NULL)
        hky_http_free(k->frees);
}

struct lab {
    struct hky_loop *loop;
    struct hky_http *http;
};

static void lab_up(struct lab *lab)
{
    struct hky_error e;
    assert_int_equal(hky_loop_new(&lab->loop, &e), HKY_OK);
    assert_int_equal(hky_http_new(lab->loop, &lab->http, &e), HKY_OK);
}

static void lab_down(struct lab *lab)
{
    hky_http_free(&lab->http);
    hky_loop_free(&lab->loop);
}

static const char *url(char out[64], const char *path)
{
    snprintf(out, 64, "http://127.0.0.1:%u%s", server.port, path);
    return out;
}

static void ask(struct lab *lab, struct asker *k, struct hky_http_request req)
{
    memset(k, 0, sizeof *k);
    req.done = on_done;
    req.ctx = k;
    hky_http_send(lab->http, &req);
    assert_int_equal(k->n_calls, 0);
    for (int i = 0; i < 400 && k->n_calls == 0; i++)
        hky_loop_turn(lab->loop, 50);
    assert_int_equal(k->n_calls, 1);
}

static void answers_and_failures_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *what, *path;
        enum hky_err err;
        int status;
        const char *body;
        size_t body_max;
        int64_t timeout_ms;
    } cases[] = {
        {"a plain answer", "/ok", HKY_OK, 200, "hello", 0, 0},
        {"a redirection is not followed", "/moved", HKY_OK, 302, "", 0, 0},
        {"a body above body_max", "/big", HKY_E_LIMIT, 0, NULL, 5000, 0},
        {"a body of body_max", "/ok", HKY_OK, 200, "hello", 5, 0},
        {"cut off in the body", "/cut", HKY_E_NET, 0, NULL, 0, 0},
        {"not HTTP", "/junk", HKY_E_SYNTAX, 0, NULL, 0, 0},
        {"no answer in time", "/silent", HKY_E_TIMEOUT, 0, NULL, 0, 150},
    };
    struct lab lab;
    struct asker k;
    char u[64];
    lab_up(&lab);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t start_ms = wait_now_ms();
        ask(&lab, &k,
            (struct hky_http_request){.method = "GET",
                                      .url = url(u, cases[i].path),
                                      .body_max = cases[i].body_max,
                                      .timeout_ms = cases[i].timeout_ms});
        if (k.err != cases[i].err || k.status != cases[i].status)
            fail_msg("%s: err %d status %d: %s", cases[i].what, k.err, k.status, k.text);
        if (cases[i].body != NULL)
            assert_string_equal(k.body, cases[i].body);
        if (k.err != HKY_OK)
            assert_true(k.text[0] != 0);
        assert_true(wait_now_ms() - start_ms < WAIT_MOST_SEC * 1000);
    }
    lab_down(&lab);
}

static void a_post_carries_headers_and_body(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    char u[64], body[] = "{\"a\":1}";
    const char *const headers[] = {"Content-Type: application/json", "X-Test: yes", NULL};
    lab_up(&lab);
    ask(&lab, &k,
        (struct hky_http_request){.method = "POST", .url = url(u, "/ok"), .headers = headers, .body = hky_str_z(body)});
    assert_int_equal(k.status, 200);
    assert_non_null(strstr(server.seen, "POST /ok HTTP/1.1\r\n"));
    assert_non_null(strstr(server.seen, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(server.seen, "X-Test: yes\r\n"));
    assert_non_null(strstr(server.seen, "Content-Length: 7\r\n"));
    assert_non_null(strstr(server.seen, "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(server.seen, "Expect:"));
    lab_down(&lab);
}

static void what_is_not_a_request_is_refused(void **state)
{
    (void)state;
    static const char *const injected[] = {"X-A: 1\r\nX-B: 2", NULL};
    char u[64];
    const struct {
        const char *what;
        struct hky_http_request req;
    } cases[] = {
        {"another protocol", {.method = "GET", .url = "file:///etc/passwd"}},
        {"one more", {.method = "GET", .url = "smtp://127.0.0.1/"}},
        {"a header that brings another", {.method = "GET", .url = url(u, "/ok"), .headers = injected}},
        {"a method that brings a line", {.method = "GET /\r\nX:", .url = u}},
        {"a URL with a line end", {.method = "GET", .url = "http://127.0.0.1/\r\nX: y"}},
        {"no URL", {.method = "GET"}},
    };
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask(&lab, &k, cases[i].req);
        if (k.err != HKY_E_SYNTAX)
            fail_msg("%s: err %d status %d: %s", cases[i].what, k.err, k.status, k.text);
    }
    lab_down(&lab);
}

static void a_refused_connection_is_told(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k;
    lab_up(&lab);
    ask(&lab, &k, (struct hky_http_request){.method = "GET", .url = "http://127.0.0.1:1/"});
    assert_int_equal(k.err, HKY_E_NET);
    lab_down(&lab);
}

static void free_ends_what_runs_also_inside_a_callback(void **state)
{
    (void)state;
    struct lab lab;
    struct asker k[3];
    char u[64];
    lab_up(&lab);
    memset(k, 0, sizeof k);
    k[0].frees = &lab.http;
    struct hky_http_request req = {.method = "GET", .url = url(u, "/silent"), .done = on_done, .ctx = &k[2]};
    hky_http_send(lab.http, &req);
    for (int i = 0; i < 3; i++)
        hky_loop_turn(lab.loop, 20);
    req.url = NULL;
    for (int i = 0; i < 2; i++) {
        req.ctx = &k[i];
        hky_http_send(lab.http, &req);
    }
    for (int i = 0; i < 3; i++)
        hky_loop_turn(lab.loop, 20);
    assert_int_equal(k[0].n_calls, 1);
    assert_int_equal(k[1].n_calls, 0);
    assert_int_equal(k[2].n_calls, 0);
    assert_null(lab.http);
    lab_down(&lab);
}

/* libcurl asks this instead of the C library. A name "hangs.test" has no answer before `lookups.is_over`. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_waiting;
    bool is_over;
} lookups = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    (void)service;
    (void)hints;
    *out = NULL;
    if (node == NULL || strcmp(node, "hangs.test") != 0)
        return EAI_NONAME;
    pthread_mutex_lock(&lookups.lock);
    lookups.n_waiting++;
    while (!lookups.is_over)
        pthread_cond_wait(&lookups.changed, &lookups.lock);
    lookups.n_waiting--;
    pthread_cond_broadcast(&lookups.changed);
    pthread_mutex_unlock(&lookups.lock);
    return EAI_AGAIN;
}

static void end_lookups(void)
{
    pthread_mutex_lock(&lookups.lock);
    lookups.is_over = true;
    pthread_cond_broadcast(&lookups.changed);
    while (lookups.n_waiting > 0)
        pthread_cond_wait(&lookups.changed, &lookups.lock);
    lookups.is_over = false;
    pthread_mutex_unlock(&lookups.lock);
}

static unsigned n_lookups(void)
{
    pthread_mutex_lock(&lookups.lock);
    unsigned n = lookups.n_waiting;
    pthread_mutex_unlock(&lookups.lock);
    return n;
}

/* Ends the look-ups after some seconds if nobody else does, so that a call that waits for them fails the test instead
 * of holding it for ever. */
static void *end_lookups_late(void *is_done)
{
    for (int i = 0; i < 300 && !__atomic_load_n((bool *)is_done, __ATOMIC_ACQUIRE); i++)
        let_pass(100000, "a call that waits for the look-up would not return meanwhile");
    end_lookups();
    return NULL;
}

/* The system's resolver can block for half a minute. Neither the loop nor the end waits for it. */
static void a_lookup_that_hangs_holds_up_neither_the_loop_nor_the_end(void **state)
{
    (void)state;
    for (int is_timed_out = 0; is_timed_out < 2; is_timed_out++) {
        struct lab lab;
        struct asker k = {0};
        pthread_t late;
        bool is_done = false;
        lab_up(&lab);
        struct hky_http_request req = {.method = "GET",
                                       .url = "http://hangs.test/",
                                       .timeout_ms = is_timed_out ? 200 : 60000,
                                       .done = on_done,
                                       .ctx = &k};
        hky_http_send(lab.http, &req);
        for (int64_t until = wait_now_ms() + WAIT_MOST_SEC * 1000; n_lookups() == 0 && wait_now_ms() < until;)
            hky_loop_turn(lab.loop, 10);
        assert_int_equal(n_lookups(), 1);
        assert_int_equal(pthread_create(&late, NULL, end_lookups_late, &is_done), 0);
        for (int64_t until = wait_now_ms() + WAIT_MOST_SEC * 1000;
             is_timed_out && k.n_calls == 0 && wait_now_ms() < until;)
            hky_loop_turn(lab.loop, 10);
        hky_http_free(&lab.http);
        bool is_still_looking = n_lookups() == 1;
        __atomic_store_n(&is_done, true, __ATOMIC_RELEASE);
        pthread_join(late, NULL);
        assert_true(is_still_looking);
        assert_int_equal(k.n_calls, is_timed_out);
        if (is_timed_out)
            assert_int_equal(k.err, HKY_E_TIMEOUT);
        lab_down(&lab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_and_failures_are_told),
        cmocka_unit_test(a_post_carries_headers_and_body),
        cmocka_unit_test(what_is_not_a_request_is_refused),
        cmocka_unit_test(a_refused_connection_is_told),
        cmocka_unit_test(free_ends_what_runs_also_inside_a_callback),
        cmocka_unit_test(a_lookup_that_hangs_holds_up_neither_the_loop_nor_the_end),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
