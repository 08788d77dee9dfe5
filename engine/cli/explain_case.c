/* Functions of a case that both explaining and printing use. */
#include "cli/explain.h"

void explain_if(const struct explain_case *c, enum hky_class class, bool is_temporary, struct hky_advance *out)
{
    struct hky_outcome o = {.class = class, .stage = HKY_STAGE_DOT, .is_temporary = is_temporary};
    struct hky_advance_query q = {.policy = c->policy, .recipient = c->recipient, .outcome = &o, .now_ms = c->now_ms};

    hky_schedule_plan_advance(&q, out);
}

const struct hky_relay *explain_relay(const struct explain_case *c, uint8_t step)
{
    return hky_policy_serving_relay(c->policy, hky_str_z(c->recipient->plan->steps[step].relay));
}

const char *explain_relay_name(const struct explain_case *c, uint8_t step)
{
    const struct hky_relay *relay = explain_relay(c, step);

    return relay != NULL ? relay->name : c->recipient->plan->steps[step].relay;
}
