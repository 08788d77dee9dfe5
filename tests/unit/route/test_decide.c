/* Which route decides: every kind of condition, the order, and what is read for it. */
#include "fixture.h"

static const char conditions[] = RELAYS
    "local vip = list 'vip.txt'\n"
    "route 'address'   { priority = 1, to = 'Boss@Shop.example', via = 'a' }\n"
    "route 'list'      { priority = 2, to = vip, via = 'a' }\n"
    "route 'set'       { priority = 3, to = carriers.docomo, except = 'ng@docomo.ne.jp', via = 'a' }\n"
    "route 'subdomain' { priority = 4, to = '.sub.example', via = 'a' }\n"
    "route 'table'     { priority = 5, to = { 'x.example', 'y@z.example', '.w.example' }, via = 'a' }\n"
    "route 'null'      { priority = 6, to = '*', sender = '<>', via = 'a' }\n"
    "route 'sender'    { priority = 7, to = '*', sender = 'bounce.example', via = 'a' }\n"
    "route 'author'    { priority = 8, to = '*', author = domains.freemail, via = 'a' }\n"
    "route 'tag'       { priority = 9, to = '*', tag = { 'urgent', 'now' }, via = 'a' }\n"
    "route 'header'    { priority = 10, to = '*', header = { ['X-Rank'] = 'GOLD*' }, via = 'a' }\n"
    "route 'scenario'  { priority = 11, to = '*', scenario = 'spring', via = { 'b', 'own' } }\n"
    "route 'lua'       { priority = 12, to = '*', when = function(r) return r.vars.shoe == '44' end, via = 'a' }\n"
    "route 'user'      { priority = 13, to = '*', when = function(r) return r.user == 'bot' end,\n"
    "  via = function(r) if r.localpart == 'skip' then return nil end return { step 'b' { tries = 2 }, 'own' } end }\n"
    "route 'rest'      { priority = 90, to = '*', except = { 'none.example', '.none.example' }, via = 'own' }\n";

static const struct {
    const char *name;
    struct mail mail;
    const char *expected;
} decisions[] = {
    {"address, case ignored", {.to = "bOSS@shop.example"}, "address: a"},
    {"list, by domain", {.to = "x@listed.example"}, "list: a"},
    {"list, by address", {.to = "one@mixed.example"}, "list: a"},
    {"list, other address", {.to = "two@mixed.example"}, "rest: own"},
    {"set", {.to = "a..b@docomo.ne.jp"}, "set: a"},
    {"set with exception", {.to = "ng@docomo.ne.jp"}, "rest: own"},
    {"subdomain", {.to = "a@one.sub.example"}, "subdomain: a"},
    {"deeper subdomain", {.to = "a@two.one.sub.example"}, "subdomain: a"},
    {"not the domain itself", {.to = "a@sub.example"}, "rest: own"},
    {"not a suffix of a label", {.to = "a@notsub.example"}, "rest: own"},
    {"table, domain", {.to = "a@x.example"}, "table: a"},
    {"table, address", {.to = "y@z.example"}, "table: a"},
    {"table, other address", {.to = "q@z.example"}, "rest: own"},
    {"table, subdomain", {.to = "q@v.w.example"}, "table: a"},
    {"null sender", {.to = "a@q.example", .sender = ""}, "null: a"},
    {"sender", {.to = "a@q.example", .sender = "x@bounce.example"}, "sender: a"},
    {"author", {.to = "a@q.example", .author = "taro@gmail.com"}, "author: a"},
    {"tag", {.to = "a@q.example", .tag = "now"}, "tag: a"},
    {"header", {.to = "a@q.example", .header = "Subject: x\r\nX-RANK:\r\n gold\r\n\r\n"}, "header: a"},
    {"header, encoded", {.to = "a@q.example", .header = "X-Rank: =?utf-8?b?R29sZCAx?=\r\n\r\n"}, "header: a"},
    {"header, other value", {.to = "a@q.example", .header = "X-Rank: silver\r\n\r\n"}, "rest: own"},
    {"scenario comes before priority", {.to = "x@docomo.ne.jp", .scenario = "spring"}, "scenario: b, own"},
    {"other scenario", {.to = "a@q.example", .scenario = "autumn"}, "rest: own"},
    {"Lua on vars", {.to = "a@q.example", .var_name = "shoe", .var_value = "44"}, "lua: a"},
    {"via function", {.to = "a@q.example", .user = "bot"}, "user: b, own"},
    {"via function: not mine", {.to = "skip@q.example", .user = "bot"}, "rest: own"},
    {"nobody", {.to = "a@none.example"}, "no_route"},
    {"nobody, subdomain", {.to = "a@x.none.example"}, "no_route"},
};

static struct hky_policy *load_conditions(void)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    folder_open(&f);
    folder_write(&f, "policy.lua", conditions);
    folder_write(&f, "vip.txt", "# vip\nlisted.example\nOne@mixed.example\r\n\n.sub.listed.example\n");
    p = load_folder(&f, &problems);
    if (p == NULL)
        problems_print(&problems);
    assert_non_null(p);
    hky_problems_fini(&problems);
    folder_close(&f);
    return p;
}

static void every_condition_decides(void **state)
{
    struct hky_policy *p = load_conditions();
    struct hky_vm *vm = vm_of(p);

    (void)state;
    for (size_t i = 0; i < sizeof decisions / sizeof decisions[0]; i++) {
        print_message("  %s\n", decisions[i].name);
        expect_decision(vm, &decisions[i].mail, decisions[i].expected);
    }
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void two_workers_and_a_reload_decide_alike(void **state)
{
    struct hky_policy *p = load_conditions(), *q = load_conditions();
    struct hky_vm *vm[3] = {vm_of(p), vm_of(p), vm_of(q)};

    (void)state;
    assert_true(p->hash == q->hash);
    assert_int_equal(p->n_relays, q->n_relays);
    for (uint32_t i = 0; i < p->n_relays; i++)
        assert_true(p->relays[i].settings_hash == q->relays[i].settings_hash);
    for (size_t i = 0; i < sizeof decisions / sizeof decisions[0]; i++) {
        struct hky_decision d[3];
        for (int k = 0; k < 3; k++) {
            decide(vm[k], &decisions[i].mail, &d[k]);
            assert_int_equal(d[k].kind, d[0].kind);
            if (d[0].plan != NULL)
                assert_true(d[k].plan->hash == d[0].plan->hash);
        }
        for (int k = 0; k < 3; k++)
            decision_fini(&d[k]);
    }
    for (int k = 0; k < 3; k++)
        hky_vm_free(&vm[k]);
    hky_policy_unref(&p);
    hky_policy_unref(&q);
}

static void order_is_override_scenario_priority_written(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "route 'late' { priority = 5, to = '*', via = 'a' }\n"
                         "route 'tie1' { priority = 2, to = 'x.example', via = 'a' }\n"
                         "route 'tie2' { priority = 2, to = '*', via = 'b' }\n"
                         "route 'spring' { priority = 800, to = '*', scenario = 'spring', via = 'a' }\n"
                         "route 'first' { override = true, priority = 900, to = '*', tag = 't', via = 'b' }\n");
    struct hky_vm *vm = vm_of(p);

    (void)state;
    expect_decision(vm, &(struct mail){.to = "a@x.example"}, "tie1: a");
    expect_decision(vm, &(struct mail){.to = "a@y.example"}, "tie2: b");
    expect_decision(vm, &(struct mail){.to = "a@y.example", .scenario = "spring"}, "spring: a");
    expect_decision(vm, &(struct mail){.to = "a@y.example", .scenario = "spring", .tag = "t"}, "first: b");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void overrides_go_by_priority_whatever_their_scenario(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "route 'mine' { override = true, priority = 50, to = '*', scenario = 'spring', via = 'a' }\n"
                         "route 'stop' { override = true, priority = 1, to = 'x.example', via = 'b' }\n"
                         "route 'all' { override = true, priority = 90, to = '*', via = 'own' }\n");
    struct hky_vm *vm = vm_of(p);

    (void)state;
    expect_decision(vm, &(struct mail){.to = "a@x.example", .scenario = "spring"}, "stop: b");
    expect_decision(vm, &(struct mail){.to = "a@y.example", .scenario = "spring"}, "mine: a");
    expect_decision(vm, &(struct mail){.to = "a@y.example"}, "all: own");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

struct shelf {
    struct hky_str header;
    unsigned n_asked;
};

static bool shelf_read(void *ctx, struct hky_str *out)
{
    struct shelf *s = ctx;

    s->n_asked++;
    *out = s->header;
    return s->header.p != NULL;
}

static void a_header_is_read_when_asked_for_and_nothing_is_decided_without(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "route 'plain' { to = 'x.example', via = 'own' }\n"
                         "route 'gold' { to = 'y.example', header = { ['X-Rank'] = 'gold' }, via = 'a' }\n"
                         "route 'lua' { to = 'z.example', when = function(r)\n"
                         "return r.message:header 'X-Rank' == 'gold' end, via = 'a' }\n"
                         "route 'rest' { to = '*', via = 'b' }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_where *w;
    struct hky_error e = {0};
    char text[400];
    static const struct {
        const char *to, *with, *without;
    } mails[] = {{"u@x.example", "plain: own", "plain: own"},
                 {"u@y.example", "gold: a", "unread"},
                 {"u@z.example", "lua: a", "unread"},
                 {"u@other.example", "rest: b", "rest: b"}};

    (void)state;
    assert_int_equal(hky_where_new(vm, HKY_STR("r.message:header 'X-Rank' == 'gold'"), &w, &e), HKY_OK);
    for (size_t i = 0; i < sizeof mails / sizeof mails[0]; i++) {
        struct hky_message *m = message_of(&(struct mail){.to = mails[i].to});
        struct shelf shelf = {HKY_STR("X-Rank: gold\r\n"), 0};
        struct hky_route_query q = {.message = m,
                                    .recipient = &m->recipients[0],
                                    .now_ms = NOW_MS,
                                    .header_read = shelf_read,
                                    .header_ctx = &shelf};
        struct hky_decision d;
        bool asks = strcmp(mails[i].without, "unread") == 0;

        hky_route_decide(vm, &q, &d);
        assert_string_equal(decision_text(&d, text), mails[i].with);
        assert_int_equal(shelf.n_asked, asks);
        decision_fini(&d);
        assert_true(hky_where_is_true(w, &q, &e));
        assert_int_equal(e.code, HKY_OK);
        shelf.header = (struct hky_str){0};
        hky_route_decide(vm, &q, &d);
        assert_int_equal(d.kind, asks ? HKY_UNREAD : HKY_DECIDED);
        if (asks)
            assert_null(d.plan);
        else
            assert_string_equal(decision_text(&d, text), mails[i].without);
        decision_fini(&d);
        assert_false(hky_where_is_true(w, &q, &e));
        assert_non_null(strstr(e.text, "ask again"));
        e = (struct hky_error){0};
        hky_message_unref(&m);
    }
    hky_where_free(&w);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

/* Whatever an expression does without the header: the reason is that the header is not at hand, not the expression. */
static void an_expression_that_lacks_a_header_is_not_to_blame(void **state)
{
    static const char *const expressions[] = {"r.message:header('X-Rank'):find('gold')",
                                              "r.message:header('X-Rank') == 'gold'", "#r.message:header('X-Rank') > 3",
                                              "('rank ' .. r.message:header('X-Rank')) == 'rank gold'"};
    struct hky_policy *p = load_text(RELAYS "route 'rest' { to = '*', via = 'b' }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "u@x.example"});

    (void)state;
    for (size_t i = 0; i < sizeof expressions / sizeof expressions[0]; i++) {
        struct shelf shelf = {HKY_STR("X-Rank: gold\r\n"), 0}, empty = {{0}, 0};
        struct hky_route_query q = {.message = m,
                                    .recipient = &m->recipients[0],
                                    .now_ms = NOW_MS,
                                    .header_read = shelf_read,
                                    .header_ctx = &empty};
        struct hky_where *w = NULL;
        struct hky_error e = {0};

        assert_int_equal(hky_where_new(vm, hky_str_z(expressions[i]), &w, &e), HKY_OK);
        for (int k = 0; k < 20; k++) { /* more often than it may use up its budget */
            assert_false(hky_where_is_true(w, &q, &e));
            assert_int_equal(e.code, HKY_E_STATE);
            assert_non_null(strstr(e.text, "ask again"));
        }
        e = (struct hky_error){0};
        q.header_ctx = &shelf;
        if (!hky_where_is_true(w, &q, &e))
            fail_msg("%s: false, %s", expressions[i], e.text);
        shelf.header = HKY_STR("X-Other: gold\r\n"); /* it is at hand, and the expression is wrong for it */
        assert_false(hky_where_is_true(w, &q, &e));
        assert_int_equal(e.code, i == 1 ? HKY_OK : HKY_E_SCRIPT);
        hky_where_free(&w);
    }
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_condition_decides),
        cmocka_unit_test(two_workers_and_a_reload_decide_alike),
        cmocka_unit_test(order_is_override_scenario_priority_written),
        cmocka_unit_test(overrides_go_by_priority_whatever_their_scenario),
        cmocka_unit_test(a_header_is_read_when_asked_for_and_nothing_is_decided_without),
        cmocka_unit_test(an_expression_that_lacks_a_header_is_not_to_blame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
