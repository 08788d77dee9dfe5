/* How long a reply asks to wait. */
#include "deliver/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { NOW = 1795896000 }; /* 2026-11-28 20:00:00 UTC */

static uint32_t named(const char *text)
{
    struct hky_reply r;
    hky_reply_from_text(&r, hky_str_z(text));
    return hky_wait_asked_sec(&r, NOW * INT64_C(1000));
}

struct row {
    const char *reply;
    uint32_t seconds;
};

static void run(const struct row *rows, size_t n)
{
    unsigned n_bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t got = named(rows[i].reply);
        if (got != rows[i].seconds) {
            print_error("%s: %u s, expected %u\n", rows[i].reply, got, rows[i].seconds);
            n_bad++;
        }
    }
    assert_int_equal(n_bad, 0);
}

static void test_times(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"450 4.7.1 try again after Sat, 28 Nov 2026 23:50:00 UTC", 13800},
        {"450 4.7.1 try again after 28 Nov 2026 20:10 +0000", 600},
        {"450 4.7.1 Retry after Sun, 29 Nov 2026 05:30:00 +0900", 1800},
        {"450 4.7.1 please retry after 2026-11-28T20:05:00Z", 300},
        {"450 4.7.1 please retry after 2026-11-29 05:05:00 +09:00", 300},
        {"450 4.7.1 try again after Sat, 28 Nov 2026 19:50:00 UTC", 0},
        {"450 4.7.1 try again after Tue, 01 Dec 2026 19:50:00 UTC", 258600},
        {"450 4.7.1 try again after Tue, 01 Dec 2026 20:10:00 UTC", 0}, /* too long to be read */
        {"450 4.7.1 30 messages from 10.20.30.40 in 1 day", 0},
        {"450 4.7.1 too much mail from 10.20.30.40 in 1 hour", 0},
        {"450 4.2.0 Greylisted, please try again in 6 seconds", 6},
        {"450 4.2.0 Greylisted for 5 minutes", 300},
        {"451 4.7.1 Please come back in 00:05:00", 300},
        {"451 4.7.1 retry in 10m", 600},
        {"451 4.7.1 Wait 2 hours and try again", 7200},
        {"451 4.7.1 Resources restricted; retry again after 90 seconds", 90},
        {"451 4.7.1 try again in 3 days", 259200},
        {"451 4.7.1 try again in 4 days", 0},
        {"451 4.7.1 try again later, queue id 12h34", 0},
        {"451 4.3.0 Message of 10 minutes ago was taken", 0},
        {"421 4.7.0 Too many connections, try again in 60 minutes", 3600},
        {"450 4.7.1 try again after 99 Nov 2026 23:50:00", 0},
        {"450 4.7.1 try again after 28 Nov 2026 99:99", 0},
        {"450 4.7.1 try again after Sun, 29 Nov 2026 05:10:00 JST", 600},
        {"450 4.7.1 try again after Sat, 28 Nov 2026 12:10:00 PST", 600},
        {"450 4.7.1 try again after 28 Nov 2026 21:10 CET", 600},
        {"450 4.7.1 try again after Sat Nov 28 20:10:00 2026", 600},
        {"450 4.7.1 try again after Nov 28, 2026 20:10:00 UTC", 600},
        {"450 4.7.1 try again after November 29, 2026 05:10 JST", 600},
        {"450 4.7.1 try again after Nov 28, 2026", 0},
        {"450 4.7.1 try again after Nov 28 20:10:00 12", 0},
        {"450 4.7.1 may 5 minutes be enough? wait 6 minutes", 360},
    };
    run(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_several_units(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"451 4.7.1 try again in 5 min 30 sec", 330},
        {"451 4.7.1 try again in 1 hour 20 minutes", 4800},
        {"451 4.7.1 try again in 1 hour, 20 minutes and 5 seconds", 4805},
        {"451 4.7.1 retry in 1h30m", 5400},
        {"451 4.7.1 retry in 1h 30m 15s", 5415},
        {"451 4.7.1 wait 1 day and 2 hours", 93600},
        {"451 4.7.1 try again in 5 minutes, 3 messages are waiting", 300},
        {"451 4.7.1 try again in 30 seconds, 5 minutes at most", 30},
        {"451 4.7.1 please wait 1.5 hours", 5400},
        {"451 4.7.1 please wait 5-10 minutes", 600},
        {"451 4.7.1 please wait an hour", 3600},
        {"451 4.7.1 try again in five minutes", 300},
        {"451 4.7.1 try again in a few minutes", 0},
        {"451 4.7.1 greylisted, after 3 minutes.", 180},
        {"451 4.7.1 try again in 00:05:00", 300},
        {"451 4.7.1 try again in 05:00 minutes", 300},
        {"451 4.7.1 try again in 1:30 hours", 5400},
        {"451 4.7.1 try again in PT5M", 300},
        {"451 4.7.1 retry in P1DT2H", 93600},
        {"451 4.7.1 retry in PT1H30M.", 5400},
        {"451 4.7.1 try port 25 again, PT is no time", 0},
        {"451 4.7.1 try again in 999999999999 hours 5 minutes", 0},
        {"451 4.7.1 try again in 99999 minutes", 0},
        {"451 4.7.1 try again in half an hour", 1800},
        {"451 4.7.1 try again in a quarter of an hour", 900},
        {"451 4.7.1 try again in 3,600 seconds", 3600},
        {"451 4.7.1 try again in 1,000,000,000 seconds", 0},
        {"451 4.7.1 try again in 1,5 hours", 5400},
        {"451 4.7.1 try again in 5,6000 seconds", 5},
        {"451 4.7.1 wait 5,10 or 15 minutes", 900},
        {"451 4.7.1 too many failed attempts, locked for 15 minutes", 900},
        {"451 4.7.1 bitte in 5 Minuten erneut versuchen", 300},
        {"451 4.7.1 veuillez reessayer dans 5 minutes", 300},
    };
    run(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_which_of_several(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"451 4.7.1 Greylisted 10 seconds ago, wait 290 seconds", 290},
        {"451 4.7.1 Greylisted, first seen 10 seconds ago; 290 seconds remaining", 290},
        {"451 4.7.1 You waited 10 seconds; try again in 290 seconds", 290},
        {"451 4.7.1 Deferred, 10 seconds elapsed, 290 seconds left", 290},
        {"451 4.7.1 Greylisted for 300 seconds, wait 290 seconds", 290},
        {"451 4.7.1 since you sent too much, wait 60 seconds", 60},
        {"451 4.7.1 30 messages in the last 10 minutes, wait 20 minutes", 1200},
        {"451 4.7.1 retry limit: 30 messages in 1 day", 0},
        {"451 4.7.1 try again: no more than 5 mails per 1 hour", 0},
        {"451 4.7.1 queue id 12m, size 30 s", 0},
    };
    run(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_retry_after(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"451 4.7.1 Too many requests. Retry-After: 120", 120},
        {"451 4.7.1 rate limited; retry-after=45; id=abc", 45},
        {"451 4.7.1 Retry after 300", 300},
        {"451 4.7.1 Retry after 300.", 300},
        {"451 4.7.1 Retry-After: 2 minutes", 120},
        {"451 4.7.1 Retry-After: Sat, 28 Nov 2026 20:05:00 GMT", 300},
        {"451 4.7.1 Retry after 3 attempts", 0},
        {"451 4.7.1 Retry-After: 999999", 0},
    };
    run(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_japanese(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"451 4.7.1 5分後に再度送信してください", 300},
        {"451 4.7.1 ５分後に再送してください", 300},
        {"451 4.7.1 三十分後に再度お試しください", 1800},
        {"451 4.7.1 1時間30分後に再試行してください", 5400},
        {"451 4.7.1 10分間お待ちください", 600},
        {"451 4.7.1 ３０秒ほど待って再送", 30},
        {"451 4.7.1 一時間以上あけて送信してください", 3600},
        {"451 4.7.1 再送は００：０５：００後", 300},
        {"451 4.7.1 1時間に100通までです", 0},
        {"451 4.7.1 1分間あたり10通を超えました。後で送信してください", 0},
        {"451 4.7.1 過去1時間の送信数を超えました", 0},
        {"451 4.7.1 10秒前に受け付けました。5分後に再送してください", 300},
    };
    run(rows, sizeof(rows) / sizeof(rows[0]));
}

/* Whatever the octets are, the answer is bounded. */
static void test_any_octets(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "retry-after: ", "9",     "99999999999999999999", "p",        "pt",   "h",  "分",      "十", ":", "-", ".",
        " and ",         "wait ", "28 nov 2026 ",         "\xef\xbc", "\xe3", "a ", "minutes "};
    uint64_t seed = 88172645463325252;
    for (unsigned i = 0; i < 20000; i++) {
        struct hky_reply r = {.code = 451};
        while (r.n < 120) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            const char *piece = pieces[seed % (sizeof(pieces) / sizeof(pieces[0]))];
            r.n = (uint16_t)(r.n + snprintf(r.text + r.n, sizeof(r.text) - r.n, "%s", piece));
        }
        r.n = (uint16_t)(r.n - seed % 7); /* also in the middle of a character */
        assert_true(hky_wait_asked_sec(&r, NOW * INT64_C(1000)) <= HKY_WAIT_MAX_SEC);
    }
}

/* What is longer than the class's window is not believed, and what we say ourselves is no word of the server. */
static void test_what_is_believed(void **state)
{
    (void)state;
    static const struct {
        const char *reply;
        enum hky_origin origin;
        uint32_t seconds;
    } rows[] = {
        {"451 4.7.1 try again in 1 hour 20 minutes", HKY_ORIGIN_REMOTE, 4800},
        {"451 4.7.1 try again in 3 days", HKY_ORIGIN_REMOTE, 0},
        {"451 4.7.1 try again after Tue, 01 Dec 2026 19:50:00 UTC", HKY_ORIGIN_REMOTE, 0},
        {"timed out after 30 s: no reply", HKY_ORIGIN_TIMEOUT, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct hky_reply r;
        struct hky_outcome o;
        struct hky_classify_query q = {
            .provider = "own", .mx = "mx.example.com", .is_own = true, .stage = HKY_STAGE_RCPT, .reply = &r};
        q.now_ms = NOW * INT64_C(1000);
        if (rows[i].origin == HKY_ORIGIN_REMOTE)
            hky_reply_from_text(&r, hky_str_z(rows[i].reply));
        else
            hky_reply_local(&r, rows[i].origin, "%s", rows[i].reply);
        hky_classify(NULL, 0, &q, &o);
        if (o.retry_after_sec != rows[i].seconds)
            fail_msg("%s: %u", rows[i].reply, o.retry_after_sec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_several_units),
        cmocka_unit_test(test_which_of_several),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_japanese),
        cmocka_unit_test(test_any_octets),
        cmocka_unit_test(test_what_is_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
