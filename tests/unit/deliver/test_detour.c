/* A message that one address puts off goes to another address under the rules for TLS that the relay has now. */
#include "net/dns.h"
#include "deliver/outbound.h"
#include "unit/deliver/harness.h"
#include "unit/net/lab.h"

/* ---- the fake resolver: every name has two addresses ---- */

struct hky_dns {
    struct hky_loop *loop;
};
static struct hky_dns_query *asked;
static struct hky_task answer_task;

enum hky_err hky_dns_new(struct hky_loop *loop, const char *resolver, struct hky_dns **out, struct hky_error *e)
{
    (void)resolver;
    (void)e;
    *out = calloc(1, sizeof(**out));
    (*out)->loop = loop;
    return HKY_OK;
}

void hky_dns_free(struct hky_dns **dns)
{
    free(*dns);
    *dns = NULL;
}

void hky_dns_cancel(struct hky_dns_query *q)
{
    if (asked == q)
        asked = NULL;
}

static void answer(struct hky_task *task)
{
    (void)task;
    struct hky_dns_query *q = asked;
    struct hky_dns_addr_answer a = {.status = HKY_DNS_OK, .n = 2};
    for (unsigned i = 0; i < a.n; i++) {
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (i == 0))};
        memcpy(&a.addr[i].ss, &v4, sizeof(v4));
        a.addr[i].len = sizeof(v4);
    }
    asked = NULL;
    if (q != NULL)
        q->on_addr(q, &a);
}

void hky_dns_ask_addr(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str host)
{
    (void)host;
    assert_null(asked);
    asked = q;
    answer_task.run = answer;
    hky_loop_post(dns->loop, &answer_task);
}

void hky_dns_ask_mx(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str domain)
{
    (void)dns;
    (void)q;
    (void)domain;
    fail_msg("no MX was to be asked for");
}

/* ---- cases ---- */

#define SECURED "S: 220 hi\nC: EHLO\nS: 250-x|250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS\nC: EHLO\nS: 250 x\n"
#define MAIL    "C: MAIL FROM:<sender@a.example>\nS: 250 m\nC: RCPT TO:<m0.r0@b.example>\n"
#define LATER   MAIL "GO\nS: 451 later\nEOF\n"
#define TAKEN   MAIL "S: 250 r\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nEOF\n"

/* What a reload does: the same relay is in a new policy, and the lane now belongs to that one. */
static void reload(struct fake *f, struct hky_policy *policy, struct hky_relay *relay)
{
    *policy = f->policy;
    policy->refs = 1000;
    *relay = f->relay;
    f->lanes[0].policy = policy;
    f->lanes[0].relay = relay;
    hky_deliver_wake(f->deliver, &f->lanes[0]);
}

struct detour_row {
    const char *name;
    enum hky_tls_mode tls;
    const char *first, *second; /* the scripts of both addresses; NULL: nobody connects there */
    unsigned n_lines;           /* that the first address reads until the reload */
    bool loses_ca;              /* the authorities cannot be read after the reload */
    bool waits;                 /* for a slot of the cap, until after the reload */
    enum hky_class class;
};

static int set_up_server(void **state)
{
    int err = set_up(state);
    server_tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate_file(server_tls, lab.cert, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(server_tls, lab.key, SSL_FILETYPE_PEM), 1);
    return err;
}

static int tear_down_server(void **state)
{
    SSL_CTX_free(server_tls);
    return tear_down(state);
}

static void run_row(const struct detour_row *row)
{
    struct server s;
    struct fake f;
    struct hky_policy policy;
    struct hky_relay relay;
    const char *scripts[] = {row->first, row->second, NULL};
    char away[80];
    snprintf(away, sizeof(away), "%s.away", lab.cert);
    server_start(&s, scripts);
    fake_init(&f, s.port);
    f.relay.host = "mail.example";
    f.relay.tls = row->tls;
    f.relay.pin = row->loses_ca ? "" : lab.pin;
    f.relay.ca = row->loses_ca ? lab.cert : "";
    add(&f, 1);
    run_until_lines(&f, &s, row->n_lines);
    if (row->waits) {
        f.next_take = HKY_TAKE_WAIT;
        server_go(&s);
        int64_t until = hky_mono_ms() + 8000;
        while (f.n_mails == 0 && hky_mono_ms() < until)
            hky_loop_turn(f.loop, 5);
        f.next_take = HKY_TAKE_JOB;
    }
    if (row->loses_ca)
        assert_int_equal(rename(lab.cert, away), 0);
    reload(&f, &policy, &relay);
    run_for(&f, 20);
    if (!row->waits)
        server_go(&s);
    run_until(&f, 1);
    if (row->loses_ca)
        assert_int_equal(rename(away, lab.cert), 0);
    if (f.outcomes[0][0].class != row->class)
        fail_msg("%s: %s, %s; the server: %s", row->name, hky_class_name(f.outcomes[0][0].class),
                 f.outcomes[0][0].reply.text, s.problem);
    finish(&f, &s);
    assert_int_equal(policy.refs, 1000);
}

static void test_a_detour_after_a_reload_is_as_secure_as_any_other_connection(void **state)
{
    (void)state;
    static const struct detour_row rows[] = {
        {"STARTTLS", HKY_TLS_STARTTLS, SECURED LATER, SECURED TAKEN, 5, false, false, HKY_CLASS_OK},
        {"the detour waits for a slot during the reload", HKY_TLS_STARTTLS, SECURED LATER, SECURED TAKEN, 5, false,
         true, HKY_CLASS_OK},
        {"TLS from the first octet", HKY_TLS_IMPLICIT, "TLS\nS: 220 hi\nC: EHLO\nS: 250 x\n" LATER,
         "TLS\nS: 220 hi\nC: EHLO\nS: 250 x\n" TAKEN, 3, false, false, HKY_CLASS_OK},
        {"opportunistic, and only the other address has TLS", HKY_TLS_OPPORTUNISTIC,
         "S: 220 hi\nC: EHLO\nS: 250 x\n" LATER, SECURED TAKEN, 3, false, false, HKY_CLASS_OK},
        {"the authorities cannot be read any more", HKY_TLS_STARTTLS, SECURED LATER, NULL, 5, true, false,
         HKY_CLASS_SYSTEM_TEMP},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        run_row(&rows[i]);
}

static struct hky_outbound_end the_end;
static bool has_ended;

static void on_the_end(void *ctx, struct hky_outbound *c, const struct hky_outbound_end *end)
{
    (void)ctx;
    (void)c;
    the_end = *end;
    has_ended = true;
}

static void on_the_open(void *ctx, struct hky_outbound *c)
{
    (void)ctx;
    (void)c;
    fail_msg("the connection is in clear and can send");
}

static struct hky_delivery *no_next(void *ctx, struct hky_outbound *c)
{
    (void)ctx;
    (void)c;
    return NULL;
}

/* Whoever opens a connection and forgets what TLS needs gets none. */
static void test_a_connection_that_must_be_secure_is_never_in_clear(void **state)
{
    (void)state;
    static const struct hky_outbound_ops ops = {.next = no_next, .open = on_the_open, .closed = on_the_end};
    static const enum hky_tls_mode modes[] = {HKY_TLS_STARTTLS, HKY_TLS_IMPLICIT};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {"S: 220 hi\nEOF\n", "S: 220 hi\nEOF\n", NULL};
        struct hky_dns_mx host = {.host = "mail.example"};
        struct hky_dns *dns;
        struct hky_error e;
        server_start(&s, scripts);
        fake_init(&f, s.port);
        f.relay.tls = modes[i];
        assert_int_equal(hky_dns_new(f.loop, "", &dns, &e), HKY_OK);
        has_ended = false;
        struct hky_outbound_params p = {.loop = f.loop,
                                        .dns = dns,
                                        .policy = &f.policy,
                                        .relay = &f.relay,
                                        .hello = "me.example",
                                        .hosts = &host,
                                        .n_hosts = 1,
                                        .port = s.port,
                                        .is_plain = true,
                                        .ops = &ops};
        hky_outbound_new(&p);
        int64_t until = hky_mono_ms() + 8000;
        while (!has_ended && hky_mono_ms() < until)
            hky_loop_turn(f.loop, 5);
        assert_true(has_ended);
        assert_int_equal(the_end.stage, HKY_STAGE_TLS);
        assert_int_equal(the_end.class, HKY_CLASS_TLS);
        finish(&f, &s);
        hky_dns_free(&dns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_connection_that_must_be_secure_is_never_in_clear),
        cmocka_unit_test(test_a_detour_after_a_reload_is_as_secure_as_any_other_connection),
    };
    return cmocka_run_group_tests(tests, set_up_server, tear_down_server);
}
