#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "hikyaku/message.h"

static struct hky_plan *sample_plan(void)
{
    struct hky_plan draft = {.route = "carriers",
                             .file = "policy.lua",
                             .line = 12,
                             .rank = HKY_RANK_BULK,
                             .has_rank = true,
                             .dsn = HKY_DSN_UNSET,
                             .expire_sec = HKY_UNSET_SEC,
                             .n_steps = 2,
                             .from = "a@b.example"};
    struct hky_plan *p;

    draft.steps[0] =
        (struct hky_step){.relay = "own", .account = "", .tries = 1, .within_sec = 7200, .wait_sec = HKY_UNSET_SEC};
    draft.steps[1] = (struct hky_step){.relay = "docomo",
                                       .account = "",
                                       .on = HKY_CLASS_BIT(HKY_CLASS_BLOCKED_IP),
                                       .within_sec = HKY_UNSET_SEC,
                                       .wait_sec = 60,
                                       .from = "",
                                       .retry = {2, {300, 900}}};
    draft.react[HKY_CLASS_FILTERED] = HKY_ACTION_RETRY;
    draft.react_after_sec[HKY_CLASS_FILTERED] = 77;
    assert_int_equal(hky_plan_new(&draft, &p, NULL), HKY_OK);
    return p;
}

static struct hky_message *sample_message(void)
{
    struct hky_rcpt_draft rcpts[2] = {
        {HKY_STR("a..b@docomo.ne.jp"), HKY_STR("rfc822;a..b@docomo.ne.jp"), HKY_NOTIFY_FAILURE},
        {HKY_STR("c@x.example"), HKY_STR(""), 0}};
    struct hky_message_draft d = {
        .id = 42, .accepted_at_ms = 1000, .size = 5, .header_octets = 3, .recipients = rcpts, .n_recipients = 2};

    d.facts[HKY_FACT_SENDER] = HKY_STR("s@y.example");
    d.facts[HKY_FACT_TAGS] = HKY_STR("urgent\0spring\0");
    return hky_message_new(&d);
}

static void plan_survives_its_durable_form(void **state)
{
    struct hky_plan *p = sample_plan(), *q;

    (void)state;
    assert_int_equal(hky_plan_decode(hky_str_of(p->encoded, p->encoded_n), &q, NULL), HKY_OK);
    assert_true(p->hash == q->hash);
    assert_string_equal(q->route, "carriers");
    assert_string_equal(q->steps[1].relay, "docomo");
    assert_string_equal(q->steps[1].from, "");
    assert_null(q->steps[0].from);
    assert_string_equal(q->from, "a@b.example");
    assert_int_equal(q->react[HKY_CLASS_FILTERED], HKY_ACTION_RETRY);
    assert_int_equal(q->react_after_sec[HKY_CLASS_FILTERED], 77);
    assert_int_equal(q->steps[1].retry.after_sec[1], 900);
    hky_plan_unref(&p);
    hky_plan_unref(&q);
}

static void cut_plans_are_refused(void **state)
{
    struct hky_plan *p = sample_plan(), *q;

    (void)state;
    for (uint32_t n = 0; n < p->encoded_n; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut, p->encoded, n);
        assert_int_not_equal(hky_plan_decode(hky_str_of(cut, n), &q, NULL), HKY_OK);
        free(cut);
    }
    hky_plan_unref(&p);
}

static struct hky_plan *only_plan(void *ctx, uint64_t hash)
{
    struct hky_plan *p = ctx;
    return p->hash == hash ? p : NULL;
}

static void message_and_state_survive(void **state)
{
    struct hky_message *m = sample_message(), *n;
    struct hky_plan *p = sample_plan();
    struct hky_buf b;
    struct hky_outcome o = {.class = HKY_CLASS_BLOCKED_IP, .stage = HKY_STAGE_CONNECT};
    struct hky_past past;

    (void)state;
    hky_buf_init(&b, 1 << 20);
    hky_message_encode(m, &b);
    assert_int_equal(hky_message_decode(hky_buf_str(&b), &n, NULL), HKY_OK);
    assert_true(hky_str_eq(hky_recipient_address(&n->recipients[0]), HKY_STR("a..b@docomo.ne.jp")));
    assert_true(hky_str_eq(hky_recipient_domain(&n->recipients[1]), HKY_STR("x.example")));
    assert_true(hky_str_eq(hky_recipient_orcpt(&n->recipients[0]), HKY_STR("rfc822;a..b@docomo.ne.jp")));
    assert_true(hky_message_has_tag(n, HKY_STR("spring")));
    assert_false(hky_message_has_tag(n, HKY_STR("spr")));
    for (size_t cut = 0; cut < b.n; cut++) {
        struct hky_message *none;
        char *part = malloc(cut + 1);
        memcpy(part, b.p, cut);
        assert_int_not_equal(hky_message_decode(hky_str_of(part, cut), &none, NULL), HKY_OK);
        free(part);
    }
    struct hky_recipient *r = &m->recipients[0], *s = &n->recipients[0];
    r->plan = hky_plan_ref(p);
    r->step = 1;
    r->reason = hky_strdup("because");
    hky_reply_from_text(&o.reply, HKY_STR("550 5.7.1 blocked by DNSBL"));
    for (int i = 0; i < 20; i++) {
        r->attempts++;
        o.latency_ms = (uint32_t)i;
        hky_recipient_remember(r, 1000 + i, "own", &o);
    }
    hky_buf_clear(&b);
    hky_recipient_encode_state(r, &b);
    assert_int_equal(hky_recipient_decode_state(s, hky_buf_str(&b), only_plan, p, NULL), HKY_OK);
    assert_int_equal(s->step, 1);
    assert_int_equal(s->attempts, 20);
    assert_string_equal(s->reason, "because");
    assert_int_equal(hky_recipient_n_past(s), 16); /* r.attempts of POLICY: the last 16 */
    hky_recipient_past(s, 0, &past);
    assert_int_equal(past.latency_ms, 4);
    hky_recipient_past(s, 15, &past);
    assert_int_equal(past.latency_ms, 19);
    assert_int_equal(past.code, 550);
    assert_true(hky_str_eq(past.relay, HKY_STR("own")));
    assert_true(hky_str_eq(past.reply, HKY_STR("blocked by DNSBL")));
    /* names are compared with those of the policy: the longest one is kept whole, and fits beside the longest reply */
    char name[HKY_NAME_MAX + 1] = {0};
    for (int i = 0; i < HKY_NAME_MAX; i++)
        name[i] = "\xe7\xb5\x8c\xe8\xb7\xaf"[i % 6];
    memset(o.reply.text, 'x', sizeof o.reply.text - 1);
    o.reply.n = sizeof o.reply.text - 1;
    for (int i = 0; i < 16; i++)
        hky_recipient_remember(r, 1000 + i, name, &o);
    hky_buf_clear(&b);
    hky_recipient_encode_state(r, &b);
    assert_int_equal(hky_recipient_decode_state(s, hky_buf_str(&b), only_plan, p, NULL), HKY_OK);
    for (unsigned i = 0; i < 16; i++) {
        hky_recipient_past(s, i, &past);
        assert_true(hky_str_eq(past.relay, hky_str_z(name)));
        assert_int_equal(past.reply.n, HKY_PAST_REPLY);
    }
    /* a plan nobody knows: parked, not guessed */
    p->hash ^= 1;
    assert_int_equal(hky_recipient_decode_state(s, hky_buf_str(&b), only_plan, p, NULL), HKY_OK);
    assert_int_equal(s->state, HKY_RCPT_PARKED);
    /* but what is held stays so: a hold of the operator's, of one that was parked */
    hky_plan_unref(&r->plan);
    r->state = HKY_RCPT_HELD;
    hky_buf_clear(&b);
    hky_recipient_encode_state(r, &b);
    assert_int_equal(hky_recipient_decode_state(s, hky_buf_str(&b), only_plan, p, NULL), HKY_OK);
    assert_int_equal(s->state, HKY_RCPT_HELD);
    assert_null(s->plan);
    p->hash ^= 1;
    hky_buf_fini(&b);
    hky_plan_unref(&p);
    hky_message_unref(&m);
    hky_message_unref(&n);
}

/* A record whose checksum is right and whose content is not: entries with octets behind their end would overrun the
 * 16-bit counters of a history. Nothing of it is taken over. */
static void a_padded_history_is_refused(void **state)
{
    static const char padding[60000];
    struct hky_message *m = sample_message();
    struct hky_recipient *r = &m->recipients[0];
    struct hky_plan *p = sample_plan();
    struct hky_outcome o = {.class = HKY_CLASS_BLOCKED_IP, .stage = HKY_STAGE_CONNECT};
    struct hky_buf entry, history, encoded;

    (void)state;
    hky_buf_init(&entry, 1 << 20);
    hky_buf_init(&history, 2 << 20);
    hky_buf_init(&encoded, 4 << 20);
    r->plan = hky_plan_ref(p);
    hky_recipient_encode_state(r, &encoded);
    size_t before = encoded.n; /* the last four octets say that the history is empty */
    hky_buf_clear(&encoded);
    hky_recipient_remember(r, 1000, "own", &o);
    hky_recipient_encode_state(r, &encoded);
    assert_int_equal(hky_recipient_decode_state(r, hky_buf_str(&encoded), only_plan, p, NULL), HKY_OK);
    hky_buf_add(&entry, encoded.p + before + 2, encoded.n - before - 2);
    hky_buf_add(&entry, padding, sizeof padding);
    for (int i = 0; i < HKY_PAST_MAX + 1; i++) {
        hky_buf_add_u16(&history, (uint16_t)entry.n);
        hky_buf_add_str(&history, hky_buf_str(&entry));
    }
    encoded.n = before - 4;
    hky_buf_add_lstr(&encoded, hky_buf_str(&history));
    r->last_class = HKY_CLASS_FULL;
    assert_int_equal(hky_recipient_decode_state(r, hky_buf_str(&encoded), only_plan, p, NULL), HKY_E_SYNTAX);
    assert_int_equal(hky_recipient_n_past(r), 1);
    assert_int_equal(r->last_class, HKY_CLASS_FULL);
    hky_buf_fini(&entry);
    hky_buf_fini(&history);
    hky_buf_fini(&encoded);
    hky_plan_unref(&p);
    hky_message_unref(&m);
}

static void facts_of_any_length(void **state)
{
    static const size_t LENGTHS[] = {0, 1, 254, 255, 256, 70000};
    char *text = malloc(70000);
    struct hky_buf b;

    (void)state;
    for (size_t i = 0; i < 70000; i++)
        text[i] = (char)('a' + i % 26);
    hky_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++) {
        struct hky_rcpt_draft rcpts[2] = {{.address = HKY_STR("a@x.example"), .orcpt = HKY_STR("rfc822;a@y")},
                                          {.address = HKY_STR("b@x.example")}};
        struct hky_message_draft d = {.id = 1, .recipients = rcpts, .n_recipients = 2};
        struct hky_message *m, *n;
        for (int k = 0; k < HKY_FACT_N; k += 3)
            d.facts[k] = hky_str_of(text, LENGTHS[i]);
        m = hky_message_new(&d);
        hky_buf_clear(&b);
        hky_message_encode(m, &b);
        assert_int_equal(hky_message_decode(hky_buf_str(&b), &n, NULL), HKY_OK);
        for (int k = 0; k < HKY_FACT_N; k++) {
            struct hky_str fact = hky_message_fact(n, (enum hky_fact)k);
            assert_true(hky_str_eq(fact, hky_str_of(text, k % 3 == 0 ? LENGTHS[i] : 0)));
        }
        assert_true(hky_str_eq(hky_recipient_orcpt(&n->recipients[0]), HKY_STR("rfc822;a@y")));
        assert_true(hky_str_eq(hky_recipient_address(&n->recipients[1]), HKY_STR("b@x.example")));
        hky_message_unref(&m);
        hky_message_unref(&n);
    }
    hky_buf_fini(&b);
    free(text);
}

/* 512 octets a queued recipient, its facts, the journal's index and the allocator's own included. */
static void a_million_fit(void **state)
{
    (void)state;
    assert_true(sizeof(struct hky_message) + sizeof(struct hky_recipient) <= 256);
}

static void replies_as_people_type_them(void **state)
{
    static const struct {
        const char *text;
        int code, subject;
        unsigned detail;
        const char *rest;
        enum hky_origin origin;
    } cases[] = {
        {"550 5.7.1 blocked", 550, 7, 1, "blocked", HKY_ORIGIN_REMOTE},
        {"550 5.7.515 Access denied", 550, 7, 515, "Access denied", HKY_ORIGIN_REMOTE},
        {"550 #5.1.0 Address rejected", 550, 1, 0, "Address rejected", HKY_ORIGIN_REMOTE},
        {"421 busy", 421, 0, 0, "busy", HKY_ORIGIN_REMOTE},
        {"550 4.7.1 class differs", 550, 0, 0, "4.7.1 class differs", HKY_ORIGIN_REMOTE},
        {"250", 250, 0, 0, "", HKY_ORIGIN_REMOTE},
        {"refused", 0, 0, 0, "refused", HKY_ORIGIN_CONNECT},
        {"timeout", 0, 0, 0, "timeout", HKY_ORIGIN_TIMEOUT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_reply r;
        hky_reply_from_text(&r, hky_str_z(cases[i].text));
        assert_int_equal(r.code, cases[i].code);
        assert_int_equal(r.enhanced[1], cases[i].subject);
        assert_int_equal(r.enhanced_detail, cases[i].detail);
        assert_string_equal(r.text, cases[i].rest);
        assert_int_equal(r.origin, cases[i].origin);
    }
}

static void ids_only_grow(void **state)
{
    struct hky_id_source s = {0};
    uint64_t a = hky_id_next(&s, 1000), b = hky_id_next(&s, 1000), c = hky_id_next(&s, 5), d;

    (void)state;
    assert_true(a < b && b < c);
    hky_id_seen(&s, UINT64_C(1) << 62);
    d = hky_id_next(&s, 1000);
    assert_true(d > UINT64_C(1) << 62);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_survives_its_durable_form),
        cmocka_unit_test(cut_plans_are_refused),
        cmocka_unit_test(facts_of_any_length),
        cmocka_unit_test(a_million_fit),
        cmocka_unit_test(message_and_state_survive),
        cmocka_unit_test(a_padded_history_is_refused),
        cmocka_unit_test(replies_as_people_type_them),
        cmocka_unit_test(ids_only_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
