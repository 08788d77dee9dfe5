/*
 * login -- the client's side of AUTH (RFC 4954): PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256 by GNU SASL; XOAUTH2 and
 * OAUTHBEARER (RFC 7628) are one string each. No I/O.
 */
#ifndef HKY_SMTP_LOGIN_H
#define HKY_SMTP_LOGIN_H

#include "base/buf.h"
#include "base/error.h"
#include "base/secret.h"
#include "hikyaku/policy.h"

#define HKY_SCRAM_ITERATIONS_MAX 100000

struct hky_login;
struct hky_login_params {
    enum hky_auth auth; /* a mechanism, not AUTO or NONE */
    const char *user;
    const char *host; /* OAUTHBEARER */
    uint16_t port;
    struct hky_secret *secret; /* password or access token; a reference is taken */
};

/* The best of `offered` (bits 1 << hky_auth) for `asked`; HKY_AUTH_NONE: none fits. Without TLS mechanisms
 * that show the password come last. */
enum hky_auth hky_login_choose(enum hky_auth asked, bool has_oauth, uint32_t offered, bool is_secure);
/* May the password or token go over this connection? Over TLS when the server proved who it is; in the clear only where
 * the policy says tls = "none", and then only when the mechanism is named or the server is this machine. */
bool hky_login_may_be_sent(const struct hky_relay *r, bool is_secure, bool is_verified, bool is_loopback);
bool hky_login_has_oauth(const struct hky_relay *r);
const char *hky_auth_name(enum hky_auth a); /* "PLAIN"; "" for AUTO and NONE */
bool hky_auth_is_token(enum hky_auth a);

/* HKY_E_SYNTAX: user name, password or token has control octets. HKY_E_MISSING: the secret is empty. HKY_E_STATE: GNU
 * SASL does not know the mechanism. With all three nothing may be sent, and `e` is for the operator. */
enum hky_err hky_login_new(const struct hky_login_params *p, struct hky_login **out, struct hky_error *e);
void hky_login_free(struct hky_login **s);
/* The mechanism as it is written after AUTH: "PLAIN". */
const char *hky_login_name(const struct hky_login *s);
/* Appends " INITIAL-RESPONSE" where the mechanism has one, and the whole line stays below 512 octets (RFC 4954 4);
 * otherwise the response is the answer to the first 334. `out` already has the beginning of the line. HKY_E_LIMIT: the
 * secret is too long for a login. HKY_E_DENIED: GNU SASL refuses. */
enum hky_err hky_login_begin(struct hky_login *s, struct hky_buf *out, struct hky_error *e);
/* Takes the text of a 334 reply and appends the answer, in base64. Refuses SCRAM iteration counts above the bound.
 * HKY_E_SYNTAX: the challenge is not base64; HKY_E_LIMIT: such a count; HKY_E_DENIED: GNU SASL refuses it. Then the
 * login cannot be continued. */
enum hky_err hky_login_step(struct hky_login *s, struct hky_str challenge, struct hky_buf *out, struct hky_error *e);
/* May a 235 be believed? Only when all that belongs to the login was sent, and for SCRAM the server's signature
 * fitted. */
bool hky_login_is_satisfied(const struct hky_login *s);

#endif
