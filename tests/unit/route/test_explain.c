/* What explain says, what functions see of the past, notes, and expressions that select. */
#include "fixture.h"

/* Only the route whose script failed is said to have failed. */
static void explain_names_the_route_that_failed(void **state)
{
    static const struct {
        const char *how, *why[4];
    } cases[] = {
        {"via = function(r) return r.vars.none.x end",
         {"matches, but via gave nothing", "matches, but its script failed", "comes after \"bad\", whose script failed",
          "comes after \"bad\", whose script failed"}},
        {"when = function(r) return r.vars.none.x end, via = 'a'",
         {"matches, but via gave nothing", NULL, "comes after \"bad\", whose script failed",
          "comes after \"bad\", whose script failed"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1000];
        snprintf(text, sizeof text,
                 RELAYS "route 'none' { priority = 1, to = '*', via = function(r) return nil end }\n"
                        "route 'bad' { priority = 2, to = '*', %s }\n"
                        "route 'fn' { priority = 3, to = '*', via = function(r) return 'a' end }\n"
                        "route 'rest' { priority = 4, to = '*', via = 'own' }\n",
                 cases[i].how);
        struct hky_policy *p = load_text(text);
        struct hky_vm *vm = vm_of(p);
        struct hky_message *m = message_of(&(struct mail){.to = "a@q.example"});
        struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
        struct hky_explanation x;

        hky_route_explain(vm, &q, &x);
        assert_int_equal(x.decision.kind, HKY_POLICY_ERROR);
        for (size_t k = 0; k < 4; k++)
            if (cases[i].why[k] != NULL)
                assert_string_equal(x.considered[k].why, cases[i].why[k]);
            else
                assert_false(x.considered[k].matched);
        hky_explanation_fini(&x);
        hky_message_unref(&m);
        hky_vm_free(&vm);
        hky_policy_unref(&p);
    }
}

static void explain_says_why_not(void **state)
{
    struct hky_policy *p =
        load_text(RELAYS "route 'x' { priority = 1, to = 'x.example', via = 'a' }\n"
                         "route 'tag' { priority = 2, to = '*', tag = 'urgent', via = 'a' }\n"
                         "route 'fn' { priority = 3, to = '*', via = function(r) note('asked') return nil end }\n"
                         "route 'rest' { priority = 4, to = '*', via = 'own' }\n"
                         "route 'late' { priority = 5, to = '*', tag = 'never', via = 'b' }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "a@q.example"});
    struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
    struct hky_explanation x;

    (void)state;
    hky_route_explain(vm, &q, &x);
    assert_int_equal(x.n_considered, 5);
    assert_string_equal(x.decision.plan->route, "rest");
    assert_string_equal(x.considered[0].why, "to does not name a@q.example");
    assert_string_equal(x.considered[1].why, "needs the tag \"urgent\"");
    assert_string_equal(x.considered[2].why, "matches, but via gave nothing");
    assert_true(x.considered[3].matched);
    assert_string_equal(x.considered[3].why, "decides");
    assert_false(x.considered[4].matched);
    assert_int_equal(x.considered[4].place.line, 8);
    assert_int_equal(x.n_notes, 1);
    hky_explanation_fini(&x);
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

/* What a function's mistake says, and that a list which is cut says so. */
static void functions_are_told_the_nearest_relay_and_of_notes_left_out(void **state)
{
    static const struct {
        const char *via, *why;
    } cases[] = {
        {"return 'Own'", "no relay \"Own\", did you mean \"own\"?"},
        {"return { step 'onw' { tries = 1 } }", "no relay \"onw\", did you mean \"own\"?"},
        {"return relays.onw", "no relay \"onw\", did you mean \"own\"?"},
        {"return 'zzzzzz'", "no relay \"zzzzzz\""},
        {"for i = 1, 1000 do note('n' .. i) end note(('\xe7\x89\xb9'):rep(100)) return 'zzzzzz'", "no relay"},
    };
    struct hky_message *m = message_of(&(struct mail){.to = "a@q.example"});

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[400];
        snprintf(text, sizeof text, RELAYS "route 'r' { to = '*', via = function(r) %s end }\n", cases[i].via);
        struct hky_policy *p = load_text(text);
        struct hky_vm *vm = vm_of(p);
        struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
        struct hky_explanation x;
        hky_route_explain(vm, &q, &x);
        if (x.decision.kind != HKY_POLICY_ERROR || strstr(x.decision.text, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].via, x.decision.text);
        if (i + 1 == sizeof cases / sizeof cases[0]) {
            assert_int_equal(x.n_notes, 51);
            assert_string_equal(x.notes[49], "n50");
            assert_string_equal(x.notes[50], "(further notes are not shown)");
        }
        hky_explanation_fini(&x);
        hky_vm_free(&vm);
        hky_policy_unref(&p);
    }
    hky_message_unref(&m);
}

static void attempts_are_seen_as_they_were(void **state)
{
    static const char *const holds[] = {
        "#r.attempts == 3 and r.attempts[4] == nil and r.attempts[0] == nil",
        "r.attempts[1].relay == 'b' and r.attempts[1].class == 'blocked_ip' and r.attempts[1].stage == 'rcpt'",
        "r.attempts[1].code == 550 and r.attempts[1].enhanced == '5.7.1' and r.attempts[1].text == 'go away'",
        "r.attempts[1].scope == 'path' and not r.attempts[1].temporary and r.attempts[1].step == 1",
        "r.attempts[1].account == 'u@b.example:465' and r.attempts[1].copy == 1 and r.attempts[1].default == nil",
        "r.attempts[2].temporary and r.attempts[2].retry_after == 90 and r.attempts[2].latency == 1234",
        "r.attempts[2].at == r.now - 60 and r.attempts[2].enhanced == nil",
        "r.attempts[3].relay == 'gone' and r.attempts[3].account == nil",
    };
    struct hky_policy *p = load_text("relay 'b' { host = 'b.example', port = 465, user = 'U', password = secret 'x' }");
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "a@y.example"});
    struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
    struct hky_outcome first = {.class = HKY_CLASS_BLOCKED_IP, .scope = HKY_SCOPE_PATH, .stage = HKY_STAGE_RCPT},
                       second = {.class = HKY_CLASS_SYSTEM_TEMP,
                                 .is_temporary = true,
                                 .retry_after_sec = 90,
                                 .latency_ms = 1234};
    struct hky_error e = {0};

    (void)state;
    hky_reply_from_text(&first.reply, HKY_STR("550 5.7.1 go away"));
    hky_reply_from_text(&second.reply, HKY_STR("451 busy"));
    hky_recipient_remember(&m->recipients[0], NOW_MS - 120000, "b", &first);
    hky_recipient_remember(&m->recipients[0], NOW_MS - 60000, "b", &second);
    hky_recipient_remember(&m->recipients[0], NOW_MS, "gone", &second);
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        struct hky_where *w;
        assert_int_equal(hky_where_new(vm, hky_str_z(holds[i]), &w, &e), HKY_OK);
        if (!hky_where_is_true(w, &q, &e))
            fail_msg("%s: %s", holds[i], e.text);
        hky_where_free(&w);
    }
    for (unsigned i = 0; i < HKY_PAST_MAX; i++)
        hky_recipient_remember(&m->recipients[0], NOW_MS + 1000 * (int64_t)i, "b", &first);
    {
        struct hky_where *w;
        assert_int_equal(
            hky_where_new(vm, HKY_STR("r.attempts[1].at == r.now and r.attempts[#r.attempts].relay == 'b'"), &w, &e),
            HKY_OK);
        assert_true(hky_where_is_true(w, &q, &e));
        hky_where_free(&w);
    }
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void notes_go_to_the_log_so_many_a_second(void **state)
{
    struct hky_policy *p = load_text(RELAYS "route 'x' { to = '*', via = 'a', when = function(r)\n"
                                            "  note('line\\n\"' .. ('x'):rep(500)) return true end }\n");
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "a@y.example"});
    struct hky_log *log;
    int fds[2];
    char text[16384];
    ssize_t n;
    unsigned lines = 0;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    log = hky_log_new(fds[1], HKY_LOG_INFO);
    hky_vm_set_log(vm, log);
    for (int i = 0; i < 40; i++) { /* thirty in the first second, ten later */
        struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS + (i < 30 ? i : 5000 + i)};
        struct hky_decision d;
        hky_route_decide(vm, &q, &d);
        decision_fini(&d);
    }
    close(fds[1]);
    n = read(fds[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = 0;
    for (char *l = text; (l = strstr(l, "ev=note ")) != NULL; l++)
        lines++;
    assert_int_equal(lines, 10 + 1 + 10);
    assert_non_null(strstr(text, "left_out=20"));
    assert_non_null(strstr(text, "rcpt=\"a@y.example\" text=\"line\\n\\\"xxx"));
    assert_true(n < 21 * 400);
    close(fds[0]);
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_log_free(&log);
}

static void where_selects(void **state)
{
    static const struct {
        const char *expression;
        bool holds;
    } wheres[] = {
        {"r.domain == 'q.example'", true},
        {"r.scenario == 'spring' and #r.attempts == 0", true},
        {"r.tags.urgent", false},
        {"r.localpart:find('^b')", false},
        {"carriers.docomo:has(r.address)", false},
        {"r.author.name == 'Shop' and r.message.size > 10", true},
        {"r.nonsense", false},
        {"(function() while true do end end)()", false},
    };
    struct hky_policy *p = load_text(RELAYS);
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "a@q.example", .scenario = "spring"});
    struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
    struct hky_where *w;
    struct hky_error e = {0};

    (void)state;
    for (size_t i = 0; i < sizeof wheres / sizeof wheres[0]; i++) {
        assert_int_equal(hky_where_new(vm, hky_str_z(wheres[i].expression), &w, &e), HKY_OK);
        assert_int_equal(hky_where_is_true(w, &q, &e), wheres[i].holds);
        hky_where_free(&w);
    }
    assert_int_equal(hky_where_new(vm, HKY_STR("r.domain =="), &w, &e), HKY_E_SYNTAX);
    assert_int_equal(hky_where_new(vm, HKY_STR("1) end os = (1"), &w, &e), HKY_E_SYNTAX);
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explain_names_the_route_that_failed),
        cmocka_unit_test(explain_says_why_not),
        cmocka_unit_test(attempts_are_seen_as_they_were),
        cmocka_unit_test(functions_are_told_the_nearest_relay_and_of_notes_left_out),
        cmocka_unit_test(notes_go_to_the_log_so_many_a_second),
        cmocka_unit_test(where_selects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
