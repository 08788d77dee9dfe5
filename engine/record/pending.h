/*
 * pending -- where lines wait for the event log: a mapped file of the spool, whose stores outlive the process. What a
 * killed engine left there is appended to the log at the next start. After a power cut it is not trusted.
 */
#ifndef HKY_RECORD_PENDING_H
#define HKY_RECORD_PENDING_H

#include "base/buf.h"
#include "base/error.h"

struct pending_head {
    uint64_t n;          /* octets of whole lines that wait */
    uint64_t is_writing; /* those from octet `from` on are being appended to the file `dev`, `ino` at its octet `at` */
    uint64_t dev, ino, at, from;
};

struct pending {
    int fd, dir_fd; /* -1: plain memory */
    bool has_left;  /* the log did not take what the last run left: it stays in the file, lines wait in plain memory */
    char *map;
    size_t area_octets, octets;
    unsigned n_areas;
};

struct pending_left {
    uint64_t n_lines, n_damaged; /* appended; not used, for they are no lines */
};

/* Takes over what the last run left: appends it to `log_fd`, or to the file it was being appended to. An error says why
 * the lines wait in plain memory; `p` can be used all the same. */
enum hky_err pending_open(struct pending *p, const char *dir, unsigned n_areas, size_t most, int log_fd,
                          struct pending_left *left, struct hky_error *e);
/* While p->has_left: tries again. */
bool pending_recover(struct pending *p, int log_fd, struct pending_left *left);
bool pending_is_torn(int log_fd);
/* `is_kept`: lines wait; the file stays for the next start. */
void pending_close(struct pending *p, bool is_kept);
/* Area `i` as an empty buffer that never allocates. */
struct hky_buf pending_buf(const struct pending *p, unsigned i, size_t most);
/* The lines up to b->n are whole. */
void pending_keep(const struct hky_buf *b);
/* Lines from octet `from` on are appended to the file as it is now. */
void pending_begin(const struct hky_buf *b, size_t from, int log_fd);
void pending_end(const struct hky_buf *b);

#endif
