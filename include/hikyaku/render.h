/*
 * render -- turns structs of the stages into the answers of the commands: members of a JSON object. Only this file and
 * its sources name the keys that scripts read (`--json`, the control socket, HTTP). Times are seconds since 1970.
 */
#ifndef HIKYAKU_RENDER_H
#define HIKYAKU_RENDER_H

#include "base/json.h"
#include "hikyaku/accept.h"
#include "hikyaku/schedule.h"

struct hky_status {
    const char *version, *policy_path, *state, *timezone;
    uint64_t policy_hash;
    unsigned n_workers;
    int64_t uptime_sec;
    const char *reload_error; /* why the last reload was refused, "" none */
    const char *restart_keys; /* changed since the start and not in force before a restart, ", " between; "" none */
    uint64_t n_events_dropped;
    struct hky_schedule_stats schedule;
    struct hky_journal_stats journal;
    struct hky_accept_stats accept;
    struct hky_relay_list relays;
};
/* The members of `status`; each of these functions takes the struct that its command answers with. */
void hky_render_status(const void *status, struct hky_json *out);

void hky_render_relays(const void *relay_list, struct hky_json *out); /* "relays" */
void hky_render_relay(const void *relay_row, struct hky_json *out);   /* one, for pause, resume, drain */

struct hky_reloaded {
    const char *policy_path, *restart_keys;
    const char *lists; /* which lists keep their entries for now, "" none */
    uint64_t policy_hash;
};
/* The members of the answer to `reload`. */
void hky_render_reloaded(const void *reloaded, struct hky_json *out);

/* Writes one object of "rows". With `is_story` it has everything that is known: the message, the steps of the plan,
 * every attempt that is kept. */
void hky_render_queue_row(const struct hky_queue_row *row, bool is_story, struct hky_json *out);
struct hky_queue_answer {
    uint64_t n, n_kept, n_held, n_due, n_late, n_used_up, n_spent;
    uint64_t n_where_failed;            /* recipients left out because `where` failed for them */
    const char *timezone, *where_error; /* where_error: the first failure, "" none */
    struct hky_str rows;                /* the array, written as rows arrive: their texts belong to the workers */
};
/* The members of the answer to `queue` and its actions. */
void hky_render_queue(const void *queue_answer, struct hky_json *out);

/* "good" "full" "failing" "hanging" */
const char *hky_health_name(enum hky_err health);

#endif
