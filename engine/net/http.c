#include "net/http.h"

#include "base/secret.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_DEFAULT_MS = 10000, BODY_DEFAULT = 1 << 20, CONNECTIONS_MAX = 64, CONNECTIONS_A_HOST = 16 };

struct request {
    struct request *next, *prev; /* in `running` or, forward only, in `ready` */
    struct hky_http *http;
    CURL *easy;
    struct curl_slist *headers;
    struct hky_buf body;
    void (*done)(void *ctx, const struct hky_http_answer *a);
    void *ctx;
    struct hky_http_answer answer;
    char why[CURL_ERROR_SIZE];
};

struct http_socket {
    struct hky_http *http;
    curl_socket_t fd;
    struct hky_watch *watch;
};

struct hky_http {
    struct hky_loop *loop;
    CURLM *multi;
    struct hky_timer timer;
    struct request *running, *ready, *ready_last;
    struct hky_task task; /* runs the callbacks of `ready` */
    bool is_queued, is_closed;
};

static void request_free(struct request *r)
{
    if (r->easy != NULL)
        curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    if (r->body.p != NULL) /* the body may hold a token */
        hky_secret_wipe(r->body.p, r->body.n);
    hky_buf_fini(&r->body);
    free(r);
}

static void make_ready(struct hky_http *http, struct request *r)
{
    r->next = NULL;
    if (http->ready != NULL)
        http->ready_last->next = r;
    else
        http->ready = r;
    http->ready_last = r;
    if (http->is_queued)
        return;
    http->is_queued = true;
    hky_loop_defer(http->loop, &http->task);
}

static void on_task(struct hky_task *task)
{
    struct hky_http *http = HKY_CONTAINER(task, struct hky_http, task);
    for (struct request *r;
         !http->is_closed && (r = http->ready) != NULL;) { /* `is_queued` is still true: see hky_http_free */
        http->ready = r->next;
        r->answer.body = hky_buf_str(&r->body);
        r->done(r->ctx, &r->answer);
        request_free(r);
    }
    http->is_queued = false;
    if (http->is_closed)
        free(http);
}

static enum hky_err err_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return HKY_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return HKY_E_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return HKY_E_DNS;
    case CURLE_WRITE_ERROR:
    case CURLE_FILESIZE_EXCEEDED:
        return HKY_E_LIMIT;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return HKY_E_SYNTAX;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_USE_SSL_FAILED:
        return HKY_E_TLS;
    default:
        return HKY_E_NET;
    }
}

static void finish(struct request *r, CURLcode code)
{
    struct hky_http *http = r->http;
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    r->answer.err = r->body.is_over ? HKY_E_LIMIT : err_of(code);
    if (r->answer.err == HKY_E_LIMIT)
        snprintf(r->answer.text, sizeof r->answer.text, "the answer is larger than %zu octets", r->body.max);
    else if (r->answer.err != HKY_OK)
        snprintf(r->answer.text, sizeof r->answer.text, "%.159s", r->why[0] != 0 ? r->why : curl_easy_strerror(code));
    else if (status < 200 || status > 599) {
        r->answer.err = HKY_E_SYNTAX;
        snprintf(r->answer.text, sizeof r->answer.text, "the server answered with status %ld", status);
    } else {
        r->answer.status = (int)status;
    }
    curl_multi_remove_handle(http->multi, r->easy);
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        http->running = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    make_ready(http, r);
}

static void collect(struct hky_http *http)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(http->multi, &left)) != NULL;) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result; /* the message is freed with the handle */
        char *r = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r);
        finish((struct request *)(void *)r, code);
    }
}

static void on_timer(struct hky_timer *t)
{
    struct hky_http *http = HKY_CONTAINER(t, struct hky_http, timer);
    int running;
    curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(http);
}

static int on_timer_request(CURLM *multi, long after_ms, void *ctx)
{
    (void)multi;
    struct hky_http *http = ctx;
    if (after_ms < 0)
        hky_timer_cancel(&http->timer);
    else
        hky_timer_set(&http->timer, after_ms);
    return 0;
}

static void on_ready(void *ctx, int bits)
{
    struct http_socket *s = ctx;
    struct hky_http *http = s->http; /* `s` may be freed in the call */
    int running, what = (bits & HKY_READABLE ? CURL_CSELECT_IN : 0) | (bits & HKY_WRITABLE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(http->multi, s->fd, what, &running);
    collect(http);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    (void)easy;
    struct hky_http *http = ctx;
    struct http_socket *s = socket_ctx;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL)
            hky_watch_free(&s->watch);
        free(s);
        return 0;
    }
    if (s == NULL) {
        s = hky_calloc(1, sizeof *s);
        *s = (struct http_socket){.http = http, .fd = fd};
        curl_multi_assign(http->multi, fd, s);
    }
    hky_watch_free(&s->watch);
    int bits = (what & CURL_POLL_IN ? HKY_READABLE : 0) | (what & CURL_POLL_OUT ? HKY_WRITABLE : 0);
    if (bits != 0)
        s->watch = hky_watch_new_level(http->loop, fd, bits, on_ready, s);
    return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
    struct request *r = ctx;
    hky_buf_add(&r->body, p, size * n);
    return r->body.is_over ? 0 : size * n;
}

enum hky_err hky_http_new(struct hky_loop *loop, struct hky_http **out, struct hky_error *e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return hky_error_set(e, HKY_E_NET, "libcurl cannot be started");
    struct hky_http *http = hky_calloc(1, sizeof *http);
    http->loop = loop;
    http->task.run = on_task;
    http->multi = curl_multi_init();
    HKY_ASSERT(http->multi != NULL);
    hky_timer_init(&http->timer, loop, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer_request);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)CONNECTIONS_MAX);
    curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)CONNECTIONS_A_HOST);
    *out = http;
    return HKY_OK;
}

void hky_http_free(struct hky_http **at)
{
    struct hky_http *http = *at;
    if (http == NULL)
        return;
    *at = NULL;
    http->is_closed = true;
    for (struct request *r; (r = http->running) != NULL;) {
        http->running = r->next;
        curl_multi_remove_handle(http->multi, r->easy);
        request_free(r);
    }
    for (struct request *r; (r = http->ready) != NULL;) {
        http->ready = r->next;
        request_free(r);
    }
    curl_multi_cleanup(http->multi);
    hky_timer_cancel(&http->timer);
    curl_global_cleanup();
    if (!http->is_queued) /* otherwise the task frees it */
        free(http);
}

/* Is the value free of octets that could end its header line and begin another one? */
static bool is_one_line(const char *z)
{
    for (; *z != 0; z++)
        if ((unsigned char)*z < 0x20 && *z != '\t')
            return false;
    return true;
}

static bool is_token(const char *z)
{
    size_t n = strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return n > 0 && n <= 16 && z[n] == 0;
}

static const char *prepare(struct request *r, const struct hky_http_request *req)
{
    const char *method = req->method != NULL ? req->method : "GET";
    if (!is_token(method))
        return "the method is not one word in capitals";
    if (req->url == NULL || !is_one_line(req->url))
        return "the URL is missing or has control characters";
    r->headers = curl_slist_append(NULL, "Expect:"); /* no round trip before the body */
    for (const char *const *h = req->headers; h != NULL && *h != NULL; h++) {
        if (!is_one_line(*h))
            return "a header has control characters";
        struct curl_slist *more = curl_slist_append(r->headers, *h);
        HKY_ASSERT(more != NULL);
        r->headers = more;
    }
    long timeout_ms = (long)(req->timeout_ms > 0 ? req->timeout_ms : TIMEOUT_DEFAULT_MS);
    curl_easy_setopt(r->easy, CURLOPT_URL, req->url);
    curl_easy_setopt(r->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(r->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
    /* libcurl looks names up on a thread of its own. Without this, the end of a request would wait for that thread, and
     * the system's resolver can hang for half a minute. */
    curl_easy_setopt(r->easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms);
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(r->easy, CURLOPT_USERAGENT, "hikyaku/" HKY_VERSION);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_ERRORBUFFER, r->why);
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
    if (strcmp(method, "GET") != 0) {
        curl_easy_setopt(r->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
        curl_easy_setopt(r->easy, CURLOPT_COPYPOSTFIELDS, req->body.n > 0 ? req->body.p : "");
        curl_easy_setopt(r->easy, CURLOPT_CUSTOMREQUEST, method);
    }
    return NULL;
}

void hky_http_send(struct hky_http *http, const struct hky_http_request *req)
{
    struct request *r = hky_calloc(1, sizeof *r);
    r->http = http;
    r->done = req->done;
    r->ctx = req->ctx;
    hky_buf_init(&r->body, req->body_max > 0 ? req->body_max : BODY_DEFAULT);
    r->easy = curl_easy_init();
    HKY_ASSERT(r->easy != NULL);
    const char *why = prepare(r, req);
    if (why != NULL || curl_multi_add_handle(http->multi, r->easy) != CURLM_OK) {
        r->answer.err = why != NULL ? HKY_E_SYNTAX : HKY_E_NET;
        snprintf(r->answer.text, sizeof r->answer.text, "%s", why != NULL ? why : "libcurl refused the request");
        make_ready(http, r);
        return;
    }
    r->next = http->running;
    if (r->next != NULL)
        r->next->prev = r;
    http->running = r;
}
