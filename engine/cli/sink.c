/*
 * sink -- a receiving server for trying things out: takes every message, unless a rule says otherwise. One thread, the
 * engine's own loop and streams.
 */
#include "base/endpoint.h"
#include "cli/sink.h"

#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct hky_cli_option options[] = {
    {"listen", "ADDR:PORT",
     "the address to listen on (default 127.0.0.1:2526; IPv6: [::1]:2526); may be given several times", true},
    {"rule", "RULE", "a fault (see below); may be given several times, and the first rule that matches is used", true},
    {"latency", "MS", "wait MS milliseconds before each reply to the end of data"},
    {"store", "DIR", "keep every message as DIR/NUMBER.eml and a line in DIR/index.jsonl"},
    {"cert", "FILE", "offer STARTTLS with this certificate (PEM); with --key"},
    {"key", "FILE", "the key of the certificate (PEM)"},
    {"auth", NULL, "offer AUTH PLAIN LOGIN and take any user and password"},
    {"max", "N", "stop after N messages (0: never, the default)"},
    {"quiet", NULL, "do not print a line per message"},
    {NULL, NULL, NULL},
};

static void print_json(const struct hky_sink *sink)
{
    struct hky_buf b;
    struct hky_json j = hky_json_to(&b);

    hky_buf_init(&b, 1000);
    hky_json_begin_object(&j, NULL);
    hky_json_uint(&j, "messages", sink->n_messages);
    hky_json_uint(&j, "recipients", sink->n_recipients);
    hky_json_uint(&j, "refused", sink->n_faults);
    hky_json_uint(&j, "connections", sink->n_connections);
    hky_json_end_object(&j);
    puts(hky_buf_z(&b));
    hky_buf_fini(&b);
}

static void report(struct hky_sink *sink)
{
    if (sink->is_json)
        print_json(sink);
    else
        printf("%lu message%s, %lu recipient%s, %lu fault%s by rule, %lu connection%s\n",
               HKY_CLI_COUNT(sink->n_messages), HKY_CLI_COUNT(sink->n_recipients), HKY_CLI_COUNT(sink->n_faults),
               HKY_CLI_COUNT(sink->n_connections));
}

static void on_signal(void *ctx, int signo)
{
    struct hky_sink *sink = ctx;

    (void)signo;
    hky_loop_stop(sink->loop);
}

static void on_taken(void *ctx, int fd, const struct sockaddr_storage *from)
{
    (void)from;
    hky_sink_session_start(ctx, fd);
}

static void on_no_descriptor(void *ctx, int fd, int sys, bool is_first)
{
    (void)ctx;
    (void)fd;
    if (is_first)
        hky_cli_printf(stderr, "hikyaku sink: cannot take another connection: %s; raise `ulimit -n`\n", strerror(sys));
}

static const struct hky_acceptor_ops acceptor_ops = {.taken = on_taken, .refused = on_no_descriptor};

/* Reads ADDR:PORT, with an IPv6 address in brackets. NULL: the text is wrong, and the reason was printed. */
static struct addrinfo *address_of(const char *where, uint16_t *port)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[256], service[8];

    if (hky_endpoint_parse(hky_str_z(where), host, port)) {
        snprintf(service, sizeof service, "%u", *port);
        if (getaddrinfo(host, service, &hints, &found) == 0)
            return found;
    }
    hky_cli_printf(stderr, "hikyaku sink: --listen takes ADDR:PORT such as 127.0.0.1:2526 or [::1]:2526, not \"%s\"\n",
                   where);
    return NULL;
}

static bool listen_at(struct hky_sink *sink, const char *where)
{
    struct hky_sink_listener *l = &sink->listeners[sink->n_listeners];
    struct addrinfo *at;
    int one = 1;

    if (sink->n_listeners == HKY_SINK_LISTENERS_MAX) {
        hky_cli_printf(stderr, "hikyaku sink: at most %d --listen\n", HKY_SINK_LISTENERS_MAX);
        return false;
    }
    if ((at = address_of(where, &l->port)) == NULL)
        return false;
    l->sink = sink;
    l->fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l->fd, at->ai_addr, at->ai_addrlen) != 0 || listen(l->fd, 1024) != 0) {
        hky_cli_printf(stderr, "hikyaku sink: cannot listen on %s: %s%s\n", where, strerror(errno),
                       errno == EADDRINUSE ? "; name another with --listen" : "");
        freeaddrinfo(at);
        close(l->fd);
        sink->is_unable = true;
        return false;
    }
    freeaddrinfo(at);
    l->acceptor = hky_acceptor_new(sink->loop, l->fd, &acceptor_ops, l);
    sink->n_listeners++;
    return true;
}

static bool open_store(struct hky_sink *sink, const char *dir)
{
    char path[4096];

    if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
        hky_cli_printf(stderr, "hikyaku sink: cannot make %s: %s\n", dir, strerror(errno));
        sink->is_unable = true;
        return false;
    }
    snprintf(path, sizeof path, "%s/index.jsonl", dir);
    sink->index = fopen(path, "a");
    if (sink->index == NULL) {
        hky_cli_printf(stderr, "hikyaku sink: cannot write %s: %s\n", path, strerror(errno));
        sink->is_unable = true;
        return false;
    }
    sink->store = dir;
    return true;
}

/* Takes one option. False: the option is wrong, and the reason was printed. */
static bool take(struct hky_sink *sink, const char *name, const char *value, const char **cert, const char **key)
{
    uint64_t n;

    if (strcmp(name, "listen") == 0)
        return listen_at(sink, value);
    if (strcmp(name, "rule") == 0)
        return hky_sink_rule_add(sink, value);
    if (strcmp(name, "store") == 0)
        return open_store(sink, value);
    if (strcmp(name, "cert") == 0)
        *cert = value;
    else if (strcmp(name, "key") == 0)
        *key = value;
    else if (strcmp(name, "auth") == 0)
        sink->offers_auth = true;
    else if (strcmp(name, "quiet") == 0)
        sink->is_quiet = true;
    else if (!hky_cli_number(&hky_cli_sink, name, value, 0, UINT32_MAX, &n))
        return false;
    else if (strcmp(name, "latency") == 0)
        sink->latency_ms = (int64_t)n;
    else
        sink->max = n;
    return true;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_sink sink = {0};
    const char *value, *cert = NULL, *key = NULL, *name;
    struct hky_cli_args args;
    struct hky_error e;
    int code = -1;

    if (hky_loop_new(&sink.loop, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku sink: %s\n", e.text);
        return HKY_EXIT_NO;
    }
    sink.seed = (unsigned)hky_mono_ns();
    TAILQ_INIT(&sink.sessions);
    hky_cli_args_init(&args, self, argc, argv);
    while (code < 0 && (name = hky_cli_next(&args, &value)) != NULL)
        code = take(&sink, name, value, &cert, &key) ? -1 : sink.is_unable ? HKY_EXIT_NO : HKY_EXIT_USAGE;
    sink.is_json = args.is_json;
    if (code < 0)
        code = hky_cli_args_done(&args, 0, 0);
    if (code < 0 && (cert == NULL) != (key == NULL)) {
        fputs("hikyaku sink: --cert and --key go together\n", stderr);
        code = HKY_EXIT_USAGE;
    }
    if (code < 0 && cert != NULL && hky_tls_server_new(cert, key, &sink.tls, &e) != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku sink: %s\n", e.text);
        code = HKY_EXIT_NO;
    }
    if (code < 0 && sink.n_listeners == 0 && !listen_at(&sink, "127.0.0.1:2526"))
        code = HKY_EXIT_NO;
    if (code < 0) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        for (unsigned i = 0; i < sink.n_listeners && !sink.is_json; i++)
            printf("listening on port %u; Ctrl-C stops\n", sink.listeners[i].port);
        hky_loop_on_signal(sink.loop, SIGINT, on_signal, &sink);
        hky_loop_on_signal(sink.loop, SIGTERM, on_signal, &sink);
        hky_loop_run(sink.loop);
        report(&sink);
        code = HKY_EXIT_GOOD;
    }
    hky_sink_sessions_close(&sink);
    for (unsigned i = 0; i < sink.n_listeners; i++) {
        hky_acceptor_free(&sink.listeners[i].acceptor);
        close(sink.listeners[i].fd);
    }
    if (sink.index != NULL)
        fclose(sink.index);
    hky_sink_rules_free(&sink);
    hky_tls_unref(&sink.tls);
    hky_loop_free(&sink.loop);
    return code;
}

const struct hky_cli_command hky_cli_sink = {
    .name = "sink",
    .args = "",
    .summary = "receive mail for trying things out, with faults on request",
    .help = "A rule is PATTERN STAGE [SHARE%] REPLY:\n"
            "  PATTERN  a recipient domain, an address, .domain for its subdomains,\n"
            "           :PORT for one --listen, DOMAIN:PORT, or *\n"
            "  STAGE    connect, hello, auth, mail, rcpt, data or dot\n"
            "  SHARE%   in how many per cent of the cases (default 100%)\n"
            "  REPLY    what to answer (550 5.1.1 Unknown user), or close: end the\n"
            "           connection without a reply, or stall: never answer\n"
            "Examples:\n"
            "  hikyaku sink --rule 'docomo.ne.jp rcpt 550 Unknown user' \\\n"
            "      --rule '* dot 5% 451 4.3.0 busy'\n"
            "  hikyaku sink --listen 127.0.0.1:2526 --listen 127.0.0.1:2527 \\\n"
            "      --rule ':2527 connect 554 5.7.1 blocked'\n"
            "  hikyaku sink --rule '* dot 1% close' --store received",
    .options = options,
    .run = run,
};
