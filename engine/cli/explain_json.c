/* `explain --json`: one object. */
#include "cli/explain.h"

#include <stdio.h>

#define OUTPUT_MAX (4U << 20)

static void key(struct hky_buf *out, const char *name)
{
    if (out->n > 0 && out->p[out->n - 1] != '{')
        hky_buf_add_c(out, ',');
    hky_buf_add_json(out, hky_str_z(name));
    hky_buf_add_c(out, ':');
}

static void key_z(struct hky_buf *out, const char *name, const char *value)
{
    key(out, name);
    if (value == NULL)
        hky_buf_add_z(out, "null");
    else
        hky_buf_add_json(out, hky_str_z(value));
}

static void key_sec(struct hky_buf *out, const char *name, uint32_t sec)
{
    key(out, name);
    if (sec == HKY_UNSET_SEC)
        hky_buf_add_z(out, "null");
    else
        hky_buf_printf(out, "%u", sec);
}

/* False: the step is passed over, or its relay is unknown. */
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

static void add_on(struct hky_buf *out, uint64_t on)
{
    bool is_first = true;

    key(out, "on");
    if (on == 0) {
        hky_buf_add_z(out, "null");
        return;
    }
    hky_buf_add_c(out, '[');
    for (unsigned k = 0; k < HKY_CLASS_N; k++) {
        if ((on & HKY_CLASS_BIT(k)) == 0)
            continue;
        if (!is_first)
            hky_buf_add_c(out, ',');
        is_first = false;
        hky_buf_add_json(out, hky_str_z(hky_class_name((enum hky_class)k)));
    }
    hky_buf_add_c(out, ']');
}

static void add_step(const struct explain_case *c, uint8_t i, struct hky_buf *out)
{
    const struct hky_step *s = &c->recipient->plan->steps[i];
    struct hky_identity id;
    bool can = identity_of(c, i, &id);

    hky_buf_add_z(out, i > 0 ? ",{" : "{");
    key(out, "step");
    hky_buf_printf(out, "%u", i + 1U);
    key_z(out, "relay", explain_relay_name(c, i));
    if (strcmp(explain_relay_name(c, i), s->relay) != 0)
        key_z(out, "instead_of", s->relay);
    key_z(out, "account", s->account);
    key_z(out, "from", can ? id.from : NULL);
    key_z(out, "sender", can ? id.sender : NULL);
    add_on(out, s->on);
    key(out, "tries");
    if (s->tries == 0)
        hky_buf_add_z(out, "null");
    else
        hky_buf_printf(out, "%u", s->tries);
    key_sec(out, "within", s->within_sec);
    key_sec(out, "wait", s->wait_sec);
    key_z(out, "eta", NULL); /* only a running engine knows the queue */
    hky_buf_add_c(out, '}');
}

static void add_arms(const struct explain_case *c, struct hky_buf *out)
{
    struct hky_str packed = hky_str_of(c->explanation.decision.arms, c->explanation.decision.arms_n), experiment, arm;
    size_t at = 0;

    key(out, "arms");
    hky_buf_add_c(out, '{');
    while (packed.p != NULL && hky_packed_next(packed, &at, &experiment) && hky_packed_next(packed, &at, &arm)) {
        if (out->p[out->n - 1] != '{')
            hky_buf_add_c(out, ',');
        hky_buf_add_json(out, experiment);
        hky_buf_add_c(out, ':');
        hky_buf_add_json(out, arm);
    }
    hky_buf_add_c(out, '}');
}

static void add_decision(const struct explain_case *c, struct hky_buf *out)
{
    const struct hky_plan *plan = c->recipient->plan;
    struct hky_identity id = {0};
    bool can = plan != NULL && identity_of(c, c->first.step, &id);

    key_z(out, "route", plan != NULL ? plan->route : NULL);
    key_z(out, "file", plan != NULL ? plan->file : c->explanation.decision.place.file);
    key(out, "line");
    hky_buf_printf(out, "%u", plan != NULL ? plan->line : c->explanation.decision.place.line);
    add_arms(c, out);
    key_z(out, "parked", plan != NULL ? NULL : c->explanation.decision.text);
    key_z(out, "from", can ? id.from : NULL);
    key_z(out, "sender", can ? id.sender : NULL);
    key(out, "limits");
    hky_buf_add_z(out, "[]");
    key(out, "plan");
    hky_buf_add_c(out, '[');
    for (uint8_t i = 0; plan != NULL && i < plan->n_steps; i++)
        add_step(c, i, out);
    hky_buf_add_c(out, ']');
    key(out, "resend");
    hky_buf_add_z(out, "[]");
}

static void add_considered(const struct explain_case *c, struct hky_buf *out)
{
    key(out, "considered");
    hky_buf_add_c(out, '[');
    for (size_t i = 0; i < c->explanation.n_considered; i++) {
        const struct hky_considered *one = &c->explanation.considered[i];

        hky_buf_add_z(out, i > 0 ? ",{" : "{");
        key_z(out, "route", one->route);
        key(out, "matched");
        hky_buf_add_z(out, one->matched ? "true" : "false");
        key_z(out, "why", one->why);
        hky_buf_add_c(out, '}');
    }
    hky_buf_add_c(out, ']');
}

static const char *action_name(enum hky_action a)
{
    static const char *const names[] = {"none", "retry", "next", "fail", "hold", "done"};

    return (unsigned)a < sizeof names / sizeof *names ? names[a] : "none";
}

/* Only where --after was said. */
static void add_after(const struct explain_case *c, struct hky_buf *out)
{
    key(out, "after");
    hky_buf_add_c(out, '[');
    for (size_t i = 0; i < c->n_after; i++) {
        const struct explain_after *a = &c->after[i];

        hky_buf_add_z(out, i > 0 ? ",{" : "{");
        key_z(out, "relay", a->relay);
        key_z(out, "stage", hky_stage_name(a->outcome.stage));
        key_z(out, "class", hky_class_name(a->outcome.class));
        key_z(out, "scope", hky_scope_name(a->outcome.scope));
        key_z(out, "action", action_name(a->advance.action));
        key(out, "step");
        hky_buf_printf(out, "%u", a->advance.step + 1U);
        key(out, "in");
        hky_buf_printf(out, "%lld",
                       a->advance.at_ms > a->at_ms ? (long long)(a->advance.at_ms - a->at_ms) / 1000 : 0LL);
        key_z(out, "why", a->advance.why);
        hky_buf_add_c(out, '}');
    }
    hky_buf_add_c(out, ']');
}

void explain_print_json(const struct explain_case *c)
{
    struct hky_buf out;

    hky_buf_init(&out, OUTPUT_MAX);
    hky_buf_add_c(&out, '{');
    key(&out, "recipient");
    hky_buf_add_json(&out, hky_recipient_address(c->recipient));
    add_decision(c, &out);
    add_considered(c, &out);
    if (c->n_after > 0)
        add_after(c, &out);
    hky_buf_add_c(&out, '}');
    puts(hky_buf_z(&out));
    hky_buf_fini(&out);
}
