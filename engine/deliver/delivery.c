/* The life of a delivery: made, used again for another message, begun once more at another host, and what hosts said of
 * its recipients meanwhile (RFC 5321 5.1). */
#include "deliver/delivery.h"

#include <stdlib.h>

#define COMMANDS_MAX (2 * 1024 * 1024)

struct hky_delivery *hky_delivery_new(void)
{
    struct hky_delivery *x = hky_calloc(1, sizeof(*x));
    hky_buf_init(&x->txn.commands, COMMANDS_MAX);
    hky_buf_init(&x->gathered, 4 * 1024 * 1024);
    return x;
}

void hky_delivery_reset(struct hky_delivery *x, unsigned n)
{
    HKY_ASSERT(!x->is_reading && !x->has_piece && x->answers == NULL);
    if (n > x->verdicts_cap) {
        free(x->txn.verdicts);
        x->verdicts_cap = n < 16 ? 16 : n;
        x->txn.verdicts = hky_alloc(x->verdicts_cap);
    }
    memset(x->txn.verdicts, HKY_VERDICT_OPEN, n);
    hky_buf_clear(&x->txn.commands);
    hky_buf_clear(&x->gathered);
    x->txn.state = HKY_TRANSACTION_NEW;
    x->txn.n = n;
    x->txn.is_dry = false;
    x->content = hky_str_of(NULL, 0);
    x->mail_at_ms = 0;
    x->prepare_at = 0;
    x->at = 0;
    x->dot = 1;
    x->is_header_out = x->is_orphan = false;
    x->n_tried = x->n_left = 0;
    x->is_mail_sent = false;
}

/* Another delivery with everything of `x` but the piece that is being read, which keeps `x` until it has come. */
static struct hky_delivery *move_to_another(struct hky_delivery *x)
{
    struct hky_delivery *to = hky_delivery_new();
    hky_delivery_reset(to, x->txn.n);
    to->txn.is_dry = x->txn.is_dry;
    to->job = x->job;
    to->message = x->message != NULL ? hky_message_ref(x->message) : NULL;
    to->identity = x->identity;
    to->recipients = x->recipients;
    to->hostname = x->hostname;
    to->content = x->content;
    to->journal = x->journal;
    to->loop = x->loop;
    memcpy(to->tried, x->tried, sizeof(x->tried));
    to->n_tried = x->n_tried;
    to->n_left = x->n_left;
    to->answers = x->answers;
    to->n_answers = x->n_answers;
    x->answers = NULL;
    x->n_answers = 0;
    hky_delivery_free(&x);
    return to;
}

void hky_delivery_rewind(struct hky_delivery **xp)
{
    struct hky_delivery *x = *xp;
    HKY_ASSERT(x->n_answers > 0);
    if (x->is_reading)
        *xp = x = move_to_another(x);
    if (x->has_piece)
        hky_body_read_release(&x->read);
    hky_buf_clear(&x->txn.commands);
    hky_buf_clear(&x->gathered);
    for (unsigned i = 0; i < x->txn.n; i++)
        x->txn.verdicts[i] = x->answers[i] != NULL ? HKY_VERDICT_OPEN : HKY_VERDICT_REPORTED;
    x->txn.state = HKY_TRANSACTION_NEW;
    x->at = 0;
    x->dot = 1;
    x->has_piece = x->is_header_out = false;
    x->prepare_at = 0;
    x->is_mail_sent = true;
}

void hky_delivery_free(struct hky_delivery **xp)
{
    struct hky_delivery *x = *xp;
    if (x == NULL)
        return;
    *xp = NULL;
    if (x->is_reading) {
        x->is_orphan = true;
        return;
    }
    if (x->has_piece)
        hky_body_read_release(&x->read);
    if (x->message != NULL)
        hky_message_unref(&x->message);
    for (unsigned i = 0; i < x->txn.n; i++)
        hky_delivery_forget_answer(x, i);
    hky_buf_fini(&x->txn.commands);
    hky_buf_fini(&x->gathered);
    free(x->txn.verdicts);
    free(x);
}

/* ---- what hosts said ---- */

static bool is_temporary(const struct hky_kept_answer *k)
{
    return k->reply.code < 500 &&
           k->class != HKY_CLASS_BAD_DOMAIN; /* code 0: the connection was lost, refused or timed out */
}

bool hky_kept_answer_is_better(const struct hky_kept_answer *earlier, const struct hky_kept_answer *later)
{
    if (is_temporary(earlier) != is_temporary(later))
        return is_temporary(earlier);
    return earlier->stage > later->stage;
}

void hky_delivery_keep_answer(struct hky_delivery *x, unsigned i, const struct hky_kept_answer *k)
{
    HKY_ASSERT(i < x->txn.n);
    if (x->answers == NULL)
        x->answers = hky_calloc(x->txn.n, sizeof(struct hky_kept_answer *));
    if (x->answers[i] == NULL) {
        x->answers[i] = hky_alloc(sizeof(*k));
        x->n_answers++;
    } else if (hky_kept_answer_is_better(x->answers[i], k)) {
        return;
    }
    *x->answers[i] = *k;
}

void hky_delivery_forget_answer(struct hky_delivery *x, unsigned i)
{
    if (x->answers == NULL || x->answers[i] == NULL)
        return;
    free(x->answers[i]);
    x->answers[i] = NULL;
    if (--x->n_answers > 0)
        return;
    free((void *)x->answers);
    x->answers = NULL;
}
