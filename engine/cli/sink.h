/* Private to the sink: sink.c (options, listening), sink_session.c (SMTP), sink_rule.c (faults). */
#ifndef HKY_CLI_SINK_H
#define HKY_CLI_SINK_H

#include "cli/cli.h"

#include "hikyaku/outcome.h"
#include "net/acceptor.h"
#include "net/stream.h"

#include <stdio.h>
#include <sys/queue.h>

#define HKY_SINK_LISTENERS_MAX 16
#define HKY_SINK_RULES_MAX     256

struct hky_sink;
struct hky_sink_session;

struct hky_sink_listener {
    struct hky_sink *sink;
    int fd;
    uint16_t port;
    struct hky_acceptor *acceptor;
};

struct hky_sink_rule {
    char *pattern;
    enum hky_stage stage;
    double share; /* 0..1 */
    char *reply;  /* "close", "stall", or the text of the reply */
};

struct hky_sink {
    struct hky_loop *loop;
    struct hky_tls *tls;
    struct hky_sink_listener listeners[HKY_SINK_LISTENERS_MAX];
    unsigned n_listeners;
    struct hky_sink_rule rules[HKY_SINK_RULES_MAX];
    unsigned n_rules;
    unsigned seed;
    int64_t latency_ms;
    const char *store;
    FILE *index;
    bool offers_auth, is_quiet, is_json, is_unable; /* is_unable: the options are right, but a system call failed */
    uint64_t max, n_messages, n_settled, n_recipients, n_faults, n_connections;
    TAILQ_HEAD(, hky_sink_session) sessions;
};

/* Speaks with the client at `fd`, which is taken, until one of both ends it; the second ends all sessions at once. */
void hky_sink_session_start(struct hky_sink_listener *l, int fd);
void hky_sink_sessions_close(struct hky_sink *sink);

/* Adds a rule "PATTERN STAGE [SHARE%] REPLY". False: the rule is wrong, and the reason was printed. */
bool hky_sink_rule_add(struct hky_sink *sink, const char *text);
void hky_sink_rules_free(struct hky_sink *sink);
/* The reply of the first rule that matches, or NULL. `address` is "" before a recipient is known; then only * and :PORT
 * match. */
const char *hky_sink_fault(struct hky_sink *sink, uint16_t port, enum hky_stage stage, struct hky_str address);

#endif
