/* What relays and mail services say to the accounts that send by them: real replies, re-typed. */
#include "unit/deliver/classify_rig.h"

static const struct sample samples[] = {
    /* Google as a relay */
    {"gmail: day's quota", "gmail", "smtp.gmail.com", S(DOT), "550 5.4.5 Daily user sending limit exceeded.",
     C(QUOTA_EXHAUSTED), W(RELAY), 86400},
    {"gmail: wrong app password", "gmail", "smtp.gmail.com", S(AUTH), "535 5.7.8 Username and Password not accepted.",
     C(RELAY_AUTH), W(RELAY), 0},
    {"gmail: browser wanted", "gmail", "smtp.gmail.com", S(AUTH), "534 5.7.14 Please log in with your web browser",
     C(RELAY_AUTH), W(RELAY), 0},
    {"gmail: too many logins", "gmail", "smtp.gmail.com", S(AUTH),
     "454 4.7.0 Too many login attempts, please try again later.", C(SYSTEM_TEMP), W(RELAY), 1800},
    {"gmail: relay denied", "gmail", "smtp-relay.gmail.com", S(RCPT), "550 5.7.0 Mail relay denied [192.0.2.1]",
     C(RELAY_DENIED), W(RELAY), 0},
    /* services */
    {"ses: a 454 for a day", "ses", "email-smtp.ap-northeast-1.amazonaws.com", S(DOT),
     "454 Throttling failure: Daily message quota exceeded.", C(QUOTA_EXHAUSTED), W(RELAY), 86400},
    {"ses: a 454 for seconds", "ses", "email-smtp.ap-northeast-1.amazonaws.com", S(DOT),
     "454 Throttling failure: Maximum sending rate exceeded.", C(RATE_LIMITED), W(RELAY), 10},
    {"ses: not verified", "ses", "email-smtp.ap-northeast-1.amazonaws.com", S(DOT),
     "554 Message rejected: Email address is not verified.", C(AUTH_POLICY), W(SENDER), 0},
    {"sendgrid: credits said at AUTH", "sendgrid", "smtp.sendgrid.net", S(AUTH),
     "451 Authentication failed: Maximum credits exceeded", C(QUOTA_EXHAUSTED), W(RELAY), 86400},
    {"sendgrid: identity", "sendgrid", "smtp.sendgrid.net", S(DOT),
     "550 The from address does not match a verified Sender Identity.", C(AUTH_POLICY), W(SENDER), 0},
    {"postfix: the server of its logins is away", "", "smtp.shop.example", S(AUTH),
     "535 5.7.8 Error: authentication failed: Connection lost to authentication server", C(SYSTEM_TEMP), W(RELAY), 0},
    {"a login that is locked for a time", "", "smtp.shop.example", S(AUTH),
     "535 5.7.8 Account temporarily locked, try again in 30 minutes", C(RELAY_AUTH), W(RELAY), 1800},
    {"no login, said at MAIL", "", "smtp.shop.example", S(MAIL), "503 5.5.1 Error: need AUTH first", C(RELAY_AUTH),
     W(RELAY), 0},
    {"no login, said of the sender", "", "smtp.shop.example", S(RCPT),
     "553 5.7.1 <a@shop.example>: Sender address rejected: not logged in", C(RELAY_AUTH), W(RELAY), 0},
    {"a login that ends", "", "smtp.shop.example", S(MAIL), "553 5.7.1 Authentication error, login expired",
     C(RELAY_AUTH), W(RELAY), 0},
    {"zoho: blocked for some time", "", "smtp.zoho.com", S(DOT),
     "550 5.4.6 Unusual sending activity detected. Please try after sometime.", C(RELAY_DENIED), W(RELAY), 0},
    {"a size is no quota", "lolipop", "smtp.lolipop.jp", S(MAIL), "552 5.3.4 Message size exceeds fixed limit",
     C(SIZE_FORMAT), W(MESSAGE), 0},
};

static void test_samples(void **state)
{
    (void)state;
    run_samples(samples, sizeof samples / sizeof *samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
