#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/duration.h"

#include <string.h>

static void parsed(void **state)
{
    static const struct {
        const char *text;
        int64_t sec; /* -1: refused */
    } rows[] = {
        {"0", 0},
        {"90", 90},
        {"90s", 90},
        {"10m", 600},
        {"10min", 600},
        {"2h", 7200},
        {"3d", 259200},
        {"007h", 25200},
        {"4294967294", 4294967294},
        {"4294967295", -1},
        {"49710d", 4294944000},
        {"49711d", -1},
        {"99999999999999999999s", -1},
        {"", -1},
        {"s", -1},
        {"m10", -1},
        {"-1s", -1},
        {"+1s", -1},
        {" 1s", -1},
        {"1 s", -1},
        {"1s ", -1},
        {"1.5h", -1},
        {"1h30m", -1},
        {"1H", -1},
        {"1w", -1},
        {"1ms", -1},
        {"1mi", -1},
        {"1mins", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t sec = 7;
        bool is_good = hky_duration_parse(hky_str_z(rows[i].text), &sec);
        if (is_good != (rows[i].sec >= 0) || (is_good && sec != rows[i].sec) || (!is_good && sec != 7))
            fail_msg("\"%s\": %d %u", rows[i].text, is_good, sec);
    }
    uint32_t sec;
    assert_false(hky_duration_parse(hky_str_of("1s\0", 3), &sec));
}

static void printed(void **state)
{
    static const struct {
        int64_t sec;
        const char *exact, *rough;
    } rows[] = {
        {0, "0s", "0s"},         {59, "59s", "59s"},   {60, "1m", "60s"},       {90, "90s", "90s"},
        {119, "119s", "119s"},   {120, "2m", "2m"},    {600, "10m", "10m"},     {601, "11m", "10m"},
        {3600, "1h", "60m"},     {3601, "61m", "60m"}, {5400, "90m", "90m"},    {7199, "120m", "2h"},
        {7200, "2h", "2h"},      {86400, "1d", "24h"}, {172799, "2880m", "2d"}, {172800, "2d", "2d"},
        {259199, "4320m", "3d"}, {259200, "3d", "3d"}, {2592000, "30d", "30d"}, {-5, "-5s", "-5s"},
    };
    char text[HKY_DURATION_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_string_equal(hky_duration_format(rows[i].sec, text), rows[i].exact);
        assert_string_equal(hky_duration_rough(rows[i].sec, text), rows[i].rough);
    }
    hky_duration_rough(INT64_MAX / 2, text); /* fits */
    assert_true(strlen(hky_duration_format(INT64_MAX - 60, text)) < sizeof text);
}

/* What explain prints for a whole number of a unit can be typed into a policy. */
static void exact_ones_are_read_back(void **state)
{
    static const uint32_t units[] = {1, 60, 3600, 86400};
    char text[HKY_DURATION_TEXT];

    (void)state;
    for (size_t u = 0; u < 4; u++)
        for (uint32_t k = 1; k <= 600; k++) {
            uint32_t sec = 0;
            assert_true(hky_duration_parse(hky_str_z(hky_duration_format(k * units[u], text)), &sec));
            assert_int_equal(sec, k * units[u]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parsed), cmocka_unit_test(printed),
                                       cmocka_unit_test(exact_ones_are_read_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
