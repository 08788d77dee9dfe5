/*
 * intake -- what turns an envelope, content, facts and trusted fields into a submitted message. It knows no SMTP
 * session: the SMTP listener uses it (and `hikyaku send` through that), failure notices use it, explain asks it what a
 * login may do.                                              [intake]: accept, notices -> route -> journal -> schedule
 *
 *   hky_letter       one message while it is handed in: who sends it, to whom, its octets; in the end a message
 *   hky_user_...     what a login (a user of the policy) may use: pure functions
 *   hky_submission   a message on its way: decided, journalled, and handed on when it is durable
 * Threads: a letter and a submission belong to one worker.
 */
#ifndef HIKYAKU_INTAKE_H
#define HIKYAKU_INTAKE_H

#include "hikyaku/journal.h"
#include "hikyaku/policy.h"
#include "hikyaku/record.h"

/* Why something is refused, in the terms of SMTP, which every way in can translate. code 0: it is accepted. */
struct hky_refusal {
    int code;             /* 4xx: the same may be accepted later */
    const char *enhanced; /* "5.7.1" */
    char text[120];
    const char *warning; /* what the log calls a refusal that somebody should look at; NULL: it is not logged */
};
void hky_refusal_set(struct hky_refusal *r, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Makes the refusal for a result of hky_journal_room, of a body's file or of a commit: 452 for HKY_E_FULL, code 0 for
 * HKY_OK, 552 for HKY_E_LIMIT, 451 for the others. */
void hky_refusal_set_storage(struct hky_refusal *r, enum hky_err err);

/* --- what a login may use; NULL, no login, may use everything --- */

/* The login of that name at any listener of the policy, NULL when there is none. */
const struct hky_user *hky_user_find(const struct hky_policy *policy, struct hky_str name);
/* An envelope sender or author. Entries of `sender` are addresses, domains, ".domain" for those below it, "*". */
bool hky_user_may_send_as(const struct hky_user *user, struct hky_str address);
/* The scenario of a message whose application named `named` ("" none): that one, or the only one of the login. false:
 * refused with 550 5.7.1, so that a name the login may not use never sends the message another way. `out` borrows from
 * either. */
bool hky_user_scenario(const struct hky_user *user, struct hky_str named, struct hky_str *out, struct hky_refusal *r);

/* --- one message being handed in --- */

struct hky_letter;

/* These write a body above HKY_BIG_BODY, as hky_journal_big_open, _write and _abort do. */
struct hky_big_ops {
    void *ctx;
    enum hky_err (*open)(void *ctx, uint64_t id, void **big);
    bool (*write)(void *ctx, void *big, const char *p, size_t n);
    void (*abort)(void *ctx, void *big);
};

struct hky_letter_params {
    const struct hky_policy *policy; /* borrowed for the life of the letter */
    const struct hky_user *user;     /* the login; NULL: there is none, and no login restricts the message */
    bool is_trusted;                 /* X-Hikyaku-* are believed; they are removed in any case */
    bool is_notice;                  /* a failure notice of ours: the bounds for other people's mail do not apply */
    uint64_t id;
    int64_t now_ms;
    struct hky_big_ops big;
};
/* A new letter without sender, recipients and octets; the caller frees it, also after hky_letter_end. */
struct hky_letter *hky_letter_new(const struct hky_letter_params *p);
void hky_letter_free(struct hky_letter **l); /* NULL is fine; aborts a file that was begun */

struct hky_letter_sender {
    struct hky_str address; /* the local part as it is, the domain as A-labels in lower case; "" is the null sender */
    struct hky_str envid;   /* decoded; "" none */
    enum hky_ret ret;
    uint64_t size;             /* announced octets, 0 unknown */
    bool is_smtputf8, is_utf8; /* SMTPUTF8 was asked for; the address needs it */
};
/* false: refused; the letter can only be freed. */
bool hky_letter_set_sender(struct hky_letter *l, const struct hky_letter_sender *s, struct hky_refusal *r);

struct hky_letter_rcpt {
    struct hky_str address; /* as the sender's; one without @ (postmaster) is at engine.hostname */
    struct hky_str orcpt;   /* decoded; "" none */
    uint8_t notify;
    bool is_utf8;
};
/* Adds a recipient; one that is there already is accepted and counts once. false: this one is refused. */
bool hky_letter_add_recipient(struct hky_letter *l, const struct hky_letter_rcpt *to, struct hky_refusal *r);
uint32_t hky_letter_n_recipients(const struct hky_letter *l);
struct hky_str hky_letter_sender(const struct hky_letter *l);

/* Where a message came from. */
struct hky_letter_origin {
    const char *source; /* "smtp" "http" "dsn"; a trusted application may say "sendmail" instead of "smtp" */
    const char *client; /* numeric address, "" for our own */
    const char *hello;  /* what the client called itself, "" nothing */
    const char *with;   /* RFC 3848: "ESMTPSA"; NULL: our own mail, which gets no Received field */
};
/* The octets follow; `hint` says how many, 0 unknown. The recipients must be complete, because the Received field is
 * written now. */
void hky_letter_begin(struct hky_letter *l, const struct hky_letter_origin *origin, uint64_t hint);
bool hky_letter_has_begun(const struct hky_letter *l);
/* Octets of DATA; dot-stuffing is removed. Returns those consumed; stops at the end, or when the file has no room. */
size_t hky_letter_add_data(struct hky_letter *l, const char *p, size_t n, bool *is_end);
/* Octets as they are (BDAT, a file): returns those consumed, less when the file has no room. */
size_t hky_letter_add_octets(struct hky_letter *l, const char *p, size_t n);
bool hky_letter_was_full(struct hky_letter *l); /* the file had no room: wait for it before the next octets */
/* Why the letter is refused already, NULL: it is not. Octets that still come are read and thrown away. */
const struct hky_refusal *hky_letter_refusal(const struct hky_letter *l);

/* The octets are complete. true: `out` has the message, one reference, with `header` (borrowed from the body; or from
 * the letter when `big`), and the file if it is big: all the caller's, ready for hky_intake_submit. */
struct hky_handed_in {
    struct hky_message *message;
    struct hky_str header;
    void *big;
};
bool hky_letter_end(struct hky_letter *l, struct hky_handed_in *out, struct hky_refusal *r);
/* X-Hikyaku-* fields of the letter that mean nothing and were removed, for a warning: "X-Hikyaku-Deadlin (did you mean
 * X-Hikyaku-Deadline?), X-Hikyaku-Foo", cut; "" none. Borrowed from the letter. */
struct hky_str hky_letter_unknown_fields(const struct hky_letter *l);

/* "2026-12-01T10:00:00+09:00", seconds since 1970, or "2h" from now. */
bool hky_intake_deadline_parse(struct hky_str s, int64_t now_ms, int64_t *at_ms);

/* --- on its way to the disk --- */

/* What a worker needs to hand messages in. The caller fills it; it is borrowed until the last `done`. */
struct hky_intake {
    unsigned worker;
    struct hky_loop *loop;
    struct hky_journal *journal;
    const struct hky_clock *clock;
    void *ctx; /* of the following */
    /* Gives every recipient its plan, state and expiry; the header section is in `header`. */
    void (*decide)(void *ctx, unsigned worker, struct hky_message *m, struct hky_str header);
    /* The message is durable; the references of the live recipients are handed over. */
    void (*enqueue)(void *ctx, unsigned worker, struct hky_message *m);
    void (*event)(void *ctx, unsigned worker, const struct hky_event *ev); /* accepted, refused; NULL: none */
};

struct hky_submission {
    struct hky_commit commit; /* used by intake only, like `intake` and `about` */
    const struct hky_intake *intake;
    struct hky_recipient *about;
    struct hky_message *message; /* one reference, given up after `done` */
    /* On the worker's loop, never from inside hky_intake_submit. With HKY_OK the message is durable (`durable` proves
     * it) and is handed on as soon as this returns. The submission may not be freed here. */
    void (*done)(struct hky_submission *s, const struct hky_durable *durable, enum hky_err result);
    void (*free)(struct hky_submission *s); /* frees it after `done`; not called when the loop stops earlier */
};
/* Decides and journals the message that a letter became; takes over its reference and its file. The caller has set
 * `done` and `free` of `s`. */
void hky_intake_submit(const struct hky_intake *in, struct hky_submission *s, struct hky_handed_in *what);
/* Does the same for a notice of ours, journalled in one commit with `finished` of the recipient it is about. */
void hky_intake_submit_about(const struct hky_intake *in, struct hky_submission *s, struct hky_handed_in *what,
                             struct hky_recipient *about);

#endif
