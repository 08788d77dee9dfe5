/* The eleven policies: which load, and what those that do not load say. */
#include "fixture.h"

static const struct {
    const char *file;
    const char *missing; /* NULL: loads */
} policies[] = {
    {"01_myasp_table.lua", NULL},
    {"02_carrier_fallback.lua", "limit is not available in this version"},
    {"03_ab_two_relays.lua", NULL},
    {"04_resend_not_opened.lua", "resend is not available in this version"},
    {"05_own_then_relay.lua", NULL},
    {"06_rental_spill.lua", NULL},
    {"07_from_rewrite.lua", NULL},
    {"08_account_per_scenario.lua", NULL},
    {"09_night.lua", "limit is not available in this version"},
    {"10_warmup.lua", NULL},
    {"11_drain.lua", NULL},
};

static struct hky_policy *load(const char *file, struct hky_problems *problems)
{
    static const char *const env[] = {NULL};
    char path[400];

    snprintf(path, sizeof path, "%s/tests/policy/%s", HKY_SOURCE_DIR, file);
    return load_file(path, env, problems);
}

static void policies_load_or_say_what_is_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        struct hky_problems problems = {0};
        struct hky_policy *p = load(policies[i].file, &problems);
        if ((p != NULL) != (policies[i].missing == NULL)) {
            problems_print(&problems);
            fail_msg("%s: loaded %d", policies[i].file, p != NULL);
        }
        if (p == NULL) {
            assert_int_equal(problems.n_errors, 1);
            assert_string_equal(problems.items[0].text, policies[i].missing);
            assert_string_equal(problems.items[0].place.file, policies[i].file);
            assert_true(problems.items[0].place.line > 0);
        } else {
            struct hky_vm *vm = vm_of(p);
            hky_vm_free(&vm);
        }
        hky_problems_fini(&problems);
        hky_policy_unref(&p);
    }
}

static void rows_make_one_plan_in_order(void **state)
{
    struct hky_problems problems = {0};
    struct hky_policy *p = load("01_myasp_table.lua", &problems);
    struct hky_vm *vm = vm_of(p);
    const struct hky_relay *gmail;

    (void)state;
    expect_decision(vm, &(struct mail){.to = "taro@docomo.ne.jp"}, "docomo: docomo, sendgrid, rental");
    expect_decision(vm, &(struct mail){.to = "a@example.com"}, "sendgrid: sendgrid, rental");
    expect_decision(vm, &(struct mail){.to = "a@gmail.com"}, "gmail: gmail, sendgrid, rental");
    expect_decision(vm, &(struct mail){.to = "a@example.com", .scenario = "spring"},
                    "spring gmail: gmail, sendgrid, rental");
    expect_decision(vm, &(struct mail){.to = "a@i.softbank.jp", .scenario = "spring"},
                    "spring softbank: softbank, gmail, sendgrid, rental");
    expect_decision(vm, &(struct mail){.to = "a@docomo.ne.jp", .author = "shop@gmail.com"},
                    "as gmail: gmail, docomo, sendgrid, rental");
    gmail = hky_policy_relay(p, HKY_STR("gmail"));
    assert_non_null(gmail);
    assert_int_equal(gmail->auth, HKY_AUTH_LOGIN);
    assert_string_equal(gmail->account, "shop@gmail.com@smtp.gmail.com:465");
    assert_null(hky_policy_relay(p, HKY_STR("spring gmail")));
    assert_null(hky_policy_relay(p, HKY_STR("old server")));
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
}

static void scenario_policy_decides(void **state)
{
    struct hky_problems problems = {0};
    struct hky_policy *p = load("08_account_per_scenario.lua", &problems);
    struct hky_vm *vm = vm_of(p);

    (void)state;
    expect_decision(vm, &(struct mail){.to = "a@x.example", .scenario = "spring"}, "spring: shop-a, ses");
    expect_decision(vm, &(struct mail){.to = "a@x.example", .scenario = "summer"}, "autumn: shop-b, ses");
    expect_decision(vm, &(struct mail){.to = "a@x.example", .scenario = "spring", .tag = "urgent"},
                    "urgent: ses, shop-a");
    expect_decision(vm, &(struct mail){.to = "a@x.example"}, "rest: ses");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
}

static unsigned arm_share(struct hky_vm *vm, const char *experiment, const char *arm, int64_t now_ms, char chosen[2000])
{
    unsigned n = 0;

    for (int i = 0; i < 2000; i++) {
        char to[40], expected[80];
        struct hky_decision d;
        struct hky_message *m;
        struct hky_route_query q;
        snprintf(to, sizeof to, i % 2 ? "u%d@example.com" : "U%d@example.com", i);
        m = message_of(&(struct mail){.to = to});
        q = (struct hky_route_query){m, &m->recipients[0], {NULL, 0}, now_ms};
        hky_route_decide(vm, &q, &d);
        assert_int_equal(d.kind, HKY_DECIDED);
        snprintf(expected, sizeof expected, "%s", experiment);
        assert_string_equal(d.arms, expected);
        chosen[i] = strcmp(d.arms + strlen(d.arms) + 1, arm) == 0;
        n += (unsigned)chosen[i];
        decision_fini(&d);
        hky_message_unref(&m);
    }
    return n;
}

static void split_halves_and_stays(void **state)
{
    struct hky_problems problems = {0};
    struct hky_policy *p = load("03_ab_two_relays.lua", &problems);
    struct hky_vm *vm = vm_of(p);
    char first[2000], again[2000];
    unsigned n = arm_share(vm, "own-or-gmail", "own", NOW_MS, first);

    (void)state;
    assert_in_range(n, 900, 1100);
    arm_share(vm, "own-or-gmail", "own", NOW_MS + 86400000, again);
    assert_memory_equal(first, again, sizeof first);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
}

static void ramp_grows_by_day_and_keeps_who_was_in(void **state)
{
    static const struct {
        int day; /* from 2026-12-01 */
        unsigned share;
    } days[] = {{-1, 0}, {0, 5}, {1, 10}, {3, 40}, {5, 100}, {90, 100}};
    struct hky_problems problems = {0};
    struct hky_policy *p = load("10_warmup.lua", &problems);
    struct hky_vm *vm = vm_of(p);
    char before[2000] = {0}, now[2000];

    (void)state;
    for (size_t i = 0; i < sizeof days / sizeof days[0]; i++) {
        unsigned n = arm_share(vm, "warm-2026", "new", NOW_MS + (days[i].day * 24 + 12) * INT64_C(3600000), now);
        assert_in_range(n + 60, days[i].share * 20, days[i].share * 20 + 120);
        for (int k = 0; k < 2000; k++)
            assert_true(now[k] >= before[k]);
        memcpy(before, now, sizeof before);
    }
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
}

static void recorded_arm_wins(void **state)
{
    struct hky_problems problems = {0};
    struct hky_policy *p = load("03_ab_two_relays.lua", &problems);
    struct hky_vm *vm = vm_of(p);
    static const char *const arms[] = {"own", "gmail"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct hky_message *m = message_of(&(struct mail){.to = "a@example.com"});
        struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
        struct hky_decision d;
        char packed[64];
        int n = snprintf(packed, sizeof packed, "own-or-gmail%c%s%c", 0, arms[i], 0);
        m->recipients[0].arms = hky_alloc((size_t)n);
        memcpy(m->recipients[0].arms, packed, (size_t)n);
        m->recipients[0].arms_n = (uint32_t)n;
        hky_route_decide(vm, &q, &d);
        assert_string_equal(d.plan->steps[0].relay, arms[i]);
        decision_fini(&d);
        hky_message_unref(&m);
    }
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_load_or_say_what_is_missing),
        cmocka_unit_test(rows_make_one_plan_in_order),
        cmocka_unit_test(scenario_policy_decides),
        cmocka_unit_test(split_halves_and_stays),
        cmocka_unit_test(ramp_grows_by_day_and_keeps_who_was_in),
        cmocka_unit_test(recorded_arm_wins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
