/*
 * header -- the header section of a message (RFC 5322), as octets with CRLF line ends; nothing is copied.
 */
#ifndef HKY_MAIL_HEADER_H
#define HKY_MAIL_HEADER_H

#include "mail/address.h"

struct hky_field {
    struct hky_str whole; /* name, colon, value, folds, final CRLF */
    struct hky_str name;  /* without colon and trailing blanks */
    struct hky_str value; /* after the colon, before the final CRLF, folds inside */
};
/* Next field from *at (0 to start); false at the end of the section (the empty line, or the end of `section`). A line
 * that is no field (no colon, leading blank) comes with an empty name. Linear. */
bool hky_field_next(struct hky_str section, size_t *at, struct hky_field *out);
/* Octets of the lines "From a@b Sat Nov 28 ..." that a mailbox file puts in front of a message (also ">From "), 0 when
 * there are none. They are no fields. */
size_t hky_mbox_line_octets(struct hky_str message);
/* First field of that name. */
bool hky_field_find(struct hky_str section, const char *name, struct hky_field *out);
/* Octets of the header section with its empty line; the whole of `message` when there is none. */
size_t hky_header_octets(struct hky_str message);

/* Unfolded (CRLF removed) and RFC 2047 words decoded to UTF-8 (iconv: ISO-2022-JP incl. CP50221 habits, Shift_JIS as
 * CP932, EUC-JP, UTF-8, ISO-8859-*, ...); undecodable words stay as they are; text that was not
 * encoded is read as UTF-8, as ISO-2022-JP where it has its escapes, or as Shift_JIS or EUC-JP where all of a line
 * fits; other 8-bit octets become U+FFFD. */
void hky_field_decode(struct hky_str value, struct hky_buf *out);
/* The same for a display name: quotes and their backslashes go, words within quotes are decoded as well. */
void hky_phrase_decode(struct hky_str raw, struct hky_buf *out);
/* One RFC 2047 word or several, UTF-8 base64, for a display name we make ourselves; plain ASCII stays plain (quoted if
 * needed). */
void hky_phrase_encode(struct hky_str utf8, struct hky_buf *out);
/* The same for unstructured text (Subject): never quoted. Folded; `column` octets are on the first line already. */
void hky_text_encode(struct hky_str utf8, size_t column, struct hky_buf *out);
/* Octets of the RFC 2047 word at the start of `s` as one may be part of a phrase, 0 when there is none. One with
 * blanks, brackets, quotes or an @ inside is none: other programs would find another address in it. */
size_t hky_word_octets(struct hky_str s);

/* Mailboxes of an address field (From, Reply-To, To): display name as raw octets (decode with hky_field_decode), groups
 * are entered, comments skipped (a comment after a bare address serves as the name). At most `max`; returns how many
 * there are (may exceed max); malformed parts are skipped and set *is_bad. Spans point into `value`. */
struct hky_mailbox {
    struct hky_str name; /* raw phrase with its quotes or encoded words, or comment content; "" none */
    struct hky_str span; /* the whole mailbox as written */
    struct hky_str spec; /* the address as written, without its angle brackets */
    struct hky_address address;
};
size_t hky_mailboxes_parse(struct hky_str value, struct hky_mailbox *out, size_t max, bool *is_bad);
/* Appends `value` with "@domain" behind each mailbox that is a bare name: root, "Admin <root>", "root (Cron)". Names in
 * quotes, comments, encoded words and before a group's colon are no mailboxes. A value with a malformed part is
 * appended as it is. */
void hky_mailboxes_complete(struct hky_str value, const char *domain, struct hky_buf *out);
/* Does every program find the same single mailbox in this From field? It is then in `out`; false: they may find
 * different ones. They differ where the value is malformed, where a quote or a comment has no end, and where another
 * address (with a dot in its domain) is outside of quotes and comments. Some programs know neither JIS nor Shift_JIS
 * and take half of a character for a quote, or end an entry at the comma in an encoded word: beside such text another
 * address may be nowhere, and JIS must be whole. In JIS itself one counts where a delimiter precedes it and its domain
 * could exist. Without such text, an address in a quoted name or in a comment is an author to no program. Linear. */
bool hky_author_is_clear(struct hky_str value, struct hky_address *out);
/* Is `out` the only address with a domain in this From field, however it is read? Some programs may find none where the
 * field is malformed, as in "Yamada, Taro <a@x.test>", but no program finds another one. Linear. */
bool hky_author_is_only(struct hky_str value, struct hky_address *out);

#endif
