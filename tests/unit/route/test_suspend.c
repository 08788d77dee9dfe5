/* Calls that wait for a look-up: suspended, gone on with in any order, within one budget, or dropped. */
#include "fixture.h"

#include "route/lua/decide.h"
#include "support/wait.h"

/* A look-up of the test, given to scripts as ask(): the answer is what the test puts there before it tells. */
static struct hky_ticket tickets[16];
static unsigned n_tickets;
static const char *answer;

static int ask_end(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    lua_pushstring(L, answer);
    return 1;
}

static int ask(lua_State *L)
{
    tickets[n_tickets++ % 16] = hky_vm_ticket(L);
    return hky_vm_wait(L, 0, ask_end);
}

static int lose_processor(lua_State *L)
{
    (void)L;
    let_pass(200000, "another process has the processor");
    return 0;
}

static void ready(void *ctx)
{
    ++*(unsigned *)ctx;
}

struct stage {
    struct hky_policy *policy;
    struct hky_vm *vm;
    struct hky_lookups *lookups;
    struct hky_loop *loop;
};

static void stage_open(struct stage *st, const char *text)
{
    struct hky_error e;

    st->policy = load_text(text);
    st->vm = vm_of(st->policy);
    assert_int_equal(hky_loop_new(&st->loop, &e), HKY_OK);
    st->lookups = hky_lookups_new(st->loop, st->policy);
    hky_vm_set_lookups(st->vm, st->lookups);
    lua_getfield(st->vm->L, LUA_REGISTRYINDEX, "hky.env");
    lua_pushstring(st->vm->L, "ask");
    lua_pushcfunction(st->vm->L, ask);
    lua_rawset(st->vm->L, -3);
    lua_pushstring(st->vm->L, "lose_processor");
    lua_pushcfunction(st->vm->L, lose_processor);
    lua_rawset(st->vm->L, -3);
    lua_pop(st->vm->L, 1);
    n_tickets = 0;
    answer = "yes";
}

static void stage_close(struct stage *st)
{
    hky_vm_free(&st->vm);
    hky_lookups_free(&st->lookups);
    hky_loop_free(&st->loop);
    hky_policy_unref(&st->policy);
}

/* One recipient and its decision under way. */
struct asked {
    struct hky_message *message;
    struct hky_route_query q;
    struct hky_deciding *waits;
    struct hky_decision d;
    unsigned n_ready;
    char text[400];
};

static void asked_begin(struct stage *st, struct asked *a, const char *to)
{
    memset(a, 0, sizeof *a);
    a->message = message_of(&(struct mail){.to = to});
    a->q = (struct hky_route_query){.message = a->message, .recipient = &a->message->recipients[0], .now_ms = NOW_MS};
    hky_route_begin(st->vm, &a->q, ready, &a->n_ready, &a->waits, &a->d);
    assert_int_equal(a->d.kind == HKY_WAITS, a->waits != NULL);
}

static void asked_go_on(struct asked *a)
{
    hky_route_continue(&a->waits, &a->q, ready, &a->n_ready, &a->d);
    assert_int_equal(a->d.kind == HKY_WAITS, a->waits != NULL);
}

static const char *asked_text(struct asked *a)
{
    return a->d.kind == HKY_WAITS ? "waits" : decision_text(&a->d, a->text);
}

static void asked_end(struct asked *a)
{
    hky_deciding_drop(&a->waits);
    decision_fini(&a->d);
    hky_message_unref(&a->message);
}

static const char policy_of_two[] =
    RELAYS "route 'when' { priority = 1, to = 'when.example', when = function(r) local to = r.address local a = ask()\n"
           "  assert(to == r.address, 'another r') return a == 'yes' end, via = 'a' }\n"
           "route 'via' { priority = 2, to = 'via.example', via = function(r)\n"
           "  local ok, a = pcall(function() return ask() end) local b = ask()\n"
           "  if ok and a == 'first' and b == 'second' then return { 'a', 'b' } end end }\n"
           "route 'split' { priority = 3, to = 'split.example', via = function(r) ask()\n"
           "  return split 's' { { arm = 'one', share = 100, via = 'b' } } end }\n"
           "route 'rest' { priority = 9, to = '*', via = 'own' }\n";

static void a_busy_machine_is_not_the_scripts_fault(void **state)
{
    struct stage st;
    struct asked a;

    (void)state;
    stage_open(&st, RELAYS "route 'busy' { to = '*', when = function(r) lose_processor() for i = 1, 2000 do end\n"
                           "  lose_processor() for i = 1, 2000 do end return true end, via = 'a' }\n");
    asked_begin(&st, &a, "u@x.example");
    assert_string_equal(asked_text(&a), "busy: a");
    asked_end(&a);
    stage_close(&st);
}

static void decisions_go_on_in_any_order(void **state)
{
    struct stage st;
    struct asked one, two, plain;

    (void)state;
    stage_open(&st, policy_of_two);
    asked_begin(&st, &one, "u1@when.example");
    asked_begin(&st, &two, "u2@when.example");
    asked_begin(&st, &plain, "u3@x.example");
    assert_string_equal(asked_text(&one), "waits");
    assert_string_equal(asked_text(&two), "waits");
    assert_string_equal(asked_text(&plain), "rest: own");
    assert_true(hky_ticket_ready(st.lookups, tickets[1]));
    assert_int_equal(two.n_ready, 1);
    assert_int_equal(one.n_ready, 0);
    answer = "no";
    asked_go_on(&two);
    assert_string_equal(asked_text(&two), "rest: own");
    assert_true(hky_ticket_ready(st.lookups, tickets[0]));
    answer = "yes";
    asked_go_on(&one);
    assert_string_equal(asked_text(&one), "when: a");
    asked_end(&one);
    asked_end(&two);
    asked_end(&plain);
    assert_int_equal(st.vm->n_unused_calls, 2); /* the coroutines wait for the next calls */
    stage_close(&st);
}

static void a_call_waits_more_than_once(void **state)
{
    struct stage st;
    struct asked a;

    (void)state;
    stage_open(&st, policy_of_two);
    asked_begin(&st, &a, "u@via.example");
    answer = "first"; /* what is under pcall goes on there */
    asked_go_on(&a);
    assert_string_equal(asked_text(&a), "waits");
    answer = "second";
    asked_go_on(&a);
    assert_string_equal(asked_text(&a), "via: a, b");
    asked_end(&a);
    asked_begin(&st, &a, "u@split.example");
    asked_go_on(&a);
    assert_string_equal(asked_text(&a), "split: b");
    assert_memory_equal(a.d.arms, "s\0one\0", 6);
    asked_end(&a);
    stage_close(&st);
}

static void what_comes_too_late_is_refused(void **state)
{
    struct stage st;
    struct asked a, b;

    (void)state;
    stage_open(&st, policy_of_two);
    asked_begin(&st, &a, "u@via.example");
    assert_true(hky_ticket_ready(st.lookups, tickets[0]));
    assert_false(hky_ticket_ready(st.lookups, tickets[0])); /* told once */
    asked_go_on(&a);
    assert_false(hky_ticket_ready(st.lookups, tickets[0])); /* it waits for something else by now */
    assert_true(hky_ticket_ready(st.lookups, tickets[1]));
    assert_int_equal(a.n_ready, 2);
    hky_deciding_drop(&a.waits);
    assert_false(hky_ticket_ready(st.lookups, tickets[1]));
    asked_begin(&st, &b, "u@when.example"); /* has the slot of the one before */
    assert_int_equal(tickets[2].slot, tickets[1].slot);
    assert_false(hky_ticket_ready(st.lookups, tickets[1]));
    assert_int_equal(b.n_ready, 0);
    assert_true(hky_ticket_ready(st.lookups, tickets[2]));
    asked_end(&a);
    asked_end(&b);
    stage_close(&st);
}

static void before_the_250_nothing_waits(void **state)
{
    struct stage st;
    struct hky_decision d;

    (void)state;
    stage_open(&st, policy_of_two);
    for (int i = 0; i < 3; i++) {
        decide(st.vm, &(struct mail){.to = "u@when.example"}, &d);
        assert_int_equal(d.kind, HKY_WAITS);
        assert_null(d.plan);
        assert_int_equal(tickets[i].generation, 0); /* nobody is to be told */
        decision_fini(&d);
    }
    assert_int_equal(st.vm->n_waiting_calls, 0);
    assert_int_equal(st.vm->n_unused_calls, 1);
    expect_decision(st.vm, &(struct mail){.to = "u@x.example"}, "rest: own");
    stage_close(&st);
}

/* 100,000 instructions a call: each part below is within, together they are not. */
static const char spender[] = RELAYS
    "route 'spends' { to = 'n2.example', via = function(r) for i = 1, 2 do for k = 1, 15000 do local x = k * k end\n"
    "  ask() end return 'a' end }\n"
    "route 'spends too much' { to = 'n5.example', via = function(r)\n"
    "  for i = 1, 9 do pcall(function() for k = 1, 15000 do local x = k * k end ask() end) end return 'a' end }\n"
    "route 'asks for ever' { to = 'ever.example', via = function(r) while true do ask() end end }\n"
    "route 'sorts' { to = 'sort.example', via = function(r)\n"
    "  local t = { 3, 1, 2 } table.sort(t, function(a, b) ask() return a < b end) return 'a' end }\n"
    "route 'fails' { to = 'fail.example', via = function(r) ask() local t = nil return t.x end }\n";

static unsigned go_on_to_the_end(struct asked *a)
{
    unsigned n = 0;

    for (; a->waits != NULL; n++) {
        assert_true(n < 1000);
        asked_go_on(a);
    }
    return n;
}

static void one_budget_for_all_parts(void **state)
{
    struct stage st;
    struct asked a;

    (void)state;
    stage_open(&st, spender);
    asked_begin(&st, &a, "u@n2.example");
    assert_int_equal(go_on_to_the_end(&a), 2);
    assert_string_equal(asked_text(&a), "spends: a");
    asked_end(&a);
    asked_begin(&st, &a, "u@n5.example");
    assert_in_range(go_on_to_the_end(&a), 2, 8);
    assert_non_null(strstr(asked_text(&a), "used up its instructions"));
    asked_end(&a);
    asked_begin(&st, &a, "u@ever.example");
    assert_in_range(go_on_to_the_end(&a), 50, 100);
    assert_non_null(strstr(asked_text(&a), "used up its instructions"));
    asked_end(&a);
    stage_close(&st);
}

static void errors_after_a_wait_have_their_line(void **state)
{
    struct stage st;
    struct asked a;

    (void)state;
    stage_open(&st, spender);
    asked_begin(&st, &a, "u@fail.example");
    asked_go_on(&a);
    assert_string_equal(asked_text(&a), "error: policy.lua:11: attempt to index a nil value (local 't')");
    asked_end(&a);
    asked_begin(&st, &a, "u@sort.example");
    assert_non_null(strstr(asked_text(&a), "a look-up cannot wait here"));
    asked_end(&a);
    stage_close(&st);
}

static void operators_expressions_do_not_wait(void **state)
{
    struct stage st;
    struct hky_where *w = NULL;
    struct hky_error e = {0};
    struct asked a;

    (void)state;
    stage_open(&st, policy_of_two);
    asked_begin(&st, &a, "u@x.example");
    assert_int_equal(hky_where_new(st.vm, HKY_STR("ask() == 'yes'"), &w, &e), HKY_OK);
    assert_false(hky_where_is_true(w, &a.q, &e));
    assert_non_null(strstr(e.text, "a look-up cannot wait here"));
    hky_where_free(&w);
    asked_end(&a);
    stage_close(&st);
}

/* 20,000 recipients must not each pay for an endless expression. */
static void an_endless_expression_is_given_up(void **state)
{
    struct stage st;
    struct hky_where *w = NULL;
    struct hky_error e = {0};
    struct asked a;

    (void)state;
    stage_open(&st, policy_of_two);
    asked_begin(&st, &a, "u@x.example");
    assert_int_equal(hky_where_new(st.vm, HKY_STR("(function() while true do end end)()"), &w, &e), HKY_OK);
    for (int i = 0; i < 10; i++) {
        assert_false(hky_where_is_true(w, &a.q, &e));
        assert_null(strstr(e.text, "any more"));
    }
    int64_t began_ns = hky_thread_cpu_ns();
    for (int i = 0; i < 1000; i++)
        assert_false(hky_where_is_true(w, &a.q, &e));
    assert_non_null(strstr(e.text, "not evaluated again"));
    assert_true(hky_thread_cpu_ns() - began_ns < 100000000);
    hky_where_free(&w);
    asked_end(&a);
    stage_close(&st);
}

static void many_wait_at_once(void **state)
{
    enum { N = 500 };
    struct stage st;
    struct asked *all = calloc(N, sizeof *all);

    (void)state;
    stage_open(&st, policy_of_two);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++)
            asked_begin(&st, &all[i], "u@when.example");
        for (int i = 0; i < N; i++)
            if (i % 3 != 0)
                asked_go_on(&all[(i * 7) % N]);
        for (int i = 0; i < N; i++)
            asked_end(&all[i]);
        assert_int_equal(st.vm->n_waiting_calls, 0);
        assert_in_range(st.vm->n_unused_calls, 1, 16);
    }
    free(all);
    stage_close(&st);
}

/* ---- the limits of octets ---- */

static const char greedy[] =
    RELAYS "engine { bounds = { lua_memory = '4M', lua_ms = 1000, lua_instructions = 1000000000 } }\n"
           "route 'again and again' { to = 'large.example', via = function(r)\n"
           "  for i = 1, 200 do local s = ('x'):rep(500000) end return 'a' end }\n"
           "route 'once' { to = 'once.example', via = function(r) local s = ('x'):rep(500000) return 'a' end }\n"
           "route 'hoards' { to = 'small.example', via = function(r)\n"
           "  local t = {} for i = 1, 20000 do t[i] = { ('y'):rep(200) .. i } end return 'a' end }\n"
           "route 'hoards little' { to = 'little.example', via = function(r)\n"
           "  local t = {} for i = 1, 2000 do t[i] = { ('y'):rep(200) .. i } end return 'a' end }\n";

static void octets_are_counted_and_bounded(void **state)
{
    struct stage st;
    struct hky_decision d;
    char text[400];

    (void)state;
    stage_open(&st, greedy);
    expect_decision(st.vm, &(struct mail){.to = "u@once.example"}, "once: a");
    decide(st.vm, &(struct mail){.to = "u@large.example"}, &d); /* never much at a time, 100 MB in all */
    assert_non_null(strstr(decision_text(&d, text), "allocated too much"));
    decision_fini(&d);
    expect_decision(st.vm, &(struct mail){.to = "u@once.example"}, "once: a");
    expect_decision(st.vm, &(struct mail){.to = "u@little.example"}, "hoards little: a");
    decide(st.vm, &(struct mail){.to = "u@small.example"}, &d); /* 5 MB, in small pieces */
    assert_non_null(strstr(decision_text(&d, text), "not enough memory"));
    decision_fini(&d);
    stage_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_busy_machine_is_not_the_scripts_fault),
        cmocka_unit_test(decisions_go_on_in_any_order),
        cmocka_unit_test(a_call_waits_more_than_once),
        cmocka_unit_test(what_comes_too_late_is_refused),
        cmocka_unit_test(before_the_250_nothing_waits),
        cmocka_unit_test(one_budget_for_all_parts),
        cmocka_unit_test(errors_after_a_wait_have_their_line),
        cmocka_unit_test(operators_expressions_do_not_wait),
        cmocka_unit_test(many_wait_at_once),
        cmocka_unit_test(octets_are_counted_and_bounded),
        cmocka_unit_test(an_endless_expression_is_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
