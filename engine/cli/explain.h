/*
 * explain -- the data that the subcommand prints: one invented recipient, its decision and how its plan continues.
 */
#ifndef HKY_CLI_EXPLAIN_H
#define HKY_CLI_EXPLAIN_H

#include "hikyaku/intake.h"
#include "hikyaku/rehearse.h"
#include "hikyaku/route.h"

/* The options as given; NULL = not given. Lists are borrowed from argv. */
struct explain_request {
    const char *policy, *to, *sender, *author, *scenario, *message, *user, *at;
    bool is_utc;
    const char **tags, **vars, **headers, **after;
    size_t n_tags, n_vars, n_headers, n_after;
};

/* An attempt given with --after, or a step that was left without one, with the result in the schedule. */
struct explain_after {
    char relay[HKY_REHEARSAL_RELAY];
    struct hky_outcome outcome;
    struct hky_advance advance;
    int64_t at_ms;
};

struct explain_case {
    struct hky_policy *policy;
    struct hky_vm *vm;
    struct hky_loop *loop; /* the loop of the policy's look-ups */
    struct hky_lookups *lookups;
    struct hky_message *message;
    struct hky_recipient *recipient; /* of `message` */
    struct hky_buf header;
    struct hky_refusal refusal;
    struct hky_explanation explanation;
    bool is_utc;              /* times are printed in UTC, not in engine.timezone */
    int64_t now_ms;           /* moves with --after */
    struct hky_advance first; /* the step that is entered first */
    enum hky_action state;    /* NEXT or RETRY: not finished; DONE FAIL HOLD: ended */
    struct hky_rehearsal rehearsal;
    bool is_rehearsing;
    struct explain_after *after;
    size_t n_after;
};

/* Makes the message that the options describe, with its header section, as the engine would accept it. WRONG: an error
 * about the options was printed. REFUSED: the engine would refuse it, `refusal` says why. (explain_draft.c) */
enum explain_draft_result { EXPLAIN_TAKEN, EXPLAIN_REFUSED, EXPLAIN_WRONG };
enum explain_draft_result explain_draft(struct explain_case *c, const struct explain_request *request);
/* "2026-12-01 10:00", "10:00" (today), "2026-12-01" or Unix seconds, in the policy's timezone. */
bool explain_time(const char *text, int64_t now_ms, int64_t *out_ms);

/* The relay that serves a step (`instead` followed), or NULL. The second gives its name, or without such a relay the
 * name in the plan. */
const struct hky_relay *explain_relay(const struct explain_case *c, uint8_t step);
const char *explain_relay_name(const struct explain_case *c, uint8_t step);

/* What an outcome of this class would do at the recipient's present step. Pure. */
void explain_if(const struct explain_case *c, enum hky_class class, bool is_temporary, struct hky_advance *out);

void explain_print_text(const struct explain_case *c); /* (explain_text.c) */
void explain_print_json(const struct explain_case *c); /* (explain_json.c) */

#endif
