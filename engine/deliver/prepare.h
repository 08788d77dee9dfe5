/*
 * prepare -- what a delivery needs before its MAIL is written: a row of steps, run in order by the connection that has
 * the delivery in hand. A step may need another thread (the disk today, a signature later): then it says WAIT, starts
 * its work there, and hky_delivery_prepared is called on the loop when the answer has come. So nothing blocks, a
 * message that cannot be prepared costs no MAIL and no slot of a cap, and the server waits for nothing behind its 354.
 *
 * A connection that ends meanwhile lets its delivery go. The work is not called off: its answer finds a delivery that
 * nobody has (hky_delivery.is_orphan), and frees it.
 */
#ifndef HKY_DELIVER_PREPARE_H
#define HKY_DELIVER_PREPARE_H

#include "deliver/delivery.h"

enum hky_prepare {
    HKY_PREPARE_READY,
    HKY_PREPARE_WAIT,   /* hky_delivery_prepared follows and calls x->on_piece; then call again */
    HKY_PREPARE_FAILED, /* `e` says why: HKY_E_DAMAGED is permanent, any other error may pass */
};
/* Continues with the step that is next. READY: MAIL may be written. */
enum hky_prepare hky_delivery_prepare(struct hky_delivery *x, struct hky_error *e);
/* The answer that a step waited for has come, be it a success or a failure. Called on the loop; `x` may be freed by it.
 */
void hky_delivery_prepared(struct hky_delivery *x);

/* The steps. Each is called again after WAIT, and after FAILED when the delivery is tried once more. */

/* body.c: READY when the first piece of the body has been read. */
enum hky_prepare hky_prepare_body(struct hky_delivery *x, struct hky_error *e);

#endif
