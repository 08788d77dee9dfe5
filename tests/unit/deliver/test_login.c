/* AUTH mechanisms against GNU SASL's own server side and known strings; token answers. */
#include "smtp/login.h"
#include "deliver/oauth.h"

#include <gsasl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct hky_login *start(enum hky_auth auth, const char *user, const char *secret)
{
    struct hky_secret *s = hky_secret_new(hky_str_z(secret));
    struct hky_login_params p = {.auth = auth, .user = user, .host = "h.example", .port = 587, .secret = s};
    struct hky_login *login;
    struct hky_error e;
    assert_int_equal(hky_login_new(&p, &login, &e), HKY_OK);
    hky_secret_unref(&s);
    return login;
}

static void test_where_a_password_may_go(void **state)
{
    (void)state;
    static const struct {
        enum hky_tls_mode tls;
        enum hky_auth auth;
        bool is_secure, is_verified, is_loopback, may;
    } rows[] = {
        {HKY_TLS_STARTTLS, HKY_AUTH_AUTO, true, true, false, true},
        {HKY_TLS_IMPLICIT, HKY_AUTH_PLAIN, true, true, false, true},
        {HKY_TLS_STARTTLS, HKY_AUTH_PLAIN, true, false, true, false}, /* whoever it is that we speak to */
        {HKY_TLS_OPPORTUNISTIC, HKY_AUTH_PLAIN, true, false, false, false},
        {HKY_TLS_OPPORTUNISTIC, HKY_AUTH_AUTO, true, false, true, false},
        {HKY_TLS_OPPORTUNISTIC, HKY_AUTH_PLAIN, false, false, true, false},
        {HKY_TLS_STARTTLS, HKY_AUTH_LOGIN, false, false, true, false},
        {HKY_TLS_NONE, HKY_AUTH_AUTO, false, false, true, true},
        {HKY_TLS_NONE, HKY_AUTH_AUTO, false, false, false, false},
        {HKY_TLS_NONE, HKY_AUTH_LOGIN, false, false, false, true}, /* the policy names the mechanism */
        {HKY_TLS_NONE, HKY_AUTH_LOGIN, true, false, false, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_relay r = {.tls = rows[i].tls, .auth = rows[i].auth};
        if (hky_login_may_be_sent(&r, rows[i].is_secure, rows[i].is_verified, rows[i].is_loopback) != rows[i].may)
            fail_msg("row %zu", i);
    }
}

static void test_choice(void **state)
{
    (void)state;
#define BIT(a) (1u << HKY_AUTH_##a)
    static const struct {
        const char *name;
        enum hky_auth asked;
        bool has_oauth;
        uint32_t offered;
        bool is_secure;
        enum hky_auth chosen;
    } rows[] = {
        {"SCRAM first", HKY_AUTH_AUTO, false, BIT(PLAIN) | BIT(SCRAM_SHA_256) | BIT(LOGIN), true,
         HKY_AUTH_SCRAM_SHA_256},
        {"PLAIN before LOGIN", HKY_AUTH_AUTO, false, BIT(PLAIN) | BIT(LOGIN) | BIT(CRAM_MD5), true, HKY_AUTH_PLAIN},
        {"LOGIN without PLAIN (Microsoft)", HKY_AUTH_AUTO, false, BIT(LOGIN) | BIT(XOAUTH2), true, HKY_AUTH_LOGIN},
        {"in the clear the password is not shown if it can be helped", HKY_AUTH_AUTO, false, BIT(PLAIN) | BIT(CRAM_MD5),
         false, HKY_AUTH_CRAM_MD5},
        {"a token", HKY_AUTH_AUTO, true, BIT(PLAIN) | BIT(XOAUTH2), true, HKY_AUTH_XOAUTH2},
        {"a token is no password", HKY_AUTH_AUTO, true, BIT(PLAIN), true, HKY_AUTH_NONE},
        {"a password is no token", HKY_AUTH_AUTO, false, BIT(XOAUTH2), true, HKY_AUTH_NONE},
        {"named and offered", HKY_AUTH_LOGIN, false, BIT(PLAIN) | BIT(LOGIN), true, HKY_AUTH_LOGIN},
        {"named and not offered", HKY_AUTH_LOGIN, false, BIT(PLAIN), true, HKY_AUTH_NONE},
        {"nothing offered", HKY_AUTH_AUTO, false, 0, true, HKY_AUTH_NONE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (hky_login_choose(rows[i].asked, rows[i].has_oauth, rows[i].offered, rows[i].is_secure) != rows[i].chosen)
            fail_msg("%s", rows[i].name);
}

/* RFC 4954 4: an AUTH line of more than 512 octets goes without its initial response, which answers the first 334. */
static void test_a_long_initial_response_waits(void **state)
{
    (void)state;
    static const enum hky_auth auths[] = {HKY_AUTH_PLAIN, HKY_AUTH_XOAUTH2, HKY_AUTH_OAUTHBEARER};
    struct hky_error e;
    for (size_t i = 0; i < sizeof(auths) / sizeof(auths[0]); i++) {
        bool is_whole_once = false, is_parted_once = false;
        for (size_t n = 1; n < 2000; n += n < 450 ? 1 : 100) {
            char token[2001];
            memset(token, 't', n);
            token[n] = '\0';
            struct hky_login *login = start(auths[i], "user", token);
            struct hky_buf line, answer;
            hky_buf_init(&line, 8192);
            hky_buf_init(&answer, 8192);
            hky_buf_printf(&line, "AUTH %s", hky_login_name(login));
            size_t before = line.n;
            assert_int_equal(hky_login_begin(login, &line, &e), HKY_OK);
            assert_true(line.n + 2 <= 512);
            if (line.n > before) {
                assert_false(is_parted_once);
                is_whole_once = true;
            } else {
                /* Whatever the server says with it: the first 334 only asks for the response. */
                assert_int_equal(hky_login_step(login, HKY_STR(""), &answer, &e), HKY_OK);
                assert_true(answer.n + before + 3 > 512);
                is_parted_once = true;
                hky_buf_clear(&answer);
                if (auths[i] == HKY_AUTH_XOAUTH2) { /* then it is as always */
                    assert_int_equal(hky_login_step(login, HKY_STR("e30="), &answer, &e), HKY_OK);
                    assert_int_equal(answer.n, 0);
                }
            }
            hky_buf_fini(&line);
            hky_buf_fini(&answer);
            hky_login_free(&login);
        }
        assert_true(is_whole_once && is_parted_once);
    }
}

static void test_strings(void **state)
{
    (void)state;
    static const struct {
        enum hky_auth auth;
        const char *begin, *challenge, *answer;
    } rows[] = {
        {HKY_AUTH_PLAIN, " AHVzZXIAcHc=", NULL, NULL},
        {HKY_AUTH_LOGIN, "", "VXNlcm5hbWU6", "dXNlcg=="},
        {HKY_AUTH_LOGIN, "", "Username:", "dXNlcg=="}, /* not base64: some servers prompt in words */
        {HKY_AUTH_XOAUTH2, " dXNlcj11c2VyAWF1dGg9QmVhcmVyIHB3AQE=", "eyJzdGF0dXMiOiI0MDEifQ==", ""},
        {HKY_AUTH_OAUTHBEARER, " bixhPXVzZXIsAWhvc3Q9aC5leGFtcGxlAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHB3AQE=", "e30=", "AQ=="},
    };
    struct hky_error e;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_login *login = start(rows[i].auth, "user", "pw");
        struct hky_buf out;
        hky_buf_init(&out, 4096);
        assert_int_equal(hky_login_begin(login, &out, &e), HKY_OK);
        assert_string_equal(hky_buf_z(&out), rows[i].begin);
        if (rows[i].challenge != NULL) {
            hky_buf_clear(&out);
            assert_int_equal(hky_login_step(login, hky_str_z(rows[i].challenge), &out, &e), HKY_OK);
            assert_string_equal(hky_buf_z(&out), rows[i].answer);
        }
        hky_buf_fini(&out);
        hky_login_free(&login);
    }
}

/* The example of RFC 2195. */
static void test_cram_md5(void **state)
{
    (void)state;
    struct hky_login *login = start(HKY_AUTH_CRAM_MD5, "tim", "tanstaaftanstaaf");
    struct hky_buf out;
    struct hky_error e;
    hky_buf_init(&out, 4096);
    assert_int_equal(hky_login_begin(login, &out, &e), HKY_OK);
    assert_string_equal(hky_buf_z(&out), "");
    struct hky_str challenge = HKY_STR("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+");
    assert_int_equal(hky_login_step(login, challenge, &out, &e), HKY_OK);
    assert_string_equal(hky_buf_z(&out), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw");
    hky_buf_fini(&out);
    hky_login_free(&login);
}

static int server_property(Gsasl *library, Gsasl_session *session, Gsasl_property property)
{
    (void)library;
    switch (property) {
    case GSASL_PASSWORD:
        return gsasl_property_set(session, GSASL_PASSWORD, "pw");
    case GSASL_SCRAM_ITER:
        return gsasl_property_set(session, GSASL_SCRAM_ITER, "4096");
    case GSASL_SCRAM_SALT:
        return gsasl_property_set(session, GSASL_SCRAM_SALT, "QSXCR+Q6sek8bf92");
    default:
        return GSASL_NO_CALLBACK;
    }
}

/* Runs SCRAM to the end; a wrong secret fails at the server. */
static int scram(const char *secret, bool *is_satisfied)
{
    Gsasl *library;
    Gsasl_session *session;
    assert_int_equal(gsasl_init(&library), GSASL_OK);
    gsasl_callback_set(library, server_property);
    assert_int_equal(gsasl_server_start(library, "SCRAM-SHA-256", &session), GSASL_OK);
    struct hky_login *login = start(HKY_AUTH_SCRAM_SHA_256, "user", secret);
    struct hky_buf out;
    struct hky_error e;
    hky_buf_init(&out, 8192);
    assert_int_equal(hky_login_begin(login, &out, &e), HKY_OK);
    assert_false(hky_login_is_satisfied(login)); /* a 235 now would be a lie */
    char *challenge;
    int rc = gsasl_step64(session, hky_buf_z(&out) + 1, &challenge);
    while (rc == GSASL_OK || rc == GSASL_NEEDS_MORE) {
        hky_buf_clear(&out);
        bool is_end = rc == GSASL_OK;
        enum hky_err err = challenge[0] != '\0' ? hky_login_step(login, hky_str_z(challenge), &out, &e) : HKY_OK;
        gsasl_free(challenge);
        assert_int_equal(err, HKY_OK);
        if (is_end)
            break;
        rc = gsasl_step64(session, hky_buf_z(&out), &challenge);
    }
    *is_satisfied = hky_login_is_satisfied(login);
    hky_buf_fini(&out);
    hky_login_free(&login);
    gsasl_finish(session);
    gsasl_done(library);
    return rc;
}

static void test_scram(void **state)
{
    (void)state;
    bool is_satisfied;
    assert_int_equal(scram("pw", &is_satisfied), GSASL_OK);
    assert_true(is_satisfied);
    assert_int_not_equal(scram("no", &is_satisfied), GSASL_OK);
    assert_false(is_satisfied);
}

static void test_scram_iterations_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        enum hky_err err;
    } rows[] = {
        {"r=x,s=QSXCR+Q6sek8bf92,i=100001", HKY_E_LIMIT},
        {"r=x,s=QSXCR+Q6sek8bf92,i=99999999999999999999", HKY_E_LIMIT},
        {"r=x,s=QSXCR+Q6sek8bf92,i=0", HKY_E_LIMIT},
        {"r=x,s=QSXCR+Q6sek8bf92,i=1,i=2000000", HKY_E_LIMIT},
        {"i=2000000,r=x", HKY_E_LIMIT},
        {"nonsense", HKY_E_DENIED},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_login *login = start(HKY_AUTH_SCRAM_SHA_256, "user", "pw");
        struct hky_buf out, challenge;
        struct hky_error e;
        hky_buf_init(&out, 4096);
        hky_buf_init(&challenge, 4096);
        assert_int_equal(hky_login_begin(login, &out, &e), HKY_OK);
        hky_buf_add_base64(&challenge, hky_str_z(rows[i].message));
        assert_int_equal(hky_login_step(login, hky_buf_str(&challenge), &out, &e), rows[i].err);
        hky_buf_fini(&out);
        hky_buf_fini(&challenge);
        hky_login_free(&login);
    }
}

static void test_control_octets_are_refused(void **state)
{
    (void)state;
    struct hky_error e;
    struct hky_login *login;
    struct hky_secret *token = hky_secret_new(HKY_STR("a\001b")), *empty = hky_secret_new(HKY_STR(""));
    struct hky_login_params p = {.auth = HKY_AUTH_XOAUTH2, .user = "user", .secret = token};
    assert_int_equal(hky_login_new(&p, &login, &e), HKY_E_SYNTAX);
    p = (struct hky_login_params){.auth = HKY_AUTH_PLAIN, .user = "us\ner", .secret = token};
    assert_int_equal(hky_login_new(&p, &login, &e), HKY_E_SYNTAX);
    p = (struct hky_login_params){.auth = HKY_AUTH_PLAIN, .user = "user", .secret = empty};
    assert_int_equal(hky_login_new(&p, &login, &e), HKY_E_MISSING);
    hky_secret_unref(&token);
    hky_secret_unref(&empty);
}

static void test_token_answers(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int status;
        const char *body;
        enum hky_err err;
        const char *access, *refresh;
        int64_t for_ms;
    } rows[] = {
        {"plain", 200, "{\"access_token\":\"a\",\"expires_in\":3600}", HKY_OK, "a", NULL, 3600000},
        {"rotated", 200, "{\"access_token\":\"a\",\"refresh_token\":\"r\",\"expires_in\":\"60\"}", HKY_OK, "a", "r",
         60000},
        {"no lifetime", 200, "{\"access_token\":\"a\"}", HKY_OK, "a", NULL, 300000},
        {"absurd lifetime", 200, "{\"access_token\":\"a\",\"expires_in\":-5}", HKY_OK, "a", NULL, 300000},
        {"revoked", 400, "{\"error\":\"invalid_grant\",\"error_description\":\"Token has been revoked.\"}",
         HKY_E_DENIED},
        {"ill", 503, "<html>", HKY_E_NET},
        {"ill for the moment", 400, "{\"error\":\"temporarily_unavailable\"}", HKY_E_NET},
        {"asked too often", 400, "{\"error\":\"slow_down\"}", HKY_E_NET},
        {"control octets", 400,
         "{\"error\":\"invalid_grant\",\"error_description\":\"a\\r\\nev=login_failed \\u001b[2J\\u007f\"}",
         HKY_E_DENIED},
        {"not JSON", 200, "<html>", HKY_E_SYNTAX},
        {"an array", 200, "[]", HKY_E_SYNTAX},
        {"no token", 200, "{\"access_token\":7}", HKY_E_SYNTAX},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_oauth_token t;
        struct hky_error e;
        if (hky_oauth_parse(rows[i].status, hky_str_z(rows[i].body), &t, &e) != rows[i].err)
            fail_msg("%s", rows[i].name);
        for (const char *p = e.text; rows[i].err != HKY_OK && *p != '\0'; p++)
            if ((unsigned char)*p < ' ' || *p == 0x7f)
                fail_msg("%s: octet %d in the text", rows[i].name, *p);
        if (rows[i].err != HKY_OK)
            continue;
        assert_true(hky_str_eq(hky_secret_value(t.access), hky_str_z(rows[i].access)));
        assert_true(hky_str_eq(hky_secret_value(t.refresh), hky_str_z(rows[i].refresh)));
        assert_int_equal(t.for_ms, rows[i].for_ms);
        hky_oauth_token_fini(&t);
    }
}

static void test_rotated_refresh_tokens_follow_the_policy(void **state)
{
    (void)state;
    struct hky_oauth_token t = {.refresh = hky_secret_new(HKY_STR("new\"er"))};
    struct hky_buf stored;
    hky_buf_init(&stored, 4096);
    hky_oauth_format_stored(&t, HKY_STR("first"), &stored);
    hky_oauth_token_fini(&t);
    struct hky_secret *s = hky_oauth_stored_refresh(hky_buf_z(&stored), HKY_STR("first"));
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("new\"er")));
    hky_secret_unref(&s);
    s = hky_oauth_stored_refresh(hky_buf_z(&stored), HKY_STR("another")); /* the policy has a new one: it wins */
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("another")));
    hky_secret_unref(&s);
    s = hky_oauth_stored_refresh(NULL, HKY_STR("first"));
    assert_true(hky_str_eq(hky_secret_value(s), HKY_STR("first")));
    hky_secret_unref(&s);
    hky_buf_fini(&stored);
}

static void test_form_is_escaped(void **state)
{
    (void)state;
    struct hky_relay r = {.oauth = {.client = "c", .scope = "https://x/ y"}};
    struct hky_buf out;
    hky_buf_init(&out, 4096);
    hky_oauth_form(&r, HKY_STR("1//a&b=c"), HKY_STR(""), &out);
    assert_string_equal(hky_buf_z(&out), "grant_type=refresh_token&refresh_token=1%2F%2Fa%26b%3Dc&client_id=c&scope="
                                         "https%3A%2F%2Fx%2F%20y");
    hky_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_a_password_may_go),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_a_long_initial_response_waits),
        cmocka_unit_test(test_cram_md5),
        cmocka_unit_test(test_scram),
        cmocka_unit_test(test_scram_iterations_are_bounded),
        cmocka_unit_test(test_control_octets_are_refused),
        cmocka_unit_test(test_token_answers),
        cmocka_unit_test(test_rotated_refresh_tokens_follow_the_policy),
        cmocka_unit_test(test_form_is_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
