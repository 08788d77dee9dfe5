/* What is said of keys is said once: annotations for editors and the texts of check are those of the tables. */
#include "fixture.h"

#include "route/lua/keys.h"

static char *file_text(const char *path)
{
    char full[500];
    FILE *f;
    char *text = hky_calloc(1, 1 << 20);

    snprintf(full, sizeof full, "%s/%s", HKY_SOURCE_DIR, path);
    f = fopen(full, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void annotations_are_those_of_the_tables(void **state)
{
    static const struct {
        const char *class, *object;
    } classes[] = {
        {"---@class engine_options\n", "engine"},
        {"---@class bounds  maxima\n", "bounds"},
        {"---@class listen\n", "listen"},
        {"---@class listen_user\n", "user"},
        {"---@class relay_options\n", "relay"},
        {"---@class oauth\n", "oauth"},
        {"---@class timeouts\n", "timeout"},
        {"---@class conditions\n", "condition"},
        {"---@class route_options: conditions\n", "route"},
        {"---@class row: relay_options, conditions\n", "row"},
        {"---@class step_options\n", "step"},
        {"---@class arm\n", "arm"},
        {"---@field [integer] arm\n", "split"},
    };
    char *text = file_text("scripts/hikyaku/annotations/declarations.lua");

    (void)state;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        struct hky_key_doc k;
        const char *at = strstr(text, classes[i].class);
        if (at == NULL)
            fail_msg("there is no %s", classes[i].class);
        at += strlen(classes[i].class);
        for (size_t n = 0; hky_policy_key_doc(classes[i].object, n, &k); n++) {
            char line[600];
            int length =
                snprintf(line, sizeof line, "---@field %s%s %s  %s\n", k.name, k.is_needed ? "" : "?", k.lua, k.doc);
            assert_true(length < (int)sizeof line);
            if (strncmp(at, line, (size_t)length) != 0)
                fail_msg("of %s: expected\n%s", classes[i].object, line);
            at += length;
        }
        if (strncmp(at, "---@field ", 10) == 0)
            fail_msg("of %s: there is no such key:\n%.80s", classes[i].object, at);
    }
    free(text);
}

static void every_key_is_explained_in_a_sentence(void **state)
{
    static const struct hky_key *const tables[] = {hky_keys_engine, hky_keys_bounds, hky_keys_listen,  hky_keys_user,
                                                   hky_keys_relay,  hky_keys_oauth,  hky_keys_timeout, hky_keys_route,
                                                   hky_keys_row,    hky_keys_step,   hky_keys_arm,     hky_keys_split};

    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        for (const struct hky_key *k = tables[i]; k->name != NULL; k++)
            if (k->type != HKY_KEY_LATER &&
                (strlen(k->doc) < 10 || k->doc[strlen(k->doc) - 1] != '.' || k->lua == NULL || k->lua[0] == 0))
                fail_msg("%s: \"%s\"", k->name, k->doc);
}

static void a_wrong_value_says_what_the_key_is(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", "relay 'a' { host = 'a.example', connections = 'many', cap = 5 }");
    assert_null(load_folder(&f, &problems));
    assert_int_equal(problems.n, 2);
    for (size_t i = 0; i < 2; i++)
        if (strstr(problems.items[i].text,
                   "(Connections at the same time, in own delivery those of each worker to one site; default 10.)") ==
                NULL &&
            strstr(problems.items[i].text, "(Most messages or recipients in a window, such as") == NULL)
            fail_msg("%s", problems.items[i].text);
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(annotations_are_those_of_the_tables),
        cmocka_unit_test(every_key_is_explained_in_a_sentence),
        cmocka_unit_test(a_wrong_value_says_what_the_key_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
