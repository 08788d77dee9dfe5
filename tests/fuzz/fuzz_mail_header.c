/* Header fields: the fields are the section, octet for octet; decoded text is clean UTF-8; encoded text comes back. */
#include "base/error.h"
#include "mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct hky_str part, struct hky_str whole)
{
    HKY_ASSERT(part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n));
}

static void check_mailboxes(struct hky_str value)
{
    struct hky_mailbox m[4];
    struct hky_address author;
    bool is_bad;
    size_t n = hky_mailboxes_parse(value, m, 4, &is_bad);

    if (hky_author_is_clear(value, &author))
        HKY_ASSERT(n == 1 && !is_bad && hky_address_eq(hky_address_str(&author), hky_address_str(&m[0].address)));

    HKY_ASSERT(hky_mailboxes_parse(value, NULL, 0, &is_bad) == n);
    for (size_t i = 0; i < n && i < 4; i++) {
        check_inside(m[i].name, value);
        check_inside(m[i].span, value);
        check_inside(m[i].spec, m[i].span);
        HKY_ASSERT(m[i].address.n > 0);
    }
}

static void check_decoded(struct hky_str value)
{
    struct hky_buf out;

    hky_buf_init(&out, 64 << 20);
    hky_field_decode(value, &out);
    HKY_ASSERT(!out.is_over && hky_utf8_is_valid(hky_buf_str(&out)));
    for (size_t i = 0; i < out.n; i++)
        HKY_ASSERT(((unsigned char)out.p[i] >= 0x20 || out.p[i] == '\t') && out.p[i] != 0x7f);
    hky_buf_fini(&out);
}

/* Printable ASCII; a CRLF is followed by a blank; no line is long. */
static void check_wire(struct hky_str s)
{
    size_t line = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r') {
            HKY_ASSERT(s.n - i > 3 && s.p[i + 1] == '\n' && s.p[i + 2] == ' ' && s.p[i + 3] != '\r');
            i++;
            line = 0;
            continue;
        }
        HKY_ASSERT(s.p[i] >= 0x20 && s.p[i] < 0x7f);
        HKY_ASSERT(++line < 900);
    }
}

static bool is_clean(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return hky_utf8_is_valid(s);
}

static void check_encoded(struct hky_str value)
{
    struct hky_buf wire, back;

    hky_buf_init(&wire, 64 << 20);
    hky_buf_init(&back, 64 << 20);
    hky_phrase_encode(value, &wire);
    check_wire(hky_buf_str(&wire));
    hky_buf_clear(&wire);
    hky_text_encode(value, 9, &wire);
    check_wire(hky_buf_str(&wire));
    hky_field_decode(hky_buf_str(&wire), &back);
    if (is_clean(value))
        HKY_ASSERT(hky_str_eq(hky_buf_str(&back), hky_str_trim(value)));
    hky_buf_fini(&wire);
    hky_buf_fini(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_str section = hky_str_of(size > 0 ? (const char *)data : "", size);
    struct hky_field f;
    size_t at = 0;

    for (size_t before = 0; hky_field_next(section, &at, &f); before = at) {
        HKY_ASSERT(f.whole.p == section.p + before && before + f.whole.n == at && f.whole.n > 0);
        check_inside(f.name, f.whole);
        check_inside(f.value, f.whole);
        check_mailboxes(f.value);
        check_decoded(f.value);
    }
    HKY_ASSERT(hky_header_octets(section) <= size);
    check_mailboxes(section);
    check_decoded(section);
    check_encoded(section);
    return 0;
}
