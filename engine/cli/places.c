/* Places in the files of a policy, as an editor or a shell in this folder can open them. */
#include "cli/cli.h"
#include "hikyaku/route.h"

#include <stdlib.h>
#include <string.h>

static struct hky_str folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return hky_str_of(path, slash != NULL ? (size_t)(slash + 1 - path) : 0);
}

/* Is the file of that name in the folder where the path says it is? It is not where the path is a link. */
static bool is_there(const char *path, const char *real)
{
    struct hky_str folder = folder_of(path), real_folder = folder_of(real);
    char *given = folder.n > 0 ? hky_str_dup(folder) : hky_strdup("."), *resolved = realpath(given, NULL);
    bool is_same = resolved != NULL &&
                   (hky_str_eq(hky_str_z(resolved), real_folder) ||
                    (strlen(resolved) + 1 == real_folder.n && memcmp(resolved, real_folder.p, strlen(resolved)) == 0));

    free(resolved);
    free(given);
    return is_same;
}

void hky_cli_add_place(struct hky_buf *out, const char *policy, const char *file)
{
    char *real;

    if (file == NULL || file[0] == '\0' || file[0] == '/' || (real = realpath(policy, NULL)) == NULL)
        return; /* the policy cannot be read: the place is its path */
    hky_buf_add_str(out, folder_of(is_there(policy, real) ? policy : real));
    free(real);
}

void hky_cli_add_problem(struct hky_buf *out, const char *policy, const struct hky_problem *problem)
{
    hky_cli_add_place(out, policy, problem->place.file);
    hky_problem_format(problem, out);
}
