/*
 * fake -- what stands around the schedule in its tests beside the rehearsal: a policy of named relays, an identity that
 * may be refused.
 */
#ifndef HKY_TESTS_SCHEDULE_FAKE_H
#define HKY_TESTS_SCHEDULE_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hikyaku/rehearse.h"

#define MINUTE INT64_C(60000)
#define HOUR   (60 * MINUTE)

#define FAKE_RELAYS_MAX 8
struct fake_policy {
    struct hky_policy policy; /* first */
    struct hky_relay relays[FAKE_RELAYS_MAX];
};

static const char *const fake_everyone[] = {"*", NULL};

static inline void fake_policy_init(struct fake_policy *f, uint64_t hash)
{
    memset(f, 0, sizeof *f);
    f->policy.refs = 1;
    f->policy.hash = hash;
    f->policy.relays = f->relays;
    f->policy.engine.retry = (struct hky_retry){4, {300, 900, 3600, 14400}};
    f->policy.engine.expire_sec = 2 * 86400;
    f->policy.engine.parked_sec = 7 * 86400;
}

/* "name" or "name!" for a relay that can send as nobody. */
static inline struct hky_relay *fake_relay(struct fake_policy *f, const char *name)
{
    struct hky_relay *r = &f->relays[f->policy.n_relays];
    *r = (struct hky_relay){.name = name,
                            .index = f->policy.n_relays++,
                            .preset = "",
                            .host = "relay.example",
                            .user = "",
                            .from = "",
                            .sends_as = fake_everyone,
                            .envelope = "",
                            .connections = 10,
                            .messages_per_connection = 100,
                            .recipients_per_message = 50,
                            .hello = "",
                            .source = "",
                            .instead = "",
                            .account = name};
    return r;
}

static inline void fake_cap(struct hky_relay *r, const char *text, uint32_t n, uint32_t window_sec, bool of_recipients)
{
    r->caps[r->n_caps++] = (struct hky_cap){n, window_sec, of_recipients, window_sec <= 3600, text};
}

static inline struct hky_step fake_step(const char *relay)
{
    return (struct hky_step){.relay = relay, .account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
}

static inline struct hky_plan *fake_plan(const struct hky_step *steps, unsigned n)
{
    static const struct hky_plan EMPTY;
    struct hky_plan *draft = malloc(sizeof *draft), *out = NULL;
    struct hky_error e;
    *draft = EMPTY;
    draft->route = "test";
    draft->file = "policy.lua";
    draft->dsn = HKY_DSN_UNSET;
    draft->expire_sec = HKY_UNSET_SEC;
    draft->n_steps = (uint8_t)n;
    memcpy(draft->steps, steps, n * sizeof *steps);
    assert_int_equal(hky_plan_new(draft, &out, &e), HKY_OK);
    free(draft);
    return out;
}

static inline struct hky_message *fake_message(uint64_t id, int64_t at_ms, const char *scenario, unsigned n,
                                               const char *const *to)
{
    struct hky_rcpt_draft rcpts[64];
    assert_true(n <= 64);
    for (unsigned i = 0; i < n; i++)
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_z(to[i])};
    struct hky_message_draft d = {
        .id = id, .accepted_at_ms = at_ms, .size = 4096, .header_octets = 200, .recipients = rcpts, .n_recipients = n};
    d.facts[HKY_FACT_SENDER] = HKY_STR("news@shop.example");
    d.facts[HKY_FACT_AUTHOR] = HKY_STR("news@shop.example");
    d.facts[HKY_FACT_SCENARIO] = hky_str_z(scenario);
    return hky_message_new(&d);
}

static inline struct hky_outcome fake_outcome(enum hky_class class, bool is_temporary)
{
    struct hky_outcome o = {.class = class, .is_temporary = is_temporary, .stage = HKY_STAGE_RCPT};
    if (class == HKY_CLASS_NETWORK)
        o.stage = HKY_STAGE_CONNECT;
    else
        o.reply.code = class == HKY_CLASS_OK ? 250 : is_temporary ? 451 : 550;
    strcpy(o.reply.text, "said so");
    o.reply.n = 7;
    return o;
}

/* ---- stand-ins for other stages ---- */

struct hky_policy *hky_policy_ref(struct hky_policy *p)
{
    __atomic_add_fetch(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

void hky_policy_unref(struct hky_policy **p)
{
    if (*p != NULL) {
        __atomic_sub_fetch(&(*p)->refs, 1, __ATOMIC_ACQ_REL);
        *p = NULL;
    }
}

const struct hky_relay *hky_policy_relay(const struct hky_policy *p, struct hky_str name)
{
    for (uint32_t i = 0; i < p->n_relays; i++)
        if (hky_str_eq(hky_str_z(p->relays[i].name), name))
            return &p->relays[i];
    return NULL;
}

void hky_identity_choose(const struct hky_policy *policy, const struct hky_relay *relay, const struct hky_plan *plan,
                         uint8_t step, const struct hky_message *message, const struct hky_recipient *recipient,
                         struct hky_identity *out)
{
    (void)policy, (void)recipient;
    const char *from = plan->steps[step].from;
    struct hky_str author = hky_message_fact(message, HKY_FACT_AUTHOR);
    bool is_its_own = relay->sends_as == fake_everyone || hky_str_iends(author, hky_str_z(relay->sends_as[0]));
    out->is_allowed = is_its_own && !(relay->never_rewrite || (from != NULL && from[0] == '\0'));
    out->is_rewritten = false;
    snprintf(out->from, sizeof out->from, "%.*s", HKY_STR_ARG(author));
    snprintf(out->sender, sizeof out->sender, "%.*s", HKY_STR_ARG(author));
    out->reply_to[0] = '\0';
    out->reply_to_forced = false;
}

#endif
