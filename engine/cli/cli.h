/*
 * cli -- the subcommands, each in a file of its own and with the same interface. Exit codes: 0 good, 1 the answer is
 * no, 2 wrong usage, 3 could not ask.
 */
#ifndef HKY_CLI_CLI_H
#define HKY_CLI_CLI_H

#include "base/buf.h"
#include "base/error.h"

#include <stdio.h>

enum { HKY_EXIT_GOOD, HKY_EXIT_NO, HKY_EXIT_USAGE, HKY_EXIT_UNREACHED };

/* One option: "--to ADDRESS". `value` NULL: a switch. */
struct hky_cli_option {
    const char *name;  /* "to" for --to; one letter for -n */
    const char *value; /* "ADDRESS", or NULL */
    const char *doc;   /* one line of help */
    bool is_many;      /* may be given several times */
};

struct hky_cli_command {
    const char *name;
    const char *args;                     /* "POLICY RELAY..." */
    const char *summary;                  /* one line */
    const char *help;                     /* paragraphs and examples under the options, or NULL */
    const struct hky_cli_option *options; /* ended by name NULL; --help and --json need no entry */
    bool has_no_json;                     /* it prints nothing that --json could change */
    const char *group; /* of the engine's commands ("queue"): their arguments are options, too; NULL: none */
    int (*run)(const struct hky_cli_command *self, int argc, char **argv); /* argv[0] is the subcommand's name */
};
extern const struct hky_cli_command hky_cli_run, hky_cli_check, hky_cli_explain, hky_cli_probe, hky_cli_send,
    hky_cli_queue, hky_cli_relay, hky_cli_status, hky_cli_reload, hky_cli_presets, hky_cli_sink, hky_cli_load;

/* The options of a command with those of its group. Valid while `room` is. */
#define HKY_CLI_OPTIONS_MAX 40
struct hky_cli_options {
    struct hky_cli_option items[HKY_CLI_OPTIONS_MAX];
    char names[HKY_CLI_OPTIONS_MAX][24], docs[HKY_CLI_OPTIONS_MAX][200];
};
const struct hky_cli_option *hky_cli_options(const struct hky_cli_command *c, struct hky_cli_options *room);

extern const struct hky_cli_option hky_cli_common_options[];

/* Walks the options by the command's table: returns the option's name and sets *value ("" for switches); NULL when
 * there are none left, then positionals are in args->argv[0..argc). --name=value and --name value are the same; "--"
 * ends the options. For an unknown option, an empty value, or an option given twice that is not is_many, it prints the
 * error and sets is_bad. --help sets is_help. */
struct hky_cli_args {
    const struct hky_cli_command *command;
    const struct hky_cli_option *options; /* command->options, or the result of hky_cli_options */
    int argc, at;
    char **argv; /* positionals are moved to the front as they are met */
    int n_positional;
    uint64_t given; /* bit n: option n was given */
    bool is_json, is_help, is_bad;
};
void hky_cli_args_init(struct hky_cli_args *a, const struct hky_cli_command *command, int argc, char **argv);
const char *hky_cli_next(struct hky_cli_args *a, const char **value);
/* After the walk: exit code to return at once, or -1 to go on; checks the number of positionals. */
int hky_cli_args_done(struct hky_cli_args *a, int min_positional, int max_positional);

/* Prints an error about an unexpected argument (NULL: a missing one) and the usage line. */
void hky_cli_complain_of_word(const struct hky_cli_command *command, const char *word);

/* For "%lu message%s". */
#define HKY_CLI_COUNT(n) (unsigned long)(n), (n) == 1 ? "" : "s"

/* Prints usage, summary, options and help of the subcommand to stdout. */
void hky_cli_print_help(const struct hky_cli_command *command);
/* Columns that a line may have: the terminal's, else $COLUMNS, else 80; 40 to 200. */
int hky_cli_width(void);
/* Prints paragraphs broken between words at hky_cli_width(), `indent` columns to the right. A line that begins with a
 * blank is an example and is not changed; a line that ends in ':' ends its paragraph; an empty line is kept. */
void hky_cli_print_text(const char *text, int indent);
/* An address as it is typed: quoted where it has blanks or other special characters, so that none of them looks like
 * a column of its own. */
#define HKY_CLI_ADDRESS 700
const char *hky_cli_address(struct hky_str canonical, char out[HKY_CLI_ADDRESS]);
/* Adds a word as it is typed in a shell: with quotes where it needs them. */
void hky_cli_add_word(struct hky_buf *b, const char *word);
/* Continues a line that has `indent` columns already; the lines that follow begin in that column. */
void hky_cli_print_words(const char *text, int indent);
bool hky_cli_is_terminal(void); /* stdout: colours and progress bars only there; NO_COLOR is honoured */
/* "bold" "red" "green" "yellow" "dim" "off" as an escape, or "" when not on a terminal. */
const char *hky_cli_colour(const char *name);
/* Text of peers for a terminal: "?" for controls, direction marks and octets that are not UTF-8. */
void hky_cli_add_printable(struct hky_buf *out, struct hky_str s);
/* The same, printed. */
void hky_cli_put(FILE *to, const char *text);
/* The same for formatted text; line ends at the end of the format are printed as they are. */
void hky_cli_printf(FILE *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds the folder that makes `file`, a name relative to the policy's folder, a path from the current one: nothing where
 * the policy is in the current folder or `file` is absolute. `policy` is its path as it was given. */
void hky_cli_add_place(struct hky_buf *out, const char *policy, const char *file);
/* "DIR/policy.lua:3: error: ...", with such a path. */
struct hky_problem;
void hky_cli_add_problem(struct hky_buf *out, const char *policy, const struct hky_problem *problem);
/* Columns aligned by display width (East Asian wide = 2). Cells are copied, and made printable. Where a row is wider
 * than hky_cli_width(), its last cell is broken between words in its column; a cell without room gets a new line. */
struct hky_cli_table;
struct hky_cli_table *hky_cli_table_new(int n_columns);
void hky_cli_table_row(struct hky_cli_table *t, const char *const *cells);
void hky_cli_table_print(struct hky_cli_table **t); /* prints to stdout and frees */
/* --spool DIR, else $HIKYAKU_SPOOL, else "spool". */
const char *hky_cli_spool(const char *option);
/* Reads the value of `option` ("n" for -n) as a number; false: an error was printed. */
bool hky_cli_number(const struct hky_cli_command *command, const char *option, const char *text, uint64_t min,
                    uint64_t max, uint64_t *out);
/* Is the text ADDR:PORT? If not, prints an error and returns false. */
bool hky_cli_is_server(const struct hky_cli_command *command, const char *text);

#endif
