/* Sets, lists and the keys that they are looked up with: which addresses are in them. */
#include "fixture.h"

#include "mail/address.h"
#include "route/table/match.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_only_ascii_letters_lowered),
        cmocka_unit_test(sets_agree_with_their_entries),
        cmocka_unit_test(a_list_is_read_again_when_its_file_changes),
        cmocka_unit_test(only_to_names_by_address_domain_and_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
