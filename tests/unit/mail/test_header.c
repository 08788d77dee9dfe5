#include "mail/charset.h"
#include "mail/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define YAMADA "\xe5\xb1\xb1\xe7\x94\xb0\xe5\xa4\xaa\xe9\x83\x8e" /* UTF-8 */
#define FFFD   "\xef\xbf\xbd"

static void fields_are_found_with_their_folds(void **state)
{
    static const struct {
        const char *name, *value, *whole;
    } expected[] = {
        {"", " leading\r\n more", " leading\r\n more\r\n"},
        {"From", " a@x.test", "From: a@x.test\r\n"},
        {"Subject", " one\r\n two\r\n\tthree", "Subject: one\r\n two\r\n\tthree\r\n"},
        {"X-Blank", " v", "X-Blank \t: v\r\n"},
        {"", "no colon here", "no colon here\r\n"},
        {"", ": no name", ": no name\r\n"},
        {"", "two words: x", "two words: x\r\n"},
        {"Empty", "", "Empty:\r\n"},
        {"To", "b@y.test:1", "To:b@y.test:1\r\n"},
    };
    struct hky_field f;
    struct hky_buf section;
    size_t at = 0, n = 0;

    (void)state;
    hky_buf_init(&section, 4096);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        hky_buf_add_z(&section, expected[i].whole);
    hky_buf_add_z(&section, "\r\nBody: x\r\n");
    for (; hky_field_next(hky_buf_str(&section), &at, &f); n++) {
        assert_true(n < sizeof expected / sizeof expected[0]);
        if (!hky_str_eq(f.name, hky_str_z(expected[n].name)) || !hky_str_eq(f.value, hky_str_z(expected[n].value)) ||
            !hky_str_eq(f.whole, hky_str_z(expected[n].whole)))
            fail_msg("%zu: name '%.*s' value '%.*s'", n, HKY_STR_ARG(f.name), HKY_STR_ARG(f.value));
    }
    assert_int_equal(n, sizeof expected / sizeof expected[0]);
    assert_int_equal(hky_header_octets(hky_buf_str(&section)), at + 2);
    assert_true(hky_field_find(hky_buf_str(&section), "SUBJECT", &f));
    assert_false(hky_field_find(hky_buf_str(&section), "Body", &f));
    hky_buf_fini(&section);
}

static void header_ends_at_the_empty_line(void **state)
{
    (void)state;
    assert_int_equal(hky_header_octets(HKY_STR("\r\nbody")), 2);
    assert_int_equal(hky_header_octets(HKY_STR("A: b\r\n\r\nbody")), 8);
    assert_int_equal(hky_header_octets(HKY_STR("A: b\r\n \r\nB: c\r\n")), 15);
    assert_int_equal(hky_header_octets(HKY_STR("")), 0);
}

static const struct {
    const char *what, *in, *out;
} decodes[] = {
    {"plain", " Hello", "Hello"},
    {"folds", " a\r\n b\r\n\tc", "a b\tc"},
    {"UTF-8 base64", "=?UTF-8?B?5bGx55Sw5aSq6YOO?=", YAMADA},
    {"UTF-8 quoted", "=?utf-8?q?=E5=B1=B1_=E7=94=b0?= x", "\xe5\xb1\xb1 \xe7\x94\xb0 x"},
    {"ISO-2022-JP", "=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?=", YAMADA},
    {"Shift_JIS", "=?Shift_JIS?B?jlKTY5G+mFk=?=", YAMADA},
    {"EUC-JP", "=?EUC-JP?B?u7PFxMLAz7o=?=", YAMADA},
    {"language tag", "=?ISO-2022-JP*ja?B?GyRCOzNFREJATzobKEI=?=", YAMADA},
    {"NEC row 13", "=?ISO-2022-JP?B?GyRCLSEbKEI=?=", "\xe2\x91\xa0"},
    {"IBM extension in ISO-2022-JP", "=?iso-2022-jp?B?GyRCfGIbKEI=?=", "\xe9\xab\x99"},
    {"half-width katakana", "=?ISO-2022-JP?B?GyhJMRsoQg==?=", "\xef\xbd\xb1"},
    {"no return to ASCII", "=?ISO-2022-JP?B?GyRCOzNFREJATzo=?=", YAMADA},
    {"windows-1252 as ISO-8859-1", "=?iso-8859-1?Q?caf=E9=80?=", "caf\xc3\xa9\xe2\x82\xac"},
    {"between text", "Re: =?UTF-8?B?5bGx?= ok", "Re: \xe5\xb1\xb1 ok"},
    {"adjacent words", "=?UTF-8?B?5bGx?= =?UTF-8?B?55Sw?=", "\xe5\xb1\xb1\xe7\x94\xb0"},
    {"adjacent words over folds", "=?UTF-8?B?5bGx?=\r\n =?UTF-8?B?55Sw?=", "\xe5\xb1\xb1\xe7\x94\xb0"},
    {"adjacent words without blank", "=?UTF-8?B?5bGx?==?UTF-8?B?55Sw?=", "\xe5\xb1\xb1\xe7\x94\xb0"},
    {"character split between words", "=?UTF-8?Q?=E5=B1?= =?utf-8?Q?=B1?=", "\xe5\xb1\xb1"},
    {"adjacent words of two charsets", "=?UTF-8?B?5bGx?= =?Shift_JIS?B?k2M=?=", "\xe5\xb1\xb1\xe7\x94\xb0"},
    {"in quotes", "\"=?UTF-8?B?5bGx?=\" <a@x>", "\"\xe5\xb1\xb1\" <a@x>"},
    {"missing padding", "=?UTF-8?B?5bGx55Sw5aSq6YOOYQ?=", YAMADA "a"},
    {"unknown charset stays", "=?x-unknown?B?5bGx?= a", "=?x-unknown?B?5bGx?= a"},
    {"converter by path stays", "=?../../x//?B?5bGx?=", "=?../../x//?B?5bGx?="},
    {"UTF-16 stays", "=?UTF-16?B?5bGx?=", "=?UTF-16?B?5bGx?="},
    {"bad base64 stays", "=?UTF-8?B?5b!x?=", "=?UTF-8?B?5b!x?="},
    {"bad quoted stays", "=?UTF-8?Q?=G1?=", "=?UTF-8?Q?=G1?="},
    {"half a word stays", "=?UTF-8?B?5bGx", "=?UTF-8?B?5bGx"},
    {"invalid octets in a word", "=?UTF-8?Q?a=FFb?=", "a" FFFD "b"},
    {"line end in a word", "=?UTF-8?Q?a=0D=0ABcc:_v@z?=", "a  Bcc: v@z"},
    {"NUL in a word", "=?UTF-8?Q?a=00b?=", "a b"},
    {"raw UTF-8", " " YAMADA, YAMADA},
    {"raw octets", " a\xff\xe5\xb1z", "a" FFFD FFFD FFFD "z"},
    {"raw escape", " a\x1b[2J", "a [2J"},
    {"raw ISO-2022-JP", "\x1b$B;3EDB@O:\x1b(B sale", YAMADA " sale"},
    {"raw ISO-2022-JP over a fold", "\x1b$B;3\x1b(B\r\n \x1b$BED\x1b(B", "\xe5\xb1\xb1 \xe7\x94\xb0"},
    {"raw ISO-2022-JP beside a word", "=?UTF-8?B?5bGx?= \x1b$BED\x1b(B", "\xe5\xb1\xb1 \xe7\x94\xb0"},
    {"raw Shift_JIS", "\x8e\x52\x93\x63\x91\xbe\x98\x59 sale", YAMADA " sale"},
    {"raw EUC-JP", "\xbb\xb3\xc5\xc4\xc2\xc0\xcf\xba", YAMADA},
    {"raw Latin-1 is not known", "caf\xe9", "caf" FFFD},
    {"raw Shift_JIS that is cut", "\x8e\x52\x93", FFFD "R" FFFD},
    {"raw ISO-2022-JP with an escape of the terminal", "\x1b$B;3\x1b(B\x1b[2J", "\xe5\xb1\xb1 [2J"},
    {"empty", "", ""},
};

static void values_are_decoded(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decodes / sizeof decodes[0]; i++) {
        struct hky_buf out;

        hky_buf_init(&out, 4096);
        hky_field_decode(hky_str_z(decodes[i].in), &out);
        if (strcmp(hky_buf_z(&out), decodes[i].out) != 0)
            fail_msg("%s: '%s'", decodes[i].what, hky_buf_z(&out));
        hky_buf_fini(&out);
    }
}

static void phrases_are_decoded(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"Shop", "Shop"},
        {"\"Shop\"", "Shop"},
        {"\"Shop\" Tokyo", "Shop Tokyo"},
        {"Shop \"of\" \"Tokyo\"", "Shop of Tokyo"},
        {"\"Shop\"\r\n \"Tokyo\"", "Shop Tokyo"},
        {"\"John Q. \\\"JQ\\\" Public\"", "John Q. \"JQ\" Public"},
        {"\"a\\\\b\"", "a\\b"},
        {"\"=?UTF-8?B?5bGx?=\"", "\xe5\xb1\xb1"},
        {"\"=?UTF-8?B?5bGx?=\" =?UTF-8?B?55Sw?=", "\xe5\xb1\xb1 \xe7\x94\xb0"},
        {"=?UTF-8?Q?=22a=22?=", "\"a\""},
        {"\"" YAMADA "\"", YAMADA},
        {"\"\x1b$B;3ED\x1b(B\"", "\xe5\xb1\xb1\xe7\x94\xb0"},
        {"\"\x83\x5c\x83\x40\"", "\xe3\x82\xbd\xe3\x82\xa1"},
        {"\"\"", ""},
        {"\"half", "\"half"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_buf out;

        hky_buf_init(&out, 4096);
        hky_phrase_decode(hky_str_z(cases[i].in), &out);
        if (strcmp(hky_buf_z(&out), cases[i].out) != 0)
            fail_msg("%s: '%s', expected '%s'", cases[i].in, hky_buf_z(&out), cases[i].out);
        hky_buf_fini(&out);
    }
}

static void phrases_are_encoded(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"Shop", "Shop"},
        {"Shop of Tokyo", "Shop of Tokyo"},
        {"John Q. Public", "\"John Q. Public\""},
        {"a \"b\" \\c", "\"a \\\"b\\\" \\\\c\""},
        {"a@x.test", "\"a@x.test\""},
        {YAMADA, "=?UTF-8?B?5bGx55Sw5aSq6YOO?="},
        {"=?UTF-8?B?5bGx?=", "=?UTF-8?B?PT9VVEYtOD9CPzViR3g/PQ==?="},
        {"a\r\nBcc: v@z", "=?UTF-8?B?YSAgQmNjOiB2QHo=?="},
        {"a\xff", "=?UTF-8?B?Ye+/vQ==?="},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_buf out;

        hky_buf_init(&out, 4096);
        hky_phrase_encode(hky_str_z(cases[i].in), &out);
        assert_string_equal(hky_buf_z(&out), cases[i].out);
        hky_buf_fini(&out);
    }
}

static void long_text_is_folded_and_comes_back(void **state)
{
    static const char *const pieces[] = {"word ", YAMADA, "x", "  ", "abcdefghijklmnopqrstuvwxyz"};
    (void)state;
    for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
        struct hky_buf in, wire, back;

        hky_buf_init(&in, 1 << 16);
        hky_buf_init(&wire, 1 << 16);
        hky_buf_init(&back, 1 << 16);
        hky_buf_add_z(&in, "begin ");
        for (int i = 0; i < 200; i++)
            hky_buf_add_z(&in, pieces[k]);
        hky_buf_add_z(&in, " end");
        hky_text_encode(hky_buf_str(&in), 9, &wire);
        for (size_t at = 0, line = 9; at < wire.n; at++) {
            line = wire.p[at] == '\n' ? 0 : line + 1;
            assert_true(line < 700);
        }
        hky_field_decode(hky_buf_str(&wire), &back);
        assert_string_equal(hky_buf_z(&back), hky_buf_z(&in));
        hky_buf_fini(&in);
        hky_buf_fini(&wire);
        hky_buf_fini(&back);
    }
}

static const struct {
    const char *what, *in;
    bool is_bad;
    size_t n;
    const char *names[3], *addresses[3];
} lists[] = {
    {"bare", " a@x.test", false, 1, {""}, {"a@x.test"}},
    {"name", " Taro <a@x.test>", false, 1, {"Taro"}, {"a@x.test"}},
    {"two", "a@x.test, B <b@y.test>", false, 2, {"", "B"}, {"a@x.test", "b@y.test"}},
    {"quoted name with comma", "\"Yamada, Taro\" <a@x.test>", false, 1, {"\"Yamada, Taro\""}, {"a@x.test"}},
    {"quoted name with bracket and quote",
     "\"a <z@z.test> \\\" b\" <a@x.test>",
     false,
     1,
     {"\"a <z@z.test> \\\" b\""},
     {"a@x.test"}},
    {"ISO-2022-JP word",
     "=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?= <a@x.test>",
     false,
     1,
     {"=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?="},
     {"a@x.test"}},
    {"words over folds",
     "=?UTF-8?B?5bGx?=\r\n =?UTF-8?B?55Sw?=\r\n <a@x.test>",
     false,
     1,
     {"=?UTF-8?B?5bGx?=\r\n =?UTF-8?B?55Sw?="},
     {"a@x.test"}},
    {"comma in a quoted word", "=?utf-8?Q?a,b?= <a@x.test>", false, 1, {"=?utf-8?Q?a,b?="}, {"a@x.test"}},
    {"an address hidden in a word",
     "=?utf-8?Q?x <z@z.test>, y?= <a@x.test>",
     false,
     2,
     {"=?utf-8?Q?x", "y?="},
     {"z@z.test", "a@x.test"}},
    {"raw UTF-8 name", YAMADA " <a@x.test>", false, 1, {YAMADA}, {"a@x.test"}},
    {"raw Shift_JIS name with 0x5c and 0x40",
     "\x83\x5c\x83\x40 <a@x.test>",
     false,
     1,
     {"\x83\x5c\x83\x40"},
     {"a@x.test"}},
    {"raw ISO-2022-JP name with delimiters",
     "\x1b$B;,\"<\x1b(B <a@x.test>",
     false,
     1,
     {"\x1b$B;,\"<\x1b(B"},
     {"a@x.test"}},
    {"comment behind gives the name", "a@x.test (Taro (the) Y.)", false, 1, {"Taro (the) Y."}, {"a@x.test"}},
    {"comments inside are skipped", "a(c)@(d)x(e).test", false, 1, {"e"}, {"a@x.test"}},
    {"comment before the name", "(c) Taro <a@x.test>", false, 1, {"Taro"}, {"a@x.test"}},
    {"comment as the only name", "(Taro) <a@x.test>", false, 1, {"Taro"}, {"a@x.test"}},
    {"comment with a bracket", "Taro (<z@z.test>) <a@x.test>", false, 1, {"Taro"}, {"a@x.test"}},
    {"folded address", "Taro <\r\n a@x.test\r\n >", false, 1, {"Taro"}, {"a@x.test"}},
    {"group",
     "Friends: a@x.test, B <b@y.test>; , c@z.test",
     false,
     3,
     {"", "B", ""},
     {"a@x.test", "b@y.test", "c@z.test"}},
    {"empty group", "undisclosed-recipients:;", false, 0, {0}, {0}},
    {"carrier address", "<a..b@docomo.ne.jp>", false, 1, {""}, {"a..b@docomo.ne.jp"}},
    {"quoted carrier address", "\"a..b\"@docomo.ne.jp", false, 1, {""}, {"a..b@docomo.ne.jp"}},
    {"source route", "<@a.test,@b.test:u@y.test>", false, 1, {""}, {"u@y.test"}},
    {"name is an address", "a@x.test <a@x.test>", false, 1, {"a@x.test"}, {"a@x.test"}},
    {"dots in the name", "John Q. Public <a@x.test>", false, 1, {"John Q. Public"}, {"a@x.test"}},
    {"empty entries", ", ,a@x.test,,", false, 1, {""}, {"a@x.test"}},
    {"nothing", "  \r\n ", false, 0, {0}, {0}},
    {"words", "no address here", true, 0, {0}, {0}},
    {"words before the address", "Taro a@x.test", true, 0, {0}, {0}},
    {"one good, one bad", "bad, a@x.test", true, 1, {""}, {"a@x.test"}},
    {"empty brackets", "Taro <>", true, 0, {0}, {0}},
    {"bracket left open", "Taro <a@x.test", true, 1, {"Taro"}, {"a@x.test"}},
    {"text behind the bracket", "Taro <a@x.test> junk", true, 1, {"Taro"}, {"a@x.test"}},
    {"two brackets", "<z@z.test> <a@x.test>", true, 1, {""}, {"a@x.test"}},
    {"quote left open", "\"Taro <a@x.test>", false, 1, {"\"Taro"}, {"a@x.test"}},
    {"parenthesis left open", "(Taro <a@x.test>", false, 1, {"(Taro"}, {"a@x.test"}},
    {"domain confusion",
     "\"xclow3n@gmail.com x\"@internal.example",
     false,
     1,
     {""},
     {"xclow3n@gmail.com x@internal.example"}},
};

static void mailboxes_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct hky_mailbox m[3];
        bool is_bad;
        struct hky_str in = hky_str_z(lists[i].in);
        size_t n = hky_mailboxes_parse(in, m, 3, &is_bad);

        if (n != lists[i].n || is_bad != lists[i].is_bad)
            fail_msg("%s: %zu mailboxes, bad %d", lists[i].what, n, is_bad);
        for (size_t k = 0; k < n; k++) {
            if (!hky_str_eq(m[k].name, hky_str_z(lists[i].names[k])) ||
                strcmp(m[k].address.text, lists[i].addresses[k]) != 0)
                fail_msg("%s: %zu is '%.*s' %s", lists[i].what, k, HKY_STR_ARG(m[k].name), m[k].address.text);
            assert_true(m[k].span.p >= in.p && m[k].span.p + m[k].span.n <= in.p + in.n);
        }
    }
}

#define ISHIKAWA "\x1b$B@P@n\x1b(B"    /* has '@' */
#define A_E_O    "\x1b$B$\"$($*\x1b(B" /* has a quote and a parenthesis */
#define SORA     "\x83\x5c\x83\x89"    /* Shift_JIS, has a backslash */

static const struct {
    const char *what, *in;
    const char *author; /* NULL: programs differ */
} authors[] = {
    {"alone", " a@x.test", "a@x.test"},
    {"bracket", "Shop <a@x.test>", "a@x.test"},
    {"fold", "Shop\r\n <a@x.test>", "a@x.test"},
    {"quoted name", "\"Doe, John\" <a@x.test>", "a@x.test"},
    {"encoded name with a comma", "=?utf-8?Q?a,b?= <a@x.test>", "a@x.test"},
    {"carrier address", "<a..b.@docomo.ne.jp>", "a..b.@docomo.ne.jp"},
    {"quoted carrier address", "x <\"a..b\"@docomo.ne.jp>", "a..b@docomo.ne.jp"},
    {"comments", "(c) a@x.test (d (e))", "a@x.test"},
    {"comment in the domain", "a@(c)x.test", "a@x.test"},
    {"literal", "<a@[IPv6:::1]>", "a@[ipv6:::1]"},
    {"quoted name is an address", "\"ceo@victim.example\" <a@x.test>", "a@x.test"},
    {"comment is an address", "<a@x.test> (ceo@victim.example)", "a@x.test"},
    {"name is the same address", "A@X.test <a@x.test>", "a@x.test"},
    {"name with an @", "Shop @ Tokyo <a@x.test>", "a@x.test"},
    {"name with a backslash", "O\\'Reilly <a@x.test>", "a@x.test"},
    {"group of one", "Shop: a@x.test;", "a@x.test"},
    {"UTF-8", YAMADA " <a@x.test>", "a@x.test"},
    {"JIS", "\x1b$B;3ED\x1b(B <a@x.test>", "a@x.test"},
    {"JIS with delimiters", "\x1b$B;,\"<\x1b(B <a@x.test>", "a@x.test"},
    {"JIS with an @", ISHIKAWA " <a@x.test>", "a@x.test"},
    {"JIS with an @ and quotes", ISHIKAWA " " A_E_O " <a@x.test>", "a@x.test"},
    {"JIS that looks like an address without a dot", "\x1b$B;T@n2V;R\x1b(B <a@x.test>", "a@x.test"},
    {"JIS X 0212, Roman and half-width", "\x1b$(D0!\x1b(J a \x1b(I12\x1b(B <a@x.test>", "a@x.test"},
    {"JIS in quotes", "\"" ISHIKAWA "\" <a@x.test>", "a@x.test"},
    {"Shift_JIS", SORA " <a@x.test>", "a@x.test"},
    {"Shift_JIS in quotes", "\"" SORA "\x83\x5c\" <a@x.test>", "a@x.test"},
    {"Shift_JIS with a wide blank", "\x8e\x52\x81\x40\x91\xbe A. <a@x.test>", "a@x.test"},
    {"Latin-1", "Jos\xe9 <a@x.test>", "a@x.test"},

    {"nobody", "", NULL},
    {"empty group", "undisclosed-recipients:;", NULL},
    {"two", "a@x.test, b@x.test", NULL},
    {"two brackets", "<ceo@victim.example> <a@x.test>", NULL},
    {"a malformed entry", "CEO ceo@victim.example, a@x.test", NULL},
    {"text behind the bracket", "<a@x.test> ceo@victim.example", NULL},
    {"name is another address", "ceo@victim.example <a@x.test>", NULL},
    {"name is another address, folded", "ceo@victim\r\n . example <a@x.test>", NULL},
    {"name is another address, with a comment", "ceo@(c)victim.example <a@x.test>", NULL},
    {"name is another address, of another script", "ceo@\xe4\xbe\x8b\xe3\x80\x82jp <a@x.test>", NULL},
    {"name is a literal", "ceo@[192.0.2.1] <a@x.test>", NULL},
    {"name has a quoted local part", "\"ceo\"@victim.example <a@x.test>", NULL},
    {"group with an address as its name", "ceo@victim.example: a@x.test;", NULL},
    {"comment without an end", "ceo@victim.example (<a@x.test>", NULL},
    {"quote without an end", "CEO \"<a@x.test>", NULL},
    {"bracket without an end", "CEO <a@x.test", NULL},
    {"a comma in a word", "ceo@victim.example =?utf-8?q?,?= <a@x.test>", NULL},
    {"a comma behind a backslash", "ceo@victim.example\\, <a@x.test>", NULL},
    {"a quote behind a backslash", "\\\" ceo@victim.example \" <a@x.test>", NULL},
    {"a parenthesis behind a backslash", "\\( x ) <a@x.test>", NULL},
    {"a closing bracket too many", "\"ceo@victim.example\"> <a@x.test>", NULL},
    {"a closing parenthesis too many", "\",,\"ceo\"@victim.example\") <a@x.test>", NULL},
    {"a comma in a word behind a name", "\"ceo@victim.example\" =?utf-8?q?,?= <a@x.test>", NULL},
    {"source route", "<@victim.example:a@x.test>", NULL},
    {"an address in the local part", "<\"ceo@victim.example> x\"@x.test>", NULL},
    {"an address in a comment of the address", "<ceo(@victim.example>)@x.test>", NULL},
    {"a word as the local part", "<=?utf-8?q?ceo=40victim.example=3e?=@x.test>", NULL},
    {"JIS without an end", "\x1b$B <ceo@victim.example>,\r\n <a@x.test>", NULL},
    {"JIS that spells an address", "\x1b$B!!<ceo@victim.example>!\x1b(B <a@x.test>", NULL},
    {"JIS that spells an entry", "\x1b$B!!,ceo@victim.example,\x1b(B <a@x.test>", NULL},
    {"JIS that spells an entry, not in pairs", "\x1b$B!!,ceo@victm,\x1b(B <a@x.test>", NULL},
    {"JIS without an end, one label", "\x1b$B <ceo@victim>,\r\n <a@x.test>", NULL},
    {"JIS with a blank", "\x1b$B!! <ceo@victim>,!\x1b(B <a@x.test>", NULL},
    {"Korean", "\x1b$)C!!\x1b(B <a@x.test>", NULL},
    {"another escape sequence", "\x1b[1m <a@x.test>", NULL},
    {"a quote in a pair, one label", "\"\x81\x5c\" <a@x.test> (\" <ceo@victim> )", NULL},
    {"JIS that spells an address and a quote", "\x1b$B!,ceo@victim.example\"\x1b(B <a@x.test>", NULL},
    {"JIS in a comment, whose end is another one to others", "a@x.test (" ISHIKAWA ")", NULL},
    {"a quote in a pair", "\"\x81\x5c\" <a@x.test> (\" <ceo@victim.example> )", NULL},
    {"a parenthesis behind a pair", "(\x81\x5c) <ceo@victim.example> (x)) <a@x.test>", NULL},
    {"a name beside JIS", "\"ceo@victim.example\" " ISHIKAWA " <a@x.test>", NULL},
};

static void an_author_is_clear_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof authors / sizeof authors[0]; i++) {
        struct hky_address a = {0};
        bool is_clear = hky_author_is_clear(hky_str_z(authors[i].in), &a);

        if (is_clear != (authors[i].author != NULL) || (is_clear && strcmp(a.text, authors[i].author) != 0))
            fail_msg("%s: %d %s", authors[i].what, is_clear, a.text);
    }
}

static const struct {
    const char *in, *out;
} bare_names[] = {
    {"root", "root@O"},
    {" root\r\n", " root@O\r\n"},
    {"root, a@x.test,joe", "root@O, a@x.test,joe@O"},
    {"root (Cron Daemon)", "root@O (Cron Daemon)"},
    {"(Cron) root", "(Cron) root@O"},
    {"Admin <root>, \"B\" < joe >", "Admin <root@O>, \"B\" < joe@O >"},
    {"root,", "root@O,"},
    {"List: root, joe;, kim", "List: root@O, joe@O;, kim@O"},
    {"\"Doe, John, MD\" <a@b.test>, root", "\"Doe, John, MD\" <a@b.test>, root@O"},
    {"\"Doe, \\\", John, MD\" <a@b.test>", NULL},
    {"\"a,b,c\"@x.test", NULL},
    {"\"root\"", NULL},
    {"=?utf-8?Q?Shop,Team,Tokyo?= <x@y.test>", NULL},
    {"z@y.test (Sales, Support, Team)", NULL},
    {"z@y.test (Sales (a, b, c), Support, Team), root", "z@y.test (Sales (a, b, c), Support, Team), root@O"},
    {"z@y.test, (a, b, c)", NULL},
    {"a,b,c: x@y.test;", "a@O,b@O,c: x@y.test;"},
    {"\x1b$B!,ab!,\x1b(B <x@y.test>", NULL},
    {"\x83\x5c,root", NULL},
    {"<@a,b,@c:u@y.test>", NULL},
    {"\"Doe, John, MD <a@b.test>", NULL},
    {"(Doe, John, MD <a@b.test>", NULL},
    {"=?utf-8?Q?Shop a,Team,Tokyo?= <x@y.test>", NULL},
    {"no address here, root", NULL},
    {"root <>", NULL},
    {"", NULL},
};

static void bare_names_are_completed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bare_names / sizeof bare_names[0]; i++) {
        const char *wanted = bare_names[i].out != NULL ? bare_names[i].out : bare_names[i].in;
        struct hky_buf out;

        hky_buf_init(&out, 4096);
        hky_mailboxes_complete(hky_str_z(bare_names[i].in), "O", &out);
        if (!hky_str_eq(hky_buf_str(&out), hky_str_z(wanted)))
            fail_msg("%s: %s", bare_names[i].in, hky_buf_z(&out));
        hky_buf_fini(&out);
    }
}

static void more_than_max_are_counted(void **state)
{
    struct hky_mailbox m[1];
    bool is_bad;

    (void)state;
    assert_int_equal(hky_mailboxes_parse(HKY_STR("a@x.test, b@x.test, c@x.test"), m, 1, &is_bad), 3);
    assert_string_equal(m[0].address.text, "a@x.test");
    assert_int_equal(hky_mailboxes_parse(HKY_STR("a@x.test, b@x.test"), NULL, 0, &is_bad), 2);
    assert_false(is_bad);
    assert_int_equal(hky_mailboxes_parse(HKY_STR("a@x.test, bad, b@x.test"), m, 1, &is_bad), 2);
    assert_true(is_bad);
}

/* Each of these made some program quadratic or recursive. The bound is wide: sanitizers and busy machines are slow. */
static void hostile_values_take_linear_time(void **state)
{
    static const char *const pieces[] = {
        "a@x.test, ", "(",   "\"",         "<",     "=?",  "=?utf-8?q?", "\x1b$B",
        "g:",         "\\(", "=?u?q?a?= ", "\r\n ", "a (", "<a@x>\"",    "=?utf-8?b?YQ==?="};
    (void)state;
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct hky_buf in, out;
        struct hky_mailbox m[2];
        struct hky_address author;
        bool is_bad;
        clock_t start = clock();

        hky_buf_init(&in, 8 << 20);
        hky_buf_init(&out, 32 << 20);
        while (in.n < 2000000)
            hky_buf_add_z(&in, pieces[i]);
        hky_mailboxes_parse(hky_buf_str(&in), m, 2, &is_bad);
        hky_field_decode(hky_buf_str(&in), &out);
        hky_buf_add_z(&in, ", a@x.test");
        (void)hky_author_is_clear(hky_buf_str(&in), &author);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds > 5)
            fail_msg("2 MB of '%s' took %.1f s", pieces[i], seconds);
        hky_buf_fini(&in);
        hky_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found_with_their_folds),
        cmocka_unit_test(header_ends_at_the_empty_line),
        cmocka_unit_test(values_are_decoded),
        cmocka_unit_test(phrases_are_decoded),
        cmocka_unit_test(phrases_are_encoded),
        cmocka_unit_test(long_text_is_folded_and_comes_back),
        cmocka_unit_test(mailboxes_are_found),
        cmocka_unit_test(an_author_is_clear_or_not),
        cmocka_unit_test(bare_names_are_completed),
        cmocka_unit_test(more_than_max_are_counted),
        cmocka_unit_test(hostile_values_take_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
