/*
 * lookup -- the look-ups of one worker's decisions, and who waits for them. It outlives the vms of the worker.
 *
 * A decision that waits holds a ticket {slot, generation}. Whoever completes the look-up shows the ticket, and the
 * owner of the decision is notified, once. A decision that is over, or that waits for something else by now, has given
 * its ticket back: a late completion is known by its generation and refused.
 */
#ifndef HKY_ROUTE_LOOKUP_H
#define HKY_ROUTE_LOOKUP_H

#include "hikyaku/route.h"

struct hky_ticket {
    uint32_t slot, generation; /* generation 0: the ticket belongs to nobody */
};

/* `ready(ctx)` is called by hky_ticket_ready, at most once, and never after hky_ticket_end. */
struct hky_ticket hky_ticket_new(struct hky_lookups *l, void (*ready)(void *ctx), void *ctx);
/* The wait is over, or its result is no longer wanted. Afterwards the ticket belongs to nobody. */
void hky_ticket_end(struct hky_lookups *l, struct hky_ticket *t);
/* Tell the owner of the ticket that the answer has come; never call it from inside the decision that asked. False: the
 * owner no longer waits. */
bool hky_ticket_ready(struct hky_lookups *l, struct hky_ticket t);

/* True after hky_lookups_wait_here: a call that waits runs the loop, by hky_lookups_turn, until its answer has come. */
bool hky_lookups_is_waiting_here(const struct hky_lookups *l);
void hky_lookups_turn(struct hky_lookups *l);

#endif
