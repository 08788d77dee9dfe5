/* Every rule decides something. */
#include "unit/deliver/classify_rig.h"

/* The first of the alternatives joined by '|' as one that fits: '*' is nothing, '?' a letter. */
static void smallest_of(const char *glob, const char *star, char *out, size_t n)
{
    size_t used = 0;

    for (; *glob != '\0' && *glob != '|' && used + strlen(star) + 1 < n; glob++) {
        if (*glob == '*') {
            memcpy(out + used, star, strlen(star));
            used += strlen(star);
        } else {
            out[used++] = *glob == '?' ? '1' : *glob;
        }
    }
    out[used] = '\0';
}

/* An enhanced code that fits the pattern of a rule, for a reply of `code`; false: none does. */
static bool enhance(struct hky_reply *r, const char *pattern)
{
    char text[32];
    unsigned a, b, c;

    if (pattern[0] == '\0' || pattern[0] == '!') /* without one it fits "none of these" */
        return true;
    smallest_of(pattern, "1", text, sizeof text);
    if (text[0] == 'x')
        text[0] = (char)('0' + r->code / 100);
    if (sscanf(text, "%1u.%3u.%3u", &a, &b, &c) != 3 || a != r->code / 100U)
        return false;
    r->enhanced[0] = (uint8_t)a;
    r->enhanced[1] = (uint8_t)b;
    r->enhanced[2] = c <= 255 ? (uint8_t)c : 0;
    r->enhanced_detail = (uint16_t)c;
    return true;
}

/* The code of a rule that begins with `digit`; 0: it has none. */
static uint16_t code_of(const struct hky_class_rule *rule, unsigned digit)
{
    uint16_t code = (uint16_t)(digit * 100 + 50);

    if (rule->code_max != 0 && code > rule->code_max)
        code = rule->code_max;
    if (rule->code_max != 0 && code < rule->code_min)
        code = rule->code_min;
    return code / 100 == digit ? code : 0;
}

/* Asks for what the rule asks for, in the smallest reply of that kind, at each of its stages, by a recipient's host and
 * by a relay. True: the reply gets the rule's class at one of them, or there is no such reply. */
static bool is_reached(const struct hky_class_rule *rule, const char *phrase, uint16_t code, enum hky_class *taken_as)
{
    static const char *const anybody[] = {"own", ""};
    size_t n_providers = rule->provider[0] == '\0' ? 2 : 1;
    char mx[80] = "mx.example.net";
    struct hky_reply reply = {.code = code};

    if (!enhance(&reply, rule->enhanced))
        return true;
    if (rule->mx[0] != '\0')
        smallest_of(rule->mx, "mx", mx, sizeof mx);
    smallest_of(phrase, " ", reply.text, 200);
    reply.n = (uint16_t)strlen(reply.text);
    if (rule->with[0] != '\0') {
        reply.text[reply.n++] = ' ';
        smallest_of(rule->with, " ", reply.text + reply.n, 200);
        reply.n = (uint16_t)strlen(reply.text);
    }
    for (unsigned stage = HKY_STAGE_CONNECT; stage < HKY_STAGE_N; stage++) {
        for (size_t i = 0; i < n_providers && (rule->stages == 0 || (rule->stages >> stage & 1) != 0); i++) {
            struct hky_outcome o;

            classify(n_providers == 1 ? rule->provider : anybody[i], mx, (enum hky_stage)stage, &reply, &o);
            if (o.class == rule->class)
                return true;
            *taken_as = o.class;
        }
    }
    return false;
}

/* A rule, or a phrase of one, of which even the smallest reply is taken by an earlier rule of another class can never
 * decide anything: the order is wrong, or the phrase is dead. Asked for temporary and permanent replies apart. */
static void test_every_rule_can_hit(void **state)
{
    unsigned n_bad = 0, n_asked = 0;

    (void)state;
    for (unsigned i = 0; i < policy->n_rules; i++) {
        const struct hky_class_rule *rule = &policy->rules[i];

        for (const char *p = rule->text; p != NULL; p = strchr(p, '|') != NULL ? strchr(p, '|') + 1 : NULL) {
            for (unsigned digit = 4; digit <= 5; digit++) {
                uint16_t code = code_of(rule, digit);
                enum hky_class taken_as = HKY_CLASS_N;

                n_asked += code != 0;
                if (code == 0 || is_reached(rule, p, code, &taken_as))
                    continue;
                print_error("rule %u (%s %s %s): %u \"%.*s\" is %s, never %s\n", i + 1, rule->provider, rule->mx,
                            rule->enhanced, code, (int)strcspn(p, "|"), p, hky_class_name(taken_as),
                            hky_class_name(rule->class));
                n_bad++;
            }
        }
    }
    print_message("%u rules, %u phrases with a code\n", policy->n_rules, n_asked);
    assert_true(n_asked > policy->n_rules);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule_can_hit),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
