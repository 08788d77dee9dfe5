/*
 * endpoint -- "host:port" as policies, options and the environment write it, and which addresses are this machine's
 * own.
 */
#ifndef HKY_BASE_ENDPOINT_H
#define HKY_BASE_ENDPOINT_H

#include "base/str.h"

/* "mail.example:25", "127.0.0.1:25", "[::1]:25": the brackets go. false: no port, no host, something else. */
bool hky_endpoint_parse(struct hky_str s, char host[256], uint16_t *port);
/* A numeric address of 127.0.0.0/8 or ::1, also as ::ffff:127.0.0.1. A name is none, whatever it may mean. */
bool hky_is_loopback(const char *address);
/* The same of "localhost", which is this machine whatever a resolver says. */
bool hky_host_is_here(const char *host);

/* Addresses as numbers; IPv4 is compared and kept as v4-mapped IPv6. */
struct in6_addr;
struct sockaddr_storage;
void hky_in6_of(const struct sockaddr_storage *ss, struct in6_addr *out);
bool hky_in6_is_loopback(const struct in6_addr *a);
/* Would a connection to it end at this machine: loopback, or one of 0.0.0.0/8 or ::, which the kernel takes for it? */
bool hky_in6_is_here(const struct in6_addr *a);

#endif
