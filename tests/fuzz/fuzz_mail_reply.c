/* Replies: the same for every split; text printable; the enhanced code's class is the code's. First octet: the split.
 */
#include "mail/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What one stream of replies came to. */
struct result {
    struct hky_buf seen;
    bool is_bad;
};

static void check_reply(const struct hky_reply *r)
{
    HKY_ASSERT(r->code >= 200 && r->code <= 599 && r->n < HKY_REPLY_TEXT && r->text[r->n] == '\0');
    HKY_ASSERT(strlen(r->text) == r->n && hky_utf8_is_valid(hky_str_of(r->text, r->n)));
    HKY_ASSERT(r->enhanced[0] == 0 || r->enhanced[0] == r->code / 100);
    HKY_ASSERT(r->origin == HKY_ORIGIN_REMOTE);
    for (size_t i = 0; i < r->n; i++)
        HKY_ASSERT((unsigned char)r->text[i] >= 0x20 && r->text[i] != 0x7f);
}

static void run(const char *p, size_t n, size_t piece, struct result *out)
{
    struct hky_reply_reader r;
    size_t at = 0;

    hky_reply_reader_init(&r);
    hky_buf_init(&out->seen, 64 << 20);
    while (at < n && !out->is_bad) {
        size_t used;
        size_t give = piece < n - at ? piece : n - at;
        enum hky_reply_status status = hky_reply_read(&r, p + at, give, &used, NULL);

        HKY_ASSERT(used <= give && (status != HKY_REPLY_MORE || used == give));
        at += used;
        if (status == HKY_REPLY_WHOLE) {
            check_reply(&r.reply);
            HKY_ASSERT(r.n_lines >= 1 && r.n_lines <= HKY_REPLY_LINES_MAX);
            hky_buf_printf(&out->seen, "%u %u.%u.%u %zu ", r.reply.code, r.reply.enhanced[0], r.reply.enhanced[1],
                           r.reply.enhanced_detail, at);
            hky_buf_add_z(&out->seen, r.reply.text);
            hky_buf_add_str(&out->seen, hky_buf_str(&r.lines));
        }
        out->is_bad = status == HKY_REPLY_BAD;
    }
    hky_reply_reader_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole = {0}, split = {0};

    if (size < 2)
        return 0;
    run((const char *)data + 1, size - 1, size, &whole);
    run((const char *)data + 1, size - 1, data[0] % 64 + 1u, &split);
    /* A line that is too long may be seen as such before its end. */
    HKY_ASSERT(whole.is_bad == split.is_bad || split.is_bad);
    if (whole.is_bad == split.is_bad)
        HKY_ASSERT(hky_str_eq(hky_buf_str(&whole.seen), hky_buf_str(&split.seen)));
    hky_buf_fini(&whole.seen);
    hky_buf_fini(&split.seen);
    return 0;
}
