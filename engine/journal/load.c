/* Reading what a segment holds: from its footer, or from its records where it has none. */
#include "journal/internal.h"

#include "base/hash.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

static bool load_footer(struct segment *s, struct hky_buf *foot)
{
    char head[JOURNAL_RECORD_HEADER];
    struct journal_record trailer, footer;
    char *to;

    if (journal_segment_read(s, s->octets - JOURNAL_RECORD_HEADER, head, sizeof head) != HKY_OK ||
        !journal_record_decode(head, JOURNAL_RECORD_HEADER, s->head.epoch, s->head.salt, &trailer) ||
        trailer.type != JOURNAL_RECORD_TRAILER || trailer.key < SEGMENT_HEADER ||
        trailer.key > s->octets - 2 * JOURNAL_RECORD_HEADER ||
        journal_segment_read(s, trailer.key, head, sizeof head) != HKY_OK ||
        !journal_record_decode(head, s->octets - JOURNAL_RECORD_HEADER - trailer.key, s->head.epoch, s->head.salt,
                               &footer) ||
        footer.type != JOURNAL_RECORD_FOOTER || footer.body_n != 0 ||
        (to = hky_buf_reserve(foot, footer.meta_n)) == NULL)
        return false;
    hky_memory_ready(to, footer.meta_n);
    if (journal_segment_read(s, trailer.key + JOURNAL_RECORD_HEADER, to, footer.meta_n) != HKY_OK ||
        hky_crc32c(0, to, footer.meta_n) != footer.meta_crc)
        return false;
    foot->n += footer.meta_n;
    s->at = trailer.key;
    s->next_seq = footer.seq;
    return true;
}

struct damage_copy {
    struct hky_journal *j;
    struct segment *s;
    const char *p;
};

static void copy_damage(void *ctx, uint64_t at, uint64_t octets)
{
    struct damage_copy *d = ctx;
    char name[80];

    snprintf(name, sizeof name, "seg-%05u-%llx-%llu", d->s->slot, (unsigned long long)d->s->head.epoch,
             (unsigned long long)at);
    d->s->is_damaged = true;
    if (journal_spool_write_file(d->j, d->j->damaged_fd, name, d->p + at, octets, NULL) != HKY_OK) {
        d->s->is_evidence = true;
        hky_log(d->j->params.log, HKY_LOG_ERROR, "damaged",
                "file=%s error=cannot_copy octets=%llu: its segment is moved to damaged/ when the mail in it is done",
                name, (unsigned long long)octets);
    } else {
        hky_log(d->j->params.log, HKY_LOG_ERROR, "damaged",
                "file=damaged/%s octets=%llu: acknowledged records that cannot be read; the disk lost them", name,
                (unsigned long long)octets);
    }
}

enum hky_err journal_segment_load(struct hky_journal *j, struct segment *s, uint64_t floor, struct hky_buf *foot,
                                  struct scan_report *scan)
{
    struct damage_copy d = {.j = j, .s = s};
    char *p;

    *scan = (struct scan_report){0};
    hky_buf_clear(foot);
    if (load_footer(s, foot)) {
        s->has_footer = true;
        *scan = (struct scan_report){.end = s->at, .next_seq = s->next_seq, .has_footer = true};
        return HKY_OK;
    }
    hky_buf_clear(foot);
    p = malloc(s->octets);
    if (p == NULL)
        return HKY_E_FULL;
    hky_memory_ready(p, s->octets);
    for (uint64_t at = 0; at < s->octets;
         at += 4096) { /* a block that the disk cannot read is skipped; it does not end the scan */
        size_t n = s->octets - at < (1 << 20) ? (size_t)(s->octets - at) : 1 << 20;
        if (at % (1 << 20) == 0 && journal_segment_read(s, at, p + at, n) == HKY_OK)
            at += n - 4096;
        else if (journal_segment_read(s, at, p + at, 4096) != HKY_OK)
            memset(p + at, 0, 4096);
    }
    d.p = p;
    journal_segment_scan(p, s->octets, &s->head, floor, s->cut_seq, foot, copy_damage, &d, scan);
    HKY_ASSERT(!foot->is_over); /* what is left out of it would be lost */
    free(p);
    s->at = scan->end;
    s->next_seq = scan->next_seq;
    return HKY_OK;
}
