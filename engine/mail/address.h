/*
 * address -- mailboxes and domains (RFC 5321 4.1.2), lenient where real carriers need it (a..b@docomo.ne.jp,
 * a.@ezweb.ne.jp).
 *
 * Canonical form, used everywhere inside: raw local part (needless quotes and escapes removed, case kept), '@', domain
 * as A-labels in lower case without final dot. Two mailboxes are one when local parts match with ASCII case ignored.
 */
#ifndef HKY_MAIL_ADDRESS_H
#define HKY_MAIL_ADDRESS_H

#include "base/buf.h"
#include "base/error.h"

#define HKY_LOCALPART_MAX 64
#define HKY_DOMAIN_MAX    253
#define HKY_ADDRESS_MAX   (HKY_LOCALPART_MAX + 1 + HKY_DOMAIN_MAX)

struct hky_address {
    char text[HKY_ADDRESS_MAX + 1]; /* canonical, NUL-terminated; "" = the null path or postmaster without domain */
    uint16_t n;                     /* octets in text */
    uint16_t local_n;               /* octets before the @ */
    bool is_utf8;                   /* local part has octets above 0x7f: needs SMTPUTF8 */
};
static inline struct hky_str hky_address_str(const struct hky_address *a)
{
    return hky_str_of(a->text, a->n);
}
static inline struct hky_str hky_address_local(const struct hky_address *a)
{
    return hky_str_of(a->text, a->local_n);
}
static inline struct hky_str hky_address_domain(const struct hky_address *a)
{
    return a->n > a->local_n ? hky_str_of(a->text + a->local_n + 1, (size_t)(a->n - a->local_n - 1))
                             : hky_str_of("", 0);
}

enum { HKY_PATH_MAY_BE_NULL = 1, HKY_PATH_MAY_BE_POSTMASTER = 2, HKY_PATH_UTF8 = 4 };
/* A path as in MAIL/RCPT, "<...>" at the start of `s`; source routes are dropped; *used = octets consumed.
 * HKY_E_SYNTAX / HKY_E_LIMIT with text. Control octets, bare 8-bit without HKY_PATH_UTF8, [address literals] with
 * wrong content are refused. */
enum hky_err hky_path_parse(struct hky_str s, unsigned flags, struct hky_address *out, size_t *used,
                            struct hky_error *e);
/* A bare mailbox "a..b@docomo.ne.jp" or "\"a b\"@x.example", the whole of `s`. HKY_E_SYNTAX, HKY_E_LIMIT with text. */
enum hky_err hky_mailbox_parse(struct hky_str s, struct hky_address *out, struct hky_error *e);
/* Domain to A-labels, lower case, no final dot (libidn2, UTS46 non-transitional; U+3002 is a dot). out holds 254.
 * HKY_E_SYNTAX, HKY_E_LIMIT with text. */
enum hky_err hky_domain_normalise(struct hky_str s, char out[HKY_DOMAIN_MAX + 1], struct hky_error *e);
/* For the wire: local part quoted when it is not a dot-string; `is_raw`: as it is. Appends without <>. */
void hky_address_format(struct hky_str canonical, bool is_raw, struct hky_buf *out);
/* Same mailbox? Both canonical. */
bool hky_address_eq(struct hky_str a, struct hky_str b);
/* Does `entry` match this canonical address ("" is the null sender)? "*" matches every one, "<>" the null
 * sender, "a@b.example" for that mailbox, "b.example" for all of the domain, ".b.example" for all of its subdomains but
 * not itself. Case is ignored; quotes and names in other scripts are compared as they are meant. The one place that
 * says so: route's sets are an index of the same entries. */
bool hky_address_fits(struct hky_str entry, struct hky_str canonical);
/* Can `entry` match anybody, as hky_address_fits has it? HKY_E_SYNTAX: `e` says what to write instead. */
enum hky_err hky_address_entry_check(struct hky_str entry, struct hky_error *e);
/* local part, domain of a canonical address (at the last @). */
void hky_address_split(struct hky_str canonical, struct hky_str *local, struct hky_str *domain);

#endif
