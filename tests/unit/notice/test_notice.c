/* Who is told of what became of a recipient, and how the notice reads; with a real journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "hikyaku/notice.h"
#include "support/scratch.h"

static const char original[] =
    "From: Shop <news@shop.example>\r\nTo: <a@x.example>\r\nSubject: spring\r\n\r\nHello\r\n";

struct world {
    char dir[64];
    struct hky_clock clock;
    struct hky_loop *loop;
    struct hky_journal *journal;
    struct hky_record *record;
    struct hky_notice *notice;
    struct hky_policy policy;
    struct hky_message *made[8]; /* what enqueue got */
    int n_made, n_replayed, n_notices;
    uint32_t n_live; /* recipients of what was replayed */
    bool is_committed;
};

static struct hky_policy *policy_of(void *ctx, unsigned worker)
{
    (void)worker;
    return &((struct world *)ctx)->policy;
}

static void decide(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header)
{
    (void)header;
    (void)ctx;
    (void)worker;
    m->recipients[0].state = HKY_RCPT_PARKED;
}

static void enqueue(void *ctx, unsigned worker, struct hky_message *m)
{
    struct world *w = ctx;

    (void)worker;
    assert_true(w->n_made < 8);
    w->made[w->n_made++] = m;
}

static void ignore_message(void *ctx, struct hky_message *m)
{
    struct world *w = ctx;
    uint32_t n_live = 0;

    for (uint32_t i = 0; i < m->n_recipients; i++)
        n_live += !hky_recipient_state_is_final((enum hky_recipient_state)m->recipients[i].state);
    if (m->is_notice) {
        w->n_notices++;
    } else {
        w->n_replayed++;
        w->n_live += n_live;
    }
    for (; n_live > 0; n_live--) { /* each has a reference */
        struct hky_message *one = m;
        hky_message_unref(&one);
    }
}

static void ignore_cap(void *ctx, struct hky_str key, struct hky_str value)
{
    (void)ctx;
    (void)key;
    (void)value;
}

static void open_journal(struct world *w)
{
    struct hky_journal_report report;
    struct hky_journal_replay replay = {w, ignore_message, ignore_cap};
    struct hky_error e;

    assert_int_equal(hky_journal_open(
                         &(struct hky_journal_params){
                             .dir = w->dir, .segment_octets = 1u << 20, .body_memory = 1u << 20, .clock = &w->clock},
                         &replay, &w->journal, &report, &e),
                     HKY_OK);
}

static void new_notice(struct world *w, struct hky_log *log)
{
    w->notice = hky_notice_new(&(struct hky_notice_params){.loop = w->loop,
                                                           .journal = w->journal,
                                                           .record = w->record,
                                                           .log = log,
                                                           .clock = &w->clock,
                                                           .ctx = w,
                                                           .policy = policy_of,
                                                           .decide = decide,
                                                           .enqueue = enqueue});
}

static int setup(void **state)
{
    struct world *w = hky_calloc(1, sizeof *w);
    struct hky_error e;

    snprintf(w->dir, sizeof w->dir, "%s/hikyaku-notice-XXXXXX", scratch_in_memory());
    assert_non_null(mkdtemp(w->dir));
    w->clock = HKY_CLOCK_REAL;
    w->policy.engine.hostname = "mail.shop.example";
    w->policy.engine.dsn = HKY_DSN_UNSET;
    assert_int_equal(hky_loop_new(&w->loop, &e), HKY_OK);
    open_journal(w);
    assert_int_equal(
        hky_record_open(&(struct hky_record_params){.dir = w->dir, .n_workers = 1, .clock = &w->clock}, &w->record, &e),
        HKY_OK);
    new_notice(w, NULL);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    int rc;

    for (int i = 0; i < w->n_made; i++) {
        struct hky_message *m = w->made[i];
        hky_message_unref(&m); /* the live recipient's */
    }
    hky_notice_stop(w->notice);
    hky_journal_close(&w->journal);
    hky_notice_free(&w->notice);
    hky_record_close(&w->record);
    hky_loop_free(&w->loop);
    rc = scratch_remove(w->dir);
    free(w);
    return rc;
}

static void on_committed(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result)
{
    (void)c;
    assert_non_null(durable);
    assert_int_equal(result, HKY_OK);
}

static bool is_8bit; /* what is accepted has 8-bit octets somewhere in its body */

/* A message in the journal with n recipients; one reference for each goes to the caller. */
static const char *content = original; /* of the next message */

static struct hky_message *accepted(struct world *w, const char *sender, const char *scenario, uint8_t notify,
                                    unsigned n, enum hky_ret ret)
{
    struct hky_rcpt_draft rcpts[1000] = {{HKY_STR("a..b@docomo.ne.jp"), HKY_STR("rfc822;a..b@docomo.ne.jp"), notify},
                                         {HKY_STR("c@x.example"), HKY_STR(""), notify}};
    struct hky_message_draft d = {.accepted_at_ms = hky_clock_now_ms(&w->clock),
                                  .size = strlen(content),
                                  .recipients = rcpts,
                                  .n_recipients = n,
                                  .ret = ret};
    struct hky_commit c = {.loop = w->loop, .done = on_committed};
    struct hky_message *m;
    char names[1000][40];

    for (unsigned i = 2; i < n; i++) {
        snprintf(names[i], sizeof names[i], "somebody-%u@x.example", i);
        rcpts[i] = (struct hky_rcpt_draft){hky_str_z(names[i]), HKY_STR(""), notify};
    }
    d.is_8bit = is_8bit;
    d.id = hky_id_next(hky_journal_ids(w->journal), d.accepted_at_ms);
    d.header_octets = (uint32_t)(strstr(content, "\r\n\r\n") + 4 - content);
    d.facts[HKY_FACT_SENDER] = hky_str_z(sender);
    d.facts[HKY_FACT_SCENARIO] = hky_str_z(scenario);
    d.facts[HKY_FACT_ENVID] = HKY_STR("env-1");
    m = hky_message_new(&d);
    m->body = hky_body_new(hky_strdup(content), strlen(content), strlen(content) + 1);
    hky_journal_accept(w->journal, m, &c);
    hky_journal_flush(w->journal);
    hky_loop_turn(w->loop, 0);
    for (unsigned i = 1; i < n; i++)
        hky_message_ref(m);
    return m;
}

static void finish(struct world *w, struct hky_recipient *r, enum hky_recipient_state state, const char *reply,
                   bool takes_dsn)
{
    struct hky_outcome o = {.class = HKY_CLASS_BAD_MAILBOX, .stage = HKY_STAGE_RCPT, .takes_dsn = takes_dsn};

    hky_reply_from_text(&o.reply, hky_str_z(reply));
    r->state = (uint8_t)state;
    hky_notice_finish(w->notice, r, &o);
}

static void settle(struct world *w)
{
    for (int i = 0; i < 4; i++) {
        hky_journal_flush(w->journal);
        hky_loop_turn(w->loop, 20);
    }
}

static void await_made(struct world *w, int n)
{
    for (int tries = 0; tries < 1500 && w->n_made < n; tries++) {
        hky_journal_flush(w->journal);
        hky_loop_turn(w->loop, 20);
    }
    assert_int_equal(w->n_made, n);
}

static char *text_of(const struct hky_message *m)
{
    return hky_str_dup(hky_str_of(m->body->p, m->body->n));
}

static void a_failure_is_reported_as_rfc_3464_says(void **state)
{
    struct world *w = *state;
    struct hky_message *m = accepted(w, "news@shop.example", "", 0, 1, HKY_RET_UNSET);
    const char *body;

    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 Unknown user\r\nX-Injected: yes", false);
    settle(w);
    assert_int_equal(w->n_made, 1);
    assert_true(hky_str_eq(hky_recipient_address(&w->made[0]->recipients[0]), HKY_STR("news@shop.example")));
    assert_int_equal(hky_message_fact(w->made[0], HKY_FACT_SENDER).n, 0);
    assert_true(w->made[0]->is_notice);
    body = hky_str_dup(hky_str_of(w->made[0]->body->p, w->made[0]->body->n));
    assert_non_null(strstr(body, "Auto-Submitted: auto-replied"));
    assert_non_null(strstr(body, "report-type=delivery-status"));
    assert_non_null(strstr(body, "Reporting-MTA: dns;mail.shop.example") != NULL
                        ? body
                        : strstr(body, "Reporting-MTA: dns; mail.shop.example"));
    assert_non_null(strstr(body, "Original-Envelope-Id: env-1"));
    assert_non_null(strstr(body, "Original-Recipient: rfc822;a..b@docomo.ne.jp"));
    assert_non_null(strstr(body, "Action: failed"));
    assert_non_null(strstr(body, "Status: 5.1.1"));
    assert_non_null(strstr(body, "Subject: spring"));
    assert_null(strstr(body, "\nX-Injected"));
    assert_null(strstr(body, "Hello"));
    free((void *)(uintptr_t)body);
}

/* A header section that is too long to be returned whole ends with a whole line. */
static void a_long_header_is_returned_as_far_as_whole_lines_go(void **state)
{
    enum { LINES = 1100, LINE = 39 };
    struct world *w = *state;
    char *text = malloc(LINES * LINE + 20), *p = text, *body;
    const char *last = NULL;
    struct hky_message *m;

    for (int i = 0; i < LINES; i++)
        p += sprintf(p, "X-Long-%05d: abcdefghijklmnopqrstuvw\r\n", i);
    strcpy(p, "\r\nHello\r\n");
    content = text;
    m = accepted(w, "news@shop.example", "", 0, 1, HKY_RET_UNSET);
    content = original;
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 Unknown user", false);
    settle(w);
    assert_int_equal(w->n_made, 1);
    body = hky_str_dup(hky_str_of(w->made[0]->body->p, w->made[0]->body->n));
    for (const char *at = body; (at = strstr(at, "X-Long-")) != NULL; at++)
        last = at;
    assert_non_null(last);
    assert_int_not_equal(strncmp(last, "X-Long-01099", 12), 0); /* it was too long */
    assert_int_equal(strcspn(last, "\r\n"), strcspn(text, "\r\n"));
    free(body);
    free(text);
}

/* The engine stops right after a recipient's end; how many messages are there at the next start, but notices? */
static int messages_after_a_stop(struct world *w)
{
    hky_notice_stop(w->notice);
    hky_journal_close(&w->journal);
    hky_notice_free(&w->notice);
    w->n_replayed = w->n_notices = 0;
    w->n_live = 0;
    open_journal(w);
    return w->n_replayed;
}

static void a_stop_with_a_notice_on_its_way_to_the_disk(void **state)
{
    struct world *w = *state;
    struct hky_message *m = accepted(w, "news@shop.example", "", 0, 1, HKY_RET_UNSET);

    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 Unknown user", false);
    assert_int_equal(messages_after_a_stop(w), 0);
    assert_int_equal(w->n_notices, 1);
}

static void what_was_delivered_does_not_come_back_for_want_of_its_notice(void **state)
{
    struct world *w = *state;
    struct hky_message *m = accepted(w, "news@shop.example", "", HKY_NOTIFY_SUCCESS, 1, HKY_RET_UNSET);

    hky_journal_body_drop(w->journal, m); /* the notice waits for the original to be read */
    finish(w, &m->recipients[0], HKY_RCPT_DELIVERED, "250 ok", false);
    assert_int_equal(messages_after_a_stop(w), 0);
}

/* The engine is killed: what the journal has is all there is. Notices that gather, and their originals, are lost. */
static int messages_after_a_kill(struct world *w)
{
    struct hky_error e;

    hky_journal_close(&w->journal);
    hky_notice_free(&w->notice);
    hky_loop_free(&w->loop); /* an original that was read may still be on its way to it */
    assert_int_equal(hky_loop_new(&w->loop, &e), HKY_OK);
    w->n_replayed = w->n_notices = 0;
    w->n_live = 0;
    open_journal(w);
    return w->n_replayed;
}

/* Whatever their notice waits for, that they were delivered is recorded at once: else all are sent again. */
static void what_was_delivered_does_not_come_back_after_a_kill(void **state)
{
    static const struct {
        const char *what;
        enum hky_dsn_mode failures;
        unsigned n, n_delivered;
        bool is_on_disk; /* the original */
    } cases[] = {
        {"the notice gathers", HKY_DSN_UNSET, 2, 2, false},
        {"the notice gathers for one that is still sent", HKY_DSN_UNSET, 3, 2, false},
        {"they have joined a digest", HKY_DSN_DIGEST, 3, 2, false},
        {"the original is read from the disk", HKY_DSN_UNSET, 1, 1, true},
        {"the notice of 1000 is full, and the original is read", HKY_DSN_UNSET, 1000, 1000, true},
    };
    struct world *w = *state;
    int n_messages = 0;
    uint32_t n_live = 0;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t notify = HKY_NOTIFY_SUCCESS | HKY_NOTIFY_FAILURE;
        struct hky_message *m = accepted(w, "news@shop.example", "", notify, cases[i].n, HKY_RET_UNSET), *one = m;
        bool has_digest = cases[i].failures == HKY_DSN_DIGEST, is_one_left = cases[i].n > cases[i].n_delivered;

        w->policy.engine.dsn = cases[i].failures;
        if (cases[i].is_on_disk)
            hky_journal_body_drop(w->journal, m);
        if (has_digest)
            finish(w, &m->recipients[cases[i].n_delivered], HKY_RCPT_FAILED, "550 5.1.1 no", false);
        for (unsigned k = 0; k < cases[i].n_delivered; k++)
            finish(w, &m->recipients[k], HKY_RCPT_DELIVERED, "250 ok", false);
        if (is_one_left && !has_digest)
            hky_message_unref(&one);
        n_messages += is_one_left;
        n_live += is_one_left;
        print_message("%s\n", cases[i].what);
        assert_int_equal(messages_after_a_kill(w), n_messages);
        assert_int_equal(w->n_live, n_live);
        new_notice(w, NULL);
    }
}

/* The record that a recipient was delivered does not replace the notice about it. */
static void it_is_reported_all_the_same(void **state)
{
    struct world *w = *state;
    struct hky_message *m = accepted(w, "news@shop.example", "", HKY_NOTIFY_SUCCESS, 2, HKY_RET_UNSET);
    char *text;

    hky_journal_body_drop(w->journal, m);
    finish(w, &m->recipients[0], HKY_RCPT_DELIVERED, "250 ok", false);
    finish(w, &m->recipients[1], HKY_RCPT_DELIVERED, "250 ok", false);
    await_made(w, 1);
    text = text_of(w->made[0]);
    assert_non_null(strstr(text, "Final-Recipient: rfc822; \"a..b\"@docomo.ne.jp\r\n"));
    assert_non_null(strstr(text, "Final-Recipient: rfc822; c@x.example\r\n"));
    assert_non_null(strstr(text, "Subject: spring"));
    free(text);
    assert_int_equal(messages_after_a_kill(w), 0);
    assert_int_equal(w->n_notices, 1);
}

/* The route's react may end what a relay may have taken (its dot was sent, the reply is missing). It would be sent
 * again by a start that knows nothing of this end. What has expired is not sent again, so it keeps its notice. */
static void what_may_have_been_delivered_does_not_come_back(void **state)
{
    static const struct {
        const char *what;
        unsigned n;
        bool is_on_disk, is_killed; /* the original; or it is a stop */
        uint8_t ambiguous;
        enum hky_recipient_state state;
        uint32_t n_back;
    } cases[] = {
        {"the notice gathers at a stop", 2, false, false, 1, HKY_RCPT_FAILED, 0},
        {"the notice gathers at a kill", 2, false, true, 1, HKY_RCPT_FAILED, 0},
        {"the original is read at a stop", 1, true, false, 2, HKY_RCPT_FAILED, 0},
        {"the original is read at a kill", 1, true, true, 1, HKY_RCPT_FAILED, 0},
        {"they were refused, at a stop", 2, false, false, 0, HKY_RCPT_FAILED, 2},
        {"they were refused, at a kill", 2, false, true, 0, HKY_RCPT_FAILED, 2},
        {"they have expired, at a stop", 2, false, false, 1, HKY_RCPT_EXPIRED, 2},
        {"they have expired, at a kill", 2, false, true, 1, HKY_RCPT_EXPIRED, 2},
    };
    struct world *w = *state;
    uint32_t n_live = 0;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_message *m = accepted(w, "news@shop.example", "", 0, cases[i].n, HKY_RET_UNSET);

        if (cases[i].is_on_disk)
            hky_journal_body_drop(w->journal, m);
        for (unsigned k = 0; k < cases[i].n; k++) {
            m->recipients[k].ambiguous = cases[i].ambiguous;
            finish(w, &m->recipients[k], cases[i].state, "451 4.4.2 no reply to the end of the message", false);
        }
        print_message("%s\n", cases[i].what);
        if (!cases[i].is_killed)
            hky_notice_stop(w->notice);
        (void)messages_after_a_kill(w);
        n_live += cases[i].n_back;
        assert_int_equal(w->n_live, n_live);
        new_notice(w, NULL);
    }
}

static void a_digest_that_is_still_open_at_the_stop(void **state)
{
    struct world *w = *state;
    struct hky_message *m;

    w->policy.engine.dsn = HKY_DSN_DIGEST;
    m = accepted(w, "news@shop.example", "", 0, 2, HKY_RET_UNSET);
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 Unknown user", false);
    finish(w, &m->recipients[1], HKY_RCPT_FAILED, "550 5.1.1 Unknown user", false);
    assert_int_equal(messages_after_a_stop(w), 1); /* tried again, and reported then */
}

static void ret_full_gives_the_whole_back(void **state)
{
    struct world *w = *state;
    struct hky_message *m = accepted(w, "news@shop.example", "", 0, 1, HKY_RET_FULL);

    finish(w, &m->recipients[0], HKY_RCPT_EXPIRED, "450 4.2.1 later", false);
    settle(w);
    assert_int_equal(w->n_made, 1);
    assert_non_null(memmem(w->made[0]->body->p, w->made[0]->body->n, "Hello", 5));
    assert_non_null(memmem(w->made[0]->body->p, w->made[0]->body->n, "Status: 4.4.7", 13));
}

static void nobody_is_told_who_does_not_want_it(void **state)
{
    static const struct {
        const char *sender, *scenario;
        uint8_t notify;
        enum hky_recipient_state state;
        bool takes_dsn;
        int want;
    } cases[] = {
        {"", "", 0, HKY_RCPT_FAILED, false, 0},                                   /* the null sender */
        {"n@shop.example", "", HKY_NOTIFY_NEVER, HKY_RCPT_FAILED, false, 0},      /* NOTIFY=NEVER */
        {"n@shop.example", "", HKY_NOTIFY_SUCCESS, HKY_RCPT_FAILED, false, 0},    /* only success asked for */
        {"n@shop.example", "spring", 0, HKY_RCPT_FAILED, false, 0},               /* none by default in a scenario */
        {"n@shop.example", "", 0, HKY_RCPT_CANCELLED, false, 0},                  /* an operator removed it */
        {"n@shop.example", "", 0, HKY_RCPT_DELIVERED, false, 0},                  /* success not asked for */
        {"n@shop.example", "", HKY_NOTIFY_SUCCESS, HKY_RCPT_DELIVERED, true, 0},  /* the relay will tell */
        {"n@shop.example", "", HKY_NOTIFY_SUCCESS, HKY_RCPT_DELIVERED, false, 1}, /* relayed to one that cannot */
        {"n@shop.example", "", HKY_NOTIFY_FAILURE, HKY_RCPT_FAILED, false, 1},
    };
    struct world *w = *state;
    int n = 0;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_message *m = accepted(w, cases[i].sender, cases[i].scenario, cases[i].notify, 1, HKY_RET_UNSET);
        finish(w, &m->recipients[0], cases[i].state, "550 5.1.1 no", cases[i].takes_dsn);
        settle(w);
        n += cases[i].want;
        if (w->n_made != n)
            print_error("case %zu\n", i);
        assert_int_equal(w->n_made, n);
    }
}

static void digest_gathers_the_recipients_of_one_message(void **state)
{
    struct world *w = *state;
    struct hky_message *m;

    w->policy.engine.dsn = HKY_DSN_DIGEST;
    m = accepted(w, "news@shop.example", "", 0, 2, HKY_RET_UNSET);
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 no", false);
    finish(w, &m->recipients[1], HKY_RCPT_FAILED, "550 5.1.1 no", false);
    settle(w);
    assert_int_equal(w->n_made, 0); /* it waits for more */
}

/* The threads of the record read the clock, too. */
static void stop_clock(struct world *w, int64_t at_ms)
{
    __atomic_store_n(&w->clock.stopped_at_ms, at_ms, __ATOMIC_RELAXED);
}

/* The clock that a rehearsal moves is the one that counts, not the time of the machine. */
static void what_is_gathered_is_made_by_the_clock(void **state)
{
    static const struct {
        enum hky_dsn_mode mode;
        int64_t ms;
    } cases[] = {{HKY_DSN_DIGEST, 60000}, {HKY_DSN_EACH, 1000}};
    struct world *w = *state;

    stop_clock(w, hky_clock_now_ms(&w->clock));
    assert_true(hky_notice_next_at(w->notice) == INT64_MAX);
    for (int i = 0; i < 2; i++) {
        int64_t begun_ms = hky_clock_now_ms(&w->clock);
        w->policy.engine.dsn = cases[i].mode;
        struct hky_message *m = accepted(w, "news@shop.example", "", 0, 2, HKY_RET_UNSET);
        finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 no", false);
        stop_clock(w, begun_ms + cases[i].ms / 2);
        finish(w, &m->recipients[1], HKY_RCPT_FAILED, "550 5.1.1 no", false);
        assert_true(hky_notice_next_at(w->notice) == begun_ms + cases[i].ms);
        stop_clock(w, begun_ms + cases[i].ms - 1);
        hky_notice_tick(w->notice);
        settle(w);
        assert_int_equal(w->n_made, i);
        stop_clock(w, begun_ms + cases[i].ms);
        assert_true(hky_notice_next_at(w->notice) == begun_ms + cases[i].ms);
        hky_notice_tick(w->notice);
        assert_true(hky_notice_next_at(w->notice) == INT64_MAX);
        await_made(w, i + 1);
    }
}

static void one_notice_a_message_and_moment(void **state)
{
    struct world *w = *state;
    char reply[900] = "550 5.1.1 ";
    struct hky_message *m = accepted(w, "news@shop.example", "", 0, 1000, HKY_RET_FULL);
    char *text;

    memset(reply + 10, 'x', sizeof reply - 11);
    for (unsigned i = 0; i < 1000; i++)
        finish(w, &m->recipients[i], HKY_RCPT_FAILED, reply, false);
    await_made(w, 1);
    settle(w);
    assert_int_equal(w->n_made, 1);
    assert_true(w->made[0]->size <= 513u << 10);
    text = text_of(w->made[0]);
    assert_non_null(strstr(text, "Final-Recipient: rfc822; somebody-999@x.example\r\n"));
    assert_non_null(strstr(text, "Subject: spring"));
    free(text);
}

/* It is ASCII whatever the original is, and says so. */
static void a_notice_does_not_claim_to_be_8bit(void **state)
{
    struct world *w = *state;
    struct hky_message *m;

    is_8bit = true;
    m = accepted(w, "news@shop.example", "", 0, 1, HKY_RET_UNSET);
    is_8bit = false;
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 no", false);
    await_made(w, 1);
    assert_false(w->made[0]->is_8bit);
    assert_false(w->made[0]->is_smtputf8);
}

/* The end of a notice, and of mail without a sender, reaches the owner; the end of what goes to the owner only the log.
 */
static void what_the_sender_cannot_be_told_reaches_the_owner(void **state)
{
    struct world *w = *state;
    struct hky_message *m;
    char log[4096] = "", *text;
    int fds[2];
    ssize_t n;

    w->policy.engine.owner = "ops@shop.example";
    assert_int_equal(pipe(fds), 0);
    struct hky_log *l = hky_log_new(fds[1], HKY_LOG_INFO);
    hky_notice_stop(w->notice);
    hky_notice_free(&w->notice);
    new_notice(w, l);
    finish(w, &accepted(w, "news@shop.example", "", 0, 1, HKY_RET_UNSET)->recipients[0], HKY_RCPT_FAILED, "550 no",
           false);
    await_made(w, 1);
    hky_message_ref(w->made[0]); /* the live recipient's is the world's */
    finish(w, &w->made[0]->recipients[0], HKY_RCPT_FAILED, "501 5.1.7 <> is no sender", false);
    await_made(w, 2);
    assert_true(hky_str_eq(hky_recipient_address(&w->made[1]->recipients[0]), HKY_STR("ops@shop.example")));
    assert_true(w->made[1]->is_notice);
    text = text_of(w->made[1]);
    assert_non_null(strstr(text, "Final-Recipient: rfc822; news@shop.example\r\n"));
    assert_non_null(strstr(text, "501 5.1.7"));
    assert_non_null(strstr(text, "engine.owner"));
    assert_non_null(strstr(text, "@docomo.ne.jp")); /* whose mail it was that failed */
    free(text);
    hky_message_ref(w->made[1]);
    finish(w, &w->made[1]->recipients[0], HKY_RCPT_EXPIRED, "450 later", false);
    m = accepted(w, "", "", 0, 1, HKY_RET_UNSET);
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 nobody", false);
    await_made(w, 3); /* of the mail without a sender; none of the notice to the owner */
    m = accepted(w, "", "", HKY_NOTIFY_NEVER, 1, HKY_RET_UNSET);
    finish(w, &m->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 nobody", false);
    settle(w);
    assert_int_equal(w->n_made, 3);
    n = read(fds[0], log, sizeof log - 1);
    assert_true(n > 0);
    log[n] = '\0';
    assert_non_null(strstr(log, "rcpt=news@shop.example what=\"a failure notice did not arrive\""));
    assert_non_null(strstr(log, "reply=\"501 5.1.7 <> is no sender\" owner=ops@shop.example"));
    assert_non_null(strstr(log, "rcpt=ops@shop.example what=\"a failure notice did not arrive\""));
    assert_non_null(strstr(log, "what=\"mail without a sender did not arrive\""));
    hky_notice_stop(w->notice);
    hky_notice_free(&w->notice);
    new_notice(w, NULL);
    hky_log_free(&l);
    close(fds[0]);
    close(fds[1]);
}

/* A message with one recipient that the journal does not know: its open digest never gets as far. */
static void fail_in_digest(struct world *w, uint64_t id)
{
    struct hky_rcpt_draft rcpt = {HKY_STR("a@x.example"), HKY_STR(""), 0};
    struct hky_message_draft d = {.id = id, .recipients = &rcpt, .n_recipients = 1};

    d.facts[HKY_FACT_SENDER] = HKY_STR("news@shop.example");
    finish(w, &hky_message_new(&d)->recipients[0], HKY_RCPT_FAILED, "550 5.1.1 no", false);
}

static int64_t cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Mail to many whose relay refuses all: one more end costs the same, however many notices are open. */
static void open_digests_are_found_quickly(void **state)
{
    struct world *w = *state;
    int64_t at, few_us, many_us;
    uint64_t id = 1000;

    w->policy.engine.dsn = HKY_DSN_DIGEST;
    at = cpu_us();
    while (id < 3000)
        fail_in_digest(w, id++);
    few_us = cpu_us() - at;
    while (id < 40000)
        fail_in_digest(w, id++);
    at = cpu_us();
    while (id < 42000)
        fail_in_digest(w, id++);
    many_us = cpu_us() - at;
    print_message("2000 ends: %ld us with few notices open, %ld us with 40000\n", (long)few_us, (long)many_us);
    assert_true(many_us < 5 * few_us + 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_long_header_is_returned_as_far_as_whole_lines_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_is_reported_as_rfc_3464_says, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_with_a_notice_on_its_way_to_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_delivered_does_not_come_back_for_want_of_its_notice, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_delivered_does_not_come_back_after_a_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(what_may_have_been_delivered_does_not_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_reported_all_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(a_digest_that_is_still_open_at_the_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(ret_full_gives_the_whole_back, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_is_told_who_does_not_want_it, setup, teardown),
        cmocka_unit_test_setup_teardown(digest_gathers_the_recipients_of_one_message, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_gathered_is_made_by_the_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(open_digests_are_found_quickly, setup, teardown),
        cmocka_unit_test_setup_teardown(one_notice_a_message_and_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(a_notice_does_not_claim_to_be_8bit, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_sender_cannot_be_told_reaches_the_owner, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
