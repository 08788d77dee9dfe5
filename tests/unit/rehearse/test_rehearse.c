/* Plans in motion: a real policy, relays that answer by script, a clock that is moved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "hikyaku/rehearse.h"

#define START  INT64_C(1796000400000)
#define MINUTE INT64_C(60000)
#define HOUR   (60 * MINUTE)

static const char POLICY[] =
    "engine { hostname = 'mail.shop.example', retry = { '5m', '15m' } }\n"
    "relay 'own' { mx = true }\n"
    "relay 'rental' { host = 'smtp.rental.example', port = 587, user = 'shop', password = secret 'rental',\n"
    "                 cap = '10/min' }\n"
    "relay 'gmail two' { host = 'smtp.two.example', port = 587, user = 'two', password = secret 'two',\n"
    "                    from = 'shop@two.example' }\n"
    "route 'spill' { to = 'spill.example', via = { step 'rental' { wait = '5m' }, 'own' } }\n"
    "route 'two' { to = 'two.example', via = { 'own', 'gmail two' } }\n"
    "route 'tagged' { to = 'tag.example', header = { ['X-Way'] = 'r*' }, via = 'rental' }\n"
    "route 'none' { to = 'nothing.example', via = function() return nil end }\n"
    "route 'own' { to = 'own.example', via = 'own' }\n"
    "route 'notices' { to = 'shop.example', via = 'rental' }\n";

struct fixture {
    char dir[64];
    struct hky_policy *policy;
    struct hky_vm *vm;
};
static struct fixture f;

static int load(void **state)
{
    char path[96];
    struct hky_problems problems = {0};
    struct hky_error e;
    FILE *file;
    (void)state;
    strcpy(f.dir, "/tmp/hky-rehearse-XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    snprintf(path, sizeof path, "%s/policy.lua", f.dir);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(POLICY, file);
    fclose(file);
    struct hky_policy_load_params p = {.path = path, .now_ms = START};
    enum hky_err err = hky_policy_load(&p, &f.policy, &problems);
    if (err != HKY_OK)
        fail_msg("%s", problems.n > 0 ? problems.items[0].text : "?");
    hky_problems_fini(&problems);
    assert_int_equal(hky_vm_new(f.policy, &f.vm, &e), HKY_OK);
    unlink(path);
    rmdir(f.dir);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    hky_vm_free(&f.vm);
    hky_policy_unref(&f.policy);
    return 0;
}

static void begin(struct hky_rehearsal *r)
{
    struct hky_error e;
    assert_int_equal(hky_rehearsal_init(r, f.policy, START, &e), HKY_OK);
    r->decide = hky_rehearsal_decide_by_vm;
    r->ctx = f.vm;
    assert_int_equal(hky_rehearsal_open(r, &e), HKY_OK);
    hky_rehearsal_start(r);
}

static struct hky_message *mail_with(const char *const *to, unsigned n, int64_t at_ms, const char *header)
{
    static uint64_t id;
    struct hky_rcpt_draft rcpt[8];
    for (unsigned i = 0; i < n; i++)
        rcpt[i] = (struct hky_rcpt_draft){.address = hky_str_z(to[i])};
    struct hky_message_draft d = {.id = ++id,
                                  .accepted_at_ms = at_ms,
                                  .size = strlen(header),
                                  .header_octets = (uint32_t)strlen(header),
                                  .recipients = rcpt,
                                  .n_recipients = n};
    d.facts[HKY_FACT_SENDER] = HKY_STR("news@shop.example");
    d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
    struct hky_message *m = hky_message_new(&d);
    m->body = hky_body_new(strdup(header), strlen(header), strlen(header) + 1);
    return m;
}

static struct hky_message *send_one(struct hky_rehearsal *r, const char *to)
{
    struct hky_message *m =
        mail_with(&to, 1, hky_rehearsal_now_ms(r), "From: news@shop.example\r\nX-Way: rental\r\n\r\n");
    hky_rehearsal_send(r, m);
    return m;
}

static void say_reply(struct hky_rehearsal *r, const char *line)
{
    struct hky_error e = {0};
    if (hky_rehearsal_add_reply(r, line, &e) != HKY_OK)
        fail_msg("%s: %s", line, e.text);
}

/* Attempts and steps that were left, in order: "own network; own ok". */
static const char *story(const struct hky_rehearsal *r)
{
    static char text[2048];
    struct hky_buf b;
    hky_buf_init(&b, sizeof text - 1);
    for (size_t i = 0; i < r->n_acts; i++) {
        if (r->acts[i].has_outcome) {
            hky_buf_add_z(&b, b.n > 0 ? "; " : "");
            hky_rehearsal_act_text(&r->acts[i], &b);
        }
    }
    snprintf(text, sizeof text, "%s", hky_buf_z(&b));
    hky_buf_fini(&b);
    return text;
}

/* Each: what relays say, how far time goes, what must have happened then. */
static void scripts_are_played(void **state)
{
    static const struct {
        const char *name, *to, *replies[5], *full, *paused;
        int64_t for_ms;
        const char *story;
        enum hky_recipient_state ends;
    } CASES[] = {
        {"nothing said: every relay says yes", "a@own.example", {NULL}, NULL, NULL, 0, "own ok", HKY_RCPT_DELIVERED},
        {"free: rental", "a@spill.example", {NULL}, NULL, NULL, 0, "rental ok", HKY_RCPT_DELIVERED},
        {"full: the next one", "a@spill.example", {NULL}, "rental", NULL, 0, "rental full; own ok", HKY_RCPT_DELIVERED},
        {"paused: the next one",
         "a@spill.example",
         {NULL},
         NULL,
         "rental",
         0,
         "rental paused; own ok",
         HKY_RCPT_DELIVERED},
        {"blocked at the connect",
         "a@two.example",
         {"own connect 554 5.7.1 blocked by DNSBL"},
         NULL,
         NULL,
         0,
         "own blocked_ip; gmail two ok",
         HKY_RCPT_DELIVERED},
        {"a relay's name may hold a blank; a class is a reply",
         "a@two.example",
         {"own blocked_ip", "gmail two rcpt 550 5.1.1 no such user"},
         NULL,
         NULL,
         0,
         "own blocked_ip; gmail two bad_mailbox",
         HKY_RCPT_FAILED},
        {"before the retry nothing more", "a@own.example", {"own network"}, NULL, NULL, 299999, "own network", 0},
        {"five minutes later, and another quarter",
         "a@own.example",
         {"own connect timeout", "own 451 4.3.0 later"},
         NULL,
         NULL,
         20 * MINUTE,
         "own network; own system_temp; own ok",
         HKY_RCPT_DELIVERED},
        {"always",
         "a@two.example",
         {"own always network"},
         NULL,
         NULL,
         HOUR,
         "own network; own network; own network; gmail two ok",
         HKY_RCPT_DELIVERED},
        {"lost at the dot", "a@own.example", {"own dot lost"}, NULL, NULL, 5 * MINUTE, "own ambiguous", 0},
        {"the header is there for conditions", "a@tag.example", {NULL}, NULL, NULL, 0, "rental ok", HKY_RCPT_DELIVERED},
        {"no route: parked", "a@nothing.example", {NULL}, NULL, NULL, HOUR, "", HKY_RCPT_PARKED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct hky_rehearsal r;
        struct hky_error e;
        begin(&r);
        for (size_t k = 0; k < 5 && CASES[i].replies[k] != NULL; k++)
            say_reply(&r, CASES[i].replies[k]);
        if (CASES[i].full != NULL)
            assert_int_equal(hky_rehearsal_set_full(&r, CASES[i].full, &e), HKY_OK);
        if (CASES[i].paused != NULL)
            assert_int_equal(hky_rehearsal_set_paused(&r, CASES[i].paused, &e), HKY_OK);
        struct hky_message *m = send_one(&r, CASES[i].to);
        hky_rehearsal_advance_to(&r, START + CASES[i].for_ms);
        if (strcmp(story(&r), CASES[i].story) != 0 || m->recipients[0].state != CASES[i].ends)
            fail_msg("%s: \"%s\", ends %s", CASES[i].name, story(&r), hky_recipient_state_name(m->recipients[0].state));
        hky_message_unref(&m);
        hky_rehearsal_fini(&r);
    }
}

/* A connect that fails is everybody's; a reply to RCPT is one recipient's. */
static void one_transaction_has_one_connection(void **state)
{
    static const char *const TO[] = {"a@own.example", "b@own.example", "c@own.example"};
    struct hky_rehearsal r;
    (void)state;
    begin(&r);
    say_reply(&r, "own connect 421 4.3.2 busy");
    say_reply(&r, "own rcpt 550 5.1.1 unknown");
    struct hky_message *m = mail_with(TO, 3, START, "From: a\r\n\r\n");
    hky_rehearsal_send(&r, m);
    hky_rehearsal_run(&r, START + HOUR);
    assert_string_equal(story(&r),
                        "own system_temp; own system_temp; own system_temp; own bad_mailbox; own ok; own ok");
    hky_message_unref(&m);
    hky_rehearsal_fini(&r);
}

static void time_goes_from_one_moment_to_the_next(void **state)
{
    struct hky_rehearsal r;
    (void)state;
    begin(&r);
    assert_int_equal(hky_rehearsal_next_at(&r), INT64_MAX);
    say_reply(&r, "own connect timeout");
    struct hky_message *m = send_one(&r, "a@own.example");
    hky_rehearsal_settle(&r);
    assert_int_equal(hky_rehearsal_next_at(&r), START + 5 * MINUTE);
    assert_int_equal(r.acts[0].next_at_ms, START + 5 * MINUTE);
    hky_rehearsal_run(&r, START + 48 * HOUR);
    assert_int_equal(hky_rehearsal_now_ms(&r), START + 5 * MINUTE); /* nobody waits any more */
    assert_int_equal(r.acts[r.n_acts - 1].at_ms, START + 5 * MINUTE);
    assert_string_equal(r.acts[r.n_acts - 1].from, "news@shop.example");
    hky_message_unref(&m);
    hky_rehearsal_fini(&r);
}

/* Caps obey the moved clock: eleven for ten a minute take a minute. */
static void caps_obey_the_clock(void **state)
{
    static const char *const TO = "a@tag.example";
    struct hky_rehearsal r;
    (void)state;
    begin(&r);
    for (int i = 0; i < 11; i++) {
        struct hky_message *m = mail_with(&TO, 1, START, "From: a\r\nX-Way: rental\r\n\r\n");
        hky_rehearsal_send(&r, m);
        hky_message_unref(&m);
    }
    hky_rehearsal_advance_to(&r, START + MINUTE - 1);
    assert_int_equal(r.n_acts, 10);
    hky_rehearsal_advance_to(&r, START + MINUTE + 6000);
    assert_int_equal(r.n_acts, 11);
    hky_rehearsal_fini(&r);
}

/* By the clock of the rehearsal, at the moment of the attempt. */
static void a_date_in_a_reply_means_that_moment(void **state)
{
    struct hky_rehearsal r;
    int64_t next_at_ms[2] = {0};
    unsigned n = 0;
    (void)state;
    begin(&r); /* 30 Nov 2026 01:00 */
    say_reply(&r, "own rcpt 451 4.7.1 greylisted, try again after Mon, 30 Nov 2026 03:00:00 +0000");
    say_reply(&r, "own rcpt 451 4.7.1 greylisted, try again after Mon, 30 Nov 2026 06:00:00 +0000");
    struct hky_message *m = send_one(&r, "a@own.example");
    hky_rehearsal_run(&r, START + 12 * HOUR);
    assert_string_equal(story(&r), "own system_temp; own system_temp; own ok");
    for (size_t i = 0; i < r.n_acts; i++)
        if (r.acts[i].kind == HKY_EVENT_DEFERRED && n < 2)
            next_at_ms[n++] = r.acts[i].next_at_ms;
    assert_int_equal(next_at_ms[0], START + 2 * HOUR);
    assert_int_equal(next_at_ms[1], START + 5 * HOUR);
    hky_message_unref(&m);
    hky_rehearsal_fini(&r);
}

static void what_is_not_understood_is_said(void **state)
{
    static const char *const LINES[][2] = {
        {"gmial 550 no", "does not begin with the name of a relay"},
        {"own", "a reply (550 5.1.1 no)"},
        {"own always", "a reply (550 5.1.1 no)"},
        {"own rcpt", "a reply (550 5.1.1 no)"},
        {"own mailbox_ful", "a reply (550 5.1.1 no)"},
    };
    struct hky_rehearsal r;
    struct hky_error e;
    (void)state;
    begin(&r);
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        memset(&e, 0, sizeof e);
        assert_int_equal(hky_rehearsal_add_reply(&r, LINES[i][0], &e), HKY_E_SYNTAX);
        if (strstr(e.text, LINES[i][1]) == NULL)
            fail_msg("%s: %s", LINES[i][0], e.text);
    }
    assert_int_equal(hky_rehearsal_set_full(&r, "own", &e), HKY_E_STATE);
    assert_int_equal(hky_rehearsal_set_full(&r, "nope", &e), HKY_E_MISSING);
    assert_int_equal(hky_rehearsal_set_paused(&r, "nope", &e), HKY_E_MISSING);
    hky_rehearsal_fini(&r);
}

/* Policy tests are built on this: at least 2,000 simple ones a second. Sanitizers cost much of it here. */
static void many_a_second(void **state)
{
    enum { N = 500 };
    int64_t began = hky_thread_cpu_ns();
    (void)state;
    for (int i = 0; i < N; i++) {
        struct hky_rehearsal r;
        begin(&r);
        say_reply(&r, "own connect 554 5.7.1 blocked by DNSBL");
        struct hky_message *m = send_one(&r, "a@two.example");
        hky_rehearsal_run(&r, START + HOUR);
        assert_int_equal(m->recipients[0].state, HKY_RCPT_DELIVERED);
        hky_message_unref(&m);
        hky_rehearsal_fini(&r);
    }
    int64_t ns = (hky_thread_cpu_ns() - began) / N;
    print_message("%lld us a rehearsal of two steps, %lld a second\n", (long long)(ns / 1000),
                  (long long)(1000000000 / ns));
    assert_true(ns < 2000000);
}

/* Recipients of one message that end together share a notice, which is mail: it is decided, queued and delivered. */
static void a_failure_notice_goes_its_own_way(void **state)
{
    static const struct {
        const char *name, *reply;
        bool has_notices, is_due;
    } rows[] = {
        {"both fail", "own always rcpt 550 5.1.1 no such user", true, true},
        {"both arrive", "own always 250 ok", true, false},
        {"a rehearsal without notices", "own always rcpt 550 5.1.1 no such user", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hky_rehearsal r;
        struct hky_error e;
        const char *const to[] = {"a@own.example", "b@own.example"};
        bool is_delivered = false;
        assert_int_equal(hky_rehearsal_init(&r, f.policy, START, &e), HKY_OK);
        r.decide = hky_rehearsal_decide_by_vm;
        r.ctx = f.vm;
        r.has_notices = rows[i].has_notices;
        assert_int_equal(hky_rehearsal_open(&r, &e), HKY_OK);
        hky_rehearsal_start(&r);
        say_reply(&r, rows[i].reply);
        struct hky_message *m = mail_with(to, 2, START, "From: news@shop.example\r\n\r\n");
        hky_rehearsal_send(&r, m);
        hky_rehearsal_await_notices(&r);
        if ((r.last_notice != NULL) != rows[i].is_due)
            fail_msg("%s: %s", rows[i].name, r.last_notice != NULL ? "a notice" : "no notice");
        if (rows[i].is_due) {
            const struct hky_recipient *n = &r.last_notice->recipients[0];
            assert_int_equal(r.last_notice->accepted_at_ms, START + 1000);
            assert_true(hky_str_eq(hky_recipient_address(n), HKY_STR("news@shop.example")));
            assert_string_equal(n->plan->route, "notices");
            hky_rehearsal_run(&r, START + MINUTE);
            for (size_t k = 0; k < r.n_acts; k++)
                is_delivered |= r.acts[k].kind == HKY_EVENT_DELIVERED && r.acts[k].message == r.last_notice->id &&
                                strcmp(r.acts[k].relay, "rental") == 0;
            assert_true(is_delivered);
        }
        hky_message_unref(&m);
        hky_rehearsal_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scripts_are_played),
        cmocka_unit_test(one_transaction_has_one_connection),
        cmocka_unit_test(time_goes_from_one_moment_to_the_next),
        cmocka_unit_test(caps_obey_the_clock),
        cmocka_unit_test(a_date_in_a_reply_means_that_moment),
        cmocka_unit_test(what_is_not_understood_is_said),
        cmocka_unit_test(a_failure_notice_goes_its_own_way),
        cmocka_unit_test(many_a_second),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
