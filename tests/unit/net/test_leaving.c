/* Every way a peer can go: it is noticed soon, and what it said before is heard. */
#include "base/buf.h"
#include "net/stream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "ends.h"
#include "lab.h"

struct peer {
    struct hky_stream *s;
    struct hky_buf got;
    char events[16];
    bool answers;
};

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct peer *peer = ctx;
    const char *end = memrchr(p, '\n', n);
    size_t used = end != NULL ? (size_t)(end + 1 - p) : 0;

    hky_buf_add(&peer->got, p, used);
    if (peer->answers && used > 0)
        hky_stream_write(peer->s, "ok\n", 3);
    return used;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct peer *peer = ctx;

    (void)e;
    if (ev != HKY_STREAM_DRAINED)
        ends_note(peer->events, sizeof peer->events, ev);
}

static const struct hky_stream_ops ops = {on_data, on_event};

/* Two streams of one loop over TCP: `near` is looked at, `far` goes away. */
struct line {
    struct hky_loop *loop;
    struct peer near, far;
    int far_fd;
};

static void tcp_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &n), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[1], (struct sockaddr *)&at, n), 0);
    fds[0] = accept(listener, NULL, NULL);
    assert_true(fds[0] >= 0);
    close(listener);
}

enum security { PLAIN, TLS_NEAR_IS_SERVER, TLS_NEAR_IS_CLIENT, N_SECURITIES };

static struct hky_loop *new_loop(void)
{
    struct hky_loop *loop = NULL;
    struct hky_error e = {0};

    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    return loop;
}

static void line_up(struct line *l, struct hky_loop *loop, enum security security)
{
    struct hky_error e = {0};
    struct peer *peers[] = {&l->near, &l->far};
    int fds[2];

    memset(l, 0, sizeof *l);
    l->loop = loop;
    tcp_pair(fds);
    l->far_fd = fds[1];
    for (int i = 0; i < 2; i++) {
        hky_buf_init(&peers[i]->got, 1 << 20);
        peers[i]->s = ends_stream(l->loop, &ops, peers[i], fds[i]);
    }
    if (security != PLAIN) {
        struct hky_tls_client_params any = {0};
        struct hky_tls *client = NULL;
        bool is_near = security == TLS_NEAR_IS_CLIENT;
        assert_int_equal(hky_tls_client_new(&any, &client, &e), HKY_OK);
        hky_stream_start_tls(is_near ? l->far.s : l->near.s, lab.server, NULL);
        hky_stream_start_tls(is_near ? l->near.s : l->far.s, client, NULL);
        hky_tls_unref(&client);
        for (int i = 0; i < 200 && (l->near.events[0] != 's' || l->far.events[0] != 's'); i++)
            hky_loop_turn(l->loop, 20);
        assert_string_equal(l->near.events, "s");
        l->near.events[0] = '\0';
    }
    turns(l->loop, 6); /* tickets, first edges */
}

static void line_down(struct line *l)
{
    hky_stream_close(&l->near.s);
    hky_stream_close(&l->far.s);
    hky_loop_turn(l->loop, 0);
    hky_buf_fini(&l->near.got);
    hky_buf_fini(&l->far.got);
}

enum going { CLOSE, HALF_CLOSE, ABRUPT_END, RESET, CLOSE_WITH_UNREAD, N_GOINGS };
static const char *const going_names[N_GOINGS] = {"close", "half-close", "end of stream without goodbye", "reset",
                                                  "close with unread data"};

static void go(struct line *l, enum going going)
{
    struct linger hard = {.l_onoff = 1};

    hky_stream_flush(l->far.s);
    switch (going) {
    case CLOSE:
        hky_stream_close(&l->far.s);
        return;
    case HALF_CLOSE:
    case ABRUPT_END:
        shutdown(l->far_fd, SHUT_WR);
        return;
    case RESET:
        setsockopt(l->far_fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        hky_stream_cut(&l->far.s);
        return;
    default: {
        /* The descriptor goes without being read by its stream: the kernel answers unread data with a reset. */
        int fd = dup(l->far_fd);
        hky_stream_pause(l->far.s);
        hky_stream_write(l->near.s, "unread\n", 7);
        hky_stream_flush(l->near.s);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        hky_stream_cut(&l->far.s);
        close(fd);
    }
    }
}

enum { N_WORDS = 3, N_STAGES = 3 }; /* stages: at rest, answering, paused */

static bool all_noticed(const struct line lines[N_WORDS][N_STAGES])
{
    for (int w = 0; w < N_WORDS; w++)
        for (int stage = 0; stage < N_STAGES; stage++)
            if (lines[w][stage].near.events[0] == '\0')
                return false;
    return true;
}

/* A reset is sometimes only found by looking again after a while, so all words and stages go at the same time. */
static void every_way_to_go_is_noticed_and_the_last_words_are_heard(void **state)
{
    (void)state;
    static const struct {
        const char *says, *heard;
    } words[N_WORDS] = {{"", ""}, {"250 ok\r\n", "250 ok\r\n"}, {"250 ok\r\n35", "250 ok\r\n"}};

    for (int security = 0; security < N_SECURITIES; security++)
        for (int going = 0; going < N_GOINGS; going++) {
            struct hky_loop *loop = new_loop();
            static struct line lines[N_WORDS][N_STAGES];
            for (int k = 0; k < N_WORDS * N_STAGES; k++)
                line_up(&lines[k / N_STAGES][k % N_STAGES], loop, (enum security)security);
            for (int k = 0; k < N_WORDS * N_STAGES; k++) {
                int w = k / N_STAGES, stage = k % N_STAGES;
                struct line *l = &lines[w][stage];
                l->near.answers = stage == 1;
                if (stage == 2)
                    hky_stream_pause(l->near.s);
                hky_stream_write(l->far.s, words[w].says, strlen(words[w].says));
                go(l, (enum going)going);
            }
            turns(loop, 4);
            for (int w = 0; w < N_WORDS; w++)
                hky_stream_resume(lines[w][2].near.s);
            for (int i = 0; i < 200 && !all_noticed(lines); i++)
                hky_loop_turn(loop, 10);
            for (int k = 0; k < N_WORDS * N_STAGES; k++) {
                int w = k / N_STAGES, stage = k % N_STAGES;
                struct line *l = &lines[w][stage];
                if (strlen(l->near.events) != 1 || strcmp(hky_buf_z(&l->near.got), words[w].heard) != 0)
                    fail_msg("%s, TLS %d, said \"%s\", stage %d: events \"%s\", heard \"%s\"", going_names[going],
                             security, words[w].says, stage, l->near.events, hky_buf_z(&l->near.got));
                line_down(l);
            }
            hky_loop_free(&loop);
        }
}

/* While a big body is under way, and the peer takes no more of it. */
static void going_in_the_middle_of_our_writing_is_noticed(void **state)
{
    (void)state;
    static char body[4 << 20];

    for (int security = 0; security < N_SECURITIES; security++)
        for (int going = RESET; going < N_GOINGS; going++)
            for (int says = 0; says < 2; says++) {
                struct line l;
                line_up(&l, new_loop(), (enum security)security);
                hky_stream_pause(l.far.s);
                hky_stream_write_ref(l.near.s, body, sizeof body, NULL, NULL);
                turns(l.loop, 4);
                assert_true(hky_stream_unsent(l.near.s) > 0);
                if (says)
                    hky_stream_write(l.far.s, "552 too big\r\n", 13);
                go(&l, (enum going)going);
                for (int i = 0; i < 200 && l.near.events[0] == '\0'; i++)
                    hky_loop_turn(l.loop, 10);
                assert_string_equal(l.near.events, "f");
                assert_string_equal(hky_buf_z(&l.near.got), says ? "552 too big\r\n" : "");
                line_down(&l);
                hky_loop_free(&l.loop);
            }
}

/* At every step of the handshake: `n` turns after it began. */
static void going_during_the_handshake_is_noticed(void **state)
{
    (void)state;
    for (int security = TLS_NEAR_IS_SERVER; security < N_SECURITIES; security++)
        for (int n = 0; n < 3; n++)
            for (int going = 0; going < N_GOINGS; going++) {
                struct line l;
                struct hky_tls_client_params any = {0};
                struct hky_tls *client = NULL;
                struct hky_error e = {0};
                bool is_near = security == TLS_NEAR_IS_CLIENT;
                line_up(&l, new_loop(), PLAIN);
                assert_int_equal(hky_tls_client_new(&any, &client, &e), HKY_OK);
                hky_stream_start_tls(is_near ? l.near.s : l.far.s, client, NULL);
                if (n > 0)
                    hky_stream_start_tls(is_near ? l.far.s : l.near.s, lab.server, NULL);
                turns(l.loop, n);
                go(&l, (enum going)going);
                if (n == 0 && !is_near)
                    hky_stream_start_tls(l.near.s, lab.server, NULL);
                for (int i = 0; i < 200 && strpbrk(l.near.events, "ef") == NULL; i++)
                    hky_loop_turn(l.loop, 10);
                if (strpbrk(l.near.events, "ef") == NULL)
                    fail_msg("%s %d turns into the handshake, TLS %d: events \"%s\"", going_names[going], n, security,
                             l.near.events);
                hky_tls_unref(&client);
                line_down(&l);
                hky_loop_free(&l.loop);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_go_is_noticed_and_the_last_words_are_heard),
        cmocka_unit_test(going_in_the_middle_of_our_writing_is_noticed),
        cmocka_unit_test(going_during_the_handshake_is_noticed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
