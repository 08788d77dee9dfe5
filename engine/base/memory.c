#include "base/memory.h"

#include "base/error.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB            ((size_t)1 << 20)
#define KEPT           (32 * MIB)
#define HUGE_FROM      (4 * MIB) /* below that, most of it would be partial pages */
#define GROWS_BY       MIB
#define MAPPED_FROM    (2 * MIB) /* larger than any body in memory and its reader's buffer */
#define EXPECTED_BLOCK (MIB / 2)

void hky_memory_settle(void)
{
    /* All three are set: setting only one would fix the others at values with which each large body is mapped
     * separately (mallopt(3)). */
    (void)mallopt(M_TRIM_THRESHOLD, KEPT);
    (void)mallopt(M_TOP_PAD, GROWS_BY);
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
}

void hky_memory_trim(void)
{
    (void)malloc_trim(0);
}

void hky_memory_ready(void *p, size_t n)
{
#ifdef MADV_POPULATE_WRITE /* Linux 5.14; without it the pages come one by one */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)p + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)p + n) & ~(page - 1);
    int was = errno;

    if (from < to && to - from >= HUGE_FROM)
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_POPULATE_WRITE);
    errno = was;
#else
    (void)p;
    (void)n;
#endif
}

/* Large blocks are taken and given back: the C library joins them again, and cuts the small ones from there. */
void hky_memory_expect(size_t n)
{
    void *blocks[HKY_MEMORY_EXPECT_MAX / EXPECTED_BLOCK];
    size_t n_blocks = 0;

    for (; n >= EXPECTED_BLOCK && n_blocks < sizeof blocks / sizeof blocks[0]; n -= EXPECTED_BLOCK) {
        blocks[n_blocks] = hky_alloc(EXPECTED_BLOCK);
        hky_memory_ready(blocks[n_blocks++], EXPECTED_BLOCK);
    }
    while (n_blocks > 0)
        free(blocks[--n_blocks]);
}

#define LULL_MOST   10  /* done in one interval, and it is quiet all the same */
#define BURST_LEAST 100 /* done since memory was given back; below that there is little to give */

bool hky_lull_has_come(struct hky_lull *l, uint64_t done)
{
    l->quiet = done - l->done <= LULL_MOST ? l->quiet + 1 : 0;
    l->done = done;
    if (l->quiet < HKY_LULL_TICKS || done - l->given_back_at < BURST_LEAST)
        return false;
    l->given_back_at = done;
    return true;
}
