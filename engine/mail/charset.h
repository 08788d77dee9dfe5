/*
 * charset -- text of the charsets that mail uses, to UTF-8. Only known charsets are handed to iconv: the name comes
 * from the message.
 */
#ifndef HKY_MAIL_CHARSET_H
#define HKY_MAIL_CHARSET_H

#include "base/buf.h"

/* Appends `s` as UTF-8; octets without a meaning become U+FFFD. False: the charset is unknown, nothing was appended.
 * ISO-2022-JP is read as CP50221 (NEC row 13, IBM extensions, half-width katakana), Shift_JIS as CP932, EUC-JP with the
 * same extensions, ISO-8859-1 and US-ASCII as windows-1252 and UTF-8. */
bool hky_charset_decode(struct hky_str charset, struct hky_str s, struct hky_buf *out);
/* Appends `s`, with U+FFFD in place of each octet that is not UTF-8. */
void hky_utf8_repair(struct hky_str s, struct hky_buf *out);

#endif
