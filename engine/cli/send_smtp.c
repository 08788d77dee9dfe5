/* Sends one letter over a blocking socket with the engine's SMTP dialogue; joins the streams of sendmail -bs. */
#include "base/endpoint.h"
#include "cli/send.h"

#include "hikyaku/message.h"
#include "mail/address.h"
#include "mail/dot.h"
#include "mail/reply.h"
#include "smtp/envelope.h"

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
#define GROUP_MAX 1000 /* recipients of one transaction: their commands and replies fit into the socket buffers */
#define PIECE     (1u << 18)

struct peer {
    int fd;
    const char *who;
    const struct hky_outgoing *letter;
    struct hky_sent *sent;
    struct hky_dialogue dialogue;
    struct hky_reply_reader reader;
    struct hky_buf in, out;
    size_t *waiting, n_waiting; /* recipients that are not in a transaction yet */
    /* the transaction under way */
    struct hky_transaction txn;
    size_t of[GROUP_MAX]; /* the letter's index of each recipient in the transaction */
    uint8_t verdicts[GROUP_MAX];
    bool is_under_way, has_complained;
    bool is_lost, is_over;
};

/* Reads "host:port" or "[::1]:port"; the port of "host" is 2525. */
static bool parse_server(const char *server, char host[256], uint16_t *port)
{
    bool is_host = server[0] != '\0' && strlen(server) < 256 && strpbrk(server, ":[] \t") == NULL;

    if (!is_host)
        return hky_endpoint_parse(hky_str_z(server), host, port) && *port > 0;
    snprintf(host, 256, "%s", server);
    *port = 2525;
    return true;
}

bool hky_cli_send_is_server(const char *server, const char *who)
{
    char host[256];
    uint16_t port;

    if (parse_server(server, host, &port))
        return true;
    hky_cli_printf(stderr, "%s: the server is ADDR:PORT with a port from 1 to 65535, not \"%s\"\n", who, server);
    return false;
}

static int dial(const char *server, const char *who)
{
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    uint16_t number;
    int fd = -1, sys = 0;

    HKY_ASSERT(parse_server(server, host, &number)); /* checked with the options */
    snprintf(port, sizeof port, "%u", number);
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        hky_cli_printf(stderr, "%s: cannot find %s: %s\n", who, host, gai_strerror(rc));
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
        hky_cli_printf(
            stderr,
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
        hky_cli_printf(stderr, "%s: %s: %s\n", p->who, p->letter->server, why);
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

/* ---- results of the recipients ---- */

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
    hky_cli_printf(stderr, "%s: %s: ", p->who, what);
    hky_cli_put(stderr, hky_reply_format(r, text, sizeof text));
    fputc('\n', stderr);
}

/* A refusal of the whole transaction comes for each recipient; only the first is printed. */
static void refuse_message(struct peer *p, enum hky_stage stage, const struct hky_reply *r)
{
    /* x.3.x is about the mail system and the size, not about the sender (RFC 3463) */
    bool is_of_message = stage != HKY_STAGE_MAIL || r->enhanced[1] == 3 || r->code == 552 || r->code == 452;

    p->sent->n_refused++;
    if (p->has_complained)
        return;
    p->has_complained = true;
    complain(p, is_of_message ? "the engine refused the message" : "the engine refused the sender", r);
    if (r->code == 530 && !p->is_lost)
        hky_cli_printf(
            stderr,
            "%s does not log in: name a listener without users (--server or HIKYAKU_SERVER), or add allow = { "
            "\"127.0.0.0/8\" } to this one\n",
            p->who);
    p->sent->is_data_refused = stage != HKY_STAGE_MAIL || (is_of_message && r->code >= 500);
    remember(p->sent, r);
}

static void on_result(struct peer *p, const struct hky_dialogue_event *ev)
{
    const struct hky_reply *r = ev->reply;
    size_t i = p->of[ev->recipient];

    if (r->code == 0)
        return; /* the connection was lost, which is printed elsewhere */
    if (r->code < 300) {
        const char *as = strstr(r->text, "queued as ");
        snprintf(p->sent->id, sizeof p->sent->id, "%.60s", as != NULL ? as + strlen("queued as ") : "");
        p->sent->n_queued++;
    } else if (ev->stage != HKY_STAGE_RCPT) {
        refuse_message(p, ev->stage, r);
    } else if (r->code == 452 && ev->txn->n_accepted > 0) {
        p->waiting[p->n_waiting++] = i; /* too many recipients: sent in another transaction */
    } else {
        complain(p, p->letter->recipients[i], r);
        p->sent->n_refused++;
        remember(p->sent, r);
    }
}

static void on_end(struct peer *p, const struct hky_dialogue_event *ev)
{
    p->is_over = true;
    if (ev->is_idle && p->n_waiting == 0)
        return;
    if (ev->reply->code == 0)
        lose(p, ev->reply->text);
    else if (p->n_waiting > 0)
        complain(p, "the engine does not take mail now", ev->reply);
    if (ev->reply->code != 0 && p->n_waiting > 0)
        remember(p->sent, ev->reply);
}

static void on_dialogue(void *ctx, const struct hky_dialogue_event *ev)
{
    struct peer *p = ctx;

    switch (ev->kind) {
    case HKY_DIALOGUE_SEND:
        hky_buf_add_str(&p->out, ev->octets);
        break;
    case HKY_DIALOGUE_RESULT:
        on_result(p, ev);
        break;
    case HKY_DIALOGUE_GIVE_BACK:
        for (unsigned i = 0; i < p->txn.n; i++)
            if (p->verdicts[i] != HKY_VERDICT_REPORTED)
                p->waiting[p->n_waiting++] = p->of[i];
        p->is_under_way = false;
        break;
    case HKY_DIALOGUE_DONE:
        p->is_under_way = false;
        break;
    case HKY_DIALOGUE_END:
        on_end(p, ev);
        break;
    case HKY_DIALOGUE_START_TLS: /* TLS and login are not used: the engine is trusted like this machine */
    case HKY_DIALOGUE_ASK_LOGIN:
    case HKY_DIALOGUE_OPEN:
    case HKY_DIALOGUE_IN_STEP:
        break;
    }
}

/* ---- a transaction ---- */

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

static bool read_notify(const char *z, unsigned *out)
{
    static const struct {
        const char *word;
        unsigned bit;
    } words[] = {{"never", HKY_NOTIFY_NEVER},
                 {"success", HKY_NOTIFY_SUCCESS},
                 {"failure", HKY_NOTIFY_FAILURE},
                 {"delay", HKY_NOTIFY_DELAY}};

    for (*out = 0; z != NULL && *z != '\0';) {
        size_t n = strcspn(z, ","), i = 0;
        struct hky_str word = hky_str_trim(hky_str_of(z, n));
        while (i < 4 && !hky_str_ieq(word, hky_str_z(words[i].word)))
            i++;
        if (i == 4)
            return false;
        *out |= words[i].bit;
        z += n + (z[n] == ',');
    }
    return true;
}

/* The address without its quotes and escapes, which are written again on the wire: "a b"@example.com would become
 * another mailbox otherwise. hky_outgoing_read has refused what is no address. */
static struct hky_str canonical(const char *typed, struct hky_address *room)
{
    return hky_mailbox_parse(hky_str_z(typed), room, NULL) == HKY_OK ? hky_address_str(room) : hky_str_z(typed);
}

static void begin(struct peer *p)
{
    const struct hky_outgoing *l = p->letter;
    const struct hky_capabilities *caps = &p->dialogue.caps;
    struct hky_buf *commands = &p->txn.commands;
    unsigned n = p->n_waiting < GROUP_MAX ? (unsigned)p->n_waiting : GROUP_MAX;
    struct hky_address room;
    struct hky_mail_line mail = {
        .sender = canonical(l->sender, &room),
        .is_raw = true,
        .is_8bit = l->is_8bit && caps->eightbit,
        .needs_utf8 = caps->smtputf8 && has_utf8_address(l),
        .size = l->content.n,
        .ret = l->ret == NULL                                    ? ""
               : hky_str_ieq(hky_str_z(l->ret), HKY_STR("full")) ? "FULL"
                                                                 : "HDRS",
        .envid = hky_str_z(l->envid != NULL ? l->envid : ""),
    };
    struct hky_rcpt_line rcpt = {.is_raw = true};

    (void)read_notify(l->notify, &rcpt.notify); /* checked before */
    hky_buf_clear(commands);
    p->txn.n = n;
    p->txn.verdicts = p->verdicts;
    p->has_complained = false;
    hky_mail_line_write(&mail, caps, commands);
    for (unsigned i = 0; i < n; i++) {
        p->of[i] = p->waiting[i];
        p->verdicts[i] = HKY_VERDICT_OPEN;
        rcpt.address = canonical(l->recipients[p->of[i]], &room);
        hky_rcpt_line_write(&rcpt, caps, commands);
    }
    hky_buf_add_z(commands, "DATA\r\n");
    p->n_waiting -= n;
    memmove(p->waiting, p->waiting + n, p->n_waiting * sizeof *p->waiting);
    p->is_under_way = true;
    hky_dialogue_begin(&p->dialogue, &p->txn);
}

static void emit(void *ctx, const char *octets, size_t n)
{
    struct peer *p = ctx;

    hky_buf_add(&p->out, octets, n);
    if (p->out.n > PIECE)
        flush_out(p);
}

static void write_content(struct peer *p)
{
    const struct hky_buf *content = &p->letter->content;
    uint8_t state = 1;

    for (size_t at = 0; at < content->n && !p->is_lost; at += PIECE)
        hky_dot_write(content->p + at, content->n - at < PIECE ? content->n - at : PIECE, &state, emit, p);
    hky_buf_add_z(&p->out, hky_dot_end(state));
    flush_out(p);
    set_patience(p->fd, DOT_SEC);
    hky_dialogue_content_written(&p->dialogue);
}

/* ---- the connection ---- */

/* Sends everything, then reads one reply and passes it to the dialogue. */
static void take_reply(struct peer *p)
{
    struct hky_error e = {0};
    struct hky_reply lost;

    flush_out(p);
    while (!p->is_lost) {
        size_t used = 0;
        enum hky_reply_status st = hky_reply_read(&p->reader, p->in.p != NULL ? p->in.p : "", p->in.n, &used, &e);
        hky_buf_drop(&p->in, used);
        if (st == HKY_REPLY_WHOLE) {
            set_patience(p->fd, REPLY_SEC);
            hky_dialogue_reply(&p->dialogue, &p->reader.reply, hky_buf_str(&p->reader.lines), false);
            return;
        }
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
    hky_reply_local(&lost, HKY_ORIGIN_LOST, "lost");
    hky_dialogue_fail(&p->dialogue, HKY_STAGE_NONE, &lost, true, false);
}

static void converse(struct peer *p)
{
    struct hky_dialogue *d = &p->dialogue;

    while (!p->is_over) {
        bool is_refused = p->has_complained;
        if (hky_dialogue_content(d) != NULL) {
            write_content(p);
        } else if (!p->is_under_way && hky_dialogue_can_begin(d) && p->n_waiting > 0 && !is_refused) {
            begin(p);
        } else if (!p->is_under_way && hky_dialogue_is_idle(d)) {
            hky_dialogue_quit(d);
            flush_out(p);
            return;
        }
        take_reply(p);
    }
}

/* Refuses addresses and parameters that cannot be part of an SMTP command. */
static bool is_sendable(struct peer *p)
{
    const struct hky_outgoing *l = p->letter;
    unsigned notify;
    bool is_one_line = hky_envelope_is_one_line(hky_str_z(l->sender));

    for (size_t i = 0; i < l->n_recipients; i++)
        is_one_line &= hky_envelope_is_one_line(hky_str_z(l->recipients[i]));
    if (is_one_line && read_notify(l->notify, &notify))
        return true;
    if (!is_one_line)
        hky_cli_printf(stderr, "%s: an address has control octets\n", p->who);
    else
        hky_cli_printf(stderr,
                       "%s: notify is never, or any of success, failure and delay with commas between, not \"%s\"\n",
                       p->who, l->notify);
    p->sent->code = 501;
    snprintf(p->sent->enhanced, sizeof p->sent->enhanced, "5.5.4");
    p->sent->is_data_refused = true;
    p->sent->n_refused = l->n_recipients;
    return false;
}

static void open_peer(struct peer *p)
{
    struct hky_dialogue_params params = {.hello = p->letter->origin,
                                         .starttls = HKY_DIALOGUE_TLS_OFF,
                                         .may_pipeline = true,
                                         .emit = on_dialogue,
                                         .ctx = p};

    set_patience(p->fd, REPLY_SEC);
    hky_reply_reader_init(&p->reader);
    hky_dialogue_init(&p->dialogue, &params);
    hky_buf_init(&p->in, 1u << 20);
    hky_buf_init(&p->out, 1u << 20);
    hky_buf_init(&p->txn.commands, 1u << 24);
    p->waiting = hky_calloc(p->letter->n_recipients, sizeof *p->waiting);
    for (p->n_waiting = 0; p->n_waiting < p->letter->n_recipients; p->n_waiting++)
        p->waiting[p->n_waiting] = p->n_waiting;
}

static void close_peer(struct peer *p)
{
    close(p->fd);
    hky_dialogue_fini(&p->dialogue);
    hky_reply_reader_fini(&p->reader);
    hky_buf_fini(&p->in);
    hky_buf_fini(&p->out);
    hky_buf_fini(&p->txn.commands);
    free(p->waiting);
}

void hky_outgoing_send(const struct hky_outgoing *l, const char *who, struct hky_sent *sent)
{
    struct peer *p = hky_calloc(1, sizeof *p);

    *sent = (struct hky_sent){0};
    *p = (struct peer){.who = who, .letter = l, .sent = sent, .fd = -1};
    if (is_sendable(p) && (p->fd = dial(l->server, who)) < 0)
        sent->is_unreached = true;
    if (p->fd >= 0) {
        open_peer(p);
        converse(p);
        sent->is_unreached = p->is_lost;
        sent->n_refused += sent->is_unreached ? 0 : p->n_waiting;
        close_peer(p);
    }
    free(p);
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

int hky_cli_send_joined(const char *server, const char *who)
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
