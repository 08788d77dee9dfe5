/* engine.listen: "addr:port", one listener, or a list of these. */
#include "base/endpoint.h"
#include "route/load/loader.h"
#include "route/table/value.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define LISTEN_MAX 64

/* `key` is the one that holds it: "addr", or "listen". */
static bool address(struct hky_loader *l, const char *s, const char *key, struct hky_listen *out)
{
    char host[256];

    if (!hky_endpoint_parse(hky_str_z(s), host, &out->port) || !hky_ip_is_valid(host)) {
        hky_loader_complain(l, hky_loader_place_of(l, out->place, key, true), false,
                            "listen: %swrite \"address:port\" such as \"127.0.0.1:2525\", not \"%.80s\"",
                            strcmp(key, "addr") == 0 ? "addr: " : "", s);
        return false;
    }
    out->addr = hky_arena_z(&l->table->arena, host);
    return true;
}

static const char *file(struct hky_loader *l, int body, const char *key)
{
    const char *s = hky_key_get_string(l->vm->L, body, key, "");
    char path[PATH_MAX * 2];

    if (s[0] == 0 || s[0] == '/')
        return hky_arena_z(&l->table->arena, s);
    snprintf(path, sizeof path, "%s/%s", l->policy->dir, s);
    return hky_arena_z(&l->table->arena, path);
}

static void read_allow(struct hky_loader *l, int body, struct hky_listen *out)
{
    lua_State *L = l->vm->L;
    int type = hky_key_get(L, body, "allow");
    const char *const *all =
        type == LUA_TTABLE || type == LUA_TSTRING ? hky_loader_read_strings(l, lua_gettop(L)) : NULL;
    struct hky_cidr *allow;
    size_t n = 0;

    lua_pop(L, 1);
    if (all == NULL)
        return;
    while (all[n] != NULL)
        n++;
    allow = hky_arena_alloc(&l->table->arena, (n + 1) * sizeof *allow);
    for (size_t i = 0; i < n; i++) {
        if (hky_cidr_parse(hky_str_z(all[i]), &allow[out->n_allow]))
            out->n_allow++;
        else
            hky_loader_complain(l, hky_loader_place_of(l, out->place, "allow", true), false,
                                "listen: allow: \"%.60s\" is no network such as \"10.0.0.0/8\"", all[i]);
    }
    out->allow = allow;
    out->has_allow = true;
}

static void read_user(struct hky_loader *l, int body, struct hky_place place, struct hky_user *out)
{
    static const struct hky_key *const keys[] = {hky_keys_user, NULL};
    lua_State *L = l->vm->L;
    size_t n_errors_before = l->problems->n_errors;
    char what[160];

    snprintf(what, sizeof what, "user \"%.100s\"", out->name);
    hky_keys_check(L, body, keys, false, what, place);
    hky_key_get(L, body, "password");
    out->password = hky_loader_read_secret(l, lua_gettop(L), "password", what, place);
    if (out->password.name == NULL && out->password.literal == NULL && l->problems->n_errors == n_errors_before)
        hky_loader_complain(l, place, false, "%s: the password is missing: write password = secret \"name\"", what);
    if (hky_key_get(L, body, "scenario") != LUA_TNIL)
        out->scenarios = hky_loader_read_strings(l, lua_gettop(L));
    if (hky_key_get(L, body, "sender") != LUA_TNIL) {
        out->senders = hky_loader_read_strings(l, lua_gettop(L));
        if (lua_type(L, -1) == LUA_TTABLE && lua_rawlen(L, lua_gettop(L)) == 0)
            hky_loader_complain(
                l, place, false,
                "%s: sender: the list is empty, so that the login could send as nobody: name somebody, or "
                "leave the key out",
                what);
        for (size_t i = 0; out->senders != NULL && out->senders[i] != NULL; i++) {
            struct hky_set_entry entry;
            struct hky_error e = {0};
            if (hky_set_entry_parse(hky_str_z(out->senders[i]), &entry, &e) != HKY_OK)
                hky_loader_complain(l, place, false, "%s: sender \"%.80s\": %s", what, out->senders[i], e.text);
        }
    }
}

/* Check the name of a login, which clients have to type the same way. */
static void check_name(struct hky_loader *l, const char *name, struct hky_place place)
{
    struct hky_foreign f = hky_foreign_find(hky_str_z(name), HKY_FOREIGN_EXACT);
    char text[HKY_FOREIGN_TEXT];

    if (hky_str_trim(hky_str_z(name)).n == 0)
        hky_loader_complain(l, place, false, "listen: users: a login without a name: write NAME = { password = ... }");
    if (f.kind != HKY_FOREIGN_NONE)
        hky_loader_complain(l, place, false, "user \"%.60s\": there %s", name,
                            hky_foreign_text(hky_str_z(name), &f, true, text));
}

static int name_order(const void *a, const void *b)
{
    return strcmp(((const struct hky_user *)a)->name, ((const struct hky_user *)b)->name);
}

static void read_users(struct hky_loader *l, int body, struct hky_listen *out)
{
    lua_State *L = l->vm->L;
    struct hky_user *users;
    size_t n = 0;
    int table;

    if (hky_key_get(L, body, "users") != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    table = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        n++;
        lua_pop(L, 1);
    }
    users = hky_arena_alloc(&l->table->arena, (n + 1) * sizeof *users);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        int item = lua_gettop(L);
        struct hky_place place = out->place;
        if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TTABLE) {
            struct hky_user *u = &users[out->n_users++];
            u->name = hky_arena_z(&l->table->arena, lua_tostring(L, -2));
            place = hky_loader_place_of(l, place, u->name, true);
            check_name(l, u->name, place);
            read_user(l, item, place, u);
        } else if (!hky_lua_is_kind(L, item, HKY_UD_UNDEFINED)) {
            hky_loader_complain(l, place, false, "listen: write users = { NAME = { password = secret \"name\" } }");
        }
        lua_settop(L, item - 1);
    }
    qsort(users, out->n_users, sizeof *users, name_order); /* Lua's tables have no order; this one is always the same */
    out->users = users;
    lua_pop(L, 1);
}

static void read_listener(struct hky_loader *l, int body, struct hky_listen *out)
{
    static const struct hky_key *const keys[] = {hky_keys_listen, NULL};
    lua_State *L = l->vm->L;
    size_t n_errors_before = l->problems->n_errors; /* a key that seems missing may be one with a mistake */
    const char *s;

    hky_keys_check(L, body, keys, false, "listen", out->place);
    s = hky_key_get_string(L, body, "addr", NULL);
    if (s != NULL)
        address(l, s, "addr", out);
    else if (l->problems->n_errors == n_errors_before)
        hky_loader_complain(l, out->place, false, "listen: the address is missing: write addr = \"address:port\"");
    out->cert = file(l, body, "cert");
    out->key = file(l, body, "key");
    s = hky_key_get_string(L, body, "tls", "");
    if (strcmp(s, "starttls") == 0)
        out->tls = HKY_LISTEN_STARTTLS;
    else if (strcmp(s, "implicit") == 0)
        out->tls = HKY_LISTEN_IMPLICIT;
    else if (s[0] != 0)
        hky_loader_complain(l, hky_loader_place_of(l, out->place, "tls", true), false,
                            "listen: tls must be starttls or implicit, not \"%.60s\"", s);
    if (out->tls != HKY_LISTEN_PLAIN && (out->cert[0] == 0 || out->key[0] == 0) &&
        l->problems->n_errors == n_errors_before)
        hky_loader_complain(l, out->place, false, "listen: for tls, write cert = \"file.pem\" and key = \"file.pem\"");
    if (out->tls == HKY_LISTEN_PLAIN && (out->cert[0] != 0 || out->key[0] != 0) &&
        l->problems->n_errors == n_errors_before)
        hky_loader_complain(
            l, hky_loader_place_of(l, out->place, out->cert[0] != 0 ? "cert" : "key", true), true,
            "listen: without tls the certificate is not used: write tls = \"starttls\" or \"implicit\"");
    read_users(l, body, out);
    read_allow(l, body, out);
}

static void read_one(struct hky_loader *l, int index, struct hky_place place, struct hky_listen *all, uint32_t *n)
{
    lua_State *L = l->vm->L;
    struct hky_listen *out = &all[*n];
    size_t n_errors_before = l->problems->n_errors;

    *out = (struct hky_listen){.place = place, .addr = "", .cert = "", .key = ""};
    if (lua_type(L, index) == LUA_TSTRING)
        address(l, lua_tostring(L, index), "listen", out);
    else if (lua_type(L, index) == LUA_TTABLE)
        read_listener(l, index, out);
    else {
        if (!hky_lua_is_kind(L, index, HKY_UD_UNDEFINED))
            hky_loader_complain(l, place, false, "listen: write \"address:port\" or { addr = \"address:port\", ... }");
        return;
    }
    (*n)++;
    if (out->addr[0] == 0 || hky_is_loopback(out->addr) || l->problems->n_errors > n_errors_before)
        return;
    if (out->n_users == 0 && !out->has_allow)
        hky_loader_complain(l, place, false,
                            "listen: other machines can reach %s: write users = { ... } or allow = { \"network\" }",
                            out->addr);
    if (out->n_users > 0 && out->tls == HKY_LISTEN_PLAIN)
        hky_loader_complain(l, place, out->has_allow,
                            "listen: nobody can log in at %s without TLS: write tls = \"starttls\", cert and key",
                            out->addr);
}

/* The line of one of several listeners: that of its address, from the line of the one before it. */
static struct hky_place listener_place(struct hky_loader *l, int index, struct hky_place before)
{
    lua_State *L = l->vm->L;
    const char *addr = lua_type(L, index) == LUA_TSTRING  ? lua_tostring(L, index)
                       : lua_type(L, index) == LUA_TTABLE ? hky_key_get_string(L, index, "addr", NULL)
                                                          : NULL;

    return addr != NULL && addr[0] != '\0' ? hky_loader_place_of(l, before, addr, false) : before;
}

void hky_loader_compile_listen(struct hky_loader *l, int index, struct hky_place place, struct hky_engine_options *o)
{
    lua_State *L = l->vm->L;
    lua_Unsigned n = lua_type(L, index) == LUA_TTABLE ? lua_rawlen(L, index) : 0;
    struct hky_listen *all;

    place = hky_loader_place_of(l, place, "listen", true);
    if (lua_type(L, index) == LUA_TBOOLEAN && !lua_toboolean(L, index))
        return;
    if (n > LISTEN_MAX) {
        hky_loader_complain(l, place, false, "listen: at most %d listeners", LISTEN_MAX);
        return;
    }
    all = hky_arena_alloc(&l->table->arena, (n + 1) * sizeof *all);
    if (n == 0)
        read_one(l, index, place, all, &o->n_listen);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        if (n > 1)
            place = listener_place(l, lua_gettop(L), place);
        read_one(l, lua_gettop(L), place, all, &o->n_listen);
        lua_pop(L, 1);
    }
    o->listen = all;
}
