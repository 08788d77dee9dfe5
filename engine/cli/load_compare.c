/* Compares the acknowledged messages with those that arrived: reads a sink's index.jsonl as it grows. */
#include "cli/load.h"

#include "base/clock.h"

#include <stdlib.h>
#include <unistd.h>

/* "load":"RUN-SEQ" of an index line, or UINT64_MAX. */
static uint64_t seq_of(const struct hky_load *load, const char *line)
{
    char key[48];
    const char *at;
    int n = snprintf(key, sizeof key, "\"load\":\"%s-", load->run);

    at = strstr(line, key);
    return at != NULL ? strtoull(at + n, NULL, 10) : UINT64_MAX;
}

static bool read_more(const struct hky_load *load, FILE *index, unsigned char *seen, struct hky_load_arrivals *out)
{
    char line[65536];
    bool is_more = false;
    long at;

    clearerr(index);
    while ((at = ftell(index)) >= 0 && fgets(line, sizeof line, index) != NULL) {
        uint64_t seq;
        if (strchr(line, '\n') == NULL) { /* this line is still being written */
            fseek(index, at, SEEK_SET);
            break;
        }
        seq = seq_of(load, line);
        if (seq >= load->n)
            continue;
        is_more = true;
        if (seen[seq] == 0)
            out->arrived++;
        else
            out->twice++;
        if (seen[seq] < 255)
            seen[seq]++;
        if (load->states[seq] == HKY_LOAD_REFUSED && seen[seq] == 1)
            out->unexpected++;
    }
    return is_more;
}

static void count_lost(const struct hky_load *load, const unsigned char *seen, struct hky_load_arrivals *out)
{
    out->lost = 0;
    for (uint64_t i = load->n; i-- > 0;) {
        if (load->states[i] == HKY_LOAD_ACKED && seen[i] == 0) {
            out->lost++;
            out->first_lost = i;
        }
    }
}

bool hky_load_compare(const struct hky_load *load, const char *store, int64_t patience_ms,
                      struct hky_load_arrivals *out)
{
    unsigned char *seen = hky_calloc(load->n, 1);
    char path[4096];
    FILE *index;
    int64_t last = hky_mono_ms();

    *out = (struct hky_load_arrivals){0};
    snprintf(path, sizeof path, "%s/index.jsonl", store);
    index = fopen(path, "r");
    if (index == NULL) {
        hky_cli_printf(stderr, "hikyaku load: cannot read %s; --store names the DIR of hikyaku sink --store DIR\n",
                       path);
        free(seen);
        return false;
    }
    do {
        if (read_more(load, index, seen, out))
            last = hky_mono_ms();
        count_lost(load, seen, out);
        if (hky_cli_is_terminal()) {
            printf("\r%lu arrived, %lu still missing   ", (unsigned long)out->arrived, (unsigned long)out->lost);
            fflush(stdout);
        }
        if (out->lost > 0)
            usleep(200000);
    } while (out->lost > 0 && hky_mono_ms() - last < patience_ms);
    if (hky_cli_is_terminal())
        putchar('\n');
    fclose(index);
    free(seen);
    return true;
}
