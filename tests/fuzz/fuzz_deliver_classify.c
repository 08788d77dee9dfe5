/*
 * Replies into the classifier: a success only for 2xx of the server; what it says is within its vocabulary; a time to
 * wait stays below its bound; rules with wild cards never read past a text. Octets: stage, provider, own; then a rule's
 * text up to the first LF, then the reply as it comes from the wire.
 */
#include "hikyaku/outcome.h"
#include "mail/reply.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const providers[] = {"", "own", "docomo", "gmail", "m365", "yahoo_jp"};

static void check(const struct hky_outcome *o, const struct hky_reply *r, enum hky_stage stage)
{
    HKY_ASSERT((unsigned)o->class < HKY_CLASS_N && (unsigned)o->scope < HKY_SCOPE_N && o->stage == stage);
    HKY_ASSERT(hky_class_name(o->class)[0] != '?' && !hky_class_is_reason(o->class));
    bool is_success = r->origin == HKY_ORIGIN_REMOTE && r->code / 100 == 2;
    HKY_ASSERT((o->class == HKY_CLASS_OK) == is_success);
    HKY_ASSERT(o->reply.code == r->code && o->reply.n == r->n && o->reply.n < HKY_REPLY_TEXT);
    HKY_ASSERT(o->retry_after_sec <= 3 * 24 * 3600);
    if (r->code / 100 == 4)
        HKY_ASSERT(o->is_temporary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_reply_reader reader;
    struct hky_reply typed, local;
    struct hky_outcome out, again;
    size_t used;

    if (size < 4 || size > 8192)
        return 0;
    const char *p = (const char *)data + 3;
    size_t n = size - 3;
    const char *lf = memchr(p, '\n', n);
    struct hky_str pattern = hky_str_of(p, lf != NULL ? (size_t)(lf - p) : 0);
    struct hky_str wire = lf != NULL ? hky_str_of(lf + 1, n - (size_t)(lf + 1 - p)) : hky_str_of(p, n);
    char *text = hky_str_dup(pattern);
    struct hky_class_rule rules[] = {
        {.provider = "",
         .mx = "",
         .enhanced = "",
         .text = text,
         .code_min = 400,
         .code_max = 599,
         .class = HKY_CLASS_RATE_LIMITED,
         .scope = HKY_SCOPE_RELAY,
         .retry_after_sec = 60,
         .why = ""},
        {.provider = "", .mx = "*.test", .enhanced = "5.7.*", .text = "", .class = HKY_CLASS_FILTERED, .why = ""},
    };
    struct hky_classify_query q = {.provider = providers[data[1] % (sizeof providers / sizeof providers[0])],
                                   .mx = data[2] & 2 ? "mx.y.test" : "",
                                   .is_own = data[2] & 1,
                                   .stage = (enum hky_stage)(data[0] % HKY_STAGE_N),
                                   .address = HKY_STR("b@y.test"),
                                   .now_ms = INT64_C(1795896000000)};
    hky_reply_reader_init(&reader);
    if (hky_reply_read(&reader, wire.p, wire.n, &used, NULL) == HKY_REPLY_WHOLE) {
        q.reply = &reader.reply;
        hky_classify(rules, text[0] != '\0' ? 2 : 0, &q, &out);
        check(&out, q.reply, q.stage);
        hky_classify(rules, text[0] != '\0' ? 2 : 0, &q, &again);
        HKY_ASSERT(out.class == again.class && out.scope == again.scope &&
                   out.retry_after_sec == again.retry_after_sec);
    }
    hky_reply_from_text(&typed, wire);
    q.reply = &typed;
    hky_classify(rules, 0, &q, &out);
    if (typed.code != 0)
        check(&out, q.reply, q.stage);
    hky_reply_local(&local, (enum hky_origin)(1 + data[2] % 7), "%.*s", (int)(wire.n < 900 ? wire.n : 900), wire.p);
    q.reply = &local;
    hky_classify(rules, 0, &q, &out);
    check(&out, q.reply, q.stage);
    hky_reply_reader_fini(&reader);
    free(text);
    return 0;
}
