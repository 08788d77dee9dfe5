/*
 * Credentials of all relays. Three places work on a question: the aux loop (cache, OAuth by HTTP), threads of ours that
 * may block (secret files and commands), and the loop of who asked (the answer). Questions for the same account are
 * answered together.
 */
#include "base/clock.h"
#include "base/helpers.h"
#include "base/map.h"
#include "deliver/mask.h"
#include "deliver/oauth.h"
#include "deliver/login.h"
#include "hikyaku/deliver.h"
#include "net/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define PASSWORD_FOR_MS (60 * 1000)     /* a changed file is seen a minute later at most */
#define TOKEN_FOR_MS    (5 * 60 * 1000) /* of a command that does not say how long */
#define EARLY_MS        (60 * 1000)
#define ANSWER_MAX      (64 * 1024)
#define READ_AT_ONCE    8 /* accounts whose secret is being read; one that hangs delays no other */

struct question {
    struct hky_task task; /* to aux, then to the asker's loop */
    struct hky_credentials *credentials;
    struct hky_policy *policy;
    const struct hky_relay *relay;
    struct hky_secret *refused; /* NULL: none */
    struct hky_loop *loop;
    void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e);
    void *arg;
    struct hky_secret *answer;
    struct hky_error error;
    TAILQ_ENTRY(question) link;
};
TAILQ_HEAD(questions, question);

struct entry { /* one account with one way to log in; aux only, except where said */
    struct hky_credentials *credentials;
    char *key;
    struct hky_secret *secret;
    int64_t until_ms; /* mono */
    bool is_busy;
    struct questions waiting;
    /* read by a thread while is_busy */
    struct hky_task task;
    struct hky_policy *policy;
    const struct hky_relay *relay;
    struct hky_secret *found, *client_secret;
    struct hky_error error;
    struct hky_help help;
};

struct hky_credentials {
    struct hky_loop *aux;
    struct hky_state *state;
    struct hky_log *log;
    struct hky_http *http;
    struct hky_map entries;
    struct hky_helpers *helpers;
};

static void on_read(struct hky_task *task);

/* ---- the threads that may block ---- */

static void read_secrets(struct entry *en)
{
    const struct hky_relay *r = en->relay;
    const atomic_bool *is_ending = hky_helpers_are_ending(en->credentials->helpers);
    if (r->oauth.token_command != NULL) {
        struct hky_secret_ref ref = {.name = r->name, .command = r->oauth.token_command};
        hky_policy_read_secret_unless(en->policy, &ref, is_ending, &en->found, &en->error);
        return;
    }
    if (!hky_relay_has_oauth(r)) {
        hky_policy_read_secret_unless(en->policy, &r->password, is_ending, &en->found, &en->error);
        return;
    }
    const struct hky_secret_ref *cs = &r->oauth.client_secret;
    if ((cs->name != NULL || cs->command != NULL || cs->literal != NULL) &&
        hky_policy_read_secret_unless(en->policy, cs, is_ending, &en->client_secret, &en->error) != HKY_OK)
        return;
    hky_policy_read_secret_unless(en->policy, &r->oauth.refresh, is_ending, &en->found, &en->error);
}

static void read_and_tell(struct hky_help *help)
{
    struct entry *en = HKY_CONTAINER(help, struct entry, help);
    read_secrets(en);
    en->task.run = on_read;
    hky_loop_post(en->credentials->aux, &en->task);
}

/* ---- answers ---- */

static void question_free(struct question *q)
{
    hky_secret_unref(&q->answer);
    hky_secret_unref(&q->refused);
    hky_policy_unref(&q->policy);
    free(q);
}

static void on_answer(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);
    struct hky_secret *s = q->answer;
    q->answer = NULL; /* the reference goes along */
    q->done(q->arg, s, &q->error);
    question_free(q);
}

static void answer(struct question *q, struct hky_secret *s, const struct hky_error *e)
{
    q->answer = s != NULL ? hky_secret_ref(s) : NULL;
    if (e != NULL)
        q->error = *e;
    q->task.run = on_answer;
    hky_loop_post(q->loop, &q->task);
}

static void settle(struct entry *en, struct hky_secret *s, int64_t for_ms, const struct hky_error *e)
{
    hky_secret_unref(&en->secret);
    en->secret = s; /* taken */
    en->until_ms = s != NULL ? hky_mono_ms() + for_ms : 0;
    en->is_busy = false;
    hky_secret_unref(&en->found);
    hky_secret_unref(&en->client_secret);
    hky_policy_unref(&en->policy);
    en->relay = NULL;
    if (s == NULL)
        hky_log(en->credentials->log, HKY_LOG_WARN, "credential", "account=%s why=\"%s\"", en->key, e->text);
    struct question *q;
    while ((q = TAILQ_FIRST(&en->waiting)) != NULL) {
        TAILQ_REMOVE(&en->waiting, q, link);
        answer(q, s, e);
    }
}

static void settle_error(struct entry *en, enum hky_err code, const char *text)
{
    struct hky_error e = {.code = code};
    snprintf(e.text, sizeof(e.text), "%s", text);
    settle(en, NULL, 0, &e);
}

/* ---- OAuth ---- */

static void on_token(void *ctx, const struct hky_http_answer *a)
{
    struct entry *en = ctx;
    struct hky_credentials *c = en->credentials;
    struct hky_token token;
    struct hky_error e;
    if (a->err != HKY_OK) {
        settle_error(en, HKY_E_NET, a->text);
        return;
    }
    if (hky_token_parse(a->status, a->body, &token, &e) != HKY_OK) {
        hky_mask_text(e.text, hky_secret_value(en->found)); /* some repeat what they refuse */
        hky_mask_text(e.text, hky_secret_value(en->client_secret));
        settle(en, NULL, 0, &e);
        return;
    }
    if (c->state != NULL && token.refresh != NULL) {
        struct hky_buf value;
        hky_buf_init(&value, ANSWER_MAX);
        hky_token_store(&token, hky_secret_value(en->found), &value);
        hky_state_put(c->state, "oauth", en->key, hky_buf_z(&value));
        if (value.p != NULL)
            hky_secret_wipe(value.p, value.n);
        hky_buf_fini(&value);
    }
    int64_t for_ms = token.for_ms > 2 * EARLY_MS ? token.for_ms - EARLY_MS : token.for_ms / 2;
    struct hky_secret *access = token.access;
    token.access = NULL;
    hky_token_fini(&token);
    settle(en, access, for_ms, NULL);
}

static void ask_token(struct entry *en)
{
    struct hky_credentials *c = en->credentials;
    struct hky_error e;
    if (c->http == NULL && hky_http_new(c->aux, &c->http, &e) != HKY_OK) {
        settle(en, NULL, 0, &e);
        return;
    }
    char *stored = c->state != NULL ? hky_state_get(c->state, "oauth", en->key) : NULL;
    struct hky_secret *refresh = hky_token_stored_refresh(stored, hky_secret_value(en->found));
    if (stored != NULL)
        hky_secret_wipe(stored, strlen(stored));
    free(stored);
    struct hky_buf form;
    hky_buf_init(&form, ANSWER_MAX);
    hky_token_form(en->relay, hky_secret_value(refresh), hky_secret_value(en->client_secret), &form);
    static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/json",
                                          NULL};
    struct hky_http_request request = {
        .method = "POST",
        .url = en->relay->oauth.token_url,
        .headers = headers,
        .body = hky_buf_str(&form),
        .body_max = ANSWER_MAX,
        .done = on_token,
        .ctx = en,
    };
    hky_http_send(c->http, &request);
    if (form.p != NULL)
        hky_secret_wipe(form.p, form.n);
    hky_buf_fini(&form);
    hky_secret_unref(&refresh);
}

/* The output of token_command: the token alone, or the JSON a token endpoint gives. */
static void take_command_token(struct entry *en)
{
    struct hky_str out = hky_str_trim(hky_secret_value(en->found));
    struct hky_token token;
    struct hky_error e;
    if (out.n == 0 || out.p[0] != '{') {
        settle(en, hky_secret_new(out), TOKEN_FOR_MS, NULL);
        return;
    }
    if (hky_token_parse(200, out, &token, &e) != HKY_OK) {
        settle(en, NULL, 0, &e);
        return;
    }
    int64_t for_ms = token.for_ms > 2 * EARLY_MS ? token.for_ms - EARLY_MS : token.for_ms / 2;
    struct hky_secret *access = token.access;
    token.access = NULL;
    hky_token_fini(&token);
    settle(en, access, for_ms, NULL);
}

/* ---- on aux ---- */

static void on_read(struct hky_task *task)
{
    struct entry *en = HKY_CONTAINER(task, struct entry, task);
    if (en->found == NULL) {
        struct hky_error e = en->error;
        settle(en, NULL, 0, &e);
    } else if (en->relay->oauth.token_command != NULL) {
        take_command_token(en);
    } else if (hky_relay_has_oauth(en->relay)) {
        ask_token(en);
    } else {
        settle(en, hky_secret_ref(en->found), PASSWORD_FOR_MS, NULL);
    }
}

static struct entry *entry_of(struct hky_credentials *c, const struct hky_relay *r)
{
    struct hky_buf key;
    hky_buf_init(&key, 4096);
    hky_buf_printf(&key, "%s", r->account != NULL ? r->account : r->name);
    if (hky_relay_has_oauth(r))
        hky_buf_printf(&key, "|%s|%s", r->oauth.client != NULL ? r->oauth.client : "",
                       r->oauth.token_url != NULL ? r->oauth.token_url : "");
    else
        hky_buf_printf(&key, "|%016llx", (unsigned long long)r->settings_hash);
    struct entry *en = hky_map_get(&c->entries, hky_buf_str(&key));
    if (en == NULL) {
        en = hky_calloc(1, sizeof(*en));
        en->credentials = c;
        en->key = hky_strdup(hky_buf_z(&key));
        TAILQ_INIT(&en->waiting);
        hky_map_put(&c->entries, hky_str_z(en->key), en);
    }
    hky_buf_fini(&key);
    return en;
}

/* Not when it is the one that was refused; whoever else was refused it may have had it replaced already. */
static bool is_usable(const struct entry *en, const struct question *q)
{
    if (en->secret == NULL || hky_mono_ms() >= en->until_ms)
        return false;
    return q->refused == NULL || !hky_str_eq(hky_secret_value(q->refused), hky_secret_value(en->secret));
}

static void on_question(struct hky_task *task)
{
    struct question *q = HKY_CONTAINER(task, struct question, task);
    struct hky_credentials *c = q->credentials;
    struct entry *en = entry_of(c, q->relay);
    if (is_usable(en, q)) {
        answer(q, en->secret, NULL);
        return;
    }
    TAILQ_INSERT_TAIL(&en->waiting, q, link);
    if (en->is_busy)
        return;
    en->is_busy = true;
    en->policy = hky_policy_ref(q->policy);
    en->relay = q->relay;
    en->error = (struct hky_error){.code = HKY_E_MISSING};
    en->help.run = read_and_tell;
    hky_helpers_do(c->helpers, &en->help);
}

void hky_credentials_get(struct hky_credentials *c, struct hky_policy *policy, const struct hky_relay *relay,
                         struct hky_secret *refused, struct hky_loop *loop,
                         void (*done)(void *arg, struct hky_secret *s, const struct hky_error *e), void *arg)
{
    struct question *q = hky_calloc(1, sizeof(*q));
    q->credentials = c;
    q->policy = hky_policy_ref(policy);
    q->relay = relay;
    q->refused = refused != NULL ? hky_secret_ref(refused) : NULL;
    q->loop = loop;
    q->done = done;
    q->arg = arg;
    q->task.run = on_question;
    hky_loop_post(c->aux, &q->task);
}

enum hky_err hky_credentials_new(struct hky_loop *aux, struct hky_state *state, struct hky_log *log,
                                 struct hky_credentials **out, struct hky_error *e)
{
    struct hky_credentials *c = hky_calloc(1, sizeof(*c));
    enum hky_err err = hky_helpers_new(READ_AT_ONCE, &c->helpers, e);
    *out = NULL;
    if (err != HKY_OK) {
        free(c);
        return err;
    }
    c->aux = aux;
    c->state = state;
    c->log = log;
    hky_map_init(&c->entries);
    *out = c;
    return HKY_OK;
}

static void entry_free(struct entry *en)
{
    struct question *q;
    while ((q = TAILQ_FIRST(&en->waiting)) != NULL) {
        TAILQ_REMOVE(&en->waiting, q, link);
        question_free(q);
    }
    hky_secret_unref(&en->secret);
    hky_secret_unref(&en->found);
    hky_secret_unref(&en->client_secret);
    hky_policy_unref(&en->policy);
    free(en->key);
    free(en);
}

void hky_credentials_free(struct hky_credentials **cp)
{
    struct hky_credentials *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    hky_helpers_free(&c->helpers); /* a command under way is given up */
    hky_http_free(&c->http);
    size_t at = 0;
    struct hky_map_entry *entry;
    while ((entry = hky_map_next(&c->entries, &at)) != NULL)
        entry_free(entry->value);
    hky_map_fini(&c->entries);
    free(c);
}
