#include "base/heap.h"

#include "base/error.h"

#include <stdlib.h>

void hky_heap_init(struct hky_heap *h)
{
    *h = (struct hky_heap){0};
}

void hky_heap_fini(struct hky_heap *h)
{
    free((void *)h->nodes);
    *h = (struct hky_heap){0};
}

static void place(struct hky_heap *h, uint32_t i, struct hky_heap_node *node)
{
    h->nodes[i] = node;
    node->index = i;
}

static void sift_up(struct hky_heap *h, struct hky_heap_node *node, uint32_t i)
{
    while (i > 1 && h->nodes[i / 2]->at > node->at) {
        place(h, i, h->nodes[i / 2]);
        i /= 2;
    }
    place(h, i, node);
}

static void sift_down(struct hky_heap *h, struct hky_heap_node *node, uint32_t i)
{
    for (uint32_t child; (child = i * 2) <= h->n; i = child) {
        if (child < h->n && h->nodes[child + 1]->at < h->nodes[child]->at)
            child++;
        if (h->nodes[child]->at >= node->at)
            break;
        place(h, i, h->nodes[child]);
    }
    place(h, i, node);
}

void hky_heap_set(struct hky_heap *h, struct hky_heap_node *node, int64_t at)
{
    if (node->index == 0) {
        HKY_ASSERT(h->n < UINT32_MAX - 1);
        if (h->n + 2 > h->cap) {
            h->cap = h->cap < 64 ? 64 : h->cap * 2;
            h->nodes = (struct hky_heap_node **)hky_realloc((void *)h->nodes, h->cap * sizeof *h->nodes);
        }
        node->at = at;
        sift_up(h, node, ++h->n);
        return;
    }
    bool is_earlier = at < node->at;
    node->at = at;
    if (is_earlier)
        sift_up(h, node, node->index);
    else
        sift_down(h, node, node->index);
}

void hky_heap_restore(struct hky_heap *h)
{
    for (uint32_t i = h->n / 2; i >= 1; i--)
        sift_down(h, h->nodes[i], i);
}

void hky_heap_remove(struct hky_heap *h, struct hky_heap_node *node)
{
    uint32_t i = node->index;
    struct hky_heap_node *last;

    if (i == 0)
        return;
    node->index = 0;
    last = h->nodes[h->n--];
    if (last == node)
        return;
    if (i > 1 && h->nodes[i / 2]->at > last->at)
        sift_up(h, last, i);
    else
        sift_down(h, last, i);
}

struct hky_heap_node *hky_heap_first(const struct hky_heap *h)
{
    return h->n > 0 ? h->nodes[1] : NULL;
}
