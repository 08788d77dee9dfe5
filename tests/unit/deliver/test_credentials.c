/* The store of credentials with a token command that counts its runs. */
#include "base/clock.h"
#include "hikyaku/deliver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "support/scratch.h"

struct asker {
    struct hky_secret *secret;
    bool is_told;
};

static void on_secret(void *arg, struct hky_secret *s, const struct hky_error *e)
{
    struct asker *a = arg;
    if (s == NULL)
        print_error("%s\n", e->text);
    a->secret = s;
    a->is_told = true;
}

static void test_a_token_refused_twice_is_fetched_once(void **state)
{
    (void)state;
    char file[] = "/tmp/hikyaku-token-XXXXXX", command[200];
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    close(fd);
    snprintf(command, sizeof(command), "echo >> %s; wc -l < %s", file, file);
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    struct hky_policy policy = {.refs = 1000, .dir = "/tmp", .path = "/tmp/policy.lua"};
    struct hky_relay relay = {.name = "r", .account = "a", .oauth = {.token_command = argv}};
    struct hky_secret *first = hky_secret_new(HKY_STR("1")), *second = hky_secret_new(HKY_STR("2"));
    const struct {
        const char *name;
        struct hky_secret *refused;
        const char *token;
    } rows[] = {
        {"the first question", NULL, "1"},       {"from the cache", NULL, "1"},
        {"refused: fetched", first, "2"},        {"another connection was refused the old one, too", first, "2"},
        {"the new one is refused", second, "3"},
    };
    struct hky_loop *loop;
    struct hky_error e;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    struct hky_credentials *c = NULL;
    assert_int_equal(hky_credentials_new(loop, NULL, NULL, &c, &e), HKY_OK);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asker a = {0};
        int64_t until = hky_mono_ms() + 8000;
        hky_credentials_get(c, &policy, &relay, rows[i].refused, loop, on_secret, &a);
        while (!a.is_told && hky_mono_ms() < until)
            hky_loop_turn(loop, 20);
        if (a.secret == NULL || !hky_str_eq(hky_secret_value(a.secret), hky_str_z(rows[i].token)))
            fail_msg("%s: " HKY_STR_FMT, rows[i].name, HKY_STR_ARG(hky_secret_value(a.secret)));
        hky_secret_unref(&a.secret);
    }
    hky_credentials_free(&c);
    hky_secret_unref(&first);
    hky_secret_unref(&second);
    hky_loop_free(&loop);
    unlink(file);
    assert_int_equal(policy.refs, 1000);
}

/* Three relays whose secret is a command that hangs, and one that answers: it has its secret at once, and the end does
 * not wait for those that hang. */
static void a_command_that_hangs_delays_no_other_relay(void **state)
{
    (void)state;
    static const char *const hangs[] = {"/bin/sleep", "60", NULL}, *const good[] = {"/bin/echo", "good", NULL};
    struct hky_policy policy = {.refs = 100, .dir = "."};
    struct hky_relay relays[4];
    struct asker a[4] = {0};
    struct hky_loop *loop;
    struct hky_credentials *c = NULL;
    struct hky_error e;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    assert_int_equal(hky_credentials_new(loop, NULL, NULL, &c, &e), HKY_OK);
    int64_t start = hky_mono_ms();
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"a@x:1", "b@x:1", "c@x:1", "d@x:1"};
        relays[i] = (struct hky_relay){
            .name = "r", .account = names[i], .password = {.name = "p", .command = i < 3 ? hangs : good}};
        hky_credentials_get(c, &policy, &relays[i], NULL, loop, on_secret, &a[i]);
    }
    while (!a[3].is_told && hky_mono_ms() < start + 8000)
        hky_loop_turn(loop, 20);
    assert_non_null(a[3].secret);
    assert_true(hky_str_eq(hky_secret_value(a[3].secret), HKY_STR("good")));
    assert_false(a[0].is_told || a[1].is_told || a[2].is_told);
    hky_secret_unref(&a[3].secret);
    hky_credentials_free(&c);
    assert_true(hky_mono_ms() < start + 8000); /* of the 10 s that a command has */
    hky_loop_free(&loop);
}

static void write_password(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static void expect_password(struct hky_credentials *c, struct hky_policy *policy, const struct hky_relay *relay,
                            struct hky_loop *loop, const char *wanted)
{
    struct asker a = {0};
    int64_t until = hky_mono_ms() + 8000;
    hky_credentials_get(c, policy, relay, NULL, loop, on_secret, &a);
    while (!a.is_told && hky_mono_ms() < until)
        hky_loop_turn(loop, 20);
    assert_non_null(a.secret);
    if (!hky_str_eq(hky_secret_value(a.secret), hky_str_z(wanted)))
        fail_msg("%s expected, not " HKY_STR_FMT, wanted, HKY_STR_ARG(hky_secret_value(a.secret)));
    hky_secret_unref(&a.secret);
}

/* An operator corrects the file and says so: the password that was remembered is not used again. */
static void a_corrected_file_counts_at_once(void **state)
{
    (void)state;
    char dir[] = "/tmp/hikyaku-password-XXXXXX", path[100];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/secrets", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/secrets/p", dir);
    struct hky_policy policy = {.refs = 1000, .dir = dir};
    struct hky_relay relay = {.name = "r", .account = "a", .user = "u", .password = {.name = "p"}};
    struct hky_loop *loop;
    struct hky_error e;
    struct hky_credentials *c = NULL;
    assert_int_equal(hky_loop_new(&loop, &e), HKY_OK);
    assert_int_equal(hky_credentials_new(loop, NULL, NULL, &c, &e), HKY_OK);
    write_password(path, "old\n");
    expect_password(c, &policy, &relay, loop, "old");
    write_password(path, "new\n");
    expect_password(c, &policy, &relay, loop, "old"); /* remembered: a file is not read for each connection */
    hky_credentials_forget(c);
    expect_password(c, &policy, &relay, loop, "new");
    hky_credentials_free(&c);
    hky_loop_free(&loop);
    assert_int_equal(scratch_remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_refused_twice_is_fetched_once),
        cmocka_unit_test(a_corrected_file_counts_at_once),
        cmocka_unit_test(a_command_that_hangs_delays_no_other_relay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
