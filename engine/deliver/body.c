/* The content of a delivery: its header section rewritten for this attempt, its body read in pieces, both dot-stuffed
 * (RFC 5321 4.5.2) on their way into the stream. */
#include "deliver/prepare.h"

#include "base/clock.h"
#include "base/hash.h"
#include "mail/dot.h"
#include "mail/dsn.h"
#include "mail/rewrite.h"

#include <stdio.h>
#include <stdlib.h>

#define COPY_BELOW  1024         /* a shorter run is copied: cheaper than a reference */
#define UNSENT_HIGH (512 * 1024) /* with more than this unsent, no further piece is read */

struct run {
    struct hky_stream *stream;
    struct hky_body *body; /* NULL: the octets are copied */
};

static void release_body(void *arg)
{
    struct hky_body *b = arg;
    hky_body_unref(&b);
}

static void emit_run(void *ctx, const char *p, size_t n)
{
    struct run *r = ctx;
    if (r->body == NULL || n < COPY_BELOW)
        hky_stream_write(r->stream, p, n);
    else
        hky_stream_write_ref(r->stream, p, n, release_body, hky_body_ref(r->body));
}

static enum hky_err write_header(struct hky_delivery *x, struct hky_str section, struct hky_stream *s,
                                 struct hky_buf *scratch, struct hky_error *e)
{
    const struct hky_identity *id = x->identity;
    char date[40], message_id[HKY_ID_TEXT + 260], text[HKY_ID_TEXT];
    hky_date_format(x->message->accepted_at_ms, 0, date);
    hky_id_format(x->message->id, text);
    char *at = hky_str_put(message_id, message_id + sizeof(message_id), HKY_STR("<"));
    at = hky_str_put(at, message_id + sizeof(message_id), hky_str_of(text, HKY_ID_TEXT - 1));
    at = hky_str_put(at, message_id + sizeof(message_id), HKY_STR("@"));
    at = hky_str_put(at, message_id + sizeof(message_id) - 1, hky_str_z(x->hostname));
    hky_str_put(at, message_id + sizeof(message_id), HKY_STR(">"));
    struct hky_rewrite rw = {
        .from = id->is_rewritten || id->is_alone ? id->from : NULL,
        .reply_to = id->reply_to[0] != '\0' ? id->reply_to : NULL,
        .reply_to_forced = id->reply_to_forced,
        .date = date,
        .add_message_id = message_id,
    };
    hky_buf_clear(scratch);
    enum hky_err err = hky_rewrite_header(section, &rw, scratch, e);
    if (err != HKY_OK)
        return err;
    struct run run = {.stream = s};
    hky_dot_write(scratch->p, scratch->n, &x->dot, emit_run, &run);
    x->is_header_out = true;
    return HKY_OK;
}

/* Writes the `n` octets at `p`, which are at x->at of the message; `body` is what they lie in. */
static enum hky_err write_piece(struct hky_delivery *x, const char *p, size_t n, struct hky_body *body,
                                struct hky_stream *s, struct hky_buf *scratch, struct hky_error *e)
{
    size_t used = 0;
    if (!x->is_header_out) {
        size_t have = x->gathered.n, want = x->message->header_octets;
        struct hky_str section;
        if (have == 0 && n >= want) {
            section = hky_str_of(p, want);
            used = want;
        } else {
            used = n < want - have ? n : want - have;
            hky_buf_add(&x->gathered, p, used);
            if (x->gathered.is_over)
                return hky_error_set(e, HKY_E_LIMIT, "the header section is too long to rewrite");
            if (x->gathered.n < want) {
                x->at += n;
                return HKY_OK;
            }
            section = hky_buf_str(&x->gathered);
        }
        enum hky_err err = write_header(x, section, s, scratch, e);
        if (err != HKY_OK)
            return err;
    }
    if (n > used) {
        struct run run = {.stream = s, .body = body};
        if (body != NULL && body->has_no_dot_lines) {
            emit_run(&run, p + used, n - used);
            x->dot = p[n - 1] == '\n';
        } else {
            hky_dot_write(p + used, n - used, &x->dot, emit_run, &run);
        }
    }
    x->at += n;
    return HKY_OK;
}

void hky_delivery_prepared(struct hky_delivery *x)
{
    if (x->is_orphan)
        hky_delivery_free(&x);
    else
        x->on_piece(x->ctx, x);
}

static void on_read(struct hky_body_read *r)
{
    struct hky_delivery *x = HKY_CONTAINER(r, struct hky_delivery, read);
    x->is_reading = false;
    x->has_piece = true;
    hky_delivery_prepared(x);
}

/* The piece at x->at, or the error instead. False: it is still being read, and on_read is called afterwards. */
static bool has_piece(struct hky_delivery *x)
{
    if (x->is_reading || x->has_piece)
        return x->has_piece;
    if (x->at == 0)
        x->read = (struct hky_body_read){.loop = x->loop, .message = x->message, .done = on_read};
    x->read.at = x->at; /* one struct for all pieces: the journal compares the checksum of them all */
    x->has_piece = hky_journal_body(x->journal, &x->read);
    x->is_reading = !x->has_piece;
    return x->has_piece;
}

static enum hky_err check_piece(const struct hky_delivery *x, struct hky_error *e)
{
    enum hky_err err = x->read.result;
    if (err != HKY_OK)
        return hky_error_set(e, err, "the message %s",
                             err == HKY_E_DAMAGED ? "is damaged in the spool (the log says where)"
                                                  : "cannot be read from the spool");
    if (x->read.n == 0)
        return hky_error_set(e, HKY_E_IO, "the message is shorter in the spool than it was");
    return HKY_OK;
}

static void drop_piece(struct hky_delivery *x)
{
    x->has_piece = false;
    hky_body_read_release(&x->read);
}

enum hky_prepare hky_prepare_body(struct hky_delivery *x, struct hky_error *e)
{
    if (x->content.p != NULL || x->message->size == 0)
        return HKY_PREPARE_READY;
    if (!has_piece(x))
        return HKY_PREPARE_WAIT;
    if (check_piece(x, e) == HKY_OK)
        return HKY_PREPARE_READY;
    drop_piece(x);
    return HKY_PREPARE_FAILED;
}

static enum hky_write write_done(struct hky_delivery *x, struct hky_stream *s)
{
    const char *end = hky_dot_end(x->dot);
    hky_stream_write(s, end, strlen(end));
    return HKY_WRITE_DONE;
}

enum hky_write hky_delivery_write(struct hky_delivery *x, struct hky_stream *s, struct hky_buf *scratch,
                                  struct hky_error *e)
{
    if (x->content.p != NULL) {
        if (write_piece(x, x->content.p, x->content.n, NULL, s, scratch, e) != HKY_OK)
            return HKY_WRITE_FAILED;
        return write_done(x, s);
    }
    while (x->at < x->message->size) {
        if (hky_stream_unsent(s) > UNSENT_HIGH || !has_piece(x))
            return HKY_WRITE_WAIT;
        enum hky_err err = check_piece(x, e);
        size_t n = x->read.n;
        if (n > x->message->size - x->at)
            n = (size_t)(x->message->size - x->at);
        if (err == HKY_OK)
            err = write_piece(x, x->read.p, n, x->read.body, s, scratch, e);
        drop_piece(x);
        if (err != HKY_OK)
            return HKY_WRITE_FAILED;
    }
    if (!x->is_header_out)
        return hky_error_set(e, HKY_E_IO, "the message is shorter in the spool than it was"), HKY_WRITE_FAILED;
    return write_done(x, s);
}
