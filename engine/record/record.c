#include "record/record.h"

#include <stdlib.h>

enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e)
{
    struct hky_record *r = hky_calloc(1, sizeof *r);
    enum hky_err err;

    *out = NULL;
    if ((err = hky_events_open(p, &r->events, e)) != HKY_OK) {
        free(r);
        return err;
    }
    *out = r;
    return HKY_OK;
}

void hky_record_close(struct hky_record **r)
{
    struct hky_record *it = *r;

    *r = NULL;
    if (it == NULL)
        return;
    hky_events_close(&it->events);
    free(it);
}

void hky_record_event(struct hky_record *r, unsigned worker, const struct hky_event *ev)
{
    hky_events_add(r->events, worker, ev);
}

void hky_record_reopen(struct hky_record *r)
{
    hky_events_reopen(r->events);
}

uint64_t hky_record_dropped(const struct hky_record *r)
{
    return hky_events_dropped(r->events);
}
