/*
 * message -- an accepted message and its recipients, as every stage sees them.
 *
 * A message is immutable once accepted and reference-counted (any thread). Its recipients are one array inside it; each
 * recipient that is not finished holds one reference. The mutable part of a recipient belongs to the worker that has
 * its lane; before it is in a lane, to the worker that accepted it.
 */
#ifndef HIKYAKU_MESSAGE_H
#define HIKYAKU_MESSAGE_H

#include "base/buf.h"
#include "base/error.h"
#include "base/heap.h"
#include "hikyaku/outcome.h"
#include "hikyaku/plan.h"

#include <sys/queue.h>

/* Facts from the single parse at acceptance. They are packed, because a million messages may wait and most facts are
 * empty. Any of them may be "". */
enum hky_fact {
    HKY_FACT_SENDER,      /* envelope sender, raw local part, A-label domain in lower case; "" = null sender */
    HKY_FACT_AUTHOR,      /* first address of From, same form */
    HKY_FACT_AUTHOR_NAME, /* its display name, UTF-8 */
    HKY_FACT_SCENARIO,
    HKY_FACT_USER,       /* login */
    HKY_FACT_CLIENT,     /* address the mail came from, "127.0.0.1" */
    HKY_FACT_SOURCE,     /* how it was handed in: "smtp" "sendmail" "http" "dsn" "probe" */
    HKY_FACT_HELLO,      /* the name given with EHLO */
    HKY_FACT_ENVID,      /* RFC 3461 4.4, decoded xtext */
    HKY_FACT_REF,        /* X-Hikyaku-Ref: the application's own reference */
    HKY_FACT_MESSAGE_ID, /* with <> */
    HKY_FACT_SUBJECT,    /* decoded, UTF-8, at most 200 octets */
    HKY_FACT_TAGS,       /* each followed by NUL */
    HKY_FACT_VARS,       /* name NUL value NUL ... */
    HKY_FACT_N
};

enum hky_notify {
    HKY_NOTIFY_NEVER = 1,
    HKY_NOTIFY_SUCCESS = 2,
    HKY_NOTIFY_FAILURE = 4,
    HKY_NOTIFY_DELAY = 8
}; /* 0 = not stated: failure */
enum hky_ret { HKY_RET_UNSET, HKY_RET_FULL, HKY_RET_HDRS };

enum hky_recipient_state {
    HKY_RCPT_QUEUED,    /* in a lane, due now or later */
    HKY_RCPT_SENDING,   /* in a transaction under way */
    HKY_RCPT_PARKED,    /* waiting for a policy that can decide */
    HKY_RCPT_UNDECIDED, /* waiting for a look-up, or for the policy to have time */
    HKY_RCPT_HELD,      /* by an operator, or ambiguous twice, or three unclean stops */
    HKY_RCPT_DELIVERED,
    HKY_RCPT_FAILED,
    HKY_RCPT_EXPIRED,
    HKY_RCPT_CANCELLED, /* by an operator */
    HKY_RCPT_STATE_N
};
/* "queued"; and whether nothing can follow: delivered, failed, expired, cancelled. */
const char *hky_recipient_state_name(enum hky_recipient_state s);
bool hky_recipient_state_is_final(enum hky_recipient_state s);

/* One past attempt, unpacked. */
#define HKY_PAST_REPLY 120
#define HKY_PAST_MAX   16 /* typically 60 to 100 octets each, at most 270; none before the first attempt */
struct hky_past {
    int64_t at_ms;
    struct hky_str relay; /* whole, because it is compared; borrowed from the recipient, until its next change */
    struct hky_str reply; /* text, cut to HKY_PAST_REPLY octets */
    uint8_t step, class, scope, stage;
    bool is_temporary;
    uint16_t code;
    uint8_t enhanced[2];
    uint16_t enhanced_detail;
    uint32_t retry_after_sec, latency_ms;
};
struct hky_history; /* the last HKY_PAST_MAX attempts, packed; allocated with the first */

struct hky_message;

#define HKY_RECIPIENT_OWN 48

/* A million of these may wait: the order of the fields leaves no padding. */
struct hky_recipient {
    struct hky_message *message; /* counted while not finished */
    struct hky_plan *plan;       /* counted; NULL while parked, and before the first decision */
    struct hky_history *history; /* NULL before the first attempt; owned */
    union {                      /* private to schedule, while the recipient waits; not durable */
        void *align;
        unsigned char octets[HKY_RECIPIENT_OWN];
    } own;
    uint32_t index;      /* in message->recipients */
    uint32_t address_at; /* offset of the address in the message's packed facts */
    uint16_t address_n;
    uint16_t orcpt_n;          /* ORCPT follows the address in the packed facts */
    uint8_t notify;            /* HKY_NOTIFY_* */
    uint8_t state;             /* enum hky_recipient_state */
    uint8_t step;              /* current step of the plan */
    uint8_t left_steps;        /* how many step changes so far (at most HKY_PLAN_STEPS_MAX) */
    uint8_t copies : 7;        /* delivered copies */
    uint8_t is_redirected : 1; /* entered this step for a class named by `on` */
    uint8_t tries;             /* failures of network, system_temp, unknown at this step */
    uint8_t attempts;          /* all attempts */
    uint8_t step_attempts;     /* attempts at this step: index into the retry list */
    uint8_t ambiguous;         /* attempts that ended ambiguous at this step */
    uint8_t last_class;        /* enum hky_class of the last attempt or reason */
    uint8_t unclean;           /* stops of the engine while this was being sent */
    uint8_t parked_times;      /* how often parked: the policy is asked after 5m, 15m, 1h, then hourly */
    int64_t next_at_ms;        /* not tried before this */
    int64_t step_at_ms;        /* when the step was entered (0: not yet) */
    int64_t expire_at_ms;      /* wall; moved on by the time spent parked */
    int64_t parked_at_ms;      /* 0 = not parked */
    uint32_t policy;           /* low 32 bits of the hash of the policy that planned it */
    uint32_t arms_n;
    char *arms;   /* "experiment\0arm\0..." or NULL; owned */
    char *reason; /* why parked or held, or NULL; owned */
};

/* Body octets in memory, counted (any thread). */
struct hky_body {
    int refs;
    size_t n, cap;
    char *p; /* inside this allocation or malloc'ed by the maker; freed with it */
    /* No line begins with a dot, so the body is sent without dot-stuffing. false: not known. Only the reader of DATA
     * may set it: if it were wrong, a line of the content would end the message at the next server. */
    bool has_no_dot_lines;
};
struct hky_body *hky_body_new(char *p, size_t n, size_t cap); /* takes p (malloc) */
struct hky_body *hky_body_ref(struct hky_body *b);
void hky_body_unref(struct hky_body **b);

#define HKY_BIG_BODY (1u << 20) /* octets; a larger body lies in a file of its own */

struct hky_message {
    int refs; /* atomic */
    uint32_t n_recipients;
    uint64_t id;
    int64_t accepted_at_ms;
    int64_t deadline_ms;    /* X-Hikyaku-Deadline, 0 = none */
    uint64_t size;          /* octets of the stored message: CRLF line ends, not dot-stuffed, Received included */
    uint32_t header_octets; /* header section with its empty line */
    uint8_t is_8bit, is_smtputf8, is_binary, ret;
    uint8_t is_notice; /* our own failure notice: never causes another */
    uint8_t is_big;    /* body in spool/big/ID */
    uint16_t n_received;
    uint32_t packed_n;
    uint32_t segment;                  /* journal's: atomic; 0 = not yet written; moves when leftovers are copied */
    struct hky_body *body;             /* atomic pointer; NULL: read it from the journal. Use hky_journal_body(). */
    uint64_t body_at;                  /* journal's: atomic; where the body lies in the segment */
    uint32_t n_live;                   /* journal's: atomic; recipients not finished, for freeing */
    struct hky_recipient recipients[]; /* n_recipients; behind them, packed_n octets: facts, addresses */
};

/* What accept or notice fills in to make a message. All pointers are borrowed. */
struct hky_message_draft {
    uint64_t id;
    int64_t accepted_at_ms, deadline_ms;
    uint64_t size;
    uint32_t header_octets;
    bool is_8bit, is_smtputf8, is_binary, is_notice, is_big;
    enum hky_ret ret;
    uint16_t n_received;
    struct hky_str facts[HKY_FACT_N];
    const struct hky_rcpt_draft *recipients;
    uint32_t n_recipients;
};
struct hky_rcpt_draft {
    struct hky_str address; /* raw local part, A-label lower-case domain: "a..b@docomo.ne.jp" */
    struct hky_str orcpt;   /* as given, decoded: "rfc822;x@y" */
    uint8_t notify;
};

/* Returns a message with one reference. Every recipient is HKY_RCPT_QUEUED and has no plan. Its `message` is set, but
 * NOT counted: the caller that makes recipients live calls hky_message_ref once for each of them. */
struct hky_message *hky_message_new(const struct hky_message_draft *draft);
struct hky_message *hky_message_ref(struct hky_message *m);
void hky_message_unref(struct hky_message **m); /* the last one frees what the recipients own, too */
struct hky_str hky_message_fact(const struct hky_message *m, enum hky_fact f);
void hky_message_facts(const struct hky_message *m, struct hky_str out[HKY_FACT_N]); /* all facts in one call */
struct hky_str hky_recipient_address(const struct hky_recipient *r);
struct hky_str hky_recipient_domain(const struct hky_recipient *r); /* after the last @ */
struct hky_str hky_recipient_orcpt(const struct hky_recipient *r);
bool hky_message_has_tag(const struct hky_message *m, struct hky_str tag);
/* Walk packed pairs (vars, arms): *at from 0; false at the end. */
bool hky_packed_next(struct hky_str packed, size_t *at, struct hky_str *item);
enum hky_rank hky_recipient_rank(const struct hky_recipient *r); /* route's, else bulk with a scenario, else normal */

/* The last attempts, oldest first: how many are kept, and the i-th. */
unsigned hky_recipient_n_past(const struct hky_recipient *r);
void hky_recipient_past(const struct hky_recipient *r, unsigned i, struct hky_past *out);
/* Adds an attempt as the newest; when the history is full, the oldest is dropped. */
void hky_recipient_remember(struct hky_recipient *r, int64_t at_ms, const char *relay, const struct hky_outcome *o);

/* The durable forms in the journal, each with its version: the facts of a message with the fixed part of its
 * recipients, and the whole delivery state of one recipient. Plans are referred to by hash. HKY_E_SYNTAX of the
 * decoders: the octets are not such a form, and nothing was changed. */
void hky_message_encode(const struct hky_message *m, struct hky_buf *out);
enum hky_err hky_message_decode(struct hky_str encoded, struct hky_message **out, struct hky_error *e);
void hky_recipient_encode_state(const struct hky_recipient *r, struct hky_buf *out);
/* `plan_of` maps a hash to a plan (borrowed) or NULL. An unknown plan parks the recipient. */
enum hky_err hky_recipient_decode_state(struct hky_recipient *r, struct hky_str encoded,
                                        struct hky_plan *(*plan_of)(void *ctx, uint64_t hash), void *ctx,
                                        struct hky_error *e);

/* Makes ids greater than every earlier one, also over restarts: hky_id_seen reports the old ones. Any thread. */
struct hky_id_source {
    uint64_t last; /* atomic */
};
uint64_t hky_id_next(struct hky_id_source *s, int64_t now_ms);
void hky_id_seen(struct hky_id_source *s, uint64_t id);

#endif
