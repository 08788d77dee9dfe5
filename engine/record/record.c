#include "record/record.h"

#include <stdlib.h>

enum hky_err hky_record_open(const struct hky_record_params *p, struct hky_record **out, struct hky_error *e)
{
    struct hky_record *r = hky_calloc(1, sizeof *r);
    enum hky_err err;

    *out = NULL;
    if ((err = hky_state_open(p->dir, p->log, &r->state, e)) != HKY_OK ||
        (err = hky_events_open(p, &r->events, e)) != HKY_OK) {
        hky_state_close(&r->state);
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
    hky_state_close(&it->state);
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

char *hky_state_get(struct hky_record *r, const char *kind, const char *key)
{
    return hky_state_read(r->state, kind, key);
}

void hky_state_put(struct hky_record *r, const char *kind, const char *key, const char *value)
{
    hky_state_write(r->state, kind, key, value);
}

void hky_state_flush(struct hky_record *r)
{
    hky_state_wait(r->state);
}

void hky_state_each(struct hky_record *r, const char *kind, void (*each)(void *ctx, const char *key, const char *value),
                    void *ctx)
{
    hky_state_walk(r->state, kind, each, ctx);
}
