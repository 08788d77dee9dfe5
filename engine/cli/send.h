/*
 * send -- hands a message from standard input to a running engine, as `hikyaku send` or as sendmail.
 */
#ifndef HKY_CLI_SEND_H
#define HKY_CLI_SEND_H

#include "cli/cli.h"

#define HKY_SEND_SERVER "127.0.0.1:2525"

/* The exit codes of sysexits(3), which callers of sendmail expect. */
enum {
    HKY_EX_USAGE = 64,
    HKY_EX_DATAERR = 65,
    HKY_EX_NOUSER = 67,
    HKY_EX_UNAVAILABLE = 69,
    HKY_EX_IOERR = 74,
    HKY_EX_TEMPFAIL = 75,
    HKY_EX_NOPERM = 77
};

struct hky_outgoing {
    const char *server;    /* "host:port" */
    const char *from;      /* envelope sender, NULL: user@origin; "" null sender */
    const char *full_name; /* for a From that is added, NULL none */
    const char *scenario;  /* NULL none */
    const char **tags;     /* n_tags */
    size_t n_tags;
    const char *notify, *ret, *envid; /* DSN parameters as given, NULL none */
    bool takes_header_recipients;     /* -t */
    bool ends_at_dot;                 /* sendmail without -i: a line with only a dot ends */
    bool is_sendmail;                 /* called as sendmail, which the engine records as the source */
    char origin[256];                 /* domain for names without one */
    char **recipients;                /* n, owned */
    size_t n_recipients;
    char *sender;           /* resolved envelope sender, owned */
    struct hky_buf content; /* CRLF, complete */
    bool is_8bit;
    bool has_too_many;      /* recipients; hky_outgoing_read fails */
    bool has_bad_recipient; /* why hky_outgoing_read failed: a recipient is no address */
};

/* The result of sending. */
struct hky_sent {
    char id[64];     /* of the last message queued, "" none */
    size_t n_queued; /* recipients */
    size_t n_refused;
    int code;          /* of the worst refusal, 0 none; 0 with is_unreached: no engine */
    char enhanced[16]; /* of the same refusal */
    bool is_unreached, is_data_refused;
};

/* An empty message from this user and host; fini frees what it owns. */
void hky_outgoing_init(struct hky_outgoing *l);
void hky_outgoing_fini(struct hky_outgoing *l);
void hky_outgoing_add_recipient(struct hky_outgoing *l, struct hky_str address); /* origin is added to a bare name */
/* A word of sendmail's command line: a list as in a To field, else addresses between blanks and commas. */
void hky_outgoing_add_recipients(struct hky_outgoing *l, struct hky_str words);
/* Reads `fd` to its end and completes the message; HKY_E_SYNTAX, HKY_E_LIMIT, HKY_E_MISSING (no recipient), HKY_E_IO.
 */
enum hky_err hky_outgoing_read(struct hky_outgoing *l, int fd, struct hky_error *e);

/* Connects, sends the message, and prints refusals to stderr with `who` in front. */
void hky_outgoing_send(const struct hky_outgoing *l, const char *who, struct hky_sent *sent);
/* Checks "host:port", "[::1]:port" or "host"; false: an error was printed. */
bool hky_cli_send_is_server(const char *server, const char *who);
/* sendmail -bs: joins standard input and output with the engine. Returns an exit code. */
int hky_cli_send_joined(const char *server, const char *who);

/* send_sendmail.c */
int hky_cli_sendmail(int argc, char **argv);

#endif
