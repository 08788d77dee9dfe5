/*
 * plan -- what the schedule needs of a running plan beyond hikyaku/schedule.h. Pure.
 */
#ifndef HKY_SCHEDULE_PLAN_H
#define HKY_SCHEDULE_PLAN_H

#include "hikyaku/schedule.h"

#define RELAYS_FOLLOWED_MAX 8 /* `instead` of `instead` ... */

/* The relay a step names, by `instead`; NULL when the policy has none of that name. */
const struct hky_relay *schedule_plan_relay(const struct hky_policy *policy, const char *name);
/* The account that `relay` uses for this step: the step's own belongs to the relay that it names; whoever stands in for
 * that one uses its own. */
const char *schedule_plan_account(const struct hky_relay *relay, const struct hky_step *step);
/* May this recipient go by step `step`, as its author or rewritten? */
bool schedule_plan_step_sends_as(const struct hky_policy *policy, const struct hky_recipient *r, uint8_t step);
/* When step r->step is over (POLICY.md 2b `within`), seen for `cause`; INT64_MAX: never before expire. */
int64_t schedule_plan_within_end(const struct hky_policy *policy, const struct hky_recipient *r, enum hky_class cause);
/* When the recipient expires: as recorded, or by plan, engine and deadline. */
int64_t schedule_plan_expire_at(const struct hky_policy *policy, const struct hky_recipient *r);
/* How long an account that has used up its quota is paused: the relay's own cap of an hour up to a day, the longest of
 * them; 0: it has none. */
uint32_t schedule_plan_quota_window_sec(const struct hky_relay *relay);
/* Does an attempt that ended like this use up one of the step's `tries`? Trouble that may pass, of whatever class. */
bool schedule_plan_uses_a_try(const struct hky_outcome *o);

#endif
