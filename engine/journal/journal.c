/* The public functions: each asks the backend of its journal. */
#include "journal/backend.h"

static const struct journal_backend *backend_of(struct hky_journal *j)
{
    return ((const struct journal_head *)(const void *)j)->backend;
}

static void close_journal(struct hky_journal **journal, bool is_used)
{
    struct hky_journal *j = *journal;

    *journal = NULL;
    if (j != NULL)
        backend_of(j)->close(j, is_used);
}

void hky_journal_close(struct hky_journal **journal)
{
    close_journal(journal, true);
}

void hky_journal_close_unused(struct hky_journal **journal)
{
    close_journal(journal, false);
}

struct hky_id_source *hky_journal_ids(struct hky_journal *j)
{
    return backend_of(j)->ids(j);
}

enum hky_err hky_journal_room(struct hky_journal *j, uint64_t size)
{
    return backend_of(j)->room(j, size);
}

void hky_journal_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c)
{
    backend_of(j)->accept(j, m, c);
}

void hky_journal_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c)
{
    backend_of(j)->attempt(j, r, c);
}

void hky_journal_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                        struct hky_commit *c)
{
    backend_of(j)->finish(j, r, notice, c);
}

void hky_journal_cap(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c)
{
    backend_of(j)->cap(j, key, value, c);
}

bool hky_journal_body(struct hky_journal *j, struct hky_body_read *r)
{
    return backend_of(j)->body(j, r);
}

struct hky_body *hky_journal_body_in_memory(struct hky_journal *j, struct hky_message *m)
{
    return backend_of(j)->body_in_memory(j, m);
}

bool hky_journal_header(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out)
{
    return backend_of(j)->header(j, m, body, out);
}

void hky_journal_body_drop(struct hky_journal *j, struct hky_message *m)
{
    backend_of(j)->body_drop(j, m);
}

enum hky_err hky_journal_big_open(struct hky_journal *j, uint64_t id, struct hky_loop *loop, void (*on_room)(void *ctx),
                                  void *ctx, struct hky_big **out)
{
    return backend_of(j)->big_open(j, id, loop, on_room, ctx, out);
}

void hky_journal_stats(struct hky_journal *j, struct hky_journal_stats *out)
{
    backend_of(j)->stats(j, out);
}

uint64_t hky_journal_submitted(struct hky_journal *j)
{
    return backend_of(j)->submitted(j);
}

uint64_t hky_journal_written(struct hky_journal *j)
{
    return backend_of(j)->written(j);
}

enum hky_err hky_journal_takes_results(struct hky_journal *j)
{
    return backend_of(j)->takes_results(j);
}

void hky_journal_sync(struct hky_journal *j, struct hky_commit *c)
{
    backend_of(j)->sync(j, c);
}

enum hky_err hky_journal_flush(struct hky_journal *j)
{
    return backend_of(j)->flush(j);
}
