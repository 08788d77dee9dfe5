/* r and its parts, relays and sets as scripts see them: handles, valid in the call only, read lazily. */
#include "base/buf.h"
#include "base/hash.h"
#include "base/nearest.h"
#include "mail/address.h"
#include "mail/header.h"
#include "route/lua/decide.h"
#include "route/lua/collect.h"

#include <math.h>
#include <stdlib.h>

enum handle_kind { H_R, H_AUTHOR, H_TAGS, H_VARS, H_ARMS, H_ATTEMPTS, H_ATTEMPT, H_MESSAGE };
struct handle {
    enum handle_kind kind;
    uint32_t generation;
    uint32_t index;
};

static const struct handle *handle_of(lua_State *L)
{
    struct handle *h = lua_touserdata(L, 1);

    if (h == NULL || !hky_lua_is_kind(L, 1, HKY_UD_R))
        luaL_error(L, "use r:name(...), with a colon");
    if (hky_vm_of(L)->query == NULL || h->generation != hky_vm_of(L)->generation)
        luaL_error(L, "r is valid in the call only: this one belongs to an earlier call");
    return h;
}

static int handle_push(lua_State *L, enum handle_kind kind, uint32_t index)
{
    struct handle *h = lua_newuserdatauv(L, sizeof *h, 0);

    *h = (struct handle){kind, hky_vm_of(L)->generation, index};
    luaL_setmetatable(L, HKY_UD_R);
    return 1;
}

void hky_lua_push_r(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);

    if (vm->r_ref != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, vm->r_ref);
        if (((struct handle *)lua_touserdata(L, -1))->generation == vm->generation)
            return;
        lua_pop(L, 1);
    }
    handle_push(L, H_R, 0);
    lua_pushvalue(L, -1);
    if (vm->r_ref == LUA_NOREF)
        vm->r_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    else
        lua_rawseti(L, LUA_REGISTRYINDEX, vm->r_ref);
}

static int str_push(lua_State *L, struct hky_str s)
{
    lua_pushlstring(L, s.n > 0 ? s.p : "", s.n);
    return 1;
}

static int fact_push(lua_State *L, enum hky_fact f)
{
    return str_push(L, hky_message_fact(hky_vm_of(L)->query->message, f));
}

static int domain_push(lua_State *L, struct hky_str address)
{
    const char *at = memrchr(address.p, '@', address.n);

    if (at == NULL)
        return str_push(L, HKY_STR(""));
    return str_push(L, hky_str_of(at + 1, address.n - (size_t)(at - address.p) - 1));
}

static int localpart_push(lua_State *L, struct hky_str address)
{
    const char *at = memrchr(address.p, '@', address.n);

    return str_push(L, at != NULL ? hky_str_of(address.p, (size_t)(at - address.p)) : address);
}

static int r_hash(lua_State *L)
{
    struct hky_vm *vm = hky_vm_of(L);
    struct hky_str salt;

    handle_of(L);
    salt.p = luaL_optlstring(L, 2, "", &salt.n);
    lua_pushnumber(L, hky_split_hash(salt, hky_str_of(vm->key.text, vm->key.n)));
    return 1;
}

/* --- headers --- */

static int headers_of(lua_State *L, bool all)
{
    struct hky_vm *vm = hky_vm_of(L);
    const struct handle *h = handle_of(L);
    struct hky_str name, section;
    struct hky_field f;
    size_t at = 0;
    lua_Integer n = 0;

    luaL_argcheck(L, h->kind == H_MESSAGE, 1, "use r.message:header(name)");
    name.p = luaL_checklstring(L, 2, &name.n);
    if (all)
        lua_newtable(L);
    section = hky_asking_header(vm);
    hky_vm_charge(L, section.n / 32);
    while (section.p != NULL && hky_field_next(section, &at, &f)) {
        if (!hky_str_ieq(f.name, name) || n >= 100)
            continue;
        hky_buf_clear(&vm->scratch); /* the vm's: nothing leaks when Lua has no memory for the string */
        hky_field_decode(f.value, &vm->scratch);
        str_push(L, hky_buf_str(&vm->scratch));
        n++;
        if (!all)
            return 1;
        lua_rawseti(L, -2, n);
    }
    if (!all)
        lua_pushnil(L);
    return 1;
}

static int message_header(lua_State *L)
{
    return headers_of(L, false);
}

static int message_headers(lua_State *L)
{
    return headers_of(L, true);
}

/* --- fields --- */

enum field {
    F_ADDRESS = 1,
    F_LOCALPART,
    F_DOMAIN,
    F_SENDER,
    F_AUTHOR,
    F_SCENARIO,
    F_TAGS,
    F_VARS,
    F_USER,
    F_CLIENT,
    F_SOURCE,
    F_DEADLINE,
    F_NOW,
    F_ARMS,
    F_ATTEMPTS,
    F_MESSAGE,
    F_HASH,
    F_NAME,
    F_ID,
    F_SIZE,
    F_SUBJECT,
    F_HEADER,
    F_HEADERS,
    F_RELAY,
    F_STEP,
    F_CLASS,
    F_SCOPE,
    F_STAGE,
    F_CODE,
    F_ENHANCED,
    F_TEXT,
    F_TEMPORARY,
    F_RETRY_AFTER,
    F_AT,
    F_LATENCY,
    F_ACCOUNT,
    F_COPY,
    F_DEFAULT
};
static const struct {
    const char *name;
    enum field field;
    unsigned kinds; /* bits of handle_kind */
} fields[] = {
    {"address", F_ADDRESS, 1 << H_R | 1 << H_AUTHOR},
    {"localpart", F_LOCALPART, 1 << H_R},
    {"domain", F_DOMAIN, 1 << H_R | 1 << H_AUTHOR},
    {"sender", F_SENDER, 1 << H_R},
    {"author", F_AUTHOR, 1 << H_R},
    {"scenario", F_SCENARIO, 1 << H_R},
    {"tags", F_TAGS, 1 << H_R},
    {"vars", F_VARS, 1 << H_R},
    {"user", F_USER, 1 << H_R},
    {"client", F_CLIENT, 1 << H_R},
    {"source", F_SOURCE, 1 << H_R},
    {"deadline", F_DEADLINE, 1 << H_R},
    {"now", F_NOW, 1 << H_R},
    {"arms", F_ARMS, 1 << H_R},
    {"attempts", F_ATTEMPTS, 1 << H_R},
    {"message", F_MESSAGE, 1 << H_R},
    {"hash", F_HASH, 1 << H_R},
    {"name", F_NAME, 1 << H_AUTHOR},
    {"id", F_ID, 1 << H_MESSAGE},
    {"size", F_SIZE, 1 << H_MESSAGE},
    {"subject", F_SUBJECT, 1 << H_MESSAGE},
    {"header", F_HEADER, 1 << H_MESSAGE},
    {"headers", F_HEADERS, 1 << H_MESSAGE},
    {"relay", F_RELAY, 1 << H_ATTEMPT},
    {"account", F_ACCOUNT, 1 << H_ATTEMPT},
    {"step", F_STEP, 1 << H_ATTEMPT},
    {"copy", F_COPY, 1 << H_ATTEMPT},
    {"class", F_CLASS, 1 << H_ATTEMPT},
    {"scope", F_SCOPE, 1 << H_ATTEMPT},
    {"stage", F_STAGE, 1 << H_ATTEMPT},
    {"code", F_CODE, 1 << H_ATTEMPT},
    {"enhanced", F_ENHANCED, 1 << H_ATTEMPT},
    {"text", F_TEXT, 1 << H_ATTEMPT},
    {"temporary", F_TEMPORARY, 1 << H_ATTEMPT},
    {"retry_after", F_RETRY_AFTER, 1 << H_ATTEMPT},
    {"at", F_AT, 1 << H_ATTEMPT},
    {"latency", F_LATENCY, 1 << H_ATTEMPT},
    {"default", F_DEFAULT, 1 << H_ATTEMPT},
};

static int r_field(lua_State *L, enum field f)
{
    struct hky_vm *vm = hky_vm_of(L);
    const struct hky_route_query *q = vm->query;

    switch (f) {
    case F_ADDRESS:
        return str_push(L, hky_recipient_address(q->recipient));
    case F_LOCALPART:
        return localpart_push(L, hky_recipient_address(q->recipient));
    case F_DOMAIN:
        return str_push(L, hky_recipient_domain(q->recipient));
    case F_SENDER:
        return fact_push(L, HKY_FACT_SENDER);
    case F_AUTHOR:
        return handle_push(L, H_AUTHOR, 0);
    case F_SCENARIO:
        if (hky_message_fact(q->message, HKY_FACT_SCENARIO).n == 0)
            return 0;
        return fact_push(L, HKY_FACT_SCENARIO);
    case F_TAGS:
        return handle_push(L, H_TAGS, 0);
    case F_VARS:
        return handle_push(L, H_VARS, 0);
    case F_USER:
        return fact_push(L, HKY_FACT_USER);
    case F_CLIENT:
        return fact_push(L, HKY_FACT_CLIENT);
    case F_SOURCE:
        return fact_push(L, HKY_FACT_SOURCE);
    case F_DEADLINE:
        if (q->message->deadline_ms == 0)
            return 0;
        lua_pushinteger(L, q->message->deadline_ms / 1000);
        return 1;
    case F_NOW:
        lua_pushinteger(L, q->now_ms / 1000);
        return 1;
    case F_ARMS:
        return handle_push(L, H_ARMS, 0);
    case F_ATTEMPTS:
        return handle_push(L, H_ATTEMPTS, 0);
    case F_MESSAGE:
        return handle_push(L, H_MESSAGE, 0);
    case F_HASH:
        lua_pushcfunction(L, r_hash);
        return 1;
    default:
        return 0;
    }
}

static int message_field(lua_State *L, enum field f)
{
    const struct hky_message *m = hky_vm_of(L)->query->message;
    char id[HKY_ID_TEXT];

    switch (f) {
    case F_ID:
        hky_id_format(m->id, id);
        lua_pushstring(L, id);
        return 1;
    case F_SIZE:
        lua_pushinteger(L, (lua_Integer)m->size);
        return 1;
    case F_SUBJECT:
        return fact_push(L, HKY_FACT_SUBJECT);
    case F_HEADER:
        lua_pushcfunction(L, message_header);
        return 1;
    case F_HEADERS:
        lua_pushcfunction(L, message_headers);
        return 1;
    default:
        return 0;
    }
}

static int attempt_field(lua_State *L, const struct handle *h, enum field f)
{
    const struct hky_relay *relay;
    struct hky_past p;

    hky_recipient_past(hky_vm_of(L)->query->recipient, h->index, &p);
    switch (f) {
    case F_RELAY:
        return str_push(L, p.relay);
    case F_ACCOUNT: /* the account that the relay of that name has now; a relay that no longer exists has none */
        relay = hky_policy_relay(hky_vm_of(L)->policy, p.relay);
        if (relay == NULL)
            return 0;
        lua_pushstring(L, relay->account);
        return 1;
    case F_COPY:
        lua_pushinteger(L, 1);
        return 1;
    case F_DEFAULT: /* only the attempt that on.result is called for has one, not attempts of the past */
        return 0;
    case F_STEP:
        lua_pushinteger(L, p.step + 1);
        return 1;
    case F_CLASS:
        lua_pushstring(L, hky_class_name(p.class));
        return 1;
    case F_SCOPE:
        lua_pushstring(L, hky_scope_name(p.scope));
        return 1;
    case F_STAGE:
        lua_pushstring(L, hky_stage_name(p.stage));
        return 1;
    case F_CODE:
        lua_pushinteger(L, p.code);
        return 1;
    case F_ENHANCED:
        if (p.enhanced[0] == 0)
            return 0;
        lua_pushfstring(L, "%d.%d.%d", p.enhanced[0], p.enhanced[1], p.enhanced_detail);
        return 1;
    case F_TEXT:
        return str_push(L, p.reply);
    case F_TEMPORARY:
        lua_pushboolean(L, p.is_temporary);
        return 1;
    case F_RETRY_AFTER:
        lua_pushinteger(L, p.retry_after_sec);
        return 1;
    case F_AT:
        lua_pushinteger(L, p.at_ms / 1000);
        return 1;
    case F_LATENCY:
        lua_pushinteger(L, p.latency_ms);
        return 1;
    default:
        return 0;
    }
}

static int pair_value(lua_State *L, struct hky_str packed, struct hky_str name)
{
    size_t at = 0;
    struct hky_str key, value;

    while (hky_packed_next(packed, &at, &key) && hky_packed_next(packed, &at, &value))
        if (hky_str_eq(key, name))
            return str_push(L, value);
    return 0;
}

static struct hky_str packed_of(lua_State *L, enum handle_kind kind)
{
    const struct hky_route_query *q = hky_vm_of(L)->query;

    if (kind == H_ARMS)
        return hky_str_of(q->recipient->arms, q->recipient->arms_n);
    return hky_message_fact(q->message, kind == H_TAGS ? HKY_FACT_TAGS : HKY_FACT_VARS);
}

static int attempts_item(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, 2);

    if (lua_type(L, 2) != LUA_TNUMBER || i < 1 || i > (lua_Integer)hky_recipient_n_past(hky_vm_of(L)->query->recipient))
        return 0;
    return handle_push(L, H_ATTEMPT, (uint32_t)i - 1);
}

/* Upvalue: name -> index into fields + 1. */
static int handle_index(lua_State *L)
{
    const struct handle *h = handle_of(L);
    struct hky_str name = {0};
    const char *near, *names[sizeof fields / sizeof fields[0]];
    size_t i, n = 0;

    if (h->kind == H_ATTEMPTS)
        return attempts_item(L);
    if (lua_type(L, 2) != LUA_TSTRING)
        return 0;
    name.p = lua_tolstring(L, 2, &name.n);
    if (h->kind == H_TAGS) {
        if (!hky_message_has_tag(hky_vm_of(L)->query->message, name))
            return 0;
        lua_pushboolean(L, true);
        return 1;
    }
    if (h->kind == H_VARS || h->kind == H_ARMS)
        return pair_value(L, packed_of(L, h->kind), name);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    i = (size_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (i > 0 && (fields[i - 1].kinds & 1u << h->kind) != 0) {
        switch (h->kind) {
        case H_R:
            return r_field(L, fields[i - 1].field);
        case H_MESSAGE:
            return message_field(L, fields[i - 1].field);
        case H_ATTEMPT:
            return attempt_field(L, h, fields[i - 1].field);
        default:
            if (fields[i - 1].field == F_NAME)
                return fact_push(L, HKY_FACT_AUTHOR_NAME);
            if (fields[i - 1].field == F_DOMAIN)
                return domain_push(L, hky_message_fact(hky_vm_of(L)->query->message, HKY_FACT_AUTHOR));
            return fact_push(L, HKY_FACT_AUTHOR);
        }
    }
    for (i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if ((fields[i].kinds & 1u << h->kind) != 0)
            names[n++] = fields[i].name;
    near = hky_nearest_in(name, names, n);
    if (near != NULL)
        return luaL_error(L, "there is no \"%s\" here, did you mean \"%s\"?", name.p, near);
    return luaL_error(L, "there is no \"%s\" here", name.p);
}

static int handle_newindex(lua_State *L)
{
    return luaL_error(L, "r is read-only");
}

static int handle_len(lua_State *L)
{
    const struct handle *h = handle_of(L);

    luaL_argcheck(L, h->kind == H_ATTEMPTS, 1, "has no length");
    lua_pushinteger(L, hky_recipient_n_past(hky_vm_of(L)->query->recipient));
    return 1;
}

/* Upvalues: the handle, offset. Gives names and values in order, whatever the script reads in between. */
static int handle_next(lua_State *L)
{
    const struct handle *h;
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    struct hky_str key, value, packed;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    h = handle_of(L);
    packed = packed_of(L, h->kind);
    if (!hky_packed_next(packed, &at, &key))
        return 0;
    if (h->kind != H_TAGS && !hky_packed_next(packed, &at, &value))
        return 0;
    lua_pushinteger(L, (lua_Integer)at);
    lua_replace(L, lua_upvalueindex(2));
    str_push(L, key);
    if (h->kind == H_TAGS)
        lua_pushboolean(L, true);
    else
        str_push(L, value);
    return 2;
}

static int handle_pairs(lua_State *L)
{
    const struct handle *h = handle_of(L);

    luaL_argcheck(L, h->kind == H_TAGS || h->kind == H_VARS || h->kind == H_ARMS, 1, "only tags, vars and arms");
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, handle_next, 2);
    return 1;
}

/* --- relays, sets, secrets --- */

/* relays.own is a new handle each time it is named. */
static int relay_eq(lua_State *L)
{
    const struct hky_relay_ud *a = luaL_testudata(L, 1, HKY_UD_RELAY), *b = luaL_testudata(L, 2, HKY_UD_RELAY);

    lua_pushboolean(L, a != NULL && b != NULL && strcmp(a->name, b->name) == 0);
    return 1;
}

static int relay_index(lua_State *L)
{
    static const char *const later[] = {"usable", "remaining", "eta", "stats"};
    struct hky_relay_ud *r = lua_touserdata(L, 1);
    const char *name = luaL_checkstring(L, 2);

    if (strcmp(name, "name") == 0) {
        lua_pushstring(L, r->name);
        return 1;
    }
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        if (strcmp(name, later[i]) == 0) {
            hky_lua_problem(L, hky_lua_place_here(L, 1), "relay:%s() is not available in this version", name);
            if (hky_vm_of(L)->loader == NULL)
                return 0;
            return hky_lua_push_undefined(L);
        }
    return luaL_error(L, "a relay has no \"%s\"", name);
}

static int set_has(lua_State *L)
{
    struct hky_set_ud *s = luaL_checkudata(L, 1, HKY_UD_SET);
    struct hky_str text;
    struct hky_match_key k;
    struct hky_address address;
    char with[1 + HKY_DOMAIN_MAX + 1] = "@";

    text.p = luaL_checklstring(L, 2, &text.n);
    hky_vm_charge(L, 1 + text.n / 16);
    if (memchr(text.p, '@', text.n) != NULL && hky_mailbox_parse(text, &address, NULL) == HKY_OK)
        hky_match_key_init(&k, hky_address_str(&address));
    else if (text.n > 0 && hky_domain_normalise(text, with + 1, NULL) == HKY_OK)
        hky_match_key_init(&k, hky_str_z(with));
    else
        hky_match_key_init(&k, text); /* not an address: as it is */
    lua_pushboolean(L, s->list != NULL ? hky_list_has(s->list, &k) : hky_set_has(s->set, &k));
    return 1;
}

static int set_index(lua_State *L)
{
    if (strcmp(luaL_checkstring(L, 2), "has") != 0)
        return luaL_error(L, "a set has only set:has(address)");
    lua_pushcfunction(L, set_has);
    return 1;
}

static int opaque_index(lua_State *L)
{
    return luaL_error(L, "%s", lua_tostring(L, lua_upvalueindex(1)));
}

static void opaque_open(lua_State *L, const char *kind, const char *message)
{
    static const char *const events[] = {"__index", "__newindex", "__concat", "__len",
                                         "__lt",    "__le",       "__call",   "__eq"};

    luaL_newmetatable(L, kind);
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        lua_pushstring(L, message);
        lua_pushcclosure(L, opaque_index, 1);
        lua_setfield(L, -2, events[i]);
    }
    hky_sandbox_lock(L, kind);
    lua_pop(L, 1);
}

void hky_lua_open_handles(lua_State *L)
{
    luaL_newmetatable(L, HKY_UD_R);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        lua_pushinteger(L, (lua_Integer)i + 1);
        lua_setfield(L, -2, fields[i].name);
    }
    lua_pushcclosure(L, handle_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, handle_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, handle_len);
    lua_setfield(L, -2, "__len");
    lua_pushcfunction(L, handle_pairs);
    lua_setfield(L, -2, "__pairs");
    hky_sandbox_lock(L, HKY_UD_R);
    lua_pop(L, 1);
    luaL_newmetatable(L, HKY_UD_RELAY);
    lua_pushcfunction(L, relay_index);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, relay_eq);
    lua_setfield(L, -2, "__eq");
    hky_sandbox_lock(L, HKY_UD_RELAY);
    lua_pop(L, 1);
    luaL_newmetatable(L, HKY_UD_SET);
    lua_pushcfunction(L, set_index);
    lua_setfield(L, -2, "__index");
    hky_sandbox_lock(L, HKY_UD_SET);
    lua_pop(L, 1);
    opaque_open(L, HKY_UD_SECRET, "a secret cannot be read, joined or compared");
    opaque_open(L, HKY_UD_STEP, "a step is for plans only");
    opaque_open(L, HKY_UD_SPLIT, "a split is for via only");
    opaque_open(L, HKY_UD_RAMP, "a ramp is for share only");
}
