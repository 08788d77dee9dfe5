/*
 * mask -- a login's secrets taken out of what a server says: some repeat them, and replies are shown, logged and kept.
 * Pure.
 */
#ifndef HKY_DELIVER_MASK_H
#define HKY_DELIVER_MASK_H

#include "base/buf.h"
#include "hikyaku/outcome.h"

#define HKY_MASK_PAIRS 1024

/* The secrets of one connection, prepared once: nearly every reply is cleared by one look at its pairs of octets. */
struct hky_mask {
    struct hky_needle *needles;
    unsigned n;
    struct hky_buf octets; /* of all needles; wiped */
    bool has_short;
    uint64_t pairs[HKY_MASK_PAIRS / 64]; /* that a needle begins with */
};
void hky_mask_init(struct hky_mask *m);
void hky_mask_fini(struct hky_mask *m);

/*
 * A password or token. It is found as it is, in any case; percent-encoded; and in base64 at any place of what was
 * encoded (the pieces of LOGIN, the one of PLAIN, the tokens), then the whole run of base64. A beginning of it at the
 * end of a text that was cut counts, too. An empty secret changes nothing.
 */
void hky_mask_add(struct hky_mask *m, struct hky_str secret);
/* What was sent in an AUTH exchange, base64: found as it is, and the digest or proof in it by itself. */
void hky_mask_add_response(struct hky_mask *m, struct hky_str response);

/* Replaces all that is found in the reply's text by "***"; the text never grows. */
void hky_mask_reply(const struct hky_mask *m, struct hky_reply *r);
/* For one secret and one text. */
void hky_mask_secret(struct hky_reply *r, struct hky_str secret);
void hky_mask_text(char *text, struct hky_str secret);

#endif
