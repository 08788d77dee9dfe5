#include "base/log.h"
#include "cli/cli.h"
#include "hikyaku/engine.h"

#include <signal.h>
#include <stdio.h>

static const struct hky_cli_option options[] = {
    {"spool", "DIR", "keep the journal in DIR instead of engine.spool"},
    {"log", "LEVEL", "what to log to standard error: error, warn, info or debug (default: engine.log, else info)"},
    {NULL, NULL, NULL},
};

static void print_problems(const struct hky_problems *problems, const char *path)
{
    struct hky_buf line;

    hky_buf_init(&line, 4096);
    for (size_t i = 0; i < problems->n; i++) {
        hky_buf_clear(&line);
        hky_cli_add_problem(&line, path, &problems->items[i]);
        hky_cli_put(stderr, hky_buf_z(&line));
        fputc('\n', stderr);
    }
    hky_buf_fini(&line);
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_engine_params params = {.log_fd = 2};
    struct hky_problems problems = {0};
    struct hky_engine *engine = NULL;
    struct hky_error e = {0};
    struct hky_cli_args args;
    sigset_t reloads;
    const char *value;
    enum hky_log_level level;
    enum hky_err err;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    for (const char *name; (name = hky_cli_next(&args, &value)) != NULL;)
        if (strcmp(name, "spool") == 0)
            params.spool = value;
        else
            params.log_level = value;
    if ((code = hky_cli_args_done(&args, 1, 1)) >= 0)
        return code;
    if (params.log_level != NULL && !hky_log_level_parse(hky_str_z(params.log_level), &level)) {
        hky_cli_printf(stderr, "hikyaku run: --log takes error, warn, info or debug, not \"%s\"\n", params.log_level);
        return HKY_EXIT_USAGE;
    }
    params.policy_path = argv[0];
    /* SIGHUP is blocked while the journal is read, which may take long: a reload waits until the engine runs. */
    sigemptyset(&reloads);
    sigaddset(&reloads, SIGHUP);
    sigprocmask(SIG_BLOCK, &reloads, NULL);
    err = hky_engine_new(&params, &engine, &problems, &e);
    print_problems(&problems, argv[0]);
    hky_problems_fini(&problems);
    if (err == HKY_OK)
        err = hky_engine_run(engine, &e);
    /* The engine no longer handles SIGHUP: without this, one would end the process in its last steps. */
    sigprocmask(SIG_BLOCK, &reloads, NULL);
    hky_engine_free(&engine);
    if (err == HKY_OK)
        return HKY_EXIT_GOOD;
    if (e.text[0] != '\0')
        hky_cli_printf(stderr, "hikyaku run: %s\n", e.text);
    return HKY_EXIT_NO;
}

const struct hky_cli_command hky_cli_run = {
    .name = "run",
    .args = "POLICY",
    .summary = "run the engine in the foreground",
    .help =
        "SIGHUP and `hikyaku reload` load the policy again (a bad file changes nothing) and open the event log again. "
        "SIGTERM and SIGINT finish the transactions under way and stop the engine; a second signal ends it within 5 "
        "seconds. "
        "Every message that was answered with 250 is on disk, and its delivery goes on at the next start.\n"
        "\n"
        "Exit code 1: the engine could not start; the reason is printed.",
    .options = options,
    .has_no_json = true,
    .run = run,
};
