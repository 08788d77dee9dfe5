#include "cli/ask.h"

#include <stdio.h>
#include <time.h>

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "the engine's spool (default: $HIKYAKU_SPOOL, else ./spool)"},
    {"to", "RELAY", "drain: the relay that its mail goes by, with that relay's From rule"},
    {"for", "DURATION", "pause, drain: only so long (90s 10m 2h 3d); else until resumed"},
    {NULL, NULL, NULL},
};

static void print_relays(const json_t *relays)
{
    struct hky_cli_table *t = hky_cli_table_new(7);
    const json_t *relay;
    size_t i;

    hky_cli_table_row(t, (const char *const[]){"RELAY", "ACCOUNT", "STATE", "QUEUED", "DEFERRED", "CAPS", "NOTE"});
    json_array_foreach (relays, i, relay) {
        char queued[24], deferred[24], caps[256] = "", note[400];
        const json_t *cap;
        size_t k, n = 0;

        json_array_foreach (json_object_get(relay, "caps"), k, cap) {
            int64_t left = json_integer_value(json_object_get(cap, "next_at")) - (int64_t)time(NULL);
            char age[24];

            if (n < sizeof caps)
                n += (size_t)snprintf(caps + n, sizeof caps - n, "%s%" JSON_INTEGER_FORMAT " of %s%s%s",
                                      k > 0 ? "; " : "", json_integer_value(json_object_get(cap, "used")),
                                      json_string_value(json_object_get(cap, "cap")), left > 0 ? ", next in " : "",
                                      left > 0 ? hky_cli_age(left, age) : "");
        }
        hky_cli_table_row(t, (const char *const[]){json_string_value(json_object_get(relay, "relay")),
                                                   json_string_value(json_object_get(relay, "account")),
                                                   json_string_value(json_object_get(relay, "state")),
                                                   hky_cli_count(relay, "queued", queued),
                                                   hky_cli_count(relay, "deferred", deferred), caps,
                                                   hky_cli_relay_note(relay, note)});
    }
    hky_cli_table_print(&t);
}

/* False after a complaint. */
static bool is_sensible(const char *action, int n_words, bool has_to, bool has_for)
{
    bool is_list = strcmp(action, "list") == 0, is_drain = strcmp(action, "drain") == 0;

    if (!is_list && !is_drain && strcmp(action, "pause") != 0 && strcmp(action, "resume") != 0)
        fprintf(stderr, "hikyaku relay: no action \"%s\": list, pause, resume, drain\n", action);
    else if (!is_list && n_words != 2)
        fprintf(stderr, "hikyaku relay %s: which? %s NAME (hikyaku relay list shows them)\n", action, action);
    else if (has_to && !is_drain)
        fprintf(stderr, "hikyaku relay %s: --to belongs to drain\n", action);
    else if (has_for && !is_drain && strcmp(action, "pause") != 0)
        fprintf(stderr, "hikyaku relay %s: --for belongs to pause and drain\n", action);
    else
        return true;
    return false;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    const char *value, *spool = NULL, *to = NULL, *name, *action;
    int64_t for_ms = 0;
    json_t *answer, *request;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while ((name = hky_cli_next(&args, &value)) != NULL) {
        if (strcmp(name, "spool") == 0) {
            spool = value;
        } else if (strcmp(name, "to") == 0) {
            to = value;
        } else if (!hky_cli_duration(value, &for_ms)) {
            fprintf(stderr, "hikyaku relay: --for takes 90s, 10m, 2h or 3d, not \"%s\"\n", value);
            return HKY_EXIT_USAGE;
        }
    }
    if ((code = hky_cli_args_done(&args, 0, 2)) >= 0)
        return code;
    action = args.n_positional > 0 ? argv[0] : "list";
    if (!is_sensible(action, args.n_positional, to != NULL, for_ms > 0))
        return HKY_EXIT_USAGE;
    request = json_pack("{s:s, s:s, s:I}", "cmd", "relay", "action", action, "for_sec", (json_int_t)(for_ms / 1000));
    if (args.n_positional == 2)
        json_object_set_new(request, "name", json_string(argv[1]));
    if (to != NULL)
        json_object_set_new(request, "to", json_string(to));
    if ((code = hky_cli_ask(self->name, hky_cli_spool(spool), request, &answer)) != HKY_EXIT_GOOD)
        return code;
    if (args.is_json)
        return hky_cli_print_json(answer);
    if (strcmp(action, "list") == 0)
        print_relays(json_object_get(answer, "relays"));
    else
        printf("%s: %s%s%s\n", argv[1],
               strcmp(action, "pause") == 0    ? "paused"
               : strcmp(action, "resume") == 0 ? "resumed"
                                               : "drained",
               to != NULL ? ", its mail goes by " : "", to != NULL ? to : "");
    json_decref(answer);
    return HKY_EXIT_GOOD;
}

const struct hky_cli_command hky_cli_relay = {
    .name = "relay",
    .args = "list | pause NAME | resume NAME | drain NAME [--to OTHER]",
    .summary = "the relays: list, pause, resume, drain to another",
    .help = "What is said here is kept over restarts, until resumed or until --for is over. A paused relay's\n"
            "mail waits, or goes the next way of its plan; a drained one's goes by OTHER. Examples:\n"
            "  hikyaku relay pause rental --for 2h\n"
            "  hikyaku relay drain gmail --to ses\n"
            "  hikyaku relay resume gmail",
    .options = options,
    .run = run,
};
