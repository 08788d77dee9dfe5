/*
 * A client's octets into the session core: the same for every split; every reply well-formed and due to a command; no
 * message without its end of data or last chunk, none from a client that may not send, none with a bare CR, LF or NUL,
 * none that keeps X-Hikyaku fields. First octet: the listener; second: the split.
 */
#include "accept/session_internal.h"

#include <stdlib.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct hky_durable {
    int unused;
};

enum { WITH_USERS = 1, IS_SECURE = 2, IS_REMOTE = 4, IS_ALLOWED = 8, DISK_FULL = 16, BUSY = 32, OFFERS_TLS = 64 };

struct world {
    uint8_t flags;
    struct hky_policy policy;
    struct hky_listen listen;
    struct hky_user users[1];
    struct accept_session session;
    struct hky_buf out, stored, big; /* replies; messages, one behind the other; the big file under way */
    uint64_t last_id;
    unsigned n_messages, n_busy;
    const struct hky_message *waiting; /* its id is told with the commit */
    uint64_t waiting_id;
    bool is_closed, has_commit, has_secret, wants_tls, is_big_open;
};

static void on_write(void *ctx, const char *p, size_t n)
{
    struct world *w = ctx;

    HKY_ASSERT(!w->is_closed);
    hky_buf_add(&w->out, p, n);
}

static int64_t now_ms(void *ctx)
{
    (void)ctx;
    return INT64_C(1764000000000);
}

static uint64_t new_id(void *ctx)
{
    return ++((struct world *)ctx)->last_id;
}

static enum hky_err room(void *ctx, uint64_t size)
{
    struct world *w = ctx;

    (void)size;
    if ((w->flags & BUSY) && w->n_busy++ % 2 == 0)
        return HKY_E_STATE;
    return HKY_OK;
}

static void check_stored(struct hky_str m, struct hky_str header)
{
    HKY_ASSERT(header.n >= 4 && header.n <= m.n && memcmp(header.p, m.p, header.n) == 0);
    HKY_ASSERT(memcmp(header.p + header.n - 4, "\r\n\r\n", 4) == 0);
    for (size_t i = 0; i < m.n; i++) {
        HKY_ASSERT(m.p[i] != '\0');
        HKY_ASSERT(m.p[i] != '\n' || (i > 0 && m.p[i - 1] == '\r'));
        HKY_ASSERT(m.p[i] != '\r' || (i + 1 < m.n && m.p[i + 1] == '\n'));
    }
    for (size_t i = 0; i + 11 < header.n; i++)
        HKY_ASSERT(header.p[i] != '\n' || strncasecmp(header.p + i + 1, "X-Hikyaku-", 10) != 0);
}

static void submit(void *ctx, struct hky_handed_in *in)
{
    struct world *w = ctx;
    struct hky_message *m = in->message;
    struct hky_str header = in->header;
    void *big = in->big;
    struct hky_str body = big != NULL ? hky_buf_str(&w->big) : hky_str_of(m->body->p, m->body->n);

    HKY_ASSERT(accept_session_may_send(&w->session) && m->n_recipients > 0);
    HKY_ASSERT(m->size == body.n && m->header_octets == header.n);
    check_stored(body, header);
    hky_buf_printf(&w->stored, "%u recipients, %zu octets\n", m->n_recipients, body.n);
    hky_buf_add_str(&w->stored, body);
    if (big != NULL) {
        hky_buf_clear(&w->big);
        w->is_big_open = false;
    }
    w->n_messages++;
    w->waiting_id = m->id;
    w->has_commit = true;
    hky_message_unref(&m);
}

static enum hky_err big_open(void *ctx, uint64_t id, void **big)
{
    struct world *w = ctx;

    (void)id;
    HKY_ASSERT(!w->is_big_open);
    w->is_big_open = true;
    *big = &w->big;
    return HKY_OK;
}

static bool big_write(void *ctx, void *big, const char *p, size_t n)
{
    (void)ctx;
    hky_buf_add(big, p, n);
    return true;
}

static void big_abort(void *ctx, void *big)
{
    hky_buf_clear(big);
    ((struct world *)ctx)->is_big_open = false;
}

static void secret(void *ctx, const struct hky_secret_ref *ref)
{
    (void)ref;
    ((struct world *)ctx)->has_secret = true;
}

static void start_tls(void *ctx)
{
    struct world *w = ctx;

    HKY_ASSERT(!w->session.p.is_secure && (w->flags & OFFERS_TLS));
    w->wants_tls = true;
}

static void on_close(void *ctx)
{
    ((struct world *)ctx)->is_closed = true;
}

static void warn(void *ctx, const char *what, struct hky_str text)
{
    (void)ctx, (void)what, (void)text;
}

static void refused(void *ctx, struct hky_str sender, struct hky_str rcpt, const char *reply)
{
    (void)ctx, (void)sender, (void)rcpt;
    HKY_ASSERT(reply[0] == '4' || reply[0] == '5');
}

static const struct accept_session_ops ops = {
    .write = on_write,
    .now_ms = now_ms,
    .new_id = new_id,
    .room = room,
    .submit = submit,
    .big_open = big_open,
    .big_write = big_write,
    .big_abort = big_abort,
    .secret = secret,
    .start_tls = start_tls,
    .close = on_close,
    .warn = warn,
    .refused = refused,
};

static void world_init(struct world *w, uint8_t flags, struct accept_sasl *sasl)
{
    *w = (struct world){.flags = flags,
                        .policy.engine = {.hostname = "mx.test",
                                          .max_message = 4096,
                                          .bounds = {.line_octets = 512,
                                                     .recipients = 3,
                                                     .header_octets = 1024,
                                                     .header_lines = 16,
                                                     .received = 3,
                                                     .errors = 20,
                                                     .auth_tries = 3}}};
    hky_buf_init(&w->out, 64 << 20);
    hky_buf_init(&w->stored, 64 << 20);
    hky_buf_init(&w->big, 64 << 20);
    w->users[0] = (struct hky_user){.name = "alice", .password = {.name = "alice"}};
    w->listen = (struct hky_listen){.addr = "127.0.0.1",
                                    .tls = flags & OFFERS_TLS ? HKY_LISTEN_STARTTLS : HKY_LISTEN_PLAIN,
                                    .cert = "",
                                    .key = "",
                                    .users = w->users,
                                    .n_users = flags & WITH_USERS ? 1 : 0};
    struct accept_session_params p = {.ops = &ops,
                                      .ctx = w,
                                      .policy = &w->policy,
                                      .listen = &w->listen,
                                      .sasl = sasl,
                                      .client = "192.0.2.1",
                                      .is_loopback = !(flags & IS_REMOTE),
                                      .is_allowed = (flags & IS_ALLOWED) != 0,
                                      .is_secure = (flags & IS_SECURE) != 0};
    accept_session_init(&w->session, &p);
}

static void world_fini(struct world *w)
{
    accept_session_fini(&w->session);
    HKY_ASSERT(!w->is_big_open);
    hky_buf_fini(&w->out);
    hky_buf_fini(&w->stored);
    hky_buf_fini(&w->big);
}

static bool answer(struct world *w)
{
    static const struct hky_durable durable;
    bool is_full = w->flags & DISK_FULL;

    if (w->has_commit) {
        w->has_commit = false;
        accept_session_on_commit(&w->session, is_full ? NULL : &durable, is_full ? HKY_E_FULL : HKY_OK, w->waiting_id);
    } else if (w->has_secret) {
        w->has_secret = false;
        accept_session_on_secret(&w->session, hky_secret_new(HKY_STR("secret")));
    } else if (w->wants_tls) {
        w->wants_tls = false;
        accept_session_on_tls(&w->session);
    } else if (w->session.waits & (HKY_WAIT_JOURNAL | HKY_WAIT_PENALTY)) {
        accept_session_resume(&w->session, HKY_WAIT_JOURNAL | HKY_WAIT_PENALTY);
    } else {
        return false;
    }
    return true;
}

/* Feeds all in pieces of `piece` octets; what is not consumed is offered again in front of the next. */
static void run(struct world *w, const char *p, size_t n, size_t piece)
{
    size_t at = 0, given = 0;

    while (!w->is_closed) {
        size_t used = given > at ? accept_session_input(&w->session, p + at, given - at) : 0;

        HKY_ASSERT(used <= given - at);
        at += used;
        if (w->is_closed || answer(w))
            continue;
        if (used > 0 && given > at)
            continue;
        if (given == n)
            break;
        given += piece < n - given ? piece : n - given;
    }
}

/* Every line "250 text" or "250-text" with CRLF and not too long, all lines of one reply with one code; their number.
 */
static unsigned check_replies(struct hky_str out)
{
    unsigned n = 0;
    char code[4] = "";

    while (out.n > 0) {
        const char *lf = memchr(out.p, '\n', out.n);

        HKY_ASSERT(lf != NULL && lf - out.p >= 5 && lf - out.p < 512 && lf[-1] == '\r');
        HKY_ASSERT(out.p[0] >= '2' && out.p[0] <= '5' && (out.p[3] == ' ' || out.p[3] == '-'));
        HKY_ASSERT(code[0] == '\0' || memcmp(code, out.p, 3) == 0);
        memcpy(code, out.p, 3);
        for (const char *q = out.p; q < lf - 1; q++)
            HKY_ASSERT((unsigned char)*q >= 0x20 && *q != 0x7f);
        if (out.p[3] == ' ') {
            n++;
            code[0] = '\0';
        }
        out = hky_str_of(lf + 1, out.n - (size_t)(lf + 1 - out.p));
    }
    HKY_ASSERT(code[0] == '\0');
    return n;
}

static unsigned count(struct hky_str s, const char *word)
{
    size_t k = strlen(word);
    unsigned n = 0;

    for (size_t i = 0; i + k <= s.n; i++)
        n += strncasecmp(s.p + i, word, k) == 0;
    return n;
}

/* The octets that may end a message: CRLF.CRLF, or "." as the first line behind a DATA command. */
static unsigned count_ends(struct hky_str in)
{
    unsigned n = count(in, "\r\n.\r\n") + count(in, "BDAT");

    for (size_t i = 0; i + 4 <= in.n; i++)
        n += in.p[i] == '\n' && memcmp(in.p + i, "\n.\r\n", 4) == 0 && (i == 0 || in.p[i - 1] != '\r') && i >= 4 &&
             (in.p[i - 1] == 'a' || in.p[i - 1] == 'A' || in.p[i - 1] == ' ' || in.p[i - 1] == '\t');
    return n;
}

static struct hky_str common(struct hky_str a, struct hky_str b)
{
    return a.n < b.n ? a : b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct accept_sasl *sasl;
    struct world whole, split;

    if (size < 2 || size > 32768)
        return 0;
    if (sasl == NULL)
        sasl = accept_sasl_new();
    struct hky_str in = hky_str_of((const char *)data + 2, size - 2);
    world_init(&whole, data[0], sasl);
    world_init(&split, data[0], sasl);
    run(&whole, in.p, in.n, in.n);
    run(&split, in.p, in.n, data[1] % 32 + 1u);

    /* One reply a line at most, one more for each end of data or chunk, the greeting and a farewell. */
    unsigned n_replies = check_replies(hky_buf_str(&whole.out));
    HKY_ASSERT(n_replies <= count(in, "\n") + count(in, "BDAT") + 3);
    (void)check_replies(hky_buf_str(&split.out));
    HKY_ASSERT(whole.n_messages <= count_ends(in));
    if (whole.flags & DISK_FULL)
        HKY_ASSERT(count(hky_buf_str(&whole.out), " queued as ") == 0);
    else
        HKY_ASSERT(count(hky_buf_str(&whole.out), "250 2.0.0 queued as ") == whole.n_messages);

    /* Octets sent ahead of a refused DATA or of TLS are only seen as such when they came along; a SCRAM challenge has
     * a nonce. Up to there it is the same. */
    bool is_ahead = count(hky_buf_str(&whole.out), "improper pipelining") > 0 ||
                    count(hky_buf_str(&split.out), "improper pipelining") > 0 ||
                    (data[0] & OFFERS_TLS && count(in, "STARTTLS") > 0);
    if (count(in, "SCRAM") == 0 && !is_ahead) {
        HKY_ASSERT(hky_str_eq(hky_buf_str(&whole.out), hky_buf_str(&split.out)));
        HKY_ASSERT(hky_str_eq(hky_buf_str(&whole.stored), hky_buf_str(&split.stored)));
    } else if (is_ahead && count(in, "SCRAM") == 0) {
        struct hky_str least = common(hky_buf_str(&whole.stored), hky_buf_str(&split.stored));
        HKY_ASSERT(least.n == 0 || memcmp(whole.stored.p, split.stored.p, least.n) == 0);
    }
    world_fini(&whole);
    world_fini(&split);
    return 0;
}
