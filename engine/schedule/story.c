/*
 * The whole story of one recipient, for an operator who asks for it: what the message is, the plan, every attempt kept.
 */
#include "internal.h"

#include <stdio.h>

static void add_text(struct hky_buf *b, const char *key, struct hky_str value)
{
    hky_buf_printf(b, ",\"%s\":", key);
    hky_buf_add_json(b, value);
}

static void add_fact(struct hky_buf *b, const char *key, const struct hky_recipient *r, enum hky_fact fact)
{
    add_text(b, key, hky_message_fact(r->message, fact));
}

static void add_message(struct hky_buf *b, const struct hky_recipient *r)
{
    const struct hky_message *m = r->message;
    add_fact(b, "author", r, HKY_FACT_AUTHOR);
    add_fact(b, "author_name", r, HKY_FACT_AUTHOR_NAME);
    add_fact(b, "subject", r, HKY_FACT_SUBJECT);
    add_fact(b, "message_id", r, HKY_FACT_MESSAGE_ID);
    add_fact(b, "ref", r, HKY_FACT_REF);
    add_fact(b, "user", r, HKY_FACT_USER);
    add_fact(b, "client", r, HKY_FACT_CLIENT);
    add_fact(b, "source", r, HKY_FACT_SOURCE);
    hky_buf_printf(b, ",\"size\":%llu,\"accepted_at\":%lld,\"tags\":[", (unsigned long long)m->size,
                   (long long)(m->accepted_at_ms / 1000));
    struct hky_str tags = hky_message_fact(m, HKY_FACT_TAGS), tag;
    bool is_first = true;
    for (size_t at = 0; hky_packed_next(tags, &at, &tag); is_first = false) {
        hky_buf_add_z(b, is_first ? "" : ",");
        hky_buf_add_json(b, tag);
    }
    hky_buf_add_z(b, "],\"arms\":{");
    struct hky_str arms = hky_str_of(r->arms, r->arms != NULL ? r->arms_n : 0), arm;
    is_first = true;
    for (size_t at = 0; hky_packed_next(arms, &at, &tag) && hky_packed_next(arms, &at, &arm); is_first = false) {
        hky_buf_add_z(b, is_first ? "" : ",");
        hky_buf_add_json(b, tag);
        hky_buf_add_c(b, ':');
        hky_buf_add_json(b, arm);
    }
    hky_buf_add_c(b, '}');
}

static void add_seconds(struct hky_buf *b, const char *key, uint32_t sec)
{
    if (sec != HKY_UNSET_SEC) {
        hky_buf_printf(b, ",\"%s\":%u", key, sec);
    }
}

static void add_step(struct hky_buf *b, const struct hky_recipient *r, unsigned i)
{
    const struct hky_step *s = &r->plan->steps[i];
    hky_buf_printf(b, "{\"step\":%u,\"current\":%s", i + 1, i == r->step ? "true" : "false");
    add_text(b, "relay", hky_str_z(s->relay));
    add_text(b, "account", hky_str_z(s->account != NULL ? s->account : ""));
    hky_buf_add_z(b, ",\"on\":[");
    bool is_first = true;
    for (unsigned c = 0; c < HKY_CLASS_N; c++) {
        if ((s->on & HKY_CLASS_BIT(c)) != 0) {
            hky_buf_printf(b, "%s\"%s\"", is_first ? "" : ",", hky_class_name((enum hky_class)c));
            is_first = false;
        }
    }
    hky_buf_add_c(b, ']');
    if (s->tries != 0) {
        hky_buf_printf(b, ",\"tries\":%u", s->tries);
    }
    add_seconds(b, "within_sec", s->within_sec);
    add_seconds(b, "wait_sec", s->wait_sec);
    hky_buf_add_c(b, '}');
}

static void add_plan(struct hky_buf *b, const struct hky_plan *plan, const struct hky_recipient *r)
{
    if (plan != NULL) {
        add_text(b, "plan_file", hky_str_z(plan->file != NULL ? plan->file : ""));
        hky_buf_printf(b, ",\"plan_line\":%u", plan->line);
    }
    hky_buf_add_z(b, ",\"plan\":[");
    for (unsigned i = 0; plan != NULL && i < plan->n_steps; i++) {
        hky_buf_add_z(b, i > 0 ? "," : "");
        add_step(b, r, i);
    }
    hky_buf_add_c(b, ']');
}

static void add_attempt(struct hky_buf *b, const struct hky_past *p)
{
    char enhanced[24] = "";
    if (p->enhanced[0] != 0) {
        snprintf(enhanced, sizeof enhanced, "%u.%u.%u", p->enhanced[0], p->enhanced[1], p->enhanced_detail);
    }
    hky_buf_printf(b, "{\"at\":%lld,\"step\":%u", (long long)(p->at_ms / 1000), p->step + 1u);
    add_text(b, "relay", p->relay);
    add_text(b, "stage", hky_str_z(hky_stage_name(p->stage)));
    add_text(b, "class", hky_str_z(hky_class_name(p->class)));
    add_text(b, "scope", hky_str_z(hky_scope_name(p->scope)));
    hky_buf_printf(b, ",\"temporary\":%s,\"code\":%u,\"enhanced\":\"%s\"", p->is_temporary ? "true" : "false", p->code,
                   enhanced);
    add_text(b, "reply", p->reply);
    hky_buf_printf(b, ",\"retry_after_sec\":%u,\"latency_ms\":%u}", p->retry_after_sec, p->latency_ms);
}

void add_story(struct hky_buf *b, const struct hky_recipient *r)
{
    add_message(b, r);
    hky_buf_printf(b, ",\"step_at\":%lld", (long long)(r->step_at_ms / 1000));
    add_plan(b, r->plan, r);
    hky_buf_add_z(b, ",\"past\":[");
    for (unsigned i = 0; i < hky_recipient_n_past(r); i++) {
        struct hky_past past;
        hky_recipient_past(r, i, &past);
        hky_buf_add_z(b, i > 0 ? "," : "");
        add_attempt(b, &past);
    }
    hky_buf_add_c(b, ']');
}
