/*
 * A server's octets into the client's dialogue: every recipient of a message gets one verdict, or the message is given
 * back untouched; delivered only after 2xx to a dot whose message was written; no credential, and with TLS demanded no
 * envelope, before TLS; whatever it sends is whole lines. Octets: flags, how the owner behaves (two), the split; then
 * the server's.
 */
#include "smtp/dialogue.h"
#include "mail/reply.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TLS_MUST = 1, TLS_MAY = 2, SECURE = 4, AUTH = 8, NO_PIPELINING = 16, NO_OVERLAP = 32, DRY = 64, SCRAM = 128 };
#define N_TXNS   6
#define N_RCPTS  3
#define PASSWORD "canary"

struct txn {
    struct hky_transaction t;
    uint8_t verdicts[N_RCPTS], results[N_RCPTS];
    bool is_begun, is_over, is_back, is_written, is_mail_out;
};

struct world {
    uint8_t flags;
    struct hky_dialogue d;
    struct hky_reply_reader reader;
    struct txn txns[N_TXNS];
    unsigned n_begun;
    bool is_secure, is_open, wants_tls, wants_login, has_ended, is_early;
    uint16_t dice;
};

static struct txn *of(struct hky_transaction *t)
{
    return (struct txn *)(void *)t;
}

static bool contains(struct hky_str s, const char *z)
{
    return s.n >= strlen(z) && memmem(s.p, s.n, z, strlen(z)) != NULL;
}

static void on_send(struct world *w, struct hky_str s)
{
    bool must_be_secure = (w->flags & TLS_MUST) && !w->is_secure;

    HKY_ASSERT(!w->has_ended && s.n >= 2 && s.p[s.n - 1] == '\n' && s.p[s.n - 2] == '\r');
    for (size_t i = 0; i < s.n; i++)
        HKY_ASSERT(s.p[i] != '\0' && (s.p[i] != '\n' || (i > 0 && s.p[i - 1] == '\r')));
    if (must_be_secure)
        HKY_ASSERT(!contains(s, "AUTH") && !contains(s, "MAIL") && !contains(s, "RCPT") && !contains(s, "DATA"));
    if (contains(s, "MAIL"))
        HKY_ASSERT(w->is_open);
}

static void on_result(struct world *w, const struct hky_dialogue_event *ev)
{
    struct txn *t = of(ev->txn);

    HKY_ASSERT(t->is_begun && !t->is_over && ev->recipient < t->t.n && t->results[ev->recipient] == 0);
    t->results[ev->recipient]++;
    if (ev->is_ambiguous)
        HKY_ASSERT(t->is_written && !(w->flags & DRY));
    bool is_good = ev->reply->origin == HKY_ORIGIN_REMOTE && ev->reply->code / 100 == 2 && !ev->is_ambiguous;
    if (is_good && (w->flags & DRY))
        HKY_ASSERT(ev->stage == HKY_STAGE_RCPT);
    else if (is_good)
        HKY_ASSERT(ev->stage == HKY_STAGE_DOT && t->is_written && !w->is_early);
}

static void on_event(void *ctx, const struct hky_dialogue_event *ev)
{
    struct world *w = ctx;

    HKY_ASSERT(!w->has_ended);
    switch (ev->kind) {
    case HKY_DIALOGUE_SEND:
        on_send(w, ev->octets);
        break;
    case HKY_DIALOGUE_START_TLS:
        HKY_ASSERT(!w->is_secure);
        w->wants_tls = true;
        break;
    case HKY_DIALOGUE_ASK_LOGIN:
        HKY_ASSERT((w->flags & AUTH) && (w->is_secure || !(w->flags & TLS_MUST)));
        w->wants_login = true;
        break;
    case HKY_DIALOGUE_OPEN:
        HKY_ASSERT(!w->is_open && (w->is_secure || !(w->flags & TLS_MUST)));
        w->is_open = true;
        break;
    case HKY_DIALOGUE_RESULT:
        on_result(w, ev);
        break;
    case HKY_DIALOGUE_DONE:
        HKY_ASSERT(of(ev->txn)->is_begun && !of(ev->txn)->is_over);
        of(ev->txn)->is_over = true;
        break;
    case HKY_DIALOGUE_GIVE_BACK:
        HKY_ASSERT(of(ev->txn)->is_begun && !of(ev->txn)->is_over);
        of(ev->txn)->is_over = of(ev->txn)->is_back = true;
        break;
    case HKY_DIALOGUE_END:
        w->has_ended = true;
        break;
    }
}

static void fail(struct world *w, enum hky_origin origin, bool dot_left)
{
    struct hky_reply r;

    hky_reply_local(&r, origin, "ended");
    hky_dialogue_fail(&w->d, HKY_STAGE_NONE, &r, dot_left, false);
}

static void log_in(struct world *w)
{
    struct hky_secret *secret = hky_secret_new(HKY_STR(PASSWORD));
    struct hky_login_params p = {.auth = w->flags & SCRAM ? HKY_AUTH_SCRAM_SHA_256 : HKY_AUTH_PLAIN,
                                 .user = "user",
                                 .host = "relay.test",
                                 .port = 587,
                                 .secret = secret};
    struct hky_login *login = NULL;
    struct hky_error e;

    HKY_ASSERT(hky_login_new(&p, &login, &e) == HKY_OK);
    hky_secret_unref(&secret);
    hky_dialogue_login(&w->d, login);
}

static void begin(struct world *w)
{
    struct txn *t = &w->txns[w->n_begun];

    *t = (struct txn){.is_begun = true};
    t->t.n = 1 + (w->dice >> w->n_begun) % N_RCPTS;
    t->t.verdicts = t->verdicts;
    t->t.is_dry = (w->flags & DRY) != 0;
    hky_buf_init(&t->t.commands, 4096);
    hky_buf_add_z(&t->t.commands, "MAIL FROM:<a@x.test>\r\n");
    for (unsigned i = 0; i < t->t.n; i++)
        hky_buf_printf(&t->t.commands, "RCPT TO:<b%u@y.test>\r\n", i);
    if (!t->t.is_dry)
        hky_buf_add_z(&t->t.commands, "DATA\r\n");
    w->n_begun++;
    hky_dialogue_begin(&w->d, &t->t);
}

/* What an owner does after replies; `at`: octets of the server so far, so that every run differs and none is random. */
static void pump(struct world *w, size_t at)
{
    for (unsigned round = 0; round < 16 && !w->has_ended; round++) {
        struct hky_transaction *content = hky_dialogue_content(&w->d);

        if (w->wants_login) {
            w->wants_login = false;
            log_in(w);
        } else if (content != NULL && ((w->dice >> (at % 13)) & 3) != 0) {
            for (unsigned i = 0, n = 0; i <= content->n; i++)
                if (i == content->n)
                    HKY_ASSERT(n > 0); /* content goes to somebody */
                else
                    n += content->verdicts[i] == HKY_VERDICT_ACCEPTED;
            of(content)->is_written = true;
            hky_dialogue_content_written(&w->d);
        } else if (content == NULL && w->n_begun < N_TXNS && hky_dialogue_can_begin(&w->d)) {
            begin(w);
        } else {
            break;
        }
    }
}

static void feed(struct world *w, const char *p, size_t n, size_t piece)
{
    size_t at = 0;

    while (at < n && !w->has_ended) {
        size_t used;
        size_t give = piece < n - at ? piece : n - at;
        enum hky_reply_status status = hky_reply_read(&w->reader, p + at, give, &used, NULL);

        at += used;
        if (status == HKY_REPLY_BAD) {
            fail(w, HKY_ORIGIN_LOCAL, (w->dice & 1) != 0);
            return;
        }
        if (status == HKY_REPLY_MORE)
            continue;
        w->is_early = ((w->dice >> (at % 11)) & 7) == 1;
        hky_dialogue_reply(&w->d, &w->reader.reply, hky_buf_str(&w->reader.lines), w->is_early);
        w->is_early = false;
        if (w->wants_tls) {
            w->wants_tls = false;
            if ((w->dice & 2) != 0 && used < give) { /* plain octets left */
                fail(w, HKY_ORIGIN_LOCAL, false);
                return;
            }
            w->is_secure = true;
            hky_dialogue_secured(&w->d);
        }
        pump(w, at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {0};

    if (size < 5)
        return 0;
    w.flags = data[0];
    w.dice = (uint16_t)(data[1] << 8 | data[2]);
    w.is_secure = (w.flags & SECURE) != 0;
    struct hky_dialogue_params p = {
        .hello = "me.test",
        .starttls = w.flags & TLS_MUST  ? HKY_DIALOGUE_TLS_MUST
                    : w.flags & TLS_MAY ? HKY_DIALOGUE_TLS_MAY
                                        : HKY_DIALOGUE_TLS_OFF,
        .is_secure = w.is_secure,
        .wants_auth = (w.flags & AUTH) != 0,
        .may_pipeline = !(w.flags & NO_PIPELINING),
        .may_overlap = !(w.flags & NO_OVERLAP),
        .emit = on_event,
        .ctx = &w,
    };
    hky_dialogue_init(&w.d, &p);
    hky_reply_reader_init(&w.reader);
    feed(&w, (const char *)data + 4, size - 4, data[3] % 64 + 1u);
    if (!w.has_ended)
        fail(&w, HKY_ORIGIN_LOST, (w.dice & 4) != 0);
    HKY_ASSERT(w.has_ended);
    for (unsigned i = 0; i < w.n_begun; i++) {
        struct txn *t = &w.txns[i];
        HKY_ASSERT(t->is_over);
        for (unsigned k = 0; k < t->t.n; k++)
            HKY_ASSERT(t->is_back ? t->results[k] <= 1 : t->results[k] == 1); /* who was not reported goes again */
        hky_buf_fini(&t->t.commands);
    }
    hky_dialogue_fini(&w.d);
    hky_reply_reader_fini(&w.reader);
    return 0;
}
