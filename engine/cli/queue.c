#include "cli/operate.h"
#include "base/duration.h"
#include "cli/queue.h"
#include "hikyaku/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "the engine's spool (default: $HIKYAKU_SPOOL, else ./spool)"},
    {"utc", NULL, "print times in UTC; default: in engine.timezone"},
    {NULL, NULL, NULL},
};

/* Sorts by id, which is the order of acceptance. */
static int compare_rows(const void *a, const void *b)
{
    const json_t *x = *(const json_t *const *)a, *y = *(const json_t *const *)b;
    int order = strcmp(hky_cli_row_text(x, "id"), hky_cli_row_text(y, "id"));

    return order != 0 ? order : strcmp(hky_cli_row_text(x, "rcpt"), hky_cli_row_text(y, "rcpt"));
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
        char age[24], next[48], tries[24], last[160], rcpt[HKY_CLI_ADDRESS];

        snprintf(tries, sizeof tries, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(row, "attempts")));
        snprintf(last, sizeof last, "%s%s%.100s", hky_cli_row_text(row, "class"),
                 hky_cli_row_text(row, "class")[0] != '\0' ? " " : "",
                 hky_cli_row_text(row, "reason")[0] != '\0' ? hky_cli_row_text(row, "reason")
                                                            : hky_cli_row_text(row, "reply"));
        hky_cli_table_row(
            t, (const char *const[]){hky_cli_row_text(row, "id"),
                                     hky_cli_address(hky_str_z(hky_cli_row_text(row, "rcpt")), rcpt),
                                     hky_cli_row_text(row, "state"),
                                     hky_duration_rough(json_integer_value(json_object_get(row, "age_sec")), age),
                                     hky_cli_row_next(row, next), hky_cli_row_text(row, "route"),
                                     hky_cli_row_text(row, "relay"), tries, last});
    }
    free((void *)sorted);
    hky_cli_table_print(&t);
}

static const char *past_of(const char *action)
{
    static const char *const pasts[][2] = {
        {"retry", "made due now"}, {"hold", "held"}, {"release", "released"}, {"cancel", "cancelled"}};

    for (size_t i = 0; i < 4; i++)
        if (strcmp(action, pasts[i][0]) == 0)
            return pasts[i][1];
    return "";
}

/* A retry changes neither mail that is due nor held mail; prints what these wait for. */
static void print_unchanged(const struct hky_cli_answer *a)
{
    json_int_t n = json_integer_value(json_object_get(a->json, "held"));
    json_int_t due = json_integer_value(json_object_get(a->json, "due"));

    if (due > 0)
        hky_cli_printf(
            stdout, "%" JSON_INTEGER_FORMAT " more %s due already and %s for %s relay; hikyaku relay list says why\n",
            due, due == 1 ? "is" : "are", due == 1 ? "waits" : "wait", due == 1 ? "its" : "their");
    if (n == 0)
        return;
    printf("%" JSON_INTEGER_FORMAT " more %s held; release %s with:\n  hikyaku queue release", n, n == 1 ? "is" : "are",
           n == 1 ? "it" : "them");
    hky_cli_put(stdout, a->chosen);
    putchar('\n');
}

/* After a release: the application does not want mail to be sent after its deadline. */
static void print_late(const struct hky_cli_answer *a)
{
    json_int_t n = json_integer_value(json_object_get(a->json, "late"));

    if (n > 0)
        hky_cli_printf(stdout, "%" JSON_INTEGER_FORMAT " of them %s not sent but expire%s: %s past %s deadline\n", n,
                       n == 1 ? "is" : "are", n == 1 ? "s" : "", n == 1 ? "it is" : "they are",
                       n == 1 ? "its" : "their");
}

/* Those that no attempt follows for: their attempts are used up, or their deadline is over. */
static void print_without_attempt(const struct hky_cli_answer *a)
{
    json_int_t used_up = json_integer_value(json_object_get(a->json, "used_up"));
    json_int_t spent = json_integer_value(json_object_get(a->json, "spent"));

    if (used_up > 0)
        hky_cli_printf(stdout,
                       "%" JSON_INTEGER_FORMAT " of them %s not sent but wait%s until %s: the %d attempts of a "
                       "recipient are used up\n",
                       used_up, used_up == 1 ? "is" : "are", used_up == 1 ? "s" : "",
                       used_up == 1 ? "it expires" : "they expire", HKY_ATTEMPTS_MAX);
    if (spent > 0)
        hky_cli_printf(stdout,
                       "%" JSON_INTEGER_FORMAT " stay%s held: %s may have been delivered, and cannot be tried again, "
                       "because the deadline is over or the %d attempts are used up; hikyaku queue cancel ends %s "
                       "without a failure notice\n",
                       spent, spent == 1 ? "s" : "", spent == 1 ? "it" : "they", HKY_ATTEMPTS_MAX,
                       spent == 1 ? "it" : "them");
}

static void print_answer(const struct hky_cli_answer *a)
{
    const char *action = a->action;
    const json_t *rows = json_object_get(a->json, "rows");
    json_int_t n = json_integer_value(json_object_get(a->json, "n"));
    json_int_t kept = json_integer_value(json_object_get(a->json, "kept"));
    bool is_list = strcmp(action, "list") == 0, is_dry_run = a->is_dry_run;

    if (strcmp(action, "show") == 0) {
        hky_cli_print_stories(a);
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
    print_late(a);
    print_without_attempt(a);
    print_unchanged(a);
}

static int print(const struct hky_cli_answer *a, bool is_quiet)
{
    const char *where_error = hky_cli_row_text(a->json, "where_error");
    bool is_list = strcmp(a->action, "list") == 0;
    int code = !is_list && json_integer_value(json_object_get(a->json, "n")) == 0 ? HKY_EXIT_NO : HKY_EXIT_GOOD;

    if (where_error[0] != '\0') {
        json_int_t n = json_integer_value(json_object_get(a->json, "where_failed"));
        fprintf(stderr,
                "hikyaku queue %s: where failed for %" JSON_INTEGER_FORMAT
                " recipient%s left out, the first time with: ",
                a->action, n, n == 1 ? ", which was" : "s, which were");
        hky_cli_put(stderr, where_error);
        fputc('\n', stderr);
        code = HKY_EXIT_NO;
    }
    if (!is_quiet)
        print_answer(a);
    return code;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    return hky_cli_operate(self, argc, argv, print);
}

const struct hky_cli_command hky_cli_queue = {
    .name = "queue",
    .args = "[ACTION] [ID] [--to ADDRESS ...]",
    .summary = "look at the mail that waits, and retry, hold, release or cancel it",
    .group = "queue",
    .help =
        "Without an action the queue is listed. What several options select must all hold; show, retry, hold, release "
        "and cancel need at least one, or an ID, or --all. Examples:\n"
        "  hikyaku queue list --to docomo.ne.jp --state deferred\n"
        "  hikyaku queue retry --relay rental --class network\n"
        "  hikyaku queue cancel --scenario spring --older 2h --dry-run\n"
        "\n"
        "NEXT IN says when a recipient may be tried, and what keeps its relay from sending: cap (the cap is full), "
        "paused (the relay or its account), breaker (the relay cannot be reached), slowed (the relay asked for "
        "less mail).\n"
        "\n"
        "Exit code 1: nothing matched.",
    .options = options,
    .run = run,
};
