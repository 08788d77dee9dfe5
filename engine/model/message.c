#include "hikyaku/message.h"

#include "base/hash.h"

#include <stdlib.h>

static const char *const state_names[] = {"queued",    "sending", "parked",  "undecided", "held",
                                          "delivered", "failed",  "expired", "cancelled"};

const char *hky_recipient_state_name(enum hky_recipient_state s)
{
    return (unsigned)s < HKY_RCPT_STATE_N ? state_names[s] : "?";
}

bool hky_recipient_state_is_final(enum hky_recipient_state s)
{
    return s >= HKY_RCPT_DELIVERED;
}

struct hky_body *hky_body_new(char *p, size_t n, size_t cap)
{
    struct hky_body *b = hky_alloc(sizeof *b);

    *b = (struct hky_body){.refs = 1, .n = n, .cap = cap, .p = p};
    return b;
}

struct hky_body *hky_body_ref(struct hky_body *b)
{
    __atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

void hky_body_unref(struct hky_body **b)
{
    struct hky_body *it = *b;

    *b = NULL;
    if (it == NULL || __atomic_sub_fetch(&it->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    free(it->p);
    free(it);
}

/* Facts follow one another, each behind its length: an octet, or LONG and four. */
#define LONG 255

static char *packed(const struct hky_message *m)
{
    return (char *)m + sizeof *m + m->n_recipients * sizeof m->recipients[0];
}

static size_t fact_octets(size_t n)
{
    return n < LONG ? 1 + n : 5 + n;
}

static size_t fact_length(const unsigned char *at, size_t *head)
{
    *head = at[0] < LONG ? 1 : 5;
    return at[0] < LONG ? at[0] : at[1] | (size_t)at[2] << 8 | (size_t)at[3] << 16 | (size_t)at[4] << 24;
}

static char *put(char *at, struct hky_str s)
{
    if (s.n > 0)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

static char *put_fact(char *at, struct hky_str s)
{
    if (s.n < LONG) {
        *at++ = (char)s.n;
    } else {
        *at++ = (char)LONG;
        for (int i = 0; i < 4; i++)
            *at++ = (char)(s.n >> (8 * i));
    }
    return put(at, s);
}

struct hky_message *hky_message_new(const struct hky_message_draft *d)
{
    size_t packed_n = 0, head = sizeof(struct hky_message) + d->n_recipients * sizeof(struct hky_recipient);
    struct hky_message *m;
    char *at;

    for (int k = 0; k < HKY_FACT_N; k++)
        packed_n += fact_octets(d->facts[k].n);
    for (uint32_t i = 0; i < d->n_recipients; i++) {
        HKY_ASSERT(d->recipients[i].address.n <= UINT16_MAX && d->recipients[i].orcpt.n <= UINT16_MAX);
        packed_n += d->recipients[i].address.n + d->recipients[i].orcpt.n;
    }
    HKY_ASSERT(packed_n <= UINT32_MAX);
    m = hky_alloc(head + packed_n);
    memset(m, 0, head);
    m->refs = 1;
    m->id = d->id;
    m->accepted_at_ms = d->accepted_at_ms;
    m->deadline_ms = d->deadline_ms;
    m->size = d->size;
    m->header_octets = d->header_octets;
    m->is_8bit = d->is_8bit;
    m->is_smtputf8 = d->is_smtputf8;
    m->is_binary = d->is_binary;
    m->is_notice = d->is_notice;
    m->is_big = d->is_big;
    m->ret = (uint8_t)d->ret;
    m->n_received = d->n_received;
    m->n_recipients = d->n_recipients;
    m->n_live = d->n_recipients;
    m->packed_n = (uint32_t)packed_n;
    at = packed(m);
    for (int k = 0; k < HKY_FACT_N; k++)
        at = put_fact(at, d->facts[k]);
    for (uint32_t i = 0; i < d->n_recipients; i++) {
        struct hky_recipient *r = &m->recipients[i];
        r->message = m;
        r->index = i;
        r->address_at = (uint32_t)(at - packed(m));
        r->address_n = (uint16_t)d->recipients[i].address.n;
        r->orcpt_n = (uint16_t)d->recipients[i].orcpt.n;
        r->notify = d->recipients[i].notify;
        r->state = HKY_RCPT_QUEUED;
        at = put(at, d->recipients[i].address);
        at = put(at, d->recipients[i].orcpt);
    }
    return m;
}

struct hky_message *hky_message_ref(struct hky_message *m)
{
    __atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
    return m;
}

void hky_message_unref(struct hky_message **m)
{
    struct hky_message *it = *m;

    *m = NULL;
    if (it == NULL || __atomic_sub_fetch(&it->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (uint32_t i = 0; i < it->n_recipients; i++) {
        struct hky_recipient *r = &it->recipients[i];
        hky_plan_unref(&r->plan);
        free(r->history);
        free(r->arms);
        free(r->reason);
    }
    hky_body_unref(&it->body);
    free(it);
}

struct hky_str hky_message_fact(const struct hky_message *m, enum hky_fact f)
{
    const char *at = packed(m);

    for (int k = 0;; k++) {
        size_t head, n = fact_length((const unsigned char *)at, &head);
        if (k == (int)f)
            return hky_str_of(at + head, n);
        at += head + n;
    }
}

void hky_message_facts(const struct hky_message *m, struct hky_str out[HKY_FACT_N])
{
    const char *at = packed(m);

    for (int k = 0; k < HKY_FACT_N; k++) {
        size_t head, n = fact_length((const unsigned char *)at, &head);
        out[k] = hky_str_of(at + head, n);
        at += head + n;
    }
}

struct hky_str hky_recipient_address(const struct hky_recipient *r)
{
    return hky_str_of(packed(r->message) + r->address_at, r->address_n);
}

struct hky_str hky_recipient_domain(const struct hky_recipient *r)
{
    struct hky_str a = hky_recipient_address(r);
    const char *at = memrchr(a.p, '@', a.n);

    return at != NULL ? hky_str_of(at + 1, (size_t)(a.p + a.n - at - 1)) : hky_str_of("", 0);
}

struct hky_str hky_recipient_orcpt(const struct hky_recipient *r)
{
    return hky_str_of(packed(r->message) + r->address_at + r->address_n, r->orcpt_n);
}

bool hky_packed_next(struct hky_str packed, size_t *at, struct hky_str *item)
{
    const char *end;

    if (*at >= packed.n)
        return false;
    end = memchr(packed.p + *at, '\0', packed.n - *at);
    *item = hky_str_of(packed.p + *at, end != NULL ? (size_t)(end - packed.p) - *at : packed.n - *at);
    *at += item->n + 1;
    return true;
}

bool hky_message_has_tag(const struct hky_message *m, struct hky_str tag)
{
    struct hky_str item;

    for (size_t at = 0; hky_packed_next(hky_message_fact(m, HKY_FACT_TAGS), &at, &item);)
        if (hky_str_eq(item, tag))
            return true;
    return false;
}

enum hky_rank hky_recipient_rank(const struct hky_recipient *r)
{
    if (r->plan != NULL && r->plan->has_rank)
        return r->plan->rank;
    return hky_message_fact(r->message, HKY_FACT_SCENARIO).n > 0 ? HKY_RANK_BULK : HKY_RANK_NORMAL;
}

uint64_t hky_id_next(struct hky_id_source *s, int64_t now_ms)
{
    uint64_t last = __atomic_load_n(&s->last, __ATOMIC_RELAXED), id;

    /* 20 bits for what comes in one millisecond; a clock that steps back makes ids go on from the last. */
    do {
        id = now_ms > 0 ? (uint64_t)now_ms << 20 : 0;
        if (id <= last)
            id = last + 1;
    } while (!__atomic_compare_exchange_n(&s->last, &last, id, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return id;
}

void hky_id_seen(struct hky_id_source *s, uint64_t id)
{
    uint64_t last = __atomic_load_n(&s->last, __ATOMIC_RELAXED);

    while (id > last && !__atomic_compare_exchange_n(&s->last, &last, id, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}
