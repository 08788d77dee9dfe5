/* argv: which subcommand, or sendmail by the name the program was called with. */
#include "base/nearest.h"
#include "cli/cli.h"
#include "cli/manual.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct hky_cli_command *const commands[] = {
    &hky_cli_run,   &hky_cli_check,  &hky_cli_explain, &hky_cli_probe,   &hky_cli_send, &hky_cli_queue,
    &hky_cli_relay, &hky_cli_status, &hky_cli_reload,  &hky_cli_presets, &hky_cli_sink, &hky_cli_load,
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_usage(void)
{
    hky_cli_print_text("Hikyaku sends outgoing mail through the relay that your policy chooses.", 0);
    puts("\nusage: hikyaku COMMAND ...\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        printf("  %-8s ", commands[i]->name);
        hky_cli_print_words(commands[i]->summary, 11);
    }
    putchar('\n');
    hky_cli_print_text("`hikyaku COMMAND --help` says more about a command; `hikyaku --version` prints the version.",
                       0);
}

static const struct hky_cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i]->name) == 0)
            return commands[i];
    return NULL;
}

static int complain_of_command(const char *name)
{
    struct hky_nearest_name near = hky_nearest_to(hky_str_z(name));

    if (name[0] == '-') {
        hky_cli_printf(stderr, "hikyaku: %s: an option is written behind its command: hikyaku COMMAND %s ...\n", name,
                       name);
        return HKY_EXIT_USAGE;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        hky_nearest_consider(&near, commands[i]->name);
    hky_cli_printf(stderr, "hikyaku: no command %s", name);
    if (near.name != NULL)
        fprintf(stderr, "; did you mean %s?", near.name);
    fputs(" (hikyaku --help lists them)\n", stderr);
    return HKY_EXIT_USAGE;
}

/* `help` and `help COMMAND` are `--help` and `COMMAND --help`. */
static int help(const char *name)
{
    const struct hky_cli_command *command = name != NULL ? find_command(name) : NULL;

    if (name != NULL && command == NULL)
        return complain_of_command(name);
    if (command != NULL)
        hky_cli_print_help(command);
    else
        print_usage();
    return HKY_EXIT_GOOD;
}

/* A reader such as `head` that has enough is no failure. */
static bool has_reader_left(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) != 0;
}

/* An answer of which a part is missing, on a full disk say, must not look like a whole one. */
static int output_checked(int code)
{
    int cause = fflush(stdout) != 0 ? errno : 0;

    if ((cause == 0 && !ferror(stdout)) || has_reader_left())
        return code;
    fprintf(stderr, "hikyaku: the answer could not be written to standard output%s%s\n", cause != 0 ? ": " : "",
            cause != 0 ? strerror(cause) : "");
    return HKY_EXIT_UNREACHED;
}

static int run_command(int argc, char **argv)
{
    const struct hky_cli_command *command;

    if (argc < 2) {
        fputs("usage: hikyaku COMMAND ...   (hikyaku --help lists the commands)\n", stderr);
        return HKY_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return help(argc > 2 ? argv[2] : NULL);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        puts("hikyaku " HKY_VERSION);
        return HKY_EXIT_GOOD;
    }
    if (strcmp(argv[1], "--manual") == 0)
        return hky_cli_manual(commands, N_COMMANDS, argc > 2 ? argv[2] : "");
    command = find_command(argv[1]);
    if (command != NULL) {
        signal(SIGXFSZ, SIG_IGN);
        return command->run(command, argc - 1, argv + 1);
    }
    return complain_of_command(argv[1]);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *called = slash != NULL ? slash + 1 : argv[0];
    int code;

    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(called, "sendmail") == 0 || strcmp(called, "mailq") == 0)
        return hky_cli_send.run(&hky_cli_send, argc, argv);
    code = run_command(argc, argv);
    /* A message that was queued must not look refused: the program would send it again. */
    return argc > 1 && find_command(argv[1]) == &hky_cli_send ? code : output_checked(code);
}
