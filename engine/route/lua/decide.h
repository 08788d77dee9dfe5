/*
 * decide -- one decision: finds the routes that match, and the plan of the first one that gives a plan.
 */
#ifndef HKY_ROUTE_DECIDE_H
#define HKY_ROUTE_DECIDE_H

#include "route/table/mailhosts.h"
#include "route/lua/vm.h"

/* Calls the function of the policy with that number in its table, under the policy's limits; its overruns are counted.
 * FAILED: the text is in vm->error. WAITS: the call is in *waits, for hky_fn_resume or hky_vm_drop. */
enum hky_fn_result { HKY_FN_OK, HKY_FN_FAILED, HKY_FN_WAITS };
enum hky_fn_result hky_fn_run(struct hky_vm *vm, uint32_t number, lua_CFunction body, void *ctx,
                              struct hky_call **waits);
enum hky_fn_result hky_fn_resume(struct hky_vm *vm, uint32_t number, struct hky_call **waits);

/* The state of the questions about one recipient; keys are made when a condition needs them. */
struct hky_asking {
    struct hky_vm *vm;
    const struct hky_route_query *q;
    struct hky_match_key sender, author;
    bool has_sender, has_author;
    const char *failed; /* a function failed: vm->error has the text; else NULL */
    uint32_t failed_fn;
    /* the condition that waits: its call, the function that it calls, and the result */
    struct hky_call *call;
    int when_ref;
    bool is_true;
    bool is_at_mx;                    /* the condition that waits is mx, else when */
    struct hky_mailhosts *mail_hosts; /* of the recipient's domain, once a condition asked; counted */
    bool is_unanswered;               /* the mail hosts could not be found out; mail_hosts->text says why */
    /* values of the vm, kept here while this decision waits and others run */
    uint32_t generation;
    struct hky_match_key key;
    struct hky_ticket ticket;
};
void hky_asking_begin(struct hky_asking *a, struct hky_vm *vm, const struct hky_route_query *q);
void hky_asking_end(struct hky_asking *a);
/* Pause and resume one decision; other decisions may be made in between. `q` is about the same recipient. */
void hky_asking_pause(struct hky_asking *a);
void hky_asking_continue(struct hky_asking *a, const struct hky_route_query *q);
/* The header section of the query that runs. Its p is NULL when there is none, or when it is not at hand
 * (vm->is_header_missing). */
struct hky_str hky_asking_header(struct hky_vm *vm);
/* Do all conditions hold? `why` (may be NULL) says which does not. With a->failed, a->is_unanswered or a->call set,
 * this is not known; with a->call set, hky_asking_resume_match gives the answer, with the same route. */
bool hky_asking_matches(struct hky_asking *a, const struct hky_route *r, char *why, size_t n);
bool hky_asking_resume_match(struct hky_asking *a, const struct hky_route *r, char *why, size_t n);

#endif
