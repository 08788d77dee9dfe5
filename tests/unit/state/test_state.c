/* What is put into state.db is there again after a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "hikyaku/state.h"

static char dir[64];

/* In front of those of the C library: SQLite calls these. */
static unsigned n_syncs;

int fdatasync(int fd)
{
    __atomic_add_fetch(&n_syncs, 1, __ATOMIC_SEQ_CST);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    __atomic_add_fetch(&n_syncs, 1, __ATOMIC_SEQ_CST);
    return (int)syscall(SYS_fsync, fd);
}

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

/* A token or a pause that was written survives a power cut. */
static void what_is_flushed_is_on_the_disk(void **state)
{
    struct hky_state *s = open_state();

    (void)state;
    for (int i = 0; i < 3; i++) {
        unsigned before = __atomic_load_n(&n_syncs, __ATOMIC_SEQ_CST);
        hky_state_put(s, "oauth", "gmail", i % 2 == 0 ? "one" : "two");
        hky_state_flush(s);
        assert_true(__atomic_load_n(&n_syncs, __ATOMIC_SEQ_CST) > before);
    }
    hky_state_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(state_survives_a_restart, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_is_flushed_is_on_the_disk, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
