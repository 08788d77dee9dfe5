/* outcome -- makes the outcome that everybody else sees from what happened at a stage. */
#ifndef HKY_DELIVER_OUTCOME_H
#define HKY_DELIVER_OUTCOME_H

#include "hikyaku/policy.h"

struct hky_deliver_outcome_query {
    const struct hky_policy *policy;
    const struct hky_relay *relay;
    const char *host; /* the one that replied, or did not */
    enum hky_stage stage;
    enum hky_class class; /* already certain, or HKY_CLASS_N: ask the classifier */
    const struct hky_reply *reply;
    struct hky_str address;
    int64_t now_ms; /* by the schedule's clock, for replies that name a moment; must be given */
};
/* Classifies the reply, unless the class is certain already; says in which cases a refusal may pass. Pure. */
void hky_deliver_outcome(const struct hky_deliver_outcome_query *q, struct hky_outcome *out);

#endif
