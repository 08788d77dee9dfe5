/*
 * fake -- a world for one session: what it writes, submits and asks for is kept; answers are given by the test.
 */
#ifndef TEST_ACCEPT_FAKE_H
#define TEST_ACCEPT_FAKE_H

#include "accept/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct hky_durable {
    int unused;
};

struct fake {
    struct hky_policy policy;
    struct hky_listen listen;
    struct hky_user users[2];
    struct accept_session session;
    struct hky_buf out;
    struct hky_buf wire; /* not yet consumed */
    struct hky_message *messages[16];
    struct hky_buf bodies[16]; /* of each message, as stored */
    unsigned n_messages;
    struct hky_buf big; /* the big file being written */
    bool is_big_open, is_closed, has_secret_request, wants_tls, is_tls_manual, is_commit_manual, has_commit;
    unsigned n_big_aborted, n_noted, n_room_busy;
    enum hky_err room, commit, big_room;
    const struct hky_secret_ref *secret_ref;
    char noted[700], refused[200], refused_of[200];
    unsigned n_refused;
    uint64_t last_id;
};

static const char *const only_alice_senders[] = {"alice@x.test", "shop.test", NULL};
static const char *const only_spring[] = {"spring", NULL};

static void fake_write(void *ctx, const char *p, size_t n)
{
    struct fake *f = ctx;

    assert_false(f->is_closed);
    hky_buf_add(&f->out, p, n);
}
static int64_t fake_now(void *ctx)
{
    (void)ctx;
    return INT64_C(1764000000000);
}
static uint64_t fake_id(void *ctx)
{
    return ++((struct fake *)ctx)->last_id;
}
static enum hky_err fake_room(void *ctx, uint64_t size)
{
    struct fake *f = ctx;

    (void)size;
    if (f->n_room_busy > 0) {
        f->n_room_busy--;
        return HKY_E_STATE;
    }
    return f->room;
}
static void fake_submit(void *ctx, struct hky_handed_in *in)
{
    struct fake *f = ctx;
    struct hky_message *m = in->message;
    struct hky_str header = in->header;
    void *big = in->big;
    struct hky_buf *body = &f->bodies[f->n_messages];

    assert_true(f->n_messages < 16);
    hky_buf_init(body, 64 << 20);
    if (big != NULL) {
        assert_true(m->is_big);
        assert_null(m->body);
        hky_buf_add_str(body, hky_buf_str(&f->big));
        f->is_big_open = false;
        hky_buf_clear(&f->big);
    } else {
        hky_buf_add(body, m->body->p, m->body->n);
        /* it would go out as it is */
        if (m->body->has_no_dot_lines)
            assert_true(body->p[0] != '.' && memmem(body->p, body->n, "\n.", 2) == NULL);
    }
    assert_int_equal(body->n, m->size);
    assert_int_equal(header.n, m->header_octets);
    assert_memory_equal(header.p, body->p, header.n);
    f->messages[f->n_messages++] = m;
    f->has_commit = true;
}
static enum hky_err fake_big_open(void *ctx, uint64_t id, void **big)
{
    struct fake *f = ctx;

    (void)id;
    assert_false(f->is_big_open);
    if (f->big_room != HKY_OK)
        return f->big_room;
    f->is_big_open = true;
    *big = &f->big;
    return HKY_OK;
}
static bool fake_big_write(void *ctx, void *big, const char *p, size_t n)
{
    (void)ctx;
    hky_buf_add(big, p, n);
    return true;
}
static void fake_big_abort(void *ctx, void *big)
{
    struct fake *f = ctx;

    hky_buf_clear(big);
    f->is_big_open = false;
    f->n_big_aborted++;
}
static void fake_secret(void *ctx, const struct hky_secret_ref *ref)
{
    struct fake *f = ctx;

    f->secret_ref = ref;
    f->has_secret_request = true;
}
static void fake_start_tls(void *ctx)
{
    ((struct fake *)ctx)->wants_tls = true;
}
static void fake_close(void *ctx)
{
    ((struct fake *)ctx)->is_closed = true;
}
static void fake_warn(void *ctx, const char *what, struct hky_str text)
{
    struct fake *f = ctx;

    f->n_noted++;
    snprintf(f->noted, sizeof f->noted, "%s " HKY_STR_FMT, what, HKY_STR_ARG(text));
}
static void fake_refused(void *ctx, struct hky_str sender, struct hky_str rcpt, const char *reply)
{
    struct fake *f = ctx;

    snprintf(f->refused, sizeof f->refused, "%s", reply);
    snprintf(f->refused_of, sizeof f->refused_of, "%.*s %.*s", HKY_STR_ARG(sender), HKY_STR_ARG(rcpt));
    f->n_refused++;
}

static const struct accept_session_ops fake_ops = {
    .write = fake_write,
    .now_ms = fake_now,
    .new_id = fake_id,
    .room = fake_room,
    .submit = fake_submit,
    .big_open = fake_big_open,
    .big_write = fake_big_write,
    .big_abort = fake_big_abort,
    .secret = fake_secret,
    .start_tls = fake_start_tls,
    .close = fake_close,
    .warn = fake_warn,
    .refused = fake_refused,
};

/* with_users: alice (secret "secret", may send as two addresses, for one scenario) and bob (any). */
static void fake_init(struct fake *f, bool with_users, enum hky_listen_tls tls, struct accept_sasl *sasl,
                      const char *client)
{
    *f = (struct fake){.policy.engine = {.hostname = "mx.test",
                                         .max_message = 4 << 20,
                                         .bounds = {.line_octets = 2048,
                                                    .recipients = 1000,
                                                    .header_octets = 256 << 10,
                                                    .header_lines = 1000,
                                                    .received = 50,
                                                    .errors = 20,
                                                    .auth_tries = 3}}};
    hky_buf_init(&f->out, 8 << 20);
    hky_buf_init(&f->wire, 80 << 20);
    hky_buf_init(&f->big, 64 << 20);
    f->users[0] = (struct hky_user){
        .name = "alice", .password = {.name = "alice"}, .senders = only_alice_senders, .scenarios = only_spring};
    f->users[1] = (struct hky_user){.name = "bob", .password = {.name = "bob"}};
    f->listen = (struct hky_listen){
        .addr = "127.0.0.1", .tls = tls, .cert = "", .key = "", .users = f->users, .n_users = with_users ? 2 : 0};
    struct accept_session_params p = {.ops = &fake_ops,
                                      .ctx = f,
                                      .policy = &f->policy,
                                      .listen = &f->listen,
                                      .sasl = sasl,
                                      .client = client,
                                      .is_loopback = strcmp(client, "127.0.0.1") == 0};
    accept_session_init(&f->session, &p);
}

static void fake_fini(struct fake *f)
{
    accept_session_fini(&f->session);
    for (unsigned i = 0; i < f->n_messages; i++) {
        hky_message_unref(&f->messages[i]);
        hky_buf_fini(&f->bodies[i]);
    }
    hky_buf_fini(&f->out);
    hky_buf_fini(&f->wire);
    hky_buf_fini(&f->big);
}

/* Answers what the session waits for, as the connection would, one thing after another. */
static bool fake_answer(struct fake *f)
{
    static const struct hky_durable durable;
    static const struct hky_durable *const token = &durable;

    if (f->has_commit && !f->is_commit_manual) {
        f->has_commit = false;
        accept_session_on_commit(&f->session, f->commit == HKY_OK ? token : NULL, f->commit,
                                 f->messages[f->n_messages - 1]->id);
        return true;
    }
    if (f->has_secret_request) {
        f->has_secret_request = false;
        accept_session_on_secret(
            &f->session,
            hky_secret_new(f->secret_ref == &f->users[0].password ? HKY_STR("secret") : HKY_STR("hunter2")));
        return true;
    }
    if (f->wants_tls && !f->is_tls_manual) {
        f->wants_tls = false;
        accept_session_on_tls(&f->session);
        return true;
    }
    if (f->session.waits & (HKY_WAIT_JOURNAL | HKY_WAIT_PENALTY)) {
        accept_session_resume(&f->session, HKY_WAIT_JOURNAL | HKY_WAIT_PENALTY);
        return true;
    }
    return false;
}

static void fake_pump(struct fake *f)
{
    bool goes_on = true;

    while (goes_on && !f->is_closed) {
        size_t used = f->wire.n > 0 ? accept_session_input(&f->session, f->wire.p, f->wire.n) : 0;
        hky_buf_drop(&f->wire, used);
        goes_on = fake_answer(f);
    }
}

static void fake_send(struct fake *f, struct hky_str s)
{
    if (f->is_closed)
        return;
    hky_buf_add_str(&f->wire, s);
    fake_pump(f);
}

/* In two pieces, cut at `at`. */
static inline void fake_send_cut(struct fake *f, struct hky_str s, size_t at)
{
    fake_send(f, hky_str_of(s.p, at));
    fake_send(f, hky_str_of(s.p + at, s.n - at));
}

/* The codes of all replies so far, "220 250 354"; of lines that go on ("250-") nothing. */
static inline const char *fake_codes(struct fake *f, char *out, size_t cap)
{
    const char *p = hky_buf_z(&f->out);
    size_t n = 0;

    out[0] = '\0';
    while (*p != '\0') {
        const char *end = strstr(p, "\r\n");
        assert_non_null(end);
        if (p[3] == ' ' && n + 5 < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s%.3s", n > 0 ? " " : "", p);
        p = end + 2;
    }
    return out;
}

/* What follows the header section of message i. */
static inline struct hky_str fake_text(const struct fake *f, unsigned i)
{
    uint32_t n = f->messages[i]->header_octets;

    return hky_str_of(f->bodies[i].p + n, f->bodies[i].n - n);
}

static inline void fake_repeat(struct hky_buf *b, const char *z, unsigned n)
{
    while (n-- > 0)
        hky_buf_add_z(b, z);
}

#endif
