/*
 * reply -- SMTP replies as a client reads them (RFC 5321 4.2), bounded and strict.
 */
#ifndef HKY_MAIL_REPLY_H
#define HKY_MAIL_REPLY_H

#include "base/buf.h"
#include "base/error.h"
#include "hikyaku/outcome.h"

#define HKY_REPLY_LINE_MAX  2048
#define HKY_REPLY_LINES_MAX 100

struct hky_reply_reader {
    uint16_t code; /* of the reply under way, 0 none */
    uint8_t n_lines;
    uint32_t octets;
    struct hky_reply reply;
    struct hky_buf part;  /* the line that has begun and not ended */
    struct hky_buf lines; /* raw lines of a multi-line reply without codes, LF between; for EHLO keywords and probe */
};
/* A reader at the beginning of a reply; fini frees its texts. */
void hky_reply_reader_init(struct hky_reply_reader *r);
void hky_reply_reader_fini(struct hky_reply_reader *r);
enum hky_reply_status { HKY_REPLY_MORE, HKY_REPLY_WHOLE, HKY_REPLY_BAD };
/* Consumes at most one reply from p; *used = octets. WHOLE: r->reply and r->lines hold it until the next call. BAD: not
 * SMTP (wrong code, mixed codes, too long, NUL): close. Enhanced code only when its class matches the code's; repeated
 * "5.7.26" prefixes of lines are removed; text printable UTF-8. A bare LF ends a line as well: some servers send it. */
enum hky_reply_status hky_reply_read(struct hky_reply_reader *r, const char *p, size_t n, size_t *used,
                                     struct hky_error *e);

/* What the words of a refusal speak of, where the code alone does not say it. Pure. */
bool hky_reply_counts_connections(const struct hky_reply *r); /* too many connections or sessions at once */
bool hky_reply_counts_recipients(const struct hky_reply *r);  /* too many recipients (RFC 5321 4.5.3.1.10) */
bool hky_reply_counts_messages(const struct hky_reply *r);    /* too many messages for one connection */

#endif
