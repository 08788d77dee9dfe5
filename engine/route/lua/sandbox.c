/* The environment of scripts: trimmed, bounded, read-only. */
#include "route/lua/collect.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#define TABLE_MAX 100000

/* --- base functions --- */

/* pcall and xpcall may be suspended in the middle, so what follows their call is a continuation. */
static int pcall_end(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    hky_vm_rethrow(L);
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L);
    lua_pushboolean(L, false);
    if (lua_type(L, -2) == LUA_TSTRING)
        lua_pushvalue(L, -2);
    else
        lua_pushfstring(L, "the error is a %s, not a text", luaL_typename(L, -2));
    return 2;
}

static int l_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, true);
    lua_insert(L, 1);
    return pcall_end(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, pcall_end), 0);
}

static int xpcall_end(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    hky_vm_rethrow(L);
    if (status == LUA_OK || status == LUA_YIELD) {
        lua_pushboolean(L, true);
        lua_replace(L, 2);
        return lua_gettop(L) - 1;
    }
    if (lua_type(L, -1) != LUA_TSTRING) {
        lua_pushfstring(L, "the error is a %s, not a text", luaL_typename(L, -1));
        lua_replace(L, -2);
    }
    lua_pushvalue(L, 2);
    lua_insert(L, -2);
    lua_call(L, 1, LUA_MULTRET);
    lua_pushboolean(L, false);
    lua_replace(L, 2);
    return lua_gettop(L) - 1;
}

static int l_xpcall(lua_State *L)
{
    int n = lua_gettop(L);

    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 1);
    /* handler at 2, function at 3: the handler runs after the stack is unwound, charged like everything */
    return xpcall_end(L, lua_pcallk(L, n - 2, LUA_MULTRET, 0, 0, xpcall_end), 0);
}

static int l_error(lua_State *L)
{
    int level = (int)luaL_optinteger(L, 2, 1);

    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TSTRING && lua_type(L, 1) != LUA_TNUMBER)
        return luaL_error(L, "error needs a text");
    if (level > 0) {
        luaL_where(L, level < 20 ? level : 20);
        lua_pushvalue(L, 1);
        lua_tostring(L, -1);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int l_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    switch (lua_type(L, 1)) {
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TNUMBER:
    case LUA_TSTRING:
        luaL_tolstring(L, 1, NULL);
        break;
    case LUA_TUSERDATA:
        if (hky_lua_is_kind(L, 1, HKY_UD_RELAY)) {
            lua_pushstring(L, ((struct hky_relay_ud *)lua_touserdata(L, 1))->name);
            break;
        }
        lua_pushstring(L, hky_lua_kind_name(L, 1));
        break;
    default:
        lua_pushstring(L, luaL_typename(L, 1)); /* no addresses */
    }
    return 1;
}

static int l_note(lua_State *L)
{
    struct hky_str text;

    lua_pushcfunction(L, l_tostring);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    text.p = lua_tolstring(L, -1, &text.n);
    hky_vm_note(hky_vm_of(L), hky_lua_place_here(L, 1), text);
    return 0;
}

/* Upvalue: the stock function, which has an upvalue of its own and so must be called as it is. */
static int l_random(lua_State *L)
{
    if (hky_vm_of(L)->loader != NULL)
        return luaL_error(L, "math.random is not available while loading");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* --- tables: raw, with bounded length --- */

static lua_Integer table_n(lua_State *L, int i)
{
    lua_Unsigned n;

    luaL_checktype(L, i, LUA_TTABLE);
    if (lua_getmetatable(L, i) != 0)
        luaL_argerror(L, i, "this table is read-only");
    n = lua_rawlen(L, i);
    if (n > TABLE_MAX)
        luaL_argerror(L, i, "too many elements");
    return (lua_Integer)n;
}

static int t_insert(lua_State *L)
{
    lua_Integer n = table_n(L, 1), at = n + 1;

    if (lua_gettop(L) == 3) {
        at = luaL_checkinteger(L, 2);
        luaL_argcheck(L, at >= 1 && at <= n + 1, 2, "position out of bounds");
        hky_vm_charge(L, (uint64_t)(n - at + 1));
        for (lua_Integer i = n; i >= at; i--) {
            lua_rawgeti(L, 1, i);
            lua_rawseti(L, 1, i + 1);
        }
    } else if (lua_gettop(L) != 2) {
        return luaL_error(L, "wrong number of arguments to 'insert'");
    }
    if (n >= TABLE_MAX)
        return luaL_error(L, "too many elements");
    lua_rawseti(L, 1, at);
    return 0;
}

static int t_remove(lua_State *L)
{
    lua_Integer n = table_n(L, 1), at = luaL_optinteger(L, 2, n);

    if (n == 0)
        return 0;
    luaL_argcheck(L, at >= 1 && at <= n, 2, "position out of bounds");
    hky_vm_charge(L, (uint64_t)(n - at));
    lua_rawgeti(L, 1, at);
    for (lua_Integer i = at; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        lua_rawseti(L, 1, i);
    }
    lua_pushnil(L);
    lua_rawseti(L, 1, n);
    return 1;
}

static int t_concat(lua_State *L)
{
    size_t sep_n, total = 0;
    const char *sep = luaL_optlstring(L, 2, "", &sep_n);
    lua_Integer n = table_n(L, 1), from = luaL_optinteger(L, 3, 1), to = luaL_optinteger(L, 4, n);
    luaL_Buffer b;

    if (from <= to && (from < 1 || to > TABLE_MAX))
        return luaL_error(L, "too many elements");
    luaL_buffinit(L, &b);
    for (lua_Integer i = from; i <= to; i++) {
        hky_vm_charge(L, 1);
        lua_rawgeti(L, 1, i);
        if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
            return luaL_error(L, "invalid value (%s) at index %d in table for 'concat'", luaL_typename(L, -1), (int)i);
        lua_tostring(L, -1);
        total += lua_rawlen(L, -1) + sep_n;
        if (total > 1u << 20)
            return luaL_error(L, "resulting string too large");
        luaL_addvalue(&b);
        if (i < to)
            luaL_addlstring(&b, sep, sep_n);
    }
    luaL_pushresult(&b);
    return 1;
}

static int t_unpack(lua_State *L)
{
    lua_Integer n = table_n(L, 1), from = luaL_optinteger(L, 2, 1), to = luaL_optinteger(L, 3, n);

    if (from > to)
        return 0;
    if (from < 1 || to > TABLE_MAX || to - from >= 200)
        return luaL_error(L, "too many results to unpack");
    luaL_checkstack(L, (int)(to - from + 1), "too many results to unpack");
    for (lua_Integer i = from; i <= to; i++)
        lua_rawgeti(L, 1, i);
    return (int)(to - from + 1);
}

static int t_pack(lua_State *L)
{
    int n = lua_gettop(L);

    lua_createtable(L, n, 1);
    lua_insert(L, 1);
    for (int i = n; i >= 1; i--)
        lua_rawseti(L, 1, i);
    lua_pushinteger(L, n);
    lua_setfield(L, 1, "n");
    return 1;
}

static bool is_less(lua_State *L, int a, int b)
{
    bool less;

    hky_vm_charge(L, 2);
    if (lua_isnoneornil(L, 2)) {
        int ta = lua_type(L, a), tb = lua_type(L, b);
        if (ta != tb || (ta != LUA_TNUMBER && ta != LUA_TSTRING))
            luaL_error(L, "attempt to compare %s with %s", luaL_typename(L, a), luaL_typename(L, b));
        return lua_compare(L, a, b, LUA_OPLT);
    }
    a = lua_absindex(L, a);
    b = lua_absindex(L, b);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, a);
    lua_pushvalue(L, b);
    lua_call(L, 2, 1);
    less = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return less;
}

/* Heap sort: never more than 2 n log n comparisons, whatever the order function says. */
static void sift(lua_State *L, lua_Integer root, lua_Integer n)
{
    for (;;) {
        lua_Integer child = 2 * root;
        if (child > n)
            return;
        lua_rawgeti(L, 1, root);
        lua_rawgeti(L, 1, child);
        if (child < n) {
            lua_rawgeti(L, 1, child + 1);
            if (is_less(L, -2, -1)) {
                child++;
                lua_replace(L, -2);
            } else {
                lua_pop(L, 1);
            }
        }
        if (!is_less(L, -2, -1)) {
            lua_pop(L, 2);
            return;
        }
        lua_rawseti(L, 1, root);
        lua_rawseti(L, 1, child);
        root = child;
    }
}

static int t_sort(lua_State *L)
{
    lua_Integer n = table_n(L, 1);

    if (!lua_isnoneornil(L, 2))
        luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    for (lua_Integer i = 1; i <= n; i++) {
        if (lua_rawgeti(L, 1, i) == LUA_TNIL)
            return luaL_error(L, "a hole at index %d", (int)i);
        lua_pop(L, 1);
    }
    for (lua_Integer i = n / 2; i >= 1; i--)
        sift(L, i, n);
    for (lua_Integer i = n; i > 1; i--) {
        lua_rawgeti(L, 1, 1);
        lua_rawgeti(L, 1, i);
        lua_rawseti(L, 1, 1);
        lua_rawseti(L, 1, i);
        sift(L, 1, i - 1);
    }
    return 0;
}

static int t_move(lua_State *L)
{
    int to = lua_isnoneornil(L, 5) ? 1 : 5;
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3), at = luaL_checkinteger(L, 4);

    table_n(L, 1);
    table_n(L, to);
    if (first > last) {
        lua_pushvalue(L, to);
        return 1;
    }
    if (first < 1 || last > TABLE_MAX || at < 1 || at > TABLE_MAX || at + (last - first) > TABLE_MAX)
        return luaL_error(L, "too many elements to move");
    hky_vm_charge(L, (uint64_t)(last - first + 1));
    if (at > last || at <= first || to != 1) {
        for (lua_Integer i = 0; i <= last - first; i++) {
            lua_rawgeti(L, 1, first + i);
            lua_rawseti(L, to, at + i);
        }
    } else {
        for (lua_Integer i = last - first; i >= 0; i--) {
            lua_rawgeti(L, 1, first + i);
            lua_rawseti(L, to, at + i);
        }
    }
    lua_pushvalue(L, to);
    return 1;
}

void hky_lua_open_tables(lua_State *L)
{
    static const luaL_Reg own[] = {{"insert", t_insert}, {"remove", t_remove}, {"concat", t_concat},
                                   {"unpack", t_unpack}, {"pack", t_pack},     {"sort", t_sort},
                                   {"move", t_move},     {NULL, NULL}};

    luaL_newlib(L, own);
}

/* --- the environment --- */

/* A stock function with its first argument's octets charged. Upvalue: the function. */
static int u_charged(lua_State *L)
{
    lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(1));

    if (lua_type(L, 1) == LUA_TSTRING)
        hky_vm_charge(L, lua_rawlen(L, 1) / 4);
    return f(L);
}

static void copy(lua_State *L, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        lua_getfield(L, -2, names[i]);
        lua_setfield(L, -2, names[i]);
    }
}

static void math_open(lua_State *L)
{
    static const char *const names[] = {"abs", "acos",       "asin", "atan", "ceil", "cos", "deg",
                                        "exp", "floor",      "fmod", "huge", "log",  "max", "maxinteger",
                                        "min", "mininteger", "modf", "pi",   "rad",  "sin", "sqrt",
                                        "tan", "tointeger",  "type", "ult"};

    lua_pushcfunction(L, luaopen_math);
    lua_call(L, 0, 1);
    lua_newtable(L);
    copy(L, names, sizeof names / sizeof names[0]);
    lua_getfield(L, -2, "random");
    lua_pushcclosure(L, l_random, 1);
    lua_setfield(L, -2, "random");
    lua_remove(L, -2);
}

static void utf8_open(lua_State *L)
{
    static const char *const scanning[] = {"len", "codepoint", "offset", "codes"};

    lua_pushcfunction(L, luaopen_utf8);
    lua_call(L, 0, 1);
    lua_newtable(L);
    lua_getfield(L, -2, "char");
    lua_setfield(L, -2, "char");
    lua_getfield(L, -2, "charpattern");
    lua_setfield(L, -2, "charpattern");
    for (size_t i = 0; i < sizeof scanning / sizeof scanning[0]; i++) {
        lua_getfield(L, -2, scanning[i]);
        lua_pushcclosure(L, u_charged, 1);
        lua_setfield(L, -2, scanning[i]);
    }
    lua_remove(L, -2);
}

static int poison_self(lua_State *L)
{
    lua_settop(L, 1);
    return 1;
}

/* A misspelt word such as Relay "name" { ... }: the name counts as one whose declaration is faulty, so that steps which
 * use it are not reported as well. */
static int poison_call(lua_State *L)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    if (l != NULL && lua_type(L, 2) == LUA_TSTRING)
        hky_loader_lose(l, lua_tostring(L, 2));
    return poison_self(L);
}

void hky_sandbox_open(lua_State *L)
{
    static const char *const base[] = {"assert", "ipairs", "next",   "pairs", "rawequal",
                                       "rawget", "rawlen", "select", "type"};
    static const luaL_Reg own[] = {
        {"pcall", l_pcall}, {"xpcall", l_xpcall}, {"error", l_error}, {"tostring", l_tostring},
        {"note", l_note},   {"print", l_note},    {NULL, NULL}};

    lua_pushcfunction(L, luaopen_base);
    lua_call(L, 0, 1);
    luaL_newlib(L, own);
    copy(L, base, sizeof base / sizeof base[0]);
    lua_getfield(L, -2, "tonumber");
    lua_pushcclosure(L, u_charged, 1);
    lua_setfield(L, -2, "tonumber");
    lua_remove(L, -2);
    luaL_newmetatable(L, HKY_UD_UNDEFINED);
    lua_pushcfunction(L, poison_self);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, poison_call);
    lua_setfield(L, -2, "__call");
    hky_sandbox_lock(L, HKY_UD_UNDEFINED);
    lua_pop(L, 1);
    hky_lua_open_strings(L);
    hky_sandbox_readonly(L, "string", false);
    lua_setfield(L, -2, "string");
    hky_lua_open_tables(L);
    hky_sandbox_readonly(L, "table", false);
    lua_setfield(L, -2, "table");
    math_open(L);
    hky_sandbox_readonly(L, "math", false);
    lua_setfield(L, -2, "math");
    utf8_open(L);
    hky_sandbox_readonly(L, "utf8", false);
    lua_setfield(L, -2, "utf8");
    hky_lua_open_time(L);
    hky_sandbox_readonly(L, "time", true);
    lua_setfield(L, -2, "time");
    hky_lua_open_json(L);
    hky_sandbox_readonly(L, "json", true);
    lua_setfield(L, -2, "json");
    hky_lua_open_handles(L);
}
