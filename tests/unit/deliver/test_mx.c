/* Own delivery: names are answered by a fake, connections go to a server on loopback. */
#include "net/dns.h"
#include "unit/deliver/harness.h"

/* ---- the fake resolver ---- */

struct hky_dns {
    struct hky_loop *loop;
};
struct pending {
    struct hky_task task;
    struct hky_dns_query *q;
    char name[256];
    bool is_mx;
};
static enum hky_dns_status mx_status;
static const char *mx_hosts;  /* "10 a.example,20 b.example" */
static const char *addresses; /* "a.example=127.0.0.1+::1,b.example=" */
static unsigned n_mx_asked, n_addr_asked;
static const char *slow_name;      /* its address is not answered before release_answer */
static struct pending *unanswered; /* that question */

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
    struct pending *p = q->priv;
    if (p != NULL)
        p->q = NULL;
    q->priv = NULL;
}

static void answer_mx(struct hky_dns_query *q)
{
    struct hky_dns_mx_answer a = {.status = mx_status};
    for (const char *at = mx_hosts; mx_status == HKY_DNS_OK && *at != '\0';) {
        unsigned preference;
        char host[200];
        int n = 0;
        assert_int_equal(sscanf(at, "%u %199[^,]%n", &preference, host, &n), 2);
        a.mx[a.n].preference = (uint16_t)preference;
        snprintf(a.mx[a.n++].host, sizeof(a.mx[0].host), "%s", host);
        at += n + (at[n] == ',');
    }
    snprintf(a.text, sizeof(a.text), "%s", mx_status == HKY_DNS_OK ? "" : "the fake says no");
    q->on_mx(q, &a);
}

static void add_address(struct hky_dns_addr_answer *a, const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        memcpy(&a->addr[a->n].ss, &v4, sizeof(v4));
        a->addr[a->n++].len = sizeof(v4);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
        memcpy(&a->addr[a->n].ss, &v6, sizeof(v6));
        a->addr[a->n++].len = sizeof(v6);
    }
}

static void answer_addr(struct hky_dns_query *q, const char *name)
{
    struct hky_dns_addr_answer a = {.status = HKY_DNS_NO_NAME, .text = "no such name"};
    char wanted[300], one[100];
    snprintf(wanted, sizeof(wanted), "%s=", name);
    const char *at = strstr(addresses, wanted);
    for (at = at != NULL ? at + strlen(wanted) : ""; *at != '\0' && *at != ',';) {
        int n = 0;
        assert_int_equal(sscanf(at, "%99[^+,]%n", one, &n), 1);
        add_address(&a, one);
        at += n + (at[n] == '+');
    }
    if (a.n > 0)
        a.status = HKY_DNS_OK;
    q->on_addr(q, &a);
}

static void on_pending(struct hky_task *task)
{
    struct pending *p = HKY_CONTAINER(task, struct pending, task);
    struct hky_dns_query *q = p->q;
    if (q != NULL) {
        q->priv = NULL;
        if (p->is_mx)
            answer_mx(q);
        else
            answer_addr(q, p->name);
    }
    free(p);
}

static void ask(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str name, bool is_mx)
{
    struct pending *p = calloc(1, sizeof(*p));
    p->q = q;
    p->is_mx = is_mx;
    snprintf(p->name, sizeof(p->name), HKY_STR_FMT, HKY_STR_ARG(name));
    assert_null(q->priv);
    q->priv = p;
    p->task.run = on_pending;
    if (!is_mx && slow_name != NULL && strcmp(p->name, slow_name) == 0) {
        assert_null(unanswered);
        unanswered = p;
        return;
    }
    hky_loop_post(dns->loop, &p->task);
}

static void release_answer(struct fake *f)
{
    struct pending *p = unanswered;
    assert_non_null(p);
    unanswered = NULL;
    hky_loop_post(f->loop, &p->task);
}

void hky_dns_ask_mx(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str domain)
{
    n_mx_asked++;
    ask(dns, q, domain, true);
}

void hky_dns_ask_addr(struct hky_dns *dns, struct hky_dns_query *q, struct hky_str host)
{
    n_addr_asked++;
    ask(dns, q, host, false);
}

/* ---- cases ---- */

static void own_init(struct fake *f, uint16_t port, enum hky_dns_status status, const char *hosts, const char *addrs)
{
    fake_init(f, port);
    f->relay.is_mx = true;
    f->relay.host = "";
    f->lanes[0].destination = "b.example";
    f->lanes[1].destination = "c.example";
    mx_status = status;
    mx_hosts = hosts;
    addresses = addrs;
    n_mx_asked = 0;
    n_addr_asked = 0;
    slow_name = NULL;
    unanswered = NULL;
}

static void test_domains_without_mail(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum hky_dns_status status;
        enum hky_class class;
        bool is_temporary;
        uint8_t detail;
    } rows[] = {
        {"null MX", HKY_DNS_NULL_MX, HKY_CLASS_BAD_DOMAIN, false, 10},
        {"no such domain", HKY_DNS_NO_NAME, HKY_CLASS_BAD_DOMAIN, false, 2},
        {"neither MX nor address", HKY_DNS_NO_DATA, HKY_CLASS_BAD_DOMAIN, false, 2},
        {"the name servers fail", HKY_DNS_FAILED, HKY_CLASS_NETWORK, true, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake f;
        own_init(&f, 1, rows[i].status, "", "");
        add(&f, 2);
        run_until(&f, 2); /* the whole lane leads nowhere */
        for (unsigned k = 0; k < 2; k++) {
            const struct hky_outcome *o = &f.outcomes[k][0];
            if (o->class != rows[i].class || o->is_temporary != rows[i].is_temporary ||
                o->reply.enhanced[2] != rows[i].detail || f.mail_sent[k])
                fail_msg("%s: %s %d", rows[i].name, hky_class_name(o->class), o->reply.enhanced[2]);
            assert_int_equal(o->stage, HKY_STAGE_CONNECT);
            assert_int_equal(o->reply.origin, HKY_ORIGIN_DNS);
        }
        assert_int_equal(n_mx_asked, 1);
        finish(&f, NULL);
    }
}

#define GOOD OPEN GROUP("0") YES "S: 250 ok\nEOF\n"

static void test_the_next_host_is_tried(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hosts, *addrs, *first;
    } rows[] = {
        {"the first host refuses the connection", "10 a.example,20 b.example", "a.example=::1,b.example=127.0.0.1",
         NULL},
        {"the first host has no address", "10 a.example,20 b.example", "b.example=127.0.0.1", NULL},
        {"the first address refuses", "10 a.example", "a.example=::1+127.0.0.1", NULL},
        {"the first host is busy", "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.1",
         "S: 421 busy\nEOF\n"},
        {"the first host hangs up", "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.1", "CLOSE\n"},
        {"the first host says nothing", "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.1",
         "EOF\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].first != NULL ? rows[i].first : GOOD, rows[i].first != NULL ? GOOD : NULL,
                                 NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, rows[i].hosts, rows[i].addrs);
        f.relay.timeout.greeting_ms = 500;
        add(&f, 1);
        run_until(&f, 1);
        if (f.outcomes[0][0].class != HKY_CLASS_OK)
            fail_msg("%s: %s", rows[i].name, f.outcomes[0][0].reply.text);
        finish(&f, &s);
    }
}

static void run_until_asked(struct fake *f, const char *what)
{
    int64_t until = hky_mono_ms() + 8000;
    while (unanswered == NULL && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 20);
    if (unanswered == NULL)
        fail_msg("%s: the slow name was not asked for", what);
}

/* What was to end the wait for the first host ends neither the question for the second one's address, which the
 * resolver bounds, nor the second one's turn. */
static void test_a_host_whose_name_is_answered_late_has_its_turn(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hosts, *addrs, *first;
    } rows[] = {
        {"421, two hosts", "10 a.example,20 slow.example", "a.example=127.0.0.1,slow.example=127.0.0.2",
         "S: 421 busy\nCLOSE\n"},
        {"421, three hosts", "10 a.example,20 slow.example,30 c.example", "a.example=127.0.0.1,c.example=127.0.0.2",
         "S: 421 busy\nCLOSE\n"},
        {"421 to EHLO", "10 a.example,20 slow.example,30 c.example", "a.example=127.0.0.1,c.example=127.0.0.2",
         "S: 220 hi\nC: EHLO\nS: 421 busy\nCLOSE\n"},
        {"lost", "10 a.example,20 slow.example,30 c.example", "a.example=127.0.0.1,c.example=127.0.0.2", "RST\n"},
        {"refused", "10 a.example,20 slow.example,30 c.example", "a.example=::1,c.example=127.0.0.2", NULL},
        {"no greeting", "10 a.example,20 slow.example,30 c.example", "a.example=127.0.0.1,c.example=127.0.0.2",
         "EOF\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].first != NULL ? rows[i].first : GOOD, rows[i].first != NULL ? GOOD : NULL,
                                 NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, rows[i].hosts, rows[i].addrs);
        f.relay.timeout = (struct hky_relay_timeouts){200, 200, 200, 200, 200};
        slow_name = "slow.example";
        add(&f, 1);
        run_until_asked(&f, rows[i].name);
        unsigned n_asked = n_addr_asked;
        run_for(&f, 400); /* longer than any wait at a host */
        if (f.n_done > 0 || n_addr_asked != n_asked)
            fail_msg("%s: the slow answer was not waited for", rows[i].name);
        f.relay.timeout = (struct hky_relay_timeouts){5000, 5000, 5000, 5000, 5000};
        release_answer(&f);
        run_until(&f, 1);
        if (f.outcomes[0][0].class != HKY_CLASS_OK)
            fail_msg("%s: %s", rows[i].name, f.outcomes[0][0].reply.text);
        finish(&f, &s);
    }
}

#define LEAVE "C: QUIT\nS: 221 x\n"

/* Whatever one host says that another may see otherwise, the next one is asked within the same attempt. */
static void test_hosts_before_steps(void **state)
{
    (void)state;
    static const struct {
        const char *name, *first;
        bool is_last; /* the first host's word is the last one */
    } rows[] = {
        {"greeting 554", "S: 554 5.7.1 blocked\nEOF\n", false},
        {"greeting 521", "S: 521 no mail here\nEOF\n", false},
        {"EHLO 421", "S: 220 hi\nC: EHLO\nS: 421 busy\nEOF\n", false},
        {"EHLO 550", "S: 220 hi\nC: EHLO\nS: 550 5.7.1 no\nEOF\n", false},
        {"closed after EHLO", "S: 220 hi\nC: EHLO\nS: 250 x\nC: MAIL\nCLOSE\n", false},
        {"MAIL 421", OPEN GROUP("0") "S: 421 4.3.2 later\nCLOSE\n", false},
        {"MAIL 451", OPEN GROUP("0") "S: 451 4.3.0 m|503 r|503 d\n" LEAVE, false},
        {"MAIL 550", OPEN GROUP("0") "S: 550 5.1.8 m|503 r|503 d\nEOF\n", true},
        {"MAIL 550 of connections", OPEN GROUP("0") "S: 550 5.7.1 too many connections from you|503 r|503 d\n" LEAVE,
         false},
        {"RCPT 451", OPEN GROUP("0") "S: 250 m|451 4.7.1 r|503 d\nC: RSET\nS: 250 x\n" LEAVE, false},
        {"RCPT 550", OPEN GROUP("0") "S: 250 m|550 5.1.1 r|503 d\nC: RSET\nS: 250 x\nEOF\n", true},
        {"DATA 451", OPEN GROUP("0") "S: 250 m|250 r|451 d\nC: RSET\nS: 250 x\n" LEAVE, false},
        {"dot 451", OPEN GROUP("0") YES "S: 451 4.3.0 later\n" LEAVE, false},
        {"dot 550", OPEN GROUP("0") YES "S: 550 5.7.1 spam\nEOF\n", true},
        {"closed before DATA was answered", OPEN GROUP("0") "S: 250 m|250 r\nCLOSE\n", false},
        {"silence before DATA was answered", OPEN GROUP("0") "S: 250 m|250 r\nEOF\n", false},
        {"closed after the dot", OPEN GROUP("0") YES "CLOSE\n", true}, /* may have been delivered */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 2; i++) {
        bool has_two_hosts = i % 2 == 0; /* or one with two addresses */
        size_t k = i / 2;
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[k].first, rows[k].is_last ? NULL : OPEN GROUP("0") YES "S: 250 ok\n" LEAVE, NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, has_two_hosts ? "10 a.example,20 b.example" : "10 a.example",
                 has_two_hosts ? "a.example=127.0.0.2,b.example=127.0.0.3" : "a.example=127.0.0.2+127.0.0.3");
        f.relay.timeout.data_ms = 500;
        add(&f, 1);
        run_until(&f, 1);
        if ((f.outcomes[0][0].class == HKY_CLASS_OK) == rows[k].is_last)
            fail_msg("%s: %s", rows[k].name, f.outcomes[0][0].reply.text);
        finish(&f, &s);
        if (strcmp(s.hosts, rows[k].is_last ? "2" : "23") != 0)
            fail_msg("%s: hosts %s", rows[k].name, s.hosts);
    }
}

static void test_only_who_was_put_off_goes_to_the_next_host(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN "C: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\n"
                                  "S: 250 m|250 a|450 4.2.0 later|550 5.1.1 no|354 go\nBODY\nS: 250 ok\n" LEAVE,
                             OPEN "C: MAIL\nC: RCPT TO:<m0.r1@b.example>\nC: DATA\n" YES "S: 250 ok\n" LEAVE, NULL};
    server_start(&s, scripts);
    own_init(&f, s.port, HKY_DNS_OK, "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.3");
    f.rcpts = 3;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[0][1].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[0][2].reply.code, 550);
    finish(&f, &s);
    assert_int_equal(f.n_mails, 2); /* both count toward a cap */
}

static void run_until_waits(struct fake *f, const char *what)
{
    int64_t until = hky_mono_ms() + 8000;
    while (f->waits == NULL && hky_mono_ms() < until)
        hky_loop_turn(f->loop, 20);
    if (f->waits == NULL)
        fail_msg("%s: no slot was asked for", what);
}

/* A message that was put off, and may go to the next host when there is a slot of the cap. */
static void test_a_slot_for_the_next_host_is_waited_for(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum hky_take then;
        bool is_moved; /* meanwhile the lane leads to other hosts */
        const char *hosts;
        uint16_t code;
    } rows[] = {
        {"there is one", HKY_TAKE_JOB, false, "23", 250},
        {"there is one, and the lane has moved", HKY_TAKE_JOB, true, "23", 250},
        {"there is none", HKY_TAKE_EMPTY, false, "2", 451},
        {"there is none, and the lane has moved", HKY_TAKE_EMPTY, true, "2", 451},
        {"the engine stops", HKY_TAKE_WAIT, false, "2", 451},
        {"the engine stops, and the lane has moved", HKY_TAKE_WAIT, true, "2", 451},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {OPEN GROUP("0") YES "S: 451 4.3.0 later\n" LEAVE,
                                 rows[i].then == HKY_TAKE_JOB ? OPEN GROUP("0") YES "S: 250 ok\n" LEAVE : NULL, NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.3");
        f.next_take = HKY_TAKE_WAIT;
        add(&f, 1);
        run_until_waits(&f, rows[i].name);
        struct hky_policy newer = f.policy;
        newer.refs = 1000;
        if (rows[i].is_moved) { /* a reload has its MX asked for again */
            mx_hosts = "10 c.example";
            f.lanes[0].policy = &newer;
            hky_deliver_wake(f.deliver, &f.lanes[0]);
            run_for(&f, 50);
            assert_int_equal(n_mx_asked, 2);
        }
        for (int k = 0; k < 2; k++) { /* woken too early, it goes on waiting */
            wake_for_slot(&f, HKY_TAKE_WAIT);
            run_for(&f, 20);
        }
        if (rows[i].then == HKY_TAKE_WAIT)
            hky_deliver_drain(f.deliver);
        else
            wake_for_slot(&f, rows[i].then);
        run_until(&f, 1);
        if (f.outcomes[0][0].reply.code != rows[i].code)
            fail_msg("%s: %s", rows[i].name, f.outcomes[0][0].reply.text);
        finish(&f, &s);
        assert_string_equal(s.hosts, rows[i].hosts);
        assert_int_equal(f.n_mails, 2);
        assert_int_equal(newer.refs, 1000);
    }
}

/* A host names the moment of the next attempt, and no other host can be tried: the schedule's clock says how long that
 * is. */
static void test_a_date_that_was_kept_means_that_moment(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {
        OPEN GROUP("0") YES "S: 451 4.7.1 greylisted, try again after Sat, 28 Nov 2026 21:00:00 +0000\n" LEAVE, NULL};
    server_start(&s, scripts);
    own_init(&f, s.port, HKY_DNS_OK, "10 a.example", "a.example=127.0.0.2+127.0.0.3");
    f.clock.stopped_at_ms = INT64_C(1795896000000); /* an hour before */
    f.next_take = HKY_TAKE_EMPTY;
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].reply.code, 451);
    assert_int_equal(f.outcomes[0][0].retry_after_sec, 3600);
    finish(&f, &s);
}

/* All hosts have put it off: no slot is waited for in vain. */
static void test_no_slot_is_asked_for_after_the_last_host(void **state)
{
    (void)state;
    static const struct {
        const char *hosts, *addrs, *connected;
        unsigned n_asked;
    } rows[] = {
        {"10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.3", "23", 3},
        {"10 gone.example,20 a.example,30 b.example", "a.example=127.0.0.2,b.example=127.0.0.3", "23", 5},
        {"10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.3+127.0.0.4", "234", 5},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *off = OPEN GROUP("0") YES "S: 451 4.3.0 later\n" LEAVE,
                   *scripts[] = {off, off, strlen(rows[i].connected) > 2 ? off : NULL, NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, rows[i].hosts, rows[i].addrs);
        add(&f, 1);
        run_until(&f, 1);
        assert_int_equal(f.outcomes[0][0].reply.code, 451);
        assert_int_equal(f.n_mails, strlen(rows[i].connected));
        assert_int_equal(n_addr_asked, rows[i].n_asked);
        finish(&f, &s);
        assert_string_equal(s.hosts, rows[i].connected);
    }
}

/* A connection that has served another message came past its first host without this one, which is tried there. */
static void test_the_first_host_is_tried_after_the_second(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 421 busy\nCLOSE\n",
                             OPEN GROUP("0") YES "S: 250 ok\n" GROUP("1") YES "S: 451 later\n" LEAVE,
                             OPEN GROUP("1") YES "S: 250 ok\n" LEAVE, NULL};
    server_start(&s, scripts);
    own_init(&f, s.port, HKY_DNS_OK, "10 a.example,20 b.example", "a.example=127.0.0.2,b.example=127.0.0.3");
    add(&f, 1);
    run_until(&f, 1);
    add(&f, 1);
    run_until(&f, 2);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    finish(&f, &s);
    assert_string_equal(s.hosts, "232");
}

/* The first host puts off one recipient, and ends while the second piece of the message for the other one is being
 * read: whoever has no final answer goes to the next host, and the piece that comes late finds nobody. */
static void test_the_first_host_ends_while_the_message_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *name, *end, *second;
        uint16_t code; /* of the second recipient */
    } rows[] = {
#define BOTH  OPEN "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 m|250 a|250 b|354 go\nBODY\nS: 250 ok\n" LEAVE
#define FIRST OPEN "C: MAIL\nC: RCPT TO:<m0.r0@b.example>\nC: DATA\n" YES "S: 250 ok\n" LEAVE
        {"reset", "RST\n", BOTH, 250},
        {"closed", "CLOSE\n", BOTH, 250},
        {"421", "S: 421 4.3.2 later\nCLOSE\n", BOTH, 250},
        {"451", "S: 451 4.3.0 later\nEOF\n", BOTH, 250},
        {"552", "S: 552 5.3.4 too big\nEOF\n", FIRST, 552},
        {"no SMTP", "S: hello\nEOF\n", BOTH, 250},
        {"a reply that nobody asked for", "S: 250 what\nEOF\n", BOTH, 250},
        {"silence", "EOF\n", BOTH, 250},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        char first[600];
        snprintf(first, sizeof(first),
                 "%sC: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 m|450 4.2.0 later|250 b|354 go\nGO\n%s", OPEN,
                 rows[i].end);
        const char *scripts[] = {first, rows[i].second, NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, "10 a.example", "a.example=127.0.0.2+127.0.0.3");
        f.relay.timeout.data_ms = strcmp(rows[i].name, "silence") == 0 ? 300 : 5000;
        f.rcpts = 2;
        f.is_piecewise = f.holds_reads = true;
        f.n_free = 1;
        add(&f, 1);
        run_until_held(&f);
        struct hky_body_read *late = f.held;
        f.held = NULL;
        f.holds_reads = false; /* for the next host */
        f.relay.timeout.data_ms = 5000;
        server_go(&s);
        run_until(&f, 1);
        if (f.outcomes[0][0].class != HKY_CLASS_OK || f.outcomes[0][1].reply.code != rows[i].code)
            fail_msg("%s: %s, %s", rows[i].name, f.outcomes[0][0].reply.text, f.outcomes[0][1].reply.text);
        f.held = late;
        release_read(&f, HKY_OK);
        finish(&f, &s);
        assert_string_equal(s.hosts, "23");
#undef BOTH
#undef FIRST
    }
}

/* What is told in the end, and where the trying ends. */
static void test_the_word_that_counts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *addrs, *scripts[8], *hosts;
        unsigned bound;
        uint16_t code;
        bool is_temporary;
        enum hky_take take;
    } rows[] = {
        {"put off, then nobody there",
         "a.example=127.0.0.2+::1",
         {OPEN GROUP("0") "S: 250 m|451 4.7.1 r|503 d\nC: RSET\nS: 250 x\n" LEAVE},
         "2",
         0,
         451,
         true,
         HKY_TAKE_JOB},
        {"put off, then not this message",
         "a.example=127.0.0.2+127.0.0.3",
         {OPEN GROUP("0") "S: 250 m|451 4.7.1 r|503 d\nC: RSET\nS: 250 x\n" LEAVE,
          OPEN GROUP("0") "S: 250 m|550 5.1.1 r|503 d\nC: RSET\nS: 250 x\n" LEAVE},
         "23",
         0,
         550,
         false,
         HKY_TAKE_JOB},
        {"refused for good by one, lost at the other",
         "a.example=127.0.0.2+127.0.0.3",
         {"S: 554 5.7.1 no\nEOF\n", "CLOSE\n"},
         "23",
         0,
         0,
         true,
         HKY_TAKE_JOB},
        {"lost at one, refused for good by the other",
         "a.example=127.0.0.2+127.0.0.3",
         {"CLOSE\n", "S: 554 5.7.1 no\nEOF\n"},
         "23",
         0,
         0,
         true,
         HKY_TAKE_JOB},
        {"refused for good by both",
         "a.example=127.0.0.2+127.0.0.3",
         {"S: 554 5.7.1 a\nEOF\n", "S: 521 b\nEOF\n"},
         "23",
         0,
         521,
         false,
         HKY_TAKE_JOB},
        {"five hosts",
         "a.example=127.0.0.2+127.0.0.3+127.0.0.4+127.0.0.5+127.0.0.6+127.0.0.7+127.0.0.8",
         {"S: 421 a\nEOF\n", "S: 421 b\nEOF\n", "S: 421 c\nEOF\n", "S: 421 d\nEOF\n", "S: 421 e\nALONE\n"},
         "23456",
         0,
         421,
         true,
         HKY_TAKE_JOB},
        {"as many as the policy says",
         "a.example=127.0.0.2+127.0.0.3+127.0.0.4",
         {"S: 421 a\nEOF\n", OPEN GROUP("0") YES "S: 451 b\n" LEAVE},
         "23",
         2,
         451,
         true,
         HKY_TAKE_JOB},
        {"no slot of the cap for another MAIL",
         "a.example=127.0.0.2+127.0.0.3",
         {OPEN GROUP("0") YES "S: 451 b\n" LEAVE},
         "2",
         0,
         451,
         true,
         HKY_TAKE_EMPTY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        server_start(&s, rows[i].scripts);
        own_init(&f, s.port, HKY_DNS_OK, "10 a.example", rows[i].addrs);
        f.policy.engine.bounds.hosts = rows[i].bound;
        f.next_take = rows[i].take;
        add(&f, 1);
        run_until(&f, 1);
        if (f.outcomes[0][0].reply.code != rows[i].code || f.outcomes[0][0].is_temporary != rows[i].is_temporary)
            fail_msg("%s: %u %s", rows[i].name, f.outcomes[0][0].reply.code, f.outcomes[0][0].reply.text);
        finish(&f, &s);
        if (strcmp(s.hosts, rows[i].hosts) != 0)
            fail_msg("%s: hosts %s", rows[i].name, s.hosts);
    }
}

static void test_mail_does_not_come_back_to_ourselves(void **state)
{
    (void)state;
    static const struct {
        const char *name, *hosts;
        bool is_elsewhere; /* our name, but the port is not ours */
        unsigned n_tried;  /* 0: it would come back */
    } rows[] = {
        {"we are the only one", "10 me.example", false, 0},
        {"we are the best", "10 Me.Example,20 a.example", false, 0},
        {"we are as good as another", "10 a.example,10 me.example,20 b.example", false, 0},
        {"there is a better one", "5 a.example,10 b.example,10 me.example,20 c.example", false, 1},
        {"we are not among them", "10 a.example,20 b.example,30 some.example", false, 3},
        {"another server has our name", "10 me.example,20 a.example", true, 2},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake f;
        own_init(&f, 1, HKY_DNS_OK, rows[i].hosts, "");
        const struct hky_listen listen = {.addr = "127.0.0.1", .port = rows[i].is_elsewhere ? 587 : 1};
        f.policy.engine.listen = &listen;
        f.policy.engine.n_listen = 1;
        add(&f, 2);
        run_until(&f, 2);
        for (unsigned k = 0; k < 2; k++) {
            const struct hky_outcome *o = &f.outcomes[k][0];
            bool is_loop = o->class == HKY_CLASS_UNKNOWN && o->scope == HKY_SCOPE_DOMAIN && !o->is_temporary &&
                           o->reply.enhanced[1] == 4 && o->reply.enhanced_detail == 6;
            if (is_loop != (rows[i].n_tried == 0))
                fail_msg("%s: %s %s", rows[i].name, hky_class_name(o->class), o->reply.text);
        }
        if (n_addr_asked != rows[i].n_tried * 2)
            fail_msg("%s: %u hosts tried", rows[i].name, n_addr_asked / 2);
        finish(&f, NULL);
    }
}

static void test_a_refusal_for_good_is_final(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {"S: 554 5.7.1 blocked\nEOF\n", NULL};
    server_start(&s, scripts);
    own_init(&f, s.port, HKY_DNS_OK, "5 gone.example,10 a.example,20 b.example",
             "a.example=127.0.0.1,b.example=127.0.0.1"); /* one and the same machine */
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].reply.code, 554);
    assert_int_equal(f.outcomes[0][0].stage, HKY_STAGE_GREETING);
    assert_int_not_equal(f.outcomes[0][0].class, HKY_CLASS_NETWORK); /* that was the host without an address */
    finish(&f, &s);
}

/* A host with an address of IPv6 at which nobody listens: what its server says of the login is what counts. */
static void test_a_refused_login_counts_more_than_an_unreachable_address(void **state)
{
    (void)state;
    static const struct {
        const char *name, *secret, *script;
        uint16_t code;
    } rows[] = {
        {"a wrong password", "pw", "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nC: AUTH PLAIN\nS: 535 5.7.8 no\nEOF\n",
         535},
        {"no mechanism", "pw", "S: 220 hi\nC: EHLO\nS: 250 x\nEOF\n", 0},
        {"no password", NULL, "S: 220 hi\nC: EHLO\nS: 250-x|250 AUTH PLAIN\nEOF\n", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server s;
        struct fake f;
        const char *scripts[] = {rows[i].script, NULL};
        server_start(&s, scripts);
        own_init(&f, s.port, HKY_DNS_OK, "", "two.example=::1+127.0.0.1");
        f.relay.is_mx = false;
        f.relay.host = "two.example";
        f.relay.user = "user";
        f.secret = rows[i].secret;
        add(&f, 1);
        run_until(&f, 1);
        const struct hky_outcome *o = &f.outcomes[0][0];
        if (o->class != HKY_CLASS_RELAY_AUTH || o->stage != HKY_STAGE_AUTH || o->reply.code != rows[i].code)
            fail_msg("%s: %s %u %s", rows[i].name, hky_class_name(o->class), o->reply.code, o->reply.text);
        finish(&f, &s);
    }
}

static void test_domains_of_one_site_share_connections(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    const char *scripts[] = {OPEN GROUP("0") YES GROUP("1") "S: 250 ok|250 m|250 r|354 go\nBODY\nS: 250 ok\nEOF\n",
                             NULL};
    server_start(&s, scripts);
    own_init(&f, s.port, HKY_DNS_OK, "10 a.example", "a.example=127.0.0.1");
    f.n_lanes = 2;
    add(&f, 2);
    run_until(&f, 2);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(f.outcomes[1][0].class, HKY_CLASS_OK);
    assert_int_equal(n_mx_asked, 2);
    hky_deliver_forget_lane(f.deliver, &f.lanes[1]);
    assert_null(f.lanes[1].deliver);
    finish(&f, &s);
}

static void test_a_lane_may_go_while_its_mx_is_asked(void **state)
{
    (void)state;
    struct fake f;
    own_init(&f, 1, HKY_DNS_OK, "10 a.example", "a.example=127.0.0.1");
    add(&f, 1);
    hky_deliver_forget_lane(f.deliver, &f.lanes[0]);
    run_for(&f, 50);
    assert_int_equal(f.n_done, 0);
    finish(&f, NULL);
}

/* Servers trust whoever comes from their own machine: a domain that names it as its mail host gets nothing there. */
static void test_this_machine_is_nobodys_mail_host(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "a.example=127.0.0.1",
        "a.example=127.0.0.2",
        "a.example=127.255.255.254",
        "a.example=0.0.0.0",
        "a.example=0.1.2.3",
        "a.example=::1",
        "a.example=::",
        "a.example=::ffff:127.0.0.1",
        "a.example=::ffff:0.0.0.1",
        "a.example=127.0.0.1+127.1.2.3+::1",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake f;
        own_init(&f, 25, HKY_DNS_OK, "10 a.example", rows[i]);
        add(&f, 1);
        run_until(&f, 1);
        if (f.outcomes[0][0].class != HKY_CLASS_BAD_DOMAIN || strstr(f.outcomes[0][0].reply.text, "loopback") == NULL)
            fail_msg("%s: %s %s", rows[i], hky_class_name(f.outcomes[0][0].class), f.outcomes[0][0].reply.text);
        finish(&f, NULL);
    }
}

static void test_redirect_takes_everything(void **state)
{
    (void)state;
    struct server s;
    struct fake f;
    char redirect[40];
    const char *scripts[] = {GOOD, NULL};
    server_start(&s, scripts);
    own_init(&f, 1, HKY_DNS_NO_NAME, "", "127.0.0.1=127.0.0.1");
    snprintf(redirect, sizeof(redirect), "127.0.0.1:%u", s.port);
    f.policy.engine.redirect = redirect;
    f.relay.tls = HKY_TLS_STARTTLS; /* asked of the relay, not of the sink */
    f.relay.user = "user";
    add(&f, 1);
    run_until(&f, 1);
    assert_int_equal(f.outcomes[0][0].class, HKY_CLASS_OK);
    assert_int_equal(n_mx_asked, 0);
    assert_int_equal(f.n_secrets, 0);
    finish(&f, &s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains_without_mail),
        cmocka_unit_test(test_the_next_host_is_tried),
        cmocka_unit_test(test_a_host_whose_name_is_answered_late_has_its_turn),
        cmocka_unit_test(test_hosts_before_steps),
        cmocka_unit_test(test_only_who_was_put_off_goes_to_the_next_host),
        cmocka_unit_test(test_a_slot_for_the_next_host_is_waited_for),
        cmocka_unit_test(test_a_date_that_was_kept_means_that_moment),
        cmocka_unit_test(test_no_slot_is_asked_for_after_the_last_host),
        cmocka_unit_test(test_the_first_host_is_tried_after_the_second),
        cmocka_unit_test(test_the_first_host_ends_while_the_message_is_read),
        cmocka_unit_test(test_the_word_that_counts),
        cmocka_unit_test(test_mail_does_not_come_back_to_ourselves),
        cmocka_unit_test(test_a_refusal_for_good_is_final),
        cmocka_unit_test(test_a_refused_login_counts_more_than_an_unreachable_address),
        cmocka_unit_test(test_domains_of_one_site_share_connections),
        cmocka_unit_test(test_a_lane_may_go_while_its_mx_is_asked),
        cmocka_unit_test(test_this_machine_is_nobodys_mail_host),
        cmocka_unit_test(test_redirect_takes_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
