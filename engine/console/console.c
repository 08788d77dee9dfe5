/*
 * The control socket: one JSON object a line in, one a line out. A client that sends too much, or nothing for a minute,
 * is closed. Answers may come later; a client that went away meanwhile is remembered by its request only.
 */
#include "console/console.h"

#include "base/json.h"
#include "net/stream.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MOST (64u << 10)
#define IDLE_MS      60000
#define CLIENTS_MOST 64
#define REST_MS      200 /* without a descriptor to take a client with */

struct client {
    TAILQ_ENTRY(client) link;
    struct hky_console *console;
    struct hky_stream *stream;
    struct hky_console_request *asking; /* one at a time */
};

struct hky_console_request {
    TAILQ_ENTRY(hky_console_request) link;
    struct hky_console *console;
    struct client *client; /* NULL: gone */
};

struct hky_console {
    struct hky_loop *loop;
    struct hky_console_ops ops;
    int fd;
    char *path;
    struct hky_watch *watch;
    struct hky_timer rest;
    struct hky_console_http *http;
    unsigned n_clients;
    TAILQ_HEAD(, client) clients;
    TAILQ_HEAD(, hky_console_request) requests;
};

static void close_client(struct client *c)
{
    TAILQ_REMOVE(&c->console->clients, c, link);
    c->console->n_clients--;
    if (c->asking != NULL)
        c->asking->client = NULL;
    hky_stream_close(&c->stream);
    free(c);
}

void hky_console_answer(struct hky_console_request **request, struct hky_str json)
{
    struct hky_console_request *rq = *request;
    struct client *c = rq->client;

    *request = NULL;
    TAILQ_REMOVE(&rq->console->requests, rq, link);
    free(rq);
    if (c == NULL)
        return;
    c->asking = NULL;
    hky_stream_write(c->stream, json.p, json.n);
    hky_stream_write(c->stream, "\n", 1);
    hky_stream_set_deadline(c->stream, IDLE_MS);
    hky_stream_resume(c->stream);
}

void hky_console_refuse(struct hky_console_request **rq, const char *code, const char *message, const char *hint)
{
    struct hky_json j;
    struct hky_buf b;

    hky_buf_init(&b, REQUEST_MOST);
    j = hky_json_to(&b);
    hky_json_begin_object(&j, NULL);
    hky_json_bool(&j, "ok", false);
    hky_json_begin_object(&j, "error");
    hky_json_z(&j, "code", code);
    hky_json_z(&j, "message", message);
    hky_json_z(&j, "hint", hint);
    hky_json_end_object(&j);
    hky_json_end_object(&j);
    hky_console_answer(rq, hky_buf_str(&b));
    hky_buf_fini(&b);
}

static void on_line(struct client *c, struct hky_str line)
{
    json_t *root = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, NULL);
    const char *cmd = json_string_value(json_object_get(root, "cmd"));
    struct hky_console_request *rq = hky_calloc(1, sizeof *rq);

    rq->console = c->console;
    rq->client = c;
    TAILQ_INSERT_TAIL(&c->console->requests, rq, link);
    c->asking = rq;
    hky_stream_set_deadline(c->stream, 0);
    hky_stream_pause(c->stream);
    if (cmd == NULL)
        hky_console_refuse(&rq, "bad_request", "a request is one JSON object with \"cmd\"", "{\"cmd\":\"status\"}");
    else
        c->console->ops.request(c->console->ops.ctx, rq, cmd, line);
    json_decref(root);
}

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct client *c = ctx;
    const char *end = memchr(p, '\n', n);

    if (end == NULL)
        return 0;
    on_line(c, hky_str_of(p, (size_t)(end - p)));
    return (size_t)(end - p) + 1;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    (void)e;
    if (ev == HKY_STREAM_EOF || ev == HKY_STREAM_FAILED)
        close_client(ctx);
}

static const struct hky_stream_ops stream_ops = {on_data, on_event};

static void on_readable(void *ctx, int bits)
{
    struct hky_console *console = ctx;
    int fd = accept4(console->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *c;

    (void)bits;
    if (fd < 0 && errno != EAGAIN) {
        hky_watch_free(&console->watch);
        hky_timer_set(&console->rest, REST_MS);
    }
    if (fd < 0)
        return;
    if (console->n_clients >= CLIENTS_MOST) {
        close(fd);
        return;
    }
    c = hky_calloc(1, sizeof *c);
    c->console = console;
    c->stream = hky_stream_new(&(struct hky_stream_params){console->loop, &stream_ops, c, REQUEST_MOST}, fd);
    hky_stream_set_deadline(c->stream, IDLE_MS);
    TAILQ_INSERT_TAIL(&console->clients, c, link);
    console->n_clients++;
}

static void on_rested(struct hky_timer *timer)
{
    struct hky_console *console = HKY_CONTAINER(timer, struct hky_console, rest);

    console->watch = hky_watch_new_level(console->loop, console->fd, HKY_READABLE, on_readable, console);
}

/* sun_path holds 108 octets: longer paths are reached through the folder's descriptor. */
static enum hky_err socket_address(const char *spool, struct sockaddr_un *un, struct hky_error *e)
{
    int n = snprintf(un->sun_path, sizeof un->sun_path, "%s/control.sock", spool);

    un->sun_family = AF_UNIX;
    if (n < 0 || (size_t)n >= sizeof un->sun_path)
        return hky_error_set(e, HKY_E_LIMIT,
                             "the path %s is too long for a socket; choose a shorter spool (%zu octets)", spool,
                             sizeof un->sun_path - sizeof "/control.sock");
    return HKY_OK;
}

enum hky_err hky_console_new(struct hky_loop *aux, const char *spool, const char *http,
                             const struct hky_console_ops *ops, struct hky_console **out, struct hky_error *e)
{
    struct sockaddr_un un = {0};
    struct hky_console *c;
    mode_t mask;
    int rc;
    enum hky_err err = socket_address(spool, &un, e);

    *out = NULL;
    if (err != HKY_OK)
        return err;
    c = hky_calloc(1, sizeof *c);
    c->loop = aux;
    c->ops = *ops;
    c->path = hky_strdup(un.sun_path);
    TAILQ_INIT(&c->clients);
    TAILQ_INIT(&c->requests);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(un.sun_path); /* the spool's lock says that no other engine uses it */
    mask = umask(077);
    rc = c->fd < 0 ? -1 : bind(c->fd, (struct sockaddr *)&un, sizeof un);
    umask(mask);
    if (rc != 0 || listen(c->fd, 16) != 0) {
        err = hky_error_sys(e, HKY_E_IO, errno, "cannot make the control socket %s", un.sun_path);
        if (c->fd >= 0)
            close(c->fd);
        free(c->path);
        free(c);
        return err;
    }
    hky_timer_init(&c->rest, aux, on_rested);
    on_rested(&c->rest);
    if (http != NULL && http[0] != '\0')
        err = hky_console_http_new(aux, http, ops, &c->http, e);
    *out = c;
    if (err != HKY_OK)
        hky_console_free(out);
    return err;
}

void hky_console_free(struct hky_console **console)
{
    struct hky_console *c = *console;
    struct hky_console_request *rq;
    struct client *client;

    *console = NULL;
    if (c == NULL)
        return;
    hky_console_http_free(&c->http);
    hky_timer_cancel(&c->rest);
    hky_watch_free(&c->watch);
    while ((client = TAILQ_FIRST(&c->clients)) != NULL)
        close_client(client);
    while ((rq = TAILQ_FIRST(&c->requests)) != NULL) {
        TAILQ_REMOVE(&c->requests, rq, link);
        free(rq);
    }
    close(c->fd);
    unlink(c->path);
    free(c->path);
    free(c);
}

/* ---- the client's side ---- */

static enum hky_err exchange(int fd, struct hky_str request, struct hky_buf *answer, struct hky_error *e)
{
    struct timeval patience = {60, 0};
    char part[16384];

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (size_t sent = 0; sent < request.n;) {
        ssize_t n = send(fd, request.p + sent, request.n - sent, MSG_NOSIGNAL);
        if (n <= 0)
            return hky_error_sys(e, HKY_E_IO, errno, "the engine closed the control socket");
        sent += (size_t)n;
    }
    if (send(fd, "\n", 1, MSG_NOSIGNAL) != 1)
        return hky_error_sys(e, HKY_E_IO, errno, "the engine closed the control socket");
    for (;;) {
        ssize_t n = recv(fd, part, sizeof part, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? hky_error_set(e, HKY_E_CLOSED, "the engine stopped before it answered")
                          : hky_error_sys(e, HKY_E_TIMEOUT, errno, "no answer from the engine");
        hky_buf_add(answer, part, (size_t)n);
        if (answer->is_over)
            return hky_error_set(e, HKY_E_LIMIT, "the answer is above %zu octets; select fewer", answer->max);
        if (part[n - 1] == '\n') {
            answer->n--;
            return HKY_OK;
        }
    }
}

enum hky_err hky_console_call(const char *spool, struct hky_str request, struct hky_buf *answer, struct hky_error *e)
{
    struct sockaddr_un un = {0};
    enum hky_err err = socket_address(spool, &un, e);
    int fd;

    if (err != HKY_OK)
        return err;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof un) != 0) {
        if (errno == EACCES)
            err = hky_error_set(e, HKY_E_DENIED,
                                "the spool \"%s\" is not for this user; ask as the engine's user or as root", spool);
        else
            err = hky_error_set(
                e, HKY_E_MISSING,
                "no engine runs on the spool \"%s\" (start it: hikyaku run POLICY; or name its spool with --spool DIR)",
                spool);
        if (fd >= 0)
            close(fd);
        return err;
    }
    err = exchange(fd, request, answer, e);
    close(fd);
    return err;
}
