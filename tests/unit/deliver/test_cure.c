/* What a failed connection test says is likely wrong. */
#include "hikyaku/deliver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void is_cured_by(const struct hky_relay *relay, enum hky_stage stage, const struct hky_outcome *judged,
                        const char *has, const char *lacks, const char *what)
{
    struct hky_outcome o = *judged;
    struct hky_buf out;
    o.stage = stage;
    hky_buf_init(&out, 4096);
    hky_probe_cure(relay, &o, "en", &out);
    if (strstr(hky_buf_z(&out), has) == NULL || (lacks != NULL && strstr(hky_buf_z(&out), lacks) != NULL))
        fail_msg("%s: %s", what, hky_buf_z(&out));
    hky_buf_clear(&out);
    hky_probe_cure(relay, &o, "ja", &out);
    if ((unsigned char)hky_buf_z(&out)[0] < 0x20 || strstr(hky_buf_z(&out), "。") == NULL)
        fail_msg("%s, Japanese: %s", what, hky_buf_z(&out));
    hky_buf_fini(&out);
}

static void test_replies(void **state)
{
    (void)state;
    static const struct {
        const char *preset, *user, *reply;
        enum hky_stage stage;
        enum hky_class class;
        const char *has, *lacks;
    } rows[] = {
        {"", "u", "550 5.7.1 Sender not allowed", HKY_STAGE_MAIL, HKY_CLASS_AUTH_POLICY, "sender address", "SPF"},
        {"", "u", "553 5.7.1 <a@b.test>: Sender address rejected: not owned by user u", HKY_STAGE_RCPT,
         HKY_CLASS_AUTH_POLICY, "sender address", "SPF"},
        {"", "u", "550 5.7.1 Not permitted", HKY_STAGE_MAIL, HKY_CLASS_RELAY_DENIED, "sender address", "login"},
        {"", "u", "550 5.7.1 From address is not this account's", HKY_STAGE_DOT, HKY_CLASS_AUTH_POLICY,
         "sender address", "SPF"},
        {"", "u", "550 5.7.26 SPF check of the sender failed", HKY_STAGE_DOT, HKY_CLASS_AUTH_POLICY, "SPF", NULL},
        {"", "", "550 5.7.1 Sender not allowed", HKY_STAGE_MAIL, HKY_CLASS_AUTH_POLICY, "SPF", NULL},
        {"", "u", "550 5.7.1 Relaying denied", HKY_STAGE_RCPT, HKY_CLASS_RELAY_DENIED, "does not relay", NULL},
        {"", "u", "454 4.7.0 Temporary authentication failure", HKY_STAGE_AUTH, HKY_CLASS_SYSTEM_TEMP, "at the moment",
         "is wrong"},
        {"yahoo_jp", "u", "454 4.7.0 Temporary authentication failure", HKY_STAGE_AUTH, HKY_CLASS_SYSTEM_TEMP,
         "at the moment", "Yahoo"},
        {"gmail", "u", "421 4.7.0 Too many login attempts BadCredentials", HKY_STAGE_AUTH, HKY_CLASS_RATE_LIMITED,
         "at the moment", "password must"},
        {"", "u", "535 5.7.8 no", HKY_STAGE_AUTH, HKY_CLASS_RELAY_AUTH, "password is wrong", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hky_relay r = {.name = "a", .preset = rows[i].preset, .user = rows[i].user};
        struct hky_outcome o = {.class = rows[i].class};
        hky_reply_from_text(&o.reply, hky_str_z(rows[i].reply));
        is_cured_by(&r, rows[i].stage, &o, rows[i].has, rows[i].lacks, rows[i].reply);
    }
}

static void test_certificates(void **state)
{
    (void)state;
    static const struct {
        const char *text, *has, *lacks;
    } rows[] = {
        {"the certificate was not accepted: certificate is not yet valid", "not yet valid", "authority"},
        {"the certificate was not accepted: certificate has expired", "has expired", "authority"},
        {"the certificate was not accepted: self-signed certificate", "authority", "expired"},
        {"the server's public key is not the pinned one", "another key", "587"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hky_relay r = {.name = "a", .preset = "", .user = "u"};
        struct hky_outcome o = {.class = HKY_CLASS_TLS};
        hky_reply_local(&o.reply, HKY_ORIGIN_TLS, "%s", rows[i].text);
        is_cured_by(&r, HKY_STAGE_TLS, &o, rows[i].has, rows[i].lacks, rows[i].text);
    }
}

/* The host of a relay is a name in the policy; the domain of own delivery comes from the address. */
static void test_names(void **state)
{
    struct hky_relay r = {.name = "a", .preset = "", .user = ""};
    struct hky_outcome o = {.class = HKY_CLASS_BAD_DOMAIN};
    (void)state;
    hky_reply_local(&o.reply, HKY_ORIGIN_DNS, "MX of b.example: the domain does not exist (NXDOMAIN)");
    is_cured_by(&r, HKY_STAGE_CONNECT, &o, "check --to", "spelling", "a domain without mail");
    o.class = HKY_CLASS_NETWORK;
    is_cured_by(&r, HKY_STAGE_CONNECT, &o, "spelling", "--to", "a host without an address");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_replies), cmocka_unit_test(test_certificates),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
