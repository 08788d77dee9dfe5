#include "hikyaku/secrets.h"

#include "base/clock.h"
#include "base/helpers.h"
#include "base/map.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

struct question {
    struct hky_task task; /* posted to the home loop, then to the asker's loop */
    struct hky_secrets *secrets;
    struct hky_secrets_question asked;
    char *key;
    struct hky_secret *secret;
    struct hky_error error;
    LIST_ENTRY(question) all;
    TAILQ_ENTRY(question) link; /* questions that wait for the same entry */
};

/* What is known under one key. Only the home loop uses it, except that a helper fills `reading` while is_busy. */
struct entry {
    struct hky_secret_reading reading;
    struct hky_secrets *secrets;
    char *key;
    struct hky_secret *secret; /* remembered, or NULL */
    int64_t until_ms;          /* by hky_mono_ms */
    bool is_busy, is_forgotten;
    TAILQ_HEAD(, question) waiting;
    struct hky_help help;
    struct hky_task task;
    LIST_ENTRY(entry) busy;
};

struct hky_secrets {
    struct hky_loop *home;
    struct hky_secrets_ops ops;
    struct hky_helpers *helpers;
    struct hky_map entries;
    LIST_HEAD(, entry) busy; /* includes forgotten entries, which are no longer in `entries` */
    pthread_mutex_t lock;
    LIST_HEAD(, question) questions; /* all, under the lock, because a loop that stops drops its posted tasks */
};

enum hky_err hky_secrets_new(struct hky_loop *home, unsigned at_once, const struct hky_secrets_ops *ops,
                             struct hky_secrets **out, struct hky_error *e)
{
    struct hky_secrets *s = hky_calloc(1, sizeof *s);
    enum hky_err err = hky_helpers_new(at_once, &s->helpers, e);

    *out = NULL;
    if (err != HKY_OK) {
        free(s);
        return err;
    }
    s->home = home;
    s->ops = *ops;
    hky_map_init(&s->entries);
    LIST_INIT(&s->busy);
    LIST_INIT(&s->questions);
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return HKY_OK;
}

/* ---- answers ---- */

static void question_free(struct question *q)
{
    struct hky_secrets *s = q->secrets;

    pthread_mutex_lock(&s->lock);
    LIST_REMOVE(q, all);
    pthread_mutex_unlock(&s->lock);
    hky_secret_unref(&q->secret);
    hky_secret_unref(&q->asked.refused);
    hky_policy_unref(&q->asked.policy);
    free(q->key);
    free(q);
}

static void on_answer(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);
    struct hky_secret *s = q->secret;

    q->secret = NULL; /* `done` takes over the reference */
    q->asked.done(q->asked.arg, s, s != NULL ? NULL : &q->error);
    question_free(q);
}

static void answer(struct question *q, struct hky_secret *s, const struct hky_error *e)
{
    q->secret = s != NULL ? hky_secret_ref(s) : NULL;
    if (e != NULL)
        q->error = *e;
    q->task.run = on_answer;
    hky_loop_post(q->asked.loop, &q->task);
}

/* ---- entries ---- */

static void reading_fini(struct hky_secret_reading *r)
{
    hky_secret_unref(&r->found);
    hky_secret_unref(&r->client_secret);
    hky_policy_unref(&r->policy);
    r->subject = NULL;
}

static void entry_free(struct entry *en)
{
    reading_fini(&en->reading);
    hky_secret_unref(&en->secret);
    free(en->key);
    free(en);
}

static struct entry *entry_of(struct hky_secrets *s, struct hky_str key)
{
    struct entry *en = hky_map_get(&s->entries, key);

    if (en == NULL) {
        en = hky_calloc(1, sizeof *en);
        en->secrets = s;
        en->key = hky_str_dup(key);
        en->reading.ctx = s->ops.ctx;
        en->reading.key = hky_str_of(en->key, key.n);
        TAILQ_INIT(&en->waiting);
        hky_map_put(&s->entries, key, en);
    }
    return en;
}

void hky_secrets_settle(struct hky_secret_reading *r, struct hky_secret *s, int64_t for_ms, const struct hky_error *e)
{
    struct entry *en = HKY_CONTAINER(r, struct entry, reading);
    struct question *q;

    HKY_ASSERT(en->is_busy);
    LIST_REMOVE(en, busy);
    en->is_busy = false;
    while ((q = TAILQ_FIRST(&en->waiting)) != NULL) {
        TAILQ_REMOVE(&en->waiting, q, link);
        answer(q, s, e);
    }
    hky_secret_unref(&en->secret);
    en->secret = s;
    en->until_ms = for_ms == INT64_MAX ? INT64_MAX : hky_mono_ms() + for_ms;
    if (en->is_forgotten)
        entry_free(en);
    else
        reading_fini(r);
}

static void on_read(struct hky_task *task)
{
    struct entry *en = HKY_CONTAINER(task, struct entry, task);
    struct hky_secret_reading *r = &en->reading;
    struct hky_error e = r->error;

    if (en->secrets->ops.use != NULL)
        en->secrets->ops.use(en->secrets->ops.ctx, r);
    else if (r->found == NULL)
        hky_secrets_settle(r, NULL, 0, &e);
    else
        hky_secrets_settle(r, hky_secret_ref(r->found), INT64_MAX, NULL);
}

/* Runs on a thread of the helpers. */
static void read_and_tell(struct hky_help *help)
{
    struct entry *en = HKY_CONTAINER(help, struct entry, help);
    struct hky_secrets *s = en->secrets;

    s->ops.read(s->ops.ctx, &en->reading, hky_helpers_are_ending(s->helpers));
    en->task.run = on_read;
    hky_loop_post(s->home, &en->task);
}

/* ---- questions ---- */

/* The remembered secret is usable unless it is the one that was refused; another question may have had it replaced
 * meanwhile. */
static bool is_usable(const struct entry *en, const struct question *q)
{
    if (en->secret == NULL || hky_mono_ms() >= en->until_ms)
        return false;
    return q->asked.refused == NULL || !hky_str_eq(hky_secret_value(q->asked.refused), hky_secret_value(en->secret));
}

static void on_question(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);
    struct hky_secrets *s = q->secrets;
    struct entry *en = entry_of(s, q->asked.key);

    if (is_usable(en, q)) {
        answer(q, en->secret, NULL);
        return;
    }
    TAILQ_INSERT_TAIL(&en->waiting, q, link);
    if (en->is_busy)
        return;
    en->is_busy = true;
    LIST_INSERT_HEAD(&s->busy, en, busy);
    en->reading.policy = hky_policy_ref(q->asked.policy);
    en->reading.subject = q->asked.subject;
    en->reading.error = (struct hky_error){.code = HKY_E_MISSING};
    en->help.run = read_and_tell;
    hky_helpers_do(s->helpers, &en->help);
}

static struct question *question_new(struct hky_secrets *s, const struct hky_secrets_question *asked)
{
    struct question *q = hky_calloc(1, sizeof *q);

    q->secrets = s;
    q->asked = *asked;
    q->key = hky_str_dup(asked->key);
    q->asked.key.p = q->key;
    q->asked.policy = hky_policy_ref(asked->policy);
    q->asked.refused = asked->refused != NULL ? hky_secret_ref(asked->refused) : NULL;
    pthread_mutex_lock(&s->lock);
    LIST_INSERT_HEAD(&s->questions, q, all);
    pthread_mutex_unlock(&s->lock);
    return q;
}

void hky_secrets_ask(struct hky_secrets *s, const struct hky_secrets_question *asked)
{
    struct question *q = question_new(s, asked);

    q->task.run = on_question;
    hky_loop_post(s->home, &q->task);
}

void hky_secrets_give(struct hky_secrets *s, const struct hky_secrets_question *asked, const struct hky_secret_ref *ref)
{
    struct question *q = question_new(s, asked);

    HKY_ASSERT(ref->literal != NULL || ref->name == NULL);
    (void)hky_policy_read_secret(asked->policy, ref, &q->secret, &q->error);
    q->task.run = on_answer;
    hky_loop_post(asked->loop, &q->task);
}

/* ---- the end ---- */

void hky_secrets_forget(struct hky_secrets *s)
{
    struct hky_map_entry *slot;
    size_t at = 0;

    while ((slot = hky_map_next(&s->entries, &at)) != NULL) {
        struct entry *en = slot->value;
        if (en->is_busy)
            en->is_forgotten = true; /* settle frees it */
        else
            entry_free(en);
    }
    hky_map_fini(&s->entries);
    hky_map_init(&s->entries);
}

void hky_secrets_forget_remembered(struct hky_secrets *s)
{
    struct hky_map busy;
    struct hky_map_entry *slot;
    size_t at = 0;

    hky_map_init(&busy);
    while ((slot = hky_map_next(&s->entries, &at)) != NULL) {
        struct entry *en = slot->value;
        if (en->is_busy)
            hky_map_put(&busy, en->reading.key, en);
        else
            entry_free(en);
    }
    hky_map_fini(&s->entries);
    s->entries = busy;
}

void hky_secrets_stop(struct hky_secrets *s)
{
    if (s != NULL)
        hky_helpers_free(&s->helpers);
}

void hky_secrets_free(struct hky_secrets **at)
{
    struct hky_secrets *s = *at;
    struct question *q;
    struct entry *en;

    *at = NULL;
    if (s == NULL)
        return;
    hky_secrets_stop(s);
    hky_secrets_forget(s);
    while ((en = LIST_FIRST(&s->busy)) != NULL) {
        LIST_REMOVE(en, busy);
        entry_free(en);
    }
    while ((q = LIST_FIRST(&s->questions)) != NULL)
        question_free(q);
    hky_map_fini(&s->entries);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
