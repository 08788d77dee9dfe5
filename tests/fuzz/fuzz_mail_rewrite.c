/* Rewriting: one From of one mailbox, no Bcc, CRLF only, no field that was neither there nor asked for, no long lines,
 * and nothing left to do the second time. First octet: what is asked. */
#include "base/error.h"
#include "mail/dot.h"
#include "mail/rewrite.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t longest_line(struct hky_str s)
{
    size_t line = 0, longest = 0;

    for (size_t i = 0; i < s.n; i++) {
        line = s.p[i] == '\n' ? 0 : line + (s.p[i] != '\r');
        longest = line > longest ? line : longest;
    }
    return longest;
}

static void check_line_ends(struct hky_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        HKY_ASSERT(s.p[i] != '\r' || (i + 1 < s.n && s.p[i + 1] == '\n'));
        HKY_ASSERT(s.p[i] != '\n' || (i > 0 && s.p[i - 1] == '\r'));
    }
}

static bool is_ours(struct hky_str name)
{
    static const char *const names[] = {"From", "Reply-To", "Message-ID", "Date", "Subject"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (hky_str_ieq(name, hky_str_z(names[i])))
            return true;
    return false;
}

/* Fields of `out` that are not ours stood in `in`, in this order, octet for octet. */
static void check_fields(struct hky_str in, struct hky_str out, const struct hky_rewrite *rw)
{
    struct hky_field f, g;
    struct hky_address author;
    size_t n_from = 0, n_reply_to = 0, at = 0, from = 0;

    while (hky_field_next(out, &at, &f)) {
        HKY_ASSERT(!hky_str_ieq(f.name, HKY_STR("Bcc")) && !hky_str_istarts(f.name, HKY_STR("X-Hikyaku-")));
        if (hky_str_ieq(f.name, HKY_STR("From"))) {
            n_from++;
            if (rw->from != NULL) {
                HKY_ASSERT(hky_author_is_clear(f.value, &author) || hky_author_is_only(f.value, &author));
                HKY_ASSERT(hky_address_eq(hky_address_str(&author), hky_str_z(rw->from)));
            }
        }
        n_reply_to += hky_str_ieq(f.name, HKY_STR("Reply-To"));
        if (is_ours(f.name))
            continue;
        bool is_found = false;
        while (!is_found && hky_field_next(in, &from, &g)) {
            struct hky_str a = g.whole, b = f.whole;
            /* The last line of a section may lack its line end. */
            is_found = hky_str_eq(a, b) || (b.n == a.n + 2 && memcmp(a.p, b.p, a.n) == 0);
        }
        HKY_ASSERT(is_found);
    }
    HKY_ASSERT(rw->from == NULL || n_from == 1);
    HKY_ASSERT(!(rw->reply_to_forced && rw->reply_to != NULL) || n_reply_to == 1);
    HKY_ASSERT(out.n - at == 2 && memcmp(out.p + at, "\r\n", 2) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_dot_reader r;
    struct hky_buf in, out, again;

    if (size < 1)
        return 0;
    const char *sets[] = {"Subject", "\xe5\xb1\xb1 again", NULL, NULL};
    unsigned ask = data[0];
    struct hky_rewrite rw = {.from = ask & 1 ? "new..name@docomo.ne.jp" : NULL,
                             .reply_to = ask & 2 ? "reply@y.test" : NULL,
                             .reply_to_forced = ask & 4,
                             .message_id = ask & 8 ? "<new@y.test>" : NULL,
                             .date = ask & 16 ? "Tue, 24 Nov 2026 06:18:44 +0000" : NULL,
                             .add_message_id = ask & 32 ? "<added@y.test>" : NULL,
                             .set = ask & 64 ? (void *)sets : NULL};
    hky_dot_reader_init(&r);
    hky_buf_init(&in, 1 << 24);
    hky_buf_init(&out, 1 << 24);
    hky_buf_init(&again, 1 << 24);
    /* A header comes from the reader, which refuses bare CR and NUL. */
    hky_bdat_read(&r, (const char *)data + 1, size - 1, &in);
    hky_bdat_end(&r);
    if (!r.has_bare_cr && !r.has_nul && hky_rewrite_header(hky_buf_str(&in), &rw, &out, NULL) == HKY_OK) {
        struct hky_str section = hky_str_of(in.p, hky_header_octets(hky_buf_str(&in)));
        size_t before = longest_line(section);

        check_line_ends(hky_buf_str(&out));
        HKY_ASSERT(longest_line(hky_buf_str(&out)) <= (before > 998 ? before : 998));
        check_fields(section, hky_buf_str(&out), &rw);
        HKY_ASSERT(hky_rewrite_header(hky_buf_str(&out), &rw, &again, NULL) == HKY_OK);
        if (!rw.reply_to_forced)
            HKY_ASSERT(hky_str_eq(hky_buf_str(&out), hky_buf_str(&again)));
    }
    hky_buf_fini(&in);
    hky_buf_fini(&out);
    hky_buf_fini(&again);
    return 0;
}
