/*
 * content -- the octets of one message as they come in: counted, bounded, the header section put right as soon as it is
 * complete, facts taken from it. In memory up to 1 MiB, then to a big file. The body is copied once, from the stream's
 * read buffer. intake/ only.
 */
#ifndef HKY_INTAKE_CONTENT_H
#define HKY_INTAKE_CONTENT_H

#include "base/buf.h"
#include "hikyaku/intake.h"
#include "mail/dot.h"

struct hky_span {
    uint32_t at, n;
};

/* What the header section says. Spans lie in `text`. */
struct hky_facts {
    struct hky_buf text;
    struct hky_span span[HKY_FACT_N];
    struct hky_buf tags, vars; /* packed as in a message */
    int64_t deadline_ms;
    uint32_t n_received, n_lines;
    uint32_t n_from, n_authors; /* From fields, mailboxes in the first of them */
    bool has_date, has_8bit;    /* has_8bit: in the header section */
};

struct hky_content_limits {
    uint64_t max_message;
    uint32_t header_octets, header_lines, received;
};

struct hky_content {
    struct hky_content_limits limits;
    struct hky_big_ops big_ops;
    struct hky_dot_reader lines;
    struct hky_buf buf; /* trace field and content; with `big`: what is not yet handed to it */
    size_t trace_n;     /* octets of the trace field in front */
    size_t scan;        /* where to go on looking for the end of the header section */
    uint64_t octets;    /* of content that came, dots unstuffed */
    uint64_t flushed;   /* octets handed to `big` */
    uint64_t id;
    int64_t now_ms;
    const char *hostname;
    void *big;
    char *header;      /* the header section, once it is in the big file */
    uint32_t header_n; /* its octets with the empty line; 0 = not yet complete */
    bool is_trusted;   /* X-Hikyaku-* are believed */
    char last;         /* octet of content */
    bool is_full;      /* the big file has no room: pause */
    struct hky_facts facts;
    struct hky_refusal refusal;
};

/* `hint`: octets announced, 0 unknown. `trace`: the Received field, with its CRLF. */
void hky_content_init(struct hky_content *c, uint64_t hint, struct hky_str trace);
void hky_content_fini(struct hky_content *c); /* aborts a big file that is still there */
/* Octets of DATA: returns those consumed; stops at the end of data or when is_full. */
size_t hky_content_dots(struct hky_content *c, const char *p, size_t n, bool *is_end);
/* Octets of a chunk: as many as are given, less when is_full. */
size_t hky_content_chunk(struct hky_content *c, const char *p, size_t n);
/* No more octets: completes the header section, checks what can only be checked now. */
void hky_content_end(struct hky_content *c);
void hky_content_refuse(struct hky_content *c, int code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
struct hky_str hky_content_header(const struct hky_content *c);
struct hky_str hky_facts_get(const struct hky_facts *f, enum hky_fact which);

/* facts.c: the section in c->buf (from trace_n, `section_n` octets) is read, cleaned of X-Hikyaku-*, completed with
 * Date, Message-ID and the empty line; what follows is moved once, if it has to be. */
void hky_content_header_done(struct hky_content *c, size_t section_n);

#endif
