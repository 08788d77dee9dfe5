/* Compiles engine { } into the engine's options, with their defaults. */
#include "base/endpoint.h"
#include "route/load/loader.h"
#include "route/table/value.h"

#include "mail/address.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *keep(struct hky_loader *l, const char *z)
{
    return hky_arena_z(&l->table->arena, z);
}

static void defaults(struct hky_loader *l, struct hky_engine_options *o)
{
    char name[256] = "localhost", spool[PATH_MAX + 16];
    static const uint32_t retry[] = {300, 900, 3600, 14400};

    if (gethostname(name, sizeof name) != 0 || name[0] == 0)
        snprintf(name, sizeof name, "localhost");
    name[sizeof name - 1] = 0;
    snprintf(spool, sizeof spool, "%s/spool", l->policy->dir);
    *o = (struct hky_engine_options){
        .place = {l->table->files[0].name, 1},
        .hostname = keep(l, name),
        .spool = keep(l, spool),
        .http = "",
        .owner = "",
        .timezone = "",
        .resolver = "",
        .expire_sec = 2 * 86400,
        .parked_sec = 7 * 86400,
        .max_message = UINT64_C(35) << 20,
        .dsn = HKY_DSN_UNSET,
        .log = "info",
        .redirect = "",
        .bounds = {.line_octets = 2048,
                   .recipients = 1000,
                   .header_octets = 256u << 10,
                   .header_lines = 1000,
                   .received = 50,
                   .connections = 2000,
                   .connections_per_client = 200,
                   .errors = 20,
                   .auth_tries = 3,
                   .hosts = 5,
                   .body_memory = UINT64_C(256) << 20,
                   .min_free = UINT64_C(256) << 20,
                   .lua_instructions = 100000,
                   .lua_ms = 5,
                   .lua_memory = UINT64_C(64) << 20,
                   .lookup_ms = 10000,
                   .mail_hosts = 10000,
                   .command_ms = 300000,
                   .data_ms = 300000},
    };
    o->retry.n = sizeof retry / sizeof retry[0];
    memcpy(o->retry.after_sec, retry, sizeof retry);
}

static void read_bounds(struct hky_loader *l, int body, struct hky_place place, struct hky_bounds *b)
{
    static const struct hky_key *const keys[] = {hky_keys_bounds, NULL};
    lua_State *L = l->vm->L;
    struct {
        const char *key;
        uint32_t *to;
    } numbers[] = {{"line_octets", &b->line_octets},
                   {"recipients", &b->recipients},
                   {"header_lines", &b->header_lines},
                   {"received", &b->received},
                   {"connections", &b->connections},
                   {"connections_per_client", &b->connections_per_client},
                   {"errors", &b->errors},
                   {"auth_tries", &b->auth_tries},
                   {"hosts", &b->hosts},
                   {"lua_instructions", &b->lua_instructions},
                   {"lua_ms", &b->lua_ms},
                   {"mail_hosts", &b->mail_hosts}};

    hky_keys_check(L, body, keys, false, "engine.bounds", place);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        *numbers[i].to = (uint32_t)hky_key_get_int(L, body, numbers[i].key, *numbers[i].to);
    b->header_octets = (uint32_t)hky_key_get_octets(L, body, "header_octets", b->header_octets);
    b->body_memory = hky_key_get_octets(L, body, "body_memory", b->body_memory);
    b->spool_max = hky_key_get_octets(L, body, "spool_max", b->spool_max);
    b->min_free = hky_key_get_octets(L, body, "min_free", b->min_free);
    b->segment_octets = hky_key_get_octets(L, body, "segment", b->segment_octets);
    b->cold_after_ms = hky_key_get_duration(L, body, "cold_after", b->cold_after_ms / 1000) * 1000;
    b->lookup_ms = hky_key_get_duration(L, body, "lookup", b->lookup_ms / 1000) * 1000;
    b->lua_memory = hky_key_get_octets(L, body, "lua_memory", b->lua_memory);
    b->command_ms = hky_key_get_duration(L, body, "command", b->command_ms / 1000) * 1000;
    b->data_ms = hky_key_get_duration(L, body, "data", b->data_ms / 1000) * 1000;
}

/* Read a string of the form "host:port"; another text is a problem. */
static const char *endpoint(struct hky_loader *l, int body, const char *key, bool must_be_ip, struct hky_place place)
{
    const char *s = hky_key_get_string(l->vm->L, body, key, "");
    char host[256];
    uint16_t port;

    if (s[0] == 0)
        return "";
    place = hky_loader_place_of(l, place, key, true);
    if (!hky_endpoint_parse(hky_str_z(s), host, &port) || (must_be_ip && !hky_ip_is_valid(host))) {
        hky_loader_complain(l, place, false, "engine: %s must be \"%s:port\", not \"%.80s\"", key,
                            must_be_ip ? "address" : "host", s);
        return "";
    }
    if (port == 0 && strcmp(key, "http") != 0) {
        hky_loader_complain(l, place, false, "engine: %s \"%.80s\": no server has port 0: write its port, 1 to 65535",
                            key, s);
        return "";
    }
    return keep(l, s);
}

static bool is_named(const struct hky_policy *p, const struct hky_recipient *r)
{
    struct hky_match_key key;

    hky_match_key_init(&key, hky_recipient_address(r));
    return hky_match_has(&p->table->only_to, &key);
}

static void read_only_to(struct hky_loader *l, int body, struct hky_place place, struct hky_engine_options *o)
{
    lua_State *L = l->vm->L;
    int type = hky_key_get(L, body, "only_to");

    if (type != LUA_TNIL && type != LUA_TBOOLEAN) {
        hky_loader_read_match(l, lua_gettop(L), "engine: only_to", hky_loader_place_of(l, place, "only_to", true),
                              HKY_MATCH_OF_ADDRESS, &l->table->only_to);
        o->reaches = is_named;
    }
    lua_pop(L, 1);
}

static void read_names(struct hky_loader *l, int body, struct hky_place place, struct hky_engine_options *o)
{
    lua_State *L = l->vm->L;
    const char *s;
    char path[PATH_MAX * 2], domain[HKY_DOMAIN_MAX + 1];
    struct hky_error e = {0};
    struct hky_address a;

    s = hky_key_get_string(L, body, "hostname", NULL);
    if (s != NULL && (hky_domain_normalise(hky_str_z(s), domain, &e) != HKY_OK))
        hky_loader_complain(l, hky_loader_place_of(l, place, "hostname", true), false, "engine: hostname \"%.80s\": %s",
                            s, e.text);
    else if (s != NULL)
        o->hostname = keep(l, domain);
    s = hky_key_get_string(L, body, "spool", NULL);
    if (s != NULL && s[0] != 0) {
        snprintf(path, sizeof path, s[0] == '/' ? "%.0s%s" : "%s/%s", l->policy->dir, s);
        o->spool = keep(l, path);
    }
    s = hky_key_get_string(L, body, "owner", "");
    if (s[0] != 0 && hky_mailbox_parse(hky_str_z(s), &a, &e) != HKY_OK)
        hky_loader_complain(l, hky_loader_place_of(l, place, "owner", true), false,
                            "engine: owner \"%.80s\" is no address: %s", s, e.text);
    else if (s[0] != 0)
        o->owner = keep(l, a.text);
    o->timezone = keep(l, hky_key_get_string(L, body, "timezone", ""));
    s = hky_key_get_string(L, body, "log", "info");
    if (strcmp(s, "error") != 0 && strcmp(s, "warn") != 0 && strcmp(s, "info") != 0 && strcmp(s, "debug") != 0)
        hky_loader_complain(l, hky_loader_place_of(l, place, "log", true), false,
                            "engine: log must be error, warn, info or debug");
    o->log = keep(l, s);
    s = hky_key_get_string(L, body, "dsn", NULL);
    if (s != NULL) {
        if (strcmp(s, "each") == 0)
            o->dsn = HKY_DSN_EACH;
        else if (strcmp(s, "digest") == 0)
            o->dsn = HKY_DSN_DIGEST;
        else if (strcmp(s, "none") == 0)
            o->dsn = HKY_DSN_NONE;
        else
            hky_loader_complain(l, hky_loader_place_of(l, place, "dsn", true), false,
                                "engine: dsn must be each, digest or none");
    }
}

static void read_engine(struct hky_loader *l, const struct hky_decl *d, struct hky_engine_options *o)
{
    static const struct hky_key *const keys[] = {hky_keys_engine, NULL};
    lua_State *L = l->vm->L;
    char host[256];
    uint16_t port;
    int body;

    lua_rawgeti(L, LUA_REGISTRYINDEX, d->ref);
    body = lua_gettop(L);
    o->place = d->place;
    hky_keys_check(L, body, keys, false, "engine", d->place);
    read_names(l, body, d->place, o);
    o->http = endpoint(l, body, "http", true, d->place);
    if (o->http[0] != 0 && hky_endpoint_parse(hky_str_z(o->http), host, &port) && !hky_is_loopback(host)) {
        hky_loader_complain(l, hky_loader_place_of(l, d->place, "http", true), false,
                            "engine: http is for this machine only: write \"127.0.0.1:%u\", not \"%.80s\"", port,
                            o->http);
        o->http = "";
    }
    o->resolver = endpoint(l, body, "resolver", true, d->place);
    o->redirect = endpoint(l, body, "redirect", false, d->place);
    o->workers = (uint32_t)hky_key_get_int(L, body, "workers", 0);
    o->expire_sec = hky_key_get_duration(L, body, "expire", o->expire_sec);
    o->parked_sec = hky_key_get_duration(L, body, "parked", o->parked_sec);
    o->max_message = hky_key_get_octets(L, body, "max_message", o->max_message);
    if (hky_key_get(L, body, "retry") != LUA_TNIL) {
        struct hky_retry retry;
        if (hky_lua_read_retry(L, lua_gettop(L), hky_loader_place_of(l, d->place, "retry", true), &retry))
            o->retry = retry;
    }
    if (hky_key_get(L, body, "bounds") == LUA_TTABLE)
        read_bounds(l, lua_gettop(L), d->place, &o->bounds);
    read_only_to(l, body, d->place, o);
    if (hky_key_get(L, body, "listen") != LUA_TNIL)
        hky_loader_compile_listen(l, lua_gettop(L), d->place, o);
    lua_settop(L, body - 1);
}

void hky_loader_compile_engine(struct hky_loader *l)
{
    struct hky_engine_options *o = &l->policy->engine;
    const struct hky_decl *first = NULL;
    struct hky_error e = {0};

    defaults(l, o);
    for (size_t i = 0; i < l->n_decls; i++) {
        if (l->decls[i].kind != HKY_DECL_ENGINE)
            continue;
        if (first != NULL) {
            hky_loader_complain(l, l->decls[i].place, false, "engine is declared twice, first at %s:%u",
                                first->place.file, first->place.line);
            continue;
        }
        first = &l->decls[i];
        read_engine(l, first, o);
    }
    if (o->n_listen == 0) {
        struct hky_listen *one = hky_arena_alloc(&l->table->arena, sizeof *one);
        *one = (struct hky_listen){.place = o->place, .addr = "127.0.0.1", .port = 2525, .cert = "", .key = ""};
        o->listen = one;
        o->n_listen = 1;
    }
    hky_loader_check_ports(l);
    if (hky_zone_new(o->timezone, &l->table->zone, &e) != HKY_OK)
        hky_loader_complain(l, hky_loader_place_of(l, o->place, "timezone", true), false, "engine: timezone: %s",
                            e.text);
}
