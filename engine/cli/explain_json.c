/* `explain --json`: one object. */
#include "base/json.h"
#include "cli/explain.h"

#include <stdio.h>

#define OUTPUT_MAX (4U << 20)

static void key_sec(struct hky_json *out, const char *name, uint32_t sec)
{
    if (sec == HKY_UNSET_SEC)
        hky_json_null(out, name);
    else
        hky_json_uint(out, name, sec);
}

/* False: the step is skipped, or its relay is unknown. */
static bool identity_of(const struct explain_case *c, uint8_t step, struct hky_identity *id)
{
    const struct hky_plan *plan = c->recipient->plan;
    const struct hky_relay *relay = explain_relay(c, step);

    *id = (struct hky_identity){0};
    if (relay == NULL)
        return false;
    hky_identity_choose(c->policy, relay, plan, step, c->message, c->recipient, id);
    return id->is_allowed;
}

static void add_on(struct hky_json *out, uint64_t on)
{
    if (on == 0) {
        hky_json_null(out, "on");
        return;
    }
    hky_json_begin_array(out, "on");
    for (unsigned k = 0; k < HKY_CLASS_N; k++)
        if ((on & HKY_CLASS_BIT(k)) != 0)
            hky_json_z(out, NULL, hky_class_name((enum hky_class)k));
    hky_json_end_array(out);
}

static void add_step(const struct explain_case *c, uint8_t i, struct hky_json *out)
{
    const struct hky_step *s = &c->recipient->plan->steps[i];
    struct hky_identity id;
    bool can = identity_of(c, i, &id);

    hky_json_begin_object(out, NULL);
    hky_json_uint(out, "step", i + 1U);
    hky_json_z(out, "relay", explain_relay_name(c, i));
    if (strcmp(explain_relay_name(c, i), s->relay) != 0)
        hky_json_z(out, "instead_of", s->relay);
    hky_json_z(out, "account", s->account);
    hky_json_z(out, "from", can ? id.from : NULL);
    hky_json_z(out, "sender", can ? id.sender : NULL);
    add_on(out, s->on);
    if (s->tries == 0)
        hky_json_null(out, "tries");
    else
        hky_json_uint(out, "tries", s->tries);
    key_sec(out, "within", s->within_sec);
    key_sec(out, "wait", s->wait_sec);
    hky_json_null(out, "eta"); /* only a running engine knows the queue */
    hky_json_end_object(out);
}

static void add_arms(const struct explain_case *c, struct hky_json *out)
{
    struct hky_str packed = hky_str_of(c->explanation.decision.arms, c->explanation.decision.arms_n), experiment, arm;
    size_t at = 0;

    hky_json_begin_object(out, "arms");
    while (packed.p != NULL && hky_packed_next(packed, &at, &experiment) && hky_packed_next(packed, &at, &arm)) {
        hky_json_key(out, experiment);
        hky_json_str(out, NULL, arm);
    }
    hky_json_end_object(out);
}

static void add_decision(const struct explain_case *c, struct hky_json *out)
{
    const struct hky_plan *plan = c->recipient->plan;
    struct hky_identity id = {0};
    bool can = plan != NULL && identity_of(c, c->first.step, &id);

    hky_json_z(out, "route", plan != NULL ? plan->route : NULL);
    hky_json_z(out, "file", plan != NULL ? plan->file : c->explanation.decision.place.file);
    hky_json_uint(out, "line", plan != NULL ? plan->line : c->explanation.decision.place.line);
    add_arms(c, out);
    bool is_undecided = c->explanation.decision.kind == HKY_UNANSWERED;
    hky_json_z(out, "parked", plan != NULL || is_undecided ? NULL : c->explanation.decision.text);
    if (is_undecided)
        hky_json_z(out, "undecided", c->explanation.decision.text);
    hky_json_z(out, "from", can ? id.from : NULL);
    hky_json_z(out, "sender", can ? id.sender : NULL);
    hky_json_begin_array(out, "limits");
    hky_json_end_array(out);
    hky_json_begin_array(out, "plan");
    for (uint8_t i = 0; plan != NULL && i < plan->n_steps; i++)
        add_step(c, i, out);
    hky_json_end_array(out);
    hky_json_begin_array(out, "resend");
    hky_json_end_array(out);
}

static void add_considered(const struct explain_case *c, struct hky_json *out)
{
    hky_json_begin_array(out, "considered");
    for (size_t i = 0; i < c->explanation.n_considered; i++) {
        const struct hky_considered *one = &c->explanation.considered[i];

        hky_json_begin_object(out, NULL);
        hky_json_z(out, "route", one->route);
        hky_json_bool(out, "matched", one->matched);
        hky_json_z(out, "why", one->why);
        hky_json_end_object(out);
    }
    hky_json_end_array(out);
}

static const char *action_name(enum hky_action a)
{
    static const char *const names[] = {"none", "retry", "next", "fail", "hold", "done"};

    return (unsigned)a < sizeof names / sizeof *names ? names[a] : "none";
}

/* Only with --after. */
static void add_after(const struct explain_case *c, struct hky_json *out)
{
    hky_json_begin_array(out, "after");
    for (size_t i = 0; i < c->n_after; i++) {
        const struct explain_after *a = &c->after[i];

        hky_json_begin_object(out, NULL);
        hky_json_z(out, "relay", a->relay);
        hky_json_z(out, "stage", hky_stage_name(a->outcome.stage));
        hky_json_z(out, "class", hky_class_name(a->outcome.class));
        hky_json_z(out, "scope", hky_scope_name(a->outcome.scope));
        hky_json_z(out, "action", action_name(a->advance.action));
        hky_json_uint(out, "step", a->advance.step + 1U);
        hky_json_int(out, "in", a->advance.at_ms > a->at_ms ? (a->advance.at_ms - a->at_ms) / 1000 : 0);
        hky_json_z(out, "why", a->advance.why);
        hky_json_end_object(out);
    }
    hky_json_end_array(out);
}

/* Only where the plan fails; null: nobody gets a failure notice. */
static void add_notice(const struct explain_case *c, struct hky_json *out)
{
    const struct hky_message *m = c->rehearsal.last_notice;
    const struct hky_recipient *r = m != NULL ? &m->recipients[0] : NULL;

    if (m == NULL) {
        hky_json_null(out, "notice");
        return;
    }
    hky_json_begin_object(out, "notice");
    hky_json_str(out, "to", hky_recipient_address(r));
    hky_json_int(out, "at", m->accepted_at_ms / 1000);
    hky_json_z(out, "route", r->plan != NULL ? r->plan->route : NULL);
    hky_json_z(out, "relay", r->plan != NULL ? r->plan->steps[0].relay : NULL);
    hky_json_end_object(out);
}

void explain_print_json(const struct explain_case *c)
{
    struct hky_buf text;
    struct hky_json out = hky_json_to(&text);

    hky_buf_init(&text, OUTPUT_MAX);
    hky_json_begin_object(&out, NULL);
    hky_json_str(&out, "recipient", hky_recipient_address(c->recipient));
    add_decision(c, &out);
    add_considered(c, &out);
    if (c->explanation.mail_hosts[0] != '\0')
        hky_json_z(&out, "mail_hosts", c->explanation.mail_hosts);
    if (c->n_after > 0)
        add_after(c, &out);
    if (c->state == HKY_ACTION_FAIL && c->is_rehearsing)
        add_notice(c, &out);
    hky_json_end_object(&out);
    puts(hky_buf_z(&text));
    hky_buf_fini(&text);
}
