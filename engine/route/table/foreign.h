/*
 * foreign -- characters that look like others or like nothing: full-width letters, blanks that are no blanks, invisible
 * ones. They come from Japanese keyboards, web pages and word processors, and a value that has one never equals what
 * its writer means. Pure.
 */
#ifndef HKY_ROUTE_FOREIGN_H
#define HKY_ROUTE_FOREIGN_H

#include "base/str.h"

#include <stdbool.h>

enum hky_foreign_kind {
    HKY_FOREIGN_NONE,
    HKY_FOREIGN_INVISIBLE,
    HKY_FOREIGN_BLANK, /* no-break and wide blanks */
    HKY_FOREIGN_WIDE,  /* U+FF01 to U+FF5E */
    HKY_FOREIGN_MARK   /* curly quotes, dashes, Japanese brackets, comma and full stop */
};

struct hky_foreign {
    enum hky_foreign_kind kind;
    const char *at;
    size_t n; /* octets */
    uint32_t code;
    char ascii;           /* the ASCII character that it resembles; 0: none */
    bool is_warning_only; /* the character may be intended */
};

/* How a string of a policy is read, and so which characters it may have. */
enum hky_foreign_use {
    HKY_FOREIGN_EXACT, /* addresses, hosts, logins, words of the language: other programs compare them */
    HKY_FOREIGN_NAME,  /* names that people choose, in any script: of scenarios, tags, relays, files */
    HKY_FOREIGN_FREE   /* notes, arguments of commands: anything */
};

/* Describe the character at `s.p`; the kind is HKY_FOREIGN_NONE for a character of none of these kinds. */
struct hky_foreign hky_foreign_at(struct hky_str s);
/* The first character that a string of this use should not have; a name may have full-width letters and blanks in a
 * text of another script, and joiners between its letters. */
struct hky_foreign hky_foreign_find(struct hky_str s, enum hky_foreign_use use);
/* Copy `s`, with each foreign character replaced by the ASCII character that it resembles, cut to `room`; false: `s`
 * has none. */
bool hky_foreign_to_ascii(struct hky_str s, char *out, size_t room);

#define HKY_FOREIGN_TEXT 400
/* The character found in `s`, and what to write: `is U+FF41 "ａ" (a full-width character) in it: write "user"`, to
 * follow "there". `is_shown`: the rest of `s` may be shown, which it may not be of a password. */
const char *hky_foreign_text(struct hky_str s, const struct hky_foreign *found, bool is_shown,
                             char out[HKY_FOREIGN_TEXT]);

#endif
