/*
 * Moving a recipient out of the list in which it is, and into one.
 */
#include "internal.h"

#include <stdlib.h>

/* Counted for the relay that its step names. Plan and step change only while it is in no list, so it is subtracted from
 * the same relay. */
void schedule_shard_count_deferred(struct hky_shard *sh, const struct hky_recipient *r, int by)
{
    counter_add(&sh->n.deferred, (uint32_t)by);
    if (r->plan == NULL)
        return;
    struct hky_str relay = hky_str_z(r->plan->steps[r->step].relay);
    uint32_t *n = hky_map_get(&sh->deferred, relay);
    if (n == NULL) {
        n = hky_calloc(1, sizeof *n);
        pthread_mutex_lock(&sh->s->lock);
        hky_map_put(&sh->deferred, relay, n);
        pthread_mutex_unlock(&sh->s->lock);
    }
    counter_add(n, (uint32_t)by);
}

void schedule_recipient_take_out(struct hky_shard *sh, struct hky_recipient *r)
{
    if (own(r)->lane != NULL) {
        schedule_lane_remove(own(r)->lane, r);
        hky_heap_remove(&sh->due, &own(r)->due);
    } else if (r->state == HKY_RCPT_HELD) {
        schedule_survey_on_leave(sh, r);
        recipients_remove(&sh->held, r);
        counter_add(&sh->n.held, -1);
    } else if (r->state == HKY_RCPT_UNDECIDED) {
        schedule_undecided_take_out(sh, r);
    } else if (own(r)->due.index != 0) {
        hky_heap_remove(&sh->due, &own(r)->due);
        if (r->state == HKY_RCPT_PARKED) {
            recipients_remove(&sh->parked, r);
            counter_add(&sh->n.parked, -1);
        } else {
            schedule_shard_count_deferred(sh, r, -1);
        }
    } else {
        schedule_survey_on_leave(sh, r);
        recipients_remove(&sh->to_dispatch, r);
        counter_add(&sh->n.moving, -1);
    }
}

static void wait_in_heap(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    r->next_at_ms = at_ms;
    schedule_shard_set_due(sh, r, at_ms);
}

void schedule_recipient_defer(struct hky_shard *sh, struct hky_recipient *r, int64_t at_ms)
{
    schedule_recipient_enter(sh, r, HKY_RCPT_QUEUED);
    schedule_shard_count_deferred(sh, r, 1);
    if (r->attempts >= HKY_ATTEMPTS_MAX)
        schedule_recipient_set_reason(r, "its attempts are used up; it waits until it expires");
    wait_in_heap(sh, r, at_ms);
}

void schedule_recipient_list_for_dispatch(struct hky_shard *sh, struct hky_recipient *r)
{
    recipients_append(&sh->to_dispatch, r);
    counter_add(&sh->n.moving, 1);
}

void schedule_recipient_dispatch_later(struct hky_shard *sh, struct hky_recipient *r)
{
    schedule_recipient_list_for_dispatch(sh, r);
    schedule_shard_request_turn(sh);
}

void schedule_recipient_hold_after(struct hky_shard *sh, struct hky_recipient *r, const char *why,
                                   const struct hky_outcome *o, const struct job *job)
{
    if (why != r->reason)
        schedule_recipient_set_reason(r, why);
    schedule_recipient_enter(sh, r, HKY_RCPT_HELD);
    recipients_append(&sh->held, r);
    counter_add(&sh->n.held, 1);
    schedule_recipient_journal(sh, r);
    schedule_event_of_recipient(sh, HKY_EVENT_HELD, r,
                                &(struct event_details){.outcome = o, .job = job, .text = r->reason});
}

void schedule_recipient_hold(struct hky_shard *sh, struct hky_recipient *r, const char *why)
{
    schedule_recipient_hold_after(sh, r, why, NULL, NULL);
}

void schedule_recipient_expire(struct hky_shard *sh, struct hky_recipient *r)
{
    if (r->ambiguous > 0)
        schedule_recipient_hold(sh, r, "may have been delivered; the time to deliver is over");
    else
        schedule_recipient_finish(sh, r, HKY_RCPT_EXPIRED, NULL, "the time to deliver is over", NULL);
}
