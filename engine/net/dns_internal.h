/*
 * dns_internal -- cached answers (dns_answer.c makes them, dns.c asks and keeps them). net/ only.
 */
#ifndef HKY_NET_DNS_INTERNAL_H
#define HKY_NET_DNS_INTERNAL_H

#include "net/dns.h"

enum { HKY_DNS_TTL_MAX_SEC = 3600, HKY_DNS_TTL_FAILED_SEC = 30 };
enum { HKY_DNS_TRY_MS = 1000, HKY_DNS_TRIES = 3 }; /* each try waits twice as long as the one before */

/* One answer, as large as it needs to be. References are counted, because askers hold it while the cache may drop it.
 */
struct hky_dns_entry {
    unsigned refs;
    int64_t until_ms; /* of the loop's clock */
    enum hky_dns_status status;
    bool is_mx, is_implicit;
    unsigned n;
    struct hky_dns_mx *mx; /* one of the two, when n > 0 */
    struct hky_dns_address {
        struct sockaddr_storage ss;
        socklen_t len;
    } * addr;
    unsigned ttl_sec;
    char text[120];
};

/* An entry that says that and why a look-up failed; it has one reference, as all entries that are made here. */
struct hky_dns_entry *hky_dns_entry_failed(enum hky_dns_status status, const char *text);
void hky_dns_entry_unref(struct hky_dns_entry **e);

/* The values that hky_dns_new chooses for the engine; tests use other files and shorter times. */
struct hky_dns_params {
    const char *resolver;  /* "addr:port" of one server; NULL: those of `file` */
    const char *file;      /* borrowed until hky_dns_free */
    uint16_t port;         /* of the servers that the file names */
    int try_ms, tries;     /* how long the first try waits, and how often each server is asked */
    int64_t check_file_ms; /* how often the file is looked at, at most */
};
/* Errors as of hky_dns_new. */
enum hky_err hky_dns_new_with(struct hky_loop *loop, const struct hky_dns_params *p, struct hky_dns **out,
                              struct hky_error *e);

/* A domain or host name in lower case without its final dot; false: not one (253 octets, labels of 1 to 63). */
bool hky_dns_name(struct hky_str text, char out[254]);

/* What c-ares gave for a question for MX records: its `status`, and the reply of `n` octets, which is hostile. The
 * second makes the answer of a domain without them: the domain itself (RFC 5321 5.1). */
struct hky_dns_entry *hky_dns_from_mx(const char *domain, int status, const unsigned char *reply, int n);
struct hky_dns_entry *hky_dns_implicit_mx(const char *domain);
/* The name that `name` is an alias of by this answer (its CNAME record), in lower case; false: there is none. */
bool hky_dns_alias_of(const char *name, const unsigned char *reply, int n, char out[256]);
struct ares_addrinfo;
struct hky_dns_entry *hky_dns_from_addrinfo(const char *name, int status, const struct ares_addrinfo *ai);
struct hky_dns_entry *hky_dns_from_literal(const char *text); /* NULL: not an address */

/* Make the asker's copy, with hosts of equal preference in random order. */
void hky_dns_copy_mx(const struct hky_dns_entry *e, struct hky_dns_mx_answer *a);
void hky_dns_copy_addr(const struct hky_dns_entry *e, struct hky_dns_addr_answer *a);

#endif
