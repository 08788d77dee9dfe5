/*
 * One connection of the load: blocking, pipelined MAIL RCPT DATA, one message after the other. Replies, capabilities
 * and envelope lines are those of engine/smtp/, but the order of commands is its own and not the dialogue's: it sends
 * little but the same three lines, and CPU time spent here lowers the rate that it measures.
 */
#include "cli/load.h"

#include "base/clock.h"
#include "mail/reply.h"
#include "smtp/envelope.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
    struct hky_load *load;
    int fd;
    char in[8192];
    size_t n_in, at; /* octets read, and how many of them are used */
    struct hky_reply_reader reader;
    char refusal[512]; /* the first refusing reply of this message; with pipelining, others may follow */
    struct hky_buf out;
    struct hky_capabilities caps;
};

void hky_load_address(const struct hky_load *load, uint64_t seq, char *out, size_t n)
{
    unsigned at = (unsigned)(seq * 7919 % load->total_weight);

    for (unsigned i = 0; i < load->n_domains; i++) {
        if (at < load->domains[i].weight) {
            snprintf(out, n, "user%lu@%s", (unsigned long)seq, load->domains[i].name);
            return;
        }
        at -= load->domains[i].weight;
    }
}

static int dial(const struct hky_load *load)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *all, *a;
    struct timeval patience = {120, 0};
    int fd = -1, one = 1;

    if (getaddrinfo(load->host, load->port, &hints, &all) != 0)
        return -1;
    for (a = all; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    return fd;
}

/* The next reply's code (the reply is in c->reader), or 0 when the connection ended. */
static int read_reply(struct client *c)
{
    struct hky_error e;

    for (;;) {
        size_t used = 0;
        enum hky_reply_status status = hky_reply_read(&c->reader, c->in + c->at, c->n_in - c->at, &used, &e);
        const struct hky_reply *r = &c->reader.reply;

        c->at += used;
        if (status == HKY_REPLY_BAD)
            return 0;
        if (status == HKY_REPLY_WHOLE) {
            if (c->refusal[0] == '\0' && r->code >= 400)
                hky_reply_format(r, c->refusal, sizeof c->refusal);
            return r->code;
        }
        ssize_t k = recv(c->fd, c->in, sizeof c->in, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return 0;
        c->at = 0;
        c->n_in = (size_t)k;
    }
}

static bool send_out(struct client *c)
{
    for (size_t sent = 0; sent < c->out.n;) {
        ssize_t k = send(c->fd, c->out.p + sent, c->out.n - sent, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        sent += (size_t)k;
    }
    hky_buf_clear(&c->out);
    return true;
}

static int ask(struct client *c, const char *line)
{
    hky_buf_add_z(&c->out, line);
    return send_out(c) ? read_reply(c) : 0;
}

static bool open_client(struct client *c)
{
    c->n_in = c->at = 0;
    hky_reply_reader_fini(&c->reader);
    hky_reply_reader_init(&c->reader);
    c->fd = dial(c->load);
    if (c->fd < 0)
        return false;
    if (read_reply(c) == 220 && ask(c, "EHLO load.example\r\n") == 250) {
        hky_capabilities_parse(hky_buf_str(&c->reader.lines), &c->caps);
        return true;
    }
    close(c->fd);
    c->fd = -1;
    return false;
}

static void add_content(struct client *c, uint64_t seq, const char *to)
{
    static const char line[] = "The quick brown fox jumps over the lazy dog and runs on to the next relay.\r\n";
    const struct hky_load *load = c->load;
    size_t start = c->out.n;

    hky_buf_printf(&c->out,
                   "From: Load <%s>\r\nTo: <%s>\r\nSubject: load %lu\r\nMessage-ID: "
                   "<%s.%lu@load.example>\r\nX-Load-Id: %s-%lu\r\n",
                   load->from, to, (unsigned long)seq, load->run, (unsigned long)seq, load->run, (unsigned long)seq);
    if (load->scenario != NULL)
        hky_buf_printf(&c->out, "X-Hikyaku-Scenario: %s\r\n", load->scenario);
    hky_buf_add(&c->out, "\r\n", 2);
    while (c->out.n - start < load->size) {
        size_t left = load->size - (c->out.n - start);
        if (left < sizeof line)
            hky_buf_printf(&c->out, "%.*s\r\n", (int)(left > 2 ? left - 2 : 0), line);
        else
            hky_buf_add(&c->out, line, sizeof line - 1);
    }
    hky_buf_add(&c->out, ".\r\n", 3);
}

static void note(struct client *c, uint64_t seq, enum hky_load_state state)
{
    struct hky_load *load = c->load;
    const char *why = c->refusal[0] != '\0' ? c->refusal : "the connection ended";

    load->states[seq] = (unsigned char)state;
    __atomic_add_fetch(&load->done, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&load->lock);
    if (state == HKY_LOAD_REFUSED && load->first_refusal[0] == '\0')
        snprintf(load->first_refusal, sizeof load->first_refusal, "%.250s", why);
    if (load->ids != NULL) {
        const char *id = strstr(c->reader.reply.text, "queued as ");
        fprintf(load->ids, "%lu %s %s\n", (unsigned long)seq,
                state == HKY_LOAD_ACKED     ? "acked"
                : state == HKY_LOAD_REFUSED ? "refused"
                                            : "unknown",
                state == HKY_LOAD_UNKNOWN   ? ""
                : state == HKY_LOAD_REFUSED ? why
                : id != NULL                ? id + 10
                                            : c->reader.reply.text);
        fflush(load->ids);
    }
    pthread_mutex_unlock(&load->lock);
}

/* Waits until message `seq` is due at the given rate. */
static void wait_for_turn(const struct hky_load *load, uint64_t seq)
{
    int64_t due_ns, left_ns;

    if (load->rate == 0)
        return;
    due_ns = load->started_ns + (int64_t)(seq * 1000000000u / load->rate);
    left_ns = due_ns - hky_mono_ns();
    if (left_ns > 0)
        usleep((useconds_t)(left_ns / 1000));
}

/* False: the connection can no longer be used. */
static bool send_one(struct client *c, uint64_t seq)
{
    static const struct hky_capabilities plain; /* no parameters */
    char to[320];
    int mail, data, dot;
    int64_t at;

    c->refusal[0] = '\0';
    hky_load_address(c->load, seq, to, sizeof to);
    struct hky_rcpt_line rcpt = {.address = hky_str_z(to)};
    hky_mail_line_write(&(struct hky_mail_line){.sender = hky_str_z(c->load->from), .ret = ""}, &plain, &c->out);
    if (c->caps.pipelining) {
        hky_rcpt_line_write(&rcpt, &plain, &c->out);
        hky_buf_add(&c->out, "DATA\r\n", 6);
        if (!send_out(c) || (mail = read_reply(c)) == 0 || read_reply(c) == 0 || (data = read_reply(c)) == 0) {
            note(c, seq, HKY_LOAD_REFUSED);
            return false;
        }
    } else {
        mail = send_out(c) ? read_reply(c) : 0;
        hky_rcpt_line_write(&rcpt, &plain, &c->out);
        data = mail == 250 && send_out(c) ? read_reply(c) : mail;
        data = data == 250 ? ask(c, "DATA\r\n") : data;
    }
    if (data != 354) {
        note(c, seq, HKY_LOAD_REFUSED);
        hky_buf_clear(&c->out);
        return mail != 0 && ask(c, "RSET\r\n") == 250;
    }
    add_content(c, seq, to);
    at = hky_mono_ns();
    dot = send_out(c) ? read_reply(c) : 0;
    c->load->latency_us[seq] = (uint32_t)((hky_mono_ns() - at) / 1000);
    note(c, seq, dot == 250 ? HKY_LOAD_ACKED : dot == 0 ? HKY_LOAD_UNKNOWN : HKY_LOAD_REFUSED);
    return dot != 0 && dot != 421;
}

void *hky_load_client(void *arg)
{
    struct hky_load *load = arg;
    struct client c = {.load = load, .fd = -1};
    int failures = 0;

    hky_buf_init(&c.out, load->size + 65536);
    hky_reply_reader_init(&c.reader);
    while (!__atomic_load_n(&load->is_stopping, __ATOMIC_RELAXED)) {
        uint64_t seq;
        if (c.fd < 0 && !open_client(&c)) {
            /* The engine may be restarting: tries for half a minute, or for a second if it never answered. */
            if (++failures > (__atomic_load_n(&load->is_answered, __ATOMIC_RELAXED) ? 300 : 10))
                break;
            usleep(100000);
            continue;
        }
        failures = 0;
        __atomic_store_n(&load->is_answered, true, __ATOMIC_RELAXED);
        seq = __atomic_fetch_add(&load->next, 1, __ATOMIC_RELAXED);
        if (seq >= load->n)
            break;
        wait_for_turn(load, seq);
        if (!send_one(&c, seq)) {
            close(c.fd);
            c.fd = -1;
            hky_buf_clear(&c.out);
        }
    }
    if (c.fd >= 0) {
        (void)ask(&c, "QUIT\r\n");
        close(c.fd);
    }
    hky_buf_fini(&c.out);
    hky_reply_reader_fini(&c.reader);
    return NULL;
}
