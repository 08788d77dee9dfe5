/*
 * decide -- one decision: which routes match, what the first that decides gives.
 */
#ifndef HKY_ROUTE_DECIDE_H
#define HKY_ROUTE_DECIDE_H

#include "route/table/mailhosts.h"
#include "route/lua/vm.h"

/* A function of the policy by its slot, under the policy's limits and counting its overruns. FAILED: vm->error. WAITS:
 * the call is in *waits, for hky_fn_resume or hky_vm_drop. */
enum hky_fn_result { HKY_FN_OK, HKY_FN_FAILED, HKY_FN_WAITS };
enum hky_fn_result hky_fn_run(struct hky_vm *vm, uint32_t slot, lua_CFunction body, void *ctx, struct hky_call **waits);
enum hky_fn_result hky_fn_resume(struct hky_vm *vm, uint32_t slot, struct hky_call **waits);

/* What is asked about one recipient; keys are made when a condition needs them. */
struct hky_asking {
    struct hky_vm *vm;
    const struct hky_route_query *q;
    struct hky_match_key sender, author;
    bool has_sender, has_author;
    const char *failed; /* a function failed: vm->error has the text; else NULL */
    uint32_t failed_fn;
    /* a condition that waits: its call, what that calls, and what came out */
    struct hky_call *call;
    int when_ref;
    bool holds;
    bool is_at_mx;                    /* the condition that waits is mx, else when */
    struct hky_mailhosts *mail_hosts; /* of the recipient's domain, once a condition asked; counted */
    bool is_unanswered;               /* they could not be found out: mail_hosts->text */
    /* of the vm, while the decision waits and others run */
    uint32_t generation;
    struct hky_match_key key;
    struct hky_ticket ticket;
};
void hky_asking_begin(struct hky_asking *a, struct hky_vm *vm, const struct hky_route_query *q);
void hky_asking_end(struct hky_asking *a);
/* Between two parts of one decision: others may be made meanwhile. `q` is about the same recipient. */
void hky_asking_pause(struct hky_asking *a);
void hky_asking_go_on(struct hky_asking *a, const struct hky_route_query *q);
/* The header section of the query that runs; NULL p: there is none, or it is not at hand (vm->is_header_missing). */
struct hky_str hky_asking_header(struct hky_vm *vm);
/* Do all conditions hold? `why` (may be NULL) says which does not. With a->failed, a->is_unanswered or a->call set: not
 * known. In the last case the answer comes from hky_asking_resume, with the same route. */
bool hky_asking_matches(struct hky_asking *a, const struct hky_route *r, char *why, size_t n);
bool hky_asking_resume(struct hky_asking *a, const struct hky_route *r, char *why, size_t n);

#endif
