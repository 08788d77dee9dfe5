/* Policies from text, messages for them, and the small words the route tests share. */
#ifndef TESTS_ROUTE_FIXTURE_H
#define TESTS_ROUTE_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "hikyaku/route.h"
#include "support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOW_MS INT64_C(1796083200000) /* 2026-12-01 00:00 UTC */
#define RELAYS                                                                                                         \
    "relay 'own' { mx = true }\nrelay 'a' { host = 'a.example' }\nrelay 'b' { host = 'b.example', port = 465 }\n"

struct folder {
    char path[64];
};

static inline void folder_open(struct folder *f)
{
    snprintf(f->path, sizeof f->path, "%s/hky_route_XXXXXX", scratch_in_memory());
    assert_non_null(mkdtemp(f->path));
}

static inline void folder_write(const struct folder *f, const char *name, const char *text)
{
    char path[200];
    FILE *out;

    snprintf(path, sizeof path, "%s/%s", f->path, name);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static inline void folder_close(const struct folder *f)
{
    assert_int_equal(scratch_remove(f->path), 0);
}

static inline struct hky_policy *load_file(const char *path, const char *const *env, struct hky_problems *problems)
{
    struct hky_policy_load_params params = {path, env, NOW_MS, .instructions = 20000000, .may_lack_routes = true};
    struct hky_policy *p = NULL;

    (void)hky_policy_load(&params, &p, problems);
    return p;
}

static inline struct hky_policy *load_folder(const struct folder *f, struct hky_problems *problems)
{
    static const char *const env[] = {"STAGE=test", NULL};
    char path[200];

    snprintf(path, sizeof path, "%s/policy.lua", f->path);
    return load_file(path, env, problems);
}

static inline void problems_print(const struct hky_problems *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct hky_buf b;
        hky_buf_init(&b, 4096);
        hky_problem_format(&p->items[i], &b);
        print_message("  %s\n", hky_buf_z(&b));
        hky_buf_fini(&b);
    }
}

/* A policy that must load. */
static inline struct hky_policy *load_text(const char *text)
{
    struct folder f;
    struct hky_problems problems = {0};
    struct hky_policy *p;

    folder_open(&f);
    folder_write(&f, "policy.lua", text);
    p = load_folder(&f, &problems);
    if (p == NULL)
        problems_print(&problems);
    assert_non_null(p);
    hky_problems_fini(&problems);
    folder_close(&f);
    return p;
}

/* Two looks at the lists, between which their files are still for long enough. */
static inline void lists_settle(struct hky_policy *p, struct hky_lists_news *news)
{
    static int64_t mono_ms = 1000;

    hky_policy_refresh_lists(p, mono_ms, news);
    mono_ms += 60000;
    if (news->n_waiting > 0)
        hky_policy_refresh_lists(p, mono_ms, news);
}

static inline struct hky_vm *vm_of(struct hky_policy *p)
{
    struct hky_vm *vm = NULL;
    struct hky_error e = {0};

    if (hky_vm_new(p, &vm, &e) != HKY_OK)
        print_message("  %s\n", e.text);
    assert_non_null(vm);
    return vm;
}

struct mail {
    const char *to, *sender, *author, *scenario, *tag, *user;
    const char *header;
    const char *var_name, *var_value;
};

static inline struct hky_message *message_of(const struct mail *m)
{
    static _Thread_local uint64_t id = 1000;
    struct hky_rcpt_draft rcpt = {hky_str_z(m->to), HKY_STR(""), 0};
    struct hky_message_draft d = {
        .id = id++, .accepted_at_ms = NOW_MS, .size = 1000, .recipients = &rcpt, .n_recipients = 1};
    char tags[64], vars[200];

    for (int i = 0; i < HKY_FACT_N; i++)
        d.facts[i] = HKY_STR("");
    d.facts[HKY_FACT_SENDER] = hky_str_z(m->sender != NULL ? m->sender : "news@shop.example");
    d.facts[HKY_FACT_AUTHOR] = hky_str_z(m->author != NULL ? m->author : "news@shop.example");
    d.facts[HKY_FACT_AUTHOR_NAME] = HKY_STR("Shop");
    d.facts[HKY_FACT_SCENARIO] = hky_str_z(m->scenario);
    d.facts[HKY_FACT_USER] = hky_str_z(m->user);
    d.facts[HKY_FACT_SUBJECT] = HKY_STR("Sale");
    if (m->tag != NULL) {
        int n = snprintf(tags, sizeof tags, "%s", m->tag);
        d.facts[HKY_FACT_TAGS] = hky_str_of(tags, (size_t)n + 1);
    }
    if (m->var_name != NULL) {
        int n = snprintf(vars, sizeof vars, "%s", m->var_name);
        int k = snprintf(vars + n + 1, sizeof vars - (size_t)n - 1, "%s", m->var_value);
        d.facts[HKY_FACT_VARS] = hky_str_of(vars, (size_t)(n + k) + 2);
    }
    return hky_message_new(&d);
}

static inline void decide(struct hky_vm *vm, const struct mail *m, struct hky_decision *out)
{
    struct hky_message *message = message_of(m);
    struct hky_route_query q = {message, &message->recipients[0], hky_str_z(m->header), NOW_MS};

    if (m->header == NULL)
        q.header = hky_str_of(NULL, 0);
    hky_route_decide(vm, &q, out);
    hky_message_unref(&message);
}

static inline void decision_fini(struct hky_decision *d)
{
    hky_plan_unref(&d->plan);
    free(d->arms);
}

/* "route: relay, relay" or "no_route" or "error: text" */
static inline const char *decision_text(const struct hky_decision *d, char out[400])
{
    int n;

    if (d->kind == HKY_NO_ROUTE)
        return "no_route";
    if (d->kind == HKY_POLICY_ERROR) {
        snprintf(out, 400, "error: %s", d->text);
        return out;
    }
    n = snprintf(out, 400, "%s:", d->plan->route);
    for (unsigned i = 0; i < d->plan->n_steps; i++)
        n += snprintf(out + n, 400 - (size_t)n, "%s %s", i > 0 ? "," : "", d->plan->steps[i].relay);
    return out;
}

static inline void expect_decision(struct hky_vm *vm, const struct mail *m, const char *expected)
{
    struct hky_decision d;
    char text[400];

    decide(vm, m, &d);
    if (strcmp(decision_text(&d, text), expected) != 0)
        fail_msg("to %s: got \"%s\", expected \"%s\"", m->to, decision_text(&d, text), expected);
    decision_fini(&d);
}

#endif
