/* The keys of a relay that is being compiled. */
#include "route/load/relay_reader.h"
#include "route/table/inside.h"

#include "base/nearest.h"

#include <string.h>

const char *hky_loader_keep(struct hky_loader *l, const char *z)
{
    return hky_arena_z(&l->table->arena, z);
}

struct hky_place hky_relay_reader_place(struct hky_relay_reader *r, const char *key)
{
    return hky_loader_place_of(r->l, r->spec->place, key, true);
}

bool hky_relay_reader_has(struct hky_relay_reader *r, const char *key)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, key);

    lua_pop(L, 1);
    return type != LUA_TNIL;
}

bool hky_relay_reader_is_reported(struct hky_relay_reader *r, const char *key, int wanted_type)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, key);
    bool is_misspelt = false;

    lua_pop(L, 1);
    if (r->l->problems->n_errors == 0)
        return false;
    if (type != LUA_TNIL)
        return type != wanted_type;
    lua_pushnil(L);
    while (lua_next(L, r->body) != 0) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            struct hky_str name;
            name.p = lua_tolstring(L, -1, &name.n);
            is_misspelt |= hky_key_find(hky_keys_relay, name) == NULL && hky_key_find(hky_keys_row, name) == NULL &&
                           hky_nearest_in(name, &key, 1) != NULL;
        }
    }
    return is_misspelt;
}

int hky_relay_reader_choice(struct hky_relay_reader *r, const char *key, const char *const *names, int n, int otherwise)
{
    const char *s = hky_key_get_string(r->l->vm->L, r->merged, key, NULL), *near;
    char list[200] = "";

    if (s == NULL)
        return otherwise;
    for (int i = 0; i < n; i++)
        if (strcmp(s, names[i]) == 0)
            return i;
    for (int i = 0; i < n; i++) {
        strncat(list, i > 0 ? ", " : "", sizeof list - strlen(list) - 1);
        strncat(list, names[i], sizeof list - strlen(list) - 1);
    }
    near = hky_nearest_in(hky_str_z(s), names, (size_t)n);
    hky_loader_complain(r->l, hky_relay_reader_place(r, key), false, "%s: %s must be one of %s, not \"%.60s\"%s%s%s",
                        r->what, key, list, s, near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return otherwise;
}
