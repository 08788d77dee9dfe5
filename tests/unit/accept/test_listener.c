/* Listeners and connections over real sockets, with a real journal in a folder of its own. */
#include "accept/internal.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/wait.h"

struct engine {
    char dir[64];
    struct hky_clock clock;
    struct hky_policy policy;
    struct hky_policy *in_force; /* atomic; NULL: policy */
    struct hky_listen listen[2];
    struct hky_user user;
    struct hky_loop *loops[2];
    pthread_t threads[2];
    unsigned n_workers;
    struct hky_journal *journal;
    struct hky_accept *accept;
    struct hky_accept_params params;
    unsigned n_enqueued, n_recipients, n_events; /* atomic */
    char sender[64], text[4096];
    int is_drained;
    struct hky_policy *secret_policy; /* the last secret was asked for of this one */
    const struct hky_secret_ref *secret_ref;
};

static struct hky_policy *policy_of(void *ctx, unsigned worker)
{
    struct engine *en = ctx;
    struct hky_policy *p = __atomic_load_n(&en->in_force, __ATOMIC_ACQUIRE);

    (void)worker;
    return p != NULL ? p : &en->policy;
}
static void decide(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header)
{
    (void)ctx;
    (void)worker;
    assert_true(header.n == m->header_octets);
    for (uint32_t i = 0; i < m->n_recipients; i++)
        m->recipients[i].state = HKY_RCPT_PARKED;
}
static void enqueue(void *ctx, unsigned worker, struct hky_message *m)
{
    struct engine *en = ctx;

    (void)worker;
    struct hky_str sender = hky_message_fact(m, HKY_FACT_SENDER);
    snprintf(en->sender, sizeof en->sender, HKY_STR_FMT, HKY_STR_ARG(sender));
    if (m->body != NULL && m->body->n < sizeof en->text)
        snprintf(en->text, sizeof en->text, "%.*s", (int)m->body->n, m->body->p);
    __atomic_add_fetch(&en->n_recipients, m->n_recipients, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&en->n_enqueued, 1, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0, n = m->n_recipients; i < n; i++) {
        struct hky_message *mine = m;
        hky_message_unref(&mine); /* the reference that came along */
    }
}
static void secret(void *ctx, unsigned worker, struct hky_policy *policy, const struct hky_secret_ref *ref,
                   void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct engine *en = ctx;

    (void)worker;
    en->secret_policy = policy;
    en->secret_ref = ref;
    done(arg, hky_secret_new(HKY_STR("secret")), NULL);
}
static void event(void *ctx, unsigned worker, const struct hky_event *ev)
{
    (void)worker;
    (void)ev;
    __atomic_add_fetch(&((struct engine *)ctx)->n_events, 1, __ATOMIC_SEQ_CST);
}
static void on_message(void *ctx, struct hky_message *m)
{
    (void)ctx;
    (void)m;
    fail_msg("the journal was not empty");
}

static void *run_loop(void *arg)
{
    hky_loop_run(arg);
    return NULL;
}

static void engine_init(struct engine *en, unsigned n_workers)
{
    static const struct hky_accept_ops ops = {
        .policy = policy_of, .decide = decide, .enqueue = enqueue, .secret = secret, .event = event};
    struct hky_error e = {0};
    struct hky_journal_report report;

    *en = (struct engine){.n_workers = n_workers};
    snprintf(en->dir, sizeof en->dir, "/tmp/hky-accept-XXXXXX");
    assert_non_null(mkdtemp(en->dir));
    struct hky_journal_params jp = {
        .dir = en->dir, .segment_octets = 1 << 20, .body_memory = 16 << 20, .clock = &en->clock};
    struct hky_journal_replay replay = {.on_message = on_message};
    if (hky_journal_open(&jp, &replay, &en->journal, &report, &e) != HKY_OK)
        fail_msg("%s", e.text);
    en->policy = (struct hky_policy){.refs = 1000,
                                     .dir = en->dir,
                                     .engine = {.hostname = "mx.test",
                                                .listen = en->listen,
                                                .n_listen = 1,
                                                .max_message = 8 << 20,
                                                .bounds = {.line_octets = 2048,
                                                           .recipients = 1000,
                                                           .header_octets = 256 << 10,
                                                           .header_lines = 1000,
                                                           .received = 50,
                                                           .connections = 20,
                                                           .connections_per_client = 4,
                                                           .errors = 20,
                                                           .auth_tries = 3,
                                                           .command_ms = 400,
                                                           .data_ms = 400}}};
    en->listen[0] = (struct hky_listen){
        .place = {"policy.lua", 3}, .addr = "127.0.0.1", .tls = HKY_LISTEN_PLAIN, .cert = "", .key = ""};
    en->listen[1] = en->listen[0];
    for (unsigned i = 0; i < n_workers; i++)
        assert_int_equal(hky_loop_new(&en->loops[i], &e), HKY_OK);
    en->params = (struct hky_accept_params){
        .n_workers = n_workers, .loops = en->loops, .journal = en->journal, .clock = &en->clock, .ops = &ops};
    static __thread struct hky_accept_ops mine;
    mine = ops;
    mine.ctx = en;
    en->params.ops = &mine;
}

static void engine_run(struct engine *en)
{
    struct hky_error e = {0};

    if (hky_accept_new(&en->params, &en->policy, &en->accept, &e) != HKY_OK)
        fail_msg("%s", e.text);
    hky_accept_start(en->accept);
    for (unsigned i = 0; i < en->n_workers; i++)
        assert_int_equal(pthread_create(&en->threads[i], NULL, run_loop, en->loops[i]), 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void engine_fini(struct engine *en)
{
    if (en->accept != NULL)
        for (unsigned i = 0; i < en->n_workers; i++) {
            hky_loop_stop(en->loops[i]);
            pthread_join(en->threads[i], NULL);
        }
    hky_accept_free(&en->accept);
    hky_journal_close(&en->journal);
    for (unsigned i = 0; i < en->n_workers; i++)
        hky_loop_free(&en->loops[i]);
    nftw(en->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* -1: nobody listens. */
static int dial_port(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval tv = {.tv_sec = 5};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

static int dial(const struct engine *en)
{
    int fd = dial_port(hky_accept_port(en->accept, 0));

    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *z)
{
    assert_int_equal(send(fd, z, strlen(z), MSG_NOSIGNAL), (ssize_t)strlen(z));
}

/* Everything until the reply `last` was seen, or the end. */
static const char *hear(int fd, const char *last)
{
    static char text[65536];
    size_t n = 0;

    text[0] = '\0';
    while (n < sizeof text - 1) {
        ssize_t r = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (r <= 0)
            break;
        n += (size_t)r;
        text[n] = '\0';
        if (last != NULL && strstr(text, last) != NULL)
            break;
    }
    return text;
}

/* One more client is served; *fd is its connection then. */
static bool is_greeted(const struct engine *en, int *fd)
{
    *fd = dial(en);
    if (strstr(hear(*fd, "\r\n"), "220 ") != NULL)
        return true;
    close(*fd);
    return false;
}

static bool nobody_listens(uint16_t port)
{
    int fd = dial_port(port);

    if (fd >= 0)
        close(fd);
    return fd < 0;
}

static void wait_for(unsigned *counter, unsigned n)
{
    wait_until(__atomic_load_n(counter, __ATOMIC_SEQ_CST) >= n);
    assert_int_equal(__atomic_load_n(counter, __ATOMIC_SEQ_CST), n);
}

static void test_message_goes_through(void **state)
{
    struct engine en;
    struct hky_accept_stats stats;

    (void)state;
    engine_init(&en, 2);
    engine_run(&en);
    int fd = dial(&en);
    say(fd, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n");
    hear(fd, "354 ");
    say(fd, "Subject: s\r\n\r\nhello\r\n.\r\nMAIL FROM:<n@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    assert_non_null(strstr(hear(fd, "354 "), "250 2.0.0 queued as "));
    wait_for(&en.n_enqueued, 1);
    assert_string_equal(en.sender, "a@x.test");
    assert_non_null(strstr(en.text, "\r\n\r\nhello\r\n"));
    say(fd, "second\r\n.\r\nQUIT\r\n");
    assert_non_null(strstr(hear(fd, NULL), "221 "));
    close(fd);
    wait_for(&en.n_enqueued, 2);
    assert_int_equal(en.n_recipients, 3);
    wait_for(&en.n_events, 3);
    hky_accept_stats(en.accept, &stats);
    assert_int_equal(stats.messages, 2);
    assert_int_equal(stats.recipients, 3);
    engine_fini(&en);
}

static void test_big_message(void **state)
{
    struct engine en;
    char line[1001];

    (void)state;
    engine_init(&en, 1);
    en.policy.engine.bounds.data_ms = en.policy.engine.bounds.command_ms = 30000;
    engine_run(&en);
    int fd = dial(&en);
    memset(line, 'x', 998);
    memcpy(line + 998, "\r\n", 3);
    say(fd, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    hear(fd, "354 ");
    say(fd, "Subject: s\r\n\r\n");
    for (int i = 0; i < 4000; i++)
        say(fd, line);
    say(fd, ".\r\n");
    assert_non_null(strstr(hear(fd, "\r\n"), "250 2.0.0 queued as "));
    wait_for(&en.n_enqueued, 1);
    /* one that is broken off leaves nothing behind */
    say(fd, "MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    hear(fd, "354 ");
    say(fd, "Subject: s\r\n\r\n");
    for (int i = 0; i < 2000; i++)
        say(fd, line);
    close(fd);
    fd = dial(&en);
    say(fd, "NOOP\r\nQUIT\r\n");
    assert_non_null(strstr(hear(fd, NULL), "221 "));
    close(fd);
    assert_int_equal(en.n_enqueued, 1);
    engine_fini(&en);
}

static void test_deadlines(void **state)
{
    struct engine en;

    (void)state;
    engine_init(&en, 1);
    engine_run(&en);
    int idle = dial(&en), slow = dial(&en);
    say(slow, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    hear(slow, "354 ");
    /* an octet now and then does not move the deadline of a command, nor much that of content */
    bool was_closed = false;
    for (int i = 0; i < 40 && !was_closed; i++) {
        let_pass(50000, "the clients are slow");
        was_closed = send(slow, "x", 1, MSG_NOSIGNAL) < 0 && send(idle, "N", 1, MSG_NOSIGNAL) < 0;
        (void)send(idle, "N", 1, MSG_NOSIGNAL);
    }
    assert_true(was_closed);
    close(idle);
    close(slow);
    engine_fini(&en);
}

static void test_connections_are_bounded(void **state)
{
    struct engine en;
    int fds[6];

    (void)state;
    engine_init(&en, 2);
    engine_run(&en);
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(&en);
        assert_non_null(strstr(hear(fds[i], "\r\n"), "220 mx.test ESMTP"));
    }
    fds[4] = dial(&en);
    assert_non_null(strstr(hear(fds[4], NULL), "421 4.3.2"));
    say(fds[0], "QUIT\r\n");
    hear(fds[0], NULL);
    wait_until(is_greeted(&en, &fds[5]));
    for (int i = 0; i < 6; i++)
        close(fds[i]);
    engine_fini(&en);
}

static void test_a_network_of_ipv6_is_one_client(void **state)
{
    struct engine en;
    struct hky_bounds bounds = {.connections = 100, .connections_per_client = 2};
    struct in6_addr a, same, other, v4, v4_other;

    (void)state;
    engine_init(&en, 1);
    engine_run(&en);
    assert_int_equal(inet_pton(AF_INET6, "2001:db8:0:1::1", &a), 1);
    assert_int_equal(inet_pton(AF_INET6, "2001:db8:0:1:ffff::2", &same), 1);
    assert_int_equal(inet_pton(AF_INET6, "2001:db8:0:2::1", &other), 1);
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &v4), 1);
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.2", &v4_other), 1);
    assert_true(accept_client_enter(en.accept, &a, &bounds));
    assert_true(accept_client_enter(en.accept, &same, &bounds));
    assert_false(accept_client_enter(en.accept, &same, &bounds));
    assert_true(accept_client_enter(en.accept, &other, &bounds));
    assert_true(accept_client_enter(en.accept, &v4, &bounds));
    assert_true(accept_client_enter(en.accept, &v4, &bounds));
    assert_false(accept_client_enter(en.accept, &v4, &bounds));
    assert_true(accept_client_enter(en.accept, &v4_other, &bounds));
    engine_fini(&en);
}

static void test_clients_leave_descriptors_to_others(void **state)
{
    struct engine en;
    struct rlimit was, few;
    int fds[60], n = 0;

    (void)state;
    engine_init(&en, 1);
    en.policy.engine.bounds.connections = en.policy.engine.bounds.connections_per_client = 1000;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = 120;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    engine_run(&en);
    bool is_turned_away = false;
    while (n < 60 && !is_turned_away) {
        fds[n++] = dial(&en);
        is_turned_away = strstr(hear(fds[n - 1], "\r\n"), "421 4.3.2") != NULL;
    }
    assert_true(is_turned_away);
    int more[20];
    for (int i = 0; i < 20; i++)
        assert_true((more[i] = dup(fds[0])) >= 0);
    for (int i = 0; i < 20; i++)
        close(more[i]);
    while (n > 0)
        close(fds[--n]);
    engine_fini(&en);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static void on_drained(void *ctx)
{
    __atomic_store_n(&((struct engine *)ctx)->is_drained, 1, __ATOMIC_SEQ_CST);
}

static void test_drain(void **state)
{
    struct engine en;

    (void)state;
    engine_init(&en, 2);
    en.policy.engine.bounds.command_ms = en.policy.engine.bounds.data_ms = 20000;
    engine_run(&en);
    int idle = dial(&en), busy = dial(&en);
    hear(idle, "220 ");
    say(busy, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n");
    hear(busy, "354 ");
    hky_accept_drain(en.accept, 10000, on_drained, &en);
    assert_non_null(strstr(hear(idle, NULL), "421 4.3.2"));
    assert_int_equal(__atomic_load_n(&en.is_drained, __ATOMIC_SEQ_CST), 0);
    say(busy, "x\r\n.\r\n");
    const char *rest = hear(busy, NULL);
    assert_non_null(strstr(rest, "250 2.0.0 queued as "));
    assert_non_null(strstr(rest, "421 4.3.2"));
    wait_until(__atomic_load_n(&en.is_drained, __ATOMIC_SEQ_CST));
    close(idle);
    close(busy);
    engine_fini(&en);
}

/* Loops that end before they ran what they were told: nothing of that may stay behind (LeakSanitizer looks). */
static void test_free_with_orders_left(void **state)
{
    struct hky_error e;

    (void)state;
    for (int has_drain = 0; has_drain < 2; has_drain++) {
        struct engine en;
        engine_init(&en, 2);
        assert_int_equal(hky_accept_new(&en.params, &en.policy, &en.accept, &e), HKY_OK);
        hky_accept_start(en.accept);
        if (has_drain)
            hky_accept_drain(en.accept, 10000, on_drained, &en);
        hky_loop_turn(en.loops[0], 0); /* one runs its orders, the other does not */
        hky_accept_free(&en.accept);
        assert_null(en.accept);
        assert_int_equal(en.is_drained, 0);
        engine_fini(&en);
    }
}

static void test_refused_listeners(void **state)
{
    static const struct hky_cidr everyone = {.bits = 0},
                                 lan = {.addr = {[10] = 0xff, [11] = 0xff, [12] = 10}, .bits = 104};
    static const struct {
        const char *name, *addr;
        unsigned n_users;
        const struct hky_cidr *allow;
        enum hky_err err;
        const char *text;
    } listeners[] = {{"open to all", "0.0.0.0", 0, NULL, HKY_E_CONFIG, "policy.lua:3: 0.0.0.0:0 can be reached"},
                     {"open to all, v6", "::", 0, NULL, HKY_E_CONFIG, "users = {...} or allow"},
                     {"everyone allowed", "0.0.0.0", 0, &everyone, HKY_E_CONFIG, "open relay"},
                     {"passwords in clear", "0.0.0.0", 1, NULL, HKY_E_CONFIG, "need TLS"},
                     {"no address", "mail.example", 0, NULL, HKY_E_CONFIG, "no IP address"},
                     {"a network allowed", "0.0.0.0", 0, &lan, HKY_OK, NULL},
                     {"loopback", "127.0.0.1", 0, NULL, HKY_OK, NULL}};

    (void)state;
    for (size_t i = 0; i < sizeof listeners / sizeof listeners[0]; i++) {
        struct engine en;
        struct hky_accept *a = NULL;
        struct hky_error e = {0};

        engine_init(&en, 2);
        en.user = (struct hky_user){.name = "u"};
        en.listen[0].addr = listeners[i].addr;
        en.listen[0].users = &en.user;
        en.listen[0].n_users = listeners[i].n_users;
        en.listen[0].allow = listeners[i].allow;
        en.listen[0].n_allow = listeners[i].allow != NULL;
        en.listen[0].has_allow = listeners[i].allow != NULL;
        enum hky_err err = hky_accept_new(&en.params, &en.policy, &a, &e);
        if (err != listeners[i].err || (listeners[i].text != NULL && strstr(e.text, listeners[i].text) == NULL))
            fail_msg("%s: %d \"%s\"", listeners[i].name, err, e.text);
        hky_accept_free(&a);
        engine_fini(&en);
    }
}

static void test_port_in_use(void **state)
{
    struct engine one, two;
    struct hky_accept *a = NULL;
    struct hky_error e = {0};

    (void)state;
    engine_init(&one, 2);
    engine_run(&one);
    engine_init(&two, 2);
    two.listen[0].port = hky_accept_port(one.accept, 0);
    assert_int_equal(hky_accept_new(&two.params, &two.policy, &a, &e), HKY_E_EXISTS);
    assert_non_null(strstr(e.text, "policy.lua:3: port in use"));
    engine_fini(&two);
    engine_fini(&one);
}

/* Below the numbers that the kernel gives to the connections of tests beside this one. */
static uint16_t unused_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static unsigned n_given;

    for (unsigned tries = 1000; tries != 0; tries--) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        at.sin_port = htons((uint16_t)(10240 + ((unsigned)getpid() * 31 + n_given++) % 20000));
        bool is_unused = bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
        if (is_unused)
            return ntohs(at.sin_port);
    }
    fail_msg("no port is unused");
    return 0;
}

static void expect_greeting(uint16_t port)
{
    int fd = dial_port(port);

    assert_true(fd >= 0);
    assert_non_null(strstr(hear(fd, "\r\n"), "220 mx.test ESMTP"));
    close(fd);
}

/* One listener stays, one is added that cannot be: nothing changes, whatever was opened before is closed again. */
static void test_a_change_that_fails_changes_nothing(void **state)
{
    struct engine en, other;
    struct hky_listen listen[3];
    struct hky_policy base, policy;
    struct hky_accept_change *change;
    struct hky_error e = {0};
    uint16_t first = unused_port(), second = unused_port();

    (void)state;
    engine_init(&other, 1);
    engine_run(&other);
    engine_init(&en, 2);
    en.listen[0].port = first;
    base = en.policy; /* whose count the sessions change later */
    engine_run(&en);
    struct hky_listen bad[] = {en.listen[0], en.listen[0], en.listen[0], en.listen[0]};
    bad[0].port = hky_accept_port(other.accept, 0);
    bad[1].port = 0;
    bad[1].addr = "0.0.0.0";
    bad[2].port = 0;
    bad[2].tls = HKY_LISTEN_STARTTLS;
    bad[2].cert = "missing.pem";
    bad[3].tls = HKY_LISTEN_IMPLICIT; /* the one that stays, with a certificate that is not there */
    bad[3].cert = "missing.pem";
    static const char *const texts[] = {"policy.lua:3: port in use", "can be reached from other machines",
                                        "missing.pem", "missing.pem"};
    for (size_t i = 0; i < 4; i++) {
        memset(&e, 0, sizeof e);
        policy = base;
        listen[0] = en.listen[0];
        listen[1] = en.listen[0];
        listen[1].port = second;
        listen[i == 3 ? 0 : 2] = bad[i];
        policy.engine.listen = listen;
        policy.engine.n_listen = i == 3 ? 2 : 3;
        assert_int_not_equal(hky_accept_prepare(en.accept, &policy, &change, &e), HKY_OK);
        assert_null(change);
        if (strstr(e.text, texts[i]) == NULL)
            fail_msg("case %zu: %s", i, e.text);
        expect_greeting(first);
        assert_int_equal(dial_port(second), -1);
    }
    engine_fini(&en);
    engine_fini(&other);
}

static void test_a_change_opens_and_closes(void **state)
{
    struct engine en;
    struct hky_listen listen;
    struct hky_policy policy;
    struct hky_accept_change *change;
    struct hky_error e = {0};
    uint16_t first = unused_port(), second = unused_port();

    (void)state;
    engine_init(&en, 2);
    en.listen[0].port = first;
    policy = en.policy;
    engine_run(&en);
    int running = dial(&en);
    hear(running, "\r\n");
    listen = en.listen[0];
    listen.port = second;
    policy.engine.listen = &listen;
    assert_int_equal(hky_accept_prepare(en.accept, &policy, &change, &e), HKY_OK);
    hky_accept_abandon(en.accept, &change);
    assert_int_equal(dial_port(second), -1);
    expect_greeting(first);
    assert_int_equal(hky_accept_prepare(en.accept, &policy, &change, &e), HKY_OK);
    __atomic_store_n(&en.in_force, &policy, __ATOMIC_RELEASE);
    hky_accept_commit(en.accept, &change);
    assert_null(change);
    expect_greeting(second);
    wait_until(nobody_listens(first));
    say(running, "NOOP\r\nQUIT\r\n"); /* sessions go on */
    assert_non_null(strstr(hear(running, NULL), "221 "));
    close(running);
    engine_fini(&en);
}

/* The session takes over the new policy between two commands that came in one read. */
static void test_a_login_behind_a_reload_asks_the_new_policy(void **state)
{
    struct engine en;
    struct hky_user users[2] = {{.name = "u"}, {.name = "u"}};
    struct hky_cidr here = {.addr = {[10] = 0xff, [11] = 0xff, [12] = 127}, .bits = 104};
    struct hky_listen listen;
    struct hky_policy policy;
    struct hky_accept_change *change;
    struct hky_error e = {0};

    (void)state;
    engine_init(&en, 1);
    en.policy.engine.bounds.command_ms = 5000;
    en.listen[0].users = &users[0];
    en.listen[0].n_users = 1;
    en.listen[0].allow = &here;
    en.listen[0].n_allow = 1;
    en.listen[0].has_allow = true;
    en.listen[0].port = unused_port();
    policy = en.policy;
    listen = en.listen[0];
    listen.users = &users[1];
    policy.engine.listen = &listen;
    engine_run(&en);
    int fd = dial(&en);
    hear(fd, "220 ");
    say(fd, "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n");
    assert_non_null(strstr(hear(fd, "250 2.1.0"), "250 2.1.0"));
    assert_int_equal(hky_accept_prepare(en.accept, &policy, &change, &e), HKY_OK);
    __atomic_store_n(&en.in_force, &policy, __ATOMIC_RELEASE);
    hky_accept_commit(en.accept, &change);
    for (int i = 0; i < 3; i++) { /* then the worker has seen the change, and the session waits with it */
        say(fd, "NOOP\r\n");
        assert_non_null(strstr(hear(fd, "250 "), "250 "));
    }
    say(fd, "RSET\r\nAUTH PLAIN AHUAc2VjcmV0\r\n");
    const char *text = hear(fd, "235 ");
    if (strstr(text, "235 ") == NULL)
        fail_msg("%s", text);
    assert_ptr_equal(en.secret_ref, &users[1].password);
    assert_ptr_equal(en.secret_policy, &policy);
    close(fd);
    engine_fini(&en);
    assert_int_equal(policy.refs, 1000);
    assert_int_equal(en.policy.refs, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_goes_through),
        cmocka_unit_test(test_big_message),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_connections_are_bounded),
        cmocka_unit_test(test_a_network_of_ipv6_is_one_client),
        cmocka_unit_test(test_clients_leave_descriptors_to_others),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_free_with_orders_left),
        cmocka_unit_test(test_refused_listeners),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_a_change_that_fails_changes_nothing),
        cmocka_unit_test(test_a_change_opens_and_closes),
        cmocka_unit_test(test_a_login_behind_a_reload_asks_the_new_policy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
