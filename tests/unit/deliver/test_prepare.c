/* What is done before MAIL, by another thread: slow, failing, and with a connection that ends meanwhile. */
#include "unit/deliver/harness.h"

static void test_no_mail_before_it_is_ready(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN "QUIET\n" GROUP("0") YES "S: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.holds_reads = true;
    add(&f, 1);
    run_until_held(&f);
    run_for(&f, 300); /* the server is connected to and sees that nothing comes */
    assert_int_equal(f.n_done, 0);
    assert_int_equal(f.n_reads, 1);
    release_read(&f, HKY_OK);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.n_reads, 1); /* what was prepared is what was sent */
    finish(&f, &s);
    s.body[s.n_body] = '\0';
    assert_non_null(strstr(s.body, "Subject: 0\n"));
}

static void test_what_cannot_be_prepared_costs_no_mail(void **state)
{
    (void)state;
    for (int is_at_once = 0; is_at_once < 2; is_at_once++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\n" GROUP("2") YES "S: 250 ok\nEOF\n", NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        add(&f, 1);
        run_until(&f, 1);
        f.holds_reads = !is_at_once;
        f.read_result = is_at_once ? HKY_E_DAMAGED : HKY_OK;
        add(&f, 1);
        if (!is_at_once) {
            run_until_held(&f);
            release_read(&f, HKY_E_DAMAGED);
        }
        run_until(&f, 2);
        assert_int_equal(f.outcomes[1][0].reply.origin, HKY_ORIGIN_SPOOL);
        assert_int_equal(f.outcomes[1][0].stage, HKY_STAGE_DATA);
        assert_false(f.mail_sent[1]);
        f.holds_reads = false;
        f.read_result = HKY_OK;
        add(&f, 1); /* the connection is as good as before */
        run_until(&f, 3);
        assert_int_equal(f.outcomes[2][0].class, HKY_CLASS_OK);
        finish(&f, &s);
        assert_int_equal(s.n_accepted, 1);
    }
}

/* Its message goes by the next connection, uncounted; the late answer finds nobody. */
static void test_the_connection_ends_meanwhile(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\nPAUSE\nPAUSE\nS: 421 idle\nCLOSE\n",
                             OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
    one(&f, &s, scripts, 1, 1);
    f.holds_reads = true;
    add(&f, 1);
    run_until_held(&f);
    struct hky_body_read *late = f.held;
    f.holds_reads = false; /* for the next connection */
    f.held = NULL;
    run_until(&f, 2);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    assert_int_equal(f.n_back, 1);
    assert_int_equal(f.n_mails, 2);
    f.held = late;
    release_read(&f, HKY_OK);
    finish(&f, &s);
}

static void test_no_connection_comes_about_meanwhile(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 421 busy\nCLOSE\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.holds_reads = true;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].reply.code, 421);
    assert_false(f.mail_sent[0]);
    release_read(&f, HKY_OK);
    finish(&f, &s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_mail_before_it_is_ready),
        cmocka_unit_test(test_what_cannot_be_prepared_costs_no_mail),
        cmocka_unit_test(test_the_connection_ends_meanwhile),
        cmocka_unit_test(test_no_connection_comes_about_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
