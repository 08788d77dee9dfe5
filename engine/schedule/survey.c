/*
 * A survey visits every recipient of a shard once, in portions. Mail goes on between two portions, so that it does not
 * wait for an operator's question about a million recipients. Between two portions the survey keeps one pointer only,
 * to the next recipient of a list; whoever takes that one out of its list moves the pointer on. A visited recipient
 * carries the mark of the survey. Recipients move from list to list meanwhile, so the survey walks through all lists
 * again until it finds no new one.
 */
#include "internal.h"

#define EXAMINED_A_PORTION 2048
#define PORTION_NS         1000000
#define PASSES_MOST        8

enum survey_phase { SURVEY_TO_DISPATCH, SURVEY_HELD, SURVEY_HEAP, SURVEY_JOBS, SURVEY_PHASES };

static void enter_phase(struct survey *k, unsigned phase)
{
    struct hky_shard *sh = k->shard;
    k->phase = phase;
    k->next = phase == SURVEY_TO_DISPATCH ? recipients_first(&sh->to_dispatch)
              : phase == SURVEY_HELD      ? recipients_first(&sh->held)
                                          : NULL;
    k->at = 1;
}

void schedule_survey_begin(struct survey *k, struct hky_shard *sh, uint32_t mark)
{
    *k = (struct survey){.shard = sh, .mark = mark};
    sh->survey = k;
    enter_phase(k, SURVEY_TO_DISPATCH);
}

void schedule_survey_on_leave(struct hky_shard *sh, const struct hky_recipient *r)
{
    if (sh->survey != NULL && sh->survey->next == r)
        sh->survey->next = recipients_next(r);
}

/* The next one that was not visited; NULL: the portion or the phase is over. */
static struct hky_recipient *next_in_list(struct survey *k, unsigned *n)
{
    for (struct hky_recipient *r; *n < EXAMINED_A_PORTION && (r = k->next) != NULL; ++*n) {
        k->next = recipients_next(r);
        if (own(r)->survey_mark != k->mark)
            return r;
    }
    return NULL;
}

static struct hky_recipient *next_in_heap(struct survey *k, unsigned *n)
{
    for (struct hky_heap *h = &k->shard->due; *n < EXAMINED_A_PORTION && k->at <= h->n; k->at++, ++*n) {
        struct hky_recipient *r = recipient_due(h->nodes[k->at]);
        if (own(r)->survey_mark != k->mark)
            return r; /* `at` stays, because another one comes to this index when this one leaves */
    }
    return NULL;
}

static void survey_visit(struct survey *k, struct hky_recipient *r, int64_t now_ms)
{
    own(r)->survey_mark = k->mark;
    k->n_new++;
    k->n_found += r->message->accepted_at_ms <= k->asked_at_ms;
    k->each(k->ctx, k->shard, r, now_ms);
}

/* An operator's expression may take as long for one recipient as a whole portion should. */
static bool is_time_over(int64_t began_ns)
{
    return hky_mono_ns() - began_ns > PORTION_NS;
}

/* False: there are more to visit. */
static bool survey_visit_jobs(struct survey *k, int64_t now_ms, int64_t began_ns)
{
    struct job *j;
    TAILQ_FOREACH (j, &k->shard->jobs, link) {
        for (unsigned i = 0; i < j->pub.n; i++) {
            if (j->slots_of[i] == NULL || own(j->slots_of[i])->survey_mark == k->mark)
                continue;
            if (is_time_over(began_ns))
                return false;
            survey_visit(k, j->slots_of[i], now_ms);
        }
    }
    return true;
}

static bool is_phase_over(const struct survey *k)
{
    return k->phase == SURVEY_HEAP ? k->at > k->shard->due.n : k->next == NULL;
}

bool schedule_survey_continue(struct survey *k)
{
    int64_t now_ms = schedule_shard_now(k->shard), began_ns = hky_mono_ns();
    for (unsigned n = 0; k->phase < SURVEY_PHASES;) {
        if (k->phase == SURVEY_JOBS) {
            if (!survey_visit_jobs(k, now_ms, began_ns))
                return true;
        } else {
            struct hky_recipient *r = k->phase == SURVEY_HEAP ? next_in_heap(k, &n) : next_in_list(k, &n);
            if (r != NULL) {
                n++;
                survey_visit(k, r, now_ms);
            }
            if (n >= EXAMINED_A_PORTION || is_time_over(began_ns))
                return true;
            if (!is_phase_over(k))
                continue;
        }
        enter_phase(k, k->phase + 1);
        if (k->phase == SURVEY_PHASES && k->n_new > 0 && ++k->n_passes < PASSES_MOST) {
            k->n_new = 0;
            enter_phase(k, SURVEY_TO_DISPATCH);
        }
    }
    k->shard->survey = NULL;
    return false;
}
