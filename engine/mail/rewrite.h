/*
 * rewrite -- the header section for one attempt (POLICY.md 2c). The original is never touched; untouched fields are
 * octet-exact; output has CRLF only and no line above 998 octets that was not so before.
 */
#ifndef HKY_MAIL_REWRITE_H
#define HKY_MAIL_REWRITE_H

#include "mail/header.h"

struct hky_rewrite {
    const char *from;           /* new From address (canonical), NULL: From stays octet-exact */
    const char *reply_to;       /* address for Reply-To where the message has none, NULL none */
    bool reply_to_forced;       /* replaces one that is there */
    const char *message_id;     /* "<...>" replaces Message-ID, NULL keeps */
    const char *date;           /* added when Date is missing, NULL none */
    const char *add_message_id; /* added when Message-ID is missing, NULL none */
    const struct {
        const char *name, *value;
    } * set; /* ended by name NULL: replace or add (resend's Subject); value UTF-8, encoded here */
};
/*
 * With `from`: the first From's first mailbox gives the display name, kept octet-exact (quotes, encoded words in
 * ISO-2022-JP, UTF-8, Shift_JIS); several addresses, groups, comments, folds, duplicate or missing From all become one
 * From of one mailbox that every program finds (hky_author_is_clear): the name is encoded anew where it is in the way.
 * A From in which no program finds anybody else than `from` already stays octet-exact, malformed or not. In front of
 * one mailbox of a malformed From all the text is its name. Reply-To: without one, the old author is put there, or all
 * of them, unless that is `from` alone. Removed when From changes: DKIM-Signature,
 * DomainKey-Signature, ARC-*, Authentication-Results, Received-SPF, Sender. Always removed: Return-Path, Bcc,
 * X-Hikyaku-*. `out` gets the section with its empty line. HKY_E_LIMIT: out is over its maximum.
 */
enum hky_err hky_rewrite_header(struct hky_str section, const struct hky_rewrite *rw, struct hky_buf *out,
                                struct hky_error *e);

#endif
