#include "accept/content.h"
#include "accept/session.h"

#include "base/hash.h"
#include "mail/dsn.h"

#include <stdio.h>
#include <stdlib.h>

#define OVERSHOOT      1000        /* recipients beyond the bound that are refused one by one, then 421 */
#define HEADER_AT_MOST (512 << 10) /* whatever engine.bounds says: the header section must fit in memory's part */

struct rcpt {
    uint32_t at; /* in the arena: address, orcpt */
    uint16_t n, orcpt_n;
    uint8_t notify;
    uint32_t hash; /* of the address with ASCII case ignored */
};

struct hky_transaction {
    uint64_t id;
    uint64_t size_hint;
    int64_t at_ms;
    struct hky_buf arena; /* sender, ENVID, recipients */
    uint32_t sender_n, envid_n;
    struct rcpt *rcpts;
    uint32_t n_rcpts, cap_rcpts, n_refused;
    uint8_t ret;
    bool is_smtputf8, needs_smtputf8, has_content;
    struct hky_content content;
};

void hky_tx_free(struct hky_session *s, struct hky_transaction **ptx)
{
    struct hky_transaction *tx = *ptx;

    if (tx == NULL)
        return;
    if (tx->has_content)
        hky_content_fini(&tx->content);
    hky_buf_fini(&tx->arena);
    free(tx->rcpts);
    free(tx);
    *ptx = NULL;
    s->waits &= (uint8_t)~HKY_WAIT_BIG;
}

/* May this login use the address? Entries are addresses, domains, ".domain" for those below it, "*". */
static bool may_use(const struct hky_user *user, struct hky_str address)
{
    struct hky_str local, domain;

    if (user == NULL || user->senders == NULL)
        return true;
    hky_address_split(address, &local, &domain);
    for (const char *const *z = user->senders; *z != NULL; z++) {
        struct hky_str entry = hky_str_z(*z);
        const char *sign = memchr(entry.p, '@', entry.n);

        if (hky_str_eq(entry, HKY_STR("*")))
            return true;
        if (sign == entry.p)
            entry = hky_str_of(entry.p + 1, entry.n - 1);
        else if (sign != NULL && hky_address_eq(entry, address))
            return true;
        if (hky_str_ieq(entry, domain) || (entry.n > 1 && entry.p[0] == '.' && hky_str_iends(domain, entry)))
            return true;
    }
    return false;
}

void hky_tx_mail(struct hky_session *s, struct hky_command *c)
{
    const struct hky_engine_options *engine = &s->p.policy->engine;
    struct hky_str sender = hky_address_str(&c->path), none = HKY_STR("");

    if (c->body == HKY_BODY_BINARYMIME) {
        hky_session_refuse(s, sender, none, 555, "5.5.4", "BODY=BINARYMIME is not offered here");
        return;
    }
    if (c->has_size && c->size > engine->max_message) {
        hky_session_refuse(s, sender, none, 552, "5.3.4", "message too big, at most %llu octets",
                           (unsigned long long)engine->max_message);
        return;
    }
    if (!c->is_null && !may_use(s->user, hky_address_str(&c->path))) {
        hky_session_refuse(s, sender, none, 553, "5.7.1", "login %.60s may not send as this address", s->user->name);
        return;
    }
    switch (s->p.ops->room(s->p.ctx, c->has_size ? c->size : 0)) {
    case HKY_OK:
        break;
    case HKY_E_STATE:
        s->waits |= HKY_WAIT_JOURNAL;
        return;
    case HKY_E_FULL:
        hky_session_refuse(s, sender, none, 452, "4.3.1", "no space for mail at the moment; try again later");
        return;
    default:
        hky_session_refuse(s, sender, none, 451, "4.3.0", "mail cannot be stored at the moment; try again later");
        return;
    }

    struct hky_transaction *tx = hky_calloc(1, sizeof *tx);
    hky_buf_init(&tx->arena, 2048 + (size_t)engine->bounds.recipients * (HKY_ADDRESS_MAX + 512));
    hky_buf_reserve(&tx->arena, 240);
    hky_buf_add_str(&tx->arena, hky_address_str(&c->path));
    hky_buf_add_str(&tx->arena, hky_buf_str(&c->envid));
    tx->sender_n = c->path.n;
    tx->envid_n = (uint32_t)c->envid.n;
    tx->id = s->p.ops->new_id(s->p.ctx);
    tx->at_ms = s->p.ops->now_ms(s->p.ctx);
    tx->size_hint = c->size;
    tx->ret = c->ret;
    tx->is_smtputf8 = c->is_smtputf8;
    tx->needs_smtputf8 = c->path.is_utf8;
    s->tx = tx;
    hky_session_enter(s, HKY_SESSION_MAIL);
    hky_session_reply(s, 250, "2.1.0", "ok");
}

static uint32_t hash_address(struct hky_str a)
{
    char lower[HKY_ADDRESS_MAX];

    for (size_t i = 0; i < a.n; i++)
        lower[i] = hky_lower(a.p[i]);
    return (uint32_t)hky_hash64(lower, a.n, 0);
}

static bool has_rcpt(const struct hky_transaction *tx, struct hky_str address, uint32_t hash)
{
    for (uint32_t i = 0; i < tx->n_rcpts; i++)
        if (tx->rcpts[i].hash == hash &&
            hky_address_eq(hky_str_of(tx->arena.p + tx->rcpts[i].at, tx->rcpts[i].n), address))
            return true;
    return false;
}

struct hky_str hky_tx_sender(const struct hky_session *s)
{
    return s->tx != NULL ? hky_str_of(s->tx->arena.p, s->tx->sender_n) : HKY_STR("");
}

/* Refused recipients do not count as errors of the client: a campaign may well name more than are taken at once. The
 * first of them is told of. */
static void refuse_rcpt(struct hky_session *s, struct hky_str rcpt, int code, const char *enhanced, const char *text)
{
    char reply[120];

    snprintf(reply, sizeof reply, "%d %s %s", code, enhanced, text);
    if (s->tx->n_refused == 0)
        s->p.ops->refused(s->p.ctx, hky_tx_sender(s), rcpt, reply);
    hky_session_reply(s, code, enhanced, "%s", text);
    if (++s->tx->n_refused > OVERSHOOT)
        hky_session_close(s, "4.7.0", "too many recipients refused");
}

void hky_tx_rcpt(struct hky_session *s, struct hky_command *c)
{
    const struct hky_engine_options *engine = &s->p.policy->engine;
    struct hky_transaction *tx = s->tx;
    char postmaster[HKY_ADDRESS_MAX + 1];
    struct hky_str address = hky_address_str(&c->path);

    if (c->path.n == c->path.local_n) { /* <postmaster>, the only one without a domain */
        int n = snprintf(postmaster, sizeof postmaster, "postmaster@%s", engine->hostname);
        address = hky_str_of(postmaster, n < (int)sizeof postmaster ? (size_t)n : sizeof postmaster - 1);
    }
    if (c->path.is_utf8 && !tx->is_smtputf8) {
        refuse_rcpt(s, address, 553, "5.6.7", "this address needs SMTPUTF8 in MAIL");
        return;
    }
    uint32_t hash = hash_address(address);
    if (has_rcpt(tx, address, hash)) {
        hky_session_reply(s, 250, "2.1.5", "ok");
        return;
    }
    if (tx->n_rcpts >= engine->bounds.recipients) {
        char text[80];
        snprintf(text, sizeof text, "too many recipients, at most %u a message", engine->bounds.recipients);
        refuse_rcpt(s, address, 452, "4.5.3", text);
        return;
    }
    if (tx->n_rcpts == tx->cap_rcpts) {
        tx->cap_rcpts = tx->cap_rcpts == 0 ? 4 : tx->cap_rcpts * 2;
        tx->rcpts = hky_realloc(tx->rcpts, tx->cap_rcpts * sizeof *tx->rcpts);
    }
    tx->rcpts[tx->n_rcpts++] = (struct rcpt){.at = (uint32_t)tx->arena.n,
                                             .n = (uint16_t)address.n,
                                             .orcpt_n = (uint16_t)c->orcpt.n,
                                             .notify = c->notify,
                                             .hash = hash};
    hky_buf_add_str(&tx->arena, address);
    hky_buf_add_str(&tx->arena, hky_buf_str(&c->orcpt));
    HKY_ASSERT(!tx->arena.is_over);
    tx->needs_smtputf8 = tx->needs_smtputf8 || c->path.is_utf8;
    if (s->state == HKY_SESSION_MAIL)
        hky_session_enter(s, HKY_SESSION_RCPT);
    hky_session_reply(s, 250, "2.1.5", "ok");
}

/* RFC 5321 4.4, RFC 3848. What the client said is cut down to what cannot hurt a header field. */
static void trace_field(const struct hky_session *s, struct hky_buf *out)
{
    const struct hky_transaction *tx = s->tx;
    char hello[256], id[HKY_ID_TEXT], date[40];
    const struct rcpt *only = tx->n_rcpts == 1 ? &tx->rcpts[0] : NULL;
    size_t n = 0;

    for (const char *p = s->hello; *p != '\0' && n < sizeof hello - 1; p++)
        hello[n++] = *p > ' ' && *p < 0x7f && strchr("()<>@,;\\\"", *p) == NULL ? *p : '?';
    hello[n] = '\0';
    hky_id_format(tx->id, id);
    hky_date_format(tx->at_ms, 0, date);
    hky_buf_add_z(out, "Received: from ");
    hky_buf_add_z(out, hello);
    hky_buf_add_z(out, strchr(s->client, ':') != NULL ? " ([IPv6:" : " ([");
    hky_buf_add_z(out, s->client);
    hky_buf_add_z(out, "])\r\n\tby ");
    hky_buf_add_z(out, s->p.policy->engine.hostname);
    hky_buf_add_z(out, tx->is_smtputf8 ? " with UTF8SMTP" : s->is_esmtp ? " with ESMTP" : " with SMTP");
    hky_buf_add_z(out, s->p.is_secure ? "S" : "");
    hky_buf_add_z(out, s->user != NULL ? "A id " : " id ");
    hky_buf_add_z(out, id);
    if (only != NULL && only->n < 200) {
        hky_buf_add_z(out, "\r\n\tfor <");
        hky_address_format(hky_str_of(tx->arena.p + only->at, only->n), false, out);
        hky_buf_add_c(out, '>');
    }
    hky_buf_add_z(out, ";\r\n\t");
    hky_buf_add_z(out, date);
    hky_buf_add_z(out, "\r\n");
}

static enum hky_err big_open(void *ctx, uint64_t id, void **big)
{
    struct hky_session *s = ctx;

    return s->p.ops->big_open(s->p.ctx, id, big);
}

static bool big_write(void *ctx, void *big, const char *p, size_t n)
{
    struct hky_session *s = ctx;

    return s->p.ops->big_write(s->p.ctx, big, p, n);
}

static void big_abort(void *ctx, void *big)
{
    struct hky_session *s = ctx;

    s->p.ops->big_abort(s->p.ctx, big);
}

static void begin_content(struct hky_session *s)
{
    const struct hky_engine_options *engine = &s->p.policy->engine;
    const struct hky_bounds *bounds = &engine->bounds;
    struct hky_transaction *tx = s->tx;
    struct hky_buf trace;

    hky_buf_init(&trace, 4096);
    trace_field(s, &trace);
    tx->content = (struct hky_content){
        .limits = {.max_message = engine->max_message,
                   .header_octets = bounds->header_octets < HEADER_AT_MOST ? bounds->header_octets : HEADER_AT_MOST,
                   .header_lines = bounds->header_lines,
                   .received = bounds->received},
        .big_ops = {.ctx = s, .open = big_open, .write = big_write, .abort = big_abort},
        .id = tx->id,
        .now_ms = tx->at_ms,
        .hostname = engine->hostname,
        .is_trusted = hky_session_is_trusted(s),
    };
    hky_content_init(&tx->content, tx->size_hint != 0 ? tx->size_hint : s->last_size, hky_buf_str(&trace));
    tx->has_content = true;
    hky_buf_fini(&trace);
}

void hky_tx_data(struct hky_session *s, struct hky_command *c)
{
    (void)c;
    if (s->tx->n_rcpts == 0) {
        hky_session_error(s, 554, "5.5.1", "no valid recipients");
        return;
    }
    begin_content(s);
    hky_session_enter(s, HKY_SESSION_DATA);
    hky_session_reply(s, 354, "", "send the message, end with CRLF.CRLF");
}

/* --- the end of the content --- */

static bool may_use_scenario(const struct hky_user *user, struct hky_str scenario)
{
    if (user == NULL || user->scenarios == NULL)
        return true;
    for (const char *const *z = user->scenarios; *z != NULL; z++)
        if (hky_str_eq(hky_str_z(*z), scenario) || hky_str_eq(hky_str_z(*z), HKY_STR("*")))
            return true;
    return false;
}

/* A login with one scenario has it without naming it. */
static struct hky_str scenario_of(struct hky_session *s, struct hky_str named)
{
    const char *const *may = s->user != NULL ? s->user->scenarios : NULL;

    if (named.n > 0 && !may_use_scenario(s->user, named)) {
        s->p.ops->note(s->p.ctx, "scenario_not_allowed", named);
        return HKY_STR("");
    }
    if (named.n == 0 && may != NULL && may[0] != NULL && may[1] == NULL && strcmp(may[0], "*") != 0)
        return hky_str_z(may[0]);
    return named;
}

static void check_author(const struct hky_session *s, struct hky_content *content)
{
    const struct hky_facts *f = &content->facts;

    if (s->user == NULL || s->user->senders == NULL)
        return;
    if (f->n_from != 1 || f->n_authors != 1)
        hky_content_refuse(content, 550, "5.7.1", "login %.40s sends with one From of one address", s->user->name);
    else if (!may_use(s->user, hky_facts_get(f, HKY_FACT_AUTHOR)))
        hky_content_refuse(content, 550, "5.7.1", "login %.40s may not send with this From", s->user->name);
}

static struct hky_message *make_message(struct hky_session *s)
{
    struct hky_transaction *tx = s->tx;
    struct hky_content *content = &tx->content;
    const struct hky_facts *f = &content->facts;
    struct hky_rcpt_draft few[8], *rcpts = few;
    struct hky_message_draft draft = {
        .id = tx->id,
        .accepted_at_ms = tx->at_ms,
        .deadline_ms = f->deadline_ms,
        .size = content->flushed + content->buf.n,
        .header_octets = content->header_n,
        .is_8bit = content->lines.has_8bit,
        .is_smtputf8 = tx->is_smtputf8 && (tx->needs_smtputf8 || f->has_8bit),
        .is_big = content->big != NULL,
        .ret = tx->ret,
        .n_received = (uint16_t)(f->n_received + 1 > UINT16_MAX ? UINT16_MAX : f->n_received + 1),
        .n_recipients = tx->n_rcpts,
    };

    for (int k = 0; k < HKY_FACT_N; k++)
        draft.facts[k] = hky_facts_get(f, (enum hky_fact)k);
    draft.facts[HKY_FACT_SENDER] = hky_str_of(tx->arena.p, tx->sender_n);
    draft.facts[HKY_FACT_ENVID] = hky_str_of(tx->arena.p + tx->sender_n, tx->envid_n);
    draft.facts[HKY_FACT_USER] = s->user != NULL ? hky_str_z(s->user->name) : HKY_STR("");
    draft.facts[HKY_FACT_CLIENT] = hky_str_z(s->client);
    draft.facts[HKY_FACT_HELLO] = hky_str_z(s->hello);
    draft.facts[HKY_FACT_TAGS] = hky_buf_str(&f->tags);
    draft.facts[HKY_FACT_VARS] = hky_buf_str(&f->vars);
    if (draft.facts[HKY_FACT_SOURCE].n == 0)
        draft.facts[HKY_FACT_SOURCE] = HKY_STR("smtp");
    draft.facts[HKY_FACT_SCENARIO] = scenario_of(s, draft.facts[HKY_FACT_SCENARIO]);
    if (tx->n_rcpts > sizeof few / sizeof few[0])
        rcpts = hky_alloc(tx->n_rcpts * sizeof *rcpts);
    for (uint32_t i = 0; i < tx->n_rcpts; i++) {
        const struct rcpt *r = &tx->rcpts[i];
        rcpts[i] = (struct hky_rcpt_draft){.address = hky_str_of(tx->arena.p + r->at, r->n),
                                           .orcpt = hky_str_of(tx->arena.p + r->at + r->n, r->orcpt_n),
                                           .notify = r->notify};
    }
    draft.recipients = rcpts;
    struct hky_message *m = hky_message_new(&draft);
    if (rcpts != few)
        free(rcpts);
    return m;
}

/* The memory the octets came into becomes the body; only when it is much too large is it cut down. */
static void give_body(struct hky_message *m, struct hky_content *content)
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

static void refuse_content(struct hky_session *s)
{
    const struct hky_refusal *r = &s->tx->content.refusal;

    hky_session_refuse(s, hky_tx_sender(s), HKY_STR(""), r->code, r->enhanced, "%s", r->text);
    hky_session_tx_reset(s);
}

static void end_content(struct hky_session *s)
{
    struct hky_content *content = &s->tx->content;

    hky_content_end(content);
    if (content->refusal.code == 0)
        check_author(s, content);
    if (content->refusal.code != 0) {
        refuse_content(s);
        return;
    }
    struct hky_message *m = make_message(s);
    s->last_size = m->size;
    struct hky_str header = hky_content_header(content);
    void *big = content->big;
    content->big = NULL;
    if (big == NULL) {
        give_body(m, content);
        header.p = m->body->p;
    }
    hky_session_enter(s, HKY_SESSION_COMMIT);
    s->waits = (uint8_t)((s->waits & ~HKY_WAIT_BIG) | HKY_WAIT_COMMIT);
    s->p.ops->submit(s->p.ctx, m, header, big);
    hky_tx_free(s, &s->tx);
}

static void wait_if_full(struct hky_session *s, struct hky_content *content)
{
    if (content->is_full)
        s->waits |= HKY_WAIT_BIG;
    content->is_full = false;
}

size_t hky_tx_data_input(struct hky_session *s, const char *p, size_t n)
{
    bool is_end = false;
    size_t used = hky_content_dots(&s->tx->content, p, n, &is_end);

    wait_if_full(s, &s->tx->content);
    if (is_end)
        end_content(s);
    return used;
}

/* --- BDAT (RFC 3030) --- */

static void end_chunk(struct hky_session *s)
{
    struct hky_transaction *tx = s->tx;

    if (s->is_last_chunk) {
        end_content(s);
    } else if (tx->content.refusal.code != 0) {
        refuse_content(s);
    } else {
        hky_session_enter(s, HKY_SESSION_CHUNKS);
        hky_session_reply(s, 250, "2.0.0", "chunk received");
    }
}

/* The announced octets are content, whatever becomes of the command: they are read and thrown away. */
static void swallow(struct hky_session *s, uint64_t n)
{
    if (s->state == HKY_SESSION_CLOSED)
        return;
    if (n > s->p.policy->engine.max_message) {
        hky_session_close(s, "4.7.0", "the chunk is too big to be skipped");
        return;
    }
    if (n == 0)
        return;
    s->after_swallow = s->state;
    s->chunk_left = n;
    hky_session_enter(s, HKY_SESSION_SWALLOW);
}

void hky_tx_bdat(struct hky_session *s, struct hky_command *c)
{
    const uint64_t max = s->p.policy->engine.max_message;

    if (s->tx == NULL) {
        hky_session_error(s, 503, "5.5.1", "send %s first", s->hello == NULL ? "EHLO" : "MAIL");
    } else if (s->tx->n_rcpts == 0) {
        hky_session_error(s, 554, "5.5.1", "no valid recipients");
    } else if (c->size > max) {
        hky_session_refuse(s, hky_tx_sender(s), HKY_STR(""), 552, "5.3.4", "message too big, at most %llu octets",
                           (unsigned long long)max);
        if (s->state != HKY_SESSION_CLOSED)
            hky_session_tx_reset(s);
    } else {
        if (!s->tx->has_content) {
            if (s->tx->size_hint < c->size)
                s->tx->size_hint = c->size;
            begin_content(s);
        }
        s->chunk_left = c->size;
        s->is_last_chunk = c->is_last;
        hky_session_enter(s, HKY_SESSION_CHUNK);
        if (c->size == 0)
            end_chunk(s);
        return;
    }
    swallow(s, c->size);
}

size_t hky_tx_chunk_input(struct hky_session *s, const char *p, size_t n)
{
    size_t want = n < s->chunk_left ? n : (size_t)s->chunk_left;
    size_t used = hky_content_chunk(&s->tx->content, p, want);

    wait_if_full(s, &s->tx->content);
    s->chunk_left -= used;
    if (s->chunk_left == 0)
        end_chunk(s);
    return used;
}
