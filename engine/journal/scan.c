#include "journal/format.h"

#include "base/hash.h"

struct scan {
    const char *p;
    uint64_t n;
    const struct segment_head *head;
};

/* A whole record at `at`: header, body and meta match their checksums. */
static bool is_sound(const struct scan *s, uint64_t at, struct journal_record *r)
{
    const char *body = s->p + at + JOURNAL_RECORD_HEADER;

    return journal_record_decode(s->p + at, s->n - at, s->head->epoch, s->head->salt, r) &&
           hky_crc32c(0, body, r->body_n) == r->body_crc && hky_crc32c(0, body + r->body_n, r->meta_n) == r->meta_crc;
}

/* After damage: finds the next sound record from `at` on, and what later headers prove to have been durable. A sound
 * header is evidence even when its body is damaged. The octets of a sound record are skipped, so that text in a body is
 * never read as a record. */
static uint64_t find_next(const struct scan *s, uint64_t at, uint64_t seq, uint64_t *floor)
{
    uint64_t found = 0;
    struct journal_record r;

    while (s->n - at >= JOURNAL_RECORD_HEADER) {
        uint64_t step = 8;

        if (journal_record_decode(s->p + at, s->n - at, s->head->epoch, s->head->salt, &r) && r.seq >= seq &&
            r.seq - seq <= s->n / JOURNAL_RECORD_HEADER) {
            if (r.synced_seq > *floor && r.synced_seq < r.seq)
                *floor = r.synced_seq;
            if (r.seq > seq || r.type == JOURNAL_RECORD_FOOTER) {
                step = journal_record_octets(&r);
                if (found == 0 && r.type != JOURNAL_RECORD_TRAILER && is_sound(s, at, &r))
                    found = at;
            }
        }
        at += step;
    }
    return found;
}

void journal_segment_scan(const char *p, uint64_t n, const struct segment_head *h, uint64_t floor, uint64_t cut_seq,
                          struct hky_buf *foot, void (*on_damage)(void *ctx, uint64_t at, uint64_t octets), void *ctx,
                          struct scan_report *out)
{
    struct scan s = {.p = p, .n = n, .head = h};
    uint64_t at = SEGMENT_HEADER, seq = h->first_seq;
    struct journal_record r;

    *out = (struct scan_report){.end = at, .next_seq = seq};
    while (n - at >= JOURNAL_RECORD_HEADER && (cut_seq == 0 || seq < cut_seq)) {
        uint64_t next, last = floor;

        if (is_sound(&s, at, &r) && (r.seq == seq || r.type == JOURNAL_RECORD_FOOTER)) {
            if (r.type == JOURNAL_RECORD_FOOTER || r.type == JOURNAL_RECORD_TRAILER) {
                out->has_footer = true;
                break;
            }
            journal_foot_add(foot, &r, at, p + at + JOURNAL_RECORD_HEADER + r.body_n);
            at += journal_record_octets(&r);
            seq++;
            continue;
        }
        next = find_next(&s, at, seq, &last);
        if (cut_seq != 0 && last >= cut_seq)
            last = cut_seq - 1;
        if (last < seq) { /* nothing proves that this was durable: it is the unsynced tail, which may reach the disk in
                             any order */
            for (uint64_t i = n; i > at && out->torn_octets == 0; i--)
                if (p[i - 1] != 0)
                    out->torn_octets = i - at;
            break;
        }
        if (next != 0 && is_sound(&s, next, &r) && r.type != JOURNAL_RECORD_FOOTER &&
            (cut_seq == 0 || r.seq < cut_seq)) {
            out->damaged += r.seq - seq;
            on_damage(ctx, at, next - at);
            seq = r.seq;
            at = next;
            continue;
        }
        out->damaged += last + 1 - seq;
        on_damage(ctx, at, (next != 0 ? next : n) - at);
        seq = last + 1;
        at = next != 0 ? next : at;
        break;
    }
    out->end = at;
    out->next_seq = seq;
}
