/* A stop: what it finishes, and what it does not wait for. */
#include "unit/deliver/harness.h"

/* Turns the loop until the server waits (steps EOF and OTHER), and the client has asked for so many secrets. */
static void run_until_silence(struct fake *f, struct server *s, unsigned n_secrets)
{
    int64_t until = hky_mono_ms() + 8000;
    while ((__atomic_load_n(&s->n_waits, __ATOMIC_RELAXED) == 0 || f->n_secrets < n_secrets) && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 10);
    assert_int_equal(__atomic_load_n(&s->n_waits, __ATOMIC_RELAXED), 1);
}

/* Connects and leaves: the server goes on behind its step OTHER. */
static void let_server_go_on(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    close(fd);
}

/* Whatever the connection waits for before it can send, a stop gives its job back at once, and nobody was failed. */
static void test_a_stop_waits_for_no_connection_that_cannot_send(void **state)
{
    (void)state;
    static const struct {
        const char *name, *script;
        enum hky_tls_mode tls;
        enum hky_auth auth;
        bool is_secret_late;
    } rows[] = {
        {"no greeting", "EOF\n", HKY_TLS_NONE, HKY_AUTH_NONE, false},
        {"no reply to EHLO", "S: 220 hi\nC: EHLO\nEOF\n", HKY_TLS_NONE, HKY_AUTH_NONE, false},
        {"no handshake", "EOF\n", HKY_TLS_IMPLICIT, HKY_AUTH_NONE, false},
        {"no reply to STARTTLS", "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nEOF\n", HKY_TLS_STARTTLS,
         HKY_AUTH_NONE, false},
        {"no secret", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nEOF\n", HKY_TLS_NONE, HKY_AUTH_PLAIN, true},
        {"no reply to AUTH", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH\nEOF\n", HKY_TLS_NONE,
         HKY_AUTH_PLAIN, false},
    };
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        bool is_answered = i % 2 == 0;
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i / 2].script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.timeout = (struct hky_relay_timeouts){60000, 60000, 60000, 60000, 60000};
        f.relay.tls = rows[i / 2].tls;
        f.relay.auth = rows[i / 2].auth;
        f.relay.user = "u";
        f.secret = "p";
        f.is_late = rows[i / 2].is_secret_late;
        add(&f, 2);
        run_until_silence(&f, &s, f.is_late);
        assert_int_equal(f.n_queue, 1);
        hky_deliver_drain(f.deliver);
        if (f.n_queue != 2 || f.n_back != 1 || f.n_done != 0 || f.n_mails != 0)
            fail_msg("%s: %u queued, %u back, %u done, %u mails", rows[i / 2].name, f.n_queue, f.n_back, f.n_done,
                     f.n_mails);
        assert_false(f.has_outcome[0][0]);
        if (f.is_late && is_answered)
            run_for(&f, 400); /* the answer comes when nobody waits for it any more */
        else if (f.is_late)
            hky_timer_cancel(&f.late); /* it never comes */
        finish(&f, &s);
    }
}

/* The message under way is finished, no other one is begun, and QUIT is said. */
static void test_a_stop_finishes_what_is_under_way(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") "S: 250 m|250 r|354 go\nBODY\nOTHER\nS: 250 ok\nC: QUIT\n"
                                             "S: 221 bye\nEOF\n",
                             "CLOSE\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.overlap = false;
    add(&f, 1);
    run_until_silence(&f, &s, 0);
    add(&f, 1);
    hky_deliver_drain(f.deliver);
    let_server_go_on(s.port);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.n_queue, 1);
    run_for(&f, 100);
    finish(&f, &s);
    assert_int_equal(f.n_mails, 1);
}

/* What follows the message under way on its connection comes back when its MAIL was not written. */
static void test_a_stop_gives_back_a_message_whose_body_hangs(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\nC: QUIT\nS: 221 bye\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.overlap = false;
    add(&f, 1);
    run_until(&f, 1);
    f.holds_reads = true;
    add(&f, 1);
    for (int64_t until = hky_mono_ms() + 8000; f.held == NULL && hky_mono_ms() < until;)
        hky_loop_turn(f.loop, 10);
    assert_non_null(f.held);
    hky_deliver_drain(f.deliver);
    assert_int_equal(f.n_back, 1);
    assert_false(f.has_outcome[1][0]);
    f.holds_reads = false;
    release_read(&f, HKY_OK);
    run_for(&f, 100);
    finish(&f, &s);
    assert_int_equal(f.n_mails, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stop_waits_for_no_connection_that_cannot_send),
        cmocka_unit_test(test_a_stop_finishes_what_is_under_way),
        cmocka_unit_test(test_a_stop_gives_back_a_message_whose_body_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
