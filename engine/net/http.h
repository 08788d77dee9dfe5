/*
 * http -- HTTP requests on the loop by libcurl (curl_multi_socket_action). https and http only, no redirects.
 */
#ifndef HKY_NET_HTTP_H
#define HKY_NET_HTTP_H

#include "base/buf.h"
#include "net/loop.h"

struct hky_http;
/* HKY_E_NET: libcurl cannot be started. Any number of requests may run, some of them at a time. */
enum hky_err hky_http_new(struct hky_loop *loop, struct hky_http **out, struct hky_error *e);
void hky_http_free(struct hky_http **http); /* running requests end without a callback */

struct hky_http_answer {
    enum hky_err err;    /* HKY_OK: `status` is set; otherwise `text` says what failed */
    int status;          /* 200..599 */
    struct hky_str body; /* valid for the call */
    char text[160];
};
struct hky_http_request {
    const char *method; /* "GET" "POST" */
    const char *url;
    const char *const *headers; /* "Name: value" ended by NULL, or NULL */
    struct hky_str body;        /* copied */
    int64_t timeout_ms;         /* default 10 s */
    size_t body_max;            /* of the answer; default 1 MiB */
    void (*done)(void *ctx, const struct hky_http_answer *a);
    void *ctx;
};
/* Strings are copied. `done` comes once, asynchronously, on the loop's thread. */
void hky_http_send(struct hky_http *http, const struct hky_http_request *req);

#endif
