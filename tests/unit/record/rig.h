/* What the tests of record share: a folder of their own, a clock that stands, events with a number to know them by. */
#ifndef HKY_TEST_RECORD_RIG_H
#define HKY_TEST_RECORD_RIG_H

#include "hikyaku/record.h"
#include "record/internal.h"
#include "support/scratch.h"
#include "support/wait.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEGMENT (64u << 10)

static char dir[64];
static struct hky_clock the_clock = {0, 1764000000123};

static inline int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/hikyaku-record-XXXXXX", scratch_in_memory());
    return mkdtemp(dir) == NULL;
}

/* Removes what is in dir/name; without recursion: record makes one level of folders. */
static inline void empty_folder(const char *name)
{
    char path[400];
    DIR *d;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    d = opendir(path);
    for (struct dirent *one; d != NULL && (one = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s/%.200s", dir, name, one->d_name);
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
}

static inline int remove_dir(void **state)
{
    (void)state;
    return scratch_remove(dir);
}

/* Mail has its pauses, in which room is made. */
static inline bool has_spares(struct hky_record *r, unsigned n)
{
    bool is;

    pthread_mutex_lock(&r->store.lock);
    is = r->store.n_spares >= n;
    pthread_mutex_unlock(&r->store.lock);
    return is;
}

static inline void emit(struct hky_record *r, int from, int to)
{
    for (int i = from; i <= to; i++)
        hky_record_event(r, (unsigned)i % 3,
                         &(struct hky_event){.kind = HKY_EVENT_FAILED, .at_ms = 1764000000000, .delay_ms = i});
}

#endif
