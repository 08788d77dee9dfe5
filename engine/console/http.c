/*
 * Serves /healthz and /metrics on loopback only. Host must name this machine (against DNS rebinding); a connection
 * carries one short request.
 */
#include "base/endpoint.h"
#include "console/http.h"

#include "net/acceptor.h"
#include "net/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#define REQUEST_MOST (16u << 10)
#define WHOLE_MS     10000 /* for the whole exchange */
#define PEERS_MOST   64

struct peer {
    TAILQ_ENTRY(peer) link;
    struct hky_console_http *http;
    struct hky_stream *stream;
    bool is_answered;
};

struct hky_console_http {
    struct hky_loop *loop;
    struct hky_console_ops ops;
    int fd;
    struct hky_acceptor *acceptor;
    unsigned n_peers;
    TAILQ_HEAD(, peer) peers;
};

static void close_peer(struct peer *p)
{
    TAILQ_REMOVE(&p->http->peers, p, link);
    p->http->n_peers--;
    hky_stream_close(&p->stream);
    free(p);
}

static void answer(struct peer *p, const char *status, const char *type, struct hky_str body)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n"
                     "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n",
                     status, type, body.n);

    p->is_answered = true;
    hky_stream_write(p->stream, head, (size_t)n);
    hky_stream_write(p->stream, body.p, body.n);
    hky_stream_flush(p->stream);
}

/* The one Host field; the empty string when there is none, or more than one. */
static struct hky_str host_of(struct hky_str request)
{
    const char *at = hky_str_ifind(request, HKY_STR("\r\nHost:")), *end;
    struct hky_str rest;

    if (at == NULL)
        return HKY_STR("");
    rest = hky_str_of(at + 7, (size_t)(request.p + request.n - at - 7));
    end = memchr(rest.p, '\r', rest.n);
    if (end == NULL || hky_str_ifind(rest, HKY_STR("\r\nHost:")) != NULL)
        return HKY_STR("");
    return hky_str_trim(hky_str_of(rest.p, (size_t)(end - rest.p)));
}

static bool is_local_host(struct hky_str request)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    struct hky_str host = host_of(request);
    uint64_t port;

    for (size_t i = 0; i < 3; i++) {
        struct hky_str name = hky_str_z(names[i]);
        if (hky_str_istarts(host, name) &&
            (host.n == name.n || (host.p[name.n] == ':' &&
                                  hky_str_u64(hky_str_of(host.p + name.n + 1, host.n - name.n - 1), 65535, &port))))
            return true;
    }
    return false;
}

static void answer_health(struct peer *p, struct hky_buf *body)
{
    const char *why = p->http->ops.unwell(p->http->ops.ctx);

    hky_buf_printf(body, "%s\n", why == NULL ? "ok" : why);
    answer(p, why == NULL ? "200 OK" : "503 Service Unavailable", "text/plain", hky_buf_str(body));
}

static void on_request(struct peer *p, struct hky_str request)
{
    struct hky_buf body;

    hky_buf_init(&body, 4u << 20);
    if (!is_local_host(request)) {
        answer(p, "421 Misdirected Request", "text/plain", HKY_STR("Host must be localhost\n"));
    } else if (hky_str_istarts(request, HKY_STR("GET /healthz "))) {
        answer_health(p, &body);
    } else if (hky_str_istarts(request, HKY_STR("GET /metrics "))) {
        p->http->ops.metrics(p->http->ops.ctx, &body);
        answer(p, "200 OK", "text/plain; version=0.0.4", hky_buf_str(&body));
    } else {
        answer(p, "404 Not Found", "text/plain", HKY_STR("not found: ask for /healthz or /metrics\n"));
    }
    hky_buf_fini(&body);
}

static size_t on_data(void *ctx, const char *data, size_t n)
{
    struct peer *p = ctx;

    if (p->is_answered)
        return n;
    const char *end = memmem(data, n, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    on_request(p, hky_str_of(data, (size_t)(end - data) + 2)); /* what follows is not part of the header */
    if (hky_stream_unsent(p->stream) == 0)
        close_peer(p);
    return n;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct peer *p = ctx;

    (void)e;
    if (ev == HKY_STREAM_EOF || ev == HKY_STREAM_FAILED || (ev == HKY_STREAM_DRAINED && p->is_answered))
        close_peer(p);
}

static const struct hky_stream_ops stream_ops = {on_data, on_event};

static void on_taken(void *ctx, int fd, const struct sockaddr_storage *from)
{
    struct hky_console_http *h = ctx;
    struct peer *p;

    (void)from;
    if (h->n_peers >= PEERS_MOST) {
        close(fd);
        return;
    }
    p = hky_calloc(1, sizeof *p);
    p->http = h;
    p->stream = hky_stream_new(&(struct hky_stream_params){h->loop, &stream_ops, p, REQUEST_MOST}, fd);
    hky_stream_set_deadline(p->stream, WHOLE_MS);
    TAILQ_INSERT_TAIL(&h->peers, p, link);
    h->n_peers++;
}

static const struct hky_acceptor_ops acceptor_ops = {.taken = on_taken};

union address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static enum hky_err parse_loopback(const char *addr, union address *at, socklen_t *n, struct hky_error *e)
{
    char host[256];
    uint16_t port;

    *at = (union address){0};
    if (!hky_endpoint_parse(hky_str_z(addr), host, &port))
        return hky_error_set(e, HKY_E_CONFIG, "engine.http is \"ADDRESS:PORT\", not \"%s\"", addr);
    if (!hky_host_is_here(host))
        return hky_error_set(e, HKY_E_CONFIG, "engine.http listens on loopback only (127.0.0.1:PORT), not %s", addr);
    if (inet_pton(AF_INET6, host, &at->in6.sin6_addr) == 1) {
        at->in6.sin6_family = AF_INET6;
        at->in6.sin6_port = htons(port);
        *n = sizeof at->in6;
        return HKY_OK;
    }
    at->in.sin_family = AF_INET;
    at->in.sin_port = htons(port);
    *n = sizeof at->in;
    if (inet_pton(AF_INET, host, &at->in.sin_addr) != 1)
        at->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* "localhost" */
    return HKY_OK;
}

enum hky_err hky_console_http_new(struct hky_loop *loop, const char *addr, const struct hky_console_ops *ops,
                                  struct hky_console_http **out, struct hky_error *e)
{
    struct hky_console_http *h;
    union address at;
    socklen_t n = 0;
    int one = 1;
    enum hky_err err = parse_loopback(addr, &at, &n, e);

    *out = NULL;
    if (err != HKY_OK)
        return err;
    h = hky_calloc(1, sizeof *h);
    h->loop = loop;
    h->ops = *ops;
    TAILQ_INIT(&h->peers);
    h->fd = socket(at.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(h->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (h->fd < 0 || bind(h->fd, &at.sa, n) != 0 || listen(h->fd, 16) != 0) {
        err = hky_error_sys(
            e, errno == EADDRINUSE ? HKY_E_EXISTS : HKY_E_NET, errno,
            "cannot listen on %s (engine.http); choose another port, or stop the program that uses this one", addr);
        if (h->fd >= 0)
            close(h->fd);
        free(h);
        return err;
    }
    h->acceptor = hky_acceptor_new(loop, h->fd, &acceptor_ops, h);
    *out = h;
    return HKY_OK;
}

void hky_console_http_free(struct hky_console_http **http)
{
    struct hky_console_http *h = *http;
    struct peer *p;

    *http = NULL;
    if (h == NULL)
        return;
    hky_acceptor_free(&h->acceptor);
    while ((p = TAILQ_FIRST(&h->peers)) != NULL)
        close_peer(p);
    close(h->fd);
    free(h);
}
