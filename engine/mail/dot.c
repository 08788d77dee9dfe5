#include "mail/dot.h"

/* The state of the reader. A dot at the start of a line is kept back until the next octet shows what it means. After a
 * bare LF a single dot is content, since only CRLF.CRLF ends the message; of two dots the first was stuffed by a client
 * that ends its lines with a bare LF. */
enum { AT_START, IN_LINE, AFTER_CR, AFTER_DOT, AFTER_DOT_CR, AFTER_LF, AFTER_LF_DOT };

void hky_dot_reader_init(struct hky_dot_reader *r)
{
    *r = (struct hky_dot_reader){.state = AT_START};
#if defined(__x86_64__)
    r->is_wide = __builtin_cpu_supports("avx2");
#endif
}

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* 0x80 for every octet of `w` that is zero, exactly. */
static uint64_t zeros(uint64_t w)
{
    return ~(((w & ~HIGHS) + ~HIGHS) | w | ~HIGHS);
}

/* Notes NULs and octets above 127, and returns the number of CRs. It takes eight octets a step, because it runs over
 * every body. The CRs are counted in eight columns, which hold 255 each. */
static size_t note_octets(struct hky_dot_reader *r, const char *p, size_t n)
{
    uint64_t nul = 0, high = 0, w = ONES;
    size_t n_cr = 0;

    while (n >= 8) {
        size_t words = n / 8 < 255 ? n / 8 : 255;
        uint64_t columns = 0;

        for (size_t i = 0; i < words; i++, p += 8) {
            memcpy(&w, p, 8);
            high |= w;
            nul |= zeros(w);
            columns += zeros(w ^ ONES * '\r') >> 7;
        }
        n -= words * 8;
        for (; columns != 0; columns >>= 8)
            n_cr += columns & 0xff;
    }
    for (size_t i = 0; i < n; i++) {
        high |= (unsigned char)p[i];
        nul |= p[i] == '\0';
        n_cr += p[i] == '\r';
    }
    r->has_nul |= nul != 0;
    r->has_8bit |= (high & HIGHS) != 0;
    return n_cr;
}

/* One call's work: p[run..i) is content that waits to be appended in one piece; p[noted..i) was read octet by octet and
 * has not been through note_octets yet. */
struct pass {
    struct hky_dot_reader *r;
    const char *p;
    size_t n, i, run, noted, n_crlf; /* n_crlf: pairs that lie in p[noted..i) */
    struct hky_buf *out;
};

static void flush(struct pass *k)
{
    if (k->i > k->run)
        hky_buf_add(k->out, k->p + k->run, k->i - k->run);
    k->run = k->i;
}

/* Every CR must have its LF behind it, in this stretch or as the first octet of the next. */
static void note_stretch(struct pass *k)
{
    size_t n_cr = note_octets(k->r, k->p + k->noted, k->i - k->noted);

    if (n_cr != k->n_crlf + (k->i > k->noted && k->p[k->i - 1] == '\r'))
        k->r->has_bare_cr = true;
    k->noted = k->i;
    k->n_crlf = 0;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define BLOCK 64

/* How many octets of plain content begin at `p`, in whole blocks; p[-1] is read, too. *has_high: some are above 127.
 * The two functions do the same, with four times 16 octets a block or twice 32.
 *
 * An octet is not plain that is an LF without a CR before it, anything else behind a CR, a NUL, a dot that begins a
 * line: `odds` has all ones there; `before` are the octets one further to the left. */
static size_t plain_sse2(const char *p, size_t n, bool *has_high)
{
    const __m128i lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r'), dot = _mm_set1_epi8('.');
    __m128i high = _mm_setzero_si128();
    size_t i = 0;

    for (; n - i >= BLOCK; i += BLOCK) {
        __m128i octets = _mm_setzero_si128(), odds = octets;

        for (const char *at = p + i; at < p + i + BLOCK; at += sizeof odds) {
            __m128i here = _mm_loadu_si128((const __m128i *)(const void *)at);
            __m128i before = _mm_loadu_si128((const __m128i *)(const void *)(at - 1));
            __m128i ends = _mm_xor_si128(_mm_cmpeq_epi8(here, lf), _mm_cmpeq_epi8(before, cr));
            __m128i dots = _mm_and_si128(_mm_cmpeq_epi8(here, dot), _mm_cmpeq_epi8(before, lf));
            __m128i nuls = _mm_cmpeq_epi8(here, _mm_setzero_si128());
            odds = _mm_or_si128(_mm_or_si128(odds, nuls), _mm_or_si128(ends, dots));
            octets = _mm_or_si128(octets, here);
        }
        if (_mm_movemask_epi8(odds) != 0)
            break;
        high = _mm_or_si128(high, octets);
    }
    *has_high = _mm_movemask_epi8(high) != 0;
    return i;
}

__attribute__((target("avx2"))) static size_t plain_avx2(const char *p, size_t n, bool *has_high)
{
    const __m256i lf = _mm256_set1_epi8('\n'), cr = _mm256_set1_epi8('\r'), dot = _mm256_set1_epi8('.');
    __m256i high = _mm256_setzero_si256();
    size_t i = 0;

    for (; n - i >= BLOCK; i += BLOCK) {
        __m256i octets = _mm256_setzero_si256(), odds = octets;

        for (const char *at = p + i; at < p + i + BLOCK; at += sizeof odds) {
            __m256i here = _mm256_loadu_si256((const __m256i *)(const void *)at);
            __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(at - 1));
            __m256i ends = _mm256_xor_si256(_mm256_cmpeq_epi8(here, lf), _mm256_cmpeq_epi8(before, cr));
            __m256i dots = _mm256_and_si256(_mm256_cmpeq_epi8(here, dot), _mm256_cmpeq_epi8(before, lf));
            __m256i nuls = _mm256_cmpeq_epi8(here, _mm256_setzero_si256());
            odds = _mm256_or_si256(_mm256_or_si256(odds, nuls), _mm256_or_si256(ends, dots));
            octets = _mm256_or_si256(octets, here);
        }
        if (_mm256_movemask_epi8(odds) != 0)
            break;
        high = _mm256_or_si256(high, octets);
    }
    *has_high = _mm256_movemask_epi8(high) != 0;
    return i;
}

/*
 * Most of a body is lines that end in CRLF and do not begin with a dot: these are passed in blocks of 64 octets. It
 * starts in the middle of a line, with an octet to its left, and stops before the first block that holds anything else,
 * which the careful reader then reads octet by octet.
 */
static void skip_plain(struct pass *k)
{
    bool has_high;
    size_t n;

    if (k->i == 0 || k->n - k->i < BLOCK)
        return;
    note_stretch(k);
    n = k->r->is_wide ? plain_avx2(k->p + k->i, k->n - k->i, &has_high)
                      : plain_sse2(k->p + k->i, k->n - k->i, &has_high);
    if (n == 0)
        return;
    k->i += n;
    k->r->has_8bit |= has_high;
    k->noted = k->i;
    char last = k->p[k->i - 1];
    k->r->state = last == '\r' ? AFTER_CR : last == '\n' ? AT_START : IN_LINE;
}
#else
static void skip_plain(struct pass *k)
{
    (void)k;
}
#endif

/* From the middle of a line to behind its end, or to the end of the piece. */
static void read_line(struct pass *k)
{
    const char *at = k->p + k->i, *lf = memchr(at, '\n', k->n - k->i);
    size_t len = lf != NULL ? (size_t)(lf - at) : k->n - k->i;

    if (len > 0 && at[len - 1] == '\r') {
        k->i += len;
        k->r->state = AFTER_CR;
        if (lf != NULL) {
            k->i++;
            k->n_crlf++;
            k->r->state = AT_START;
        }
        return;
    }
    k->i += len;
    if (lf == NULL)
        return;
    flush(k);
    hky_buf_add(k->out, "\r\n", 2);
    k->run = ++k->i;
    k->r->has_bare_lf = true;
    k->r->may_have_dot_lines = true;
    k->r->state = AFTER_LF;
}

static void after_cr(struct pass *k)
{
    if (k->p[k->i] == '\n') {
        if (k->i > k->noted)
            k->n_crlf++;
        k->i++;
        k->r->state = AT_START;
        return;
    }
    k->r->has_bare_cr = true;
    k->r->state = IN_LINE;
}

/* A dot began the line and is not in `out` yet. */
static void after_dot(struct pass *k)
{
    if (k->p[k->i] == '\r') {
        k->i++;
        k->r->state = AFTER_DOT_CR;
        return;
    }
    k->r->may_have_dot_lines = true;
    /* A lone dot before a bare LF is a line of content and keeps its dot; else the dot was stuffed. */
    if (k->p[k->i] == '\n')
        hky_buf_add_c(k->out, '.');
    k->run = k->i;
    k->r->state = IN_LINE;
}

/* True: CRLF.CRLF, the end. */
static bool after_dot_cr(struct pass *k)
{
    if (k->p[k->i] == '\n') {
        if (k->i > k->noted)
            k->n_crlf++;
        k->run = ++k->i;
        k->r->state = AT_START;
        return true;
    }
    hky_buf_add_c(k->out, '\r');
    k->r->has_bare_cr = true;
    k->run = k->i;
    k->r->state = IN_LINE;
    return false;
}

static bool read_piece(struct pass *k, bool has_dots)
{
    bool is_end = false;

    while (k->i < k->n && !is_end) {
        switch (k->r->state) {
        case AT_START:
            if (has_dots && k->p[k->i] == '.') {
                flush(k);
                k->run = ++k->i;
                k->r->state = AFTER_DOT;
            } else {
                k->r->state = IN_LINE;
            }
            break;
        case IN_LINE:
            skip_plain(k);
            if (k->r->state == IN_LINE && k->i < k->n)
                read_line(k);
            break;
        case AFTER_CR:
            after_cr(k);
            break;
        case AFTER_DOT:
            after_dot(k);
            break;
        case AFTER_DOT_CR:
            is_end = after_dot_cr(k);
            break;
        case AFTER_LF:
            k->r->state = IN_LINE;
            if (has_dots && k->p[k->i] == '.') {
                flush(k);
                k->run = ++k->i;
                k->r->state = AFTER_LF_DOT;
            }
            break;
        case AFTER_LF_DOT:
            if (k->p[k->i] != '.')
                hky_buf_add_c(k->out, '.');
            k->run = k->i;
            k->r->state = IN_LINE;
            break;
        }
    }
    if (k->r->state != AFTER_DOT && k->r->state != AFTER_DOT_CR)
        flush(k);
    note_stretch(k);
    return is_end;
}

size_t hky_dot_read(struct hky_dot_reader *r, const char *p, size_t n, struct hky_buf *out, bool *is_end)
{
    struct pass k = {.r = r, .p = p, .n = n, .out = out};

    *is_end = read_piece(&k, true);
    return k.i;
}

void hky_bdat_read(struct hky_dot_reader *r, const char *p, size_t n, struct hky_buf *out)
{
    struct pass k = {.r = r, .p = p, .n = n, .out = out};

    r->may_have_dot_lines = true;
    read_piece(&k, false);
}

void hky_bdat_end(struct hky_dot_reader *r)
{
    if (r->state == AFTER_CR)
        r->has_bare_cr = true;
}

void hky_dot_write(const char *p, size_t n, uint8_t *state, void (*emit)(void *ctx, const char *p, size_t n), void *ctx)
{
    size_t run = 0, at = 0;

    if (n == 0)
        return;
    if (*state && p[0] == '.')
        emit(ctx, ".", 1);
    for (const char *lf; at < n && (lf = memchr(p + at, '\n', n - at)) != NULL;) {
        at = (size_t)(lf - p) + 1;
        if (at < n && p[at] == '.') {
            emit(ctx, p + run, at - run);
            emit(ctx, ".", 1);
            run = at;
        }
    }
    if (run < n)
        emit(ctx, p + run, n - run);
    *state = p[n - 1] == '\n';
}

const char *hky_dot_end(uint8_t state)
{
    return state ? ".\r\n" : "\r\n.\r\n";
}
