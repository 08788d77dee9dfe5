/* Rows: how they make one plan, and rows of a file. */
#include "fixture.h"

static void rows_chain_and_stop(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "route 'common' { priority = 50, to = 'c.example', via = 'own' }\n"
                         "rows {\n{ name = 'one', priority = 10, relay = 'a', to = { 'x.example', 'c.example' } },\n"
                         "{ name = 'two', priority = 20, relay = 'b', to = 'x.example', stop = true },\n"
                         "{ name = 'off', priority = 1, relay = 'b', to = '*', enabled = false },\n"
                         "{ name = 'mine', priority = 95, host = 'm.example', port = 25, to = '*' },\n"
                         "{ name = 'again', priority = 99, relay = 'a', to = '*' } }\n");
    struct hky_vm *vm = vm_of(p);

    (void)state;
    expect_decision(vm, &(struct mail){.to = "q@x.example"}, "one: a, b");
    expect_decision(vm, &(struct mail){.to = "q@c.example"}, "one: a, mine");
    expect_decision(vm, &(struct mail){.to = "q@z.example"}, "mine: mine, a");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void rows_of_a_file(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    struct hky_vm *vm;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua",
                 "matcher 'gold' (function(r) return r.message:header 'X-Rank' == 'gold' end)\nrows 'rows.json'");
    folder_write(&f, "rows.json",
                 "[ { \"name\": \"docomo\", \"priority\": 10, \"host\": \"h.example\", \"user\": \"u\",\n"
                 "\"password\": { \"secret\": \"row-docomo\" }, \"to\": \"@carriers.docomo\" },\n"
                 "{ \"name\": \"gold\", \"host\": \"g.example\", \"to\": \"*\", \"when\": \"gold\", \"stop\": true },\n"
                 "{ \"name\": \"rest\", \"priority\": 200, \"host\": \"r.example\", \"to\": \"*\" } ]");
    p = load_folder(&f, &problems);
    if (p == NULL)
        problems_print(&problems);
    assert_non_null(p);
    vm = vm_of(p);
    expect_decision(vm, &(struct mail){.to = "a@docomo.ne.jp"}, "docomo: docomo, rest");
    expect_decision(vm, &(struct mail){.to = "a@x.example", .header = "X-Rank: gold\r\n\r\n"}, "gold: gold");
    assert_string_equal(hky_policy_relay(p, HKY_STR("docomo"))->password.name, "row-docomo");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_chain_and_stop),
        cmocka_unit_test(rows_of_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
