/* Who may send by a session, and what a new policy changes for those that are open. */
#include "fake.h"

static void test_who_may_send(void **state)
{
    static const struct {
        const char *name;
        bool has_users;
        enum hky_listen_tls tls;
        const char *client;
        bool is_allowed;
        const char *reply;
    } who[] = {
        {"loopback, no users", false, HKY_LISTEN_PLAIN, "127.0.0.1", false, "250 2.1.0"},
        {"loopback where logins are wanted", true, HKY_LISTEN_PLAIN, "127.0.0.1", false, "530 5.7.0"},
        {"a stranger, no users", false, HKY_LISTEN_PLAIN, "192.0.2.1", false, "550 5.7.1"},
        {"a stranger, users", true, HKY_LISTEN_STARTTLS, "192.0.2.1", false, "530 5.7.0 log in first: STARTTLS"},
        {"allow-listed", true, HKY_LISTEN_STARTTLS, "192.0.2.1", true, "250 2.1.0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof who / sizeof who[0]; i++) {
        struct fake f;

        fake_init(&f, who[i].has_users, who[i].tls, NULL, who[i].client);
        f.session.p.is_allowed = who[i].is_allowed;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        hky_buf_clear(&f.out);
        fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\n"));
        if (strncmp(hky_buf_z(&f.out), who[i].reply, strlen(who[i].reply)) != 0)
            fail_msg("%s: %s", who[i].name, hky_buf_z(&f.out));
        fake_fini(&f);
    }
}

static void what_is_refused_is_told_of(void **state)
{
    static const struct {
        const char *wire, *of, *text;
        enum hky_err room;
        unsigned n;
    } rows[] = {
        {"MAIL FROM:<a@x.test> SIZE=99999999999\r\n", "a@x.test ", "552 5.3.4 message too big", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\n", "a@x.test ", "452 4.3.1 no space", HKY_E_FULL, 1},
        {"MAIL FROM:<a@x.test>\r\n", "a@x.test ", "451 4.3.0 mail cannot be stored", HKY_E_IO, 1},
        {"MAIL FROM:<a x>\r\n", " ", "501 5.1.7", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<b y>\r\n", "a@x.test ", "501 5.1.3", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<\xe6\x97\xa5@y.test>\r\nRCPT TO:<\xe6\x97\xa5@z.test>\r\n",
         "a@x.test \xe6\x97\xa5@y.test", "553 5.6.7", HKY_OK, 1},
        {"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 99999999\r\n", "a@x.test ", "552 5.3.4", HKY_OK, 1},
        {"RCPT TO:<b@y.test>\r\nDATA\r\nXYZZY\r\n", "", "", HKY_OK, 0}, /* of the dialogue, not of a message */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake f;
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.room = rows[i].room;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        fake_send(&f, hky_str_z(rows[i].wire));
        if (f.n_refused != rows[i].n || strcmp(f.refused_of, rows[i].of) != 0 ||
            strncmp(f.refused, rows[i].text, strlen(rows[i].text)) != 0)
            fail_msg("%s: %u, \"%s\" of \"%s\"", rows[i].wire, f.n_refused, f.refused, f.refused_of);
        fake_fini(&f);
    }
    struct fake f; /* who may not send tells the owner nothing */
    fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "192.0.2.1");
    fake_send(&f, HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nMAIL FROM:<a x>\r\n"));
    assert_int_equal(f.n_refused, 0);
    fake_fini(&f);
}

/* A login, a network or a right that a new policy takes away. `in` is what the session is in the middle of. */
static void test_a_new_policy_is_taken_over(void **state)
{
    static const char *const senders[] = {"shop.test", NULL}, *const winter[] = {"winter", NULL};
    enum { SAME, LOGIN_GONE, PASSWORD_CHANGED, SENDERS_CHANGED, SCENARIO_CHANGED, LISTENER_GONE, N_CHANGES };
    static const char *const names[N_CHANGES] = {"nothing",       "login gone", "other password",
                                                 "other senders", "scenario",   "listener gone"};
    static const struct {
        const char *what, *in, *then;
    } moments[] = {
        {"at rest", "", "MAIL FROM:<alice@x.test>\r\n"},
        {"in a transaction", "MAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\n", "RSET\r\n"},
        {"in DATA", "MAIL FROM:<alice@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nFrom: alice@x.test\r\n\r\nhalf",
         "\r\n.\r\n"},
    };
    static const bool ends[N_CHANGES][3] = {
        {false, false, false}, {true, true, true},
        {true, true, true},    {false, true, true},  /* at rest it goes on, with the new senders */
        {false, true, true},   {true, false, false}, /* what is under way is the last */
    };

    (void)state;
    for (int change = 0; change < N_CHANGES; change++)
        for (size_t m = 0; m < sizeof moments / sizeof moments[0]; m++) {
            struct fake f;
            struct hky_user users[2];
            fake_init(&f, true, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            fake_send(&f, HKY_STR("EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"));
            fake_send(&f, hky_str_z(moments[m].in));
            memcpy(users, f.users, sizeof users);
            struct hky_policy policy = f.policy;
            struct hky_listen listen = f.listen;
            listen.users = users;
            if (change == LOGIN_GONE)
                users[0].name = "other";
            if (change == PASSWORD_CHANGED)
                users[0].password = (struct hky_secret_ref){.name = "newer"};
            if (change == SENDERS_CHANGED)
                users[0].senders = senders;
            if (change == SCENARIO_CHANGED)
                users[0].scenarios = winter;
            accept_session_take_policy(
                &f.session, &(struct accept_session_review){&policy, change != LISTENER_GONE ? &listen : NULL, false});
            if (f.is_closed != ends[change][m])
                fail_msg("%s, %s: %s", names[change], moments[m].what, hky_buf_z(&f.out));
            if (!f.is_closed) {
                fake_send(&f, hky_str_z(moments[m].then));
                if (change == LISTENER_GONE)
                    assert_true(f.is_closed);
                else
                    assert_ptr_equal(f.session.p.policy, m == 0 || f.session.tx.letter == NULL ? &policy : &f.policy);
                if (change == SENDERS_CHANGED)
                    assert_non_null(strstr(hky_buf_z(&f.out), "\r\n553 5.7.1 "));
            } else {
                assert_non_null(strstr(hky_buf_z(&f.out), "\r\n421 4."));
            }
            fake_fini(&f);
        }
}

/* A client that is believed for its address, and one that a listener without users takes from loopback. */
static void test_a_network_that_is_taken_away_ends_its_sessions(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fake f;
        bool is_loopback = i < 2, is_taken = i % 2 == 1;
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, is_loopback ? "127.0.0.1" : "192.0.2.1");
        f.session.p.is_allowed = !is_loopback;
        fake_send(&f, HKY_STR("EHLO t\r\n"));
        struct hky_listen listen = f.listen;
        if (is_loopback && is_taken) { /* it asks for a login now */
            listen.users = f.users;
            listen.n_users = 2;
        }
        accept_session_take_policy(&f.session,
                                   &(struct accept_session_review){&f.policy, &listen, !is_loopback && !is_taken});
        assert_int_equal(f.is_closed, is_taken);
        fake_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_is_told_of),
        cmocka_unit_test(test_a_new_policy_is_taken_over),
        cmocka_unit_test(test_a_network_that_is_taken_away_ends_its_sessions),
        cmocka_unit_test(test_who_may_send),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
