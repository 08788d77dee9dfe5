/*
 * The control socket: each line is a JSON object, in requests and in answers. The connection of a client that sends too
 * much, or nothing for a minute, is closed. An answer may come later; when the client has left before, the request is
 * kept until its answer, which is dropped.
 */
#include "console/http.h"

#include "net/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MOST (64u << 10)
#define ANSWER_MOST  (64u << 20)
#define IDLE_MS      60000
#define CLIENTS_MOST 64
#define REST_MS      200 /* before the next accept when no descriptor is free */

struct client {
    TAILQ_ENTRY(client) link;
    struct hky_console *console;
    struct hky_stream *stream;
    struct hky_console_request *asking; /* one at a time */
};

struct hky_console_request {
    TAILQ_ENTRY(hky_console_request) link;
    struct hky_console *console;
    struct client *client;             /* NULL: it has left */
    const struct hky_command *command; /* NULL: no command has that name */
    json_t *json;                      /* the request as parsed; owns the texts of `values` */
    struct hky_value values[HKY_ARGUMENTS_MAX];
};

struct hky_console {
    struct hky_loop *loop;
    struct hky_console_ops ops;
    int fd;
    char *path;
    int dir; /* -1, or open for as long as `path` is used */
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

static void request_free(struct hky_console_request *rq)
{
    TAILQ_REMOVE(&rq->console->requests, rq, link);
    json_decref(rq->json);
    free(rq);
}

/* Sends one line to the client, which may then send its next request. */
static void reply(struct hky_console_request **request, struct hky_str line)
{
    struct client *c = (*request)->client;

    request_free(*request);
    *request = NULL;
    if (c == NULL)
        return;
    c->asking = NULL;
    hky_stream_write(c->stream, line.p, line.n);
    hky_stream_write(c->stream, "\n", 1);
    hky_stream_set_deadline(c->stream, IDLE_MS);
    hky_stream_resume(c->stream);
}

void hky_console_answer(struct hky_console_request **rq, const void *answer)
{
    const struct hky_command *command = (*rq)->command;
    struct hky_buf b;
    struct hky_json j = hky_json_to(&b);

    hky_buf_init(&b, ANSWER_MOST);
    hky_json_begin_object(&j, NULL);
    hky_json_bool(&j, "ok", true);
    if (command->render != NULL)
        command->render(answer, &j);
    hky_json_end_object(&j);
    if (b.is_over)
        hky_console_refuse(rq, "too_many", "the answer is too large", "select fewer, or give a smaller limit");
    else
        reply(rq, hky_buf_str(&b));
    hky_buf_fini(&b);
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
    reply(rq, hky_buf_str(&b));
    hky_buf_fini(&b);
}

const struct hky_value *hky_console_arg(const struct hky_console_request *rq, const char *name)
{
    for (size_t i = 0; rq->command->arguments != NULL && rq->command->arguments[i].name != NULL; i++)
        if (strcmp(rq->command->arguments[i].name, name) == 0)
            return &rq->values[i];
    HKY_ASSERT(!"a handler asked for an argument that its command does not declare");
    return NULL;
}

/* ---- a request's arguments ---- */

static enum hky_err take_value(const struct hky_argument *a, const json_t *json, struct hky_value *out,
                               struct hky_error *e)
{
    char digits[32];

    *out = (struct hky_value){0};
    /* null may come from an empty variable of a script, which must not widen a selection to everything. */
    if (json_is_null(json))
        return hky_error_set(e, HKY_E_SYNTAX, "%s is null: leave it out, or give it a value", a->name);
    if (a->type == HKY_ARG_FLAG && json_is_false(json))
        return HKY_OK;
    if (a->type == HKY_ARG_FLAG ? json_is_true(json) : json_is_string(json))
        return hky_argument_parse(a, a->type == HKY_ARG_FLAG ? "" : json_string_value(json), out, e);
    if (json_is_integer(json) && (a->type == HKY_ARG_NUMBER || a->type == HKY_ARG_DURATION)) {
        snprintf(digits, sizeof digits, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
        return hky_argument_parse(a, digits, out, e);
    }
    return hky_error_set(e, HKY_E_SYNTAX, "%s must be %s", a->name,
                         a->type == HKY_ARG_FLAG                                    ? "true or false"
                         : a->type == HKY_ARG_NUMBER || a->type == HKY_ARG_DURATION ? "a number or text"
                                                                                    : "text");
}

static enum hky_err take_members(struct hky_console_request *rq, json_t *object, bool is_outer, struct hky_error *e)
{
    const struct hky_command *command = rq->command;
    const char *name, *nearest;
    json_t *value;

    json_object_foreach (object, name, value) {
        const struct hky_argument *a = hky_command_argument(command, hky_str_z(name), &nearest);
        enum hky_err err;

        if (is_outer && (strcmp(name, "cmd") == 0 || strcmp(name, "action") == 0 || strcmp(name, "select") == 0))
            continue;
        if (a == NULL)
            return hky_error_set(e, HKY_E_SYNTAX, "unexpected argument \"%.40s\" for %s%s%s%s", name, command->name,
                                 nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "",
                                 nearest != NULL ? "\"?" : "");
        if (rq->values[a - command->arguments].is_given)
            return hky_error_set(e, HKY_E_SYNTAX, "%s is given twice", name);
        if ((err = take_value(a, value, &rq->values[a - command->arguments], e)) != HKY_OK)
            return err;
    }
    return HKY_OK;
}

/* {"cmd":"queue","action":"list"} and {"cmd":"queue list"} are the same; without an action it is list. */
static const struct hky_command *find_command(const struct hky_command *table, const char *cmd, const char *action)
{
    const struct hky_command *fallback = NULL;
    char name[64], list[64];

    snprintf(name, sizeof name, "%s%s%s", cmd, action != NULL ? " " : "", action != NULL ? action : "");
    snprintf(list, sizeof list, "%s list", cmd);
    for (; table->name != NULL; table++) {
        if (strcmp(table->name, name) == 0)
            return table;
        if (action == NULL && strcmp(table->name, list) == 0)
            fallback = table;
    }
    return fallback;
}

static void refuse_command(struct hky_console_request **rq, const char *cmd, const char *action)
{
    const struct hky_command *table = (*rq)->console->ops.commands;
    char message[120];
    struct hky_buf names;

    snprintf(message, sizeof message, "there is no command \"%.40s%s%.40s\"", cmd, action != NULL ? " " : "",
             action != NULL ? action : "");
    hky_buf_init(&names, 1000);
    for (const struct hky_command *c = table; c->name != NULL; c++)
        hky_buf_printf(&names, "%s%s", c != table ? ", " : "commands: ", c->name);
    hky_console_refuse(rq, "bad_request", message, hky_buf_z(&names));
    hky_buf_fini(&names);
}

static void run_request(struct hky_console_request *rq)
{
    const struct hky_console *console = rq->console;
    const char *cmd = json_string_value(json_object_get(rq->json, "cmd"));
    const json_t *action = json_object_get(rq->json, "action");
    json_t *select = json_object_get(rq->json, "select");
    char hint[80];
    struct hky_error e = {0};

    if (cmd == NULL || (action != NULL && !json_is_string(action)) || (select != NULL && !json_is_object(select))) {
        hky_console_refuse(&rq, "bad_request",
                           "a request is one JSON object with \"cmd\", and \"action\" and \"select\" where it has them",
                           "{\"cmd\":\"queue\",\"action\":\"list\",\"select\":{\"state\":\"deferred\"}}");
        return;
    }
    rq->command = find_command(console->ops.commands, cmd, json_string_value(action));
    if (rq->command == NULL) {
        refuse_command(&rq, cmd, json_string_value(action));
        return;
    }
    if ((rq->command->right & console->ops.rights) == 0) {
        hky_console_refuse(&rq, "forbidden", "nothing may be changed here",
                           "send the command to the engine's control socket, as its user");
        return;
    }
    if (take_members(rq, rq->json, true, &e) != HKY_OK || take_members(rq, select, false, &e) != HKY_OK ||
        hky_command_check(rq->command, rq->values, HKY_WRITING_JSON, &e) != HKY_OK) {
        snprintf(hint, sizeof hint, "hikyaku %.50s --help", rq->command->name);
        hky_console_refuse(&rq, "bad_request", e.text, hint);
        return;
    }
    rq->command->run(console->ops.ctx, rq->command, rq);
}

static void on_line(struct client *c, struct hky_str line)
{
    struct hky_console_request *rq = hky_calloc(1, sizeof *rq);

    rq->console = c->console;
    rq->client = c;
    rq->json = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, NULL);
    TAILQ_INSERT_TAIL(&c->console->requests, rq, link);
    c->asking = rq;
    hky_stream_set_deadline(c->stream, 0);
    hky_stream_pause(c->stream);
    run_request(rq);
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

/* sun_path holds 108 octets. A longer path is reached through the descriptor of its folder, which stays open in *dir
 * for as long as the address is used; *dir is -1 when none is needed. */
static enum hky_err socket_address(const char *spool, struct sockaddr_un *un, int *dir, struct hky_error *e)
{
    int n = snprintf(un->sun_path, sizeof un->sun_path, "%s/control.sock", spool);

    un->sun_family = AF_UNIX;
    *dir = -1;
    if (n > 0 && (size_t)n < sizeof un->sun_path)
        return HKY_OK;
    *dir = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir < 0)
        return hky_error_sys(e, errno == EACCES ? HKY_E_DENIED : HKY_E_MISSING, errno, "cannot open the spool %s",
                             spool);
    snprintf(un->sun_path, sizeof un->sun_path, "/proc/self/fd/%d/control.sock", *dir);
    return HKY_OK;
}

static void close_dir(int *dir)
{
    if (*dir >= 0)
        close(*dir);
    *dir = -1;
}

enum hky_err hky_console_new(struct hky_loop *aux, const char *spool, const char *http,
                             const struct hky_console_ops *ops, struct hky_console **out, struct hky_error *e)
{
    struct sockaddr_un un = {0};
    struct hky_console *c;
    mode_t mask;
    int rc, dir;
    enum hky_err err = socket_address(spool, &un, &dir, e);

    *out = NULL;
    if (err != HKY_OK)
        return err;
    c = hky_calloc(1, sizeof *c);
    c->loop = aux;
    c->ops = *ops;
    c->path = hky_strdup(un.sun_path);
    c->dir = dir;
    TAILQ_INIT(&c->clients);
    TAILQ_INIT(&c->requests);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    unlink(un.sun_path); /* no other engine uses it, because this one has the lock of the spool */
    mask = umask(077);
    rc = c->fd < 0 ? -1 : bind(c->fd, (struct sockaddr *)&un, sizeof un);
    umask(mask);
    if (rc != 0 || listen(c->fd, 16) != 0) {
        err = hky_error_sys(e, HKY_E_IO, errno, "cannot make the control socket %s/control.sock", spool);
        close_dir(&c->dir);
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
    while ((rq = TAILQ_FIRST(&c->requests)) != NULL)
        request_free(rq);
    close(c->fd);
    unlink(c->path);
    close_dir(&c->dir);
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

static enum hky_err no_engine(const char *spool, bool is_denied, struct hky_error *e)
{
    if (is_denied)
        return hky_error_set(
            e, HKY_E_DENIED,
            "the spool \"%.100s\" is for the engine's user and root only; run this command as one of them", spool);
    return hky_error_set(
        e, HKY_E_MISSING,
        "no engine runs on the spool \"%.100s\" (start it: hikyaku run POLICY; or name its spool with --spool DIR)",
        spool);
}

enum hky_err hky_console_call(const char *spool, struct hky_str request, struct hky_buf *answer, struct hky_error *e)
{
    struct sockaddr_un un = {0};
    int fd = -1, dir, rc = -1;
    enum hky_err err = socket_address(spool, &un, &dir, e);

    if (err == HKY_OK) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        rc = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&un, sizeof un);
    }
    err = rc != 0 ? no_engine(spool, errno == EACCES || err == HKY_E_DENIED, e) : exchange(fd, request, answer, e);
    close_dir(&dir);
    if (fd >= 0)
        close(fd);
    return err;
}
