#include "route/lua/keys.h"

#include "base/nearest.h"
#include "route/lua/collect.h"
#include "route/table/typed.h"
#include "route/table/value.h"

#include <stdio.h>

const struct hky_key *hky_key_find(const struct hky_key *keys, struct hky_str name)
{
    for (; keys->name != NULL; keys++)
        if (hky_str_eq(hky_str_z(keys->name), name))
            return keys;
    return NULL;
}

static const char *expected(const struct hky_key *k, char out[120])
{
    switch (k->type) {
    case HKY_KEY_STRING:
        if (k->max == 0)
            return "a string";
        snprintf(out, 120, "a string of at most %lld octets", (long long)k->max);
        return out;
    case HKY_KEY_BOOL:
        return "true or false";
    case HKY_KEY_INT:
        snprintf(out, 120, "a whole number from %lld to %lld", (long long)k->min, (long long)k->max);
        return out;
    case HKY_KEY_DURATION:
        snprintf(out, 120, "a duration such as \"90s\" \"10m\" \"2h\" \"3d\", from %lld to %lld seconds",
                 (long long)k->min, (long long)k->max);
        return out;
    case HKY_KEY_OCTETS:
        snprintf(out, 120, "a size such as \"25M\", from %lld to %lld octets", (long long)k->min, (long long)k->max);
        return out;
    case HKY_KEY_MATCH:
        if (strcmp(k->name, "mx") == 0)
            return "a mail host, .domain for all hosts of a domain, or a table of these";
        return "an address, a domain, a set, a list, or a table of these";
    case HKY_KEY_FUNCTION:
        return "function(r) or the name of a matcher";
    case HKY_KEY_VIA:
        return "a relay, a table of steps, split, or function(r)";
    case HKY_KEY_SECRET:
        return "secret \"name\"";
    case HKY_KEY_STRINGS:
        return "a string or a table of strings";
    case HKY_KEY_TABLE:
        return "a table { }";
    case HKY_KEY_ANY:
    case HKY_KEY_LATER:
        break;
    }
    return "another value";
}

static bool in_range(const struct hky_key *k, lua_State *L)
{
    struct hky_str s = {0};
    uint32_t sec;
    uint64_t octets;

    if (lua_type(L, -1) == LUA_TSTRING)
        s.p = lua_tolstring(L, -1, &s.n);
    if (s.p == NULL) {
        lua_Integer n;
        int ok;
        n = lua_tointegerx(L, -1, &ok);
        return lua_type(L, -1) == LUA_TNUMBER && ok && n >= k->min && n <= k->max;
    }
    if (k->type == HKY_KEY_DURATION)
        return hky_duration_parse(s, &sec) && sec >= k->min && sec <= k->max;
    return k->type == HKY_KEY_OCTETS && hky_octets_parse(s, &octets) && octets >= (uint64_t)k->min &&
           octets <= (uint64_t)k->max;
}

static bool is_strings(lua_State *L)
{
    int index = lua_gettop(L);
    bool ok = true;

    if (lua_type(L, index) == LUA_TSTRING)
        return true;
    if (lua_type(L, index) != LUA_TTABLE)
        return false;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        ok = ok && lua_type(L, -2) == LUA_TNUMBER &&
             (lua_type(L, -1) == LUA_TSTRING || hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED));
        lua_pop(L, 1);
    }
    return ok;
}

/* Is the value on top one of the key's type? */
static bool has_type(lua_State *L, const struct hky_key *k)
{
    int type = lua_type(L, -1);

    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1) && k->type != HKY_KEY_BOOL)
        /* false counts as not stated, as in redirect = env("SINK", false); code that needs the key reports it */
        return k->is_needed || k->lua == NULL || strstr(k->lua, "false") != NULL;
    if (hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED))
        return true; /* its problem was reported where it was read */
    if (hky_lua_is_kind(L, lua_gettop(L), HKY_UD_INCOMPLETE))
        return true; /* its problem is reported at the end */
    switch (k->type) {
    case HKY_KEY_STRING:
        return (type == LUA_TSTRING && (k->max == 0 || (int64_t)lua_rawlen(L, -1) <= k->max)) ||
               (strcmp(k->name, "relay") == 0 && hky_lua_is_kind(L, lua_gettop(L), HKY_UD_RELAY)) ||
               (strcmp(k->name, "instead") == 0 && hky_lua_is_kind(L, lua_gettop(L), HKY_UD_RELAY));
    case HKY_KEY_BOOL:
        return type == LUA_TBOOLEAN;
    case HKY_KEY_INT:
    case HKY_KEY_DURATION:
    case HKY_KEY_OCTETS:
        return in_range(k, L);
    case HKY_KEY_MATCH:
        return type == LUA_TSTRING || type == LUA_TTABLE || hky_lua_is_kind(L, lua_gettop(L), HKY_UD_SET);
    case HKY_KEY_FUNCTION:
        return type == LUA_TSTRING || type == LUA_TFUNCTION;
    case HKY_KEY_VIA:
        return type == LUA_TSTRING || type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA;
    case HKY_KEY_SECRET:
        return type == LUA_TSTRING || type == LUA_TTABLE || hky_lua_is_kind(L, lua_gettop(L), HKY_UD_SECRET);
    case HKY_KEY_STRINGS:
        return is_strings(L);
    case HKY_KEY_TABLE:
        return type == LUA_TTABLE;
    case HKY_KEY_ANY:
    case HKY_KEY_LATER:
        break;
    }
    return true;
}

#define LIST_MAX 320 /* octets; for a longer list of keys, readers have the manual */

/* The list of known keys, unless it is too long for a message. */
static const char *list_of(const struct hky_key *const *keys, char out[LIST_MAX])
{
    size_t n = 0;

    for (; *keys != NULL; keys++)
        for (const struct hky_key *k = *keys; k->name != NULL && n < LIST_MAX; k++)
            if (k->type != HKY_KEY_LATER)
                n += (size_t)snprintf(out + n, LIST_MAX - n, "%s%s", n > 0 ? " " : "; there are ", k->name);
    return n < LIST_MAX ? out : "; hikyaku-policy(5) lists them";
}

static void unknown_key(lua_State *L, const struct hky_key *const *keys, struct hky_str name, const char *what,
                        struct hky_place place)
{
    struct hky_nearest_name near = hky_nearest_to(name);
    char list[LIST_MAX], hint[80];

    for (const struct hky_key *const *set = keys; *set != NULL; set++)
        for (const struct hky_key *k = *set; k->name != NULL; k++)
            hky_nearest_consider(&near, k->name);
    snprintf(hint, sizeof hint, ", did you mean \"%s\"?", near.name != NULL ? near.name : "");
    hky_lua_problem(L, place, "%s: unknown key \"%.*s\"%s", what, (int)(name.n < 60 ? name.n : 60), name.p,
                    near.name != NULL ? hint : list_of(keys, list));
}

/* The value on top is not of the key's type. It is reported here, and replaced, so that whoever reads it does not
 * report it again. */
static void wrong_type(lua_State *L, int index, const struct hky_key *k, const char *what, struct hky_place place)
{
    char text[120];

    if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1))
        hky_lua_problem(L, place, "%s: %s cannot be false: write a value, or leave the key out (%s)", what, k->name,
                        k->doc);
    else
        hky_lua_problem(L, place, "%s: %s must be %s, not %s%s%s%s", what, k->name, expected(k, text),
                        hky_lua_kind_name(L, lua_gettop(L)), k->doc[0] != 0 ? " (" : "", k->doc,
                        k->doc[0] != 0 ? ")" : "");
    lua_pushstring(L, k->name);
    hky_lua_push_undefined(L);
    lua_rawset(L, index);
}

/* A string in the value on top cannot be used, or may not be what is meant. */
static void bad_string(lua_State *L, int index, const struct hky_key *k, const struct hky_text_fault *fault,
                       const char *what, struct hky_place place)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    if (fault->is_warning) {
        if (l != NULL)
            hky_loader_complain(l, place, true, "%s: %s: %s", what, k->name, fault->text);
        return;
    }
    hky_lua_problem(L, place, "%s: %s: %s", what, k->name, fault->text);
    lua_pushstring(L, k->name);
    hky_lua_push_undefined(L);
    lua_rawset(L, index);
}

static bool is_blank_string(lua_State *L, int index)
{
    struct hky_str s = {0};

    if (lua_type(L, index) == LUA_TSTRING)
        s.p = lua_tolstring(L, index, &s.n);
    return s.p != NULL && hky_str_trim(s).n == 0;
}

/* Is the value on top an empty string, or a list with one, where a string says something? The code that reads a key
 * takes "" for "not stated": with redirect = "" or pin = "" mail would leave another way than the policy says. A
 * function's plan may still leave a value empty. */
static bool is_empty_text(lua_State *L, const struct hky_key *k)
{
    int index = lua_gettop(L);
    bool is_empty = is_blank_string(L, index);

    if (hky_vm_of(L)->loader == NULL || k->use == HKY_FOREIGN_FREE ||
        (k->type != HKY_KEY_STRING && k->type != HKY_KEY_STRINGS && k->type != HKY_KEY_SECRET))
        return false;
    if (k->type != HKY_KEY_STRINGS || lua_type(L, index) != LUA_TTABLE)
        return is_empty;
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1))
        is_empty = is_empty || is_blank_string(L, index + 2);
    return is_empty;
}

static void empty_text(lua_State *L, int index, const struct hky_key *k, const char *what, struct hky_place place)
{
    hky_lua_problem(L, place, "%s: %s %s: write a value, or leave the key out (%s)", what, k->name,
                    lua_type(L, -1) == LUA_TTABLE ? "has an empty string in its list" : "is empty", k->doc);
    lua_pushstring(L, k->name);
    hky_lua_push_undefined(L);
    lua_rawset(L, index);
}

/* Find the key in the sets; where several sets have it, the one whose type fits the value on top: a row's mx is either
 * a condition or the relay's own delivery. */
static const struct hky_key *key_of(lua_State *L, const struct hky_key *const *keys, struct hky_str name)
{
    const struct hky_key *found = NULL;

    for (; *keys != NULL; keys++) {
        const struct hky_key *k = hky_key_find(*keys, name);
        if (k == NULL)
            continue;
        if (found == NULL || (!has_type(L, found) && k->type != HKY_KEY_LATER && has_type(L, k)))
            found = k;
    }
    return found;
}

static void check_one(lua_State *L, int index, const struct hky_key *const *keys, bool array, const char *what,
                      struct hky_place place)
{
    struct hky_vm *vm = hky_vm_of(L);
    struct hky_text_fault fault;
    struct hky_str name;
    const struct hky_key *k;
    bool is_usable = true, is_empty = false;

    if (lua_type(L, -2) != LUA_TSTRING) {
        if (!array || lua_type(L, -2) != LUA_TNUMBER)
            hky_lua_problem(L, place, "%s: there is a value without a key: write key = value", what);
        return;
    }
    name.p = lua_tolstring(L, -2, &name.n);
    k = key_of(L, keys, name);
    if (k != NULL && k->type != HKY_KEY_LATER) {
        struct hky_text_rule rule = {.use = k->use,
                                     .may_have_lines = k->use == HKY_FOREIGN_FREE,
                                     .is_hidden = k->type == HKY_KEY_SECRET,
                                     .is_login = k->type == HKY_KEY_SECRET || strcmp(k->name, "user") == 0,
                                     .may_be_many = k->type == HKY_KEY_MATCH || k->type == HKY_KEY_STRINGS,
                                     .has_own_keys = k->has_own_keys};
        is_usable = hky_texts_check(L, lua_gettop(L), &rule, &fault);
        is_empty = is_empty_text(L, k);
        if (is_usable && !is_empty && has_type(L, k))
            return;
    }
    if (vm->loader != NULL)
        place = hky_loader_place_of(vm->loader, place, name.p, true);
    if (k == NULL)
        unknown_key(L, keys, name, what, place);
    else if (k->type == HKY_KEY_LATER)
        hky_lua_problem(L, place, "%s: %s is not available in this version", what, k->name);
    else if (is_empty)
        empty_text(L, index, k, what, place);
    else if (!is_usable)
        bad_string(L, index, k, &fault, what, place);
    else
        wrong_type(L, index, k, what, place);
}

void hky_keys_check(lua_State *L, int index, const struct hky_key *const *keys, bool array, const char *what,
                    struct hky_place place)
{
    luaL_checkstack(L, 8, NULL);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        check_one(L, index, keys, array, what, place);
        lua_pop(L, 1);
    }
}

int hky_key_get(lua_State *L, int index, const char *key)
{
    lua_pushstring(L, key);
    return lua_rawget(L, index);
}

const char *hky_key_get_string(lua_State *L, int index, const char *key, const char *otherwise)
{
    const char *s = otherwise;

    if (hky_key_get(L, index, key) == LUA_TSTRING)
        s = lua_tostring(L, -1);
    else if (hky_lua_is_kind(L, lua_gettop(L), HKY_UD_RELAY))
        s = ((struct hky_relay_ud *)lua_touserdata(L, -1))->name;
    lua_pop(L, 1); /* the table holds it */
    return s;
}

bool hky_key_get_bool(lua_State *L, int index, const char *key, bool otherwise)
{
    if (hky_key_get(L, index, key) == LUA_TBOOLEAN)
        otherwise = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return otherwise;
}

int64_t hky_key_get_int(lua_State *L, int index, const char *key, int64_t otherwise)
{
    int ok = 0;
    lua_Integer n = 0;

    if (hky_key_get(L, index, key) == LUA_TNUMBER)
        n = lua_tointegerx(L, -1, &ok);
    lua_pop(L, 1);
    return ok ? n : otherwise;
}

uint32_t hky_key_get_duration(lua_State *L, int index, const char *key, uint32_t otherwise)
{
    int type = hky_key_get(L, index, key), ok;
    struct hky_str s;
    uint32_t sec = otherwise;

    if (type == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &s.n);
        if (!hky_duration_parse(s, &sec))
            sec = otherwise;
    } else if (type == LUA_TNUMBER) {
        lua_Integer n = lua_tointegerx(L, -1, &ok);
        if (ok && n >= 0 && n < UINT32_MAX)
            sec = (uint32_t)n;
    }
    lua_pop(L, 1);
    return sec;
}

uint64_t hky_key_get_octets(lua_State *L, int index, const char *key, uint64_t otherwise)
{
    int type = hky_key_get(L, index, key), ok;
    struct hky_str s;
    uint64_t n = otherwise;

    if (type == LUA_TSTRING) {
        s.p = lua_tolstring(L, -1, &s.n);
        if (!hky_octets_parse(s, &n))
            n = otherwise;
    } else if (type == LUA_TNUMBER) {
        lua_Integer v = lua_tointegerx(L, -1, &ok);
        if (ok && v >= 0)
            n = (uint64_t)v;
    }
    lua_pop(L, 1);
    return n;
}
