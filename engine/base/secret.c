#include "base/secret.h"

#include "base/error.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* One mapping a secret: it can be left out of core files and swap as a whole. */
struct hky_secret {
    size_t n, mapped;
    int refs; /* atomic */
    char value[];
};

struct hky_secret *hky_secret_new(struct hky_str value)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t mapped = (sizeof(struct hky_secret) + value.n + page) / page * page;
    struct hky_secret *s = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    HKY_ASSERT(s != MAP_FAILED);
    (void)madvise(s, mapped, MADV_DONTDUMP);
    (void)mlock(s, mapped);
    s->n = value.n;
    s->mapped = mapped;
    s->refs = 1;
    if (value.n > 0)
        memcpy(s->value, value.p, value.n);
    return s;
}

struct hky_secret *hky_secret_ref(struct hky_secret *s)
{
    if (s != NULL)
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void hky_secret_unref(struct hky_secret **s)
{
    struct hky_secret *it = *s;

    *s = NULL;
    if (it == NULL || __atomic_sub_fetch(&it->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    hky_secret_wipe(it->value, it->n);
    munmap(it, it->mapped);
}

struct hky_str hky_secret_value(const struct hky_secret *s)
{
    return s != NULL ? hky_str_of(s->value, s->n) : hky_str_of("", 0);
}

void hky_secret_wipe(void *p, size_t n)
{
    explicit_bzero(p, n);
}
