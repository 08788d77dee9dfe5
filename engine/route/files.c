/* The policy's own files: inside its folder, bounded, each read once. */
#include "route/loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX        (16u << 20)
#define FILES_MAX       256u
#define LISTS_MAX       1024u
#define NAMES_MAX       200
#define NAME_MAX_OCTETS 200

static bool is_inside(const char *name)
{
    return name[0] != 0 && name[0] != '/' && strlen(name) < NAME_MAX_OCTETS && strcmp(name, "..") != 0 &&
           strncmp(name, "../", 3) != 0 && strstr(name, "/../") == NULL &&
           (strlen(name) < 3 || strcmp(name + strlen(name) - 3, "/..") != 0);
}

/* "./vip.txt" and "lists//vip.txt" are "vip.txt" and "lists/vip.txt": one file has one name. */
static const char *name_clean(const char *name, char out[NAME_MAX_OCTETS])
{
    size_t n = 0;

    if (!is_inside(name))
        return name; /* refused where it is opened */
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

/* Folders within `name` stay as they are: what is compared are the names in its own. */
void hky_file_suggest(const char *dir, const char *name, char out[HKY_SUGGESTION])
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
        if (entry->d_name[0] != '.')
            names[n++] = hky_strdup(entry->d_name);
    closedir(d);
    near = hky_nearest(hky_str_z(base), (const char *const *)names, n);
    if (near != NULL)
        snprintf(out, HKY_SUGGESTION, ", did you mean \"%.*s%.60s\"?", base - name < 40 ? (int)(base - name) : 0, name,
                 near);
    while (n > 0)
        free(names[--n]);
}

/* Inside the policy's folder also after symbolic links. */
static bool path_of(const struct hky_loader *l, const char *name, char out[PATH_MAX], struct hky_error *e)
{
    char path[PATH_MAX];
    size_t n = strlen(l->policy->dir);

    if (!is_inside(name)) {
        hky_error_set(e, HKY_E_DENIED, "paths are inside the policy's folder: no leading /, no ..");
        return false;
    }
    if ((size_t)snprintf(path, sizeof path, "%s/%s", l->policy->dir, name) >= sizeof path ||
        realpath(path, out) == NULL) {
        char near[HKY_SUGGESTION];
        hky_file_suggest(l->policy->dir, name, near);
        hky_error_set(e, HKY_E_MISSING, "no such file in %.100s%s", l->policy->dir, near);
        return false;
    }
    if (strcmp(l->policy->dir, "/") != 0 && (strncmp(out, l->policy->dir, n) != 0 || out[n] != '/')) {
        hky_error_set(e, HKY_E_DENIED, "the file leads out of the policy's folder");
        return false;
    }
    return true;
}

static enum hky_err text_read(const char *path, char **text, size_t *n, struct hky_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    enum hky_err err = HKY_OK;

    *text = NULL;
    *n = 0;
    if (fd < 0)
        return hky_error_sys(e, errno == ENOENT ? HKY_E_MISSING : HKY_E_IO, errno, "cannot read it");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        err = hky_error_set(e, HKY_E_IO, "not a regular file");
    else if (st.st_size > (off_t)FILE_MAX)
        err = hky_error_set(e, HKY_E_LIMIT, "larger than %u octets", FILE_MAX);
    else {
        *text = hky_alloc((size_t)st.st_size + 1);
        while (*n < (size_t)st.st_size) {
            ssize_t got = read(fd, *text + *n, (size_t)st.st_size - *n);
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                break;
            *n += (size_t)got;
        }
        (*text)[*n] = 0;
    }
    close(fd);
    return err;
}

/* Lua and JSON know neither a mark at the beginning nor other charsets. */
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
    char path[PATH_MAX];
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
    if (!path_of(l, name, path, e) || text_read(path, &octets, &n, e) != HKY_OK)
        return NULL;
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
    char path[PATH_MAX], clean[NAME_MAX_OCTETS];
    bool is_changed;

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
    if (!path_of(l, name, path, e))
        return NULL;
    list = hky_arena_alloc(&t->arena, sizeof *list);
    list->name = hky_arena_z(&t->arena, name);
    list->path = hky_arena_z(&t->arena, path);
    pthread_mutex_init(&list->lock, NULL);
    if (hky_list_read(list, &is_changed, e) != HKY_OK) {
        pthread_mutex_destroy(&list->lock);
        return NULL;
    }
    if (t->n_lists == t->cap_lists) {
        t->cap_lists = t->cap_lists ? t->cap_lists * 2 : 8;
        t->lists = hky_realloc(t->lists, t->cap_lists * sizeof *t->lists);
    }
    return t->lists[t->n_lists++] = list;
}
