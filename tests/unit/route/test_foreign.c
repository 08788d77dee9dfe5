/* Characters that look like others or like nothing, in every kind of string that a policy has. */
#include "fixture.h"

#include "route/table/foreign.h"

#define REST "\nroute 'rest' { priority = 900, to = '*', via = 'own' }"

static const struct {
    const char *name, *text, *said;
    bool may_be_meant; /* in a name that people choose */
} characters[] = {
    {"a full-width letter", "\xef\xbd\x81", "U+FF41 \"\xef\xbd\x81\" (a full-width character)", true},
    {"a full-width digit", "\xef\xbc\x91", "U+FF11 \"\xef\xbc\x91\" (a full-width character)", true},
    {"the blank of Japanese texts", "\xe3\x80\x80", "U+3000 (a full-width blank)", true},
    {"a no-break space", "\xc2\xa0", "U+00A0 (no-break space)", false},
    {"a narrow no-break space", "\xe2\x80\xaf", "U+202F (a blank that is no ordinary one)", false},
    {"a zero width space", "\xe2\x80\x8b", "U+200B (zero width space, invisible)", false},
    {"a joiner", "\xe2\x80\x8d", "U+200D (an invisible character)", false},
    {"a word joiner", "\xe2\x81\xa0", "U+2060 (an invisible character)", false},
    {"a byte order mark", "\xef\xbb\xbf", "U+FEFF (byte order mark, invisible)", false},
    {"a soft hyphen", "\xc2\xad", "U+00AD (soft hyphen, invisible)", false},
    {"a direction mark", "\xe2\x80\x8e", "U+200E (direction mark, invisible)", false},
};

#define LOGIN(name, rest) "engine { listen = { addr = '127.0.0.1:2525', users = { ['" name "'] = { " rest " } } } }\n"

/* %s is where the character is. A password is only warned of, and not shown. */
static const struct {
    const char *name, *policy, *key;
    bool is_name, is_password;
} values[] = {
    {"user", "relay 'a' { host = 'a.example', user = 'us%ser', password = secret 'p' }", "relay \"a\": user", 0, 0},
    {"password", "relay 'a' { host = 'a.example', user = 'u', password = 'pass%sword' }", "relay \"a\": password", 0,
     1},
    {"host", "relay 'a' { host = 'smtp%s.a.example' }", "relay \"a\": host", 0, 0},
    {"from", "relay 'a' { host = 'a.example', from = 'us%ser@a.example' }", "relay \"a\": from", 0, 0},
    {"the domain of from", "relay 'a' { host = 'a.example', from = 'u@a%s.example' }", "relay \"a\": from", 0, 0},
    {"envelope", "relay 'a' { host = 'a.example', envelope = 'u%s@a.example' }", "relay \"a\": envelope", 0, 0},
    {"sends_as", "relay 'a' { host = 'a.example', sends_as = { 'b.example', 'a%s.example' } }", "relay \"a\": sends_as",
     0, 0},
    {"to", RELAYS "route 'r' { to = { 'b.example', 'u%sv@a.example' }, via = 'a' }" REST, "route \"r\": to", 0, 0},
    {"mx", RELAYS "route 'r' { to = '*', mx = '.out%slook.com', via = 'a' }" REST, "route \"r\": mx", 0, 0},
    {"sender", RELAYS "route 'r' { to = '*', sender = 'a%s.example', via = 'a' }" REST, "route \"r\": sender", 0, 0},
    {"scenario", RELAYS "route 'r' { to = '*', scenario = 'spr%sing', via = 'a' }" REST, "route \"r\": scenario", 1, 0},
    {"tag", RELAYS "route 'r' { to = '*', tag = { 'x', 'ur%sgent' }, via = 'a' }" REST, "route \"r\": tag", 1, 0},
    {"header", RELAYS "route 'r' { to = '*', header = { ['X-Foo'] = 'b%sc' }, via = 'a' }" REST, "route \"r\": header",
     1, 0},
    {"relay", "relay 'a%sb' { host = 'a.example' }", "relay", 1, 0},
    {"arm", RELAYS "route 'r' { to = '*', via = split 's' { { arm = 'x%sy', share = 100, via = 'a' } } }" REST,
     "split \"s\": arm", 1, 0},
    {"name of a row",
     "rows { { name = 'r%ss', host = 'a.example', to = '*' } }"
     "\nrelay 'own' { mx = true }" REST,
     "name", 1, 0},
    {"login", LOGIN("ne%sws", "password = secret 'p'"), "user \"ne", 0, 0},
    {"sender of a login", LOGIN("news", "password = secret 'p', sender = 'a%s.example'"), "user \"news\": sender", 0,
     0},
    {"scenario of a login", LOGIN("news", "password = secret 'p', scenario = 'spr%sing'"), "user \"news\": scenario", 1,
     0},
    {"step", RELAYS "route 'r' { to = '*', via = { step 'a' { reply_to = 'u%s@a.example' } } }" REST,
     "step \"a\": reply_to", 0, 0},
    {"cap", "relay 'a' { host = 'a.example', cap = '10%s/min' }", "relay \"a\": cap", 0, 0},
    {"tls", "relay 'a' { host = 'a.example', tls = 'start%stls' }", "relay \"a\": tls", 0, 0},
    {"timeout", "relay 'a' { host = 'a.example', timeout = { dot = '1%s0s' } }", "relay \"a\": dot", 0, 0},
    {"class", RELAYS "route 'r' { to = '*', via = { 'b', step 'a' { on = 'filt%sered' } } }" REST, "step \"a\": on", 0,
     0},
};

static const struct hky_problem *find(const struct hky_problems *problems, const char *text)
{
    for (size_t i = 0; i < problems->n; i++)
        if (strstr(problems->items[i].text, text) != NULL)
            return &problems->items[i];
    return NULL;
}

static void check(size_t v, size_t c)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    const struct hky_problem *problem;
    const char *at = strstr(values[v].policy, "%s");
    bool is_warning = values[v].is_password || (values[v].is_name && characters[c].may_be_meant);
    char text[1200], said[80];

    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - values[v].policy), values[v].policy, characters[c].text, at + 2);
    snprintf(said, sizeof said, "%.6s", characters[c].said);
    folder_open(&f);
    folder_write(&f, "policy.lua", text);
    p = load_folder(&f, &problems);
    problem = find(&problems, values[v].is_password ? said : characters[c].said);
    if (problem == NULL || (problem->level == HKY_PROBLEM_WARNING) != is_warning || (p != NULL) != is_warning ||
        strstr(problem->text, values[v].key) == NULL ||
        strstr(problem->text, values[v].is_password ? ": type it again" : ": write \"") == NULL ||
        (values[v].is_password && strstr(problem->text, "pass") != strstr(problem->text, "password:"))) {
        problems_print(&problems);
        fail_msg("%s in %s is not told as it should be", characters[c].name, values[v].name);
    }
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* A third of the pairs, in which each value has four of the characters. */
static void each_is_shown_with_what_to_write(void **state)
{
    (void)state;
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
        for (size_t c = v % 3; c < sizeof characters / sizeof characters[0]; c += 3)
            check(v, c);
}

/* What people choose in their own script is theirs. */
static void names_in_japanese_are_names(void **state)
{
    static const char *const names[] = {
        "\xe6\x98\xa5\xe3\x82\xbb\xe3\x83\xbc\xe3\x83\xab",             /* spring sale */
        "\xe6\x98\xa5\xef\xbc\x92\xef\xbc\x90\xef\xbc\x92\xef\xbc\x96", /* with full-width digits */
        "\xe6\x98\xa5\xe3\x80\x80\xe7\x89\xb9\xe4\xbe\xa1",             /* and a blank */
        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb",                 /* emoji with a joiner */
        "\xe2\x9d\xa4\xef\xb8\x8f",
        "caf\xc3\xa9",
        "spring_2026",
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct hky_foreign f = hky_foreign_find(hky_str_z(names[i]), HKY_FOREIGN_NAME);
        if (f.kind != HKY_FOREIGN_NONE)
            fail_msg("%s: U+%04X", names[i], (unsigned)f.code);
    }
}

static void a_list_says_the_line(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};

    (void)state;
    folder_open(&f);
    folder_write(&f, "vip.txt", "a@x.example\n\xef\xbd\x82@x.example\n");
    folder_write(&f, "policy.lua", RELAYS "route 'r' { to = list 'vip.txt', via = 'a' }" REST);
    assert_null(load_folder(&f, &problems));
    assert_non_null(find(&problems, "vip.txt:2: there is U+FF42 (a full-width character) in it"));
    assert_null(find(&problems, "x.example")); /* who may name a list need not be allowed to read it */
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_shown_with_what_to_write),
        cmocka_unit_test(names_in_japanese_are_names),
        cmocka_unit_test(a_list_says_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
