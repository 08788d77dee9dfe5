#include "route/lua/vm.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

#define HOOK_STEP        100u
#define LARGE_PIECE      16384u
#define WALL_FACTOR      200
#define UNUSED_CALLS_MAX 16
#define WAIT_CHARGE      1000u /* instructions: a script cannot wait without end within its budget */

/* The rest of a call's budget is kept in the vm while the call runs, and here while it waits. */
struct hky_call {
    struct hky_call *next; /* among the spare ones */
    lua_State *co;
    int ref; /* of co, in the registry */
    uint64_t left, octets_left;
    int64_t check_ns, wall_ns; /* until cpu_check_ns and wall_end_ns */
    int64_t cpu_ns;            /* until cpu_end_ns; unused while that is 0 */
    bool has_cpu_end;
};

static bool over_budget(struct hky_vm *vm)
{
    if (vm->is_dead)
        return true;
    /* Reading the processor time costs a system call, and most calls end long before it matters. So the first half of
     * the budget is measured by the wall clock, which never shows less than the processor time, and only the second
     * half by the processor time. */
    int64_t now = hky_mono_ns();
    if (now < vm->cpu_check_ns)
        return false;
    if (vm->cpu_end_ns == 0)
        vm->cpu_end_ns = hky_thread_cpu_ns() + vm->half_ns;
    if (now >= vm->wall_end_ns || hky_thread_cpu_ns() >= vm->cpu_end_ns) {
        vm->is_dead = true;
        vm->why_dead = "took too long";
    }
    return vm->is_dead;
}

static void hook(lua_State *L, lua_Debug *ar)
{
    struct hky_vm *vm = hky_vm_of(L);

    (void)ar;
    hky_vm_charge(L, vm->hook_step);
}

/* Raise `why` with the line of the innermost Lua function: in a hook that is level 0, in a C function a deeper one. */
static void raise_here(lua_State *L, const char *why)
{
    lua_Debug ar;

    for (int level = 0; level < 8 && lua_getstack(L, level, &ar); level++) {
        if (!lua_getinfo(L, "Sl", &ar) || ar.currentline <= 0)
            continue;
        lua_pushfstring(L, "%s:%d: %s", ar.short_src, ar.currentline, why);
        lua_error(L);
    }
    lua_pushstring(L, why);
    lua_error(L);
}

void hky_vm_rethrow(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);

    if (!vm->is_dead)
        return;
    /* From here on every instruction raises, so that no error handler of a script can continue the call. */
    vm->hook_step = 1;
    lua_sethook(L, hook, LUA_MASKCOUNT, 1);
    raise_here(L, vm->why_dead);
}

void hky_vm_charge(lua_State *L, uint64_t instructions)
{
    struct hky_vm *vm = hky_vm_of(L);

    if (!vm->is_running)
        return;
    if (instructions >= vm->left) {
        vm->left = 0;
        if (!vm->is_dead) {
            vm->is_dead = true;
            vm->why_dead = "used up its instructions (an endless loop?)";
        }
    } else {
        vm->left -= instructions;
    }
    if (over_budget(vm))
        hky_vm_rethrow(L);
}

static void *allocate(void *ud, void *p, size_t was, size_t want)
{
    struct hky_vm *vm = ud;
    void *q;

    if (p == NULL)
        was = 0;
    if (want == 0) {
        free(p);
        vm->used -= was;
        return NULL;
    }
    if (want > was) {
        if (want - was > vm->limit || vm->used > vm->limit - (want - was))
            return NULL;
        if (want > LARGE_PIECE && vm->is_running) {
            /* Few instructions can copy gigabytes; large pieces count. */
            if (want > vm->octets_left || over_budget(vm)) {
                vm->is_dead = true;
                if (vm->why_dead == NULL)
                    vm->why_dead = "allocated too much";
                return NULL;
            }
            vm->octets_left -= want;
        }
    }
    q = realloc(p, want);
    if (q == NULL && want <= was)
        return p; /* shrinking never fails */
    if (q != NULL)
        vm->used = vm->used - was + want;
    return q;
}

static int panic(lua_State *L)
{
    (void)L;
    HKY_ASSERT(!"Lua raised outside hky_vm_call");
    return 0;
}

struct hky_vm *hky_vm_new_bare(size_t memory_limit)
{
    struct hky_vm *vm = hky_calloc(1, sizeof *vm);

    vm->limit = memory_limit;
    vm->r_ref = LUA_NOREF;
    hky_map_init(&vm->plans);
    hky_buf_init(&vm->scratch, 1 << 20);
    vm->L = lua_newstate(allocate, vm);
    HKY_ASSERT(vm->L != NULL);
    lua_atpanic(vm->L, panic);
    *(struct hky_vm **)lua_getextraspace(vm->L) = vm;
    return vm;
}

static void vm_close(struct hky_vm *vm)
{
    size_t at = 0;
    struct hky_map_entry *e;

    HKY_ASSERT(vm->n_waiting_calls == 0);
    vm->is_running = false;
    for (struct hky_call *call; (call = vm->unused_calls) != NULL;) {
        vm->unused_calls = call->next;
        free(call);
    }
    lua_close(vm->L);
    while ((e = hky_map_next(&vm->plans, &at)) != NULL) {
        struct hky_plan *p = e->value;
        hky_plan_unref(&p);
    }
    hky_map_fini(&vm->plans);
    for (size_t i = 0; i < vm->n_notes; i++)
        free(vm->notes[i]);
    free(vm->notes);
    hky_buf_fini(&vm->scratch);
    hky_arena_fini(&vm->temp);
    free(vm->unused_deciding);
    free(vm->fns);
    free(vm);
}

static void error_keep(struct hky_vm *vm, lua_State *L, enum hky_vm_result result)
{
    if (result == HKY_VM_OVER) {
        const char *at = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
        const char *end = strstr(at, vm->why_dead);
        snprintf(vm->error, sizeof vm->error, "%.*s%s", end != NULL ? (int)(end - at) : 0, at, vm->why_dead);
    } else if (lua_type(L, -1) == LUA_TSTRING) {
        snprintf(vm->error, sizeof vm->error, "%s", lua_tostring(L, -1));
    } else {
        snprintf(vm->error, sizeof vm->error, "the error is %s, not a text", luaL_typename(L, -1));
    }
    for (char *p = vm->error; *p != 0; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
}

static void budget_begin(struct hky_vm *vm, const struct hky_budget *budget)
{
    vm->left = budget->instructions;
    vm->octets_left = budget->octets;
    /* A busy machine takes the processor away in the middle of an innocent call, often for more than 50 ms: the limit
     * of wall clock time is only for calls that use no processor time and yet do not end, such as those whose memory is
     * read back from swap. */
    vm->half_ns = (int64_t)budget->cpu_ms * 500000;
    vm->cpu_check_ns = hky_mono_ns() + vm->half_ns;
    vm->wall_end_ns = vm->cpu_check_ns + vm->half_ns * (2 * WALL_FACTOR - 1);
    vm->cpu_end_ns = 0;
}

static void budget_keep(const struct hky_vm *vm, struct hky_call *call)
{
    int64_t now = hky_mono_ns();

    call->left = vm->left;
    call->octets_left = vm->octets_left;
    call->check_ns = vm->cpu_check_ns - now;
    call->wall_ns = vm->wall_end_ns - now;
    call->has_cpu_end = vm->cpu_end_ns != 0;
    call->cpu_ns = call->has_cpu_end ? vm->cpu_end_ns - hky_thread_cpu_ns() : vm->half_ns;
}

static void budget_continue(struct hky_vm *vm, const struct hky_call *call)
{
    int64_t now = hky_mono_ns();

    vm->left = call->left;
    vm->octets_left = call->octets_left;
    vm->half_ns = call->cpu_ns; /* over_budget adds it to the processor time when it first reads that */
    vm->cpu_check_ns = now + call->check_ns;
    vm->wall_end_ns = now + call->wall_ns;
    vm->cpu_end_ns = call->has_cpu_end ? hky_thread_cpu_ns() + call->cpu_ns : 0;
}

/* The hook is set before each part of a call; the rest of the budget is kept over a wait. */
static void run_begin(struct hky_vm *vm, lua_State *L)
{
    HKY_ASSERT(!vm->is_running);
    vm->is_running = true;
    vm->is_dead = false;
    vm->why_dead = NULL;
    vm->hook_step = HOOK_STEP;
    lua_sethook(L, hook, LUA_MASKCOUNT, HOOK_STEP);
}

/* `L` is where the call ran, with the error on top of its stack unless `status` is LUA_OK. */
static enum hky_vm_result run_end(struct hky_vm *vm, lua_State *L, int status)
{
    enum hky_vm_result result = HKY_VM_OK;

    vm->is_running = false;
    if (status == LUA_ERRMEM) {
        lua_gc(vm->L, LUA_GCCOLLECT);
        vm->is_full = vm->used > vm->limit / 2;
    }
    if (status != LUA_OK || vm->is_dead) {
        result = vm->is_dead ? HKY_VM_OVER : HKY_VM_ERROR;
        if (status == LUA_OK || status == LUA_YIELD)
            lua_pushnil(L);
        error_keep(vm, L, result);
    }
    return result;
}

static enum hky_vm_result call_on_state(struct hky_vm *vm, lua_CFunction body, void *ctx)
{
    lua_State *L = vm->L;
    int top = lua_gettop(L);
    enum hky_vm_result result;

    run_begin(vm, L);
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, ctx);
    result = run_end(vm, L, lua_pcall(L, 1, 0, 0));
    lua_sethook(L, NULL, 0, 0);
    lua_settop(L, top);
    return result;
}

/* --- calls in coroutines --- */

static int coroutine_new(lua_State *L)
{
    struct hky_call *call = lua_touserdata(L, 1);
    lua_State *co = lua_newthread(L);

    call->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    call->co = co;
    return 0;
}

/* NULL: there is no memory for a coroutine; vm->error. */
static struct hky_call *call_take(struct hky_vm *vm)
{
    struct hky_call *call = vm->unused_calls;

    if (call != NULL) {
        vm->unused_calls = call->next;
        vm->n_unused_calls--;
        return call;
    }
    call = hky_calloc(1, sizeof *call);
    lua_pushcfunction(vm->L, coroutine_new);
    lua_pushlightuserdata(vm->L, call);
    if (lua_pcall(vm->L, 1, 0, 0) == LUA_OK)
        return call;
    error_keep(vm, vm->L, HKY_VM_ERROR);
    lua_pop(vm->L, 1);
    lua_gc(vm->L, LUA_GCCOLLECT);
    vm->is_full = vm->used > vm->limit / 2;
    free(call);
    return NULL;
}

static void call_free(struct hky_vm *vm, struct hky_call *call)
{
    luaL_unref(vm->L, LUA_REGISTRYINDEX, call->ref); /* cannot raise, because the place in the registry exists */
    free(call);
}

static void call_give(struct hky_vm *vm, struct hky_call *call)
{
    if (vm->n_unused_calls >= UNUSED_CALLS_MAX) {
        call_free(vm, call);
        return;
    }
    call->next = vm->unused_calls;
    vm->unused_calls = call;
    vm->n_unused_calls++;
}

static enum hky_vm_result call_run(struct hky_vm *vm, struct hky_call *call, int n_args, struct hky_call **waits)
{
    enum hky_vm_result result;
    int status, n_results;

    run_begin(vm, call->co);
    status = lua_resume(call->co, vm->L, n_args, &n_results);
    if (status == LUA_YIELD && !vm->is_dead) {
        vm->is_running = false;
        budget_keep(vm, call);
        *waits = call;
        return HKY_VM_WAITS;
    }
    result = run_end(vm, call->co, status);
    hky_ticket_end(vm->lookups, &vm->ticket); /* the call ended between its ticket and the wait */
    if (status == LUA_OK) {
        lua_settop(call->co, 0);
        call_give(vm, call);
    } else {
        /* The coroutine is not used again: an error that a hook raised leaves hooks off in it (lua_resetthread does not
         * switch them on), and the next call would have no limits. */
        lua_resetthread(call->co);
        call_free(vm, call);
    }
    return result;
}

/* In a program that does nothing else, the loop runs here until the answer has come. */
static enum hky_vm_result finish_here(struct hky_vm *vm, enum hky_vm_result result, struct hky_call **waits)
{
    while (result == HKY_VM_WAITS && vm->lookups != NULL && hky_lookups_is_waiting_here(vm->lookups)) {
        struct hky_call *call = *waits;
        while (!vm->is_answered)
            hky_lookups_turn(vm->lookups);
        hky_ticket_end(vm->lookups, &vm->ticket);
        *waits = NULL;
        budget_continue(vm, call);
        result = call_run(vm, call, 0, waits);
    }
    return result;
}

enum hky_vm_result hky_vm_call(struct hky_vm *vm, const struct hky_budget *budget, lua_CFunction body, void *ctx,
                               struct hky_call **waits)
{
    struct hky_call *call;
    enum hky_vm_result result;

    budget_begin(vm, budget);
    if (waits == NULL)
        return call_on_state(vm, body, ctx);
    *waits = NULL;
    if ((call = call_take(vm)) == NULL)
        return HKY_VM_ERROR;
    lua_pushcfunction(call->co, body);
    lua_pushlightuserdata(call->co, ctx);
    result = finish_here(vm, call_run(vm, call, 1, waits), waits);
    vm->n_waiting_calls += result == HKY_VM_WAITS;
    return result;
}

enum hky_vm_result hky_vm_resume(struct hky_vm *vm, struct hky_call **waits)
{
    struct hky_call *call = *waits;
    enum hky_vm_result result;

    *waits = NULL;
    budget_continue(vm, call);
    result = call_run(vm, call, 0, waits);
    vm->n_waiting_calls -= result != HKY_VM_WAITS;
    return result;
}

void hky_vm_drop(struct hky_vm *vm, struct hky_call **waits)
{
    struct hky_call *call = *waits;

    *waits = NULL;
    if (call == NULL)
        return;
    vm->n_waiting_calls--;
    lua_resetthread(call->co);
    call_give(vm, call);
}

static void answered(void *ctx)
{
    *(bool *)ctx = true;
}

struct hky_ticket hky_vm_ticket(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);

    HKY_ASSERT(vm->ticket.generation == 0); /* one wait after the other */
    if (!lua_isyieldable(L))
        luaL_error(L, "a look-up cannot wait here: inside table.sort, string.gsub or an expression");
    hky_vm_charge(L, WAIT_CHARGE);
    if (vm->lookups == NULL)
        return vm->ticket;
    if (hky_lookups_is_waiting_here(vm->lookups)) {
        vm->is_answered = false;
        vm->ticket = hky_ticket_new(vm->lookups, answered, &vm->is_answered);
    } else if (vm->ready != NULL) {
        vm->ticket = hky_ticket_new(vm->lookups, vm->ready, vm->ready_ctx);
    }
    return vm->ticket;
}

int hky_vm_wait(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
    return lua_yieldk(L, 0, ctx, k);
}

void hky_vm_free(struct hky_vm **vm)
{
    struct hky_vm *it = *vm;
    struct hky_policy *policy;

    *vm = NULL;
    if (it == NULL)
        return;
    policy = it->policy;
    vm_close(it);
    hky_policy_unref(&policy);
}

bool hky_vm_is_full(const struct hky_vm *vm)
{
    return vm->is_full;
}

struct hky_policy *hky_vm_policy(const struct hky_vm *vm)
{
    return vm->policy;
}
