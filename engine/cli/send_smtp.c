/* A blocking SMTP client for one letter, and the joined streams of sendmail -bs. */
#include "base/endpoint.h"
#include "cli/send.h"

#include "mail/dot.h"
#include "mail/reply.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define REPLY_SEC 300 /* RFC 5321 4.5.3.2 */
#define DOT_SEC   600

struct peer {
    int fd;
    const char *who, *server;
    struct hky_reply_reader reader;
    struct hky_buf in, out;
    bool is_lost;
    bool has_8bitmime, has_smtputf8, has_dsn, has_size;
};

/* "host:port", "[::1]:port"; "host" is at port 2525. */
static bool parse_server(const char *server, char host[256], uint16_t *port)
{
    bool is_host = server[0] != '\0' && strlen(server) < 256 && strpbrk(server, ":[] \t") == NULL;

    if (!is_host)
        return hky_endpoint_parse(hky_str_z(server), host, port) && *port > 0;
    snprintf(host, 256, "%s", server);
    *port = 2525;
    return true;
}

bool hky_send_is_server(const char *server, const char *who)
{
    char host[256];
    uint16_t port;

    if (parse_server(server, host, &port))
        return true;
    fprintf(stderr, "%s: the server is ADDR:PORT with a port from 1 to 65535, not \"%s\"\n", who, server);
    return false;
}

static int dial(const char *server, const char *who)
{
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    uint16_t number;
    int fd = -1, sys = 0;

    HKY_ASSERT(parse_server(server, host, &number)); /* looked at with the options */
    snprintf(port, sizeof port, "%u", number);
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        fprintf(stderr, "%s: cannot find %s: %s\n", who, host, gai_strerror(rc));
        return -1;
    }
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            sys = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        fprintf(stderr,
                "%s: no engine answers at %s:%s (%s). Start it with: hikyaku run POLICY; or say where it listens with "
                "--server or HIKYAKU_SERVER\n",
                who, host, port, strerror(sys));
    return fd;
}

static void set_patience(int fd, int sec)
{
    struct timeval tv = {.tv_sec = sec};

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static void lose(struct peer *p, const char *why)
{
    if (!p->is_lost)
        fprintf(stderr, "%s: %s: %s\n", p->who, p->server, why);
    p->is_lost = true;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t r = send(fd, p, n, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return false;
        p += r;
        n -= (size_t)r;
    }
    return true;
}

static void flush_out(struct peer *p)
{
    if (!p->is_lost && p->out.n > 0 && !write_all(p->fd, p->out.p, p->out.n))
        lose(p, "the connection broke while sending");
    hky_buf_clear(&p->out);
}

/* The next reply; code 421 and a lost connection when none comes. */
static const struct hky_reply *next_reply(struct peer *p)
{
    struct hky_error e = {0};

    flush_out(p);
    while (!p->is_lost) {
        size_t used = 0;
        enum hky_reply_status st = hky_reply_read(&p->reader, p->in.p != NULL ? p->in.p : "", p->in.n, &used, &e);
        hky_buf_drop(&p->in, used);
        if (st == HKY_REPLY_WHOLE)
            return &p->reader.reply;
        if (st == HKY_REPLY_BAD) {
            lose(p, e.text);
            break;
        }
        char *to = hky_buf_reserve(&p->in, 16384);
        ssize_t n = to != NULL ? recv(p->fd, to, 16384, 0) : -1;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            lose(p, n == 0 ? "the engine closed the connection" : "no answer came in time");
        else
            p->in.n += (size_t)n;
    }
    p->reader.reply = (struct hky_reply){.code = 421};
    return &p->reader.reply;
}

static const struct hky_reply *command(struct peer *p, const char *line)
{
    hky_buf_add_z(&p->out, line);
    hky_buf_add_z(&p->out, "\r\n");
    return next_reply(p);
}

static bool is_offered(const struct peer *p, const char *word)
{
    const char *z = p->reader.lines.p;
    size_t n = strlen(word);

    for (size_t at = 0; z != NULL && at < p->reader.lines.n;) {
        const char *lf = memchr(z + at, '\n', p->reader.lines.n - at);
        size_t len = lf != NULL ? (size_t)(lf - z) - at : p->reader.lines.n - at;
        if (len >= n && hky_str_ieq(hky_str_of(z + at, n), hky_str_of(word, n)) && (len == n || z[at + n] == ' '))
            return true;
        at += len + 1;
    }
    return false;
}

static void remember(struct hky_sent *sent, const struct hky_reply *r)
{
    bool is_worse = sent->code < 500 || r->code >= 500;

    if (!is_worse)
        return;
    sent->code = r->code;
    snprintf(sent->enhanced, sizeof sent->enhanced, "%u.%u.%u", r->enhanced[0], r->enhanced[1], r->enhanced_detail);
}

static void complain(const struct peer *p, const char *what, const struct hky_reply *r)
{
    char text[HKY_REPLY_TEXT + 40];

    if (p->is_lost)
        return;
    fprintf(stderr, "%s: %s: ", p->who, what);
    hky_cli_put(stderr, hky_reply_format(r, text, sizeof text));
    fputc('\n', stderr);
}

static void add_xtext(struct hky_buf *out, const char *z)
{
    for (; *z != '\0'; z++)
        if ((unsigned char)*z > ' ' && (unsigned char)*z < 0x7f && *z != '+' && *z != '=')
            hky_buf_add_c(out, *z);
        else
            hky_buf_printf(out, "+%02X", (unsigned char)*z);
}

static bool has_utf8_address(const struct hky_outgoing *l)
{
    for (const char *p = l->sender; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            return true;
    for (size_t i = 0; i < l->n_recipients; i++)
        for (const char *p = l->recipients[i]; *p != '\0'; p++)
            if ((unsigned char)*p >= 0x80)
                return true;
    return false;
}

static bool say_mail(struct peer *p, const struct hky_outgoing *l, struct hky_sent *sent)
{
    hky_buf_printf(&p->out, "MAIL FROM:<%s>", l->sender);
    if (p->has_size)
        hky_buf_printf(&p->out, " SIZE=%zu", l->content.n);
    if (p->has_8bitmime && l->is_8bit)
        hky_buf_add_z(&p->out, " BODY=8BITMIME");
    if (p->has_smtputf8 && has_utf8_address(l))
        hky_buf_add_z(&p->out, " SMTPUTF8");
    if (p->has_dsn && l->ret != NULL)
        hky_buf_printf(&p->out, " RET=%s", hky_str_ieq(hky_str_z(l->ret), HKY_STR("full")) ? "FULL" : "HDRS");
    if (p->has_dsn && l->envid != NULL) {
        hky_buf_add_z(&p->out, " ENVID=");
        add_xtext(&p->out, l->envid);
    }
    const struct hky_reply *r = command(p, "");
    if (r->code == 250)
        return true;
    /* x.3.x is about the mail system and the size, and nobody's fault who is named here (RFC 3463) */
    bool is_of_message = r->enhanced[1] == 3 || r->code == 552 || r->code == 452;
    complain(p, is_of_message ? "the engine refused the message" : "the engine refused the sender", r);
    sent->is_data_refused = is_of_message && r->code >= 500;
    sent->n_refused = l->n_recipients - sent->n_queued;
    remember(sent, r);
    return false;
}

/* Recipients from *at on, until the engine takes no more in one message. Returns how many were taken. */
static size_t say_recipients(struct peer *p, const struct hky_outgoing *l, size_t *at, struct hky_sent *sent)
{
    size_t taken = 0;

    for (; *at < l->n_recipients && !p->is_lost; ++*at) {
        const char *notify = p->has_dsn && l->notify != NULL ? l->notify : NULL;
        hky_buf_printf(&p->out, "RCPT TO:<%s>%s", l->recipients[*at], notify != NULL ? " NOTIFY=" : "");
        for (const char *z = notify; z != NULL && *z != '\0'; z++)
            if ((unsigned char)*z > ' ')
                hky_buf_add_c(&p->out, *z);
        const struct hky_reply *r = command(p, "");
        if (r->code == 250 || r->code == 251) {
            taken++;
            continue;
        }
        if (r->code == 452 && taken > 0)
            break; /* the rest goes in another message */
        complain(p, l->recipients[*at], r);
        sent->n_refused++;
        remember(sent, r);
    }
    return taken;
}

static void emit(void *ctx, const char *octets, size_t n)
{
    struct peer *p = ctx;

    hky_buf_add(&p->out, octets, n);
    if (p->out.n > 1u << 18)
        flush_out(p);
}

static bool say_content(struct peer *p, const struct hky_outgoing *l, struct hky_sent *sent)
{
    const struct hky_reply *r = command(p, "DATA");
    uint8_t state = 1;

    if (r->code == 354) {
        for (size_t at = 0; at < l->content.n && !p->is_lost; at += 1u << 18)
            hky_dot_write(l->content.p + at, l->content.n - at < 1u << 18 ? l->content.n - at : 1u << 18, &state, emit,
                          p);
        hky_buf_add_z(&p->out, hky_dot_end(state));
        set_patience(p->fd, DOT_SEC);
        r = next_reply(p);
        set_patience(p->fd, REPLY_SEC);
    }
    if (r->code == 250) {
        const char *as = strstr(r->text, "queued as ");
        snprintf(sent->id, sizeof sent->id, "%.60s", as != NULL ? as + strlen("queued as ") : "");
        return true;
    }
    complain(p, "the engine refused the message", r);
    sent->is_data_refused = true;
    remember(sent, r);
    return false;
}

static bool say_hello(struct peer *p, const struct hky_outgoing *l, struct hky_sent *sent)
{
    const struct hky_reply *r = next_reply(p);

    if (r->code == 220) {
        hky_buf_printf(&p->out, "EHLO %s", l->origin);
        r = command(p, "");
    }
    if (r->code != 250) {
        complain(p, "the engine does not take mail now", r);
        remember(sent, r);
        return false;
    }
    p->has_8bitmime = is_offered(p, "8BITMIME");
    p->has_smtputf8 = is_offered(p, "SMTPUTF8");
    p->has_dsn = is_offered(p, "DSN");
    p->has_size = is_offered(p, "SIZE");
    return true;
}

void hky_outgoing_send(const struct hky_outgoing *l, const char *who, struct hky_sent *sent)
{
    struct peer p = {.who = who, .server = l->server};
    size_t at = 0;

    *sent = (struct hky_sent){0};
    p.fd = dial(l->server, who);
    if (p.fd < 0) {
        sent->is_unreached = true;
        return;
    }
    set_patience(p.fd, REPLY_SEC);
    hky_reply_reader_init(&p.reader);
    hky_buf_init(&p.in, 1u << 20);
    hky_buf_init(&p.out, 1u << 20);
    if (say_hello(&p, l, sent))
        while (at < l->n_recipients && !p.is_lost && say_mail(&p, l, sent)) {
            size_t taken = say_recipients(&p, l, &at, sent);
            if (taken == 0 || p.is_lost)
                break;
            if (!say_content(&p, l, sent))
                break;
            sent->n_queued += taken;
        }
    if (p.is_lost) {
        sent->is_unreached = true;
    } else {
        hky_buf_add_z(&p.out, "QUIT\r\n");
        flush_out(&p);
    }
    close(p.fd);
    hky_reply_reader_fini(&p.reader);
    hky_buf_fini(&p.in);
    hky_buf_fini(&p.out);
}

/* --- sendmail -bs --- */

static bool copy(int from, int to)
{
    char buf[16384];
    ssize_t n = read(from, buf, sizeof buf);

    if (n <= 0)
        return false;
    for (ssize_t at = 0; at < n;) {
        ssize_t w = write(to, buf + at, (size_t)(n - at));
        if (w < 0 && errno != EINTR)
            return false;
        at += w > 0 ? w : 0;
    }
    return true;
}

int hky_send_joined(const char *server, const char *who)
{
    int fd = dial(server, who);
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

    if (fd < 0) {
        puts("421 4.3.2 the mail engine is not running\r");
        return HKY_EX_TEMPFAIL;
    }
    for (;;) {
        if (poll(fds, 2, REPLY_SEC * 1000) <= 0)
            break;
        if (fds[1].revents != 0 && !copy(fd, STDOUT_FILENO))
            break;
        if (fds[0].revents != 0 && !copy(STDIN_FILENO, fd)) {
            fds[0].fd = -1;
            (void)shutdown(fd, SHUT_WR);
        }
    }
    close(fd);
    return 0;
}
