/* Keeps what happened as copies of events, because what the events point at is freed. */
#include "rehearse/internal.h"

#include <stdio.h>

struct hky_rehearsal_act *rehearse_add_act(struct hky_rehearsal *r, const struct hky_event *ev)
{
    struct hky_rehearsal_act *a;

    if (r->n_acts == r->acts_cap) {
        r->acts_cap = r->acts_cap == 0 ? 4 : r->acts_cap * 2;
        r->acts = hky_realloc(r->acts, r->acts_cap * sizeof *r->acts);
    }
    a = &r->acts[r->n_acts++];
    memset(a, 0, offsetof(struct hky_rehearsal_act, outcome));
    a->kind = ev->kind;
    a->at_ms = ev->at_ms;
    a->message = ev->message != NULL ? ev->message->id : 0;
    a->recipient = ev->recipient != NULL ? ev->recipient->index : 0;
    a->step = ev->recipient != NULL ? ev->recipient->step : 0;
    a->next_at_ms = ev->next_at_ms;
    a->has_outcome = ev->outcome != NULL && ev->relay != NULL;
    a->is_attempt = a->has_outcome && !hky_class_is_reason(ev->outcome->class);
    a->outcome.reply.text[0] = '\0';
    if (ev->outcome != NULL) {
        a->outcome = *ev->outcome;
        a->outcome.host = NULL; /* borrowed for the event */
    }
    snprintf(a->relay, sizeof a->relay, "%s", ev->relay != NULL ? ev->relay : "");
    snprintf(a->from, sizeof a->from, "%s", ev->from != NULL ? ev->from : "");
    snprintf(a->sender, sizeof a->sender, "%s", ev->sender != NULL ? ev->sender : "");
    snprintf(a->text, sizeof a->text, "%s", ev->text != NULL ? ev->text : "");
    return a;
}

void hky_rehearsal_act_text(const struct hky_rehearsal_act *a, struct hky_buf *out)
{
    hky_buf_add_z(out, a->relay);
    if (a->has_outcome)
        hky_buf_printf(out, " %s", hky_class_name(a->outcome.class));
}
