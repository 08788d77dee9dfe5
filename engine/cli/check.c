/* check: loads a policy as `run` would and prints every problem that it finds. */
#include "cli/cli.h"
#include "base/clock.h"
#include "base/json.h"
#include "hikyaku/accept.h"
#include "hikyaku/route.h"

#include <stdio.h>
#include <stdlib.h>

/* Sorts by file and line; problems of one line keep the order in which they were found. */
static int compare_problems(const void *a, const void *b)
{
    const struct hky_problem *x = *(const struct hky_problem *const *)a, *y = *(const struct hky_problem *const *)b;
    int order = strcmp(x->place.file != NULL ? x->place.file : "", y->place.file != NULL ? y->place.file : "");

    if (order != 0)
        return order;
    if (x->place.line != y->place.line)
        return x->place.line < y->place.line ? -1 : 1;
    return x < y ? -1 : 1;
}

static const char *level_colour(enum hky_problem_level level)
{
    return level == HKY_PROBLEM_NOTE ? "" : hky_cli_colour(level == HKY_PROBLEM_WARNING ? "yellow" : "red");
}

static void print_text(const struct hky_problems *problems, const char *path)
{
    const struct hky_problem **sorted = hky_calloc(problems->n + 1, sizeof(void *));
    struct hky_buf line;

    for (size_t i = 0; i < problems->n; i++)
        sorted[i] = &problems->items[i];
    qsort((void *)sorted, problems->n, sizeof(void *), compare_problems);
    hky_buf_init(&line, 8192);
    for (size_t i = 0; i < problems->n; i++) {
        const char *colour = level_colour(sorted[i]->level);

        hky_buf_clear(&line);
        hky_cli_add_problem(&line, path, sorted[i]);
        fputs(colour, stdout);
        hky_cli_put(stdout, hky_buf_z(&line));
        puts(colour[0] != '\0' ? hky_cli_colour("off") : "");
    }
    hky_buf_fini(&line);
    free((void *)sorted);
}

static void print_summary(const struct hky_policy *policy, const struct hky_problems *problems, const char *path)
{
    size_t warnings = problems->n_warnings;

    if (policy == NULL) {
        hky_cli_printf(stdout, "%s: %zu error%s, %zu warning%s: would not run\n", path, problems->n_errors,
                       problems->n_errors == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
        return;
    }
    fputs(hky_cli_colour("green"), stdout);
    hky_cli_put(stdout, path);
    printf("%s: good, %u relay%s", hky_cli_colour("off"), policy->n_relays, policy->n_relays == 1 ? "" : "s");
    if (warnings > 0)
        printf(", %zu warning%s", warnings, warnings == 1 ? "" : "s");
    putchar('\n');
}

/* A secret that does not exist on this machine; one for each place that needs it. */
struct missing {
    uint32_t line;
    char *file, *name, *of, *near;
};

struct lacking {
    struct hky_problems *problems;
    struct missing *missing;
    size_t n_missing;
};

static void print_json(const struct hky_policy *policy, const struct hky_problems *problems,
                       const struct lacking *lacking)
{
    struct hky_map names;
    struct hky_json j;
    struct hky_buf out;

    hky_buf_init(&out, 16U << 20);
    hky_map_init(&names);
    j = hky_json_to(&out);
    hky_json_begin_object(&j, NULL);
    hky_json_bool(&j, "good", policy != NULL);
    hky_json_uint(&j, "errors", problems->n_errors);
    hky_json_uint(&j, "warnings", problems->n_warnings);
    hky_json_begin_array(&j, "problems");
    for (size_t i = 0; i < problems->n; i++) {
        const struct hky_problem *p = &problems->items[i];

        hky_json_begin_object(&j, NULL);
        hky_json_str(&j, "file", hky_str_z(p->place.file));
        hky_json_uint(&j, "line", p->place.line);
        hky_json_z(&j, "level", hky_problem_level_name(p->level));
        hky_json_z(&j, "text", p->text);
        hky_json_end_object(&j);
    }
    hky_json_end_array(&j);
    hky_json_begin_array(&j, "missing_secrets");
    for (size_t i = 0; i < lacking->n_missing; i++) {
        struct hky_str name = hky_str_z(lacking->missing[i].name);

        if (hky_map_get(&names, name) == NULL)
            hky_json_str(&j, NULL, name);
        hky_map_put(&names, name, &j);
    }
    hky_json_end_array(&j);
    hky_json_begin_array(&j, "missing");
    for (size_t i = 0; i < lacking->n_missing; i++) {
        const struct missing *m = &lacking->missing[i];

        hky_json_begin_object(&j, NULL);
        hky_json_str(&j, "file", hky_str_z(m->file));
        hky_json_uint(&j, "line", m->line);
        hky_json_z(&j, "of", m->of);
        hky_json_z(&j, "secret", m->name);
        hky_json_end_object(&j);
    }
    hky_json_end_array(&j);
    hky_json_end_object(&j);
    puts(hky_buf_z(&out));
    hky_buf_fini(&out);
    hky_map_fini(&names);
}

/* A secret that cannot be read is an error here as for `run`. A missing one is not: the policy may be meant for another
 * machine, or its secrets may not have been made yet. */
static void on_lacking(void *ctx, const struct hky_lacking_secret *s)
{
    struct lacking *k = ctx;

    if (s->err != HKY_E_MISSING) {
        hky_problems_add(k->problems, s->place, s->err == HKY_OK ? HKY_PROBLEM_WARNING : HKY_PROBLEM_ERROR, s->text);
        return;
    }
    k->missing = hky_realloc(k->missing, (k->n_missing + 1) * sizeof *k->missing);
    k->missing[k->n_missing++] = (struct missing){s->place.line, hky_strdup(s->place.file), hky_strdup(s->name),
                                                  hky_strdup(s->of), hky_strdup(s->near)};
}

static void lacking_fini(struct lacking *k)
{
    for (size_t i = 0; i < k->n_missing; i++) {
        free(k->missing[i].file);
        free(k->missing[i].name);
        free(k->missing[i].of);
        free(k->missing[i].near);
    }
    free(k->missing);
}

static void print_missing(const struct lacking *k, const char *path)
{
    struct hky_buf line;

    if (k->n_missing == 0)
        return;
    hky_buf_init(&line, 8192);
    for (size_t i = 0; i < k->n_missing; i++) {
        const struct missing *m = &k->missing[i];

        hky_buf_clear(&line);
        hky_cli_add_place(&line, path, m->file);
        hky_buf_printf(&line, "%s:%u: missing: secret \"%s\" of %s%s", m->file, m->line, m->name, m->of, m->near);
        hky_cli_put(stdout, hky_buf_z(&line));
        putchar('\n');
    }
    hky_buf_fini(&line);
    hky_cli_print_words("run and reload refuse the policy without these secrets: put each into "
                        "$HIKYAKU_SECRET_NAME, $CREDENTIALS_DIRECTORY/name, or secrets/name beside the policy.",
                        0);
}

/* Checks the listeners with the code by which `run` refuses them. False: one is refused. */
static bool check_listeners(const struct hky_policy *policy, struct hky_problems *problems)
{
    size_t n_errors = problems->n_errors;

    for (uint32_t i = 0; i < policy->engine.n_listen; i++) {
        const struct hky_listen *l = &policy->engine.listen[i];
        struct hky_error e = {0};
        char place[300];
        size_t n;
        if (hky_accept_check_listener(policy, l, &e) == HKY_OK)
            continue;
        snprintf(place, sizeof place, "%s:%u: ", l->place.file, l->place.line);
        n = strncmp(e.text, place, strlen(place)) == 0 ? strlen(place)
                                                       : 0; /* the place is printed with every problem */
        hky_problems_add(problems, l->place, HKY_PROBLEM_ERROR, e.text + n);
    }
    return problems->n_errors == n_errors;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_clock clock = HKY_CLOCK_REAL;
    struct hky_policy_load_params params = {.now_ms = hky_clock_now_ms(&clock)};
    struct hky_problems problems = {0};
    struct hky_policy *policy = NULL;
    struct hky_cli_args args;
    struct lacking lacking = {.problems = &problems};
    const char *value;
    bool is_good;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while (hky_cli_next(&args, &value) != NULL)
        ;
    if ((code = hky_cli_args_done(&args, 1, 1)) >= 0)
        return code;
    params.path = argv[0];
    is_good = hky_policy_load(&params, &policy, &problems) == HKY_OK;
    if (is_good && !check_listeners(policy, &problems)) {
        is_good = false;
        hky_policy_unref(&policy);
    }
    if (is_good)
        hky_policy_check_secrets(policy, on_lacking, &lacking);
    if (problems.n_errors > 0) {
        is_good = false;
        hky_policy_unref(&policy);
    }
    if (args.is_json) {
        print_json(policy, &problems, &lacking);
    } else {
        print_text(&problems, argv[0]);
        print_summary(policy, &problems, argv[0]);
        print_missing(&lacking, argv[0]);
    }
    lacking_fini(&lacking);
    hky_problems_fini(&problems);
    hky_policy_unref(&policy);
    return is_good ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

const struct hky_cli_command hky_cli_check = {
    .name = "check",
    .args = "POLICY",
    .summary = "load a policy as run would, and report what is wrong with it",
    .help = "Every problem is printed as FILE:LINE: what is wrong, and what to do; FILE is a path from the current "
            "folder, and "
            "with --json one from the policy's folder. Warnings do not keep a policy from "
            "running. A secret that is empty or that others can read is an error. Missing secrets are listed: they may "
            "exist on another machine, but run and reload refuse the policy without them. No command of a secret is "
            "run and no connection is made; `hikyaku probe` tries the relays.\n"
            "\n"
            "Exit code 0: the policy would run, with its secrets; 1: it would not; 2: wrong usage.",
    .run = run,
};
