/*
 * internal -- the store of events, its readers and the event log, as the files of this stage see them.
 *
 *   code.c       an event as octets, and as a line
 *   store.c      the files of spool/events/: segments, numbers, cursors
 *   reader.c     readers, their cursors, skipping for a reader that lags
 *   event_log.c  the first reader: events.jsonl
 *   record.c     opens all of it; the thread of upkeep and of the event log
 */
#ifndef HKY_RECORD_INTERNAL_H
#define HKY_RECORD_INTERNAL_H

#include "hikyaku/record.h"

#include <pthread.h>
#include <time.h>

/* ---- code.c ---- */

#define RECORD_EVENT_MOST (32u << 10) /* octets of an encoded event */

struct record_stamp { /* the text of an instant's second, reused for events of the same second */
    int64_t second;
    char text[32];
};
/* Appends the event as octets, as they are kept in spool/events/; at most RECORD_EVENT_MOST. */
void record_encode(const struct hky_event *ev, struct hky_buf *b);
bool record_decode(struct hky_str s, struct hky_event_view *v); /* sets all but the number; borrows from `s` */
/* Appends the line of the event log, a JSON object, with its line end. */
void record_format_line(const struct hky_event_view *v, struct record_stamp *stamp, struct hky_buf *b);

/* ---- store.c ---- */

/* Precedes each event in a segment. */
struct record_head {
    uint32_t n;   /* octets of the encoded event */
    uint32_t crc; /* of the number and those octets */
    uint64_t number;
};

/* The first page of a segment's file. */
struct record_segment_head {
    char magic[16];
    uint64_t first; /* number of its first event; 0: a spare */
    uint64_t end;   /* octets in use, with this page; atomic: events before it are complete */
};

struct record_segment {
    TAILQ_ENTRY(record_segment) link;
    struct record_segment_head *head; /* mapped; the events follow at RECORD_PAGE */
    size_t octets;
    unsigned file;   /* the number that is its name in spool/events/ */
    bool is_memory;  /* in memory, because there was no room for a file */
    unsigned n_pins; /* readers that are reading it */
    uint64_t n;      /* events in it */
};
#define RECORD_PAGE   4096u
#define RECORD_SPARES 8 /* segments ready for use: at 200 octets an event, 40,000 events */

TAILQ_HEAD(record_segments, record_segment);

#define RECORD_NAMES 32
#define RECORD_NAME  32
/* spool/events/cursors: a mapped page, whose stores outlive the process. */
struct record_cursors {
    char magic[16], boot[48];
    uint64_t is_clean; /* stopped in order: `reserved` is the last number that was given out */
    uint64_t reserved; /* synced: no number above this one was given out, even before a power cut */
    struct {
        char name[RECORD_NAME];
        uint64_t done, missed;
    } names[RECORD_NAMES];
};

struct record_store {
    pthread_mutex_t lock; /* guards everything below, except atomic fields */
    struct record_segments segments, spares, trash;
    unsigned n_spares;
    uint64_t next;                 /* the number of the next event */
    uint64_t n_lost, n_unreported; /* lost events: since the start (atomic), since the last report */
    struct record_cursors *cursors;
    bool is_kept; /* the cursors lie in a file */
    int dir_fd;
    size_t segment_octets;
    uint64_t min_free;
    struct hky_log *log;
};

/* Does not fail because of the disk: events that cannot be kept in a file are kept in memory, and the log says so. */
void record_store_open(struct record_store *s, const struct hky_record_params *p);
void record_store_close(struct record_store *s);
/* Under the lock. False: there was no room, and the event is counted as lost. *is_upkeep_due: a spare was used, so
 * record_store_upkeep() should run soon. */
bool record_store_append(struct record_store *s, struct hky_str encoded, bool *is_upkeep_due);
/* Makes spares and reserves numbers. Not under the lock, because it may block. */
void record_store_upkeep(struct record_store *s);
/* Reuses or removes a segment that no reader needs any more. Under the lock. */
void record_store_release(struct record_store *s, struct record_segment *g);
/* Finds the event at `at` of a segment, of which `end` octets are in use. False: there is none, or it is damaged. */
bool record_store_event(const struct record_segment *g, size_t at, size_t end, struct record_head *head);
static inline size_t record_store_step(uint32_t n)
{
    return (sizeof(struct record_head) + n + 7) & ~(size_t)7;
}

/* ---- reader.c ---- */

TAILQ_HEAD(record_readers, hky_record_reader);
struct hky_record_reader {
    TAILQ_ENTRY(hky_record_reader) link;
    struct hky_record *record;
    unsigned slot; /* in the cursors; RECORD_NAMES: none is kept */
    struct hky_record_reader_params p;
    char name[RECORD_NAME];
    struct hky_task task;
    bool is_posted, is_closed;
    bool is_armed;             /* its last read found nothing: the next event calls on_ready */
    struct record_segment *at; /* the segment that it reads, pinned; NULL: none yet */
    size_t offset;
    struct record_segment *skip_to; /* it lags: continues here after `at` */
    uint64_t after;                 /* the last number that it was given */
    uint64_t done, missed;
};

/* Under the store's lock. */
void record_readers_wake(struct hky_record *r);
/* Under the store's lock: skips events for readers that lag, then frees the segments that no reader needs. */
void record_readers_trim(struct hky_record *r);

/* ---- event_log.c ---- */

struct record_event_log;
/* Opens the file, then begins to read on a thread of its own. HKY_E_IO: the file cannot be opened; HKY_E_LIMIT: the
 * system allows no thread. */
enum hky_err record_event_log_open(struct hky_record *r, const struct hky_record_params *p,
                                   struct record_event_log **out, struct hky_error *e);
void record_event_log_reopen(struct record_event_log *l);
void record_event_log_close(struct record_event_log **l); /* writes the remaining events if it can */
uint64_t record_event_log_missed(const struct record_event_log *l);

/* ---- record.c ---- */

struct record_writer { /* one for each worker, and one for other threads */
    pthread_mutex_t lock;
    struct hky_buf scratch;
};

struct hky_record {
    struct record_store store;
    struct record_readers readers; /* under the store's lock */
    struct record_event_log *event_log;
    struct record_writer *writers;
    unsigned n_writers;
    struct hky_log *log;
    const struct hky_clock *clock;
    struct hky_loop *loop; /* of upkeep */
    pthread_t thread;
    bool is_running;
    struct hky_task upkeep;
    struct hky_timer again;
    bool is_upkeep_posted; /* atomic */
    uint64_t n_skipped;    /* under the store's lock: skipped events not yet reported */
    char skipped_by[RECORD_NAME];
};

#endif
