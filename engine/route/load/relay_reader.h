/*
 * relay_reader -- what the files that compile a relay share: the relay that is being compiled, and its keys.
 */
#ifndef HKY_ROUTE_RELAY_READER_H
#define HKY_ROUTE_RELAY_READER_H

#include "route/load/loader.h"
#include "route/load/relay_spec.h"

/* One relay being compiled: `body` is the table of its own keys, `merged` the same keys over the preset's values. */
struct hky_relay_reader {
    struct hky_loader *l;
    const struct hky_relay_spec *spec;
    int body, merged;
    char what[160];
    struct hky_relay *out;
    bool has_no_preset; /* the relay names an unknown preset */
    bool lacks_user;    /* the user is missing, which was reported */
};

/* ---- relay_reader.c ---- */

const char *hky_loader_keep(struct hky_loader *l, const char *z); /* a copy that lives as long as the table */
struct hky_place hky_relay_reader_place(struct hky_relay_reader *r, const char *key); /* where the key is written */
/* Is the key written in the relay's own table (not only in its preset)? */
bool hky_relay_reader_has(struct hky_relay_reader *r, const char *key);
/* The key has a value of another type, or a misspelt name, and that was already reported: then it is not reported as
 * missing, too. */
bool hky_relay_reader_is_reported(struct hky_relay_reader *r, const char *key, int wanted_type);
/* The index of the key's value in `names`; `otherwise` when the key is not stated, or with a problem. */
int hky_relay_reader_choice(struct hky_relay_reader *r, const char *key, const char *const *names, int n,
                            int otherwise);

/* ---- relay_login.c ---- */

/* Reads user, password, oauth and auth; the host and tls must have been read. */
void hky_relay_reader_login(struct hky_relay_reader *r);

#endif
