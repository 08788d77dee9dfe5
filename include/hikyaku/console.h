/*
 * console -- how operators and scripts reach a running engine: a table of commands behind the control socket
 * SPOOL/control.sock, the command line and HTTP. The table has the name, the arguments and the needed right of each
 * command; help, checks and errors are made from it.
 * The socket: requests and answers are JSON objects, one a line.
 *     {"cmd":"queue","action":"hold","select":{"to":"docomo.ne.jp"},"dry_run":true}   ("select" only groups members)
 *     {"ok":true,"n":12,"rows":[...]}    {"ok":false,"error":{"code":"bad_request","message":"...","hint":"..."}}
 */
#ifndef HIKYAKU_CONSOLE_H
#define HIKYAKU_CONSOLE_H

#include "base/buf.h"
#include "base/json.h"
#include "net/loop.h"

struct hky_console;
struct hky_console_request; /* one call under way, on the console's loop */

/* ---- the table ---- */

enum hky_right { HKY_RIGHT_READ = 1, HKY_RIGHT_OPERATE = 2, HKY_RIGHT_ALL = 3 }; /* bits */

enum hky_argument_type {
    HKY_ARG_TEXT,     /* min to max octets of UTF-8 without control characters */
    HKY_ARG_SCRIPT,   /* the same, but of several lines if need be */
    HKY_ARG_ADDRESS,  /* an address, a domain, .domain, "*" for everybody; "<>" where may_be_null */
    HKY_ARG_WORD,     /* one of `words` */
    HKY_ARG_NUMBER,   /* min to max */
    HKY_ARG_DURATION, /* "90s" "10m" "2h" "3d" or seconds; min to max milliseconds */
    HKY_ARG_FLAG,     /* given or not */
    HKY_ARG_ID        /* a message's 13 letters and digits */
};

struct hky_argument {
    const char *name; /* "for_sec": the member of the request; "--for-sec" on the command line */
    enum hky_argument_type type;
    const char *value; /* the name of the value in help, "DURATION"; NULL for flags */
    const char *doc;   /* one line of help */
    int64_t min, max;
    const char *const *words; /* ended by NULL */
    bool is_positional;       /* a bare word on the command line */
    bool is_required;
    bool is_selection; /* selects what the command acts on; as a flag it selects everything */
    bool may_be_null;  /* ADDRESS: "<>" is allowed, the null sender */
};

struct hky_value {
    bool is_given;
    bool is_everything; /* it selects everything: "*", a duration of 0, an expression without r */
    const char *text;   /* TEXT, SCRIPT, ADDRESS, WORD */
    int64_t number;     /* NUMBER, DURATION in ms, ID (its bits) */
};

struct hky_command {
    const char *name; /* "queue hold" */
    enum hky_right right;
    const char *doc;
    const struct hky_argument *arguments; /* ended by name NULL; NULL: none */
    bool needs_selection; /* refused unless an argument narrows it down or the flag for everything is given */
    /* The arguments have been checked. `run` calls hky_console_answer or hky_console_refuse, now or later. */
    void (*run)(void *ctx, const struct hky_command *self, struct hky_console_request *rq);
    /* Writes the members of the answer that `run` gave; NULL: the answer has no members. */
    void (*render)(const void *answer, struct hky_json *out);
};

#define HKY_ARGUMENTS_MAX 24

/* Parses the text of an argument. HKY_E_SYNTAX: `e` begins with the argument's name and says which values it takes. */
enum hky_err hky_argument_parse(const struct hky_argument *a, const char *text, struct hky_value *out,
                                struct hky_error *e);
/* Refuses a missing argument and arguments that exclude each other; `values` has the order of `arguments`. The error
 * (HKY_E_SYNTAX) names an argument as its reader writes it: `"to"` in a request, `--to` on the command line. */
enum hky_writing { HKY_WRITING_JSON, HKY_WRITING_TYPED };
enum hky_err hky_command_check(const struct hky_command *c, const struct hky_value *values, enum hky_writing how,
                               struct hky_error *e);
/* NULL: no argument has that name; `nearest` is then the most similar name, or NULL. */
const struct hky_argument *hky_command_argument(const struct hky_command *c, struct hky_str name, const char **nearest);

/* ---- one call ---- */

/* Answer exactly once, on the console's loop. */
void hky_console_answer(struct hky_console_request **rq, const void *answer);
void hky_console_refuse(struct hky_console_request **rq, const char *code, const char *message, const char *hint);
/* An argument of the table, by name. Valid until the answer, or the console's end. */
const struct hky_value *hky_console_arg(const struct hky_console_request *rq, const char *name);

/* ---- the doors ---- */

struct hky_console_ops {
    void *ctx;
    const struct hky_command *commands; /* ended by name NULL */
    unsigned rights; /* of everyone who may open the control socket, which is the owner of its file */
    /* For GET /healthz: NULL while the engine accepts mail, else one word that says why it does not. */
    const char *(*unwell)(void *ctx);
    /* For GET /metrics (Prometheus text). Called on any of the console's threads. */
    void (*metrics)(void *ctx, struct hky_buf *out);
};
/* `http` "addr:port" or "" (then no HTTP): /healthz, /metrics; loopback only. The socket is mode 0600. HKY_E_IO: the
 * socket cannot be made. HKY_E_CONFIG, HKY_E_EXISTS, HKY_E_NET: HTTP cannot be opened. */
enum hky_err hky_console_new(struct hky_loop *aux, const char *spool, const char *http,
                             const struct hky_console_ops *ops, struct hky_console **out, struct hky_error *e);
void hky_console_free(struct hky_console **c);

/* Client side, blocking, for the CLI. HKY_E_MISSING: no engine runs on this spool. HKY_E_DENIED: this user may not ask
 * it. HKY_E_TIMEOUT, HKY_E_CLOSED, HKY_E_IO, HKY_E_LIMIT: it runs and has not answered, so what was asked may have been
 * done. */
enum hky_err hky_console_call(const char *spool, struct hky_str request, struct hky_buf *answer, struct hky_error *e);

#endif
