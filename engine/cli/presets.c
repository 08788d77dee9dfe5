/* presets: what is known about providers, with the source of every value. */
#include "cli/cli.h"
#include "hikyaku/route.h"

#include <stdio.h>

#define OUTPUT_MAX (1U << 20)

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
        fputs(hky_buf_z(&out), stdout);
        if (out.n > 0 && out.p[out.n - 1] != '\n')
            putchar('\n');
    } else {
        fprintf(stderr, "hikyaku presets: %s\n", e.text);
    }
    hky_buf_fini(&out);
    return err == HKY_OK ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

const struct hky_cli_command hky_cli_presets = {
    .name = "presets",
    .args = "[NAME]",
    .summary = "show the presets, or one with its values and their sources",
    .help = "A relay with `preset = NAME` takes these values; what the relay states itself wins.",
    .run = run,
};
