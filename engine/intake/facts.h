/*
 * facts -- what the header section of a message says, read once; the section is put right on the way: X-Hikyaku-* are
 * taken out of it, what it must have is added. It knows nothing of where the octets come from. intake/ only.
 */
#ifndef HKY_INTAKE_FACTS_H
#define HKY_INTAKE_FACTS_H

#include "base/buf.h"
#include "hikyaku/intake.h"

struct intake_span {
    uint32_t at, n;
};

/* What the header section says. Spans lie in `text`. */
struct intake_facts {
    struct hky_buf text;
    struct intake_span span[HKY_FACT_N];
    struct hky_buf tags, vars; /* packed as in a message */
    struct hky_buf unknown;    /* X-Hikyaku-* that mean nothing: "NAME (did you mean NAME?), NAME", cut */
    int64_t deadline_ms;
    uint32_t n_received, n_lines;
    uint32_t n_from, n_authors; /* From fields, mailboxes in the first of them */
    bool has_date, has_8bit;    /* has_8bit: in the header section */
};

struct intake_facts_params {
    uint64_t id; /* of the message: for a Message-ID that is missing */
    int64_t now_ms;
    const char *hostname;
    uint32_t header_octets, header_lines, received; /* the most the section may have */
    bool is_trusted;                                /* X-Hikyaku-* are believed */
};

/* No facts yet; `header_octets` is the most that the section may have, and so their text. */
void intake_facts_init(struct intake_facts *f, uint32_t header_octets);
void intake_facts_fini(struct intake_facts *f);
/*
 * The section of `section_n` octets at `at` in `buf` is complete. It is read, cleaned of X-Hikyaku-*, completed with
 * Date, Message-ID and the empty line; what follows is moved once, if it has to be. Returns where the body begins in
 * `buf`; 0: refused, and the content of `buf` must not be used.
 */
size_t intake_facts_read(struct intake_facts *f, const struct intake_facts_params *p, struct hky_buf *buf, size_t at,
                         size_t section_n, struct hky_refusal *why);
struct hky_str intake_facts_get(const struct intake_facts *f, enum hky_fact which);

#endif
