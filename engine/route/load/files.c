/* The policy's own files: inside its folder, bounded, each read once. */
#include "route/table/inside.h"
#include "route/load/loader.h"

#include "base/hash.h"
#include "base/nearest.h"
#include "net/tls.h"
#include "route/table/foreign.h"
#include "route/table/typed.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILE_MAX        (16u << 20)
#define FILES_MAX       256u
#define LISTS_MAX       1024u
#define NAMES_MAX       200
#define NAME_MAX_OCTETS 200

/* Shorten "./vip.txt" and "lists//vip.txt" to "vip.txt" and "lists/vip.txt", so that one file has one name. */
static const char *name_clean(const char *name, char out[NAME_MAX_OCTETS])
{
    size_t n = 0;

    if (!hky_inside_is_name(name))
        return name; /* opening the file will refuse it */
    while (*name != 0) {
        size_t part = strcspn(name, "/");
        if (part > 0 && !(part == 1 && name[0] == '.')) {
            if (n > 0)
                out[n++] = '/';
            memcpy(out + n, name, part);
            n += part;
        }
        name += part + (name[part] == '/');
    }
    out[n] = 0;
    return out;
}

/* Only the last part of `name` is compared, with the names in its folder; the folders in `name` stay as they are. */
void hky_loader_suggest_file(const char *dir, const char *name, char out[HKY_SUGGESTION])
{
    const char *slash = strrchr(name, '/'), *base = slash != NULL ? slash + 1 : name, *near;
    char path[PATH_MAX], *names[NAMES_MAX];
    struct dirent *entry;
    size_t n = 0;
    DIR *d;

    out[0] = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%.*s", dir, (int)(base - name), name) >= sizeof path ||
        (d = opendir(path)) == NULL)
        return;
    while (n < NAMES_MAX && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, base) != 0) /* a link to nothing has the very name */
            names[n++] = hky_strdup(entry->d_name);
    closedir(d);
    near = hky_nearest_in(hky_str_z(base), (const char *const *)names, n);
    if (near != NULL)
        snprintf(out, HKY_SUGGESTION, ", did you mean \"%.*s%.60s\"?", base - name < 40 ? (int)(base - name) : 0, name,
                 near);
    while (n > 0)
        free(names[--n]);
}

/* The name of a missing file may be the misspelt name of another file in its folder. */
static void add_suggestion(const struct hky_loader *l, const char *name, struct hky_error *e)
{
    char near[HKY_SUGGESTION];
    size_t n = strlen(e->text);

    if (e->code != HKY_E_MISSING)
        return;
    hky_loader_suggest_file(l->policy->dir, name, near);
    snprintf(e->text + n, sizeof e->text - n, "%s", near);
}

/* Drop a byte order mark, and refuse text that is not UTF-8: Lua and JSON know neither. */
static enum hky_err text_check(struct hky_str *text, uint32_t *bad_line, struct hky_error *e)
{
    struct hky_str rest = *text = hky_utf8_unmarked(*text);

    *bad_line = 0;
    if (hky_utf8_is_valid(rest))
        return HKY_OK;
    for (uint32_t line = 1;; line++) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) + 1 : rest.n;
        if (!hky_utf8_is_valid(hky_str_of(rest.p, n))) {
            *bad_line = line;
            return hky_error_set(e, HKY_E_SYNTAX, "line %u is not UTF-8: save the file as UTF-8", line);
        }
        rest = hky_str_of(rest.p + n, rest.n - n);
    }
}

const struct hky_file *hky_loader_file(struct hky_loader *l, const char *name, struct hky_error *e)
{
    struct hky_route_table *t = l->table;
    struct stat st;
    struct hky_str text;
    char *octets, clean[NAME_MAX_OCTETS];
    size_t n;

    name = name_clean(name, clean);
    for (uint32_t i = 0; i < t->n_files; i++)
        if (strcmp(t->files[i].name, name) == 0)
            return &t->files[i];
    if (l->is_worker) {
        hky_error_set(e, HKY_E_MISSING, "was not read when the policy was loaded");
        return NULL;
    }
    if (t->n_files >= FILES_MAX) {
        hky_error_set(e, HKY_E_LIMIT, "more than %u files", FILES_MAX);
        return NULL;
    }
    if (hky_inside_read(l->policy->dir, name, FILE_MAX, &octets, &n, &st, e) != HKY_OK) {
        add_suggestion(l, name, e);
        return NULL;
    }
    text = hky_str_of(octets, n);
    if (text_check(&text, &l->bad_line, e) != HKY_OK) {
        free(octets);
        return NULL;
    }
    if (t->n_files == t->cap_files) {
        t->cap_files = t->cap_files ? t->cap_files * 2 : 8;
        t->files = hky_realloc(t->files, t->cap_files * sizeof *t->files);
    }
    t->files[t->n_files] = (struct hky_file){hky_arena_z(&t->arena, name), hky_arena_str(&t->arena, text), text.n};
    free(octets);
    return &t->files[t->n_files++];
}

struct hky_list *hky_loader_list(struct hky_loader *l, const char *name, struct hky_error *e)
{
    struct hky_route_table *t = l->table;
    struct hky_list *list;
    char clean[NAME_MAX_OCTETS];

    name = name_clean(name, clean);
    for (uint32_t i = 0; i < t->n_lists; i++)
        if (strcmp(t->lists[i]->name, name) == 0)
            return t->lists[i];
    if (l->is_worker) {
        hky_error_set(e, HKY_E_MISSING, "was not read when the policy was loaded");
        return NULL;
    }
    if (t->n_lists >= LISTS_MAX) {
        hky_error_set(e, HKY_E_LIMIT, "more than %u lists", LISTS_MAX);
        return NULL;
    }
    list = hky_arena_alloc(&t->arena, sizeof *list);
    list->name = hky_arena_z(&t->arena, name);
    list->dir = l->policy->dir;
    if (hky_list_open(list, e) != HKY_OK) {
        add_suggestion(l, name, e);
        return NULL;
    }
    if (t->n_lists == t->cap_lists) {
        t->cap_lists = t->cap_lists ? t->cap_lists * 2 : 8;
        t->lists = hky_realloc(t->lists, t->cap_lists * sizeof *t->lists);
    }
    return t->lists[t->n_lists++] = list;
}

/* A hash of the file's octets, never 0. */
static enum hky_err hash_of(const char *path, size_t n, uint64_t *hash, struct hky_error *e)
{
    FILE *f = fopen(path, "rbe");
    char *octets = hky_alloc(n + 1);
    size_t got = f != NULL ? fread(octets, 1, n, f) : 0;

    *hash = hky_hash64(octets, got, 1) | 1;
    free(octets);
    if (f == NULL)
        return hky_error_sys(e, HKY_E_MISSING, errno, "it cannot be read");
    fclose(f);
    return HKY_OK;
}

enum hky_err hky_loader_authority(struct hky_loader *l, const char *path, uint64_t *hash, struct hky_error *e)
{
    struct hky_tls *tls = NULL;
    void *known = hky_map_get(&l->authorities, hky_str_z(path));
    struct stat st;
    enum hky_err err;

    *hash = (uint64_t)(uintptr_t)known;
    if (known != NULL)
        return HKY_OK; /* thousands of rows may name one */
    if (stat(path, &st) != 0)
        return hky_error_sys(e, HKY_E_MISSING, errno, "it cannot be read");
    if (!S_ISREG(st.st_mode)) /* OpenSSL would wait for the data of a pipe */
        return hky_error_set(e, HKY_E_IO, "it is not a regular file");
    if (st.st_size > (off_t)FILE_MAX)
        return hky_error_set(e, HKY_E_LIMIT, "it is larger than %u octets", FILE_MAX);
    err = hky_tls_client_new(&(struct hky_tls_client_params){.is_verified = true, .ca_file = path}, &tls, e);
    hky_tls_unref(&tls);
    if (err == HKY_OK)
        err = hash_of(path, (size_t)st.st_size, hash, e);
    if (err == HKY_OK)
        hky_map_put(&l->authorities, hky_str_z(path), (void *)(uintptr_t)*hash);
    return err;
}

bool hky_loader_stray_character(const struct hky_loader *l, struct hky_place place, bool is_known_only, char out[200])
{
    const struct hky_file *f = NULL;
    struct hky_str line;
    const char *p, *end;
    struct hky_foreign stray;
    size_t n;

    for (uint32_t i = 0; i < l->table->n_files && f == NULL; i++)
        if (l->table->files[i].name == place.file)
            f = &l->table->files[i];
    if (f == NULL)
        return false;
    p = f->text;
    for (uint32_t at = 1; at < place.line && (p = memchr(p, '\n', f->n - (size_t)(p - f->text))) != NULL; at++)
        p++;
    if (p == NULL)
        return false;
    end = memchr(p, '\n', f->n - (size_t)(p - f->text));
    line = hky_str_of(p, end != NULL ? (size_t)(end - p) : f->n - (size_t)(p - f->text));
    if ((p = hky_typed_stray(line, &n)) == NULL)
        return false;
    stray = hky_foreign_at(hky_str_of(p, n));
    if (stray.kind == HKY_FOREIGN_BLANK)
        snprintf(out, 200, "there is a full-width blank outside of a text: write an ordinary blank");
    else if (stray.kind == HKY_FOREIGN_INVISIBLE)
        snprintf(out, 200, "there is an invisible character (U+%04X) outside of a text: remove it",
                 (unsigned)stray.code);
    else if (stray.kind != HKY_FOREIGN_NONE)
        snprintf(out, 200, "%.*s is a full-width or curly character: write %c", (int)stray.n, p, stray.ascii);
    else if (is_known_only)
        return false;
    else
        snprintf(out, 200, "%.*s is outside of a text: names outside of \"\" have letters a-z, digits and _",
                 stray.n > 0 ? (int)stray.n : 1, p);
    return true;
}
