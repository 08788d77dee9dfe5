/*
 * arena -- memory that lives as long as one policy: allocated piece by piece, freed at once.
 */
#ifndef HKY_ROUTE_ARENA_H
#define HKY_ROUTE_ARENA_H

#include "base/str.h"

struct hky_arena {
    struct hky_arena_block *blocks;
};

void *hky_arena_alloc(struct hky_arena *a, size_t n); /* zeroed, aligned for anything */
/* NUL-terminated copies. */
const char *hky_arena_str(struct hky_arena *a, struct hky_str s);
const char *hky_arena_z(struct hky_arena *a, const char *z);
/* Frees everything; the arena can be used again. */
void hky_arena_fini(struct hky_arena *a);

#endif
