#include "mail/charset.h"

#include <errno.h>
#include <iconv.h>

#define REPLACEMENT   "\xef\xbf\xbd"
#define REPLACEMENT_N 3

/* Names that mail uses, and the iconv name of the superset that senders mean. This file decodes "utf-8" and
 * "iso-2022-jp" itself. */
static const struct {
    const char *name, *iconv;
} charsets[] = {
    {"utf-8", "utf-8"},
    {"utf8", "utf-8"},
    {"us-ascii", "utf-8"},
    {"ascii", "utf-8"},
    {"iso-2022-jp", "iso-2022-jp"},
    {"iso-2022-jp-1", "iso-2022-jp"},
    {"iso-2022-jp-2", "iso-2022-jp"},
    {"iso-2022-jp-ms", "iso-2022-jp"},
    {"csiso2022jp", "iso-2022-jp"},
    {"cp50220", "iso-2022-jp"},
    {"cp50221", "iso-2022-jp"},
    {"cp50222", "iso-2022-jp"},
    {"shift_jis", "CP932"},
    {"shift-jis", "CP932"},
    {"sjis", "CP932"},
    {"x-sjis", "CP932"},
    {"cp932", "CP932"},
    {"ms_kanji", "CP932"},
    {"windows-31j", "CP932"},
    {"euc-jp", "EUC-JP-MS"},
    {"x-euc-jp", "EUC-JP-MS"},
    {"eucjp-ms", "EUC-JP-MS"},
    {"iso-8859-1", "WINDOWS-1252"},
    {"latin1", "WINDOWS-1252"},
    {"iso-8859-2", "ISO-8859-2"},
    {"iso-8859-3", "ISO-8859-3"},
    {"iso-8859-4", "ISO-8859-4"},
    {"iso-8859-5", "ISO-8859-5"},
    {"iso-8859-6", "ISO-8859-6"},
    {"iso-8859-7", "ISO-8859-7"},
    {"iso-8859-8", "ISO-8859-8"},
    {"iso-8859-9", "WINDOWS-1254"},
    {"iso-8859-10", "ISO-8859-10"},
    {"iso-8859-11", "TIS-620"},
    {"iso-8859-13", "ISO-8859-13"},
    {"iso-8859-14", "ISO-8859-14"},
    {"iso-8859-15", "ISO-8859-15"},
    {"iso-8859-16", "ISO-8859-16"},
    {"windows-1250", "WINDOWS-1250"},
    {"windows-1251", "WINDOWS-1251"},
    {"windows-1252", "WINDOWS-1252"},
    {"cp1252", "WINDOWS-1252"},
    {"windows-1253", "WINDOWS-1253"},
    {"windows-1254", "WINDOWS-1254"},
    {"windows-1255", "WINDOWS-1255"},
    {"windows-1256", "WINDOWS-1256"},
    {"windows-1257", "WINDOWS-1257"},
    {"windows-1258", "WINDOWS-1258"},
    {"koi8-r", "KOI8-R"},
    {"koi8-u", "KOI8-U"},
    {"gb2312", "GB18030"},
    {"gbk", "GB18030"},
    {"gb18030", "GB18030"},
    {"big5", "BIG5-HKSCS"},
    {"euc-kr", "CP949"},
    {"ks_c_5601-1987", "CP949"},
    {"tis-620", "TIS-620"},
};

void hky_utf8_repair(struct hky_str s, struct hky_buf *out)
{
    size_t plain = 0;

    if (hky_utf8_is_valid(s)) {
        hky_buf_add_str(out, s);
        return;
    }
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

        if (len <= s.n - i && hky_utf8_is_valid(hky_str_of(s.p + i, len))) {
            i += len;
            continue;
        }
        hky_buf_add(out, s.p + plain, i - plain);
        hky_buf_add(out, REPLACEMENT, REPLACEMENT_N);
        plain = ++i;
    }
    hky_buf_add(out, s.p + plain, s.n - plain);
}

/* Converts all of `s`; an octet that does not convert becomes U+FFFD, and conversion continues with the next one. */
static bool convert(const char *name, struct hky_str s, struct hky_buf *out)
{
    iconv_t cd = iconv_open("UTF-8", name);
    char piece[1024], *in = (char *)(uintptr_t)s.p; /* iconv does not write there */
    size_t in_n = s.n;

    if (cd == (iconv_t)-1)
        return false;
    while (in_n > 0 && !out->is_over) {
        char *to = piece;
        size_t room = sizeof piece;
        size_t rc = iconv(cd, &in, &in_n, &to, &room);
        int err = errno;

        hky_buf_add(out, piece, (size_t)(to - piece));
        if (rc != (size_t)-1 || (err == E2BIG && room < sizeof piece))
            continue;
        hky_buf_add(out, REPLACEMENT, REPLACEMENT_N);
        in++;
        in_n--;
        iconv(cd, NULL, NULL, NULL, NULL);
    }
    /* Some charsets keep a character back to see whether it combines. */
    char *to = piece;
    size_t room = sizeof piece;
    if (iconv(cd, NULL, NULL, &to, &room) != (size_t)-1)
        hky_buf_add(out, piece, (size_t)(to - piece));
    iconv_close(cd);
    return true;
}

/* A JIS X 0208 pair (0x21..0x7e each) as CP932, which has the vendors' rows that CP50221 has. */
static void add_pair_as_cp932(unsigned char hi, unsigned char lo, struct hky_buf *cp932)
{
    unsigned lead = (hi - 0x21u) / 2 + 0x81, trail;

    if (lead > 0x9f)
        lead += 0x40;
    if (hi & 1)
        trail = lo + 0x1fu + (lo >= 0x60);
    else
        trail = lo + 0x7eu;
    hky_buf_add_c(cp932, (char)lead);
    hky_buf_add_c(cp932, (char)trail);
}

enum jis_set { JIS_ASCII, JIS_KANJI, JIS_KATAKANA, JIS_OTHER };

/* Reads the escape sequence at `s`, which starts with ESC; returns its length in octets, 0 if it is not one. */
static size_t take_escape(struct hky_str s, enum jis_set *set)
{
    static const struct {
        struct hky_str octets;
        enum jis_set set;
    } escapes[] = {
        {HKY_STR("\x1b(B"), JIS_ASCII},    {HKY_STR("\x1b(J"), JIS_ASCII},  {HKY_STR("\x1b$@"), JIS_KANJI},
        {HKY_STR("\x1b$B"), JIS_KANJI},    {HKY_STR("\x1b$(B"), JIS_KANJI}, {HKY_STR("\x1b$(@"), JIS_KANJI},
        {HKY_STR("\x1b(I"), JIS_KATAKANA}, {HKY_STR("\x1b$(D"), JIS_OTHER}, {HKY_STR("\x1b&@"), JIS_KANJI},
    };

    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
        if (s.n >= escapes[i].octets.n && memcmp(s.p, escapes[i].octets.p, escapes[i].octets.n) == 0) {
            *set = escapes[i].set;
            return escapes[i].octets.n;
        }
    return 0;
}

/* ISO-2022-JP with CP50221's habits, by way of CP932: the C library's own converters lack the vendors' rows. */
static bool decode_iso2022jp(struct hky_str s, struct hky_buf *out)
{
    struct hky_buf cp932;
    enum jis_set set = JIS_ASCII;

    hky_buf_init(&cp932, s.n + 1);
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i], next = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;
        size_t n = c == 0x1b ? take_escape(hky_str_of(s.p + i, s.n - i), &set) : 0;

        if (n > 0) {
            i += n;
        } else if (set != JIS_ASCII && c > 0x20 && c < 0x7f) {
            bool is_pair = set != JIS_KATAKANA && next > 0x20 && next < 0x7f;

            if (set == JIS_KATAKANA)
                hky_buf_add_c(&cp932, (char)(c | 0x80));
            else if (set == JIS_KANJI && is_pair)
                add_pair_as_cp932(c, next, &cp932);
            else
                hky_buf_add_c(&cp932, '\xff'); /* not a character: it becomes U+FFFD */
            i += is_pair ? 2 : 1;
        } else {
            /* The character set ends with the line (RFC 1468); half-width katakana may also be written as 8-bit octets.
             */
            if (c == '\n')
                set = JIS_ASCII;
            hky_buf_add_c(&cp932, c < 0x80 || (c > 0xa0 && c < 0xe0) ? (char)c : '\xff');
            i++;
        }
    }
    bool is_good = convert("CP932", hky_buf_str(&cp932), out);
    hky_buf_fini(&cp932);
    return is_good;
}

bool hky_charset_decode(struct hky_str charset, struct hky_str s, struct hky_buf *out)
{
    const char *name = NULL;

    for (size_t i = 0; i < sizeof charsets / sizeof charsets[0] && name == NULL; i++)
        if (hky_str_ieq(charset, hky_str_z(charsets[i].name)))
            name = charsets[i].iconv;
    if (name == NULL)
        return false;
    if (strcmp(name, "utf-8") == 0) {
        hky_utf8_repair(s, out);
        return true;
    }
    return strcmp(name, "iso-2022-jp") == 0 ? decode_iso2022jp(s, out) : convert(name, s, out);
}
