/* The durable forms of a message's facts and of a recipient's delivery state, and the packed history of attempts. */
#include "hikyaku/message.h"

#include <stdlib.h>

#define FACTS_FORMAT 1
#define STATE_FORMAT 1

enum { BIT_8BIT = 1, BIT_SMTPUTF8 = 2, BIT_BINARY = 4, BIT_NOTICE = 8, BIT_BIG = 16 };

struct hky_history {
    uint16_t octets; /* used in packed */
    uint8_t n;
    char packed[]; /* entries: u16 length, then what pack_past writes */
};

void hky_message_encode(const struct hky_message *m, struct hky_buf *b)
{
    struct hky_str facts[HKY_FACT_N];

    hky_buf_add_u8(b, FACTS_FORMAT);
    hky_buf_add_u64(b, m->id);
    hky_buf_add_u64(b, (uint64_t)m->accepted_at_ms);
    hky_buf_add_u64(b, (uint64_t)m->deadline_ms);
    hky_buf_add_u64(b, m->size);
    hky_buf_add_u32(b, m->header_octets);
    hky_buf_add_u8(b, (uint8_t)((m->is_8bit ? BIT_8BIT : 0) | (m->is_smtputf8 ? BIT_SMTPUTF8 : 0) |
                                (m->is_binary ? BIT_BINARY : 0) | (m->is_notice ? BIT_NOTICE : 0) |
                                (m->is_big ? BIT_BIG : 0)));
    hky_buf_add_u8(b, m->ret);
    hky_buf_add_u16(b, m->n_received);
    /* Most facts are empty or short: one octet of number, then the string; 0xff ends. */
    hky_message_facts(m, facts);
    for (int k = 0; k < HKY_FACT_N; k++) {
        if (facts[k].n == 0)
            continue;
        hky_buf_add_u8(b, (uint8_t)k);
        hky_buf_add_lstr(b, facts[k]);
    }
    hky_buf_add_u8(b, 0xff);
    hky_buf_add_u32(b, m->n_recipients);
    for (uint32_t i = 0; i < m->n_recipients; i++) {
        const struct hky_recipient *r = &m->recipients[i];
        hky_buf_add_u8(b, r->notify);
        hky_buf_add_u16(b, r->address_n);
        hky_buf_add_u16(b, r->orcpt_n);
        hky_buf_add_str(b, hky_recipient_address(r));
        hky_buf_add_str(b, hky_recipient_orcpt(r));
    }
}

static void take_facts(struct hky_cursor *c, struct hky_message_draft *d)
{
    for (uint8_t k; (k = hky_cursor_u8(c)) != 0xff && !c->is_bad;) {
        struct hky_str fact = hky_cursor_lstr(c);
        if (k < HKY_FACT_N) /* a fact of a later version is passed over */
            d->facts[k] = fact;
    }
}

enum hky_err hky_message_decode(struct hky_str encoded, struct hky_message **out, struct hky_error *e)
{
    struct hky_cursor c = {encoded.p, encoded.n, false};
    struct hky_message_draft d = {0};
    struct hky_rcpt_draft few[4], *rcpts = few;
    uint8_t format = hky_cursor_u8(&c), bits;

    *out = NULL;
    d.id = hky_cursor_u64(&c);
    d.accepted_at_ms = (int64_t)hky_cursor_u64(&c);
    d.deadline_ms = (int64_t)hky_cursor_u64(&c);
    d.size = hky_cursor_u64(&c);
    d.header_octets = hky_cursor_u32(&c);
    bits = hky_cursor_u8(&c);
    d.is_8bit = bits & BIT_8BIT;
    d.is_smtputf8 = bits & BIT_SMTPUTF8;
    d.is_binary = bits & BIT_BINARY;
    d.is_notice = bits & BIT_NOTICE;
    d.is_big = bits & BIT_BIG;
    d.ret = (enum hky_ret)hky_cursor_u8(&c);
    d.n_received = hky_cursor_u16(&c);
    take_facts(&c, &d);
    d.n_recipients = hky_cursor_u32(&c);
    /* A recipient takes at least five octets, so the count is bounded by what is there. */
    if (format != FACTS_FORMAT || c.is_bad || d.ret > HKY_RET_HDRS || d.header_octets > d.size ||
        d.n_recipients > c.n / 5)
        return hky_error_set(e, HKY_E_SYNTAX, "not an accepted record of format %d", FACTS_FORMAT);
    if (d.n_recipients > 4)
        rcpts = hky_calloc(d.n_recipients, sizeof *rcpts);
    for (uint32_t i = 0; i < d.n_recipients; i++) {
        uint16_t address_n, orcpt_n;
        rcpts[i].notify = hky_cursor_u8(&c);
        address_n = hky_cursor_u16(&c);
        orcpt_n = hky_cursor_u16(&c);
        rcpts[i].address = hky_cursor_take(&c, address_n);
        rcpts[i].orcpt = hky_cursor_take(&c, orcpt_n);
    }
    d.recipients = rcpts;
    if (!c.is_bad && c.n == 0)
        *out = hky_message_new(&d);
    if (rcpts != few)
        free(rcpts);
    return *out != NULL ? HKY_OK : hky_error_set(e, HKY_E_SYNTAX, "accepted record is cut or too long");
}

static void pack_past(struct hky_buf *b, const struct hky_past *p)
{
    hky_buf_add_u64(b, (uint64_t)p->at_ms);
    hky_buf_add_u8(b, p->step);
    hky_buf_add_u8(b, p->class);
    hky_buf_add_u8(b, p->scope);
    hky_buf_add_u8(b, (uint8_t)(p->stage | (p->is_temporary ? 0x80 : 0)));
    hky_buf_add_u16(b, p->code);
    hky_buf_add_u8(b, p->enhanced[0]);
    hky_buf_add_u8(b, p->enhanced[1]);
    hky_buf_add_u16(b, p->enhanced_detail);
    hky_buf_add_u32(b, p->retry_after_sec);
    hky_buf_add_u32(b, p->latency_ms);
    hky_buf_add_u8(b, (uint8_t)p->relay.n);
    hky_buf_add_str(b, p->relay);
    hky_buf_add_u8(b, (uint8_t)p->reply.n);
    hky_buf_add_str(b, p->reply);
}

static bool unpack_past(struct hky_str packed, struct hky_past *p)
{
    struct hky_cursor c = {packed.p, packed.n, false};

    p->at_ms = (int64_t)hky_cursor_u64(&c);
    p->step = hky_cursor_u8(&c);
    p->class = hky_cursor_u8(&c);
    p->scope = hky_cursor_u8(&c);
    p->stage = hky_cursor_u8(&c);
    p->is_temporary = (p->stage & 0x80) != 0;
    p->stage &= 0x7f;
    p->code = hky_cursor_u16(&c);
    p->enhanced[0] = hky_cursor_u8(&c);
    p->enhanced[1] = hky_cursor_u8(&c);
    p->enhanced_detail = hky_cursor_u16(&c);
    p->retry_after_sec = hky_cursor_u32(&c);
    p->latency_ms = hky_cursor_u32(&c);
    p->relay = hky_cursor_take(&c, hky_cursor_u8(&c));
    p->reply = hky_cursor_take(&c, hky_cursor_u8(&c));
    return !c.is_bad && c.n == 0 && p->class < HKY_CLASS_N && p->stage < HKY_STAGE_N && p->scope < HKY_SCOPE_N;
}

static uint16_t entry_octets(const char *p)
{
    return (uint16_t)((unsigned char)p[0] | (unsigned char)p[1] << 8);
}

unsigned hky_recipient_n_past(const struct hky_recipient *r)
{
    return r->history != NULL ? r->history->n : 0;
}

void hky_recipient_past(const struct hky_recipient *r, unsigned i, struct hky_past *out)
{
    const char *at;

    HKY_ASSERT(i < hky_recipient_n_past(r));
    at = r->history->packed;
    for (; i > 0; i--)
        at += 2 + entry_octets(at);
    HKY_ASSERT(unpack_past(hky_str_of(at + 2, entry_octets(at)), out));
}

static void append_packed(struct hky_recipient *r, struct hky_str packed)
{
    struct hky_history *h = r->history;
    uint16_t used = h != NULL ? h->octets : 0;
    uint8_t n = h != NULL ? h->n : 0;

    if (n == HKY_PAST_MAX) {
        uint16_t first = (uint16_t)(2 + entry_octets(h->packed));
        used = (uint16_t)(used - first);
        memmove(h->packed, h->packed + first, used);
        n--;
    }
    h = hky_realloc(h, sizeof *h + used + 2 + packed.n);
    h->packed[used] = (char)(packed.n & 0xff);
    h->packed[used + 1] = (char)(packed.n >> 8);
    memcpy(h->packed + used + 2, packed.p, packed.n);
    h->octets = (uint16_t)(used + 2 + packed.n);
    h->n = (uint8_t)(n + 1);
    r->history = h;
}

void hky_recipient_remember(struct hky_recipient *r, int64_t at_ms, const char *relay, const struct hky_outcome *o)
{
    struct hky_past past = {.at_ms = at_ms,
                            .relay = hky_str_z(relay),
                            .reply = hky_str_of(o->reply.text, o->reply.n),
                            .step = r->step,
                            .class = (uint8_t)o->class,
                            .scope = (uint8_t)o->scope,
                            .stage = (uint8_t)o->stage,
                            .is_temporary = o->is_temporary,
                            .code = o->reply.code,
                            .enhanced = {o->reply.enhanced[0], o->reply.enhanced[1]},
                            .enhanced_detail = o->reply.enhanced_detail,
                            .retry_after_sec = o->retry_after_sec,
                            .latency_ms = o->latency_ms};
    struct hky_buf b;

    if (past.relay.n > HKY_NAME_MAX) /* of a policy of an earlier version, whose rows had longer names */
        past.relay.n = HKY_NAME_MAX;
    if (past.reply.n > HKY_PAST_REPLY)
        past.reply.n = HKY_PAST_REPLY;
    hky_buf_init(&b, 512);
    pack_past(&b, &past);
    append_packed(r, hky_buf_str(&b));
    hky_buf_fini(&b);
}

void hky_recipient_encode_state(const struct hky_recipient *r, struct hky_buf *b)
{
    hky_buf_add_u8(b, STATE_FORMAT);
    hky_buf_add_u64(b, r->plan != NULL ? r->plan->hash : 0);
    hky_buf_add_u8(b, r->state);
    hky_buf_add_u8(b, r->step);
    hky_buf_add_u8(b, r->left_steps);
    hky_buf_add_u8(b, r->copies);
    hky_buf_add_u8(b, r->tries);
    hky_buf_add_u8(b, r->attempts);
    hky_buf_add_u8(b, r->step_attempts);
    hky_buf_add_u8(b, r->ambiguous);
    hky_buf_add_u8(b, r->last_class);
    hky_buf_add_u8(b, r->is_redirected);
    hky_buf_add_u8(b, r->unclean);
    hky_buf_add_u64(b, (uint64_t)r->next_at_ms);
    hky_buf_add_u64(b, (uint64_t)r->step_at_ms);
    hky_buf_add_u64(b, (uint64_t)r->expire_at_ms);
    hky_buf_add_u64(b, (uint64_t)r->parked_at_ms);
    hky_buf_add_u32(b, r->policy);
    hky_buf_add_u32(b, r->parked_times);
    hky_buf_add_lstr(b, hky_str_of(r->arms, r->arms != NULL ? r->arms_n : 0));
    hky_buf_add_lstr(b, hky_str_z(r->reason));
    hky_buf_add_lstr(b, r->history != NULL ? hky_str_of(r->history->packed, r->history->octets) : HKY_STR(""));
}

static bool restore_history(struct hky_recipient *r, struct hky_str packed)
{
    struct hky_cursor c = {packed.p, packed.n, false};
    struct hky_past past;

    while (c.n > 0 && !c.is_bad) {
        struct hky_str entry = hky_cursor_take(&c, hky_cursor_u16(&c));
        if (c.is_bad || !unpack_past(entry, &past))
            return false;
        append_packed(r, entry);
    }
    return !c.is_bad;
}

enum hky_err hky_recipient_decode_state(struct hky_recipient *r, struct hky_str encoded,
                                        struct hky_plan *(*plan_of)(void *ctx, uint64_t hash), void *ctx,
                                        struct hky_error *e)
{
    struct hky_cursor c = {encoded.p, encoded.n, false};
    struct hky_str arms, reason, history;
    uint8_t format = hky_cursor_u8(&c);
    uint64_t hash = hky_cursor_u64(&c);
    struct hky_plan *plan = hash != 0 ? plan_of(ctx, hash) : NULL;
    struct hky_recipient k = *r; /* becomes *r when all is well */
    uint32_t parked_times;

    k.plan = NULL;
    k.arms = k.reason = NULL;
    k.history = NULL;
    k.state = hky_cursor_u8(&c);
    k.step = hky_cursor_u8(&c);
    k.left_steps = hky_cursor_u8(&c);
    k.copies = hky_cursor_u8(&c);
    k.tries = hky_cursor_u8(&c);
    k.attempts = hky_cursor_u8(&c);
    k.step_attempts = hky_cursor_u8(&c);
    k.ambiguous = hky_cursor_u8(&c);
    k.last_class = hky_cursor_u8(&c);
    k.is_redirected = hky_cursor_u8(&c);
    k.unclean = hky_cursor_u8(&c);
    k.next_at_ms = (int64_t)hky_cursor_u64(&c);
    k.step_at_ms = (int64_t)hky_cursor_u64(&c);
    k.expire_at_ms = (int64_t)hky_cursor_u64(&c);
    k.parked_at_ms = (int64_t)hky_cursor_u64(&c);
    k.policy = hky_cursor_u32(&c);
    parked_times = hky_cursor_u32(&c);
    k.parked_times = parked_times < UINT8_MAX ? (uint8_t)parked_times : UINT8_MAX;
    arms = hky_cursor_lstr(&c);
    reason = hky_cursor_lstr(&c);
    history = hky_cursor_lstr(&c);
    if (format != STATE_FORMAT || c.is_bad || c.n != 0 || k.state >= HKY_RCPT_STATE_N || k.last_class >= HKY_CLASS_N ||
        !restore_history(&k, history)) {
        free(k.history);
        return hky_error_set(e, HKY_E_SYNTAX, "not a recipient state of format %d", STATE_FORMAT);
    }
    if (arms.n > 0)
        k.arms = hky_str_dup(arms);
    k.arms_n = (uint32_t)arms.n;
    if (reason.n > 0)
        k.reason = hky_str_dup(reason);
    if (plan != NULL && k.step < plan->n_steps) {
        k.plan = hky_plan_ref(plan);
    } else if (!hky_recipient_state_is_final((enum hky_recipient_state)k.state)) {
        /* Without its plan nobody may guess a way: the policy is asked again, of who is held when that is released. */
        if (k.state != HKY_RCPT_HELD && (k.state != HKY_RCPT_UNDECIDED || hash != 0))
            k.state = HKY_RCPT_PARKED;
        k.step = 0;
    }
    /* Nothing is under way after a restart. */
    if (k.state == HKY_RCPT_SENDING)
        k.state = HKY_RCPT_QUEUED;
    hky_plan_unref(&r->plan);
    free(r->arms);
    free(r->reason);
    free(r->history);
    *r = k;
    return HKY_OK;
}
