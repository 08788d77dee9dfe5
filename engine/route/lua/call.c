/* Calls functions of the policy, and suspends those that exceed their budget too often. */
#include "route/lua/decide.h"

#include <stdio.h>

#define OVERRUNS_MAX 10
#define OVERRUNS_MS  60000

static enum hky_fn_result fn_result(struct hky_vm *vm, struct hky_fn *fn, enum hky_vm_result result)
{
    int64_t now = vm->query->now_ms;

    switch (result) {
    case HKY_VM_OK:
        return HKY_FN_OK;
    case HKY_VM_WAITS:
        return HKY_FN_WAITS;
    case HKY_VM_OVER:
        if (fn->overruns == 0 || now - fn->first_overrun_ms > OVERRUNS_MS || now < fn->first_overrun_ms) {
            fn->first_overrun_ms = now;
            fn->overruns = 0;
        }
        fn->is_suspended = ++fn->overruns >= OVERRUNS_MAX;
        break;
    case HKY_VM_ERROR:
        break;
    }
    return HKY_FN_FAILED;
}

enum hky_fn_result hky_fn_run(struct hky_vm *vm, uint32_t number, lua_CFunction body, void *ctx,
                              struct hky_call **waits)
{
    const struct hky_bounds *b = &vm->policy->engine.bounds;
    struct hky_budget budget = {b->lua_instructions, b->lua_ms, HKY_CALL_OCTETS};
    struct hky_fn *fn = &vm->fns[number];

    if (fn->is_suspended) {
        *waits = NULL;
        snprintf(vm->error, sizeof vm->error, "%.100s:%u: %.100s is suspended until reload: over its budget %u times",
                 vm->table->fns[number].place.file, vm->table->fns[number].place.line, vm->table->fns[number].what,
                 OVERRUNS_MAX);
        return HKY_FN_FAILED;
    }
    return fn_result(vm, fn, hky_vm_call(vm, &budget, body, ctx, waits));
}

enum hky_fn_result hky_fn_resume(struct hky_vm *vm, uint32_t number, struct hky_call **waits)
{
    return fn_result(vm, &vm->fns[number], hky_vm_resume(vm, waits));
}
