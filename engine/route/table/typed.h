/*
 * typed -- recognises typed values that look right and are wrong: blanks at the ends, several values in one string,
 * full-width characters, curly quotes, octets that end a line. Pure; each function says what to write instead.
 */
#ifndef HKY_ROUTE_TYPED_H
#define HKY_ROUTE_TYPED_H

#include "base/str.h"

#include <stdbool.h>

#define HKY_TYPED_HINT 320

/* Why this string may not occur in a policy, as a text that follows "there": "is a NUL octet", "is a line end", "is a
 * control octet", "are octets that are not UTF-8"; NULL: it may. */
const char *hky_typed_fault(struct hky_str s);

/* What to write instead of a value that is no address, domain or host, as ": write ..."; "" when no hint is known.
 * `may_be_many`: a list of values would be allowed, too. */
const char *hky_typed_hint(struct hky_str s, bool may_be_many, char out[HKY_TYPED_HINT]);

/* The first character in a line of Lua that is outside of strings and comments and is not ASCII; NULL: there is none.
 * `n` is the length of the line from that character on. */
const char *hky_typed_stray(struct hky_str line, size_t *n);

#define HKY_SECRET_NAME_MAX 96
/* Letters, digits and ._/- without "..", not absolute. */
bool hky_secret_name_is_valid(const char *s);

#endif
