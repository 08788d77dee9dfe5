/* Two listeners on one address, which `run` could not open, and mail that would be sent to the engine's own listener.
 */
#include "base/endpoint.h"
#include "route/load/loader.h"

#include <arpa/inet.h>
#include <stdio.h>

struct end {
    int family;
    unsigned char ip[16];
    uint16_t port;
};

static bool end_of(const char *host, uint16_t port, struct end *out)
{
    *out = (struct end){.family = AF_INET, .port = port};
    if (inet_pton(AF_INET, host, out->ip) == 1)
        return true;
    out->family = AF_INET6;
    return inet_pton(AF_INET6, host, out->ip) == 1;
}

static bool is_any(const struct end *a)
{
    static const unsigned char any[16];

    return memcmp(a->ip, any, sizeof any) == 0;
}

/* Port 0 is a free port, another one for each listener. An IPv6 listener takes no IPv4. */
static bool collide(const struct end *a, const struct end *b)
{
    return a->port != 0 && a->port == b->port && a->family == b->family &&
           (memcmp(a->ip, b->ip, sizeof a->ip) == 0 || is_any(a) || is_any(b));
}

void hky_loader_check_ports(struct hky_loader *l)
{
    const struct hky_engine_options *o = &l->policy->engine;
    struct end mine, other;
    char host[256];
    uint16_t port;

    for (uint32_t i = 0; i < o->n_listen; i++) {
        const struct hky_listen *one = &o->listen[i];
        if (!end_of(one->addr, one->port, &mine))
            continue;
        for (uint32_t k = 0; k < i; k++)
            if (end_of(o->listen[k].addr, o->listen[k].port, &other) && collide(&mine, &other)) {
                hky_loader_complain(
                    l, one->place, false,
                    "listen: %s, port %u, is taken by the listener at %s already: leave one of them out, or "
                    "write another port",
                    one->addr, one->port, o->listen[k].addr);
                break;
            }
        if (o->http[0] != 0 && hky_endpoint_parse(hky_str_z(o->http), host, &port) && end_of(host, port, &other) &&
            collide(&mine, &other))
            hky_loader_complain(l, hky_loader_place_of(l, o->place, "http", true), false,
                                "engine: http \"%s\" is the address of a listener for mail: write another port",
                                o->http);
    }
}

static bool is_own_listener(const struct hky_policy *p, const char *host, uint16_t port)
{
    struct end to, mine;

    if (!end_of(strcasecmp(host, "localhost") == 0 ? "127.0.0.1" : host, port, &to))
        return false;
    for (uint32_t i = 0; i < p->engine.n_listen; i++) {
        const struct hky_listen *one = &p->engine.listen[i];
        if (!end_of(one->addr, one->port, &mine) || !collide(&to, &mine))
            continue;
        if (!is_any(&mine) || hky_is_loopback(host)) /* of 0.0.0.0, another machine's address is no sign */
            return true;
    }
    return false;
}

void hky_loader_check_loops(struct hky_loader *l)
{
    const struct hky_policy *p = l->policy;
    const char *redirect = p->engine.redirect;
    char host[256];
    uint16_t port;

    if (redirect[0] != 0) {
        if (hky_endpoint_parse(hky_str_z(redirect), host, &port) && is_own_listener(p, host, port))
            hky_loader_complain(
                l, hky_loader_place_of(l, p->engine.place, "redirect", true), true,
                "engine: redirect \"%s\" is this engine's own listener, so that all mail comes back to it "
                "until it fails: name another server, such as that of `hikyaku sink`",
                redirect);
        return; /* no relay is connected to */
    }
    for (uint32_t i = 0; i < p->n_relays; i++) {
        const struct hky_relay *r = &p->relays[i];
        if (!r->is_mx && is_own_listener(p, r->host, r->port))
            hky_loader_complain(
                l, r->place, true,
                "relay \"%s\": %s, port %u, is this engine's own listener, so that its mail comes back until "
                "it fails: name the server that the mail is for",
                r->name, r->host, r->port);
    }
}
