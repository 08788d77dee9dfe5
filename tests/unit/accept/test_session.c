/* The dialogue: transcripts, waiting, faults of pipelining, bounds of lines and commands. */
#include "fake.h"

#define PRE       "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
#define HDR       "From: a@x.test\r\nTo: b@y.test\r\nSubject: t\r\nX-Test-ID: N\r\n\r\n"
#define SMUG      "MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"
#define SMUG_TEXT "MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n"
#define OK_PRE    "220 250 250 250 354 "
#define ENV       "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n"
#define OK_ENV    "220 250 250 250 "

/* Every case is sent whole, one octet at a time, and cut in two at every offset: the outcome is the same. */
static const struct {
    const char *name;
    struct hky_str wire;
    const char *codes;
    unsigned n_messages;
    const char *text; /* of the first message, NULL: not looked at */
} cases[] = {
    {"one message", HKY_STR(PRE HDR "hello\r\n.\r\nQUIT\r\n"), OK_PRE "250 221", 1, "hello\r\n"},
    {"two messages", HKY_STR(PRE HDR "1\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<c@y.test>\r\nDATA\r\n" HDR "2\r\n.\r\n"),
     OK_PRE "250 250 250 354 250", 2, "1\r\n"},
    {"L01 LF . LF is content", HKY_STR(PRE HDR "one\n.\n" SMUG), OK_PRE "250", 1, "one\r\n.\r\n" SMUG_TEXT},
    {"L02 LF . CRLF is content", HKY_STR(PRE HDR "one\n.\r\n" SMUG), OK_PRE "250", 1, "one\r\n.\r\n" SMUG_TEXT},
    {"L04 CR . CR is refused", HKY_STR(PRE HDR "one\r.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CR . LF is refused", HKY_STR(PRE HDR "one\r.\n" SMUG), OK_PRE "550", 0, NULL},
    {"L04 LF . CR is refused", HKY_STR(PRE HDR "one\n.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CR . CRLF is refused", HKY_STR(PRE HDR "one\r.\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L04 CRLF . CR is refused", HKY_STR(PRE HDR "one\r\n.\r" SMUG), OK_PRE "550", 0, NULL},
    {"L05 NUL before the dot", HKY_STR(PRE HDR "one\r\n\0.\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L05 NUL behind the dot", HKY_STR(PRE HDR "one\r\n.\0\r\n" SMUG), OK_PRE "550", 0, NULL},
    {"L08 dots are unstuffed", HKY_STR(PRE HDR "a\r\n.b\r\n..c\r\n\r\n.\r\n"), OK_PRE "250", 1, "a\r\nb\r\n.c\r\n\r\n"},
    {"empty content", HKY_STR(PRE ".\r\n"), OK_PRE "250", 1, ""},
    {"no header at all", HKY_STR(PRE "just text\r\nmore\r\n.\r\n"), OK_PRE "250", 1, "just text\r\nmore\r\n"},
    {"a line that is no field ends the header", HKY_STR(PRE "From: a@x.test\r\nno field\r\nrest\r\n.\r\n"),
     OK_PRE "250", 1, "no field\r\nrest\r\n"},
    {"header without empty line", HKY_STR(PRE "From: a@x.test\r\nSubject: s\r\n.\r\n"), OK_PRE "250", 1, ""},
    {"content that begins with the empty line", HKY_STR(PRE "\r\nbody\r\n.\r\n"), OK_PRE "250", 1, "body\r\n"},
    {"L26 BDAT without MAIL is swallowed", HKY_STR("EHLO t\r\nBDAT 9 LAST\r\nMAIL FROMNOOP\r\n"), "220 250 503 250", 0,
     NULL},
    {"L28 chunks are opaque", HKY_STR(ENV "BDAT 13\r\na\r\n.\r\nMAIL \r\nBDAT 7 LAST\r\nQUIT\r\n\n"), OK_ENV "250 250",
     1, "a\r\n.\r\nMAIL \r\nQUIT\r\n\r\n"},
    {"L28 a command right behind a chunk", HKY_STR(ENV "BDAT 3\r\nabcBDAT 2 LAST\r\nde"), OK_ENV "250 250", 1, "abcde"},
    {"BDAT 0 LAST ends", HKY_STR(ENV "BDAT 3\r\nabcBDAT 0 LAST\r\n"), OK_ENV "250 250", 1, "abc"},
    {"L29 DATA inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloDATA\r\n"), OK_ENV "250 503", 0, NULL},
    {"L29 RCPT inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloRCPT TO:<c@y.test>\r\nBDAT 0 LAST\r\n"),
     OK_ENV "250 503 250", 1, "hello"},
    {"L29 MAIL inside chunks", HKY_STR(ENV "BDAT 5\r\nhelloMAIL FROM:<c@x.test>\r\n"), OK_ENV "250 503", 0, NULL},
    {"L29 RSET drops chunks", HKY_STR(ENV "BDAT 5\r\nhelloRSET\r\nBDAT 2 LAST\r\nxxNOOP\r\n"), OK_ENV "250 250 503 250",
     0, NULL},
    {"chunk that ends in CR", HKY_STR(ENV "BDAT 6 LAST\r\nabcde\r"), OK_ENV "550", 0, NULL},
    {"L31 after a refused message a transaction begins anew",
     HKY_STR(PRE HDR "x\ry\r\n.\r\nRCPT TO:<b@y.test>\r\nNOOP\r\n"), OK_PRE "550 503 250", 0, NULL},
    {"L32 octets above 127 without SMTPUTF8",
     HKY_STR("EHLO t\r\nMAIL FROM:<\xc3\xbc@x.test>\r\nRCPT TO:<b@y.test>\r\nVRFY \xc3\xbc@x.test\r\n"),
     "220 250 553 503 252", 0, NULL},
    {"L35 BDAT with a size that is none closes", HKY_STR(ENV "BDAT -1\r\nNOOP\r\n"), OK_ENV "501 421", 0, NULL},
    {"a bare LF ends a command", HKY_STR("EHLO t\nNOOP\nQUIT\n"), "220 250 250 221", 0, NULL},
    {"MAIL before EHLO", HKY_STR("MAIL FROM:<a@x.test>\r\n"), "220 503", 0, NULL},
    {"HELO is enough", HKY_STR("HELO t\r\nMAIL FROM:<a@x.test>\r\n"), "220 250 250", 0, NULL},
    {"EHLO resets", HKY_STR(ENV "EHLO u\r\nRCPT TO:<c@y.test>\r\n"), OK_ENV "250 503", 0, NULL},
    {"two MAILs", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nMAIL FROM:<a@x.test>\r\n"), "220 250 250 503", 0, NULL},
    {"NOOP HELP VRFY EXPN RSET", HKY_STR("NOOP x\r\nHELP\r\nVRFY a\r\nEXPN a\r\nRSET\r\n"), "220 250 214 252 502 250",
     0, NULL},
    {"commands in any case", HKY_STR("ehlo t\r\nmail from:<a@x.test>\r\nrcpt to:<b@y.test>\r\nquit\r\n"),
     "220 250 250 250 221", 0, NULL},
    {"unknown command", HKY_STR("XYZZY\r\n\r\n"), "220 500 500", 0, NULL},
    {"L23 a browser", HKY_STR("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@x.test>\r\n"), "220 421", 0, NULL},
    {"L23 GET", HKY_STR("GET / HTTP/1.1\r\n\r\n"), "220 421", 0, NULL},
    {"L23 a TLS ClientHello", HKY_STR("\x16\x03\x01\x02\x00\x01\x00\n"), "220", 0, NULL},
    {"L46 PROXY and XCLIENT are unknown", HKY_STR("PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\nXCLIENT ADDR=127.0.0.1\r\n"),
     "220 500 500", 0, NULL},
    {"L52 BINARYMIME is not offered", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> BODY=BINARYMIME\r\nDATA\r\n"),
     "220 250 555 503", 0, NULL},
    {"SIZE above the bound", HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> SIZE=999999999\r\n"), "220 250 552", 0, NULL},
    {"STARTTLS where it is not offered", HKY_STR("EHLO t\r\nSTARTTLS\r\n"), "220 250 502", 0, NULL},
    {"AUTH where nobody can log in", HKY_STR("EHLO t\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"), "220 250 502", 0, NULL},
    {"L37 postmaster without a domain", HKY_STR("EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n"),
     "220 250 250 250", 0, NULL},
    {"L40 dots as carriers gave them out",
     HKY_STR("EHLO t\r\nMAIL FROM:<>\r\nRCPT TO:<abc..def@docomo.ne.jp>\r\nRCPT TO:<\"abc..def\"@docomo.ne.jp>\r\n"),
     "220 250 250 250 250", 0, NULL},
};

static void check(struct fake *f, size_t i, const char *how)
{
    char codes[4096];

    fake_codes(f, codes, sizeof codes);
    if (strcmp(codes, cases[i].codes) != 0 || f->n_messages != cases[i].n_messages)
        fail_msg("%s (%s): got \"%s\" and %u messages", cases[i].name, how, codes, f->n_messages);
    if (cases[i].text != NULL) {
        struct hky_str text = fake_text(f, 0);
        if (!hky_str_eq(text, hky_str_z(cases[i].text)))
            fail_msg("%s (%s): content is \"" HKY_STR_FMT "\"", cases[i].name, how, HKY_STR_ARG(text));
    }
}

static void test_transcripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hky_str wire = cases[i].wire;
        struct fake f;

        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        fake_send(&f, wire);
        check(&f, i, "whole");
        fake_fini(&f);
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        for (size_t at = 0; at < wire.n; at++)
            fake_send(&f, hky_str_of(wire.p + at, 1));
        check(&f, i, "octet by octet");
        fake_fini(&f);
        for (size_t at = 1; at < wire.n; at++) {
            fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
            fake_send_cut(&f, wire, at);
            check(&f, i, "cut");
            fake_fini(&f);
        }
    }
}

static void test_utf8_addresses(void **state)
{
    struct fake f;

    (void)state;
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test> SMTPUTF8\r\nRCPT TO:<\xc3\xbc@y.test>\r\nDATA\r\n" HDR
                          "x\r\n.\r\nMAIL FROM:<a@x.test> SMTPUTF8\r\nRCPT TO:<b@y.test>\r\nDATA\r\n" HDR
                          "\xc3\xbc\r\n.\r\n"));
    assert_int_equal(f.n_messages, 2);
    assert_true(f.messages[0]->is_smtputf8);
    assert_non_null(hky_str_ifind(hky_buf_str(&f.bodies[0]), HKY_STR("with UTF8SMTP id")));
    assert_false(f.messages[1]->is_smtputf8); /* said, but nothing needs it: more relays can take it */
    assert_true(f.messages[1]->is_8bit);
    fake_fini(&f);
}

static void test_waiting(void **state)
{
    struct fake f;
    char codes[256];

    (void)state;
    /* too much unsynced: MAIL waits and is then read again */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    f.n_room_busy = 3;
    fake_send(&f, HKY_STR(PRE HDR "x\r\n.\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250");
    fake_fini(&f);
    /* while a commit is pending nothing is read, and the 250 comes first */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    f.is_commit_manual = true;
    fake_send(&f, HKY_STR(PRE HDR "x\r\n.\r\nMAIL FROM:<>\r\nNOOP\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 250 250 354");
    f.is_commit_manual = false;
    fake_pump(&f);
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250 250 250");
    assert_non_null(strstr(hky_buf_z(&f.out), "\r\n250 2.0.0 queued as 0"));
    /* draining: the transaction under way is the last */
    fake_send(&f, HKY_STR("RCPT TO:<b@y.test>\r\nDATA\r\n"));
    accept_session_drain(&f.session);
    assert_false(f.is_closed);
    fake_send(&f, HKY_STR(HDR "x\r\n.\r\n"));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, sizeof codes), OK_PRE "250 250 250 250 354 250 421");
    fake_fini(&f);
}

/* A login, a chunk that is swallowed and TLS end, and with them the session: no new transaction begins. */
static void test_drain_is_the_end_of_what_is_no_transaction(void **state)
{
    static const struct {
        const char *before, *after, *codes;
    } ways[] = {
        {"EHLO t\r\nAUTH LOGIN\r\n", "*\r\nMAIL FROM:<a@x.test>\r\n", "220 250 334 501 421"},
        {"EHLO t\r\nAUTH LOGIN\r\nYm9i\r\n", "aHVudGVyMg==\r\n", "220 250 334 334 235 421"},
        {"EHLO t\r\nAUTH LOGIN\r\nYm9i\r\n", "c2VjcmV0\r\n", "220 250 334 334 535 421"},
        {"EHLO t\r\nBDAT 9 LAST\r\nMAIL", " FROM", "220 250 503 421"},
        {"EHLO t\r\nMAIL FROM:<a@x.test>\r\n", "RSET\r\n", "220 250 250 250 421"},
        {"EHLO t\r\nSTARTTLS\r\n", "", "220 250 220 421"},
    };
    char codes[256];

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct fake f;
        bool is_tls = strstr(ways[i].before, "STARTTLS") != NULL;
        fake_init(&f, !is_tls, is_tls ? HKY_LISTEN_STARTTLS : HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        f.session.user = strstr(ways[i].before, "AUTH") == NULL && !is_tls ? &f.users[1] : NULL;
        f.is_tls_manual = true;
        fake_send(&f, hky_str_z(ways[i].before));
        accept_session_drain(&f.session);
        assert_false(f.is_closed);
        fake_send(&f, hky_str_z(ways[i].after));
        if (is_tls)
            accept_session_on_tls(&f.session);
        assert_true(f.is_closed);
        assert_string_equal(fake_codes(&f, codes, sizeof codes), ways[i].codes);
        fake_fini(&f);
    }
}

static void test_pipelining_faults(void **state)
{
    struct fake f;
    char codes[256];

    (void)state;
    /* L22: content behind a refused DATA is not run as commands */
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f,
              HKY_STR("EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<nope@>\r\nDATA\r\nMAIL FROM:<evil@x.test>\r\n.\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 250 501 554 421");
    assert_true(f.is_closed);
    fake_fini(&f);
    /* L10: octets behind STARTTLS */
    fake_init(&f, false, HKY_LISTEN_STARTTLS, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nSTARTTLS\r\nMAIL FROM:<inj@x.test>\r\n"));
    assert_true(f.is_closed);
    assert_false(f.wants_tls);
    fake_fini(&f);
    /* L11: after TLS everything is forgotten, and STARTTLS is not offered twice */
    fake_init(&f, false, HKY_LISTEN_STARTTLS, NULL, "127.0.0.1");
    fake_send(&f, HKY_STR("EHLO t\r\nSTARTTLS foo\r\n"));
    fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\nSTARTTLS\r\nRSET\r\n"));
    fake_send(&f, HKY_STR("STARTTLS\r\n"));
    fake_send(&f, HKY_STR("MAIL FROM:<a@x.test>\r\nEHLO t\r\nSTARTTLS\r\n"));
    assert_string_equal(fake_codes(&f, codes, sizeof codes), "220 250 501 250 503 250 220 503 250 503");
    fake_fini(&f);
}

static void test_bounds_of_dialogue(void **state)
{
    struct fake f;
    struct hky_buf wire;
    char *codes = malloc(1 << 16);

    (void)state;
    hky_buf_init(&wire, 8 << 20);
    /* a line above the bound that would have begun a chunk */
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 6 ");
    fake_repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 250 250 250 421");
    assert_true(f.is_closed);
    fake_fini(&f);
    hky_buf_clear(&wire);
    /* L17: a line above the bound is skipped; an endless one closes */
    fake_repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 250");
    fake_fini(&f);
    hky_buf_clear(&wire);
    fake_repeat(&wire, "A", 70000);
    for (size_t piece = 1000; piece <= 70000; piece *= 70) {
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        for (size_t at = 0; at < wire.n; at += piece)
            fake_send(&f, hky_str_of(wire.p + at, piece));
        assert_true(f.is_closed);
        assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 421");
        fake_fini(&f);
    }
    /* an octet 22 where a piece of a long line begins is no TLS */
    hky_buf_clear(&wire);
    fake_repeat(&wire, "A", 3000);
    hky_buf_add_z(&wire, "\x16\r\nNOOP\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send_cut(&f, hky_buf_str(&wire), 3000);
    assert_string_equal(fake_codes(&f, codes, 1 << 16), "220 500 250");
    fake_fini(&f);
    /* L25: 1000 recipients are taken, more are refused one by one, and the message still goes to those */
    hky_buf_clear(&wire);
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\n");
    for (int i = 0; i < 1500; i++)
        hky_buf_printf(&wire, "RCPT TO:<u%d@y.test>\r\n", i);
    hky_buf_add_z(&wire, "DATA\r\n" HDR "x\r\n.\r\n");
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_int_equal(f.n_messages, 1);
    assert_int_equal(f.messages[0]->n_recipients, 1000);
    assert_non_null(strstr(fake_codes(&f, codes, 1 << 16), "452 354 250"));
    fake_fini(&f);
    hky_buf_clear(&wire);
    hky_buf_add_z(&wire, "EHLO t\r\nMAIL FROM:<a@x.test>\r\n");
    for (int i = 0; i < 3000; i++)
        hky_buf_printf(&wire, "RCPT TO:<u%d@y.test>\r\n", i);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    fake_fini(&f);
    /* 20 errors */
    hky_buf_clear(&wire);
    fake_repeat(&wire, "XYZZY\r\n", 30);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, 1 << 16) + 4 * 20, "500 421");
    fake_fini(&f);
    /* 100 commands of a stranger, then 20 errors; a client that may send is not counted */
    hky_buf_clear(&wire);
    fake_repeat(&wire, "NOOP\r\n", 200);
    fake_init(&f, true, HKY_LISTEN_STARTTLS, NULL, "192.0.2.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_true(f.is_closed);
    assert_string_equal(fake_codes(&f, codes, 1 << 16) + 4 * 100, "250 503 503 503 503 503 503 503 503 503 503 503 503 "
                                                                  "503 503 503 503 503 503 503 503 421");
    fake_fini(&f);
    fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
    fake_send(&f, hky_buf_str(&wire));
    assert_false(f.is_closed);
    fake_fini(&f);
    hky_buf_fini(&wire);
    free(codes);
}

/* MAIL FROM:a@b of old devices, from who may send; and where <postmaster> is. */
static void test_addresses_without_brackets(void **state)
{
    static const struct {
        const char *line, *code, *address;
    } rows[] = {
        {"MAIL FROM:a@x.test", "250", "a@x.test"},
        {"MAIL FROM: a@x.test SIZE=100", "250", "a@x.test"},
        {"MAIL FROM:\"a b\"@x.test BODY=8BITMIME", "250", "a b@x.test"},
        {"MAIL FROM:", "501", ""},
        {"MAIL FROM:a", "501", ""},
        {"MAIL FROM:a@", "501", ""},
        {"MAIL FROM:a@x.test>", "501", ""},
        {"MAIL FROM:<a@x.test", "501", ""},
        {"MAIL FROM:a b@x.test", "501", ""},
        {"MAIL FROM:a@x.test,b@x.test", "501", ""},
        {"MAIL FROM:a@x.test WHAT=1", "501", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake f;
        char codes[64], text[300];
        fake_init(&f, false, HKY_LISTEN_PLAIN, NULL, "127.0.0.1");
        snprintf(text, sizeof text,
                 "EHLO t\r\n%s\r\nRCPT TO:b@y.test\r\nRCPT TO:<postmaster>\r\nRCPT TO:Postmaster\r\n", rows[i].line);
        fake_send(&f, hky_str_z(text));
        fake_codes(&f, codes, sizeof codes);
        if (strncmp(codes + 8, rows[i].code, 3) != 0 && strncmp(codes + 8, "555", 3) != 0)
            fail_msg("%s: %s", rows[i].line, codes);
        if (rows[i].code[0] == '2') {
            fake_send(&f, HKY_STR("DATA\r\n\r\n.\r\n"));
            assert_int_equal(f.n_messages, 1);
            assert_int_equal(f.messages[0]->n_recipients, 2);
            assert_true(hky_str_eq(hky_message_fact(f.messages[0], HKY_FACT_SENDER), hky_str_z(rows[i].address)));
            assert_true(hky_str_eq(hky_recipient_address(&f.messages[0]->recipients[0]), HKY_STR("b@y.test")));
            assert_true(hky_str_istarts(hky_recipient_address(&f.messages[0]->recipients[1]), HKY_STR("postmaster@")));
        }
        fake_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_without_brackets),
        cmocka_unit_test(test_transcripts),
        cmocka_unit_test(test_utf8_addresses),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_drain_is_the_end_of_what_is_no_transaction),
        cmocka_unit_test(test_pipelining_faults),
        cmocka_unit_test(test_bounds_of_dialogue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
