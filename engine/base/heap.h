/*
 * heap -- who is due first: an intrusive binary heap ordered by a 64-bit time.
 */
#ifndef HKY_BASE_HEAP_H
#define HKY_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embed it; `at` is set by hky_heap_set. `index` 0 means "not in a heap". */
struct hky_heap_node {
    int64_t at;
    uint32_t index;
};

struct hky_heap {
    struct hky_heap_node **nodes; /* from 1 */
    uint32_t n, cap;
};

/* An empty heap; fini frees the heap alone, because its nodes belong to others. */
void hky_heap_init(struct hky_heap *h);
void hky_heap_fini(struct hky_heap *h);
void hky_heap_set(struct hky_heap *h, struct hky_heap_node *node, int64_t at); /* insert, or move to another time */
void hky_heap_restore(struct hky_heap *h);                            /* after `at` of many nodes was changed by hand */
void hky_heap_remove(struct hky_heap *h, struct hky_heap_node *node); /* nothing when not in it */
struct hky_heap_node *hky_heap_first(const struct hky_heap *h);       /* NULL when empty */

#define HKY_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
