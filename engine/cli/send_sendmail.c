/* The options of sendmail(8) that PHP, cron, git send-email, mutt and mailx use; other known options are ignored. */
#include "cli/send.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char who[] = "sendmail";

/* What follows an option letter: a value (attached or the next word), an attached value only, or nothing. */
enum want { WANT_NOTHING, WANT_VALUE, WANT_ATTACHED, WANT_UNKNOWN };

static enum want want_of(char letter)
{
    if (strchr("GIimntUv", letter) != NULL)
        return WANT_NOTHING;
    if (strchr("BCFfrhLNORVXo", letter) != NULL)
        return WANT_VALUE;
    return strchr("Abq", letter) != NULL ? WANT_ATTACHED : WANT_UNKNOWN;
}

struct call {
    struct hky_outgoing letter;
    char mode; /* of -b */
    bool is_queue_run;
};

static void apply(struct call *c, char letter, const char *value)
{
    switch (letter) {
    case 't':
        c->letter.takes_header_recipients = true;
        break;
    case 'i':
        c->letter.ends_at_dot = false;
        break;
    case 'o':
        if (strcmp(value, "i") == 0)
            c->letter.ends_at_dot = false;
        break;
    case 'O':
        if (strcmp(value, "IgnoreDots") == 0 || strcmp(value, "IgnoreDots=true") == 0)
            c->letter.ends_at_dot = false;
        break;
    case 'f':
    case 'r':
        c->letter.from = strcmp(value, "<>") == 0 ? "" : value;
        break;
    case 'F':
        c->letter.full_name = value;
        break;
    case 'N':
        c->letter.notify = value;
        break;
    case 'R':
        c->letter.ret = value;
        break;
    case 'V':
        c->letter.envid = value;
        break;
    case 'b':
        c->mode = value[0] != '\0' ? value[0] : 'm';
        break;
    case 'q':
        c->is_queue_run = true;
        break;
    default:
        break;
    }
}

/* Takes a word of options: "-t", "-ti", "-fA@B", "-f A@B", "-oem". false: an option is not known. */
static bool take_word(struct call *c, int argc, char **argv, int *at)
{
    for (const char *p = argv[*at] + 1; *p != '\0'; p++) {
        enum want want = want_of(*p);

        if (want == WANT_UNKNOWN) {
            fprintf(stderr, "sendmail: no option -%c here (hikyaku send --help lists them)\n", *p);
            return false;
        }
        if (want == WANT_NOTHING) {
            apply(c, *p, "");
            continue;
        }
        const char *value = p + 1;
        if (want == WANT_VALUE && value[0] == '\0') {
            if (*at + 1 >= argc) {
                fprintf(stderr, "sendmail: -%c needs a value\n", *p);
                return false;
            }
            value = argv[++*at];
        }
        apply(c, *p, value);
        return true;
    }
    return true;
}

static int exit_code(const struct hky_sent *sent)
{
    if (sent->is_unreached || (sent->code >= 400 && sent->code < 500))
        return HKY_EX_TEMPFAIL;
    if (sent->code == 0)
        return 0;
    if (strncmp(sent->enhanced, "5.7.", 4) == 0 || sent->code == 530)
        return HKY_EX_NOPERM;
    if (sent->is_data_refused)
        return HKY_EX_DATAERR;
    return strncmp(sent->enhanced, "5.1.", 4) == 0 ? HKY_EX_NOUSER : HKY_EX_UNAVAILABLE;
}

static int show_queue(void)
{
    char queue[] = "queue", list[] = "list";
    char *argv[] = {queue, list, NULL};

    return hky_cli_queue.run(&hky_cli_queue, 2, argv) == HKY_EXIT_GOOD ? 0 : HKY_EX_UNAVAILABLE;
}

static int send_letter(struct hky_outgoing *letter)
{
    struct hky_error e = {0};
    struct hky_sent sent = {0};

    if (letter->n_recipients == 0 && !letter->takes_header_recipients) {
        fputs("sendmail: no recipient: name one, or use -t to take them from the message's header\n", stderr);
        return HKY_EX_USAGE;
    }
    if (hky_outgoing_read(letter, STDIN_FILENO, &e) != HKY_OK) {
        hky_cli_printf(stderr, "sendmail: %s\n", e.text);
        if (letter->has_bad_recipient)
            return HKY_EX_NOUSER;
        return e.code == HKY_E_IO ? HKY_EX_IOERR : HKY_EX_DATAERR;
    }
    hky_outgoing_send(letter, who, &sent);
    return exit_code(&sent);
}

static int run_mode(struct call *c)
{
    switch (c->mode) {
    case 'm':
        return c->is_queue_run ? 0 : send_letter(&c->letter); /* -q: the engine tries again by itself */
    case 's':
        return hky_cli_send_joined(c->letter.server, who);
    case 'p':
        return show_queue();
    case 'i':
        return 0; /* newaliases: this engine has no aliases */
    case 'v':
        fputs("sendmail: -bv: hikyaku explain POLICY --to ADDRESS shows where mail would go\n", stderr);
        return HKY_EX_UNAVAILABLE;
    default:
        fprintf(stderr, "sendmail: no mode -b%c here; the engine is started with hikyaku run POLICY\n", c->mode);
        return HKY_EX_USAGE;
    }
}

int hky_cli_sendmail(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *server = getenv("HIKYAKU_SERVER");
    struct call c = {.mode = 'm'};
    int at = 1, rc;

    hky_outgoing_init(&c.letter);
    c.letter.server = server != NULL && server[0] != '\0' ? server : HKY_SEND_SERVER;
    c.letter.is_sendmail = true;
    c.letter.ends_at_dot = true;
    if (strcmp(slash != NULL ? slash + 1 : argv[0], "mailq") == 0)
        c.mode = 'p';
    for (bool is_option_end = false; at < argc; at++) {
        if (is_option_end || argv[at][0] != '-' || argv[at][1] == '\0') {
            hky_outgoing_add_recipients(&c.letter, hky_str_z(argv[at]));
        } else if (strcmp(argv[at], "--") == 0) {
            is_option_end = true;
        } else if (strncmp(argv[at], "--server=", 9) == 0) {
            c.letter.server = argv[at] + 9;
        } else if (strcmp(argv[at], "--server") == 0 && at + 1 < argc) {
            c.letter.server = argv[++at];
        } else if (strncmp(argv[at], "--", 2) == 0) {
            hky_cli_printf(stderr, "sendmail: no option %s here (hikyaku send --help lists them)\n", argv[at]);
            hky_outgoing_fini(&c.letter);
            return HKY_EX_USAGE;
        } else if (!take_word(&c, argc, argv, &at)) {
            hky_outgoing_fini(&c.letter);
            return HKY_EX_USAGE;
        }
    }
    rc = hky_cli_send_is_server(c.letter.server, who) ? run_mode(&c) : HKY_EX_USAGE;
    hky_outgoing_fini(&c.letter);
    return rc;
}
