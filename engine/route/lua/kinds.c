/* The kinds of values in scripts: their names, locked metatables, read-only tables. */
#include "base/nearest.h"
#include "route/lua/collect.h"

#include <stdio.h>
#include <stdlib.h>

const char *hky_lua_nearest_key(lua_State *L, int index, struct hky_str name)
{
    struct hky_nearest_name near = hky_nearest_to(name);

    index = lua_absindex(L, index);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        if (lua_type(L, -2) == LUA_TSTRING)
            hky_nearest_consider(&near, lua_tostring(L, -2));
        lua_pop(L, 1);
    }
    return near.name;
}

bool hky_lua_is_kind(lua_State *L, int index, const char *kind)
{
    bool is = false;

    if (lua_type(L, index) != LUA_TUSERDATA || lua_getmetatable(L, index) == 0)
        return false;
    luaL_getmetatable(L, kind);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

const char *hky_lua_kind_name(lua_State *L, int index)
{
    static const char *const kinds[] = {HKY_UD_STEP, HKY_UD_SPLIT,  HKY_UD_RAMP,       HKY_UD_RELAY,
                                        HKY_UD_SET,  HKY_UD_SECRET, HKY_UD_INCOMPLETE, HKY_UD_UNDEFINED};
    struct hky_vm *vm = hky_vm_of(L);

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (hky_lua_is_kind(L, index, kinds[i]))
            return kinds[i];
    if (lua_type(L, index) == LUA_TSTRING) { /* leaves nothing on the stack, because callers walk tables */
        snprintf(vm->kind, sizeof vm->kind, "\"%.60s\"%s", lua_tostring(L, index),
                 lua_rawlen(L, index) > 60 ? "..." : "");
        return vm->kind;
    }
    if (lua_type(L, index) == LUA_TNUMBER) {
        if (lua_isinteger(L, index))
            snprintf(vm->kind, sizeof vm->kind, "%lld", (long long)lua_tointeger(L, index));
        else
            snprintf(vm->kind, sizeof vm->kind, "%g", lua_tonumber(L, index));
        return vm->kind;
    }
    if (lua_type(L, index) == LUA_TBOOLEAN)
        return lua_toboolean(L, index) ? "true" : "false";
    return luaL_typename(L, index);
}

void hky_sandbox_lock(lua_State *L, const char *kind)
{
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
}

bool hky_lua_is_reported(lua_State *L, int index)
{
    return hky_lua_is_kind(L, index, HKY_UD_UNDEFINED) || hky_lua_is_kind(L, index, HKY_UD_INCOMPLETE);
}

#define BY_FILES "a policy reads files by include, list, rows and secret"
#define NO_META  "tables have no metatables here; write a function"

/* Names that other programs in Lua have, and what to write instead. */
static const struct {
    const char *name, *instead;
} left_out[] = {
    {"io", BY_FILES},
    {"dofile", "include \"file.lua\" runs a file"},
    {"loadfile", "include \"file.lua\" runs a file"},
    {"require", "include \"file.lua\" runs a file and returns what it returns"},
    {"package", "include \"file.lua\" runs a file and returns what it returns"},
    {"load", "a policy runs no code from texts; include \"file.lua\" runs a file"},
    {"loadstring", "a policy runs no code from texts; include \"file.lua\" runs a file"},
    {"os", "time is read by time.date, time.parse and time.days_since, the environment by env"},
    {"setmetatable", NO_META},
    {"getmetatable", NO_META},
    {"rawset", NO_META},
    {"coroutine", "look-ups that wait need none; write a function"},
    {"debug", "note \"text\" shows what goes on, hikyaku explain why"},
    {"collectgarbage", "memory is bounded by engine.bounds.lua_memory"},
    {"_G", "names are local: local x = ..."},
};

static const char *instead_of(const char *name)
{
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
        if (strcmp(left_out[i].name, name) == 0)
            return left_out[i].instead;
    return NULL;
}

/* Replace the list on top by a copy, so that a script that changes its classes.ours does not change everybody's. */
static void copy_list(lua_State *L)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);

    lua_createtable(L, (int)n, 0);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, -2, i);
        lua_rawseti(L, -2, i);
    }
}

/* Upvalues: the table, its name. */
static int strict_index(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);
    const char *what = lua_tostring(L, lua_upvalueindex(2)), *near;
    struct hky_str name;
    struct hky_place here;
    char text[200];

    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TTABLE)
            return 1;
        if (lua_getmetatable(L, -1))
            lua_pop(L, 1); /* read-only itself */
        else
            copy_list(L);
        return 1;
    }
    name.p = luaL_tolstring(L, 2, &name.n);
    near = hky_lua_nearest_key(L, lua_upvalueindex(1), name);
    if (what[0] == 0 && instead_of(name.p) != NULL)
        snprintf(text, sizeof text, " in a policy: %s", instead_of(name.p));
    else if (near != NULL)
        snprintf(text, sizeof text, ", did you mean %s%s%.60s?", what, what[0] != 0 ? "." : "", near);
    else
        text[0] = 0;
    here = hky_lua_place_here(L, 1);
    hky_lua_problem(L, here, "%s%s%.60s is not defined%s", what, what[0] != 0 ? "." : "", name.p, text);
    if (vm->loader == NULL)
        return 0;
    return hky_lua_push_undefined(L);
}

/* Upvalue: name. */
static int no_assignment(lua_State *L)
{
    const char *what = lua_tostring(L, lua_upvalueindex(1));
    struct hky_place here = hky_lua_place_here(L, 1);
    const char *name = luaL_tolstring(L, 2, NULL);

    if (what[0] == 0)
        hky_lua_problem(L, here, "assignment to the global \"%.60s\": write \"local %.60s\"", name, name);
    else
        hky_lua_problem(L, here, "%s is read-only", what);
    return 0;
}

void hky_sandbox_readonly(lua_State *L, const char *what, bool is_strict)
{
    lua_newtable(L);
    lua_createtable(L, 0, 4);
    if (is_strict) {
        lua_pushvalue(L, -3);
        lua_pushstring(L, what);
        lua_pushcclosure(L, strict_index, 2);
    } else {
        lua_pushvalue(L, -3);
    }
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, no_assignment, 1);
    lua_setfield(L, -2, "__newindex");
    hky_sandbox_lock(L, what);
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}

int hky_lua_push_undefined(lua_State *L)
{
    lua_newuserdatauv(L, 0, 0);
    luaL_setmetatable(L, HKY_UD_UNDEFINED);
    return 1;
}
