/*
 * dot -- message content on the wire (RFC 5321 4.5.2): dot-stuffing out, end of data in. State survives buffer bounds.
 */
#ifndef HKY_MAIL_DOT_H
#define HKY_MAIL_DOT_H

#include "base/buf.h"

/* In: only CRLF.CRLF ends. A bare LF becomes CRLF; a bare CR and NUL are noted (the message is to be refused, 550 5.6.0
 * after the end); leading dots are unstuffed, behind a bare LF those that are before another dot. */
struct hky_dot_reader {
    uint8_t state;
    bool has_bare_cr, has_nul, has_bare_lf, has_8bit;
    bool may_have_dot_lines; /* false: no line of the content begins with a dot */
    bool is_wide;            /* looks at 32 octets at a time, where the processor can (AVX2); else at 16 */
};
void hky_dot_reader_init(struct hky_dot_reader *r);
/* Consumes from p, appends content to out (out over its max: content is dropped, reading goes on). Returns octets
 * consumed; *is_end when CRLF.CRLF was met (what follows is not consumed). */
size_t hky_dot_read(struct hky_dot_reader *r, const char *p, size_t n, struct hky_buf *out, bool *is_end);

/* The same line-end rules for BDAT chunks (no dots, no end). After the LAST chunk: hky_bdat_end, which notes a CR that
 * nothing follows. */
void hky_bdat_read(struct hky_dot_reader *r, const char *p, size_t n, struct hky_buf *out);
void hky_bdat_end(struct hky_dot_reader *r);

/* Out: calls emit with runs that need no stuffing (borrowed from p) and with "." where a line begins with a dot. A body
 * without such lines is one run. at_line_start: state, true at first. hky_dot_end gives what must follow the last
 * octet:
 * ".\r\n" or "\r\n.\r\n". Content has CRLF line ends already. */
void hky_dot_write(const char *p, size_t n, uint8_t *state, void (*emit)(void *ctx, const char *p, size_t n),
                   void *ctx);
const char *hky_dot_end(uint8_t state);

#endif
