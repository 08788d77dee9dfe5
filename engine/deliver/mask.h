/*
 * mask -- a login's secret taken out of what a server says: some repeat it in a refusal, and replies are shown, logged
 * and kept. Pure.
 */
#ifndef HKY_DELIVER_MASK_H
#define HKY_DELIVER_MASK_H

#include "hikyaku/outcome.h"

/*
 * Replaces the secret in the reply's text by "***": as it is, in any case; percent-encoded; and in base64 at any place
 * of what was encoded (the pieces of LOGIN, the one of PLAIN, the tokens), then the whole run of base64. A beginning of
 * it at the end of a text that was cut counts, too. An empty secret changes nothing.
 */
void hky_mask_secret(struct hky_reply *r, struct hky_str secret);
/* The same for text that is in `text`, NUL-terminated; it never grows. */
void hky_mask_text(char *text, struct hky_str secret);

#endif
