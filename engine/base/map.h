/*
 * map -- strings to pointers, open addressing, keys copied. Not for many threads.
 */
#ifndef HKY_BASE_MAP_H
#define HKY_BASE_MAP_H

#include "base/str.h"

struct hky_map_entry {
    char *key; /* NUL-terminated copy; NULL: free, or removed (probing goes on behind it) when `hash` is 1 */
    size_t n;
    uint64_t hash;
    void *value;
};

struct hky_map {
    struct hky_map_entry *entries;
    size_t cap, n, n_removed;
    uint64_t seed;
};

void hky_map_init(struct hky_map *m);
void hky_map_init_outside(struct hky_map *m); /* for untrusted keys: the hash has a random seed */
void hky_map_fini(struct hky_map *m);         /* keys are freed, values are not */
void *hky_map_get(const struct hky_map *m, struct hky_str key);
void *hky_map_put(struct hky_map *m, struct hky_str key, void *value); /* value not NULL; returns the one replaced */
void *hky_map_remove(struct hky_map *m, struct hky_str key);

/* Walk: `*at` starts at 0; NULL at the end. Removing the entry just returned is allowed. */
struct hky_map_entry *hky_map_next(const struct hky_map *m, size_t *at);

/* 64-bit numbers to pointers with the same rules; key 0 is allowed. */
struct hky_idmap_entry {
    uint64_t key;
    void *value; /* NULL: free; a private mark: removed */
};
struct hky_idmap {
    struct hky_idmap_entry *entries;
    size_t cap, n, n_removed;
};
void hky_idmap_init(struct hky_idmap *m);
void hky_idmap_fini(struct hky_idmap *m);
void hky_idmap_reserve(struct hky_idmap *m, size_t n); /* it does not grow before it holds n */
void *hky_idmap_get(const struct hky_idmap *m, uint64_t key);
void *hky_idmap_put(struct hky_idmap *m, uint64_t key, void *value);
void *hky_idmap_remove(struct hky_idmap *m, uint64_t key);
struct hky_idmap_entry *hky_idmap_next(const struct hky_idmap *m, size_t *at);

#endif
