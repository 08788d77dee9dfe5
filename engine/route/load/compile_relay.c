/* relay { } and the relays of rows: one account, one relay. */
#include "base/endpoint.h"
#include "route/table/inside.h"
#include "route/load/loader.h"
#include "route/load/relay_reader.h"
#include "route/table/typed.h"
#include "route/table/value.h"

#include "base/hash.h"
#include "mail/address.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define AUTHORITY_MAX (16u << 20)

/* Does the text end in a number that follows a blank, a colon or a comma? */
static bool has_port(const char *host)
{
    size_t n = strlen(host), digits = 0;

    while (digits < n && isdigit((unsigned char)host[n - digits - 1]))
        digits++;
    return digits > 0 && digits < n && strchr(" \t:,", host[n - digits - 1]) != NULL;
}

/* "256.1.1.1" and "10.0.0": no domain ends in a number, so that no resolver can know them. */
static bool is_broken_ip(const char *host)
{
    const char *dot = strrchr(host, '.'), *last = dot != NULL ? dot + 1 : host;

    return last[0] != 0 && last[strspn(last, "0123456789")] == 0;
}

/* The name or address of a server. For another text, the problem says what may have been meant. */
static const char *host_of(struct hky_relay_reader *r, const char *host)
{
    char domain[HKY_DOMAIN_MAX + 1], name[256], hint[HKY_TYPED_HINT];
    struct hky_error e = {0};
    uint16_t port;

    if (host[0] == 0)
        return host;
    if (hky_ip_is_valid(host) && hky_host_normalise(host, name))
        return hky_loader_keep(r->l, name);
    if (hky_endpoint_parse(hky_str_z(host), name, &port))
        hky_loader_complain(r->l, hky_relay_reader_place(r, "host"), false,
                            "%s: host \"%.80s\" is a host and a port: write host = \"%.80s\", port = %u", r->what, host,
                            name, port);
    else if (strstr(host, "://") != NULL)
        hky_loader_complain(r->l, hky_relay_reader_place(r, "host"), false,
                            "%s: host \"%.80s\": write the name of the server; ssl://NAME is TLS from the start",
                            r->what, host);
    else if (hky_domain_normalise(hky_str_z(host), domain, &e) == HKY_OK && is_broken_ip(domain))
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "host"), false,
            "%s: host \"%.80s\" is no IP address, and no name of a server ends in a number: write an address "
            "such as 192.0.2.1, or a name",
            r->what, host);
    else if (e.code == HKY_OK)
        return hky_loader_keep(r->l, domain);
    else {
        hky_typed_hint(hky_str_z(host), false, hint);
        hky_loader_complain(r->l, hky_relay_reader_place(r, "host"), false,
                            "%s: host \"%.80s\" is no name of a server%s%s%s", r->what, host, hint[0] != 0 ? "" : ": ",
                            hint[0] != 0 ? hint : e.text,
                            has_port(host) ? "; the port is a key of its own: port = 587" : "");
    }
    return "";
}

/* The default TLS mode: it follows from the port, or from ssl:// in front of the host. */
static enum hky_tls_mode tls_by_port(struct hky_relay_reader *r, bool is_ssl)
{
    switch (r->out->port) {
    case 465:
        return HKY_TLS_IMPLICIT;
    case 587:
        return HKY_TLS_STARTTLS;
    case 25:
        return is_ssl ? HKY_TLS_IMPLICIT : HKY_TLS_OPPORTUNISTIC;
    default:
        return is_ssl                                                           ? HKY_TLS_IMPLICIT
               : hky_key_get_string(r->l->vm->L, r->merged, "user", "")[0] != 0 ? HKY_TLS_STARTTLS
                                                                                : HKY_TLS_OPPORTUNISTIC;
    }
}

/* May a row of a file name this file of authorities? Its writer must not reach files outside the folder by a link. */
static bool is_authority_inside(struct hky_relay_reader *r, const char *ca, struct hky_error *e)
{
    struct stat st;
    char *text = NULL;
    size_t n;

    if (!hky_inside_is_name(ca)) {
        (void)hky_error_set(e, HKY_E_DENIED, "files of rows are inside the policy's folder");
        return false;
    }
    if (hky_inside_read(r->l->policy->dir, ca, AUTHORITY_MAX, &text, &n, &st, e) != HKY_OK)
        return false;
    free(text);
    return true;
}

static void read_authority(struct hky_relay_reader *r)
{
    struct hky_relay *o = r->out;
    const char *ca = hky_key_get_string(r->l->vm->L, r->merged, "ca", "");
    char path[PATH_MAX * 2];
    struct hky_error e = {0};

    o->ca = "";
    if (ca[0] == 0)
        return;
    snprintf(path, sizeof path, "%s%s%s", ca[0] == '/' ? "" : r->l->policy->dir, ca[0] == '/' ? "" : "/", ca);
    /* one that is known was looked at before: thousands of rows may name one */
    if (r->spec->is_of_file && hky_map_get(&r->l->authorities, hky_str_z(path)) == NULL &&
        !is_authority_inside(r, ca, &e)) {
        hky_loader_complain(r->l, hky_relay_reader_place(r, "ca"), false, "%s: ca \"%.100s\": %s", r->what, ca, e.text);
        return;
    }
    o->ca = hky_loader_keep(r->l, path);
    if (hky_loader_authority(r->l, o->ca, &o->ca_hash, &e) != HKY_OK)
        hky_loader_complain(r->l, hky_relay_reader_place(r, "ca"), false, "%s: ca \"%.100s\": %s", r->what, ca, e.text);
}

static void read_local(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;

    o->pin = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "pin", ""));
    if (o->pin[0] != 0 && (strlen(o->pin) != 64 || strspn(o->pin, "0123456789abcdefABCDEF") != 64))
        hky_loader_complain(r->l, hky_relay_reader_place(r, "pin"), false,
                            "%s: pin must be 64 hexadecimal digits (SHA-256)", r->what);
    o->source = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "source", ""));
    if (o->source[0] != 0 && !hky_ip_is_valid(o->source))
        hky_loader_complain(r->l, hky_relay_reader_place(r, "source"), false,
                            "%s: source \"%.60s\" is no address of this machine", r->what, o->source);
    o->hello = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "hello", ""));
    for (const char *c = o->hello; *c != 0; c++)
        if (*c <= ' ' || *c > '~' || strchr("<>\"", *c) != NULL) {
            hky_loader_complain(r->l, hky_relay_reader_place(r, "hello"), false,
                                "%s: hello must be one name such as \"mail.shop.example\"", r->what);
            break;
        }
}

static void read_server(struct hky_relay_reader *r)
{
    static const char *const modes[] = {"implicit", "starttls", "opportunistic", "none"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    const char *host = hky_key_get_string(L, r->merged, "host", "");
    bool is_ssl = strncmp(host, "ssl://", 6) == 0;

    if (is_ssl)
        host += 6;
    o->is_mx = hky_key_get_bool(L, r->merged, "mx", false);
    o->port = (uint16_t)hky_key_get_int(L, r->merged, "port", o->is_mx ? 25 : is_ssl ? 465 : 0);
    if (o->is_mx && host[0] != 0)
        hky_loader_complain(r->l, hky_relay_reader_place(r, "host"), false,
                            "%s: a relay with mx = true has no host: write one of them", r->what);
    if (!o->is_mx && host[0] == 0 && !r->has_no_preset && !hky_relay_reader_is_reported(r, "host", LUA_TSTRING) &&
        !hky_relay_reader_is_reported(r, "preset", LUA_TSTRING) &&
        !hky_relay_reader_is_reported(r, "mx", LUA_TBOOLEAN) &&
        !hky_relay_reader_is_reported(r, "relay", LUA_TSTRING)) /* of a row */
        hky_loader_complain(r->l, r->spec->place, false,
                            "%s: the server is missing: write host = \"server\", preset = \"name\" or mx = true",
                            r->what);
    o->host = hky_loader_keep(r->l, host_of(r, host));
    if (o->port == 0)
        o->port = 587;
    o->tls = (enum hky_tls_mode)hky_relay_reader_choice(r, "tls", modes, 4, (int)tls_by_port(r, is_ssl));
    if (is_ssl && o->tls != HKY_TLS_IMPLICIT)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "tls"), false,
            "%s: ssl:// in host means TLS from the start, and tls = \"%s\" means something else: write one of "
            "them",
            r->what, modes[o->tls]);
    read_authority(r);
    read_local(r);
    /* A relay with `ca` or `pin` must send no mail to a server with another certificate or key, nor in the clear. */
    bool wants_identity = o->ca[0] != 0 || o->pin[0] != 0;
    if (wants_identity && o->tls == HKY_TLS_OPPORTUNISTIC)
        o->tls = HKY_TLS_STARTTLS;
    if (wants_identity && o->tls == HKY_TLS_NONE)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "tls"), false,
            "%s: ca and pin say who the server must be, and only TLS can show it: with tls = \"none\" state "
            "neither",
            r->what);
}

/* An address, a domain, .domain or "*" in the form of sends_as; NULL: the text is none of these, which was reported. */
static const char *identity_entry(struct hky_relay_reader *r, const char *s)
{
    struct hky_set_entry entry;
    struct hky_error e = {0};
    char text[340];

    if (strcmp(s, "$user") == 0)
        s = r->out->user;
    if (s[0] == 0 && r->lacks_user)
        return NULL;
    if (hky_set_entry_parse(hky_str_z(s), &entry, &e) != HKY_OK || entry.kind == HKY_SET_ENTRY_NULL) {
        hky_loader_complain(r->l, hky_relay_reader_place(r, "sends_as"), false, "%s: sends_as: \"%.80s\": %s", r->what,
                            s, e.text);
        return NULL;
    }
    if (entry.kind == HKY_SET_ENTRY_EVERYONE)
        return "*";
    snprintf(text, sizeof text, "%s%s", entry.kind == HKY_SET_ENTRY_PARENT ? "." : "", entry.text);
    return hky_loader_keep(r->l, text);
}

static void read_from(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    int type = hky_key_get(L, r->merged, "from");

    o->from = "";
    if (type == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
        o->never_rewrite = true;
        return;
    }
    if (type == LUA_TNIL || hky_lua_is_kind(L, lua_gettop(L), HKY_UD_UNDEFINED))
        return;
    if (type != LUA_TSTRING) {
        hky_loader_complain(r->l, hky_relay_reader_place(r, "from"), false, "%s: from must be an address, or false",
                            r->what);
        return;
    }
    if (strcmp(lua_tostring(L, -1), "$user") == 0) {
        if (o->user[0] == 0 && r->lacks_user)
            return;
        if (o->user[0] == 0) {
            hky_loader_complain(r->l, r->spec->place, false,
                                "%s: the user is missing, whose address the preset puts in From: write user = \"...\"",
                                r->what);
            r->lacks_user = true;
            return;
        }
        if (strchr(o->user, '@') == NULL) {
            hky_loader_complain(r->l, r->spec->place, false,
                                "%s: the user is no address: write the address of the account, from = \"...\"",
                                r->what);
            return;
        }
        lua_pushstring(L, o->user);
    }
    if (hky_lua_push_mailbox(L, lua_gettop(L), "from", r->what, hky_relay_reader_place(r, "from")))
        o->from = hky_loader_keep(r->l, lua_tostring(L, -1));
}

static void read_identity(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    const char **all;
    const char *const *stated = NULL;
    size_t n = 0, k = 0;
    int type;

    read_from(r);
    o->envelope = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "envelope", ""));
    if (o->envelope[0] != 0)
        hky_lua_check_envelope(L, o->envelope, r->what, hky_relay_reader_place(r, "envelope"));
    type = hky_key_get(L, r->merged, "sends_as");
    if (type != LUA_TNIL)
        stated = hky_loader_read_strings(r->l, lua_gettop(L));
    while (stated != NULL && stated[n] != NULL)
        n++;
    if (type == LUA_TTABLE && lua_rawlen(L, lua_gettop(L)) == 0)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "sends_as"), false,
            "%s: sends_as: the list is empty, so that the relay could send as nobody: name somebody, or leave "
            "the key out",
            r->what);
    all = hky_arena_alloc(&r->l->table->arena, (n + 3) * sizeof *all);
    for (size_t i = 0; i < n; i++)
        if ((all[k] = identity_entry(r, stated[i])) != NULL)
            k++;
    if ((stated == NULL || !hky_relay_reader_has(r, "sends_as")) && o->from[0] != 0)
        all[k++] = o->from;
    if (stated == NULL && o->from[0] == 0)
        all[k++] = "*";
    o->sends_as = all;
}

static void read_caps(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    const char *const *all;

    if (hky_key_get(L, r->merged, "cap") == LUA_TNIL || (all = hky_loader_read_strings(r->l, lua_gettop(L))) == NULL)
        return;
    for (; *all != NULL; all++) {
        struct hky_cap cap;
        if (r->out->n_caps == HKY_CAPS_MAX) {
            hky_loader_complain(r->l, hky_relay_reader_place(r, "cap"), false, "%s: at most %d caps", r->what,
                                HKY_CAPS_MAX);
            return;
        }
        if (!hky_cap_parse(hky_str_z(*all), &cap)) {
            hky_loader_complain(
                r->l, hky_relay_reader_place(r, "cap"), false,
                "%s: cap \"%.60s\": write \"N/WINDOW\" or \"N recipients/WINDOW\", WINDOW s min h day month or "
                "a duration",
                r->what, *all);
            continue;
        }
        cap.text = *all;
        r->out->caps[r->out->n_caps++] = cap;
    }
}

static void read_amounts(struct hky_relay_reader *r)
{
    static const struct hky_key *const keys[] = {hky_keys_timeout, NULL};
    static const char *const localparts[] = {"quoted", "raw"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;

    o->connections = (uint32_t)hky_key_get_int(L, r->merged, "connections", 10);
    o->messages_per_connection = (uint32_t)hky_key_get_int(L, r->merged, "messages_per_connection", 100);
    o->recipients_per_message = (uint32_t)hky_key_get_int(L, r->merged, "recipients_per_message", 50);
    o->overlap = hky_key_get_bool(L, r->merged, "overlap", true);
    o->is_paused = hky_key_get_bool(L, r->merged, "paused", false);
    o->is_localpart_raw = hky_relay_reader_choice(r, "localpart", localparts, 2, 0) == 1;
    o->instead = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "instead", ""));
    if (o->instead[0] != 0)
        hky_loader_mention(r->l, false, o->instead, hky_relay_reader_place(r, "instead"));
    o->timeout = (struct hky_relay_timeouts){30000, 60000, 60000, 120000, 600000};
    if (hky_key_get(L, r->merged, "timeout") == LUA_TTABLE) {
        int t = lua_gettop(L);
        hky_keys_check(L, t, keys, false, r->what, r->spec->place);
        o->timeout.connect_ms = hky_key_get_duration(L, t, "connect", 30) * 1000;
        o->timeout.greeting_ms = hky_key_get_duration(L, t, "greeting", 60) * 1000;
        o->timeout.command_ms = hky_key_get_duration(L, t, "command", 60) * 1000;
        o->timeout.data_ms = hky_key_get_duration(L, t, "data", 120) * 1000;
        o->timeout.dot_ms = hky_key_get_duration(L, t, "dot", 600) * 1000;
    }
    read_caps(r);
}

static void read_preset(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    const char *name = hky_key_get_string(L, r->body, "preset", NULL), *warn, *near;
    int presets;

    r->out->preset = "";
    lua_newtable(L);
    r->merged = lua_gettop(L);
    if (name != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        presets = lua_gettop(L);
        if (hky_key_get(L, presets, name) != LUA_TTABLE) {
            near = hky_lua_nearest_key(L, presets, hky_str_z(name));
            r->has_no_preset = true;
            hky_loader_complain(r->l, hky_relay_reader_place(r, "preset"), false, "%s: no preset \"%.60s\"%s%s%s",
                                r->what, name, near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        } else {
            r->out->preset = hky_loader_keep(r->l, name);
            warn = hky_key_get_string(L, presets + 1, "warn", NULL);
            if (warn != NULL)
                hky_loader_complain(r->l, r->spec->place, true, "%s: %s", r->what, warn);
            hky_key_get(L, presets + 1, "values");
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
    /* a relay that states a host of its own does not take port and TLS from the preset */
    if (name != NULL && hky_relay_reader_has(r, "host"))
        for (int i = 0; i < 2; i++) {
            static const char *const keys[] = {"port", "tls"};
            lua_pushstring(L, keys[i]);
            hky_key_get(L, r->body, keys[i]);
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
    hky_buf_add_u64(&b, o->ca_hash); /* another file of the same name makes other connections */
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

static void account_name(struct hky_relay_reader *r)
{
    struct hky_relay *o = r->out;
    char text[600];

    if (o->is_mx)
        snprintf(text, sizeof text, "@mx:%u%s%.100s", o->port, o->source[0] != 0 ? "/" : "", o->source);
    else
        snprintf(text, sizeof text, "%.255s@%.253s:%u", o->user, o->host, o->port);
    for (char *p = text; *p != 0; p++)
        *p = hky_lower(*p);
    o->account = hky_loader_keep(r->l, text);
}

static void compile(struct hky_loader *l, const struct hky_relay_spec *spec, struct hky_relay *out)
{
    lua_State *L = l->vm->L;
    int top = lua_gettop(L);
    struct hky_relay_reader r = {.l = l, .spec = spec, .out = out};

    snprintf(r.what, sizeof r.what, "%s \"%s\"", spec->is_row ? "row" : "relay", spec->name);
    luaL_checkstack(L, 40, NULL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, spec->ref);
    r.body = lua_gettop(L);
    out->name = spec->name;
    out->place = spec->place;
    read_preset(&r);
    read_server(&r);
    hky_relay_reader_login(&r);
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
            hky_loader_complain(l, relays[i].place, false, "relay \"%s\": instead goes round in a circle",
                                relays[i].name);
    }
}

static bool are_same_caps(const struct hky_relay *a, const struct hky_relay *b)
{
    bool same = a->n_caps == b->n_caps;

    for (unsigned i = 0; same && i < a->n_caps; i++)
        same = a->caps[i].n == b->caps[i].n && a->caps[i].window_sec == b->caps[i].window_sec &&
               a->caps[i].counts_recipients == b->caps[i].counts_recipients;
    return same;
}

/* A cap belongs to the account: a cap that only one of its relays states holds for all of them, and two different caps
 * are a mistake, which would show as mail refused by the provider. */
static void check_caps(struct hky_loader *l, struct hky_relay *relays, uint32_t n)
{
    struct hky_map first; /* account -> the first relay that states caps */

    hky_map_init(&first);
    for (uint32_t i = 0; i < n; i++) {
        const struct hky_relay *was = hky_map_get(&first, hky_str_z(relays[i].account));
        if (relays[i].n_caps == 0)
            continue;
        if (was == NULL)
            hky_map_put(&first, hky_str_z(relays[i].account), &relays[i]);
        else if (!are_same_caps(was, &relays[i]))
            hky_loader_complain(
                l, hky_loader_place_of(l, relays[i].place, "cap", true), false,
                "relay \"%s\": cap differs from that of \"%s\" (%s:%u), which is the same account (%s): state "
                "it in one of them",
                relays[i].name, was->name, was->place.file, was->place.line, relays[i].account);
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct hky_relay *of = relays[i].n_caps == 0 ? hky_map_get(&first, hky_str_z(relays[i].account)) : NULL;
        if (of != NULL) {
            memcpy(relays[i].caps, of->caps, sizeof relays[i].caps);
            relays[i].n_caps = of->n_caps;
        }
    }
    hky_map_fini(&first);
}

void hky_loader_compile_relays(struct hky_loader *l)
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
    check_caps(l, relays, l->policy->n_relays);
}
