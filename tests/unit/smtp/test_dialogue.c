/* Transcripts: lines that begin with '>' happen to the client, all others are what it does, in this order. */
#include "smtp/dialogue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct transaction {
    struct hky_transaction txn;
    char name;
    uint8_t verdicts[16];
    bool is_live;
};

struct bench {
    struct hky_dialogue d;
    char log[16384];
    size_t n;
    struct transaction txns[8];
};

static void say(struct bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct bench *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    b->n += (size_t)vsnprintf(b->log + b->n, sizeof(b->log) - b->n, fmt, ap);
    va_end(ap);
    assert_true(b->n < sizeof(b->log));
}

static struct transaction *find(struct hky_transaction *t)
{
    return (struct transaction *)(void *)t;
}

static void on_event(void *ctx, const struct hky_dialogue_event *ev)
{
    struct bench *b = ctx;
    struct hky_str s = ev->octets;
    switch (ev->kind) {
    case HKY_DIALOGUE_SEND:
        while (s.n > 0) {
            const char *lf = memchr(s.p, '\n', s.n);
            assert_non_null(lf);
            assert_int_equal(lf[-1], '\r');
            say(b, "C: %.*s\n", (int)(lf - 1 - s.p), s.p);
            s = hky_str_of(lf + 1, s.n - (size_t)(lf + 1 - s.p));
        }
        break;
    case HKY_DIALOGUE_START_TLS:
        say(b, "tls\n");
        break;
    case HKY_DIALOGUE_ASK_LOGIN:
        say(b, "login\n");
        break;
    case HKY_DIALOGUE_OPEN:
        say(b, "open\n");
        break;
    case HKY_DIALOGUE_RESULT:
        say(b, "%c%u %s %u%s\n", find(ev->txn)->name, ev->recipient, hky_stage_name(ev->stage), ev->reply->code,
            ev->is_ambiguous ? " ambiguous" : "");
        break;
    case HKY_DIALOGUE_DONE:
        say(b, "done %c\n", find(ev->txn)->name);
        find(ev->txn)->is_live = false;
        break;
    case HKY_DIALOGUE_GIVE_BACK:
        say(b, "back %c\n", find(ev->txn)->name);
        find(ev->txn)->is_live = false;
        break;
    case HKY_DIALOGUE_IN_STEP:
        break;
    case HKY_DIALOGUE_END:
        say(b, "end %s %u%s%s%s%s\n", hky_stage_name(ev->stage), ev->reply->code, ev->is_idle ? " idle" : "",
            ev->is_out_of_step ? " step" : "", ev->is_broken ? " broken" : "", ev->is_unsendable ? " unsendable" : "");
        break;
    }
}

static void reply(struct bench *b, const char *text, bool is_early)
{
    struct hky_reply r = {.code = (uint16_t)atoi(text)};
    struct hky_buf lines;
    hky_buf_init(&lines, 4096);
    r.n = (uint16_t)snprintf(r.text, sizeof(r.text), "%s", strlen(text) > 4 ? text + 4 : "");
    for (const char *p = r.text; *p != '\0'; p++)
        hky_buf_add_c(&lines, *p == '|' ? '\n' : *p);
    hky_dialogue_reply(&b->d, &r, hky_buf_str(&lines), is_early);
    hky_buf_fini(&lines);
}

/* "A3": message A to three; "A3 dry" stops after RCPT. */
static void begin(struct bench *b, const char *text)
{
    struct transaction *t = &b->txns[text[0] - 'A'];
    assert_true(hky_dialogue_can_begin(&b->d));
    assert_false(t->is_live);
    t->is_live = true;
    t->name = text[0];
    t->txn.n = (unsigned)(text[1] - '0');
    t->txn.verdicts = t->verdicts;
    t->txn.is_dry = strstr(text, "dry") != NULL;
    memset(t->verdicts, HKY_VERDICT_OPEN, sizeof(t->verdicts));
    hky_buf_init(&t->txn.commands, 4096);
    hky_buf_printf(&t->txn.commands, "MAIL %c\r\n", t->name);
    for (unsigned i = 0; i < t->txn.n; i++)
        if (strstr(text, "skip0") != NULL && i == 0)
            t->verdicts[0] = HKY_VERDICT_REPORTED;
        else
            hky_buf_printf(&t->txn.commands, "RCPT %c%u\r\n", t->name, i);
    if (!t->txn.is_dry)
        hky_buf_printf(&t->txn.commands, "DATA %c\r\n", t->name);
    hky_dialogue_begin(&b->d, &t->txn);
}

static void lost(struct bench *b, bool dot_left)
{
    struct hky_reply r;
    hky_reply_local(&r, HKY_ORIGIN_LOST, "lost");
    hky_dialogue_fail(&b->d, HKY_STAGE_NONE, &r, dot_left, false);
}

static void login(struct bench *b, const char *name)
{
    struct hky_secret *secret = hky_secret_new(HKY_STR("pw"));
    struct hky_login_params p = {.user = "user", .host = "h.example", .port = 587, .secret = secret};
    struct hky_error e;
    struct hky_login *made;
    while (strcmp(hky_auth_name(p.auth), name) != 0)
        p.auth++;
    assert_int_equal(hky_login_new(&p, &made, &e), HKY_OK);
    hky_secret_unref(&secret);
    hky_dialogue_login(&b->d, made);
}

static void happen(struct bench *b, const char *what)
{
    if (strncmp(what, "begin ", 6) == 0) {
        begin(b, what + 6);
    } else if (strcmp(what, "body") == 0) {
        assert_non_null(hky_dialogue_content(&b->d));
        hky_dialogue_content_written(&b->d);
    } else if (strcmp(what, "no body") == 0) {
        assert_null(hky_dialogue_content(&b->d));
    } else if (strcmp(what, "busy") == 0) {
        assert_false(hky_dialogue_can_begin(&b->d));
    } else if (strncmp(what, "login ", 6) == 0) {
        login(b, what + 6);
    } else if (strncmp(what, "away ", 5) == 0) {
        struct hky_reply r = {.code = (uint16_t)atoi(what + 5)};
        hky_dialogue_turn_away(&b->d, &r);
    } else if (strcmp(what, "secured") == 0) {
        hky_dialogue_secured(&b->d);
    } else if (strcmp(what, "quit") == 0) {
        hky_dialogue_quit(&b->d);
    } else if (strcmp(what, "lost") == 0) {
        lost(b, false);
    } else if (strcmp(what, "lost dot") == 0) {
        lost(b, true);
    } else if (strncmp(what, "early ", 6) == 0) {
        reply(b, what + 6, true);
    } else {
        reply(b, what, false);
    }
}

struct row {
    const char *name;
    const char
        *options; /* t: STARTTLS must, o: may, a: AUTH, s: secure from the start, n: no overlap, p: no pipelining */
    const char *lines;
};

#define PIPELINED "> 220 hi\nC: EHLO me\n> 250 x|PIPELINING|SIZE 1000\nopen\n"
#define PLAIN     "> 220 hi\nC: EHLO me\n> 250 x\nopen\n"
#define SENT_A    "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 r\n> 354 go\n> body\n"
#define OVER_B    "> begin B1\nC: MAIL B\nC: RCPT B0\nC: DATA B\n"

#define ASKED "> 220 hi\nC: EHLO me\n> 250 x|AUTH PLAIN\nlogin\n"

static const struct row rows[] = {
    {"one message without pipelining", "",
     PLAIN
     "> begin A2\nC: MAIL A\n> 250 m\nC: RCPT A0\n> 250 r\nC: RCPT A1\n> 250 r\nC: DATA A\n> 354 go\n> body\n> busy\n"
     "> 250 ok\nA0 dot 250\nA1 dot 250\ndone A\n> quit\nC: QUIT\n> 221 bye\nend mail 221 idle\n"},
    {"one message pipelined", "", PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n"},
    {"pipelining switched off", "p", "> 220 hi\nC: EHLO me\n> 250 x|PIPELINING\nopen\n> begin A1\nC: MAIL A\n"},
    {"the next message overlaps", "",
     PIPELINED SENT_A OVER_B "> busy\n> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> 250 r\n> 354 go\n> body\n"
                             "> begin C1\nC: MAIL C\nC: RCPT C0\nC: DATA C\n> 250 ok\nB0 dot 250\ndone B\n"},
    {"overlap switched off", "n", PIPELINED SENT_A "> busy\n> 250 ok\nA0 dot 250\ndone A\n" OVER_B},
    {"overlapped, dot refused: the next is not touched", "",
     PIPELINED SENT_A OVER_B
     "> 550 spam\nA0 dot 550\ndone A\n> 250 m\n> 250 r\n> 354 go\n> body\n> 250 ok\nB0 dot 250\n"
     "done B\n"},
    {"some recipients refused", "",
     PIPELINED
     "> begin A3\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: RCPT A2\nC: DATA A\n> 250 m\n> 250 r\n> 550 no\nA1 rcpt 550\n"
     "> 450 later\nA2 rcpt 450\n> 354 go\n> body\n> 250 ok\nA0 dot 250\ndone A\n"},
    {"all recipients refused, DATA refused: RSET keeps the session", "",
     PIPELINED
     "> begin A2\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: DATA A\n> 250 m\n> 550 a\nA0 rcpt 550\n> 550 b\nA1 rcpt 550\n"
     "> 503 no\nC: RSET\ndone A\n" OVER_B "> 250 reset\n> 250 m\n> 250 r\n> 354 go\n> body\n> 250 ok\n"
     "B0 dot 250\ndone B\n"},
    {"all recipients refused and yet 354: a lone dot, in step", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 550 a\nA0 rcpt 550\n> 354 go\nC: .\n> no body\n> busy\n"
     "> 554 nobody\ndone A\n" OVER_B},
    {"a lone dot that is accepted ends the connection", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 550 a\nA0 rcpt 550\n> 354 go\nC: .\n> 250 queued\n"
     "done A\nend mail 0 idle step\n"},
    {"all recipients refused without pipelining: DATA is not sent", "",
     PLAIN "> begin A1\nC: MAIL A\n> 250 m\nC: RCPT A0\n> 550 a\nA0 rcpt 550\nC: RSET\ndone A\n> busy\n> 250 r\n"
           "> begin B1\nC: MAIL B\n"},
    {"MAIL refused, pipelined", "",
     PIPELINED
     "> begin A2\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: DATA A\n> 550 sender\nA0 mail 550\nA1 mail 550\n> 503 a\n> 250 "
     "b\n> 503 c\ndone A\n" OVER_B},
    {"MAIL refused, pipelined, and yet 354", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 550 s\nA0 mail 550\n> 250 a\n> 354 go\nC: .\n> 503 c\ndone A\n"},
    {"MAIL refused without pipelining", "",
     PLAIN "> begin A2\nC: MAIL A\n> 450 later\nA0 mail 450\nA1 mail 450\ndone A\n> begin B1\nC: MAIL B\n"},
    {"DATA refused with recipients accepted", "",
     PIPELINED
     "> begin A2\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: DATA A\n> 250 m\n> 250 a\n> 550 b\nA1 rcpt 550\n> 451 c\n"
     "A0 data 451\nC: RSET\ndone A\n"},
    {"a recipient settled beforehand has no RCPT", "",
     PIPELINED
     "> begin A2 skip0\nC: MAIL A\nC: RCPT A1\nC: DATA A\n> 250 m\n> 250 r\n> 354 go\n> body\n> 250 ok\nA1 dot 250\n"
     "done A\n"},
    {"dry run, pipelined", "",
     PIPELINED
     "> begin A2 dry\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\n> 250 m\n> 250 a\nA0 rcpt 250\n> 550 b\nA1 rcpt 550\nC: RSET\n"
     "done A\n"},
    {"dry run, pipelined, MAIL refused", "",
     PIPELINED "> begin A1 dry\nC: MAIL A\nC: RCPT A0\n> 550 m\nA0 mail 550\n> 503 a\nC: RSET\ndone A\n"},
    {"dry run, one by one", "",
     PLAIN
     "> begin A2 dry\nC: MAIL A\n> 250 m\nC: RCPT A0\n> 250 a\nA0 rcpt 250\nC: RCPT A1\n> 250 b\nA1 rcpt 250\nC: RSET\n"
     "done A\n> 250 ok\n"},
    /* 421 and losses */
    {"421 greeting", "", "> 421 busy\nend greeting 421\n"},
    {"554 greeting", "", "> 554 blocked\nend greeting 554\n"},
    {"421 to EHLO", "", "> 220 hi\nC: EHLO me\n> 421 busy\nend hello 421\n"},
    {"421 to the first MAIL counts", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 421 m\nA0 mail 421\ndone A\nend rcpt 421\n"},
    {"421 to a later MAIL gives the message back", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 421 enough\nback B\nend mail 421\n"},
    {"421 to a RCPT defers the rest", "",
     PIPELINED
     "> begin A3\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: RCPT A2\nC: DATA A\n> 250 m\n> 250 a\n> 421 b\nA1 rcpt 421\n"
     "A0 rcpt 421\nA2 rcpt 421\ndone A\nend rcpt 421\n"},
    {"421 to DATA", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 a\n> 421 c\nA0 data 421\nC: RSET\ndone A\n"
               "end mail 421 idle\n"},
    {"451 timeout to a later MAIL gives the message back", "",
     PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n" OVER_B "> 451 4.4.2 Timeout\nback B\nend mail 451\n"},
    {"451 of another kind to a later MAIL is its outcome", "",
     PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n" OVER_B "> 451 4.3.0 try later\nB0 mail 451\n"},
    {"503 to a later MAIL that was not overlapped", "",
     PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n" OVER_B "> 503 nested MAIL\nback B\nend mail 503\n"},
    {"503 to an overlapped MAIL is out of step", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 503 pipelined\nback B\nend mail 503 step\n"},
    {"503 to an overlapped RCPT is out of step", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> 503 no MAIL\nback B\nend rcpt 503 step\n"},
    {"503 to an overlapped DATA with somebody accepted is out of step", "",
     PIPELINED SENT_A OVER_B
     "> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> 250 r\n> 503 no RCPT\nback B\nend data 503 step\n"},
    {"503 to an overlapped DATA with nobody accepted is not", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> 550 r\nB0 rcpt 550\n> 503 no RCPT\nC: RSET\n"
                             "done B\n"},
    {"a reply that fits nothing to an overlapped RCPT", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> 354 go\nback B\nend rcpt 0 step\n"},
    {"421 to the dot: that one is deferred, the overlapped one given back", "",
     PIPELINED SENT_A OVER_B "> 421 x\nA0 dot 421\ndone A\nback B\nend mail 421\n"},
    {"421 to RSET gives the follower back", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 550 a\nA0 rcpt 550\n> 503 d\nC: RSET\ndone A\n" OVER_B
     "> 421 x\nback B\nend mail 421\n"},
    {"421 when idle", "", PIPELINED "> 421 idle too long\nend mail 421 idle\n"},
    {"lost when idle", "", PIPELINED "> lost\nend mail 0 idle\n"},
    {"lost before the greeting", "", "> lost\nend greeting 0\n"},
    {"lost before the reply to the first MAIL", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> lost\nA0 mail 0\ndone A\nend mail 0\n"},
    {"a stale connection: lost before the reply to a later MAIL", "",
     PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n" OVER_B "> lost\nback B\nend mail 0\n"},
    {"lost between RCPT replies", "",
     PIPELINED "> begin A2\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: DATA A\n> 250 m\n> 250 a\n> lost\nA0 rcpt 0\nA1 rcpt "
               "0\ndone A\n"
               "end rcpt 0\n"},
    {"lost in the body", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 a\n> 354 go\n> lost\nA0 data 0\ndone "
               "A\nend data 0\n"},
    {"lost after the dot: ambiguous, the overlapped one given back", "",
     PIPELINED SENT_A OVER_B "> lost dot\nA0 dot 0 ambiguous\ndone A\nback B\nend dot 0 broken\n"},
    {"lost with the dot still here: not ambiguous", "", PIPELINED SENT_A "> lost\nA0 data 0\ndone A\nend dot 0\n"},
    {"lost after the dot with one refused before: only the accepted one is ambiguous", "",
     PIPELINED "> begin A2\nC: MAIL A\nC: RCPT A0\nC: RCPT A1\nC: DATA A\n> 250 m\n> 550 a\nA0 rcpt 550\n> 250 b\n> "
               "354 go\n> body\n"
               "> lost dot\nA1 dot 0 ambiguous\ndone A\nend dot 0\n"},
    {"lost after a reply of its own: the overlapped one has its outcome", "",
     PIPELINED SENT_A OVER_B "> 250 ok\nA0 dot 250\ndone A\n> 250 m\n> lost\nB0 rcpt 0\ndone B\nend rcpt 0\n"},
    /* out of step */
    {"a reply too many", "", PIPELINED "> 250 surplus\nend mail 0 idle step\n"},
    {"a reply too many in the body", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 a\n> 354 go\n> 250 done\nA0 data 0\ndone A\n"
     "end data 0 step\n"},
    {"DATA answered before RCPT", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 354 go\nA0 rcpt 0\ndone A\nend rcpt 0 step\n"},
    {"DATA answered with 250", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 a\n> 250 huh\nA0 data 0\ndone A\nend data 0 step\n"},
    {"354 to the dot may hide a delivery", "",
     PIPELINED SENT_A OVER_B "> 354 go\nA0 dot 0 ambiguous\ndone A\nback B\nend dot 0 step\n"},
    {"250 before the dot has left is no delivery", "",
     PIPELINED SENT_A "> early 250 ok\nA0 data 0\ndone A\nend data 0 step\n"},
    {"354 before the dot has left hides no delivery", "",
     PIPELINED SENT_A "> early 354 go\nA0 data 0\ndone A\nend data 0 step\n"},
    {"552 before the dot has left is a verdict, then the connection ends", "",
     PIPELINED SENT_A "> early 552 big\nA0 dot 552\ndone A\nend dot 552 idle\n"},
    {"552 in the middle of the body", "",
     PIPELINED
     "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 250 a\n> 354 go\n> 552 big\nA0 dot 552\ndone A\n"
     "end dot 552\n"},
    {"greeting with another code", "", "> 250 hi\nend greeting 0\n"},
    {"334 to EHLO", "", "> 220 hi\nC: EHLO me\n> 334 x\nend hello 0\n"},
    /* opening */
    {"HELO when EHLO is unknown", "", "> 220 hi\nC: EHLO me\n> 502 what\nC: HELO me\n> 250 ok\nopen\n"},
    {"no HELO when the refusal is of us", "", "> 220 hi\nC: EHLO me\n> 554 blocked\nend hello 554\n"},
    {"no HELO when AUTH is needed", "a", "> 220 hi\nC: EHLO me\n> 502 what\nend hello 502\n"},
    {"no HELO when TLS is needed", "t", "> 220 hi\nC: EHLO me\n> 500 what\nend hello 500\n"},
    {"STARTTLS, capabilities only from the second EHLO", "t",
     "> 220 hi\nC: EHLO me\n> 250 x|STARTTLS|PIPELINING\nC: STARTTLS\n> 220 go\ntls\n> secured\nC: EHLO me\n> 250 "
     "x\nopen\n"
     "> begin A1\nC: MAIL A\n"},
    {"STARTTLS must, not offered", "t", "> 220 hi\nC: EHLO me\n> 250 x\nend tls 0\n"},
    {"STARTTLS must, refused", "t", "> 220 hi\nC: EHLO me\n> 250 x|STARTTLS\nC: STARTTLS\n> 454 no\nend tls 454\n"},
    {"STARTTLS may, refused: goes on in the clear", "o",
     "> 220 hi\nC: EHLO me\n> 250 x|STARTTLS\nC: STARTTLS\n> 454 no\nopen\n"},
    {"STARTTLS may, 421 ends it", "o", "> 220 hi\nC: EHLO me\n> 250 x|STARTTLS\nC: STARTTLS\n> 421 no\nend tls 421\n"},
    {"STARTTLS may, not offered", "o", "> 220 hi\nC: EHLO me\n> 250 x\nopen\n"},
    {"implicit TLS does not ask for STARTTLS", "ts", "> 220 hi\nC: EHLO me\n> 250 x|STARTTLS\nopen\n"},
    {"AUTH is asked for after EHLO", "a", ASKED "> lost\nend auth 0\n"},
    /* AUTH: what is no answer to it refuses no password */
    {"PLAIN is taken", "a", ASKED "> login PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\n> 235 ok\nopen\n"},
    {"LOGIN is taken", "a",
     ASKED
     "> login LOGIN\nC: AUTH LOGIN\n> 334 VXNlcm5hbWU6\nC: dXNlcg==\n> 334 UGFzc3dvcmQ6\nC: cHc=\n> 235 ok\nopen\n"},
    {"PLAIN is refused: another mechanism is asked for", "a",
     ASKED "> login PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\n> 535 no\nlogin\n"},
    {"250 instead of 235", "a", ASKED "> login PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\n> 250 ok\nend auth 0\n"},
    {"250 instead of 334", "a", ASKED "> login LOGIN\nC: AUTH LOGIN\n> 250 ok\nend auth 0\n"},
    {"354 instead of 334", "a", ASKED "> login LOGIN\nC: AUTH LOGIN\n> 354 go\nend auth 0\n"},
    {"235 before the user name", "a", ASKED "> login LOGIN\nC: AUTH LOGIN\n> 235 ok\nend auth 0\n"},
    {"235 before the password", "a",
     ASKED "> login LOGIN\nC: AUTH LOGIN\n> 334 VXNlcm5hbWU6\nC: dXNlcg==\n> 235 ok\nend auth 0\n"},
    {"235 before the challenge", "a", ASKED "> login CRAM-MD5\nC: AUTH CRAM-MD5\n> 235 ok\nend auth 0\n"},
    {"334 without end", "a",
     ASKED "> login XOAUTH2\nC: AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHB3AQE=\n> 334 e30=\nC: \n> 334 e30=\nC: \n"
           "> 334 e30=\nC: \n> 334 e30=\nC: \n> 334 e30=\nC: \n> 334 e30=\nC: \n> 334 e30=\nC: \n> 334 e30=\nC: \n"
           "> 334 e30=\nend auth 0\n"},
    {"a challenge that is not base64", "a", ASKED "> login CRAM-MD5\nC: AUTH CRAM-MD5\n> 334 what?\nend auth 0\n"},
    {"a limit of connections, whatever the code", "a",
     ASKED "> login PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\n> 535 5.7.8 too many connections\nend auth 535\n"},
    {"a limit of sessions, whatever the code", "a",
     ASKED "> login PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\n> 550 Maximum number of sessions reached\nend auth 550\n"},
    /* turned away */
    {"turned away at the first MAIL: given back", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> away 421\nback A\nend mail 421\n"},
    {"a later message of a connection with nobody accepted and too many recipients", "",
     PIPELINED SENT_A "> 250 ok\nA0 dot 250\ndone A\n" OVER_B
                      "> 250 m\n> 452 too many recipients\nback B\nend rcpt 452\n"},
    {"the first message with too many recipients is no such thing", "",
     PIPELINED "> begin A1\nC: MAIL A\nC: RCPT A0\nC: DATA A\n> 250 m\n> 452 too many recipients\nA0 rcpt 452\n"},
    {"too many recipients behind others", "",
     PIPELINED SENT_A
     "> 250 ok\nA0 dot 250\ndone A\n> begin B2\nC: MAIL B\nC: RCPT B0\nC: RCPT B1\nC: DATA B\n> 250 m\n> 250 r\n"
     "> 452 too many recipients\nB1 rcpt 452\n"},
};

/* All rows are run; what differs is printed, and counted. */
static unsigned n_wrong;

static void run_row(const struct row *row)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct hky_dialogue_params p = {
        .hello = "me",
        .wants_auth = strchr(row->options, 'a') != NULL,
        .is_secure = strchr(row->options, 's') != NULL,
        .may_pipeline = strchr(row->options, 'p') == NULL,
        .may_overlap = strchr(row->options, 'n') == NULL,
        .starttls = strchr(row->options, 't') != NULL   ? HKY_DIALOGUE_TLS_MUST
                    : strchr(row->options, 'o') != NULL ? HKY_DIALOGUE_TLS_MAY
                                                        : HKY_DIALOGUE_TLS_OFF,
        .emit = on_event,
        .ctx = b,
    };
    hky_dialogue_init(&b->d, &p);
    struct hky_buf want;
    hky_buf_init(&want, 65536);
    char line[256];
    for (const char *at = row->lines; *at != '\0';) {
        size_t n = strcspn(at, "\n");
        snprintf(line, sizeof(line), "%.*s", (int)n, at);
        at += n + 1;
        if (line[0] == '>')
            happen(b, line + 2);
        else
            hky_buf_printf(&want, "%s\n", line);
        /* Compared after every step, so that nothing comes too early. */
        if ((*at == '>' || *at == '\0') && strcmp(hky_buf_z(&want), b->log) != 0) {
            print_error("%s\nwanted:\n%s\ngot:\n%s", row->name, hky_buf_z(&want), b->log);
            n_wrong++;
            break;
        }
    }
    if (b->d.state == HKY_DIALOGUE_CLOSED)
        for (size_t i = 0; i < sizeof(b->txns) / sizeof(b->txns[0]); i++)
            assert_false(b->txns[i].is_live);
    hky_dialogue_fini(&b->d);
    for (size_t i = 0; i < sizeof(b->txns) / sizeof(b->txns[0]); i++)
        hky_buf_fini(&b->txns[i].txn.commands);
    hky_buf_fini(&want);
    free(b);
}

static void test_transcripts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        run_row(&rows[i]);
    assert_int_equal(n_wrong, 0);
}

/* Whatever the server says, nothing is lost or told twice: random replies against random sending. */
static void test_random_peers(void **state)
{
    (void)state;
    static const char *const replies[] = {"250 ok", "354 go", "550 no", "450 later", "421 bye", "220 x", "503 x"};
    unsigned seed = 20261124;
    for (int round = 0; round < 20000; round++) {
        struct bench b = {0};
        struct hky_dialogue_params p = {
            .hello = "me", .may_pipeline = round % 3 != 0, .may_overlap = round % 2 != 0, .emit = on_event, .ctx = &b};
        hky_dialogue_init(&b.d, &p);
        reply(&b, "220 hi", false);
        reply(&b, "250 x|PIPELINING", false);
        char next = 'A';
        int begun = 0;
        for (int step = 0; step < 40 && b.d.state == HKY_DIALOGUE_READY; step++) {
            unsigned dice = (seed = seed * 1103515245u + 12345u) >> 16;
            if (hky_dialogue_content(&b.d) != NULL && dice % 4 != 0) {
                hky_dialogue_content_written(&b.d);
            } else if (hky_dialogue_can_begin(&b.d) && dice % 3 != 0 && next <= 'H' && !b.txns[next - 'A'].is_live) {
                char text[3] = {next, (char)('1' + dice % 3), 0};
                begin(&b, text);
                begun++;
                next++;
            } else {
                reply(&b, replies[(dice >> 4) % (dice % 5 == 0 ? 7 : 2)], dice % 7 == 0);
            }
        }
        lost(&b, true);
        assert_int_equal(b.d.state, HKY_DIALOGUE_CLOSED);
        for (int i = 0; i < begun; i++) {
            struct transaction *t = &b.txns[i];
            assert_false(t->is_live);
            char back[16];
            snprintf(back, sizeof(back), "back %c\n", t->name);
            bool is_back = strstr(b.log, back) != NULL;
            for (unsigned k = 0; k < t->txn.n; k++)
                assert_true(is_back || t->verdicts[k] == HKY_VERDICT_REPORTED); /* twice is an assertion of its own */
            hky_buf_fini(&t->txn.commands);
        }
        hky_dialogue_fini(&b.d);
    }
}

static void test_capabilities(void **state)
{
    (void)state;
    struct hky_capabilities c;
    hky_capabilities_parse(HKY_STR("PIPELINING\npipelining\nSIZE 1000\nAUTH=LOGIN PLAIN\nauth XOAUTH2\n8BITMIME\nDSN"),
                           &c);
    assert_true(c.pipelining && c.eightbit && c.dsn && c.has_size && c.has_auth);
    assert_int_equal(c.size, 1000);
    assert_int_equal(c.auths, 1u << HKY_AUTH_LOGIN | 1u << HKY_AUTH_PLAIN | 1u << HKY_AUTH_XOAUTH2);
    hky_capabilities_parse(HKY_STR("PIPELINING"), &c); /* the first line is a name, not a keyword */
    assert_false(c.pipelining);
    hky_capabilities_parse(HKY_STR("x\nSIZE abc\nXPIPELINING\nSIZE0"), &c);
    assert_false(c.pipelining);
    assert_int_equal(c.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transcripts),
        cmocka_unit_test(test_random_peers),
        cmocka_unit_test(test_capabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
