/* relay { } and the relays of rows: one account, one relay. */
#include "base/endpoint.h"
#include "route/table/inside.h"
#include "route/load/loader.h"
#include "route/load/relay_spec.h"
#include "route/table/typed.h"
#include "route/table/value.h"

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

/* One relay being compiled: `body` is the table of its own keys, `merged` the same keys over the preset's values. */
struct relay_read {
    struct hky_loader *l;
    const struct hky_relay_spec *spec;
    int body, merged;
    char what[160];
    struct hky_relay *out;
    bool has_no_preset; /* the relay names an unknown preset */
    bool lacks_user;    /* the user is missing, which was reported */
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

/* The key has a value of another type, or a misspelt name, and that was already reported: then it is not reported as
 * missing, too. */
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

/* The index of the key's value in `names`; `otherwise` when the key is not stated, or with a problem. */
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
    hky_complain(r->l, place_of(r, key), false, "%s: %s must be one of %s, not \"%.60s\"%s%s%s", r->what, key, list, s,
                 near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return otherwise;
}

/* Does the text end in a number that follows a blank, a colon or a comma? */
static bool has_port(const char *host)
{
    size_t n = strlen(host), digits = 0;

    while (digits < n && isdigit((unsigned char)host[n - digits - 1]))
        digits++;
    return digits > 0 && digits < n && strchr(" \t:,", host[n - digits - 1]) != NULL;
}

/* The name or address of a server. For another text, the problem says what may have been meant. */
static const char *host_of(struct relay_read *r, const char *host)
{
    char domain[HKY_DOMAIN_MAX + 1], name[256], hint[HKY_TYPED_HINT];
    struct hky_error e = {0};
    uint16_t port;

    if (host[0] == 0 || hky_ip_is_valid(host))
        return host;
    if (hky_endpoint_parse(hky_str_z(host), name, &port))
        hky_complain(r->l, place_of(r, "host"), false,
                     "%s: host \"%.80s\" is a host and a port: write host = \"%.80s\", port = %u", r->what, host, name,
                     port);
    else if (strstr(host, "://") != NULL)
        hky_complain(r->l, place_of(r, "host"), false,
                     "%s: host \"%.80s\": write the name of the server; ssl://NAME is TLS from the start", r->what,
                     host);
    else if (hky_domain_normalise(hky_str_z(host), domain, &e) == HKY_OK)
        return keep(r->l, domain);
    else {
        hky_typed_hint(hky_str_z(host), false, hint);
        hky_complain(r->l, place_of(r, "host"), false, "%s: host \"%.80s\" is no name of a server%s%s%s", r->what, host,
                     hint[0] != 0 ? "" : ": ", hint[0] != 0 ? hint : e.text,
                     has_port(host) ? "; the port is a key of its own: port = 587" : "");
    }
    return "";
}

/* The default TLS mode: it follows from the port, or from ssl:// in front of the host. */
static enum hky_tls_mode tls_by_port(struct relay_read *r, bool is_ssl)
{
    switch (r->out->port) {
    case 465:
        return HKY_TLS_IMPLICIT;
    case 587:
        return HKY_TLS_STARTTLS;
    case 25:
        return is_ssl ? HKY_TLS_IMPLICIT : HKY_TLS_OPPORTUNISTIC;
    default:
        return is_ssl                                                       ? HKY_TLS_IMPLICIT
               : hky_get_string(r->l->vm->L, r->merged, "user", "")[0] != 0 ? HKY_TLS_STARTTLS
                                                                            : HKY_TLS_OPPORTUNISTIC;
    }
}

static void read_authority(struct relay_read *r)
{
    struct hky_relay *o = r->out;
    const char *ca = hky_get_string(r->l->vm->L, r->merged, "ca", "");
    char path[PATH_MAX * 2];
    struct hky_error e = {0};

    o->ca = "";
    if (ca[0] == 0)
        return;
    if (r->spec->is_of_file && !hky_inside_is_name(ca)) {
        hky_complain(r->l, place_of(r, "ca"), false, "%s: ca: files of rows are inside the policy's folder", r->what);
        return;
    }
    snprintf(path, sizeof path, "%s%s%s", ca[0] == '/' ? "" : r->l->policy->dir, ca[0] == '/' ? "" : "/", ca);
    o->ca = keep(r->l, path);
    if (hky_loader_authority(r->l, o->ca, &o->ca_hash, &e) != HKY_OK)
        hky_complain(r->l, place_of(r, "ca"), false, "%s: ca \"%.100s\": %s", r->what, ca, e.text);
}

static void read_local(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;

    o->pin = keep(r->l, hky_get_string(L, r->merged, "pin", ""));
    if (o->pin[0] != 0 && (strlen(o->pin) != 64 || strspn(o->pin, "0123456789abcdefABCDEF") != 64))
        hky_complain(r->l, place_of(r, "pin"), false, "%s: pin must be 64 hexadecimal digits (SHA-256)", r->what);
    o->source = keep(r->l, hky_get_string(L, r->merged, "source", ""));
    if (o->source[0] != 0 && !hky_ip_is_valid(o->source))
        hky_complain(r->l, place_of(r, "source"), false, "%s: source \"%.60s\" is no address of this machine", r->what,
                     o->source);
    o->hello = keep(r->l, hky_get_string(L, r->merged, "hello", ""));
    for (const char *c = o->hello; *c != 0; c++)
        if (*c <= ' ' || *c > '~' || strchr("<>\"", *c) != NULL) {
            hky_complain(r->l, place_of(r, "hello"), false, "%s: hello must be one name such as \"mail.shop.example\"",
                         r->what);
            break;
        }
}

static void read_server(struct relay_read *r)
{
    static const char *const modes[] = {"implicit", "starttls", "opportunistic", "none"};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    const char *host = hky_get_string(L, r->merged, "host", "");
    bool is_ssl = strncmp(host, "ssl://", 6) == 0;

    if (is_ssl)
        host += 6;
    o->is_mx = hky_get_bool(L, r->merged, "mx", false);
    o->port = (uint16_t)hky_get_int(L, r->merged, "port", o->is_mx ? 25 : is_ssl ? 465 : 0);
    if (o->is_mx && host[0] != 0)
        hky_complain(r->l, place_of(r, "host"), false, "%s: a relay with mx = true has no host: write one of them",
                     r->what);
    if (!o->is_mx && host[0] == 0 && !r->has_no_preset && !is_attempted(r, "host", LUA_TSTRING) &&
        !is_attempted(r, "preset", LUA_TSTRING) && !is_attempted(r, "mx", LUA_TBOOLEAN))
        hky_complain(r->l, r->spec->place, false,
                     "%s: the server is missing: write host = \"server\", preset = \"name\" or mx = true", r->what);
    o->host = keep(r->l, host_of(r, host));
    if (o->port == 0)
        o->port = 587;
    o->tls = (enum hky_tls_mode)choice(r, "tls", modes, 4, (int)tls_by_port(r, is_ssl));
    if (is_ssl && o->tls != HKY_TLS_IMPLICIT)
        hky_complain(r->l, place_of(r, "tls"), false,
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
        hky_complain(r->l, place_of(r, "tls"), false,
                     "%s: ca and pin say who the server must be, and only TLS can show it: with tls = \"none\" state "
                     "neither",
                     r->what);
}

/* The client secret and the refresh token are sent to this URL, so it must use TLS or stay on this machine. */
static bool is_safe_for_secrets(struct hky_str url)
{
    bool is_https = hky_str_istarts(url, HKY_STR("https://"));
    char host[256];
    size_t from = is_https ? 8 : 7, n = 0;

    if (!is_https && !hky_str_istarts(url, HKY_STR("http://")))
        return false;
    for (size_t i = 0; i < url.n; i++) {
        unsigned char c = (unsigned char)url.p[i];

        if (c <= ' ' || c >= 0x7f || c == '\\')
            return false;
    }
    while (from + n < url.n && strchr("/?#", url.p[from + n]) == NULL)
        n++;
    /* A name in front of '@' looks like the host and is not. */
    if (n == 0 || n >= sizeof host || memchr(url.p + from, '@', n) != NULL || memchr(url.p + from, '%', n) != NULL)
        return false;
    if (is_https)
        return true;
    memcpy(host, url.p + from, n);
    host[n] = '\0';
    if (host[0] == '[') {
        char *end = strchr(host, ']');

        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return false;
        *end = '\0';
        return hky_is_loopback(host + 1);
    }
    host[strcspn(host, ":")] = '\0';
    return hky_is_loopback(host);
}

/* The preset to which a host typed by hand belongs, or NULL. ".xserver.jp" in a preset's hosts means all hosts below
 * it.
 */
static const char *preset_of_host(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    int top = lua_gettop(L);
    const char *found = NULL, *domain;

    if (r->out->host[0] == 0)
        return NULL;
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.preset_hosts");
    for (const char *at = r->out->host; at != NULL && found == NULL; at = strchr(at + 1, '.'))
        found = hky_get_string(L, top + 1, at, NULL);
    if (found != NULL && (domain = strchr(r->out->user, '@')) != NULL)
        found = hky_get_string(L, top + 1, domain, found); /* one host for companies and persons */
    if (found != NULL)
        found = keep(r->l, found);
    lua_settop(L, top);
    return found;
}

/* The URL at which the provider of the relay's preset, or of its host, gives out access tokens; "": unknown. */
static const char *token_url_of(struct relay_read *r)
{
    lua_State *L = r->l->vm->L;
    int top = lua_gettop(L);
    const char *preset = hky_get_string(L, r->body, "preset", NULL), *url = "";

    preset = preset != NULL ? preset : preset_of_host(r);
    if (preset == NULL)
        return "";
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
    if (hky_get(L, top + 1, preset) == LUA_TTABLE)
        url = keep(r->l, hky_get_string(L, top + 2, "token_url", ""));
    lua_settop(L, top);
    return url;
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
    o->oauth.token_url = keep(r->l, hky_get_string(L, body, "token_url", token_url_of(r)));
    if (o->oauth.token_url[0] != '\0' && !is_safe_for_secrets(hky_str_z(o->oauth.token_url)))
        hky_complain(
            r->l, place_of(r, "token_url"), false,
            "%s: oauth.token_url \"%.100s\" would send the client secret and the refresh token unencrypted, or "
            "is no address of a web page: write https://HOST/...; http:// is for loopback addresses "
            "(http://127.0.0.1:8080/...) only",
            r->what, o->oauth.token_url);
    o->oauth.scope = keep(r->l, hky_get_string(L, body, "scope", ""));
    hky_get(L, body, "client_secret");
    o->oauth.client_secret = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    hky_get(L, body, "refresh");
    o->oauth.refresh = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    if (hky_get(L, body, "token_command") == LUA_TTABLE)
        o->oauth.token_command = hky_read_strings(r->l, lua_gettop(L));
    if (o->oauth.token_command == NULL && (o->oauth.client[0] == 0 || o->oauth.refresh.name == NULL))
        hky_complain(r->l, place_of(r, "oauth"), false,
                     "%s: oauth needs client, refresh = secret \"name\" and token_url, or token_command = { ... }",
                     r->what);
    else if (o->oauth.token_command == NULL && o->oauth.token_url[0] == '\0' &&
             hky_get(L, body, "token_url") != LUA_TSTRING)
        hky_complain(r->l, place_of(r, "oauth"), false,
                     "%s: oauth has a refresh token, but nothing says where it is given for an access token: write "
                     "token_url = \"https://HOST/...\", or token_command = { ... }",
                     r->what);
}

/* Report the first mistake in the login; further ones would only follow from it. */
static void check_login(struct relay_read *r, bool has_password, bool has_oauth, bool is_oauth_only, const char *preset)
{
    const struct hky_relay *o = r->out;
    bool needs_oauth = o->auth == HKY_AUTH_XOAUTH2 || o->auth == HKY_AUTH_OAUTHBEARER;
    bool needs_login = o->auth != HKY_AUTH_NONE || has_password || has_oauth;

    r->lacks_user = o->user[0] == 0 && (needs_login || is_attempted(r, "user", LUA_TSTRING));
    if (is_oauth_only && has_password)
        hky_complain(
            r->l, place_of(r, "password"), false,
            "%s: %s takes no password any more: write preset = \"%s\", oauth = { client = ..., refresh = secret "
            "\"name\" }",
            r->what, o->preset[0] != 0 ? o->preset : o->host, preset);
    else if (r->lacks_user && is_attempted(r, "user", LUA_TSTRING))
        return;
    else if (r->lacks_user && (has_password || has_oauth))
        hky_complain(r->l, r->spec->place, false, "%s: there is a password but no user: write user = \"...\"", r->what);
    else if (r->lacks_user)
        hky_complain(r->l, place_of(r, "auth"), false, "%s: auth is written, but user and password are missing",
                     r->what);
    else if (needs_oauth && !has_oauth && !is_attempted(r, "oauth", LUA_TNIL))
        hky_complain(r->l, place_of(r, "auth"), false, "%s: OAuth2 is asked for, but oauth = { ... } is missing",
                     r->what);
    else if (!needs_oauth && o->auth != HKY_AUTH_NONE && !has_password && !has_oauth &&
             !is_attempted(r, "password", LUA_TNIL) && !is_attempted(r, "oauth", LUA_TNIL))
        hky_complain(r->l, r->spec->place, false,
                     "%s: there is a user but no password: write password = secret \"name\"", r->what);
}

/* Report a password that would never be sent, so that the relay could not deliver anything. */
static void check_unsent_login(struct relay_read *r, bool has_login)
{
    const struct hky_relay *o = r->out;
    bool is_here = hky_host_is_here(o->host);

    if (!has_login || o->is_mx || o->host[0] == 0)
        return;
    if (o->tls == HKY_TLS_OPPORTUNISTIC)
        hky_complain(r->l, place_of(r, is_stated(r, "tls") ? "tls" : "port"), false,
                     "%s: %s is opportunistic TLS, which checks no certificate, so the password is never sent: write "
                     "port = 587, or tls = \"starttls\" if the server offers it at port %u",
                     r->what, is_stated(r, "tls") ? "this" : "port 25", o->port);
    else if (o->tls == HKY_TLS_NONE && !is_here && o->auth == HKY_AUTH_AUTO)
        hky_complain(r->l, place_of(r, "tls"), true,
                     "%s: with tls = \"none\" the password is sent to this machine only: write tls = \"starttls\", or "
                     "name a mechanism, auth = \"login\", if everybody on the network may read it",
                     r->what);
    else if (o->tls == HKY_TLS_NONE && !is_here)
        hky_complain(r->l, place_of(r, "tls"), true,
                     "%s: the password goes over the network unprotected (tls = \"none\")", r->what);
}

static void read_login(struct relay_read *r)
{
    static const char *const names[] = {
#define X(id, value, name, offered) value,
        HKY_AUTHS(X)
#undef X
    };
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    bool has_password, has_oauth, is_oauth_only = false;
    const char *preset = hky_get_string(L, r->body, "preset", NULL), *by_host;

    o->user = keep(r->l, hky_get_string(L, r->merged, "user", ""));
    hky_get(L, r->body, "password");
    o->password = hky_read_secret(r->l, lua_gettop(L), r->what, r->spec->place);
    read_oauth(r);
    has_password = o->password.name != NULL || o->password.literal != NULL;
    has_oauth = o->oauth.client[0] != 0 || o->oauth.token_command != NULL;
    o->auth = (enum hky_auth)choice(r, "auth", names, HKY_AUTH_N, o->user[0] != 0 ? HKY_AUTH_AUTO : HKY_AUTH_NONE);
    by_host = preset == NULL ? preset_of_host(r) : NULL;
    if (preset != NULL || by_host != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        if (hky_get(L, lua_gettop(L), preset != NULL ? preset : by_host) == LUA_TTABLE)
            is_oauth_only = hky_get_bool(L, lua_gettop(L), "oauth_only", false);
    }
    check_login(r, has_password, has_oauth, is_oauth_only, preset != NULL ? preset : by_host);
    if (by_host != NULL && !(is_oauth_only && has_password))
        hky_complain(
            r->l, place_of(r, "host"), true,
            "%s: %s is a server of preset \"%s\", which knows its limits and as whom it may send: add preset = "
            "\"%s\" (`hikyaku presets %s` shows it)",
            r->what, o->host, by_host, by_host, by_host);
    check_unsent_login(r, has_password || has_oauth);
}

/* An address, a domain, .domain or "*" in the form of sends_as; NULL: the text is none of these, which was reported. */
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
                         "%s: the user is no address: write the address of the account, from = \"...\"", r->what);
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
    if (o->envelope[0] != 0)
        hky_check_envelope(L, o->envelope, r->what, place_of(r, "envelope"));
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
    /* a relay that states a host of its own does not take port and TLS from the preset */
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
            hky_complain(l, hky_place_of(l, relays[i].place, "cap", true), false,
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
    check_caps(l, relays, l->policy->n_relays);
}
