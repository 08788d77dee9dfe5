#include "deliver/outcome.h"

static enum hky_scope scope_of(enum hky_class class)
{
    switch (class) {
    case HKY_CLASS_RELAY_AUTH:
        return HKY_SCOPE_RELAY;
    case HKY_CLASS_SIZE_FORMAT:
    case HKY_CLASS_AMBIGUOUS:
        return HKY_SCOPE_MESSAGE;
    case HKY_CLASS_BAD_DOMAIN:
        return HKY_SCOPE_DOMAIN;
    default:
        return HKY_SCOPE_PATH;
    }
}

void hky_deliver_outcome(const struct hky_deliver_outcome_query *q, struct hky_outcome *out)
{
    const struct hky_relay *r = q->relay;
    struct hky_classify_query query = {
        .provider = r->is_mx            ? "own"
                    : r->preset != NULL ? r->preset
                                        : "",
        .mx = q->host,
        .is_own = r->is_mx,
        .stage = q->stage,
        .reply = q->reply,
        .address = q->address,
        .now_ms = q->now_ms,
    };
    hky_classify(q->policy->rules, q->policy->n_rules, &query, out);
    enum hky_class class = q->class;
    /* We ended it, because the peer does not speak proper SMTP; the next attempt may reach another machine. */
    if (class == HKY_CLASS_N && q->reply->origin == HKY_ORIGIN_LOCAL)
        class = HKY_CLASS_SYSTEM_TEMP;
    /* A 4xx does not refuse the login or session: a later attempt may succeed. */
    bool is_refusal = out->class == HKY_CLASS_RELAY_AUTH || out->class == HKY_CLASS_RELAY_DENIED;
    if (class == HKY_CLASS_N && q->stage <= HKY_STAGE_AUTH && q->reply->code / 100 == 4 && is_refusal)
        class = HKY_CLASS_SYSTEM_TEMP;
    if (class == HKY_CLASS_N)
        return;
    out->class = class;
    out->scope = scope_of(class);
    out->is_temporary = class == HKY_CLASS_NETWORK || class == HKY_CLASS_SYSTEM_TEMP;
}
