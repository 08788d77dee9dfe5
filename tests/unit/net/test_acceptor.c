#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "net/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WAIT_MS 10000 /* for what should take a tenth of a second at most */

/* What accept4 says next: errno values, 0 a connection; behind the last one, `rest_of_them` for ever. */
static struct {
    const int *next;
    int n, rest_of_them;
    unsigned n_calls;
} script;

static int scripted_accept(int fd, struct sockaddr *from, socklen_t *n, int flags)
{
    int sys = script.n > 0 ? (script.n--, *script.next++) : script.rest_of_them;

    (void)fd;
    (void)from;
    (void)n;
    (void)flags;
    script.n_calls++;
    if (sys == 0)
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    errno = sys;
    return -1;
}

struct rig {
    struct hky_loop *loop;
    struct hky_acceptor *acceptor;
    int listening, client;
    struct sockaddr_in at;
    unsigned n_taken, n_refused, n_first, n_ran;
    int last_sys;
    bool refused_has_fd;
    struct hky_task other;
};

static void on_taken(void *ctx, int fd, const struct sockaddr_storage *from)
{
    (void)from;
    ((struct rig *)ctx)->n_taken++;
    close(fd);
}

static void on_refused(void *ctx, int fd, int sys, bool is_first)
{
    struct rig *r = ctx;

    r->n_refused++;
    r->n_first += is_first;
    r->last_sys = sys;
    r->refused_has_fd = fd >= 0;
    if (fd >= 0)
        assert_int_equal(send(fd, "no", 2, MSG_NOSIGNAL | MSG_DONTWAIT) == 2 || errno == ENOTSOCK, 1);
}

static int dial(const struct rig *r)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&r->at, sizeof r->at), 0);
    return fd;
}

/* A socket with a connection that waits, so that it is readable all the time that accept4 is scripted. */
static void rig_init(struct rig *r, bool is_scripted)
{
    struct hky_acceptor_ops ops = {on_taken, on_refused, is_scripted ? scripted_accept : NULL};
    socklen_t n = sizeof r->at;
    struct hky_error e;

    *r = (struct rig){.at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    script.n = 0;
    script.n_calls = 0;
    script.rest_of_them = EAGAIN;
    assert_int_equal(hky_loop_new(&r->loop, &e), HKY_OK);
    r->listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->listening, (struct sockaddr *)&r->at, sizeof r->at), 0);
    assert_int_equal(listen(r->listening, 100), 0);
    assert_int_equal(getsockname(r->listening, (struct sockaddr *)&r->at, &n), 0);
    r->client = dial(r);
    r->acceptor = hky_acceptor_new(r->loop, r->listening, &ops, r);
}

static void rig_fini(struct rig *r)
{
    hky_acceptor_free(&r->acceptor);
    assert_null(r->acceptor);
    close(r->client);
    close(r->listening);
    hky_loop_free(&r->loop);
}

static void say(struct rig *r, const int *results, int n, int rest_of_them)
{
    script.next = results;
    script.n = n;
    script.rest_of_them = rest_of_them;
    script.n_calls = 0;
    r->n_taken = r->n_refused = 0;
}

static void turn_until(struct rig *r, const unsigned *counter, unsigned n)
{
    int64_t end = hky_loop_now_ms(r->loop) + WAIT_MS;

    while (*counter < n && hky_loop_now_ms(r->loop) < end)
        hky_loop_turn(r->loop, 10);
    assert_true(*counter >= n);
}

static void run_other(struct hky_task *task)
{
    HKY_CONTAINER(task, struct rig, other)->n_ran++;
}

static void test_a_crowd_leaves_a_turn_to_others(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, true);
    say(&r, NULL, 0, 0);
    turn_until(&r, &r.n_taken, 1);
    assert_int_equal(r.n_taken, HKY_ACCEPTOR_TURN);
    r.other.run = run_other;
    hky_loop_post(r.loop, &r.other);
    unsigned before = r.n_taken;
    turn_until(&r, &r.n_ran, 1);
    assert_true(r.n_taken - before <= 2 * HKY_ACCEPTOR_TURN);
    turn_until(&r, &r.n_taken, 5 * HKY_ACCEPTOR_TURN); /* and they all have theirs */
    rig_fini(&r);
}

static void test_a_connection_that_failed_does_not_hold_up_the_next(void **state)
{
    static const int each[] = {EINTR,     ECONNABORTED, EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH,
                               EHOSTDOWN, EHOSTUNREACH, ENONET, EOPNOTSUPP,  EPERM};

    (void)state;
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        const int results[] = {each[i], 0, each[i], each[i], 0};
        struct rig r;
        rig_init(&r, true);
        say(&r, results, 5, EAGAIN);
        turn_until(&r, &r.n_taken, 1);
        if (r.n_taken != 2 || r.n_refused != 0) /* within the one turn */
            fail_msg("%s: %u taken, %u refused", strerror(each[i]), r.n_taken, r.n_refused);
        rig_fini(&r);
    }
    /* failures only: they count, too, so that the turn ends */
    struct rig r;
    rig_init(&r, true);
    say(&r, NULL, 0, ECONNABORTED);
    turn_until(&r, &script.n_calls, 1);
    assert_int_equal(script.n_calls, HKY_ACCEPTOR_TURN);
    rig_fini(&r);
}

static void test_without_descriptors_it_rests(void **state)
{
    static const int each[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};

    (void)state;
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        const int results[] = {0, each[i], 0};
        struct rig r;
        rig_init(&r, true);
        say(&r, results, 3, each[i]);
        turn_until(&r, &r.n_refused, 1);
        assert_int_equal(r.n_taken, 1);
        assert_int_equal(script.n_calls, 3); /* the third is taken in order to be refused */
        assert_int_equal(r.last_sys, each[i]);
        assert_int_equal(r.n_first, 1);
        assert_true(r.refused_has_fd);
        unsigned calls = script.n_calls;
        int64_t begun = hky_loop_now_ms(r.loop);
        for (int k = 0; k < 20; k++)
            hky_loop_turn(r.loop, 0);
        if (hky_loop_now_ms(r.loop) - begun < HKY_ACCEPTOR_REST_MS)
            assert_int_equal(script.n_calls, calls); /* the socket is readable all the time */
        turn_until(&r, &r.n_refused, 3);             /* it looks again, and again */
        assert_true(hky_loop_now_ms(r.loop) - begun >= HKY_ACCEPTOR_REST_MS);
        assert_false(r.refused_has_fd);
        assert_int_equal(r.n_first, 1); /* which is no news */
        say(&r, NULL, 0, 0);
        turn_until(&r, &r.n_taken, 1); /* and goes on when there are some */
        rig_fini(&r);
    }
}

/* A socket that fails for a reason nobody thought of stays readable. */
static void test_an_unknown_failure_does_not_spin(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, true);
    say(&r, NULL, 0, EINVAL);
    int64_t begun = hky_loop_now_ms(r.loop);
    turn_until(&r, &script.n_calls, 4);
    assert_true(hky_loop_now_ms(r.loop) - begun >= 3 * HKY_ACCEPTOR_REST_MS);
    assert_int_equal(r.n_refused, 0);
    rig_fini(&r);
}

static void test_the_limit_of_the_system(void **state)
{
    struct rig r;
    struct rlimit was, few;
    char text[8] = "";

    (void)state;
    rig_init(&r, false);
    turn_until(&r, &r.n_taken, 1);
    int second = dial(&r), third = dial(&r), lowest = dup(second);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    turn_until(&r, &r.n_refused, 2); /* the acceptor's own descriptor lies below the limit */
    assert_int_equal(r.last_sys, EMFILE);
    assert_int_equal(recv(second, text, sizeof text, MSG_WAITALL), 2);
    assert_string_equal(text, "no");
    assert_int_equal(recv(third, text, sizeof text, MSG_WAITALL), 2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    close(second);
    close(third);
    second = dial(&r);
    turn_until(&r, &r.n_taken, 2);
    close(second);
    rig_fini(&r);
}

static void test_it_may_end_while_it_rests(void **state)
{
    struct rig r;

    (void)state;
    rig_init(&r, true);
    say(&r, NULL, 0, EMFILE);
    turn_until(&r, &r.n_refused, 1);
    hky_acceptor_free(&r.acceptor);
    unsigned calls = script.n_calls;
    int64_t end = hky_loop_now_ms(r.loop) + 2 * HKY_ACCEPTOR_REST_MS;
    while (hky_loop_now_ms(r.loop) < end)
        hky_loop_turn(r.loop, 10);
    assert_int_equal(script.n_calls, calls);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crowd_leaves_a_turn_to_others),
        cmocka_unit_test(test_a_connection_that_failed_does_not_hold_up_the_next),
        cmocka_unit_test(test_without_descriptors_it_rests),
        cmocka_unit_test(test_an_unknown_failure_does_not_spin),
        cmocka_unit_test(test_the_limit_of_the_system),
        cmocka_unit_test(test_it_may_end_while_it_rests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
