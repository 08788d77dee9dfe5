/* queue show: prints everything known about a recipient, for people; empty fields are left out. */
#include "cli/queue.h"

#include "base/duration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *hky_cli_row_text(const json_t *row, const char *key)
{
    const char *z = json_string_value(json_object_get(row, key));

    return z != NULL ? z : "";
}

static json_int_t number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

const char *hky_cli_row_next(const json_t *row, char out[48])
{
    json_int_t at = number(row, "next_at"); /* seconds since 1970 */
    int64_t left = at - (int64_t)time(NULL);
    const char *waits = hky_cli_row_text(row, "waits");
    char age[24] = "";

    if (at != 0 && left > 0)
        hky_duration_rough(left, age);
    snprintf(out, 48, "%s%s%.20s", age, age[0] != '\0' && waits[0] != '\0' ? " " : "", waits);
    return out;
}

/* ---- lines ---- */

static void print_line(const char *key, const char *value)
{
    struct hky_buf b;

    if (value[0] == '\0')
        return;
    hky_buf_init(&b, 1U << 20);
    hky_cli_add_printable(&b, hky_str_z(value));
    printf("%-12s %s\n", key, hky_buf_z(&b));
    hky_buf_fini(&b);
}

/* Prints sentences, broken at the width of the terminal. */
static void print_words(const char *key, const char *words)
{
    if (words[0] == '\0')
        return;
    printf("%-12s ", key);
    hky_cli_print_words(words, 13);
}

static void format_time(json_int_t sec, char out[32])
{
    time_t at = (time_t)sec;
    struct tm tm;

    localtime_r(&at, &tm); /* in the zone of TZ */
    strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
}

static void print_time(const char *key, json_int_t at)
{
    int64_t now = (int64_t)time(NULL);
    char when[32], age[24];

    if (at == 0)
        return;
    format_time(at, when);
    if (at > now)
        printf("%-12s %s (in %s)\n", key, when, hky_duration_rough(at - now, age));
    else
        printf("%-12s %s (%s ago)\n", key, when, hky_duration_rough(now - at, age));
}

/* Adds why the relay that is to send this mail does not send now. */
static void add_waits(const json_t *row, struct hky_buf *b)
{
    const char *waits = hky_cli_row_text(row, "waits"), *by = hky_cli_row_text(row, "goes_by");
    const char *relay = by[0] != '\0' ? by : hky_cli_row_text(row, "relay");

    if (strcmp(waits, "cap") == 0)
        hky_buf_printf(b, "the cap of relay \"%s\" is full", relay);
    else if (strcmp(waits, "paused") == 0 && json_is_true(json_object_get(row, "paused_by_policy")))
        hky_buf_printf(b, "relay \"%s\" is paused by the policy", relay);
    else if (strcmp(waits, "paused") == 0) {
        hky_buf_printf(b, "relay \"%s\" is paused (hikyaku relay list says why; hikyaku relay resume ", relay);
        hky_cli_add_word(b, relay);
        hky_buf_add_c(b, ')');
    } else if (strcmp(waits, "breaker") == 0)
        hky_buf_printf(b, "relay \"%s\" could not be reached", relay);
    else if (strcmp(waits, "slowed") == 0)
        hky_buf_printf(b, "relay \"%s\" asked for less mail", relay);
    else if (strcmp(waits, "disk") == 0)
        hky_buf_printf(b, "the disk of the spool takes no results (hikyaku status says more)");
}

static void print_next(const json_t *row)
{
    int64_t now = (int64_t)time(NULL), at = number(row, "next_at");
    char when[32] = "", age[24];
    struct hky_buf b;

    hky_buf_init(&b, 4096);
    if (at > now) {
        format_time(at, when);
        hky_buf_printf(&b, "%s (in %s)%s", when, hky_duration_rough(at - now, age),
                       hky_cli_row_text(row, "waits")[0] != '\0' ? ": " : "");
    }
    add_waits(row, &b);
    print_words(at > now ? "next try" : "waits", hky_buf_z(&b));
    hky_buf_fini(&b);
}

/* Prints which relay sends the mail when it is not the one that the step names. */
static void print_other_relay(const json_t *row)
{
    const char *by = hky_cli_row_text(row, "goes_by"), *step = "";
    const json_t *one;
    struct hky_buf b;
    size_t i;

    json_array_foreach (json_object_get(row, "plan"), i, one)
        if (json_is_true(json_object_get(one, "current")))
            step = hky_cli_row_text(one, "relay");
    if (by[0] == '\0')
        return;
    hky_buf_init(&b, 4096);
    hky_buf_printf(&b, "relay \"%s\" instead of \"%s\"", by, step);
    if (json_is_true(json_object_get(row, "by_policy"))) {
        hky_buf_add_z(&b, ": the policy says so");
    } else {
        hky_buf_add_z(&b, ", which is drained (hikyaku relay resume ");
        hky_cli_add_word(&b, step);
        hky_buf_add_z(&b, " ends that)");
    }
    print_words("sent by", hky_buf_z(&b));
    hky_buf_fini(&b);
}

/* Prints what the operator can do in this state. */
static void print_to_do(const json_t *row)
{
    static const struct {
        const char *state, *reason, *format; /* reason: how it begins */
    } table[] = {
        {"held", "engine.only_to",
         "add the recipient to engine.only_to, type hikyaku reload, then hikyaku queue release %s; hikyaku queue "
         "cancel "
         "%s removes it, and the sender gets no failure notice"},
        {"held", "",
         "hikyaku queue release %s lets it continue; hikyaku queue cancel %s removes it, and the sender gets "
         "no failure notice"},
        {"parked", "", "correct the policy and type hikyaku reload: the new policy decides at once"},
        {"undecided", "",
         "nothing has to be done; hikyaku queue retry %s asks the policy now, which repeats a look-up that failed more "
         "than 30 seconds ago"},
        {"deferred", "its attempts are used up",
         "it is not tried again, and its sender gets a failure notice when it expires; hikyaku queue cancel %s removes "
         "it now, without a notice"},
        {"deferred", "", "nothing has to be done; hikyaku queue retry %s tries it now"},
    };
    const char *state = hky_cli_row_text(row, "state"), *id = hky_cli_row_text(row, "id");
    const char *reason = hky_cli_row_text(row, "reason");

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct hky_buf b;

        if (strcmp(state, table[i].state) != 0 || strncmp(reason, table[i].reason, strlen(table[i].reason)) != 0)
            continue;
        hky_buf_init(&b, 1000);
        for (const char *p = table[i].format; *p != '\0'; p++)
            if (p[0] == '%' && p[1] == 's') {
                hky_buf_add_z(&b, id);
                p++;
            } else {
                hky_buf_add_c(&b, *p);
            }
        print_words("to do", hky_buf_z(&b));
        hky_buf_fini(&b);
        return;
    }
}

/* The time of held and parked mail does not run: it has no fixed time of expiry. */
static void print_expiry(const json_t *row)
{
    const char *state = hky_cli_row_text(row, "state");

    if (strcmp(state, "held") == 0)
        print_line("expires", "not while it is held");
    else if (strcmp(state, "parked") == 0)
        print_line("expires", "not while it is parked (engine.parked and its deadline limit that)");
    else if (strcmp(state, "undecided") == 0 && hky_cli_row_text(row, "route")[0] == '\0')
        print_line("expires", "as the route says that will be chosen");
    else
        print_time("expires", number(row, "expire_at"));
    print_time("deadline", number(row, "deadline_at"));
}

static void print_author(const json_t *row)
{
    const char *name = hky_cli_row_text(row, "author_name"), *address = hky_cli_row_text(row, "author");
    char text[1024], typed[HKY_CLI_ADDRESS];

    snprintf(text, sizeof text, name[0] != '\0' ? "%s <%s>" : "%s%s", name, hky_cli_address(hky_str_z(address), typed));
    print_words("from", text);
}

static void print_lists(const json_t *row)
{
    const json_t *value;
    const char *key;
    struct hky_buf b;
    size_t i;

    hky_buf_init(&b, 65536);
    json_array_foreach (json_object_get(row, "tags"), i, value)
        hky_buf_printf(&b, "%s%s", i > 0 ? ", " : "", json_string_value(value));
    print_words("tags", hky_buf_z(&b));
    hky_buf_clear(&b);
    json_object_foreach (json_object_get(row, "arms"), key, value)
        hky_buf_printf(&b, "%s%s: %s", b.n > 0 ? ", " : "", key, json_string_value(value));
    print_words("arms", hky_buf_z(&b));
    hky_buf_fini(&b);
}

static void print_message(const json_t *row)
{
    char text[64], sender[HKY_CLI_ADDRESS];

    print_author(row);
    print_line("sender", hky_cli_address(hky_str_z(hky_cli_row_text(row, "sender")), sender));
    print_words("subject", hky_cli_row_text(row, "subject"));
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT " octets", number(row, "size"));
    print_line("size", text);
    print_line("scenario", hky_cli_row_text(row, "scenario"));
    print_lists(row);
    print_line("ref", hky_cli_row_text(row, "ref"));
    print_line("login", hky_cli_row_text(row, "user"));
    print_line("client", hky_cli_row_text(row, "client"));
    print_words("message id", hky_cli_row_text(row, "message_id"));
}

/* ---- the plan ---- */

static void add_duration(struct hky_buf *b, const char *word, const json_t *sec)
{
    char age[24];

    if (sec != NULL)
        hky_buf_printf(b, "%s%s %s", b->n > 0 ? ", " : "", word, hky_duration_format(json_integer_value(sec), age));
}

static void print_step(const json_t *step)
{
    const json_t *class;
    struct hky_buf b, line;
    size_t i;

    hky_buf_init(&b, 4096);
    json_array_foreach (json_object_get(step, "on"), i, class)
        hky_buf_printf(&b, "%s%s", i > 0 ? " " : "on ", json_string_value(class));
    if (number(step, "tries") > 0)
        hky_buf_printf(&b, "%stries %" JSON_INTEGER_FORMAT, b.n > 0 ? ", " : "", number(step, "tries"));
    add_duration(&b, "within", json_object_get(step, "within_sec"));
    add_duration(&b, "wait", json_object_get(step, "wait_sec"));
    hky_buf_init(&line, 8192);
    hky_buf_printf(&line, "%s %" JSON_INTEGER_FORMAT " %s%s%s%s%s",
                   json_is_true(json_object_get(step, "current")) ? ">" : " ", number(step, "step"),
                   hky_cli_row_text(step, "relay"), hky_cli_row_text(step, "account")[0] != '\0' ? " as " : "",
                   hky_cli_row_text(step, "account"), b.n > 0 ? ": " : "", hky_buf_z(&b));
    print_line(number(step, "step") == 1 ? "plan" : "", hky_buf_z(&line));
    hky_buf_fini(&line);
    hky_buf_fini(&b);
}

static void print_plan(const json_t *row)
{
    const json_t *step;
    char where[600];
    size_t i;

    snprintf(where, sizeof where, "%.200s (%.300s:%" JSON_INTEGER_FORMAT ")", hky_cli_row_text(row, "route"),
             hky_cli_row_text(row, "plan_file"), number(row, "plan_line"));
    print_line("route", hky_cli_row_text(row, "plan_file")[0] != '\0' ? where : hky_cli_row_text(row, "route"));
    json_array_foreach (json_object_get(row, "plan"), i, step)
        print_step(step);
}

/* ---- attempts ---- */

static void print_past(const json_t *row)
{
    const json_t *past = json_object_get(row, "past"), *a;
    json_int_t n = number(row, "attempts"), kept = (json_int_t)json_array_size(past);
    struct hky_cli_table *t;
    size_t i;

    printf("%-12s %" JSON_INTEGER_FORMAT, "attempts", n);
    if (n > kept && kept > 0)
        printf("; the last %" JSON_INTEGER_FORMAT " are shown, the event log has them all", kept);
    putchar('\n');
    if (kept == 0)
        return;
    putchar('\n');
    t = hky_cli_table_new(7);
    hky_cli_table_row(t, (const char *const[]){"TIME", "STEP", "RELAY", "STAGE", "CLASS", "TOOK", "REPLY"});
    json_array_foreach (past, i, a) {
        char when[32], step[24], took[24] = "", reply[400], code[24] = "";
        const char *enhanced = hky_cli_row_text(a, "enhanced");

        format_time(number(a, "at"), when);
        snprintf(step, sizeof step, "%" JSON_INTEGER_FORMAT, number(a, "step"));
        if (number(a, "latency_ms") > 0)
            snprintf(took, sizeof took, "%" JSON_INTEGER_FORMAT " ms", number(a, "latency_ms"));
        if (number(a, "code") > 0)
            snprintf(code, sizeof code, "%" JSON_INTEGER_FORMAT " ", number(a, "code"));
        snprintf(reply, sizeof reply, "%s%s%s%.300s", code, enhanced, enhanced[0] != '\0' ? " " : "",
                 hky_cli_row_text(a, "reply"));
        hky_cli_table_row(t,
                          (const char *const[]){when, step, hky_cli_row_text(a, "relay"), hky_cli_row_text(a, "stage"),
                                                hky_cli_row_text(a, "class"), took, reply});
    }
    hky_cli_table_print(&t);
}

/* Printed when no row matches: a finished recipient is no longer in the queue. */
static void print_ended(const struct hky_cli_answer *a)
{
    char text[700];

    if (a->word == NULL || strstr(a->chosen, " --") != NULL) { /* with options, the message itself may be there */
        puts("No recipient in the queue matches.");
        return;
    }
    snprintf(text, sizeof text,
             "%.40s is not in the queue: it is finished, or no message has this id. What became of it is in the event "
             "log:\n"
             "  grep %.40s %.400s/events.jsonl*",
             a->word, a->word, a->spool);
    hky_cli_print_text(text, 0);
}

void hky_cli_print_stories(const struct hky_cli_answer *a)
{
    const json_t *rows = json_object_get(a->json, "rows"), *row;
    const char *zone = hky_cli_row_text(a->json, "timezone");
    char rcpt[HKY_CLI_ADDRESS];
    size_t i;

    hky_cli_use_zone(zone, a->is_utc);
    json_array_foreach (rows, i, row) {
        if (i > 0)
            putchar('\n');
        print_line("id", hky_cli_row_text(row, "id"));
        print_line("recipient", hky_cli_address(hky_str_z(hky_cli_row_text(row, "rcpt")), rcpt));
        print_line("state", hky_cli_row_text(row, "state"));
        print_words("reason", hky_cli_row_text(row, "reason"));
        print_next(row);
        print_other_relay(row);
        print_to_do(row);
        print_time("accepted", number(row, "accepted_at"));
        print_expiry(row);
        print_line("times in", hky_cli_zone_name(zone, a->is_utc));
        print_message(row);
        print_plan(row);
        print_past(row);
    }
    if (json_array_size(rows) == 0)
        print_ended(a);
}
