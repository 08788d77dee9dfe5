/*
 * locks -- loaded into the engine with LD_PRELOAD by tests/bench/run: counts for every mutex how often it was taken and
 * how often it was not free just then. Waits of the C library inside itself (malloc, a condition variable that takes
 * its mutex again) are not seen.
 *
 *   LOCKS_OUT=FILE   at exit one line a mutex: taken, contended, and where in which program or library it was taken
 * first
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS  65536 /* a mutex for which none is free is not counted */
#define PROBES 64

struct slot {
    pthread_mutex_t *mutex;
    void *caller;
    uint64_t taken, contended;
};

static struct slot slots[SLOTS];
static int (*real_lock)(pthread_mutex_t *);

static struct slot *slot_of(pthread_mutex_t *m, void *caller)
{
    uintptr_t at = ((uintptr_t)m >> 3) * UINT64_C(0x9e3779b97f4a7c15) >> 40;

    for (unsigned i = 0; i < PROBES; i++) {
        struct slot *s = &slots[(at + i) % SLOTS];
        pthread_mutex_t *here = __atomic_load_n(&s->mutex, __ATOMIC_RELAXED);
        if (here == NULL && __atomic_compare_exchange_n(&s->mutex, &here, m, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            s->caller = caller;
            return s;
        }
        if (here == m)
            return s;
    }
    return NULL;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    struct slot *s;

    if (real_lock == NULL)
        real_lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if ((s = slot_of(m, __builtin_return_address(0))) == NULL)
        return real_lock(m);
    __atomic_fetch_add(&s->taken, 1, __ATOMIC_RELAXED);
    if (pthread_mutex_trylock(m) == 0)
        return 0;
    __atomic_fetch_add(&s->contended, 1, __ATOMIC_RELAXED);
    return real_lock(m);
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("LOCKS_OUT");
    FILE *f = path != NULL ? fopen(path, "w") : NULL;

    if (f == NULL)
        return;
    for (unsigned i = 0; i < SLOTS; i++) {
        Dl_info at;
        if (slots[i].taken > 0 && dladdr(slots[i].caller, &at) != 0)
            fprintf(f, "%llu %llu %s 0x%lx\n", (unsigned long long)slots[i].taken,
                    (unsigned long long)slots[i].contended, at.dli_fname,
                    (unsigned long)((uintptr_t)slots[i].caller - (uintptr_t)at.dli_fbase - 1));
    }
    fclose(f);
}
