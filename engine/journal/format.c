#include "journal/format.h"

#include "base/hash.h"

#define JOURNAL_RECORD_MAGIC 0x6a796b48u /* "Hkyj" */
#define SEGMENT_MAGIC        UINT64_C(0x676553796b48000a)
#define BIG_MAGIC            UINT64_C(0x676942796b48000a)

static void put32(char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> (8 * i));
}

static void put64(char *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static uint32_t get32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;

    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static uint64_t get64(const char *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

const char *journal_record_name(unsigned type)
{
    switch (type) {
#define X(id, value, name, what)                                                                                       \
    case value:                                                                                                        \
        return name;
        JOURNAL_RECORDS(X)
#undef X
    default:
        return NULL;
    }
}

uint64_t journal_record_octets(const struct journal_record *r)
{
    return JOURNAL_RECORD_ALIGN((uint64_t)JOURNAL_RECORD_HEADER + r->body_n + r->meta_n);
}

/* magic 0 · type 4 · flags 5 · version 6 · meta_n 8 · body_n 12 · epoch 16 · seq 24 · synced 32 · key 40 · body_crc 48
 * · meta_crc 52 · ordinal 56 · header crc 60 */
void journal_record_encode(const struct journal_record *r, uint32_t salt, char out[JOURNAL_RECORD_HEADER])
{
    put32(out, JOURNAL_RECORD_MAGIC);
    out[4] = (char)r->type;
    out[5] = (char)r->flags;
    out[6] = (char)FORMAT_VERSION;
    out[7] = 0;
    put32(out + 8, r->meta_n);
    put32(out + 12, r->body_n);
    put64(out + 16, r->epoch);
    put64(out + 24, r->seq);
    put64(out + 32, r->synced_seq);
    put64(out + 40, r->key);
    put32(out + 48, r->body_crc);
    put32(out + 52, r->meta_crc);
    put32(out + 56, r->ordinal);
    put32(out + 60, hky_crc32c(salt, out, 60));
}

bool journal_record_decode(const char *p, uint64_t room, uint64_t epoch, uint32_t salt, struct journal_record *r)
{
    if (room < JOURNAL_RECORD_HEADER || get32(p) != JOURNAL_RECORD_MAGIC || get64(p + 16) != epoch ||
        get32(p + 60) != hky_crc32c(salt, p, 60) || journal_record_name((uint8_t)p[4]) == NULL)
        return false;
    *r = (struct journal_record){.type = (uint8_t)p[4],
                                 .flags = (uint8_t)p[5],
                                 .meta_n = get32(p + 8),
                                 .body_n = get32(p + 12),
                                 .epoch = epoch,
                                 .seq = get64(p + 24),
                                 .synced_seq = get64(p + 32),
                                 .key = get64(p + 40),
                                 .body_crc = get32(p + 48),
                                 .meta_crc = get32(p + 52),
                                 .ordinal = get32(p + 56)};
    return r->meta_n <= META_MAX && journal_record_octets(r) <= room && r->seq < SEQ_MAX && r->synced_seq < r->seq;
}

/* magic 0 · version 8 · number 12 · epoch 16 · first_seq 24 · octets 32 · state 40 · salt 44 · previous 48 · crc 56;
 * format 1 has no previous, its crc at 48, and no copy */
void journal_segment_head_encode(const struct segment_head *h, char out[SEGMENT_HEADER])
{
    memset(out, 0, SEGMENT_HEADER);
    put64(out, SEGMENT_MAGIC);
    put32(out + 8, FORMAT_VERSION);
    put32(out + 12, h->number);
    put64(out + 16, h->epoch);
    put64(out + 24, h->first_seq);
    put64(out + 32, h->octets);
    put32(out + 40, h->state);
    put32(out + 44, h->salt);
    put64(out + 48, h->previous);
    put32(out + 56, hky_crc32c(0, out, 56));
    memcpy(out + HEAD_COPY, out, 60);
}

static enum hky_err head_decode(const char *in, struct segment_head *h)
{
    size_t n = get32(in + 8) == 1 ? 48 : 56;

    if (get64(in) != SEGMENT_MAGIC || get32(in + n) != hky_crc32c(0, in, n))
        return HKY_E_SYNTAX;
    *h = (struct segment_head){.version = get32(in + 8),
                               .number = get32(in + 12),
                               .epoch = get64(in + 16),
                               .first_seq = get64(in + 24),
                               .octets = get64(in + 32),
                               .state = get32(in + 40),
                               .salt = get32(in + 44),
                               .previous = n == 56 ? get64(in + 48) : 0};
    if (h->version != FORMAT_VERSION && h->version != FORMAT_VERSION - 1)
        return HKY_E_STATE;
    if (h->state < SEGMENT_FREE || h->state > SEGMENT_COLD || h->octets < SEGMENT_MIN || h->octets > SEGMENT_MAX)
        return HKY_E_SYNTAX;
    return HKY_OK;
}

enum hky_err journal_segment_head_decode(const char in[SEGMENT_HEADER], struct segment_head *h)
{
    enum hky_err err = head_decode(in, h);

    return err == HKY_E_SYNTAX ? head_decode(in + HEAD_COPY, h) : err;
}

void journal_foot_add(struct hky_buf *foot, const struct journal_record *r, uint64_t at, const char *meta)
{
    char *p = hky_buf_reserve(foot, FOOT_ENTRY + JOURNAL_RECORD_ALIGN(r->meta_n));

    if (p == NULL)
        return;
    p[0] = (char)r->type;
    p[1] = (char)r->flags;
    p[2] = p[3] = 0;
    put32(p + 4, r->meta_n);
    put32(p + 8, r->body_n);
    put32(p + 12, r->ordinal);
    put64(p + 16, at);
    put64(p + 24, r->seq);
    put64(p + 32, r->key);
    if (r->meta_n > 0)
        memcpy(p + FOOT_ENTRY, meta, r->meta_n);
    memset(p + FOOT_ENTRY + r->meta_n, 0, JOURNAL_RECORD_ALIGN(r->meta_n) - r->meta_n);
    foot->n += FOOT_ENTRY + JOURNAL_RECORD_ALIGN(r->meta_n);
}

bool journal_foot_next(struct hky_cursor *c, struct foot_entry *e)
{
    struct hky_str head;

    if (c->n == 0)
        return false;
    head = hky_cursor_take(c, FOOT_ENTRY);
    if (c->is_bad)
        return false;
    *e = (struct foot_entry){.type = (uint8_t)head.p[0],
                             .flags = (uint8_t)head.p[1],
                             .meta_n = get32(head.p + 4),
                             .body_n = get32(head.p + 8),
                             .ordinal = get32(head.p + 12),
                             .at = get64(head.p + 16),
                             .seq = get64(head.p + 24),
                             .key = get64(head.p + 32)};
    e->meta = hky_cursor_take(c, JOURNAL_RECORD_ALIGN(e->meta_n)).p;
    return !c->is_bad;
}

void journal_message_meta_begin(struct hky_buf *b, uint32_t generation, uint32_t n_recipients, uint64_t id)
{
    hky_buf_add_u32(b, generation);
    hky_buf_add_u32(b, n_recipients);
    hky_buf_add_u64(b, id);
}

bool journal_message_meta_parse(struct hky_str meta, struct message_meta *m)
{
    struct hky_cursor c = {.p = meta.p, .n = meta.n};

    m->generation = hky_cursor_u32(&c);
    m->n_recipients = hky_cursor_u32(&c);
    m->id = hky_cursor_u64(&c);
    m->message = hky_cursor_lstr(&c);
    m->rcpts = c;
    /* A recipient takes at least 21 octets: an impossible count is refused before anything is allocated by it. */
    return !c.is_bad && m->n_recipients > 0 && m->n_recipients <= JOURNAL_RCPT_MAX && m->n_recipients <= c.n / 21;
}

bool journal_rcpt_meta_next(struct hky_cursor *c, struct rcpt_meta *r)
{
    r->state_seq = hky_cursor_u64(c);
    r->plan = hky_cursor_u64(c);
    r->final = hky_cursor_u8(c);
    r->state = hky_cursor_lstr(c);
    return !c->is_bad;
}

bool journal_attempt_meta_parse(struct hky_str meta, struct attempt_meta *a)
{
    struct hky_cursor c = {.p = meta.p, .n = meta.n};

    a->index = hky_cursor_u32(&c);
    a->doing = hky_cursor_u8(&c);
    a->plan = hky_cursor_u64(&c);
    a->state_seq = hky_cursor_u64(&c);
    a->state = hky_cursor_lstr(&c);
    return !c.is_bad;
}

bool journal_finished_meta_parse(struct hky_str meta, uint8_t flags, struct finished_meta *f)
{
    struct hky_cursor c = {.p = meta.p, .n = meta.n};

    f->id = hky_cursor_u64(&c);
    f->index = hky_cursor_u32(&c);
    f->state = hky_cursor_u8(&c);
    f->notice = hky_str_of(NULL, 0);
    if (flags & FLAG_NOTICE)
        f->notice = hky_str_of(c.p, c.n);
    return !c.is_bad;
}

/* magic 0 · id 8 · size 16 · crc 24 · crc of these 28 octets 28 */
void journal_big_trailer_encode(const struct big_trailer *t, char out[BIG_TRAILER])
{
    put64(out, BIG_MAGIC);
    put64(out + 8, t->id);
    put64(out + 16, t->size);
    put32(out + 24, t->crc);
    put32(out + 28, hky_crc32c(0, out, 28));
}

bool journal_big_trailer_decode(const char in[BIG_TRAILER], struct big_trailer *t)
{
    t->id = get64(in + 8);
    t->size = get64(in + 16);
    t->crc = get32(in + 24);
    return get64(in) == BIG_MAGIC && get32(in + 28) == hky_crc32c(0, in, 28);
}
