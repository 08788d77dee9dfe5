/*
 * Recipients about which the policy has not decided yet. Some wait for a look-up. The others wait until the policy has
 * time for them: it works for a bounded time in one turn of the loop, so that other mail does not wait while it works
 * long, or is asked about many recipients.
 */
#include "internal.h"

#include <stdio.h>

#define POLICY_A_TURN_NS 2000000 /* accept may take as much in the same turn; with the last call it is 5 ms */
#define FEW_RECIPIENTS   8
#define ANSWER_MOST_MS   (5 * 60 * 1000) /* each look-up has its own deadline, which is much shorter */
#define NEVER_MS         INT64_MAX
#define RELOAD_MS        50 /* until a worker has the whole of a new policy; it looks again so often */

/* Marks in next_at_ms of an undecided recipient. With a later time it waits for an answer, at most until that time. */
enum { IS_TO_ASK = 0, IS_ANSWERED = NO_TIME_MOST };

/* Recipients with an answer go first, because others wait for the room that their decisions take. Of the others,
 * messages with few recipients and messages with many take turns: a single mail does not wait for a mailing of a
 * thousand recipients. */
static struct recipients *list_of(struct hky_shard *sh, const struct hky_recipient *r)
{
    return r->next_at_ms == IS_ANSWERED                 ? &sh->answered
           : r->message->n_recipients <= FEW_RECIPIENTS ? &sh->to_ask[0]
                                                        : &sh->to_ask[1];
}

static bool is_listed(const struct hky_recipient *r)
{
    return r->next_at_ms <= IS_ANSWERED;
}

static void enter_undecided(struct hky_shard *sh, struct hky_recipient *r, int64_t next_at_ms)
{
    schedule_recipient_enter(sh, r, HKY_RCPT_UNDECIDED);
    r->next_at_ms = next_at_ms;
    counter_add(&sh->n.undecided, 1);
    schedule_shard_set_due(sh, r, is_listed(r) ? NEVER_MS : next_at_ms);
    if (is_listed(r)) {
        recipients_append(list_of(sh, r), r);
        schedule_shard_request_turn(sh);
    }
}

static void leave(struct hky_shard *sh, struct hky_recipient *r)
{
    if (is_listed(r))
        recipients_remove(list_of(sh, r), r);
    hky_heap_remove(&sh->due, &own(r)->due);
    counter_add(&sh->n.undecided, -1);
    r->next_at_ms = 0;
}

void schedule_undecided_drop_decision(struct hky_shard *sh, struct hky_recipient *r)
{
    if (sh->s->ops->forget != NULL)
        sh->s->ops->forget(sh->s->ops->ctx, sh->index, r);
    sh->is_crowded = false;
}

void schedule_undecided_take_out(struct hky_shard *sh, struct hky_recipient *r)
{
    leave(sh, r);
    schedule_undecided_drop_decision(sh, r);
    schedule_shard_request_turn(sh); /* another decision may begin now */
}

bool schedule_shard_is_policy_time_over(const struct hky_shard *sh)
{
    return sh->asked_ns >= POLICY_A_TURN_NS;
}

bool schedule_shard_has_policy_time(const struct hky_shard *sh)
{
    bool is_in_turn = sh->is_asking || (TAILQ_EMPTY(&sh->to_ask[0]) && TAILQ_EMPTY(&sh->to_ask[1]));
    return is_in_turn && !sh->is_crowded && !schedule_shard_is_policy_time_over(sh);
}

void schedule_undecided_ask_later(struct hky_shard *sh, struct hky_recipient *r)
{
    enter_undecided(sh, r, IS_TO_ASK);
}

void schedule_undecided_ask_when_free(struct hky_shard *sh, struct hky_recipient *r)
{
    sh->is_crowded = true;
    enter_undecided(sh, r, IS_TO_ASK);
}

void schedule_undecided_wait_for_answer(struct hky_shard *sh, struct hky_recipient *r, const char *what)
{
    schedule_recipient_set_reason(r, what);
    enter_undecided(sh, r, schedule_shard_now(sh) + ANSWER_MOST_MS);
}

void schedule_undecided_wait_for_policy(struct hky_shard *sh, struct hky_recipient *r)
{
    enter_undecided(sh, r, schedule_shard_now(sh) + RELOAD_MS);
}

static int64_t unanswered_delay_ms(uint32_t times)
{
    static const int64_t MINUTES[] = {1, 5, 15};
    return (times < 3 ? MINUTES[times] : 60) * 60 * 1000;
}

void schedule_undecided_ask_after_failure(struct hky_shard *sh, struct hky_recipient *r, const char *why)
{
    int64_t now_ms = schedule_shard_now(sh);
    bool is_new = r->parked_times == 0;
    if (r->expire_at_ms == 0)
        r->expire_at_ms = schedule_plan_expire_at(sh->policy, r);
    int64_t end_ms =
        r->parked_at_ms != 0 ? r->parked_at_ms + (int64_t)sh->policy->engine.parked_sec * 1000 : r->expire_at_ms;
    end_ms = schedule_plan_by_deadline(r, end_ms);
    if (now_ms >= end_ms) {
        schedule_recipient_finish(sh, r, HKY_RCPT_EXPIRED, NULL, why, NULL);
        return;
    }
    int64_t at_ms = now_ms + unanswered_delay_ms(r->parked_times);
    r->parked_times += r->parked_times < UINT8_MAX;
    schedule_recipient_set_reason(r, why);
    enter_undecided(sh, r, at_ms < end_ms ? at_ms : end_ms);
    if (is_new) {
        schedule_event_of_recipient(sh, HKY_EVENT_UNDECIDED, r,
                                    &(struct event_details){.text = r->reason, .next_at_ms = r->next_at_ms});
    }
}

void hky_schedule_answered(struct hky_schedule *s, unsigned worker, struct hky_recipient *r)
{
    struct hky_shard *sh = &s->shards[worker];
    HKY_ASSERT(r->state == HKY_RCPT_UNDECIDED);
    leave(sh, r);
    sh->is_crowded = false;
    enter_undecided(sh, r, IS_ANSWERED);
}

struct hky_recipient *schedule_undecided_next(struct hky_shard *sh)
{
    struct hky_recipient *r = recipients_first(&sh->answered);
    if (r != NULL || sh->is_crowded)
        return r;
    sh->next_to_ask = !sh->next_to_ask;
    r = recipients_first(&sh->to_ask[sh->next_to_ask]);
    return r != NULL ? r : recipients_first(&sh->to_ask[!sh->next_to_ask]);
}

void schedule_undecided_begin_asking(struct hky_shard *sh, struct hky_recipient *r)
{
    if (r->next_at_ms == IS_ANSWERED)
        sh->is_crowded = false;
    leave(sh, r);
}
