/* Two workers decide by one policy while its lists change and other workers come and go. For ThreadSanitizer. */
#include "fixture.h"
#include "support/wait.h"

#include <pthread.h>

#define ROUNDS    2000
#define REFRESHES 40

struct worker {
    pthread_t thread;
    struct hky_policy *policy;
    unsigned n_vip, n_rest;
    char problem[240]; /* of the first mail that was not decided */
};

static void *decide_on(void *arg)
{
    struct worker *w = arg;
    struct hky_vm *vm = vm_of(w->policy);

    for (int i = 0; i < ROUNDS; i++) {
        struct hky_decision d;
        decide(vm, &(struct mail){.to = i % 2 ? "a@one.example" : "a@two.example", .tag = "x"}, &d);
        if (d.kind != HKY_DECIDED) {
            snprintf(w->problem, sizeof w->problem, "mail %d: kind %d: %s", i, (int)d.kind, d.text);
            decision_fini(&d);
            break;
        }
        if (strcmp(d.plan->route, "vip") == 0)
            w->n_vip++;
        else
            w->n_rest++;
        decision_fini(&d);
    }
    hky_vm_free(&vm);
    return NULL;
}

static void workers_decide_while_lists_change(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_lists_news news;
    struct worker workers[2] = {0};
    struct hky_policy *p;
    unsigned n_changed = 0;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua",
                 RELAYS "local vip = list 'vip.txt'\n"
                        "route 'vip'  { priority = 1, to = vip, via = { 'a', 'b' } }\n"
                        "route 'ab'   { priority = 2, to = '*', tag = 'y', via = split 's' { { arm = 'x', share = 100, "
                        "via = 'a' } } }\n"
                        "route 'rest' { to = '*', via = function(r) if vip:has(r.address) then return 'a' end return { "
                        "'b', 'own' } end }\n");
    folder_write(&f, "vip.txt", "one.example\n");
    p = load_folder(&f, &problems);
    if (p == NULL)
        problems_print(&problems);
    assert_non_null(p);
    for (int i = 0; i < 2; i++) {
        workers[i].policy = p;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, decide_on, &workers[i]), 0);
    }
    for (int i = 0; i < REFRESHES; i++) {
        char text[400];
        int n = snprintf(text, sizeof text, "%s.example\n", i % 2 ? "one" : "two");
        for (int k = 0; k <= i % 7; k++) /* another size: the clock of a file system may be coarse */
            n += snprintf(text + n, sizeof text - (size_t)n, "more%d.example\n", k);
        folder_write(&f, "vip.txt", text);
        lists_settle(p, &news);
        n_changed += news.n_taken;
        let_pass(2000, "the other threads decide between two changes of the list");
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_string_equal(workers[i].problem, "");
        assert_int_equal(workers[i].n_vip + workers[i].n_rest, ROUNDS);
    }
    assert_true(n_changed > REFRESHES / 2);
    assert_true(workers[0].n_vip > 0 && workers[0].n_rest > 0);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(workers_decide_while_lists_change)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
