#include "cli/ask.h"

#include <inttypes.h>
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

/* What is wrong with the journal, in words; "" while it is good. */
static const char *health_note(const char *health)
{
    if (strcmp(health, "full") == 0)
        return ": no mail is taken in (452) until there is room";
    return strcmp(health, "good") == 0 ? "" : ": no mail is taken in (451), writing fails";
}

static void print_status(const json_t *s)
{
    char up[24];
    const char *refused = json_string_value(json_object_get(s, "reload_error"));
    const char *health = json_string_value(json_object_get(json_object_get(s, "journal"), "health"));

    json_int_t workers = json_integer_value(json_object_get(s, "workers"));

    printf("%s%s%s for %s, version %s, policy %s (%s), %" JSON_INTEGER_FORMAT " worker%s\n", hky_cli_colour("bold"),
           json_string_value(json_object_get(s, "state")), hky_cli_colour("off"),
           hky_cli_age(json_integer_value(json_object_get(s, "uptime_sec")), up),
           json_string_value(json_object_get(s, "version")), json_string_value(json_object_get(s, "policy")),
           json_string_value(json_object_get(s, "policy_hash")), workers, workers == 1 ? "" : "s");
    if (refused != NULL)
        printf("%sthe last reload was refused: %s%s\n", hky_cli_colour("red"), refused, hky_cli_colour("off"));
    printf("queue        %" JSON_INTEGER_FORMAT " queued, %" JSON_INTEGER_FORMAT " sending, %" JSON_INTEGER_FORMAT
           " deferred, %" JSON_INTEGER_FORMAT " parked, %" JSON_INTEGER_FORMAT " held\n",
           number(s, "queue", "queued"), number(s, "queue", "sending"), number(s, "queue", "deferred"),
           number(s, "queue", "parked"), number(s, "queue", "held"));
    printf("since start  %lu message%s in, %lu recipient%s, %lu delivered, %lu failed, %lu cancelled, %lu attempt%s\n",
           HKY_CLI_COUNT(number(s, "since_start", "messages")), HKY_CLI_COUNT(number(s, "since_start", "recipients")),
           (unsigned long)number(s, "since_start", "delivered"), (unsigned long)number(s, "since_start", "failed"),
           (unsigned long)number(s, "since_start", "cancelled"), HKY_CLI_COUNT(number(s, "since_start", "attempts")));
    printf("journal      %s%s, %" JSON_INTEGER_FORMAT " segments (%" JSON_INTEGER_FORMAT " cold, %" JSON_INTEGER_FORMAT
           " free), %" JSON_INTEGER_FORMAT " MB, %" JSON_INTEGER_FORMAT " commits\n\n",
           health, health_note(health), number(s, "journal", "segments"), number(s, "journal", "cold"),
           number(s, "journal", "free"), number(s, "journal", "octets") >> 20, number(s, "journal", "commits"));
    print_relays(json_object_get(s, "relays"));
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    const char *value, *spool = NULL;
    json_t *answer;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while (hky_cli_next(&args, &value) != NULL)
        spool = value;
    if ((code = hky_cli_args_done(&args, 0, 0)) >= 0)
        return code;
    code = hky_cli_ask(self->name, hky_cli_spool(spool), json_pack("{s:s}", "cmd", "status"), &answer);
    if (code != HKY_EXIT_GOOD)
        return code;
    if (args.is_json)
        return hky_cli_print_json(answer);
    print_status(answer);
    json_decref(answer);
    return HKY_EXIT_GOOD;
}

const struct hky_cli_command hky_cli_status = {
    .name = "status",
    .args = "",
    .summary = "what the engine is doing",
    .options = options,
    .run = run,
};

static int run_reload(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    const char *value, *spool = NULL;
    json_t *answer;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while (hky_cli_next(&args, &value) != NULL)
        spool = value;
    if ((code = hky_cli_args_done(&args, 0, 0)) >= 0)
        return code;
    code = hky_cli_ask(self->name, hky_cli_spool(spool), json_pack("{s:s}", "cmd", "reload"), &answer);
    if (code != HKY_EXIT_GOOD)
        return code;
    if (args.is_json)
        return hky_cli_print_json(answer);
    puts("the new policy is in force");
    json_decref(answer);
    return HKY_EXIT_GOOD;
}

const struct hky_cli_command hky_cli_reload = {
    .name = "reload",
    .args = "",
    .summary = "load the policy again; a bad file changes nothing",
    .help = "Recipients without a delivered copy are planned anew at their next attempt; parked ones are asked\n"
            "at once. Exit code 1: the file has errors, and the old policy stays in force. The event log is\n"
            "opened anew in any case, for logrotate.",
    .options = options,
    .run = run_reload,
};
