/* What relays, presets and the engine are when little is written. */
#include "fixture.h"

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

/* Of users that were cut, two became one account, with one set of caps and pauses. */
static void long_users_are_accounts_of_their_own(void **state)
{
    char user[256], other[256], text[1024];

    (void)state;
    for (size_t n = 240; n < 256; n++) {
        memset(user, 'u', n);
        user[n] = '\0';
        memcpy(other, user, n + 1);
        other[n - 1] = 'v';
        snprintf(text, sizeof text,
                 "relay 'a' { host = 'h.example', user = '%s', password = secret 'p' }\n"
                 "relay 'b' { host = 'h.example', user = '%s', password = secret 'p' }",
                 user, other);
        struct hky_policy *p = load_text(text);
        assert_string_not_equal(p->relays[0].account, p->relays[1].account);
        assert_int_equal(strlen(p->relays[0].account), n + strlen("@h.example:587"));
        hky_policy_unref(&p);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relay_defaults),
        cmocka_unit_test(long_users_are_accounts_of_their_own),
        cmocka_unit_test(a_preset_may_bring_the_user),
        cmocka_unit_test(engine_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
