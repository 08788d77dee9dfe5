/*
 * A server on loopback that follows a script, and fakes of schedule and journal: what tests of pools share.
 */
#ifndef TESTS_UNIT_DELIVER_HARNESS_H
#define TESTS_UNIT_DELIVER_HARNESS_H

#include "base/clock.h"
#include "base/hash.h"
#include "hikyaku/deliver.h"
#include "mail/dot.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/wait.h"

/* ---- the server ---- */

/* One connection a script, lines in turn: "S:" sends (| is CRLF between replies, a final CRLF is added; "S-:" without),
 * "C:" reads a line that must begin so, "BODY" reads up to the final dot, "CLOSE" closes, "RST" resets, "EOF" waits for
 * the client's end, "SOME" for any octets of it, "GO" for server_go, "PAUSE" 100 ms, "QUIET" sees that nothing comes
 * for 150 ms, "OTHER" serves the next script to a further connection, to its end, before this one goes on, "TLS"
 * shakes hands with the certificate of server_tls. */
struct server {
    int listener;
    uint16_t port;
    const char *const *scripts;
    unsigned n_scripts, n_served;
    pthread_t thread;
    char problem[800];
    char seen[16384]; /* all lines the client sent, LF between */
    size_t n_seen;
    char body[65536]; /* of the last BODY */
    size_t n_body;
    unsigned n_accepted; /* atomic */
    unsigned n_lines;    /* atomic: those that "C:" has read */
    bool is_over;        /* atomic: all scripts were followed to their end, or one could not be */
    unsigned n_waits;    /* steps EOF and OTHER that were reached; atomic */
    unsigned n_go;       /* atomic: calls of server_go that no step GO has used up */
    char hosts[64];      /* last numbers of the addresses that were connected to, "112" */
};

static SSL_CTX *server_tls;

struct peer {
    int fd;
    SSL *tls; /* NULL: in clear */
    char buf[65536];
    size_t n, at;
};

static bool fill(struct peer *p)
{
    struct pollfd f = {.fd = p->fd, .events = POLLIN};
    if (p->at > 0) {
        memmove(p->buf, p->buf + p->at, p->n - p->at);
        p->n -= p->at;
        p->at = 0;
    }
    if ((p->tls == NULL || SSL_pending(p->tls) == 0) && poll(&f, 1, 5000) != 1)
        return false;
    ssize_t n = p->tls != NULL ? SSL_read(p->tls, p->buf + p->n, (int)(sizeof(p->buf) - p->n))
                               : read(p->fd, p->buf + p->n, sizeof(p->buf) - p->n);
    if (n <= 0)
        return false;
    p->n += (size_t)n;
    return true;
}

static bool read_line(struct peer *p, char *out, size_t max)
{
    for (;;) {
        char *lf = memchr(p->buf + p->at, '\n', p->n - p->at);
        if (lf != NULL) {
            size_t n = (size_t)(lf - (p->buf + p->at));
            snprintf(out, max, "%.*s", (int)(n > 0 ? n - 1 : 0), p->buf + p->at);
            p->at += n + 1;
            return true;
        }
        if (!fill(p))
            return false;
    }
}

static bool read_body(struct server *s, struct peer *p)
{
    char line[2048];
    s->n_body = 0;
    while (read_line(p, line, sizeof(line))) {
        if (strcmp(line, ".") == 0)
            return true;
        s->n_body += (size_t)snprintf(s->body + s->n_body, sizeof(s->body) - s->n_body, "%s\n", line);
        if (s->n_body >= sizeof(s->body))
            s->n_body = sizeof(s->body) - 1;
    }
    return false;
}

static void send_replies(struct peer *p, const char *text, bool has_end)
{
    char out[4096];
    size_t n = 0;
    for (; *text != '\0' && n + 4 < sizeof(out); text++) {
        if (*text == '|') {
            out[n++] = '\r';
            out[n++] = '\n';
        } else {
            out[n++] = *text;
        }
    }
    if (has_end) {
        out[n++] = '\r';
        out[n++] = '\n';
    }
    ssize_t sent = p->tls != NULL ? SSL_write(p->tls, out, (int)n) : send(p->fd, out, n, MSG_NOSIGNAL);
    (void)sent; /* the step after it sees what became of the connection */
}

static bool serve(struct server *s);

static bool wait_for_go(struct server *s)
{
    int64_t until = hky_mono_ms() + 8000;
    while (__atomic_load_n(&s->n_go, __ATOMIC_ACQUIRE) == 0) {
        if (hky_mono_ms() > until) {
            snprintf(s->problem, sizeof(s->problem), "GO did not come");
            return false;
        }
        let_pass(1000, "the server looks again");
    }
    __atomic_sub_fetch(&s->n_go, 1, __ATOMIC_RELAXED);
    return true;
}

static inline void server_go(struct server *s)
{
    __atomic_add_fetch(&s->n_go, 1, __ATOMIC_RELEASE);
}

static bool follow(struct server *s, struct peer *p, const char *script)
{
    char step[400], line[2048];
    for (const char *at = script; *at != '\0';) {
        size_t n = strcspn(at, "\n");
        snprintf(step, sizeof(step), "%.*s", (int)n, at);
        at += n + (at[n] == '\n');
        if (strncmp(step, "S: ", 3) == 0) {
            send_replies(p, step + 3, true);
        } else if (strncmp(step, "S-: ", 4) == 0) {
            send_replies(p, step + 4, false);
        } else if (strcmp(step, "BODY") == 0) {
            if (!read_body(s, p)) {
                snprintf(s->problem, sizeof(s->problem), "the body did not come");
                return false;
            }
        } else if (strcmp(step, "OTHER") == 0) {
            __atomic_add_fetch(&s->n_waits, 1, __ATOMIC_RELAXED);
            if (!serve(s))
                return false;
        } else if (strcmp(step, "GO") == 0) {
            if (!wait_for_go(s))
                return false;
        } else if (strcmp(step, "TLS") == 0) {
            p->tls = SSL_new(server_tls);
            if (SSL_set_fd(p->tls, p->fd) != 1 || SSL_accept(p->tls) != 1) {
                snprintf(s->problem, sizeof(s->problem), "the handshake failed");
                return false;
            }
        } else if (strcmp(step, "PAUSE") == 0) {
            let_pass(100000, "the server pauses");
        } else if (strcmp(step, "QUIET") == 0) {
            struct pollfd f = {.fd = p->fd, .events = POLLIN};
            if (p->at < p->n || poll(&f, 1, 150) != 0) {
                snprintf(s->problem, sizeof(s->problem), "something came where nothing was to come");
                return false;
            }
        } else if (strcmp(step, "ALONE") == 0) { /* nobody else connects for 150 ms */
            struct pollfd f = {.fd = s->listener, .events = POLLIN};
            if (poll(&f, 1, 150) != 0) {
                snprintf(s->problem, sizeof(s->problem), "a connection came where none was to come");
                return false;
            }
        } else if (strcmp(step, "RST") == 0) {
            struct linger l = {.l_onoff = 1};
            setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
            return true;
        } else if (strcmp(step, "EOF") == 0) {
            __atomic_add_fetch(&s->n_waits, 1, __ATOMIC_RELAXED);
            while (fill(p))
                p->at = p->n;
            return true;
        } else if (strcmp(step, "SOME") == 0) {
            if (!fill(p)) {
                snprintf(s->problem, sizeof(s->problem), "nothing came where something was to come");
                return false;
            }
        } else if (strcmp(step, "CLOSE") == 0) {
            return true;
        } else if (strncmp(step, "C: ", 3) == 0) {
            if (!read_line(p, line, sizeof(line)) || strncmp(line, step + 3, strlen(step + 3)) != 0) {
                snprintf(s->problem, sizeof(s->problem), "wanted '%s', got '%.200s'", step + 3, line);
                return false;
            }
            s->n_seen += (size_t)snprintf(s->seen + s->n_seen, sizeof(s->seen) - s->n_seen, "%s\n", line);
            __atomic_add_fetch(&s->n_lines, 1, __ATOMIC_RELEASE);
        }
    }
    return true;
}

/* The next connection, by the next script. */
static bool serve(struct server *s)
{
    struct pollfd f = {.fd = s->listener, .events = POLLIN};
    if (poll(&f, 1, 8000) != 1) {
        snprintf(s->problem, sizeof(s->problem), "connection %u did not come", s->n_served + 1);
        return false;
    }
    struct peer *p = calloc(1, sizeof(*p));
    struct sockaddr_in here;
    socklen_t here_n = sizeof(here);
    p->fd = accept(s->listener, NULL, NULL);
    if (getsockname(p->fd, (struct sockaddr *)&here, &here_n) == 0)
        snprintf(s->hosts + strlen(s->hosts), sizeof(s->hosts) - strlen(s->hosts), "%u",
                 (unsigned)(ntohl(here.sin_addr.s_addr) & 0xff));
    __atomic_add_fetch(&s->n_accepted, 1, __ATOMIC_RELAXED);
    bool is_good = follow(s, p, s->scripts[s->n_served++]);
    SSL_free(p->tls);
    close(p->fd);
    free(p);
    return is_good;
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    while (s->n_served < s->n_scripts && serve(s))
        ;
    close(s->listener);
    __atomic_store_n(&s->is_over, true, __ATOMIC_RELEASE);
    return NULL;
}

static void server_start(struct server *s, const char *const *scripts)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    memset(s, 0, sizeof(*s));
    s->scripts = scripts;
    while (scripts[s->n_scripts] != NULL)
        s->n_scripts++;
    a.sin_addr.s_addr = htonl(INADDR_ANY); /* 127.0.0.2 and further ones, too */
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listener, 16), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

/* ---- fakes of schedule and journal ---- */

struct fake {
    struct hky_loop *loop;
    struct hky_deliver *deliver;
    struct hky_clock clock; /* real until a test stops it */
    struct hky_policy policy;
    struct hky_relay relay;
    struct hky_lane lanes[2]; /* message k belongs to lane k % n_lanes */
    unsigned n_lanes;
    struct hky_message *messages[16];
    unsigned n_messages, next; /* `next`: the first that is queued; give_back puts it back in front */
    unsigned queue[64];
    unsigned n_queue;
    unsigned rcpts; /* a message */
    struct hky_outcome outcomes[16][4];
    bool has_outcome[16][4], mail_sent[16];
    uint32_t learned[HKY_LEARNED_N];
    enum hky_take next_take;          /* of a job that goes to another host */
    struct hky_lane *waits;           /* its lane, after HKY_TAKE_WAIT */
    unsigned n_done, n_back, n_mails; /* mails: MAIL commands that count toward a cap */
    const char *secret;
    unsigned n_secrets, n_refused;
    struct hky_timer late; /* is_late: the first answer comes 300 ms after the question */
    void (*late_done)(void *arg, struct hky_secret *s, const struct hky_error *e);
    void *late_arg;
    bool is_late;
    bool is_piecewise;
    const char *text; /* of every message, behind the header */
    bool has_no_dot_lines;
    const char *before_address; /* of every recipient */
    bool holds_reads;
    enum hky_err read_result;
    struct hky_body_read *held;
    unsigned n_reads, n_free; /* holds_reads: so many of them are answered all the same */
};
static struct fake *fake; /* the schedule's functions have no context of ours */

enum hky_take hky_schedule_take(struct hky_lane *lane, struct hky_job **out)
{
    unsigned at = 0;
    while (at < fake->n_queue && fake->queue[at] % fake->n_lanes != (unsigned)(lane - fake->lanes))
        at++;
    if (at == fake->n_queue)
        return HKY_TAKE_EMPTY;
    struct hky_job *job = calloc(1, sizeof(*job));
    unsigned k = fake->queue[at];
    memmove(fake->queue + at, fake->queue + at + 1, (--fake->n_queue - at) * sizeof(fake->queue[0]));
    job->lane = lane;
    job->message = fake->messages[k];
    job->schedule = (void *)(uintptr_t)k;
    snprintf(job->identity.sender, sizeof(job->identity.sender), "sender@a.example");
    job->n = job->message->n_recipients;
    job->recipients = calloc(job->n, sizeof(*job->recipients));
    job->n = 0;
    for (unsigned i = 0; i < job->message->n_recipients; i++)
        if (!fake->has_outcome[k][i])
            job->recipients[job->n++] = &job->message->recipients[i];
    *out = job;
    return HKY_TAKE_JOB;
}

void hky_schedule_result(struct hky_job *job, unsigned i, const struct hky_outcome *o)
{
    unsigned k = (unsigned)(uintptr_t)job->schedule;
    assert_true(i < job->n);
    i = (unsigned)(job->recipients[i] - job->message->recipients);
    assert_false(fake->has_outcome[k][i]);
    fake->has_outcome[k][i] = true;
    fake->outcomes[k][i] = *o;
}

static void job_free(struct hky_job **job)
{
    free((*job)->recipients);
    free(*job);
    *job = NULL;
}

void hky_schedule_learn(struct hky_lane *lane, enum hky_learned what, uint32_t n)
{
    (void)lane;
    fake->learned[what] = n;
}

enum hky_take hky_schedule_take_again(struct hky_job *job)
{
    if (fake->waits == NULL)
        fake->n_mails++; /* that of the host before counts, once */
    fake->waits = fake->next_take == HKY_TAKE_WAIT ? job->lane : NULL;
    return fake->next_take;
}

/* The schedule wakes the lane of the job that waits for a slot; the lane has no mail. */
static inline void wake_for_slot(struct fake *f, enum hky_take next_take)
{
    assert_non_null(f->waits);
    f->next_take = next_take;
    f->waits->n_ready = 0;
    hky_deliver_wake(f->deliver, f->waits);
}

/* Recipients without an outcome are queued again, in front. */
static void put_back(unsigned k)
{
    memmove(fake->queue + 1, fake->queue, fake->n_queue++ * sizeof(fake->queue[0]));
    fake->queue[0] = k;
    fake->n_back++;
}

void hky_schedule_done(struct hky_job **job, bool mail_sent)
{
    unsigned k = (unsigned)(uintptr_t)(*job)->schedule;
    bool is_whole = true;
    for (unsigned i = 0; i < (*job)->n; i++)
        is_whole = is_whole && fake->has_outcome[k][i];
    fake->mail_sent[k] = mail_sent;
    fake->n_mails += mail_sent;
    if (is_whole)
        fake->n_done++;
    else
        put_back(k);
    job_free(job);
}

void hky_schedule_give_back(struct hky_job **job)
{
    unsigned k = (unsigned)(uintptr_t)(*job)->schedule;
    put_back(k);
    job_free(job);
}

/* The policy is a plain struct here: counted, never freed. */
struct hky_policy *hky_policy_ref(struct hky_policy *p)
{
    p->refs++;
    return p;
}

void hky_policy_unref(struct hky_policy **p)
{
    if (*p != NULL)
        (*p)->refs--;
    *p = NULL;
}

static void piece_done(struct hky_task *task)
{
    struct hky_body_read *r = HKY_CONTAINER(task, struct hky_body_read, task);
    r->done(r);
}

bool hky_journal_body(struct hky_journal *j, struct hky_body_read *r)
{
    (void)j;
    fake->n_reads++;
    r->result = fake->read_result;
    r->body = NULL;
    r->n = 0;
    if (fake->holds_reads && fake->n_reads > fake->n_free) {
        assert_null(fake->held);
        fake->held = r;
        return false;
    }
    if (r->result != HKY_OK)
        return true;
    r->body = hky_body_ref(r->message->body);
    r->p = r->body->p + r->at;
    r->n = r->message->size - r->at;
    if (!fake->is_piecewise)
        return true;
    if (r->n > 7)
        r->n = 7;
    r->task.run = piece_done;
    hky_loop_post(r->loop, &r->task);
    return false;
}

static inline void run_until_held(struct fake *f)
{
    int64_t until = hky_mono_ms() + 8000;
    while (f->held == NULL && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 20);
    assert_non_null(f->held);
}

/* The read that is held is answered, on the loop. */
static inline void release_read(struct fake *f, enum hky_err result)
{
    struct hky_body_read *r = f->held;
    assert_non_null(r);
    f->held = NULL;
    r->result = result;
    if (result == HKY_OK) {
        r->body = hky_body_ref(r->message->body);
        r->p = r->body->p + r->at;
        r->n = r->message->size - r->at;
    }
    r->task.run = piece_done;
    hky_loop_post(r->loop, &r->task);
}

void hky_body_read_release(struct hky_body_read *r)
{
    if (r->body != NULL)
        hky_body_unref(&r->body);
}

static void on_late(struct hky_timer *t)
{
    struct fake *f = HKY_CONTAINER(t, struct fake, late);
    f->late_done(f->late_arg, hky_secret_new(hky_str_z(f->secret)), NULL);
}

static void give_secret(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_relay *relay,
                        struct hky_secret *refused,
                        void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct fake *f = ctx;
    struct hky_error e = {.code = HKY_E_MISSING, .text = "no secret named x"};
    (void)worker;
    assert_ptr_equal(policy, &f->policy);
    assert_ptr_equal(relay, &f->relay);
    f->n_secrets++;
    if (refused != NULL) {
        assert_true(hky_str_eq(hky_secret_value(refused), hky_str_z(f->secret)));
        f->n_refused++;
    }
    if (f->is_late && f->n_secrets == 1) {
        f->late_done = done;
        f->late_arg = arg;
        hky_timer_init(&f->late, f->loop, on_late);
        hky_timer_set(&f->late, 300);
        return;
    }
    done(arg, f->secret != NULL ? hky_secret_new(hky_str_z(f->secret)) : NULL, &e);
}

static struct hky_message *message_make(unsigned k, unsigned n_rcpts)
{
    char text[8000], addresses[4][40];
    struct hky_rcpt_draft rcpts[4] = {0};
    int n = snprintf(text, sizeof(text), "From: a@a.example\r\nSubject: %u\r\nDate: x\r\nMessage-ID: <%u@x>\r\n\r\n%s",
                     k, k, fake->text);
    assert_true((size_t)n < sizeof(text));
    for (unsigned i = 0; i < n_rcpts; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "%sm%u.r%u@b.example", fake->before_address, k, i);
        rcpts[i].address = hky_str_z(addresses[i]);
    }
    struct hky_message_draft d = {.id = 1000 + k, .size = (uint64_t)n, .n_recipients = n_rcpts, .recipients = rcpts};
    for (int i = 0; i < HKY_FACT_N; i++)
        d.facts[i] = hky_str_of("", 0);
    d.header_octets = (uint32_t)(strstr(text, "\r\n\r\n") + 4 - text);
    struct hky_message *m = hky_message_new(&d);
    char *p = malloc((size_t)n);
    memcpy(p, text, (size_t)n);
    m->body = hky_body_new(p, (size_t)n, (size_t)n);
    m->body->has_no_dot_lines = fake->has_no_dot_lines;
    return m;
}

static void fake_init(struct fake *f, uint16_t port)
{
    static const char *const anyone[] = {"*", NULL};
    memset(f, 0, sizeof(*f));
    fake = f;
    f->rcpts = 1;
    f->text = "line\r\n.dot\r\n";
    f->before_address = "";
    f->policy.refs = 1000;
    f->policy.engine.hostname = "me.example";
    f->policy.engine.resolver = "";
    f->policy.engine.redirect = "";
    f->relay = (struct hky_relay){.name = "r",
                                  .preset = "",
                                  .host = "127.0.0.1",
                                  .port = port,
                                  .tls = HKY_TLS_NONE,
                                  .user = "",
                                  .hello = "",
                                  .source = "",
                                  .ca = "",
                                  .pin = "",
                                  .account = "a",
                                  .sends_as = anyone,
                                  .connections = 1,
                                  .overlap = true,
                                  .timeout = {1000, 1000, 1000, 1000, 1000}};
    f->n_lanes = 1;
    for (int i = 0; i < 2; i++)
        f->lanes[i] = (struct hky_lane){
            .relay = &f->relay, .policy = &f->policy, .relay_name = "r", .account = "a", .destination = ""};
    struct hky_error e;
    assert_int_equal(hky_loop_new(&f->loop, &e), HKY_OK);
    struct hky_deliver_params p = {.loop = f->loop, .clock = &f->clock, .ctx = f, .secret = give_secret};
    assert_int_equal(hky_deliver_new(&p, &f->deliver, &e), HKY_OK);
}

static void add(struct fake *f, unsigned n)
{
    while (n-- > 0) {
        f->messages[f->n_messages] = message_make(f->n_messages, f->rcpts);
        f->queue[f->n_queue++] = f->n_messages++;
    }
    for (unsigned i = 0; i < f->n_lanes; i++) {
        f->lanes[i].n_ready = f->n_queue;
        hky_deliver_wake(f->deliver, &f->lanes[i]);
    }
}

static void run_until(struct fake *f, unsigned n_done)
{
    int64_t until = hky_mono_ms() + 8000;
    while (f->n_done < n_done && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 20);
    assert_int_equal(f->n_done, n_done);
}

/* Until the server has read so many lines. */
static inline void run_until_lines(struct fake *f, struct server *s, unsigned n)
{
    int64_t until = hky_mono_ms() + 8000;
    while (__atomic_load_n(&s->n_lines, __ATOMIC_ACQUIRE) < n && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 5);
    assert_int_equal(__atomic_load_n(&s->n_lines, __ATOMIC_ACQUIRE), n);
}

static inline void run_for(struct fake *f, int ms)
{
    int64_t until = hky_mono_ms() + ms;
    while (hky_mono_ms() < until)
        hky_loop_turn(f->loop, 10);
}

/* The engine stops: an idle connection says QUIT and ends. A busy one waits for its peer, and ends with the pool. */
static void finish(struct fake *f, struct server *s)
{
    int64_t until = hky_mono_ms() + 30;

    if (f->deliver != NULL)
        hky_deliver_drain(f->deliver);
    do
        hky_loop_turn(f->loop, 1);
    while (hky_mono_ms() < until &&
           (s != NULL ? !__atomic_load_n(&s->is_over, __ATOMIC_ACQUIRE) : hky_loop_has_work(f->loop)));
    hky_deliver_free(&f->deliver);
    do
        hky_loop_turn(f->loop, 0);
    while (hky_loop_has_work(f->loop));
    if (s != NULL) {
        pthread_join(s->thread, NULL);
        assert_string_equal(s->problem, "");
    }
    hky_loop_free(&f->loop);
    for (unsigned i = 0; i < f->n_messages; i++)
        hky_message_unref(&f->messages[i]);
    assert_int_equal(f->policy.refs, 1000);
}

#define OPEN     "S: 220 hi\nC: EHLO me.example\nS: 250-x|250 PIPELINING\n"
#define GROUP(k) "C: MAIL FROM:<sender@a.example>\nC: RCPT TO:<m" k ".r0@b.example>\nC: DATA\n"
#define YES      "S: 250 m|250 r|354 go\nBODY\n"

static inline void one(struct fake *f, struct server *s, const char *const *scripts, unsigned n_messages,
                       unsigned n_done)
{
    server_start(s, scripts);
    fake_init(f, s->port);
    add(f, n_messages);
    run_until(f, n_done);
}

#endif
