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

#endif
