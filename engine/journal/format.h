/*
 * format -- what is written to disk: segment headers, records, footers. Pure: octets in, values out; fuzzed.
 *
 * A segment is 4096 octets with the header, twice, then records back to back, each 8-aligned: 64 octets of header,
 * body, meta, pad. The body comes first so that its header is always the 64 octets before it: a reader of a body needs
 * no index. A closed segment ends with a footer record (every record without its body) and, in its last 64 octets, a
 * trailer that says where the footer is.
 *
 * The header's CRC is seeded with the segment's salt and covers epoch, seq and the CRCs of body and meta; so an old
 * record in a recycled file, or one forged inside a message, is not one of this segment.
 */
#ifndef HKY_JOURNAL_FORMAT_H
#define HKY_JOURNAL_FORMAT_H

#include "base/buf.h"
#include "base/error.h"

#define FORMAT_VERSION          2u /* this writes; FORMAT_VERSION - 1 is read too */
#define SEGMENT_HEADER          4096u
#define HEAD_COPY               2048u /* where the header is written once more, in a sector of its own */
#define JOURNAL_RECORD_HEADER   64u
#define SEQ_MAX                 (UINT64_C(1) << 62)
#define META_MAX                (64u << 20)
#define JOURNAL_RECORD_ALIGN(n) (((uint64_t)(n) + 7) & ~UINT64_C(7))
#define SEGMENT_MIN             (16u << 10)
#define SEGMENT_MAX             (UINT64_C(4) << 30)
#define FLAG_NOTICE             1u /* FINISHED: a notice is accepted in the same record */
#define JOURNAL_RCPT_MAX        100000u

/* Kinds of record: X(id, value, name, what). The values are written to disk. */
#define JOURNAL_RECORDS(X)                                                                                             \
    X(PLAN, 1, "plan", "a plan value, once per segment that uses it; key = hash")                                      \
    X(ACCEPTED, 2, "accepted", "message, facts, recipients with plan and state; key = id")                             \
    X(ATTEMPT, 3, "attempt", "a recipient's whole delivery state; the newest supersedes; key = id")                    \
    X(FINISHED, 4, "finished", "a recipient's end, with its notice; key = id, or the notice's")                        \
    X(SIGNAL, 5, "signal", "opened, clicked, bounced ...: reserved, parsed and passed over")                           \
    X(MOVED, 6, "moved", "a message copied out of another segment; key = id")                                          \
    X(DEAD, 7, "dead", "bitmap of what is finished in one other segment; key = its epoch")                             \
    X(CUT, 8, "cut", "records of a segment from a seq on do not count; key = its epoch")                               \
    X(VOID, 9, "void", "the same after a failed write, with the first refused messages; key = epoch")                  \
    X(CAP, 10, "cap", "newest value of a cap")                                                                         \
    X(FOOTER, 11, "footer", "every record of this segment without its body")                                           \
    X(TRAILER, 12, "trailer", "where the footer is; key = its offset")

enum journal_record_type {
#define X(id, value, name, what) JOURNAL_RECORD_##id = value,
    JOURNAL_RECORDS(X)
#undef X
        JOURNAL_RECORD_END
};
const char *journal_record_name(unsigned type); /* NULL: no such type */

struct journal_record {
    uint8_t type, flags;
    uint32_t meta_n, body_n;
    uint32_t ordinal; /* number of this record's first recipient in its segment */
    uint64_t epoch, seq, synced_seq, key;
    uint32_t body_crc, meta_crc;
};
uint64_t journal_record_octets(const struct journal_record *r); /* whole, with padding */
/* Writes the header with its checksum, which is seeded with the segment's salt. */
void journal_record_encode(const struct journal_record *r, uint32_t salt, char out[JOURNAL_RECORD_HEADER]);
/* false: not a record header of this epoch. Lengths are bounded by `room`, the octets from the header on. */
bool journal_record_decode(const char *p, uint64_t room, uint64_t epoch, uint32_t salt, struct journal_record *r);

enum segment_state { SEGMENT_FREE = 1, SEGMENT_HOT, SEGMENT_COLD };
struct segment_head {
    uint32_t version, number, salt;
    uint64_t epoch, first_seq, octets;
    uint64_t previous; /* epoch of the segment its seqs follow; 0: none, or not known (format 1) */
    enum segment_state state;
};
void journal_segment_head_encode(const struct segment_head *h, char out[SEGMENT_HEADER]); /* in FORMAT_VERSION */
/* From whichever copy is sound. HKY_E_SYNTAX: neither is. HKY_E_STATE: of a format this does not read, in h->version.
 */
enum hky_err journal_segment_head_decode(const char in[SEGMENT_HEADER], struct segment_head *h);

/* One entry of a footer: what a record says, where it is. Followed by its meta, padded to 8. */
#define FOOT_ENTRY 40u
struct foot_entry {
    uint8_t type, flags;
    uint32_t meta_n, body_n, ordinal;
    uint64_t at, seq, key;
    const char *meta; /* into the footer */
};
/* When it does not fit any more, foot->is_over says so from then on: such a list must not become a footer. */
void journal_foot_add(struct hky_buf *foot, const struct journal_record *r, uint64_t at, const char *meta);
bool journal_foot_next(struct hky_cursor *c, struct foot_entry *e); /* false at the end; c->is_bad: not a footer */

/* Metas. What `accepted`, `moved` and a notice say of a message: */
struct message_meta {
    uint32_t generation; /* 0 accepted; each copy one more */
    uint32_t n_recipients;
    uint64_t id;
    struct hky_str message;  /* hky_message_encode */
    struct hky_cursor rcpts; /* n_recipients times rcpt_meta_next */
};
struct rcpt_meta {
    uint64_t state_seq; /* seq of the record this state is from; 0 = the record itself */
    uint64_t plan;      /* hash, 0 none */
    uint8_t final;      /* 0 live, else enum hky_recipient_state */
    struct hky_str state;
};
void journal_message_meta_begin(struct hky_buf *b, uint32_t generation, uint32_t n_recipients, uint64_t id);
bool journal_message_meta_parse(struct hky_str meta, struct message_meta *m);
bool journal_rcpt_meta_next(struct hky_cursor *c, struct rcpt_meta *r);

struct attempt_meta {
    uint32_t index;
    uint8_t doing; /* enum hky_recipient_state when it was written */
    uint64_t plan, state_seq;
    struct hky_str state;
};
/* false: the octets are no such meta. Texts are borrowed from it. */
bool journal_attempt_meta_parse(struct hky_str meta, struct attempt_meta *a);
struct finished_meta {
    uint64_t id;
    uint32_t index;
    uint8_t state;
    struct hky_str notice; /* a message_meta, or empty */
};
/* The same; `flags` are those of the record. */
bool journal_finished_meta_parse(struct hky_str meta, uint8_t flags, struct finished_meta *f);

/* What follows a large body in its file big/ID: whose body it is, and its checksum. A file that ends with its
 * body is of an older engine: nothing is known of its octets then. */
#define BIG_TRAILER 32u
struct big_trailer {
    uint64_t id, size;
    uint32_t crc; /* CRC32C of the body */
};
void journal_big_trailer_encode(const struct big_trailer *t, char out[BIG_TRAILER]);
bool journal_big_trailer_decode(const char in[BIG_TRAILER], struct big_trailer *t); /* false: not one */

/* Walk the records of a segment that has no footer. `p` is the whole file, `n` its octets. */
struct scan_report {
    uint64_t end;      /* offset after the last sound record */
    uint64_t next_seq; /* of the record that would follow */
    uint64_t max_ordinal;
    uint64_t damaged; /* acknowledged records that are not readable */
    uint64_t torn_octets;
    bool has_footer; /* ended at a sound footer */
};
/* `floor`: seqs up to here are known to have been durable. Sound records go to `foot` as footer entries; a damaged
 * range to `on_damage`. Records from cut_seq on (0: none) do not count. */
void journal_segment_scan(const char *p, uint64_t n, const struct segment_head *h, uint64_t floor, uint64_t cut_seq,
                          struct hky_buf *foot, void (*on_damage)(void *ctx, uint64_t at, uint64_t octets), void *ctx,
                          struct scan_report *out);

#endif
