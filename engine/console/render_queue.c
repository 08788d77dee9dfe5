/* The rows of the queue: a recipient as a short row, or with everything that is known about it. */
#include "hikyaku/render.h"

#include "base/hash.h"

#include <stdio.h>

static void add_fact(struct hky_json *out, const char *key, const struct hky_recipient *r, enum hky_fact fact)
{
    hky_json_str(out, key, hky_message_fact(r->message, fact));
}

/* ---- the story ---- */

static void add_message(struct hky_json *out, const struct hky_recipient *r)
{
    struct hky_str tags = hky_message_fact(r->message, HKY_FACT_TAGS), tag;
    struct hky_str arms = hky_str_of(r->arms, r->arms != NULL ? r->arms_n : 0), experiment, arm;

    add_fact(out, "author", r, HKY_FACT_AUTHOR);
    add_fact(out, "author_name", r, HKY_FACT_AUTHOR_NAME);
    add_fact(out, "subject", r, HKY_FACT_SUBJECT);
    add_fact(out, "message_id", r, HKY_FACT_MESSAGE_ID);
    add_fact(out, "ref", r, HKY_FACT_REF);
    add_fact(out, "user", r, HKY_FACT_USER);
    add_fact(out, "client", r, HKY_FACT_CLIENT);
    add_fact(out, "source", r, HKY_FACT_SOURCE);
    hky_json_uint(out, "size", r->message->size);
    hky_json_int(out, "accepted_at", r->message->accepted_at_ms / 1000);
    if (r->message->deadline_ms != 0)
        hky_json_int(out, "deadline_at", r->message->deadline_ms / 1000);
    hky_json_begin_array(out, "tags");
    for (size_t at = 0; hky_packed_next(tags, &at, &tag);)
        hky_json_str(out, NULL, tag);
    hky_json_end_array(out);
    hky_json_begin_object(out, "arms");
    for (size_t at = 0; hky_packed_next(arms, &at, &experiment) && hky_packed_next(arms, &at, &arm);) {
        hky_json_key(out, experiment);
        hky_json_str(out, NULL, arm);
    }
    hky_json_end_object(out);
}

static void add_seconds(struct hky_json *out, const char *key, uint32_t sec)
{
    if (sec != HKY_UNSET_SEC)
        hky_json_uint(out, key, sec);
}

static void add_step(struct hky_json *out, const struct hky_recipient *r, unsigned i)
{
    const struct hky_step *s = &r->plan->steps[i];

    hky_json_begin_object(out, NULL);
    hky_json_uint(out, "step", i + 1);
    hky_json_bool(out, "current", i == r->step);
    hky_json_z(out, "relay", s->relay);
    hky_json_z(out, "account", s->account != NULL ? s->account : "");
    hky_json_begin_array(out, "on");
    for (unsigned c = 0; c < HKY_CLASS_N; c++)
        if ((s->on & HKY_CLASS_BIT(c)) != 0)
            hky_json_z(out, NULL, hky_class_name((enum hky_class)c));
    hky_json_end_array(out);
    if (s->tries != 0)
        hky_json_uint(out, "tries", s->tries);
    add_seconds(out, "within_sec", s->within_sec);
    add_seconds(out, "wait_sec", s->wait_sec);
    hky_json_end_object(out);
}

static void add_plan(struct hky_json *out, const struct hky_recipient *r)
{
    const struct hky_plan *plan = r->plan;

    if (plan != NULL) {
        hky_json_z(out, "plan_file", plan->file != NULL ? plan->file : "");
        hky_json_uint(out, "plan_line", plan->line);
    }
    hky_json_begin_array(out, "plan");
    for (unsigned i = 0; plan != NULL && i < plan->n_steps; i++)
        add_step(out, r, i);
    hky_json_end_array(out);
}

static void add_attempt(struct hky_json *out, const struct hky_past *p)
{
    char enhanced[24] = "";

    if (p->enhanced[0] != 0)
        snprintf(enhanced, sizeof enhanced, "%u.%u.%u", p->enhanced[0], p->enhanced[1], p->enhanced_detail);
    hky_json_begin_object(out, NULL);
    hky_json_int(out, "at", p->at_ms / 1000);
    hky_json_uint(out, "step", p->step + 1u);
    hky_json_str(out, "relay", p->relay);
    hky_json_z(out, "stage", hky_stage_name(p->stage));
    hky_json_z(out, "class", hky_class_name(p->class));
    hky_json_z(out, "scope", hky_scope_name(p->scope));
    hky_json_bool(out, "temporary", p->is_temporary);
    hky_json_uint(out, "code", p->code);
    hky_json_z(out, "enhanced", enhanced);
    hky_json_str(out, "reply", p->reply);
    hky_json_uint(out, "retry_after_sec", p->retry_after_sec);
    hky_json_uint(out, "latency_ms", p->latency_ms);
    hky_json_end_object(out);
}

static void add_story(struct hky_json *out, const struct hky_recipient *r)
{
    add_message(out, r);
    hky_json_int(out, "step_at", r->step_at_ms / 1000);
    add_plan(out, r);
    hky_json_begin_array(out, "past");
    for (unsigned i = 0; i < hky_recipient_n_past(r); i++) {
        struct hky_past past;
        hky_recipient_past(r, i, &past);
        add_attempt(out, &past);
    }
    hky_json_end_array(out);
}

/* ---- in short ---- */

void hky_render_queue_row(const struct hky_queue_row *row, bool is_story, struct hky_json *out)
{
    const struct hky_recipient *r = row->recipient;
    bool has_past = r->attempts + r->left_steps > 0;
    struct hky_past past = {0};
    char id[HKY_ID_TEXT];

    hky_id_format(r->message->id, id);
    hky_json_begin_object(out, NULL);
    hky_json_z(out, "id", id);
    hky_json_str(out, "rcpt", hky_recipient_address(r));
    hky_json_str(out, "recipient", hky_recipient_address(r)); /* the older name of "rcpt", kept for scripts */
    add_fact(out, "sender", r, HKY_FACT_SENDER);
    hky_json_z(out, "state", row->state);
    hky_json_z(out, "route", r->plan != NULL ? r->plan->route : "");
    hky_json_z(out, "relay", row->relay);
    if (row->goes_by != NULL) {
        hky_json_z(out, "goes_by", row->goes_by);
        hky_json_bool(out, "by_policy", row->is_by_policy);
    }
    hky_json_uint(out, "step", r->step + 1u);
    hky_json_uint(out, "attempts", r->attempts);
    hky_json_int(out, "next_at", (row->next_at_ms + (row->waits != NULL ? 999 : 0)) / 1000);
    hky_json_z(out, "waits", row->waits != NULL ? row->waits : "");
    hky_json_bool(out, "paused_by_policy", row->is_paused_by_policy);
    hky_json_z(out, "class", has_past ? hky_class_name(r->last_class) : "");
    if (hky_recipient_n_past(r) > 0)
        hky_recipient_past(r, hky_recipient_n_past(r) - 1, &past);
    hky_json_uint(out, "code", past.code);
    hky_json_str(out, "reply", past.reply);
    add_fact(out, "scenario", r, HKY_FACT_SCENARIO);
    hky_json_int(out, "age_sec", (row->now_ms - r->message->accepted_at_ms) / 1000);
    hky_json_int(out, "expire_at", r->expire_at_ms / 1000);
    hky_json_z(out, "reason", row->reason != NULL ? row->reason : "");
    if (is_story)
        add_story(out, r);
    hky_json_end_object(out);
}

void hky_render_queue(const void *queue_answer, struct hky_json *out)
{
    const struct hky_queue_answer *a = queue_answer;

    hky_json_uint(out, "n", a->n);
    if (a->n_kept > 0)
        hky_json_uint(out, "kept", a->n_kept);
    if (a->n_held > 0)
        hky_json_uint(out, "held", a->n_held);
    if (a->n_due > 0)
        hky_json_uint(out, "due", a->n_due);
    if (a->n_late > 0)
        hky_json_uint(out, "late", a->n_late);
    if (a->n_used_up > 0)
        hky_json_uint(out, "used_up", a->n_used_up);
    if (a->n_spent > 0)
        hky_json_uint(out, "spent", a->n_spent);
    if (a->n_where_failed > 0) {
        hky_json_uint(out, "where_failed", a->n_where_failed);
        hky_json_z(out, "where_error", a->where_error);
    }
    hky_json_z(out, "timezone", a->timezone);
    hky_json_made(out, "rows", a->rows);
}
