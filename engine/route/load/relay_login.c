/* As whom a relay logs in, by password or OAuth, and whether the secret would ever be sent. */
#include "base/endpoint.h"
#include "route/load/relay_reader.h"
#include "route/table/inside.h"

#include <string.h>

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
static const char *preset_of_host(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    int top = lua_gettop(L);
    const char *found = NULL, *domain;

    if (r->out->host[0] == 0)
        return NULL;
    lua_getfield(L, LUA_REGISTRYINDEX, "hky.preset_hosts");
    for (const char *at = r->out->host; at != NULL && found == NULL; at = strchr(at + 1, '.'))
        found = hky_key_get_string(L, top + 1, at, NULL);
    if (found != NULL && (domain = strchr(r->out->user, '@')) != NULL)
        found = hky_key_get_string(L, top + 1, domain, found); /* one host for companies and persons */
    if (found != NULL)
        found = hky_loader_keep(r->l, found);
    lua_settop(L, top);
    return found;
}

/* The URL at which the provider of the relay's preset, or of its host, gives out access tokens; "": unknown. */
static const char *token_url_of(struct hky_relay_reader *r)
{
    lua_State *L = r->l->vm->L;
    int top = lua_gettop(L);
    const char *preset = hky_key_get_string(L, r->body, "preset", NULL), *url = "";

    preset = preset != NULL ? preset : preset_of_host(r);
    if (preset == NULL)
        return "";
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
    if (hky_key_get(L, top + 1, preset) == LUA_TTABLE)
        url = hky_loader_keep(r->l, hky_key_get_string(L, top + 2, "token_url", ""));
    lua_settop(L, top);
    return url;
}

/* Is a value there that cannot be used? That was reported; and whether one that is misspelt was meant is not known. */
static bool has_faulty(struct hky_relay_reader *r, int body, const char *key)
{
    int type = hky_key_get(r->l->vm->L, body, key);
    bool is_faulty = type != LUA_TNIL && type != LUA_TSTRING && !hky_lua_is_kind(r->l->vm->L, -1, HKY_UD_SECRET);

    lua_pop(r->l->vm->L, 1);
    return is_faulty;
}

static void read_oauth(struct hky_relay_reader *r)
{
    static const struct hky_key *const keys[] = {hky_keys_oauth, NULL};
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    int body;

    o->oauth.client = o->oauth.token_url = o->oauth.scope = "";
    if (hky_key_get(L, r->body, "oauth") != LUA_TTABLE)
        return;
    body = lua_gettop(L);
    hky_keys_check(L, body, keys, false, r->what, r->spec->place);
    o->oauth.client = hky_loader_keep(r->l, hky_key_get_string(L, body, "client", ""));
    o->oauth.token_url = hky_loader_keep(r->l, hky_key_get_string(L, body, "token_url", token_url_of(r)));
    if (o->oauth.token_url[0] != '\0' && !is_safe_for_secrets(hky_str_z(o->oauth.token_url)))
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "token_url"), false,
            "%s: oauth.token_url \"%.100s\" would send the client secret and the refresh token unencrypted, or "
            "is no address of a web page: write https://HOST/...; http:// is for loopback addresses "
            "(http://127.0.0.1:8080/...) only",
            r->what, o->oauth.token_url);
    o->oauth.scope = hky_loader_keep(r->l, hky_key_get_string(L, body, "scope", ""));
    hky_key_get(L, body, "client_secret");
    o->oauth.client_secret = hky_loader_read_secret(r->l, lua_gettop(L), "client_secret", r->what, r->spec->place);
    hky_key_get(L, body, "refresh");
    o->oauth.refresh = hky_loader_read_secret(r->l, lua_gettop(L), "refresh", r->what, r->spec->place);
    if (hky_key_get(L, body, "token_command") == LUA_TTABLE)
        o->oauth.token_command = hky_loader_read_strings(r->l, lua_gettop(L));
    if (o->oauth.token_command != NULL && o->oauth.token_command[0] == NULL)
        o->oauth.token_command = NULL; /* no program: as if the key were not there */
    if (has_faulty(r, body, "client") || has_faulty(r, body, "refresh") || has_faulty(r, body, "token_url"))
        return; /* what is said of a key is enough */
    if (o->oauth.token_command == NULL && (o->oauth.client[0] == 0 || o->oauth.refresh.name == NULL))
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "oauth"), false,
            "%s: oauth needs client, refresh = secret \"name\" and token_url, or token_command = { ... }", r->what);
    else if (o->oauth.token_command == NULL && o->oauth.token_url[0] == '\0' &&
             hky_key_get(L, body, "token_url") != LUA_TSTRING)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "oauth"), false,
            "%s: oauth has a refresh token, but nothing says where it is given for an access token: write "
            "token_url = \"https://HOST/...\", or token_command = { ... }",
            r->what);
}

/* Report the first mistake in the login; further ones would only follow from it. */
static void check_login(struct hky_relay_reader *r, bool has_password, bool has_oauth, bool is_oauth_only,
                        const char *preset)
{
    const struct hky_relay *o = r->out;
    bool needs_oauth = o->auth == HKY_AUTH_XOAUTH2 || o->auth == HKY_AUTH_OAUTHBEARER;
    bool needs_login = o->auth != HKY_AUTH_NONE || has_password || has_oauth;

    if (o->is_mx && (needs_login || o->user[0] != 0)) {
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, o->user[0] != 0 ? "user" : "mx"), false,
            "%s: mx = true delivers to the recipients' own mail hosts, where nobody logs in: leave user "
            "and password out, or name the server that they are for, host = \"...\"",
            r->what);
        return;
    }
    r->lacks_user = o->user[0] == 0 && (needs_login || hky_relay_reader_is_reported(r, "user", LUA_TSTRING));
    if (is_oauth_only && has_password)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "password"), false,
            "%s: %s takes no password any more: write preset = \"%s\", oauth = { client = ..., refresh = secret "
            "\"name\" }",
            r->what, o->preset[0] != 0 ? o->preset : o->host, preset);
    else if (r->lacks_user && hky_relay_reader_is_reported(r, "user", LUA_TSTRING))
        return;
    else if (r->lacks_user && (has_password || has_oauth))
        hky_loader_complain(r->l, r->spec->place, false, "%s: there is a password but no user: write user = \"...\"",
                            r->what);
    else if (r->lacks_user)
        hky_loader_complain(r->l, hky_relay_reader_place(r, "auth"), false,
                            "%s: auth is written, but user and password are missing", r->what);
    else if (needs_oauth && !has_oauth && !hky_relay_reader_is_reported(r, "oauth", LUA_TNIL))
        hky_loader_complain(r->l, hky_relay_reader_place(r, "auth"), false,
                            "%s: OAuth2 is asked for, but oauth = { ... } is missing", r->what);
    else if (!needs_oauth && o->auth != HKY_AUTH_NONE && !has_password && !has_oauth &&
             !hky_relay_reader_is_reported(r, "password", LUA_TNIL) &&
             !hky_relay_reader_is_reported(r, "oauth", LUA_TNIL))
        hky_loader_complain(r->l, r->spec->place, false,
                            "%s: there is a user but no password: write password = secret \"name\"", r->what);
}

/* Report a password that would never be sent, so that the relay could not deliver anything. */
static void check_unsent_login(struct hky_relay_reader *r, bool has_login)
{
    const struct hky_relay *o = r->out;
    bool is_here = hky_host_is_here(o->host);

    if (!has_login || o->is_mx || o->host[0] == 0)
        return;
    if (o->tls == HKY_TLS_OPPORTUNISTIC)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, hky_relay_reader_has(r, "tls") ? "tls" : "port"), false,
            "%s: %s is opportunistic TLS, which checks no certificate, so the password is never sent: write "
            "port = 587, or tls = \"starttls\" if the server offers it at port %u",
            r->what, hky_relay_reader_has(r, "tls") ? "this" : "port 25", o->port);
    else if (o->tls == HKY_TLS_NONE && !is_here && o->auth == HKY_AUTH_AUTO)
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "tls"), true,
            "%s: with tls = \"none\" the password is sent to this machine only: write tls = \"starttls\", or "
            "name a mechanism, auth = \"login\", if everybody on the network may read it",
            r->what);
    else if (o->tls == HKY_TLS_NONE && !is_here)
        hky_loader_complain(r->l, hky_relay_reader_place(r, "tls"), true,
                            "%s: the password goes over the network unprotected (tls = \"none\")", r->what);
}

void hky_relay_reader_login(struct hky_relay_reader *r)
{
    static const char *const names[] = {
#define X(id, value, name, offered) value,
        HKY_AUTHS(X)
#undef X
    };
    lua_State *L = r->l->vm->L;
    struct hky_relay *o = r->out;
    bool has_password, has_oauth, is_oauth_only = false;
    const char *preset = hky_key_get_string(L, r->body, "preset", NULL), *by_host;

    o->user = hky_loader_keep(r->l, hky_key_get_string(L, r->merged, "user", ""));
    hky_key_get(L, r->body, "password");
    o->password = hky_loader_read_secret(r->l, lua_gettop(L), "password", r->what, r->spec->place);
    read_oauth(r);
    has_password = o->password.name != NULL || o->password.literal != NULL;
    has_oauth = o->oauth.client[0] != 0 || o->oauth.token_command != NULL;
    o->auth = (enum hky_auth)hky_relay_reader_choice(r, "auth", names, HKY_AUTH_N,
                                                     o->user[0] != 0 ? HKY_AUTH_AUTO : HKY_AUTH_NONE);
    by_host = preset == NULL ? preset_of_host(r) : NULL;
    if (preset != NULL || by_host != NULL) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, "hky.presets");
        if (hky_key_get(L, lua_gettop(L), preset != NULL ? preset : by_host) == LUA_TTABLE)
            is_oauth_only = hky_key_get_bool(L, lua_gettop(L), "oauth_only", false);
    }
    check_login(r, has_password, has_oauth, is_oauth_only, preset != NULL ? preset : by_host);
    if (by_host != NULL && !(is_oauth_only && has_password))
        hky_loader_complain(
            r->l, hky_relay_reader_place(r, "host"), true,
            "%s: %s is a server of preset \"%s\", which knows its limits and as whom it may send: add preset = "
            "\"%s\" (`hikyaku presets %s` shows it)",
            r->what, o->host, by_host, by_host, by_host);
    check_unsent_login(r, has_password || has_oauth);
}
