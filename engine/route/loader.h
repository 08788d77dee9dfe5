/*
 * loader -- what one loading of a policy collects: declarations with their places, and every problem.
 */
#ifndef HKY_ROUTE_LOADER_H
#define HKY_ROUTE_LOADER_H

#include "route/keys.h"
#include "route/vm.h"

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
    bool is_disabled; /* by a row that is disabled: another disabled row will do */
    const char *name;
    struct hky_place place;
};

struct hky_loader {
    struct hky_vm *vm;
    struct hky_policy *policy;
    struct hky_route_table *table;
    struct hky_problems *problems;
    const char *const *environment;
    bool may_lack_routes;
    bool is_worker; /* the files are there already, only functions are wanted */
    struct hky_decl *decls;
    size_t n_decls, cap_decls;
    struct hky_mention *mentions;
    size_t n_mentions, cap_mentions;
    struct hky_pending {
        const char *word, *name;
        struct hky_place place;
        bool is_done;
    } * pendings;
    size_t n_pendings, cap_pendings;
    unsigned include_depth;
    uint32_t bad_line; /* of the file that was read last: it is not UTF-8 there; 0 = it is */
    struct {
        const char *file; /* where hky_place_of looked last: mostly a little before the next */
        uint32_t line;
        size_t at;
    } cursor;
    struct hky_relay_spec *specs;
    size_t n_specs;
    struct hky_map spec_by_name, spec_by_account, route_by_name;
    struct hky_map authorities; /* files of `ca` that were found good */
    struct hky_map disabled;    /* names of rows that are disabled */
    struct hky_map lost;        /* names whose declaration is not one: told there, not where they are used */
};

/* Where names of declarations are kept: the policy is others' too once it is loaded, so a worker has its own. */
static inline struct hky_arena *hky_loader_names(struct hky_loader *l)
{
    return l->is_worker ? &l->vm->temp : &l->table->arena;
}

void hky_complain(struct hky_loader *l, struct hky_place place, bool is_warning, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What the policy says while it is loaded: shown among the problems, and none. */
void hky_loader_note(struct hky_loader *l, struct hky_place place, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where `word` stands at or after `place` in the same file, up to the next declaration; else `place`. */
struct hky_place hky_place_of(struct hky_loader *l, struct hky_place place, const char *word, bool is_key);
/* A problem of a script: collected while loading, raised while running (then it does not return). */
void hky_script_problem(lua_State *L, struct hky_place place, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
struct hky_place hky_place_here(lua_State *L, int level);
/* The octets of a policy's file, read once; NULL with the reason. */
const struct hky_file *hky_loader_file(struct hky_loader *l, const char *name, struct hky_error *e);
/* ', did you mean "NAME"?' when a file beside has nearly that name, else "". */
#define HKY_SUGGESTION 140
void hky_file_suggest(const char *dir, const char *name, char out[HKY_SUGGESTION]);
const char *hky_loader_env(struct hky_loader *l, const char *name);
/* HKY_OK: the file at `path` holds certificates of authorities; else why not. */
enum hky_err hky_loader_authority(struct hky_loader *l, const char *path, uint64_t *hash, struct hky_error *e);
struct hky_list *hky_loader_list(struct hky_loader *l, const char *name, struct hky_error *e);
void hky_loader_lose(struct hky_loader *l, const char *name);
void hky_loader_mention(struct hky_loader *l, bool is_matcher, const char *name, struct hky_place place);

/* Reading values. All raw; `index` absolute. They complain through hky_script_problem. */
/* to, except, sender, author, sends_as, only_to. */
void hky_read_match(struct hky_loader *l, int index, const char *what, struct hky_place place, bool may_be_null,
                    struct hky_match *out);
/* Fill steps of `draft` from a plan value; false: nothing usable (told). Strings are borrowed from Lua. */
bool hky_read_plan(lua_State *L, int index, const char *what, struct hky_place place, struct hky_plan *draft);
bool hky_read_retry(lua_State *L, int index, struct hky_place place, struct hky_retry *out);
bool hky_read_on(lua_State *L, int index, struct hky_place place, uint64_t *mask);
/* How "no class NAME" goes on: the one that was meant, the set of that name, or all there are. */
#define HKY_CLASS_HINT 480
const char *hky_class_hint(struct hky_str name, bool may_be_set, char *out, size_t room);
/* A mailbox in canonical form pushed as a string; false told. [-0, +1|0, m] */
bool hky_push_mailbox(lua_State *L, int index, const char *what, struct hky_place place);
/* An envelope sender with {id} and {rcpt} is an address whatever these are; false told. */
bool hky_check_envelope(lua_State *L, const char *pattern, const char *what, struct hky_place place);
/* Key of a plan: draft's steps as octets, for interning. */
void hky_plan_key(const struct hky_plan *draft, struct hky_buf *out);
struct hky_split *hky_read_split(lua_State *L, struct hky_arena *arena, int index, const struct hky_plan *draft,
                                 struct hky_place place);

/* Compiling what was collected; each inside one protected call. */
void hky_compile_engine(struct hky_loader *l);
void hky_compile_relays(struct hky_loader *l);
void hky_compile_routes(struct hky_loader *l);
void hky_compile_rows_specs(struct hky_loader *l); /* rows' relays, before hky_compile_relays */
void hky_compile_listen(struct hky_loader *l, int index, struct hky_place place, struct hky_engine_options *o);
void hky_compile_rules(struct hky_loader *l);
void hky_check_reach(struct hky_loader *l);
/* Warnings: policies that look right and lose mail. */
void hky_check_losses(struct hky_loader *l);
bool hky_is_secret_name(const char *s);
struct hky_secret_ref hky_read_secret(struct hky_loader *l, int index, const char *what, struct hky_place place);
const char *const *hky_read_strings(struct hky_loader *l, int index);
void hky_register_functions(struct hky_loader *l); /* worker: functions into vm->fns */

/* rows' relays */
const char *hky_row_relay(struct hky_loader *l, size_t decl, lua_Integer row);

#endif
