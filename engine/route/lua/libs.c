/* time.* and json.* of scripts. */
#include "route/lua/collect.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#define JSON_DEPTH  64
#define JSON_OCTETS (1u << 20)

static const struct hky_zone *zone_of(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);

    return vm->table != NULL ? vm->table->zone : NULL;
}

static int64_t now_sec(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);

    if (vm->query == NULL)
        luaL_error(L, "there is no clock while loading: use it in a function");
    return vm->query->now_ms / 1000;
}

static int time_date(lua_State *L)
{
    lua_Number t = lua_isnoneornil(L, 1) ? (lua_Number)now_sec(L) : luaL_checknumber(L, 1);
    struct hky_local_time at;

    luaL_argcheck(L, t >= -1e11 && t <= 1e12, 1, "no time");
    hky_zone_local(zone_of(L), (int64_t)floor(t), &at);
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, at.year);
    lua_setfield(L, -2, "year");
    lua_pushinteger(L, at.month);
    lua_setfield(L, -2, "month");
    lua_pushinteger(L, at.day);
    lua_setfield(L, -2, "day");
    lua_pushinteger(L, at.hour);
    lua_setfield(L, -2, "hour");
    lua_pushinteger(L, at.minute);
    lua_setfield(L, -2, "min");
    lua_pushinteger(L, at.second);
    lua_setfield(L, -2, "sec");
    lua_pushinteger(L, at.weekday);
    lua_setfield(L, -2, "wday");
    lua_pushinteger(L, at.yearday);
    lua_setfield(L, -2, "yday");
    return 1;
}

static int64_t date_arg(lua_State *L, int64_t *day)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    int32_t sec;

    if (!hky_zone_parse_date(p, n, day, &sec))
        luaL_error(L, "\"%s\" is no date; write \"2026-12-01\" or \"2026-12-01 10:00\"", n < 60 ? p : "...");
    return hky_zone_unix(zone_of(L), *day, sec);
}

static int time_parse(lua_State *L)
{
    int64_t day;

    lua_pushinteger(L, date_arg(L, &day));
    return 1;
}

static int time_days_since(lua_State *L)
{
    int64_t day;

    date_arg(L, &day);
    lua_pushinteger(L, hky_zone_day(zone_of(L), now_sec(L)) - day);
    return 1;
}

void hky_lua_open_time(lua_State *L)
{
    static const luaL_Reg own[] = {
        {"date", time_date}, {"parse", time_parse}, {"days_since", time_days_since}, {NULL, NULL}};

    luaL_newlib(L, own);
}

/* --- json: parsed by jansson into a tree that a userdata owns, so that an error in between leaks nothing --- */

static int tree_gc(lua_State *L)
{
    json_t **tree = lua_touserdata(L, 1);

    json_decref(*tree);
    *tree = NULL;
    return 0;
}

static json_t **tree_new(lua_State *L)
{
    json_t **tree = lua_newuserdatauv(L, sizeof *tree, 0);

    *tree = NULL;
    if (luaL_newmetatable(L, "json tree")) {
        lua_pushcfunction(L, tree_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return tree;
}

static bool secret_push(lua_State *L, const json_t *object)
{
    const json_t *name = json_object_get(object, "secret");
    struct hky_secret_ud *s;

    if (json_object_size(object) != 1 || !json_is_string(name) || json_string_length(name) >= sizeof s->name)
        return false;
    s = lua_newuserdatauv(L, sizeof *s, 1);
    *s = (struct hky_secret_ud){.is_from_rows = true};
    memcpy(s->name, json_string_value(name), json_string_length(name));
    luaL_setmetatable(L, HKY_UD_SECRET);
    return true;
}

static void value_push(lua_State *L, json_t *v, int depth, bool is_rows)
{
    const char *key;
    json_t *item;
    size_t i;

    if (depth > JSON_DEPTH)
        luaL_error(L, "JSON is nested more than %d deep", JSON_DEPTH);
    luaL_checkstack(L, 4, NULL);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        if (is_rows && depth > 1 && secret_push(L, v))
            break;
        lua_createtable(L, 0, (int)json_object_size(v));
        json_object_foreach (v, key, item) {
            value_push(L, item, depth + 1, is_rows);
            lua_setfield(L, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(v), 0);
        json_array_foreach (v, i, item) {
            if (is_rows && json_is_null(item)) /* Lua's list would end there, and what is behind it be lost */
                luaL_error(L, "there is null in a list: write a value there, or remove it");
            value_push(L, item, depth + 1, is_rows);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        lua_pushinteger(L, json_integer_value(v));
        break;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, json_is_true(v));
        break;
    case JSON_NULL:
        lua_pushnil(L);
        break;
    }
}

void hky_lua_push_json(lua_State *L, struct hky_str text, bool is_rows)
{
    json_t **tree = tree_new(L);
    json_error_t why;

    *tree = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (*tree == NULL)
        luaL_error(L, "line %d: %s", why.line, why.text);
    if (is_rows && !json_is_array(*tree))
        luaL_error(L, "write a list of rows: [ { \"name\": ... }, { \"name\": ... } ]");
    value_push(L, *tree, 0, is_rows);
    json_decref(*tree);
    *tree = NULL;
    lua_remove(L, -2);
}

static int json_decode_l(lua_State *L)
{
    struct hky_str s;

    s.p = luaL_checklstring(L, 1, &s.n);
    if (s.n > JSON_OCTETS)
        return luaL_error(L, "JSON text above %d octets", (int)JSON_OCTETS);
    hky_vm_charge(L, s.n / 4);
    hky_lua_push_json(L, s, false);
    return 1;
}

static bool charge(size_t *left, size_t n)
{
    *left = n < *left ? *left - n : 0;
    return *left > 0;
}

/* `left` is how many octets may still be written: a few tables that share others can stand for endless text. */
static json_t *value_tree(lua_State *L, int index, int depth, size_t *left);

static json_t *table_tree(lua_State *L, int index, int depth, size_t *left)
{
    lua_Unsigned n = lua_rawlen(L, index);
    json_t *tree = n > 0 ? json_array() : json_object(), *item;

    for (lua_Unsigned i = 1; i <= n && tree != NULL; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        item = value_tree(L, lua_gettop(L), depth + 1, left);
        lua_pop(L, 1);
        if (item == NULL || json_array_append_new(tree, item) != 0) {
            json_decref(tree);
            return NULL;
        }
    }
    if (n > 0)
        return tree;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        item = lua_type(L, -2) == LUA_TSTRING && charge(left, lua_rawlen(L, -2))
                   ? value_tree(L, lua_gettop(L), depth + 1, left)
                   : NULL;
        if (item == NULL || json_object_setn_new(tree, lua_tostring(L, -2), lua_rawlen(L, -2), item) != 0) {
            json_decref(tree);
            lua_pop(L, 2);
            return NULL;
        }
        lua_pop(L, 1);
    }
    return tree;
}

/* NULL: the value has no form in JSON, is too deep, or is too long (then `left` is used up). It can raise only for a
 * full stack, which is checked before. */
static json_t *value_tree(lua_State *L, int index, int depth, size_t *left)
{
    size_t n = lua_type(L, index) == LUA_TSTRING ? lua_rawlen(L, index) : 0;

    if (depth > JSON_DEPTH || !lua_checkstack(L, 4) || !charge(left, n + 1))
        return NULL;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        return json_null();
    case LUA_TBOOLEAN:
        return json_boolean(lua_toboolean(L, index));
    case LUA_TNUMBER:
        return lua_isinteger(L, index) ? json_integer(lua_tointeger(L, index)) : json_real(lua_tonumber(L, index));
    case LUA_TSTRING:
        return json_stringn(lua_tostring(L, index), n);
    case LUA_TTABLE:
        return table_tree(L, index, depth, left);
    default:
        return NULL;
    }
}

/* Charge for the tree before it exists, since an error would leak it. It stops where value_tree does. */
static void value_charge(lua_State *L, int index, int depth, size_t *left)
{
    size_t n = lua_type(L, index) == LUA_TSTRING ? lua_rawlen(L, index) : 0;
    int top = lua_gettop(L);

    hky_vm_charge(L, 1 + n / 16);
    if (depth > JSON_DEPTH || !charge(left, n + 1) || lua_type(L, index) != LUA_TTABLE)
        return;
    luaL_checkstack(L, 4, NULL);
    lua_pushnil(L);
    while (*left > 0 && lua_next(L, index) != 0) {
        value_charge(L, lua_gettop(L), depth + 1, left);
        lua_pop(L, 1);
    }
    lua_settop(L, top);
}

static int json_encode_l(lua_State *L)
{
    size_t n, left = JSON_OCTETS;
    json_t **tree;
    luaL_Buffer b;

    luaL_checkany(L, 1);
    lua_settop(L, 1);
    value_charge(L, 1, 0, &left);
    left = JSON_OCTETS;
    tree = tree_new(L);
    *tree = value_tree(L, 1, 0, &left);
    if (*tree == NULL && left == 0)
        return luaL_error(L, "JSON text above %d octets", (int)JSON_OCTETS);
    if (*tree == NULL)
        return luaL_error(L,
                          "not a value of JSON: texts in UTF-8, numbers, true, false, tables of these, at most %d deep",
                          JSON_DEPTH);
    n = json_dumpb(*tree, NULL, 0, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (n == 0 || n > JSON_OCTETS)
        return luaL_error(L, "JSON text above %d octets", (int)JSON_OCTETS);
    hky_vm_charge(L, n / 4);
    json_dumpb(*tree, luaL_buffinitsize(L, &b, n), n, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    luaL_pushresultsize(&b, n);
    return 1;
}

void hky_lua_open_json(lua_State *L)
{
    static const luaL_Reg own[] = {{"decode", json_decode_l}, {"encode", json_encode_l}, {NULL, NULL}};

    luaL_newlib(L, own);
}
