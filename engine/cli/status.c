#include "cli/operate.h"

#include "base/duration.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "the engine's spool (default: $HIKYAKU_SPOOL, else ./spool)"},
    {NULL, NULL, NULL},
};

static json_int_t number(const json_t *from, const char *group, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(from, group), key));
}

static void print_relays(const json_t *relays)
{
    struct hky_cli_table *t = hky_cli_table_new(5);
    const json_t *relay;
    size_t i;

    hky_cli_table_row(t, (const char *const[]){"RELAY", "STATE", "QUEUED", "DEFERRED", "NOTE"});
    json_array_foreach (relays, i, relay) {
        char queued[24], deferred[24], note[400];
        hky_cli_table_row(t, (const char *const[]){json_string_value(json_object_get(relay, "relay")),
                                                   json_string_value(json_object_get(relay, "state")),
                                                   hky_cli_count(relay, "queued", queued),
                                                   hky_cli_count(relay, "deferred", deferred),
                                                   hky_cli_relay_note(relay, note)});
    }
    hky_cli_table_print(&t);
}

/* Describes in words what is wrong with the journal; "" while it is good. */
static const char *health_note(const char *health, bool takes_results)
{
    if (strcmp(health, "good") == 0)
        return "";
    if (strcmp(health, "hanging") == 0)
        return ": no mail is taken or sent until the disk of the spool answers; look at the kernel's log and the "
               "device";
    if (strcmp(health, "full") == 0)
        return takes_results ? ": new mail is refused (452) until there is room"
                             : ": new mail is refused (452), and none is sent, because results cannot be written "
                               "either; make room on the file system of the spool";
    return takes_results ? ": new mail is refused (451), because writing fails"
                         : ": new mail is refused (451), and none is sent, because results cannot be written either; "
                           "look at the kernel's log and the device of the spool";
}

static void print_restart(const json_t *answer)
{
    const json_t *keys = json_object_get(answer, "restart"), *key;
    char text[400];
    size_t i;
    int n;

    if (json_array_size(keys) == 0)
        return;
    n = snprintf(text, sizeof text, "These keys need a restart: ");
    json_array_foreach (keys, i, key)
        if (n < (int)sizeof text)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%s", i > 0 ? ", " : "", json_string_value(key));
    hky_cli_print_text(text, 0);
}

/* Prints "key      text", broken at the width of the terminal. */
static void print_line(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void print_line(const char *key, const char *fmt, ...)
{
    char text[600];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    printf("%-7s ", key);
    hky_cli_print_words(text, 8);
}

static void print_engine(const json_t *s)
{
    char up[24];
    const char *refused = json_string_value(json_object_get(s, "reload_error"));
    json_int_t workers = json_integer_value(json_object_get(s, "workers"));

    printf("%s%s%s for %s, version %s, %" JSON_INTEGER_FORMAT " worker%s\n", hky_cli_colour("bold"),
           json_string_value(json_object_get(s, "state")), hky_cli_colour("off"),
           hky_duration_rough(json_integer_value(json_object_get(s, "uptime_sec")), up),
           json_string_value(json_object_get(s, "version")), workers, workers == 1 ? "" : "s");
    print_line("policy", "%s (%s)", json_string_value(json_object_get(s, "policy")),
               json_string_value(json_object_get(s, "policy_hash")));
    if (refused != NULL) {
        fputs(hky_cli_colour("red"), stdout);
        print_line("reload", "the last reload was refused: %s", refused);
        fputs(hky_cli_colour("off"), stdout);
    }
    print_restart(s);
}

static void print_status(const json_t *s)
{
    const char *health = json_string_value(json_object_get(json_object_get(s, "journal"), "health"));
    json_int_t segments = number(s, "journal", "segments"), spare = number(s, "journal", "free");
    json_int_t notices = number(s, "since_start", "notices");
    bool takes_results = json_is_true(json_object_get(json_object_get(s, "journal"), "takes_results"));
    char text[60] = "";

    if (notices > 0)
        snprintf(text, sizeof text, ", %" JSON_INTEGER_FORMAT " failure notice%s", notices, notices == 1 ? "" : "s");
    print_engine(s);
    print_line("queue",
               "%" JSON_INTEGER_FORMAT " queued, %" JSON_INTEGER_FORMAT " sending, %" JSON_INTEGER_FORMAT
               " deferred, %" JSON_INTEGER_FORMAT " parked, %" JSON_INTEGER_FORMAT " undecided, %" JSON_INTEGER_FORMAT
               " held",
               number(s, "queue", "queued"), number(s, "queue", "sending"), number(s, "queue", "deferred"),
               number(s, "queue", "parked"), number(s, "queue", "undecided"), number(s, "queue", "held"));
    print_line("so far", "%lu message%s in, %lu recipient%s, %lu delivered, %lu failed, %lu cancelled, %lu attempt%s%s",
               HKY_CLI_COUNT(number(s, "since_start", "messages")),
               HKY_CLI_COUNT(number(s, "since_start", "recipients")),
               (unsigned long)number(s, "since_start", "delivered"), (unsigned long)number(s, "since_start", "failed"),
               (unsigned long)number(s, "since_start", "cancelled"),
               HKY_CLI_COUNT(number(s, "since_start", "attempts")), text);
    print_line("journal", "%s%s, %lu segment%s in use (%lu cold), %lu free, %lu MB, %lu commit%s", health,
               health_note(health, takes_results), HKY_CLI_COUNT(segments - spare),
               (unsigned long)number(s, "journal", "cold"), (unsigned long)spare,
               (unsigned long)(number(s, "journal", "octets") >> 20), HKY_CLI_COUNT(number(s, "journal", "commits")));
    putchar('\n');
    print_relays(json_object_get(s, "relays"));
}

static int print(const struct hky_cli_answer *a, bool is_quiet)
{
    if (!is_quiet)
        print_status(a->json);
    return HKY_EXIT_GOOD;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    return hky_cli_operate(self, argc, argv, print);
}

const struct hky_cli_command hky_cli_status = {
    .name = "status",
    .args = "",
    .summary = "show what the engine is doing",
    .group = "status",
    .options = options,
    .run = run,
};

static int print_reload(const struct hky_cli_answer *a, bool is_quiet)
{
    if (is_quiet)
        return HKY_EXIT_GOOD;
    puts("The new policy is in force.");
    print_restart(a->json);
    if (json_string_length(json_object_get(a->json, "lists")) > 0)
        hky_cli_print_text(json_string_value(json_object_get(a->json, "lists")), 0);
    return HKY_EXIT_GOOD;
}

static int run_reload(const struct hky_cli_command *self, int argc, char **argv)
{
    return hky_cli_operate(self, argc, argv, print_reload);
}

const struct hky_cli_command hky_cli_reload = {
    .name = "reload",
    .args = "",
    .summary = "load the policy again; a bad file changes nothing",
    .group = "reload",
    .help =
        "Recipients without a delivered copy get a new plan at their next attempt; parked recipients are decided at "
        "once. Keys that need a restart are named. The event log is opened again in any case, for logrotate.\n"
        "\n"
        "Exit code 1: the file has errors, and the old policy stays in force.",
    .options = options,
    .run = run_reload,
};
