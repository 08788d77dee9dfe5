#include "accept/session_internal.h"

#include "base/hash.h"

#include <stdio.h>

#define OVERSHOOT 1000 /* so many recipients beyond the bound are refused one by one; the next one gets 421 */

static void refuse(struct accept_session *s, struct hky_str sender, const struct hky_refusal *why)
{
    accept_session_refuse(s, sender, HKY_STR(""), why->code, why->enhanced, "%s", why->text);
}

static enum hky_err big_open(void *ctx, uint64_t id, void **big)
{
    struct accept_session *s = ctx;

    return s->p.ops->big_open(s->p.ctx, id, big);
}

static bool big_write(void *ctx, void *big, const char *p, size_t n)
{
    struct accept_session *s = ctx;

    return s->p.ops->big_write(s->p.ctx, big, p, n);
}

static void big_abort(void *ctx, void *big)
{
    struct accept_session *s = ctx;

    s->p.ops->big_abort(s->p.ctx, big);
}

/* False when the journal has no room: the message was refused, or the session waits. */
static bool has_room(struct accept_session *s, struct hky_str sender, uint64_t size)
{
    struct hky_refusal why = {0};
    enum hky_err err = s->p.ops->room(s->p.ctx, size);

    if (err == HKY_E_STATE) {
        s->waits |= HKY_WAIT_JOURNAL;
        return false;
    }
    hky_refusal_set_storage(&why, err);
    if (err != HKY_OK)
        refuse(s, sender, &why);
    return err == HKY_OK;
}

void accept_transaction_mail(struct accept_session *s, struct hky_smtp_command *c)
{
    struct hky_letter_sender from = {.address = hky_address_str(&c->path),
                                     .envid = hky_buf_str(&c->envid),
                                     .ret = (enum hky_ret)c->ret,
                                     .size = c->has_size ? c->size : 0,
                                     .is_smtputf8 = c->is_smtputf8,
                                     .is_utf8 = c->path.is_utf8};
    struct hky_refusal why = {0};

    if (c->body == HKY_BODY_BINARYMIME) {
        hky_refusal_set(&why, 555, "5.5.4", "BODY=BINARYMIME is not offered here");
        refuse(s, from.address, &why);
        return;
    }
    struct hky_letter *letter = hky_letter_new(
        &(struct hky_letter_params){.policy = s->p.policy,
                                    .user = s->user,
                                    .is_trusted = accept_session_is_trusted(s),
                                    .id = s->p.ops->new_id(s->p.ctx),
                                    .now_ms = s->p.ops->now_ms(s->p.ctx),
                                    .big = {.ctx = s, .open = big_open, .write = big_write, .abort = big_abort}});
    bool is_taken = hky_letter_set_sender(letter, &from, &why);
    if (!is_taken)
        refuse(s, from.address, &why);
    if (!is_taken || !has_room(s, from.address, from.size)) {
        hky_letter_free(&letter);
        return;
    }
    s->tx = (struct accept_transaction){.letter = letter, .size_hint = c->size, .is_smtputf8 = c->is_smtputf8};
    accept_session_enter(s, HKY_SESSION_MAIL);
    accept_session_say(s, 250, "2.1.0", HKY_STR("ok"));
}

/* Refused recipients do not count as errors of the client, because a campaign may name more than are accepted at once.
 * Only the first one is reported. */
static void refuse_rcpt(struct accept_session *s, struct hky_str rcpt, const struct hky_refusal *why)
{
    char reply[160];

    snprintf(reply, sizeof reply, "%d %s %s", why->code, why->enhanced, why->text);
    if (s->tx.n_refused == 0)
        s->p.ops->refused(s->p.ctx, accept_session_sender(s), rcpt, reply);
    accept_session_reply(s, why->code, why->enhanced, "%s", why->text);
    if (++s->tx.n_refused > OVERSHOOT)
        accept_session_close(s, "4.7.0", "too many recipients refused");
}

void accept_transaction_rcpt(struct accept_session *s, struct hky_smtp_command *c)
{
    struct hky_letter_rcpt to = {.address = c->path.n > 0 ? hky_address_str(&c->path) : HKY_STR("postmaster"),
                                 .orcpt = hky_buf_str(&c->orcpt),
                                 .notify = c->notify,
                                 .is_utf8 = c->path.is_utf8};
    struct hky_refusal why = {0};

    if (!hky_letter_add_recipient(s->tx.letter, &to, &why)) {
        refuse_rcpt(s, to.address, &why);
        return;
    }
    if (s->state == HKY_SESSION_MAIL)
        accept_session_enter(s, HKY_SESSION_RCPT);
    accept_session_say(s, 250, "2.1.5", HKY_STR("ok"));
}

/* --- the content --- */

static void begin_content(struct accept_session *s)
{
    char with[16], *at = with;
    const char *end = with + sizeof with;

    at = hky_str_put(at, end, hky_str_z(s->tx.is_smtputf8 ? "UTF8SMTP" : s->is_esmtp ? "ESMTP" : "SMTP"));
    at = hky_str_put(at, end, hky_str_z(s->p.is_secure ? "S" : ""));
    hky_str_put(at, end, hky_str_z(s->user != NULL ? "A" : ""));
    hky_letter_begin(
        s->tx.letter,
        &(struct hky_letter_origin){.source = "smtp", .client = s->client, .hello = s->hello, .with = with},
        s->tx.size_hint != 0 ? s->tx.size_hint : s->last_size);
}

void accept_transaction_data(struct accept_session *s, struct hky_smtp_command *c)
{
    (void)c;
    if (hky_letter_n_recipients(s->tx.letter) == 0) {
        accept_session_error(s, 554, "5.5.1", "no valid recipients");
        return;
    }
    begin_content(s);
    accept_session_enter(s, HKY_SESSION_DATA);
    accept_session_say(s, 354, "", HKY_STR("send the message, end with CRLF.CRLF"));
}

static void refuse_content(struct accept_session *s, const struct hky_refusal *why)
{
    refuse(s, accept_session_sender(s), why);
    accept_session_tx_reset(s);
}

static void warn_unknown(struct accept_session *s, uint64_t id)
{
    struct hky_str fields = hky_letter_unknown_fields(s->tx.letter);
    char text[512], id_text[HKY_ID_TEXT];

    if (fields.n == 0)
        return;
    hky_id_format(id, id_text);
    snprintf(text, sizeof text, "message %s has unknown fields: %.*s", id_text, HKY_STR_ARG(fields));
    s->p.ops->warn(s->p.ctx, "unknown_field", hky_str_z(text));
}

static void end_content(struct accept_session *s)
{
    struct hky_handed_in in = {0};
    struct hky_refusal why = {0};

    if (!hky_letter_end(s->tx.letter, &in, &why)) {
        if (why.warning != NULL)
            s->p.ops->warn(s->p.ctx, why.warning, hky_str_z(why.text));
        refuse_content(s, &why);
        return;
    }
    s->last_size = in.message->size;
    warn_unknown(s, in.message->id);
    accept_session_enter(s, HKY_SESSION_COMMIT);
    s->waits = (uint8_t)((s->waits & ~HKY_WAIT_BIG) | HKY_WAIT_COMMIT);
    s->p.ops->submit(s->p.ctx, &in);
    accept_session_tx_free(s);
}

static void wait_if_full(struct accept_session *s)
{
    if (hky_letter_was_full(s->tx.letter))
        s->waits |= HKY_WAIT_BIG;
}

size_t accept_transaction_data_input(struct accept_session *s, const char *p, size_t n)
{
    bool is_end = false;
    size_t used = hky_letter_add_data(s->tx.letter, p, n, &is_end);

    wait_if_full(s);
    if (is_end)
        end_content(s);
    return used;
}

/* --- BDAT (RFC 3030) --- */

static void end_chunk(struct accept_session *s)
{
    const struct hky_refusal *why = hky_letter_refusal(s->tx.letter);

    if (s->is_last_chunk) {
        end_content(s);
    } else if (why != NULL) {
        refuse_content(s, why);
    } else {
        accept_session_enter(s, HKY_SESSION_CHUNKS);
        accept_session_reply(s, 250, "2.0.0", "chunk received");
    }
}

/* The announced octets are content even if the command is refused: they are read and thrown away. */
static void swallow(struct accept_session *s, uint64_t n)
{
    if (s->state == HKY_SESSION_CLOSED)
        return;
    if (n > s->p.policy->engine.max_message) {
        accept_session_close(s, "4.7.0", "the chunk is too big to be skipped");
        return;
    }
    if (n == 0)
        return;
    s->after_swallow = s->state;
    s->chunk_left = n;
    accept_session_enter(s, HKY_SESSION_SWALLOW);
}

void accept_transaction_bdat(struct accept_session *s, struct hky_smtp_command *c)
{
    const uint64_t max = s->p.policy->engine.max_message;

    if (s->tx.letter == NULL) {
        accept_session_error(s, 503, "5.5.1", "send %s first", s->hello == NULL ? "EHLO" : "MAIL");
    } else if (hky_letter_n_recipients(s->tx.letter) == 0) {
        accept_session_error(s, 554, "5.5.1", "no valid recipients");
    } else if (c->size > max) {
        accept_session_refuse(s, accept_session_sender(s), HKY_STR(""), 552, "5.3.4",
                              "message too big, at most %llu octets", (unsigned long long)max);
        if (s->state != HKY_SESSION_CLOSED)
            accept_session_tx_reset(s);
    } else {
        if (!hky_letter_has_begun(s->tx.letter)) {
            if (s->tx.size_hint < c->size)
                s->tx.size_hint = c->size;
            begin_content(s);
        }
        s->chunk_left = c->size;
        s->is_last_chunk = c->is_last;
        accept_session_enter(s, HKY_SESSION_CHUNK);
        if (c->size == 0)
            end_chunk(s);
        return;
    }
    swallow(s, c->size);
}

size_t accept_transaction_chunk_input(struct accept_session *s, const char *p, size_t n)
{
    size_t want = n < s->chunk_left ? n : (size_t)s->chunk_left;
    size_t used = hky_letter_add_octets(s->tx.letter, p, want);

    wait_if_full(s);
    s->chunk_left -= used;
    if (s->chunk_left == 0)
        end_chunk(s);
    return used;
}
