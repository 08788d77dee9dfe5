/* What any server may say: common wording, quotas, and the replies that hikyaku-classes(7) shows. */
#include "unit/deliver/classify_rig.h"

static const struct sample samples[] = {
    {"accepted", "own", "mx.example.jp", S(DOT), "250 2.0.0 Ok: queued", C(OK), W(RECIPIENT), 0},
    /* anybody */
    {"wait named in seconds", "own", "mx.example.jp", S(RCPT),
     "450 4.2.0 <x@example.jp>: Recipient address rejected: Greylisted, try again in 300 seconds", C(SYSTEM_TEMP),
     W(PATH), 300},
    {"wait named in minutes", "own", "mx.example.jp", S(MAIL),
     "421 4.7.0 Too many connections from your host, try again in 60 minutes", C(RATE_LIMITED), W(PATH), 3600},
    {"wait named as a clock", "own", "mx.example.jp", S(RCPT),
     "451 4.7.1 Greylisting in action, please come back in 00:05:00", C(SYSTEM_TEMP), W(PATH), 300},
    {"a number that is no wait", "own", "mx.example.jp", S(RCPT), "451 4.3.0 queue 300 seconds deep", C(SYSTEM_TEMP),
     W(PATH), 0},
    {"DNSBL at RCPT", "own", "mx.example.jp", S(RCPT),
     "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", C(BLOCKED_IP), W(PATH),
     0},
    {"no PTR", "own", "mx.example.jp", S(GREETING), "554 5.7.1 Missing reverse DNS for 192.0.2.1", C(BLOCKED_IP),
     W(PATH), 0},
    {"greeting 5xx without a word", "own", "mx.example.jp", S(GREETING), "554 go away", C(BLOCKED_IP), W(PATH), 0},
    {"greeting 5xx of a relay", "", "smtp.rental.example", S(HELLO), "550 no", C(BLOCKED_IP), W(RELAY), 0},
    {"AUTH 5xx without a word", "", "smtp.rental.example", S(AUTH), "501 hm", C(RELAY_AUTH), W(RELAY), 0},
    {"RCPT 5xx with 5.1.1", "own", "mx.example.jp", S(RCPT), "550 5.1.1 no", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"RCPT 5xx that says nothing", "own", "mx.example.jp", S(RCPT), "550 no", C(UNKNOWN), W(RECIPIENT), 0},
    {"RCPT 5xx of a relay that says nothing", "", "smtp.rental.example", S(RCPT), "550 no", C(UNKNOWN), W(RELAY), 0},
    {"relay asks for AUTH", "", "smtp.rental.example", S(MAIL), "530 5.7.0 Authentication required", C(RELAY_AUTH),
     W(RELAY), 0},
    {"relay denied", "", "smtp.rental.example", S(RCPT), "554 5.7.1 <x@example.jp>: Relay access denied",
     C(RELAY_DENIED), W(RELAY), 0},
    {"relay wants TLS", "", "smtp.rental.example", S(MAIL), "530 5.7.0 Must issue a STARTTLS command first", C(TLS),
     W(RELAY), 0},
    {"our account suspended", "", "smtp.rental.example", S(DOT), "550 Your account has been suspended", C(RELAY_DENIED),
     W(RELAY), 0},
    {"STARTTLS refused", "", "smtp.rental.example", S(TLS), "502 5.5.1 what is that", C(TLS), W(RELAY), 0},
    {"STARTTLS refused for now", "", "smtp.rental.example", S(TLS),
     "454 4.7.0 TLS not available due to temporary reason", C(SYSTEM_TEMP), W(RELAY), 0},
    {"closing at STARTTLS", "", "smtp.rental.example", S(TLS), "421 4.3.2 closing", C(SYSTEM_TEMP), W(RELAY), 0},
    {"null MX said by a server", "own", "mx.example.jp", S(RCPT), "556 5.1.10 Recipient address has null MX",
     C(BAD_DOMAIN), W(DOMAIN), 0},
    {"enhanced code that contradicts", "own", "mx.example.jp", S(RCPT), "450 5.1.1 not now", C(UNKNOWN), W(RECIPIENT),
     0},
    {"4xx that says nothing", "own", "mx.example.jp", S(RCPT), "450 no", C(UNKNOWN), W(RECIPIENT), 0},
    {"blocked, and no more", "own", "docomo.ne.jp", S(RCPT), "550 5.7.1 blocked", C(BLOCKED_IP), W(PATH), 0},
    {"blocked, and no more, by a relay", "docomo", "smtp.spmode.ne.jp", S(RCPT), "550 5.7.1 blocked", C(BLOCKED_IP),
     W(RELAY), 0},
    {"the account is blocked", "own", "mx.example.jp", S(RCPT), "550 5.5.0 The recipient account is blocked",
     C(INACTIVE), W(RECIPIENT), 0},
    {"too much", "own", "au.com", S(RCPT), "421 4.7.0 too much", C(RATE_LIMITED), W(PATH), 0},
    {"refused by the user's settings", "own", "au.com", S(DOT), "550 refused due to recipient preferences", C(FILTERED),
     W(RECIPIENT), 0},
    {"sender's domain, said at RCPT", "own", "mx.example.jp", S(RCPT),
     "550 5.1.8 <a@shop.example>: Sender address rejected: Domain not found", C(AUTH_POLICY), W(SENDER), 0},
    {"sender that does not exist", "own", "mx.example.jp", S(RCPT), "550 Sender address a@shop.example does not exist",
     C(AUTH_POLICY), W(SENDER), 0},
    {"recipient that does not exist", "own", "mx.example.jp", S(RCPT), "550 The mailbox taro@example.jp does not exist",
     C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"mail loop", "own", "mx.example.jp", S(DOT), "554 Too many hops", C(UNKNOWN), W(RECIPIENT), 0},
    {"mail loop, and a word about the network", "", "smtp.rental.example", S(DOT),
     "554 5.4.6 Hop count exceeded - possible mail loop: network error", C(UNKNOWN), W(RECIPIENT), 0},
    {"mail loop by its status", "own", "mx.example.jp", S(RCPT), "550 5.4.6 no", C(UNKNOWN), W(RECIPIENT), 0},
    {"mail loop that may end", "own", "mx.example.jp", S(RCPT), "451 4.4.6 mail loop detected", C(NETWORK), W(PATH), 0},
    {"no way there, for good", "own", "mx.example.jp", S(RCPT), "550 5.4.1 no answer from host", C(UNKNOWN),
     W(RECIPIENT), 0},
    {"no way there, for the moment", "own", "mx.example.jp", S(RCPT), "450 4.4.1 no answer from host", C(NETWORK),
     W(PATH), 0},
    {"m365: no such address", "own", "x.mail.protection.outlook.com", S(RCPT),
     "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"not authenticated by SPF or DKIM", "own", "mx.example.com", S(DOT),
     "550 5.7.1 Message rejected: not authenticated by SPF or DKIM", C(AUTH_POLICY), W(SENDER), 0},
    {"the same with its own code", "", "smtp.example.com", S(DOT),
     "550 5.7.26 Message rejected: not authenticated by SPF or DKIM", C(AUTH_POLICY), W(SENDER), 0},
    {"login: closed for the moment", "", "smtp.example.com", S(AUTH), "421 4.7.0 Try again later", C(SYSTEM_TEMP),
     W(RELAY), 0},
    {"login: the server's trouble", "", "smtp.example.com", S(AUTH), "454 4.7.0 Temporary authentication failure",
     C(SYSTEM_TEMP), W(RELAY), 0},
    {"login: a limit of connections with the code of a refusal", "", "smtp.example.com", S(AUTH),
     "535 5.7.8 Error: too many connections from your account", C(RATE_LIMITED), W(RELAY), 0},
    {"login: a limit of connections with any 5xx", "", "smtp.example.com", S(AUTH),
     "550 Maximum number of concurrent sessions exceeded, try again in 30 seconds", C(RATE_LIMITED), W(RELAY), 30},
    {"login: a limit of logins", "", "smtp.example.com", S(AUTH), "535 5.7.0 Too many login attempts, please wait",
     C(RATE_LIMITED), W(RELAY), 0},
    {"login: refused once too often", "", "smtp.example.com", S(AUTH), "535 5.7.8 too many failed logins",
     C(RELAY_AUTH), W(RELAY), 0},
    {"login: refused", "", "smtp.example.com", S(AUTH), "535 5.7.8 Authentication credentials invalid", C(RELAY_AUTH),
     W(RELAY), 0},
    {"too many messages in the mailbox", "own", "mx.example.jp", S(RCPT), "552 5.2.2 user has too many messages",
     C(MAILBOX_FULL), W(RECIPIENT), 0},
    {"too many messages from us", "own", "mx.example.jp", S(RCPT), "450 4.7.1 too many messages from 192.0.2.1",
     C(RATE_LIMITED), W(PATH), 0},
    {"a link on a list", "own", "mx.example.jp", S(DOT), "554 5.7.1 bad.example is listed in multi.surbl.org",
     C(REPUTATION_CONTENT), W(MESSAGE), 0},
    {"the server's disk is full", "own", "mx.example.jp", S(DOT), "452 4.3.1 Insufficient disk space", C(SYSTEM_TEMP),
     W(PATH), 0},
    {"the server's disk is full, said at MAIL", "own", "mx.example.jp", S(MAIL),
     "452 4.4.5 Insufficient disk space; try again later", C(SYSTEM_TEMP), W(PATH), 0},
    {"sender's domain on a list", "own", "mx.example.jp", S(MAIL),
     "550 5.1.0 MailFrom domain is listed in Spamhaus. To request removal see https://www.spamhaus.org/",
     C(REPUTATION_CONTENT), W(SENDER), 0},
    {"unknown for the moment", "own", "mx.example.jp", S(RCPT),
     "450 4.1.1 <x@example.jp>: Recipient address rejected: User unknown in local recipient table", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"refused at the greeting, told in a notice", "own", "mx.example.jp", S(DSN),
     "550 SMTP error from remote mail server after initial connection: 550 Access denied", C(BLOCKED_IP), W(PATH), 0},
    {"refused after its name, told in a notice", "own", "mx.example.jp", S(DSN),
     "550 SMTP error from remote mail server after HELO mail.shop.example: 550 no", C(BLOCKED_IP), W(PATH), 0},
    {"refused after RCPT, told in a notice", "own", "mx.example.jp", S(DSN),
     "550 SMTP error from remote mail server after RCPT TO:<x@example.jp>: 550 user unknown", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"our own name is refused", "own", "mx.example.jp", S(RCPT),
     "550 5.7.1 <mail>: Helo command rejected: Host not found", C(BLOCKED_IP), W(PATH), 0},
    {"greylisting with a permanent code", "own", "mx.example.jp", S(RCPT),
     "550 5.7.1 Greylisted, please try again in 5 minutes", C(SYSTEM_TEMP), W(PATH), 300},
    {"full, in Japanese", "own", "mx.example.jp", S(RCPT), "550 メールボックスの容量が上限を超えました",
     C(MAILBOX_FULL), W(RECIPIENT), 0},
    {"unknown, in Japanese", "own", "mx.example.jp", S(RCPT), "550 宛先のユーザーが存在しません", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"messages of a connection are no size", "own", "mx.example.jp", S(MAIL),
     "550 5.5.0 maximum messages per connection exceeded", C(RATE_LIMITED), W(PATH), 60},
    {"system 4xx", "own", "mx.example.jp", S(DOT), "452 4.3.1 Insufficient system storage", C(SYSTEM_TEMP), W(PATH), 0},
};

static void test_samples(void **state)
{
    (void)state;
    run_samples(samples, sizeof samples / sizeof *samples);
}

/* A used-up quota of the account, at any stage and with any code; and what only sounds like one. */
static void test_quota_wording(void **state)
{
    static const char *const quotas[] = {
        "554 5.7.1 You may send only 10 messages per day",
        "550 5.4.6 24-hour sending limit reached",
        "452 4.7.1 user has exceeded hour limit",
        "550 5.7.1 Your outgoing email quota is used up",
        "550 Domain shop.example has exceeded the max emails per hour (100/100 (100%)) allowed. Message discarded.",
        "451 4.7.1 Hourly sending limit exceeded, try later",
        "552 5.2.2 Daily sending quota exceeded",
        "454 Throttling failure: Daily message quota exceeded.",
        "550 5.4.5 Daily user sending limit exceeded.",
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
        "451 Authentication failed: Maximum credits exceeded",
        "550 5.7.1 You have exceeded your daily sending limit",
        "421 4.7.0 Monthly limit of your plan is reached",
        "450 4.7.1 <x@shop.example>: quota of 500 mails per day is used up",
        "554 Recipients per day limit reached",
        "550 SMTP limit reached: 200 recipients per hour",
        "450 Requested mail action not taken: too many emails in the last 24 hours; outbound limit of the account",
        "535 5.7.0 Daily quota of this mailbox for sending is exceeded",
        "553 5.7.1 Sent limit for today is reached",
        "550 5.7.1 Outbound message quota exceeded",
        "451 4.3.2 message limit exceeded for the day",
        "550 Your account has no credits left",
        "452 4.7.1 You have reached a limit of 100 mails/hour",
        "550 5.7.0 Weekly sending limit reached",
        "550 Maximum number of messages allowed in 24h exceeded",
        "550 You have reached the maximum number of recipients per 24 hours",
        "550 5.4.6 Daily cap reached",
        "550 You reached your max 300 mails within 1 day",
        "550 exceeded max number of recipients for today",
        "550 5.5.1 Limit of 500 mails sent reached",
        "554 monthly plan exhausted: upgrade your plan",
        "550 Domain x.test has exceeded the max defers and failures per hour",
        "550 5.7.1 Your account has exceeded its allotted number of emails",
        "550 5.7.0 transmission limit exceeded",
        "550 5.7.1 User limit exceeded (500 mails in 24 hrs)",
        "550 5.2.1 Message submission limit for this account has been reached",
        "554 5.7.1 Message blocked due to hourly cap of 100",
        /* an amount and the time in which it counts, in any words */
        "554 5.7.0 The limit on the number of allowed outgoing messages was exceeded. Try again later.",
        "550 5.7.1 Your mail limit has been reached.",
        "450 4.7.1 Error: message count quota exceeded",
        "550 Domain shop.example is not allowed to send: recipient limit exceeded, try again after Mon, 30 Nov 2026 "
        "07:00:31 UTC",
        "550 Your account is on probation and limited to 100 messages / hour. It has been disabled until Sun, 29 Nov "
        "2026 08:42:36 GMT.",
        "550 5.7.1 You have reached your daily E-Mail limit",
        "550 5.7.0 You exceeded the number of allowed recipients for the day",
        "550 5.7.1 Sender address has exceeded the number of mails it may send within one hour",
        "451 4.7.1 You have sent too many messages in the last hour; please wait",
        "550 You have exceeded the amount of emails you may send per hour",
        "554 Sender quota exceeded",
        "550 Account has exceeded its monthly allowance of 10000 emails",
        "450 4.7.1 <a@shop.example>: Sender address rejected: Quota exceeded. Quota limit: 100 messages per 3600 "
        "seconds",
        "450 4.7.1 <x@shop.example>: Recipient address rejected: Policy Rejection- Quota Exceeded.",
        "450 4.7.1 rejected: 1000 per 86400 seconds exceeded",
        "450 4.7.1 You can only send 100 emails every 60 minutes",
        "554 5.7.1 Error: too many messages sent from this account today",
        "452 4.5.3 Daily recipient limit reached",
        "550 5.5.3 You have exceeded your daily recipient quota",
        "550 5.7.1 1日の送信上限を超えました",
        "450 4.7.1 1時間あたりの送信通数の上限に達しました",
        "550 送信制限: 24時間に500通まで",
        "550 Limite d'envoi journalier atteinte",
    };
    static const struct {
        const char *reply;
        enum hky_class class;
    } others[] = {
        {"552 5.2.2 The recipient's mailbox is over quota", C(MAILBOX_FULL)},
        {"452 4.2.2 The email account that you tried to reach is over quota", C(MAILBOX_FULL)},
        {"552 5.2.2 Mailbox quota exceeded", C(MAILBOX_FULL)},
        {"550 5.2.2 <x@shop.example>... Quota exceeded", C(MAILBOX_FULL)},
        {"552 5.2.2 disk quota exceeded", C(MAILBOX_FULL)},
        {"552 5.7.0 mailbox storage limit exceeded", C(MAILBOX_FULL)},
        {"552 5.3.4 Message size exceeds fixed limit", C(SIZE_FORMAT)},
        {"550 5.2.121 Recipient's per hour message receive limit from this sender exceeded", C(RATE_LIMITED)},
        {"450 4.2.1 Peak SMTP relay limit exceeded for customer", C(RATE_LIMITED)},
        {"454 Throttling failure: Maximum sending rate exceeded.", C(RATE_LIMITED)},
        {"421 4.7.0 Too many connections from your host", C(RATE_LIMITED)},
        {"452 4.5.3 Too many recipients", C(RATE_LIMITED)},
        {"552 5.2.2 Recipient's email quota exceeded", C(MAILBOX_FULL)},
        {"550 5.1.1 <daily.limit@r1.test>: Recipient address rejected: User unknown", C(BAD_MAILBOX)},
        {"550 <sending.quota@r1.test>: Recipient address rejected: User unknown", C(BAD_MAILBOX)},
        {"550 5.1.1 No such user; daily digest: limited service", C(BAD_MAILBOX)},
        {"552 5.3.4 Message exceeds outgoing message size limit", C(SIZE_FORMAT)},
        {"552 5.3.4 e-mail limit exceeded: 25 MB", C(SIZE_FORMAT)},
        {"552 5.2.2 Mailbox message quota exceeded", C(MAILBOX_FULL)},
        {"452 4.2.2 mailbox full: message limit exceeded", C(MAILBOX_FULL)},
        {"552 5.2.2 <u@x.test>: user has exceeded their email quota", C(MAILBOX_FULL)},
        {"452 4.2.2 The recipient has exceeded the daily limit of messages it may receive", C(MAILBOX_FULL)},
        {"452 4.5.3 Too many recipients, limit 100 per message; 100 recipients per hour", C(RATE_LIMITED)},
        {"550 5.7.1 mail from 1.2.3.4 blocked by daily blacklist; limit your mail", C(BLOCKED_IP)},
        {"452 4.5.3 Your message has too many recipients. For more information regarding Google's sending limits, "
         "please "
         "visit https://support.google.com/mail/?p=TooManyRecipients",
         C(RATE_LIMITED)},
        {"452 4.3.2 Too many recipients this message, limit is 100; see our sending limits", C(RATE_LIMITED)},
        {"451 4.5.3 Too many recipients; outgoing limit per message is 50", C(RATE_LIMITED)},
        {"503 5.5.0 Too many RCPTs", C(RATE_LIMITED)},
        {"550 max recipients per message reached", C(RATE_LIMITED)},
        {"450 4.2.0 Greylisted, try again in 24 hours, maximum wait", C(SYSTEM_TEMP)},
        {"421 4.7.0 too many connections per hour from 192.0.2.1", C(RATE_LIMITED)},
        {"421 4.3.2 The maximum number of concurrent server connections has exceeded a per-source limit, closing "
         "transmission channel",
         C(RATE_LIMITED)},
        {"421 4.4.2 Message submission rate for this client has exceeded the configured limit", C(RATE_LIMITED)},
        {"421 接続数の上限を超えました。時間をおいて再度接続してください", C(RATE_LIMITED)},
        {"550 5.1.1 <max.only.today@r1.test>: Recipient address rejected: User unknown", C(BAD_MAILBOX)},
        {"550 5.1.1 The list daily-limits does not exist", C(BAD_MAILBOX)},
        {"452 4.2.2 mailbox of user exceeded its daily limit", C(MAILBOX_FULL)},
        {"550 5.7.1 Blocked: more than 100 spam reports today", C(REPUTATION_CONTENT)},
    };
    static const enum hky_stage stages[] = {S(MAIL), S(RCPT), S(DATA), S(DOT)};
    unsigned n_bad = 0;

    (void)state;
    for (size_t i = 0; i < sizeof quotas / sizeof *quotas; i++) {
        for (size_t k = 0; k < sizeof stages / sizeof *stages; k++) {
            enum hky_class got = class_of("", "smtp.example.com", stages[k], quotas[i]);
            if (got != HKY_CLASS_QUOTA_EXHAUSTED) {
                print_error("%s at %s: %s\n", quotas[i], hky_stage_name(stages[k]), hky_class_name(got));
                n_bad++;
            }
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        enum hky_class got = class_of("own", "mx.example.com", S(RCPT), others[i].reply);
        if (got != others[i].class) {
            print_error("%s: %s\n", others[i].reply, hky_class_name(got));
            n_bad++;
        }
    }
    assert_int_equal(n_bad, 0);
}

/* The typical replies that hikyaku-classes(7) shows are of the class that they stand under. */
static void test_manual_replies(void **state)
{
    unsigned n_bad = 0;

    (void)state;
    for (int c = 0; c < HKY_CLASS_N; c++) {
        const struct hky_class_doc *d = hky_class_doc((enum hky_class)c);

        if (d->meaning == NULL || d->operator== NULL ||(d->done == NULL) != (d->permanent != NULL) ||
            (d->permanent != NULL) != (d->temporary != NULL)) {
            print_error("%s: not explained whole\n", hky_class_name((enum hky_class)c));
            n_bad++;
        }
        for (size_t i = 0; i < sizeof d->replies / sizeof *d->replies && d->replies[i].text != NULL; i++) {
            enum hky_class got =
                class_of(d->replies[i].is_own ? "own" : "", d->replies[i].is_own ? "mx.example.jp" : "",
                         d->replies[i].stage, d->replies[i].text);

            if (got != (enum hky_class)c) {
                print_error("%s: %s is %s\n", hky_class_name((enum hky_class)c), d->replies[i].text,
                            hky_class_name(got));
                n_bad++;
            }
        }
    }
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_quota_wording),
        cmocka_unit_test(test_manual_replies),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
