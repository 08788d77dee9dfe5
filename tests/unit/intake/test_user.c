/* What a login may use: senders and scenarios. */
#include "hikyaku/intake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void senders(void **state)
{
    static const struct {
        const char *entry, *address;
        bool may;
    } rows[] = {
        {"x.test", "a@x.test", true},
        {"x.test", "a@X.TEST", true},
        {"x.test", "a@evilx.test", false}, /* a domain is no ending */
        {"x.test", "a@evil.x.test", false},
        {"x.test", "a@x.test.evil", false},
        {"@x.test", "a@evilx.test", false},
        {"@x.test", "a@b.x.test", false},
        {".x.test", "a@b.x.test", true},
        {".x.test", "a@b.c.x.test", true},
        {".x.test", "a@x.test", false},
        {".x.test", "a@evilx.test", false},
        {".", "a@x.test", false},
        {"a@x.test", "a@x.test", true},
        {"a@x.test", "b@x.test", false},
        {"a@x.test", "ba@x.test", false},
        {"a@x.test", "a@evilx.test", false},
        {"*", "a@x.test", true},
        {"*x.test", "a@evilx.test", false}, /* "*" is a word of its own */
        {"", "a@x.test", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *list[] = {"other.test", rows[i].entry, NULL};
        struct hky_user user = {.name = "u", .senders = list};
        bool may = hky_user_may_send_as(&user, hky_str_z(rows[i].address));

        if (may != rows[i].may)
            fail_msg("%s as %s: %d", rows[i].entry, rows[i].address, may);
    }
    struct hky_user any = {.name = "u"};
    assert_true(hky_user_may_send_as(&any, HKY_STR("a@x.test")));
    assert_true(hky_user_may_send_as(NULL, HKY_STR("a@x.test")));
}

static void scenarios(void **state)
{
    static const char *const one[] = {"spring", NULL}, *const two[] = {"spring", "autumn", NULL},
                             *const all[] = {"*", NULL}, *const none[] = {NULL};
    static const struct {
        const char *const *may;
        const char *named, *out; /* NULL: refused */
    } rows[] = {
        {one, "", "spring"},
        {one, "spring", "spring"},
        {one, "Spring", NULL},
        {one, "spring ", NULL},
        {one, "sprin", NULL},
        {one, "springs", NULL},
        {two, "", ""},
        {two, "autumn", "autumn"},
        {two, "winter", NULL},
        {all, "", ""},
        {all, "winter", "winter"},
        {none, "", ""},
        {none, "winter", NULL},
        {NULL, "", ""},
        {NULL, "winter", "winter"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hky_user user = {.name = "u", .scenarios = rows[i].may};
        struct hky_refusal why = {0};
        struct hky_str out;
        bool is_good = hky_user_scenario(&user, hky_str_z(rows[i].named), &out, &why);

        if (is_good != (rows[i].out != NULL) || (is_good && !hky_str_eq(out, hky_str_z(rows[i].out))))
            fail_msg("row %zu: %d, \"%.*s\"", i, is_good, HKY_STR_ARG(out));
        assert_int_equal(why.code, is_good ? 0 : 550);
        if (!is_good)
            assert_string_equal(why.enhanced, "5.7.1");
    }
    struct hky_str out;
    struct hky_refusal why = {0};
    assert_true(hky_user_scenario(NULL, HKY_STR("winter"), &out, &why));
    assert_true(hky_str_eq(out, HKY_STR("winter")));
}

static void logins_are_found_at_any_listener(void **state)
{
    struct hky_user first[] = {{.name = "a"}, {.name = "b"}}, second[] = {{.name = "c"}};
    struct hky_listen listen[] = {{.users = first, .n_users = 2}, {.port = 25}, {.users = second, .n_users = 1}};
    struct hky_policy policy = {.engine = {.listen = listen, .n_listen = 3}};

    (void)state;
    assert_ptr_equal(hky_user_find(&policy, HKY_STR("b")), &first[1]);
    assert_ptr_equal(hky_user_find(&policy, HKY_STR("c")), &second[0]);
    assert_null(hky_user_find(&policy, HKY_STR("B")));
    assert_null(hky_user_find(&policy, HKY_STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(senders),
        cmocka_unit_test(scenarios),
        cmocka_unit_test(logins_are_found_at_any_listener),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
