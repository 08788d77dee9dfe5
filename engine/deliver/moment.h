/*
 * moment -- dates with a time of day in the words of a reply, and the small readers that wait.c shares. Pure; the text
 * is in lower case.
 */
#ifndef HKY_DELIVER_MOMENT_H
#define HKY_DELIVER_MOMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MOMENT_NUMBER_MAX UINT64_C(1000000) /* a number does not grow beyond ten times this */

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool is_letter(char c)
{
    return c >= 'a' && c <= 'z';
}

static inline const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && *p == ' ')
        p++;
    return p;
}

static inline bool begins(const char *p, const char *end, const char *word)
{
    size_t n = strlen(word);

    return (size_t)(end - p) >= n && memcmp(p, word, n) == 0;
}

static inline uint64_t read_number(const char **p, const char *end)
{
    uint64_t n = 0;

    for (; *p < end && is_digit(**p); ++*p)
        n = n > MOMENT_NUMBER_MAX ? n : n * 10 + (uint64_t)(**p - '0');
    return n;
}

/* A moment that begins at *at: "28 nov 2026 23:50:00 utc" (RFC 5322 3.3), "2026-11-28t23:50:00z" (RFC 3339), "nov 28
 * 20:10:00 2026" (as of ctime) or "nov 28, 2026 20:10 jst". Sets *sec, seconds since 1970, and moves *at behind it.
 * False: there is none. A text without a zone means UTC. */
bool hky_moment_read(const char **at, const char *end, int64_t *sec);

#endif
