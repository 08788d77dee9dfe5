/* The string library of scripts: the stock functions that are cheap, charged by octets, and our own functions for
 * patterns. */
#include "route/table/pattern.h"
#include "route/lua/vm.h"

#include <lualib.h>
#include <stdio.h>

#define STRING_MAX (1u << 20)
#define STEPS_MAX  500000u

static struct hky_str string_arg(lua_State *L, int i)
{
    size_t n;
    const char *p = luaL_checklstring(L, i, &n);

    return hky_str_of(p, n);
}

/* A stock function with its first argument's octets charged. Upvalue: the function. */
static int charged(lua_State *L)
{
    lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(1));

    if (lua_type(L, 1) == LUA_TSTRING)
        hky_vm_charge(L, lua_rawlen(L, 1) / 16);
    return f(L);
}

static void pattern_start(struct hky_pattern *m, struct hky_str subject, struct hky_str pattern)
{
    m->subject = subject;
    m->pattern = pattern;
    m->depth = 0;
    m->steps = 0;
    m->steps_max = STEPS_MAX;
    m->fault = NULL;
    m->n = 0;
}

/* Charge the steps so far as instructions, ten to one, and raise a fault if there is one. */
static void pattern_settle(lua_State *L, struct hky_pattern *m)
{
    hky_vm_charge(L, m->steps / 10);
    m->steps_max = m->steps_max > m->steps ? m->steps_max - m->steps : 0;
    m->steps = 0;
    if (m->fault != NULL)
        luaL_error(L, "%s", m->fault);
}

static void capture_push(lua_State *L, const struct hky_pattern *m, unsigned i, const char *s, const char *end)
{
    if (i >= m->n) {
        if (i != 0)
            luaL_error(L, "invalid capture index %%%d", (int)i + 1);
        lua_pushlstring(L, s, (size_t)(end - s));
        return;
    }
    if (m->capture[i].n == HKY_CAPTURE_POSITION)
        lua_pushinteger(L, m->capture[i].p - m->subject.p + 1);
    else if (m->capture[i].n == HKY_CAPTURE_OPEN)
        luaL_error(L, "unfinished capture");
    else
        lua_pushlstring(L, m->capture[i].p, (size_t)m->capture[i].n);
}

static int captures_push(lua_State *L, const struct hky_pattern *m, const char *s, const char *end)
{
    unsigned n = m->n == 0 && s != NULL ? 1 : m->n;

    luaL_checkstack(L, (int)n + 1, "too many captures");
    for (unsigned i = 0; i < n; i++)
        capture_push(L, m, i, s, end);
    return (int)n;
}

static bool is_plain(struct hky_str pattern)
{
    for (size_t i = 0; i < pattern.n; i++)
        if (strchr("^$*+?.([%-", pattern.p[i]) != NULL && pattern.p[i] != 0)
            return false;
    return true;
}

static int find_or_match(lua_State *L, bool is_find)
{
    struct hky_str s = string_arg(L, 1), p = string_arg(L, 2);
    lua_Integer init = luaL_optinteger(L, 3, 1);
    struct hky_pattern m;
    const char *from, *end = s.p + s.n;
    bool is_anchored;

    if (init < 0)
        init = init < -(lua_Integer)s.n ? 1 : (lua_Integer)s.n + init + 1;
    if (init < 1)
        init = 1;
    if (init > (lua_Integer)s.n + 1) {
        lua_pushnil(L);
        return 1;
    }
    from = s.p + init - 1;
    if (is_find && (lua_toboolean(L, 4) || is_plain(p))) {
        const char *hit = p.n == 0 ? from : memmem(from, (size_t)(end - from), p.p, p.n);
        hky_vm_charge(L, (uint64_t)(end - from) / 16);
        if (hit == NULL) {
            lua_pushnil(L);
            return 1;
        }
        lua_pushinteger(L, hit - s.p + 1);
        lua_pushinteger(L, hit - s.p + (lua_Integer)p.n);
        return 2;
    }
    pattern_start(&m, s, p);
    is_anchored = p.n > 0 && p.p[0] == '^';
    do {
        const char *r = hky_pattern_at(&m, from, p.p + is_anchored);
        if (r != NULL) {
            pattern_settle(L, &m);
            if (!is_find)
                return captures_push(L, &m, from, r);
            lua_pushinteger(L, from - s.p + 1);
            lua_pushinteger(L, r - s.p);
            return captures_push(L, &m, NULL, NULL) + 2;
        }
    } while (m.fault == NULL && from++ < end && !is_anchored);
    pattern_settle(L, &m);
    lua_pushnil(L);
    return 1;
}

static int l_find(lua_State *L)
{
    return find_or_match(L, true);
}

static int l_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* Upvalues: subject, pattern, next position, end of the last match. */
static int gmatch_next(lua_State *L)
{
    struct hky_str s = string_arg(L, lua_upvalueindex(1)), p = string_arg(L, lua_upvalueindex(2));
    const char *from = s.p + lua_tointeger(L, lua_upvalueindex(3)), *end = s.p + s.n;
    const char *last = s.p + lua_tointeger(L, lua_upvalueindex(4));
    struct hky_pattern m;

    pattern_start(&m, s, p);
    for (; from <= end && m.fault == NULL; from++) {
        const char *r = hky_pattern_at(&m, from, p.p);
        if (r == NULL || r == last)
            continue;
        pattern_settle(L, &m);
        lua_pushinteger(L, r - s.p);
        lua_copy(L, -1, lua_upvalueindex(4));
        lua_replace(L, lua_upvalueindex(3));
        return captures_push(L, &m, from, r);
    }
    pattern_settle(L, &m);
    return 0;
}

static int l_gmatch(lua_State *L)
{
    string_arg(L, 1);
    string_arg(L, 2);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

static void result_add(lua_State *L, luaL_Buffer *b, size_t *total, const char *p, size_t n)
{
    if (n > STRING_MAX - *total)
        luaL_error(L, "resulting string too large");
    *total += n;
    luaL_addlstring(b, p, n);
}

static void replacement_text(lua_State *L, luaL_Buffer *b, size_t *total, struct hky_pattern *m, const char *s,
                             const char *end)
{
    struct hky_str text = string_arg(L, 3);

    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '%') {
            result_add(L, b, total, text.p + i, 1);
            continue;
        }
        if (++i == text.n || (text.p[i] != '%' && (text.p[i] < '0' || text.p[i] > '9')))
            luaL_error(L, "invalid use of '%%' in replacement string");
        if (text.p[i] == '%') {
            result_add(L, b, total, "%", 1);
        } else if (text.p[i] == '0') {
            result_add(L, b, total, s, (size_t)(end - s));
        } else {
            size_t n;
            const char *p;
            capture_push(L, m, (unsigned)(text.p[i] - '1'), s, end);
            p = luaL_tolstring(L, -1, &n);
            if (n > STRING_MAX - *total)
                luaL_error(L, "resulting string too large");
            *total += n;
            lua_remove(L, -2);
            luaL_addvalue(b);
            (void)p;
        }
    }
}

/* Replace one match by the value that a table or function gives; nil or false keeps the match. */
static void replacement_value(lua_State *L, luaL_Buffer *b, size_t *total, struct hky_pattern *m, const char *s,
                              const char *end)
{
    if (lua_type(L, 3) == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, captures_push(L, m, s, end), 1);
    } else {
        capture_push(L, m, 0, s, end);
        lua_rawget(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        result_add(L, b, total, s, (size_t)(end - s));
        return;
    }
    if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "invalid replacement value (%s)", luaL_typename(L, -1));
    if (lua_type(L, -1) == LUA_TNUMBER) {
        luaL_tolstring(L, -1, NULL);
        lua_remove(L, -2);
    }
    if (lua_rawlen(L, -1) > STRING_MAX - *total)
        luaL_error(L, "resulting string too large");
    *total += lua_rawlen(L, -1);
    luaL_addvalue(b);
}

static int l_gsub(lua_State *L)
{
    struct hky_str s = string_arg(L, 1), p = string_arg(L, 2);
    int type = lua_type(L, 3);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)s.n + 1), n = 0;
    bool is_anchored = p.n > 0 && p.p[0] == '^';
    const char *from = s.p, *end = s.p + s.n, *last = NULL;
    size_t total = 0;
    struct hky_pattern m;
    luaL_Buffer b;

    luaL_argcheck(L, type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TTABLE || type == LUA_TFUNCTION, 3,
                  "string, function or table expected");
    if (type == LUA_TNUMBER)
        lua_tostring(L, 3);
    pattern_start(&m, s, p);
    luaL_buffinit(L, &b);
    while (n < max) {
        const char *r = hky_pattern_at(&m, from, p.p + is_anchored);
        pattern_settle(L, &m);
        hky_vm_charge(L, 1);
        if (r != NULL && r != last) {
            n++;
            if (type == LUA_TSTRING || type == LUA_TNUMBER)
                replacement_text(L, &b, &total, &m, from, r);
            else
                replacement_value(L, &b, &total, &m, from, r);
            from = last = r;
        } else if (from < end) {
            result_add(L, &b, &total, from++, 1);
        } else {
            break;
        }
        if (is_anchored)
            break;
    }
    if (from < end)
        result_add(L, &b, &total, from, (size_t)(end - from));
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}

static int l_rep(lua_State *L)
{
    struct hky_str s = string_arg(L, 1);
    lua_Integer n = luaL_checkinteger(L, 2);
    size_t sep_n;
    const char *sep = luaL_optlstring(L, 3, "", &sep_n);
    luaL_Buffer b;

    if (n <= 0 || s.n + sep_n == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if ((lua_Unsigned)n > STRING_MAX / (s.n + sep_n))
        return luaL_error(L, "resulting string too large");
    hky_vm_charge(L, (uint64_t)n * (s.n + sep_n) / 16);
    luaL_buffinit(L, &b);
    for (lua_Integer i = 0; i < n; i++) {
        luaL_addlstring(&b, s.p, s.n);
        if (i + 1 < n)
            luaL_addlstring(&b, sep, sep_n);
    }
    luaL_pushresult(&b);
    return 1;
}

/* Refuses what the stock function would do too freely (%p, values that are neither strings nor numbers, very long
 * results), then calls it. Upvalue: string.format. */
static int l_format(lua_State *L)
{
    struct hky_str f = string_arg(L, 1);
    lua_CFunction stock = lua_tocfunction(L, lua_upvalueindex(1));
    size_t octets = f.n;

    for (size_t i = 0; i + 1 < f.n; i++) {
        if (f.p[i] != '%')
            continue;
        for (i++; i < f.n && strchr("-+ #0123456789.", f.p[i]) != NULL && f.p[i] != 0; i++)
            ;
        if (i < f.n && f.p[i] == 'p')
            return luaL_error(L, "invalid conversion '%%p' to 'format'");
    }
    for (int i = 2; i <= lua_gettop(L); i++) {
        int type = lua_type(L, i);
        if (type == LUA_TSTRING)
            octets += lua_rawlen(L, i);
        if (type == LUA_TTABLE || type == LUA_TUSERDATA || type == LUA_TFUNCTION || type == LUA_TLIGHTUSERDATA)
            return luaL_argerror(L, i, "a string or number is needed");
    }
    if (octets > STRING_MAX)
        return luaL_error(L, "resulting string too large");
    hky_vm_charge(L, octets / 8 + (uint64_t)lua_gettop(L) * 8);
    return stock(L);
}

void hky_lua_open_strings(lua_State *L)
{
    static const char *const cheap[] = {"byte", "char", "len", "lower", "upper", "reverse", "sub"};
    static const luaL_Reg own[] = {{"find", l_find}, {"match", l_match}, {"gmatch", l_gmatch},
                                   {"gsub", l_gsub}, {"rep", l_rep},     {NULL, NULL}};

    lua_pushcfunction(L, luaopen_string);
    lua_call(L, 0, 1);
    luaL_newlib(L, own);
    for (size_t i = 0; i < sizeof cheap / sizeof cheap[0]; i++) {
        lua_getfield(L, -2, cheap[i]);
        lua_pushcclosure(L, charged, 1);
        lua_setfield(L, -2, cheap[i]);
    }
    lua_getfield(L, -2, "format");
    lua_pushcclosure(L, l_format, 1);
    lua_setfield(L, -2, "format");
    lua_remove(L, -2);
    lua_pushliteral(L, ""); /* s:find(...) finds these too */
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}
