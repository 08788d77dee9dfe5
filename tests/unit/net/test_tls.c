#include "base/buf.h"
#include "net/stream.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "ends.h"
#include "lab.h"

struct peer {
    struct hky_stream *s;
    struct hky_tls *upgrade; /* start TLS at the first line */
    struct hky_buf got;
    char events[32];
    struct hky_error error;
    bool takes_lines, is_echo;
};

static size_t on_data(void *ctx, const char *p, size_t n)
{
    struct peer *peer = ctx;
    if (peer->takes_lines) {
        const char *end = memchr(p, '\n', n);
        n = end != NULL ? (size_t)(end + 1 - p) : 0;
    }
    hky_buf_add(&peer->got, p, n);
    if (peer->is_echo)
        hky_stream_write(peer->s, p, n);
    if (peer->upgrade != NULL && n > 0) {
        struct hky_tls *tls = peer->upgrade;
        peer->upgrade = NULL;
        hky_stream_write(peer->s, "220 go\n", 7);
        hky_stream_start_tls(peer->s, tls, NULL);
    }
    return n;
}

static void on_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    struct peer *peer = ctx;
    ends_note(peer->events, sizeof peer->events, ev);
    if (e != NULL)
        peer->error = *e;
}

static const struct hky_stream_ops ops = {on_data, on_event};

struct both {
    struct hky_loop *loop;
    struct peer client, server;
};

static void both_up(struct both *b)
{
    int fds[2];
    struct hky_error e;
    memset(b, 0, sizeof *b);
    assert_int_equal(hky_loop_new(&b->loop, &e), HKY_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct peer *peers[] = {&b->client, &b->server};
    for (int i = 0; i < 2; i++) {
        hky_buf_init(&peers[i]->got, 64 << 20);
        peers[i]->s = ends_stream(b->loop, &ops, peers[i], fds[i]);
    }
}

static void both_down(struct both *b)
{
    hky_stream_close(&b->client.s);
    hky_stream_close(&b->server.s);
    hky_loop_turn(b->loop, 0);
    hky_buf_fini(&b->client.got);
    hky_buf_fini(&b->server.got);
    hky_loop_free(&b->loop);
}

static struct hky_tls *client_tls(bool is_verified, const char *pin)
{
    struct hky_tls *t = NULL;
    struct hky_error e = {0};
    struct hky_tls_client_params p = {.is_verified = is_verified, .ca_file = lab.cert, .pin = pin};
    assert_int_equal(hky_tls_client_new(&p, &t, &e), HKY_OK);
    return t;
}

/* Both sides start at once; what is written meanwhile waits for the handshake, so DRAINED follows SECURED. */
static void shake(struct both *b, struct hky_tls *tls, const char *name)
{
    hky_stream_start_tls(b->server.s, lab.server, NULL);
    hky_stream_start_tls(b->client.s, tls, name);
    hky_stream_write(b->client.s, "hello\n", 6);
    turns(b->loop, 12);
}

static void the_server_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *what, *name;
        bool is_verified, is_fine, has_pin, is_pin_wrong;
    } cases[] = {
        {"the right name", "mail.example", true, true},
        {"case does not matter", "MAIL.example", true, true},
        {"another name", "mail.example.org", true, false},
        {"a wildcard for one label", "a.wild.example", true, true},
        {"a wildcard not for two", "a.b.wild.example", true, false},
        {"a wildcard for a part of a label", "part.part.example", true, false},
        {"the right address", "127.0.0.1", true, true},
        {"another address", "127.0.0.2", true, false},
        {"no name to verify", NULL, true, false},
        {"anything without verification", "other.example", false, true},
        {"no name without verification", NULL, false, true},
        {"the right pin instead of a name", "other.example", false, true, true},
        {"a wrong pin", "mail.example", false, false, true, true},
        {"the right pin and name", "mail.example", true, true, true},
        {"the right pin, wrong name", "other.example", true, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        both_up(&b);
        char pin[65];
        memcpy(pin, lab.pin, sizeof pin);
        if (cases[i].is_pin_wrong)
            pin[5] = pin[5] == '0' ? '1' : '0';
        struct hky_tls *tls = client_tls(cases[i].is_verified, cases[i].has_pin ? pin : NULL);
        shake(&b, tls, cases[i].name);
        if (strcmp(b.client.events, cases[i].is_fine ? "sd" : "f") != 0)
            fail_msg("%s: events %s, %s", cases[i].what, b.client.events, b.client.error.text);
        if (cases[i].is_fine) {
            char text[80];
            assert_string_equal(hky_buf_z(&b.server.got), "hello\n");
            assert_true(hky_stream_is_secure(b.client.s));
            hky_stream_tls_text(b.client.s, text, sizeof text);
            assert_non_null(strstr(text, "TLSv1.3 TLS_"));
            assert_int_equal(hky_stream_tls_is_verified(b.client.s), cases[i].is_verified || cases[i].has_pin);
            hky_stream_close(&b.client.s);
            turns(b.loop, 4);
            assert_string_equal(b.server.events, "se"); /* close_notify came */
        } else {
            assert_int_equal(b.client.error.code, HKY_E_TLS);
            assert_int_equal(b.server.got.n, 0); /* nothing was said to the wrong one */
        }
        hky_tls_unref(&tls);
        both_down(&b);
    }
}

/* Also the one that was not accepted: whoever wants to pin it must see it. */
static void certificates_are_shown(void **state)
{
    (void)state;
    for (int is_trusted = 0; is_trusted < 2; is_trusted++) {
        struct both b;
        struct hky_error e;
        struct hky_tls *tls = NULL;
        struct hky_tls_certificate shown;
        struct hky_tls_client_params p = {.is_verified = true, .ca_file = is_trusted ? lab.cert : NULL};
        both_up(&b);
        assert_false(hky_stream_tls_certificate(b.client.s, &shown));
        assert_int_equal(hky_tls_client_new(&p, &tls, &e), HKY_OK);
        shake(&b, tls, "mail.example");
        assert_string_equal(b.client.events, is_trusted ? "sd" : "f");
        assert_true(hky_stream_tls_certificate(b.client.s, &shown));
        assert_string_equal(shown.subject, "CN=test");
        assert_string_equal(shown.issuer, "CN=test");
        assert_int_equal(strlen(shown.from), strlen("2026-11-28 07:00 UTC"));
        assert_true(strcmp(shown.from, shown.until) < 0);
        assert_int_equal(strlen(shown.pin), 64);
        assert_int_equal(strcasecmp(shown.pin, lab.pin), 0);
        hky_tls_unref(&tls);
        both_down(&b);
    }
}

static void an_untrusted_certificate_is_named(void **state)
{
    (void)state;
    struct both b;
    struct hky_error e;
    struct hky_tls *tls = NULL;
    struct hky_tls_client_params p = {.is_verified = true};
    both_up(&b);
    assert_int_equal(hky_tls_client_new(&p, &tls, &e), HKY_OK);
    shake(&b, tls, "mail.example");
    assert_string_equal(b.client.events, "f");
    assert_non_null(strstr(b.client.error.text, "self-signed"));
    hky_tls_unref(&tls);
    both_down(&b);
}

static void a_pin_alone_is_enough_for_a_self_signed_server(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        bool is_pin_wrong;
    } cases[] = {{"the right pin", false}, {"a wrong pin", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        struct hky_error e;
        struct hky_tls *tls = NULL;
        char pin[65];
        memcpy(pin, lab.pin, sizeof pin);
        if (cases[i].is_pin_wrong)
            pin[5] = pin[5] == '0' ? '1' : '0';
        struct hky_tls_client_params p = {.is_verified = true, .pin = pin};
        both_up(&b);
        assert_int_equal(hky_tls_client_new(&p, &tls, &e), HKY_OK);
        shake(&b, tls, "mail.example");
        if (strcmp(b.client.events, cases[i].is_pin_wrong ? "f" : "sd") != 0)
            fail_msg("%s: events %s, %s", cases[i].what, b.client.events, b.client.error.text);
        assert_int_equal(hky_stream_tls_is_verified(b.client.s), !cases[i].is_pin_wrong);
        hky_tls_unref(&tls);
        both_down(&b);
    }
}

/* Every octet of a pin counts. */
static void a_pin_is_compared_whole(void **state)
{
    (void)state;
    for (int digit = 0; digit < 64; digit += 7) {
        struct both b;
        char pin[65];
        memcpy(pin, lab.pin, sizeof pin);
        pin[digit] = pin[digit] == '0' ? '1' : '0';
        struct hky_tls *tls = client_tls(false, pin);
        both_up(&b);
        shake(&b, tls, "mail.example");
        if (strcmp(b.client.events, "f") != 0)
            fail_msg("digit %d: events %s", digit, b.client.events);
        hky_tls_unref(&tls);
        both_down(&b);
    }
}

/* RFC 9525 6.3: a certificate that has its name in CN only has none. */
static void a_name_in_cn_alone_is_no_name(void **state)
{
    (void)state;
    static const struct {
        const char *what, *alt;
        bool is_fine;
    } cases[] = {{"no subjectAltName", NULL, false},
                 {"only an address there", "IP:127.0.0.1", false},
                 {"only a mailbox there", "email:a@mail.example", false},
                 {"the name there, too", "DNS:mail.example", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        struct hky_error e = {0};
        struct hky_tls *server = NULL, *client = NULL;
        char file[64], key_file[64];
        EVP_PKEY *key = EVP_EC_gen("P-256");
        snprintf(file, sizeof file, "%s/cn.pem", lab.dir);
        snprintf(key_file, sizeof key_file, "%s/cn_key.pem", lab.dir);
        write_key(key_file, key);
        make_certificate(file, key, "mail.example", cases[i].alt);
        EVP_PKEY_free(key);
        assert_int_equal(hky_tls_server_new(file, key_file, &server, &e), HKY_OK);
        struct hky_tls_client_params p = {.is_verified = true, .ca_file = file};
        assert_int_equal(hky_tls_client_new(&p, &client, &e), HKY_OK);
        unlink(file);
        unlink(key_file);
        both_up(&b);
        hky_stream_start_tls(b.server.s, server, NULL);
        hky_stream_start_tls(b.client.s, client, "mail.example");
        hky_stream_write(b.client.s, "hello\n", 6);
        turns(b.loop, 12);
        if (strcmp(b.client.events, cases[i].is_fine ? "sd" : "f") != 0)
            fail_msg("%s: events %s, %s", cases[i].what, b.client.events, b.client.error.text);
        hky_tls_unref(&server);
        hky_tls_unref(&client);
        both_down(&b);
    }
}

static void a_second_connection_resumes_and_is_still_checked(void **state)
{
    (void)state;
    struct hky_tls *tls = client_tls(true, lab.pin);
    for (int i = 0; i < 3; i++) {
        struct both b;
        char text[80];
        both_up(&b);
        b.server.is_echo = true;
        shake(&b, tls, "mail.example");
        assert_string_equal(b.client.events, "sd");
        assert_string_equal(hky_buf_z(&b.client.got), "hello\n");
        assert_true(hky_stream_tls_is_verified(b.client.s));
        hky_stream_tls_text(b.client.s, text, sizeof text);
        assert_int_equal(strstr(text, "resumed") != NULL, i > 0);
        both_down(&b);
    }
    hky_tls_unref(&tls);
}

static void octets_after_starttls_in_clear_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *what, *first, *then;
    } cases[] = {
        {"in the same segment", "STARTTLS\nMAIL FROM:<evil@example>\n", NULL},
        {"in the next segment", "STARTTLS\n", "MAIL FROM:<evil@example>\n"},
        {"half a line", "STARTTLS\nMA", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct both b;
        both_up(&b);
        b.server.takes_lines = true;
        b.server.upgrade = lab.server;
        hky_stream_write(b.client.s, cases[i].first, strlen(cases[i].first));
        turns(b.loop, 1);
        if (cases[i].then != NULL)
            hky_stream_write(b.client.s, cases[i].then, strlen(cases[i].then));
        turns(b.loop, 5);
        if (strcmp(b.server.events, "f") != 0)
            fail_msg("%s: events %s", cases[i].what, b.server.events);
        assert_int_equal(b.server.error.code, HKY_E_TLS);
        assert_string_equal(hky_buf_z(&b.server.got), "STARTTLS\n");
        both_down(&b);
    }
}

static void the_client_refuses_octets_after_the_220(void **state)
{
    (void)state;
    struct both b;
    struct hky_tls *tls = client_tls(false, NULL);
    both_up(&b);
    b.client.takes_lines = true;
    b.client.upgrade = tls;
    hky_stream_write(b.server.s, "220 go ahead\n250 injected\n", 26);
    turns(b.loop, 5);
    assert_string_equal(b.client.events, "f");
    assert_int_equal(b.client.error.code, HKY_E_TLS);
    hky_tls_unref(&tls);
    both_down(&b);
}

static void starttls_works_when_the_command_came_in_two_pieces(void **state)
{
    (void)state;
    struct both b;
    struct hky_tls *tls = client_tls(true, NULL);
    both_up(&b);
    b.server.takes_lines = true;
    b.server.upgrade = lab.server;
    hky_stream_write(b.client.s, "START", 5);
    turns(b.loop, 3);
    hky_stream_write(b.client.s, "TLS\n", 4);
    turns(b.loop, 3);
    assert_string_equal(hky_buf_z(&b.client.got), "220 go\n");
    hky_stream_start_tls(b.client.s, tls, "mail.example");
    hky_stream_write(b.client.s, "EHLO again\n", 11);
    turns(b.loop, 12);
    assert_string_equal(b.client.events, "sd");
    assert_string_equal(b.server.events, "s");
    assert_string_equal(hky_buf_z(&b.server.got), "STARTTLS\nEHLO again\n");
    hky_tls_unref(&tls);
    both_down(&b);
}

static void released(void *arg)
{
    ++*(int *)arg;
}

static void a_big_body_goes_through_with_small_writes_around(void **state)
{
    (void)state;
    struct both b;
    struct hky_tls *tls = client_tls(true, NULL);
    size_t n = 3 << 20;
    char *big = malloc(n);
    int n_released = 0;
    for (size_t i = 0; i < n; i++)
        big[i] = (char)(i * 2654435761U >> 11);
    both_up(&b);
    hky_stream_start_tls(b.server.s, lab.server, NULL);
    hky_stream_start_tls(b.client.s, tls, "mail.example");
    for (int i = 0; i < 1000; i++)
        hky_stream_write(b.client.s, "0123456789", 10);
    hky_stream_write_ref(b.client.s, big, n, released, &n_released);
    hky_stream_write(b.client.s, "\r\n.\r\n", 5);
    for (int i = 0; i < 3000 && b.server.got.n < n + 10005; i++)
        hky_loop_turn(b.loop, 0);
    assert_int_equal(b.server.got.n, n + 10005);
    assert_memory_equal(b.server.got.p + 9990, "0123456789", 10);
    assert_memory_equal(b.server.got.p + 10000, big, n);
    assert_memory_equal(b.server.got.p + 10000 + n, "\r\n.\r\n", 5);
    assert_int_equal(n_released, 1);
    assert_int_equal(hky_stream_sent(b.client.s), n + 10005);
    assert_string_equal(b.client.events, "sd");
    free(big);
    hky_tls_unref(&tls);
    both_down(&b);
}

static void a_silent_peer_runs_into_the_handshake_deadline(void **state)
{
    (void)state;
    struct both b;
    struct hky_tls *tls = client_tls(false, NULL);
    both_up(&b);
    hky_stream_start_tls(b.client.s, tls, "mail.example");
    hky_stream_set_deadline(b.client.s, 20);
    for (int i = 0; i < 20 && b.client.events[0] == 0; i++)
        hky_loop_turn(b.loop, 20);
    assert_string_equal(b.client.events, "f");
    assert_int_equal(b.client.error.code, HKY_E_TIMEOUT);
    hky_tls_unref(&tls);
    both_down(&b);
}

/* A blocking OpenSSL peer that ends the connection without close_notify. */
struct rude {
    int fd;
    const char *says;
};

static void *rude_client(void *arg)
{
    struct rude *r = arg;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, r->fd);
    if (SSL_connect(ssl) == 1)
        SSL_write(ssl, r->says, (int)strlen(r->says));
    /* The server's tickets are taken from the socket first: closed with them unread it would be a reset. */
    struct timeval patience = {0, 500000};
    char ticket[4096];
    shutdown(r->fd, SHUT_WR);
    setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (recv(r->fd, ticket, sizeof ticket, 0) > 0)
        continue;
    close(r->fd);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return NULL;
}

static void an_end_without_close_notify_matters_only_in_the_middle(void **state)
{
    (void)state;
    static const struct {
        const char *says, *events;
    } cases[] = {{"QUIT\n", "se"}, {"QUIT\nhalf", "sf"}};
    for (size_t i = 0; i < 2; i++) {
        int fds[2];
        pthread_t thread;
        struct hky_loop *loop = NULL;
        struct hky_error e;
        struct peer peer = {.takes_lines = true};
        assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        hky_buf_init(&peer.got, 1000);
        struct hky_stream_params p = {.loop = loop, .ops = &ops, .ctx = &peer};
        peer.s = hky_stream_new(&p, fds[0]);
        hky_stream_start_tls(peer.s, lab.server, NULL);
        struct rude rude = {fds[1], cases[i].says};
        assert_int_equal(pthread_create(&thread, NULL, rude_client, &rude), 0);
        for (int k = 0; k < 200 && strlen(peer.events) < 2; k++)
            hky_loop_turn(loop, 20);
        pthread_join(thread, NULL);
        assert_string_equal(peer.events, cases[i].events);
        assert_string_equal(hky_buf_z(&peer.got), "QUIT\n");
        if (cases[i].events[1] == 'f')
            assert_int_equal(peer.error.code, HKY_E_TLS);
        hky_stream_close(&peer.s);
        hky_buf_fini(&peer.got);
        hky_loop_free(&loop);
    }
}

/* A loop of its own thread with the server side of some connections. */
enum { CONNECTIONS = 12 };
struct far_side {
    struct hky_loop *loop;
    struct hky_task start, stop;
    int fds[CONNECTIONS];
    struct peer peers[CONNECTIONS];
};

static void on_start(struct hky_task *task)
{
    struct far_side *far = HKY_CONTAINER(task, struct far_side, start);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct peer *peer = &far->peers[i];
        hky_buf_init(&peer->got, 1 << 20);
        peer->is_echo = true;
        struct hky_stream_params p = {.loop = far->loop, .ops = &ops, .ctx = peer};
        peer->s = hky_stream_new(&p, far->fds[i]);
        hky_stream_start_tls(peer->s, lab.server, NULL);
    }
}

static void on_stop(struct hky_task *task)
{
    struct far_side *far = HKY_CONTAINER(task, struct far_side, stop);
    for (int i = 0; i < CONNECTIONS; i++) {
        hky_stream_close(&far->peers[i].s);
        hky_buf_fini(&far->peers[i].got);
    }
    hky_loop_stop(far->loop);
}

static void *far_thread(void *arg)
{
    hky_loop_run(((struct far_side *)arg)->loop);
    return NULL;
}

static void two_loops_in_two_threads_share_contexts(void **state)
{
    (void)state;
    struct hky_error e;
    pthread_t thread;
    struct hky_loop *loop = NULL;
    struct hky_tls *tls = client_tls(true, NULL);
    struct far_side *far = calloc(1, sizeof *far);
    struct peer *near = calloc(CONNECTIONS, sizeof *near);
    far->start.run = on_start;
    far->stop.run = on_stop;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    assert_int_equal(hky_loop_new(&far->loop, &e), HKY_OK);
    assert_int_equal(pthread_create(&thread, NULL, far_thread, far), 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        far->fds[i] = fds[1];
        hky_buf_init(&near[i].got, 1 << 20);
        struct hky_stream_params p = {.loop = loop, .ops = &ops, .ctx = &near[i]};
        near[i].s = hky_stream_new(&p, fds[0]);
        hky_stream_start_tls(near[i].s, tls, "mail.example");
        hky_stream_write(near[i].s, "hello\n", 6);
    }
    hky_loop_post(far->loop, &far->start);
    for (int k = 0, n_done = 0; k < 1000 && n_done < CONNECTIONS; k++) {
        hky_loop_turn(loop, 20);
        n_done = 0;
        for (int i = 0; i < CONNECTIONS; i++)
            n_done += near[i].got.n == 6;
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        assert_string_equal(hky_buf_z(&near[i].got), "hello\n");
        hky_stream_close(&near[i].s);
        hky_buf_fini(&near[i].got);
    }
    hky_loop_post(far->loop, &far->stop);
    pthread_join(thread, NULL);
    hky_loop_free(&far->loop);
    hky_loop_free(&loop);
    hky_tls_unref(&tls);
    free(far);
    free(near);
}

static void wrong_files_and_pins_are_explained(void **state)
{
    (void)state;
    struct hky_tls *t = NULL;
    struct hky_error e = {0};
    assert_int_equal(hky_tls_server_new("/nonexistent.pem", lab.key, &t, &e), HKY_E_TLS);
    assert_non_null(strstr(e.text, "/nonexistent.pem"));
    assert_int_equal(hky_tls_server_new(lab.cert, lab.other_key, &t, &e), HKY_E_TLS);
    assert_non_null(strstr(e.text, "other.pem"));
    struct hky_tls_client_params p = {.pin = "abcd"};
    assert_int_equal(hky_tls_client_new(&p, &t, &e), HKY_E_CONFIG);
    p = (struct hky_tls_client_params){.is_verified = true, .ca_file = "/nonexistent.pem"};
    assert_int_equal(hky_tls_client_new(&p, &t, &e), HKY_E_TLS);
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_is_checked),
        cmocka_unit_test(certificates_are_shown),
        cmocka_unit_test(an_untrusted_certificate_is_named),
        cmocka_unit_test(a_pin_alone_is_enough_for_a_self_signed_server),
        cmocka_unit_test(a_pin_is_compared_whole),
        cmocka_unit_test(a_name_in_cn_alone_is_no_name),
        cmocka_unit_test(a_second_connection_resumes_and_is_still_checked),
        cmocka_unit_test(octets_after_starttls_in_clear_are_refused),
        cmocka_unit_test(the_client_refuses_octets_after_the_220),
        cmocka_unit_test(starttls_works_when_the_command_came_in_two_pieces),
        cmocka_unit_test(a_big_body_goes_through_with_small_writes_around),
        cmocka_unit_test(a_silent_peer_runs_into_the_handshake_deadline),
        cmocka_unit_test(an_end_without_close_notify_matters_only_in_the_middle),
        cmocka_unit_test(two_loops_in_two_threads_share_contexts),
        cmocka_unit_test(wrong_files_and_pins_are_explained),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
