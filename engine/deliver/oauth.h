/*
 * oauth -- access tokens by refresh (RFC 6749 section 6): the form to post, the answer, and the value for state.db.
 * Pure.
 */
#ifndef HKY_DELIVER_OAUTH_H
#define HKY_DELIVER_OAUTH_H

#include "base/buf.h"
#include "base/error.h"
#include "base/secret.h"
#include "hikyaku/policy.h"

struct hky_oauth_token {
    struct hky_secret *access;
    struct hky_secret *refresh; /* a new refresh token; NULL: the old one stays valid */
    int64_t for_ms;
};
/* Gives up both secrets. */
void hky_oauth_token_fini(struct hky_oauth_token *t);

/* Body of the POST to token_url. */
void hky_oauth_form(const struct hky_relay *r, struct hky_str refresh, struct hky_str client_secret,
                    struct hky_buf *out);
/* HKY_E_DENIED: the endpoint refuses (the text is its own); HKY_E_NET: the endpoint cannot answer now; HKY_E_SYNTAX:
 * the answer holds no token. */
enum hky_err hky_oauth_parse(int status, struct hky_str body, struct hky_oauth_token *out, struct hky_error *e);
/* Appends the value for state.db: the newest refresh token, tied to the one written in the policy (`original`), so that
 * a new one in the policy wins. */
void hky_oauth_format_stored(const struct hky_oauth_token *t, struct hky_str original, struct hky_buf *out);
/* The refresh token to use: the stored one when it was obtained by means of `original`, else `original`. */
struct hky_secret *hky_oauth_stored_refresh(const char *stored, struct hky_str original);

#endif
