#include "fake.h"

#include <gsasl.h>

#define GREETED "EHLO t\r\n"

static struct accept_sasl *sasl;

/* alice's password is "secret", bob's "hunter2". */
static const struct {
    const char *name;
    struct hky_str wire;
    const char *codes;
    const char *user; /* logged in as, NULL nobody */
} cases[] = {
    {"PLAIN at once", HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nNOOP\r\n"), "220 250 235 250", "alice"},
    {"PLAIN after a challenge", HKY_STR(GREETED "AUTH PLAIN\r\nAGFsaWNlAHNlY3JldA==\r\n"), "220 250 334 235", "alice"},
    {"PLAIN, authzid the same", HKY_STR(GREETED "AUTH PLAIN YWxpY2UAYWxpY2UAc2VjcmV0\r\n"), "220 250 235", "alice"},
    {"PLAIN for another", HKY_STR(GREETED "AUTH PLAIN Ym9iAGFsaWNlAHNlY3JldA==\r\n"), "220 250 535", NULL},
    {"PLAIN, wrong password", HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHdyb25n\r\n"), "220 250 535", NULL},
    {"PLAIN, unknown user with a known one's password", HKY_STR(GREETED "AUTH PLAIN AG5vYm9keQBzZWNyZXQ=\r\n"),
     "220 250 535", NULL},
    {"LOGIN", HKY_STR(GREETED "AUTH LOGIN\r\nYm9i\r\naHVudGVyMg==\r\n"), "220 250 334 334 235", "bob"},
    {"LOGIN with the name at once", HKY_STR(GREETED "AUTH LOGIN Ym9i\r\naHVudGVyMg==\r\n"), "220 250 334 235", "bob"},
    {"LOGIN, wrong password", HKY_STR(GREETED "AUTH LOGIN Ym9i\r\nc2VjcmV0\r\n"), "220 250 334 535", NULL},
    {"L11 STARTTLS inside a dialogue", HKY_STR(GREETED "AUTH LOGIN\r\nSTARTTLS\r\nNOOP\r\n"), "220 250 334 501 250",
     NULL},
    {"cancelled", HKY_STR(GREETED "AUTH LOGIN\r\n*\r\nNOOP\r\n"), "220 250 334 501 250", NULL},
    {"L14 an empty response", HKY_STR(GREETED "AUTH PLAIN =\r\n"), "220 250 501", NULL},
    {"L14 base64 without padding", HKY_STR(GREETED "AUTH PLAIN AGE\r\n"), "220 250 501", NULL},
    {"L14 4n+1", HKY_STR(GREETED "AUTH PLAIN AAAAA\r\n"), "220 250 501", NULL},
    {"L14 no NULs", HKY_STR(GREETED "AUTH PLAIN YQ==\r\n"), "220 250 501", NULL},
    {"L14 only NULs", HKY_STR(GREETED "AUTH PLAIN AAA=\r\n"), "220 250 501", NULL},
    {"L14 control octets in the name", HKY_STR(GREETED "AUTH PLAIN AGENCgBw\r\n"), "220 250 501", NULL},
    {"L14 an unknown mechanism", HKY_STR(GREETED "AUTH FOO\r\n"), "220 250 504", NULL},
    {"SCRAM: not a message", HKY_STR(GREETED "AUTH SCRAM-SHA-256 YQ==\r\n"), "220 250 501", NULL},
    {"three wrong ones close", HKY_STR(GREETED "AUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGEAYg==\r\nAUTH PLAIN AGEAYg==\r\n"),
     "220 250 535 535 535 421", NULL},
    {"twice", HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"),
     "220 250 235 503", "alice"},
    {"L47 another's address", HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<bob@x.test>\r\n"),
     "220 250 235 553", "alice"},
    {"an address of an allowed domain",
     HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<q@Shop.test>\r\n"), "220 250 235 250", "alice"},
};

static void test_dialogues(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t at = 0; at <= cases[i].wire.n; at++) {
            struct fake f;
            char codes[256];

            fake_init(&f, true, HKY_LISTEN_PLAIN, sasl, "127.0.0.1");
            fake_send_cut(&f, cases[i].wire, at);
            const char *user = f.session.user != NULL ? f.session.user->name : NULL;
            if (strcmp(fake_codes(&f, codes, sizeof codes), cases[i].codes) != 0 ||
                (user == NULL) != (cases[i].user == NULL) || (user != NULL && strcmp(user, cases[i].user) != 0))
                fail_msg("%s, cut at %zu: \"%s\", user %s", cases[i].name, at, codes, user != NULL ? user : "none");
            assert_null(strstr(f.noted, "secret"));
            fake_fini(&f);
        }
}

static void test_endless_response(void **state)
{
    struct fake f;
    char codes[64], line[4000];

    (void)state;
    memset(line, 'A', sizeof line);
    fake_init(&f, true, HKY_LISTEN_PLAIN, sasl, "127.0.0.1");
    fake_send(&f, HKY_STR(GREETED "AUTH PLAIN\r\n"));
    fake_send(&f, hky_str_of(line, sizeof line));
    fake_send(&f, HKY_STR("\r\nNOOP\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 334 501 250");
    fake_fini(&f);
}

/* L13: without TLS, from elsewhere, AUTH is neither offered nor taken, and what was sent is not repeated. */
static void test_only_over_tls(void **state)
{
    struct fake f;

    (void)state;
    fake_init(&f, true, HKY_LISTEN_STARTTLS, sasl, "192.0.2.1");
    fake_send(&f, HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"));
    assert_null(strstr(hky_buf_z(&f.out), "250-AUTH"));
    assert_non_null(strstr(hky_buf_z(&f.out), "250-STARTTLS"));
    assert_non_null(strstr(hky_buf_z(&f.out), "538 5.7.11"));
    assert_null(strstr(hky_buf_z(&f.out), "AGFs"));
    hky_buf_clear(&f.out);
    fake_send(&f, HKY_STR("STARTTLS\r\n"));
    fake_send(&f, HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<alice@x.test>\r\n"));
    assert_non_null(strstr(hky_buf_z(&f.out), "250-AUTH PLAIN LOGIN SCRAM-SHA-256"));
    assert_non_null(strstr(hky_buf_z(&f.out), "235 2.7.0"));
    assert_null(strstr(hky_buf_z(&f.out), "250-STARTTLS"));
    assert_int_equal(f.session.state, HKY_SESSION_MAIL);
    fake_fini(&f);
}

/* A header From the login may not use is refused as the envelope sender would be. */
static void test_author_of_login(void **state)
{
    static const struct {
        const char *name, *header;
        bool is_taken;
    } authors[] = {{"own address", "From: Alice <Alice@x.test>\r\n\r\n", true},
                   {"own domain", "From: news@shop.test\r\n\r\n", true},
                   {"another's", "From: bob@x.test\r\n\r\n", false},
                   {"two From fields", "From: alice@x.test\r\nFrom: bob@x.test\r\n\r\n", false},
                   {"two authors", "From: alice@x.test, bob@x.test\r\n\r\n", false},
                   {"none", "Subject: x\r\n\r\n", false}};

    (void)state;
    for (size_t i = 0; i < sizeof authors / sizeof authors[0]; i++) {
        struct fake f;

        fake_init(&f, true, HKY_LISTEN_PLAIN, sasl, "127.0.0.1");
        fake_send(&f, HKY_STR(GREETED "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<alice@x.test>\r\n"
                                      "RCPT TO:<b@y.test>\r\nDATA\r\n"));
        fake_send(&f, hky_str_z(authors[i].header));
        fake_send(&f, HKY_STR("x\r\n.\r\n"));
        if ((f.n_messages == 1) != authors[i].is_taken)
            fail_msg("%s: %u messages, refused \"%s\"", authors[i].name, f.n_messages, f.refused);
        fake_fini(&f);
    }
}

static void send_base64(struct fake *f, const char *before, struct hky_str data)
{
    struct hky_buf line;

    hky_buf_init(&line, 8192);
    hky_buf_add_z(&line, before);
    hky_buf_add_base64(&line, data);
    hky_buf_add_z(&line, "\r\n");
    hky_buf_clear(&f->out);
    fake_send(f, hky_buf_str(&line));
    hky_buf_fini(&line);
}

/* The client's side is GNU SASL's; what ends the dialogue is returned. */
static int scram(struct fake *f, Gsasl *client, const char *user, const char *password)
{
    Gsasl_session *c;
    struct hky_buf challenge;
    char *out = NULL;
    size_t n = 0;

    hky_buf_init(&challenge, 8192);
    assert_int_equal(gsasl_client_start(client, "SCRAM-SHA-256", &c), GSASL_OK);
    gsasl_property_set(c, GSASL_AUTHID, user);
    gsasl_property_set(c, GSASL_PASSWORD, password);
    assert_int_equal(gsasl_step(c, NULL, 0, &out, &n), GSASL_NEEDS_MORE);
    send_base64(f, "AUTH SCRAM-SHA-256 ", hky_str_of(out, n));
    gsasl_free(out);
    for (int i = 0; i < 2 && strncmp(hky_buf_z(&f->out), "334 ", 4) == 0; i++) {
        hky_buf_clear(&challenge);
        assert_true(hky_base64_decode(hky_str_trim(hky_str_of(f->out.p + 4, f->out.n - 4)), &challenge));
        int rc = gsasl_step(c, challenge.p, challenge.n, &out, &n);
        assert_int_equal(rc, i == 0 ? GSASL_NEEDS_MORE : GSASL_OK);
        send_base64(f, "", hky_str_of(out, n));
        gsasl_free(out);
    }
    gsasl_finish(c);
    hky_buf_fini(&challenge);
    return atoi(hky_buf_z(&f->out));
}

static void test_scram(void **state)
{
    static const struct {
        const char *user, *password;
        int code;
    } logins[] = {{"alice", "secret", 235},
                  {"bob", "hunter2", 235},
                  {"alice", "hunter2", 535},
                  {"nobody", "secret", 535},
                  {"bob", "secret", 535}};
    Gsasl *client;

    (void)state;
    assert_int_equal(gsasl_init(&client), GSASL_OK);
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        struct fake f;

        fake_init(&f, true, HKY_LISTEN_PLAIN, sasl, "127.0.0.1");
        fake_send(&f, HKY_STR(GREETED));
        int code = scram(&f, client, logins[i].user, logins[i].password);
        if (code != logins[i].code)
            fail_msg("%s with %s: %d", logins[i].user, logins[i].password, code);
        fake_fini(&f);
    }
    gsasl_done(client);
}

static void test_a_refusal_is_kept_back(void **state)
{
    static const char wrong[] = "AUTH PLAIN AGFsaWNlAHdyb25n\r\nNOOP\r\n";
    struct fake f;

    (void)state;
    fake_init(&f, true, HKY_LISTEN_PLAIN, sasl, "127.0.0.1");
    fake_send(&f, HKY_STR(GREETED));
    size_t used = accept_session_input(&f.session, wrong, sizeof wrong - 1), said = f.out.n;
    accept_session_on_secret(&f.session, hky_secret_new(HKY_STR("secret")));
    assert_int_equal(f.session.waits, HKY_WAIT_PENALTY);
    assert_int_equal(accept_session_input(&f.session, wrong + used, sizeof wrong - 1 - used), 0);
    assert_int_equal(f.out.n, said);
    accept_session_resume(&f.session, HKY_WAIT_PENALTY);
    assert_memory_equal(f.out.p + said, "535 5.7.8", 9);
    assert_int_equal(accept_session_input(&f.session, wrong + used, sizeof wrong - 1 - used), 6);
    f.has_secret_request = false;
    fake_fini(&f);
}

static int setup(void **state)
{
    (void)state;
    sasl = accept_sasl_new();
    return sasl == NULL;
}

static int teardown(void **state)
{
    (void)state;
    accept_sasl_free(&sasl);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialogues),     cmocka_unit_test(test_endless_response),
        cmocka_unit_test(test_only_over_tls), cmocka_unit_test(test_author_of_login),
        cmocka_unit_test(test_scram),         cmocka_unit_test(test_a_refusal_is_kept_back),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
