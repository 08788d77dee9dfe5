#include "route/table/mailhosts.h"

#include "base/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define TTL_LEAST_MS  60000 /* how long an answer is kept at least */
#define TTL_FAILED_MS 30000 /* long enough that a thousand recipients ask once, and over before the next try */
#define UNHEARD_MOST  1000  /* look-ups under way for which nobody waits */
#define TURN_MOST_MS  100

struct slot {
    uint32_t generation; /* of the ticket in use, or of the last one */
    uint32_t next_free;
    bool is_out;
    void (*ready)(void *ctx); /* NULL: the owner was notified */
    void *ctx;
};

/* One domain: the answer, and the state of its look-up while that is under way. */
struct entry {
    struct hky_mailhosts pub; /* first */
    struct hky_lookups *lookups;
    TAILQ_ENTRY(entry) link; /* oldest answer first */
    int64_t until_ms;
    struct hky_dns_query query;
    struct hky_timer timer;
    struct hky_dns_mx_answer *mx; /* while hosts are asked for their addresses */
    unsigned at;
    bool has_failure; /* of a host before `at` */
    struct hky_ticket *tickets;
    unsigned n_tickets, cap_tickets;
};

struct hky_lookups {
    struct slot *slots;
    uint32_t n_slots, cap_slots;
    uint32_t first_free; /* n_slots: none */
    struct hky_loop *loop;
    bool is_waiting_here;
    struct hky_resolver_ops resolver;
    char *server; /* engine.resolver */
    struct hky_dns *dns;
    uint32_t deadline_ms, n_most;
    struct hky_map known, asked; /* domain -> struct entry; each holds a reference */
    TAILQ_HEAD(, entry) by_age;  /* the known ones */
};

/* --- who answers --- */

static void dns_cancel(void *ctx, struct hky_dns_query *q)
{
    (void)ctx;
    hky_dns_cancel(q);
}

static void dns_ask_mx(void *ctx, struct hky_dns_query *q, struct hky_str domain)
{
    hky_dns_ask_mx(((struct hky_lookups *)ctx)->dns, q, domain);
}

static void dns_ask_addr(void *ctx, struct hky_dns_query *q, struct hky_str host)
{
    hky_dns_ask_addr(((struct hky_lookups *)ctx)->dns, q, host);
}

void hky_lookups_set_resolver(struct hky_lookups *l, const struct hky_resolver_ops *ops)
{
    l->resolver = *ops;
}

/* The resolver is opened by the first look-up, so a policy without look-ups has none. */
static bool resolver_open(struct hky_lookups *l, struct hky_error *e)
{
    if (l->resolver.ask_mx == NULL)
        l->resolver = (struct hky_resolver_ops){l, dns_ask_mx, dns_ask_addr, dns_cancel};
    return l->resolver.ctx != l || l->dns != NULL || hky_dns_new(l->loop, l->server, &l->dns, e) == HKY_OK;
}

/* --- entries --- */

void hky_mailhosts_unref(struct hky_mailhosts **m)
{
    struct entry *en = (struct entry *)*m;

    *m = NULL;
    if (en == NULL || --en->pub.refs > 0)
        return;
    for (unsigned i = 0; i < en->pub.n; i++)
        free(en->pub.hosts[i]);
    free((void *)en->pub.hosts);
    free(en->mx);
    free(en->tickets);
    free(en);
}

static void entry_unref(struct entry *en)
{
    struct hky_mailhosts *m = &en->pub;

    hky_mailhosts_unref(&m);
}

static void known_drop(struct hky_lookups *l, struct entry *en)
{
    hky_map_remove(&l->known, hky_str_z(en->pub.domain));
    TAILQ_REMOVE(&l->by_age, en, link);
    entry_unref(en);
}

static void asked_drop(struct hky_lookups *l, struct entry *en)
{
    if (en->query.priv != NULL)
        l->resolver.cancel(l->resolver.ctx, &en->query);
    hky_timer_cancel(&en->timer);
    hky_map_remove(&l->asked, hky_str_z(en->pub.domain));
    entry_unref(en);
}

/* --- the end of a look-up --- */

static void end_lookup(struct entry *en, enum hky_mailhosts_state state, int64_t ttl_ms)
{
    struct hky_lookups *l = en->lookups;
    struct entry *was = hky_map_get(&l->known, hky_str_z(en->pub.domain));

    en->pub.state = state;
    en->until_ms = hky_loop_now_ms(l->loop) + ttl_ms;
    free(en->mx);
    en->mx = NULL;
    if (was != NULL)
        known_drop(l, was);
    while (l->known.n >= l->n_most && !TAILQ_EMPTY(&l->by_age))
        known_drop(l, TAILQ_FIRST(&l->by_age));
    hky_map_put(&l->known, hky_str_z(en->pub.domain), en);
    TAILQ_INSERT_TAIL(&l->by_age, en, link);
    en->pub.refs++;
    /* a ticket's owner may start another look-up, and that may drop this entry */
    for (unsigned i = 0; i < en->n_tickets; i++)
        (void)hky_ticket_ready(l, en->tickets[i]);
    en->n_tickets = 0;
    asked_drop(l, en);
}

static void fail(struct entry *en, const char *why)
{
    snprintf(en->pub.text, sizeof en->pub.text, "the mail hosts of %.100s could not be looked up: %.90s",
             en->pub.domain, why[0] != 0 ? why : "the name servers do not answer");
    end_lookup(en, HKY_MAILHOSTS_FAILED, TTL_FAILED_MS);
}

static int64_t ttl_ms(uint32_t sec)
{
    int64_t ms = (int64_t)sec * 1000;

    return ms < TTL_LEAST_MS ? TTL_LEAST_MS : ms; /* at most an hour: the resolver says no more */
}

static void none(struct entry *en, const char *why, uint32_t ttl_sec)
{
    snprintf(en->pub.text, sizeof en->pub.text, "%.120s has no mail hosts: %.80s", en->pub.domain, why);
    end_lookup(en, HKY_MAILHOSTS_NONE, ttl_ms(ttl_sec));
}

/* The host at `at` has an address, so the answer is that host and the others of its preference. */
static void found(struct entry *en)
{
    const struct hky_dns_mx_answer *a = en->mx;
    uint16_t preference = a->mx[en->at].preference;
    size_t n = 0;

    en->pub.hosts = (char **)hky_calloc(a->n, sizeof(char *));
    for (unsigned i = 0; i < a->n; i++) {
        if (a->mx[i].preference != preference)
            continue;
        if (n < sizeof en->pub.text - 1)
            n += (size_t)snprintf(en->pub.text + n, sizeof en->pub.text - n, "%s%s", n > 0 ? ", " : "", a->mx[i].host);
        en->pub.hosts[en->pub.n++] = hky_strdup(a->mx[i].host);
    }
    end_lookup(en, HKY_MAILHOSTS_FOUND, ttl_ms(a->ttl_sec));
}

/* --- asking --- */

static void on_deadline(struct hky_timer *t)
{
    fail(HKY_CONTAINER(t, struct entry, timer), "the time for it is over");
}

static void host_next(struct entry *en)
{
    struct hky_lookups *l = en->lookups;

    if (en->at < en->mx->n)
        l->resolver.ask_addr(l->resolver.ctx, &en->query, hky_str_z(en->mx->mx[en->at].host));
    else if (en->has_failure)
        fail(en, "the addresses of its mail hosts are not known");
    else
        none(en, "none of them has an address", en->mx->ttl_sec);
}

static void on_addr(struct hky_dns_query *q, const struct hky_dns_addr_answer *a)
{
    struct entry *en = HKY_CONTAINER(q, struct entry, query);

    if (a->status == HKY_DNS_OK) {
        found(en);
        return;
    }
    en->has_failure |= a->status == HKY_DNS_FAILED;
    en->at++;
    host_next(en);
}

static void on_mx(struct hky_dns_query *q, const struct hky_dns_mx_answer *a)
{
    struct entry *en = HKY_CONTAINER(q, struct entry, query);

    switch (a->status) {
    case HKY_DNS_OK:
        en->mx = hky_alloc(sizeof *en->mx);
        *en->mx = *a;
        host_next(en);
        break;
    case HKY_DNS_NULL_MX:
        none(en, "it takes no mail (null MX)", a->ttl_sec);
        break;
    case HKY_DNS_NO_NAME:
    case HKY_DNS_NO_DATA:
        none(en, "there is no such domain", a->ttl_sec);
        break;
    case HKY_DNS_FAILED:
        fail(en, a->text);
        break;
    }
}

/* "[192.0.2.1]" is its own mail host (RFC 5321 4.1.3). */
static struct hky_mailhosts *of_literal(struct hky_str domain)
{
    struct entry *en = hky_calloc(1, sizeof *en);

    en->pub.refs = 1;
    en->pub.state = HKY_MAILHOSTS_FOUND;
    en->pub.n = 1;
    en->pub.hosts = (char **)hky_calloc(1, sizeof(char *));
    en->pub.hosts[0] = hky_str_dup(domain);
    snprintf(en->pub.text, sizeof en->pub.text, "%.*s", HKY_STR_ARG(domain));
    return &en->pub;
}

struct hky_mailhosts *hky_mailhosts_known(struct hky_lookups *l, struct hky_str domain)
{
    struct entry *en = hky_map_get(&l->known, domain);

    if (domain.n > 0 && domain.p[0] == '[')
        return of_literal(domain);
    if (en == NULL || en->until_ms <= hky_loop_now_ms(l->loop))
        return NULL;
    en->pub.refs++;
    return &en->pub;
}

static struct entry *entry_new(struct hky_lookups *l, struct hky_str domain)
{
    struct entry *en = hky_calloc(1, sizeof *en);

    en->pub.refs = 1;
    snprintf(en->pub.domain, sizeof en->pub.domain, "%.*s", HKY_STR_ARG(domain));
    en->lookups = l;
    en->query.on_mx = on_mx;
    en->query.on_addr = on_addr;
    hky_timer_init(&en->timer, l->loop, on_deadline);
    hky_map_put(&l->asked, hky_str_z(en->pub.domain), en);
    return en;
}

static void ticket_add(struct entry *en, struct hky_ticket ticket)
{
    if (ticket.generation == 0)
        return;
    if (en->n_tickets == en->cap_tickets) {
        en->cap_tickets = en->cap_tickets == 0 ? 1 : en->cap_tickets * 2;
        en->tickets = hky_realloc(en->tickets, en->cap_tickets * sizeof *en->tickets);
    }
    en->tickets[en->n_tickets++] = ticket;
}

struct hky_mailhosts *hky_mailhosts_ask(struct hky_lookups *l, struct hky_str domain, struct hky_ticket ticket)
{
    struct entry *en;
    struct hky_error e = {0};

    if (domain.n >= sizeof en->pub.domain)
        domain.n = 0;
    en = hky_map_get(&l->asked, domain);
    if (en == NULL && ticket.generation == 0 && l->asked.n >= UNHEARD_MOST)
        return NULL;
    if (en != NULL) {
        ticket_add(en, ticket);
    } else {
        en = entry_new(l, domain);
        ticket_add(en, ticket);
        hky_timer_set(&en->timer, l->deadline_ms);
        if (resolver_open(l, &e))
            l->resolver.ask_mx(l->resolver.ctx, &en->query, domain);
        else
            hky_timer_set(&en->timer, 0); /* a look-up never completes inside the call that starts it */
    }
    en->pub.refs++;
    return &en->pub;
}

/* --- the whole --- */

static void forget_all(struct hky_lookups *l)
{
    struct hky_map_entry *m;

    for (size_t at = 0; (m = hky_map_next(&l->asked, &at)) != NULL; at = 0)
        asked_drop(l, m->value);
    while (!TAILQ_EMPTY(&l->by_age))
        known_drop(l, TAILQ_FIRST(&l->by_age));
    hky_dns_free(&l->dns);
}

struct hky_lookups *hky_lookups_new(struct hky_loop *loop, const struct hky_policy *policy)
{
    struct hky_lookups *l = hky_calloc(1, sizeof *l);

    l->loop = loop;
    hky_map_init_untrusted(&l->known);
    hky_map_init_untrusted(&l->asked);
    TAILQ_INIT(&l->by_age);
    hky_lookups_set_policy(l, policy);
    return l;
}

void hky_lookups_set_policy(struct hky_lookups *l, const struct hky_policy *policy)
{
    const struct hky_engine_options *o = &policy->engine;
    const char *server = o->resolver != NULL ? o->resolver : "";

    l->deadline_ms = o->bounds.lookup_ms;
    l->n_most = o->bounds.mail_hosts;
    if (l->server != NULL && strcmp(l->server, server) == 0)
        return;
    forget_all(l);
    free(l->server);
    l->server = hky_strdup(server);
}

void hky_lookups_free(struct hky_lookups **at)
{
    struct hky_lookups *l = *at;

    *at = NULL;
    if (l == NULL)
        return;
    forget_all(l);
    hky_map_fini(&l->known);
    hky_map_fini(&l->asked);
    free(l->server);
    free(l->slots);
    free(l);
}

unsigned hky_lookups_n_known(const struct hky_lookups *l)
{
    return (unsigned)l->known.n;
}

void hky_lookups_wait_here(struct hky_lookups *l)
{
    l->is_waiting_here = true;
}

bool hky_lookups_is_waiting_here(const struct hky_lookups *l)
{
    return l->is_waiting_here;
}

void hky_lookups_turn(struct hky_lookups *l)
{
    hky_loop_turn(l->loop, TURN_MOST_MS);
}

/* --- tickets --- */

struct hky_ticket hky_ticket_new(struct hky_lookups *l, void (*ready)(void *ctx), void *ctx)
{
    uint32_t at = l->first_free;
    struct slot *s;

    if (at == l->n_slots) {
        if (l->n_slots == l->cap_slots) {
            l->cap_slots = l->cap_slots < 16 ? 16 : l->cap_slots * 2;
            l->slots = hky_realloc(l->slots, l->cap_slots * sizeof *l->slots);
        }
        l->slots[at] = (struct slot){.next_free = at + 1};
        l->n_slots++;
    }
    s = &l->slots[at];
    l->first_free = s->next_free;
    s->generation += s->generation == UINT32_MAX ? 2 : 1;
    s->is_out = true;
    s->ready = ready;
    s->ctx = ctx;
    return (struct hky_ticket){at, s->generation};
}

void hky_ticket_end(struct hky_lookups *l, struct hky_ticket *t)
{
    struct slot *s;

    if (t->generation == 0)
        return;
    s = &l->slots[t->slot];
    HKY_ASSERT(s->is_out && s->generation == t->generation);
    s->is_out = false;
    s->ready = NULL;
    s->next_free = l->first_free;
    l->first_free = t->slot;
    t->generation = 0;
}

bool hky_ticket_ready(struct hky_lookups *l, struct hky_ticket t)
{
    struct slot *s = t.generation != 0 && t.slot < l->n_slots ? &l->slots[t.slot] : NULL;
    void (*ready)(void *ctx);

    if (s == NULL || !s->is_out || s->generation != t.generation || s->ready == NULL)
        return false;
    ready = s->ready;
    s->ready = NULL;
    ready(s->ctx);
    return true;
}
