/*
 * outcome -- what became of one attempt, and why: one vocabulary for deliver, schedule, record, policy and pages.
 */
#ifndef HIKYAKU_OUTCOME_H
#define HIKYAKU_OUTCOME_H

#include "base/str.h"

/* Classes of POLICY.md 5, then the reasons without an attempt: one number space, so that a step's `on` is one mask.
 * X(id, name, set, temporary): set is T theirs, O ours, C content, R a reason without an attempt, - none. */
#define HKY_CLASSES(X)                                                                                                 \
    X(OK, "ok", '-', 0)                                                                                                \
    X(BAD_MAILBOX, "bad_mailbox", 'T', 0)                                                                              \
    X(BAD_DOMAIN, "bad_domain", 'T', 0)                                                                                \
    X(INACTIVE, "inactive", 'T', 0)                                                                                    \
    X(MAILBOX_FULL, "mailbox_full", 'T', 0)                                                                            \
    X(FILTERED, "filtered", 'O', 0)                                                                                    \
    X(AUTH_POLICY, "auth_policy", 'O', 0)                                                                              \
    X(BLOCKED_IP, "blocked_ip", 'O', 0)                                                                                \
    X(TLS, "tls", 'O', 1)                                                                                              \
    X(SIZE_FORMAT, "size_format", 'O', 0)                                                                              \
    X(QUOTA_EXHAUSTED, "quota_exhausted", 'O', 0)                                                                      \
    X(RELAY_AUTH, "relay_auth", 'O', 0)                                                                                \
    X(RELAY_DENIED, "relay_denied", 'O', 0)                                                                            \
    X(RATE_LIMITED, "rate_limited", 'O', 1)                                                                            \
    X(REPUTATION_CONTENT, "reputation_content", 'C', 0)                                                                \
    X(NETWORK, "network", 'O', 1)                                                                                      \
    X(SYSTEM_TEMP, "system_temp", 'O', 1)                                                                              \
    X(UNKNOWN, "unknown", 'O', 1)                                                                                      \
    X(AMBIGUOUS, "ambiguous", '-', 0)                                                                                  \
    X(SUPPRESSED, "suppressed", 'T', 0)                                                                                \
    X(EXPIRED, "expired", '-', 0)                                                                                      \
    X(FULL, "full", 'R', 0)                                                                                            \
    X(PAUSED, "paused", 'R', 0)                                                                                        \
    X(SENDS_AS, "sends_as", 'R', 0)

enum hky_class {
#define X(id, name, set, temporary) HKY_CLASS_##id,
    HKY_CLASSES(X)
#undef X
        HKY_CLASS_N
};
#define HKY_CLASS_BIT(c) (UINT64_C(1) << (c))
#define HKY_CLASS_ALL    (HKY_CLASS_BIT(HKY_CLASS_N) - 1)

/* "bad_mailbox", as policies and logs write it; parse is false for a name that is none. */
extern const char *const hky_class_names[HKY_CLASS_N + 1]; /* ended by NULL */
const char *hky_class_name(enum hky_class c);
bool hky_class_parse(struct hky_str name, enum hky_class *c);
char hky_class_set(enum hky_class c); /* the letter of its set, as above */
bool hky_class_is_temporary(enum hky_class c);
bool hky_class_is_reason(enum hky_class c); /* full paused sends_as: no attempt was made */
bool hky_class_set_mask(struct hky_str set,
                        uint64_t *mask); /* "ours" "theirs" "content" "temporary"; false if unknown */

enum hky_scope {
    HKY_SCOPE_RECIPIENT,
    HKY_SCOPE_DOMAIN,
    HKY_SCOPE_MESSAGE,
    HKY_SCOPE_SENDER,
    HKY_SCOPE_RELAY,
    HKY_SCOPE_PATH,
    HKY_SCOPE_N
};
/* "recipient"; for logs and explain. */
const char *hky_scope_name(enum hky_scope s);

/* The stage of the dialogue at which an attempt ended. RESOLVE precedes connect; policies see it as "connect". */
enum hky_stage {
    HKY_STAGE_NONE,
    HKY_STAGE_CONNECT,
    HKY_STAGE_GREETING,
    HKY_STAGE_HELLO,
    HKY_STAGE_TLS,
    HKY_STAGE_AUTH,
    HKY_STAGE_MAIL,
    HKY_STAGE_RCPT,
    HKY_STAGE_DATA,
    HKY_STAGE_DOT,
    HKY_STAGE_DSN,
    HKY_STAGE_N
};
const char *hky_stage_name(enum hky_stage s); /* "" for NONE */
bool hky_stage_parse(struct hky_str name, enum hky_stage *s);

/* A protocol verdict. Local causes use the same type, so that one callback shape and one classifier serve all. */
enum hky_origin {
    HKY_ORIGIN_REMOTE,
    HKY_ORIGIN_DNS,
    HKY_ORIGIN_CONNECT,
    HKY_ORIGIN_TLS,
    HKY_ORIGIN_TIMEOUT,
    HKY_ORIGIN_LOST,
    HKY_ORIGIN_LOCAL,
    HKY_ORIGIN_POLICY,
    HKY_ORIGIN_SPOOL /* our own copy of the message is damaged: it is held, whatever the plan says */
};
#define HKY_REPLY_TEXT 1000
struct hky_reply {
    uint16_t code;            /* 200..599 from a server; 0 for local causes */
    uint8_t enhanced[3];      /* class subject detail; class 0 = none. detail above 255 is kept in text only */
    uint16_t enhanced_detail; /* the detail as sent (Microsoft uses 5.7.515); the class and subject are in enhanced[] */
    enum hky_origin origin;
    uint16_t n;                /* octets in text */
    char text[HKY_REPLY_TEXT]; /* lines joined by a space, codes removed, NUL-terminated, printable UTF-8; cut to fit */
};

/* "550 5.1.1 text" into `out`, NUL-terminated, cut to n. Local causes give the text alone. Returns out. */
const char *hky_reply_format(const struct hky_reply *r, char *out, size_t n);
/* A local verdict with printf text, no code. */
void hky_reply_local(struct hky_reply *r, enum hky_origin origin, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One-line text as a person types it ("550 5.7.1 blocked", "refused", "timeout") into a reply; for --after and rules.
 */
void hky_reply_from_text(struct hky_reply *r, struct hky_str text);

struct hky_outcome {
    enum hky_class class;
    enum hky_scope scope;
    enum hky_stage stage;
    bool is_temporary;        /* by the server's own code: 4xx, or a local cause that may pass */
    uint32_t retry_after_sec; /* as the text named it, 0 = not named */
    uint32_t latency_ms;      /* MAIL written to final reply */
    const char *host;         /* MX host of direct delivery, borrowed for the call; NULL: unknown, or through a relay */
    bool takes_dsn; /* the relay offers DSN and got NOTIFY, so it sends the success notices (RFC 3461 5.2.1) */
    struct hky_reply reply;
};

/* One classification rule; shipped as data in scripts/hikyaku/classify.lua, first hit wins, provider rules before
 * generic ones. Empty strings and zeros match everything. All strings live as long as the policy. */
struct hky_class_rule {
    const char *provider;        /* preset name, "" any; "own" = direct to MX */
    const char *mx;              /* glob over the MX host or domain spoken to, "" any */
    uint16_t stages;             /* bit (1 << hky_stage); 0 any */
    uint16_t code_min, code_max; /* 0,0 any */
    const char *enhanced;        /* "5.7.1", "x.7.26" (x = any class), glob; "" any */
    const char *text;            /* alternatives joined by '|', each a glob without anchors ("*a*b*" inside); "" any */
    const char *with;            /* such alternatives, one of which must occur, too; "" any */
    const char *without;         /* such alternatives, none of which may occur */
    enum hky_class class;
    enum hky_scope scope;
    uint32_t retry_after_sec;
    const char *why; /* source of the rule */
};

struct hky_classify_query {
    const char *provider; /* preset of the relay or ""; "own" for MX delivery */
    const char *mx;       /* host spoken to, "" unknown */
    bool is_own;          /* direct to the recipient's MX: RCPT replies speak of the recipient */
    enum hky_stage stage;
    const struct hky_reply *reply;
    struct hky_str address; /* of the recipient, for texts that name it */
    int64_t now_ms;         /* by the wall clock, for texts that name a moment; must be given */
};
/* Fills class, scope, is_temporary, retry_after_sec, stage and copies the reply. Pure. (deliver/classify.c) */
void hky_classify(const struct hky_class_rule *rules, size_t n_rules, const struct hky_classify_query *q,
                  struct hky_outcome *out);

#endif
