/*
 * What tests of the classifier share: the rules of the program, loaded as `run` loads them, and tables of replies.
 */
#ifndef TESTS_UNIT_DELIVER_CLASSIFY_RIG_H
#define TESTS_UNIT_DELIVER_CLASSIFY_RIG_H

#include "hikyaku/deliver.h"
#include "hikyaku/outcome.h"
#include "hikyaku/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct hky_policy *policy;

static inline int load_rules(void **state)
{
    char path[] = "/tmp/hikyaku-classify-XXXXXX";
    static const char text[] = "engine { hostname = \"mail.shop.example\" }\nrelay \"own\" { mx = true }\n"
                               "route \"all\" { to = \"*\", via = \"own\" }\n";
    struct hky_problems problems = {0};
    struct hky_policy_load_params params = {.path = path, .now_ms = 1764547200000};
    int fd = mkstemp(path);
    enum hky_err err;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    err = hky_policy_load(&params, &policy, &problems);
    for (size_t i = 0; err != HKY_OK && i < problems.n; i++)
        print_error("%s:%u: %s\n", problems.items[i].place.file, problems.items[i].place.line, problems.items[i].text);
    unlink(path);
    hky_problems_fini(&problems);
    return err == HKY_OK ? 0 : -1;
}

static inline int drop_rules(void **state)
{
    (void)state;
    hky_policy_unref(&policy);
    return 0;
}

/* "550 5.7.1 text", or text alone for a cause of our own. */
static inline void reply_of(struct hky_reply *r, const char *text, enum hky_origin origin)
{
    unsigned code, a, b, c;
    int at = 0;

    *r = (struct hky_reply){.origin = origin};
    if (origin == HKY_ORIGIN_REMOTE) {
        assert_int_equal(sscanf(text, "%3u %n", &code, &at), 1);
        r->code = (uint16_t)code;
        text += at;
        at = 0;
        if (sscanf(text, "%1u.%3u.%3u%n", &a, &b, &c, &at) == 3 && at > 0) {
            r->enhanced[0] = (uint8_t)a;
            r->enhanced[1] = (uint8_t)b;
            r->enhanced[2] = c <= 255 ? (uint8_t)c : 0;
            r->enhanced_detail = (uint16_t)c;
            text += at;
        }
    }
    r->n = (uint16_t)snprintf(r->text, sizeof r->text, "%s", text);
}

struct sample {
    const char *what;
    const char *provider; /* "own" or a preset */
    const char *mx;
    enum hky_stage stage;
    const char *reply;
    enum hky_class class;
    enum hky_scope scope;
    uint32_t retry_after;
};

#define S(stage_) HKY_STAGE_##stage_
#define C(class_) HKY_CLASS_##class_
#define W(scope_) HKY_SCOPE_##scope_

static inline void classify(const char *provider, const char *mx, enum hky_stage stage, const struct hky_reply *reply,
                            struct hky_outcome *out)
{
    struct hky_classify_query q = {.provider = provider,
                                   .mx = mx,
                                   .is_own = strcmp(provider, "own") == 0,
                                   .stage = stage,
                                   .reply = reply,
                                   .now_ms = 1};

    hky_classify(policy->rules, policy->n_rules, &q, out);
}

static inline enum hky_class class_of(const char *provider, const char *mx, enum hky_stage stage, const char *text)
{
    struct hky_reply reply;
    struct hky_outcome o;
    struct hky_classify_query q = {.provider = provider,
                                   .mx = mx,
                                   .is_own = strcmp(provider, "own") == 0,
                                   .stage = stage,
                                   .reply = &reply,
                                   .address = HKY_STR("x@shop.example"),
                                   .now_ms = 1};

    reply_of(&reply, text, HKY_ORIGIN_REMOTE);
    hky_classify(policy->rules, policy->n_rules, &q, &o);
    return o.class;
}

static inline void run_samples(const struct sample *samples, size_t n_samples)
{
    unsigned wrong = 0;

    for (size_t i = 0; i < n_samples; i++) {
        const struct sample *s = &samples[i];
        struct hky_reply reply;
        struct hky_outcome o;

        reply_of(&reply, s->reply, HKY_ORIGIN_REMOTE);
        classify(s->provider, s->mx, s->stage, &reply, &o);
        if (o.class != s->class || o.scope != s->scope || o.retry_after_sec != s->retry_after || o.stage != s->stage ||
            o.is_temporary != (s->reply[0] == '4')) {
            print_error("%s: %s, %s, %u s; expected %s, %s, %u s\n", s->what, hky_class_name(o.class),
                        hky_scope_name(o.scope), o.retry_after_sec, hky_class_name(s->class), hky_scope_name(s->scope),
                        s->retry_after);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

#endif
