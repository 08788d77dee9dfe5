/* hikyaku --manual PART: prints the parts of manual pages and annotations that come from the program's own tables. */
#include "cli/manual.h"

#include "cli/operate.h"
#include "hikyaku/deliver.h"
#include "hikyaku/record.h"
#include "hikyaku/route.h"

#include <stdio.h>

/* roff: a backslash and a leading dot or quote are escaped, "-" stays a hyphen that can be searched for. */
static void put_text_of(const char *p, size_t n)
{
    bool is_line_start = true;

    for (size_t i = 0; i < n; i++) {
        if (is_line_start && (p[i] == '.' || p[i] == '\''))
            fputs("\\&", stdout);
        if (p[i] == '\\')
            fputs("\\e", stdout);
        else if (p[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(p[i]);
        is_line_start = p[i] == '\n';
    }
}

static void put_text(const char *z)
{
    put_text_of(z, strlen(z));
}

static void put_options(const struct hky_cli_option *table)
{
    for (const struct hky_cli_option *o = table; o != NULL && o->name != NULL; o++) {
        fputs(".TP 8\n\\fB", stdout);
        put_text(o->name[1] == '\0' ? "-" : "--");
        put_text(o->name);
        fputs("\\fR", stdout);
        if (o->value != NULL) {
            fputs(" \\fI", stdout);
            put_text(o->value);
            fputs("\\fR", stdout);
        }
        putchar('\n');
        put_text(o->doc);
        putchar('\n');
    }
}

static void put_action(void *ctx, const char *usage, const char *doc)
{
    (void)ctx;
    fputs(".TP 8\n\\fB", stdout);
    put_text(usage);
    fputs("\\fR\n", stdout);
    put_text(doc);
    putchar('\n');
}

/* Paragraphs are filled, lines that begin with a blank are examples. */
static void put_help(const char *text)
{
    bool is_example = false;

    fputs(".PP\n", stdout);
    for (size_t n; *text != '\0'; text += text[n] == '\n' ? n + 1 : n) {
        char line[1000];

        n = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        if ((text[0] == ' ') != is_example)
            fputs(is_example ? ".fi\n" : ".nf\n", stdout);
        is_example = text[0] == ' ';
        if (n == 0)
            fputs(".PP", stdout);
        put_text(line);
        putchar('\n');
    }
    if (is_example)
        fputs(".fi\n", stdout);
}

static void put_command(const struct hky_cli_command *c)
{
    struct hky_cli_options room;

    printf(c->args[0] == '\0' ? ".SS hikyaku %s" : ".SS hikyaku %s ", c->name);
    put_text(c->args);
    fputs("\n", stdout);
    putchar(c->summary[0] - 'a' + 'A');
    put_text(c->summary + 1);
    puts(".");
    if (c->group != NULL)
        hky_cli_each_action(c->group, put_action, NULL);
    put_options(hky_cli_options(c, &room));
    if (c->help != NULL)
        put_help(c->help);
}

/* Prints text in which backquotes enclose what is typed; `font_of` chooses its font, by default it is bold. */
static void put_marked(const char *text, char (*font_of)(const void *ctx, const char *typed, size_t n), const void *ctx)
{
    bool is_typed = false;

    for (size_t n; *text != '\0'; text += n + (text[n] == '`'), is_typed = !is_typed) {
        n = strcspn(text, "`");
        if (is_typed)
            printf("\\f%c", font_of == NULL ? 'B' : font_of(ctx, text, n));
        put_text_of(text, n);
        if (is_typed)
            fputs("\\fR", stdout);
    }
    putchar('\n');
}

static bool has_key(const char *object, const char *name, size_t length)
{
    struct hky_key_doc k;

    for (size_t n = 0; hky_policy_key_doc(object, n, &k); n++)
        if (strlen(k.name) == length && memcmp(k.name, name, length) == 0)
            return true;
    return false;
}

struct key_of {
    const char *object;
    struct hky_key_doc doc;
};

/* In the text about a key, other keys and commands are bold and values are in italics. A word that the key takes as a
 * value, or that is also its own name, is a value here. */
static char font_in_key(const void *ctx, const char *typed, size_t n)
{
    const struct key_of *k = ctx;
    char value[32];

    if (n > strlen("hikyaku ") && memcmp(typed, "hikyaku ", strlen("hikyaku ")) == 0)
        return 'B';
    snprintf(value, sizeof value, "\"%.*s\"", (int)n, typed);
    if (strstr(k->doc.lua, value) != NULL || (strlen(k->doc.name) == n && memcmp(k->doc.name, typed, n) == 0))
        return 'I';
    return has_key(k->object, typed, n) || has_key("engine", typed, n) ? 'B' : 'I';
}

static bool put_keys(const char *object)
{
    struct key_of k = {.object = object};
    size_t n = 0;

    for (; hky_policy_key_doc(object, n, &k.doc); n++) {
        printf(n == 0 ? ".TP 16\n\\fB%s\\fR\n" : ".TP\n\\fB%s\\fR\n", k.doc.name);
        put_marked(k.doc.doc, font_in_key, &k);
    }
    return n > 0;
}

static bool put_annotations(const char *object)
{
    struct hky_key_doc k;
    size_t n = 0;

    for (; hky_policy_key_doc(object, n, &k); n++)
        printf("---@field %s%s %s  %s\n", k.name, k.is_needed ? "" : "?", k.lua, k.doc);
    return n > 0;
}

#define TEMPORARY 't' /* not a set: classes of the other sets that are temporary */
static const struct {
    char set;
    const char *title;
} sets[] = {
    {'O', "Ours (another way may cure it)"}, {'T', "Theirs (about the recipient)"},
    {'C', "Content (about the message)"},    {'-', "In no set"},
    {'R', "Reasons without an attempt"},     {TEMPORARY, "Always temporary"},
};

static bool is_in(enum hky_class class, char set)
{
    return set == TEMPORARY ? hky_class_is_temporary(class) : hky_class_set(class) == set;
}

/* Prints the classes by their sets, a paragraph for each set. */
static void put_sets(void)
{
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        size_t n = 0;

        for (enum hky_class c = 0; c < HKY_CLASS_N; c++)
            n += is_in(c, sets[i].set);
        printf(".TP\n%s\n", sets[i].title);
        for (enum hky_class c = 0; c < HKY_CLASS_N; c++)
            if (is_in(c, sets[i].set))
                printf(--n > 0 ? ".BR %s ,\n" : ".B %s\n", hky_class_name(c));
    }
}

static void put_titled(const char *title, const char *text)
{
    if (text == NULL)
        return;
    printf(".TP 11\n%s\n", title);
    put_marked(text, NULL, NULL);
}

static void put_replies(const struct hky_class_doc *d)
{
    for (size_t i = 0; i < sizeof d->replies / sizeof d->replies[0] && d->replies[i].text != NULL; i++) {
        fputs(i == 0 ? ".TP 11\nReplies\n" : ".br\n", stdout);
        put_text(d->replies[i].text);
        printf(" (%s)\n", hky_stage_name(d->replies[i].stage));
    }
}

static const char *set_title(char set)
{
    size_t i = 0;

    while (sets[i].set != set)
        i++;
    return sets[i].title;
}

static void put_classes(void)
{
    for (enum hky_class c = 0; c < HKY_CLASS_N; c++) {
        const struct hky_class_doc *d = hky_class_doc(c);

        printf(".SS %s\n", hky_class_name(c));
        put_marked(d->meaning, NULL, NULL);
        put_titled("Set", set_title(hky_class_set(c)));
        put_titled("Hikyaku", d->done);
        put_titled("After 5xx", d->permanent);
        put_titled("After 4xx", d->temporary);
        put_replies(d);
        put_titled("You", d->operator);
    }
}

int hky_cli_manual(const struct hky_cli_command *const *commands, size_t n, const char *part)
{
    static const char *const docs[] = {
#define X(id, name, doc) doc,
        HKY_EVENTS(X)
#undef X
    };
    if (strcmp(part, "commands") == 0) {
        for (size_t i = 0; i < n; i++)
            put_command(commands[i]);
    } else if (strcmp(part, "events") == 0) {
        for (enum hky_event_kind k = 0; k < HKY_EVENT_N; k++)
            printf(".TP 16\n\\fB%s\\fR\n%s\n", hky_event_name(k), docs[k]);
    } else if (strcmp(part, "classes") == 0) {
        put_classes();
    } else if (strcmp(part, "sets") == 0) {
        put_sets();
    } else if (strncmp(part, "keys:", 5) == 0           ? !put_keys(part + 5)
               : strncmp(part, "annotations:", 12) == 0 ? !put_annotations(part + 12)
                                                        : true) {
        fputs("hikyaku --manual: commands, events, classes, sets, keys:OBJECT or annotations:OBJECT\n", stderr);
        return HKY_EXIT_USAGE;
    }
    return HKY_EXIT_GOOD;
}
