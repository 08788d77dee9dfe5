/* Answers a monitor: whether the engine is well (/healthz), and its numbers (/metrics). Runs on a thread of the
 * console. */
#include "wiring.h"

#include "hikyaku/render.h"

#include <inttypes.h>

const char *hky_engine_unwell(void *ctx)
{
    struct hky_engine *engine = ctx;
    struct hky_journal_stats j;

    hky_journal_stats(engine->journal, &j);
    if (engine->stopping > 0)
        return "stopping";
    return j.health == HKY_OK ? NULL : hky_health_name(j.health);
}

static void add_metric(struct hky_buf *b, const char *name, const char *type, const char *help, uint64_t value)
{
    hky_buf_printf(b, "# HELP hikyaku_%s %s\n# TYPE hikyaku_%s %s\nhikyaku_%s %" PRIu64 "\n", name, help, name, type,
                   name, value);
}

void hky_engine_metrics(void *ctx, struct hky_buf *b)
{
    struct hky_engine *engine = ctx;
    struct hky_schedule_stats s;
    struct hky_journal_stats j;
    struct hky_accept_stats a;

    hky_schedule_stats(engine->schedule, &s);
    hky_journal_stats(engine->journal, &j);
    hky_accept_stats(engine->accept, &a);
    add_metric(b, "sessions", "gauge", "open SMTP sessions", a.sessions);
    add_metric(b, "sessions_total", "counter", "SMTP sessions since start", a.sessions_total);
    add_metric(b, "messages_accepted_total", "counter", "messages answered 250", a.messages);
    add_metric(b, "recipients_accepted_total", "counter", "recipients of accepted messages", a.recipients);
    add_metric(b, "refused_total", "counter", "messages and recipients that were refused", a.refused);
    add_metric(b, "recipients_queued", "gauge", "recipients that are due or wait for their turn", s.queued);
    add_metric(b, "recipients_sending", "gauge", "recipients in a transaction", s.sending);
    add_metric(b, "recipients_deferred", "gauge", "recipients waiting for a retry", s.deferred);
    add_metric(b, "recipients_parked", "gauge", "recipients waiting for a policy", s.parked);
    add_metric(b, "recipients_undecided", "gauge", "recipients about whom the policy has not decided yet", s.undecided);
    add_metric(b, "recipients_held", "gauge", "recipients waiting for an operator", s.held);
    add_metric(b, "delivered_total", "counter", "recipients delivered", s.delivered);
    add_metric(b, "failed_total", "counter", "recipients failed", s.failed);
    add_metric(b, "cancelled_total", "counter", "recipients cancelled by operators", s.cancelled);
    add_metric(b, "notices_total", "counter", "failure notices that were delivered or given up", s.notices);
    add_metric(b, "attempts_total", "counter", "attempts made", s.attempts);
    add_metric(b, "journal_commits_total", "counter", "commits written", j.commits);
    add_metric(b, "journal_syncs_total", "counter", "fdatasync calls", j.syncs);
    add_metric(b, "spool_full", "gauge", "1 while no mail is accepted because the disk is full",
               j.health == HKY_E_FULL);
    add_metric(b, "spool_failing", "gauge", "1 while no mail is accepted because writing fails", j.health == HKY_E_IO);
    add_metric(b, "spool_hanging", "gauge", "1 while the disk does not answer a write", j.health == HKY_E_TIMEOUT);
    add_metric(b, "deliveries_stopped", "gauge", "1 while no mail is sent because its results cannot be written",
               !j.takes_results);
    add_metric(b, "journal_octets", "gauge", "octets of journal in use", j.octets);
    add_metric(b, "journal_segments", "gauge", "segments in use", j.segments - j.free_segments);
    add_metric(b, "journal_write_errors_total", "counter", "failed writes and syncs", j.write_errors);
    add_metric(b, "journal_damaged_total", "counter", "damaged records set aside", j.damaged);
    add_metric(b, "body_memory_octets", "gauge", "bodies held in memory", j.body_memory);
    add_metric(b, "events_dropped_total", "counter", "events the log could not keep",
               hky_record_dropped(engine->record));
}
