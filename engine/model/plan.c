#include "hikyaku/plan.h"

#include "base/hash.h"

#include <stdlib.h>

#define PLAN_FORMAT      1
#define PLAN_ENCODED_MAX (64u << 10)

/* A string that may be NULL: u8 0, or u8 1 and the string. */
static void add_optional(struct hky_buf *b, const char *z)
{
    hky_buf_add_u8(b, z != NULL);
    if (z != NULL)
        hky_buf_add_lstr(b, hky_str_z(z));
}

static void add_retry(struct hky_buf *b, const struct hky_retry *r)
{
    hky_buf_add_u8(b, r->n);
    for (unsigned i = 0; i < r->n; i++)
        hky_buf_add_u32(b, r->after_sec[i]);
}

static void encode(const struct hky_plan *p, struct hky_buf *b)
{
    hky_buf_add_u8(b, PLAN_FORMAT);
    hky_buf_add_lstr(b, hky_str_z(p->route));
    hky_buf_add_lstr(b, hky_str_z(p->file));
    hky_buf_add_u32(b, p->line);
    hky_buf_add_u8(b, (uint8_t)p->rank);
    hky_buf_add_u8(b, (uint8_t)(p->has_rank | p->is_from_function << 1));
    hky_buf_add_u8(b, (uint8_t)p->dsn);
    hky_buf_add_u32(b, p->expire_sec);
    add_retry(b, &p->retry);
    add_optional(b, p->from);
    add_optional(b, p->envelope);
    add_optional(b, p->reply_to);
    for (int i = 0; i < HKY_CLASS_N; i++) {
        if (p->react[i] == HKY_ACTION_NONE)
            continue;
        hky_buf_add_u8(b, (uint8_t)(i + 1));
        hky_buf_add_u8(b, p->react[i]);
        hky_buf_add_u32(b, p->react_after_sec[i]);
    }
    hky_buf_add_u8(b, 0);
    hky_buf_add_u8(b, p->n_steps);
    for (unsigned i = 0; i < p->n_steps; i++) {
        const struct hky_step *s = &p->steps[i];
        hky_buf_add_lstr(b, hky_str_z(s->relay));
        hky_buf_add_lstr(b, hky_str_z(s->account));
        hky_buf_add_u64(b, s->on);
        hky_buf_add_u16(b, s->tries);
        hky_buf_add_u32(b, s->within_sec);
        hky_buf_add_u32(b, s->wait_sec);
        add_optional(b, s->from);
        add_optional(b, s->envelope);
        add_optional(b, s->reply_to);
        add_retry(b, &s->retry);
    }
}

/* Strings of a decoded plan are copied one after the other behind it. */
struct pool {
    char *at, *end;
};

static const char *keep(struct pool *pool, struct hky_str s)
{
    char *z = pool->at;

    HKY_ASSERT((size_t)(pool->end - z) > s.n);
    if (s.n > 0)
        memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    pool->at += s.n + 1;
    return z;
}

static const char *take_string(struct hky_cursor *c, struct pool *pool)
{
    return keep(pool, hky_cursor_lstr(c));
}

static const char *take_optional(struct hky_cursor *c, struct pool *pool)
{
    return hky_cursor_u8(c) != 0 ? take_string(c, pool) : NULL;
}

static void take_retry(struct hky_cursor *c, struct hky_retry *r)
{
    r->n = hky_cursor_u8(c);
    if (r->n > HKY_RETRY_MAX) {
        c->is_bad = true;
        r->n = 0;
    }
    for (unsigned i = 0; i < r->n; i++)
        r->after_sec[i] = hky_cursor_u32(c);
}

static void take_react(struct hky_cursor *c, struct hky_plan *p)
{
    for (uint8_t k; (k = hky_cursor_u8(c)) != 0 && !c->is_bad;) {
        uint8_t action = hky_cursor_u8(c);
        uint32_t after = hky_cursor_u32(c);
        if (k > HKY_CLASS_N || action > HKY_ACTION_DONE) {
            c->is_bad = true;
            return;
        }
        p->react[k - 1] = action;
        p->react_after_sec[k - 1] = after;
    }
}

static void take_step(struct hky_cursor *c, struct pool *pool, struct hky_step *s)
{
    s->relay = take_string(c, pool);
    s->account = take_string(c, pool);
    s->on = hky_cursor_u64(c);
    s->tries = hky_cursor_u16(c);
    s->within_sec = hky_cursor_u32(c);
    s->wait_sec = hky_cursor_u32(c);
    s->from = take_optional(c, pool);
    s->envelope = take_optional(c, pool);
    s->reply_to = take_optional(c, pool);
    take_retry(c, &s->retry);
}

enum hky_err hky_plan_decode(struct hky_str encoded, struct hky_plan **out, struct hky_error *e)
{
    struct hky_cursor c = {encoded.p, encoded.n, false};
    struct hky_plan *p;
    struct pool pool;
    char *copy;

    *out = NULL;
    if (encoded.n > PLAN_ENCODED_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "plan of %zu octets; at most %u", encoded.n, PLAN_ENCODED_MAX);
    /* Every string costs four octets of length and one NUL, so twice the encoding holds encoding and strings. */
    p = hky_calloc(1, sizeof *p + 2 * encoded.n + 64);
    copy = (char *)(p + 1);
    memcpy(copy, encoded.p, encoded.n);
    pool = (struct pool){copy + encoded.n, copy + 2 * encoded.n + 64};
    p->refs = 1;
    p->encoded = copy;
    p->encoded_n = (uint32_t)encoded.n;
    p->hash = hky_hash64(encoded.p, encoded.n, 0);
    if (hky_cursor_u8(&c) != PLAN_FORMAT)
        c.is_bad = true;
    p->route = take_string(&c, &pool);
    p->file = take_string(&c, &pool);
    p->line = hky_cursor_u32(&c);
    p->rank = (enum hky_rank)hky_cursor_u8(&c);
    uint8_t bits = hky_cursor_u8(&c);
    p->has_rank = bits & 1;
    p->is_from_function = (bits & 2) != 0;
    p->dsn = (enum hky_dsn_mode)hky_cursor_u8(&c);
    p->expire_sec = hky_cursor_u32(&c);
    take_retry(&c, &p->retry);
    p->from = take_optional(&c, &pool);
    p->envelope = take_optional(&c, &pool);
    p->reply_to = take_optional(&c, &pool);
    take_react(&c, p);
    p->n_steps = hky_cursor_u8(&c);
    if (p->n_steps == 0 || p->n_steps > HKY_PLAN_STEPS_MAX || p->rank >= HKY_RANK_N || p->dsn > HKY_DSN_UNSET)
        c.is_bad = true;
    for (unsigned i = 0; i < p->n_steps && !c.is_bad; i++)
        take_step(&c, &pool, &p->steps[i]);
    if (c.is_bad || c.n != 0) {
        free(p);
        return hky_error_set(e, HKY_E_SYNTAX, "not a plan record of format %d", PLAN_FORMAT);
    }
    *out = p;
    return HKY_OK;
}

enum hky_err hky_plan_new(const struct hky_plan *draft, struct hky_plan **out, struct hky_error *e)
{
    struct hky_buf b;
    enum hky_err err;

    *out = NULL;
    if (draft->n_steps == 0 || draft->n_steps > HKY_PLAN_STEPS_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "a plan has 1 to %d steps, this one %u", HKY_PLAN_STEPS_MAX,
                             draft->n_steps);
    hky_buf_init(&b, PLAN_ENCODED_MAX);
    encode(draft, &b);
    err = b.is_over ? hky_error_set(e, HKY_E_LIMIT, "plan above %u octets", PLAN_ENCODED_MAX)
                    : hky_plan_decode(hky_buf_str(&b), out, e);
    hky_buf_fini(&b);
    return err;
}

struct hky_plan *hky_plan_ref(struct hky_plan *p)
{
    __atomic_add_fetch(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

void hky_plan_unref(struct hky_plan **p)
{
    struct hky_plan *it = *p;

    *p = NULL;
    if (it != NULL && __atomic_sub_fetch(&it->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(it);
}

const char *hky_rank_name(enum hky_rank r)
{
    static const char *const names[] = {"urgent", "normal", "bulk"};

    return (unsigned)r < HKY_RANK_N ? names[r] : "?";
}
