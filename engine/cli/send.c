/* hikyaku send: hands in a message. send_sendmail.c has the calls as sendmail or with its options. */
#include "base/json.h"
#include "cli/send.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct hky_cli_option options[] = {
    {"server", "ADDR:PORT", "where the engine listens (default $HIKYAKU_SERVER, else " HKY_SEND_SERVER ")"},
    {"from", "ADDRESS", "envelope sender, and From where the message has none (default user@host)"},
    {"scenario", "NAME", "the scenario that the message belongs to"},
    {"tag", "TAG", "a tag; may be repeated", true},
    {NULL, NULL, NULL},
};

static void print_json(const struct hky_sent *sent, bool is_taken)
{
    struct hky_buf b;
    struct hky_json j = hky_json_to(&b);

    hky_buf_init(&b, 4000);
    hky_json_begin_object(&j, NULL);
    hky_json_z(&j, "id", sent->id);
    hky_json_uint(&j, "queued", sent->n_queued);
    hky_json_uint(&j, "refused", sent->n_refused);
    hky_json_int(&j, "code", is_taken ? 250 : sent->code);
    hky_json_z(&j, "enhanced", is_taken ? "2.0.0" : sent->enhanced);
    hky_json_end_object(&j);
    puts(hky_buf_z(&b));
    hky_buf_fini(&b);
}

static int print_sent(const struct hky_sent *sent, bool is_json)
{
    bool is_taken = sent->code == 0 && sent->n_queued > 0;

    if (is_json)
        print_json(sent, is_taken);
    else if (sent->n_queued > 0)
        printf("queued as %s for %zu recipient%s\n", sent->id, sent->n_queued, sent->n_queued == 1 ? "" : "s");
    if (sent->is_unreached)
        return HKY_EXIT_UNREACHED;
    return sent->code == 0 ? HKY_EXIT_GOOD : HKY_EXIT_NO;
}

static int run_native(const struct hky_cli_command *self, int argc, char **argv)
{
    const char *server = getenv("HIKYAKU_SERVER"), *name, *value;
    struct hky_cli_args args;
    struct hky_outgoing letter;
    struct hky_error e = {0};
    struct hky_sent sent = {0};
    int rc;

    hky_outgoing_init(&letter);
    letter.server = server != NULL && server[0] != '\0' ? server : HKY_SEND_SERVER;
    hky_cli_args_init(&args, self, argc, argv);
    while ((name = hky_cli_next(&args, &value)) != NULL) {
        if (strcmp(name, "server") == 0) {
            letter.server = value;
        } else if (strcmp(name, "from") == 0) {
            letter.from = strcmp(value, "<>") == 0 ? "" : value;
        } else if (strcmp(name, "scenario") == 0) {
            letter.scenario = value;
        } else {
            letter.tags = (const char **)hky_realloc((void *)letter.tags, (letter.n_tags + 1) * sizeof *letter.tags);
            letter.tags[letter.n_tags++] = value;
        }
    }
    rc = hky_cli_args_done(&args, 1, 100000);
    if (rc < 0 && !hky_cli_is_server(self, letter.server))
        rc = HKY_EXIT_USAGE;
    if (rc < 0) {
        for (int i = 0; i < args.n_positional; i++)
            hky_outgoing_add_recipient(&letter, hky_str_z(args.argv[i]));
        if (isatty(STDIN_FILENO))
            fputs("Type the message, header first; end with Ctrl-D.\n", stderr);
        if (hky_outgoing_read(&letter, STDIN_FILENO, &e) != HKY_OK) {
            hky_cli_printf(stderr, "hikyaku send: %s\n", e.text);
            rc = e.code == HKY_E_IO ? HKY_EXIT_UNREACHED : HKY_EXIT_USAGE;
        } else {
            hky_outgoing_send(&letter, "hikyaku send", &sent);
            rc = print_sent(&sent, args.is_json);
        }
    }
    hky_outgoing_fini(&letter);
    return rc;
}

static int run(const struct hky_cli_command *self, int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *called = slash != NULL ? slash + 1 : argv[0];

    if (strcmp(called, "send") != 0 || (argc > 1 && argv[1][0] == '-' && argv[1][1] != '-' && argv[1][1] != '\0'))
        return hky_cli_sendmail(argc, argv);
    return run_native(self, argc, argv);
}

const struct hky_cli_command hky_cli_send = {
    .name = "send",
    .args = "RECIPIENT... < MESSAGE",
    .summary = "hand a message to the running engine, also as sendmail",
    .help = "From, Date and Message-ID are added where they are missing, and Bcc is removed. Example:\n"
            "  printf 'Subject: hello\\n\\nhi\\n' |\n"
            "      hikyaku send --from shop@shop.example you@example.com\n"
            "\n"
            "The command does not log in: it needs a listener without users, or one whose allow names this machine.\n"
            "\n"
            "Called as sendmail (a link of that name to hikyaku, or `hikyaku send -t -i`) it takes the options -t -i "
            "-oi -f ADDRESS -F NAME -bs -bp -q -N DSN -R RET -V ENVID and exits as sendmail does.\n"
            "\n"
            "Exit code 0: queued; 1: refused (the reply is shown); 2: wrong usage; 3: no engine answers.",
    .options = options,
    .run = run,
};
