#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/json.h"

static void every_kind_of_value_at_every_place(void **state)
{
    struct hky_buf b;
    struct hky_json j;

    (void)state;
    hky_buf_init(&b, 1000);
    j = hky_json_to(&b);
    hky_json_begin_object(&j, NULL);
    hky_json_begin_object(&j, "empty");
    hky_json_end_object(&j);
    hky_json_begin_array(&j, "list");
    hky_json_int(&j, NULL, INT64_MIN);
    hky_json_uint(&j, NULL, UINT64_MAX);
    hky_json_begin_array(&j, NULL);
    hky_json_end_array(&j);
    hky_json_bool(&j, NULL, true);
    hky_json_null(&j, NULL);
    hky_json_z(&j, NULL, NULL);
    hky_json_end_array(&j);
    hky_json_real(&j, "rate", 2.5, 1);
    hky_json_real(&j, "never", 1.0 / (double)(b.n == 0), 1);
    hky_json_hex(&j, "hash", 0xab);
    hky_json_made(&j, "made", HKY_STR("1,2"));
    hky_json_made(&j, "nothing", HKY_STR(""));
    hky_json_key(&j, HKY_STR("a\"b"));
    hky_json_str(&j, NULL, HKY_STR("c\nd"));
    hky_json_key(&j, HKY_STR("deep"));
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "x", "y");
    hky_json_end_object(&j);
    hky_json_end_object(&j);
    assert_string_equal(hky_buf_z(&b),
                        "{\"empty\":{},\"list\":[-9223372036854775808,18446744073709551615,[],true,null,null],"
                        "\"rate\":2.5,\"never\":null,\"hash\":\"00000000000000ab\",\"made\":1,2,"
                        "\"a\\\"b\":\"c\\nd\",\"deep\":{\"x\":\"y\"}}");
    hky_buf_fini(&b);
}

/* Hostile names and values: what comes out is one value, and says the same. */
static void octets_of_others_stay_inside(void **state)
{
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        char text[] = {'x', (char)c, '"', '\\', 'y', '\0'};
        struct hky_buf b;
        hky_buf_init(&b, 1000);
        struct hky_json j = hky_json_to(&b);
        hky_json_begin_object(&j, NULL);
        hky_json_key(&j, hky_str_z(text));
        hky_json_z(&j, NULL, text);
        hky_json_end_object(&j);
        json_t *read = json_loadb(b.p, b.n, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(read);
        assert_int_equal(json_object_size(read), 1);
        if (c < 0x80)
            assert_string_equal(json_string_value(json_object_get(read, text)), text);
        json_decref(read);
        hky_buf_fini(&b);
    }
}

static void nest(struct hky_json *j)
{
    for (unsigned i = 0; i < HKY_JSON_DEPTH; i++)
        hky_json_begin_array(j, NULL);
}

static void no_name(struct hky_json *j)
{
    hky_json_begin_object(j, NULL);
    hky_json_int(j, NULL, 1);
}

static void name_in_an_array(struct hky_json *j)
{
    hky_json_begin_array(j, NULL);
    hky_json_int(j, "a", 1);
}

static void wrong_end(struct hky_json *j)
{
    hky_json_begin_array(j, NULL);
    hky_json_end_object(j);
}

static void key_without_value(struct hky_json *j)
{
    hky_json_begin_object(j, NULL);
    hky_json_key(j, HKY_STR("a"));
    hky_json_end_object(j);
}

static void second_value(struct hky_json *j)
{
    hky_json_int(j, NULL, 1);
    hky_json_int(j, NULL, 2);
}

static void misuse_is_a_bug(void **state)
{
    static void (*const misuses[])(struct hky_json * j) = {nest,      no_name,           name_in_an_array,
                                                           wrong_end, key_without_value, second_value};
    (void)state;
    for (size_t i = 0; i < sizeof misuses / sizeof misuses[0]; i++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct hky_buf b;
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
            signal(SIGABRT, SIG_DFL);
            close(STDERR_FILENO);
            hky_buf_init(&b, 1000);
            struct hky_json j = hky_json_to(&b);
            misuses[i](&j);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("misuse %zu went through", i);
    }
}

static void past_the_maximum_is_known(void **state)
{
    struct hky_buf b;

    (void)state;
    hky_buf_init(&b, 8);
    struct hky_json j = hky_json_to(&b);
    hky_json_begin_array(&j, NULL);
    hky_json_z(&j, NULL, "123456789");
    hky_json_end_array(&j);
    assert_true(b.is_over && b.n <= 8);
    hky_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_at_every_place),
        cmocka_unit_test(octets_of_others_stay_inside),
        cmocka_unit_test(misuse_is_a_bug),
        cmocka_unit_test(past_the_maximum_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
