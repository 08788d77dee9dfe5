/*
 * dns -- MX hosts and addresses, on the loop (c-ares). Answers are cached for their TTL (at most 1 h, failures 30 s),
 * identical questions in flight are asked once, numbers of records are bounded.
 */
#ifndef HKY_NET_DNS_H
#define HKY_NET_DNS_H

#include "base/str.h"
#include "net/loop.h"

#include <sys/socket.h>

struct hky_dns;

/* `resolver`: "addr:port" of one server, or "" for those of /etc/resolv.conf, which is read again when it changes.
 * HKY_E_CONFIG: `resolver` is no "addr:port". HKY_E_DNS: c-ares cannot be started. */
enum hky_err hky_dns_new(struct hky_loop *loop, const char *resolver, struct hky_dns **out, struct hky_error *e);
void hky_dns_free(struct hky_dns **dns); /* pending questions get no callback */

enum hky_dns_status {
    HKY_DNS_OK,
    HKY_DNS_NO_NAME, /* NXDOMAIN */
    HKY_DNS_NO_DATA, /* the name exists, the type does not */
    HKY_DNS_NULL_MX, /* RFC 7505 */
    HKY_DNS_FAILED,  /* SERVFAIL, time-out or refused: a later question may be answered */
};
#define HKY_DNS_MX_MAX   20
#define HKY_DNS_ADDR_MAX 16

struct hky_dns_mx {
    uint16_t preference;
    char host[254]; /* lower case, no final dot */
};
struct hky_dns_mx_answer {
    enum hky_dns_status status;
    bool is_implicit; /* no MX record: the domain itself (RFC 5321 5.1) */
    unsigned n;
    struct hky_dns_mx mx[HKY_DNS_MX_MAX]; /* sorted by preference; equal ones are shuffled for each answer */
    uint32_t ttl_sec;                     /* of the records, at most an hour; for a failure, how long it is kept */
    char text[120];                       /* when not OK: why, for people */
};
struct hky_dns_addr_answer {
    enum hky_dns_status status;
    unsigned n;
    struct {
        struct sockaddr_storage ss; /* port 0 */
        socklen_t len;
    } addr[HKY_DNS_ADDR_MAX]; /* IPv6 and IPv4 interleaved, IPv6 first */
    char text[120];
};

/* A question, embedded by the asker, who calls hky_dns_cancel before freeing it. The callback comes once,
 * asynchronously. */
struct hky_dns_query {
    void (*on_mx)(struct hky_dns_query *q, const struct hky_dns_mx_answer *a);
    void (*on_addr)(struct hky_dns_query *q, const struct hky_dns_addr_answer *a);
    void *priv; /* owned by dns; NULL when no answer is awaited */
};
void hky_dns_ask_mx(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str domain);
/* Names from /etc/hosts and address literals ("127.0.0.1", "::1") answer too. */
void hky_dns_ask_addr(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str host);
void hky_dns_cancel(struct hky_dns_query *q);

#endif
