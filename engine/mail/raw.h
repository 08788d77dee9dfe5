/*
 * raw -- header text that was not encoded: Japanese in ISO-2022-JP or Shift_JIS has octets that look like delimiters.
 */
#ifndef HKY_MAIL_RAW_H
#define HKY_MAIL_RAW_H

#include "base/str.h"

/* Octets at the start of `s` (not empty) that belong together: a run of two-octet JIS, an escape sequence, a Shift_JIS
 * pair where `is_sjis` (the value is not UTF-8), else one. Never reaches over a line end. */
static inline size_t hky_raw_octets(struct hky_str s, bool is_sjis)
{
    unsigned char c = (unsigned char)s.p[0], next = s.n > 1 ? (unsigned char)s.p[1] : 0;

    if (c == 0x1b && next == '$') {
        size_t n = 2;
        while (n < s.n && s.p[n] != '\x1b' && s.p[n] != '\r' && s.p[n] != '\n')
            n++;
        return n;
    }
    if (c == 0x1b && next == '(' && s.n > 2 && s.p[2] != '\r' && s.p[2] != '\n')
        return 3;
    if (is_sjis && ((c >= 0x81 && c <= 0x9f) || (c >= 0xe0 && c <= 0xfc)) && next >= 0x40 && next != 0x7f)
        return 2;
    return 1;
}

/* One reading of hky_raw_quoted: raw text kept together (`is_whole`) or octet by octet. */
static inline size_t hky_raw_quoted_end(struct hky_str s, bool is_sjis, bool is_whole)
{
    for (size_t i = 1; i < s.n;) {
        if (s.p[i] == '"')
            return i + 1;
        if (s.p[i] == '\\')
            i += 2;
        else
            i += is_whole ? hky_raw_octets(hky_str_of(s.p + i, s.n - i), is_sjis) : 1;
    }
    return 0;
}

/* Octets of the quoted string that `s` begins with, quotes included; 0: it does not end. The second octet of a raw
 * character may look like a quote or a backslash; where the string does not end when read so, the octets are taken
 * each by itself. */
static inline size_t hky_raw_quoted(struct hky_str s, bool is_sjis)
{
    size_t n = hky_raw_quoted_end(s, is_sjis, true);

    return n > 0 ? n : hky_raw_quoted_end(s, is_sjis, false);
}

/* The offset behind the comment that begins at `at`; 0: it does not end. Nested ones are counted, without recursion.
 */
static inline size_t hky_raw_comment_end(struct hky_str v, size_t at)
{
    size_t depth = 0;

    for (; at < v.n; at++)
        if (v.p[at] == '\\')
            at++;
        else if (v.p[at] == '(')
            depth++;
        else if (v.p[at] == ')' && --depth == 0)
            return at + 1;
    return 0;
}

#endif
