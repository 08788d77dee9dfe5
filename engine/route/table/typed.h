/*
 * typed -- what people type that looks right and is not: blanks at the ends, several values in one string, full-width
 * characters, curly quotes, octets that end a line. Pure; each function says what to write instead.
 */
#ifndef HKY_ROUTE_TYPED_H
#define HKY_ROUTE_TYPED_H

#include "base/str.h"

#include <stdbool.h>

#define HKY_TYPED_HINT 320

/* Why no string of a policy may be like this one, to follow "there": "is a NUL octet", "is a line end", "is a control
 * octet", "are octets that are not UTF-8"; NULL: it may. */
const char *hky_typed_fault(struct hky_str s);

/* What to write instead of a value that is no address, no domain or no host, as ": write ..."; "" when nothing is
 * known. `may_be_many`: a list of values could be there, too. */
const char *hky_typed_hint(struct hky_str s, bool may_be_many, char out[HKY_TYPED_HINT]);

/* The first character of a line of Lua that stands outside of strings and comments and is not ASCII; NULL: there is
 * none. `n` is what is left of the line from there. */
const char *hky_typed_stray(struct hky_str line, size_t *n);

/* The nearest of `n` names, or NULL when none is near. */
const char *hky_nearest(struct hky_str name, const char *const *names, size_t n);

#define HKY_SECRET_NAME_MAX 96
/* Letters, digits and ._/- without "..", not absolute. */
bool hky_is_secret_name(const char *s);

#endif
