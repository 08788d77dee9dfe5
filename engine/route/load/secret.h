/*
 * secret -- reading a secret, with a bound of time of the caller's choice
 */
#ifndef HKY_ROUTE_LOAD_SECRET_H
#define HKY_ROUTE_LOAD_SECRET_H

#include "hikyaku/policy.h"

#define HKY_SECRET_MOST_MS 10000 /* how long the functions of hikyaku/policy.h wait for a command or a slow file */

/* hky_policy_read_secret_unless() with another bound: HKY_E_TIMEOUT after `most_ms`; a command is killed then. */
enum hky_err hky_secret_read(const struct hky_policy *p, const struct hky_secret_ref *ref, int64_t most_ms,
                             const atomic_bool *is_over, struct hky_secret **out, struct hky_error *e);

#endif
