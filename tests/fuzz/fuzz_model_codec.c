/*
 * The durable forms of a message, a recipient's state and a plan, whatever octets a journal gives: they are refused, or
 * what was read is written and read again as the same. The first octet chooses the form.
 */
#include "hikyaku/message.h"

#include <stdlib.h>

#define OCTETS_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hky_plan *plan;

static struct hky_plan *plan_of(void *ctx, uint64_t hash)
{
    (void)ctx;
    return hash % 2 == 0 ? NULL : plan;
}

static void is_same(struct hky_buf *a, struct hky_buf *b)
{
    HKY_ASSERT(!a->is_over && !b->is_over);
    HKY_ASSERT(a->n == b->n && memcmp(a->p, b->p, a->n) == 0);
    hky_buf_fini(a);
    hky_buf_fini(b);
}

static void read_message(struct hky_str in)
{
    struct hky_message *m, *again;
    struct hky_buf first, second;

    if (hky_message_decode(in, &m, NULL) != HKY_OK)
        return;
    for (uint32_t i = 0; i < m->n_recipients; i++)
        HKY_ASSERT(hky_recipient_address(&m->recipients[i]).n + hky_recipient_orcpt(&m->recipients[i]).n <= in.n);
    hky_buf_init(&first, OCTETS_MAX);
    hky_buf_init(&second, OCTETS_MAX);
    hky_message_encode(m, &first);
    HKY_ASSERT(hky_message_decode(hky_buf_str(&first), &again, NULL) == HKY_OK);
    hky_message_encode(again, &second);
    is_same(&first, &second);
    hky_message_unref(&m);
    hky_message_unref(&again);
}

static struct hky_message *message_of_one(void)
{
    struct hky_rcpt_draft rcpt = {.address = HKY_STR("a@b.example"), .orcpt = HKY_STR("")};
    struct hky_message_draft d = {.id = 1, .n_recipients = 1, .recipients = &rcpt};

    return hky_message_new(&d);
}

static void read_state(struct hky_str in)
{
    struct hky_message *m = message_of_one(), *other = message_of_one();
    struct hky_buf first, second;
    struct hky_past past;

    if (hky_recipient_decode_state(&m->recipients[0], in, plan_of, NULL, NULL) == HKY_OK) {
        HKY_ASSERT(hky_recipient_n_past(&m->recipients[0]) <= HKY_PAST_MAX);
        for (unsigned i = 0; i < hky_recipient_n_past(&m->recipients[0]); i++)
            hky_recipient_past(&m->recipients[0], i, &past);
        hky_buf_init(&first, OCTETS_MAX);
        hky_buf_init(&second, OCTETS_MAX);
        hky_recipient_encode_state(&m->recipients[0], &first);
        HKY_ASSERT(hky_recipient_decode_state(&other->recipients[0], hky_buf_str(&first), plan_of, NULL, NULL) ==
                   HKY_OK);
        hky_recipient_encode_state(&other->recipients[0], &second);
        is_same(&first, &second);
    }
    hky_message_unref(&m);
    hky_message_unref(&other);
}

static void read_plan(struct hky_str in)
{
    struct hky_plan *p, *again;

    if (hky_plan_decode(in, &p, NULL) != HKY_OK)
        return;
    HKY_ASSERT(p->n_steps > 0 && p->n_steps <= HKY_PLAN_STEPS_MAX);
    for (unsigned i = 0; i < p->n_steps; i++)
        HKY_ASSERT(p->steps[i].relay != NULL && p->steps[i].account != NULL && p->steps[i].retry.n <= HKY_RETRY_MAX);
    HKY_ASSERT(hky_plan_decode(hky_str_of(p->encoded, p->encoded_n), &again, NULL) == HKY_OK);
    HKY_ASSERT(again->hash == p->hash && again->encoded_n == p->encoded_n);
    hky_plan_unref(&p);
    hky_plan_unref(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_plan draft = {
        .route = "main", .file = "policy.lua", .line = 3, .expire_sec = HKY_UNSET_SEC, .n_steps = 2};
    struct hky_str in;

    if (plan == NULL) {
        draft.steps[0] = draft.steps[1] =
            (struct hky_step){.relay = "a", .account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
        HKY_ASSERT(hky_plan_new(&draft, &plan, NULL) == HKY_OK);
    }
    if (size == 0)
        return 0;
    in = hky_str_of((const char *)data + 1, size - 1);
    if (data[0] % 3 == 0)
        read_message(in);
    else if (data[0] % 3 == 1)
        read_state(in);
    else
        read_plan(in);
    return 0;
}
