/* Which route decides: every kind of condition, the order, identity, explain, reload, expressions. */
#include "fixture.h"

#include "mail/address.h"
#include "route/table/match.h"

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

static void a_list_is_read_again_when_its_file_changes(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_lists_news news;
    struct hky_policy *p;
    struct hky_vm *vm;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", RELAYS "route 'vip' { to = list 'vip.txt', via = 'a' }");
    folder_write(&f, "vip.txt", "x.example\n");
    p = load_folder(&f, &problems);
    vm = vm_of(p);
    expect_decision(vm, &(struct mail){.to = "a@y.example"}, "no_route");
    lists_settle(p, &news);
    assert_int_equal(news.n_taken, 0);
    folder_write(&f, "vip.txt", "y.example\nz.example\n");
    lists_settle(p, &news);
    assert_int_equal(news.n_taken, 1);
    expect_decision(vm, &(struct mail){.to = "a@y.example"}, "vip: a");
    folder_write(&f, "vip.txt", "q.example\nnot a domain\n");
    lists_settle(p, &news);
    assert_int_equal(news.n_taken, 0);
    assert_non_null(strstr(news.error.text, "vip.txt:2"));
    expect_decision(vm, &(struct mail){.to = "a@y.example"}, "vip: a");
    hky_vm_free(&vm);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

static bool reaches(const struct hky_policy *p, const char *address)
{
    struct hky_message *m = message_of(&(struct mail){.to = address});
    bool it_does = p->engine.reaches(p, &m->recipients[0]);

    hky_message_unref(&m);
    return it_does;
}

static void only_to_names_by_address_domain_and_list(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_lists_news news;
    struct hky_policy *p;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua",
                 "engine { only_to = { 'Me@home.example', 'shop.example', '.y.example', list 'staff.txt' } }\n" RELAYS
                 "route 'r' { to = '*', via = 'a' }");
    folder_write(&f, "staff.txt", "x.example\n");
    p = load_folder(&f, &problems);
    assert_true(reaches(p, "me@home.example") && reaches(p, "a@shop.example") && reaches(p, "a@b.y.example") &&
                reaches(p, "a@x.example"));
    assert_false(reaches(p, "you@home.example") || reaches(p, "a@b.shop.example") || reaches(p, "a@y.example") ||
                 reaches(p, "a@z.example"));
    folder_write(&f, "staff.txt", "z.example\nq.example\n");
    lists_settle(p, &news);
    assert_int_equal(news.n_taken, 1);
    assert_true(reaches(p, "a@z.example"));
    assert_false(reaches(p, "a@x.example"));
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    p = load_text("engine { only_to = {} }\n" RELAYS "route 'r' { to = '*', via = 'a' }");
    assert_false(reaches(p, "me@home.example"));
    hky_policy_unref(&p);
    p = load_text("engine { only_to = '*' }\n" RELAYS "route 'r' { to = '*', via = 'a' }");
    assert_true(reaches(p, "me@home.example"));
    hky_policy_unref(&p);
    folder_close(&f);
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

/* --- identity, POLICY.md 2c --- */

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
} identities[] = {
    {"anyone may, envelope pattern", "a@shop.example", "s@shop.example", 0, true, false, false, "a@shop.example", "*",
     ""},
    {"null sender stays null", "a@shop.example", "", 0, true, false, false, "a@shop.example", "", ""},
    {"account only: rewritten", "a@shop.example", "s@shop.example", 1, true, true, false, "me@acct.example",
     "me@acct.example", "a@shop.example"},
    {"account only: is the author", "Me@acct.example", "s@shop.example", 1, true, false, false, "Me@acct.example",
     "s@shop.example", ""},
    {"domain: may", "a@shop.example", "s@shop.example", 2, true, false, false, "a@shop.example", "s@shop.example", ""},
    {"domain: subdomain may", "a@x.sub.example", "s@shop.example", 2, true, false, false, "a@x.sub.example",
     "s@shop.example", ""},
    {"domain: .domain is not itself", "a@sub.example", "s@shop.example", 2, false, false, false, "a@sub.example",
     "s@shop.example", ""},
    {"from and sends_as: may", "a@shop.example", "s@shop.example", 3, true, false, false, "a@shop.example",
     "s@shop.example", ""},
    {"from and sends_as: other", "a@gmail.com", "s@shop.example", 3, true, true, false, "me@acct.example",
     "me@acct.example", "a@gmail.com"},
    {"never: skipped", "a@gmail.com", "s@shop.example", 4, false, false, false, "a@gmail.com", "s@shop.example", ""},
    {"never: may", "a@shop.example", "s@shop.example", 4, true, false, false, "a@shop.example", "s@shop.example", ""},
    {"step's from always", "a@shop.example", "s@shop.example", 5, true, true, false, "step@x.example", "step@x.example",
     "a@shop.example"},
    {"step's from = false", "a@shop.example", "s@shop.example", 6, false, false, false, "a@shop.example",
     "s@shop.example", ""},
    {"reply_to and envelope of the step", "a@shop.example", "s@shop.example", 7, true, false, true, "a@shop.example",
     "e@x.example", "help@x.example"},
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

/* --- relays --- */

static void relay_defaults(void **state)
{
    struct hky_policy *p = load_text("relay 'mx' { mx = true }\n"
                                     "relay 'ssl' { host = 'ssl://h.example', user = 'U', password = secret 'p' }\n"
                                     "relay 'sub' { host = 'h.example', port = 587, user = 'u', password = secret 'p', "
                                     "cap = { '10/min', '500 recipients/day' } }\n"
                                     "relay 'plain' { host = 'h.example', port = 25 }\n"
                                     "relay 'gmail' { preset = 'gmail', user = 'shop@gmail.com', password = "
                                     "secret('g', { command = { 'pass', 'show', 'g' } }) }\n");
    const struct hky_relay *r = p->relays;

    (void)state;
    assert_true(r[0].is_mx && r[0].port == 25 && r[0].tls == HKY_TLS_OPPORTUNISTIC && r[0].auth == HKY_AUTH_NONE);
    assert_true(r[1].port == 465 && r[1].tls == HKY_TLS_IMPLICIT);
    assert_string_equal(r[1].host, "h.example");
    assert_string_equal(r[1].account, "u@h.example:465");
    assert_true(r[2].tls == HKY_TLS_STARTTLS && r[2].auth == HKY_AUTH_AUTO && r[2].n_caps == 2);
    assert_true(r[2].caps[0].n == 10 && r[2].caps[0].window_sec == 60 && r[2].caps[0].is_spread);
    assert_true(r[2].caps[1].counts_recipients && r[2].caps[1].window_sec == 86400 && !r[2].caps[1].is_spread);
    assert_int_equal(r[3].tls, HKY_TLS_OPPORTUNISTIC);
    assert_string_equal(r[4].from, "shop@gmail.com");
    assert_string_equal(r[4].sends_as[0], "shop@gmail.com");
    assert_string_equal(r[4].password.command[1], "show");
    assert_string_equal(r[0].sends_as[0], "*");
    assert_true(r[1].settings_hash != r[2].settings_hash);
    assert_true(p->n_rules > 20);
    assert_int_equal(p->engine.n_listen, 1);
    hky_policy_unref(&p);
}

static void a_preset_may_bring_the_user(void **state)
{
    struct hky_policy *p =
        load_text("relay 'grid' { preset = 'sendgrid', password = secret 'g' }\n"
                  "rows { { name = 'row', preset = 'sendgrid', user = 'APIKEY', password = secret 'g', to = '*' },\n"
                  "       { name = 'own', preset = 'sendgrid', host = 'grid.example', user = 'me', password = secret "
                  "'g', to = '*' } }");

    (void)state;
    assert_int_equal(p->n_relays, 2); /* the first row is the account of relay "grid" */
    assert_string_equal(p->relays[0].user, "apikey");
    assert_string_equal(p->relays[0].account, "apikey@smtp.sendgrid.net:587");
    assert_int_equal(p->relays[0].auth, HKY_AUTH_AUTO);
    assert_string_equal(p->relays[1].user, "me");
    hky_policy_unref(&p);
}

static void engine_options(void **state)
{
    struct hky_policy *p = load_text(
        "engine { hostname = 'Mail.Shop.example', spool = '/var/spool/h', timezone = 'Asia/Tokyo', retry = { '1m', 30 "
        "},\n"
        " redirect = env('NOT_THERE', false), owner = env('OWNER', 'o@shop.example'), expire = '1d', only_to = { "
        "'x.example', '.y.example' },\n"
        " bounds = { recipients = 5, body_memory = '10M', command = '30s', segment = '1M',\n"
        "  cold_after = '2s' },\n"
        " listen = { '127.0.0.1:0', { addr = '[::1]:2525', allow = { '::1', '10.0.0.0/8' },\n"
        "   users = { bob = { password = secret 'bob', scenario = 'spring', sender = { 'shop.example' } } } } } }");
    const struct hky_engine_options *o = &p->engine;

    (void)state;
    assert_string_equal(o->hostname, "mail.shop.example");
    assert_string_equal(o->spool, "/var/spool/h");
    assert_string_equal(o->redirect, "");
    assert_string_equal(o->owner, "o@shop.example");
    assert_true(o->retry.n == 2 && o->retry.after_sec[0] == 60 && o->retry.after_sec[1] == 30);
    assert_int_equal(o->expire_sec, 86400);
    assert_true(o->bounds.recipients == 5 && o->bounds.body_memory == 10u << 20 && o->bounds.command_ms == 30000);
    assert_true(o->bounds.segment_octets == 1u << 20 && o->bounds.cold_after_ms == 2000);
    assert_int_equal(o->n_listen, 2);
    assert_true(o->listen[0].port == 0 && !o->listen[0].has_allow);
    assert_true(o->listen[1].n_allow == 2 && o->listen[1].allow[1].bits == 104);
    assert_string_equal(o->listen[1].users[0].name, "bob");
    assert_string_equal(o->listen[1].users[0].scenarios[0], "spring");
    assert_non_null(o->reaches);
    hky_policy_unref(&p);
}

/* --- explain, where --- */

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
    assert_string_equal(x.considered[0].why, "to does not have a@q.example");
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

/* A set is an index of entries, each of which stands for the same addresses by itself. */
static void sets_agree_with_their_entries(void **state)
{
    static const char *const entries[] = {"*",          "<>",       "u@x.example",   "\"u\"@x.example",     "x.example",
                                          ".x.example", ".example", "evilx.example", "\xe6\x97\xa5.example"};
    static const char *const addresses[] = {"",
                                            "u@x.example",
                                            "U@X.Example",
                                            "v@x.example",
                                            "u@a.x.example",
                                            "u@evilx.example",
                                            "u@b.a.x.example",
                                            "u@xn--wgv.example",
                                            "u@example",
                                            "u@"};

    (void)state;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        for (size_t k = 0; k < sizeof addresses / sizeof addresses[0]; k++) {
            struct hky_set *set = hky_set_new();
            struct hky_set_entry entry;
            struct hky_match_key key;
            assert_int_equal(hky_set_entry_parse(hky_str_z(entries[i]), &entry, NULL), HKY_OK);
            hky_set_add(set, &entry);
            hky_match_key_init(&key, hky_str_z(addresses[k]));
            if (hky_set_has(set, &key) != hky_address_fits(hky_str_z(entries[i]), hky_str_z(addresses[k])))
                fail_msg("%s and \"%s\"", entries[i], addresses[k]);
            hky_set_unref(&set);
        }
}

/* Whole words and what is left of them, every octet at every place. */
static void a_key_has_only_ascii_letters_lowered(void **state)
{
    struct hky_match_key k;
    char text[24];

    (void)state;
    for (size_t n = 1; n < sizeof text; n++)
        for (unsigned octet = 1; octet < 256; octet++) {
            memset(text, 'Z', n); /* the last that is lowered: a carry from the octet before would show */
            text[octet % n] = (char)octet;
            hky_match_key_init(&k, hky_str_of(text, n));
            assert_int_equal(k.n, n);
            for (size_t i = 0; i < n; i++)
                assert_int_equal((unsigned char)k.text[i], (unsigned char)hky_lower(text[i]));
            assert_int_equal(k.text[n], 0);
            assert_int_equal(k.domain_at, octet == '@' ? octet % n + 1 : n);
        }
    hky_match_key_init(&k, HKY_STR("\"a@B\"@X.Example"));
    assert_string_equal(k.text + k.domain_at, "x.example");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_only_ascii_letters_lowered),
        cmocka_unit_test(sets_agree_with_their_entries),
        cmocka_unit_test(every_condition_decides),
        cmocka_unit_test(a_list_is_read_again_when_its_file_changes),
        cmocka_unit_test(only_to_names_by_address_domain_and_list),
        cmocka_unit_test(two_workers_and_a_reload_decide_alike),
        cmocka_unit_test(order_is_override_scenario_priority_written),
        cmocka_unit_test(overrides_go_by_priority_whatever_their_scenario),
        cmocka_unit_test(rows_chain_and_stop),
        cmocka_unit_test(rows_of_a_file),
        cmocka_unit_test(identity_follows_the_table),
        cmocka_unit_test(route_from_is_for_all_its_steps),
        cmocka_unit_test(relay_defaults),
        cmocka_unit_test(a_preset_may_bring_the_user),
        cmocka_unit_test(engine_options),
        cmocka_unit_test(explain_says_why_not),
        cmocka_unit_test(explain_names_the_route_that_failed),
        cmocka_unit_test(attempts_are_seen_as_they_were),
        cmocka_unit_test(notes_go_to_the_log_so_many_a_second),
        cmocka_unit_test(a_header_is_read_when_asked_for_and_nothing_is_decided_without),
        cmocka_unit_test(where_selects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
