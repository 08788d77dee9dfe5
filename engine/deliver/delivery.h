/*
 * delivery -- one message on its way through one connection: its transaction, its envelope as commands, and its
 * content: header rewritten for this attempt, body by reference, dot-stuffed on the way.
 */
#ifndef HKY_DELIVER_DELIVERY_H
#define HKY_DELIVER_DELIVERY_H

#include "smtp/dialogue.h"
#include "hikyaku/schedule.h"
#include "net/stream.h"

/* What a host said of a recipient, kept while another host is tried. */
struct hky_kept_answer {
    enum hky_stage stage;
    enum hky_class class;
    struct hky_reply reply;
};

#define HKY_HOSTS_MAX 20 /* engine.bounds.hosts at most */
struct hky_target {
    sa_family_t family;
    uint8_t octets[16];
};

struct hky_delivery {
    struct hky_transaction txn; /* first: the dialogue knows only this */
    struct hky_job *job;        /* NULL in a probe */
    struct hky_message *message;
    const struct hky_identity *identity;
    const struct hky_recipient *const *recipients; /* txn.n */
    const char *hostname;                          /* for a Message-ID that is missing */
    struct hky_str content;                        /* probe: header and body, instead of the journal's */
    struct hky_journal *journal;
    struct hky_loop *loop;
    /* What was awaited, a piece or a preparation, has come: go on preparing or writing. */
    void (*on_piece)(void *ctx, struct hky_delivery *x);
    void *ctx;
    int64_t mail_at_ms;  /* loop time at which MAIL was written */
    uint64_t mail_at;    /* octets of the stream before MAIL */
    unsigned prepare_at; /* prepare's: the step that is next */
    /* body's */
    struct hky_body_read read;
    struct hky_buf gathered; /* the header section, when it comes in pieces */
    uint64_t at;
    uint8_t dot;
    bool is_reading, has_piece, is_header_out, is_orphan;
    size_t verdicts_cap;
    /* of this attempt, over several hosts */
    struct hky_target tried[HKY_HOSTS_MAX];
    unsigned n_tried;
    struct hky_kept_answer *
        *answers; /* n of them; NULL: no recipient has one. A recipient with one is to be tried at another host */
    unsigned n_answers;
    unsigned n_left;                /* recipients too many for one transaction; a further one sends to them */
    bool is_mail_sent;              /* an earlier host's connection sent a MAIL */
    TAILQ_ENTRY(hky_delivery) link; /* pool->detours */
    struct hky_delivery *free_next;
};

/* A delivery without a message; reset prepares it for one. */
struct hky_delivery *hky_delivery_new(void);
/* n recipients; keeps the memory of the last use. */
void hky_delivery_reset(struct hky_delivery *x, unsigned n);
/* Prepares to send once more, over another connection and from the start, to the recipients with a kept answer. A
 * reader thread may still have a piece on its way; then *x is another delivery afterwards, without that piece. */
void hky_delivery_rewind(struct hky_delivery **x);
/* Keeps what a host said of recipient i, unless what was kept before is better. */
void hky_delivery_keep_answer(struct hky_delivery *x, unsigned i, const struct hky_kept_answer *k);
void hky_delivery_forget_answer(struct hky_delivery *x, unsigned i);
/* Does the earlier answer say more? A temporary answer counts more than a permanent one, which a host says of itself;
 * of two alike, the one that came at a later stage. */
bool hky_kept_answer_is_better(const struct hky_kept_answer *earlier, const struct hky_kept_answer *later);
/* A reader thread may still have a piece on its way; then the memory is freed when that piece has come. */
void hky_delivery_free(struct hky_delivery **x);

/* What keeps a message, or one recipient, from being sent over this server: a verdict that needs no reply. */
struct hky_delivery_obstacle {
    enum hky_class class;
    char text[160];
};
/* Writes the envelope's commands. false: this server can take the message for nobody, and `why` says so. `refuse` is
 * called for each single recipient whose address cannot be written for this server. Where the commands are too long to
 * be kept, the recipients behind them are counted in n_left. */
bool hky_delivery_build_envelope(struct hky_delivery *x, const struct hky_capabilities *caps, bool is_raw,
                                 struct hky_delivery_obstacle *why,
                                 void (*refuse)(void *ctx, unsigned i, const struct hky_delivery_obstacle *why),
                                 void *ctx);

enum hky_write { HKY_WRITE_DONE, HKY_WRITE_WAIT, HKY_WRITE_FAILED };
/* Writes as much content as has been read and as the stream has room for. DONE: the final dot was written, too. WAIT:
 * call again on on_piece, or when the stream has drained. */
enum hky_write hky_delivery_write(struct hky_delivery *x, struct hky_stream *s, struct hky_buf *scratch,
                                  struct hky_error *e);

#endif
