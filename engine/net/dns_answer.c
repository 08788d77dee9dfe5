#include "net/dns_internal.h"

#include "base/error.h"
#include "base/hash.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

enum { TYPE_CNAME = 5, TYPE_MX = 15, HEADER_OCTETS = 12, TRUNCATED = 0x02 };

struct hky_dns_entry *hky_dns_entry_failed(enum hky_dns_status status, const char *text)
{
    struct hky_dns_entry *e = hky_calloc(1, sizeof *e);
    e->refs = 1;
    e->status = status;
    e->ttl_sec = HKY_DNS_TTL_FAILED_SEC;
    snprintf(e->text, sizeof e->text, "%s", text);
    return e;
}

void hky_dns_entry_unref(struct hky_dns_entry **at)
{
    struct hky_dns_entry *e = *at;
    *at = NULL;
    if (e == NULL || --e->refs > 0)
        return;
    free(e->mx);
    free(e->addr);
    free(e);
}

bool hky_dns_name(struct hky_str text, char out[254])
{
    size_t label = 0;
    if (text.n > 0 && text.p[text.n - 1] == '.')
        text.n--;
    if (text.n == 0 || text.n > 253)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = hky_lower(text.p[i]);
        bool is_part = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (c == '.' ? label == 0 : !is_part || label == 63)
            return false;
        label = c == '.' ? 0 : label + 1;
        out[i] = c;
    }
    out[text.n] = 0;
    return label > 0;
}

/* Makes the entry for a failure: what DNS said about which name and type. */
static struct hky_dns_entry *from_status(int status, const char *name, const char *type)
{
    enum hky_dns_status kind = HKY_DNS_FAILED;
    const char *why;
    char text[120];
    switch (status) {
    case ARES_ENOTFOUND:
        kind = HKY_DNS_NO_NAME;
        why = "the domain does not exist (NXDOMAIN)";
        break;
    case ARES_ENODATA:
        kind = HKY_DNS_NO_DATA;
        why = "the domain has no such record";
        break;
    case ARES_ETIMEOUT:
        why = "no resolver answered in time";
        break;
    case ARES_ESERVFAIL:
        why = "the resolver could not find out (SERVFAIL)";
        break;
    case ARES_EREFUSED:
        why = "the resolver refuses to answer (REFUSED)";
        break;
    case ARES_EBADRESP:
        why = "the resolver's answer is cut off or damaged";
        break;
    case ARES_ECONNREFUSED: /* c-ares also ends with this when every server answered SERVFAIL or REFUSED */
        why = "SERVFAIL or REFUSED, or no resolver in reach";
        break;
    default:
        why = ares_strerror(status);
    }
    snprintf(text, sizeof text, "%s of %.50s: %s", type, name, why);
    return hky_dns_entry_failed(kind, text);
}

/* The place behind a name in a message; 0: the message ends before. */
static size_t skip_name(const unsigned char *p, size_t n, size_t at)
{
    while (at < n) {
        unsigned c = p[at];
        if (c == 0)
            return at + 1;
        if (c >= 0xc0)
            return at + 2 <= n ? at + 2 : 0;
        at += c + 1;
    }
    return 0;
}

bool hky_dns_alias_of(const char *name, const unsigned char *p, int n, char out[256])
{
    size_t at = HEADER_OCTETS, end = (size_t)(n > 0 ? n : 0);
    if (end < HEADER_OCTETS)
        return false;
    unsigned questions = p[4] << 8 | p[5], answers = p[6] << 8 | p[7];
    for (; questions > 0; questions--) {
        at = skip_name(p, end, at);
        if (at == 0 || end - at < 4)
            return false;
        at += 4;
    }
    for (; answers > 0; answers--) {
        char *owner = NULL, *target = NULL;
        long octets;
        size_t owner_at = at;
        at = skip_name(p, end, at);
        if (at == 0 || end - at < 10)
            return false;
        unsigned type = p[at] << 8 | p[at + 1], len = p[at + 8] << 8 | p[at + 9];
        at += 10;
        if (end - at < len)
            return false;
        bool is_it = type == TYPE_CNAME && ares_expand_name(p + owner_at, p, n, &owner, &octets) == ARES_SUCCESS &&
                     hky_str_ieq(hky_str_z(owner), hky_str_z(name)) &&
                     ares_expand_name(p + at, p, n, &target, &octets) == ARES_SUCCESS && strlen(target) < 256;
        for (size_t i = 0; is_it && i <= strlen(target); i++)
            out[i] = hky_lower(target[i]);
        ares_free_string(owner);
        ares_free_string(target);
        if (is_it)
            return true;
        at += len;
    }
    return false;
}

/* The smallest TTL of the MX records, which c-ares' parser does not return. */
static unsigned mx_ttl(const unsigned char *p, size_t n)
{
    if (n < HEADER_OCTETS)
        return 0;
    unsigned questions = p[4] << 8 | p[5], answers = p[6] << 8 | p[7];
    size_t at = HEADER_OCTETS;
    uint32_t least = HKY_DNS_TTL_MAX_SEC;
    for (; questions > 0; questions--) {
        at = skip_name(p, n, at);
        if (at == 0 || n - at < 4)
            return 0;
        at += 4;
    }
    for (; answers > 0; answers--) {
        at = skip_name(p, n, at);
        if (at == 0 || n - at < 10)
            return 0;
        unsigned type = p[at] << 8 | p[at + 1], len = p[at + 8] << 8 | p[at + 9];
        uint32_t ttl = (uint32_t)p[at + 4] << 24 | p[at + 5] << 16 | p[at + 6] << 8 | p[at + 7];
        if (type == TYPE_MX && ttl < least)
            least = ttl;
        at += 10;
        if (n - at < len)
            return 0;
        at += len;
    }
    return least;
}

/* Keeps the best HKY_DNS_MX_MAX hosts in order. Among equals the lowest `rank` wins, which is a random number, so that
 * no host of a large set is always left out. */
static void insert_mx(struct hky_dns_entry *e, uint64_t *ranks, const struct hky_dns_mx *mx, uint64_t rank)
{
    unsigned i = e->n;
    while (i > 0 && (e->mx[i - 1].preference > mx->preference ||
                     (e->mx[i - 1].preference == mx->preference && ranks[i - 1] > rank)))
        i--;
    if (i == HKY_DNS_MX_MAX)
        return;
    if (e->n < HKY_DNS_MX_MAX)
        e->n++;
    memmove(e->mx + i + 1, e->mx + i, (e->n - 1 - i) * sizeof *e->mx);
    memmove(ranks + i + 1, ranks + i, (e->n - 1 - i) * sizeof *ranks);
    e->mx[i] = *mx;
    ranks[i] = rank;
}

struct hky_dns_entry *hky_dns_implicit_mx(const char *domain)
{
    struct hky_dns_entry *e = hky_calloc(1, sizeof *e);
    e->refs = 1;
    e->is_implicit = true;
    e->ttl_sec = HKY_DNS_TTL_FAILED_SEC;
    e->n = 1;
    e->mx = hky_calloc(1, sizeof *e->mx);
    snprintf(e->mx[0].host, sizeof e->mx[0].host, "%s", domain);
    return e;
}

struct hky_dns_entry *hky_dns_from_mx(const char *domain, int status, const unsigned char *reply, int n)
{
    struct ares_mx_reply *list = NULL;
    bool has_null = false, has_bad = false;
    if (status == ARES_SUCCESS)
        status = ares_parse_mx_reply(reply, n, &list);
    if (status == ARES_ENODATA || (status == ARES_SUCCESS && list == NULL)) {
        /* An empty answer that was cut off, even by TCP, does not say that there is no MX. */
        if (reply != NULL && n >= HEADER_OCTETS && (reply[2] & TRUNCATED) != 0)
            return from_status(ARES_EBADRESP, domain, "MX");
        return hky_dns_implicit_mx(domain);
    }
    if (status != ARES_SUCCESS)
        return from_status(status, domain, "MX");

    struct hky_dns_entry *e = hky_calloc(1, sizeof *e);
    e->refs = 1;
    e->ttl_sec = mx_ttl(reply, (size_t)n);
    e->mx = hky_calloc(HKY_DNS_MX_MAX, sizeof *e->mx);
    uint64_t seed, ranks[HKY_DNS_MX_MAX];
    hky_random(&seed, sizeof seed);
    for (struct ares_mx_reply *m = list; m != NULL; m = m->next) {
        struct hky_dns_mx mx = {.preference = m->priority};
        if (m->host[0] == 0 || strcmp(m->host, ".") == 0)
            has_null = true;
        else if (hky_dns_name(hky_str_z(m->host), mx.host))
            insert_mx(e, ranks, &mx, hky_hash64(mx.host, strlen(mx.host), seed));
        else
            has_bad = true;
    }
    ares_free_data(list);
    if (e->n > 0) {
        e->mx = hky_realloc(e->mx, e->n * sizeof *e->mx);
    } else if (has_null && !has_bad) {
        e->status = HKY_DNS_NULL_MX;
        snprintf(e->text, sizeof e->text, "the domain accepts no mail (null MX)");
    } else {
        e->status = HKY_DNS_FAILED;
        snprintf(e->text, sizeof e->text, "the domain's MX records name no usable host");
    }
    return e;
}

static struct hky_dns_entry *entry_of_addresses(void)
{
    struct hky_dns_entry *e = hky_calloc(1, sizeof *e);
    e->refs = 1;
    e->ttl_sec = HKY_DNS_TTL_MAX_SEC;
    e->addr = hky_calloc(HKY_DNS_ADDR_MAX, sizeof *e->addr);
    return e;
}

struct hky_dns_entry *hky_dns_from_literal(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    bool is_v4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
        return NULL;
    struct hky_dns_entry *e = entry_of_addresses();
    e->n = 1;
    e->addr[0].len = is_v4 ? sizeof v4 : sizeof v6;
    memcpy(&e->addr[0].ss, is_v4 ? (void *)&v4 : (void *)&v6, e->addr[0].len);
    return e;
}

static const struct ares_addrinfo_node *next_of(const struct ares_addrinfo_node *node, int family)
{
    while (node != NULL && node->ai_family != family)
        node = node->ai_next;
    return node;
}

static void add_address(struct hky_dns_entry *e, const struct ares_addrinfo_node *node)
{
    if (e->n == HKY_DNS_ADDR_MAX || node->ai_addrlen > sizeof e->addr->ss)
        return;
    memcpy(&e->addr[e->n].ss, node->ai_addr, node->ai_addrlen);
    e->addr[e->n].len = node->ai_addrlen;
    e->n++;
    unsigned ttl = node->ai_ttl > 0 ? (unsigned)node->ai_ttl : 0; /* it is 0 for names from the hosts file, too */
    if (ttl < e->ttl_sec)
        e->ttl_sec = ttl;
}

struct hky_dns_entry *hky_dns_from_addrinfo(const char *name, int status, const struct ares_addrinfo *ai)
{
    if (status != ARES_SUCCESS)
        return from_status(status, name, "A and AAAA");
    struct hky_dns_entry *e = entry_of_addresses();
    const struct ares_addrinfo_node *v6 = next_of(ai->nodes, AF_INET6), *v4 = next_of(ai->nodes, AF_INET);
    while (v6 != NULL || v4 != NULL) {
        if (v6 != NULL) {
            add_address(e, v6);
            v6 = next_of(v6->ai_next, AF_INET6);
        }
        if (v4 != NULL) {
            add_address(e, v4);
            v4 = next_of(v4->ai_next, AF_INET);
        }
    }
    if (e->n == 0) {
        hky_dns_entry_unref(&e);
        return from_status(ARES_ENODATA, name, "A and AAAA");
    }
    e->addr = hky_realloc(e->addr, e->n * sizeof *e->addr);
    return e;
}

static void shuffle_equals(struct hky_dns_mx *mx, unsigned n)
{
    uint64_t seed;
    hky_random(&seed, sizeof seed);
    for (unsigned from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && mx[to].preference == mx[from].preference;)
            to++;
        for (unsigned i = to - 1; i > from; i--) {
            unsigned k = from + (unsigned)(hky_hash64(&i, sizeof i, seed) % (i - from + 1));
            struct hky_dns_mx swap = mx[i];
            mx[i] = mx[k];
            mx[k] = swap;
        }
    }
}

void hky_dns_copy_mx(const struct hky_dns_entry *e, struct hky_dns_mx_answer *a)
{
    a->status = e->status;
    a->is_implicit = e->is_implicit;
    a->n = e->n;
    a->ttl_sec = e->ttl_sec < HKY_DNS_TTL_MAX_SEC ? e->ttl_sec : HKY_DNS_TTL_MAX_SEC;
    memcpy(a->text, e->text, sizeof a->text);
    if (e->n > 0)
        memcpy(a->mx, e->mx, e->n * sizeof *a->mx);
    if (e->n > 1)
        shuffle_equals(a->mx, a->n);
}

void hky_dns_copy_addr(const struct hky_dns_entry *e, struct hky_dns_addr_answer *a)
{
    a->status = e->status;
    a->n = e->n;
    memcpy(a->text, e->text, sizeof a->text);
    for (unsigned i = 0; i < e->n; i++) {
        a->addr[i].ss = e->addr[i].ss;
        a->addr[i].len = e->addr[i].len;
    }
}
