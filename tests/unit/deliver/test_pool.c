/* Pools and connections against a server that follows a script. */
#include "unit/deliver/harness.h"

#define L100  "123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 12345678\r\n"
#define L1000 L100 L100 L100 L100 L100 L100 L100 L100 L100 L100

static void test_overlapped_messages_share_a_connection(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    /* The next envelope is read before the reply to the dot is given: only an overlapping client sends it. */
    const char *scripts[] = {
        OPEN GROUP("0") YES GROUP("1") "S: 250 ok|250 m|250 r|354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 x\n", NULL};
    one(&f, &s, scripts, 2, 2);
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(f.outcomes[k][0].class, HKY_CLASS_OK);
        assert_true(f.mail_sent[k]);
    }
    finish(&f, &s);
    s.body[s.n_body] = '\0';
    assert_non_null(strstr(s.body, "Subject: 1\n"));
    assert_non_null(strstr(s.body, "\nline\n..dot\n"));
}

static void test_body_in_pieces_from_another_thread(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.is_piecewise = true;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    finish(&f, &s);
    s.body[s.n_body] = '\0';
    assert_non_null(strstr(s.body, "Subject: 0\n"));
    assert_non_null(strstr(s.body, "\nline\n..dot\n"));
}

/* Whether it is known or not that no line begins with a dot: the same octets, whole and in pieces. */
static void test_known_to_have_no_dot_lines(void **state)
{
    static const char *const texts[] = {
        "", "line\r\n", "a.b\r\n\r\n c\r\n", "no line end", L1000 L1000 L1000, "x" L1000 "\r\n" L1000 "no line end"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        for (unsigned how = 0; how < 4; how++) {
            const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\nC: QUIT\nS: 221 x\n", NULL};
            struct server s;
            struct fake f;
            char want[8000];
            size_t n = strlen(texts[i]), n_want = 0;

            server_start(&s, scripts);
            fake_init(&f, s.port);
            f.is_piecewise = (how & 1) != 0;
            f.has_no_dot_lines = (how & 2) != 0;
            f.text = texts[i];
            add(&f, 1);
            run_until(&f, 1);
            assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
            finish(&f, &s);
            s.body[s.n_body] = '\0';
            for (size_t at = 0; at < n; at++)
                if (texts[i][at] != '\r')
                    want[n_want++] = texts[i][at];
            if (n > 0 && texts[i][n - 1] != '\n')
                want[n_want++] = '\n';
            want[n_want] = '\0';
            char *body = strstr(s.body, "\n\n");
            assert_non_null(body);
            assert_string_equal(body + 2, want);
        }
}

static void test_second_body_in_pieces_goes_on_its_connection(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES GROUP("1") "S: 250 ok|250 m|250 r|354 go\nBODY\nS: 250 ok\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.is_piecewise = true;
    add(&f, 2);
    run_until(&f, 2);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

static void test_closed_after_the_dot_is_ambiguous(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "CLOSE\n", OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
    one(&f, &s, scripts, 2, 2);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_AMBIGUOUS);
    assert_int_equal(f.outcomes[0][0].stage, HKY_STAGE_DOT);
    assert_int_equal(f.n_back, 1); /* the overlapped one, uncounted, and then by a new connection */
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

static void test_silence_after_the_dot_is_ambiguous(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "EOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.timeout.dot_ms = 100;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_AMBIGUOUS);
    assert_int_equal(f.outcomes[0][0].reply.origin, HKY_ORIGIN_TIMEOUT);
    finish(&f, &s);
}

static void test_stale_connection_is_not_an_attempt(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\n" GROUP("1") "S: 421 idle\nCLOSE\n",
                             OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
    one(&f, &s, scripts, 1, 1);
    add(&f, 1);
    run_until(&f, 2);
    assert_int_equal(f.n_back, 1);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

static void test_results_are_per_recipient(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN "C: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\n"
                                  "S: 250 m|250 a|550 5.1.1 no such user|452 4.2.2 full|354 go\nBODY\nS: 250 ok\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.rcpts = 3;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[0][1].reply.code, 550);
    assert_int_equal(f.outcomes[0][1].stage, HKY_STAGE_RCPT);
    assert_false(f.outcomes[0][1].is_temporary);
    assert_int_equal(f.outcomes[0][2].reply.code, 452);
    assert_true(f.outcomes[0][2].is_temporary);
    finish(&f, &s);
}

static void test_refused_connection_costs_one_message(void **state)
{
    (void)state;
    struct fake f;
    fake_init(&f, 1); /* tcpmux: nobody there */
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_NETWORK);
    assert_int_equal(f.outcomes[0][0].stage, HKY_STAGE_CONNECT);
    assert_false(f.mail_sent[0]);
    finish(&f, NULL);
}

struct failure {
    const char *name, *script;
    enum hky_stage stage;
    uint16_t code;
    bool is_temporary, mail_sent;
    enum hky_class class; /* HKY_CLASS_N: the classifier's own business */
};

static void test_every_stage_can_fail(void **state)
{
    (void)state;
    static const struct failure rows[] = {
        {"greeting 421", "S: 421 busy\nEOF\n", HKY_STAGE_GREETING, 421, true, false, HKY_CLASS_N},
        {"greeting 554", "S: 554 blocked\nEOF\n", HKY_STAGE_GREETING, 554, false, false, HKY_CLASS_N},
        {"silence instead of a greeting", "EOF\n", HKY_STAGE_GREETING, 0, true, false, HKY_CLASS_NETWORK},
        {"closed instead of a greeting", "CLOSE\n", HKY_STAGE_GREETING, 0, true, false, HKY_CLASS_NETWORK},
        {"garbage instead of a greeting", "S: hello there\nEOF\n", HKY_STAGE_GREETING, 0, true, false, HKY_CLASS_N},
        {"999 instead of a greeting", "S: 999 x\nEOF\n", HKY_STAGE_GREETING, 0, true, false, HKY_CLASS_N},
        {"EHLO and HELO refused", "S: 220 hi\nC: EHLO\nS: 502 no\nC: HELO\nS: 550 no\nEOF\n", HKY_STAGE_HELLO, 550,
         false, false, HKY_CLASS_N},
        {"EHLO refused, and the end", "S: 220 hi\nC: EHLO\nS: 554 5.7.1 blocked\nCLOSE\n", HKY_STAGE_HELLO, 554, false,
         false, HKY_CLASS_BLOCKED_IP},
        {"MAIL refused", OPEN GROUP("0") "S: 550 5.7.1 no|503 r|503 d\nEOF\n", HKY_STAGE_MAIL, 550, false, true,
         HKY_CLASS_N},
        {"DATA refused", OPEN GROUP("0") "S: 250 m|250 r|451 d\nC: RSET\nS: 250 ok\nEOF\n", HKY_STAGE_DATA, 451, true,
         true, HKY_CLASS_N},
        {"dot refused", OPEN GROUP("0") YES "S: 550 5.7.1 spam\nEOF\n", HKY_STAGE_DOT, 550, false, true, HKY_CLASS_N},
        {"reset in the envelope", OPEN GROUP("0") "S: 250 m\nPAUSE\nRST\n", HKY_STAGE_RCPT, 0, true, true,
         HKY_CLASS_NETWORK},
        {"reset before the body", OPEN GROUP("0") "S: 250 m|250 r\nPAUSE\nRST\n", HKY_STAGE_DATA, 0, true, true,
         HKY_CLASS_NETWORK},
        {"only the first command answered", OPEN GROUP("0") "S: 250 m\nEOF\n", HKY_STAGE_RCPT, 0, true, true,
         HKY_CLASS_NETWORK},
        {"garbage for a reply", OPEN GROUP("0") "S: 250 m|2x0 r\nEOF\n", HKY_STAGE_RCPT, 0, true, true, HKY_CLASS_N},
        {"250 to the dot in one piece with the 354", OPEN GROUP("0") "S: 250 m|250 r|354 go|250 ok\nEOF\n",
         HKY_STAGE_DATA, 0, true, true, HKY_CLASS_N},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.timeout.command_ms = 500;
        if (strcmp(rows[i].script, "EOF\n") == 0)
            f.relay.timeout.greeting_ms = 100; /* none comes */
        add(&f, 1);
        run_until(&f, 1);
        const struct hky_outcome *o = &f.outcomes[0][0];
        if (o->stage != rows[i].stage || o->reply.code != rows[i].code || o->is_temporary != rows[i].is_temporary ||
            f.mail_sent[0] != rows[i].mail_sent || o->class == HKY_CLASS_OK ||
            (rows[i].class != HKY_CLASS_N && o->class != rows[i].class))
            fail_msg("%s: stage %s code %u temporary %d sent %d class %s: %s", rows[i].name, hky_stage_name(o->stage),
                     o->reply.code, o->is_temporary, f.mail_sent[0], hky_class_name(o->class), o->reply.text);
        finish(&f, &s);
    }
}

static void test_login(void **state)
{
    (void)state;
    static const struct {
        const char *name, *secret, *script;
        enum hky_auth auth;
        enum hky_class class;
    } rows[] = {
        {"PLAIN", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcHc=\nS: 235 ok\nC: MAIL\nS: 250 m\n"
         "C: RCPT\nS: 250 r\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_OK},
        {"LOGIN", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dXNlcg==\n"
         "S: 334 UGFzc3dvcmQ6\nC: cHc=\nS: 235 ok\nC: MAIL\nS: 250 m\nC: RCPT\nS: 250 r\nC: DATA\nS: 354 go\nBODY\n"
         "S: 250 ok\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_OK},
        {"refused", "pw", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 535 5.7.8 no\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
        {"refused by one mechanism, taken by the next", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 504 5.5.4 no PLAIN\nC: AUTH LOGIN\n"
         "S: 334 VXNlcm5hbWU6\nC: dXNlcg==\nS: 334 UGFzc3dvcmQ6\nC: cHc=\nS: 235 ok\nC: MAIL\nS: 250 m\nC: RCPT\n"
         "S: 250 r\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_OK},
        {"refused by all that are offered", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN CRAM-MD5\nC: AUTH CRAM-MD5\nS: 534 too weak\nC: AUTH PLAIN\n"
         "S: 535 5.7.8 no\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
        {"refused, and the server closes", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 535 5.7.8 no\nC: AUTH LOGIN\nCLOSE\n",
         HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
        {"refused, then too often", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 535 5.7.8 no\nC: AUTH LOGIN\n"
         "S: 421 4.7.0 too many errors\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
        {"not by this mechanism, and not now", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 504 no\nC: AUTH LOGIN\nS: 454 4.7.0 "
         "later\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_SYSTEM_TEMP},
        {"a named mechanism is the only one tried", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN LOGIN\nC: AUTH PLAIN\nS: 504 no\nEOF\n", HKY_AUTH_PLAIN,
         HKY_CLASS_RELAY_AUTH},
        {"421", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 421 4.7.0 Maximum number of "
         "connections\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_SYSTEM_TEMP},
        {"454", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 454 4.7.0 Temporary authentication "
         "failure\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_SYSTEM_TEMP},
        {"435 and 451", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dXNlcg==\nS: 451 4.3.0 "
         "Authentication failed, try again\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_SYSTEM_TEMP},
        /* What is no answer to AUTH refuses no password. */
        {"250 instead of 235", "pw", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 250 ok\nEOF\n",
         HKY_AUTH_AUTO, HKY_CLASS_SYSTEM_TEMP},
        {"235 before the password", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH LOGIN\nC: AUTH LOGIN\nS: 235 ok\nEOF\n", HKY_AUTH_AUTO,
         HKY_CLASS_SYSTEM_TEMP},
        {"235 without a proof", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH SCRAM-SHA-256\nC: AUTH SCRAM\nS: 235 ok\nEOF\n", HKY_AUTH_AUTO,
         HKY_CLASS_SYSTEM_TEMP},
        {"a challenge that cannot be read", "pw",
         "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH CRAM-MD5\nC: AUTH CRAM\nS: 334 ?!\nEOF\n", HKY_AUTH_AUTO,
         HKY_CLASS_SYSTEM_TEMP},
        {"not offered", "pw", "S: 220 hi\nC: EHLO\nS: 250 x\nEOF\n", HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
        {"the one named is not offered", "pw", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nEOF\n", HKY_AUTH_CRAM_MD5,
         HKY_CLASS_RELAY_AUTH},
        {"no secret", NULL, "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nEOF\n", HKY_AUTH_AUTO, HKY_CLASS_RELAY_AUTH},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.user = "user";
        f.relay.auth = rows[i].auth;
        f.secret = rows[i].secret;
        add(&f, 1);
        run_until(&f, 1);
        if (f.outcomes[0][0].class != rows[i].class)
            fail_msg("%s: %s %s", rows[i].name, hky_class_name(f.outcomes[0][0].class), f.outcomes[0][0].reply.text);
        finish(&f, &s);
    }
}

#define DIGEST "ebb6b23714acdb12cf55f612dde6c883"

/* Whatever it says, and with whatever code: what is kept of a reply shows no secret. */
static void test_no_reply_shows_a_secret(void **state)
{
    (void)state;
    static const char *const scripts_of[] = {
        "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 235 welcome, Hush-hush9\nC: MAIL\nS: 250 m\n"
        "C: RCPT\nS: 250 r\nC: DATA\nS: 354 go\nBODY\nS: 250 queued for Hush-hush9 AHVzZXIASHVzaC1odXNoOQ==\nEOF\n",
        "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 250 not 235, Hush-hush9\nEOF\n",
        /* HMAC-MD5 of the challenge "abc" by "Hush-hush9" */
        "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH CRAM-MD5\nC: AUTH CRAM-MD5\nS: 334 YWJj\nC: dXNlc\n"
        "S: 535 5.7.8 you said @DIGEST@\nEOF\n",
    };
    for (size_t i = 0; i < sizeof(scripts_of) / sizeof(scripts_of[0]); i++) {
        struct server s;
        struct fake f;
        char script[1000];
        const char *mark = strstr(scripts_of[i], "@DIGEST@");
        if (mark != NULL)
            snprintf(script, sizeof(script), "%.*s%s%s", (int)(mark - scripts_of[i]), scripts_of[i], DIGEST,
                     mark + strlen("@DIGEST@"));
        else
            snprintf(script, sizeof(script), "%s", scripts_of[i]);
        const char *scripts[] = {script, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.user = "user";
        f.secret = "Hush-hush9";
        add(&f, 1);
        run_until(&f, 1);
        const char *text = f.outcomes[0][0].reply.text;
        if (strstr(text, "***") == NULL || strstr(text, "Hush") != NULL || strstr(text, "SHVz") != NULL ||
            strstr(text, DIGEST) != NULL)
            fail_msg("shown: %s", text);
        finish(&f, &s);
    }
}

static void test_a_connection_logs_in_by_its_own_policy(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 220 hi\nC: EHLO\nPAUSE\nPAUSE\nPAUSE\nS: 250-x|250-PIPELINING|250 AUTH PLAIN\n"
                             "C: AUTH PLAIN\nS: 235 ok\n" GROUP("0") YES "S: 250 ok\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.user = "user";
    f.relay.auth = HKY_AUTH_PLAIN;
    f.secret = "pw";
    add(&f, 1);
    run_for(&f, 100);
    assert_int_equal(f.n_secrets, 0);
    /* A reload that changes nothing of the relay: the pool is the same, and has the newer policy. */
    struct hky_policy newer = f.policy;
    struct hky_relay relay = f.relay;
    newer.refs = 1000;
    f.lanes[0].policy = &newer;
    f.lanes[0].relay = &relay;
    hky_deliver_wake(f.deliver, &f.lanes[0]);
    assert_int_equal(newer.refs, 1001);
    run_until(&f, 1); /* give_secret looks at policy and relay */
    assert_int_equal(f.n_secrets, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    finish(&f, &s);
    assert_int_equal(newer.refs, 1000);
}

static void test_a_refused_token_is_replaced_once(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH XOAUTH2\nC: AUTH XOAUTH2\nS: 535 5.7.8 no\nEOF\n",
                             "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH XOAUTH2\nC: AUTH XOAUTH2\nS: 535 5.7.8 no\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.user = "user";
    f.relay.auth = HKY_AUTH_XOAUTH2;
    f.secret = "token";
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_RELAY_AUTH);
    assert_int_equal(f.n_secrets, 2);
    assert_int_equal(f.n_refused, 1);
    finish(&f, &s);
}

static void test_a_refusal_while_the_token_is_fetched_ends_the_connection(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH XOAUTH2\nPAUSE\nS: 554 5.7.0 too slow\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.user = "user";
    f.relay.auth = HKY_AUTH_XOAUTH2;
    f.secret = "token";
    f.is_late = true;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].reply.code, 554); /* no token was refused: no other is worth a connection */
    assert_true(hky_timer_is_set(&f.late));
    while (hky_timer_is_set(&f.late)) /* the answer comes when nobody waits for it */
        hky_loop_turn(f.loop, 10);
    assert_int_equal(f.n_secrets, 1);
    assert_int_equal(f.n_refused, 0);
    finish(&f, &s);
}

static void test_starttls_injection_is_refused(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {
        "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go|250-AUTH PLAIN|250 SIZE 1\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.tls = HKY_TLS_STARTTLS;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_TLS);
    assert_false(f.mail_sent[0]);
    finish(&f, &s);
}

static void test_opportunistic_tls_falls_back_once(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {
        "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nSOME\nS: this is no handshake\nEOF\n",
        "S: 220 hi\nC: EHLO\nS: 250-x|250-STARTTLS|250 PIPELINING\n" GROUP("0") YES "S: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.tls = HKY_TLS_OPPORTUNISTIC;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

static void test_a_handshake_cut_short_is_tried_again(void **state)
{
    (void)state;
    static const struct {
        const char *name, *script;
        enum hky_tls_mode tls;
    } rows[] = {
        {"closed", "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nSOME\nCLOSE\n",
         HKY_TLS_STARTTLS},
        {"reset", "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nSOME\nRST\n", HKY_TLS_STARTTLS},
        {"closed at once", "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nCLOSE\n",
         HKY_TLS_STARTTLS},
        {"implicit", "SOME\nCLOSE\n", HKY_TLS_IMPLICIT},
        {"in clear after a reset", "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nSOME\nRST\n",
         HKY_TLS_OPPORTUNISTIC},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        bool is_clear = rows[i].tls == HKY_TLS_OPPORTUNISTIC;
        /* Where TLS comes first nobody was met yet: counts as no connection. */
        enum hky_stage stage = rows[i].tls == HKY_TLS_IMPLICIT ? HKY_STAGE_GREETING : HKY_STAGE_TLS;
        const char *scripts[] = {rows[i].script, is_clear ? OPEN GROUP("0") YES "S: 250 ok\nEOF\n" : NULL, NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.tls = rows[i].tls;
        add(&f, 1);
        run_until(&f, 1);
        const struct hky_outcome *o = &f.outcomes[0][0];
        if (is_clear ? o->class != HKY_CLASS_OK
                     : o->class != HKY_CLASS_NETWORK || !o->is_temporary || o->stage != stage)
            fail_msg("%s: %s at %s: %s", rows[i].name, hky_class_name(o->class), hky_stage_name(o->stage),
                     o->reply.text);
        finish(&f, &s);
    }
}

static void test_limits_of_the_server_are_kept(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 220 hi\nC: EHLO\nS: 250-x|250-PIPELINING|250 SIZE 10\nEOF\n", NULL};
    one(&f, &s, scripts, 1, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_SIZE_FORMAT);
    assert_false(f.outcomes[0][0].is_temporary);
    assert_false(f.mail_sent[0]);
    finish(&f, &s);
}

static void test_messages_per_connection(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES "S: 250 ok\nC: QUIT\nS: 221 x\n",
                             OPEN GROUP("1") YES "S: 250 ok\nEOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.messages_per_connection = 1;
    add(&f, 2);
    run_until(&f, 2);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    finish(&f, &s);
}

static void test_others_follow_once_one_connection_is_open(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *silent[] = {"EOF\n", NULL}, *open[] = {OPEN GROUP("0") "EOF\n", NULL};
    server_start(&s, silent);
    fake_init(&f, s.port);
    f.relay.connections = 3;
    add(&f, 5);
    run_for(&f, 150);
    assert_int_equal(f.n_queue, 4); /* a place that is not known to work has one try at a time */
    finish(&f, &s);
    server_start(&s, open);
    fake_init(&f, s.port);
    f.relay.connections = 3;
    add(&f, 5);
    run_until_lines(&f, &s, 4);
    run_for(&f, 50);
    assert_int_equal(f.n_queue, 2);
    finish(&f, &s);
}

static void test_open_jobs_are_given_back_at_the_end(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") "EOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    add(&f, 1);
    run_until_lines(&f, &s, 4);
    hky_deliver_free(&f.deliver);
    assert_int_equal(f.n_back, 1);
    assert_int_equal(f.n_mails, 1); /* its MAIL was written, so the cap counts it */
    finish(&f, &s);
}

static void test_a_stop_after_the_dot_is_ambiguous(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    /* The envelope behind the dot is out, too: that message comes back uncounted. */
    const char *scripts[] = {OPEN GROUP("0") YES GROUP("1") "EOF\n", NULL};
    server_start(&s, scripts);
    fake_init(&f, s.port);
    add(&f, 2);
    run_until_lines(&f, &s, 7);
    hky_deliver_free(&f.deliver);
    assert_int_equal(f.n_done, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_AMBIGUOUS);
    assert_int_equal(f.n_back, 1);
    assert_false(f.has_outcome[1][0]);
    finish(&f, &s);
}

/* A failure notice to such an address asks for nothing itself. */
static void test_an_address_asks_for_smtputf8(void **state)
{
    (void)state;
    for (int is_offered = 0; is_offered < 2; is_offered++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {is_offered
                                     ? "S: 220 hi\nC: EHLO\nS: 250-x|250-8BITMIME|250 SMTPUTF8\n"
                                       "C: MAIL FROM:<sender@a.example> SMTPUTF8\nS: 250 m\n"
                                       "C: RCPT TO:<\xc3\xbcm0.r0@b.example>\nS: 250 r\nC: DATA\nS: 354 go\nBODY\n"
                                       "S: 250 ok\nEOF\n"
                                     : "S: 220 hi\nC: EHLO\nS: 250 x\nEOF\n",
                                 NULL};
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.before_address = "\xc3\xbc";
        add(&f, 1);
        run_until(&f, 1);
        assert_int_equal(f.outcomes[0][0].class, is_offered ? HKY_CLASS_OK : HKY_CLASS_SIZE_FORMAT);
        finish(&f, &s);
    }
}

static void test_a_date_in_a_reply_means_that_moment(void **state)
{
    (void)state;
    static const struct {
        const char *reply;
        uint32_t wait_sec;
    } rows[] = {
        {"451 4.7.1 try again after Sat, 28 Nov 2026 21:00:00 +0000", 3600},
        {"451 4.7.1 try again after 2026-11-28T20:10:00Z", 600},
        {"451 4.7.1 try again after Sat, 28 Nov 2026 19:00:00 +0000", 0}, /* that was an hour ago */
        {"451 4.7.1 try again later", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        char script[400];
        const char *scripts[] = {script, NULL};
        snprintf(script, sizeof(script), "%s%sS: 250 m|%s|503 d\nC: RSET\nS: 250 x\nEOF\n", OPEN, GROUP("0"),
                 rows[i].reply);
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.clock.stopped_at_ms = INT64_C(1795896000000); /* 28 Nov 2026 20:00 */
        add(&f, 1);
        run_until(&f, 1);
        assert_int_equal(f.outcomes[0][0].reply.code, 451);
        if (f.outcomes[0][0].retry_after_sec != rows[i].wait_sec)
            fail_msg("%s: %u s", rows[i].reply, f.outcomes[0][0].retry_after_sec);
        finish(&f, &s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlapped_messages_share_a_connection),
        cmocka_unit_test(test_body_in_pieces_from_another_thread),
        cmocka_unit_test(test_known_to_have_no_dot_lines),
        cmocka_unit_test(test_second_body_in_pieces_goes_on_its_connection),
        cmocka_unit_test(test_closed_after_the_dot_is_ambiguous),
        cmocka_unit_test(test_silence_after_the_dot_is_ambiguous),
        cmocka_unit_test(test_stale_connection_is_not_an_attempt),
        cmocka_unit_test(test_results_are_per_recipient),
        cmocka_unit_test(test_refused_connection_costs_one_message),
        cmocka_unit_test(test_every_stage_can_fail),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_no_reply_shows_a_secret),
        cmocka_unit_test(test_a_connection_logs_in_by_its_own_policy),
        cmocka_unit_test(test_a_refused_token_is_replaced_once),
        cmocka_unit_test(test_a_refusal_while_the_token_is_fetched_ends_the_connection),
        cmocka_unit_test(test_starttls_injection_is_refused),
        cmocka_unit_test(test_opportunistic_tls_falls_back_once),
        cmocka_unit_test(test_a_handshake_cut_short_is_tried_again),
        cmocka_unit_test(test_limits_of_the_server_are_kept),
        cmocka_unit_test(test_messages_per_connection),
        cmocka_unit_test(test_others_follow_once_one_connection_is_open),
        cmocka_unit_test(test_open_jobs_are_given_back_at_the_end),
        cmocka_unit_test(test_a_stop_after_the_dot_is_ambiguous),
        cmocka_unit_test(test_an_address_asks_for_smtputf8),
        cmocka_unit_test(test_a_date_in_a_reply_means_that_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
