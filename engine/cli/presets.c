/* presets: prints what is known about providers, with the source of every value. */
#include "cli/cli.h"
#include "hikyaku/route.h"

#include <stdio.h>
#include <stdlib.h>

#define OUTPUT_MAX (1U << 20)

/* Prints "  key = value  -- source"; where that is too wide, the source is on the next line. */
static void print_line(char *line)
{
    char *source = line[0] == ' ' ? strstr(line, "  -- ") : NULL;

    if (source == NULL || (int)strlen(line) <= hky_cli_width()) {
        hky_cli_print_words(line, line[0] == ' ' ? 4 : 0);
        return;
    }
    *source = '\0';
    hky_cli_put(stdout, line);
    printf("\n      -- ");
    hky_cli_print_words(source + 5, 9);
}

static void print_lines(const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        char *line = hky_str_dup(hky_str_of(text, n));

        print_line(line);
        free(line);
        text += text[n] == '\n' ? n + 1 : n;
    }
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    struct hky_cli_args args;
    struct hky_error e = {0};
    struct hky_buf out;
    const char *value;
    enum hky_err err;
    int code;

    hky_cli_args_init(&args, self, argc, argv);
    while (hky_cli_next(&args, &value) != NULL)
        ;
    if ((code = hky_cli_args_done(&args, 0, 1)) >= 0)
        return code;
    hky_buf_init(&out, OUTPUT_MAX);
    err = hky_presets_print(args.n_positional > 0 ? argv[0] : NULL, args.is_json, &out, &e);
    if (err == HKY_OK) {
        if (args.is_json)
            fputs(hky_buf_z(&out), stdout);
        else
            print_lines(hky_buf_z(&out));
        if (out.n > 0 && out.p[out.n - 1] != '\n')
            putchar('\n');
    } else {
        hky_cli_printf(stderr, "hikyaku presets: %s\n", e.text);
    }
    hky_buf_fini(&out);
    return err == HKY_OK ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

const struct hky_cli_command hky_cli_presets = {
    .name = "presets",
    .args = "[NAME]",
    .summary = "list the presets, or show one with its values and their sources",
    .help = "A relay with `preset = \"NAME\"` takes these values; a key that the relay states itself has priority.",
    .run = run,
};
