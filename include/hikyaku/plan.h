/*
 * plan -- the plan as a value: ordered steps for one recipient. A plan is immutable, reference-counted and encodable.
 * Equal plans have the same hash, so that journal and memory hold each plan once.
 */
#ifndef HIKYAKU_PLAN_H
#define HIKYAKU_PLAN_H

#include "base/buf.h"
#include "base/error.h"
#include "hikyaku/outcome.h"

#define HKY_PLAN_STEPS_MAX 16 /* most steps of a recipient, also from scripts */
#define HKY_ATTEMPTS_MAX   60 /* most attempts of a recipient, over all its steps */
#define HKY_COPIES_MAX     3
#define HKY_NAME_MAX       120 /* octets of a name that the policy declares: of a relay, route, row, split or arm */
#define HKY_RETRY_MAX      16  /* entries of a retry list */
#define HKY_UNSET_SEC      UINT32_MAX

/* Actions of a route's `react`. */
enum hky_action {
    HKY_ACTION_NONE,
    HKY_ACTION_RETRY,
    HKY_ACTION_NEXT,
    HKY_ACTION_FAIL,
    HKY_ACTION_HOLD,
    HKY_ACTION_DONE
};

struct hky_retry { /* seconds before the 2nd, 3rd, ... attempt; the last repeats; n 0 = not stated */
    uint8_t n;
    uint32_t after_sec[HKY_RETRY_MAX];
};

struct hky_step {
    const char *relay;    /* name of the relay; never NULL */
    const char *account;  /* "" = the relay's own */
    uint64_t on;          /* classes and reasons for which the step is entered; 0 = not stated: any */
    uint16_t tries;       /* failures of network, system_temp, unknown before the step is left; 0 = default 3 */
    uint32_t within_sec;  /* HKY_UNSET_SEC: half of the time left until expire */
    uint32_t wait_sec;    /* how long it may wait for its turn; HKY_UNSET_SEC: no limit */
    const char *from;     /* NULL not stated; "" = `false`: never rewrite, skip the step (sends_as) */
    const char *envelope; /* NULL not stated; may hold {id} {rcpt} */
    const char *reply_to; /* NULL not stated */
    struct hky_retry retry;
};

enum hky_rank { HKY_RANK_URGENT, HKY_RANK_NORMAL, HKY_RANK_BULK, HKY_RANK_N };
/* "urgent", as policies write it. */
const char *hky_rank_name(enum hky_rank r);
enum hky_dsn_mode { HKY_DSN_EACH, HKY_DSN_DIGEST, HKY_DSN_NONE, HKY_DSN_UNSET };

struct hky_plan {
    int refs;            /* atomic */
    uint64_t hash;       /* of `encoded` */
    const char *encoded; /* the durable form, little-endian, versioned; inside this allocation */
    uint32_t encoded_n;
    const char *route; /* name of the route that gave the plan */
    const char *file;  /* where the route is written */
    uint32_t line;
    enum hky_rank rank; /* as stated by the route; the default is resolved per message */
    bool has_rank;
    bool is_from_function;  /* made by a function: it is called again before the first attempt after 15 min */
    enum hky_dsn_mode dsn;  /* HKY_DSN_UNSET: default */
    uint32_t expire_sec;    /* HKY_UNSET_SEC: engine.expire */
    struct hky_retry retry; /* n 0: engine.retry */
    const char *from;       /* route level; as in the step */
    const char *envelope;
    const char *reply_to;
    uint8_t react[HKY_CLASS_N];            /* enum hky_action */
    uint32_t react_after_sec[HKY_CLASS_N]; /* for RETRY; 0 = the usual delay */
    uint8_t n_steps;
    struct hky_step steps[HKY_PLAN_STEPS_MAX];
};

/* A plan from its parts: strings are copied, hash and encoded filled. `draft` is borrowed. One reference.
 * HKY_E_LIMIT: more than HKY_PLAN_STEPS_MAX steps or none, or an encoding above 64 KiB. */
enum hky_err hky_plan_new(const struct hky_plan *draft, struct hky_plan **out, struct hky_error *e);
/* Decodes the durable form (journal). HKY_E_SYNTAX: the octets are not a plan. */
enum hky_err hky_plan_decode(struct hky_str encoded, struct hky_plan **out, struct hky_error *e);
struct hky_plan *hky_plan_ref(struct hky_plan *p); /* any thread */
void hky_plan_unref(struct hky_plan **p);

#endif
