/* Whose names mail has: what a relay, a step and a route let it be sent as (POLICY.md 2c). */
#include "fixture.h"

static const char identity_policy[] =
    "relay 'any'   { mx = true, envelope = 'b+{id}={rcpt}@bounce.example' }\n"
    "relay 'acct'  { host = 'h.example', from = 'me@acct.example' }\n"
    "relay 'dom'   { host = 'd.example', sends_as = { 'shop.example', '.sub.example' } }\n"
    "relay 'both'  { host = 'e.example', from = 'me@acct.example', sends_as = 'shop.example' }\n"
    "relay 'never' { host = 'f.example', from = false, sends_as = 'shop.example' }\n"
    "route 'r' { to = '*', via = { 'any', 'acct', 'dom', 'both', 'never', step 'acct' { from = 'step@x.example' },\n"
    "  step 'acct' { from = false }, step 'any' { reply_to = 'help@x.example', envelope = 'e@x.example' } } }\n";

static const struct {
    const char *name, *author, *sender;
    uint8_t step;
    bool is_allowed, is_rewritten, reply_to_forced;
    const char *from, *envelope, *reply_to;
    bool is_alone;
} identities[] = {
    {"anyone may, envelope pattern", "a@shop.example", "s@shop.example", 0, true, false, false, "a@shop.example", "*",
     "", false},
    {"null sender stays null", "a@shop.example", "", 0, true, false, false, "a@shop.example", "", "", false},
    {"account only: rewritten", "a@shop.example", "s@shop.example", 1, true, true, false, "me@acct.example",
     "me@acct.example", "a@shop.example", true},
    {"account only: is the author", "Me@acct.example", "s@shop.example", 1, true, false, false, "Me@acct.example",
     "s@shop.example", "", true},
    {"domain: may", "a@shop.example", "s@shop.example", 2, true, false, false, "a@shop.example", "s@shop.example", "",
     true},
    {"domain: subdomain may", "a@x.sub.example", "s@shop.example", 2, true, false, false, "a@x.sub.example",
     "s@shop.example", "", true},
    {"domain: .domain is not itself", "a@sub.example", "s@shop.example", 2, false, false, false, "a@sub.example",
     "s@shop.example", "", true},
    {"from and sends_as: may", "a@shop.example", "s@shop.example", 3, true, false, false, "a@shop.example",
     "s@shop.example", "", true},
    {"from and sends_as: other", "a@gmail.com", "s@shop.example", 3, true, true, false, "me@acct.example",
     "me@acct.example", "a@gmail.com", true},
    {"never: skipped", "a@gmail.com", "s@shop.example", 4, false, false, false, "a@gmail.com", "s@shop.example", "",
     false},
    {"never: may", "a@shop.example", "s@shop.example", 4, true, false, false, "a@shop.example", "s@shop.example", "",
     false},
    {"step's from always", "a@shop.example", "s@shop.example", 5, true, true, false, "step@x.example", "step@x.example",
     "a@shop.example", true},
    {"step's from = false", "a@shop.example", "s@shop.example", 6, false, false, false, "a@shop.example",
     "s@shop.example", "", false},
    {"reply_to and envelope of the step", "a@shop.example", "s@shop.example", 7, true, false, true, "a@shop.example",
     "e@x.example", "help@x.example", false},
};

static void identity_follows_the_table(void **state)
{
    struct hky_policy *p = load_text(identity_policy);
    struct hky_vm *vm = vm_of(p);

    (void)state;
    for (size_t i = 0; i < sizeof identities / sizeof identities[0]; i++) {
        struct hky_message *m = message_of(
            &(struct mail){.to = "Taro@q.example", .author = identities[i].author, .sender = identities[i].sender});
        struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
        struct hky_decision d;
        struct hky_identity id;
        hky_route_decide(vm, &q, &d);
        print_message("  %s\n", identities[i].name);
        hky_identity_choose(p, hky_policy_relay(p, hky_str_z(d.plan->steps[identities[i].step].relay)), d.plan,
                            identities[i].step, m, &m->recipients[0], &id);
        assert_int_equal(id.is_allowed, identities[i].is_allowed);
        assert_int_equal(id.is_rewritten, identities[i].is_rewritten);
        assert_int_equal(id.reply_to_forced, identities[i].reply_to_forced);
        assert_int_equal(id.is_alone, identities[i].is_alone);
        assert_string_equal(id.from, identities[i].from);
        assert_string_equal(id.reply_to, identities[i].reply_to);
        if (strcmp(identities[i].envelope, "*") != 0)
            assert_string_equal(id.sender, identities[i].envelope);
        else
            assert_non_null(strstr(id.sender, "=Taro=q.example@bounce.example"));
        decision_fini(&d);
        hky_message_unref(&m);
    }
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

static void route_from_is_for_all_its_steps(void **state)
{
    struct hky_policy *p = load_text(RELAYS "route 'r' { to = '*', from = 'M@Shop.EXAMPLE', via = 'own' }");
    struct hky_vm *vm = vm_of(p);
    struct hky_message *m = message_of(&(struct mail){.to = "a@q.example", .author = "taro@gmail.com"});
    struct hky_route_query q = {m, &m->recipients[0], {NULL, 0}, NOW_MS};
    struct hky_decision d;
    struct hky_identity id;

    (void)state;
    hky_route_decide(vm, &q, &d);
    hky_identity_choose(p, &p->relays[0], d.plan, 0, m, &m->recipients[0], &id);
    assert_string_equal(id.from, "M@shop.example");
    assert_string_equal(id.reply_to, "taro@gmail.com");
    decision_fini(&d);
    hky_message_unref(&m);
    hky_vm_free(&vm);
    hky_policy_unref(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity_follows_the_table),
        cmocka_unit_test(route_from_is_for_all_its_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
