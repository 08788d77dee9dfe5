/* A message on its way to the disk: it is decided, journalled, and handed on once it is durable. */
#include "hikyaku/intake.h"

#include <stdio.h>

static void emit(const struct hky_intake *in, struct hky_event *ev)
{
    ev->at_ms = hky_clock_now_ms(in->clock);
    if (in->event != NULL)
        in->event(in->ctx, in->worker, ev);
}

/* The message is durable: from here on we are responsible for it. The events come first, because after enqueue the
 * recipients belong to their lanes. */
static void hand_on(const struct hky_intake *in, struct hky_message *m)
{
    for (uint32_t i = 0; i < m->n_recipients; i++) {
        const struct hky_recipient *r = &m->recipients[i];

        if (!hky_recipient_state_is_final((enum hky_recipient_state)r->state))
            (void)hky_message_ref(m);
        emit(in, &(struct hky_event){.kind = HKY_EVENT_ACCEPTED,
                                     .message = m,
                                     .recipient = r,
                                     .route = r->plan != NULL ? r->plan->route : NULL});
    }
    in->enqueue(in->ctx, in->worker, m);
}

static void on_durable(struct hky_commit *commit, const struct hky_durable *durable, enum hky_err result)
{
    struct hky_submission *s = HKY_CONTAINER(commit, struct hky_submission, commit);
    struct hky_refusal why = {0};

    if (durable == NULL && result == HKY_OK)
        result = HKY_E_IO; /* without the token it is not on disk */
    s->done(s, durable, result);
    hky_refusal_set_storage(&why, result);
    if (result == HKY_OK) {
        hand_on(s->intake, s->message);
    } else {
        char reply[160];
        snprintf(reply, sizeof reply, "%d %s %s", why.code, why.enhanced, why.text);
        emit(s->intake, &(struct hky_event){.kind = HKY_EVENT_REFUSED, .message = s->message, .text = reply});
    }
    hky_message_unref(&s->message);
    s->free(s);
}

static void on_big_durable(struct hky_commit *commit, const struct hky_durable *durable, enum hky_err result)
{
    struct hky_submission *s = HKY_CONTAINER(commit, struct hky_submission, commit);

    if (result != HKY_OK) {
        on_durable(commit, durable, result);
        return;
    }
    s->commit = (struct hky_commit){.loop = s->intake->loop, .done = on_durable};
    hky_journal_accept(s->intake->journal, s->message, &s->commit);
}

void hky_intake_submit_about(const struct hky_intake *in, struct hky_submission *s, struct hky_handed_in *what,
                             struct hky_recipient *about)
{
    s->intake = in;
    s->about = about;
    s->message = what->message;
    s->commit = (struct hky_commit){.loop = in->loop, .done = on_durable};
    in->decide(in->ctx, in->worker, s->message, what->header);
    if (what->big != NULL) {
        struct hky_big *file = what->big;
        HKY_ASSERT(about == NULL); /* a notice is small */
        s->commit.done = on_big_durable;
        hky_journal_big_commit(&file, &s->commit);
    } else if (about != NULL) {
        hky_journal_finish(in->journal, about, s->message, &s->commit);
    } else {
        hky_journal_accept(in->journal, s->message, &s->commit);
    }
    *what = (struct hky_handed_in){0};
}

void hky_intake_submit(const struct hky_intake *in, struct hky_submission *s, struct hky_handed_in *what)
{
    hky_intake_submit_about(in, s, what, NULL);
}
