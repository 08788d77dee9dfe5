/* Loading: the policy's files run once in a scratch state; what they declare becomes one immutable table. */
#include "route/load/embedded.h"
#include "route/load/loader.h"

#include "base/hash.h"
#include "base/nearest.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define LOAD_MEMORY (256u << 20)

static const struct hky_budget load_budget = {200000000, 10000, UINT64_C(4) << 30};

/* --- the shipped data --- */

static void embedded_load(lua_State *L, const char *name)
{
    const struct hky_embedded_script *s = hky_embedded_scripts;
    char chunk[64];

    while (s->name != NULL && strcmp(s->name, name) != 0)
        s++;
    if (s->name == NULL)
        luaL_error(L, "script %s is not compiled in", name);
    snprintf(chunk, sizeof chunk, "=%s", name);
    if (luaL_loadbufferx(L, (const char *)s->text, s->n, chunk, "t") != LUA_OK)
        lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.env");
    lua_setupvalue(L, -2, 1);
}

static struct hky_set *set_of(lua_State *L, struct hky_route_table *t, const char *name, bool is_worker, int entries)
{
    struct hky_set *set;

    for (uint32_t i = 0; i < t->n_sets; i++)
        if (strcmp(t->sets[i].name, name) == 0)
            return t->sets[i].set;
    if (is_worker)
        luaL_error(L, "set %s was not there at load", name);
    set = hky_set_new();
    if (t->n_sets == t->cap_sets) {
        t->cap_sets = t->cap_sets ? t->cap_sets * 2 : 8;
        t->sets = hky_realloc(t->sets, t->cap_sets * sizeof *t->sets);
    }
    t->sets[t->n_sets++] = (struct hky_named_set){hky_arena_z(&t->arena, name), set};
    for (lua_Integer i = 1; lua_rawgeti(L, entries, i) == LUA_TSTRING; i++) {
        struct hky_set_entry entry;
        struct hky_error e;
        struct hky_str s;
        s.p = lua_tolstring(L, -1, &s.n);
        if (hky_set_entry_parse(s, &entry, &e) != HKY_OK)
            luaL_error(L, "%s: \"%s\": %s", name, s.p, e.text);
        hky_set_add(set, &entry);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return set;
}

/* Push `sets` of prelude.lua: one table of handles for each group, read-only and strict. */
static void sets_open(lua_State *L, struct hky_loader *l, int env)
{
    int sets = lua_gettop(L);

    lua_newtable(L);
    for (lua_Integer i = 1; lua_rawgeti(L, sets, i) == LUA_TTABLE; i++) {
        int item = lua_gettop(L);
        struct hky_set_ud *ud;
        char name[128];
        lua_getfield(L, item, "group");
        lua_getfield(L, item, "name");
        lua_getfield(L, item, "entries");
        snprintf(name, sizeof name, "%s.%s", lua_tostring(L, item + 1), lua_tostring(L, item + 2));
        lua_pushvalue(L, item + 1);
        if (lua_rawget(L, sets + 1) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_newtable(L);
            lua_pushvalue(L, item + 1);
            lua_pushvalue(L, -2);
            lua_rawset(L, sets + 1);
        }
        lua_pushvalue(L, item + 2);
        ud = lua_newuserdatauv(L, sizeof *ud, 0);
        *ud = (struct hky_set_ud){.set = set_of(L, l->table, name, l->is_worker, item + 3)};
        luaL_setmetatable(L, HKY_UD_SET);
        lua_rawset(L, -3);
        lua_settop(L, item - 1);
    }
    lua_settop(L, sets + 1);
    lua_pushnil(L);
    while (lua_next(L, sets + 1) != 0) {
        hky_sandbox_readonly(L, lua_tostring(L, -2), true);
        lua_setfield(L, env, lua_tostring(L, -2));
    }
}

/* hky.preset_hosts: host, .domain of hosts or @domain of users -> the preset that it belongs to. [-0, +0, m] */
static void preset_hosts(lua_State *L, int presets)
{
    int hosts;

    lua_newtable(L);
    hosts = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, presets) != 0) {
        int preset = lua_gettop(L);
        if (hky_key_get(L, preset, "hosts") == LUA_TTABLE)
            for (lua_Integer i = 1; lua_rawgeti(L, preset + 1, i) == LUA_TSTRING; i++) {
                lua_pushvalue(L, preset - 1);
                lua_rawset(L, hosts);
            }
        lua_settop(L, preset - 1);
    }
    lua_setfield(L, LUA_REGISTRYINDEX, "hky.preset_hosts");
}

static int environment_body(lua_State *L)
{
    struct hky_loader *l = lua_touserdata(L, 1);
    int raw;

    hky_sandbox_open(L);
    hky_loader_open_words(L);
    raw = lua_gettop(L);
    lua_pushvalue(L, raw);
    hky_sandbox_readonly(L, "", true);
    lua_setfield(L, LUA_REGISTRYINDEX, "hky.env");
    embedded_load(L, "prelude");
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"presets", "carriers", "domains"};
        embedded_load(L, names[i]);
        lua_call(L, 0, 1);
    }
    lua_call(L, 3, 2);
    sets_open(L, l, raw);
    lua_settop(L, raw + 2);
    lua_pushvalue(L, raw + 1);
    preset_hosts(L, raw + 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "hky.presets");
    if (!l->is_worker) {
        embedded_load(L, "classify");
        lua_call(L, 0, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "hky.rules");
    }
    return 0;
}

static int policy_body(lua_State *L)
{
    struct hky_loader *l = lua_touserdata(L, 1);
    const struct hky_file *f = &l->table->files[0];

    lua_pushfstring(L, "@%s", f->name);
    if (luaL_loadbufferx(L, f->text, f->n, lua_tostring(L, -1), "t") != LUA_OK)
        lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.env");
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    return 0;
}

/* Split Lua's "policy.lua:12: text" into place and text. */
static void script_failed(struct hky_loader *l, const char *message)
{
    struct hky_place place = {"", 0};
    char stray[200];

    for (uint32_t i = 0; i < l->table->n_files; i++) {
        const char *name = l->table->files[i].name;
        size_t n = strlen(name);
        char *end;
        unsigned long line;
        if (strncmp(message, name, n) != 0 || message[n] != ':')
            continue;
        line = strtoul(message + n + 1, &end, 10);
        if (line == 0 || *end != ':')
            continue;
        place = (struct hky_place){name, (uint32_t)line};
        message = end + 1 + (end[1] == ' ');
        break;
    }
    if (place.line == 0)
        place.file = l->table->n_files > 0 ? l->table->files[0].name : "";
    if (strstr(message, "near '<\\") != NULL && hky_loader_stray_character(l, place, false, stray))
        message = stray;
    if (strcmp(message, "C stack overflow") == 0) /* an error of the compiler, which gives no line */
        message = "nested too deep: at most about 200 parentheses, tables or functions in one another";
    hky_loader_complain(l, place, false, "%s", message);
}

static int compile_body(lua_State *L)
{
    struct hky_loader *l = lua_touserdata(L, 1);

    hky_loader_compile_engine(l);
    hky_loader_compile_row_relays(l);
    hky_loader_compile_relays(l);
    hky_loader_compile_routes(l);
    hky_loader_compile_rules(l);
    return 0;
}

static void check_incomplete(struct hky_loader *l)
{
    for (size_t i = 0; i < l->n_incomplete; i++) {
        if (l->incomplete[i].is_done)
            continue;
        hky_loader_complain(l, l->incomplete[i].place, false, "%s \"%s\" has no braces: write %s \"%s\" { ... }",
                            l->incomplete[i].word, l->incomplete[i].name, l->incomplete[i].word, l->incomplete[i].name);
        hky_loader_lose(l, l->incomplete[i].name);
    }
}

static void check_mentions(struct hky_loader *l)
{
    for (size_t i = 0; i < l->n_mentions; i++) {
        const struct hky_mention *m = &l->mentions[i];
        const char *near = NULL;
        const char **names;
        size_t n = 0, at = 0;
        struct hky_map_entry *e;
        struct hky_map *known = &l->spec_by_name;
        char key[160], cure[240];
        snprintf(key, sizeof key, "matcher/%s", m->name);
        if (m->is_matcher ? hky_map_get(&l->table->fn_by_key, hky_str_z(key)) != NULL
                          : hky_map_get(known, hky_str_z(m->name)) != NULL)
            continue;
        if (hky_map_get(&l->lost, hky_str_z(m->name)) != NULL)
            continue;
        if (m->is_disabled && hky_map_get(&l->disabled, hky_str_z(m->name)) != NULL)
            continue;
        if (m->is_matcher)
            known = &l->table->fn_by_key;
        names = hky_calloc(known->n + 1, sizeof *names);
        while ((e = hky_map_next(known, &at)) != NULL)
            if (!m->is_matcher || strncmp(e->key, "matcher/", 8) == 0)
                names[n++] = m->is_matcher ? e->key + 8 : e->key;
        near = hky_nearest_in(hky_str_z(m->name), names, n);
        if (!m->is_matcher && hky_map_get(&l->splits, hky_str_z(m->name)) != NULL)
            snprintf(
                cure, sizeof cure,
                ": it is a split, which is not used by its name: write local x = split \"%.60s\" { ... } before the "
                "route, and x without quotes in via",
                m->name);
        else if (near != NULL)
            snprintf(cure, sizeof cure, ", did you mean \"%s\"?", near);
        else if (m->name[0] == '\0')
            snprintf(cure, sizeof cure, ": the name is empty");
        else if (m->is_matcher)
            snprintf(cure, sizeof cure, ": declare it with matcher(\"%s\", function(r) ... end)", m->name);
        else
            snprintf(cure, sizeof cure, ": declare it with relay \"%s\" { ... }", m->name);
        hky_loader_complain(l, hky_loader_place_of(l, m->place, m->name, false), false, "no %s \"%s\"%s",
                            m->is_matcher ? "matcher" : "relay", m->name, cure);
        free(names);
    }
}

static void loader_fini(struct hky_loader *l)
{
    free(l->decls);
    free(l->mentions);
    free(l->incomplete);
    hky_map_fini(&l->spec_by_name);
    hky_map_fini(&l->spec_by_account);
    hky_map_fini(&l->route_by_name);
    hky_map_fini(&l->splits);
    hky_map_fini(&l->lost);
    hky_map_fini(&l->authorities);
    hky_map_fini(&l->disabled);
}

static bool loader_run(struct hky_loader *l)
{
    struct hky_vm *vm = l->vm;
    struct hky_budget files = load_budget;

    if (l->instructions != 0)
        files.instructions = l->instructions;
    if (hky_vm_call(vm, &load_budget, environment_body, l, NULL) != HKY_VM_OK) {
        hky_loader_complain(l, (struct hky_place){"", 0}, false, "the shipped scripts: %s", vm->error);
        return false;
    }
    if (hky_vm_call(vm, &files, policy_body, l, NULL) != HKY_VM_OK) {
        script_failed(l, vm->error);
        return false;
    }
    return true;
}

static uint64_t policy_hash(const struct hky_route_table *t)
{
    uint64_t h = 0;

    for (uint32_t i = 0; i < t->n_files; i++) {
        h = hky_hash64(t->files[i].name, strlen(t->files[i].name), h);
        h = hky_hash64(t->files[i].text, t->files[i].n, h);
    }
    for (uint32_t i = 0; i < t->n_env; i++)
        if (t->env[i].value != NULL)
            h = hky_hash64(t->env[i].value, strlen(t->env[i].value),
                           hky_hash64(t->env[i].name, strlen(t->env[i].name), h));
    return h;
}

/* Make a policy and read its first file; false: that is a problem, which was reported. */
static bool policy_open(const struct hky_policy_load_params *params, struct hky_loader *l,
                        struct hky_problems *problems)
{
    struct hky_policy *p = hky_calloc(1, sizeof *p);
    char path[PATH_MAX], *slash;
    struct hky_error e = {0};

    p->refs = 1;
    p->table = hky_route_table_new();
    p->loaded_at_ms = params->now_ms;
    hky_map_init(&p->relay_by_name);
    *l = (struct hky_loader){.policy = p,
                             .table = p->table,
                             .problems = problems,
                             .environment = params->env,
                             .instructions = params->instructions,
                             .may_lack_routes = params->may_lack_routes};
    hky_map_init(&l->spec_by_name);
    hky_map_init(&l->spec_by_account);
    hky_map_init(&l->route_by_name);
    hky_map_init(&l->splits);
    hky_map_init(&l->lost);
    hky_map_init(&l->authorities);
    hky_map_init(&l->disabled);
    if (realpath(params->path, path) == NULL) {
        hky_loader_complain(l, (struct hky_place){params->path, 0}, false, "cannot read the policy: %s",
                            strerror(errno));
        return false;
    }
    p->path = hky_arena_z(&p->table->arena, path);
    slash = strrchr(path, '/');
    p->dir = slash == path ? "/" : hky_arena_str(&p->table->arena, hky_str_of(path, (size_t)(slash - path)));
    if (hky_loader_file(l, slash + 1, &e) == NULL) {
        hky_loader_complain(l, (struct hky_place){params->path, l->bad_line}, false, "%s", e.text);
        return false;
    }
    return true;
}

enum hky_err hky_policy_load(const struct hky_policy_load_params *params, struct hky_policy **out,
                             struct hky_problems *problems)
{
    struct hky_loader l;
    bool ok = policy_open(params, &l, problems);

    *out = NULL;
    if (ok) {
        l.vm = hky_vm_new_bare(LOAD_MEMORY);
        l.vm->loader = &l;
        l.vm->table = l.table;
        ok = loader_run(&l);
        if (ok) /* else a declaration that the error interrupted would be reported, too */
            check_incomplete(&l);
        if (ok && hky_vm_call(l.vm, &load_budget, compile_body, &l, NULL) != HKY_VM_OK)
            script_failed(&l, l.vm->error);
        if (ok)
            check_mentions(&l);
        hky_vm_free(&l.vm);
    }
    if (problems->n_errors == 0) {
        hky_route_table_index(l.table);
        hky_loader_check_reach(&l);
        hky_loader_check_losses(&l);
        l.policy->hash = policy_hash(l.table);
        *out = l.policy;
    } else {
        hky_policy_unref(&l.policy);
    }
    loader_fini(&l);
    return *out != NULL ? HKY_OK : HKY_E_CONFIG;
}

static int functions_body(lua_State *L)
{
    hky_loader_register_functions(lua_touserdata(L, 1));
    return 0;
}

enum hky_err hky_vm_new(struct hky_policy *policy, struct hky_vm **out, struct hky_error *e)
{
    struct hky_problems problems = {0};
    struct hky_loader l = {.policy = policy, .table = policy->table, .problems = &problems, .is_worker = true};
    struct hky_vm *vm = hky_vm_new_bare(LOAD_MEMORY);
    enum hky_err err = HKY_OK;

    *out = NULL;
    hky_map_init(&l.spec_by_name);
    hky_map_init(&l.spec_by_account);
    hky_map_init(&l.route_by_name);
    hky_map_init(&l.splits);
    hky_map_init(&l.lost);
    hky_map_init(&l.authorities);
    hky_map_init(&l.disabled);
    l.vm = vm;
    vm->table = policy->table;
    vm->policy = hky_policy_ref(policy);
    vm->n_fns = policy->table->n_fns;
    vm->fns = hky_calloc(vm->n_fns + 1, sizeof *vm->fns);
    for (uint32_t i = 0; i < vm->n_fns; i++)
        vm->fns[i].ref = LUA_NOREF;
    vm->loader = &l;
    if (loader_run(&l) && hky_vm_call(vm, &load_budget, functions_body, &l, NULL) != HKY_VM_OK)
        script_failed(&l, vm->error);
    vm->loader = NULL;
    for (uint32_t i = 0; i < vm->n_fns && problems.n_errors == 0; i++)
        if (vm->fns[i].ref == LUA_NOREF)
            hky_loader_complain(&l, policy->table->fns[i].place, false, "%s was there at load and is missing now",
                                policy->table->fns[i].what);
    vm->limit = policy->engine.bounds.lua_memory;
    if (problems.n_errors == 0 && vm->used > vm->limit)
        hky_loader_complain(&l, (struct hky_place){policy->table->files[0].name, 0}, false,
                            "the scripts need more than engine.bounds.lua_memory");
    if (problems.n_errors > 0) {
        struct hky_problem *p = &problems.items[0];
        err = hky_error_set(e, HKY_E_SCRIPT, "%.80s:%u: %.140s", p->place.file, p->place.line, p->text);
        hky_vm_free(&vm);
    }
    loader_fini(&l);
    if (vm != NULL)
        hky_arena_fini(&vm->temp);
    hky_problems_fini(&problems);
    *out = vm;
    return err;
}
