/* The labelled corpus of bounces, where it lies beside the repository. */
#include "unit/deliver/classify_rig.h"

#include <jansson.h>

/* Right in this many of a hundred rows of the corpus whose class is one of ours. */
#define CORPUS_FLOOR 87

static enum hky_stage stage_of_command(const char *command)
{
    static const struct {
        const char *command;
        enum hky_stage stage;
    } stages[] = {{"EHLO", S(HELLO)}, {"HELO", S(HELLO)}, {"MAIL", S(MAIL)}, {"RCPT", S(RCPT)}, {"DATA", S(DOT)}};

    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strcmp(stages[i].command, command) == 0)
            return stages[i].stage;
    return HKY_STAGE_DSN;
}

static const char *member(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));

    return s != NULL ? s : "";
}

static bool is_label(const char *labels, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = labels; (p = strstr(p, name)) != NULL; p += n)
        if ((p == labels || p[-1] == '|') && (p[n] == '\0' || p[n] == '|'))
            return true;
    return false;
}

static bool is_ours(const char *labels)
{
    char first[32];
    enum hky_class c;

    snprintf(first, sizeof first, "%.*s", (int)strcspn(labels, "|"), labels);
    return hky_class_parse(hky_str_z(first), &c);
}

static bool row_is_right(const json_t *row)
{
    const char *status = member(row, "status"), *code = member(row, "code");
    enum hky_stage stage = stage_of_command(member(row, "command"));
    unsigned a = 0, b = 0, c = 0;
    struct hky_reply reply = {0};
    struct hky_outcome o;

    /* X.0.9NN is the corpus' own mark for "no status", not something a server said. */
    if (sscanf(status, "%1u.%3u.%3u", &a, &b, &c) == 3 && (b != 0 || c < 900)) {
        reply.enhanced[0] = (uint8_t)a;
        reply.enhanced[1] = (uint8_t)b;
        reply.enhanced_detail = (uint16_t)c;
    }
    reply.code = (uint16_t)(code[0] != '\0' ? atoi(code) : a == 4 ? 450 : 550);
    reply.n = (uint16_t)snprintf(reply.text, sizeof reply.text, "%.*s", HKY_REPLY_TEXT - 1, member(row, "text"));
    if (reply.n >= HKY_REPLY_TEXT)
        reply.n = HKY_REPLY_TEXT - 1;
    classify("own", member(row, "remote"), stage, &reply, &o);
    if (getenv("HKY_SHOW_WRONG") != NULL && !is_label(member(row, "class"), hky_class_name(o.class)))
        print_message("%s, not %s: [%s] %s %s %s\n", hky_class_name(o.class), member(row, "class"),
                      hky_stage_name(stage), code, status, member(row, "text"));
    return is_label(member(row, "class"), hky_class_name(o.class));
}

static void test_corpus(void **state)
{
    FILE *f = fopen(HKY_SOURCE_DIR "/../shared/corpus/bounces.jsonl", "r");
    char *line = NULL;
    size_t cap = 0;
    unsigned n = 0, right = 0;

    (void)state;
    if (f == NULL) {
        print_message("SKIP: no corpus in ../shared/corpus\n");
        skip();
    }
    while (getline(&line, &cap, f) > 0) {
        json_t *file = json_loads(line, 0, NULL), *row;
        size_t i;

        assert_non_null(file);
        json_array_foreach (json_object_get(file, "recipients"), i, row) {
            if (!is_ours(member(row, "class")))
                continue;
            n++;
            right += row_is_right(row);
        }
        json_decref(file);
    }
    free(line);
    fclose(f);
    print_message("corpus: %u of %u right, %.1f %%\n", right, n, 100.0 * right / n);
    assert_true(n > 300);
    assert_true(right * 100 >= n * CORPUS_FLOOR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
    };

    return cmocka_run_group_tests(tests, load_rules, drop_rules);
}
