/* presets [NAME]: the shipped data, with sources. */
#include "base/json.h"
#include "base/nearest.h"
#include "route/load/embedded.h"
#include "route/load/loader.h"

#include <stdio.h>
#include <stdlib.h>

struct print_run {
    const char *name;
    bool as_json;
    struct hky_buf *out;
    bool is_found;
    char near[64];
};

/* Print the value as it is written in a policy. */
static void value_print(lua_State *L, int index, struct hky_buf *out)
{
    struct hky_str s;

    if (lua_type(L, index) == LUA_TTABLE) {
        hky_buf_add_z(out, "{ ");
        for (lua_Integer i = 1; lua_rawgeti(L, index, i) != LUA_TNIL; i++) {
            if (i > 1)
                hky_buf_add_z(out, ", ");
            value_print(L, lua_gettop(L), out);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
        hky_buf_add_z(out, " }");
    } else if (lua_type(L, index) == LUA_TBOOLEAN) {
        hky_buf_add_z(out, lua_toboolean(L, index) ? "true" : "false");
    } else if (lua_type(L, index) == LUA_TNUMBER) {
        hky_buf_printf(out, "%lld", (long long)lua_tointeger(L, index));
    } else {
        s.p = lua_tolstring(L, index, &s.n);
        hky_buf_add_json(out, hky_str_of(s.p != NULL ? s.p : "", s.p != NULL ? s.n : 0));
    }
}

static void value_json(lua_State *L, int index, const char *key, struct hky_json *out)
{
    struct hky_str s;

    if (lua_type(L, index) == LUA_TTABLE) {
        hky_json_begin_array(out, key);
        for (lua_Integer i = 1; lua_rawgeti(L, index, i) != LUA_TNIL; i++) {
            value_json(L, lua_gettop(L), NULL, out);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
        hky_json_end_array(out);
    } else if (lua_type(L, index) == LUA_TBOOLEAN) {
        hky_json_bool(out, key, lua_toboolean(L, index));
    } else if (lua_type(L, index) == LUA_TNUMBER) {
        hky_json_int(out, key, (int64_t)lua_tointeger(L, index));
    } else {
        s.p = lua_tolstring(L, index, &s.n);
        hky_json_str(out, key, hky_str_of(s.p != NULL ? s.p : "", s.p != NULL ? s.n : 0));
    }
}

static void field_json(lua_State *L, int body, const char *key, struct hky_json *out)
{
    int type = hky_key_get(L, body, key);

    if (type == LUA_TSTRING || type == LUA_TBOOLEAN)
        value_json(L, lua_gettop(L), key, out);
    lua_pop(L, 1);
}

static void preset_json(lua_State *L, const char *name, int body, struct hky_json *out)
{
    hky_json_begin_object(out, NULL);
    hky_json_z(out, "name", name);
    field_json(L, body, "title", out);
    field_json(L, body, "note", out);
    field_json(L, body, "warn", out);
    field_json(L, body, "oauth_only", out);
    field_json(L, body, "token_url", out);
    hky_json_begin_array(out, "keys");
    hky_key_get(L, body, "keys");
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TTABLE; i++) {
        static const char *const names[] = {"key", "value", "source", "date"};
        int key = lua_gettop(L);
        hky_json_begin_object(out, NULL);
        for (int k = 0; k < 4; k++) {
            lua_rawgeti(L, key, k + 1);
            value_json(L, key + 1, names[k], out);
            lua_settop(L, key);
        }
        hky_json_end_object(out);
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
    hky_json_end_array(out);
    hky_json_end_object(out);
}

static void preset_text(lua_State *L, const char *name, int body, struct hky_buf *out)
{
    const char *note = hky_key_get_string(L, body, "note", NULL), *warn = hky_key_get_string(L, body, "warn", NULL);
    const char *url = hky_key_get_string(L, body, "token_url", NULL);

    hky_buf_printf(out, "%s: %s\n", name, hky_key_get_string(L, body, "title", ""));
    if (note != NULL)
        hky_buf_printf(out, "%s\n", note);
    if (warn != NULL)
        hky_buf_printf(out, "warning: %s\n", warn);
    if (url != NULL)
        hky_buf_printf(out, "oauth fetches access tokens from %s\n", url);
    hky_key_get(L, body, "keys");
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) == LUA_TTABLE; i++) {
        int key = lua_gettop(L);
        for (int k = 1; k <= 4; k++)
            lua_rawgeti(L, key, k);
        hky_buf_printf(out, "  %-24s= ", lua_type(L, key + 1) == LUA_TSTRING ? lua_tostring(L, key + 1) : "?");
        value_print(L, key + 2, out);
        hky_buf_printf(out, "  -- %s, %s\n", lua_type(L, key + 3) == LUA_TSTRING ? lua_tostring(L, key + 3) : "",
                       lua_type(L, key + 4) == LUA_TSTRING ? lua_tostring(L, key + 4) : "");
        lua_settop(L, key - 1);
    }
    lua_pop(L, 2);
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int print_body(lua_State *L)
{
    struct print_run *run = lua_touserdata(L, 1);
    struct hky_json json = hky_json_to(run->out);
    const struct hky_embedded_script *s = hky_embedded_scripts;
    const char *names[200], *near;
    size_t n = 0;
    int presets;

    while (s->name != NULL && strcmp(s->name, "presets") != 0)
        s++;
    if (s->name == NULL || luaL_loadbufferx(L, (const char *)s->text, s->n, "=presets", "t") != LUA_OK)
        return luaL_error(L, "the shipped presets cannot be read");
    lua_call(L, 0, 1);
    presets = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, presets) != 0) {
        if (n < 200)
            names[n++] = lua_tostring(L, -2);
        lua_pop(L, 1);
    }
    qsort(names, n, sizeof names[0], name_order);
    if (run->name != NULL) {
        if (hky_key_get(L, presets, run->name) != LUA_TTABLE) {
            near = hky_nearest_in(hky_str_z(run->name), names, n);
            snprintf(run->near, sizeof run->near, "%s", near != NULL ? near : "");
            return 0;
        }
        names[0] = run->name;
        n = 1;
    }
    run->is_found = true;
    if (run->as_json && run->name == NULL)
        hky_json_begin_array(&json, NULL);
    for (size_t i = 0; i < n; i++) {
        hky_key_get(L, presets, names[i]);
        if (run->as_json)
            preset_json(L, names[i], lua_gettop(L), &json);
        else if (run->name == NULL)
            hky_buf_printf(run->out, "%-12s %s\n", names[i], hky_key_get_string(L, lua_gettop(L), "title", ""));
        else
            preset_text(L, names[i], lua_gettop(L), run->out);
        lua_pop(L, 1);
    }
    if (run->as_json && run->name == NULL)
        hky_json_end_array(&json);
    if (run->as_json)
        hky_buf_add_c(run->out, '\n');
    return 0;
}

enum hky_err hky_presets_print(const char *name, bool as_json, struct hky_buf *out, struct hky_error *e)
{
    static const struct hky_budget budget = {10000000, 2000, UINT64_C(64) << 20};
    struct hky_vm *vm = hky_vm_new_bare(16u << 20);
    struct print_run run = {name, as_json, out, false, ""};
    enum hky_err err = HKY_OK;

    if (hky_vm_call(vm, &budget, print_body, &run, NULL) != HKY_VM_OK)
        err = hky_error_set(e, HKY_E_SCRIPT, "%s", vm->error);
    else if (!run.is_found && run.near[0] != 0)
        err = hky_error_set(e, HKY_E_MISSING, "no preset \"%.60s\", did you mean \"%s\"?", name, run.near);
    else if (!run.is_found)
        err = hky_error_set(e, HKY_E_MISSING, "no preset \"%.60s\"; `hikyaku presets` lists them", name);
    hky_vm_free(&vm);
    return err;
}
