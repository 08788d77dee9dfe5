#include "base/helpers.h"

#include "base/clock.h"
#include "base/heap.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct piece {
    struct hky_help help;
    atomic_int *n_running, *n_most, *n_done;
    atomic_bool *is_open; /* runs until this is true; NULL: ends at once */
    const atomic_bool *is_ending;
};

static void run(struct hky_help *help)
{
    struct piece *p = HKY_CONTAINER(help, struct piece, help);
    int n = atomic_fetch_add(p->n_running, 1) + 1, most = atomic_load(p->n_most);

    while (n > most && !atomic_compare_exchange_weak(p->n_most, &most, n))
        continue;
    while (p->is_open != NULL && !atomic_load(p->is_open) && !atomic_load(p->is_ending))
        poll(NULL, 0, 1);
    atomic_fetch_sub(p->n_running, 1);
    atomic_fetch_add(p->n_done, 1);
}

static bool comes_to(atomic_int *n, int want)
{
    for (int64_t until = hky_mono_ms() + 20000; atomic_load(n) != want && hky_mono_ms() < until;)
        poll(NULL, 0, 1);
    return atomic_load(n) == want;
}

static void at_most_so_many_run_and_one_that_hangs_holds_up_no_other(void **state)
{
    struct hky_helpers *h = NULL;
    struct hky_error e;
    atomic_int n_running = 0, n_most = 0, n_done = 0;
    atomic_bool is_open = false;
    struct piece pieces[12];

    (void)state;
    assert_int_equal(hky_helpers_new(3, &h, &e), HKY_OK);
    for (int i = 0; i < 12; i++) {
        pieces[i] = (struct piece){
            {run, NULL}, &n_running, &n_most, &n_done, i < 2 ? &is_open : NULL, hky_helpers_are_ending(h)};
        hky_helpers_do(h, &pieces[i].help);
    }
    assert_true(comes_to(&n_done, 10)); /* beside the two that hang */
    assert_int_equal(atomic_load(&n_running), 2);
    for (int i = 2; i < 12; i++) { /* now all threads are taken */
        pieces[i].is_open = &is_open;
        hky_helpers_do(h, &pieces[i].help);
    }
    assert_true(comes_to(&n_running, 3));
    atomic_store(&is_open, true);
    assert_true(comes_to(&n_done, 22));
    assert_int_equal(atomic_load(&n_most), 3);
    hky_helpers_free(&h);
    assert_null(h);
    hky_helpers_free(&h);
}

static void what_has_not_begun_at_the_end_never_runs(void **state)
{
    struct hky_helpers *h = NULL;
    struct hky_error e;
    atomic_int n_running = 0, n_most = 0, n_done = 0;
    atomic_bool is_open = false;
    struct piece pieces[5];

    (void)state;
    assert_int_equal(hky_helpers_new(2, &h, &e), HKY_OK);
    for (int i = 0; i < 5; i++) {
        pieces[i] = (struct piece){{run, NULL}, &n_running, &n_most, &n_done, &is_open, hky_helpers_are_ending(h)};
        hky_helpers_do(h, &pieces[i].help);
    }
    assert_true(comes_to(&n_running, 2));
    hky_helpers_free(&h); /* those that run see it and give up */
    assert_int_equal(atomic_load(&n_done), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_most_so_many_run_and_one_that_hangs_holds_up_no_other),
        cmocka_unit_test(what_has_not_begun_at_the_end_never_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
