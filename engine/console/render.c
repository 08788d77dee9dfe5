/* The answers of status, relay and reload. */
#include "hikyaku/render.h"

const char *hky_health_name(enum hky_err health)
{
    if (health == HKY_E_TIMEOUT)
        return "hanging";
    return health == HKY_OK ? "good" : health == HKY_E_FULL ? "full" : "failing";
}

/* ---- relays ---- */

static int64_t seconds(int64_t ms)
{
    return (ms + 999) / 1000;
}

static void add_caps(const struct hky_relay_row *r, struct hky_json *out)
{
    hky_json_begin_array(out, "caps");
    for (unsigned i = 0; i < r->n_caps; i++) {
        hky_json_begin_object(out, NULL);
        hky_json_z(out, "cap", r->caps[i].text);
        hky_json_uint(out, "used", r->caps[i].used);
        hky_json_uint(out, "n", r->caps[i].n);
        if (r->caps[i].next_at_ms != 0)
            hky_json_int(out, "next_at", seconds(r->caps[i].next_at_ms));
        hky_json_end_object(out);
    }
    hky_json_end_array(out);
}

static void add_broken(const struct hky_relay_row *r, struct hky_json *out)
{
    hky_json_begin_object(out, "broken");
    hky_json_uint(out, "n", r->n_broken);
    hky_json_begin_array(out, "domains");
    for (unsigned i = 0; i < r->n_broken && i < HKY_BROKEN_SHOWN; i++)
        hky_json_z(out, NULL, r->broken[i]);
    hky_json_end_array(out);
    hky_json_end_object(out);
}

void hky_render_relay(const void *relay_row, struct hky_json *out)
{
    const struct hky_relay_row *r = relay_row;

    hky_json_z(out, "relay", r->relay->name);
    hky_json_z(out, "account", r->relay->account);
    hky_json_z(out, "state", r->state);
    hky_json_int(out, "until", r->until_ms / 1000);
    hky_json_z(out, "to", r->to != NULL ? r->to : "");
    if (r->to_state != NULL) {
        hky_json_z(out, "to_state", r->to_state);
        hky_json_bool(out, "to_paused_by_policy", r->is_to_paused_by_policy);
    }
    hky_json_z(out, "why", r->why);
    if (r->relay->is_mx)
        add_broken(r, out);
    hky_json_uint(out, "queued", r->n_queued);
    hky_json_uint(out, "deferred", r->n_deferred);
    hky_json_uint(out, "sending", r->n_sending);
    hky_json_uint(out, "failures", r->n_failures);
    hky_json_begin_object(out, "learned");
    hky_json_uint(out, "recipients", r->learned[HKY_LEARNED_RECIPIENTS]);
    hky_json_uint(out, "connections", r->learned[HKY_LEARNED_CONNECTIONS]);
    hky_json_uint(out, "messages", r->learned[HKY_LEARNED_MESSAGES]);
    hky_json_end_object(out);
    add_caps(r, out);
}

void hky_render_relays(const void *relay_list, struct hky_json *out)
{
    const struct hky_relay_list *list = relay_list;

    hky_json_begin_array(out, "relays");
    for (uint32_t i = 0; i < list->n; i++) {
        hky_json_begin_object(out, NULL);
        hky_render_relay(&list->rows[i], out);
        hky_json_end_object(out);
    }
    hky_json_end_array(out);
}

/* ---- status, reload ---- */

static void add_keys(const char *keys, struct hky_json *out)
{
    hky_json_begin_array(out, "restart");
    while (*keys != '\0') {
        size_t n = strcspn(keys, ",");
        hky_json_str(out, NULL, hky_str_trim(hky_str_of(keys, n)));
        keys += keys[n] == ',' ? n + 1 : n;
    }
    hky_json_end_array(out);
}

static void add_queue(const struct hky_status *s, struct hky_json *out)
{
    hky_json_begin_object(out, "queue");
    hky_json_uint(out, "queued", s->schedule.queued);
    hky_json_uint(out, "sending", s->schedule.sending);
    hky_json_uint(out, "deferred", s->schedule.deferred);
    hky_json_uint(out, "parked", s->schedule.parked);
    hky_json_uint(out, "undecided", s->schedule.undecided);
    hky_json_uint(out, "held", s->schedule.held);
    hky_json_end_object(out);
    hky_json_begin_object(out, "since_start");
    hky_json_uint(out, "delivered", s->schedule.delivered);
    hky_json_uint(out, "failed", s->schedule.failed);
    hky_json_uint(out, "cancelled", s->schedule.cancelled);
    hky_json_uint(out, "notices", s->schedule.notices);
    hky_json_uint(out, "attempts", s->schedule.attempts);
    hky_json_uint(out, "messages", s->accept.messages);
    hky_json_uint(out, "recipients", s->accept.recipients);
    hky_json_uint(out, "refused", s->accept.refused);
    hky_json_end_object(out);
    hky_json_uint(out, "sessions", s->accept.sessions);
}

static void add_journal(const struct hky_journal_stats *j, struct hky_json *out)
{
    hky_json_begin_object(out, "journal");
    hky_json_z(out, "health", hky_health_name(j->health));
    hky_json_bool(out, "takes_results", j->takes_results);
    hky_json_uint(out, "recipients", j->recipients_live);
    hky_json_uint(out, "segments", j->segments);
    hky_json_uint(out, "cold", j->cold_segments);
    hky_json_uint(out, "free", j->free_segments);
    hky_json_uint(out, "octets", j->octets);
    hky_json_uint(out, "commits", j->commits);
    hky_json_uint(out, "syncs", j->syncs);
    hky_json_uint(out, "body_memory", j->body_memory);
    hky_json_uint(out, "write_errors", j->write_errors);
    hky_json_uint(out, "damaged", j->damaged);
    hky_json_end_object(out);
}

void hky_render_status(const void *status, struct hky_json *out)
{
    const struct hky_status *s = status;

    hky_json_z(out, "version", s->version);
    hky_json_z(out, "policy", s->policy_path);
    hky_json_hex(out, "policy_hash", s->policy_hash);
    hky_json_uint(out, "workers", s->n_workers);
    hky_json_int(out, "uptime_sec", s->uptime_sec);
    hky_json_z(out, "state", s->state);
    hky_json_z(out, "timezone", s->timezone);
    if (s->reload_error[0] != '\0')
        hky_json_z(out, "reload_error", s->reload_error);
    add_keys(s->restart_keys, out);
    add_queue(s, out);
    add_journal(&s->journal, out);
    hky_json_uint(out, "events_dropped", s->n_events_dropped);
    hky_render_relays(&s->relays, out);
}

void hky_render_reloaded(const void *reloaded, struct hky_json *out)
{
    const struct hky_reloaded *r = reloaded;

    hky_json_z(out, "policy", r->policy_path);
    hky_json_hex(out, "policy_hash", r->policy_hash);
    add_keys(r->restart_keys, out);
    if (r->lists[0] != '\0')
        hky_json_z(out, "lists", r->lists);
}
