/* What is learned of servers: who may overlap, one trial at a time, kept over restarts. */
#include "deliver/servers.h"

#include "base/clock.h"
#include "hikyaku/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define GREETING HKY_STR("mx.example ESMTP Postfix (Debian/GNU)")

static const int one, two; /* connections: only their addresses count */

static struct hky_server *get(struct hky_servers *s, const char *greeting)
{
    return hky_servers_get(s, "mx.example", 25, hky_str_z(greeting));
}

static void test_the_same_program_is_the_same_server(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool is_same;
    } rows[] = {
        {"mx.example ESMTP Postfix", "mx.example ESMTP Postfix", true},
        {"mx.example ESMTP Postfix", "mx.example ESMTP Exim", false},
        {"mx.example ESMTP Haraka/3.0.3 ready (9A1B2C)", "mx.example ESMTP Haraka/3.0.4 ready (7FFF01)", true},
        {"mx.example ESMTP Haraka ready (ABCDEF)", "mx.example ESMTP Haraka ready (FEDCBA)", true},
        {"x Microsoft ESMTP MAIL Service ready at Wed, 2 Dec 2026 10:00:00 +0000",
         "x Microsoft ESMTP MAIL Service ready at Fri, 1 Jan 2027 11:30:00 +0000", true},
        {"mx.example ESMTP d9443c01a7336-1f2sm12 - gsmtp", "mx.example ESMTP 5b1f17b1804b1-43sm9 - gsmtp", true},
    };
    struct hky_servers *s = hky_servers_new(NULL, &HKY_CLOCK_REAL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if ((get(s, rows[i].a) == get(s, rows[i].b)) != rows[i].is_same)
            fail_msg("%s | %s", rows[i].a, rows[i].b);
    assert_ptr_not_equal(hky_servers_get(s, "mx.example", 26, GREETING),
                         hky_servers_get(s, "mx.example", 25, GREETING));
    assert_ptr_not_equal(hky_servers_get(s, "my.example", 25, GREETING),
                         hky_servers_get(s, "mx.example", 25, GREETING));
    hky_servers_free(&s);
}

static void test_one_connection_tries(void **state)
{
    (void)state;
    struct hky_servers *s = hky_servers_new(NULL, &HKY_CLOCK_REAL);
    struct hky_server *x = get(s, "a");
    assert_true(hky_server_may_overlap(x, &one));
    assert_false(hky_server_may_overlap(x, &two));
    hky_server_on_in_step(x, &two); /* not the one that tries */
    hky_server_on_in_step(x, &one);
    assert_false(hky_server_may_overlap(x, &two));
    /* It ends without a verdict: another tries. */
    assert_false(hky_server_on_end(x, &one, HKY_SERVER_PARTED));
    assert_true(hky_server_may_overlap(x, &two));
    assert_false(hky_server_may_overlap(x, &one));
    for (int i = 0; i < 3; i++)
        hky_server_on_in_step(x, &two);
    assert_true(hky_server_may_overlap(x, &one));
    hky_servers_free(&s);
}

static void test_a_restart_is_forgiven_once(void **state)
{
    (void)state;
    struct hky_servers *s = hky_servers_new(NULL, &HKY_CLOCK_REAL);
    struct hky_server *x = get(s, "a");
    for (int round = 0; round < 2; round++) {
        assert_true(hky_server_may_overlap(x, &one));
        for (int i = 0; i < 3; i++)
            hky_server_on_in_step(x, &one);
        assert_true(hky_server_may_overlap(x, &two));
        /* All of its connections end at once. */
        assert_int_equal(hky_server_on_end(x, &one, HKY_SERVER_BROKE), round == 1);
        assert_false(hky_server_on_end(x, &two, HKY_SERVER_BROKE));
    }
    assert_false(hky_server_may_overlap(x, &one));
    hky_servers_free(&s);
}

#define DAY_MS INT64_C(86400000)

static void is_kept_until(int64_t forgotten_after_ms)
{
    char dir[] = "/tmp/hky-servers-XXXXXX", command[100];
    struct hky_clock clock = {0};
    struct hky_error e;
    assert_non_null(mkdtemp(dir));
    clock.stopped_at_ms = 500 * DAY_MS;
    for (int run = 0; run < 3; run++) {
        struct hky_state *kept;
        assert_int_equal(hky_state_open(dir, NULL, &kept, &e), HKY_OK);
        struct hky_servers *s = hky_servers_new(kept, &clock);
        struct hky_server *good = get(s, "good"), *bad = get(s, "bad");
        if (run == 0) {
            assert_true(hky_server_may_overlap(good, &one));
            for (int i = 0; i < 3; i++)
                hky_server_on_in_step(good, &one);
            assert_true(hky_server_may_overlap(bad, &one));
            assert_true(hky_server_on_end(bad, &one, HKY_SERVER_BROKE));
        } else {
            assert_true(hky_server_may_overlap(good, &one));
            assert_true(hky_server_may_overlap(good, &two));
            /* After a month the bad one may be another version: one connection tries. */
            assert_int_equal(hky_server_may_overlap(bad, &one), run == 2);
            assert_false(hky_server_may_overlap(bad, &two));
        }
        hky_servers_free(&s);
        hky_state_close(&kept);
        if (run == 1)
            clock.stopped_at_ms += forgotten_after_ms;
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void test_it_is_kept(void **state)
{
    (void)state;
    is_kept_until(31 * DAY_MS);
    is_kept_until(-400 * DAY_MS); /* the clock was set back: no wait is longer than it was to be */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_program_is_the_same_server),
        cmocka_unit_test(test_one_connection_tries),
        cmocka_unit_test(test_a_restart_is_forgiven_once),
        cmocka_unit_test(test_it_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
