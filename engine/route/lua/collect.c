/* What one loading collects in addition to problems: the environment, names that must exist, and names whose
 * declaration is faulty. */
#include "route/lua/collect.h"

#include <stdlib.h>

const char *hky_loader_env(struct hky_loader *l, const char *name)
{
    struct hky_route_table *t = l->table;
    const char *value = NULL;
    size_t n = strlen(name);

    for (uint32_t i = 0; i < t->n_env; i++)
        if (strcmp(t->env[i].name, name) == 0)
            return t->env[i].value;
    if (l->is_worker)
        return NULL;
    if (l->environment == NULL)
        value = getenv(name);
    for (size_t i = 0; l->environment != NULL && l->environment[i] != NULL; i++)
        if (strncmp(l->environment[i], name, n) == 0 && l->environment[i][n] == '=')
            value = l->environment[i] + n + 1;
    if (t->n_env == t->cap_env) {
        t->cap_env = t->cap_env ? t->cap_env * 2 : 8;
        t->env = hky_realloc(t->env, t->cap_env * sizeof *t->env);
    }
    t->env[t->n_env].name = hky_arena_z(&t->arena, name);
    t->env[t->n_env].value = value != NULL ? hky_arena_z(&t->arena, value) : NULL;
    return t->env[t->n_env++].value;
}

void hky_loader_mention(struct hky_loader *l, bool is_matcher, const char *name, struct hky_place place)
{
    if (l->is_worker || l->n_mentions >= HKY_DECLS_MAX)
        return;
    if (l->n_mentions == l->cap_mentions) {
        l->cap_mentions = l->cap_mentions ? l->cap_mentions * 2 : 32;
        l->mentions = hky_realloc(l->mentions, l->cap_mentions * sizeof *l->mentions);
    }
    l->mentions[l->n_mentions++] =
        (struct hky_mention){.is_matcher = is_matcher, .name = hky_arena_z(&l->table->arena, name), .place = place};
}

void hky_loader_lose(struct hky_loader *l, const char *name)
{
    if (l->lost.n < HKY_DECLS_MAX)
        hky_map_put(&l->lost, hky_str_z(name), l);
}
