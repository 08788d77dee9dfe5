/* What hosts said of a delivery's recipients, kept while further hosts are tried (RFC 5321 5.1). */
#include "deliver/delivery.h"

#include <stdlib.h>

static bool is_temporary(const struct hky_kept *k)
{
    return k->reply.code < 500 &&
           k->class != HKY_CLASS_BAD_DOMAIN; /* code 0: the connection was lost, refused or timed out */
}

bool hky_kept_is_better(const struct hky_kept *earlier, const struct hky_kept *later)
{
    if (is_temporary(earlier) != is_temporary(later))
        return is_temporary(earlier);
    return earlier->stage > later->stage;
}

void hky_delivery_keep(struct hky_delivery *x, unsigned i, const struct hky_kept *k)
{
    HKY_ASSERT(i < x->txn.n);
    if (x->kept == NULL)
        x->kept = hky_calloc(x->txn.n, sizeof(struct hky_kept *));
    if (x->kept[i] == NULL) {
        x->kept[i] = hky_alloc(sizeof(*k));
        x->n_kept++;
    } else if (hky_kept_is_better(x->kept[i], k)) {
        return;
    }
    *x->kept[i] = *k;
}

void hky_delivery_forget(struct hky_delivery *x, unsigned i)
{
    if (x->kept == NULL || x->kept[i] == NULL)
        return;
    free(x->kept[i]);
    x->kept[i] = NULL;
    if (--x->n_kept > 0)
        return;
    free((void *)x->kept);
    x->kept = NULL;
}
