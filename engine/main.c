/* argv: which subcommand, or sendmail by the name the program was called with. */
#include "cli/cli.h"
#include "cli/manual.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const struct hky_cli_command *const commands[] = {
    &hky_cli_run,   &hky_cli_check,  &hky_cli_explain, &hky_cli_probe,   &hky_cli_send, &hky_cli_queue,
    &hky_cli_relay, &hky_cli_status, &hky_cli_reload,  &hky_cli_presets, &hky_cli_sink, &hky_cli_load,
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_usage(FILE *to)
{
    fputs("Hikyaku carries outgoing mail by the relay that your policy chooses.\n\nusage: hikyaku COMMAND ...\n\n", to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nhikyaku COMMAND --help says more; hikyaku --version prints the version.\n", to);
}

static int complain_of_command(const char *name)
{
    const char *nearest = NULL;
    unsigned best = strlen(name) < 4 ? 2 : 3;

    for (size_t i = 0; i < N_COMMANDS; i++) {
        unsigned d = hky_str_distance(hky_str_z(commands[i]->name), hky_str_z(name));
        if (d < best) {
            best = d;
            nearest = commands[i]->name;
        }
    }
    fprintf(stderr, "hikyaku: no command %s", name);
    if (nearest != NULL)
        fprintf(stderr, "; did you mean %s?", nearest);
    fputs(" (hikyaku --help lists them)\n", stderr);
    return HKY_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *called = slash != NULL ? slash + 1 : argv[0];

    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(called, "sendmail") == 0 || strcmp(called, "mailq") == 0)
        return hky_cli_send.run(&hky_cli_send, argc, argv);
    if (argc < 2) {
        print_usage(stderr);
        return HKY_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return HKY_EXIT_GOOD;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        puts("hikyaku " HKY_VERSION);
        return HKY_EXIT_GOOD;
    }
    if (strcmp(argv[1], "--manual") == 0)
        return hky_cli_manual(commands, N_COMMANDS, argc > 2 ? argv[2] : "");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            signal(SIGXFSZ, SIG_IGN);
            return commands[i]->run(commands[i], argc - 1, argv + 1);
        }
    }
    return complain_of_command(argv[1]);
}
