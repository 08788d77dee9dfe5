/* Private to record: the open record. */
#ifndef HKY_RECORD_RECORD_H
#define HKY_RECORD_RECORD_H

#include "hikyaku/record.h"

struct hky_events;

struct hky_record {
    struct hky_events *events;
};

enum hky_err hky_events_open(const struct hky_record_params *p, struct hky_events **out, struct hky_error *e);
void hky_events_close(struct hky_events **ev);
void hky_events_add(struct hky_events *ev, unsigned worker, const struct hky_event *event);
void hky_events_reopen(struct hky_events *ev);
uint64_t hky_events_dropped(const struct hky_events *ev);

#endif
