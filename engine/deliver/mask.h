/*
 * mask -- takes a login's secrets out of a server's replies: some servers repeat them, and replies are shown, logged
 * and kept. Pure.
 */
#ifndef HKY_DELIVER_MASK_H
#define HKY_DELIVER_MASK_H

#include "base/buf.h"
#include "hikyaku/outcome.h"

#define HKY_MASK_PAIRS 1024

/* The secrets of one connection, prepared once, so that one look at the pairs of octets in a reply shows for nearly
 * every reply that it holds no secret. */
struct hky_mask {
    struct hky_needle *needles;
    unsigned n;
    struct hky_buf octets; /* of all needles; wiped */
    bool has_short;
    uint64_t pairs[HKY_MASK_PAIRS / 64]; /* a bit for each pair of octets that a needle begins with */
};
void hky_mask_init(struct hky_mask *m);
void hky_mask_fini(struct hky_mask *m);

/*
 * Adds a password or token. It is found as it is, in upper or lower case; percent-encoded; and in base64 at any place
 * of the encoded text (as in LOGIN, PLAIN and the token mechanisms), where the whole run of base64 is masked. The
 * beginning of a secret at the end of a text that was cut counts, too. An empty secret changes nothing.
 */
void hky_mask_add(struct hky_mask *m, struct hky_str secret);
/* Adds what was sent in an AUTH exchange, in base64. It is found as it is, and so is the digest or proof in it by
 * itself. */
void hky_mask_add_response(struct hky_mask *m, struct hky_str response);

/* Replaces every secret that is found in the reply's text by "***"; the text never grows. */
void hky_mask_reply(const struct hky_mask *m, struct hky_reply *r);
/* These do the same for one secret and one text. */
void hky_mask_secret(struct hky_reply *r, struct hky_str secret);
void hky_mask_text(char *text, struct hky_str secret);

#endif
