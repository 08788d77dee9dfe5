/* One client of the sink: SMTP with PIPELINING, 8BITMIME and SMTPUTF8, not CHUNKING; AUTH and STARTTLS by option. */
#include "cli/sink.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "mail/command.h"
#include "mail/dot.h"
#include "mail/header.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define RCPTS_MAX   1000
#define BODY_MAX    (64u << 20)
#define COMMAND_MAX 4096
#define IDLE_MS     300000

struct hky_sink_session {
    TAILQ_ENTRY(hky_sink_session) link;
    struct hky_sink_listener *listener;
    struct hky_stream *stream;
    struct hky_dot_reader dots;
    struct hky_buf body;
    struct hky_buf rcpts; /* addresses, each followed by NUL */
    unsigned n_rcpts;
    char sender[HKY_ADDRESS_MAX + 1];
    char hello[256], user[256];
    bool has_mail, is_in_data;
    int64_t mail_at_ms;
    int auth_left; /* lines of an AUTH dialogue still to come */
    struct hky_timer late;
    const char *late_reply;
};

/* Called when a message was answered or its client has left. */
static void settled(struct hky_sink *sink)
{
    if (sink->max > 0 && ++sink->n_settled >= sink->max)
        hky_loop_stop(sink->loop);
}

static void close_session(struct hky_sink_session *s)
{
    TAILQ_REMOVE(&s->listener->sink->sessions, s, link);
    if (hky_timer_is_set(&s->late))
        settled(s->listener->sink);
    hky_timer_cancel(&s->late);
    hky_stream_close(&s->stream);
    hky_buf_fini(&s->body);
    hky_buf_fini(&s->rcpts);
    free(s);
}

void hky_sink_sessions_close(struct hky_sink *sink)
{
    struct hky_sink_session *s;

    while ((s = TAILQ_FIRST(&sink->sessions)) != NULL)
        close_session(s);
}

static void answer(struct hky_sink_session *s, const char *reply)
{
    hky_stream_write(s->stream, reply, strlen(reply));
    hky_stream_write(s->stream, "\r\n", 2);
}

static void reset(struct hky_sink_session *s)
{
    s->has_mail = s->is_in_data = false;
    s->n_rcpts = 0;
    hky_buf_clear(&s->rcpts);
    hky_buf_clear(&s->body);
}

/* Gives the fault that a rule has for this stage. True: a rule had one; *is_closed: the fault closed the session. */
static bool give_fault(struct hky_sink_session *s, enum hky_stage stage, struct hky_str address, bool *is_closed)
{
    const char *reply = hky_sink_fault(s->listener->sink, s->listener->port, stage, address);

    if (reply == NULL)
        return false;
    if (strcmp(reply, "close") == 0) {
        close_session(s);
        *is_closed = true;
    } else if (strcmp(reply, "stall") != 0) {
        answer(s, reply);
        if (memcmp(reply, "421", 3) == 0) {
            hky_stream_flush(s->stream);
            close_session(s);
            *is_closed = true;
        }
    }
    return true;
}

/* ---- a whole message ---- */

static void write_index(struct hky_sink_session *s, const char *verdict)
{
    struct hky_sink *sink = s->listener->sink;
    struct hky_str body = hky_buf_str(&s->body), item, header = hky_str_of(body.p, hky_header_octets(body));
    struct hky_field field;
    struct hky_buf b;
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct hky_json j;

    hky_buf_init(&b, 1u << 20);
    j = hky_json_to(&b);
    hky_json_begin_object(&j, NULL);
    hky_json_int(&j, "at_ms", hky_clock_now_ms(&clock));
    hky_json_int(&j, "mail_at_ms", s->mail_at_ms);
    hky_json_uint(&j, "n", sink->n_messages);
    hky_json_uint(&j, "port", s->listener->port);
    hky_json_uint(&j, "size", body.n);
    hky_json_bool(&j, "tls", hky_stream_is_secure(s->stream));
    hky_json_z(&j, "hello", s->hello);
    hky_json_z(&j, "user", s->user);
    hky_json_z(&j, "sender", s->sender);
    hky_json_z(&j, "reply", verdict);
    if (hky_field_find(header, "From", &field))
        hky_json_str(&j, "from", hky_str_trim(field.value));
    if (hky_field_find(header, "X-Load-Id", &field))
        hky_json_str(&j, "load", hky_str_trim(field.value));
    hky_json_hex(&j, "hash", hky_hash64(body.p + header.n, body.n - header.n, 0));
    hky_json_begin_array(&j, "to");
    for (size_t at = 0; at < s->rcpts.n; at += item.n + 1) {
        item = hky_str_z(s->rcpts.p + at);
        hky_json_str(&j, NULL, item);
    }
    hky_json_end_array(&j);
    hky_json_end_object(&j);
    hky_buf_add_c(&b, '\n');
    /* Each line is written at once and before the reply, because a test may kill the sink after the reply. */
    if (write(fileno(sink->index), b.p, b.n) != (ssize_t)b.n)
        fputs("hikyaku sink: cannot write the index\n", stderr);
    hky_buf_fini(&b);
}

static void store_body(struct hky_sink_session *s)
{
    struct hky_sink *sink = s->listener->sink;
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/%lu.eml", sink->store, (unsigned long)sink->n_messages);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, s->body.p, s->body.n) != (ssize_t)s->body.n)
        hky_cli_printf(stderr, "hikyaku sink: cannot write %s\n", path);
    if (fd >= 0)
        close(fd);
}

static void print_message(struct hky_sink_session *s)
{
    struct hky_buf line;

    hky_buf_init(&line, 4000);
    hky_cli_add_printable(&line, hky_str_z(s->sender[0] != '\0' ? s->sender : "<>"));
    hky_buf_add_z(&line, " -> ");
    hky_cli_add_printable(&line, hky_str_z(s->rcpts.p));
    printf("%s%s (%zu octets, port %u%s)\n", hky_buf_z(&line), s->n_rcpts > 1 ? " ..." : "", s->body.n,
           s->listener->port, hky_stream_is_secure(s->stream) ? ", TLS" : "");
    hky_buf_fini(&line);
}

static void reply_now(struct hky_sink_session *s, const char *reply)
{
    answer(s, reply);
    if (s->listener->sink->max > 0)
        hky_stream_flush(s->stream); /* this may be the last message before the sink ends */
    settled(s->listener->sink);
}

static void on_late(struct hky_timer *timer)
{
    struct hky_sink_session *s = HKY_CONTAINER(timer, struct hky_sink_session, late);

    reply_now(s, s->late_reply);
    hky_stream_resume(s->stream);
}

static void reply_to_dot(struct hky_sink_session *s, const char *reply)
{
    struct hky_sink *sink = s->listener->sink;

    if (sink->latency_ms == 0) {
        reply_now(s, reply);
        return;
    }
    s->late_reply = reply;
    hky_stream_pause(s->stream);
    hky_timer_set(&s->late, sink->latency_ms);
}

static void on_message(struct hky_sink_session *s, bool *is_closed)
{
    struct hky_sink *sink = s->listener->sink;
    struct hky_str first = s->rcpts.n > 0 ? hky_str_z(s->rcpts.p) : HKY_STR("");

    if (give_fault(s, HKY_STAGE_DOT, first, is_closed)) {
        if (!*is_closed)
            reset(s);
        return;
    }
    sink->n_messages++;
    sink->n_recipients += s->n_rcpts;
    if (sink->store != NULL) {
        store_body(s);
        write_index(s, "250");
    }
    if (!sink->is_quiet && !sink->is_json)
        print_message(s);
    reset(s);
    reply_to_dot(s, "250 2.0.0 ok");
}

/* ---- commands ---- */

static void on_hello(struct hky_sink_session *s, const struct hky_smtp_command *c)
{
    struct hky_sink *sink = s->listener->sink;

    reset(s);
    snprintf(s->hello, sizeof s->hello, "%.*s", HKY_STR_ARG(c->arg));
    if (c->verb == HKY_VERB_HELO) {
        answer(s, "250 sink");
        return;
    }
    answer(
        s,
        "250-sink\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES");
    if (sink->tls != NULL && !hky_stream_is_secure(s->stream))
        answer(s, "250-STARTTLS");
    if (sink->offers_auth)
        answer(s, "250-AUTH PLAIN LOGIN");
    answer(s, "250 HELP");
}

static void on_auth(struct hky_sink_session *s, struct hky_str arg, bool *is_closed)
{
    struct hky_buf plain;

    if (give_fault(s, HKY_STAGE_AUTH, HKY_STR(""), is_closed))
        return;
    if (hky_str_istarts(arg, HKY_STR("PLAIN"))) {
        struct hky_str rest = hky_str_trim(hky_str_of(arg.p + 5, arg.n - 5));
        if (rest.n == 0) {
            s->auth_left = 1;
            answer(s, "334 ");
            return;
        }
        hky_buf_init(&plain, 1024);
        if (hky_base64_decode(rest, &plain) && plain.n > 2)
            snprintf(s->user, sizeof s->user, "%s", hky_buf_z(&plain) + 1);
        hky_buf_fini(&plain);
        answer(s, "235 2.7.0 ok");
    } else if (hky_str_istarts(arg, HKY_STR("LOGIN"))) {
        s->auth_left = 2;
        answer(s, "334 VXNlcm5hbWU6");
    } else {
        answer(s, "504 5.5.4 PLAIN or LOGIN");
    }
}

static void on_auth_line(struct hky_sink_session *s, struct hky_str line)
{
    struct hky_buf plain;

    hky_buf_init(&plain, 1024);
    if (hky_base64_decode(hky_str_trim(line), &plain) && s->user[0] == '\0')
        snprintf(s->user, sizeof s->user, "%s", hky_buf_z(&plain) + (plain.n > 1 && plain.p[0] == '\0'));
    hky_buf_fini(&plain);
    answer(s, --s->auth_left > 0 ? "334 UGFzc3dvcmQ6" : "235 2.7.0 ok");
}

static void on_rcpt(struct hky_sink_session *s, const struct hky_smtp_command *c, bool *is_closed)
{
    if (!s->has_mail) {
        answer(s, "503 5.5.1 MAIL first");
    } else if (s->n_rcpts >= RCPTS_MAX) {
        answer(s, "452 4.5.3 too many recipients");
    } else if (!give_fault(s, HKY_STAGE_RCPT, hky_address_str(&c->path), is_closed)) {
        hky_buf_add(&s->rcpts, c->path.text, c->path.n);
        hky_buf_add_c(&s->rcpts, '\0');
        s->n_rcpts++;
        answer(s, "250 2.1.5 ok");
    }
}

static void on_data(struct hky_sink_session *s, bool *is_closed)
{
    if (s->n_rcpts == 0) {
        answer(s, s->has_mail ? "554 5.5.1 no valid recipients" : "503 5.5.1 MAIL first");
    } else if (!give_fault(s, HKY_STAGE_DATA, hky_str_z(s->rcpts.p), is_closed)) {
        s->is_in_data = true;
        hky_dot_reader_init(&s->dots);
        answer(s, "354 go on");
    }
}

static void on_command(struct hky_sink_session *s, struct hky_str line, bool *is_closed)
{
    struct hky_smtp_command c;
    struct hky_error e;
    const char *enhanced = "";
    char reply[400];
    int code = 0;

    if (s->auth_left > 0) {
        on_auth_line(s, line);
        return;
    }
    hky_smtp_command_init(&c);
    if (hky_smtp_command_parse(line, &c, &code, &enhanced, &e) != HKY_OK) {
        snprintf(reply, sizeof reply, "%d %s %s", code, enhanced, e.text);
        answer(s, reply);
        hky_smtp_command_fini(&c);
        return;
    }
    switch (c.verb) {
    case HKY_VERB_EHLO:
    case HKY_VERB_HELO:
        if (!give_fault(s, HKY_STAGE_HELLO, HKY_STR(""), is_closed))
            on_hello(s, &c);
        break;
    case HKY_VERB_MAIL:
        if (!give_fault(s, HKY_STAGE_MAIL, HKY_STR(""), is_closed)) {
            reset(s);
            s->has_mail = true;
            s->mail_at_ms = hky_clock_now_ms(&HKY_CLOCK_REAL);
            snprintf(s->sender, sizeof s->sender, "%s", c.path.text);
            answer(s, "250 2.1.0 ok");
        }
        break;
    case HKY_VERB_RCPT:
        on_rcpt(s, &c, is_closed);
        break;
    case HKY_VERB_DATA:
        on_data(s, is_closed);
        break;
    case HKY_VERB_RSET:
        reset(s);
        answer(s, "250 2.0.0 ok");
        break;
    case HKY_VERB_NOOP:
        answer(s, "250 2.0.0 ok");
        break;
    case HKY_VERB_AUTH:
        if (s->listener->sink->offers_auth)
            on_auth(s, c.arg, is_closed);
        else
            answer(s, "502 5.5.1 no AUTH here (--auth)");
        break;
    case HKY_VERB_STARTTLS:
        if (s->listener->sink->tls == NULL) {
            answer(s, "502 5.5.1 no TLS here (--cert)");
        } else {
            answer(s, "220 2.0.0 go ahead");
            hky_stream_flush(s->stream);
            reset(s);
            hky_stream_start_tls(s->stream, s->listener->sink->tls, NULL);
        }
        break;
    case HKY_VERB_QUIT:
        answer(s, "221 2.0.0 bye");
        hky_stream_flush(s->stream);
        close_session(s);
        *is_closed = true;
        break;
    default:
        answer(s, "502 5.5.1 not here");
    }
    hky_smtp_command_fini(&c);
}

static size_t on_input(void *ctx, const char *p, size_t n)
{
    struct hky_sink_session *s = ctx;
    size_t used = 0;
    bool is_closed = false;

    hky_stream_set_deadline(s->stream, IDLE_MS);
    while (used < n && !is_closed) {
        if (s->is_in_data) {
            bool is_end = false;
            used += hky_dot_read(&s->dots, p + used, n - used, &s->body, &is_end);
            if (is_end)
                on_message(s, &is_closed);
            if (!is_closed && hky_timer_is_set(&s->late))
                break;
            continue;
        }
        const char *end = memchr(p + used, '\n', n - used);
        if (end == NULL) {
            if (n - used > COMMAND_MAX) {
                answer(s, "500 5.5.2 line too long");
                used = n;
            }
            break;
        }
        size_t length = (size_t)(end - (p + used));
        struct hky_str line = hky_str_of(p + used, length > 0 && end[-1] == '\r' ? length - 1 : length);
        used += length + 1;
        on_command(s, line, &is_closed);
    }
    return is_closed ? n : used;
}

static void on_stream_event(void *ctx, enum hky_stream_event ev, const struct hky_error *e)
{
    (void)e;
    if (ev == HKY_STREAM_EOF || ev == HKY_STREAM_FAILED)
        close_session(ctx);
}

static const struct hky_stream_ops stream_ops = {on_input, on_stream_event};

void hky_sink_session_start(struct hky_sink_listener *l, int fd)
{
    struct hky_sink_session *s = hky_calloc(1, sizeof *s);
    bool is_closed = false;

    s->listener = l;
    l->sink->n_connections++;
    hky_buf_init(&s->body, BODY_MAX);
    hky_buf_init(&s->rcpts, RCPTS_MAX * (HKY_ADDRESS_MAX + 1));
    hky_timer_init(&s->late, l->sink->loop, on_late);
    s->stream = hky_stream_new(&(struct hky_stream_params){l->sink->loop, &stream_ops, s, 1u << 17}, fd);
    hky_stream_set_deadline(s->stream, IDLE_MS);
    TAILQ_INSERT_TAIL(&l->sink->sessions, s, link);
    if (!give_fault(s, HKY_STAGE_CONNECT, HKY_STR(""), &is_closed))
        answer(s, "220 sink ESMTP");
}
