/* The policy as a value: counted, its relays by name, its lists. */
#include "route/table/table.h"

#include <stdlib.h>

struct hky_policy *hky_policy_ref(struct hky_policy *p)
{
    __atomic_add_fetch(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

void hky_policy_unref(struct hky_policy **policy)
{
    struct hky_policy *p = *policy;

    *policy = NULL;
    if (p == NULL || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    hky_map_fini(&p->relay_by_name);
    hky_route_table_free(&p->table);
    free(p);
}

const struct hky_relay *hky_policy_relay(const struct hky_policy *p, struct hky_str name)
{
    return hky_map_get(&p->relay_by_name, name);
}

const struct hky_relay *hky_policy_serving_relay(const struct hky_policy *p, struct hky_str name)
{
    const struct hky_relay *relay = hky_policy_relay(p, name);

    while (relay != NULL && relay->instead[0] != 0) /* no circles: checked at load */
        relay = hky_policy_relay(p, hky_str_z(relay->instead));
    return relay;
}

void hky_policy_refresh_lists(struct hky_policy *p, int64_t mono_ms, struct hky_lists_news *news)
{
    *news = (struct hky_lists_news){0};
    for (uint32_t i = 0; i < p->table->n_lists; i++) {
        struct hky_list_messages messages = {0};
        enum hky_list_state state = hky_list_refresh(p->table->lists[i], mono_ms, &messages);
        news->n_taken += state == HKY_LIST_TAKEN;
        news->n_waiting += state == HKY_LIST_WAITS;
        if (messages.warning.code != HKY_OK && news->warning.code == HKY_OK)
            news->warning = messages.warning;
        if (messages.fewer.code != HKY_OK && news->fewer.code == HKY_OK)
            news->fewer = messages.fewer;
        if (messages.error.code != HKY_OK && news->error.code == HKY_OK)
            news->error = messages.error;
    }
}

unsigned hky_policy_succeed_lists(struct hky_policy *p, const struct hky_policy *before, int64_t mono_ms,
                                  int64_t now_ms, const char **first)
{
    const struct hky_route_table *t = p->table, *was = before->table;
    unsigned n = 0;

    *first = NULL;
    if (strcmp(p->dir, before->dir) != 0) /* a folder that was put in the place of the other one, with whole files */
        return 0;
    for (uint32_t i = 0; i < t->n_lists; i++)
        for (uint32_t k = 0; k < was->n_lists; k++) {
            if (strcmp(t->lists[i]->name, was->lists[k]->name) != 0 ||
                hky_list_succeed(t->lists[i], was->lists[k], mono_ms, now_ms) != HKY_LIST_WAITS)
                continue;
            if (n++ == 0)
                *first = t->lists[i]->name;
        }
    return n;
}
