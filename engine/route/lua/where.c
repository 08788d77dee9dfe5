/* queue --where: one Lua expression on r, compiled once. */
#include "route/lua/decide.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPRESSION_MAX 4096

#define OVERRUNS_MAX 10

struct hky_where {
    struct hky_vm *vm;
    int ref;
    unsigned n_overruns; /* the number of recipients for which it used up its budget */
};

struct compile_run {
    struct hky_str expression;
    int ref;
};

static int compile_body(lua_State *L)
{
    struct compile_run *run = lua_touserdata(L, 1);

    /* compiled alone first, so that the expression cannot end the function early */
    lua_pushliteral(L, "return ");
    lua_pushlstring(L, run->expression.p, run->expression.n);
    lua_pushliteral(L, "\n");
    lua_concat(L, 3);
    if (luaL_loadbufferx(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=where", "t") != LUA_OK)
        return lua_error(L);
    lua_pushliteral(L, "local r = ... return (");
    lua_pushlstring(L, run->expression.p, run->expression.n);
    lua_pushliteral(L, "\n)");
    lua_concat(L, 3);
    if (luaL_loadbufferx(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=where", "t") != LUA_OK)
        return lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.env");
    lua_setupvalue(L, -2, 1);
    run->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static struct hky_budget where_budget(const struct hky_vm *vm)
{
    const struct hky_bounds *b = &vm->policy->engine.bounds;

    return (struct hky_budget){b->lua_instructions, b->lua_ms, HKY_CALL_OCTETS};
}

enum hky_err hky_where_new(struct hky_vm *vm, struct hky_str expression, struct hky_where **out, struct hky_error *e)
{
    struct compile_run run = {expression, LUA_NOREF};
    struct hky_budget budget = where_budget(vm);

    *out = NULL;
    if (expression.n > EXPRESSION_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "the expression is longer than %d octets", EXPRESSION_MAX);
    if (hky_vm_call(vm, &budget, compile_body, &run, NULL) != HKY_VM_OK)
        return hky_error_set(e, HKY_E_SYNTAX, "%s", vm->error);
    *out = hky_alloc(sizeof **out);
    **out = (struct hky_where){vm, run.ref, 0};
    return HKY_OK;
}

struct where_run {
    int ref;
    bool is_true;
};

static int where_body(lua_State *L)
{
    struct where_run *run = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, run->ref);
    hky_lua_push_r(L);
    lua_call(L, 1, 1);
    run->is_true = lua_toboolean(L, -1);
    return 0;
}

bool hky_where_is_true(struct hky_where *w, const struct hky_route_query *q, struct hky_error *e)
{
    struct hky_asking a;
    struct where_run run = {w->ref, false};
    struct hky_budget budget = where_budget(w->vm);

    if (w->n_overruns >= OVERRUNS_MAX) { /* an endless expression would take its full time for each of a million */
        hky_error_set(e, HKY_E_SCRIPT, "the expression used up its budget %u times, so it is not evaluated again",
                      OVERRUNS_MAX);
        return false;
    }
    hky_asking_begin(&a, w->vm, q);
    enum hky_vm_result result = hky_vm_call(w->vm, &budget, where_body, &run, NULL);
    w->n_overruns += result == HKY_VM_OVER;
    if (w->vm->is_header_missing) { /* also when it failed: it was given nil for a field that may be there */
        hky_error_set(e, HKY_E_STATE, "the headers of some messages are being read from the disk: ask again");
        run.is_true = false;
    } else if (result != HKY_VM_OK) {
        hky_error_set(e, HKY_E_SCRIPT, "%s", w->vm->error);
        run.is_true = false;
    }
    hky_asking_end(&a);
    return run.is_true;
}

void hky_where_free(struct hky_where **w)
{
    if (*w != NULL)
        luaL_unref((*w)->vm->L, LUA_REGISTRYINDEX, (*w)->ref);
    free(*w);
    *w = NULL;
}
