/*
 * vm -- one Lua state with its limits. Code enters the state through hky_vm_call() only, and functions of the Lua API
 * that can raise are used only inside it. While loading, `loader` collects declarations and problems; afterwards the
 * state only runs functions.
 */
#ifndef HKY_ROUTE_VM_H
#define HKY_ROUTE_VM_H

#include "base/buf.h"
#include "hikyaku/route.h"
#include "route/table/lookup.h"
#include "route/table/table.h"
#include "route/table/typed.h"

#include <lauxlib.h>
#include <lua.h>

struct hky_budget {
    uint64_t instructions; /* also charged for work in C: pattern steps, octets copied */
    uint32_t cpu_ms;       /* processor time of the thread; the limit of wall clock time is 200 times as long */
    uint64_t octets;       /* allocated in large pieces */
};

/* The octets that one call may allocate in large pieces. One instruction on a string takes time by the string's length,
 * so no string may be very long. */
#define HKY_CALL_OCTETS (UINT64_C(16) << 20)

struct hky_fn {
    int ref; /* LUA_NOREF: not declared in this state */
    uint32_t overruns;
    int64_t first_overrun_ms;
    bool is_suspended;
};

struct hky_loader;
struct hky_call; /* a call in a coroutine of its own */
struct hky_deciding;

struct hky_vm {
    lua_State *L;
    struct hky_policy *policy; /* counted */
    struct hky_route_table *table;
    struct hky_loader *loader; /* NULL once loaded */
    size_t used, limit;        /* octets of the state */
    /* the call that runs */
    bool is_running, is_dead;
    const char *why_dead;
    uint64_t left, octets_left;
    int64_t half_ns, cpu_check_ns, wall_end_ns, cpu_end_ns; /* cpu_end_ns is 0 until cpu_check_ns has come */
    uint32_t hook_step;
    struct hky_call *unused_calls; /* coroutines without a call */
    uint32_t n_unused_calls;
    uint32_t n_waiting_calls;
    char error[300];
    char kind[80]; /* of hky_lua_kind_name */
    /* r */
    const struct hky_route_query *query;
    struct hky_str header; /* of the query, read when it is first needed */
    bool is_header_missing;
    bool is_full;
    uint32_t generation, last_generation; /* of the decision that runs, and of the newest one */
    int r_ref;
    struct hky_match_key key;    /* of the recipient */
    struct hky_lookups *lookups; /* borrowed; NULL: no decision can wait */
    void (*ready)(void *ctx);    /* of the decision that runs; NULL: that decision is dropped when it has to wait */
    void *ready_ctx;
    struct hky_ticket ticket;             /* of the call that runs, from hky_vm_ticket */
    bool is_answered;                     /* the answer has come for a call that waits here (hky_lookups_wait_here) */
    struct hky_deciding *unused_deciding; /* memory for the next decision, or NULL */
    /* functions, by their number in the policy's table */
    struct hky_fn *fns;
    uint32_t n_fns;
    /* plans made of functions' answers and of rows, by their content */
    struct hky_map plans;
    struct hky_buf scratch; /* of one decision */
    struct hky_arena temp;  /* likewise, emptied after it */
    /* notes of the last decision, only for explain */
    bool wants_notes;
    char **notes;
    size_t n_notes;
    /* and of this second, for the log */
    struct hky_log *log; /* borrowed, or NULL */
    int64_t note_second_ms;
    uint32_t n_noted;
};

static inline struct hky_vm *hky_vm_of(lua_State *L)
{
    return *(struct hky_vm **)lua_getextraspace(L);
}

enum hky_vm_result { HKY_VM_OK, HKY_VM_ERROR, HKY_VM_OVER, HKY_VM_WAITS };
/*
 * Run `body` protected and limited; `ctx` is its only argument (light userdata). The message is in vm->error.
 *   waits  NULL: the call runs on the state itself and cannot wait (loading, expressions of operators). Else the call
 *          runs in a coroutine of the pool. HKY_VM_WAITS: a look-up suspended it, and *waits is the call, which the
 *          caller gives to hky_vm_resume or hky_vm_drop before the vm is freed; `ctx` must live until then.
 */
enum hky_vm_result hky_vm_call(struct hky_vm *vm, const struct hky_budget *budget, lua_CFunction body, void *ctx,
                               struct hky_call **waits);
/* Resume a call that waits. One budget holds for all parts of the call; the time of the wait does not count.
 * *waits becomes NULL unless the call waits again. */
enum hky_vm_result hky_vm_resume(struct hky_vm *vm, struct hky_call **waits);
void hky_vm_drop(struct hky_vm *vm, struct hky_call **waits); /* NULL is fine */
/* The first step of a look-up in C: a ticket through which the decision that runs learns of the answer. When that
 * decision is dropped at its first wait (before the 250), the ticket belongs to nobody; the look-up may begin all the
 * same, so that its answer is known later. Raises where the call cannot wait: on the state itself, and below table.sort
 * or string.gsub. [-0, +0, e] */
struct hky_ticket hky_vm_ticket(lua_State *L);
/* The last step of a look-up in C: suspends the call; `k` runs when the call is resumed. [-0, +0, e] */
int hky_vm_wait(lua_State *L, lua_KContext ctx, lua_KFunction k);
/* A state without a policy and without libraries, for loading; `memory_limit` in octets. hky_vm_free frees it, as it
 * frees the state of a worker (hky_vm_new). */
struct hky_vm *hky_vm_new_bare(size_t memory_limit);
/* Charge work that is done in C on a script's behalf; raises when the budget is used up. */
void hky_vm_charge(lua_State *L, uint64_t instructions);
/* For pcall: if something ended the whole call, raise that again. */
void hky_vm_rethrow(lua_State *L);

/* note "text": shown by check while loading, else by explain and in the log; cut where it is long. */
void hky_vm_note(struct hky_vm *vm, struct hky_place place, struct hky_str text);

/* Registers of kinds of userdata: metatable names. */
#define HKY_UD_STEP       "step"
#define HKY_UD_SPLIT      "split"
#define HKY_UD_RAMP       "ramp"
#define HKY_UD_RELAY      "relay"
#define HKY_UD_SET        "set"
#define HKY_UD_SECRET     "secret"
#define HKY_UD_INCOMPLETE "declaration without its braces"
#define HKY_UD_UNDEFINED  "undefined"
#define HKY_UD_R          "recipient"

/* Push the placeholder for a value that was already reported: no further problem is reported for it. [-0, +1, m];
 * returns 1. */
int hky_lua_push_undefined(lua_State *L);

struct hky_set_ud { /* exactly one */
    struct hky_set *set;
    struct hky_list *list;
};
struct hky_secret_ud {
    bool is_from_rows;
    uint32_t n_command;
    char name[HKY_SECRET_NAME_MAX];
    /* command: user value 1, a table of strings */
};
struct hky_relay_ud {
    char name[128];
};
struct hky_split_ud {
    struct hky_place place;
    char name[128];
    /* body: user value 1 */
};
struct hky_ramp_ud {
    int32_t start;
    uint16_t n;
    float share[HKY_RAMP_MAX];
};
struct hky_step_ud {
    struct hky_step step; /* strings point into text */
    struct hky_place place;
    uint32_t text_n;
    char text[];
};

/* sandbox.c: the environment of scripts, left on the stack. [-0, +1, m] */
void hky_sandbox_open(lua_State *L);
void hky_sandbox_lock(lua_State *L, const char *kind); /* seal the metatable on top: name, no __metatable */
void hky_sandbox_readonly(lua_State *L, const char *what, bool is_strict); /* table on top -> its read-only view */
void hky_lua_open_strings(lua_State *L);                                   /* [-0, +1, m] the string library */
void hky_lua_open_tables(lua_State *L);
void hky_lua_open_time(lua_State *L);
void hky_lua_open_json(lua_State *L);
void hky_lua_open_handles(lua_State *L); /* metatables of handles */
/* Push r for the query that runs. [-0, +1, m] */
void hky_lua_push_r(lua_State *L);
/* The nearest of the keys of the table at `index`, or NULL. */
const char *hky_lua_nearest_key(lua_State *L, int index, struct hky_str name);
void hky_lua_push_json(lua_State *L, struct hky_str text, bool is_rows);
/* A value's kind in words: "a table", "a secret". */
const char *hky_lua_kind_name(lua_State *L, int index);
bool hky_lua_is_kind(lua_State *L, int index, const char *kind);
/* Is the value undefined, or a declaration without its braces? Its problem was or will be reported elsewhere. */
bool hky_lua_is_reported(lua_State *L, int index);

#endif
