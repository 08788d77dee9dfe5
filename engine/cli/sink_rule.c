#include "cli/sink.h"

#include "mail/address.h"

#include <stdlib.h>

static struct hky_str next_word(struct hky_str *rest)
{
    struct hky_str word;
    const char *blank;

    *rest = hky_str_trim(*rest);
    blank = memchr(rest->p, ' ', rest->n);
    word = hky_str_of(rest->p, blank != NULL ? (size_t)(blank - rest->p) : rest->n);
    rest->p += word.n;
    rest->n -= word.n;
    return word;
}

static bool take_share(struct hky_str *rest, double *share)
{
    struct hky_str before = *rest, word = next_word(rest);
    char number[16];
    char *end;

    *share = 1;
    if (word.n < 2 || word.p[word.n - 1] != '%' || word.n >= sizeof number) {
        *rest = hky_str_trim(before);
        return true;
    }
    memcpy(number, word.p, word.n - 1);
    number[word.n - 1] = '\0';
    *share = strtod(number, &end) / 100;
    *rest = hky_str_trim(*rest);
    return *end == '\0' && *share >= 0 && *share <= 1;
}

static bool is_reply(struct hky_str s)
{
    uint64_t code;

    if (hky_str_eq(s, HKY_STR("close")) || hky_str_eq(s, HKY_STR("stall")))
        return true;
    return s.n >= 3 && hky_str_u64(hky_str_of(s.p, 3), 599, &code) && code >= 200 && (s.n == 3 || s.p[3] == ' ');
}

bool hky_sink_rule_add(struct hky_sink *sink, const char *text)
{
    struct hky_str rest = hky_str_z(text), pattern = next_word(&rest), stage = next_word(&rest);
    struct hky_sink_rule *rule = &sink->rules[sink->n_rules];

    if (sink->n_rules == HKY_SINK_RULES_MAX) {
        hky_cli_printf(stderr, "hikyaku sink: at most %d rules\n", HKY_SINK_RULES_MAX);
        return false;
    }
    if (pattern.n == 0 || !hky_stage_parse(stage, &rule->stage)) {
        hky_cli_printf(
            stderr,
            "hikyaku sink: rule \"%s\": expected PATTERN, then a stage (connect hello auth mail rcpt data dot), "
            "then a reply\n",
            text);
        return false;
    }
    if (!take_share(&rest, &rule->share) || !is_reply(rest)) {
        hky_cli_printf(stderr,
                       "hikyaku sink: rule \"%s\": expected [SHARE%%] and then 200..599 with a text, close or stall\n",
                       text);
        return false;
    }
    rule->pattern = hky_str_dup(pattern);
    rule->reply = hky_str_dup(rest);
    sink->n_rules++;
    return true;
}

void hky_sink_rules_free(struct hky_sink *sink)
{
    for (unsigned i = 0; i < sink->n_rules; i++) {
        free(sink->rules[i].pattern);
        free(sink->rules[i].reply);
    }
}

/* Takes ":PORT" off the end of a pattern; 0 when there is none. */
static uint64_t take_port(struct hky_str *pattern)
{
    const char *colon = memrchr(pattern->p, ':', pattern->n);
    uint64_t port = 0;

    if (colon != NULL &&
        hky_str_u64(hky_str_of(colon + 1, (size_t)(pattern->p + pattern->n - colon - 1)), 65535, &port))
        pattern->n = (size_t)(colon - pattern->p);
    return port;
}

static bool fits(const char *pattern, uint16_t port, struct hky_str address)
{
    struct hky_str p = hky_str_z(pattern);
    uint64_t only = take_port(&p);

    return (only == 0 || only == port) && (p.n == 0 || hky_address_fits(p, address));
}

const char *hky_sink_fault(struct hky_sink *sink, uint16_t port, enum hky_stage stage, struct hky_str address)
{
    for (unsigned i = 0; i < sink->n_rules; i++) {
        struct hky_sink_rule *rule = &sink->rules[i];
        if (rule->stage != stage || !fits(rule->pattern, port, address))
            continue;
        if (rule->share < 1 && rand_r(&sink->seed) >= rule->share * ((double)RAND_MAX + 1))
            continue;
        sink->n_faults++;
        return rule->reply;
    }
    return NULL;
}
