/* internal -- what the files of rehearse share. */
#ifndef HKY_REHEARSE_INTERNAL_H
#define HKY_REHEARSE_INTERNAL_H

#include "hikyaku/rehearse.h"

struct hky_rehearsal_reply {
    char *relay; /* name of the relay that answers */
    char *text;  /* [STAGE] REPLY */
    bool is_always, is_used;
};

/* script.c */
void rehearse_free_replies(struct hky_rehearsal *r);
/* What a transaction's relay answers for one recipient. Call it once for each recipient, in order; *line is NULL before
 * the first call. */
void rehearse_reply_for(struct hky_rehearsal *r, const struct hky_job *job, const struct hky_recipient *to,
                        struct hky_rehearsal_reply **line, struct hky_outcome *out);

/* story.c */
struct hky_rehearsal_act *rehearse_add_act(struct hky_rehearsal *r, const struct hky_event *ev);

#endif
