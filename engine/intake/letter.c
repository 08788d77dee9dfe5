/* One message while it is handed in: its envelope, its octets, and what both become. */
#include "intake/content.h"

#include "base/hash.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"

#include <stdio.h>
#include <stdlib.h>

struct rcpt {
    uint32_t at; /* in the arena: address, orcpt */
    uint16_t n, orcpt_n;
    uint8_t notify;
    uint32_t hash; /* of the address with ASCII case ignored */
};

struct hky_letter {
    struct hky_letter_params p;
    struct hky_buf arena; /* sender, ENVID, recipients */
    uint32_t sender_n, envid_n;
    struct rcpt *rcpts, few_rcpts[2]; /* most messages have one */
    uint32_t n_rcpts, cap_rcpts;
    enum hky_ret ret;
    bool is_smtputf8, needs_smtputf8, has_content;
    char source[16], client[46];
    struct hky_str hello; /* in the arena, behind all else */
    bool has_trace;       /* a Received field of ours */
    struct intake_content content;
};

struct hky_letter *hky_letter_new(const struct hky_letter_params *p)
{
    struct hky_letter *l = hky_calloc(1, sizeof *l);

    l->p = *p;
    hky_buf_init(&l->arena, 2048 + (size_t)p->policy->engine.bounds.recipients * (HKY_ADDRESS_MAX + 512));
    hky_buf_reserve(&l->arena, 240);
    l->rcpts = l->few_rcpts;
    l->cap_rcpts = sizeof l->few_rcpts / sizeof l->few_rcpts[0];
    return l;
}

void hky_letter_free(struct hky_letter **pl)
{
    struct hky_letter *l = *pl;

    if (l == NULL)
        return;
    if (l->has_content)
        intake_content_fini(&l->content);
    hky_buf_fini(&l->arena);
    if (l->rcpts != l->few_rcpts)
        free(l->rcpts);
    free(l);
    *pl = NULL;
}

/* --- the envelope --- */

bool hky_letter_set_sender(struct hky_letter *l, const struct hky_letter_sender *s, struct hky_refusal *r)
{
    uint64_t max = l->p.policy->engine.max_message;

    if (s->size > max) {
        hky_refusal_set(r, 552, "5.3.4", "message too big, at most %llu octets", (unsigned long long)max);
        return false;
    }
    if (s->address.n > 0 && !hky_user_may_send_as(l->p.user, s->address)) {
        hky_refusal_set(r, 553, "5.7.1", "login %.60s may not send as this address", l->p.user->name);
        return false;
    }
    hky_buf_add_str(&l->arena, s->address);
    hky_buf_add_str(&l->arena, s->envid);
    l->sender_n = (uint32_t)s->address.n;
    l->envid_n = (uint32_t)s->envid.n;
    l->ret = s->ret;
    l->is_smtputf8 = s->is_smtputf8;
    l->needs_smtputf8 = s->is_utf8;
    return true;
}

struct hky_str hky_letter_sender(const struct hky_letter *l)
{
    return hky_str_of(l->arena.p != NULL ? l->arena.p : "", l->sender_n);
}

uint32_t hky_letter_n_recipients(const struct hky_letter *l)
{
    return l->n_rcpts;
}

static uint32_t hash_address(struct hky_str a)
{
    char lower[HKY_ADDRESS_MAX];
    size_t n = a.n < sizeof lower ? a.n : sizeof lower;

    for (size_t i = 0; i < n; i++)
        lower[i] = hky_lower(a.p[i]);
    return (uint32_t)hky_hash64(lower, n, 0);
}

static bool has_rcpt(const struct hky_letter *l, struct hky_str address, uint32_t hash)
{
    for (uint32_t i = 0; i < l->n_rcpts; i++)
        if (l->rcpts[i].hash == hash && hky_address_eq(hky_str_of(l->arena.p + l->rcpts[i].at, l->rcpts[i].n), address))
            return true;
    return false;
}

bool hky_letter_add_recipient(struct hky_letter *l, const struct hky_letter_rcpt *to, struct hky_refusal *r)
{
    const struct hky_engine_options *engine = &l->p.policy->engine;
    char postmaster[HKY_ADDRESS_MAX + 1];
    struct hky_str address = to->address;

    if (memchr(address.p, '@', address.n) == NULL) {
        int n = snprintf(postmaster, sizeof postmaster, "%.*s@%s", HKY_STR_ARG(address), engine->hostname);
        address = hky_str_of(postmaster, n < (int)sizeof postmaster ? (size_t)n : sizeof postmaster - 1);
    }
    if (to->is_utf8 && !l->is_smtputf8) {
        hky_refusal_set(r, 553, "5.6.7", "this address needs SMTPUTF8 in MAIL");
        return false;
    }
    uint32_t hash = hash_address(address);
    if (has_rcpt(l, address, hash))
        return true;
    if (l->n_rcpts >= engine->bounds.recipients && !l->p.is_notice) {
        hky_refusal_set(r, 452, "4.5.3", "too many recipients, at most %u a message", engine->bounds.recipients);
        return false;
    }
    if (l->n_rcpts == l->cap_rcpts) {
        l->cap_rcpts *= 2;
        l->rcpts = hky_realloc(l->rcpts == l->few_rcpts ? NULL : l->rcpts, l->cap_rcpts * sizeof *l->rcpts);
        if (l->n_rcpts == sizeof l->few_rcpts / sizeof l->few_rcpts[0])
            memcpy(l->rcpts, l->few_rcpts, sizeof l->few_rcpts);
    }
    l->rcpts[l->n_rcpts++] = (struct rcpt){.at = (uint32_t)l->arena.n,
                                           .n = (uint16_t)address.n,
                                           .orcpt_n = (uint16_t)to->orcpt.n,
                                           .notify = to->notify,
                                           .hash = hash};
    hky_buf_add_str(&l->arena, address);
    hky_buf_add_str(&l->arena, to->orcpt);
    HKY_ASSERT(!l->arena.is_over);
    l->needs_smtputf8 = l->needs_smtputf8 || to->is_utf8;
    return true;
}

/* --- the octets --- */

/* RFC 5321 4.4, RFC 3848. Octets of the client's name that could break a header field are replaced. */
static void trace_field(const struct hky_letter *l, const struct hky_letter_origin *o, struct hky_buf *out)
{
    char hello[256], id[HKY_ID_TEXT], date[40];
    const struct rcpt *only = l->n_rcpts == 1 ? &l->rcpts[0] : NULL;
    size_t n = 0;

    for (const char *p = o->hello; *p != '\0' && n < sizeof hello - 1; p++)
        hello[n++] = *p > ' ' && *p < 0x7f && strchr("()<>@,;\\\"", *p) == NULL ? *p : '?';
    hello[n] = '\0';
    hky_id_format(l->p.id, id);
    hky_date_format(l->p.now_ms, 0, date);
    hky_buf_add_z(out, "Received: from ");
    hky_buf_add_z(out, hello);
    hky_buf_add_z(out, strchr(o->client, ':') != NULL ? " ([IPv6:" : " ([");
    hky_buf_add_z(out, o->client);
    hky_buf_add_z(out, "])\r\n\tby ");
    hky_buf_add_z(out, l->p.policy->engine.hostname);
    hky_buf_add_z(out, " with ");
    hky_buf_add_z(out, o->with);
    hky_buf_add_z(out, " id ");
    hky_buf_add_z(out, id);
    if (only != NULL && only->n < 200) {
        hky_buf_add_z(out, "\r\n\tfor <");
        hky_address_format(hky_str_of(l->arena.p + only->at, only->n), false, out);
        hky_buf_add_c(out, '>');
    }
    hky_buf_add_z(out, ";\r\n\t");
    hky_buf_add_z(out, date);
    hky_buf_add_z(out, "\r\n");
}

static struct hky_str add_hello(struct hky_letter *l, struct hky_str hello)
{
    size_t at = l->arena.n;

    l->arena.max += hello.n; /* the client's name has no bound of its own here */
    hky_buf_add_str(&l->arena, hello);
    HKY_ASSERT(!l->arena.is_over);
    return hky_str_of(l->arena.p + at, hello.n);
}

void hky_letter_begin(struct hky_letter *l, const struct hky_letter_origin *origin, uint64_t hint)
{
    const struct hky_engine_options *engine = &l->p.policy->engine;
    const struct hky_bounds *bounds = &engine->bounds;
    struct hky_buf trace;
    char space[600];

    HKY_ASSERT(!l->has_content);
    l->has_trace = origin->with != NULL;
    hky_str_put(l->source, l->source + sizeof l->source, hky_str_z(origin->source));
    hky_str_put(l->client, l->client + sizeof l->client, hky_str_z(origin->client));
    l->hello = add_hello(l, hky_str_z(origin->hello));
    l->content = (struct intake_content){
        .max_message = l->p.is_notice ? UINT64_MAX : engine->max_message,
        .section = {.id = l->p.id,
                    .now_ms = l->p.now_ms,
                    .hostname = engine->hostname,
                    .header_octets = l->p.is_notice ? HKY_HEADER_MOST : bounds->header_octets,
                    .header_lines = l->p.is_notice ? UINT32_MAX : bounds->header_lines,
                    .received = l->p.is_notice ? UINT32_MAX : bounds->received,
                    .is_trusted = l->p.is_trusted},
        .big_ops = l->p.big,
    };
    hky_buf_init_in(&trace, space, sizeof space, 4096);
    if (l->has_trace)
        trace_field(l, origin, &trace);
    intake_content_init(&l->content, hint, hky_buf_str(&trace));
    l->has_content = true;
    hky_buf_fini(&trace);
}

bool hky_letter_has_begun(const struct hky_letter *l)
{
    return l->has_content;
}

size_t hky_letter_add_data(struct hky_letter *l, const char *p, size_t n, bool *is_end)
{
    return intake_content_dots(&l->content, p, n, is_end);
}

size_t hky_letter_add_octets(struct hky_letter *l, const char *p, size_t n)
{
    return intake_content_chunk(&l->content, p, n);
}

bool hky_letter_was_full(struct hky_letter *l)
{
    bool is_full = l->content.is_full;

    l->content.is_full = false;
    return is_full;
}

const struct hky_refusal *hky_letter_refusal(const struct hky_letter *l)
{
    return l->has_content && l->content.refusal.code != 0 ? &l->content.refusal : NULL;
}

/* --- the end --- */

static bool is_limited(const struct hky_user *user)
{
    for (const char *const *z = user != NULL ? user->senders : NULL; z != NULL && *z != NULL; z++)
        if (strcmp(*z, "*") == 0)
            return false;
    return user != NULL && user->senders != NULL;
}

/* How the name in this From becomes one that all programs read alike. Quotes do not help raw Japanese: programs that do
 * not know it take half of a character for their end. */
static const char *cure_of(struct hky_str from)
{
    bool is_raw = !hky_utf8_is_valid(from) || memchr(from.p, '\x1b', from.n) != NULL;

    return is_raw ? "encode its name (RFC 2047)" : "quote or encode its name";
}

/* The header section leaves as it came: a From in which the recipient's program could find somebody else is refused. */
static void check_author(const struct hky_letter *l, struct hky_refusal *r)
{
    const struct intake_facts *f = &l->content.facts;
    const struct hky_user *user = l->p.user;
    struct hky_field from;
    struct hky_address author;

    if (!is_limited(user))
        return;
    if (f->n_from != 1 || f->n_authors != 1 || !hky_field_find(intake_content_header(&l->content), "From", &from))
        hky_refusal_set(r, 550, "5.7.1", "login %.40s sends with one From of one address", user->name);
    else if (!hky_author_is_clear(from.value, &author))
        hky_refusal_set(r, 550, "5.7.1", "login %.30s: other programs may find another address in this From; %s",
                        user->name, cure_of(from.value));
    else if (!hky_user_may_send_as(user, hky_address_str(&author)))
        hky_refusal_set(r, 550, "5.7.1", "login %.40s may not send with this From", user->name);
}

static void fill_facts(const struct hky_letter *l, struct hky_str scenario, struct hky_str facts[HKY_FACT_N])
{
    const struct intake_facts *f = &l->content.facts;

    for (int k = 0; k < HKY_FACT_N; k++)
        facts[k] = intake_facts_get(f, (enum hky_fact)k);
    facts[HKY_FACT_SENDER] = hky_letter_sender(l);
    facts[HKY_FACT_ENVID] = hky_str_of(l->arena.p != NULL ? l->arena.p + l->sender_n : "", l->envid_n);
    facts[HKY_FACT_USER] = hky_str_z(l->p.user != NULL ? l->p.user->name : "");
    facts[HKY_FACT_CLIENT] = hky_str_z(l->client);
    facts[HKY_FACT_HELLO] = l->hello;
    facts[HKY_FACT_TAGS] = hky_buf_str(&f->tags);
    facts[HKY_FACT_VARS] = hky_buf_str(&f->vars);
    facts[HKY_FACT_SCENARIO] = scenario;
    if (facts[HKY_FACT_SOURCE].n == 0)
        facts[HKY_FACT_SOURCE] = hky_str_z(l->source);
}

static struct hky_message *make_message(const struct hky_letter *l, struct hky_str scenario)
{
    const struct intake_content *content = &l->content;
    const struct intake_facts *f = &content->facts;
    struct hky_rcpt_draft few[8], *rcpts = few;
    uint32_t n_received = f->n_received + (l->has_trace ? 1 : 0);
    struct hky_message_draft draft = {
        .id = l->p.id,
        .accepted_at_ms = l->p.now_ms,
        .deadline_ms = f->deadline_ms,
        .size = content->flushed + content->buf.n,
        .header_octets = content->header_n,
        .is_8bit = content->lines.has_8bit,
        .is_smtputf8 = l->is_smtputf8 && (l->needs_smtputf8 || f->has_8bit),
        .is_notice = l->p.is_notice,
        .is_big = content->big != NULL,
        .ret = l->ret,
        .n_received = (uint16_t)(n_received > UINT16_MAX ? UINT16_MAX : n_received),
        .n_recipients = l->n_rcpts,
    };

    fill_facts(l, scenario, draft.facts);
    if (l->n_rcpts > sizeof few / sizeof few[0])
        rcpts = hky_alloc(l->n_rcpts * sizeof *rcpts);
    for (uint32_t i = 0; i < l->n_rcpts; i++) {
        const struct rcpt *r = &l->rcpts[i];
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_of(l->arena.p + r->at, r->n),
                                           .orcpt = hky_str_of(l->arena.p + r->at + r->n, r->orcpt_n),
                                           .notify = r->notify};
    }
    draft.recipients = rcpts;
    struct hky_message *m = hky_message_new(&draft);
    if (rcpts != few)
        free(rcpts);
    return m;
}

struct hky_str hky_letter_unknown_fields(const struct hky_letter *l)
{
    return hky_buf_str(&l->content.facts.unknown);
}

/* The buffer becomes the body; it is cut down only when it is much too large. */
static void give_body(struct hky_message *m, struct intake_content *content)
{
    size_t cap = content->buf.cap, n = 0;
    char *p = hky_buf_take(&content->buf, &n);

    if (cap > 2 * n + 4096) {
        p = hky_realloc(p, n);
        cap = n;
    }
    m->body = hky_body_new(p, n, cap);
    m->body->has_no_dot_lines = !content->lines.may_have_dot_lines;
}

bool hky_letter_end(struct hky_letter *l, struct hky_handed_in *out, struct hky_refusal *r)
{
    struct intake_content *content = &l->content;
    struct hky_str scenario = HKY_STR("");

    intake_content_end(content);
    *r = content->refusal;
    if (r->code == 0)
        check_author(l, r);
    if (r->code == 0)
        (void)hky_user_scenario(l->p.user, intake_facts_get(&content->facts, HKY_FACT_SCENARIO), &scenario, r);
    if (r->code != 0)
        return false;
    *out = (struct hky_handed_in){.message = make_message(l, scenario), .big = content->big};
    out->header = intake_content_header(content);
    content->big = NULL;
    if (out->big == NULL) {
        give_body(out->message, content);
        out->header.p = out->message->body->p;
    }
    return true;
}
