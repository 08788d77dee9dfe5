/*
 * servers -- which servers have shown that they can take overlapped commands: the next message's envelope behind the
 * content of the current one, before its reply. Many cannot: some close, some answer 503, some lose count. A server is
 * known by host, port and the words of its greeting. What is known is kept in state.db. All functions may be called on
 * any thread.
 *
 * With an unknown server only one connection at a time tries to overlap. So when the server closes in the middle, only
 * the one message whose final dot was sent is ambiguous.
 */
#ifndef HKY_DELIVER_SERVERS_H
#define HKY_DELIVER_SERVERS_H

#include "base/str.h"
#include "hikyaku/deliver.h"

struct hky_server; /* lives as long as the hky_servers it is from */

/* NULL: this server is new, and too many others are known already; no connection to it overlaps. */
struct hky_server *hky_servers_get(struct hky_servers *s, const char *host, uint16_t port, struct hky_str greeting);

/* May this connection overlap now? `connection` is only compared. */
bool hky_server_may_overlap(struct hky_server *s, const void *connection);
/* An overlapped envelope of this connection got fitting replies. */
void hky_server_on_in_step(struct hky_server *s, const void *connection);
enum hky_server_end {
    HKY_SERVER_PARTED,      /* it ended in a way that says nothing against overlap */
    HKY_SERVER_BROKE,       /* lost while an overlapped envelope was behind a dot without a reply */
    HKY_SERVER_OUT_OF_STEP, /* its replies did not fit our commands */
};
/* The connection ended. True: overlap is off for this server from now on, and was not before. */
bool hky_server_on_end(struct hky_server *s, const void *connection, enum hky_server_end how);

#endif
