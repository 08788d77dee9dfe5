/* Reads the classification rules of scripts/hikyaku/classify.lua into the policy. */
#include "route/load/loader.h"
#include "route/table/value.h"

#include <stdio.h>
#include <stdlib.h>

static const char *joined(struct hky_loader *l, int body, const char *key)
{
    lua_State *L = l->vm->L;
    int type = hky_key_get(L, body, key);
    struct hky_buf b;
    const char *text = "";

    if (type == LUA_TSTRING) {
        text = hky_arena_z(&l->table->arena, lua_tostring(L, -1));
    } else if (type == LUA_TTABLE) {
        hky_buf_init(&b, 65536);
        for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++) {
            if (i > 1)
                hky_buf_add_c(&b, '|');
            hky_buf_add_z(&b, lua_tostring(L, -1));
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
        text = hky_arena_z(&l->table->arena, hky_buf_z(&b));
        hky_buf_fini(&b);
    }
    lua_pop(L, 1);
    return text;
}

static uint16_t stages(struct hky_loader *l, int body, bool *ok)
{
    lua_State *L = l->vm->L;
    uint16_t mask = 0;
    enum hky_stage s;
    int type = hky_key_get(L, body, "stage");

    if (type == LUA_TSTRING) {
        *ok = *ok && hky_stage_parse(hky_str_z(lua_tostring(L, -1)), &s);
        mask = *ok ? (uint16_t)(1u << s) : 0;
    } else if (type == LUA_TTABLE) {
        for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TSTRING; i++) {
            *ok = *ok && hky_stage_parse(hky_str_z(lua_tostring(L, -1)), &s);
            mask = *ok ? (uint16_t)(mask | 1u << s) : 0;
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return mask;
}

static void codes(struct hky_loader *l, int body, struct hky_class_rule *r)
{
    lua_State *L = l->vm->L;
    int type = hky_key_get(L, body, "code");

    if (type == LUA_TNUMBER) {
        r->code_min = r->code_max = (uint16_t)lua_tointeger(L, -1);
    } else if (type == LUA_TTABLE) {
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        r->code_min = (uint16_t)lua_tointeger(L, -2);
        r->code_max = (uint16_t)lua_tointeger(L, -1);
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static bool scope(const char *name, enum hky_scope *out)
{
    for (int i = 0; i < HKY_SCOPE_N; i++)
        if (strcmp(hky_scope_name(i), name) == 0) {
            *out = (enum hky_scope)i;
            return true;
        }
    return false;
}

static void rule(struct hky_loader *l, int body, int number, struct hky_class_rule *r)
{
    static const struct hky_key rule_keys[] = {{"provider", HKY_KEY_STRING, 0, 0, ""},
                                               {"mx", HKY_KEY_STRING, 0, 0, ""},
                                               {"stage", HKY_KEY_STRINGS, 0, 0, ""},
                                               {"code", HKY_KEY_ANY, 0, 0, ""},
                                               {"enhanced", HKY_KEY_STRING, 0, 0, ""},
                                               {"text", HKY_KEY_STRINGS, 0, 0, ""},
                                               {"with", HKY_KEY_STRINGS, 0, 0, ""},
                                               {"without", HKY_KEY_STRINGS, 0, 0, ""},
                                               {"class", HKY_KEY_STRING, 0, 0, ""},
                                               {"scope", HKY_KEY_STRING, 0, 0, ""},
                                               {"retry_after", HKY_KEY_DURATION, 1, 31 * 86400, ""},
                                               {"why", HKY_KEY_STRING, 0, 0, ""},
                                               {0}};
    static const struct hky_key *const keys[] = {rule_keys, NULL};
    lua_State *L = l->vm->L;
    struct hky_arena *arena = &l->table->arena;
    struct hky_place nowhere = {"", 0};
    char what[64];
    bool ok = true;

    snprintf(what, sizeof what, "shipped rule %d of classify", number);
    hky_keys_check(L, body, keys, false, what, nowhere);
    r->provider = hky_arena_z(arena, hky_key_get_string(L, body, "provider", ""));
    r->mx = hky_arena_z(arena, hky_key_get_string(L, body, "mx", ""));
    r->enhanced = hky_arena_z(arena, hky_key_get_string(L, body, "enhanced", ""));
    r->why = hky_arena_z(arena, hky_key_get_string(L, body, "why", ""));
    r->text = joined(l, body, "text");
    r->with = joined(l, body, "with");
    r->without = joined(l, body, "without");
    r->stages = stages(l, body, &ok);
    codes(l, body, r);
    r->retry_after_sec = hky_key_get_duration(L, body, "retry_after", 0);
    if (!ok || !hky_class_parse(hky_str_z(hky_key_get_string(L, body, "class", "")), &r->class) ||
        !scope(hky_key_get_string(L, body, "scope", ""), &r->scope))
        hky_loader_complain(l, nowhere, false, "%s: unknown stage, class or scope", what);
}

void hky_loader_compile_rules(struct hky_loader *l)
{
    lua_State *L = l->vm->L;
    struct hky_class_rule *rules;
    lua_Unsigned n;
    int table;

    luaL_checkstack(L, 12, NULL);
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.rules");
    table = lua_gettop(L);
    n = lua_type(L, table) == LUA_TTABLE ? lua_rawlen(L, table) : 0;
    rules = hky_arena_alloc(&l->table->arena, (n + 1) * sizeof *rules);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, table, (lua_Integer)i);
        rule(l, lua_gettop(L), (int)i, &rules[i - 1]);
        lua_settop(L, table);
    }
    lua_settop(L, table - 1);
    l->policy->rules = rules;
    l->policy->n_rules = (uint32_t)n;
}
