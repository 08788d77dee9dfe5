/* Secrets: where they are looked for, who may read them, how long a command may take. */
#include "fixture.h"
#include "route/load/secret.h"

#include <errno.h>
#include <signal.h>

static void secrets_are_read_late_and_guarded(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    struct hky_secret *s = NULL;
    struct hky_error e = {0};
    struct hky_secret_ref cmd = {.name = "c", .command = (const char *const[]){"printf", "from-command\\n", NULL}};
    char path[100];

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", "relay 'a' { host = 'a.example', user = 'u', password = secret 'one' }");
    p = load_folder(&f, &problems);
    assert_non_null(p);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_E_MISSING);
    snprintf(path, sizeof path, "%s/secrets", f.path);
    assert_int_equal(mkdir(path, 0700), 0);
    folder_write(&f, "secrets/one", "hunter2\n");
    snprintf(path, sizeof path, "%s/secrets/one", f.path);
    chmod(path, 0644);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_E_DENIED);
    chmod(path, 0600);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_OK);
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("hunter2")));
    hky_secret_unref(&s);
    assert_int_equal(truncate(path, 65537), 0);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_E_LIMIT);
    assert_non_null(strstr(e.text, "secrets/one: more than 65536 octets")); /* the error names the file */
    assert_int_equal(truncate(path, 7), 0);
    assert_int_equal(hky_policy_read_secret(p, &cmd, &s, &e), HKY_OK);
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("from-command")));
    hky_secret_unref(&s);
    setenv("HIKYAKU_SECRET_ONE", "from-environment", 1);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_OK);
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("from-environment")));
    hky_secret_unref(&s);
    unsetenv("HIKYAKU_SECRET_ONE");
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* Who may not read a secret learns what to do about it. Root may read every file, so it becomes somebody else. */
static void a_secret_of_another_user_says_what_to_do(void **state)
{
    bool is_root = geteuid() == 0;
    struct hky_problems problems = {0};
    struct hky_secret *s = NULL;
    struct hky_error e = {0};
    struct hky_policy *p;
    struct folder f;
    char path[100];

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", "relay 'a' { host = 'a.example', user = 'u', password = secret 'one' }");
    p = load_folder(&f, &problems);
    assert_non_null(p);
    snprintf(path, sizeof path, "%s/secrets", f.path);
    assert_int_equal(mkdir(path, 0700), 0);
    folder_write(&f, "secrets/one", "hunter2\n");
    chmod(path, 0);
    if (is_root)
        assert_int_equal(seteuid(65534), 0);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_E_DENIED);
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    chmod(path, 0700);
    assert_non_null(strstr(e.text, "secrets/one may not be read by this user: run as its owner, chown it"));
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

/* A file, the environment and a command have one size. */
static void a_secret_has_at_most_64_kib(void **state)
{
    struct hky_policy *p = load_text("relay 'a' { host = 'a.example', user = 'u', password = secret 'long' }");
    struct hky_secret_ref command = {.name = "long",
                                     .command = (const char *const[]){"head", "-c", "65537", "/dev/zero", NULL}};
    struct hky_secret *s = NULL;
    struct hky_error e = {0};
    char text[65538];

    (void)state;
    memset(text, 'x', sizeof text);
    text[65536] = 0;
    setenv("HIKYAKU_SECRET_LONG", text, 1);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_OK);
    assert_int_equal(hky_secret_value(s).n, 65536);
    hky_secret_unref(&s);
    setenv("HIKYAKU_SECRET_LONG", "\xef\xbb\xbfpass word\r\n", 1); /* as editors write it */
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_OK);
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("pass word")));
    hky_secret_unref(&s);
    text[65536] = 'x';
    text[65537] = 0;
    setenv("HIKYAKU_SECRET_LONG", text, 1);
    assert_int_equal(hky_policy_read_secret(p, &p->relays[0].password, &s, &e), HKY_E_LIMIT);
    assert_null(s);
    assert_non_null(strstr(e.text, "$HIKYAKU_SECRET_LONG"));
    unsetenv("HIKYAKU_SECRET_LONG");
    assert_int_equal(hky_policy_read_secret(p, &command, &s, &e), HKY_E_LIMIT);
    assert_null(s);
    hky_policy_unref(&p);
}

/* The end of its output is not its end: without one of its own, whoever asked would wait for ever. */
static void a_command_that_lives_on_is_killed(void **state)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;
    struct hky_secret *s = NULL;
    struct hky_error e = {0};
    char script[200], path[100];
    struct hky_secret_ref command = {.name = "c", .command = (const char *const[]){"sh", "-c", script, NULL}};
    int64_t start = hky_mono_ms();
    FILE *in;
    int pid = 0;

    (void)state;
    folder_open(&f);
    folder_write(&f, "policy.lua", RELAYS);
    p = load_folder(&f, &problems);
    snprintf(path, sizeof path, "%s/pid", f.path);
    snprintf(script, sizeof script, "echo $$ > %s; echo hunter2; exec >&- sleep 60", path);
    assert_int_equal(hky_secret_read(p, &command, 500, NULL, &s, &e), HKY_E_TIMEOUT);
    assert_null(s);
    assert_non_null(strstr(e.text, "took longer than 0.5 s"));
    assert_in_range(hky_mono_ms() - start, 500, 30000);
    in = fopen(path, "r");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%d", &pid), 1);
    fclose(in);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    hky_policy_unref(&p);
    hky_problems_fini(&problems);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_read_late_and_guarded),
        cmocka_unit_test(a_secret_of_another_user_says_what_to_do),
        cmocka_unit_test(a_secret_has_at_most_64_kib),
        cmocka_unit_test(a_command_that_lives_on_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
