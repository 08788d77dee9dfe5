#include "base/buf.h"
#include "base/clock.h"
#include "net/stream.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* An owner that notes what it is told and consumes whole lines only. */
struct peer {
    struct hky_stream *s;
    struct hky_buf got; /* lines, as consumed */
    char events[32];    /* c s d e f */
    struct hky_error error;
    unsigned n_offers;
    bool takes_all, pauses, closes, is_echo, says_bye;
};

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct peer *peer = ctx;
    peer->n_offers++;
    size_t used = n;
    if (!peer->takes_all) {
        const char *end = memrchr(p, '\n', n);
        used = end != NULL ? (size_t)(end + 1 - p) : 0;
    }
    hky_buf_add(&peer->got, p, used);
    if (peer->is_echo)
        hky_stream_write(peer->s, p, used);
    if (peer->pauses)
        hky_stream_pause(peer->s);
    if (peer->closes)
        hky_stream_close(&peer->s);
    return used;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct peer *peer = ctx;
    static const char letters[] = {[HKY_STREAM_CONNECTED] = 'c',
                                   [HKY_STREAM_SECURED] = 's',
                                   [HKY_STREAM_DRAINED] = 'd',
                                   [HKY_STREAM_EOF] = 'e',
                                   [HKY_STREAM_FAILED] = 'f'};
    size_t n = strlen(peer->events);
    assert_true(n + 1 < sizeof peer->events);
    peer->events[n] = letters[ev];
    if (e != NULL)
        peer->error = *e;
    if (peer->says_bye && ev == HKY_STREAM_FAILED)
        hky_stream_write(peer->s, "bye\n", 4);
    if (peer->closes)
        hky_stream_close(&peer->s);
}

static const struct hky_stream_ops ops = {on_data, on_event};

struct pair {
    struct hky_loop *loop;
    struct peer peer;
    int fd; /* the other end, plain calls */
};

static struct hky_stream_params params(struct hky_loop *loop, struct peer *peer)
{
    hky_buf_init(&peer->got, 64 << 20);
    return (struct hky_stream_params){.loop = loop, .ops = &ops, .ctx = peer};
}

static void pair_up(struct pair *p)
{
    int fds[2];
    struct hky_error e;
    memset(p, 0, sizeof *p);
    assert_int_equal(hky_loop_new(&p->loop, &e), HKY_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct hky_stream_params sp = params(p->loop, &p->peer);
    p->peer.s = hky_stream_new(&sp, fds[0]);
    p->fd = fds[1];
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
}

static void pair_down(struct pair *p)
{
    hky_stream_close(&p->peer.s);
    hky_stream_close(&p->peer.s);
    hky_loop_turn(p->loop, 0);
    if (p->fd >= 0)
        close(p->fd);
    hky_buf_fini(&p->peer.got);
    hky_loop_free(&p->loop);
}

static void turns(struct hky_loop *loop, int n)
{
    for (int i = 0; i < n; i++)
        hky_loop_turn(loop, 0);
}

static void say(int fd, const char *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void lines_split_at_every_offset_arrive_whole(void **state)
{
    (void)state;
    static const char text[] = "EHLO client.example\r\nMAIL FROM:<a@b>\r\nQUIT\r\n";
    size_t n = sizeof text - 1;
    for (size_t at = 0; at <= n; at++) {
        struct pair p;
        pair_up(&p);
        p.peer.is_echo = true;
        if (at > 0)
            say(p.fd, text, at);
        turns(p.loop, 3);
        if (at < n)
            say(p.fd, text + at, n - at);
        turns(p.loop, 3);
        assert_string_equal(hky_buf_z(&p.peer.got), text);
        char back[sizeof text] = "";
        assert_int_equal(recv(p.fd, back, sizeof back, 0), (ssize_t)n);
        assert_memory_equal(back, text, n);
        assert_string_equal(p.peer.events, "");
        pair_down(&p);
    }
}

static void one_octet_at_a_time_arrives_whole(void **state)
{
    (void)state;
    static const char text[] = "NOOP one\r\nNOOP two\r\n";
    struct pair p;
    pair_up(&p);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        say(p.fd, text + i, 1);
        turns(p.loop, 2);
    }
    assert_string_equal(hky_buf_z(&p.peer.got), text);
    pair_down(&p);
}

static void more_than_read_max_unconsumed_fails_with_limit(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    char *junk = malloc(70000);
    memset(junk, 'x', 70000);
    say(p.fd, junk, 70000);
    turns(p.loop, 5);
    free(junk);
    assert_string_equal(p.peer.events, "f");
    assert_int_equal(p.peer.error.code, HKY_E_LIMIT);
    pair_down(&p);
}

static void eof_leaves_kept_octets_and_comes_once(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    say(p.fd, "whole\nhalf", 10);
    shutdown(p.fd, SHUT_WR);
    turns(p.loop, 5);
    assert_string_equal(hky_buf_z(&p.peer.got), "whole\n");
    assert_string_equal(p.peer.events, "e");
    hky_stream_write(p.peer.s, "ok\n", 3); /* the other direction is open */
    turns(p.loop, 2);
    char back[8];
    assert_int_equal(recv(p.fd, back, sizeof back, 0), 3);
    pair_down(&p);
}

static void a_paused_stream_is_silent_and_remembers(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    turns(p.loop, 2);
    hky_stream_pause(p.peer.s);
    say(p.fd, "one\n", 4);
    turns(p.loop, 3);
    shutdown(p.fd, SHUT_WR);
    turns(p.loop, 3);
    assert_int_equal(p.peer.n_offers, 0);
    assert_string_equal(p.peer.events, "");
    hky_stream_resume(p.peer.s);
    assert_int_equal(p.peer.n_offers, 0); /* never inside a call */
    turns(p.loop, 2);
    assert_string_equal(hky_buf_z(&p.peer.got), "one\n");
    assert_string_equal(p.peer.events, "e");
    pair_down(&p);
}

static void resume_offers_what_was_kept(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    p.peer.pauses = true;
    say(p.fd, "a\nb", 3);
    turns(p.loop, 3);
    assert_string_equal(hky_buf_z(&p.peer.got), "a\n");
    p.peer.pauses = false;
    p.peer.takes_all = true;
    hky_stream_resume(p.peer.s);
    turns(p.loop, 2);
    assert_string_equal(hky_buf_z(&p.peer.got), "a\nb");
    pair_down(&p);
}

static void released(void *arg)
{
    ++*(int *)arg;
}

static void a_big_write_by_reference_waits_for_the_reader(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    size_t n = 5 << 20;
    char *big = malloc(n), *back = malloc(n + 100);
    for (size_t i = 0; i < n; i++)
        big[i] = (char)(i * 2654435761U >> 13);
    int n_released = 0;
    hky_stream_write(p.peer.s, "head", 4);
    hky_stream_write_ref(p.peer.s, big, n, released, &n_released);
    hky_stream_write(p.peer.s, "tail", 4);
    assert_int_equal(hky_stream_unsent(p.peer.s), n + 8);
    hky_stream_flush(p.peer.s);
    assert_int_equal(hky_stream_written(p.peer.s), n + 8);
    assert_true(hky_stream_sent(p.peer.s) > 0);
    assert_int_equal(hky_stream_sent(p.peer.s) + hky_stream_unsent(p.peer.s), n + 8);
    turns(p.loop, 3);
    assert_int_equal(n_released, 0);
    assert_string_equal(p.peer.events, "");
    size_t got = 0;
    for (int i = 0; i < 100000 && got < n + 8; i++) {
        ssize_t r = recv(p.fd, back + got, n + 100 - got, 0);
        if (r > 0)
            got += (size_t)r;
        turns(p.loop, 1);
    }
    assert_int_equal(got, n + 8);
    assert_memory_equal(back, "head", 4);
    assert_memory_equal(back + 4, big, n);
    assert_memory_equal(back + 4 + n, "tail", 4);
    assert_int_equal(n_released, 1);
    assert_string_equal(p.peer.events, "d");
    free(big);
    free(back);
    pair_down(&p);
}

static void many_small_writes_and_references_keep_their_order(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    static const char ref[] = "<by reference>";
    struct hky_buf want;
    hky_buf_init(&want, 1 << 20);
    int n_released = 0;
    for (int i = 0; i < 3000; i++) {
        char line[32];
        int n = snprintf(line, sizeof line, "line %d\n", i);
        hky_stream_write(p.peer.s, line, (size_t)n);
        hky_buf_add(&want, line, (size_t)n);
        if (i % 3 == 0) {
            hky_stream_write_ref(p.peer.s, ref, sizeof ref - 1, released, &n_released);
            hky_buf_add(&want, ref, sizeof ref - 1);
        }
    }
    char *back = malloc(want.n + 1);
    size_t got = 0;
    for (int i = 0; i < 1000 && got < want.n; i++) {
        turns(p.loop, 1);
        ssize_t r = recv(p.fd, back + got, want.n - got, 0);
        if (r > 0)
            got += (size_t)r;
    }
    assert_int_equal(got, want.n);
    assert_memory_equal(back, want.p, want.n);
    assert_int_equal(n_released, 1000);
    free(back);
    hky_buf_fini(&want);
    pair_down(&p);
}

static void close_releases_references_and_silences(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    size_t n = 8 << 20;
    char *big = calloc(1, n);
    int n_released = 0;
    hky_stream_write_ref(p.peer.s, big, n, released, &n_released);
    hky_stream_flush(p.peer.s);
    say(p.fd, "more\n", 5);
    hky_stream_close(&p.peer.s);
    assert_null(p.peer.s);
    assert_int_equal(n_released, 1);
    free(big);
    turns(p.loop, 3);
    assert_int_equal(p.peer.n_offers, 0);
    assert_string_equal(p.peer.events, "");
    pair_down(&p);
}

static void cut_sends_nothing_more(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    hky_stream_write(p.peer.s, "first\n", 6);
    hky_stream_flush(p.peer.s);
    hky_stream_write(p.peer.s, "second\n", 7);
    hky_stream_cut(&p.peer.s);
    assert_null(p.peer.s);
    turns(p.loop, 2);
    char got[64];
    assert_int_equal(recv(p.fd, got, sizeof got, 0), 6);
    assert_int_equal(recv(p.fd, got, sizeof got, 0), 0);
    pair_down(&p);
}

static void close_inside_on_data_sends_what_was_written(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    p.peer.is_echo = p.peer.closes = true;
    say(p.fd, "QUIT\r\nNOOP", 10);
    turns(p.loop, 3);
    assert_null(p.peer.s);
    char back[16];
    assert_int_equal(recv(p.fd, back, sizeof back, 0), 6);
    assert_int_equal(recv(p.fd, back, sizeof back, 0), 0);
    assert_int_equal(p.peer.n_offers, 1);
    pair_down(&p);
}

static void a_write_to_a_dead_peer_fails_after_its_last_words_are_read(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    say(p.fd, "421 bye\n", 8);
    close(p.fd);
    p.fd = -1;
    hky_stream_write(p.peer.s, "MAIL\n", 5);
    hky_stream_flush(p.peer.s);
    assert_string_equal(p.peer.events, "");
    turns(p.loop, 4);
    assert_string_equal(hky_buf_z(&p.peer.got), "421 bye\n");
    assert_string_equal(p.peer.events, "f");
    assert_int_equal(p.peer.error.code, HKY_E_NET);
    pair_down(&p);
}

static void a_deadline_fails_once_unless_moved_or_cleared(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    p.peer.says_bye = true;
    int64_t start = hky_mono_ms();
    hky_stream_set_deadline(p.peer.s, 5);
    hky_stream_set_deadline(p.peer.s, 0);
    for (int i = 0; i < 3; i++)
        hky_loop_turn(p.loop, 10);
    assert_string_equal(p.peer.events, "");
    hky_stream_set_deadline(p.peer.s, 10000);
    hky_stream_set_deadline(p.peer.s, 5);
    hky_stream_set_deadline(p.peer.s, 60);
    for (int i = 0; i < 100 && p.peer.events[0] == 0; i++)
        hky_loop_turn(p.loop, 50);
    assert_true(hky_mono_ms() - start >= 60);
    for (int i = 0; i < 3; i++)
        hky_loop_turn(p.loop, 10);
    assert_string_equal(p.peer.events, "f");
    assert_int_equal(p.peer.error.code, HKY_E_TIMEOUT);
    char back[8];
    assert_int_equal(recv(p.fd, back, sizeof back, 0), 4); /* the last word */
    pair_down(&p);
}

static int listen_on_loopback(struct sockaddr_in *at)
{
    socklen_t n = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof *at), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, &n), 0);
    return fd;
}

static void connect_talks_and_names_its_peer(void **state)
{
    (void)state;
    struct hky_loop *loop = NULL;
    struct hky_error e;
    struct sockaddr_in at, from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
    struct peer peer = {0};
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    int listener = listen_on_loopback(&at);
    struct hky_stream_params sp = params(loop, &peer);
    peer.s = hky_stream_connect(&sp, (struct sockaddr *)&at, sizeof at, (struct sockaddr *)&from, sizeof from);
    hky_stream_write(peer.s, "early\n", 6);
    assert_string_equal(peer.events, "");
    for (int i = 0; i < 20 && peer.events[0] == 0; i++)
        hky_loop_turn(loop, 50);
    assert_int_equal(peer.events[0], 'c');
    struct sockaddr_in seen;
    socklen_t n = sizeof seen;
    int fd = accept(listener, (struct sockaddr *)&seen, &n);
    assert_int_equal(seen.sin_addr.s_addr, from.sin_addr.s_addr);
    char back[8], text[64];
    assert_int_equal(recv(fd, back, sizeof back, 0), 6);
    hky_stream_peer(peer.s, text, sizeof text);
    assert_string_equal(text, "127.0.0.1");
    say(fd, "220 hello\n", 10);
    hky_loop_turn(loop, 100);
    assert_string_equal(hky_buf_z(&peer.got), "220 hello\n");
    /* a reset is a failure, not an end */
    struct linger hard = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    for (int i = 0; i < 20 && strchr(peer.events, 'f') == NULL; i++)
        hky_loop_turn(loop, 50);
    assert_non_null(strchr(peer.events, 'f'));
    close(listener);
    hky_stream_close(&peer.s);
    hky_buf_fini(&peer.got);
    hky_loop_free(&loop);
}

static void connect_speaks_ipv6(void **state)
{
    (void)state;
    struct hky_loop *loop = NULL;
    struct hky_error e;
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, from = at, seen;
    struct peer peer = {0};
    socklen_t n = sizeof at;
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, n) != 0) {
        print_message("SKIP: this machine has no IPv6 loopback\n");
        skip();
    }
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    struct hky_stream_params sp = params(loop, &peer);
    peer.s = hky_stream_connect(&sp, (struct sockaddr *)&at, sizeof at, (struct sockaddr *)&from, sizeof from);
    hky_stream_write(peer.s, "early\n", 6);
    for (int i = 0; i < 20 && peer.events[0] == 0; i++)
        hky_loop_turn(loop, 50);
    assert_int_equal(peer.events[0], 'c');
    int fd = accept(listener, (struct sockaddr *)&seen, &n);
    char back[8], text[64];
    assert_int_equal(recv(fd, back, sizeof back, 0), 6);
    hky_stream_peer(peer.s, text, sizeof text);
    assert_string_equal(text, "::1");
    close(fd);
    close(listener);
    hky_stream_close(&peer.s);
    hky_buf_fini(&peer.got);
    hky_loop_free(&loop);
}

static void connect_refused_is_told_later(void **state)
{
    (void)state;
    struct hky_loop *loop = NULL;
    struct hky_error e;
    struct sockaddr_in at;
    struct peer peer = {0};
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    close(listen_on_loopback(&at));
    struct hky_stream_params sp = params(loop, &peer);
    peer.s = hky_stream_connect(&sp, (struct sockaddr *)&at, sizeof at, NULL, 0);
    assert_string_equal(peer.events, "");
    for (int i = 0; i < 20 && peer.events[0] == 0; i++)
        hky_loop_turn(loop, 50);
    assert_string_equal(peer.events, "f");
    assert_int_equal(peer.error.code, HKY_E_NET);
    assert_non_null(strstr(peer.error.text, "refused"));
    hky_stream_close(&peer.s);
    hky_loop_free(&loop);
}

static void a_flood_does_not_hold_the_turn(void **state)
{
    (void)state;
    struct pair p;
    pair_up(&p);
    p.peer.takes_all = true;
    int big = 4 << 20;
    setsockopt(p.fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    char *junk = calloc(1, 1 << 20);
    size_t sent = 0;
    for (ssize_t r; sent < 1 << 20 && (r = send(p.fd, junk, (1 << 20) - sent, MSG_NOSIGNAL)) > 0;)
        sent += (size_t)r;
    free(junk);
    hky_loop_turn(p.loop, 0);
    assert_true(p.peer.got.n <= 2 * 256 * 1024);
    turns(p.loop, 20);
    assert_int_equal(p.peer.got.n, sent);
    pair_down(&p);
}

static void a_new_owner_is_offered_what_was_kept(void **state)
{
    (void)state;
    struct pair p;
    struct peer other = {.takes_all = true};
    pair_up(&p);
    (void)params(p.loop, &other);
    say(p.fd, "half", 4);
    turns(p.loop, 3);
    other.s = p.peer.s;
    hky_stream_set_ops(p.peer.s, &ops, &other);
    turns(p.loop, 1);
    assert_string_equal(hky_buf_z(&other.got), "half");
    hky_buf_fini(&other.got);
    pair_down(&p);
}

static size_t hand_over(void *ctx, const char *p, size_t n)
{
    struct peer *other = ctx;
    (void)p, (void)n;
    hky_stream_set_ops(other->s, &ops, other);
    return 4;
}

static void an_owner_set_inside_on_data_is_offered_the_rest(void **state)
{
    (void)state;
    static const struct hky_stream_ops first = {hand_over, on_event};
    struct pair p;
    pair_up(&p);
    p.peer.takes_all = true;
    hky_stream_set_ops(p.peer.s, &first, &p.peer);
    say(p.fd, "220\nrest", 8);
    turns(p.loop, 3);
    assert_string_equal(hky_buf_z(&p.peer.got), "rest");
    pair_down(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_split_at_every_offset_arrive_whole),
        cmocka_unit_test(one_octet_at_a_time_arrives_whole),
        cmocka_unit_test(more_than_read_max_unconsumed_fails_with_limit),
        cmocka_unit_test(eof_leaves_kept_octets_and_comes_once),
        cmocka_unit_test(a_paused_stream_is_silent_and_remembers),
        cmocka_unit_test(resume_offers_what_was_kept),
        cmocka_unit_test(a_big_write_by_reference_waits_for_the_reader),
        cmocka_unit_test(many_small_writes_and_references_keep_their_order),
        cmocka_unit_test(close_releases_references_and_silences),
        cmocka_unit_test(cut_sends_nothing_more),
        cmocka_unit_test(close_inside_on_data_sends_what_was_written),
        cmocka_unit_test(a_write_to_a_dead_peer_fails_after_its_last_words_are_read),
        cmocka_unit_test(a_deadline_fails_once_unless_moved_or_cleared),
        cmocka_unit_test(connect_talks_and_names_its_peer),
        cmocka_unit_test(connect_speaks_ipv6),
        cmocka_unit_test(connect_refused_is_told_later),
        cmocka_unit_test(a_flood_does_not_hold_the_turn),
        cmocka_unit_test(a_new_owner_is_offered_what_was_kept),
        cmocka_unit_test(an_owner_set_inside_on_data_is_offered_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
