/* Private to load: load.c (options, threads, report), load_client.c (one connection), load_compare.c (what arrived). */
#ifndef HKY_CLI_LOAD_H
#define HKY_CLI_LOAD_H

#include "cli/cli.h"

#include <pthread.h>
#include <stdio.h>

enum hky_load_state {
    HKY_LOAD_UNSENT,  /* not sent before the run ended */
    HKY_LOAD_ACKED,   /* 250 after the dot */
    HKY_LOAD_REFUSED, /* a 4xx or 5xx somewhere */
    HKY_LOAD_UNKNOWN, /* the connection ended after the dot: may have been accepted */
};

#define HKY_LOAD_DOMAINS_MAX 64

struct hky_load {
    const char *host, *port;
    uint64_t n, size;
    unsigned connections;
    uint64_t rate; /* messages a second at most, over all connections; 0 = no limit */
    const char *from, *scenario;
    struct {
        char *name;
        unsigned weight;
    } domains[HKY_LOAD_DOMAINS_MAX];
    unsigned n_domains, total_weight;
    char run[16];          /* of this run, in X-Load-Id: RUN-SEQ */
    uint64_t next;         /* atomic: next number to send */
    unsigned char *states; /* n, enum hky_load_state */
    uint32_t *latency_us;  /* n, dot to reply */
    uint64_t done;         /* atomic */
    FILE *ids;             /* or NULL: "SEQ acked ID", "SEQ refused REPLY", "SEQ unknown" */
    pthread_mutex_t lock;  /* ids, first_refusal */
    char first_refusal[256];
    int64_t started_ns;
    bool is_stopping, is_answered; /* atomic */
};

/* The address of message `seq`: spread over the domains by weight. */
void hky_load_address(const struct hky_load *load, uint64_t seq, char *out, size_t n);
void *hky_load_client(void *load); /* a thread: sends until no message is left */

/* Waits until the sink's index has every acknowledged message, or nothing new arrived for `patience_ms`; then counts
 * the messages that are missing and those that arrived twice. False: the index cannot be read. */
struct hky_load_arrivals {
    uint64_t arrived, lost, twice, unexpected;
    uint64_t first_lost;
};
bool hky_load_compare(const struct hky_load *load, const char *store, int64_t patience_ms,
                      struct hky_load_arrivals *out);

#endif
