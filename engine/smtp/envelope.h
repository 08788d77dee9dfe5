/*
 * envelope -- MAIL and RCPT as a client writes them (RFC 5321, 1870, 3461, 6152, 6531): each parameter only where the
 * server offers it. Pure.
 */
#ifndef HKY_SMTP_ENVELOPE_H
#define HKY_SMTP_ENVELOPE_H

#include "smtp/dialogue.h"

struct hky_mail_line {
    struct hky_str sender; /* "" the null sender */
    bool is_raw;           /* the local part is written as it came, and not quoted where SMTP demands it */
    bool is_8bit, needs_utf8;
    uint64_t size;
    const char *ret;      /* "FULL", "HDRS", "" none */
    struct hky_str envid; /* plain, "" none */
};
/* Appends the line with its CRLF. The caller checks whether the server can take the message: BODY=8BITMIME and SMTPUTF8
 * are written where `m` asks for them. */
void hky_mail_line_write(const struct hky_mail_line *m, const struct hky_capabilities *caps, struct hky_buf *out);

struct hky_rcpt_line {
    struct hky_str address;
    bool is_raw;
    unsigned notify;      /* HKY_NOTIFY_ bits, 0 none */
    struct hky_str orcpt; /* "rfc822;address", plain; "" none */
};
/* The same for RCPT. */
void hky_rcpt_line_write(const struct hky_rcpt_line *r, const struct hky_capabilities *caps, struct hky_buf *out);

/* false: the text could end a line. Addresses were checked when they came in, so this only keeps a bug elsewhere
 * harmless. */
bool hky_envelope_is_one_line(struct hky_str s);

#endif
