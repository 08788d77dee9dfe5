/*
 * secret -- a password or key: cleared on free, never printed, kept out of core files where the kernel allows.
 */
#ifndef HKY_BASE_SECRET_H
#define HKY_BASE_SECRET_H

#include "base/str.h"

struct hky_secret;

struct hky_secret *hky_secret_new(struct hky_str value); /* copies; the caller clears its own copy */
struct hky_secret *hky_secret_ref(struct hky_secret *s); /* counted, any thread */
void hky_secret_unref(struct hky_secret **s);            /* clears the octets with the last one; NULL inside is fine */
struct hky_str hky_secret_value(const struct hky_secret *s); /* for the wire only; NULL gives "" */
void hky_secret_wipe(void *p, size_t n);                     /* clears octets; the compiler cannot remove it */

#endif
