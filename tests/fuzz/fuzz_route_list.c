/* List files: every line is an entry or an error with its number; what was read is found again, whatever the case. */
#include "route/table/match.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned lines_of(struct hky_str s)
{
    unsigned n = 1;

    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '\n';
    return n;
}

static void check_found(const struct hky_set *set, struct hky_str line)
{
    struct hky_set_entry entry;
    struct hky_error e = {0};
    struct hky_match_key k;
    char address[700];
    int n;

    if (line.n == 0 || line.p[0] == '#' || hky_set_entry_parse(line, &entry, &e) != HKY_OK)
        return;
    n = snprintf(address, sizeof address, "%s%s",
                 entry.kind == HKY_SET_ENTRY_DOMAIN   ? "a@"
                 : entry.kind == HKY_SET_ENTRY_PARENT ? "a@x."
                                                      : "",
                 entry.kind == HKY_SET_ENTRY_EVERYONE ? "a@b" : entry.text);
    if (entry.kind == HKY_SET_ENTRY_NULL)
        n = 0;
    hky_match_key_init(&k, hky_str_of(address, (size_t)n));
    if (k.n < sizeof k.text - 4) /* a key that was cut matches nothing longer */
        HKY_ASSERT(hky_set_has(set, &k));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hky_str text = hky_str_of(size > 0 ? (const char *)data : "", size), rest = text;
    struct hky_set *set = hky_set_new();
    struct hky_error e = {0};

    if (hky_list_parse(text, "list.txt", set, &e) != HKY_OK) {
        unsigned line = (unsigned)strtoul(e.text + strlen("list.txt:"), NULL, 10);
        HKY_ASSERT(e.code == HKY_E_SYNTAX && line >= 1 && line <= lines_of(text));
    } else {
        while (rest.n > 0) {
            const char *end = memchr(rest.p, '\n', rest.n);
            size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
            check_found(set, hky_str_trim(hky_str_of(rest.p, n)));
            rest = end != NULL ? hky_str_of(end + 1, rest.n - n - 1) : hky_str_of("", 0);
        }
    }
    hky_set_unref(&set);
    return 0;
}
