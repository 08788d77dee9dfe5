/*
 * relay_spec -- what was declared about relays, before it is compiled: by relay { } and by rows.
 */
#ifndef HKY_ROUTE_RELAY_SPEC_H
#define HKY_ROUTE_RELAY_SPEC_H

#include "hikyaku/policy.h"

struct hky_relay_spec {
    const char *name;
    struct hky_place place;
    int ref;                 /* its table */
    bool is_row, is_of_file; /* the second: of rows "file.json" */
};

/* The key under which a row's relay is kept in the row's table; no key of a policy can be it. */
#define HKY_ROW_RELAY "\1relay"
#define HKY_ROW_MX    "\1mx" /* the row's condition; its key is also the relay's, which is true or false */

#endif
