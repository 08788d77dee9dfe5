/*
 * dsn -- delivery status notifications (RFC 3464, 6522; RFC 6533 for addresses and headers in UTF-8), as octets.
 */
#ifndef HKY_MAIL_DSN_H
#define HKY_MAIL_DSN_H

#include "base/buf.h"
#include "hikyaku/outcome.h"

enum hky_dsn_action { HKY_DSN_FAILED, HKY_DSN_DELAYED, HKY_DSN_DELIVERED, HKY_DSN_RELAYED };
struct hky_dsn_recipient {
    struct hky_str address; /* canonical */
    struct hky_str orcpt;   /* "rfc822;x@y" or "" */
    enum hky_dsn_action action;
    const struct hky_reply *reply; /* last reply, or NULL */
    const char *status;            /* "5.1.1"; NULL: from the reply, else 5.0.0 / 4.0.0 */
    const char *remote_mta;        /* host or "" */
    const char *why;               /* a sentence for people, or NULL */
    int64_t last_attempt_ms;
};
struct hky_dsn {
    const char *hostname;   /* Reporting-MTA */
    const char *message_id; /* "<...>" of the notice */
    struct hky_str to;      /* envelope sender of the original, canonical */
    struct hky_str envid;
    const char *queue_id; /* of the original, as text */
    int64_t arrival_ms, now_ms;
    const struct hky_dsn_recipient *recipients;
    size_t n;
    struct hky_str original_header; /* header section, returned as text/rfc822-headers */
    struct hky_str original_body;   /* RET=FULL: the whole original after the header; {NULL,0}: headers only */
    bool is_8bit;                   /* the original has 8-bit octets */
    bool is_smtputf8;               /* its header has UTF-8: it comes back as message/global, encoded */
    bool is_for_owner;              /* it is sent to the operator, because the sender cannot be notified */
    size_t n_in_text;               /* so many recipients in the part for people; 0: all */
    size_t diagnostic_most;         /* octets of a server's words for each recipient; 0: all */
};
/* A complete message, CRLF, ASCII except for an 8-bit original that comes back whole: Auto-Submitted: auto-replied,
 * MIME multipart/report; everything printable, no injected header from replies or addresses. */
void hky_dsn_format(const struct hky_dsn *d, struct hky_buf *out);
/* "Tue, 24 Nov 2026 06:18:44 +0900" (RFC 5322 3.3), local offset given in minutes. */
void hky_date_format(int64_t at_ms, int offset_min, char out[40]);

#endif
