#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum hky_err hky_error_set(struct hky_error *e, enum hky_err code, const char *fmt, ...)
{
    if (e != NULL) {
        va_list ap;
        e->code = code;
        e->sys = 0;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
    }
    return code;
}

enum hky_err hky_error_sys(struct hky_error *e, enum hky_err code, int sys, const char *fmt, ...)
{
    if (e != NULL) {
        va_list ap;
        char why[96];
        size_t n;

        e->code = code;
        e->sys = sys;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
        n = strlen(e->text);
        snprintf(e->text + n, sizeof e->text - n, ": %s", strerror_r(sys, why, sizeof why));
    }
    return code;
}

void hky_assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "hikyaku: bug: %s does not hold at %s:%d\n", cond, file, line);
    abort();
}

static void *or_die(void *p)
{
    if (p == NULL) {
        fputs("hikyaku: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *hky_alloc(size_t n)
{
    return or_die(malloc(n > 0 ? n : 1));
}

void *hky_calloc(size_t count, size_t size)
{
    return or_die(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *hky_realloc(void *p, size_t n)
{
    return or_die(realloc(p, n > 0 ? n : 1));
}

char *hky_strdup(const char *s)
{
    return or_die(strdup(s));
}
