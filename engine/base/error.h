/*
 * error -- the three kinds of failure: a bug stops the process, an expected failure is returned, a protocol verdict is
 * a reply (see hikyaku/outcome.h).
 */
#ifndef HKY_BASE_ERROR_H
#define HKY_BASE_ERROR_H

#include <stddef.h>

/* Why a call failed. The caller decides by code; the text is for people. */
enum hky_err {
    HKY_OK = 0,
    HKY_E_SYNTAX,  /* input does not follow its grammar */
    HKY_E_LIMIT,   /* a stated maximum was passed */
    HKY_E_STATE,   /* not possible now; asking again later may help */
    HKY_E_MISSING, /* no such thing */
    HKY_E_EXISTS,  /* there is one already */
    HKY_E_DENIED,  /* not allowed */
    HKY_E_FULL,    /* no space: disk, spool_max, memory budget */
    HKY_E_IO,      /* the disk or a file failed */
    HKY_E_DAMAGED, /* what was stored is gone, or is not what comes back: its checksum does not fit */
    HKY_E_NET,     /* the network failed: connect, read, write */
    HKY_E_DNS,     /* name resolution failed */
    HKY_E_TLS,     /* handshake or verification failed */
    HKY_E_TIMEOUT, /* took longer than allowed */
    HKY_E_CLOSED,  /* the other side, or we, closed it */
    HKY_E_CONFIG,  /* the configuration is wrong */
    HKY_E_SCRIPT,  /* a policy script failed */
};

/* What failed, for people: what happened, where, what to do next. `sys` is an errno or 0. */
struct hky_error {
    enum hky_err code;
    int sys;
    char text[240];
};

/* Fill `e` (may be NULL) and return `code`, so that `return hky_error_set(e, ...)` reads as one thought. */
enum hky_err hky_error_set(struct hky_error *e, enum hky_err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": strerror(sys)" appended. */
enum hky_err hky_error_sys(struct hky_error *e, enum hky_err code, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A bug: stop now. On in release builds too; the journal makes a crash safe. */
#define HKY_ASSERT(cond) ((cond) ? (void)0 : hky_assert_failed(#cond, __FILE__, __LINE__))
void hky_assert_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

/* Allocation that ends the process when memory is gone; sizes come from bounded input only. Free with free(). */
void *hky_alloc(size_t n) __attribute__((malloc, returns_nonnull));
void *hky_calloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *hky_realloc(void *p, size_t n) __attribute__((returns_nonnull));
char *hky_strdup(const char *s) __attribute__((malloc, returns_nonnull));

#endif
