#include "accept/internal.h"

#include "base/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_MAX      (1u << 20) /* what a pipelining client may have sent ahead while a commit is pending */
#define UNSENT_MAX    65536      /* with more unsent replies than this, no further command is read */
#define RATE_MIN      500        /* octets of content a second, on average */
#define ROOM_AGAIN_MS 5          /* the journal had too much unsynced data; it is asked again after this time */
#define PENALTY_MS    1000       /* the delay of the reply to a failed login */

/* A client. The dialogue is in `session`; its socket, its deadlines and what it waits for are here. */
struct accept_connection {
    LIST_ENTRY(accept_connection) link;
    struct accept_worker *worker;
    struct hky_stream *stream; /* NULL: closed */
    struct hky_policy *policy;
    struct hky_policy *next_policy; /* NULL, or the policy that the session takes over as soon as it is at rest */
    const struct hky_listen *listen;
    struct accept_listener *listener;
    struct accept_submission *submission;
    struct accept_ask *ask;
    struct hky_timer again;
    struct hky_task free_task;
    struct accept_connection_peer peer;
    uint32_t seen_commands;
    uint8_t deadline; /* DEADLINE_ */
    bool is_greeted, is_paused;
    int64_t budget_ms, budget_at_ms; /* of content: the time left, and when that was computed */
    struct accept_session session;
};
enum { DEADLINE_NONE, DEADLINE_COMMAND, DEADLINE_CONTENT };

/* A message on its way to the disk. */
struct accept_submission {
    struct hky_submission submission;
    LIST_ENTRY(accept_submission) link;
    struct accept_worker *worker;
    struct accept_connection *connection; /* NULL: the connection is closed */
};

/* A request for a login's secret. */
struct accept_ask {
    LIST_ENTRY(accept_ask) link;
    struct accept_connection *connection; /* NULL: the connection is closed */
    struct hky_policy *policy;            /* the name of the secret is part of it */
};

static void connection_free(struct accept_connection *c)
{
    hky_timer_cancel(&c->again);
    accept_session_fini(&c->session);
    hky_policy_unref(&c->policy);
    hky_policy_unref(&c->next_policy);
    accept_listener_unref(&c->listener);
    free(c);
}

static void on_free(struct hky_task *task)
{
    connection_free(HKY_CONTAINER(task, struct accept_connection, free_task));
}

/* Idempotent. The memory is freed at the end of the turn, because the session may be in the middle of a command. */
static void connection_close(struct accept_connection *c)
{
    if (c->stream == NULL)
        return;
    hky_stream_close(&c->stream);
    hky_timer_cancel(&c->again);
    if (c->submission != NULL)
        c->submission->connection = NULL;
    if (c->ask != NULL)
        c->ask->connection = NULL;
    LIST_REMOVE(c, link);
    accept_client_leave(c->worker, &c->peer.addr);
    c->free_task.run = on_free;
    hky_loop_defer(c->worker->loop, &c->free_task);
}

/* The peer is gone. A big file that the session holds is given up now, because the connection's memory may be freed
 * after the journal is closed. */
static void connection_lost(struct accept_connection *c)
{
    accept_session_fini(&c->session);
    connection_close(c);
}

/* --- deadlines --- */

static void set_deadline(struct accept_connection *c, uint8_t kind, int64_t ms)
{
    c->deadline = kind;
    hky_stream_set_deadline(c->stream, ms);
}

/* Deadlines do not move with every octet: a command must be complete command_ms after the one before; content has
 * data_ms, and every octet of it adds 2 ms. */
static void move_deadline(struct accept_connection *c, size_t n_read)
{
    const struct hky_bounds *bounds = &c->policy->engine.bounds;
    const struct accept_session *s = &c->session;

    if (s->waits & ~(unsigned)(HKY_WAIT_TLS | HKY_WAIT_OUTPUT)) {
        if (c->deadline != DEADLINE_NONE)
            set_deadline(c, DEADLINE_NONE, 0);
        return;
    }
    if (accept_session_is_content(s)) {
        int64_t now = hky_loop_now_ms(c->worker->loop);
        if (c->deadline != DEADLINE_CONTENT)
            c->budget_ms = bounds->data_ms;
        else
            c->budget_ms -= now - c->budget_at_ms;
        c->budget_ms += (int64_t)(n_read * 1000 / RATE_MIN);
        if (c->budget_ms > bounds->data_ms)
            c->budget_ms = bounds->data_ms;
        c->budget_at_ms = now;
        set_deadline(c, DEADLINE_CONTENT, c->budget_ms > 0 ? c->budget_ms : 1);
    } else if (c->deadline != DEADLINE_COMMAND || c->seen_commands != s->n_commands) {
        set_deadline(c, DEADLINE_COMMAND, bounds->command_ms);
    }
    c->seen_commands = s->n_commands;
}

/* When the session has taken over the new policy, the old one is no longer borrowed. */
static void leave_old_policy(struct accept_connection *c)
{
    if (c->next_policy == NULL || c->session.p.policy != c->next_policy)
        return;
    hky_policy_unref(&c->policy);
    c->policy = c->next_policy;
    c->listen = c->session.p.listen;
    c->next_policy = NULL;
}

/* Called after every event of the session: reading stops or goes on. */
static void settle(struct accept_connection *c, size_t n_read)
{
    if (c->stream == NULL)
        return;
    leave_old_policy(c);
    if (c->session.waits & HKY_WAIT_OUTPUT) {
        hky_stream_flush(c->stream);
        if (hky_stream_unsent(c->stream) <= UNSENT_MAX) {
            accept_session_resume(&c->session, HKY_WAIT_OUTPUT);
            if (c->stream == NULL) /* the engine is stopping, and this ended the session */
                return;
            hky_stream_pause(c->stream); /* so that the commands that are left are offered again */
            c->is_paused = true;
        }
    }
    bool pause = (c->session.waits & ~(unsigned)HKY_WAIT_TLS) != 0;
    if (pause && !c->is_paused)
        hky_stream_pause(c->stream);
    else if (!pause && c->is_paused)
        hky_stream_resume(c->stream);
    c->is_paused = pause;
    move_deadline(c, n_read);
    if (c->session.waits & HKY_WAIT_JOURNAL)
        hky_timer_set(&c->again, ROOM_AGAIN_MS);
    else if (c->session.waits & HKY_WAIT_PENALTY && !hky_timer_is_set(&c->again))
        hky_timer_set(&c->again, PENALTY_MS);
}

static void on_again(struct hky_timer *timer)
{
    struct accept_connection *c = HKY_CONTAINER(timer, struct accept_connection, again);

    if (c->stream == NULL)
        return;
    accept_session_resume(&c->session, HKY_WAIT_JOURNAL | HKY_WAIT_PENALTY);
    settle(c, 0);
}

/* --- what the session asks for --- */

static void on_write(void *ctx, const char *p, size_t n)
{
    struct accept_connection *c = ctx;

    if (c->stream == NULL)
        return;
    hky_stream_write(c->stream, p, n);
    if (hky_stream_unsent(c->stream) > UNSENT_MAX)
        c->session.waits |= HKY_WAIT_OUTPUT;
}

static int64_t now_ms(void *ctx)
{
    struct accept_connection *c = ctx;

    return hky_clock_now_ms(c->worker->accept->params.clock);
}

static uint64_t new_id(void *ctx)
{
    struct accept_connection *c = ctx;

    return hky_id_next(hky_journal_ids(c->worker->accept->params.journal), now_ms(ctx));
}

static enum hky_err room(void *ctx, uint64_t size)
{
    struct accept_connection *c = ctx;

    return hky_journal_room(c->worker->accept->params.journal, size);
}

static void on_refused(void *ctx, struct hky_str sender, struct hky_str rcpt, const char *reply)
{
    struct accept_connection *c = ctx;
    struct hky_accept *a = c->worker->accept;
    char from[HKY_ADDRESS_MAX + 1], to[HKY_ADDRESS_MAX + 1];

    snprintf(from, sizeof from, "%.*s", HKY_STR_ARG(sender));
    snprintf(to, sizeof to, "%.*s", HKY_STR_ARG(rcpt));
    __atomic_add_fetch(&c->worker->refused, 1, __ATOMIC_RELAXED);
    if (a->ops.event != NULL)
        a->ops.event(a->ops.ctx, c->worker->index,
                     &(struct hky_event){.kind = HKY_EVENT_REFUSED,
                                         .at_ms = now_ms(c),
                                         .sender = from,
                                         .rcpt = to,
                                         .client = c->session.client,
                                         .user = c->session.user != NULL ? c->session.user->name : NULL,
                                         .text = reply});
}

static void on_durable(struct hky_submission *sub, const struct hky_durable *durable, enum hky_err result)
{
    struct accept_submission *p = HKY_CONTAINER(sub, struct accept_submission, submission);
    struct accept_worker *w = p->worker;
    struct accept_connection *c = p->connection;

    LIST_REMOVE(p, link);
    if (result == HKY_OK) {
        __atomic_add_fetch(&w->messages, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&w->recipients, sub->message->n_recipients, __ATOMIC_RELAXED);
    } else {
        __atomic_add_fetch(&w->refused, 1, __ATOMIC_RELAXED);
    }
    if (c == NULL)
        return;
    c->submission = NULL;
    accept_session_on_commit(&c->session, durable, result, sub->message->id);
    settle(c, 0);
}

static void submission_free(struct hky_submission *sub)
{
    free(HKY_CONTAINER(sub, struct accept_submission, submission));
}

static void submit(void *ctx, struct hky_handed_in *in)
{
    struct accept_connection *c = ctx;
    struct accept_worker *w = c->worker;
    struct accept_submission *p = hky_calloc(1, sizeof *p);

    p->worker = w;
    p->connection = c;
    p->submission.done = on_durable;
    p->submission.free = submission_free;
    c->submission = p;
    LIST_INSERT_HEAD(&w->submissions, p, link);
    hky_intake_submit(&w->intake, &p->submission, in);
}

static void on_big_room(void *ctx)
{
    struct accept_connection *c = ctx;

    if (c->stream == NULL)
        return;
    accept_session_resume(&c->session, HKY_WAIT_BIG);
    settle(c, 0);
}

static enum hky_err big_open(void *ctx, uint64_t id, void **out)
{
    struct accept_connection *c = ctx;
    struct hky_accept *a = c->worker->accept;
    struct hky_big *big = NULL;
    enum hky_err err = hky_journal_big_open(a->params.journal, id, c->worker->loop, on_big_room, c, &big);

    *out = big;
    return err;
}

static bool big_write(void *ctx, void *big, const char *p, size_t n)
{
    (void)ctx;
    return hky_journal_big_write(big, p, n);
}

static void big_abort(void *ctx, void *big)
{
    struct hky_big *file = big;

    (void)ctx;
    hky_journal_big_abort(&file);
}

static void ask_free(struct accept_ask *ask)
{
    LIST_REMOVE(ask, link);
    hky_policy_unref(&ask->policy);
    free(ask);
}

static void on_secret(void *arg, struct hky_secret *secret, const struct hky_error *e)
{
    struct accept_ask *ask = arg;
    struct accept_connection *c = ask->connection;

    if (c != NULL) {
        c->ask = NULL;
        if (secret == NULL && e != NULL)
            hky_log(c->worker->accept->params.log, HKY_LOG_ERROR, "login_secret", "%s", e->text);
        accept_session_on_secret(&c->session, secret);
        settle(c, 0);
    } else {
        hky_secret_unref(&secret);
    }
    ask_free(ask);
}

static void ask_secret(void *ctx, const struct hky_secret_ref *ref)
{
    struct accept_connection *c = ctx;
    struct hky_accept *a = c->worker->accept;
    struct accept_ask *ask = hky_calloc(1, sizeof *ask);

    /* Within one read a session can take over the new policy and go on; `ref` is in that one then. */
    leave_old_policy(c);
    ask->connection = c;
    ask->policy = hky_policy_ref(c->policy);
    c->ask = ask;
    LIST_INSERT_HEAD(&c->worker->asks, ask, link);
    a->ops.secret(a->ops.ctx, c->worker->index, c->policy, ref, on_secret, ask);
}

static void start_tls(void *ctx)
{
    struct accept_connection *c = ctx;
    struct hky_tls *tls = accept_listener_tls(c->worker->accept, c->listener);

    if (tls == NULL) {
        connection_close(c);
        return;
    }
    hky_stream_start_tls(c->stream, tls, NULL);
    hky_tls_unref(&tls);
}

static void on_close(void *ctx)
{
    connection_close(ctx);
}

static void on_warn(void *ctx, const char *what, struct hky_str text)
{
    struct accept_connection *c = ctx;

    hky_log(c->worker->accept->params.log, HKY_LOG_WARN, what, "client=%s text=\"" HKY_STR_FMT "\"", c->peer.text,
            HKY_STR_ARG(text));
}

static const struct accept_session_ops session_ops = {
    .write = on_write,
    .now_ms = now_ms,
    .new_id = new_id,
    .room = room,
    .submit = submit,
    .big_open = big_open,
    .big_write = big_write,
    .big_abort = big_abort,
    .secret = ask_secret,
    .start_tls = start_tls,
    .close = on_close,
    .warn = on_warn,
    .refused = on_refused,
};

/* --- the stream --- */

static void greet(struct accept_connection *c)
{
    struct accept_session_params p = {
        .ops = &session_ops,
        .ctx = c,
        .policy = c->policy,
        .listen = c->listen,
        .sasl = c->worker->sasl,
        .client = c->peer.text,
        .is_loopback = hky_in6_is_loopback(&c->peer.addr),
        .is_secure = hky_stream_is_secure(c->stream),
        .is_allowed = accept_listen_allows(c->listen, &c->peer.addr),
    };

    accept_session_init(&c->session, &p);
    c->is_greeted = true;
    settle(c, 0);
}

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct accept_connection *c = ctx;
    size_t used = 0;

    if (c->is_greeted)
        used = accept_session_input(&c->session, p, n);
    settle(c, n);
    return c->stream == NULL ? n : used;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct accept_connection *c = ctx;

    switch (ev) {
    case HKY_STREAM_CONNECTED:
        break;
    case HKY_STREAM_SECURED:
        if (c->is_greeted) {
            accept_session_on_tls(&c->session);
            settle(c, 0);
        } else {
            greet(c);
        }
        break;
    case HKY_STREAM_DRAINED:
        settle(c, 0);
        break;
    case HKY_STREAM_EOF:
        connection_lost(c);
        break;
    case HKY_STREAM_FAILED:
        if (e != NULL && e->code == HKY_E_TIMEOUT && c->is_greeted && c->session.state != HKY_SESSION_TLS)
            accept_session_timeout(&c->session);
        if (e != NULL)
            hky_log(c->worker->accept->params.log, HKY_LOG_DEBUG, "client_lost", "client=%s why=\"%s\"", c->peer.text,
                    e->text);
        connection_lost(c);
        break;
    }
}

static const struct hky_stream_ops stream_ops = {.on_data = on_data, .on_event = on_event};

/* The listener as the policy in force describes it. */
static const struct hky_listen *find_listen(const struct hky_policy *policy, const struct accept_listener *listener)
{
    for (uint32_t i = 0; i < policy->engine.n_listen; i++) {
        const struct hky_listen *l = &policy->engine.listen[i];
        if (l->port == listener->port && strcmp(l->addr, listener->addr) == 0)
            return l;
    }
    return NULL;
}

void accept_connection_turn_away(int fd, enum hky_listen_tls tls)
{
    static const char line[] = "421 4.3.2 too many connections; try again later\r\n";

    if (tls != HKY_LISTEN_IMPLICIT)
        (void)!send(fd, line, sizeof line - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void accept_connection_new(struct accept_socket *sock, int fd, const struct accept_connection_peer *peer)
{
    struct accept_worker *w = sock->worker;
    struct hky_policy *policy = w->accept->ops.policy(w->accept->ops.ctx, w->index);
    const struct hky_listen *listen = find_listen(policy, sock->listener);

    if (listen == NULL || fd > w->accept->fd_most ||
        !accept_client_enter(w->accept, &peer->addr, &policy->engine.bounds)) {
        if (listen != NULL)
            accept_connection_turn_away(fd, listen->tls);
        close(fd);
        return;
    }
    struct accept_connection *c = hky_calloc(1, sizeof *c);
    c->worker = w;
    c->policy = hky_policy_ref(policy);
    c->listen = listen;
    c->listener = sock->listener;
    __atomic_add_fetch(&c->listener->refs, 1, __ATOMIC_RELAXED);
    c->peer = *peer;
    hky_timer_init(&c->again, w->loop, on_again);
    LIST_INSERT_HEAD(&w->connections, c, link);
    __atomic_add_fetch(&w->n_connections, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&w->sessions_total, 1, __ATOMIC_RELAXED);
    struct hky_stream_params params = {.loop = w->loop, .ops = &stream_ops, .ctx = c, .read_max = READ_MAX};
    c->stream = hky_stream_new(&params, fd);
    if (listen->tls == HKY_LISTEN_IMPLICIT) {
        set_deadline(c, DEADLINE_COMMAND, c->policy->engine.bounds.command_ms);
        start_tls(c);
    } else {
        greet(c);
    }
}

/* For a session whose listener is gone: another listener that would accept the session as it is (the port was changed),
 * or NULL. */
static const struct hky_listen *stand_in(const struct hky_policy *policy, const struct accept_connection *c)
{
    const struct hky_user *user = c->session.user;

    for (uint32_t i = 0; i < policy->engine.n_listen; i++) {
        const struct hky_listen *l = &policy->engine.listen[i];
        for (uint32_t k = 0; user != NULL && k < l->n_users; k++)
            if (strcmp(l->users[k].name, user->name) == 0)
                return l;
        if (user == NULL &&
            (accept_listen_allows(l, &c->peer.addr) || (l->n_users == 0 && hky_in6_is_loopback(&c->peer.addr))))
            return l;
    }
    return NULL;
}

static void take_policy(struct accept_connection *c, struct hky_policy *policy)
{
    const struct hky_listen *listen = find_listen(policy, c->listener);

    if (listen == NULL && c->is_greeted)
        listen = stand_in(policy, c);

    if (c->session.p.policy == policy && c->is_greeted)
        return;
    if (!c->is_greeted) { /* the TLS handshake is not complete */
        if (listen == NULL) {
            connection_close(c);
            return;
        }
        hky_policy_unref(&c->policy);
        c->policy = hky_policy_ref(policy);
        c->listen = listen;
        return;
    }
    hky_policy_unref(&c->next_policy);
    c->next_policy = hky_policy_ref(policy);
    accept_session_take_policy(
        &c->session,
        &(struct accept_session_review){policy, listen, listen != NULL && accept_listen_allows(listen, &c->peer.addr)});
    settle(c, 0);
}

void accept_connection_take_policy(struct accept_worker *w)
{
    struct hky_policy *policy = w->accept->ops.policy(w->accept->ops.ctx, w->index);
    struct accept_connection *c, *next;

    for (c = LIST_FIRST(&w->connections); c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        take_policy(c, policy);
    }
}

void accept_connection_drain(struct accept_worker *w)
{
    struct accept_connection *c, *next;

    for (c = LIST_FIRST(&w->connections); c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        if (c->is_greeted)
            accept_session_drain(&c->session);
        else
            connection_close(c);
    }
}

void accept_connection_cut(struct accept_worker *w)
{
    struct accept_connection *c, *next;

    for (c = LIST_FIRST(&w->connections); c != NULL; c = next) {
        next = LIST_NEXT(c, link);
        if (c->submission == NULL)
            accept_session_cut(&c->session);
    }
}

void accept_connection_free(struct accept_worker *w)
{
    struct accept_connection *c;
    struct accept_submission *p;
    struct accept_ask *ask;

    while ((ask = LIST_FIRST(&w->asks)) != NULL) /* their answers can no longer arrive */
        ask_free(ask);
    while ((c = LIST_FIRST(&w->connections)) != NULL) {
        hky_stream_close(&c->stream);
        LIST_REMOVE(c, link);
        if (c->submission != NULL)
            c->submission->connection = NULL;
        connection_free(c);
    }
    /* There are some only when the disk did not answer within the time of a drain, or without one. The journal still
     * holds these submissions and will post them to a loop that has stopped, so their memory is not freed. Messages
     * that become durable are sent after the next start.
     */
    while ((p = LIST_FIRST(&w->submissions)) != NULL)
        LIST_REMOVE(p, link);
}
