/*
 * decide -- one decision: which routes match, what the first that decides gives.
 */
#ifndef HKY_ROUTE_DECIDE_H
#define HKY_ROUTE_DECIDE_H

#include "route/vm.h"

/* What is asked about one recipient; keys are made when a condition needs them. */
struct hky_asking {
    struct hky_vm *vm;
    const struct hky_route_query *q;
    struct hky_match_key sender, author;
    bool has_sender, has_author;
    const char *failed; /* a function failed: vm->error has the text; else NULL */
    uint32_t failed_fn;
};
void hky_asking_begin(struct hky_asking *a, struct hky_vm *vm, const struct hky_route_query *q);
void hky_asking_end(struct hky_asking *a);
/* The header section of the query that runs; NULL p: there is none, or it is not at hand (vm->is_header_missing). */
struct hky_str hky_asking_header(struct hky_vm *vm);
/* Do all conditions hold? `why` (may be NULL) says which does not. With a->failed set: not known. */
bool hky_asking_matches(struct hky_asking *a, const struct hky_route *r, char *why, size_t n);

#endif
