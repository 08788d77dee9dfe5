/* Private to record: the open record. */
#ifndef HKY_RECORD_RECORD_H
#define HKY_RECORD_RECORD_H

#include "hikyaku/record.h"

struct hky_events;
struct hky_state;

struct hky_record {
    struct hky_events *events;
    struct hky_state *state;
};

enum hky_err hky_events_open(const struct hky_record_params *p, struct hky_events **out, struct hky_error *e);
void hky_events_close(struct hky_events **ev);
void hky_events_add(struct hky_events *ev, unsigned worker, const struct hky_event *event);
void hky_events_reopen(struct hky_events *ev);
uint64_t hky_events_dropped(const struct hky_events *ev);

enum hky_err hky_state_open(const char *dir, struct hky_log *log, struct hky_state **out, struct hky_error *e);
void hky_state_close(struct hky_state **s);
char *hky_state_read(struct hky_state *s, const char *kind, const char *key);
void hky_state_write(struct hky_state *s, const char *kind, const char *key, const char *value);
void hky_state_wait(struct hky_state *s);
void hky_state_walk(struct hky_state *s, const char *kind, void (*each)(void *ctx, const char *key, const char *value),
                    void *ctx);

#endif
