#include "route/table/arena.h"

#include "base/error.h"

#include <stdlib.h>

#define BLOCK 65536u

struct hky_arena_block {
    struct hky_arena_block *next;
    size_t used, cap;
    _Alignas(16) char p[];
};

void *hky_arena_alloc(struct hky_arena *a, size_t n)
{
    struct hky_arena_block *b = a->blocks;
    void *p;

    n = (n + 15) & ~(size_t)15;
    if (b == NULL || n > b->cap - b->used) {
        size_t cap = n > BLOCK ? n : BLOCK;
        b = hky_calloc(1, sizeof *b + cap);
        b->cap = cap;
        b->next = a->blocks;
        a->blocks = b;
    }
    p = b->p + b->used;
    b->used += n;
    return p;
}

const char *hky_arena_str(struct hky_arena *a, struct hky_str s)
{
    char *p;

    if (s.n == 0)
        return "";
    p = hky_arena_alloc(a, s.n + 1);
    memcpy(p, s.p, s.n);
    return p;
}

const char *hky_arena_z(struct hky_arena *a, const char *z)
{
    return hky_arena_str(a, hky_str_z(z));
}

void hky_arena_fini(struct hky_arena *a)
{
    while (a->blocks != NULL) {
        struct hky_arena_block *b = a->blocks;
        a->blocks = b->next;
        free(b);
    }
}
