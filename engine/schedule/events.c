/*
 * Events of recipients and lanes, and the log lines about parked recipients and accounts that stop.
 */
#include "internal.h"

#define PARKED_A_SECOND 10 /* lines of one worker; a reload may park a whole queue */

void schedule_event_of_recipient(struct hky_shard *sh, enum hky_event_kind kind, const struct hky_recipient *r,
                                 const struct event_details *n)
{
    int64_t now_ms = schedule_shard_now(sh);
    struct hky_event ev = {
        .kind = kind,
        .at_ms = now_ms,
        .message = r->message,
        .recipient = r,
        .outcome = n->outcome,
        .relay = n->relay,
        .account = n->account,
        .route = r->plan != NULL ? r->plan->route : NULL,
        .next_at_ms = n->next_at_ms,
        .delay_ms = now_ms - r->message->accepted_at_ms,
        .text = n->text,
    };
    if (n->job != NULL) {
        ev.relay = n->job->pub.lane->relay_name;
        ev.account = n->job->pub.lane->account;
        ev.mx = n->outcome != NULL ? n->outcome->host : NULL;
        ev.from = n->job->pub.identity.from;
        ev.sender = n->job->pub.identity.sender;
    }
    sh->s->ops->event(sh->s->ops->ctx, sh->index, &ev);
}

void schedule_log_parked(struct hky_shard *sh, const struct hky_recipient *r)
{
    char id[HKY_ID_TEXT];
    schedule_log_parked_left_out(sh);
    if (sh->n_parked_in_second == 0)
        sh->parked_second_ms = schedule_shard_mono(sh);
    if (sh->n_parked_in_second++ >= PARKED_A_SECOND)
        return;
    hky_id_format(r->message->id, id);
    hky_log(sh->s->log, HKY_LOG_WARN, "parked", "msg=%s rcpt=" HKY_STR_FMT " why=\"%s\"", id,
            HKY_STR_ARG(hky_recipient_address(r)), r->reason);
}

void schedule_log_parked_left_out(struct hky_shard *sh)
{
    if (sh->n_parked_in_second == 0 || schedule_shard_mono(sh) - sh->parked_second_ms < 1000)
        return;
    if (sh->n_parked_in_second > PARKED_A_SECOND)
        hky_log(sh->s->log, HKY_LOG_WARN, "parked",
                "left_out=%u what=\"more were parked; hikyaku queue list --state parked shows them\"",
                sh->n_parked_in_second - PARKED_A_SECOND);
    sh->n_parked_in_second = 0;
}

/* Whoever reads the log must see at once that an account stopped, and why: its password is refused, a certificate has
 * expired. There is one line for each stop, not one for each mail. */
static void log_lane(struct hky_shard *sh, enum hky_event_kind kind, const struct lane *l, const char *why)
{
    bool is_paused = kind == HKY_EVENT_RELAY_PAUSED;
    bool has_domain = l->pub.destination[0] != '\0';

    if (kind != HKY_EVENT_RELAY_PAUSED && kind != HKY_EVENT_RELAY_RESUMED)
        return;
    if (has_domain) {
        hky_log(sh->s->log, is_paused ? HKY_LOG_WARN : HKY_LOG_INFO, "relay", "state=%s relay=%s domain=%s why=%s",
                is_paused ? "paused" : "resumed", l->pub.relay_name, l->pub.destination, why != NULL ? why : "");
    } else {
        hky_log(sh->s->log, is_paused ? HKY_LOG_WARN : HKY_LOG_INFO, "relay", "state=%s relay=%s account=%s why=%s",
                is_paused ? "paused" : "resumed", l->pub.relay_name, l->pub.account, why != NULL ? why : "");
    }
}

void schedule_event_of_lane(struct hky_shard *sh, enum hky_event_kind kind, const struct lane *l, int64_t until_ms,
                            const char *why)
{
    struct hky_event ev = {
        .kind = kind,
        .at_ms = schedule_shard_now(sh),
        .relay = l->pub.relay_name,
        .account = l->pub.account,
        .mx = l->pub.destination[0] != '\0' ? l->pub.destination : NULL,
        .next_at_ms = until_ms,
        .text = why,
    };
    sh->s->ops->event(sh->s->ops->ctx, sh->index, &ev);
    log_lane(sh, kind, l, why);
}
