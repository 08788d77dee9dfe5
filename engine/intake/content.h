/*
 * content -- the octets of one message as they come in: counted, bounded, the header section put right as soon as it is
 * complete, facts taken from it. In memory up to 1 MiB, then to a big file. The body is copied once, from the stream's
 * read buffer. intake/ only.
 */
#ifndef HKY_INTAKE_CONTENT_H
#define HKY_INTAKE_CONTENT_H

#include "base/buf.h"
#include "intake/facts.h"
#include "mail/dot.h"

struct intake_content {
    uint64_t max_message; /* octets of content */
    struct intake_facts_params section;
    struct hky_big_ops big_ops;
    struct hky_dot_reader lines;
    struct hky_buf buf; /* trace field and content; with `big`: what is not yet handed to it */
    size_t trace_n;     /* octets of the trace field in front */
    size_t scan;        /* where the search for the end of the header section goes on */
    uint64_t octets;    /* of content that came, dots unstuffed */
    uint64_t flushed;   /* octets handed to `big` */
    void *big;
    char *header;      /* the header section, once it is in the big file */
    uint32_t header_n; /* its octets with the empty line; 0 = not yet complete */
    char last;         /* the last octet of content */
    bool is_full;      /* the big file has no room: pause */
    struct intake_facts facts;
    struct hky_refusal refusal;
};

/* `hint`: octets announced, 0 unknown. `trace`: the Received field, with its CRLF. */
void intake_content_init(struct intake_content *c, uint64_t hint, struct hky_str trace);
void intake_content_fini(struct intake_content *c); /* aborts a big file that is still there */
/* Octets of DATA: returns those consumed; stops at the end of data or when is_full. */
size_t intake_content_dots(struct intake_content *c, const char *p, size_t n, bool *is_end);
/* Octets of a chunk: as many as are given, less when is_full. */
size_t intake_content_chunk(struct intake_content *c, const char *p, size_t n);
/* All octets are there: completes the header section and checks what can only be checked now. */
void intake_content_end(struct intake_content *c);
struct hky_str intake_content_header(const struct intake_content *c);

#endif
