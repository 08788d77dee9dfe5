/*
 * memory -- where the C library's pages come from. A page touched for the first time is a trap into the kernel; on a
 * virtual machine that can take longer than all that is done with its 4 KB.
 */
#ifndef HKY_BASE_MEMORY_H
#define HKY_BASE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

/* For a process in which bodies come and go: heaps grow in steps and keep what is freed, up to 32 MiB each. Once,
 * before there are threads. */
void hky_memory_settle(void);

/* Gives memory that heaps keep back to the system, after a long queue. It is slow while much is in use. */
void hky_memory_trim(void);

/* All of p[0..n) will be written soon: its pages are fetched in one call, huge ones where it is large. This is a hint;
 * the contents do not change. */
void hky_memory_ready(void *p, size_t n);

/* `n` octets of small blocks will be allocated soon on this thread: the same for them; at most 8 MiB at a time. */
#define HKY_MEMORY_EXPECT_MAX ((size_t)8 << 20)
void hky_memory_expect(size_t n);

/* When is a burst over, so that its memory may be given back? Asked at even intervals with what was done since the
 * start: true once after `HKY_LULL_TICKS` intervals in which next to nothing was done, behind a burst. */
#define HKY_LULL_TICKS 6
struct hky_lull {
    uint64_t done, given_back_at;
    unsigned quiet;
};
bool hky_lull_has_come(struct hky_lull *l, uint64_t done);

#endif
