/* The printing of all subcommands: help, paragraphs, tables and colours, at the width of the terminal. */
#include "cli/operate.h"
#include "mail/address.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#define WIDTH_MIN     40
#define WIDTH_MAX     200
#define WIDTH_DEFAULT 80
#define CELL_MIN      12 /* a last cell with fewer columns than this is moved to the next line, not broken */
#define LINES_MAX     3  /* a last cell that would need more lines than this is moved, too */

int hky_cli_width(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size = {0};
    uint64_t n = WIDTH_DEFAULT;

    if (isatty(STDOUT_FILENO) == 1 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        n = size.ws_col;
    else if (columns == NULL || !hky_str_u64(hky_str_z(columns), 100000, &n))
        n = WIDTH_DEFAULT;
    return n < WIDTH_MIN ? WIDTH_MIN : n > WIDTH_MAX ? WIDTH_MAX : (int)n;
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

/* Octets of the next character at z (left > 0), and whether it may be printed: no controls, no direction marks. */
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

void hky_cli_put(FILE *to, const char *text)
{
    char *safe = printable(text);

    fputs(safe, to);
    free(safe);
}

void hky_cli_printf(FILE *to, const char *fmt, ...)
{
    size_t n_lines = 0;
    char *text = NULL;
    va_list args;
    int made;

    va_start(args, fmt);
    made = vasprintf(&text, fmt, args);
    va_end(args);
    for (size_t n = strlen(fmt); n > 0 && fmt[n - 1] == '\n'; n--)
        n_lines++;
    HKY_ASSERT(made >= 0 && (size_t)made >= n_lines);
    text[(size_t)made - n_lines] = '\0';
    hky_cli_put(to, text);
    free(text);
    for (; n_lines > 0; n_lines--)
        putc('\n', to);
}

/* ---- paragraphs ---- */

/* Display columns of n octets of printable text: East Asian wide letters take two. */
static int width_of(const char *z, size_t left)
{
    int width = 0;

    for (size_t n; left > 0; z += n, left -= n) {
        wchar_t c;
        bool is_good;

        n = next_character(z, left, &c, &is_good);
        width += is_good && wcwidth(c) > 0 ? wcwidth(c) : 0;
    }
    return width;
}

/* May a line end in front of `c`? It may at a blank and beside a wide character (Japanese has no blanks), but not in
 * front of a closing mark or behind an opening one. */
static bool may_break(wchar_t before, wchar_t c)
{
    bool is_wide = wcwidth(c) == 2 || (before != 0 && wcwidth(before) == 2);

    return c == ' ' || (is_wide && before != 0 && before != ' ' && wcschr(L"、。，．）」』】：；？！ー々", c) == NULL &&
                        wcschr(L"（「『【", before) == NULL);
}

/* Returns where the next line begins. *n: octets of this line; a word that is too long stays whole. */
static char *break_line(char *z, int room, size_t *n)
{
    size_t at = 0, left = strlen(z);
    wchar_t before = 0, c;
    int width = 0;

    *n = 0;
    for (size_t k; left > 0; at += k, left -= k) {
        bool is_good;

        c = 0;
        k = next_character(z + at, left, &c, &is_good);
        if (may_break(before, c)) {
            if (width > room && *n > 0)
                return z + *n + strspn(z + *n, " ");
            *n = at;
            if (width > room)
                return z + at + strspn(z + at, " ");
        }
        width += is_good && wcwidth(c) > 0 ? wcwidth(c) : 0;
        before = c;
    }
    if (width <= room || *n == 0)
        *n = at;
    return z + *n + strspn(z + *n, " ");
}

void hky_cli_print_words(const char *text, int indent)
{
    int room = hky_cli_width() - indent;
    char *safe = printable(text), *z = safe;
    size_t n;

    if (*z == '\0')
        putchar('\n');
    while (*z != '\0') {
        char *next = break_line(z, room < CELL_MIN ? CELL_MIN : room, &n);
        printf("%.*s\n", (int)n, z);
        z = next;
        if (*z != '\0')
            printf("%*s", indent, "");
    }
    free(safe);
}

void hky_cli_print_text(const char *text, int indent)
{
    struct hky_buf paragraph;

    hky_buf_init(&paragraph, 1u << 20);
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        bool is_example = text[0] == ' ', is_end;

        if (is_example || n == 0) {
            char *line = hky_str_dup(hky_str_of(text, n));
            printf("%*s", n == 0 ? 0 : indent, "");
            hky_cli_put(stdout, line);
            putchar('\n');
            free(line);
        } else {
            hky_buf_printf(&paragraph, "%s%.*s", paragraph.n > 0 ? " " : "", (int)n, text);
        }
        is_end = text[n] == '\0' || text[n + 1] == '\0' || text[n + 1] == ' ' || text[n + 1] == '\n' ||
                 (n > 0 && text[n - 1] == ':');
        if (!is_example && is_end && paragraph.n > 0) {
            printf("%*s", indent, "");
            hky_cli_print_words(hky_buf_z(&paragraph), indent);
            hky_buf_clear(&paragraph);
        }
        text += text[n] == '\n' ? n + 1 : n;
    }
    hky_buf_fini(&paragraph);
}

/* ---- tables ---- */

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

/* The last cell of a row that is not empty: nothing is padded behind it. */
static int last_cell(const struct hky_cli_table *t, size_t row)
{
    int last = t->n_columns - 1;

    while (last > 0 && t->cells[row * (size_t)t->n_columns + (size_t)last][0] == '\0')
        last--;
    return last;
}

static const char *cell_of(const struct hky_cli_table *t, size_t row, int column)
{
    return t->cells[row * (size_t)t->n_columns + (size_t)column];
}

/* Sets where each column begins, the same for all rows, so that they align. -1: on the next line, at INDENT. */
#define INDENT 4
static void lay_out(const struct hky_cli_table *t, int *widths, int *starts)
{
    int at = 0, width = hky_cli_width(), last = t->n_columns - 1;

    for (size_t row = 0; row < t->n_rows; row++)
        for (int i = 0; i < t->n_columns; i++) {
            int w = width_of(cell_of(t, row, i), strlen(cell_of(t, row, i)));
            widths[i] = w > widths[i] ? w : widths[i];
        }
    for (int i = 0; i <= last; i++) {
        int room = width - at;
        bool has_room = widths[i] <= room || (i == last && room >= CELL_MIN && widths[i] <= LINES_MAX * room);

        starts[i] = at == 0 || has_room ? at : -1;
        at = (starts[i] < 0 ? INDENT : at) + widths[i] + 2;
    }
}

static void print_row(const struct hky_cli_table *t, size_t row, const int *starts)
{
    int last = last_cell(t, row), at = 0;
    bool is_at_start = false; /* at the start of a line, because a cell on lines of its own has ended the last */

    fputs(row == 0 ? hky_cli_colour("bold") : "", stdout);
    for (int i = 0; i <= last; i++) {
        const char *cell = cell_of(t, row, i);
        int start = starts[i] < 0 ? INDENT : starts[i];

        if (cell[0] == '\0' && i < last && starts[i + 1] < 0)
            continue;
        if (starts[i] < 0) {
            printf("%s%*s", is_at_start ? "" : "\n", INDENT, "");
            at = INDENT;
            is_at_start = false;
        }
        if (cell[0] == '\0' && i < t->n_columns - 1)
            continue;
        if (starts[i] < 0 && i < t->n_columns - 1 && width_of(cell, strlen(cell)) > hky_cli_width() - INDENT) {
            hky_cli_print_words(cell, start); /* it fills its lines, so the next cell begins a line */
            is_at_start = true;
            continue;
        }
        printf("%*s", start - at, "");
        if (i == t->n_columns - 1) {
            fputs(row == 0 ? hky_cli_colour("off") : "", stdout);
            hky_cli_print_words(cell, start);
            return;
        }
        fputs(cell, stdout);
        at = start + width_of(cell, strlen(cell));
    }
    fputs(row == 0 ? hky_cli_colour("off") : "", stdout);
    if (!is_at_start)
        putchar('\n');
}

void hky_cli_table_print(struct hky_cli_table **t)
{
    struct hky_cli_table *it = *t;
    int *widths = hky_calloc((size_t)it->n_columns, sizeof *widths);
    int *starts = hky_calloc((size_t)it->n_columns, sizeof *starts);

    lay_out(it, widths, starts);
    for (size_t row = 0; row < it->n_rows; row++)
        print_row(it, row, starts);
    for (size_t i = 0; i < it->n_rows * (size_t)it->n_columns; i++)
        free(it->cells[i]);
    free(starts);
    free(widths);
    free((void *)it->cells);
    free(it);
    *t = NULL;
}

void hky_cli_add_word(struct hky_buf *b, const char *word)
{
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./_-";

    if (word[0] != '\0' && strspn(word, safe) == strlen(word)) {
        hky_buf_add_z(b, word);
        return;
    }
    hky_buf_add_c(b, '\'');
    for (; *word != '\0'; word++)
        if (*word == '\'')
            hky_buf_add_z(b, "'\\''");
        else
            hky_buf_add_c(b, *word);
    hky_buf_add_c(b, '\'');
}

const char *hky_cli_address(struct hky_str canonical, char out[HKY_CLI_ADDRESS])
{
    struct hky_buf b;

    hky_buf_init(&b, HKY_CLI_ADDRESS);
    if (memchr(canonical.p, '@', canonical.n) != NULL)
        hky_address_format(canonical, true, &b);
    else
        hky_buf_add_str(&b, canonical); /* "<>", a login */
    snprintf(out, HKY_CLI_ADDRESS, "%s", hky_buf_z(&b));
    hky_buf_fini(&b);
    return out;
}
