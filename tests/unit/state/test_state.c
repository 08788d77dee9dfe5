/* What is put into state.db is there again after a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hikyaku/state.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hikyaku-state-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static struct hky_state *open_state(void)
{
    struct hky_state *s;
    struct hky_error e;

    assert_int_equal(hky_state_open(dir, NULL, &s, &e), HKY_OK);
    return s;
}

static void count_one(void *ctx, const char *key, const char *value)
{
    (void)key;
    (void)value;
    ++*(int *)ctx;
}

static void state_survives_a_restart(void **state)
{
    struct hky_state *s = open_state();
    char *value;
    int n = 0;

    (void)state;
    hky_state_put(s, "paused", "gmail", "0 ");
    hky_state_put(s, "paused", "ses", "5 ");
    hky_state_put(s, "oauth", "gmail", "token");
    hky_state_put(s, "paused", "ses", NULL);
    hky_state_close(&s);
    s = open_state();
    value = hky_state_get(s, "paused", "gmail");
    assert_string_equal(value, "0 ");
    free(value);
    assert_null(hky_state_get(s, "paused", "ses"));
    hky_state_each(s, "paused", count_one, &n);
    assert_int_equal(n, 1);
    hky_state_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(state_survives_a_restart, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
