#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void memory_is_given_back_once_behind_a_burst(void **state)
{
    struct hky_lull l = {0};
    uint64_t done = 0;

    (void)state;
    for (int i = 0; i < 20; i++) /* nothing was ever done */
        assert_false(hky_lull_has_come(&l, done));
    for (int i = 0; i < 20; i++) /* busy */
        assert_false(hky_lull_has_come(&l, done += 1000));
    for (int i = 0; i < HKY_LULL_TICKS - 1; i++) /* a trickle is as good as nothing */
        assert_false(hky_lull_has_come(&l, done += 2));
    assert_true(hky_lull_has_come(&l, done));
    for (int i = 0; i < 20; i++)
        assert_false(hky_lull_has_come(&l, done));
    assert_false(hky_lull_has_come(&l, done += 500)); /* the next one, with a pause that is too short */
    for (int i = 0; i < HKY_LULL_TICKS - 1; i++)
        assert_false(hky_lull_has_come(&l, done));
    assert_false(hky_lull_has_come(&l, done += 500));
    for (int i = 0; i < HKY_LULL_TICKS - 1; i++)
        assert_false(hky_lull_has_come(&l, done));
    assert_true(hky_lull_has_come(&l, done));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_given_back_once_behind_a_burst)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
