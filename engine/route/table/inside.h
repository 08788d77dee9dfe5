/*
 * inside -- files that a policy, its rows or its lists name: always inside the policy's folder, never in secrets/.
 *
 * A name can come from somebody who may write rows and nothing else, so the kernel resolves it below the folder (no
 * "..", no link that leads out, also when a link changes meanwhile), only regular files are read, and what was opened
 * is compared with the folders of the secrets, whatever name led there.
 */
#ifndef HKY_ROUTE_INSIDE_H
#define HKY_ROUTE_INSIDE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/*
 * The octets of `dir`/`name`, ended by a NUL that is not counted, and what fstat said of the file; the caller frees
 * *text. HKY_E_DENIED: the name leads out of `dir` or to a secret; HKY_E_MISSING: there is no such file; HKY_E_LIMIT:
 * more than `max` octets; HKY_E_STATE: the file changed while it was read; HKY_E_IO: no regular file, or it cannot be
 * read. No text of `e` holds octets of the file.
 */
enum hky_err hky_inside_read(const char *dir, const char *name, size_t max, char **text, size_t *n, struct stat *st,
                             struct hky_error *e);

/* Whether `name` can be a file inside the folder at all: relative, not empty, no "..", not too long. */
bool hky_inside_is_name(const char *name);

/* Whether two looks at a file saw the same one, unchanged. */
bool hky_inside_is_same(const struct stat *a, const struct stat *b);

#endif
