/* Compiles route { } and rows into the table of routes, and gives functions their slots. */
#include "route/load/loader.h"
#include "route/load/relay_spec.h"
#include "route/table/value.h"

#include <stdio.h>
#include <stdlib.h>

struct route_read {
    struct hky_loader *l;
    struct hky_place place;
    int body;
    char what[160];
    struct hky_route *out;
    struct hky_plan draft;
};

/* `at`: the field that holds the value, mostly the same as `key`. */
static void read_set_at(struct route_read *r, const char *at, const char *key, enum hky_match_of of,
                        struct hky_match *out)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, at);
    char what[200];

    if (type != LUA_TNIL && type != LUA_TBOOLEAN) {
        snprintf(what, sizeof what, "%s: %s", r->what, key);
        hky_loader_read_match(r->l, lua_gettop(L), what, hky_loader_place_of(r->l, r->place, key, true), of, out);
        if (out->is_empty && strcmp(key, "except") != 0)
            hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, key, true), false,
                                "%s: the list is empty, so that nobody matches it: name somebody, or disable the %s",
                                what, r->out->is_row ? "row" : "route");
    }
    lua_pop(L, 1);
}

static void read_set(struct route_read *r, const char *key, enum hky_match_of of, struct hky_match *out)
{
    read_set_at(r, key, key, of, out);
}

/* The number of values in the table on top, under whatever keys. */
static size_t n_values(lua_State *L)
{
    size_t n = 0;

    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        n++;
        lua_pop(L, 1);
    }
    return n;
}

/* Read a condition that is a list of names. An empty list is an error: it would not restrict the route, which would
 * then take mail that it was not meant for. */
static const char *const *read_strings(struct route_read *r, const char *key)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, key);
    const char *const *all = NULL;

    if (type == LUA_TSTRING || type == LUA_TTABLE)
        all = hky_loader_read_strings(r->l, lua_gettop(L));
    if (type == LUA_TTABLE && n_values(L) == 0)
        hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, key, true), false,
                            "%s: %s: the list is empty: name one, or leave the key out", r->what, key);
    else if (type == LUA_TTABLE && n_values(L) > lua_rawlen(L, -1))
        hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, key, true), false,
                            "%s: %s: the list has a hole: there is nil in it", r->what, key);
    lua_pop(L, 1);
    return all != NULL && all[0] != NULL ? all : NULL;
}

/* A field name, RFC 5322 2.2: printable ASCII without the colon. */
static bool is_field_name(const char *s)
{
    for (const char *c = s; *c != 0; c++)
        if (*c <= ' ' || *c > '~' || *c == ':')
            return false;
    return s[0] != 0;
}

static void read_headers(struct route_read *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_arena *arena = &r->l->table->arena;
    struct hky_header_condition *all;
    uint32_t n = 0;
    int table;

    if (hky_key_get(L, r->body, "header") != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    table = lua_gettop(L);
    all = hky_arena_alloc(arena, 16 * sizeof *all);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING || n == 16) {
            if (!hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED))
                hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, "header", true), false,
                                    "%s: write header = { [\"X-Foo\"] = \"glob*\" }, at most 16", r->what);
        } else if (!is_field_name(lua_tostring(L, -2))) {
            hky_loader_complain(
                r->l, hky_loader_place_of(r->l, r->place, "header", true), false,
                "%s: header: no field has the name \"%.60s\": write one such as [\"X-Foo\"], without the colon",
                r->what, lua_tostring(L, -2));
        } else {
            all[n++] = (struct hky_header_condition){hky_arena_z(arena, lua_tostring(L, -2)),
                                                     hky_arena_z(arena, lua_tostring(L, -1))};
        }
        lua_pop(L, 1);
    }
    r->out->headers = all;
    r->out->n_headers = n;
    lua_pop(L, 1);
}

static void function_place(lua_State *L, int index, struct hky_place *place)
{
    lua_Debug ar;

    lua_pushvalue(L, index);
    if (lua_getinfo(L, ">S", &ar) && ar.linedefined > 0)
        place->line = (uint32_t)ar.linedefined;
}

static void function_key(char out[200], const char *name, const char *what)
{
    snprintf(out, 200, "route/%s/%s", name, what);
}

static uint32_t function_number(struct route_read *r, int index, const char *what)
{
    char key[200], text[200];
    struct hky_place place = r->place;

    function_place(r->l->vm->L, index, &place);
    function_key(key, r->out->name, what);
    snprintf(text, sizeof text, "%s: %s", r->what, what);
    return hky_route_table_add_fn(r->l->table, key, text, place);
}

static void read_when(struct route_read *r)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, "when");
    char key[200];
    void *known;

    r->out->when = HKY_NO_FN;
    if (type == LUA_TFUNCTION) {
        r->out->when = function_number(r, lua_gettop(L), "when");
    } else if (type == LUA_TSTRING) {
        snprintf(key, sizeof key, "matcher/%.150s", lua_tostring(L, -1));
        known = hky_map_get(&r->l->table->fn_by_key, hky_str_z(key));
        if (known != NULL)
            r->out->when = (uint32_t)((uintptr_t)known - 1);
        else
            hky_loader_mention(r->l, true, lua_tostring(L, -1), r->place);
    }
    lua_pop(L, 1);
}

static void read_conditions(struct route_read *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_route *o = r->out;

    o->is_override = hky_key_get_bool(L, r->body, "override", false);
    o->priority = (int32_t)hky_key_get_int(L, r->body, "priority", 100);
    read_set(r, "to", HKY_MATCH_OF_ADDRESS, &o->to);
    read_set(r, "except", HKY_MATCH_OF_ADDRESS, &o->except);
    read_set(r, "sender", HKY_MATCH_OF_SENDER, &o->sender);
    read_set(r, "author", HKY_MATCH_OF_SENDER, &o->author);
    read_set_at(r, o->is_row ? HKY_ROW_MX : "mx", "mx", HKY_MATCH_OF_HOST, &o->mx);
    if (o->to.set == NULL) {
        int type = hky_key_get(L, r->body, "to");
        if (type == LUA_TNIL || (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)))
            hky_loader_complain(r->l, r->place, false, "%s: to is missing: write to = \"*\" for everyone", r->what);
        lua_pop(L, 1);
        o->to.set = hky_set_new();
    }
    o->scenarios = read_strings(r, "scenario");
    o->tags = read_strings(r, "tag");
    read_headers(r);
    read_when(r);
}

static void read_react(struct route_read *r)
{
    static const char *const actions[] = {"none", "retry", "next", "fail", "hold", "done"};
    lua_State *L = r->l->vm->L;
    struct hky_place place;
    int table;

    if (hky_key_get(L, r->body, "react") != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    place = hky_loader_place_of(r->l, r->place, "react", true);
    table = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        enum hky_class c = HKY_CLASS_N;
        struct hky_str text = {0}, wait = {0};
        uint32_t sec = 0;
        int action = -1;
        if (lua_type(L, -2) != LUA_TSTRING || !hky_class_parse(hky_str_z(lua_tostring(L, -2)), &c)) {
            const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
            char hint[HKY_CLASS_HINT];
            hky_loader_complain(r->l, place, false, "%s: react: no class \"%.60s\"%s", r->what, name,
                                hky_lua_class_hint(hky_str_z(name), false, hint, sizeof hint));
        } else if (lua_type(L, -1) == LUA_TSTRING) {
            text.p = lua_tolstring(L, -1, &text.n);
            if (text.n > 6 && memcmp(text.p, "retry ", 6) == 0) {
                wait = hky_str_trim(hky_str_of(text.p + 6, text.n - 6));
                text.n = 5;
                if (!hky_duration_parse(wait, &sec) || sec == 0)
                    text.n = 0;
            }
            for (int i = 1; i < 6; i++)
                if (hky_str_eq(text, hky_str_z(actions[i])))
                    action = i;
        }
        if (c < HKY_CLASS_N && action > 0) {
            r->draft.react[c] = (uint8_t)action;
            r->draft.react_after_sec[c] = sec;
        } else if (c < HKY_CLASS_N && !hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED)) {
            hky_loader_complain(
                r->l, place, false,
                "%s: react: write class = \"retry\", \"retry 30m\", \"next\", \"fail\", \"hold\" or \"done\"", r->what);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_draft(struct route_read *r)
{
    static const char *const ranks[] = {"urgent", "normal", "bulk"}, *const dsns[] = {"each", "digest", "none"};
    lua_State *L = r->l->vm->L;
    struct hky_plan *d = &r->draft;
    const char *s = hky_key_get_string(L, r->body, "rank", NULL);
    int type, found = 0;

    for (int i = 0; s != NULL && i < 3; i++)
        if (strcmp(s, ranks[i]) == 0) {
            d->rank = (enum hky_rank)i;
            d->has_rank = true;
        }
    if (s != NULL && !d->has_rank)
        hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, "rank", true), false,
                            "%s: rank must be urgent, normal or bulk, not \"%.60s\"", r->what, s);
    s = hky_key_get_string(L, r->body, "dsn", NULL);
    for (int i = 0; s != NULL && i < 3; i++)
        if (strcmp(s, dsns[i]) == 0) {
            d->dsn = (enum hky_dsn_mode)i;
            found = 1;
        }
    if (s != NULL && !found)
        hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, "dsn", true), false,
                            "%s: dsn must be each, digest or none, not \"%.60s\"", r->what, s);
    d->expire_sec = hky_key_get_duration(L, r->body, "expire", HKY_UNSET_SEC);
    if (hky_key_get(L, r->body, "retry") != LUA_TNIL)
        hky_lua_read_retry(L, lua_gettop(L), hky_loader_place_of(r->l, r->place, "retry", true), &d->retry);
    lua_pop(L, 1);
    type = hky_key_get(L, r->body, "from");
    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
        d->from = "";
    } else if (type == LUA_TSTRING) {
        if (hky_lua_push_mailbox(L, lua_gettop(L), "from", r->what,
                                 hky_loader_place_of(r->l, r->place, "from", true))) {
            d->from = hky_arena_z(&r->l->table->arena, lua_tostring(L, -1));
            lua_pop(L, 1);
        }
    } else if (type != LUA_TNIL && !hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED)) {
        hky_loader_complain(r->l, hky_loader_place_of(r->l, r->place, "from", true), false,
                            "%s: from must be an address, or false", r->what);
    }
    lua_pop(L, 1);
    s = hky_key_get_string(L, r->body, "envelope", NULL);
    if (s != NULL && hky_lua_check_envelope(L, s, r->what, hky_loader_place_of(r->l, r->place, "envelope", true)))
        d->envelope = hky_arena_z(&r->l->table->arena, s);
    if (hky_key_get(L, r->body, "reply_to") == LUA_TSTRING &&
        hky_lua_push_mailbox(L, lua_gettop(L), "reply_to", r->what,
                             hky_loader_place_of(r->l, r->place, "reply_to", true))) {
        d->reply_to = hky_arena_z(&r->l->table->arena, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    read_react(r);
}

static void read_via(struct route_read *r)
{
    lua_State *L = r->l->vm->L;
    int type = hky_key_get(L, r->body, "via"), via = lua_gettop(L);
    struct hky_place place = hky_loader_place_of(r->l, r->place, "via", true);
    struct hky_error e;

    if (type == LUA_TNIL || (type == LUA_TBOOLEAN && !lua_toboolean(L, via))) {
        hky_loader_complain(r->l, r->place, false,
                            "%s: via is missing: write a relay, a table of steps, split or function(r)", r->what);
    } else if (type == LUA_TFUNCTION) {
        struct hky_plan *draft = hky_arena_alloc(&r->l->table->arena, sizeof *draft);
        r->draft.is_from_function = true;
        *draft = r->draft;
        r->out->draft = draft;
        r->out->via = HKY_VIA_FUNCTION;
        r->out->via_fn = function_number(r, via, "via");
    } else if (hky_lua_is_kind(L, via, HKY_UD_SPLIT)) {
        r->out->via = HKY_VIA_SPLIT;
        r->out->split = hky_lua_read_split(L, &r->l->table->arena, via, &r->draft, place);
    } else if (hky_lua_read_plan(L, via, r->what, place, &r->draft)) {
        r->out->via = HKY_VIA_PLAN;
        if (hky_plan_new(&r->draft, &r->out->plan, &e) != HKY_OK)
            hky_loader_complain(r->l, place, false, "%s: %s", r->what, e.text);
    }
    lua_settop(L, via - 1);
}

/* Enter the name, which must be unique among routes and rows; false: it is taken. */
static struct hky_route *route_add(struct hky_loader *l, struct hky_map *by_name, const char *name,
                                   struct hky_place place, bool is_row)
{
    struct hky_route_table *t = l->table;
    struct hky_route *was = hky_map_get(by_name, hky_str_z(name)), *o;
    char what[160];

    if (was != NULL) {
        hky_loader_complain(l, place, false, "%s \"%s\" is declared twice, first at %s:%u", is_row ? "row" : "route",
                            name, was->place.file, was->place.line);
        return NULL;
    }
    o = hky_arena_alloc(&t->arena, sizeof *o);
    snprintf(what, sizeof what, "%s \"%.120s\"", is_row ? "row" : "route", name);
    *o = (struct hky_route){.name = hky_arena_z(&t->arena, name),
                            .what = hky_arena_z(&t->arena, what),
                            .place = place,
                            .is_row = is_row,
                            .written = t->n_routes,
                            .when = HKY_NO_FN,
                            .via_fn = HKY_NO_FN};
    if ((t->n_routes & (t->n_routes - 1)) == 0)
        t->routes = hky_realloc(t->routes, (t->n_routes == 0 ? 1 : t->n_routes * 2) * sizeof(struct hky_route *));
    t->routes[t->n_routes++] = o;
    hky_map_put(by_name, hky_str_z(name), o);
    return o;
}

static void draft_init(struct route_read *r)
{
    r->draft = (struct hky_plan){.route = r->out->name,
                                 .file = r->place.file,
                                 .line = r->place.line,
                                 .rank = HKY_RANK_NORMAL,
                                 .dsn = HKY_DSN_UNSET,
                                 .expire_sec = HKY_UNSET_SEC};
}

static void compile_route(struct hky_loader *l, struct hky_map *by_name, const struct hky_decl *d)
{
    static const struct hky_key *const keys[] = {hky_keys_route, NULL};
    lua_State *L = l->vm->L;
    struct route_read r = {.l = l, .place = d->place};

    luaL_checkstack(L, 40, NULL);
    if ((r.out = route_add(l, by_name, d->name, d->place, false)) == NULL)
        return;
    snprintf(r.what, sizeof r.what, "route \"%s\"", d->name);
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
    r.body = lua_gettop(L);
    draft_init(&r);
    hky_keys_check(L, r.body, keys, false, r.what, d->place);
    read_conditions(&r);
    read_draft(&r);
    read_via(&r);
    lua_settop(L, r.body - 1);
}

/* The account of a relay; own delivery has none, so there it is the relay's name. */
static const char *account_of(const struct hky_loader *l, const char *relay)
{
    const struct hky_relay *r = hky_policy_relay(l->policy, hky_str_z(relay));

    return r != NULL && !r->is_mx ? r->account : relay;
}

/* A row that is not enabled has no effect: its name is free for another row or route, whose functions are bound by that
 * name. */
static bool is_enabled(lua_State *L, int row)
{
    return hky_key_get_bool(L, row, "enabled", true);
}

static void compile_row(struct hky_loader *l, struct hky_map *by_name, int row, struct hky_place place)
{
    lua_State *L = l->vm->L;
    struct route_read r = {.l = l, .place = place, .body = row};
    const char *name = hky_key_get_string(L, row, "name", ""), *relay = hky_key_get_string(L, row, HKY_ROW_RELAY, NULL);
    struct hky_error e;

    if (relay == NULL || !is_enabled(L, row))
        return;
    if ((r.out = route_add(l, by_name, name, place, true)) == NULL)
        return;
    snprintf(r.what, sizeof r.what, "row \"%s\"", name);
    draft_init(&r);
    read_conditions(&r);
    r.out->via = HKY_VIA_ROW;
    r.out->is_stop = hky_key_get_bool(L, row, "stop", false);
    r.out->row_relay = hky_arena_z(&l->table->arena, relay);
    r.out->row_account = account_of(l, r.out->row_relay);
    r.draft.n_steps = 1;
    r.draft.steps[0] = (struct hky_step){
        .relay = r.out->row_relay, .account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
    if (hky_plan_new(&r.draft, &r.out->plan, &e) != HKY_OK)
        hky_loader_complain(l, place, false, "%s: %s", r.what, e.text);
}

static void compile_rows(struct hky_loader *l, struct hky_map *by_name, const struct hky_decl *d)
{
    lua_State *L = l->vm->L;
    struct hky_place from = d->place;
    int table;

    lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
    table = lua_gettop(L);
    for (lua_Integer i = 1; lua_rawgeti(L, table, i) != LUA_TNIL; i++) {
        int row = lua_gettop(L);
        if (lua_type(L, row) == LUA_TTABLE) {
            struct hky_place place = hky_loader_place_of(l, from, hky_key_get_string(L, row, "name", ""), false);
            compile_row(l, by_name, row, place);
            from = place;
        }
        lua_settop(L, table);
    }
    lua_settop(L, table - 1);
}

static void compile_matchers(struct hky_loader *l)
{
    lua_State *L = l->vm->L;
    char key[200], what[200];

    for (size_t i = 0; i < l->n_decls; i++) {
        const struct hky_decl *d = &l->decls[i];
        if (d->kind != HKY_DECL_MATCHER)
            continue;
        snprintf(key, sizeof key, "matcher/%s", d->name);
        snprintf(what, sizeof what, "matcher \"%s\"", d->name);
        if (hky_map_get(&l->table->fn_by_key, hky_str_z(key)) != NULL) {
            hky_loader_complain(l, d->place, false, "%s is declared twice", what);
            continue;
        }
        lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
        hky_route_table_add_fn(l->table, key, what, d->place);
        lua_pop(L, 1);
    }
}

void hky_loader_compile_routes(struct hky_loader *l)
{
    compile_matchers(l);
    for (size_t i = 0; i < l->n_decls; i++)
        if (l->decls[i].kind == HKY_DECL_ROUTE)
            compile_route(l, &l->route_by_name, &l->decls[i]);
        else if (l->decls[i].kind == HKY_DECL_ROWS)
            compile_rows(l, &l->route_by_name, &l->decls[i]);
    if (l->table->n_routes == 0 && l->problems->n_errors == 0 && !l->may_lack_routes)
        hky_loader_complain(
            l, (struct hky_place){l->table->files[0].name, 1}, false,
            "the policy has no route, so that all mail would wait and be returned in the end: write route "
            "\"rest\" { to = \"*\", via = \"%s\" }",
            l->n_specs > 0 ? l->specs[0].name : "RELAY");
}

/* --- in a worker: the functions of the same declarations --- */

static void register_one(struct hky_loader *l, const char *key, int index)
{
    lua_State *L = l->vm->L;
    void *known = hky_map_get(&l->table->fn_by_key, hky_str_z(key));

    if (known == NULL || lua_type(L, index) != LUA_TFUNCTION || l->vm->fns[(uintptr_t)known - 1].ref != LUA_NOREF)
        return;
    lua_pushvalue(L, index);
    l->vm->fns[(uintptr_t)known - 1].ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void register_fields(struct hky_loader *l, int body, const char *name)
{
    static const char *const fields[] = {"when", "via"};
    lua_State *L = l->vm->L;
    char key[200];

    for (size_t i = 0; i < 2; i++) {
        function_key(key, name, fields[i]);
        hky_key_get(L, body, fields[i]);
        register_one(l, key, lua_gettop(L));
        lua_pop(L, 1);
    }
}

void hky_loader_register_functions(struct hky_loader *l)
{
    lua_State *L = l->vm->L;
    char key[200];

    for (size_t i = 0; i < l->n_decls; i++) {
        const struct hky_decl *d = &l->decls[i];
        int body;
        lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
        body = lua_gettop(L);
        if (d->kind == HKY_DECL_MATCHER) {
            snprintf(key, sizeof key, "matcher/%s", d->name);
            register_one(l, key, body);
        } else if (d->kind == HKY_DECL_ROUTE) {
            register_fields(l, body, d->name);
        } else if (d->kind == HKY_DECL_ROWS && d->rows == NULL) {
            for (lua_Integer k = 1; lua_rawgeti(L, body, k) != LUA_TNIL; k++) {
                if (lua_type(L, -1) == LUA_TTABLE && is_enabled(L, lua_gettop(L)))
                    register_fields(l, lua_gettop(L), hky_key_get_string(L, lua_gettop(L), "name", ""));
                lua_pop(L, 1);
            }
        }
        lua_settop(L, body - 1);
        luaL_unref(L, LUA_REGISTRYINDEX, d->ref);
    }
}
