#include "mail/command.h"
#include "hikyaku/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct {
    const char *what, *line;
    enum hky_verb verb;
    int code; /* 0: accepted */
    const char *enhanced, *path;
} cases[] = {
    {"hello", "EHLO mail.example", HKY_VERB_EHLO, 0, "", NULL},
    {"verbs ignore case", "eHlO x", HKY_VERB_EHLO, 0, "", NULL},
    {"hello without name", "EHLO", HKY_VERB_EHLO, 501, "5.5.4", NULL},
    {"hello with blanks inside", "EHLO my pc", HKY_VERB_EHLO, 501, "5.5.4", NULL},
    {"hello with escape", "EHLO x\x1b[2J", HKY_VERB_EHLO, 501, "5.5.2", NULL},
    {"mail", "MAIL FROM:<a@x.test>", HKY_VERB_MAIL, 0, "", "a@x.test"},
    {"mail with a blank after the colon", "MAIL FROM: <a@x.test>", HKY_VERB_MAIL, 0, "", "a@x.test"},
    {"mail in lower case, blanks behind", "mail from:<a@x.test>  ", HKY_VERB_MAIL, 0, "", "a@x.test"},
    {"null sender", "MAIL FROM:<>", HKY_VERB_MAIL, 0, "", ""},
    {"null sender with a blank", "MAIL FROM:< >", HKY_VERB_MAIL, 501, "5.1.7", NULL},
    {"mail without path", "MAIL FROM:", HKY_VERB_MAIL, 501, "5.1.7", NULL},
    {"mail without colon", "MAIL FROM <a@x.test>", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"mail without brackets", "MAIL FROM:a@x.test", HKY_VERB_MAIL, 501, "5.1.7", NULL},
    {"mail cut in UTF-8", "MAIL FROM:<\xc3", HKY_VERB_MAIL, 501, "5.1.7", NULL},
    {"mail 8-bit without SMTPUTF8", "MAIL FROM:<\xc3\xbc@x.test>", HKY_VERB_MAIL, 553, "5.6.7", NULL},
    {"mail 8-bit with SMTPUTF8", "MAIL FROM:<\xc3\xbc@x.test> SMTPUTF8", HKY_VERB_MAIL, 0, "", "\xc3\xbc@x.test"},
    {"overlong with SMTPUTF8", "MAIL FROM:<\xc0\xae@x.test> SMTPUTF8", HKY_VERB_MAIL, 501, "5.1.7", NULL},
    {"size", "MAIL FROM:<a@x.test> SIZE=1000 BODY=8BITMIME", HKY_VERB_MAIL, 0, "", "a@x.test"},
    {"size negative", "MAIL FROM:<a@x.test> SIZE=-1", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"size signed", "MAIL FROM:<a@x.test> SIZE=+1", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"size empty", "MAIL FROM:<a@x.test> SIZE=", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"size without value", "MAIL FROM:<a@x.test> SIZE", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"size over 64 bits", "MAIL FROM:<a@x.test> SIZE=18446744073709551616", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"body unknown", "MAIL FROM:<a@x.test> BODY=9BIT", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"parameter twice", "MAIL FROM:<a@x.test> SIZE=1 SIZE=2", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"parameter unknown", "MAIL FROM:<a@x.test> XFOO=1", HKY_VERB_MAIL, 555, "5.5.4", NULL},
    {"NOTIFY belongs to RCPT", "MAIL FROM:<a@x.test> NOTIFY=NEVER", HKY_VERB_MAIL, 555, "5.5.4", NULL},
    {"SMTPUTF8 with value", "MAIL FROM:<a@x.test> SMTPUTF8=1", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"auth null", "MAIL FROM:<a@x.test> AUTH=<>", HKY_VERB_MAIL, 0, "", "a@x.test"},
    {"auth with newline", "MAIL FROM:<a@x.test> AUTH=u+0Areject+0A", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"envid with newline", "MAIL FROM:<a@x.test> ENVID=x+0D+0Ay", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"envid with NUL", "MAIL FROM:<a@x.test> ENVID=x+00", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"envid with small hex", "MAIL FROM:<a@x.test> ENVID=x+3d", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"envid cut", "MAIL FROM:<a@x.test> ENVID=x+3", HKY_VERB_MAIL, 501, "5.5.4", NULL},
    {"text behind the path", "RCPT TO:<a@x.test>junk", HKY_VERB_RCPT, 501, "5.1.3", NULL},
    {"two paths", "RCPT TO:<a@x.test> <b@x.test>", HKY_VERB_RCPT, 555, "5.5.4", NULL},
    {"null recipient", "RCPT TO:<>", HKY_VERB_RCPT, 501, "5.1.3", NULL},
    {"recipient without end", "RCPT TO:<a@x.test", HKY_VERB_RCPT, 501, "5.1.3", NULL},
    {"surrogate recipient", "RCPT TO:<\xed\xa0\x80@x.test>", HKY_VERB_RCPT, 501, "5.1.3", NULL},
    {"carrier recipient", "RCPT TO:<abc..def@docomo.ne.jp>", HKY_VERB_RCPT, 0, "", "abc..def@docomo.ne.jp"},
    {"source route", "RCPT TO:<@a.test,@b.test:u@y.test>", HKY_VERB_RCPT, 0, "", "u@y.test"},
    {"postmaster", "RCPT TO:<postmaster>", HKY_VERB_RCPT, 0, "", ""},
    {"notify", "RCPT TO:<a@x.test> NOTIFY=SUCCESS,FAILURE", HKY_VERB_RCPT, 0, "", "a@x.test"},
    {"notify never and more", "RCPT TO:<a@x.test> NOTIFY=NEVER,DELAY", HKY_VERB_RCPT, 501, "5.5.4", NULL},
    {"notify with an empty word", "RCPT TO:<a@x.test> NOTIFY=DELAY,", HKY_VERB_RCPT, 501, "5.5.4", NULL},
    {"orcpt with newline", "RCPT TO:<a@x.test> ORCPT=rfc822;x+0Ay@z", HKY_VERB_RCPT, 501, "5.5.4", NULL},
    {"orcpt without type", "RCPT TO:<a@x.test> ORCPT=x@y", HKY_VERB_RCPT, 501, "5.5.4", NULL},
    {"size belongs to MAIL", "RCPT TO:<a@x.test> SIZE=1", HKY_VERB_RCPT, 555, "5.5.4", NULL},
    {"data", "DATA", HKY_VERB_DATA, 0, "", NULL},
    {"data with argument", "DATA x", HKY_VERB_DATA, 501, "5.5.4", NULL},
    {"starttls with argument", "STARTTLS foo", HKY_VERB_STARTTLS, 501, "5.5.4", NULL},
    {"bdat", "BDAT 86", HKY_VERB_BDAT, 0, "", NULL},
    {"bdat last", "bdat 0 last", HKY_VERB_BDAT, 0, "", NULL},
    {"bdat overflow", "BDAT 18446744073709551616 LAST", HKY_VERB_BDAT, 501, "5.5.4", NULL},
    {"bdat negative", "BDAT -1", HKY_VERB_BDAT, 501, "5.5.4", NULL},
    {"bdat word", "BDAT 5 X", HKY_VERB_BDAT, 501, "5.5.4", NULL},
    {"bdat with more", "BDAT 5 LAST X", HKY_VERB_BDAT, 501, "5.5.4", NULL},
    {"bdat DEL", "BDAT \x7f", HKY_VERB_BDAT, 501, "5.5.2", NULL},
    {"auth", "AUTH PLAIN AGFsaWNlAHNlY3JldA==", HKY_VERB_AUTH, 0, "", NULL},
    {"auth without mechanism", "AUTH", HKY_VERB_AUTH, 501, "5.5.4", NULL},
    {"noop with text", "NOOP \"x", HKY_VERB_NOOP, 0, "", NULL},
    {"unknown", "POST / HTTP/1.1", HKY_VERB_UNKNOWN, 0, "", NULL},
    {"unknown with controls", "\x16\x03\x01", HKY_VERB_UNKNOWN, 0, "", NULL},
    {"longer than a verb", "DATAX", HKY_VERB_UNKNOWN, 0, "", NULL},
    {"empty", "", HKY_VERB_UNKNOWN, 0, "", NULL},
};

static void commands_are_parsed(void **state)
{
    struct hky_smtp_command c;

    (void)state;
    hky_smtp_command_init(&c);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int code;
        const char *enhanced;
        struct hky_error e = {0};
        enum hky_err err = hky_smtp_command_parse(hky_str_z(cases[i].line), &c, &code, &enhanced, &e);

        if ((err == HKY_OK) != (cases[i].code == 0) || code != cases[i].code || c.verb != cases[i].verb ||
            strcmp(enhanced, cases[i].enhanced) != 0)
            fail_msg("%s: %s, %d %s %s", cases[i].what, hky_smtp_verb_name(c.verb), code, enhanced, e.text);
        if (err == HKY_OK && cases[i].path != NULL)
            assert_string_equal(c.path.text, cases[i].path);
        if (err != HKY_OK)
            assert_string_not_equal(e.text, "");
    }
    hky_smtp_command_fini(&c);
}

static void parse(struct hky_smtp_command *c, const char *line)
{
    int code;
    const char *enhanced;
    struct hky_error e = {0};

    if (hky_smtp_command_parse(hky_str_z(line), c, &code, &enhanced, &e) != HKY_OK)
        fail_msg("%s: %s", line, e.text);
}

static void parameters_reach_their_fields(void **state)
{
    struct hky_smtp_command c;

    (void)state;
    hky_smtp_command_init(&c);
    parse(&c, "MAIL FROM:<a@x.test> size=12345 body=binarymime smtputf8 ret=hdrs envid=A+2Bb auth=<>");
    assert_true(c.has_size && c.is_smtputf8 && !c.is_null);
    assert_int_equal(c.size, 12345);
    assert_int_equal(c.body, HKY_BODY_BINARYMIME);
    assert_int_equal(c.ret, HKY_RET_HDRS);
    assert_string_equal(hky_buf_z(&c.envid), "A+b");
    assert_true(hky_str_eq(c.auth_param, HKY_STR("<>")));
    parse(&c, "MAIL FROM:<> RET=FULL");
    assert_true(c.is_null && !c.has_size && !c.is_smtputf8 && c.envid.n == 0);
    assert_int_equal(c.ret, HKY_RET_FULL);
    assert_int_equal(c.body, HKY_BODY_7BIT);
    parse(&c, "RCPT TO:<b@y.test> NOTIFY=delay,SUCCESS,Failure ORCPT=rfc822;b+2Bc@y.test");
    assert_int_equal(c.notify, HKY_NOTIFY_DELAY | HKY_NOTIFY_SUCCESS | HKY_NOTIFY_FAILURE);
    assert_string_equal(hky_buf_z(&c.orcpt), "rfc822;b+c@y.test");
    assert_false(c.is_null);
    parse(&c, "RCPT TO:<b@y.test> NOTIFY=NEVER");
    assert_int_equal(c.notify, HKY_NOTIFY_NEVER);
    assert_int_equal(c.orcpt.n, 0);
    parse(&c, "BDAT 77 LAST");
    assert_true(c.is_last && c.size == 77);
    parse(&c, "AUTH  LOGIN   dXNlcg== ");
    assert_true(hky_str_eq(c.arg, HKY_STR("LOGIN   dXNlcg==")));
    hky_smtp_command_fini(&c);
}

static void long_parameters_are_refused(void **state)
{
    struct hky_smtp_command c;
    struct hky_error e;
    int code;
    const char *enhanced;
    static char line[100100];

    (void)state;
    hky_smtp_command_init(&c);
    strcpy(line, "RCPT TO:<a@x.test> ORCPT=rfc822;");
    memset(line + strlen(line), 'A', 100000);
    assert_int_equal(hky_smtp_command_parse(hky_str_of(line, 100032), &c, &code, &enhanced, &e), HKY_E_SYNTAX);
    assert_int_equal(code, 501);
    assert_string_equal(enhanced, "5.5.4");
    parse(&c, "RCPT TO:<a@x.test> ORCPT=rfc822;ok");
    hky_smtp_command_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_parsed),
        cmocka_unit_test(parameters_reach_their_fields),
        cmocka_unit_test(long_parameters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
