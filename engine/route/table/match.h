/*
 * match -- sets of addresses, domains and .domains, and the conditions made of them (`to`, `except`, `sender`,
 * `author`). Pure; lists are counted and swapped whole when their file changes.
 */
#ifndef HKY_ROUTE_MATCH_H
#define HKY_ROUTE_MATCH_H

#include "base/error.h"
#include "base/map.h"
#include "route/table/arena.h"

#include <pthread.h>
#include <sys/stat.h>

/* An address in the form that sets compare: ASCII lower case, split at the last @. */
struct hky_match_key {
    char text[330];
    uint16_t n, domain_at; /* domain_at == n: no domain */
    bool is_null;
};
void hky_match_key_init(struct hky_match_key *k, struct hky_str canonical);

enum hky_set_entry_kind {
    HKY_SET_ENTRY_EVERYONE,
    HKY_SET_ENTRY_NULL,
    HKY_SET_ENTRY_ADDRESS,
    HKY_SET_ENTRY_DOMAIN,
    HKY_SET_ENTRY_PARENT
};
struct hky_set_entry {
    enum hky_set_entry_kind kind;
    char text[330]; /* lower case; PARENT without its first dot */
};
/* "*", "<>", "a@b", "domain", ".domain". HKY_E_SYNTAX with text. */
enum hky_err hky_set_entry_parse(struct hky_str s, struct hky_set_entry *out, struct hky_error *e);

struct hky_set {
    int refs; /* atomic */
    bool is_everyone, has_null;
    struct hky_map addresses, domains, parents;
};
/* An empty set with one reference. Entries are added before other threads see it. */
struct hky_set *hky_set_new(void);
void hky_set_add(struct hky_set *s, const struct hky_set_entry *entry);
void hky_set_add_all(struct hky_set *to, const struct hky_set *from);
/* Does an entry of the set match this address, as hky_address_fits has it? */
bool hky_set_has(const struct hky_set *s, const struct hky_match_key *k);
/* Is everybody of `inner` in `outer`: a domain has its addresses, a .domain all below it? */
bool hky_set_is_subset(const struct hky_set *inner, const struct hky_set *outer);
/* Entries, without "*" and "<>". */
size_t hky_set_n(const struct hky_set *s);
void hky_set_unref(struct hky_set **s);

/* list "file": one entry a line, # begins a comment. */
struct hky_list {
    const char *name, *dir; /* the file below the policy's folder */
    pthread_mutex_t lock;
    struct hky_set *set; /* under lock */
    struct stat seen;    /* the file that was read last */
    uint64_t hash;       /* of its octets */
    bool has_line_end;   /* its last line was whole */
    struct {             /* a change after which the file has not been the same for long enough */
        bool is_there, is_reported;
        struct stat seen;
        uint64_t hash;
        int64_t since_ms;
    } change;
};
#define HKY_LIST_OCTETS_MAX (256u << 20)
/* The entries of a list's text into `set`; HKY_E_SYNTAX: "name:line: ...", what came before is in the set. The text of
 * `e` holds nothing of the file: whoever may name a list need not be allowed to read it. */
enum hky_err hky_list_parse(struct hky_str text, const char *name, struct hky_set *set, struct hky_error *e);
/* Read the list for the first time. A bad line is HKY_E_SYNTAX with its number. */
enum hky_err hky_list_open(struct hky_list *l, struct hky_error *e);

enum hky_list_state { HKY_LIST_SAME, HKY_LIST_WAITS, HKY_LIST_TAKEN };
/*
 * Reads the file again when it has changed. A program may be writing it: a change counts (HKY_LIST_TAKEN) once the file
 * has been the same for two seconds by `mono_ms` and has the same octets as at the first look; until then the answer is
 * HKY_LIST_WAITS. The wait is fifteen seconds when less than half of the entries are left, or when the file was written
 * in place and has fewer entries than before or has lost the end of its last line.
 */
struct hky_list_messages {
    struct hky_error warning; /* the file has lost more than half of its entries; given once a change */
    struct hky_error fewer;   /* the list was taken with fewer entries: both counts */
    struct hky_error error;   /* the file cannot be read or has a bad line: the list stays as it is */
};
enum hky_list_state hky_list_refresh(struct hky_list *l, int64_t mono_ms, struct hky_list_messages *messages);
/*
 * For a list that was just opened, of a policy that follows another one: `was` is its list of the same file. The file
 * may be half written at this moment, so the list goes on with the set and the looks of `was`, and the answer is
 * HKY_LIST_WAITS, until hky_list_refresh finds that the change counts. The change counts at once, HKY_LIST_TAKEN, when
 * all entries of before are there and the last line is whole, or when the file has been unchanged for long enough by
 * its times (`now_ms` is the time of day).
 */
enum hky_list_state hky_list_succeed(struct hky_list *l, struct hky_list *was, int64_t mono_ms, int64_t now_ms);
bool hky_list_has(struct hky_list *l, const struct hky_match_key *k);
struct hky_set *hky_list_set(struct hky_list *l); /* counted */

struct hky_match {
    bool is_stated, is_empty; /* is_empty: the condition is { }, which nobody matches */
    struct hky_set *set;      /* owned */
    struct hky_list **lists;
    uint32_t n_lists;
};
/* Is the address in the set, or in one of the lists as they are now? Nobody is in a condition that is not stated. */
bool hky_match_has(const struct hky_match *m, const struct hky_match_key *k);

#endif
