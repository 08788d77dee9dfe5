/*
 * What a journal file may hold, whoever wrote it: headers, records, footers, metas. The first octets choose what is
 * read; checksums are put right now and then, so that what lies behind them is reached.
 */
#include "base/hash.h"
#include "journal/format.h"

#include <stdlib.h>

static void put32(char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> (8 * i));
}

static void walk_message(struct hky_str meta)
{
    struct message_meta m;
    struct rcpt_meta r;

    if (!journal_message_meta_parse(meta, &m))
        return;
    for (uint32_t i = 0; i < m.n_recipients && journal_rcpt_meta_next(&m.rcpts, &r); i++)
        HKY_ASSERT(r.state.n <= meta.n);
}

static void walk_foot(const char *p, size_t n)
{
    struct hky_cursor c = {.p = p, .n = n};

    for (struct foot_entry f; journal_foot_next(&c, &f);) {
        struct hky_str meta = hky_str_of(f.meta, f.meta_n);
        struct attempt_meta a;
        struct finished_meta fin;
        HKY_ASSERT(f.meta >= p && f.meta + f.meta_n <= p + n);
        walk_message(meta);
        if (journal_attempt_meta_parse(meta, &a))
            HKY_ASSERT(a.state.n <= meta.n);
        if (journal_finished_meta_parse(meta, f.flags, &fin))
            walk_message(fin.notice);
    }
}

static void on_damage(void *ctx, uint64_t at, uint64_t octets)
{
    HKY_ASSERT(at >= SEGMENT_HEADER && at <= *(uint64_t *)ctx && octets <= *(uint64_t *)ctx - at);
}

/* Makes the header at `at` one of this segment, and with `whole` its checksums right. */
static void mend(char *p, uint64_t n, uint64_t at, const struct segment_head *h, int whole)
{
    struct journal_record r;

    if (n - at < JOURNAL_RECORD_HEADER)
        return;
    put32(p + at, 0x6a796b48u);
    put32(p + at + 16, (uint32_t)h->epoch);
    put32(p + at + 20, (uint32_t)(h->epoch >> 32));
    put32(p + at + 60, hky_crc32c(h->salt, p + at, 60));
    if (!whole || !journal_record_decode(p + at, n - at, h->epoch, h->salt, &r))
        return;
    put32(p + at + 48, hky_crc32c(0, p + at + JOURNAL_RECORD_HEADER, r.body_n));
    put32(p + at + 52, hky_crc32c(0, p + at + JOURNAL_RECORD_HEADER + r.body_n, r.meta_n));
    put32(p + at + 60, hky_crc32c(h->salt, p + at, 60));
}

static void scan(char *p, uint64_t n, const struct segment_head *h, uint64_t floor, uint64_t cut)
{
    struct scan_report report;
    struct hky_buf foot;

    hky_buf_init(&foot, 1 << 20);
    journal_segment_scan(p, n, h, floor, cut, &foot, on_damage, &n, &report);
    HKY_ASSERT(report.end >= SEGMENT_HEADER && report.end <= n);
    HKY_ASSERT(report.next_seq >= h->first_seq);
    walk_foot(foot.p, foot.n);
    hky_buf_fini(&foot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_head h = {.version = FORMAT_VERSION, .epoch = 7, .first_seq = 1, .octets = 1 << 16, .salt = 9};
    struct segment_head got;
    uint64_t n = SEGMENT_HEADER + size;
    char *p;

    if (size < 4)
        return 0;
    p = calloc(1, n);
    memcpy(p + SEGMENT_HEADER, data + 4, size - 4);
    if (data[0] % 4 == 0) {
        walk_foot(p + SEGMENT_HEADER, size - 4);
    } else {
        uint64_t at = SEGMENT_HEADER;
        for (int i = 0; i < data[1] % 8 && at < n; i++) {
            struct journal_record r;
            mend(p, n, at, &h, data[0] % 4 != 1 || i % 2);
            at += journal_record_decode(p + at, n - at, h.epoch, h.salt, &r) ? journal_record_octets(&r) : 64;
        }
        scan(p, n, &h, data[2], data[3]);
    }
    if (size >= SEGMENT_HEADER)
        (void)journal_segment_head_decode((const char *)data, &got);
    free(p);
    return 0;
}
