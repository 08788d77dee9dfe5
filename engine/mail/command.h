/*
 * command -- SMTP command lines as a server reads them (RFC 5321 4.1, 3461, 6152, 6531, 1870, 3030, 4954).
 */
#ifndef HKY_MAIL_COMMAND_H
#define HKY_MAIL_COMMAND_H

#include "mail/address.h"

enum hky_verb {
    HKY_VERB_EHLO,
    HKY_VERB_HELO,
    HKY_VERB_MAIL,
    HKY_VERB_RCPT,
    HKY_VERB_DATA,
    HKY_VERB_BDAT,
    HKY_VERB_RSET,
    HKY_VERB_NOOP,
    HKY_VERB_QUIT,
    HKY_VERB_VRFY,
    HKY_VERB_EXPN,
    HKY_VERB_HELP,
    HKY_VERB_STARTTLS,
    HKY_VERB_AUTH,
    HKY_VERB_UNKNOWN,
    HKY_VERB_N
};
/* "EHLO"; "unknown" for one that is none. */
const char *hky_smtp_verb_name(enum hky_verb v);

enum hky_body_kind { HKY_BODY_7BIT, HKY_BODY_8BITMIME, HKY_BODY_BINARYMIME };

struct hky_smtp_command {
    bool may_lack_brackets; /* set it between init and parse: MAIL FROM:a@b is read, as old devices send it */
    enum hky_verb verb;
    struct hky_str arg;      /* after the verb, trimmed; EHLO name, AUTH rest, VRFY text */
    struct hky_address path; /* MAIL, RCPT */
    bool is_null;            /* MAIL FROM:<> */
    uint64_t size;           /* MAIL SIZE=, BDAT size */
    bool has_size, is_last;  /* BDAT LAST */
    enum hky_body_kind body;
    bool is_smtputf8;
    uint8_t ret;                 /* enum hky_ret of message.h */
    uint8_t notify;              /* HKY_NOTIFY_ bits */
    struct hky_buf envid, orcpt; /* decoded xtext; control octets refused. init by hky_smtp_command_init */
    struct hky_str auth_param;   /* MAIL AUTH=, ignored */
};
/* An empty command that can be parsed into again and again; fini frees its texts. */
void hky_smtp_command_init(struct hky_smtp_command *c);
void hky_smtp_command_fini(struct hky_smtp_command *c);
/* `line` without CRLF. HKY_OK, or the reply to give in *code, *enhanced, e->text (501 5.5.4 ...). Never fails for an
 * unknown verb: HKY_VERB_UNKNOWN. */
enum hky_err hky_smtp_command_parse(struct hky_str line, struct hky_smtp_command *c, int *code, const char **enhanced,
                                    struct hky_error *e);

#endif
