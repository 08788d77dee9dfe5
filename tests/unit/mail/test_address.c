#include "mail/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

#define S16 "abcdefghijklmnop"
#define S64 S16 S16 S16 S16
#define L63 S16 S16 S16 "abcdefghijklmno"

static const struct {
    const char *what, *in, *canonical, *wire; /* canonical NULL: refused; wire NULL: as `in` */
} mailboxes[] = {
    {"plain", "a@x.test", "a@x.test", NULL},
    {"local part keeps its case, domain does not", "Aa@X.TEST", "Aa@x.test", "Aa@x.test"},
    {"final dot of the domain", "a@x.test.", "a@x.test", "a@x.test"},
    {"two dots at docomo", "a..b@docomo.ne.jp", "a..b@docomo.ne.jp", "\"a..b\"@docomo.ne.jp"},
    {"two dots quoted", "\"a..b\"@docomo.ne.jp", "a..b@docomo.ne.jp", "\"a..b\"@docomo.ne.jp"},
    {"dot last at au", "abc.@ezweb.ne.jp", "abc.@ezweb.ne.jp", "\"abc.\"@ezweb.ne.jp"},
    {"dot first", ".abc@docomo.ne.jp", ".abc@docomo.ne.jp", "\".abc\"@docomo.ne.jp"},
    {"hyphen first", "-abc@docomo.ne.jp", "-abc@docomo.ne.jp", NULL},
    {"needless quotes", "\"abc\"@x.test", "abc@x.test", "abc@x.test"},
    {"needless escape", "\"a\\b c\"@x.test", "ab c@x.test", "\"ab c\"@x.test"},
    {"quote and backslash", "\"a\\\"\\\\b\"@x.test", "a\"\\b@x.test", "\"a\\\"\\\\b\"@x.test"},
    {"an @ in quotes", "\"a@gmail.com x\"@internal.example", "a@gmail.com x@internal.example",
     "\"a@gmail.com x\"@internal.example"},
    {"percent hack is a plain local part", "u%ext.test@y.test", "u%ext.test@y.test", NULL},
    {"bang path is a plain local part", "ext.test!u@y.test", "ext.test!u@y.test", NULL},
    {"shell text without blanks", "$(id)@y.test", NULL, NULL},
    {"format string", "%s%n%x@y.test", "%s%n%x@y.test", NULL},
    {"underscore in a label", "a@my_host.test", "a@my_host.test", NULL},
    {"U-label", "a@\xe6\x97\xa5\xe6\x9c\xac.jp", "a@xn--wgv71a.jp", "a@xn--wgv71a.jp"},
    {"ideographic full stop", "a@x\xe3\x80\x82jp", "a@x.jp", "a@x.jp"},
    {"sharp s is kept (non-transitional)",
     "a@stra\xc3\x9f"
     "e.de",
     "a@xn--strae-oqa.de", "a@xn--strae-oqa.de"},
    {"UTF-8 local part", "\xe3\x81\x82@x.test", "\xe3\x81\x82@x.test", NULL},
    {"IPv4 literal", "a@[127.0.0.1]", "a@[127.0.0.1]", NULL},
    {"IPv6 literal", "a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]", "a@[ipv6:2001:db8::1]"},
    {"local part of 64", S64 "@x.test", S64 "@x.test", NULL},
    {"label of 63", "a@" L63 ".test", "a@" L63 ".test", NULL},
    {"single label", "root@localhost", "root@localhost", NULL},
    {"local part of 65", "x" S64 "@x.test", NULL, NULL},
    {"label of 64", "a@" S64 ".test", NULL, NULL},
    {"literal with wrong content", "a@[127.0.0.256]", NULL, NULL},
    {"literal without end", "a@[127.0.0.1", NULL, NULL},
    {"literal of text", "a@[x.test]", NULL, NULL},
    {"no local part", "@x.test", NULL, NULL},
    {"empty quotes", "\"\"@x.test", NULL, NULL},
    {"no domain", "a@", NULL, NULL},
    {"no @", "a", NULL, NULL},
    {"two @", "a@b@c", NULL, NULL},
    {"empty", "", NULL, NULL},
    {"leading hyphen in the domain", "a@-x.test", NULL, NULL},
    {"trailing hyphen in a label", "a@x-.test", NULL, NULL},
    {"empty label", "a@x..test", NULL, NULL},
    {"dot alone", "a@.", NULL, NULL},
    {"blank", "a b@x.test", NULL, NULL},
    {"blank in the domain", "a@x test", NULL, NULL},
    {"text behind", "a@x.test>", NULL, NULL},
    {"CR LF in quotes", "\"a\r\nRCPT TO:<v@z.test>\"@x.test", NULL, NULL},
    {"escaped CR", "\"a\\\rb\"@x.test", NULL, NULL},
    {"CR LF behind", "a@x.test\r\nRCPT TO:<v@z.test>", NULL, NULL},
    {"quote left open", "\"a@x.test", NULL, NULL},
    {"escape left open", "\"a\\", NULL, NULL},
    {"overlong UTF-8", "\xc0\xae@x.test", NULL, NULL},
    {"surrogate", "\xed\xa0\x80@x.test", NULL, NULL},
    {"cut UTF-8", "\xe2\x82@x.test", NULL, NULL},
    {"bidi control",
     "a\xe2\x80\xae"
     "b@x.test",
     NULL, NULL},
    {"zero width in the domain", "a@x\xe2\x80\x8b.test", NULL, NULL},
    {"full-width @ in the domain", "a@x\xef\xbc\xa0y.test", NULL, NULL},
};

static void mailboxes_are_parsed_and_formatted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mailboxes / sizeof mailboxes[0]; i++) {
        struct hky_address a, again;
        struct hky_error e = {0};
        enum hky_err err = hky_mailbox_parse(hky_str_z(mailboxes[i].in), &a, &e);

        if (mailboxes[i].canonical == NULL) {
            if (err == HKY_OK)
                fail_msg("%s: accepted as %s", mailboxes[i].what, a.text);
            assert_string_not_equal(e.text, "");
            assert_int_equal(a.n, 0);
            continue;
        }
        if (err != HKY_OK)
            fail_msg("%s: %s", mailboxes[i].what, e.text);
        assert_string_equal(a.text, mailboxes[i].canonical);
        assert_int_equal(a.n, strlen(a.text));
        assert_int_equal(a.text[a.local_n], '@');

        struct hky_buf wire;
        hky_buf_init(&wire, 1000);
        hky_address_format(hky_address_str(&a), false, &wire);
        assert_string_equal(hky_buf_z(&wire), mailboxes[i].wire != NULL ? mailboxes[i].wire : mailboxes[i].in);
        assert_int_equal(hky_mailbox_parse(hky_buf_str(&wire), &again, NULL), HKY_OK);
        assert_string_equal(again.text, a.text);
        hky_buf_fini(&wire);
    }
}

static void raw_form_is_octet_exact_and_safe(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a..b@docomo.ne.jp", "a..b@docomo.ne.jp"},
                                           {".a.@x.test", ".a.@x.test"},
                                           {"a b@x.test", "\"a b\"@x.test"},
                                           {"a>b@x.test", "\"a>b\"@x.test"},
                                           {"a\r\nb@x.test", "\"a??b\"@x.test"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_buf wire;
        hky_buf_init(&wire, 1000);
        hky_address_format(hky_str_z(cases[i][0]), true, &wire);
        assert_string_equal(hky_buf_z(&wire), cases[i][1]);
        hky_buf_fini(&wire);
    }
}

static const struct {
    const char *what, *in;
    unsigned flags;
    const char *canonical; /* NULL: refused */
    size_t used;
} paths[] = {
    {"plain", "<a@x.test> SIZE=1", 0, "a@x.test", 10},
    {"null where allowed", "<>", HKY_PATH_MAY_BE_NULL, "", 2},
    {"null where not", "<>", HKY_PATH_MAY_BE_POSTMASTER, NULL, 0},
    {"postmaster", "<PostMaster>", HKY_PATH_MAY_BE_POSTMASTER, "", 12},
    {"postmaster where not", "<postmaster>", 0, NULL, 0},
    {"source route", "<@a.test,@b.test:u@y.test>", 0, "u@y.test", 26},
    {"source route alone", "<@a.test>", 0, NULL, 0},
    {"source route without colon", "<@a.test,u@y.test>", 0, NULL, 0},
    {"no brackets", "a@x.test", 0, NULL, 0},
    {"no end", "<a@x.test", 0, NULL, 0},
    {"blank inside", "< >", HKY_PATH_MAY_BE_NULL, NULL, 0},
    {"> in quotes", "<\"a>b\"@x.test>", 0, "a>b@x.test", 14},
    {"8-bit local part", "<\xc3\xbc@x.test>", 0, NULL, 0},
    {"8-bit local part with SMTPUTF8", "<\xc3\xbc@x.test>", HKY_PATH_UTF8, "\xc3\xbc@x.test", 11},
    {"8-bit domain", "<a@\xc3\xbc.test>", 0, NULL, 0},
    {"shell of CVE-2020-7247", "<;for i in 0 1 2 3;do read r;done;sh;exit 0;>", 0, NULL, 0},
    {"expansion of CVE-2019-10149", "<${run{\\x2Fbin\\x2Fsh\\t-c\\tid}}@localhost>", 0, NULL, 0},
};

static void paths_are_parsed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct hky_address a;
        struct hky_error e = {0};
        size_t used = 0;
        enum hky_err err = hky_path_parse(hky_str_z(paths[i].in), paths[i].flags, &a, &used, &e);

        if ((err == HKY_OK) != (paths[i].canonical != NULL))
            fail_msg("%s: %s %s", paths[i].what, a.text, e.text);
        if (err != HKY_OK)
            continue;
        assert_string_equal(a.text, paths[i].canonical);
        assert_int_equal(used, paths[i].used);
    }
}

static void path_limit_is_256(void **state)
{
    (void)state;
    char text[400];
    struct hky_address a;
    size_t used;

    for (int domain_n = 180; domain_n <= 200; domain_n++) {
        int n = snprintf(text, sizeof text, "<" S64 "@");
        for (int i = 0; i < domain_n; i++)
            text[n++] = i % 50 == 49 && i + 1 < domain_n ? '.' : 'd';
        text[n++] = '>';
        enum hky_err err = hky_path_parse(hky_str_of(text, (size_t)n), 0, &a, &used, NULL);
        assert_int_equal(err, n <= 256 ? HKY_OK : HKY_E_LIMIT);
    }
}

static void split_at_last_at_and_compare(void **state)
{
    (void)state;
    struct hky_str local, domain;

    hky_address_split(HKY_STR("a@b@x.test"), &local, &domain);
    assert_true(hky_str_eq(local, HKY_STR("a@b")));
    assert_true(hky_str_eq(domain, HKY_STR("x.test")));
    hky_address_split(HKY_STR(""), &local, &domain);
    assert_true(local.n == 0 && domain.n == 0);
    assert_true(hky_address_eq(HKY_STR("A..B@x.test"), HKY_STR("a..b@x.test")));
    assert_false(hky_address_eq(HKY_STR("a.b@x.test"), HKY_STR("a..b@x.test")));
}

static void entries_stand_for_addresses(void **state)
{
    static const struct {
        const char *entry, *address;
        bool fits;
    } cases[] = {
        {"*", "a@x.test", true},
        {"*", "", true},
        {"<>", "", true},
        {"<>", "a@x.test", false},
        {"a@x.test", "A@X.test", true},
        {"a@x.test", "b@x.test", false},
        {"a@x.test", "a@y.x.test", false},
        {"x.test", "a@X.test", true},
        {"x.test", "a@y.x.test", false},
        {"x.test", "a@evilx.test", false},
        {"x.test", "", false},
        {".x.test", "a@y.x.test", true},
        {".x.test", "a@z.y.X.test", true},
        {".x.test", "a@x.test", false},
        {".x.test", "a@evilx.test", false},
        {".x.test", "a@.x.test", false},
        {"\"a..b\"@x.test", "a..b@x.test", true},
        {"\"a\"@x.test", "a@x.test", true},
        {"\xe6\x97\xa5\xe6\x9c\xac.test", "a@xn--wgv71a.test", true},
        {".\xe6\x97\xa5\xe6\x9c\xac.test", "a@b.xn--wgv71a.test", true},
        {"a@\xe6\x97\xa5\xe6\x9c\xac.test", "a@xn--wgv71a.test", true},
        {"", "a@x.test", false},
        {".", "a@x.test", false},
        {"@x.test", "a@x.test", false},
        {"a@", "a@x.test", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (hky_address_fits(hky_str_z(cases[i].entry), hky_str_z(cases[i].address)) != cases[i].fits)
            fail_msg("%s and %s", cases[i].entry, cases[i].address);
}

static void entries_that_can_be_nobody_say_what_to_write(void **state)
{
#define FORMS "write an address (user@example.com), a domain (example.com), or .example.com"
    static const struct {
        const char *entry, *error; /* NULL: good */
    } CASES[] = {
        {"a@x.test", NULL},
        {"x.test", NULL},
        {".x.test", NULL},
        {"localhost", NULL},
        {"*", NULL},
        {"<>", NULL},
        {"X.TEST", NULL},
        {"a..b.@docomo.ne.jp", NULL},
        {"\"a b\"@x.test", NULL},
        {"\"a*b\"@x.test", NULL},
        {"\xe6\x97\xa5\xe6\x9c\xac.jp", NULL},
        {"a@[192.0.2.1]", NULL},
        {"", FORMS},
        {" ", FORMS},
        {"\xe3\x80\x80", FORMS},
        {"@", FORMS},
        {"@@", FORMS},
        {".", FORMS},
        {"..", FORMS},
        {"a@", FORMS},
        {"a@.", FORMS},
        {"a@b@c", FORMS},
        {"x..test", FORMS},
        {"..x.test", FORMS},
        {"-x.test", FORMS},
        {"x test", FORMS},
        {"a b@x.test", FORMS},
        {"a@x test", FORMS},
        {"x.test/y", FORMS},
        {"[192.0.2.300]", FORMS},
        {"a@[192.0.2.300]", FORMS},
        {"x.*.test", FORMS},
        {"**", FORMS},
        {"a\x01@x.test", FORMS},
        {"x\x7f.test", FORMS},
        {" x.test", "leave out the blanks around it"},
        {"a@x.test\t", "leave out the blanks around it"},
        {"x.test.", "leave out the dot at its end"},
        {"a@x.test.", "leave out the dot at its end"},
        {"<a@x.test>", "write the address alone, without < and >"},
        {"A B <a@x.test>", "write the address alone, without < and >"},
        {"a@x.test,b@x.test", "write one address or one domain"},
        {"x.test;y.test", "write one address or one domain"},
        {"@x.test", "write x.test for all addresses of the domain"},
        {"*@x.test", "write x.test for all addresses of the domain"},
        {"*.x.test", "write .x.test for all subdomains"},
        {"a*@x.test", FORMS},
    };
    char far[400];

    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct hky_error e = {0};
        enum hky_err err = hky_address_entry_check(hky_str_z(CASES[i].entry), &e);

        if ((err == HKY_OK) != (CASES[i].error == NULL) ||
            (CASES[i].error != NULL && strncmp(e.text, CASES[i].error, strlen(CASES[i].error)) != 0))
            fail_msg("\"%s\": %s", CASES[i].entry, err == HKY_OK ? "good" : e.text);
    }
    memset(far, 'x', sizeof far);
    assert_int_equal(hky_address_entry_check(hky_str_of(far, 399), NULL), HKY_E_SYNTAX);
    memcpy(far + 100, "@y.test", 7);
    assert_int_equal(hky_address_entry_check(hky_str_of(far, 107), NULL), HKY_E_SYNTAX);
#undef FORMS
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mailboxes_are_parsed_and_formatted),
        cmocka_unit_test(raw_form_is_octet_exact_and_safe),
        cmocka_unit_test(paths_are_parsed),
        cmocka_unit_test(path_limit_is_256),
        cmocka_unit_test(split_at_last_at_and_compare),
        cmocka_unit_test(entries_stand_for_addresses),
        cmocka_unit_test(entries_that_can_be_nobody_say_what_to_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
