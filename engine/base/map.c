#include "base/map.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>

#define REMOVED_HASH 1u

void hky_map_init(struct hky_map *m)
{
    *m = (struct hky_map){0};
}

void hky_map_init_untrusted(struct hky_map *m)
{
    static atomic_ullong seed; /* one for the process, because asking the kernel for each map takes long */
    unsigned long long was = 0, fresh;

    if (atomic_load(&seed) == 0) {
        hky_random(&fresh, sizeof fresh);
        atomic_compare_exchange_strong(&seed, &was, fresh | 1);
    }
    *m = (struct hky_map){.seed = atomic_load(&seed)};
}

void hky_map_fini(struct hky_map *m)
{
    for (size_t i = 0; i < m->cap; i++)
        free(m->entries[i].key);
    free(m->entries);
    *m = (struct hky_map){0};
}

static uint64_t key_hash(const struct hky_map *m, struct hky_str key)
{
    uint64_t h = hky_hash64(key.p, key.n, m->seed);

    return h > REMOVED_HASH ? h : h + 2;
}

static struct hky_map_entry *map_find(const struct hky_map *m, struct hky_str key, uint64_t hash)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct hky_map_entry *e = &m->entries[i];
        if (e->key == NULL) {
            if (e->hash != REMOVED_HASH)
                return NULL;
        } else if (e->hash == hash && e->n == key.n && memcmp(e->key, key.p, key.n) == 0) {
            return e;
        }
    }
}

static void map_resize(struct hky_map *m, size_t cap)
{
    struct hky_map_entry *old = m->entries;
    size_t old_cap = m->cap;

    m->entries = hky_calloc(cap, sizeof *m->entries);
    m->cap = cap;
    m->n_removed = 0;
    for (size_t k = 0; k < old_cap; k++) {
        if (old[k].key == NULL)
            continue;
        size_t i = old[k].hash & (cap - 1);
        while (m->entries[i].key != NULL)
            i = (i + 1) & (cap - 1);
        m->entries[i] = old[k];
    }
    free(old);
}

void *hky_map_get(const struct hky_map *m, struct hky_str key)
{
    struct hky_map_entry *e = map_find(m, key, key_hash(m, key));

    return e != NULL ? e->value : NULL;
}

void *hky_map_put(struct hky_map *m, struct hky_str key, void *value)
{
    uint64_t hash = key_hash(m, key);
    struct hky_map_entry *e;
    size_t i;

    HKY_ASSERT(value != NULL);
    e = map_find(m, key, hash);
    if (e != NULL) {
        void *was = e->value;
        e->value = value;
        return was;
    }
    if ((m->n + m->n_removed + 1) * 4 > m->cap * 3)
        map_resize(m, (m->n + 1) * 2 > m->cap ? (m->cap < 16 ? 16 : m->cap * 2) : m->cap);
    i = hash & (m->cap - 1);
    while (m->entries[i].key != NULL)
        i = (i + 1) & (m->cap - 1);
    if (m->entries[i].hash == REMOVED_HASH)
        m->n_removed--;
    m->entries[i] = (struct hky_map_entry){hky_str_dup(key), key.n, hash, value};
    m->n++;
    return NULL;
}

void *hky_map_remove(struct hky_map *m, struct hky_str key)
{
    struct hky_map_entry *e = map_find(m, key, key_hash(m, key));
    void *was;

    if (e == NULL)
        return NULL;
    was = e->value;
    free(e->key);
    *e = (struct hky_map_entry){.hash = REMOVED_HASH};
    m->n--;
    m->n_removed++;
    return was;
}

struct hky_map_entry *hky_map_next(const struct hky_map *m, size_t *at)
{
    while (*at < m->cap) {
        struct hky_map_entry *e = &m->entries[(*at)++];
        if (e->key != NULL)
            return e;
    }
    return NULL;
}

static char removed;
#define ID_REMOVED ((void *)&removed)

void hky_idmap_init(struct hky_idmap *m)
{
    *m = (struct hky_idmap){0};
}

void hky_idmap_fini(struct hky_idmap *m)
{
    free(m->entries);
    *m = (struct hky_idmap){0};
}

static size_t id_slot(uint64_t key, size_t cap)
{
    key *= 0x9e3779b97f4a7c15u;
    return (size_t)(key ^ key >> 32) & (cap - 1);
}

static struct hky_idmap_entry *idmap_find(const struct hky_idmap *m, uint64_t key)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = id_slot(key, m->cap);; i = (i + 1) & (m->cap - 1)) {
        struct hky_idmap_entry *e = &m->entries[i];
        if (e->value == NULL)
            return NULL;
        if (e->value != ID_REMOVED && e->key == key)
            return e;
    }
}

static void idmap_resize(struct hky_idmap *m, size_t cap)
{
    struct hky_idmap_entry *old = m->entries;
    size_t old_cap = m->cap;

    m->entries = hky_calloc(cap, sizeof *m->entries);
    m->cap = cap;
    m->n_removed = 0;
    for (size_t k = 0; k < old_cap; k++) {
        if (old[k].value == NULL || old[k].value == ID_REMOVED)
            continue;
        size_t i = id_slot(old[k].key, cap);
        while (m->entries[i].value != NULL)
            i = (i + 1) & (cap - 1);
        m->entries[i] = old[k];
    }
    free(old);
}

void hky_idmap_reserve(struct hky_idmap *m, size_t n)
{
    size_t cap = 16;

    while (n * 4 > cap * 3)
        cap *= 2;
    if (cap <= m->cap)
        return;
    idmap_resize(m, cap);
    hky_memory_ready(m->entries, cap * sizeof *m->entries);
}

void *hky_idmap_get(const struct hky_idmap *m, uint64_t key)
{
    struct hky_idmap_entry *e = idmap_find(m, key);

    return e != NULL ? e->value : NULL;
}

void *hky_idmap_put(struct hky_idmap *m, uint64_t key, void *value)
{
    struct hky_idmap_entry *e;
    size_t i;

    HKY_ASSERT(value != NULL);
    e = idmap_find(m, key);
    if (e != NULL) {
        void *was = e->value;
        e->value = value;
        return was;
    }
    if ((m->n + m->n_removed + 1) * 4 > m->cap * 3)
        idmap_resize(m, (m->n + 1) * 2 > m->cap ? (m->cap < 16 ? 16 : m->cap * 2) : m->cap);
    i = id_slot(key, m->cap);
    while (m->entries[i].value != NULL && m->entries[i].value != ID_REMOVED)
        i = (i + 1) & (m->cap - 1);
    if (m->entries[i].value == ID_REMOVED)
        m->n_removed--;
    m->entries[i] = (struct hky_idmap_entry){key, value};
    m->n++;
    return NULL;
}

void *hky_idmap_remove(struct hky_idmap *m, uint64_t key)
{
    struct hky_idmap_entry *e = idmap_find(m, key);
    void *was;

    if (e == NULL)
        return NULL;
    was = e->value;
    e->value = ID_REMOVED;
    m->n--;
    m->n_removed++;
    return was;
}

struct hky_idmap_entry *hky_idmap_next(const struct hky_idmap *m, size_t *at)
{
    while (*at < m->cap) {
        struct hky_idmap_entry *e = &m->entries[(*at)++];
        if (e->value != NULL && e->value != ID_REMOVED)
            return e;
    }
    return NULL;
}
