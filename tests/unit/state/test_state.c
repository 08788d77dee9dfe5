/* What is put into state.db is there again after a restart. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "hikyaku/state.h"
#include "support/wait.h"
#include "support/scratch.h"

static char dir[64];

/* In front of those of the C library: SQLite calls these. */
static unsigned n_syncs;
static bool is_disk_bad;

static int sync_or_fail(long call, int fd)
{
    __atomic_add_fetch(&n_syncs, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&is_disk_bad, __ATOMIC_SEQ_CST)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fdatasync(int fd)
{
    return sync_or_fail(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_or_fail(SYS_fsync, fd);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/hikyaku-state-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return scratch_remove(dir);
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

/* A token or a pause that was written survives a power cut: who is told of it may rely on that. */
static void count_syncs(void *ctx, bool is_on_disk)
{
    assert_true(is_on_disk);
    __atomic_store_n((unsigned *)ctx, __atomic_load_n(&n_syncs, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
}

static void what_is_told_is_on_the_disk(void **state)
{
    struct hky_state *s = open_state();

    (void)state;
    for (int i = 0; i < 3; i++) {
        unsigned before = __atomic_load_n(&n_syncs, __ATOMIC_SEQ_CST), when_told = before;

        hky_state_put(s, "oauth", "gmail", i % 2 == 0 ? "one" : "two");
        hky_state_when_written(s, count_syncs, &when_told);
        wait_until(__atomic_load_n(&when_told, __ATOMIC_SEQ_CST) > before);
    }
    hky_state_close(&s);
}

/* What the file says at that moment, seen by another connection. */
struct seen {
    int n_called, n_rows;
};

static void look(void *ctx, bool is_on_disk)
{
    assert_true(is_on_disk);
    struct seen *seen = ctx;
    char command[160];

    seen->n_called++;
    snprintf(command, sizeof command, "grep -aq 'value-of-%d' %s/state.db*", seen->n_called, dir);
    seen->n_rows += system(command) == 0;
}

static void who_asks_is_told_when_it_is_written(void **state)
{
    struct hky_state *s = open_state();
    struct seen seen = {0};

    (void)state;
    hky_state_put(s, "paused", "a", "value-of-1");
    hky_state_when_written(s, look, &seen);
    hky_state_put(s, "paused", "b", "value-of-2");
    hky_state_when_written(s, look, &seen);
    hky_state_when_written(s, look, &seen); /* with nothing put: at once; and value-of-3 is nowhere */
    hky_state_close(&s);
    assert_int_equal(seen.n_called, 3);
    assert_int_equal(seen.n_rows, 2);
}

/* Who asks while the disk fails is told so, and does not wait for it; what failed is written later, the newest value of
 * each name. */
enum { NOT_TOLD, NOT_WRITTEN, WRITTEN };

static void note(void *ctx, bool is_on_disk)
{
    __atomic_store_n((int *)ctx, is_on_disk ? WRITTEN : NOT_WRITTEN, __ATOMIC_SEQ_CST);
}

static int ask(struct hky_state *s)
{
    int told = NOT_TOLD;

    hky_state_when_written(s, note, &told);
    wait_until(__atomic_load_n(&told, __ATOMIC_SEQ_CST) != NOT_TOLD);
    return told;
}

static void set_disk_bad(bool is_bad)
{
    __atomic_store_n(&is_disk_bad, is_bad, __ATOMIC_SEQ_CST);
}

static void check_value(struct hky_state *s, const char *key, const char *wanted)
{
    char *value = hky_state_get(s, "paused", key);

    if (wanted == NULL)
        assert_null(value);
    else
        assert_string_equal(value, wanted);
    free(value);
}

static void a_failing_disk_is_told_and_tried_again(void **state)
{
    struct hky_state *s = open_state();

    (void)state;
    hky_state_put(s, "paused", "gone", "0 ");
    assert_int_equal(ask(s), WRITTEN);
    set_disk_bad(true);
    hky_state_put(s, "paused", "a", "1 ");
    assert_int_equal(ask(s), NOT_WRITTEN);
    hky_state_put(s, "paused", "a", "2 ");
    hky_state_put(s, "paused", "gone", NULL);
    assert_int_equal(ask(s), NOT_WRITTEN);
    set_disk_bad(false);
    hky_state_put(s, "paused", "b", "3 ");
    wait_until(ask(s) == WRITTEN); /* without a further change of "a" */
    hky_state_close(&s);
    s = open_state();
    check_value(s, "a", "2 ");
    check_value(s, "b", "3 ");
    check_value(s, "gone", NULL);
    set_disk_bad(true);
    hky_state_put(s, "paused", "a", "4 ");
    assert_int_equal(ask(s), NOT_WRITTEN);
    hky_state_close(&s); /* comes to an end, whatever the disk does */
    set_disk_bad(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failing_disk_is_told_and_tried_again, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(state_survives_a_restart, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_is_told_is_on_the_disk, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(who_asks_is_told_when_it_is_written, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
