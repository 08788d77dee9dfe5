#include "cli/ask.h"

#include "base/duration.h"

#include "hikyaku/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ANSWER_MOST (128u << 20)

int hky_cli_ask(const char *command, const char *spool, json_t *request, json_t **answer)
{
    char *text = json_dumps(request, JSON_COMPACT);
    struct hky_error e = {0};
    struct hky_buf b;
    enum hky_err err;

    *answer = NULL;
    hky_buf_init(&b, ANSWER_MOST);
    err = hky_console_call(spool, hky_str_z(text), &b, &e);
    free(text);
    json_decref(request);
    if (err == HKY_OK && (*answer = json_loadb(hky_buf_str(&b).p, b.n, 0, NULL)) == NULL)
        err = hky_error_set(&e, HKY_E_SYNTAX, "the engine's answer is not JSON; is it another version?");
    hky_buf_fini(&b);
    if (err != HKY_OK) {
        hky_cli_printf(stderr, "hikyaku %s: %s\n", command, e.text);
        return HKY_EXIT_UNREACHED;
    }
    if (!json_is_true(json_object_get(*answer, "ok"))) {
        const json_t *why = json_object_get(*answer, "error");
        const char *code = json_string_value(json_object_get(why, "code"));
        bool is_usage = code != NULL && strcmp(code, "bad_request") == 0;
        struct hky_buf line;

        hky_buf_init(&line, 65536);
        hky_cli_add_printable(&line, hky_str_z(json_string_value(json_object_get(why, "message"))));
        hky_buf_add_z(&line, " (");
        hky_cli_add_printable(&line, hky_str_z(json_string_value(json_object_get(why, "hint"))));
        hky_buf_add_c(&line, ')');
        hky_cli_printf(stderr, "hikyaku %s: %s\n", command, hky_buf_z(&line));
        hky_buf_fini(&line);
        json_decref(*answer);
        *answer = NULL;
        return is_usage ? HKY_EXIT_USAGE : HKY_EXIT_NO;
    }
    return HKY_EXIT_GOOD;
}

int hky_cli_print_json(json_t *answer)
{
    json_object_del(answer, "ok");
    json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(answer);
    return HKY_EXIT_GOOD;
}

void hky_cli_use_zone(const char *zone, bool is_utc)
{
    if (is_utc)
        setenv("TZ", "UTC0", 1);
    else if (zone[0] != '\0')
        setenv("TZ", zone, 1);
    tzset();
}

const char *hky_cli_zone_name(const char *zone, bool is_utc)
{
    return is_utc ? "UTC" : zone[0] != '\0' ? zone : tzname[0];
}

const char *hky_cli_count(const json_t *from, const char *key, char out[24])
{
    snprintf(out, 24, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(from, key)));
    return out;
}

const char *hky_cli_relay_note(const json_t *relay, char out[400])
{
    const char *to = json_string_value(json_object_get(relay, "to"));
    const char *why = json_string_value(json_object_get(relay, "why"));
    int64_t left = json_integer_value(json_object_get(relay, "until")) - (int64_t)time(NULL);
    char age[24];
    const char *to_state = json_string_value(json_object_get(relay, "to_state"));
    int n = 0;

    out[0] = '\0';
    if (to != NULL && to[0] != '\0')
        n += snprintf(out, 400, "its mail is sent through \"%.120s\"", to);
    if (left > 0)
        n += snprintf(out + n, 400 - (size_t)n, "%sfor %s", n > 0 ? " " : "", hky_duration_rough(left, age));
    if (to != NULL && to[0] != '\0' && json_is_true(json_object_get(relay, "to_paused_by_policy"))) {
        n += snprintf(out + n, 400 - (size_t)n, ", which the policy pauses");
    } else if (to != NULL && to[0] != '\0' && to_state != NULL && strcmp(to_state, "paused") == 0) {
        struct hky_buf word;
        hky_buf_init(&word, 1024);
        hky_cli_add_word(&word, to);
        n += snprintf(out + n, 400 - (size_t)n, ", which is paused (hikyaku relay resume %.140s)", hky_buf_z(&word));
        hky_buf_fini(&word);
    } else if (to != NULL && to[0] != '\0' && to_state != NULL && strcmp(to_state, "broken") == 0)
        n += snprintf(out + n, 400 - (size_t)n, ", which cannot be reached now");
    else if (to != NULL && to[0] != '\0' && to_state != NULL && strcmp(to_state, "drained") == 0)
        n += snprintf(out + n, 400 - (size_t)n, ", which is drained, too");
    if (why != NULL && why[0] != '\0')
        snprintf(out + n, 400 - (size_t)n, "%s%.160s", n > 0 ? ": " : "", why);
    return out;
}
