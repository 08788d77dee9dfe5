/* Chooses the next address. */
#include "deliver/outbound_internal.h"

#include "base/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define MX_PORT       25
#define HOSTS_DEFAULT 5

static void set_port(struct sockaddr_storage *ss, uint16_t port)
{
    if (ss->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)ss)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)ss)->sin_port = htons(port);
}

static const char *source_of(const struct hky_outbound *c)
{
    const char *source = c->params.relay->source;
    return source != NULL && !c->params.is_redirected ? source : "";
}

/* The local address to connect from, when it is of the same family. */
static socklen_t source_address(const char *text, int family, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (text[0] == '\0')
        return 0;
    out->ss_family = (sa_family_t)family;
    if (family == AF_INET6 && inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)out)->sin6_addr) == 1)
        return sizeof(struct sockaddr_in6);
    if (family == AF_INET && inet_pton(AF_INET, text, &((struct sockaddr_in *)out)->sin_addr) == 1)
        return sizeof(struct sockaddr_in);
    return 0;
}

/* ---- targets that were tried ---- */

static struct hky_target target_of(const struct sockaddr_storage *ss)
{
    struct hky_target t = {.family = ss->ss_family};
    if (t.family == AF_INET6)
        memcpy(t.octets, &((const struct sockaddr_in6 *)ss)->sin6_addr, 16);
    else
        memcpy(t.octets, &((const struct sockaddr_in *)ss)->sin_addr, 4);
    return t;
}

static bool was_tried(const struct hky_delivery *x, const struct sockaddr_storage *ss)
{
    struct hky_target t = target_of(ss);
    for (unsigned i = 0; x != NULL && i < x->n_tried; i++)
        if (x->tried[i].family == t.family && memcmp(x->tried[i].octets, t.octets, sizeof(t.octets)) == 0)
            return true;
    return false;
}

static unsigned most_hosts(const struct hky_outbound *c)
{
    unsigned most = c->params.most_hosts > 0 ? c->params.most_hosts : HOSTS_DEFAULT;
    return most < HKY_HOSTS_MAX ? most : HKY_HOSTS_MAX;
}

static const struct sockaddr_storage *current(const struct hky_outbound *c)
{
    return &c->addrs->addr[c->addr_at - 1].ss;
}

void hky_outbound_mark_tried(const struct hky_outbound *c, struct hky_delivery *x)
{
    if (x != NULL && x->n_tried < HKY_HOSTS_MAX && !was_tried(x, current(c)))
        x->tried[x->n_tried++] = target_of(current(c));
}

void hky_outbound_unmark_tried(struct hky_outbound *c)
{
    struct hky_delivery *x = c->bound;
    if (x != NULL && x->n_tried > 0)
        x->n_tried--;
}

/* The first address from `at` on that was not tried; addrs->n: there is none. */
static unsigned untried(const struct hky_outbound *c, const struct hky_delivery *x, unsigned at)
{
    while (at < c->addrs->n && was_tried(x, &c->addrs->addr[at].ss))
        at++;
    return at;
}

bool hky_outbound_has_more_targets(const struct hky_outbound *c, const struct hky_delivery *x)
{
    bool is_marked = c->addrs == NULL || c->addrs->n == 0 || was_tried(x, current(c));
    unsigned n_tried = x != NULL ? x->n_tried + !is_marked : 1;
    if (n_tried >= most_hosts(c))
        return false;
    if (c->state != HKY_OUTBOUND_READY)
        return c->host_at + 1 < c->params.n_hosts || (c->addrs != NULL && untried(c, x, c->addr_at) < c->addrs->n);
    /* The next attempt is by a new connection, which looks at all hosts and addresses from the start. Only with its
     * first delivery, for which it was opened, has this one come past all hosts before its own. */
    bool is_at_last_host = c->host_at + 1 == c->params.n_hosts && (c->host_at == 0 || c->n_taken == 1);
    if (!is_at_last_host)
        return true;
    for (unsigned i = 0; i < c->addrs->n; i++)
        if (i != c->addr_at - 1 && !was_tried(x, &c->addrs->addr[i].ss))
            return true;
    return false;
}

/* ---- the next target ---- */

static void connect_to(struct hky_outbound *c, unsigned i)
{
    struct sockaddr_storage from;
    struct sockaddr_storage *to = &c->addrs->addr[i].ss;
    hky_outbound_enter(c, HKY_OUTBOUND_CONNECTING);
    set_port(to, c->params.port);
    socklen_t from_n = source_address(source_of(c), to->ss_family, &from);
    struct hky_stream_params p = {.loop = c->params.loop, .ops = c->stream_ops, .ctx = c};
    c->stream = hky_stream_connect(&p, (struct sockaddr *)to, c->addrs->addr[i].len,
                                   from_n > 0 ? (struct sockaddr *)&from : NULL, from_n);
    hky_timer_set(&c->timer, hky_outbound_or_default(c->params.relay->timeout.connect_ms, HKY_CONNECT_DEFAULT_MS));
}

void hky_outbound_resolve(struct hky_outbound *c)
{
    hky_outbound_enter(c, HKY_OUTBOUND_RESOLVING);
    hky_timer_cancel(&c->timer); /* it was for the last host; the resolver bounds this wait */
    hky_dns_ask_addr(c->params.dns, &c->query, hky_str_z(c->hosts[c->host_at].host));
}

bool hky_outbound_next_target(struct hky_outbound *c)
{
    c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_SEND};
    c->class = HKY_CLASS_N; /* the class was about the last target */
    if (c->addrs != NULL && (c->addr_at = untried(c, c->bound, c->addr_at)) < c->addrs->n) {
        c->addr_at++;
        hky_outbound_mark_tried(c, c->bound);
        connect_to(c, c->addr_at - 1);
        return true;
    }
    if (c->host_at + 1 < c->params.n_hosts) {
        c->host_at++;
        hky_outbound_resolve(c);
        return true;
    }
    /* All addresses of the last host had been tried already as those of another host; their answers count. */
    bool is_known = c->best_answer.stage != HKY_STAGE_NONE;
    c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_END,
                                         .stage = is_known ? c->best_answer.stage : HKY_STAGE_CONNECT};
    c->class = is_known ? c->best_answer.class : HKY_CLASS_NETWORK;
    if (is_known)
        c->end_reply = c->best_answer.reply;
    else
        hky_reply_local(&c->end_reply, HKY_ORIGIN_CONNECT, "every address was tried");
    return false;
}

void hky_outbound_same_target(struct hky_outbound *c)
{
    c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_SEND};
    c->class = HKY_CLASS_N;
    connect_to(c, c->addr_at - 1);
}

static bool is_this_machine(const struct sockaddr_storage *ss)
{
    struct in6_addr addr;

    hky_in6_of(ss, &addr);
    return hky_in6_is_here(&addr);
}

/* A domain that names this machine as its mail host would reach servers that trust connections from this machine. A
 * port other than 25 is for tests, whose hosts are on this machine. */
static bool is_kept_from_loopback(const struct hky_outbound *c)
{
    return c->params.relay->is_mx && !c->params.is_redirected && c->params.port == MX_PORT;
}

/* Drops the addresses of this machine; returns how many there were. */
static unsigned drop_loopback(const struct hky_outbound *c, struct hky_dns_addr_answer *a)
{
    unsigned n = 0, was = a->n;
    if (!is_kept_from_loopback(c))
        return 0;
    for (unsigned i = 0; i < was; i++)
        if (!is_this_machine(&a->addr[i].ss))
            a->addr[n++] = a->addr[i];
    a->n = n;
    return was - n;
}

/* Keeps the addresses that can be reached from `source`: from an IPv4 address no IPv6 address can, and the other way
 * round. */
static void keep_reachable(const struct hky_outbound *c, struct hky_dns_addr_answer *a)
{
    const char *source = source_of(c);
    unsigned n = 0;
    if (source[0] == '\0')
        return;
    for (unsigned i = 0; i < a->n; i++) {
        struct sockaddr_storage from;
        if (source_address(source, a->addr[i].ss.ss_family, &from) > 0)
            a->addr[n++] = a->addr[i];
    }
    a->n = n;
}

bool hky_outbound_take_addresses(struct hky_outbound *c, const struct hky_dns_addr_answer *a)
{
    if (c->addrs == NULL)
        c->addrs = hky_alloc(sizeof(*c->addrs));
    *c->addrs = *a;
    c->addr_at = 0;
    bool is_here = drop_loopback(c, c->addrs) > 0 && c->addrs->n == 0;
    c->may_exist |= !is_here && a->status != HKY_DNS_NO_NAME && a->status != HKY_DNS_NO_DATA;
    keep_reachable(c, c->addrs);
    if (a->status == HKY_DNS_OK && c->addrs->n > 0)
        return hky_outbound_next_target(c);
    c->addrs->n = 0;
    hky_reply_local(&c->end_reply, HKY_ORIGIN_DNS, "%s: %s", hky_outbound_host(c),
                    is_here              ? "its address is this machine's own (loopback)"
                    : a->text[0] != '\0' ? a->text
                                         : "no address that can be reached from `source`");
    c->end = (struct hky_dialogue_event){.kind = HKY_DIALOGUE_END, .stage = HKY_STAGE_CONNECT};
    c->class = HKY_CLASS_NETWORK;
    /* A domain whose mail hosts all have no address takes no mail; a relay of ours without one is our mistake. */
    if (c->params.relay->is_mx && !c->params.is_redirected && !c->may_exist) {
        c->class = HKY_CLASS_BAD_DOMAIN;
        c->end_reply.enhanced[0] = 5;
        c->end_reply.enhanced[1] = 1;
        c->end_reply.enhanced[2] = 2;
        c->end_reply.enhanced_detail = 2;
    }
    return false;
}
