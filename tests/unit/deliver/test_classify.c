/*
 * What replies mean: a table of real ones, re-typed, and, where it lies beside the repository, the labelled corpus of
 * bounces. The rules are those of the program, loaded as `run` loads them.
 */
#include "hikyaku/deliver.h"
#include "hikyaku/outcome.h"
#include "hikyaku/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

/* Right in this many of a hundred rows of the corpus whose class is one of ours. */
#define CORPUS_FLOOR 87

static struct hky_policy *policy;

static int load_rules(void **state)
{
    char path[] = "/tmp/hikyaku-classify-XXXXXX";
    static const char text[] = "engine { hostname = \"mail.shop.example\" }\nrelay \"own\" { mx = true }\n"
                               "route \"all\" { to = \"*\", via = \"own\" }\n";
    struct hky_problems problems = {0};
    struct hky_load_params params = {.path = path, .now_ms = 1764547200000};
    int fd = mkstemp(path);
    enum hky_err err;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    err = hky_policy_load(&params, &policy, &problems);
    for (size_t i = 0; err != HKY_OK && i < problems.n; i++)
        print_error("%s:%u: %s\n", problems.items[i].place.file, problems.items[i].place.line, problems.items[i].text);
    unlink(path);
    hky_problems_fini(&problems);
    return err == HKY_OK ? 0 : -1;
}

static int drop_rules(void **state)
{
    (void)state;
    hky_policy_unref(&policy);
    return 0;
}

/* "550 5.7.1 text", or text alone for a cause of our own. */
static void reply_of(struct hky_reply *r, const char *text, enum hky_origin origin)
{
    unsigned code, a, b, c;
    int at = 0;

    *r = (struct hky_reply){.origin = origin};
    if (origin == HKY_ORIGIN_REMOTE) {
        assert_int_equal(sscanf(text, "%3u %n", &code, &at), 1);
        r->code = (uint16_t)code;
        text += at;
        at = 0;
        if (sscanf(text, "%1u.%3u.%3u%n", &a, &b, &c, &at) == 3 && at > 0) {
            r->enhanced[0] = (uint8_t)a;
            r->enhanced[1] = (uint8_t)b;
            r->enhanced[2] = c <= 255 ? (uint8_t)c : 0;
            r->enhanced_detail = (uint16_t)c;
            text += at;
        }
    }
    r->n = (uint16_t)snprintf(r->text, sizeof r->text, "%s", text);
}

struct sample {
    const char *what;
    const char *provider; /* "own" or a preset */
    const char *mx;
    enum hky_stage stage;
    const char *reply;
    enum hky_class class;
    enum hky_scope scope;
    uint32_t retry_after;
};
#define S(stage_) HKY_STAGE_##stage_
#define C(class_) HKY_CLASS_##class_
#define W(scope_) HKY_SCOPE_##scope_
static const struct sample samples[] = {
    {"accepted", "own", "mx.example.jp", S(DOT), "250 2.0.0 Ok: queued", C(OK), W(RECIPIENT), 0},
    /* carriers */
    {"docomo: unknown at RCPT", "own", "mfsmax.docomo.ne.jp", S(RCPT), "550 Unknown user x@docomo.ne.jp",
     C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"docomo: the same by its domain", "own", "docomo.ne.jp", S(RCPT), "550 Unknown user x@docomo.ne.jp",
     C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"docomo: unknown after the data is a filter", "own", "mfsmax.docomo.ne.jp", S(DOT),
     "550 Unknown user x@docomo.ne.jp", C(FILTERED), W(RECIPIENT), 0},
    {"docomo: 552 is a full mailbox", "own", "mfsmax.docomo.ne.jp", S(DOT), "552 Too much mail data x@docomo.ne.jp",
     C(MAILBOX_FULL), W(RECIPIENT), 0},
    {"docomo: too many recipients", "own", "mfsmax.docomo.ne.jp", S(RCPT), "552 Too many recipients", C(RATE_LIMITED),
     W(PATH), 0},
    {"docomo: session of 101 recipients", "own", "mfsmax.docomo.ne.jp", S(RCPT), "554 Transaction failed",
     C(RATE_LIMITED), W(PATH), 600},
    {"docomo: long line", "own", "mfsmax.docomo.ne.jp", S(DOT), "500 Line Too Long", C(SIZE_FORMAT), W(MESSAGE), 0},
    {"docomo: refused at the door", "own", "mfsmax.docomo.ne.jp", S(GREETING), "554 5.7.1 blocked by DNSBL",
     C(BLOCKED_IP), W(PATH), 0},
    {"au: unknown at RCPT", "own", "lsean.ezweb.ne.jp", S(RCPT), "550 <x@ezweb.ne.jp>: User unknown", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"au: no address after the data is a filter", "own", "lsean.ezweb.ne.jp", S(DOT), "550 : User unknown", C(FILTERED),
     W(RECIPIENT), 0},
    {"au: an address it cannot read", "own", "msmx.au.com", S(RCPT), "554 <x@y@au.com>: Relay access denied",
     C(SIZE_FORMAT), W(RECIPIENT), 0},
    {"softbank: unknown", "own", "mx.softbank.jp", S(RCPT), "550 Invalid recipient: <x@i.softbank.jp>", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"softbank: sender's domain without DNS", "own", "mx.i.softbank.jp", S(MAIL), "553 shop.example does not exist",
     C(AUTH_POLICY), W(SENDER), 0},
    {"willcom: refused by the user", "own", "mx.willcom.com", S(DOT),
     "550 we failed to deliver mail because the following address recipient id refuse to receive mail", C(FILTERED),
     W(RECIPIENT), 0},
    /* Yahoo */
    {"yahoo.co.jp: a 553 that passes", "own", "mx1.mail.yahoo.co.jp", S(MAIL),
     "553 Mail from 192.0.2.1 not allowed - VS98-IP0 deferred", C(BLOCKED_IP), W(PATH), 3600},
    {"yahoo.co.jp: volume", "own", "mx1.mail.yahoo.co.jp", S(MAIL),
     "421 4.7.0 [IPTS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
     C(RATE_LIMITED), W(PATH), 3600},
    {"yahoo: block list", "own", "mta5.am0.yahoodns.net", S(MAIL),
     "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", C(BLOCKED_IP), W(PATH), 0},
    {"yahoo: 552 that means unknown", "own", "mta5.am0.yahoodns.net", S(RCPT),
     "552 1 Requested mail action aborted, mailbox not found", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"yahoo: no such account", "own", "mta6.am0.yahoodns.net", S(DOT),
     "554 delivery error: dd This user doesn't have a yahoo.com account", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"yahoo: unauthenticated", "own", "mta6.am0.yahoodns.net", S(DOT),
     "550 5.7.9 This mail has been blocked because the sender is unauthenticated", C(AUTH_POLICY), W(SENDER), 0},
    /* Google as the receiver */
    {"google: no such account", "own", "gmail-smtp-in.l.google.com", S(RCPT),
     "550 5.1.1 The email account that you tried to reach does not exist.", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"google: disabled", "own", "aspmx.l.google.com", S(RCPT),
     "550 5.2.1 The email account that you tried to reach is disabled.", C(INACTIVE), W(RECIPIENT), 0},
    {"google: 5.2.1 that is a rate", "own", "aspmx.l.google.com", S(RCPT),
     "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
     C(RATE_LIMITED), W(RECIPIENT), 3600},
    {"google: full", "own", "aspmx.l.google.com", S(RCPT), "452 4.2.2 The recipient's inbox is out of storage space.",
     C(MAILBOX_FULL), W(RECIPIENT), 0},
    {"google: full and given up", "own", "gmail-smtp-in.l.google.com", S(RCPT),
     "552 5.2.2 The recipient's inbox is out of storage space and inactive.", C(INACTIVE), W(RECIPIENT), 0},
    {"google: DMARC", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "550 5.7.26 Unauthenticated email from gmail.com is not accepted due to domain's DMARC policy.", C(AUTH_POLICY),
     W(SENDER), 0},
    {"google: 5.7.27 is SPF there", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "550 5.7.27 Your email has been blocked because the sender is unauthenticated.", C(AUTH_POLICY), W(SENDER), 0},
    {"google: 5.7.29 is TLS there", "own", "gmail-smtp-in.l.google.com", S(MAIL),
     "550 5.7.29 Your email has been blocked because TLS was not used", C(TLS), W(PATH), 0},
    {"google: rate of an address", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "421 4.7.28 Gmail has detected an unusual rate of mail originating from your IP address.", C(RATE_LIMITED),
     W(PATH), 3600},
    {"google: rate of a URL domain follows the mail", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "421 4.7.28 Gmail has detected an unusual rate of mail originating from your URL domain.", C(REPUTATION_CONTENT),
     W(SENDER), 0},
    {"google: address blocked for its rate", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "550 5.7.28 Mail from your IP address has been blocked", C(BLOCKED_IP), W(PATH), 0},
    {"google: unsolicited", "own", "gmail-smtp-in.l.google.com", S(DOT),
     "550 5.7.1 Our system has detected that this message is likely unsolicited mail.", C(REPUTATION_CONTENT),
     W(MESSAGE), 0},
    {"google: dots of old carrier addresses", "own", "gmail-smtp-in.l.google.com", S(RCPT),
     "553 5.1.3 The recipient address <a..b@docomo.ne.jp> is not a valid RFC 5321 address.", C(SIZE_FORMAT),
     W(RECIPIENT), 0},
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
    /* Microsoft */
    {"microsoft: block list", "own", "shop-example.mail.protection.outlook.com", S(MAIL),
     "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Part of their network is on our block list "
     "(S3150).",
     C(BLOCKED_IP), W(PATH), 0},
    {"microsoft: address with a bad name", "own", "outlook-com.olc.protection.outlook.com", S(MAIL),
     "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.", C(BLOCKED_IP),
     W(PATH), 3600},
    {"microsoft: busy", "own", "x.mail.protection.outlook.com", S(RCPT),
     "451 4.7.500 Server busy. Please try again later from [192.0.2.1].", C(RATE_LIMITED), W(PATH), 600},
    {"microsoft: unknown at hotmail", "own", "hotmail-com.olc.protection.outlook.com", S(RCPT),
     "550 5.5.0 Requested action not taken: mailbox unavailable.", C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"microsoft: unknown by look-up", "own", "x.mail.protection.outlook.com", S(RCPT),
     "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", C(BAD_MAILBOX),
     W(RECIPIENT), 0},
    {"microsoft: authentication level", "own", "outlook-com.olc.protection.outlook.com", S(DOT),
     "550 5.7.515 Access denied, sending domain SHOP.EXAMPLE does not meet the required authentication level",
     C(AUTH_POLICY), W(SENDER), 0},
    {"m365: no password any more", "m365", "smtp.office365.com", S(AUTH),
     "535 5.7.139 Authentication unsuccessful, basic authentication is disabled", C(RELAY_AUTH), W(RELAY), 0},
    {"m365: not this From", "m365", "smtp.office365.com", S(DOT),
     "550 5.7.60 SMTP; Client does not have permissions to send as this sender", C(AUTH_POLICY), W(SENDER), 0},
    {"m365: three connections", "m365", "smtp.office365.com", S(MAIL),
     "432 4.3.2 Concurrent connections limit exceeded", C(RATE_LIMITED), W(RELAY), 60},
    {"m365: 5.2.2 that is the relay's own mailbox", "m365", "smtp.office365.com", S(DOT),
     "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException", C(QUOTA_EXHAUSTED), W(RELAY),
     21600},
    {"m365: recipients of the tenant", "m365", "smtp.office365.com", S(DOT),
     "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit", C(QUOTA_EXHAUSTED),
     W(RELAY), 86400},
    {"m365: sender banned", "m365", "smtp.office365.com", S(DOT), "550 5.1.8 Access denied, bad outbound sender",
     C(RELAY_DENIED), W(RELAY), 0},
    /* Apple */
    {"icloud: not this From", "icloud", "smtp.mail.me.com", S(MAIL),
     "550 5.7.0 From address is not one of your addresses.", C(AUTH_POLICY), W(SENDER), 0},
    {"icloud: unknown", "own", "mx01.mail.icloud.com", S(RCPT), "550 5.1.1 <x@icloud.com>: inactive email address",
     C(BAD_MAILBOX), W(RECIPIENT), 0},
    {"icloud: volume", "own", "mx01.mail.icloud.com", S(RCPT),
     "421 4.7.1 Messages to x@icloud.com deferred due to excessive volume", C(RATE_LIMITED), W(PATH), 3600},
    {"icloud: proofpoint", "own", "mx01.mail.icloud.com", S(GREETING),
     "550 5.7.0 Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=192.0.2.1", C(BLOCKED_IP), W(PATH), 0},
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
    {"a size is no quota", "lolipop", "smtp.lolipop.jp", S(MAIL), "552 5.3.4 Message size exceeds fixed limit",
     C(SIZE_FORMAT), W(MESSAGE), 0},
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
    {"system 4xx", "own", "mx.example.jp", S(DOT), "452 4.3.1 Insufficient system storage", C(SYSTEM_TEMP), W(PATH), 0},
};

static void classify(const char *provider, const char *mx, enum hky_stage stage, const struct hky_reply *reply,
                     struct hky_outcome *out)
{
    struct hky_classify_query q = {
        .provider = provider, .mx = mx, .is_own = strcmp(provider, "own") == 0, .stage = stage, .reply = reply};

    hky_classify(policy->rules, policy->n_rules, &q, out);
}

static void test_samples(void **state)
{
    unsigned wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *s = &samples[i];
        struct hky_reply reply;
        struct hky_outcome o;

        reply_of(&reply, s->reply, HKY_ORIGIN_REMOTE);
        classify(s->provider, s->mx, s->stage, &reply, &o);
        if (o.class != s->class || o.scope != s->scope || o.retry_after_sec != s->retry_after || o.stage != s->stage ||
            o.is_temporary != (s->reply[0] == '4')) {
            print_error("%s: %s, %s, %u s; expected %s, %s, %u s\n", s->what, hky_class_name(o.class),
                        hky_scope_name(o.scope), o.retry_after_sec, hky_class_name(s->class), hky_scope_name(s->scope),
                        s->retry_after);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void test_local_causes(void **state)
{
    static const struct {
        const char *what, *provider, *mx, *text;
        enum hky_origin origin;
        enum hky_stage stage;
        enum hky_class class;
        enum hky_scope scope;
        bool is_temporary;
    } cases[] = {
        {"no such domain", "own", "x.example", "NXDOMAIN", HKY_ORIGIN_DNS, S(CONNECT), C(BAD_DOMAIN), W(DOMAIN), false},
        {"relay's name unknown", "", "x.example", "NXDOMAIN", HKY_ORIGIN_DNS, S(CONNECT), C(NETWORK), W(RELAY), true},
        {"resolver down", "own", "x.example", "SERVFAIL", HKY_ORIGIN_DNS, S(CONNECT), C(NETWORK), W(PATH), true},
        {"refused", "own", "x.example", "connection refused", HKY_ORIGIN_CONNECT, S(CONNECT), C(NETWORK), W(PATH),
         true},
        {"au refuses", "own", "ezweb.ne.jp", "refused", HKY_ORIGIN_CONNECT, S(CONNECT), C(NETWORK), W(PATH), true},
        {"au resets: blocked or busy", "own", "lsean.ezweb.ne.jp", "connection reset by peer", HKY_ORIGIN_CONNECT,
         S(CONNECT), C(RATE_LIMITED), W(PATH), true},
        {"timeout", "", "x.example", "no answer", HKY_ORIGIN_TIMEOUT, S(MAIL), C(NETWORK), W(RELAY), true},
        {"lost", "own", "x.example", "connection closed", HKY_ORIGIN_LOST, S(DATA), C(NETWORK), W(PATH), true},
        {"certificate", "", "x.example", "certificate does not match", HKY_ORIGIN_TLS, S(TLS), C(TLS), W(RELAY), false},
        {"AUTH is not offered", "", "x.example", "AUTH is not offered", HKY_ORIGIN_LOCAL, S(AUTH), C(RELAY_AUTH),
         W(RELAY), false},
        {"no SMTP at all", "own", "x.example", "not an SMTP reply: no code", HKY_ORIGIN_LOCAL, S(GREETING), C(NETWORK),
         W(PATH), true},
        {"too big for SIZE", "", "x.example", "the server takes 1000 octets", HKY_ORIGIN_LOCAL, S(MAIL), C(SIZE_FORMAT),
         W(MESSAGE), false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hky_reply reply;
        struct hky_outcome o;

        reply_of(&reply, cases[i].text, cases[i].origin);
        classify(cases[i].provider, cases[i].mx, cases[i].stage, &reply, &o);
        if (o.class != cases[i].class || o.scope != cases[i].scope || o.is_temporary != cases[i].is_temporary)
            fail_msg("%s: %s, %s, temporary %d", cases[i].what, hky_class_name(o.class), hky_scope_name(o.scope),
                     o.is_temporary);
    }
}

/* Without any rule the stage and the code decide. */
static void test_without_rules(void **state)
{
    struct hky_reply reply;
    struct hky_outcome o;
    struct hky_classify_query q = {
        .provider = "own", .mx = "", .is_own = true, .stage = HKY_STAGE_RCPT, .reply = &reply};

    (void)state;
    reply_of(&reply, "550 5.1.1 User unknown", HKY_ORIGIN_REMOTE);
    hky_classify(NULL, 0, &q, &o);
    assert_int_equal(o.class, HKY_CLASS_BAD_MAILBOX);
    reply_of(&reply, "552 5.2.2 full", HKY_ORIGIN_REMOTE);
    hky_classify(NULL, 0, &q, &o);
    assert_int_equal(o.class, HKY_CLASS_MAILBOX_FULL);
}

static void test_rule_language(void **state)
{
    static const struct hky_class_rule rules[] = {
        {.provider = "", .mx = "*.a.example|b.example", .enhanced = "", .text = "", .class = C(FILTERED)},
        {.provider = "p", .mx = "", .enhanced = "", .text = "", .class = C(TLS)},
        {.provider = "",
         .mx = "",
         .stages = 1U << HKY_STAGE_DOT,
         .enhanced = "x.7.2?",
         .text = "",
         .class = C(EXPIRED)},
        {.provider = "", .mx = "", .enhanced = "", .text = "one*two|t?ree", .class = C(INACTIVE)},
    };
    static const struct {
        const char *what, *provider, *mx, *reply;
        enum hky_stage stage;
        enum hky_class class;
    } cases[] = {
        {"first host", "", "x.a.example", "550 no", S(RCPT), C(FILTERED)},
        {"second host, root dot", "", "B.example.", "550 no", S(RCPT), C(FILTERED)},
        {"provider", "p", "c.example", "550 no", S(RCPT), C(TLS)},
        {"any class", "", "", "450 4.7.26 no", S(DOT), C(EXPIRED)},
        {"other stage", "", "", "550 5.7.26 no", S(RCPT), C(AUTH_POLICY)},
        {"pieces in order", "", "", "550 oNe and TWO", S(RCPT), C(INACTIVE)},
        {"pieces the other way round", "", "", "550 two and one", S(RCPT), C(UNKNOWN)},
        {"one octet", "", "", "550 thReE", S(RCPT), C(INACTIVE)},
        {"a phrase longer than the text", "", "", "550 on", S(RCPT), C(UNKNOWN)},
        {"no text", "", "", "550 ", S(RCPT), C(UNKNOWN)},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hky_reply reply;
        struct hky_outcome o;
        struct hky_classify_query q = {.provider = cases[i].provider,
                                       .mx = cases[i].mx,
                                       .is_own = cases[i].provider[0] == '\0',
                                       .stage = cases[i].stage,
                                       .reply = &reply};

        reply_of(&reply, cases[i].reply, HKY_ORIGIN_REMOTE);
        hky_classify(rules, sizeof rules / sizeof *rules, &q, &o);
        if (o.class != cases[i].class)
            fail_msg("%s: %s, expected %s", cases[i].what, hky_class_name(o.class), hky_class_name(cases[i].class));
    }
}

/* The dearest reply there is: 1000 octets in which every phrase could begin. Sanitizers included, far below a turn. */
static void test_time_is_bounded(void **state)
{
    struct hky_reply reply = {.code = 550, .n = HKY_REPLY_TEXT - 1};
    struct hky_outcome o;
    struct timespec from, to;
    long us;

    (void)state;
    for (unsigned i = 0; i < reply.n; i++)
        reply.text[i] = "mailbox is spam limit user dns "[i % 31];
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (int i = 0; i < 100; i++)
        classify("own", "mx.example.jp", HKY_STAGE_DOT, &reply, &o);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    us = ((to.tv_sec - from.tv_sec) * 1000000L + (to.tv_nsec - from.tv_nsec) / 1000) / 100;
    print_message("a reply of 1000 octets: %ld us\n", us);
    assert_true(us < 5000);
}

/* Whatever a peer says, the answer is one of ours and no wait is longer than three days. */
static void test_any_octets(void **state)
{
    uint64_t seed = 88172645463325252;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct hky_reply reply = {.code = (uint16_t)(400 + round % 200), .enhanced = {5, 7}};
        struct hky_outcome o;
        static const char *const mx[] = {"", ".", "mfsmax.docomo.ne.jp", "smtp.gmail.com", "*"};

        reply.n = (uint16_t)(round % HKY_REPLY_TEXT);
        for (unsigned i = 0; i < reply.n; i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            reply.text[i] = round % 2 != 0 ? (char)(seed >> 40) : "0123456789:- in after min hour*?|x"[seed % 34];
        }
        classify(round % 3 != 0 ? "own" : "gmail", mx[round % 5], (enum hky_stage)(1 + round % 10), &reply, &o);
        assert_true(o.class > HKY_CLASS_OK && o.class < HKY_CLASS_FULL);
        assert_true(o.scope < HKY_SCOPE_N);
        assert_true(o.retry_after_sec <= 3 * 86400);
    }
}

/* ---- the corpus ---- */

static enum hky_stage stage_of_command(const char *command)
{
    static const struct {
        const char *command;
        enum hky_stage stage;
    } stages[] = {{"EHLO", S(HELLO)}, {"HELO", S(HELLO)}, {"MAIL", S(MAIL)}, {"RCPT", S(RCPT)}, {"DATA", S(DOT)}};

    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strcmp(stages[i].command, command) == 0)
            return stages[i].stage;
    return HKY_STAGE_DSN;
}

static const char *member(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s != NULL ? s : "";
}

static bool is_label(const char *labels, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = labels; (p = strstr(p, name)) != NULL; p += n)
        if ((p == labels || p[-1] == '|') && (p[n] == '\0' || p[n] == '|'))
            return true;
    return false;
}

static bool is_ours(const char *labels)
{
    char first[32];
    enum hky_class c;

    snprintf(first, sizeof first, "%.*s", (int)strcspn(labels, "|"), labels);
    return hky_class_parse(hky_str_z(first), &c);
}

static bool row_is_right(const json_t *row)
{
    const char *status = member(row, "status"), *code = member(row, "code");
    enum hky_stage stage = stage_of_command(member(row, "command"));
    unsigned a = 0, b = 0, c = 0;
    struct hky_reply reply = {0};
    struct hky_outcome o;

    /* X.0.9NN is the corpus' own mark for "no status", not something a server said. */
    if (sscanf(status, "%1u.%3u.%3u", &a, &b, &c) == 3 && (b != 0 || c < 900)) {
        reply.enhanced[0] = (uint8_t)a;
        reply.enhanced[1] = (uint8_t)b;
        reply.enhanced_detail = (uint16_t)c;
    }
    reply.code = (uint16_t)(code[0] != '\0' ? atoi(code) : a == 4 ? 450 : 550);
    reply.n = (uint16_t)snprintf(reply.text, sizeof reply.text, "%.*s", HKY_REPLY_TEXT - 1, member(row, "text"));
    if (reply.n >= HKY_REPLY_TEXT)
        reply.n = HKY_REPLY_TEXT - 1;
    classify("own", member(row, "remote"), stage, &reply, &o);
    if (getenv("HKY_SHOW_WRONG") != NULL && !is_label(member(row, "class"), hky_class_name(o.class)))
        print_message("%s, not %s: [%s] %s %s %s\n", hky_class_name(o.class), member(row, "class"),
                      hky_stage_name(stage), code, status, member(row, "text"));
    return is_label(member(row, "class"), hky_class_name(o.class));
}

static void test_corpus(void **state)
{
    FILE *f = fopen(HKY_SOURCE_DIR "/../shared/corpus/bounces.jsonl", "r");
    char *line = NULL;
    size_t cap = 0;
    unsigned n = 0, right = 0;

    (void)state;
    if (f == NULL) {
        print_message("SKIP: no corpus in ../shared/corpus\n");
        skip();
    }
    while (getline(&line, &cap, f) > 0) {
        json_t *file = json_loads(line, 0, NULL), *row;
        size_t i;

        assert_non_null(file);
        json_array_foreach (json_object_get(file, "recipients"), i, row) {
            if (!is_ours(member(row, "class")))
                continue;
            n++;
            right += row_is_right(row);
        }
        json_decref(file);
    }
    free(line);
    fclose(f);
    print_message("corpus: %u of %u right, %.1f %%\n", right, n, 100.0 * right / n);
    assert_true(n > 300);
    assert_true(right * 100 >= n * CORPUS_FLOOR);
}

static enum hky_class class_of(const char *provider, const char *mx, enum hky_stage stage, const char *text)
{
    struct hky_reply reply;
    struct hky_outcome o;
    struct hky_classify_query q = {.provider = provider,
                                   .mx = mx,
                                   .is_own = strcmp(provider, "own") == 0,
                                   .stage = stage,
                                   .reply = &reply,
                                   .address = HKY_STR("x@shop.example")};

    reply_of(&reply, text, HKY_ORIGIN_REMOTE);
    hky_classify(policy->rules, policy->n_rules, &q, &o);
    return o.class;
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

/* Dates are moments, durations durations, addresses and counts neither. */
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

/* ---- rules that can never hit ---- */

/* The first of the alternatives joined by '|' as one that fits: '*' is nothing, '?' a letter. */
static void smallest_of(const char *glob, const char *star, char *out, size_t n)
{
    size_t used = 0;

    for (; *glob != '\0' && *glob != '|' && used + strlen(star) + 1 < n; glob++) {
        if (*glob == '*') {
            memcpy(out + used, star, strlen(star));
            used += strlen(star);
        } else {
            out[used++] = *glob == '?' ? '1' : *glob;
        }
    }
    out[used] = '\0';
}

/* An enhanced code that fits the pattern of a rule, for a reply of `code`; false: none does. */
static bool enhance(struct hky_reply *r, const char *pattern)
{
    char text[32];
    unsigned a, b, c;

    if (pattern[0] == '\0')
        return true;
    smallest_of(pattern, "1", text, sizeof text);
    if (text[0] == 'x')
        text[0] = (char)('0' + r->code / 100);
    if (sscanf(text, "%1u.%3u.%3u", &a, &b, &c) != 3 || a != r->code / 100U)
        return false;
    r->enhanced[0] = (uint8_t)a;
    r->enhanced[1] = (uint8_t)b;
    r->enhanced[2] = c <= 255 ? (uint8_t)c : 0;
    r->enhanced_detail = (uint16_t)c;
    return true;
}

/* The code of a rule that begins with `digit`; 0: it has none. */
static uint16_t code_of(const struct hky_class_rule *rule, unsigned digit)
{
    uint16_t code = (uint16_t)(digit * 100 + 50);

    if (rule->code_max != 0 && code > rule->code_max)
        code = rule->code_max;
    if (rule->code_max != 0 && code < rule->code_min)
        code = rule->code_min;
    return code / 100 == digit ? code : 0;
}

/* Asks for what the rule asks for, in the smallest reply of that kind, at each of its stages, by a recipient's host and
 * by a relay. True: the reply gets the rule's class at one of them, or there is no such reply. */
static bool is_reached(const struct hky_class_rule *rule, const char *phrase, uint16_t code, enum hky_class *taken_as)
{
    static const char *const anybody[] = {"own", ""};
    size_t n_providers = rule->provider[0] == '\0' ? 2 : 1;
    char mx[80] = "mx.example.net";
    struct hky_reply reply = {.code = code};

    if (!enhance(&reply, rule->enhanced))
        return true;
    if (rule->mx[0] != '\0')
        smallest_of(rule->mx, "mx", mx, sizeof mx);
    smallest_of(phrase, " ", reply.text, 200);
    reply.n = (uint16_t)strlen(reply.text);
    for (unsigned stage = HKY_STAGE_CONNECT; stage < HKY_STAGE_N; stage++) {
        for (size_t i = 0; i < n_providers && (rule->stages == 0 || (rule->stages >> stage & 1) != 0); i++) {
            struct hky_outcome o;

            classify(n_providers == 1 ? rule->provider : anybody[i], mx, (enum hky_stage)stage, &reply, &o);
            if (o.class == rule->class)
                return true;
            *taken_as = o.class;
        }
    }
    return false;
}

/* A rule, or a phrase of one, of which even the smallest reply is taken by an earlier rule of another class can never
 * decide anything: the order is wrong, or the phrase is dead. Asked for temporary and permanent replies apart. */
static void test_every_rule_can_hit(void **state)
{
    unsigned n_bad = 0, n_asked = 0;

    (void)state;
    for (unsigned i = 0; i < policy->n_rules; i++) {
        const struct hky_class_rule *rule = &policy->rules[i];

        for (const char *p = rule->text; p != NULL; p = strchr(p, '|') != NULL ? strchr(p, '|') + 1 : NULL) {
            for (unsigned digit = 4; digit <= 5; digit++) {
                uint16_t code = code_of(rule, digit);
                enum hky_class taken_as = HKY_CLASS_N;

                n_asked += code != 0;
                if (code == 0 || is_reached(rule, p, code, &taken_as))
                    continue;
                print_error("rule %u (%s %s %s): %u \"%.*s\" is %s, never %s\n", i + 1, rule->provider, rule->mx,
                            rule->enhanced, code, (int)strcspn(p, "|"), p, hky_class_name(taken_as),
                            hky_class_name(rule->class));
                n_bad++;
            }
        }
    }
    print_message("%u rules, %u phrases with a code\n", policy->n_rules, n_asked);
    assert_true(n_asked > policy->n_rules);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),        cmocka_unit_test(test_quota_wording),
        cmocka_unit_test(test_local_causes),   cmocka_unit_test(test_without_rules),
        cmocka_unit_test(test_rule_language),  cmocka_unit_test(test_time_is_bounded),
        cmocka_unit_test(test_any_octets),     cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_manual_replies), cmocka_unit_test(test_every_rule_can_hit),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
