/*
 * journal -- keeps what was accepted and what became of it, durably
 *
 *   accept -> route -> [journal] -> schedule -> deliver
 *
 * A message exists for the rest of the engine once its commit said HKY_OK; from then on it survives power loss.
 * Threads: submit from any worker; `done` arrives on the loop named in the commit. DESIGN.md 3.2.
 */
#ifndef HIKYAKU_JOURNAL_H
#define HIKYAKU_JOURNAL_H

#include "base/clock.h"
#include "base/log.h"
#include "hikyaku/message.h"
#include "net/loop.h"

#include <sys/types.h>
#include <sys/uio.h>

struct hky_journal; /* the open journal directory; owned by the engine */

/* Proof that something is on disk; only the committer makes one. A 250 needs it. */
struct hky_durable;

struct hky_journal_params {
    const char *dir;         /* the spool; journal files in dir/journal, big bodies in dir/big, damage in dir/damaged */
    uint64_t segment_octets; /* of the largest segment, default 64 MiB; the first ones are smaller, at most 4 MiB */
    uint64_t spool_max;      /* 0 = no bound; else at least four segments (HKY_E_CONFIG) */
    uint64_t min_free;       /* octets that must stay free on the file system */
    uint64_t body_memory;    /* bodies kept in memory at most */
    uint64_t footer_max;     /* octets of the list that a closed segment ends with; 0 = 64 MiB, and never more */
    uint32_t cold_after_ms;  /* how long a closed segment rests before its leftovers are copied; 0 = 60 s */
    uint32_t upkeep_ms;      /* how often maintenance looks without being asked; 0 = 1 s */
    uint32_t retry_after_ms; /* how long after a failed write the disk is tried again; 0 = 1 s */
    uint32_t spares_after_ms; /* so long after open spares are reserved, not written: mail does not wait behind zeros */
    const struct hky_clock *clock;
    struct hky_log *log;
    /* Fault injection for tests; NULL = the system's calls. Same contracts as pwritev, fdatasync, openat ... */
    const struct hky_journal_io *io;
};

struct hky_journal_io {
    void *ctx;
    ssize_t (*pwritev)(void *ctx, int fd, const struct iovec *iov, int n, off_t at);
    int (*fdatasync)(void *ctx, int fd);
    int (*openat)(void *ctx, int dir, const char *name, int flags, mode_t mode);
    int (*renameat)(void *ctx, int from_dir, const char *from, int to_dir, const char *to);
    int (*unlinkat)(void *ctx, int dir, const char *name, int flags);
    int (*fallocate)(void *ctx, int fd, int mode, off_t at, off_t n);
};

/* What the past holds, given at open, before it returns, on the calling thread. */
struct hky_journal_replay {
    void *ctx;
    /* A message with at least one recipient not finished; states are as recorded; one reference goes to the callee for
     * each live recipient, the callee needs take no more. Bodies are not loaded. */
    void (*on_message)(void *ctx, struct hky_message *m);
    /* The newest record of a cap key. */
    void (*on_cap)(void *ctx, struct hky_str key, struct hky_str value);
};
struct hky_journal_report { /* of the replay, for the log and `status` */
    uint64_t segments, messages, recipients, octets_read, torn_tail_octets;
    uint64_t damaged_records; /* acknowledged and unreadable: copied to damaged/ */
    uint64_t unclean_stops;   /* 1 when the last stop was not clean */
    uint64_t
        maybe_duplicates; /* recipients that were being sent at an unclean stop: at most, by the last known state */
    int64_t took_ms;
};

/* Opens, locks, replays, opens a new segment, starts the committer and its helpers.
 * HKY_E_EXISTS: another engine has the spool. HKY_E_IO, HKY_E_DENIED: say which path and what to do. */
enum hky_err hky_journal_open(const struct hky_journal_params *params, const struct hky_journal_replay *replay,
                              struct hky_journal **out, struct hky_journal_report *report, struct hky_error *e);
/* Commits what was submitted, marks the stop as clean, unlocks. */
void hky_journal_close(struct hky_journal **j);
/* The same for an engine that could not start: the next open reports of the last stop what this one reported. */
void hky_journal_close_unused(struct hky_journal **j);
/* Has another engine the spool in this folder? HKY_E_EXISTS: yes, and `e` names it. HKY_OK: no, or nobody can know. It
 * changes nothing. */
enum hky_err hky_journal_is_taken(const char *dir, struct hky_error *e);

/* Where new messages get their ids from; it is past all ids of messages in the journal. Any thread. */
struct hky_id_source *hky_journal_ids(struct hky_journal *j);

/* A request to be notified when something is on disk. The submitter embeds it and does not touch it until `done`. */
struct hky_commit {
    struct hky_loop *loop;
    void (*done)(struct hky_commit *c, const struct hky_durable *durable, enum hky_err result);
    struct hky_task task; /* the journal's from here on */
    struct hky_commit *next;
    enum hky_err result;
};

/* May a message of `size` octets come in? HKY_OK; HKY_E_FULL: 452 4.3.1; HKY_E_IO: 451 4.3.0; HKY_E_STATE: too much
 * unsynced at the moment (16 MiB): stop reading this client and ask again when a commit is done. Cheap. */
enum hky_err hky_journal_room(struct hky_journal *j, uint64_t size);

/*
 * Submit one accepted message with its recipients' plans and states; `done` is called when it is on disk.
 *   m   the caller's reference stays the caller's. Its body is in m->body (m->body->n == m->size, at most
 * HKY_BIG_BODY), or in a committed big file (m->is_big). From here on read it with hky_journal_body() only: m->body
 * may go any time. done(HKY_OK) with a token · done(HKY_E_FULL) no space: 452 4.3.1 · done(HKY_E_LIMIT) with all its
 * recipients it does not fit an empty segment either: 552 5.3.4 · done(HKY_E_IO) disk failed: 451 4.3.0; the message
 * will not come back after a restart.                             RFC 5321 6.1: responsibility starts with the 250.
 */
void hky_journal_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c);

/* Records a recipient's whole delivery state as it is now (encoded during the call); it replaces older ones. It is
 * written at once and synced with the next commit or after 20 ms. `c` may be NULL. With a final state it ends the
 * recipient for the next start, but not yet for this run: hky_journal_finish must follow, until which the body stays.
 */
void hky_journal_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c);

/* A recipient is finished (its state is final). `notice` NULL, or a message to accept in the same commit: both or none.
 * After the call the recipient's slot is dead for the journal; the caller drops its reference to the message. */
void hky_journal_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                        struct hky_commit *c);

/* The newest value of a cap (reserved slots); survives segments. Durable when done. */
void hky_journal_cap(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c);

/* A body, in pieces of at most 256 KiB or, when in memory, all that is left. Never blocks. Whoever reads it whole uses
 * one struct for all pieces in order and changes only `at`: so its checksum is compared before the last piece is given.
 * result HKY_E_DAMAGED: the stored body is not the one that was accepted, or it is gone; it was copied to damaged/ and
 * logged, and what was read so far must not be used · HKY_E_MISSING: all recipients ended meanwhile, and the body is
 * not kept any more · HKY_E_IO: the disk did not answer; asking again may help. */
struct hky_body_read {
    struct hky_loop *loop;
    struct hky_message *message; /* the caller keeps a reference until done */
    uint64_t at;                 /* first octet wanted */
    void (*done)(struct hky_body_read *r);
    /* out */
    enum hky_err result;
    const char *p;
    size_t n;              /* >= 1 unless at the end or failed */
    struct hky_body *body; /* what p points into; counted */
    /* the journal's: the checksum so far, of the octets before `checked`, and the one that was stored */
    uint64_t checked;
    uint32_t crc, stored_crc;
    bool has_stored_crc;
    struct hky_task task;
    struct hky_body_read *next;
};
/* true: answered at once (result, p, n are set, done is not called). false: done will be called on r->loop. */
bool hky_journal_body(struct hky_journal *j, struct hky_body_read *r);
void hky_body_read_release(struct hky_body_read *r); /* p is invalid after this */
/* The body, counted, when it is in memory; else NULL. */
struct hky_body *hky_journal_body_in_memory(struct hky_journal *j, struct hky_message *m);
/* The header section, from memory or the page cache; *body is counted, *out borrows from it. False: it is only on the
 * disk; reading ahead was started, so a later call finds it. Blocks only on a file system without RWF_NOWAIT. */
bool hky_journal_header(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out);
/* The body is not needed in memory for now (deferred, parked, held). */
void hky_journal_body_drop(struct hky_journal *j, struct hky_message *m);

/* A body above HKY_BIG_BODY, streamed to big/ID as it arrives by a second thread. Write copies; false: pause the client
 * until on_room. HKY_E_FULL: spool_max or min_free would be passed; found on the way, `done` says it. Commit appends
 * the body's checksum and syncs file and folder, then `done`; abort (also after failure) removes the file. */
struct hky_big;
enum hky_err hky_journal_big_open(struct hky_journal *j, uint64_t id, struct hky_loop *loop, void (*on_room)(void *ctx),
                                  void *ctx, struct hky_big **out);
bool hky_journal_big_write(struct hky_big *b, const void *p, size_t n);
void hky_journal_big_commit(struct hky_big **b, struct hky_commit *c);
void hky_journal_big_abort(struct hky_big **b);

struct hky_journal_stats { /* atomically read, for status and metrics */
    uint64_t recipients_live, messages_live, segments, cold_segments, free_segments, octets, commits, syncs, accepts,
        results;
    uint64_t body_memory, unsynced, write_errors, damaged;
    uint64_t upkeep_rounds; /* how often maintenance has looked at everything */
    enum hky_err health;    /* HKY_OK; HKY_E_FULL, HKY_E_IO: nothing is accepted; HKY_E_TIMEOUT: the disk hangs */
    bool takes_results;     /* hky_journal_takes_results says HKY_OK */
};
/* The figures as they are now, each for itself. Any thread. */
void hky_journal_stats(struct hky_journal *j, struct hky_journal_stats *out);
/* The number of the last record that was submitted, and the number up to which all records were written to the kernel:
 * a kill of the process loses none of those (a power cut may). Cheap; any thread. */
uint64_t hky_journal_submitted(struct hky_journal *j);
uint64_t hky_journal_written(struct hky_journal *j);

/* Can results be written at present? If not, no further mail should be sent: after a kill all of it would be sent
 * again. HKY_OK; HKY_E_FULL, HKY_E_IO: the disk refused them, and what is reserved for results, too; HKY_E_TIMEOUT: one
 * commit has been under way for longer than HKY_COMMIT_MOST_MS. The journal tries again by itself. Takes no lock; any
 * thread.
 */
#define HKY_COMMIT_MOST_MS 2000
enum hky_err hky_journal_takes_results(struct hky_journal *j);

/* Calls `done` when everything submitted before is on disk; or with HKY_E_IO or HKY_E_FULL as soon as the disk has
 * refused it. It is then written as soon as the disk takes it, and lost if the engine ends before that. So nobody waits
 * longer than one write takes. */
void hky_journal_sync(struct hky_journal *j, struct hky_commit *c);
/* The same, but it blocks until then, and returns what `done` would be given. Start-up and tests. */
enum hky_err hky_journal_flush(struct hky_journal *j);

#endif
