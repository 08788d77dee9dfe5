/* Problems and where they are. */
#include "route/lua/collect.h"

#include "mail/charset.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBLEM_MAX 600

/* How far the search for a word goes: a search that is made for thousands of rows must not read the rest of the file
 * each time. */
#define LINES_MAX  100
#define OCTETS_MAX 65536

/* Format a text that can be shown: parts of it come from scripts and files, and it may be cut within a character. */
static void text_format(char out[3 * PROBLEM_MAX], const char *fmt, va_list ap)
{
    struct hky_buf shown;

    vsnprintf(out, PROBLEM_MAX, fmt, ap);
    for (char *c = out; *c != 0; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    hky_buf_init(&shown, 3 * PROBLEM_MAX);
    hky_utf8_repair(hky_str_z(out), &shown);
    snprintf(out, 3 * PROBLEM_MAX, "%s", hky_buf_z(&shown));
    hky_buf_fini(&shown);
}

void hky_loader_complain(struct hky_loader *l, struct hky_place place, bool is_warning, const char *fmt, ...)
{
    char text[3 * PROBLEM_MAX];
    va_list ap;

    va_start(ap, fmt);
    text_format(text, fmt, ap);
    va_end(ap);
    hky_problems_add(l->problems, place, is_warning ? HKY_PROBLEM_WARNING : HKY_PROBLEM_ERROR, text);
}

void hky_loader_note(struct hky_loader *l, struct hky_place place, const char *fmt, ...)
{
    char text[3 * PROBLEM_MAX];
    va_list ap;

    va_start(ap, fmt);
    text_format(text, fmt, ap);
    va_end(ap);
    hky_problems_add(l->problems, place, HKY_PROBLEM_NOTE, text);
}

void hky_lua_problem(lua_State *L, struct hky_place place, const char *fmt, ...)
{
    struct hky_vm *vm = hky_vm_of(L);
    char text[500];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (vm->loader != NULL) {
        hky_loader_complain(vm->loader, place, false, "%s", text);
        return;
    }
    if (place.file == NULL || place.file[0] == 0)
        luaL_error(L, "%s", text);
    lua_pushfstring(L, "%s:%d: %s", place.file, (int)place.line, text); /* luaL_error would say the place once more */
    lua_error(L);
}

struct hky_place hky_lua_place_here(lua_State *L, int level)
{
    struct hky_vm *vm = hky_vm_of(L);
    struct hky_place place = {"", 0};
    lua_Debug ar;

    if (!lua_getstack(L, level, &ar) || !lua_getinfo(L, "Sl", &ar))
        return place;
    if (ar.currentline > 0)
        place.line = (uint32_t)ar.currentline;
    for (uint32_t i = 0; ar.source[0] == '@' && vm->table != NULL && i < vm->table->n_files; i++)
        if (strcmp(vm->table->files[i].name, ar.source + 1) == 0)
            place.file = vm->table->files[i].name;
    return place;
}

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Is `word` at p as a key (word =, "word":) or as a quoted value? */
static bool stands_at(const char *p, const char *begin, const char *end, const char *word, size_t n, bool is_key)
{
    const char *after = p + n;
    bool is_quoted = p > begin && (p[-1] == '"' || p[-1] == '\'') && after < end && *after == p[-1];

    if (!is_key)
        return is_quoted;
    (void)word;
    if (is_quoted)
        after++;
    else if (p > begin && is_word_char(p[-1]))
        return false;
    while (after < end && (*after == ' ' || *after == '\t' || *after == ']'))
        after++;
    return after < end && ((*after == '=' && (after + 1 == end || after[1] != '=')) || (is_quoted && *after == ':'));
}

struct hky_place hky_loader_place_of(struct hky_loader *l, struct hky_place place, const char *word, bool is_key)
{
    const struct hky_file *f = NULL;
    uint32_t line = 1, last = UINT32_MAX;
    const char *p, *end;
    size_t n = strlen(word);

    for (uint32_t i = 0; i < l->table->n_files && f == NULL; i++)
        if (l->table->files[i].name == place.file)
            f = &l->table->files[i];
    if (f == NULL || n == 0 || l->problems->n >= HKY_PROBLEMS_MAX)
        return place; /* further problems are not shown, so nobody needs their lines */
    for (size_t i = 0; i < l->n_decls && l->n_decls < 2000; i++)
        if (l->decls[i].place.file == place.file && l->decls[i].place.line > place.line &&
            l->decls[i].place.line < last)
            last = l->decls[i].place.line;
    if (l->n_decls >= 2000 || last - place.line > LINES_MAX)
        last = place.line + LINES_MAX;
    p = f->text;
    end = p + f->n;
    if (l->cursor.file == place.file && l->cursor.line <= place.line) {
        p += l->cursor.at;
        line = l->cursor.line;
    }
    while (line < place.line && p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        if (nl == NULL)
            return place;
        p = nl + 1;
        line++;
    }
    l->cursor.file = place.file;
    l->cursor.line = line;
    l->cursor.at = (size_t)(p - f->text);
    if ((size_t)(end - p) > OCTETS_MAX)
        end = p + OCTETS_MAX;
    while (p < end && line < last) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *stop = nl != NULL ? nl : end;
        for (const char *hit = p; (hit = memmem(hit, (size_t)(stop - hit), word, n)) != NULL; hit++)
            if (stands_at(hit, f->text, end, word, n, is_key))
                return (struct hky_place){place.file, line};
        p = stop + 1;
        line++;
    }
    return place;
}
