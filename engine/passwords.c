#include "passwords.h"

#include "hikyaku/secrets.h"

#include <stdlib.h>

#define AT_ONCE 4 /* secrets read at the same time, at most */
#define KEY_MAX 65536

struct hky_passwords {
    struct hky_secrets *secrets; /* the subject of each question is a struct hky_secret_ref */
};

/* Runs on a thread that may block. */
static void read_secret(void *ctx, struct hky_secret_reading *r, const atomic_bool *is_over)
{
    (void)ctx;
    (void)hky_policy_read_secret_unless(r->policy, r->subject, is_over, &r->found, &r->error);
}

enum hky_err hky_passwords_new(struct hky_loop *aux, struct hky_passwords **out, struct hky_error *e)
{
    struct hky_passwords *p = hky_calloc(1, sizeof *p);
    struct hky_secrets_ops ops = {.read = read_secret};
    enum hky_err err = hky_secrets_new(aux, AT_ONCE, &ops, &p->secrets, e);

    *out = NULL;
    if (err != HKY_OK)
        free(p);
    else
        *out = p;
    return err;
}

/* The command is part of the key: secrets of one name with different commands are different secrets. */
static void key_of(const struct hky_secret_ref *ref, struct hky_buf *key)
{
    hky_buf_add(key, ref->name, strlen(ref->name) + 1);
    for (const char *const *z = ref->command; z != NULL && *z != NULL; z++)
        hky_buf_add(key, *z, strlen(*z) + 1);
}

void hky_passwords_ask(struct hky_passwords *p, struct hky_policy *policy, const struct hky_secret_ref *ref,
                       struct hky_loop *loop, void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e),
                       void *arg)
{
    struct hky_secrets_question q = {.policy = policy, .subject = ref, .loop = loop, .done = done, .arg = arg};
    struct hky_buf key;

    if (ref->literal != NULL || ref->name == NULL) {
        hky_secrets_give(p->secrets, &q, ref);
        return;
    }
    hky_buf_init(&key, KEY_MAX);
    key_of(ref, &key);
    q.key = hky_buf_str(&key);
    hky_secrets_ask(p->secrets, &q);
    hky_buf_fini(&key);
}

void hky_passwords_forget(struct hky_passwords *p)
{
    hky_secrets_forget(p->secrets);
}

void hky_passwords_stop(struct hky_passwords *p)
{
    if (p != NULL)
        hky_secrets_stop(p->secrets);
}

void hky_passwords_free(struct hky_passwords **at)
{
    struct hky_passwords *p = *at;

    *at = NULL;
    if (p == NULL)
        return;
    hky_secrets_free(&p->secrets);
    free(p);
}
