/*
 * console -- how operators and scripts reach a running engine: the control socket SPOOL/control.sock (and, later,
 * HTTP). Requests and answers are JSON, one a line: {"cmd":"status"} -> {"ok":true,...} |
 * {"ok":false,"error":{"code","message","hint"}}.
 */
#ifndef HIKYAKU_CONSOLE_H
#define HIKYAKU_CONSOLE_H

#include "base/buf.h"
#include "net/loop.h"

struct hky_console;

/* One request under way. Answer exactly once, later is fine, on the console's loop. */
struct hky_console_request;
void hky_console_answer(struct hky_console_request **rq, struct hky_str json);
void hky_console_refuse(struct hky_console_request **rq, const char *code, const char *message, const char *hint);

struct hky_console_ops {
    void *ctx;
    /* cmd: "status" "reload" "queue" "relay" "stop"; args is the whole request object as text. */
    void (*request)(void *ctx, struct hky_console_request *rq, const char *cmd, struct hky_str args);
    /* For GET /healthz: NULL while mail is taken in, else why not, one word. */
    const char *(*unwell)(void *ctx);
    /* For GET /metrics (Prometheus text). Any of console's threads. */
    void (*metrics)(void *ctx, struct hky_buf *out);
};
/* `http` "addr:port" or "" (then no HTTP): /healthz, /metrics; loopback only. The socket is mode 0600. */
enum hky_err hky_console_new(struct hky_loop *aux, const char *spool, const char *http,
                             const struct hky_console_ops *ops, struct hky_console **out, struct hky_error *e);
void hky_console_free(struct hky_console **c);

/* Client side, blocking, for the CLI. HKY_E_MISSING: no engine runs on this spool. */
enum hky_err hky_console_call(const char *spool, struct hky_str request, struct hky_buf *answer, struct hky_error *e);

#endif
