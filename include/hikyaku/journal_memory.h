/*
 * journal_memory -- a journal without a disk and without threads, for rehearsals and tests. Everything in
 * hikyaku/journal.h works with it except large bodies: it has no room for a message above HKY_BIG_BODY.
 * hky_journal_close frees it.
 */
#ifndef HIKYAKU_JOURNAL_MEMORY_H
#define HIKYAKU_JOURNAL_MEMORY_H

#include "hikyaku/journal.h"

/* hky_journal_stats: `accepts` and `results` as on disk, `commits` counts caps, `syncs` counts flushes. */
struct hky_journal *hky_journal_memory_new(void);
/* HKY_OK, as at first: commits succeed. HKY_E_IO or HKY_E_FULL: from now on every commit ends with that error, as when
 * a disk fails. */
void hky_journal_memory_set_health(struct hky_journal *j, enum hky_err health);
/* True: what is submitted from now on is not counted as written, as during a commit that takes long. */
void hky_journal_memory_set_behind(struct hky_journal *j, bool is_behind);

#endif
