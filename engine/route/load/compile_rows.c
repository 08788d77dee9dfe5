/* Lists the relays of the policy: those of relay { }, and one for each account that rows state. */
#include "route/load/loader.h"
#include "route/load/relay_spec.h"
#include "route/table/value.h"

#include <stdio.h>
#include <stdlib.h>

static struct hky_relay_spec *spec_add(struct hky_loader *l, const char *name, struct hky_place place, int ref,
                                       bool is_row)
{
    struct hky_relay_spec *s;
    void *was = hky_map_get(&l->spec_by_name, hky_str_z(name));

    if (was != NULL) {
        s = &l->specs[(uintptr_t)was - 1];
        hky_loader_complain(l, place, false, "%s \"%s\" is declared twice, first at %s:%u", is_row ? "row" : "relay",
                            name, s->place.file, s->place.line);
        return NULL;
    }
    if ((l->n_specs & (l->n_specs - 1)) == 0) {
        size_t cap = l->n_specs == 0 ? 1 : l->n_specs * 2;
        struct hky_relay_spec *more = hky_arena_alloc(&l->table->arena, cap * sizeof *more);
        if (l->n_specs > 0)
            memcpy(more, l->specs, l->n_specs * sizeof *more);
        l->specs = more;
    }
    s = &l->specs[l->n_specs++];
    *s = (struct hky_relay_spec){hky_arena_z(&l->table->arena, name), place, ref, is_row, false};
    hky_map_put(&l->spec_by_name, hky_str_z(name), (void *)(uintptr_t)l->n_specs);
    return s;
}

/* The account that a table states, in lower case; "" when it is no account. */
static void account_of(lua_State *L, int body, char out[600])
{
    int top = lua_gettop(L);
    const char *preset = hky_key_get_string(L, body, "preset", NULL), *user = hky_key_get_string(L, body, "user", "");
    const char *host = hky_key_get_string(L, body, "host", "");
    char normal[256];
    int64_t port = hky_key_get_int(L, body, "port", 0);

    if (preset != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        if (hky_key_get(L, lua_gettop(L), preset) == LUA_TTABLE &&
            hky_key_get(L, lua_gettop(L), "values") == LUA_TTABLE) {
            int values = lua_gettop(L);
            if (user[0] == 0)
                user = hky_key_get_string(L, values, "user", "");
            if (host[0] == 0) {
                host = hky_key_get_string(L, values, "host", "");
                if (port == 0)
                    port = hky_key_get_int(L, values, "port", 0);
            }
        }
    }
    if (strncmp(host, "ssl://", 6) == 0) {
        host += 6;
        if (port == 0)
            port = 465;
    }
    out[0] = 0;
    if (host[0] != 0) {
        (void)hky_host_normalise(host, normal); /* another text is reported where the relay is compiled */
        snprintf(out, 600, "%.255s@%.253s:%lld", user, normal, (long long)(port == 0 ? 587 : port));
    }
    for (char *p = out; *p != 0; p++)
        *p = hky_lower(*p);
    lua_settop(L, top);
}

/* Equal as settings: strings, numbers, secrets of one name, lists of these. */
static bool is_same(lua_State *L, int a, int b, int depth)
{
    bool same = true;

    if (lua_rawequal(L, a, b))
        return true;
    if (hky_lua_is_kind(L, a, HKY_UD_SECRET) && hky_lua_is_kind(L, b, HKY_UD_SECRET))
        return strcmp(((struct hky_secret_ud *)lua_touserdata(L, a))->name,
                      ((struct hky_secret_ud *)lua_touserdata(L, b))->name) == 0;
    if (lua_type(L, a) != LUA_TTABLE || lua_type(L, b) != LUA_TTABLE || depth > 4)
        return false;
    luaL_checkstack(L, 8, NULL);
    for (int turn = 0; turn < 2 && same; turn++) {
        int one = turn == 0 ? a : b, other = turn == 0 ? b : a, top = lua_gettop(L);
        lua_pushnil(L);
        while (same && lua_next(L, one) != 0) {
            lua_pushvalue(L, -2);
            lua_rawget(L, other);
            same = is_same(L, lua_gettop(L) - 1, lua_gettop(L), depth + 1);
            lua_pop(L, 2);
        }
        lua_settop(L, top);
    }
    return same;
}

/* Somebody else may write the file of rows, so rows of a file reach only secrets of their own, run no command, and do
 * not weaken TLS or login of an account that the policy declares. */
static void check_row_of_file(struct hky_loader *l, int row, const char *name, struct hky_place place)
{
    static const char *const secrets[] = {"password", "client_secret", "refresh"};
    lua_State *L = l->vm->L;
    int top = lua_gettop(L);
    bool has_oauth = hky_key_get(L, row, "oauth") == LUA_TTABLE;

    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        int type = i == 0      ? hky_key_get(L, row, secrets[i])
                   : has_oauth ? hky_key_get(L, top + 1, secrets[i])
                               : LUA_TNIL;
        if (type != LUA_TNIL && !hky_lua_is_kind(L, lua_gettop(L), HKY_UD_SECRET)) {
            hky_loader_complain(l, hky_loader_place_of(l, place, secrets[i], true), false,
                                "row \"%s\": %s is { \"secret\": \"row-NAME\" } and nothing else", name, secrets[i]);
            lua_pushstring(L, secrets[i]); /* so that nobody reports it again */
            hky_lua_push_undefined(L);
            lua_rawset(L, i == 0 ? row : top + 1);
        }
    }
    if (has_oauth && hky_key_get(L, top + 1, "token_command") != LUA_TNIL)
        hky_loader_complain(l, hky_loader_place_of(l, place, "token_command", true), false,
                            "row \"%s\": token_command is for relays of the policy: rows of a file run nothing", name);
    lua_settop(L, top);
}

static bool is_security_key(const char *key)
{
    static const char *const keys[] = {"tls", "ca", "pin", "auth", "oauth", "password", "preset", "source"};
    bool is = false;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        is |= strcmp(key, keys[i]) == 0;
    return is;
}

/* Merge a second row of an account: a key that only one of the rows states holds for both. */
static void row_merge(struct hky_loader *l, const struct hky_relay_spec *s, int row, const char *name,
                      struct hky_place place, bool is_of_file)
{
    static const char *const by_account[] = {"host", "port", "user", "preset"};
    lua_State *L = l->vm->L;
    int body, top = lua_gettop(L);

    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref);
    body = lua_gettop(L);
    for (const struct hky_key *k = hky_keys_relay; k->name != NULL; k++) {
        bool is_key = false;
        for (size_t i = 0; i < sizeof by_account / sizeof by_account[0]; i++)
            is_key |= strcmp(k->name, by_account[i]) == 0;
        if (hky_key_get(L, row, k->name) != LUA_TNIL) {
            int mine = lua_gettop(L);
            if (hky_key_get(L, body, k->name) == LUA_TNIL) {
                if (is_of_file && is_security_key(k->name) && strcmp(s->place.file, place.file) != 0) {
                    hky_loader_complain(l, hky_loader_place_of(l, place, k->name, true), false,
                                        "row \"%s\": %s of this account can be written in \"%s\" (%s:%u) only", name,
                                        k->name, s->name, s->place.file, s->place.line);
                } else if (!is_key || strcmp(k->name, "preset") == 0) {
                    lua_pushstring(L, k->name);
                    lua_pushvalue(L, mine);
                    lua_rawset(L, body);
                }
            } else if (!is_key && !is_same(L, mine, mine + 1, 0)) {
                hky_loader_complain(l, hky_loader_place_of(l, place, k->name, true), false,
                                    "row \"%s\": %s differs from that of \"%s\" (%s:%u), which is the same account",
                                    name, k->name, s->name, s->place.file, s->place.line);
            }
        }
        lua_settop(L, body);
    }
    lua_settop(L, top);
}

static bool has_relay_keys(lua_State *L, int row)
{
    bool has = false;

    for (const struct hky_key *k = hky_keys_relay; k->name != NULL && !has; k++) {
        has = hky_key_get(L, row, k->name) != LUA_TNIL;
        lua_pop(L, 1);
    }
    return has;
}

/* mx = true means own delivery, mx = ".outlook.com" is a condition. */
static void part_mx(lua_State *L, int row)
{
    if (hky_key_get(L, row, "mx") != LUA_TNIL && lua_type(L, -1) != LUA_TBOOLEAN) {
        lua_pushstring(L, HKY_ROW_MX);
        lua_insert(L, -2);
        lua_rawset(L, row);
        lua_pushstring(L, "mx");
        lua_pushnil(L);
        lua_rawset(L, row);
        return;
    }
    lua_pop(L, 1);
}

static void row_relay(struct hky_loader *l, int row, const char *name, struct hky_place place, bool is_of_file)
{
    static const struct hky_key *const keys[] = {hky_keys_row, hky_keys_relay, NULL};
    lua_State *L = l->vm->L;
    const char *relay = NULL;
    char what[160], account[600];
    void *known;

    snprintf(what, sizeof what, "row \"%s\"", name);
    hky_keys_check(L, row, keys, false, what, place);
    if (hky_key_get_string(L, row, "name", NULL) == NULL)
        return; /* it was reported and removed, with the text at `name` */
    part_mx(L, row);
    relay = hky_key_get_string(L, row, "relay", NULL);
    if (relay != NULL) {
        hky_loader_mention(l, false, relay, place);
        l->mentions[l->n_mentions - 1].is_disabled = !hky_key_get_bool(L, row, "enabled", true);
        if (has_relay_keys(L, row))
            hky_loader_complain(l, place, false,
                                "%s: relay = \"%s\" has the settings of a server already: write one of them", what,
                                relay);
    } else if (!hky_key_get_bool(L, row, "enabled", true)) {
        hky_map_put(&l->disabled, hky_str_z(name), l);
        return;
    } else {
        account_of(L, row, account);
        known = account[0] != 0 ? hky_map_get(&l->spec_by_account, hky_str_z(account)) : NULL;
        if (known != NULL) {
            struct hky_relay_spec *s = &l->specs[(uintptr_t)known - 1];
            row_merge(l, s, row, name, place, is_of_file);
            relay = s->name;
        } else {
            struct hky_relay_spec *s;
            lua_pushvalue(L, row);
            s = spec_add(l, name, place, luaL_ref(L, LUA_REGISTRYINDEX), true);
            if (s != NULL)
                s->is_of_file = is_of_file;
            relay = name;
            if (s != NULL && account[0] != 0)
                hky_map_put(&l->spec_by_account, hky_str_z(account), (void *)(uintptr_t)l->n_specs);
        }
    }
    lua_pushstring(L, HKY_ROW_RELAY);
    lua_pushstring(L, relay);
    lua_rawset(L, row);
}

static int json_body(lua_State *L)
{
    const struct hky_file *f = lua_touserdata(L, 1);

    hky_lua_push_json(L, hky_str_of(f->text, f->n), true);
    return 1;
}

/* What to write where the text ends to be JSON; "" when the parser's words are enough. */
static const char *json_hint(struct hky_loader *l, struct hky_place place, const char *said, char out[200])
{
    static const struct {
        const char *end, *hint;
    } hints[] = {{"unexpected token near ']'", "the comma before it is one too many"},
                 {"expected near '}'", "the comma before it is one too many"},
                 {"near '''", "texts are written in double quotes, \"...\""},
                 {"near '/'", "JSON has no comments: a row may have a note"},
                 {"near '#'", "JSON has no comments: a row may have a note"},
                 {"invalid token near '0'", "a number does not begin with 0"}};
    size_t n = strlen(said);

    if (hky_loader_stray_character(l, place, true, out))
        return out;
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (n >= strlen(hints[i].end) && strcmp(said + n - strlen(hints[i].end), hints[i].end) == 0)
            return hints[i].hint;
    return "";
}

/* Push the rows of a file; an empty list when the file is no JSON, which was reported with its line. */
static void json_push(struct hky_loader *l, const struct hky_file *f)
{
    lua_State *L = l->vm->L;
    struct hky_place place = {f->name, 1};
    const char *text, *hint;
    int line = 0, used = 0;
    char room[200];

    lua_pushcfunction(L, json_body);
    lua_pushlightuserdata(L, (void *)f);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK)
        return;
    hky_vm_rethrow(L);
    text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "no memory";
    if (sscanf(text, "line %d: %n", &line, &used) == 1 && line > 0 && used > 0) {
        place.line = (uint32_t)line;
        text += used;
        hint = json_hint(l, place, text, room);
        hky_loader_complain(l, place, false, "rows \"%s\" is no JSON: %s%s%s", f->name, text, hint[0] != 0 ? "; " : "",
                            hint);
    } else {
        hky_loader_complain(l, place, false, "rows \"%s\": %s", f->name, text);
    }
    lua_pop(L, 1);
    lua_newtable(L);
}

/* Report a row without a usable name, and its other mistakes along with it. */
static void row_without_name(struct hky_loader *l, int row, int number, struct hky_place place)
{
    static const struct hky_key *const keys[] = {hky_keys_row, hky_keys_relay, NULL};
    lua_State *L = l->vm->L;
    bool is_there = lua_type(L, row) == LUA_TTABLE && hky_key_get(L, row, "name") != LUA_TNIL;
    char what[40];

    /* One that is empty, or no text, is reported with the keys. */
    if (!is_there || (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 120))
        hky_loader_complain(l, place, false, "rows: row %d needs a name of at most 120 characters", number);
    snprintf(what, sizeof what, "row %d", number);
    if (lua_type(l->vm->L, row) == LUA_TTABLE)
        hky_keys_check(l->vm->L, row, keys, false, what, place);
}

static void rows_read(struct hky_loader *l, struct hky_decl *d)
{
    lua_State *L = l->vm->L;
    struct hky_place from;
    lua_Integer n = 0;
    int table;

    if (d->rows != NULL) {
        struct hky_error e;
        const struct hky_file *f = hky_loader_file(l, d->rows, &e);
        d->place = (struct hky_place){f->name, 1};
        json_push(l, f);
        if (lua_type(L, -1) != LUA_TTABLE) {
            hky_loader_complain(l, d->place, false, "write a list of rows: [ { \"name\": ... } ]");
            lua_newtable(L);
        }
        lua_pushvalue(L, -1);
        d->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    } else {
        lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
    }
    table = lua_gettop(L);
    from = d->place;
    for (lua_Integer i = 1; lua_rawgeti(L, table, i) != LUA_TNIL; n = i++) {
        int row = lua_gettop(L);
        const char *name = lua_type(L, row) == LUA_TTABLE ? hky_key_get_string(L, row, "name", NULL) : NULL;
        if (name != NULL && name[0] != 0 && strlen(name) <= 120) {
            from = hky_loader_place_of(l, from, name, false);
            if (d->rows != NULL)
                check_row_of_file(l, row, name, from);
            row_relay(l, row, name, from, d->rows != NULL);
        } else if (!hky_lua_is_kind(L, row, HKY_UD_UNDEFINED)) {
            row_without_name(l, row, (int)i, d->place);
        }
        lua_settop(L, table);
    }
    lua_settop(L, table);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        if (lua_type(L, -2) != LUA_TNUMBER)
            hky_loader_complain(l, d->place, false, "rows: write a list of rows, { { name = ... }, { name = ... } }");
        else if (lua_tointeger(L, -2) > n || lua_tointeger(L, -2) < 1)
            hky_loader_complain(l, d->place, false, "rows: the list has a hole: there is nil before row %d",
                                (int)lua_tointeger(L, -2));
        lua_pop(L, 1);
    }
    lua_settop(L, table - 1);
}

void hky_loader_compile_row_relays(struct hky_loader *l)
{
    static const struct hky_key *const keys[] = {hky_keys_relay, NULL};
    lua_State *L = l->vm->L;

    for (size_t i = 0; i < l->n_decls; i++) {
        const struct hky_decl *d = &l->decls[i];
        char what[160], account[600];
        if (d->kind != HKY_DECL_RELAY)
            continue;
        snprintf(what, sizeof what, "relay \"%s\"", d->name);
        lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
        hky_keys_check(L, lua_gettop(L), keys, false, what, d->place);
        account_of(L, lua_gettop(L), account);
        if (spec_add(l, d->name, d->place, d->ref, false) != NULL && account[0] != 0 &&
            hky_map_get(&l->spec_by_account, hky_str_z(account)) == NULL)
            hky_map_put(&l->spec_by_account, hky_str_z(account), (void *)(uintptr_t)l->n_specs);
        lua_pop(L, 1);
    }
    for (size_t i = 0; i < l->n_decls; i++)
        if (l->decls[i].kind == HKY_DECL_ROWS)
            rows_read(l, &l->decls[i]);
}
