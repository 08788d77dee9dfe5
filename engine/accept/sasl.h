/*
 * sasl -- what a login dialogue keeps while it lasts. auth.c and sasl.c only.
 */
#ifndef HKY_ACCEPT_SASL_H
#define HKY_ACCEPT_SASL_H

#include "accept/session_internal.h"

#include <gsasl.h>

#define HKY_AUTH_RESPONSE_MAX 2048

/* What the next line of the client is. */
enum accept_auth_stage { HKY_AUTH_FIRST, HKY_AUTH_PASSWORD, HKY_AUTH_PROOF, HKY_AUTH_END };

struct accept_sasl {
    Gsasl *gsasl;
};

struct accept_auth_dialogue {
    enum hky_auth mechanism;
    enum accept_auth_stage stage;
    const struct hky_user *user; /* whose secret is compared */
    bool is_known;               /* the name given is that user's */
    struct hky_buf name, password;
    struct hky_buf challenge; /* waits for the secret */
    Gsasl_session *scram;
};

void accept_auth_wipe(struct hky_buf *b); /* its octets are overwritten before they are freed */

#endif
