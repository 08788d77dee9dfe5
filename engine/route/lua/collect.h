/*
 * collect -- what one loading of a policy collects: declarations with their places, and every problem.
 */
#ifndef HKY_ROUTE_COLLECT_H
#define HKY_ROUTE_COLLECT_H

#include "route/lua/vm.h"

#define HKY_DECLS_MAX    200000u
#define HKY_PROBLEMS_MAX 200u

enum hky_decl_kind { HKY_DECL_ENGINE, HKY_DECL_RELAY, HKY_DECL_ROUTE, HKY_DECL_ROWS, HKY_DECL_MATCHER };
struct hky_decl {
    enum hky_decl_kind kind;
    const char *name; /* arena */
    struct hky_place place;
    int ref;          /* body: a table or function */
    const char *rows; /* file of a rows declaration, or NULL */
};
struct hky_mention {  /* a name that must exist once everything is loaded */
    bool is_matcher;  /* else a relay */
    bool is_disabled; /* the name is mentioned by a disabled row, so it may be the name of a disabled row */
    const char *name;
    struct hky_place place;
};

struct hky_loader {
    struct hky_vm *vm;
    struct hky_policy *policy;
    struct hky_route_table *table;
    struct hky_problems *problems;
    const char *const *environment;
    uint64_t instructions; /* that the files may use; 0 = the usual number */
    bool may_lack_routes;
    bool is_worker; /* a worker's state: the files are already read, only functions are collected */
    struct hky_decl *decls;
    size_t n_decls, cap_decls;
    struct hky_mention *mentions;
    size_t n_mentions, cap_mentions;
    struct hky_incomplete {
        const char *word, *name;
        struct hky_place place;
        bool is_done;
    } * incomplete;
    size_t n_incomplete, cap_incomplete;
    unsigned include_depth;
    uint32_t bad_line; /* the first line of the file read last that is not UTF-8; 0 = there is none */
    struct {
        const char *file; /* where hky_loader_place_of looked last: mostly a little before the next */
        uint32_t line;
        size_t at;
    } cursor;
    struct hky_relay_spec *specs;
    size_t n_specs;
    struct hky_map spec_by_name, spec_by_account, route_by_name;
    struct hky_map authorities; /* files of `ca` that were found good */
    struct hky_map disabled;    /* names of rows that are disabled */
    struct hky_map splits;      /* names of splits */
    struct hky_map lost; /* names whose declaration is faulty, which is reported there and not where they are used */
};

/* The arena that keeps the names of declarations: other threads share the policy once it is loaded, so a worker has an
 * arena of its own. */
static inline struct hky_arena *hky_loader_names(struct hky_loader *l)
{
    return l->is_worker ? &l->vm->temp : &l->table->arena;
}

/* Adds an error or warning of the policy, printed as "FILE:LINE: error: ..."; loading goes on, to find more of them.
 * */
void hky_loader_complain(struct hky_loader *l, struct hky_place place, bool is_warning, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A note that the policy gives while it is loaded: it is shown among the problems but counts as none. */
void hky_loader_note(struct hky_loader *l, struct hky_place place, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The place of `word` at or after `place` in the same file, up to the next declaration; else `place`. */
struct hky_place hky_loader_place_of(struct hky_loader *l, struct hky_place place, const char *word, bool is_key);
/* A problem of a script: collected while loading, raised while running (then it does not return). */
void hky_lua_problem(lua_State *L, struct hky_place place, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The line of the script that runs at `level` of the call stack (1: the function that called the word). */
struct hky_place hky_lua_place_here(lua_State *L, int level);
/* The value of an environment variable as it was when the policy was loaded; NULL: not set. */
const char *hky_loader_env(struct hky_loader *l, const char *name);
/* The declaration of this name is faulty: that it is missing is not reported where it is used. */
void hky_loader_lose(struct hky_loader *l, const char *name);
/* The name is used at `place`: whether it exists is checked when all is loaded. */
void hky_loader_mention(struct hky_loader *l, bool is_matcher, const char *name, struct hky_place place);

#endif
