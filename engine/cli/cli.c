#include "base/endpoint.h"
#include "base/nearest.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void hky_cli_args_init(struct hky_cli_args *a, const struct hky_cli_command *command, int argc, char **argv)
{
    *a = (struct hky_cli_args){.command = command, .options = command->options, .argc = argc, .argv = argv};
    /* argv[0] is the subcommand; positionals are gathered from argv[0] on as they are met. */
    a->at = 1;
}

static const char *dash(const struct hky_cli_option *o)
{
    return o->name[1] == '\0' ? "-" : "--";
}

static const struct hky_cli_option *find_option(const struct hky_cli_option *table, struct hky_str name)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++)
        if (hky_str_eq(hky_str_z(o->name), name))
            return o;
    return NULL;
}

static void consider_options(const struct hky_cli_option *table, struct hky_nearest_name *near)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++)
        hky_nearest_consider(near, o->name);
}

static void complain_of_option(struct hky_cli_args *a, struct hky_str name)
{
    struct hky_nearest_name near = hky_nearest_to(name);

    consider_options(a->options, &near);
    consider_options(hky_cli_common_options, &near);
    hky_cli_printf(stderr, "hikyaku %s: no option %s%.*s", a->command->name, name.n == 1 ? "-" : "--",
                   HKY_STR_ARG(name));
    if (near.name != NULL)
        fprintf(stderr, "; did you mean %s%s?", near.name[1] == '\0' ? "-" : "--", near.name);
    hky_cli_printf(stderr, " (hikyaku %s --help lists them)\n", a->command->name);
    a->is_bad = true;
}

/* An option given twice is refused, because otherwise one of its values would be ignored silently. */
static bool is_first(struct hky_cli_args *a, const struct hky_cli_option *o)
{
    uint64_t bit = UINT64_C(1) << (o - a->options);

    HKY_ASSERT(o - a->options < 64);
    if ((a->given & bit) != 0 && !o->is_many && o->value != NULL) {
        hky_cli_printf(stderr, "hikyaku %s: %s%s is given twice\n", a->command->name, dash(o), o->name);
        a->is_bad = true;
        return false;
    }
    a->given |= bit;
    return true;
}

/* Takes a word that begins with '-'. Returns the option's name and sets *value; NULL after an error, and after --help
 * or --json. */
static const char *take_option(struct hky_cli_args *a, char *word, const char **value)
{
    size_t dashes = word[1] == '-' ? 2 : 1;
    char *equals = strchr(word, '=');
    struct hky_str name = hky_str_of(word + dashes, (equals != NULL ? (size_t)(equals - word) : strlen(word)) - dashes);
    const struct hky_cli_option *o = find_option(a->options, name);

    if (o == NULL && find_option(hky_cli_common_options, name) != NULL && equals == NULL &&
        !(name.p[0] == 'j' && a->command->has_no_json)) {
        if (name.p[0] == 'j')
            a->is_json = true;
        else
            a->is_help = true;
        return NULL;
    }
    if (o == NULL) {
        complain_of_option(a, name);
        return NULL;
    }
    if (!is_first(a, o))
        return NULL;
    *value = "";
    if (o->value == NULL) {
        if (equals != NULL) {
            hky_cli_printf(stderr, "hikyaku %s: %s%s takes no value\n", a->command->name, dash(o), o->name);
            a->is_bad = true;
            return NULL;
        }
        return o->name;
    }
    if (equals != NULL) {
        *value = equals + 1;
    } else if (a->at < a->argc) {
        *value = a->argv[a->at++];
    } else {
        hky_cli_printf(stderr, "hikyaku %s: %s%s needs a value: %s%s %s\n", a->command->name, dash(o), o->name, dash(o),
                       o->name, o->value);
        a->is_bad = true;
        return NULL;
    }
    if (*value[0] == '\0') {
        hky_cli_printf(stderr, "hikyaku %s: %s%s is empty; say which %s, or leave it out\n", a->command->name, dash(o),
                       o->name, o->value);
        a->is_bad = true;
        return NULL;
    }
    return o->name;
}

const char *hky_cli_next(struct hky_cli_args *a, const char **value)
{
    while (a->at < a->argc && !a->is_bad) {
        char *word = a->argv[a->at++];

        if (strcmp(word, "--") == 0) {
            while (a->at < a->argc)
                a->argv[a->n_positional++] = a->argv[a->at++];
            break;
        }
        if (word[0] != '-' || word[1] == '\0') {
            a->argv[a->n_positional++] = word;
            continue;
        }
        const char *name = take_option(a, word, value);
        if (name != NULL)
            return name;
    }
    return NULL;
}

void hky_cli_complain_of_word(const struct hky_cli_command *command, const char *word)
{
    if (word != NULL)
        hky_cli_printf(stderr, "hikyaku %s: unexpected argument \"%s\"\n", command->name, word);
    hky_cli_printf(stderr, "usage: hikyaku %s%s%s   (hikyaku %s --help says more)\n", command->name,
                   command->args[0] != '\0' ? " " : "", command->args, command->name);
}

int hky_cli_args_done(struct hky_cli_args *a, int min_positional, int max_positional)
{
    if (a->is_help) {
        hky_cli_print_help(a->command);
        return HKY_EXIT_GOOD;
    }
    if (a->is_bad)
        return HKY_EXIT_USAGE;
    if (a->n_positional < min_positional || a->n_positional > max_positional) {
        hky_cli_complain_of_word(a->command, a->n_positional > max_positional ? a->argv[max_positional] : NULL);
        return HKY_EXIT_USAGE;
    }
    return -1;
}

const char *hky_cli_spool(const char *option)
{
    const char *env = getenv("HIKYAKU_SPOOL");

    if (option != NULL && option[0] != '\0')
        return option;
    return env != NULL && env[0] != '\0' ? env : "spool";
}

bool hky_cli_number(const struct hky_cli_command *command, const char *option, const char *text, uint64_t min,
                    uint64_t max, uint64_t *out)
{
    if (hky_str_u64(hky_str_z(text), max, out) && *out >= min)
        return true;
    hky_cli_printf(stderr,
                   "hikyaku %s: \"%s\" is no value for %s%s, which takes a number from %" PRIu64 " to %" PRIu64 "\n",
                   command->name, text, option[1] == '\0' ? "-" : "--", option, min, max);
    return false;
}

bool hky_cli_is_server(const struct hky_cli_command *command, const char *text)
{
    char host[256];
    uint16_t port;

    if (hky_endpoint_parse(hky_str_z(text), host, &port) && port > 0)
        return true;
    hky_cli_printf(stderr, "hikyaku %s: the server is ADDR:PORT with a port from 1 to 65535, not \"%s\"\n",
                   command->name, text);
    return false;
}
