/*
 * map -- strings to pointers, by open addressing. Keys are copied. A map belongs to one thread at a time.
 */
#ifndef HKY_BASE_MAP_H
#define HKY_BASE_MAP_H

#include "base/str.h"

struct hky_map_entry {
    char *key; /* NUL-terminated copy. NULL: the slot is free; or its entry was removed, when `hash` is 1 */
    size_t n;
    uint64_t hash;
    void *value;
};

struct hky_map {
    struct hky_map_entry *entries;
    size_t cap, n, n_removed;
    uint64_t seed;
};

/* An empty map; nothing is allocated before the first put. */
void hky_map_init(struct hky_map *m);
/* The same for keys that strangers choose: the hash has a secret seed, so that nobody can make many keys collide. */
void hky_map_init_untrusted(struct hky_map *m);
void hky_map_fini(struct hky_map *m); /* keys are freed, values are not */
void *hky_map_get(const struct hky_map *m, struct hky_str key);
void *hky_map_put(struct hky_map *m, struct hky_str key, void *value); /* value: not NULL; returns the one before */
void *hky_map_remove(struct hky_map *m, struct hky_str key);

/* The next entry of a walk; `*at` is 0 at its start. NULL: there is none. The entry just returned may be removed. */
struct hky_map_entry *hky_map_next(const struct hky_map *m, size_t *at);

/* The same from 64-bit numbers to pointers; key 0 is allowed. */
struct hky_idmap_entry {
    uint64_t key;
    void *value; /* NULL: the slot is free; a private mark: its entry was removed */
};
struct hky_idmap {
    struct hky_idmap_entry *entries;
    size_t cap, n, n_removed;
};
void hky_idmap_init(struct hky_idmap *m);
void hky_idmap_fini(struct hky_idmap *m);
void hky_idmap_reserve(struct hky_idmap *m, size_t n); /* room for n, so that it need not grow before */
void *hky_idmap_get(const struct hky_idmap *m, uint64_t key);
void *hky_idmap_put(struct hky_idmap *m, uint64_t key, void *value);
void *hky_idmap_remove(struct hky_idmap *m, uint64_t key);
struct hky_idmap_entry *hky_idmap_next(const struct hky_idmap *m, size_t *at);

#endif
