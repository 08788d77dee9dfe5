#include "passwords.h"

#include "base/helpers.h"
#include "base/map.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#define AT_ONCE 4 /* secrets that are being read */
#define KEY_MAX 65536

struct question {
    struct hky_task task; /* to aux, then to the asker's loop */
    struct hky_passwords *passwords;
    struct hky_policy *policy;
    const struct hky_secret_ref *ref;
    struct hky_loop *loop;
    void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e);
    void *arg;
    struct hky_secret *secret;
    struct hky_error error;
    LIST_ENTRY(question) all;
    TAILQ_ENTRY(question) link; /* behind the same secret */
};

/* A secret, by what it is read from. aux only, but for what a helper fills while is_busy. */
struct entry {
    struct hky_passwords *passwords;
    struct hky_secret *secret; /* remembered */
    bool is_busy, is_forgotten;
    TAILQ_HEAD(, question) waiting;
    struct hky_help help;
    struct hky_task task;
    struct hky_policy *policy;
    const struct hky_secret_ref *ref;
    struct hky_secret *found;
    struct hky_error error;
    LIST_ENTRY(entry) busy;
};

struct hky_passwords {
    struct hky_loop *aux;
    struct hky_helpers *helpers;
    struct hky_map entries;
    LIST_HEAD(, entry) busy;
    pthread_mutex_t lock;
    LIST_HEAD(, question) questions; /* all; loops that stop drop what was posted to them. Under the lock */
};

enum hky_err hky_passwords_new(struct hky_loop *aux, struct hky_passwords **out, struct hky_error *e)
{
    struct hky_passwords *p = hky_calloc(1, sizeof *p);
    enum hky_err err = hky_helpers_new(AT_ONCE, &p->helpers, e);

    *out = NULL;
    if (err != HKY_OK) {
        free(p);
        return err;
    }
    p->aux = aux;
    hky_map_init(&p->entries);
    LIST_INIT(&p->busy);
    LIST_INIT(&p->questions);
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return HKY_OK;
}

static void question_free(struct question *q)
{
    struct hky_passwords *p = q->passwords;

    pthread_mutex_lock(&p->lock);
    LIST_REMOVE(q, all);
    pthread_mutex_unlock(&p->lock);
    hky_secret_unref(&q->secret);
    hky_policy_unref(&q->policy);
    free(q);
}

static void on_answer(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);

    struct hky_secret *s = q->secret;

    q->secret = NULL; /* the reference goes along */
    q->done(q->arg, s, s != NULL ? NULL : &q->error);
    question_free(q);
}

static void answer(struct question *q, struct hky_secret *s, const struct hky_error *e)
{
    q->secret = s != NULL ? hky_secret_ref(s) : NULL;
    if (e != NULL)
        q->error = *e;
    q->task.run = on_answer;
    hky_loop_post(q->loop, &q->task);
}

static void entry_free(struct entry *en)
{
    hky_secret_unref(&en->secret);
    hky_secret_unref(&en->found);
    hky_policy_unref(&en->policy);
    free(en);
}

static void on_read(struct hky_task *task)
{
    struct entry *en = HKY_CONTAINER(task, struct entry, task);
    struct question *q;

    LIST_REMOVE(en, busy);
    en->is_busy = false;
    while ((q = TAILQ_FIRST(&en->waiting)) != NULL) {
        TAILQ_REMOVE(&en->waiting, q, link);
        answer(q, en->found, &en->error);
    }
    if (en->is_forgotten) {
        entry_free(en);
        return;
    }
    en->secret = en->found;
    en->found = NULL;
    hky_policy_unref(&en->policy);
    en->ref = NULL;
}

/* On a thread of the helpers. */
static void read_secret(struct hky_help *help)
{
    struct entry *en = HKY_CONTAINER(help, struct entry, help);
    const atomic_bool *is_ending = hky_helpers_are_ending(en->passwords->helpers);

    (void)hky_policy_read_secret_unless(en->policy, en->ref, is_ending, &en->found, &en->error);
    en->task.run = on_read;
    hky_loop_post(en->passwords->aux, &en->task);
}

/* Two commands of one name are two secrets. */
static void key_of(const struct hky_secret_ref *ref, struct hky_buf *key)
{
    hky_buf_add(key, ref->name, strlen(ref->name) + 1);
    for (const char *const *z = ref->command; z != NULL && *z != NULL; z++)
        hky_buf_add(key, *z, strlen(*z) + 1);
}

static struct entry *entry_of(struct hky_passwords *p, const struct hky_secret_ref *ref)
{
    struct hky_buf key;
    struct entry *en;

    hky_buf_init(&key, KEY_MAX);
    key_of(ref, &key);
    en = hky_map_get(&p->entries, hky_buf_str(&key));
    if (en == NULL) {
        en = hky_calloc(1, sizeof *en);
        en->passwords = p;
        TAILQ_INIT(&en->waiting);
        hky_map_put(&p->entries, hky_buf_str(&key), en);
    }
    hky_buf_fini(&key);
    return en;
}

static void on_question(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);

    if (q->ref->literal != NULL || q->ref->name == NULL) { /* nothing that could block */
        (void)hky_policy_read_secret(q->policy, q->ref, &q->secret, &q->error);
        task->run = on_answer;
        hky_loop_post(q->loop, task);
        return;
    }
    struct entry *en = entry_of(q->passwords, q->ref);
    if (en->secret != NULL) {
        answer(q, en->secret, NULL);
        return;
    }
    TAILQ_INSERT_TAIL(&en->waiting, q, link);
    if (en->is_busy)
        return;
    en->is_busy = true;
    LIST_INSERT_HEAD(&q->passwords->busy, en, busy);
    en->policy = hky_policy_ref(q->policy);
    en->ref = q->ref;
    en->error = (struct hky_error){.code = HKY_E_MISSING};
    en->help.run = read_secret;
    hky_helpers_do(q->passwords->helpers, &en->help);
}

void hky_passwords_ask(struct hky_passwords *p, struct hky_policy *policy, const struct hky_secret_ref *ref,
                       struct hky_loop *loop, void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e),
                       void *arg)
{
    struct question *q = hky_calloc(1, sizeof *q);

    q->passwords = p;
    q->policy = hky_policy_ref(policy);
    q->ref = ref;
    q->loop = loop;
    q->done = done;
    q->arg = arg;
    q->task.run = on_question;
    pthread_mutex_lock(&p->lock);
    LIST_INSERT_HEAD(&p->questions, q, all);
    pthread_mutex_unlock(&p->lock);
    hky_loop_post(p->aux, &q->task);
}

void hky_passwords_forget(struct hky_passwords *p)
{
    struct hky_map_entry *slot;
    size_t at = 0;

    while ((slot = hky_map_next(&p->entries, &at)) != NULL) {
        struct entry *en = slot->value;
        if (en->is_busy)
            en->is_forgotten = true; /* it answers who waits for it, and goes */
        else
            entry_free(en);
    }
    hky_map_fini(&p->entries);
    hky_map_init(&p->entries);
}

void hky_passwords_stop(struct hky_passwords *p)
{
    if (p != NULL)
        hky_helpers_free(&p->helpers);
}

void hky_passwords_free(struct hky_passwords **at)
{
    struct hky_passwords *p = *at;
    struct question *q;
    struct entry *en;

    *at = NULL;
    if (p == NULL)
        return;
    hky_passwords_stop(p);
    hky_passwords_forget(p);
    while ((en = LIST_FIRST(&p->busy)) != NULL) {
        LIST_REMOVE(en, busy);
        entry_free(en);
    }
    while ((q = LIST_FIRST(&p->questions)) != NULL)
        question_free(q);
    hky_map_fini(&p->entries);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
