/* Which listeners are allowed, and their sockets. */
#include "accept/internal.h"

#include "base/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 1024

union address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage any;
};

static bool parse_address(const char *text, uint16_t port, union address *out, socklen_t *n)
{
    *out = (union address){0};
    if (strcmp(text, "localhost") == 0)
        text = "127.0.0.1";
    if (text[0] == '\0' || strcmp(text, "*") == 0)
        text = "0.0.0.0";
    if (inet_pton(AF_INET, text, &out->in.sin_addr) == 1) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(port);
        *n = sizeof out->in;
        return true;
    }
    if (inet_pton(AF_INET6, text, &out->in6.sin6_addr) == 1) {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(port);
        *n = sizeof out->in6;
        return true;
    }
    return false;
}

void accept_peer_of(const struct sockaddr_storage *from, struct accept_connection_peer *peer)
{
    hky_in6_of(from, &peer->addr);
    if (IN6_IS_ADDR_V4MAPPED(&peer->addr))
        inet_ntop(AF_INET, peer->addr.s6_addr + 12, peer->text, sizeof peer->text);
    else
        inet_ntop(AF_INET6, &peer->addr, peer->text, sizeof peer->text);
}

static int bound_socket(const union address *at, socklen_t n, bool is_shared)
{
    int one = 1, fd = socket(at->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (is_shared)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (at->sa.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, &at->sa, n) == 0 && (is_shared || listen(fd, BACKLOG) == 0))
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static enum hky_err bind_failed(const struct hky_listen *l, int sys, struct hky_error *e)
{
    if (sys == EADDRINUSE)
        return hky_error_set(e, HKY_E_EXISTS,
                             "%s:%u: port in use: something else listens on %s:%u; stop it, or choose another port",
                             l->place.file, l->place.line, l->addr, l->port);
    if (sys == EACCES)
        return hky_error_set(e, HKY_E_DENIED,
                             "%s:%u: %s:%u needs a privilege: choose a port above 1023, or give CAP_NET_BIND_SERVICE",
                             l->place.file, l->place.line, l->addr, l->port);
    return hky_error_sys(e, HKY_E_CONFIG, sys, "%s:%u: cannot listen on %s:%u", l->place.file, l->place.line, l->addr,
                         l->port);
}

/* Bound without SO_REUSEPORT first, so that another process on the port is noticed: two processes that set it would
 * share the port silently. */
enum hky_err accept_listener_sockets(struct hky_accept *a, const struct hky_listen *l, struct accept_listener *listener,
                                     struct hky_error *e)
{
    union address at;
    socklen_t n = 0, got = sizeof at;
    unsigned n_workers = a->params.n_workers;

    if (!parse_address(l->addr, l->port, &at, &n))
        return hky_error_set(e, HKY_E_CONFIG, "%s:%u: listen: \"%s\" is no IP address; write 127.0.0.1, ::1 or 0.0.0.0",
                             l->place.file, l->place.line, l->addr);
    int fd = bound_socket(&at, n, false);
    if (fd < 0)
        return bind_failed(l, errno, e);
    (void)getsockname(fd, &at.sa, &got);
    listener->bound_port = ntohs(at.sa.sa_family == AF_INET ? at.in.sin_port : at.in6.sin6_port);
    if (n_workers == 1) {
        listener->fds[0] = fd;
        return HKY_OK;
    }
    close(fd);
    for (unsigned i = 0; i < n_workers; i++) {
        listener->fds[i] = bound_socket(&at, n, true);
        if (listener->fds[i] < 0)
            return bind_failed(l, errno, e);
    }
    for (unsigned i = 0; i < n_workers; i++) /* all or none: what a silent socket got would wait for ever */
        if (listen(listener->fds[i], BACKLOG) != 0)
            return bind_failed(l, errno, e);
    return HKY_OK;
}

/* --- what is allowed at all --- */

enum hky_err accept_listen_check(const struct hky_listen *l, struct hky_error *e)
{
    union address at;
    socklen_t n = 0;
    struct in6_addr addr;

    if (!parse_address(l->addr, l->port, &at, &n))
        return HKY_OK; /* a wrong address is reported when it is opened */
    hky_in6_of(&at.any, &addr);
    if (hky_in6_is_loopback(&addr))
        return HKY_OK;
    if (accept_allow_is_everyone(l->allow, l->n_allow))
        return hky_error_set(e, HKY_E_CONFIG,
                             "%s:%u: allow lets everyone send through %s:%u (an open relay): name your own networks",
                             l->place.file, l->place.line, l->addr, l->port);
    if (l->n_users == 0 && l->n_allow == 0)
        return hky_error_set(e, HKY_E_CONFIG,
                             "%s:%u: %s:%u can be reached from other machines and would take mail from anyone: give it "
                             "users = {...} or allow = {...}, or listen on 127.0.0.1",
                             l->place.file, l->place.line, l->addr, l->port);
    if (l->n_users > 0 && l->n_allow == 0 && l->tls == HKY_LISTEN_PLAIN)
        return hky_error_set(e, HKY_E_CONFIG,
                             "%s:%u: logins on %s:%u need TLS: give it tls = \"starttls\", cert and key", l->place.file,
                             l->place.line, l->addr, l->port);
    return HKY_OK;
}

enum hky_err accept_listen_certificate(const struct hky_policy *policy, const struct hky_listen *l,
                                       struct hky_tls **out, struct hky_error *e)
{
    char cert[4096], key[4096];

    *out = NULL;
    if (l->tls == HKY_LISTEN_PLAIN)
        return HKY_OK;
    if (l->cert[0] == '\0')
        return hky_error_set(e, HKY_E_CONFIG, "%s:%u: tls on %s:%u needs cert and key (PEM files)", l->place.file,
                             l->place.line, l->addr, l->port);
    snprintf(cert, sizeof cert, "%s%s%s", l->cert[0] == '/' ? "" : policy->dir, l->cert[0] == '/' ? "" : "/", l->cert);
    if (l->key[0] == '\0')
        memcpy(key, cert, sizeof key);
    else
        snprintf(key, sizeof key, "%s%s%s", l->key[0] == '/' ? "" : policy->dir, l->key[0] == '/' ? "" : "/", l->key);
    return hky_tls_server_new(cert, key, out, e);
}

/* OpenSSL would wait until something is written into a pipe. */
static enum hky_err check_file(const struct hky_listen *l, const char *file, struct hky_error *e)
{
    struct stat st;

    if (file[0] == '\0' || stat(file, &st) != 0 || S_ISREG(st.st_mode))
        return HKY_OK; /* a missing file is reported in more detail when it is read */
    return hky_error_set(e, HKY_E_CONFIG, "%.60s:%u: listen: %.120s is not a regular file", l->place.file,
                         l->place.line, file);
}

enum hky_err hky_accept_check_listener(const struct hky_policy *policy, const struct hky_listen *l, struct hky_error *e)
{
    struct hky_tls *tls = NULL;
    struct hky_error why = {0};
    enum hky_err err = accept_listen_check(l, e);

    if (err == HKY_OK && l->tls != HKY_LISTEN_PLAIN)
        err = check_file(l, l->cert, e);
    if (err == HKY_OK && l->tls != HKY_LISTEN_PLAIN)
        err = check_file(l, l->key, e);
    if (err != HKY_OK)
        return err;
    err = accept_listen_certificate(policy, l, &tls, &why);
    hky_tls_unref(&tls);
    if (err == HKY_OK)
        return HKY_OK;
    return hky_error_set(e, err, "%.60s:%u: listen: %s", l->place.file, l->place.line, why.text);
}
