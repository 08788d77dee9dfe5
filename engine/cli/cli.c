#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

void hky_cli_args_init(struct hky_cli_args *a, const struct hky_cli_command *command, int argc, char **argv)
{
    *a = (struct hky_cli_args){.command = command, .argc = argc, .argv = argv};
    /* argv[0] is the subcommand; positionals are gathered from argv[0] on as they are met. */
    a->at = 1;
}

static const struct hky_cli_option common_options[] = {
    {"json", NULL, "print facts as JSON"},
    {"help", NULL, "print this help"},
    {NULL, NULL, NULL},
};

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

static void look_for_nearest(const struct hky_cli_option *table, struct hky_str name, unsigned *best,
                             const char **nearest)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++) {
        unsigned d = hky_str_distance(hky_str_z(o->name), name);
        if (d < *best) {
            *best = d;
            *nearest = o->name;
        }
    }
}

static void complain_of_option(struct hky_cli_args *a, struct hky_str name)
{
    const char *nearest = NULL;
    unsigned best = name.n < 4 ? 2 : 3;

    look_for_nearest(a->command->options, name, &best, &nearest);
    look_for_nearest(common_options, name, &best, &nearest);
    fprintf(stderr, "hikyaku %s: no option %s%.*s", a->command->name, name.n == 1 ? "-" : "--", HKY_STR_ARG(name));
    if (nearest != NULL)
        fprintf(stderr, "; did you mean %s%s?", nearest[1] == '\0' ? "-" : "--", nearest);
    fprintf(stderr, " (hikyaku %s --help lists them)\n", a->command->name);
    a->is_bad = true;
}

/* One word that begins with '-': its option with its value, or NULL after a complaint or a common one. */
static const char *take_option(struct hky_cli_args *a, char *word, const char **value)
{
    size_t dashes = word[1] == '-' ? 2 : 1;
    char *equals = strchr(word, '=');
    struct hky_str name = hky_str_of(word + dashes, (equals != NULL ? (size_t)(equals - word) : strlen(word)) - dashes);
    const struct hky_cli_option *o = find_option(a->command->options, name);

    if (o == NULL && find_option(common_options, name) != NULL && equals == NULL) {
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
    *value = "";
    if (o->value == NULL) {
        if (equals != NULL) {
            fprintf(stderr, "hikyaku %s: %s%s takes no value\n", a->command->name, dash(o), o->name);
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
        fprintf(stderr, "hikyaku %s: %s%s needs a value: %s%s %s\n", a->command->name, dash(o), o->name, dash(o),
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

int hky_cli_args_done(struct hky_cli_args *a, int min_positional, int max_positional)
{
    if (a->is_help) {
        hky_cli_print_help(a->command);
        return HKY_EXIT_GOOD;
    }
    if (a->is_bad)
        return HKY_EXIT_USAGE;
    if (a->n_positional < min_positional || a->n_positional > max_positional) {
        if (a->n_positional > max_positional)
            fprintf(stderr, "hikyaku %s: one word too many: %s\n", a->command->name, a->argv[max_positional]);
        fprintf(stderr, "usage: hikyaku %s%s%s   (hikyaku %s --help says more)\n", a->command->name,
                a->command->args[0] != '\0' ? " " : "", a->command->args, a->command->name);
        return HKY_EXIT_USAGE;
    }
    return -1;
}

#define HELP_COLUMNS 100
#define DOC_COLUMN   31

static void print_doc(const char *doc)
{
    int column = DOC_COLUMN;

    for (const char *p = doc; *p != '\0';) {
        int n = (int)strcspn(p, " ");

        if (column > DOC_COLUMN && column + 1 + n > HELP_COLUMNS) {
            printf("\n%*s", DOC_COLUMN, "");
            column = DOC_COLUMN;
        } else if (column > DOC_COLUMN) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n, p);
        column += n;
        p += n;
        p += strspn(p, " ");
    }
    putchar('\n');
}

static void print_options(const struct hky_cli_option *table)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s", dash(o), o->name, o->value != NULL ? " " : "",
                 o->value != NULL ? o->value : "");
        printf("  %-28s ", left);
        print_doc(o->doc);
    }
}

void hky_cli_print_help(const struct hky_cli_command *command)
{
    printf("usage: hikyaku %s%s%s\n\n%s\n\noptions:\n", command->name, command->args[0] != '\0' ? " " : "",
           command->args, command->summary);
    print_options(command->options);
    print_options(common_options);
    if (command->help != NULL)
        printf("\n%s\n", command->help);
}

bool hky_cli_is_terminal(void)
{
    return isatty(STDOUT_FILENO) == 1;
}

const char *hky_cli_colour(const char *name)
{
    static const struct {
        const char *name, *escape;
    } colours[] = {{"bold", "\033[1m"},    {"red", "\033[31m"}, {"green", "\033[32m"},
                   {"yellow", "\033[33m"}, {"dim", "\033[2m"},  {"off", "\033[0m"}};

    if (!hky_cli_is_terminal() || getenv("NO_COLOR") != NULL)
        return "";
    for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++)
        if (strcmp(name, colours[i].name) == 0)
            return colours[i].escape;
    return "";
}

/* Octets of the next character at z (left > 0), and whether a terminal may have it: no controls, no direction marks. */
static size_t next_character(const char *z, size_t left, wchar_t *c, bool *is_good)
{
    mbstate_t state = {0};
    size_t n = mbrtowc(c, z, left, &state);

    *is_good = n > 0 && n <= left && iswprint((wint_t)*c) != 0 && !(*c >= 0x202a && *c <= 0x202e) &&
               !(*c >= 0x2066 && *c <= 0x2069) && *c != 0x200e && *c != 0x200f;
    return n > 0 && n <= left ? n : 1;
}

void hky_cli_add_printable(struct hky_buf *out, struct hky_str s)
{
    while (s.n > 0) {
        wchar_t c;
        bool is_good;
        size_t n = next_character(s.p, s.n, &c, &is_good);

        if (is_good)
            hky_buf_add(out, s.p, n);
        else
            hky_buf_add_c(out, '?');
        s = hky_str_of(s.p + n, s.n - n);
    }
}

static char *printable(const char *z)
{
    struct hky_buf b;
    size_t n = strlen(z);
    char *out;

    hky_buf_init(&b, n + 1);
    hky_cli_add_printable(&b, hky_str_of(z, n));
    out = hky_strdup(hky_buf_z(&b));
    hky_buf_fini(&b);
    return out;
}

struct hky_cli_table {
    int n_columns;
    size_t n_rows, cap;
    char **cells; /* n_rows * n_columns */
};

struct hky_cli_table *hky_cli_table_new(int n_columns)
{
    struct hky_cli_table *t = hky_calloc(1, sizeof *t);

    t->n_columns = n_columns;
    return t;
}

void hky_cli_table_row(struct hky_cli_table *t, const char *const *cells)
{
    if (t->n_rows == t->cap) {
        t->cap = t->cap < 16 ? 16 : t->cap * 2;
        t->cells = (char **)hky_realloc((void *)t->cells, t->cap * (size_t)t->n_columns * sizeof *t->cells);
    }
    for (int i = 0; i < t->n_columns; i++)
        t->cells[t->n_rows * (size_t)t->n_columns + (size_t)i] = printable(cells[i] != NULL ? cells[i] : "");
    t->n_rows++;
}

/* Display columns of printable text: East Asian wide letters take two. */
static int display_width(const char *z)
{
    int width = 0;

    for (size_t left = strlen(z), n; left > 0; z += n, left -= n) {
        wchar_t c;
        bool is_good;

        n = next_character(z, left, &c, &is_good);
        width += is_good && wcwidth(c) > 0 ? wcwidth(c) : 0;
    }
    return width;
}

/* The last cell of a row that says something: nothing is padded behind it. */
static int last_cell(const struct hky_cli_table *t, size_t row)
{
    int last = t->n_columns - 1;

    while (last > 0 && t->cells[row * (size_t)t->n_columns + (size_t)last][0] == '\0')
        last--;
    return last;
}

void hky_cli_table_print(struct hky_cli_table **t)
{
    struct hky_cli_table *it = *t;
    int *widths = hky_calloc((size_t)it->n_columns, sizeof *widths);

    for (size_t row = 0; row < it->n_rows; row++)
        for (int i = 0; i < it->n_columns; i++) {
            int w = display_width(it->cells[row * (size_t)it->n_columns + (size_t)i]);
            if (w > widths[i])
                widths[i] = w;
        }
    for (size_t row = 0; row < it->n_rows; row++) {
        int last = last_cell(it, row);

        for (int i = 0; i <= last; i++) {
            const char *cell = it->cells[row * (size_t)it->n_columns + (size_t)i];
            fputs(row == 0 ? hky_cli_colour("bold") : "", stdout);
            fputs(cell, stdout);
            fputs(row == 0 ? hky_cli_colour("off") : "", stdout);
            if (i < last)
                printf("%*s", widths[i] - display_width(cell) + 2, "");
        }
        putchar('\n');
    }
    for (size_t i = 0; i < it->n_rows * (size_t)it->n_columns; i++)
        free(it->cells[i]);
    free(widths);
    free((void *)it->cells);
    free(it);
    *t = NULL;
}

const char *hky_cli_spool(const char *option)
{
    const char *env = getenv("HIKYAKU_SPOOL");

    if (option != NULL && option[0] != '\0')
        return option;
    return env != NULL && env[0] != '\0' ? env : "spool";
}

bool hky_cli_duration(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = strspn(text, "0123456789");
    uint64_t n;

    if (!hky_str_u64(hky_str_of(text, digits), UINT32_MAX, &n))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].unit) == 0) {
            *ms = (int64_t)n * units[i].ms;
            return true;
        }
    }
    return false;
}
