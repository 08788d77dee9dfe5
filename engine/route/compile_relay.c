/* relay { } and the relays of rows: one account, one relay. */
#include "route/loader.h"
#include "route/relay_spec.h"
#include "route/value.h"

#include "base/hash.h"
#include "mail/address.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static const char *keep(struct hky_loader *l, const char *z)
{
    return hky_arena_z(&l->table->arena, z);
}

/* One relay being compiled: `body` is what it states, `merged` the same over the preset's values. */
struct relay_read {
    struct hky_loader *l;
    const struct hky_relay_spec *spec;
    int body, merged;
    char what[160];
    struct hky_relay *out;
    bool has_no_preset; /* an unknown one is named */
    bool lacks_user;    /* said already */
};

static struct hky_place place_of(struct relay_read *r, const char *key)
{
    return hky_place_of(r->l, r->spec->place, key, true);
}

static bool is_stated(struct relay_read *r, const char *key)
{
    lua_State *L = r->l->vm->L;
    int type = hky_get(L, r->body, key);

    lua_pop(L, 1);
    return type != LUA_TNIL;
}

/* It is there as something else, or under a misspelt name, which was complained of already: that it is missing is no
 * mistake of its own. */
static bool is_attempted(struct relay_read *r, const char *key, int wanted_type)
{
    lua_State *L = r->l->vm->L;
    int type = hky_get(L, r->body, key);
    bool is_misspelt = false;

    lua_pop(L, 1);
    if (r->l->problems->n_errors == 0)
        return false;
    if (type != LUA_TNIL)
        return type != wanted_type;
    lua_pushnil(L);
    while (lua_next(L, r->body) != 0) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            struct hky_str name;
            name.p = lua_tolstring(L, -1, &name.n);
            is_misspelt |= hky_key_find(hky_keys_relay, name) == NULL && hky_key_find(hky_keys_row, name) == NULL &&
                           hky_nearest(name, &key, 1) != NULL;
        }
    }
    return is_misspelt;
}

/* The index into `names`, or -1 with a problem; `otherwise` when not stated. */
static int choice(struct relay_read *r, const char *key, const char *const *names, int n, int otherwise)
{
    const char *s = hky_get_string(r->l->vm->L, r->merged, key, NULL), *near;
    char list[200] = "";

    if (s == NULL)
        return otherwise;
    for (int i = 0; i < n; i++)
        if (strcmp(s, names[i]) == 0)
            return i;
    for (int i = 0; i < n; i++) {
        strncat(list, i > 0 ? ", " : "", sizeof list - strlen(list) - 1);
        strncat(list, names[i], sizeof list - strlen(list) - 1);
    }
    near = hky_nearest(hky_str_z(s), names, (size_t)n);
    hky_complain(r->l, place_of(r, key), false, "%s: %s \"%.60s\" is none of %s%s%s%s", r->what, key, s, list,
                 near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return otherwise;
}

static void read_server(struct relay_read *r)
{
    static const char *const modes[] = {"implicit", "starttls", "opportunistic", "none"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    const char *host = hky_get_string(L, r->merged, "host", "");
    bool is_ssl = strncmp(host, "ssl://", 6) == 0;
    int mode = -1;

    if (is_ssl)
        host += 6;
    o->is_mx = hky_get_bool(L, r->merged, "mx", false);
    o->host = keep(r->l, host);
    o->port = (uint16_t)hky_get_int(L, r->merged, "port", o->is_mx ? 25 : is_ssl ? 465 : 0);
    if (o->is_mx && host[0] != 0)
        hky_complain(r->l, place_of(r, "host"), false, "%s: mx = true has no host: state one of them", r->what);
    if (!o->is_mx && host[0] == 0 && !r->has_no_preset && !is_attempted(r, "host", LUA_TSTRING) &&
        !is_attempted(r, "preset", LUA_TSTRING) && !is_attempted(r, "mx", LUA_TBOOLEAN))
        hky_complain(r->l, r->spec->place, false, "%s: state host = \"server\", preset = \"name\" or mx = true",
                     r->what);
    if (strpbrk(host, " \t/@\"<>") != NULL || strlen(host) > 253)
        hky_complain(r->l, place_of(r, "host"), false,
                     "%s: host \"%.80s\" is no name of a server; the port is a key of its own", r->what, host);
    if (o->port == 0)
        o->port = 587;
    switch (o->port) {
    case 465:
        mode = HKY_TLS_IMPLICIT;
        break;
    case 587:
        mode = HKY_TLS_STARTTLS;
        break;
    case 25:
        mode = HKY_TLS_OPPORTUNISTIC;
        break;
    default:
        mode = is_ssl                                             ? HKY_TLS_IMPLICIT
               : hky_get_string(L, r->merged, "user", "")[0] != 0 ? HKY_TLS_STARTTLS
                                                                  : HKY_TLS_OPPORTUNISTIC;
    }
    o->tls = (enum hky_tls_mode)choice(r, "tls", modes, 4, mode);
    if (is_ssl && o->tls != HKY_TLS_IMPLICIT)
        hky_complain(r->l, place_of(r, "tls"), false, "%s: ssl:// is TLS from the start and tls says something else",
                     r->what);
    o->ca = keep(r->l, hky_get_string(L, r->merged, "ca", ""));
    if (o->ca[0] != 0 && o->ca[0] != '/') {
        char path[PATH_MAX * 2];
        snprintf(path, sizeof path, "%s/%s", r->l->policy->dir, o->ca);
        o->ca = keep(r->l, path);
    }
    o->pin = keep(r->l, hky_get_string(L, r->merged, "pin", ""));
    if (o->pin[0] != 0 && (strlen(o->pin) != 64 || strspn(o->pin, "0123456789abcdefABCDEF") != 64))
        hky_complain(r->l, place_of(r, "pin"), false, "%s: pin must be 64 hexadecimal digits (SHA-256)", r->what);
    o->source = keep(r->l, hky_get_string(L, r->merged, "source", ""));
    if (o->source[0] != 0 && !hky_ip_is_valid(o->source))
        hky_complain(r->l, place_of(r, "source"), false, "%s: source \"%.60s\" is no address of this machine", r->what,
                     o->source);
    o->hello = keep(r->l, hky_get_string(L, r->merged, "hello", ""));
    if (strpbrk(o->hello, " \t\r\n<>") != NULL)
        hky_complain(r->l, place_of(r, "hello"), false, "%s: hello must be one name", r->what);
}

static void read_oauth(struct relay_read *r)
{
    static const struct hky_key *const keys[] = {hky_keys_oauth, NULL};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    int body;

    o->oauth.client = o->oauth.token_url = o->oauth.scope = "";
    if (hky_get(L, r->body, "oauth") != LUA_TTABLE)
        return;
    body = lua_gettop(L);
    hky_keys_check(L, body, keys, false, r->what, r->spec->place);
    o->oauth.client = keep(r->l, hky_get_string(L, body, "client", ""));
    o->oauth.token_url = keep(r->l, hky_get_string(L, body, "token_url", ""));
    o->oauth.scope = keep(r->l, hky_get_string(L, body, "scope", ""));
    hky_get(L, body, "client_secret");
    o->oauth.client_secret = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    hky_get(L, body, "refresh");
    o->oauth.refresh = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    if (hky_get(L, body, "token_command") == LUA_TTABLE)
        o->oauth.token_command = hky_read_strings(r->l, lua_gettop(L));
    if (o->oauth.token_command == NULL && (o->oauth.client[0] == 0 || o->oauth.refresh.name == NULL))
        hky_complain(r->l, place_of(r, "oauth"), false,
                     "%s: oauth needs client and refresh = secret \"name\", or token_command = { ... }", r->what);
}

/* The first thing that is wrong with the login; the others would follow from it. */
static void check_login(struct relay_read *r, bool has_password, bool has_oauth, bool is_oauth_only)
{
    const struct hky_relay *o = r->out;
    bool needs_oauth = o->auth == HKY_AUTH_XOAUTH2 || o->auth == HKY_AUTH_OAUTHBEARER;
    bool needs_login = o->auth != HKY_AUTH_NONE || has_password || has_oauth;

    r->lacks_user = o->user[0] == 0 && (needs_login || is_attempted(r, "user", LUA_TSTRING));
    if (is_oauth_only && has_password)
        hky_complain(
            r->l, place_of(r, "password"), false,
            "%s: preset %s takes no password any more: use oauth = { client = ..., refresh = secret \"name\" }",
            r->what, o->preset);
    else if (r->lacks_user && is_attempted(r, "user", LUA_TSTRING))
        return;
    else if (r->lacks_user && (has_password || has_oauth))
        hky_complain(r->l, r->spec->place, false, "%s: has a password but no user", r->what);
    else if (r->lacks_user)
        hky_complain(r->l, place_of(r, "auth"), false, "%s: auth needs user and password", r->what);
    else if (needs_oauth && !has_oauth && !is_attempted(r, "oauth", LUA_TNIL))
        hky_complain(r->l, place_of(r, "auth"), false, "%s: OAuth2 needs oauth = { ... }", r->what);
    else if (!needs_oauth && o->auth != HKY_AUTH_NONE && !has_password && !has_oauth &&
             !is_attempted(r, "password", LUA_TNIL) && !is_attempted(r, "oauth", LUA_TNIL))
        hky_complain(r->l, r->spec->place, false, "%s: has a user but no password: password = secret \"name\"",
                     r->what);
}

static void read_login(struct relay_read *r)
{
    static const char *const names[] = {"auto",          "plain",   "login",       "cram-md5",
                                        "scram-sha-256", "xoauth2", "oauthbearer", "none"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    bool has_password, has_oauth, is_oauth_only = false;
    const char *preset = hky_get_string(L, r->body, "preset", NULL);

    o->user = keep(r->l, hky_get_string(L, r->merged, "user", ""));
    hky_get(L, r->body, "password");
    o->password = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    read_oauth(r);
    has_password = o->password.name != NULL || o->password.literal != NULL;
    has_oauth = o->oauth.client[0] != 0 || o->oauth.token_command != NULL;
    o->auth = (enum hky_auth)choice(r, "auth", names, 8, o->user[0] != 0 ? HKY_AUTH_AUTO : HKY_AUTH_NONE);
    if (preset != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        if (hky_get(L, lua_gettop(L), preset) == LUA_TTABLE)
            is_oauth_only = hky_get_bool(L, lua_gettop(L), "oauth_only", false);
    }
    check_login(r, has_password, has_oauth, is_oauth_only);
    if (o->tls == HKY_TLS_NONE && has_password && strncmp(o->host, "127.", 4) != 0 && strcmp(o->host, "localhost") != 0)
        hky_complain(r->l, place_of(r, "tls"), true,
                     "%s: the password goes over the network unprotected (tls = \"none\")", r->what);
}

/* An address, a domain, .domain or "*" as sends_as has it; NULL told. */
static const char *identity_entry(struct relay_read *r, const char *s)
{
    struct hky_entry entry;
    struct hky_error e = {0};
    char text[340];

    if (strcmp(s, "$user") == 0)
        s = r->out->user;
    if (s[0] == 0 && r->lacks_user)
        return NULL;
    if (hky_entry_parse(hky_str_z(s), &entry, &e) != HKY_OK || entry.kind == HKY_ENTRY_NULL) {
        hky_complain(r->l, place_of(r, "sends_as"), false, "%s: sends_as: \"%.80s\": %s", r->what, s, e.text);
        return NULL;
    }
    if (entry.kind == HKY_ENTRY_EVERYONE)
        return "*";
    snprintf(text, sizeof text, "%s%s", entry.kind == HKY_ENTRY_PARENT ? "." : "", entry.text);
    return keep(r->l, text);
}

static void read_from(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    int type = hky_get(L, r->merged, "from");

    o->from = "";
    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
        o->never_rewrite = true;
        return;
    }
    if (type == LUA_TNIL || hky_is_kind(L, lua_gettop(L), HKY_UD_POISON))
        return;
    if (type != LUA_TSTRING) {
        hky_complain(r->l, place_of(r, "from"), false, "%s: from must be an address, or false", r->what);
        return;
    }
    if (strcmp(lua_tostring(L, -1), "$user") == 0) {
        if (o->user[0] == 0 && r->lacks_user)
            return;
        if (strchr(o->user, '@') == NULL) {
            hky_complain(r->l, r->spec->place, false,
                         "%s: user is no address, so state the account's address: from = \"...\"", r->what);
            return;
        }
        lua_pushstring(L, o->user);
    }
    if (hky_push_mailbox(L, lua_gettop(L), r->what, place_of(r, "from")))
        o->from = keep(r->l, lua_tostring(L, -1));
}

static void read_identity(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    const char **all;
    const char *const *stated = NULL;
    size_t n = 0, k = 0;

    read_from(r);
    o->envelope = keep(r->l, hky_get_string(L, r->merged, "envelope", ""));
    if (o->envelope[0] != 0 && strchr(o->envelope, '@') == NULL)
        hky_complain(r->l, place_of(r, "envelope"), false, "%s: envelope must be an address", r->what);
    if (hky_get(L, r->merged, "sends_as") != LUA_TNIL)
        stated = hky_read_strings(r->l, lua_gettop(L));
    while (stated != NULL && stated[n] != NULL)
        n++;
    all = hky_arena_alloc(&r->l->table->arena, (n + 3) * sizeof *all);
    for (size_t i = 0; i < n; i++)
        if ((all[k] = identity_entry(r, stated[i])) != NULL)
            k++;
    if ((stated == NULL || !is_stated(r, "sends_as")) && o->from[0] != 0)
        all[k++] = o->from;
    if (stated == NULL && o->from[0] == 0)
        all[k++] = "*";
    o->sends_as = all;
}

static void read_caps(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    const char *const *all;

    if (hky_get(L, r->merged, "cap") == LUA_TNIL || (all = hky_read_strings(r->l, lua_gettop(L))) == NULL)
        return;
    for (; *all != NULL; all++) {
        struct hky_cap cap;
        if (r->out->n_caps == HKY_CAPS_MAX) {
            hky_complain(r->l, place_of(r, "cap"), false, "%s: at most %d caps", r->what, HKY_CAPS_MAX);
            return;
        }
        if (!hky_cap_parse(hky_str_z(*all), &cap)) {
            hky_complain(
                r->l, place_of(r, "cap"), false,
                "%s: cap \"%.60s\": write \"N/WINDOW\" or \"N recipients/WINDOW\", WINDOW s min h day month or "
                "a duration",
                r->what, *all);
            continue;
        }
        cap.text = *all;
        r->out->caps[r->out->n_caps++] = cap;
    }
}

static void read_amounts(struct relay_read *r)
{
    static const struct hky_key *const keys[] = {hky_keys_timeout, NULL};
    static const char *const localparts[] = {"quoted", "raw"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;

    o->connections = (uint32_t)hky_get_int(L, r->merged, "connections", 10);
    o->messages_per_connection = (uint32_t)hky_get_int(L, r->merged, "messages_per_connection", 100);
    o->recipients_per_message = (uint32_t)hky_get_int(L, r->merged, "recipients_per_message", 50);
    o->overlap = hky_get_bool(L, r->merged, "overlap", true);
    o->is_paused = hky_get_bool(L, r->merged, "paused", false);
    o->is_localpart_raw = choice(r, "localpart", localparts, 2, 0) == 1;
    o->instead = keep(r->l, hky_get_string(L, r->merged, "instead", ""));
    if (o->instead[0] != 0)
        hky_loader_mention(r->l, false, o->instead, place_of(r, "instead"));
    o->timeout = (struct hky_relay_timeouts){30000, 60000, 60000, 120000, 600000};
    if (hky_get(L, r->merged, "timeout") == LUA_TTABLE) {
        int t = lua_gettop(L);
        hky_keys_check(L, t, keys, false, r->what, r->spec->place);
        o->timeout.connect_ms = hky_get_duration(L, t, "connect", 30) * 1000;
        o->timeout.greeting_ms = hky_get_duration(L, t, "greeting", 60) * 1000;
        o->timeout.command_ms = hky_get_duration(L, t, "command", 60) * 1000;
        o->timeout.data_ms = hky_get_duration(L, t, "data", 120) * 1000;
        o->timeout.dot_ms = hky_get_duration(L, t, "dot", 600) * 1000;
    }
    read_caps(r);
}

static void read_preset(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    const char *name = hky_get_string(L, r->body, "preset", NULL), *warn, *near;
    int presets;

    r->out->preset = "";
    lua_newtable(L);
    r->merged = lua_gettop(L);
    if (name != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        presets = lua_gettop(L);
        if (hky_get(L, presets, name) != LUA_TTABLE) {
            near = hky_nearest_key(L, presets, hky_str_z(name));
            r->has_no_preset = true;
            hky_complain(r->l, place_of(r, "preset"), false, "%s: no preset \"%.60s\"%s%s%s", r->what, name,
                         near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        } else {
            r->out->preset = keep(r->l, name);
            warn = hky_get_string(L, presets + 1, "warn", NULL);
            if (warn != NULL)
                hky_complain(r->l, r->spec->place, true, "%s: %s", r->what, warn);
            hky_get(L, presets + 1, "values");
            lua_pushnil(L);
            while (lua_next(L, presets + 2) != 0) {
                lua_pushvalue(L, -2);
                lua_insert(L, -2);
                lua_rawset(L, r->merged);
            }
        }
        lua_settop(L, r->merged);
    }
    lua_pushnil(L);
    while (lua_next(L, r->body) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, r->merged);
    }
    /* a server of one's own choice brings its own port and TLS */
    if (name != NULL && is_stated(r, "host"))
        for (int i = 0; i < 2; i++) {
            static const char *const keys[] = {"port", "tls"};
            lua_pushstring(L, keys[i]);
            hky_get(L, r->body, keys[i]);
            lua_rawset(L, r->merged);
        }
}

static uint64_t settings_hash(const struct hky_relay *o)
{
    struct hky_buf b;
    uint64_t h;
    const char *texts[] = {o->host,
                           o->ca,
                           o->pin,
                           o->user,
                           o->password.name,
                           o->password.literal,
                           o->oauth.client,
                           o->oauth.token_url,
                           o->oauth.scope,
                           o->oauth.refresh.name,
                           o->oauth.client_secret.name,
                           o->hello,
                           o->source};

    hky_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        hky_buf_add_lstr(&b, hky_str_z(texts[i]));
    for (size_t i = 0; o->password.command != NULL && o->password.command[i] != NULL; i++)
        hky_buf_add_lstr(&b, hky_str_z(o->password.command[i]));
    for (size_t i = 0; o->oauth.token_command != NULL && o->oauth.token_command[i] != NULL; i++)
        hky_buf_add_lstr(&b, hky_str_z(o->oauth.token_command[i]));
    hky_buf_add_u16(&b, o->port);
    hky_buf_add_u8(&b, (uint8_t)o->tls);
    hky_buf_add_u8(&b, (uint8_t)o->auth);
    hky_buf_add_u8(&b, (uint8_t)(o->is_mx | o->overlap << 1 | o->is_localpart_raw << 2));
    hky_buf_add_u32(&b, o->timeout.connect_ms);
    hky_buf_add_u32(&b, o->timeout.greeting_ms);
    hky_buf_add_u32(&b, o->timeout.command_ms);
    hky_buf_add_u32(&b, o->timeout.data_ms);
    hky_buf_add_u32(&b, o->timeout.dot_ms);
    h = hky_hash64(b.p, b.n, 1);
    hky_buf_fini(&b);
    return h;
}

static void account_name(struct relay_read *r)
{
    struct hky_relay *o = r->out;
    char text[600];

    if (o->is_mx)
        snprintf(text, sizeof text, "@mx:%u%s%.100s", o->port, o->source[0] != 0 ? "/" : "", o->source);
    else
        snprintf(text, sizeof text, "%.240s@%.253s:%u", o->user, o->host, o->port);
    for (char *p = text; *p != 0; p++)
        *p = hky_lower(*p);
    o->account = keep(r->l, text);
}

static void compile(struct hky_loader *l, const struct hky_relay_spec *spec, struct hky_relay *out)
{
    lua_State *L = l->vm->L;
    int top = lua_gettop(L);
    struct relay_read r = {.l = l, .spec = spec, .out = out};

    snprintf(r.what, sizeof r.what, "%s \"%s\"", spec->is_row ? "row" : "relay", spec->name);
    luaL_checkstack(L, 40, NULL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, spec->ref);
    r.body = lua_gettop(L);
    out->name = spec->name;
    out->place = spec->place;
    read_preset(&r);
    read_server(&r);
    read_login(&r);
    read_identity(&r);
    read_amounts(&r);
    account_name(&r);
    out->settings_hash = settings_hash(out);
    lua_settop(L, top);
}

static void check_instead(struct hky_loader *l, const struct hky_relay *relays, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct hky_relay *r = &relays[i];
        uint32_t hops = 0;
        while (r != NULL && r->instead[0] != 0 && hops++ <= n)
            r = hky_policy_relay(l->policy, hky_str_z(r->instead));
        if (hops > n)
            hky_complain(l, relays[i].place, false, "relay \"%s\": instead goes round in a circle", relays[i].name);
    }
}

void hky_compile_relays(struct hky_loader *l)
{
    struct hky_relay *relays = hky_arena_alloc(&l->table->arena, (l->n_specs + 1) * sizeof *relays);

    for (size_t i = 0; i < l->n_specs; i++) {
        relays[i].index = (uint32_t)i;
        compile(l, &l->specs[i], &relays[i]);
        hky_map_put(&l->policy->relay_by_name, hky_str_z(relays[i].name), &relays[i]);
    }
    l->policy->relays = relays;
    l->policy->n_relays = (uint32_t)l->n_specs;
    check_instead(l, relays, l->policy->n_relays);
}
