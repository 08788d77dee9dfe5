#include "cli/operate.h"

#include "base/duration.h"

#include <stdio.h>
#include <time.h>

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "the engine's spool (default: $HIKYAKU_SPOOL, else ./spool)"},
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
                                      left > 0 ? hky_duration_rough(left, age) : "");
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

/* Prints the state of the relay now, which may differ from what the command asked for. */
static void print_relay(const json_t *relay)
{
    const char *state = json_string_value(json_object_get(relay, "state"));
    char note[400], text[800];

    hky_cli_relay_note(relay, note);
    snprintf(text, sizeof text, "%.300s: %s%s%s", json_string_value(json_object_get(relay, "relay")),
             strcmp(state, "ok") == 0 ? "it may send" : state, note[0] != '\0' ? ", " : "", note);
    hky_cli_print_words(text, 0);
}

static int print(const struct hky_cli_answer *a, bool is_quiet)
{
    if (is_quiet)
        return HKY_EXIT_GOOD;
    if (strcmp(a->action, "list") == 0)
        print_relays(json_object_get(a->json, "relays"));
    else if (strcmp(a->action, "resume") == 0)
        hky_cli_printf(stdout, "%s: resumed\n", a->word);
    else
        print_relay(a->json);
    return HKY_EXIT_GOOD;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    return hky_cli_operate(self, argc, argv, print);
}

const struct hky_cli_command hky_cli_relay = {
    .name = "relay",
    .args = "[ACTION] [NAME]",
    .summary = "list the relays, pause or resume one, or drain it to another",
    .group = "relay",
    .help = "Without an action the relays are listed. A pause or a drain is kept over restarts until the relay is "
            "resumed or --for is over; a new one takes the place of the last. The mail of a paused relay waits, or "
            "takes the next step of its plan. Examples:\n"
            "  hikyaku relay pause rental --for 2h\n"
            "  hikyaku relay drain gmail --to ses\n"
            "  hikyaku relay resume gmail",
    .options = options,
    .run = run,
};
