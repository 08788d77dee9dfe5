/* The words of the policy language. While loading they collect declarations; step and split work in functions too. */
#include "route/load/loader.h"
#include "route/table/typed.h"

#include <stdio.h>
#include <stdlib.h>

enum word { W_RELAY, W_ROUTE, W_MATCHER, W_STEP, W_SPLIT, W_N };
static const struct {
    const char *name, *body;
} words[W_N] = {
    [W_RELAY] = {"relay", "{ }"}, [W_ROUTE] = {"route", "{ }"}, [W_MATCHER] = {"matcher", "function(r) end"},
    [W_STEP] = {"step", "{ }"},   [W_SPLIT] = {"split", "{ }"},
};
static const char *const later_words[] = {"limit",   "resend", "on",      "action", "map",  "memo", "http",
                                          "history", "dkim",   "webhook", "policy", "test", "pool", "bounces"};

struct incomplete_ud {
    enum word word;
    struct hky_place place;
    size_t index; /* in loader->incomplete */
};

static struct hky_loader *loader_of(lua_State *L, const char *word)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    if (l == NULL)
        luaL_error(L, "%s declares: it can be used while loading only, not in a function", word);
    return l;
}

static void decl_add(lua_State *L, enum hky_decl_kind kind, const char *name, int body, struct hky_place place,
                     const char *rows)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    if (l->n_decls >= HKY_DECLS_MAX)
        luaL_error(L, "more than %d declarations", (int)HKY_DECLS_MAX);
    if (l->n_decls == l->cap_decls) {
        l->cap_decls = l->cap_decls ? l->cap_decls * 2 : 32;
        l->decls = hky_realloc(l->decls, l->cap_decls * sizeof *l->decls);
    }
    lua_pushvalue(L, body);
    l->decls[l->n_decls++] =
        (struct hky_decl){kind, hky_arena_z(hky_loader_names(l), name), place, luaL_ref(L, LUA_REGISTRYINDEX), rows};
}

static int relay_handle(lua_State *L, const char *name)
{
    struct hky_relay_ud *r = lua_newuserdatauv(L, sizeof *r, 0);

    snprintf(r->name, sizeof r->name, "%s", name);
    luaL_setmetatable(L, HKY_UD_RELAY);
    return 1;
}

static bool is_name(struct hky_str s)
{
    return s.n > 0 && s.n <= HKY_NAME_MAX && hky_typed_fault(s) == NULL;
}

/* Warn of a name that looks like another one, because every place that refers to it must type it the same way. */
static void warn_of_name(lua_State *L, struct hky_str name, const char *what, struct hky_place place)
{
    struct hky_foreign f = hky_foreign_find(name, HKY_FOREIGN_NAME);
    char text[HKY_FOREIGN_TEXT];

    if (f.kind != HKY_FOREIGN_NONE)
        hky_loader_complain(hky_vm_of(L)->loader, place, true, "%s \"%.60s\": there %s, unless it is meant so", what,
                            name.p, hky_foreign_text(name, &f, true, text));
}

/* --- step --- */

/* from: an address, false, or not stated; the result is pushed (nil, "" for false, canonical). */
static void push_from(lua_State *L, int index, const char *key, const char *what, struct hky_place place)
{
    int type = hky_key_get(L, index, key);

    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "");
    } else if (type == LUA_TSTRING) {
        if (!hky_lua_push_mailbox(L, lua_gettop(L), key, what, place))
            lua_pushnil(L);
        lua_remove(L, -2);
    } else if (type != LUA_TNIL) {
        if (!hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED))
            hky_lua_problem(L, place, "%s: %s must be an address, or false", what, key);
        lua_pop(L, 1);
        lua_pushnil(L);
    }
}

static const char *text_keep(struct hky_step_ud *ud, size_t *at, const char *s)
{
    char *to = ud->text + *at;
    size_t n;

    if (s == NULL)
        return NULL;
    n = strlen(s) + 1;
    memcpy(to, s, n);
    *at += n;
    return to;
}

static size_t text_n(const char *s)
{
    return s != NULL ? strlen(s) + 1 : 0;
}

static int step_make(lua_State *L, int name_index, int body, struct hky_place place)
{
    static const struct hky_key *const keys[] = {hky_keys_step, NULL};
    struct hky_vm *vm = hky_vm_of(L);
    struct hky_step s = {.account = "", .within_sec = HKY_UNSET_SEC, .wait_sec = HKY_UNSET_SEC};
    struct hky_step_ud *ud;
    char what[160], hint[HKY_RELAY_HINT];
    size_t at = 0;

    s.relay = lua_tostring(L, name_index);
    snprintf(what, sizeof what, "step \"%s\"", s.relay);
    if (lua_type(L, body) != LUA_TTABLE) {
        hky_lua_problem(L, place, "%s: write step \"%s\" { ... }", what, s.relay);
        return hky_lua_push_undefined(L);
    }
    hky_keys_check(L, body, keys, false, what, place);
    if (vm->loader != NULL)
        hky_loader_mention(vm->loader, false, s.relay, place);
    else if (hky_policy_relay(vm->policy, hky_str_z(s.relay)) == NULL)
        hky_lua_problem(L, place, "no relay \"%s\"%s", s.relay, hky_lua_relay_hint(L, s.relay, hint));
    if (hky_key_get(L, body, "on") != LUA_TNIL)
        hky_lua_read_on(L, lua_gettop(L), place, &s.on);
    s.tries = (uint16_t)hky_key_get_int(L, body, "tries", 0);
    s.within_sec = hky_key_get_duration(L, body, "within", HKY_UNSET_SEC);
    s.wait_sec = hky_key_get_duration(L, body, "wait", HKY_UNSET_SEC);
    if (hky_key_get(L, body, "retry") != LUA_TNIL)
        hky_lua_read_retry(L, lua_gettop(L), place, &s.retry);
    push_from(L, body, "from", what, place);
    s.from = lua_tostring(L, -1);
    s.envelope = hky_key_get_string(L, body, "envelope", NULL);
    if (s.envelope != NULL && !hky_lua_check_envelope(L, s.envelope, what, place))
        s.envelope = NULL;
    if (hky_key_get(L, body, "reply_to") == LUA_TSTRING &&
        hky_lua_push_mailbox(L, lua_gettop(L), "reply_to", what, place))
        s.reply_to = lua_tostring(L, -1);
    at = text_n(s.relay) + text_n(s.from) + text_n(s.envelope) + text_n(s.reply_to);
    if (at > 2000)
        return luaL_error(L, "%s: texts too long", what);
    ud = lua_newuserdatauv(L, sizeof *ud + at, 0);
    ud->step = s;
    ud->place = place;
    ud->text_n = (uint32_t)at;
    at = 0;
    ud->step.relay = text_keep(ud, &at, s.relay);
    ud->step.from = text_keep(ud, &at, s.from);
    ud->step.envelope = text_keep(ud, &at, s.envelope);
    ud->step.reply_to = text_keep(ud, &at, s.reply_to);
    luaL_setmetatable(L, HKY_UD_STEP);
    return 1;
}

static int split_make(lua_State *L, int name, int body, struct hky_place place)
{
    struct hky_split_ud *ud;

    if (lua_type(L, body) != LUA_TTABLE) {
        hky_lua_problem(L, place, "split \"%s\": write split \"%s\" { ... }", lua_tostring(L, name),
                        lua_tostring(L, name));
        return hky_lua_push_undefined(L);
    }
    ud = lua_newuserdatauv(L, sizeof *ud, 1);
    ud->place = place;
    snprintf(ud->name, sizeof ud->name, "%s", lua_tostring(L, name));
    if (hky_vm_of(L)->loader != NULL && hky_vm_of(L)->loader->splits.n < HKY_DECLS_MAX)
        hky_map_put(&hky_vm_of(L)->loader->splits, hky_str_z(ud->name), hky_vm_of(L)->loader);
    lua_pushvalue(L, body);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, HKY_UD_SPLIT);
    return 1;
}

/* --- word "name" { }: the word gives an incomplete declaration, the call with the body completes it --- */

static int complete(lua_State *L, enum word word, int name, int body, struct hky_place place)
{
    const char *text = lua_tostring(L, name);

    if (word == W_STEP)
        return step_make(L, name, body, place);
    if (word == W_SPLIT)
        return split_make(L, name, body, place);
    if (hky_lua_is_kind(L, body, HKY_UD_UNDEFINED))
        return hky_lua_push_undefined(L);
    if (word == W_MATCHER ? lua_type(L, body) != LUA_TFUNCTION : lua_type(L, body) != LUA_TTABLE) {
        hky_lua_problem(L, place, "%s \"%s\": write %s \"%s\" %s, not %s", words[word].name, text, words[word].name,
                        text, words[word].body, hky_lua_kind_name(L, body));
        hky_loader_lose(hky_vm_of(L)->loader, text);
        return hky_lua_push_undefined(L);
    }
    decl_add(L,
             word == W_RELAY   ? HKY_DECL_RELAY
             : word == W_ROUTE ? HKY_DECL_ROUTE
                               : HKY_DECL_MATCHER,
             text, body, place, NULL);
    return word == W_RELAY ? relay_handle(L, text) : 0;
}

static int incomplete_call(lua_State *L)
{
    struct incomplete_ud *p = luaL_checkudata(L, 1, HKY_UD_INCOMPLETE);
    struct hky_loader *l = hky_vm_of(L)->loader;

    lua_settop(L, 2);
    if (l != NULL && p->index < l->n_incomplete)
        l->incomplete[p->index].is_done = true;
    lua_getiuservalue(L, 1, 1);
    return complete(L, p->word, 3, 2, p->place);
}

static void incomplete_add(lua_State *L, enum word word, const char *name, struct hky_place place, size_t *index)
{
    struct hky_loader *l = hky_vm_of(L)->loader;

    *index = SIZE_MAX;
    if (l == NULL)
        return;
    if (l->n_incomplete >= HKY_DECLS_MAX)
        luaL_error(L, "more than %d declarations", (int)HKY_DECLS_MAX);
    if (l->n_incomplete == l->cap_incomplete) {
        l->cap_incomplete = l->cap_incomplete ? l->cap_incomplete * 2 : 32;
        l->incomplete = hky_realloc(l->incomplete, l->cap_incomplete * sizeof *l->incomplete);
    }
    *index = l->n_incomplete;
    l->incomplete[l->n_incomplete++] =
        (struct hky_incomplete){words[word].name, hky_arena_z(hky_loader_names(l), name), place, false};
}

static int l_word(lua_State *L)
{
    enum word word = (enum word)lua_tointeger(L, lua_upvalueindex(1));
    struct hky_place place = hky_lua_place_here(L, 1);
    struct incomplete_ud *p;
    struct hky_str name;
    int n = lua_gettop(L);

    if (word < W_STEP)
        loader_of(L, words[word].name);
    lua_settop(L, 2);
    if (hky_lua_is_kind(L, 1, HKY_UD_UNDEFINED))
        return hky_lua_push_undefined(L);
    if (word == W_STEP && hky_lua_is_kind(L, 1, HKY_UD_RELAY)) {
        lua_pushstring(L, ((struct hky_relay_ud *)lua_touserdata(L, 1))->name);
        lua_replace(L, 1);
    }
    if (lua_type(L, 1) != LUA_TSTRING) {
        hky_lua_problem(L, place, "%s needs a name: write %s \"name\" %s", words[word].name, words[word].name,
                        words[word].body);
        return hky_lua_push_undefined(L);
    }
    name.p = lua_tolstring(L, 1, &name.n);
    if (!is_name(name)) {
        hky_lua_problem(L, place, "%s: a name has 1 to %d octets, all of them printable", words[word].name,
                        HKY_NAME_MAX);
        return hky_lua_push_undefined(L);
    }
    if (hky_lua_whole_string(L, 1, words[word].name, place) == NULL)
        return hky_lua_push_undefined(L);
    if (word < W_STEP)
        warn_of_name(L, name, words[word].name, place);
    if (n >= 2)
        return complete(L, word, 1, 2, place);
    p = lua_newuserdatauv(L, sizeof *p, 1);
    p->word = word;
    p->place = place;
    incomplete_add(L, word, name.p, place, &p->index);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, HKY_UD_INCOMPLETE);
    return 1;
}

static int l_engine(lua_State *L)
{
    struct hky_place place = hky_lua_place_here(L, 1);

    loader_of(L, "engine");
    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TTABLE) {
        hky_lua_problem(L, place, "write engine { hostname = ..., listen = ... }");
        return 0;
    }
    decl_add(L, HKY_DECL_ENGINE, "engine", 1, place, NULL);
    return 0;
}

static int l_rows(lua_State *L)
{
    struct hky_loader *l = loader_of(L, "rows");
    struct hky_place place = hky_lua_place_here(L, 1);
    const struct hky_file *f;
    struct hky_error e = {0};
    const char *name;

    lua_settop(L, 1);
    if (lua_type(L, 1) == LUA_TTABLE) {
        decl_add(L, HKY_DECL_ROWS, "rows", 1, place, NULL);
        return 0;
    }
    if (lua_type(L, 1) != LUA_TSTRING) {
        if (!hky_lua_is_kind(L, 1, HKY_UD_UNDEFINED))
            hky_lua_problem(L, place, "write rows { {...}, {...} } or rows \"file.json\"");
        return 0;
    }
    if ((name = hky_lua_whole_string(L, 1, "rows", place)) == NULL)
        return 0;
    if ((f = hky_loader_file(l, name, &e)) == NULL) {
        hky_lua_problem(L, place, "rows \"%s\": %s", name, e.text);
        return 0;
    }
    if (l->is_worker)
        return 0; /* rows of JSON hold no functions */
    lua_pushstring(L, name);
    decl_add(L, HKY_DECL_ROWS, name, 2, place, f->name);
    return 0;
}

/* --- secret, env, include, list, ramp --- */

static int l_secret(lua_State *L)
{
    static const struct hky_text_rule command_rule = {.use = HKY_FOREIGN_FREE, .may_have_lines = true};
    struct hky_place place = hky_lua_place_here(L, 1);
    struct hky_secret_ud *s;

    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING || hky_typed_fault(hky_str_of(lua_tostring(L, 1), lua_rawlen(L, 1))) != NULL ||
        !hky_secret_name_is_valid(lua_tostring(L, 1))) {
        hky_lua_problem(L, place, "secret needs a name of letters, digits and ._/- such as secret \"gmail\"");
        return hky_lua_push_undefined(L);
    }
    s = lua_newuserdatauv(L, sizeof *s, 1);
    *s = (struct hky_secret_ud){0};
    snprintf(s->name, sizeof s->name, "%s", lua_tostring(L, 1));
    luaL_setmetatable(L, HKY_UD_SECRET);
    if (lua_type(L, 2) == LUA_TTABLE) {
        int type = hky_key_get(L, 2, "command");
        lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
        struct hky_text_fault fault;
        bool ok = n >= 1 && n <= 32 && hky_texts_check(L, lua_gettop(L), &command_rule, &fault);
        for (lua_Unsigned i = 1; ok && i <= n; i++) {
            ok = lua_rawgeti(L, -1, (lua_Integer)i) == LUA_TSTRING;
            lua_pop(L, 1);
        }
        if (!ok) {
            hky_lua_problem(L, place, "secret: write { command = { \"program\", \"argument\" } }");
            return hky_lua_push_undefined(L);
        }
        s->n_command = (uint32_t)n;
        lua_setiuservalue(L, -2, 1);
    } else if (!lua_isnoneornil(L, 2)) {
        hky_lua_problem(L, place, "secret: write secret \"name\" or secret(\"name\", { command = { ... } })");
    }
    return 1;
}

static int l_env(lua_State *L)
{
    struct hky_loader *l = loader_of(L, "env");
    const char *name, *value;

    luaL_checkstring(L, 1);
    lua_settop(L, 2);
    if ((name = hky_lua_whole_string(L, 1, "env", hky_lua_place_here(L, 1))) == NULL)
        return hky_lua_push_undefined(L);
    if (strncmp(name, "HIKYAKU_SECRET_", 15) == 0)
        return luaL_error(L, "env cannot read secrets: write secret \"name\"");
    value = hky_loader_env(l, name);
    if (value == NULL)
        return 1; /* the default, or nil */
    lua_pushstring(L, value);
    return 1;
}

static int l_list(lua_State *L)
{
    struct hky_loader *l = loader_of(L, "list");
    struct hky_place place = hky_lua_place_here(L, 1);
    struct hky_error e = {0};
    struct hky_list *list;
    struct hky_set_ud *ud;
    const char *name;

    if (lua_type(L, 1) != LUA_TSTRING) {
        hky_lua_problem(L, place, "write list \"file.txt\"");
        return hky_lua_push_undefined(L);
    }
    if ((name = hky_lua_whole_string(L, 1, "list", place)) == NULL)
        return hky_lua_push_undefined(L);
    if ((list = hky_loader_list(l, name, &e)) == NULL) {
        hky_lua_problem(L, place, "list \"%s\": %s", name, e.text);
        return hky_lua_push_undefined(L);
    }
    ud = lua_newuserdatauv(L, sizeof *ud, 0);
    *ud = (struct hky_set_ud){.list = list};
    luaL_setmetatable(L, HKY_UD_SET);
    return 1;
}

static int l_include(lua_State *L)
{
    struct hky_loader *l = loader_of(L, "include");
    struct hky_place place = hky_lua_place_here(L, 1);
    struct hky_error e = {0};
    const char *name;
    const struct hky_file *f;

    luaL_checkstring(L, 1);
    if ((name = hky_lua_whole_string(L, 1, "include", place)) == NULL)
        return hky_lua_push_undefined(L);
    if ((f = hky_loader_file(l, name, &e)) == NULL) {
        hky_lua_problem(L, place, "include \"%s\": %s", name, e.text);
        return hky_lua_push_undefined(L);
    }
    lua_settop(L, 0);
    lua_pushstring(L, f->name);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.includes");
    lua_pushvalue(L, 1);
    if (lua_rawget(L, 2) != LUA_TNIL) { /* each file is run only once */
        if (lua_islightuserdata(L, -1))
            lua_pushnil(L);
        return 1;
    }
    lua_pop(L, 1);
    if (l->include_depth >= 20)
        return luaL_error(L, "includes are nested more than 20 deep");
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, l);
    lua_rawset(L, 2);
    lua_pushfstring(L, "@%s", f->name);
    if (luaL_loadbufferx(L, f->text, f->n, lua_tostring(L, -1), "t") != LUA_OK)
        return lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.env");
    lua_setupvalue(L, -2, 1);
    l->include_depth++;
    lua_call(L, 0, 1);
    l->include_depth--;
    if (!lua_isnil(L, -1)) {
        lua_pushvalue(L, 1);
        lua_pushvalue(L, -2);
        lua_rawset(L, 2);
    }
    return 1;
}

static int l_ramp(lua_State *L)
{
    static const struct hky_key ramp_keys[] = {{"start", HKY_KEY_STRING, 0, 0, ""}, {0}};
    static const struct hky_key *const keys[] = {ramp_keys, NULL};
    struct hky_place place = hky_lua_place_here(L, 1);
    struct hky_ramp_ud *ramp;
    struct hky_str start;
    int64_t day;
    int32_t sec;
    lua_Unsigned n;

    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TTABLE) {
        hky_lua_problem(L, place, "write ramp { start = \"2026-12-01\", 5, 10, 20 }");
        return hky_lua_push_undefined(L);
    }
    hky_keys_check(L, 1, keys, true, "ramp", place);
    ramp = lua_newuserdatauv(L, sizeof *ramp, 0);
    *ramp = (struct hky_ramp_ud){0};
    luaL_setmetatable(L, HKY_UD_RAMP);
    hky_key_get(L, 1, "start");
    start.p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &start.n) : NULL;
    n = lua_rawlen(L, 1);
    if (start.p != NULL && (start.n != 10 || !hky_zone_parse_date(start.p, start.n, &day, &sec))) {
        hky_lua_problem(L, place, "ramp: start must be a day such as \"2026-12-01\", not \"%.40s\"", start.p);
        return hky_lua_push_undefined(L);
    }
    if (start.p == NULL || n == 0 || n > HKY_RAMP_MAX) {
        hky_lua_problem(L, place, "ramp needs start = \"2026-12-01\" and 1 to %d shares", HKY_RAMP_MAX);
        return hky_lua_push_undefined(L);
    }
    lua_pop(L, 1);
    ramp->start = (int32_t)day;
    ramp->n = (uint16_t)n;
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_Number share;
        lua_rawgeti(L, 1, (lua_Integer)i);
        share = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
        if (!(share >= 0 && share <= 100)) {
            hky_lua_problem(L, place, "ramp: shares are per cent, 0 to 100, not %s", hky_lua_kind_name(L, -1));
            return hky_lua_push_undefined(L);
        }
        ramp->share[i - 1] = (float)share;
        lua_pop(L, 1);
    }
    return 1;
}

static int relays_index(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);
    char hint[HKY_RELAY_HINT];
    const char *name;

    luaL_checkstring(L, 2);
    if ((name = hky_lua_whole_string(L, 2, "relays", hky_lua_place_here(L, 1))) == NULL)
        return hky_lua_push_undefined(L);
    if (vm->loader != NULL)
        hky_loader_mention(vm->loader, false, name, hky_lua_place_here(L, 1));
    else if (hky_policy_relay(vm->policy, hky_str_z(name)) == NULL)
        return luaL_error(L, "no relay \"%s\"%s", name, hky_lua_relay_hint(L, name, hint));
    return relay_handle(L, name);
}

/* --- words of later versions --- */

static int later_use(lua_State *L)
{
    hky_lua_problem(L, hky_lua_place_here(L, 1), "%s is not available in this version",
                    lua_tostring(L, lua_upvalueindex(1)));
    return hky_lua_push_undefined(L);
}

static void later_open(lua_State *L, const char *name)
{
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 4);
    for (int i = 0; i < 3; i++) {
        static const char *const events[] = {"__call", "__index", "__newindex"};
        lua_pushstring(L, name);
        lua_pushcclosure(L, later_use, 1);
        lua_setfield(L, -2, events[i]);
    }
    hky_sandbox_lock(L, name);
    lua_setmetatable(L, -2);
}

static void classes_open(lua_State *L)
{
    static const char *const sets[] = {"ours", "theirs", "content", "temporary"};

    lua_newtable(L);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        uint64_t mask = 0;
        lua_Integer n = 0;
        hky_class_set_mask(hky_str_z(sets[i]), &mask);
        lua_newtable(L);
        for (int c = 0; c < HKY_CLASS_N; c++)
            if ((mask & HKY_CLASS_BIT(c)) != 0) {
                lua_pushstring(L, hky_class_name(c));
                lua_rawseti(L, -2, ++n);
            }
        lua_setfield(L, -2, sets[i]);
    }
    hky_sandbox_readonly(L, "classes", true);
}

void hky_loader_open_words(lua_State *L)
{
    static const luaL_Reg own[] = {{"engine", l_engine}, {"rows", l_rows},       {"secret", l_secret}, {"env", l_env},
                                   {"list", l_list},     {"include", l_include}, {"ramp", l_ramp},     {NULL, NULL}};

    luaL_setfuncs(L, own, 0);
    for (int w = 0; w < W_N; w++) {
        lua_pushinteger(L, w);
        lua_pushcclosure(L, l_word, 1);
        lua_setfield(L, -2, words[w].name);
    }
    for (size_t i = 0; i < sizeof later_words / sizeof later_words[0]; i++) {
        later_open(L, later_words[i]);
        lua_setfield(L, -2, later_words[i]);
    }
    luaL_newmetatable(L, HKY_UD_INCOMPLETE);
    lua_pushcfunction(L, incomplete_call);
    lua_setfield(L, -2, "__call");
    hky_sandbox_lock(L, HKY_UD_INCOMPLETE);
    lua_pop(L, 1);
    lua_newtable(L);
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, relays_index);
    lua_setfield(L, -2, "__index");
    hky_sandbox_lock(L, "relays");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "relays");
    classes_open(L);
    lua_setfield(L, -2, "classes");
}
