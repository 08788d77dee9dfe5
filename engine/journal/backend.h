/*
 * backend -- what hikyaku/journal.h is implemented by: the journal on disk, or the one in memory. journal.c asks the
 * journal's backend; nobody else needs to know which one it is.
 */
#ifndef HKY_JOURNAL_BACKEND_H
#define HKY_JOURNAL_BACKEND_H

#include "hikyaku/journal.h"

/* The contracts are those of the functions of the same name in hikyaku/journal.h. */
struct journal_backend {
    void (*close)(struct hky_journal *j, bool is_used); /* frees it */
    struct hky_id_source *(*ids)(struct hky_journal *j);
    enum hky_err (*room)(struct hky_journal *j, uint64_t size);
    void (*accept)(struct hky_journal *j, struct hky_message *m, struct hky_commit *c);
    void (*attempt)(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c);
    void (*finish)(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                   struct hky_commit *c);
    void (*cap)(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c);
    bool (*body)(struct hky_journal *j, struct hky_body_read *r);
    struct hky_body *(*body_in_memory)(struct hky_journal *j, struct hky_message *m);
    bool (*header)(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out);
    void (*body_drop)(struct hky_journal *j, struct hky_message *m);
    enum hky_err (*big_open)(struct hky_journal *j, uint64_t id, struct hky_loop *loop, void (*on_room)(void *ctx),
                             void *ctx, struct hky_big **out);
    void (*stats)(struct hky_journal *j, struct hky_journal_stats *out);
    uint64_t (*submitted)(struct hky_journal *j);
    uint64_t (*written)(struct hky_journal *j);
    enum hky_err (*takes_results)(struct hky_journal *j);
    void (*sync)(struct hky_journal *j, struct hky_commit *c);
    enum hky_err (*flush)(struct hky_journal *j);
};

/* The first member of every journal. */
struct journal_head {
    const struct journal_backend *backend;
};

#endif
