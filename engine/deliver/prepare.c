#include "deliver/prepare.h"

static enum hky_prepare (*const steps[])(struct hky_delivery *x, struct hky_error *e) = {
    hky_prepare_body,
};

enum hky_prepare hky_delivery_prepare(struct hky_delivery *x, struct hky_error *e)
{
    enum hky_prepare result = HKY_PREPARE_READY;
    while (result == HKY_PREPARE_READY && x->prepare_at < sizeof(steps) / sizeof(steps[0])) {
        result = steps[x->prepare_at](x, e);
        x->prepare_at += result == HKY_PREPARE_READY;
    }
    return result;
}
