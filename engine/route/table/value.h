/*
 * value -- the small grammars of the policy language: sizes, caps, networks; durations are base's. Pure.
 */
#ifndef HKY_ROUTE_VALUE_H
#define HKY_ROUTE_VALUE_H

#include "base/duration.h"
#include "hikyaku/policy.h"

bool hky_octets_parse(struct hky_str s, uint64_t *octets);   /* "25M" "64K" "1G", or octets */
bool hky_cap_parse(struct hky_str s, struct hky_cap *out);   /* "10/min" "500 recipients/day"; text is not set */
bool hky_cidr_parse(struct hky_str s, struct hky_cidr *out); /* "10.0.0.0/8" "::1" */
/* A numeric IPv4 or IPv6 address, without brackets? */
bool hky_ip_is_valid(const char *text);
/* The one form of a server's name or address, so that an account written twice is found to be one: lower case,
 * A-labels, no final dot, IPv6 shortened. false: it is neither; `out` is a copy. */
bool hky_host_normalise(const char *host, char out[256]);

#endif
