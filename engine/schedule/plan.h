/*
 * plan -- what the schedule asks about a running plan, beyond hikyaku/schedule.h. These functions are pure.
 */
#ifndef HKY_SCHEDULE_PLAN_H
#define HKY_SCHEDULE_PLAN_H

#include "hikyaku/schedule.h"

#define RELAYS_FOLLOWED_MAX 8 /* one relay's `instead` may name a relay with an `instead` */

/* The relay that a step names, or the one that its `instead` leads to. NULL: the policy has no relay of that name. */
const struct hky_relay *schedule_plan_relay(const struct hky_policy *policy, const char *name);
/* The account that `relay` uses for this step. The step's account is one of the relay that the step names; another
 * relay that is used instead of that one uses its own account. */
const char *schedule_plan_account(const struct hky_relay *relay, const struct hky_step *step);
/* May this recipient be sent by step `step`, as its author or with From rewritten? */
bool schedule_plan_step_sends_as(const struct hky_policy *policy, const struct hky_recipient *r, uint8_t step);
/* When step r->step is over (POLICY.md 2b, `within`) if `cause` ends it. INT64_MAX: not before the recipient expires.
 */
int64_t schedule_plan_within_end(const struct hky_policy *policy, const struct hky_recipient *r, enum hky_class cause);
/* When the recipient expires: at the recorded time, or else by its plan, the engine and its deadline. */
int64_t schedule_plan_expire_at(const struct hky_policy *policy, const struct hky_recipient *r);
/* `at_ms`, but not later than the message's deadline. Whoever moves the time at which a recipient expires uses it. */
int64_t schedule_plan_by_deadline(const struct hky_recipient *r, int64_t at_ms);
/* How long an account is paused whose quota is used up: the longest of the relay's own caps between an hour and a day.
 * 0: it has no such cap. */
uint32_t schedule_plan_quota_window_sec(const struct hky_relay *relay);
/* Does an attempt with this outcome use up one of the step's `tries`? Those with trouble that may pass do. */
bool schedule_plan_uses_a_try(const struct hky_outcome *o);

#endif
