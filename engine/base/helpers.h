/*
 * helpers -- a few threads for work that may block (a secret's command, a slow file), so that no loop waits for it. At
 * most `most` pieces run at a time; the others wait in order. A piece that hangs holds up one thread, not the others.
 */
#ifndef HKY_BASE_HELPERS_H
#define HKY_BASE_HELPERS_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>

struct hky_helpers;

/* Work to do, embedded by its owner; at the end of `run` it tells a loop that it is done. */
struct hky_help {
    void (*run)(struct hky_help *help); /* on a thread of the helpers */
    struct hky_help *next;              /* theirs */
};

/* Starts one thread; the others are started when they are needed. HKY_E_LIMIT: the system allows no thread. */
enum hky_err hky_helpers_new(unsigned most, struct hky_helpers **out, struct hky_error *e);
void hky_helpers_do(struct hky_helpers *h, struct hky_help *help); /* any thread */
/* True once the helpers are to end: long work checks it and gives up. */
const atomic_bool *hky_helpers_are_ending(const struct hky_helpers *h);
/* Waits for running work. Work that has not begun never runs, and its owner frees it. NULL is fine. */
void hky_helpers_free(struct hky_helpers **h);

#endif
