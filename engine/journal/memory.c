/*
 * The journal in memory. What is submitted counts as durable at once; `done` is called in the next turn of the loop.
 * A message keeps its body for as long as it is referenced, so bodies are answered from there.
 */
#include "journal/backend.h"
#include "hikyaku/journal_memory.h"

#include <stdlib.h>

struct memory {
    struct journal_head head; /* first */
    struct hky_id_source ids;
    unsigned long long n_accepts, n_results, n_caps, n_flushes, n_write_errors; /* atomic */
    uint64_t n_written; /* atomic: the last record submitted while the journal was healthy */
    int health;         /* atomic: enum hky_err */
    bool is_behind;     /* atomic */
};

static struct memory *memory_of(struct hky_journal *j)
{
    return (struct memory *)(void *)j;
}

static void count(unsigned long long *n)
{
    __atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
}

static enum hky_err health(struct memory *m)
{
    return (enum hky_err)__atomic_load_n(&m->health, __ATOMIC_RELAXED);
}

static void on_answer(struct hky_task *t)
{
    struct hky_commit *c = HKY_CONTAINER(t, struct hky_commit, task);

    /* nobody reads a token: its existence is the proof */
    c->done(c, c->result == HKY_OK ? (const struct hky_durable *)(const void *)c : NULL, c->result);
}

static void answer(struct memory *m, struct hky_commit *c)
{
    if (health(m) != HKY_OK)
        count(&m->n_write_errors);
    if (c == NULL)
        return;
    c->task.run = on_answer;
    c->result = health(m);
    hky_loop_post(c->loop, &c->task);
}

static void memory_close(struct hky_journal *j, bool is_used)
{
    (void)is_used;
    free(memory_of(j));
}

static struct hky_id_source *memory_ids(struct hky_journal *j)
{
    return &memory_of(j)->ids;
}

static enum hky_err memory_room(struct hky_journal *j, uint64_t size)
{
    return size > HKY_BIG_BODY ? HKY_E_FULL : health(memory_of(j));
}

static void memory_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c)
{
    (void)m;
    count(&memory_of(j)->n_accepts);
    answer(memory_of(j), c);
}

static void memory_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    HKY_ASSERT(r->message != NULL);
    count(&memory_of(j)->n_results);
    answer(memory_of(j), c);
}

static void memory_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                          struct hky_commit *c)
{
    HKY_ASSERT(hky_recipient_state_is_final((enum hky_recipient_state)r->state));
    count(&memory_of(j)->n_results);
    if (notice != NULL)
        count(&memory_of(j)->n_accepts);
    answer(memory_of(j), c);
}

static void memory_cap(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c)
{
    (void)key, (void)value;
    count(&memory_of(j)->n_caps);
    answer(memory_of(j), c);
}

static struct hky_body *memory_body_in_memory(struct hky_journal *j, struct hky_message *m)
{
    (void)j;
    return m->body != NULL ? hky_body_ref(m->body) : NULL;
}

static bool memory_body(struct hky_journal *j, struct hky_body_read *r)
{
    struct hky_body *b = memory_body_in_memory(j, r->message);

    r->result = b != NULL ? HKY_OK : HKY_E_MISSING;
    r->body = b;
    r->n = b != NULL && r->at < b->n ? b->n - (size_t)r->at : 0;
    r->p = r->n > 0 ? b->p + r->at : NULL;
    return true;
}

static bool memory_header(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out)
{
    *body = memory_body_in_memory(j, m);
    if (*body == NULL)
        return false;
    *out = hky_str_of((*body)->p, m->header_octets < (*body)->n ? m->header_octets : (*body)->n);
    return true;
}

static void memory_body_drop(struct hky_journal *j, struct hky_message *m)
{
    (void)j, (void)m; /* there is no other copy */
}

static enum hky_err memory_big_open(struct hky_journal *j, uint64_t id, struct hky_loop *loop,
                                    void (*on_room)(void *ctx), void *ctx, struct hky_big **out)
{
    (void)j, (void)id, (void)loop, (void)on_room, (void)ctx;
    *out = NULL;
    return HKY_E_FULL; /* hky_journal_room answers the same */
}

static void memory_stats(struct hky_journal *j, struct hky_journal_stats *out)
{
    struct memory *m = memory_of(j);

    *out = (struct hky_journal_stats){.accepts = __atomic_load_n(&m->n_accepts, __ATOMIC_RELAXED),
                                      .results = __atomic_load_n(&m->n_results, __ATOMIC_RELAXED),
                                      .commits = __atomic_load_n(&m->n_caps, __ATOMIC_RELAXED),
                                      .syncs = __atomic_load_n(&m->n_flushes, __ATOMIC_RELAXED),
                                      .write_errors = __atomic_load_n(&m->n_write_errors, __ATOMIC_RELAXED),
                                      .health = health(m),
                                      .takes_results = health(m) == HKY_OK};
}

static uint64_t memory_submitted(struct hky_journal *j)
{
    struct memory *m = memory_of(j);

    return __atomic_load_n(&m->n_accepts, __ATOMIC_RELAXED) + __atomic_load_n(&m->n_results, __ATOMIC_RELAXED) +
           __atomic_load_n(&m->n_caps, __ATOMIC_RELAXED);
}

static enum hky_err memory_takes_results(struct hky_journal *j)
{
    return health(memory_of(j));
}

static uint64_t memory_written(struct hky_journal *j)
{
    struct memory *m = memory_of(j);

    if (health(m) == HKY_OK && !__atomic_load_n(&m->is_behind, __ATOMIC_RELAXED))
        __atomic_store_n(&m->n_written, memory_submitted(j), __ATOMIC_RELAXED);
    return __atomic_load_n(&m->n_written, __ATOMIC_RELAXED);
}

static void memory_sync(struct hky_journal *j, struct hky_commit *c)
{
    count(&memory_of(j)->n_flushes);
    answer(memory_of(j), c);
}

static enum hky_err memory_flush(struct hky_journal *j)
{
    count(&memory_of(j)->n_flushes);
    return health(memory_of(j));
}

static const struct journal_backend in_memory = {.close = memory_close,
                                                 .ids = memory_ids,
                                                 .room = memory_room,
                                                 .accept = memory_accept,
                                                 .attempt = memory_attempt,
                                                 .finish = memory_finish,
                                                 .cap = memory_cap,
                                                 .body = memory_body,
                                                 .body_in_memory = memory_body_in_memory,
                                                 .header = memory_header,
                                                 .body_drop = memory_body_drop,
                                                 .big_open = memory_big_open,
                                                 .stats = memory_stats,
                                                 .submitted = memory_submitted,
                                                 .written = memory_written,
                                                 .takes_results = memory_takes_results,
                                                 .sync = memory_sync,
                                                 .flush = memory_flush};

struct hky_journal *hky_journal_memory_new(void)
{
    struct memory *m = hky_calloc(1, sizeof *m);

    m->head.backend = &in_memory;
    return (struct hky_journal *)(void *)m;
}

void hky_journal_memory_set_health(struct hky_journal *j, enum hky_err health_now)
{
    HKY_ASSERT(memory_of(j)->head.backend == &in_memory);
    __atomic_store_n(&memory_of(j)->health, (int)health_now, __ATOMIC_RELAXED);
}

void hky_journal_memory_set_behind(struct hky_journal *j, bool is_behind)
{
    (void)memory_written(j); /* what was submitted before */
    __atomic_store_n(&memory_of(j)->is_behind, is_behind, __ATOMIC_RELAXED);
}
