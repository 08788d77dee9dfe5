/*
 * internal -- the open journal on disk. Threads: workers submit (submit.c), the committer writes and owns the hot
 * segment (commit.c), maintenance (maintainer.c) closes, frees and copies (close.c, free.c, cold.c), the reader reads
 * bodies (body.c), the big writer streams large ones (big.c).
 * Files, from those that use nothing of the others upwards: format, scan; spool, entry, upkeep; segment, load, index;
 * body, big, submit; close, free, cold, commit; replay, maintainer; open.
 *
 * Locks, in the order they are taken: index_lock -> maintain.lock | body_locks[k]; queue.lock and epoch_lock alone.
 */
#ifndef HKY_JOURNAL_INTERNAL_H
#define HKY_JOURNAL_INTERNAL_H

#include "base/map.h"
#include "hikyaku/journal.h"
#include "journal/backend.h"
#include "journal/format.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    SLOTS_MAX = 65536,
    RESERVED_SPARES = 2,    /* kept for results and copying, so that a full disk drains */
    FIRST_OCTETS = 4 << 20, /* of the first segments: a spool that holds little takes little of the disk */
    GROWTH = 4,             /* each time a hot segment fills up, the next one is so many times as large */
    FREE_KEPT = 16,         /* recycled files kept; more are removed */
    SYNC_AFTER_MS = 20,
    LINGER_MS = 2,
    RETRY_AFTER_MS = 1000,
    UPKEEP_MS = 1000,
    UNSYNCED_MAX = 16 << 20,
    PIECE_MAX = 256 << 10,
    BODY_LOCKS = 64,
};

#define FD_NONE     (-1) /* the file is gone, the struct stays for the next */
#define FD_RESERVED (-2) /* being made, or in the way and not ours: the number is not given out */

/* Evidence kept in one segment about another one: must be written again before the holder is freed. */
struct evidence {
    uint64_t epoch; /* of the other */
    uint32_t slot;
};

struct segment {
    uint32_t slot; /* file number; index in j->slots */
    int fd;
    uint64_t octets; /* file size */
    struct segment_head head;
    bool is_closed; /* nothing more is written but the footer */
    bool is_failed; /* a write or sync failed: never recycled, no footer */
    bool has_footer;
    bool is_stuck;    /* something in it cannot be copied: its leftovers stay */
    bool is_damaged;  /* replay found acknowledged records unreadable: never recycled */
    bool is_evidence; /* and could not copy them: the file is set aside instead of removed */
    uint64_t cut_seq; /* records from here on do not count; 0 none */
    int64_t closed_mono_ms;
    /* committer's (hot) or maintenance's (cold) while open */
    uint64_t at, synced_seq, next_seq;
    uint32_t n_written; /* recipients in its records */
    struct hky_buf foot;
    struct hky_idmap plans; /* hashes of the plans in it */
    uint32_t n_attempts;    /* records of attempts in it, and what they and their footer entries take */
    uint64_t attempt_octets;
    /* under index_lock */
    uint32_t n_live; /* recipients at home here and not finished */
    uint64_t live_octets;
    uint32_t n_newest; /* unfinished recipients whose newest attempt is here */
    uint32_t n_ordinals;
    uint8_t *dead; /* bit a recipient */
    size_t dead_cap;
    struct evidence *evidence;
    size_t n_evidence, evidence_cap;
    atomic_uint readers; /* bodies being read; see body.c */
};

/* Where a recipient's newest `attempt` is; slot UINT32_MAX: the state in its message's own record. */
struct record_at {
    uint32_t slot, at8;
};
#define AT_HOME ((struct record_at){UINT32_MAX, 0})

/* A live message in the index; 40 octets with one recipient. */
struct tracked {
    uint64_t id;
    struct hky_message *message; /* counted */
    uint32_t slot, ordinal, at8, n_live;
    struct record_at attempts[];
};
struct index {
    struct tracked **at;
    size_t cap, n;
};
struct tracked *journal_index_get(const struct index *x, uint64_t id);
void journal_index_reserve(struct index *x, size_t n); /* no growing before it holds n */
void journal_index_put(struct index *x, struct tracked *t);
void journal_index_remove(struct index *x, uint64_t id);
void journal_index_fini(struct index *x); /* drops the messages' references */

struct plan_use {
    struct hky_plan *plan; /* counted */
    uint32_t n_segments;
};
struct cap_value {
    struct hky_buf meta;
    uint32_t slot;
};

/* Something the committer writes. Everything a worker can do is done before it is queued. */
struct entry {
    struct entry *next;
    struct hky_commit *commit;
    struct waiter *waiter;
    uint8_t type, flags, state;
    bool is_accept;       /* may be refused */
    bool is_durable;      /* somebody waits: sync at once */
    bool is_mark;         /* nothing but the question whether what came before it is on disk */
    bool has_body_memory; /* its body is counted, and not yet the index's to uncount */
    bool is_copy;         /* of an attempt: only when it is still the newest, at `from` */
    uint32_t index, n_plans;
    uint64_t id, key;
    struct hky_message *message; /* accepted, or the notice; counted */
    struct hky_body *body;       /* counted */
    struct hky_buf meta;
    uint32_t meta_crc, body_crc;
    uint64_t octets; /* for the unsynced bound */
    struct hky_plan **plans, *one_plan[1];
    struct hky_idmap *plans_by_hash; /* NULL while they are few */
    struct record_at from;
    struct segment *about; /* DEAD, CUT: the other segment */
    /* committer's */
    uint64_t at, seq;
    uint32_t ordinal;
    enum hky_err result;
    char head[JOURNAL_RECORD_HEADER];
};

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned n_left;
    enum hky_err result;
};

struct entry_list {
    struct entry *first, *last;
    size_t n;
};

struct hky_journal {
    struct journal_head head; /* first */
    struct hky_journal_params params;
    struct hky_journal_io io;
    char *dir;
    int root_fd, journal_fd, big_fd, damaged_fd, lock_fd;
    bool was_clean; /* the last stop, or there was none before */
    struct hky_id_source ids;

    struct {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        struct entry_list entries;
        bool is_stopping;
        bool is_urgent;    /* somebody waits for an entry */
        bool is_lingering; /* the committer wakes by itself soon: results need not wake it */
    } queue;
    int64_t opened_ms; /* monotonic */
    bool lingers;      /* the committer's: the last round had entries */
    pthread_t committer, maintainer;
    bool has_committer, has_maintainer;

    /* committer's */
    struct segment *hot;
    struct entry_list unsynced; /* written to the hot segment, not yet synced */
    struct entry_list waiting;  /* could not be written: no segment could be had */
    int64_t oldest_unsynced_ms, retry_at_ms;
    uint64_t next_seq, hot_epoch; /* of what is written next; of the newest segment written to */
    struct entry_list done;       /* outcomes to tell, after the locks are gone */

    /* segments, their states and the pool: under index_lock */
    struct segment *slots[SLOTS_MAX];
    uint32_t n_slots; /* one past the last used */
    struct segment **spare;
    size_t n_spare, spare_cap, n_segments, n_cold;
    uint64_t segment_octets;   /* of all files */
    atomic_ullong octets_next; /* of the next new file; grows with the load, shrinks on a disk without room for it */
    pthread_mutex_t epoch_lock;
    uint64_t next_epoch, epoch_limit; /* counter values: next, and the first not covered by the state file */

    pthread_mutex_t index_lock;
    struct index index;
    struct hky_idmap plans; /* hash -> struct plan_use */
    struct hky_map caps;    /* key -> struct cap_value */
    pthread_mutex_t body_locks[BODY_LOCKS];

    struct {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool is_stopping, is_poked;
        struct segment **to_close;
        size_t n_to_close, to_close_cap;
        uint64_t *to_unlink; /* big bodies of finished messages */
        size_t n_to_unlink, to_unlink_cap;
        struct segment *cold;
    } maintain;
    struct reader *reader;
    struct big_writer *big_writer;

    atomic_ullong n_submitted; /* numbers of records: see hky_journal_submitted; written under the queue's lock */
    atomic_ullong n_written;
    uint64_t n_taken; /* the committer's: how many it has taken from the queue */
    atomic_ullong body_memory, n_unsynced, n_commits, n_syncs, n_accepts, n_results, n_write_errors, n_damaged, n_live,
        n_messages, big_octets, queued_flush, n_upkeep_rounds;
    atomic_llong commit_began_ms; /* by hky_mono_ms; 0: no commit is under way */
    atomic_bool is_closing;       /* maintenance is not kept waiting for a disk that fails */
    atomic_int health;  /* enum hky_err of the last commit; not HKY_OK: `waiting` has what is to be written again */
    atomic_bool is_low; /* a large body was refused for want of room */
    atomic_ullong large_octets; /* of the last one that was; what spares beyond the reserve must leave free */
    atomic_ullong found_octets; /* the largest large body that found room since maintenance looked; 0: none */
    atomic_bool is_full;        /* no segment for accepts */
    atomic_int last_make;       /* enum hky_err of the last segment that was to be made: why there is none */
};

/* format of names and the state file: spool.c */
bool journal_spool_has_room(struct hky_journal *j,
                            uint64_t octets); /* within spool_max, min_free left; without index_lock */
/* The same, were `given_up` octets of the journal's files removed. */
bool journal_spool_would_have_room(struct hky_journal *j, uint64_t octets, uint64_t given_up);
/* Room for `octets` more of a large body of `size`, as far as that is known. If not, the log says so, and maintenance
 * gives up spares. */
bool journal_spool_has_room_for_large(struct hky_journal *j, uint64_t octets, uint64_t size);
/* A large body of `size` found room, all of it. */
void journal_spool_note_large(struct hky_journal *j, uint64_t size);
enum hky_err journal_disk_error(int number); /* errno of a failed call to the disk: HKY_E_FULL or HKY_E_IO */
enum hky_err journal_spool_open(struct hky_journal *j, struct hky_error *e); /* folders, permissions, lock */
void journal_spool_close(struct hky_journal *j);
/* The file of the spool that says how the last run ended. HKY_E_IO: the disk failed; HKY_E_STATE: it is of another
 * version; `e` says what to do. */
enum hky_err journal_spool_state_read(struct hky_journal *j, bool *was_clean, bool *is_new, struct hky_error *e);
enum hky_err journal_spool_state_write(struct hky_journal *j, uint64_t epoch_limit, bool is_clean, struct hky_error *e);
/* dir/name written whole: name.new, synced, renamed, folder synced. HKY_E_FULL, HKY_E_IO: the old file is still there.
 */
enum hky_err journal_spool_write_file(struct hky_journal *j, int dir, const char *name, const void *p, size_t n,
                                      struct hky_error *e);
/* from/name to damaged/, under a name of its own (`to`): what was set aside before stays. Durable when true. */
bool journal_spool_set_aside(struct hky_journal *j, int from, const char *name, char to[32]);

/* segment.c */
void journal_segment_name(
    uint32_t slot, char out[32]); /* of its file in journal/ Octets to and from the file of a segment. HKY_E_FULL,
                                     HKY_E_IO: the segment takes nothing more after a write or sync that failed. */
enum hky_err journal_segment_write(struct hky_journal *j, struct segment *s, struct iovec *iov, int n, uint64_t at);
enum hky_err journal_segment_sync(struct hky_journal *j, struct segment *s);
enum hky_err journal_segment_read(struct segment *s, uint64_t at, void *p, size_t n);
struct segment *journal_segment_new(struct hky_journal *j, uint32_t slot, int fd, const struct segment_head *head);
void journal_segment_free(struct segment **s);
/* An opened segment of the wanted state with room for `need` octets of records, its header written but not yet synced.
 * `is_accept`: not from the reserved. */
struct segment *journal_segment_take(struct hky_journal *j, enum segment_state state, uint64_t first_seq, uint64_t need,
                                     bool is_accept);
void journal_segment_grow(struct hky_journal *j);         /* a hot segment is full: larger ones from now on */
void journal_segment_drop_misfits(struct hky_journal *j); /* spares of another size than the next one's */
void journal_segment_keep_spare(struct hky_journal *j, struct segment *s);
/* Large mail comes before spares beyond the reserve: removes those while they are what keeps it out. */
void journal_segment_drop_extra(struct hky_journal *j);
/* Is there room for `octets`, or would there be without the spares beyond the reserve? */
bool journal_segment_may_make_room(struct hky_journal *j, uint64_t octets);
bool journal_segment_prepare(struct hky_journal *j); /* one more spare, zero-written; false: cannot, or not needed */
enum hky_err journal_segment_lack(const struct hky_journal *j); /* why there is no segment: HKY_E_FULL, HKY_E_IO */
enum hky_err journal_segment_retire(struct hky_journal *j,
                                    struct segment *s); /* header says free; back to the pool, or removed */
struct segment *journal_segment_by_epoch(struct hky_journal *j, struct evidence h);
uint64_t journal_segment_octets_for(uint64_t need); /* of a file that has room for so many octets of records */
/* What journal_entry_need may be for one more entry. Footer and trailer are reserved, and the footer's list stays
 * within its maximum: what an entry adds to the list is at most half of its need. */
uint64_t journal_segment_room(const struct segment *s);
uint64_t journal_segment_footer_octets(const struct segment *s);
/* HKY_E_LIMIT: there is no room for it, or its list is larger than a footer's or lacks records; else as
 * journal_segment_write. The segment stays good without one. */
enum hky_err journal_segment_write_footer(struct hky_journal *j, struct segment *s);

/* load.c */
/* The footer's entries of a closed segment, from disk or from its records. `foot` may take s->octets, which is enough
 * for any list of records. HKY_E_FULL: no memory. */
enum hky_err journal_segment_load(struct hky_journal *j, struct segment *s, uint64_t floor, struct hky_buf *foot,
                                  struct scan_report *scan);

/* index.c; under index_lock */
uint64_t journal_message_weight(const struct hky_message *m); /* octets it takes, near enough */
/* The bitmap of recipients in the segment that are finished, by their ordinal. */
void journal_segment_mark_dead(struct segment *s, uint32_t ordinal);
bool journal_segment_is_dead(const struct segment *s, uint32_t ordinal);
/* The segment has `n` recipients: makes the bitmap as large. */
void journal_segment_ordinals(struct segment *s, uint32_t n);
/* `holder` has a record that says something about `other`: it must be written again before `holder` is freed. */
void journal_segment_add_evidence(struct segment *holder, const struct segment *other);
/* A message lives from now on: its record is at `at` of the segment, its first recipient has this ordinal. */
struct tracked *journal_track(struct hky_journal *j, struct hky_message *m, struct segment *s, uint32_t ordinal,
                              uint64_t at, uint64_t body_at);
/* A recipient's newest attempt is `to` from now on. */
void journal_track_attempt(struct hky_journal *j, struct tracked *t, uint32_t index, struct record_at to);
/* A record of an attempt whose meta has `meta_n` octets was written to the segment. */
void journal_segment_count_attempt(struct segment *s, uint32_t meta_n);
/* One recipient is finished; `where` holds the evidence. true: that was the message's last. */
bool journal_track_finish(struct hky_journal *j, struct tracked *t, uint32_t index, struct segment *where);
void journal_untrack(struct hky_journal *j, struct tracked *t); /* drops body memory and the reference */
void journal_plan_used(struct hky_journal *j, struct segment *s, struct hky_plan *plan); /* first use in this segment */
/* The segment is freed: gives up its plans. */
void journal_plans_released(struct hky_journal *j, struct segment *s);
/* The newest value of a cap, as the meta of its record, is in segment `slot`. */
void journal_cap_set(struct hky_journal *j, struct hky_str meta, uint32_t slot);

/* entry.c */
/* An entry without contents, for the caller to fill; it owns what is put into it. */
struct entry *journal_entry_new(enum journal_record_type type);
/* Frees it with all it owns, and gives back its share of the bounds. */
void journal_entry_free(struct hky_journal *j, struct entry *e);
void journal_entry_seal(struct entry *e); /* checksums */
/* Takes a reference: the plan is written before this entry where its segment does not have it yet. */
void journal_entry_add_plan(struct entry *e, struct hky_plan *p);
/* Hands the entry over to the committer; it was sealed. */
void journal_entry_submit(struct hky_journal *j, struct entry *e);
/* The same, and journal_waiter_wait(w) waits until it is on disk; sealed here. */
void journal_entry_submit_for(struct hky_journal *j, struct entry *e, struct waiter *w);
/* The record of a sealed entry, as it is written next in the segment. */
struct journal_record journal_entry_record(const struct entry *e, const struct segment *s);
uint64_t journal_entry_need(const struct entry *e); /* octets in a segment, footer and plans included */
bool journal_entry_fits(const struct hky_journal *j, const struct entry *e); /* into an empty one of the largest size */
struct timespec journal_in_ms(int64_t ms);                                   /* from now, by the monotonic clock */
/* A list in the order of submission: to its end, from its head (NULL: it is empty). */
void journal_list_add(struct entry_list *l, struct entry *e);
struct entry *journal_list_take(struct entry_list *l);
/* A thread that waits for entries: it sets the waiter up, submits, waits and frees it. The committer calls done once
 * for each entry. */
void journal_waiter_init(struct waiter *w);
enum hky_err
journal_waiter_wait(struct waiter *w); /* until all that was submitted with it is on disk; HKY_E_FULL, HKY_E_IO */
void journal_waiter_done(struct waiter *w, enum hky_err result);
void journal_waiter_fini(struct waiter *w);

/* commit.c */
/* The committer's thread, until the journal closes. */
void *journal_committer_run(void *journal);
bool journal_commit_cut(struct hky_journal *j, struct entry_list *entries); /* at open, before the thread runs */

/* replay.c */
/* Reads all segments, calls `cb` for what lives, and writes down what must not count (HKY_E_IO: the disk failed).
 * Called at open, when no other thread runs. */
enum hky_err journal_replay_run(struct hky_journal *j, const struct hky_journal_replay *cb,
                                struct hky_journal_report *report, bool was_clean, struct hky_error *e);

/* upkeep.c: asked of maintenance, by any thread */
/* Maintenance looks at everything soon; closes this segment; removes this large body's file. */
void journal_upkeep_poke(struct hky_journal *j);
void journal_upkeep_close_segment(struct hky_journal *j, struct segment *s);
void journal_upkeep_unlink_big(struct hky_journal *j, uint64_t id);

/* close.c, free.c; on the maintenance thread */
/* Writes the footer and closes the segment; where that fails it stays without one, and a start reads its records. */
void journal_segment_close(struct hky_journal *j, struct segment *s);
void journal_segment_close_queued(struct hky_journal *j); /* those of journal_upkeep_close_segment */
void journal_segment_free_done(struct hky_journal *j);    /* all that nobody lives in */

/* maintainer.c */
/* The thread of maintenance, until the journal closes. */
void *journal_maintainer_run(void *journal);
void journal_maintainer_finish(
    struct hky_journal *j); /* at the stop, other threads gone: the open segments get footers */

/* cold.c */
bool journal_cold_copy_one(struct hky_journal *j); /* one segment's leftovers; false: nothing to do */
void journal_cold_close(struct hky_journal *j);    /* at the stop: the open cold segment gets its footer */

/* body.c */
/* The lock under which the body of this message is set or dropped; some messages share one. */
pthread_mutex_t *journal_body_lock(struct hky_journal *j, uint64_t id);
/* Drops the body from memory if more than `body_memory` octets of bodies are there. */
void journal_body_over_budget(struct hky_journal *j, struct hky_message *m);
/* The reader's thread. HKY_E_LIMIT: the system allows no thread. */
enum hky_err journal_reader_start(struct hky_journal *j, struct hky_error *e);
void journal_reader_stop(struct hky_journal *j);

/* big.c */
/* The big writer's thread, as the reader's. */
enum hky_err journal_big_start(struct hky_journal *j, struct hky_error *e);
void journal_big_stop(struct hky_journal *j);
/* Removes the file of a large body that no message needs any more. */
void journal_big_unlink(struct hky_journal *j, uint64_t id);
void journal_big_clean(struct hky_journal *j); /* after replay: files of no message */

/* The backend on disk: submit.c, body.c, big.c. */
struct hky_id_source *journal_disk_ids(struct hky_journal *j);
enum hky_err journal_disk_room(struct hky_journal *j, uint64_t size);
void journal_disk_accept(struct hky_journal *j, struct hky_message *m, struct hky_commit *c);
void journal_disk_attempt(struct hky_journal *j, const struct hky_recipient *r, struct hky_commit *c);
void journal_disk_finish(struct hky_journal *j, const struct hky_recipient *r, struct hky_message *notice,
                         struct hky_commit *c);
void journal_disk_cap(struct hky_journal *j, struct hky_str key, struct hky_str value, struct hky_commit *c);
bool journal_disk_body(struct hky_journal *j, struct hky_body_read *r);
struct hky_body *journal_disk_body_in_memory(struct hky_journal *j, struct hky_message *m);
bool journal_disk_header(struct hky_journal *j, struct hky_message *m, struct hky_body **body, struct hky_str *out);
void journal_disk_body_drop(struct hky_journal *j, struct hky_message *m);
enum hky_err journal_disk_big_open(struct hky_journal *j, uint64_t id, struct hky_loop *loop,
                                   void (*on_room)(void *ctx), void *ctx, struct hky_big **out);
void journal_disk_stats(struct hky_journal *j, struct hky_journal_stats *out);
uint64_t journal_disk_submitted(struct hky_journal *j);
uint64_t journal_disk_written(struct hky_journal *j);
enum hky_err journal_disk_takes_results(struct hky_journal *j);
void journal_disk_sync(struct hky_journal *j, struct hky_commit *c);
enum hky_err journal_disk_flush(struct hky_journal *j);

#endif
