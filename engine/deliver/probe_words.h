/*
 * probe_words -- what a connection test says of its own (no server's words), in Japanese. Pure.
 */
#ifndef HKY_DELIVER_PROBE_WORDS_H
#define HKY_DELIVER_PROBE_WORDS_H

#include "base/buf.h"

/* Appends the local cause `text`, in Japanese where it is one that is known, else as it is. */
void hky_probe_words_ja(struct hky_str text, struct hky_buf *out);

#endif
