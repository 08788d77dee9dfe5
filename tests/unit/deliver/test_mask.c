/* What a server repeats of a login's secret is not shown. */
#include "deliver/mask.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        const char *secret, *text, *masked;
    } rows[] = {
        {"Hush-hush9", "bad password Hush-hush9 for u", "bad password *** for u"},
        {"Hush-hush9", "HUSH-HUSH9, hush-hush9", "***, ***"},
        {"Hush-hush9", "xHush-hush9y", "x***y"},
        {"Hush-hush9", "535 no such thing", "535 no such thing"},
        {"Hush-hush9", "you sent SHVzaC1odXNoOQ== here", "you sent *** here"},
        {"Hush-hush9", "\"SHVzaC1odXNoOQ\"", "\"***\""},
        {"word", "AHUAd29yZA== was wrong", "*** was wrong"},
        {"word", "AHVzZXIAd29yZA== was wrong", "*** was wrong"},
        {"word", "d29yZA==", "***"},
        {"word", "the word, not the sword", "the ***, not the s***"},
        {"pw", "pw is wrong, apwb is not, cHc= is", "** is wrong, apwb is not, *** is"},
        {"a b/c", "a%20b%2Fc and a%20b%2fc", "*** and ***"},
        {"Hush-hush9", "it was Hush-hu", "it was ***"},
        {"Hush-hush9", "it was Hush", "it was Hush"},
        {"", "anything", "anything"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hky_reply r;
        hky_reply_local(&r, HKY_ORIGIN_LOCAL, "%s", rows[i].text);
        hky_mask_secret(&r, hky_str_z(rows[i].secret));
        if (strcmp(r.text, rows[i].masked) != 0 || r.n != strlen(r.text))
            fail_msg("%s in \"%s\": \"%s\"", rows[i].secret, rows[i].text, r.text);
    }
}

/* What was sent to log in: with it a password can be guessed at leisure. */
static void test_responses(void **state)
{
    (void)state;
    static const struct {
        const char *response, *text, *masked;
    } rows[] = {
        /* CRAM-MD5: "tim b913a602c7eda7a495b4e6e7334d3890" (RFC 2195) */
        {"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", "bad dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw",
         "bad ***"},
        {"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", "tim: B913A602c7eda7a495b4e6e7334d3890 is wrong",
         "tim: *** is wrong"},
        /* SCRAM: "c=biws,r=abc,p=dHzbZapWIk4=" */
        {"Yz1iaXdzLHI9YWJjLHA9ZEh6YlphcFdJazQ9", "proof dHzbZapWIk4= does not fit", "proof *** does not fit"},
        {"Yz1iaXdzLHI9YWJjLHA9ZEh6YlphcFdJazQ9", "got Yz1iaXdzLHI9YWJjLHA9ZEh6YlphcFdJazQ9", "got ***"},
        {"dXNlckBleGFtcGxl", "no such user user@example", "no such user user@example"}, /* a name is no secret */
        {"AQ==", "AQ== is no answer", "AQ== is no answer"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hky_reply r;
        struct hky_mask m;
        hky_mask_init(&m);
        hky_mask_add_response(&m, hky_str_z(rows[i].response));
        hky_reply_local(&r, HKY_ORIGIN_LOCAL, "%s", rows[i].text);
        hky_mask_reply(&m, &r);
        if (strcmp(r.text, rows[i].masked) != 0)
            fail_msg("\"%s\": \"%s\"", rows[i].text, r.text);
        hky_mask_fini(&m);
    }
}

/* Whatever is in front of the secret and behind it, base64 of the whole does not show it. */
static void test_every_place_in_base64(void **state)
{
    (void)state;
    const char *secret = "Correct4Horse";
    for (size_t before = 0; before < 9; before++)
        for (size_t behind = 0; behind < 4; behind++) {
            struct hky_buf plain, text;
            hky_buf_init(&plain, 100);
            hky_buf_init(&text, 200);
            hky_buf_add(&plain, "\0user=ab\1", before);
            hky_buf_add_z(&plain, secret);
            hky_buf_add(&plain, "\1\1\1", behind);
            hky_buf_add_z(&text, "got ");
            hky_buf_add_base64(&text, hky_buf_str(&plain));
            hky_buf_add_z(&text, " now");
            struct hky_reply r;
            hky_reply_local(&r, HKY_ORIGIN_LOCAL, "%s", hky_buf_z(&text));
            hky_mask_secret(&r, hky_str_z(secret));
            assert_string_equal(r.text, "got *** now");
            hky_buf_fini(&plain);
            hky_buf_fini(&text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_responses),
                                       cmocka_unit_test(test_every_place_in_base64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
