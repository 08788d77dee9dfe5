#include "cli/ask.h"
#include "cli/queue.h"
#include "hikyaku/outcome.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_BY_DRY_RUN 25u
#define LIMIT_MAX        10000u

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "the engine's spool (default: $HIKYAKU_SPOOL, else ./spool)"},
    {"relay", "NAME", "recipients whose current step uses this relay"},
    {"to", "ADDRESS", "recipient: an address, a domain, or .domain for its subdomains"},
    {"from", "ADDRESS", "envelope sender, likewise"},
    {"scenario", "NAME", "of this scenario"},
    {"tag", "NAME", "with this tag"},
    {"class", "CLASS", "whose last attempt ended so (mailbox_full, network, ...)"},
    {"state", "STATE", "queued, sending, deferred, parked, held"},
    {"older", "DURATION", "accepted longer ago than this (90s 10m 2h 3d)"},
    {"where", "LUA", "for which this expression on r holds: 'r.tags.urgent and r.domain == \"docomo.ne.jp\"'"},
    {"limit", "N", "print at most N rows (default 100; counts are always of all)"},
    {"dry-run", NULL, "retry, hold, release, cancel: say how many and show the first 25, change nothing"},
    {NULL, NULL, NULL},
};

/* Ids are in the order of acceptance. */
static int compare_rows(const void *a, const void *b)
{
    const json_t *x = *(const json_t *const *)a, *y = *(const json_t *const *)b;
    int order = strcmp(hky_cli_row_text(x, "id"), hky_cli_row_text(y, "id"));

    return order != 0 ? order : strcmp(hky_cli_row_text(x, "recipient"), hky_cli_row_text(y, "recipient"));
}

static void print_rows(const json_t *rows)
{
    struct hky_cli_table *t = hky_cli_table_new(9);
    size_t n = json_array_size(rows);
    const json_t **sorted = hky_calloc(n + 1, sizeof(void *));

    hky_cli_table_row(
        t, (const char *const[]){"ID", "RECIPIENT", "STATE", "AGE", "NEXT IN", "ROUTE", "RELAY", "TRIES", "LAST"});
    for (size_t i = 0; i < n; i++)
        sorted[i] = json_array_get(rows, i);
    qsort((void *)sorted, n, sizeof(void *), compare_rows);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = sorted[i];
        char age[24], next[48], tries[24], last[160];

        snprintf(tries, sizeof tries, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(row, "attempts")));
        snprintf(last, sizeof last, "%s%s%.100s", hky_cli_row_text(row, "class"),
                 hky_cli_row_text(row, "class")[0] != '\0' ? " " : "",
                 hky_cli_row_text(row, "reason")[0] != '\0' ? hky_cli_row_text(row, "reason")
                                                            : hky_cli_row_text(row, "reply"));
        hky_cli_table_row(
            t, (const char *const[]){
                   hky_cli_row_text(row, "id"), hky_cli_row_text(row, "recipient"), hky_cli_row_text(row, "state"),
                   hky_cli_age(json_integer_value(json_object_get(row, "age_sec")), age), hky_cli_row_next(row, next),
                   hky_cli_row_text(row, "route"), hky_cli_row_text(row, "relay"), tries, last});
    }
    free((void *)sorted);
    hky_cli_table_print(&t);
}

static const char *past_of(const char *action)
{
    static const char *const pasts[][2] = {
        {"retry", "asked to try now"}, {"hold", "held"}, {"release", "released"}, {"cancel", "cancelled"}};

    for (size_t i = 0; i < 4; i++)
        if (strcmp(action, pasts[i][0]) == 0)
            return pasts[i][1];
    return "";
}

static void print_answer(const char *action, const json_t *answer, bool is_dry_run)
{
    const json_t *rows = json_object_get(answer, "rows");
    json_int_t n = json_integer_value(json_object_get(answer, "n"));
    json_int_t kept = json_integer_value(json_object_get(answer, "kept"));
    bool is_list = strcmp(action, "list") == 0;

    if (strcmp(action, "show") == 0) {
        hky_cli_print_stories(rows);
        return;
    }
    if (is_list || is_dry_run) {
        if (json_array_size(rows) > 0)
            print_rows(rows);
        if ((size_t)n > json_array_size(rows))
            printf("... and %" JSON_INTEGER_FORMAT " more\n", n - (json_int_t)json_array_size(rows));
        if (is_list)
            printf("%" JSON_INTEGER_FORMAT " recipient%s\n", n, n == 1 ? "" : "s");
        else
            printf("%" JSON_INTEGER_FORMAT " recipient%s would be %s; nothing was changed\n", n, n == 1 ? "" : "s",
                   past_of(action));
    } else {
        printf("%" JSON_INTEGER_FORMAT " recipient%s %s\n", n, n == 1 ? "" : "s", past_of(action));
    }
    if (kept > 0)
        printf("%" JSON_INTEGER_FORMAT " stay%s held: engine.only_to does not name %s\n", kept, kept == 1 ? "s" : "",
               kept == 1 ? "it" : "them");
}

static bool is_state(const char *name)
{
    static const char *const states[] = {"queued", "sending", "deferred", "parked", "held"};

    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(name, states[i]) == 0)
            return true;
    fprintf(stderr, "hikyaku queue: no state \"%s\": queued, sending, deferred, parked, held\n", name);
    return false;
}

static bool is_class(const char *name)
{
    enum hky_class class;

    if (hky_class_parse(hky_str_z(name), &class))
        return true;
    fprintf(stderr, "hikyaku queue: no class \"%s\":", name);
    for (unsigned i = HKY_CLASS_BAD_MAILBOX; i < HKY_CLASS_N; i++)
        fprintf(stderr, " %s", hky_class_name((enum hky_class)i));
    fputc('\n', stderr);
    return false;
}

static bool take_selection(json_t *select, const char *name, const char *value)
{
    int64_t ms;

    if ((strcmp(name, "state") == 0 && !is_state(value)) || (strcmp(name, "class") == 0 && !is_class(value)))
        return false;
    if (strcmp(name, "older") != 0) {
        json_object_set_new(select, name, json_string(value));
        return true;
    }
    if (!hky_cli_duration(value, &ms)) {
        fprintf(stderr, "hikyaku queue: --older takes 90s, 10m, 2h or 3d, not \"%s\"\n", value);
        return false;
    }
    json_object_set_new(select, "older_ms", json_integer(ms));
    return true;
}

static bool take_limit(const char *value, uint64_t *limit)
{
    if (hky_str_u64(hky_str_z(value), LIMIT_MAX, limit) && *limit > 0)
        return true;
    fprintf(stderr, "hikyaku queue: --limit takes a number from 1 to %u, not \"%s\"\n", LIMIT_MAX, value);
    return false;
}

static bool is_action(const char *name)
{
    static const char *const actions[] = {"list", "show", "retry", "hold", "release", "cancel"};

    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (strcmp(name, actions[i]) == 0)
            return true;
    fprintf(stderr, "hikyaku queue: no action \"%s\": list, show, retry, hold, release, cancel\n", name);
    return false;
}

static bool is_enough(const char *action, const json_t *select)
{
    if (strcmp(action, "list") == 0 || json_object_size(select) > 0)
        return true;
    fprintf(stderr, "hikyaku queue %s: which? an ID, or a selection such as --to DOMAIN (hikyaku queue --help)\n",
            action);
    return false;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    const char *value, *name, *spool = NULL, *action;
    json_t *select = json_object(), *request, *answer;
    bool is_dry_run = false;
    uint64_t limit = 100;
    int code = -1;

    hky_cli_args_init(&args, self, argc, argv);
    while ((name = hky_cli_next(&args, &value)) != NULL && code < 0) {
        if (strcmp(name, "spool") == 0)
            spool = value;
        else if (strcmp(name, "dry-run") == 0)
            is_dry_run = true;
        else if (strcmp(name, "limit") == 0)
            code = take_limit(value, &limit) ? -1 : HKY_EXIT_USAGE;
        else
            code = take_selection(select, name, value) ? -1 : HKY_EXIT_USAGE;
    }
    if (code >= 0 || (code = hky_cli_args_done(&args, 0, 2)) >= 0) {
        json_decref(select);
        return code;
    }
    action = args.n_positional > 0 ? argv[0] : "list";
    if (args.n_positional > 1)
        json_object_set_new(select, "id", json_string(argv[1]));
    if (!is_action(action) || !is_enough(action, select)) {
        json_decref(select);
        return HKY_EXIT_USAGE;
    }
    request = json_pack("{s:s, s:s, s:o, s:b, s:I}", "cmd", "queue", "action", action, "select", select, "dry_run",
                        is_dry_run, "limit", (json_int_t)(is_dry_run ? SHOWN_BY_DRY_RUN : limit));
    if ((code = hky_cli_ask(self->name, hky_cli_spool(spool), request, &answer)) != HKY_EXIT_GOOD)
        return code;
    if (strcmp(action, "list") != 0 && json_integer_value(json_object_get(answer, "n")) == 0)
        code = HKY_EXIT_NO;
    if (hky_cli_row_text(answer, "where_error")[0] != '\0') {
        fprintf(stderr, "hikyaku queue: --where failed for some, which count as not meant: %s\n",
                hky_cli_row_text(answer, "where_error"));
        code = HKY_EXIT_NO;
    }
    if (args.is_json) {
        hky_cli_print_json(answer);
        return code;
    }
    print_answer(action, answer, is_dry_run);
    json_decref(answer);
    return code;
}

const struct hky_cli_command hky_cli_queue = {
    .name = "queue",
    .args = "list | show ID | retry | hold | release | cancel [ID]",
    .summary = "the live queue: list, show, retry, hold, release, cancel",
    .help = "All that is selected must hold together; without a selection list shows everything. Examples:\n"
            "  hikyaku queue list --to docomo.ne.jp --state deferred\n"
            "  hikyaku queue retry --relay rental --class network\n"
            "  hikyaku queue cancel --scenario spring --older 2h --dry-run\n"
            "NEXT IN says when it may be tried, and what its lane waits for: cap (a full one), paused (the relay or\n"
            "account), breaker (the relay cannot be reached), slowed (the relay asked for less).\n"
            "Cancelled recipients are gone without a failure notice. Exit code 1: nothing matched.",
    .options = options,
    .run = run,
};
