#include "route/lookup.h"

#include <stdlib.h>

struct slot {
    uint32_t generation; /* of the ticket that is out, or of the last one */
    uint32_t next_free;
    bool is_out;
    void (*ready)(void *ctx); /* NULL: the owner was told */
    void *ctx;
};

struct hky_lookups {
    struct slot *slots;
    uint32_t n_slots, cap_slots;
    uint32_t first_free; /* n_slots: none */
};

struct hky_lookups *hky_lookups_new(void)
{
    return hky_calloc(1, sizeof(struct hky_lookups));
}

void hky_lookups_free(struct hky_lookups **at)
{
    struct hky_lookups *l = *at;

    *at = NULL;
    if (l == NULL)
        return;
    free(l->slots);
    free(l);
}

/* --- tickets --- */

struct hky_ticket hky_ticket_new(struct hky_lookups *l, void (*ready)(void *ctx), void *ctx)
{
    uint32_t at = l->first_free;
    struct slot *s;

    if (at == l->n_slots) {
        if (l->n_slots == l->cap_slots) {
            l->cap_slots = l->cap_slots < 16 ? 16 : l->cap_slots * 2;
            l->slots = hky_realloc(l->slots, l->cap_slots * sizeof *l->slots);
        }
        l->slots[at] = (struct slot){.next_free = at + 1};
        l->n_slots++;
    }
    s = &l->slots[at];
    l->first_free = s->next_free;
    s->generation += s->generation == UINT32_MAX ? 2 : 1;
    s->is_out = true;
    s->ready = ready;
    s->ctx = ctx;
    return (struct hky_ticket){at, s->generation};
}

void hky_ticket_end(struct hky_lookups *l, struct hky_ticket *t)
{
    struct slot *s;

    if (t->generation == 0)
        return;
    s = &l->slots[t->slot];
    HKY_ASSERT(s->is_out && s->generation == t->generation);
    s->is_out = false;
    s->ready = NULL;
    s->next_free = l->first_free;
    l->first_free = t->slot;
    t->generation = 0;
}

bool hky_ticket_ready(struct hky_lookups *l, struct hky_ticket t)
{
    struct slot *s = t.generation != 0 && t.slot < l->n_slots ? &l->slots[t.slot] : NULL;
    void (*ready)(void *ctx);

    if (s == NULL || !s->is_out || s->generation != t.generation || s->ready == NULL)
        return false;
    ready = s->ready;
    s->ready = NULL;
    ready(s->ctx);
    return true;
}
