#include "net/acceptor.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct hky_acceptor {
    struct hky_loop *loop;
    struct hky_acceptor_ops ops;
    void *ctx;
    int fd, reserved_fd;     /* reserved_fd: closed for a moment to refuse a client; -1 when none could be opened */
    struct hky_watch *watch; /* NULL: it rests */
    struct hky_timer rest;
    int64_t reported_at_ms; /* when `refused` last had is_first; 0: never */
    bool is_in_turn;
};

static void on_readable(void *ctx, int bits);

static void rest(struct hky_acceptor *a)
{
    hky_watch_free(&a->watch);
    hky_timer_set(&a->rest, HKY_ACCEPTOR_REST_MS);
}

static void on_rested(struct hky_timer *timer)
{
    struct hky_acceptor *a = HKY_CONTAINER(timer, struct hky_acceptor, rest);

    if (a->reserved_fd < 0)
        a->reserved_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    a->watch = hky_watch_new_level(a->loop, a->fd, HKY_READABLE, on_readable, a);
}

static int take(struct hky_acceptor *a, struct sockaddr_storage *from)
{
    socklen_t n = sizeof *from;

    *from = (struct sockaddr_storage){0};
    return a->ops.accept(a->fd, (struct sockaddr *)from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Refuses the client that waits longest, by means of the descriptor that is kept for this; the others wait until the
 * acceptor has rested. */
static void refuse_one(struct hky_acceptor *a, int sys)
{
    int64_t now = hky_loop_now_ms(a->loop);
    bool is_first = a->reported_at_ms == 0 || now - a->reported_at_ms >= HKY_ACCEPTOR_REPORT_MS;
    struct sockaddr_storage from;
    int fd = -1;

    if (is_first)
        a->reported_at_ms = now;
    if (a->reserved_fd >= 0) {
        close(a->reserved_fd);
        fd = take(a, &from);
    }
    if (a->ops.refused != NULL)
        a->ops.refused(a->ctx, fd, sys, is_first);
    if (fd >= 0)
        close(fd);
    a->reserved_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* True: another connection may be waiting all the same. */
static bool can_continue_after(struct hky_acceptor *a, int sys)
{
    switch (sys) {
    case EAGAIN:
        return false;
    case EINTR:
    case ECONNABORTED: /* the client gave up, or, as accept(2) says, the network failed */
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case EOPNOTSUPP:
    case EPERM: /* a rule of the firewall forbids the connection */
        return true;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        refuse_one(a, sys);
        break;
    default:
        break;
    }
    rest(a);
    return false;
}

static void on_readable(void *ctx, int bits)
{
    struct hky_acceptor *a = ctx;
    struct sockaddr_storage from;

    (void)bits;
    a->is_in_turn = true;
    for (int i = 0; i < HKY_ACCEPTOR_TURN; i++) {
        int fd = take(a, &from);
        if (fd < 0 && !can_continue_after(a, errno))
            break;
        if (fd < 0)
            continue;
        a->ops.taken(a->ctx, fd, &from);
    }
    a->is_in_turn = false;
}

struct hky_acceptor *hky_acceptor_new(struct hky_loop *loop, int fd, const struct hky_acceptor_ops *ops, void *ctx)
{
    struct hky_acceptor *a = hky_calloc(1, sizeof *a);

    a->loop = loop;
    a->ops = *ops;
    if (a->ops.accept == NULL)
        a->ops.accept = accept4;
    a->ctx = ctx;
    a->fd = fd;
    a->reserved_fd = -1;
    hky_timer_init(&a->rest, loop, on_rested);
    on_rested(&a->rest);
    return a;
}

void hky_acceptor_free(struct hky_acceptor **pa)
{
    struct hky_acceptor *a = *pa;

    *pa = NULL;
    if (a == NULL)
        return;
    HKY_ASSERT(!a->is_in_turn);
    hky_watch_free(&a->watch);
    hky_timer_cancel(&a->rest);
    if (a->reserved_fd >= 0)
        close(a->reserved_fd);
    free(a);
}
