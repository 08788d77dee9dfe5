/*
 * probe_words -- the connection test's own texts (not those of servers) in Japanese. Pure.
 */
#ifndef HKY_DELIVER_PROBE_WORDS_H
#define HKY_DELIVER_PROBE_WORDS_H

#include "base/buf.h"

/* Appends the local cause `text`: in Japanese when it is a known one, else unchanged. */
void hky_probe_words_ja(struct hky_str text, struct hky_buf *out);

#endif
